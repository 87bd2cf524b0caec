#include "express.h"
#include "device.h"
#include "kind.h"
#include "text.h"

#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SHORT = 256 }; /* bytes */

/* ENOENT: nobody waits for it any more. */
static int reply(struct session *session, uint64_t unique, int error, const void *data, size_t size)
{
    struct fuse_out_header header = {.len = sizeof header + size, .error = error, .unique = unique};
    const int fd = device_fd(session);
    _Alignas(SHORT) char whole[SHORT]; /* in one piece, and one page, the kernel has less to do */
    if (header.len <= sizeof whole) {
        memcpy(whole, &header, sizeof header);
        if (size)
            memcpy(whole + sizeof header, data, size);
        return write(fd, whole, header.len) < 0 ? -errno : 0;
    }
    struct iovec iov[] = {{&header, sizeof header}, {(void *)data, size}};
    return writev(fd, iov, 2) < 0 ? -errno : 0;
}

static void answer(struct parked *parked, uint64_t unique, int error)
{
    struct session *session = parked->handle->session;
    if (error) {
        reply(session, unique, error, NULL, 0);
    } else if (parked->direction == SEND) {
        const struct fuse_write_out out = {.size = (uint32_t)parked->done};
        reply(session, unique, 0, &out, sizeof out);
    } else {
        const struct kind *kind = parked->handle->kind; /* the handle may go right after the answer */
        if (reply(session, unique, 0, parked->given, parked->given_size) == -ENOENT)
            kind->undo(parked);
        result_release(parked->result);
    }
}

/* What the handle has of an earlier read, nothing at its end. */
static void read_on(struct handle *handle, uint64_t unique, const struct fuse_read_in *in)
{
    const char *data;
    size_t size = in->size;
    struct result *result = result_at(handle, (off_t)in->offset, &data, &size);
    reply(handle->session, unique, 0, data, size);
    result_release(result);
}

/* False: it has to wait, and nothing has been done. */
static bool serve(struct parked *parked, uint64_t unique, uint32_t flags)
{
    struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
    struct handle *handle = parked->handle;
    __atomic_store_n(&handle->flags, (int)flags, __ATOMIC_RELAXED); /* O_NONBLOCK may come and go */
    int error = park_at_once(parked, &done);
    bool answered = error != -EAGAIN || handle_is_nonblocking(handle);
    parked_finish_all(&done); /* they have waited longer */
    if (answered)
        answer(parked, unique, error);
    return answered;
}

static bool express_read(const struct fuse_in_header *header, const struct fuse_read_in *in)
{
    struct handle *handle = (struct handle *)(uintptr_t)in->fh;
    if (!handle->kind->express)
        return false;
    if (in->offset && !handle->view->stream) {
        read_on(handle, header->unique, in);
        return true;
    }
    struct parked parked = {.handle = handle,
                            .object = handle->object,
                            .thread = (pid_t)header->pid,
                            .uid = header->uid,
                            .direction = RECEIVE,
                            .size = in->size};
    return serve(&parked, header->unique, in->flags);
}

static bool express_write(const struct fuse_in_header *header, const struct fuse_write_in *in)
{
    struct handle *handle = (struct handle *)(uintptr_t)in->fh;
    if (!handle->kind->express)
        return false;
    const bool is_text = handle->view->text;
    if (is_text ? !text_is_one((char *)(in + 1), in->size) : in->size > handle->session->message_max)
        return false;
    if (is_text)
        text_begin(handle, (char *)(in + 1), in->size, (pid_t)header->pid, header->uid);
    struct parked parked = {.handle = handle,
                            .object = handle->object,
                            .thread = (pid_t)header->pid,
                            .uid = header->uid,
                            .direction = SEND,
                            .data = (char *)(in + 1),
                            .length = in->size};
    return serve(&parked, header->unique, in->flags);
}

bool express(struct session *session, const void *request, size_t size)
{
    const struct fuse_in_header *header = request;
    if (session->debug || size < sizeof *header || header->len != size)
        return false;
    if (header->opcode == FUSE_READ && size >= sizeof *header + sizeof(struct fuse_read_in))
        return express_read(header, (const void *)(header + 1));
    if (header->opcode == FUSE_WRITE && size >= sizeof *header + sizeof(struct fuse_write_in)) {
        const struct fuse_write_in *in = (const void *)(header + 1);
        return size - sizeof *header - sizeof *in >= in->size && express_write(header, in);
    }
    return false;
}

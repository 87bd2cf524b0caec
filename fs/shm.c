/* Shared memory objects as files, which they are. */
#include "kind.h"
#include "rights.h"

#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

/* To the size that the view says. The kernel looks at our limit for files' sizes, not the caller's. */
static int resize(const struct handle *handle, int fd, const struct caller *caller)
{
    const int64_t size = handle->view->size;
    int64_t now = ipc_shm_size(fd);
    rlim_t limit;
    int error = now < 0 ? (int)now : limit_of_process(caller->pid, "Max file size", &limit);
    if (error)
        return error;
    return size > now && (uint64_t)size > limit ? -EFBIG : ipc_shm_resize(fd, size);
}

static int open_shm(struct handle *handle, const char *name, mode_t mode, const struct caller *caller)
{
    const int flags = O_ACCMODE | O_CREAT | O_EXCL | O_TRUNC; /* not O_APPEND, which comes and goes: write_shm */
    int fd = handle->place >= 0 ? ipc_shm_reopen(handle->place, handle->flags & flags)
                                : ipc_shm_open(handle->session->ipc, name, handle->flags & flags, mode);
    if (fd < 0)
        return fd;
    if (handle->view->size >= 0 && (handle->flags & O_ACCMODE) != O_RDONLY) {
        int error = resize(handle, fd, caller);
        if (error) {
            close(fd);
            return error;
        }
    }
    handle->fd = fd;
    return 0;
}

static void close_shm(struct handle *handle)
{
    close(handle->fd);
}

static int descriptor(const struct handle *handle)
{
    return handle->fd;
}

static void read_shm(fuse_req_t req, struct handle *handle, size_t size, off_t offset)
{
    char *data = malloc(size);
    if (!data) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    ssize_t n = pread(handle->fd, data, size, offset);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_buf(req, data, n);
    free(data);
}

static void write_shm(fuse_req_t req, struct handle *handle, const char *data, size_t size, off_t offset)
{
    struct iovec iov = {(void *)data, size};
    rights_lower(); /* set-user-ID must not survive a write */
    ssize_t n = pwritev2(handle->fd, &iov, 1, offset,
                         __atomic_load_n(&handle->flags, __ATOMIC_RELAXED) & O_APPEND ? RWF_APPEND : 0);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_write(req, n);
}

const struct kind shm_kind = {
    .id = IPC_SHM,
    .descriptors = 1,
    .plain = true,
    .open = open_shm,
    .close = close_shm,
    .descriptor = descriptor,
    .read = read_shm,
    .write = write_shm,
};

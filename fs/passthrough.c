#include "passthrough.h"
#include "device.h"
#include "kind.h"
#include "rights.h"

#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* What <linux/fuse.h> says since Linux 6.9. */
struct backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

static int open_backing(struct session *session, int fd)
{
    struct backing_map map = {.fd = fd};
    return ioctl(fuse_session_fd(session->fuse), BACKING_OPEN, &map);
}

static void close_backing(struct session *session, uint32_t backing)
{
    ioctl(fuse_session_fd(session->fuse), BACKING_CLOSE, &backing);
}

/* Is it permitted? It was agreed upon, but takes CAP_SYS_ADMIN each time. */
static bool probe(struct session *session)
{
    int fd = memfd_create("ipcfs", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    int backing = open_backing(session, fd);
    close(fd);
    if (backing <= 0)
        return false;
    close_backing(session, backing);
    return true;
}

/* ---- Backing files ---- */

bool passthrough_begin(struct handle *handle)
{
    struct session *session = handle->session;
    struct node *node = handle->node;
    char path[64];
    if (!__atomic_load_n(&session->shared_mmap, __ATOMIC_ACQUIRE) || handle->kind->id != IPC_SHM ||
        !handle->kind->plain)
        return false;
    pthread_mutex_lock(&session->nodes_lock);
    if (!node->backed) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", handle->fd);
        rights_raise();
        /* O_NONBLOCK: not to wait for somebody's lease. Then there is no backing file, and requests come to us. */
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        /* The kernel will read and write with the rights of this moment: they must not keep a set-user-ID bit. */
        rights_lower();
        int backing = fd < 0 ? -1 : open_backing(session, fd);
        if (fd >= 0)
            close(fd);
        node->backing = backing > 0 ? backing : 0;
    }
    if (node->backing) {
        node->backed++;
        handle->backed = true;
    }
    pthread_mutex_unlock(&session->nodes_lock);
    return handle->backed;
}

void passthrough_end(struct handle *handle)
{
    struct session *session = handle->session;
    if (!handle->backed)
        return;
    pthread_mutex_lock(&session->nodes_lock);
    if (--handle->node->backed == 0) {
        close_backing(session, handle->node->backing);
        handle->node->backing = 0;
    }
    pthread_mutex_unlock(&session->nodes_lock);
}

/* ---- Messages that libfuse's own interface can't say, through its public means to read and write them ---- */

#define INIT_KILL_PRIVILEGES (1U << 28)
#define INIT_PASSTHROUGH (1U << (37 - 32)) /* in flags2 */
#define INIT_OUT_DEPTH 36 /* where max_stack_depth is, in bytes from the beginning of struct fuse_init_out */
#define OPEN_PASSTHROUGH (1U << 7)
#define INTERRUPT 1U /* the bit of unique that says that the request is an interrupt */

#define NATIVE (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)) /* libfuse has passthrough */

static ssize_t read_request(int fd, void *buffer, size_t size, void *userdata)
{
    (void)fd;
    struct session *session = userdata;
    ssize_t n = read(device_fd(session), buffer, size);
    if (n < 0 && errno == ECONNABORTED) /* a request was being taken when the connection was cut */
        errno = ENODEV;
    if (session->init_unique || n < (ssize_t)(sizeof(struct fuse_in_header) + sizeof(struct fuse_init_in)))
        return n;
    const struct fuse_in_header *header = buffer;
    const struct fuse_init_in *init = (const void *)(header + 1);
    if (header->opcode == FUSE_INIT) {
        session->init_unique = header->unique;
        session->offered = init->flags | (init->flags & FUSE_INIT_EXT ? (uint64_t)init->flags2 << 32 : 0);
    }
    return n;
}

static void amend_init(struct session *session, struct fuse_init_out *out, size_t size)
{
    const uint32_t depth = 1;
    /*
     * Else the kernel asks before each write for an attribute that says what a program may do, which costs more than
     * the write. With it, whoever writes takes such rights away: the file system below does, for us.
     */
    out->flags |= session->offered & INIT_KILL_PRIVILEGES;
    if (NATIVE || session->no_passthrough || size < INIT_OUT_DEPTH + sizeof depth)
        return;
    session->agreed = session->offered >> 32 & INIT_PASSTHROUGH;
    if (session->agreed) {
        out->flags2 |= INIT_PASSTHROUGH;
        memcpy((char *)out + INIT_OUT_DEPTH, &depth, sizeof depth);
    }
}

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)fd;
    struct session *session = userdata;
    struct fuse_out_header *header = iov[0].iov_base;
    /* Memory was short: the kernel says it again then, but forgets it for other errors. */
    if (header->unique & INTERRUPT && header->error == -ENOMEM)
        header->error = -EAGAIN;
    if (header->unique & INTERRUPT)
        return device_write_to_all(session, iov, count);
    if (!session->init_answered && header->unique == session->init_unique && !header->error && count > 1) {
        session->init_answered = true;
        amend_init(session, iov[1].iov_base, iov[1].iov_len);
    }
    return writev(device_fd(session), iov, count);
}

int passthrough_setup(struct session *session)
{
    devices_setup(session);
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    return fuse_session_custom_io(session->fuse, &io, fuse_session_fd(session->fuse));
}

/* ---- With libfuse from 3.17 ---- */

#if NATIVE

void passthrough_negotiate(struct session *session, struct fuse_conn_info *conn)
{
    session->agreed = !session->no_passthrough && fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
    conn->max_backing_stack_depth = session->agreed;
}

int passthrough_reply_open(fuse_req_t req, struct handle *handle, struct fuse_file_info *fi)
{
    fi->direct_io = 0;
    fi->backing_id = handle->node->backing;
    return fuse_reply_open(req, fi);
}

int passthrough_reply_create(fuse_req_t req, const struct fuse_entry_param *entry, struct handle *handle,
                             struct fuse_file_info *fi)
{
    fi->direct_io = 0;
    fi->backing_id = handle->node->backing;
    return fuse_reply_create(req, entry, fi);
}

#else /* ---- With libfuse 3.14 to 3.16 ---- */

void passthrough_negotiate(struct session *session, struct fuse_conn_info *conn)
{
    (void)session, (void)conn;
}

struct open_out {
    uint64_t fh;
    uint32_t flags;
    int32_t backing;
};

static struct open_out open_out(const struct handle *handle, const struct fuse_file_info *fi)
{
    return (struct open_out){fi->fh, OPEN_PASSTHROUGH, (int32_t)handle->node->backing};
}

int passthrough_reply_open(fuse_req_t req, struct handle *handle, struct fuse_file_info *fi)
{
    const struct open_out out = open_out(handle, fi);
    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

int passthrough_reply_create(fuse_req_t req, const struct fuse_entry_param *entry, struct handle *handle,
                             struct fuse_file_info *fi)
{
    const struct stat *st = &entry->attr;
    struct {
        struct fuse_entry_out entry;
        struct open_out open;
    } out = {
        .entry = {.nodeid = entry->ino,
                  .attr = {.ino = st->st_ino,
                           .size = st->st_size,
                           .blocks = st->st_blocks,
                           .atime = st->st_atim.tv_sec,
                           .mtime = st->st_mtim.tv_sec,
                           .ctime = st->st_ctim.tv_sec,
                           .atimensec = st->st_atim.tv_nsec,
                           .mtimensec = st->st_mtim.tv_nsec,
                           .ctimensec = st->st_ctim.tv_nsec,
                           .mode = st->st_mode,
                           .nlink = st->st_nlink,
                           .uid = st->st_uid,
                           .gid = st->st_gid,
                           .blksize = st->st_blksize}},
        .open = open_out(handle, fi),
    };
    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

#endif

/* ---- Both ---- */

const char *passthrough_decide(struct session *session)
{
    if (session->no_passthrough)
        return "no_passthrough was asked for";
    if (!session->agreed)
        return "this kernel has no FUSE passthrough, which came with Linux 6.9";
    if (!probe(session))
        return "FUSE passthrough takes CAP_SYS_ADMIN";
    __atomic_store_n(&session->shared_mmap, true, __ATOMIC_RELEASE);
    return NULL;
}

/*
 * The requests of the kernel, each answered exactly once: here, or by what it is handed to.
 *
 * What is done by name or changes something is done as the caller. Reading and writing need no more rights than the
 * descriptor has, as ever.
 */
#include "attr.h"
#include "file.h"
#include "kind.h"
#include "listing.h"
#include "lock.h"
#include "lookup.h"
#include "passthrough.h"
#include "polling.h"
#include "rights.h"
#include "status.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static struct session *session_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct node *node_in(fuse_req_t req, fuse_ino_t number)
{
    return node_of(session_of(req), number);
}

static struct handle *handle_in(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

/* What takes no right is the mount's users' all the same. True: it was answered. */
static bool refuse(fuse_req_t req)
{
    const struct session *session = session_of(req);
    if (session->everyone || fuse_req_ctx(req)->uid == session->owner)
        return false;
    fuse_reply_err(req, EACCES);
    return true;
}

/* ---- Attributes ---- */

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    struct node *node = node_in(req, ino);
    struct caller caller;
    struct stat st;
    int error = caller_look(req, node->kind, &caller);
    if (!error)
        error = node_stat(node, &st);
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_attr(req, &st, 0);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    struct node *node = node_in(req, ino);
    struct caller caller;
    struct stat st;
    int error = caller_assume(req, &caller);
    if (!error) {
        error = node->type == NODE_OBJECT ? node_change(node, attr, to_set, fi) : -EPERM;
        if (!error)
            error = node_stat(node, &st);
    }
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_attr(req, &st, 0);
}

static void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
    struct node *node = node_in(req, ino);
    struct caller caller;
    int error = caller_assume_real(req, &caller);
    if (!error)
        error = node_access(node, mask);
    fuse_reply_err(req, -error);
}

/* ---- Look-up ---- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct session *session = session_of(req);
    struct node *directory = node_in(req, parent);
    struct fuse_entry_param entry;
    struct caller caller;
    int error = caller_look(req, directory->kind, &caller);
    if (!error)
        error = look_up(directory, name, &entry);
    if (error)
        fuse_reply_err(req, -error);
    else if (fuse_reply_entry(req, &entry) == -ENOENT) /* the request is gone by now */
        node_release(node_of(session, entry.ino), 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
    node_release(node_in(req, ino), lookups);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        node_release(node_in(req, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
}

/* ---- Making, removing, renaming ---- */

static void set_open_flags(struct fuse_file_info *fi, struct handle *handle)
{
    fi->fh = (uintptr_t)handle;
    fi->direct_io = 1;
    /* A flush would wait behind a write that waits for room. Where none does it tells us whose locks end (lock.c). */
    fi->noflush = !handle->kind->plain;
}

static int create(fuse_req_t req, fuse_ino_t parent, const char *name, int flags, mode_t mode, struct handle **handle)
{
    struct node *directory = node_in(req, parent);
    struct caller caller;
    int error = caller_assume(req, &caller);
    if (error)
        return error;
    if (directory->type != NODE_DIRECTORY)
        error = -EPERM;
    else if (directory->view.stat)
        error = -EACCES;
    else
        error = handle_open(directory, NULL, name, flags | O_CREAT, mode & 07777, &caller, handle);
    return error;
}

/* The kernel's look-up of a handle's node, which has one reference more than it counts. */
static int entry_of(struct handle *handle, struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){.ino = node_number(handle->node)};
    int error = ipc_stat(handle->kind->descriptor(handle), &entry->attr);
    show_object(handle->node, &entry->attr);
    return error;
}

static int reply_create(fuse_req_t req, const struct fuse_entry_param *entry, struct handle *handle,
                        struct fuse_file_info *fi)
{
    if (passthrough_begin(handle))
        return passthrough_reply_create(req, entry, handle, fi);
    return fuse_reply_create(req, entry, fi);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct handle *handle;
    struct fuse_entry_param entry;
    int error = create(req, parent, name, fi->flags, mode, &handle);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    struct node *node = handle->node;
    error = entry_of(handle, &entry);
    set_open_flags(fi, handle);
    if (error)
        fuse_reply_err(req, -error);
    if (error || reply_create(req, &entry, handle, fi) == -ENOENT) {
        handle_free(handle);
        node_release(node, 1);
    }
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    (void)device;
    struct handle *handle;
    struct fuse_entry_param entry;
    int error = S_ISREG(mode) ? create(req, parent, name, O_RDWR | O_EXCL, mode, &handle) : -EPERM;
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    struct node *node = handle->node;
    error = entry_of(handle, &entry);
    handle_free(handle);
    if (error)
        fuse_reply_err(req, -error);
    if (error || fuse_reply_entry(req, &entry) == -ENOENT)
        node_release(node, 1);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    (void)parent, (void)name, (void)mode;
    fuse_reply_err(req, EPERM);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    (void)target, (void)parent, (void)name;
    fuse_reply_err(req, EPERM);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino, (void)parent, (void)name;
    fuse_reply_err(req, EPERM);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct node *directory = node_in(req, parent);
    struct caller caller;
    int error = caller_assume(req, &caller);
    if (!error)
        error = directory->type == NODE_DIRECTORY ? ipc_unlink(directory->session->ipc, directory->kind, name) : -EPERM;
    fuse_reply_err(req, -error);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent, (void)name;
    fuse_reply_err(req, EPERM);
}

/* Never EXDEV: mv(1) would copy then, and copying a queue eats it. */
static void op_rename(fuse_req_t req, fuse_ino_t from, const char *name, fuse_ino_t to, const char *new_name,
                      unsigned flags)
{
    struct node *old = node_in(req, from), *new = node_in(req, to);
    struct caller caller;
    int error = caller_assume(req, &caller);
    if (!error) {
        bool segments =
            old->type == NODE_DIRECTORY && new->type == NODE_DIRECTORY && old->kind == IPC_SHM &&new->kind == IPC_SHM;
        error = segments ? ipc_shm_rename(old->session->ipc, name, new_name, flags) : -EOPNOTSUPP;
    }
    fuse_reply_err(req, -error);
}

/* ---- Opening ---- */

static int open_node(struct node *node, int flags, struct caller *caller, struct handle **handle)
{
    const bool by_name = node->type == NODE_OBJECT && !node->parent->view.stat;
    int error = by_name ? 0 : caller_become(caller);
    if (error)
        return error;
    if (node->type == NODE_FILE)
        return file_open(node, flags, handle);
    if (node->type != NODE_OBJECT)
        return -EISDIR;
    if (node->parent->view.stat)
        return attr_open(node, caller, flags, handle);
    char *name = node_name(node);
    if (!name)
        return -ENOMEM;
    error = handle_open(node->parent, node, name, flags, 0, caller, handle);
    free(name);
    return error == -ENOENT ? -ESTALE : error; /* the kernel looks it up again */
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *handle;
    struct caller caller;
    int error = caller_name(req, &caller);
    if (!error)
        error = open_node(node_in(req, ino), fi->flags, &caller, &handle);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    set_open_flags(fi, handle);
    if (passthrough_begin(handle))
        error = passthrough_reply_open(req, handle, fi);
    else
        error = fuse_reply_open(req, fi);
    if (error == -ENOENT)
        handle_free(handle);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *handle = handle_in(fi);
    if (!handle->kind->flush || !handle->kind->flush(handle, false))
        handle_free(handle);
    fuse_reply_err(req, 0);
}

/* ---- Reading and writing ---- */

/* A read at a later offset: what the last operation of this handle gave, from there on. */
static void continue_reading(fuse_req_t req, struct handle *handle, size_t size, off_t offset)
{
    const char *data;
    struct result *last = result_at(handle, offset, &data, &size);
    fuse_reply_buf(req, data, size);
    result_release(last);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *handle = handle_in(fi);
    __atomic_store_n(&handle->flags, fi->flags, __ATOMIC_RELAXED); /* O_NONBLOCK may come and go */
    if (offset && !handle->kind->plain && !handle->view->stream)
        continue_reading(req, handle, size, offset);
    else
        handle->kind->read(req, handle, size, offset);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *handle = handle_in(fi);
    __atomic_store_n(&handle->flags, fi->flags, __ATOMIC_RELAXED);
    handle->kind->write(req, handle, data, size, offset);
}

static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *poll)
{
    (void)ino;
    struct handle *handle = handle_in(fi);
    if (handle->object) {
        object_poll(req, handle, poll, fi->poll_events);
        return;
    }
    if (poll)
        fuse_pollhandle_destroy(poll);
    fuse_reply_poll(req, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino, (void)datasync, (void)fi;
    fuse_reply_err(req, 0); /* memory is as safe as it will be */
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *handle = handle_in(fi);
    rights_lower(); /* set-user-ID must not survive */
    if (!handle->kind->plain)
        fuse_reply_err(req, EOPNOTSUPP);
    else
        fuse_reply_err(req, fallocate(handle->fd, mode, offset, length) ? errno : 0);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *handle = handle_in(fi);
    if (!handle->kind->plain) {
        fuse_reply_err(req, ENXIO);
        return;
    }
    off_t found = lseek(handle->fd, offset, whence);
    if (found < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_lseek(req, found);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in, struct fuse_file_info *fi_in,
                               fuse_ino_t ino_out, off_t offset_out, struct fuse_file_info *fi_out, size_t size,
                               int flags)
{
    (void)ino_in, (void)ino_out;
    struct handle *in = handle_in(fi_in), *out = handle_in(fi_out);
    if (!in->kind->plain || !out->kind->plain) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    rights_lower();
    ssize_t n = copy_file_range(in->fd, &offset_in, out->fd, &offset_out, size, flags);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_write(req, n);
}

/* ---- Locks ---- */

static void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int operation)
{
    (void)ino;
    lock_whole(req, handle_in(fi), operation);
}

static void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range, int sleep)
{
    (void)ino;
    lock_range(req, handle_in(fi), fi->lock_owner, range, sleep);
}

static void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range)
{
    (void)ino;
    lock_query(req, handle_in(fi), fi->lock_owner, range);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    lock_closed(handle_in(fi), fi->lock_owner);
    fuse_reply_err(req, 0);
}

/* ---- Directories ---- */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (refuse(req))
        return;
    struct listing *listing = listing_new(session_of(req));
    if (!listing) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    fi->fh = (uintptr_t)listing;
    if (fuse_reply_open(req, fi) == -ENOENT)
        listing_free(listing);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    listing_free((struct listing *)(uintptr_t)fi->fh);
    fuse_reply_err(req, 0);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    listing_read(req, node_in(req, ino), (struct listing *)(uintptr_t)fi->fh, size, offset);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    if (refuse(req))
        return;
    struct node *node = node_in(req, ino);
    struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};
    int error = 0;
    if (node->type == NODE_DIRECTORY || node->type == NODE_OBJECT) {
        if (node->kind == IPC_SHM)
            error = ipc_shm_statfs(node->session->ipc, &st);
        st.f_namemax = ipc_name_max(node->kind);
    }
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_statfs(req, &st);
}

/* ---- Extended attributes ---- */

static void reply_value(fuse_req_t req, const char *value, ssize_t length, size_t room)
{
    if (length < 0)
        fuse_reply_err(req, -length);
    else if (!room)
        fuse_reply_xattr(req, length);
    else if ((size_t)length > room)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, length);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    char value[ATTR_SIZE];
    struct caller caller;
    ssize_t length = caller_name(req, &caller);
    if (!length)
        length = attr_get(node_in(req, ino), &caller, name, value);
    reply_value(req, value, length, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    char names[ATTR_LIST_SIZE];
    if (refuse(req))
        return;
    reply_value(req, names, attr_list(node_in(req, ino), names), size);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    (void)ino, (void)value, (void)size, (void)flags;
    fuse_reply_err(req, attr_is_ours(name) ? EPERM : EOPNOTSUPP);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    (void)ino;
    fuse_reply_err(req, attr_is_ours(name) ? EPERM : EOPNOTSUPP);
}

/* ---- The connection ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct session *session = userdata;
    session->initialized = true;
    conn->want |= conn->capable & (FUSE_CAP_DONT_MASK | FUSE_CAP_ATOMIC_O_TRUNC);
    /* Copying small messages through a pipe costs more than it saves. */
    conn->want &= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    /* io_submit(2) and io_uring(7) would have several writes of one open file under way at once, pieces of one too. */
    conn->want &= ~FUSE_CAP_ASYNC_DIO;
    /* With passthrough the kernel writes with our rights, and would keep a set-user-ID bit for anybody. */
    conn->want &= ~FUSE_CAP_HANDLE_KILLPRIV;
    conn->time_gran = 1;
    /* A write that does not begin on a page's first byte is split a page earlier. */
    passthrough_negotiate(session, conn);
    session->message_max = conn->max_write - sysconf(_SC_PAGESIZE);
}

const struct fuse_lowlevel_ops operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .access = op_access,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .create = op_create,
    .open = op_open,
    .release = op_release,
    .read = op_read,
    .write = op_write,
    .poll = op_poll,
    .flock = op_flock,
    .setlk = op_setlk,
    .getlk = op_getlk,
    .flush = op_flush,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .copy_file_range = op_copy_file_range,
    .opendir = op_opendir,
    .releasedir = op_releasedir,
    .readdir = op_readdir,
    .statfs = op_statfs,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
};

#include "status.h"
#include "file.h"
#include "kind.h"

#include <stdlib.h>
#include <unistd.h>

void show_object(const struct node *node, struct stat *st)
{
    st->st_ino = node->ino;
    if (node->kind != IPC_SHM || node->parent->view.stat)
        st->st_size = st->st_blocks = 0;
}

static int stat_directory(struct node *node, struct stat *st)
{
    struct session *session = node->session;
    if (node->type == NODE_ROOT) {
        *st =
            (struct stat){.st_mode = S_IFDIR | 0555, .st_nlink = 5, .st_uid = session->owner, .st_gid = session->group};
        st->st_atim = st->st_mtim = st->st_ctim = session->started;
    } else {
        int error = ipc_stat_directory(session->ipc, node->kind, st);
        if (error)
            return error;
        st->st_nlink = 2;
        st->st_size = st->st_blocks = 0;
    }
    st->st_ino = node->ino;
    return 0;
}

int object_stat(struct node *node, struct stat *st)
{
    if (node_stat_open(node, st))
        return 0;
    char *name = node_name(node);
    if (!name)
        return -ENOMEM;
    int error = ipc_stat_name(node->session->ipc, node->kind, name, st);
    free(name);
    if (!error && (st->st_ino != node->inode || st->st_dev != node->device))
        error = -ENOENT;
    return error == -ENOENT ? -ESTALE : error;
}

int node_stat(struct node *node, struct stat *st)
{
    if (node->type == NODE_FILE)
        return file_stat(node, st);
    if (node->type != NODE_OBJECT)
        return stat_directory(node, st);
    int error = object_stat(node, st);
    show_object(node, st);
    return error;
}

static int resize(struct node *node, const struct fuse_file_info *fi, off_t size)
{
    if (node->kind != IPC_SHM)
        return size ? -EINVAL : 0; /* O_TRUNC changes nothing */
    if (fi)
        return ipc_shm_resize(((struct handle *)(uintptr_t)fi->fh)->fd, size);
    char *name = node_name(node);
    if (!name)
        return -ENOMEM;
    int fd = ipc_shm_open(node->session->ipc, name, O_WRONLY, 0);
    free(name);
    if (fd < 0)
        return fd;
    struct stat st;
    int error = ipc_stat(fd, &st);
    if (!error)
        error = st.st_ino == node->inode ? ipc_shm_resize(fd, size) : -ESTALE;
    close(fd);
    return error;
}

static struct timespec time_to_set(int to_set, int set, int now, struct timespec time)
{
    if (to_set & now)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    return to_set & set ? time : (struct timespec){.tv_nsec = UTIME_OMIT};
}

int node_change(struct node *node, const struct stat *attr, int to_set, const struct fuse_file_info *fi)
{
    int error = 0;
    if (to_set & FUSE_SET_ATTR_SIZE)
        error = resize(node, fi, attr->st_size);
    int fd = error ? error : node_descriptor(node);
    if (fd < 0)
        return fd;
    if (to_set & FUSE_SET_ATTR_MODE)
        error = ipc_chmod(fd, attr->st_mode & 07777);
    if (!error && to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        error = ipc_chown(fd, to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
                          to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1);
    const struct timespec times[2] = {
        time_to_set(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, attr->st_atim),
        time_to_set(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim),
    };
    if (!error && (times[0].tv_nsec != UTIME_OMIT || times[1].tv_nsec != UTIME_OMIT))
        error = ipc_utimens(fd, times);
    close(fd);
    return error;
}

int node_access(struct node *node, int mask)
{
    if (node->type == NODE_DIRECTORY)
        return ipc_access_directory(node->session->ipc, node->kind, mask);
    if (node->type != NODE_OBJECT)
        return mask & W_OK ? -EACCES : 0;
    int fd = node_descriptor(node);
    if (fd < 0)
        return fd;
    int error = ipc_access(fd, mask);
    close(fd);
    return error;
}

/* Shared memory objects: the regular files of /dev/shm that are not semaphores. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

int ipc_shm_open(struct ipc *ipc, const char *name, int flags, mode_t mode)
{
    (void)ipc;
    char path[IPC_PATH_SIZE];
    int error = shm_path(IPC_SHM, name, path);
    if (error)
        return error;
    /* O_NONBLOCK: neither a FIFO nor somebody's lease may hold us up. It means nothing to a regular file. */
    int fd = open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
    if (fd < 0)
        return errno == ELOOP || errno == EISDIR || errno == ENXIO ? -EINVAL : -errno;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -EINVAL;
}

int ipc_shm_reopen(int fd, int flags)
{
    char path[IPC_PATH_SIZE];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    fd = open(path, (flags & ~(O_CREAT | O_EXCL)) | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* 1 for a shared memory object, 0 for nothing, or the error for what may not be renamed or replaced. */
static int check_place(const char *path)
{
    struct stat st;
    if (lstat(path, &st))
        return errno == ENOENT ? 0 : -errno;
    return S_ISREG(st.st_mode) ? 1 : -EINVAL;
}

int ipc_shm_rename(struct ipc *ipc, const char *from, const char *to, unsigned flags)
{
    (void)ipc;
    char old_path[IPC_PATH_SIZE], new_path[IPC_PATH_SIZE];
    int error = shm_path(IPC_SHM, from, old_path);
    if (!error)
        error = shm_path(IPC_SHM, to, new_path);
    if (!error && flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) /* RENAME_WHITEOUT would make a device */
        error = -EINVAL;
    if (error)
        return error;
    if (check_place(old_path) != 1)
        return -ENOENT;
    error = check_place(new_path);
    if (error < 0)
        return error;
    return renameat2(AT_FDCWD, old_path, AT_FDCWD, new_path, flags) ? -errno : 0;
}

int64_t ipc_shm_size(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? -errno : st.st_size;
}

int ipc_shm_resize(int fd, int64_t size)
{
    return ftruncate(fd, size) ? -errno : 0;
}

int ipc_shm_statfs(struct ipc *ipc, struct statvfs *st)
{
    (void)ipc;
    return statvfs(SHM_DIRECTORY, st) ? -errno : 0;
}

/* What objects of every kind have: a name, a place where they can be found, an owner, a mode and times. */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

size_t ipc_name_max(enum ipc_kind kind)
{
    return kind == IPC_SEM ? NAME_MAX - strlen(SEM_PREFIX) : NAME_MAX;
}

int ipc_name_check(enum ipc_kind kind, const char *name)
{
    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    if (strlen(name) > ipc_name_max(kind))
        return -ENAMETOOLONG;
    if (kind == IPC_SHM && !strncmp(name, SEM_PREFIX, strlen(SEM_PREFIX)))
        return -EINVAL;
    return 0;
}

int shm_path(enum ipc_kind kind, const char *name, char path[IPC_PATH_SIZE])
{
    int error = ipc_name_check(kind, name);
    if (!error)
        snprintf(path, IPC_PATH_SIZE, "%s/%s%s", SHM_DIRECTORY, kind == IPC_SEM ? SEM_PREFIX : "", name);
    return error;
}

/* A name that no object of the kind can have is one that does not exist. */
static int existing_path(enum ipc_kind kind, const char *name, char path[IPC_PATH_SIZE])
{
    int error = shm_path(kind, name, path);
    return error == -EINVAL ? -ENOENT : error;
}

/* Without mqueuefs, opening is the only way to a queue. */
static int locate_opening(struct ipc *ipc, const char *name)
{
    int fd = ipc_mq_open(ipc, name, O_RDONLY | O_NONBLOCK, 0, NULL);
    return fd == -EACCES ? ipc_mq_open(ipc, name, O_WRONLY | O_NONBLOCK, 0, NULL) : fd;
}

int ipc_locate(struct ipc *ipc, enum ipc_kind kind, const char *name)
{
    char path[IPC_PATH_SIZE];
    int directory = AT_FDCWD;
    const char *place = path;
    int error;

    if (kind == IPC_MQ) {
        if (ipc->mq_directory < 0)
            return locate_opening(ipc, name);
        error = ipc_name_check(kind, name);
        directory = ipc->mq_directory;
        place = name;
    } else {
        error = existing_path(kind, name, path);
    }
    if (error)
        return error;

    int fd = openat(directory, place, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -ENOENT;
}

int ipc_unlink(struct ipc *ipc, enum ipc_kind kind, const char *name)
{
    char path[IPC_PATH_SIZE];
    int directory = AT_FDCWD;
    const char *place = path;
    int error;

    if (kind == IPC_MQ) {
        error = ipc_name_check(kind, name);
        if (error)
            return error;
        if (ipc->mq_directory < 0)
            return syscall(SYS_mq_unlink, name) ? -errno : 0;
        directory = ipc->mq_directory;
        place = name;
    } else {
        error = existing_path(kind, name, path);
        if (error)
            return error;
        struct stat st;
        if (lstat(path, &st))
            return -errno;
        if (!S_ISREG(st.st_mode))
            return -ENOENT;
    }
    return unlinkat(directory, place, 0) ? -errno : 0;
}

static bool is_listed(int directory, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_REG;
    return fstatat(directory, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int open_directory(struct ipc *ipc, enum ipc_kind kind)
{
    int fd;
    if (kind != IPC_MQ)
        fd = open(SHM_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    else if (ipc->mq_directory < 0)
        return -EOPNOTSUPP;
    else
        fd = openat(ipc->mq_directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int ipc_list(struct ipc *ipc, enum ipc_kind kind, ipc_each *each, void *arg)
{
    int fd = open_directory(ipc, kind);
    if (fd < 0)
        return fd;
    DIR *directory = fdopendir(fd);
    if (!directory) {
        int error = -errno;
        close(fd);
        return error;
    }
    const size_t prefix = strlen(SEM_PREFIX);
    struct dirent *entry;
    int result = 0;
    while (!result && (errno = 0, entry = readdir(directory))) {
        const char *name = entry->d_name;
        if (kind != IPC_MQ) {
            bool is_sem = !strncmp(name, SEM_PREFIX, prefix) && name[prefix];
            if (is_sem != (kind == IPC_SEM))
                continue;
            name += is_sem ? prefix : 0;
        }
        if (ipc_name_check(kind, name) == 0 && is_listed(fd, entry))
            result = each(arg, name, entry->d_ino);
    }
    if (!result && errno)
        result = -errno;
    closedir(directory);
    return result;
}

int ipc_stat_directory(struct ipc *ipc, enum ipc_kind kind, struct stat *st)
{
    if (kind != IPC_MQ || ipc->mq_directory < 0)
        return stat(SHM_DIRECTORY, st) ? -errno : 0;
    return fstat(ipc->mq_directory, st) ? -errno : 0;
}

int ipc_access_directory(struct ipc *ipc, enum ipc_kind kind, int mode)
{
    if (kind != IPC_MQ || ipc->mq_directory < 0)
        return faccessat(AT_FDCWD, SHM_DIRECTORY, mode, AT_EACCESS) ? -errno : 0;
    return ipc_access(ipc->mq_directory, mode);
}

bool ipc_is_open_to_all(struct ipc *ipc, enum ipc_kind kind)
{
    struct stat st;
    if ((kind == IPC_MQ && ipc->mq_directory < 0) || ipc_stat_directory(ipc, kind, &st) || (st.st_mode & 0111) != 0111)
        return false;
    /* mqueuefs has no access control lists. */
    return kind == IPC_MQ || (getxattr(SHM_DIRECTORY, "system.posix_acl_access", NULL, 0) < 0 &&
                              (errno == ENODATA || errno == EOPNOTSUPP));
}

/* chmod, utimens and access have no form for an O_PATH descriptor: its link in /proc leads to the object itself. */
static const char *link_of(int fd, char path[IPC_PATH_SIZE])
{
    snprintf(path, IPC_PATH_SIZE, "/proc/self/fd/%d", fd);
    return path;
}

int ipc_stat(int fd, struct stat *st)
{
    return fstat(fd, st) ? -errno : 0;
}

int ipc_access(int fd, int mode)
{
    char path[IPC_PATH_SIZE];
    return faccessat(AT_FDCWD, link_of(fd, path), mode, AT_EACCESS) ? -errno : 0;
}

int ipc_chmod(int fd, mode_t mode)
{
    char path[IPC_PATH_SIZE];
    return chmod(link_of(fd, path), mode) ? -errno : 0;
}

int ipc_chown(int fd, uid_t uid, gid_t gid)
{
    char path[IPC_PATH_SIZE];
    return chown(link_of(fd, path), uid, gid) ? -errno : 0;
}

int ipc_utimens(int fd, const struct timespec times[2])
{
    char path[IPC_PATH_SIZE];
    return utimensat(AT_FDCWD, link_of(fd, path), times, 0) ? -errno : 0;
}

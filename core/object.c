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

#define ACL "system.posix_acl_access"

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

/* Where an object of that name is, for openat(2) and its like. */
struct place {
    int directory;
    const char *name;
    char path[IPC_PATH_SIZE];
};

/* Not for queues where there is no mq_directory. */
static int find_place(struct ipc *ipc, enum ipc_kind kind, const char *name, struct place *place)
{
    if (kind == IPC_MQ) {
        place->directory = ipc->mq_directory;
        place->name = name;
        return ipc_name_check(kind, name);
    }
    place->directory = AT_FDCWD;
    place->name = place->path;
    return existing_path(kind, name, place->path);
}

int ipc_locate(struct ipc *ipc, enum ipc_kind kind, const char *name)
{
    struct place place;
    if (kind == IPC_MQ && ipc->mq_directory < 0)
        return locate_opening(ipc, name);
    int error = find_place(ipc, kind, name, &place);
    if (error)
        return error;
    int fd = openat(place.directory, place.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -ENOENT;
}

int ipc_stat_name(struct ipc *ipc, enum ipc_kind kind, const char *name, struct stat *st)
{
    struct place place;
    if (kind == IPC_MQ && ipc->mq_directory < 0) {
        int fd = locate_opening(ipc, name);
        int error = fd < 0 ? fd : ipc_stat(fd, st);
        if (fd >= 0)
            close(fd);
        return error;
    }
    int error = find_place(ipc, kind, name, &place);
    if (!error && fstatat(place.directory, place.name, st, AT_SYMLINK_NOFOLLOW))
        error = -errno;
    return error ? error : S_ISREG(st->st_mode) ? 0 : -ENOENT;
}

int ipc_unlink(struct ipc *ipc, enum ipc_kind kind, const char *name)
{
    struct place place;
    int error = find_place(ipc, kind, name, &place);
    if (error)
        return error;
    if (kind == IPC_MQ && ipc->mq_directory < 0)
        return syscall(SYS_mq_unlink, name) ? -errno : 0;
    struct stat st;
    if (kind != IPC_MQ && (error = ipc_stat_name(ipc, kind, name, &st)))
        return error;
    return unlinkat(place.directory, place.name, 0) ? -errno : 0;
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

/* What getxattr gave for it. */
static bool is_no_acl(ssize_t length)
{
    return length < 0 && (errno == ENODATA || errno == EOPNOTSUPP);
}

/* Whether a change after the moment `now` would show in the status: the clock of files has ticks. */
static bool is_settled(const struct stat *st, const struct timespec *now)
{
    const long tick = 20000000; /* nanoseconds, above the longest, which is 10 ms */
    const struct timespec *changed = &st->st_ctim;
    return now->tv_sec > changed->tv_sec + 1 ||
           (now->tv_sec - changed->tv_sec) * 1000000000L + now->tv_nsec - changed->tv_nsec > tick;
}

static bool same_status(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* A list that comes or goes changes the status, so it is asked for anew only after another change. */
static bool shm_has_no_acl(struct ipc *ipc, const struct stat *st)
{
    struct timespec now;
    pthread_mutex_lock(&ipc->shm_lock);
    bool none = same_status(st, &ipc->shm_without_acl);
    if (!none) {
        clock_gettime(CLOCK_REALTIME, &now);
        none = is_no_acl(getxattr(SHM_DIRECTORY, ACL, NULL, 0));
        if (none && is_settled(st, &now))
            ipc->shm_without_acl = *st;
    }
    pthread_mutex_unlock(&ipc->shm_lock);
    return none;
}

bool ipc_is_open_to_all(struct ipc *ipc, enum ipc_kind kind)
{
    struct stat st;
    if ((kind == IPC_MQ && ipc->mq_directory < 0) || ipc_stat_directory(ipc, kind, &st) || (st.st_mode & 0111) != 0111)
        return false;
    return kind == IPC_MQ || shm_has_no_acl(ipc, &st); /* mqueuefs has no access control lists */
}

bool ipc_permits(struct ipc *ipc, enum ipc_kind kind, int fd, uid_t user, int mode)
{
    const mode_t owner = (mode_t)mode << 6, all = owner | (mode_t)mode << 3 | (mode_t)mode;
    struct stat st;
    if (fstat(fd, &st) || !ipc_is_open_to_all(ipc, kind))
        return false;
    if (st.st_uid == user)
        return (st.st_mode & owner) == owner;
    return (st.st_mode & all) == all && (kind == IPC_MQ || is_no_acl(fgetxattr(fd, ACL, NULL, 0)));
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

/*
 * Named semaphores, on glibc's own files and layout.
 *
 * sem_open(3) itself would do, but for three things: a file that is cut short must not end us (fault.c), a waiter must
 * not need a thread (watch.c), and all opens of one semaphore must be known as one. So the word is worked on here, by
 * the same rules as glibc's nptl/sem_*.c follow:
 *   - wait: take one from the value if it is not 0; else add a waiter to the upper half, sleep on the lower, and take
 *     the waiter off again;
 *   - post: add to the value; if there were waiters, wake as many as units were added.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ipc_sem {
    struct ipc *ipc;
    struct ipc_sem *next; /* in its bucket of ipc->sems */
    size_t opens;         /* it lives while this is above 0 */
    dev_t device;
    ino_t inode;
    int fd;
    uint64_t *word; /* mapped; only fault.c's functions touch it */
};

uint64_t *sem_word(const struct ipc_sem *sem)
{
    return sem->word;
}

struct ipc *sem_ipc(const struct ipc_sem *sem)
{
    return sem->ipc;
}

int ipc_sem_fd(const struct ipc_sem *sem)
{
    return sem->fd;
}

/* ---- The table of open semaphores ---- */

static struct ipc_sem **bucket(struct ipc *ipc, ino_t inode)
{
    return &ipc->sems[inode & (ipc->sems_size - 1)];
}

/* Keeps the table at least half as large as what is in it; on failure it is slower, no more. */
static void grow(struct ipc *ipc)
{
    if (ipc->sems_used < ipc->sems_size * 2)
        return;
    struct ipc_sem **old = ipc->sems;
    size_t old_size = ipc->sems_size;
    struct ipc_sem **sems = calloc(old_size * 4, sizeof *sems);
    if (!sems)
        return;
    ipc->sems = sems;
    ipc->sems_size = old_size * 4;
    for (size_t i = 0; i < old_size; i++)
        for (struct ipc_sem *sem = old[i], *next; sem; sem = next) {
            next = sem->next;
            struct ipc_sem **place = bucket(ipc, sem->inode);
            sem->next = *place;
            *place = sem;
        }
    free(old);
}

static struct ipc_sem *map(struct ipc *ipc, int fd, const struct stat *st)
{
    struct ipc_sem *sem = malloc(sizeof *sem);
    if (!sem)
        return NULL;
    void *memory = mmap(NULL, sizeof(sem_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        free(sem);
        return NULL;
    }
    *sem = (struct ipc_sem){ipc, NULL, 1, st->st_dev, st->st_ino, fd, memory};
    return sem;
}

/* The semaphore in an open file, which this call takes over. */
static int adopt(struct ipc *ipc, int fd, struct ipc_sem **sem)
{
    struct stat st;
    if (fstat(fd, &st)) {
        int error = -errno;
        close(fd);
        return error;
    }
    if (!S_ISREG(st.st_mode) || st.st_size != sizeof(sem_t)) {
        close(fd);
        return -EINVAL;
    }
    int error = 0;
    pthread_mutex_lock(&ipc->sems_lock);
    struct ipc_sem *found = *bucket(ipc, st.st_ino);
    while (found && (found->inode != st.st_ino || found->device != st.st_dev))
        found = found->next;
    if (found) {
        found->opens++;
        close(fd);
    } else if ((found = map(ipc, fd, &st))) {
        grow(ipc);
        struct ipc_sem **place = bucket(ipc, st.st_ino);
        found->next = *place;
        *place = found;
        ipc->sems_used++;
    } else {
        error = -ENOMEM;
        close(fd);
    }
    pthread_mutex_unlock(&ipc->sems_lock);
    *sem = found;
    return error;
}

void sem_hold(struct ipc_sem *sem)
{
    pthread_mutex_lock(&sem->ipc->sems_lock);
    sem->opens++;
    pthread_mutex_unlock(&sem->ipc->sems_lock);
}

void ipc_sem_close(struct ipc_sem *sem)
{
    struct ipc *ipc = sem->ipc;
    pthread_mutex_lock(&ipc->sems_lock);
    bool last = --sem->opens == 0;
    if (last) {
        struct ipc_sem **place = bucket(ipc, sem->inode);
        while (*place != sem)
            place = &(*place)->next;
        *place = sem->next;
        ipc->sems_used--;
    }
    pthread_mutex_unlock(&ipc->sems_lock);
    if (!last)
        return;
    munmap(sem->word, sizeof(sem_t));
    close(sem->fd);
    free(sem);
}

/* ---- Opening ---- */

/* A file without a name, so that nobody ever sees a semaphore half made, which then gets its name if it is free. */
static int create(const char *path, mode_t mode, unsigned value)
{
    int fd = open(SHM_DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    sem_t sem;
    memset(&sem, 0, sizeof sem);
    char link[IPC_PATH_SIZE];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int error = 0;
    errno = EIO; /* what a short write would be */
    if (sem_init(&sem, 1, value) || write(fd, &sem, sizeof sem) != sizeof sem ||
        linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW)) {
        error = -errno;
        close(fd);
    }
    return error ? error : fd;
}

int ipc_sem_open(struct ipc *ipc, struct ipc_sem **sem, const char *name, int flags, mode_t mode, unsigned value)
{
    char path[IPC_PATH_SIZE];
    int error = shm_path(IPC_SEM, name, path);
    if (error)
        return error;
    if (flags & O_CREAT && value > IPC_SEM_VALUE_MAX)
        return -EINVAL;
    for (;;) {
        if (!(flags & O_CREAT) || !(flags & O_EXCL)) {
            /* O_NONBLOCK: neither a FIFO nor somebody's lease may hold us up. */
            int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
            if (fd >= 0)
                return adopt(ipc, fd, sem);
            if (errno == ELOOP || errno == EISDIR || errno == ENXIO)
                return -EINVAL;
            if (errno != ENOENT || !(flags & O_CREAT))
                return -errno;
        }
        int fd = create(path, mode, value);
        if (fd >= 0)
            return adopt(ipc, fd, sem);
        if (fd != -EEXIST || flags & O_EXCL)
            return fd;
    }
}

/* ---- Operations ---- */

static uint32_t *value_half(const struct ipc_sem *sem)
{
    return (uint32_t *)sem->word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

void sem_wake(const struct ipc_sem *sem, unsigned n)
{
    syscall(SYS_futex, value_half(sem), FUTEX_WAKE, n > INT_MAX ? INT_MAX : n, NULL, NULL, 0);
}

int ipc_sem_value(struct ipc_sem *sem, unsigned *value)
{
    uint64_t data;
    int error = word_load(sem->word, &data);
    if (!error)
        *value = (uint32_t)data;
    return error;
}

/* Takes one unit, and `waiters` off the upper half with it. */
static int take(struct ipc_sem *sem, uint64_t waiters)
{
    uint64_t data;
    int result = word_load(sem->word, &data);
    while (result == 0) {
        if ((uint32_t)data == 0)
            return -EAGAIN;
        result = word_exchange(sem->word, &data, data - 1 - waiters);
    }
    return result < 0 ? result : 0;
}

/* A file that was cut short and mended since has no waiters: taking one off all the same would make it 2^32 - 1. */
void sem_leave(struct ipc_sem *sem)
{
    uint64_t data;
    int result = word_load(sem->word, &data);
    while (result == 0 && data >= SEM_WAITER)
        result = word_exchange(sem->word, &data, data - SEM_WAITER);
}

int ipc_sem_trywait(struct ipc_sem *sem)
{
    return take(sem, 0);
}

int ipc_sem_wait(struct ipc_sem *sem, const struct timespec *deadline)
{
    int result = take(sem, 0);
    if (result != -EAGAIN)
        return result;
    if (deadline && deadline->tv_sec < 0) /* futex(2) would call it EINVAL */
        return -ETIMEDOUT;
    result = word_add(sem->word, SEM_WAITER);
    if (result)
        return result;
    while ((result = take(sem, SEM_WAITER)) == -EAGAIN) {
        if (syscall(SYS_futex, value_half(sem), FUTEX_WAIT_BITSET, 0, deadline, NULL, FUTEX_BITSET_MATCH_ANY) == 0)
            continue;
        if (errno == EAGAIN)
            continue;
        result = errno == EFAULT ? -EIO : -errno;
        sem_leave(sem);
        return result;
    }
    return result;
}

/* Wakes as many as there are units, if more wait than need not be woken: 0, else 1. */
static int post(struct ipc_sem *sem, unsigned n, unsigned awake)
{
    uint64_t data;
    int result = word_load(sem->word, &data);
    while (result == 0) {
        if (n > IPC_SEM_VALUE_MAX || (uint32_t)data > IPC_SEM_VALUE_MAX - n)
            return -EOVERFLOW;
        result = word_exchange(sem->word, &data, data + n);
    }
    if (result < 0)
        return result;
    if (data >> 32 <= awake)
        return 1;
    sem_wake(sem, n);
    return 0;
}

int ipc_sem_post(struct ipc_sem *sem, unsigned n)
{
    int result = post(sem, n, 0);
    return result < 0 ? result : 0;
}

int ipc_sem_post_watched(struct ipc_sem *sem, unsigned n)
{
    return post(sem, n, 1);
}

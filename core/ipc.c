/* The library's context, and what must be true of the system for it to work. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MQUEUE_MAGIC 0x19800202

/* Does this libc's sem_t look as sem.c takes for granted? Its own functions are asked. */
static bool is_known_layout(void)
{
    union {
        sem_t sem;
        uint64_t data;
    } probe;
    int value;
    if (sizeof(sem_t) != 32 || sizeof(long) != 8)
        return false;
    memset(&probe, 0, sizeof probe);
    if (sem_init(&probe.sem, 1, 5) || probe.data != 5)
        return false;
    probe.data = SEM_WAITER;
    return sem_post(&probe.sem) == 0 && probe.data == SEM_WAITER + 1 && sem_getvalue(&probe.sem, &value) == 0 &&
           value == 1 && sem_trywait(&probe.sem) == 0 && probe.data == SEM_WAITER && sem_trywait(&probe.sem) == -1;
}

/* A mount of this IPC namespace's queues that is in no tree; where that is not permitted, the usual one. */
static int mount_queues(void)
{
    int directory = -1;
    int fs = fsopen("mqueue", FSOPEN_CLOEXEC);
    if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        directory = fsmount(fs, FSMOUNT_CLOEXEC, 0);
    if (fs >= 0)
        close(fs);
    if (directory >= 0)
        return directory;
    struct statfs st;
    directory = open("/dev/mqueue", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0 && (fstatfs(directory, &st) || st.f_type != MQUEUE_MAGIC)) {
        close(directory);
        directory = -1;
    }
    return directory;
}

int ipc_new(struct ipc **made)
{
    if (!is_known_layout())
        return -ENOTSUP;
    if (syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno == ENOSYS)
        return -ENOSYS;
    if (access(SHM_DIRECTORY, F_OK) || access("/proc/self/fd", F_OK))
        return -ENOENT;
    int error = fault_setup();
    if (error)
        return error;

    struct ipc *ipc = calloc(1, sizeof *ipc);
    if (!ipc)
        return -ENOMEM;
    ipc->sems_size = 64;
    ipc->sems = calloc(ipc->sems_size, sizeof *ipc->sems);
    if (!ipc->sems) {
        free(ipc);
        return -ENOMEM;
    }
    pthread_mutex_init(&ipc->shm_lock, NULL);
    pthread_mutex_init(&ipc->sems_lock, NULL);
    pthread_mutex_init(&ipc->watch_lock, NULL);
    pthread_cond_init(&ipc->watcher_gone, NULL);
    ipc->mq_directory = mount_queues();
    *made = ipc;
    return 0;
}

void ipc_free(struct ipc *ipc)
{
    watch_free(ipc);
    if (ipc->mq_directory >= 0)
        close(ipc->mq_directory);
    pthread_cond_destroy(&ipc->watcher_gone);
    pthread_mutex_destroy(&ipc->watch_lock);
    pthread_mutex_destroy(&ipc->sems_lock);
    pthread_mutex_destroy(&ipc->shm_lock);
    free(ipc->sems);
    free(ipc);
}

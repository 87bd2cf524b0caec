/* What the library's files share. */
#ifndef IPC_INTERNAL_H
#define IPC_INTERNAL_H

#include "ipc.h"

#include <pthread.h>

#define SHM_DIRECTORY "/dev/shm"
#define SEM_PREFIX "sem."

/* Room for a path in SHM_DIRECTORY, or of a descriptor in /proc. */
#define IPC_PATH_SIZE 300

struct watcher;

struct ipc {
    int mq_directory; /* a mount of mqueuefs that nobody else sees, or -1 */

    /* Protects the next one: the status of SHM_DIRECTORY for which it is known to have no access control list. */
    pthread_mutex_t shm_lock;
    struct stat shm_without_acl;

    /* Protects `sems`, and the `opens` and `next` of every semaphore. */
    pthread_mutex_t sems_lock;
    struct ipc_sem **sems; /* hash table by inode, a power of two in size */
    size_t sems_size, sems_used;

    /* Protects `watchers` and what its members say that it does. Taken after any lock of a caller's. */
    pthread_mutex_t watch_lock;
    struct watcher *watchers;
    bool watch_ending;
    pthread_cond_t watcher_gone;
};

/* The path of an object in SHM_DIRECTORY, or an error of ipc_name_check. */
int shm_path(enum ipc_kind kind, const char *name, char path[IPC_PATH_SIZE]);

/* The 64-bit word of a glibc semaphore: the value in the lower half, the number of waiters in the upper. */
#define SEM_WAITER ((uint64_t)1 << 32)

/* Guarded access to a word that may lose its page at any time: EIO where it has. fault.c says how. */
int fault_setup(void);
int word_load(const uint64_t *word, uint64_t *value);
int word_add(uint64_t *word, uint64_t addend);
/* As __atomic_compare_exchange_n: 1 when it exchanged, 0 when not and *expected is what it found. */
int word_exchange(uint64_t *word, uint64_t *expected, uint64_t desired);

/* The word of a semaphore, its references, and a wake-up for n of its waiters. */
uint64_t *sem_word(const struct ipc_sem *sem);
struct ipc *sem_ipc(const struct ipc_sem *sem);
void sem_hold(struct ipc_sem *sem);
void sem_wake(const struct ipc_sem *sem, unsigned n);
/* Takes a waiter off. */
void sem_leave(struct ipc_sem *sem);

void watch_free(struct ipc *ipc);

#endif

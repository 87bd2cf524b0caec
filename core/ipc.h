/*
 * The machine's POSIX IPC objects: named semaphores, shared memory objects and message queues.
 *
 * This library reaches the same objects as sem_open(3), shm_open(3) and mq_open(3) do. It owns no state of its own:
 * close everything, open it again, and nothing has changed.
 *
 * Conventions
 *   - A call returns 0 or a non-negative result, or a negative errno. Nothing is printed, errno is not part of the
 *     interface.
 *   - A name is the C functions' name without its leading slash: "lock", not "/lock". It is bytes, not text.
 *   - `flags` are open(2)'s: O_CREAT, O_EXCL, O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK, O_TRUNC, where they apply.
 *   - `mode` is that of a created object; the calling thread's umask applies.
 *   - A deadline is an absolute time of CLOCK_MONOTONIC; NULL waits for ever. A call that can be done at once never
 *     fails because its deadline has passed.
 *   - Rights are those of the calling thread (its fsuid, fsgid, groups and capabilities): the kernel decides.
 *   - Descriptors that are handed out are close-on-exec.
 *   - All calls may be made from any thread.
 *
 * Errors that any call with a name may give: EINVAL (empty, "." or "..", holds a slash, or not a name of that kind),
 * ENAMETOOLONG, ENOENT, EACCES, EPERM, ENOMEM, EMFILE, ENFILE.
 */
#ifndef IPC_H
#define IPC_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

enum ipc_kind { IPC_SEM, IPC_SHM, IPC_MQ };

/* ---- The library ---- */

struct ipc;

/*
 * Makes a context; it must outlive all that is opened through it.
 * ENOSYS: no futex_waitv(2) (Linux before 5.16). ENOTSUP: this libc's semaphores are not laid out as glibc's 64-bit
 * ones since 2.21. ENOENT: no /dev/shm, or no /proc.
 */
int ipc_new(struct ipc **ipc);
void ipc_free(struct ipc *ipc);

/* ---- Names and what every kind of object has ---- */

/* Longest name in bytes: 255, and 251 for semaphores, whose files carry a prefix (sem_overview(7)). */
size_t ipc_name_max(enum ipc_kind kind);
/* 0, EINVAL or ENAMETOOLONG. */
int ipc_name_check(enum ipc_kind kind, const char *name);

/* Calls `each` for every object of a kind, in no order; a non-zero result ends the listing and is returned.
 * `ino` is the inode number that ipc_stat reports. EOPNOTSUPP: this process has no way to list queues. */
typedef int ipc_each(void *arg, const char *name, ino_t ino);
int ipc_list(struct ipc *ipc, enum ipc_kind kind, ipc_each *each, void *arg);
/* Mode, owner and times of the directory that holds a kind's objects, as stat(2). */
int ipc_stat_directory(struct ipc *ipc, enum ipc_kind kind, struct stat *st);
/* access(2) to it, with the thread's effective ids. */
int ipc_access_directory(struct ipc *ipc, enum ipc_kind kind, int mode);
/* May everybody look up names in it, whoever they are? */
bool ipc_is_open_to_all(struct ipc *ipc, enum ipc_kind kind);
/*
 * Might the user open by name, for `mode` (R_OK, W_OK), what has been opened as fd, whatever its groups and
 * capabilities are? True: it is sure, as the owner may, or all may. False: it takes the kernel to tell.
 */
bool ipc_permits(struct ipc *ipc, enum ipc_kind kind, int fd, uid_t user, int mode);

/*
 * An O_PATH descriptor of the object, for the calls below: it needs no permission on the object and takes part in
 * nothing. Symbolic links are never followed; what is not a regular file is ENOENT.
 */
int ipc_locate(struct ipc *ipc, enum ipc_kind kind, const char *name);
/* stat(2) of the same, by name. */
int ipc_stat_name(struct ipc *ipc, enum ipc_kind kind, const char *name, struct stat *st);
/* stat(2), access(2) (with the thread's effective ids), chmod(2), chown(2), utimensat(2) on ipc_locate's descriptor
 * or on that of an open object. */
int ipc_stat(int fd, struct stat *st);
int ipc_access(int fd, int mode);
int ipc_chmod(int fd, mode_t mode);
int ipc_chown(int fd, uid_t uid, gid_t gid);
int ipc_utimens(int fd, const struct timespec times[2]);

/* sem_unlink(3), shm_unlink(3), mq_unlink(3). */
int ipc_unlink(struct ipc *ipc, enum ipc_kind kind, const char *name);

/* ---- Semaphores: sem_overview(7) ---- */

struct ipc_sem;

#define IPC_SEM_VALUE_MAX 0x7fffffffU

/*
 * sem_open(3): opens, or with O_CREAT makes with the initial value, a semaphore. All opens of one semaphore share one
 * struct, so that it can be compared and is mapped once.
 * EEXIST with O_EXCL. EINVAL: value above SEM_VALUE_MAX, or a file of that name that is no semaphore.
 */
int ipc_sem_open(struct ipc *ipc, struct ipc_sem **sem, const char *name, int flags, mode_t mode, unsigned value);
void ipc_sem_close(struct ipc_sem *sem);
/* A descriptor for ipc_stat and its like; it lives as long as the semaphore is open. */
int ipc_sem_fd(const struct ipc_sem *sem);

/*
 * The calls below give EIO where the semaphore's file was cut short under its users.
 *
 * sem_trywait(3): EAGAIN when the value is 0.
 */
int ipc_sem_trywait(struct ipc_sem *sem);
/* sem_wait(3), sem_clockwait(3): EINTR, ETIMEDOUT. */
int ipc_sem_wait(struct ipc_sem *sem, const struct timespec *deadline);
/* sem_post(3), n times at once or not at all. EOVERFLOW: the value would exceed SEM_VALUE_MAX. */
int ipc_sem_post(struct ipc_sem *sem, unsigned n);
/*
 * As above, by somebody who watches the semaphore and looks after it at once: that watch is not woken. 1: nobody else
 * waits; 0: others do, and are woken as ever.
 */
int ipc_sem_post_watched(struct ipc_sem *sem, unsigned n);
/* sem_getvalue(3). */
int ipc_sem_value(struct ipc_sem *sem, unsigned *value);

/*
 * Watches a semaphore for somebody who has found it at 0 and waits, and takes nothing from it: its value never changes
 * because of a watch.
 *
 * `posted` is called from a thread of the library's, once soon after the watch was made and then whenever the value is
 * above 0. It returns true to be called again when that is so, or false, which ends the watch: `arg` is not touched
 * after that. It must end it once an operation on the semaphore gives EIO, and should when it leaves something to take:
 * then others are woken. It may call all functions on the semaphore, but must not wait.
 * Thousands of semaphores are watched by a few threads (127 each). ENOMEM, EAGAIN: no thread.
 */
typedef bool ipc_sem_posted(void *arg);
struct ipc_watch;
int ipc_sem_watch(struct ipc_sem *sem, ipc_sem_posted *posted, void *arg, struct ipc_watch **watch);
/* Has `posted` called soon, whatever the value. The watch must not have ended, nor end during the call. */
void ipc_watch_again(struct ipc_watch *watch);

/* ---- Shared memory objects: shm_overview(7) ---- */

/* shm_open(3): a descriptor. Flags may also hold O_APPEND. EINVAL: there is something of that name which is no shared
 * memory object. */
int ipc_shm_open(struct ipc *ipc, const char *name, int flags, mode_t mode);
/* The same of what ipc_locate has found, whatever its name means by now. */
int ipc_shm_reopen(int fd, int flags);
/* rename(2), with renameat2(2)'s flags RENAME_NOREPLACE and RENAME_EXCHANGE, among shared memory objects. EINVAL: other
 * flags, or the new name is that of something else. */
int ipc_shm_rename(struct ipc *ipc, const char *from, const char *to, unsigned flags);
/* The size in bytes, and ftruncate(2). */
int64_t ipc_shm_size(int fd);
int ipc_shm_resize(int fd, int64_t size);
/* The file system below, as statfs(2) on /dev/shm. */
struct statvfs;
int ipc_shm_statfs(struct ipc *ipc, struct statvfs *st);

/* ---- Message queues: mq_overview(7) ---- */

struct ipc_mq_attr {
    long max_messages;
    long max_message_size; /* bytes */
    long current_messages; /* read only, as all below */
    long bytes;            /* in all messages together */
    pid_t notify_pid;      /* process registered for notification, 0 for none */
};

/*
 * mq_open(3): a descriptor, for sending, receiving or both by O_WRONLY, O_RDONLY or O_RDWR. Of `attr` the first two
 * members matter, where a queue is made; NULL means the system's defaults.
 * EEXIST with O_EXCL. EINVAL: attributes past the system's limits. EMFILE: RLIMIT_MSGQUEUE. ENOSPC: too many queues.
 */
int ipc_mq_open(struct ipc *ipc, const char *name, int flags, mode_t mode, const struct ipc_mq_attr *attr);
/* Sets the first two members, where they are 0, to the system's defaults. */
void ipc_mq_defaults(struct ipc_mq_attr *attr);
/* mq_send(3), mq_timedsend(3): EMSGSIZE, EINVAL (priority), EAGAIN (O_NONBLOCK and full), EINTR, ETIMEDOUT. */
int ipc_mq_send(int fd, const void *message, size_t size, unsigned priority, const struct timespec *deadline);
/* mq_receive(3), mq_timedreceive(3): the message's size. EMSGSIZE (buffer below max_message_size), and as above. */
ssize_t ipc_mq_receive(int fd, void *message, size_t size, unsigned *priority, const struct timespec *deadline);
/* mq_getattr(3); the last two members are 0. */
int ipc_mq_getattr(int fd, struct ipc_mq_attr *attr);
/* All members: the rest is what mq_overview(7) says of /dev/mqueue's files. That takes a descriptor for receiving (0
 * otherwise), and changes the queue's time of access. */
int ipc_mq_getattr_all(int fd, struct ipc_mq_attr *attr);
/* mq_notify(3): EBUSY: somebody is registered. NULL withdraws. */
int ipc_mq_notify(int fd, const struct sigevent *event);

/* ---- Limits and errors ---- */

/* Calls `each` with the constants of posix_ipc: SEMAPHORE_VALUE_MAX and the like, those of this system now. */
typedef void ipc_each_limit(void *arg, const char *name, long value);
void ipc_limits(ipc_each_limit *each, void *arg);
#define IPC_PRIORITY_MAX 32767 /* QUEUE_PRIORITY_MAX: MQ_PRIO_MAX - 1 */

/* The classes that posix_ipc sorts errors into. `error` is an errno, of either sign. */
enum ipc_error {
    IPC_ERROR_SIGNAL,
    IPC_ERROR_PERMISSIONS,
    IPC_ERROR_EXISTENTIAL,
    IPC_ERROR_BUSY,
    IPC_ERROR_VALUE,
    IPC_ERROR_GENERAL,
    IPC_ERROR_OS,
};
enum ipc_error ipc_error_class(int error);
/* "SignalError", "ExistentialError" and so on, as posix_ipc names them. */
const char *ipc_error_name(enum ipc_error class);

#endif

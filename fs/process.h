/* Other processes: who they are, how they ended, and descriptors from and to them. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

/* Is /proc that of our pid namespace, so that a number means the same there and here? */
bool proc_is_ours(void);

/* The process that a thread belongs to; the thread itself where that is not to be found out. */
pid_t process_of_thread(pid_t thread);

/* What a thread may do beyond what its uid and gid say. */
struct credentials {
    gid_t *groups; /* to be freed */
    int groups_count;
    uint64_t capabilities; /* effective ones (bits as in capabilities(7)), none if it is in another user namespace */
    uint64_t permitted;    /* likewise */
    uid_t uid, fsuid;      /* real, and that of its other calls */
};
/* EACCES: the thread is not to be seen from our pid namespace. ENOMEM. On failure nothing is to be freed. */
int credentials_of_thread(pid_t thread, struct credentials *credentials);

/* A process's soft limit, in bytes. `name` is what proc_pid_limits(5) calls it: that file is for all to read, where
 * prlimit(2) takes more rights. 0, or as for credentials_of_thread. */
int limit_of_process(pid_t pid, const char *name, rlim_t *limit);

/* The core that a thread ran on last (proc_pid_stat(5)), or -1. */
int core_of_thread(pid_t thread);

/* The wait(2) status with which the process of a pidfd has ended or is about to; 0 where it runs or nobody knows. */
int process_status(int pidfd);

/* sendmsg(2) and recvmsg(2) of one packet with a descriptor, -1 for none. Async-signal-safe. */
int send_with_descriptor(int socket, const void *data, size_t size, int fd);
ssize_t receive_with_descriptor(int socket, void *data, size_t size, int *fd, int flags);

#endif

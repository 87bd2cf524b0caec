/* Other processes: who they are, how they ended, and descriptors from and to them. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stddef.h>
#include <sys/types.h>

/* The process that a thread belongs to; the thread itself where that is not to be found out. */
pid_t process_of_thread(pid_t thread);

/* The supplementary groups of a thread, to be freed; NULL: none are to be found out, *count is 0. */
gid_t *groups_of_thread(pid_t thread, int *count);

/* The wait(2) status with which the process of a pidfd has ended or is about to; 0 where it runs or nobody knows. */
int process_status(int pidfd);

/* sendmsg(2) and recvmsg(2) of one packet with a descriptor, -1 for none. Async-signal-safe. */
int send_with_descriptor(int socket, const void *data, size_t size, int fd);
ssize_t receive_with_descriptor(int socket, void *data, size_t size, int *fd, int flags);

#endif

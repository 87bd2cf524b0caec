/*
 * FUSE passthrough: the kernel reads, writes and maps a shared memory object itself, on the pages of /dev/shm.
 *
 * That makes mmap(MAP_SHARED) the same memory for all, and reads and writes as fast as there. It needs Linux 6.9 and
 * CAP_SYS_ADMIN. libfuse knows it since 3.17; the few bytes that it does not know are put into its messages here.
 *
 * While an inode is open it has one backing file, which its opens share: it is opened by the daemon, after the caller's
 * own open has succeeded. The kernel takes only the place from it, and opens that once more for each open, with that
 * open's flags; so it is opened for reading, which is in nobody's way.
 */
#ifndef PASSTHROUGH_H
#define PASSTHROUGH_H

#include "session.h"

/* After mounting. */
int passthrough_setup(struct session *session);
/* As part of the first request. */
void passthrough_negotiate(struct session *session, struct fuse_conn_info *conn);
/* After it: session->shared_mmap says from now on whether it can be had. The reason why not, or NULL. */
const char *passthrough_decide(struct session *session);

/* Gives a handle its node's backing file. False: there is none, and its requests come to us. */
bool passthrough_begin(struct handle *handle);
/* The handle goes. */
void passthrough_end(struct handle *handle);

/* fuse_reply_open and fuse_reply_create for a handle that has one. */
int passthrough_reply_open(fuse_req_t req, struct handle *handle, struct fuse_file_info *fi);
int passthrough_reply_create(fuse_req_t req, const struct fuse_entry_param *entry, struct handle *handle,
                             struct fuse_file_info *fi);

#endif

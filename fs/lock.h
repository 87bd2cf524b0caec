/*
 * flock(2) and fcntl(2) locks.
 *
 * They are taken on the real object, so that they exclude its native users too. A flock(2) lock is that of the handle's
 * own open file. A process's fcntl(2) locks on an object are those of an open file that we keep for it
 * (F_OFD_SETLK, in fcntl_locking(2)), and end when it closes any descriptor of the object, or for semaphores and
 * queues, whose closing the kernel does not tell of, when the handle goes.
 *
 * A lock that waits for another user of the mount is a small struct that is tried again when that one lets go. For a
 * native holder there is no call that waits without a thread: one thread waits for all who want the same.
 */
#ifndef LOCK_H
#define LOCK_H

#include "session.h"

/* Each answers its request, now or later. `sleep`: wait. EINVAL: what the handle is open on has no locks. */
void lock_whole(fuse_req_t req, struct handle *handle, int operation); /* as flock(2) has it */
void lock_range(fuse_req_t req, struct handle *handle, uint64_t owner, const struct flock *range, bool sleep);
void lock_query(fuse_req_t req, struct handle *handle, uint64_t owner, const struct flock *range);

/* The owner has closed a descriptor of the handle: its ranges are free. */
void lock_closed(struct handle *handle, uint64_t owner);
/* The handle goes, and its locks with it. Called before its descriptor is closed. */
void lock_release(struct handle *handle);

void locks_setup(struct session *session);
/* Ends all waits. No request is served any more. */
void locks_end(struct session *session);

#endif

/* Objects with locks, and whose locks those are. All is called with session->locks.lock held, which protects all here.
 */
#ifndef LOCK_FILE_H
#define LOCK_FILE_H

#include "session.h"

/* Whose ranges of a file an open file of ours holds. */
struct lock_owner {
    LIST_ENTRY(lock_owner) link;
    uint64_t id; /* the kernel's, of a process or an open file */
    pid_t pid;   /* of who locked last */
    struct session *session;
    uid_t opener;       /* at whose share it is */
    int fd;             /* never duplicated, so that closing it ends the locks */
    unsigned waits;     /* that use it */
    struct handle *via; /* by which it locked last; NULL: its descriptor is closed, but it waits by another */
};

/* An object with locks or waits. */
struct lock_file {
    struct session *session;
    dev_t device;
    ino_t inode;
    LIST_HEAD(, lock_owner) owners;
    LIST_HEAD(, handle) flocked;
    TAILQ_HEAD(lock_waits, lock_wait) waits;
};

/* Of the handle's object. NULL: nobody locks it or waits; of the second: no memory. */
struct lock_file *lock_file_find(const struct handle *handle);
struct lock_file *lock_file_get(const struct handle *handle);
/* It goes if it has nothing any more. */
void lock_file_put(struct lock_file *file);
/* Who of us holds a range that F_OFD_GETLK has found to be in the way; NULL: a native user. */
const struct lock_owner *lock_file_holder(struct lock_file *file, const struct flock *range);

struct lock_owner *lock_owner_find(struct lock_file *file, uint64_t id);
/* That one, or a new one; it locks by this handle now. EMFILE, ENOMEM, or as open(2). */
int lock_owner_get(struct lock_file *file, struct handle *handle, uint64_t id, struct lock_owner **found);
/* Its locks end, and it goes unless it waits. */
void lock_owner_put(struct lock_owner *owner);
/* One wait less. */
void lock_owner_leave(struct lock_owner *owner);

/* Another open file of the handle's object, for all that can be locked, or else for what the handle is open for. */
int lock_open_again(const struct handle *handle);

#endif

/*
 * Acting as the caller.
 *
 * With root's mount everybody's requests come to us, and each is done with its caller's fsuid, fsgid, groups,
 * capabilities and umask, so that the kernel decides what is permitted. These belong to a thread (the calls are made
 * without libc, whose functions would change all threads). The real and effective uid stay root's: with the caller's
 * real uid, the caller could signal us.
 */
#ifndef CALLER_H
#define CALLER_H

#include "process.h"
#include "session.h"

struct caller {
    const struct session *session;
    uid_t uid;
    gid_t gid;
    pid_t pid; /* of the thread that called; alive until the request is answered */
    mode_t umask;
    bool assumed; /* the next two are known, and the thread has all the caller's rights */
    uint64_t capabilities;
    uid_t real_uid;
};

/*
 * From now on, until it assumes another, the thread has the caller's rights. EACCES: the mount is another user's, or it
 * is root's and the caller is not to be seen from here, so that its groups, which can also take rights away, are not
 * known. ENOMEM.
 */
int caller_assume(fuse_req_t req, struct caller *caller);
/*
 * The same in two steps, for what may turn out not to need the second: to learn what rights a caller has takes longer
 * than most of what is done with them.
 */
int caller_name(fuse_req_t req, struct caller *caller);
int caller_become(struct caller *caller);
/* Between them: an attempt may be made with the caller's fsuid and fsgid. The thread's groups and capabilities are
 * anybody's, so what comes of it counts only if ipc_permits says so. False: not to be tried with this one. */
bool caller_approach(const struct caller *caller);
/* As caller_assume, with the rights that access(2) asks about. */
int caller_assume_real(fuse_req_t req, struct caller *caller);
/*
 * As above, or more cheaply nothing, for what only looks an object up and asks for its status: that takes no right but
 * to search the kind's directory, which all mostly have.
 */
int caller_look(fuse_req_t req, enum ipc_kind kind, struct caller *caller);
/* The thread ends. */
void caller_forget(void);

/*
 * ipc_mq_open in a short-lived process that is the caller through and through, for a queue counts against the real
 * uid's RLIMIT_MSGQUEUE. Call it as the caller.
 */
int caller_make_queue(const struct caller *caller, struct ipc *ipc, const char *name, int flags, mode_t mode,
                      const struct ipc_mq_attr *attr);

#endif

#include "caller.h"
#include "process.h"
#include "rights.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Whose rights the thread has. They stay after a request: the next one is often of the same caller. */
static __thread struct identity {
    uid_t uid;
    gid_t gid;
    struct credentials more;
    mode_t umask;
    bool own_umask; /* threads share it otherwise */
} now;

static void set_umask(mode_t mask)
{
    if (!now.own_umask) {
        now.own_umask = unshare(CLONE_FS) == 0;
        now.umask = now.own_umask ? umask(mask) : 0;
    }
    if (now.own_umask && now.umask != mask)
        umask(mask);
    now.umask = mask;
}

static bool same_groups(const struct credentials *a, const struct credentials *b)
{
    return a->groups_count == b->groups_count &&
           (!a->groups_count || !memcmp(a->groups, b->groups, a->groups_count * sizeof *a->groups));
}

/* Takes over the groups. */
static int become(uid_t uid, gid_t gid, const struct credentials *more)
{
    bool refused = !same_groups(more, &now.more) && syscall(SYS_setgroups, more->groups_count, more->groups);
    free(now.more.groups);
    now.more = *more;
    if (refused)
        now.more.groups_count = -1; /* like none that is asked for */
    if (gid != now.gid)
        syscall(SYS_setfsgid, gid);
    if (uid != now.uid) {
        syscall(SYS_setfsuid, uid);
        rights_forget(); /* that takes some away from who is not root, and gives them to root */
    }
    rights_lend(more->capabilities);
    /* These two return what was; asking again tells whether it worked. */
    if (uid != now.uid)
        refused |= syscall(SYS_setfsuid, -1) != (long)uid;
    if (gid != now.gid)
        refused |= syscall(SYS_setfsgid, -1) != (long)gid;
    now.uid = uid;
    now.gid = gid;
    return refused ? -EPERM : 0;
}

static void become_nobody(void)
{
    const struct credentials none = {.groups = NULL};
    become(0, 0, &none);
}

/*
 * access(2) asks for the real ids, and with root's capabilities for root and none for others; with AT_EACCESS for the
 * effective ones. The kernel does not say which: only the uid tells, where the two differ.
 */
static void see_real_user(const struct caller *caller, struct credentials *more)
{
    if (caller->uid != more->fsuid || more->uid == more->fsuid)
        more->capabilities = caller->uid ? 0 : more->permitted;
}

int caller_name(fuse_req_t req, struct caller *caller)
{
    const struct session *session = fuse_req_userdata(req);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    *caller =
        (struct caller){.session = session, .uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid, .umask = ctx->umask};
    return session->everyone || ctx->uid == session->owner ? 0 : -EACCES;
}

bool caller_approach(const struct caller *caller)
{
    if (!caller->session->everyone || caller->assumed || !caller->pid)
        return false;
    bool done = true;
    if (caller->gid != now.gid) {
        syscall(SYS_setfsgid, caller->gid);
        done &= syscall(SYS_setfsgid, -1) == (long)caller->gid;
    }
    if (caller->uid != now.uid) {
        syscall(SYS_setfsuid, caller->uid);
        rights_forget();
        rights_lower();
        done &= syscall(SYS_setfsuid, -1) == (long)caller->uid;
    }
    now.uid = caller->uid;
    now.gid = caller->gid;
    if (!done)
        become_nobody();
    return done;
}

static int become_caller(struct caller *caller, bool real)
{
    struct credentials more;
    set_umask(caller->umask);
    caller->assumed |= !caller->session->everyone;
    if (caller->assumed)
        return 0;
    int error = credentials_of_thread(caller->pid, &more);
    if (error)
        return error;
    if (real)
        see_real_user(caller, &more);
    else if (caller->uid != more.fsuid)
        more.capabilities = 0; /* it calls with other credentials than /proc shows */
    error = become(caller->uid, caller->gid, &more);
    if (error)
        become_nobody();
    caller->capabilities = more.capabilities;
    caller->real_uid = more.uid;
    caller->assumed = !error;
    return error;
}

int caller_become(struct caller *caller)
{
    return become_caller(caller, false);
}

int caller_assume(fuse_req_t req, struct caller *caller)
{
    int error = caller_name(req, caller);
    return error ? error : become_caller(caller, false);
}

int caller_assume_real(fuse_req_t req, struct caller *caller)
{
    int error = caller_name(req, caller);
    return error ? error : become_caller(caller, true);
}

int caller_look(fuse_req_t req, enum ipc_kind kind, struct caller *caller)
{
    const struct session *session = fuse_req_userdata(req);
    if (!session->everyone || !ipc_is_open_to_all(session->ipc, kind))
        return caller_assume(req, caller);
    *caller = (struct caller){.session = session};
    return 0;
}

void caller_forget(void)
{
    free(now.more.groups);
    now.more = (struct credentials){.groups = NULL};
}

/* ---- Making a queue ---- */

/* The descriptor, or the error; EINTR: the sender ended without a word. */
static int receive_descriptor(int socket)
{
    int error, fd;
    if (receive_with_descriptor(socket, &error, sizeof error, &fd, MSG_DONTWAIT) != sizeof error)
        return -EINTR;
    if (fd >= 0)
        return fd;
    return error ? error : -EMFILE; /* there was no room for it */
}

/* Above our own hard limit it takes CAP_SYS_RESOURCE; without it, that. */
static int set_queue_limit(rlim_t limit)
{
    struct rlimit own = {limit, limit};
    if (setrlimit(RLIMIT_MSGQUEUE, &own) == 0)
        return 0;
    getrlimit(RLIMIT_MSGQUEUE, &own);
    own.rlim_cur = own.rlim_max = limit < own.rlim_max ? limit : own.rlim_max;
    return setrlimit(RLIMIT_MSGQUEUE, &own);
}

/* The child: async-signal-safe calls only, as other threads may have held any lock. */
static void become_and_open(const struct caller *caller, struct ipc *ipc, rlim_t limit, const char *name, int flags,
                            mode_t mode, const struct ipc_mq_attr *attr, int socket)
{
    syscall(SYS_setfsuid, 0);
    rights_raise();
    prctl(PR_SET_KEEPCAPS, 1);
    if (set_queue_limit(limit) || syscall(SYS_setresgid, caller->gid, caller->gid, caller->gid) ||
        syscall(SYS_setresuid, caller->real_uid, caller->uid, caller->uid)) {
        const int error = -EPERM;
        send_with_descriptor(socket, &error, sizeof error, -1);
        return;
    }
    rights_become(caller->capabilities);
    int fd = ipc_mq_open(ipc, name, flags, mode, attr);
    const int error = fd < 0 ? fd : 0;
    send_with_descriptor(socket, &error, sizeof error, fd);
}

int caller_make_queue(const struct caller *caller, struct ipc *ipc, const char *name, int flags, mode_t mode,
                      const struct ipc_mq_attr *attr)
{
    if (!caller->session->everyone)
        return ipc_mq_open(ipc, name, flags, mode, attr);
    int sockets[2];
    rlim_t limit;
    int error = limit_of_process(caller->pid, "Max msgqueue size", &limit);
    if (error)
        return error;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        /* Where we are killed now, and the caller stops the child, nothing else of ours is to go on. */
        close_range(STDERR_FILENO + 1, sockets[1] - 1, 0);
        close_range(sockets[1] + 1, ~0U, 0);
        become_and_open(caller, ipc, limit, name, flags, mode, attr, sockets[1]);
        _exit(0);
    }
    int result = -errno;
    close(sockets[1]);
    if (pid > 0) {
        /* The child is the caller's process too, who may stop it: then it ends. */
        siginfo_t info;
        while (waitid(P_PID, pid, &info, WEXITED | WSTOPPED) == 0 && info.si_code == CLD_STOPPED)
            kill(pid, SIGKILL);
        result = receive_descriptor(sockets[0]);
    }
    close(sockets[0]);
    return result;
}

#include "lock.h"
#include "device.h"
#include "kind.h"
#include "lock_file.h"
#include "rights.h"
#include "share.h"

#include <search.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

struct lock_wait {
    TAILQ_ENTRY(lock_wait) link;
    struct lock_file *file;
    unsigned device; /* by which it came */
    fuse_req_t req;
    struct handle *handle;
    struct lock_owner *owner; /* NULL: flock(2) */
    int operation;            /* flock(2): LOCK_SH or LOCK_EX */
    struct flock range;
    bool waiting; /* in file->waits, to be answered */
    bool interrupted;
    bool threaded; /* a thread waits in the kernel, and answers */
    pthread_t thread;
    int error;
};

/* ---- One attempt ---- */

/* What is waited for, without waiting or, in a thread of its own, for as long as it takes. */
static int take(const struct lock_wait *wait, bool sleep)
{
    struct flock range = wait->range;
    int result = wait->owner ? fcntl(wait->owner->fd, sleep ? F_OFD_SETLKW : F_OFD_SETLK, &range)
                             : flock(wait->handle->lock_fd, wait->operation | (sleep ? 0 : LOCK_NB));
    return result ? -errno : 0;
}

/* Notes what the handle holds now. flock(2) lets go of what it cannot convert. */
static void note_flock(struct lock_file *file, struct handle *handle, int mode)
{
    if (handle->flock_mode)
        LIST_REMOVE(handle, flocked);
    handle->flock_mode = mode;
    if (mode)
        LIST_INSERT_HEAD(&file->flocked, handle, flocked);
}

static int attempt(struct lock_wait *wait)
{
    int error = take(wait, false);
    if (!wait->owner)
        note_flock(wait->file, wait->handle, error ? 0 : wait->operation & ~LOCK_UN);
    else if (!error)
        wait->owner->via = wait->handle;
    return error;
}

/* ---- Waiting; called with locks->lock held ---- */

/* Is a user of the mount in its way? Then it is tried again when that one lets go. */
static bool waits_for_us(const struct lock_wait *wait)
{
    const struct handle *handle;
    if (wait->owner) {
        struct flock range = wait->range;
        range.l_pid = 0;
        return fcntl(wait->owner->fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK &&
               lock_file_holder(wait->file, &range);
    }
    LIST_FOREACH (handle, &wait->file->flocked, flocked)
        if (handle != wait->handle && (handle->flock_mode == LOCK_EX || wait->operation == LOCK_EX))
            return true;
    return false;
}

/* Does a thread wait for the same already? Then it is tried again when that has got it. */
static bool is_represented(const struct lock_wait *wait)
{
    const struct lock_wait *other;
    TAILQ_FOREACH (other, &wait->file->waits, link)
        if (other->threaded && !other->owner == !wait->owner &&
            (wait->owner ? other->range.l_type == wait->range.l_type && other->range.l_start == wait->range.l_start &&
                               other->range.l_len == wait->range.l_len
                         : other->operation == wait->operation))
            return true;
    return false;
}

static void *wait_in_kernel(void *arg);

/* 0: somebody will try again for it. */
static int see_to(struct lock_wait *wait)
{
    if (wait->threaded || waits_for_us(wait) || is_represented(wait))
        return 0;
    const uid_t uid = wait->handle->opener;
    struct session *session = wait->file->session;
    if (share_take_thread(session, uid))
        return -ENOLCK;
    rights_lower(); /* the thread has what we have */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    wait->threaded = true;
    wait->error = -EINTR;
    session->locks.threads++;
    int error = pthread_create(&wait->thread, &attributes, wait_in_kernel, wait);
    pthread_attr_destroy(&attributes);
    if (error) {
        wait->threaded = false;
        session->locks.threads--;
        share_give_thread(session, uid);
    }
    return error ? -ENOLCK : 0;
}

/* It ends, to be answered by the caller. */
static void end_wait(struct lock_wait *wait, int error)
{
    TAILQ_REMOVE(&wait->file->waits, wait, link);
    wait->waiting = false;
    wait->error = error;
    device_waits(wait->file->session, wait->device, -1);
    if (wait->owner)
        lock_owner_leave(wait->owner);
}

/* Something may be free. */
static void try_again(struct lock_file *file, struct lock_waits *done)
{
    for (struct lock_wait *wait = TAILQ_FIRST(&file->waits), *next; wait; wait = next) {
        next = TAILQ_NEXT(wait, link);
        if (wait->threaded)
            continue;
        int error = attempt(wait);
        if (error == -EAGAIN)
            error = see_to(wait);
        else if (!error)
            error = 1;
        if (error) {
            end_wait(wait, error > 0 ? 0 : error);
            TAILQ_INSERT_TAIL(done, wait, link);
        }
    }
}

static void reply(struct lock_wait *wait)
{
    const unsigned before = device_now();
    device_use(wait->device);
    fuse_reply_err(wait->req, -wait->error);
    device_use(before);
    free(wait);
}

/* Without the lock: libfuse's own of the request comes first (park.c). */
static void answer(struct lock_wait *wait)
{
    fuse_req_interrupt_func(wait->req, NULL, NULL);
    reply(wait);
}

static void answer_all(struct lock_waits *done)
{
    for (struct lock_wait *wait; (wait = TAILQ_FIRST(done));) {
        TAILQ_REMOVE(done, wait, link);
        answer(wait);
    }
}

/*
 * The thread of a wait has got the lock, or was cancelled: perhaps just after it had got it, so one more attempt
 * tells what it has.
 */
static void end_in_kernel(struct lock_wait *wait)
{
    struct lock_file *file = wait->file;
    struct session *session = file->session;
    struct lock_waits done = TAILQ_HEAD_INITIALIZER(done);

    pthread_mutex_lock(&session->locks.lock);
    share_give_thread(session, wait->handle->opener);
    int error = wait->error == 0 || wait->error == -EINTR ? attempt(wait) : wait->error;
    if (error == -EAGAIN) /* EINTR without a signal gets out of the kernel as what it is not to be seen as */
        error = wait->interrupted ? -EINTR : -ENOTCONN;
    end_wait(wait, error);
    TAILQ_INSERT_TAIL(&done, wait, link);
    try_again(file, &done);
    lock_file_put(file);
    pthread_mutex_unlock(&session->locks.lock);
    answer_all(&done);
    pthread_mutex_lock(&session->locks.lock);
    session->locks.threads--;
    pthread_cond_signal(&session->locks.ended);
    pthread_mutex_unlock(&session->locks.lock);
}

/* Not pthread_cancel, for which glibc needs a library and a descriptor at that moment, and without ends the process. */
#define CANCEL SIGUSR1
static __thread sigjmp_buf *volatile landing;

static void on_cancel(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    if (landing && info->si_code == SI_TKILL)
        siglongjmp(*landing, 1);
}

static void *wait_in_kernel(void *arg)
{
    struct lock_wait *wait = arg;
    sigjmp_buf here; /* with the signal blocked, as in all threads */
    sigset_t cancel;
    sigemptyset(&cancel);
    sigaddset(&cancel, CANCEL);
    if (!sigsetjmp(here, 1)) {
        landing = &here;
        pthread_sigmask(SIG_UNBLOCK, &cancel, NULL);
        wait->error = take(wait, true);
        pthread_sigmask(SIG_BLOCK, &cancel, NULL);
    }
    landing = NULL;
    end_in_kernel(wait);
    return NULL;
}

static void on_interrupt(fuse_req_t req, void *data)
{
    struct lock_wait *wait = data;
    struct session *session = fuse_req_userdata(req);
    pthread_mutex_lock(&session->locks.lock);
    wait->interrupted = true;
    bool ours = wait->waiting && !wait->threaded;
    if (ours) {
        end_wait(wait, -EINTR);
        lock_file_put(wait->file);
    } else if (wait->waiting) {
        pthread_kill(wait->thread, CANCEL);
    }
    pthread_mutex_unlock(&session->locks.lock);
    if (ours)
        reply(wait);
}

/* ---- Requests ---- */

static struct lock_wait *wait_new(fuse_req_t req, struct handle *handle)
{
    struct lock_wait *wait = calloc(1, sizeof *wait);
    if (!wait) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    wait->device = device_now();
    wait->req = req;
    wait->handle = handle;
    return wait;
}

/* To the end of the line, where it is tried once more: an interrupt may have come before it could be told. */
static int wait_in_line(struct lock_wait *wait)
{
    if (wait->interrupted)
        return -EINTR;
    int error = attempt(wait);
    if (error != -EAGAIN)
        return error;
    TAILQ_INSERT_TAIL(&wait->file->waits, wait, link);
    wait->waiting = true;
    device_waits(wait->file->session, wait->device, 1);
    if (wait->owner)
        wait->owner->waits++;
    error = see_to(wait);
    if (error)
        end_wait(wait, error);
    return error ? error : -EINPROGRESS;
}

/* Called with the lock held, which it lets go of. */
static void lock(struct lock_wait *wait, bool sleep)
{
    struct session *session = wait->handle->session;
    struct lock_waits done = TAILQ_HEAD_INITIALIZER(done);
    struct lock_file *file = wait->file;
    int error = attempt(wait);
    if (error == -EAGAIN && sleep) {
        /* The file stays: flocked or owned by somebody, or else the attempt below makes it so. */
        if (wait->owner)
            wait->owner->waits++;
        pthread_mutex_unlock(&session->locks.lock);
        fuse_req_interrupt_func(wait->req, on_interrupt, wait);
        pthread_mutex_lock(&session->locks.lock);
        wait->file = file = lock_file_get(wait->handle);
        error = file ? wait_in_line(wait) : -ENOMEM;
        if (wait->owner)
            lock_owner_leave(wait->owner);
    }
    /* A lock that was converted or cut short, too, may be what another waits for. */
    if (file) {
        try_again(file, &done);
        lock_file_put(file);
    }
    pthread_mutex_unlock(&session->locks.lock);
    answer_all(&done);
    if (error == -EINPROGRESS)
        return;
    wait->error = error;
    answer(wait);
}

/* The open file that flock(2) locks: the handle's own, or where handles share one, another. */
static int whole_descriptor(struct handle *handle)
{
    if (handle->lock_fd < 0)
        handle->lock_fd = handle->sem ? lock_open_again(handle) : handle->fd;
    return handle->lock_fd < 0 ? handle->lock_fd : 0;
}

void lock_whole(fuse_req_t req, struct handle *handle, int operation)
{
    struct lock_wait *wait = handle->kind->open ? wait_new(req, handle) : NULL;
    if (!wait) {
        if (!handle->kind->open)
            fuse_reply_err(req, EINVAL);
        return;
    }
    wait->operation = operation & ~LOCK_NB;
    pthread_mutex_lock(&handle->session->locks.lock);
    int error = whole_descriptor(handle);
    if (!error && !(wait->file = lock_file_get(handle)))
        error = -ENOMEM;
    if (!error) {
        lock(wait, !(operation & LOCK_NB));
        return;
    }
    pthread_mutex_unlock(&handle->session->locks.lock);
    wait->error = error;
    answer(wait);
}

void lock_range(fuse_req_t req, struct handle *handle, uint64_t owner, const struct flock *range, bool sleep)
{
    struct lock_wait *wait = handle->kind->open ? wait_new(req, handle) : NULL;
    if (!wait) {
        if (!handle->kind->open)
            fuse_reply_err(req, EINVAL);
        return;
    }
    wait->range = *range;
    wait->range.l_pid = 0;
    pthread_mutex_lock(&handle->session->locks.lock);
    wait->file = lock_file_get(handle);
    int error = wait->file ? lock_owner_get(wait->file, handle, owner, &wait->owner) : -ENOMEM;
    if (!error) {
        wait->owner->pid = range->l_type == F_UNLCK ? wait->owner->pid : range->l_pid;
        lock(wait, sleep);
        return;
    }
    if (wait->file)
        lock_file_put(wait->file);
    pthread_mutex_unlock(&handle->session->locks.lock);
    wait->error = error;
    answer(wait);
}

void lock_query(fuse_req_t req, struct handle *handle, uint64_t owner, const struct flock *range)
{
    struct flock found = *range;
    if (!handle->kind->open) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    pthread_mutex_lock(&handle->session->locks.lock);
    struct lock_file *file = lock_file_find(handle);
    struct lock_owner *self = file ? lock_owner_find(file, owner) : NULL;
    found.l_pid = 0;
    int error = fcntl(self ? self->fd : handle->kind->descriptor(handle), F_OFD_GETLK, &found) ? errno : 0;
    if (!error && found.l_type != F_UNLCK && file) {
        const struct lock_owner *holder = lock_file_holder(file, &found);
        if (holder)
            found.l_pid = holder->pid;
    }
    pthread_mutex_unlock(&handle->session->locks.lock);
    if (error)
        fuse_reply_err(req, error);
    else
        fuse_reply_lock(req, &found);
}

void lock_closed(struct handle *handle, uint64_t owner_id)
{
    struct session *session = handle->session;
    struct lock_waits done = TAILQ_HEAD_INITIALIZER(done);
    pthread_mutex_lock(&session->locks.lock);
    struct lock_file *file = lock_file_find(handle);
    struct lock_owner *owner = file ? lock_owner_find(file, owner_id) : NULL;
    if (owner) {
        lock_owner_put(owner);
        try_again(file, &done);
        lock_file_put(file);
    }
    pthread_mutex_unlock(&session->locks.lock);
    answer_all(&done);
}

void lock_release(struct handle *handle)
{
    struct session *session = handle->session;
    struct lock_waits done = TAILQ_HEAD_INITIALIZER(done);
    pthread_mutex_lock(&session->locks.lock);
    struct lock_file *file = lock_file_find(handle);
    if (file) {
        if (handle->flock_mode)
            flock(handle->lock_fd, LOCK_UN); /* not by closing alone: it may be duplicated somewhere */
        note_flock(file, handle, 0);
        for (struct lock_owner *owner = LIST_FIRST(&file->owners), *next; owner; owner = next) {
            next = LIST_NEXT(owner, link);
            if (owner->via == handle)
                lock_owner_put(owner);
        }
        try_again(file, &done);
        lock_file_put(file);
    }
    pthread_mutex_unlock(&session->locks.lock);
    answer_all(&done);
    if (handle->sem && handle->lock_fd >= 0)
        close(handle->lock_fd);
}

/* ---- The session ---- */

void locks_setup(struct session *session)
{
    pthread_mutex_init(&session->locks.lock, NULL);
    pthread_cond_init(&session->locks.ended, NULL);
    struct sigaction action = {.sa_sigaction = on_cancel, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(CANCEL, &action, NULL);
}

static void end_file(const void *node, VISIT visit, void *arg)
{
    if (visit != postorder && visit != leaf)
        return;
    struct lock_file *file = *(struct lock_file *const *)node;
    struct lock_waits *done = arg;
    for (struct lock_wait *wait = TAILQ_FIRST(&file->waits), *next; wait; wait = next) {
        next = TAILQ_NEXT(wait, link);
        if (wait->threaded) {
            pthread_kill(wait->thread, CANCEL);
        } else {
            end_wait(wait, -ENOTCONN);
            TAILQ_INSERT_TAIL(done, wait, link);
        }
    }
}

void locks_end(struct session *session)
{
    struct locks *locks = &session->locks;
    struct lock_waits done = TAILQ_HEAD_INITIALIZER(done);
    pthread_mutex_lock(&locks->lock);
    twalk_r(locks->files, end_file, &done);
    while (locks->threads)
        pthread_cond_wait(&locks->ended, &locks->lock);
    pthread_mutex_unlock(&locks->lock);
    answer_all(&done);
}

#include "notify.h"
#include "kind.h"
#include "notifier.h"
#include "process.h"
#include "signals.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- Registering ---- */

/* Called with object->lock held. */
static int register_handle(struct handle *handle, pid_t thread, int signal)
{
    struct session *session = handle->session;
    struct registration *registration = calloc(1, sizeof *registration);
    if (!registration)
        return -ENOMEM;
    registration->object = handle->object;
    registration->handle = handle;
    registration->signal = signal;
    registration->pid = process_of_thread(thread);
    registration->pidfd = signal ? (int)syscall(SYS_pidfd_open, registration->pid, 0) : -1;
    int error = signal && registration->pidfd < 0 ? -errno : 0;

    if (!error)
        error = notifier_add(session, registration, handle->fd);
    if (error) {
        if (registration->pidfd >= 0)
            close(registration->pidfd);
        free(registration);
        return error;
    }
    object_hold(registration->object);
    handle->registration = registration;
    return 0;
}

/* Ends the handle's registration, if it has one. Called with object->lock held, of which the caller has a reference. */
static void withdraw(struct handle *handle)
{
    struct registration *registration = handle->registration;
    if (!registration)
        return;
    handle->registration = NULL;
    notifier_remove(handle->session, registration);
    if (registration->pidfd >= 0)
        close(registration->pidfd);
    object_release(registration->object);
    free(registration);
}

/* As the kernel's own signals of queues are: from the sender, with the code SI_MESGQ. */
static void send_signal(const struct registration *registration, pid_t sender, uid_t uid)
{
    siginfo_t info = {.si_signo = registration->signal, .si_code = SI_MESGQ};
    info.si_pid = sender;
    info.si_uid = uid;
    syscall(SYS_pidfd_send_signal, registration->pidfd, registration->signal, &info, 0);
}

static void tell(struct session *session, const struct firing *firing)
{
    struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
    struct object *object = notifier_object(session, firing->id);
    if (!object)
        return;
    pthread_mutex_lock(&object->lock);
    struct registration *registration = notifier_find(session, firing->id);
    if (registration && registration->signal) {
        if (firing->pid != LOST)
            send_signal(registration, firing->pid, firing->uid);
        withdraw(registration->handle);
    } else if (registration) {
        registration->fired = true;
        registration->sender = firing->pid;
        registration->sender_uid = firing->uid;
        object_serve_locked(object, true, &done);
    }
    pthread_mutex_unlock(&object->lock);
    parked_finish_all(&done);
    object_release(object);
}

void notify_listen(struct session *session)
{
    notifier_tell_all(session, tell);
}

/* ---- The kind ---- */

static int open_notify(struct handle *handle, const char *name, mode_t mode, const struct caller *caller)
{
    (void)mode, (void)caller;
    struct ipc *ipc = handle->session->ipc;
    /* Any right to the queue will do, as in mq_notify(3). */
    int fd = ipc_mq_open(ipc, name, O_RDONLY | O_NONBLOCK, 0, NULL);
    if (fd == -EACCES)
        fd = ipc_mq_open(ipc, name, O_WRONLY | O_NONBLOCK, 0, NULL);
    handle->fd = fd;
    return fd < 0 ? fd : 0;
}

/* So that a registration whose message has come is not taken for one that waits. */
static void settle(struct session *session)
{
    notifier_catch_up(session);
    notify_listen(session);
}

static bool is_registered(const struct handle *handle)
{
    pthread_mutex_lock(&handle->object->lock);
    bool registered = handle->registration;
    pthread_mutex_unlock(&handle->object->lock);
    return registered;
}

static void close_notify(struct handle *handle)
{
    if (handle->object && is_registered(handle)) { /* without an object it was never opened */
        settle(handle->session);
        pthread_mutex_lock(&handle->object->lock);
        withdraw(handle);
        pthread_mutex_unlock(&handle->object->lock);
    }
    close(handle->fd);
}

static int descriptor(const struct handle *handle)
{
    return handle->fd;
}

static void read_notify(fuse_req_t req, struct handle *handle, size_t size, off_t offset)
{
    (void)offset;
    struct object *object = handle->object;
    settle(handle->session);
    pthread_mutex_lock(&object->lock);
    int error = 0;
    if (!handle->registration)
        error = register_handle(handle, fuse_req_ctx(req)->pid, 0);
    else if (handle->registration->signal || object->waiting_count[RECEIVE])
        error = -EBUSY;
    pthread_mutex_unlock(&object->lock);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    park_receive(req, handle, size);
}

static void write_notify(fuse_req_t req, struct handle *handle, const char *data, size_t size, off_t offset)
{
    (void)offset;
    int signal = 0;
    bool cancel = signal_is_cancel(data, size);
    int error = cancel ? 0 : signal_parse(data, size, &signal);
    if (!error) {
        struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
        struct object *object = handle->object;
        settle(handle->session);
        pthread_mutex_lock(&object->lock);
        if (cancel) {
            withdraw(handle);
            object_serve_locked(object, false, &done);
        } else {
            error = handle->registration ? -EBUSY : register_handle(handle, fuse_req_ctx(req)->pid, signal);
        }
        pthread_mutex_unlock(&object->lock);
        parked_finish_all(&done);
    }
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_write(req, size);
}

static int attempt(struct parked *parked)
{
    struct handle *handle = parked->handle;
    const struct registration *registration = handle->registration;
    if (!registration)
        return -ECANCELED; /* by another thread */
    if (!registration->fired)
        return -EAGAIN;
    if (registration->sender == LOST) {
        withdraw(handle);
        return -EIO;
    }
    struct result *result = result_new(32);
    if (!result)
        return -ENOMEM;
    result->size = snprintf(result->data, 32, "%d %u\n", registration->sender, registration->sender_uid);
    parked->result = result;
    withdraw(handle);
    return 0;
}

/* One shot: it has been used up. */
static void undo(struct parked *parked)
{
    (void)parked;
}

/* A read that was interrupted or timed out has not registered. Nothing else is to be seen to: the notifier tells us. */
static int watch(struct object *object)
{
    (void)object;
    return 0;
}

static void give_up(struct parked *parked)
{
    withdraw(parked->handle);
}

static unsigned ready(struct handle *handle)
{
    const struct registration *registration = handle->registration;
    return POLLOUT | POLLWRNORM | (registration && registration->fired ? POLLIN | POLLRDNORM : 0);
}

const struct kind notify_kind = {
    .id = IPC_MQ,
    .descriptors = 2, /* its own, and who is to be told */
    .open = open_notify,
    .close = close_notify,
    .descriptor = descriptor,
    .read = read_notify,
    .write = write_notify,
    .attempt = attempt,
    .undo = undo,
    .watch = watch,
    .give_up = give_up,
    .ready = ready,
};

#include "notifier.h"
#include "kind.h"
#include "process.h"
#include "rights.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct notifier {
    pthread_mutex_t telling; /* held while firings are told; taken before object->lock */
    pthread_mutex_t lock;    /* protects all of it, and a send to a queue that is registered */
    pid_t pid;               /* of the process; 0 until it is needed */
    int requests, events;    /* sockets to it */
    uint64_t next_id;
    unsigned count; /* of registrations; read without the lock */
    LIST_HEAD(, registration) registrations;
    STAILQ_HEAD(, firing) firings; /* not yet told */
};

/* ---- The notifier's process ---- */

enum order { REGISTER, WITHDRAW, SYNC };

struct request {
    enum order order;
    int fd; /* WITHDRAW: which; in the answer to REGISTER: which, or a negative errno */
    uint64_t id;
};

struct event {
    uint64_t id;
    pid_t pid;
    uid_t uid;
};

enum { REQUESTS_FD = 3, EVENTS_FD, QUEUES_FD };

static void report_signals(int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        struct event event = {info.ssi_ptr, info.ssi_pid, info.ssi_uid};
        send(EVENTS_FD, &event, sizeof event, MSG_NOSIGNAL);
    }
}

static bool answer_request(int signals)
{
    struct request request;
    int fd = -1;
    if (receive_with_descriptor(REQUESTS_FD, &request, sizeof request, &fd, 0) != sizeof request)
        return false;
    if (request.order == REGISTER) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
        event.sigev_value.sival_ptr = (void *)(uintptr_t)request.id;
        request.fd = fd < 0 ? -EMFILE : ipc_mq_notify(fd, &event);
        if (request.fd == 0)
            request.fd = fd;
        else if (fd >= 0)
            close(fd);
    } else if (request.order == WITHDRAW) {
        close(request.fd);
    }
    report_signals(signals);
    return send(REQUESTS_FD, &request, sizeof request, MSG_NOSIGNAL) == sizeof request;
}

/* It ends when the daemon's end of the sockets is closed. Async-signal-safe calls only: it is forked from a thread. */
static void notifier_main(int requests, int events)
{
    prctl(PR_SET_NAME, "ipcfs-notify");
    rights_drop();
    int high = fcntl(events, F_DUPFD, QUEUES_FD), low = fcntl(requests, F_DUPFD, QUEUES_FD);
    if (high < 0 || low < 0)
        return;
    dup2(low, REQUESTS_FD);
    dup2(high, EVENTS_FD);
    syscall(SYS_close_range, QUEUES_FD, ~0U, 0);
    sigset_t notification;
    sigemptyset(&notification);
    sigaddset(&notification, SIGRTMIN);
    int signals = signalfd(-1, &notification, SFD_NONBLOCK | SFD_CLOEXEC); /* all are blocked, as in every thread */
    struct pollfd fds[] = {{REQUESTS_FD, POLLIN, 0}, {signals, POLLIN, 0}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return;
        if (fds[1].revents)
            report_signals(signals);
        if (fds[0].revents && !answer_request(signals))
            return;
    }
}

/* ---- Talking to it ---- */

int notifier_setup(struct session *session)
{
    struct notifier *notifier = calloc(1, sizeof *notifier);
    if (!notifier)
        return -ENOMEM;
    pthread_mutex_init(&notifier->telling, NULL);
    pthread_mutex_init(&notifier->lock, NULL);
    notifier->requests = notifier->events = -1;
    LIST_INIT(&notifier->registrations);
    STAILQ_INIT(&notifier->firings);
    session->notifier = notifier;
    return 0;
}

static void hang_up(struct notifier *notifier)
{
    if (!notifier->pid)
        return;
    close(notifier->requests);
    close(notifier->events);
    kill(notifier->pid, SIGKILL); /* it has nothing to tell any more */
    waitpid(notifier->pid, NULL, 0);
    notifier->pid = 0;
}

void notifier_free(struct session *session)
{
    struct notifier *notifier = session->notifier;
    hang_up(notifier);
    for (struct firing *firing; (firing = STAILQ_FIRST(&notifier->firings));) {
        STAILQ_REMOVE_HEAD(&notifier->firings, link);
        free(firing);
    }
    pthread_mutex_destroy(&notifier->lock);
    pthread_mutex_destroy(&notifier->telling);
    free(notifier);
}

static int start(struct session *session)
{
    struct notifier *notifier = session->notifier;
    int requests[2], events[2];
    const int type = SOCK_SEQPACKET | SOCK_CLOEXEC;
    if (socketpair(AF_UNIX, type, 0, requests))
        return -errno;
    if (socketpair(AF_UNIX, type, 0, events)) {
        int error = -errno;
        close(requests[0]);
        close(requests[1]);
        return error;
    }
    fcntl(events[0], F_SETFL, O_NONBLOCK);
    pid_t pid = fork();
    if (pid == 0) {
        notifier_main(requests[1], events[1]);
        _exit(0);
    }
    int error = pid < 0 ? -errno : 0;
    close(requests[1]);
    close(events[1]);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &session->wake_ups[WAKE_NOTIFIER]};
    if (!error && epoll_ctl(session->epoll, EPOLL_CTL_ADD, events[0], &event))
        error = -errno;
    notifier->requests = requests[0];
    notifier->events = events[0];
    notifier->pid = pid > 0 ? pid : 0;
    if (error) {
        hang_up(notifier);
        if (pid < 0) {
            close(requests[0]);
            close(events[0]);
        }
    }
    return error;
}

/* Asks and waits for the answer. Called with the lock held. EIO: the notifier is gone. */
static int ask(struct notifier *notifier, struct request *request, int fd)
{
    if (send_with_descriptor(notifier->requests, request, sizeof *request, fd) ||
        recv(notifier->requests, request, sizeof *request, 0) != sizeof *request)
        return -EIO;
    return 0;
}

/*
 * Closes the queue's descriptor in the notifier, and so ends a registration that is still there. That must happen
 * before the notifier registers for the same queue again: a later close would end that. Called with the lock held.
 */
static void close_in_notifier(struct notifier *notifier, struct registration *registration)
{
    struct request request = {.order = WITHDRAW, .fd = registration->notifier_fd};
    if (registration->notifier_fd >= 0 && notifier->pid == registration->notifier)
        ask(notifier, &request, -1);
    registration->notifier_fd = -1;
}

static void add_firing(struct notifier *notifier, uint64_t id, pid_t pid, uid_t uid)
{
    struct registration *registration;
    LIST_FOREACH (registration, &notifier->registrations, link)
        if (registration->id == id)
            break;
    if (!registration || !registration->firing)
        return;
    close_in_notifier(notifier, registration);
    *registration->firing = (struct firing){.id = id, .pid = pid, .uid = uid};
    STAILQ_INSERT_TAIL(&notifier->firings, registration->firing, link);
    registration->firing = NULL;
}

/* Takes in what the notifier has said. A signal that names us was set off by a send of `pid`. Called with the lock
 * held. */
static void take_events(struct notifier *notifier, pid_t pid, uid_t uid)
{
    struct event event;
    ssize_t n = 0;
    while (notifier->pid && (n = recv(notifier->events, &event, sizeof event, MSG_DONTWAIT)) == sizeof event) {
        bool ours = event.pid == getpid() && pid;
        add_firing(notifier, event.id, ours ? pid : event.pid, ours ? uid : event.uid);
    }
    if (notifier->pid && n == 0) {
        struct registration *registration;
        hang_up(notifier); /* it has ended */
        LIST_FOREACH (registration, &notifier->registrations, link)
            add_firing(notifier, registration->id, LOST, 0);
    }
}

/* Is somebody registered through us? Called with the lock held. */
static const struct registration *find_active(const struct notifier *notifier, dev_t device, ino_t inode)
{
    struct registration *registration;
    LIST_FOREACH (registration, &notifier->registrations, link)
        if (registration->object->inode == inode && registration->object->device == device &&
            registration->notifier_fd >= 0)
            return registration;
    return NULL;
}

/* Hears of all that has happened until now. Called with the lock held. */
static void catch_up(struct session *session, pid_t pid, uid_t uid)
{
    struct notifier *notifier = session->notifier;
    struct request request = {.order = SYNC};
    if (notifier->pid && ask(notifier, &request, -1) == 0)
        take_events(notifier, pid, uid);
    if (!STAILQ_EMPTY(&notifier->firings))
        session_ring(session);
}

int notifier_send(const struct parked *parked, const char *data, size_t length, unsigned priority)
{
    const struct handle *handle = parked->handle;
    struct session *session = handle->session;
    struct notifier *notifier = session->notifier;
    if (!__atomic_load_n(&notifier->count, __ATOMIC_SEQ_CST))
        return ipc_mq_send(handle->fd, data, length, priority, NULL);

    pthread_mutex_lock(&notifier->lock);
    int error = ipc_mq_send(handle->fd, data, length, priority, NULL);
    if (!error && find_active(notifier, handle->object->device, handle->object->inode)) {
        /* The signal is with the notifier already: hear of it before another send can be taken for its cause. */
        catch_up(session, process_of_thread(parked->thread), parked->uid);
    }
    pthread_mutex_unlock(&notifier->lock);
    return error;
}

pid_t notifier_owner(struct session *session, const struct stat *st)
{
    struct notifier *notifier = session->notifier;
    if (!__atomic_load_n(&notifier->count, __ATOMIC_SEQ_CST))
        return 0;
    pthread_mutex_lock(&notifier->lock);
    catch_up(session, 0, 0);
    const struct registration *registration = find_active(notifier, st->st_dev, st->st_ino);
    pid_t pid = registration ? registration->pid : 0;
    pthread_mutex_unlock(&notifier->lock);
    return pid;
}

/* ---- Registrations ---- */

int notifier_add(struct session *session, struct registration *registration, int fd)
{
    struct notifier *notifier = session->notifier;
    registration->firing = malloc(sizeof *registration->firing); /* the message comes whether there is memory or not */
    if (!registration->firing)
        return -ENOMEM;
    pthread_mutex_lock(&notifier->lock);
    int error = notifier->pid ? 0 : start(session);
    catch_up(session, 0, 0);
    /* The notifier must not even try: to close the second descriptor would end the first registration. */
    if (!error && find_active(notifier, registration->object->device, registration->object->inode))
        error = -EBUSY;
    if (!error) {
        registration->id = ++notifier->next_id;
        struct request request = {.order = REGISTER, .id = registration->id};
        error = ask(notifier, &request, fd);
        if (!error && request.fd < 0)
            error = request.fd;
        registration->notifier = notifier->pid;
        registration->notifier_fd = request.fd;
    }
    if (!error) {
        LIST_INSERT_HEAD(&notifier->registrations, registration, link);
        __atomic_add_fetch(&notifier->count, 1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&notifier->lock);
    if (error)
        free(registration->firing);
    return error;
}

void notifier_remove(struct session *session, struct registration *registration)
{
    struct notifier *notifier = session->notifier;
    pthread_mutex_lock(&notifier->lock);
    close_in_notifier(notifier, registration);
    LIST_REMOVE(registration, link);
    free(registration->firing);
    __atomic_sub_fetch(&notifier->count, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&notifier->lock);
}

struct object *notifier_object(struct session *session, uint64_t id)
{
    struct notifier *notifier = session->notifier;
    struct registration *registration;
    struct object *object = NULL;
    pthread_mutex_lock(&notifier->lock);
    LIST_FOREACH (registration, &notifier->registrations, link)
        if (registration->id == id) {
            object = registration->object;
            object_hold(object);
            break;
        }
    pthread_mutex_unlock(&notifier->lock);
    return object;
}

struct registration *notifier_find(struct session *session, uint64_t id)
{
    struct notifier *notifier = session->notifier;
    struct registration *registration;
    pthread_mutex_lock(&notifier->lock);
    LIST_FOREACH (registration, &notifier->registrations, link)
        if (registration->id == id)
            break;
    pthread_mutex_unlock(&notifier->lock);
    return registration;
}

void notifier_catch_up(struct session *session)
{
    pthread_mutex_lock(&session->notifier->lock);
    catch_up(session, 0, 0);
    pthread_mutex_unlock(&session->notifier->lock);
}

static struct firing *next_firing(struct notifier *notifier)
{
    pthread_mutex_lock(&notifier->lock);
    take_events(notifier, 0, 0);
    struct firing *firing = STAILQ_FIRST(&notifier->firings);
    if (firing)
        STAILQ_REMOVE_HEAD(&notifier->firings, link);
    pthread_mutex_unlock(&notifier->lock);
    return firing;
}

void notifier_tell_all(struct session *session, void (*tell)(struct session *session, const struct firing *firing))
{
    struct notifier *notifier = session->notifier;
    pthread_mutex_lock(&notifier->telling);
    for (struct firing *firing; (firing = next_firing(notifier)); free(firing))
        tell(session, firing);
    pthread_mutex_unlock(&notifier->telling);
}

/*
 * The session's threads.
 *
 * Those of loop.c take requests from the kernel and answer or park them. The main thread sleeps in epoll for what is
 * not a request: queues that have changed, deadlines, signals. The core has its own threads for semaphores.
 */
#include "kind.h"
#include "lock.h"
#include "loop.h"
#include "notify.h"
#include "park.h"
#include "passthrough.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

void session_ring(struct session *session)
{
    uint64_t one = 1;
    while (write(session->bell, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void session_retire(struct object *object)
{
    struct session *session = object->session;
    object_hold(object);
    object->retiring = true;
    pthread_mutex_lock(&session->retired_lock);
    object->retired = session->retired;
    session->retired = object;
    pthread_mutex_unlock(&session->retired_lock);
    session_ring(session);
}

static void look_at_retired(struct session *session)
{
    pthread_mutex_lock(&session->retired_lock);
    struct object *object = session->retired, *next;
    session->retired = NULL;
    pthread_mutex_unlock(&session->retired_lock);
    for (; object; object = next) {
        pthread_mutex_lock(&object->lock);
        next = object->retired;
        object->retiring = false;
        pthread_mutex_unlock(&object->lock);
        queue_changed(object);
        object_release(object);
    }
}

/* ---- The threads ---- */

int session_begin(struct session *session)
{
    struct fuse_buf buffer = {.mem = NULL};
    int size;
    do
        size = fuse_session_receive_buf(session->fuse, &buffer);
    while (size == -EINTR);
    if (size > 0)
        fuse_session_process_buf(session->fuse, &buffer);
    free(buffer.mem);
    if (size < 0)
        return size;
    /* It was not to libfuse's liking, who has said why; or unmounted already; or there was no memory for it. */
    return fuse_session_exited(session->fuse) ? -EPROTO : session->initialized ? 0 : -ENOMEM;
}

/* ---- The main thread ---- */

static int watch_descriptor(struct session *session, int fd, enum wake_up what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &session->wake_ups[what]};
    return fd < 0 || epoll_ctl(session->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static void run(struct session *session, int signals)
{
    struct epoll_event events[64];
    uint64_t number;
    struct signalfd_siginfo info;
    while (!__atomic_load_n(&session->ended, __ATOMIC_SEQ_CST)) {
        bool rung = false;
        int count = epoll_wait(session->epoll, events, sizeof events / sizeof *events, -1);
        for (int i = 0; i < count; i++) {
            const enum wake_up *what = events[i].data.ptr;
            if (what < session->wake_ups || what >= session->wake_ups + WAKE_UPS)
                queue_changed(events[i].data.ptr);
            else if (*what == WAKE_SIGNAL && read(signals, &info, sizeof info) > 0)
                return;
            else if (*what == WAKE_TIMER && read(session->timers.fd, &number, sizeof number) > 0)
                park_expire(session);
            else if (*what == WAKE_BELL || *what == WAKE_NOTIFIER)
                rung = true;
        }
        /* Not before: another of the events may be of an object that goes here. */
        if (rung) {
            while (read(session->bell, &number, sizeof number) > 0)
                ;
            notify_listen(session);
            look_at_retired(session);
        }
    }
}

int session_serve(struct session *session)
{
    for (size_t i = 0; i < WAKE_UPS; i++)
        session->wake_ups[i] = i;
    sigset_t all, ends;
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* core/fault.c needs it */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    int signals = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);

    int error = watch_descriptor(session, session->bell, WAKE_BELL);
    if (!error)
        error = watch_descriptor(session, session->timers.fd, WAKE_TIMER);
    if (!error)
        error = watch_descriptor(session, signals, WAKE_SIGNAL);
    if (!error)
        error = loop_start(session);
    if (!error) {
        run(session, signals);
        error = __atomic_load_n(&session->failure, __ATOMIC_SEQ_CST);
    }

    fuse_session_exit(session->fuse);
    loop_end(session);
    park_end(session);
    locks_end(session);
    look_at_retired(session);
    if (signals >= 0)
        close(signals);
    return error;
}

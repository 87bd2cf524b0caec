/* Message queues as files: a read receives, a write sends. */
#include "follow.h"
#include "kind.h"
#include "rights.h"
#include "text.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { IDLE_CHANGES_MAX = 16, NAME_SECONDS = 5 };

static int open_mq(struct handle *handle, const char *name, mode_t mode, const struct caller *caller)
{
    struct ipc *ipc = handle->session->ipc;
    const int way = (handle->flags & O_ACCMODE) | O_NONBLOCK;
    int fd = -ENOENT;
    if (!(handle->flags & O_CREAT) || !(handle->flags & O_EXCL))
        fd = ipc_mq_open(ipc, name, way, 0, NULL);
    if (fd == -ENOENT && handle->flags & O_CREAT) {
        struct ipc_mq_attr attr = {.max_messages = handle->view->max_messages,
                                   .max_message_size = handle->view->max_message_size};
        ipc_mq_defaults(&attr);
        fd = caller_make_queue(caller, ipc, name, way | O_CREAT | (handle->flags & O_EXCL), mode, &attr);
    }
    if (fd < 0)
        return fd;
    struct ipc_mq_attr attr;
    int error = ipc_mq_getattr(fd, &attr);
    if (error) {
        close(fd);
        return error;
    }
    handle->fd = fd;
    handle->message_size = attr.max_message_size;
    return 0;
}

static void close_mq(struct handle *handle)
{
    line_free(&handle->line);
    close(handle->fd);
}

static int descriptor(const struct handle *handle)
{
    return handle->fd;
}

static void read_mq(fuse_req_t req, struct handle *handle, size_t size, off_t offset)
{
    (void)offset;
    park_receive(req, handle, size);
}

static void write_mq(fuse_req_t req, struct handle *handle, const char *data, size_t size, off_t offset)
{
    (void)offset;
    if (!handle->view->text && size > handle->session->message_max) {
        fuse_reply_err(req, EMSGSIZE); /* the kernel may have split it */
        return;
    }
    if (handle->view->text)
        text_begin(handle, data, size, fuse_req_ctx(req)->pid, fuse_req_ctx(req)->uid);
    struct parked *parked = parked_new(req, handle, SEND, data, size);
    if (!parked)
        return;
    parked->deadline = deadline_of(handle->view);
    park(parked, handle_is_nonblocking(handle));
}

/*
 * The last line may lack its newline, and the queue its room: it is sent when there is some; then the handle goes.
 * There may never be any in a queue that has no name any more, which must not be kept for ever for that. Nothing tells
 * of its removal, so it is looked at now and then.
 */
static bool flush(struct handle *handle, bool again)
{
    struct parked *parked;
    struct stat st;
    if (!line_is_whole(&handle->line) || !(parked = parked_new(NULL, handle, SEND, "\n", 1)))
        return false;
    parked->thread = handle->line.thread;
    parked->uid = handle->line.uid;
    parked->deadline = monotonic_now() + NAME_SECONDS * INT64_C(1000000000);
    park(parked, again && (ipc_stat(handle->fd, &st) || st.st_nlink == 0));
    return true;
}

/* ---- Waiting ---- */

static int attempt(struct parked *parked)
{
    if (parked->direction == RECEIVE)
        return text_receive(parked);
    return parked->handle->view->text ? text_send(parked) : text_send_message(parked);
}

/* A message that nobody got goes back behind those of its priority. */
static void undo(struct parked *parked)
{
    char path[64];
    const struct result *result = parked->result;
    if (parked->handle->view->text || parked->handle->view->in_band || !result || parked->given != result->data)
        return; /* framed, and perhaps several, or the rest of one, or an end */
    snprintf(path, sizeof path, "/proc/self/fd/%d", parked->handle->fd);
    rights_raise();
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    rights_lower();
    if (fd < 0)
        return;
    ipc_mq_send(fd, parked->result->data, parked->result->size, parked->priority, NULL);
    close(fd);
}

/* By what is left of a message. */
static unsigned ready_by_itself(struct handle *handle)
{
    return handle->view->stream && result_has_rest(handle) ? POLLIN | POLLRDNORM : 0;
}

static unsigned ready(struct handle *handle)
{
    struct pollfd poll_fd = {.fd = handle->fd, .events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM};
    return ready_by_itself(handle) | (poll(&poll_fd, 1, 0) < 0 ? POLLERR : (unsigned)poll_fd.revents);
}

/* What epoll watches is the queue's, not a handle's: a copy of any handle's descriptor does. */
static int epoll_descriptor(struct object *object)
{
    if (object->fd >= 0)
        return object->fd;
    for (enum direction direction = RECEIVE; direction <= SEND && object->fd < 0; direction++)
        if (!TAILQ_EMPTY(&object->waiting[direction]))
            object->fd = fcntl(TAILQ_FIRST(&object->waiting[direction])->handle->fd, F_DUPFD_CLOEXEC, 0);
    if (object->fd < 0 && !LIST_EMPTY(&object->polls))
        object->fd = fcntl(LIST_FIRST(&object->polls)->fd, F_DUPFD_CLOEXEC, 0);
    return object->fd < 0 ? -errno : object->fd;
}

static bool is_waited_for(const struct object *object)
{
    return !TAILQ_EMPTY(&object->waiting[RECEIVE]) || !TAILQ_EMPTY(&object->waiting[SEND]) ||
           !LIST_EMPTY(&object->polls);
}

static uint32_t events_of(const struct object *object)
{
    const bool polled = !LIST_EMPTY(&object->polls);
    return (polled || !TAILQ_EMPTY(&object->waiting[RECEIVE]) ? EPOLLIN : 0U) |
           (polled || !TAILQ_EMPTY(&object->waiting[SEND]) ? EPOLLOUT : 0U);
}

/* Edge-triggered: each change of a queue is one event, and if it is so at the moment, this is one too. */
static int add_events(struct object *object, uint32_t events)
{
    struct epoll_event event = {.events = object->events | events | EPOLLET, .data.ptr = object};
    const int operation = object->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(object->session->epoll, operation, object->fd, &event))
        return -errno;
    object->events |= events;
    object->fresh = true;
    return 0;
}

static void remove_events(struct object *object)
{
    if (object->events)
        epoll_ctl(object->session->epoll, EPOLL_CTL_DEL, object->fd, NULL);
    object->events = 0;
}

/* Left alone once it is there, but that it comes to watch for more. */
static int watch(struct object *object)
{
    if (!is_waited_for(object)) {
        object->idle_changes = IDLE_CHANGES_MAX;
        if (object->watched && !object->retiring)
            session_retire(object);
        return 0;
    }
    const uint32_t events = events_of(object);
    if (object->watched)
        return events & ~object->events ? add_events(object, events) : 0;
    int fd = epoll_descriptor(object);
    int error = fd < 0 ? fd : add_events(object, events);
    if (error)
        return error;
    object_hold(object);
    object->watched = true;
    object->idle_changes = 0;
    return 0;
}

/* What we do ourselves need not wake the main thread, which would look even for events that it did not ask for. It may
 * have one of this object in its hand, so the reference stays. */
static void look_away(struct object *object)
{
    remove_events(object);
}

void queue_changed(struct object *object)
{
    struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
    pthread_mutex_lock(&object->lock);
    /* The first event is of how the queue is and not of a change. */
    object_serve_locked(object, !object->fresh, &done);
    object->fresh = false;
    /* Not at once, as somebody will wait again; but changes that concern nobody must not wake us for ever. */
    object->idle_changes = is_waited_for(object) ? 0 : object->idle_changes + 1;
    bool unwatch = object->watched && object->idle_changes >= IDLE_CHANGES_MAX;
    /* One that is over again when epoll looks wakes us too, and is not told: so all are counted, with room for more. */
    if (object->idle_changes && !unwatch && object->events && object->events != (EPOLLIN | EPOLLOUT))
        add_events(object, EPOLLIN | EPOLLOUT);
    if (unwatch) {
        remove_events(object);
        object->watched = false;
    }
    pthread_mutex_unlock(&object->lock);
    pid_t woken = parked_finish_all(&done);
    if (woken)
        follow(woken);
    if (unwatch)
        object_release(object);
}

const struct kind mq_kind = {
    .id = IPC_MQ,
    .descriptors = 3, /* its own, one for epoll, one of who has begun a line */
    .open = open_mq,
    .close = close_mq,
    .descriptor = descriptor,
    .read = read_mq,
    .write = write_mq,
    .express = true,
    .attempt = attempt,
    .has_room = text_has_room,
    .undo = undo,
    .watch = watch,
    .look_away = look_away,
    .ready = ready,
    .ready_by_itself = ready_by_itself,
    .flush = flush,
};

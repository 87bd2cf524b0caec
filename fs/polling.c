#include "polling.h"
#include "kind.h"

#include <poll.h>

/* A handle has one poll handle, which stands for all who poll that open file: the kernel tells them together. */
void object_poll(fuse_req_t req, struct handle *handle, struct fuse_pollhandle *poll, unsigned events)
{
    struct object *object = handle->object;
    struct fuse_pollhandle *old = NULL;
    int error = 0;
    pthread_mutex_lock(&object->lock);
    if (poll) {
        old = handle->poll;
        if (!old) {
            LIST_INSERT_HEAD(&object->polls, handle, polling);
            handle->poll_events = 0;
            handle->poll_ready = ~0U;
        }
        handle->poll = poll;
        handle->poll_events |= events;
    }
    unsigned ready = object->kind->ready(handle);
    if (poll) {
        handle->poll_ready &= ready;
        error = object->kind->watch(object);
    }
    pthread_mutex_unlock(&object->lock);
    if (old)
        fuse_pollhandle_destroy(old);
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_poll(req, ready | (handle->view->drain ? POLLIN | POLLRDNORM : 0)); /* its end is always in sight */
}

void object_unpoll(struct handle *handle)
{
    struct object *object = handle->object;
    pthread_mutex_lock(&object->lock);
    if (handle->poll) {
        LIST_REMOVE(handle, polling);
        fuse_pollhandle_destroy(handle->poll);
        handle->poll = NULL;
    }
    object->kind->watch(object);
    pthread_mutex_unlock(&object->lock);
}

void polls_tell(struct object *object, bool changed)
{
    for (struct handle *handle = LIST_FIRST(&object->polls), *next; handle; handle = next) {
        next = LIST_NEXT(handle, polling);
        unsigned ready = object->kind->ready(handle) & (handle->poll_events | POLLERR | POLLHUP);
        if (!ready || (!changed && !(ready & ~handle->poll_ready)))
            continue;
        LIST_REMOVE(handle, polling);
        fuse_lowlevel_notify_poll(handle->poll);
        fuse_pollhandle_destroy(handle->poll);
        handle->poll = NULL;
    }
}

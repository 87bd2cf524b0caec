/* Semaphores as files: a read waits, a write posts. */
#include "follow.h"
#include "kind.h"
#include "recent.h"
#include "rights.h"

#include <ctype.h>
#include <poll.h>
#include <string.h>

#define POSTS_MAX 32767 /* in one write */

static int open_sem(struct handle *handle, const char *name, mode_t mode, const struct caller *caller)
{
    (void)caller;
    return ipc_sem_open(handle->session->ipc, &handle->sem, name, handle->flags, mode, handle->view->value);
}

static void close_sem(struct handle *handle)
{
    if (handle->node)
        recent_add_sem(handle->node, handle->sem);
    else
        ipc_sem_close(handle->sem);
}

static int descriptor(const struct handle *handle)
{
    return ipc_sem_fd(handle->sem);
}

static void read_sem(fuse_req_t req, struct handle *handle, size_t size, off_t offset)
{
    (void)offset;
    park_receive(req, handle, size);
}

/* How often to post; 0 for what is no number of posts. */
static unsigned parse_posts(const char *data, size_t size)
{
    while (size && isspace((unsigned char)data[size - 1]))
        size--;
    while (size && isspace((unsigned char)*data))
        data++, size--;
    int64_t posts;
    if (!size)
        return 1;
    return parse_number(data, size, 1, POSTS_MAX, &posts) ? posts : 0;
}

static void write_sem(fuse_req_t req, struct handle *handle, const char *data, size_t size, off_t offset)
{
    (void)offset;
    /* The rest of a write that the kernel has split would post again. */
    struct parked *parked = NULL;
    if (size > handle->session->message_max)
        fuse_reply_err(req, EINVAL);
    else
        parked = parked_new(req, handle, SEND, data, size);
    if (parked)
        park(parked, true);
}

/* ---- Waiting ---- */

static int wait_sem(struct parked *parked)
{
    struct handle *handle = parked->handle;
    /* Before the unit is taken, which then cannot fail. */
    struct result *result = result_of(handle, 2);
    if (!result)
        return -ENOMEM;
    int error = ipc_sem_trywait(handle->sem);
    if (error) {
        result_back(handle, result);
        return error;
    }
    memcpy(result->data, "1\n", 2);
    result->size = 2;
    parked->result = result;
    return 0;
}

/* With readers of ours in line and nobody else, they are served at once, and nobody need be woken. */
static int post(struct parked *parked)
{
    const struct object *object = parked->object;
    unsigned posts = parse_posts(parked->data, parked->length);
    if (!posts)
        return -EINVAL;
    int error =
        object->watch ? ipc_sem_post_watched(parked->handle->sem, posts) : ipc_sem_post(parked->handle->sem, posts);
    if (error < 0)
        return error;
    parked->for_others = error;
    parked->done = parked->length;
    return 0;
}

static int attempt(struct parked *parked)
{
    return parked->direction == RECEIVE ? wait_sem(parked) : post(parked);
}

static void undo(struct parked *parked)
{
    ipc_sem_post(parked->handle->sem, 1);
}

static unsigned ready(struct handle *handle)
{
    unsigned value;
    if (ipc_sem_value(handle->sem, &value))
        return POLLERR;
    return POLLOUT | POLLWRNORM | (value ? POLLIN | POLLRDNORM : 0);
}

/* Whether somebody waits who has found none: a reader in line, or who polls and does not know of a unit. */
static bool is_waited_for(const struct object *object)
{
    const struct handle *handle;
    if (!TAILQ_EMPTY(&object->waiting[RECEIVE]))
        return true;
    LIST_FOREACH (handle, &object->polls, polling)
        if (handle->poll_events & ~handle->poll_ready & (POLLIN | POLLRDNORM))
            return true;
    return false;
}

/* The core's watcher thread calls. */
static bool posted(void *arg)
{
    struct object *object = arg;
    struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
    unsigned value;

    pthread_mutex_lock(&object->lock);
    object_serve_locked(object, false, &done);
    int error = ipc_sem_value(object->sem, &value);
    if (error)
        object_fail_locked(object, error, &done);
    /* Where nobody waits just now it may stay, as long as it has nothing to do: somebody will wait again. */
    bool stop = error || (!is_waited_for(object) && (value || object->watch_unwanted));
    if (stop)
        object->watch = NULL;
    pthread_mutex_unlock(&object->lock);
    pid_t woken = parked_finish_all(&done);
    if (woken)
        follow(woken);
    if (stop)
        object_release(object);
    return !stop;
}

static int watch(struct object *object)
{
    bool needed = is_waited_for(object);
    object->watch_unwanted = !needed;
    if (object->watch && !needed)
        ipc_watch_again(object->watch); /* it finds that nobody waits, and ends */
    if (object->watch || !needed)
        return 0;
    object_hold(object);
    rights_lower(); /* a thread that it makes has what we have */
    int error = ipc_sem_watch(object->sem, posted, object, &object->watch);
    if (error)
        object_release(object);
    return error;
}

const struct kind sem_kind = {
    .id = IPC_SEM,
    .descriptors = 1,
    .open = open_sem,
    .close = close_sem,
    .descriptor = descriptor,
    .read = read_sem,
    .write = write_sem,
    .express = true,
    .attempt = attempt,
    .undo = undo,
    .watch = watch,
    .ready = ready,
};

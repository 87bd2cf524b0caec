/*
 * Parked requests.
 *
 * Each is answered once, by whoever takes it off object->waiting under object->lock: the thread that can serve it, the
 * timer, the interrupt, or the end of the session. It is freed when the last of them has let go of it.
 *
 * libfuse calls on_interrupt with the request's own lock held, and takes that lock in fuse_req_interrupt_func. So the
 * function is set without object->lock, and cleared before the answer: that waits for an interrupt that has just begun,
 * which then finds the request taken and leaves it alone.
 */
#include "park.h"
#include "device.h"
#include "kind.h"
#include "polling.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t monotonic_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t deadline_of(const struct view *view)
{
    int64_t deadline;
    if (view->timeout < 0 || __builtin_add_overflow(monotonic_now(), view->timeout, &deadline))
        return -1;
    return deadline;
}

struct parked *parked_new(fuse_req_t req, struct handle *handle, enum direction direction, const char *data,
                          size_t length)
{
    struct parked *parked = calloc(1, sizeof *parked);
    char *copy = NULL;
    if (parked && data && (copy = malloc(length + 1)))
        memcpy(copy, data, length);
    if (!parked || (data && !copy)) {
        free(parked);
        if (req)
            fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    *parked = (struct parked){.device = device_now(),
                              .req = req,
                              .handle = handle,
                              .object = handle->object,
                              .direction = direction,
                              .deadline = -1,
                              .refs = 1,
                              .data = copy,
                              .length = length};
    if (req) {
        parked->thread = fuse_req_ctx(req)->pid;
        parked->uid = fuse_req_ctx(req)->uid;
    }
    object_hold(parked->object);
    return parked;
}

static void let_go(struct parked *parked)
{
    if (__atomic_sub_fetch(&parked->refs, 1, __ATOMIC_ACQ_REL))
        return;
    object_release(parked->object);
    result_release(parked->result);
    free(parked->data);
    free(parked);
}

/* Off the list, to be answered by the caller and nobody else. Called with the lock held. */
static void take(struct parked *parked)
{
    struct object *object = parked->object;
    TAILQ_REMOVE(&object->waiting[parked->direction], parked, link);
    object->waiting_count[parked->direction]--;
    parked->waiting = false;
    device_waits(object->session, parked->device, -1);
    if (parked->deadline >= 0 && timers_remove(&object->session->timers, parked))
        __atomic_sub_fetch(&parked->refs, 1, __ATOMIC_ACQ_REL);
}

/* What was read stays with the handle, which gives the rest of it to who reads on: the next attempt may be theirs.
 * Called with the lock held. */
static void keep(struct parked *parked)
{
    struct result *result = parked->result;
    if (!result || parked->given)
        return;
    parked->given = result->data;
    parked->given_size = result->size < parked->size ? result->size : parked->size;
    result_keep(parked->handle, result, parked->given_size);
}

static void answer_read(struct parked *parked)
{
    const struct kind *kind = parked->handle->kind; /* the handle may go right after the answer */
    /* ENOENT: the connection was cut before the user had it. */
    if (fuse_reply_buf(parked->req, parked->given, parked->given_size) == -ENOENT)
        kind->undo(parked);
}

/* Answers. Without object->lock, and with no interrupt function set or while it runs. */
static void finish(struct parked *parked)
{
    const unsigned before = device_now();
    device_use(parked->device);
    if (parked->req) {
        if (parked->error)
            fuse_reply_err(parked->req, -parked->error);
        else if (parked->direction == SEND)
            fuse_reply_write(parked->req, parked->done);
        else
            answer_read(parked);
    } else {
        struct handle *handle = parked->handle;
        handle->line.broken &= parked->error != -ETIMEDOUT;
        if (parked->error != -ETIMEDOUT || !handle->kind->flush(handle, true))
            handle_free(handle);
    }
    device_use(before);
    let_go(parked);
}

pid_t parked_finish_all(struct parked_list *done)
{
    pid_t thread = 0;
    for (struct parked *parked; (parked = TAILQ_FIRST(done));) {
        TAILQ_REMOVE(done, parked, link);
        thread = parked->thread;
        if (parked->req)
            fuse_req_interrupt_func(parked->req, NULL, NULL);
        finish(parked);
    }
    return thread;
}

/* It ends, perhaps before all is done; but what was done is done, and counts. Called with the lock held. */
static void end_with(struct parked *parked, int error)
{
    if (error && error != -EAGAIN && parked->object->kind->give_up)
        parked->object->kind->give_up(parked);
    parked->error = parked->done ? 0 : error;
    if (!parked->error)
        keep(parked);
}

static void on_interrupt(fuse_req_t req, void *data)
{
    (void)req;
    struct parked *parked = data;
    struct object *object = parked->object;
    pthread_mutex_lock(&object->lock);
    parked->interrupted = true;
    bool waiting = parked->waiting;
    if (waiting) {
        take(parked);
        end_with(parked, -EINTR);
        object->kind->watch(object);
    }
    pthread_mutex_unlock(&object->lock);
    if (waiting)
        finish(parked);
}

/* To the end of the queue. Called with the lock held. */
static int wait_in_line(struct parked *parked)
{
    struct object *object = parked->object;
    if (parked->interrupted)
        return -EINTR;
    if (parked->deadline >= 0) {
        parked->refs++;
        int error = timers_add(&object->session->timers, parked);
        if (error) {
            parked->refs--;
            return error;
        }
    }
    TAILQ_INSERT_TAIL(&object->waiting[parked->direction], parked, link);
    object->waiting_count[parked->direction]++;
    parked->waiting = true;
    device_waits(object->session, parked->device, 1);
    int error = object->kind->watch(object);
    if (error)
        take(parked);
    return error;
}

static unsigned ready_by_itself(struct handle *handle)
{
    const struct kind *kind = handle->object->kind;
    return kind->ready_by_itself ? kind->ready_by_itself(handle) : 0;
}

/*
 * One attempt. Who polls is taken to know what was ready when it asked; that is forgotten when it is no longer so, or
 * when a user was told EAGAIN: who polls edge-triggered goes to sleep on that without asking again.
 */
static int attempt_once(struct parked *parked)
{
    struct object *object = parked->object;
    const unsigned direction = parked->direction == RECEIVE ? POLLIN | POLLRDNORM : POLLOUT | POLLWRNORM;
    int error = object->kind->attempt(parked);
    if (LIST_EMPTY(&object->polls))
        return error;
    struct handle *handle;
    LIST_FOREACH (handle, &object->polls, polling)
        handle->poll_ready &= error == -EAGAIN ? ~direction | ready_by_itself(handle) : object->kind->ready(handle);
    object->kind->watch(object);
    return error;
}

/* A stream goes on where the last read of the same open file left off in a message. */
static bool take_rest(struct parked *parked)
{
    struct handle *handle = parked->handle;
    if (!handle->view->stream)
        return false;
    size_t size = parked->size;
    parked->result = result_rest(handle, &parked->given, &size);
    if (!parked->result)
        return false;
    parked->given_size = size;
    if (handle->poll)
        handle->poll_ready &= handle->kind->ready(handle);
    return true;
}

/* A rest is at once for those who wait for a message with the same open file, wherever they are in line. */
static void serve_rest(struct handle *handle, struct parked_list *done)
{
    if (!handle->view->stream || !result_has_rest(handle))
        return;
    struct parked *next;
    for (struct parked *parked = TAILQ_FIRST(&handle->object->waiting[RECEIVE]); parked; parked = next) {
        next = TAILQ_NEXT(parked, link);
        if (parked->handle != handle || parked->result || !take_rest(parked))
            continue;
        take(parked);
        end_with(parked, 0);
        TAILQ_INSERT_TAIL(done, parked, link);
    }
}

/* It is no longer in line, and to be answered. */
static void conclude(struct parked *parked, int error, struct parked_list *done)
{
    end_with(parked, error);
    TAILQ_INSERT_TAIL(done, parked, link);
    serve_rest(parked->handle, done);
}

static void serve_direction(struct object *object, enum direction direction, struct parked_list *done)
{
    for (struct parked *parked; (parked = TAILQ_FIRST(&object->waiting[direction]));) {
        int error = attempt_once(parked);
        if (error == -EAGAIN)
            return;
        take(parked);
        conclude(parked, error, done);
    }
}

static bool has_room(const struct parked *parked)
{
    const struct kind *kind = parked->object->kind;
    return kind->has_room && kind->has_room(parked);
}

/* One more step for those who wait in that direction: who is done, and has no room for more, is off the list. False:
 * there was nothing to be done for them. */
static bool help(struct object *object, enum direction direction, struct parked_list *done)
{
    bool helped = false;
    for (struct parked *parked; (parked = TAILQ_FIRST(&object->waiting[direction]));) {
        parked->for_others = false;
        int error = attempt_once(parked);
        helped |= parked->for_others;
        if (error == -EAGAIN || (!error && has_room(parked)))
            break;
        take(parked);
        conclude(parked, error, done);
    }
    return helped;
}

/*
 * What is done may be what others wait for in the other direction, who are served here, without another thread's
 * waking. That may make room for more of it: so a long text goes through a short queue in one go.
 */
static int exchange(struct parked *parked, struct parked_list *done)
{
    struct object *object = parked->object;
    const enum direction others = parked->direction == SEND ? RECEIVE : SEND;
    const bool look_away = object->kind->look_away && !TAILQ_EMPTY(&object->waiting[others]) &&
                           TAILQ_EMPTY(&object->waiting[parked->direction]) && LIST_EMPTY(&object->polls);
    if (look_away)
        object->kind->look_away(object);
    parked->for_others = false;
    int error = attempt_once(parked);
    bool served = parked->for_others;
    while (parked->for_others && help(object, others, done) && (error == -EAGAIN || has_room(parked))) {
        parked->for_others = false;
        error = attempt_once(parked);
    }
    struct parked *first = TAILQ_FIRST(&object->waiting[others]);
    if (first && first->result) {
        take(first);
        conclude(first, 0, done);
    }
    const bool waited_for = !TAILQ_EMPTY(&object->waiting[RECEIVE]) || !TAILQ_EMPTY(&object->waiting[SEND]);
    const int unwatched = look_away && waited_for ? object->kind->watch(object) : 0;
    if (unwatched)
        object_fail_locked(object, unwatched, done);
    if (served)
        polls_tell(object, false);
    return error;
}

/* Not before those who have waited longer. Called with the lock held. */
static int attempt_in_turn(struct parked *parked, struct parked_list *done)
{
    struct object *object = parked->object;
    if (!TAILQ_EMPTY(&object->waiting[parked->direction]))
        object_serve_locked(object, false, done);
    if (parked->direction == RECEIVE && take_rest(parked)) /* which that may have left */
        return 0;
    if (TAILQ_EMPTY(&object->waiting[parked->direction]))
        return exchange(parked, done);
    if (parked->direction == SEND || !parked->handle->view->drain)
        return -EAGAIN;
    parked->given = ""; /* where others wait for messages there is none left for it */
    parked->given_size = 0;
    return 0;
}

int park_at_once(struct parked *parked, struct parked_list *done)
{
    struct object *object = parked->object;
    pthread_mutex_lock(&object->lock);
    int error = attempt_in_turn(parked, done);
    if (!error) {
        keep(parked);
        serve_rest(parked->handle, done);
    }
    pthread_mutex_unlock(&object->lock);
    return error;
}

void park(struct parked *parked, bool nonblock)
{
    struct object *object = parked->object;
    struct parked_list done = TAILQ_HEAD_INITIALIZER(done);

    pthread_mutex_lock(&object->lock);
    int error = attempt_in_turn(parked, &done);
    if (error == -EAGAIN && !nonblock) {
        /* It will have to wait. */
        pthread_mutex_unlock(&object->lock);
        if (parked->req)
            fuse_req_interrupt_func(parked->req, on_interrupt, parked);
        pthread_mutex_lock(&object->lock);
        error = attempt_in_turn(parked, &done);
        if (error == -EAGAIN) {
            error = wait_in_line(parked);
            if (!error)
                parked = NULL;
        }
    }
    if (parked)
        conclude(parked, error, &done);
    pthread_mutex_unlock(&object->lock);
    parked_finish_all(&done);
}

void park_receive(fuse_req_t req, struct handle *handle, size_t size)
{
    struct parked *parked = parked_new(req, handle, RECEIVE, NULL, 0);
    if (!parked)
        return;
    parked->size = size;
    parked->deadline = deadline_of(handle->view);
    park(parked, handle_is_nonblocking(handle));
}

/* ---- Serving ---- */

void object_serve_locked(struct object *object, bool changed, struct parked_list *done)
{
    serve_direction(object, RECEIVE, done);
    serve_direction(object, SEND, done);
    polls_tell(object, changed);
}

void object_fail_locked(struct object *object, int error, struct parked_list *done)
{
    for (enum direction direction = RECEIVE; direction <= SEND; direction++)
        for (struct parked *parked; (parked = TAILQ_FIRST(&object->waiting[direction]));) {
            take(parked);
            conclude(parked, error, done);
        }
}

void park_end(struct session *session)
{
    struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
    pthread_mutex_lock(&session->objects_lock);
    for (size_t i = 0; i < session->objects_size; i++)
        for (struct object *object = session->objects[i]; object;) {
            object->refs++;
            pthread_mutex_unlock(&session->objects_lock);
            pthread_mutex_lock(&object->lock);
            object_fail_locked(object, -ENOTCONN, &done);
            pthread_mutex_unlock(&object->lock);
            /* Nobody grows the table any more, so the chain goes on. */
            pthread_mutex_lock(&session->objects_lock);
            struct object *next = object->next;
            object->refs--;
            object = next;
        }
    pthread_mutex_unlock(&session->objects_lock);
    parked_finish_all(&done);
}

/* ---- Deadlines ---- */

void park_expire(struct session *session)
{
    for (struct parked *parked; (parked = timers_due(&session->timers));) {
        /* It is ours to let go of, though somebody else may be answering it just now. */
        struct object *object = parked->object;
        struct parked_list done = TAILQ_HEAD_INITIALIZER(done);
        pthread_mutex_lock(&object->lock);
        if (parked->waiting) {
            int error = attempt_once(parked);
            take(parked);
            conclude(parked, error == -EAGAIN ? -ETIMEDOUT : error, &done);
            object->kind->watch(object);
        }
        pthread_mutex_unlock(&object->lock);
        parked_finish_all(&done);
        let_go(parked);
    }
}

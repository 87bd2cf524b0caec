/* Requests that wait until they can be done: small structs in a queue, never threads. */
#ifndef PARK_H
#define PARK_H

#include "result.h"
#include "session.h"

struct parked {
    unsigned device; /* by which it came */
    fuse_req_t req;  /* NULL: nobody waits for the answer, and the handle goes with it */
    pid_t thread;    /* whose it is */
    uid_t uid;
    struct handle *handle;
    struct object *object; /* with a reference */
    enum direction direction;
    int64_t deadline; /* CLOCK_MONOTONIC in nanoseconds, -1 for none */

    TAILQ_ENTRY(parked) link; /* object->lock, as the next three */
    bool waiting;             /* in object->waiting */
    bool interrupted;
    int error;      /* 0, or the negative errno to answer with */
    size_t heap_at; /* place in the timers' heap, from 1; timers->lock */
    int refs;       /* atomic: one of whoever answers it, one of the heap */

    size_t size; /* RECEIVE: bytes that the user has room for */
    struct result *result;
    const char *given; /* what of it the user gets; NULL: that is not decided */
    size_t given_size;
    char *data; /* SEND: what is to be written */
    size_t length;
    size_t done;       /* SEND: bytes of it that count as written */
    unsigned priority; /* of the message, for undo */
    bool for_others;   /* what was done may be what those who wait in the other direction wait for */
};

/* A request on an open handle. NULL: no memory, the request was answered. `data` is copied. */
struct parked *parked_new(fuse_req_t req, struct handle *handle, enum direction direction, const char *data,
                          size_t length);

/*
 * Does it now, or waits until it can be done, its deadline passes, or its caller is interrupted; then answers.
 * `nonblock`: EAGAIN instead of waiting. First come, first served, by object and direction.
 */
void park(struct parked *parked, bool nonblock);

/*
 * Does it, if it can be done at once: 0 with what it gave in parked->given, or a negative errno, EAGAIN where it would
 * have to wait. `parked` is the caller's own, and no request of libfuse's. Others' that are done with it are put in
 * `done`, for parked_finish_all.
 */
int park_at_once(struct parked *parked, struct parked_list *done);

/* A read that is to receive at once or, unless the handle does not block, when it can. */
void park_receive(fuse_req_t req, struct handle *handle, size_t size);

/*
 * Serves who waits, and tells who polls: those for whom something has become ready, or with `changed` all for whom
 * anything is. Called with the lock held; what is done is put in `done`, for parked_finish_all after its release.
 */
void object_serve_locked(struct object *object, bool changed, struct parked_list *done);
/* Answers. One of the threads that were woken, 0 for none. */
pid_t parked_finish_all(struct parked_list *done);
/* Ends every wait on an object, with an error. Called with the lock held. */
void object_fail_locked(struct object *object, int error, struct parked_list *done);

/* Ends all waits of a session, with ENOTCONN. */
void park_end(struct session *session);

/* timers.c. Adding and removing set the timerfd. */
int timers_setup(struct timers *timers);
void timers_free(struct timers *timers);
int timers_add(struct timers *timers, struct parked *parked);
/* True if it was there. */
bool timers_remove(struct timers *timers, struct parked *parked);
/* The first whose deadline has passed, removed; NULL: none. */
struct parked *timers_due(struct timers *timers);
/* Ends the waits whose deadline has passed. */
void park_expire(struct session *session);

int64_t monotonic_now(void); /* nanoseconds */
/* The deadline of an operation that begins now in a view. */
int64_t deadline_of(const struct view *view);

#endif

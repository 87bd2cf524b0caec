/* Deadlines of parked requests: a binary heap, and a timerfd that is set to the first of them. */
#include "park.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

int timers_setup(struct timers *timers)
{
    pthread_mutex_init(&timers->lock, NULL);
    timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return timers->fd < 0 ? -errno : 0;
}

void timers_free(struct timers *timers)
{
    free(timers->heap);
    close(timers->fd);
    pthread_mutex_destroy(&timers->lock);
}

static void set_timer(struct timers *timers)
{
    struct itimerspec when = {0};
    if (timers->count) {
        int64_t deadline = timers->heap[0]->deadline;
        when.it_value.tv_sec = deadline / 1000000000;
        when.it_value.tv_nsec = deadline % 1000000000;
        if (!deadline)
            when.it_value.tv_nsec = 1; /* zero would turn it off */
    }
    timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void place(struct timers *timers, size_t at, struct parked *parked)
{
    timers->heap[at] = parked;
    parked->heap_at = at + 1;
}

/* Moves one to where it belongs, from `at`. */
static void sift(struct timers *timers, size_t at, struct parked *parked)
{
    struct parked **heap = timers->heap;
    while (at && heap[(at - 1) / 2]->deadline > parked->deadline) {
        place(timers, at, heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < timers->count; at = child) {
        if (child + 1 < timers->count && heap[child + 1]->deadline < heap[child]->deadline)
            child++;
        if (heap[child]->deadline >= parked->deadline)
            break;
        place(timers, at, heap[child]);
    }
    place(timers, at, parked);
}

int timers_add(struct timers *timers, struct parked *parked)
{
    int error = 0;
    pthread_mutex_lock(&timers->lock);
    if (timers->count == timers->room) {
        size_t room = timers->room ? timers->room * 2 : 64;
        struct parked **heap = reallocarray(timers->heap, room, sizeof(struct parked *));
        if (heap) {
            timers->heap = heap;
            timers->room = room;
        } else {
            error = -ENOMEM;
        }
    }
    if (!error) {
        sift(timers, timers->count++, parked);
        if (timers->heap[0] == parked)
            set_timer(timers);
    }
    pthread_mutex_unlock(&timers->lock);
    return error;
}

/* Called with the lock held. */
static void remove_at(struct timers *timers, size_t at)
{
    timers->heap[at]->heap_at = 0;
    struct parked *last = timers->heap[--timers->count];
    if (at < timers->count)
        sift(timers, at, last);
    if (at == 0)
        set_timer(timers);
}

bool timers_remove(struct timers *timers, struct parked *parked)
{
    pthread_mutex_lock(&timers->lock);
    bool there = parked->heap_at;
    if (there)
        remove_at(timers, parked->heap_at - 1);
    pthread_mutex_unlock(&timers->lock);
    return there;
}

struct parked *timers_due(struct timers *timers)
{
    struct parked *due = NULL;
    pthread_mutex_lock(&timers->lock);
    if (timers->count && timers->heap[0]->deadline <= monotonic_now()) {
        due = timers->heap[0];
        remove_at(timers, 0);
    }
    pthread_mutex_unlock(&timers->lock);
    return due;
}

/*
 * How many threads read requests at once.
 *
 * One is best where it keeps up: it serves several in a row, and no other thread needs to be woken. Where cores are to
 * spare, which is so while there are fewer callers than cores, each caller is best served by a thread of its own core.
 * How many are best depends on the machine, its scheduler and what the callers do. So it is tried out, while requests
 * come quickly: with one reader more or less for a moment. The number is changed if each request then takes much less
 * time, and otherwise it is tried less and less often.
 */
#ifndef CREW_H
#define CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CREW_MAX = 7 };

struct crew {
    unsigned cores;
    unsigned wanted; /* atomic */

    pthread_mutex_t lock; /* protects the rest */
    unsigned best;        /* the number that has proved itself */
    unsigned other;       /* that is being tried, 0: none is */
    bool settled;         /* has been tried for so long that it counts */
    bool fewer;           /* are to be tried the next time */
    int64_t before;       /* nanoseconds that a request took before the trial */
    int64_t next, apart;  /* CLOCK_MONOTONIC: no trial before; nanoseconds from one to the next */

    int64_t began;   /* CLOCK_MONOTONIC: a window of time, and what has been seen in it: */
    unsigned served; /* requests, */
    unsigned count;  /* and their callers, or more than there is room for */
    pid_t callers[CREW_MAX];
};

/* For so many cores. */
void crew_setup(struct crew *crew, unsigned cores);
void crew_free(struct crew *crew);

/* This thread has read a request. True: after some of them crew_judge() is due. */
bool crew_count(void);
/* The last one was made by thread `caller`, 0 where that is not known. `now`: CLOCK_MONOTONIC in nanoseconds. */
void crew_judge(struct crew *crew, pid_t caller, int64_t now);
/* How many readers there are to be. */
unsigned crew_wanted(const struct crew *crew);
/* There have been no requests for a while. */
void crew_rested(struct crew *crew, int64_t now);

#endif

/*
 * Keeping idle cores awake while callers need them.
 *
 * A caller sleeps until it is answered, and its core with it. Waking a core takes up to 100 microseconds, in a virtual
 * machine often 30, which is more than all the rest of a call. Linux can be asked to let idle cores wait instead of
 * sleep: with /dev/cpu_dma_latency, for as long as that file is open, so however we end it is over
 * (Documentation/power/pm_qos_interface.rst). But it is so for all cores of the machine, and costs power. So it is
 * asked for only while requests come one right after the other, only while that is seen to make them come much quicker,
 * and by default only on machines with few cores. A daemon that is stopped meanwhile keeps them awake until it goes on.
 */
#ifndef AWAKE_H
#define AWAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define AWAKE_CORES_DEFAULT 8

enum { AWAKE_MILLISECONDS = 1 };

struct awake {
    int fd;               /* atomic; -1: never */
    bool held;            /* atomic */
    unsigned age;         /* atomic: how often that has changed */
    pthread_mutex_t lock; /* protects the changes, and the rest */
    int64_t before;       /* nanoseconds: the mean gap without it */
    unsigned served;      /* stretches since we hold it, */
    unsigned slow;        /* and times that we went to sleep, since the last stretch */
    unsigned chances;     /* stretches that it might have helped, since we let go of it, */
    unsigned apart;       /* and how many there must be */
};

/* For machines of at most so many cores, as the system counts them (threads of a core, too). */
void awake_setup(struct awake *awake, unsigned cores_max);
void awake_free(struct awake *awake);

/* A request came so many nanoseconds after we had begun to look for it. */
void awake_caught(struct awake *awake, int64_t gap);
/* None came soon, and the only thread that looks for one goes to sleep. True: cores are kept awake; let go if nobody
 * has come after AWAKE_MILLISECONDS. */
bool awake_slow(struct awake *awake);
void awake_let_go(struct awake *awake);

#endif

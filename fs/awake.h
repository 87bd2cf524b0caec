/*
 * Keeping idle cores awake while callers need them.
 *
 * A caller sleeps until it is answered, and its core with it. Waking a core takes up to 100 microseconds, in a virtual
 * machine often 30, which is more than all the rest of a call. Linux can be asked to let idle cores wait instead of
 * sleep: with /dev/cpu_dma_latency, for as long as that file is open, so however we end it is over
 * (Documentation/power/pm_qos_interface.rst). But it is so for all cores of the machine, and costs power. So it is
 * asked for only while requests come one right after the other, only while that is seen to make them much quicker, for
 * some times as long as it has saved, and by default only on machines with few cores. A daemon that is stopped
 * meanwhile keeps them awake until it goes on.
 */
#ifndef AWAKE_H
#define AWAKE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define AWAKE_CORES_DEFAULT 8

/* After the last request. More than a tick of the clock, so that to wait for it takes no timer of its own. */
enum { AWAKE_MILLISECONDS = 20 };

struct awake {
    int fd;               /* atomic; -1: never */
    bool held;            /* atomic */
    unsigned age;         /* atomic: how often that has changed */
    pthread_mutex_t lock; /* protects the changes, and the rest */
    int64_t before;       /* nanoseconds that a request took without it */
    int64_t last;         /* and in the last stretch, 0: none since it has changed */
    int64_t since;        /* CLOCK_MONOTONIC: we hold it */
    int64_t saved;        /* nanoseconds since then, of all requests */
    unsigned served;      /* stretches since then, in which it helped */
    unsigned chances;     /* stretches that it might have helped, since we let go of it, */
    unsigned apart;       /* and how many there must be */
};

/* For machines of at most so many cores, as the system counts them (threads of a core, too). */
void awake_setup(struct awake *awake, unsigned cores_max);
void awake_free(struct awake *awake);

/* A request was there at once; or came now, after we had begun to look for it then. CLOCK_MONOTONIC in nanoseconds. */
void awake_at_once(void);
void awake_came(struct awake *awake, int64_t began, int64_t now);
/* Who then sleeps until one comes lets go if none has come after AWAKE_MILLISECONDS. */
bool awake_is_held(const struct awake *awake);
void awake_let_go(struct awake *awake, int64_t now);

#endif

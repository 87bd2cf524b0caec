#include "awake.h"

#include <fcntl.h>
#include <unistd.h>

enum {
    STRETCH = 64,    /* requests, or more */
    SELDOM = 100000, /* nanoseconds: where each takes as long nobody is in a hurry */
    GAIN = 1000,     /* nanoseconds that it must save of each, and a third */
    WORTH = 8,       /* times what it has saved, it may last, */
    SERVED = 4,      /* and so many stretches it is to help, or it is tried less often */
    APART_MAX = 64,  /* stretches */
};

/* Nanoseconds. */
#define PAUSE INT64_C(1000000)      /* that ends a stretch */
#define ALLOWANCE INT64_C(50000000) /* for which it may last whatever it has saved */
#define RENEWED INT64_C(2000000000) /* after which it is looked how it is without */

/* As the kernel has it: no wish. */
#define ANY_LATENCY INT32_C(2000000000) /* microseconds */

void awake_setup(struct awake *awake, unsigned cores_max)
{
    *awake = (struct awake){.fd = -1, .apart = 1};
    pthread_mutex_init(&awake->lock, NULL);
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores > 1 && cores <= (long)cores_max)
        awake->fd = open("/dev/cpu_dma_latency", O_RDWR | O_CLOEXEC); /* where it may not be, it is not kept */
}

static int descriptor(const struct awake *awake)
{
    return __atomic_load_n(&awake->fd, __ATOMIC_RELAXED);
}

/* Closing it ends all that was asked for. */
static void stop(struct awake *awake)
{
    if (awake->fd >= 0)
        close(awake->fd);
    __atomic_store_n(&awake->fd, -1, __ATOMIC_RELAXED);
}

void awake_free(struct awake *awake)
{
    stop(awake);
    pthread_mutex_destroy(&awake->lock);
}

static bool ask(struct awake *awake, int32_t latency)
{
    return write(awake->fd, &latency, sizeof latency) == sizeof latency;
}

/* Of one thread, what it has seen since the last change; so no request waits for another thread's. Where threads take
 * turns a request seems to take longer, with and without. */
static __thread struct {
    int64_t began; /* CLOCK_MONOTONIC, 0: it has not */
    unsigned count;
    unsigned age;
} stretch;

bool awake_is_held(const struct awake *awake)
{
    return __atomic_load_n(&awake->held, __ATOMIC_RELAXED);
}

static void set_held(struct awake *awake, bool held)
{
    __atomic_store_n(&awake->held, held, __ATOMIC_RELAXED);
    __atomic_fetch_add(&awake->age, 1, __ATOMIC_RELAXED);
}

static void hold(struct awake *awake, int64_t time, int64_t now)
{
    awake->chances = awake->served = 0;
    awake->before = time;
    awake->last = awake->saved = 0;
    awake->since = now;
    const bool held = ask(awake, 0);
    if (!held)
        stop(awake); /* it will not be allowed the next time either */
    set_held(awake, held);
}

static void let_go(struct awake *awake, int64_t now)
{
    if (!ask(awake, ANY_LATENCY))
        stop(awake);
    awake->last = 0;
    if (awake->served >= SERVED && awake->saved * WORTH >= now - awake->since)
        awake->apart = 1;
    else if (awake->apart < APART_MAX)
        awake->apart *= 2;
    set_held(awake, false);
}

static bool helps(const struct awake *awake, int64_t time)
{
    return time + GAIN <= awake->before && time * 3 <= awake->before * 2;
}

static bool is_worth_it(const struct awake *awake, int64_t now)
{
    return now - awake->since <= awake->saved * WORTH + ALLOWANCE;
}

/* A stretch of so many requests is over. What is seen only once may be somebody else's doing. */
static void judge(struct awake *awake, unsigned count, int64_t began, int64_t now)
{
    const int64_t time = (now - began) / count;
    const int64_t twice = time < awake->last ? time : awake->last;
    awake->last = time;
    if (!awake_is_held(awake)) {
        if (twice >= 3 * GAIN && twice < SELDOM && ++awake->chances >= awake->apart)
            hold(awake, twice, now);
        return;
    }
    awake->saved += (awake->before - time) * count;
    awake->served += helps(awake, time);
    if (!helps(awake, twice) || !is_worth_it(awake, now) || now - awake->since > RENEWED)
        let_go(awake, now);
}

static void pause_seen(struct awake *awake, int64_t now)
{
    pthread_mutex_lock(&awake->lock);
    if (awake_is_held(awake) && !is_worth_it(awake, now))
        let_go(awake, now);
    pthread_mutex_unlock(&awake->lock);
}

void awake_at_once(void)
{
    stretch.count++;
}

void awake_came(struct awake *awake, int64_t began, int64_t now)
{
    if (descriptor(awake) < 0)
        return;
    if (now - began > PAUSE) {
        stretch.began = 0;
        if (awake_is_held(awake))
            pause_seen(awake, now);
    }
    const unsigned age = __atomic_load_n(&awake->age, __ATOMIC_RELAXED);
    if (stretch.began && stretch.age == age) {
        if (++stretch.count < STRETCH)
            return;
        if (pthread_mutex_trylock(&awake->lock) == 0) {
            if (awake->age == age)
                judge(awake, stretch.count, stretch.began, now);
            pthread_mutex_unlock(&awake->lock);
        }
    }
    stretch.began = now;
    stretch.count = 0;
    stretch.age = __atomic_load_n(&awake->age, __ATOMIC_RELAXED);
}

void awake_let_go(struct awake *awake, int64_t now)
{
    pthread_mutex_lock(&awake->lock);
    if (awake_is_held(awake))
        let_go(awake, now);
    pthread_mutex_unlock(&awake->lock);
}

#include "awake.h"

#include <fcntl.h>
#include <unistd.h>

enum {
    STRETCH = 64,    /* requests, or more */
    PAUSE = 1000000, /* nanoseconds between two, that end one */
    PAUSES_MAX = 4,  /* without a stretch between them, then it is over */
    SELDOM = 100000, /* nanoseconds: where each takes as long nobody is in a hurry */
    GAIN = 1000,     /* nanoseconds that it must save of each, and a third */
    WORTH = 4,       /* stretches that it is to serve, or it comes too often for what it costs to come and go */
    APART_MAX = 256, /* stretches */
};

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

/* Of one thread, what it has seen since the last change; so no request waits for another thread's. */
static __thread struct {
    int64_t began, latest; /* CLOCK_MONOTONIC */
    bool at_once;          /* some since the latest */
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

static void hold(struct awake *awake, int64_t time)
{
    awake->chances = awake->served = awake->pauses = 0;
    awake->before = time;
    awake->last = 0;
    set_held(awake, ask(awake, 0));
}

static void let_go(struct awake *awake)
{
    if (!ask(awake, ANY_LATENCY))
        stop(awake);
    awake->last = 0;
    if (awake->served >= WORTH)
        awake->apart = 1;
    else if (awake->apart < APART_MAX)
        awake->apart *= 2;
    set_held(awake, false);
}

static bool helps(const struct awake *awake, int64_t time)
{
    return time + GAIN <= awake->before && time * 3 <= awake->before * 2;
}

/* Each request of a stretch took so long. What is seen only once may be somebody else's doing. */
static void judge(struct awake *awake, int64_t time)
{
    const int64_t twice = time < awake->last ? time : awake->last;
    awake->last = time;
    if (!awake_is_held(awake)) {
        if (twice >= 3 * GAIN && twice < SELDOM && ++awake->chances >= awake->apart)
            hold(awake, twice);
    } else if (helps(awake, twice)) {
        awake->served++;
        awake->pauses = 0;
    } else {
        let_go(awake);
    }
}

/* Nobody is in a hurry. */
static void count_pause(struct awake *awake)
{
    pthread_mutex_lock(&awake->lock);
    if (awake_is_held(awake) && ++awake->pauses == PAUSES_MAX)
        let_go(awake);
    pthread_mutex_unlock(&awake->lock);
}

void awake_at_once(void)
{
    stretch.at_once = true;
    stretch.count++;
}

void awake_came(struct awake *awake, int64_t now)
{
    if (descriptor(awake) < 0)
        return;
    const unsigned age = __atomic_load_n(&awake->age, __ATOMIC_RELAXED);
    const bool paused = now - stretch.latest > PAUSE && !stretch.at_once;
    stretch.latest = now;
    stretch.at_once = false;
    if (paused && awake_is_held(awake))
        count_pause(awake);
    if (!paused && stretch.age == age && ++stretch.count < STRETCH)
        return;
    if (!paused && stretch.age == age && pthread_mutex_trylock(&awake->lock) == 0) {
        if (awake->age == age)
            judge(awake, (now - stretch.began) / stretch.count);
        pthread_mutex_unlock(&awake->lock);
    }
    stretch.began = now;
    stretch.count = 0;
    stretch.age = __atomic_load_n(&awake->age, __ATOMIC_RELAXED);
}

void awake_let_go(struct awake *awake)
{
    pthread_mutex_lock(&awake->lock);
    if (awake_is_held(awake))
        let_go(awake);
    pthread_mutex_unlock(&awake->lock);
}

#include "awake.h"

#include <fcntl.h>
#include <unistd.h>

enum {
    STRETCH = 32,     /* requests */
    GAIN = 8000,      /* nanoseconds that it must save of each, and a third of the gap */
    WORTH = 8,        /* stretches that it is to serve, or it comes too often for what it costs to come and go */
    SLOW_MAX = 4,     /* times that we go to sleep without a stretch between them, until it is over */
    APART_MAX = 1024, /* stretches */
};

/* As the kernel has it: no wish. */
#define ANY_LATENCY INT32_C(2000000000) /* microseconds */

void awake_setup(struct awake *awake, unsigned cores_max)
{
    *awake = (struct awake){.fd = -1, .apart = 1};
    pthread_mutex_init(&awake->lock, NULL);
    if (sysconf(_SC_NPROCESSORS_ONLN) <= (long)cores_max)
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
    int64_t gaps; /* nanoseconds: their sum */
    unsigned count;
    unsigned age;
} stretch;

static bool is_held(const struct awake *awake)
{
    return __atomic_load_n(&awake->held, __ATOMIC_RELAXED);
}

static void set_held(struct awake *awake, bool held)
{
    __atomic_store_n(&awake->held, held, __ATOMIC_RELAXED);
    __atomic_fetch_add(&awake->age, 1, __ATOMIC_RELAXED);
}

static void hold(struct awake *awake, int64_t gap)
{
    awake->chances = 0;
    awake->before = gap;
    awake->served = awake->slow = 0;
    set_held(awake, ask(awake, 0));
}

static void let_go(struct awake *awake)
{
    if (!ask(awake, ANY_LATENCY))
        stop(awake);
    if (awake->served >= WORTH)
        awake->apart = 1;
    else if (awake->apart < APART_MAX)
        awake->apart *= 2;
    set_held(awake, false);
}

static bool helps(const struct awake *awake, int64_t gap)
{
    return gap + GAIN <= awake->before && gap * 3 <= awake->before * 2;
}

static void judge(struct awake *awake, int64_t gap)
{
    if (!is_held(awake)) {
        if (gap >= GAIN && ++awake->chances >= awake->apart)
            hold(awake, gap);
    } else if (helps(awake, gap)) {
        awake->served++;
        awake->slow = 0;
    } else {
        let_go(awake);
    }
}

void awake_caught(struct awake *awake, int64_t gap)
{
    if (descriptor(awake) < 0)
        return;
    const unsigned age = __atomic_load_n(&awake->age, __ATOMIC_RELAXED);
    if (stretch.age != age)
        stretch.gaps = stretch.count = 0;
    stretch.age = age;
    stretch.gaps += gap;
    if (++stretch.count < STRETCH)
        return;
    gap = stretch.gaps / STRETCH;
    stretch.gaps = stretch.count = 0;
    if (pthread_mutex_trylock(&awake->lock) == 0) {
        if (awake->age == age)
            judge(awake, gap);
        pthread_mutex_unlock(&awake->lock);
    }
}

bool awake_slow(struct awake *awake)
{
    stretch.gaps = stretch.count = 0;
    if (!is_held(awake))
        return false;
    pthread_mutex_lock(&awake->lock);
    if (is_held(awake) && ++awake->slow == SLOW_MAX)
        let_go(awake);
    const bool held = is_held(awake);
    pthread_mutex_unlock(&awake->lock);
    return held;
}

void awake_let_go(struct awake *awake)
{
    pthread_mutex_lock(&awake->lock);
    if (is_held(awake))
        let_go(awake);
    pthread_mutex_unlock(&awake->lock);
}

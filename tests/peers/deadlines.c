// deadlines TIMEOUT:TARGET...: a thread for each, which waits there once, all from one moment on. A target is a path
// of a mount that has the timeout, in nanoseconds, in its options; or sem:NAME, which is waited for natively. A line
// "TIMEOUT START END ERRNO" for each as it ends, in nanoseconds of CLOCK_MONOTONIC.

#include "target.h"

struct wait {
    int64_t timeout;
    struct target target;
};

static pthread_barrier_t begin;

static int64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void *wait_once(void *argument)
{
    struct wait *wait = argument;
    char line[128], buffer[64];

    pthread_barrier_wait(&begin);
    int64_t start = now(CLOCK_MONOTONIC);
    int64_t deadline = now(CLOCK_REALTIME) + wait->timeout;
    struct timespec until = {deadline / 1000000000, deadline % 1000000000};
    int result = wait->target.semaphore ? sem_timedwait(wait->target.semaphore, &until)
                                        : (int)pread(wait->target.file, buffer, sizeof buffer, 0);
    int error = result == -1 ? errno : 0;
    int64_t end = now(CLOCK_MONOTONIC);

    int size = snprintf(line, sizeof line, "%lld %lld %lld %d\n", (long long)wait->timeout, (long long)start,
                        (long long)end, error);
    if (write(STDOUT_FILENO, line, size) != size)
        fail("write");
    return NULL;
}

int main(int argc, char **argv)
{
    const int count = argc - 1;
    struct wait *waits = calloc(count, sizeof *waits);
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t small;

    pthread_barrier_init(&begin, NULL, count);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (int i = 0; i < count; i++) {
        char *target;
        waits[i].timeout = strtoll(argv[i + 1], &target, 10);
        waits[i].target = open_target(target + 1, O_RDONLY);
    }
    for (int i = 0; i < count; i++)
        if ((errno = pthread_create(&threads[i], &small, wait_once, &waits[i])))
            fail("pthread_create");
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

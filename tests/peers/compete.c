// compete read|poll COUNT SEMAPHORE PATH ROUNDS: COUNT threads read or poll the file PATH for ever, while this program
// loops sem_post and sem_trywait on the same semaphore. EAGAIN then means that a reader got the unit, and nothing else:
// until one says so, the value stays 0. Prints "polled N", "taken N"; status 1 for a spurious EAGAIN.

#include <poll.h>

#include "target.h"

static const char *path;
static atomic_int taken, polled, ready;
static atomic_bool stop;

static void *read_on(void *unused)
{
    struct target file = open_target(path, O_RDONLY);
    char buffer[8];

    ready++;
    while (!stop) {
        if (take(file, buffer, sizeof buffer) == -1)
            fail("read");
        taken++;
    }
    return unused;
}

static void *poll_on(void *unused)
{
    struct pollfd file = {.fd = open_target(path, O_RDONLY).file, .events = POLLIN};

    ready++;
    while (!stop) {
        if (poll(&file, 1, -1) == -1)
            fail("poll");
        polled++;
    }
    return unused;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    bool reads = !strcmp(argv[1], "read");
    int count = atoi(argv[2]), rounds = atoi(argv[5]), expected = 0, value;
    sem_t *semaphore = open_target(argv[3], 0).semaphore;
    pthread_t thread[count];

    path = argv[4];
    for (int i = 0; i < count; i++)
        if ((errno = pthread_create(&thread[i], NULL, reads ? read_on : poll_on, NULL)))
            fail("pthread_create");
    while (ready < count)
        usleep(1000);
    for (int i = 0; i < rounds; i++) {
        sem_post(semaphore);
        if (i % 16 == 0)
            sched_yield(); // so that others have a chance at it now and then
        if (!sem_trywait(semaphore))
            continue;
        if (errno != EAGAIN)
            fail("sem_trywait");
        expected++;
        while (taken < expected) {
            sem_getvalue(semaphore, &value);
            if (value || !reads) {
                fprintf(stderr, "EAGAIN in round %d, and nobody had taken the unit\n", i);
                return 1;
            }
            sched_yield();
        }
        if (taken > expected) {
            fprintf(stderr, "%d taken of %d\n", taken, expected);
            return 1;
        }
    }
    sem_getvalue(semaphore, &value);
    if (value || taken != expected) {
        fprintf(stderr, "value %d at the end, %d taken of %d\n", value, taken, expected);
        return 1;
    }
    printf("taken %d\npolled %d\n", taken, polled);
    stop = true;
    for (int i = 0; i < count; i++)
        sem_post(semaphore);
    for (int i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    return 0;
}

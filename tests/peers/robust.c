// robust TASK MEMORY COUNT: a robust mutex and two semaphores that live in MEMORY, shared between processes.
//
//   make     initialises them
//   count    COUNT times locks, counts a plain number up and unlocks
//   hold     locks, prints "held", and sleeps for ever
//   recover  locks, prints "owner died" or "locked", makes the mutex consistent and unlocks
//   serve    COUNT times posts the first semaphore and waits for the second,
//   answer   and the other way round
//   tell     prints the number and the semaphores' values

#include "memory.h"

struct shared {
    pthread_mutex_t mutex;
    volatile long number; // of the mutex's
    sem_t ball[2];
};

static void check(int error, const char *what)
{
    if (error) {
        errno = error;
        fail(what);
    }
}

static void make(struct shared *shared)
{
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED), "pshared");
    check(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST), "robust");
    check(pthread_mutex_init(&shared->mutex, &attributes), "pthread_mutex_init");
    for (int i = 0; i < 2; i++)
        if (sem_init(&shared->ball[i], 1, 0))
            fail("sem_init");
}

static void count(struct shared *shared, int times)
{
    for (int i = 0; i < times; i++) {
        check(pthread_mutex_lock(&shared->mutex), "pthread_mutex_lock");
        long number = shared->number;
        if (i % 100 == 0)
            sched_yield(); // to give a broken lock its chance
        shared->number = number + 1;
        check(pthread_mutex_unlock(&shared->mutex), "pthread_mutex_unlock");
    }
}

static void hold(struct shared *shared)
{
    check(pthread_mutex_lock(&shared->mutex), "pthread_mutex_lock");
    printf("held\n");
    fflush(stdout);
    for (;;)
        pause();
}

static void recover(struct shared *shared)
{
    int error = pthread_mutex_lock(&shared->mutex);

    if (error != EOWNERDEAD)
        check(error, "pthread_mutex_lock");
    else
        check(pthread_mutex_consistent(&shared->mutex), "pthread_mutex_consistent");
    check(pthread_mutex_unlock(&shared->mutex), "pthread_mutex_unlock");
    printf(error ? "owner died\n" : "locked\n");
}

static void play(struct shared *shared, int times, bool serves)
{
    for (int i = 0; i < times; i++) {
        if (serves && sem_post(&shared->ball[0]))
            fail("sem_post");
        if (sem_wait(&shared->ball[serves]))
            fail("sem_wait");
        if (!serves && sem_post(&shared->ball[1]))
            fail("sem_post");
    }
}

static void tell(struct shared *shared)
{
    int value[2];

    for (int i = 0; i < 2; i++)
        if (sem_getvalue(&shared->ball[i], &value[i]))
            fail("sem_getvalue");
    printf("%ld %d %d\n", shared->number, value[0], value[1]);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    const char *task = argv[1];
    struct shared *shared = map_memory(argv[2], sizeof *shared);
    int times = atoi(argv[3]);

    if (!strcmp(task, "make"))
        make(shared);
    else if (!strcmp(task, "count"))
        count(shared, times);
    else if (!strcmp(task, "hold"))
        hold(shared);
    else if (!strcmp(task, "recover"))
        recover(shared);
    else if (!strcmp(task, "tell"))
        tell(shared);
    else
        play(shared, times, !strcmp(task, "serve"));
    return 0;
}

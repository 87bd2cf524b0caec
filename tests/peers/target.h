// What the programs here take from and give to: a native object or a file of a mount, chosen on the command line.
//
//   sem:NAME    a semaphore, by sem_wait and sem_post
//   mq:NAME     a queue, by mq_receive and mq_send
//   PATH        a file, by pread at offset 0 and write

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct target {
    sem_t *semaphore; // or NULL
    mqd_t queue;      // or -1
    int file;         // or -1
};

static inline void fail(const char *what)
{
    perror(what);
    exit(1);
}

static inline struct target open_target(const char *text, int flags)
{
    struct target target = {.queue = -1, .file = -1};
    char name[NAME_MAX + 2];

    if (!strncmp(text, "sem:", 4)) {
        snprintf(name, sizeof name, "/%s", text + 4);
        target.semaphore = sem_open(name, 0);
        if (target.semaphore == SEM_FAILED)
            fail(text);
    } else if (!strncmp(text, "mq:", 3)) {
        snprintf(name, sizeof name, "/%s", text + 3);
        target.queue = mq_open(name, flags);
        if (target.queue == -1)
            fail(text);
    } else {
        target.file = open(text, flags);
        if (target.file == -1)
            fail(text);
    }
    return target;
}

// A unit or a message. Its length, or -1 with errno.
static inline ssize_t take(struct target target, char *buffer, size_t size)
{
    if (target.semaphore)
        return sem_wait(target.semaphore) ? -1 : snprintf(buffer, size, "1\n");
    if (target.queue != -1)
        return mq_receive(target.queue, buffer, size, NULL);
    return pread(target.file, buffer, size, 0);
}

static inline int give(struct target target, const char *buffer, size_t size)
{
    if (target.semaphore)
        return sem_post(target.semaphore);
    if (target.queue != -1)
        return mq_send(target.queue, buffer, size, 0);
    ssize_t written = write(target.file, buffer, size);
    if (written != -1 && (size_t)written != size) {
        fprintf(stderr, "wrote %zd of %zu bytes\n", written, size);
        exit(1);
    }
    return written == -1 ? -1 : 0;
}

static inline void ignore(int signal)
{
    (void)signal;
}

// SIGUSR1 interrupts, and nothing more.
static inline void let_signals_interrupt(void)
{
    struct sigaction action = {.sa_handler = ignore};

    sigaction(SIGUSR1, &action, NULL);
}

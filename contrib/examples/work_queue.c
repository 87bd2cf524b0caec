/*
 * Work queue on POSIX IPC: work_queue produce NAME N | consume NAME. See README.md.
 *
 * The native peer: it knows nothing of ipcfs, and meets the other languages in the same objects.
 */
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 64, COUNTER_SIZE = 12 };

static mqd_t jobs;
static sem_t *lock;
static int segment;
static char *counter; /* the segment: decimal text, COUNTER_SIZE bytes */

static void open_objects(const char *name)
{
    struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = MESSAGE_SIZE};

    jobs = mq_open(name, O_CREAT | O_RDWR, 0666, &attr);
    if (jobs == (mqd_t)-1)
        err(1, "mq_open %s", name);
    lock = sem_open(name, O_CREAT, 0666, 1);
    if (lock == SEM_FAILED)
        err(1, "sem_open %s", name);
    segment = shm_open(name, O_CREAT | O_RDWR, 0666);
    if (segment < 0)
        err(1, "shm_open %s", name);
    counter = mmap(NULL, COUNTER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
    if (counter == MAP_FAILED)
        err(1, "mmap %s", name);
}

static void send(const char *message)
{
    if (mq_send(jobs, message, strlen(message), 0))
        err(1, "mq_send");
}

static void produce(long n)
{
    char message[MESSAGE_SIZE];

    for (long job = 1; job <= n; job++) {
        snprintf(message, sizeof message, "%ld", job);
        send(message);
    }
    send("end");
}

static long add(long job)
{
    char text[32];
    long total;

    if (sem_wait(lock))
        err(1, "sem_wait");
    if (ftruncate(segment, COUNTER_SIZE)) /* a new segment is empty */
        err(1, "ftruncate");
    total = strtol(counter, NULL, 10) + job;
    snprintf(text, sizeof text, "%11ld\n", total);
    memcpy(counter, text, COUNTER_SIZE);
    if (sem_post(lock))
        err(1, "sem_post");
    return total;
}

static void consume(void)
{
    for (;;) {
        char message[MESSAGE_SIZE + 1], *rest;
        long job;
        ssize_t n = mq_receive(jobs, message, MESSAGE_SIZE, NULL);

        if (n < 0)
            err(1, "mq_receive");
        message[n] = '\0';
        if (strncmp(message, "end", 3) == 0)
            return;
        job = strtol(message, &rest, 10);
        if (rest == message)
            errx(1, "not a job: %s", message);
        printf("c: job %ld, counter %ld\n", job, add(job));
    }
}

int main(int argc, char **argv)
{
    char name[NAME_MAX + 2];
    int producing = argc == 4 && strcmp(argv[1], "produce") == 0;

    if (!producing && !(argc == 3 && strcmp(argv[1], "consume") == 0)) {
        fprintf(stderr, "usage: %s produce NAME N | consume NAME\n", argv[0]);
        return 2;
    }
    snprintf(name, sizeof name, "/%s", argv[2]);
    open_objects(name);
    if (producing)
        produce(atol(argv[3]));
    else
        consume();
    return 0;
}

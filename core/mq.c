/* Message queues: the kernel's own calls, under one convention for attributes, errors and deadlines. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A number in /proc/sys/fs/mqueue, or `otherwise`. */
static long system_value(const char *name, long otherwise)
{
    char path[64];
    long value = otherwise;
    snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
    FILE *file = fopen(path, "re");
    if (!file)
        return otherwise;
    if (fscanf(file, "%ld", &value) != 1)
        value = otherwise;
    fclose(file);
    return value;
}

static long smaller(long a, long b)
{
    return a < b ? a : b;
}

/* As the kernel: a default above the largest is the largest. */
void ipc_mq_defaults(struct ipc_mq_attr *attr)
{
    if (!attr->max_messages)
        attr->max_messages = smaller(system_value("msg_default", 10), system_value("msg_max", 10));
    if (!attr->max_message_size)
        attr->max_message_size = smaller(system_value("msgsize_default", 8192), system_value("msgsize_max", 8192));
}

int ipc_mq_open(struct ipc *ipc, const char *name, int flags, mode_t mode, const struct ipc_mq_attr *attr)
{
    (void)ipc;
    int error = ipc_name_check(IPC_MQ, name);
    if (error)
        return error;
    struct mq_attr wanted = {0};
    if (attr) {
        wanted.mq_maxmsg = attr->max_messages;
        wanted.mq_msgsize = attr->max_message_size;
    }
    /* Not mq_open(3), which only adds a slash to check for. */
    int fd = (int)syscall(SYS_mq_open, name, flags | O_CLOEXEC, mode, attr ? &wanted : NULL);
    return fd < 0 ? -errno : fd;
}

/* The kernel's deadlines for queues are of CLOCK_REALTIME. */
static struct timespec real_time(const struct timespec *deadline)
{
    const long second = 1000000000;
    struct timespec monotonic, real;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_REALTIME, &real);
    const time_t far = (time_t)1 << 40; /* seconds; the kernel takes any, our sums do not */
    time_t seconds = deadline->tv_sec < 0 ? 0 : deadline->tv_sec < far ? deadline->tv_sec : far;
    real.tv_sec += seconds - monotonic.tv_sec;
    real.tv_nsec += deadline->tv_nsec - monotonic.tv_nsec;
    if (real.tv_nsec < 0)
        real.tv_sec--, real.tv_nsec += second;
    if (real.tv_nsec >= second)
        real.tv_sec++, real.tv_nsec -= second;
    return real.tv_sec < 0 ? (struct timespec){0} : real;
}

int ipc_mq_send(int fd, const void *message, size_t size, unsigned priority, const struct timespec *deadline)
{
    int result;
    if (deadline) {
        struct timespec real = real_time(deadline);
        result = mq_timedsend(fd, message, size, priority, &real);
    } else {
        result = mq_send(fd, message, size, priority);
    }
    return result ? -errno : 0;
}

ssize_t ipc_mq_receive(int fd, void *message, size_t size, unsigned *priority, const struct timespec *deadline)
{
    ssize_t result;
    if (deadline) {
        struct timespec real = real_time(deadline);
        result = mq_timedreceive(fd, message, size, priority, &real);
    } else {
        result = mq_receive(fd, message, size, priority);
    }
    return result < 0 ? -errno : result;
}

int ipc_mq_getattr(int fd, struct ipc_mq_attr *attr)
{
    struct mq_attr now;
    if (mq_getattr(fd, &now))
        return -errno;
    *attr = (struct ipc_mq_attr){now.mq_maxmsg, now.mq_msgsize, now.mq_curmsgs, 0, 0};
    return 0;
}

int ipc_mq_getattr_all(int fd, struct ipc_mq_attr *attr)
{
    int error = ipc_mq_getattr(fd, attr);
    if (error)
        return error;
    /* The rest is text in the queue's own file, for those who may read it: "QSIZE:129 NOTIFY:2 SIGNO:0
     * NOTIFY_PID:8260". */
    char line[128];
    ssize_t n = pread(fd, line, sizeof line - 1, 0);
    if (n > 0) {
        line[n] = 0;
        int pid = 0;
        sscanf(line, "QSIZE:%ld NOTIFY:%*d SIGNO:%*d NOTIFY_PID:%d", &attr->bytes, &pid);
        attr->notify_pid = pid;
    }
    return 0;
}

int ipc_mq_notify(int fd, const struct sigevent *event)
{
    return mq_notify(fd, event) ? -errno : 0;
}

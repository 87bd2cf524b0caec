/* The table of limits, and the classes of errors. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Limits ---- */

struct limit {
    const char *name;
    long value;
    unsigned times;
};

static void note(void *arg, const char *name, long value)
{
    for (struct limit *limit = arg; limit->name; limit++)
        if (!strcmp(limit->name, name)) {
            limit->value = value;
            limit->times++;
        }
}

static long limit_of(const char *name)
{
    struct limit limits[] = {{.name = name}, {0}};
    ipc_limits(note, limits);
    CHECK_IS(limits->times, 1);
    return limits->value;
}

static long system_value(const char *path)
{
    long value = 0;
    FILE *file = fopen(path, "re");
    CHECK(file && fscanf(file, "%ld", &value) == 1);
    fclose(file);
    return value;
}

static void limits_are_those_of_this_system(void)
{
    CHECK_IS(limit_of("SEMAPHORE_TIMEOUT_SUPPORTED"), 1);
    CHECK_IS(limit_of("SEMAPHORE_VALUE_SUPPORTED"), 1);
    CHECK_IS(limit_of("MESSAGE_QUEUES_SUPPORTED"), 1);
    CHECK_IS(limit_of("SEMAPHORE_VALUE_MAX"), SEM_VALUE_MAX);
    CHECK_IS(limit_of("QUEUE_MESSAGES_MAX_DEFAULT"), system_value("/proc/sys/fs/mqueue/msg_default"));
    CHECK_IS(limit_of("QUEUE_MESSAGE_SIZE_MAX_DEFAULT"), system_value("/proc/sys/fs/mqueue/msgsize_default"));
    CHECK_IS(limit_of("QUEUE_PRIORITY_MAX"), sysconf(_SC_MQ_PRIO_MAX) - 1);
    CHECK_IS(limit_of("USER_SIGNAL_MIN"), SIGRTMIN);
    CHECK_IS(limit_of("USER_SIGNAL_MAX"), SIGRTMAX);
    CHECK_IS(limit_of("PAGE_SIZE"), sysconf(_SC_PAGESIZE));
    CHECK_IS(IPC_SEM_VALUE_MAX, SEM_VALUE_MAX);
    CHECK_IS(IPC_PRIORITY_MAX, sysconf(_SC_MQ_PRIO_MAX) - 1);
}

static bool set_system_value(const char *path, long value)
{
    FILE *file = fopen(path, "we");
    if (!file)
        return false;
    bool printed = fprintf(file, "%ld\n", value) > 0;
    return fclose(file) == 0 && printed;
}

/* In an IPC namespace of the child's own. */
static void with_other_defaults(void *arg)
{
    (void)arg;
    if (unshare(CLONE_NEWIPC) || !set_system_value("/proc/sys/fs/mqueue/msg_default", 3) ||
        !set_system_value("/proc/sys/fs/mqueue/msgsize_default", 256)) {
        skip("no right to make an IPC namespace and set its limits");
        fflush(stdout);
        return;
    }
    CHECK_IS(limit_of("QUEUE_MESSAGES_MAX_DEFAULT"), 3);
    CHECK_IS(limit_of("QUEUE_MESSAGE_SIZE_MAX_DEFAULT"), 256);
    struct ipc_mq_attr attr = {0};
    ipc_mq_defaults(&attr);
    CHECK_IS(attr.max_messages, 3);
    CHECK_IS(attr.max_message_size, 256);
}

static void limits_are_those_of_now(void)
{
    in_child(with_other_defaults, NULL);
}

/* The kernel keeps to the largest where the default is larger. */
static void with_defaults_above_the_largest(void *arg)
{
    (void)arg;
    if (unshare(CLONE_NEWIPC) || !set_system_value("/proc/sys/fs/mqueue/msg_max", 3) ||
        !set_system_value("/proc/sys/fs/mqueue/msg_default", 5) ||
        !set_system_value("/proc/sys/fs/mqueue/msgsize_max", 256) ||
        !set_system_value("/proc/sys/fs/mqueue/msgsize_default", 512)) {
        skip("no right to make an IPC namespace and set its limits");
        fflush(stdout);
        return;
    }
    struct ipc_mq_attr attr;
    int fd = ipc_mq_open(ipc, "queue", O_CREAT | O_RDWR, 0600, NULL);
    CHECK(fd >= 0);
    CHECK_IS(ipc_mq_getattr(fd, &attr), 0);
    CHECK_IS(limit_of("QUEUE_MESSAGES_MAX_DEFAULT"), attr.max_messages);
    CHECK_IS(limit_of("QUEUE_MESSAGE_SIZE_MAX_DEFAULT"), attr.max_message_size);
}

static void defaults_are_at_most_the_largest(void)
{
    in_child(with_defaults_above_the_largest, NULL);
}

/* ---- Errors ---- */

static const struct {
    int error;
    const char *name;
} classes[] = {
    {EINTR, "SignalError"},       {EACCES, "PermissionsError"}, {EPERM, "PermissionsError"},
    {ENOENT, "ExistentialError"}, {EEXIST, "ExistentialError"}, {EAGAIN, "BusyError"},
    {EWOULDBLOCK, "BusyError"},   {ETIMEDOUT, "BusyError"},     {EBUSY, "BusyError"},
    {EINVAL, "ValueError"},       {ENAMETOOLONG, "ValueError"}, {EMSGSIZE, "ValueError"},
    {EOVERFLOW, "Error"},         {ENOSPC, "OSError"},          {EMFILE, "OSError"},
    {ENFILE, "OSError"},          {ENOMEM, "OSError"},          {EIO, "OSError"},
    {EOPNOTSUPP, "OSError"},      {ENOSYS, "OSError"},          {ENOTSUP, "OSError"},
    {EBADF, "OSError"},
};

static void every_error_has_its_class(void)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        CHECK(!strcmp(ipc_error_name(ipc_error_class(classes[i].error)), classes[i].name));
        CHECK(!strcmp(ipc_error_name(ipc_error_class(-classes[i].error)), classes[i].name));
    }
}

static void any_other_error_is_the_systems(void)
{
    for (int error = 1; error < 200; error++) {
        bool known = false;
        for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
            known = known || classes[i].error == error;
        CHECK(known || ipc_error_class(error) == IPC_ERROR_OS);
    }
}

static void every_class_has_a_name_of_its_own(void)
{
    for (int class = IPC_ERROR_SIGNAL; class <= IPC_ERROR_OS; class ++)
        for (int other = IPC_ERROR_SIGNAL; other <= IPC_ERROR_OS; other++)
            CHECK((class == other) == !strcmp(ipc_error_name(class), ipc_error_name(other)));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(limits_are_those_of_this_system),
                                        TEST(limits_are_those_of_now),
                                        TEST(defaults_are_at_most_the_largest),
                                        TEST(every_error_has_its_class),
                                        TEST(any_other_error_is_the_systems),
                                        TEST(every_class_has_a_name_of_its_own),
                                        {0}};
    (void)argc;
    return run_tests(tests, argv);
}

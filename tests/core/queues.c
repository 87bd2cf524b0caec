/* Message queues. RLIMIT_MSGQUEUE is 819,200 bytes: queues are small here, and few at a time. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGE_SIZE 64

static const struct ipc_mq_attr small = {.max_messages = 4, .max_message_size = MESSAGE_SIZE};

/* Opens, and makes, a queue of 4 messages. */
static int open_queue(const char *name, int flags)
{
    int fd = ipc_mq_open(ipc, name, flags | O_CREAT, 0600, &small);
    CHECK(fd >= 0);
    return fd;
}

static struct ipc_mq_attr attr_of(int fd)
{
    struct ipc_mq_attr attr;
    memset(&attr, 0xff, sizeof attr);
    CHECK_IS(ipc_mq_getattr_all(fd, &attr), 0);
    return attr;
}

static void send(int fd, const char *text, unsigned priority)
{
    CHECK_IS(ipc_mq_send(fd, text, strlen(text), priority, NULL), 0);
}

/* Receives a message, which must be this one. */
static void expect(int fd, const char *text, unsigned priority)
{
    char data[MESSAGE_SIZE];
    unsigned actual = -1;
    CHECK_IS(ipc_mq_receive(fd, data, sizeof data, &actual, NULL), strlen(text));
    CHECK(!memcmp(data, text, strlen(text)));
    CHECK_IS(actual, priority);
}

static ssize_t receive(int fd, const struct timespec *deadline)
{
    char data[MESSAGE_SIZE];
    return ipc_mq_receive(fd, data, sizeof data, NULL, deadline);
}

static void fill(int fd)
{
    for (int i = 0; i < small.max_messages; i++)
        send(fd, "full", 0);
}

static long system_value(const char *path)
{
    long value = 0;
    FILE *file = fopen(path, "re");
    CHECK(file && fscanf(file, "%ld", &value) == 1);
    fclose(file);
    return value;
}

/* ---- Opening ---- */

static void a_made_queue_has_its_mode_and_attributes(void)
{
    struct stat st;
    mode_t before = umask(027);
    int fd = ipc_mq_open(ipc, new_name(), O_CREAT | O_RDWR, 0666, &small);
    umask(before);
    CHECK(fd >= 0);
    CHECK_IS(ipc_stat(fd, &st), 0);
    CHECK_IS(st.st_mode, S_IFREG | 0640);
    struct ipc_mq_attr attr = attr_of(fd);
    CHECK_IS(attr.max_messages, 4);
    CHECK_IS(attr.max_message_size, MESSAGE_SIZE);
    CHECK_IS(attr.current_messages, 0);
    CHECK_IS(attr.bytes, 0);
    CHECK_IS(attr.notify_pid, 0);
    close(fd);
}

static void without_attributes_a_queue_has_the_systems(void)
{
    struct ipc_mq_attr defaults = {0};
    ipc_mq_defaults(&defaults);
    CHECK_IS(defaults.max_messages, system_value("/proc/sys/fs/mqueue/msg_default"));
    CHECK_IS(defaults.max_message_size, system_value("/proc/sys/fs/mqueue/msgsize_default"));
    int fd = ipc_mq_open(ipc, new_name(), O_CREAT | O_RDWR, 0600, NULL);
    CHECK(fd >= 0);
    struct ipc_mq_attr attr = attr_of(fd);
    CHECK_IS(attr.max_messages, defaults.max_messages);
    CHECK_IS(attr.max_message_size, defaults.max_message_size);
    close(fd);
}

static void defaults_stand_in_for_what_is_0(void)
{
    struct ipc_mq_attr defaults = {0}, attr = {.max_messages = 3};
    ipc_mq_defaults(&defaults);
    ipc_mq_defaults(&attr);
    CHECK_IS(attr.max_messages, 3);
    CHECK_IS(attr.max_message_size, defaults.max_message_size);
    attr = (struct ipc_mq_attr){.max_message_size = 5};
    ipc_mq_defaults(&attr);
    CHECK_IS(attr.max_messages, defaults.max_messages);
    CHECK_IS(attr.max_message_size, 5);
}

static void bad_attributes_are_einval(void)
{
    /* The last two are past what even CAP_SYS_RESOURCE may. */
    static const struct ipc_mq_attr bad[] = {
        {.max_messages = 0, .max_message_size = 1},     {.max_messages = 1, .max_message_size = 0},
        {.max_messages = -1, .max_message_size = 1},    {.max_messages = 1, .max_message_size = -1},
        {.max_messages = 65537, .max_message_size = 1}, {.max_messages = 1, .max_message_size = 16777217}};
    const char *name = new_name();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_IS(ipc_mq_open(ipc, name, O_CREAT | O_RDWR, 0600, &bad[i]), -EINVAL);
    CHECK_IS(ipc_mq_open(ipc, name, O_RDWR, 0, NULL), -ENOENT);
}

static void an_existing_queue_is_opened_as_it_is(void)
{
    const char *name = new_name();
    const struct ipc_mq_attr other = {.max_messages = 2, .max_message_size = 8};
    struct stat st;
    CHECK_IS(ipc_mq_open(ipc, name, O_RDWR, 0600, &small), -ENOENT);
    close(open_queue(name, O_EXCL | O_RDWR));
    CHECK_IS(ipc_mq_open(ipc, name, O_CREAT | O_EXCL | O_RDWR, 0600, &small), -EEXIST);
    int fd = ipc_mq_open(ipc, name, O_CREAT | O_RDWR, 0666, &other);
    CHECK(fd >= 0);
    CHECK_IS(attr_of(fd).max_messages, 4);
    CHECK_IS(attr_of(fd).max_message_size, MESSAGE_SIZE);
    CHECK_IS(ipc_stat(fd, &st), 0);
    CHECK_IS(st.st_mode & 07777, 0600);
    close(fd);
}

static void without_room_in_rlimit_msgqueue(void *name)
{
    struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    CHECK(setrlimit(RLIMIT_MSGQUEUE, &limit) == 0);
    CHECK_IS(ipc_mq_open(ipc, name, O_CREAT | O_RDWR, 0600, &small), -EMFILE);
}

static void a_queue_counts_against_rlimit_msgqueue(void)
{
    const char *name = new_name();
    in_child(without_room_in_rlimit_msgqueue, (void *)name);
    CHECK_IS(ipc_mq_open(ipc, name, O_RDWR, 0, NULL), -ENOENT);
}

static void a_descriptor_is_for_its_direction(void)
{
    const char *name = new_name();
    int both = open_queue(name, O_RDWR), in = open_queue(name, O_RDONLY), out = open_queue(name, O_WRONLY);
    CHECK_IS(ipc_mq_send(in, "x", 1, 0, NULL), -EBADF);
    CHECK_IS(receive(out, NULL), -EBADF);
    send(out, "one", 0);
    expect(both, "one", 0);
    send(both, "two", 0);
    expect(in, "two", 0);
    close(both);
    close(in);
    close(out);
}

static void native_queues_are_ours_and_ours_are_native(void)
{
    const char *name = new_name();
    make_native(IPC_MQ, name);
    int fd = ipc_mq_open(ipc, name, O_RDWR, 0, NULL);
    mqd_t native_fd = mq_open(native(name), O_RDWR);
    CHECK(fd >= 0 && native_fd >= 0);
    char data[MESSAGE_SIZE];
    unsigned priority;
    CHECK(mq_send(native_fd, "theirs", 6, 3) == 0);
    expect(fd, "theirs", 3);
    send(fd, "ours", 9);
    CHECK(mq_receive(native_fd, data, sizeof data, &priority) == 4 && !memcmp(data, "ours", 4) && priority == 9);

    CHECK_IS(ipc_unlink(ipc, IPC_MQ, name), 0);
    CHECK(mq_open(native(name), O_RDWR) == -1 && errno == ENOENT);
    send(fd, "removed", 0); /* it lives while it is open */
    CHECK(mq_receive(native_fd, data, sizeof data, NULL) == 7);
    close(fd);
    mq_close(native_fd);

    close(open_queue(name, O_RDWR));
    native_fd = mq_open(native(name), O_RDWR);
    CHECK(native_fd >= 0);
    mq_close(native_fd);
}

/* ---- Messages ---- */

static void messages_go_by_priority_and_then_in_order(void)
{
    int fd = open_queue(new_name(), O_RDWR);
    send(fd, "low 1", 1);
    send(fd, "high", IPC_PRIORITY_MAX);
    send(fd, "low 2", 1);
    send(fd, "lowest", 0);
    expect(fd, "high", IPC_PRIORITY_MAX);
    expect(fd, "low 1", 1);
    expect(fd, "low 2", 1);
    expect(fd, "lowest", 0);
    close(fd);
}

static void a_priority_above_the_largest_is_einval(void)
{
    int fd = open_queue(new_name(), O_RDWR);
    CHECK_IS(ipc_mq_send(fd, "x", 1, IPC_PRIORITY_MAX + 1, NULL), -EINVAL);
    CHECK_IS(ipc_mq_send(fd, "x", 1, UINT_MAX, NULL), -EINVAL);
    CHECK_IS(attr_of(fd).current_messages, 0);
    close(fd);
}

static void messages_are_whole_from_0_bytes_to_the_largest(void)
{
    char data[MESSAGE_SIZE + 1] = {1, [MESSAGE_SIZE - 1] = 2}, received[MESSAGE_SIZE];
    int fd = open_queue(new_name(), O_RDWR);
    send(fd, "", 0);
    expect(fd, "", 0);
    CHECK_IS(ipc_mq_send(fd, data, MESSAGE_SIZE, 0, NULL), 0);
    CHECK_IS(ipc_mq_receive(fd, received, MESSAGE_SIZE, NULL, NULL), MESSAGE_SIZE);
    CHECK(!memcmp(data, received, MESSAGE_SIZE));

    CHECK_IS(ipc_mq_send(fd, data, MESSAGE_SIZE + 1, 0, NULL), -EMSGSIZE);
    CHECK_IS(attr_of(fd).current_messages, 0);
    send(fd, "x", 0);
    CHECK_IS(ipc_mq_receive(fd, received, MESSAGE_SIZE - 1, NULL, NULL), -EMSGSIZE);
    CHECK_IS(attr_of(fd).current_messages, 1);
    close(fd);
}

static void without_blocking_full_and_empty_are_eagain(void)
{
    const char *name = new_name();
    int fd = open_queue(name, O_RDWR | O_NONBLOCK);
    struct timespec later = milliseconds_from_now(60000);
    CHECK_IS(receive(fd, NULL), -EAGAIN);
    CHECK_IS(receive(fd, &later), -EAGAIN);
    fill(fd);
    CHECK_IS(ipc_mq_send(fd, "x", 1, 0, NULL), -EAGAIN);
    CHECK_IS(ipc_mq_send(fd, "x", 1, 0, &later), -EAGAIN);
    CHECK_IS(attr_of(fd).current_messages, 4);
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
    struct timespec passed = milliseconds_from_now(-1);
    CHECK_IS(ipc_mq_send(fd, "x", 1, 0, &passed), -ETIMEDOUT);
    close(fd);
}

static void a_deadline_is_never_early(void)
{
    int fd = open_queue(new_name(), O_RDWR);
    for (int i = 0; i < 5; i++) {
        struct timespec deadline = milliseconds_from_now(3);
        CHECK_IS(receive(fd, &deadline), -ETIMEDOUT);
        CHECK(has_passed(&deadline));
    }
    fill(fd);
    struct timespec deadline = milliseconds_from_now(3);
    CHECK_IS(ipc_mq_send(fd, "x", 1, 0, &deadline), -ETIMEDOUT);
    CHECK(has_passed(&deadline));
    CHECK_IS(attr_of(fd).current_messages, 4);
    close(fd);
}

static void a_passed_deadline_does_not_stop_what_can_be_done(void)
{
    static const struct timespec long_ago = {-((int64_t)1 << 40), 0}; /* before 1970 */
    int fd = open_queue(new_name(), O_RDWR);
    struct timespec passed = milliseconds_from_now(-1000);
    CHECK_IS(ipc_mq_send(fd, "one", 3, 0, &passed), 0);
    CHECK_IS(ipc_mq_send(fd, "two", 3, 0, &long_ago), 0);
    CHECK_IS(receive(fd, &passed), 3);
    CHECK_IS(receive(fd, &long_ago), 3);
    CHECK_IS(receive(fd, &passed), -ETIMEDOUT);
    CHECK_IS(receive(fd, &long_ago), -ETIMEDOUT);
    close(fd);
}

static int receive_call(void *arg)
{
    return receive(*(int *)arg, NULL);
}

static int receive_till_the_end_of_time(void *arg)
{
    static const struct timespec end = {.tv_sec = LONG_MAX};
    return receive(*(int *)arg, &end);
}

static int receive_for_a_minute(void *arg)
{
    struct timespec deadline = milliseconds_from_now(60000);
    return receive(*(int *)arg, &deadline);
}

static int send_call(void *arg)
{
    return ipc_mq_send(*(int *)arg, "sent", 4, 0, NULL);
}

static void sleepers_are_woken_by_native_calls(void)
{
    static int (*const receiving[])(void *) = {receive_call, receive_for_a_minute};
    const char *name = new_name();
    int fd = open_queue(name, O_RDWR);
    mqd_t native_fd = mq_open(native(name), O_RDWR);
    CHECK(native_fd >= 0);
    struct peer peer;
    char data[MESSAGE_SIZE];
    for (int i = 0; i < 2; i++) {
        peer_start_asleep(&peer, receiving[i], &fd);
        CHECK(mq_send(native_fd, "hello", 5, 0) == 0);
        CHECK_IS(peer_result(&peer), 5);
    }
    fill(fd);
    peer_start_asleep(&peer, send_call, &fd);
    CHECK(mq_receive(native_fd, data, sizeof data, NULL) == 4);
    CHECK_IS(peer_result(&peer), 0);
    CHECK_IS(attr_of(fd).current_messages, 4);
    mq_close(native_fd);
    close(fd);
}

static void the_furthest_deadline_is_for_ever(void)
{
    struct peer peer;
    int fd = open_queue(new_name(), O_RDWR);
    peer_start_asleep(&peer, receive_till_the_end_of_time, &fd);
    send(fd, "late", 0);
    CHECK_IS(peer_result(&peer), 4);
    close(fd);
}

static void a_signal_ends_the_sleep(void)
{
    struct peer peer;
    int fd = open_queue(new_name(), O_RDWR);
    peer_start_asleep(&peer, receive_call, &fd);
    peer_interrupt(&peer);
    CHECK_IS(peer_result(&peer), -EINTR);
    fill(fd);
    peer_start_asleep(&peer, send_call, &fd);
    peer_interrupt(&peer);
    CHECK_IS(peer_result(&peer), -EINTR);
    CHECK_IS(attr_of(fd).current_messages, 4);
    close(fd);
}

/* ---- Attributes and notification ---- */

static void attributes_count_messages_and_bytes(void)
{
    const char *name = new_name();
    int fd = open_queue(name, O_RDWR);
    send(fd, "12345", 0);
    send(fd, "1234567", 1);
    struct ipc_mq_attr attr = attr_of(fd);
    CHECK_IS(attr.current_messages, 2);
    CHECK_IS(attr.bytes, 12);
    expect(fd, "1234567", 1);
    CHECK_IS(attr_of(fd).bytes, 5);
    CHECK_IS(attr_of(fd).current_messages, 1);

    /* Through any descriptor of the queue; bytes are for who may receive. */
    int in = open_queue(name, O_RDONLY), out = open_queue(name, O_WRONLY);
    CHECK_IS(attr_of(in).bytes, 5);
    CHECK_IS(attr_of(in).bytes, 5);
    CHECK_IS(attr_of(out).current_messages, 1);
    CHECK_IS(attr_of(out).max_message_size, MESSAGE_SIZE);
    CHECK_IS(attr_of(out).bytes, 0);
    CHECK_IS(ipc_mq_getattr_all(-1, &attr), -EBADF);
    close(in);
    close(out);
    close(fd);
}

static void the_native_attributes_are_had_without_a_read(void)
{
    struct ipc_mq_attr attr;
    struct stat before, after;
    int fd = open_queue(new_name(), O_RDWR);
    send(fd, "12345", 0);
    CHECK_IS(ipc_utimens(fd, (struct timespec[]){{1000, 0}, {1000, 0}}), 0);
    CHECK_IS(ipc_stat(fd, &before), 0);
    memset(&attr, 0xff, sizeof attr);
    CHECK_IS(ipc_mq_getattr(fd, &attr), 0);
    CHECK_IS(ipc_stat(fd, &after), 0);
    CHECK_IS(after.st_atim.tv_sec, before.st_atim.tv_sec);
    CHECK_IS(attr.max_messages, 4);
    CHECK_IS(attr.max_message_size, MESSAGE_SIZE);
    CHECK_IS(attr.current_messages, 1);
    CHECK_IS(attr.bytes, 0);
    CHECK_IS(attr.notify_pid, 0);
    CHECK_IS(ipc_mq_getattr(-1, &attr), -EBADF);
    close(fd);
}

static void a_message_to_an_empty_queue_notifies_once(void)
{
    sigset_t set, before;
    siginfo_t info;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    event.sigev_value.sival_int = 42;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &set, &before);

    int fd = open_queue(new_name(), O_RDWR);
    send(fd, "before", 0);
    CHECK_IS(ipc_mq_notify(fd, &event), 0);
    CHECK_IS(attr_of(fd).notify_pid, getpid());
    send(fd, "not empty", 0);
    CHECK_IS(attr_of(fd).notify_pid, getpid());
    expect(fd, "before", 0);
    expect(fd, "not empty", 0);
    send(fd, "notifies", 0);
    CHECK_IS(sigwaitinfo(&set, &info), SIGRTMIN);
    CHECK_IS(info.si_code, SI_MESGQ);
    CHECK_IS(info.si_value.sival_int, 42);
    CHECK_IS(info.si_pid, getpid());
    CHECK_IS(attr_of(fd).notify_pid, 0);
    close(fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void a_queue_has_one_registration(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    const char *name = new_name();
    int fd = open_queue(name, O_RDWR);
    mqd_t native_fd = mq_open(native(name), O_RDWR);
    CHECK_IS(ipc_mq_notify(fd, &event), 0);
    CHECK_IS(ipc_mq_notify(fd, &event), -EBUSY);
    CHECK(mq_notify(native_fd, &event) == -1 && errno == EBUSY);
    CHECK_IS(ipc_mq_notify(fd, NULL), 0);
    CHECK_IS(attr_of(fd).notify_pid, 0);
    CHECK_IS(ipc_mq_notify(fd, NULL), 0);
    CHECK_IS(ipc_mq_notify(fd, &event), 0);
    mq_close(native_fd); /* POSIX: it was this process that registered */
    CHECK_IS(attr_of(fd).notify_pid, 0);
    close(fd);
    CHECK_IS(ipc_mq_notify(-1, &event), -EBADF);
}

static void another_process_registration_is_ebusy(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    const char *name = new_name();
    int fd = open_queue(name, O_RDWR), ready[2], done[2];
    char byte;
    CHECK(pipe(ready) == 0 && pipe(done) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        close(done[1]);
        mqd_t native_fd = mq_open(native(name), O_RDWR);
        CHECK(native_fd >= 0 && mq_notify(native_fd, &event) == 0);
        CHECK(write(ready[1], "x", 1) == 1);
        CHECK(read(done[0], &byte, 1) == 0);
        _exit(0);
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK_IS(attr_of(fd).notify_pid, child);
    CHECK_IS(ipc_mq_notify(fd, &event), -EBUSY);
    CHECK_IS(ipc_mq_notify(fd, NULL), 0); /* not ours to withdraw */
    CHECK_IS(attr_of(fd).notify_pid, child);
    close(done[1]);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_IS(status, 0);
    CHECK_IS(attr_of(fd).notify_pid, 0);
    CHECK_IS(ipc_mq_notify(fd, &event), 0);
    close(ready[0]);
    close(done[0]);
    close(fd);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(a_made_queue_has_its_mode_and_attributes),
                                        TEST(without_attributes_a_queue_has_the_systems),
                                        TEST(defaults_stand_in_for_what_is_0),
                                        TEST(bad_attributes_are_einval),
                                        TEST(an_existing_queue_is_opened_as_it_is),
                                        TEST(a_queue_counts_against_rlimit_msgqueue),
                                        TEST(a_descriptor_is_for_its_direction),
                                        TEST(native_queues_are_ours_and_ours_are_native),
                                        TEST(messages_go_by_priority_and_then_in_order),
                                        TEST(a_priority_above_the_largest_is_einval),
                                        TEST(messages_are_whole_from_0_bytes_to_the_largest),
                                        TEST(without_blocking_full_and_empty_are_eagain),
                                        TEST(a_deadline_is_never_early),
                                        TEST(a_passed_deadline_does_not_stop_what_can_be_done),
                                        TEST(sleepers_are_woken_by_native_calls),
                                        TEST(the_furthest_deadline_is_for_ever),
                                        TEST(a_signal_ends_the_sleep),
                                        TEST(attributes_count_messages_and_bytes),
                                        TEST(the_native_attributes_are_had_without_a_read),
                                        TEST(a_message_to_an_empty_queue_notifies_once),
                                        TEST(a_queue_has_one_registration),
                                        TEST(another_process_registration_is_ebusy),
                                        {0}};
    (void)argc;
    return run_tests(tests, argv);
}

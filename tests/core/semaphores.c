/* Semaphores, beside native users of the same. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ipc_sem *open_sem(const char *name, unsigned value)
{
    struct ipc_sem *sem;
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0600, value), 0);
    return sem;
}

static sem_t *open_native(const char *name)
{
    sem_t *sem = sem_open(native(name), 0);
    CHECK(sem != SEM_FAILED);
    return sem;
}

static unsigned value_of(struct ipc_sem *sem)
{
    unsigned value;
    CHECK_IS(ipc_sem_value(sem, &value), 0);
    return value;
}

static int native_value_of(sem_t *sem)
{
    int value;
    CHECK(sem_getvalue(sem, &value) == 0);
    return value;
}

static int wait_call(void *sem)
{
    return ipc_sem_wait(sem, NULL);
}

static int wait_a_minute(void *sem)
{
    struct timespec deadline = milliseconds_from_now(60000);
    return ipc_sem_wait(sem, &deadline);
}

static int wait_natively(void *sem)
{
    return sem_wait(sem) ? -errno : 0;
}

/* Starts a peer that sleeps in a wait, as the n-th that does. */
static void start_waiter(struct peer *peer, int (*call)(void *), void *sem, const char *name, unsigned n)
{
    peer_start(peer, call, sem);
    AWAIT(waiters_of(name) == n);
    AWAIT(is_asleep(peer->id));
}

/* ---- Opening ---- */

static void a_made_semaphore_has_its_mode_and_value(void)
{
    const char *name = new_name();
    struct ipc_sem *sem;
    struct stat st;
    mode_t before = umask(027);
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT | O_EXCL, 0666, 7), 0);
    umask(before);
    CHECK_IS(value_of(sem), 7);
    CHECK_IS(ipc_stat(ipc_sem_fd(sem), &st), 0);
    CHECK_IS(st.st_mode, S_IFREG | 0640);
    CHECK_IS(st.st_size, sizeof(sem_t));
    CHECK_IS(st.st_nlink, 1);
    ipc_sem_close(sem);
}

static void an_existing_semaphore_is_opened_as_it_is(void)
{
    const char *name = new_name();
    struct ipc_sem *sem;
    struct stat st;
    ipc_sem_close(open_sem(name, 3));
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0666, 9), 0);
    CHECK_IS(value_of(sem), 3);
    CHECK_IS(ipc_stat(ipc_sem_fd(sem), &st), 0);
    CHECK_IS(st.st_mode & 07777, 0600);
    ipc_sem_close(sem);
    CHECK_IS(ipc_sem_open(ipc, &sem, name, 0, 0, 9), 0);
    CHECK_IS(value_of(sem), 3);
    ipc_sem_close(sem);
}

static void making_is_for_who_asks_and_exclusive_for_who_asks(void)
{
    const char *name = new_name();
    struct ipc_sem *sem;
    CHECK_IS(ipc_sem_open(ipc, &sem, name, 0, 0600, 0), -ENOENT);
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_EXCL, 0600, 0), -ENOENT);
    ipc_sem_close(open_sem(name, 0));
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT | O_EXCL, 0600, 0), -EEXIST);
}

static void the_value_is_at_most_sem_value_max(void)
{
    const char *name = new_name();
    struct ipc_sem *sem;
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0600, IPC_SEM_VALUE_MAX + 1), -EINVAL);
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0600, UINT_MAX), -EINVAL);
    CHECK_IS(ipc_sem_open(ipc, &sem, name, 0, 0600, UINT_MAX), -ENOENT);
    sem = open_sem(name, IPC_SEM_VALUE_MAX);
    CHECK_IS(value_of(sem), IPC_SEM_VALUE_MAX);
    ipc_sem_close(sem);
}

static void what_is_no_semaphore_is_einval(void)
{
    static const off_t sizes[] = {0, 1, sizeof(sem_t) - 1, sizeof(sem_t) + 1, 4096};
    const char *names[sizeof sizes / sizeof *sizes + 4], *object = new_name();
    size_t n = 0;
    for (; n < sizeof sizes / sizeof *sizes; n++) {
        names[n] = new_name();
        int fd = open(file_of(IPC_SEM, names[n]), O_CREAT | O_EXCL | O_RDWR, 0600);
        CHECK(fd >= 0 && ftruncate(fd, sizes[n]) == 0);
        close(fd);
    }
    make_native(IPC_SEM, object);
    CHECK(symlink(file_of(IPC_SEM, object), file_of(IPC_SEM, names[n++] = new_name())) == 0);
    CHECK(symlink("/nowhere", file_of(IPC_SEM, names[n++] = new_name())) == 0);
    CHECK(mkfifo(file_of(IPC_SEM, names[n++] = new_name()), 0600) == 0);
    CHECK(mkdir(file_of(IPC_SEM, names[n++] = new_name()), 0700) == 0);
    for (size_t i = 0; i < n; i++) {
        struct ipc_sem *sem;
        CHECK_IS(ipc_sem_open(ipc, &sem, names[i], 0, 0600, 0), -EINVAL);
        CHECK_IS(ipc_sem_open(ipc, &sem, names[i], O_CREAT, 0600, 0), -EINVAL);
        CHECK_IS(ipc_sem_open(ipc, &sem, names[i], O_CREAT | O_EXCL, 0600, 0), -EEXIST);
        remove(file_of(IPC_SEM, names[i]));
    }
}

static void open_as_nobody(void *name)
{
    struct ipc_sem *sem;
    become_nobody();
    CHECK_IS(ipc_sem_open(ipc, &sem, name, 0, 0, 0), -EACCES);
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0666, 0), -EACCES);
}

static void opening_takes_permission_to_read_and_to_write(void)
{
    static const mode_t modes[] = {0, 0444, 0222};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        const char *name = new_name();
        struct ipc_sem *sem = open_sem(name, 0);
        CHECK_IS(ipc_chmod(ipc_sem_fd(sem), modes[i]), 0);
        ipc_sem_close(sem);
        if (is_root())
            in_child(open_as_nobody, (void *)name);
        else
            CHECK_IS(ipc_sem_open(ipc, &sem, name, 0, 0, 0), -EACCES);
    }
}

static void native_semaphores_are_ours(void)
{
    const char *name = new_name();
    sem_t *theirs = sem_open(native(name), O_CREAT | O_EXCL, 0600, 2);
    CHECK(theirs != SEM_FAILED);
    struct ipc_sem *ours = open_sem(name, 99);
    CHECK_IS(value_of(ours), 2);
    CHECK(sem_post(theirs) == 0);
    CHECK_IS(value_of(ours), 3);
    CHECK_IS(ipc_sem_trywait(ours), 0);
    CHECK_IS(native_value_of(theirs), 2);
    CHECK(sem_unlink(native(name)) == 0);
    CHECK_IS(ipc_sem_post(ours, 5), 0); /* it lives while it is open */
    CHECK_IS(native_value_of(theirs), 7);
    sem_close(theirs);
    ipc_sem_close(ours);
}

static void our_semaphores_are_native(void)
{
    const char *name = new_name();
    struct ipc_sem *ours = open_sem(name, 2);
    CHECK(sem_open(native(name), O_CREAT | O_EXCL, 0600, 0) == SEM_FAILED && errno == EEXIST);
    sem_t *theirs = open_native(name);
    CHECK(sem_wait(theirs) == 0 && sem_trywait(theirs) == 0);
    CHECK(sem_trywait(theirs) == -1 && errno == EAGAIN);
    CHECK_IS(value_of(ours), 0);
    CHECK_IS(ipc_unlink(ipc, IPC_SEM, name), 0);
    CHECK(sem_open(native(name), 0) == SEM_FAILED && errno == ENOENT);
    sem_close(theirs);
    ipc_sem_close(ours);
}

/* ---- One struct for all opens ---- */

static void all_opens_share_one_struct(void)
{
    const char *name = new_name(), *alias = new_name(), *another = new_name();
    struct ipc_sem *first = open_sem(name, 0), *second = open_sem(name, 0), *other = open_sem(another, 0);
    CHECK(first == second);
    CHECK(first != other);
    CHECK(link(file_of(IPC_SEM, name), file_of(IPC_SEM, alias)) == 0);
    struct ipc_sem *third = open_sem(alias, 0);
    CHECK(first == third);
    unsigned descriptors = count_descriptors();
    ipc_sem_close(first);
    ipc_sem_close(third);
    CHECK_IS(count_descriptors(), descriptors);
    CHECK_IS(ipc_sem_post(second, 1), 0);
    ipc_sem_close(second);
    CHECK_IS(count_descriptors(), descriptors - 1);
    ipc_sem_close(other);
}

static void a_semaphore_made_anew_is_another(void)
{
    const char *name = new_name();
    struct ipc_sem *old = open_sem(name, 5);
    CHECK_IS(ipc_unlink(ipc, IPC_SEM, name), 0);
    struct ipc_sem *new = open_sem(name, 1);
    CHECK(old != new);
    CHECK_IS(value_of(old), 5);
    CHECK_IS(value_of(new), 1);
    ipc_sem_close(old);
    struct ipc_sem *again = open_sem(name, 9);
    CHECK(again == new);
    ipc_sem_close(again);
    ipc_sem_close(new);
}

static void hundreds_are_told_apart(void)
{
    enum { MANY = 400 };
    const char *names[MANY];
    struct ipc_sem *sems[MANY];
    for (int i = 0; i < MANY; i++)
        sems[i] = open_sem(names[i] = new_name(), i);
    for (int i = 0; i < MANY; i++) {
        struct ipc_sem *again = open_sem(names[i], 0);
        CHECK(again == sems[i]);
        CHECK_IS(value_of(again), i);
        ipc_sem_close(again);
    }
    for (int i = 0; i < MANY; i += 2)
        ipc_sem_close(sems[i]);
    for (int i = 1; i < MANY; i += 2) {
        CHECK_IS(value_of(sems[i]), i);
        ipc_sem_close(sems[i]);
    }
}

/* Opens, makes, posts, closes and removes one name all the time. */
static int use_a_name(void *name)
{
    for (int i = 0; i < 300; i++) {
        struct ipc_sem *sem, *again;
        int error = ipc_sem_open(ipc, &sem, name, O_CREAT, 0600, 0);
        if (error)
            return error;
        error = ipc_sem_post(sem, 1);
        if (i % 8 == 0)
            ipc_unlink(ipc, IPC_SEM, name);
        if (!error && ipc_sem_open(ipc, &again, name, 0, 0, 0) == 0)
            ipc_sem_close(again);
        ipc_sem_close(sem);
        if (error)
            return error;
    }
    return 0;
}

static void opening_and_closing_race(void)
{
    struct peer peers[4];
    const char *name = new_name();
    for (int i = 0; i < 4; i++)
        peer_start(&peers[i], use_a_name, (void *)name);
    for (int i = 0; i < 4; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
}

static int open_exclusively(void *name)
{
    struct ipc_sem *sem;
    int error = ipc_sem_open(ipc, &sem, name, O_CREAT | O_EXCL, 0600, 1);
    if (!error)
        ipc_sem_close(sem);
    return error;
}

static void one_of_many_makes_it(void)
{
    for (int round = 0; round < 20; round++) {
        struct peer peers[4];
        const char *name = new_name();
        int made = 0;
        for (int i = 0; i < 4; i++)
            peer_start(&peers[i], open_exclusively, (void *)name);
        for (int i = 0; i < 4; i++) {
            int result = peer_result(&peers[i]);
            CHECK(result == 0 || result == -EEXIST);
            made += !result;
        }
        CHECK_IS(made, 1);
    }
}

/* ---- Posting ---- */

static void posting_is_all_or_nothing(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    sem_t *theirs = open_native(name);
    CHECK_IS(ipc_sem_post(sem, 3), 0);
    CHECK_IS(value_of(sem), 3);
    CHECK_IS(ipc_sem_post(sem, IPC_SEM_VALUE_MAX), -EOVERFLOW);
    CHECK_IS(ipc_sem_post(sem, IPC_SEM_VALUE_MAX - 2), -EOVERFLOW);
    CHECK_IS(ipc_sem_post(sem, UINT_MAX), -EOVERFLOW);
    CHECK_IS(ipc_sem_post(sem, UINT_MAX - 2), -EOVERFLOW);
    CHECK_IS(value_of(sem), 3);
    CHECK_IS(ipc_sem_post(sem, IPC_SEM_VALUE_MAX - 3), 0);
    CHECK_IS(value_of(sem), IPC_SEM_VALUE_MAX);
    CHECK_IS(ipc_sem_post(sem, 1), -EOVERFLOW);
    CHECK(sem_post(theirs) == -1 && errno == EOVERFLOW);
    CHECK_IS(ipc_sem_post(sem, 0), 0);
    CHECK_IS(value_of(sem), IPC_SEM_VALUE_MAX);
    CHECK_IS(waiters_of(name), 0);
    sem_close(theirs);
    ipc_sem_close(sem);
}

static void posting_n_wakes_n(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    sem_t *theirs = open_native(name);
    struct peer peers[4];
    start_waiter(&peers[0], wait_call, sem, name, 1);
    start_waiter(&peers[1], wait_natively, theirs, name, 2);
    start_waiter(&peers[2], wait_a_minute, sem, name, 3);
    start_waiter(&peers[3], wait_natively, theirs, name, 4);
    CHECK_IS(ipc_sem_post(sem, 4), 0);
    for (int i = 0; i < 4; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
    CHECK_IS(value_of(sem), 0);
    CHECK_IS(waiters_of(name), 0);
    sem_close(theirs);
    ipc_sem_close(sem);
}

static void a_native_post_wakes_us(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    sem_t *theirs = open_native(name);
    struct peer peer;
    start_waiter(&peer, wait_call, sem, name, 1);
    CHECK(sem_post(theirs) == 0);
    CHECK_IS(peer_result(&peer), 0);
    CHECK_IS(native_value_of(theirs), 0);
    sem_close(theirs);
    ipc_sem_close(sem);
}

static void we_and_another_process_wake_each_other(void)
{
    const char *ping = new_name(), *pong = new_name();
    struct ipc_sem *out = open_sem(ping, 0), *in = open_sem(pong, 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        sem_t *from = open_native(ping), *to = open_native(pong);
        for (int i = 0; i < 500; i++)
            CHECK(sem_wait(from) == 0 && sem_post(to) == 0);
        _exit(0);
    }
    for (int i = 0; i < 500; i++) {
        CHECK_IS(ipc_sem_post(out, 1), 0);
        CHECK_IS(ipc_sem_wait(in, NULL), 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_IS(status, 0);
    CHECK_IS(value_of(in), 0);
    CHECK_IS(value_of(out), 0);
    ipc_sem_close(out);
    ipc_sem_close(in);
}

enum { UNITS = 4000 }; /* by each of the four below */

static int post_units(void *sem)
{
    int error = 0;
    for (int i = 0; i < UNITS && !error; i += 4)
        error = ipc_sem_post(sem, 4);
    return error;
}

static int post_units_natively(void *sem)
{
    int error = 0;
    for (int i = 0; i < UNITS && !error; i++)
        error = sem_post(sem) ? -errno : 0;
    return error;
}

static int take_units(void *sem)
{
    int error = 0;
    for (int i = 0; i < UNITS && !error; i++)
        error = i % 2 ? ipc_sem_wait(sem, NULL) : wait_a_minute(sem);
    return error;
}

static int take_units_natively(void *sem)
{
    int error = 0;
    for (int i = 0; i < UNITS && !error; i++)
        error = wait_natively(sem);
    return error;
}

static void no_unit_is_lost_nor_made(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 5);
    sem_t *theirs = open_native(name);
    struct peer peers[4];
    peer_start(&peers[0], take_units, sem);
    peer_start(&peers[1], take_units_natively, theirs);
    peer_start(&peers[2], post_units, sem);
    peer_start(&peers[3], post_units_natively, theirs);
    for (int i = 0; i < 4; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
    CHECK_IS(value_of(sem), 5);
    CHECK_IS(waiters_of(name), 0);
    sem_close(theirs);
    ipc_sem_close(sem);
}

/* ---- Waiting ---- */

static void trywait_takes_what_there_is(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 2);
    CHECK_IS(ipc_sem_trywait(sem), 0);
    CHECK_IS(ipc_sem_trywait(sem), 0);
    CHECK_IS(ipc_sem_trywait(sem), -EAGAIN);
    CHECK_IS(value_of(sem), 0);
    CHECK_IS(waiters_of(name), 0);
    ipc_sem_close(sem);
}

static void a_passed_deadline_does_not_stop_what_can_be_done(void)
{
    struct ipc_sem *sem = open_sem(new_name(), 2);
    struct timespec passed = milliseconds_from_now(-1000), long_ago = {0, 0};
    CHECK_IS(ipc_sem_wait(sem, &passed), 0);
    CHECK_IS(ipc_sem_wait(sem, &long_ago), 0);
    CHECK_IS(ipc_sem_wait(sem, &passed), -ETIMEDOUT);
    CHECK_IS(ipc_sem_wait(sem, &long_ago), -ETIMEDOUT);
    ipc_sem_close(sem);
}

static void a_deadline_before_the_clock_began_has_passed(void)
{
    struct ipc_sem *sem = open_sem(new_name(), 0);
    struct timespec before = {.tv_sec = -1};
    CHECK_IS(ipc_sem_wait(sem, &before), -ETIMEDOUT);
    ipc_sem_close(sem);
}

static void a_deadline_is_never_early_and_takes_nothing(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    for (int i = 0; i < 10; i++) {
        struct timespec deadline = milliseconds_from_now(3);
        CHECK_IS(ipc_sem_wait(sem, &deadline), -ETIMEDOUT);
        CHECK(has_passed(&deadline));
        CHECK_IS(value_of(sem), 0);
        CHECK_IS(waiters_of(name), 0);
    }
    CHECK_IS(ipc_sem_post(sem, 1), 0);
    CHECK_IS(value_of(sem), 1);
    ipc_sem_close(sem);
}

static int wait_till_the_end_of_time(void *sem)
{
    static const struct timespec end = {.tv_sec = LONG_MAX};
    return ipc_sem_wait(sem, &end);
}

static void the_furthest_deadline_is_for_ever(void)
{
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    struct peer peer;
    start_waiter(&peer, wait_till_the_end_of_time, sem, name, 1);
    CHECK_IS(ipc_sem_post(sem, 1), 0);
    CHECK_IS(peer_result(&peer), 0);
    ipc_sem_close(sem);
}

static void a_signal_ends_the_wait_and_takes_nothing(void)
{
    static int (*const waiting[])(void *) = {wait_call, wait_a_minute};
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    for (int i = 0; i < 2; i++) {
        struct peer peer;
        start_waiter(&peer, waiting[i], sem, name, 1);
        peer_interrupt(&peer);
        CHECK_IS(peer_result(&peer), -EINTR);
        CHECK_IS(value_of(sem), 0);
        CHECK_IS(waiters_of(name), 0);
    }
    ipc_sem_close(sem);
}

struct shared {
    struct ipc_sem *sem;
    _Atomic bool end;
};

/* Waits whose deadlines pass as posts come: how many succeeded. */
static int wait_briefly(void *arg)
{
    struct shared *shared = arg;
    int taken = 0;
    while (!shared->end) {
        struct timespec deadline = milliseconds_from_now(0);
        deadline.tv_nsec = deadline.tv_nsec > 999900000 ? 999999999 : deadline.tv_nsec + 20000;
        int result = ipc_sem_wait(shared->sem, &deadline);
        if (result && result != -ETIMEDOUT)
            return result;
        taken += !result;
    }
    return taken;
}

static void deadlines_and_posts_race(void)
{
    enum { POSTS = 3000 };
    const char *name = new_name();
    struct shared shared = {.sem = open_sem(name, 0)};
    struct peer peers[2];
    for (int i = 0; i < 2; i++)
        peer_start(&peers[i], wait_briefly, &shared);
    for (int i = 0; i < POSTS; i++)
        CHECK_IS(ipc_sem_post(shared.sem, 1), 0);
    AWAIT(!value_of(shared.sem));
    shared.end = true;
    int taken = peer_result(&peers[0]) + peer_result(&peers[1]);
    CHECK_IS(taken, POSTS);
    CHECK_IS(waiters_of(name), 0);
    ipc_sem_close(shared.sem);
}

/* ---- A file that is cut short ---- */

static void a_file_cut_short_is_eio_in_every_call(void)
{
    const char *name = new_name(), *whole = new_name();
    struct ipc_sem *sem = open_sem(name, 5), *other = open_sem(whole, 1), *again;
    struct timespec deadline = milliseconds_from_now(60000);
    unsigned value;
    CHECK(truncate(file_of(IPC_SEM, name), 0) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK_IS(ipc_sem_value(sem, &value), -EIO);
        CHECK_IS(ipc_sem_trywait(sem), -EIO);
        CHECK_IS(ipc_sem_wait(sem, NULL), -EIO);
        CHECK_IS(ipc_sem_wait(sem, &deadline), -EIO);
        CHECK_IS(ipc_sem_post(sem, 1), -EIO);
        CHECK_IS(value_of(other), 1);
    }
    CHECK_IS(ipc_sem_open(ipc, &again, name, 0, 0, 0), -EINVAL);

    /* Made whole again, it is a semaphore again. */
    CHECK(truncate(file_of(IPC_SEM, name), sizeof(sem_t)) == 0);
    CHECK_IS(value_of(sem), 0);
    CHECK_IS(ipc_sem_post(sem, 1), 0);
    CHECK_IS(ipc_sem_trywait(sem), 0);
    ipc_sem_close(sem);
    ipc_sem_close(other);
}

static int cut_and_mend(void *arg)
{
    const char *file = arg;
    for (int i = 0; i < 2000; i++)
        if (truncate(file, 0) || truncate(file, sizeof(sem_t)))
            return -errno;
    return 0;
}

/* Each call succeeds or fails with a known error, and the file's other users do not end us. */
static int use_what_is_cut(void *arg)
{
    struct shared *shared = arg;
    struct timespec passed = {0, 0};
    unsigned value;
    while (!shared->end) {
        const int allowed[] = {0, 0, -EAGAIN, -ETIMEDOUT};
        int results[] = {ipc_sem_post(shared->sem, 1), ipc_sem_value(shared->sem, &value), ipc_sem_trywait(shared->sem),
                         ipc_sem_wait(shared->sem, &passed)};
        for (int i = 0; i < 4; i++)
            if (results[i] && results[i] != -EIO && results[i] != allowed[i])
                return results[i];
    }
    return 0;
}

static void a_file_is_cut_short_at_any_time(void)
{
    const char *name = new_name();
    struct shared shared = {.sem = open_sem(name, 0)};
    struct peer cutter, users[2];
    for (int i = 0; i < 2; i++)
        peer_start(&users[i], use_what_is_cut, &shared);
    peer_start(&cutter, cut_and_mend, (void *)file_of(IPC_SEM, name));
    CHECK_IS(peer_result(&cutter), 0);
    shared.end = true;
    for (int i = 0; i < 2; i++)
        CHECK_IS(peer_result(&users[i]), 0);
    ipc_sem_close(shared.sem);
}

/* The guard is for semaphores only: the program's own errors stay what they are. */
static void a_sigbus_of_the_programs_own_ends_it(void)
{
    const char *name = new_name();
    struct rlimit no_core = {0, 0};
    int status;
    struct ipc_sem *sem = open_sem(new_name(), 0);
    ipc_sem_close(sem);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        setrlimit(RLIMIT_CORE, &no_core);
        int fd = ipc_shm_open(ipc, name, O_CREAT | O_RDWR, 0600);
        volatile char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        memory[0] = 1;
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(a_made_semaphore_has_its_mode_and_value),
                                        TEST(an_existing_semaphore_is_opened_as_it_is),
                                        TEST(making_is_for_who_asks_and_exclusive_for_who_asks),
                                        TEST(the_value_is_at_most_sem_value_max),
                                        TEST(what_is_no_semaphore_is_einval),
                                        TEST(opening_takes_permission_to_read_and_to_write),
                                        TEST(native_semaphores_are_ours),
                                        TEST(our_semaphores_are_native),
                                        TEST(all_opens_share_one_struct),
                                        TEST(a_semaphore_made_anew_is_another),
                                        TEST(hundreds_are_told_apart),
                                        TEST(opening_and_closing_race),
                                        TEST(one_of_many_makes_it),
                                        TEST(posting_is_all_or_nothing),
                                        TEST(posting_n_wakes_n),
                                        TEST(a_native_post_wakes_us),
                                        TEST(we_and_another_process_wake_each_other),
                                        TEST(no_unit_is_lost_nor_made),
                                        TEST(trywait_takes_what_there_is),
                                        TEST(a_passed_deadline_does_not_stop_what_can_be_done),
                                        TEST(a_deadline_before_the_clock_began_has_passed),
                                        TEST(a_deadline_is_never_early_and_takes_nothing),
                                        TEST(the_furthest_deadline_is_for_ever),
                                        TEST(a_signal_ends_the_wait_and_takes_nothing),
                                        TEST(deadlines_and_posts_race),
                                        BROKEN_UNDER_CLANG_TSAN(a_file_cut_short_is_eio_in_every_call),
                                        BROKEN_UNDER_CLANG_TSAN(a_file_is_cut_short_at_any_time),
                                        TEST(a_sigbus_of_the_programs_own_ends_it),
                                        {0}};
    (void)argc;
    return run_tests(tests, argv);
}

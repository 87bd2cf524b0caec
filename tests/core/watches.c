/* Watches on semaphores, beside native users of the same. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PER_THREAD 127 /* watches, as ipc.h says */

/* What a watch does when it finds a value. */
enum manner {
    TAKE,  /* all that there is */
    LEAVE, /* nothing, and end */
    STAY,  /* take nothing and go on: it is called all the time, then */
};

/* A watch and what it has been told. */
struct watched {
    struct ipc_sem *sem;
    struct ipc_watch *watch;
    enum manner manner;
    _Atomic bool ends;    /* with the next call */
    _Atomic pid_t thread; /* that called last */
    _Atomic unsigned calls, taken;
    _Atomic int64_t value; /* that the last call found, or the error that it met */
    pthread_mutex_t lock;  /* for `ended`; ipc_watch_again needs a watch that has not */
    bool ended;
};

static bool posted(void *arg)
{
    struct watched *watched = arg;
    unsigned value = 0;
    int error = ipc_sem_value(watched->sem, &value);
    while (watched->manner == TAKE && ipc_sem_trywait(watched->sem) == 0)
        watched->taken++;
    watched->thread = gettid();
    watched->value = error ? error : (int64_t)value;
    watched->calls++;
    pthread_mutex_lock(&watched->lock);
    bool ended = watched->ended = error || watched->ends || (watched->manner == LEAVE && value);
    pthread_mutex_unlock(&watched->lock);
    return !ended;
}

static void init(struct watched *watched, struct ipc_sem *sem, enum manner manner)
{
    memset(watched, 0, sizeof *watched);
    watched->sem = sem;
    watched->manner = manner;
    watched->value = -1;
    pthread_mutex_init(&watched->lock, NULL);
}

static void start(struct watched *watched)
{
    CHECK_IS(ipc_sem_watch(watched->sem, posted, watched, &watched->watch), 0);
}

static bool has_ended(struct watched *watched)
{
    pthread_mutex_lock(&watched->lock);
    bool ended = watched->ended;
    pthread_mutex_unlock(&watched->lock);
    return ended;
}

static void end(struct watched *watched)
{
    watched->ends = true;
    pthread_mutex_lock(&watched->lock);
    if (!watched->ended)
        ipc_watch_again(watched->watch);
    pthread_mutex_unlock(&watched->lock);
    AWAIT(has_ended(watched));
}

/* Makes the watch, of a semaphore that is at 0, and has it sleep. */
static void start_asleep(struct watched *watched)
{
    start(watched);
    AWAIT(watched->calls);
    AWAIT(is_asleep(watched->thread));
}

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

static int native_value_of(sem_t *sem)
{
    int value;
    CHECK(sem_getvalue(sem, &value) == 0);
    return value;
}

static int wait_natively(void *sem)
{
    return sem_wait(sem) ? -errno : 0;
}

/* Starts a native peer that sleeps in sem_wait, as the n-th that waits. */
static void start_waiter(struct peer *peer, sem_t *sem, const char *name, unsigned n)
{
    peer_start(peer, wait_natively, sem);
    AWAIT(waiters_of(name) == n);
    AWAIT(is_asleep(peer->id));
}

/* ---- What is told ---- */

static void the_first_call_comes_by_itself(void)
{
    static const unsigned values[] = {0, 3, IPC_SEM_VALUE_MAX};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct watched watched;
        init(&watched, open_sem(new_name(), values[i]), LEAVE);
        start(&watched);
        AWAIT(watched.calls);
        CHECK_IS(watched.value, values[i]);
        end(&watched);
        ipc_sem_close(watched.sem);
    }
}

static void every_post_is_told(void)
{
    const char *name = new_name();
    struct watched watched;
    init(&watched, open_sem(name, 0), TAKE);
    start(&watched);
    sem_t *theirs = open_native(name);
    for (unsigned i = 1; i <= 500; i++) {
        CHECK((i % 2 ? sem_post(theirs) : ipc_sem_post(watched.sem, 1)) == 0);
        AWAIT(watched.taken == i);
    }
    CHECK_IS(native_value_of(theirs), 0);
    end(&watched);
    sem_close(theirs);
    ipc_sem_close(watched.sem);
}

static void a_unit_that_was_taken_and_posted_again_is_told(void)
{
    for (int i = 0; i < 100; i++) {
        const char *name = new_name();
        struct watched watched;
        init(&watched, open_sem(name, 0), LEAVE);
        sem_t *theirs = open_native(name);
        start_asleep(&watched);
        CHECK(sem_post(theirs) == 0 && sem_trywait(theirs) == 0 && sem_post(theirs) == 0);
        AWAIT(has_ended(&watched));
        CHECK_IS(watched.value, 1);
        sem_close(theirs);
        ipc_sem_close(watched.sem);
    }
}

static void nothing_is_told_of_0(void)
{
    struct watched watched;
    init(&watched, open_sem(new_name(), 0), TAKE);
    start_asleep(&watched);
    for (int i = 0; i < 1000; i++)
        sched_yield();
    CHECK_IS(watched.calls, 1);
    end(&watched);
    ipc_sem_close(watched.sem);
}

static int post_many(void *sem)
{
    for (int i = 0; i < 5000; i++)
        if (sem_post(sem))
            return -errno;
    return 0;
}

static void a_watch_that_takes_gets_every_unit(void)
{
    const char *name = new_name();
    struct watched watched;
    struct peer peers[2];
    init(&watched, open_sem(name, 3), TAKE);
    start(&watched);
    sem_t *theirs = open_native(name);
    for (int i = 0; i < 2; i++)
        peer_start(&peers[i], post_many, theirs);
    for (int i = 0; i < 2; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
    AWAIT(watched.taken == 10003);
    CHECK_IS(native_value_of(theirs), 0);
    end(&watched);
    sem_close(theirs);
    ipc_sem_close(watched.sem);
}

static void a_watch_can_be_told_again(void)
{
    const char *name = new_name();
    struct watched watched;
    init(&watched, open_sem(name, 0), TAKE);
    start(&watched);
    for (int i = 0; i < 100; i++) {
        unsigned calls = watched.calls;
        ipc_watch_again(watched.watch);
        AWAIT(watched.calls > calls);
        CHECK_IS(watched.value, 0);
    }
    end(&watched);
    ipc_sem_close(watched.sem);
}

/* Asks for itself to be called again, twice, and then ends. */
static bool call_again(void *arg)
{
    struct watched *watched = arg;
    unsigned calls = ++watched->calls;
    pthread_mutex_lock(&watched->lock); /* ipc_sem_watch has set `watch` */
    struct ipc_watch *watch = watched->watch;
    pthread_mutex_unlock(&watched->lock);
    if (calls < 3)
        ipc_watch_again(watch);
    return calls < 3;
}

static void a_watch_may_ask_for_another_call_in_its_call(void)
{
    const char *name = new_name();
    struct watched watched;
    init(&watched, open_sem(name, 0), TAKE);
    pthread_mutex_lock(&watched.lock);
    CHECK_IS(ipc_sem_watch(watched.sem, call_again, &watched, &watched.watch), 0);
    pthread_mutex_unlock(&watched.lock);
    AWAIT(watched.calls == 3);
    AWAIT(waiters_of(name) == 0);
    CHECK_IS(watched.calls, 3);
    ipc_sem_close(watched.sem);
}

/* ---- What is left alone ---- */

struct churn {
    struct ipc_sem *sem;
    _Atomic bool end;
};

/* Makes and ends watches all the time. */
static int churn(void *arg)
{
    struct churn *churn = arg;
    while (!churn->end) {
        struct watched watched;
        init(&watched, churn->sem, STAY);
        start(&watched);
        end(&watched);
    }
    return 0;
}

static void watching_leaves_values_alone(void)
{
    enum { MANY = 300, ROUNDS = 60 };
    struct watched *watched = calloc(MANY, sizeof *watched);
    sem_t *theirs[MANY];
    const char *names[MANY];
    struct churn churning[2];
    struct peer peers[2];
    for (int i = 0; i < MANY; i++) {
        init(&watched[i], open_sem(names[i] = new_name(), 0), STAY);
        start(&watched[i]);
        theirs[i] = open_native(names[i]);
    }
    for (int i = 0; i < 2; i++) {
        churning[i] = (struct churn){.sem = watched[i].sem};
        peer_start(&peers[i], churn, &churning[i]);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < MANY; i++) {
            CHECK(sem_post(theirs[i]) == 0);
            CHECK(sem_trywait(theirs[i]) == 0);
            CHECK_IS(native_value_of(theirs[i]), 0);
        }
    for (int i = 0; i < 2; i++) {
        churning[i].end = true;
        CHECK_IS(peer_result(&peers[i]), 0);
    }
    for (int i = 0; i < MANY; i++)
        end(&watched[i]);
    for (int i = 0; i < MANY; i++) {
        AWAIT(waiters_of(names[i]) == 0);
        CHECK_IS(native_value_of(theirs[i]), 0);
        sem_close(theirs[i]);
        ipc_sem_close(watched[i].sem);
    }
    free(watched);
}

/* This thread alone takes and posts, beside watches that look all the time. */
static void looking_leaves_the_value_alone(void)
{
    const char *name = new_name();
    struct watched watched[2];
    struct ipc_sem *sem = open_sem(name, 1);
    sem_t *theirs = open_native(name);
    for (int i = 0; i < 2; i++) {
        init(&watched[i], sem, STAY);
        start(&watched[i]);
    }
    while (watched[0].calls < 40000 || watched[1].calls < 40000) {
        CHECK(sem_trywait(theirs) == 0);
        CHECK(sem_post(theirs) == 0);
    }
    for (int i = 0; i < 2; i++)
        end(&watched[i]);
    CHECK_IS(native_value_of(theirs), 1);
    sem_close(theirs);
    ipc_sem_close(sem);
}

static void a_watch_is_one_waiter(void)
{
    const char *name = new_name();
    struct watched watched[3];
    struct ipc_sem *sem = open_sem(name, 0);
    for (int i = 0; i < 3; i++) {
        init(&watched[i], sem, TAKE);
        start(&watched[i]);
    }
    for (int i = 0; i < 3; i++)
        AWAIT(watched[i].calls);
    CHECK_IS(waiters_of(name), 3);
    for (int i = 3; i; i--) {
        end(&watched[i - 1]);
        AWAIT(waiters_of(name) == (unsigned)i - 1);
    }
    ipc_sem_close(sem);
}

static void a_watch_keeps_its_semaphore_open(void)
{
    const char *name = new_name();
    struct watched watched;
    init(&watched, open_sem(name, 0), TAKE);
    start(&watched);
    sem_t *theirs = open_native(name);
    ipc_sem_close(watched.sem);
    CHECK(sem_post(theirs) == 0);
    AWAIT(watched.taken == 1);
    CHECK(sem_unlink(native(name)) == 0);
    CHECK(sem_post(theirs) == 0);
    AWAIT(watched.taken == 2);
    unsigned descriptors = count_descriptors();
    end(&watched);
    AWAIT(count_descriptors() == descriptors - 1);
    sem_close(theirs);
}

/* ---- Ends ---- */

struct vanishing {
    struct ipc_sem *sem;
    _Atomic unsigned *calls;
};

/* Its argument is gone when it returns: a later use would be SIGSEGV. */
static bool vanish(void *arg)
{
    struct vanishing *vanishing = arg;
    unsigned value;
    CHECK_IS(ipc_sem_value(vanishing->sem, &value), 0);
    if (!value)
        return true;
    _Atomic unsigned *calls = vanishing->calls;
    munmap(vanishing, sizeof *vanishing);
    ++*calls;
    return false;
}

static void an_ended_watch_does_not_touch_its_argument(void)
{
    _Atomic unsigned calls = 0;
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    struct watched neighbour;
    init(&neighbour, open_sem(new_name(), 0), TAKE);
    start(&neighbour);
    for (unsigned i = 0; i < 50; i++) {
        struct ipc_watch *watch;
        struct vanishing *vanishing =
            mmap(NULL, sizeof *vanishing, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(vanishing != MAP_FAILED);
        *vanishing = (struct vanishing){sem, &calls};
        CHECK_IS(ipc_sem_watch(sem, vanish, vanishing, &watch), 0);
        CHECK_IS(ipc_sem_post(sem, 1), 0);
        AWAIT(calls == i + 1);
        CHECK_IS(ipc_sem_post(sem, 1), 0);
        unsigned told = neighbour.calls;
        ipc_watch_again(neighbour.watch); /* the thread goes on, with other watches */
        AWAIT(neighbour.calls > told);
        CHECK_IS(calls, i + 1);
        CHECK_IS(ipc_sem_trywait(sem), 0);
        CHECK_IS(ipc_sem_trywait(sem), 0);
    }
    AWAIT(waiters_of(name) == 0);
    end(&neighbour);
    ipc_sem_close(sem);
    ipc_sem_close(neighbour.sem);
}

static bool end_at_once(void *arg)
{
    _Atomic unsigned *calls = arg;
    ++*calls;
    return false;
}

struct short_lived {
    struct ipc_sem *sem;
    _Atomic unsigned calls;
};

/* Watches that end with their first call, some hundred at a time. */
static int watch_shortly(void *arg)
{
    struct short_lived *short_lived = arg;
    for (unsigned i = 0; i < 3000; i++) {
        struct ipc_watch *watch;
        int error = ipc_sem_watch(short_lived->sem, end_at_once, &short_lived->calls, &watch);
        if (error)
            return error;
        AWAIT(short_lived->calls + 200 > i);
    }
    AWAIT(short_lived->calls == 3000);
    return 0;
}

static void watches_come_and_go_from_many_threads(void)
{
    const char *name = new_name();
    struct short_lived short_lived[3] = {0};
    struct peer peers[3];
    struct ipc_sem *sem = open_sem(name, 0);
    for (int i = 0; i < 3; i++) {
        short_lived[i].sem = sem;
        peer_start(&peers[i], watch_shortly, &short_lived[i]);
    }
    for (int i = 0; i < 300; i++) {
        CHECK_IS(ipc_sem_post(sem, 1), 0);
        CHECK_IS(ipc_sem_trywait(sem), 0);
    }
    for (int i = 0; i < 3; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
    AWAIT(waiters_of(name) == 0);
    ipc_sem_close(sem);
}

/* Watches another semaphore, and ends. */
static bool watch_the_other(void *arg)
{
    start(arg);
    return false;
}

static void a_watch_may_be_made_in_a_call(void)
{
    struct watched watched;
    struct ipc_watch *watch;
    struct ipc_sem *sem = open_sem(new_name(), 0);
    init(&watched, open_sem(new_name(), 0), TAKE);
    CHECK_IS(ipc_sem_watch(sem, watch_the_other, &watched, &watch), 0);
    AWAIT(watched.calls);
    CHECK_IS(ipc_sem_post(watched.sem, 1), 0);
    AWAIT(watched.taken == 1);
    end(&watched);
    ipc_sem_close(watched.sem);
    ipc_sem_close(sem);
}

static void freeing_the_context_ends_all_watches(void)
{
    const char *name = new_name();
    struct ipc *other;
    struct ipc_sem *sem;
    struct watched watched[PER_THREAD + 10];
    const unsigned many = sizeof watched / sizeof *watched;
    make_native(IPC_SEM, name);
    unsigned threads = count_threads(), descriptors = count_descriptors();
    CHECK_IS(ipc_new(&other), 0);
    CHECK_IS(ipc_sem_open(other, &sem, name, 0, 0, 0), 0);
    for (unsigned i = 0; i < many; i++) {
        init(&watched[i], sem, TAKE);
        start(&watched[i]);
    }
    AWAIT(waiters_of(name) == many);
    CHECK(count_threads() == threads + 2);
    ipc_sem_close(sem);
    ipc_free(other);
    CHECK_IS(waiters_of(name), 0);
    CHECK_IS(count_descriptors(), descriptors);
    AWAIT(count_threads() <= threads);
}

/* ---- Wake-ups that were somebody else's ---- */

static void check_passing_on(enum manner manner)
{
    for (int i = 0; i < 50; i++) {
        const char *name = new_name();
        struct watched watched;
        struct peer peer;
        init(&watched, open_sem(name, 0), manner);
        sem_t *theirs = open_native(name);
        start_asleep(&watched);
        start_waiter(&peer, theirs, name, 2); /* behind the watch: the post wakes that */
        CHECK(sem_post(theirs) == 0);
        CHECK_IS(peer_result(&peer), 0);
        CHECK_IS(native_value_of(theirs), 0);
        end(&watched);
        AWAIT(waiters_of(name) == 0);
        sem_close(theirs);
        ipc_sem_close(watched.sem);
    }
}

static void a_wake_up_is_passed_on_by_a_watch_that_ends(void)
{
    check_passing_on(LEAVE);
}

static void a_wake_up_is_passed_on_by_a_watch_that_stays(void)
{
    check_passing_on(STAY);
}

/* As two mounts have them, and with native waiters behind. */
static void a_wake_up_is_passed_on_through_another_context(void)
{
    const char *name = new_name();
    struct ipc *other;
    struct ipc_sem *sem;
    struct watched watched[2];
    struct peer peer;
    CHECK_IS(ipc_new(&other), 0);
    CHECK_IS(ipc_sem_open(other, &sem, name, O_CREAT, 0600, 0), 0);
    init(&watched[0], open_sem(name, 0), LEAVE);
    init(&watched[1], sem, LEAVE);
    sem_t *theirs = open_native(name);
    start_asleep(&watched[0]);
    start_asleep(&watched[1]);
    start_waiter(&peer, theirs, name, 3);
    CHECK(sem_post(theirs) == 0);
    CHECK_IS(peer_result(&peer), 0);
    for (int i = 0; i < 2; i++) {
        end(&watched[i]);
        ipc_sem_close(watched[i].sem);
    }
    AWAIT(waiters_of(name) == 0);
    sem_close(theirs);
    ipc_free(other);
}

static void wake_ups_are_passed_on_by_many_watches(void)
{
    enum { WATCHES = 6, WAITERS = 4 };
    const char *name = new_name();
    struct watched watched[WATCHES];
    struct peer peers[WAITERS];
    struct ipc_sem *sem = open_sem(name, 0);
    sem_t *theirs = open_native(name);
    for (int i = 0; i < WATCHES; i++) {
        init(&watched[i], sem, i % 2 ? LEAVE : STAY);
        start_asleep(&watched[i]);
    }
    for (int i = 0; i < WAITERS; i++)
        start_waiter(&peers[i], theirs, name, WATCHES + i + 1);
    CHECK_IS(ipc_sem_post(sem, WAITERS), 0);
    for (int i = 0; i < WAITERS; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
    CHECK_IS(native_value_of(theirs), 0);
    for (int i = 0; i < WATCHES; i++)
        end(&watched[i]);
    sem_close(theirs);
    ipc_sem_close(sem);
}

/* Between the post that woke the watch and its look, the value was 0 once more. */
static void a_wake_up_is_passed_on_at_a_unit_posted_again(void)
{
    for (int i = 0; i < 50; i++) {
        const char *name = new_name();
        struct watched watched;
        struct peer peer;
        init(&watched, open_sem(name, 0), LEAVE);
        sem_t *theirs = open_native(name);
        start_asleep(&watched);
        CHECK(sem_post(theirs) == 0 && sem_trywait(theirs) == 0);
        peer_start(&peer, wait_natively, theirs);
        CHECK(sem_post(theirs) == 0);
        CHECK_IS(peer_result(&peer), 0);
        end(&watched);
        AWAIT(waiters_of(name) == 0);
        CHECK_IS(native_value_of(theirs), 0);
        sem_close(theirs);
        ipc_sem_close(watched.sem);
    }
}

static int take_a_thousand(void *sem)
{
    int error = 0;
    for (int i = 0; i < 1000 && !error; i++)
        error = wait_natively(sem);
    return error;
}

/* A native consumer works on beside a watch that takes nothing. */
static void a_watch_does_not_hold_up_a_consumer(void)
{
    const char *name = new_name();
    struct watched watched;
    struct peer peer;
    init(&watched, open_sem(name, 0), STAY);
    sem_t *theirs = open_native(name);
    start(&watched);
    peer_start(&peer, take_a_thousand, theirs);
    for (int i = 0; i < 1000; i++) {
        CHECK(sem_post(theirs) == 0);
        AWAIT(native_value_of(theirs) == 0);
    }
    CHECK_IS(peer_result(&peer), 0);
    end(&watched);
    sem_close(theirs);
    ipc_sem_close(watched.sem);
}

/* The same, beside watches that end and are made again, as those of pollers are. */
static void watches_made_again_do_not_hold_up_a_consumer(void)
{
    const char *name = new_name();
    struct watched watched;
    struct peer peer;
    init(&watched, open_sem(name, 0), LEAVE);
    sem_t *theirs = open_native(name);
    start(&watched);
    peer_start(&peer, take_a_thousand, theirs);
    for (int i = 0; i < 1000; i++) {
        CHECK(sem_post(theirs) == 0);
        while (native_value_of(theirs) || has_ended(&watched)) {
            if (has_ended(&watched)) {
                init(&watched, watched.sem, LEAVE);
                start(&watched);
            }
            sched_yield();
        }
    }
    CHECK_IS(peer_result(&peer), 0);
    end(&watched);
    sem_close(theirs);
    ipc_sem_close(watched.sem);
}

static int take_2500(void *sem)
{
    int error = 0;
    for (int i = 0; i < 2500 && !error; i++)
        error = wait_natively(sem);
    return error;
}

static void watches_and_native_waiters_share_what_is_posted(void)
{
    const char *name = new_name();
    struct watched watched;
    struct peer posting[2], taking[2];
    init(&watched, open_sem(name, 0), TAKE);
    sem_t *theirs = open_native(name);
    start(&watched);
    for (int i = 0; i < 2; i++)
        peer_start(&taking[i], take_2500, theirs);
    for (int i = 0; i < 2; i++)
        peer_start(&posting[i], post_many, theirs);
    for (int i = 0; i < 2; i++)
        CHECK_IS(peer_result(&posting[i]), 0);
    /* The watch may have taken more than its half; the waiters get the rest of theirs. */
    while (!taking[0].returned || !taking[1].returned) {
        if (native_value_of(theirs) == 0 && watched.taken > 5000) {
            watched.taken--;
            CHECK(sem_post(theirs) == 0);
        }
        sched_yield();
    }
    for (int i = 0; i < 2; i++)
        CHECK_IS(peer_result(&taking[i]), 0);
    AWAIT(watched.taken == 5000);
    AWAIT(native_value_of(theirs) == 0);
    end(&watched);
    AWAIT(waiters_of(name) == 0);
    sem_close(theirs);
    ipc_sem_close(watched.sem);
}

static void watches_of_two_contexts_share_what_is_posted(void)
{
    const char *name = new_name();
    struct ipc *other;
    struct ipc_sem *sem;
    struct watched watched[2];
    struct peer peers[2];
    CHECK_IS(ipc_new(&other), 0);
    CHECK_IS(ipc_sem_open(other, &sem, name, O_CREAT, 0600, 0), 0);
    init(&watched[0], open_sem(name, 0), TAKE);
    init(&watched[1], sem, TAKE);
    sem_t *theirs = open_native(name);
    for (int i = 0; i < 2; i++) {
        start(&watched[i]);
        peer_start(&peers[i], post_many, theirs);
    }
    for (int i = 0; i < 2; i++)
        CHECK_IS(peer_result(&peers[i]), 0);
    AWAIT(watched[0].taken + watched[1].taken == 10000);
    for (int i = 0; i < 2; i++) {
        end(&watched[i]);
        ipc_sem_close(watched[i].sem);
    }
    sem_close(theirs);
    ipc_free(other);
}

/* ---- Threads ---- */

static void watches_share_threads(void)
{
    enum { MANY = 2 * PER_THREAD + 1 };
    struct watched *watched = calloc(MANY, sizeof *watched);
    const char *name = new_name();
    struct ipc_sem *sem = open_sem(name, 0);
    unsigned threads = count_threads();
    for (int i = 0; i < MANY; i++) {
        init(&watched[i], sem, LEAVE);
        start(&watched[i]);
        CHECK_IS(count_threads(), threads + i / PER_THREAD + 1);
    }
    for (int i = 0; i < MANY; i++)
        AWAIT(watched[i].calls);

    /* There is room again for as many as ended. */
    for (int i = 0; i < 10; i++)
        end(&watched[i]);
    AWAIT(waiters_of(name) == MANY - 10);
    for (int i = 0; i < 10; i++) {
        init(&watched[i], sem, LEAVE);
        start(&watched[i]);
        AWAIT(watched[i].calls);
    }
    CHECK_IS(count_threads(), threads + 3);

    /* One post reaches all. */
    CHECK_IS(ipc_sem_post(sem, 1), 0);
    for (int i = 0; i < MANY; i++)
        AWAIT(has_ended(&watched[i]));
    AWAIT(waiters_of(name) == 0);
    ipc_sem_close(sem);
    free(watched);
}

static void threads_without_watches_go_away(void)
{
    enum { MANY = 3 * PER_THREAD };
    struct watched *watched = calloc(MANY, sizeof *watched);
    struct ipc_sem *sem = open_sem(new_name(), 0);
    unsigned threads = count_threads();
    for (int i = 0; i < MANY; i++) {
        init(&watched[i], sem, LEAVE);
        start(&watched[i]);
    }
    for (int i = 0; i < MANY; i++)
        AWAIT(watched[i].calls);
    CHECK_IS(count_threads(), threads + 3);
    for (int i = 0; i < MANY; i++)
        end(&watched[i]);
    AWAIT(count_threads() <= threads + 1); /* one may stay, for the next */
    ipc_sem_close(sem);
    free(watched);
}

/* ---- A file that is cut short ---- */

static void a_watch_of_a_file_cut_short_ends_with_the_next_call(void)
{
    const char *name = new_name();
    struct watched watched, neighbour;
    init(&watched, open_sem(name, 0), TAKE);
    init(&neighbour, open_sem(new_name(), 0), TAKE);
    start(&watched);
    start(&neighbour);
    AWAIT(watched.calls && neighbour.calls);
    CHECK(truncate(file_of(IPC_SEM, name), 0) == 0);
    ipc_watch_again(watched.watch);
    AWAIT(has_ended(&watched));
    CHECK_IS(watched.value, -EIO);

    CHECK_IS(ipc_sem_post(neighbour.sem, 1), 0);
    AWAIT(neighbour.taken == 1);
    CHECK_IS(neighbour.thread, watched.thread);
    end(&neighbour);
    ipc_sem_close(watched.sem);
    ipc_sem_close(neighbour.sem);
}

static void a_file_cut_short_does_not_hold_up_its_neighbours(void)
{
    const char *name = new_name();
    struct watched watched, neighbour;
    init(&watched, open_sem(name, 0), TAKE);
    init(&neighbour, open_sem(new_name(), 0), TAKE);
    start_asleep(&watched);
    start_asleep(&neighbour);
    CHECK(truncate(file_of(IPC_SEM, name), 0) == 0);
    CHECK_IS(ipc_sem_post(neighbour.sem, 1), 0);
    AWAIT(neighbour.taken == 1);
    AWAIT(has_ended(&watched));
    CHECK_IS(watched.value, -EIO);
    end(&neighbour);
    ipc_sem_close(watched.sem);
    ipc_sem_close(neighbour.sem);
}

static void a_file_that_was_cut_short_can_be_watched(void)
{
    const char *name = new_name();
    struct watched watched;
    init(&watched, open_sem(name, 0), TAKE);
    CHECK(truncate(file_of(IPC_SEM, name), 0) == 0);
    start(&watched);
    AWAIT(has_ended(&watched));
    CHECK_IS(watched.value, -EIO);
    ipc_sem_close(watched.sem);
}

static int cut_and_mend(void *arg)
{
    const char *file = arg;
    for (int i = 0; i < 2000; i++)
        if (truncate(file, 0) || truncate(file, sizeof(sem_t)))
            return -errno;
    return 0;
}

static void a_watched_file_is_cut_short_at_any_time(void)
{
    const char *name = new_name();
    struct watched neighbour;
    struct peer cutter;
    struct ipc_sem *sem = open_sem(name, 0);
    init(&neighbour, open_sem(new_name(), 0), TAKE);
    start(&neighbour);
    peer_start(&cutter, cut_and_mend, (void *)file_of(IPC_SEM, name));
    for (unsigned i = 1; !cutter.returned; i++) {
        struct watched watched;
        init(&watched, sem, LEAVE);
        start(&watched);
        ipc_sem_post(sem, 1);
        CHECK_IS(ipc_sem_post(neighbour.sem, 1), 0);
        AWAIT(neighbour.taken == i);
        end(&watched);
    }
    CHECK_IS(peer_result(&cutter), 0);
    end(&neighbour);
    ipc_sem_close(sem);
    ipc_sem_close(neighbour.sem);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(the_first_call_comes_by_itself),
                                        TEST(every_post_is_told),
                                        TEST(a_unit_that_was_taken_and_posted_again_is_told),
                                        TEST(nothing_is_told_of_0),
                                        TEST(a_watch_that_takes_gets_every_unit),
                                        TEST(a_watch_can_be_told_again),
                                        TEST(a_watch_may_ask_for_another_call_in_its_call),
                                        TEST(watching_leaves_values_alone),
                                        TEST(looking_leaves_the_value_alone),
                                        TEST(a_watch_is_one_waiter),
                                        TEST(a_watch_keeps_its_semaphore_open),
                                        TEST(an_ended_watch_does_not_touch_its_argument),
                                        TEST(watches_come_and_go_from_many_threads),
                                        TEST(a_watch_may_be_made_in_a_call),
                                        TEST(freeing_the_context_ends_all_watches),
                                        TEST(a_wake_up_is_passed_on_by_a_watch_that_ends),
                                        TEST(a_wake_up_is_passed_on_by_a_watch_that_stays),
                                        TEST(a_wake_up_is_passed_on_through_another_context),
                                        TEST(wake_ups_are_passed_on_by_many_watches),
                                        TEST(a_wake_up_is_passed_on_at_a_unit_posted_again),
                                        TEST(a_watch_does_not_hold_up_a_consumer),
                                        TEST(watches_made_again_do_not_hold_up_a_consumer),
                                        TEST(watches_and_native_waiters_share_what_is_posted),
                                        TEST(watches_of_two_contexts_share_what_is_posted),
                                        TEST(watches_share_threads),
                                        TEST(threads_without_watches_go_away),
                                        BROKEN_UNDER_CLANG_TSAN(a_watch_of_a_file_cut_short_ends_with_the_next_call),
                                        BROKEN_UNDER_CLANG_TSAN(a_file_cut_short_does_not_hold_up_its_neighbours),
                                        BROKEN_UNDER_CLANG_TSAN(a_file_that_was_cut_short_can_be_watched),
                                        BROKEN_UNDER_CLANG_TSAN(a_watched_file_is_cut_short_at_any_time),
                                        {0}};
    (void)argc;
    return run_tests(tests, argv);
}

/*
 * What the unit tests share: checks, names of objects, and peers that sleep in a call.
 *
 * A program is a table of tests. Each runs with a context of its own in `ipc`, and must give back every descriptor and
 * thread. The first failed check ends the program, also from a thread or a child. Whatever happens, the objects
 * that its names stand for are removed.
 */
#ifndef CHECK_H
#define CHECK_H

#include "../../core/ipc.h"

#include <pthread.h>
#include <sched.h>

/* Fails, and says where, unless the condition holds. */
#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
/* As CHECK(call == expected) of two integers, and says what it was. */
#define CHECK_IS(call, expected) check_is(__FILE__, __LINE__, #call, (call), #expected, (expected))
/* Waits for what others do. A condition that never comes true fails the test after a minute. */
#define AWAIT(condition)                                                                                               \
    while (!(condition))                                                                                               \
    sched_yield()

_Noreturn void check_failed(const char *file, int line, const char *what);
void check_is(const char *file, int line, const char *call, int64_t actual, const char *name, int64_t expected);

/* ---- Tests ---- */

struct test {
    const char *name;
    void (*run)(void);
    bool broken;
};
#define TEST(function)                                                                                                 \
    {                                                                                                                  \
#function, function, false                                                                                     \
    }
/* A test that core/ does not pass yet: it runs when it is named. */
#define BROKEN(function)                                                                                               \
    {                                                                                                                  \
#function, function, true                                                                                      \
    }

/* A test that clang's thread sanitizer does not survive: it holds a lock in the atomics that core/fault.c jumps out of,
 * whatever no_sanitize says. */
#if defined __has_feature
#if __has_feature(thread_sanitizer)
#define BROKEN_UNDER_CLANG_TSAN BROKEN
#endif
#endif
#ifndef BROKEN_UNDER_CLANG_TSAN
#define BROKEN_UNDER_CLANG_TSAN TEST
#endif

/* Runs all tests of a table that ends in an empty row, or those that the command line names. */
int run_tests(const struct test *tests, char **argv);
/* The context of the test that runs. */
extern struct ipc *ipc;
/* Says that part of the running test cannot be done here. */
void skip(const char *why);
bool is_root(void);

/* ---- Names ---- */

/* A name that nothing has, for the main thread; it need not be freed. */
const char *new_name(void);
const char *new_name_ending(const char *ending);
const char *new_name_of_size(size_t size);
/* The same name for sem_open(3) and its like: with a slash. Only of names from above. */
const char *native(const char *name);
/* Their files: of a semaphore, or of a shared memory object, of such a name. */
const char *file_of(enum ipc_kind kind, const char *name);

/* Makes an object with sem_open, shm_open or mq_open: of mode 0600 (less the umask) and value, size or content none. */
void make_native(enum ipc_kind kind, const char *name);

/* ---- Others ---- */

/* A thread that makes one call, which may sleep. */
struct peer {
    pthread_t thread;
    int (*call)(void *arg);
    void *arg;
    _Atomic pid_t id;
    _Atomic bool returned;
    int result;
};
void peer_start(struct peer *peer, int (*call)(void *arg), void *arg);
/* Has it go to sleep in its call. */
void peer_start_asleep(struct peer *peer, int (*call)(void *arg), void *arg);
/* Sends it SIGUSR1 until its call has returned. */
void peer_interrupt(struct peer *peer);
/* What the call returned, once it has. */
int peer_result(struct peer *peer);

/* Does this thread of ours sleep? */
bool is_asleep(pid_t thread);
/* How many wait for a semaphore: the upper half of its word. The call counts itself in before it sleeps. */
unsigned waiters_of(const char *name);
/* How many threads and open descriptors this process has. */
unsigned count_threads(void);
unsigned count_descriptors(void);

/* Runs the call in a child, where it must not fail, and waits for it. */
void in_child(void (*call)(void *arg), void *arg);
/* In a child of root: gives up root for good, or for the file system only. */
void become_nobody(void);
void become_nobody_for_files(void);

/* ---- Time: CLOCK_MONOTONIC ---- */

struct timespec milliseconds_from_now(int64_t milliseconds);
bool has_passed(const struct timespec *deadline);

#endif

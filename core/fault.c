/*
 * Memory that others can take away.
 *
 * A semaphore is a file in /dev/shm that any of its users may cut short while it is mapped; touching it is SIGBUS from
 * then on. All access to such a word goes through the three functions here, which turn the signal into EIO for the one
 * operation that met it. A SIGBUS from anywhere else ends the process, as without us.
 *
 * The signal must not be blocked in a thread that calls them: the kernel kills a process that blocks a fault.
 */
#include "internal.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

/* ThreadSanitizer makes a call of an atomic access, and holds a lock in it, which a jump out of that would keep. */
#if __has_attribute(disable_sanitizer_instrumentation) /* clang's no_sanitize does not go for atomics */
#define PLAIN __attribute__((disable_sanitizer_instrumentation))
#else
#define PLAIN __attribute__((no_sanitize("thread")))
#endif

static __thread sigjmp_buf *volatile guard;

static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
    (void)info;
    const ucontext_t *interrupted = context;
    sigjmp_buf *landing = guard;
    if (landing) {
        guard = NULL;
        pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL); /* a jump does not bring it back */
        siglongjmp(*landing, 1);
    }
    signal(signal_number, SIG_DFL); /* the access is tried again, and ends us */
}

int fault_setup(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) ? -errno : 0;
}

PLAIN int word_load(const uint64_t *word, uint64_t *value)
{
    sigjmp_buf landing;
    if (sigsetjmp(landing, 0))
        return -EIO;
    guard = &landing;
    *value = __atomic_load_n(word, __ATOMIC_SEQ_CST);
    guard = NULL;
    return 0;
}

PLAIN int word_add(uint64_t *word, uint64_t addend)
{
    sigjmp_buf landing;
    if (sigsetjmp(landing, 0))
        return -EIO;
    guard = &landing;
    __atomic_fetch_add(word, addend, __ATOMIC_SEQ_CST);
    guard = NULL;
    return 0;
}

PLAIN int word_exchange(uint64_t *word, uint64_t *expected, uint64_t desired)
{
    sigjmp_buf landing;
    if (sigsetjmp(landing, 0))
        return -EIO;
    guard = &landing;
    bool exchanged = __atomic_compare_exchange_n(word, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    guard = NULL;
    return exchanged;
}

// What the programs here share: the clock, and the end of a child with its parent.

#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

// Nanoseconds of CLOCK_MONOTONIC.
static inline int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

// A benchmark that is interrupted leaves no process behind.
static inline void end_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

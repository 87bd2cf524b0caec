#include "follow.h"
#include "park.h"
#include "process.h"

#include <sched.h>

enum { NEAR = 8000 }; /* nanoseconds from one call to the next that take too little time for another core */

/* Nanoseconds between two looks at where a caller runs. A look takes longer than most calls, so it is taken less and
 * less often where it changes nothing. */
#define LOOKS_APART INT64_C(2000000)
#define LOOKS_APART_MAX INT64_C(128000000)

static __thread struct {
    int64_t time;  /* of the last call, CLOCK_MONOTONIC */
    int64_t next;  /* no look before */
    int64_t apart; /* 0: none yet */
} seen;

/* Only to be there: afterwards it may go anywhere, as before. */
static bool move_to(int core)
{
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) || core >= CPU_SETSIZE || !CPU_ISSET(core, &all))
        return false;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(0, sizeof one, &one))
        return false;
    sched_setaffinity(0, sizeof all, &all);
    return true;
}

void follow(pid_t thread)
{
    if (thread <= 0)
        return;
    const int64_t now = monotonic_now();
    const bool near = now - seen.time < NEAR;
    seen.time = now;
    if (near || now < seen.next)
        return;
    int core = core_of_thread(thread);
    const bool moved = core >= 0 && core != sched_getcpu() && move_to(core);
    seen.apart = moved || !seen.apart ? LOOKS_APART : seen.apart < LOOKS_APART_MAX ? 2 * seen.apart : LOOKS_APART_MAX;
    seen.next = now + seen.apart;
}

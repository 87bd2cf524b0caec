#include "follow.h"
#include "park.h"
#include "process.h"

#include <sched.h>

enum {
    NEAR = 8000,           /* nanoseconds from one call to the next that take too little time for another core */
    LOOKS_APART = 2,       /* calls; a look at where the caller runs costs as much as one, */
    LOOKS_APART_MAX = 256, /* and is taken less and less often until calls are near */
};

static __thread struct {
    int64_t time;   /* of the last call */
    unsigned slow;  /* calls since a look was taken */
    unsigned apart; /* looks */
} seen;

/* Only to be there: afterwards it may go anywhere, as before. */
static void move_to(int core)
{
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) || core >= CPU_SETSIZE || !CPU_ISSET(core, &all))
        return;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0)
        sched_setaffinity(0, sizeof all, &all);
}

void follow(pid_t thread)
{
    const int64_t now = monotonic_now();
    const bool near = now - seen.time < NEAR;
    seen.time = now;
    if (near)
        seen.apart = LOOKS_APART;
    if (near || ++seen.slow < seen.apart)
        return;
    seen.slow = 0;
    seen.apart = seen.apart < LOOKS_APART_MAX ? 2 * seen.apart + LOOKS_APART : LOOKS_APART_MAX;
    int core = core_of_thread(thread);
    if (core >= 0 && core != sched_getcpu())
        move_to(core);
}

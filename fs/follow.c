#include "follow.h"
#include "park.h"
#include "process.h"

#include <sched.h>

enum {
    NEAR = 8000,           /* nanoseconds from one call to the next that take too little time for another core */
    LOOKS_APART = 4,       /* slower calls; a look at where the caller runs costs as much as a call, */
    LOOKS_APART_MAX = 256, /* and is taken less and less often where it is on our core already */
};

static __thread struct {
    pid_t last;
    int64_t time;   /* of its last call */
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
    if (thread != seen.last) {
        seen.last = thread;
        seen.slow = 0;
        seen.apart = LOOKS_APART / 2;
        return;
    }
    if (near || ++seen.slow < seen.apart)
        return;
    int core = core_of_thread(thread);
    seen.slow = 0;
    if (core >= 0 && core != sched_getcpu()) {
        move_to(core);
        seen.apart = LOOKS_APART;
    } else if (seen.apart < LOOKS_APART_MAX) {
        seen.apart *= 2;
    }
}

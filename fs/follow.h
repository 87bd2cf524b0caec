/*
 * Staying near who calls.
 *
 * A caller sleeps while we work, and we while it does, so both can have one core, and waking a thread on another takes
 * longer than all the rest. The kernel leaves each where it ran last. So a thread that serves callers who run elsewhere
 * now and then moves to where one of them runs, and leaves the rest to the scheduler.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include <sys/types.h>

/* We have slept until this thread called, or have woken it. */
void follow(pid_t thread);

#endif

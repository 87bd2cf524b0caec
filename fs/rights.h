/*
 * Capabilities (capabilities(7)). Root's daemon needs few for itself. Those that let root pass by permissions it has
 * only while it acts for a caller who has them too, so that a mistake of ours can't do what the caller could not.
 */
#ifndef RIGHTS_H
#define RIGHTS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The mount is there: gives up, for good, what is not needed to serve it, and the chance to gain anything. From here on
 * each thread begins with what serving takes. With `everyone` false it does nothing: an ordinary user has none, and
 * needs fusermount3 to unmount.
 */
void rights_settle(bool everyone);

/* For this thread. All that the daemon has kept: */
void rights_raise(void);
/* What serving takes, and of a caller's capabilities (a set of bits, as CapEff in proc_pid_status(5)) those that count:
 */
void rights_lend(uint64_t capabilities);
/* What serving takes: */
void rights_lower(void);
/* The kernel may have changed them (setfsuid(2)). */
void rights_forget(void);
/* Nothing, for ever, in a child that needs nothing. */
void rights_drop(void);

/* In a child that has become a caller whose set is this. */
void rights_become(uint64_t capabilities);

#endif

/*
 * The kernel's side of FUSE: it makes the requests that a script asks for, as the kernel would, and checks the answers.
 *
 * Like the kernel it names only nodes and handles that it was given, keeps a node while something of it is open, and
 * asks no more of an open file than its mode permits. What callers choose (names, data, sizes, offsets, modes, flags)
 * may be anything.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "script.h"

#include <sys/types.h>

struct value;

struct command {
    const char *word;
    /*
     * A letter for each field: u user, n node, d directory, r regular file that may be opened, h open file, R open for
     * reading, W open for writing, D open directory, e request that waits, s name, b data, i number.
     */
    const char *fields;
    void (*run)(const struct value *values);
};
extern const struct command commands[];
extern const size_t commands_count;

/* The first request, with a kernel's flags and version 7.MINOR. */
void kernel_begin(uint32_t flags, uint32_t flags2, uint32_t minor);
/* A line. What can't be asked now (a read, and nothing is open) is left out. */
void kernel_run(const struct script_line *line);
/*
 * Closes and forgets all, after an interrupt to what waits, unless the script says to abandon it: then only
 * directories, which the daemon keeps no account of. True: the daemon can't know of anything any more. It must still
 * answer.
 */
bool kernel_let_go(void);
/* It is going to end, and what waits is to be answered. */
void kernel_disconnect(void);
/* All has been answered. */
void kernel_end(void);

/* Called by the daemon's threads. True: nobody is there any more to take this answer. */
bool kernel_is_deaf(const void *reply);
void kernel_take(const void *reply, size_t size);

/* requests.c: has the daemon process a request, and then do what there is to do without one. */
void daemon_process(const void *request, size_t size);
void daemon_pause(void);

#endif

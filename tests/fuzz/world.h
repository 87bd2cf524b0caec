/*
 * The machine that the daemon under test sees: namespaces of its own with nothing in /dev/shm and no queues, a few
 * callers, and shortages.
 */
#ifndef WORLD_H
#define WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct user {
    uid_t uid;
    gid_t gid;
    pid_t pid; /* a process that does nothing; 0: in no namespace of the daemon's */
};

/* Enters the namespaces, in a child, whose exit status becomes this process's. Needs root. */
void world_enter(void);
/* Before an input: every caller lives. */
void world_begin(void);
/* After it: there is no shortage any more; and no object. */
void world_relax(void);
void world_end(void);

struct user *world_user(uint64_t number);
/* SIGKILL to its process. */
void world_kill(struct user *user);

/* From now on there are so many descriptors left, until world_relax. */
void world_limit_descriptors(uint64_t left);
size_t world_count_descriptors(void);
/* One allocation of the daemon's fails, after so many that do not. */
void world_starve(uint64_t after);
/* This thread is the daemon at work, or not any more. */
void world_at_work(bool is);

#endif

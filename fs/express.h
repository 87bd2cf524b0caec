/*
 * Reads and writes of semaphores and queues that can be done at once: without libfuse, whose requests cost memory and a
 * lock that all share, and without memory of our own but for what a handle keeps: its last result, the beginning of a
 * line. What has to wait goes the usual way, which begins anew; so a text of several lines, of which some might have
 * been sent by then, does from the start.
 */
#ifndef EXPRESS_H
#define EXPRESS_H

#include "session.h"

/* True: the request, as it came from the kernel, was answered. */
bool express(struct session *session, const void *request, size_t size);

#endif

/*
 * Taking requests from the kernel.
 *
 * A request costs little but for the waking of a sleeping core. So one thread reads and, as nearly all requests are
 * answered or parked at once, serves them too; the others sleep where a request does not wake them. It passes its turn
 * on before it begins what may take long. While requests come quickly one after the other it looks for the next one
 * for a moment before it sleeps. Where cores are to spare, and it is seen to help, more than one reads (crew.h).
 */
#ifndef LOOP_H
#define LOOP_H

#include "session.h"

#define SPIN_DEFAULT 100 /* microseconds */
#define SPIN_MAX 1000

/* Starts the threads. When the kernel ends the connection, session->ended is set and the bell rung. */
int loop_start(struct session *session);
/* Ends them and waits for them. */
void loop_end(struct session *session);

#endif

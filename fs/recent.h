/*
 * What was used last, kept for a moment, no longer, as it keeps the memory of a removed object.
 *
 * Of shared memory objects, what was looked up: an open is two requests, a look-up and the open, and between them the
 * name may come to mean another object: programs put a new segment in an old one's place by rename(2). What was looked
 * up is then opened all the same, as open(2) does it natively.
 *
 * Of semaphores, what was open: scripts open one for each wait, and mapping it takes longer than to open it.
 */
#ifndef RECENT_H
#define RECENT_H

#include "session.h"

void recent_setup(struct session *session);
/* Takes over an O_PATH descriptor of the node's object. */
void recent_add(struct node *node, int fd);
/* Takes over a reference to the node's semaphore. */
void recent_add_sem(struct node *node, struct ipc_sem *sem);
/* A copy of that; -1: there is none any more. */
int recent_place(struct node *node);
/* Closes what is kept of it: the node goes. */
void recent_remove(struct node *node);
/* Closes those that were kept long enough. False: there are none any more. */
bool recent_expire(struct session *session);

#define RECENT_MILLISECONDS 200 /* a caller that has lost its core for a while is back by then */

#endif

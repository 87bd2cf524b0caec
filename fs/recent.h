/*
 * What was looked up last, of shared memory objects.
 *
 * An open is two requests, a look-up and the open, and between them the name may come to mean another object: programs
 * put a new segment in an old one's place by rename(2). What was looked up is then opened all the same, as open(2) does
 * it natively. A node keeps a descriptor for that for a moment, no longer, as it keeps the memory of a removed segment.
 */
#ifndef RECENT_H
#define RECENT_H

#include "session.h"

void recent_setup(struct session *session);
/* Takes over an O_PATH descriptor of the node's object. */
void recent_add(struct node *node, int fd);
/* A copy of it; -1: there is none any more. */
int recent_place(struct node *node);
/* Closes it: the node goes. */
void recent_remove(struct node *node);
/* Closes those that were kept long enough. False: there are none any more. */
bool recent_expire(struct session *session);

#define RECENT_MILLISECONDS 200 /* a caller that has lost its core for a while is back by then */

#endif

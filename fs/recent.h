/*
 * What was looked up last, of shared memory objects.
 *
 * An open is two requests, a look-up and the open, and between them the name may come to mean another object: programs
 * put a new segment in an old one's place by rename(2). What was looked up is then opened all the same, as open(2) does
 * it natively. A few descriptors are kept for that for a moment, no longer, as they keep the memory of a removed
 * segment.
 */
#ifndef RECENT_H
#define RECENT_H

#include "session.h"

void recent_setup(struct session *session);
/* Takes over an O_PATH descriptor of the object. */
void recent_add(struct session *session, const struct stat *st, int fd);
/* Gives away that of a node's object; -1: it is not there. */
int recent_take(struct session *session, const struct node *node);
/* Closes those that were kept long enough. False: there are none any more. */
bool recent_expire(struct session *session);
/* Closes all. */
void recent_clear(struct session *session);

#define RECENT_MILLISECONDS 200 /* a caller that has lost its core for a while is back by then */

#endif

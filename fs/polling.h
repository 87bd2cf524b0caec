/* poll(2). A handle has one poll handle, which stands for all who poll that open file: the kernel tells them together.
 */
#ifndef POLLING_H
#define POLLING_H

#include "session.h"

/* A poll request: revents now, and `poll` told later. It takes over `poll`, which may be NULL. */
void object_poll(fuse_req_t req, struct handle *handle, struct fuse_pollhandle *poll, unsigned events);
/* The handle goes. */
void object_unpoll(struct handle *handle);
/* Tells those for whom more is ready than when they asked, or, if something has `changed`, for whom anything is. Called
 * with object->lock held. */
void polls_tell(struct object *object, bool changed);

#endif

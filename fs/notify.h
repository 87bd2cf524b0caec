/* mq_notify(3) as a file: mq@notify/NAME. */
#ifndef NOTIFY_H
#define NOTIFY_H

#include "session.h"

/* Registers, waits for a message to come to the empty queue, and answers with its sender: "PID UID\n". EBUSY. */
void notify_read(fuse_req_t req, struct handle *handle, size_t size);
/* Registers for a signal to the writing process, or withdraws with "cancel". EINVAL, EBUSY. */
void notify_write(fuse_req_t req, struct handle *handle, const char *data, size_t size);
unsigned notify_ready(struct handle *handle);
/* The process registered through this mount, 0 for none. Called with object->lock held. */
pid_t notify_owner(const struct object *object);
/* The handle goes, and its registration with it. */
void notify_close(struct handle *handle);

#endif

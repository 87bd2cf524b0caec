/*
 * The descriptors of /dev/fuse by which requests come.
 *
 * The kernel keeps what has been read and not yet answered in lists of the descriptor that read it, and looks through
 * one for each answer. With thousands of requests that wait, everybody's would take longer: so those are spread over
 * several descriptors of the same connection. An answer goes by the one that its request came by.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include "session.h"

/* After mounting. */
void devices_setup(struct session *session);
void devices_close(struct session *session);

/* Chooses one for what the thread reads next. */
void device_choose(struct session *session);
/* By which the thread's request came, or its next answer goes: at first, and for what answers nothing, number 0. */
unsigned device_now(void);
void device_use(unsigned device);
int device_fd(const struct session *session);
/* A request that came by it waits, 1, or no longer, -1. */
void device_waits(struct session *session, unsigned device, int change);
/* Writes a reply to each until one knows its request. */
ssize_t device_write_to_all(struct session *session, const struct iovec *iov, int count);

#endif

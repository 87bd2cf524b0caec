/* Notification as a file: mq@notify/NAME. A read registers and waits; a write asks for a signal. */
#ifndef NOTIFY_H
#define NOTIFY_H

#include "session.h"

/* Tells of the messages that the notifier has heard of. */
void notify_listen(struct session *session);

/* A further kind, whose objects are queues too. */
extern const struct kind notify_kind;

#endif

/*
 * Notification, mq_notify(3), as a file: mq@notify/NAME.
 *
 * A registration belongs to a process, and ends when that process closes any descriptor of the queue: here, with every
 * handle of it that is closed. So registrations are made by a process of their own, the notifier, which opens and
 * closes nothing else. It is told by signals with the sender's identity, which a thread could not be.
 */
#ifndef NOTIFY_H
#define NOTIFY_H

#include "park.h"

int notifier_setup(struct session *session);
void notifier_free(struct session *session);
/* The notifier has something to say, or a send has found out what it would say. The main thread calls. */
void notifier_listen(struct session *session);

/*
 * ipc_mq_send on the handle of a parked request. A notification that it sets off names the process that asked for it,
 * not us.
 */
int notify_send(const struct parked *parked, const char *data, size_t length, unsigned priority);

/* The process that is registered through this mount for the queue of that identity, 0 for none. */
pid_t notify_owner(struct session *session, const struct stat *st);

/* What mq@notify/NAME is; a further kind, whose objects are queues too. */
extern const struct kind notify_kind;

#endif

/*
 * The process that is registered for notifications, mq_notify(3).
 *
 * A registration belongs to a process, and ends when that process closes any descriptor of the queue: with us, at every
 * close of a handle. So registrations are made by a process of their own, which opens and closes nothing else. It is
 * told by signals with the sender's identity, which a thread could not be.
 */
#ifndef NOTIFIER_H
#define NOTIFIER_H

#include "park.h"

/* In place of a sender: the notifier's process has ended (somebody killed it), and all registrations with it. */
#define LOST ((pid_t)-1)

/* One registration that is waited for by a read, or answered by a signal. */
struct registration {
    uint64_t id;
    struct object *object; /* with a reference */
    struct handle *handle;
    pid_t notifier;  /* its process, and in it: */
    int notifier_fd; /* the queue's descriptor, -1 after the message has come */
    pid_t pid;       /* who registered */
    int pidfd;       /* the same, for the signal */
    int signal;      /* 0: a read is answered */
    bool fired;      /* object->lock: a message has come, from: */
    pid_t sender;    /* or LOST */
    uid_t sender_uid;
    struct firing *firing;         /* notifier->lock: memory for it, until it is used */
    LIST_ENTRY(registration) link; /* notifier->lock */
};

/* A message has come for the registration of that id. */
struct firing {
    uint64_t id;
    pid_t pid;
    uid_t uid;
    STAILQ_ENTRY(firing) link; /* notifier.c's */
};

int notifier_setup(struct session *session);
void notifier_free(struct session *session);

/* Registers for the queue of registration->object, by any descriptor of it. EBUSY: somebody is registered. */
int notifier_add(struct session *session, struct registration *registration, int fd);
/* Withdraws. */
void notifier_remove(struct session *session, struct registration *registration);
/* Hears of all messages that have come until now. */
void notifier_catch_up(struct session *session);
/* Calls `tell` for each message that was heard of; when it returns, none is still being told. Called without locks. */
void notifier_tell_all(struct session *session, void (*tell)(struct session *session, const struct firing *firing));

/* The object of a registration, with a reference; NULL: it has been withdrawn. */
struct object *notifier_object(struct session *session, uint64_t id);
/* The registration itself, as above. Called with its object's lock held, so that it stays. */
struct registration *notifier_find(struct session *session, uint64_t id);

/*
 * ipc_mq_send on the handle of a parked request. A notification that it sets off names the process that asked for it,
 * not us.
 */
int notifier_send(const struct parked *parked, const char *data, size_t length, unsigned priority);
/* The process that is registered through this mount for the queue of that identity, 0 for none. */
pid_t notifier_owner(struct session *session, const struct stat *st);

#endif

/*
 * Descriptors of the daemon, for which its users compete. A user who has many can have more only as long as as many are
 * left for the others: one who opens all it can gets half of them, the next one a quarter, and there is always some
 * left for who has few. Root may have all but a reserve.
 */
#ifndef SHARE_H
#define SHARE_H

#include "session.h"

void shares_setup(struct session *session);
void shares_free(struct session *session);
/* EMFILE: that is too many for the user. ENOMEM. */
int share_take(struct session *session, uid_t uid, unsigned descriptors);
void share_give(struct session *session, uid_t uid, unsigned descriptors);
/* A thread that waits in the kernel for a user. ENOLCK: that is too many for the user, or for all. */
int share_take_thread(struct session *session, uid_t uid);
void share_give_thread(struct session *session, uid_t uid);

#endif

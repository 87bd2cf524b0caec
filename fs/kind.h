/* What the daemon needs of a kind of object. A further kind is one more file that fills this table, and one more row.
 */
#ifndef KIND_H
#define KIND_H

#include "caller.h"
#include "park.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>

struct kind {
    enum ipc_kind id;
    unsigned descriptors; /* that a handle may take */
    /*
     * Opens the object into handle->fd or handle->sem, made first if handle->flags has O_CREAT, with the rights of the
     * caller, which the thread has assumed.
     */
    int (*open)(struct handle *handle, const char *name, mode_t mode, const struct caller *caller);
    void (*close)(struct handle *handle);
    int (*descriptor)(const struct handle *handle); /* for ipc_stat and its like */

    /* Each answers its request, now or later. Offset and size are as the user gave them; offset is 0, but for kinds
     * that are plain files, and for streams. */
    bool plain;
    void (*read)(fuse_req_t req, struct handle *handle, size_t size, off_t offset);
    void (*write)(fuse_req_t req, struct handle *handle, const char *data, size_t size, off_t offset);

    /* The rest is for kinds that can be waited on, NULL for others; each is called with object->lock held. */

    /* Does what was asked if it can be done at once: 0 with the result in the request, or a negative errno, EAGAIN
     * where it would have to wait. */
    int (*attempt)(struct parked *parked);
    /* It was done, but attempt can be called again to do more of it. May be NULL. */
    bool (*has_room)(const struct parked *parked);
    /* Takes back what attempt did, as the user has not got it. */
    void (*undo)(struct parked *parked);
    /* It ends without having been done: interrupted, timed out, or at the end of the session. May be NULL. */
    void (*give_up)(struct parked *parked);
    /* Sees to it that object_serve is called when somebody in object->waiting or object->polls may be served. */
    int (*watch)(struct object *object);
    /* Until watch is called again, that need not be. May be NULL. */
    void (*look_away)(struct object *object);
    /* poll(2) events that are true of the handle now. */
    unsigned (*ready)(struct handle *handle);
    /* Those of them that nobody else's reading can end. May be NULL. */
    unsigned (*ready_by_itself)(struct handle *handle);
    bool express; /* reads and writes are attempts, and reads what the handle has of an earlier one: express.c */
    /* The last close: true if the handle is still needed, and will be freed when it is not. It is asked `again` when
     * what it was needed for has timed out. */
    bool (*flush)(struct handle *handle, bool again);
};

extern const struct kind sem_kind, shm_kind, mq_kind;
const struct kind *kind_of(enum ipc_kind id);

/*
 * Opens or, with O_CREAT in flags, makes what `name` is in a directory, as the caller, who need not have been assumed.
 * On success *made is in the list of its node, which is `node` or, where that is NULL, the one of what was opened.
 * ESTALE: the node's object is gone.
 */
int handle_open(struct node *directory, struct node *node, const char *name, int flags, mode_t mode,
                struct caller *caller, struct handle **made);
/* As it is at this moment: O_NONBLOCK may come and go (fcntl(2)). */
bool handle_is_nonblocking(const struct handle *handle);
/* Puts it in the list of its node. */
void handle_adopt(struct handle *handle, struct node *node);
/* A handle of the node's object, not one of a text about it; NULL: none. Called with nodes_lock held. */
struct handle *first_of_object(struct node *node);
/* Ends a handle that nobody has open any more. */
void handle_free(struct handle *handle);
/* stat(2) by an open handle; false: there is none. */
bool node_stat_open(struct node *node, struct stat *st);
/* A copy of the descriptor of what the node is, by an open handle or by name; ESTALE. */
int node_descriptor(struct node *node);

/* mq.c: epoll says that a queue has changed. */
void queue_changed(struct object *object);

#endif

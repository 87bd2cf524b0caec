/*
 * What the daemon keeps: one session, and in it nodes (what the kernel knows by a number), handles (what is open) and
 * objects (what can be waited on).
 *
 * Order of locks, outermost first: libfuse's lock of a request, object->lock, then one of handle->lock,
 * session->nodes_lock, session->objects_lock, session->timers.lock, or the core's. After libfuse's may also come
 * session->locks.lock, and then session->shares.lock. session->recent.lock is the last of all but the core's.
 */
#ifndef SESSION_H
#define SESSION_H

#define FUSE_USE_VERSION 35

#include "../core/ipc.h"
#include "view.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <sys/queue.h>

struct session;
struct parked;
struct kind;
struct root_file;

/* Deadlines of parked requests; timers.c. */
struct timers {
    pthread_mutex_t lock; /* protects all of it, and heap_at of its members */
    struct parked **heap;
    size_t count, room;
    int fd; /* a timerfd that is set to the first of them */
};

/* ---- Nodes ---- */

enum node_type { NODE_ROOT, NODE_DIRECTORY, NODE_OBJECT, NODE_FILE };

struct node {
    enum node_type type;
    struct session *session;
    LIST_ENTRY(node) chain;
    uint64_t refs;       /* the kernel's look-ups, open handles, and nodes below; it ends at 0 */
    struct node *parent; /* NULL for the root */
    enum ipc_kind kind;  /* of a directory or object */
    struct view view;    /* of a directory */
    ino_t ino;           /* as the user sees it */
    dev_t device;        /* of an object, with `inode`: what it was when it was looked up */
    ino_t inode;
    char *name;             /* the last one it was seen under */
    struct handle *handles; /* open ones, of an object */
    uint32_t backing;       /* passthrough.c: the backing file of a shared memory object, */
    unsigned backed;        /* and how many handles have it; nodes_lock */
    const struct root_file *file;
    /* recent.c: of a shared memory object or a semaphore. */
    int place;           /* an O_PATH descriptor of what was looked up, -1 for none */
    struct ipc_sem *sem; /* what was open, NULL for none */
    int64_t placed;      /* monotonic_now() */
    TAILQ_ENTRY(node) recent;
};

LIST_HEAD(node_list, node);

/* lock.c: flock(2) and fcntl(2) locks, and who waits for one. */
struct locks {
    pthread_mutex_t lock; /* protects all of it, and flock_mode and lock_fd of handles */
    void *files;          /* a tree (tsearch(3)) of objects with locks */
    unsigned threads;     /* that wait in the kernel */
    pthread_cond_t ended; /* one of them has */
};

/* device.c: descriptors by which requests come. */
enum { DEVICES_MAX = 64 };
struct devices {
    pthread_mutex_t lock; /* to add one */
    unsigned count;       /* atomic */
    int fds[DEVICES_MAX];
    unsigned waiting[DEVICES_MAX]; /* atomic: requests that came by it and wait */
};

/* share.c: how many descriptors there are for whom. */
struct shares {
    pthread_mutex_t lock; /* protects all of it */
    void *users;          /* a tree (tsearch(3)) */
    uint64_t free;
    unsigned threads;
};

/* recent.c: nodes of shared memory objects and semaphores that were used last. */
struct recent {
    pthread_mutex_t lock;     /* protects all of it, and place, sem and placed of nodes */
    TAILQ_HEAD(, node) nodes; /* with a place or a sem, the one used longest ago first */
    int count;                /* of them; atomic */
};

struct session {
    struct ipc *ipc;
    struct fuse_session *fuse;
    bool everyone; /* root's mount: each request is done with its caller's rights */
    uid_t owner;   /* who mounted it */
    gid_t group;
    struct timespec started; /* CLOCK_REALTIME */
    size_t message_max;      /* bytes of a write that the kernel surely did not split */
    bool shared_mmap;        /* atomic: mmap(MAP_SHARED) of shared memory objects works */
    bool no_passthrough;     /* an option */
    bool debug;              /* an option: libfuse shows each request */
    /* passthrough.c: of the first request. */
    uint64_t init_unique, offered;
    bool agreed, init_answered, initialized;

    pthread_mutex_t nodes_lock; /* protects the table, and refs, name and handles of every node */
    struct node root;
    struct node_list *nodes;
    size_t nodes_size, nodes_count;
    LIST_HEAD(, listing) listings; /* nodes_lock: directories that are open */

    pthread_mutex_t objects_lock; /* protects the table and refs of every object */
    struct object **objects;
    size_t objects_size, objects_count;

    struct timers timers;
    struct locks locks;
    struct recent recent;
    struct shares shares;
    struct devices devices;
    struct loop *loop;
    unsigned spin;  /* loop.c: microseconds, an option */
    unsigned awake; /* loop.c: on machines of at most so many cores, an option */

    int epoll;
    enum wake_up {
        WAKE_BELL,
        WAKE_TIMER,
        WAKE_SIGNAL,
        WAKE_NOTIFIER,
        WAKE_UPS
    } wake_ups[4]; /* its events, but queues */
    int bell;      /* an eventfd, for what only the main thread may do */
    pthread_mutex_t retired_lock;
    struct object *retired; /* watched by epoll and to be let go of; retired_lock */
    bool ended;             /* atomic: the kernel has closed the connection, or: */
    int failure;            /* atomic: a negative errno, why no request can be had any more */

    struct notifier *notifier; /* notify.c */
};

int nodes_setup(struct session *session);
void nodes_free(struct session *session);
struct node *node_of(struct session *session, fuse_ino_t number);
fuse_ino_t node_number(const struct node *node);
/* Each adds a reference. NULL: no memory. */
struct node *node_for_directory(struct session *session, const char *name, enum ipc_kind kind, const struct view *view);
struct node *node_for_file(struct session *session, const struct root_file *file);
struct node *node_for_object(struct node *directory, const char *name, const struct stat *st);
void node_release(struct node *node, uint64_t refs);
/* A copy of the name, to be freed; NULL: no memory. */
char *node_name(struct node *node);
/* Calls `each` for the objects of a directory that the kernel knows. */
int nodes_list(struct node *directory, ipc_each *each, void *arg);
/* Inode numbers as the user sees them: stable, and never the same for two kinds. */
ino_t visible_ino(enum ipc_kind kind, ino_t ino);
ino_t root_ino(const char *name);

/* ---- Handles ---- */

/* text.c: what was written of a line whose end is to come. Only the one write that is under way touches it: the kernel
 * has no second one of a handle's inode meanwhile (ops.c, op_init). */
struct line {
    char *data;
    size_t length;
    int writer; /* a pidfd, -1 for none, of: */
    pid_t thread;
    uid_t uid;
    bool broken; /* the last write failed or was cut short: the end will not come */
};

struct handle {
    struct session *session;
    struct node *node;
    struct handle *next; /* of the node's */
    const struct kind *kind;
    const struct view *view; /* the directory's, which lives as long as the node */
    int flags;               /* of open(2); atomic, as fcntl(2) changes some */

    uid_t opener;
    int place;           /* while a shared memory object is opened: an O_PATH descriptor of it, or -1 */
    int fd;              /* of a queue or a shared memory object */
    size_t message_size; /* of a queue: its max_message_size */
    bool backed;         /* passthrough.c: the kernel reads and writes it */
    int lock_fd;         /* lock.c: what flock(2) locks; -1 before the first */
    int flock_mode;      /* LOCK_SH, LOCK_EX, or 0 */
    LIST_ENTRY(handle) flocked;
    struct ipc_sem *sem; /* of a semaphore */
    struct object *object;
    struct registration *registration; /* notify.c: object->lock; NULL for none */

    pthread_mutex_t lock; /* protects the rest, but for `polling` */
    struct result *last;  /* what the last operation gave */
    size_t given;         /* stream: bytes of it that the user has */
    struct line line;     /* of a queue's text view */

    struct fuse_pollhandle *poll; /* object->lock: whom to tell */
    unsigned poll_events;         /* object->lock: of what */
    unsigned poll_ready;          /* object->lock: what it knows already */
    LIST_ENTRY(handle) polling;
};

/* ---- Objects: what is waited on ---- */

enum direction { RECEIVE, SEND };

TAILQ_HEAD(parked_list, parked);
LIST_HEAD(handle_list, handle);

struct object {
    struct session *session;
    const struct kind *kind;
    struct object *next; /* in its bucket */
    dev_t device;
    ino_t inode;
    size_t refs;

    pthread_mutex_t lock;          /* protects all below */
    struct parked_list waiting[2]; /* by direction, the longest waiting first */
    unsigned waiting_count[2];
    struct handle_list polls; /* handles that somebody polls */
    struct ipc_sem *sem;      /* semaphore: the handles' */
    struct ipc_watch *watch;  /* semaphore: while somebody waits, and perhaps longer */
    bool watch_unwanted;      /* semaphore: but not this time */
    int fd;                   /* queue: what epoll watches; -1 before the first wait */
    bool watched;             /* queue: it may be in epoll, and has a reference for that */
    uint32_t events;          /* queue: that epoll is to tell of; 0: it is not in there */
    unsigned idle_changes;    /* queue: since somebody waited */
    bool fresh;               /* queue: and nothing has been heard of it yet */
    bool retiring;            /* queue: in session->retired */
    struct object *retired;   /* session->retired_lock */
};

int objects_setup(struct session *session);
void objects_free(struct session *session);
/* The object of that identity, with a reference. NULL: no memory. */
struct object *object_get(struct session *session, const struct kind *kind, const struct stat *st);
/* As above, where there is one. */
struct object *object_find(struct session *session, const struct kind *kind, const struct stat *st);
void object_hold(struct object *object);
void object_release(struct object *object);

/* ---- The loops ---- */

/* Serves the first request, in which daemon and kernel agree on what they can. 0, or a negative errno. */
int session_begin(struct session *session);

/* Serves requests until a signal or an unmount ends the session. 0, or a negative errno. */
int session_serve(struct session *session);

/* Has the main thread look at what is to be done. */
void session_ring(struct session *session);
/* Has the main thread look whether a queue is still waited for. Called with object->lock held. */
void session_retire(struct object *object);

extern const struct fuse_lowlevel_ops operations;

#endif

/* What the kernel knows of the daemon's nodes, files and requests; kernel.c's, answers.c's and commands.c's. */
#ifndef MODEL_H
#define MODEL_H

#include "fuzz.h"
#include "kernel.h"
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define OPEN_PASSTHROUGH (1U << 7) /* <linux/fuse.h> since Linux 6.9 */

enum {
    NODES_MAX = 4096,
    FILES_MAX = 512,
    REQUESTS_MAX = 1 << 14,
    NAME_LONGEST = 1024,
    READ_MAX = 1 << 17,
    MOMENTS = 20000
};

struct node {
    uint64_t id;
    uint64_t lookups; /* that are to be forgotten; the root has one for ever */
    mode_t mode;
    struct node *parent;
};

struct file {
    uint64_t handle;
    struct node *node;
    uint32_t flags;
    bool open;
    bool passthrough; /* the kernel reads and writes it by itself */
};

struct request {
    uint32_t opcode;
    struct node *node;
    struct file *file;
    uint32_t size;  /* of what the caller has room for, or has written */
    uint32_t flags; /* of open(2) */
    bool silent;    /* has no answer */
    bool answered, interrupted;
    int error;
};

struct kernel {
    pthread_mutex_t lock; /* protects all of it */
    struct node nodes[NODES_MAX];
    struct file files[FILES_MAX];
    struct request requests[REQUESTS_MAX]; /* whose `unique` is twice their place, from 1 */
    size_t nodes_count, files_count, requests_count;
    uint32_t max_write;
    bool cut;       /* the next answer finds nobody */
    bool lost;      /* and one did */
    bool abandoned; /* all stays as it is, to the end of the session */
    bool ending;    /* what waits is answered with ENOTCONN */
};
extern struct kernel kernel;

struct value {
    uint64_t number;
    struct user *user;
    struct node *node;
    struct file *file;
    struct request *request;
    char *bytes;
    size_t length;
};

/* Called with the lock held, as all here and all commands. */
bool is_directory(const struct node *node);
uint64_t unique_of(const struct request *request);
bool waits(const struct request *request);
struct node *find_node(uint64_t id);
/* Does the kernel need the node for something else than its name? */
bool is_busy(const struct node *node);
bool is_in_use(const struct file *file);

/* Begins a request, of a user or nobody; a body may follow in parts, and then it is sent and processed. */
struct request *ask(uint32_t opcode, const struct user *user, struct node *node);
struct request *ask_file(uint32_t opcode, const struct user *user, struct file *file);
void add(const void *data, size_t size);
void add_name(const struct value *name);
void number_as(uint64_t unique);
void send_it(void);
void send_with(const void *body, size_t size);

/* The daemon goes on for a moment. */
void pause_daemon(void);

void close_file(uint32_t opcode, struct file *file, uint64_t owner);
void forget_node(struct node *node, uint64_t lookups);
void get_attributes(const struct value *values);
void interrupt(const struct value *values);

/* With IPCFS_FUZZ_TRACE in the environment a script can be followed. */
bool is_traced(void);

#endif

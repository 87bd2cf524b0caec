/* The attributes, in one table. They are what they are when they are read; reading them disturbs nothing. */
#include "attr.h"
#include "file.h"
#include "kind.h"
#include "notifier.h"
#include "recent.h"
#include "status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USER "user."
#define PREFIX USER "ipcfs."

/* What there is to know of an object. */
struct facts {
    struct stat st;
    int opened; /* 0 or the error why the object could not be opened */
    unsigned value;
    struct ipc_mq_attr queue;
    unsigned waiting[2];
};

/* ---- The table ---- */

static long long mode(const struct facts *facts)
{
    return facts->st.st_mode & 07777;
}

static long long uid(const struct facts *facts)
{
    return facts->st.st_uid;
}

static long long gid(const struct facts *facts)
{
    return facts->st.st_gid;
}

static long long value(const struct facts *facts)
{
    return facts->value;
}

static long long size(const struct facts *facts)
{
    return facts->st.st_size;
}

static long long receivers(const struct facts *facts)
{
    return facts->waiting[RECEIVE];
}

static long long senders(const struct facts *facts)
{
    return facts->waiting[SEND];
}

static long long current_messages(const struct facts *facts)
{
    return facts->queue.current_messages;
}

static long long max_messages(const struct facts *facts)
{
    return facts->queue.max_messages;
}

static long long max_message_size(const struct facts *facts)
{
    return facts->queue.max_message_size;
}

static long long bytes(const struct facts *facts)
{
    return facts->queue.bytes;
}

static long long notify_pid(const struct facts *facts)
{
    return facts->queue.notify_pid;
}

enum { SEM = 1 << IPC_SEM, SHM = 1 << IPC_SHM, MQ = 1 << IPC_MQ };

/* What it takes to know: opening is for those who may, and reading changes the time of access. */
enum effort { LOOKING, OPENING, READING };

static const struct attribute {
    const char *name;
    unsigned kinds;
    enum effort effort;
    const char *format;
    long long (*get)(const struct facts *facts);
} attributes[] = {
    {"mode", SEM | SHM | MQ, LOOKING, "%04llo", mode},
    {"uid", SEM | SHM | MQ, LOOKING, "%lld", uid},
    {"gid", SEM | SHM | MQ, LOOKING, "%lld", gid},
    {"value", SEM, OPENING, "%lld", value},
    {"waiting", SEM, LOOKING, "%lld", receivers},
    {"size", SHM, LOOKING, "%lld", size},
    {"current_messages", MQ, OPENING, "%lld", current_messages},
    {"max_messages", MQ, OPENING, "%lld", max_messages},
    {"max_message_size", MQ, OPENING, "%lld", max_message_size},
    {"bytes", MQ, READING, "%lld", bytes},
    {"notify_pid", MQ, READING, "%lld", notify_pid},
    {"waiting_receivers", MQ, LOOKING, "%lld", receivers},
    {"waiting_senders", MQ, LOOKING, "%lld", senders},
};
#define ATTRIBUTES (sizeof attributes / sizeof *attributes)

static bool applies(const struct attribute *attribute, const struct node *node)
{
    return node->type == NODE_OBJECT && attribute->kinds & 1U << node->kind;
}

/* ---- Gathering ---- */

static int ask_sem(struct ipc_sem *sem, struct facts *facts)
{
    return ipc_sem_value(sem, &facts->value);
}

static int ask_queue(int fd, enum effort effort, struct facts *facts)
{
    return effort == READING ? ipc_mq_getattr_all(fd, &facts->queue) : ipc_mq_getattr(fd, &facts->queue);
}

/* May the caller, who has been assumed, know what one learns by opening? Yes if it could open the object now. */
static int check_right(const struct handle *handle)
{
    int fd = handle->kind->descriptor(handle);
    if (handle->sem)
        return ipc_access(fd, R_OK | W_OK);
    return ipc_access(fd, R_OK) && ipc_access(fd, W_OK) ? -EACCES : 0;
}

/*
 * Through an open handle of the node, which may be of an object that has no name any more. EAGAIN: the caller has not
 * opened it, so it is to be assumed; ENOENT: there is none.
 */
static int ask_handle(struct node *node, const struct caller *caller, enum effort effort, struct facts *facts)
{
    pthread_mutex_lock(&node->session->nodes_lock);
    struct handle *handle = first_of_object(node);
    const bool own = handle && handle->opener == caller->uid && (caller->assumed || caller->pid);
    int error = !handle ? -ENOENT : own ? 0 : caller->assumed ? check_right(handle) : -EAGAIN;
    if (!error)
        error = handle->sem ? ask_sem(handle->sem, facts) : ask_queue(handle->fd, effort, facts);
    pthread_mutex_unlock(&node->session->nodes_lock);
    return error;
}

static int ask_sem_by_name(struct node *node, const char *name, const struct caller *caller, struct facts *facts)
{
    struct ipc *ipc = node->session->ipc;
    struct ipc_sem *sem;
    int error = ipc_sem_open(ipc, &sem, name, 0, 0, 0);
    if (error)
        return error;
    if (!caller->assumed && !ipc_permits(ipc, IPC_SEM, ipc_sem_fd(sem), caller->uid, R_OK | W_OK))
        error = -EACCES;
    else
        error = ask_sem(sem, facts);
    recent_add_sem(node, sem);
    return error;
}

static int ask_queue_by_name(struct ipc *ipc, const char *name, const struct caller *caller, enum effort effort,
                             struct facts *facts)
{
    int fd = ipc_mq_open(ipc, name, O_RDONLY | O_NONBLOCK, 0, NULL);
    if (fd == -EACCES && caller->assumed)
        fd = ipc_mq_open(ipc, name, O_WRONLY | O_NONBLOCK, 0, NULL);
    if (fd < 0)
        return fd;
    int error = -EACCES;
    if (caller->assumed || ipc_permits(ipc, IPC_MQ, fd, caller->uid, R_OK))
        error = ask_queue(fd, effort, facts);
    close(fd);
    return error;
}

static int ask_by_name(struct node *node, const struct caller *caller, enum effort effort, struct facts *facts)
{
    char *name = node_name(node);
    if (!name)
        return -ENOMEM;
    int error = node->kind == IPC_SEM ? ask_sem_by_name(node, name, caller, facts)
                                      : ask_queue_by_name(node->session->ipc, name, caller, effort, facts);
    free(name);
    return error;
}

/* What one learns by opening. The caller is assumed where it takes that to know whether it may. */
static int ask(struct node *node, struct caller *caller, enum effort effort, struct facts *facts)
{
    int error = ask_handle(node, caller, effort, facts);
    if (error == -ENOENT && (caller->assumed || caller_approach(caller)))
        error = ask_by_name(node, caller, effort, facts);
    if (!error || caller->assumed)
        return error;
    error = caller_become(caller);
    if (!error)
        error = ask_handle(node, caller, effort, facts);
    return error == -ENOENT ? ask_by_name(node, caller, effort, facts) : error;
}

static void ask_object(struct node *node, struct facts *facts)
{
    const struct kind *kind = kind_of(node->kind);
    pid_t pid = node->kind == IPC_MQ ? notifier_owner(node->session, &facts->st) : 0;
    if (pid)
        facts->queue.notify_pid = pid; /* the kernel names our notifier */
    struct object *object = kind->watch ? object_find(node->session, kind, &facts->st) : NULL;
    if (!object)
        return;
    pthread_mutex_lock(&object->lock);
    facts->waiting[RECEIVE] = object->waiting_count[RECEIVE];
    facts->waiting[SEND] = object->waiting_count[SEND];
    pthread_mutex_unlock(&object->lock);
    object_release(object);
}

static int gather(struct node *node, struct caller *caller, enum effort effort, struct facts *facts)
{
    *facts = (struct facts){0};
    int error = caller->assumed || ipc_is_open_to_all(node->session->ipc, node->kind) ? 0 : caller_become(caller);
    if (!error)
        error = object_stat(node, &facts->st);
    if (error)
        return error;
    if (effort > LOOKING && node->kind != IPC_SHM)
        facts->opened = ask(node, caller, effort, facts);
    ask_object(node, facts);
    return 0;
}

/* ---- Extended attributes ---- */

bool attr_is_ours(const char *name)
{
    return !strncmp(name, PREFIX, strlen(PREFIX));
}

ssize_t attr_get(struct node *node, struct caller *caller, const char *name, char text[ATTR_SIZE])
{
    if (!attr_is_ours(name))
        return strncmp(name, USER, strlen(USER)) ? -EOPNOTSUPP : -ENODATA;
    name += strlen(PREFIX);
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        const struct attribute *attribute = &attributes[i];
        if (!applies(attribute, node) || strcmp(attribute->name, name))
            continue;
        struct facts facts;
        int error = gather(node, caller, attribute->effort, &facts);
        if (!error)
            error = facts.opened;
        return error ? error : snprintf(text, ATTR_SIZE, attribute->format, attribute->get(&facts));
    }
    return -ENODATA;
}

ssize_t attr_list(const struct node *node, char names[ATTR_LIST_SIZE])
{
    size_t length = 0;
    for (size_t i = 0; i < ATTRIBUTES; i++)
        if (applies(&attributes[i], node))
            length += snprintf(names + length, ATTR_LIST_SIZE - length, "%s%s", PREFIX, attributes[i].name) + 1;
    return length;
}

/* ---- The `stat` view ---- */

static int write_lines(struct node *node, struct caller *caller, FILE *out)
{
    struct facts facts;
    int error = gather(node, caller, READING, &facts);
    if (!error)
        error = facts.opened;
    for (size_t i = 0; !error && i < ATTRIBUTES; i++)
        if (applies(&attributes[i], node)) {
            char text[ATTR_SIZE];
            snprintf(text, sizeof text, attributes[i].format, attributes[i].get(&facts));
            fprintf(out, "%s %s\n", attributes[i].name, text);
        }
    return error;
}

int attr_open(struct node *node, struct caller *caller, int flags, struct handle **handle)
{
    struct facts facts;
    if ((flags & O_ACCMODE) != O_RDONLY)
        return -EACCES;
    int error = gather(node, caller, READING, &facts);
    if (!error)
        error = facts.opened;
    return error ? error : content_open(node, write_lines, handle);
}

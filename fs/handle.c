/* Handles: what is open. A handle is in its node's list from open to release. */
#include "kind.h"
#include "lock.h"
#include "notify.h"
#include "passthrough.h"
#include "polling.h"
#include "recent.h"
#include "share.h"

#include <stdlib.h>
#include <unistd.h>

const struct kind *kind_of(enum ipc_kind id)
{
    static const struct kind *const kinds[] = {[IPC_SEM] = &sem_kind, [IPC_SHM] = &shm_kind, [IPC_MQ] = &mq_kind};
    return kinds[id];
}

static void destroy(struct handle *handle)
{
    result_release(handle->last);
    pthread_mutex_destroy(&handle->lock);
    share_give(handle->session, handle->opener, handle->kind->descriptors);
    free(handle);
}

bool handle_is_nonblocking(const struct handle *handle)
{
    return handle->view->nonblock || __atomic_load_n(&handle->flags, __ATOMIC_RELAXED) & O_NONBLOCK;
}

void handle_adopt(struct handle *handle, struct node *node)
{
    struct session *session = handle->session;
    handle->node = node;
    pthread_mutex_lock(&session->nodes_lock);
    node->refs++;
    handle->next = node->handles;
    node->handles = handle;
    pthread_mutex_unlock(&session->nodes_lock);
}

/* To its node's list, and to the object that its users wait on. */
static int attach(struct handle *handle, struct node *node, const struct stat *st)
{
    struct session *session = handle->session;
    if (handle->kind->watch) {
        handle->object = object_get(session, handle->kind, st);
        if (!handle->object)
            return -ENOMEM;
        pthread_mutex_lock(&handle->object->lock);
        handle->object->sem = handle->sem;
        pthread_mutex_unlock(&handle->object->lock);
    }
    handle_adopt(handle, node);
    return 0;
}

/* What the caller needs on an object to open it so. */
static int access_of(const struct handle *handle)
{
    if (handle->kind->id == IPC_SEM)
        return R_OK | W_OK;
    const int way = handle->flags & O_ACCMODE;
    return (way != O_WRONLY ? R_OK : 0) | (way != O_RDONLY ? W_OK : 0);
}

/*
 * Semaphores and queues are first tried without a look at who calls, as opening one changes nothing. Opening a segment
 * may cut it, and a registration is made by opening.
 */
static int open_as(struct caller *caller, struct handle *handle, const char *name, mode_t mode)
{
    const struct kind *kind = handle->kind;
    if (kind->express && !(handle->flags & O_CREAT) && caller_approach(caller) &&
        !kind->open(handle, name, mode, caller)) {
        if (ipc_permits(handle->session->ipc, kind->id, kind->descriptor(handle), caller->uid, access_of(handle)))
            return 0;
        kind->close(handle);
    }
    int error = caller_become(caller);
    return error ? error : kind->open(handle, name, mode, caller);
}

int handle_open(struct node *directory, struct node *node, const char *name, int flags, mode_t mode,
                struct caller *caller, struct handle **made)
{
    struct session *session = directory->session;
    const struct kind *kind = directory->view.notify ? &notify_kind : kind_of(directory->kind);
    int error = share_take(session, caller->uid, kind->descriptors);
    if (error)
        return error;
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle) {
        share_give(session, caller->uid, kind->descriptors);
        return -ENOMEM;
    }
    handle->session = session;
    handle->kind = kind;
    handle->view = &directory->view;
    handle->flags = flags;
    handle->opener = caller->uid;
    handle->fd = handle->lock_fd = handle->line.writer = -1;
    handle->place = node && handle->kind->plain ? recent_place(node) : -1;
    pthread_mutex_init(&handle->lock, NULL);

    struct stat st;
    error = open_as(caller, handle, name, handle->view->has_mode ? handle->view->mode : mode);
    if (handle->place >= 0)
        close(handle->place);
    if (error) {
        destroy(handle);
        return error;
    }
    struct node *found = NULL;
    error = ipc_stat(handle->kind->descriptor(handle), &st);
    if (!error && node && (st.st_ino != node->inode || st.st_dev != node->device))
        error = -ESTALE;
    if (!error && !node && !(node = found = node_for_object(directory, name, &st)))
        error = -ENOMEM;
    if (!error)
        error = attach(handle, node, &st);
    if (error) {
        if (found)
            node_release(found, 1);
        handle->kind->close(handle);
        destroy(handle);
        return error;
    }
    *made = handle;
    return 0;
}

void handle_free(struct handle *handle)
{
    struct session *session = handle->session;
    struct node *node = handle->node;

    passthrough_end(handle);
    pthread_mutex_lock(&session->nodes_lock);
    struct handle **place = &node->handles;
    while (*place != handle)
        place = &(*place)->next;
    *place = handle->next;
    pthread_mutex_unlock(&session->nodes_lock);

    if (handle->object)
        object_unpoll(handle);
    lock_release(handle);
    handle->kind->close(handle);
    if (handle->object)
        object_release(handle->object);
    destroy(handle);
    node_release(node, 1);
}

struct handle *first_of_object(struct node *node)
{
    struct handle *handle = node->handles;
    while (handle && !handle->kind->open) /* a text about it */
        handle = handle->next;
    return handle;
}

bool node_stat_open(struct node *node, struct stat *st)
{
    pthread_mutex_lock(&node->session->nodes_lock);
    struct handle *handle = first_of_object(node);
    bool found = handle && ipc_stat(handle->kind->descriptor(handle), st) == 0;
    pthread_mutex_unlock(&node->session->nodes_lock);
    return found;
}

int node_descriptor(struct node *node)
{
    struct session *session = node->session;
    pthread_mutex_lock(&session->nodes_lock);
    struct handle *handle = first_of_object(node);
    int fd = handle ? fcntl(handle->kind->descriptor(handle), F_DUPFD_CLOEXEC, 0) : -1;
    int error = -errno;
    pthread_mutex_unlock(&session->nodes_lock);
    if (handle)
        return fd < 0 ? error : fd;

    char *name = node_name(node);
    if (!name)
        return -ENOMEM;
    fd = ipc_locate(session->ipc, node->kind, name);
    free(name);
    struct stat st;
    if (fd < 0)
        return fd == -ENOENT ? -ESTALE : fd;
    if (ipc_stat(fd, &st) == 0 && st.st_ino == node->inode && st.st_dev == node->device)
        return fd;
    close(fd);
    return -ESTALE;
}

/*
 * Nodes: what the kernel knows by a number.
 *
 * A node's number is its address. The kernel counts look-ups and forgets them; the node ends with the last of them.
 * Semaphores and shared memory objects have one node in each view, found by the object's own inode number, as a name
 * may be removed and made again.
 *
 * A queue has a new node for each look-up: the kernel holds the inode's lock while a direct write waits for room, so on
 * a shared inode every other writer, O_NONBLOCK or not, every rm and every open(O_TRUNC) would hang behind it, deaf to
 * signals.
 */
#include "file.h"
#include "kind.h"
#include "recent.h"

#include <stdlib.h>
#include <string.h>

enum { ROOT_INO = 1 };

ino_t visible_ino(enum ipc_kind kind, ino_t ino)
{
    return ino << 2 | (kind + 1U);
}

struct node *node_of(struct session *session, fuse_ino_t number)
{
    return number == FUSE_ROOT_ID ? &session->root : (struct node *)(uintptr_t)number;
}

fuse_ino_t node_number(const struct node *node)
{
    return node->type == NODE_ROOT ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)node;
}

static size_t hash_name(const char *name)
{
    size_t hash = 5381;
    while (*name)
        hash = hash * 33 + (unsigned char)*name++;
    return hash;
}

/* Directories and files in the root are numbered by their names, beside what visible_ino gives. */
ino_t root_ino(const char *name)
{
    return (ino_t)hash_name(name) << 2;
}

static size_t hash_of(const struct node *node)
{
    if (node->type == NODE_OBJECT)
        return node->inode * 31 + (uintptr_t)node->parent / sizeof *node;
    return hash_name(node->name);
}

static struct node_list *bucket(struct session *session, size_t hash)
{
    return &session->nodes[hash & (session->nodes_size - 1)];
}

static int resize(struct session *session, size_t size)
{
    struct node_list *old = session->nodes;
    struct node_list *nodes = calloc(size, sizeof *nodes);
    if (!nodes)
        return -ENOMEM;
    size_t old_size = session->nodes_size;
    session->nodes = nodes;
    session->nodes_size = size;
    for (size_t i = 0; i < old_size; i++)
        for (struct node *node; (node = LIST_FIRST(&old[i]));) {
            LIST_REMOVE(node, chain);
            LIST_INSERT_HEAD(bucket(session, hash_of(node)), node, chain);
        }
    free(old);
    return 0;
}

int nodes_setup(struct session *session)
{
    pthread_mutex_init(&session->nodes_lock, NULL);
    session->root = (struct node){.type = NODE_ROOT, .session = session, .refs = 1, .ino = ROOT_INO};
    return resize(session, 256);
}

static void destroy(struct node *node)
{
    LIST_REMOVE(node, chain);
    recent_remove(node);
    node->session->nodes_count--;
    free(node->name);
    free(node);
}

void nodes_free(struct session *session)
{
    /* An unmount forgets everything without a word, and the files that somebody has open too. */
    for (size_t i = 0; i < session->nodes_size; i++)
        for (struct node *node; (node = LIST_FIRST(&session->nodes[i]));) {
            node->refs++; /* a handle may have the last one */
            while (node->handles)
                handle_free(node->handles);
            destroy(node);
        }
    free(session->nodes);
    pthread_mutex_destroy(&session->nodes_lock);
}

static struct node *make(struct session *session, const struct node *node, const char *name)
{
    struct node *made = malloc(sizeof *made);
    char *copy = strdup(name);
    if (!made || !copy) {
        free(made);
        free(copy);
        return NULL;
    }
    *made = *node;
    made->session = session;
    made->name = copy;
    made->refs = 1;
    made->place = -1;
    if (made->parent)
        made->parent->refs++;
    if (session->nodes_count++ >= session->nodes_size * 2)
        resize(session, session->nodes_size * 4); /* without it, only slower */
    LIST_INSERT_HEAD(bucket(session, hash_of(made)), made, chain);
    return made;
}

/* The node in the root of that name; `node` is what is made otherwise. */
static struct node *node_in_root(struct session *session, const char *name, struct node *node)
{
    pthread_mutex_lock(&session->nodes_lock);
    struct node *found;
    LIST_FOREACH (found, bucket(session, hash_name(name)), chain)
        if (found->type != NODE_OBJECT && !strcmp(found->name, name))
            break;
    if (found) {
        found->refs++;
    } else {
        node->ino = root_ino(name);
        found = make(session, node, name);
    }
    pthread_mutex_unlock(&session->nodes_lock);
    return found;
}

struct node *node_for_directory(struct session *session, const char *name, enum ipc_kind kind, const struct view *view)
{
    struct node node = {.type = NODE_DIRECTORY, .kind = kind, .view = *view};
    return node_in_root(session, name, &node);
}

struct node *node_for_file(struct session *session, const struct root_file *file)
{
    struct node node = {.type = NODE_FILE, .file = file};
    return node_in_root(session, file->name, &node);
}

struct node *node_for_object(struct node *directory, const char *name, const struct stat *st)
{
    struct session *session = directory->session;
    struct node node = {
        .type = NODE_OBJECT,
        .parent = directory,
        .kind = directory->kind,
        .ino = visible_ino(directory->kind, st->st_ino),
        .device = st->st_dev,
        .inode = st->st_ino,
    };
    pthread_mutex_lock(&session->nodes_lock);
    struct node *found = NULL;
    if (directory->kind != IPC_MQ)
        LIST_FOREACH (found, bucket(session, hash_of(&node)), chain)
            if (found->type == NODE_OBJECT && found->inode == st->st_ino && found->device == st->st_dev &&
                found->parent == directory)
                break;
    if (!found) {
        found = make(session, &node, name);
    } else {
        if (strcmp(found->name, name)) {
            char *copy = strdup(name);
            if (copy) {
                free(found->name);
                found->name = copy;
            }
        }
        found->refs++;
    }
    pthread_mutex_unlock(&session->nodes_lock);
    return found;
}

void node_release(struct node *node, uint64_t refs)
{
    struct session *session = node->session;
    pthread_mutex_lock(&session->nodes_lock);
    while (node && node->type != NODE_ROOT && (node->refs -= refs) == 0) {
        struct node *parent = node->parent;
        destroy(node);
        node = parent;
        refs = 1;
    }
    pthread_mutex_unlock(&session->nodes_lock);
}

char *node_name(struct node *node)
{
    pthread_mutex_lock(&node->session->nodes_lock);
    char *name = strdup(node->name);
    pthread_mutex_unlock(&node->session->nodes_lock);
    return name;
}

int nodes_list(struct node *directory, ipc_each *each, void *arg)
{
    struct session *session = directory->session;
    int result = 0;
    pthread_mutex_lock(&session->nodes_lock);
    for (size_t i = 0; i < session->nodes_size && !result; i++) {
        struct node *node, *same;
        LIST_FOREACH (node, &session->nodes[i], chain) {
            if (node->type != NODE_OBJECT || node->kind != directory->kind)
                continue;
            /* A queue has many nodes; nodes of one object are in one bucket, if in one view. */
            LIST_FOREACH (same, &session->nodes[i], chain)
                if (same->type == NODE_OBJECT && same->kind == node->kind && !strcmp(same->name, node->name))
                    break;
            if (same == node)
                result = each(arg, node->name, node->inode);
            if (result)
                break;
        }
    }
    pthread_mutex_unlock(&session->nodes_lock);
    return result;
}

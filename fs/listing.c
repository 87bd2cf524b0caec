#include "listing.h"
#include "caller.h"
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct listing {
    struct session *session;
    LIST_ENTRY(listing) link; /* nodes_lock */
    struct listed {
        char *name;
        ino_t ino;
        mode_t type;
    } * entries;
    size_t count, room;
    bool filled;
};

static int add_entry(struct listing *listing, const char *name, ino_t ino, mode_t type)
{
    if (listing->count == listing->room) {
        size_t room = listing->room ? listing->room * 2 : 32;
        struct listed *entries = reallocarray(listing->entries, room, sizeof *entries);
        if (!entries)
            return -ENOMEM;
        listing->entries = entries;
        listing->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    listing->entries[listing->count++] = (struct listed){copy, ino, type};
    return 0;
}

static void clear_listing(struct listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].name);
    listing->count = 0;
}

struct filling {
    struct listing *listing;
    enum ipc_kind kind;
};

static int add_object(void *arg, const char *name, ino_t ino)
{
    struct filling *filling = arg;
    return add_entry(filling->listing, name, visible_ino(filling->kind, ino), S_IFREG);
}

/* Of the views only `stat`, so that a pattern of the shell can name the attributes of all objects. */
static int fill_root(struct listing *listing)
{
    const char *name;
    int error = 0;
    for (size_t i = 0; !error && (name = file_name(i)); i++)
        error = add_entry(listing, name, root_ino(name), S_IFREG);
    for (size_t i = 0; !error && i < 3; i++) {
        char stat_name[16];
        snprintf(stat_name, sizeof stat_name, "%s@stat", kind_names[i]);
        error = add_entry(listing, kind_names[i], root_ino(kind_names[i]), S_IFDIR);
        if (!error)
            error = add_entry(listing, stat_name, root_ino(stat_name), S_IFDIR);
    }
    return error;
}

static int fill_listing(struct node *node, struct listing *listing)
{
    clear_listing(listing);
    int error = add_entry(listing, ".", node->ino, S_IFDIR);
    if (!error)
        error = add_entry(listing, "..", node->session->root.ino, S_IFDIR);
    if (error)
        return error;
    if (node->type == NODE_DIRECTORY) {
        struct filling filling = {listing, node->kind};
        error = ipc_list(node->session->ipc, node->kind, add_object, &filling);
        if (error == -EOPNOTSUPP)
            error = nodes_list(node, add_object, &filling);
    } else {
        error = fill_root(listing);
    }
    listing->filled = !error;
    return error;
}

struct listing *listing_new(struct session *session)
{
    struct listing *listing = calloc(1, sizeof *listing);
    if (!listing)
        return NULL;
    listing->session = session;
    pthread_mutex_lock(&session->nodes_lock);
    LIST_INSERT_HEAD(&session->listings, listing, link);
    pthread_mutex_unlock(&session->nodes_lock);
    return listing;
}

void listings_free(struct session *session)
{
    while (!LIST_EMPTY(&session->listings))
        listing_free(LIST_FIRST(&session->listings));
}

void listing_free(struct listing *listing)
{
    pthread_mutex_lock(&listing->session->nodes_lock);
    LIST_REMOVE(listing, link);
    pthread_mutex_unlock(&listing->session->nodes_lock);
    clear_listing(listing);
    free(listing->entries);
    free(listing);
}

void listing_read(fuse_req_t req, struct node *node, struct listing *listing, size_t size, off_t offset)
{
    char *buffer = malloc(size);
    struct caller caller;
    int error = buffer ? caller_assume(req, &caller) : -ENOMEM;
    if (error) {
        free(buffer);
        fuse_reply_err(req, -error);
        return;
    }
    if (!offset || !listing->filled)
        error = fill_listing(node, listing);
    size_t used = 0;
    for (size_t i = offset; !error && i < listing->count; i++) {
        const struct listed *listed = &listing->entries[i];
        const struct stat st = {.st_ino = listed->ino, .st_mode = listed->type};
        const size_t n = fuse_add_direntry(req, buffer + used, size - used, listed->name, &st, i + 1);
        if (n > size - used)
            break;
        used += n;
    }
    if (error)
        fuse_reply_err(req, -error);
    else
        fuse_reply_buf(req, buffer, used);
    free(buffer);
}

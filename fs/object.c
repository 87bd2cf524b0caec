/* Objects: what is waited on, one for each semaphore or queue that is open, however often it is. */
#include "kind.h"

#include <stdlib.h>
#include <unistd.h>

static struct object **bucket(struct session *session, ino_t inode)
{
    return &session->objects[inode & (session->objects_size - 1)];
}

int objects_setup(struct session *session)
{
    pthread_mutex_init(&session->objects_lock, NULL);
    session->objects_size = 64;
    session->objects = calloc(session->objects_size, sizeof(struct object *));
    return session->objects ? 0 : -ENOMEM;
}

static void destroy(struct object *object)
{
    if (object->fd >= 0)
        close(object->fd);
    pthread_mutex_destroy(&object->lock);
    free(object);
}

/* Whoever still has a reference (epoll, a watch that was ending) has ended too. */
void objects_free(struct session *session)
{
    for (size_t i = 0; i < session->objects_size; i++)
        for (struct object *object = session->objects[i], *next; object; object = next) {
            next = object->next;
            destroy(object);
        }
    free(session->objects);
    pthread_mutex_destroy(&session->objects_lock);
}

/* On failure the table is slower, no more. */
static void grow(struct session *session)
{
    if (session->objects_count < session->objects_size * 2)
        return;
    size_t old_size = session->objects_size;
    struct object **old = session->objects;
    struct object **objects = calloc(old_size * 4, sizeof *objects);
    if (!objects)
        return;
    session->objects = objects;
    session->objects_size = old_size * 4;
    for (size_t i = 0; i < old_size; i++)
        for (struct object *object = old[i], *next; object; object = next) {
            next = object->next;
            struct object **place = bucket(session, object->inode);
            object->next = *place;
            *place = object;
        }
    free(old);
}

/* Called with the lock held. */
static struct object *find(struct session *session, const struct kind *kind, const struct stat *st)
{
    struct object *object = *bucket(session, st->st_ino);
    while (object && (object->inode != st->st_ino || object->device != st->st_dev || object->kind != kind))
        object = object->next;
    if (object)
        object->refs++;
    return object;
}

struct object *object_find(struct session *session, const struct kind *kind, const struct stat *st)
{
    pthread_mutex_lock(&session->objects_lock);
    struct object *object = find(session, kind, st);
    pthread_mutex_unlock(&session->objects_lock);
    return object;
}

struct object *object_get(struct session *session, const struct kind *kind, const struct stat *st)
{
    pthread_mutex_lock(&session->objects_lock);
    struct object *object = find(session, kind, st);
    if (!object && (object = calloc(1, sizeof *object))) {
        object->session = session;
        object->kind = kind;
        object->device = st->st_dev;
        object->inode = st->st_ino;
        object->refs = 1;
        object->fd = -1;
        pthread_mutex_init(&object->lock, NULL);
        TAILQ_INIT(&object->waiting[RECEIVE]);
        TAILQ_INIT(&object->waiting[SEND]);
        LIST_INIT(&object->polls);
        session->objects_count++;
        grow(session);
        struct object **place = bucket(session, object->inode);
        object->next = *place;
        *place = object;
    }
    pthread_mutex_unlock(&session->objects_lock);
    return object;
}

void object_hold(struct object *object)
{
    pthread_mutex_lock(&object->session->objects_lock);
    object->refs++;
    pthread_mutex_unlock(&object->session->objects_lock);
}

void object_release(struct object *object)
{
    struct session *session = object->session;
    pthread_mutex_lock(&session->objects_lock);
    bool last = --object->refs == 0;
    if (last) {
        struct object **place = bucket(session, object->inode);
        while (*place != object)
            place = &(*place)->next;
        *place = object->next;
        session->objects_count--;
    }
    pthread_mutex_unlock(&session->objects_lock);
    if (last)
        destroy(object);
}

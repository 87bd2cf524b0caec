#include "recent.h"
#include "park.h"

#include <unistd.h>

void recent_setup(struct session *session)
{
    struct recent *recent = &session->recent;
    pthread_mutex_init(&recent->lock, NULL);
    for (size_t i = 0; i < RECENT_MAX; i++)
        recent->places[i].fd = -1;
}

static void swap(struct session *session, size_t i, const struct recent_place *place)
{
    struct recent *recent = &session->recent;
    int old = recent->places[i].fd;
    recent->places[i] = *place;
    __atomic_fetch_add(&recent->count, (place->fd >= 0) - (old >= 0), __ATOMIC_RELAXED);
    if (old >= 0)
        close(old);
}

void recent_add(struct session *session, const struct stat *st, int fd)
{
    struct recent *recent = &session->recent;
    const struct recent_place place = {st->st_dev, st->st_ino, monotonic_now(), fd};
    pthread_mutex_lock(&recent->lock);
    swap(session, recent->next++ % RECENT_MAX, &place);
    pthread_mutex_unlock(&recent->lock);
}

int recent_take(struct session *session, const struct node *node)
{
    struct recent *recent = &session->recent;
    int fd = -1;
    pthread_mutex_lock(&recent->lock);
    for (size_t i = 0; i < RECENT_MAX && fd < 0; i++) {
        struct recent_place *place = &recent->places[i];
        if (place->fd >= 0 && place->inode == node->inode && place->device == node->device) {
            fd = place->fd;
            place->fd = -1;
            __atomic_fetch_sub(&recent->count, 1, __ATOMIC_RELAXED);
        }
    }
    pthread_mutex_unlock(&recent->lock);
    return fd;
}

/* Closes what was added before. */
static void close_before(struct session *session, int64_t time)
{
    struct recent *recent = &session->recent;
    const struct recent_place none = {.fd = -1};
    pthread_mutex_lock(&recent->lock);
    for (size_t i = 0; i < RECENT_MAX; i++)
        if (recent->places[i].added < time)
            swap(session, i, &none);
    pthread_mutex_unlock(&recent->lock);
}

bool recent_expire(struct session *session)
{
    if (__atomic_load_n(&session->recent.count, __ATOMIC_RELAXED))
        close_before(session, monotonic_now() - RECENT_MILLISECONDS * INT64_C(1000000));
    return __atomic_load_n(&session->recent.count, __ATOMIC_RELAXED);
}

void recent_clear(struct session *session)
{
    close_before(session, INT64_MAX);
}

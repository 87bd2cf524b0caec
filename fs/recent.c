#include "recent.h"
#include "park.h"

#include <fcntl.h>
#include <unistd.h>

enum { RECENT_MAX = 64 }; /* descriptors, of share.c's reserve */

void recent_setup(struct session *session)
{
    pthread_mutex_init(&session->recent.lock, NULL);
    TAILQ_INIT(&session->recent.nodes);
}

/* Called with the lock held. */
static void drop(struct recent *recent, struct node *node)
{
    if (node->place < 0 && !node->sem)
        return;
    TAILQ_REMOVE(&recent->nodes, node, recent);
    __atomic_sub_fetch(&recent->count, 1, __ATOMIC_RELAXED);
    if (node->place >= 0)
        close(node->place);
    if (node->sem)
        ipc_sem_close(node->sem);
    node->place = -1;
    node->sem = NULL;
}

static void add(struct node *node, int fd, struct ipc_sem *sem)
{
    struct recent *recent = &node->session->recent;
    pthread_mutex_lock(&recent->lock);
    drop(recent, node);
    if (recent->count == RECENT_MAX)
        drop(recent, TAILQ_FIRST(&recent->nodes));
    node->place = fd;
    node->sem = sem;
    node->placed = monotonic_now();
    TAILQ_INSERT_TAIL(&recent->nodes, node, recent);
    __atomic_add_fetch(&recent->count, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&recent->lock);
}

void recent_add(struct node *node, int fd)
{
    add(node, fd, NULL);
}

void recent_add_sem(struct node *node, struct ipc_sem *sem)
{
    add(node, -1, sem);
}

int recent_place(struct node *node)
{
    struct recent *recent = &node->session->recent;
    pthread_mutex_lock(&recent->lock);
    int fd = node->place < 0 ? -1 : fcntl(node->place, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&recent->lock);
    return fd;
}

void recent_remove(struct node *node)
{
    struct recent *recent = &node->session->recent;
    pthread_mutex_lock(&recent->lock);
    drop(recent, node);
    pthread_mutex_unlock(&recent->lock);
}

bool recent_expire(struct session *session)
{
    struct recent *recent = &session->recent;
    if (!__atomic_load_n(&recent->count, __ATOMIC_RELAXED))
        return false;
    const int64_t before = monotonic_now() - RECENT_MILLISECONDS * INT64_C(1000000);
    pthread_mutex_lock(&recent->lock);
    for (struct node *node; (node = TAILQ_FIRST(&recent->nodes)) && node->placed < before;)
        drop(recent, node);
    bool more = !TAILQ_EMPTY(&recent->nodes);
    pthread_mutex_unlock(&recent->lock);
    return more;
}

#include "share.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { THREADS_MAX = 512, USER_THREADS_MAX = 64 };
enum { RESERVE = 192 }; /* the daemon's own, and those that an operation needs for a moment */

struct share {
    uid_t uid;
    uint64_t count;
    unsigned threads;
};

static int compare(const void *a, const void *b)
{
    const struct share *one = a, *two = b;
    return one->uid < two->uid ? -1 : one->uid > two->uid;
}

void shares_setup(struct session *session)
{
    struct rlimit limit;
    struct shares *shares = &session->shares;
    pthread_mutex_init(&shares->lock, NULL);
    if (getrlimit(RLIMIT_NOFILE, &limit))
        limit.rlim_cur = 1024;
    shares->free = limit.rlim_cur > 2 * RESERVE ? limit.rlim_cur - RESERVE : limit.rlim_cur / 2;
}

void shares_free(struct session *session)
{
    tdestroy(session->shares.users, free);
    pthread_mutex_destroy(&session->shares.lock);
}

/* Called with the lock held. */
static struct share *get(struct shares *shares, uid_t uid)
{
    struct share key = {.uid = uid}, *made;
    struct share **found = tfind(&key, &shares->users, compare);
    if (found)
        return *found;
    made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    made->uid = uid;
    if (tsearch(made, &shares->users, compare))
        return made;
    free(made);
    return NULL;
}

static void put(struct shares *shares, struct share *share)
{
    if (share->count || share->threads)
        return;
    tdelete(share, &shares->users, compare);
    free(share);
}

int share_take(struct session *session, uid_t uid, unsigned descriptors)
{
    struct shares *shares = &session->shares;
    pthread_mutex_lock(&shares->lock);
    struct share *share = get(shares, uid);
    int error = 0;
    if (!share)
        error = -ENOMEM;
    else if (shares->free < descriptors || (uid && session->everyone && shares->free < share->count + descriptors))
        error = -EMFILE;
    else
        share->count += descriptors, shares->free -= descriptors;
    if (share)
        put(shares, share);
    pthread_mutex_unlock(&shares->lock);
    return error;
}

void share_give(struct session *session, uid_t uid, unsigned descriptors)
{
    struct shares *shares = &session->shares;
    if (!descriptors)
        return;
    pthread_mutex_lock(&shares->lock);
    struct share *share = get(shares, uid); /* it is there */
    shares->free += descriptors;
    share->count -= descriptors;
    put(shares, share);
    pthread_mutex_unlock(&shares->lock);
}

int share_take_thread(struct session *session, uid_t uid)
{
    struct shares *shares = &session->shares;
    pthread_mutex_lock(&shares->lock);
    struct share *share = get(shares, uid);
    bool refused = !share || shares->threads >= THREADS_MAX || (uid && share->threads >= USER_THREADS_MAX);
    if (!refused)
        share->threads++, shares->threads++;
    else if (share)
        put(shares, share);
    pthread_mutex_unlock(&shares->lock);
    return refused ? -ENOLCK : 0;
}

void share_give_thread(struct session *session, uid_t uid)
{
    struct shares *shares = &session->shares;
    pthread_mutex_lock(&shares->lock);
    struct share *share = get(shares, uid); /* it is there */
    share->threads--;
    shares->threads--;
    put(shares, share);
    pthread_mutex_unlock(&shares->lock);
}

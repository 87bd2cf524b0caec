/*
 * Waiting on semaphores without taking from them, and without a thread for each.
 *
 * A watch is a waiter as glibc knows it: one in the upper half of the semaphore's word, and a sleeper on the lower, so
 * that sem_post(3) wakes us. futex_waitv(2) sleeps on 128 words at once: each watcher thread has up to 127 semaphores
 * and, as the first word, a doorbell by which the rest of the process reaches it.
 *
 * A wake-up is one of a kind: sem_post wakes one sleeper for each unit. Where it was us and nobody took the unit, we
 * must wake the next one, or a native sem_wait(3) sleeps beside a free unit. That is pass_on's work.
 *
 * A watch always sleeps on the value 0, never on another that somebody saw: a unit that is taken and posted again would
 * leave that as it was, and nobody would look.
 *
 * A watch belongs to its watcher's thread from the moment that the thread has seen it, and that thread frees it.
 */
#include "internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WATCHES_MAX (FUTEX_WAITV_MAX - 1)

struct ipc_watch {
    struct ipc_sem *sem;
    ipc_sem_posted *posted;
    void *arg;
    struct watcher *watcher;
    bool again; /* atomic: `posted` is to be called whatever the value */
    struct ipc_watch *next;
};

struct watcher {
    struct ipc *ipc;
    struct watcher *next;     /* ipc->watch_lock */
    struct ipc_watch *coming; /* ipc->watch_lock: not yet seen by the thread */
    size_t count;             /* ipc->watch_lock: watches, coming ones too */
    uint32_t bell;            /* atomic */
    /* The thread's own. */
    struct ipc_watch *watches[WATCHES_MAX];
    size_t admitted;
};

static void ring(struct watcher *watcher)
{
    __atomic_fetch_add(&watcher->bell, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &watcher->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Others than us sleep while there is something to take: wake one. */
static void pass_on(struct ipc_watch *watch, uint64_t own)
{
    uint64_t data;
    if (word_load(sem_word(watch->sem), &data) == 0 && (uint32_t)data > 0 && (data >> 32) > own)
        sem_wake(watch->sem, 1);
}

static void end_watch(struct watcher *watcher, size_t i)
{
    struct ipc_watch *watch = watcher->watches[i];
    watcher->watches[i] = watcher->watches[--watcher->admitted];
    sem_leave(watch->sem);
    pass_on(watch, 0);
    ipc_sem_close(watch->sem);
    free(watch);
    pthread_mutex_lock(&watcher->ipc->watch_lock);
    if (--watcher->count == 0)
        __atomic_fetch_add(&watcher->bell, 1, __ATOMIC_SEQ_CST); /* admit() is to decide whether the thread stays */
    pthread_mutex_unlock(&watcher->ipc->watch_lock);
}

/* Tells whoever watches of what has been posted. */
static void look(struct watcher *watcher)
{
    for (size_t i = 0; i < watcher->admitted;) {
        struct ipc_watch *watch = watcher->watches[i];
        unsigned value = 0;
        bool failed = ipc_sem_value(watch->sem, &value) < 0;
        bool again = __atomic_exchange_n(&watch->again, false, __ATOMIC_SEQ_CST);
        if ((again || failed || value) && !watch->posted(watch->arg)) {
            end_watch(watcher, i);
            continue;
        }
        if (value)
            pass_on(watch, 1);
        i++;
    }
}

/* Takes in what is coming. False: the thread is to end, and the watcher is nobody's any more. */
static bool admit(struct watcher *watcher)
{
    struct ipc *ipc = watcher->ipc;
    pthread_mutex_lock(&ipc->watch_lock);
    bool ending = ipc->watch_ending;
    for (struct ipc_watch *watch; (watch = watcher->coming);) {
        watcher->coming = watch->next;
        word_add(sem_word(watch->sem), SEM_WAITER);
        watcher->watches[watcher->admitted++] = watch;
    }
    /* One thread stays, so that a semaphore that is waited for now and then does not make a thread each time. */
    bool leave = ending || (watcher->count == 0 && (ipc->watchers != watcher || watcher->next));
    pthread_mutex_unlock(&ipc->watch_lock);
    if (!leave)
        return true;
    while (watcher->admitted)
        end_watch(watcher, watcher->admitted - 1);

    pthread_mutex_lock(&ipc->watch_lock);
    bool stay = !ending && watcher->count;
    if (!stay) {
        struct watcher **place = &ipc->watchers;
        while (*place != watcher)
            place = &(*place)->next;
        *place = watcher->next;
        pthread_cond_signal(&ipc->watcher_gone);
    }
    pthread_mutex_unlock(&ipc->watch_lock);
    return stay;
}

static void sleep_on(struct watcher *watcher, uint32_t rung)
{
    struct futex_waitv words[FUTEX_WAITV_MAX] = {
        {.val = rung, .uaddr = (uintptr_t)&watcher->bell, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG}};
    const size_t half = 4 * (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
    for (size_t i = 0; i < watcher->admitted; i++)
        words[i + 1] = (struct futex_waitv){
            .val = 0, .uaddr = (uintptr_t)sem_word(watcher->watches[i]->sem) + half, .flags = FUTEX_32};
    /* Whatever ends it (a wake-up, EAGAIN: a value is above 0, EFAULT: a file was cut short), look() sees. */
    syscall(SYS_futex_waitv, words, watcher->admitted + 1, 0, NULL, CLOCK_MONOTONIC);
}

static void *watch_thread(void *arg)
{
    struct watcher *watcher = arg;
    for (;;) {
        uint32_t rung = __atomic_load_n(&watcher->bell, __ATOMIC_SEQ_CST);
        if (!admit(watcher))
            break;
        look(watcher);
        sleep_on(watcher, rung);
    }
    free(watcher);
    return NULL;
}

/* A new watcher with its thread. Called with the lock held. */
static int start_watcher(struct ipc *ipc, struct watcher **made)
{
    struct watcher *watcher = calloc(1, sizeof *watcher);
    if (!watcher)
        return -ENOMEM;
    watcher->ipc = ipc;

    /* The program's signals are for its own threads; a blocked SIGBUS would kill us (fault.c). */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    int error = pthread_create(&thread, &attr, watch_thread, watcher);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(watcher);
        return -error;
    }
    watcher->next = ipc->watchers;
    ipc->watchers = watcher;
    *made = watcher;
    return 0;
}

int ipc_sem_watch(struct ipc_sem *sem, ipc_sem_posted *posted, void *arg, struct ipc_watch **made)
{
    struct ipc *ipc = sem_ipc(sem);
    struct ipc_watch *watch = malloc(sizeof *watch);
    if (!watch)
        return -ENOMEM;
    *watch = (struct ipc_watch){.sem = sem, .posted = posted, .arg = arg, .again = true};
    sem_hold(sem);

    int error = 0;
    pthread_mutex_lock(&ipc->watch_lock);
    struct watcher *watcher = ipc->watchers;
    while (watcher && watcher->count == WATCHES_MAX)
        watcher = watcher->next;
    if (!watcher)
        error = start_watcher(ipc, &watcher);
    if (!error) {
        watch->watcher = watcher;
        watch->next = watcher->coming;
        watcher->coming = watch;
        watcher->count++;
        *made = watch;
        ring(watcher);
    }
    pthread_mutex_unlock(&ipc->watch_lock);
    if (error) {
        ipc_sem_close(sem);
        free(watch);
    }
    return error;
}

void ipc_watch_again(struct ipc_watch *watch)
{
    __atomic_store_n(&watch->again, true, __ATOMIC_SEQ_CST);
    ring(watch->watcher);
}

void watch_free(struct ipc *ipc)
{
    pthread_mutex_lock(&ipc->watch_lock);
    ipc->watch_ending = true;
    for (struct watcher *watcher = ipc->watchers; watcher; watcher = watcher->next)
        ring(watcher);
    while (ipc->watchers)
        pthread_cond_wait(&ipc->watcher_gone, &ipc->watch_lock);
    pthread_mutex_unlock(&ipc->watch_lock);
}

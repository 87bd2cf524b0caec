#include "loop.h"
#include "awake.h"
#include "crew.h"
#include "device.h"
#include "express.h"
#include "follow.h"
#include "kind.h"
#include "recent.h"

#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* As many as can be busy at once, with what takes long. */
enum { WORKERS_MIN = 4, WORKERS_MAX = CREW_MAX };

enum {
    OFTEN = 64,               /* requests from one look for what is kept too long to the next */
    LONG_TRANSFER = 64 << 10, /* bytes */
    MEMORY_MILLISECONDS = 20,
    CHANCES = 2,      /* requests that a spin would have caught, before it is tried */
    FORGIVEN = 16384, /* how often spinning must help until it is forgotten that it has cost us the core */
    LOST_FACTOR = 8,
};

/* Nanoseconds that are let pass before it is tried again whether spinning helps, longer each time that it does not. */
#define TRIALS_APART INT64_C(100000)
#define TRIALS_APART_MAX INT64_C(10000000)
#define LOST_APART INT64_C(1000000) /* where it has cost us the core */
#define LOST_APART_MAX INT64_C(512000000)
#define REST INT64_C(1000000) /* to sleep for as long */

/* Whether to spin. Atomic, and only hints. */
struct trials {
    bool helps;       /* it did the last time */
    unsigned chances; /* requests since then that a spin would have caught */
    int64_t next;     /* CLOCK_MONOTONIC: no trial before */
    int64_t apart, lost_apart;
    unsigned helped; /* how often since it has cost us the core */
};

#define GET(hint) __atomic_load_n(&(hint), __ATOMIC_RELAXED)
#define SET(hint, value) __atomic_store_n(&(hint), value, __ATOMIC_RELAXED)

struct loop {
    struct session *session;
    int fd;       /* the kernel's side, non-blocking */
    int stop;     /* an eventfd */
    int64_t spin; /* nanoseconds, 0 for never */
    struct awake awake;
    struct crew crew;

    pthread_mutex_t lock;    /* protects the next four */
    pthread_cond_t turn;     /* a turn is free, or all is at an end */
    unsigned readers;        /* threads whose turn it is */
    unsigned readers_wanted; /* at least 1 */
    bool ended;

    struct trials trials;

    size_t workers_count;
    pthread_t workers[WORKERS_MAX];
};

/* ---- Whose turn it is ---- */

/* Waits for a turn. False: the end. */
static bool take_turn(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    while (!loop->ended && loop->readers >= loop->readers_wanted)
        pthread_cond_wait(&loop->turn, &loop->lock);
    bool turn = !loop->ended;
    loop->readers += turn;
    pthread_mutex_unlock(&loop->lock);
    return turn;
}

/* Somebody else is to read. */
static void pass_turn(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->readers--;
    pthread_cond_signal(&loop->turn);
    pthread_mutex_unlock(&loop->lock);
}

/* As many are to read. False: without us. */
static bool keep_turn(struct loop *loop, unsigned wanted)
{
    pthread_mutex_lock(&loop->lock);
    const bool leave = loop->readers > wanted;
    loop->readers -= leave;
    loop->readers_wanted = leave ? loop->readers : wanted;
    for (unsigned i = loop->readers; i < loop->readers_wanted; i++)
        pthread_cond_signal(&loop->turn);
    pthread_mutex_unlock(&loop->lock);
    return !leave;
}

static void end(struct loop *loop)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&loop->lock);
    loop->ended = true;
    pthread_cond_broadcast(&loop->turn);
    pthread_mutex_unlock(&loop->lock);
    while (write(loop->stop, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* ---- Receiving ---- */

static int receive(struct loop *loop, struct fuse_buf *buffer)
{
    int size;
    device_choose(loop->session);
    do
        size = fuse_session_receive_buf(loop->session->fuse, buffer);
    while (size == -EINTR);
    return size;
}

static bool is_worth_spinning(const struct loop *loop, int64_t now)
{
    const struct trials *trials = &loop->trials;
    return loop->spin && (GET(trials->helps) || (GET(trials->chances) >= CHANCES && now >= GET(trials->next)));
}

/*
 * Whether spinning helps is found out by doing it. It does not where the caller needs the core that we keep busy, or
 * where we are not given one: then it is tried less and less often.
 */
static void learn(struct trials *trials, int64_t now, bool caught, bool lost)
{
    const int64_t apart = GET(trials->apart), lost_apart = GET(trials->lost_apart);
    const unsigned helped = caught ? GET(trials->helped) + 1 : lost ? 0 : GET(trials->helped);
    SET(trials->helps, caught);
    SET(trials->chances, 0);
    SET(trials->helped, helped);
    if (caught) {
        SET(trials->apart, TRIALS_APART);
        if (helped >= FORGIVEN)
            SET(trials->lost_apart, LOST_APART);
    } else if (lost) {
        SET(trials->next, now + lost_apart);
        if (lost_apart < LOST_APART_MAX)
            SET(trials->lost_apart, lost_apart * LOST_FACTOR);
    } else {
        SET(trials->next, now + apart);
        if (apart < TRIALS_APART_MAX)
            SET(trials->apart, apart * 2);
    }
}

/* Looks for a request again and again for a moment, and leaves the core to whoever else has work on it, which may be
 * who is to make that request. EAGAIN: there was none. */
static int spin(struct loop *loop, struct fuse_buf *buffer, int64_t began)
{
    int64_t looked;
    int size;
    do {
        sched_yield();
        looked = monotonic_now();
        size = receive(loop, buffer);
    } while (size == -EAGAIN && looked - began < loop->spin);
    /* One that came after we had lost the core for a while was not caught by spinning, which may be why: what others
     * wait for, or a quota, is used up by it. */
    const bool lost = looked - began >= 2 * loop->spin;
    learn(&loop->trials, looked, size != -EAGAIN && !lost, lost);
    if (size > 0)
        awake_came(&loop->awake, began, looked);
    return size;
}

/* Sleeps until there may be a request. False: the end. */
static bool await_request(struct loop *loop)
{
    struct pollfd fds[] = {{.fd = loop->fd, .events = POLLIN}, {.fd = loop->stop, .events = POLLIN}};
    if (awake_is_held(&loop->awake)) {
        int ready = poll(fds, 2, AWAKE_MILLISECONDS);
        if (ready > 0)
            return !fds[1].revents;
        awake_let_go(&loop->awake, monotonic_now());
    }
    while (poll(fds, 2, recent_expire(loop->session) ? RECENT_MILLISECONDS : -1) <= 0)
        ;
    return !fds[1].revents;
}

/* The next request. 0: the end, or a negative errno. EAGAIN: it is not our turn any more. */
static int next_request(struct loop *loop, struct fuse_buf *buffer, bool *slept)
{
    *slept = false;
    int size = receive(loop, buffer);
    if (size != -EAGAIN) {
        awake_at_once();
        return size;
    }
    int64_t began = monotonic_now();
    if (is_worth_spinning(loop, began))
        size = spin(loop, buffer, began);
    bool in_vain = false; /* another reader was quicker, so there is no need of us for now */
    while (size == -EAGAIN) {
        if (!keep_turn(loop, in_vain ? 1 : crew_wanted(&loop->crew)))
            return size;
        if (!await_request(loop))
            return 0;
        *slept = true;
        size = receive(loop, buffer);
        const int64_t now = monotonic_now();
        if (size > 0)
            awake_came(&loop->awake, began, now);
        if (now - began > REST)
            crew_rested(&loop->crew, now);
        in_vain = true;
        if (size > 0 && now - began < 2 * loop->spin) /* it takes time to wake us, too */
            SET(loop->trials.chances, GET(loop->trials.chances) + 1);
    }
    return size;
}

/* ---- Serving ---- */

/* Others must not wait for it: it makes a process, gives back much memory, goes through many objects, or moves much. */
static bool may_take_long(struct session *session, const struct fuse_buf *buffer)
{
    const struct fuse_in_header *header = buffer->mem;
    const struct fuse_read_in *read = (const void *)(header + 1); /* as far as its size that of a write, too */
    const struct fuse_open_in *open = (const void *)(header + 1);
    switch (header->opcode) {
    case FUSE_CREATE:
    case FUSE_MKNOD:
        return node_of(session, header->nodeid)->kind == IPC_MQ;
    case FUSE_OPEN:
        return node_of(session, header->nodeid)->kind == IPC_SHM && open->flags & O_TRUNC;
    case FUSE_UNLINK:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_RELEASE:
    case FUSE_SETATTR:
        return node_of(session, header->nodeid)->kind == IPC_SHM;
    case FUSE_READDIR:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
        return true;
    case FUSE_READ:
        return node_of(session, header->nodeid)->kind == IPC_SHM && read->size > LONG_TRANSFER;
    case FUSE_WRITE:
        return read->size > LONG_TRANSFER;
    default:
        return false;
    }
}

/* It is our turn. */
static void read_requests(struct loop *loop, struct fuse_buf *buffer)
{
    struct session *session = loop->session;
    unsigned count = 0;
    while (!fuse_session_exited(session->fuse)) {
        if (++count % OFTEN == 0)
            recent_expire(session);
        bool slept;
        int size = next_request(loop, buffer, &slept);
        if (size == -EAGAIN)
            return;
        if (size == -ENOMEM) { /* for the buffer: others have theirs, or there will be some */
            pass_turn(loop);
            poll(NULL, 0, MEMORY_MILLISECONDS);
            return;
        }
        if (size <= 0) {
            __atomic_store_n(&session->failure, size, __ATOMIC_SEQ_CST);
            break;
        }
        const pid_t caller = (pid_t)((const struct fuse_in_header *)buffer->mem)->pid;
        if (slept)
            follow(caller);
        bool keep = !may_take_long(session, buffer);
        if (!keep) {
            pass_turn(loop);
        } else if (crew_count()) {
            crew_judge(&loop->crew, caller, monotonic_now());
            keep = keep_turn(loop, crew_wanted(&loop->crew));
        }
        if (!express(session, buffer->mem, size))
            fuse_session_process_buf(session->fuse, buffer);
        if (!keep)
            return;
    }
    end(loop);
    __atomic_store_n(&session->ended, true, __ATOMIC_SEQ_CST);
    session_ring(session);
}

static void *work(void *arg)
{
    struct loop *loop = arg;
    struct fuse_buf buffer = {.mem = NULL};
    while (take_turn(loop))
        read_requests(loop, &buffer);
    caller_forget();
    free(buffer.mem);
    return NULL;
}

/* ---- The whole ---- */

int loop_start(struct session *session)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    cpu_set_t cores;
    CPU_ZERO(&cores);
    sched_getaffinity(0, sizeof cores, &cores);
    const unsigned count = CPU_COUNT(&cores) ? CPU_COUNT(&cores) : sysconf(_SC_NPROCESSORS_ONLN); /* or above 1,024 */
    session->loop = loop;
    *loop = (struct loop){.session = session,
                          .fd = fuse_session_fd(session->fuse),
                          .stop = eventfd(0, EFD_CLOEXEC),
                          .spin = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? session->spin * INT64_C(1000) : 0,
                          .readers_wanted = 1,
                          .trials = {.apart = TRIALS_APART, .lost_apart = LOST_APART}};
    const int unready = loop->stop < 0 || fcntl(loop->fd, F_SETFL, O_NONBLOCK) ? -errno : 0;
    awake_setup(&loop->awake, session->awake);
    crew_setup(&loop->crew, count);
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->turn, NULL);
    if (unready)
        return unready;
    const size_t wanted = count < WORKERS_MIN ? WORKERS_MIN : count > WORKERS_MAX ? WORKERS_MAX : count;
    int error = 0;
    pthread_mutex_lock(&loop->lock); /* nobody serves before all are there */
    for (size_t i = 0; i < wanted; i++) {
        int failed = pthread_create(&loop->workers[loop->workers_count], NULL, work, loop);
        if (failed)
            error = -failed;
        else
            loop->workers_count++;
    }
    pthread_mutex_unlock(&loop->lock);
    return loop->workers_count ? 0 : error; /* fewer will do */
}

void loop_end(struct session *session)
{
    struct loop *loop = session->loop;
    if (!loop)
        return;
    if (loop->stop >= 0)
        end(loop);
    for (size_t i = 0; i < loop->workers_count; i++)
        pthread_join(loop->workers[i], NULL);
    if (loop->stop >= 0)
        close(loop->stop);
    awake_free(&loop->awake);
    crew_free(&loop->crew);
    pthread_mutex_destroy(&loop->lock);
    pthread_cond_destroy(&loop->turn);
    free(loop);
}

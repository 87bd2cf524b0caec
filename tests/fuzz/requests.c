/*
 * Fuzzes what the daemon does with requests.
 *
 * The daemon is the real one, down to its writes to the kernel's device. In place of that is kernel.c, which asks what
 * the input, a script, says (script.h), and checks the answers: each request that has an answer gets exactly one, whole
 * and in range. AddressSanitizer watches the rest. The daemon's main thread and one worker are threads of their own, as
 * they take on callers' rights, but only one of them and of us runs at a time; the core's own, that watch semaphores,
 * and those that wait for native locks run when they like.
 *
 * A script may have a first line `init FLAGS FLAGS2 MINOR` for another kernel than one that can do everything but
 * passthrough, with which there is less to do.
 */
#define main ipcfs_main
#define run ipcfs_run
#include "../../fs/main.c"
#undef main
#undef run

/* The device is where their system calls end. */
#include <sys/ioctl.h>
#include <sys/uio.h>
static ssize_t hand_over(int fd, const struct iovec *iov, int count);
static int back(unsigned long request);
#define writev(fd, iov, count) hand_over(fd, iov, count)
#define write(fd, data, size) hand_over(fd, &(struct iovec){(void *)(data), size}, 1)
#define ioctl(fd, request, argument) ((void)(fd), (void)(argument), back(request))
#define serve serve_express
#include "../../fs/device.c"
#include "../../fs/express.c"
#include "../../fs/passthrough.c"
#undef writev
#undef write
#undef ioctl
#undef serve

/* The main thread's loop is entered again and again here, and returns when nothing is left to do. */
static int look_without_waiting(int epoll, struct epoll_event *events, int room, int timeout);
#include <sys/epoll.h>
#define epoll_wait look_without_waiting
#include "../../fs/session.c"
#undef epoll_wait

#include "fuzz.h"
#include "kernel.h"
#include "mutate.h"
#include "world.h"

#include "../../fs/recent.h"

#include <semaphore.h>
#include <sys/socket.h>

enum { REPLY_MAX = (1 << 20) + (1 << 16), LINES_MAX = 200, MOMENT = 500 /* microseconds */ };

static struct session session;
static int kernel_end_of_socket; /* the other is the daemon's device */
static int no_signals;           /* what run() would take signals from */

static int look_without_waiting(int epoll, struct epoll_event *events, int room, int timeout)
{
    (void)timeout;
    int count = epoll_wait(epoll, events, room, 0);
    __atomic_store_n(&session.ended, count <= 0, __ATOMIC_SEQ_CST);
    return count < 0 ? 0 : count;
}

/* ---- The daemon's device ---- */

/* The requests come by two descriptors in turn. */
static unsigned device_of(uint64_t unique)
{
    return unique / 2 % 2;
}

/* Any thread's. */
static ssize_t hand_over(int fd, const struct iovec *iov, int count)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char reply[REPLY_MAX] __attribute__((aligned(8)));
    const struct fuse_out_header *header = iov[0].iov_base;
    size_t size = 0;
    check(!header->unique || header->unique & 1 || fd == session.devices.fds[device_of(header->unique)],
          "an answer that goes by another descriptor than its request came by");
    if (kernel_is_deaf(iov[0].iov_base)) {
        errno = ENOENT;
        return -1;
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) {
        check(size + iov[i].iov_len <= sizeof reply, "an answer that is longer than anything is");
        memcpy(reply + size, iov[i].iov_base, iov[i].iov_len);
        size += iov[i].iov_len;
    }
    kernel_take(reply, size);
    pthread_mutex_unlock(&lock);
    return size;
}

static int backed; /* backing files of passthrough, with the daemon's nodes_lock */

static int back(unsigned long request)
{
    if (request != BACKING_OPEN && request != BACKING_CLOSE) {
        errno = ENOTTY;
        return -1;
    }
    backed += request == BACKING_OPEN ? 1 : -1;
    return 1;
}

static int open_device(void)
{
    const int room = 4 << 20;
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "no socket");
    for (size_t i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    kernel_end_of_socket = ends[1];
    return ends[0];
}

/* ---- The daemon ---- */

static void (*on_fault)(int, siginfo_t *, void *);

/* core/fault.c lets the default come about for what is none of its business, which libFuzzer would not hear of. */
static void report_fault(int signal, siginfo_t *info, void *context)
{
    on_fault(signal, info, context);
    check(false, "SIGBUS");
}

static void watch_faults(void)
{
    struct sigaction action;
    sigaction(SIGBUS, NULL, &action);
    on_fault = action.sa_sigaction;
    action.sa_sigaction = report_fault;
    sigaction(SIGBUS, &action, NULL);
}

/* ---- Its threads ---- */

static struct thread {
    pthread_t thread;
    sem_t asked, done;
    void (*job)(void); /* NULL: it ends */
} main_thread, worker;

/* As session_serve does, but for what is the fuzzer's to report. */
static void block_signals(void)
{
    static const int reported[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGABRT};
    sigset_t signals;
    sigfillset(&signals);
    for (size_t i = 0; i < sizeof reported / sizeof *reported; i++)
        sigdelset(&signals, reported[i]);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

static void *work_off(void *arg)
{
    struct thread *thread = arg;
    block_signals();
    for (;;) {
        while (sem_wait(&thread->asked))
            ;
        if (!thread->job) {
            caller_forget();
            return NULL;
        }
        world_at_work(true);
        thread->job();
        world_at_work(false);
        sem_post(&thread->done);
    }
}

/* It begins with the rights of the thread that calls. */
static void start_thread(struct thread *thread)
{
    sem_init(&thread->asked, 0, 0);
    sem_init(&thread->done, 0, 0);
    check(pthread_create(&thread->thread, NULL, work_off, thread) == 0, "no thread");
}

static void do_in(struct thread *thread, void (*job)(void))
{
    thread->job = job;
    sem_post(&thread->asked);
    while (sem_wait(&thread->done))
        ;
}

static void end_thread(struct thread *thread)
{
    thread->job = NULL;
    sem_post(&thread->asked);
    pthread_join(thread->thread, NULL);
}

/* ---- What they do ---- */

static struct fuse_buf received, exact;

/* As main.c begins. */
static void begin(void)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};
    char *argv[] = {"ipcfs", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    session = (struct session){.no_passthrough = false};
    check(set_up(&session) == 0, "it does not start");
    watch_faults();
    session.fuse = fuse_session_new(&args, &operations, sizeof operations, &session);
    fuse_opt_free_args(&args);
    check(session.fuse && fuse_session_custom_io(session.fuse, &io, open_device()) == 0, "no session");
    devices_setup(&session);
    session.devices.fds[session.devices.count++] = fcntl(session.devices.fds[0], F_DUPFD_CLOEXEC, 0);
}

static void settle_in(void)
{
    device_use(device_of(2));
    check(session_begin(&session) == 0, "no connection");
    passthrough_decide(&session);
    rights_settle(session.everyone);
    for (size_t i = 0; i < WAKE_UPS; i++)
        session.wake_ups[i] = i;
    check(watch_descriptor(&session, session.bell, WAKE_BELL) == 0, "no bell");
    check(watch_descriptor(&session, session.timers.fd, WAKE_TIMER) == 0, "no timer");
    start_thread(&worker);
}

static void process(void)
{
    device_use(device_of(((const struct fuse_in_header *)exact.mem)->unique));
    if (!express(&session, exact.mem, exact.size))
        fuse_session_process_buf(session.fuse, &exact);
}

static void go_on(void)
{
    session.ended = false;
    run(&session, no_signals);
}

/* As session_serve and main.c end. */
static void end(void)
{
    fuse_session_exit(session.fuse);
    end_thread(&worker);
    kernel_disconnect();
    park_end(&session);
    locks_end(&session);
    look_at_retired(&session);
    rights_raise();
    tear_down(&session);
    fuse_session_destroy(session.fuse);
    check(!session.locks.files, "locks of nobody are left");
    check(!backed, "backing files of nobody are left");
}

void daemon_process(const void *request, size_t size)
{
    check(send(kernel_end_of_socket, request, size, 0) == (ssize_t)size, "a request that can't be sent");
    if (((const struct fuse_in_header *)request)->opcode == FUSE_INIT) {
        do_in(&main_thread, settle_in);
        return;
    }
    check(fuse_session_receive_buf(session.fuse, &received) == (int)size, "a request that does not arrive");
    /* With nothing behind it, so that a step too far is seen. */
    exact = (struct fuse_buf){.mem = memcpy(malloc(size), received.mem, size), .size = size};
    do_in(&worker, process);
    free(exact.mem);
    do_in(&main_thread, go_on);
}

static void tidy(void)
{
    recent_expire(&session);
}

void daemon_pause(void)
{
    usleep(MOMENT);
    do_in(&worker, tidy);
    do_in(&main_thread, go_on);
}

static void start_daemon(void)
{
    start_thread(&main_thread);
    do_in(&main_thread, begin);
}

static void stop_daemon(void)
{
    do_in(&main_thread, end);
    end_thread(&main_thread);
    close(kernel_end_of_socket);
    free(received.mem);
    received.mem = NULL;
}

/* ---- The fuzzer ---- */

/* Less to copy when the daemon forks. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8";
}

static void log_nothing(enum fuse_log_level level, const char *format, va_list arguments)
{
    (void)level, (void)format, (void)arguments;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    world_enter();
    fuse_set_log_func(log_nothing);
    no_signals = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return 0;
}

/* After its last close the rest of a text waits for room in a queue. */
static bool any_text_waits(void)
{
    for (size_t i = 0; i < session.objects_size; i++)
        for (const struct object *object = session.objects[i]; object; object = object->next)
            if (!TAILQ_EMPTY(&object->waiting[SEND]))
                return true;
    return false;
}

static void check_oblivion(void)
{
    do_in(&main_thread, go_on);
    if (any_text_waits())
        return;
    check(!session.nodes_count, "nodes that nobody forgets");
    check(!session.shares.users, "descriptors that are counted for nobody");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct field text = {(const char *)data, size}, rest = text;
    struct script_line line = {.count = 0};
    uint32_t flags = ~0U, flags2 = ~INIT_PASSTHROUGH, minor = 38;
    if (script_next(&rest, &line) && field_is(&line.word, "init")) {
        text = rest;
        flags = field_number(&line.fields[0]);
        flags2 = field_number(&line.fields[1]);
        minor = 34 + field_number(&line.fields[2]) % 16; /* Linux 5.16 has 7.34 */
    }
    world_begin();
    size_t descriptors = world_count_descriptors();
    start_daemon();
    kernel_begin(flags, flags2, minor);
    for (size_t i = 0; i < LINES_MAX && script_next(&text, &line); i++)
        kernel_run(&line);
    world_relax();
    if (kernel_let_go())
        check_oblivion();
    stop_daemon();
    kernel_end();
    world_end();
    check(world_count_descriptors() == descriptors, "descriptors that nobody closes");
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    return mutate_script((char *)data, size, most, seed);
}

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

struct ipc *ipc;
static const char *running = "";

/* ---- Names ---- */

/* The names that the running test has made, and what they may stand for. Shared with the process that removes it. */
static struct made {
    char shm_file[300], sem_file[300];
    char native[300];
} * all_made;
static unsigned *made_count;
#define MADE_MAX 4096

static void share_names(void)
{
    size_t size = sizeof *made_count + MADE_MAX * sizeof *all_made;
    made_count = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(made_count != MAP_FAILED);
    all_made = (struct made *)(made_count + 1);
}

static void remove_objects(void)
{
    for (; *made_count; --*made_count) {
        struct made *made = &all_made[*made_count - 1];
        remove(made->sem_file);
        remove(made->shm_file);
        mq_unlink(made->native);
    }
}

static const char *new_name_cut(const char *ending, size_t size)
{
    static unsigned number;
    char name[300];
    snprintf(name, sizeof name, "ipc-test-%d-%u%s", getpid(), number++, ending);
    CHECK(size < 280 && *made_count < MADE_MAX);
    name[size] = 0;
    struct made *made = &all_made[(*made_count)++];
    snprintf(made->native, sizeof made->native, "/%.280s", name);
    snprintf(made->shm_file, sizeof made->shm_file, "/dev/shm/%.280s", name);
    snprintf(made->sem_file, sizeof made->sem_file, "/dev/shm/sem.%.280s", name);
    return made->native + 1;
}

const char *new_name_ending(const char *ending)
{
    return new_name_cut(ending, 279);
}

const char *new_name(void)
{
    return new_name_ending("");
}

const char *new_name_of_size(size_t size)
{
    char ending[281];
    memset(ending, 'x', sizeof ending - 1);
    ending[sizeof ending - 1] = 0;
    return new_name_cut(ending, size);
}

static const struct made *made_of(const char *name)
{
    return (const struct made *)(name - 1 - offsetof(struct made, native));
}

const char *native(const char *name)
{
    return made_of(name)->native;
}

const char *file_of(enum ipc_kind kind, const char *name)
{
    CHECK(kind != IPC_MQ);
    return kind == IPC_SEM ? made_of(name)->sem_file : made_of(name)->shm_file;
}

void make_native(enum ipc_kind kind, const char *name)
{
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64};
    if (kind == IPC_SEM) {
        sem_t *sem = sem_open(native(name), O_CREAT | O_EXCL, 0600, 0);
        CHECK(sem != SEM_FAILED);
        sem_close(sem);
    } else {
        int fd = kind == IPC_SHM ? shm_open(native(name), O_CREAT | O_EXCL | O_RDWR, 0600)
                                 : mq_open(native(name), O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
        CHECK(fd >= 0);
        close(fd);
    }
}

/* ---- Checks and tests ---- */

void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s: not so: %s\n", file, line, running, what);
    _exit(1);
}

void check_is(const char *file, int line, const char *call, int64_t actual, const char *name, int64_t expected)
{
    if (actual == expected)
        return;
    char what[500];
    snprintf(what, sizeof what, "%s is %s (%ld); it is %ld (%s)", call, name, (long)expected, (long)actual,
             actual < 0 ? strerror(-(int)actual) : "no error");
    check_failed(file, line, what);
}

void skip(const char *why)
{
    printf("    in part: %s\n", why);
}

bool is_root(void)
{
    return geteuid() == 0;
}

static void on_interrupt(int signal_number)
{
    (void)signal_number;
}

static void *nothing(void *arg)
{
    return arg;
}

static void run(const struct test *test)
{
    running = test->name;
    printf("%s\n", test->name);
    fflush(stdout);
    alarm(60);
    unsigned descriptors = count_descriptors(), threads = count_threads();
    CHECK_IS(ipc_new(&ipc), 0);
    test->run();
    ipc_free(ipc);
    CHECK_IS(count_descriptors(), descriptors);
    AWAIT(count_threads() <= threads);
    remove_objects();
}

static int run_all(const struct test *tests, char **argv)
{
    struct sigaction interrupt = {.sa_handler = on_interrupt}; /* without SA_RESTART */
    CHECK(sigaction(SIGUSR1, &interrupt, NULL) == 0);

    /* The thread sanitizer starts a thread of its own with the first one. */
    pthread_t thread;
    CHECK_IS(pthread_create(&thread, NULL, nothing, NULL), 0);
    pthread_join(thread, NULL);

    unsigned ran = 0;
    for (; tests->run; tests++) {
        bool wanted = !argv[1] && !tests->broken;
        for (char **name = argv + 1; !wanted && argv[1] && *name; name++)
            wanted = !strcmp(*name, tests->name);
        if (wanted)
            run(tests), ran++;
    }
    CHECK(ran); /* else there is no test of that name */
    return 0;
}

static volatile sig_atomic_t worker;

static void end_worker(int signal_number)
{
    (void)signal_number;
    kill(worker, SIGKILL);
}

/* In a child, so that what it made is removed however it ends. */
int run_tests(const struct test *tests, char **argv)
{
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP};
    int status;
    share_names();
    worker = fork();
    CHECK(worker >= 0);
    if (!worker)
        exit(run_all(tests, argv));
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        signal(ends[i], end_worker);
    while (waitpid(worker, &status, 0) < 0)
        CHECK(errno == EINTR);
    remove_objects();
    if (WIFSIGNALED(status))
        fprintf(stderr, "the last test ended by: %s%s\n", strsignal(WTERMSIG(status)),
                WTERMSIG(status) == SIGALRM ? " (not done after a minute)" : "");
    return !WIFEXITED(status) || WEXITSTATUS(status);
}

/* ---- Others ---- */

static void *peer_thread(void *arg)
{
    struct peer *peer = arg;
    peer->id = gettid();
    peer->result = peer->call(peer->arg);
    peer->returned = true;
    return NULL;
}

void peer_start(struct peer *peer, int (*call)(void *arg), void *arg)
{
    peer->call = call;
    peer->arg = arg;
    peer->id = 0;
    peer->returned = false;
    CHECK_IS(pthread_create(&peer->thread, NULL, peer_thread, peer), 0);
    AWAIT(peer->id);
}

void peer_start_asleep(struct peer *peer, int (*call)(void *arg), void *arg)
{
    peer_start(peer, call, arg);
    while (!is_asleep(peer->id)) {
        CHECK(!peer->returned);
        sched_yield();
    }
}

void peer_interrupt(struct peer *peer)
{
    while (!peer->returned) {
        CHECK_IS(pthread_kill(peer->thread, SIGUSR1), 0);
        sched_yield();
    }
}

int peer_result(struct peer *peer)
{
    CHECK_IS(pthread_join(peer->thread, NULL), 0);
    return peer->result;
}

bool is_asleep(pid_t thread)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false; /* it has ended */
    CHECK(read(fd, text, sizeof text - 1) >= 0 || errno == ESRCH);
    close(fd);
    char *end = strrchr(text, ')');
    return end && end[2] == 'S';
}

unsigned waiters_of(const char *name)
{
    uint64_t word;
    int fd = open(file_of(IPC_SEM, name), O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pread(fd, &word, sizeof word, 0) == sizeof word);
    close(fd);
    return word >> 32;
}

static unsigned count_entries(const char *path)
{
    unsigned entries = 0;
    struct dirent *entry;
    DIR *directory = opendir(path);
    CHECK(directory);
    while ((entry = readdir(directory)))
        entries += *entry->d_name != '.';
    closedir(directory);
    return entries;
}

unsigned count_threads(void)
{
    return count_entries("/proc/self/task");
}

unsigned count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

void in_child(void (*call)(void *arg), void *arg)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        call(arg);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_IS(status, 0);
}

void become_nobody(void)
{
    CHECK(setgroups(0, NULL) == 0);
    CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
    CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

void become_nobody_for_files(void)
{
    CHECK(setgroups(0, NULL) == 0);
    setfsgid(NOBODY);
    setfsuid(NOBODY);
    CHECK_IS(setfsuid(NOBODY), NOBODY);
}

/* ---- Time ---- */

struct timespec milliseconds_from_now(int64_t milliseconds)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    int64_t nanoseconds = time.tv_nsec + milliseconds * 1000000;
    time.tv_sec += nanoseconds / 1000000000;
    time.tv_nsec = nanoseconds % 1000000000;
    if (time.tv_nsec < 0)
        time.tv_sec--, time.tv_nsec += 1000000000;
    return time;
}

bool has_passed(const struct timespec *deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec || (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

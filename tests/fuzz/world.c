#include "world.h"
#include "fuzz.h"
#include "natives.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHM "/dev/shm"
#define QUEUES "/dev/mqueue"

/* ---- Namespaces ---- */

static pid_t inside;

static void pass_signal(int signal)
{
    kill(inside, signal);
}

static void mount_own(const char *type, const char *path, const char *options)
{
    check(mount("fuzz", path, type, MS_NOSUID | MS_NODEV, options) == 0, "a file system cannot be mounted");
}

/* A mount of another's daemon, copied here, would keep that daemon from ending. */
static void let_go_of_mounts(void)
{
    FILE *mounts = setmntent("/proc/self/mounts", "r");
    check(mounts != NULL, "the mounts cannot be read");
    for (struct mntent *entry; (entry = getmntent(mounts));)
        if (strcmp(entry->mnt_type, "fuse.ipcfs") == 0)
            umount2(entry->mnt_dir, MNT_DETACH);
    endmntent(mounts);
}

void world_enter(void)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID)) {
        perror("namespaces of its own, which the fuzzer needs root for");
        exit(2);
    }
    inside = fork();
    check(inside >= 0, "no process");
    if (inside) {
        int status = 0;
        signal(SIGINT, pass_signal);
        signal(SIGTERM, pass_signal);
        while (waitpid(inside, &status, 0) < 0)
            ;
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "the mounts cannot be made private");
    let_go_of_mounts();
    mount_own("proc", "/proc", NULL);
    mount_own("tmpfs", SHM, "size=8m,mode=1777");
    mkdir(QUEUES, 0777);
    mount_own("mqueue", QUEUES, NULL);
}

/* ---- Callers ---- */

static struct user users[] = {{0, 0, 0}, {71001, 71001, 0}, {71002, 71002, 0}, {71003, 71003, 0}};
enum { USERS = sizeof users / sizeof *users, UNSEEN = USERS - 1 };

static void start(struct user *user)
{
    static const gid_t groups[] = {71900, 71901};
    user->pid = vfork();
    if (user->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        syscall(SYS_setgroups, 2, groups);
        syscall(SYS_setresgid, user->gid, user->gid, user->gid);
        syscall(SYS_setresuid, user->uid, user->uid, user->uid);
        execl("/bin/sleep", "sleep", "infinity", NULL);
        _exit(1);
    }
    check(user->pid > 0, "no process");
}

void world_begin(void)
{
    for (struct user *user = users; user < users + UNSEEN; user++)
        if (!user->pid || waitpid(user->pid, NULL, WNOHANG) || kill(user->pid, 0))
            start(user);
}

struct user *world_user(uint64_t number)
{
    return &users[number % USERS];
}

void world_kill(struct user *user)
{
    if (user->pid && kill(user->pid, SIGKILL) == 0)
        waitpid(user->pid, NULL, 0); /* its number stays, and is nobody's */
}

/* ---- Shortages ---- */

static int64_t allocations = -1; /* that do not fail any more; below 0: none will */
static __thread bool at_work;

void world_starve(uint64_t after)
{
    __atomic_store_n(&allocations, after % 100, __ATOMIC_SEQ_CST);
}

void world_at_work(bool is)
{
    at_work = is;
}

static bool fails(void)
{
    return at_work && __atomic_load_n(&allocations, __ATOMIC_SEQ_CST) >= 0 &&
           __atomic_fetch_sub(&allocations, 1, __ATOMIC_SEQ_CST) == 0;
}

/* The linker lets the daemon's objects call these (--wrap). */
#define WRAP(type, name, parameters, arguments)                                                                        \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters                                                                                      \
    {                                                                                                                  \
        if (fails()) {                                                                                                 \
            errno = ENOMEM;                                                                                            \
            return NULL;                                                                                               \
        }                                                                                                              \
        return __real_##name arguments;                                                                                \
    }
WRAP(void *, malloc, (size_t size), (size))
WRAP(void *, calloc, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, (void *old, size_t size), (old, size))
WRAP(void *, reallocarray, (void *old, size_t count, size_t size), (old, count, size))
WRAP(char *, strdup, (const char *text), (text))

static struct rlimit descriptors;

void world_limit_descriptors(uint64_t left)
{
    struct rlimit limit;
    int fd = 0;
    for (left %= 32; left || fcntl(fd, F_GETFD) >= 0; fd++)
        left -= fcntl(fd, F_GETFD) < 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (!descriptors.rlim_max)
        descriptors = limit;
    limit.rlim_cur = fd;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void world_relax(void)
{
    allocations = -1;
    if (descriptors.rlim_max)
        setrlimit(RLIMIT_NOFILE, &descriptors);
}

static void empty(const char *path)
{
    char name[600];
    DIR *directory = opendir(path);
    check(directory, "a directory is gone");
    for (struct dirent *entry; (entry = readdir(directory));) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            check(remove(name) == 0, "a file can't be removed");
    }
    closedir(directory);
}

size_t world_count_descriptors(void)
{
    size_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    check(directory, "a directory is gone");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* The daemon's have ended and were waited for. */
static void check_children(void)
{
    siginfo_t info = {.si_pid = 0};
    for (struct user *user = users; user < users + USERS; user++)
        if (user->pid && waitpid(user->pid, NULL, WNOHANG) > 0)
            user->pid = 0;
    int failed = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
    check(failed || !info.si_pid, "a process that nobody waits for");
}

void world_end(void)
{
    natives_end();
    check_children();
    empty(SHM);
    empty(QUEUES);
}

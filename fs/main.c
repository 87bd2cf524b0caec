/* The command: ipcfs [options] [SOURCE] MOUNTPOINT. */
#include "awake.h"
#include "device.h"
#include "listing.h"
#include "lock.h"
#include "loop.h"
#include "notifier.h"
#include "park.h"
#include "passthrough.h"
#include "process.h"
#include "recent.h"
#include "rights.h"
#include "session.h"
#include "share.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

struct settings {
    bool helper; /* run as mount.ipcfs, with mount(8)'s own options */
    int help;
    int version;
    int foreground;
    int debug;
    int no_passthrough;
    char *spin;
    char *awake;
    char *mountpoint;
};

enum { KEY_IGNORED, KEY_HELPER };

/* libfuse's messages come from the same command as ours. */
static void log_message(enum fuse_log_level level, const char *format, va_list arguments)
{
    if (level < FUSE_LOG_DEBUG && !strncmp(format, "fuse: ", 6)) {
        fputs("ipcfs: ", stderr);
        format += 6;
    }
    vfprintf(stderr, format, arguments);
}

static const struct fuse_opt options[] = {
    {"-h", offsetof(struct settings, help), 1},
    {"--help", offsetof(struct settings, help), 1},
    {"-V", offsetof(struct settings, version), 1},
    {"--version", offsetof(struct settings, version), 1},
    {"-f", offsetof(struct settings, foreground), 1},
    {"-d", offsetof(struct settings, debug), 1},
    {"debug", offsetof(struct settings, debug), 1},
    {"no_passthrough", offsetof(struct settings, no_passthrough), 1},
    {"spin=%s", offsetof(struct settings, spin), 0},
    {"awake=%s", offsetof(struct settings, awake), 0},
    FUSE_OPT_KEY("-d", FUSE_OPT_KEY_KEEP),
    FUSE_OPT_KEY("debug", FUSE_OPT_KEY_KEEP),
    /* What mount(8) hands on that is for fstab(5) alone. */
    FUSE_OPT_KEY("nofail", KEY_IGNORED),
    FUSE_OPT_KEY("_netdev", KEY_IGNORED),
    FUSE_OPT_KEY("auto", KEY_IGNORED),
    FUSE_OPT_KEY("noauto", KEY_IGNORED),
    FUSE_OPT_KEY("defaults", KEY_IGNORED),
    FUSE_OPT_KEY("user", KEY_IGNORED),
    FUSE_OPT_KEY("users", KEY_IGNORED),
    FUSE_OPT_KEY("owner", KEY_IGNORED),
    FUSE_OPT_KEY("group", KEY_IGNORED),
    FUSE_OPT_KEY("relatime", KEY_IGNORED),
    FUSE_OPT_KEY("-n", KEY_HELPER),
    FUSE_OPT_KEY("-s", KEY_HELPER),
    FUSE_OPT_KEY("-v", KEY_HELPER),
    FUSE_OPT_END,
};

static const char help[] = "Usage: ipcfs [options] [SOURCE] MOUNTPOINT\n"
                           "Mount this machine's POSIX semaphores, shared memory and message queues as\n"
                           "files in MOUNTPOINT/sem, /shm and /mq.\n"
                           "\n"
                           "  -h, --help       show this and exit\n"
                           "  -V, --version    show the version and exit\n"
                           "  -f               stay in the foreground\n"
                           "  -d, -o debug     stay in the foreground and show each request\n"
                           "  -o OPTION[,...]  mount options; those of mount(8) (ro, nosuid, noexec ...)\n"
                           "                   and of mount.fuse3(8) (allow_other, auto_unmount, fsname=)\n"
                           "  -o no_passthrough  no mmap(MAP_SHARED) of shm/ files, which then work as if\n"
                           "                   the kernel were older than 6.9\n"
                           "  -o spin=N        look for the next request up to N microseconds before\n"
                           "                   sleeping, while they come that quickly; 0: never; else 100\n"
                           "  -o awake=N       keep idle cores from sleeping while requests come that\n"
                           "                   quickly, on a machine of up to N cores; 0: never; else 8\n"
                           "\n"
                           "Root's mount serves all users, each with their own rights; another user's\n"
                           "serves that user. Unmount with umount, or fusermount3 -u as a user.\n"
                           "\n"
                           "Exit status: 0 success, 1 it could not be mounted or served, 2 wrong usage.\n"
                           "See ipcfs(8), and ipcfs(5) or MOUNTPOINT/README for how to use the files.\n";

static int on_argument(void *data, const char *arg, int key, struct fuse_args *rest)
{
    (void)rest;
    struct settings *settings = data;
    if (key == KEY_IGNORED || (key == FUSE_OPT_KEY_OPT && !strncmp(arg, "x-", 2)))
        return 0;
    if (key == KEY_HELPER)
        return !settings->helper;
    if (key != FUSE_OPT_KEY_NONOPT)
        return 1;
    if (settings->mountpoint && strchr(settings->mountpoint, '/')) {
        fprintf(stderr, "ipcfs: %s: one mount point at a time; %s is one already\n", arg, settings->mountpoint);
        return -1;
    }
    /* As mount(8) has it: a source comes first. It is any word, and means nothing. */
    free(settings->mountpoint);
    settings->mountpoint = strdup(arg);
    if (!settings->mountpoint)
        fprintf(stderr, "ipcfs: %s\n", strerror(ENOMEM));
    return settings->mountpoint ? 0 : -1;
}

/* The mount point's full path, as we leave the current directory; NULL after a message. */
static char *check_mountpoint(const char *mountpoint)
{
    struct stat st;
    if (stat(mountpoint, &st)) {
        if (errno == ENOENT)
            fprintf(stderr, "ipcfs: %s: no such directory; make it first: mkdir -p %s\n", mountpoint, mountpoint);
        else if (errno == ENOTCONN)
            fprintf(stderr, "ipcfs: %s: a mount whose daemon has ended; unmount it first: umount %s\n", mountpoint,
                    mountpoint);
        else
            fprintf(stderr, "ipcfs: %s: %s\n", mountpoint, strerror(errno));
        return NULL;
    }
    if (!S_ISDIR(st.st_mode)) {
        fprintf(stderr, "ipcfs: %s: not a directory; choose one to mount on\n", mountpoint);
        return NULL;
    }
    char *path = realpath(mountpoint, NULL);
    if (!path)
        fprintf(stderr, "ipcfs: %s: %s\n", mountpoint, strerror(errno));
    return path;
}

static bool check_device(void)
{
    if (access("/dev/fuse", F_OK)) {
        fprintf(stderr,
                "ipcfs: /dev/fuse: %s; load the kernel's module (modprobe fuse) or, in a container, pass the "
                "device in (--device /dev/fuse)\n",
                strerror(errno));
        return false;
    }
    return true;
}

static void explain(int error)
{
    const char *why = strerror(-error);
    if (error == -ENOSYS)
        why = "the kernel has no futex_waitv(2); Linux 5.16 or later is needed";
    else if (error == -ENOTSUP)
        why =
            "semaphores of this libc are not laid out as glibc's 64-bit ones since 2.21, which is what ipcfs works on";
    else if (error == -ENOENT)
        why = "/dev/shm and /proc are needed; mount them first";
    fprintf(stderr, "ipcfs: cannot start: %s\n", why);
}

static bool check_proc(void)
{
    if (access("/proc/self/status", F_OK) == 0 && !proc_is_ours()) {
        fprintf(stderr, "ipcfs: /proc is that of another PID namespace, so callers can't be told apart; mount this "
                        "namespace's own first (mount -t proc proc /proc)\n");
        return false;
    }
    return true;
}

static int set_up(struct session *session)
{
    session->owner = geteuid();
    session->group = getegid();
    session->everyone = session->owner == 0;
    clock_gettime(CLOCK_REALTIME, &session->started);
    pthread_mutex_init(&session->retired_lock, NULL);
    locks_setup(session);
    recent_setup(session);
    shares_setup(session);
    int error = ipc_new(&session->ipc);
    if (!error)
        error = nodes_setup(session);
    if (!error)
        error = objects_setup(session);
    if (!error)
        error = notifier_setup(session);
    if (!error)
        error = timers_setup(&session->timers);
    if (error)
        return error;
    session->epoll = epoll_create1(EPOLL_CLOEXEC);
    session->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return session->epoll < 0 || session->bell < 0 ? -errno : 0;
}

static void tear_down(struct session *session)
{
    devices_close(session);
    listings_free(session);
    nodes_free(session);
    notifier_free(session);
    ipc_free(session->ipc);
    objects_free(session);
    timers_free(&session->timers);
    shares_free(session);
    close(session->epoll);
    close(session->bell);
}

static void raise_limit(int resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(resource, &limit);
    }
}

/* A daemon of root's outlives who started it, whose environment is nobody's business, and whose groups are nobody's
 * rights. */
static int forget_starter(void)
{
    for (char **variable = environ; variable && *variable; variable++)
        memset(*variable, 0, strlen(*variable));
    clearenv();
    return setgroups(0, NULL) || setresgid(0, 0, 0) || setresuid(0, 0, 0) ? -errno : 0;
}

static int serve(struct session *session, struct fuse_args *args, const struct settings *settings,
                 const char *mountpoint)
{
    char defaults[128];
    struct statvfs st;
    /* What may not be run there may not be run here. */
    bool noexec = statvfs("/dev/shm", &st) == 0 && st.f_flag & ST_NOEXEC;
    snprintf(defaults, sizeof defaults, "fsname=ipcfs,subtype=ipcfs%s%s", session->everyone ? ",allow_other" : "",
             noexec ? ",noexec" : "");
    /* First, so that the user's own come after and win. */
    if (fuse_opt_insert_arg(args, 1, defaults) || fuse_opt_insert_arg(args, 1, "-o"))
        return EXIT_FAILURE;
    session->fuse = fuse_session_new(args, &operations, sizeof operations, session);
    if (!session->fuse) {
        fprintf(stderr, "ipcfs: see ipcfs --help for the options\n");
        return EXIT_USAGE;
    }
    int status = EXIT_FAILURE;
    if (fuse_session_mount(session->fuse, mountpoint)) {
        fprintf(stderr, "ipcfs: %s: could not be mounted%s\n", mountpoint,
                session->everyone ? "" : "; an ordinary user needs fusermount3 and the right to write the directory");
    } else {
        passthrough_setup(session);
        int error = session_begin(session);
        if (!error) {
            const char *reason = passthrough_decide(session);
            if (reason)
                fprintf(stderr, "ipcfs: %s: shm/ can be read and written, but not mapped with mmap(MAP_SHARED): %s\n",
                        mountpoint, reason);
        }
        if (!error && fuse_daemonize(settings->foreground || settings->debug) == 0) {
            if (session->everyone)
                error = forget_starter();
            rights_settle(session->everyone);
            if (!error)
                error = session_serve(session);
            rights_raise();
            if (!error)
                status = EXIT_SUCCESS;
        }
        if (error)
            fprintf(stderr, "ipcfs: %s: %s\n", mountpoint, strerror(-error));
        fuse_session_unmount(session->fuse);
    }
    return status;
}

static bool parse_spin(const char *text, unsigned *spin)
{
    int64_t number = SPIN_DEFAULT;
    if (text && !parse_number(text, strlen(text), 0, SPIN_MAX, &number)) {
        fprintf(stderr, "ipcfs: spin=%s: say how many microseconds, from 0 to %d\n", text, SPIN_MAX);
        return false;
    }
    *spin = (unsigned)number;
    return true;
}

static bool parse_awake(const char *text, unsigned *cores)
{
    int64_t number = AWAKE_CORES_DEFAULT;
    if (text && !parse_number(text, strlen(text), 0, INT_MAX, &number)) {
        fprintf(stderr, "ipcfs: awake=%s: say up to how many cores, or 0 for never\n", text);
        return false;
    }
    *cores = (unsigned)number;
    return true;
}

/* What the command line asks for, to be done with the rest of the arguments. */
static int run(const struct settings *settings, struct fuse_args *args)
{
    static struct session session;
    if (settings->help || settings->version) {
        fputs(settings->help ? help : "ipcfs " VERSION "\n", stdout);
        return EXIT_SUCCESS;
    }
    if (!settings->mountpoint) {
        fprintf(stderr, "ipcfs: no mount point; say where, for example: ipcfs /mnt/ipc (see ipcfs --help)\n");
        return EXIT_USAGE;
    }
    if (!parse_spin(settings->spin, &session.spin) || !parse_awake(settings->awake, &session.awake))
        return EXIT_USAGE;
    char *mountpoint = check_mountpoint(settings->mountpoint);
    int status = EXIT_FAILURE;
    if (mountpoint && check_device() && check_proc()) {
        session.no_passthrough = settings->no_passthrough;
        session.debug = settings->debug;
        raise_limit(RLIMIT_NOFILE); /* every open queue is a descriptor */
        raise_limit(RLIMIT_FSIZE);  /* callers have limits of their own */
        int error = set_up(&session);
        if (error) {
            explain(error);
        } else {
            status = serve(&session, args, settings, mountpoint);
            tear_down(&session);
            if (session.fuse)
                fuse_session_destroy(session.fuse);
        }
    }
    free(mountpoint);
    return status;
}

int main(int argc, char **argv)
{
    /* Large buffers come and go for a year: each goes back to the system, whatever was freed before. */
    mallopt(M_MMAP_THRESHOLD, 64 << 10);
    mallopt(M_ARENA_MAX, 2);
    struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
    const char *name = strrchr(argv[0], '/');
    struct settings settings = {.helper = !strncmp(name ? name + 1 : argv[0], "mount.", 6)};
    fuse_set_log_func(log_message);
    int status = EXIT_USAGE;
    if (!fuse_opt_parse(&args, &settings, options, on_argument))
        status = run(&settings, &args);
    free(settings.mountpoint);
    free(settings.spin);
    free(settings.awake);
    fuse_opt_free_args(&args);
    return status;
}

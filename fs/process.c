#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The whole of a file of /proc, ended with a 0, in `room` or, where that is too small, in memory to be freed. */
static char *read_whole(const char *path, char *room, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *text = room;
    size_t length = 0;
    for (;;) {
        ssize_t n = read(fd, text + length, size - 1 - length);
        if (n <= 0)
            break;
        length += n;
        if (length < size - 1)
            continue;
        size *= 2;
        char *more = realloc(text == room ? NULL : text, size);
        if (more && text == room)
            memcpy(more, room, length);
        if (!more) {
            if (text != room)
                free(text);
            text = NULL;
            break;
        }
        text = more;
    }
    close(fd);
    if (text)
        text[length] = 0;
    return text;
}

/* The error where that failed. */
static int why_unread(void)
{
    return errno == ENOMEM || errno == EMFILE || errno == ENFILE ? -errno : -EACCES;
}

/* What follows a key that begins a line. */
static const char *find_field(const char *text, const char *key)
{
    const char *place = strstr(text, key);
    return place ? place + strlen(key) : NULL;
}

/* The number behind a key, or -1. */
static long read_field(const char *path, const char *key)
{
    char room[4096];
    char *text = read_whole(path, room, sizeof room);
    const char *place = text ? find_field(text, key) : NULL;
    long value = place ? atol(place) : -1;
    if (text != room)
        free(text);
    return value;
}

pid_t process_of_thread(pid_t thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", thread);
    long process = read_field(path, "\nTgid:");
    return process > 0 ? (pid_t)process : thread;
}

bool proc_is_ours(void)
{
    char room[4096];
    char *text = read_whole("/proc/self/status", room, sizeof room);
    const char *pids = text ? find_field(text, "\nNSpid:\t") : NULL; /* one for each namespace from /proc's to ours */
    bool ours = pids && pids[strspn(pids, "0123456789")] == '\n';
    if (text != room)
        free(text);
    return ours;
}

/* Do two processes' files of /proc say the same, its and ours? */
static bool same_file_of(pid_t thread, const char *name)
{
    char path[64], our_room[4096], its_room[4096];
    snprintf(path, sizeof path, "/proc/self/%s", name);
    char *ours = read_whole(path, our_room, sizeof our_room);
    snprintf(path, sizeof path, "/proc/%d/%s", thread, name);
    char *its = read_whole(path, its_room, sizeof its_room);
    bool same = ours && its && !strcmp(ours, its);
    if (ours != our_room)
        free(ours);
    if (its != its_room)
        free(its);
    return same;
}

static bool in_our_user_namespace(pid_t thread)
{
    static __thread struct stat ours; /* it stays */
    struct stat its;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", thread);
    if (!ours.st_ino && stat("/proc/self/ns/user", &ours))
        return false;
    if (stat(path, &its) == 0)
        return ours.st_ino == its.st_ino && ours.st_dev == its.st_dev;
    /* Without CAP_SYS_PTRACE. Capabilities are good for the ids that are mapped, so the same ids do. */
    return same_file_of(thread, "uid_map") && same_file_of(thread, "gid_map");
}

int limit_of_process(pid_t pid, const char *name, rlim_t *limit)
{
    char path[64], room[4096];
    unsigned long long bytes;
    snprintf(path, sizeof path, "/proc/%d/limits", pid);
    char *text = read_whole(path, room, sizeof room);
    if (!text)
        return why_unread();
    const char *value = find_field(text, name);
    if (value)
        *limit = sscanf(value, "%llu", &bytes) == 1 ? bytes : RLIM_INFINITY;
    if (text != room)
        free(text);
    return value ? 0 : -EACCES;
}

int core_of_thread(pid_t thread)
{
    enum { FIELD = 39, AFTER_NAME = 2 };
    char path[64], room[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", thread);
    char *text = read_whole(path, room, sizeof room);
    /* The name may hold anything, and is in brackets. */
    const char *place = text ? strrchr(text, ')') : NULL;
    for (int field = AFTER_NAME; place && field < FIELD; field++)
        if ((place = strchr(place, ' ')))
            place++;
    int core = place ? atoi(place) : -1;
    if (text != room)
        free(text);
    return core;
}

static int parse_groups(const char *text, struct credentials *credentials)
{
    const size_t length = strcspn(text, "\n");
    /* Each takes a digit and a space at least. */
    credentials->groups = malloc((length / 2 + 1) * sizeof *credentials->groups);
    if (!credentials->groups)
        return -ENOMEM;
    const char *const line_end = text + length;
    char *end;
    for (;;) {
        text += strspn(text, " \t");
        if (text >= line_end)
            return 0;
        credentials->groups[credentials->groups_count++] = (gid_t)strtoul(text, &end, 10);
        if (end == text)
            return -EACCES;
        text = end;
    }
}

/* Not fuse_req_getgroups, which in libfuse 3.14 looks for the line in a buffer that nothing ends. */
int credentials_of_thread(pid_t thread, struct credentials *credentials)
{
    char path[64], room[4096];
    *credentials = (struct credentials){.groups = NULL};
    snprintf(path, sizeof path, "/proc/%d/status", thread);
    char *text = read_whole(path, room, sizeof room);
    if (!text)
        return why_unread();
    const char *uids = find_field(text, "\nUid:"), *groups = find_field(text, "\nGroups:"),
               *permitted = find_field(text, "\nCapPrm:"), *capabilities = find_field(text, "\nCapEff:");
    bool whole = uids && groups && permitted && capabilities &&
                 sscanf(uids, "%u %*u %*u %u", &credentials->uid, &credentials->fsuid) == 2;
    int error = whole ? parse_groups(groups, credentials) : -EACCES;
    if (error) {
        free(credentials->groups);
    } else {
        credentials->permitted = strtoull(permitted, NULL, 16);
        credentials->capabilities = strtoull(capabilities, NULL, 16);
    }
    if (text != room)
        free(text);
    if (!error && credentials->permitted && !in_our_user_namespace(thread))
        credentials->permitted = credentials->capabilities = 0;
    return error;
}

/* Since Linux 6.15 a pidfd tells of a process's end even when it has been waited for (PIDFD_GET_INFO). */
struct pidfd_end {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, ids[8], exit_code, rest[2];
};
#define PIDFD_END_MASK 8 /* PIDFD_INFO_EXIT */
#define PIDFD_GET_END _IOWR(0xff, 11, struct pidfd_end)

static bool ask_end(int pidfd, int *status)
{
    struct pidfd_end end = {.mask = PIDFD_END_MASK};
    if (ioctl(pidfd, PIDFD_GET_END, &end) || !(end.mask & PIDFD_END_MASK))
        return false;
    *status = (int)end.exit_code;
    return true;
}

/* While it has not been waited for: proc_pid_stat(5)'s exit_code, the last field. */
static bool ask_proc(int pidfd, int *status)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    long pid = read_field(path, "\nPid:");
    if (pid <= 0)
        return false;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[size] = 0;
    const char *last = strrchr(text, ' ');
    *status = last ? atoi(last) : 0;
    return last;
}

int process_status(int pidfd)
{
    int status = 0;
    /* Once more at the end: it may be waited for between the first and the second question. */
    return ask_end(pidfd, &status) || ask_proc(pidfd, &status) || ask_end(pidfd, &status) ? status : 0;
}

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

int send_with_descriptor(int socket, const void *data, size_t size, int fd)
{
    union control control;
    struct iovec iov = {(void *)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

ssize_t receive_with_descriptor(int socket, void *data, size_t size, int *fd, int flags)
{
    union control control;
    struct iovec iov = {data, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *fd = -1;
    ssize_t n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    if (n >= 0 && message.msg_controllen >= CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(&control.header), sizeof *fd);
    return n < 0 ? -errno : n;
}

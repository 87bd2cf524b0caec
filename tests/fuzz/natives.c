#include "natives.h"
#include "model.h"

#include <linux/futex.h>
#include <mqueue.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_SIZE = 300 };

/* Nothing outside of /dev/shm is ever met with. Names are those of the kernel: no slash, no dots. */
static const char *in_shm(const struct value *name, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "/dev/shm/%.255s", name->bytes);
    return path;
}

static int open_in_shm(const struct value *name, int flags)
{
    char path[PATH_SIZE];
    return open(in_shm(name, path), flags | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

static mqd_t open_queue(const struct value *name)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "/%.255s", name->bytes);
    return mq_open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static bool may_be_touched(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)sizeof(sem_t) &&
           fallocate(fd, 0, 0, sizeof(sem_t)) == 0;
}

/* By hand, as sem_post(3) ends the process when the file holds nonsense. */
void native_post(const struct value *v)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "/dev/shm/sem.%.251s", v[0].bytes);
    int fd = open(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    uint32_t *value = MAP_FAILED;
    if (may_be_touched(fd))
        value = mmap(NULL, sizeof(sem_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (value == MAP_FAILED)
        return;
    if (__atomic_load_n(value, __ATOMIC_SEQ_CST) < INT32_MAX)
        __atomic_fetch_add(value, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, value, FUTEX_WAKE, 1, NULL, NULL, 0);
    munmap(value, sizeof(sem_t));
}

void native_send(const struct value *v)
{
    mqd_t queue = open_queue(&v[0]);
    if (queue < 0)
        return;
    mq_send(queue, v[1].bytes, v[1].length, (unsigned)v[2].number);
    mq_close(queue);
}

void native_receive(const struct value *v)
{
    static char message[1 << 16];
    mqd_t queue = open_queue(&v[0]);
    if (queue < 0)
        return;
    mq_receive(queue, message, sizeof message, NULL);
    mq_close(queue);
}

/* What stays: closing it would end it. */
static int registered = -1, locked = -1;

static void let_go(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void native_notify(const struct value *v)
{
    const struct sigevent event = {.sigev_notify = SIGEV_NONE};
    let_go(&registered);
    if (v[1].number)
        registered = open_queue(&v[0]);
    if (registered >= 0)
        mq_notify(registered, &event);
}

void native_unlink_queue(const struct value *v)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "/%.255s", v[0].bytes);
    mq_unlink(path);
}

void native_truncate(const struct value *v)
{
    int fd = open_in_shm(&v[0], O_WRONLY);
    if (fd < 0)
        return;
    int failed = ftruncate(fd, (off_t)(v[1].number & INT64_MAX));
    (void)failed;
    close(fd);
}

void native_write(const struct value *v)
{
    int fd = open_in_shm(&v[0], O_WRONLY);
    if (fd < 0)
        return;
    ssize_t written = pwrite(fd, v[1].bytes, v[1].length, (off_t)(v[2].number & INT64_MAX));
    (void)written;
    close(fd);
}

void native_lock(const struct value *v)
{
    const bool write = v[1].number;
    const struct flock range = {.l_type = write ? F_WRLCK : F_RDLCK,
                                .l_whence = SEEK_SET,
                                .l_start = (off_t)(v[2].number & INT64_MAX),
                                .l_len = (off_t)(v[3].number & INT64_MAX)};
    let_go(&locked);
    locked = open_in_shm(&v[0], O_RDWR);
    if (locked >= 0 && v[4].number)
        flock(locked, (write ? LOCK_EX : LOCK_SH) | LOCK_NB);
    else if (locked >= 0)
        fcntl(locked, F_OFD_SETLK, &range);
}

void native_chmod(const struct value *v)
{
    char path[PATH_SIZE];
    struct stat st;
    if (lstat(in_shm(&v[0], path), &st) == 0 && !S_ISLNK(st.st_mode))
        chmod(path, v[1].number & 07777);
}

void native_unlink(const struct value *v)
{
    char path[PATH_SIZE];
    remove(in_shm(&v[0], path));
}

void native_rename(const struct value *v)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    rename(in_shm(&v[0], from), in_shm(&v[1], to));
}

void native_plant(const struct value *v)
{
    char path[PATH_SIZE], target[PATH_SIZE];
    int failed;
    in_shm(&v[0], path);
    in_shm(&v[2], target);
    switch (*v[1].bytes) {
    case 's':
        failed = symlink(target, path);
        break;
    case 'd':
        failed = mkdir(path, 0777);
        break;
    case 'f':
        failed = mkfifo(path, 0666);
        break;
    default:
        failed = link(target, path);
    }
    (void)failed;
}

void natives_end(void)
{
    let_go(&registered);
    let_go(&locked);
}

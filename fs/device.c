#include "device.h"
#include "rights.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FULL = 192 }; /* waiting requests, less than one for each of the kernel's lists */

static __thread unsigned now;

void devices_setup(struct session *session)
{
    struct devices *devices = &session->devices;
    pthread_mutex_init(&devices->lock, NULL);
    devices->fds[0] = fuse_session_fd(session->fuse);
    devices->count = 1;
}

void devices_close(struct session *session)
{
    struct devices *devices = &session->devices;
    for (unsigned i = 1; i < devices->count; i++)
        close(devices->fds[i]);
    if (devices->count)
        pthread_mutex_destroy(&devices->lock);
}

static unsigned waiting(const struct devices *devices, unsigned device)
{
    return __atomic_load_n(&devices->waiting[device], __ATOMIC_RELAXED);
}

/* One more; without it the requests of another become more, which is only slower. */
static bool add(struct devices *devices)
{
    uint32_t first = (uint32_t)devices->fds[0];
    if (devices->count == DEVICES_MAX)
        return false;
    rights_raise();
    int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    rights_lower();
    if (fd < 0)
        return false;
    if (ioctl(fd, FUSE_DEV_IOC_CLONE, &first)) {
        close(fd);
        return false;
    }
    devices->fds[devices->count] = fd;
    __atomic_store_n(&devices->count, devices->count + 1, __ATOMIC_RELEASE);
    return true;
}

/* The emptiest, or a new one where that is half full. */
static unsigned change(struct devices *devices)
{
    pthread_mutex_lock(&devices->lock);
    unsigned best = 0;
    for (unsigned i = 1; i < devices->count; i++)
        if (waiting(devices, i) < waiting(devices, best))
            best = i;
    if (waiting(devices, best) >= FULL / 2 && add(devices))
        best = devices->count - 1;
    pthread_mutex_unlock(&devices->lock);
    return best;
}

void device_choose(struct session *session)
{
    if (waiting(&session->devices, now) >= FULL)
        now = change(&session->devices);
}

unsigned device_now(void)
{
    return now;
}

void device_use(unsigned device)
{
    now = device;
}

int device_fd(const struct session *session)
{
    return session->devices.fds[now];
}

void device_waits(struct session *session, unsigned device, int change)
{
    __atomic_fetch_add(&session->devices.waiting[device], change, __ATOMIC_RELAXED);
}

ssize_t device_write_to_all(struct session *session, const struct iovec *iov, int count)
{
    ssize_t n = -1;
    const unsigned devices = __atomic_load_n(&session->devices.count, __ATOMIC_ACQUIRE);
    errno = ENOENT;
    for (unsigned i = 0; i < devices && n < 0 && errno == ENOENT; i++)
        n = writev(session->devices.fds[i], iov, count);
    return n;
}

#include "lock_file.h"
#include "kind.h"
#include "rights.h"
#include "share.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare_files(const void *a, const void *b)
{
    const struct lock_file *one = a, *two = b;
    if (one->inode != two->inode)
        return one->inode < two->inode ? -1 : 1;
    return one->device < two->device ? -1 : one->device > two->device;
}

struct lock_file *lock_file_find(const struct handle *handle)
{
    const struct lock_file key = {.device = handle->node->device, .inode = handle->node->inode};
    struct lock_file **found = tfind(&key, &handle->session->locks.files, compare_files);
    return found ? *found : NULL;
}

struct lock_file *lock_file_get(const struct handle *handle)
{
    struct lock_file *file = lock_file_find(handle);
    if (file || !(file = calloc(1, sizeof *file)))
        return file;
    file->session = handle->session;
    file->device = handle->node->device;
    file->inode = handle->node->inode;
    LIST_INIT(&file->owners);
    LIST_INIT(&file->flocked);
    TAILQ_INIT(&file->waits);
    if (!tsearch(file, &file->session->locks.files, compare_files)) {
        free(file);
        return NULL;
    }
    return file;
}

void lock_file_put(struct lock_file *file)
{
    if (!LIST_EMPTY(&file->owners) || !LIST_EMPTY(&file->flocked) || !TAILQ_EMPTY(&file->waits))
        return;
    tdelete(file, &file->session->locks.files, compare_files);
    free(file);
}

int lock_open_again(const struct handle *handle)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", handle->kind->descriptor(handle));
    rights_raise();
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == EACCES || errno == ETXTBSY))
        fd = open(path, (handle->flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC);
    int error = -errno;
    rights_lower();
    return fd < 0 ? error : fd;
}

struct lock_owner *lock_owner_find(struct lock_file *file, uint64_t id)
{
    struct lock_owner *owner;
    LIST_FOREACH (owner, &file->owners, link)
        if (owner->id == id)
            return owner;
    return NULL;
}

int lock_owner_get(struct lock_file *file, struct handle *handle, uint64_t id, struct lock_owner **found)
{
    struct lock_owner *owner = lock_owner_find(file, id);
    if (!owner) {
        int error = share_take(handle->session, handle->opener, 1);
        if (error)
            return error;
        owner = calloc(1, sizeof *owner);
        int fd = owner ? lock_open_again(handle) : -ENOMEM;
        if (fd < 0) {
            share_give(handle->session, handle->opener, 1);
            free(owner);
            return fd;
        }
        *owner = (struct lock_owner){.id = id, .fd = fd, .session = handle->session, .opener = handle->opener};
        LIST_INSERT_HEAD(&file->owners, owner, link);
    }
    owner->via = handle;
    *found = owner;
    return 0;
}

void lock_owner_put(struct lock_owner *owner)
{
    const struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    if (owner->waits) {
        fcntl(owner->fd, F_OFD_SETLK, &all);
        owner->via = NULL;
        return;
    }
    LIST_REMOVE(owner, link);
    close(owner->fd);
    share_give(owner->session, owner->opener, 1);
    free(owner);
}

void lock_owner_leave(struct lock_owner *owner)
{
    if (--owner->waits == 0 && !owner->via)
        lock_owner_put(owner);
}

/* Does the owner hold a range that begins and ends so? (proc_pid_fdinfo(5)) */
static bool holds(const struct lock_owner *owner, const struct flock *range)
{
    char path[64], line[256], type[8], end[32];
    long long start;
    bool found = false;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", owner->fd);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        if (sscanf(line, "lock: %*d: OFDLCK %*s %7s %*d %*s %lld %31s", type, &start, end) != 3)
            continue;
        off_t length = strcmp(end, "EOF") ? strtoll(end, NULL, 10) - start + 1 : 0;
        found =
            start == range->l_start && length == range->l_len && (range->l_type == F_WRLCK) == !strcmp(type, "WRITE");
    }
    if (file)
        fclose(file);
    return found;
}

const struct lock_owner *lock_file_holder(struct lock_file *file, const struct flock *range)
{
    const struct lock_owner *owner;
    if (range->l_pid == -1) /* an open file's */
        LIST_FOREACH (owner, &file->owners, link)
            if (holds(owner, range))
                return owner;
    return NULL;
}

/* The daemon's answers: what they must be, and what the kernel learns from them. */
#include "model.h"

static bool valid_attr(const struct fuse_attr *attr)
{
    return (S_ISREG(attr->mode) || S_ISDIR(attr->mode)) && attr->size <= INT64_MAX;
}

/* The node of an entry, looked up once more; NULL: it has none. */
static struct node *learn_node(struct node *parent, const struct fuse_entry_out *entry)
{
    if (!entry->nodeid)
        return NULL;
    check(valid_attr(&entry->attr), "an entry with attributes that the kernel refuses");
    struct node *node = find_node(entry->nodeid);
    check(!node || is_directory(node) == S_ISDIR(entry->attr.mode), "a node that changes its type");
    if (!node && kernel.nodes_count == NODES_MAX)
        return NULL; /* it is left to the end of the session */
    if (!node) {
        node = &kernel.nodes[kernel.nodes_count++];
        *node = (struct node){.id = entry->nodeid, .mode = entry->attr.mode, .parent = parent};
    }
    node->lookups++;
    return node;
}

static void learn_file(struct node *node, const struct fuse_open_out *open, uint32_t flags)
{
    if (node && kernel.files_count < FILES_MAX)
        kernel.files[kernel.files_count++] = (struct file){open->fh, node, flags & ~(O_CREAT | O_EXCL | O_TRUNC), true,
                                                           open->open_flags & OPEN_PASSTHROUGH};
}

static void check_name(const char *name, size_t length)
{
    check(length && length <= NAME_LONGEST && !memchr(name, '/', length), "an entry with a name that is none");
}

static void check_listing(const char *data, size_t size)
{
    while (size) {
        const struct fuse_dirent *entry = (const void *)data;
        check(size >= FUSE_NAME_OFFSET && size >= FUSE_DIRENT_SIZE(entry), "a cut entry in a listing");
        check_name(entry->name, entry->namelen);
        data += FUSE_DIRENT_SIZE(entry);
        size -= FUSE_DIRENT_SIZE(entry);
    }
}

static void learn_listing(struct node *directory, const char *data, size_t size)
{
    while (size) {
        const struct fuse_direntplus *entry = (const void *)data;
        check(size >= FUSE_NAME_OFFSET_DIRENTPLUS && size >= FUSE_DIRENTPLUS_SIZE(entry), "a cut entry in a listing");
        check_name(entry->dirent.name, entry->dirent.namelen);
        bool dots = entry->dirent.namelen <= 2 && !memcmp(entry->dirent.name, "..", entry->dirent.namelen);
        check(!dots || !entry->entry_out.nodeid, "dots that are looked up");
        learn_node(directory, &entry->entry_out);
        data += FUSE_DIRENTPLUS_SIZE(entry);
        size -= FUSE_DIRENTPLUS_SIZE(entry);
    }
}

/* How long may an answer be that is no error? */
static void check_size(const struct request *request, size_t size)
{
    size_t least = 0, most = 0;
    switch (request->opcode) {
    case FUSE_LOOKUP:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
        least = most = sizeof(struct fuse_entry_out);
        break;
    case FUSE_CREATE:
        least = most = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        least = most = sizeof(struct fuse_attr_out);
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        least = most = sizeof(struct fuse_open_out);
        break;
    case FUSE_STATFS:
        least = most = sizeof(struct fuse_statfs_out);
        break;
    case FUSE_WRITE:
    case FUSE_COPY_FILE_RANGE:
        least = most = sizeof(struct fuse_write_out);
        break;
    case FUSE_POLL:
        least = most = sizeof(struct fuse_poll_out);
        break;
    case FUSE_LSEEK:
        least = most = sizeof(struct fuse_lseek_out);
        break;
    case FUSE_GETLK:
        least = most = sizeof(struct fuse_lk_out);
        break;
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
        least = request->size ? 0 : sizeof(struct fuse_getxattr_out);
        most = request->size ? request->size : least;
        break;
    case FUSE_INIT:
        least = most = sizeof(struct fuse_init_out);
        break;
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        most = request->size;
        break;
    }
    check(size >= least && size <= most, "an answer of a wrong size");
}

static void learn(const struct request *request, const char *data, size_t size)
{
    const struct fuse_entry_out *entry = (const void *)data;
    switch (request->opcode) {
    case FUSE_INIT:
        kernel.max_write = ((const struct fuse_init_out *)data)->max_write;
        break;
    case FUSE_LOOKUP:
    case FUSE_MKNOD:
        learn_node(request->node, entry);
        break;
    case FUSE_CREATE:
        learn_file(learn_node(request->node, entry), (const void *)(entry + 1), request->flags);
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        learn_file(request->node, (const void *)data, request->flags);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        check(valid_attr(&((const struct fuse_attr_out *)data)->attr), "attributes that the kernel refuses");
        break;
    case FUSE_WRITE:
        check(((const struct fuse_write_out *)data)->size <= request->size, "more was written than there was");
        break;
    case FUSE_READDIR:
        check_listing(data, size);
        break;
    case FUSE_READDIRPLUS:
        learn_listing(request->node, data, size);
        break;
    }
}

/* The kernel wants an interrupt to be sent again, or not any more: these go by the request's number and 1. */
static void check_notification(const struct fuse_out_header *header, size_t size)
{
    if (header->unique & 1) {
        check(header->error == -EAGAIN || header->error == -ENOSYS, "an interrupt with a strange answer");
        return;
    }
    const uint64_t *handle = (const void *)(header + 1);
    check(header->error == FUSE_NOTIFY_POLL, "a strange notification");
    check(size == sizeof *header + sizeof *handle, "a notification of a wrong size");
    check(*handle <= kernel.files_count, "a notification for no poll");
}

static struct request *request_of(const struct fuse_out_header *header)
{
    check(header->unique / 2 <= kernel.requests_count, "an answer to no request");
    return &kernel.requests[header->unique / 2 - 1];
}

bool kernel_is_deaf(const void *reply)
{
    const struct fuse_out_header *header = reply;
    pthread_mutex_lock(&kernel.lock);
    bool deaf = kernel.cut && header->unique && !(header->unique & 1);
    if (deaf) {
        kernel.cut = false;
        kernel.lost = true;
        check(waits(request_of(header)), "a second answer");
        request_of(header)->answered = true;
    }
    pthread_mutex_unlock(&kernel.lock);
    return deaf;
}

void kernel_take(const void *reply, size_t size)
{
    const struct fuse_out_header *header = reply;
    check(size >= sizeof *header && header->len == size, "an answer whose length is not its length");
    size -= sizeof *header;
    if (is_traced())
        fprintf(stderr, "    request %llu: %s, %zu bytes %.*s\n", (unsigned long long)header->unique / 2,
                header->error < 0 ? strerrorname_np(-header->error) : "done", size, size < 100 ? (int)size : 0,
                (const char *)(header + 1));
    pthread_mutex_lock(&kernel.lock);
    if (!header->unique || header->unique & 1) {
        check_notification(header, header->len);
    } else {
        struct request *request = request_of(header);
        check(!request->silent, "an answer to what has none");
        check(!request->answered, "a second answer");
        check(header->error <= 0 && header->error >= -EHWPOISON, "an error that is none");
        check(!header->error || !size, "an error with more to say");
        check(!(kernel.ending && request->interrupted && header->error == -ENOTCONN), "an interrupt that did nothing");
        if (!header->error) {
            check_size(request, size);
            learn(request, (const char *)(header + 1), size);
        }
        request->error = header->error;
        request->answered = true;
    }
    pthread_mutex_unlock(&kernel.lock);
}

/* What a line of a script does. */
#include "model.h"
#include "natives.h"

#include <linux/fs.h>
#include <poll.h>

static void lookup(const struct value *v)
{
    ask(FUSE_LOOKUP, v[0].user, v[1].node);
    add_name(&v[2]);
    send_it();
}

/* How many look-ups of a node may be forgotten: all only if nothing else needs it. */
static uint64_t forgettable(struct node *node, uint64_t wanted)
{
    uint64_t most = node->lookups - (node == kernel.nodes || is_busy(node));
    return wanted < most ? wanted : most;
}

void forget_node(struct node *node, uint64_t lookups)
{
    const struct fuse_forget_in in = {lookups};
    ask(FUSE_FORGET, NULL, node)->silent = true;
    node->lookups -= lookups;
    send_with(&in, sizeof in);
}

static void forget(const struct value *v)
{
    uint64_t lookups = forgettable(v[0].node, v[1].number);
    if (lookups)
        forget_node(v[0].node, lookups);
}

static void forget_both(const struct value *v)
{
    const struct fuse_batch_forget_in in = {.count = 2};
    struct fuse_forget_one one[2];
    for (size_t i = 0; i < 2; i++) {
        struct node *node = v[2 * i].node;
        one[i] = (struct fuse_forget_one){node->id, forgettable(node, v[2 * i + 1].number)};
        node->lookups -= one[i].nlookup;
    }
    if (!one[0].nlookup || !one[1].nlookup) {
        v[0].node->lookups += one[0].nlookup;
        v[2].node->lookups += one[1].nlookup;
        return;
    }
    ask(FUSE_BATCH_FORGET, NULL, NULL)->silent = true;
    add(&in, sizeof in);
    send_with(one, sizeof one);
}

void get_attributes(const struct value *v)
{
    const struct fuse_getattr_in in = {0};
    ask(FUSE_GETATTR, v[0].user, v[1].node);
    send_with(&in, sizeof in);
}

/* With the handle that ftruncate(2) has, if one is open for writing and the size is to be set. */
static void set_attributes(const struct value *v)
{
    struct fuse_setattr_in in = {.valid = v[2].number & ~(uint64_t)FATTR_FH,
                                 .mode = v[3].number & 0xffff,
                                 .uid = v[4].number,
                                 .gid = v[5].number,
                                 .size = v[6].number & INT64_MAX,
                                 .atime = v[7].number,
                                 .mtime = v[8].number,
                                 .atimensec = v[7].number % 1000000000,
                                 .mtimensec = v[8].number % 1000000000};
    ask(FUSE_SETATTR, v[0].user, v[1].node);
    for (struct file *file = kernel.files; file < kernel.files + kernel.files_count; file++)
        if (v[2].number & FATTR_FH && in.valid & FATTR_SIZE && file->open && file->node == v[1].node &&
            (file->flags & O_ACCMODE) != O_RDONLY) {
            in.valid |= FATTR_FH;
            in.fh = file->handle;
        }
    send_with(&in, sizeof in);
}

static void may_access(const struct value *v)
{
    const struct fuse_access_in in = {.mask = v[2].number & 7};
    ask(FUSE_ACCESS, v[0].user, v[1].node);
    send_with(&in, sizeof in);
}

static void make_node(const struct value *v)
{
    const struct fuse_mknod_in in = {.mode = v[3].number, .umask = v[4].number & 0777};
    ask(FUSE_MKNOD, v[0].user, v[1].node);
    add(&in, sizeof in);
    add_name(&v[2]);
    send_it();
}

static void make_directory(const struct value *v)
{
    const struct fuse_mkdir_in in = {.mode = v[3].number & 07777};
    ask(FUSE_MKDIR, v[0].user, v[1].node);
    add(&in, sizeof in);
    add_name(&v[2]);
    send_it();
}

static void make_symlink(const struct value *v)
{
    ask(FUSE_SYMLINK, v[0].user, v[1].node);
    add_name(&v[2]);
    add_name(&v[3]);
    send_it();
}

static void make_link(const struct value *v)
{
    const struct fuse_link_in in = {v[3].node->id};
    ask(FUSE_LINK, v[0].user, v[1].node);
    add(&in, sizeof in);
    add_name(&v[2]);
    send_it();
}

static void take_name_off(uint32_t opcode, const struct value *v)
{
    ask(opcode, v[0].user, v[1].node);
    add_name(&v[2]);
    send_it();
}

static void remove_file(const struct value *v)
{
    take_name_off(FUSE_UNLINK, v);
}

static void remove_directory(const struct value *v)
{
    take_name_off(FUSE_RMDIR, v);
}

static void rename_file(const struct value *v)
{
    const struct fuse_rename2_in in = {.newdir = v[3].node->id, .flags = v[5].number};
    ask(in.flags ? FUSE_RENAME2 : FUSE_RENAME, v[0].user, v[1].node);
    add(&in, in.flags ? sizeof in : sizeof(struct fuse_rename_in));
    add_name(&v[2]);
    add_name(&v[4]);
    send_it();
}

static void create_file(const struct value *v)
{
    const struct fuse_create_in in = {
        .flags = v[3].number | O_CREAT, .mode = S_IFREG | (v[4].number & 07777), .umask = v[5].number & 0777};
    ask(FUSE_CREATE, v[0].user, v[1].node)->flags = in.flags;
    add(&in, sizeof in);
    add_name(&v[2]);
    send_it();
}

static void open_as(uint32_t opcode, const struct user *user, struct node *node, uint32_t flags)
{
    const struct fuse_open_in in = {.flags = flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_PATH | O_TMPFILE)};
    ask(opcode, user, node)->flags = in.flags;
    send_with(&in, sizeof in);
}

static void open_file(const struct value *v)
{
    open_as(FUSE_OPEN, v[0].user, v[1].node, v[2].number);
}

static void open_directory(const struct value *v)
{
    open_as(FUSE_OPENDIR, v[0].user, v[1].node, O_RDONLY);
}

void close_file(uint32_t opcode, struct file *file, uint64_t owner)
{
    const struct fuse_release_in in = {
        .fh = file->handle, .flags = file->flags, .release_flags = owner ? FUSE_RELEASE_FLOCK_UNLOCK : 0, owner};
    if (is_in_use(file))
        return;
    ask_file(opcode, NULL, file);
    file->open = false;
    send_with(&in, sizeof in);
}

static void release_file(const struct value *v)
{
    close_file(FUSE_RELEASE, v[0].file, v[1].number);
}

static void release_directory(const struct value *v)
{
    close_file(FUSE_RELEASEDIR, v[0].file, 0);
}

/* What fcntl(2) may have changed since it was opened. */
static uint32_t flags_now(const struct file *file, uint64_t flags)
{
    return file->flags ^ (flags & (O_NONBLOCK | O_APPEND));
}

static void read_as(uint32_t opcode, const struct value *v)
{
    struct request *request = ask_file(opcode, v[0].user, v[1].file);
    const struct fuse_read_in in = {.fh = v[1].file->handle,
                                    .size = v[2].number < READ_MAX ? v[2].number : READ_MAX,
                                    .offset = v[3].number & INT64_MAX,
                                    .flags = flags_now(v[1].file, v[4].number)};
    request->size = in.size;
    send_with(&in, sizeof in);
}

static void read_file(const struct value *v)
{
    if (!v[1].file->passthrough)
        read_as(FUSE_READ, v);
}

static void read_directory(const struct value *v)
{
    read_as(FUSE_READDIR, v);
}

static void read_directory_plus(const struct value *v)
{
    read_as(FUSE_READDIRPLUS, v);
}

static void write_file(const struct value *v)
{
    if (v[1].file->passthrough)
        return;
    struct request *request = ask_file(FUSE_WRITE, v[0].user, v[1].file);
    const struct fuse_write_in in = {.fh = v[1].file->handle,
                                     .size = v[2].length < kernel.max_write ? v[2].length : kernel.max_write,
                                     .offset = v[3].number & INT64_MAX,
                                     .flags = flags_now(v[1].file, v[4].number)};
    request->size = in.size;
    add(&in, sizeof in);
    send_with(v[2].bytes, in.size);
}

static void poll_file(const struct value *v)
{
    const struct fuse_poll_in in = {.fh = v[1].file->handle,
                                    .kh = v[1].file - kernel.files + 1,
                                    .events = v[2].number,
                                    .flags = v[3].number ? FUSE_POLL_SCHEDULE_NOTIFY : 0};
    ask_file(FUSE_POLL, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void sync_file(const struct value *v)
{
    const struct fuse_fsync_in in = {.fh = v[1].file->handle, .fsync_flags = v[2].number & 1};
    ask_file(FUSE_FSYNC, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void flush_file(const struct value *v)
{
    const struct fuse_flush_in in = {.fh = v[1].file->handle, .lock_owner = v[2].number};
    ask_file(FUSE_FLUSH, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void allocate(const struct value *v)
{
    const struct fuse_fallocate_in in = {.fh = v[1].file->handle,
                                         .mode = v[2].number,
                                         .offset = v[3].number & INT64_MAX,
                                         .length = v[4].number & INT64_MAX};
    ask_file(FUSE_FALLOCATE, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void seek(const struct value *v)
{
    const struct fuse_lseek_in in = {.fh = v[1].file->handle, .offset = v[2].number & INT64_MAX, .whence = v[3].number};
    ask_file(FUSE_LSEEK, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void copy_range(const struct value *v)
{
    const struct fuse_copy_file_range_in in = {.fh_in = v[1].file->handle,
                                               .off_in = v[3].number & INT64_MAX,
                                               .nodeid_out = v[2].file->node->id,
                                               .fh_out = v[2].file->handle,
                                               .off_out = v[4].number & INT64_MAX,
                                               .len = v[5].number & 0x7ffff000};
    ask_file(FUSE_COPY_FILE_RANGE, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void control(const struct value *v)
{
    const struct fuse_ioctl_in in = {.fh = v[1].file->handle, .cmd = v[2].number, .in_size = v[3].length};
    ask_file(FUSE_IOCTL, v[0].user, v[1].file);
    add(&in, sizeof in);
    send_with(v[3].bytes, v[3].length);
}

/* fcntl(2)'s locks or, with a number at the end that is not 0, flock(2)'s. */
static void lock_as(uint32_t opcode, const struct value *v)
{
    static const uint32_t types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
    struct fuse_lk_in in = {.fh = v[1].file->handle,
                            .owner = v[2].number,
                            .lk = {.start = v[3].number & INT64_MAX,
                                   .end = v[4].number & INT64_MAX,
                                   .type = types[v[5].number % (opcode == FUSE_GETLK ? 2 : 3)],
                                   .pid = v[0].user->pid},
                            .lk_flags = v[6].number ? FUSE_LK_FLOCK : 0};
    if (in.lk.end < in.lk.start)
        in.lk.end = in.lk.start;
    if (in.lk_flags)
        in.lk.start = 0, in.lk.end = INT64_MAX;
    ask_file(opcode, v[0].user, v[1].file);
    send_with(&in, sizeof in);
}

static void get_lock(const struct value *v)
{
    lock_as(FUSE_GETLK, v);
}

static void set_lock(const struct value *v)
{
    lock_as(FUSE_SETLK, v);
}

static void wait_for_lock(const struct value *v)
{
    lock_as(FUSE_SETLKW, v);
}

static void get_statfs(const struct value *v)
{
    ask(FUSE_STATFS, v[0].user, v[1].node);
    send_it();
}

static void get_xattr(const struct value *v)
{
    const struct fuse_getxattr_in in = {.size = v[3].number % (XATTR_SIZE_MAX + 1)};
    ask(FUSE_GETXATTR, v[0].user, v[1].node)->size = in.size;
    add(&in, sizeof in);
    add_name(&v[2]);
    send_it();
}

static void list_xattr(const struct value *v)
{
    const struct fuse_getxattr_in in = {.size = v[2].number % (XATTR_SIZE_MAX + 1)};
    ask(FUSE_LISTXATTR, v[0].user, v[1].node)->size = in.size;
    send_with(&in, sizeof in);
}

static void set_xattr(const struct value *v)
{
    const struct fuse_setxattr_in in = {.size = v[3].length % (XATTR_SIZE_MAX + 1), .flags = v[4].number};
    ask(FUSE_SETXATTR, v[0].user, v[1].node);
    add(&in, FUSE_COMPAT_SETXATTR_IN_SIZE); /* what is longer is to be agreed upon, and libfuse does not */
    add_name(&v[2]);
    send_with(v[3].bytes, in.size);
}

static void remove_xattr(const struct value *v)
{
    take_name_off(FUSE_REMOVEXATTR, v);
}

void interrupt(const struct value *v)
{
    const struct fuse_interrupt_in in = {unique_of(v[0].request)};
    v[0].request->interrupted = true;
    ask(FUSE_INTERRUPT, NULL, NULL)->silent = true;
    number_as(in.unique | 1);
    send_with(&in, sizeof in);
}

/* What the daemon has never heard of. */
static void unknown(const struct value *v)
{
    ask(100 + v[2].number % 1000, v[0].user, v[1].node);
    send_with(v[3].bytes, v[3].length);
}

static void cut_answer(const struct value *v)
{
    (void)v;
    kernel.cut = true;
}

static void abandon(const struct value *v)
{
    (void)v;
    kernel.abandoned = true;
}

static void let_pass(const struct value *v)
{
    (void)v;
    pause_daemon();
}

static void kill_user(const struct value *v)
{
    world_kill(v[0].user);
}

static void limit_descriptors(const struct value *v)
{
    world_limit_descriptors(v[0].number);
}

static void starve(const struct value *v)
{
    world_starve(v[0].number);
}

const struct command commands[] = {
    /* user directory name */
    {"lookup", "uds", lookup},
    /* node how-often */
    {"forget", "ni", forget},
    {"forget-both", "nini", forget_both},
    {"getattr", "un", get_attributes},
    /* user node valid mode uid gid size atime mtime */
    {"setattr", "uniiiiiii", set_attributes},
    {"access", "uni", may_access},
    /* user directory name mode umask */
    {"mknod", "udsii", make_node},
    {"mkdir", "udsi", make_directory},
    {"symlink", "udss", make_symlink},
    {"link", "udsn", make_link},
    {"unlink", "uds", remove_file},
    {"rmdir", "uds", remove_directory},
    /* user directory name directory name flags */
    {"rename", "udsdsi", rename_file},
    /* user directory name flags mode umask */
    {"create", "udsiii", create_file},
    {"open", "uri", open_file},
    /* file flock's-owner */
    {"release", "hi", release_file},
    /* user file size offset changed-flags */
    {"read", "uRiii", read_file},
    /* user file data offset changed-flags */
    {"write", "uWbii", write_file},
    /* user file events whether-to-tell */
    {"poll", "uhii", poll_file},
    {"fsync", "uhi", sync_file},
    {"flush", "uhi", flush_file},
    /* user file mode offset length */
    {"fallocate", "uWiii", allocate},
    /* user file offset whence */
    {"lseek", "uhii", seek},
    /* user from to offset offset length */
    {"copy", "uRWiii", copy_range},
    {"ioctl", "uhib", control},
    /* user file owner start end type whether-flock */
    {"getlk", "uhiiiii", get_lock},
    {"setlk", "uhiiiii", set_lock},
    {"setlkw", "uhiiiii", wait_for_lock},
    {"opendir", "ud", open_directory},
    {"releasedir", "D", release_directory},
    /* user directory size offset flags */
    {"readdir", "uDiii", read_directory},
    {"readdirplus", "uDiii", read_directory_plus},
    {"statfs", "un", get_statfs},
    /* user node name size */
    {"getxattr", "unsi", get_xattr},
    {"listxattr", "uni", list_xattr},
    /* user node name data flags */
    {"setxattr", "unsbi", set_xattr},
    {"removexattr", "uns", remove_xattr},
    {"interrupt", "e", interrupt},
    /* user node which data */
    {"unknown", "unib", unknown},
    {"cut", "", cut_answer},
    {"abandon", "", abandon},
    {"kill", "u", kill_user},
    {"wait", "", let_pass},
    /* Native programs, on objects; */
    {"native-post", "s", native_post},
    {"native-send", "sbi", native_send},
    {"native-receive", "s", native_receive},
    {"native-notify", "si", native_notify},
    {"native-unlink-queue", "s", native_unlink_queue},
    /* and on files in /dev/shm. */
    {"native-truncate", "fi", native_truncate},
    {"native-write", "fbi", native_write},
    /* file whether-to-write start length whether-flock */
    {"native-lock", "fiiii", native_lock},
    {"native-chmod", "fi", native_chmod},
    {"native-unlink", "f", native_unlink},
    {"native-rename", "ff", native_rename},
    {"native-plant", "fbf", native_plant},
    {"descriptors", "i", limit_descriptors},
    {"starve", "i", starve},
};
const size_t commands_count = sizeof commands / sizeof *commands;

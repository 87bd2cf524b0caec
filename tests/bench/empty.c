// empty [--keep] MOUNTPOINT: what a call costs through libfuse when the file system does nothing: the low-level API on
// the stock multi-threaded loop in its default configuration. The tree looks like that of ipcfs (sem/, shm/, mq/,
// KIND@OPTIONS/, and in them a file of every name), but there is nothing behind it: a write succeeds, a read gives what
// was asked for, at once. Each folder lists the machine's semaphores. As in ipcfs, I/O is direct and neither entries
// nor attributes are kept by the kernel, since otherwise some of the requests that are compared would not be made here
// at all; but with --keep both are, for as long as it likes.

#define FUSE_USE_VERSION 312

#include <dirent.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KINDS = 3, FIRST_KIND = 2, READ_MAX = 1 << 20 }; // numbers of nodes: the root is 1, the kinds 2 to 4

static const char *const kinds[KINDS] = {"sem", "shm", "mq"};
static const char zeros[READ_MAX];
static double seconds_kept; // entries and attributes

static bool is_directory(fuse_ino_t ino)
{
    return ino < FIRST_KIND + KINDS;
}

// A file's number is a hash of its name, and below it is the kind.
static fuse_ino_t number_of_file(fuse_ino_t parent, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325;
    while (*name)
        hash = (hash ^ (unsigned char)*name++) * 0x100000001b3;
    return hash << 8 | 1 << 4 | parent;
}

static fuse_ino_t kind_of(fuse_ino_t file)
{
    return file & 15;
}

static void fill_attributes(fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){.st_ino = ino, .st_nlink = 1, .st_uid = getuid(), .st_gid = getgid()};
    st->st_mode = is_directory(ino) ? S_IFDIR | 0755 : S_IFREG | 0600;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.attr_timeout = seconds_kept, .entry_timeout = seconds_kept};
    if (parent != FUSE_ROOT_ID)
        entry.ino = number_of_file(parent, name);
    else
        for (int i = 0; i < KINDS; i++)
            if (strcspn(name, "@") == strlen(kinds[i]) && !strncmp(name, kinds[i], strlen(kinds[i])))
                entry.ino = FIRST_KIND + i;
    if (!entry.ino) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fill_attributes(entry.ino, &entry.attr);
    fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    struct stat st;
    fill_attributes(ino, &st);
    fuse_reply_attr(req, &st, seconds_kept);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int which, struct fuse_file_info *fi)
{
    (void)attr, (void)which;
    op_getattr(req, ino, fi);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fi->direct_io = 1;
    fi->noflush = 1;
    fuse_reply_open(req, fi);
}

// A semaphore reads as "1\n", a message as long as was asked for.
static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    if (offset)
        fuse_reply_buf(req, NULL, 0);
    else if (kind_of(ino) == FIRST_KIND)
        fuse_reply_buf(req, "1\n", size < 2 ? size : 2);
    else
        fuse_reply_buf(req, zeros, size < READ_MAX ? size : READ_MAX);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    (void)ino, (void)data, (void)offset, (void)fi;
    fuse_reply_write(req, size);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino, (void)fi;
    fuse_reply_err(req, 0);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    (void)ino;
    if (strncmp(name, "user.ipcfs.", 11))
        fuse_reply_err(req, ENODATA);
    else if (size)
        fuse_reply_buf(req, "1", 1);
    else
        fuse_reply_xattr(req, 1);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    DIR *directory = opendir("/dev/shm");
    if (!directory) {
        fuse_reply_err(req, errno);
        return;
    }
    fi->fh = (uintptr_t)directory;
    fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    DIR *directory = (DIR *)(uintptr_t)fi->fh;
    char *entries = malloc(size);
    size_t used = 0;
    if (offset)
        seekdir(directory, offset);
    else
        rewinddir(directory);
    for (struct dirent *entry; entries && (entry = readdir(directory));) {
        if (strncmp(entry->d_name, "sem.", 4))
            continue;
        struct stat st = {.st_ino = number_of_file(ino, entry->d_name + 4), .st_mode = S_IFREG};
        size_t room = fuse_add_direntry(req, entries + used, size - used, entry->d_name + 4, &st, telldir(directory));
        if (room > size - used)
            break;
        used += room;
    }
    fuse_reply_buf(req, entries, used);
    free(entries);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    closedir((DIR *)(uintptr_t)fi->fh);
    fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
    .lookup = op_lookup,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .release = op_release,
    .getxattr = op_getxattr,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
};

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        puts(fuse_pkgversion());
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "--keep")) {
        seconds_kept = 3600;
        argv++, argc--;
    }
    if (argc != 2)
        return 2;
    char *arguments[] = {"empty", "-o", getuid() ? "fsname=empty" : "fsname=empty,allow_other", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, arguments);
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    int status = 1;
    if (session && !fuse_set_signal_handlers(session) && !fuse_session_mount(session, argv[1])) {
        struct fuse_loop_config *defaults = fuse_loop_cfg_create();
        status = fuse_session_loop_mt(session, defaults) < 0; // above 0 is the signal that ended it
        fuse_loop_cfg_destroy(defaults);
        fuse_session_unmount(session);
    }
    if (session) {
        fuse_remove_signal_handlers(session);
        fuse_session_destroy(session);
    }
    fuse_opt_free_args(&args);
    return status;
}

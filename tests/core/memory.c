/* Shared memory objects. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int open_memory(const char *name, int flags)
{
    int fd = ipc_shm_open(ipc, name, flags, 0600);
    CHECK(fd >= 0);
    return fd;
}

/* Makes an object that holds a text. */
static void make(const char *name, const char *text)
{
    int fd = open_memory(name, O_CREAT | O_EXCL | O_RDWR);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static bool holds(const char *name, const char *text)
{
    char data[64] = "";
    int fd = ipc_shm_open(ipc, name, O_RDONLY, 0);
    if (fd < 0) {
        CHECK_IS(fd, -ENOENT);
        return false;
    }
    CHECK(read(fd, data, sizeof data - 1) >= 0);
    close(fd);
    return !strcmp(data, text);
}

/* ---- Opening ---- */

static void a_made_object_has_its_mode_less_the_umask(void)
{
    struct stat st;
    mode_t before = umask(027);
    int fd = ipc_shm_open(ipc, new_name(), O_CREAT | O_RDWR, 0666);
    umask(before);
    CHECK(fd >= 0);
    CHECK_IS(ipc_stat(fd, &st), 0);
    CHECK_IS(st.st_mode, S_IFREG | 0640);
    CHECK_IS(ipc_shm_size(fd), 0);
    close(fd);
}

static void an_existing_object_is_opened_as_it_is(void)
{
    struct stat st;
    const char *name = new_name();
    make(name, "text");
    int fd = ipc_shm_open(ipc, name, O_CREAT | O_RDWR, 0666);
    CHECK(fd >= 0);
    CHECK_IS(ipc_stat(fd, &st), 0);
    CHECK_IS(st.st_mode & 07777, 0600);
    CHECK_IS(ipc_shm_size(fd), 4);
    close(fd);
}

static void opening_has_open_s_flags(void)
{
    const char *name = new_name();
    CHECK_IS(ipc_shm_open(ipc, name, O_RDWR, 0600), -ENOENT);
    make(name, "text");
    CHECK_IS(ipc_shm_open(ipc, name, O_CREAT | O_EXCL | O_RDWR, 0600), -EEXIST);

    int fd = open_memory(name, O_RDONLY);
    CHECK(write(fd, "x", 1) == -1 && errno == EBADF);
    close(fd);
    fd = open_memory(name, O_WRONLY);
    char byte;
    CHECK(read(fd, &byte, 1) == -1 && errno == EBADF);
    close(fd);

    fd = open_memory(name, O_RDWR | O_APPEND);
    CHECK(write(fd, "+", 1) == 1);
    close(fd);
    CHECK(holds(name, "text+"));
    close(open_memory(name, O_RDWR | O_TRUNC));
    CHECK(holds(name, ""));
}

static void native_objects_are_ours_and_ours_are_native(void)
{
    const char *name = new_name();
    int native_fd = shm_open(native(name), O_CREAT | O_EXCL | O_RDWR, 0600);
    CHECK(native_fd >= 0);
    int fd = open_memory(name, O_RDWR);
    CHECK_IS(ipc_shm_resize(fd, 4096), 0);
    char *theirs = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, native_fd, 0);
    char *ours = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(theirs != MAP_FAILED && ours != MAP_FAILED);
    ours[100] = 1;
    theirs[200] = 2;
    CHECK(theirs[100] == 1 && ours[200] == 2);
    munmap(theirs, 4096);
    munmap(ours, 4096);
    close(native_fd);
    close(fd);

    CHECK(shm_unlink(native(name)) == 0);
    CHECK_IS(ipc_shm_open(ipc, name, O_RDWR, 0), -ENOENT);
    make(name, "ours");
    native_fd = shm_open(native(name), O_RDWR, 0);
    CHECK(native_fd >= 0);
    CHECK_IS(ipc_shm_size(native_fd), 4);
    close(native_fd);
}

static void a_removed_object_lives_while_it_is_open(void)
{
    const char *name = new_name();
    make(name, "old");
    int fd = open_memory(name, O_RDWR);
    CHECK_IS(ipc_unlink(ipc, IPC_SHM, name), 0);
    make(name, "newer");
    CHECK_IS(ipc_shm_size(fd), 3);
    CHECK_IS(ipc_shm_resize(fd, 100), 0);
    CHECK_IS(ipc_shm_size(fd), 100);
    CHECK(holds(name, "newer"));
    close(fd);
}

static void what_is_no_memory_object_is_einval(void)
{
    static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_CREAT, O_RDONLY | O_CREAT, O_RDWR | O_TRUNC};
    const char *object = new_name(), *link = new_name(), *dangling = new_name(), *fifo = new_name(),
               *directory = new_name();
    make(object, "text");
    CHECK(symlink(file_of(IPC_SHM, object), file_of(IPC_SHM, link)) == 0);
    CHECK(symlink(file_of(IPC_SHM, new_name()), file_of(IPC_SHM, dangling)) == 0);
    CHECK(mkfifo(file_of(IPC_SHM, fifo), 0600) == 0);
    CHECK(mkdir(file_of(IPC_SHM, directory), 0700) == 0);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        CHECK_IS(ipc_shm_open(ipc, link, flags[i], 0600), -EINVAL);
        CHECK_IS(ipc_shm_open(ipc, dangling, flags[i], 0600), -EINVAL);
        CHECK_IS(ipc_shm_open(ipc, fifo, flags[i], 0600), -EINVAL);
        CHECK_IS(ipc_shm_open(ipc, directory, flags[i], 0600), -EINVAL);
    }
    CHECK(holds(object, "text"));
}

static void a_semaphore_is_no_memory_object(void)
{
    const char *name = new_name();
    char file[300];
    make_native(IPC_SEM, name);
    snprintf(file, sizeof file, "sem.%s", name);
    CHECK_IS(ipc_shm_open(ipc, file, O_RDWR, 0600), -EINVAL);
    CHECK_IS(ipc_shm_open(ipc, file, O_RDWR | O_CREAT, 0600), -EINVAL);
    CHECK_IS(ipc_unlink(ipc, IPC_SHM, file), -ENOENT);
    CHECK(access(file_of(IPC_SEM, name), F_OK) == 0);
}

/* ---- Size ---- */

static void resizing_is_ftruncate(void)
{
    const char *name = new_name();
    char data[8];
    make(name, "text");
    int fd = open_memory(name, O_RDWR);
    CHECK_IS(ipc_shm_resize(fd, 2), 0);
    CHECK_IS(ipc_shm_resize(fd, 8), 0);
    CHECK_IS(ipc_shm_size(fd), 8);
    CHECK(pread(fd, data, 8, 0) == 8 && !memcmp(data, "te\0\0\0\0\0\0", 8));
    CHECK_IS(ipc_shm_resize(fd, (int64_t)5 << 32), 0);
    CHECK_IS(ipc_shm_size(fd), (int64_t)5 << 32);
    CHECK_IS(ipc_shm_resize(fd, -1), -EINVAL);
    close(fd);
    fd = open_memory(name, O_RDONLY);
    CHECK_IS(ipc_shm_resize(fd, 0), -EINVAL);
    CHECK_IS(ipc_shm_size(fd), (int64_t)5 << 32);
    close(fd);
    CHECK_IS(ipc_shm_size(-1), -EBADF);
    CHECK_IS(ipc_shm_resize(-1, 0), -EBADF);
}

static void statfs_is_that_of_dev_shm(void)
{
    struct statvfs ours, st;
    CHECK_IS(ipc_shm_statfs(ipc, &ours), 0);
    CHECK(statvfs("/dev/shm", &st) == 0);
    CHECK(ours.f_bsize == st.f_bsize && ours.f_blocks == st.f_blocks && ours.f_fsid == st.f_fsid);
    CHECK(ours.f_bfree <= ours.f_blocks);
}

/* ---- Rename ---- */

static void rename_moves_and_replaces(void)
{
    const char *from = new_name(), *to = new_name();
    make(from, "one");
    CHECK_IS(ipc_shm_rename(ipc, from, to, 0), 0);
    CHECK(!holds(from, "one") && holds(to, "one"));

    int fd = open_memory(to, O_RDONLY);
    make(from, "second");
    CHECK_IS(ipc_shm_rename(ipc, from, to, 0), 0);
    CHECK(!holds(from, "second") && holds(to, "second"));
    CHECK_IS(ipc_shm_size(fd), 3);
    close(fd);
    CHECK_IS(ipc_shm_rename(ipc, to, to, 0), 0);
    CHECK(holds(to, "second"));
}

static void rename_has_renameat2_s_flags(void)
{
    const char *one = new_name(), *two = new_name(), *free_name = new_name();
    make(one, "1");
    make(two, "2");
    CHECK_IS(ipc_shm_rename(ipc, one, two, RENAME_NOREPLACE), -EEXIST);
    CHECK(holds(one, "1") && holds(two, "2"));
    CHECK_IS(ipc_shm_rename(ipc, one, two, RENAME_EXCHANGE), 0);
    CHECK(holds(one, "2") && holds(two, "1"));
    CHECK_IS(ipc_shm_rename(ipc, one, free_name, RENAME_EXCHANGE), -ENOENT);
    CHECK_IS(ipc_shm_rename(ipc, one, free_name, RENAME_NOREPLACE), 0);
    CHECK(holds(free_name, "2"));
    CHECK_IS(ipc_shm_rename(ipc, two, one, RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
    CHECK_IS(ipc_shm_rename(ipc, two, one, 1U << 31), -EINVAL);
    CHECK_IS(ipc_shm_rename(ipc, two, one, RENAME_WHITEOUT), -EINVAL);
    CHECK(holds(two, "1"));
}

static void rename_takes_names_of_memory_objects(void)
{
    const char *name = new_name(), *long_name = new_name_of_size(256);
    char file[300];
    make_native(IPC_SEM, name);
    make(name, "text");
    snprintf(file, sizeof file, "sem.%s", name);
    CHECK_IS(ipc_shm_rename(ipc, new_name(), new_name(), 0), -ENOENT);
    CHECK_IS(ipc_shm_rename(ipc, name, file, 0), -EINVAL);
    CHECK_IS(ipc_shm_rename(ipc, name, "", 0), -EINVAL);
    CHECK_IS(ipc_shm_rename(ipc, name, "a/b", 0), -EINVAL);
    CHECK_IS(ipc_shm_rename(ipc, name, long_name, 0), -ENAMETOOLONG);
    CHECK_IS(ipc_shm_rename(ipc, long_name, name, 0), -ENAMETOOLONG);
    int result = ipc_shm_rename(ipc, file, new_name(), 0);
    CHECK(result == -EINVAL || result == -ENOENT);
    CHECK(holds(name, "text"));
    CHECK(access(file_of(IPC_SEM, name), F_OK) == 0);
}

/* What locate calls ENOENT, rename does not move. */
static void rename_leaves_alone_what_is_no_object(void)
{
    const char *object = new_name();
    make(object, "text");
    for (int which = 0; which < 3; which++) {
        const char *name = new_name(), *file = file_of(IPC_SHM, name);
        CHECK((which == 0 ? symlink("/", file) : which == 1 ? mkfifo(file, 0600) : mkdir(file, 0700)) == 0);
        CHECK_IS(ipc_shm_rename(ipc, name, new_name(), 0), -ENOENT);
        CHECK(ipc_shm_rename(ipc, name, object, RENAME_EXCHANGE) < 0);
        CHECK(ipc_shm_rename(ipc, object, name, 0) < 0);
        CHECK(holds(object, "text"));
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(a_made_object_has_its_mode_less_the_umask),
                                        TEST(an_existing_object_is_opened_as_it_is),
                                        TEST(opening_has_open_s_flags),
                                        TEST(native_objects_are_ours_and_ours_are_native),
                                        TEST(a_removed_object_lives_while_it_is_open),
                                        TEST(what_is_no_memory_object_is_einval),
                                        TEST(a_semaphore_is_no_memory_object),
                                        TEST(resizing_is_ftruncate),
                                        TEST(statfs_is_that_of_dev_shm),
                                        TEST(rename_moves_and_replaces),
                                        TEST(rename_has_renameat2_s_flags),
                                        TEST(rename_takes_names_of_memory_objects),
                                        TEST(rename_leaves_alone_what_is_no_object),
                                        {0}};
    (void)argc;
    return run_tests(tests, argv);
}

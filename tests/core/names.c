/* Names, and what objects of every kind have: listing, a place, mode, owner and times, removal. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct ipc_mq_attr small = {.max_messages = 4, .max_message_size = 64};

/* Opens or makes an object: a descriptor, 0 for a semaphore, or the error. */
static int open_object(enum ipc_kind kind, const char *name, int flags)
{
    struct ipc_sem *sem;
    int result;
    switch (kind) {
    case IPC_SEM:
        result = ipc_sem_open(ipc, &sem, name, flags, 0600, 0);
        if (!result)
            ipc_sem_close(sem);
        return result;
    case IPC_SHM:
        return ipc_shm_open(ipc, name, flags | O_RDWR, 0600);
    default:
        return ipc_mq_open(ipc, name, flags | O_RDWR, 0600, &small);
    }
}

static void make(enum ipc_kind kind, const char *name)
{
    int result = open_object(kind, name, O_CREAT | O_EXCL);
    CHECK(result >= 0);
    if (kind != IPC_SEM)
        close(result);
}

static int locate(enum ipc_kind kind, const char *name)
{
    int fd = ipc_locate(ipc, kind, name);
    CHECK(fd >= 0);
    return fd;
}

static struct stat stat_of(enum ipc_kind kind, const char *name)
{
    struct stat st;
    int fd = locate(kind, name);
    CHECK_IS(ipc_stat(fd, &st), 0);
    close(fd);
    return st;
}

static bool exists(enum ipc_kind kind, const char *name)
{
    int fd = ipc_locate(ipc, kind, name);
    if (fd < 0) {
        CHECK_IS(fd, -ENOENT);
        return false;
    }
    close(fd);
    return true;
}

/* ---- Names ---- */

static void a_name_is_not_empty_nor_a_path(void)
{
    static const char *const bad[] = {"", ".", "..", "/", "/a", "a/", "a/b", "../a", "//"};
    static const char *const good[] = {"a", "...", ".a", "a.", " ", "\n", "\xff\xfe", "a\\b", "SEM.a", "sem", "xsem."};
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            CHECK_IS(ipc_name_check(kind, bad[i]), -EINVAL);
        for (size_t i = 0; i < sizeof good / sizeof *good; i++)
            CHECK_IS(ipc_name_check(kind, good[i]), 0);
    }
}

static void only_shared_memory_is_not_named_as_semaphores_files_are(void)
{
    static const char *const names[] = {"sem.", "sem.a", "sem..", "sem.sem.a"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK_IS(ipc_name_check(IPC_SHM, names[i]), -EINVAL);
        CHECK_IS(ipc_name_check(IPC_SEM, names[i]), 0);
        CHECK_IS(ipc_name_check(IPC_MQ, names[i]), 0);
    }
}

static void names_have_at_most_251_or_255_bytes(void)
{
    char name[301];
    CHECK_IS(ipc_name_max(IPC_SEM), 251);
    CHECK_IS(ipc_name_max(IPC_SHM), 255);
    CHECK_IS(ipc_name_max(IPC_MQ), 255);
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++)
        for (size_t size = 1; size < sizeof name; size++) {
            memset(name, 'x', size);
            name[size] = 0;
            CHECK_IS(ipc_name_check(kind, name), size > ipc_name_max(kind) ? -ENAMETOOLONG : 0);
        }
}

static void every_call_refuses_a_bad_name(void)
{
    static const char *const bad[] = {"", ".", "..", "/", "a/b", "../a"};
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++)
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            CHECK_IS(open_object(kind, bad[i], 0), -EINVAL);
            CHECK_IS(open_object(kind, bad[i], O_CREAT), -EINVAL);
            int located = ipc_locate(ipc, kind, bad[i]), unlinked = ipc_unlink(ipc, kind, bad[i]);
            struct stat st;
            CHECK_IS(ipc_stat_name(ipc, kind, bad[i], &st), located);
            CHECK(located == -EINVAL || located == -ENOENT);
            CHECK(unlinked == -EINVAL || unlinked == -ENOENT);
        }
}

static void every_call_refuses_a_long_name(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name_of_size(ipc_name_max(kind) + 1);
        CHECK_IS(open_object(kind, name, 0), -ENAMETOOLONG);
        CHECK_IS(open_object(kind, name, O_CREAT), -ENAMETOOLONG);
        CHECK_IS(ipc_locate(ipc, kind, name), -ENAMETOOLONG);
        CHECK_IS(ipc_unlink(ipc, kind, name), -ENAMETOOLONG);
    }
}

static void the_longest_name_is_a_native_one(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name_of_size(ipc_name_max(kind));
        make_native(kind, name);
        CHECK(exists(kind, name));
        int fd = open_object(kind, name, 0);
        CHECK(fd >= 0);
        if (kind != IPC_SEM)
            close(fd);
        CHECK_IS(ipc_unlink(ipc, kind, name), 0);
        make(kind, name);
        CHECK((kind == IPC_SEM   ? sem_unlink(native(name))
               : kind == IPC_SHM ? shm_unlink(native(name))
                                 : mq_unlink(native(name))) == 0);
    }
}

static void kinds_do_not_share_names(void)
{
    const char *name = new_name();
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        CHECK(!exists(kind, name));
        make(kind, name);
    }
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        CHECK_IS(ipc_unlink(ipc, kind, name), 0);
        CHECK(!exists(kind, name));
        for (enum ipc_kind other = kind + 1; other <= IPC_MQ; other++)
            CHECK(exists(other, name));
    }
}

/* ---- Listing ---- */

struct search {
    const char *name;
    ino_t ino;
    unsigned times, calls;
    int answer;
};

static int find(void *arg, const char *name, ino_t ino)
{
    struct search *search = arg;
    search->calls++;
    if (strcmp(name, search->name))
        return 0;
    search->times++;
    search->ino = ino;
    return search->answer;
}

static unsigned times_listed(enum ipc_kind kind, const char *name)
{
    struct search search = {.name = name};
    CHECK_IS(ipc_list(ipc, kind, find, &search), 0);
    return search.times;
}

/* Are there queues to list for us? */
static bool is_listable(enum ipc_kind kind)
{
    struct search search = {.name = ""};
    int result = ipc_list(ipc, kind, find, &search);
    if (kind == IPC_MQ && result == -EOPNOTSUPP) {
        skip("no mqueuefs: queues cannot be listed");
        return false;
    }
    CHECK_IS(result, 0);
    return true;
}

static void every_object_is_listed_once_with_its_inode(void)
{
    static const char *const endings[] = {"", " ", "\n", "\xff\x01", ".", "-sem.a"};
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ && is_listable(kind); kind++)
        for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
            const char *name = new_name_ending(endings[i]);
            CHECK_IS(times_listed(kind, name), 0);
            make_native(kind, name);
            struct search search = {.name = name};
            CHECK_IS(ipc_list(ipc, kind, find, &search), 0);
            CHECK_IS(search.times, 1);
            CHECK(search.ino == stat_of(kind, name).st_ino);
            for (enum ipc_kind other = IPC_SEM; other <= IPC_SHM; other++)
                CHECK(other == kind || !times_listed(other, name));
            CHECK_IS(ipc_unlink(ipc, kind, name), 0);
            CHECK_IS(times_listed(kind, name), 0);
        }
}

static void a_listing_ends_with_what_its_caller_says(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ && is_listable(kind); kind++) {
        const char *name = new_name();
        make(kind, name);
        struct search search = {.name = name, .answer = 7};
        CHECK_IS(ipc_list(ipc, kind, find, &search), 7);
        CHECK_IS(search.times, 1);
        search.answer = -EINTR;
        CHECK_IS(ipc_list(ipc, kind, find, &search), -EINTR);
    }
}

static void a_long_listing_is_complete(void)
{
    enum { MANY = 400 };
    const char *names[MANY];
    struct search search = {.name = ""};
    for (int i = 0; i < MANY; i++)
        make(IPC_SHM, names[i] = new_name());
    CHECK_IS(ipc_list(ipc, IPC_SHM, find, &search), 0);
    CHECK(search.calls >= MANY);
    CHECK_IS(times_listed(IPC_SHM, names[0]), 1);
    CHECK_IS(times_listed(IPC_SHM, names[MANY - 1]), 1);
}

/* ---- What is in /dev/shm and is no object ---- */

/* A link, a FIFO and a directory, in place of an object. */
static const char *make_other(enum ipc_kind kind, int which, const char *target)
{
    const char *name = new_name(), *file = file_of(kind, name);
    CHECK((which == 0 ? symlink(target, file) : which == 1 ? mkfifo(file, 0600) : mkdir(file, 0700)) == 0);
    return name;
}

static void links_fifos_and_directories_do_not_exist(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_SHM; kind++) {
        const char *object = new_name();
        make(kind, object);
        for (int which = 0; which < 3; which++) {
            const char *name = make_other(kind, which, file_of(kind, object));
            CHECK_IS(ipc_locate(ipc, kind, name), -ENOENT);
            CHECK_IS(ipc_unlink(ipc, kind, name), -ENOENT);
            CHECK_IS(times_listed(kind, name), 0);
            CHECK_IS(open_object(kind, name, 0), -EINVAL);
            CHECK_IS(open_object(kind, name, O_CREAT), -EINVAL);
            struct stat st;
            CHECK(lstat(file_of(kind, name), &st) == 0);
            remove(file_of(kind, name));
        }
        CHECK(exists(kind, object));
    }
}

/* ---- Stat, chmod and the like ---- */

static void what_is_not_there_is_enoent(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        CHECK_IS(ipc_locate(ipc, kind, name), -ENOENT);
        CHECK_IS(ipc_unlink(ipc, kind, name), -ENOENT);
        CHECK_IS(open_object(kind, name, 0), -ENOENT);
    }
    CHECK_IS(ipc_locate(ipc, IPC_SHM, "sem.a"), -ENOENT);
    CHECK_IS(ipc_unlink(ipc, IPC_SHM, "sem.a"), -ENOENT);
}

static void a_located_object_is_a_regular_file_of_its_maker(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        make(kind, name);
        struct stat st = stat_of(kind, name);
        CHECK(S_ISREG(st.st_mode));
        CHECK_IS(st.st_mode & 07777, 0600);
        CHECK_IS(st.st_uid, geteuid());
        CHECK_IS(st.st_gid, getegid());
        CHECK_IS(st.st_nlink, 1);
    }
}

static void chmod_changes_the_object(void)
{
    static const mode_t modes[] = {0640, 0, 0777, 0600};
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        struct stat st;
        make(kind, name);
        int fd = locate(kind, name);
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
            CHECK_IS(ipc_chmod(fd, modes[i]), 0);
            CHECK_IS(ipc_stat(fd, &st), 0);
            CHECK_IS(st.st_mode & 07777, modes[i]);
        }
        CHECK_IS(stat_of(kind, name).st_mode & 07777, 0600);
        close(fd);
    }
}

static void chown_changes_the_object(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        make(kind, name);
        int fd = locate(kind, name);
        CHECK_IS(ipc_chown(fd, -1, -1), 0);
        if (is_root()) {
            CHECK_IS(ipc_chown(fd, 1234, -1), 0);
            CHECK_IS(ipc_chown(fd, -1, 4321), 0);
            struct stat st = stat_of(kind, name);
            CHECK_IS(st.st_uid, 1234);
            CHECK_IS(st.st_gid, 4321);
        } else {
            CHECK_IS(ipc_chown(fd, 0, -1), -EPERM);
        }
        close(fd);
    }
}

static void utimens_sets_the_objects_times(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        make(kind, name);
        int fd = locate(kind, name);
        CHECK_IS(ipc_utimens(fd, (struct timespec[]){{1000, 1}, {2000, 2}}), 0);
        CHECK_IS(ipc_utimens(fd, (struct timespec[]){{0, UTIME_OMIT}, {3000, 3}}), 0);
        struct stat st = stat_of(kind, name);
        CHECK_IS(st.st_atim.tv_sec, 1000);
        CHECK_IS(st.st_mtim.tv_sec, 3000);
        /* mqueuefs has times of whole seconds. */
        CHECK_IS(st.st_atim.tv_nsec, kind == IPC_MQ ? 0 : 1);
        CHECK_IS(st.st_mtim.tv_nsec, kind == IPC_MQ ? 0 : 3);
        CHECK_IS(ipc_utimens(fd, NULL), 0);
        CHECK(stat_of(kind, name).st_atim.tv_sec > 3000);
        close(fd);
    }
}

static void the_calls_take_an_open_objects_descriptor_too(void)
{
    const char *name = new_name();
    struct ipc_sem *sem;
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0600, 0), 0);
    int fds[] = {[IPC_SEM] = ipc_sem_fd(sem),
                 [IPC_SHM] = ipc_shm_open(ipc, name, O_CREAT | O_RDONLY, 0600),
                 [IPC_MQ] = ipc_mq_open(ipc, name, O_CREAT | O_RDONLY, 0600, &small)};
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        struct stat st;
        CHECK_IS(ipc_chmod(fds[kind], 0604), 0);
        CHECK_IS(ipc_chown(fds[kind], -1, getegid()), 0);
        CHECK_IS(ipc_utimens(fds[kind], (struct timespec[]){{5, 0}, {6, 0}}), 0);
        CHECK_IS(ipc_access(fds[kind], R_OK), 0);
        CHECK_IS(ipc_stat(fds[kind], &st), 0);
        CHECK_IS(st.st_mode & 07777, 0604);
        CHECK_IS(st.st_mtim.tv_sec, 6);
        CHECK(st.st_ino == stat_of(kind, name).st_ino);
    }
    ipc_sem_close(sem);
    close(fds[IPC_SHM]);
    close(fds[IPC_MQ]);
}

static void access_asks_the_mode(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        make(kind, name);
        int fd = locate(kind, name);
        CHECK_IS(ipc_access(fd, F_OK), 0);
        CHECK_IS(ipc_access(fd, R_OK | W_OK), 0);
        CHECK_IS(ipc_access(fd, X_OK), -EACCES);
        if (!is_root()) {
            CHECK_IS(ipc_chmod(fd, 0400), 0);
            CHECK_IS(ipc_access(fd, R_OK), 0);
            CHECK_IS(ipc_access(fd, W_OK), -EACCES);
        }
        close(fd);
    }
}

static bool is_permitted(enum ipc_kind kind, const char *name, int fd, uid_t user, mode_t mode, int access)
{
    int located = locate(kind, name);
    CHECK_IS(ipc_chmod(located, mode), 0);
    close(located);
    return ipc_permits(ipc, kind, fd, user, access);
}

static void what_a_mode_permits_whoever_asks_is_known(void)
{
    const uid_t owner = geteuid(), other = owner + 1;
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        make(kind, name);
        struct ipc_sem *sem = NULL;
        if (kind == IPC_SEM)
            CHECK_IS(ipc_sem_open(ipc, &sem, name, 0, 0, 0), 0);
        int fd = sem ? ipc_sem_fd(sem) : open_object(kind, name, 0);
        CHECK(fd >= 0);
        CHECK(is_permitted(kind, name, fd, owner, 0600, R_OK | W_OK));
        CHECK(is_permitted(kind, name, fd, owner, 0466, R_OK));
        CHECK(!is_permitted(kind, name, fd, owner, 0466, R_OK | W_OK)); /* but others may */
        CHECK(!is_permitted(kind, name, fd, other, 0600, R_OK));
        CHECK(is_permitted(kind, name, fd, other, 0666, R_OK | W_OK));
        CHECK(is_permitted(kind, name, fd, other, 0644, R_OK));
        CHECK(!is_permitted(kind, name, fd, other, 0644, W_OK));
        CHECK(!is_permitted(kind, name, fd, other, 0606, R_OK)); /* of the group? */
        CHECK(!is_permitted(kind, name, fd, other, 0660, R_OK));
        if (sem)
            ipc_sem_close(sem);
        else
            close(fd);
    }
}

static void the_status_by_name_is_that_of_the_object(void)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        const char *name = new_name();
        struct stat st, located;
        CHECK_IS(ipc_stat_name(ipc, kind, name, &st), -ENOENT);
        make(kind, name);
        CHECK_IS(ipc_stat_name(ipc, kind, name, &st), 0);
        located = stat_of(kind, name);
        CHECK(st.st_ino == located.st_ino && st.st_dev == located.st_dev && st.st_mode == located.st_mode);
    }
}

/* Of all calls that need a right on an object, as nobody, on one of root's with mode 0600. */
static void check_no_rights(const char *name)
{
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        int fd = locate(kind, name); /* needs none */
        struct stat st;
        CHECK_IS(ipc_stat(fd, &st), 0);
        CHECK_IS(ipc_access(fd, F_OK), 0);
        CHECK_IS(ipc_access(fd, R_OK), -EACCES);
        CHECK_IS(ipc_chmod(fd, 0666), -EPERM);
        CHECK_IS(ipc_chown(fd, 65534, -1), -EPERM);
        CHECK_IS(ipc_utimens(fd, NULL), -EACCES);
        CHECK_IS(ipc_utimens(fd, (struct timespec[]){{1, 0}, {1, 0}}), -EPERM);
        CHECK_IS(open_object(kind, name, 0), -EACCES);
        int unlinked = ipc_unlink(ipc, kind, name); /* the directories are sticky */
        CHECK(unlinked == -EPERM || unlinked == -EACCES);
        close(fd);
    }
}

static void as_nobody(void *arg)
{
    become_nobody();
    check_no_rights(arg);
}

static void as_nobody_for_files(void *arg)
{
    become_nobody_for_files();
    check_no_rights(arg);

    /* What is made now is nobody's. */
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_SHM; kind++) {
        const char *name = new_name();
        make(kind, name);
        CHECK_IS(stat_of(kind, name).st_uid, 65534);
        CHECK_IS(stat_of(kind, name).st_gid, 65534);
        CHECK_IS(ipc_unlink(ipc, kind, name), 0);
    }
}

static void rights_are_those_of_the_calling_thread(void)
{
    if (!is_root()) {
        skip("needs root, to be somebody else");
        return;
    }
    const char *name = new_name();
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++)
        make(kind, name);
    in_child(as_nobody, (void *)name);
    in_child(as_nobody_for_files, (void *)name);
}

static void the_directory_of_a_kind_is_that_of_its_files(void)
{
    struct stat directory, st;
    CHECK(stat("/dev/shm", &st) == 0);
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        CHECK_IS(ipc_stat_directory(ipc, kind, &directory), 0);
        CHECK(S_ISDIR(directory.st_mode));
        CHECK(kind == IPC_MQ || (directory.st_ino == st.st_ino && directory.st_mode == st.st_mode));
    }
}

/* ---- Descriptors ---- */

static void descriptors_are_closed_on_exec(void)
{
    const char *name = new_name();
    struct ipc_sem *sem;
    CHECK_IS(ipc_sem_open(ipc, &sem, name, O_CREAT, 0600, 0), 0);
    int fds[] = {ipc_sem_fd(sem),
                 ipc_shm_open(ipc, name, O_CREAT | O_RDWR, 0600),
                 ipc_mq_open(ipc, name, O_CREAT | O_RDWR, 0600, &small),
                 locate(IPC_SEM, name),
                 locate(IPC_SHM, name),
                 locate(IPC_MQ, name)};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        CHECK_IS(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        if (i)
            close(fds[i]);
    }
    ipc_sem_close(sem);
}

/* With no descriptor to be had, on a name that is there and one that is not. */
static void without_descriptors(void *arg)
{
    const char *const *names = arg;
    struct rlimit limit;
    int next = dup(0);
    CHECK(next >= 0);
    close(next);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = next;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++) {
        struct search search = {.name = ""};
        CHECK_IS(ipc_locate(ipc, kind, names[0]), -EMFILE);
        CHECK_IS(open_object(kind, names[0], 0), -EMFILE);
        CHECK_IS(open_object(kind, names[1], O_CREAT), -EMFILE);
        int listed = ipc_list(ipc, kind, find, &search);
        CHECK(listed == -EMFILE || (kind == IPC_MQ && listed == -EOPNOTSUPP));
    }
}

static void without_descriptors_nothing_is_made(void)
{
    const char *names[] = {new_name(), new_name()};
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++)
        make(kind, names[0]);
    in_child(without_descriptors, names);
    for (enum ipc_kind kind = IPC_SEM; kind <= IPC_MQ; kind++)
        CHECK(!exists(kind, names[1]));
}

static void contexts_are_independent(void)
{
    struct ipc *other;
    const char *name = new_name();
    struct ipc_sem *ours, *theirs;
    CHECK_IS(ipc_new(&other), 0);
    CHECK_IS(ipc_sem_open(ipc, &ours, name, O_CREAT, 0600, 0), 0);
    CHECK_IS(ipc_sem_open(other, &theirs, name, 0, 0, 0), 0);
    CHECK(ours != theirs);
    ipc_sem_close(ours);
    CHECK_IS(ipc_sem_post(theirs, 1), 0);
    ipc_sem_close(theirs);
    ipc_free(other);
    CHECK(exists(IPC_SEM, name));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(a_name_is_not_empty_nor_a_path),
                                        TEST(only_shared_memory_is_not_named_as_semaphores_files_are),
                                        TEST(names_have_at_most_251_or_255_bytes),
                                        TEST(every_call_refuses_a_bad_name),
                                        TEST(every_call_refuses_a_long_name),
                                        TEST(the_longest_name_is_a_native_one),
                                        TEST(kinds_do_not_share_names),
                                        TEST(every_object_is_listed_once_with_its_inode),
                                        TEST(a_listing_ends_with_what_its_caller_says),
                                        TEST(a_long_listing_is_complete),
                                        TEST(links_fifos_and_directories_do_not_exist),
                                        TEST(what_is_not_there_is_enoent),
                                        TEST(a_located_object_is_a_regular_file_of_its_maker),
                                        TEST(chmod_changes_the_object),
                                        TEST(chown_changes_the_object),
                                        TEST(utimens_sets_the_objects_times),
                                        TEST(the_calls_take_an_open_objects_descriptor_too),
                                        TEST(access_asks_the_mode),
                                        TEST(what_a_mode_permits_whoever_asks_is_known),
                                        TEST(the_status_by_name_is_that_of_the_object),
                                        TEST(rights_are_those_of_the_calling_thread),
                                        TEST(the_directory_of_a_kind_is_that_of_its_files),
                                        TEST(descriptors_are_closed_on_exec),
                                        TEST(without_descriptors_nothing_is_made),
                                        TEST(contexts_are_independent),
                                        {0}};
    (void)argc;
    return run_tests(tests, argv);
}

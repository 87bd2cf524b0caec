// Preloaded into the daemon by test_faults.py: one chosen allocation fails, and those that live are counted.
//
// The file that IPCFS_ALLOCATIONS names is mapped as a struct control. What counts as an allocation is memory from
// malloc and its like (libc's and libfuse's own calls too), a shared mapping of a file, a thread and a process.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct control {
    int64_t countdown;   // the allocation that brings it to 0 fails; below 1: none
    int64_t failures;    // how many have
    int64_t live;        // blocks of memory
    int64_t not_libfuse; // those of libfuse neither count nor fail
    uintptr_t caller;    // of the last that failed, an address in:
    char object[224];
};

static struct control *control;
static uintptr_t libfuse_begin, libfuse_end;

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
    int (*pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    pid_t (*fork)(void);
    int (*pthread_getattr_np)(pthread_t, pthread_attr_t *);
} next;

// What dlsym needs for itself before we know of a better.
static char early[1 << 16] __attribute__((aligned(64)));
static size_t early_used;

static bool is_early(const void *memory)
{
    return (const char *)memory >= early && (const char *)memory < early + sizeof early;
}

static void *early_alloc(size_t size)
{
    char *memory = early + early_used;

    early_used += (size + 63) / 64 * 64;
    if (early_used > sizeof early)
        abort();
    return memory;
}

static bool ready(void)
{
    static bool looking;

    if (next.free || looking)
        return next.free;
    looking = true;
    next.malloc = dlsym(RTLD_NEXT, "malloc");
    next.calloc = dlsym(RTLD_NEXT, "calloc");
    next.realloc = dlsym(RTLD_NEXT, "realloc");
    next.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    next.mmap = dlsym(RTLD_NEXT, "mmap");
    next.pthread_create = dlsym(RTLD_NEXT, "pthread_create");
    next.fork = dlsym(RTLD_NEXT, "fork");
    next.pthread_getattr_np = dlsym(RTLD_NEXT, "pthread_getattr_np");
    next.free = dlsym(RTLD_NEXT, "free");
    return true;
}

static int find_libfuse(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    for (int i = 0; strstr(info->dlpi_name, "libfuse3") && i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            libfuse_begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            libfuse_end = libfuse_begin + info->dlpi_phdr[i].p_memsz;
        }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("IPCFS_ALLOCATIONS");
    int fd = path && ready() ? open(path, O_RDWR | O_CLOEXEC) : -1;

    dl_iterate_phdr(find_libfuse, NULL);
    if (fd < 0)
        return;
    void *memory = next.mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    control = memory == MAP_FAILED ? NULL : memory;
}

static __thread bool exempt;

static bool fails(void *caller)
{
    uintptr_t address = (uintptr_t)caller;

    if (!control || exempt || __atomic_load_n(&control->countdown, __ATOMIC_SEQ_CST) < 1 ||
        (control->not_libfuse && address >= libfuse_begin && address < libfuse_end) ||
        __atomic_sub_fetch(&control->countdown, 1, __ATOMIC_SEQ_CST) != 0)
        return false;
    Dl_info info;
    control->caller = address;
    if (dladdr(caller, &info)) {
        control->caller -= (uintptr_t)info.dli_fbase;
        /* Not with strncpy: ThreadSanitizer would look on, which does not see what orders the failures here. */
        size_t i = 0;
        for (; info.dli_fname[i] && i < sizeof control->object - 1; i++)
            control->object[i] = info.dli_fname[i];
        control->object[i] = '\0';
    }
    __atomic_add_fetch(&control->failures, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return true;
}

static void *counted(void *memory)
{
    if (memory && control)
        __atomic_add_fetch(&control->live, 1, __ATOMIC_SEQ_CST);
    return memory;
}

void *malloc(size_t size)
{
    if (!ready())
        return early_alloc(size);
    return fails(__builtin_return_address(0)) ? NULL : counted(next.malloc(size));
}

void *calloc(size_t count, size_t size)
{
    if (!ready())
        return early_alloc(count * size); // zeros, as nothing is given twice
    return fails(__builtin_return_address(0)) ? NULL : counted(next.calloc(count, size));
}

static void *resize(void *memory, size_t size, void *caller)
{
    if (is_early(memory)) {
        void *moved = counted(next.malloc(size));
        const size_t rest = early + sizeof early - (char *)memory;
        return moved ? memcpy(moved, memory, size < rest ? size : rest) : NULL;
    }
    if (fails(caller))
        return NULL;
    return memory ? next.realloc(memory, size) : counted(next.realloc(NULL, size));
}

void *realloc(void *memory, size_t size)
{
    if (!ready())
        return early_alloc(size);
    return resize(memory, size, __builtin_return_address(0));
}

void *reallocarray(void *memory, size_t count, size_t size)
{
    size_t whole;

    if (__builtin_mul_overflow(count, size, &whole)) {
        errno = ENOMEM;
        return NULL;
    }
    return resize(memory, whole, __builtin_return_address(0));
}

void free(void *memory)
{
    if (!memory || is_early(memory) || !ready())
        return;
    if (control)
        __atomic_sub_fetch(&control->live, 1, __ATOMIC_SEQ_CST);
    next.free(memory);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    if (!ready())
        return early_alloc(size);
    return fails(__builtin_return_address(0)) ? NULL : counted(next.aligned_alloc(alignment, size));
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = aligned_alloc(alignment, size);
    return *memory ? 0 : ENOMEM;
}

// Those of sanitizers would not come to us for the memory, but those who free it would.
char *strdup(const char *text)
{
    const size_t size = strlen(text) + 1;
    void *copy = fails(__builtin_return_address(0)) ? NULL : counted(next.malloc(size));

    return copy ? memcpy(copy, text, size) : NULL;
}

static void *map(void *address, size_t size, int protection, int flags, int fd, off_t offset, void *caller)
{
    ready();
    if (flags & MAP_SHARED && fd >= 0 && fails(caller))
        return MAP_FAILED;
    return next.mmap(address, size, protection, flags, fd, offset);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return map(address, size, protection, flags, fd, offset, __builtin_return_address(0));
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return map(address, size, protection, flags, fd, offset, __builtin_return_address(0));
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    ready();
    return fails(__builtin_return_address(0)) ? EAGAIN : next.pthread_create(thread, attributes, run, argument);
}

pid_t fork(void)
{
    ready();
    return fails(__builtin_return_address(0)) ? -1 : next.fork();
}

// What the sanitizers ask in each new thread, and end the process over.
int pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes)
{
    ready();
    exempt = true;
    int error = next.pthread_getattr_np(thread, attributes);
    exempt = false;
    return error;
}

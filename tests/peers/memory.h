// Shared memory as the programs here map it: a native segment or a file of a mount, chosen on the command line.
//
//   shm:NAME    by shm_open
//   PATH        by open

#include <inttypes.h>
#include <sched.h>

#include "target.h"

// The first `size` bytes of it, to be read and written.
static inline void *map_memory(const char *text, size_t size)
{
    char name[NAME_MAX + 2];
    int fd;

    if (!strncmp(text, "shm:", 4)) {
        snprintf(name, sizeof name, "/%s", text + 4);
        fd = shm_open(name, O_RDWR, 0);
    } else {
        fd = open(text, O_RDWR);
    }
    void *memory = fd == -1 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        fail(text);
    close(fd);
    return memory;
}

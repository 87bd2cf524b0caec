// pingpong first|second MEMORY ROUNDS: two sides count one number in MEMORY up in turn, one to odd values and one to
// even ones, with a message for each step. Each spins until it sees what the other has stored: there is no system call
// from the first step to the last. Prints "reached N"; status 1 for a message that is not its step's.

#include "memory.h"

enum { page = 4096, words = page / sizeof(uint64_t) };

struct table {
    _Alignas(page) _Atomic uint64_t step;
    _Alignas(page) uint64_t message[words]; // in a page of its own; written before the step
};

static uint64_t message_of(uint64_t step, size_t word)
{
    return (step + 1) * 0x9e3779b97f4a7c15 + word;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct table *table = map_memory(argv[2], sizeof *table);
    uint64_t last = 2 * strtoull(argv[3], NULL, 10);

    for (uint64_t step = !strcmp(argv[1], "second"); step < last; step += 2) {
        while (atomic_load_explicit(&table->step, memory_order_acquire) != step)
            continue;
        for (size_t i = 0; i < words; i++)
            if (step && table->message[i] != message_of(step, i))
                return 1;
        for (size_t i = 0; i < words; i++)
            table->message[i] = message_of(step + 1, i);
        atomic_store_explicit(&table->step, step + 1, memory_order_release);
    }
    while (atomic_load(&table->step) < last)
        continue;
    printf("reached %" PRIu64 "\n", atomic_load(&table->step));
    return 0;
}

// ring produce|consume MEMORY COUNT: COUNT numbers go through a ring in MEMORY, in order, from one producer to one
// consumer, which checks each. Prints "items N sum S".

#include "memory.h"

enum { room = 4096, line = 64 };

struct ring {
    _Alignas(line) _Atomic uint64_t made; // how many have been put in,
    _Alignas(line) _Atomic uint64_t used; // and how many have been taken out
    _Alignas(line) uint64_t items[room];
};

static uint64_t item(uint64_t number)
{
    return number * 0x9e3779b97f4a7c15 ^ number >> 7;
}

// Waits until `counter` is past `number`, and returns it.
static uint64_t wait_past(const _Atomic uint64_t *counter, uint64_t number)
{
    uint64_t value;

    while ((value = atomic_load_explicit(counter, memory_order_acquire)) <= number)
        sched_yield();
    return value;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    bool produces = !strcmp(argv[1], "produce");
    struct ring *ring = map_memory(argv[2], sizeof *ring);
    uint64_t count = strtoull(argv[3], NULL, 10), sum = 0, until = 0;

    for (uint64_t i = 0; i < count; i++) {
        if (i == until)
            until = produces ? room + (i < room ? 0 : wait_past(&ring->used, i - room)) : wait_past(&ring->made, i);
        if (produces) {
            ring->items[i % room] = item(i);
            atomic_store_explicit(&ring->made, i + 1, memory_order_release);
        } else {
            if (ring->items[i % room] != item(i)) {
                fprintf(stderr, "item %" PRIu64 " is %" PRIx64 "\n", i, ring->items[i % room]);
                return 1;
            }
            atomic_store_explicit(&ring->used, i + 1, memory_order_release);
        }
        sum += item(i);
    }
    printf("items %" PRIu64 " sum %" PRIx64 "\n", count, sum);
    return 0;
}

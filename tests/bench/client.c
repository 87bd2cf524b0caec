// client OPERATION OBJECT SIZE CLIENTS ROUNDS MILLISECONDS SIDE...: what one operation costs on each SIDE, which is the
// folder of a mount, or "native" for the calls of libc.
//
// CLIENTS processes do OPERATION all at once, for MILLISECONDS on one side and then the next, for ROUNDS rounds and one
// before them to warm up. Before each the machine is at rest for a moment, so that no side has what another has left
// behind: a host that has seen a core sleep for short times only wakes it up sooner. The objects OBJECT0, OBJECT1, ...,
// one for each client, are there already. SIZE is that of a message or of the part of a segment. Prints "ROUND SIDE
// NANOSECONDS" for each: the mean of an operation.

#include "../peers/target.h"
#include "measure.h"

#include <sys/wait.h>
#include <sys/xattr.h>

enum {
    PAGE = 4096,
    SEGMENT = 4 << 20,
    HOT = 256 << 10,
    LINE = 64,
    CHUNK_TIME = 50000,
    CHUNK_MAX = 1 << 20,
    REST = 30000000
};

struct side {
    char path[PATH_MAX]; // the object's file; for a native side the one that libc makes
    char name[NAME_MAX]; // the object's for libc
    int file;            // or -1
    sem_t *semaphore;    // of the native side
    mqd_t queue;         // as well
    char *map;
    mqd_t other_end; // of a queue: fills and empties it natively, on any side, while the clock is stopped
    size_t chunk;    // how many operations between two looks at the clock
    size_t progress; // where in the segment the next one is
};

static size_t size;
static char *message; // SIZE bytes and room

// ---- Semaphores ----

static void post_file(struct side *side, size_t count)
{
    while (count--)
        if (write(side->file, "\n", 1) != 1)
            fail(side->path);
}

static void post_native(struct side *side, size_t count)
{
    while (count--)
        if (sem_post(side->semaphore))
            fail(side->name);
}

static void wait_file(struct side *side, size_t count)
{
    char buffer[8];
    while (count--)
        if (pread(side->file, buffer, sizeof buffer, 0) != 2)
            fail(side->path);
}

static void wait_native(struct side *side, size_t count)
{
    while (count--)
        if (sem_wait(side->semaphore))
            fail(side->name);
}

static void post_wait_file(struct side *side, size_t count)
{
    while (count--) {
        post_file(side, 1);
        wait_file(side, 1);
    }
}

static void post_wait_native(struct side *side, size_t count)
{
    while (count--) {
        post_native(side, 1);
        wait_native(side, 1);
    }
}

static void open_wait_close_file(struct side *side, size_t count)
{
    while (count--) {
        side->file = open(side->path, O_RDONLY);
        if (side->file < 0)
            fail(side->path);
        wait_file(side, 1);
        close(side->file);
    }
}

static void open_wait_close_native(struct side *side, size_t count)
{
    while (count--) {
        side->semaphore = sem_open(side->name, 0);
        if (side->semaphore == SEM_FAILED)
            fail(side->name);
        wait_native(side, 1);
        sem_close(side->semaphore);
    }
}

static void stat_path(struct side *side, size_t count)
{
    struct stat st;
    while (count--)
        if (stat(side->path, &st))
            fail(side->path);
}

static void xattr_file(struct side *side, size_t count)
{
    char value[16];
    while (count--)
        if (getxattr(side->path, "user.ipcfs.value", value, sizeof value) <= 0)
            fail(side->path);
}

static void getvalue_native(struct side *side, size_t count)
{
    int value;
    while (count--)
        if (sem_getvalue(side->semaphore, &value))
            fail(side->name);
}

// ---- Queues ----

static void send_file(struct side *side, size_t count)
{
    while (count--)
        if (write(side->file, message, size) != (ssize_t)size)
            fail(side->path);
}

static void send_native(struct side *side, size_t count)
{
    while (count--)
        if (mq_send(side->queue, message, size, 0))
            fail(side->name);
}

static void receive_file(struct side *side, size_t count)
{
    while (count--)
        if (pread(side->file, message, size, 0) != (ssize_t)size)
            fail(side->path);
}

static void receive_native(struct side *side, size_t count)
{
    while (count--)
        if (mq_receive(side->queue, message, size, NULL) != (ssize_t)size)
            fail(side->name);
}

// A chunk of these is as many messages as the queue has room for.
static void empty_queue(struct side *side)
{
    while (mq_receive(side->other_end, message, size, NULL) >= 0)
        ;
}

static void fill_queue(struct side *side)
{
    while (!mq_send(side->other_end, message, size, 0))
        ;
}

// ---- Shared memory ----

static void open_close_file(struct side *side, size_t count)
{
    while (count--) {
        int file = open(side->path, O_RDWR);
        if (file < 0 || close(file))
            fail(side->path);
    }
}

static void open_close_native(struct side *side, size_t count)
{
    while (count--) {
        int file = shm_open(side->name, O_RDWR, 0);
        if (file < 0 || close(file))
            fail(side->name);
    }
}

static off_t next_part(struct side *side)
{
    side->progress = (side->progress + size) % SEGMENT;
    return side->progress;
}

static void pread_part(struct side *side, size_t count)
{
    while (count--)
        if (pread(side->file, message, size, next_part(side)) != (ssize_t)size)
            fail(side->path);
}

static void pwrite_part(struct side *side, size_t count)
{
    while (count--)
        if (pwrite(side->file, message, size, next_part(side)) != (ssize_t)size)
            fail(side->path);
}

static char *map_segment(const struct side *side)
{
    char *map = mmap(NULL, SEGMENT, PROT_READ | PROT_WRITE, MAP_SHARED, side->file, 0);
    if (map == MAP_FAILED)
        fail(side->path);
    return map;
}

// The segment's pages are there; what is new is the mapping.
static void touch_first(struct side *side, size_t count)
{
    while (count--) {
        volatile char *map = map_segment(side);
        for (size_t at = 0; at < SEGMENT; at += PAGE)
            map[at] = 1;
        munmap((char *)map, SEGMENT);
    }
}

static void load_and_store(struct side *side, size_t count)
{
    if (!side->map) {
        side->map = map_segment(side);
        memset(side->map, 0, HOT);
    }
    while (count--)
        for (volatile char *at = side->map; at < side->map + HOT; at += LINE)
            ++*at;
}

// ---- All of them ----

struct operation {
    const char *name;
    const char *kind;
    enum { NOTHING, A_FILE, A_SEGMENT } wants; // what is to be open before the first
    void (*prepare)(struct side *);            // before each chunk
    void (*on_file)(struct side *, size_t), (*on_native)(struct side *, size_t);
};

static const struct operation operations[] = {
    {"post", "sem", A_FILE, NULL, post_file, post_native},
    {"wait", "sem", A_FILE, NULL, wait_file, wait_native},
    {"post-wait", "sem", A_FILE, NULL, post_wait_file, post_wait_native},
    {"open-wait-close", "sem", NOTHING, NULL, open_wait_close_file, open_wait_close_native},
    {"stat", "sem", NOTHING, NULL, stat_path, stat_path},
    {"xattr", "sem", A_FILE, NULL, xattr_file, getvalue_native},
    {"send", "mq", A_FILE, empty_queue, send_file, send_native},
    {"receive", "mq", A_FILE, fill_queue, receive_file, receive_native},
    {"open-close", "shm", NOTHING, NULL, open_close_file, open_close_native},
    {"pread", "shm", A_SEGMENT, NULL, pread_part, pread_part},
    {"pwrite", "shm", A_SEGMENT, NULL, pwrite_part, pwrite_part},
    {"first-touch", "shm", A_SEGMENT, NULL, touch_first, touch_first},
    {"load-store", "shm", A_SEGMENT, NULL, load_and_store, load_and_store},
};

static const struct operation *find_operation(const char *name)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (!strcmp(operations[i].name, name))
            return &operations[i];
    fprintf(stderr, "client: no operation %s\n", name);
    exit(2);
}

static bool is_native(const char *folder)
{
    return !strcmp(folder, "native");
}

static void open_native(const struct operation *operation, struct side *side)
{
    snprintf(side->path, sizeof side->path, "/dev/shm/%s%s", strcmp(operation->kind, "sem") ? "" : "sem.",
             side->name + 1);
    if (!strcmp(operation->kind, "mq")) {
        side->queue = mq_open(side->name, O_RDWR);
        if (side->queue == -1)
            fail(side->name);
    } else if (operation->wants == A_SEGMENT) {
        side->file = shm_open(side->name, O_RDWR, 0);
        if (side->file < 0)
            fail(side->name);
    } else if (operation->wants == A_FILE) {
        side->semaphore = sem_open(side->name, 0);
        if (side->semaphore == SEM_FAILED)
            fail(side->name);
    }
}

static struct side open_side(const struct operation *operation, const char *folder, const char *object, int client)
{
    struct side side = {.file = -1, .queue = -1, .other_end = -1, .chunk = 1};
    snprintf(side.name, sizeof side.name, "/%s%d", object, client);
    if (is_native(folder)) {
        open_native(operation, &side);
    } else {
        snprintf(side.path, sizeof side.path, "%s/%s%s", folder, operation->kind, side.name);
        if (operation->wants != NOTHING && (side.file = open(side.path, O_RDWR)) < 0)
            fail(side.path);
    }
    if (!strcmp(operation->kind, "mq")) {
        struct mq_attr attributes;
        side.other_end = mq_open(side.name, O_RDWR | O_NONBLOCK);
        if (side.other_end == -1 || mq_getattr(side.other_end, &attributes))
            fail(side.name);
        side.chunk = attributes.mq_maxmsg;
    }
    return side;
}

static int64_t run_chunk(const struct operation *operation, struct side *side, bool native)
{
    if (operation->prepare)
        operation->prepare(side);
    int64_t start = now();
    (native ? operation->on_native : operation->on_file)(side, side->chunk);
    return now() - start;
}

// Nanoseconds of one operation, over a stretch of time in which the clock is read seldom.
static double measure(const struct operation *operation, struct side *side, bool native, int64_t stretch, bool warm_up)
{
    int64_t end = now() + stretch, total = 0, time;
    size_t count = 0;
    do {
        time = run_chunk(operation, side, native);
        total += time;
        count += side->chunk;
        if (warm_up && !operation->prepare && time < CHUNK_TIME && side->chunk < CHUNK_MAX)
            side->chunk *= 2;
    } while (now() < end);
    return (double)total / count;
}

struct plan {
    const struct operation *operation;
    const char *object;
    int clients, rounds, sides_count;
    int64_t stretch;
    char **sides;
    pthread_barrier_t *barrier; // with the results, in memory that all clients share
    double *results;            // by round, side and client
};

static void be_client(const struct plan *plan, int client)
{
    struct side *sides = calloc(plan->sides_count, sizeof *sides);
    for (int i = 0; i < plan->sides_count; i++)
        sides[i] = open_side(plan->operation, plan->sides[i], plan->object, client);
    for (int round = 0; round <= plan->rounds; round++)
        for (int i = 0; i < plan->sides_count; i++) {
            pthread_barrier_wait(plan->barrier);
            nanosleep(&(struct timespec){.tv_nsec = REST}, NULL);
            plan->results[(round * plan->sides_count + i) * plan->clients + client] =
                measure(plan->operation, &sides[i], is_native(plan->sides[i]), plan->stretch, !round);
        }
    exit(0);
}

static void *share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static void run_clients(const struct plan *plan)
{
    for (int client = 0; client < plan->clients; client++) {
        pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (!pid) {
            end_with_parent();
            be_client(plan, client);
        }
    }
    // One that fails would leave the others at the barrier; they end with this process.
    for (int client = 0, status; client < plan->clients; client++)
        if (wait(&status) < 0 || status)
            exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 8)
        return 2;
    struct plan plan = {.operation = find_operation(argv[1]), .object = argv[2], .clients = atoi(argv[4])};
    size = atoi(argv[3]);
    message = calloc(1, size + PAGE);
    plan.rounds = atoi(argv[5]);
    plan.stretch = atoi(argv[6]) * INT64_C(1000000);
    plan.sides = argv + 7;
    plan.sides_count = argc - 7;
    plan.results = share(sizeof(double) * (plan.rounds + 1) * plan.sides_count * plan.clients);
    plan.barrier = share(sizeof *plan.barrier);
    pthread_barrierattr_t shared;
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(plan.barrier, &shared, plan.clients);

    run_clients(&plan);
    const double *result = plan.results + plan.sides_count * plan.clients;
    for (int round = 0; round < plan.rounds; round++)
        for (int i = 0; i < plan.sides_count; i++) {
            double sum = 0;
            for (int client = 0; client < plan.clients; client++)
                sum += *result++;
            printf("%d %d %.3f\n", round, i, sum / plan.clients);
        }
    return 0;
}

// pair wake KIND OBJECT ROUNDS SAMPLES TAKER:GIVER...: how long from the moment before one process gives a unit or a
// message until another, which sleeps for it, has it.
// pair ping-pong KIND OBJECT ROUNDS MILLISECONDS FIRST:SECOND...: how long from one process to another and back.
// pair lines mq OBJECT FILE: one process sends the lines of FILE, one receives them, both natively.
//
// KIND is sem or mq, a side (TAKER, GIVER, ...) is the folder of a mount or "native". The objects OBJECT0 and OBJECT1
// are there already. Prints "ROUND PAIR NANOSECONDS" for each; of lines the mean of one.

#include "../peers/target.h"
#include "measure.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { PAIRS_MAX = 8, MESSAGE = 64, SETTLE = 300000 };

static struct shared {
    atomic_int ready; // wake: how often the taker has begun to take
    atomic_int done;  // wake: and has taken, a futex
    atomic_bool last; // ping-pong: of this pair
    int64_t taken_at;
} * shared;

struct pair {
    struct target first[2], second[2]; // of OBJECT0 and OBJECT1
};

static const char *kind;

static struct target open_on(const char *folder, const char *object, int number)
{
    char text[PATH_MAX];
    if (!strcmp(folder, "native"))
        snprintf(text, sizeof text, "%s:%s%d", kind, object, number);
    else
        snprintf(text, sizeof text, "%s/%s/%s%d", folder, kind, object, number);
    return open_target(text, O_RDWR);
}

static struct pair open_pair(char *text, const char *object)
{
    char *second = strchr(text, ':');
    struct pair pair;
    if (!second)
        exit(2);
    *second++ = 0;
    for (int i = 0; i < 2; i++) {
        pair.first[i] = open_on(text, object, i);
        pair.second[i] = open_on(second, object, i);
    }
    return pair;
}

static void take_one(struct target target)
{
    char buffer[MESSAGE];
    if (target.semaphore ? sem_wait(target.semaphore) : take(target, buffer, sizeof buffer) <= 0)
        fail("take");
}

static void give_one(struct target target)
{
    static const char message[MESSAGE] = "\n";
    // A semaphore is posted once by white space, so of a message for it only the first byte counts.
    if (give(target, message, strcmp(kind, "sem") ? sizeof message : 1))
        fail("give");
}

// The child does what the parent answers to, and ends with it.
static pid_t start_child(void)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (!child)
        end_with_parent();
    return child;
}

static void end_child(pid_t child)
{
    int status;
    if (waitpid(child, &status, 0) < 0 || status)
        exit(1);
}

// ---- Wake-up ----

static void take_for_ever(const struct pair *pairs, int pairs_count, int samples)
{
    for (int number = 1;; number++) {
        const struct pair *pair = &pairs[(number - 1) / samples % pairs_count];
        shared->ready = number;
        take_one(pair->first[0]);
        shared->taken_at = now();
        shared->done = number;
        syscall(SYS_futex, &shared->done, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

static bool sleeps(int stat)
{
    char text[256];
    ssize_t length = pread(stat, text, sizeof text - 1, 0);
    text[length < 0 ? 0 : length] = 0;
    const char *state = strrchr(text, ')');
    return state && state[1] && state[2] == 'S';
}

static void pause_for(long nanoseconds)
{
    nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL);
}

// Once the taker sleeps, whoever serves it is given time to go to sleep as well. After giving we sleep without a timer:
// to set one takes a virtual machine longer than waking somebody, who may have to wait for that.
static int64_t wake_once(const struct pair *pair, int number, int stat)
{
    while (shared->ready != number || !sleeps(stat))
        pause_for(20000);
    pause_for(SETTLE);
    int64_t start = now();
    give_one(pair->second[0]);
    for (int done; (done = shared->done) != number;)
        syscall(SYS_futex, &shared->done, FUTEX_WAIT, done, NULL, NULL, 0);
    return shared->taken_at - start;
}

static void wake(const struct pair *pairs, int pairs_count, int rounds, int samples)
{
    pid_t child = start_child();
    if (!child)
        take_for_ever(pairs, pairs_count, samples);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    int stat = open(path, O_RDONLY), number = 0;
    for (int round = -1; round < rounds; round++) // the first warms up
        for (int i = 0; i < pairs_count; i++) {
            int64_t sum = 0;
            for (int sample = 0; sample < samples; sample++)
                sum += wake_once(&pairs[i], ++number, stat);
            if (round >= 0)
                printf("%d %d %.3f\n", round, i, (double)sum / samples);
        }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

// ---- Ping-pong ----

static void answer(const struct pair *pairs, int pairs_count, int rounds)
{
    for (int i = 0; i < (rounds + 1) * pairs_count; i++) {
        const struct pair *pair = &pairs[i % pairs_count];
        for (bool last = false; !last;) {
            take_one(pair->second[0]);
            last = shared->last;
            give_one(pair->second[1]);
        }
    }
    exit(0);
}

static double play(const struct pair *pair, int64_t stretch)
{
    int64_t start = now(), time;
    int count = 0;
    do {
        give_one(pair->first[0]);
        take_one(pair->first[1]);
        count++;
        time = now() - start;
    } while (time < stretch);
    shared->last = true;
    give_one(pair->first[0]);
    take_one(pair->first[1]);
    shared->last = false;
    return (double)time / count;
}

static void ping_pong(const struct pair *pairs, int pairs_count, int rounds, int64_t stretch)
{
    pid_t child = start_child();
    if (!child)
        answer(pairs, pairs_count, rounds);
    for (int round = -1; round < rounds; round++)
        for (int i = 0; i < pairs_count; i++) {
            double time = play(&pairs[i], stretch);
            if (round >= 0)
                printf("%d %d %.3f\n", round, i, time);
        }
    end_child(child);
}

// ---- Lines ----

static char *map_file(const char *path, size_t *size)
{
    struct stat st;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &st))
        fail(path);
    char *text = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (text == MAP_FAILED)
        fail(path);
    *size = st.st_size;
    return text;
}

static int count_lines(const char *text, const char *end)
{
    int count = 0;
    while ((text = memchr(text, '\n', end - text))) {
        text++;
        count++;
    }
    return count;
}

static void receive_lines(mqd_t queue, int count)
{
    char buffer[8192];
    while (count--)
        if (mq_receive(queue, buffer, sizeof buffer, NULL) < 0)
            fail("mq_receive");
    exit(0);
}

static void send_lines(mqd_t queue, const char *text, const char *end)
{
    for (const char *next; (next = memchr(text, '\n', end - text)); text = next + 1)
        if (mq_send(queue, text, next - text, 0))
            fail("mq_send");
}

static void lines(const char *object, const char *path)
{
    size_t size;
    const char *text = map_file(path, &size), *end = text + size;
    int count = count_lines(text, end);
    mqd_t queue = open_on("native", object, 0).queue;
    int64_t start = now();
    pid_t child = start_child();
    if (!child)
        receive_lines(queue, count);
    send_lines(queue, text, end);
    end_child(child);
    printf("0 0 %.3f\n", (double)(now() - start) / count);
}

int main(int argc, char **argv)
{
    struct pair pairs[PAIRS_MAX];
    if (argc < 5)
        return 2;
    kind = argv[2];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    if (!strcmp(argv[1], "lines")) {
        lines(argv[3], argv[4]);
        return 0;
    }
    int pairs_count = argc - 6;
    if (pairs_count < 1 || pairs_count > PAIRS_MAX)
        return 2;
    for (int i = 0; i < pairs_count; i++)
        pairs[i] = open_pair(argv[6 + i], argv[3]);
    if (!strcmp(argv[1], "wake"))
        wake(pairs, pairs_count, atoi(argv[4]), atoi(argv[5]));
    else if (!strcmp(argv[1], "ping-pong"))
        ping_pong(pairs, pairs_count, atoi(argv[4]), atoi(argv[5]) * INT64_C(1000000));
    else
        return 2;
    return 0;
}

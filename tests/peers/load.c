// load TASK TARGET ID: does TASK again and again until it fails or SIGTERM asks for the end. Prints "begun" after the
// first success, and at last "TASK COUNT ERRNO": how often it succeeded, and why it ended, 0 for SIGTERM.
//
//   post, wait     a unit at a time
//   send           the message "ID NUMBER", the numbers from 0
//   receive        prints such a line for each at the end
//   store, map     records of 64 bytes, "ID NUMBER" and zeros, one behind the other in 64 KiB at ID * 64 KiB of a file,
//                  and round again: by pwrite, or through a mapping
//   create         empty objects TARGETID-NUMBER, up to 2,000; then it sleeps

#include "target.h"

#include <poll.h>

enum { record_size = 64, records = 1024, regions = 16, objects_max = 2000 };

static volatile sig_atomic_t ending;
static char *received;
static size_t received_size;

static void end(int signal)
{
    (void)signal;
    ending = 1;
}

struct load {
    const char *path;
    int id;
    struct target target;
    char *memory; // of map
};

static bool post(struct load *load, int number)
{
    (void)number;
    return give(load->target, "1", 1) == 0;
}

static bool wait_for_unit(struct load *load, int number)
{
    char buffer[8];

    (void)number;
    return take(load->target, buffer, sizeof buffer) > 0;
}

static bool send(struct load *load, int number)
{
    char message[record_size];

    return give(load->target, message, sprintf(message, "%d %d", load->id, number)) == 0;
}

static bool receive(struct load *load, int number)
{
    char message[record_size];
    ssize_t length = take(load->target, message, sizeof message);

    (void)number;
    if (length < 0)
        return false;
    received = realloc(received, received_size + length + 1);
    if (!received)
        fail("realloc");
    memcpy(received + received_size, message, length);
    received[received_size + length] = '\n';
    received_size += length + 1;
    return true;
}

static off_t make_record(const struct load *load, int number, char record[record_size])
{
    memset(record, 0, record_size);
    sprintf(record, "%d %d", load->id, number);
    return ((off_t)load->id * records + number % records) * record_size;
}

static bool store(struct load *load, int number)
{
    char record[record_size];
    off_t place = make_record(load, number, record);

    return pwrite(load->target.file, record, record_size, place) == record_size;
}

static bool map(struct load *load, int number)
{
    char record[record_size];
    off_t place = make_record(load, number, record);

    if (!load->memory)
        load->memory =
            mmap(NULL, regions * records * record_size, PROT_READ | PROT_WRITE, MAP_SHARED, load->target.file, 0);
    if (load->memory == MAP_FAILED)
        fail("mmap");
    memcpy(load->memory + place, record, record_size);
    return true;
}

static bool create(struct load *load, int number)
{
    char path[PATH_MAX];

    if (number == objects_max) {
        poll(NULL, 0, -1);
        return false;
    }
    snprintf(path, sizeof path, "%s%d-%d", load->path, load->id, number);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd != -1)
        close(fd);
    return fd != -1;
}

static const struct task {
    const char *name;
    bool (*once)(struct load *load, int number); // false: errno says why
} tasks[] = {{"post", post}, {"wait", wait_for_unit}, {"send", send}, {"receive", receive}, {"store", store},
             {"map", map},   {"create", create}};

static const struct task *find_task(const char *name)
{
    for (const struct task *task = tasks; task < tasks + sizeof tasks / sizeof *tasks; task++)
        if (!strcmp(task->name, name))
            return task;
    fprintf(stderr, "no such task: %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = end};
    int count = 0;

    if (argc != 4)
        return 2;
    const struct task *task = find_task(argv[1]);
    struct load load = {.path = argv[2], .id = atoi(argv[3])};
    sigaction(SIGTERM, &action, NULL);
    if (task->once != create)
        load.target = open_target(load.path, O_RDWR);
    while (!ending) {
        if (task->once(&load, count)) {
            if (count++ == 0) {
                puts("begun");
                fflush(stdout);
            }
        } else if (errno != EINTR) {
            break;
        }
    }
    const int error = ending ? 0 : errno;
    signal(SIGTERM, SIG_IGN);
    fwrite(received, 1, received_size, stdout);
    printf("%s %d %d\n", task->name, count, error);
    return 0;
}

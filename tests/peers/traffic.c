// traffic send|receive|post|wait TARGET COUNT ID: moves COUNT messages or units, and prints "interrupted N" at last.
//
// A message is "ID SEQUENCE LENGTH " and a filler that follows from these; receive checks it, and prints a line
// "ID SEQUENCE" for each. post gives units by the handful where a file can.

#include "target.h"

enum { message_size = 512 };

static int interrupted;

static size_t fill(char *buffer, int id, int sequence, size_t length)
{
    size_t head = sprintf(buffer, "%d %d %zu ", id, sequence, length);

    if (length < head)
        length = head;
    for (size_t i = head; i < length; i++)
        buffer[i] = 'a' + (id + sequence + i) % 26;
    return length;
}

static void give_all(struct target target, const char *buffer, size_t length)
{
    while (give(target, buffer, length) == -1) {
        if (errno != EINTR)
            fail("give");
        interrupted++;
    }
}

static size_t take_one(struct target target, char *buffer, size_t size)
{
    ssize_t length;

    while ((length = take(target, buffer, size)) == -1) {
        if (errno != EINTR)
            fail("take");
        interrupted++;
    }
    return length;
}

static void check(const char *buffer, size_t length)
{
    char expected[message_size];
    int id, sequence;
    size_t asked;

    if (sscanf(buffer, "%d %d %zu ", &id, &sequence, &asked) != 3 || asked > message_size ||
        fill(expected, id, sequence, asked) != length || memcmp(buffer, expected, length)) {
        fprintf(stderr, "not whole, %zu bytes: %.*s\n", length, (int)length, buffer);
        exit(1);
    }
    printf("%d %d\n", id, sequence);
}

int main(int argc, char **argv)
{
    char buffer[message_size + 1];

    if (argc != 5)
        return 2;
    const char *task = argv[1];
    int count = atoi(argv[3]), id = atoi(argv[4]);
    bool gives = !strcmp(task, "send") || !strcmp(task, "post");
    struct target target = open_target(argv[2], gives ? O_WRONLY : O_RDONLY);

    let_signals_interrupt();
    srand(id);
    if (!strcmp(task, "send")) {
        for (int i = 0; i < count; i++)
            give_all(target, buffer, fill(buffer, id, i, rand() % message_size));
    } else if (!strcmp(task, "receive")) {
        for (int i = 0; i < count; i++) {
            size_t length = take_one(target, buffer, message_size);
            buffer[length] = 0;
            check(buffer, length);
        }
    } else if (!strcmp(task, "post")) {
        for (int left = count, units; left; left -= units) {
            units = target.semaphore || left < 5 ? 1 : 1 + rand() % 5;
            give_all(target, buffer, sprintf(buffer, "%d\n", units));
        }
    } else {
        for (int i = 0; i < count; i++)
            take_one(target, buffer, sizeof buffer);
    }
    printf("interrupted %d\n", interrupted);
    return 0;
}

/*
 * Fuzzes what is parsed of a user's text: the names of views, numbers, signals, and lines with priorities.
 *
 * An input's first line is the name of a view. What follows is a text: a signal, a number of posts and, where the view
 * is one of queues, what is written to it, where each '|' ends a write(2). The same is worked out here, and what a
 * queue (the kernel's, nameless) gave must be what was expected.
 */
#include "../../fs/sem.c"

#include "../../fs/notifier.h"
#include "../../fs/signals.h"
#include "../../fs/text.h"
#include "fuzz.h"

#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MESSAGES = 10, MESSAGE_SIZE = 16, MODEL_ROOM = 4096 };

/* ---- Views ---- */

static void write_number(FILE *out, const char *name, int64_t number, bool given)
{
    if (given)
        fprintf(out, ",%s=%lld", name, (long long)number);
}

static void write_flag(FILE *out, const char *name, bool given)
{
    if (given)
        fprintf(out, ",%s", name);
}

/* The name of a view, as short as can be. */
static void write_view(FILE *out, enum ipc_kind kind, const struct view *view)
{
    fputs(kind_names[kind], out);
    write_flag(out, "stat", view->stat);
    write_flag(out, "nonblock", view->nonblock);
    write_flag(out, "priority", view->in_band);
    write_flag(out, "text", view->text);
    write_flag(out, "drain", view->drain);
    write_flag(out, "stream", view->stream && !view->drain);
    write_flag(out, "notify", view->notify);
    if (view->has_mode)
        fprintf(out, ",mode=%o", view->mode);
    if (view->timeout >= 0)
        fprintf(out, ",timeout=%lld.%09lld", (long long)view->timeout / 1000000000,
                (long long)view->timeout % 1000000000);
    write_number(out, "value", view->value, view->value);
    write_number(out, "size", view->size, view->size >= 0);
    write_number(out, "max_messages", view->max_messages, view->max_messages);
    write_number(out, "max_message_size", view->max_message_size, view->max_message_size);
    write_number(out, "priority", view->priority, view->priority);
}

static bool same_view(const struct view *a, const struct view *b)
{
    return a->stat == b->stat && a->nonblock == b->nonblock && a->in_band == b->in_band && a->text == b->text &&
           a->stream == b->stream && a->drain == b->drain && a->notify == b->notify && a->has_mode == b->has_mode &&
           a->mode == b->mode && a->timeout == b->timeout && a->value == b->value && a->size == b->size &&
           a->max_messages == b->max_messages && a->max_message_size == b->max_message_size &&
           a->priority == b->priority;
}

static void check_ranges(enum ipc_kind kind, const struct view *view)
{
    check(view->mode <= 0777 && view->timeout >= -1 && view->size >= -1, "a view out of range");
    check(view->value >= 0 && view->value <= IPC_SEM_VALUE_MAX, "a value out of range");
    check(view->priority >= 0 && view->priority <= IPC_PRIORITY_MAX, "a priority out of range");
    check(view->max_messages >= 0 && view->max_messages <= INT32_MAX, "max_messages out of range");
    check(view->max_message_size >= 0 && view->max_message_size <= INT32_MAX, "max_message_size out of range");
    check(kind == IPC_SEM || !view->value, "a value without a semaphore");
    check(kind == IPC_SHM || view->size == -1, "a size without shared memory");
    check(kind != IPC_SHM || (view->timeout == -1 && !view->nonblock), "shared memory that waits");
    const bool framed = view->in_band || view->text || view->stream;
    check(kind == IPC_MQ || !(framed || view->notify || view->priority || view->max_messages), "no queue");
    check(!view->notify || !(framed || view->priority), "notify beside what it excludes");
    check(!view->in_band || !view->priority, "two priorities");
}

static bool check_view(const char *name, enum ipc_kind *kind, struct view *view)
{
    int error = view_parse(name, kind, view);
    if (error) {
        check(error == -ENOENT || error == -EINVAL, "view_parse fails in another way");
        return false;
    }
    check_ranges(*kind, view);

    char *again = NULL;
    size_t size;
    FILE *out = open_memstream(&again, &size);
    write_view(out, *kind, view);
    fclose(out);
    char *comma = strchr(again, ',');
    if (comma)
        *comma = '@';
    enum ipc_kind kind_again;
    struct view view_again;
    check(view_parse(again, &kind_again, &view_again) == 0, "a view's own name is refused");
    check(kind_again == *kind && same_view(view, &view_again), "a view's own name means another one");
    free(again);
    return true;
}

/* ---- Signals and posts ---- */

static void check_signal(const char *text, size_t size)
{
    int signal = 0, again = 0;
    char number[16];
    if (signal_is_cancel(text, size))
        check(signal_parse(text, size, &signal) == -EINVAL, "cancel is a signal");
    int error = signal_parse(text, size, &signal);
    if (error) {
        check(error == -EINVAL, "signal_parse fails in another way");
        return;
    }
    check(signal >= 1 && signal <= SIGRTMAX, "a signal out of range");
    snprintf(number, sizeof number, " %d\n", signal);
    check(signal_parse(number, strlen(number), &again) == 0 && again == signal, "a signal's number is another signal");
}

static void check_posts(const char *text, size_t size)
{
    unsigned posts = parse_posts(text, size);
    char number[16];
    check(posts <= 32767, "too many posts");
    if (!posts)
        return;
    snprintf(number, sizeof number, "%u\n", posts);
    check(parse_posts(number, strlen(number)) == posts, "a number of posts is another one");
}

/* ---- Lines: what must come out of a queue ---- */

struct message {
    unsigned priority;
    size_t length;
    char data[MESSAGE_SIZE];
};

struct model {
    char line[MODEL_ROOM]; /* what has come of a line without its end */
    size_t length;
    bool broken;
    struct message queue[MESSAGES]; /* in the order of their sending */
    size_t count;
};

static int model_send(struct model *model, const struct view *view, const char *data, size_t length)
{
    struct message message = {.priority = view->priority};
    if (view->in_band) {
        size_t digits = 0;
        unsigned long number = 0;
        for (; digits < length && data[digits] >= '0' && data[digits] <= '9'; digits++)
            number = number > IPC_PRIORITY_MAX ? number : number * 10 + data[digits] - '0';
        if (!digits || digits == length || data[digits] != ' ' || number > IPC_PRIORITY_MAX)
            return -EINVAL;
        message.priority = number;
        data += digits + 1;
        length -= digits + 1;
    }
    if (length > MESSAGE_SIZE)
        return -EMSGSIZE;
    if (model->count == MESSAGES)
        return -EAGAIN;
    message.length = length;
    memcpy(message.data, data, length);
    model->queue[model->count++] = message;
    return 0;
}

/* A line in parts may not be longer than a message with a priority that has no zeros before it. */
static int model_append(struct model *model, const struct view *view, const char *data, size_t length)
{
    if (model->length + length > MESSAGE_SIZE + TEXT_EXTRA)
        return -EMSGSIZE;
    memcpy(model->line + model->length, data, length);
    model->length += length;
    const char *space = view->in_band ? memchr(model->line, ' ', model->length) : NULL;
    size_t before = space ? space + 1 - model->line : 0;
    return length && model->length - before > MESSAGE_SIZE ? -EMSGSIZE : 0;
}

/* Lines until one can't be sent: *done says how far that was. */
static int model_write(struct model *model, const struct view *view, const char *data, size_t length, size_t *done)
{
    const char *end;
    int error = 0;
    model->broken = true;
    while (*done < length && (end = memchr(data + *done, '\n', length - *done))) {
        const char *begin = data + *done;
        size_t before = model->length;
        if (before)
            error = model_append(model, view, begin, end - begin);
        if (!error)
            error = before ? model_send(model, view, model->line, model->length)
                           : model_send(model, view, begin, end - begin);
        model->length = error == -EAGAIN ? before : 0;
        if (error)
            return error;
        *done = end + 1 - data;
    }
    if (*done < length) {
        error = model_append(model, view, data + *done, length - *done);
        if (error) {
            model->length = 0;
            return error;
        }
        *done = length;
    }
    model->broken = false;
    return 0;
}

/* The most urgent, of those the first. */
static struct message model_receive(struct model *model)
{
    size_t first = 0;
    for (size_t i = 1; i < model->count; i++)
        if (model->queue[i].priority > model->queue[first].priority)
            first = i;
    struct message message = model->queue[first];
    model->count--;
    memmove(&model->queue[first], &model->queue[first + 1], (model->count - first) * sizeof message);
    return message;
}

/* The same, as a read of the view shows it. */
static size_t model_read(struct model *model, const struct view *view, size_t room, char *text)
{
    const size_t longest = MESSAGE_SIZE + TEXT_EXTRA;
    const bool many = view->text && view->stream;
    size_t size = 0;
    if (!many || room < longest)
        room = longest;
    do {
        struct message message = model_receive(model);
        if (view->in_band)
            size += sprintf(text + size, "%u ", message.priority);
        memcpy(text + size, message.data, message.length);
        size += message.length;
        if (view->text && (!message.length || text[size - 1] != '\n'))
            text[size++] = '\n';
    } while (many && model->count && size + longest <= room);
    return size;
}

/* ---- And what does ---- */

static struct handle handle = {.line.writer = -1, .message_size = MESSAGE_SIZE};
static struct session session;

static void read_and_compare(struct model *model, size_t room)
{
    char expected[MODEL_ROOM];
    struct parked parked = {.handle = &handle, .size = room};
    int error = text_receive(&parked);
    if (!model->count) {
        check(error == (handle.view->drain ? 0 : -EAGAIN), "an empty queue gives something");
        check(error || !parked.result->size, "the end of a drained queue is not empty");
    } else {
        check(error == 0, "a message is not received");
        size_t size = model_read(model, handle.view, room, expected);
        check(parked.result->size == size && !memcmp(parked.result->data, expected, size),
              "a message is not what was sent");
    }
    result_release(parked.result);
}

static void write_and_compare(struct model *model, const char *data, size_t length)
{
    const struct view *view = handle.view;
    struct parked parked = {.handle = &handle, .data = (char *)data, .length = length};
    size_t done = 0;
    int error, expected;
    do {
        error = view->text ? text_send(&parked) : text_send_message(&parked);
        expected = view->text ? model_write(model, view, data, length, &done) : model_send(model, view, data, length);
        if (!view->text && !expected)
            done = length;
        check(error == expected, "a write does not end as it should");
        check(parked.done == done, "a write does not get as far as it should");
        if (error == -EAGAIN)
            read_and_compare(model, length);
    } while (error == -EAGAIN);
    if (view->text) {
        check(handle.line.length == model->length && handle.line.broken == model->broken, "a rest is not kept");
        check(!memcmp(handle.line.length ? handle.line.data : "", model->line, model->length), "another rest is kept");
    }
}

static void check_lines(const struct view *view, const char *text, size_t size)
{
    struct model model = {.length = 0};
    handle.view = view;
    handle.session = &session;
    for (const char *end = text + size; text < end; text++) {
        const char *bar = memchr(text, '|', end - text);
        size_t length = bar ? bar - text : end - text;
        write_and_compare(&model, text, length);
        text += length;
    }
    check(line_is_whole(&handle.line) == (model.length && !model.broken), "the end of a text is not sent");
    if (line_is_whole(&handle.line))
        write_and_compare(&model, "\n", 1);
    for (size_t room = 1; model.count; room += 19)
        read_and_compare(&model, room);
    read_and_compare(&model, 1);
    line_free(&handle.line);
    handle.line = (struct line){.writer = -1};
}

static void open_nameless_queue(void)
{
    char name[32];
    struct mq_attr attr = {.mq_maxmsg = MESSAGES, .mq_msgsize = MESSAGE_SIZE};
    snprintf(name, sizeof name, "/ipcfs-fuzz-%d", getpid());
    handle.fd = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, 0600, &attr);
    check(handle.fd >= 0 && mq_unlink(name) == 0, "no queue to be had");
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    open_nameless_queue();
    check(notifier_setup(&session) == 0, "no memory");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    size_t length = newline ? (size_t)(newline - data) : size;
    char *name = strndup((const char *)data, length);
    enum ipc_kind kind;
    struct view view;
    bool is_view = check_view(name, &kind, &view);
    free(name);
    length += newline ? 1 : 0;

    /* With nothing behind it, so that a step too far is seen. */
    size -= length;
    char *text = malloc(size);
    memcpy(text, data + length, size);
    check_signal(text, size);
    check_posts(text, size);
    if (is_view && kind == IPC_MQ && !view.stat && !view.notify && size < MODEL_ROOM / 4)
        check_lines(&view, text, size);
    free(text);
    return 0;
}

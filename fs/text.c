/*
 * The framing of messages in the views `text`, `priority`, `stream` and `drain`.
 *
 * A line whose end has not come waits in the handle. At the last close it is sent as it is, as the last line of a file
 * may lack its newline; but not when the write that should have ended it failed or was cut short, nor when its writer
 * was killed: a reader would take the beginning of a line for a whole one.
 */
#include "text.h"
#include "kind.h"
#include "notifier.h"
#include "process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Sending ---- */

/* Sends "PRIORITY MESSAGE" or, in a view without `priority`, the message alone. */
static int send_one(struct parked *parked, const char *data, size_t length)
{
    const struct handle *handle = parked->handle;
    parked->priority = handle->view->priority;
    if (handle->view->in_band) {
        const char *space = memchr(data, ' ', length);
        int64_t number;
        if (!space || !parse_number(data, space - data, 0, IPC_PRIORITY_MAX, &number))
            return -EINVAL;
        parked->priority = number;
        length -= space + 1 - data;
        data = space + 1;
    }
    return notifier_send(parked, data, length, parked->priority);
}

int text_send_message(struct parked *parked)
{
    int error = send_one(parked, parked->data, parked->length);
    if (!error)
        parked->done = parked->length;
    parked->for_others = !error;
    return error;
}

/* Is it longer than a message can be? Its priority is no part of that, and not known before its space. */
static bool is_too_long(const struct handle *handle, const struct line *line)
{
    const char *space = handle->view->in_band && line->length ? memchr(line->data, ' ', line->length) : NULL;
    size_t before = space ? (size_t)(space + 1 - line->data) : 0;
    return line->length - before > handle->message_size;
}

/* Puts more of a line behind what there is of it. */
static int append(const struct handle *handle, struct line *line, const char *data, size_t length)
{
    if (!length)
        return 0;
    size_t room = handle->message_size + TEXT_EXTRA;
    if (line->length + length > room)
        return -EMSGSIZE;
    if (!line->data && !(line->data = malloc(room)))
        return -ENOMEM;
    memcpy(line->data + line->length, data, length);
    line->length += length;
    return is_too_long(handle, line) ? -EMSGSIZE : 0;
}

int text_send(struct parked *parked)
{
    struct handle *handle = parked->handle;
    struct line *line = &handle->line;
    int error = 0;
    line->broken = true;
    while (!error && parked->done < parked->length) {
        const char *data = parked->data + parked->done;
        size_t length = parked->length - parked->done;
        const char *end = memchr(data, '\n', length);
        if (!end) {
            error = append(handle, line, data, length);
            if (error)
                line->length = 0;
            else
                parked->done = parked->length;
            break;
        }
        size_t before = line->length;
        if (before) {
            error = append(handle, line, data, end - data);
            if (!error)
                error = send_one(parked, line->data, line->length);
            line->length = error == -EAGAIN ? before : 0; /* of a line that can't be sent nothing is kept */
        } else {
            error = send_one(parked, data, end - data);
        }
        if (!error)
            parked->done += end + 1 - data;
        parked->for_others |= !error;
    }
    if (!error)
        line->broken = false;
    return error;
}

/* ---- Receiving ---- */

/* One message, framed, to `place`, which has room for the longest: its size there, or a negative errno. */
static ssize_t receive_one(struct parked *parked, char *place)
{
    const struct handle *handle = parked->handle;
    const struct view *view = handle->view;
    char *message = view->in_band ? place + TEXT_EXTRA - 1 : place;
    ssize_t size = ipc_mq_receive(handle->fd, message, handle->message_size, &parked->priority, NULL);
    if (size < 0)
        return size;
    if (view->in_band) {
        char digits[TEXT_EXTRA];
        int length = snprintf(digits, sizeof digits, "%u ", parked->priority);
        memmove(place + length, message, size);
        memcpy(place, digits, length);
        size += length;
    }
    if (view->text && (!size || place[size - 1] != '\n'))
        place[size++] = '\n';
    return size;
}

static bool takes_many(const struct view *view)
{
    return view->text && view->stream;
}

bool text_has_room(const struct parked *parked)
{
    const struct handle *handle = parked->handle;
    return takes_many(handle->view) && parked->result &&
           parked->result->size + handle->message_size + TEXT_EXTRA <= parked->size;
}

int text_receive(struct parked *parked)
{
    struct handle *handle = parked->handle;
    const struct view *view = handle->view;
    const size_t longest = handle->message_size + TEXT_EXTRA;
    bool many = takes_many(view);
    size_t room = many && parked->size > longest ? parked->size : longest;
    size_t size = parked->result ? parked->result->size : 0; /* it goes on */
    ssize_t one = 0;

    struct result *result = parked->result ? parked->result : result_of(handle, room);
    if (!result)
        return -ENOMEM;
    do {
        one = receive_one(parked, result->data + size);
        size += one > 0 ? one : 0;
    } while (many && one >= 0 && size + longest <= room);

    bool ended = view->drain && one == -EAGAIN;
    if (one < 0 && !size && !ended) {
        result_back(handle, result);
        return one;
    }
    parked->for_others = !parked->result || parked->result->size < size;
    result->size = size;
    parked->result = result;
    return 0;
}

/* ---- Whose line it is ---- */

bool text_is_one(const char *data, size_t size)
{
    const char *end = size ? memchr(data, '\n', size) : NULL;
    return !end || end == data + size - 1;
}

void text_begin(struct handle *handle, const char *data, size_t size, pid_t thread, uid_t uid)
{
    struct line *line = &handle->line;
    line->broken = true; /* unless it gets through */
    if (!size || data[size - 1] == '\n')
        return;
    line->thread = thread;
    line->uid = uid;
    if (line->writer >= 0)
        close(line->writer);
    line->writer = (int)syscall(SYS_pidfd_open, process_of_thread(thread), 0);
}

bool line_is_whole(const struct line *line)
{
    return line->length && !line->broken && !(line->writer >= 0 && WIFSIGNALED(process_status(line->writer)));
}

void line_free(struct line *line)
{
    free(line->data);
    if (line->writer >= 0)
        close(line->writer);
}

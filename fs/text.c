/*
 * The framing of messages in the views `text`, `priority`, `stream` and `drain`.
 *
 * A line whose end has not come waits in the handle. At the last close it is sent as it is, as the last line of a file
 * may lack its newline; but not when the write that should have ended it failed or was cut short, nor when its writer
 * was killed: a reader would take the beginning of a line for a whole one.
 */
#include "text.h"
#include "kind.h"

#include <linux/ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Sending ---------------------------------------------------------------------------------------------------- */

/* Sends "PRIORITY MESSAGE" or, in a view without `priority`, the message alone. */
static int send_one(const struct handle *handle, const char *data, size_t length, unsigned *priority)
{
    *priority = handle->view->priority;
    if (handle->view->in_band) {
        const char *space = memchr(data, ' ', length);
        int64_t number;
        if (!space || !parse_number(data, space - data, 0, IPC_PRIORITY_MAX, &number))
            return -EINVAL;
        *priority = number;
        length -= space + 1 - data;
        data = space + 1;
    }
    return ipc_mq_send(handle->fd, data, length, *priority, NULL);
}

int text_send_message(struct parked *parked)
{
    int error = send_one(parked->handle, parked->data, parked->length, &parked->priority);
    if (!error)
        parked->done = parked->length;
    return error;
}

/* Puts more of a line behind what there is of it. */
static int append(const struct handle *handle, struct line *line, const char *data, size_t length)
{
    if (!length)
        return 0;
    size_t room = handle->message_size + (handle->view->in_band ? TEXT_EXTRA - 1 : 0);
    if (line->length + length > room)
        return -EMSGSIZE;
    if (!line->data && !(line->data = malloc(room)))
        return -ENOMEM;
    memcpy(line->data + line->length, data, length);
    line->length += length;
    return 0;
}

int text_send(struct parked *parked)
{
    struct handle *handle = parked->handle;
    struct line *line = &handle->line;
    int error = 0;
    line->broken = true; /* unless we get through */
    while (!error && parked->done < parked->length) {
        const char *data = parked->data + parked->done;
        size_t length = parked->length - parked->done;
        const char *end = memchr(data, '\n', length);
        if (!end) {
            error = append(handle, line, data, length);
            if (!error)
                parked->done = parked->length;
            break;
        }
        size_t before = line->length;
        if (before) {
            error = append(handle, line, data, end - data);
            if (!error)
                error = send_one(handle, line->data, line->length, &parked->priority);
            line->length = error ? before : 0;
        } else {
            error = send_one(handle, data, end - data, &parked->priority);
        }
        if (!error)
            parked->done += end + 1 - data;
    }
    if (!error)
        line->broken = false;
    return error;
}

/* ---- Receiving -------------------------------------------------------------------------------------------------- */

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

int text_receive(struct parked *parked)
{
    const struct handle *handle = parked->handle;
    const struct view *view = handle->view;
    const size_t longest = handle->message_size + TEXT_EXTRA;
    bool many = view->text && view->stream;
    size_t room = many && parked->size > longest ? parked->size : longest;
    size_t size = 0;
    ssize_t one = 0;

    struct result *result = result_new(room);
    if (!result)
        return -ENOMEM;
    do {
        one = receive_one(parked, result->data + size);
        size += one > 0 ? one : 0;
    } while (many && one >= 0 && size + longest <= room);

    bool ended = view->drain && one == -EAGAIN;
    if (one < 0 && !size && !ended) {
        free(result);
        return one;
    }
    /* Let go of the room that a short message does not need, as the handle keeps it. */
    struct result *fitting = realloc(result, sizeof *result + size + 1);
    parked->result = fitting ? fitting : result;
    parked->result->size = size;
    return 0;
}

/* ---- Whose line it is ----------------------------------------------------------------------------------------------
 */

/* The number behind `key` in a file of /proc, or -1. */
static long read_field(const char *path, const char *key)
{
    char text[256];
    long value = -1;
    FILE *file = fopen(path, "re");
    while (file && fgets(text, sizeof text, file))
        if (!strncmp(text, key, strlen(key)) && sscanf(text + strlen(key), "%ld", &value) == 1)
            break;
    if (file)
        fclose(file);
    return value;
}

void line_began(struct line *line, pid_t thread)
{
    char path[64];
    if (line->writer >= 0)
        close(line->writer);
    snprintf(path, sizeof path, "/proc/%d/status", thread);
    line->writer = (int)syscall(SYS_pidfd_open, read_field(path, "Tgid:"), 0);
}

/* Since Linux 6.15 a pidfd tells of a process's end even when it has been waited for. */
struct pidfd_end {
    uint64_t mask, cgroup;
    uint32_t pid, tgid, ppid, ids[8], exit_code, rest[2];
};
#define PIDFD_END_MASK 8 /* PIDFD_INFO_EXIT */
#define PIDFD_GET_END _IOWR(0xff, 11, struct pidfd_end)

/* The wait(2) status with which a process has ended or is about to; 0 where it runs or nobody knows. */
static int status_of(int pidfd)
{
    char path[64], text[1024];
    struct pidfd_end end = {.mask = PIDFD_END_MASK};
    if (ioctl(pidfd, PIDFD_GET_END, &end) == 0 && end.mask & PIDFD_END_MASK)
        return end.exit_code;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    long pid = read_field(path, "Pid:");
    if (pid <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[size] = 0;
    /* proc_pid_stat(5): exit_code is the last field. */
    const char *last = strrchr(text, ' ');
    return last ? atoi(last) : 0;
}

bool line_is_whole(const struct line *line)
{
    return line->length && !line->broken && !(line->writer >= 0 && WIFSIGNALED(status_of(line->writer)));
}

void line_free(struct line *line)
{
    free(line->data);
    if (line->writer >= 0)
        close(line->writer);
}

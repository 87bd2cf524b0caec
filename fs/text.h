/* Messages as text: a line a message, and a priority before it. */
#ifndef TEXT_H
#define TEXT_H

#include "park.h"

/* The longest priority with its space, and a newline: what a message may grow by. */
#define TEXT_EXTRA 7

/* Is what is to be written no more than one line, or a part of one? */
bool text_is_one(const char *data, size_t size);
/* Before each attempt at a write, and before all of it that may fail: remembers who it is that writes the beginning of
 * a line, if it ends with one. */
void text_begin(struct handle *handle, const char *data, size_t size, pid_t thread, uid_t uid);
/* Sends lines until all of the parked write is done: 0, EAGAIN, EMSGSIZE, EINVAL. parked->done says how much went. */
int text_send(struct parked *parked);
/* Sends one message of a view without `text`. */
int text_send_message(struct parked *parked);
/* Receives into parked->result as much as its view says: 0 or a negative errno. */
int text_receive(struct parked *parked);
/* Whether one that was done can take more. */
bool text_has_room(const struct parked *parked);

/* Is its end to be sent at the last close? Not if its writer was killed, for then the rest was still to come. */
bool line_is_whole(const struct line *line);
void line_free(struct line *line);

#endif

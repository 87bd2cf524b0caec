/* What an operation gave. */
#ifndef RESULT_H
#define RESULT_H

#include "session.h"

/* Shared by its answer and, for reads at later offsets, by the handle. */
struct result {
    int refs; /* atomic */
    size_t size;
    size_t room;
    char data[];
};
struct result *result_new(size_t size);
/* One with room for that much: the handle's last, where nobody else has it, or a new one. */
struct result *result_of(struct handle *handle, size_t room);
/* The handle's last, to be released, of which *size bytes at *data, no more than *size was, are what it has from an
 * offset on: 0 at its end. NULL, with 0 bytes: there is none. */
struct result *result_at(struct handle *handle, off_t offset, const char **data, size_t *size);
/* The same, of what has not been given of it, and now has. NULL, and nothing else: all of it has been. */
struct result *result_rest(struct handle *handle, const char **data, size_t *size);
bool result_has_rest(struct handle *handle);
/* It becomes the handle's last, with a reference of its own, of which so many bytes have been given. */
void result_keep(struct handle *handle, struct result *result, size_t given);
/* It was not needed. */
void result_back(struct handle *handle, struct result *result);
void result_release(struct result *result); /* may be NULL */

#endif

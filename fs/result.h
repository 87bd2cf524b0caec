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
/* The handle's last, of which up to *size bytes at *data are what it has from an offset on. NULL: it has none, as *size
 * says, too. */
struct result *result_at(struct handle *handle, off_t offset, const char **data, size_t *size);
/* What is left of the handle's last for one who reads on, up to *size bytes, which then count as given: *data is in
 * what is returned. NULL: nothing. */
struct result *result_rest(struct handle *handle, const char **data, size_t *size);
/* It was not needed. */
void result_back(struct handle *handle, struct result *result);
void result_release(struct result *result); /* may be NULL */

#endif

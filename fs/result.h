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
/* It was not needed. */
void result_back(struct handle *handle, struct result *result);
void result_release(struct result *result); /* may be NULL */

#endif

/*
 * Inputs of the target `requests`, which are texts: one command a line, fields with one space between.
 *
 *     create 1 1 queue 01102 0644 022     a user's request; `commands` in kernel.c says what the fields are
 *     write 1 0 hello%0A 0 0
 *     # a line that does nothing
 *
 * A number is as in C. A name or data is as it stands, but %XX is a byte, {N} repeats the byte before it so that there
 * are N, and `-` alone is nothing. What refers to a node, an open file or a waiting request is its number in the order
 * of their coming, and is taken modulo how many there are: so a line that is cut out changes little.
 */
#ifndef SCRIPT_H
#define SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FIELDS_MAX = 12, BYTES_MAX = 1 << 17 };

struct field {
    const char *text;
    size_t length;
};

struct script_line {
    struct field whole, word;
    struct field fields[FIELDS_MAX]; /* empty beyond the last */
    size_t count;
};

/* Takes the first line off a text. False: it has ended. */
bool script_next(struct field *text, struct script_line *line);

bool field_is(const struct field *field, const char *word);
uint64_t field_number(const struct field *field);
/* What it stands for, with a zero byte behind it, to be freed. */
char *field_bytes(const struct field *field, size_t *length);

#endif

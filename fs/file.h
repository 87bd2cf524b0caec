/* Files with text that is made when it is read: those in the root, and those of the `stat` view. */
#ifndef FILE_H
#define FILE_H

#include "caller.h"
#include "session.h"

#include <stdio.h>

/* Writes what the file says now: 0 or a negative errno. */
typedef int content_writer(struct node *node, struct caller *caller, FILE *out);

struct root_file {
    const char *name;
    content_writer *write;
};

/* The file of that name in the root, NULL if there is none; and their names in order, NULL after the last. */
const struct root_file *file_find(const char *name);
const char *file_name(size_t i);

int file_stat(struct node *node, struct stat *st);
int file_open(struct node *node, int flags, struct handle **handle);
/* A handle that reads what `write` says; each read at offset 0 asks anew. */
int content_open(struct node *node, content_writer *write, struct handle **handle);

#endif

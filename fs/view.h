/* What the options in a directory's name ask for: sem@timeout=2, mq@text,stream. */
#ifndef VIEW_H
#define VIEW_H

#include "../core/ipc.h"

struct view {
    bool stat;
    bool nonblock;
    bool in_band; /* `priority` without a value */
    bool text;
    bool stream;
    bool drain;
    bool notify;
    bool has_mode;
    mode_t mode;
    int64_t timeout; /* nanoseconds, -1 for none */
    int64_t value;
    int64_t size;             /* bytes, -1 for none */
    int64_t max_messages;     /* 0: the system's default */
    int64_t max_message_size; /* bytes, as above */
    int64_t priority;
};

/*
 * Parses the name of a directory in the root: KIND or KIND@OPTION[,OPTION...].
 * ENOENT: no kind. EINVAL: an option that is unknown, not this kind's, out of range, given twice or beside one that
 * excludes it.
 */
int view_parse(const char *name, enum ipc_kind *kind, struct view *view);

/* The three kinds' directory names, by enum ipc_kind. */
extern const char *const kind_names[3];

/* A number, decimal and without a sign, from min to max. */
bool parse_number(const char *text, size_t length, int64_t min, int64_t max, int64_t *value);

#endif

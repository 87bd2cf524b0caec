/* The grammar of directory names. Parsing never guesses: what is not in the table, or not exactly of its form, is
 * EINVAL. */
#include "view.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

const char *const kind_names[] = {[IPC_SEM] = "sem", [IPC_SHM] = "shm", [IPC_MQ] = "mq"};

enum {
    SEM = 1 << IPC_SEM,
    SHM = 1 << IPC_SHM,
    MQ = 1 << IPC_MQ,
    ALL = SEM | SHM | MQ,
};

enum form {
    FLAG,    /* no value; sets a bool */
    NUMBER,  /* decimal, from min to max */
    OCTAL,   /* as above, octal */
    BYTES,   /* a number that may end in K, M or G, powers of 1024 */
    SECONDS, /* a decimal fraction to the nanosecond, kept in nanoseconds */
};

/* Rows of one name are told apart by whether a value is given. */
static const struct option {
    const char *name;
    unsigned kinds;
    enum form form;
    size_t member; /* of struct view */
    int64_t min, max;
    unsigned excludes; /* groups that may not stand beside it */
    unsigned group;
} options[] = {
#define AT(member) offsetof(struct view, member)
    {"stat", ALL, FLAG, AT(stat), 0, 0, ~0U, 1},
    {"mode", ALL, OCTAL, AT(mode), 0, 0777, 0, 2},
    {"timeout", SEM | MQ, SECONDS, AT(timeout), 0, INT64_MAX, 0, 4},
    {"nonblock", SEM | MQ, FLAG, AT(nonblock), 0, 0, 0, 8},
    {"value", SEM, NUMBER, AT(value), 0, IPC_SEM_VALUE_MAX, 0, 16},
    {"size", SHM, BYTES, AT(size), 0, INT64_MAX, 0, 16},
    {"max_messages", MQ, NUMBER, AT(max_messages), 1, INT_MAX, 0, 16},
    {"max_message_size", MQ, NUMBER, AT(max_message_size), 1, INT_MAX, 0, 16},
    {"priority", MQ, NUMBER, AT(priority), 0, IPC_PRIORITY_MAX, 64, 32},
    {"priority", MQ, FLAG, AT(in_band), 0, 0, 32, 64},
    {"text", MQ, FLAG, AT(text), 0, 0, 0, 128},
    {"stream", MQ, FLAG, AT(stream), 0, 0, 0, 128},
    {"drain", MQ, FLAG, AT(drain), 0, 0, 0, 128},
    {"notify", MQ, FLAG, AT(notify), 0, 0, 32 | 64 | 128, 256},
#undef AT
};
#define OPTIONS (sizeof options / sizeof *options)

static bool parse_digits(const char *text, size_t length, int base, int64_t max, int64_t *value)
{
    int64_t n = 0;
    if (!length)
        return false;
    for (size_t i = 0; i < length; i++) {
        int digit = text[i] - '0';
        if (digit < 0 || digit >= base || n > (max - digit) / base)
            return false;
        n = n * base + digit;
    }
    *value = n;
    return true;
}

bool parse_number(const char *text, size_t length, int64_t min, int64_t max, int64_t *value)
{
    return parse_digits(text, length, 10, max, value) && *value >= min;
}

static bool parse_bytes(const char *text, size_t length, int64_t max, int64_t *value)
{
    static const char units[] = "KMG";
    const char *unit = length ? memchr(units, text[length - 1], 3) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (!parse_digits(text, length - !!unit, 10, max >> shift, value))
        return false;
    *value <<= shift;
    return true;
}

static bool parse_seconds(const char *text, size_t length, int64_t *nanoseconds)
{
    const int64_t second = 1000000000;
    const char *point = memchr(text, '.', length);
    size_t whole_length = point ? (size_t)(point - text) : length;
    int64_t whole, fraction = 0;
    if (!parse_digits(text, whole_length, 10, INT64_MAX / second - 1, &whole))
        return false;
    if (point) {
        size_t digits = length - whole_length - 1;
        if (digits > 9 || !parse_digits(point + 1, digits, 10, second, &fraction))
            return false;
        for (; digits < 9; digits++)
            fraction *= 10;
    }
    *nanoseconds = whole * second + fraction;
    return true;
}

static bool set_option(const struct option *option, struct view *view, const char *text, size_t length)
{
    void *member = (char *)view + option->member;
    int64_t number;
    switch (option->form) {
    case FLAG:
        *(bool *)member = true;
        return true;
    case NUMBER:
        return parse_number(text, length, option->min, option->max, member);
    case OCTAL:
        if (length > 4 || !parse_digits(text, length, 8, option->max, &number))
            return false;
        *(mode_t *)member = number;
        view->has_mode = true;
        return true;
    case BYTES:
        return parse_bytes(text, length, option->max, member);
    case SECONDS:
        return parse_seconds(text, length, member);
    }
    return false;
}

static const struct option *find_option(const char *name, size_t length, bool has_value, enum ipc_kind kind)
{
    for (const struct option *option = options; option < options + OPTIONS; option++)
        if (strlen(option->name) == length && !memcmp(option->name, name, length) &&
            has_value == (option->form != FLAG) && option->kinds & 1U << kind)
            return option;
    return NULL;
}

static int parse_options(const char *text, enum ipc_kind kind, struct view *view)
{
    unsigned groups = 0, excluded = 0;
    uint64_t given = 0;
    for (const char *next; text; text = next) {
        size_t length = strcspn(text, ",");
        next = text[length] ? text + length + 1 : NULL;
        const char *equals = memchr(text, '=', length);
        size_t name_length = equals ? (size_t)(equals - text) : length;
        const struct option *option = find_option(text, name_length, equals, kind);
        if (!option)
            return -EINVAL;
        uint64_t bit = (uint64_t)1 << (option - options);
        if (given & bit || (excluded & option->group) || (groups & option->excludes))
            return -EINVAL;
        const char *value = equals ? equals + 1 : "";
        if (!set_option(option, view, value, equals ? length - name_length - 1 : 0))
            return -EINVAL;
        given |= bit;
        groups |= option->group;
        excluded |= option->excludes;
    }
    return 0;
}

int view_parse(const char *name, enum ipc_kind *kind, struct view *view)
{
    *view = (struct view){.timeout = -1, .size = -1};
    size_t length = strcspn(name, "@");
    for (int k = 0; k < 3; k++)
        if (strlen(kind_names[k]) == length && !memcmp(kind_names[k], name, length)) {
            *kind = k;
            int error = name[length] ? parse_options(name + length + 1, k, view) : 0;
            view->stream |= view->drain;
            return error;
        }
    return -ENOENT;
}

#include "signals.h"
#include "view.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

static void trim(const char **text, size_t *size)
{
    while (*size && isspace((unsigned char)(*text)[*size - 1]))
        --*size;
    while (*size && isspace((unsigned char)**text))
        ++*text, --*size;
}

static bool begins(const char *text, size_t size, const char *with)
{
    return size >= strlen(with) && !memcmp(text, with, strlen(with));
}

bool signal_is_cancel(const char *text, size_t size)
{
    trim(&text, &size);
    return size == 6 && begins(text, size, "cancel");
}

/* RTMIN, RTMIN+n, RTMAX, RTMAX-n; 0 otherwise. */
static int real_time_signal(const char *text, size_t size)
{
    const bool minimum = begins(text, size, "RTMIN");
    int64_t offset = 0;
    if (!minimum && !begins(text, size, "RTMAX"))
        return 0;
    if (size > 5 &&
        (text[5] != (minimum ? '+' : '-') || !parse_number(text + 6, size - 6, 0, SIGRTMAX - SIGRTMIN, &offset)))
        return 0;
    return minimum ? SIGRTMIN + (int)offset : SIGRTMAX - (int)offset;
}

static int named_signal(const char *text, size_t size)
{
    for (int signal = 1; signal < SIGRTMIN; signal++) {
        const char *name = sigabbrev_np(signal);
        if (name && strlen(name) == size && !memcmp(name, text, size))
            return signal;
    }
    return real_time_signal(text, size);
}

int signal_parse(const char *text, size_t size, int *signal)
{
    int64_t number;
    trim(&text, &size);
    if (parse_number(text, size, 1, SIGRTMAX, &number)) {
        *signal = (int)number;
        return 0;
    }
    if (begins(text, size, "SIG"))
        text += 3, size -= 3;
    *signal = named_signal(text, size);
    return *signal ? 0 : -EINVAL;
}

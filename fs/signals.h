/* Signals by name and number, as a write to mq@notify says them. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <stdbool.h>
#include <stddef.h>

/* "SIGUSR1", "USR1", "10", "RTMIN+2", "SIGRTMAX-1", with white space around: 0, or EINVAL. */
int signal_parse(const char *text, size_t size, int *signal);
/* "cancel", likewise. */
bool signal_is_cancel(const char *text, size_t size);

#endif

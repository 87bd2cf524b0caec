/* Changes to a script that leave it one: lines come, go and move, and fields get other values of their kind. */
#ifndef MUTATE_H
#define MUTATE_H

#include <stddef.h>
#include <stdint.h>

/* Changes the script in place: its new size, at most `most`. */
size_t mutate_script(char *script, size_t size, size_t most, unsigned seed);

#endif

/* What the targets share. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Without it the input at hand is a finding. */
#define check(condition, what) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition, what))

static inline void check_failed(const char *file, int line, const char *condition, const char *what)
{
    fprintf(stderr, "%s:%d: %s: not %s\n", file, line, what, condition);
    abort();
}

#endif

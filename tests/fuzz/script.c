#include "script.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Up to a separator, which goes as well. */
static struct field cut(struct field *text, char separator)
{
    const char *end = memchr(text->text, separator, text->length);
    struct field field = {text->text, end ? (size_t)(end - text->text) : text->length};
    size_t gone = field.length + !!end;
    text->text += gone;
    text->length -= gone;
    return field;
}

bool script_next(struct field *text, struct script_line *line)
{
    if (!text->length)
        return false;
    struct field rest = cut(text, '\n');
    *line = (struct script_line){.whole = rest};
    line->word = cut(&rest, ' ');
    while (rest.length && line->count < FIELDS_MAX)
        line->fields[line->count++] = cut(&rest, ' ');
    return true;
}

bool field_is(const struct field *field, const char *word)
{
    return field->length == strlen(word) && !memcmp(field->text, word, field->length);
}

uint64_t field_number(const struct field *field)
{
    char text[32];
    snprintf(text, sizeof text, "%.*s", (int)field->length, field->length ? field->text : "");
    return *text == '-' ? (uint64_t)strtoll(text, NULL, 0) : strtoull(text, NULL, 0);
}

static int digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* "{N}" at the beginning of `text`: N, and how many bytes say it; 0 for none. */
static size_t repetition(const char *text, size_t length, size_t *times)
{
    const char *end = *text == '{' ? memchr(text, '}', length) : NULL;
    if (!end)
        return 0;
    const struct field number = {text + 1, end - text - 1};
    *times = field_number(&number);
    return end + 1 - text;
}

char *field_bytes(const struct field *field, size_t *length)
{
    static char bytes[BYTES_MAX];
    size_t count = 0, said, times;
    for (size_t i = field_is(field, "-"); i < field->length && count < BYTES_MAX; i++) {
        const char *c = field->text + i;
        const size_t left = field->length - i;
        if (*c == '%' && left > 2 && digit(c[1]) >= 0 && digit(c[2]) >= 0) {
            bytes[count++] = (char)(digit(c[1]) << 4 | digit(c[2]));
            i += 2;
        } else if (count && (said = repetition(c, left, &times))) {
            for (; times > 1 && count < BYTES_MAX; times--, count++)
                bytes[count] = bytes[count - 1];
            i += said - 1;
        } else {
            bytes[count++] = *c;
        }
    }
    char *copy = memcpy(malloc(count + 1), bytes, count);
    copy[count] = 0;
    *length = count;
    return copy;
}

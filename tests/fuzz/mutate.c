#include "mutate.h"
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

enum { LINES_MAX = 256, LINE_MAX = 4096 };

/* Lines without their ends. */
struct lines {
    struct field lines[LINES_MAX];
    size_t count;
    unsigned seed;
    char made[LINE_MAX]; /* a line that has been made or changed */
};

static uint32_t number(struct lines *lines)
{
    lines->seed = lines->seed * 1664525 + 1013904223;
    return lines->seed >> 8;
}

#define choose(lines, array) ((array)[number(lines) % (sizeof(array) / sizeof *(array))])

/* ---- A value for a field ---- */

static const char *name(struct lines *lines)
{
    static const char *const names[] = {"a", "b", "c", "a{251}", "a{255}", "a{256}", "sem.a", "%0A%1B[1m", "%FF%FE"};
    return choose(lines, names);
}

static const char *root_name(struct lines *lines)
{
    static const char *const names[] = {"sem",
                                        "shm",
                                        "mq",
                                        "sem@stat",
                                        "shm@stat",
                                        "mq@stat",
                                        "sem@value=1",
                                        "sem@value=2147483647",
                                        "sem@nonblock",
                                        "sem@timeout=0",
                                        "sem@timeout=0.000001",
                                        "shm@size=4096",
                                        "shm@size=1G",
                                        "shm@mode=4777",
                                        "mq@text",
                                        "mq@priority",
                                        "mq@priority,text",
                                        "mq@text,stream",
                                        "mq@text,priority,stream",
                                        "mq@stream",
                                        "mq@drain",
                                        "mq@text,drain",
                                        "mq@nonblock",
                                        "mq@timeout=0.000001",
                                        "mq@timeout=0",
                                        "mq@priority=9",
                                        "mq@notify",
                                        "mq@notify,timeout=0.000001",
                                        "mq@max_messages=1,max_message_size=16",
                                        "mq@max_messages=3,max_message_size=8",
                                        "mq@mode=0666",
                                        "sem@mode=0666",
                                        "README",
                                        "limits",
                                        "sem@nope"};
    return choose(lines, names);
}

static const char *attribute(struct lines *lines)
{
    static const char *const names[] = {"user.ipcfs.mode",
                                        "user.ipcfs.value",
                                        "user.ipcfs.waiting",
                                        "user.ipcfs.size",
                                        "user.ipcfs.current_messages",
                                        "user.ipcfs.bytes",
                                        "user.ipcfs.notify_pid",
                                        "user.ipcfs.waiting_receivers",
                                        "user.ipcfs.",
                                        "user.other",
                                        "security.capability",
                                        "system.posix_acl_access"};
    return choose(lines, names);
}

static const char *data(struct lines *lines)
{
    static const char *const texts[] = {"-",          "%0A",       "1",
                                        "2%0A",       "32767",     "x",
                                        "hello",      "hello%0A",  "one%0Atwo%0Athree%0A",
                                        "%0A%0A%0A",  "5 urgent",  "5 urgent%0A7 more%0Anone",
                                        "32768 x%0A", "x{16}",     "x{17}%0A",
                                        "x{9000}",    "x{131072}", "USR1",
                                        "SIGKILL",    "SIGSTOP",   "RTMIN+2",
                                        "cancel",     "0",         "s",
                                        "d",          "f",         "l",
                                        "%00{32}",    "%FF{32}",   "%01%00%00%00%FF%FF%FF%FF"};
    return choose(lines, texts);
}

static const char *any_number(struct lines *lines)
{
    static const char *const numbers[] = {"0",
                                          "1",
                                          "2",
                                          "3",
                                          "4",
                                          "5",
                                          "6",
                                          "7",
                                          "8",
                                          "16",
                                          "31",
                                          "32",
                                          "64",
                                          "100",
                                          "255",
                                          "4095",
                                          "4096",
                                          "4097",
                                          "65536",
                                          "131072",
                                          "1048576",
                                          "0x7fffffff",
                                          "0x80000000",
                                          "0xffffffff",
                                          "0x7fffffffffffffff",
                                          "0x7ffffffffffff000",
                                          "0xffffffffffffffff",
                                          "0100",
                                          "0200",
                                          "01000",
                                          "02000",
                                          "04000",
                                          "0644",
                                          "0666",
                                          "01777",
                                          "07777",
                                          "0100644",
                                          "010644",
                                          "02102",
                                          "0102",
                                          "0202"};
    return choose(lines, numbers);
}

static int put_value(struct lines *lines, char letter, bool in_root, bool is_attribute, char *place, size_t room)
{
    switch (letter) {
    case 's':
        return snprintf(place, room, "%s", is_attribute ? attribute(lines) : in_root ? root_name(lines) : name(lines));
    case 'f':
        return snprintf(place, room, "%s%s", number(lines) % 2 ? "sem." : "", name(lines));
    case 'b':
        return snprintf(place, room, "%s", data(lines));
    case 'i':
        return snprintf(place, room, "%s", any_number(lines));
    default:
        return snprintf(place, room, "%u", number(lines) % (letter == 'u' ? 4 : 12));
    }
}

/* ---- Lines ---- */

static struct field make_line(struct lines *lines)
{
    const struct command *command = &commands[number(lines) % commands_count];
    const bool in_root = !strcmp(command->word, "lookup") && number(lines) % 2;
    const bool is_attribute = strstr(command->word, "xattr");
    size_t length = snprintf(lines->made, LINE_MAX, "%s", command->word);
    for (const char *letter = command->fields; *letter; letter++) {
        lines->made[length++] = ' ';
        if (in_root && *letter == 'd')
            lines->made[length++] = '0';
        else
            length += put_value(lines, *letter, in_root, is_attribute, lines->made + length, LINE_MAX - length);
    }
    return (struct field){lines->made, length};
}

static const struct command *command_of(const struct field *word)
{
    for (size_t i = 0; i < commands_count; i++)
        if (field_is(word, commands[i].word))
            return &commands[i];
    return NULL;
}

/* Another value, or one that is a little different, for one field of a line. */
static struct field change_line(struct lines *lines, struct field old)
{
    struct field rest = old;
    struct script_line line;
    if (old.length >= LINE_MAX / 2 || !script_next(&rest, &line))
        return old;
    const struct command *command = command_of(&line.word);
    if (!command || !*command->fields)
        return old;
    const size_t fields = strlen(command->fields), changed = number(lines) % fields;
    size_t length = snprintf(lines->made, LINE_MAX, "%s", command->word);
    for (size_t i = 0; i < fields; i++) {
        char *place = lines->made + length + 1;
        const size_t room = LINE_MAX / 2 + 64;
        size_t size = line.fields[i].length;
        lines->made[length] = ' ';
        memcpy(place, line.fields[i].text ? line.fields[i].text : "", size);
        if (i == changed && number(lines) % 4 == 0)
            size = LLVMFuzzerMutate((uint8_t *)place, size, size + 32);
        else if (i == changed)
            size = put_value(lines, command->fields[i], number(lines) % 2, strstr(command->word, "xattr"), place, room);
        for (size_t k = 0; k < size; k++)
            if (place[k] == ' ' || place[k] == '\n')
                place[k] = '_';
        length += 1 + size;
        if (length > LINE_MAX / 2 + 512)
            return old;
    }
    return (struct field){lines->made, length};
}

static void insert(struct lines *lines, size_t at, struct field line)
{
    if (lines->count == LINES_MAX)
        return;
    memmove(&lines->lines[at + 1], &lines->lines[at], (lines->count - at) * sizeof line);
    lines->lines[at] = line;
    lines->count++;
}

static struct field take_out(struct lines *lines, size_t at)
{
    struct field line = lines->lines[at];
    lines->count--;
    memmove(&lines->lines[at], &lines->lines[at + 1], (lines->count - at) * sizeof line);
    return line;
}

static void change(struct lines *lines)
{
    const size_t place = number(lines) % (lines->count + 1), at = lines->count ? number(lines) % lines->count : 0;
    const unsigned what = lines->count ? number(lines) % 10 : 0;
    if (what < 3)
        insert(lines, place, make_line(lines));
    else if (what < 4)
        take_out(lines, at);
    else if (what < 5)
        insert(lines, place, lines->lines[at]);
    else if (what < 6)
        insert(lines, number(lines) % lines->count, take_out(lines, at));
    else
        lines->lines[at] = change_line(lines, lines->lines[at]);
}

size_t mutate_script(char *script, size_t size, size_t most, unsigned seed)
{
    static struct lines lines;
    char *old = memcpy(malloc(size + 1), script, size);
    struct field rest = {old, size};
    lines.count = 0;
    lines.seed = seed;
    while (rest.length && lines.count < LINES_MAX) {
        const char *end = memchr(rest.text, '\n', rest.length);
        size_t length = end ? (size_t)(end - rest.text) : rest.length;
        lines.lines[lines.count++] = (struct field){rest.text, length};
        rest.text += length + !!end;
        rest.length -= length + !!end;
    }
    change(&lines);
    size_t written = 0;
    for (size_t i = 0; i < lines.count && written + lines.lines[i].length < most; i++) {
        memcpy(script + written, lines.lines[i].text, lines.lines[i].length);
        written += lines.lines[i].length;
        script[written++] = '\n';
    }
    free(old);
    return written;
}

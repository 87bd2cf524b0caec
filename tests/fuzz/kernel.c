#include "model.h"

struct kernel kernel = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool is_traced(void)
{
    static int traced = -1;
    if (traced < 0)
        traced = getenv("IPCFS_FUZZ_TRACE") != NULL;
    return traced;
}

/* ---- What there is ---- */

bool is_directory(const struct node *node)
{
    return S_ISDIR(node->mode);
}

uint64_t unique_of(const struct request *request)
{
    return 2 * (uint64_t)(request - kernel.requests + 1);
}

bool waits(const struct request *request)
{
    return !request->answered && !request->silent;
}

struct node *find_node(uint64_t id)
{
    for (struct node *node = kernel.nodes; node < kernel.nodes + kernel.nodes_count; node++)
        if (node->lookups && node->id == id)
            return node;
    return NULL;
}

bool is_busy(const struct node *node)
{
    for (size_t i = 0; i < kernel.files_count; i++)
        if (kernel.files[i].open && kernel.files[i].node == node)
            return true;
    for (size_t i = 0; i < kernel.requests_count; i++)
        if (waits(&kernel.requests[i]) && kernel.requests[i].node == node)
            return true;
    for (size_t i = 0; i < kernel.nodes_count; i++)
        if (kernel.nodes[i].lookups && kernel.nodes[i].parent == node)
            return true;
    return false;
}

bool is_in_use(const struct file *file)
{
    for (size_t i = 0; i < kernel.requests_count; i++)
        if (waits(&kernel.requests[i]) && kernel.requests[i].file == file)
            return true;
    return false;
}

/* ---- Requests ---- */

static struct {
    char data[BYTES_MAX + 4096];
    size_t length;
} message;

void add(const void *data, size_t size)
{
    check(message.length + size <= sizeof message.data, "too long a request");
    memcpy(message.data + message.length, data, size);
    message.length += size;
}

void add_name(const struct value *name)
{
    add(name->bytes, name->length + 1);
}

struct request *ask(uint32_t opcode, const struct user *user, struct node *node)
{
    static const struct user nobody;
    check(kernel.requests_count < REQUESTS_MAX, "too many requests");
    struct request *request = &kernel.requests[kernel.requests_count++];
    *request = (struct request){.opcode = opcode, .node = node};
    user = user ? user : &nobody;
    const struct fuse_in_header header = {.opcode = opcode,
                                          .unique = unique_of(request),
                                          .nodeid = node ? node->id : 0,
                                          .uid = user->uid,
                                          .gid = user->gid,
                                          .pid = user->pid};
    message.length = 0;
    add(&header, sizeof header);
    return request;
}

struct request *ask_file(uint32_t opcode, const struct user *user, struct file *file)
{
    struct request *request = ask(opcode, user, file->node);
    request->file = file;
    return request;
}

void number_as(uint64_t unique)
{
    ((struct fuse_in_header *)message.data)->unique = unique;
}

/* The answers take the lock. */
void send_it(void)
{
    ((struct fuse_in_header *)message.data)->len = message.length;
    pthread_mutex_unlock(&kernel.lock);
    daemon_process(message.data, message.length);
    pthread_mutex_lock(&kernel.lock);
}

void pause_daemon(void)
{
    pthread_mutex_unlock(&kernel.lock);
    daemon_pause();
    pthread_mutex_lock(&kernel.lock);
}

void send_with(const void *body, size_t size)
{
    add(body, size);
    send_it();
}

/* ---- The fields of a line ---- */

static struct node *choose_node(uint64_t number, char letter)
{
    for (size_t i = 0; i < kernel.nodes_count; i++) {
        struct node *node = &kernel.nodes[(number + i) % kernel.nodes_count];
        if (node->lookups && (letter == 'n' || is_directory(node) == (letter == 'd')))
            return node;
    }
    return NULL;
}

static bool permits(const struct file *file, char letter)
{
    const uint32_t access = file->flags & O_ACCMODE;
    if (is_directory(file->node))
        return letter == 'D';
    return letter == 'h' || (letter == 'R' && (access == O_RDONLY || access == O_RDWR)) ||
           (letter == 'W' && (access == O_WRONLY || access == O_RDWR));
}

static struct file *choose_file(uint64_t number, char letter)
{
    for (size_t i = 0; i < kernel.files_count; i++) {
        struct file *file = &kernel.files[(number + i) % kernel.files_count];
        if (file->open && permits(file, letter))
            return file;
    }
    return NULL;
}

static struct request *choose_waiting(uint64_t number)
{
    for (size_t i = 0; i < kernel.requests_count; i++) {
        struct request *request = &kernel.requests[(number + i) % kernel.requests_count];
        if (waits(request))
            return request;
    }
    return NULL;
}

/* What the kernel would hand on as a name. */
static bool is_name(struct value *value)
{
    value->length = strnlen(value->bytes, NAME_LONGEST);
    value->bytes[value->length] = 0;
    for (char *c = value->bytes; *c; c++)
        if (*c == '/')
            *c = '_';
    return value->length && strcmp(value->bytes, ".") && strcmp(value->bytes, "..");
}

static bool take_value(struct value *value, char letter, const struct field *field)
{
    value->number = field_number(field);
    switch (letter) {
    case 'u':
        value->user = world_user(value->number);
        return true;
    case 'n':
    case 'd':
    case 'r':
        return (value->node = choose_node(value->number, letter));
    case 'h':
    case 'R':
    case 'W':
    case 'D':
        return (value->file = choose_file(value->number, letter));
    case 'e':
        return (value->request = choose_waiting(value->number));
    case 's':
    case 'f':
        value->bytes = field_bytes(field, &value->length);
        return is_name(value);
    case 'b':
        value->bytes = field_bytes(field, &value->length);
    }
    return true;
}

void kernel_run(const struct script_line *line)
{
    for (const struct command *command = commands; command < commands + commands_count; command++) {
        if (!field_is(&line->word, command->word))
            continue;
        if (kernel.requests_count > REQUESTS_MAX / 2)
            return;
        struct value values[FIELDS_MAX] = {{0}};
        bool fine = true;
        pthread_mutex_lock(&kernel.lock);
        for (size_t i = 0; fine && command->fields[i]; i++)
            fine = take_value(&values[i], command->fields[i], &line->fields[i]);
        if (is_traced())
            fprintf(stderr, "%zu: %.*s%s\n", kernel.requests_count + 1, (int)line->whole.length, line->whole.text,
                    fine ? "" : " (not now)");
        if (fine)
            command->run(values);
        pthread_mutex_unlock(&kernel.lock);
        for (size_t i = 0; i < FIELDS_MAX; i++)
            free(values[i].bytes);
    }
}

/* ---- Beginning and end ---- */

void kernel_begin(uint32_t flags, uint32_t flags2, uint32_t minor)
{
    const struct fuse_init_in in = {
        .major = 7, .minor = minor, .max_readahead = 1 << 17, .flags = flags, .flags2 = flags2};
    pthread_mutex_lock(&kernel.lock);
    kernel.nodes_count = kernel.files_count = kernel.requests_count = 0;
    kernel.cut = kernel.lost = kernel.abandoned = kernel.ending = false;
    kernel.max_write = 4096;
    kernel.nodes[kernel.nodes_count++] = (struct node){.id = FUSE_ROOT_ID, .lookups = 1, .mode = S_IFDIR | 0555};
    ask(FUSE_INIT, NULL, NULL);
    send_with(&in, sizeof in);
    check(kernel.requests[0].answered && !kernel.requests[0].error, "no connection");
    pthread_mutex_unlock(&kernel.lock);
}

static void close_all(bool directories)
{
    for (struct file *file = kernel.files; file < kernel.files + kernel.files_count; file++)
        if (file->open && is_directory(file->node) == directories)
            close_file(directories ? FUSE_RELEASEDIR : FUSE_RELEASE, file, 0);
}

static bool anything_waits(void)
{
    for (size_t i = 0; i < kernel.requests_count; i++)
        if (waits(&kernel.requests[i]))
            return true;
    return false;
}

/* As when all callers are killed. An answer may come from another thread, and a moment later. */
static void interrupt_all(void)
{
    for (size_t i = 0, count = kernel.requests_count; i < count; i++)
        if (waits(&kernel.requests[i]))
            interrupt(&(struct value){.request = &kernel.requests[i]});
    for (size_t i = 0; i < MOMENTS && anything_waits(); i++)
        pause_daemon();
    check(!anything_waits(), "an interrupt that did nothing");
}

/* What is in a directory first. */
static void forget_all(void)
{
    for (int directories = 0; directories < 2; directories++)
        for (struct node *node = kernel.nodes + 1; node < kernel.nodes + kernel.nodes_count; node++)
            if (node->lookups && is_directory(node) == directories)
                forget_node(node, node->lookups);
}

bool kernel_let_go(void)
{
    pthread_mutex_lock(&kernel.lock);
    kernel.cut = false;
    close_all(true);
    bool all = !kernel.abandoned;
    if (all) {
        interrupt_all();
        close_all(false);
        forget_all();
    }
    get_attributes((struct value[]){{.user = world_user(0)}, {.node = &kernel.nodes[0]}});
    const struct request *last = &kernel.requests[kernel.requests_count - 1];
    check(last->answered && !last->error, "it does not answer any more");
    all &= !kernel.lost && kernel.nodes_count < NODES_MAX && kernel.files_count < FILES_MAX;
    pthread_mutex_unlock(&kernel.lock);
    return all;
}

void kernel_disconnect(void)
{
    pthread_mutex_lock(&kernel.lock);
    kernel.ending = true;
    pthread_mutex_unlock(&kernel.lock);
}

void kernel_end(void)
{
    check(!anything_waits(), "a request without an answer");
}

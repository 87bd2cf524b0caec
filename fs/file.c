#include "file.h"
#include "kind.h"

#include <stdlib.h>
#include <string.h>

/* ---- README ---- */

static int write_readme(struct node *node, struct caller *caller, FILE *out)
{
    (void)node, (void)caller;
    fputs("ipcfs: this machine's POSIX semaphores, shared memory and message queues, the\n"
          "very objects of sem_open, shm_open and mq_open in C programs, as files.\n"
          "Semaphores in sem/\n"
          "  touch sem@value=1/lock    make one, its value 1 (or 0: touch sem/lock)\n"
          "  cat sem/lock              wait: sleep until the value is above 0, take one\n"
          "  cat sem@timeout=2/lock    the same, for 2 seconds at most\n"
          "  echo > sem/lock           post;  echo 5 > sem/lock  posts 5 times\n"
          "  In a script: cat sem@timeout=2/lock >/dev/null && { work; echo > sem/lock; }\n"
          "Message queues in mq/\n"
          "  touch mq@max_messages=10,max_message_size=64/jobs    make one\n"
          "  echo hi > mq/jobs         send;  echo hi > mq@priority=5/jobs  an urgent one\n"
          "  cat mq/jobs               receive one, sleep while there is none\n"
          "  cat list > mq@text/jobs   send each line as a message\n"
          "  cat mq@text,stream/jobs   receive for ever;  cat mq@text,drain/jobs  all now\n"
          "  cat mq@priority/jobs      receive with the priority, as in 5 hi\n"
          "  cat mq@notify/jobs        sleep till one comes to the empty queue: PID UID\n"
          "Shared memory in shm/\n"
          "  truncate -s 1M shm/frame  make a segment; read, write, map it as any file\n"
          "All\n"
          "  ls -l sem shm mq          what there is;  rm sem/lock  removes\n"
          "  cat mq@stat/jobs          its attributes;  grep . *@stat/*  all objects'\n"
          "Options (@) are joined by commas; nonblock: never sleep. Constants: cat limits\n"
          "One read or write is one operation. More: man 5 ipcfs\n",
          out);
    return 0;
}

/* ---- limits ---- */

static void write_limit(void *arg, const char *name, long value)
{
    fprintf(arg, "%s %ld\n", name, value);
}

static int write_limits(struct node *node, struct caller *caller, FILE *out)
{
    (void)caller;
    ipc_limits(write_limit, out);
    fprintf(out, "SHARED_MEMORY_MMAP %d\nVERSION %s\n", node->session->shared_mmap, VERSION);
    return 0;
}

static const struct root_file files[] = {{"README", write_readme}, {"limits", write_limits}};
#define FILES (sizeof files / sizeof *files)

const struct root_file *file_find(const char *name)
{
    for (const struct root_file *file = files; file < files + FILES; file++)
        if (!strcmp(file->name, name))
            return file;
    return NULL;
}

const char *file_name(size_t i)
{
    return i < FILES ? files[i].name : NULL;
}

/* ---- Reading ---- */

struct content {
    struct handle handle;
    content_writer *write;
};

static int make_text(struct node *node, struct caller *caller, content_writer *write, struct result **made)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return -ENOMEM;
    int error = write(node, caller, out);
    /* A stream that could not grow says so to fflush, but not to fclose. */
    bool cut = fflush(out) || ferror(out);
    if ((fclose(out) || cut || !text) && !error)
        error = -ENOMEM;
    struct result *result = error ? NULL : result_new(size);
    if (result)
        memcpy(result->data, text, size);
    else if (!error)
        error = -ENOMEM;
    free(text);
    *made = result;
    return error;
}

static void read_content(fuse_req_t req, struct handle *handle, size_t size, off_t offset)
{
    (void)offset;
    struct content *content = (struct content *)handle;
    struct caller caller;
    struct result *result;
    int error = caller_assume(req, &caller);
    if (!error)
        error = make_text(handle->node, &caller, content->write, &result);
    if (error) {
        fuse_reply_err(req, -error);
        return;
    }
    size = result->size < size ? result->size : size;
    result_keep(handle, result, size);
    fuse_reply_buf(req, result->data, size);
    result_release(result);
}

static void refuse_write(fuse_req_t req, struct handle *handle, const char *data, size_t size, off_t offset)
{
    (void)handle, (void)data, (void)size, (void)offset;
    fuse_reply_err(req, EBADF);
}

static void close_content(struct handle *handle)
{
    (void)handle;
}

static int no_descriptor(const struct handle *handle)
{
    (void)handle;
    return -1;
}

static const struct kind content_kind = {
    .close = close_content, .descriptor = no_descriptor, .read = read_content, .write = refuse_write};

int content_open(struct node *node, content_writer *write, struct handle **made)
{
    static const struct view no_view = {.timeout = -1, .size = -1};
    struct content *content = calloc(1, sizeof *content);
    if (!content)
        return -ENOMEM;
    content->write = write;
    struct handle *handle = &content->handle;
    handle->session = node->session;
    handle->kind = &content_kind;
    handle->view = &no_view;
    handle->fd = handle->line.writer = -1;
    handle_adopt(handle, node);
    *made = handle;
    return 0;
}

int file_open(struct node *node, int flags, struct handle **handle)
{
    return (flags & O_ACCMODE) == O_RDONLY ? content_open(node, node->file->write, handle) : -EACCES;
}

int file_stat(struct node *node, struct stat *st)
{
    struct session *session = node->session;
    struct result *result;
    int error = make_text(node, NULL, node->file->write, &result);
    if (error)
        return error;
    *st = (struct stat){.st_mode = S_IFREG | 0444,
                        .st_nlink = 1,
                        .st_uid = session->owner,
                        .st_gid = session->group,
                        .st_size = result->size,
                        .st_ino = node->ino};
    st->st_atim = st->st_mtim = st->st_ctim = session->started;
    result_release(result);
    return 0;
}

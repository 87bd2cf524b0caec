#include "lookup.h"
#include "file.h"
#include "kind.h"
#include "recent.h"
#include "status.h"

#include <unistd.h>

/* Names of directories mean the same for ever; all else is as it is now, and may be changed by anybody at any time. */
#define DIRECTORY_TIMEOUT 86400.0

static int look_up_in_root(struct session *session, const char *name, struct fuse_entry_param *entry)
{
    enum ipc_kind kind;
    struct view view;
    struct node *node;
    int error = view_parse(name, &kind, &view);
    if (error == -ENOENT) {
        const struct root_file *file = file_find(name);
        if (!file)
            return error;
        node = node_for_file(session, file);
    } else if (error) {
        return error;
    } else {
        node = node_for_directory(session, name, kind, &view);
    }
    if (!node)
        return -ENOMEM;
    error = node_stat(node, &entry->attr);
    if (error) {
        node_release(node, 1);
        return error;
    }
    entry->ino = node_number(node);
    entry->entry_timeout = DIRECTORY_TIMEOUT;
    return 0;
}

static int look_up_object(struct node *directory, const char *name, struct fuse_entry_param *entry)
{
    struct ipc *ipc = directory->session->ipc;
    const bool keep = directory->kind == IPC_SHM && !directory->view.stat;
    int fd = keep ? ipc_locate(ipc, directory->kind, name) : -1;
    if (keep && fd < 0)
        return fd;
    int error = keep ? ipc_stat(fd, &entry->attr) : ipc_stat_name(ipc, directory->kind, name, &entry->attr);
    struct node *node = error ? NULL : node_for_object(directory, name, &entry->attr);
    if (node && keep)
        recent_add(node, fd);
    else if (keep)
        close(fd);
    if (!node)
        return error ? error : -ENOMEM;
    show_object(node, &entry->attr);
    entry->ino = node_number(node);
    return 0;
}

int look_up(struct node *directory, const char *name, struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){0};
    if (directory->type == NODE_ROOT)
        return look_up_in_root(directory->session, name, entry);
    return directory->type == NODE_DIRECTORY ? look_up_object(directory, name, entry) : -ENOTDIR;
}

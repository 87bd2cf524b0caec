/* Modes, owners, sizes and times of nodes, as they are shown and changed. */
#ifndef STATUS_H
#define STATUS_H

#include "caller.h"

/* What the user sees of an object. Sizes of 0 mean unknown, as in /proc: some runtimes would cut messages to them. */
void show_object(const struct node *node, struct stat *st);
/* stat(2) of a node's object itself; ESTALE: it is gone. */
int object_stat(struct node *node, struct stat *st);
int node_stat(struct node *node, struct stat *st);
/* What a setattr request asks for, of an object; `fi` is that of ftruncate(2), or NULL. */
int node_change(struct node *node, const struct stat *attr, int to_set, const struct fuse_file_info *fi);
/* access(2) on a node. */
int node_access(struct node *node, int mask);

#endif

/* From names to nodes. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "session.h"

/* What there is by a name: the node, with a reference, and its attributes. ENOENT, EINVAL (a view that is none). */
int look_up(struct node *directory, const char *name, struct fuse_entry_param *entry);

#endif

/* Attributes of objects: as extended attributes user.ipcfs.NAME, and as lines "NAME VALUE" in the `stat` view. */
#ifndef ATTR_H
#define ATTR_H

#include "caller.h"
#include "session.h"

#define ATTR_SIZE 32       /* room for any value */
#define ATTR_LIST_SIZE 512 /* room for all names of a kind */

/* For the caller, who need not have been assumed: the value's length, ENODATA where the node has no such attribute, or
 * what keeps it from being read. EOPNOTSUPP for access control lists, labels and all else that no object has here: who
 * goes through many, as `ls -l`, does not ask again then. */
ssize_t attr_get(struct node *node, struct caller *caller, const char *name, char value[ATTR_SIZE]);
/* All names, each ended by a zero byte: their length together. */
ssize_t attr_list(const struct node *node, char names[ATTR_LIST_SIZE]);
bool attr_is_ours(const char *name);

/* Opens the `stat` view of an object. EACCES for writing. */
int attr_open(struct node *node, struct caller *caller, int flags, struct handle **handle);

#endif

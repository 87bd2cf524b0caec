/* Reading directories. */
#ifndef LISTING_H
#define LISTING_H

#include "session.h"

/* What a directory held when it was read from its beginning: one for each that is open. */
struct listing;

struct listing *listing_new(struct session *session); /* NULL: no memory */
void listing_free(struct listing *listing);
/* Frees those that are open at the end. */
void listings_free(struct session *session);
/*
 * Answers a readdir request. There is no readdirplus: what it says of an entry would have to be asked for again, as
 * nothing that the kernel keeps of an object may be believed.
 */
void listing_read(fuse_req_t req, struct node *node, struct listing *listing, size_t size, off_t offset);

#endif

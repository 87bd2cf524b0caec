/* What native programs do to objects, and to files in /dev/shm, meanwhile. Commands; failures are theirs. */
#ifndef NATIVES_H
#define NATIVES_H

struct value;

void native_post(const struct value *v);
void native_send(const struct value *v);
void native_receive(const struct value *v);
/* A registration, or none, that stays until the next or the end. */
void native_notify(const struct value *v);
void native_unlink_queue(const struct value *v);

void native_truncate(const struct value *v);
void native_write(const struct value *v);
/* A lock, fcntl(2)'s or flock(2)'s, that stays until the next or the end. */
void native_lock(const struct value *v);
void native_chmod(const struct value *v);
void native_unlink(const struct value *v);
void native_rename(const struct value *v);
/* A symbolic link, directory, FIFO or else a hard link, by the letter s, d or f. */
void native_plant(const struct value *v);

void natives_end(void);

#endif

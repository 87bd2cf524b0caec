#include "notify.h"
#include "kind.h"
void notify_read(fuse_req_t req, struct handle *handle, size_t size)
{
    (void)handle, (void)size;
    fuse_reply_err(req, ENOSYS);
}
void notify_write(fuse_req_t req, struct handle *handle, const char *data, size_t size)
{
    (void)handle, (void)size, (void)data;
    fuse_reply_err(req, ENOSYS);
}
unsigned notify_ready(struct handle *handle)
{
    (void)handle;
    return 0;
}
pid_t notify_owner(const struct object *object)
{
    (void)object;
    return 0;
}
void notify_close(struct handle *handle)
{
    (void)handle;
}

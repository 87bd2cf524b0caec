#include "rights.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BIT(capability) (UINT64_C(1) << (capability))

/* To become a caller (SETUID, SETGID), to end a child that has become one (KILL), to see which user namespace a caller
 * is in (SYS_PTRACE), for passthrough and to unmount (SYS_ADMIN). */
static const uint64_t serving =
    BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_KILL) | BIT(CAP_SYS_PTRACE) | BIT(CAP_SYS_ADMIN);

/* What counts with objects: permissions, ownership, set-group-ID, and limits of queues. */
static const uint64_t lent = BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) | BIT(CAP_CHOWN) |
                             BIT(CAP_FSETID) | BIT(CAP_SYS_RESOURCE);

static uint64_t kept; /* set before there are threads; 0: nothing is to be done */

static bool get(uint64_t *effective, uint64_t *permitted)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data))
        return false;
    *effective = data[0].effective | (uint64_t)data[1].effective << 32;
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return true;
}

static void set(uint64_t effective, uint64_t permitted)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)effective, .permitted = (uint32_t)permitted},
        {.effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(permitted >> 32)},
    };
    syscall(SYS_capset, &header, data);
}

void rights_settle(bool everyone)
{
    uint64_t effective, permitted;
    if (!everyone || !get(&effective, &permitted))
        return;
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none); /* a core would hold other users' messages, */
    prctl(PR_SET_DUMPABLE, 0);     /* and so would a debugger's view */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (!((serving | lent) & BIT(capability)))
            prctl(PR_CAPBSET_DROP, capability); /* not permitted in some containers, where the set is small already */
    kept = permitted & (serving | lent);
    rights_lower();
}

/* What the thread has; 0: not known. */
static __thread uint64_t now;

static void have(uint64_t effective)
{
    if (kept && now != effective)
        set(effective, kept);
    now = effective;
}

void rights_raise(void)
{
    have(kept);
}

void rights_lend(uint64_t capabilities)
{
    have(kept & (serving | (lent & capabilities)));
}

void rights_lower(void)
{
    rights_lend(0);
}

void rights_forget(void)
{
    now = 0;
}

void rights_drop(void)
{
    if (kept)
        set(0, 0);
}

void rights_become(uint64_t capabilities)
{
    const uint64_t own = kept & lent & capabilities;
    if (kept)
        set(own, own);
}

/* The constants of posix_ipc, which are this system's limits. */
#include "internal.h"

#include <unistd.h>

void ipc_limits(ipc_each_limit *each, void *arg)
{
    struct ipc_mq_attr defaults = {0};
    ipc_mq_defaults(&defaults);
    const struct {
        const char *name;
        long value;
    } limits[] = {
        {"SEMAPHORE_TIMEOUT_SUPPORTED", 1},
        {"SEMAPHORE_VALUE_SUPPORTED", 1},
        {"MESSAGE_QUEUES_SUPPORTED", 1},
        {"SEMAPHORE_VALUE_MAX", IPC_SEM_VALUE_MAX},
        {"QUEUE_MESSAGES_MAX_DEFAULT", defaults.max_messages},
        {"QUEUE_MESSAGE_SIZE_MAX_DEFAULT", defaults.max_message_size},
        {"QUEUE_PRIORITY_MAX", IPC_PRIORITY_MAX},
        {"USER_SIGNAL_MIN", SIGRTMIN},
        {"USER_SIGNAL_MAX", SIGRTMAX},
        {"PAGE_SIZE", sysconf(_SC_PAGESIZE)},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        each(arg, limits[i].name, limits[i].value);
}

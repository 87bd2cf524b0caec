/* What an errno means, in the classes of posix_ipc. */
#include "ipc.h"

#include <errno.h>

enum ipc_error ipc_error_class(int error)
{
    switch (error < 0 ? -error : error) {
    case EINTR:
        return IPC_ERROR_SIGNAL;
    case EACCES:
    case EPERM:
        return IPC_ERROR_PERMISSIONS;
    case ENOENT:
    case EEXIST:
        return IPC_ERROR_EXISTENTIAL;
    case EAGAIN:
    case ETIMEDOUT:
    case EBUSY:
        return IPC_ERROR_BUSY;
    case EINVAL:
    case ENAMETOOLONG:
    case EMSGSIZE:
        return IPC_ERROR_VALUE;
    case EOVERFLOW:
        return IPC_ERROR_GENERAL;
    default:
        return IPC_ERROR_OS;
    }
}

const char *ipc_error_name(enum ipc_error class)
{
    static const char *const names[] = {
        [IPC_ERROR_SIGNAL] = "SignalError",
        [IPC_ERROR_PERMISSIONS] = "PermissionsError",
        [IPC_ERROR_EXISTENTIAL] = "ExistentialError",
        [IPC_ERROR_BUSY] = "BusyError",
        [IPC_ERROR_VALUE] = "ValueError",
        [IPC_ERROR_GENERAL] = "Error",
        [IPC_ERROR_OS] = "OSError",
    };
    return names[class];
}

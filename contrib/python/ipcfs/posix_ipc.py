"""POSIX semaphores, shared memory and message queues, with the interface of the module posix_ipc 1.3.

    import ipcfs.posix_ipc as posix_ipc

A program written for posix_ipc then works on the same objects of this machine by way of an ipcfs mount: the one whose
folder IPCFS_MOUNT names, else the first in the mount table that lets it in. Error says that there is none, when first
one is needed.

Constants: O_CREAT, O_EXCL, O_CREX (both), O_TRUNC, O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK; VERSION, the version of
that interface. These are read from the mount, when asked for:
PAGE_SIZE (bytes), SEMAPHORE_TIMEOUT_SUPPORTED, SEMAPHORE_VALUE_SUPPORTED, SEMAPHORE_VALUE_MAX,
MESSAGE_QUEUES_SUPPORTED, QUEUE_MESSAGES_MAX_DEFAULT, QUEUE_MESSAGE_SIZE_MAX_DEFAULT (bytes), QUEUE_PRIORITY_MAX,
USER_SIGNAL_MIN, USER_SIGNAL_MAX.

Times are seconds, sizes bytes. What is not sorted into the five exceptions below and ValueError is an OSError.
"""

from os import O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY

from . import mount
from .errors import BusyError, Error, ExistentialError, PermissionsError, SignalError
from .message_queue import MessageQueue, unlink_message_queue
from .semaphore import Semaphore, unlink_semaphore
from .shared_memory import SharedMemory, unlink_shared_memory

O_CREX = O_CREAT | O_EXCL
VERSION = __version__ = '1.3.2'

LIMITS = ('PAGE_SIZE', 'SEMAPHORE_TIMEOUT_SUPPORTED', 'SEMAPHORE_VALUE_SUPPORTED', 'SEMAPHORE_VALUE_MAX',
          'MESSAGE_QUEUES_SUPPORTED', 'QUEUE_MESSAGES_MAX_DEFAULT', 'QUEUE_MESSAGE_SIZE_MAX_DEFAULT',
          'QUEUE_PRIORITY_MAX', 'USER_SIGNAL_MIN', 'USER_SIGNAL_MAX')

__all__ = ('Semaphore', 'SharedMemory', 'MessageQueue',
           'unlink_semaphore', 'unlink_shared_memory', 'unlink_message_queue',
           'Error', 'SignalError', 'PermissionsError', 'ExistentialError', 'BusyError',
           'O_CREAT', 'O_EXCL', 'O_CREX', 'O_TRUNC', 'O_RDONLY', 'O_WRONLY', 'O_RDWR', 'O_NONBLOCK', 'VERSION',
           *LIMITS)


def __getattr__(name):
    if name not in LIMITS:
        raise AttributeError(f'module posix_ipc has no attribute {name!r}')
    value = mount.limits()[name]
    return bool(value) if name.endswith('_SUPPORTED') else value

"""sem_overview(7)."""

import operator
import os
import select

from . import handle, wait
from .errors import reported


class Semaphore(handle.Handle):
    """Semaphore(name, flags=0, mode=0o600, initial_value=0): a handle to a named semaphore.

    name: str or bytes, by convention with a leading slash; None, with O_CREX, for one that is chosen.
    flags: 0 opens what exists; O_CREAT creates it unless it exists, when mode and initial_value count for nothing;
    O_CREX creates it and nothing else.
    mode: permissions of a created semaphore, less the umask.
    initial_value: 0 to SEMAPHORE_VALUE_MAX.

    ExistentialError: it does not exist, or with O_CREX does. PermissionsError. ValueError: bad name, value or flags.

    A semaphore holds a file descriptor until close() or its end. The original holds none; it too says that it is not
    closed when it is collected, which nobody can see here, since a descriptor is not part of its interface.
    """

    __slots__ = ('_fd',)

    kind, noun = 'sem', 'semaphore'

    def __init__(self, name, flags=0, mode=0o600, initial_value=0):
        flags &= os.O_CREAT | os.O_EXCL
        options = [f'value={operator.index(initial_value)}'] if flags & os.O_CREAT else []
        self._fd = self._open(os.O_RDWR, name, flags, mode, 'nonblock', *options)

    def __del__(self):
        if getattr(self, '_fd', -1) >= 0:
            os.close(self._fd)

    def acquire(self, timeout=None):
        """Waits until the value is above 0 and takes 1 from it.

        timeout: None for no limit; 0 not to wait at all; or seconds to wait at most, a fraction allowed.

        BusyError: it would have to wait, or has waited that long. SignalError: a signal that Python handles came while
        it waited; only the main thread learns of those. ExistentialError: closed. TypeError: not such a timeout.
        """
        with reported(self._subject):
            wait.until_done(lambda: os.pread(self._fd, 2, 0), self._fd, select.POLLIN, wait.seconds(timeout))

    def release(self):
        """Adds 1 to the value. ExistentialError: closed. Error: past SEMAPHORE_VALUE_MAX (the original: OSError)."""
        with reported(self._subject):
            os.write(self._fd, b'\n')

    def close(self):
        """Ends the use of this handle: all but name, mode and unlink() then raise ExistentialError.

        The original's documentation speaks of the whole process's use, sem_close(3) of one sem_open. This is the latter.
        """
        fd, self._fd = self._fd, -1
        with reported(self._subject):
            os.close(fd)

    def unlink(self):
        """Removes the name. Who has the semaphore open goes on using it, and the name is free for a new one.

        This works after close(), as the original's documentation has it.
        ExistentialError: the name is gone. PermissionsError.
        """
        unlink_semaphore(self._name)

    @property
    def value(self):
        """The value now. Read-only. ExistentialError: closed."""
        return self._attribute(self._fd, 'value')

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()


def unlink_semaphore(name):
    """Removes a semaphore's name. ExistentialError: there is none. PermissionsError. ValueError: too long."""
    handle.unlink(Semaphore, name)

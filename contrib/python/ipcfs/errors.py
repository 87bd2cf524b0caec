"""The five exceptions of posix_ipc, and which of them an errno is."""

import contextlib
import errno


class Error(Exception):
    """Base of this module's own exceptions."""


class SignalError(Error):
    """A signal other than the one behind KeyboardInterrupt ended a wait, and nothing was taken or sent."""


class PermissionsError(Error):
    """The object's permissions, or the way that it was opened, do not allow this."""


class ExistentialError(Error):
    """The object does not exist, exists already where it must not, or the handle has been closed."""


class BusyError(Error):
    """It would have to wait and must not, or has waited as long as it may; or the queue notifies somebody else."""


ERRORS = {
    errno.EINTR: (SignalError, 'a signal ended the wait'),
    errno.EACCES: (PermissionsError, 'permission denied'),
    errno.EPERM: (PermissionsError, 'permission denied'),
    errno.ENOENT: (ExistentialError, 'does not exist'),
    errno.EEXIST: (ExistentialError, 'exists already'),
    errno.EBADF: (ExistentialError, 'is closed'),
    errno.EAGAIN: (BusyError, 'would have to wait'),
    errno.ETIMEDOUT: (BusyError, 'the time is over'),
    errno.EBUSY: (BusyError, 'another process has asked for notification'),
    errno.EINVAL: (ValueError, 'invalid name or parameter'),
    errno.ENAMETOOLONG: (ValueError, 'the name is too long'),
    errno.EMSGSIZE: (ValueError, 'the message is too long'),
    errno.EFBIG: (ValueError, 'the size is too large'),
    errno.EOVERFLOW: (Error, 'the value would exceed SEMAPHORE_VALUE_MAX'),
}


@contextlib.contextmanager
def reported(subject):
    """Turns an OSError about `subject` into what posix_ipc raises. One that is not in the table passes as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in ERRORS:
            raise
        kind, text = ERRORS[error.errno]
        raise kind(f'{subject}: {text}') from error

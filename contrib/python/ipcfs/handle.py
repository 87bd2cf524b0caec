"""What the three kinds of handle have in common: a name, how they are opened, and that they are not values."""

import errno
import os
import secrets

from . import mount
from .errors import ExistentialError, reported


class Handle:
    __slots__ = ('_name', '_mode')

    kind = noun = None  # the folder on the mount, and the word for messages

    def _open(self, access, name, flags, mode, *options):
        """A descriptor of the object, non-inheritable, and nobody's to close but the caller's.

        ValueError: O_EXCL without O_CREAT, no name without O_EXCL, or what `reported` makes one.
        """
        if flags & os.O_EXCL and not flags & os.O_CREAT:
            raise ValueError('O_EXCL goes with O_CREAT')
        if name is None and not flags & os.O_EXCL:
            raise ValueError('without a name, flags must hold O_CREX')
        self._mode = mode
        while True:
            self._name = f'/{secrets.token_hex(6)}' if name is None else text(name)
            try:
                with reported(self._subject):
                    return os.open(mount.path(self.kind, self._name, *options), access | flags, mode)
            except ExistentialError as error:
                if name is not None or not isinstance(error.__cause__, FileExistsError):
                    raise

    def _attribute(self, fd, name):
        with reported(self._subject):
            if fd == -1:  # which os.getxattr takes for no descriptor
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return int(os.getxattr(fd, f'user.ipcfs.{name}'))

    @property
    def _subject(self):
        return f'{self.noun} "{self._name}"'

    @property
    def name(self):
        """The name as the constructor was given it, or the one chosen, as str. Read-only."""
        return self._name

    @property
    def mode(self):
        """The mode that the constructor was given; that of the object may be another. Read-only."""
        return self._mode

    def __str__(self):
        return self._name

    def __repr__(self):
        return f'posix_ipc.{type(self).__name__}("{self._name}", mode=0{self._mode:o})'

    def __reduce__(self):
        raise TypeError(f'cannot pickle or copy a {type(self).__name__}: it stands for what this process has open')


def text(name):
    """A name as str. TypeError unless it is str or bytes."""
    if not isinstance(name, (str, bytes)):
        raise TypeError('the name must be None, str or bytes')
    return os.fsdecode(name)


def unlink(handle, name):
    """Removes the object of that class's kind. ExistentialError also where no object can have that name."""
    name = text(name)
    with reported(f'{handle.noun} "{name}"'):
        try:
            file = mount.path(handle.kind, name)
        except OSError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        os.unlink(file)

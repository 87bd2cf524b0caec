"""shm_overview(7)."""

import operator
import os

from . import handle
from .errors import reported


class SharedMemory(handle.Handle):
    """SharedMemory(name, flags=0, mode=0o600, size=0, read_only=False): a handle to a shared memory segment.

    name: str or bytes, by convention with a leading slash; None, with O_CREX, for one that is chosen.
    flags: 0 opens what exists; O_CREAT creates it unless it exists; O_CREX creates it and nothing else; O_TRUNC cuts
    it to 0 bytes.
    mode: permissions of a created segment, less the umask.
    size: where it is not 0, the segment's size in bytes from now on, whether it is new or not.
    read_only: whether the descriptor is for reading only.

    ExistentialError: it does not exist, or with O_CREX does. PermissionsError. ValueError: bad name, flags or size,
    or a size with read_only. After an error, what O_CREX created is removed again; what O_CREAT found or created stays.
    """

    __slots__ = ('_fd',)

    kind, noun = 'shm', 'shared memory'

    def __init__(self, name, flags=0, mode=0o600, size=0, read_only=False):
        size = operator.index(size)
        self._fd = self._open(os.O_RDONLY if read_only else os.O_RDWR, name, flags, mode)
        if size:
            try:
                self._resize(size)
            except BaseException:
                self.close_fd()
                if flags & os.O_EXCL:
                    self.unlink()
                raise

    def _resize(self, size):
        with reported(self._subject):
            try:
                os.ftruncate(self._fd, size)
            except OverflowError as error:
                raise ValueError(f'{self._subject}: {size} bytes are too many') from error

    def close_fd(self):
        """Closes the descriptor, and nothing else: mappings made from it stay. Does nothing where it is closed already.

        It is not closed when the handle is collected. ValueError: somebody else has closed it, as with os.close().
        """
        if self._fd == -1:
            return
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
        except OSError as error:
            raise ValueError(f'{self._subject}: descriptor {fd} is not open') from error

    def fileno(self):
        """The same as fd."""
        return self._fd

    def unlink(self):
        """Removes the name. The memory goes when nobody has it open or mapped any more.

        ExistentialError: the name is gone. PermissionsError.
        """
        unlink_shared_memory(self._name)

    @property
    def fd(self):
        """The file descriptor, for mmap and os.ftruncate; -1 once closed. Read-only."""
        return self._fd

    @property
    def size(self):
        """The segment's size in bytes now. Read-only. ExistentialError: the descriptor is closed."""
        with reported(self._subject):
            return os.fstat(self._fd).st_size


def unlink_shared_memory(name):
    """Removes a segment's name. ExistentialError: there is none. PermissionsError. ValueError: too long."""
    handle.unlink(SharedMemory, name)

"""The mount, and where on it an object is."""

import errno
import os
import re

from .errors import Error


def mount_point():
    """The folder given by IPCFS_MOUNT, else the first ipcfs in this process's mount table that answers it.

    Error: there is none. It is looked for each time, so that a mount may come, go and move while a program runs.
    """
    given = os.environ.get('IPCFS_MOUNT')
    for folder in [given] if given else mounted():
        if os.path.exists(os.path.join(folder, 'limits')):
            return folder
    if given:
        raise Error(f'IPCFS_MOUNT={given}: no ipcfs is mounted there, or this user may not use it')
    raise Error('no ipcfs is mounted that this user may use: mount one (mount -t ipcfs ipcfs FOLDER),'
                ' or name its folder in IPCFS_MOUNT')


def mounted():
    """Mount points of type fuse.ipcfs, in the order of proc_pid_mountinfo(5)."""
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as table:
        for line in table:
            before, _, after = line.partition(' - ')
            if after.split(' ', 1)[0] == 'fuse.ipcfs':
                yield re.sub(r'\\([0-7]{3})', lambda octal: chr(int(octal.group(1), 8)), before.split(' ')[4])


def path(kind, name, *options):
    """The file of an object, opened with options.

    The name is as for the C functions: glibc ignores any slashes before those of semaphores and shared memory, while a
    queue's starts with exactly one. OSError EINVAL where no object of that kind can have that name.
    """
    bare = name[1:] if kind == 'mq' else name.lstrip('/')
    if bare in ('', '.', '..') or '/' in bare or (kind == 'mq' and name[0] != '/'):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    view = f'{kind}@{",".join(options)}' if options else kind
    return os.path.join(mount_point(), view, bare)


def limits():
    """The numbers in the file `limits`, by name."""
    with open(os.path.join(mount_point(), 'limits'), encoding='ascii') as file:
        lines = (line.split() for line in file)
        return {name: int(value) for name, value in lines if value.isdigit()}

"""All that takes a right, done to an object natively and to its file in the mount: answers() is one caller's table.

And what callers can be, beyond `child`'s users: with chosen capabilities, or in a machine of their own.
"""

import collections
import contextlib
import ctypes
import errno
import os
import pathlib
import select
import signal
import stat
import subprocess

import native
from conftest import BUILD, OPTIONS, eventually, mount_points
from test_users import GROUP, MEMBER, OTHER, OWNER, make

KINDS = ['sem', 'shm', 'mq']
IDENTITIES = {
    'root': dict(user=0, group=0),
    'owner': dict(user=OWNER, group=OWNER),
    'group member': dict(user=MEMBER, group=MEMBER, groups=[GROUP]),
    'other': dict(user=OTHER, group=OTHER),
}
MODES = [user << 6 | group << 3 | other for user in (0, 2, 4, 6) for group in (0, 2, 4, 6) for other in (0, 2, 4, 6)]

NEWNS, NEWUSER, NEWPID = 0x20000, 0x10000000, 0x20000000
MNT_DETACH = 2

# fs.protected_regular does not hold in the mount, for FUSE keeps O_CREAT from it where the file exists: ipcfs(5).
PROTECTED_REGULAR = int(pathlib.Path('/proc/sys/fs/protected_regular').read_text())

# Where `path` is the object's own file (for queues in mqueuefs), or the one in the mount that `root` is.
Object = collections.namedtuple('Object', 'kind name path root')


# ---- The table: by operation, the native call and the same through the mount ----

def new_in(root, kind, *options):
    """The directory of the mount to create in; queues are small, as RLIMIT_MSGQUEUE is."""
    options = [*options, *['max_messages=2', 'max_message_size=8'] * (kind == 'mq')]
    return root / f'{kind}@{",".join(options)}' if options else root / kind


def same(operation):
    return operation, operation


def on_path(function, *arguments, **options):
    return same(lambda it: function(it.path, *arguments, **options))


def open_file(path, flags):
    os.close(os.open(path, flags | os.O_NONBLOCK, 0o600))


def open_semaphore(it, flags=0):
    native.Semaphore(it.name, flags).close()


def open_queue(it, flags):
    native.Queue(it.name, flags | os.O_NONBLOCK).close()


def open_queue_somehow(it):
    try:
        open_queue(it, os.O_RDONLY)
    except PermissionError:
        open_queue(it, os.O_WRONLY)


def opening(kind, flags):
    natively = {
        'sem': lambda it: open_semaphore(it, flags & (os.O_CREAT | os.O_EXCL)),
        'shm': lambda it: os.close(native.shm_open(it.name, flags)),
        'mq': lambda it: open_queue(it, flags),
    }
    return natively[kind], lambda it: open_file(it.path, flags)


def opening_or_creating(kind):
    natively, here = opening(kind, os.O_RDWR | os.O_CREAT)
    if kind == 'shm' and PROTECTED_REGULAR:
        natively, _ = opening(kind, os.O_RDWR)
    return natively, here


def xattr(name, natively):
    return natively, lambda it: os.getxattr(it.path, f'user.ipcfs.{name}').decode()


def view(options, flags, natively):
    return natively, lambda it: open_file(it.root / f'{it.kind}@{options}' / it.name, flags)


def look(it):
    it.path.stat()


def resize(it):
    fd = native.shm_open(it.name, os.O_WRONLY)
    try:
        os.ftruncate(fd, 7)
    finally:
        os.close(fd)


def permissions(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


def change_mode(it):
    """Whoever is not in the group gets no set-group-ID, and no error."""
    os.chmod(it.path, 0o6771)
    return permissions(it.path)


def change_owner(uid, gid):
    def change(it):
        """The result is the mode, for this takes set-user-ID away."""
        os.chown(it.path, uid, gid)
        return permissions(it.path)
    return same(change)


def rename(it):
    it.path.rename(f'{it.path}-')
    os.rename(f'{it.path}-', it.path)


def open_without_atime(it):
    """EPERM to strangers; the kernel says that in place of EACCES where the file system's check is not its own."""
    try:
        open_file(it.path, os.O_RDONLY | os.O_NOATIME)
    except PermissionError:
        return False


ACCESS = {'R': os.R_OK, 'W': os.W_OK, 'RW': os.R_OK | os.W_OK, 'X': os.X_OK, 'existence': os.F_OK}
KNOWING = {'sem': ('value', open_semaphore), 'mq': ('current_messages', open_queue_somehow)}


def operations(kind):
    rows = {
        'stat': same(lambda it: (permissions(it.path), os.stat(it.path).st_uid, os.stat(it.path).st_gid)),
        'open to read': opening(kind, os.O_RDONLY),
        'open to write': opening(kind, os.O_WRONLY),
        'open both ways': opening(kind, os.O_RDWR),
        'open or create': opening_or_creating(kind),
        'create': opening(kind, os.O_RDWR | os.O_CREAT | os.O_EXCL),
        'read mode': xattr('mode', lambda it: f'{stat.S_IMODE(os.stat(it.path).st_mode):04o}'),
        'list attributes': (look, lambda it: os.listxattr(it.path) and None),
    }
    for name, mask in ACCESS.items():
        rows[f'access {name}'] = on_path(os.access, mask)
        rows[f'effective access {name}'] = on_path(os.access, mask, effective_ids=True)
    if kind == 'shm':
        rows |= {
            'read size': xattr('size', lambda it: str(os.stat(it.path).st_size)),
            'stat view': view('stat', os.O_RDONLY, look),
            'size view to write': view('size=7', os.O_WRONLY, resize),
            'size view to read': view('size=7', os.O_RDONLY, opening(kind, os.O_RDONLY)[0]),
            'append': opening(kind, os.O_WRONLY | os.O_APPEND),
            'open to read and truncate': opening(kind, os.O_RDONLY | os.O_TRUNC),
            'open to write and truncate': opening(kind, os.O_RDWR | os.O_TRUNC),
            'truncate': on_path(os.truncate, 5),
            'open without atime': same(open_without_atime),
        }
    else:
        attribute, natively = KNOWING[kind]
        rows |= {
            f'read {attribute}': (natively, lambda it: os.getxattr(it.path, f'user.ipcfs.{attribute}') and None),
            'stat view': view('stat', os.O_RDONLY, natively),
            'another view': view('nonblock', os.O_RDWR, opening(kind, os.O_RDWR)[0]),
        }
    rows |= {
        'touch': on_path(os.utime),
        'set times': on_path(os.utime, (1, 1)),
        'chmod': same(change_mode),
        'chown to itself': change_owner(OWNER, GROUP),
        "chown to the owner's own group": change_owner(-1, OWNER),
        'chown to the group': change_owner(-1, GROUP),
        'chown to another': change_owner(OTHER, -1),
    }
    if kind == 'shm':
        rows['rename'] = same(rename)
    rows['remove'] = same(lambda it: it.path.unlink())  # sem_unlink and its kin do it and then call EPERM EACCES
    return rows


def answer(operation, it):
    """What it returns, or the name of the errno."""
    try:
        result = operation(it)
    except OSError as failure:
        return errno.errorcode[failure.errno]
    return 'done' if result is None else result


# ---- Pairs of objects, and the two answers for each cell ----

@contextlib.contextmanager
def mqueuefs():
    """All queues as files, for this process and its children: a path. Root only."""
    FSOPEN, FSCONFIG, FSMOUNT, CMD_CREATE = 430, 431, 432, 6
    context = native.call('syscall', ctypes.c_long(FSOPEN), b'mqueue', 0)
    try:
        native.call('syscall', ctypes.c_long(FSCONFIG), context, CMD_CREATE, None, None, 0)
        root = native.call('syscall', ctypes.c_long(FSMOUNT), context, 0, 0)
    finally:
        os.close(context)
    try:
        yield f'/proc/self/fd/{root}'
    finally:
        os.close(root)


def native_path(kind, name, queues=None):
    folder = {'sem': '/dev/shm/sem.', 'shm': '/dev/shm/', 'mq': f'{queues}/'}[kind]
    return pathlib.Path(f'{folder}{name}')


def make_pairs(kind, name, root, queues, modes):
    """For each mode two objects, of OWNER and GROUP: one to be used natively, one through the mount at `root`. `queues`
    is where all queues are files."""
    pairs = []
    for mode in modes:
        natively, here = f'{name}n{mode:04o}', f'{name}m{mode:04o}'
        make(kind, natively, mode)
        make(kind, here, mode)
        pairs.append((f'{mode:04o}', Object(kind, natively, native_path(kind, natively, queues), None),
                      Object(kind, here, root / kind / here, root)))
    return pairs


def answers(kind, pairs):
    """By operation and mode: the native answer and the mount's. Operations are done in their order."""
    cells = {}
    for mode, natively, here in pairs:
        for name, (native_call, file_call) in operations(kind).items():
            cells[name, mode] = answer(native_call, natively), answer(file_call, here)
    return cells


def differences(cells):
    return {cell: pair for cell, pair in cells.items() if pair[0] != pair[1]}


REFUSALS = 'EACCES', 'EPERM', False


def excesses(cells):
    """The differences that give more than the native call: all but refusals."""
    return {cell: pair for cell, pair in differences(cells).items() if pair[1] not in REFUSALS}


# ---- Waiting ----

def poll(file):
    waiter = select.poll()
    waiter.register(file)
    if waiter.poll(0)[0][1] & select.POLLERR:
        raise OSError(errno.EIO, 'POLLERR')


def wait_for_signal(operation):
    """The operation, which sleeps, ended by a signal."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        return operation()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# ---- Callers ----

CAPABILITIES = {'CHOWN': 0, 'DAC_OVERRIDE': 1, 'DAC_READ_SEARCH': 2, 'FOWNER': 3, 'FSETID': 4}
PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 4, 8


def set_capabilities(effective, permitted=None):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    masks = [effective, effective if permitted is None else permitted, 0]
    data = (ctypes.c_uint32 * 6)(*[mask & 0xffffffff for mask in masks], *[mask >> 32 for mask in masks])
    native.call('capset', header, data)


def capabilities():
    """This thread's effective ones."""
    status = pathlib.Path('/proc/thread-self/status').read_text()
    return int(status.split('CapEff:')[1].split()[0], 16)


def become(user, group, groups=(), capabilities=None):
    """For a child of root's: another user, with these capabilities in place of the usual ones, who can be traced."""
    os.setgroups(groups)
    if capabilities is not None:
        native.call('prctl', PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    if capabilities is not None:
        set_capabilities(capabilities)
    native.call('prctl', PR_SET_DUMPABLE, 1, 0, 0, 0)


# ---- A machine of one's own ----

def leave_mounts_to_others():
    """For a child: a mount namespace of its own. Its copies of other mounts would keep their daemons from ending."""
    native.call('unshare', NEWNS)
    subprocess.run(['mount', '--make-rprivate', '/'], check=True)
    for point in mount_points():
        if '/ipcfs-' in point:
            native.libc.umount2(os.fsencode(point), MNT_DETACH)  # it may just have gone


def is_mount(path):
    """Also one that we may not look at."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError as failure:
        return failure.errno == errno.EACCES


@contextlib.contextmanager
def daemon(*options, command=(), prepare=lambda: None):
    """For a child in its own mount namespace: a mount's path, and its daemon, which `command` starts."""
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/mnt'], check=True)
    point = pathlib.Path('/mnt/ipc')
    point.mkdir(mode=0o777)
    point.chmod(0o777)

    def start():
        native.die_with_parent()
        prepare()
    options = [*['-o', OPTIONS] * bool(OPTIONS), *options]
    process = subprocess.Popen([*command, BUILD / 'ipcfs', '-f', *options, point], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=start)
    try:
        eventually(lambda: is_mount(point) or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        yield point, process
        native.call('umount', os.fsencode(point))  # umount(8) looks at it first
        said = process.communicate()[1]
        assert process.returncode == 0, said
        assert [line for line in said.splitlines() if 'mmap' not in line] == []  # where there is none it says why
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        subprocess.run(['umount', '-l', point], capture_output=True)
        subprocess.run(['umount', '-l', '/mnt'], capture_output=True)


@contextlib.contextmanager
def own_machine(*options, mode='1777'):
    """In a child process: a mount namespace with a /dev/shm of this mode, and a mount there, whose path this is."""
    leave_mounts_to_others()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'mode={mode}', 'tmpfs', '/dev/shm'], check=True)
    with daemon(*options) as (point, _):
        yield point

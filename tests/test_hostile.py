"""Objects that others tamper with: the one operation fails, and nothing else notices.

Each test here has other users of the mount: a semaphore, a queue and a segment that work before and after, and a reader
that sleeps all along and is woken at the end.
"""

import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import mmap
import os
import pathlib
import random
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

import native
from conftest import BUILD, PATIENCE, eventually, parked
from test_options import fails

SHM = pathlib.Path('/dev/shm')
USER, OTHER = 54321, 54323
SIZE_OF_SEMAPHORE = 32
LONGEST = {'sem': 251, 'shm': 255, 'mq': 255}
READ = select.POLLIN
TAMPERED = {errno.EIO, errno.EINVAL, errno.EAGAIN, errno.EOVERFLOW, errno.ENOENT, errno.ESTALE, errno.EINTR}


# The others

class Others:
    """What nobody tampers with, and who uses it."""

    def __init__(self, mounted, name, child):
        self.mounted, self.name = mounted, name
        self.pid = mounted.process.pid
        self.semaphore = native.create_semaphore(f'{name}sound', 1)
        self.queue = native.create_queue(f'{name}sound')
        self.segment = native.shm_open(f'{name}sound', os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.ftruncate(self.segment, 4096)
        self.late = native.create_semaphore(f'{name}late')
        self.sleeper = child((mounted.path / 'sem' / f'{name}late').read_bytes)
        eventually(lambda: parked(mounted.path / 'sem' / f'{name}late', self.sleeper))

    def use(self):
        """Each kind does its work, both ways; run in a child, as what is broken may hang."""
        sem, mq, shm = (self.mounted.path / kind / f'{self.name}sound' for kind in ('sem', 'mq', 'shm'))
        assert sem.read_bytes() == b'1\n'
        assert self.semaphore.value == 0
        self.semaphore.post()
        sem.write_bytes(b'1')
        assert self.semaphore.value == 2
        self.semaphore.wait()
        mq.write_bytes(b'to the queue')
        self.queue.send(b'and back')
        assert (self.queue.receive(), mq.read_bytes()) == ((b'to the queue', 0), b'and back')
        os.pwrite(self.segment, b'sound', 100)
        assert shm.read_bytes()[100:105] == b'sound'
        for path in sem, mq, shm:
            assert path.name in os.listdir(path.parent)
            assert b'mode' in (path.parent.with_name(f'{path.parent.name}@stat') / path.name).read_bytes()

    def check(self, child):
        child(self.use).result()
        assert self.sleeper.asleep
        self.late.post()
        assert self.sleeper.result() == b'1\n'
        assert (self.late.value, self.semaphore.value, len(self.queue)) == (0, 1, 0)
        assert (self.mounted.process.pid, self.mounted.process.poll()) == (self.pid, None)

    def close(self):
        self.semaphore.close()
        self.late.close()
        self.queue.close()
        os.close(self.segment)


@pytest.fixture
def mounted(request, mount, names, child):
    """A mount, whose other users are asked at the end what they have noticed."""
    others = Others(mount(*getattr(request, 'param', ())), names(), child)
    with contextlib.closing(others):
        yield others.mounted
        others.check(child)


@pytest.fixture
def mnt(mounted):
    return mounted.path


def outcome(function, *arguments):
    """What it returns, or the errno that it fails with."""
    try:
        return function(*arguments)
    except OSError as failure:
        return failure.errno


def interruptible(function, *arguments):
    """The outcome, which SIGUSR1 may end early."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return outcome(function, *arguments)


# Semaphores' files

@contextlib.contextmanager
def opened(file):
    fd = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def resized(*sizes):
    def resize(file):
        with opened(file) as fd:
            for size in sizes:
                os.ftruncate(fd, size)
    return resize


def scribbled(content):
    def scribble(file):
        with opened(file) as fd:
            os.write(fd, content)
    return scribble


def punched(file):
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
    with opened(file) as fd:
        native.call('fallocate', fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(4096))


def replaced(file):
    fresh = file.with_name(f'{file.name}fresh')
    fresh.write_bytes(bytes(SIZE_OF_SEMAPHORE))
    fresh.rename(file)


TAMPERINGS = {
    'truncated': resized(0), 'cut': resized(2), 'mended': resized(0, SIZE_OF_SEMAPHORE), 'enlarged': resized(2**40),
    'unlinked': pathlib.Path.unlink, 'replaced': replaced, 'punched': punched, 'all ones': scribbled(b'\xff' * SIZE_OF_SEMAPHORE),
    'no value, many waiters': scribbled(bytes(4) + b'\xff' * 28), 'random': scribbled(os.urandom(SIZE_OF_SEMAPHORE)),
}
GONE = 'truncated'                        # the word is no longer there
KEPT = 'enlarged', 'unlinked', 'replaced'  # the word is as it was, for those who have it open
ZERO = 'cut', 'mended', 'punched'         # the word is there and 0, its waiters forgotten


class Victim:
    """A semaphore of value 0 that is open here, natively and by file, in the hands of one who tampers."""

    def __init__(self, mnt, name):
        self.path, self.file = mnt / 'sem' / name, SHM / f'sem.{name}'
        self.semaphore = native.create_semaphore(name)
        self.fd = os.open(self.path, os.O_RDWR)
        self.nonblocking = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def try_wait(self):
        return outcome(native.pread, self.nonblocking, 10, 0)

    def post(self):
        return outcome(native.write, self.fd, b'1')

    def value(self):
        value = outcome(os.getxattr, self.fd, 'user.ipcfs.value')
        return int(value) if isinstance(value, bytes) else -value

    def close(self):
        self.semaphore.close()


@pytest.fixture
def victim(mnt, names):
    with contextlib.closing(Victim(mnt, names())) as victim:
        yield victim


@pytest.mark.parametrize('tampering', TAMPERINGS)
def test_open_semaphore_after_tampering(victim, tampering):
    """Each operation on the open file has the one outcome that the word allows."""
    TAMPERINGS[tampering](victim.file)
    outcomes = victim.try_wait(), victim.post(), victim.value(), victim.try_wait()
    if tampering == GONE:
        assert outcomes == (errno.EIO, errno.EIO, -errno.EIO, errno.EIO)
    elif tampering in KEPT + ZERO or tampering == 'no value, many waiters':
        assert outcomes == (errno.EAGAIN, 1, 1, b'1\n')
    else:
        value = victim.value()
        assert value >= 0
        assert victim.try_wait() == (b'1\n' if value else errno.EAGAIN)
        assert victim.post() == (1 if value <= native.SEM_VALUE_MAX else errno.EOVERFLOW)
    for view in victim.path, victim.path.parent.with_name('sem@stat') / victim.path.name:
        assert outcome(view.stat) is not None
        assert isinstance(outcome(view.chmod, 0o640), (int, type(None)))


@pytest.mark.parametrize('tampering', TAMPERINGS)
def test_name_of_a_tampered_semaphore_can_be_made_anew(victim, tampering, child):
    """Whatever lies there is removed, and a sound semaphore of that name works, also for one who sleeps."""
    TAMPERINGS[tampering](victim.file)
    opened = outcome(lambda: os.close(os.open(victim.path, os.O_RDWR)))
    assert opened == {'truncated': errno.EINVAL, 'cut': errno.EINVAL, 'enlarged': errno.EINVAL,
                      'unlinked': errno.ENOENT}.get(tampering)
    if tampering != 'unlinked':
        victim.path.unlink()
    assert not victim.file.exists()
    victim.path.touch()
    reader = child(victim.path.read_bytes)
    eventually(lambda: parked(victim.path, reader))
    with native.Semaphore(victim.path.name) as anew:
        anew.post()
        assert reader.result() == b'1\n'
        assert anew.value == 0


def post_natively(semaphore):
    """In a process that SIGBUS may end, and glibc itself where it finds nonsense."""
    faulthandler.disable()
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    semaphore.post()


def poll(fd):
    poll = select.poll()
    poll.register(fd, READ)
    while True:
        events = poll.poll(20000)  # Python begins anew after a signal; the timeout is the end of it
        return events[0][1] if events else 0


def edge(fd):
    """The same by epoll, edge-triggered."""
    with select.epoll() as epoll:
        epoll.register(fd, READ | select.EPOLLET)
        events = epoll.poll(20)
        return events[0][1] if events else 0


@pytest.mark.parametrize('tampering', TAMPERINGS)
@pytest.mark.parametrize('by_file', [True, False], ids=['posted by file', 'posted natively'])
def test_parked_readers_of_a_tampered_semaphore(victim, child, tampering, by_file):
    """Each gets a unit that is there, an EIO, or sleeps on until it is interrupted; no unit is lost or made."""
    readers = [child(interruptible, native.pread, victim.fd, 10, 0) for _ in range(2)]
    eventually(lambda: parked(victim.path, *readers))
    TAMPERINGS[tampering](victim.file)
    before = victim.value()
    if by_file:
        posted = victim.post() == 1
    else:
        posted = child(post_natively, victim.semaphore).wait() == 0
        assert posted or tampering not in KEPT + ZERO
    if tampering in KEPT:
        eventually(lambda: any(reader.finished for reader in readers))
        assert victim.value() == 0
    outcomes = []
    for reader in readers:
        while not reader.finished:
            reader.send_signal(signal.SIGUSR1)
            time.sleep(0.005)
        outcomes.append(reader.result())
    assert set(outcomes) <= {b'1\n', errno.EINTR, errno.EIO}
    if tampering == GONE:
        assert b'1\n' not in outcomes
    elif tampering in KEPT + ZERO:
        assert (before, posted) == (0, True)
        assert errno.EIO not in outcomes
        assert victim.value() == 1 - outcomes.count(b'1\n')
    elif before <= native.SEM_VALUE_MAX:
        assert victim.value() <= before + 1


@pytest.mark.parametrize('tampering', TAMPERINGS)
def test_timeout_holds_on_a_tampered_semaphore(victim, mnt, child, tampering):
    timed = os.open(mnt / 'sem@timeout=0.5' / victim.path.name, os.O_RDONLY)
    reader = child(outcome, native.pread, timed, 10, 0)
    eventually(lambda: parked(victim.path, reader) or reader.finished)
    TAMPERINGS[tampering](victim.file)
    assert reader.result() in {GONE: [errno.EIO]}.get(tampering, [errno.ETIMEDOUT] if tampering in KEPT + ZERO else
                                                      [errno.ETIMEDOUT, b'1\n'])


@pytest.mark.parametrize('wait', [poll, edge])
@pytest.mark.parametrize('tampering', TAMPERINGS)
def test_poller_of_a_tampered_semaphore(victim, child, tampering, wait):
    """It learns of a unit or an error, or sleeps on and can be killed."""
    poller = child(wait, victim.fd)
    eventually(lambda: sleeps(poller))
    TAMPERINGS[tampering](victim.file)
    posted = victim.post()
    if tampering in KEPT:
        assert posted == 1
        assert poller.result() & READ
    elif tampering == GONE:
        assert posted == errno.EIO
        assert events_now(victim.fd) == select.POLLERR
    else:
        value = victim.value()
        assert events_now(victim.fd) == (READ if value else 0)
    poller.kill()


def sleeps(poller):
    return not poller.finished and 'poll' in pathlib.Path(f'/proc/{poller.pid}/wchan').read_text()


def events_now(fd):
    poll = select.poll()
    poll.register(fd, READ)
    return sum(event for _, event in poll.poll(0))


def tamper(file, spare, seconds):
    """Everything that the owner of the file can do to it, in no order, for a while."""
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        try:
            random.choice([*TAMPERINGS.values(), scribbled(os.urandom(32)), scribbled(bytes(32)), os.mkfifo,
                           lambda file: file.symlink_to(spare)])(file)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.EEXIST, errno.EINVAL, errno.ELOOP, errno.ESPIPE, errno.EAGAIN):
                raise
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
        count += 1
        if random.random() < 0.5:
            with contextlib.suppress(OSError):
                replaced(file)
    return count


def use_tampered(path, seconds):
    """All operations on the name, again and again: the errnos that came, and how much went well."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    end = time.monotonic() + seconds
    errors, fine = set(), 0

    def use():
        fd = os.open(path, os.O_RDWR | random.choice([0, os.O_CREAT]) | os.O_NONBLOCK)
        try:
            for _ in range(5):
                outcomes = [outcome(os.write, fd, b'3'), outcome(native.pread, fd, 10, 0), outcome(os.fstat, fd),
                            outcome(os.getxattr, fd, 'user.ipcfs.value'), outcome(events_now, fd)]
                errors.update(each for each in outcomes[:4] if isinstance(each, int) and each > 1)
        finally:
            os.close(fd)

    def wait():
        return path.parent.with_name('sem@timeout=0.002').joinpath(path.name).read_bytes()
    while time.monotonic() < end:
        result = outcome(random.choice([use, use, wait, path.stat, lambda: path.chmod(0o600),
                                        path.parent.with_name('sem@stat').joinpath(path.name).read_bytes]))
        errors.update([result] if isinstance(result, int) else [])
        fine += not isinstance(result, int)
    return errors, fine


def test_semaphore_tampered_with_at_any_moment(mounted, names, child):
    """Users of one name and one who tampers with its file: only sensible errors, and work goes on."""
    name = names()
    path, file = mounted.path / 'sem' / name, SHM / f'sem.{name}'
    path.touch()
    (SHM / f'{name}spare').write_bytes(bytes(32))
    hostile = child(tamper, file, SHM / f'{name}spare', 2)
    users = [child(use_tampered, path, 2) for _ in range(3)]
    results = [user.result() for user in users]
    assert hostile.result() > 100
    assert set().union(*(errors for errors, _ in results)) <= TAMPERED | {errno.ETIMEDOUT}
    assert all(fine > 10 for _, fine in results)
    assert (SHM / f'{name}spare').read_bytes() == bytes(32)
    discard(file)
    path.touch()
    path.write_bytes(b'1')
    assert path.read_bytes() == b'1\n'


FULL = '''
    import errno, os, subprocess, sys, time
    sys.path.insert(0, sys.argv[3])
    import native
    ipcfs, point = sys.argv[1:3]
    daemon = subprocess.Popen([ipcfs, '-f', point])
    try:
        while not os.path.ismount(point):
            assert daemon.poll() is None
            time.sleep(0.005)
        open(f'{point}/sem/sound', 'x').close()
        with open('/dev/shm/sem.sparse', 'x') as file:
            os.truncate(file.fileno(), 32)
        sparse = os.open(f'{point}/sem/sparse', os.O_RDWR | os.O_NONBLOCK)
        with open('/dev/shm/filler', 'wb', buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as failure:
                assert failure.errno == errno.ENOSPC
        for use in lambda: os.write(sparse, b'1'), lambda: native.pread(sparse, 10, 0):
            try:
                print(use())
            except OSError as failure:
                print(errno.errorcode[failure.errno])
        for make in 'sem/new', 'shm@size=1M/new', 'shm/copy':
            try:
                with open(f'{point}/{make}', 'xb', buffering=0) as file:
                    print(file.write(bytes(8192)) if make == 'shm/copy' else 'made')
            except OSError as failure:
                print(errno.errorcode[failure.errno])
        with open(f'{point}/sem/sound', 'r+b', buffering=0) as sound:
            print(sound.write(b'1'), os.pread(sound.fileno(), 10, 0))
        os.unlink('/dev/shm/filler')
        print(os.write(sparse, b'1'), os.pread(sparse, 10, 0))
    finally:
        os.closerange(3, 50)
        subprocess.run(['umount', '-l', point])
        print(daemon.wait())
'''


def test_semaphore_without_a_page_in_a_full_file_system_is_eio(tmp_path):
    """In a mount namespace with a /dev/shm of its own: a sparse file whose page can't be had is SIGBUS to touch."""
    (tmp_path / 'full.py').write_text('\n'.join(line[4:] for line in FULL.splitlines()))
    (tmp_path / 'ipc').mkdir()
    done = subprocess.run(['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', 'sh',
                           sys.executable, tmp_path / 'full.py', BUILD / 'ipcfs', tmp_path / 'ipc',
                           pathlib.Path(__file__).parent], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ''
    lines = done.stdout.splitlines()
    assert lines[0] in ('EIO', 'ENOSPC')
    assert lines[1] in ('EIO', 'EAGAIN')  # a hole may be read as zeros
    assert lines[2:] == ['ENOSPC', 'made', 'ENOSPC', "1 b'1\\n'", "1 b'1\\n'", '0']


# What is planted under an object's name

@pytest.fixture
def canary(tmp_path):
    """A file and a folder outside /dev/shm, which must be found untouched at the end."""
    folder = tmp_path / 'canary'
    folder.mkdir()
    file = folder / 'secret'
    file.write_bytes(b'the canary sings!' + bytes(SIZE_OF_SEMAPHORE - 17))
    file.chmod(0o604)
    os.utime(file, (1, 1))
    fields = 'st_mode', 'st_uid', 'st_gid', 'st_size', 'st_ctime_ns', 'st_mtime_ns', 'st_atime_ns', 'st_nlink', 'st_ino'
    state = lambda: [[getattr(path.stat(), field) for field in fields] for path in (folder, file)]
    listing = os.listdir(folder)
    before = state()
    yield file
    assert state() == before  # its times first: reading it here would change them
    assert (os.listdir(folder), file.read_bytes()[:17]) == (listing, b'the canary sings!')


def make_socket(entry, canary):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(entry))


INTRUDERS = {
    'link to a file': lambda entry, canary: entry.symlink_to(canary),
    'link to a folder': lambda entry, canary: entry.symlink_to(canary.parent),
    'dangling link': lambda entry, canary: entry.symlink_to(canary.parent / 'not there'),
    'link to a link': lambda entry, canary: entry.symlink_to(entry),
    'fifo': lambda entry, canary: os.mkfifo(entry),
    'folder': lambda entry, canary: entry.mkdir(),
    'socket': make_socket,
    'character device': lambda entry, canary: os.mknod(entry, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    'block device': lambda entry, canary: os.mknod(entry, stat.S_IFBLK | 0o666, os.makedev(7, 0)),
}


def description(entry):
    status = entry.lstat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_nlink, status.st_mtime_ns


def use_name(path, flags):
    """What one does by opening, none of which may do anything to an intruder."""
    fd = os.open(path, flags)
    os.set_blocking(fd, False)  # not at the open, which must not wait for a FIFO's other end
    try:
        for operation in (lambda: os.write(fd, b'poison'), lambda: os.pread(fd, 100, 0), lambda: os.ftruncate(fd, 3),
                          lambda: os.fchmod(fd, 0o777), lambda: os.fchown(fd, OTHER, OTHER), lambda: os.utime(fd)):
            outcome(operation)
    finally:
        os.close(fd)


ON_A_NAME = {
    'open to read': lambda path: use_name(path, os.O_RDONLY),
    'open to write': lambda path: use_name(path, os.O_WRONLY),
    'open': lambda path: use_name(path, os.O_RDWR),
    'open and empty': lambda path: use_name(path, os.O_RDWR | os.O_TRUNC),
    'open to create': lambda path: use_name(path, os.O_RDWR | os.O_CREAT),
    'create': lambda path: use_name(path, os.O_RDWR | os.O_CREAT | os.O_EXCL),
    'mknod': lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    'stat': os.stat,
    'chmod': lambda path: os.chmod(path, 0o777),
    'chown': lambda path: os.chown(path, OTHER, OTHER),
    'utime': os.utime,
    'truncate': lambda path: os.truncate(path, 0),
    'access': lambda path: os.stat(path) and os.access(path, os.W_OK),
    'getxattr': lambda path: os.getxattr(path, 'user.ipcfs.mode'),
    'setxattr': lambda path: os.setxattr(path, 'user.x', b''),
    'stat view': lambda path: path.parent.with_name(f'{path.parent.name}@stat').joinpath(path.name).read_bytes(),
    'rename from': lambda path: os.rename(path, path.with_name(f'{path.name}new')),
    'unlink': os.unlink,
}


@pytest.mark.parametrize('kind, prefix', [('shm', ''), ('sem', 'sem.')], ids=['shm', 'sem'])
@pytest.mark.parametrize('intruder', INTRUDERS)
def test_intruder_is_refused_and_left_alone(mnt, names, child, canary, kind, prefix, intruder):
    """Every operation on its name fails at once and does nothing to it, nor to where it leads."""
    name = names()
    entry, path = SHM / f'{prefix}{name}', mnt / kind / name
    INTRUDERS[intruder](entry, canary)
    before = description(entry)
    assert name not in os.listdir(path.parent)
    outcomes = child(lambda: {what: outcome(use, path) for what, use in ON_A_NAME.items()}).result()
    expected = dict.fromkeys(ON_A_NAME, errno.ENOENT)
    expected.update({'open to create': errno.EINVAL, 'create': errno.EEXIST, 'mknod': errno.EEXIST})
    assert outcomes == expected
    assert description(entry) == before


@pytest.mark.parametrize('kind, prefix', [('shm', ''), ('sem', 'sem.')], ids=['shm', 'sem'])
@pytest.mark.parametrize('intruder', INTRUDERS)
def test_intruder_in_the_place_of_a_known_object_is_refused(mnt, names, child, canary, kind, prefix, intruder):
    """Who holds an object that was looked up but not opened has that very object, or ESTALE or EINVAL; nothing is followed."""
    name = names()
    entry, path = SHM / f'{prefix}{name}', mnt / kind / name
    native.CREATE[kind](name)
    fd = os.open(path, os.O_PATH)
    entry.unlink()
    INTRUDERS[intruder](entry, canary)
    before = description(entry)
    again = pathlib.Path(f'/proc/self/fd/{fd}')

    def use_all():
        return {outcome(use) for use in (
            lambda: os.fstat(fd), lambda: again.chmod(0o777), lambda: os.chown(again, OTHER, OTHER),
            lambda: os.utime(again), lambda: os.truncate(again, 0), lambda: os.getxattr(again, 'user.ipcfs.mode'),
            lambda: use_name(again, os.O_RDWR), lambda: use_name(again, os.O_RDONLY),
            lambda: use_name(again, os.O_RDWR | os.O_TRUNC))}
    assert {each for each in child(use_all).result() if isinstance(each, int)} <= {errno.ESTALE, errno.EINVAL}
    assert description(entry) == before


@pytest.mark.parametrize('intruder', INTRUDERS)
def test_intruder_is_not_replaced_by_a_renamed_segment(mnt, names, canary, intruder):
    name, other = names(), names()
    INTRUDERS[intruder](SHM / name, canary)
    before = description(SHM / name)
    (mnt / 'shm' / other).write_bytes(b'segment')
    fails(errno.EINVAL, os.rename, mnt / 'shm' / other, mnt / 'shm' / name)
    assert description(SHM / name) == before
    assert (SHM / other).read_bytes() == b'segment'


def swap(entry, canary, prefix, seconds):
    """Everything in turn under one name, so that an operation may meet one thing first and another then."""
    end = time.monotonic() + seconds
    made = [SHM / f'{prefix}{number}' for number in range(6)]
    count = 0
    while time.monotonic() < end:
        made[0].write_bytes(bytes(SIZE_OF_SEMAPHORE))
        made[1].symlink_to(canary)
        made[2].symlink_to(canary.parent)
        os.mkfifo(made[3])
        make_socket(made[4], canary)
        os.mknod(made[5], stat.S_IFCHR | 0o666, os.makedev(1, 3))
        order = [made[0], *random.sample(made[1:], 5)]
        for thing in order:
            if thing != made[0] and random.random() < 0.5:
                with contextlib.suppress(FileExistsError):
                    (SHM / f'{prefix}r').write_bytes(bytes(SIZE_OF_SEMAPHORE))
                    (SHM / f'{prefix}r').rename(entry)
            thing.rename(entry)
            count += 1
        with contextlib.suppress(FileExistsError):  # the users make objects there
            discard(entry)
            entry.mkdir()
            entry.rmdir()
    return count


def use_swapped(path, seconds):
    end = time.monotonic() + seconds
    errors, fine, seen = set(), 0, b''
    while time.monotonic() < end:
        what, use = random.choice(list(ON_A_NAME.items()))
        result = outcome(use, path)
        if isinstance(result, int) and not isinstance(result, bool):
            errors.add((what, result))
        else:
            fine += 1
            seen += result if isinstance(result, bytes) and b'canary' in result else b''
    return errors, fine, seen


@pytest.mark.parametrize('user', [0, USER], ids=['root', 'user'])
@pytest.mark.parametrize('kind, prefix', [('shm', ''), ('sem', 'sem.')], ids=['shm', 'sem'])
def test_name_swapped_in_a_race_leads_nowhere(mounted, names, child, canary, kind, prefix, user):
    """An operation meets an object or an error, does not hang on a FIFO, and never gets to where a link leads."""
    name = names()
    entry, path = SHM / f'{prefix}{name}', mounted.path / kind / name
    swapper = child(swap, entry, canary, f'{name}made', 1.5)
    users = [child(use_swapped, path, 1.5, user=user or None) for _ in range(3)]
    results = [each.result() for each in users]
    assert swapper.result() > 100
    for errors, fine, seen in results:
        assert {error for _, error in errors} <= {errno.ENOENT, errno.EINVAL, errno.ESTALE, errno.EEXIST, errno.EACCES,
                                                  errno.EPERM, errno.EOPNOTSUPP, errno.EISDIR}
        assert seen == b''
    assert sum(fine for _, fine, _ in results) > 0


@contextlib.contextmanager
def removing(*paths):
    try:
        yield
    finally:
        for path in paths:
            discard(path)


def discard(path):
    with contextlib.suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_hard_link_is_the_same_object_under_two_names(mnt, names, child):
    """As natively: what is done by one name is seen by the other, and rights and life are the object's."""
    one, two = names(), names()
    for kind, prefix in ('shm', ''), ('sem', 'sem.'):
        first, second = mnt / kind / one, mnt / kind / two
        native.CREATE[kind](one)
        os.link(SHM / f'{prefix}{one}', SHM / f'{prefix}{two}')
        assert first.stat().st_ino == second.stat().st_ino
        first.write_bytes(b'1')
        assert second.read_bytes() == (b'1\n' if kind == 'sem' else b'1')
        second.chmod(0o640)
        assert stat.S_IMODE(first.stat().st_mode) == 0o640
        with pytest.raises(PermissionError):
            child(second.read_bytes, user=OTHER).result()
        first.unlink()
        second.write_bytes(b'1')
        assert second.read_bytes() == (b'1\n' if kind == 'sem' else b'1')
        second.unlink()


def test_semaphore_linked_as_a_segment_is_both(mappable, mnt, names, child):
    """One file under a name of each kind: the kinds do not get into each other's way."""
    name = names()
    semaphore, segment = mnt / 'sem' / name, mnt / 'shm' / name
    semaphore.touch()
    os.link(SHM / f'sem.{name}', SHM / name)
    with open(segment, 'r+b', buffering=0) as file, mmap.mmap(file.fileno(), SIZE_OF_SEMAPHORE) as memory:
        reader = child(semaphore.read_bytes)
        eventually(lambda: parked(semaphore, reader))
        assert memory[0] == 0
        semaphore.write_bytes(b'2')
        assert reader.result() == b'1\n'
        assert memory[0] == 1
        memory[0] = 5
        assert os.getxattr(semaphore, 'user.ipcfs.value') == b'5'
    segment.unlink()
    assert semaphore.read_bytes() == b'1\n'


# Leases, with which an owner can hold up who opens

@pytest.mark.parametrize('mounted', [(), ('-o', 'no_passthrough')], indirect=True, ids=['passthrough', 'direct'])
@pytest.mark.parametrize('kind, prefix', [('shm', ''), ('sem', 'sem.')], ids=['shm', 'sem'])
@pytest.mark.parametrize('lease', [fcntl.F_RDLCK, fcntl.F_WRLCK], ids=['read lease', 'write lease'])
def test_lease_holds_up_nobody_else(mounted, names, child, kind, prefix, lease):
    """Who opens an object that somebody has a lease of may have to wait or get EAGAIN; nobody else does."""
    name = names()
    native.CREATE[kind](name)
    ready, say = os.pipe()

    def hold():
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(SHM / f'{prefix}{name}', os.O_RDONLY)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, lease)
        os.write(say, b'x')
        signal.pause()
    holder = child(hold)
    os.read(ready, 1)
    path = mounted.path / kind / name
    openers = [child(outcome, lambda: os.close(os.open(path, flags)))
               for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC)]
    changers = [child(outcome, change) for change in (lambda: path.chmod(0o640), lambda: os.utime(path),
                                                      lambda: os.truncate(path, 0), lambda: path.stat() and None)]
    others = [child(outcome, lambda: os.listdir(mounted.path / each) and None) for each in ('sem', 'shm', 'mq')]
    others.append(child(outcome, lambda: (mounted.path / 'shm' / f'{name}other').write_bytes(b'other') and None))
    try:
        assert [other.result(patience=10) for other in others] == [None] * 4
        assert {changer.result(patience=10) for changer in changers} <= {None, errno.EAGAIN}
        assert {opener.result(patience=10) for opener in openers} <= {None, errno.EAGAIN}
    finally:
        holder.kill()
        os.close(ready)
        os.close(say)
    assert path.stat()
    os.close(os.open(path, os.O_RDWR))


# Sizes

EXABYTES = [2**60, 2**62, 2**63 - 1]


def use_size(folder, name, size):
    """What one does with a segment of this size, and what comes of each step; `folder` is of the mount or /dev/shm."""
    path, copy = folder / name, folder / f'{name}copy'
    high = size - 8191 & ~4095
    path.touch()
    yield outcome(os.truncate, path, size)
    fd, other = os.open(path, os.O_RDWR), os.open(copy, os.O_RDWR | os.O_CREAT)
    yield path.stat().st_size
    yield subprocess.run(['ls', '-s', '--block-size=1', path], capture_output=True, text=True).stdout.split()[0]
    yield subprocess.run(['stat', '-c', '%s %F', path], capture_output=True).stdout
    for offset in 0, high, size - 10, size, 2**63 - 4096:
        yield outcome(os.pread, fd, 2**20 if offset > high else 10, offset)
        yield outcome(os.lseek, fd, offset, os.SEEK_SET)
    for whence, offset in (os.SEEK_END, 0), (os.SEEK_END, -size), (os.SEEK_DATA, 0), (os.SEEK_HOLE, 0):
        yield outcome(os.lseek, fd, offset, whence)
    yield outcome(os.pwrite, fd, b'summit', high)
    yield outcome(os.pwrite, fd, b'x', 2**63 - 1)
    for whence, offset in (os.SEEK_DATA, 0), (os.SEEK_HOLE, 0), (os.SEEK_HOLE, high), (os.SEEK_DATA, high + 4096):
        yield outcome(os.lseek, fd, offset, whence)
    yield outcome(os.copy_file_range, fd, other, 6, high, 10)
    yield outcome(os.pread, other, 100, 0)
    for length in 1, size, 2**50:
        yield outcome(os.posix_fallocate, fd, 2**63 - 1, length)
    yield outcome(os.posix_fallocate, fd, 0, size)
    yield subprocess.run(['tail', '-c', '6', path], capture_output=True).stdout
    done = subprocess.run(['cp', '--sparse=always', path, copy], capture_output=True)
    yield done.returncode, done.stderr, os.fstat(other).st_size, os.fstat(other).st_blocks
    yield outcome(os.ftruncate, fd, 10), outcome(os.pread, fd, 100, 0), outcome(os.ftruncate, fd, size)
    os.close(fd)
    os.close(other)
    path.unlink()
    copy.unlink()


@pytest.mark.parametrize('mounted', [(), ('-o', 'no_passthrough')], indirect=True, ids=['passthrough', 'direct'])
@pytest.mark.parametrize('size', EXABYTES)
def test_segment_of_exabytes(mounted, names, child, size):
    """It is listed, read, written, searched, copied and cut as natively, at once."""
    natively, by_file = (child(lambda folder: list(use_size(folder, names(), size)), folder).result()
                         for folder in (SHM, mounted.path / 'shm'))
    assert by_file == natively
    assert b'summit' in b''.join(step for step in by_file if isinstance(step, bytes))


@pytest.mark.parametrize('size', EXABYTES)
def test_stat_view_of_a_segment_of_exabytes_is_read_at_once(mnt, names, size):
    """Also by programs that make room for as many bytes as the file says it has."""
    name = names()
    (SHM / name).touch()
    os.truncate(SHM / name, size)
    assert os.getxattr(mnt / 'shm' / name, 'user.ipcfs.size') == b'%d' % size
    view = mnt / 'shm@stat' / name
    assert f'size {size}' in subprocess.run(['cat', view], capture_output=True, text=True).stdout.splitlines()
    assert view.stat().st_size == 0
    assert f'size {size}' in view.read_text().splitlines()


@pytest.mark.parametrize('size', [2**60, 2**62])
def test_segment_of_exabytes_is_mapped_at_its_end(mappable, mnt, names, size):
    name = names()
    path = mnt / 'shm' / name
    path.touch()
    os.truncate(SHM / name, size)
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 4096, offset=size - 4096) as memory:
        memory[4090:] = b'summit'
        assert os.pread(fd, 10, size - 6) == b'summit'
    with open(SHM / name, 'rb') as file:
        assert os.pread(file.fileno(), 10, size - 6) == b'summit'


def test_segment_cut_under_a_mapping_is_sigbus_there_alone(mappable, mounted, names, child):
    """The one who touches what is gone gets the signal, as natively."""
    name = names()
    path = mounted.path / 'shm' / name
    path.write_bytes(bytes(8192))

    def touch():
        memory = mmap.mmap(os.open(path, os.O_RDWR), 8192)
        os.truncate(SHM / name, 0)
        return memory[4096]
    toucher = child(touch)
    assert toucher.wait() == -signal.SIGBUS


# Queues

def test_queue_filled_to_the_last_byte(mounted, names, child):
    """It says so, refuses one more message of any length, holds up nobody, and gives back all that was in it."""
    name = names()
    native.create_queue(name).close()
    path = mounted.path / 'mq' / name
    messages = [bytes([number]) * 64 for number in range(10)]
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    for message in messages:
        assert os.write(fd, message) == 64
    lines = (mounted.path / 'mq@stat' / name).read_text().splitlines()
    assert {'current_messages 10', 'max_messages 10', 'max_message_size 64', 'bytes 640'} <= set(lines)
    for more in b'x', b'x' * 64:
        fails(errno.EAGAIN, os.write, fd, more)
    fails(errno.EMSGSIZE, os.write, fd, b'x' * 65)
    for view in 'mq@text,nonblock', 'mq@priority=5,nonblock', 'mq@nonblock':
        fails(errno.EAGAIN, (mounted.path / view / name).write_bytes, b'x\n')
    fails(errno.ETIMEDOUT, (mounted.path / 'mq@timeout=0' / name).write_bytes, b'x')
    writers = [child(path.write_bytes, b'late %d' % number) for number in range(3)]
    eventually(lambda: parked(path, *writers))
    assert path.stat().st_size == 0
    assert name in os.listdir(path.parent)
    received = [os.pread(fd, 100, 0) for _ in range(10)]
    assert received == messages
    for writer in writers:
        writer.result()
    assert sorted(os.pread(fd, 100, 0) for _ in range(3)) == [b'late 0', b'late 1', b'late 2']
    fails(errno.EAGAIN, os.pread, fd, 100, 0)


# Names

ODD = {
    'newline': b'a\nb', 'only newlines': b'\n\n', 'carriage return': b'a\rb', 'escape': b'\x1b[2J\x1b]0;owned\x07',
    'C1 controls': b'\xc2\x9b31m', 'raw C1': b'\x9b31m', 'all controls': bytes(range(1, 32)) + b'\x7f',
    'invalid UTF-8': b'\xff\xfe\xc0\x80', 'cut UTF-8': b'\xe2\x82', 'high bytes': bytes(range(128, 256)),
    'dot': b'.hidden', 'dots': b'...', 'dash': b'-rf', 'dashes': b'--', 'blanks': b' \t ', 'at': b'@', 'view': b'x@stat',
    'option': b'value=3', 'options': b'@text,timeout=1', 'format': b'%s%n%d%%', 'quotes': b'\'"`$(x)\\', 'glob': b'*?[a]',
    'sem prefix inside': b'x.sem.', 'tilde': b'~root', 'colon': b'a:b;c|d&e<f>g',
}


@pytest.fixture
def odd_name(names):
    """odd_name(kind, what) is a name, bytes, that has this in front; objects so called go at the end."""
    given = []

    def make(what, length=None):
        name = what + os.fsencode(names())
        if length:
            name = name.ljust(length, b'\xff')
        given.append(name)
        return name
    yield make
    for name in given:
        for kind, unlink in native.UNLINK.items():
            if len(name) <= LONGEST[kind]:
                native.discard(unlink, name)


def full_life(mnt, kind, name):
    """All that can be done with a name, in bytes; nothing of it may depend on what the bytes are."""
    folder, stat_folder = os.fsencode(mnt / kind), os.fsencode(mnt / f'{kind}@stat')
    path = folder + b'/' + name
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640))
    assert native.exists(kind, name)
    for listing in folder, stat_folder:
        assert os.listdir(listing).count(name) == 1
        assert [entry.stat().st_ino for entry in os.scandir(listing) if entry.name == name] == [os.stat(path).st_ino]
    fd = os.open(path, os.O_RDWR)
    assert os.write(fd, b'1') == 1
    assert os.pread(fd, 10, 0) in (b'1', b'1\n')
    os.close(fd)
    with open(stat_folder + b'/' + name, 'rb') as file:
        lines = file.read()
    assert re.fullmatch(rb'([a-z_]+ [0-9]+\n)+', lines)
    attributes = os.listxattr(path)
    assert len(attributes) == lines.count(b'\n')
    for attribute in attributes:
        assert os.getxattr(path, attribute).isdigit()
    os.chmod(path, 0o600)
    with pytest.raises(FileExistsError):
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    if kind == 'shm':
        os.rename(path, path[:-1] + b'R')
        os.rename(path[:-1] + b'R', path)
    os.unlink(path)
    assert not native.exists(kind, name)
    with pytest.raises(FileNotFoundError):
        os.stat(path)


def controls(text):
    """The raw control characters in it, but for ends of lines and tabs; bytes that are no UTF-8 count."""
    return {character for character in text.decode(errors='surrogateescape')
            if character not in '\n\t' and (not character.isprintable() or '\udc80' <= character <= '\udcff')}


@pytest.mark.parametrize('kind', ['sem', 'shm', 'mq'])
@pytest.mark.parametrize('mounted', [(), ('-d',)], indirect=True, ids=['quiet', 'debug'])
@pytest.mark.stderr('')
def test_odd_names_are_names_as_any_other(mounted, odd_name, kind):
    """Whatever the bytes; and none of them gets into the daemon's log as it is, also when it tells of each request."""
    for what in ODD.values():
        full_life(mounted.path, kind, odd_name(what))
    full_life(mounted.path, kind, odd_name(b'\x1b', LONGEST[kind]))
    fails(errno.ENAMETOOLONG, os.open, os.fsencode(mounted.path / kind) + b'/' + odd_name(b'\x1b', LONGEST[kind] + 1),
          os.O_CREAT | os.O_RDWR)
    log = mounted.stderr.read_bytes()
    assert controls(log) == set()
    # Without passthrough it says so, in one line.
    assert b'\n' in log if '-d' in mounted.command else log.count(b'\n') == (not mounted.maps)


@pytest.mark.stderr('')
@pytest.mark.parametrize('mounted', [('-d',)], indirect=True, ids=['debug'])
def test_odd_names_in_the_root_and_in_refused_requests_stay_out_of_the_log(mounted, odd_name):
    root = os.fsencode(mounted.path)
    for what in ODD.values():
        name = odd_name(what)
        for path in root + b'/' + name, root + b'/sem@' + name, root + b'/mq@priority=' + name:
            with pytest.raises(OSError):
                os.stat(path)
            with pytest.raises(OSError):
                os.open(path, os.O_CREAT | os.O_RDWR)
        path = root + b'/shm/' + name
        for refused in (lambda: os.mkdir(path), lambda: os.symlink(name, path), lambda: os.unlink(path),
                        lambda: os.rename(path, path + b'x'), lambda: os.getxattr(root + b'/shm', b'user.' + name),
                        lambda: os.setxattr(root + b'/shm', b'user.' + name[:200], name)):
            with pytest.raises(OSError):
                refused()
    assert controls(mounted.stderr.read_bytes()) == set()


def test_listing_tools_show_odd_names_whole(mnt, odd_name):
    """ls escapes them and find hands them on, one entry each."""
    expected = {odd_name(what) for what in ODD.values()}
    for name in expected:
        native.CREATE['shm'](name)
    found = subprocess.run(['find', mnt / 'shm', '-type', 'f', '-printf', '%f\\0'], capture_output=True, check=True).stdout
    assert expected <= set(found.split(b'\0'))
    listed = subprocess.run(['ls', '-lAb', mnt / 'shm'], capture_output=True, check=True, env={'LC_ALL': 'C'}).stdout
    assert not re.search(rb'[\0-\x09\x0b-\x1f\x7f-\xff]', listed)


# Folders whose entries vanish while they are read

def churn(kind, prefix, seconds):
    """Makes and removes many objects; the errors, none of which there should be."""
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        for number in range(100):
            native.CREATE[kind](f'{prefix}{number}')
        for number in range(100):
            native.UNLINK[kind](f'{prefix}{number}')
        rounds += 1
    return rounds


def look(folder, mine, seconds):
    """Reads the folder with all attributes, again and again: how often, and which of those that stay were not there."""
    end = time.monotonic() + seconds
    missing, errors, rounds = set(), set(), 0
    while time.monotonic() < end:
        seen = []
        with os.scandir(folder) as entries:
            for entry in entries:
                seen.append(entry.name)
                result = outcome(entry.stat)
                if isinstance(result, int):
                    errors.add((entry.name in mine, result))
        missing |= {name for name in mine if seen.count(name) != 1}
        rounds += 1
    return rounds, missing, errors


@pytest.mark.parametrize('kind, staying', [('sem', 1000), ('shm', 1500), ('mq', 40)])
def test_objects_that_vanish_while_their_folder_is_read(mounted, names, child, kind, staying):
    """Those that stay are in every listing once, and no listing fails."""
    stay, go = names(), names()
    mine = {f'{stay}{number}' for number in range(staying)}
    for name in mine:
        native.create_queue(name, 1, 8).close() if kind == 'mq' else native.CREATE[kind](name)
    folder = mounted.path / kind
    churners = [child(churn, kind, f'{go}{number}-', 1.5) for number in range(1 if kind == 'mq' else 2)]
    lookers = [child(look, folder, mine, 1.5) for _ in range(2)]
    for looker in lookers:
        rounds, missing, errors = looker.result()
        assert rounds > 0
        assert missing == set()
        assert errors <= {(False, errno.ENOENT), (False, errno.ESTALE)}  # ESTALE: gone anew when the kernel had asked again
    assert all(churner.result() > 0 for churner in churners)
    done = subprocess.run(['ls', '-l', folder], capture_output=True)
    # Objects of others may go while it looks at them.
    assert all(b': No such file or directory' in line for line in done.stderr.splitlines())

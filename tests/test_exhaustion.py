"""Memory and descriptors that the daemon can't have: the one operation says so, and nothing is lost, kept or broken.

Each operation below is done again and again while the first, the second, the third ... allocation that it makes the
daemon do fails, and then with no descriptor left for the daemon, one, two ...: see preload/allocations.c and prlimit(2).
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import resource
import select
import signal
import struct
import subprocess
import threading

import pytest

import native
from conftest import BUILD, PATIENCE, TESTS, asleep, eventually, mount_points, sleeps_in

SHM = pathlib.Path('/dev/shm')
IN = select.POLLIN
OWNER, GROUP, MEMBER = 54321, 54400, 54322
REPEATS = 4
OTHERS = {'list_a_folder'}  # what they take depends on other programs' objects, which come and go


# What is done: each is a generator. It makes ready what it takes, yields what is to be done under the fault, is sent what
# came of that (the result, or the OSError), checks what must be true then, and cleans up.

class Scene:
    """Where it is done, and what helps to do it."""

    def __init__(self, mounted, names, child):
        self.mounted, self.mnt, self.child = mounted, mounted.path, child
        self.names = {}
        self.fresh = names
        self.errors = set()  # that an operation may fail with

    def name(self, key):
        """The same in each round, so that the kernel has no more to remember."""
        return self.names.setdefault(key, None) or self.names.update({key: self.fresh()}) or self.names[key]

    def failed(self, result):
        """Whether the operation failed, as it may."""
        if not isinstance(result, OSError):
            return False
        assert result.errno in self.errors, result
        return True

    @contextlib.contextmanager
    def semaphore(self, value=0):
        name = self.name('sem')
        with native.create_semaphore(name, value) as semaphore:
            try:
                yield semaphore, self.mnt / 'sem' / name
            finally:
                native.sem_unlink(name)

    @contextlib.contextmanager
    def queue(self, *messages, size=2):
        name = self.name('mq')
        with native.create_queue(name, max_messages=size) as queue:
            for message in messages:
                queue.send(message)
            try:
                yield queue, self.mnt / 'mq' / name
            finally:
                native.mq_unlink(name)

    @contextlib.contextmanager
    def segment(self, content=b'content'):
        name = self.name('shm')
        (SHM / name).write_bytes(content)
        try:
            yield self.mnt / 'shm' / name
        finally:
            native.discard(native.shm_unlink, name)

    def view(self, options, path):
        return path.parent.with_name(f'{path.parent.name}@{options}') / path.name


@contextlib.contextmanager
def opened(path, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


class Sleeper(threading.Thread):
    """A thread that does what may have to wait."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self.function, self.arguments = function, arguments
        self.result = None
        self.start()

    def run(self):
        self.result = outcome(self.function, *self.arguments)

    def sleeps_or_has_ended(self):
        if not self.is_alive():
            return True
        wchan = sleeps_in(os.getpid(), self.native_id)
        return asleep(os.getpid(), self.native_id) or wchan.startswith(('poll_sched', 'do_epoll', 'do_sys_poll'))

    def settle(self):
        eventually(self.sleeps_or_has_ended)
        return self

    def end(self):
        self.join(PATIENCE)
        assert not self.is_alive(), 'still waiting'
        return self.result


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except OSError as failure:
        return failure


def pollin(fd):
    poll = select.poll()
    poll.register(fd, IN)
    return poll.poll(PATIENCE * 1000)


OPERATIONS = {}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


@operation
def stat_the_root(scene):
    result = yield lambda: os.stat(scene.mnt)
    assert scene.failed(result) or result.st_ino


@operation
def stat_an_object(scene):
    with scene.semaphore() as (_, path), scene.queue() as (_, other), scene.segment() as segment:
        for each in path, other, segment:
            result = yield lambda: os.stat(each)
            assert scene.failed(result) or result.st_ino


@operation
def list_a_folder(scene):
    with scene.semaphore() as (_, path), scene.queue() as (_, other), scene.segment() as segment:
        for each in path, other, segment:
            result = yield lambda: [entry.name for entry in os.scandir(each.parent)
                                    if entry.name != each.name or entry.stat(follow_symlinks=False)]
            assert scene.failed(result) or result.count(each.name) == 1


@operation
def list_the_root(scene):
    result = yield lambda: os.listdir(scene.mnt)
    assert scene.failed(result) or {'sem', 'shm', 'mq', 'README', 'limits'} <= set(result)


@operation
def read_the_texts(scene):
    for name in 'README', 'limits':
        result = yield lambda: (scene.mnt / name).read_bytes()
        assert scene.failed(result) or (b'cat limits' if name == 'README' else b'\nVERSION ') in result


@operation
def statfs(scene):
    with scene.segment() as path:
        result = yield lambda: os.statvfs(path)
        assert scene.failed(result) or result.f_namemax == 255


@operation
def create_and_remove(scene):
    for kind in 'sem', 'shm', 'mq':
        name = scene.name('new')
        path = scene.mnt / f'{kind}@mode=600' / name if kind != 'mq' else scene.mnt / 'mq@max_messages=1' / name
        result = yield lambda: os.open(path, os.O_RDWR | os.O_CREAT)
        if not scene.failed(result):
            assert native.exists(kind, name)
            os.close(result)
        result = yield lambda: os.unlink(scene.mnt / kind / name)
        if isinstance(result, FileNotFoundError) or not scene.failed(result):
            assert not native.exists(kind, name)
        native.discard(native.UNLINK[kind], name)


@operation
def mknod(scene):
    for kind in 'sem', 'shm', 'mq':
        name = scene.name('new')
        result = yield lambda: os.mknod(scene.mnt / kind / name, 0o100600)
        assert scene.failed(result) or native.exists(kind, name)
        native.discard(native.UNLINK[kind], name)


@operation
def open_and_close(scene):
    with scene.semaphore() as (_, path), scene.queue() as (_, other), scene.segment() as segment:
        for each in path, other, segment:
            result = yield lambda: os.close(os.open(each, os.O_RDWR))
            assert scene.failed(result) or result is None


@operation
def change_attributes(scene):
    with scene.semaphore() as (_, path), scene.queue() as (_, other), scene.segment() as segment:
        for each in path, other, segment:
            for change in os.utime, lambda path: os.chmod(path, 0o640), lambda path: os.chown(path, OWNER, -1):
                result = yield lambda: change(each)
                assert scene.failed(result) or result is None
            result = yield lambda: os.access(each, os.R_OK)
            assert result in (True, False)


@operation
def extended_attributes(scene):
    with scene.semaphore(3) as (_, path), scene.queue(b'1') as (_, other), scene.segment() as segment:
        for each, name, value in ((path, 'value', b'3'), (other, 'current_messages', b'1'), (other, 'notify_pid', b'0'),
                                  (segment, 'size', b'7')):
            result = yield lambda: os.getxattr(each, f'user.ipcfs.{name}')
            assert scene.failed(result) or result == value
            result = yield lambda: os.listxattr(each)
            assert scene.failed(result) or f'user.ipcfs.{name}' in result


@operation
def stat_view(scene):
    with scene.semaphore(3) as (_, path), scene.queue(b'1') as (_, other), scene.segment() as segment:
        for each, line in (path, b'value 3\n'), (other, b'bytes 1\n'), (segment, b'size 7\n'):
            result = yield lambda: read_whole(scene.view('stat', each))
            assert scene.failed(result) or (line in result and result.startswith(b'mode '))


def read_whole(path):
    with opened(path, os.O_RDONLY) as fd:
        return os.read(fd, 4096)


@operation
def take_a_unit(scene):
    with scene.semaphore(1) as (semaphore, path), opened(path) as fd:
        result = yield lambda: native.pread(fd, 10, 0)
        assert semaphore.value == 1 if scene.failed(result) else (result, semaphore.value) == (b'1\n', 0)


@operation
def post(scene):
    with scene.semaphore() as (semaphore, path), opened(path) as fd:
        result = yield lambda: native.write(fd, b'5')
        assert semaphore.value == 0 if scene.failed(result) else semaphore.value == 5


@operation
def wait_for_a_unit(scene):
    """The fault meets the one who goes to sleep."""
    for view in 'timeout=1000', 'nonblock', None:
        with scene.semaphore() as (semaphore, path), opened(scene.view(view, path) if view else path) as fd:
            sleeper = yield lambda: Sleeper(native.pread, fd, 10, 0).settle()
            semaphore.post()
            result = sleeper.end()
            if view == 'nonblock':
                assert isinstance(result, BlockingIOError) or scene.failed(result)
            else:
                assert scene.failed(result) or result == b'1\n'
            assert semaphore.value == (0 if result == b'1\n' else 1)


@operation
def unit_for_who_waits(scene):
    """The fault meets the one who posts, and who is woken by it."""
    with scene.semaphore() as (semaphore, path), opened(path) as fd:
        sleeper = Sleeper(native.pread, fd, 10, 0).settle()
        assert sleeper.is_alive()
        result = yield lambda: (path.write_bytes(b'1'), sleeper.join(2))
        if scene.failed(result):
            semaphore.post()
        woken = sleeper.end()
        assert scene.failed(woken) or woken == b'1\n'
        assert semaphore.value == (0 if woken == b'1\n' else 1)


@operation
def deadline_passes(scene):
    with scene.semaphore() as (semaphore, path), opened(scene.view('timeout=0.01', path)) as fd:
        result = yield lambda: native.pread(fd, 10, 0)
        assert isinstance(result, TimeoutError) or scene.failed(result)
        assert semaphore.value == 0


@operation
def interrupted_wait(scene):
    with scene.semaphore() as (semaphore, path), scene.queue() as (queue, other):
        for each in path, other:
            with opened(each) as fd:
                sleeper = Sleeper(native.pread, fd, 100, 0).settle()
                result = yield lambda: (signal.pthread_kill(sleeper.ident, signal.SIGUSR1), sleeper.join(2))
                assert not isinstance(result, OSError)
                if sleeper.is_alive():  # libfuse could not even take the interrupt
                    signal.pthread_kill(sleeper.ident, signal.SIGUSR1)
                assert isinstance(sleeper.end(), InterruptedError)
        assert (semaphore.value, len(queue)) == (0, 0)


@operation
def receive(scene):
    for view in None, 'text,stream', 'priority', 'drain':
        with scene.queue(b'message') as (queue, path), opened(scene.view(view, path) if view else path) as fd:
            result = yield lambda: native.pread(fd, 100, 0)
            if not scene.failed(result):
                assert result == {'text,stream': b'message\n', 'priority': b'0 message'}.get(view, b'message')
            assert len(queue) == isinstance(result, OSError)


@operation
def send(scene):
    for view in None, 'text', 'priority':
        with scene.queue() as (queue, path), opened(scene.view(view, path) if view else path) as fd:
            result = yield lambda: native.write(fd, b'7 a message\n')
            scene.failed(result)
            assert len(queue) == (not isinstance(result, OSError))


@operation
def several_lines(scene):
    with scene.queue() as (queue, path), opened(scene.view('text', path)) as fd:
        result = yield lambda: native.write(fd, b'one\ntwo\n')
        sent = 0 if scene.failed(result) else result // 4
        assert [queue.receive()[0] for _ in range(len(queue))] == [b'one', b'two'][:sent]


@operation
def unfinished_line(scene):
    """What was written with success is sent at the close, or the line was refused."""
    with scene.queue() as (queue, path):
        fd = os.open(scene.view('text', path), os.O_WRONLY)
        result = yield lambda: native.write(fd, b'unfinished')
        os.close(fd)
        if scene.failed(result):
            assert len(queue) == 0
        else:
            assert queue.receive(timeout=PATIENCE) == (b'unfinished', 0)


@operation
def wait_for_a_message(scene):
    for view in 'timeout=1000', None:
        with scene.queue() as (queue, path), opened(scene.view(view, path) if view else path) as fd:
            sleeper = yield lambda: Sleeper(native.pread, fd, 100, 0).settle()
            queue.send(b'message')
            result = sleeper.end()
            assert scene.failed(result) or result == b'message'
            assert len(queue) == isinstance(result, OSError)


@operation
def message_for_who_waits(scene):
    with scene.queue() as (queue, path), opened(path) as fd:
        sleeper = Sleeper(native.pread, fd, 100, 0).settle()
        result = yield lambda: (path.write_bytes(b'message'), sleeper.join(2))
        if scene.failed(result):
            queue.send(b'message')
        woken = sleeper.end()
        assert scene.failed(woken) or woken == b'message'
        assert len(queue) == isinstance(woken, OSError)


@operation
def wait_for_room(scene):
    with scene.queue(b'filler', size=1) as (queue, path), opened(path) as fd:
        sleeper = yield lambda: Sleeper(native.write, fd, b'message').settle()
        assert queue.receive() == (b'filler', 0)
        result = sleeper.end()
        scene.failed(result)
        assert len(queue) == (not isinstance(result, OSError))


@operation
def room_for_who_waits(scene):
    with scene.queue(b'filler', size=1) as (queue, path), opened(path) as fd:
        sleeper = Sleeper(native.write, fd, b'message').settle()
        result = yield lambda: (read_whole(path), sleeper.join(2))
        if scene.failed(result):
            queue.receive()
        woken = sleeper.end()
        scene.failed(woken)
        assert len(queue) == (not isinstance(woken, OSError))


@operation
def go_to_poll(scene):
    with scene.semaphore() as (semaphore, path), scene.queue() as (queue, other):
        for each, give in (path, semaphore.post), (other, lambda: queue.send(b'1')):
            with opened(each) as fd:
                sleeper = yield lambda: Sleeper(pollin, fd).settle()
                give()
                result = sleeper.end()
                assert result == [(fd, IN)] or result == [(fd, select.POLLERR)] and scene.errors
    assert pollin


@operation
def wake_a_poller(scene):
    """Who polls learns of what comes after the one operation beside it failed."""
    with scene.semaphore() as (semaphore, path), scene.queue() as (queue, other):
        for each, give in (path, semaphore.post), (other, lambda: queue.send(b'1')):
            with opened(each) as fd, opened(each, os.O_RDWR | os.O_NONBLOCK) as beside:
                sleeper = Sleeper(pollin, fd).settle()
                result = yield lambda: native.pread(beside, 10, 0)
                assert isinstance(result, BlockingIOError) or scene.failed(result)
                assert sleeper.is_alive()
                give()
                assert sleeper.end() == [(fd, IN)]


@operation
def notify_by_read(scene):
    with scene.queue() as (queue, path), opened(scene.view('notify', path)) as fd:
        sleeper = yield lambda: Sleeper(native.pread, fd, 100, 0).settle()
        queue.send(b'message')
        result = sleeper.end()
        assert scene.failed(result) or result == b'%d 0\n' % os.getpid()
    assert is_free(scene)


def is_free(scene):
    """A queue of this name has nobody registered."""
    with scene.queue() as (queue, _):
        queue.notify(signal.SIGUSR1)
        queue.notify(None)
    return True


@operation
def notified_reader(scene):
    """The fault meets the message."""
    with scene.queue() as (queue, path), opened(scene.view('notify', path)) as fd:
        sleeper = Sleeper(native.pread, fd, 100, 0).settle()
        result = yield lambda: (path.write_bytes(b'message'), sleeper.join(2))
        if scene.failed(result):
            queue.send(b'message')
        woken = sleeper.end()
        assert scene.failed(woken) or woken == b'%d 0\n' % os.getpid()
        queue.receive()
        queue.notify(signal.SIGUSR1)
        queue.notify(None)


@operation
def notify_by_signal(scene):
    with scene.queue() as (queue, path), opened(scene.view('notify', path)) as fd:
        result = yield lambda: native.write(fd, b'USR1')
        registered = not scene.failed(result)
        result = yield lambda: native.write(fd, b'cancel')
        if registered and scene.failed(result):
            native.write(fd, b'cancel')
        queue.notify(signal.SIGUSR1)
        queue.notify(None)


@operation
def read_and_write_a_segment(scene):
    with scene.segment() as path, opened(path) as fd:
        result = yield lambda: native.pread(fd, 100, 0)
        assert scene.failed(result) or result == b'content'
        result = yield lambda: os.pwrite(fd, b'CON', 0)
        assert path.read_bytes() == (b'content' if scene.failed(result) else b'CONtent')


@operation
def map_a_segment(scene):
    """Mapped it is the same memory, or it is not mapped: with passthrough given up for want of memory, too."""
    with scene.segment(bytes(4096)) as path:
        def use():
            with opened(path) as fd:
                return mmap.mmap(fd, 4096)
        memory = yield use
        if isinstance(memory, OSError) and memory.errno == errno.ENODEV:
            return
        if not scene.failed(memory):
            memory[0] = 7
            assert (SHM / path.name).read_bytes()[0] == 7
            memory.close()


@operation
def change_a_segment(scene):
    with scene.segment() as path, opened(path) as fd, opened(path) as other:
        for change in (lambda: os.ftruncate(fd, 4096), lambda: os.truncate(path, 8192),
                       lambda: os.posix_fallocate(fd, 0, 8192), lambda: assert_is(0, os.lseek(fd, 0, os.SEEK_DATA)),
                       lambda: assert_is(4, os.copy_file_range(fd, other, 4, 0, 100)), lambda: os.fsync(fd)):
            result = yield change
            assert scene.failed(result) or result is None


def assert_is(expected, found):
    assert found == expected


@operation
def rename_a_segment(scene):
    with scene.segment() as path:
        new = path.with_name(scene.name('new'))
        result = yield lambda: os.rename(path, new)
        assert native.exists('shm', path.name if scene.failed(result) else new.name)
        native.discard(native.shm_unlink, new.name)


@operation
def lock(scene):
    with scene.segment() as path, opened(path) as fd:
        for take in (lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB), lambda: fcntl.flock(fd, fcntl.LOCK_UN),
                     lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5),
                     lambda: fcntl.lockf(fd, fcntl.LOCK_UN)):
            result = yield take
            assert scene.failed(result) or result is None
    with scene.segment() as path, opened(SHM / path.name) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@operation
def wait_for_a_lock(scene):
    """Held by a file of the mount, and natively."""
    scene.errors |= {errno.ENOLCK} if scene.errors else set()
    with scene.segment() as path:
        for holder in path, SHM / path.name:
            with opened(path) as fd:
                with opened(holder) as held:
                    fcntl.flock(held, fcntl.LOCK_EX)
                    sleeper = yield lambda: Sleeper(fcntl.flock, fd, fcntl.LOCK_EX).settle()
                result = sleeper.end()
                assert scene.failed(result) or result is None


@operation
def interrupted_lock(scene):
    with scene.segment() as path:
        for holder in path, SHM / path.name:
            with opened(path) as fd, opened(holder) as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                sleeper = Sleeper(flock_once, fd).settle()
                result = yield lambda: (signal.pthread_kill(sleeper.ident, signal.SIGUSR1), sleeper.join(2))
                assert not isinstance(result, OSError)
                if sleeper.is_alive():
                    signal.pthread_kill(sleeper.ident, signal.SIGUSR1)
                assert isinstance(sleeper.end(), InterruptedError)


def flock_once(fd):
    """Unlike Python's, which begins anew after a signal."""
    native.call('flock', fd, fcntl.LOCK_EX)


# What must not be permitted because something could not be found out

def as_member(scene, function):
    return lambda: scene.child(function, user=MEMBER, group=MEMBER, groups=[GROUP]).result()


@operation
def open_by_right_of_a_group(scene):
    with scene.segment() as path, scene.queue() as (queue, other):
        os.chown(SHM / path.name, OWNER, GROUP)
        os.chmod(SHM / path.name, 0o060)
        os.fchown(queue.descriptor, OWNER, GROUP)
        os.fchmod(queue.descriptor, 0o060)
        for each in path, other:
            result = yield as_member(scene, lambda: os.close(os.open(each, os.O_RDWR)))
            assert scene.failed(result) or result is None


@operation
def open_against_the_right_of_a_group(scene):
    with scene.segment() as path, scene.queue() as (queue, other):
        os.chown(SHM / path.name, OWNER, GROUP)
        os.chmod(SHM / path.name, 0o606)
        os.fchown(queue.descriptor, OWNER, GROUP)
        os.fchmod(queue.descriptor, 0o606)
        for each in path, other:
            result = yield as_member(scene, lambda: os.close(os.open(each, os.O_RDWR)))
            assert isinstance(result, PermissionError) or isinstance(result, OSError) and scene.failed(result)


@operation
def queue_beyond_the_callers_limit(scene):
    path = scene.mnt / 'mq' / scene.name('mq')

    def make():
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT))
    result = yield lambda: scene.child(make, user=MEMBER).result()
    made = native.exists('mq', path.name)
    native.discard(native.mq_unlink, path.name)
    assert (result.errno == errno.EMFILE or scene.failed(result)) and not made


# The faults

class Run:
    """One round of an operation, whose steps are done one after the other, all or one of them under the fault."""

    def __init__(self, scene, name):
        self.steps = OPERATIONS[name](scene)

    def do(self, under_fault):
        """How many steps there were."""
        count, result, send = 0, None, lambda _: next(self.steps)
        with contextlib.suppress(StopIteration):
            while True:
                step = send(result)
                result = under_fault(count, step)
                send = self.steps.send
                count += 1
        return count


@pytest.fixture(scope='module', autouse=True)
def interruption():
    """SIGUSR1 interrupts and does no more."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def scene(names, child):
    return lambda mounted: Scene(mounted, names, child)


def run_plainly(scene, name):
    scene.errors = set()
    return Run(scene, name).do(lambda _, step: outcome(step))


class Allocations:
    """The daemon's, of which one can be made to fail."""

    def __init__(self, path):
        with open(path, 'r+b') as file:
            self.memory = mmap.mmap(file.fileno(), 4096)

    def field(self, number, value=None):
        if value is not None:
            struct.pack_into('q', self.memory, 8 * number, value)
        return struct.unpack_from('q', self.memory, 8 * number)[0]

    def arm(self, number, not_libfuse):
        self.field(3, int(not_libfuse))
        self.field(1, 0)
        self.field(0, number)

    def disarm(self):
        """Whether it failed."""
        self.field(0, 0)
        return self.field(1) > 0

    @property
    def live(self):
        return self.field(2)

    @property
    def last(self):
        address, = struct.unpack_from('Q', self.memory, 32)
        return f'{self.memory[40:264].rstrip(bytes(1)).decode()}+{address:#x}'


@pytest.fixture(scope='session')
def preloaded(tmp_path_factory):
    library = tmp_path_factory.mktemp('preload') / 'allocations.so'
    subprocess.run(['cc', '-std=gnu11', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', library,
                    TESTS / 'preload' / 'allocations.c', '-ldl'], check=True)
    return library


@pytest.fixture
def allocations(tmp_path):
    path = tmp_path / 'allocations'
    path.write_bytes(bytes(4096))
    return Allocations(path)


@pytest.fixture
def fragile(mount, preloaded, allocations, tmp_path, monkeypatch):
    """fragile(*options) is a mount whose allocations can be made to fail."""
    def start(*options):
        with monkeypatch.context() as environment:
            environment.setenv('LD_PRELOAD', str(preloaded))
            environment.setenv('IPCFS_ALLOCATIONS', str(tmp_path / 'allocations'))
            environment.setenv('ASAN_OPTIONS', f'{os.environ.get("ASAN_OPTIONS", "")}:detect_leaks=0:verify_asan_link_order=0')
            mounted = mount(*options)
        assert allocations.live > 0
        return mounted
    return start


def descriptors(mounted):
    return {int(fd) for fd in os.listdir(f'/proc/{mounted.process.pid}/fd')}


def settled(measure, limit):
    """Whether a count that may still be falling comes down to the limit."""
    with contextlib.suppress(pytest.fail.Exception):
        return eventually(lambda: measure() <= limit, patience=2) or True
    return False


@pytest.mark.stderr('')
@pytest.mark.parametrize('name', OPERATIONS)
def test_each_allocation_in_turn_fails(fragile, allocations, scene, name):
    """Whichever it is, also one of libfuse's own: ENOMEM for the one operation, or it works; and then it works again.

    What the daemon itself failed to get leaves no memory and no descriptor behind, however often.
    """
    mounted = fragile()
    scene = scene(mounted)
    for _ in range(3):
        steps = run_plainly(scene, name)
    pid = mounted.process.pid

    def fail(number, step, not_libfuse):
        """One round in which that allocation of that step fails. Whether there was one."""
        failed = []

        def under_fault(count, function):
            if count != step:
                return outcome(function)
            allocations.arm(number, not_libfuse)
            result = outcome(function)
            failed.append(allocations.disarm())
            return result
        scene.errors = {errno.ENOMEM}
        try:
            Run(scene, name).do(under_fault)
        except (AssertionError, OSError) as failure:
            pytest.fail(f'after allocation {number} of step {step} failed, {allocations.last}: {failure}; the daemon, status '
                        f'{mounted.process.poll()}, said: {"; ".join(mounted.stderr.read_text().splitlines()[-3:])}')
        return any(failed)

    for step in range(steps):
        for not_libfuse in True, False:
            number = 1
            while fail(number, step, not_libfuse):
                run_plainly(scene, name)
                assert (mounted.process.pid, mounted.process.poll()) == (pid, None)
                number += 1
                if number > 60:  # a folder of others' objects, too
                    break
            if not_libfuse and name not in OTHERS:
                check_for_leaks(lambda chosen: fail(chosen, step, True), number, mounted, allocations, name)
    assert steps > 0


def check_for_leaks(fail, end, mounted, allocations, name):
    """Rounds in which each of these fails, until they leave nothing more behind than the rounds before."""
    def grown(numbers):
        blocks, files = allocations.live, len(descriptors(mounted))
        for number in numbers:
            for _ in range(REPEATS):
                fail(number)
        limit = REPEATS - 1
        return not (settled(lambda: allocations.live, blocks + limit) and
                    settled(lambda: len(descriptors(mounted)), files + limit))
    everything = range(1, end)
    if grown(everything) and grown(everything):
        leaks = [f'{number}: {allocations.last}' for number in everything if grown([number]) and grown([number])]
        pytest.fail(f'{name} leaks when these allocations fail: {leaks}')


def leave(mounted, count):
    """Let the daemon open that many more descriptors."""
    used = descriptors(mounted)
    limit = 0
    while count or limit in used:
        count -= limit not in used
        limit += 1
    resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE, (limit, hard_limit(mounted)))


def hard_limit(mounted):
    return resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize('name', OPERATIONS)
def test_each_descriptor_in_turn_is_one_too_many(mount, scene, name):
    """EMFILE for the one operation, or it works; and then it works again, and none is left open."""
    mounted = mount()
    scene = scene(mounted)
    for _ in range(2):
        steps = run_plainly(scene, name)
    before = len(descriptors(mounted))
    for step in range(steps):
        for count in range(7):
            def under_fault(number, function):
                if number != step:
                    return outcome(function)
                leave(mounted, count)
                try:
                    return outcome(function)
                finally:
                    resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE, (hard_limit(mounted),) * 2)
            scene.errors = {errno.EMFILE}
            Run(scene, name).do(under_fault)
            run_plainly(scene, name)
            assert mounted.process.poll() is None
    eventually(lambda: len(descriptors(mounted)) <= before)




def test_first_lock_wait_to_be_interrupted_finds_no_descriptor(mount, names):
    """Which libc wants then, to load what cancelling a thread takes: the daemon lives on, and the wait ends."""
    mounted = mount()
    name = names()
    (SHM / name).write_bytes(b'content')
    with opened(mounted.path / 'shm' / name) as fd, opened(SHM / name) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sleeper = Sleeper(flock_once, fd).settle()
        leave(mounted, 0)
        signal.pthread_kill(sleeper.ident, signal.SIGUSR1)
        sleeper.join(2)
        resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE, (hard_limit(mounted),) * 2)
        assert mounted.process.poll() is None
        assert isinstance(sleeper.end(), InterruptedError)


def serves(point):
    try:
        return {'sem', 'shm', 'mq'} <= set(os.listdir(point)) and os.listdir(point / 'sem') is not None
    except OSError:
        return False


@pytest.mark.stderr('')
@pytest.mark.parametrize('folder, wrote, read', [
    ('sem', b'\n', b'1\n'),
    ('mq', b'a message', b'a message'),
    ('mq@text', b'a line\n', b'a line\n'),
    ('mq@priority', b'7 a message', b'7 a message'),
    ('mq@stream', b'a message', b'a message'),
    ('mq@text,stream', b'a line\n', b'a line\n'),
    ('mq@nonblock', b'a message', b'a message'),
])
def test_what_need_not_wait_takes_no_memory(fragile, allocations, name, folder, wrote, read):
    """A write and a read of an open file, the first of which may have made a place for what is read."""
    root = fragile().path
    path = root / ('sem' if folder == 'sem' else 'mq@max_messages=10,max_message_size=64') / name
    path.touch()
    fd = os.open(root / folder / name, os.O_RDWR)
    try:
        for round in range(3):
            if round:
                allocations.arm(1, False)
            assert os.write(fd, wrote) == len(wrote)
            if 'stream' in folder:
                assert os.read(fd, 2) + os.read(fd, 64) == read  # the second gives the rest
            else:
                assert os.pread(fd, 64, 0) == read
                assert (os.pread(fd, 64, 1), os.pread(fd, 64, len(read))) == (read[1:], b'')
            assert not allocations.disarm(), allocations.last
    finally:
        os.close(fd)


def test_each_allocation_of_the_start_in_turn_fails(preloaded, allocations, tmp_path):
    """The daemon serves, or ends with a message and status 1 or 2 and leaves no mount behind."""
    point = tmp_path / 'ipc'
    point.mkdir()
    environment = {**os.environ, 'LD_PRELOAD': str(preloaded), 'IPCFS_ALLOCATIONS': str(tmp_path / 'allocations'),
                   'ASAN_OPTIONS': f'{os.environ.get("ASAN_OPTIONS", "")}:detect_leaks=0:verify_asan_link_order=0'}
    command = [BUILD / 'ipcfs', '-f', '-o', 'noexec', point]
    number = unharmed = 0
    wrong = []
    while unharmed < 5 and number < 120:  # more are of the first requests
        number += 1
        allocations.arm(number, False)
        daemon = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            if not settled(lambda: daemon.poll() is None and not serves(point), 0):
                wrong.append((number, allocations.last, 'neither serves nor ends'))
                continue
            unharmed = 0 if allocations.disarm() else unharmed + 1
            served = daemon.returncode is None
            if served:
                subprocess.run(['umount', point], check=True)
            message, status = daemon.communicate(timeout=PATIENCE)[1], daemon.returncode
            if status != 0 if served else status not in (1, 2) or 'ipcfs: ' not in message:  # libfuse may have its say first
                wrong.append((number, allocations.last, status, message))
            if str(point) in mount_points():
                wrong.append((number, allocations.last, 'a mount is left'))
        finally:
            daemon.kill()
            daemon.communicate() if daemon.stderr and not daemon.stderr.closed else daemon.wait()
            if str(point) in mount_points():
                subprocess.run(['umount', '-l', point])
    assert not wrong, '\n'.join(map(str, wrong))

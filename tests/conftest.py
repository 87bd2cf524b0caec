"""Mounts, names, children: what every test here stands on.

IPCFS_BUILD names the build directory (build/). IPCFS_TEST_OPTIONS are options of every mount, after -o: with
no_passthrough the suite passes too, and each test that needs mmap(MAP_SHARED) then tests that it is refused.
"""

import contextlib
import errno
import faulthandler
import itertools
import mmap
import os
import pathlib
import pickle
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback

import pytest

import native

TESTS = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get('IPCFS_BUILD', TESTS.parent / 'build')).absolute()
OPTIONS = os.environ.get('IPCFS_TEST_OPTIONS', '')
PREFIX = f'ipcfs-{os.getpid()}-'

KERNEL = tuple(int(number) for number in re.findall(r'\d+', os.uname().release)[:2])
PASSTHROUGH = 'no_passthrough' not in OPTIONS.split(',') and KERNEL >= (6, 9)

SEGMENT_SIZE = 65536
NOBODY = 65534      # has a name, as fusermount3 demands

PATIENCE = 60      # seconds until something that must happen has failed to; reached only by failures
TEST_LIMIT = 300   # seconds for one test


def pytest_configure(config):
    config.addinivalue_line('markers', 'stderr(pattern): lines that the daemon may write to stderr in this test')


def pytest_make_parametrize_id(val):
    """Long parameters would make long names, and PYTEST_CURRENT_TEST too long for exec."""
    if isinstance(val, (bytes, str)) and len(val) > 40:
        return f'{val[:10]!r} and so on, {len(val)} in all'
    return None


def eventually(condition, patience=PATIENCE):
    """What condition() returns once it is true; the failure of the test if that never comes."""
    end = time.monotonic() + patience
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            pytest.fail(f'still not true after {patience} s: {describe(condition)}', pytrace=True)
        time.sleep(0.005)


def describe(condition):
    code = getattr(condition, '__code__', None)
    return f'{code.co_filename}:{code.co_firstlineno}' if code else repr(condition)


@pytest.fixture(autouse=True)
def time_limit():
    """Ends a test that hangs."""
    def give_up(*_):
        pytest.fail(f'not finished after {TEST_LIMIT} s')
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def leavings():
    """What is there under this test run's names: objects, mounts, child processes."""
    found = {f'/dev/shm/{entry}' for entry in os.listdir('/dev/shm') if PREFIX in entry}
    found |= {f'queue {entry}' for entry in native.list_queues() if PREFIX in entry}
    found |= {f'mount {point}' for point in mount_points() if f'/{PREFIX}' in point}
    try:
        child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        found.add(f'dead child {child.si_pid}' if child else 'running child')
    except ChildProcessError:
        pass
    return found


@pytest.fixture(autouse=True)
def nothing_left(time_limit):
    """No object, process or mount that a test made stays behind."""
    before = leavings()
    yield
    left = leavings() - before
    assert not left


# Objects

counter = itertools.count()


def discard_objects(name):
    """Remove every object whose name starts with this one, natively."""
    for entry in os.listdir('/dev/shm'):
        if entry.startswith((name, f'sem.{name}')):
            path = pathlib.Path('/dev/shm', entry)
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for entry in native.list_queues():
        if entry.startswith(name):
            native.discard(native.mq_unlink, entry)


@pytest.fixture
def names(nothing_left):
    """names() is a fresh object name. Objects so called, or called so with something appended, go at the end."""
    given = []

    def fresh():
        given.append(f'{PREFIX}{next(counter)}-')
        return given[-1]
    yield fresh
    for name in given:
        discard_objects(name)


@pytest.fixture
def name(names):
    return names()


# Processes

class Child:
    """A forked process that runs one function: its result() is what that returns, or raises."""

    def __init__(self, function, arguments, user=None, group=None, groups=()):
        self.pipe, report = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.run(report, function, arguments, user, group, groups)
        os.close(report)
        self.status = None

    @staticmethod
    def run(report, function, arguments, user, group, groups):
        try:
            faulthandler.disable()  # some end by SIGBUS on purpose
            for number in signal.SIGALRM, signal.SIGUSR1, signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
            if user is not None:
                os.setgroups(groups)
                os.setresgid(*[user if group is None else group] * 3)
                os.setresuid(*[user] * 3)
            native.die_with_parent()
            outcome = True, function(*arguments)
        except BaseException as error:  # pytest.fail() raises no Exception
            outcome = False, error if isinstance(error, Exception) else AssertionError(repr(error))
            if not isinstance(error, OSError):
                traceback.print_exc()
                sys.stderr.flush()
        try:
            with open(report, 'wb') as file:
                file.write(pickle.dumps(outcome))
        finally:
            os._exit(0)

    @property
    def finished(self):
        return bool(select.select([self.pipe], [], [], 0)[0])

    @property
    def asleep(self):
        """Whether it sleeps in a request to a mount, and has for a little while."""
        return not self.finished and asleep(self.pid)

    def result(self, patience=PATIENCE):
        data = b''
        end = time.monotonic() + patience
        while True:
            if not select.select([self.pipe], [], [], max(0, end - time.monotonic()))[0]:
                pytest.fail(f'the child has not finished after {patience} s; it sleeps in {sleeps_in(self.pid)}')
            part = os.read(self.pipe, 65536)
            if not part:
                break
            data += part
        status = self.wait()
        if not data:
            raise ChildProcessError(f'ended with status {status}')
        fine, outcome = pickle.loads(data)
        if fine:
            return outcome
        raise outcome

    def send_signal(self, number):
        if self.status is None:
            os.kill(self.pid, number)

    def kill(self, patience=PATIENCE):
        """SIGKILL, and wait for the end, which must come."""
        if self.status is None:
            self.send_signal(signal.SIGKILL)
            eventually(lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), patience)
            self.wait()

    def wait(self):
        """As subprocess: the exit status, or a signal's number below 0."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self.pipe)
        return self.status


def proc(pid, file, thread=None):
    try:
        return pathlib.Path(f'/proc/{pid}/task/{thread or pid}/{file}').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ''


def open_files(pid):
    """What a process has open. It may close some of it meanwhile."""
    links = []
    for fd in pathlib.Path(f'/proc/{pid}/fd').iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(fd))
    return links


def threads(pid):
    """In the order in which they were made."""
    first, *others = [int(thread) for thread in os.listdir(f'/proc/{pid}/task')]
    if b'__tsan_init' in (BUILD / 'ipcfs').read_bytes():
        del others[:1]  # ThreadSanitizer's own
    return [first, *others]


def sleeps_in(pid, thread=None):
    """The kernel function that a thread sleeps in."""
    return proc(pid, 'wchan', thread)


def asleep(pid, thread=None):
    """Whether a thread has slept in one and the same FUSE request for a little while."""
    def sleep():
        return sleeps_in(pid, thread) == 'request_wait_answer' and proc(pid, 'syscall', thread)
    first = sleep()
    if not first:
        return False
    time.sleep(0.01)
    return sleep() == first


def threads_asleep(pid):
    """How many threads of a process sleep in a FUSE request."""
    return sum(sleeps_in(pid, thread) == 'request_wait_answer' for thread in os.listdir(f'/proc/{pid}/task'))


def attribute(path, name):
    """An attribute of DESIGN section 7, a number; None from a daemon that does not have it."""
    try:
        return int(os.getxattr(path, f'user.ipcfs.{name}'))
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def parked(path, *children):
    """Whether these children's requests, and no others, wait at this object."""
    counts = [attribute(path, name) for name in ('waiting', 'waiting_receivers', 'waiting_senders')]
    known = [count for count in counts if count is not None]
    return all(child.asleep for child in children) and (not known or sum(known) == len(children))


@pytest.fixture
def children(names):
    """The registry behind `child`; its kill() ends them all."""
    class Children(list):
        def kill(self):
            for child in self:
                child.send_signal(signal.SIGKILL)
            while self:
                self.pop().kill()
    registry = Children()
    yield registry
    registry.kill()


@pytest.fixture
def child(children):
    """child(function, *arguments, user=, group=, groups=) runs it in a forked process, as another user if asked to."""
    def start(function, *arguments, **identity):
        children.append(Child(function, arguments, **identity))
        return children[-1]
    return start


class Peer(subprocess.Popen):
    """A native program of tests/peers, with text in and out."""

    def __init__(self, *command):
        super().__init__([os.fspath(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True, preexec_fn=self.prepare)

    @staticmethod
    def prepare():
        native.die_with_parent()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until it has a handler

    def finish(self, patience=PATIENCE):
        """Its output; the failure of the test unless it ends, with status 0."""
        output = self.communicate(timeout=patience)[0]
        assert self.returncode == 0
        return output

    def kill(self):
        super().kill()
        self.communicate(timeout=PATIENCE)


@pytest.fixture(scope='session')
def peers():
    """peers(name) compiles tests/peers/NAME.c when first asked, and returns the program."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='ipcfs-peers-'))

    def build(name):
        program = folder / name
        if not program.exists():
            subprocess.run(['cc', '-std=gnu11', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread', '-o', program,
                            TESTS / 'peers' / f'{name}.c'], check=True)
        return program
    yield build
    shutil.rmtree(folder)


@pytest.fixture
def peer(peers, children):
    """peer(name, *arguments) starts a program of tests/peers."""
    def start(name, *arguments):
        children.append(Peer(peers(name), *map(str, arguments)))
        return children[-1]
    return start


# Mounts

def mount_points():
    with open('/proc/self/mountinfo') as table:
        return [line.split()[4] for line in table]


class Mount:
    def __init__(self, options, user):
        if not (BUILD / 'ipcfs').exists():
            pytest.fail(f'no {BUILD}/ipcfs: build it (meson setup build && ninja -C build) or set IPCFS_BUILD',
                        pytrace=False)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir='/tmp'))
        self.folder.chmod(0o755)
        self.path = self.folder / 'ipc'
        self.path.mkdir()
        self.stderr = self.folder / 'stderr'
        self.maps = PASSTHROUGH and user is None and 'no_passthrough' not in ','.join(map(str, options)).split(',')
        self.command = [str(BUILD / 'ipcfs'), '-f', *(['-o', OPTIONS] if OPTIONS else []), *options, str(self.path)]
        if user is not None:
            os.chown(self.path, user, user)
            self.command[:0] = ['setpriv', f'--reuid={user}', f'--regid={user}', '--clear-groups']
        self.start()

    def start(self):
        """Mount, in the constructor or again."""
        with open(self.stderr, 'w') as stderr:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        eventually(lambda: self.mounted or self.process.poll() is not None)
        if not self.mounted:
            message, status = self.stderr.read_text(), self.process.wait()
            self.remove()
            pytest.fail(f'{" ".join(self.command)}: status {status}, {message}', pytrace=False)
        try:
            os.stat(self.path)
        except OSError as error:
            self.kill()
            message = self.stderr.read_text()
            self.remove()
            pytest.fail(f'{" ".join(self.command)}: {error}, {message}', pytrace=False)

    @property
    def mounted(self):
        return str(self.path) in mount_points()

    def close_files(self):
        """Close what this process has open on the mount, so that a test need not.

        The numbers stay in use, as objects that own them may close them again, and then another's file.
        """
        with open(os.devnull) as null:
            for fd in os.listdir('/proc/self/fd'):
                try:
                    if os.readlink(f'/proc/self/fd/{fd}').startswith(f'{self.path}/'):
                        os.dup2(null.fileno(), int(fd), inheritable=False)
                except OSError:
                    pass

    def stop(self):
        """Unmount, and wait for the daemon's status, which must be 0."""
        self.close_files()
        unmounting = lambda: subprocess.run(['umount', self.path], capture_output=True, text=True)
        eventually(lambda: unmounting().returncode == 0, patience=10)
        try:
            status = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # What unshares its mount namespace while this is mounted keeps a copy.
            holders = [pid for pid in os.listdir('/proc')
                       if pid.isdigit() and f' {self.path} ' in proc(pid, 'mountinfo')]
            pytest.fail(f'unmounted, but the daemon goes on; still mounted for the processes {holders}', pytrace=False)
        assert status == 0, self.stderr.read_text()

    def kill(self):
        """SIGKILL the daemon, and take the dead mount away."""
        self.process.kill()
        self.process.wait()
        subprocess.run(['umount', '-l', self.path], capture_output=True)
        eventually(lambda: not self.mounted)

    def complaints(self, allowed=()):
        # libfuse says so when an unmount comes while a request (a late release, say) is on its way to the daemon.
        allowed = [*allowed, 'reading device: Software caused connection abort$']
        lines = [line for line in self.stderr.read_text().splitlines()
                 if not any(re.search(pattern, line) for pattern in allowed)]
        if not self.maps and lines and 'mmap' in lines[0]:  # it says why, once
            del lines[0]
        return lines

    def remove(self):
        self.path.rmdir()
        self.stderr.unlink()
        self.folder.rmdir()


@pytest.fixture
def mount(request, names, children):
    """mount(*options, user=uid) starts a daemon in the foreground; see Mount."""
    mounts = []

    def start(*options, user=None):
        mounts.append(Mount(options, user))
        return mounts[-1]
    yield start
    children.kill()
    allowed = [pattern for mark in request.node.iter_markers('stderr') for pattern in mark.args]
    failures = []
    for mounted in reversed(mounts):
        try:
            if mounted.process.returncode is None:
                mounted.stop()
        except BaseException as failure:
            failures.append(failure)
        finally:
            if mounted.process.returncode is None or mounted.mounted:
                mounted.kill()
        failures += mounted.complaints(allowed)
        mounted.remove()
    if failures:
        pytest.fail('the daemon did not end well: ' + '\n'.join(map(str, failures)), pytrace=False)


@pytest.fixture
def mnt(mount):
    """The path of a fresh mount."""
    return mount().path


# mmap(MAP_SHARED) of shared memory

@pytest.fixture
def mappable(mount, names):
    """For each test of shared mappings. Whether mounts have them; if not, pytest_pyfunc_call stands in for the test."""
    return PASSTHROUGH


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if PASSTHROUGH or 'mappable' not in pyfuncitem.fixturenames:
        return None
    assert_unmappable(pyfuncitem.funcargs['mount']().path, pyfuncitem.funcargs['names']())
    return True


def assert_unmappable(mnt, name):
    """mmap(MAP_SHARED) is refused in this mount, however the file was opened, and `limits` says so."""
    assert 'SHARED_MEMORY_MMAP 0' in (mnt / 'limits').read_text().splitlines()
    native.CREATE['shm'](name)
    os.truncate(mnt / 'shm' / name, mmap.PAGESIZE)
    for flags, protection in ((os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE), (os.O_RDWR, mmap.PROT_READ),
                              (os.O_RDONLY, mmap.PROT_READ)):
        fd = os.open(mnt / 'shm' / name, flags)
        with pytest.raises(OSError) as failure:
            mmap.mmap(fd, mmap.PAGESIZE, prot=protection)
        os.close(fd)
        assert failure.value.errno == errno.ENODEV


@pytest.fixture
def segment(name):
    """The descriptor of a segment of 64 KiB for everybody, made natively."""
    fd = native.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.fchmod(fd, 0o666)
    os.ftruncate(fd, SEGMENT_SIZE)
    yield fd
    os.close(fd)


@pytest.fixture
def as_nobody(name, tmp_path):
    """Run a Python text as one who may mount: where /dev/fuse is for everyone, as on a desktop, which it is for that
    process alone. Its arguments are the daemon, an empty folder of its own, and an object's name."""
    folder = pathlib.Path(f'/tmp/{name}user')
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    script = f'''
        set -e
        mknod {tmp_path}/fuse c 10 229
        chmod 666 {tmp_path}/fuse
        mount --bind {tmp_path}/fuse /dev/fuse
        exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"
    '''

    def run(text):
        return folder, subprocess.run(
            ['unshare', '--mount', 'sh', '-c', script, 'sh', '/usr/bin/python3', '-c', textwrap.dedent(text),
             BUILD / 'ipcfs', folder, name], capture_output=True, text=True, timeout=PATIENCE)
    yield run
    folder.rmdir()

"""flock(2) and fcntl(2) locks: users of the mount and native users exclude each other, as native ones do."""

import ctypes
import errno
import fcntl
import multiprocessing.connection
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

import native
from conftest import PATIENCE, eventually, proc, sleeps_in
from test_users import OTHER

SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SIZE = 65536
USER = 54321


class flock(ctypes.Structure):
    _fields_ = [('type', ctypes.c_short), ('whence', ctypes.c_short), ('start', ctypes.c_long),
                ('length', ctypes.c_long), ('pid', ctypes.c_int)]


COMMANDS = {'posix': (fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW), 'ofd': (36, 37, 38)}  # F_OFD_GETLK and so on


# Processes that lock

def waits_for_lock(function):
    """Whether it is where the kernel waits for a lock: by FUSE, flock(2) or fcntl(2)."""
    return function == 'request_wait_answer' or 'lock' in function or 'setlk' in function


class Actions:
    """What a party does, in its own process. A file is a word."""

    def __init__(self, path):
        self.path, self.files = path, {}
        signal.signal(signal.SIGUSR1, lambda *_: None)

    def open(self, file='f', flags=os.O_RDWR, path=None):
        self.files[file] = os.open(path or self.path, flags)

    def dup(self, file, new):
        self.files[new] = os.dup(self.files[file])

    def close(self, file='f'):
        os.close(self.files.pop(file))

    def flock(self, operation, file='f'):
        native.call('flock', self.files[file], operation)
        return 'done'

    def lock(self, kind, what, start=0, length=0, file='f', wait=False, whence=os.SEEK_SET):
        """F_SETLK or F_SETLKW."""
        request = flock(what, whence, start, length, 0)
        native.call('fcntl', self.files[file], COMMANDS[kind][1 + wait], ctypes.byref(request))
        return 'done'

    def query(self, kind, what, start=0, length=0, file='f'):
        """F_GETLK: None, or what is in the way."""
        found = flock(what, os.SEEK_SET, start, length, 0)
        native.call('fcntl', self.files[file], COMMANDS[kind][0], ctypes.byref(found))
        return None if found.type == NONE else (found.type, found.start, found.length, found.pid)

    def in_thread(self, action, *arguments, **options):
        """Begins it in another thread of the process; `joined` is its result."""
        def run():
            try:
                self.result = getattr(self, action)(*arguments, **options)
            except OSError as error:
                self.result = errno.errorcode.get(error.errno, error.errno)
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def joined(self):
        self.thread.join()
        return self.result

    def thread_waits(self):
        """Whether that thread sleeps where locks are waited for, and has for a little while."""
        def sleep():
            where = sleeps_in(os.getpid(), self.thread.native_id)
            return waits_for_lock(where) and proc(os.getpid(), 'syscall', self.thread.native_id)
        first = sleep()
        time.sleep(0.01)
        return bool(first) and sleep() == first

    def seek(self, offset):
        os.lseek(self.files['f'], offset, os.SEEK_SET)

    def fork(self):
        """A child that only has the open files too."""
        self.fork = os.fork()
        if self.fork == 0:
            native.die_with_parent()
            while True:
                signal.pause()

    def end_fork(self):
        os.kill(self.fork, signal.SIGKILL)
        os.waitpid(self.fork, 0)

    def exit(self):
        os._exit(0)


class Party:
    """A process that has the segment open, natively or through a mount, and does what it is told.

    Calls of it are those of Actions: each returns its result, or the name of the errno. start() begins one that may
    wait, answer() is its result.
    """

    def __init__(self, child, path, flags=os.O_RDWR, **identity):
        self.channel, theirs = multiprocessing.Pipe()

        def act():
            self.channel.close()
            actions = Actions(path)
            while True:
                try:
                    action, arguments, options = theirs.recv()
                except EOFError:
                    return
                try:
                    result = getattr(actions, action)(*arguments, **options)
                except OSError as error:
                    result = errno.errorcode.get(error.errno, error.errno)
                theirs.send(result)
        self.path, self.child = path, child(act, **identity)
        theirs.close()
        assert self.open(flags=flags) is None

    @property
    def pid(self):
        return self.child.pid

    def start(self, action, *arguments, **options):
        self.channel.send((action, arguments, options))

    def answer(self):
        if not self.channel.poll(PATIENCE):
            pytest.fail(f'no answer; it sleeps in {sleeps_in(self.pid)}')
        return self.channel.recv()

    def __getattr__(self, action):
        if not hasattr(Actions, action):
            raise AttributeError(action)

        def act(*arguments, **options):
            self.start(action, *arguments, **options)
            return self.answer()
        return act

    @property
    def waits(self):
        """Whether it sleeps in the system call that locks, and has for a little while."""
        def sleep():
            return waits_for_lock(sleeps_in(self.pid)) and proc(self.pid, 'syscall')
        first = sleep()
        if not first or self.channel.poll():
            return False
        time.sleep(0.01)
        return sleep() == first and not self.channel.poll()

    def leave(self):
        """exit(2)"""
        self.start('exit')
        self.child.wait()

    def kill(self):
        self.child.kill()


@pytest.fixture
def places(mnt, name):
    """Where the segment is for each kind of user."""
    segment = native.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.fchmod(segment, 0o666)
    os.ftruncate(segment, SIZE)
    os.close(segment)
    return {'mount': mnt / 'shm' / name, 'native': pathlib.Path('/dev/shm', name)}


@pytest.fixture
def party(places, child):
    """party('mount') or party('native') has the segment open; party(path) another file."""
    def start(side, **options):
        return Party(child, places.get(side, side), **options)
    return start


SIDES = [('mount', 'mount'), ('mount', 'native'), ('native', 'mount')]
between = pytest.mark.parametrize('sides', SIDES, ids='-'.join)
KINDS = pytest.mark.parametrize('kind', ['flock', 'posix', 'ofd'])


def lock(party, kind, what, wait=False, **options):
    """The whole segment, by whatever kind of lock."""
    if kind == 'flock':
        return party.flock({READ: SH, WRITE: EX, NONE: UN}[what] | (0 if wait else NB), **options)
    return party.lock(kind, what, wait=wait, **options)


def start_lock(party, kind, what):
    if kind == 'flock':
        party.start('flock', {READ: SH, WRITE: EX}[what])
    else:
        party.start('lock', kind, what, wait=True)


def is_free(party, kind):
    """The whole segment can be had at once; and is let go of again."""
    got = lock(party, kind, WRITE) == 'done'
    return got and lock(party, kind, NONE) == 'done'


# As natively: each of these is done by two native processes and by two others, and every result must be the same.
# A lock that goes with a close() may go a moment later, so the next one waits there.

FLOCK = {
    'exclusive': lambda a, b: [
        a.flock(EX | NB), b.flock(EX | NB), b.flock(SH | NB), a.flock(UN), b.flock(EX | NB), a.flock(SH | NB)],
    'shared': lambda a, b: [
        a.flock(SH | NB), b.flock(SH | NB), a.flock(UN), a.flock(EX | NB), b.flock(UN), a.flock(EX | NB)],
    'again': lambda a, b: [
        a.flock(EX), a.flock(EX | NB), b.flock(SH | NB), a.flock(UN), b.flock(SH | NB), a.flock(UN)],
    'up': lambda a, b: [
        a.flock(SH), a.flock(EX | NB), b.flock(SH | NB)],
    'down': lambda a, b: [
        a.flock(EX), b.flock(SH | NB), a.flock(SH | NB), b.flock(SH | NB), b.flock(EX | NB)],
    'a conversion that fails loses what was had': lambda a, b: [
        a.flock(SH), b.flock(SH), a.flock(EX | NB), b.flock(EX | NB), a.flock(SH | NB)],
    'two opens of one process': lambda a, b: [
        a.open('g'), a.flock(EX | NB), a.flock(EX | NB, 'g'), a.flock(UN), a.flock(EX | NB, 'g'), b.flock(SH | NB)],
    'duplicates are one': lambda a, b: [
        a.dup('f', 'g'), a.flock(EX | NB), a.flock(SH | NB, 'g'), b.flock(SH | NB), b.flock(EX | NB), a.close('f'),
        b.flock(EX | NB), a.flock(UN, 'g'), b.flock(EX | NB)],
    'until the last duplicate is closed': lambda a, b: [
        a.flock(EX), a.dup('f', 'g'), a.close('f'), b.flock(EX | NB), a.close('g'), b.flock(EX)],
    'until the last process with it ends': lambda a, b: [
        a.flock(EX), a.fork(), a.close(), b.flock(EX | NB), a.end_fork(), b.flock(EX)],
    'of a file that is open to read': lambda a, b: [
        a.open('r', os.O_RDONLY), a.flock(EX | NB, 'r'), b.flock(SH | NB), a.flock(UN, 'r'), b.flock(EX | NB)],
    'of a file that is open to write': lambda a, b: [
        a.open('w', os.O_WRONLY), a.flock(SH | NB, 'w'), b.flock(EX | NB), a.flock(EX | NB, 'w'), b.flock(SH | NB)],
    'no such operation': lambda a, b: [a.flock(99), a.flock(SH | EX), a.flock(0), a.flock(UN), a.flock(UN | NB)],
    'beside the other kinds': lambda a, b: [
        a.flock(EX | NB), b.lock('posix', WRITE), b.lock('ofd', WRITE), a.flock(UN), a.lock('posix', WRITE)],
}

RANGES = {
    'exclusive': lambda a, b, k: [
        a.lock(k, WRITE, 10, 10), b.lock(k, WRITE, 10, 10), b.lock(k, READ, 19, 1), b.lock(k, WRITE, 0, 10),
        b.lock(k, WRITE, 20, 10), b.lock(k, WRITE, 0, 0), b.lock(k, WRITE, 0, 11), b.lock(k, WRITE, 19, 10)],
    'shared': lambda a, b, k: [
        a.lock(k, READ, 0, 10), b.lock(k, READ, 5, 10), a.lock(k, WRITE, 0, 5), a.lock(k, WRITE, 0, 6),
        b.lock(k, WRITE, 9, 1), b.lock(k, WRITE, 10, 5)],
    'to the end and past it': lambda a, b, k: [
        a.lock(k, WRITE, 100, 0), b.lock(k, WRITE, 2**40, 1), b.lock(k, WRITE, 0, 100), a.lock(k, NONE, 2**40, 5),
        b.lock(k, WRITE, 2**40, 5), b.lock(k, WRITE, 2**40 + 5, 1), b.lock(k, WRITE, 2**62, 0)],
    'cut in two': lambda a, b, k: [
        a.lock(k, WRITE, 0, 30), a.lock(k, NONE, 10, 10), b.lock(k, WRITE, 10, 10), b.lock(k, WRITE, 9, 1),
        b.lock(k, WRITE, 20, 1), a.lock(k, WRITE, 5, 10), a.lock(k, WRITE, 0, 10)],
    'joined': lambda a, b, k: [
        a.lock(k, WRITE, 0, 10), a.lock(k, WRITE, 20, 10), a.lock(k, WRITE, 10, 10), b.query(k, WRITE, 0, 0)[:3]],
    'converted in part': lambda a, b, k: [
        a.lock(k, WRITE, 0, 30), a.lock(k, READ, 10, 10), b.lock(k, READ, 10, 10), b.lock(k, READ, 9, 2),
        a.lock(k, WRITE, 10, 10), b.lock(k, NONE, 0, 0), a.lock(k, WRITE, 10, 10), b.lock(k, READ, 10, 1)],
    'a conversion that fails changes nothing': lambda a, b, k: [
        a.lock(k, READ, 0, 10), b.lock(k, READ, 0, 10), a.lock(k, WRITE, 0, 10), b.lock(k, WRITE, 0, 10),
        b.query(k, WRITE, 0, 10)[:3], a.query(k, WRITE, 0, 10)[:3]],
    'from where the file is, and from its end': lambda a, b, k: [
        a.seek(1000), a.lock(k, WRITE, -10, 10, whence=os.SEEK_CUR), b.query(k, WRITE, 0, 0)[:3],
        a.lock(k, WRITE, -10, 5, whence=os.SEEK_END), b.query(k, READ, 2000, 0)[:3],
        a.lock(k, WRITE, 100, -50), b.query(k, READ, 0, 200)[:3]],
    'impossible': lambda a, b, k: [
        a.lock(k, WRITE, -1, 5), a.lock(k, WRITE, 5, -10), a.lock(k, WRITE, 2**63 - 1, 2), a.lock(k, 77, 0, 5),
        a.lock(k, WRITE, 0, 5, whence=9), a.query(k, NONE, 0, 5), b.lock(k, WRITE)],
    'unlocked without having been locked': lambda a, b, k: [
        a.lock(k, WRITE, 0, 10), b.lock(k, NONE, 0, 10), b.lock(k, WRITE, 5, 1), a.lock(k, NONE, 0, 0),
        a.lock(k, NONE, 0, 0), b.lock(k, WRITE, 5, 1)],
    'needs the file open so': lambda a, b, k: [
        a.open('r', os.O_RDONLY), a.open('w', os.O_WRONLY), a.lock(k, WRITE, 0, 5, 'r'), a.lock(k, READ, 0, 5, 'w'),
        a.lock(k, READ, 0, 5, 'r'), b.lock(k, READ, 0, 5), b.lock(k, WRITE, 0, 5), a.lock(k, WRITE, 10, 5, 'w'),
        b.lock(k, READ, 10, 5), a.lock(k, NONE, 10, 5, 'w'), b.lock(k, WRITE, 10, 5)],
    'posix and ofd exclude each other': lambda a, b, k: [
        a.lock('posix', WRITE, 0, 10), b.lock('ofd', READ, 5, 10), b.lock('ofd', WRITE, 10, 10),
        a.lock('posix', READ, 15, 10), a.lock('ofd', WRITE, 0, 5), a.lock('posix', NONE), a.lock('ofd', WRITE, 0, 5),
        b.lock('posix', READ, 0, 5)],
    'a copy of the file is the same file': lambda a, b, k: [
        a.dup('f', 'g'), a.lock(k, WRITE, 0, 10), a.lock(k, READ, 0, 10, 'g'), b.lock(k, WRITE, 0, 10),
        b.lock(k, READ, 0, 10), b.lock(k, NONE), a.lock(k, NONE, 0, 10, 'g'), b.lock(k, WRITE, 0, 10)],
    'queries': lambda a, b, k: [
        a.query(k, WRITE), a.lock(k, READ, 5, 10), a.lock(k, WRITE, 100, 0), b.query(k, READ, 0, 50),
        b.query(k, WRITE, 0, 50)[:3], b.query(k, READ, 50, 100)[:3], b.query(k, READ, 2**50, 1)[:3],
        b.query(k, WRITE, 15, 85), a.query(k, WRITE, 0, 0), b.lock(k, READ, 7, 1), a.query(k, WRITE, 0, 0)[:3]],
}

POSIX = {
    'a process has its locks by all its files': lambda a, b: [
        a.open('g'), a.lock('posix', WRITE, 0, 10), a.lock('posix', READ, 0, 10, 'g'), b.lock('posix', WRITE, 0, 10),
        a.lock('posix', NONE, 0, 10, 'g'), b.lock('posix', WRITE, 0, 10)],
    'any close gives up all': lambda a, b: [
        a.open('g'), a.lock('posix', WRITE, 0, 10), a.lock('posix', WRITE, 50, 10, 'g'), a.close('g'),
        b.lock('posix', WRITE, 0, 10), b.lock('posix', WRITE, 50, 10)],
    'the close of a copy too': lambda a, b: [
        a.dup('f', 'g'), a.lock('posix', WRITE, 0, 10), a.close('g'), b.lock('posix', WRITE, 0, 10)],
    'and of one that was open to read': lambda a, b: [
        a.lock('posix', WRITE, 0, 10), a.open('r', os.O_RDONLY), a.close('r'), b.lock('posix', WRITE, 0, 10)],
    "not another process's": lambda a, b: [
        a.lock('posix', WRITE, 0, 10), b.open('g'), b.close('g'), b.lock('posix', WRITE, 0, 10),
        a.lock('posix', NONE), b.lock('posix', WRITE, 0, 10), a.close(), a.open(), a.lock('posix', READ, 0, 1)],
    'a fork has none': lambda a, b: [
        a.lock('posix', WRITE, 0, 10), a.fork(), b.lock('posix', WRITE, 0, 10), a.end_fork(),
        b.lock('posix', WRITE, 0, 10), a.lock('posix', NONE), b.lock('posix', WRITE, 0, 10)],
    'a fork keeps none': lambda a, b: [
        a.lock('posix', WRITE, 0, 10), a.fork(), a.close(), b.lock('posix', WRITE, 0, 10), a.end_fork()],
}

OFD = {
    'each open file has its own': lambda a, b: [
        a.open('g'), a.lock('ofd', WRITE, 0, 10), a.lock('ofd', WRITE, 0, 10, 'g'), a.lock('ofd', NONE, 0, 10, 'g'),
        b.lock('ofd', WRITE, 0, 10), a.lock('ofd', NONE), a.lock('ofd', WRITE, 0, 10, 'g'), b.lock('ofd', READ, 0, 1)],
    'the close of another file leaves them': lambda a, b: [
        a.open('g'), a.lock('ofd', WRITE, 0, 10), a.close('g'), b.lock('ofd', WRITE, 0, 10), a.close(),
        b.lock('ofd', WRITE, 0, 10, wait=True)],
    'a copy keeps them': lambda a, b: [
        a.lock('ofd', WRITE, 0, 10), a.dup('f', 'g'), a.close(), b.lock('ofd', WRITE, 0, 10), a.close('g'),
        b.lock('ofd', WRITE, 0, 10, wait=True)],
    'a fork keeps them': lambda a, b: [
        a.lock('ofd', WRITE, 0, 10), a.fork(), a.close(), b.lock('ofd', WRITE, 0, 10), a.end_fork(),
        b.lock('ofd', WRITE, 0, 10, wait=True)],
    'a close gives up its posix locks only': lambda a, b: [
        a.open('g'), a.lock('ofd', WRITE, 0, 10), a.lock('posix', WRITE, 20, 10), a.close('g'),
        b.lock('ofd', WRITE, 20, 10), b.lock('ofd', WRITE, 0, 10)],
}


@pytest.fixture
def play(party, names, mnt, places):
    """play(scenario) has it done by two native processes, and by those of SIDES, and compares."""
    def run(scenario, *arguments):
        results = {}
        for sides in ('native', 'native'), *SIDES:
            fresh = names()
            folder = {'native': pathlib.Path('/dev/shm'), 'mount': mnt / 'shm'}
            (folder['native'] / fresh).write_bytes(bytes(SIZE))
            a, b = (party(folder[side] / fresh) for side in sides)
            results[sides] = scenario(a, b, *arguments)
            a.leave()
            b.leave()
        natively = results['native', 'native']
        assert 'done' in natively
        assert results == dict.fromkeys(results, natively)
    return run


@pytest.mark.parametrize('scenario', FLOCK.values(), ids=FLOCK)
def test_flock_is_as_natively(play, scenario):
    play(scenario)


@pytest.mark.parametrize('kind', COMMANDS)
@pytest.mark.parametrize('scenario', RANGES.values(), ids=RANGES)
def test_ranges_are_as_natively(play, scenario, kind):
    play(scenario, kind)


@pytest.mark.parametrize('scenario', POSIX.values(), ids=POSIX)
def test_locks_of_processes_are_as_natively(play, scenario):
    play(scenario)


@pytest.mark.parametrize('scenario', OFD.values(), ids=OFD)
def test_locks_of_open_files_are_as_natively(play, scenario):
    play(scenario)


# Who holds it

def test_query_names_the_process_that_holds_it(party):
    """Where it uses the mount too, or has a process's lock natively. To F_OFD_GETLK the kernel never tells of FUSE."""
    asks = party('mount')
    for holder in party('mount'), party('native'):
        holder.lock('posix', WRITE, 10, 20)
        assert asks.query('posix', READ, 15, 100) == (WRITE, 10, 20, holder.pid)
        assert asks.query('ofd', READ, 15, 100) == (WRITE, 10, 20, -1)
        holder.lock('posix', NONE)


def test_native_query_tells_what_is_locked_through_the_mount(mnt, party):
    """But the process behind it only as "not a process's lock of here" (-1)."""
    holder, asks = party('mount'), party('native')
    for kind in COMMANDS:
        holder.lock(kind, READ, 10, 20)
        assert asks.query('posix', WRITE, 0, 0) == (READ, 10, 20, -1)
        holder.lock(kind, NONE)
        assert asks.query('posix', WRITE, 0, 0) is None


def test_query_tells_the_nearer_of_two_holders(party):
    a, b, asks = party('mount'), party('mount'), party('mount')
    a.lock('posix', WRITE, 100, 10)
    b.lock('posix', READ, 200, 10)
    assert asks.query('posix', WRITE, 150, 0) == (READ, 200, 10, b.pid)
    assert asks.query('posix', WRITE, 100, 5) == (WRITE, 100, 10, a.pid)
    assert asks.query('posix', READ, 150, 0) is None
    a.lock('posix', NONE)
    assert asks.query('posix', WRITE, 0, 0) == (READ, 200, 10, b.pid)


# When a lock ends

@KINDS
@between
@pytest.mark.parametrize('end', ['unlock', 'close', 'exit', 'SIGKILL'])
def test_waiting_lock_is_granted_when_the_holder_lets_go(party, sides, kind, end):
    holder, waiter = map(party, sides)
    lock(holder, kind, WRITE)
    start_lock(waiter, kind, WRITE)
    eventually(lambda: waiter.waits)
    endings = {'unlock': lambda: lock(holder, kind, NONE), 'close': holder.close, 'exit': holder.leave,
               'SIGKILL': holder.kill}
    endings[end]()
    assert waiter.answer() == 'done'
    for side in sides:
        assert lock(party(side), kind, READ) == 'EAGAIN'  # the waiter has it now


@KINDS
@between
def test_waiting_readers_are_granted_together(party, sides, kind):
    """When an exclusive lock is converted down or ends; a writer waits on for all of them."""
    holder = party(sides[0])
    lock(holder, kind, WRITE)
    readers = [party(sides[1]) for _ in range(3)]
    for reader in readers:
        start_lock(reader, kind, READ)
    eventually(lambda: all(reader.waits for reader in readers))
    assert lock(holder, kind, READ, wait=True) == 'done'
    assert [reader.answer() for reader in readers] == ['done'] * 3
    writer = party(sides[1])
    start_lock(writer, kind, WRITE)
    for ending in holder, *readers:
        eventually(lambda: writer.waits)
        lock(ending, kind, NONE)
    assert writer.answer() == 'done'


@pytest.mark.parametrize('kind', COMMANDS)
@between
def test_waiting_for_a_range_takes_no_more_than_that_range(party, sides, kind):
    """It is granted when that much is free, whatever else the holder keeps."""
    holder, waiter = map(party, sides)
    holder.lock(kind, WRITE, 0, 100)
    waiter.start('lock', kind, WRITE, 40, 20, wait=True)
    for start, length in ((0, 40), (60, 40), (40, 10)):
        eventually(lambda: waiter.waits)
        holder.lock(kind, NONE, start, length)
        holder.lock(kind, WRITE, 90, 10)
    eventually(lambda: waiter.waits)
    holder.lock(kind, NONE, 50, 10)
    assert waiter.answer() == 'done'
    assert holder.query(kind, READ, 0, 0)[:3] == (WRITE, 40, 20)


@KINDS
@pytest.mark.parametrize('side', ['mount', 'native'])
def test_locks_end_with_the_process(party, side, kind):
    """Killed, with several of them, on several descriptors."""
    holder, after = party('mount'), party(side)
    holder.open('g')
    holder.dup('g', 'h')
    lock(holder, kind, WRITE, file='g')
    assert lock(after, kind, READ) == 'EAGAIN'
    holder.kill()
    assert lock(after, kind, WRITE, wait=True) == 'done'


@KINDS
def test_locks_end_with_the_daemon(mount, name, party, places, kind):
    """Its users have lost the mount, and hold up nobody."""
    mounted = mount()
    holder, after = party(mounted.path / 'shm' / name), party('native')
    lock(holder, kind, WRITE)
    assert lock(after, kind, READ) == 'EAGAIN'
    mounted.kill()
    assert lock(after, kind, WRITE, wait=True) == 'done'


@pytest.mark.parametrize('kind', COMMANDS)
@between
def test_close_of_another_file_while_the_process_waits(party, sides, kind):
    """Its posix locks go, and the wait, in another thread, goes on and is granted."""
    holder, waiter = map(party, sides)
    waiter.open('g')
    assert waiter.lock('posix', WRITE, 100, 10) == 'done'
    holder.lock('ofd', WRITE, 0, 10)
    waiter.in_thread('lock', kind, WRITE, 0, 10, wait=True)
    eventually(waiter.thread_waits)
    waiter.close('g')
    assert holder.lock('ofd', WRITE, 100, 10) == 'done'
    assert waiter.thread_waits()
    holder.lock('ofd', NONE)
    assert waiter.joined() == 'done'
    assert holder.lock('ofd', READ, 0, 10) == 'EAGAIN'
    waiter.close('f')
    assert holder.lock('ofd', READ, 0, 10, wait=True) == 'done'


@KINDS
@between
def test_close_of_the_file_whose_lock_is_waited_for(party, sides, kind):
    """A thread closes it under the other's wait: EBADF for a process's lock; and any lock is free in the end."""
    holder, waiter = map(party, sides)
    lock(holder, kind, WRITE)
    if kind == 'flock':
        waiter.in_thread('flock', EX)
    else:
        waiter.in_thread('lock', kind, WRITE, wait=True)
    eventually(waiter.thread_waits)
    waiter.close()
    lock(holder, kind, NONE)
    assert waiter.joined() == ('EBADF' if kind == 'posix' else 'done')
    assert lock(holder, kind, WRITE, wait=True) == 'done'


@between
def test_two_that_convert_up_at_once_do_not_lock_each_other_out(party, sides):
    """flock lets go before it waits, so that one of them goes first, and then the other."""
    both = [party(side) for side in sides]
    for each in both:
        each.flock(SH)
    both[0].start('flock', EX)
    eventually(lambda: both[0].waits)
    both[1].start('flock', EX)
    first = eventually(lambda: next((each for each in both if each.channel.poll()), None))
    assert first.answer() == 'done'
    second, = (each for each in both if each is not first)
    eventually(lambda: second.waits)
    first.flock(UN)
    assert second.answer() == 'done'


# Waiting is interruptible

@KINDS
@between
def test_signal_interrupts_a_waiting_lock(party, sides, kind):
    """EINTR, with nothing had; and the same process can wait again and get it."""
    holder, waiter = map(party, sides)
    lock(holder, kind, WRITE)
    for _ in range(3):
        start_lock(waiter, kind, WRITE)
        eventually(lambda: waiter.waits)
        waiter.child.send_signal(signal.SIGUSR1)
        assert waiter.answer() == 'EINTR'
    lock(holder, kind, NONE)
    for side in sides:
        assert is_free(party(side), kind)
    assert lock(waiter, kind, WRITE) == 'done'


@KINDS
@between
def test_interrupted_conversion_keeps_what_natively_is_kept(party, places, names, mnt, sides, kind):
    """Of a shared lock while another has one: fcntl keeps it, flock may have lost it; and no more is had."""
    def convert(a, b):
        lock(a, kind, READ)
        lock(b, kind, READ)
        start_lock(b, kind, WRITE)
        eventually(lambda: b.waits)
        b.child.send_signal(signal.SIGUSR1)
        results = [b.answer(), lock(a, kind, READ)]
        results.append(lock(a, kind, WRITE))  # done, if b has none now
        return results
    results = []
    for pair in ('native', 'native'), sides:
        path = names()
        pathlib.Path('/dev/shm', path).write_bytes(b'x')
        results.append(convert(*(party((mnt / 'shm' if side == 'mount' else pathlib.Path('/dev/shm')) / path)
                                 for side in pair)))
    assert results[1] == results[0]


@KINDS
@between
def test_killed_waiter_leaves_nothing_behind(party, sides, kind):
    """SIGKILL ends the wait at once, while the holder holds on; the next in line gets the lock, and then it is free."""
    holder = party(sides[0])
    lock(holder, kind, WRITE)
    first, second = party(sides[1]), party(sides[1])
    for waiter in first, second:
        start_lock(waiter, kind, WRITE)
        eventually(lambda: waiter.waits)
    first.kill()
    assert second.waits
    lock(holder, kind, NONE)
    assert second.answer() == 'done'
    assert lock(holder, kind, READ) == 'EAGAIN'
    second.kill()
    eventually(lambda: is_free(holder, kind))
    assert is_free(party('native'), kind) and is_free(party('mount'), kind)


@KINDS
@pytest.mark.parametrize('end', ['SIGKILL', 'EINTR'])
@between
def test_waiter_that_goes_just_as_it_is_granted_leaks_nothing(party, sides, kind, end):
    """Holder and waiter race, again and again; whoever wins, the lock is free or had by who says so."""
    holder, after = party(sides[0]), party(sides[1])
    for _ in range(10):
        waiter = party(sides[1])
        assert lock(holder, kind, WRITE, wait=True) == 'done'
        start_lock(waiter, kind, WRITE)
        eventually(lambda: waiter.waits)
        holder.start(*(('flock', UN) if kind == 'flock' else ('lock', kind, NONE)))
        waiter.child.send_signal(signal.SIGKILL if end == 'SIGKILL' else signal.SIGUSR1)
        holder.answer()
        if end == 'SIGKILL':
            waiter.kill()
        else:
            result = waiter.answer()
            assert result in ('done', 'EINTR')
            assert lock(after, kind, READ) == ('EAGAIN' if result == 'done' else 'done')
            lock(waiter, kind, NONE)
            lock(after, kind, NONE)
            waiter.leave()
        assert lock(after, kind, WRITE, wait=True) == 'done'
        lock(after, kind, NONE)


def test_daemon_that_is_ended_ends_the_waits(mount, name, party, places):
    """SIGTERM: waits fail, for holders of both kinds, and it exits as ever."""
    mounted = mount()
    path = mounted.path / 'shm' / name
    outside, inside, *waiters = party('native'), *(party(path) for _ in range(5))
    outside.lock('posix', WRITE, 0, 10)
    outside.flock(SH)
    inside.lock('posix', WRITE, 10, 10)
    inside.flock(SH)
    waiters[0].start('lock', 'posix', WRITE, 0, 10, wait=True)
    waiters[1].start('lock', 'ofd', WRITE, 10, 10, wait=True)
    waiters[2].start('flock', EX)
    waiters[3].start('lock', 'posix', READ, 5, 10, wait=True)
    for waiter in waiters:
        eventually(lambda: waiter.waits)
    mounted.process.terminate()
    assert mounted.process.wait(PATIENCE) == 0
    assert {waiter.answer() for waiter in waiters} <= {'ENOTCONN', 'ECONNABORTED'}


# Many

def threads(mounted):
    return len(os.listdir(f'/proc/{mounted.process.pid}/task'))


def descriptors(mounted):
    return len(os.listdir(f'/proc/{mounted.process.pid}/fd'))


@KINDS
@pytest.mark.parametrize('holder', ['mount', 'native'])
def test_fifty_waiters_are_not_fifty_threads(mount, name, places, party, holder, kind):
    """Each gets the lock in the end, and the daemon serves others meanwhile."""
    mounted = mount()
    path = mounted.path / 'shm' / name
    holds = party(path if holder == 'mount' else 'native')
    lock(holds, kind, WRITE)
    before = threads(mounted), descriptors(mounted)
    waiters = [party(path) for _ in range(50)]
    for waiter in waiters:
        start_lock(waiter, kind, WRITE)
    eventually(lambda: all(waiter.waits for waiter in waiters))
    assert threads(mounted) <= before[0] + 10
    assert path.stat().st_size == SIZE and path.read_bytes() == bytes(SIZE)
    for waiter in waiters[:10]:
        waiter.kill()
    lock(holds, kind, NONE)
    left = {waiter.channel: waiter for waiter in waiters[10:]}
    while left:
        ready = multiprocessing.connection.wait(left, PATIENCE)
        assert len(ready) == 1  # one at a time
        waiter = left.pop(ready[0])
        assert waiter.answer() == 'done'
        assert lock(holds, kind, READ) == 'EAGAIN'
        waiter.leave()
    assert lock(holds, kind, WRITE, wait=True) == 'done'
    eventually(lambda: threads(mounted) <= before[0] + 2 and descriptors(mounted) <= before[1] + 2)


@pytest.mark.parametrize('kind', COMMANDS)
@pytest.mark.parametrize('holder', ['mount', 'native'])
def test_fifty_waiters_for_ranges_of_their_own(mount, name, places, party, holder, kind):
    """Each for another byte of what one holds; given free one by one, and to that one. Behind a native holder each
    range takes a thread of the daemon, which ends with the wait."""
    mounted = mount()
    path = mounted.path / 'shm' / name
    holds = party(path if holder == 'mount' else 'native')
    holds.lock(kind, WRITE)
    before = threads(mounted)
    waiters = [party(path) for _ in range(50)]
    for number, waiter in enumerate(waiters):
        waiter.start('lock', kind, WRITE, number, 1, wait=True)
    eventually(lambda: all(waiter.waits for waiter in waiters))
    during = threads(mounted)
    for number in reversed(range(50)):
        holds.lock(kind, NONE, number, 1)
        assert waiters[number].answer() == 'done'
        assert not number or waiters[number - 1].channel.poll() is False
    assert during <= before + (10 if holder == 'mount' else 50 + 10)
    eventually(lambda: threads(mounted) <= before + 2)


@KINDS
def test_mutual_exclusion_of_many(party, places, child, kind):
    """Processes of both sides count up a number in the segment, by reading, adding and writing under the lock."""
    def count(path):
        fd = os.open(path, os.O_RDWR)
        for _ in range(100):
            if kind == 'flock':
                fcntl.flock(fd, EX)
            else:
                native.call('fcntl', fd, COMMANDS[kind][2], ctypes.byref(flock(WRITE, 0, 0, 8, 0)))
            number = int.from_bytes(os.pread(fd, 8, 0), 'little')
            os.pwrite(fd, (number + 1).to_bytes(8, 'little'), 0)
            if kind == 'flock':
                fcntl.flock(fd, UN)
            else:
                native.call('fcntl', fd, COMMANDS[kind][1], ctypes.byref(flock(NONE, 0, 0, 8, 0)))
    counting = [child(count, places[side]) for side in ('mount', 'native') * 3]
    for each in counting:
        each.result()
    assert int.from_bytes(places['native'].read_bytes()[:8], 'little') == 600


def test_nothing_is_left_of_hundreds_of_locks(mount, name, places, party):
    """Locked, converted, cut in pieces, closed, killed: the daemon has no more open than before."""
    mounted = mount()
    path = mounted.path / 'shm' / name
    first = party(path)
    first.lock('posix', WRITE)
    first.lock('posix', NONE)
    before = descriptors(mounted)
    for _ in range(10):
        user = party(path)
        for number in range(0, 100, 2):
            user.lock('posix', WRITE, number, 1)
        user.open('g')
        user.lock('ofd', READ, 200, 5, file='g')
        user.flock(SH, file='g')
        user.close('g')
        user.kill()
    eventually(lambda: descriptors(mounted) <= before)
    assert is_free(party('native'), 'posix') and is_free(party('native'), 'flock')


# Other names, mounts and users of one segment

def test_views_of_one_segment_have_its_locks(mnt, name, party, places):
    """A process that closes the file under another name gives up its locks, as it does with a link natively."""
    view = mnt / 'shm@size=65536' / name
    a, b = party('mount'), party(view)
    for kind in 'flock', 'posix', 'ofd':
        assert lock(a, kind, WRITE) == 'done'
        assert lock(b, kind, READ) == 'EAGAIN'
        lock(a, kind, NONE)
    a.lock('posix', WRITE, 0, 10)
    a.open('view', path=view)
    a.close('view')
    assert b.lock('posix', WRITE, 0, 10) == 'done'


@KINDS
def test_mounts_exclude_each_other(mount, name, places, party, kind):
    a, b = (party(mount().path / 'shm' / name) for _ in range(2))
    lock(a, kind, WRITE)
    assert lock(b, kind, READ) == 'EAGAIN'
    start_lock(b, kind, WRITE)
    eventually(lambda: b.waits)
    lock(a, kind, NONE)
    assert b.answer() == 'done'


def test_rights_of_a_lock_are_those_of_the_open_file(places, party):
    """A user who may only read takes shared ranges, and by flock the whole; not more, whatever the daemon may."""
    os.chmod(places['native'], 0o644)
    writer = party('native')
    reader = party('mount', user=USER, flags=os.O_RDONLY)
    assert reader.open('w', os.O_RDWR) == 'EACCES'
    for kind in COMMANDS:
        assert reader.lock(kind, WRITE, 0, 5) == 'EBADF'
        assert reader.lock(kind, READ, 0, 5) == 'done'
        assert writer.lock('posix', WRITE, 0, 1) == 'EAGAIN'
        assert reader.lock(kind, NONE) == 'done'
    assert reader.flock(EX | NB) == 'done'
    assert writer.flock(SH | NB) == 'EAGAIN'


# Locks are of the segment, not of its name

@KINDS
def test_lock_stays_with_the_segment(party, places, names, kind):
    """Through rename and removal; one made anew under its name is free."""
    a, b = party('mount'), party('native')
    lock(a, kind, WRITE)
    new = places['mount'].with_name(names())
    places['mount'].rename(new)
    assert lock(party(new), kind, READ) == 'EAGAIN'
    places['mount'].touch()
    fresh = party('mount')
    assert lock(fresh, kind, WRITE) == 'done'
    new.unlink()
    assert lock(b, kind, READ) == 'EAGAIN'
    lock(a, kind, NONE)
    assert lock(b, kind, READ) == 'done'
    assert lock(party('native'), kind, READ) == 'EAGAIN'


# Programs

def test_flock_command(places):
    """util-linux's: -n fails while another has it, and waits without."""
    holder = subprocess.Popen(['flock', places['mount'], 'sh', '-c', 'echo held; read line'], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == 'held\n'
        for side in places:
            assert subprocess.run(['flock', '-n', places[side], 'true']).returncode == 1
        waiting = subprocess.Popen(['flock', places['mount'], 'echo', 'mine'], stdout=subprocess.PIPE, text=True)
        eventually(lambda: sleeps_in(waiting.pid) == 'request_wait_answer')
        holder.communicate('\n', timeout=PATIENCE)
        assert waiting.communicate(timeout=PATIENCE)[0] == 'mine\n'
    finally:
        holder.kill()
        holder.wait()


# Semaphores and queues

@pytest.fixture(params=['sem', 'mq'])
def kept(request, mnt, name):
    """The path of a semaphore or a queue."""
    native.CREATE[request.param](name)
    return mnt / request.param / name


@KINDS
def test_semaphores_and_queues_can_be_locked(kept, party, kind):
    """Among users of the mount: exclusively, shared, waiting, interrupted. What is in the object stays."""
    a, b, c = party(kept), party(kept), party(kept)
    assert lock(a, kind, READ) == lock(b, kind, READ) == 'done'
    assert lock(a, kind, WRITE) == 'EAGAIN'
    assert lock(b, kind, NONE) == lock(a, kind, WRITE) == 'done'
    start_lock(b, kind, WRITE)
    eventually(lambda: b.waits)
    b.child.send_signal(signal.SIGUSR1)
    assert b.answer() == 'EINTR'
    for waiter in b, c:
        start_lock(waiter, kind, WRITE)
        eventually(lambda: waiter.waits)
    b.kill()
    a.kill()
    assert c.answer() == 'done'
    assert os.write(os.open(kept, os.O_WRONLY), b'1') == 1
    assert os.read(os.open(kept, os.O_RDONLY), 100).strip() == b'1'


@pytest.mark.parametrize('flags', [os.O_RDONLY, os.O_WRONLY])
def test_flock_of_semaphores_and_queues_open_one_way(kept, party, flags):
    a, b = party(kept), party(kept)
    a.open('one way', flags)
    assert a.flock(EX | NB, 'one way') == 'done'
    assert b.flock(SH | NB) == 'EAGAIN'
    a.close('one way')
    assert b.flock(EX) == 'done'


def test_fcntl_locks_of_semaphores_and_queues_last_until_their_file_is_closed_for_good(kept, party):
    """Not until any close by the process: the kernel does not tell of those."""
    a, b = party(kept), party(kept)
    a.open('g')
    a.dup('f', 'h')
    a.lock('posix', WRITE, 0, 10)
    a.close('g')
    assert b.lock('posix', READ, 0, 10) == 'EAGAIN'
    a.close('f')
    assert b.lock('posix', READ, 0, 10) == 'EAGAIN'
    a.close('h')
    assert b.lock('posix', WRITE, 0, 10, wait=True) == 'done'


def test_lock_of_a_semaphore_or_queue_holds_up_no_operation(kept, party):
    """It is advice: who does not ask for it waits and posts, sends and receives as ever."""
    a = party(kept)
    a.flock(EX)
    a.lock('posix', WRITE)
    for _ in range(3):
        assert os.write(os.open(kept, os.O_WRONLY), b'1') == 1
        assert os.read(os.open(kept, os.O_RDONLY), 100).strip() == b'1'


def test_semaphore_removed_and_made_anew_is_unlocked(kept, party):
    a = party(kept)
    a.flock(EX)
    kept.unlink()
    native.CREATE[kept.parent.name](kept.name)
    b = party(kept)
    assert b.flock(EX | NB) == 'done'
    assert a.flock(UN) == 'done'
    assert party(kept).flock(SH | NB) == 'EAGAIN'


def test_waits_of_one_user_for_native_holders_are_limited(mount, name, child):
    """Each different range takes a thread of the daemon: one user has 64 of them, the rest is ENOLCK, and all end."""
    mounted = mount()
    threads = lambda: len(os.listdir(f'/proc/{mounted.process.pid}/task'))
    path = mounted.path / 'shm' / name
    path.touch()
    os.chmod(path, 0o666)

    def wait_for_80():
        fd = os.open(path, os.O_RDWR)
        outcomes = []

        def wait(offset):
            try:
                outcomes.append(fcntl.lockf(fd, fcntl.LOCK_EX, 1, offset))
            except OSError as error:
                outcomes.append(error.errno)
        for offset in range(80):
            threading.Thread(target=wait, args=[offset], daemon=True).start()
        eventually(lambda: len(outcomes) == 80 - 64)
        return outcomes
    with open(f'/dev/shm/{name}', 'r+b') as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        assert child(wait_for_80, user=OTHER, group=OTHER).result() == [errno.ENOLCK] * 16
        eventually(lambda: threads() < 16)  # its usual ones

"""Sudden ends: of the daemon, of the mount, of a caller. Nothing is lost beyond what is under way, and nobody hangs."""

import collections
import contextlib
import errno
import fcntl
import os
import pathlib
import random
import re
import select
import signal
import subprocess
import threading
import time

import pytest

import native
from conftest import PATIENCE, TESTS, eventually, mount_points, parked, sleeps_in
from test_options import read_once, write_once

SHM = pathlib.Path('/dev/shm')
CUT_OFF = {errno.ENOTCONN, errno.ECONNABORTED}
IN, ERR = select.POLLIN, select.POLLERR
RECORDS, RECORD = 1024, 64  # of load.c


def outcome(function, *arguments):
    """What it returns, or the errno that it fails with."""
    try:
        return function(*arguments)
    except OSError as failure:
        return failure.errno


def states(pid):
    """The states of a process's threads: R, S, D and so on."""
    found = []
    for thread in pathlib.Path(f'/proc/{pid}/task').glob('*/stat'):
        with contextlib.suppress(OSError):
            found.append(thread.read_text().rpartition(')')[2].split()[0])
    return found


# The daemon is killed under load

class Load:
    """Programs that use one object from both sides until the daemon is killed."""

    def __init__(self, peer):
        self.peer = peer
        self.peers = []

    def start(self, task, target):
        self.peers.append(self.peer('load', task, target, len(self.peers)))
        self.peers[-1].by_file = isinstance(target, pathlib.Path) and not target.is_relative_to(SHM)

    def kill(self, mounted):
        """SIGKILL for the daemon at some moment after all have begun; what each says, by task."""
        for peer in self.peers:
            assert os.read(peer.stdout.fileno(), 6) == b'begun\n'
        time.sleep(random.uniform(0, 0.03))
        mounted.kill()
        return self.collect(mounted.maps)

    def collect(self, passthrough):
        """Those whose calls the daemon serves end by themselves; the others are asked to."""
        said = collections.defaultdict(list)
        for number, peer in enumerate(self.peers):
            ends_itself = peer.by_file and not (passthrough and {'store', 'map'} & set(peer.args))
            *lines, last = self.end(peer, ends_itself).splitlines()
            task, count, error = last.split()
            assert int(error) in (CUT_OFF if ends_itself else {0})
            said[task].append((number, int(count), peer.by_file, lines))
        return said


    @staticmethod
    def end(peer, by_itself):
        """Its output; asked for again and again, as a signal may come just before a sleep."""
        while not by_itself:
            peer.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return peer.finish(0.01)
        return peer.finish()


@pytest.fixture
def load(peer):
    return lambda: Load(peer)


def drained(path):
    """All that can be had from it at once."""
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    taken = []
    while isinstance(data := outcome(native.pread, fd, 100, 0), bytes):
        taken.append(data)
    os.close(fd)
    assert data == errno.EAGAIN
    return taken


ROUNDS = 5


def test_daemon_killed_under_load_loses_no_unit(mount, name, load):
    """Posts and waits that went well differ from what is left by at most one for each caller by file."""
    mounted = mount()
    path = mounted.path / 'sem' / name
    with native.create_semaphore(name) as semaphore:
        for _ in range(ROUNDS):
            users = load()
            for task in 'post', 'wait':
                for target in path, path, f'sem:{name}':
                    users.start(task, target)
            said = users.kill(mounted)
            total = {task: sum(count for _, count, *_ in said[task]) for task in said}
            left = semaphore.value
            assert -2 <= left - (total['post'] - total['wait']) <= 2
            mounted.start()
            for _ in range(min(left, 100)):
                assert path.read_bytes() == b'1\n'
            for _ in range(left - 100):
                semaphore.trywait()
            assert outcome(read_once, path, os.O_NONBLOCK) == errno.EAGAIN


def test_daemon_killed_under_load_loses_no_message(mount, name, load):
    """Each message sent is received or still there, but for one at most in the hands of each receiver by file; none
    comes twice; and each sender by file has sent at most one that it was not told of."""
    mounted = mount()
    path = mounted.path / 'mq' / name
    with native.create_queue(name) as queue:
        for _ in range(ROUNDS):
            users = load()
            for task in 'send', 'receive':
                for target in path, path, f'mq:{name}':
                    users.start(task, target)
            said = users.kill(mounted)
            waiting = len(queue)
            mounted.start()
            left = drained(path)
            assert len(left) == waiting
            seen = [line for *_, lines in said['receive'] for line in lines] + [message.decode() for message in left]
            assert len(set(seen)) == len(seen)
            sent = {f'{sender} {number}' for sender, count, *_ in said['send'] for number in range(count)}
            in_flight = {f'{sender} {count}' for sender, count, by_file, _ in said['send'] if by_file}
            assert len(sent - set(seen)) <= 2
            assert set(seen) - sent <= in_flight


@pytest.mark.parametrize('options', [(), ('-o', 'no_passthrough')], ids=['passthrough', 'direct'])
def test_daemon_killed_under_load_loses_no_byte(mount, name, load, options):
    """Every record that was written, by file, natively or through a mapping, is there, and no other was touched."""
    mounted = mount(*options)
    path = mounted.path / 'shm' / name
    path.touch()
    os.truncate(SHM / name, 16 * RECORDS * RECORD)
    for _ in range(ROUNDS):
        users = load()
        for task, target in ('store', path), ('store', path), ('store', SHM / name), ('map', SHM / name), ('map', path):
            if (task, target) != ('map', path) or mounted.maps:
                users.start(task, target)
        said = users.kill(mounted)
        mounted.start()
        memory = path.read_bytes()
        for who, count, *_ in said['store'] + said['map']:
            for place in range(RECORDS):
                at = (who * RECORDS + place) * RECORD
                record = memory[at:at + RECORD].rstrip(b'\0')
                last = count - 1 - (count - 1 - place) % RECORDS  # the last confirmed one there
                allowed = {b'%d %d' % (who, last)} if last >= 0 else {b''}
                if count % RECORDS == place:
                    allowed.add(b'%d %d' % (who, count))
                assert record in allowed, (who, count, place)
        assert memory[len(users.peers) * RECORDS * RECORD:].count(0) == (16 - len(users.peers)) * RECORDS * RECORD
        os.truncate(path, 0)
        os.truncate(path, 16 * RECORDS * RECORD)


@pytest.mark.parametrize('kind', ['sem', 'shm'])
def test_daemon_killed_under_load_keeps_what_was_made(mount, names, load, kind):
    """Every object that was made is there afterwards, and at most one for each caller that it was not told of."""
    mounted = mount()
    for _ in range(3):
        name = names()
        users = load()
        for _ in range(3):
            users.start('create', mounted.path / kind / name)
        said = users.kill(mounted)
        mounted.start()
        there = {entry for entry in os.listdir(mounted.path / kind) if entry.startswith(name)}
        made = {f'{name}{who}-{number}' for who, count, *_ in said['create'] for number in range(count)}
        assert made <= there
        assert there - made <= {f'{name}{who}-{count}' for who, count, *_ in said['create']}
        for entry in there:
            (mounted.path / kind / entry).unlink()
        assert not any(entry.startswith(name) for entry in os.listdir(mounted.path / kind))


# Callers of every sort, parked

def poll(fd, events):
    """What poll says, on which a signal has no effect."""
    poll = select.poll()
    poll.register(fd, events)
    return poll.poll()[0][1]


def epoll(fd, events):
    with select.epoll() as epoll:
        epoll.register(fd, events | select.EPOLLET)
        return epoll.poll()[0][1]


def opened(use, *arguments, flags=os.O_RDWR):
    def run(path):
        fd = os.open(path, flags)
        try:
            return use(fd, *arguments)
        finally:
            os.close(fd)
    return run


class Parked:
    """One caller of each sort, asleep at an object of its own of which it can't have what it wants."""

    SORTS = {
        'wait': ('sem', opened(native.read, 10)),
        'wait until': ('sem@timeout=1000', opened(native.read, 10)),
        'receive': ('mq', opened(native.read, 100)),
        'receive until': ('mq@timeout=1000', opened(native.read, 100)),
        'receive lines': ('mq@text,stream', opened(native.read, 100)),
        'send': ('mq', opened(native.write, b'more')),
        'send lines': ('mq@text', opened(native.write, b'more\n')),
        'poll a semaphore': ('sem', opened(poll, IN)),
        'poll a queue': ('mq', opened(poll, IN)),
        'poll a full queue': ('mq', opened(poll, select.POLLOUT)),
        'epoll a semaphore': ('sem', opened(epoll, IN)),
        'epoll a queue': ('mq', opened(epoll, IN)),
        'notify': ('mq@notify', opened(native.read, 100)),
    }
    SENDING = 'send', 'send lines', 'poll a full queue'

    def __init__(self, mounted, names, child):
        self.mounted = mounted
        self.objects, self.callers, self.paths = {}, {}, {}
        for sort, (view, use) in self.SORTS.items():
            name = names()
            self.paths[sort] = mounted.path / view / name
            if view.startswith('sem'):
                self.objects[sort] = native.create_semaphore(name)
            else:
                self.objects[sort] = native.create_queue(name, max_messages=1)
                if sort in self.SENDING:
                    self.objects[sort].send(b'filler')
            self.callers[sort] = child(outcome, use, self.paths[sort])
        eventually(self.all_asleep)

    def is_asleep(self, sort):
        caller = self.callers[sort]
        if 'poll' in sort:
            return not caller.finished and sleeps_in(caller.pid).startswith(('do_epoll_wait', 'poll_schedule', 'do_sys_poll'))
        return caller.asleep

    def all_asleep(self):
        return all(self.is_asleep(sort) for sort in self.SORTS)

    def results(self):
        return {sort: caller.result() for sort, caller in self.callers.items()}

    def give(self, sort):
        """What the caller waits for, natively."""
        if isinstance(self.objects[sort], native.Semaphore):
            self.objects[sort].post()
        elif sort in self.SENDING:
            assert self.objects[sort].receive() == (b'filler', 0)
        else:
            self.objects[sort].send(b'given')

    def state(self):
        """The value or the messages of each object, and for `notify` whether nobody is registered."""
        found = {}
        for sort, thing in self.objects.items():
            found[sort] = thing.value if isinstance(thing, native.Semaphore) else len(thing)
        queue = self.objects['notify']
        found['notified'] = outcome(queue.notify, signal.SIGUSR1)
        if found['notified'] is None:
            queue.notify(None)
        return found

    UNTOUCHED = {**{sort: int(sort in ('send', 'send lines', 'poll a full queue')) for sort in SORTS}, 'notified': None}

    def close(self):
        for thing in self.objects.values():
            thing.close()


@pytest.fixture
def park(names, child):
    """park(mounted) has one caller of each sort go to sleep there."""
    with contextlib.ExitStack() as stack:
        yield lambda mounted: stack.enter_context(contextlib.closing(Parked(mounted, names, child)))


@pytest.fixture
def connection(tmp_path):
    """connection(mounted, name) is a file of the mount's in fusectl, of which this test mounts its own."""
    folder = tmp_path / 'connections'
    folder.mkdir()
    subprocess.run(['mount', '-t', 'fusectl', 'none', folder], check=True)

    def file(mounted, name):
        with open('/proc/self/mountinfo') as table:
            [device] = [line.split()[2] for line in table if line.split()[4] == str(mounted.path)]
        return folder / device.partition(':')[2] / name
    yield file
    subprocess.run(['umount', folder], check=True)


FAULTS = {
    'SIGKILL': lambda mounted, connection: mounted.process.kill(),
    'SIGTERM': lambda mounted, connection: mounted.process.terminate(),
    'SIGINT': lambda mounted, connection: mounted.process.send_signal(signal.SIGINT),
    'umount -f': lambda mounted, connection: subprocess.run(['umount', '-f', mounted.path], capture_output=True),
    'abort': lambda mounted, connection: connection(mounted, 'abort').write_text('1'),
    'umount -l and SIGKILL': lambda mounted, connection: (
        subprocess.run(['umount', '-l', mounted.path], check=True), mounted.process.kill()),
    'umount -l and abort': lambda mounted, connection: (
        subprocess.run(['sh', '-c', 'umount -l $0; echo 1 >$1', mounted.path, connection(mounted, 'abort')], check=True)),
    'SIGSTOP and umount -f': lambda mounted, connection: (
        mounted.process.send_signal(signal.SIGSTOP),
        subprocess.run(['umount', '-f', mounted.path], capture_output=True),
        mounted.process.send_signal(signal.SIGCONT)),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_all_who_wait_get_an_error_and_nothing_is_lost(mount, park, connection, child, fault):
    """At once and whatever they wait for, and a new mount at the same place serves everything again."""
    mounted = mount()
    callers = park(mounted)
    assert int(connection(mounted, 'waiting').read_text()) >= 8
    FAULTS[fault](mounted, connection)
    results = callers.results()
    for sort, result in results.items():
        assert result & ERR if 'poll' in sort else result in CUT_OFF, (sort, result)
    status = mounted.process.wait(timeout=PATIENCE)
    assert status == (-signal.SIGKILL if 'SIGKILL' in fault else 0)
    eventually(lambda: callers.state() == Parked.UNTOUCHED)  # the notifier, a process of its own, ends a little later
    if mounted.mounted:
        assert fault != 'SIGTERM'
        assert outcome(os.stat, mounted.path) == errno.ENOTCONN
        subprocess.run(['umount', mounted.path], check=True)
    mounted.start()
    for sort, path in callers.paths.items():
        if 'poll' not in sort:
            caller = child(outcome, Parked.SORTS[sort][1], path)
            eventually(lambda: caller.asleep)
            callers.give(sort)
            assert isinstance(caller.result(), (bytes, int)) and caller.status == 0


def test_lazy_unmount_serves_all_who_wait_until_the_last_is_done(mount, park):
    mounted = mount()
    callers = park(mounted)
    subprocess.run(['umount', '-l', mounted.path], check=True)
    for sort in list(Parked.SORTS):
        assert mounted.process.poll() is None
        assert callers.is_asleep(sort)
        callers.give(sort)
        result = callers.callers[sort].result()
        assert result == {'wait': b'1\n', 'wait until': b'1\n', 'receive': b'given', 'receive until': b'given',
                          'receive lines': b'given\n', 'send': 4, 'send lines': 5, 'notify': b'%d 0\n' % os.getpid(),
                          'poll a full queue': select.POLLOUT}.get(sort, IN)
    assert mounted.process.wait(timeout=PATIENCE) == 0


def test_killed_callers_take_nothing(mount, park):
    """A caller of any sort that is killed in its sleep: what it waited for is there for the next."""
    mounted = mount()
    callers = park(mounted)
    for caller in callers.callers.values():
        caller.send_signal(signal.SIGKILL)
    for caller in callers.callers.values():
        caller.kill(patience=10)
    assert callers.state() == Parked.UNTOUCHED
    for attribute in 'waiting', 'waiting_receivers', 'waiting_senders':
        for sort, path in callers.paths.items():
            if (attribute == 'waiting') == path.parent.name.startswith('sem'):
                assert os.getxattr(mounted.path / path.parent.name.partition('@')[0] / path.name,
                                   f'user.ipcfs.{attribute}') == b'0'
    for sort in Parked.SORTS:
        if sort not in Parked.SENDING:
            callers.give(sort)
    assert callers.state() == {**Parked.UNTOUCHED, **dict.fromkeys(Parked.SORTS, 1)}


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_caller_killed_as_its_unit_comes_leaves_it_or_takes_it(mount, name, child, kind):
    """Never more than the one, and the next caller is served."""
    mounted = mount()
    path = mounted.path / kind / name
    with native.create_semaphore(name) if kind == 'sem' else native.create_queue(name) as thing:
        left = lambda: thing.value if kind == 'sem' else len(thing)
        for _ in range(40):
            caller = child(opened(native.read, 10), path)
            eventually(lambda: parked(path, caller))
            killer = threading.Thread(target=os.kill, args=(caller.pid, signal.SIGKILL))
            killer.start()
            thing.post() if kind == 'sem' else thing.send(b'1\n')
            killer.join()
            caller.kill()
            eventually(lambda: os.getxattr(path, f'user.ipcfs.waiting{"" if kind == "sem" else "_receivers"}') == b'0')
            assert left() in (0, 1)
            if left():
                assert path.read_bytes() == b'1\n'
            thing.post() if kind == 'sem' else thing.send(b'1\n')
            assert path.read_bytes() == b'1\n'
            assert left() == 0


@pytest.mark.parametrize('kind', ['sem', 'mq', 'full mq'])
def test_stopped_caller_loses_nothing(mount, name, child, kind):
    """What comes while it is stopped is there when it goes on, or for another who asks meanwhile: never for both or none.

    The stop interrupts the request, so another waiter gets the unit; natively it may be either.
    """
    mounted = mount()
    path = mounted.path / kind[-3:].strip() / name
    sends = kind == 'full mq'
    with native.create_semaphore(name) if kind == 'sem' else native.create_queue(name, max_messages=1) as thing:
        if sends:
            thing.send(b'filler')
        give = thing.receive if sends else thing.post if kind == 'sem' else lambda: thing.send(b'1\n')
        use = opened(native.write, b'late') if sends else opened(native.read, 10)
        done = 4 if sends else b'1\n'
        left = lambda: (thing.value if kind == 'sem' else len(thing)) ^ sends
        for others in 0, 1:
            stopped = child(outcome, use, path)
            eventually(lambda: parked(path, stopped))
            stopped.send_signal(signal.SIGSTOP)
            eventually(lambda: set(states(stopped.pid)) == {'T'})
            other = [child(outcome, use, path) for _ in range(others)]
            eventually(lambda: all(each.asleep for each in other))
            give()
            for each in other:
                assert each.result() == done
            stopped.send_signal(signal.SIGCONT)
            if others:
                thing.receive() if sends else give()  # once more, for the stopped one if it still waits
            result = stopped.result()
            assert result in (done, errno.EINTR)
            assert left() == (result == errno.EINTR)
            if left():
                assert use(path) == done
            if sends:
                assert thing.receive() == (b'late', 0)
                thing.send(b'filler')
            assert left() == 0


# Locks

@pytest.mark.parametrize('holder', ['native', 'file'])
@pytest.mark.parametrize('fault', ['SIGKILL', 'SIGTERM', 'abort', 'umount -f'])
def test_who_waits_for_a_lock_gets_an_error_and_the_lock_is_free_after(mount, names, child, connection, fault, holder):
    """flock(2) and fcntl(2), held by another user of the mount or natively; the holder by file loses it too."""
    mounted = mount()
    name = names()
    path, file = mounted.path / 'shm' / name, SHM / name
    path.write_bytes(b'content')

    def whole(path):
        return opened(fcntl.flock, fcntl.LOCK_EX)(path)

    def ranged(path):
        return opened(fcntl.lockf, fcntl.LOCK_EX, 1)(path)
    held = open(file if holder == 'native' else path, 'r+b')
    fcntl.flock(held, fcntl.LOCK_EX)
    fcntl.lockf(held, fcntl.LOCK_EX, 1)
    waiters = [child(outcome, lock, path) for lock in (whole, ranged)]
    eventually(lambda: all(waiter.asleep for waiter in waiters))
    FAULTS[fault](mounted, connection)
    assert {waiter.result() for waiter in waiters} <= CUT_OFF | {errno.EINTR}
    assert mounted.process.wait(timeout=PATIENCE) == (-signal.SIGKILL if fault == 'SIGKILL' else 0)
    free = [child(outcome, lambda: opened(fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB)(file)),
            child(outcome, lambda: opened(fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)(file))]
    assert [each.result() for each in free] == [None if holder == 'file' else errno.EAGAIN] * 2
    if mounted.mounted:
        subprocess.run(['umount', '-l', mounted.path], check=True)
    with contextlib.suppress(OSError):
        held.close()
    mounted.start()
    for lock in whole, ranged:
        assert child(outcome, lock, path).result() is None


# Each request is answered once

def restless(mnt, name, seconds):
    """Uses everything for a while, not caring what comes of it."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    end = time.monotonic() + seconds
    uses = [
        lambda: write_once(mnt / 'sem' / name, b'1'), lambda: read_once(mnt / 'sem' / name),
        lambda: read_once(mnt / 'sem@timeout=0.001' / name), lambda: write_once(mnt / 'mq' / name, b'message'),
        lambda: read_once(mnt / 'mq' / name), lambda: read_once(mnt / 'mq@timeout=0.001' / name),
        lambda: write_once(mnt / 'mq@text' / name, b'a\nb\nunfinished'), lambda: read_once(mnt / 'mq@text,drain' / name),
        lambda: write_once(mnt / 'mq@notify' / name, b'cancel'), lambda: read_once(mnt / 'mq@notify' / name),
        lambda: os.listdir(mnt / 'sem'), lambda: os.stat(mnt / 'mq' / name),
        lambda: (mnt / 'mq@stat' / name).read_bytes(), lambda: (mnt / 'shm' / name).write_bytes(b'content'),
        lambda: (mnt / 'shm' / name).unlink(), lambda: opened(polled)(mnt / 'sem' / name),
        lambda: opened(fcntl.flock, fcntl.LOCK_EX)(mnt / 'shm' / name),
        lambda: opened(fcntl.lockf, fcntl.LOCK_EX)(mnt / 'shm' / name),
    ]
    while time.monotonic() < end:
        outcome(random.choice(uses))


def polled(fd):
    poll = select.poll()
    poll.register(fd, IN)
    return poll.poll(1)


@pytest.mark.stderr('')
@pytest.mark.parametrize('fault', ['SIGTERM', 'umount -f'])
def test_each_request_is_answered_once(mount, name, child, connection, fault):
    """By the daemon's own account of requests and replies, over signals, deadlines, kills of callers and the end."""
    mounted = mount('-d')
    native.create_semaphore(name).close()
    native.create_queue(name, max_messages=2).close()
    users = [child(restless, mounted.path, name, 60) for _ in range(5)]
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        random.choice(users).send_signal(signal.SIGUSR1)
        if random.random() < 0.03:
            victim = users.pop(random.randrange(len(users)))
            victim.kill()
            users.append(child(restless, mounted.path, name, 60))
        time.sleep(0.001)
    FAULTS[fault](mounted, connection)
    assert mounted.process.wait(timeout=PATIENCE) == 0
    for user in users:
        user.kill()
    if mounted.mounted:
        subprocess.run(['umount', '-l', mounted.path])
    log = mounted.stderr.read_text()
    requests = {unique: opcode for unique, opcode in re.findall(r'^unique: (\d+), opcode: (\w+)', log, re.MULTILINE)}
    replies = collections.Counter(re.findall(r'^   unique: (\d+), (?:success|error)', log, re.MULTILINE))
    silent = {'FORGET', 'BATCH_FORGET', 'INTERRUPT'}
    del replies['0']  # what poll(2) is told
    assert len(requests) > 300
    assert {requests[unique] for unique, count in replies.items() if count > 1} <= {'INTERRUPT'}  # sent again, when early
    assert {unique: opcode for unique, opcode in requests.items() if opcode not in silent and unique not in replies} == {}
    assert set(replies) <= set(requests)


# A daemon that is started again

def is_left(mounted):
    """Whether fusermount3 has ended without unmounting, as that of libfuse 3.14 does once in a hundred times."""
    def helps(process):
        with contextlib.suppress(OSError):
            return b'fusermount3' in (line := (process / 'cmdline').read_bytes()) and os.fsencode(mounted.path) in line
    return not any(helps(process) for process in pathlib.Path('/proc').glob('[0-9]*')) and mounted.mounted


def rounds(mounted, wanted, most=2):
    """So many rounds, and one more for each that fusermount3 spoils, of which there must be few."""
    spoilt = done = 0
    while done < wanted:
        yield
        if mounted.process.poll() is None:
            done += 1
        else:
            spoilt += 1
            assert spoilt <= most
            subprocess.run(['umount', '-l', mounted.path], check=True)
            mounted.start()


@pytest.mark.stderr('')
def test_auto_unmount_leaves_no_dead_mount(mount, name):
    """However the daemon ends: the mount point is a folder again, and the next daemon starts there."""
    mounted = mount('-o', 'auto_unmount')
    native.create_semaphore(name, 1).close()
    for number in signal.SIGTERM, signal.SIGKILL:
        for _ in rounds(mounted, 3):
            assert (mounted.path / 'sem' / name).exists()
            mounted.process.send_signal(number)
            mounted.process.wait(timeout=PATIENCE)
            eventually(lambda: not mounted.mounted or is_left(mounted))
            if not mounted.mounted:
                assert os.listdir(mounted.path) == []
                mounted.start()
    assert (mounted.path / 'sem' / name).read_bytes() == b'1\n'
    assert mount_points().count(str(mounted.path)) == 1
    mounted.stop()


@pytest.mark.stderr('')
def test_daemon_restarted_at_once_with_auto_unmount_comes_up(mount, name, child):
    """As a service manager does it, trying again: in the end one mount is there, and it works."""
    mounted = mount('-o', 'auto_unmount')
    path = mounted.path / 'sem' / name
    native.create_semaphore(name).close()
    for _ in rounds(mounted, 5):
        reader = child(outcome, read_once, path)
        eventually(lambda: parked(path, reader))
        mounted.process.kill()
        mounted.process.wait()
        with open(mounted.stderr, 'w') as stderr:
            while mounted.process.returncode is not None and not is_left(mounted):
                mounted.process = subprocess.Popen(mounted.command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
                eventually(lambda: mounted.process.poll() is not None or
                           isinstance(outcome(os.listdir, path.parent), list))
        assert reader.result() in CUT_OFF
        if mounted.process.returncode is None:
            assert mount_points().count(str(mounted.path)) == 1
            path.write_bytes(b'1')
            assert path.read_bytes() == b'1\n'


def unit_commands(key, point):
    """What the systemd unit runs at that moment, for this mount point; its leading dash is systemd's."""
    unit = (TESTS.parent / 'contrib' / 'systemd' / 'ipcfs.service').read_text()
    lines = re.findall(f'^{key}=-?(.*)$', unit, re.MULTILINE)
    return [line.replace('${MOUNT_POINT}', str(point)).replace('$OPTIONS', '').split() for line in lines]


def test_systemd_unit_leaves_no_dead_mount_and_starts_again(mount, name, child):
    """Its commands one after the other, as after a crash: with a caller asleep and a file open in the dead mount."""
    mounted = mount()
    path = mounted.path / 'sem' / name
    native.create_semaphore(name).close()
    for _ in range(3):
        reader = child(outcome, read_once, path)
        eventually(lambda: parked(path, reader))
        held = os.open(path, os.O_RDWR)
        mounted.process.kill()
        mounted.process.wait()
        for command in unit_commands('ExecStopPost', mounted.path):
            subprocess.run(command, check=True, timeout=PATIENCE)
        assert not mounted.mounted
        assert os.listdir(mounted.path) == []
        assert reader.result() in CUT_OFF
        for command in unit_commands('ExecStartPre', mounted.path):
            subprocess.run(command, check=True, timeout=PATIENCE)
        [start] = unit_commands('ExecStart', mounted.path)
        assert start == ['ipcfs', str(mounted.path)]
        mounted.start()
        with contextlib.suppress(OSError):
            os.close(held)
        path.write_bytes(b'1')
        assert path.read_bytes() == b'1\n'


def test_dead_mount_is_named_and_refused_until_it_is_unmounted(mount, name):
    """Without auto_unmount; and what the message says to do is what helps."""
    mounted = mount()
    mounted.process.kill()
    mounted.process.wait()
    assert outcome(os.stat, mounted.path) == errno.ENOTCONN
    done = subprocess.run(mounted.command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert f'umount {mounted.path}' in done.stderr
    subprocess.run(['umount', mounted.path], check=True)
    mounted.start()
    assert os.listdir(mounted.path)


def test_second_daemon_does_not_mount_over_a_dead_mount(mount):
    """Not even right after the first one's end."""
    mounted = mount()
    for _ in range(10):
        os.stat(mounted.path)
        mounted.process.kill()
        mounted.process.wait()
        second = subprocess.Popen(mounted.command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: second.poll() is not None or mount_points().count(str(mounted.path)) > 1)
            assert second.poll() == 1
        finally:
            second.kill()
            second.wait()
            while mounted.mounted:
                subprocess.run(['umount', '-l', mounted.path])
        mounted.start()

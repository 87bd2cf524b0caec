"""Thousands asleep at once, and nobody in anybody's way."""

import collections
import contextlib
import os
import random
import signal
import time

import pytest

import native
from conftest import PATIENCE, attribute, eventually, open_files, parked, threads_asleep

THREADS_MAX = 16


def daemon_threads(mounted):
    return len(os.listdir(f'/proc/{mounted.process.pid}/task'))


def all_asleep(peer, count, paths=()):
    """Whether all its threads sleep in requests that the daemon has parked."""
    if threads_asleep(peer.pid) < count:
        return False
    known = [attribute(path, name) for path in paths for name in ('waiting', 'waiting_receivers')]
    known = [number for number in known if number is not None]
    return not known or sum(known) == count


def results(peer):
    """What each target gave, from the output of takers; and how often a signal ended a sleep."""
    taken = collections.defaultdict(list)
    for line in peer.finish(4 * PATIENCE).splitlines():
        target, _, what = line.partition(' ')
        taken[target].append(what)
    return taken, int(taken.pop('interrupted')[0])


def devices(mounted):
    """Descriptors by which the daemon takes requests."""
    return open_files(mounted.process.pid).count('/dev/fuse')


def test_2000_readers_on_200_semaphores_are_each_woken_once(mount, names, peer):
    mounted = mount()
    with contextlib.ExitStack() as stack:
        semaphores = [stack.enter_context(native.create_semaphore(names())) for _ in range(200)]
        idle = names()
        paths = [str(mounted.path / 'sem' / semaphore.name) for semaphore in semaphores]
        readers = peer('takers', 10, *paths)
        eventually(lambda: all_asleep(readers, 2000, paths), 4 * PATIENCE)
        assert daemon_threads(mounted) <= THREADS_MAX
        assert [semaphore.value for semaphore in semaphores] == [0] * 200
        assert devices(mounted) > 5  # each answer is looked for among the requests of one

        (mounted.path / 'sem' / idle).write_bytes(b'2')
        assert (mounted.path / 'sem' / idle).read_bytes() == b'1\n'
        (mounted.path / 'mq' / idle).touch()
        (mounted.path / 'shm' / idle).write_bytes(b'undisturbed')
        assert threads_asleep(readers.pid) == 2000

        for semaphore in semaphores[:100]:
            semaphore.post(10)
        eventually(lambda: threads_asleep(readers.pid) == 1000)
        for _ in range(10):
            for semaphore in semaphores[100:]:
                semaphore.post()
        assert results(readers)[0] == {path: ['1'] * 10 for path in paths}
        assert [semaphore.value for semaphore in semaphores] == [0] * 200
        assert daemon_threads(mounted) <= THREADS_MAX


def test_500_readers_on_queues_are_each_given_one_message(mount, names, peer):
    mounted = mount()
    with contextlib.ExitStack() as stack:
        queues = [stack.enter_context(native.create_queue(names())) for _ in range(50)]
        paths = [str(mounted.path / 'mq' / queue.name) for queue in queues]
        readers = peer('takers', 10, *paths)
        eventually(lambda: all_asleep(readers, 500, paths), 4 * PATIENCE)
        assert daemon_threads(mounted) <= THREADS_MAX
        for number in range(10):
            for queue in queues:
                queue.send(b'%d' % number)
        taken = results(readers)[0]
        assert {path: sorted(what) for path, what in taken.items()} == {path: list('0123456789') for path in paths}
        assert [len(queue) for queue in queues] == [0] * 50


def test_200_writers_on_full_queues_each_send_once(mount, names, child):
    mounted = mount()
    with contextlib.ExitStack() as stack:
        queues = [stack.enter_context(native.create_queue(names(), 1)) for _ in range(10)]
        writers = []
        for queue in queues:
            queue.send(b'filler')
            path = mounted.path / 'mq' / queue.name
            writers += [child(path.write_bytes, b'%d' % number) for number in range(20)]
        eventually(lambda: sum(threads_asleep(writer.pid) for writer in writers) == 200)
        assert daemon_threads(mounted) <= THREADS_MAX
        for queue in queues:
            received = [queue.receive(timeout=PATIENCE)[0] for _ in range(21)]
            assert received[0] == b'filler'
            assert sorted(received[1:], key=int) == [b'%d' % number for number in range(20)]
        for writer in writers:
            writer.result()


# Waiting takes nothing

@pytest.mark.parametrize('way, count, rounds', [('read', 50, 20000), ('poll', 50, 20000)])
def test_spinning_native_process_sees_no_spurious_eagain(mnt, name, peer, way, count, rounds):
    native.create_semaphore(name).close()
    outcome = peer('compete', way, count, f'sem:{name}', mnt / 'sem' / name, rounds).finish(4 * PATIENCE)
    taken = int(outcome.split()[1])
    assert taken == 0 or way == 'read'


def test_blocked_readers_do_not_use_the_processor(mount, names, peer):
    mounted = mount()
    with native.create_semaphore(names()) as semaphore:
        path = mounted.path / 'sem' / semaphore.name
        readers = peer('takers', 50, path)
        eventually(lambda: all_asleep(readers, 50, [path]))

        def processor_time():
            with open(f'/proc/{mounted.process.pid}/stat') as file:
                return sum(map(int, file.read().rpartition(')')[2].split()[11:13]))
        before = processor_time()
        time.sleep(1)
        assert processor_time() - before < os.sysconf('SC_CLK_TCK') / 4
        semaphore.post(50)
        results(readers)


# Wake-ups are passed on

@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_n_posts_wake_n_of_the_native_and_file_waiters_while_signals_fly(mnt, name, peer, kind):
    path = mnt / kind / name
    native.CREATE[kind](name)
    files, natives, total = 20, 20, 40
    by_file, natively = peer('takers', files, path), peer('takers', natives, f'{kind}:{name}')
    eventually(lambda: threads_asleep(by_file.pid) == files)
    if kind == 'sem':
        with native.Semaphore(name) as semaphore:
            give_and_watch([by_file, natively], semaphore.post, lambda: semaphore.value, total)
    else:
        with native.Queue(name) as queue:
            give_and_watch([by_file, natively], lambda: queue.send(b'1'), lambda: len(queue), total)
    taken, interrupted = results(by_file)
    assert taken == {str(path): ['1'] * files}
    assert results(natively)[0] == {f'{kind}:{name}': ['1'] * natives}
    assert interrupted > 0


def give_and_watch(takers, give, left, total):
    """Give a few at a time, with signals at the first of the takers; each must wake exactly one thread."""
    def threads():
        return sum(len(os.listdir(f'/proc/{taker.pid}/task')) for taker in takers if taker.poll() is None)

    def storm():
        if takers[0].poll() is None:
            takers[0].send_signal(signal.SIGUSR1)

    def settled():
        storm()
        # A program's main thread remains until its last one has ended.
        asleep = threads() - sum(taker.poll() is None for taker in takers)
        return left() == 0 and asleep == total - given
    given = 0
    eventually(settled)
    while given < total:
        count = min(random.randint(1, 5), total - given)
        for _ in range(count):
            storm()
            give()
            storm()
        given += count
        eventually(settled)


def test_unit_is_not_lost_between_a_dying_reader_and_a_native_waiter(mnt, name, child):
    path = mnt / 'sem' / name
    with native.create_semaphore(name) as semaphore:
        for _ in range(50):
            reader = child(path.read_bytes)
            eventually(lambda: parked(path, reader))
            waiter = child(semaphore.wait)
            semaphore.post()
            reader.kill()
            eventually(lambda: waiter.finished or semaphore.value == 0)
            semaphore.post()  # for the waiter, if the reader took the first one with it
            waiter.result()
            if semaphore.value:
                semaphore.trywait()
            assert semaphore.value == 0


# A waiting writer holds up nobody

def write_once(path, flags=0):
    fd = os.open(path, os.O_WRONLY | flags)
    return native.write(fd, b'waits')


@pytest.fixture
def full(name):
    with native.create_queue(name, max_messages=1) as queue:
        queue.send(b'filler')
        yield queue


@pytest.fixture
def path(mnt, name):
    return mnt / 'mq' / name


@pytest.fixture
def writer(full, path, child):
    writer = child(write_once, path)
    eventually(lambda: parked(path, writer))
    return writer


def test_nonblocking_writer_is_refused_beside_a_waiting_one(writer, path, child):
    with pytest.raises(BlockingIOError):
        child(write_once, path, os.O_NONBLOCK).result()
    assert writer.asleep


@pytest.mark.parametrize('operation', [
    os.stat, lambda path: os.chmod(path, 0o640), lambda path: os.utime(path), lambda path: os.listdir(path.parent),
    lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)), lambda path: os.close(os.open(path, os.O_RDWR)),
    lambda path: os.open(path, os.O_RDWR | os.O_CREAT), os.unlink,
], ids=['stat', 'chmod', 'utime', 'ls', 'truncate', 'open and close', 'create', 'rm'])
def test_others_go_on_beside_a_waiting_writer(writer, full, path, child, operation):
    child(lambda: operation(path) and None).result()
    assert writer.asleep
    full.receive()
    assert writer.result() == 5


def test_reader_goes_on_beside_a_waiting_writer(writer, path, child):
    assert child(path.read_bytes).result() == b'filler'
    assert writer.result() == 5


def test_other_queues_go_on_beside_a_waiting_writer(writer, mnt, names, child):
    other = mnt / 'mq' / names()

    def send_and_receive():
        native.create_queue(other.name)
        other.write_bytes(b'there')
        return other.read_bytes()
    assert child(send_and_receive).result() == b'there'
    assert writer.asleep


def test_waiting_writers_do_not_hold_up_each_other(writer, full, path, child):
    second = child(write_once, path)
    eventually(lambda: parked(path, writer, second))
    writer.kill()
    full.receive()
    assert second.result() == 5


def test_sigkill_ends_a_waiting_writer_at_once(writer, full):
    writer.kill()
    assert len(full) == 1


def test_sigkill_ends_a_blocked_reader_at_once(mnt, name, child):
    for kind in 'sem', 'mq':
        native.CREATE[kind](name)
        reader = child((mnt / kind / name).read_bytes)
        eventually(lambda: parked(mnt / kind / name, reader))
        reader.kill()


def test_sigterm_ends_a_waiting_writer_at_once(writer, full):
    writer.send_signal(signal.SIGTERM)
    assert writer.wait() == -signal.SIGTERM
    assert len(full) == 1


def test_blocked_reader_does_not_hold_up_closing_its_other_files(mnt, name, child):
    def close_beside_a_reader():
        path = mnt / 'mq' / name
        fds = [os.open(path, os.O_RDWR) for _ in range(3)]
        pid = os.fork()
        if pid == 0:
            os.close(fds[1])
            os.read(fds[0], 10)
            os._exit(0)
        eventually(lambda: threads_asleep(pid) == 1)
        for fd in fds:
            os.close(fd)
        path.write_bytes(b'done')
        return os.waitpid(pid, 0)[1]
    native.CREATE['mq'](name)
    assert child(close_beside_a_reader).result() == 0

"""Timeouts: never early, hardly later than sem_timedwait, and many at once in the order of their deadlines."""

import errno
import os
import random
import statistics
import time

import pytest

import native
from conftest import PATIENCE, attribute, eventually

TICK = 10**9 // os.sysconf('SC_CLK_TCK')  # the kernel's unit of times that users see, in nanoseconds


def duration(function, *arguments):
    """Nanoseconds until it times out, by the caller's CLOCK_MONOTONIC."""
    start = time.monotonic_ns()
    try:
        function(*arguments)
    except OSError as error:
        end = time.monotonic_ns()
        assert errno.errorcode[error.errno] == 'ETIMEDOUT'
        return end - start
    raise AssertionError('it did not time out')


@pytest.fixture
def semaphore(name):
    with native.create_semaphore(name) as semaphore:
        yield semaphore


@pytest.fixture
def queue(name):
    with native.create_queue(name, max_messages=1) as queue:
        yield queue


def seconds(nanoseconds):
    return f'{nanoseconds // 10**9}.{nanoseconds % 10**9:09}'


@pytest.mark.parametrize('timeout', [1, 1000, 1_000_000, 3_141_592, 20_000_001, 123_456_789, 1_000_000_000])
@pytest.mark.parametrize('what', ['sem', 'receive', 'send', 'text', 'stream', 'notify'])
def test_timeout_is_never_early(mnt, name, what, timeout):
    kind = 'sem' if what == 'sem' else 'mq'
    native.CREATE[kind](name)
    options = f'timeout={seconds(timeout)}' + (f',{what}' if what in ('text', 'stream', 'notify') else '')
    if what == 'send':
        with native.Queue(name) as queue:
            while len(queue) < queue.attributes.max_messages:
                queue.send(b'')
    fd = os.open(mnt / f'{kind}@{options}' / name, os.O_RDWR)
    operation = (lambda: native.write(fd, b'x')) if what == 'send' else (lambda: native.pread(fd, 100, 0))
    for _ in range(3 if timeout < 10**9 else 1):
        assert duration(operation) >= timeout


def test_timeout_counts_from_the_call_and_not_from_the_open(mnt, semaphore):
    fd = os.open(mnt / 'sem@timeout=0.05' / semaphore.name, os.O_RDONLY)
    time.sleep(0.1)
    assert duration(native.pread, fd, 10, 0) >= 50_000_000
    assert duration(native.pread, fd, 10, 0) >= 50_000_000


def test_timeout_of_a_second_reader_is_its_own(mnt, semaphore, child):
    """One that came later may end sooner."""
    def wait(timeout):
        fd = os.open(mnt / f'sem@timeout={timeout}' / semaphore.name, os.O_RDONLY)
        return duration(native.pread, fd, 10, 0)
    patient = child(wait, 1000)
    eventually(lambda: attribute(mnt / 'sem' / semaphore.name, 'waiting') == 1)
    assert child(wait, 0.02).result() >= 20_000_000
    assert patient.asleep
    semaphore.post()
    with pytest.raises(AssertionError):
        patient.result()


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_timeout_is_hardly_later_than_sem_timedwait(mnt, names, semaphore, kind):
    """By turns, so that what else runs on the machine delays both."""
    other = names()
    native.CREATE[kind](other)
    timeout = 5_000_000
    fd = os.open(mnt / f'{kind}@timeout={seconds(timeout)}' / other, os.O_RDONLY)
    late = {'native': [], 'here': []}
    for _ in range(100):
        late['native'].append(duration(semaphore.wait, timeout / 1e9) - timeout)
        late['here'].append(duration(native.pread, fd, 10, 0) - timeout)
    medians = {who: statistics.median(times) for who, times in late.items()}
    assert min(late['here']) >= 0
    assert medians['here'] - medians['native'] < 3 * TICK, medians


def rank_correlation(one, other):
    """Spearman's: 1 for the same order, about 0 for none."""
    def ranks(values):
        order = sorted(range(len(values)), key=values.__getitem__)
        return [rank for _, rank in sorted(zip(order, range(len(values))))]
    count = len(one)
    distance = sum((a - b) ** 2 for a, b in zip(ranks(one), ranks(other)))
    return 1 - 6 * distance / (count * (count ** 2 - 1))


@pytest.fixture
def thousand(names):
    """The timeouts of 1,000 waits at 100 objects, a path after each: "TIMEOUT:KIND@timeout=SECONDS/NAME"."""
    objects = []
    for _ in range(50):
        for kind in 'sem', 'mq':
            objects.append((kind, names()))
            if kind == 'sem':
                native.create_semaphore(objects[-1][1]).close()
            else:
                native.create_queue(objects[-1][1], max_messages=1, max_message_size=1).close()
    timeouts = [2_000_000_000 + 2_000_000 * number for number in range(1000)]
    random.shuffle(timeouts)
    return [(timeout, '{}@timeout={}/{}'.format(kind, seconds(timeout), name))
            for timeout, (kind, name) in zip(timeouts, objects * 10)]


def parse(output):
    """(timeout, start, end, error) of each line."""
    return [tuple(map(int, line.split())) for line in output.splitlines()]


def test_thousand_waits_end_in_the_order_of_their_deadlines(mnt, thousand, semaphore, peer):
    """
    In order, as far as the scheduler shows it to the callers, and not later than as many native ones by more than ticks.
    """
    here = peer('deadlines', *[f'{timeout}:{mnt / path}' for timeout, path in thousand])
    ended = parse(here.finish())
    native_peer = peer('deadlines', *[f'{timeout}:sem:{semaphore.name}' for timeout, _ in thousand])
    beside = parse(native_peer.finish())

    for waits in ended, beside:
        assert len(waits) == 1000
        assert {error for *_, error in waits} == {errno.ETIMEDOUT}
    late = [end - start - timeout for timeout, start, end, _ in ended]
    assert max(start for _, start, _, _ in ended) < min(end for _, _, end, _ in ended)  # all at once
    assert min(late) >= 0
    deadlines = [start + timeout for timeout, start, _, _ in ended]
    assert rank_correlation(deadlines, [end for _, _, end, _ in ended]) > 0.99
    natively = statistics.median(end - start - timeout for timeout, start, end, _ in beside)
    assert statistics.median(late) - natively < 3 * TICK
    assert all(attribute(mnt / path, name) in (0, None) for _, path in thousand[:100]
               for name in ('waiting', 'waiting_receivers'))


def test_waits_that_time_out_leave_those_that_do_not(mnt, name, child):
    """Half of them are given what they wait for, and get it."""
    with native.create_semaphore(name) as semaphore:
        def wait(timeout):
            fd = os.open(mnt / f'sem@timeout={timeout}' / name, os.O_RDONLY)
            return native.pread(fd, 10, 0)
        readers = []
        for number in range(20):
            readers.append(child(wait, '0.2' if number % 2 else '1000'))
        for reader in readers[1::2]:
            with pytest.raises(TimeoutError):
                reader.result()
        assert attribute(mnt / 'sem' / name, 'waiting') == 10
        semaphore.post(10)
        for reader in readers[::2]:
            assert reader.result() == b'1\n'
        assert semaphore.value == 0


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_what_comes_near_the_deadline_is_taken_or_left_but_not_lost(mnt, name, kind, child):
    """The unit goes to the reader, or stays where it is and the reader is told ETIMEDOUT."""
    native.CREATE[kind](name)
    path = mnt / kind / name

    def read(count):
        fd, taken = os.open(mnt / f'{kind}@timeout=0.002' / name, os.O_RDONLY), 0
        for _ in range(count):
            try:
                native.pread(fd, 10, 0)
                taken += 1
            except TimeoutError:
                pass
        return taken
    count = 300
    reader = child(read, count)
    giver = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    given = 0
    chance = random.Random(7)
    while not reader.finished:
        time.sleep(0.0015 + chance.random() / 1000)
        try:
            os.write(giver, b'1')
            given += 1
        except BlockingIOError:
            pass
    taken = reader.result(2 * PATIENCE)
    if kind == 'sem':
        with native.Semaphore(name) as semaphore:
            left = semaphore.value
    else:
        with native.Queue(name) as queue:
            left = len(queue)
    assert taken + left == given

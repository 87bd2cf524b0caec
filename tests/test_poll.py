"""poll, select and epoll: on both kinds that block, in both directions."""

import contextlib
import os
import select
import selectors

import pytest

import native
from conftest import eventually, sleeps_in

IN, OUT = select.POLLIN, select.POLLOUT


def polled(fd, events=IN | OUT):
    """What poll says at once."""
    poll = select.poll()
    poll.register(fd, events)
    return sum(event for _, event in poll.poll(0))


@pytest.fixture(params=['native', 'file'])
def peer_side(request):
    """Which side the other process works from."""
    return request.param


class SemaphorePeer:
    """The other process's hold of a semaphore: fill() is a post, drain() a wait."""

    def __init__(self, side, mnt, name):
        self.semaphore = native.create_semaphore(name)
        self.path = mnt / 'sem' / name
        self.side = side

    def fill(self):
        self.semaphore.post() if self.side == 'native' else self.path.write_bytes(b'1')

    def drain(self):
        self.semaphore.wait() if self.side == 'native' else self.path.read_bytes()

    def close(self):
        self.semaphore.close()


class QueuePeer:
    """The same with a queue that holds one message."""

    def __init__(self, side, mnt, name):
        self.queue = native.create_queue(name, max_messages=1)
        self.path = mnt / 'mq' / name
        self.side = side

    def fill(self):
        self.queue.send(b'1\n') if self.side == 'native' else self.path.write_bytes(b'1\n')

    def drain(self):
        self.queue.receive() if self.side == 'native' else self.path.read_bytes()

    def close(self):
        self.queue.close()


@pytest.fixture(params=[SemaphorePeer, QueuePeer], ids=['sem', 'mq'])
def other(request, peer_side, mnt, name):
    with contextlib.closing(request.param(peer_side, mnt, name)) as other:
        yield other


@pytest.fixture
def queue(mnt, name, peer_side):
    with contextlib.closing(QueuePeer(peer_side, mnt, name)) as queue:
        yield queue


@pytest.fixture
def fd(other):
    return os.open(other.path, os.O_RDWR | os.O_NONBLOCK)


def test_readable_while_there_is_something(other, fd):
    for _ in range(3):
        assert polled(fd, IN) == 0
        other.fill()
        assert polled(fd, IN) == polled(fd, IN) == IN
        other.drain()
    assert polled(fd, IN) == 0


def test_readable_means_that_a_read_succeeds(other, fd):
    other.fill()
    assert polled(fd, IN) == IN
    assert os.pread(fd, 10, 0) == b'1\n'
    assert polled(fd, IN) == 0


def test_semaphore_is_always_writable(mnt, name):
    with native.create_semaphore(name) as semaphore:
        fd = os.open(mnt / 'sem' / name, os.O_RDWR)
        assert polled(fd) == OUT
        semaphore.post()
        assert polled(fd) == IN | OUT


def test_queue_is_writable_while_it_has_room(queue):
    fd = os.open(queue.path, os.O_RDWR)
    for _ in range(3):
        assert polled(fd) == OUT
        queue.fill()
        assert polled(fd) == IN
        queue.drain()
    assert polled(fd) == OUT


def test_select_says_the_same(other, fd):
    assert select.select([fd], [], [], 0) == ([], [], [])
    other.fill()
    assert select.select([fd], [], [], 0) == ([fd], [], [])


def poll_once(path, events):
    fd = os.open(path, os.O_RDWR)
    poll = select.poll()
    poll.register(fd, events)
    return poll.poll()[0][1]


def asleep_in_poll(*children):
    return all('poll' in sleeps_in(child.pid) for child in children)


def test_sleeping_poll_is_woken(other, child):
    poller = child(poll_once, other.path, IN)
    eventually(lambda: asleep_in_poll(poller))
    other.fill()
    assert poller.result() == IN


def test_every_sleeping_poll_is_woken_and_none_takes_anything(other, child):
    pollers = [child(poll_once, other.path, IN) for _ in range(10)]
    eventually(lambda: asleep_in_poll(*pollers))
    other.fill()
    assert [poller.result() for poller in pollers] == [IN] * 10
    other.drain()


def test_poll_that_sleeps_for_room_is_woken(queue, child):
    queue.fill()
    poller = child(poll_once, queue.path, OUT)
    eventually(lambda: asleep_in_poll(poller))
    queue.drain()
    assert poller.result() == OUT


def test_poll_is_woken_though_another_waits_for_the_other_direction_of_the_same_open_file(queue, child):
    queue.fill()
    fd = os.open(queue.path, os.O_RDWR)

    def poll_for_room():
        poll = select.poll()
        poll.register(fd, OUT)
        return poll.poll()
    poller = child(poll_for_room)
    eventually(lambda: asleep_in_poll(poller))
    assert polled(fd, IN) == IN
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        queue.drain()
        assert poller.result() == [(fd, OUT)]


@pytest.mark.parametrize('events', [0, select.POLLPRI], ids=['nothing', 'POLLPRI'])
def test_poll_for_what_never_comes_leaves_wake_ups_to_others(mnt, name, child, events):
    with native.create_semaphore(name, 1) as semaphore, select.epoll() as epoll:
        epoll.register(os.open(mnt / 'sem' / name, os.O_RDWR), events)
        epoll.poll(0.05)  # so that it is seen with its value of 1
        for _ in range(3):
            semaphore.trywait()
            waiter = child(semaphore.wait)
            eventually(lambda: 'futex' in sleeps_in(waiter.pid))
            semaphore.post()
            waiter.result()
            semaphore.post()


def test_poll_times_out_where_nothing_happens(fd):
    poll = select.poll()
    poll.register(fd, IN)
    assert poll.poll(20) == []


def test_polling_leaves_the_value_alone(mnt, name, child):
    with native.create_semaphore(name) as semaphore:
        pollers = [child(poll_once, mnt / 'sem' / name, IN) for _ in range(10)]
        eventually(lambda: asleep_in_poll(*pollers))
        assert semaphore.value == 0
        semaphore.post()
        semaphore.trywait()
        for poller in pollers:
            poller.kill()
        assert semaphore.value == 0


def test_poll_and_a_blocked_reader_get_one_unit_between_them(mnt, name, child):
    def take_when_ready():
        fd = os.open(mnt / 'sem' / name, os.O_RDONLY | os.O_NONBLOCK)
        while True:
            select.select([fd], [], [])
            try:
                return os.read(fd, 10)
            except BlockingIOError:
                pass
    with native.create_semaphore(name) as semaphore:
        takers = [child(take_when_ready), child((mnt / 'sem' / name).read_bytes)]
        eventually(lambda: 'poll' in sleeps_in(takers[0].pid) or 'select' in sleeps_in(takers[0].pid))
        semaphore.post()
        eventually(lambda: any(taker.finished for taker in takers))
        assert semaphore.value == 0
        assert sum(taker.finished for taker in takers) == 1
        semaphore.post()
        assert [taker.result() for taker in takers] == [b'1\n'] * 2
        assert semaphore.value == 0


# epoll

@pytest.fixture
def epoll():
    with select.epoll() as epoll:
        yield epoll


def test_level_triggered_epoll_repeats_itself(other, fd, epoll):
    epoll.register(fd, select.EPOLLIN)
    assert epoll.poll(0) == []
    other.fill()
    assert epoll.poll(60) == epoll.poll(60) == [(fd, select.EPOLLIN)]
    other.drain()
    assert epoll.poll(0) == []


def test_edge_triggered_epoll_tells_each_change_after_eagain(other, fd, epoll):
    """As the run-times of Go and Rust use it: try, and sleep in epoll_wait after EAGAIN."""
    epoll.register(fd, select.EPOLLIN | select.EPOLLET)
    for _ in range(5):
        with pytest.raises(BlockingIOError):
            os.pread(fd, 10, 0)
        other.fill()
        assert epoll.poll(60) == [(fd, select.EPOLLIN)]
        assert os.pread(fd, 10, 0) == b'1\n'


def test_edge_triggered_epoll_tells_of_room_after_eagain(queue, epoll):
    fd = os.open(queue.path, os.O_WRONLY | os.O_NONBLOCK)
    queue.fill()
    epoll.register(fd, select.EPOLLOUT | select.EPOLLET)
    epoll.poll(0)
    for _ in range(5):
        with pytest.raises(BlockingIOError):
            os.write(fd, b'1\n')
        queue.drain()
        assert epoll.poll(60) == [(fd, select.EPOLLOUT)]
        assert os.write(fd, b'1\n') == 2


def test_edge_triggered_epoll_is_silent_while_nothing_changes(other, fd, epoll):
    other.fill()
    epoll.register(fd, select.EPOLLIN | select.EPOLLET)
    assert epoll.poll(60) == [(fd, select.EPOLLIN)]
    epoll.poll(0.05)  # epoll(7) permits an edge too many, here for the registration itself
    assert epoll.poll(0.2) == []


def test_edge_triggered_epoll_wakes_a_sleeper_every_time(other, child):
    rounds = 200

    def take_all():
        fd = os.open(other.path, os.O_RDONLY | os.O_NONBLOCK)
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLIN | select.EPOLLET)
            for _ in range(rounds):
                while True:
                    try:
                        os.pread(fd, 10, 0)
                        break
                    except BlockingIOError:
                        assert epoll.poll(60) == [(fd, select.EPOLLIN)]
        return rounds
    taker = child(take_all)
    for _ in range(rounds):
        other.fill()
    assert taker.result() == rounds


def test_edge_triggered_epoll_for_both_directions_is_silent_while_nothing_changes(other, fd, epoll):
    """As the run-times of Go and Rust register all that they have; a queue or semaphore is nearly always writable."""
    epoll.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    assert epoll.poll(60) == [(fd, select.EPOLLOUT)]
    epoll.poll(0.05)  # as above
    assert epoll.poll(0.2) == []
    other.fill()
    eventually(lambda: (fd, select.EPOLLIN) in [(at, event & select.EPOLLIN) for at, event in epoll.poll(60)])


def test_oneshot_epoll_is_armed_again(other, fd, epoll):
    epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
    other.fill()
    assert epoll.poll(60) == [(fd, select.EPOLLIN)]
    assert epoll.poll(0) == []
    epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
    assert epoll.poll(60) == [(fd, select.EPOLLIN)]


def test_selectors_watch_many_objects(mnt, names):
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        peers = []
        for number in range(50):
            peers.append((SemaphorePeer if number % 2 else QueuePeer)('native', mnt, names()))
            stack.callback(peers[-1].close)
            selector.register(os.open(peers[-1].path, os.O_RDONLY | os.O_NONBLOCK), selectors.EVENT_READ, peers[-1])
        assert selector.select(0) == []
        for chosen in (peers[3], peers[40]), (peers[0],), tuple(peers):
            for peer in chosen:
                peer.fill()
            eventually(lambda: len(selector.select(0)) == len(chosen))
            for key, _ in selector.select(60):
                assert key.data in chosen
                assert os.pread(key.fd, 10, 0) == b'1\n'
            assert selector.select(0) == []


def test_poll_works_on_a_removed_object(other, fd):
    os.unlink(other.path)
    assert polled(fd, IN) == 0
    os.write(fd, b'1\n')
    assert polled(fd, IN) == IN
    assert os.pread(fd, 10, 0) == b'1\n'


def test_closing_a_polled_file_is_quiet(other, child):
    poller = child(poll_once, other.path, IN)
    eventually(lambda: asleep_in_poll(poller))
    poller.kill()
    other.fill()
    other.drain()

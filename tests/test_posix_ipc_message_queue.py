"""posix_ipc.MessageQueue, behaviour by behaviour from posix_ipc's documentation, with mq_open's users as peers."""

import array
import os
import select
import selectors
import signal
import threading
import time

import pytest

import native
from conftest import PATIENCE, eventually, sleeps_in
from test_posix_ipc_module import posix_ipc  # noqa: F401, a fixture
from test_posix_ipc_semaphore import handler, polling, signal_soon  # noqa: F401, the first is a fixture


@pytest.fixture
def create(posix_ipc, name):
    """create(...) makes the queue, or with other flags opens it. Small, as RLIMIT_MSGQUEUE is."""
    opened = []

    def queue(max_messages=4, max_message_size=64, flags=posix_ipc.O_CREX, **parameters):
        opened.append(posix_ipc.MessageQueue(f'/{name}', flags, max_messages=max_messages,
                                             max_message_size=max_message_size, **parameters))
        return opened[-1]
    yield queue
    for each in opened:
        if each.mqd != -1:
            each.close()


@pytest.fixture
def peer(name):
    """peer() opens the queue natively."""
    opened = []

    def queue():
        opened.append(native.Queue(name))
        return opened[-1]
    yield queue
    for each in opened:
        each.close()


def fill(queue):
    for _ in range(queue.max_messages):
        queue.send('fill')


# The constructor

def test_limits_of_a_new_queue(create, peer):
    queue = create(3, 17)
    assert (queue.max_messages, queue.max_message_size) == (3, 17)
    assert peer().attributes[1:3] == (3, 17)


def test_limits_default_to_the_constants(posix_ipc, name, peer):
    queue = posix_ipc.MessageQueue(f'/{name}', posix_ipc.O_CREX)
    defaults = posix_ipc.QUEUE_MESSAGES_MAX_DEFAULT, posix_ipc.QUEUE_MESSAGE_SIZE_MAX_DEFAULT
    assert (queue.max_messages, queue.max_message_size) == defaults == peer().attributes[1:3]
    queue.close()


def test_one_limit_given_leaves_the_other_its_default(posix_ipc, name):
    queue = posix_ipc.MessageQueue(f'/{name}', posix_ipc.O_CREX, max_messages=1)
    assert (queue.max_messages, queue.max_message_size) == (1, posix_ipc.QUEUE_MESSAGE_SIZE_MAX_DEFAULT)
    queue.close()


def test_limits_count_only_for_a_new_queue(create, posix_ipc):
    create(3, 17)
    for flags in posix_ipc.O_CREAT, 0:
        queue = create(2, 99, flags=flags)
        assert (queue.max_messages, queue.max_message_size) == (3, 17)


@pytest.mark.parametrize('limits', [(0, 64), (-1, 64), (4, 0), (4, -1), (10**6, 64), (4, 2**62), (2**70, 64)])
def test_impossible_limits(create, mnt, name, limits):
    with pytest.raises((ValueError, OSError)) as caught:
        create(*limits)
    if min(limits) < 1:
        assert caught.type is ValueError
    assert not (mnt / 'mq' / name).exists()


def test_keyword_arguments(posix_ipc, name):
    queue = posix_ipc.MessageQueue(name=f'/{name}', flags=posix_ipc.O_CREX, mode=0o640, max_messages=1,
                                   max_message_size=256, read=True, write=True)
    queue.send(message='a', timeout=0, priority=2)
    assert queue.receive(timeout=0) == (b'a', 2)
    queue.request_notification(notification=None)
    queue.close()


def test_repr_tells_all(create, name):
    assert repr(create(3, 17, mode=0o640, write=False)) == (
        f'posix_ipc.MessageQueue("/{name}", mode=0640, max_message_size=17, max_messages=3, read=True, write=False)')


# read and write

def test_read_false(create, posix_ipc, peer):
    for queue in create(read=False), create(flags=0, read=False):
        queue.send('foo')
        with pytest.raises(posix_ipc.PermissionsError):
            queue.receive()
        assert peer().receive() == (b'foo', 0)


def test_write_false(create, posix_ipc, peer):
    for queue in create(write=False), create(flags=0, write=False):
        with pytest.raises(posix_ipc.PermissionsError):
            queue.send('foo')
        peer().send(b'foo')
        assert queue.receive() == (b'foo', 0)


def test_neither(create, mnt, name):
    with pytest.raises(ValueError):
        create(read=False, write=False)
    assert not (mnt / 'mq' / name).exists()


def test_read_and_write_where_the_mode_allows_one(create, posix_ipc, name, child):
    create(mode=0o644).send('foo')
    def receive(**access):
        return posix_ipc.MessageQueue(f'/{name}', **access).receive()
    with pytest.raises(posix_ipc.PermissionsError):
        child(receive, user=1000).result()
    assert child(lambda: receive(write=False), user=1000).result() == (b'foo', 0)


@pytest.mark.parametrize('mode', [0, 0o200, 0o400])
def test_the_creator_may_do_all_whatever_the_mode(posix_ipc, name, child, mode):
    def use():
        queue = posix_ipc.MessageQueue(f'/{name}', posix_ipc.O_CREX, mode, 2, 16)
        queue.send('a', 1)
        queue.block = False
        return queue.receive(1), queue.current_messages, queue.block
    assert child(use, user=1000).result() == ((b'a', 0), 0, False)


# send() and receive()

def test_send_and_receive(create, peer):
    queue = create()
    assert queue.send(b'out') is None
    assert peer().receive() == (b'out', 0)
    peer().send(b'in', 7)
    assert queue.receive() == (b'in', 7)


@pytest.mark.parametrize('message, received', [
    ('text', b'text'), ('ü', 'ü'.encode()), ('', b''), (b'', b''), ('a\0b', b'a\0b'), (b'\0', b'\0'), (b' 5 x\n', b' 5 x\n'),
    (b'\n', b'\n'), (bytes(range(64)), bytes(range(64))), (bytearray(b'array'), b'array'), (memoryview(b'view'), b'view'),
    (array.array('H', [0x4141, 0x4242]), b'AABB')])
def test_messages(create, peer, message, received):
    queue = create()
    queue.send(message, priority=3)
    assert peer().receive() == (received, 3)
    peer().send(received, 4)
    assert queue.receive() == (received, 4)


@pytest.mark.parametrize('message', [None, 5, ['a'], object()])
def test_what_is_no_message(create, message):
    queue = create()
    with pytest.raises(TypeError):
        queue.send(message)
    assert queue.current_messages == 0


def test_message_too_long(create):
    queue = create(max_message_size=10)
    queue.send(10 * ' ')
    with pytest.raises(ValueError):
        queue.send(11 * ' ')
    assert queue.current_messages == 1


def test_highest_priority_first_and_fifo_within(create):
    queue = create(8)
    for message, priority in ('a', 1), ('b', 3), ('c', 2), ('d', 1), ('e', 3), ('f', 0):
        queue.send(message, priority=priority)
    assert [queue.receive() for _ in range(6)] == [
        (b'b', 3), (b'e', 3), (b'c', 2), (b'a', 1), (b'd', 1), (b'f', 0)]


@pytest.mark.parametrize('priority', [0, 1, 42, 9999, 10000, 32766, 32767])
def test_priorities(create, peer, priority):
    queue = create()
    queue.send('foo', None, priority)
    assert peer().receive() == (b'foo', priority)
    peer().send(b'foo', priority)
    assert queue.receive() == (b'foo', priority)


def test_priority_out_of_range(create, posix_ipc):
    queue = create()
    for priority in -1, posix_ipc.QUEUE_PRIORITY_MAX + 1, 2**40:
        with pytest.raises(ValueError):
            queue.send('foo', priority=priority)
    with pytest.raises(TypeError):
        queue.send('foo', priority='1')
    assert queue.current_messages == 0


def test_a_queue_of_the_longest_messages(posix_ipc, name, peer):
    longest = int(open('/proc/sys/fs/mqueue/msgsize_max').read())
    queue = posix_ipc.MessageQueue(f'/{name}', posix_ipc.O_CREX, max_messages=1, max_message_size=longest)
    message = os.urandom(longest)
    queue.send(message, priority=32767)
    assert peer().receive() == (message, 32767)
    peer().send(message, 32767)
    assert queue.receive() == (message, 32767)
    queue.close()


def test_receive_waits_for_a_message(create, peer, child):
    receiver = child(create().receive)
    eventually(lambda: polling(receiver))
    peer().send(b'late', 5)
    assert receiver.result() == (b'late', 5)


def test_send_waits_for_room(create, peer, child):
    queue = create()
    fill(queue)
    sender = child(queue.send, 'late')
    eventually(lambda: polling(sender))
    assert peer().receive() == (b'fill', 0)
    sender.result()
    assert queue.current_messages == 4


@pytest.mark.parametrize('timeout', [0, 0.0])
def test_timeout_0_does_not_wait(create, posix_ipc, timeout):
    queue = create()
    with pytest.raises(posix_ipc.BusyError):
        queue.receive(timeout)
    for _ in range(4):
        queue.send('foo', timeout)
    with pytest.raises(posix_ipc.BusyError):
        queue.send('foo', timeout)
    assert queue.receive(timeout) == (b'foo', 0)


@pytest.mark.parametrize('timeout', [1, 0.25])
def test_timeout_is_not_early_and_about_as_late_as_the_native_one(create, posix_ipc, peer, timeout):
    def took(wait, error):
        before = time.monotonic()
        with pytest.raises(error):
            wait()
        return time.monotonic() - before
    queue = create()
    peer_took = took(lambda: peer().receive(timeout), TimeoutError)
    assert timeout <= took(lambda: queue.receive(timeout), posix_ipc.BusyError) < 2 * peer_took + 0.1
    fill(queue)
    assert timeout <= took(lambda: queue.send('foo', timeout), posix_ipc.BusyError) < 2 * peer_took + 0.1


@pytest.mark.parametrize('timeout', [None, 30, 30.5])
def test_the_wait_ends_within_the_timeout(create, peer, child, timeout):
    queue = create()
    receiver = child(queue.receive, timeout)
    eventually(lambda: polling(receiver))
    peer().send(b'late')
    assert receiver.result() == (b'late', 0)
    fill(queue)
    sender = child(queue.send, 'late', timeout)
    eventually(lambda: polling(sender))
    peer().receive()
    sender.result()


@pytest.mark.parametrize('timeout', [-1, -0.5, '1', []])
def test_what_is_no_timeout(create, timeout):
    queue = create()
    for use in (queue.send, 'foo', timeout), (queue.receive, timeout):
        with pytest.raises(TypeError):
            use[0](*use[1:])
    assert queue.current_messages == 0


def test_signal_ends_the_waits(create, posix_ipc, handler):
    seen = []
    handler(lambda *_: seen.append(True))
    queue = create()
    for wait in queue.receive, lambda: queue.send('one too many'):
        sender = signal_soon()
        with pytest.raises(posix_ipc.SignalError):
            wait()
        sender.join()
        if not queue.current_messages:
            fill(queue)
    assert seen == [True, True]


def test_keyboard_interrupt_is_itself(create):
    sender = signal_soon(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        create().receive(60)
    sender.join()


def test_producers_and_consumers(create, child):
    queue = create()
    def consume():
        return [queue.receive() for _ in range(100)]
    consumers = [child(consume) for _ in range(2)]
    producers = [child(lambda which: [queue.send(f'{which} {i}') for i in range(100)], which) for which in 'ab']
    for producer in producers:
        producer.result()
    received = [message for consumer in consumers for message in consumer.result()]
    assert sorted(received) == sorted((f'{which} {i}'.encode(), 0) for which in 'ab' for i in range(100))


# block

def test_block_is_true_and_can_be_set(create):
    queue = create()
    assert queue.block is True
    queue.block = False
    assert queue.block is False
    queue.block = 1
    assert queue.block is True


def test_block_false_never_waits_whatever_the_timeout(create, posix_ipc):
    queue = create()
    queue.block = False
    for timeout in None, 30:
        with pytest.raises(posix_ipc.BusyError):
            queue.receive(timeout)
    fill(queue)
    for timeout in None, 30:
        with pytest.raises(posix_ipc.BusyError):
            queue.send('foo', timeout)
    queue.block = True
    with pytest.raises(posix_ipc.BusyError):
        queue.send('foo', 0.01)


def test_block_of_one_handle_is_not_that_of_another(create):
    first, second = create(), create(flags=0)
    first.block = False
    assert (first.block, second.block) == (False, True)


def test_o_nonblock_is_block_false(create, posix_ipc):
    queue = create(flags=posix_ipc.O_CREX | posix_ipc.O_NONBLOCK)
    assert queue.block is False
    with pytest.raises(posix_ipc.BusyError):
        queue.receive()


def test_block_is_shared_with_a_forked_child(create, child):
    queue = create()
    child(setattr, queue, 'block', False).result()
    assert queue.block is False


# The descriptor

def test_mqd_is_fileno(create):
    queue = create()
    assert queue.mqd == queue.fileno() >= 0
    assert not os.get_inheritable(queue.mqd)


def test_select(create, peer):
    queue = create()
    assert select.select([queue], [queue], [], 0) == ([], [queue], [])
    fill(queue)
    assert select.select([queue], [queue], [], 0) == ([queue], [], [])
    threading.Timer(0.05, peer().receive).start()
    assert select.select([], [queue], [], 30) == ([], [queue], [])


def test_selectors(create, peer):
    queue = create()
    with selectors.DefaultSelector() as selector:
        selector.register(queue, selectors.EVENT_READ)
        assert selector.select(0) == []
        threading.Timer(0.05, peer().send, [b'late']).start()
        (key, events), = selector.select(30)
        assert (key.fileobj, events) == (queue, selectors.EVENT_READ)
        assert queue.receive(0) == (b'late', 0)
        assert selector.select(0) == []


def test_threads_select_one_handle_for_different_things(create, peer):
    queue, full = create(max_messages=1), threading.Event()
    def await_message():
        select.select([queue], [], [], 2 * PATIENCE)
        full.set()
    thread = threading.Thread(target=await_message, daemon=True)
    thread.start()
    eventually(lambda: 'poll' in sleeps_in(os.getpid(), thread.native_id))
    assert select.select([], [queue], [], 0) == ([], [queue], [])
    peer().send(b'foo')
    assert full.wait(PATIENCE)
    thread.join()


def test_current_messages(create, peer):
    queue = create()
    for count in 1, 2, 3:
        queue.send('foo')
        assert queue.current_messages == len(peer()) == count
    peer().receive()
    assert queue.current_messages == 2


# close() and unlink()

def test_closed_handle(create, posix_ipc, name):
    queue = create()
    assert queue.close() is None
    assert queue.mqd == queue.fileno() == -1
    uses = (queue.receive, lambda: queue.send('foo'), queue.close, lambda: queue.current_messages, lambda: queue.block,
            lambda: setattr(queue, 'block', True), lambda: queue.request_notification(signal.SIGUSR1))
    for use in uses:
        with pytest.raises(posix_ipc.ExistentialError):
            use()
    assert (queue.name, queue.max_messages, queue.max_message_size) == (f'/{name}', 4, 64)
    queue.unlink()


def test_close_leaves_the_queue_and_other_handles(create):
    closed, other = create(), create(flags=0)
    closed.send('foo')
    closed.close()
    assert other.receive() == (b'foo', 0)
    create(flags=0)


def test_mqd_is_not_closed_with_the_handle(posix_ipc, name):
    mqd = posix_ipc.MessageQueue(f'/{name}', posix_ipc.O_CREX, max_messages=1, max_message_size=1).mqd
    os.fstat(mqd)
    os.close(mqd)


def test_unlinked_queue_goes_on_for_its_users(create, posix_ipc, peer):
    queue, other = create(), peer()
    assert queue.unlink() is None
    with pytest.raises(posix_ipc.ExistentialError):
        create(flags=0)
    other.send(b'in', 3)
    assert queue.current_messages == 1
    assert queue.receive(5) == (b'in', 3)
    with pytest.raises(posix_ipc.BusyError):
        queue.receive(0.05)
    queue.send('out', 5)
    assert other.receive() == (b'out', 0)


def test_unlinked_name_is_free_for_another(create):
    old = create()
    old.unlink()
    new = create()
    old.send('old')
    assert (old.current_messages, new.current_messages) == (1, 0)


def test_unlink_twice(create, posix_ipc):
    queue = create()
    queue.unlink()
    with pytest.raises(posix_ipc.ExistentialError):
        queue.unlink()


# request_notification()

@pytest.fixture
def signals(handler):
    """The SIGUSR1s that have come."""
    seen = []
    handler(lambda number, _: seen.append(number))
    return seen


def settled():
    """Time for what must not happen to happen."""
    time.sleep(0.1)


def test_notification_by_signal(create, signals, peer):
    queue = create()
    assert queue.request_notification(signal.SIGUSR1) is None
    settled()
    assert signals == []
    peer().send(b'foo')
    eventually(lambda: signals == [signal.SIGUSR1])


def test_notification_by_signal_of_a_message_through_the_mount(create, signals):
    queue = create()
    queue.request_notification(int(signal.SIGUSR1))
    create(flags=0).send('foo')
    eventually(lambda: signals == [signal.SIGUSR1])


def test_notification_by_realtime_signal(create, posix_ipc, peer):
    seen = []
    for number in posix_ipc.USER_SIGNAL_MIN, posix_ipc.USER_SIGNAL_MAX:
        before = signal.signal(number, lambda number, _: seen.append(number))
        try:
            queue = create(flags=posix_ipc.O_CREAT)
            queue.request_notification(number)
            peer().send(b'foo')
            eventually(lambda: number in seen)
            peer().receive()
        finally:
            signal.signal(number, before)


def test_notification_is_one_shot(create, signals):
    queue = create()
    queue.request_notification(signal.SIGUSR1)
    queue.send('first')
    eventually(lambda: len(signals) == 1)
    queue.send('second')
    queue.receive()
    queue.receive()
    queue.send('third, into an empty queue')
    settled()
    assert len(signals) == 1


def test_notification_only_when_the_queue_was_empty(create, signals):
    queue = create()
    queue.send('before')
    queue.request_notification(signal.SIGUSR1)
    queue.send('not into an empty queue')
    settled()
    assert signals == []
    queue.receive()
    queue.receive()
    queue.send('into an empty queue')
    eventually(lambda: len(signals) == 1)


@pytest.mark.parametrize('withdraw', [(), (None,)])
def test_notification_withdrawn(create, signals, peer, withdraw):
    queue = create()
    queue.request_notification(signal.SIGUSR1)
    assert queue.request_notification(*withdraw) is None
    peer().notify(signal.SIGUSR2)
    peer().notify(None)
    queue.send('foo')
    settled()
    assert signals == []


def test_withdrawing_again_and_again(create):
    queue = create()
    queue.request_notification(signal.SIGUSR1)
    for _ in range(1000):
        queue.request_notification()


def test_notification_in_a_thread(create, peer):
    queue, told = create(), threading.Event()
    threads = []
    def tell(parameter):
        threads.append(threading.current_thread())
        parameter.set()
    assert queue.request_notification((tell, told)) is None
    assert not told.wait(0.1)
    peer().send(b'foo')
    assert told.wait(30)
    assert threads[0] is not threading.current_thread()
    queue.receive()
    told.clear()
    peer().send(b'foo')
    assert not told.wait(0.1)


def test_notification_in_a_thread_withdrawn(create, peer):
    queue, told = create(), threading.Event()
    before = threading.active_count()
    queue.request_notification((lambda _: told.set(), None))
    queue.request_notification(None)
    peer().send(b'foo')
    assert not told.wait(0.1)
    eventually(lambda: threading.active_count() == before)


def test_notified_thread_asks_again(create):
    queue, told = create(), threading.Semaphore(0)
    def tell(parameter):
        queue.request_notification((tell, parameter))
        parameter.release()
    queue.request_notification((tell, told))
    for _ in range(10):
        queue.send('')
        assert told.acquire(timeout=30)
        queue.receive()
    queue.request_notification()


def test_signal_handler_asks_again(create, handler):
    queue, seen = create(), []
    def again(number, _):
        queue.request_notification(signal.SIGUSR1)
        seen.append(number)
    handler(again)
    queue.request_notification(signal.SIGUSR1)
    for count in range(1, 11):
        queue.send('')
        eventually(lambda: len(seen) == count)
        queue.receive()


def test_notification_replaces_this_process_s_own(create, signals, peer):
    """Also one asked for by another handle: mq_notify knows processes, not descriptors."""
    first, second, told = create(), create(flags=0), threading.Event()
    first.request_notification((lambda _: told.set(), None))
    second.request_notification(signal.SIGUSR2)
    first.request_notification(signal.SIGUSR1)
    peer().send(b'foo')
    eventually(lambda: signals == [signal.SIGUSR1])
    assert not told.is_set()


def test_notification_asked_for_in_another_thread(create, signals, peer):
    queue = create()
    asking = threading.Thread(target=queue.request_notification, args=[signal.SIGUSR1])
    asking.start()
    asking.join()
    peer().send(b'foo')
    eventually(lambda: signals == [signal.SIGUSR1])


@pytest.mark.parametrize('notification', [signal.SIGUSR1, (print, 'told')])
def test_notification_taken_natively(create, posix_ipc, name, child, notification):
    queue = create()
    reading, writing = os.pipe()
    def hold():
        native.Queue(name).notify(signal.SIGUSR1)
        os.read(reading, 1)
    holder = child(hold)
    eventually(lambda: os.getxattr(queue.mqd, 'user.ipcfs.notify_pid') == b'%d' % holder.pid)
    with pytest.raises(posix_ipc.BusyError):
        queue.request_notification(notification)
    queue.request_notification(None)
    assert os.getxattr(queue.mqd, 'user.ipcfs.notify_pid') == b'%d' % holder.pid
    os.write(writing, b'x')
    holder.result()
    queue.request_notification(notification)
    queue.request_notification(None)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize('notification', [signal.SIGUSR1, (print, 'told')])
def test_notification_taken_through_the_mount(create, posix_ipc, peer, child, notification):
    queue = create()
    queue.request_notification(signal.SIGUSR1)
    def ask():
        queue.request_notification(None)
        queue.request_notification(notification)
    with pytest.raises(posix_ipc.BusyError):
        child(ask).result()
    with pytest.raises(OSError):
        peer().notify(signal.SIGUSR1)


def test_notification_ends_with_close(create, peer):
    queue = create()
    for notification in signal.SIGUSR1, (print, 'told'):
        queue.request_notification(notification)
        queue.close()
        peer().notify(signal.SIGUSR1)
        peer().notify(None)
        queue = create(flags=0)


def test_notification_is_not_the_forked_childs(create, signals, peer, child):
    queue = create()
    queue.request_notification(signal.SIGUSR1)
    child(queue.close).result()
    peer().send(b'foo')
    eventually(lambda: signals == [signal.SIGUSR1])


def test_notification_ends_with_the_process(create, peer, child):
    queue = create()
    def ask():
        queue.request_notification(signal.SIGUSR1)
        os._exit(7)
    assert child(ask).wait() == 7
    def free():
        try:
            peer().notify(signal.SIGUSR1)
            return True
        except OSError:
            return False
    eventually(free)


@pytest.mark.parametrize('notification', ['SIGUSR1', 1.5, (), (print,), (print, 1, 2), ('print', 1), [print, 1], print])
def test_what_is_no_notification(create, signals, notification):
    queue = create()
    queue.request_notification(signal.SIGUSR1)
    with pytest.raises(ValueError):
        queue.request_notification(notification)
    queue.send('foo')
    eventually(lambda: signals == [signal.SIGUSR1])


@pytest.mark.parametrize('number', [-1, 65, 10**9])
def test_what_is_no_signal(create, number):
    with pytest.raises(ValueError):
        create().request_notification(number)


def test_notification_where_the_queue_is_open_one_way(create, signals, peer):
    for queue in create(read=False), create(flags=0, write=False):
        queue.request_notification(signal.SIGUSR1)
        peer().send(b'foo')
        eventually(lambda: signals)
        peer().receive()
        signals.clear()

"""Message queues: a write sends a message, a read receives one, from either side."""

import errno
import fcntl
import os
import resource
import signal

import pytest

import native
from conftest import attribute, eventually, parked

USER = 54321


@pytest.fixture
def path(mnt, name):
    return mnt / 'mq' / name


@pytest.fixture
def queue(name):
    with native.create_queue(name, max_messages=4, max_message_size=64) as queue:
        yield queue


def fill(queue):
    while len(queue) < queue.attributes.max_messages:
        queue.send(b'filler')


def messages(queue):
    return [queue.receive()[0] for _ in range(len(queue))]


def read_once(path, flags=0):
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        return native.read(fd, 8192)
    finally:
        os.close(fd)


def write_once(path, message, flags=0):
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        return native.write(fd, message)
    finally:
        os.close(fd)


def test_touched_file_is_a_queue_with_the_default_attributes(path, name):
    path.touch()
    system = [int(open(f'/proc/sys/fs/mqueue/{what}_default').read()) for what in ('msg', 'msgsize')]
    with native.Queue(name) as queue:
        assert [queue.attributes.max_messages, queue.attributes.max_message_size] == system


def test_queue_of_the_default_size_carries_8192_bytes_both_ways(path, name):
    path.touch()
    message = os.urandom(8192)
    with native.Queue(name) as queue:
        path.write_bytes(message)
        assert queue.receive() == (message, 0)
        queue.send(message)
        assert path.read_bytes() == message


def test_opening_an_existing_one_to_create_it_keeps_its_messages_and_attributes(path, queue):
    queue.send(b'kept')
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    assert queue.attributes[1:] == (4, 64, 1)


@pytest.mark.parametrize('message', [b'x', b'a line\n', bytes(range(64)), b'\0' * 64])
def test_message_written_is_received_natively(path, queue, message):
    assert write_once(path, message) == len(message)
    assert queue.receive() == (message, 0)


@pytest.mark.parametrize('message', [b'x', b'a line\n', bytes(range(64)), b'\0' * 64])
def test_message_sent_natively_is_read(path, queue, message):
    queue.send(message)
    assert path.read_bytes() == message
    assert len(queue) == 0


def test_message_written_is_read(path, queue):
    path.write_bytes(b'through')
    assert path.read_bytes() == b'through'


def test_empty_message_is_received(path, queue):
    queue.send(b'')
    queue.send(b'next')
    fd = os.open(path, os.O_RDONLY)
    assert [os.pread(fd, 100, 0) for _ in range(2)] == [b'', b'next']


def test_empty_write_sends_nothing(path, queue):
    assert write_once(path, b'') == 0
    assert len(queue) == 0


def test_highest_priority_is_read_first_and_fifo_within_it(path, queue):
    for priority, message in ((1, b'1a'), (5, b'5a'), (1, b'1b'), (native.MQ_PRIO_MAX - 1, b'max')):
        queue.send(message, priority)
    fd = os.open(path, os.O_RDONLY)
    assert [os.pread(fd, 100, 0) for _ in range(4)] == [b'max', b'5a', b'1a', b'1b']


def test_written_messages_have_priority_0(path, queue):
    queue.send(b'urgent', 3)
    path.write_bytes(b'ordinary')
    queue.send(b'more urgent', 4)
    assert [queue.receive()[1] for _ in range(3)] == [4, 3, 0]


# The offset decides what a read does

def test_small_reads_lose_nothing(path, queue):
    first, second = b'0123456789' * 6, b'second'
    queue.send(first)
    queue.send(second)
    fd = os.open(path, os.O_RDONLY)
    parts = [os.read(fd, 7) for _ in range(10)]
    assert b''.join(parts) == first and parts[-1] == b''
    assert len(queue) == 1
    os.lseek(fd, 0, os.SEEK_SET)
    assert os.read(fd, 100) == second


def test_later_offsets_continue_the_last_message(path, queue):
    queue.send(b'0123456789')
    queue.send(b'abcdef')
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 2, 0) == b'01'
    assert os.pread(fd, 3, 5) == b'567'
    assert os.pread(fd, 100, 2) == b'23456789'
    assert os.pread(fd, 100, 10) == b''
    assert os.pread(fd, 2, 0) == b'ab'
    assert os.pread(fd, 100, 2) == b'cdef'


def test_later_offset_before_any_operation_is_end_of_file(path, queue):
    queue.send(b'message')
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 10, 3) == b''
    assert len(queue) == 1


def test_open_files_continue_their_own_message_only(path, queue):
    queue.send(b'first')
    queue.send(b'other')
    one, two = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    assert (os.pread(one, 1, 0), os.pread(two, 1, 0)) == (b'f', b'o')
    assert (os.pread(one, 10, 1), os.pread(two, 10, 1)) == (b'irst', b'ther')


def test_reading_and_writing_through_one_open_file(path, queue):
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b'first')
    os.write(fd, b'second')
    assert [os.pread(fd, 10, 0) for _ in range(2)] == [b'first', b'second']


def test_write_offset_append_and_truncation_change_nothing(path, queue):
    queue.send(b'kept')
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.pwrite(fd, b'sent', 1000)
    assert messages(queue) == [b'kept', b'sent']


# Too long

@pytest.mark.parametrize('length', [65, 4096, 4097, 2**17, 2**20 - 1, 2**20, 2**20 + 10, 3 * 2**20])
def test_longer_message_is_refused_whole(path, queue, length):
    with pytest.raises(OSError) as failure:
        write_once(path, b'x' * length)
    assert failure.value.errno == errno.EMSGSIZE
    assert len(queue) == 0
    assert write_once(path, b'y' * 64) == 64


def test_longer_message_is_refused_also_where_the_queue_is_full(path, queue):
    fill(queue)
    with pytest.raises(OSError) as failure:
        write_once(path, b'x' * 65)
    assert failure.value.errno == errno.EMSGSIZE


def test_message_gathered_from_many_pieces_is_sent_whole(path, queue):
    fd = os.open(path, os.O_WRONLY)
    assert os.writev(fd, [b'%d' % (n % 10) for n in range(64)]) == 64
    assert queue.receive()[0] == (b'0123456789' * 7)[:64]


# Blocking

def test_native_send_wakes_a_reader(path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    queue.send(b'hello')
    assert reader.result() == b'hello'


def test_write_wakes_a_native_receiver(path, queue, child):
    receiver = child(queue.receive)
    path.write_bytes(b'hello')
    assert receiver.result() == (b'hello', 0)


def test_write_wakes_a_reader(path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    path.write_bytes(b'hello')
    assert reader.result() == b'hello'


def test_native_receive_makes_room_for_a_writer(path, queue, child):
    fill(queue)
    writer = child(write_once, path, b'last')
    eventually(lambda: parked(path, writer))
    assert queue.receive()[0] == b'filler'
    assert writer.result() == 4
    assert messages(queue) == [b'filler'] * 3 + [b'last']


def test_read_makes_room_for_a_native_sender(path, queue, child):
    fill(queue)
    sender = child(queue.send, b'last')
    assert path.read_bytes() == b'filler'
    sender.result()
    assert messages(queue) == [b'filler'] * 3 + [b'last']


def test_read_makes_room_for_a_writer(path, queue, child):
    fill(queue)
    writer = child(write_once, path, b'last')
    eventually(lambda: parked(path, writer))
    assert path.read_bytes() == b'filler'
    assert writer.result() == 4


def test_readers_are_served_in_the_order_they_came(path, queue, child):
    readers = []
    for _ in range(5):
        readers.append(child(read_once, path))
        eventually(lambda: parked(path, *readers))
    for number, reader in enumerate(readers):
        queue.send(b'%d' % number)
        assert reader.result() == b'%d' % number


def test_messages_that_come_all_at_once_go_to_readers_in_their_order(path, queue, child):
    readers = []
    for _ in range(4):
        readers.append(child(read_once, path))
        eventually(lambda: parked(path, *readers))
    for number in range(4):
        queue.send(b'%d' % number)
    assert [reader.result() for reader in readers] == [b'0', b'1', b'2', b'3']


def test_writers_are_served_in_the_order_they_came(path, queue, child):
    fill(queue)
    writers = []
    for number in range(5):
        writers.append(child(write_once, path, b'%d' % number))
        eventually(lambda: parked(path, *writers))
    received = [queue.receive(timeout=60)[0] for _ in range(9)]
    assert received == [b'filler'] * 4 + [b'0', b'1', b'2', b'3', b'4']


def test_reader_that_never_waits_does_not_overtake_those_who_do(path, queue, child):
    fill(queue)
    for _ in range(4):
        assert read_once(path, os.O_NONBLOCK) == b'filler'
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    with pytest.raises(BlockingIOError):
        read_once(path, os.O_NONBLOCK)
    queue.send(b'for the first')
    assert reader.result() == b'for the first'


def test_nonblocking_read_of_an_empty_queue_fails_at_once(path, queue):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.pread(fd, 100, 0)
    queue.send(b'there')
    assert os.pread(fd, 100, 0) == b'there'


def test_nonblocking_write_to_a_full_queue_fails_at_once(path, queue):
    fill(queue)
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.write(fd, b'no room')
    queue.receive()
    assert os.write(fd, b'room') == 4


def test_nonblocking_can_be_set_and_taken_back_later(path, queue, child):
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.pread(fd, 100, 0)
    fill(queue)
    with pytest.raises(BlockingIOError):
        os.write(fd, b'no room')
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    writer = child(native.write, fd, b'waits')
    eventually(lambda: parked(path, writer))
    queue.receive()
    assert writer.result() == 5


def with_a_handler(function, *arguments):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return function(*arguments)


def test_signal_ends_a_read_and_nothing_is_received(path, queue, child):
    reader = child(with_a_handler, read_once, path)
    eventually(lambda: parked(path, reader))
    reader.send_signal(signal.SIGUSR1)
    with pytest.raises(InterruptedError):
        reader.result()
    queue.send(b'still there')
    assert messages(queue) == [b'still there']


def test_signal_ends_a_write_and_nothing_is_sent(path, queue, child):
    fill(queue)
    writer = child(with_a_handler, write_once, path, b'never')
    eventually(lambda: parked(path, writer))
    writer.send_signal(signal.SIGUSR1)
    with pytest.raises(InterruptedError):
        writer.result()
    queue.receive()
    assert messages(queue) == [b'filler'] * 3


def test_killed_reader_and_writer_move_nothing(path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    reader.kill()
    eventually(lambda: parked(path))
    fill(queue)
    assert len(queue) == 4
    writer = child(write_once, path, b'never')
    eventually(lambda: parked(path, writer))
    writer.kill()
    eventually(lambda: parked(path))
    queue.receive()
    assert messages(queue) == [b'filler'] * 3


def test_reader_behind_a_killed_one_is_served(path, queue, child):
    first = child(read_once, path)
    eventually(lambda: parked(path, first))
    second = child(read_once, path)
    eventually(lambda: parked(path, first, second))
    first.kill()
    queue.send(b'message')
    assert second.result() == b'message'


def test_waiting_receivers_and_senders_are_counted_apart(path, queue, child):
    if attribute(path, 'waiting_receivers') is None:
        pytest.skip('this daemon has no attributes')
    reader = child(read_once, path)
    eventually(lambda: attribute(path, 'waiting_receivers') == 1)
    assert attribute(path, 'waiting_senders') == 0
    queue.send(b'message')
    reader.result()
    fill(queue)
    child(write_once, path, b'more')
    eventually(lambda: attribute(path, 'waiting_senders') == 1)
    assert attribute(path, 'waiting_receivers') == 0


# Rights of the open file

def test_file_opened_one_way_does_not_work_the_other(path, queue):
    with pytest.raises(OSError) as failure:
        os.write(os.open(path, os.O_RDONLY), b'x')
    assert failure.value.errno == errno.EBADF
    with pytest.raises(OSError) as failure:
        os.read(os.open(path, os.O_WRONLY), 10)
    assert failure.value.errno == errno.EBADF


# Removal

@pytest.mark.parametrize('remove', ['rm', 'mq_unlink'])
def test_removed_queue_works_on_behind_an_open_file(path, queue, name, remove):
    fd = os.open(path, os.O_RDWR)
    os.unlink(path) if remove == 'rm' else native.mq_unlink(name)
    os.write(fd, b'to native')
    assert queue.receive()[0] == b'to native'
    queue.send(b'to the file')
    assert os.pread(fd, 100, 0) == b'to the file'


def test_queue_made_anew_is_another_one(path, queue, name):
    fd = os.open(path, os.O_RDWR)
    native.mq_unlink(name)
    with native.create_queue(name) as second:
        os.write(fd, b'to the first')
        path.write_bytes(b'to the second')
        assert (messages(queue), messages(second)) == ([b'to the first'], [b'to the second'])


def test_reader_of_a_removed_queue_is_woken_by_those_who_have_it(path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    path.unlink()
    assert reader.asleep
    queue.send(b'late')
    assert reader.result() == b'late'


# The system's limits

def create_until_refused(create, limit):
    """How many queues of the default size could be made, and the errno that ended it."""
    for count in range(limit):
        try:
            create(count)
        except OSError as failure:
            return count, failure.errno
    return limit, 0


def test_queues_count_against_their_creator_and_the_limit_answers_as_natively(mnt, name, child):
    limit = 100
    by_file = lambda number: os.close(os.open(mnt / 'mq' / f'{name}{number}', os.O_CREAT | os.O_EXCL))
    natively = lambda number: native.Queue(f'{name}n{number}', os.O_CREAT | os.O_EXCL).close()
    before, refusal = child(create_until_refused, natively, limit, user=USER).result()
    for number in range(before):
        native.mq_unlink(f'{name}n{number}')
    assert child(create_until_refused, by_file, limit, user=USER).result() == (before, refusal)
    assert refusal == errno.EMFILE
    (mnt / 'mq' / f'{name}root').touch()


def test_creator_that_lowered_its_own_limit_is_held_to_it(mnt, name, child):
    def create_without_a_quota():
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
        (mnt / 'mq' / name).touch()
    with pytest.raises(OSError) as failure:
        child(create_without_a_quota, user=USER).result()
    assert failure.value.errno == errno.EMFILE


# The daemon's death

def test_killed_daemon_loses_nothing(mount, name):
    mounted = mount()
    path = mounted.path / 'mq' / name
    with native.create_queue(name) as queue:
        path.write_bytes(b'one')
        queue.send(b'two', 7)
        mounted.kill()
        assert len(queue) == 2
        mounted.start()
        assert path.read_bytes() == b'two'
        assert messages(queue) == [b'one']


def test_daemon_killed_under_waiting_requests_loses_and_repeats_nothing(mount, name, child):
    mounted = mount()
    path = mounted.path / 'mq' / name
    with native.create_queue(name, max_messages=2) as queue:
        fill(queue)
        writers = [child(write_once, path, b'never') for _ in range(3)]
        eventually(lambda: parked(path, *writers))
        mounted.kill()
        for writer in writers:
            with pytest.raises(OSError):
                writer.result()
        queue.receive()
        mounted.start()
        assert messages(queue) == [b'filler']

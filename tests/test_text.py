"""The framing of messages: text, stream, drain and in-band priority, with native peers at the other end."""

import contextlib
import errno
import os
import random
import select
import signal
import subprocess
import time

import pytest

import native
from conftest import PATIENCE, attribute, eventually, parked
from test_options import fails, read_once, sh, use, write_once  # noqa: F401, sh is a fixture


@pytest.fixture
def queue(name):
    with native.create_queue(name, max_messages=8, max_message_size=64) as queue:
        yield queue


@pytest.fixture
def small(name):
    """A queue for one message."""
    with native.create_queue(name, max_messages=1, max_message_size=64) as queue:
        yield queue


@pytest.fixture
def view(mnt, name):
    """view(options) is the path of the queue of this test."""
    return lambda options: mnt / (f'mq@{options}' if options else 'mq') / name


def received(queue):
    return [queue.receive()[0] for _ in range(len(queue))]


def receive(queue, count):
    return [queue.receive(timeout=PATIENCE)[0] for _ in range(count)]


# text, sending

@pytest.mark.parametrize('data, messages', [
    (b'one\n', [b'one']), (b'one\ntwo\nthree\n', [b'one', b'two', b'three']), (b'\n', [b'']), (b'\n\n\n', [b''] * 3),
    (b'a\n\nb\n', [b'a', b'', b'b']), (b'\0\n \r\n', [b'\0', b' \r']), (b'x' * 64 + b'\n', [b'x' * 64]),
    (b'x' * 64 + b'\n' + b'y' * 64 + b'\n', [b'x' * 64, b'y' * 64]), ('ä\n'.encode(), ['ä'.encode()]),
])
def test_each_line_of_a_write_is_a_message(view, queue, data, messages):
    assert write_once(view('text'), data) == len(data)
    assert received(queue) == messages


def test_lines_by_echo_and_cat(sh, queue, tmp_path):
    (tmp_path / 'list').write_bytes(b'red\n\ngreen\n')
    sh(f'echo first > mq@text/{queue.name}; cat {tmp_path}/list > mq@text/{queue.name}')
    assert received(queue) == [b'first', b'red', b'', b'green']


def test_line_in_pieces_is_one_message(view, queue):
    fd = os.open(view('text'), os.O_WRONLY)
    for piece in b'on', b'e', b' li':
        assert os.write(fd, piece) == len(piece)
        assert len(queue) == 0
    assert os.write(fd, b'ne\nan') == 5
    assert received(queue) == [b'one line']
    os.write(fd, b'other\n')
    assert received(queue) == [b'another']


def test_unfinished_lines_of_two_writers_are_their_own(view, queue):
    one, two = os.open(view('text'), os.O_WRONLY), os.open(view('text'), os.O_WRONLY)
    os.write(one, b'one')
    os.write(two, b'two')
    os.write(one, b' one\n')
    os.write(two, b' two\n')
    assert received(queue) == [b'one one', b'two two']


def test_unfinished_line_is_sent_after_the_close(view, queue):
    fd = os.open(view('text'), os.O_WRONLY)
    os.write(fd, b'whole\nunfinished')
    assert received(queue) == [b'whole']
    os.close(fd)
    assert receive(queue, 1) == [b'unfinished']


def test_unfinished_line_waits_for_the_last_of_all_closes(view, queue, child):
    fd = os.open(view('text'), os.O_WRONLY)
    other = os.dup(fd)
    os.write(fd, b'unfinished')
    os.close(fd)
    child(os.close, other).result()
    assert len(queue) == 0
    os.write(other, b' no more\nbut this')
    assert receive(queue, 1) == [b'unfinished no more']
    os.close(other)
    assert receive(queue, 1) == [b'but this']


def test_unfinished_line_is_sent_as_soon_as_there_is_room(view, small, names):
    small.send(b'filler')
    use(view('text'), os.O_WRONLY, lambda fd: os.write(fd, b'unfinished'))
    eventually(lambda: attribute(view(''), 'waiting_senders') == 1)
    assert receive(small, 2) == [b'filler', b'unfinished']
    eventually(lambda: attribute(view(''), 'waiting_senders') == 0)


def test_unfinished_line_is_sent_once_to_a_removed_queue(view, small):
    small.send(b'filler')
    fd = os.open(view('text'), os.O_WRONLY)
    os.write(fd, b'unfinished')
    os.unlink(view(''))
    os.close(fd)
    assert receive(small, 2) == [b'filler', b'unfinished']
    assert len(small) == 0


def test_unfinished_line_by_printf(sh, queue):
    sh(f'printf "a\\nb" > mq@text/{queue.name}')
    assert receive(queue, 2) == [b'a', b'b']


def test_unfinished_line_with_a_priority(view, queue):
    use(view('text,priority=6'), os.O_WRONLY, lambda fd: os.write(fd, b'by number'))
    assert queue.receive(timeout=PATIENCE) == (b'by number', 6)
    use(view('text,priority'), os.O_WRONLY, lambda fd: os.write(fd, b'7 in band'))
    assert queue.receive(timeout=PATIENCE) == (b'in band', 7)


def test_nothing_unfinished_is_nothing_sent(view, queue):
    use(view('text'), os.O_WRONLY, lambda fd: None)
    use(view('text'), os.O_WRONLY, lambda fd: os.write(fd, b'line\n'))
    use(view('text'), os.O_WRONLY, lambda fd: os.write(fd, b'next\n'))
    assert receive(queue, 2) == [b'line', b'next']
    assert len(queue) == 0


def test_unfinished_line_of_a_killed_writer_is_not_sent(view, queue):
    """Again and again: the file is closed while the process dies, and it is waited for at once."""
    def begin():
        native.die_with_parent()
        fd = os.open(view('text'), os.O_WRONLY)
        os.write(fd, b'whole\nbeginn')
        signal.pause()
    for attempt in range(100):
        writer = os.fork()
        if writer == 0:
            begin()
        assert receive(queue, 1) == [b'whole']
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        write_once(view('text'), b'after\n')
        time.sleep(0.005)  # what must not come, has not come
        assert received(queue) == [b'after'], attempt


def test_blocked_writer_sends_all_lines_in_order(view, small, child):
    lines = b''.join(b'%d\n' % number for number in range(50))
    writer = child(write_once, view('text'), lines)
    eventually(lambda: parked(view(''), writer))
    assert receive(small, 50) == [b'%d' % number for number in range(50)]
    assert writer.result() == len(lines)


# text, stopped midway

def test_nonblocking_write_says_how_many_bytes_went(view, queue):
    fd = os.open(view('text'), os.O_WRONLY | os.O_NONBLOCK)
    lines = [b'line %d\n' % number for number in range(20)]
    assert os.write(fd, b''.join(lines)) == len(b''.join(lines[:8]))
    assert fails(errno.EAGAIN, os.write, fd, b''.join(lines[8:]))
    assert [message + b'\n' for message in received(queue)] == lines[:8]
    assert os.write(fd, b''.join(lines[8:])) == len(b''.join(lines[8:16]))
    assert [message + b'\n' for message in received(queue)] == lines[8:16]
    os.close(fd)


def test_nonblocking_write_counts_from_the_unfinished_line_on(view, small):
    fd = os.open(view('text,nonblock'), os.O_WRONLY)
    assert os.write(fd, b'beginning') == 9
    assert os.write(fd, b' end\nnext\n') == 5
    assert fails(errno.EAGAIN, os.write, fd, b'next\n')
    assert received(small) == [b'beginning end']
    assert os.write(fd, b'next\nrest') == 9
    assert received(small) == [b'next']


def test_refused_end_of_a_line_can_be_written_again(view, small):
    fd = os.open(view('text,nonblock'), os.O_WRONLY)
    small.send(b'filler')
    assert os.write(fd, b'beginning') == 9
    for _ in range(3):
        assert fails(errno.EAGAIN, os.write, fd, b' end\n')
    assert received(small) == [b'filler']
    assert os.write(fd, b' end\n') == 5
    assert received(small) == [b'beginning end']


def test_line_whose_end_was_refused_is_not_sent_at_the_close(view, small):
    fd = os.open(view('text,nonblock'), os.O_WRONLY)
    small.send(b'filler')
    os.write(fd, b'beginning')
    assert fails(errno.EAGAIN, os.write, fd, b' end\n')
    os.close(fd)
    assert received(small) == [b'filler']
    write_once(view('text'), b'after\n')
    assert receive(small, 1) == [b'after']
    time.sleep(0.05)
    assert len(small) == 0


def test_line_whose_end_had_to_wait_behind_others_is_not_sent_at_the_close(view, small, child):
    fd = os.open(view('text,nonblock'), os.O_WRONLY)
    small.send(b'filler')
    os.write(fd, b'beginning')
    writer = child(write_once, view('text'), b'other\n')
    eventually(lambda: parked(view(''), writer))
    assert fails(errno.EAGAIN, os.write, fd, b' end\n')
    os.close(fd)
    assert receive(small, 2) == [b'filler', b'other']
    writer.result()
    write_once(view('text'), b'after\n')
    assert receive(small, 1) == [b'after']
    time.sleep(0.05)
    assert len(small) == 0


def test_asynchronous_writes_of_one_open_file_come_one_after_the_other(view, small, peer):
    """Several at once would be of one line's beginning, and pieces of one write in any order."""
    writer = peer('submit', view('text'), 4)
    assert writer.stdout.readline() == 'long\n'
    assert received(small) == [b'long']
    small.send(b'filler')
    writer.stdin.write('go on\n')
    writer.stdin.flush()
    eventually(lambda: attribute(view(''), 'waiting_senders') == 1)
    time.sleep(0.05)
    assert attribute(view(''), 'waiting_senders') == 1
    assert receive(small, 5) == [b'filler', b'0', b'1', b'2', b'3']
    assert writer.finish() == '2\n' * 4


def until_signalled(path, data, number=signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
    return write_once(path, data)


@pytest.mark.parametrize('option', ['text', 'text,priority=3', 'text,stream', 'text,timeout=1000'])
def test_signal_leaves_a_short_count(view, small, child, option):
    lines = [b'line %d\n' % number for number in range(10)]
    writer = child(until_signalled, view(option), b''.join(lines))
    eventually(lambda: parked(view(''), writer))
    assert receive(small, 3) == [line[:-1] for line in lines[:3]]
    eventually(lambda: len(small) == 1 and parked(view(''), writer))
    writer.send_signal(signal.SIGUSR1)
    assert writer.result() == len(b''.join(lines[:4]))
    assert receive(small, 1) == [b'line 3']
    time.sleep(0.05)
    assert len(small) == 0


def test_signal_before_the_first_line_is_eintr(view, small, child):
    small.send(b'filler')
    writer = child(until_signalled, view('text'), b'a\nb\n')
    eventually(lambda: parked(view(''), writer))
    writer.send_signal(signal.SIGUSR1)
    with pytest.raises(InterruptedError):
        writer.result()
    assert received(small) == [b'filler']


def test_timeout_leaves_a_short_count_or_etimedout(view, small):
    assert write_once(view('text,timeout=0.02'), b'first\nsecond\n') == 6
    assert fails(errno.ETIMEDOUT, write_once, view('text,timeout=0.02'), b'second\n')
    assert received(small) == [b'first']


# text, too long

LONG = b'l' * 65


@pytest.mark.parametrize('data, count', [
    (LONG + b'\n', None), (LONG, None), (LONG * 3 + b'\nshort\n', None), (LONG * 2000 + b'\n', None),
    (b'a\nb\n' + LONG + b'\nc\n', 4), (b'\n' + LONG, 1), (b'x' * 64 + b'\n' + LONG, 65)])
def test_line_that_is_too_long_is_emsgsize_or_a_count(view, queue, data, count):
    fd = os.open(view('text'), os.O_WRONLY)
    if count is None:
        assert fails(errno.EMSGSIZE, native.write, fd, data)
    else:
        assert native.write(fd, data) == count
        assert fails(errno.EMSGSIZE, native.write, fd, data[count:])
    os.close(fd)
    write_once(view('text'), b'after\n')
    time.sleep(0.02)
    assert received(queue) == data[:count or 0].split(b'\n')[:-1] + [b'after']


@pytest.mark.parametrize('pieces', [[b'l' * 40, b'l' * 24, b'l\n'], [b'l' * 64, b'l' * 64], [b'l' * 64, b'l\n'],
                                    [b'a\nl', b'l' * 64 + b'\n']])
def test_nothing_of_a_long_line_in_pieces_is_sent(view, queue, pieces):
    fd = os.open(view('text'), os.O_WRONLY)
    for piece in pieces[:-1]:
        assert os.write(fd, piece) == len(piece)
    assert fails(errno.EMSGSIZE, os.write, fd, pieces[-1])
    os.close(fd)
    write_once(view('text'), b'after\n')
    time.sleep(0.02)
    assert received(queue)[-1] == b'after'
    assert len(queue) == 0


def test_cat_of_a_file_with_a_long_line_stops_before_it(mnt, queue, tmp_path):
    (tmp_path / 'list').write_bytes(b'one\ntwo\n' + LONG + b'\nthree\n')
    with open(tmp_path / 'list') as source, open(mnt / 'mq@text' / queue.name, 'w') as sink:
        done = subprocess.run(['cat'], stdin=source, stdout=sink, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and os.strerror(errno.EMSGSIZE) in done.stderr
    time.sleep(0.02)
    assert received(queue) == [b'one', b'two']


def test_long_line_is_refused_also_where_the_queue_is_full(view, small):
    small.send(b'filler')
    assert fails(errno.EMSGSIZE, write_once, view('text'), LONG + b'\n')


# text, receiving

@pytest.mark.parametrize('message, line', [(b'one', b'one\n'), (b'one\n', b'one\n'), (b'', b'\n'), (b'\n', b'\n'),
                                           (b'two\nlines', b'two\nlines\n'), (b'a\n\n', b'a\n\n'), (b'x' * 64, b'x' * 64 + b'\n')])
@pytest.mark.parametrize('options', ['text', 'text,stream', 'text,drain', 'stream,text', 'text,nonblock'])
def test_received_message_ends_in_a_newline(view, queue, options, message, line):
    queue.send(message)
    assert read_once(view(options)) == line
    assert len(queue) == 0


def test_without_stream_a_read_is_one_message_and_cat_ends(view, sh, queue):
    for message in b'one', b'two', b'three':
        queue.send(message)
    assert read_once(view('text')) == b'one\n'
    assert sh(f'cat mq@text/{queue.name}') == 'two\n'
    assert received(queue) == [b'three']


def test_text_in_small_reads(view, queue):
    queue.send(b'12345')
    queue.send(b'next')
    fd = os.open(view('text'), os.O_RDONLY)
    assert [os.read(fd, 2) for _ in range(4)] == [b'12', b'34', b'5\n', b'']
    assert len(queue) == 1


def test_lines_with_priorities_both_ways(view, sh, queue):
    sh(f'printf "5 build\\n0 sweep\\n32767 \\n" > mq@text,priority/{queue.name}')
    assert [queue.receive() for _ in range(3)] == [(b'', 32767), (b'build', 5), (b'sweep', 0)]
    queue.send(b'build', 5)
    queue.send(b'two words\n', 17)
    assert read_once(view('text,priority')) == b'17 two words\n'
    assert sh(f'cat mq@priority,text/{queue.name}') == '5 build\n'


@pytest.mark.parametrize('line', [b'build', b'', b'5', b' 5 x', b'-1 x', b'32768 x', b'5\tx'])
def test_line_without_a_priority_is_einval_after_those_before_it(view, queue, line):
    assert fails(errno.EINVAL, write_once, view('text,priority'), line + b'\n')
    assert write_once(view('text,priority'), b'1 good\n' + line + b'\n2 next\n') == 7
    assert queue.receive() == (b'good', 1)
    assert len(queue) == 0


@pytest.mark.parametrize('data', [b'build', b'5'])
def test_unfinished_line_without_a_priority_is_not_sent(view, queue, data):
    use(view('text,priority'), os.O_WRONLY, lambda fd: os.write(fd, data))
    write_once(view('text,priority'), b'1 after\n')
    time.sleep(0.02)
    assert received(queue) == [b'after']


# stream

@pytest.mark.parametrize('options, given', [('stream', [b'one', b'two', b'']), ('text,stream', [b'one\n', b'two\n', b'\n']),
                                            ('stream,priority', [b'5 one', b'3 two', b'1 ']),
                                            ('text,stream,priority', [b'5 one\n', b'3 two\n', b'1 \n'])])
def test_stream_receives_whatever_the_offset(view, queue, options, given):
    fd = os.open(view(options), os.O_RDONLY)
    for expected, sent in zip(given, [(b'one', 5), (b'two', 3), (b'', 1)]):
        queue.send(*sent)
        assert os.pread(fd, 100, random.choice([0, 1, 50, 10**9])) == expected


def test_text_stream_gives_as_many_whole_lines_as_are_there(view, queue):
    for number in range(6):
        queue.send(b'line %d' % number, 6 - number)
    assert read_once(view('text,stream'), size=8192) == b''.join(b'line %d\n' % number for number in range(6))
    assert len(queue) == 0


@pytest.mark.parametrize('options', ['text,stream', 'text,stream,priority', 'text,drain'])
@pytest.mark.parametrize('size', [1, 5, 7, 64, 65, 70, 100, 200, 1000])
def test_text_stream_gives_whole_lines_that_fit(view, queue, options, size):
    """Where not even one line fits, the next read goes on in it."""
    messages = [(b'%d' % number * length, 9) for number, length in enumerate([3, 64, 0, 5, 64, 1, 2, 3])]
    for message in messages:
        queue.send(*message)
    lines = [(b'9 ' if 'priority' in options else b'') + message + b'\n' for message, _ in messages]
    fd = os.open(view(options), os.O_RDONLY)
    parts = []
    while sum(map(len, parts)) < len(b''.join(lines)):
        parts.append(os.read(fd, size))
        if size >= 70:
            assert parts[-1].endswith(b'\n')
    assert b''.join(parts) == b''.join(lines)
    assert len(queue) == 0


def test_text_stream_gives_many_lines_where_they_fit(view, queue):
    for _ in range(8):
        queue.send(b'x')
    fd = os.open(view('text,stream'), os.O_RDONLY)
    assert len(os.read(fd, 1000)) == 16


@pytest.mark.parametrize('options', ['stream', 'stream,priority', 'text,stream', 'drain'])
@pytest.mark.parametrize('size', [1, 3, 10])
def test_small_reads_of_a_stream_lose_nothing(view, queue, options, size):
    sent = [b'0123456789', b'abc', b'x' * 64, b'end']
    for message in sent:
        queue.send(message, 4)
    expected = b''.join((b'4 ' if 'priority' in options else b'') + message + (b'\n' if 'text' in options else b'')
                        for message in sent)
    fd, parts = os.open(view(options), os.O_RDONLY), b''
    while len(parts) < len(expected):
        parts += os.read(fd, size)
    assert parts == expected


def test_text_goes_through_a_short_queue_in_one_go(view, queue, child):
    """The reader gets at once what its buffer holds, though the queue holds ten messages at a time."""
    lines = b''.join(b'%d\n' % number for number in range(2000))
    reader = child(lambda: native.read(os.open(view('text,stream'), os.O_RDONLY), 1 << 16))
    eventually(lambda: parked(view(''), reader))
    fd = os.open(view('text'), os.O_WRONLY)
    assert os.write(fd, lines) == len(lines)
    os.close(fd)
    assert reader.result() == lines


def test_stream_waits_and_goes_on(view, queue, child):
    def three():
        fd = os.open(view('stream'), os.O_RDONLY)
        return [native.read(fd, 100) for _ in range(3)]
    reader = child(three)
    for message in b'one', b'two', b'three':
        eventually(lambda: parked(view(''), reader))
        queue.send(message)
    assert reader.result() == [b'one', b'two', b'three']


def test_readers_of_one_open_stream_lose_nothing_between_them(view, queue, child):
    """What one leaves of a message is for the next, also if that one has waited already."""
    fd = os.open(view('stream'), os.O_RDONLY)
    readers = [child(os.pread, fd, 4, 0) for _ in range(3)]
    eventually(lambda: parked(view(''), *readers))
    queue.send(b'0123456789')
    assert sorted(reader.result() for reader in readers) == [b'0123', b'4567', b'89']


def test_reader_of_a_stream_who_comes_just_then_has_the_rest(view, queue, child):
    """Nothing is lost, whether it comes before or after one who has waited is served."""
    fd = os.open(view('stream'), os.O_RDONLY)
    for _ in range(200):
        reader = child(os.pread, fd, 4, 0)
        eventually(lambda: parked(view(''), reader))
        queue.send(b'0123456789')
        queue.send(b'abcdef')
        parts = [os.pread(fd, 6, 0)]
        while sum(map(len, parts)) < 12:
            parts.append(os.pread(fd, 10, 0))
        parts.append(reader.result())
        assert sorted(b''.join(parts)) == sorted(b'0123456789abcdef'), parts
        assert len(queue) == 0


def test_rest_of_a_stream_is_not_for_others_in_line(view, queue, child):
    first, others = (os.open(view(options), os.O_RDONLY) for options in ('stream', ''))
    readers = []
    for fd in first, others, first:
        readers.append(child(os.pread, fd, 4, 0))
        eventually(lambda: parked(view(''), *readers))
    queue.send(b'0123456789')
    assert [readers[0].result(), readers[2].result()] == [b'0123', b'4567']
    assert parked(view(''), readers[1])
    assert os.pread(first, 4, 0) == b'89'
    queue.send(b'next')
    assert readers[1].result() == b'next'


def test_rest_of_a_stream_is_readable(view, queue):
    fd = os.open(view('stream'), os.O_RDONLY)
    queue.send(b'0123456789')
    assert os.read(fd, 4) == b'0123'
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == [(fd, select.POLLIN)]
    assert os.read(fd, 10) == b'456789'
    assert poll.poll(0) == []


def test_edge_triggered_poller_is_told_once_of_a_rest(view, queue, child):
    fd, other = os.open(view('stream'), os.O_RDONLY), os.open(view('nonblock'), os.O_RDONLY)
    queue.send(b'0123456789')
    assert os.read(fd, 4) == b'0123'
    reader = child(read_once, view(''))
    eventually(lambda: parked(view(''), reader))
    with contextlib.closing(select.epoll()) as poll:
        poll.register(fd, select.EPOLLIN | select.EPOLLET)
        assert poll.poll(0) == [(fd, select.EPOLLIN)]
        for _ in range(3):
            assert fails(errno.EAGAIN, os.pread, other, 10, 0)
            assert poll.poll(0.05) == []
        assert os.read(fd, 10) == b'456789'
        write_once(view(''), b'first')
        assert reader.result() == b'first'
        write_once(view(''), b'next')
        assert poll.poll(PATIENCE) == [(fd, select.EPOLLIN)]


def test_stream_can_be_nonblocking_and_timed(view, queue):
    for options, code in ('stream,nonblock', errno.EAGAIN), ('text,stream,timeout=0.01', errno.ETIMEDOUT):
        fd = os.open(view(options), os.O_RDONLY)
        queue.send(b'one\n')
        assert os.read(fd, 100) == b'one\n'
        assert fails(code, os.read, fd, 100)
        queue.send(b'two\n')
        assert os.read(fd, 100) == b'two\n'
        os.close(fd)


def test_stream_for_a_loop_in_the_shell(mnt, queue, children):
    loop = subprocess.Popen(['sh', '-c', f'while read -r line; do echo "got $line"; done < mq@text,stream/{queue.name}'],
                            cwd=mnt, stdout=subprocess.PIPE, text=True, preexec_fn=native.die_with_parent)
    try:
        for message in b'one', b'two words', b'':
            queue.send(message)
            assert loop.stdout.readline() == f'got {message.decode()}\n'
    finally:
        loop.kill()
        loop.communicate()


# drain

def test_drain_empties_the_queue(sh, queue):
    for number in range(8):
        queue.send(b'%d' % number, number)
    assert sh(f'cat mq@text,drain/{queue.name}') == ''.join(f'{number}\n' for number in reversed(range(8)))
    assert len(queue) == 0
    assert sh(f'cat mq@text,drain/{queue.name}; cat mq@drain/{queue.name}; cat mq@drain,priority/{queue.name}') == ''
    queue.send(b'raw', 1)
    queue.send(b'more', 2)
    assert sh(f'cat mq@drain/{queue.name}') == 'moreraw'


def test_drain_of_an_empty_queue_is_end_of_file_and_not_for_ever(view, queue):
    for options in 'drain', 'drain,stream', 'drain,nonblock', 'drain,timeout=5', 'text,drain,priority':
        fd = os.open(view(options), os.O_RDONLY)
        assert os.read(fd, 100) == b''
        queue.send(b'now', 2)
        assert os.read(fd, 100).strip().endswith(b'now')
        assert os.read(fd, 100) == b''
        os.close(fd)


def test_end_of_a_drain_is_readable(view, queue):
    fd = os.open(view('drain'), os.O_RDONLY)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert (poll.poll(0), os.read(fd, 10)) == ([(fd, select.POLLIN)], b'')
    queue.send(b'message')
    assert (poll.poll(0), os.read(fd, 10)) == ([(fd, select.POLLIN)], b'message')


@pytest.mark.parametrize('options', ['drain', 'text,drain,stream', 'drain,nonblock', 'drain,timeout=5'])
def test_drain_does_not_wait_behind_those_who_wait(view, queue, child, options):
    reader = child(read_once, view(''))
    eventually(lambda: parked(view(''), reader))
    assert read_once(view(options)) == b''
    queue.send(b'for who waited')
    assert reader.result() == b'for who waited'


def test_drain_with_priorities_and_python(mnt, queue):
    for message in (b'low', 1), (b'high', 8):
        queue.send(*message)
    with open(mnt / 'mq@drain,text,priority' / queue.name) as lines:
        assert list(lines) == ['8 high\n', '1 low\n']


def test_writing_through_stream_and_drain_is_as_without(view, queue):
    for options in 'stream', 'drain':
        assert write_once(view(options), b'a\nb\n') == 4
        assert received(queue) == [b'a\nb\n']


def test_empty_message_is_not_the_end_of_a_text_drain(sh, queue):
    for message in b'a', b'', b'b':
        queue.send(message)
    assert sh(f'cat mq@text,drain/{queue.name}') == 'a\n\nb\n'


# All of a file

@pytest.fixture
def jobs(tmp_path):
    file = tmp_path / 'jobs.txt'
    chance = random.Random(1)
    file.write_text(''.join(f'{number} {"x" * chance.randrange(80)}\n' for number in range(200_000)))
    return file


@pytest.fixture
def run(children):
    """run(command) starts it in a shell; what still runs at the end is killed."""
    started = []

    def start(command, **options):
        started.append(subprocess.Popen(['sh', '-c', f'exec {command}'], preexec_fn=native.die_with_parent, **options))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.wait()


def read_out(queue, path, reader):
    """The reader has taken all there was, and waits for more."""
    return len(queue) == 0 and attribute(path, 'waiting_receivers') == 1


def test_200000_lines_go_through_a_queue_of_10(mnt, name, jobs, run):
    with native.create_queue(name, max_messages=10, max_message_size=100) as queue:
        result = jobs.with_name('result')
        reader = run(f'cat mq@text,stream/{name} > {result}', cwd=mnt)
        writer = run(f'cat {jobs} > mq@text/{name}', cwd=mnt)
        assert writer.wait(timeout=4 * PATIENCE) == 0
        eventually(lambda: read_out(queue, mnt / 'mq' / name, reader))
        assert result.read_bytes() == jobs.read_bytes()


@pytest.mark.parametrize('buffer', ['cat', 'dd bs=777 status=none', 'dd bs=1M status=none'])
def test_reader_has_an_exact_prefix_of_a_killed_writers_lines(mnt, name, jobs, run, buffer):
    with native.create_queue(name, max_messages=10, max_message_size=100) as queue:
        whole = jobs.read_bytes()
        shorter = 0
        for attempt in range(6):
            result = jobs.with_name(f'result{attempt}')
            reader = run(f'cat mq@text,stream/{name} > {result}', cwd=mnt)
            writer = run(f'{buffer} < {jobs} > mq@text/{name}', cwd=mnt)
            goal = random.randrange(len(whole) // 20)
            eventually(lambda: result.exists() and result.stat().st_size >= goal)
            writer.kill()
            writer.wait()
            eventually(lambda: attribute(mnt / 'mq' / name, 'waiting_senders') == 0)
            eventually(lambda: read_out(queue, mnt / 'mq' / name, reader))
            reader.kill()
            reader.wait()
            eventually(lambda: attribute(mnt / 'mq' / name, 'waiting_receivers') == 0)
            got = result.read_bytes()
            assert whole.startswith(got), attempt
            assert got[-1:] in (b'\n', b''), attempt
            shorter += len(got) < len(whole)
        assert shorter  # else nothing was killed midway


def test_unfinished_line_does_not_keep_a_queue_without_room_and_name(mount, names):
    """As nobody could ever make room: the queue ends with its last user, as natively."""
    mounted = mount()
    descriptors = lambda: len(os.listdir(f'/proc/{mounted.process.pid}/fd'))
    before = descriptors()
    for name in names(), names(), names():
        (mounted.path / 'mq@max_messages=1,max_message_size=8' / name).touch()
        fds = [os.open(mounted.path / view / name, os.O_WRONLY) for view in ('mq', 'mq@text')]
        os.write(fds[0], b'full')
        os.write(fds[1], b'rest')
        (mounted.path / 'mq' / name).unlink()
        for fd in fds:
            os.close(fd)
    eventually(lambda: descriptors() == before)

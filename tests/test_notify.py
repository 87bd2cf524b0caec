"""Notification: by a read and by a signal, once, for one at a time with native mq_notify, with the real sender."""

import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import time

import pytest

import native
from conftest import PATIENCE, eventually
from test_options import fails, read_once, sh, use, write_once  # noqa: F401, sh is a fixture

USER = 54321
SI_MESGQ = -3
RTMIN, RTMAX = int(signal.SIGRTMIN), int(signal.SIGRTMAX)


@pytest.fixture
def queue(name):
    with native.create_queue(name, max_messages=4, max_message_size=64, mode=0o666) as queue:
        os.fchmod(queue.descriptor, 0o666)
        yield queue


@pytest.fixture
def path(mnt, name):
    """The notification of this test's queue; `plain` is the queue."""
    return mnt / 'mq@notify' / name


@pytest.fixture
def plain(mnt, name):
    return mnt / 'mq' / name


def owner(path):
    """Who is registered, 0 for none, by any path of the queue."""
    return int(os.getxattr(path, 'user.ipcfs.notify_pid'))


def kernel_owner(queue):
    """Who is registered, by the kernel: of the mount's own, the notifier. Known the moment a message has come."""
    return int(re.search(rb'NOTIFY_PID:(\d+)', os.pread(queue.descriptor, 200, 0))[1])


def register_natively(queue):
    """And take it back: OSError where somebody else is registered."""
    queue.notify(signal.SIGUSR1)
    queue.notify(None)


def is_free(queue):
    """Whether mq_notify, of another open queue, finds nobody registered."""
    try:
        with native.Queue(queue.name) as other:
            register_natively(other)
    except OSError as error:
        assert error.errno == errno.EBUSY
        return False
    return True


def me(pid=None, uid=None):
    return b'%d %d\n' % (os.getpid() if pid is None else pid, os.getuid() if uid is None else uid)


# By a read

def test_read_sleeps_until_a_message_comes_and_tells_the_sender(path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: reader.asleep)
    assert owner(path) == reader.pid
    queue.send(b'message')
    assert reader.result() == me()
    assert queue.receive() == (b'message', 0)


def test_cat_and_echo(sh, mnt, queue, children):
    reader = subprocess.Popen(['cat', mnt / 'mq@notify' / queue.name], stdout=subprocess.PIPE,
                              preexec_fn=native.die_with_parent)
    try:
        eventually(lambda: owner(mnt / 'mq' / queue.name) == reader.pid)
        sender = sh(f'echo $$; echo hello > mq/{queue.name}').strip()
        assert reader.communicate(timeout=PATIENCE)[0].decode() == f'{sender} 0\n'
        assert reader.returncode == 0
    finally:
        reader.kill()
        reader.wait()
    assert queue.receive() == (b'hello\n', 0)


def test_message_that_is_there_already_notifies_nobody(path, queue, child):
    queue.send(b'there')
    reader = child(read_once, path)
    eventually(lambda: reader.asleep)
    queue.send(b'second')
    assert reader.asleep and owner(path) == reader.pid
    queue.receive(), queue.receive()
    queue.send(b'to the empty queue')
    assert reader.result() == me()


def test_registration_is_for_one_message(path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    queue.send(b'')
    reader.result()
    assert owner(path) == 0 and is_free(queue)


def test_notify_pid_is_0_the_moment_the_message_has_come(path, queue):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(100):
        assert fails(errno.EAGAIN, os.pread, fd, 100, 0)
        assert owner(path) == os.getpid()
        queue.send(b'')
        assert owner(path) == 0
        queue.receive()
        eventually(lambda: select.select([fd], [], [], 0)[0])
        assert os.pread(fd, 100, 0) == me()


def test_result_is_read_in_pieces_and_the_next_read_at_0_registers_anew(path, queue, child):
    def two():
        fd = os.open(path, os.O_RDONLY)
        parts = [os.read(fd, 2)] + list(iter(lambda: os.read(fd, 3), b''))
        return b''.join(parts), os.pread(fd, 100, 0)
    reader = child(two)
    eventually(lambda: owner(path) == reader.pid)
    queue.send(b'first')
    queue.receive()
    eventually(lambda: kernel_owner(queue))
    queue.send(b'second')
    assert reader.result() == (me(), me())


@pytest.mark.parametrize('view', ['mq', 'mq@text', 'mq@priority=5', 'mq@text,priority', 'mq@nonblock', 'mq@timeout=5'])
@pytest.mark.parametrize('user', [0, USER])
def test_sender_through_the_mount_is_the_real_one(mnt, path, queue, child, view, user):
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    data = b'5 message\n' if 'priority' in view.split(',')[-1] and '=' not in view else b'message\n'
    sender = child(write_once, mnt / view / queue.name, data, user=user)
    assert sender.result() == len(data)
    assert reader.result() == me(sender.pid, user)


@pytest.mark.parametrize('user', [0, USER])
def test_native_sender_is_the_real_one(path, queue, child, user):
    def send():
        with native.Queue(queue.name, os.O_WRONLY) as own:
            own.send(b'')
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    sender = child(send, user=user)
    sender.result()
    assert reader.result() == me(sender.pid, user)


def test_sender_of_many_lines_is_the_real_one(mnt, path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    sender = child(write_once, mnt / 'mq@text' / queue.name, b'a\nb\nc\n', user=USER)
    sender.result()
    assert reader.result() == me(sender.pid, USER)
    assert len(queue) == 3


def test_sender_of_a_last_line_without_newline_is_its_writer(mnt, path, queue, child):
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    sender = child(write_once, mnt / 'mq@text' / queue.name, b'unfinished', user=USER)
    sender.result()
    assert reader.result() == me(sender.pid, USER)


def test_sender_is_the_process_and_not_its_thread(path, plain, queue, child):
    def in_a_thread():
        import threading
        thread = threading.Thread(target=write_once, args=(plain, b'message'))
        thread.start()
        thread.join()
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    sender = child(in_a_thread)
    sender.result()
    assert reader.result() == me(sender.pid)


def test_registered_process_is_the_process_and_not_its_thread(path, queue, child):
    def in_a_thread():
        import threading
        got = []
        thread = threading.Thread(target=lambda: got.append(read_once(path)))
        thread.start()
        thread.join()
        return got
    reader = child(in_a_thread)
    eventually(lambda: owner(path))
    assert owner(path) == reader.pid
    queue.send(b'')
    assert reader.result() == [me()]


def test_writer_that_waited_for_room_is_the_sender(path, plain, name, child):
    with native.create_queue(name, max_messages=1) as queue:
        queue.send(b'filler')
        writer = child(write_once, plain, b'waited', user=0)
        eventually(lambda: int(os.getxattr(plain, 'user.ipcfs.waiting_senders')) == 1)
        reader = child(read_once, path)
        eventually(lambda: owner(path) == reader.pid)
        queue.receive()
        writer.result()
        assert reader.result() == me(writer.pid)


def test_sender_is_told_rightly_where_many_send(path, plain, queue, child):
    """One reads again and again; senders of both sorts take turns, one message at a time."""
    def read_many(count):
        fd = os.open(path, os.O_RDONLY)
        return [os.pread(fd, 100, 0) for _ in range(count)]
    count = 60
    reader = child(read_many, count)
    expected = []
    for number in range(count):
        eventually(lambda: kernel_owner(queue))
        if number % 3 == 0:
            queue.send(b'')
            expected.append(me())
        else:
            sender = child(write_once, plain, b'x') if number % 3 == 1 else child(queue.send, b'')
            sender.result()
            expected.append(me(sender.pid))
        queue.receive()
    assert reader.result() == expected


def test_reader_of_the_queue_takes_the_message_with_a_notification(path, plain, queue, child):
    taker, reader = child(read_once, plain), child(read_once, path)
    eventually(lambda: taker.asleep and owner(path) == reader.pid)
    queue.send(b'message')
    assert taker.result() == b'message'
    assert reader.result() == me()


# By a signal

def asks(path, word, number):
    """Registers, waits for the signal, and tells what came with it, and who is registered then."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    fd = os.open(path, os.O_WRONLY)
    written = os.write(fd, word)
    info = signal.sigtimedwait([number], PATIENCE)
    return written, (info.si_signo, info.si_code, info.si_pid, info.si_uid)


SPELLINGS = [(b'SIGUSR1', signal.SIGUSR1), (b'USR1', signal.SIGUSR1), (b'10', 10), (b'USR2\n', signal.SIGUSR2),
             (b'SIGHUP\n', signal.SIGHUP), (b' 1 ', signal.SIGHUP), (b'WINCH', signal.SIGWINCH), (b'INT', signal.SIGINT),
             (b'RTMIN', RTMIN), (b'SIGRTMIN', RTMIN), (b'RTMIN+2', RTMIN + 2), (b'SIGRTMIN+2\n', RTMIN + 2),
             (b'RTMAX', RTMAX), (b'RTMAX-3', RTMAX - 3), (b'SIGRTMAX-0', RTMAX), (b'%d' % RTMAX, RTMAX), (b'010', 10)]


@pytest.mark.parametrize('word, number', SPELLINGS, ids=[word.decode().strip() for word, _ in SPELLINGS])
def test_signal_comes_in_every_spelling(path, queue, child, word, number):
    process = child(asks, path, word, int(number))
    eventually(lambda: owner(path) == process.pid)
    queue.send(b'')
    assert process.result() == (len(word), (number, SI_MESGQ, os.getpid(), os.getuid()))


@pytest.mark.parametrize('sender', ['mq', 'mq@text', 'native'])
def test_signal_names_the_sender_as_mq_notify_does(mnt, path, queue, child, sender):
    def send():
        if sender == 'native':
            with native.Queue(queue.name, os.O_WRONLY) as own:
                own.send(b'')
        else:
            write_once(mnt / sender / queue.name, b'message\n')
    process = child(asks, path, b'USR1', signal.SIGUSR1)
    eventually(lambda: owner(path) == process.pid)
    other = child(send, user=USER)
    other.result()
    assert process.result()[1] == (signal.SIGUSR1, SI_MESGQ, other.pid, USER)


def test_signal_goes_to_a_process_of_another_user(path, queue, child):
    process = child(asks, path, b'USR1', signal.SIGUSR1, user=USER)
    eventually(lambda: owner(path) == process.pid)
    queue.send(b'')
    assert process.result()[1] == (signal.SIGUSR1, SI_MESGQ, os.getpid(), 0)


@pytest.mark.parametrize('word', [b'0', b'-1', b'%d' % (RTMAX + 1), b'SIG', b'usr1', b'SIGUSR3', b'SIGSIGUSR1', b'\n', b' ',
                                  b'RTMIN+', b'RTMIN-1', b'RTMAX+1', b'RTMIN+%d' % (RTMAX - RTMIN + 1), b'RTMAX-99',
                                  b'USR1 USR2', b'USR1\0', b'10.0', b'SIG10', b'0x0a', b'Cancel', b'cancel now', b'+10',
                                  b'x' * 5000])
def test_what_is_no_signal_is_einval_and_registers_nothing(path, queue, word):
    assert fails(errno.EINVAL, write_once, path, word)
    fd = os.open(path, os.O_WRONLY)
    assert fails(errno.EINVAL, os.write, fd, word)
    assert owner(path) == 0 and is_free(queue)


def test_signal_comes_once(path, queue, child):
    def count():
        signal.pthread_sigmask(signal.SIG_BLOCK, [RTMIN])
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, b'RTMIN')
        signal.sigtimedwait([RTMIN], PATIENCE)
        os.write(ready, b'.')
        os.read(go, 1)
        return signal.sigtimedwait([RTMIN], 0.02)
    (told, ready), (go, gone) = os.pipe(), os.pipe()
    process = child(count)
    eventually(lambda: owner(path) == process.pid)
    queue.send(b'first')
    os.read(told, 1)
    assert owner(path) == 0
    queue.receive()
    queue.send(b'second')
    os.write(gone, b'.')
    assert process.result() is None
    for fd in told, ready, go, gone:
        os.close(fd)


def test_trap_in_a_shell(mnt, queue, children):
    script = f'''trap 'echo got it; exit' USR1
        exec 3> mq@notify/{queue.name}
        echo SIGUSR1 >&3 && echo registered
        while :; do sleep 0.01; done'''
    shell = subprocess.Popen(['sh', '-c', script], cwd=mnt, stdout=subprocess.PIPE, text=True,
                             preexec_fn=native.die_with_parent)
    try:
        assert shell.stdout.readline() == 'registered\n'
        assert owner(mnt / 'mq' / queue.name) == shell.pid
        queue.send(b'')
        assert shell.communicate(timeout=PATIENCE)[0] == 'got it\n'
    finally:
        shell.kill()
        shell.wait()


def again_and_again(path, name, count):
    """A signal, and at once the next registration, through the same open file."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    queue = native.Queue(name)
    fd = os.open(path, os.O_WRONLY)
    for _ in range(count):
        os.write(fd, b'USR1')
        queue.send(b'')
        assert signal.sigtimedwait([signal.SIGUSR1], PATIENCE).si_pid == os.getpid()
        queue.receive()
    return True


def test_registering_again_at_once_after_the_signal(path, queue, child):
    assert child(again_and_again, path, queue.name, 200).result()


def without_waiting(path, name, count, handles):
    """As natively, the registration is gone when the message is there, whether or not the signal has come yet."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [RTMIN])
    queue = native.Queue(name)
    fds = [os.open(path, os.O_WRONLY) for _ in range(handles)]
    for number in range(count):
        os.write(fds[number % handles], b'RTMIN')
        queue.send(b'')
        queue.receive()
    return sum(signal.sigtimedwait([RTMIN], PATIENCE) is not None for _ in range(count))


@pytest.mark.parametrize('handles', [1, 2])
def test_registering_again_at_once_after_the_message(path, queue, child, handles):
    assert child(without_waiting, path, queue.name, 200, handles).result() == 200


def test_reading_again_at_once_after_the_message(path, queue, child):
    def read_many(count):
        own = native.Queue(queue.name)
        fd = os.open(path, os.O_RDONLY)
        for _ in range(count):
            assert os.pread(fd, 100, 0) == me(os.getppid())
            own.receive()
        return True
    reader = child(read_many, 100)
    for _ in range(100):
        eventually(lambda: kernel_owner(queue) and len(queue) == 0)
        queue.send(b'')
    assert reader.result()


# One at a time

def test_native_registration_is_ebusy_here(path, queue, child):
    queue.notify(signal.SIGUSR1)
    assert fails(errno.EBUSY, read_once, path)
    assert fails(errno.EBUSY, write_once, path, b'USR1')
    assert owner(path) == os.getpid()
    queue.notify(None)
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    queue.send(b'')
    assert reader.result() == me()


@pytest.mark.parametrize('first', ['read', 'signal'])
def test_registration_here_is_ebusy_for_all_others(mnt, path, queue, child, first):
    process = child(read_once, path) if first == 'read' else child(asks, path, b'USR1', signal.SIGUSR1)
    eventually(lambda: owner(path) == process.pid)
    for _ in range(3):
        assert fails(errno.EBUSY, read_once, path)
        assert fails(errno.EBUSY, write_once, path, b'USR1')
        assert fails(errno.EBUSY, read_once, mnt / 'mq@notify,timeout=0' / queue.name)
        assert fails(errno.EBUSY, read_once, path, os.O_NONBLOCK)
        assert not is_free(queue)
    assert owner(path) == process.pid
    queue.send(b'')
    process.result()
    assert is_free(queue)


def test_second_mount_is_ebusy_too(mount, path, queue, child):
    other = mount().path / 'mq@notify' / queue.name
    process = child(read_once, path)
    eventually(lambda: owner(path) == process.pid)
    assert fails(errno.EBUSY, read_once, other)
    assert owner(other) != 0
    queue.send(b'')
    assert process.result() == me()
    process = child(read_once, other)
    eventually(lambda: owner(other) == process.pid)
    queue.receive()
    queue.send(b'')
    assert process.result() == me()


def test_same_open_file_registers_once(path, queue):
    fd = os.open(path, os.O_RDWR)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        os.write(fd, b'USR1')
        assert fails(errno.EBUSY, os.write, fd, b'USR2')
        assert fails(errno.EBUSY, os.pread, fd, 10, 0)
        queue.send(b'')
        assert signal.sigtimedwait([signal.SIGUSR1], PATIENCE).si_signo == signal.SIGUSR1
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


def test_closing_other_files_of_the_queue_leaves_the_registration(mnt, path, queue, child):
    process = child(read_once, path)
    eventually(lambda: owner(path) == process.pid)
    for view in 'mq@notify', 'mq', 'mq@text', 'mq@stat':
        use(mnt / view / queue.name, os.O_RDONLY, lambda fd: None)
    assert fails(errno.EBUSY, read_once, path)  # its file is closed after a registration that failed
    use(path, os.O_WRONLY, lambda fd: os.write(fd, b'cancel'))
    native.Queue(queue.name).close()
    assert owner(path) == process.pid and not is_free(queue)
    queue.send(b'')
    assert process.result() == me()


def test_cancel_through_another_open_file_withdraws_only_its_own(path, queue, child):
    fd = os.open(path, os.O_WRONLY)
    process = child(read_once, path)
    eventually(lambda: owner(path) == process.pid)
    assert os.write(fd, b'cancel') == 6
    assert owner(path) == process.pid


def test_two_hundred_queues_are_registered_at_once(mnt, names, child):
    queues = []
    try:
        for _ in range(200):
            queues.append(native.create_queue(names(), max_messages=1, max_message_size=1))

        def watch():
            fds = [os.open(mnt / 'mq@notify' / queue.name, os.O_RDONLY | os.O_NONBLOCK) for queue in queues]
            for fd in fds:
                assert fails(errno.EAGAIN, os.pread, fd, 100, 0)
            told = 0
            poll = select.poll()
            for fd in fds:
                poll.register(fd, select.POLLIN)
            while told < len(fds):
                for fd, _ in poll.poll():
                    assert os.pread(fd, 100, 0) == me(os.getppid())
                    poll.unregister(fd)
                    told += 1
            return told
        watcher = child(watch)
        for queue in queues:
            eventually(lambda: owner(mnt / 'mq' / queue.name) == watcher.pid)
        assert not any(is_free(queue) for queue in queues)
        for queue in queues:
            queue.send(b'')
        assert watcher.result() == 200
        assert all(is_free(queue) for queue in queues)
    finally:
        for queue in queues:
            queue.close()


# Withdrawn

def test_closing_withdraws_a_signal(path, queue):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b'USR1')
    assert owner(path) == os.getpid() and not is_free(queue)
    os.close(fd)
    eventually(lambda: is_free(queue))
    assert owner(path) == 0
    queue.send(b'')  # SIGUSR1 would end us


def test_closing_a_copy_does_not_withdraw(path, queue):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b'USR1')
    os.close(os.dup(fd))
    time.sleep(0.02)
    assert owner(path) == os.getpid() and not is_free(queue)
    os.close(fd)
    eventually(lambda: is_free(queue))


@pytest.mark.parametrize('word', [b'cancel', b'cancel\n', b' cancel '])
def test_cancel_withdraws_a_signal(path, queue, word):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b'USR1')
    assert os.write(fd, word) == len(word)
    assert owner(path) == 0 and is_free(queue)
    queue.send(b'')  # SIGUSR1 would end us
    assert os.write(fd, word) == len(word)  # as mq_notify(NULL) does, where nothing is registered
    queue.receive()
    os.write(fd, b'USR1')
    assert owner(path) == os.getpid()


def test_cancel_ends_the_read_of_another_thread(path, queue, child):
    def cancelled():
        import threading
        fd = os.open(path, os.O_RDWR)
        codes = []

        def read():
            try:
                native.pread(fd, 100, 0)
            except OSError as error:
                codes.append(error.errno)
        thread = threading.Thread(target=read)
        thread.start()
        eventually(lambda: owner(path) == os.getpid())
        os.write(fd, b'cancel')
        eventually(lambda: is_free(queue))
        for _ in range(2):  # should it still sleep
            queue.send(b'')
            queue.receive()
        thread.join(10)
        return codes, thread.is_alive()
    codes, alive = child(cancelled).result()
    assert not alive
    assert codes in ([errno.EINTR], [errno.ECANCELED])


def test_cancel_after_the_message_does_not_take_back_the_signal(path, queue, child):
    def cancel(count):
        signal.pthread_sigmask(signal.SIG_BLOCK, [RTMIN])
        fd = os.open(path, os.O_WRONLY)
        for came in range(count):
            os.write(fd, b'RTMIN')
            queue.send(b'')
            os.write(fd, b'cancel')
            if signal.sigtimedwait([RTMIN], 10) is None:
                return came
            queue.receive()
        return count
    assert child(cancel, 20).result() == 20


def test_close_after_the_message_does_not_take_back_the_signal(path, queue, child):
    def close(count):
        signal.pthread_sigmask(signal.SIG_BLOCK, [RTMIN])
        for came in range(count):
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b'RTMIN')
            queue.send(b'')
            os.close(fd)
            if signal.sigtimedwait([RTMIN], 10) is None:
                return came
            queue.receive()
        return count
    assert child(close, 20).result() == 20


@pytest.mark.parametrize('way', ['read', 'signal'])
def test_sigkill_withdraws(path, queue, child, way):
    process = child(read_once, path) if way == 'read' else child(asks, path, b'USR1', signal.SIGUSR1)
    eventually(lambda: owner(path) == process.pid)
    process.kill()
    eventually(lambda: is_free(queue))
    assert owner(path) == 0
    queue.send(b'')
    queue.receive()
    again = child(read_once, path)
    eventually(lambda: owner(path) == again.pid)
    queue.send(b'')
    assert again.result() == me()


def test_signal_ends_a_read_and_withdraws(path, queue, child):
    def interrupted():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        return read_once(path)
    reader = child(interrupted)
    eventually(lambda: reader.asleep)
    reader.send_signal(signal.SIGUSR1)
    with pytest.raises(InterruptedError):
        reader.result()
    assert owner(path) == 0 and is_free(queue)


@pytest.mark.parametrize('seconds', ['0', '0.02'])
def test_timeout_ends_a_read_and_withdraws(mnt, path, queue, seconds):
    fd = os.open(mnt / f'mq@notify,timeout={seconds}' / queue.name, os.O_RDONLY)
    for _ in range(3):
        assert fails(errno.ETIMEDOUT, os.pread, fd, 100, 0)
        assert owner(path) == 0 and is_free(queue)


def test_removed_queue_still_notifies(path, plain, queue, child):
    reader = child(read_once, path)
    eventually(lambda: owner(path) == reader.pid)
    native.mq_unlink(queue.name)
    native.create_queue(queue.name).close()
    queue.send(b'')
    assert reader.result() == me()


def test_signal_goes_to_no_later_process_of_that_id(path, queue, child):
    """The file outlives the process that asked, in another that inherited it; then that id is given out again."""
    def ask():
        os.write(fd, b'USR1')
    fd = os.open(path, os.O_WRONLY)
    asker = child(ask)
    asker.result()
    assert owner(path) == asker.pid

    def later():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.write(ready, b'.')
        os.read(go, 1)
        return signal.sigtimedwait([signal.SIGUSR1], 0) is None
    (told, ready), (go, gone) = os.pipe(), os.pipe()
    try:
        last = f'{asker.pid - 1}'
        for _ in range(50):
            with open('/proc/sys/kernel/ns_last_pid', 'w') as next_pid:
                next_pid.write(last)
            process = child(later)
            os.read(told, 1)
            if process.pid == asker.pid:
                break
            os.write(gone, b'.')
            process.result()
        else:
            pytest.skip(f'process {asker.pid} is not to be had again')
        queue.send(b'')
        eventually(lambda: owner(path) == 0)
        os.write(gone, b'.')
        assert process.result()
    finally:
        for each in told, ready, go, gone:
            os.close(each)


# Without waiting

def test_poll_tells_when_the_message_has_come(path, queue):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    for _ in range(3):
        assert poll.poll(0) == []
        assert fails(errno.EAGAIN, os.pread, fd, 100, 0)  # registers
        assert owner(path) == os.getpid()
        assert poll.poll(20) == []
        queue.send(b'')
        assert poll.poll(PATIENCE * 1000) == [(fd, select.POLLIN)]
        assert owner(path) == 0 and is_free(queue)
        assert os.pread(fd, 100, 0) == me()
        queue.receive()


def test_sleeping_poll_and_epoll_are_woken(path, queue, child):
    def sleep(ready):
        fd = os.open(path, os.O_RDONLY)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        assert fails(errno.EAGAIN, os.pread, fd, 100, 0)
        return ready(fd), os.pread(fd, 100, 0)

    def by_poll(fd):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return [events for _, events in poll.poll()] == [select.POLLIN]

    def by_epoll(fd):
        epoll = select.epoll()
        epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        return [events for _, events in epoll.poll()] == [select.EPOLLIN]

    def by_select(fd):
        return select.select([fd], [], [])[0] == [fd]
    for ready in by_poll, by_epoll, by_select:
        process = child(sleep, ready)
        eventually(lambda: owner(path) == process.pid)
        time.sleep(0.01)
        queue.send(b'')
        assert process.result() == (True, me())
        queue.receive()


def test_nonblock_in_the_path_registers_too(mnt, path, queue):
    fd = os.open(mnt / 'mq@notify,nonblock' / queue.name, os.O_RDONLY)
    assert fails(errno.EAGAIN, os.pread, fd, 100, 0)
    assert fails(errno.EAGAIN, os.pread, fd, 100, 0)
    assert owner(path) == os.getpid()
    queue.send(b'')
    eventually(lambda: select.select([fd], [], [], 0)[0])
    assert os.pread(fd, 100, 0) == me()
    os.close(fd)
    assert is_free(queue)


# Rights, as in mq_notify

@pytest.mark.parametrize('mode, may', [(0o600, False), (0o604, True), (0o602, True), (0o606, True), (0o660, False)])
def test_whoever_may_open_the_queue_may_register(path, plain, queue, child, mode, may):
    os.chmod(plain, mode)

    def register():
        with native.Queue(queue.name, os.O_WRONLY if mode & 2 else os.O_RDONLY) as own:
            register_natively(own)

    def register_here():
        use(path, os.O_RDONLY | os.O_NONBLOCK, lambda fd: fails(errno.EAGAIN, os.pread, fd, 1, 0))
    for registration in register, register_here:
        if may:
            child(registration, user=USER).result()
        else:
            with pytest.raises(PermissionError):
                child(registration, user=USER).result()


def test_queue_that_is_not_there_is_enoent_and_not_made(mnt, path, name):
    for flags in os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT:
        with pytest.raises(OSError):
            os.open(path, flags)
    assert not native.exists('mq', name)


# The notifier, which is a process of the daemon's

def notifier(mounted):
    """Its id, once there is one."""
    daemon = mounted.process.pid
    children = [pid for thread in os.listdir(f'/proc/{daemon}/task')
                for pid in open(f'/proc/{daemon}/task/{thread}/children').read().split()]
    return next((int(pid) for pid in children if 'notify' in open(f'/proc/{pid}/comm').read()), 0)


def test_killed_notifier_is_eio_and_the_next_registration_works(mount, names, child):
    mounted = mount()
    queues = [native.create_queue(names()) for _ in range(5)]
    paths = [mounted.path / 'mq@notify' / queue.name for queue in queues]
    for _ in range(3):
        readers = [child(read_once, path) for path in paths[:4]]
        fd = os.open(paths[4], os.O_WRONLY)
        os.write(fd, b'USR1')
        for path, reader in zip(paths, readers):
            eventually(lambda: owner(path) == reader.pid)
        victim = notifier(mounted)
        os.kill(victim, signal.SIGKILL)
        for reader in readers:
            assert fails(errno.EIO, reader.result)
        assert all(is_free(queue) for queue in queues)
        eventually(lambda: all(owner(path) == 0 for path in paths))
        os.write(fd, b'RTMIN')
        os.write(fd, b'cancel')
        os.close(fd)
        reader = child(read_once, paths[0])
        eventually(lambda: owner(paths[0]) == reader.pid)
        assert notifier(mounted) not in (0, victim)
        queues[0].send(b'')
        assert reader.result() == me()
        queues[0].receive()
    for queue in queues:
        queue.close()


def test_stopped_mount_ends_its_notifier_and_registrations(mount, name, child):
    mounted = mount()
    with native.create_queue(name) as queue:
        fd = os.open(mounted.path / 'mq@notify' / name, os.O_WRONLY)
        os.write(fd, b'USR1')
        assert not is_free(queue)
        pid = notifier(mounted)
        os.close(fd)
        mounted.stop()
        eventually(lambda: not os.path.exists(f'/proc/{pid}'))
        assert is_free(queue)


def test_killed_daemon_takes_its_notifier_along(mount, name, child):
    mounted = mount()
    with native.create_queue(name) as queue:
        reader = child(read_once, mounted.path / 'mq@notify' / name)
        eventually(lambda: owner(mounted.path / 'mq' / name) == reader.pid)
        pid = notifier(mounted)
        mounted.kill()
        with pytest.raises(OSError):
            reader.result()
        eventually(lambda: is_free(queue))
        eventually(lambda: not os.path.exists(f'/proc/{pid}'))

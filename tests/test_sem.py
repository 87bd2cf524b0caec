"""Semaphores: a read waits, a write posts, from either side."""

import errno
import fcntl
import os
import signal
import time

import pytest

import native
from conftest import eventually, open_files, parked

SEM_VALUE_MAX = native.SEM_VALUE_MAX


@pytest.fixture
def path(mnt, name):
    return mnt / 'sem' / name


@pytest.fixture
def make(name):
    """make(value) creates the semaphore natively."""
    opened = []

    def create(value=0):
        opened.append(native.create_semaphore(name, value))
        return opened[-1]
    yield create
    for semaphore in opened:
        semaphore.close()


def read_once(path, flags=0):
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        return native.read(fd, 10)
    finally:
        os.close(fd)


def test_touched_file_is_a_semaphore_of_value_0(path, name):
    path.touch()
    with native.Semaphore(name) as semaphore:
        assert semaphore.value == 0


def test_opening_an_existing_one_to_create_it_keeps_its_value(path, make):
    semaphore = make(3)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    assert semaphore.value == 3


def test_read_waits_for_a_unit(path, make):
    semaphore = make(2)
    assert path.read_bytes() == b'1\n'
    assert semaphore.value == 1


def test_write_posts(path, make):
    semaphore = make()
    path.write_bytes(b'\n')
    semaphore.trywait()
    with pytest.raises(BlockingIOError):
        semaphore.trywait()


def test_native_post_wakes_a_reader(path, make, child):
    semaphore = make()
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    semaphore.post()
    assert reader.result() == b'1\n'
    assert semaphore.value == 0


def test_write_wakes_a_native_waiter(path, make, child):
    semaphore = make()
    waiter = child(semaphore.wait)
    path.write_bytes(b'1')
    waiter.result()
    assert semaphore.value == 0


def test_write_wakes_a_reader(path, make, child):
    make()
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    path.write_bytes(b'1')
    assert reader.result() == b'1\n'


def test_write_of_n_wakes_n_readers(path, make, child):
    semaphore = make()
    readers = [child(read_once, path) for _ in range(5)]
    eventually(lambda: parked(path, *readers))
    path.write_bytes(b'3')
    eventually(lambda: sum(reader.finished for reader in readers) == 3 and semaphore.value == 0)
    path.write_bytes(b'2')
    assert [reader.result() for reader in readers] == [b'1\n'] * 5
    assert semaphore.value == 0


# What a write may say

@pytest.mark.parametrize('text, posts', [
    (b'1', 1), (b'5', 5), (b'5\n', 5), (b' 5 \n', 5), (b'\t7', 7), (b'32767', 32767), (b'32767\n', 32767),
    (b'\n', 1), (b' ', 1), (b' \t\n', 1), (b'\n' * 100, 1),
])
def test_number_posts_that_often_and_white_space_once(path, make, text, posts):
    semaphore = make()
    fd = os.open(path, os.O_WRONLY)
    assert os.write(fd, text) == len(text)
    assert semaphore.value == posts


@pytest.mark.parametrize('text', [
    b'0', b'-1', b'+5', b'32768', b'65536', b'4294967297', b'18446744073709551617', b'9' * 1000, b'garbage', b'5x',
    b'x5', b'1 2', b'1.5', b'0x1', b'1e3', b'1\0', b'\0', b'\xff', b'9' * 2**20,
])
def test_anything_else_is_invalid_and_posts_nothing(path, make, text):
    semaphore = make(1)
    fd = os.open(path, os.O_WRONLY)
    with pytest.raises(OSError) as failure:
        os.write(fd, text)
    assert failure.value.errno == errno.EINVAL
    assert semaphore.value == 1


def test_white_space_in_one_huge_write_posts_no_more_than_once(path, make):
    semaphore = make()
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, b' ' * (3 * 2**20))
    except OSError as failure:
        assert failure.errno == errno.EINVAL
    assert semaphore.value <= 1


def test_empty_write_posts_nothing(path, make):
    semaphore = make()
    fd = os.open(path, os.O_WRONLY)
    assert os.write(fd, b'') == 0
    assert semaphore.value == 0


@pytest.mark.parametrize('value, text', [
    (SEM_VALUE_MAX, b'1'), (SEM_VALUE_MAX, b'\n'), (SEM_VALUE_MAX - 2, b'3'), (SEM_VALUE_MAX - 32766, b'32767'),
])
def test_posts_past_the_maximum_overflow_all_or_nothing(path, make, value, text):
    semaphore = make(value)
    fd = os.open(path, os.O_WRONLY)
    with pytest.raises(OSError) as failure:
        os.write(fd, text)
    assert failure.value.errno == errno.EOVERFLOW
    assert semaphore.value == value


def test_posts_up_to_the_maximum_succeed(path, make):
    semaphore = make(SEM_VALUE_MAX - 3)
    path.write_bytes(b'3\n')
    assert semaphore.value == SEM_VALUE_MAX


def test_write_offset_append_and_truncation_change_nothing(path, make):
    semaphore = make(1)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert semaphore.value == 1
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.pwrite(fd, b'2', 1000)
    assert semaphore.value == 3


# The offset decides what a read does

def test_each_read_at_offset_0_takes_a_unit(path, make):
    semaphore = make(3)
    fd = os.open(path, os.O_RDONLY)
    assert [os.pread(fd, 10, 0) for _ in range(2)] == [b'1\n'] * 2
    os.lseek(fd, 0, os.SEEK_SET)
    assert os.read(fd, 10) == b'1\n'
    assert semaphore.value == 0


def test_later_offsets_continue_and_then_end(path, make):
    semaphore = make(5)
    fd = os.open(path, os.O_RDONLY)
    assert [os.read(fd, 1) for _ in range(4)] == [b'1', b'\n', b'', b'']
    assert os.pread(fd, 10, 1) == b'\n'
    assert os.pread(fd, 10, 1000) == b''
    assert semaphore.value == 4


def test_later_offset_before_any_operation_is_end_of_file(path, make):
    semaphore = make(1)
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 10, 1) == b''
    assert semaphore.value == 1


def test_open_files_continue_their_own_results_only(path, make):
    make(1)
    first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    assert os.read(first, 10) == b'1\n'
    assert os.pread(second, 10, 1) == b''


# Blocking

@pytest.mark.parametrize('count', [1, 5])
def test_blocked_reader_leaves_value_alone(path, make, child, count):
    semaphore = make()
    readers = [child(read_once, path) for _ in range(count)]
    eventually(lambda: parked(path, *readers))
    assert semaphore.value == 0
    with pytest.raises(BlockingIOError):
        semaphore.trywait()
    for reader in readers:
        reader.kill()
    semaphore.post()
    assert semaphore.value == 1


def test_nonblocking_open_fails_at_once_where_it_would_wait(path, make):
    semaphore = make(1)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert os.pread(fd, 10, 0) == b'1\n'
    with pytest.raises(BlockingIOError):
        os.pread(fd, 10, 0)
    semaphore.post()
    assert os.pread(fd, 10, 0) == b'1\n'


def test_nonblocking_can_be_set_and_taken_back_later(path, make, child):
    semaphore = make()
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.pread(fd, 10, 0)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    reader = child(native.pread, fd, 10, 0)
    eventually(lambda: parked(path, reader))
    semaphore.post()
    assert reader.result() == b'1\n'


def read_with_a_handler(path, restarts):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR1, not restarts)
    return read_once(path)


@pytest.mark.parametrize('restarts', [False, True], ids=['interrupting', 'SA_RESTART'])
def test_signal_ends_the_wait_and_nothing_is_taken(path, make, child, restarts):
    semaphore = make()
    reader = child(read_with_a_handler, path, restarts)
    eventually(lambda: parked(path, reader))
    reader.send_signal(signal.SIGUSR1)
    with pytest.raises(InterruptedError):
        reader.result()
    semaphore.post()
    assert semaphore.value == 1


def test_killed_reader_takes_nothing(path, make, child):
    semaphore = make()
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    reader.kill()
    eventually(lambda: parked(path))
    semaphore.post()
    assert semaphore.value == 1


def test_ignored_signal_leaves_the_reader_asleep(path, make, child):
    semaphore = make()

    def read_unmoved():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        return read_once(path)
    reader = child(read_unmoved)
    eventually(lambda: parked(path, reader))
    reader.send_signal(signal.SIGUSR1)
    assert reader.asleep
    semaphore.post()
    assert reader.result() == b'1\n'


# Removal

@pytest.mark.parametrize('remove', ['rm', 'sem_unlink'])
def test_removed_semaphore_works_on_behind_an_open_file(path, make, name, remove):
    semaphore = make()
    fd = os.open(path, os.O_RDWR)
    os.unlink(path) if remove == 'rm' else native.sem_unlink(name)
    os.write(fd, b'2')
    assert semaphore.value == 2
    assert os.pread(fd, 10, 0) == b'1\n'
    assert semaphore.value == 1


def test_semaphore_made_anew_is_another_one(path, make, name):
    first = make()
    fd = os.open(path, os.O_RDWR)
    path.unlink()
    path.touch()
    os.write(fd, b'1')
    with native.Semaphore(name) as second:
        assert (first.value, second.value) == (1, 0)


def test_reader_of_a_removed_semaphore_is_woken_by_those_who_have_it(path, make, child):
    semaphore = make()
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    path.unlink()
    assert reader.asleep
    semaphore.post()
    assert reader.result() == b'1\n'


# The daemon's death

def test_killed_daemon_loses_nothing(mount, name, child):
    mounted = mount()
    path = mounted.path / 'sem' / name
    path.touch()
    path.write_bytes(b'2')
    with native.Semaphore(name) as semaphore:
        mounted.kill()
        assert semaphore.value == 2
        mounted.start()
        path.write_bytes(b'1')
        assert semaphore.value == 3


def test_daemon_killed_under_blocked_readers_leaves_the_semaphore_usable(mount, name, child):
    mounted = mount()
    path = mounted.path / 'sem' / name
    with native.create_semaphore(name) as semaphore:
        readers = [child(read_once, path) for _ in range(3)]
        eventually(lambda: parked(path, *readers))
        mounted.kill()
        for reader in readers:
            with pytest.raises(OSError):
                reader.result()
        assert semaphore.value == 0
        waiter = child(semaphore.wait)
        semaphore.post()
        waiter.result()
        mounted.start()
        reader = child(read_once, path)
        eventually(lambda: parked(path, reader))
        semaphore.post()
        assert reader.result() == b'1\n'
        assert semaphore.value == 0


def test_semaphores_are_kept_for_a_moment_after_their_last_close_and_no_longer(mount, name):
    mounted = mount()

    def kept():
        found = {file.removesuffix(' (deleted)') for file in open_files(mounted.process.pid)}
        return {path for path in found if path.startswith(f'/dev/shm/sem.{name}')}

    names = [f'{name}{number}' for number in range(100)]
    for each in names:
        native.create_semaphore(each, 1).close()
        assert read_once(mounted.path / 'sem' / each) == b'1\n'
        native.sem_unlink(each)
    assert len(kept()) <= 65  # the last may not be closed yet
    eventually(lambda: not kept())

    path = mounted.path / 'sem' / name
    with native.create_semaphore(name, 3):
        with open(path, 'rb', buffering=0):
            eventually(lambda: len(kept()) == 1)
            assert read_once(path) == b'1\n'
            time.sleep(0.3)
            assert len(kept()) == 1
        eventually(lambda: not kept())

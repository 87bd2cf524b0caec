"""Shared memory as a file: each call answers what it answers on /dev/shm, and acts on the same bytes."""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import pathlib
import resource
import signal
import subprocess

import pytest

import native
from conftest import BUILD, Child, OPTIONS, SEGMENT_SIZE as SIZE, eventually

PAGE = mmap.PAGESIZE
long = ctypes.c_long

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE = 1, 2, 8, 16, 32, 64

native.libc.mmap.restype = ctypes.c_void_p
for function in 'splice', 'copy_file_range', 'sendfile':
    getattr(native.libc, function).restype = ctypes.c_ssize_t


@pytest.fixture
def path(mnt, name):
    return mnt / 'shm' / name


def outcome(operation, *arguments):
    """What it returns, or the name of its errno."""
    try:
        return operation(*arguments)
    except OSError as failure:
        return errno.errorcode[failure.errno]


@pytest.fixture
def same(mnt, names):
    """same(operation) calls operation(fd, path) on a segment through the mount and on one like it natively.

    Each holds 20000 bytes of data and a hole up to 64 KiB. The result, which must be the same, is returned; so must be
    the content, the size and the memory that it takes.
    """
    def compare(operation, flags=os.O_RDWR):
        found = []
        for folder in pathlib.Path('/dev/shm'), mnt / 'shm':
            path = folder / names()
            path.write_bytes(bytes(range(250)) * 80)
            os.truncate(path, SIZE)
            fd = os.open(path, flags)
            result = outcome(operation, fd, path)
            status = os.fstat(fd)
            os.close(fd)
            found.append((result, status.st_size, status.st_blocks, path.read_bytes()))
        natively, ours = found
        assert ours[:3] == natively[:3]
        assert ours[3] == natively[3]
        return ours[0]
    return compare


def fallocate(fd, mode, offset, length):
    return native.call('fallocate', fd, mode, long(offset), long(length))


# Size: what either side does the other sees at once

EACH = pytest.mark.parametrize('by', ['native', 'mount'])


@pytest.fixture
def ends(path, segment):
    """{'native': fd, 'mount': fd} of the segment."""
    fd = os.open(path, os.O_RDWR)
    yield {'native': segment, 'mount': fd}
    os.close(fd)


def other(by):
    return {'native': 'mount', 'mount': 'native'}[by]


@EACH
def test_size_set_on_one_side_is_that_of_the_other(ends, path, by):
    """By ftruncate and by fallocate, seen by fstat, stat, lseek, read and the stat view."""
    def sizes():
        theirs = ends[other(by)]
        view = path.parent.parent / 'shm@stat' / path.name
        return {os.fstat(theirs).st_size, os.lseek(theirs, 0, os.SEEK_END), path.stat().st_size,
                len(os.pread(theirs, 2 * SIZE, 0)), int(view.read_text().split('size ')[1].split()[0])}
    for size in 0, 1, PAGE, SIZE + 1, 5:
        os.ftruncate(ends[by], size)
        assert sizes() == {size}
    for offset, length in ((0, 100), (50, 100), (PAGE, PAGE), (0, 10)):
        fallocate(ends[by], 0, offset, length)
        assert sizes() == {max(100, 150 if offset else 100, 2 * PAGE if offset >= PAGE or length == 10 else 0)}


@EACH
def test_memory_of_fallocate_is_seen_on_the_other_side(ends, by):
    for mode, offset, length in ((0, 0, SIZE), (PUNCH_HOLE | KEEP_SIZE, PAGE, 3 * PAGE), (KEEP_SIZE, 0, 2 * SIZE),
                                 (PUNCH_HOLE | KEEP_SIZE, 0, 4 * SIZE)):
        fallocate(ends[by], mode, offset, length)
        blocks = os.fstat(ends[by]).st_blocks
        assert os.fstat(ends[other(by)]).st_blocks == blocks
        assert os.fstat(ends[other(by)]).st_size == SIZE
        assert bool(blocks) == (length < 4 * SIZE)


def touch(fd, size, offset, store):
    """Maps, touches one byte, and says what was there. In a child: it may be SIGBUS."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    address = native.libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd,
                               long(0))
    assert address != ctypes.c_void_p(-1).value
    byte = ctypes.c_ubyte.from_address(address + offset)
    if store:
        byte.value = 7
    return byte.value


def end_of(child):
    """What the child returned, or the signal that ended it."""
    try:
        return child.result()
    except ChildProcessError:
        return signal.Signals(-child.wait()).name


@EACH
@pytest.mark.parametrize('store', [False, True], ids=['load', 'store'])
def test_sigbus_where_natively_it_is(mappable, ends, child, by, store):
    """Past the end that either side has set: by pages, and the rest of the last page is memory, as on tmpfs."""
    for size in 0, 1, PAGE, PAGE + 1, 3 * PAGE - 1:
        os.ftruncate(ends[by], size)
        for offset in 0, PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE:
            natively, ours = [end_of(child(touch, ends[side], SIZE, offset, store)) for side in ('native', 'mount')]
            last = -(-size // PAGE) * PAGE
            assert natively == ours == ((7 if store else 0) if offset < last else 'SIGBUS')


@EACH
def test_mapping_past_the_end_comes_to_life_when_it_grows(mappable, ends, by):
    """The mapping is older than the memory behind it."""
    theirs = ends[other(by)]
    os.ftruncate(theirs, PAGE)
    address = native.libc.mmap(None, ctypes.c_size_t(SIZE), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, theirs,
                               long(0))
    memory = (ctypes.c_ubyte * SIZE).from_address(address)
    os.ftruncate(ends[by], SIZE)
    os.pwrite(ends[by], b'far', SIZE - 3)
    assert bytes(memory[SIZE - 3:]) == b'far'
    memory[5 * PAGE] = 9
    assert os.pread(ends[by], 1, 5 * PAGE) == b'\t'
    native.call('munmap', ctypes.c_void_p(address), ctypes.c_size_t(SIZE))


@EACH
def test_what_was_cut_off_comes_back_as_zeros(mappable, ends, by):
    """In the rest of the last page as well, which the other side has mapped."""
    theirs = ends[other(by)]
    with mmap.mmap(theirs, SIZE) as memory:
        memory[:] = b'x' * SIZE
        os.ftruncate(ends[by], PAGE + 10)
        os.ftruncate(ends[by], SIZE)
        assert memory[:] == b'x' * (PAGE + 10) + bytes(SIZE - PAGE - 10)


@EACH
def test_hole_that_one_side_punches_is_a_hole_in_the_others_mapping(mappable, ends, by):
    theirs = ends[other(by)]
    with mmap.mmap(theirs, SIZE) as memory:
        memory[:] = b'x' * SIZE
        fallocate(ends[by], PUNCH_HOLE | KEEP_SIZE, PAGE + 10, 2 * PAGE)
        assert memory[:] == b'x' * (PAGE + 10) + bytes(2 * PAGE) + b'x' * (SIZE - 3 * PAGE - 10)
        memory[2 * PAGE] = 5
        assert os.pread(ends[by], 1, 2 * PAGE) == b'\5'


def test_size_of_a_segment_that_grows_all_the_time_is_never_seen_smaller(ends, child):
    """A native process grows it by a page at a time; through the mount size and data come in order."""
    def grow():
        for size in range(SIZE, SIZE + 3000 * PAGE, PAGE):
            os.ftruncate(ends['native'], size + PAGE)
            os.pwrite(ends['native'], b'x', size)
    growing, seen = child(grow), SIZE
    while not growing.finished:
        at = os.lseek(ends['mount'], 0, os.SEEK_END)
        size = os.fstat(ends['mount']).st_size
        assert seen <= at <= size
        if size > SIZE + PAGE:
            assert os.pread(ends['mount'], PAGE, size - 2 * PAGE)[:1] == b'x'
        seen = size
    growing.result()
    assert os.fstat(ends['mount']).st_size == SIZE + 3000 * PAGE


# fallocate, all modes

RANGES = [(0, PAGE), (PAGE, 2 * PAGE), (100, 200), (5000, 10000), (SIZE - PAGE, PAGE), (SIZE, 2 * PAGE),
          (SIZE + 100, 1), (0, 10 * SIZE)]


@pytest.mark.parametrize('offset, length', RANGES)
@pytest.mark.parametrize('mode', [
    0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE, INSERT_RANGE,
    UNSHARE_RANGE, UNSHARE_RANGE | KEEP_SIZE, COLLAPSE_RANGE | KEEP_SIZE, 0x100])
def test_fallocate_is_as_on_tmpfs(same, mode, offset, length):
    """Those that tmpfs has do what they do there; the others are the same refusal."""
    result = same(lambda fd, path: fallocate(fd, mode, offset, length))
    assert (result == 0) == (mode in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE))


@pytest.mark.parametrize('offset, length, code', [
    (-1, 10, 'EINVAL'), (0, 0, 'EINVAL'), (0, -1, 'EINVAL'), (2**63 - 1, 10, 'EFBIG'), (2**62, 2**62, 'EFBIG'),
    (0, 2**50, 'ENOSPC')])
def test_impossible_fallocate_is_the_native_error(same, offset, length, code):
    assert same(lambda fd, path: fallocate(fd, 0, offset, length)) == code


@pytest.mark.parametrize('flags', [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
def test_changes_of_size_need_a_descriptor_that_may_write(same, flags):
    def change(fd, path):
        return [outcome(os.ftruncate, fd, 10), outcome(fallocate, fd, 0, 0, 10),
                outcome(fallocate, fd, PUNCH_HOLE | KEEP_SIZE, 0, 10)]
    assert same(change, flags) == (['EINVAL', 'EBADF', 'EBADF'] if flags == os.O_RDONLY else [None, 0, 0])


@pytest.mark.parametrize('size, result', [(-1, 'EINVAL'), (2**63 - 1, 0), (2**40 + 1, 0), (0, 0)])
def test_ftruncate_at_its_limits(mnt, names, size, result):
    """Of an empty segment: to a size that no memory has, which is a hole."""
    for folder in pathlib.Path('/dev/shm'), mnt / 'shm':
        path = folder / names()
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        assert outcome(native.call, 'ftruncate', fd, long(size)) == result
        assert path.stat().st_size == os.fstat(fd).st_size == (0 if result == 'EINVAL' else size)
        assert path.stat().st_blocks == 0
        os.close(fd)


def test_file_size_limit_of_the_caller_applies(same, child):
    """RLIMIT_FSIZE: a write up to it is cut short; beyond it is EFBIG with SIGXFSZ, as often as natively."""
    def limited(fd, path):
        signals = []
        signal.signal(signal.SIGXFSZ, lambda number, _: signals.append(number))
        resource.setrlimit(resource.RLIMIT_FSIZE, (70000, 70000))
        results = [outcome(os.pwrite, fd, b'x' * 10000, 65000), len(signals),
                   outcome(os.pwrite, fd, b'x', 70000), outcome(os.ftruncate, fd, 70001),
                   outcome(os.truncate, path, 70001), outcome(fallocate, fd, 0, 0, 70001),
                   outcome(os.ftruncate, fd, 69999)]
        return results, len(signals)
    results, signals = same(lambda fd, path: child(limited, fd, path).result())
    assert results == [5000, 0, 'EFBIG', 'EFBIG', 'EFBIG', 'EFBIG', None] and signals > 0


# Holes

@pytest.mark.parametrize('whence', [os.SEEK_DATA, os.SEEK_HOLE], ids=['SEEK_DATA', 'SEEK_HOLE'])
def test_holes_are_found_where_tmpfs_finds_them(same, whence):
    def walk(fd, path):
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 2 * PAGE, PAGE)
        os.pwrite(fd, b'x', 10 * PAGE + 5)
        return [outcome(os.lseek, fd, offset, whence)
                for offset in (-1, 0, 1, PAGE, 2 * PAGE, 2 * PAGE + 1, 3 * PAGE, 20000, 5 * PAGE, 10 * PAGE, 11 * PAGE,
                               SIZE - 1, SIZE, SIZE + 1, 2**62)]
    found = same(walk)
    assert found[1] == (0 if whence == os.SEEK_DATA else 2 * PAGE)
    assert found[-1] == 'ENXIO'


def test_seeking_is_as_natively(same):
    def seek(fd, path):
        return [outcome(os.lseek, fd, *to) for to in (
            (5, os.SEEK_SET), (5, os.SEEK_CUR), (-5, os.SEEK_END), (5, os.SEEK_END), (-1, os.SEEK_SET),
            (2**63 - 1, os.SEEK_SET), (1, os.SEEK_CUR), (0, 17))]
    assert same(seek) == [5, 10, SIZE - 5, SIZE + 5, 'EINVAL', 2**63 - 1, 'EINVAL', 'EINVAL']


def test_sparse_copy_keeps_the_holes(mnt, names):
    """cp --sparse=auto and the mount's SEEK_HOLE: 64 MiB with three pages of data."""
    source, target = mnt / 'shm' / names(), mnt / 'shm' / names()
    with open(source, 'xb') as file:
        file.truncate(64 * 2**20)
        for offset in 0, 30 * 2**20 + 5, 64 * 2**20 - 1:
            os.pwrite(file.fileno(), b'x', offset)
    subprocess.run(['cp', source, target], check=True)
    subprocess.run(['cmp', source, pathlib.Path('/dev/shm', target.name)], check=True)
    assert os.stat(f'/dev/shm/{target.name}').st_blocks == source.stat().st_blocks == 3 * PAGE // 512


# From file to file

FROM_TO = [('mount', 'mount'), ('mount', 'native'), ('native', 'mount')]
from_to = pytest.mark.parametrize('source, target', FROM_TO, ids=['-'.join(ends) for ends in FROM_TO])


@pytest.fixture
def two(mnt, names):
    """two(source, target) opens two segments, natively or through the mount; the first holds 20000 bytes."""
    opened = []

    def make(*sides):
        folders = {'native': pathlib.Path('/dev/shm'), 'mount': mnt / 'shm'}
        fds = [os.open(folders[side] / names(), os.O_RDWR | os.O_CREAT | os.O_EXCL) for side in sides]
        os.write(fds[0], bytes(range(250)) * 80)
        os.lseek(fds[0], 0, os.SEEK_SET)
        opened.extend(fds)
        return fds
    yield make
    for fd in opened:
        os.close(fd)


def content(fd):
    return os.pread(fd, 10 * SIZE, 0)


@from_to
def test_copy_file_range(two, source, target):
    """What two segments on /dev/shm do; between the mount and /dev/shm EXDEV, as between any two file systems."""
    def copy(source, target):
        a, b = two(source, target)
        return [outcome(os.copy_file_range, a, b, *arguments) for arguments in (
            (5000, 100, 3), (5000, None, 10000), (0,), (100, 30000, 0), (100, 0, 10**6), (2**40, 19000, 0))], content(b)
    natively = copy('native', 'native')
    assert natively[0] == [5000, 5000, 0, 0, 100, 1000]
    assert copy(source, target) == (natively if source == target else (['EXDEV'] * 6, b''))


def test_copy_file_range_within_a_segment(same):
    """Not onto itself."""
    def copy(fd, path):
        return [outcome(os.copy_file_range, fd, fd, *arguments) for arguments in (
            (100, 0, 30000), (100, 0, 50), (100, 50, 0), (100, 0, 100), (PAGE, PAGE, SIZE - 10))]
    assert same(copy) == [100, 'EINVAL', 'EINVAL', 100, PAGE]


def test_copy_file_range_needs_the_right_descriptors(mnt, path, segment):
    modes = os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND
    reading, writing, appending = (os.open(path, flags) for flags in modes)
    for arguments in (writing, writing), (reading, reading), (reading, appending):
        assert outcome(os.copy_file_range, *arguments, 10, 0, 100) == 'EBADF'


def test_copy_file_range_between_two_mounts_copies_or_is_refused(mnt, mount, names):
    source, target = mnt / 'shm' / names(), mount().path / 'shm' / names()
    source.write_bytes(b'across')
    a, b = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT)
    assert (outcome(os.copy_file_range, a, b, 6), content(b)) in [('EXDEV', b''), (6, b'across')]


@from_to
def test_sendfile(two, source, target):
    def send(source, target):
        a, b = two(source, target)
        return [outcome(os.sendfile, b, a, *arguments) for arguments in (
            (0, 5000), (100, 3 * PAGE), (None, 10), (19990, 100), (20000, 100), (2**40, 100))], content(b)
    natively = send('native', 'native')
    assert natively[0] == [5000, 3 * PAGE, 10, 10, 0, 0]
    assert send(source, target) == natively


def splice(source, offset, target, to, length):
    at = [position if position is None else ctypes.byref(long(position)) for position in (offset, to)]
    return native.call('splice', source, at[0], target, at[1], ctypes.c_size_t(length), 0)


@from_to
def test_splice_by_way_of_a_pipe(two, source, target):
    def move(source, target):
        a, b = two(source, target)
        reading, writing = os.pipe()
        moved = []
        for offset, to, length in (
                (0, 0, 5000), (100, SIZE, 3 * PAGE), (None, None, 10), (19999, 100, 10), (20000, 0, 10)):
            moved.append(splice(a, offset, writing, None, length))
            if moved[-1]:
                moved.append(splice(reading, None, b, to, moved[-1]))
        os.close(reading)
        os.close(writing)
        return moved, content(b)
    natively = move('native', 'native')
    assert natively[0][-3:] == [1, 1, 0]
    assert move(source, target) == natively


def test_splice_into_a_descriptor_that_appends_is_refused(same):
    def into(fd, path):
        reading, writing = os.pipe()
        os.write(writing, b'x')
        with os.fdopen(reading), os.fdopen(writing, 'w'):
            return splice(reading, None, fd, None, 1)
    assert same(into, os.O_WRONLY | os.O_APPEND) == 'EINVAL'


def test_sendfile_of_megabytes_into_a_socket_while_it_is_rewritten(mappable, path, name, child):
    """Each page as it is when it is sent: nothing that was written before the call is missed."""
    import socket
    path.write_bytes(b'a' * 2**22)
    fd = os.open(path, os.O_RDONLY)
    for letter in b'bcd':
        with open(f'/dev/shm/{name}', 'r+b') as file:
            file.write(bytes([letter]) * 2**22)
        ours, theirs = socket.socketpair()

        def receive():
            ours.close()
            received = b''
            while part := theirs.recv(2**20):
                received += part
            return set(received), len(received)
        receiver = child(receive)
        theirs.close()
        at = 0
        while at < 2**22:
            at += os.sendfile(ours.fileno(), fd, at, 2**22 - at)
        ours.close()
        assert receiver.result() == ({letter}, 2**22)


# Reading and writing, with all that can be asked of it

RWF = {'HIPRI': 1, 'DSYNC': 2, 'SYNC': 4, 'NOWAIT': 8, 'APPEND': 16, 'NOAPPEND': 32, 'ATOMIC': 64, 'DONTCACHE': 128,
       'unknown': 1 << 30}


@pytest.mark.parametrize('flag', RWF)
def test_preadv2_and_pwritev2(same, flag):
    """Each flag is taken or refused as by tmpfs, and RWF_APPEND appends."""
    def use(fd, path):
        pieces = bytearray(5), bytearray(10)
        return [outcome(os.preadv, fd, pieces, 100, RWF[flag]), bytes(pieces[0] + pieces[1]),
                outcome(os.pwritev, fd, [b'one', b'two'], 50, RWF[flag]), os.fstat(fd).st_size]
    result = same(use)
    assert result[-1] == SIZE + 6 * (flag == 'APPEND')


def test_vectors_are_one_piece(same):
    """More than the daemon takes at once, in pieces of all sizes, across pages and past the end."""
    def use(fd, path):
        pieces = [bytes([number % 251]) * (number * 37 % 3000) for number in range(1000)]
        written = os.pwritev(fd, pieces, 4001)
        read = [bytearray(5000) for _ in range(300)]
        return written, os.preadv(fd, read, 4000), b''.join(read)
    written, read, _ = same(use)
    assert written > 2**20 and read == 4001 + written - 4000


def test_o_direct(same):
    """tmpfs has it: aligned or not."""
    def use(fd, path):
        direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, 2 * PAGE)
        buffer[:3] = b'abc'
        try:
            return [outcome(os.pwritev, direct, [buffer], 0), outcome(os.preadv, direct, [buffer], PAGE), buffer[:],
                    outcome(os.pwrite, direct, b'odd', 3), outcome(os.pread, direct, 5, 1), os.pread(fd, 8, 0)]
        finally:
            os.close(direct)
    assert same(use)[:2] == [2 * PAGE, 2 * PAGE]


def test_o_direct_set_and_taken_back_by_fcntl(same):
    def use(fd, path):
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
        os.pwrite(fd, b'direct', 1)
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        os.pwrite(fd, b'cached', 10)
        return os.pread(fd, 20, 0)
    assert same(use)[1:7] == b'direct'


@pytest.mark.parametrize('flags', [os.O_SYNC, os.O_DSYNC, os.O_NOATIME, os.O_NONBLOCK, os.O_NOFOLLOW, os.O_CLOEXEC])
def test_flags_of_open_that_change_little(same, flags):
    def use(fd, path):
        with open(path, 'r+b', buffering=0, opener=lambda path, _: os.open(path, os.O_RDWR | flags)) as file:
            return file.write(b'hello'), file.seek(1), file.read(3), fcntl.fcntl(file, fcntl.F_GETFL)
    assert same(use)[:3] == (5, 1, b'ell')


@pytest.mark.parametrize('flags, code', [(os.O_DIRECTORY, 'ENOTDIR'), (os.O_CREAT | os.O_EXCL, 'EEXIST')])
def test_opens_that_fail(same, flags, code):
    assert same(lambda fd, path: os.open(path, flags)) == code


def test_o_path_is_a_name_and_no_more(same):
    def use(fd, path):
        name = os.open(path, os.O_PATH)
        try:
            return [outcome(os.pread, name, 1, 0), outcome(os.ftruncate, name, 1), os.fstat(name).st_size,
                    os.pread(os.open(f'/proc/self/fd/{name}', os.O_RDONLY), 3, 1)]
        finally:
            os.close(name)
    assert same(use) == ['EBADF', 'EBADF', SIZE, b'\1\2\3']


def test_reads_and_writes_at_the_edges(same):
    def use(fd, path):
        return [outcome(os.pread, fd, 10, SIZE - 5), outcome(os.pread, fd, 10, SIZE), outcome(os.pread, fd, 10, 2**62),
                outcome(os.pread, fd, 10, 2**63 - 5), outcome(os.pread, fd, 10, -1), outcome(os.pread, fd, 0, 0),
                outcome(os.pwrite, fd, b'', 5), outcome(os.pwrite, fd, b'', 2 * SIZE), outcome(os.pwrite, fd, b'x', -1),
                outcome(os.pwrite, fd, b'xyz', 2**63 - 1), outcome(os.pwrite, fd, b'far', SIZE + 10)]
    assert same(use)[-2:] == ['EINVAL', 3]


def test_many_writers_at_their_own_places(path, name, child):
    """Native processes and users of the mount write interleaved records; each arrives."""
    path.write_bytes(b'')

    def write(file, which):
        fd = os.open(file, os.O_WRONLY)
        for number in range(which, 2000, 4):
            os.pwrite(fd, b'%07d\n' % number, 8 * number)
    writers = [child(write, file, which) for which, file in enumerate([path, f'/dev/shm/{name}'] * 2)]
    for writer in writers:
        writer.result()
    assert path.read_bytes() == b''.join(b'%07d\n' % number for number in range(2000))


def test_appenders_on_both_sides_lose_nothing(path, name, child):
    """O_APPEND of native processes and of the mount's users, at once: every record is there, whole, once."""
    path.write_bytes(b'')

    def append(file, which):
        fd = os.open(file, os.O_WRONLY | os.O_APPEND)
        for number in range(which, 2000, 4):
            assert os.write(fd, b'%07d\n' % number) == 8
    writers = [child(append, file, which) for which, file in enumerate([path, f'/dev/shm/{name}'] * 2)]
    for writer in writers:
        writer.result()
    assert sorted(path.read_bytes().splitlines()) == [b'%07d' % number for number in range(2000)]


# Advice

@pytest.mark.parametrize('advice', ['NORMAL', 'SEQUENTIAL', 'RANDOM', 'NOREUSE', 'WILLNEED', 'DONTNEED'])
def test_posix_fadvise(same, advice):
    def use(fd, path):
        os.posix_fadvise(fd, 0, SIZE, getattr(os, f'POSIX_FADV_{advice}'))
        return os.pread(fd, 10, 0)
    assert same(use) == bytes(range(10))


def test_bad_advice_and_other_calls_that_move_no_data(same):
    def use(fd, path):
        return [outcome(os.posix_fadvise, fd, 0, 0, 99), outcome(os.fsync, fd), outcome(os.fdatasync, fd),
                outcome(native.call, 'sync_file_range', fd, long(0), long(PAGE), 7), outcome(native.call, 'syncfs', fd),
                outcome(native.call, 'readahead', fd, long(0), ctypes.c_size_t(PAGE))]
    assert same(use) == ['EINVAL', None, None, 0, 0, 0]


# mmap and what is done to mappings

@contextlib.contextmanager
def raw_mapping(fd, protection=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_SHARED, size=SIZE):
    """The address of a mapping."""
    ctypes.set_errno(0)
    address = native.libc.mmap(None, ctypes.c_size_t(size), protection, flags, fd, long(0))
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), 'mmap')
    try:
        yield ctypes.c_void_p(address)
    finally:
        native.call('munmap', ctypes.c_void_p(address), ctypes.c_size_t(size))


MAP = {'SHARED': 1, 'PRIVATE': 2, 'SHARED_VALIDATE': 3, 'SHARED_VALIDATE|SYNC': 0x80003, 'SHARED|POPULATE': 0x8001,
       'SHARED|LOCKED': 0x2001, 'SHARED|HUGETLB': 0x40001, 'SHARED|NORESERVE': 0x4001, 'SHARED|NONBLOCK': 0x18001}


@pytest.mark.parametrize('flags', MAP)
@pytest.mark.parametrize('opened', [os.O_RDONLY, os.O_WRONLY, os.O_RDWR], ids=['RDONLY', 'WRONLY', 'RDWR'])
def test_mmap_with_each_flag_protection_and_mode(mappable, same, flags, opened):
    """PROT_EXEC too, and none at all."""
    def use(fd, path):
        results = []
        for protection in range(8):
            try:
                with raw_mapping(fd, protection, MAP[flags]) as address:
                    results.append((ctypes.c_ubyte * 3).from_address(address.value)[:] if protection & 1 else 'mapped')
            except OSError as failure:
                results.append(errno.errorcode[failure.errno])
        return results
    results = same(use, opened)
    assert ([0, 1, 2] in results) == (opened != os.O_WRONLY and flags not in ('SHARED_VALIDATE|SYNC', 'SHARED|HUGETLB'))


def test_code_in_a_segment_runs(mappable, same):
    """PROT_EXEC is more than a flag. x86-64's and aarch64's way to return 42."""
    code = {'x86_64': b'\xb8\x2a\0\0\0\xc3', 'aarch64': b'\x40\x05\x80\x52\xc0\x03\x5f\xd6'}[os.uname().machine]

    def run(fd, path):
        os.pwrite(fd, code, 0)
        with raw_mapping(fd, mmap.PROT_READ | mmap.PROT_EXEC) as address:
            return ctypes.CFUNCTYPE(ctypes.c_int)(address.value)()
    assert same(run) == 42


@pytest.mark.parametrize('advice', [*range(5), *range(8, 26)])
def test_madvise(mappable, same, advice):
    """Every advice there is. MADV_REMOVE (9) punches a hole in the segment."""
    def use(fd, path):
        with raw_mapping(fd) as address:
            result = outcome(native.call, 'madvise', address, ctypes.c_size_t(2 * PAGE), advice)
            return result, os.pread(fd, 3 * PAGE, 0)
    result, data = same(use)
    assert (result, data[:2 * PAGE].strip(b'\0') == b'') == ((0, True) if advice == 9 else (result, False))


def test_madv_remove_needs_a_mapping_that_may_write(mappable, same):
    def use(fd, path):
        with raw_mapping(fd, mmap.PROT_READ) as address:
            return native.call('madvise', address, ctypes.c_size_t(PAGE), 9)
    assert same(use, os.O_RDONLY) == 'EACCES'


def test_madv_remove_through_one_side_is_a_hole_on_the_other(mappable, ends):
    for by in ends:
        os.pwrite(ends['native'], b'x' * SIZE, 0)
        with raw_mapping(ends[by]) as address, mmap.mmap(ends[other(by)], SIZE) as theirs:
            native.call('madvise', address, ctypes.c_size_t(2 * PAGE), 9)
            assert theirs[:3 * PAGE] == bytes(2 * PAGE) + b'x' * PAGE


def test_mlock_makes_the_memory_and_holds_it(mappable, same):
    def use(fd, path):
        with raw_mapping(fd) as address:
            locked = outcome(native.call, 'mlock', address, ctypes.c_size_t(SIZE))
            with open('/proc/self/smaps') as maps:
                counted = any(line.startswith('Locked:') and int(line.split()[1]) == SIZE // 1024 for line in maps)
            blocks = os.fstat(fd).st_blocks
            return locked, counted, blocks, outcome(native.call, 'munlock', address, ctypes.c_size_t(SIZE))
    assert same(use) == (0, True, SIZE // 512, 0)


@pytest.mark.parametrize('flags', [1, 2, 4, 5, 6, 8],
                         ids=['ASYNC', 'INVALIDATE', 'SYNC', 'both', 'SYNC|INVALIDATE', 'bad'])
def test_msync(mappable, same, flags):
    def use(fd, path):
        with raw_mapping(fd) as address:
            ctypes.c_ubyte.from_address(address.value).value = 99
            return outcome(native.call, 'msync', address, ctypes.c_size_t(SIZE), flags), os.pread(fd, 1, 0)
    assert same(use) == ('EINVAL' if flags in (5, 8) else 0, b'c')


def test_mremap_grows_a_mapping_with_its_segment(mappable, same):
    def use(fd, path):
        with mmap.mmap(fd, SIZE) as memory:
            memory.resize(2 * SIZE)  # ftruncate and mremap
            memory[-4:] = b'last'
            return len(memory), os.pread(fd, 10, 2 * SIZE - 4)
    assert same(use) == (2 * SIZE, b'last')


def test_private_mapping_is_copied_on_write(mappable, same):
    def use(fd, path):
        with mmap.mmap(fd, SIZE, flags=mmap.MAP_PRIVATE) as memory:
            memory[:4] = b'mine'
            os.pwrite(fd, b'theirs', PAGE)
            return memory[:4], memory[PAGE:PAGE + 6], os.pread(fd, 4, 0)
    assert same(use) == (b'mine', b'theirs', bytes(range(4)))


# A full memory: in a /dev/shm of its own

class SmallShm:
    """A mount namespace whose /dev/shm is a tmpfs of 1 MiB, and ipcfs on /mnt/ipc of it. For a child to run in."""
    size = 2**20

    def __init__(self, options=''):
        self.options = f'size={self.size},mode=1777{options}'

    def __enter__(self):
        NEWNS = 0x20000
        native.call('unshare', NEWNS)
        subprocess.run(['mount', '--make-rprivate', '/'], check=True)
        # Copies of mounts that were there would keep their daemons alive.
        for line in pathlib.Path('/proc/self/mountinfo').read_text().splitlines():
            if ' fuse.ipcfs ' in line:
                subprocess.run(['umount', '-l', line.split()[4]], check=True)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', self.options, 'tmpfs', '/dev/shm'], check=True)
        subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], check=True)
        self.mnt = pathlib.Path('/mnt/ipc')
        self.mnt.mkdir()
        self.daemon = subprocess.Popen([BUILD / 'ipcfs', '-f', *(['-o', OPTIONS] if OPTIONS else []), self.mnt],
                                       preexec_fn=native.die_with_parent, stderr=subprocess.DEVNULL)
        eventually(lambda: self.mnt.is_mount())
        self.ours, self.native = self.mnt / 'shm', pathlib.Path('/dev/shm')
        return self

    def __exit__(self, *_):
        subprocess.run(['umount', self.mnt], check=True)
        assert self.daemon.wait(60) == 0

    def full(self):
        """Fills it up, natively."""
        with open(self.native / 'filler', 'xb', buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(PAGE)):
                    pass


@pytest.fixture
def in_small_shm(child):
    """in_small_shm(function, OPTIONS) is what function(SmallShm) returns."""
    def run(function, options=''):
        def inside():
            with SmallShm(options) as shm:
                return function(shm)
        return child(inside).result()
    return run


def test_full_memory_cuts_a_write_short_and_then_refuses_it(in_small_shm):
    """As natively: of 2 MiB some fit, and the next byte is ENOSPC."""
    def write(shm):
        results = []
        for folder in shm.native, shm.ours:
            fd = os.open(folder / 'segment', os.O_RDWR | os.O_CREAT)
            results.append((outcome(os.write, fd, b'x' * 2 * shm.size), outcome(os.write, fd, b'x'),
                            os.fstat(fd).st_size, outcome(os.pwrite, fd, b'y', 0), os.pread(fd, 2, 0)))
            os.close(fd)
            (folder / 'segment').unlink()
        return results
    natively, ours = in_small_shm(write)
    assert natively == ours
    written = natively[0]
    assert 0 < written < 2**20 + 1 and natively == (written, 'ENOSPC', written, 1, b'yx')


def test_full_memory_fails_fallocate_and_makes_nothing(in_small_shm):
    def allocate(shm):
        results = []
        for folder in shm.native, shm.ours:
            fd = os.open(folder / 'segment', os.O_RDWR | os.O_CREAT)
            os.write(fd, b'kept')
            results.append([outcome(fallocate, fd, mode, 0, 2 * shm.size) for mode in (0, KEEP_SIZE)] +
                           [os.fstat(fd).st_size, os.fstat(fd).st_blocks, os.pread(fd, 10, 0),
                            outcome(os.posix_fallocate, fd, 0, shm.size * 2),
                            outcome(fallocate, fd, 0, 0, shm.size // 2), os.fstat(fd).st_size])
            os.close(fd)
            (folder / 'segment').unlink()
        return results
    natively, ours = in_small_shm(allocate)
    assert natively == ours == ['ENOSPC', 'ENOSPC', 4, 8, b'kept', 'ENOSPC', 0, 2**19]


def test_touch_of_a_hole_in_full_memory_is_sigbus(mappable, in_small_shm):
    """And only that: what there is of the mapping goes on working."""
    def touch_both(shm):
        ends = []
        for folder in shm.native, shm.ours:
            fd = os.open(folder / folder.parent.name, os.O_RDWR | os.O_CREAT)
            os.ftruncate(fd, SIZE)
            os.pwrite(fd, b'\1', 0)
            ends.append(fd)
        shm.full()
        cases = [(offset, store) for offset in (0, 4 * PAGE) for store in (False, True)]
        results = [[end_of(Child(touch, (fd, SIZE, *case))) for case in cases] for fd in ends]
        (shm.native / 'filler').unlink()
        results.append([end_of(Child(touch, (fd, SIZE, 4 * PAGE, True))) for fd in ends])
        for fd in ends:
            os.close(fd)
        return results
    natively, ours, after = in_small_shm(touch_both)
    # A load of a hole gets a page too, on a shared mapping of tmpfs.
    assert natively == ours == [1, 7, 'SIGBUS', 'SIGBUS']
    assert after == [7, 7]


def test_full_memory_harms_nothing_else(in_small_shm):
    """Other segments, semaphores and queues work on; and once there is room again, so does writing."""
    def live_on(shm):
        results = []
        other, full = (os.open(shm.ours / name, os.O_RDWR | os.O_CREAT) for name in ('other', 'full'))
        os.write(other, b'kept')
        (shm.mnt / 'sem@value=1' / 'semaphore').touch()
        queue = f'ipcfs-full-{os.getpid()}'
        (shm.mnt / 'mq@max_messages=10,max_message_size=64' / queue).touch()
        try:
            results.append(outcome(os.write, full, bytes(2 * shm.size)) < 2 * shm.size)
            results.append(outcome(os.write, full, b'x'))
            results.append(os.pread(other, 10, 0))
            results.append(os.pwrite(other, b'KEPT', 0))
            results.append((shm.mnt / 'sem' / 'semaphore').read_text())
            results.append((shm.mnt / 'sem' / 'semaphore').write_text('3\n'))
            results.append((shm.mnt / 'mq' / queue).write_text('message'))
            results.append((shm.mnt / 'mq' / queue).read_text())
            results.append(outcome(native.create_semaphore, 'another'))
            results.append(outcome(lambda: (shm.mnt / 'sem' / 'another').touch()))
            results.append(sorted(os.listdir(shm.mnt / 'sem')))
            results.append(sorted(os.listdir(shm.ours)))
            os.ftruncate(full, 0)
            results.append(os.write(full, b'y' * 1000))
            (shm.mnt / 'sem' / 'another').touch()
            results.append(shm.daemon.poll())
        finally:
            (shm.mnt / 'mq' / queue).unlink()
        os.close(other)
        os.close(full)
        return results
    assert in_small_shm(live_on) == [True, 'ENOSPC', b'kept', 4, '1\n', 2, 7, 'message', 'ENOSPC', 'ENOSPC',
                                     ['semaphore'], ['full', 'other'], 1000, None]


def test_statfs_follows_the_memory_as_it_fills(in_small_shm):
    def look(shm):
        rooms = []
        for step in lambda: None, shm.full, (shm.native / 'filler').unlink:
            step()
            natively, ours = (os.statvfs(folder) for folder in (shm.native, shm.ours))
            assert [getattr(ours, f) * ours.f_frsize for f in ('f_blocks', 'f_bfree', 'f_bavail')] == \
                   [getattr(natively, f) * natively.f_frsize for f in ('f_blocks', 'f_bfree', 'f_bavail')]
            rooms.append(ours.f_bavail * ours.f_frsize)
        return rooms
    assert in_small_shm(look) == [2**20, 0, 2**20]


def test_noexec_of_dev_shm_holds_in_the_mount(in_small_shm):
    """Containers have it so. No code in a segment runs, mapped or as a program, shared or private."""
    def attempt(shm):
        results = []
        for folder in shm.native, shm.ours:
            program = folder / 'program'
            program.write_bytes(pathlib.Path('/bin/true').read_bytes())
            program.chmod(0o755)
            fd = os.open(program, os.O_RDONLY)
            results.append([outcome(subprocess.run, [program])])
            for flags in mmap.MAP_SHARED, mmap.MAP_PRIVATE:
                try:
                    mmap.mmap(fd, PAGE, flags=flags, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
                except OSError as failure:
                    results[-1].append(errno.errorcode[failure.errno])
            os.close(fd)
            program.unlink()
        return results
    natively, ours = in_small_shm(attempt, ',noexec')
    assert natively == ours == ['EACCES', 'EPERM', 'EPERM']


# fio

def fio(folder, prefix, *options):
    """Its report on four jobs, of which none failed."""
    command = ['fio', '--name=job', f'--directory={folder}', f'--filename_format={prefix}$jobnum', '--numjobs=4',
               '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--group_reporting=0',
               '--output-format=json', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout[done.stdout.index('{'):])
    assert 'verify' not in done.stderr
    assert [job['error'] for job in report['jobs']] == [0] * 4
    return report['jobs']


def check_with_fio(mnt, name, engine, order, block):
    """Writes and verifies through the mount; then verifies natively what is in the segments."""
    size = {'4k': 2**20, '64k': 2 * 2**20, '1m': 4 * 2**20}[block]
    common = f'--ioengine={engine}', f'--bs={block}', f'--size={size}', '--fallocate=none'
    for job in fio(mnt / 'shm', name, *common, f'--rw={order}', '--do_verify=1'):
        assert job['write']['io_bytes'] == job['read']['io_bytes'] == size
    natively = f'--rw={order}', '--verify_only=1', f'--size={size}', f'--bs={block}', '--ioengine=psync'
    for job in fio('/dev/shm', name, *natively):
        assert job['read']['io_bytes'] == size


@pytest.mark.parametrize('block', ['4k', '64k', '1m'])
@pytest.mark.parametrize('order', ['write', 'randwrite'])
def test_fio_finds_what_it_wrote_with_psync(mnt, name, order, block):
    check_with_fio(mnt, name, 'psync', order, block)


@pytest.mark.parametrize('block', ['4k', '64k', '1m'])
@pytest.mark.parametrize('order', ['write', 'randwrite'])
def test_fio_finds_what_it_wrote_with_mmap(mappable, mnt, name, order, block):
    check_with_fio(mnt, name, 'mmap', order, block)


def test_fio_finds_what_it_wrote_in_a_mix(mnt, name):
    """Reads among writes of all block sizes, four jobs in one segment each, psync."""
    for job in fio(mnt / 'shm', name, '--ioengine=psync', '--bsrange=512-256k', '--size=4m', '--rw=randrw',
                   '--do_verify=1'):
        assert job['read']['io_bytes'] > 0

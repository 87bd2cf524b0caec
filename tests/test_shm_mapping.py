"""Shared memory is memory: one set of pages for native programs and those of the mount, whoever opens it and how."""

import array
import concurrent.futures
import contextlib
import ctypes
import errno
import importlib.util
import itertools
import mmap
import os
import pathlib
import random
import select
import shutil
import signal
import struct
import subprocess

import pytest

import native
from conftest import PASSTHROUGH, SEGMENT_SIZE as SIZE, eventually, open_files, sleeps_in

USER, OTHER = 54321, 54322

# Where each of two sides finds the segment; what both find in the mount is covered as well.
SIDES = [('native', 'mount'), ('mount', 'native'), ('mount', 'mount')]
both_ways = pytest.mark.parametrize('sides', SIDES, ids='-'.join)


@pytest.fixture
def path(mnt, name):
    return mnt / 'shm' / name


@pytest.fixture
def place(name, path):
    """place('native') and place('mount') are the segment's names for the programs of tests/peers."""
    return {'native': f'shm:{name}', 'mount': path}.get


@contextlib.contextmanager
def mapping(file, size=SIZE, flags=os.O_RDWR, protection=mmap.PROT_READ | mmap.PROT_WRITE):
    """The mapping of a descriptor or of a path, which is closed again at once."""
    fd = file if isinstance(file, int) else os.open(file, flags)
    try:
        memory = mmap.mmap(fd, size, prot=protection)
    finally:
        if fd is not file:
            os.close(fd)
    with memory:
        yield memory


def frame(memory, offset):
    """The number of the page frame of physical memory that is behind a mapping there."""
    memory[offset] = memory[offset]  # so that there is one
    byte = ctypes.c_char.from_buffer(memory, offset)
    with open('/proc/self/pagemap', 'rb', buffering=0) as pages:
        entry, = struct.unpack('Q', os.pread(pages.fileno(), 8, ctypes.addressof(byte) // mmap.PAGESIZE * 8))
    number = entry & (1 << 55) - 1
    assert entry >> 63 and number  # present, and told: it is for CAP_SYS_ADMIN
    return number


class Held:
    """A child that opens something, holds it until `finish`, and then does something with it."""

    def __init__(self, child, opening, use, **identity):
        self.told, tell = os.pipe()
        hear, self.go = os.pipe()

        def run():
            opened = opening()
            os.write(tell, b'x')
            os.read(hear, 1)
            return use(opened)
        self.child = child(run, **identity)
        os.close(tell)
        os.close(hear)
        assert select.select([self.told], [], [], 60)[0], 'the child does not come to its opening'
        if not os.read(self.told, 1):
            self.finish()  # raises what it failed with

    def finish(self):
        with contextlib.suppress(BrokenPipeError):
            os.write(self.go, b'x')
        os.close(self.go)
        os.close(self.told)
        return self.child.result()


# Coherence, with a native program in C as the peer

@both_ways
def test_stores_are_seen_on_the_other_side_without_a_call(mappable, peer, place, segment, sides):
    """Each of the two waits, spinning, for what the other has stored, and looks at a page that came with it."""
    first, second = (peer('pingpong', side, place(where), 300) for side, where in zip(('first', 'second'), sides))
    assert (first.finish(), second.finish()) == ('reached 600\n', 'reached 600\n')
    assert os.pread(segment, 8, 0) == struct.pack('Q', 600)


@both_ways
def test_ring_of_ten_million_items(mappable, peer, place, segment, sides):
    """Every item comes, once, in its order: the consumer checks each, and the sums agree."""
    producer, consumer = (peer('ring', side, place(where), 10**7) for side, where in zip(('produce', 'consume'), sides))
    consumed = consumer.finish()
    assert consumed.startswith('items 10000000 sum ')
    assert producer.finish() == consumed


@both_ways
def test_robust_mutex_in_the_mapping_excludes(mappable, peer, place, segment, sides):
    """Made on one side, used on both: no step of a plain counter gets lost."""
    peer('robust', 'make', place(sides[0]), 0).finish()
    for counting in [peer('robust', 'count', place(where), 100_000) for where in sides]:
        counting.finish()
    assert peer('robust', 'tell', place(sides[1]), 0).finish() == '200000 0 0\n'


@both_ways
@pytest.mark.parametrize('asleep', [False, True], ids=['then-locked', 'waited-for'])
def test_killed_owner_of_a_robust_mutex_is_told_to_the_other_side(mappable, peer, place, segment, sides, asleep):
    """EOWNERDEAD, also to one who sleeps in pthread_mutex_lock by then; after it the mutex is as good as before."""
    holds, recovers = sides
    peer('robust', 'make', place(holds), 0).finish()
    holder = peer('robust', 'hold', place(holds), 0)
    assert holder.stdout.readline() == 'held\n'
    if asleep:
        waiter = peer('robust', 'recover', place(recovers), 0)
        eventually(lambda: sleeps_in(waiter.pid).startswith('futex'))
        holder.kill()
    else:
        holder.kill()
        waiter = peer('robust', 'recover', place(recovers), 0)
    assert waiter.finish() == 'owner died\n'
    for where in sides:
        assert peer('robust', 'recover', place(where), 0).finish() == 'locked\n'


@both_ways
def test_unnamed_semaphores_in_the_mapping(mappable, peer, place, segment, sides):
    """sem_init(pshared): each side sleeps until the other posts, thousands of times, and no post is lost or doubled."""
    peer('robust', 'make', place(sides[0]), 0).finish()
    players = [peer('robust', side, place(where), 5000) for side, where in zip(('serve', 'answer'), sides)]
    for player in players:
        player.finish()
    assert peer('robust', 'tell', place(sides[1]), 0).finish() == '0 0 0\n'


# The same pages

def test_limits_says_that_shared_memory_can_be_mapped(mappable, mnt):
    assert 'SHARED_MEMORY_MMAP 1' in (mnt / 'limits').read_text().splitlines()


def test_page_frames_are_those_of_the_native_mapping(mappable, path, segment):
    """Not a copy that is kept alike: the same physical memory."""
    with mapping(path) as ours, mapping(segment) as natively:
        for offset in range(0, SIZE, mmap.PAGESIZE):
            assert frame(ours, offset) == frame(natively, offset)


def test_page_that_either_side_makes_is_the_others(mappable, path, segment):
    """First touch of a hole: by a load or by a store, on one side or the other."""
    with mapping(path) as ours, mapping(segment) as natively:
        for page, (first, second) in enumerate(itertools.permutations((ours, natively))):
            offset = page * 2 * mmap.PAGESIZE
            assert first[offset] == 0  # a load
            second[offset] = 1
            assert first[offset] == 1
            first[offset + mmap.PAGESIZE] = 2  # a store
            assert second[offset + mmap.PAGESIZE] == 2
            assert frame(first, offset) == frame(second, offset)


def views():
    """Ways that Python has to look at a mapping as numbers; numpy's where it is installed."""
    yield 'struct', lambda memory: (lambda i: struct.unpack_from('Q', memory, 8 * i)[0],
                                    lambda i, value: struct.pack_into('Q', memory, 8 * i, value))
    def memoryviewed(memory):
        numbers = memoryview(memory).cast('Q')
        return numbers.__getitem__, numbers.__setitem__
    yield 'memoryview', memoryviewed
    def ctyped(memory):
        numbers = (ctypes.c_uint64 * (SIZE // 8)).from_buffer(memory)
        return numbers.__getitem__, numbers.__setitem__
    yield 'ctypes', ctyped
    if importlib.util.find_spec('numpy'):
        def numpied(memory):
            import numpy
            numbers = numpy.frombuffer(memory, numpy.uint64)
            return numbers.__getitem__, numbers.__setitem__
        yield 'numpy', numpied


@pytest.mark.parametrize('view', [pytest.param(view, id=name) for name, view in views()])
def test_numbers_in_python_are_the_same_on_both_sides(mappable, path, segment, view):
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as ours, mmap.mmap(segment, 0) as natively:
        read, write = view(ours)
        for index in 0, 511, 512, SIZE // 8 - 1:
            natively[8 * index:8 * index + 8] = struct.pack('Q', index + 2**40)
            assert read(index) == index + 2**40
            write(index, index + 2**50)
            assert natively[8 * index:8 * index + 8] == struct.pack('Q', index + 2**50)
        del read, write  # they hold the mapping


def test_array_is_read_right_into_the_segment(mappable, path, segment):
    """readinto, as array and numpy.fromfile do, and a mapping of the length 0, which is the whole file."""
    os.pwrite(segment, array.array('I', range(SIZE // 4)).tobytes(), 0)
    numbers = array.array('I', bytes(SIZE))
    with open(path, 'rb', buffering=0) as file:
        assert file.readinto(numbers) == SIZE
    assert numbers == array.array('I', range(SIZE // 4))
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        assert len(memory) == SIZE and memory[:] == numbers.tobytes()


def test_mapping_of_a_part_begins_where_it_is_asked_to(mappable, path, segment):
    os.pwrite(segment, b'fourth', 4 * mmap.PAGESIZE)
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 100, offset=4 * mmap.PAGESIZE) as part:
        assert part[:6] == b'fourth'
        part[:1] = b'F'
    assert os.pread(segment, 6, 4 * mmap.PAGESIZE) == b'Fourth'


def test_read_only_mapping_can_not_be_made_writable(mappable, path, segment):
    """The daemon has the segment open for writing; whoever opened it for reading must not get at that."""
    for file in path, f'/dev/shm/{path.name}':
        fd = os.open(file, os.O_RDONLY)
        native.libc.mmap.restype = ctypes.c_void_p
        address = ctypes.c_void_p(native.libc.mmap(None, ctypes.c_size_t(SIZE), mmap.PROT_READ, mmap.MAP_SHARED, fd,
                                                   ctypes.c_long(0)))
        assert address.value != ctypes.c_void_p(-1).value
        with pytest.raises(PermissionError) as refused:
            native.call('mprotect', address, ctypes.c_size_t(SIZE), mmap.PROT_READ | mmap.PROT_WRITE)
        assert refused.value.errno == errno.EACCES
        native.call('munmap', address, ctypes.c_size_t(SIZE))
        os.close(fd)


def test_fork_inherits_the_mapping(mappable, path, segment, child):
    with mapping(path) as ours, mapping(segment) as natively:
        natively[0] = 1

        def step():
            ours[1] = ours[0] + 1
        child(step).result()
        assert natively[1] == 2


# One backing file, however it is opened

MODES = {
    'RDONLY': os.O_RDONLY,
    'WRONLY': os.O_WRONLY,
    'RDWR': os.O_RDWR,
    'APPEND': os.O_WRONLY | os.O_APPEND,
    'CREAT': os.O_RDWR | os.O_CREAT,
}


def readable(flags):
    return flags & os.O_ACCMODE != os.O_WRONLY


def writable(flags):
    return flags & os.O_ACCMODE != os.O_RDONLY


@pytest.mark.parametrize('first', MODES)
def test_opens_in_any_order_of_modes(path, segment, first):
    """All orders that begin with this one; each open works, and goes on working beside those that come after it."""
    for order in itertools.permutations(set(MODES) - {first}):
        os.ftruncate(segment, 0)
        os.ftruncate(segment, SIZE)
        opened = []
        for number, mode in enumerate((first, *order)):
            opened.append((os.open(path, MODES[mode]), MODES[mode]))
            os.pwrite(segment, b'%d' % number, 0)
            for fd, flags in opened:
                if readable(flags):
                    assert os.pread(fd, 1, 0) == b'%d' % number
                if flags & os.O_APPEND:
                    end = os.fstat(segment).st_size
                    assert os.write(fd, b'end') == 3
                    assert os.pread(segment, 9, end) == b'end'
                elif writable(flags):
                    assert os.pwrite(fd, b'%d' % flags, 100) == len(b'%d' % flags)
                    assert os.pread(segment, 9, 100).rstrip(b'\0') == b'%d' % flags
                    os.pwrite(segment, bytes(9), 100)
        for fd, _ in opened:
            os.close(fd)


@pytest.mark.parametrize('order', list(itertools.permutations(['RDONLY', 'RDWR', 'CREAT'])), ids='-'.join)
def test_opens_in_any_order_map_one_memory(mappable, path, segment, order):
    """Each mapped while the others are, and after the one that was first is closed."""
    with contextlib.ExitStack() as stack:
        maps = []
        for mode in order:
            protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable(MODES[mode]) else 0)
            fd = os.open(path, MODES[mode])
            maps.append((stack.enter_context(mapping(fd, protection=protection)), fd))
        os.close(maps[0][1])
        for number, (memory, _) in enumerate(maps):
            os.pwrite(segment, b'%d' % number, 0)
            assert [memory[:1] for memory, _ in maps] == [b'%d' % number] * 3
        again = stack.enter_context(mapping(path))
        again[:5] = b'again'
        assert [memory[:5] for memory, _ in maps] == [b'again'] * 3


def test_opening_to_truncate_empties_what_others_have_mapped(mappable, path, segment):
    """And writing to it makes memory again, under the same mapping."""
    with mapping(path, flags=os.O_RDWR) as ours:
        ours[:4] = b'gone'
        fd = os.open(path, os.O_RDWR | os.O_TRUNC)
        assert os.fstat(segment).st_size == 0
        os.ftruncate(fd, SIZE)
        assert ours[:4] == bytes(4)
        ours[:4] = b'here'
        assert os.pread(segment, 4, 0) == os.pread(fd, 4, 0) == b'here'


def test_many_opens_at_once(path, segment):
    """Hundreds of descriptors of one segment, closed in another order than they were opened in."""
    modes = list(itertools.islice(itertools.cycle(MODES.values()), 300))
    opened = [(os.open(path, flags), flags) for flags in modes]
    random.Random(1).shuffle(opened)
    while opened:
        fd, flags = opened.pop()
        os.pwrite(segment, b'%03d' % len(opened), 0)
        if readable(flags):
            assert os.pread(fd, 3, 0) == b'%03d' % len(opened)
        os.close(fd)


@pytest.mark.parametrize('order', ['reader-first', 'writer-first'])
def test_users_of_different_rights_share_the_memory(mappable, path, segment, child, order):
    """One may only read. It opens first, or last; and its open never gives it more than that."""
    os.fchown(segment, USER, USER)
    os.fchmod(segment, 0o644)

    def refused():
        with pytest.raises(PermissionError) as failure:
            os.open(path, os.O_RDWR)
        assert failure.value.errno == errno.EACCES

    def see(fd):
        refused()
        with mapping(fd, protection=mmap.PROT_READ) as memory, pytest.raises(PermissionError):
            mmap.mmap(fd, SIZE)
        with mapping(fd, protection=mmap.PROT_READ) as memory:
            return memory[:5] + os.pread(fd, 5, 0)

    def store(fd):
        with mapping(fd) as memory:
            memory[:5] = b'store'
    openings = {
        'reader': (lambda: os.open(path, os.O_RDONLY), see, {'user': OTHER}),
        'writer': (lambda: os.open(path, os.O_RDWR), store, {'user': USER}),
    }
    first, second = ('reader', 'writer') if order == 'reader-first' else ('writer', 'reader')
    held = {}
    for who in first, second:
        opening, use, identity = openings[who]
        held[who] = Held(child, opening, use, **identity)
    held['writer'].finish()
    assert held['reader'].finish() == b'storestore'
    assert os.pread(segment, 5, 0) == b'store'


def test_who_may_only_write_only_writes(path, segment, child):
    """Beside a reader's open, with what the daemon has open both ways."""
    os.fchmod(segment, 0o622)
    reader = os.open(path, os.O_RDONLY)

    def write():
        codes = []
        for flags in os.O_RDONLY, os.O_RDWR:
            with pytest.raises(PermissionError):
                os.open(path, flags)
        fd = os.open(path, os.O_WRONLY)
        os.pwrite(fd, b'written', 0)
        for attempt in lambda: os.pread(fd, 1, 0), lambda: mmap.mmap(fd, SIZE), \
                lambda: mmap.mmap(fd, SIZE, prot=mmap.PROT_READ):
            with pytest.raises(OSError) as failure:
                attempt()
            codes.append(failure.value.errno)
        return codes
    assert child(write, user=OTHER).result() == [errno.EBADF, errno.EACCES, errno.EACCES]
    assert os.pread(reader, 7, 0) == b'written'


def test_rights_that_are_taken_away_leave_what_is_open(mappable, path, segment, child):
    """As natively: a descriptor keeps its rights, and a new open gets those of now, beside the old one."""
    def use(fd):
        with pytest.raises(PermissionError):
            os.open(path, os.O_RDONLY)
        with mapping(fd) as memory:
            memory[0] = 7
    held = Held(child, lambda: os.open(path, os.O_RDWR), use, user=OTHER)
    path.chmod(0o600)
    held.finish()
    assert os.pread(segment, 1, 0) == b'\7'


def program(path):
    """A program in the segment, which sleeps until its input ends."""
    shutil.copyfile(shutil.which('cat'), f'/dev/shm/{path.name}')
    os.chmod(f'/dev/shm/{path.name}', 0o755)
    return f'/dev/shm/{path.name}'


def test_program_in_a_segment_runs_while_the_mount_has_it_open_to_read(mappable, path):
    """The daemon must not have it open for writing then (ETXTBSY)."""
    command = program(path)
    with mapping(path, 4096, os.O_RDONLY, mmap.PROT_READ) as memory:
        assert subprocess.run([command], stdin=subprocess.DEVNULL).returncode == 0
        assert memory[:4] == b'\x7fELF'


def test_program_in_a_segment_can_be_mapped_while_it_runs(mappable, path):
    command = program(path)
    with subprocess.Popen([command], stdin=subprocess.PIPE) as running:
        with pytest.raises(OSError) as failure:
            os.open(path, os.O_RDWR)
        assert failure.value.errno == errno.ETXTBSY
        with mapping(path, 4096, os.O_RDONLY, mmap.PROT_READ) as memory:
            assert memory[:4] == b'\x7fELF'
    assert running.returncode == 0


# Many at once

def churn(path, seed, missing=False):
    """Opens and closes in three threads; what failed, and how. `missing`: an open without O_CREAT may find nothing."""
    failures = []

    def use(flags, maps):
        """A generator that says what it is about to do."""
        yield 'open'
        fd = os.open(path, flags)
        try:
            yield 'read'
            if readable(flags):
                os.pread(fd, 100, 0)
            yield 'write'
            if writable(flags):
                os.pwrite(fd, b'x' * 100, 0)
            yield 'map'
            if maps and flags & os.O_ACCMODE != os.O_WRONLY:
                with contextlib.suppress(ValueError):  # somebody has truncated it
                    mmap.mmap(fd, 4096, prot=mmap.PROT_READ).close()
        finally:
            os.close(fd)

    def run(seed):
        choice = random.Random(seed)
        for _ in range(200):
            flags = choice.choice([*MODES.values(), os.O_RDWR | os.O_TRUNC])
            try:
                for what in use(flags, PASSTHROUGH and choice.random() < 0.3):
                    pass
            except OSError as failure:
                if not missing or what != 'open' or failure.errno != errno.ENOENT or flags & os.O_CREAT:
                    failures.append((what, oct(flags), errno.errorcode[failure.errno]))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(run, range(seed * 3, seed * 3 + 3)))
    return failures


def test_storm_of_opens_and_closes(path, segment, child):
    """Threads of several processes and two users, all modes: none fails."""
    os.ftruncate(segment, 4096)
    os.fchown(segment, OTHER, OTHER)  # fs.protected_regular wants it for O_CREAT
    churning = [child(churn, path, seed, user=(None, OTHER)[seed % 2]) for seed in range(4)]
    assert [churner.result() for churner in churning] == [[]] * 4


@pytest.mark.parametrize('where', ['native', 'mount'])
def test_storm_while_others_are_renamed_over_it(path, segment, child, names, where):
    """The name is always there, so an open never fails, whichever segment it gets."""
    folder = path.parent if where == 'mount' else type(path)('/dev/shm')
    churning = [child(churn, path, seed) for seed in range(3)]
    base, replaced = names(), 0
    while not all(churner.finished for churner in churning):
        new = folder / f'{base}{replaced}'
        with open(new, 'xb') as file:
            file.truncate(4096)
            os.fchmod(file.fileno(), 0o666)
        new.rename(folder / path.name)
        replaced += 1
    assert [churner.result() for churner in churning] == [[]] * 3
    assert replaced > 5


@pytest.mark.parametrize('where', ['native', 'mount'])
def test_storm_while_it_is_removed_and_made_again(path, segment, child, where):
    """An open finds it, makes it or does not find it, and there is no other failure."""
    file = path if where == 'mount' else type(path)('/dev/shm', path.name)
    churning = [child(churn, path, seed, True) for seed in range(3)]
    made = 0
    while not all(churner.finished for churner in churning):
        file.unlink()
        file.touch(0o666)
        made += 1
    assert [churner.result() for churner in churning] == [[]] * 3
    assert made > 5


# Removed and made again, renamed over, seen under several names

@pytest.mark.parametrize('remove', ['natively', 'through-the-mount'])
def test_segment_made_again_under_its_name_is_another_memory(mappable, path, segment, name, remove):
    """While the old one is open and mapped on both sides; and each stays itself through opens in every mode."""
    old = os.open(path, os.O_RDWR)
    with mapping(old) as old_ours, mapping(segment) as old_natively:
        os.unlink(path) if remove == 'through-the-mount' else native.shm_unlink(name)
        with contextlib.closing(os.fdopen(native.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR), 'r+b')) as file:
            new = file.fileno()
            os.ftruncate(new, SIZE)
            fds = [os.open(path, flags) for flags in MODES.values()]
            with mapping(path) as new_ours, mapping(new) as new_natively:
                old_ours[:3], new_ours[:3] = b'old', b'new'
                assert (old_natively[:3], new_natively[:3]) == (b'old', b'new')
                assert (os.pread(old, 3, 0), os.pread(fds[0], 3, 0)) == (b'old', b'new')
                assert frame(old_ours, 0) == frame(old_natively, 0) != frame(new_ours, 0) == frame(new_natively, 0)
                os.pwrite(old, b'OLD', 0)
                os.pwrite(fds[1], b'NEW', 0)
                assert (old_natively[:3], new_natively[:3]) == (b'OLD', b'NEW')
            os.ftruncate(old, 4096)
            assert (os.fstat(segment).st_size, os.fstat(new).st_size) == (4096, SIZE)
            assert os.fstat(old).st_ino != path.stat().st_ino


def test_many_generations_are_open_at_once(mappable, path, name):
    """Twenty segments, one after another under one name, all mapped: each is its own memory."""
    with contextlib.ExitStack() as stack:
        generations = []
        for number in range(20):
            fd = native.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            stack.callback(os.close, fd)
            os.ftruncate(fd, 4096)
            generations.append((fd, stack.enter_context(mapping(path, 4096))))
            native.shm_unlink(name)
        for number, (_, memory) in enumerate(generations):
            memory[0] = number
        assert [os.pread(fd, 1, 0)[0] for fd, _ in generations] == list(range(20))


@pytest.mark.parametrize('rename', ['natively', 'through-the-mount'])
def test_rename_over_an_open_segment_swaps_no_memory(mappable, path, segment, names, rename):
    """Both are open and mapped: each mapping keeps its memory, and the name leads to the one that was moved."""
    other = path.with_name(names())
    moved = native.shm_open(other.name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.ftruncate(moved, SIZE)
    over = os.open(path, os.O_RDWR)
    with mapping(over) as replaced, mapping(other) as replacing:
        replaced[:3], replacing[:3] = b'old', b'new'
        if rename == 'through-the-mount':
            other.rename(path)
        else:
            os.rename(f'/dev/shm/{other.name}', f'/dev/shm/{path.name}')
        assert (replaced[:3], replacing[:3]) == (b'old', b'new')
        for flags in MODES.values():
            fd = os.open(path, flags)
            assert os.fstat(fd).st_ino != os.fstat(over).st_ino
            if readable(flags):
                assert os.pread(fd, 3, 0) == b'new'
        with mapping(path) as now:
            now[:3] = b'NOW'
        assert (replacing[:3], replaced[:3], os.pread(over, 3, 0)) == (b'NOW', b'old', b'old')
        assert (os.pread(moved, 3, 0), os.pread(segment, 3, 0)) == (b'NOW', b'old')
    os.close(moved)


def test_views_of_one_segment_are_one_memory(mappable, mnt, path, segment):
    """Each view is a file of its own to the kernel, open at the same time."""
    views = 'shm', f'shm@size={SIZE}', 'shm@mode=600', f'shm@mode=644,size={SIZE}'
    files = [mnt / view / path.name for view in views]
    with contextlib.ExitStack() as stack:
        maps = [stack.enter_context(mapping(file)) for file in files]
        for number, memory in enumerate(maps):
            memory[0] = number
            assert [other[0] for other in maps] == [number] * len(maps)
            assert frame(memory, 0) == frame(maps[0], 0)
        assert os.pread(segment, 1, 0) == b'\3'


def test_size_of_a_view_resizes_under_the_mappings(mappable, mnt, path, segment):
    with mapping(path) as ours:
        ours[:4], ours[4096:4100] = b'kept', b'gone'
        os.close(os.open(mnt / 'shm@size=4096' / path.name, os.O_RDWR))
        os.close(os.open(mnt / f'shm@size={SIZE}' / path.name, os.O_RDWR))
        assert (ours[:4], ours[4096:4100]) == (b'kept', bytes(4))


# How long a mapping lives

def test_mapping_outlives_descriptor_name_and_daemon(mappable, mount, name, segment):
    """Closed, removed, the daemon killed and the mount gone: the memory is shared as ever."""
    mounted = mount()
    path = mounted.path / 'shm' / name
    fd = os.open(path, os.O_RDWR)
    with mapping(fd) as ours, mapping(segment) as natively:
        steps = [lambda: os.close(fd), lambda: os.unlink(path), mounted.kill]
        for number, step in enumerate(steps, 1):
            step()
            natively[number] = number
            assert ours[number] == number
            ours[-number] = 2 * number
            assert natively[-number] == 2 * number
            assert frame(ours, number * mmap.PAGESIZE) == frame(natively, number * mmap.PAGESIZE)
        os.ftruncate(segment, 2 * SIZE)
        os.ftruncate(segment, SIZE)
        assert ours[1] == 1


def test_mapping_of_a_killed_mount_and_of_one_made_since_are_one_memory(mappable, mount, name, segment):
    mounted = mount()
    path = mounted.path / 'shm' / name
    with mapping(path) as before:
        mounted.kill()
        mounted.start()
        with mapping(path) as after:
            before[0] = 1
            assert after[0] == 1
            assert frame(before, 0) == frame(after, 0)


def test_mapping_keeps_the_mount_busy_as_an_open_file_does(mappable, mount, name, segment):
    """The memory has no need of it, but that is what umount(8) says of every file system that is mapped."""
    mounted = mount()
    with mapping(mounted.path / 'shm' / name):
        refused = subprocess.run(['umount', mounted.path], capture_output=True, text=True)
        assert refused.returncode != 0 and 'busy' in refused.stderr
    mounted.stop()


def test_peers_go_on_when_the_daemon_is_killed_among_them(mappable, mount, name, segment, peer):
    """A robust mutex and a sleeper on it: its futex is the segment's, not the mount's."""
    mounted = mount()
    path = mounted.path / 'shm' / name
    peer('robust', 'make', path, 0).finish()
    holder = peer('robust', 'hold', path, 0)
    assert holder.stdout.readline() == 'held\n'
    waiter = peer('robust', 'recover', f'shm:{name}', 0)
    eventually(lambda: sleeps_in(waiter.pid).startswith('futex'))
    mounted.kill()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert waiter.finish() == 'owner died\n'


def test_look_up_keeps_a_removed_segment_for_a_moment_only(mount, name):
    mounted = mount()
    pathlib.Path('/dev/shm', name).touch()
    held = lambda: [file for file in open_files(mounted.process.pid) if name in file]
    os.stat(mounted.path / 'shm' / name)
    native.shm_unlink(name)
    eventually(lambda: not held())

"""Shared memory where FUSE passthrough can't be had: reads and writes are coherent with native users, and a mapping
that would not be is refused. Here by -o no_passthrough, and by a daemon without CAP_SYS_ADMIN."""

import contextlib
import errno
import mmap
import os
import shutil
import subprocess

import pytest

from conftest import BUILD, PATIENCE, SEGMENT_SIZE as SIZE, assert_unmappable, eventually



@pytest.fixture
def mounted(mount):
    return mount('-o', 'no_passthrough')


@pytest.fixture
def mnt(mounted):
    return mounted.path


@pytest.fixture
def path(mnt, name):
    return mnt / 'shm' / name


@pytest.fixture
def memory(segment):
    """It, mapped natively."""
    with mmap.mmap(segment, SIZE) as memory:
        yield memory


def fails(code, function, *arguments, **options):
    with pytest.raises(OSError) as failure:
        function(*arguments, **options)
    return failure.value.errno == code


# What it says

def test_daemon_says_once_at_start_why(mounted, name):
    """One line, which names the option. Nothing more comes, whatever is done."""
    line, = mounted.stderr.read_text().splitlines()
    assert line.startswith('ipcfs: ') and 'mmap' in line and 'no_passthrough' in line
    path = mounted.path / 'shm' / name
    for _ in range(3):
        path.write_bytes(b'x' * SIZE)
        fd = os.open(path, os.O_RDWR)
        assert fails(errno.ENODEV, mmap.mmap, fd, SIZE)
        os.close(fd)
    mounted.stop()
    assert mounted.stderr.read_text().splitlines() == [line]


def test_daemon_that_has_passthrough_says_nothing(mappable, mount):
    mounted = mount()
    assert (mounted.path / 'limits').read_text()
    assert mounted.stderr.read_text() == ''


def test_message_comes_before_the_command_goes_to_the_background(tmp_path):
    """So that it is seen where the command was given."""
    done = subprocess.run([BUILD / 'ipcfs', '-o', 'no_passthrough', tmp_path], capture_output=True, text=True,
                          timeout=PATIENCE)
    subprocess.run(['umount', tmp_path], check=True)
    assert done.returncode == 0
    line, = done.stderr.splitlines()
    assert str(tmp_path) in line and 'mmap' in line and 'no_passthrough' in line


def test_limits_says_so_and_shared_mappings_are_refused(mnt, name):
    assert_unmappable(mnt, name)


# Mappings

@pytest.mark.parametrize('opened', [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_DIRECT], ids=['RDONLY', 'RDWR', 'DIRECT'])
def test_no_shared_mapping_of_any_protection(path, segment, opened):
    """Not to read only either, nor with MAP_SHARED_VALIDATE: none that would not see what is stored natively."""
    MAP_SHARED_VALIDATE = 3
    fd = os.open(path, opened)
    for flags in mmap.MAP_SHARED, MAP_SHARED_VALIDATE:
        for protection in mmap.PROT_READ, mmap.PROT_EXEC, mmap.PROT_READ | mmap.PROT_EXEC:
            assert fails(errno.ENODEV, mmap.mmap, fd, SIZE, flags=flags, prot=protection)
        if opened & os.O_ACCMODE == os.O_RDWR:
            assert fails(errno.ENODEV, mmap.mmap, fd, SIZE, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        else:
            assert fails(errno.EACCES, mmap.mmap, fd, SIZE, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def test_refused_while_the_segment_is_mapped_natively_and_after(path, memory):
    fd = os.open(path, os.O_RDWR)
    for _ in range(2):
        assert fails(errno.ENODEV, mmap.mmap, fd, SIZE)
        memory[0] = 1
        assert os.pread(fd, 1, 0) == b'\1'


@pytest.mark.parametrize('opened', [os.O_RDONLY, os.O_RDWR], ids=['RDONLY', 'RDWR'])
def test_private_mapping_is_of_what_is_there_now(path, memory, opened):
    """Each new one, whatever an older one has seen; and its stores go nowhere."""
    fd = os.open(path, opened)
    with contextlib.ExitStack() as stack:
        for number in range(1, 4):
            memory[0] = memory[SIZE - 1] = number
            private = stack.enter_context(mmap.mmap(fd, SIZE, flags=mmap.MAP_PRIVATE))
            assert (private[0], private[SIZE - 1]) == (number, number)
            private[0] = 99
            assert (memory[0], os.pread(fd, 1, 0), private[0]) == (number, bytes([number]), 99)


def test_reads_and_writes_are_of_the_segment_beside_a_private_mapping(path, memory):
    """The kernel has its pages cached for that one; they are nobody else's."""
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, SIZE, flags=mmap.MAP_PRIVATE) as private:
        assert private[:] == bytes(SIZE)
        for number in range(1, 4):
            memory[5] = number
            assert os.pread(fd, 10, 0)[5] == number
            os.pwrite(fd, bytes([number]), 6)
            assert memory[6] == number
        assert private[7] == 0


def test_program_in_a_segment_runs(path, name):
    shutil.copyfile(shutil.which('true'), f'/dev/shm/{name}')
    os.chmod(f'/dev/shm/{name}', 0o755)
    assert subprocess.run([path]).returncode == 0


# Coherence

@pytest.mark.parametrize('size', [1, 4096, 100_000, 2**20 + 17])
def test_every_write_is_read_on_the_other_side(path, segment, size):
    """Of either side, at once, whatever had been read before."""
    fd = os.open(path, os.O_RDWR)
    for number in range(1, 6):
        data = bytes([number]) * size
        assert os.pwrite(segment, data, 3) == size
        assert os.pread(fd, size, 3) == data
        data = bytes([number + 100]) * size
        assert os.pwrite(fd, data, 3) == size
        assert os.pread(segment, size, 3) == data


def test_native_stores_are_read_and_writes_are_seen_in_the_native_mapping(path, memory):
    """No call on the native side."""
    fd = os.open(path, os.O_RDWR)
    for offset in range(0, SIZE, 4093):
        memory[offset] = offset % 251
        assert os.pread(fd, 1, offset) == bytes([offset % 251])
        os.pwrite(fd, b'\xff', offset)
        assert memory[offset] == 255


def test_size_is_followed_at_once_both_ways(path, segment):
    fd = os.open(path, os.O_RDWR)
    for size in 0, 10, SIZE, 1, 2**20:
        os.ftruncate(segment, size)
        assert (os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END), len(os.pread(fd, 2**21, 0))) == (size,) * 3
        os.ftruncate(fd, size + 5)
        assert os.fstat(segment).st_size == size + 5


def test_appended_natively_and_through_the_mount_in_turn(path, segment):
    os.ftruncate(segment, 0)
    ours, theirs = os.open(path, os.O_WRONLY | os.O_APPEND), os.open(f'/dev/shm/{path.name}', os.O_WRONLY | os.O_APPEND)
    for number in range(10):
        os.write((ours, theirs)[number % 2], b'%d' % number)
    assert path.read_bytes() == os.pread(segment, 100, 0) == b'0123456789'


def test_mount_with_passthrough_and_one_without_it_agree(mappable, mount, path, name, memory):
    with mmap.mmap(os.open(mount().path / 'shm' / name, os.O_RDWR), SIZE) as mapped:
        fd = os.open(path, os.O_RDWR)
        mapped[:5] = b'store'
        assert os.pread(fd, 5, 0) == memory[:5] == b'store'
        os.pwrite(fd, b'write', 0)
        assert mapped[:5] == memory[:5] == b'write'


def test_counter_of_two_processes(path, memory, child):
    """One steps it up natively, by stores, the other by reads and writes of the file."""
    def step():
        fd = os.open(path, os.O_RDWR)
        for number in range(0, 200, 2):
            eventually(lambda: os.pread(fd, 1, 0)[0] == number)
            os.pwrite(fd, bytes([number + 1]), 0)
    stepping = child(step)
    for number in range(1, 200, 2):
        eventually(lambda: memory[0] == number)
        memory[0] = number + 1
    stepping.result()
    assert memory[0] == 200


def sent(fd, offset, size):
    """What sendfile(2) sends."""
    reading, writing = os.pipe()
    with os.fdopen(reading, 'rb') as received:
        try:
            length = os.sendfile(writing, fd, offset, size)
        finally:
            os.close(writing)
        data = received.read()
    assert len(data) == length
    return data


def test_sendfile_beside_reads_and_writes_of_the_mount(path, segment):
    fd = os.open(path, os.O_RDWR)
    for text in b'first', b'again', b'third':
        os.pwrite(fd, text, 100)
        assert sent(fd, 100, 5) == os.pread(fd, 5, 100) == os.pread(segment, 5, 100) == text


def test_sendfile_of_a_segment_that_has_grown(path, segment):
    """After a look at its size, as programs take before they copy."""
    fd = os.open(path, os.O_RDONLY)
    assert sent(fd, 0, 5) == bytes(5)
    for size in 2 * SIZE, 3 * SIZE:
        os.ftruncate(segment, size)
        os.pwrite(segment, b'grown', size - 5)
        assert os.fstat(fd).st_size == size
        assert sent(fd, size - 5, 10) == b'grown'


def test_copies_are_fresh(path, segment, mnt, names, tmp_path):
    """cp, shutil and cat open the file anew, and get what is there now."""
    target = tmp_path / 'copy'
    for number in range(1, 4):
        os.pwrite(segment, bytes([number]) * SIZE, 0)
        shutil.copyfile(path, target)
        assert target.read_bytes() == bytes([number]) * SIZE
        os.pwrite(segment, bytes([number + 10]) * SIZE, 0)
        subprocess.run(['cp', path, target], check=True)
        assert target.read_bytes() == bytes([number + 10]) * SIZE


# A daemon without CAP_SYS_ADMIN

USER_SESSION = '''
    import mmap, os, subprocess, sys, time
    ipcfs, point, name = sys.argv[1:]
    daemon = subprocess.Popen([ipcfs, '-f', point])
    try:
        while not any(line.split()[4] == point for line in open('/proc/self/mountinfo')) and daemon.poll() is None:
            time.sleep(0.01)
        path = f'{point}/shm/{name}'
        native = open(f'/dev/shm/{name}', 'x+b', buffering=0)
        native.truncate(4096)
        memory = mmap.mmap(native.fileno(), 4096)
        fd = os.open(path, os.O_RDWR)
        for protection in 1, 3:
            try:
                mmap.mmap(fd, 4096, prot=protection)
                print('mapped')
            except OSError as error:
                print('errno', error.errno)
        memory[:5] = b'store'
        print(os.pread(fd, 5, 0), mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE)[:5])
        os.pwrite(fd, b'write', 0)
        print(memory[:5])
        print(*[line.strip() for line in open(f'{point}/limits') if 'MMAP' in line])
        os.unlink(path)
        os.close(fd)
        subprocess.run(['fusermount3', '-u', point], check=True)
    except BaseException:
        daemon.kill()
        raise
    print('status', daemon.wait())
'''


def test_mount_of_an_ordinary_user_is_coherent_and_refuses(as_nobody):
    _, done = as_nobody(USER_SESSION)
    line, = done.stderr.splitlines()
    assert 'mmap' in line and 'CAP_SYS_ADMIN' in line
    assert done.stdout.splitlines() == [f'errno {errno.ENODEV}'] * 2 + [
        "b'store' b'store'", "b'write'", 'SHARED_MEMORY_MMAP 0', 'status 0']

"""posix_ipc.SharedMemory, behaviour by behaviour from posix_ipc's documentation, with shm_open's users as peers."""

import mmap
import os

import pytest

import native
from test_posix_ipc_module import posix_ipc  # noqa: F401, a fixture

SIZE = 3333  # no multiple of a page


@pytest.fixture
def create(posix_ipc, name):
    """create(size, ...) makes the segment, or with other flags opens it."""
    opened = []

    def memory(size=0, flags=posix_ipc.O_CREX, **parameters):
        opened.append(posix_ipc.SharedMemory(f'/{name}', flags, size=size, **parameters))
        return opened[-1]
    yield memory
    for each in opened:
        each.close_fd()


@pytest.fixture
def peer(name):
    """peer() opens the segment natively."""
    opened = []

    def descriptor():
        opened.append(native.shm_open(name))
        return opened[-1]
    yield descriptor
    for each in opened:
        os.close(each)


# The constructor

def test_size_is_0_unless_given(create, peer):
    assert create().size == os.fstat(peer()).st_size == 0


def test_size(create, peer):
    assert create(SIZE).size == os.fstat(peer()).st_size == SIZE


def test_size_applies_to_an_existing_segment(create, posix_ipc, peer):
    create(SIZE)
    os.pwrite(peer(), b'kept', 0)
    assert create(100, flags=posix_ipc.O_CREAT).size == 100
    assert create(2 * SIZE, flags=0).size == 2 * SIZE
    assert os.pread(peer(), 10 * SIZE, 0) == b'kept'.ljust(2 * SIZE, b'\0')


def test_size_0_leaves_an_existing_segment(create, posix_ipc):
    create(SIZE)
    assert create(flags=posix_ipc.O_CREAT).size == create(0, flags=0).size == SIZE


def test_segment_can_be_sized_later(create, peer):
    memory = create()
    os.ftruncate(memory.fd, SIZE)
    assert memory.size == os.fstat(peer()).st_size == SIZE


@pytest.mark.parametrize('size', [-1, 2**63, 2**80])
def test_impossible_size(create, mnt, name, size):
    with pytest.raises(ValueError):
        create(size)
    assert not (mnt / 'shm' / name).exists()


def test_size_must_be_a_number(create, mnt, name):
    with pytest.raises(TypeError):
        create('1')
    assert not (mnt / 'shm' / name).exists()


def test_o_trunc_cuts_to_0(create, posix_ipc):
    old = create(SIZE)
    assert create(flags=posix_ipc.O_TRUNC).size == old.size == 0


def test_keyword_arguments(posix_ipc, name):
    memory = posix_ipc.SharedMemory(name=f'/{name}', flags=posix_ipc.O_CREX, mode=0o640, size=5, read_only=False)
    assert memory.size == 5
    memory.close_fd()


# read_only

def test_read_only_descriptor(create, posix_ipc, peer):
    create(SIZE)
    os.pwrite(peer(), b'native', 0)
    memory = create(flags=0, read_only=True)
    assert os.pread(memory.fd, 6, 0) == b'native'
    with pytest.raises(OSError):
        os.pwrite(memory.fd, b'x', 0)
    with pytest.raises((OSError, ValueError)):
        mmap.mmap(memory.fd, SIZE)


def test_read_only_with_a_size_creates_nothing(create, mnt, name):
    with pytest.raises(ValueError):
        create(SIZE, read_only=True)
    assert not (mnt / 'shm' / name).exists()


def test_read_only_with_a_size_leaves_what_exists(create, posix_ipc):
    old = create(SIZE)
    for flags in 0, posix_ipc.O_CREAT:
        with pytest.raises(ValueError):
            create(100, flags=flags, read_only=True)
    assert old.size == create(flags=0).size == SIZE


def test_read_only_where_the_mode_allows_no_more(create, posix_ipc, name, child):
    create(SIZE, mode=0o644)
    def size(read_only):
        return posix_ipc.SharedMemory(f'/{name}', read_only=read_only).size
    assert child(size, True, user=1000).result() == SIZE
    with pytest.raises(posix_ipc.PermissionsError):
        child(size, False, user=1000).result()


# The descriptor

def test_fd_reads_and_writes_what_others_do(create, peer):
    memory = create(SIZE)
    os.pwrite(memory.fd, b'module', 10)
    os.pwrite(peer(), b'native', 20)
    assert os.pread(peer(), 6, 10) == b'module'
    assert os.pread(memory.fd, 6, 20) == b'native'


def test_fileno_is_fd(create):
    memory = create()
    assert memory.fileno() == memory.fd
    assert not os.get_inheritable(memory.fd)


def test_mmap_is_the_same_memory(mappable, create, peer):
    memory = create(SIZE)
    with mmap.mmap(memory.fd, memory.size) as mapped, mmap.mmap(peer(), SIZE) as natively:
        assert len(mapped) == SIZE
        mapped[:6] = b'module'
        natively[6:12] = b'native'
        assert mapped[:12] == natively[:12] == b'modulenative'


def test_mapping_outlives_close_and_unlink(mappable, create, peer):
    memory = create(SIZE)
    with mmap.mmap(memory.fd, memory.size) as mapped, mmap.mmap(peer(), SIZE) as natively:
        memory.close_fd()
        memory.unlink()
        natively[:4] = b'more'
        assert mapped[:4] == b'more'


# close_fd() and unlink()

def test_close_fd(create, posix_ipc, mnt, name):
    memory = create(SIZE)
    fd = memory.fd
    assert memory.close_fd() is None
    with pytest.raises(OSError):
        os.fstat(fd)
    assert memory.fd == memory.fileno() == -1
    with pytest.raises(posix_ipc.ExistentialError):
        memory.size
    assert memory.close_fd() is None
    assert (mnt / 'shm' / name).stat().st_size == SIZE


def test_os_close_is_the_same(create, posix_ipc):
    memory = create(SIZE)
    os.close(memory.fd)
    with pytest.raises(posix_ipc.ExistentialError):
        memory.size
    with pytest.raises(ValueError):
        memory.close_fd()


def test_fd_is_not_closed_with_the_handle(posix_ipc, name):
    fd = posix_ipc.SharedMemory(f'/{name}', posix_ipc.O_CREX, size=5).fd
    assert os.fstat(fd).st_size == 5
    os.close(fd)


def test_unlinked_segment_goes_on_for_its_users(create, posix_ipc, peer):
    memory, native_fd = create(SIZE), peer()
    assert memory.unlink() is None
    with pytest.raises(posix_ipc.ExistentialError):
        create(flags=0)
    os.pwrite(native_fd, b'native', 0)
    assert os.pread(memory.fd, 6, 0) == b'native'
    os.ftruncate(memory.fd, 5)
    assert memory.size == os.fstat(native_fd).st_size == 5


def test_unlinked_name_is_free_for_another(create):
    old = create(1)
    old.unlink()
    new = create(2)
    assert (old.size, new.size) == (1, 2)


def test_unlink_after_close_and_twice(create, posix_ipc):
    memory = create()
    memory.close_fd()
    memory.unlink()
    with pytest.raises(posix_ipc.ExistentialError):
        memory.unlink()


def test_fork_shares_the_descriptor(create, child):
    memory = create(SIZE)
    child(os.pwrite, memory.fd, b'child', 0).result()
    assert os.pread(memory.fd, 5, 0) == b'child'

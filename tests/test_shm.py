"""Shared memory: a regular file in every respect, and the same memory as the native segment."""

import errno
import fcntl
import mmap
import os
import pathlib
import stat
import subprocess

import pytest

import native


@pytest.fixture
def path(mnt, name):
    return mnt / 'shm' / name


def test_touched_file_is_an_empty_segment(path, name):
    path.touch()
    fd = native.shm_open(name)
    assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_written_through_the_file_read_natively(path, segment):
    fd = os.open(path, os.O_RDWR)
    assert os.pwrite(fd, b'hello', 100) == 5
    assert os.pread(segment, 7, 99) == b'\0hello\0'


def test_written_natively_read_through_the_file(path, segment):
    fd = os.open(path, os.O_RDONLY)
    for text in b'first', b'again':
        os.pwrite(segment, text, 100)
        assert os.pread(fd, 7, 99) == b'\0' + text + b'\0'


def test_megabytes_go_through_unchanged(path, name):
    data = os.urandom(10 * 2**20 + 123)
    path.write_bytes(data)
    fd = native.shm_open(name)
    assert os.pread(fd, len(data) + 1, 0) == data
    os.close(fd)
    assert path.read_bytes() == data


def test_sequential_reads_and_writes_advance_the_offset(path, segment):
    with open(path, 'r+b', buffering=0) as file:
        file.write(b'abc')
        file.write(b'def')
        assert file.tell() == 6
        file.seek(1)
        assert (file.read(2), file.read(2)) == (b'bc', b'de')
        assert file.seek(-1, os.SEEK_END) == 65535
        assert (file.read(10), file.read(10)) == (b'\0', b'')


# Size

def test_file_has_the_size_of_the_segment_at_once(path, segment):
    fd = os.open(path, os.O_RDWR)
    for size in 65536, 100, 0, 2**20:
        os.ftruncate(segment, size)
        assert [os.fstat(fd).st_size, path.stat().st_size, os.lseek(fd, 0, os.SEEK_END)] == [size] * 3


def test_truncation_through_the_file_resizes_the_segment(path, segment):
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b'x' * 200, 0)
    os.ftruncate(fd, 100)
    assert os.fstat(segment).st_size == 100
    os.truncate(path, 200)
    assert os.pread(segment, 300, 0) == b'x' * 100 + b'\0' * 100


def test_opening_to_truncate_empties_the_segment(path, segment):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert os.fstat(segment).st_size == 0


def test_reads_end_where_the_segment_ends(path, segment):
    fd = os.open(path, os.O_RDONLY)
    os.ftruncate(segment, 10)
    assert os.pread(fd, 100, 4) == b'\0' * 6
    os.ftruncate(segment, 20)
    assert os.pread(fd, 100, 4) == b'\0' * 16


def test_append_writes_at_the_end_wherever_that_has_moved(path, segment):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.ftruncate(segment, 3)
    os.write(fd, b'abc')
    os.ftruncate(segment, 10)
    os.write(fd, b'def')
    assert os.pread(segment, 100, 0) == b'\0\0\0abc\0\0\0\0def'


def test_appending_can_be_set_and_taken_back_later(path, name):
    path.write_bytes(b'hello')
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    with open(f'/dev/shm/{name}', 'ab') as native_file:
        native_file.write(b' from')
    os.write(fd, b' me')
    assert path.read_bytes() == b'hello from me'
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)  # one that was opened with it keeps it, where the kernel writes by passthrough
    os.pwrite(fd, b'J', 0)
    assert path.read_bytes() == b'Jello from me'


def test_fallocate_grows_the_segment(path, segment):
    fd = os.open(path, os.O_RDWR)
    os.posix_fallocate(fd, 65536, 65536)
    assert os.fstat(segment).st_size == 131072


def test_hole_punched_through_the_file_is_in_the_segment(path, segment):
    os.pwrite(segment, b'x' * 65536, 0)
    blocks = os.fstat(segment).st_blocks
    subprocess.run(['fallocate', '--punch-hole', '--offset', '4096', '--length', '8192', path], check=True)
    assert os.pread(segment, 65536, 0) == b'x' * 4096 + b'\0' * 8192 + b'x' * 53248
    assert os.fstat(segment).st_blocks == path.stat().st_blocks == blocks - 16


@pytest.mark.parametrize('whence', [os.SEEK_DATA, os.SEEK_HOLE], ids=['SEEK_DATA', 'SEEK_HOLE'])
def test_holes_and_data_are_found_where_they_are_natively(path, segment, whence):
    os.pwrite(segment, b'x' * 4096, 16384)
    fd = os.open(path, os.O_RDONLY)
    for offset in 0, 16384, 20000, 20480, 65535:
        try:
            expected = os.lseek(segment, offset, whence)
        except OSError as failure:
            with pytest.raises(OSError) as same:
                os.lseek(fd, offset, whence)
            assert same.value.errno == failure.errno == errno.ENXIO
        else:
            assert os.lseek(fd, offset, whence) == expected


def test_copy_file_range_between_segments(mnt, path, segment, names):
    os.pwrite(segment, b'copied', 10)
    other = mnt / 'shm' / names()
    source, target = os.open(path, os.O_RDONLY), os.open(other, os.O_RDWR | os.O_CREAT)
    assert os.copy_file_range(source, target, 6, 10, 3) == 6
    assert other.read_bytes() == b'\0\0\0copied'


def test_fsync_succeeds(path, segment):
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b'x')
    os.fsync(fd)
    os.fdatasync(fd)


def test_statfs_is_that_of_the_memory_below(mnt):
    here, below = os.statvfs(mnt / 'shm'), os.statvfs('/dev/shm')
    assert here.f_blocks * here.f_frsize == below.f_blocks * below.f_frsize
    assert here.f_namemax == 255


def test_full_memory_is_an_error_of_the_write(path, segment):
    room = os.statvfs('/dev/shm')
    with pytest.raises(OSError) as failure:
        os.posix_fallocate(os.open(path, os.O_RDWR), 0, room.f_blocks * room.f_frsize * 2)
    assert failure.value.errno == errno.ENOSPC


def test_file_opened_one_way_does_not_work_the_other(path, segment):
    for flags, operation in ((os.O_RDONLY, lambda fd: os.write(fd, b'x')), (os.O_WRONLY, lambda fd: os.read(fd, 1))):
        with pytest.raises(OSError) as failure:
            operation(os.open(path, flags))
        assert failure.value.errno == errno.EBADF


def test_writing_moves_the_modification_time(path, segment):
    os.utime(path, (0, 0))
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b'x')
    assert os.fstat(segment).st_mtime > 0
    assert path.stat().st_mtime_ns == os.fstat(segment).st_mtime_ns


# Removal and renaming

@pytest.mark.parametrize('remove', ['rm', 'shm_unlink'])
def test_removed_segment_lives_on_behind_an_open_file(path, segment, name, remove):
    fd = os.open(path, os.O_RDWR)
    os.unlink(path) if remove == 'rm' else native.shm_unlink(name)
    os.pwrite(fd, b'alive', 0)
    os.ftruncate(fd, 8)
    assert os.pread(segment, 100, 0) == b'alive\0\0\0'
    assert os.fstat(fd).st_size == 8


def test_segment_made_anew_is_another_one(path, segment, name):
    old = os.open(path, os.O_RDWR)
    path.unlink()
    path.write_bytes(b'new')
    os.pwrite(old, b'old', 0)
    assert path.read_bytes() == b'new'
    assert os.pread(segment, 3, 0) == b'old'
    assert path.stat().st_ino != os.fstat(old).st_ino


def test_rename_renames_the_segment(path, segment, names):
    os.write(segment, b'same')
    fd, number = os.open(path, os.O_RDONLY), path.stat().st_ino
    new = path.with_name(names())
    path.rename(new)
    assert not path.exists() and not native.exists('shm', path.name)
    assert native.stat('shm', new.name).st_ino == os.fstat(segment).st_ino
    assert new.stat().st_ino == number
    assert os.pread(fd, 4, 0) == b'same'


def test_rename_replaces_another_segment(path, segment, names):
    new = path.with_name(names())
    new.write_bytes(b'replaced')
    os.pwrite(segment, b'replacing', 0)
    replaced = os.open(new, os.O_RDONLY)
    path.rename(new)
    assert new.read_bytes()[:9] == b'replacing'
    assert os.pread(replaced, 100, 0) == b'replaced'


def test_rename_over_what_is_not_shown_is_invalid_and_harms_nothing(path, segment, names):
    hidden = names()
    os.mkfifo(f'/dev/shm/{hidden}')
    with pytest.raises(OSError) as failure:
        path.rename(path.parent / hidden)
    assert failure.value.errno == errno.EINVAL
    assert pathlib.Path(f'/dev/shm/{hidden}').is_fifo() and path.exists()


def test_rename_leaves_no_device_behind(path, segment, names):
    RENAME_WHITEOUT, new = 4, path.parent / names()
    with pytest.raises(OSError) as failure:
        native.call('renameat2', -1, bytes(path), -1, bytes(new), RENAME_WHITEOUT)
    assert failure.value.errno == errno.EINVAL
    assert pathlib.Path(f'/dev/shm/{path.name}').is_file()


def test_natively_renamed_segment_is_followed_at_once(path, segment, names):
    path.stat()
    new = path.with_name(names())
    os.rename(f'/dev/shm/{path.name}', f'/dev/shm/{new.name}')
    assert (path.exists(), new.exists()) == (False, True)


# mmap

@pytest.fixture
def mapped(mappable, path, segment):
    """The segment mapped through the file."""
    if not mappable:
        yield None
        return
    with mmap.mmap(os.open(path, os.O_RDWR), 65536) as memory:
        yield memory


@pytest.fixture
def memory(segment):
    """The segment mapped natively."""
    with mmap.mmap(segment, 65536) as memory:
        yield memory


def test_store_through_either_mapping_is_seen_through_the_other(mapped, memory):
    for offset in 0, 4095, 65535:
        mapped[offset] = 1
        assert memory[offset] == 1
        memory[offset] = 2
        assert mapped[offset] == 2


def test_mapping_and_read_and_write_agree(mapped, memory, path, segment):
    fd = os.open(path, os.O_RDWR)
    mapped[:5] = b'store'
    assert os.pread(fd, 5, 0) == os.pread(segment, 5, 0) == b'store'
    os.pwrite(fd, b'write', 0)
    assert mapped[:5] == memory[:5] == b'write'
    os.pwrite(segment, b'under', 0)
    assert mapped[:5] == os.pread(fd, 5, 0) == b'under'


def test_two_processes_map_one_memory(mapped, path, child):
    def store():
        with mmap.mmap(os.open(path, os.O_RDWR), 65536) as theirs:
            theirs[7] = theirs[6] + 1
    mapped[6] = 41
    child(store).result()
    assert mapped[7] == 42


def test_mapping_outlives_its_file_and_the_name(mapped, memory, path):
    path.unlink()
    path.write_bytes(b'another')
    memory[0] = 7
    assert mapped[0] == 7
    mapped[1] = 8
    assert memory[1] == 8
    assert path.read_bytes() == b'another'


def test_segment_made_anew_is_mapped_anew(mapped, path, name):
    path.unlink()
    path.write_bytes(b'new' + b'\0' * 4093)
    with mmap.mmap(os.open(path, os.O_RDWR), 4096) as new:
        mapped[:3] = b'old'
        assert new[:3] == b'new'
        new[:3] = b'NEW'
    assert pathlib.Path('/dev/shm', name).read_bytes()[:3] == b'NEW'


def test_mapping_sees_the_segment_grow(mapped, memory, segment, path):
    os.ftruncate(segment, 131072)
    os.pwrite(segment, b'far', 100000)
    with mmap.mmap(os.open(path, os.O_RDWR), 131072) as larger:
        assert larger[100000:100003] == b'far'


def test_read_only_mapping_of_a_file_opened_to_read(mapped, memory, path):
    with mmap.mmap(os.open(path, os.O_RDONLY), 65536, prot=mmap.PROT_READ) as reading:
        memory[3] = 9
        assert reading[3] == 9
    with pytest.raises(PermissionError):
        mmap.mmap(os.open(path, os.O_RDONLY), 65536)


def test_private_mapping_keeps_its_stores(mapped, memory, path):
    memory[0] = 1
    with mmap.mmap(os.open(path, os.O_RDWR), 65536, flags=mmap.MAP_PRIVATE) as private:
        assert private[0] == 1
        private[0] = 2
        assert memory[0] == mapped[0] == 1


def test_segment_opened_before_it_was_mapped_elsewhere_is_the_same_memory(mapped, memory, path):
    early = [os.open(path, flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)]
    with mmap.mmap(os.open(path, os.O_RDWR), 65536) as late:
        os.pwrite(early[1], b'x', 10)
        assert late[10] == memory[10] == os.pread(early[0], 1, 10)[0] == ord('x')


def test_mapping_through_two_mounts_is_one_memory(mapped, mount, path):
    second = mount().path / 'shm' / path.name
    with mmap.mmap(os.open(second, os.O_RDWR), 65536) as theirs:
        mapped[0] = 5
        assert theirs[0] == 5


# The daemon's death

def test_killed_daemon_loses_nothing(mount, name):
    mounted = mount()
    path = mounted.path / 'shm' / name
    path.write_bytes(b'kept')
    mounted.kill()
    mounted.start()
    assert path.read_bytes() == b'kept'


def test_native_mapping_survives_the_daemon(mount, name, segment):
    mounted = mount()
    path = mounted.path / 'shm' / name
    with mmap.mmap(segment, 65536) as memory:
        path.write_bytes(b'x' * 65536)
        mounted.kill()
        assert memory[:] == b'x' * 65536


def test_write_by_another_user_takes_set_user_id_away(path, name, child):
    path.touch()
    path.chmod(0o4777)

    def write():
        with open(path, 'wb', buffering=0) as file:
            return file.write(b'x')
    assert child(write, user=54321, group=54321, groups=[]).result() == 1
    assert stat.S_IMODE(os.stat(f'/dev/shm/{name}').st_mode) == 0o777

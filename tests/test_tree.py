"""The tree: what every kind has in common, names, listings, and what is not shown."""

import errno
import os
import pathlib
import socket
import stat
import subprocess

import pytest

import native
from conftest import eventually, parked

SHM = pathlib.Path('/dev/shm')
LONGEST = {'sem': 251, 'shm': 255, 'mq': 255}


@pytest.fixture(params=['sem', 'shm', 'mq'])
def kind(request):
    return request.param


@pytest.fixture
def path(mnt, kind, name):
    return mnt / kind / name


def raises(code, function, *arguments):
    with pytest.raises(OSError) as failure:
        function(*arguments)
    assert failure.value.errno == code


def create(path, flags=0, mode=0o600):
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | flags, mode))


def listed(folder, name):
    """The entries that belong to this test."""
    return sorted(entry for entry in os.listdir(folder) if name in entry)


# The root

def test_root_shows_the_kinds_and_of_the_views_only_stat(mnt):
    entries = os.listdir(mnt)
    assert {'README', 'limits', 'sem', 'shm', 'mq'} <= set(entries)
    assert sorted(entry for entry in entries if '@' in entry) == ['mq@stat', 'sem@stat', 'shm@stat']
    assert all(stat.S_ISDIR((mnt / kind).stat().st_mode) for kind in ('sem', 'shm', 'mq'))


def test_directories_are_open_to_all_and_sticky(mnt, kind):
    assert stat.S_IMODE((mnt / kind).stat().st_mode) == 0o1777


def test_other_names_in_the_root_do_not_exist(mnt):
    for other in 'semaphore', 'Sem', 'dev', 'x' * 300:
        assert not os.path.lexists(mnt / other)


def test_nothing_can_be_made_or_removed_in_the_root(mnt):
    with pytest.raises(OSError):
        create(mnt / 'file')
    raises(errno.EPERM, os.mkdir, mnt / 'folder')
    for kind in 'sem', 'shm', 'mq':
        with pytest.raises(OSError):
            os.rmdir(mnt / kind)
    assert {'sem', 'shm', 'mq'} <= set(os.listdir(mnt))


# Creating and removing

def test_created_file_is_a_native_object(path, kind, name):
    create(path)
    assert native.exists(kind, name)


def test_native_object_is_a_regular_empty_file(path, kind, name):
    native.CREATE[kind](name)
    status = path.stat()
    assert (stat.S_ISREG(status.st_mode), status.st_size) == (True, 0)


def test_object_made_before_the_mount_is_there(mount, kind, name):
    native.CREATE[kind](name)
    folder = mount().path / kind
    assert (folder / name).exists()
    assert listed(folder, name) == [name]


def test_native_objects_appear_and_vanish_at_once(path, kind, name):
    for _ in range(3):
        assert not path.exists() and listed(path.parent, name) == []
        native.CREATE[kind](name)
        assert path.exists() and listed(path.parent, name) == [name]
        native.UNLINK[kind](name)


def test_objects_seen_through_two_mounts_are_the_same(mount, kind, name):
    one, other = mount().path / kind / name, mount().path / kind / name
    create(one)
    assert other.stat().st_ino == one.stat().st_ino
    other.unlink()
    assert not one.exists()


def test_exclusive_creation_fails_where_it_exists(path, kind, name):
    native.CREATE[kind](name)
    raises(errno.EEXIST, create, path, os.O_EXCL)
    native.UNLINK[kind](name)
    create(path, os.O_EXCL)
    raises(errno.EEXIST, native.CREATE[kind], name)


def test_missing_object_is_not_opened_or_removed(path):
    raises(errno.ENOENT, os.open, path, os.O_RDWR)
    raises(errno.ENOENT, os.unlink, path)
    raises(errno.ENOENT, os.stat, path)


def test_unlink_removes_the_native_object(path, kind, name):
    native.CREATE[kind](name)
    path.unlink()
    assert not native.exists(kind, name)
    raises(errno.ENOENT, os.unlink, path)


@pytest.mark.parametrize('umask, mode', [(0, 0o666), (0o022, 0o666), (0o077, 0o640), (0o027, 0o777), (0, 0o400)])
def test_created_object_has_the_mode_less_the_umask(path, kind, name, umask, mode, child):
    def create_under_the_umask():
        os.umask(umask)
        create(path, os.O_EXCL, mode)
        native.CREATE[kind](f'{name}native', mode)
    child(create_under_the_umask).result()
    modes = path.stat().st_mode, native.stat(kind, name).st_mode, native.stat(kind, f'{name}native').st_mode
    assert [stat.S_IMODE(mode_seen) for mode_seen in modes] == [mode & ~umask] * 3


def test_existing_object_keeps_its_mode_when_opened_to_create(path, kind, name):
    native.CREATE[kind](name, 0o640)
    create(path, 0, 0o666)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_mknod_of_a_regular_file_creates(path, kind, name):
    os.mknod(path, stat.S_IFREG | 0o640)
    assert stat.S_IMODE(native.stat(kind, name).st_mode) == 0o640
    raises(errno.EEXIST, os.mknod, path, stat.S_IFREG | 0o600)


def test_nothing_but_regular_files_can_be_made(path, kind, names, mnt):
    existing = path.with_name(names())
    native.CREATE[kind](existing.name)
    raises(errno.EPERM, os.mkdir, path)
    raises(errno.EPERM, os.symlink, 'target', path)
    raises(errno.EPERM, os.link, existing, path)
    raises(errno.EPERM, os.mkfifo, path)
    raises(errno.EPERM, os.mknod, path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    raises(errno.EPERM, socket.socket(socket.AF_UNIX).bind, str(path))
    assert not path.exists()


# Attributes of the file

def test_chmod_acts_on_the_object(path, kind, name):
    native.CREATE[kind](name)
    for mode in 0o640, 0o777, 0o604:
        path.chmod(mode)
        assert stat.S_IMODE(native.stat(kind, name).st_mode) == stat.S_IMODE(path.stat().st_mode) == mode


def test_chown_acts_on_the_object(path, kind, name):
    native.CREATE[kind](name)
    os.chown(path, 1234, 5678)
    status = native.stat(kind, name)
    assert (status.st_uid, status.st_gid) == (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)
    os.chown(path, -1, 99)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 99)


def test_utime_acts_on_the_object(path, kind, name):
    native.CREATE[kind](name)
    os.utime(path, (123456789, 987654321))  # mqueuefs has whole seconds
    for status in path.stat(), native.stat(kind, name):  # in this order: sem_open's mmap is an access
        assert (status.st_atime, status.st_mtime) == (123456789, 987654321)
    os.utime(path)
    assert abs(path.stat().st_mtime - path.stat().st_atime) < 1 < path.stat().st_mtime - 987654321


def test_attributes_through_an_open_file(path, kind, name):
    native.CREATE[kind](name)
    fd = os.open(path, os.O_RDWR)
    os.fchmod(fd, 0o644)
    os.fchown(fd, 7, 8)
    os.utime(fd, (1, 2))
    status = os.fstat(fd)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o644, 7, 8, 2)
    native.UNLINK[kind](name)
    assert (os.fstat(fd).st_uid, os.fstat(fd).st_ino) == (7, status.st_ino)


def test_attributes_changed_natively_are_seen_at_once(path, kind, name):
    native.CREATE[kind](name)
    path.stat()
    if kind == 'mq':
        with native.Queue(name) as queue:
            os.fchmod(queue.descriptor, 0o611)
    else:
        os.chmod(SHM / (f'sem.{name}' if kind == 'sem' else name), 0o611)
    assert stat.S_IMODE(path.stat().st_mode) == 0o611


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_size_is_always_0_though_there_is_something_to_read(mnt, kind, name):
    path = mnt / kind / name
    native.CREATE[kind](name)
    path.write_bytes(b'1')
    fd = os.open(path, os.O_RDONLY)
    assert path.stat().st_size == os.fstat(fd).st_size == 0


def test_inode_numbers_are_stable_and_those_of_the_listing(path, kind, name):
    native.CREATE[kind](name)
    number = path.stat().st_ino
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    path.chmod(0o666)
    assert [os.fstat(fd).st_ino, path.stat().st_ino] == [number] * 2
    with os.scandir(path.parent) as entries:
        assert [entry.inode() for entry in entries if entry.name == name] == [number]


def test_inode_numbers_survive_the_daemon(mount, kind, name):
    mounted = mount()
    path = mounted.path / kind / name
    native.CREATE[kind](name)
    before = path.stat().st_ino
    mounted.stop()
    mounted.start()
    assert path.stat().st_ino == before


def test_inode_numbers_of_different_objects_differ(mnt, names):
    pairs = [(kind, name) for name in (names(), names()) for kind in ('sem', 'shm', 'mq')]
    for kind, name in pairs:
        native.CREATE[kind](name)
    numbers = {(mnt / kind / name).stat().st_ino for kind, name in pairs}
    assert len(numbers) == len(pairs)
    assert not numbers & {(mnt / kind).stat().st_ino for kind in ('.', 'sem', 'shm', 'mq')}


# Renaming

@pytest.mark.parametrize('source, target', [
    ('sem', 'sem'), ('mq', 'mq'), ('sem', 'shm'), ('shm', 'sem'), ('shm', 'mq'), ('mq', 'sem'),
])
def test_rename_is_not_supported_but_inside_shm(mnt, source, target, names):
    old, new = mnt / source / names(), mnt / target / names()
    native.CREATE[source](old.name)
    raises(errno.EOPNOTSUPP, os.rename, old, new)
    assert (old.exists(), new.exists()) == (True, False)


# Names

def long_name(name, length):
    return name + 'x' * (length - len(name))


def test_longest_name_works(mnt, kind, name):
    path = mnt / kind / long_name(name, LONGEST[kind])
    create(path, os.O_EXCL)
    assert native.exists(kind, path.name)
    assert listed(path.parent, name) == [path.name]
    path.unlink()
    assert not native.exists(kind, path.name)


@pytest.mark.parametrize('kind, length', [(kind, length) for kind, longest in LONGEST.items()
                                          for length in (252, 253, 254, 255, 256, 257, 1000) if length > longest])
def test_longer_name_is_too_long(mnt, kind, name, length):
    path = mnt / kind / long_name(name, length)
    raises(errno.ENAMETOOLONG, os.stat, path)
    raises(errno.ENAMETOOLONG, create, path)
    raises(errno.ENAMETOOLONG, os.unlink, path)
    raises(errno.ENAMETOOLONG, os.mknod, path, stat.S_IFREG)


@pytest.mark.parametrize('suffix', [
    b'\xff\xfe', b'a b', b'line\nbreak', b'@value=1', b'\x01', b'\\', b'*', '名'.encode(),
])
def test_names_are_bytes(mnt, kind, name, suffix):
    name = name.encode() + suffix
    folder = os.fsencode(mnt / kind)
    native.CREATE[kind](name)
    assert [entry for entry in os.listdir(folder) if name in entry] == [name]
    os.unlink(os.path.join(folder, name))
    create(os.path.join(folder, name), os.O_EXCL)
    native.UNLINK[kind](name)
    assert not os.path.exists(os.path.join(folder, name))


def test_dots_are_directories(mnt, kind):
    assert os.stat(f'{mnt}/{kind}/.').st_ino == os.stat(f'{mnt}/{kind}').st_ino
    assert os.stat(f'{mnt}/{kind}/..').st_ino == os.stat(mnt).st_ino
    for name in '', '.', '..':
        raises(errno.EISDIR, create, f'{mnt}/{kind}/{name}')
    assert {'.', '..'} <= set(subprocess.run(['ls', '-a', mnt / kind], capture_output=True, text=True).stdout.split())


def test_object_is_no_directory(path, kind, name):
    native.CREATE[kind](name)
    raises(errno.ENOTDIR, os.stat, path / 'below')
    raises(errno.ENOTDIR, os.listdir, path)


def test_semaphores_do_not_show_in_shm(mnt, name):
    native.CREATE['sem'](name)
    semaphore = mnt / 'shm' / f'sem.{name}'
    assert listed(mnt / 'shm', name) == []
    raises(errno.EINVAL, create, semaphore)
    assert not semaphore.exists()
    with pytest.raises(OSError):
        semaphore.unlink()
    assert native.exists('sem', name)


def test_segment_that_shm_would_not_show_cannot_be_made(mnt, name):
    hidden, segment = mnt / 'shm' / f'sem.{name}', mnt / 'shm' / name
    raises(errno.EINVAL, create, hidden)
    raises(errno.EINVAL, os.mknod, hidden, stat.S_IFREG)
    segment.touch()
    raises(errno.EINVAL, os.rename, segment, hidden)
    assert not (SHM / f'sem.{name}').exists()


# What is not shown

@pytest.fixture(params=['folder', 'link', 'dangling link', 'fifo'])
def intruder(request, name):
    """make(entry) puts something in /dev/shm that is no object."""
    def make(entry):
        if request.param == 'folder':
            (SHM / entry).mkdir()
        elif request.param == 'link':
            target = SHM / f'{name}target'
            target.write_bytes(bytes(32))
            (SHM / entry).symlink_to(target)
        elif request.param == 'dangling link':
            (SHM / entry).symlink_to(SHM / f'{name}target')
        else:
            os.mkfifo(SHM / entry)
        return SHM / entry
    return make


@pytest.mark.parametrize('kind, prefix', [('shm', ''), ('sem', 'sem.')], ids=['shm', 'sem'])
def test_entry_that_is_no_object_is_neither_shown_nor_followed(mnt, kind, name, prefix, intruder):
    entry = intruder(f'{prefix}{name}it')
    path = mnt / kind / f'{name}it'
    assert f'{name}it' not in os.listdir(path.parent)
    raises(errno.ENOENT, os.stat, path)
    raises(errno.ENOENT, os.open, path, os.O_RDWR)
    raises(errno.ENOENT, os.unlink, path)
    raises(errno.ENOENT, os.truncate, path, 0)
    with pytest.raises(OSError):
        create(path)
    assert os.path.lexists(entry)
    target = SHM / f'{name}target'
    assert not target.exists() or target.read_bytes() == bytes(32)


# Listings

def test_thousands_of_entries_are_listed_once_each(mnt, name):
    expected = sorted(f'{name}{number}' for number in range(3000))
    for entry in expected:
        (SHM / entry).touch()
    assert listed(mnt / 'shm', name) == expected
    long = subprocess.run(['ls', '-l', mnt / 'shm'], check=True, capture_output=True, text=True).stdout.splitlines()
    assert sorted(line.split()[-1] for line in long if name in line) == expected


def test_hundreds_of_semaphores_and_queues_are_listed(mnt, name):
    expected = sorted(f'{name}{number}' for number in range(150))
    for entry in expected:
        native.create_semaphore(entry).close()
        native.create_queue(entry, 1, 8).close()
    assert listed(mnt / 'sem', name) == listed(mnt / 'mq', name) == expected


def test_entries_that_stay_are_listed_once_while_others_come_and_go(mnt, name):
    for number in range(2000):
        (SHM / f'{name}{number}').touch()
    seen = []
    with os.scandir(mnt / 'shm') as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count % 100 == 0:
                (SHM / f'{name}{count + 1}').unlink(missing_ok=True)
                (SHM / f'{name}new{count}').touch()
    stayed = [f'{name}{number}' for number in range(2000) if number % 100 != 1]
    assert [seen.count(entry) for entry in stayed] == [1] * len(stayed)


def test_directory_can_be_emptied_while_it_is_read(mnt, name):
    for number in range(1000):
        (SHM / f'{name}{number}').touch()
    subprocess.run(['find', mnt / 'shm', '-name', f'{name}*', '-delete'], check=True)
    assert listed(mnt / 'shm', name) == []


def test_listing_is_read_anew_after_rewinding(mnt, kind, name):
    fd = os.open(mnt / kind, os.O_RDONLY)
    assert [entry for entry in os.listdir(fd) if name in entry] == []
    native.CREATE[kind](name)
    assert [entry for entry in os.listdir(fd) if name in entry] == [name]


# Semaphores that are none

@pytest.mark.parametrize('size', [0, 1, 16, 31])
def test_semaphore_file_that_is_too_small_fails_and_harms_nobody(mnt, names, size):
    broken, sound = mnt / 'sem' / names(), mnt / 'sem' / names()
    (SHM / f'sem.{broken.name}').write_bytes(bytes(size))
    sound.touch()
    with pytest.raises(OSError) as failure:
        os.pread(os.open(broken, os.O_RDWR | os.O_NONBLOCK), 10, 0)
    assert failure.value.errno in (errno.EINVAL, errno.EIO)
    sound.write_bytes(b'1')
    assert sound.read_bytes() == b'1\n'
    broken.unlink()


def test_semaphore_file_truncated_under_an_open_file_fails_that_operation_only(mnt, names):
    broken, sound = mnt / 'sem' / names(), mnt / 'sem' / names()
    broken.touch()
    sound.touch()
    fd = os.open(broken, os.O_RDWR | os.O_NONBLOCK)
    os.truncate(SHM / f'sem.{broken.name}', 0)
    raises(errno.EIO, os.write, fd, b'1')
    raises(errno.EIO, os.pread, fd, 10, 0)
    sound.write_bytes(b'1')
    assert sound.read_bytes() == b'1\n'


def test_semaphore_file_truncated_under_a_blocked_reader_harms_nobody(mnt, names, child):
    def read(path):
        return path.read_bytes()
    broken, sound = mnt / 'sem' / names(), mnt / 'sem' / names()
    for path in broken, sound:
        path.touch()
    victim, other = child(read, broken), child(read, sound)
    eventually(lambda: parked(sound, other) and victim.asleep)
    os.truncate(SHM / f'sem.{broken.name}', 0)
    sound.write_bytes(b'1')
    assert other.result() == b'1\n'
    sound.write_bytes(b'1')
    assert read(sound) == b'1\n'
    victim.kill()
    sound.write_bytes(b'1')
    assert read(sound) == b'1\n'

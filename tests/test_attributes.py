"""Attributes, as extended attributes and in the stat view: right, the same, read-only, harmless, and not for everybody."""

import errno
import os
import signal
import stat
import subprocess

import pytest

import native
from conftest import PATIENCE, eventually, parked
from test_options import fails, read_once, use, write_once

OWNER, OTHER = 54321, 54323
NAMES = {
    'sem': {'mode', 'uid', 'gid', 'value', 'waiting'},
    'shm': {'mode', 'uid', 'gid', 'size'},
    'mq': {'mode', 'uid', 'gid', 'current_messages', 'max_messages', 'max_message_size', 'bytes', 'notify_pid',
           'waiting_receivers', 'waiting_senders'},
}
FOR_OPENERS = {'sem': {'value'}, 'shm': set(), 'mq': {'current_messages', 'max_messages', 'max_message_size', 'bytes',
                                                      'notify_pid'}}


def xattrs(file):
    """By path or descriptor."""
    return {name.replace('user.ipcfs.', ''): os.getxattr(file, name).decode()
            for name in os.listxattr(file) if name.startswith('user.ipcfs.')}


def stat_view(mnt, kind, name):
    lines = (mnt / f'{kind}@stat' / name).read_text()
    assert lines.endswith('\n')
    return dict(line.split(' ') for line in lines.splitlines())


def everything(mnt, kind, name):
    """All attributes of an object, which must be the same in both places."""
    found = xattrs(mnt / kind / name)
    assert stat_view(mnt, kind, name) == found
    assert xattrs(mnt / f'{kind}@stat' / name) == found
    return found


def notify_pid(mnt, queue):
    return int(os.getxattr(mnt / 'mq' / queue.name, 'user.ipcfs.notify_pid'))


@pytest.fixture
def semaphore(name):
    with native.create_semaphore(name, value=3) as semaphore:
        yield semaphore


@pytest.fixture
def queue(name):
    with native.create_queue(name, max_messages=4, max_message_size=64) as queue:
        yield queue


# What they say

@pytest.mark.parametrize('kind', NAMES)
def test_all_attributes_are_listed_and_in_the_stat_view(mnt, name, kind):
    native.CREATE[kind](name)
    assert set(everything(mnt, kind, name)) == NAMES[kind]
    assert {attribute for attribute in os.listxattr(mnt / kind / name)} == {f'user.ipcfs.{each}' for each in NAMES[kind]}


@pytest.mark.parametrize('kind', NAMES)
@pytest.mark.parametrize('mode', [0o600, 0o666, 0o640, 0o007, 0])
def test_mode_uid_and_gid_are_those_of_stat(mnt, name, kind, mode):
    native.CREATE[kind](name)
    os.chmod(mnt / kind / name, mode)
    os.chown(mnt / kind / name, OWNER, OTHER)
    found = everything(mnt, kind, name)
    status = native.stat(kind, name)
    assert stat.S_IMODE(status.st_mode) == mode
    assert (found['mode'], found['uid'], found['gid']) == (f'{mode:04o}', str(status.st_uid), str(status.st_gid))
    assert found['uid'] == str(OWNER) and found['gid'] == str(OTHER)


def test_value_is_that_of_sem_getvalue(mnt, semaphore):
    for change in (lambda: None, semaphore.trywait, lambda: semaphore.post(40), lambda: write_once(mnt / 'sem' / semaphore.name, b'32767')):
        change()
        assert everything(mnt, 'sem', semaphore.name)['value'] == str(semaphore.value)
    assert semaphore.value > 32767


def test_largest_value(mnt, name):
    native.create_semaphore(name, value=native.SEM_VALUE_MAX).close()
    assert everything(mnt, 'sem', name)['value'] == str(native.SEM_VALUE_MAX)


@pytest.mark.parametrize('size', [0, 1, 4096, 5 << 30])
def test_size_is_that_of_fstat(mnt, name, size):
    fd = native.shm_open(name, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    os.close(fd)
    assert everything(mnt, 'shm', name)['size'] == str(native.stat('shm', name).st_size) == str(size)


def test_queue_attributes_are_those_of_mq_getattr(mnt, queue):
    for messages in [], [b'one'], [b'', b'three', b'x' * 64]:
        for message in messages:
            queue.send(message)
        found = everything(mnt, 'mq', queue.name)
        assert [int(found[each]) for each in ('max_messages', 'max_message_size', 'current_messages')] == \
            list(queue.attributes[1:])
    assert found['bytes'] == str(3 + 0 + 5 + 64)
    assert found['current_messages'] == '4'
    queue.receive()
    assert everything(mnt, 'mq', queue.name)['bytes'] == str(69)


def test_notify_pid_is_that_of_a_native_process(mnt, queue, child):
    def register():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        queue.notify(signal.SIGUSR1)
        signal.sigwait([signal.SIGUSR1])
    assert everything(mnt, 'mq', queue.name)['notify_pid'] == '0'
    registered = child(register)
    eventually(lambda: notify_pid(mnt, queue) == registered.pid)
    assert everything(mnt, 'mq', queue.name)['notify_pid'] == str(registered.pid)
    queue.send(b'')
    registered.result()
    assert everything(mnt, 'mq', queue.name)['notify_pid'] == '0'


def test_notify_pid_is_that_of_a_process_that_registered_here(mnt, queue, child):
    path = mnt / 'mq@notify' / queue.name
    reader = child(read_once, path)
    eventually(lambda: notify_pid(mnt, queue) == reader.pid)
    assert everything(mnt, 'mq', queue.name)['notify_pid'] == str(reader.pid)
    queue.send(b'')
    reader.result()
    assert everything(mnt, 'mq', queue.name)['notify_pid'] == '0'


def test_waiting_counts_readers_of_a_semaphore(mnt, semaphore, child):
    path = mnt / 'sem' / semaphore.name
    write_once(path, b'1')
    semaphore.wait(), semaphore.wait(), semaphore.wait(), semaphore.wait()
    readers = []
    for count in 1, 2, 3:
        readers.append(child(read_once, mnt / ('sem', 'sem@timeout=1000', 'sem@value=7')[count - 1] / semaphore.name))
        eventually(lambda: parked(path, *readers))
        found = everything(mnt, 'sem', semaphore.name)
        assert (found['waiting'], found['value']) == (str(count), '0')
    readers[1].kill()
    eventually(lambda: xattrs(path)['waiting'] == '2')
    semaphore.post(2)
    assert readers[0].result() == readers[2].result() == b'1\n'
    assert everything(mnt, 'sem', semaphore.name)['waiting'] == '0'


def test_waiting_counts_receivers_and_senders_of_a_queue(mnt, queue, child):
    def counts(quiet=False):
        found = xattrs(mnt / 'mq' / queue.name)
        assert not quiet or everything(mnt, 'mq', queue.name) == found
        return int(found['waiting_receivers']), int(found['waiting_senders'])
    receivers = []
    for count, options in enumerate(('', '@text,stream', '@timeout=1000,priority'), 1):
        receivers.append(child(read_once, mnt / f'mq{options}' / queue.name))
        eventually(lambda: counts() == (count, 0))
        assert counts(quiet=True) == (count, 0)
    for receiver in receivers:
        queue.send(b'')
        receiver.result()
    assert counts() == (0, 0)
    for _ in range(4):
        queue.send(b'')
    senders = []
    for count, options in enumerate(('', '@text', '@priority=4'), 1):
        senders.append(child(write_once, mnt / f'mq{options}' / queue.name, b'message\n'))
        eventually(lambda: counts() == (0, count))
        assert counts(quiet=True) == (0, count)
    while len(queue):
        queue.receive()
    for sender in senders:
        sender.result()
    assert counts() == (0, 0)


def test_native_waiters_are_not_counted(mnt, queue, child):
    child(queue.receive)
    assert everything(mnt, 'mq', queue.name)['waiting_receivers'] == '0'


def test_getfattr_prints_them(mnt, queue):
    queue.send(b'message')
    try:
        done = subprocess.run(['getfattr', '-d', mnt / 'mq' / queue.name], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip('no getfattr')
    for name, value in everything(mnt, 'mq', queue.name).items():
        assert f'user.ipcfs.{name}="{value}"' in done.stdout.splitlines()


def test_stat_view_is_read_in_small_pieces_and_again(mnt, queue):
    fd = os.open(mnt / 'mq@stat' / queue.name, os.O_RDONLY)
    parts = list(iter(lambda: os.read(fd, 3), b''))
    assert b''.join(parts).decode() == (mnt / 'mq@stat' / queue.name).read_text()
    queue.send(b'')
    assert b'current_messages 1\n' in os.pread(fd, 8192, 0)


# Read-only

@pytest.mark.parametrize('kind', NAMES)
def test_attributes_are_read_only(mnt, name, kind):
    native.CREATE[kind](name)
    path = mnt / kind / name
    before = everything(mnt, kind, name)
    for attribute in sorted(NAMES[kind]) + ['nothing']:
        for flags in 0, os.XATTR_CREATE, os.XATTR_REPLACE:
            assert fails(errno.EPERM, os.setxattr, path, f'user.ipcfs.{attribute}', b'1', flags)
        assert fails(errno.EPERM, os.removexattr, path, f'user.ipcfs.{attribute}')
    assert everything(mnt, kind, name) == before


@pytest.mark.parametrize('kind', NAMES)
def test_unknown_attributes_are_enodata(mnt, name, kind):
    native.CREATE[kind](name)
    others = set().union(*NAMES.values()) - NAMES[kind]
    for attribute in ['user.ipcfs.', 'user.ipcfs.nothing', 'user.ipcfs.MODE', 'user.ipcfs.mode2', 'user.value'] + \
            [f'user.ipcfs.{other}' for other in others]:
        assert fails(errno.ENODATA, os.getxattr, mnt / kind / name, attribute), attribute


@pytest.mark.parametrize('kind', NAMES)
def test_attributes_that_no_object_has_are_eopnotsupp(mnt, name, kind):
    """So `ls -l` asks the first object only whether it has an access control list."""
    native.CREATE[kind](name)
    for attribute in 'system.posix_acl_access', 'security.selinux', 'security.capability', 'trusted.x':
        for path in mnt / kind / name, mnt / kind, mnt:
            assert fails(errno.EOPNOTSUPP, os.getxattr, path, attribute), (path, attribute)


def test_small_buffer_is_erange(mnt, queue):
    libc, path = native.libc, os.fsencode(mnt / 'mq' / queue.name)
    buffer = native.ctypes.create_string_buffer(100)
    getxattr = lambda size: native.call('getxattr', path, b'user.ipcfs.max_message_size', buffer, native.ctypes.c_size_t(size))
    assert getxattr(0) == getxattr(2) == getxattr(100) == 2
    assert fails(errno.ERANGE, getxattr, 1)
    assert fails(errno.ERANGE, lambda: native.call('listxattr', path, buffer, native.ctypes.c_size_t(10)))
    assert libc is native.libc


# Not for everybody

MODES = [0o600, 0o640, 0o400, 0o200, 0o060, 0o006, 0o004, 0o002, 0o000, 0o666]


def may_open(kind, name):
    """Natively: as sem_open does, or any one way of mq_open."""
    ways = {'sem': [lambda: native.Semaphore(name).close()],
            'shm': [lambda: None],
            'mq': [lambda: native.Queue(name, os.O_RDONLY).close(), lambda: native.Queue(name, os.O_WRONLY).close()]}
    for way in ways[kind]:
        try:
            way()
            return True
        except PermissionError:
            pass
    return False


def known(file):
    """The attributes that the caller may have; others must be EACCES."""
    found = set()
    for name in os.listxattr(file):
        try:
            os.getxattr(file, name)
            found.add(name.replace('user.ipcfs.', ''))
        except OSError as error:
            assert error.errno == errno.EACCES
    return found


def view_is_open(mnt, kind, name):
    try:
        return bool(stat_view(mnt, kind, name))
    except OSError as error:
        assert error.errno == errno.EACCES
        return False


@pytest.mark.parametrize('kind', NAMES)
@pytest.mark.parametrize('user', [OWNER, OTHER])
@pytest.mark.parametrize('held', [False, True], ids=['', 'held open'])
def test_attributes_that_need_opening_are_for_those_who_may_open(mnt, name, child, kind, user, held):
    native.CREATE[kind](name)
    path = mnt / kind / name
    if held:
        os.open(path, os.O_RDWR)
        os.open(mnt / f'{kind}@stat' / name, os.O_RDONLY)
    os.chown(path, OWNER, OWNER)
    for mode in MODES:
        os.chmod(path, mode)
        allowed = child(may_open, kind, name, user=user).result()
        assert child(known, path, user=user).result() == NAMES[kind] - (set() if allowed else FOR_OPENERS[kind]), oct(mode)
        assert child(view_is_open, mnt, kind, name, user=user).result() == (allowed or kind == 'shm'), oct(mode)


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_inherited_descriptor_tells_no_more_than_the_native_rights(mnt, name, child, kind):
    """The open file is root's: another user who holds it learns what opening would tell it, and no more."""
    native.CREATE[kind](name)
    fd = os.open(mnt / kind / name, os.O_RDWR)
    assert known(fd) == NAMES[kind]
    assert child(known, fd, user=OTHER).result() == NAMES[kind] - FOR_OPENERS[kind]
    os.chmod(mnt / kind / name, 0o666)
    assert child(known, fd, user=OTHER).result() == NAMES[kind]


# After unlink

@pytest.mark.parametrize('kind', NAMES)
def test_open_file_has_them_after_the_object_is_removed(mnt, name, kind):
    native.CREATE[kind](name)
    path = mnt / kind / name
    fd = os.open(path, os.O_RDWR)
    before = xattrs(fd)
    native.UNLINK[kind](name)
    assert xattrs(fd) == before
    assert fails(errno.ENOENT, os.getxattr, path, 'user.ipcfs.mode')
    native.CREATE[kind](name, mode=0o640)  # another one of that name
    os.write(fd, b'1')
    changed = {'sem': ('value', '1'), 'shm': ('size', '1'), 'mq': ('current_messages', '1')}[kind]
    assert xattrs(fd)[changed[0]] == changed[1]
    assert xattrs(fd)['mode'] == before['mode']
    assert xattrs(path)[changed[0]] == '0'


# Harmless

def test_full_queue_is_left_as_it_is(mnt, queue, child):
    for number in range(4):
        queue.send(b'%d' % number, number)
    writer = child(write_once, mnt / 'mq' / queue.name, b'last')
    eventually(lambda: parked(mnt / 'mq' / queue.name, writer))
    for _ in range(20):
        assert everything(mnt, 'mq', queue.name)['current_messages'] == '4'
    assert writer.asleep
    assert [queue.receive() for _ in range(5)] == [(b'3', 3), (b'2', 2), (b'1', 1), (b'0', 0), (b'last', 0)]


def test_empty_queue_and_its_receivers_are_left_as_they_are(mnt, queue, child):
    reader, receiver = child(read_once, mnt / 'mq' / queue.name), child(queue.receive)
    eventually(lambda: parked(mnt / 'mq' / queue.name, reader))
    for _ in range(20):
        everything(mnt, 'mq', queue.name)
    assert reader.asleep and not receiver.finished
    queue.send(b'1')
    queue.send(b'1')
    assert (reader.result(), receiver.result()) == (b'1', (b'1', 0))


def test_held_semaphore_is_left_as_it_is(mnt, name, child):
    with native.create_semaphore(name) as semaphore:
        reader, waiter = child(read_once, mnt / 'sem' / name), child(semaphore.wait)
        eventually(lambda: parked(mnt / 'sem' / name, reader))
        for _ in range(20):
            assert everything(mnt, 'sem', name)['value'] == '0'
        assert reader.asleep and not waiter.finished
        semaphore.post(2)
        assert reader.result() == b'1\n'
        waiter.result()
        assert semaphore.value == 0


def wait_for_notification(queue, registered):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    queue.notify(signal.SIGUSR1)
    os.write(registered, b'.')
    return signal.sigtimedwait([signal.SIGUSR1], PATIENCE).si_pid


def test_native_registration_is_left_as_it_is(mnt, queue, child):
    ready, registered = os.pipe()
    waiter = child(wait_for_notification, queue, registered)
    os.read(ready, 1)
    for _ in range(20):
        assert everything(mnt, 'mq', queue.name)['notify_pid'] == str(waiter.pid)
    queue.send(b'')
    assert waiter.result() == os.getpid()
    os.close(ready), os.close(registered)


def test_registration_through_the_mount_is_left_as_it_is(mnt, queue, child):
    reader = child(read_once, mnt / 'mq@notify' / queue.name)
    eventually(lambda: notify_pid(mnt, queue) == reader.pid)
    for _ in range(20):
        assert everything(mnt, 'mq', queue.name)['notify_pid'] == str(reader.pid)
    queue.send(b'')
    assert reader.result() == b'%d %d\n' % (os.getpid(), os.getuid())


@pytest.mark.parametrize('kind, attributes', [
    ('shm', sorted(NAMES['shm'])), ('sem', ['mode', 'uid', 'gid', 'waiting']),
    ('mq', ['mode', 'uid', 'gid', 'waiting_receivers', 'current_messages', 'max_messages', 'max_message_size'])])
def test_what_needs_no_read_of_the_object_changes_no_time(mnt, name, kind, attributes):
    """As fstat and mq_getattr do not. The value of a semaphore is in its memory, and mapping it is an access."""
    native.CREATE[kind](name)
    os.utime(mnt / kind / name, (1, 2))
    before = (mnt / kind / name).stat()[7:]  # not native.stat, which maps a semaphore
    for attribute in attributes:
        os.getxattr(mnt / kind / name, f'user.ipcfs.{attribute}')
    assert (mnt / kind / name).stat()[7:] == before


@pytest.mark.parametrize('kind', NAMES)
def test_reading_them_leaves_no_descriptor_in_the_daemon(mount, name, kind):
    mounted = mount()
    native.CREATE[kind](name)
    held = lambda: len(os.listdir(f'/proc/{mounted.process.pid}/fd'))
    everything(mounted.path, kind, name)
    before = held()
    for _ in range(30):
        everything(mounted.path, kind, name)
    eventually(lambda: held() <= before)


def test_removed_stat_view_goes_on_or_says_that_it_is_gone(mnt, queue):
    use(mnt / 'mq@stat' / queue.name, os.O_RDONLY, lambda fd: os.read(fd, 8192))
    fd = os.open(mnt / 'mq@stat' / queue.name, os.O_RDONLY)
    native.mq_unlink(queue.name)
    try:
        assert os.read(fd, 8192).startswith(b'mode 0600\n')
    except OSError as error:
        assert error.errno == errno.ESTALE

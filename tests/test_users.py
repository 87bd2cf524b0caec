"""Other users have the rights that native calls give them, no more and no fewer."""

import os
import stat

import pytest

import native

OWNER, GROUP, MEMBER, OTHER = 54321, 54400, 54322, 54323
USERS = {
    'root': dict(user=0, group=0),
    'owner': dict(user=OWNER, group=OWNER),
    'owner in the group': dict(user=OWNER, group=OWNER, groups=[GROUP]),
    'member by group': dict(user=MEMBER, group=GROUP),
    'member by list': dict(user=MEMBER, group=MEMBER, groups=[GROUP]),
    'other': dict(user=OTHER, group=OTHER),
}
MODES = [0o600, 0o640, 0o644, 0o660, 0o666, 0o620, 0o606, 0o400, 0o200, 0o044, 0o000]

def use(fd, operation):
    try:
        operation(fd)
    finally:
        os.close(fd)


def file_operation(flags, operation=lambda fd: None):
    return lambda folder, name: use(os.open(folder / name, flags | os.O_NONBLOCK), operation)


def semaphore_operation(flags, operation=lambda semaphore: None):
    def run(name):
        with native.Semaphore(name, flags) as semaphore:
            operation(semaphore)
    return run


def segment_operation(flags, operation=lambda fd: None):
    return lambda name: use(native.shm_open(name, flags), operation)


def queue_operation(flags, operation=lambda queue: None):
    def run(name):
        with native.Queue(name, flags | os.O_NONBLOCK) as queue:
            operation(queue)
    return run


def read(fd):
    os.read(fd, 10)


def write(fd):
    os.write(fd, b'1')


def remove(folder, name):
    os.unlink(folder / name)


# By kind and operation: the native call and the same through the file. Both raise OSError where it is not permitted.
OPERATIONS = {
    'sem': {
        'read': (semaphore_operation(0, native.Semaphore.trywait), file_operation(os.O_RDONLY, read)),
        'write': (semaphore_operation(0, native.Semaphore.post), file_operation(os.O_WRONLY, write)),
        'open to create': (semaphore_operation(os.O_CREAT), file_operation(os.O_RDWR | os.O_CREAT)),
        'remove': (native.sem_unlink, remove),
    },
    'shm': {
        'read': (segment_operation(os.O_RDONLY, read), file_operation(os.O_RDONLY, read)),
        'write': (segment_operation(os.O_RDWR, write), file_operation(os.O_RDWR, write)),
        'truncate': (segment_operation(os.O_RDWR | os.O_TRUNC), file_operation(os.O_RDWR | os.O_TRUNC)),
        'remove': (native.shm_unlink, remove),
    },
    'mq': {
        'read': (queue_operation(os.O_RDONLY, native.Queue.receive), file_operation(os.O_RDONLY, read)),
        'write': (queue_operation(os.O_WRONLY, lambda queue: queue.send(b'1')), file_operation(os.O_WRONLY, write)),
        'both': (queue_operation(os.O_RDWR), file_operation(os.O_RDWR)),
        'open to create': (queue_operation(os.O_RDWR | os.O_CREAT), file_operation(os.O_RDWR | os.O_CREAT)),
        'remove': (native.mq_unlink, remove),
    },
}


def answer(operation, *arguments):
    """'yes', or the class of the exception: libc itself turns EPERM into EACCES in sem_unlink and shm_unlink."""
    try:
        operation(*arguments)
    except OSError as failure:
        return type(failure).__name__
    return 'yes'


def make(kind, name, mode):
    """An object of OWNER and GROUP, with something in it."""
    if kind == 'sem':
        native.create_semaphore(name, 1).close()
        path = f'/dev/shm/sem.{name}'
    elif kind == 'shm':
        path = f'/dev/shm/{name}'
        with open(path, 'w') as file:
            file.write('content')
    else:
        with native.create_queue(name, 2, 8) as queue:
            queue.send(b'content')
            os.fchown(queue.descriptor, OWNER, GROUP)
            os.fchmod(queue.descriptor, mode)
        return
    os.chown(path, OWNER, GROUP)
    os.chmod(path, mode)


@pytest.mark.parametrize('identity', USERS)
@pytest.mark.parametrize('kind', ['sem', 'shm', 'mq'])
def test_rights_are_those_of_the_native_calls(mnt, names, child, kind, identity):
    natively, by_file = names(), names()
    objects = [(operation, mode) for operation in OPERATIONS[kind] for mode in MODES]
    for number, (_, mode) in enumerate(objects):
        make(kind, f'{natively}{number}', mode)
        make(kind, f'{by_file}{number}', mode)

    def answers():
        expected, seen = {}, {}
        for number, (operation, mode) in enumerate(objects):
            native_call, file_call = OPERATIONS[kind][operation]
            expected[operation, f'{mode:04o}'] = answer(native_call, f'{natively}{number}')
            seen[operation, f'{mode:04o}'] = answer(file_call, mnt / kind, f'{by_file}{number}')
        return expected, seen
    expected, seen = child(answers, **USERS[identity]).result()
    assert seen == expected
    assert set(expected.values()) == ({'yes'} if identity == 'root' else {'yes', 'PermissionError'})


@pytest.mark.parametrize('kind', ['sem', 'shm', 'mq'])
def test_created_object_belongs_to_its_creator(mnt, name, child, kind):
    path = mnt / kind / name
    child(path.touch, user=OWNER, group=GROUP).result()
    status = native.stat(kind, name)
    assert (status.st_uid, status.st_gid) == (path.stat().st_uid, path.stat().st_gid) == (OWNER, GROUP)


@pytest.mark.parametrize('identity, allowed', [('root', True), ('owner', True), ('member by group', False),
                                               ('other', False)])
@pytest.mark.parametrize('kind', ['sem', 'shm', 'mq'])
def test_mode_and_times_are_the_owners_to_change(mnt, name, child, kind, identity, allowed):
    make(kind, name, 0o666)
    path = mnt / kind / name
    for change in lambda: path.chmod(0o622), lambda: os.utime(path, (0, 0)):
        assert child(answer, change, **USERS[identity]).result() == ('yes' if allowed else 'PermissionError')
    assert stat.S_IMODE(native.stat(kind, name).st_mode) == (0o622 if allowed else 0o666)


@pytest.mark.parametrize('kind', ['sem', 'shm', 'mq'])
def test_only_root_gives_objects_away(mnt, name, child, kind):
    make(kind, name, 0o666)
    path = mnt / kind / name
    give = lambda: os.chown(path, OTHER, -1)
    assert child(answer, give, **USERS['owner']).result() == 'PermissionError'
    assert child(answer, give, **USERS['other']).result() == 'PermissionError'
    to_the_group = lambda: os.chown(path, -1, GROUP)
    assert child(answer, to_the_group, **USERS['owner in the group']).result() == 'yes'
    assert child(answer, give, **USERS['root']).result() == 'yes'
    assert native.stat(kind, name).st_uid == OTHER


def test_access_answers_as_the_operation_would(mnt, name, child):
    for kind in 'sem', 'shm', 'mq':
        make(kind, name, 0o640)
        for identity, rights in ('owner', (True, True)), ('member by list', (True, False)), ('other', (False, False)):
            access = child(lambda: (os.access(mnt / kind / name, os.R_OK), os.access(mnt / kind / name, os.W_OK)),
                           **USERS[identity])
            assert access.result() == rights


def test_open_file_keeps_its_rights_after_a_change_of_user(mnt, name, child):
    """As descriptors do: what counts is who opened."""
    make('mq', name, 0o600)

    def receive_as_another():
        fd = os.open(mnt / 'mq' / name, os.O_RDONLY)
        os.setresgid(OTHER, OTHER, OTHER)
        os.setresuid(OTHER, OTHER, OTHER)
        return os.read(fd, 10)
    assert child(receive_as_another).result() == b'content'


def test_rename_and_truncate_are_checked_too(mnt, names, child):
    name, new = names(), names()
    make('shm', name, 0o644)
    old_path, new_path = mnt / 'shm' / name, mnt / 'shm' / new
    assert child(answer, old_path.rename, new_path, **USERS['other']).result() == 'PermissionError'
    assert child(answer, os.truncate, old_path, 0, **USERS['other']).result() == 'PermissionError'
    assert old_path.read_bytes() == b'content'
    assert child(answer, old_path.rename, new_path, **USERS['owner']).result() == 'yes'

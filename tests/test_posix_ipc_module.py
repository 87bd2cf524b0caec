"""contrib/python as a whole: how it is found, installed and mounted, its constants, exceptions and unlink functions.

The behaviours are those that posix_ipc's documentation (USAGE.md, history.md) states. The fixture `posix_ipc` serves
the other tests/test_posix_ipc_*.py too.
"""

import gc
import importlib.util
import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest

import native

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'contrib' / 'python'


@pytest.fixture
def posix_ipc(mnt, monkeypatch):
    """The module, on a mount of its own."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv('IPCFS_MOUNT', str(mnt))
    yield importlib.import_module('posix_ipc')
    gc.collect()  # semaphores hold files of the mount


def python(program, *arguments, folder=FOLDER, mount=None):
    """What a program prints that runs with a folder on PYTHONPATH and a mount in IPCFS_MOUNT."""
    environment = {**os.environ, 'PYTHONPATH': str(folder), 'PYTHONDONTWRITEBYTECODE': '1'}
    if mount:
        environment['IPCFS_MOUNT'] = str(mount)
    else:
        environment.pop('IPCFS_MOUNT', None)
    result = subprocess.run([sys.executable, '-c', program, *map(str, arguments)], env=environment,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# How it is found

def test_both_imports_are_one_module():
    assert python('import posix_ipc, ipcfs.posix_ipc; print(posix_ipc is ipcfs.posix_ipc)') == 'True'


def test_import_needs_no_mount_and_no_ctypes():
    assert python('import posix_ipc, sys; print("ctypes" in sys.modules)', mount='/nowhere') == 'False'


def test_constants_can_be_imported_by_name_and_by_star(mnt):
    assert python('from posix_ipc import *\n'
                  'from posix_ipc import QUEUE_PRIORITY_MAX as imported\n'
                  'print(QUEUE_PRIORITY_MAX == imported, O_CREX, SEMAPHORE_VALUE_SUPPORTED)',
                  mount=mnt) == f'True {os.O_CREAT | os.O_EXCL} True'


def test_unknown_attribute(posix_ipc):
    assert not hasattr(posix_ipc, 'QUEUE_MESSAGES_MAX')


def test_pip_installs_it_without_network_and_leaves_nothing_behind(mnt, name, tmp_path):
    for tool in 'pip', 'setuptools', 'wheel':
        if not importlib.util.find_spec(tool):
            pytest.skip(f'{sys.executable} has no {tool}')
    before = sorted(FOLDER.rglob('*'))
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-build-isolation',
                    '--no-cache-dir', '--root-user-action=ignore', '--target', tmp_path, FOLDER], check=True)
    assert sorted(FOLDER.rglob('*')) == before
    assert python('import ipcfs.posix_ipc as posix_ipc, sys\n'
                  'semaphore = posix_ipc.Semaphore(sys.argv[1], posix_ipc.O_CREX, initial_value=3)\n'
                  'print(posix_ipc.__file__, semaphore.value)', f'/{name}', folder=tmp_path,
                  mount=mnt) == f'{tmp_path}/ipcfs/posix_ipc.py 3'
    assert not (tmp_path / 'posix_ipc.py').exists()


# The mount

CREATE = 'import posix_ipc, sys; posix_ipc.Semaphore(sys.argv[1], posix_ipc.O_CREX)'


def test_mount_is_found_in_the_mount_table(mnt, name):
    python(CREATE, f'/{name}')
    native.Semaphore(name).close()


def test_dead_mount_is_passed_over(mount, name):
    dead = mount()
    dead.process.kill()
    dead.process.wait()
    alive = mount()
    python(CREATE, f'/{name}')
    native.Semaphore(name).close()
    assert alive.mounted


def test_mount_with_a_space_in_its_path(mnt, name, tmp_path):
    folder = tmp_path / 'a b\\c'
    folder.mkdir()
    subprocess.run(['mount', '--bind', mnt, folder], check=True)
    try:
        program = 'from ipcfs import mount; print(*mount.mounted(), sep="\\n")'
        assert str(folder) in python(program).splitlines()
    finally:
        subprocess.run(['umount', folder], check=True)


def test_without_a_mount_the_error_says_what_to_do():
    program = ('import posix_ipc\n'
               'try: posix_ipc.Semaphore("/a")\n'
               'except posix_ipc.Error as error: print(type(error).__name__, error)')
    unmounted = subprocess.run(['unshare', '--mount', 'sh', '-c', 'umount -a -t fuse.ipcfs; exec "$@"', 'sh',
                                sys.executable, '-c', program], capture_output=True, text=True,
                               env={'PYTHONPATH': str(FOLDER), 'PYTHONDONTWRITEBYTECODE': '1'})
    assert unmounted.stdout.startswith('Error no ipcfs is mounted') and 'IPCFS_MOUNT' in unmounted.stdout
    assert python(program, mount='/tmp').startswith('Error IPCFS_MOUNT=/tmp: no ipcfs is mounted there')


# Constants

def test_flags(posix_ipc):
    for flag in 'O_CREAT', 'O_EXCL', 'O_TRUNC', 'O_RDONLY', 'O_WRONLY', 'O_RDWR', 'O_NONBLOCK':
        assert getattr(posix_ipc, flag) == getattr(os, flag)
    assert posix_ipc.O_CREX == posix_ipc.O_CREAT | posix_ipc.O_EXCL


def test_limits_are_the_systems(posix_ipc):
    assert posix_ipc.PAGE_SIZE == resource.getpagesize()
    assert posix_ipc.SEMAPHORE_TIMEOUT_SUPPORTED is True
    assert posix_ipc.SEMAPHORE_VALUE_SUPPORTED is True
    assert posix_ipc.MESSAGE_QUEUES_SUPPORTED is True
    assert posix_ipc.SEMAPHORE_VALUE_MAX == os.sysconf('SC_SEM_VALUE_MAX') == native.SEM_VALUE_MAX
    assert posix_ipc.QUEUE_PRIORITY_MAX == native.MQ_PRIO_MAX - 1
    assert (posix_ipc.USER_SIGNAL_MIN, posix_ipc.USER_SIGNAL_MAX) == (signal.SIGRTMIN, signal.SIGRTMAX)


def test_queue_defaults_are_those_of_a_new_queue(posix_ipc, name):
    with native.Queue(name, os.O_CREAT | os.O_RDWR) as queue:
        assert posix_ipc.QUEUE_MESSAGES_MAX_DEFAULT == queue.attributes.max_messages
        assert posix_ipc.QUEUE_MESSAGE_SIZE_MAX_DEFAULT == queue.attributes.max_message_size


def test_version(posix_ipc):
    assert posix_ipc.VERSION == posix_ipc.__version__
    assert posix_ipc.VERSION.startswith('1.3')


# Exceptions

def test_exceptions_have_one_base(posix_ipc):
    assert issubclass(posix_ipc.Error, Exception)
    for error in 'SignalError', 'PermissionsError', 'ExistentialError', 'BusyError':
        assert getattr(posix_ipc, error).__bases__ == (posix_ipc.Error,)


# What the three classes share

KINDS = {'Semaphore': 'sem', 'SharedMemory': 'shm', 'MessageQueue': 'mq'}
each_class = pytest.mark.parametrize('class_name', KINDS)
UNLINK = {'Semaphore': 'unlink_semaphore', 'SharedMemory': 'unlink_shared_memory',
          'MessageQueue': 'unlink_message_queue'}


@each_class
def test_unlink_function(posix_ipc, mnt, name, class_name):
    unlink = getattr(posix_ipc, UNLINK[class_name])
    getattr(posix_ipc, class_name)(f'/{name}', posix_ipc.O_CREX)
    assert unlink(f'/{name}') is None
    assert not (mnt / KINDS[class_name] / name).exists()
    with pytest.raises(posix_ipc.ExistentialError, match=name):
        unlink(f'/{name}')


@each_class
def test_unlink_function_takes_names_only(posix_ipc, class_name):
    unlink = getattr(posix_ipc, UNLINK[class_name])
    with pytest.raises(TypeError):
        unlink(None)
    for impossible in '', '/', '/.', '/..', '/a/b', '/../limits':
        with pytest.raises(posix_ipc.ExistentialError):
            unlink(impossible)
    with pytest.raises(ValueError):
        unlink('/' + 'n' * 300)


@each_class
def test_name_none_chooses_an_unused_one(posix_ipc, mnt, class_name):
    handles = [getattr(posix_ipc, class_name)(None, posix_ipc.O_CREX) for _ in range(5)]
    try:
        assert len({handle.name for handle in handles}) == 5
        for handle in handles:
            assert handle.name[0] == '/' and len(handle.name) >= 2
            assert (mnt / KINDS[class_name] / handle.name[1:]).exists()
    finally:
        for handle in handles:
            handle.unlink()


@each_class
def test_name_none_tries_again_when_the_name_is_taken(posix_ipc, name, class_name, monkeypatch):
    names = iter([name, f'{name}b'])
    monkeypatch.setattr('secrets.token_hex', lambda *_: next(names))
    create = getattr(posix_ipc, class_name)
    create(f'/{name}', posix_ipc.O_CREX)
    assert create(None, posix_ipc.O_CREX).name == f'/{name}b'


@each_class
def test_flags_that_contradict(posix_ipc, name, class_name):
    create = getattr(posix_ipc, class_name)
    for wrong in (None,), (None, posix_ipc.O_CREAT), (f'/{name}', posix_ipc.O_EXCL):
        with pytest.raises(ValueError):
            create(*wrong)


@each_class
def test_name_as_bytes_is_str_afterwards(posix_ipc, name, class_name):
    handle = getattr(posix_ipc, class_name)(f'/{name}'.encode(), posix_ipc.O_CREX)
    assert handle.name == f'/{name}'
    getattr(posix_ipc, UNLINK[class_name])(f'/{name}'.encode())


@each_class
def test_name_is_not_only_ascii(posix_ipc, mnt, name, class_name):
    getattr(posix_ipc, class_name)(f'/{name}é ü', posix_ipc.O_CREX)
    assert f'{name}é ü' in os.listdir(mnt / KINDS[class_name])


@each_class
def test_bad_names(posix_ipc, class_name):
    create = getattr(posix_ipc, class_name)
    for impossible in '', '/', '/.', '/..', '/a/b', '/../limits', '/' + 'n' * 300, '/a\0b':
        with pytest.raises(ValueError):
            create(impossible, posix_ipc.O_CREAT)
    for wrong in 5, ['/a'], bytearray(b'/a'):
        with pytest.raises(TypeError):
            create(wrong, posix_ipc.O_CREAT)
    with pytest.raises(TypeError):
        create()


def test_slashes_before_a_name_are_as_in_the_c_functions(posix_ipc, name):
    posix_ipc.Semaphore(name, posix_ipc.O_CREX)
    native.Semaphore(name).close()
    posix_ipc.SharedMemory(f'//{name}', posix_ipc.O_CREX)
    os.close(native.shm_open(name))
    for wrong in name, f'//{name}':
        with pytest.raises(ValueError):
            posix_ipc.MessageQueue(wrong, posix_ipc.O_CREX)


@each_class
def test_o_creat_opens_what_exists(posix_ipc, mnt, name, class_name):
    create = getattr(posix_ipc, class_name)
    create(f'/{name}', posix_ipc.O_CREAT)
    path = mnt / KINDS[class_name] / name
    made = path.stat()
    create(f'/{name}', posix_ipc.O_CREAT, 0o666)
    create(f'/{name}')
    assert (path.stat().st_ino, path.stat().st_mode) == (made.st_ino, made.st_mode)
    with pytest.raises(posix_ipc.ExistentialError, match='exists already'):
        create(f'/{name}', posix_ipc.O_CREAT | posix_ipc.O_EXCL)


@each_class
def test_no_flags_open_only_what_exists(posix_ipc, mnt, name, class_name):
    with pytest.raises(posix_ipc.ExistentialError, match='does not exist'):
        getattr(posix_ipc, class_name)(f'/{name}')
    assert not (mnt / KINDS[class_name] / name).exists()


@each_class
def test_mode_of_a_created_object_less_the_umask(posix_ipc, mnt, name, class_name):
    create = getattr(posix_ipc, class_name)
    assert create(f'/{name}', posix_ipc.O_CREX).mode == 0o600
    before = os.umask(0o027)
    try:
        assert create(f'/{name}b', posix_ipc.O_CREX, 0o666).mode == 0o666
    finally:
        os.umask(before)
    folder = mnt / KINDS[class_name]
    assert [(folder / each).stat().st_mode & 0o7777 for each in (name, f'{name}b')] == [0o600, 0o640]


@each_class
def test_permissions(posix_ipc, name, class_name, child):
    create = getattr(posix_ipc, class_name)
    create(f'/{name}', posix_ipc.O_CREX)
    for forbidden in (create, f'/{name}'), (getattr(posix_ipc, UNLINK[class_name]), f'/{name}'):
        with pytest.raises(posix_ipc.PermissionsError):
            child(*forbidden, user=1000).result()


@each_class
def test_read_only_attributes(posix_ipc, name, class_name):
    handle = getattr(posix_ipc, class_name)(f'/{name}', posix_ipc.O_CREX)
    attributes = {'Semaphore': 'name mode value', 'SharedMemory': 'name mode fd size',
                  'MessageQueue': 'name mode mqd max_messages max_message_size current_messages'}
    for attribute in attributes[class_name].split():
        before = getattr(handle, attribute)
        with pytest.raises((AttributeError, TypeError)):
            setattr(handle, attribute, before)
        assert getattr(handle, attribute) == before
    with pytest.raises(AttributeError):
        handle.no_such_attribute = 1


@each_class
def test_str_and_repr(posix_ipc, name, class_name):
    handle = getattr(posix_ipc, class_name)(f'/{name}', posix_ipc.O_CREX, 0o640)
    assert str(handle) == f'/{name}'
    assert repr(handle).startswith(f'posix_ipc.{class_name}("/{name}", mode=0640')
    assert repr(handle).endswith(')')


@each_class
def test_handles_are_not_copied_or_pickled(posix_ipc, name, class_name):
    import copy
    import pickle
    handle = getattr(posix_ipc, class_name)(f'/{name}', posix_ipc.O_CREX)
    for duplicate in copy.copy, copy.deepcopy, pickle.dumps:
        with pytest.raises(TypeError):
            duplicate(handle)


@each_class
def test_classes_can_be_derived_from(posix_ipc, name, class_name):
    class Derived(getattr(posix_ipc, class_name)):
        def __init__(self):
            super().__init__(f'/{name}', posix_ipc.O_CREX)
            self.label = 'mine'
    assert (Derived().name, Derived.__base__.__name__) == (f'/{name}', class_name)


@each_class
def test_out_of_descriptors_is_an_oserror(posix_ipc, name, class_name):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    create = getattr(posix_ipc, class_name)
    create(f'/{name}', posix_ipc.O_CREX)
    posix_ipc.PAGE_SIZE  # whatever must be loaded for the first use
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError):
            create(f'/{name}')
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

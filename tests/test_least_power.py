"""What root's daemon can still do once the mount is there, and what others can see of it."""

import os
import pathlib
import re
import subprocess
import tempfile

import pytest

import native
from conftest import BUILD, OPTIONS, PATIENCE, PREFIX, eventually, mount_points, proc, threads
from test_command import daemons_on
from test_users import OTHER

# Of linux/capability.h.
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID = range(8)
SYS_PTRACE, SYS_ADMIN, SYS_RESOURCE = 19, 21, 24

SERVING = {SETUID, SETGID, KILL, SYS_PTRACE, SYS_ADMIN}
LENT = {CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SYS_RESOURCE}

SECRET = 'secret-of-who-mounted'
GROUP = 54401
BLIND = ['setpriv', '--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace']  # root who may not look into others


def rights_in(status):
    """The capability sets in a status file of /proc."""
    masks = {key: int(mask, 16) for key, mask in re.findall(r'^Cap(\w+):\t(\w+)$', status, re.M)}
    return {key: {number for number in range(64) if mask >> number & 1} for key, mask in masks.items()}


def rights(pid, thread=None):
    return rights_in(proc(pid, 'status', thread))


KEPT = (SERVING | LENT) & rights(os.getpid())['Prm']  # in a container, root may have less to begin with


@pytest.fixture
def folder(nothing_left):
    """A place to mount on that all can reach, free again at the end."""
    parent = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir='/tmp'))
    parent.chmod(0o755)
    folder = parent / 'ipc'
    folder.mkdir()
    yield folder
    if str(folder) in mount_points():
        subprocess.run(['umount', '-l', folder])
    folder.rmdir()
    parent.rmdir()


@pytest.fixture(params=['foreground', 'background'])
def start(request, folder, children):
    """start(*command) has the command start a daemon there, whose process id it returns."""
    options = [*(['-o', OPTIONS] if OPTIONS else []), *(['-f'] if request.param == 'foreground' else [])]
    started = []

    def begin(*command):
        started.append(subprocess.Popen([*command, BUILD / 'ipcfs', *options, folder]))
        if request.param == 'background':
            assert started[0].wait(PATIENCE) == 0
        eventually(lambda: str(folder) in mount_points())
        [pid] = daemons_on(folder)
        return pid
    yield begin
    children.kill()
    eventually(lambda: subprocess.run(['umount', folder], capture_output=True).returncode == 0)
    assert started[0].wait(PATIENCE) == 0
    eventually(lambda: not daemons_on(folder))


@pytest.fixture
def notifier_of(folder, name, child):
    """notifier_of(daemon) is the daemon's second process, which has its notifications from the kernel."""
    def begin(daemon):
        (folder / 'mq' / name).touch()
        child(lambda: (folder / 'mq@notify' / name).read_bytes())

        def find():
            for thread in threads(daemon):
                for pid in proc(daemon, 'children', thread).split():
                    if proc(pid, 'comm') == 'ipcfs-notify\n':
                        return int(pid)
        return eventually(find)
    return begin


@pytest.fixture
def daemon(start, folder, name, child):
    """A daemon that has served root and another user."""
    pid = start()
    (folder / 'sem' / name).touch()
    child(lambda: (folder / 'shm' / name).write_bytes(b'x'), user=OTHER).result()
    return pid


@pytest.fixture
def notifier(daemon, notifier_of):
    return notifier_of(daemon)


def test_each_thread_keeps_the_capabilities_that_it_uses_and_no_others(daemon):
    assert len(threads(daemon)) > 1
    for thread in threads(daemon):
        found = rights(daemon, thread)
        assert found['Prm'] == found['Bnd'] == KEPT
        assert found['Inh'] == found['Amb'] == set()
        assert SERVING & KEPT <= found['Eff'] <= KEPT
    assert rights(daemon)['Eff'] == SERVING & KEPT  # the main thread, which acts for nobody


def test_notifier_keeps_no_capability(notifier):
    nothing = {key: set() for key in ('Inh', 'Prm', 'Eff', 'Amb')}
    assert [rights(notifier, thread) for thread in threads(notifier)] == [nothing | {'Bnd': KEPT}]


def test_nothing_more_can_be_gained(daemon, notifier):
    """By programs that are set-user-ID or have file capabilities."""
    for pid in daemon, notifier:
        for thread in threads(pid):
            assert '\nNoNewPrivs:\t1\n' in proc(pid, 'status', thread)


def test_no_core_is_dumped(daemon, notifier):
    for pid in daemon, notifier:
        [line] = [line for line in proc(pid, 'limits').splitlines() if line.startswith('Max core file size')]
        assert line.split()[4:6] == ['0', '0']


def test_environment_of_who_mounted_is_forgotten(monkeypatch, start, notifier_of):
    monkeypatch.setenv('SECRET', SECRET)
    daemon = start()
    for pid in daemon, notifier_of(daemon):
        environment = pathlib.Path(f'/proc/{pid}/environ').read_bytes()
        assert SECRET.encode() not in environment
        assert environment.strip(b'\0') == b''


def test_nobody_looks_into_it_without_a_capability_for_that(start, notifier_of):
    """A process that is not dumpable (PR_SET_DUMPABLE) takes CAP_SYS_PTRACE, also where all capabilities that it has
    would do otherwise. Before it has served another user, as setfsuid(2) makes it such a process as well."""
    def answer(pid):
        return subprocess.run([*BLIND, 'readlink', f'/proc/{pid}/cwd'], capture_output=True, text=True).stdout
    daemon = start(*BLIND)
    with subprocess.Popen([*BLIND, 'cat'], stdin=subprocess.PIPE, cwd='/') as other:
        eventually(lambda: proc(other.pid, 'comm') == 'cat\n')
        assert answer(other.pid) == '/\n'
        other.stdin.close()
    assert answer(daemon) == ''
    assert answer(notifier_of(daemon)) == ''


def test_groups_of_who_mounted_give_nobody_rights(start, folder, name, child):
    start('setpriv', f'--groups={GROUP}')
    os.close(native.shm_open(name, os.O_CREAT | os.O_RDWR, 0o660))
    os.chown(f'/dev/shm/{name}', 0, GROUP)
    for path in f'/dev/shm/{name}', folder / 'shm' / name:
        with pytest.raises(PermissionError):
            child(lambda: os.close(os.open(path, os.O_RDONLY)), user=OTHER).result()


@pytest.mark.parametrize('kind', native.CREATE)
def test_group_of_who_mounted_is_not_that_of_new_objects(start, folder, name, kind):
    start('setpriv', f'--regid={GROUP}', '--clear-groups')
    (folder / kind / name).touch()
    assert native.stat(kind, name).st_gid == os.getgid()

"""The command: what it says, how it starts, and how it ends."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import native
from conftest import BUILD, NOBODY, PATIENCE, eventually, mount_points, open_files, parked, proc, threads

USER = 54321


@pytest.fixture
def ipcfs():
    """Run the command to its end."""
    def run(*arguments):
        return subprocess.run([BUILD / 'ipcfs', *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE)
    return run


@pytest.fixture
def folder(tmp_path):
    """A place to mount on, free again at the end."""
    folder = tmp_path / 'ipc'
    folder.mkdir()
    yield folder
    if str(folder) in mount_points():
        subprocess.run(['umount', '-l', folder])


def test_help_goes_to_stdout_and_names_the_options(ipcfs):
    done = ipcfs('--help')
    assert (done.returncode, done.stderr) == (0, '')
    assert 'ipcfs' in done.stdout and 'MOUNTPOINT' in done.stdout.upper()
    for option in '-f', '-d', '-o', '--help', '--version':
        assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert ipcfs('-h').stdout == done.stdout


def test_version(ipcfs):
    done = ipcfs('--version')
    assert (done.returncode, done.stderr) == (0, '')
    assert re.search(r'^ipcfs \S*\d+\.\d+', done.stdout)


def says(done, *words):
    """Whether the command failed with a message of its own, which holds these words."""
    assert done.returncode != 0
    assert done.stderr.startswith('ipcfs: ')
    for word in words:
        assert str(word) in done.stderr
    return True


def test_without_a_mount_point_it_says_so(ipcfs):
    assert says(ipcfs(), 'mount point')
    assert says(ipcfs('-f'), 'mount point')


def test_missing_mount_point_is_named(ipcfs, tmp_path):
    assert says(ipcfs('-f', tmp_path / 'missing'), tmp_path / 'missing', 'no such directory', 'mkdir')


def test_mount_point_that_is_no_directory_is_named(ipcfs, tmp_path):
    (tmp_path / 'file').touch()
    assert says(ipcfs('-f', tmp_path / 'file'), tmp_path / 'file', 'irectory')


def test_unknown_option_and_second_mount_point_are_refused(ipcfs, folder, tmp_path):
    assert says(ipcfs('--nonsense', folder), '--nonsense')
    assert says(ipcfs('-f', folder, tmp_path), tmp_path)
    assert str(folder) not in mount_points()


def daemons_on(folder):
    """The processes whose command line ends with this mount point."""
    found = []
    for process in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            command = (process / 'cmdline').read_bytes().split(b'\0')
        except OSError:
            continue
        if os.fsencode(folder) in command and b'ipcfs' in command[0]:
            found.append(int(process.name))
    return found


def test_it_goes_to_the_background_once_it_serves(ipcfs, folder, name):
    done = ipcfs(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert str(folder) in mount_points()
    native.create_semaphore(name, 1).close()
    assert (folder / 'sem' / name).read_bytes() == b'1\n'
    [daemon] = daemons_on(folder)
    assert os.getsid(daemon) == daemon != os.getsid(0)
    subprocess.run(['umount', folder], check=True)
    eventually(lambda: not daemons_on(folder))


def test_relative_mount_point_works(folder):
    subprocess.run([BUILD / 'ipcfs', folder.name], cwd=folder.parent, check=True, timeout=PATIENCE)
    assert (folder / 'sem').is_dir()
    subprocess.run(['umount', folder], check=True)
    eventually(lambda: not daemons_on(folder.name))


def test_mount_is_called_ipcfs(mnt):
    with open('/proc/self/mountinfo') as table:
        [line] = [line for line in table if line.split()[4] == str(mnt)]
    kind, source = line.split(' - ')[1].split()[:2]
    assert (kind, source) == ('fuse.ipcfs', 'ipcfs')


# The end

@pytest.fixture
def waiting(mount, names, child):
    """A mount and its users, each asleep in one operation of those that can block."""
    mounted = mount()
    semaphore, empty, full = names(), names(), names()
    native.create_semaphore(semaphore).close()
    native.create_queue(empty).close()
    with native.create_queue(full, max_messages=1) as queue:
        queue.send(b'filler')
    operations = {
        mounted.path / 'sem' / semaphore: pathlib.Path.read_bytes,
        mounted.path / 'mq' / empty: pathlib.Path.read_bytes,
        mounted.path / 'mq' / full: lambda path: path.write_bytes(b'waits'),
    }
    users = [child(operation, path) for path, operation in operations.items()]
    eventually(lambda: all(parked(path, user) for path, user in zip(operations, users)))
    return mounted, users, semaphore


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_it_cleanly_and_those_who_wait_get_an_error(waiting, number):
    mounted, users, semaphore = waiting
    mounted.process.send_signal(number)
    assert mounted.process.wait(timeout=PATIENCE) == 0
    for user in users:
        with pytest.raises(OSError):
            user.result()
    assert not mounted.mounted
    with native.Semaphore(semaphore) as semaphore:
        semaphore.post()
        assert semaphore.value == 1


def test_forced_unmount_ends_it_cleanly_and_those_who_wait_get_an_error(waiting):
    mounted, users, _ = waiting
    subprocess.run(['umount', '-f', mounted.path], capture_output=True)
    for user in users:
        with pytest.raises(OSError):
            user.result()
    assert mounted.process.wait(timeout=PATIENCE) == 0
    subprocess.run(['umount', mounted.path], capture_output=True)
    assert not mounted.mounted


def test_lazy_unmount_lets_those_who_wait_finish(waiting):
    mounted, users, semaphore = waiting
    subprocess.run(['umount', '-l', mounted.path], check=True)
    assert not mounted.mounted
    with native.Semaphore(semaphore) as semaphore:
        semaphore.post()
    assert users[0].result() == b'1\n'
    for user in users[1:]:
        user.kill()
    assert mounted.process.wait(timeout=PATIENCE) == 0


def test_unmount_is_refused_while_files_are_open(waiting):
    mounted, users, _ = waiting
    assert 'busy' in subprocess.run(['umount', mounted.path], capture_output=True, text=True).stderr
    assert all(user.asleep for user in users)


def test_signal_ends_it_cleanly_while_nobody_uses_it(mount):
    mounted = mount()
    mounted.process.send_signal(signal.SIGTERM)
    assert mounted.process.wait(timeout=PATIENCE) == 0
    assert not mounted.mounted


# Whom it serves

def test_mounted_by_root_it_serves_others(mnt, name, child):
    path = mnt / 'sem' / name

    def use():
        path.touch()
        path.write_bytes(b'2')
        assert path.read_bytes() == b'1\n'
        return path.stat().st_uid
    assert child(use, user=USER).result() == USER
    with native.Semaphore(name) as semaphore:
        assert semaphore.value == 1


def test_others_cannot_signal_the_daemon(mount, child):
    mounted = mount()
    with pytest.raises(PermissionError):
        child(os.kill, mounted.process.pid, signal.SIGTERM, user=USER).result()


USER_SESSION = '''
    import os, subprocess, sys, time
    ipcfs, point, name = sys.argv[1:]

    def mounted():
        return any(line.split()[4] == point for line in open('/proc/self/mountinfo'))

    daemon = subprocess.Popen([ipcfs, '-f', point])
    try:
        while not mounted() and daemon.poll() is None:
            time.sleep(0.01)
        assert mounted(), daemon.returncode
        for kind in 'sem', 'mq', 'shm':
            path = f'{point}/{kind}/{name}'
            open(path, 'x').close()
            os.write(os.open(path, os.O_RDWR), b'1')
            print(kind, os.read(os.open(path, os.O_RDWR), 10), os.stat(path).st_uid)
            assert name in os.listdir(f'{point}/{kind}') or kind == 'mq'
            os.unlink(path)
        os.closerange(3, 100)
        subprocess.run(['fusermount3', '-u', point], check=True)
    except BaseException:
        daemon.kill()
        raise
    print('status', daemon.wait())
'''


def test_mounted_by_an_ordinary_user_it_serves_that_user(as_nobody):
    folder, done = as_nobody(USER_SESSION)
    assert done.stderr == (f'ipcfs: {folder}: shm/ can be read and written, but not mapped with mmap(MAP_SHARED): '
                           'FUSE passthrough takes CAP_SYS_ADMIN\n')
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"sem b'1\\n' {NOBODY}", f"mq b'1' {NOBODY}", f"shm b'1' {NOBODY}", 'status 0']


@pytest.mark.parametrize('spin', ['', 'x', '-1', '1001', '1.5', '99999999999999999999'])
def test_spin_that_is_no_number_of_microseconds_is_refused(ipcfs, folder, spin):
    done = ipcfs('-o', f'spin={spin}', folder)
    assert done.returncode == 2
    assert done.stderr == f'ipcfs: spin={spin}: say how many microseconds, from 0 to 1000\n'
    assert not os.path.ismount(folder)


@pytest.mark.parametrize('awake', ['', 'x', '-1', '1.5', '99999999999999999999'])
def test_awake_that_is_no_number_of_cores_is_refused(ipcfs, folder, awake):
    done = ipcfs('-o', f'awake={awake}', folder)
    assert done.returncode == 2
    assert done.stderr == f'ipcfs: awake={awake}: say up to how many cores, or 0 for never\n'
    assert not os.path.ismount(folder)


LATENCY = pathlib.Path('/dev/cpu_dma_latency')


def latency_asked_for():
    """Microseconds: of all on the machine who ask for a latency of its cores, the least."""
    with open(LATENCY, 'rb', buffering=0) as file:
        return int.from_bytes(file.read(4), sys.byteorder)


@pytest.mark.skipif(not os.access(LATENCY, os.W_OK), reason='nobody can keep this kernel\'s cores awake')
@pytest.mark.parametrize('cores, may', [(None, os.cpu_count() <= 8), (0, False), (os.cpu_count() - 1, False),
                                        (os.cpu_count(), True)])
def test_cores_are_kept_awake_on_machines_with_so_many(mount, cores, may):
    mounted = mount(*(['-o', f'awake={cores}'] if cores is not None else []))
    assert (str(LATENCY) in open_files(mounted.process.pid)) == (may and os.cpu_count() > 1)


@pytest.mark.skipif(not os.access(LATENCY, os.W_OK), reason='nobody can keep this kernel\'s cores awake')
@pytest.mark.parametrize('end', ['rest', 'unmount', 'kill'])
def test_cores_may_sleep_when_nobody_calls(mount, name, end):
    """Whether it is worth it to keep them awake is the machine's matter; if they were, it is over."""
    mounted = mount('-o', f'awake={os.cpu_count()}')
    path = mounted.path / 'sem' / name
    path.touch()
    before = latency_asked_for()
    fd = os.open(path, os.O_RDWR)
    for _ in range(50000):
        os.pwrite(fd, b'1', 0)
        if latency_asked_for() < before:
            break
    else:
        pytest.skip('calls have not become quicker with cores that are kept awake, or somebody else keeps them so')
    os.close(fd)
    if end == 'unmount':
        mounted.stop()
    elif end == 'kill':
        mounted.kill()
    eventually(lambda: latency_asked_for() >= before, patience=5)


@pytest.mark.parametrize('spin', [0, 1000])
def test_idle_daemon_sleeps_however_long_it_spins(mount, name, spin):
    """Not one wake-up in a while, after it was busy."""
    mounted = mount('-o', f'spin={spin}')
    path = mounted.path / 'sem' / name
    path.touch()
    fd = os.open(path, os.O_RDWR)
    for _ in range(2000):
        os.pwrite(fd, b'1', 0)
    os.close(fd)
    switches = lambda: sum(int(number) for thread in threads(mounted.process.pid) for number in
                           re.findall(r'ctxt_switches:\s(\d+)', proc(mounted.process.pid, 'status', thread)))

    def unchanged():
        before = switches()
        time.sleep(0.5)
        return switches() == before
    eventually(unchanged)

"""contrib/systemd: what systemd makes of the unit, and how the daemon fares under it.

The systemd is this machine's own, booted in namespaces of its own with this unit and next to nothing else. Neither what
runs on the machine nor its objects are in sight of it.
"""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

import native
from conftest import BUILD, OPTIONS, PASSTHROUGH, PATIENCE, PREFIX, TESTS, eventually
from test_least_power import KEPT, rights_in
from test_users import GROUP, MEMBER, OTHER, OWNER

UNIT = TESTS.parent / 'contrib/systemd/ipcfs.service'
IPC = '/mnt/ipc'
SANITIZERS = 'ASAN_OPTIONS', 'TSAN_OPTIONS', 'UBSAN_OPTIONS'

# Stand-ins for those of systemd's units that ours names, and `boot`, which is booted into.
TARGETS = 'basic', 'boot', 'multi-user', 'remote-fs', 'shutdown', 'sysinit'

# sh -c BOOT sh FOLDER NAME is the first process in the namespaces, and becomes systemd.
BOOT = r'''
set -eu
umount --all --lazy --types fuse.ipcfs # other mounts' daemons shall not have to wait for us
mount --make-rshared /
mount -t tmpfs tmpfs /run
cp -R "$1" /run/test
mkdir /run/dev /run/dev/shm /run/dev/mqueue
for device in null zero full random urandom tty fuse; do
    touch /run/dev/$device
    mount --bind /dev/$device /run/dev/$device
done
ln -s /proc/self/fd /run/dev/fd
mount --rbind /run/dev /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs tmpfs /mnt
mount --bind /run/test/bin /usr/local/sbin
mount --bind -o ro /proc/sys /proc/sys
mount -t sysfs -o ro sysfs /sys

# systemd takes over the control group that is the root of its namespace, so that must be one of its own.
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/$2
mkdir "$group"
echo 0 >"$group/cgroup.procs"
umount /sys/fs/cgroup
exec unshare --cgroup sh -euc '
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec env -i container=ipcfs-tests PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        SYSTEMD_UNIT_PATH=/run/test/units /lib/systemd/systemd --unit=boot.target --log-target=console --show-status=no'
'''

REMOVE_CONTROL_GROUPS = r'''
mount -t cgroup2 cgroup2 /mnt
find "/mnt$(sed -n s/^0:://p /proc/self/cgroup)/$1" -depth -type d -exec rmdir {} +
'''


class System:
    """A running systemd, and what is around it."""

    def __init__(self):
        self.name = f'{PREFIX}systemd'
        self.log = tempfile.TemporaryFile('w+')
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir='/tmp') as folder:
            self.fill(pathlib.Path(folder))
            self.process = subprocess.Popen(
                ['unshare', '--mount', '--pid', '--ipc', '--uts', '--net', '--fork', '--kill-child', '--mount-proc',
                 'sh', '-c', BOOT, 'sh', folder, self.name],
                cwd='/', stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=native.die_with_parent)
            try:
                eventually(self.has_booted)
            except BaseException:
                self.end()
                raise

    @staticmethod
    def fill(folder):
        os.chmod(folder, 0o755)
        (folder / 'bin').mkdir()
        shutil.copy(BUILD / 'ipcfs', folder / 'bin')
        units = folder / 'units'
        settings = units / 'ipcfs.service.d/test.conf'
        settings.parent.mkdir(parents=True)
        (units / UNIT.name).write_bytes(UNIT.read_bytes())
        for target in TARGETS:
            (units / f'{target}.target').write_text('[Unit]\nDefaultDependencies=no\n')
        # A call that the filter forbids ends the daemon, so that none goes unseen.
        settings.write_text('[Service]\nStandardError=append:/run/stderr\nSystemCallErrorNumber=kill\n' + ''.join(
            f'Environment="{name}={os.environ[name]}:detect_leaks=0"\n' for name in SANITIZERS if name in os.environ) +
            (f'Environment="OPTIONS=-o {OPTIONS}"\n' if OPTIONS else ''))

    def has_booted(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            pytest.fail(f'systemd has not booted: {self.log.read()}', pytrace=False)
        return self.run('systemctl', 'is-active', 'boot.target').stdout == 'active\n'

    def end(self):
        """With it ends all that it has started."""
        self.process.kill()
        self.process.wait()
        remove = ['unshare', '--mount', 'sh', '-euc', REMOVE_CONTROL_GROUPS, 'sh', self.name]
        eventually(lambda: subprocess.run(remove, capture_output=True).returncode == 0)
        self.log.close()

    def enter(self, *command, user=None, groups=()):
        """The command in the namespaces."""
        pid = self.process.pid
        words = ['nsenter', f'--target={pid}', '--mount', '--ipc', '--uts', '--net', '--root', '--wd',
                 f'--pid=/proc/{pid}/ns/pid_for_children']
        if user is not None:
            words += ['setpriv', f'--reuid={user}', f'--regid={user}',
                      f'--groups={",".join(map(str, groups))}' if groups else '--clear-groups']
        return [*words, *map(str, command)]

    def run(self, *command, **identity):
        return subprocess.run(self.enter(*command, **identity), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=PATIENCE)

    def sh(self, script, **identity):
        """What the script prints; the failure of the test if it says anything else, or fails."""
        done = self.run('sh', '-euc', script, **identity)
        assert (done.stderr, done.returncode) == ('', 0)
        return done.stdout

    def begin(self, script, **identity):
        return subprocess.Popen(self.enter('sh', '-euc', script, **identity), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def systemctl(self, *words):
        done = self.run('systemctl', *words)
        assert (done.stderr, done.returncode) == ('', 0)

    def show(self, name):
        return self.run('systemctl', 'show', '--value', f'--property={name}', 'ipcfs').stdout.strip()

    def configure(self, *settings):
        """As `systemctl edit ipcfs`."""
        text = '\n'.join(['[Service]', *settings])
        self.sh(f"echo '{text}' >/run/test/units/ipcfs.service.d/tried.conf")
        self.systemctl('daemon-reload')

    def mounts(self):
        """Where ipcfs is mounted, for the machine's first process."""
        table = [line.split() for line in self.sh('cat /proc/1/mountinfo').splitlines()]
        return [line[4] for line in table if 'fuse.ipcfs' in line]


@pytest.fixture(scope='module')
def machine():
    system = System()
    yield system
    system.end()


@pytest.fixture
def system(machine):
    """The machine before the service is started; afterwards it is so again."""
    yield machine
    machine.sh('rm -f /run/test/units/ipcfs.service.d/tried.conf')
    machine.systemctl('daemon-reload')
    machine.systemctl('stop', 'ipcfs')
    result = machine.show('Result')
    machine.run('systemctl', 'reset-failed', 'ipcfs')
    machine.sh('rm -rf /run/stderr /dev/shm/* /dev/mqueue/*')
    assert result == 'success'
    assert machine.mounts() == []


@pytest.fixture
def started(system):
    """The machine with the service started."""
    system.systemctl('start', 'ipcfs')
    return system


@pytest.fixture
def begin(system):
    """begin(script) starts a script inside. With the test end the service, for which it may wait, and its input."""
    begun = []

    def start(script, **identity):
        begun.append(system.begin(script, **identity))
        return begun[-1]
    yield start
    system.systemctl('stop', 'ipcfs')
    for process in begun:
        process.communicate(timeout=PATIENCE)


# What systemd-analyze says

def test_unit_is_correct(system):
    done = system.run('systemd-analyze', 'verify', '--man=no', '/run/test/units/ipcfs.service')
    assert (done.stdout, done.stderr, done.returncode) == ('', '', 0)


def analyze_security(*options):
    return subprocess.run(['systemd-analyze', 'security', '--offline=true', *options, UNIT], capture_output=True,
                          text=True)


def test_exposure_is_ok_or_better():
    """As systemd-analyze calls what is below 5."""
    done = analyze_security('--no-pager', '--threshold=49')
    assert (done.stderr, done.returncode) == ('', 0), done.stdout.splitlines()[-1]


def test_comment_says_of_each_directive_that_stays_open_why():
    comments = ' '.join(line for line in UNIT.read_text().splitlines() if line.startswith('#'))
    named = set(re.findall(r'[A-Za-z]+=|@[a-z-]+|CAP_[A-Z_]+', comments))
    opened = {row['name'] for row in json.loads(analyze_security('--json=short').stdout) if row['exposure']}
    words = {re.match(r'SystemCallFilter=~(@.*)|([A-Za-z]+=)', name).expand(r'\1\2') for name in opened}
    capabilities = re.findall('CAP_[A-Z_]+', ' '.join(re.findall('^CapabilityBoundingSet=.*', UNIT.read_text(), re.M)))
    assert words | set(capabilities) <= named


# What it serves

def test_started_means_mounted_for_all(started):
    assert started.mounts() == [IPC]
    for user in None, OTHER:
        assert sorted(started.sh(f'ls {IPC}', user=user).split()) == [
            'README', 'limits', 'mq', 'mq@stat', 'sem', 'sem@stat', 'shm', 'shm@stat']
    assert f'SHARED_MEMORY_MMAP {PASSTHROUGH:d}' in started.sh(f'cat {IPC}/limits').splitlines()


def test_others_with_mount_namespaces_of_their_own_see_it(system, begin):
    """As services with PrivateTmp= and the like, which may have been started before; also after a restart."""
    other = begin('unshare --mount --propagation slave sh -c "echo; while read line; do tail -1 /mnt/ipc/limits; done"')

    def ask():
        other.stdin.write('\n')
        other.stdin.flush()
        return other.stdout.readline()
    assert other.stdout.readline() == '\n'
    for command in 'start', 'restart':
        system.systemctl(command, 'ipcfs')
        assert ask().startswith('VERSION ')


DEEDS = {
    'a queue is its maker\'s, with its umask': (
        'umask 027; echo job >mq/a; stat -c "%u %g %a" mq/a /dev/mqueue/a; cat mq/a',
        f'{OWNER} {OWNER} 640\n' * 2 + 'job\n'),
    'messages are counted, sorted and drained': (
        'touch mq/a; echo 1 >mq@priority=1/a; echo 2 >mq@priority=2/a; grep current mq@stat/a; cat mq@text,drain/a',
        'current_messages 2\n2\n1\n'),
    'a queue has the size that is asked for': (
        'touch mq@max_messages=2,max_message_size=8/a; grep max mq@stat/a', 'max_messages 2\nmax_message_size 8\n'),
    'a semaphore is posted and waited for': (
        'umask 077; touch sem@value=1/a; cat sem/a; echo 2 >sem/a; cd /dev/shm; stat -c "%u %a" sem.a; '
        f'grep value {IPC}/sem@stat/a',
        f'1\n{OWNER} 600\nvalue 2\n'),
    'a wait ends in time': (
        'touch sem/a; cd sem@timeout=0.01; cat a 2>&1 || echo $?', 'cat: a: Connection timed out\n1\n'),
    'a segment is a file': (
        'umask 022; truncate -s 1M shm/a; fallocate -l 2M shm/a; echo text >shm/b; cat shm/b >>shm/a; mv shm/a shm/c; '
        'touch -d @1 shm/c; stat -c "%u %a %s %Y" shm/c /dev/shm/c; tail -c 5 shm/c; rm shm/c; ls shm',
        f'{OWNER} 644 2097157 1\n' * 2 + 'text\nb\n'),
    'a segment can be set-user-ID': ('touch shm/a; chmod u+s shm/a; stat -c %a /dev/shm/a', '4644\n'),
    'a group is given that the owner is in': (
        f'touch shm/a; chgrp {GROUP} shm/a; stat -c %g /dev/shm/a', f'{GROUP}\n'),
    'a segment can\'t be given away': (
        'touch shm/a; chown 0 shm/a 2>&1 || echo $?',
        "chown: changing ownership of 'shm/a': Operation not permitted\n1\n"),
    'locks exclude': (
        'touch shm/a sem/a mq/a; for it in shm sem mq; do flock -x $it/a flock -nx $it/a true || echo $?; done',
        '1\n1\n1\n'),
    'attributes are read': ('truncate -s 5 shm/a; getfattr --only-values -n user.ipcfs.size shm/a', '5'),
    'notification comes as a signal': (
        'touch mq/a; trap "cat mq/a; exit" USR1; exec 3>mq@notify/a; echo USR1 >&3; echo told >mq/a; '
        'while sleep 0.01; do :; done', 'told\n'),
}


@pytest.mark.parametrize('deed', DEEDS)
def test_users_can_do_all(started, deed):
    script, printed = DEEDS[deed]
    assert started.sh(f'umask 022; cd {IPC}; {script}', user=OWNER, groups=[GROUP]) == printed


def test_users_are_kept_apart(started):
    make = f'umask 027; cd {IPC}; touch sem/a mq/a; echo text >shm/a; chgrp {GROUP} shm/a'
    started.sh(make, user=OWNER, groups=[GROUP])
    assert started.sh(f'cat {IPC}/shm/a', user=MEMBER, groups=[GROUP]) == 'text\n'
    for kind in 'sem', 'shm', 'mq':
        for deed in 'cat', 'rm -f', 'chmod 777':
            said = started.run(*deed.split(), f'{IPC}/{kind}/a', user=OTHER).stderr.strip()
            assert said.endswith(('Operation not permitted', 'Permission denied'))
    assert started.sh(f'cd {IPC}; cat shm/a; rm sem/a shm/a mq/a; ls sem shm mq') == 'text\nmq:\n\nsem:\n\nshm:\n'


MAP = """
import mmap, os
for path, other in ('/mnt/ipc/shm/a', '/dev/shm/a'), ('/dev/shm/a', '/mnt/ipc/shm/a'):
    maps = [mmap.mmap(os.open(name, os.O_RDWR), 4096) for name in (path, other)]
    maps[0][:5] = os.urandom(5)
    assert maps[0][:5] == maps[1][:5]
print('one memory')
"""


def test_mappings_are_of_one_memory(started):
    script = f'truncate -s 4096 {IPC}/shm/a; /usr/bin/python3 -c "{MAP}"'
    if PASSTHROUGH:
        assert started.sh(script, user=OWNER) == 'one memory\n'
    else:
        assert 'No such device' in started.run('sh', '-euc', script, user=OWNER).stderr


# What it is left with

def processes(system):
    """All that runs in the service's control group: process ids by name."""
    pids = system.sh('cat /sys/fs/cgroup/system.slice/ipcfs.service/cgroup.procs || true').split()
    return {system.sh(f'cat /proc/{pid}/comm').strip(): pid for pid in pids}


@pytest.fixture
def notifying(started, begin):
    """The service with both of its processes."""
    started.sh(f'touch {IPC}/mq/notifying')
    started.registered = begin(f'cat {IPC}/mq@notify/notifying')
    eventually(lambda: sorted(processes(started)) == ['ipcfs', 'ipcfs-notify'])
    return started


def test_processes_have_the_rights_that_they_use(notifying):
    for name, pid in processes(notifying).items():
        for thread in notifying.sh(f'ls /proc/{pid}/task').split():
            status = notifying.sh(f'cat /proc/{pid}/task/{thread}/status')
            assert '\nNoNewPrivs:\t1\n' in status and '\nSeccomp:\t2\n' in status
            found = rights_in(status)
            assert found['Bnd'] == KEPT
            assert found['Prm'] == (KEPT if name == 'ipcfs' else set())
            assert found['Inh'] == found['Amb'] == set()
        limits = notifying.sh(f'cat /proc/{pid}/limits')
        assert re.search('^Max core file size +0 +0 ', limits, re.M)
        assert notifying.sh(f"tr -d '\\0' </proc/{pid}/environ") == ''


def test_namespaces_are_the_machines_but_for_network_and_host_name(notifying):
    def namespaces(pid):
        return dict(zip(kinds, notifying.sh(f'cd /proc/{pid}/ns; readlink {" ".join(kinds)}').split()))
    kinds = 'mnt', 'ipc', 'pid', 'user', 'cgroup', 'net', 'uts'
    machines = namespaces(1)
    for pid in processes(notifying).values():
        own = namespaces(pid)
        assert {kind for kind in kinds if own[kind] != machines[kind]} == {'net', 'uts'}


# How it ends

def waiter(system, begin):
    """Somebody who waits on a semaphore, and says how that ended."""
    system.sh(f'touch {IPC}/sem/wanted; chmod 666 {IPC}/sem/wanted')
    process = begin(f'cat {IPC}/sem/wanted', user=OTHER)
    eventually(lambda: system.sh(f'grep waiting {IPC}/sem@stat/wanted') == 'waiting 1\n')
    return process


def was_cut_off(process):
    output, message = process.communicate(timeout=PATIENCE)
    reasons = [os.strerror(number) for number in (errno.ENOTCONN, errno.ECONNABORTED)]
    assert (output, process.returncode) == ('', 1) and message.strip().endswith(tuple(reasons)), message
    return True


def holder(begin):
    """Somebody who stays in the mount with an open file, and reads it when the input ends."""
    process = begin(f'cd {IPC}/mq; touch held; exec 3<held; echo held; read line || cat <&3')
    assert process.stdout.readline() == 'held\n'
    return process


def test_stop_unmounts_while_the_mount_is_in_use(started, begin):
    """Who waits is told, and who has it open; and the next start has all objects."""
    holding = holder(begin)
    waiting = waiter(started, begin)
    started.systemctl('stop', 'ipcfs')
    assert started.mounts() == []
    assert started.sh(f'ls {IPC}') == ''
    assert (started.show('ActiveState'), started.show('Result')) == ('inactive', 'success')
    assert was_cut_off(waiting) and was_cut_off(holding)
    started.systemctl('start', 'ipcfs')
    assert started.sh(f'cd {IPC}; echo >sem/wanted; cat sem/wanted; ls sem mq') == '1\nmq:\nheld\n\nsem:\nwanted\n'
    complaints = started.sh('cat /run/stderr').splitlines()
    assert complaints == [] or not PASSTHROUGH and all('mmap' in line for line in complaints)


def test_killed_daemon_is_followed_by_another_and_leaves_no_dead_mount(started, begin):
    holding = holder(begin)
    waiting = waiter(started, begin)
    for times in range(1, 4):
        before = started.show('MainPID')
        started.sh(f'kill -KILL {before}')
        eventually(lambda: started.show('NRestarts') == str(times) and started.show('ActiveState') == 'active')
        assert started.mounts() == [IPC]
        assert started.sh(f'cd {IPC}; echo >sem/wanted; cat sem/wanted', user=OTHER) == '1\n'
        assert started.show('MainPID') not in ('0', before)
    assert was_cut_off(waiting) and was_cut_off(holding)


def test_second_process_ends_with_the_first(notifying):
    notifying.sh(f'kill -KILL {notifying.show("MainPID")}')
    eventually(lambda: notifying.show('NRestarts') == '1' and notifying.show('ActiveState') == 'active')
    assert list(processes(notifying)) == ['ipcfs']
    assert was_cut_off(notifying.registered)


def test_second_process_ends_with_the_service(notifying):
    notifying.systemctl('stop', 'ipcfs')
    assert 'ipcfs-notify\n' not in notifying.sh('cat /proc/[0-9]*/comm')
    assert was_cut_off(notifying.registered)


def test_umount_ends_the_service_for_good(started):
    started.sh(f'umount {IPC}')
    eventually(lambda: started.show('ActiveState') == 'inactive')
    assert (started.show('Result'), started.show('NRestarts')) == ('success', '0')
    assert started.mounts() == []


def test_aborted_connection_leaves_no_dead_mount(started):
    """As an administrator does to a file system that hangs: echo 1 > /sys/fs/fuse/connections/NUMBER/abort."""
    started.sh(f'mount -t fusectl fusectl /sys/fs/fuse/connections; '
               f'echo 1 >/sys/fs/fuse/connections/$(stat -c %d {IPC})/abort; umount /sys/fs/fuse/connections')
    eventually(lambda: started.show('ActiveState') == 'inactive')
    assert started.mounts() == []


def test_dead_mount_of_another_daemon_is_taken_away(system):
    """Who was started by hand and killed. The first attempt finds that and cleans up, the second mounts."""
    system.sh(f'mkdir -p {IPC}; ipcfs {IPC}; kill -KILL $(grep -lx ipcfs /proc/[0-9]*/comm | cut -d/ -f3)')
    assert 'not connected' in system.run('ls', IPC).stderr
    system.run('systemctl', 'start', 'ipcfs')
    eventually(lambda: system.show('ActiveState') == 'active')
    assert system.mounts() == [IPC]


# Settings

def test_other_place_and_options(system):
    system.configure('Environment=MOUNT_POINT=/mnt/deep/place "OPTIONS=-o ro,spin=0"')
    system.systemctl('start', 'ipcfs')
    assert system.mounts() == ['/mnt/deep/place']
    assert 'ro' in system.sh('findmnt -no OPTIONS /mnt/deep/place').strip().split(',')
    system.systemctl('stop', 'ipcfs')
    assert system.sh('stat -c %a /mnt/deep/place') == '755\n'


def test_unknown_option_is_not_tried_for_ever(system):
    system.configure('Environment="OPTIONS=-o nonsense"')
    assert system.run('systemctl', 'start', 'ipcfs').returncode == 1
    eventually(lambda: system.show('ActiveState') == 'failed')
    assert 'nonsense' in system.sh('cat /run/stderr')
    system.configure()
    system.systemctl('reset-failed', 'ipcfs')
    system.systemctl('start', 'ipcfs')

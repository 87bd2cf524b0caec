"""Where a benchmark happens: programs built for it, mounts, objects, processes, all of which are gone at its end."""

import contextlib
import hashlib
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parent
REPOSITORY = BENCH.parent.parent
sys.path.append(str(BENCH.parent))

import native  # noqa: E402 (of the tests)

PROGRAMS = 'empty', 'client', 'pair', 'park'
PREFIX = f'ipcfs-bench-{os.getpid()}-'
PATIENCE = 60  # seconds until something that must happen has failed to


class Failure(Exception):
    """What could not be measured, and why."""


def unshare():
    """Objects and mounts of this process's own: whatever happens to it nothing is left, and nobody is disturbed.

    Whether it could be done: it takes root.
    """
    CLONE_NEWNS, CLONE_NEWIPC = 0x20000, 0x8000000
    try:
        native.call('unshare', CLONE_NEWNS | CLONE_NEWIPC)
    except OSError:
        return False
    subprocess.run(['mount', '--make-rprivate', '/'], check=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=1777', 'tmpfs', '/dev/shm'], check=True)
    return True


def eventually(condition, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failure(f'after {patience} s still not so: {what}')
        time.sleep(0.01)


def end_with_parent(number):
    PR_SET_PDEATHSIG = 1
    native.call('prctl', PR_SET_PDEATHSIG, number)


def mount_points():
    with open('/proc/self/mountinfo') as table:
        return [line.split()[4] for line in table]


class Mount:
    """A file system on a folder of its own, served by a process of which `enter` is called first."""

    def __init__(self, world, label, command, enter=None):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=f'{label}-', dir=world.scratch))
        self.label = label
        self.log = world.scratch / f'{self.path.name}.log'
        self.world = world
        with open(self.log, 'w') as log:
            self.process = world.start([*command, self.path], enter, end=signal.SIGTERM, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
        eventually(lambda: self.mounted or self.process.poll() is not None, f'{label} is mounted')
        if not self.mounted:
            raise Failure(f'{label} did not start: {"; ".join(self.log.read_text().splitlines())}')
        os.stat(self.path)

    @property
    def mounted(self):
        return str(self.path) in mount_points()

    @property
    def pid(self):
        return self.process.pid

    def unmount(self, *options):
        command = ['umount'] if os.geteuid() == 0 else ['fusermount3', '-u']
        process = subprocess.Popen([*command, *options, self.path], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            return process.wait(10) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()  # it does not answer umount
            process.wait()
            return False

    def stop(self):
        """Unmount; by force what does not go otherwise. What the daemon has complained of is the run's to show."""
        try:
            if self.process.poll() is None:
                eventually(self.unmount, f'{self.label} is unmounted', 20)
                self.process.wait(20)
        except (Failure, subprocess.TimeoutExpired) as error:
            self.world.complaints.append(f'{self.label}: had to be killed: {error}')
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.mounted:
            self.unmount('-l' if os.geteuid() == 0 else '-z')
        # libfuse says this when an unmount comes while a request is on its way.
        usual = 'reading device: Software caused connection abort'
        said = [line for line in self.log.read_text().splitlines() if not line.endswith(usual)]
        if said and not any('opcode' in line for line in said):
            self.world.complaints.append(f'{self.label}: ' + '; '.join(said[:5]))
        if self.process.returncode:
            self.world.complaints.append(f'{self.label}: ended with status {self.process.returncode}')
        self.path.rmdir()


class World:
    def __init__(self, stack, isolated, ipcfs=None, build=None):
        """Builds in the folder `build`, else in one that goes at the end; `ipcfs` is a daemon that is there already.

        `isolated` says whether there are no objects but ours.
        """
        self.isolated = isolated
        self.processes = []
        self.complaints = []
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix='ipcfs-bench-'))
        stack.callback(self.remove_scratch)
        stack.callback(self.discard_objects)
        stack.callback(self.kill_processes)
        self.scratch.chmod(0o755)
        self.build = pathlib.Path(build).absolute() if build else self.scratch / 'build'
        self.built = not ipcfs
        self.ipcfs = pathlib.Path(ipcfs).absolute() if ipcfs else self.build_ipcfs()
        for program in PROGRAMS:
            self.build_program(program)

    # Building

    def tool(self, *command):
        try:
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except FileNotFoundError:
            raise Failure(f'{command[0]}: not found; contrib/install-deps installs what building takes') from None
        if result.returncode:
            raise Failure(f'{" ".join(map(str, command))}: {result.stdout.strip()[-2000:]}')
        return result.stdout.strip()

    def build_ipcfs(self):
        settings = ['-Dbuildtype=release', '-Doptimization=2', '-Db_sanitize=none']
        if (self.build / 'build.ninja').exists():
            self.tool('meson', 'configure', self.build, *settings)
        else:
            self.tool('meson', 'setup', self.build, REPOSITORY, *settings)
        self.tool('ninja', '-C', self.build, 'ipcfs')
        return self.build / 'ipcfs'

    def build_program(self, name):
        flags = ['-std=gnu11', '-O2', '-D_GNU_SOURCE', '-D_FILE_OFFSET_BITS=64', '-Wall', '-Wextra',
                 '-Wno-format-truncation', '-pthread']
        if name == 'empty':
            flags += self.tool('pkg-config', '--cflags', '--libs', 'fuse3').split()
        self.tool('cc', '-o', self.scratch / name, BENCH / f'{name}.c', *flags)

    # Processes

    def start(self, command, enter=None, end=signal.SIGKILL, **streams):
        def prepare():
            end_with_parent(end)
            if enter:
                enter()
        # In a session of its own: an interrupt from the terminal comes to the benchmark alone, which ends the rest.
        process = subprocess.Popen([os.fspath(word) for word in command], preexec_fn=prepare, start_new_session=True,
                                   **streams)
        self.processes.append(process)
        return process

    def run(self, program, *arguments, enter=None, cwd=None):
        """The output of one of our programs, or of another one."""
        command = [self.scratch / program if program in PROGRAMS else program, *map(str, arguments)]
        process = self.start(command, enter, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
        try:
            output, complaint = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure(f'{program} {" ".join(map(str, arguments))}: not finished after {PATIENCE} s') from None
        finally:
            self.end(process)
        if process.returncode:
            raise Failure(f'{program} {" ".join(map(str, arguments))}: {complaint.strip() or process.returncode}')
        return output

    def end(self, process):
        if process.poll() is None:
            process.kill()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill_processes()  # it sleeps in a request that is not answered
        self.processes.remove(process)

    def kill_processes(self):
        """Daemons too: what hangs in a request to one goes on then."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    # Mounts

    @contextlib.contextmanager
    def mount(self, *options, enter=None):
        """ipcfs."""
        with self.serve('ipcfs', [self.ipcfs, '-f', *options], enter) as mount:
            yield mount

    @contextlib.contextmanager
    def mount_empty(self, enter=None, keep=False):
        """The file system that does nothing; or which lets the kernel `keep` what it has been told of names."""
        with self.serve('empty', [self.scratch / 'empty', *(['--keep'] if keep else [])], enter) as mount:
            yield mount

    @contextlib.contextmanager
    def serve(self, label, command, enter):
        mount = Mount(self, label, command, enter)
        try:
            yield mount
        finally:
            mount.stop()
            self.processes.remove(mount.process)

    # Objects: native, and in no other way, so that a daemon that fails does not keep them

    @contextlib.contextmanager
    def semaphores(self, count, value=0, label='sem'):
        """The first part of the names of so many semaphores, which are numbered from 0."""
        object = f'{PREFIX}{label}'
        try:
            for number in range(count):
                native.Semaphore(f'{object}{number}', os.O_CREAT | os.O_EXCL, value=value).close()
            yield object
        finally:
            for number in range(count):
                native.discard(native.sem_unlink, f'{object}{number}')

    @contextlib.contextmanager
    def queues(self, count, max_messages, max_message_size, label='mq'):
        object = f'{PREFIX}{label}'
        try:
            for number in range(count):
                native.create_queue(f'{object}{number}', max_messages, max_message_size).close()
            yield object
        finally:
            for number in range(count):
                native.discard(native.mq_unlink, f'{object}{number}')

    @contextlib.contextmanager
    def segment(self, size):
        object = f'{PREFIX}shm'
        try:
            fd = native.shm_open(f'{object}0', os.O_CREAT | os.O_EXCL | os.O_RDWR)
            os.write(fd, bytes(size))
            os.close(fd)
            yield object
        finally:
            native.discard(native.shm_unlink, f'{object}0')

    # The end

    def discard_objects(self):
        for path in pathlib.Path('/dev/shm').glob(f'*{PREFIX}*'):
            path.unlink()

    def remove_scratch(self):
        left = [point for point in mount_points() if point.startswith(f'{self.scratch}/')]
        if left:
            print(f'tests/bench/run: could not unmount {" ".join(left)}', file=sys.stderr)
            return  # what is removed in a mount are the machine's objects
        shutil.rmtree(self.scratch)


def first_line(path, start):
    with contextlib.suppress(OSError), open(path) as file:
        for line in file:
            if line.startswith(start):
                return line.split(':' if ':' in line else '=', 1)[1].strip().strip('"')
    return ''


def describe_machine(world):
    return {
        'processor': first_line('/proc/cpuinfo', 'model name') or platform.machine(),
        'cores': len(os.sched_getaffinity(0)),
        'memory': first_line('/proc/meminfo', 'MemTotal'),
        'hypervisor': ' hypervisor' in first_line('/proc/cpuinfo', 'flags'),
        'kernel': platform.release(),
        'system': first_line('/etc/os-release', 'PRETTY_NAME'),
        'libc': ' '.join(platform.libc_ver()),
        'libfuse': world.tool(world.scratch / 'empty', '--version'),
        'compiler': world.tool('cc', '--version').splitlines()[0],
        'load before': os.getloadavg()[0],
    }


def describe_product(world):
    """Its version, and a digest that tells two states apart: of the sources or, of a given daemon, of the program."""
    files = sorted(path for folder in ('core', 'fs') for path in (REPOSITORY / folder).glob('*.[ch]'))
    digest = hashlib.sha256()
    for path in files if world.built else [world.ipcfs]:
        digest.update(path.name.encode() + b'\0' + path.read_bytes())
    return {'version': world.tool(world.ipcfs, '--version'), 'digest': digest.hexdigest()[:12],
            'digest of': 'sources' if world.built else 'program'}

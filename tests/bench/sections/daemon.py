"""The daemon: at rest, on few processors, and what it is asked for by a shell command."""

import contextlib
import errno
import os
import pathlib
import re
import subprocess
import time
from collections import Counter

from measure import Row, Target, read_rounds
from sections.calls import QUEUES, SEMAPHORES, objects_for
from world import PREFIX, Failure

TICKS = os.sysconf('SC_CLK_TCK')


def threads(pid):
    return len(os.listdir(f'/proc/{pid}/task'))


def memory(pid):
    """Bytes that are resident."""
    status = pathlib.Path(f'/proc/{pid}/status').read_text()
    return int(re.search(r'^VmRSS:\s+(\d+) kB', status, re.MULTILINE)[1]) * 1024


def switches(pid):
    """By thread, how often it has left a processor, of itself or not."""
    counts = {}
    for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = re.findall(r'voluntary_ctxt_switches:\s+(\d+)', (task / 'status').read_text())
            counts[task.name] = sum(map(int, found))
    return counts


def processor_time(pid):
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rest(pid, seconds):
    """While nobody asks for anything: context switches per second, percent of a core."""
    before, busy = switches(pid), processor_time(pid)
    time.sleep(seconds)
    after = switches(pid)
    woken = sum(count - before.get(thread, 0) for thread, count in after.items())
    return woken / seconds, 100 * (processor_time(pid) - busy) / seconds


def idle(bench):
    seconds = bench.scale(5, 3)
    with bench.world.mount() as ipcfs, bench.world.mount_empty() as empty:
        with bench.world.semaphores(4) as object:
            bench.world.run('client', 'post-wait', object, 0, 4, 1, 50, ipcfs.path, empty.path)
        time.sleep(0.5)
        found = {mount.label: rest(mount.pid, seconds) for mount in (ipcfs, empty)}
        for number, (name, unit) in enumerate((('context switches', 'per second'), ('processor time', '% of a core'))):
            sides = {label: [values[number]] for label, values in found.items()}
            bench.add(Row('idle', name, unit, sides, note=f'{seconds} s').limit('ipcfs', Target(0)))


# Few processors

def pinned_to(core):
    return lambda: os.sched_setaffinity(0, {core})


LATENCY = '/dev/cpu_dma_latency'


@contextlib.contextmanager
def cores_kept_awake():
    with open(LATENCY, 'wb', buffering=0) as file:
        file.write(bytes(4))  # microseconds: a core that may take no time to wake up must not sleep
        yield


def compare_with_empty(bench, label, repeat, enter=None, enter_client=None):
    wanted = {'semaphore post', 'semaphore post and wait', 'open, wait, close', 'queue send 64 bytes'}
    world = bench.world
    with world.mount(enter=enter) as ipcfs, world.mount_empty(enter=enter) as empty:
        for name, operation, number in SEMAPHORES + QUEUES:
            if name not in wanted:
                continue
            with objects_for(world, operation, number, 1) as arguments:
                output = world.run('client', *arguments, 1, *repeat, ipcfs.path, empty.path,
                                   enter=enter_client or enter)
            row = Row('cpu', f'{name}, {label}', 'ns', read_rounds(output, ['ipcfs', 'empty']))
            bench.add(row.compare('ipcfs', 'empty'))


def own_cgroup(controller):
    """The folder of a cgroup hierarchy that has this controller, and whether it is of the second version."""
    with open('/proc/self/mountinfo') as table:
        for line in table:
            fields, _, rest_of_it = line.partition(' - ')
            kind, _, options = rest_of_it.split(maxsplit=2)
            folder = pathlib.Path(fields.split()[4])
            if kind == 'cgroup' and controller in options.strip().split(','):
                return folder, False
            if kind == 'cgroup2' and controller in (folder / 'cgroup.controllers').read_text().split():
                return folder, True
    raise OSError(errno.ENODEV, 'no such hierarchy is mounted', f'cgroup controller {controller}')


@contextlib.contextmanager
def half_a_core():
    """A function that takes its process into a cgroup with that quota. OSError where none can be made."""
    folder, second = own_cgroup('cpu')
    group = folder / PREFIX.rstrip('-')
    group.mkdir()
    try:
        if second:
            (group / 'cpu.max').write_text('50000 100000')
        else:
            (group / 'cpu.cfs_period_us').write_text('100000')
            (group / 'cpu.cfs_quota_us').write_text('50000')
        yield lambda: (group / 'cgroup.procs').write_text(str(os.getpid()))
    finally:
        group.rmdir()


def cpu(bench):
    """With and without a say of the scheduler in it: whether it puts client and daemon on one core or on two makes more
    of a difference than most of what a daemon does, and it need not do the same with both file systems. ipcfs keeps
    idle cores awake, so that is also measured where it is done for both."""
    cores = sorted(os.sched_getaffinity(0))
    repeat = bench.scale((15, 20), (5, 15))
    compare_with_empty(bench, 'all on one core', repeat, pinned_to(cores[0]))
    if len(cores) > 1:
        compare_with_empty(bench, 'client and daemon on two', repeat, pinned_to(cores[1]), pinned_to(cores[0]))
    else:
        bench.remark('cpu: there is but one core, so client and daemon were not put on two')
    try:
        with cores_kept_awake():
            compare_with_empty(bench, 'all cores kept awake for both', repeat)
    except OSError as error:
        bench.remark(f'cpu: not measured with cores kept awake: {LATENCY}: {error.strerror}')
    with contextlib.ExitStack() as stack:
        try:
            enter = stack.enter_context(half_a_core())
        except OSError as error:
            bench.remark(f'cpu: not measured with half a core: {error.filename}: {error.strerror}')
            return
        # Stretches that are long against the 100 ms over which the quota is counted.
        compare_with_empty(bench, 'half a core for all', bench.scale((7, 400), (3, 200)), enter)


# Requests

COMMANDS = [
    ('cat sem/x', ['cat', 'sem/{sem}0']),
    ('echo > sem/x', ['sh', '-c', 'echo > sem/{sem}0']),
    ('echo > mq/q', ['sh', '-c', 'echo > mq/{mq}0']),
    ('cat mq/q', ['cat', 'mq/{mq}0']),
    ('stat sem/x', ['stat', 'sem/{sem}0']),
    ('ls sem/', ['ls', 'sem/']),
    ('ls -l sem/', ['ls', '-l', 'sem/']),
]


class Trace:
    """Counts by the kernel's tracepoint fuse_request_send, in a trace instance of its own."""

    means = 'the tracepoint fuse_request_send'

    def __init__(self, stack, scratch):
        root = pathlib.Path('/sys/kernel/tracing')
        if not (root / 'instances').exists():
            root = scratch / 'tracing'
            root.mkdir()
            subprocess.run(['mount', '-t', 'tracefs', 'tracefs', root], check=True, capture_output=True)
            stack.callback(subprocess.run, ['umount', root], check=True)
        self.instance = root / 'instances' / PREFIX.rstrip('-')
        self.instance.mkdir()
        stack.callback(self.instance.rmdir)
        self.event = self.instance / 'events/fuse/fuse_request_send'
        (self.event / 'enable').write_text('1')

    def watch(self, mount):
        (self.event / 'filter').write_text(f'connection == {os.minor(os.stat(mount.path).st_dev)}')

    def start(self):
        (self.instance / 'trace').write_text('')

    def count(self):
        return Counter(re.findall(r'\(FUSE_(\w+)\)', (self.instance / 'trace').read_text()))


class Log:
    """Counts in what a daemon with -d logs."""

    means = "the daemon's log with -d"

    def watch(self, mount):
        self.log = mount.log

    def start(self):
        self.at = self.log.stat().st_size

    def count(self):
        with open(self.log) as log:
            log.seek(self.at)
            found = re.findall(r'opcode: (\w+) \(', log.read())
        return Counter(name for name in found if name not in ('FORGET', 'BATCH_FORGET', 'INTERRUPT'))


def count_requests(world, counter, folder, command):
    """The second time, as the first may find the kernel without what it keeps."""
    for _ in range(2):
        counter.start()
        world.run(*command, cwd=folder)
        time.sleep(0.05)  # releases are sent after the end
    found = counter.count()
    if not found:
        raise Failure(f'requests: none counted for {" ".join(command)} by {counter.means}')
    return found


def describe(found):
    return ', '.join(name if count == 1 else f'{name} {count}' for name, count in sorted(found.items()))


def requests(bench):
    world = bench.world
    with contextlib.ExitStack() as stack:
        try:
            counter, options = Trace(stack, world.scratch), []
        except (OSError, subprocess.CalledProcessError):
            counter, options = Log(), ['-d']
        bench.remark(f'requests: counted by {counter.means}, without FORGET and INTERRUPT, which nobody waits for')
        mounts = [stack.enter_context(world.mount(*options))]
        if isinstance(counter, Trace):
            mounts.append(stack.enter_context(world.mount_empty()))
        names = {'sem': stack.enter_context(world.semaphores(10, 100)),
                 'mq': stack.enter_context(world.queues(1, 10, 64))}
        for name, command in COMMANDS:
            found = {}
            for mount in mounts:
                if mount.label == 'empty' and command[0] == 'ls':
                    continue  # it lists nothing
                counter.watch(mount)
                found[mount.label] = count_requests(world, counter, mount.path,
                                                     [word.format(**names) for word in command])
            sides = {label: [found[label].total()] for label in found}
            bench.add(Row('requests', name, '', sides, note=describe(found['ipcfs'])))

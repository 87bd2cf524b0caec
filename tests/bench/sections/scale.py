"""Many objects, many blocked readers."""

import contextlib
import os
import pathlib
import shutil
import statistics
import time

import native
from measure import Row, Target, read_rounds
from sections.calls import PLENTY
from sections.daemon import memory, pinned_to, rest, threads
from world import PREFIX, Failure, eventually

SAME = Target(1.1)  # within ten percent


# Listing

def time_of(world, *command):
    """Nanoseconds from the start of ls to its end."""
    program = shutil.which(command[0])
    output = [(os.POSIX_SPAWN_OPEN, fd, '/dev/null', os.O_WRONLY, 0) for fd in (1, 2)]
    arguments = [os.fspath(word) for word in command]
    start = time.monotonic_ns()
    pid = os.posix_spawn(program, arguments, os.environ | {'LC_ALL': 'C'}, file_actions=output)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    taken = time.monotonic_ns() - start
    # With 1 it says that some file was not there any more, and others' files go when they like.
    if status != 0 and (status != 1 or world.isolated):
        raise Failure(f'{" ".join(arguments)}: status {status}')
    return taken


def listing(bench):
    rounds = bench.scale(15, 5)
    for count in 10, 1_000, 10_000:
        with contextlib.ExitStack() as stack:
            mounts = {'ipcfs': bench.world.mount(), 'empty': bench.world.mount_empty(),
                      'empty, keeping': bench.world.mount_empty(keep=True)}
            folders = {label: stack.enter_context(mount).path / 'sem' for label, mount in mounts.items()}
            stack.enter_context(bench.world.semaphores(count))
            for label, folder in folders.items():
                if len(os.listdir(folder)) < count:
                    raise Failure(f'{label} does not list {count:,} semaphores')
            folders['native'] = '/dev/shm'
            for command in ['ls'], ['ls', '-l']:
                sides = {label: [] for label in folders}
                for _ in range(rounds + 1):
                    for label, folder in folders.items():
                        sides[label].append(time_of(bench.world, *command, folder))
                sides = {side: times[1:] for side, times in sides.items()}
                target = Target(3) if count == 10_000 and len(command) > 1 else None
                row = Row('listing', f'{" ".join(command)}, {count:,} semaphores', 'ns', sides)
                row.compare('ipcfs', 'native', target).compare('ipcfs', 'empty').compare('empty, keeping', 'native')
                bench.add(row)
    bench.remark('listing: "empty, keeping" lets the kernel keep each entry and its attributes, so that only GETXATTR, '
                 'twice an entry, is asked for')


# Objects

OPERATIONS = [
    ('semaphore post', 'post'),
    ('semaphore wait', 'wait'),
    ('open, wait, close', 'open-wait-close'),
    ('stat', 'stat'),
    ('extended attribute', 'xattr'),
]


def measure_all(world, object, rounds, milliseconds, folder, enter):
    """By operation, the median of some rounds."""
    result = {}
    for name, operation in OPERATIONS:
        output = world.run('client', operation, object, 0, 1, rounds, milliseconds, folder, enter=enter)
        result[name] = statistics.median(read_rounds(output, ['time'])['time'])
    return result


@contextlib.contextmanager
def many_more(world, folder, object, first, count):
    """Semaphores that the daemon knows, and has forgotten at the end, as they are removed through it."""
    numbers = range(first, first + count)
    try:
        for number in numbers:
            native.Semaphore(f'{object}{number}', os.O_CREAT | os.O_EXCL).close()
        time_of(world, 'ls', '-l', folder / 'sem')
        yield
        for number in numbers:
            os.unlink(folder / 'sem' / f'{object}{number}')
    finally:
        for path in pathlib.Path('/dev/shm').glob(f'sem.{object}*'):
            if int(path.name.removeprefix(f'sem.{object}')) >= first:
                path.unlink()


def objects(bench):
    """All on one core: on two, the scheduler may spread client and daemon the one time and not the other."""
    times, repeat = bench.scale((9, (5, 15)), (3, (3, 10)))
    enter = pinned_to(min(os.sched_getaffinity(0)))
    sides = {name: {'among 10': [], 'among 10,000': []} for name, _ in OPERATIONS}

    def measure(side):
        for name, cost in measure_all(bench.world, object, *repeat, ipcfs.path, enter).items():
            sides[name][side].append(cost)
    with bench.world.mount(enter=enter) as ipcfs, bench.world.semaphores(10, PLENTY) as object:
        for _ in range(times):
            measure('among 10')
            with many_more(bench.world, ipcfs.path, object, 10, 9_990):
                measure('among 10,000')
    for name, _ in OPERATIONS:
        bench.add(Row('objects', name, 'ns', sides[name]).compare('among 10,000', 'among 10', SAME))


# Parked readers

READERS, SEMAPHORES, QUEUES, PROCESSES = 10_000, 1_000, 10, 5


def count_waiting(folder, object_sem, object_mq):
    paths = [(folder / 'sem' / f'{object_sem}{number}', 'waiting') for number in range(SEMAPHORES)]
    paths += [(folder / 'mq' / f'{object_mq}{number}', 'waiting_receivers') for number in range(QUEUES)]
    return sum(int(os.getxattr(path, f'user.ipcfs.{name}')) for path, name in paths)


@contextlib.contextmanager
def readers(world, folder):
    """All of them, blocked on a mount."""
    object = f'{PREFIX}parked'
    with world.semaphores(SEMAPHORES, label='parked'), world.queues(QUEUES, 10, 64, label='parked'):
        share = READERS // PROCESSES
        processes = [world.start([world.scratch / 'park', folder, object, str(SEMAPHORES), str(QUEUES),
                                  str(number * share), str(share)]) for number in range(PROCESSES)]

        def all_wait():
            if any(process.poll() is not None for process in processes):
                raise Failure('parked: a process of readers has ended')
            return count_waiting(folder, object, object) == READERS
        try:
            eventually(all_wait, f'{READERS:,} readers are blocked')
            yield
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                world.end(process)
        eventually(lambda: count_waiting(folder, object, object) == 0, 'the daemon has let go of killed readers')


def compare_mounts(bench, label, repeat, first, second, target, enter):
    """Two mounts, of which one has the readers: what one and the same operation takes there, by turns. All are on one
    core, as above."""
    for name, operation in [('semaphore post and wait', 'post-wait'), *OPERATIONS[2:]]:
        with bench.world.semaphores(1, PLENTY) as object:
            output = bench.world.run('client', operation, object, 0, 1, *repeat, first.path, second.path,
                                     enter=enter)
        sides = read_rounds(output, ['mount A', 'mount B'])
        bench.add(Row('parked', f'{name}, {label}', 'ns', sides).compare('mount A', 'mount B', target))


def parked(bench):
    repeat = bench.scale((31, 20), (9, 10))
    seconds = bench.scale(5, 2)
    world = bench.world
    enter = pinned_to(min(os.sched_getaffinity(0)))
    with world.mount(enter=enter) as first, world.mount(enter=enter) as second:
        compare_mounts(bench, 'nobody parked', repeat, first, second, None, enter)
        before = memory(first.pid)
        with readers(world, first.path):
            time.sleep(0.5)
            switches, busy = rest(first.pid, seconds)
            for name, unit, value, target in (
                    ('threads', '', threads(first.pid), Target(16)),
                    ('resident memory', 'bytes', memory(first.pid), Target(64 << 20)),
                    ('processor time at rest', '% of a core', busy, Target(0)),
                    ('context switches at rest', 'per second', switches, None)):
                note = f'{before >> 10:,} KiB before' if unit == 'bytes' else ''
                bench.add(Row('parked', f'daemon: {name}', unit, {'mount A': [value]}, note=note)
                          .limit('mount A', target))
            compare_mounts(bench, '10,000 parked', repeat, first, second, SAME, enter)

"""Two processes: waking one up, back and forth, and a stream of lines."""

import os
import select
import subprocess
import time

from measure import Row, Target, read_rounds
from sections.daemon import pinned_to
from world import Failure, PATIENCE, eventually

LINE = '{:08d} a line as a job may be\n'


def run_pairs(bench, task, kind, repeat, pairs, enter=None):
    """Rounds by the pair's label; `pairs` has two sides for each."""
    rounds, amount = repeat
    with (bench.world.semaphores(2) if kind == 'sem' else bench.world.queues(2, 10, 64)) as object:
        sides = [f'{first}:{second}' for first, second in pairs.values()]
        output = bench.world.run('pair', task, kind, object, rounds, amount, *sides, enter=enter)
    return read_rounds(output, list(pairs))


def wake_with(bench, suffix='', enter=None, target=None):
    repeat = bench.scale((21, 50), (7, 30))
    for kind, noun, verb in ('sem', 'semaphore', 'post'), ('mq', 'queue', 'send'):
        with bench.world.mount(enter=enter) as ipcfs:
            rounds = run_pairs(bench, 'wake', kind, repeat, {
                'native': ('native', 'native'),
                'native giver': (ipcfs.path, 'native'),
                'both': (ipcfs.path, ipcfs.path),
            }, enter)
        for label, name in ('native giver', f'native {verb}'), ('both', f'{verb} through the mount'):
            sides = {'ipcfs': rounds[label], 'native': rounds['native']}
            bench.add(Row('wake', f'{noun}, {name}{suffix}', 'ns', sides).compare('ipcfs', 'native', target))


def wake(bench):
    wake_with(bench, target=Target(2))
    wake_with(bench, ', all on one core', pinned_to(min(os.sched_getaffinity(0))))


def ping_pong(bench):
    repeat = bench.scale((15, 40), (5, 20))
    for kind, noun in ('sem', 'semaphores'), ('mq', 'queues, 64 bytes'):
        with bench.world.mount() as ipcfs:
            rounds = run_pairs(bench, 'ping-pong', kind, repeat, {
                'native': ('native', 'native'),
                'one': (ipcfs.path, 'native'),
                'both': (ipcfs.path, ipcfs.path),
            })
        for label, name in ('both', 'both through the mount'), ('one', 'one through the mount, one native'):
            sides = {'ipcfs': rounds[label], 'native': rounds['native']}
            bench.add(Row('ping-pong', f'{noun}, {name}', 'ns', sides).compare('ipcfs', 'native'))


# Lines

def read_all(pipe, size):
    data = bytearray()
    end = time.monotonic() + PATIENCE
    while len(data) < size:
        if not select.select([pipe], [], [], max(0, end - time.monotonic()))[0]:
            raise Failure(f'text: {len(data)} of {size} bytes came through mq@text in {PATIENCE} s')
        part = os.read(pipe.fileno(), 1 << 20)
        if not part:
            raise Failure(f'text: cat mq@text,stream ended after {len(data)} of {size} bytes')
        data += part
    return data


def through_mount(world, folder, name, file):
    """Seconds from the start of `cat FILE > mq@text/NAME` until `cat mq@text,stream/NAME` has written all of it."""
    expected = file.read_bytes()
    reader = world.start(['cat', folder / 'mq@text,stream' / name], stdout=subprocess.PIPE, bufsize=0)
    try:
        eventually(lambda: os.getxattr(folder / 'mq' / name, 'user.ipcfs.waiting_receivers') == b'1', 'a reader waits')
        with open(folder / 'mq@text' / name, 'wb', buffering=0) as queue:
            start = time.monotonic()
            writer = world.start(['cat', file], stdout=queue)
        try:
            data = read_all(reader.stdout, len(expected))
            taken = time.monotonic() - start
            if writer.wait(PATIENCE):
                raise Failure(f'text: cat > mq@text ended with status {writer.returncode}')
        finally:
            world.end(writer)
    finally:
        world.end(reader)
        reader.stdout.close()
    if data != expected:
        raise Failure('text: the lines that came through mq@text are not those that were sent')
    return taken


def text(bench):
    rounds, count = bench.scale((7, 200_000), (3, 50_000))
    world = bench.world
    file = world.scratch / 'lines'
    file.write_text(''.join(LINE.format(number) for number in range(count)))
    sides = {'ipcfs': [], 'native': []}
    with world.mount() as ipcfs, world.queues(1, 10, 8192) as object:
        for _ in range(rounds + 1):
            sides['ipcfs'].append(count / through_mount(world, ipcfs.path, f'{object}0', file))
            line_time = float(world.run('pair', 'lines', 'mq', object, file).split()[-1])
            sides['native'].append(1e9 / line_time)
    sides = {side: values[1:] for side, values in sides.items()}
    note = f'{count:,} lines of {len(LINE.format(0))} bytes, a queue of 10 messages'
    row = Row('text', 'cat > mq@text/q, cat mq@text,stream/q', 'lines/s', sides, note=note)
    bench.add(row.compare('ipcfs', 'native', Target(0.5, at_least=True)))

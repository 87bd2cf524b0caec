"""Shared memory: the same segment natively and through the mount."""

from measure import Row, Target, read_rounds

SEGMENT = 4 << 20  # as in client.c

# The name, the client's operation, the size of a part, and what is to be reached: a ratio of times, or of throughput.
OPERATIONS = [
    ('open and close', 'open-close', 0, None),
    ('pread 4 KiB', 'pread', 4096, Target(1.3)),
    ('pwrite 4 KiB', 'pwrite', 4096, Target(1.3)),
    ('pread 1 MiB', 'pread', 1 << 20, Target(0.95, at_least=True)),
    ('pwrite 1 MiB', 'pwrite', 1 << 20, Target(0.95, at_least=True)),
    # A mapping is the same memory or it is not; what is above 1 here is the clock's.
    ('map 4 MiB and touch each page', 'first-touch', 0, Target(1.05)),
    ('load and store in a mapping', 'load-store', 0, Target(1.05)),
]
MAPPINGS = 'first-touch', 'load-store'


def memory(bench):
    rounds, milliseconds = bench.scale((31, 20), (9, 10))
    with bench.world.mount() as ipcfs, bench.world.segment(SEGMENT) as object:
        maps = 'SHARED_MEMORY_MMAP 1\n' in (ipcfs.path / 'limits').read_text()
        if not maps:
            bench.remark('shm: mappings are not measured, as this mount has none that are shared (see limits)')
        for name, operation, size, target in OPERATIONS:
            if operation in MAPPINGS and not maps:
                continue
            output = bench.world.run('client', operation, object, size, 1, rounds, milliseconds, ipcfs.path, 'native')
            sides = read_rounds(output, ['ipcfs', 'native'])
            unit = 'ns'
            if target and target.at_least:
                unit = 'bytes/s'
                sides = {side: [size * 1e9 / time for time in times] for side, times in sides.items()}
            bench.add(Row('shm', name, unit, sides).compare('ipcfs', 'native', target))

"""Single operations: through ipcfs, through a file system that does nothing, and natively; in C, and in Python."""

import contextlib
import ctypes
import itertools
import os
import time

import native
from measure import Row, Target, read_rounds

AS_FAST_AS = Target(0.7)  # of what the empty file system takes

PLENTY = 1 << 30  # a semaphore's value that outlasts all waits

# The name, the client's operation, the value of its semaphores or the size of its messages.
SEMAPHORES = [
    ('semaphore post', 'post', 0),
    ('semaphore wait', 'wait', PLENTY),
    ('semaphore post and wait', 'post-wait', 0),
    ('open, wait, close', 'open-wait-close', PLENTY),
    ('stat', 'stat', 0),
    ('extended attribute', 'xattr', 0),
]
QUEUES = [
    ('queue send 64 bytes', 'send', 64),
    ('queue receive 64 bytes', 'receive', 64),
    ('queue send 8 KiB', 'send', 8192),
    ('queue receive 8 KiB', 'receive', 8192),
]


@contextlib.contextmanager
def objects_for(world, operation, number, clients):
    """What the client's arguments are from there: the objects, and the size."""
    if operation in ('send', 'receive'):
        # All queues of a user together have some 800 KB.
        with world.queues(clients, 10 if number * clients <= 4 * 8192 else 2, number) as object:
            yield operation, object, number
    else:
        with world.semaphores(clients, number) as object:
            yield operation, object, 0


def single(bench):
    rounds, milliseconds = bench.scale((21, 15), (5, 10))
    bench.remark('single: the scheduler may put client and daemon on one core for one file system and on two for the '
                 'other, which moves the ratio by itself, most of all with one client; cpu has each of the two fixed')
    with bench.world.mount() as ipcfs, bench.world.mount_empty() as empty:
        for clients in bench.scale((1, 2, 4, 16), (1, 4, 16)):
            for name, operation, number in SEMAPHORES + QUEUES:
                with objects_for(bench.world, operation, number, clients) as arguments:
                    # Long enough that each of the clients has several turns on a core.
                    output = bench.world.run('client', *arguments, clients, rounds,
                                             max(milliseconds, 2 * clients), ipcfs.path, empty.path, 'native')
                row = Row('single', name, 'ns', read_rounds(output, ['ipcfs', 'empty', 'native']), clients)
                bench.add(row.compare('ipcfs', 'empty', AS_FAST_AS).compare('ipcfs', 'native'))


def lasting(bench):
    """As long as it takes until the scheduler has found a place for each, and has given it up again."""
    with bench.world.mount() as ipcfs, bench.world.mount_empty() as empty:
        for clients in 1, 2, 4, 16:
            for name, operation, number in SEMAPHORES[:1] + QUEUES[:1]:
                with objects_for(bench.world, operation, number, clients) as arguments:
                    output = bench.world.run('client', *arguments, clients, bench.scale(5, 3), 500,
                                             ipcfs.path, empty.path)
                row = Row('lasting', name, 'ns', read_rounds(output, ['ipcfs', 'empty']), clients)
                bench.add(row.compare('ipcfs', 'empty'))


# Python

libc = ctypes.CDLL(None)
libc.sem_open.restype = ctypes.c_void_p
libc.sem_open.argtypes = ctypes.c_char_p, ctypes.c_int
for function in 'sem_post', 'sem_wait', 'sem_close':
    getattr(libc, function).argtypes = [ctypes.c_void_p]
libc.sem_getvalue.argtypes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
libc.mq_send.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint
libc.mq_receive.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
libc.mq_receive.restype = ctypes.c_ssize_t


def mean_time(function, stretch, chunk, prepare=None):
    """Nanoseconds of a call."""
    total = count = 0
    end = time.monotonic_ns() + stretch
    while time.monotonic_ns() < end:
        if prepare:
            prepare()
        start = time.monotonic_ns()
        for _ in itertools.repeat(None, chunk):
            function()
        total += time.monotonic_ns() - start
        count += chunk
    return total / count


@contextlib.contextmanager
def opened(fd):
    try:
        yield fd
    finally:
        os.close(fd)


def semaphore_calls(path, fd, object):
    """By name: through the file, by libc."""
    name = f'/{object}0'.encode()
    semaphore = libc.sem_open(name, 0)
    value = ctypes.c_int()

    def write():
        os.write(fd, b'\n')

    def read():
        os.pread(fd, 8, 0)

    def write_and_read():
        os.write(fd, b'\n')
        os.pread(fd, 8, 0)

    def open_and_read():
        file = os.open(path, os.O_RDONLY)
        os.pread(file, 8, 0)
        os.close(file)

    def post():
        libc.sem_post(semaphore)

    def wait():
        libc.sem_wait(semaphore)

    def post_and_wait():
        libc.sem_post(semaphore)
        libc.sem_wait(semaphore)

    def open_and_wait():
        other = libc.sem_open(name, 0)
        libc.sem_wait(other)
        libc.sem_close(other)

    return {
        'semaphore post': (write, post),
        'semaphore wait': (read, wait),
        'semaphore post and wait': (write_and_read, post_and_wait),
        'open, wait, close': (open_and_read, open_and_wait),
        'stat': (lambda: os.stat(path), lambda: os.stat(f'/dev/shm/sem.{object}0')),
        'extended attribute': (lambda: os.getxattr(path, 'user.ipcfs.value'),
                               lambda: libc.sem_getvalue(semaphore, ctypes.byref(value))),
    }


def python_semaphores(bench, ipcfs, rounds, stretch):
    with bench.world.semaphores(1, PLENTY) as object:
        path = str(ipcfs.path / 'sem' / f'{object}0')
        with opened(os.open(path, os.O_RDWR)) as fd:
            for name, functions in semaphore_calls(path, fd, object).items():
                compare_in_python(bench, name, functions, rounds, stretch, 20)


def queue_calls(file, queue, other_end, size):
    """By name: through the file, by libc, and what is done before."""
    message, room = bytes(size), ctypes.create_string_buffer(size)

    def empty():
        while libc.mq_receive(other_end, room, size, None) >= 0:
            pass

    def fill():
        while libc.mq_send(other_end, message, size, 0) == 0:
            pass

    return {
        'send': ((lambda: os.write(file, message), lambda: libc.mq_send(queue, message, size, 0)), empty),
        'receive': ((lambda: os.pread(file, size, 0), lambda: libc.mq_receive(queue, room, size, None)), fill),
    }


def python_queues(bench, ipcfs, size, label, rounds, stretch):
    with bench.world.queues(1, 10, size) as object, contextlib.ExitStack() as stack:
        fds = [stack.enter_context(opened(fd)) for fd in (
            os.open(ipcfs.path / 'mq' / f'{object}0', os.O_RDWR),
            native.Queue(f'{object}0').descriptor,
            native.Queue(f'{object}0', os.O_RDWR | os.O_NONBLOCK).descriptor)]
        for name, (functions, prepare) in queue_calls(*fds, size).items():
            compare_in_python(bench, f'queue {name} {label}', functions, rounds, stretch, 10, prepare)


def compare_in_python(bench, name, functions, rounds, stretch, chunk, prepare=None):
    sides = {'ipcfs': [], 'ctypes': []}
    for _ in range(rounds + 1):
        for side, function in zip(sides.values(), functions):
            side.append(mean_time(function, stretch, chunk, prepare))
    sides = {side: times[1:] for side, times in sides.items()}  # the first has warmed up
    bench.add(Row('python', name, 'ns', sides).compare('ipcfs', 'ctypes'))


def python(bench):
    rounds, milliseconds = bench.scale((15, 15), (5, 10))
    stretch = milliseconds * 1_000_000
    with bench.world.mount() as ipcfs:
        python_semaphores(bench, ipcfs, rounds, stretch)
        python_queues(bench, ipcfs, 64, '64 bytes', rounds, stretch)
        python_queues(bench, ipcfs, 8192, '8 KiB', rounds, stretch)

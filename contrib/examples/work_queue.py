#!/usr/bin/env python3
"""Work queue on ipcfs: work_queue.py produce NAME N | consume NAME. See README.md."""

import contextlib
import os
import sys

MOUNT = os.environ.get('IPCFS_MOUNT', '/mnt/ipc')


def open_object(directory, name):
    return os.open(f'{MOUNT}/{directory}/{name}', os.O_CREAT | os.O_RDWR, 0o666)


def receive(jobs):
    return os.pread(jobs, 64, 0).strip()


@contextlib.contextmanager
def taken(lock):
    os.pread(lock, 2, 0)  # wait
    try:
        yield
    finally:
        os.write(lock, b'\n')  # post


def produce(jobs, n):
    for job in range(1, n + 1):
        os.write(jobs, b'%d' % job)
    os.write(jobs, b'end')


def consume(jobs, lock, counter):
    while (message := receive(jobs)) != b'end':
        job = int(message)
        with taken(lock):
            total = int(os.pread(counter, 12, 0) or 0) + job  # a new segment is empty
            os.pwrite(counter, b'%11d\n' % total, 0)
        print(f'python: job {job}, counter {total}')


def main(arguments):
    if [len(arguments), *arguments[:1]] not in ([3, 'produce'], [2, 'consume']):
        sys.exit(f'usage: {sys.argv[0]} produce NAME N | consume NAME')
    action, name, *rest = arguments
    jobs = open_object('mq@max_messages=10,max_message_size=64', name)
    lock = open_object('sem@value=1', name)
    counter = open_object('shm', name)
    if action == 'produce':
        produce(jobs, int(rest[0]))
    else:
        consume(jobs, lock, counter)


main(sys.argv[1:])

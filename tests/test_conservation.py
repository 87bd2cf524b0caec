"""Traffic from both sides in a rain of signals: each message arrives once and whole, and no unit is lost or made."""

import collections
import random
import signal
import time
from concurrent import futures

import pytest

import native
from conftest import TEST_LIMIT

MESSAGES = UNITS = 100_000
PAIRS = 8


@pytest.fixture
def traffic(peer):
    """traffic(giving, taking, native target, path, count): 8 + 8 of each move count in all; what the takers say."""
    def run(giving, taking, target, path, count):
        share = count // (2 * PAIRS)
        takers = [peer('traffic', taking, side, share, 0) for side in [target, path] * PAIRS]
        givers = [peer('traffic', giving, side, share, number) for number, side in enumerate([target, path] * PAIRS)]
        by_file = takers[1::2] + givers[1::2]
        outputs = collect(takers + givers, by_file)
        interrupted = [int(output.split()[-1]) for output in outputs]
        assert sum(interrupted) > 0 or count < MESSAGES  # which may be over before a signal meets a sleeper
        return [output.splitlines()[:-1] for output in outputs[:len(takers)]]
    return run


def collect(processes, targets):
    """Their outputs, gathered while signals fly at the targets."""
    with futures.ThreadPoolExecutor(len(processes)) as pool:
        outputs = [pool.submit(process.finish, TEST_LIMIT) for process in processes]
        while not all(output.done() for output in outputs):
            target = random.choice(targets)
            if target.returncode is None:
                target.send_signal(signal.SIGUSR1)
            time.sleep(0.001)
        return [output.result() for output in outputs]


def test_each_message_arrives_once_and_whole(mnt, name, traffic):
    with native.create_queue(name, 10, 512) as queue:
        received = traffic('send', 'receive', f'mq:{name}', mnt / 'mq' / name, MESSAGES)
        assert len(queue) == 0
    counts = collections.Counter(line for lines in received for line in lines)
    assert set(counts.values()) == {1}
    share = MESSAGES // (2 * PAIRS)
    assert counts.keys() == {f'{sender} {number}' for sender in range(2 * PAIRS) for number in range(share)}


def test_messages_of_one_sender_arrive_in_order_at_each_receiver(mnt, name, traffic):
    native.create_queue(name, 10, 512).close()
    for lines in traffic('send', 'receive', f'mq:{name}', mnt / 'mq' / name, MESSAGES // 10):
        latest = {}
        for sender, number in (map(int, line.split()) for line in lines):
            assert number > latest.get(sender, -1)
            latest[sender] = number


def test_no_unit_is_lost_or_made(mnt, name, traffic):
    with native.create_semaphore(name) as semaphore:
        traffic('post', 'wait', f'sem:{name}', mnt / 'sem' / name, UNITS)
        assert semaphore.value == 0

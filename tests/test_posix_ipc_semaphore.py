"""posix_ipc.Semaphore, behaviour by behaviour from posix_ipc's documentation, with sem_open's users as peers."""

import gc
import os
import signal
import threading
import time

import pytest

import native
from conftest import eventually, sleeps_in
from test_posix_ipc_module import posix_ipc  # noqa: F401, a fixture


@pytest.fixture
def create(posix_ipc, name):
    """create(value, ...) makes the semaphore, or with other flags opens it."""
    def semaphore(initial_value=0, flags=posix_ipc.O_CREX, mode=0o600):
        return posix_ipc.Semaphore(f'/{name}', flags, mode, initial_value)
    return semaphore


def polling(child):
    """Whether a child sleeps in poll(2)."""
    return 'poll' in sleeps_in(child.pid)


@pytest.fixture
def handler():
    """handler(function) handles SIGUSR1 while the test lasts."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda function: signal.signal(signal.SIGUSR1, function)
    signal.signal(signal.SIGUSR1, before)


def signal_soon(number=signal.SIGUSR1):
    """Sends this process a signal while its main thread sleeps in poll(2)."""
    def send():
        eventually(lambda: 'poll' in sleeps_in(os.getpid()))
        os.kill(os.getpid(), number)
    thread = threading.Thread(target=send)
    thread.start()
    return thread


# The constructor

def test_initial_value_is_0(create, name):
    assert create().value == native.Semaphore(name).value == 0


@pytest.mark.parametrize('value', [1, 42, native.SEM_VALUE_MAX])
def test_initial_value(create, name, value):
    assert create(value).value == native.Semaphore(name).value == value


@pytest.mark.parametrize('value', [-1, native.SEM_VALUE_MAX + 1])
def test_initial_value_out_of_range(create, mnt, name, value):
    with pytest.raises(ValueError):
        create(value)
    assert not (mnt / 'sem' / name).exists()


def test_initial_value_must_be_a_number(create):
    with pytest.raises(TypeError):
        create('1')


def test_initial_value_counts_only_for_a_new_one(create, posix_ipc, name):
    native.create_semaphore(name, 3).close()
    assert create(7, flags=posix_ipc.O_CREAT).value == 3
    assert create(7, flags=0).value == 3


def test_keyword_arguments(posix_ipc, name):
    semaphore = posix_ipc.Semaphore(name=f'/{name}', flags=posix_ipc.O_CREX, mode=0o640, initial_value=2)
    semaphore.acquire(timeout=0)
    assert semaphore.value == 1


# acquire()

def test_acquire_takes_1(create, name):
    semaphore = create(2)
    assert semaphore.acquire() is None
    assert native.Semaphore(name).value == 1


def test_acquire_waits_for_a_post(create, name, child):
    semaphore = create()
    waiter = child(semaphore.acquire)
    eventually(lambda: polling(waiter))
    assert not waiter.finished
    native.Semaphore(name).post()
    assert waiter.result() is None
    assert semaphore.value == 0


def test_waiting_takes_nothing(create, name, child):
    semaphore = create()
    waiter = child(semaphore.acquire, 30)
    eventually(lambda: polling(waiter))
    with native.Semaphore(name) as peer:
        peer.post()
        eventually(lambda: waiter.finished)
        with pytest.raises(BlockingIOError):
            peer.trywait()


def test_one_post_ends_one_wait(create, child):
    semaphore = create()
    waiters = [child(semaphore.acquire) for _ in range(5)]
    for done in range(1, 6):
        semaphore.release()
        eventually(lambda: sum(waiter.finished for waiter in waiters) == done)
    for waiter in waiters:
        waiter.result()
    assert semaphore.value == 0


def test_acquire_lets_other_threads_run(create):
    semaphore = create()
    threading.Timer(0.05, semaphore.release).start()
    semaphore.acquire()


def test_many_threads_share_one_handle(create):
    semaphore = create()
    def take():
        for _ in range(50):
            semaphore.acquire()
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        semaphore.release()
    for thread in threads:
        thread.join()
    assert semaphore.value == 0


@pytest.mark.parametrize('timeout', [0, 0.0, False])
def test_timeout_0_does_not_wait(create, posix_ipc, timeout):
    semaphore = create(1)
    semaphore.acquire(timeout)
    with pytest.raises(posix_ipc.BusyError):
        semaphore.acquire(timeout)
    assert semaphore.value == 0


@pytest.mark.parametrize('timeout', [1, 0.25, 0.0123])
def test_timeout_is_not_early_and_about_as_late_as_the_native_one(create, posix_ipc, name, timeout):
    semaphore, peer = create(), native.Semaphore(name)
    before = time.monotonic()
    with pytest.raises(posix_ipc.BusyError):
        semaphore.acquire(timeout)
    took = time.monotonic() - before
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        peer.wait(timeout)
    assert timeout <= took < 2 * (time.monotonic() - before) + 0.1


@pytest.mark.parametrize('timeout', [None, 30, 30.5, 10**9, float('inf')])
def test_a_post_ends_the_wait_within_the_timeout(create, name, child, timeout):
    waiter = child(create().acquire, timeout)
    eventually(lambda: polling(waiter))
    native.Semaphore(name).post()
    waiter.result()


@pytest.mark.parametrize('timeout', [0, 1e-9, 0.5])
def test_what_needs_no_waiting_succeeds_with_any_timeout(create, timeout):
    create(1).acquire(timeout)


@pytest.mark.parametrize('timeout', [-1, -0.5, float('nan'), '1', b'1', [], 1j])
def test_what_is_no_timeout(create, timeout):
    semaphore = create(1)
    with pytest.raises(TypeError):
        semaphore.acquire(timeout)
    assert semaphore.value == 1


# Signals

def test_signal_ends_the_wait(create, posix_ipc, handler):
    seen = []
    semaphore = create()
    handler(lambda *_: seen.append(semaphore.value))
    sender = signal_soon()
    with pytest.raises(posix_ipc.SignalError):
        semaphore.acquire()
    sender.join()
    assert seen == [0]
    semaphore.release()
    semaphore.acquire(0)


def test_signal_ends_the_wait_with_a_timeout(create, posix_ipc, handler):
    handler(lambda *_: None)
    sender = signal_soon()
    with pytest.raises(posix_ipc.SignalError):
        create().acquire(60)
    sender.join()


def test_ignored_signal_does_not_end_the_wait(create, handler):
    semaphore = create()
    handler(signal.SIG_IGN)
    sender = signal_soon()
    later = threading.Timer(0.2, semaphore.release)
    later.start()
    semaphore.acquire()
    sender.join()
    later.join()


def test_keyboard_interrupt_is_itself(create):
    semaphore = create()
    sender = signal_soon(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        semaphore.acquire()
    sender.join()
    assert semaphore.value == 0


def test_exception_of_a_handler_is_signal_error(create, posix_ipc, handler):
    def fail(*_):
        raise LookupError('the handler')
    handler(fail)
    sender = signal_soon()
    with pytest.raises(posix_ipc.SignalError) as caught:
        create().acquire()
    sender.join()
    causes = []
    error = caught.value
    while error := error.__cause__:
        causes.append(type(error))
    assert LookupError in causes


def test_post_made_by_the_handler_is_taken(create, handler):
    semaphore = create()
    handler(lambda *_: semaphore.release())
    sender = signal_soon()
    semaphore.acquire()
    sender.join()
    assert semaphore.value == 0


def test_wait_in_another_thread_goes_on(create, handler):
    semaphore = create()
    handler(lambda *_: None)
    thread = threading.Thread(target=semaphore.acquire)
    thread.start()
    eventually(lambda: 'poll' in sleeps_in(os.getpid(), thread.native_id))
    os.kill(os.getpid(), signal.SIGUSR1)
    semaphore.release()
    thread.join()


def test_an_event_loops_wakeup_descriptor_gets_the_signal(create, posix_ipc, handler):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler(lambda *_: None)
    before = signal.set_wakeup_fd(writing)
    try:
        sender = signal_soon()
        with pytest.raises(posix_ipc.SignalError):
            create().acquire()
        sender.join()
        assert signal.set_wakeup_fd(before) == writing
        assert os.read(reading, 9) == bytes([signal.SIGUSR1])
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


# release()

def test_release_adds_1(create, name):
    semaphore = create()
    for _ in range(3):
        assert semaphore.release() is None
    assert native.Semaphore(name).value == 3


def test_release_ends_a_native_wait(create, name, child):
    semaphore = create()
    waiter = child(lambda: native.Semaphore(name).wait())
    eventually(lambda: 'futex' in sleeps_in(waiter.pid))
    semaphore.release()
    waiter.result()


def test_release_past_the_maximum(create, posix_ipc):
    semaphore = create(native.SEM_VALUE_MAX)
    with pytest.raises(posix_ipc.Error):
        semaphore.release()
    assert semaphore.value == native.SEM_VALUE_MAX


# close() and unlink()

def test_closed_handle(create, posix_ipc, mnt, name):
    semaphore = create(1)
    assert semaphore.close() is None
    for use in semaphore.acquire, semaphore.release, semaphore.close, lambda: semaphore.value, semaphore.__enter__:
        with pytest.raises(posix_ipc.ExistentialError):
            use()
    assert (semaphore.name, str(semaphore), semaphore.mode) == (f'/{name}', f'/{name}', 0o600)
    semaphore.unlink()
    assert not (mnt / 'sem' / name).exists()


def test_close_leaves_the_semaphore_and_other_handles(create):
    closed, other = create(2), create(flags=0)
    closed.close()
    other.acquire()
    assert create(flags=0).value == 1


def test_unlinked_semaphore_goes_on_for_its_users(create, posix_ipc, name):
    semaphore, peer = create(), native.Semaphore(name)
    assert semaphore.unlink() is None
    with pytest.raises(posix_ipc.ExistentialError):
        create(flags=0)
    peer.post(2)
    semaphore.acquire()
    semaphore.acquire(5)
    with pytest.raises(posix_ipc.BusyError):
        semaphore.acquire(0.05)
    semaphore.release()
    assert semaphore.value == peer.value == 1


def test_unlinked_name_is_free_for_another(create):
    old = create(1)
    old.unlink()
    new = create(5)
    old.acquire()
    assert (old.value, new.value) == (0, 5)


def test_unlink_twice(create, posix_ipc):
    semaphore = create()
    semaphore.unlink()
    with pytest.raises(posix_ipc.ExistentialError):
        semaphore.unlink()


def test_collected_handles_hold_no_descriptors(create):
    create(1)
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(100):
        with create(flags=0):
            pass
    gc.collect()
    assert len(os.listdir('/proc/self/fd')) == before


# The context manager

def test_with_acquires_and_releases(create, posix_ipc, name):
    peer = None
    with create(1) as semaphore:
        peer = native.Semaphore(name)
        assert semaphore.value == peer.value == 0
        with pytest.raises(posix_ipc.BusyError):
            semaphore.acquire(0)
    assert semaphore.value == peer.value == 1


def test_with_releases_after_an_exception_and_passes_it_on(create):
    semaphore = create(1)
    with pytest.raises(LookupError):
        with semaphore:
            raise LookupError
    assert semaphore.value == 1


# Processes

def test_fork_shares_the_handle(create, child):
    semaphore = create()
    child(semaphore.release).result()
    semaphore.acquire(0)
    waiter = child(semaphore.acquire)
    semaphore.release()
    waiter.result()


def test_lock_between_processes(create, posix_ipc, name, tmp_path, child):
    create(1)
    counter = tmp_path / 'counter'
    counter.write_text('0')
    def count():
        semaphore = posix_ipc.Semaphore(f'/{name}')
        for _ in range(50):
            with semaphore:
                counter.write_text(str(int(counter.read_text()) + 1))
    for counting in [child(count) for _ in range(4)]:
        counting.result()
    assert counter.read_text() == '200'

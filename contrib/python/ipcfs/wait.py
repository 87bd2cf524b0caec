"""Waiting for an object, in a way that a time limit or a signal can end."""

import errno
import os
import select
import signal
import time

LONGEST = 86400  # seconds in one poll, which takes no more than 2**31 milliseconds


def seconds(timeout):
    """Checks a timeout: None, or an int or float of 0 or more. TypeError for all else, also for a negative number."""
    if timeout is None or isinstance(timeout, (int, float)) and timeout >= 0:
        return timeout
    raise TypeError('the timeout must be None or a number of seconds, 0 or more')


def until_done(attempt, fd, event, timeout):
    """What attempt() returns once it no longer raises BlockingIOError; it sleeps in poll(2) for `event` on `fd`.

    It is tried at least once, and what can be done at once never fails for lack of time. BlockingIOError: timeout is 0.
    TimeoutError: it has waited that many seconds. InterruptedError: a signal ended the wait (see Signals).
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        return attempt()
    except BlockingIOError:
        if timeout == 0:
            raise
    with Signals() as signals:
        poll = select.poll()
        poll.register(fd, event)
        if signals.fd is not None:
            poll.register(signals.fd, select.POLLIN)
        while True:
            left = LONGEST if deadline is None else max(0, min(deadline - time.monotonic(), LONGEST))
            interrupted = signals.end(lambda: poll.poll(left * 1000))
            try:
                return attempt()
            except BlockingIOError:
                if interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR)) from None
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


class Signals:
    """Notices the signals that Python has a handler for.

    Python hides EINTR: its calls run the handler and go back to sleep (PEP 475). What it does offer is a descriptor
    that its handler writes the signal's number to, for the main thread, where the handlers run. Elsewhere `fd` is None
    and no signal is noticed.
    """

    def __enter__(self):
        self.seen = b''
        self.fd, self.report = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self.report, False)
        try:
            self.before = signal.set_wakeup_fd(self.report, warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            self.close()
        return self

    def __exit__(self, *_):
        if self.fd is None:
            return
        signal.set_wakeup_fd(self.before)
        if self.arrived() and self.before != -1:  # an event loop's
            os.write(self.before, self.seen)
        self.close()

    def close(self):
        os.close(self.fd)
        os.close(self.report)
        self.fd = None

    def arrived(self):
        """Whether there has been a signal."""
        try:
            self.seen += os.read(self.fd, 4096)
        except BlockingIOError:
            pass
        return bool(self.seen)

    def end(self, sleep):
        """Whether a signal ended sleep(). A handler's exception is then InterruptedError, but for KeyboardInterrupt."""
        if self.fd is None:
            return bool(sleep() and False)
        try:
            sleep()
            return self.arrived()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if not self.arrived():
                raise
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR)) from error

"""mq_notify(3): being told, once, that a queue has stopped being empty.

A process has at most one request a queue, whichever of its descriptors it used, and closing any of them withdraws it.
So requests are kept by queue here, and not by handle.
"""

import errno
import os
import select
import threading

from . import mount

requests = {}  # key of the queue → Request; also one that has been answered, until the next or a close


def key(fd):
    """What identifies the queue that is open there."""
    queue = os.fstat(fd)
    return queue.st_dev, queue.st_ino


def ask(mqd, name, wanted):
    """Replaces this process's request on a queue by one for a signal number or a (function, parameter) pair.

    BlockingIOError EBUSY: another process has one. FileNotFoundError: the queue has been unlinked.
    """
    withdraw(mqd)
    queue = key(mqd)
    request = Request(queue, name)
    requests[queue] = request  # before it can be answered: the handler of its signal may ask again at once
    try:
        if isinstance(wanted, tuple):
            request.by_thread(*wanted)
        else:
            os.write(request.fd, b'%d' % wanted)
    except BaseException:
        if requests.get(queue) is request:
            del requests[queue]
        raise


def withdraw(mqd):
    """Withdraws this process's request on a queue, if there is one."""
    request = requests and requests.pop(key(mqd), None)
    if request:
        request.withdraw()


class Request:
    """An open file of the notify view. Whoever may still use its descriptors refers to it: the last one's end closes them."""

    def __init__(self, queue, name):
        self.withdrawn = self.withdrawal = -1  # a pipe, for the waiting thread
        self.fd = os.open(mount.path('mq', name, 'notify'), os.O_RDWR | os.O_NONBLOCK)
        if key(self.fd) != queue:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def by_thread(self, function, parameter):
        self.withdrawn, self.withdrawal = os.pipe()
        answered = self.answered()
        threading.Thread(target=self.wait, args=(answered, function, parameter), daemon=True).start()

    def answered(self):
        """Registers, unless it has, and says whether the answer is there."""
        try:
            return bool(os.pread(self.fd, 64, 0))
        except BlockingIOError as error:
            if error.errno != errno.EAGAIN:
                raise
            return False

    def wait(self, answered, function, parameter):
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(self.withdrawn, select.POLLIN)
        while not answered:
            if self.withdrawn in dict(poll.poll()):
                return
            answered = self.answered()
        function(parameter)

    def withdraw(self):
        os.write(self.fd, b'cancel')
        if self.withdrawal != -1:
            os.write(self.withdrawal, b'\n')

    def close(self):
        for fd in self.fd, self.withdrawn, self.withdrawal:
            if fd != -1:
                os.close(fd)
        self.fd = self.withdrawn = self.withdrawal = -1

    def __del__(self):
        if hasattr(self, 'fd'):
            self.close()


def forget():
    """In a forked child: the requests are the parent's, and must not outlive it here."""
    for request in requests.values():
        request.close()
    requests.clear()


os.register_at_fork(after_in_child=forget)

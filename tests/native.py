"""POSIX IPC as libc has it, and the few system calls that Python hides or retries.

Every call raises OSError with libc's errno, EINTR too. Names are without the leading slash, str or bytes, as on the
mount. Times are seconds.
"""

import collections
import ctypes
import errno
import os
import time

libc = ctypes.CDLL(None, use_errno=True)

SEM_VALUE_MAX = 2**31 - 1
MQ_PRIO_MAX = 32768


class timespec(ctypes.Structure):
    _fields_ = [('tv_sec', ctypes.c_long), ('tv_nsec', ctypes.c_long)]


class mq_attr(ctypes.Structure):
    _fields_ = [(field, ctypes.c_long) for field in ('mq_flags', 'mq_maxmsg', 'mq_msgsize', 'mq_curmsgs')]
    _fields_ += [('reserved', ctypes.c_long * 4)]


class sigevent(ctypes.Structure):
    _fields_ = [('sigev_value', ctypes.c_void_p), ('sigev_signo', ctypes.c_int), ('sigev_notify', ctypes.c_int),
                ('padding', ctypes.c_char * 48)]


SIGEV_SIGNAL, SIGEV_NONE = 0, 1

for function, result in (('sem_open', ctypes.c_void_p), ('read', ctypes.c_ssize_t), ('pread', ctypes.c_ssize_t),
                         ('write', ctypes.c_ssize_t), ('mq_receive', ctypes.c_ssize_t),
                         ('mq_timedreceive', ctypes.c_ssize_t), ('syscall', ctypes.c_long)):
    getattr(libc, function).restype = result


def call(function, *arguments):
    ctypes.set_errno(0)
    result = getattr(libc, function)(*arguments)
    if result == -1 or (result is None and function == 'sem_open'):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), function)
    return result


def posix_name(name):
    return b'/' + os.fsencode(name)


def deadline(seconds):
    at = time.clock_gettime_ns(time.CLOCK_REALTIME) + int(seconds * 1e9)
    return ctypes.byref(timespec(at // 10**9, at % 10**9))


def sem_unlink(name):
    call('sem_unlink', posix_name(name))


def shm_unlink(name):
    call('shm_unlink', posix_name(name))


def mq_unlink(name):
    call('mq_unlink', posix_name(name))


def shm_open(name, flags=os.O_RDWR, mode=0o600):
    """A file descriptor, the caller's to close."""
    return call('shm_open', posix_name(name), flags, ctypes.c_uint(mode))


class Semaphore:
    def __init__(self, name, flags=0, mode=0o600, value=0):
        self.name = name
        self.address = ctypes.c_void_p(call('sem_open', posix_name(name), flags, ctypes.c_uint(mode),
                                            ctypes.c_uint(value)))

    def post(self, times=1):
        for _ in range(times):
            call('sem_post', self.address)

    def wait(self, timeout=None):
        if timeout is None:
            call('sem_wait', self.address)
        else:
            call('sem_timedwait', self.address, deadline(timeout))

    def trywait(self):
        call('sem_trywait', self.address)

    @property
    def value(self):
        value = ctypes.c_int()
        call('sem_getvalue', self.address, ctypes.byref(value))
        return value.value

    def close(self):
        call('sem_close', self.address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def create_semaphore(name, value=0, mode=0o600):
    """A new semaphore; a failure where it exists."""
    return Semaphore(name, os.O_CREAT | os.O_EXCL, mode, value)


QueueAttributes = collections.namedtuple('QueueAttributes', 'flags max_messages max_message_size current_messages')


class Queue:
    def __init__(self, name, flags=os.O_RDWR, mode=0o600, max_messages=None, max_message_size=None):
        self.name = name
        attributes = None
        if max_messages is not None:
            attributes = ctypes.byref(mq_attr(0, max_messages, max_message_size, 0))
        self.descriptor = call('mq_open', posix_name(name), flags, ctypes.c_uint(mode), attributes)

    @property
    def attributes(self):
        attributes = mq_attr()
        call('mq_getattr', self.descriptor, ctypes.byref(attributes))
        return QueueAttributes(attributes.mq_flags, attributes.mq_maxmsg, attributes.mq_msgsize, attributes.mq_curmsgs)

    def __len__(self):
        return self.attributes.current_messages

    def send(self, message, priority=0, timeout=None):
        arguments = self.descriptor, message, ctypes.c_size_t(len(message)), ctypes.c_uint(priority)
        if timeout is None:
            call('mq_send', *arguments)
        else:
            call('mq_timedsend', *arguments, deadline(timeout))

    def receive(self, timeout=None):
        """The message and its priority."""
        size = self.attributes.max_message_size
        message, priority = ctypes.create_string_buffer(size), ctypes.c_uint()
        arguments = self.descriptor, message, ctypes.c_size_t(size), ctypes.byref(priority)
        if timeout is None:
            length = call('mq_receive', *arguments)
        else:
            length = call('mq_timedreceive', *arguments, deadline(timeout))
        return message.raw[:length], priority.value

    def notify(self, signal):
        """Ask for this signal when the queue stops being empty; None withdraws it."""
        event = signal and ctypes.byref(sigevent(None, signal, SIGEV_SIGNAL))
        call('mq_notify', self.descriptor, event)

    def close(self):
        call('mq_close', self.descriptor)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def create_queue(name, max_messages=10, max_message_size=64, mode=0o600, flags=0):
    """A new queue, open both ways; a failure where it exists. Small, as RLIMIT_MSGQUEUE is."""
    return Queue(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | flags, mode, max_messages, max_message_size)


# By kind, as the mount's directories are called

CREATE = {
    'sem': lambda name, mode=0o600: create_semaphore(name, mode=mode).close(),
    'shm': lambda name, mode=0o600: os.close(shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)),
    'mq': lambda name, mode=0o600: create_queue(name, mode=mode).close(),
}
UNLINK = {'sem': sem_unlink, 'shm': shm_unlink, 'mq': mq_unlink}


def stat(kind, name):
    """fstat of the object that libc opens under this name."""
    if kind == 'sem':
        status = os.stat(b'/dev/shm/sem.' + os.fsencode(name))  # not after sem_open, whose mmap counts as an access
        Semaphore(name).close()
        return status
    fd = shm_open(name, os.O_RDONLY) if kind == 'shm' else Queue(name, os.O_RDONLY).descriptor
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def exists(kind, name):
    try:
        stat(kind, name)
    except FileNotFoundError:
        return False
    return True


def list_queues():
    """The names of all queues of this IPC namespace, read from a mount of mqueuefs that nobody else sees. Root only."""
    FSOPEN, FSCONFIG, FSMOUNT, CMD_CREATE, CLOEXEC = 430, 431, 432, 6, 1
    context = call('syscall', ctypes.c_long(FSOPEN), b'mqueue', CLOEXEC)
    try:
        call('syscall', ctypes.c_long(FSCONFIG), context, CMD_CREATE, None, None, 0)
        root = call('syscall', ctypes.c_long(FSMOUNT), context, CLOEXEC, 0)
    finally:
        os.close(context)
    listing = os.open('.', os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    try:
        return os.listdir(listing)
    finally:
        os.close(listing)
        os.close(root)


def read(fd, size):
    """One read(2): unlike os.read, a signal ends it with EINTR."""
    buffer = ctypes.create_string_buffer(size)
    length = call('read', fd, buffer, ctypes.c_size_t(size))
    return buffer.raw[:length]


def pread(fd, size, offset):
    buffer = ctypes.create_string_buffer(size)
    length = call('pread', fd, buffer, ctypes.c_size_t(size), ctypes.c_long(offset))
    return buffer.raw[:length]


def write(fd, data):
    """One write(2), as read."""
    return call('write', fd, data, ctypes.c_size_t(len(data)))


def die_with_parent():
    PR_SET_PDEATHSIG, SIGKILL = 1, 9
    call('prctl', PR_SET_PDEATHSIG, SIGKILL)


def discard(unlink, name):
    """Remove an object that may be there."""
    try:
        unlink(name)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise

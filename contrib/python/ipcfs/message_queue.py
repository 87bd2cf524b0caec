"""mq_overview(7)."""

import operator
import os
import select

from . import handle, notification as notifications, wait
from .errors import PermissionsError, reported


class MessageQueue(handle.Handle):
    """MessageQueue(name, flags=0, mode=0o600, max_messages=QUEUE_MESSAGES_MAX_DEFAULT,
    max_message_size=QUEUE_MESSAGE_SIZE_MAX_DEFAULT, read=True, write=True): a handle to a message queue.

    name: str or bytes, starting with a slash; None, with O_CREX, for one that is chosen.
    flags: 0 opens what exists; O_CREAT creates it unless it exists, when mode and the two limits count for nothing;
    O_CREX creates it and nothing else; O_NONBLOCK makes `block` False.
    mode: permissions of a created queue, less the umask.
    max_messages: how many messages it holds before send() waits. max_message_size: bytes in the longest.
    read, write: whether this handle may receive, and send. At least one of them.

    ExistentialError: it does not exist, or with O_CREX does. PermissionsError. ValueError: bad name, flags or limits.
    OSError: no room for one more queue.
    """

    # The descriptor is of a view that never waits, whatever O_NONBLOCK says: that flag is then free to hold `block`,
    # for all who share the descriptor, as in the original.
    __slots__ = ('_mqd', '_read', '_write', '_max_messages', '_max_message_size')

    kind, noun = 'mq', 'queue'

    def __init__(self, name, flags=0, mode=0o600, max_messages=None, max_message_size=None, read=True, write=True):
        if not read and not write:
            raise ValueError('read and write cannot both be False')
        self._read, self._write = bool(read), bool(write)
        access = os.O_RDWR if read and write else os.O_RDONLY if read else os.O_WRONLY
        flags &= os.O_CREAT | os.O_EXCL | os.O_NONBLOCK
        wanted = {'max_messages': max_messages, 'max_message_size': max_message_size} if flags & os.O_CREAT else {}
        options = [f'{limit}={operator.index(value)}' for limit, value in wanted.items() if value is not None]
        self._mqd = self._open(access, name, flags, mode, 'nonblock', 'priority', *options)
        try:
            self._max_messages = self._attribute(self._mqd, 'max_messages')
            self._max_message_size = self._attribute(self._mqd, 'max_message_size')
        except BaseException:
            os.close(self._mqd)
            raise

    def _until_done(self, attempt, event, timeout):
        timeout = wait.seconds(timeout)
        with reported(self._subject):
            return wait.until_done(attempt, self._mqd, event, timeout if self.block else 0)

    def send(self, message, timeout=None, priority=0):
        """Sends a message: bytes or the like, or str, which is sent as UTF-8. It may be empty.

        timeout: where the queue is full and `block` True: None waits without limit, 0 not at all, else it is seconds to
        wait at most. priority: 0 to QUEUE_PRIORITY_MAX.

        BusyError: the queue is full, or stayed so. SignalError: as Semaphore.acquire. PermissionsError: opened with
        write=False. ExistentialError: closed. ValueError: longer than max_message_size, or no such priority.
        """
        if not self._write:
            raise PermissionsError(f'{self._subject}: opened with write=False')
        data = message.encode() if isinstance(message, str) else memoryview(message)
        line = b'%d %b' % (operator.index(priority), data)
        self._until_done(lambda: os.write(self._mqd, line), select.POLLOUT, timeout)

    def receive(self, timeout=None):
        """Takes the oldest message of the highest priority: a tuple of the message (bytes) and its priority.

        timeout: where the queue is empty and `block` True, as for send().

        BusyError: the queue is empty, or stayed so. SignalError: as Semaphore.acquire. PermissionsError: opened with
        read=False. ExistentialError: closed.
        """
        if not self._read:
            raise PermissionsError(f'{self._subject}: opened with read=False')
        size = self._max_message_size + len('32767 ')
        line = self._until_done(lambda: os.pread(self._mqd, size, 0), select.POLLIN, timeout)
        priority, _, message = line.partition(b' ')
        return message, int(priority)

    def request_notification(self, notification=None):
        """Asks to be told, once, when the queue next goes from empty to holding a message.

        notification: a signal's number; or a tuple (function, parameter): function(parameter) is called in a thread of
        its own; or None to ask no longer. Each replaces what this process has asked of this queue, by any handle.

        BusyError: another process has asked. ValueError: not such a notification. ExistentialError: closed, or unlinked.
        """
        valid = notification is None or isinstance(notification, int) or (
            isinstance(notification, tuple) and len(notification) == 2 and callable(notification[0]))
        if not valid:
            raise ValueError('the notification must be None, a signal number, or a tuple (function, parameter)')
        with reported(self._subject):
            if notification is None:
                notifications.withdraw(self._mqd)
            else:
                notifications.ask(self._mqd, self._name, notification)

    def close(self):
        """Ends the use of this handle, and withdraws what this process has asked in request_notification().

        It is not closed when the handle is collected. ExistentialError: closed already.
        """
        mqd, self._mqd = self._mqd, -1
        with reported(self._subject):
            try:
                notifications.withdraw(mqd)
            finally:
                os.close(mqd)

    def unlink(self):
        """Removes the name. The queue goes when nobody has it open any more. ExistentialError: the name is gone."""
        unlink_message_queue(self._name)

    def fileno(self):
        """The same as mqd."""
        return self._mqd

    @property
    def mqd(self):
        """The queue's descriptor, -1 once closed. Read-only.

        select, poll, selectors and the like say when it holds a message (reading) or has room (writing).
        """
        return self._mqd

    @property
    def block(self):
        """Whether send() and receive() wait. It belongs to the descriptor: a forked child shares it."""
        with reported(self._subject):
            return os.get_blocking(self._mqd)

    @block.setter
    def block(self, block):
        with reported(self._subject):
            os.set_blocking(self._mqd, bool(block))

    @property
    def max_messages(self):
        """How many messages the queue can hold. Read-only."""
        return self._max_messages

    @property
    def max_message_size(self):
        """How many bytes a message can have. Read-only."""
        return self._max_message_size

    @property
    def current_messages(self):
        """How many messages the queue holds now. Read-only. ExistentialError: closed."""
        return self._attribute(self._mqd, 'current_messages')

    def __repr__(self):
        return (f'{super().__repr__()[:-1]}, max_message_size={self._max_message_size}, '
                f'max_messages={self._max_messages}, read={self._read}, write={self._write})')


def unlink_message_queue(name):
    """Removes a queue's name. ExistentialError: there is none. PermissionsError. ValueError: too long."""
    handle.unlink(MessageQueue, name)

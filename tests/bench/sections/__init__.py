"""What is measured, in the order of a whole run: a row is a name, the group that it belongs to, and what it does."""

from sections import calls, daemon, pairs, scale, shm

SECTIONS = [
    ('shm', 'shm', shm.memory, 'shared memory: /dev/shm against shm/'),
    ('single', 'calls', calls.single, 'single operations, by 1, 2, 4 and 16 clients at once'),
    ('lasting', 'calls', calls.lasting, 'single operations for half a second at a time'),
    ('python', 'calls', calls.python, "Python's file I/O against ctypes calls of libc"),
    ('wake', 'calls', pairs.wake, 'how long until a blocked reader has it'),
    ('ping-pong', 'calls', pairs.ping_pong, 'from one process to another and back'),
    ('text', 'calls', pairs.text, 'lines through cat, against a native loop'),
    ('listing', 'calls', scale.listing, 'ls and ls -l of 10, 1,000 and 10,000 semaphores'),
    ('objects', 'calls', scale.objects, 'an operation among 10 and among 10,000 objects'),
    ('parked', 'calls', scale.parked, 'the daemon with 10,000 blocked readers'),
    ('idle', 'idle', daemon.idle, 'what the daemon does when nobody asks'),
    ('cpu', 'cpu', daemon.cpu, 'on one core, on two apart, and with half of one'),
    ('requests', 'requests', daemon.requests, 'how many requests a shell command sends to the daemon'),
]

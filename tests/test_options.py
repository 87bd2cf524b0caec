"""Options in the path, row by row, through cat, echo and Python; native peers see what they did. Framing: test_text."""

import errno
import os
import pathlib
import signal
import stat
import subprocess

import pytest

import native
from conftest import BUILD, PATIENCE, Child, eventually, parked

DEFAULTS = [int(open(f'/proc/sys/fs/mqueue/{what}_default').read()) for what in ('msg', 'msgsize')]


@pytest.fixture
def sh(mnt):
    """sh(command) runs it in the mount: its output. A failure of the command is CalledProcessError."""
    def run(command, status=0):
        done = subprocess.run(['sh', '-c', command], cwd=mnt, capture_output=True, timeout=PATIENCE)
        assert done.returncode == status, done.stderr
        return done.stdout.decode()
    return run


@pytest.fixture
def queue(name):
    with native.create_queue(name, max_messages=4, max_message_size=64) as queue:
        yield queue


def mode_of(kind, name):
    return stat.S_IMODE(native.stat(kind, name).st_mode)


def touch(path, mode=0o666):
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))


def use(path, flags, operation):
    fd = os.open(path, flags)
    try:
        return operation(fd)
    finally:
        os.close(fd)


def read_once(path, flags=0, size=100):
    return use(path, os.O_RDONLY | flags, lambda fd: native.pread(fd, size, 0))


def write_once(path, data, flags=0):
    return use(path, os.O_WRONLY | flags, lambda fd: native.write(fd, data))


def fails(code, function, *arguments):
    with pytest.raises(OSError) as failure:
        function(*arguments)
    assert errno.errorcode[failure.value.errno] == errno.errorcode[code]
    return True


# The grammar

REFUSED = """
sem@ shm@ mq@ sem@, mq@, sem@stat, sem@,stat sem@nonblock,,timeout=1 mq@text,,stream mq@text@stream mq@@text
sem@unknown sem@Stat sem@STAT sem@nonblocking sem@non sem@nonblock=1 sem@nonblock= sem@stat= mq@text=1 mq@stream=1
mq@drain=0 mq@notify=1 sem@=1 sem@= sem@=stat
shm@timeout=1 shm@nonblock shm@value=1 shm@text shm@notify shm@priority shm@priority=1 shm@max_messages=1 shm@stream
sem@size=1 sem@max_messages=1 sem@max_message_size=1 sem@priority sem@priority=1 sem@text sem@stream sem@drain
sem@notify mq@value=1 mq@size=1
sem@mode sem@mode= sem@mode=8 sem@mode=0o600 sem@mode=-600 sem@mode=1000 sem@mode=1777 sem@mode=00600 sem@mode=u+r
sem@mode=600,mode=600 sem@mode=600,mode=640 mq@mode=6:6
sem@timeout sem@timeout= sem@timeout=. sem@timeout=1. sem@timeout=.5 sem@timeout=-1 sem@timeout=+1 sem@timeout=1e3
sem@timeout=1.0000000001 sem@timeout=inf sem@timeout=nan sem@timeout=0x1 sem@timeout=1s sem@timeout=9223372036854775807
sem@timeout=99999999999999999999999999 sem@timeout=1.5.5 sem@timeout=1,timeout=1 mq@timeout=1,5
sem@value sem@value= sem@value=-1 sem@value=+1 sem@value=2147483648 sem@value=4294967296 sem@value=18446744073709551616
sem@value=0x10 sem@value=1.0 sem@value=1K sem@value=one sem@value=1,value=2
shm@size shm@size= shm@size=K shm@size=1k shm@size=1T shm@size=1KB shm@size=1KK shm@size=-1 shm@size=1.5M
shm@size=9223372036854775808 shm@size=8589934592G shm@size=9007199254740992K shm@size=1,size=1
mq@max_messages mq@max_messages= mq@max_messages=0 mq@max_messages=-1 mq@max_messages=2147483648 mq@max_messages=1K
mq@max_messages=1,max_messages=1 mq@max_message_size=0 mq@max_message_size= mq@max_message_size=1x
mq@max_message_size mq@max_message_size=99999999999
mq@priority= mq@priority=-1 mq@priority=32768 mq@priority=65536 mq@priority=4294967296 mq@priority=high
mq@priority,priority mq@priority=1,priority=1 mq@priority,priority=1 mq@priority=1,priority
mq@text,text mq@stream,text,stream mq@drain,drain mq@notify,notify sem@stat,stat sem@nonblock,nonblock
""".split()

TAKEN = """
sem@stat shm@stat mq@stat sem@mode=0 sem@mode=600 sem@mode=0600 shm@mode=0777 mq@mode=7
sem@timeout=0 sem@timeout=1 sem@timeout=0.5 sem@timeout=1.123456789 sem@timeout=0.000000001 mq@timeout=9223372035
sem@value=0 sem@value=2147483647 sem@value=007 shm@size=0 shm@size=1 shm@size=1K shm@size=2M shm@size=3G
shm@size=9223372036854775807 shm@size=8589934591G mq@max_messages=1 mq@max_message_size=1 mq@max_messages=2147483647
mq@priority=0 mq@priority=32767 mq@priority mq@text mq@stream mq@drain mq@notify mq@nonblock sem@nonblock
mq@text,stream,priority mq@priority,stream,text mq@text,drain mq@stream,drain mq@text,priority=5 mq@notify,timeout=1
mq@notify,nonblock mq@mode=600,max_messages=1,max_message_size=1,timeout=1,nonblock,priority=1,text,stream,drain
sem@value=1,mode=600,timeout=1,nonblock shm@size=1M,mode=600
""".split()


@pytest.mark.parametrize('whose', ['root', 'user'])
def test_grammar_refuses_at_look_up_what_is_not_in_it(mnt, child, whose):
    def refusals():
        found = {}
        for directory in REFUSED:
            for path in (mnt / directory, mnt / directory / 'name'):
                try:
                    os.lstat(path)
                    found.setdefault(directory, 0)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        found[directory] = errno.errorcode[error.errno]
        return found
    assert child(refusals, user=None if whose == 'root' else 54321).result() == {}


def test_grammar_takes_what_is_in_it(mnt):
    assert [directory for directory in TAKEN if not os.path.isdir(mnt / directory)] == []


@pytest.mark.parametrize('directory', REFUSED[:3] + ['sem@value=x', 'shm@size=x', 'mq@priority=x', 'mq@nonsense'])
def test_shell_is_told_of_a_bad_option_and_creates_nothing(mnt, name, directory):
    done = subprocess.run(['touch', mnt / directory / name], capture_output=True, text=True)
    assert done.returncode == 1 and 'Invalid argument' in done.stderr
    assert not any(native.exists(kind, name) for kind in ('sem', 'shm', 'mq'))


@pytest.mark.parametrize('directory', ['nothing', 'semaphore', 'se', 'SEM', 'sem:stat', 'semstat', '@stat', '@', 'x@stat',
                                       'sem ', 'm', 'mqs', 'README@stat', 'limits@stat', 'shm+size=1', '.sem'])
def test_root_name_of_no_kind_is_enoent(mnt, directory):
    assert fails(errno.ENOENT, os.lstat, mnt / directory)
    assert fails(errno.ENOENT, os.lstat, mnt / directory / 'name')


def test_only_the_stat_views_are_listed_and_all_list_the_same_objects(mnt, names):
    made = {kind: names() for kind in native.CREATE}
    for kind, name in made.items():
        native.CREATE[kind](name)
    assert {entry for entry in os.listdir(mnt) if '@' in entry} <= {f'{kind}@stat' for kind in made}
    for kind, options in (('sem', ['stat', 'value=3', 'timeout=0']), ('shm', ['stat', 'size=1K', 'mode=600']),
                          ('mq', ['stat', 'text,stream', 'notify', 'priority', 'max_messages=3'])):
        for option in options:
            assert made[kind] in os.listdir(mnt / f'{kind}@{option}')
            assert os.stat(mnt / f'{kind}@{option}' / made[kind]).st_ino == os.stat(mnt / kind / made[kind]).st_ino


@pytest.mark.parametrize('kind, directory', [('sem', 'sem@timeout=1'), ('shm', 'shm@size=3'), ('mq', 'mq@text,stream'),
                                             ('mq', 'mq@priority'), ('sem', 'sem@value=2,mode=600')])
def test_objects_are_made_and_removed_through_a_view(sh, name, kind, directory):
    sh(f'touch {directory}/{name}')
    assert native.exists(kind, name)
    sh(f'rm {directory}/{name}')
    assert not native.exists(kind, name)


# mode

@pytest.mark.parametrize('kind', native.CREATE)
@pytest.mark.parametrize('mode, umask', [(0o600, 0), (0o666, 0o022), (0o660, 0o027), (0o777, 0), (0o640, 0o077), (0, 0),
                                         (0o222, 0)])
def test_mode_takes_the_place_of_the_openers_and_the_umask_applies(mnt, name, child, kind, mode, umask):
    def create():
        os.umask(umask)
        touch(mnt / f'{kind}@mode={mode:o}' / name, 0o644)
    child(create).result()
    assert mode_of(kind, name) == mode & ~umask


@pytest.mark.parametrize('kind', native.CREATE)
def test_mode_with_touch_is_that_of_a_native_creation(sh, names, kind):
    through, beside = names(), names()
    sh(f'umask 027; touch {kind}@mode=666/{through}')
    umask = os.umask(0o027)
    try:
        native.CREATE[kind](beside, mode=0o666)
    finally:
        os.umask(umask)
    assert mode_of(kind, through) == mode_of(kind, beside) == 0o640


@pytest.mark.parametrize('kind', native.CREATE)
def test_mode_of_an_existing_object_stays(sh, name, kind):
    native.CREATE[kind](name, mode=0o600)
    sh(f'touch {kind}@mode=666/{name}; true < {kind}@mode=666/{name}')
    assert mode_of(kind, name) == 0o600


def test_mode_goes_with_the_other_options_of_creation(sh, names):
    queue, semaphore, segment = names(), names(), names()
    sh(f'umask 0; touch mq@mode=622,max_messages=3,max_message_size=17/{queue}'
       f' sem@value=7,mode=646/{semaphore} shm@mode=604,size=2K/{segment}')
    with native.Queue(queue) as opened:
        assert opened.attributes[1:3] == (3, 17)
    with native.Semaphore(semaphore) as opened:
        assert opened.value == 7
    assert native.stat('shm', segment).st_size == 2048
    assert [mode_of(*pair) for pair in (('mq', queue), ('sem', semaphore), ('shm', segment))] == [0o622, 0o646, 0o604]


# value

@pytest.mark.parametrize('value', [0, 1, 32768, native.SEM_VALUE_MAX])
def test_value_of_a_new_semaphore(sh, name, value):
    sh(f'touch sem@value={value}/{name}')
    with native.Semaphore(name) as semaphore:
        assert semaphore.value == value


def test_value_of_an_existing_semaphore_stays(sh, mnt, name):
    with native.create_semaphore(name, value=3) as semaphore:
        sh(f'touch sem@value=9/{name}; cat sem@value=9/{name}; echo 2 > sem@value=9/{name}')
        assert semaphore.value == 4
        assert fails(errno.EEXIST, touch, mnt / 'sem@value=9' / name)
        assert semaphore.value == 4


# size

@pytest.mark.parametrize('text, size', [('0', 0), ('1', 1), ('4095', 4095), ('3K', 3 << 10), ('2M', 2 << 20),
                                        ('1G', 1 << 30), ('010', 10), ('0K', 0)])
def test_size_of_a_new_segment(sh, name, text, size):
    sh(f'touch shm@size={text}/{name}')
    fd = native.shm_open(name, os.O_RDONLY)
    assert os.fstat(fd).st_size == size
    os.close(fd)


@pytest.mark.parametrize('size', [2, 5000])
def test_size_is_set_when_an_existing_segment_is_opened_for_writing(mnt, name, size):
    fd = native.shm_open(name, os.O_RDWR | os.O_CREAT)
    os.write(fd, b'contents')
    use(mnt / f'shm@size={size}' / name, os.O_RDWR, lambda fd: None)
    assert os.pread(fd, 10000, 0) == (b'contents' + bytes(size))[:size]
    os.close(fd)


def test_size_does_nothing_to_a_segment_opened_read_only(sh, mnt, name):
    fd = native.shm_open(name, os.O_RDWR | os.O_CREAT)
    os.write(fd, b'contents')
    assert sh(f'cat shm@size=2/{name}') == 'contents'
    assert use(mnt / 'shm@size=5000' / name, os.O_RDONLY, lambda fd: os.fstat(fd).st_size) == 8
    assert os.fstat(fd).st_size == 8
    os.close(fd)


def test_largest_size_is_as_in_ftruncate(mnt, name):
    fd = native.shm_open(name, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, 2**63 - 1)
    except OSError as error:
        os.ftruncate(fd, 1)
        assert fails(error.errno, os.open, mnt / f'shm@size={2**63 - 1}' / name, os.O_RDWR)
    else:
        use(mnt / f'shm@size={2**63 - 1}' / name, os.O_RDWR, lambda fd: None)
        assert os.fstat(fd).st_size == 2**63 - 1
    os.close(fd)


def test_echo_into_a_segment_of_a_size_leaves_the_size(sh, name):
    sh(f'echo hello > shm@size=4K/{name}')
    fd = native.shm_open(name, os.O_RDONLY)
    assert os.read(fd, 5000) == b'hello\n' + bytes(4090)
    os.close(fd)


# max_messages, max_message_size

@pytest.mark.parametrize('options, expected', [
    ('max_messages=3', (3, DEFAULTS[1])), ('max_message_size=100', (DEFAULTS[0], 100)),
    ('max_messages=1,max_message_size=1', (1, 1)), ('max_message_size=8000,max_messages=2', (2, 8000)),
    ('text', tuple(DEFAULTS))])
def test_attributes_of_a_new_queue(sh, name, options, expected):
    sh(f'touch mq@{options}/{name}')
    with native.Queue(name) as queue:
        assert queue.attributes[1:3] == expected


def test_attributes_of_an_existing_queue_stay(sh, mnt, queue):
    queue.send(b'kept')
    options = 'mq@max_messages=2,max_message_size=8'
    sh(f'touch {options}/{queue.name}; echo a message of more than 8 > {options}/{queue.name}')
    assert queue.attributes[1:] == (4, 64, 2)
    assert fails(errno.EEXIST, touch, mnt / options / queue.name)


def test_attributes_that_the_system_does_not_allow_fail_as_they_do_natively(mnt, name, child):
    limits = [int(open(f'/proc/sys/fs/mqueue/{what}_max').read()) for what in ('msg', 'msgsize')]

    def code(create):
        try:
            create()
        except OSError as error:
            return error.errno
        return 0
    for sizes in ((limits[0] + 1, 10), (1, limits[1] + 1), (65537, 1), (2**31 - 1, 2**31 - 1)):
        path = mnt / 'mq@max_messages={},max_message_size={}'.format(*sizes) / name
        for user in (0, 54321):
            natively = child(code, lambda: native.create_queue(name + 'native', *sizes).close(), user=user).result()
            assert child(code, lambda: touch(path), user=user).result() == natively
            for made in name, name + 'native':
                native.discard(native.mq_unlink, made)


# priority

@pytest.mark.parametrize('priority', [0, 1, 5, native.MQ_PRIO_MAX - 1])
def test_priority_of_every_message_sent(sh, mnt, queue, priority):
    sh(f'echo from the shell > mq@priority={priority}/{queue.name}')
    use(mnt / f'mq@priority={priority}' / queue.name, os.O_WRONLY, lambda fd: [os.write(fd, b'first'), os.write(fd, b'2')])
    assert [queue.receive() for _ in range(3)] == [(message, priority) for message in (b'from the shell\n', b'first', b'2')]


def test_priority_option_changes_nothing_for_a_reader(sh, queue):
    queue.send(b'low', 1)
    queue.send(b'high', 9)
    assert [sh(f'cat mq@priority=5/{queue.name}') for _ in range(2)] == ['high', 'low']


@pytest.mark.parametrize('priority', [0, 7, native.MQ_PRIO_MAX - 1])
@pytest.mark.parametrize('message', [b'', b'x', b'two words\n', b' leading space', b'\0' * 64, bytes(range(64))])
def test_priority_in_band_both_ways(mnt, queue, priority, message):
    path = mnt / 'mq@priority' / queue.name
    assert write_once(path, b'%d %s' % (priority, message)) == len(b'%d ' % priority) + len(message)
    assert queue.receive() == (message, priority)
    queue.send(message, priority)
    assert read_once(path) == b'%d %s' % (priority, message)
    assert len(queue) == 0


def test_priority_in_band_by_echo_and_cat(sh, queue):
    sh(f'echo 5 five > mq@priority/{queue.name}; echo 3 three > mq@priority/{queue.name}')
    assert sh(f'cat mq@priority/{queue.name}') == '5 five\n'
    assert queue.receive() == (b'three\n', 3)


def test_priority_in_band_survives_small_reads(mnt, queue):
    queue.send(b'message', 12345)
    fd = os.open(mnt / 'mq@priority' / queue.name, os.O_RDONLY)
    parts = [os.read(fd, 2) for _ in range(8)]
    assert parts == [b'12', b'34', b'5 ', b'me', b'ss', b'ag', b'e', b'']


@pytest.mark.parametrize('data', [b'x', b'no priority', b' message', b'5', b'5\n', b'5\tx', b'-1 x', b'+1 x', b'32768 x',
                                  b'0x5 x', b'5.0 x', b'99999999999999999999 x', b'five x', b'5x y', b'\n', b'\0 x',
                                  b'4294967301 x'])
def test_write_without_a_good_priority_is_einval_and_sends_nothing(mnt, queue, data):
    assert fails(errno.EINVAL, write_once, mnt / 'mq@priority' / queue.name, data)
    assert len(queue) == 0


def test_bad_priority_is_einval_also_where_the_queue_is_full(mnt, queue):
    for _ in range(4):
        queue.send(b'')
    assert fails(errno.EINVAL, write_once, mnt / 'mq@priority,nonblock' / queue.name, b'none')
    assert fails(errno.EAGAIN, write_once, mnt / 'mq@priority,nonblock' / queue.name, b'1 none')


def test_priority_in_band_does_not_count_to_the_size_of_the_message(mnt, queue):
    path = mnt / 'mq@priority' / queue.name
    assert write_once(path, b'32767 ' + b'x' * 64) == 70
    assert fails(errno.EMSGSIZE, write_once, path, b'1 ' + b'x' * 65)
    assert read_once(path) == b'32767 ' + b'x' * 64


def test_messages_in_band_are_ordered_by_priority(mnt, queue):
    fd = os.open(mnt / 'mq@priority' / queue.name, os.O_RDWR)
    for data in b'1 a', b'9 b', b'1 c', b'5 d':
        os.write(fd, data)
    assert [os.pread(fd, 100, 0) for _ in range(4)] == [b'9 b', b'5 d', b'1 a', b'1 c']


# nonblock

def test_nonblock_is_as_o_nonblock(mnt, queue, names):
    path = mnt / 'mq@nonblock' / queue.name
    assert fails(errno.EAGAIN, read_once, path)
    for _ in range(4):
        assert write_once(path, b'message') == 7
    assert fails(errno.EAGAIN, write_once, path, b'message')
    assert len(queue) == 4
    assert read_once(path) == b'message'
    with native.create_semaphore(names(), value=1) as semaphore:
        path = mnt / 'sem@nonblock' / semaphore.name
        assert read_once(path) == b'1\n'
        assert fails(errno.EAGAIN, read_once, path)
        assert write_once(path, b'2') == 1
        assert semaphore.value == 2


def test_nonblock_goes_before_timeout(mnt, queue, sh):
    assert fails(errno.EAGAIN, read_once, mnt / 'mq@nonblock,timeout=1000' / queue.name)
    assert fails(errno.EAGAIN, read_once, mnt / 'mq@timeout=1000,nonblock' / queue.name)
    assert fails(errno.EAGAIN, read_once, mnt / 'mq@timeout=1000' / queue.name, os.O_NONBLOCK)


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_cat_says_that_it_would_block_or_timed_out(mnt, name, kind):
    native.CREATE[kind](name)
    for option, message in (('nonblock', errno.EAGAIN), ('timeout=0.01', errno.ETIMEDOUT), ('timeout=0', errno.ETIMEDOUT)):
        done = subprocess.run(['cat', mnt / f'{kind}@{option}' / name], capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (1, '')
        assert os.strerror(message) in done.stderr


# timeout (how exactly: test_timeouts)

def test_timeout_of_a_semaphore(mnt, name):
    with native.create_semaphore(name, value=1) as semaphore:
        assert read_once(mnt / 'sem@timeout=0' / name) == b'1\n'
        for seconds in '0', '0.000000001', '0.02':
            assert fails(errno.ETIMEDOUT, read_once, mnt / f'sem@timeout={seconds}' / name)
        assert semaphore.value == 0
        semaphore.post()
        assert read_once(mnt / 'sem@timeout=0.000000001' / name) == b'1\n'


def test_timeout_of_a_queue_both_ways(mnt, queue):
    for seconds in '0', '0.000000001', '0.02':
        assert fails(errno.ETIMEDOUT, read_once, mnt / f'mq@timeout={seconds}' / queue.name)
    for number in range(4):
        assert write_once(mnt / 'mq@timeout=0' / queue.name, b'%d' % number) == 1
    for seconds in '0', '0.02':
        assert fails(errno.ETIMEDOUT, write_once, mnt / f'mq@timeout={seconds}' / queue.name, b'late')
    assert [queue.receive()[0] for _ in range(4)] == [b'0', b'1', b'2', b'3']
    assert len(queue) == 0


@pytest.mark.parametrize('options', ['timeout=1000', 'timeout=9223372035', 'timeout=1000,text', 'timeout=1000,stream'])
def test_operation_in_time_succeeds(mnt, queue, child, options):
    path = mnt / f'mq@{options}' / queue.name
    reader = child(read_once, path)
    eventually(lambda: parked(path, reader))
    queue.send(b'in time\n')
    assert reader.result() == b'in time\n'
    for _ in range(4):
        queue.send(b'')
    writer = child(write_once, path, b'in time\n')
    eventually(lambda: parked(path, writer))
    queue.receive()
    assert writer.result() == 8


def test_post_never_times_out(mnt, name):
    with native.create_semaphore(name) as semaphore:
        assert write_once(mnt / 'sem@timeout=0' / name, b'5') == 1
        assert semaphore.value == 5


def test_late_reader_leaves_the_unit_to_the_next(mnt, name, child):
    with native.create_semaphore(name) as semaphore:
        patient = child(read_once, mnt / 'sem' / name)
        eventually(lambda: parked(mnt / 'sem' / name, patient))
        assert fails(errno.ETIMEDOUT, read_once, mnt / 'sem@timeout=0.01' / name)
        assert patient.asleep
        semaphore.post()
        assert patient.result() == b'1\n'
        assert semaphore.value == 0


def test_signal_ends_a_wait_that_has_a_timeout(mnt, queue, child):
    def interrupted():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        return read_once(mnt / 'mq@timeout=1000' / queue.name)
    reader = child(interrupted)
    eventually(lambda: parked(mnt / 'mq' / queue.name, reader))
    reader.send_signal(signal.SIGUSR1)
    with pytest.raises(InterruptedError):
        reader.result()


# stat: what it says is in test_attributes

@pytest.mark.parametrize('kind', native.CREATE)
@pytest.mark.parametrize('flags', [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC])
def test_stat_view_is_not_to_be_written(mnt, name, kind, flags):
    native.CREATE[kind](name)
    assert fails(errno.EACCES, os.open, mnt / f'{kind}@stat' / name, flags)
    done = subprocess.run(['sh', '-c', f'echo 1 > {kind}@stat/{name}'], cwd=mnt, capture_output=True, text=True)
    assert done.returncode != 0 and 'ermission denied' in done.stderr
    assert native.exists(kind, name)


@pytest.mark.parametrize('kind', native.CREATE)
def test_stat_view_makes_nothing(mnt, name, kind):
    for flags in os.O_RDONLY, os.O_RDONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT:
        with pytest.raises(OSError):
            os.open(mnt / f'{kind}@stat' / name, flags)
    assert not native.exists(kind, name)


@pytest.mark.parametrize('kind', native.CREATE)
def test_stat_view_of_nothing_is_enoent(mnt, name, kind):
    assert fails(errno.ENOENT, os.open, mnt / f'{kind}@stat' / name, os.O_RDONLY)


def test_grep_prints_all_objects(sh, names):
    made = {kind: names() for kind in native.CREATE}
    for kind, name in made.items():
        native.CREATE[kind](name)
    # What else is on this machine may be no semaphore, may come and go: the status is not ours.
    printed = sh('grep -s . *@stat/* || true').splitlines()
    for line in (f'sem@stat/{made["sem"]}:value 0', f'shm@stat/{made["shm"]}:size 0',
                 f'mq@stat/{made["mq"]}:current_messages 0', f'mq@stat/{made["mq"]}:mode 0600'):
        assert line in printed


# The table of errors, where no option has brought it up; permissions are in test_users

@pytest.mark.parametrize('kind', native.CREATE)
def test_existing_and_missing_and_long_names(mnt, name, kind):
    longest = 251 if kind == 'sem' else 255
    native.CREATE[kind](name)
    for view in kind, f'{kind}@mode=600':
        assert fails(errno.EEXIST, touch, mnt / view / name)
        assert fails(errno.ENOENT, os.open, mnt / view / f'{name}missing', os.O_RDWR)
        assert fails(errno.ENOENT, os.unlink, mnt / view / f'{name}missing')
        assert fails(errno.ENAMETOOLONG, touch, mnt / view / name.ljust(longest + 1, 'x'))
        touch(mnt / view / name.ljust(longest, 'x'))
        assert native.exists(kind, name.ljust(longest, 'x'))
        native.UNLINK[kind](name.ljust(longest, 'x'))


def test_posts_past_the_maximum_are_eoverflow_and_none_happens(mnt, name):
    with native.create_semaphore(name, value=native.SEM_VALUE_MAX - 5) as semaphore:
        for view in 'sem', 'sem@timeout=0', 'sem@nonblock':
            assert fails(errno.EOVERFLOW, write_once, mnt / view / name, b'6')
        assert semaphore.value == native.SEM_VALUE_MAX - 5
        assert write_once(mnt / 'sem' / name, b'5') == 1
        assert semaphore.value == native.SEM_VALUE_MAX


def test_out_of_queue_memory_is_the_native_error(mnt, name, child):
    import resource

    def code(create):
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (1000, 1000))
        try:
            create()
        except OSError as error:
            return error.errno
        return 0
    natively = child(code, lambda: native.create_queue(name + 'native', 10, 64), user=54321).result()
    assert natively == errno.EMFILE
    here = lambda: touch(mnt / 'mq@max_messages=10,max_message_size=64' / name)
    assert child(code, here, user=54321).result() == natively
    assert not native.exists('mq', name)


def test_out_of_queues_is_enospc_as_natively(child):
    """In an IPC namespace of its own, which has room for 2."""
    def code(create):
        try:
            create()
        except OSError as error:
            return error.errno
        return 0

    def as_user(create):
        return Child(code, [create], user=54321).result()

    def own_namespace():
        NEWNS, NEWIPC = 0x20000, 0x8000000
        native.call('unshare', NEWNS | NEWIPC)
        subprocess.run(['mount', '--make-rprivate', '/'], check=True)
        subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], check=True)
        folder = pathlib.Path('/mnt/ipc')
        folder.mkdir()
        with open('/proc/sys/fs/mqueue/queues_max', 'w') as limit:
            limit.write('2')
        subprocess.run([BUILD / 'ipcfs', folder], check=True)
        try:
            return [as_user(lambda: native.create_queue('one', 1, 1).close()), as_user(lambda: touch(folder / 'mq/two')),
                    as_user(lambda: native.create_queue('three', 1, 1).close()), as_user(lambda: touch(folder / 'mq/three')),
                    sorted(os.listdir(folder / 'mq'))]
        finally:
            subprocess.run(['umount', folder], check=True)
    assert child(own_namespace).result() == [0, 0, errno.ENOSPC, errno.ENOSPC, ['one', 'two']]

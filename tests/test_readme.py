"""The files in the root. What README says to type, and nothing else, is what these shells type."""

import os
import re
import signal
import subprocess

import pytest

import native
from conftest import BUILD, PATIENCE, eventually, parked


@pytest.fixture
def readme(mnt):
    return (mnt / 'README').read_text()


@pytest.fixture
def start(mnt, children):
    """start(command) runs it in a shell in the mount."""
    started = []

    def shell(command):
        started.append(subprocess.Popen(['sh', '-c', command], cwd=mnt, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, preexec_fn=native.die_with_parent))
        return started[-1]
    yield shell
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def typed(start):
    def run(command):
        process = start(command)
        output, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, ''), command
        return output
    return run


def commands(readme):
    """What it says to type: the first column of what is indented, and what follows ";  " there."""
    found = []
    for line in readme.splitlines():
        if line.startswith('  '):
            for part in re.split(r';  +', line.strip()):
                found.append(re.split(r'  +', part)[0])
    return found


def form(readme, pattern, name):
    """The one command of README that fits, for this name in place of its own."""
    found = {command for text in readme.splitlines() for command in re.findall(pattern, text)}
    assert len(found) == 1, (pattern, found)
    return re.sub(r'(?<=/)(lock|jobs|frame)\b', name, found.pop())


# One screen

def test_readme_fits_one_screen(readme):
    lines = readme.splitlines()
    assert readme.endswith('\n')
    assert len(lines) <= 24
    assert [line for line in lines if len(line) > 80] == []
    assert readme.isascii() and '\t' not in readme


def test_readme_and_limits_are_read_by_cat_and_are_as_long_as_they_say(mnt):
    for file in 'README', 'limits':
        shown = subprocess.run(['cat', mnt / file], capture_output=True, check=True).stdout
        assert shown == (mnt / file).read_bytes()
        assert len(shown) == os.stat(mnt / file).st_size
        with pytest.raises(OSError):
            open(mnt / file, 'w')
        with pytest.raises(OSError):
            os.unlink(mnt / file)


def test_readme_shows_each_operation(readme):
    for what in ('touch sem', 'cat sem', 'echo > sem', 'rm ', 'touch mq', 'cat mq', 'truncate', 'timeout=', 'nonblock',
                 'priority', 'text', 'stream', 'notify', 'stat', 'max_messages', 'limits'):
        assert what in readme, what


# Two shells

def test_two_shells_pass_a_message_with_priority_5(readme, typed, start, mnt, name):
    make = form(readme, r'touch mq\S*/jobs', name)
    receive = form(readme, r'cat mq/jobs', name)
    send = form(readme, r'echo \w+ > mq@priority=5/jobs', name)
    typed(make)
    one = start(receive)
    eventually(lambda: parked_at(mnt, name, 1))
    typed(send)
    word = re.match(r'echo (\w+)', send)[1]
    assert one.communicate(timeout=PATIENCE) == (f'{word}\n', '')
    typed(send)
    with native.Queue(name) as queue:
        assert queue.receive(timeout=PATIENCE) == (f'{word}\n'.encode(), 5)


def test_urgent_message_overtakes(readme, typed, name):
    plain = form(readme, r'echo \w+ > mq/jobs', name)
    urgent = form(readme, r'echo \w+ > mq@priority=5/jobs', name)
    typed(form(readme, r'touch mq\S*/jobs', name))
    typed(plain)
    typed(urgent)
    receive = form(readme, r'cat mq/jobs', name)
    assert [typed(receive), typed(receive)] == [re.match(r'echo (\w+)', each)[1] + '\n' for each in (urgent, plain)]


def parked_at(mnt, name, count, kind='mq', attribute='waiting_receivers'):
    return int(os.getxattr(mnt / kind / name, f'user.ipcfs.{attribute}')) == count


def test_two_shells_pass_a_lock_with_a_timeout_of_2_seconds(readme, typed, start, mnt, name):
    make = form(readme, r'touch sem@value=1/lock', name)
    take = form(readme, r'cat sem@timeout=2/lock(?! *>)', name)
    give = form(readme, r'echo > sem/lock', name)
    typed(make)
    assert typed(take) == '1\n'
    late = start(take)
    output, errors = late.communicate(timeout=PATIENCE)
    assert late.returncode == 1 and output == '' and 'timed out' in errors
    for _ in range(3):  # in 2 seconds, on a slow machine too
        second = start(take)
        try:
            eventually(lambda: parked_at(mnt, name, 1, 'sem', 'waiting') or second.poll() is not None)
            typed(give)
            output, errors = second.communicate(timeout=PATIENCE)
            if second.returncode == 0:
                break
            assert typed(take) == '1\n'
        finally:
            second.kill()
    assert (output, errors) == ('1\n', '')
    with native.Semaphore(name) as semaphore:
        assert semaphore.value == 0


def test_lock_in_a_script_as_readme_has_it(readme, typed, name):
    typed(form(readme, r'touch sem@value=1/lock', name))
    script = form(readme, r'cat sem@timeout=2/lock >.*', name)
    assert 'work' in script
    assert typed(script.replace('work', 'echo working')) == 'working\n'
    with native.Semaphore(name) as semaphore:
        assert semaphore.value == 1


def test_everything_that_readme_says_to_type_works(readme, mnt, names, tmp_path):
    """One after the other, as they stand but for the names; those that would sleep are given a moment."""
    name = names()
    (tmp_path / 'list').write_text('one\ntwo\n')
    done = []
    for command in commands(readme):
        if command.split()[0] not in ('touch', 'cat', 'echo', 'truncate', 'rm', 'ls', 'grep'):
            continue
        command = re.sub(r'(?<=/)(lock|jobs|frame)\b', name, command).replace('cat list', f'cat {tmp_path}/list')
        shell = subprocess.run(['timeout', '-s', 'INT', '1', 'sh', '-c', command], cwd=mnt, capture_output=True, text=True)
        fine = shell.returncode in (0, 124, -signal.SIGINT) or 'timed out' in shell.stderr
        # Whatever else is on the machine may be no semaphore, or not for us.
        fine = fine or all(name not in line and '*' not in line for line in shell.stderr.splitlines())
        assert fine, (command, shell.stderr)
        done.append(command)
    assert len(done) > 15
    native.discard(native.sem_unlink, name)


# limits

def limits(mnt):
    lines = (mnt / 'limits').read_text().splitlines()
    assert all(re.fullmatch(r'[A-Z_]+ \S+', line) for line in lines)
    return dict(line.split(' ') for line in lines)


def test_limits_are_those_of_the_system(mnt):
    found = limits(mnt)
    getconf = lambda name: subprocess.run(['getconf', name], capture_output=True, text=True, check=True).stdout.strip()
    proc = lambda name: open(f'/proc/sys/fs/mqueue/{name}').read().strip()
    version = subprocess.run([BUILD / 'ipcfs', '--version'], capture_output=True, text=True, check=True).stdout
    assert found.pop('VERSION') in version.split()
    assert found.pop('SHARED_MEMORY_MMAP') in ('0', '1')
    assert found == {
        'SEMAPHORE_TIMEOUT_SUPPORTED': '1', 'SEMAPHORE_VALUE_SUPPORTED': '1', 'MESSAGE_QUEUES_SUPPORTED': '1',
        'SEMAPHORE_VALUE_MAX': getconf('SEM_VALUE_MAX'), 'QUEUE_MESSAGES_MAX_DEFAULT': proc('msg_default'),
        'QUEUE_MESSAGE_SIZE_MAX_DEFAULT': proc('msgsize_default'),
        'QUEUE_PRIORITY_MAX': str(os.sysconf('SC_MQ_PRIO_MAX') - 1), 'USER_SIGNAL_MIN': str(int(signal.SIGRTMIN)),
        'USER_SIGNAL_MAX': str(int(signal.SIGRTMAX)), 'PAGE_SIZE': str(os.sysconf('SC_PAGESIZE'))}


def test_shared_memory_mmap_says_whether_mappings_work(mnt, name):
    import mmap
    native.CREATE['shm'](name)
    fd = os.open(mnt / 'shm' / name, os.O_RDWR)
    os.ftruncate(fd, 4096)
    try:
        mmap.mmap(fd, 4096).close()
        works = '1'
    except OSError:
        works = '0'
    assert limits(mnt)['SHARED_MEMORY_MMAP'] == works


def test_defaults_are_what_a_queue_gets(mnt, name):
    (mnt / 'mq' / name).touch()
    with native.Queue(name) as queue:
        assert [str(number) for number in queue.attributes[1:3]] == \
            [limits(mnt)[f'QUEUE_{what}_MAX_DEFAULT'] for what in ('MESSAGES', 'MESSAGE_SIZE')]


def test_highest_priority_is_the_last_that_goes(mnt, name):
    highest = int(limits(mnt)['QUEUE_PRIORITY_MAX'])
    with native.create_queue(name) as queue:
        (mnt / f'mq@priority={highest}' / name).write_bytes(b'x')
        assert queue.receive() == (b'x', highest)
        with pytest.raises(OSError):
            queue.send(b'x', highest + 1)
    assert not os.path.exists(mnt / f'mq@priority={highest + 1}')

"""What everyday tools and languages make of the mount."""

import os
import shutil
import stat
import subprocess

import pytest

import native


@pytest.fixture
def sh(mnt):
    """sh(script, name…) runs bash in the mount, with the names as $1, $2…, and returns its output, in bytes."""
    def run(script, *names):
        done = subprocess.run(['bash', '-ec', script, 'bash', *names], cwd=mnt, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b'')
        return done.stdout
    return run


@pytest.fixture
def queue(name):
    with native.create_queue(name) as queue:
        yield queue


@pytest.fixture
def semaphore(name):
    with native.create_semaphore(name, 3) as semaphore:
        yield semaphore


# Queues

def test_cat_receives_one_message(sh, queue, name):
    queue.send(b'job 1\n')
    queue.send(b'job 2\n')
    assert sh('cat mq/$1', name) == b'job 1\n'
    assert len(queue) == 1


def test_echo_and_printf_send_a_message_each(sh, queue, name):
    sh('echo "a job" > mq/$1; printf "a b" > mq/$1; printf "%s" "$PWD" >> mq/$1; printf "" > mq/$1', name)
    assert [queue.receive()[0] for _ in range(3)] == [b'a job\n', b'a b', sh('printf %s "$PWD"')]
    assert len(queue) == 0


def test_lines_in_one_write_are_one_message(sh, queue, name):
    """Of printf the program: bash's own writes each line by itself."""
    sh('env printf "a\\nb" > mq/$1', name)
    assert (queue.receive()[0], len(queue)) == (b'a\nb', 0)


def test_emptying_redirection_sends_nothing(sh, queue, name):
    sh(': > mq/$1; > mq/$1', name)
    assert len(queue) == 0


def test_head_cuts_a_message(sh, queue, name):
    queue.send(b'0123456789')
    assert sh('head -c 3 mq/$1', name) == b'012'
    assert len(queue) == 0


def test_dd_moves_one_message(sh, queue, name, names):
    with native.create_queue(names()) as other:
        queue.send(b'x' * 64)
        queue.send(b'left')
        sh('dd if=mq/$1 of=mq/$2 bs=64 count=1 status=none', name, other.name)
        assert (len(queue), other.receive()[0]) == (1, b'x' * 64)


def test_cp_receives_into_a_file_and_sends_from_one(sh, queue, name, tmp_path):
    queue.send(b'message')
    sh('cp mq/$1 $2; cp $2 mq/$1', name, tmp_path / 'copy')
    assert (tmp_path / 'copy').read_bytes() == b'message'
    assert queue.receive() == (b'message', 0)


def test_bash_reads_a_line(sh, queue, name):
    queue.send(b'a line\n')
    queue.send(b'another')
    assert sh('read -r line < mq/$1; echo "[$line]"; read -r line < mq/$1 || echo "[$line]"', name) \
        == b'[a line]\n[another]\n'


def test_bash_substitutes_a_message(sh, queue, name):
    queue.send(b'two\nlines\n')
    queue.send(b'second')
    assert sh('echo "[$(<mq/$1)]"; echo "[$(cat mq/$1)]"', name) == b'[two\nlines]\n[second]\n'


def test_loop_of_cats_takes_message_after_message(sh, queue, name):
    for number in range(5):
        queue.send(b'%d ' % number)
    assert sh('for i in 1 2 3 4 5; do cat mq/$1; done', name) == b'0 1 2 3 4 '


def test_shells_talk_through_a_queue(sh, name):
    assert sh('touch mq/$1; (for i in {1..50}; do echo $i > mq/$1; done) & for i in {1..50}; do cat mq/$1; done; wait',
              name).split() == [b'%d' % number for number in range(1, 51)]


# Semaphores

def test_cat_waits_and_echo_posts(sh, semaphore, name):
    assert sh('cat sem/$1', name) == b'1\n'
    assert semaphore.value == 2
    sh('echo > sem/$1; echo 5 > sem/$1; printf 2 > sem/$1', name)
    assert semaphore.value == 10


def test_cat_and_cp_move_a_unit(sh, semaphore, name, names):
    with native.create_semaphore(names()) as other:
        sh('cat sem/$1 > sem/$2; cp sem/$1 sem/$2', name, other.name)
        assert (semaphore.value, other.value) == (1, 2)


def test_bash_waits_on_a_semaphore(sh, semaphore, name):
    assert sh('read -r units < sem/$1; echo $units $(<sem/$1)', name) == b'1 1\n'
    assert semaphore.value == 1


def test_lock_between_shells(sh, name, tmp_path):
    (tmp_path / 'count').write_text('0\n')
    sh('''touch sem/$1; echo > sem/$1
          count() { for i in {1..20}; do cat sem/$1 > /dev/null; n=$(<$2); echo $((n + 1)) > $2; echo > sem/$1; done; }
          count "$@" & count "$@" & count "$@" & wait''', name, tmp_path / 'count')
    assert (tmp_path / 'count').read_text() == '60\n'


# Shared memory

def test_tools_work_on_a_segment_as_on_any_file(sh, name):
    sh('truncate -s 1M shm/$1; printf hello | dd of=shm/$1 bs=1 seek=100 conv=notrunc status=none', name)
    fd = native.shm_open(name)
    assert os.fstat(fd).st_size == 2**20
    assert os.pread(fd, 7, 99) == b'\0hello\0'
    os.close(fd)
    assert sh('tail -c +101 shm/$1 | head -c 5', name) == b'hello'
    assert sh('sha256sum < shm/$1', name) == sh('sha256sum < /dev/shm/$1', name)
    assert sh('echo appended >> shm/$1; tail -n 1 shm/$1 | tr -d "\\0"; stat -c %s shm/$1', name) \
        == b'helloappended\n1048585\n'


def test_cp_and_mv_of_segments(sh, name, names):
    one, two = names(), names()
    sh('seq 100000 > shm/$1; cp shm/$1 shm/$2; mv shm/$2 shm/$3; cmp shm/$1 shm/$3; test ! -e shm/$2', name, one, two)
    assert native.exists('shm', two)
    sh('cp -p shm/$1 /tmp/$1; cmp /tmp/$1 shm/$1; cp --sparse=always /tmp/$1 shm/$2; cmp shm/$1 shm/$2; rm /tmp/$1',
       name, one)


# All kinds

@pytest.fixture(params=['sem', 'shm', 'mq'])
def kind(request):
    return request.param


def test_touch_creates_and_touches(sh, kind, name):
    sh('touch $1/$2', kind, name)
    assert native.exists(kind, name)
    assert sh('touch $1/$2; touch -d @1000000000 $1/$2; stat -c %Y $1/$2', kind, name) == b'1000000000\n'


def test_ls_shows_type_mode_owner_and_size(sh, kind, name):
    sh('touch $1/$2; chmod 640 $1/$2', kind, name)
    assert sh('ls -l $1/$2', kind, name).split()[:5] == [b'-rw-r-----', b'1', b'root', b'root', b'0']
    assert name.encode() in sh('ls $1', kind).splitlines()
    assert sh('stat -c "%F %s %a" $1/$2', kind, name) == b'regular empty file 0 640\n'


def test_test_and_find(sh, kind, name):
    sh('test ! -e $1/$2; touch $1/$2; test -f $1/$2 -a -r $1/$2 -a -w $1/$2 -a ! -s $1/$2', kind, name)
    assert sh('find . -type f -path "./$1/$2"', kind, name) == f'./{kind}/{name}\n'.encode()


def test_mktemp_creates_exclusively(sh, kind, name):
    path = sh('mktemp -p $1 $2XXXXXX', kind, name).decode().strip()
    assert stat.S_IMODE(native.stat(kind, path.removeprefix(f'{kind}/')).st_mode) == 0o600


def test_rm_removes(sh, kind, name):
    sh('touch $1/$2a $1/$2b; rm $1/$2a; rm -f $1/$2b $1/$2c', kind, name)
    assert not native.exists(kind, f'{name}a') and not native.exists(kind, f'{name}b')


def test_noclobber_makes_a_lock_file(sh, kind, name):
    assert sh('set -C; (: > $1/$2) 2> /dev/null && (: > $1/$2) 2> /dev/null || echo taken', kind, name) == b'taken\n'


@pytest.mark.parametrize('kind', ['sem', 'mq'])
def test_mv_refuses_and_leaves_all_as_it_was(mnt, kind, names):
    old, new = names(), names()
    native.CREATE[kind](old)
    (mnt / kind / old).write_bytes(b'1')
    done = subprocess.run(['mv', mnt / kind / old, mnt / kind / new], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and 'not supported' in done.stderr
    assert native.exists(kind, old) and not native.exists(kind, new)
    fd = os.open(mnt / kind / old, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(fd, 10).strip() == b'1'


# Languages. Each program copies the message that it reads from its first argument to standard output, whole, and then
# sends its second argument. Java has no argument for the name of a class, so it is in a file of its own.

PROGRAMS = {
    'python3': ['python3', '-c', '''
import sys
with open(sys.argv[1], 'rb') as file:
    sys.stdout.buffer.write(file.read())
with open(sys.argv[1], 'w') as file:
    file.write(sys.argv[2])
'''],
    'node': ['node', '-e', '''
const fs = require('fs')
process.stdout.write(fs.readFileSync(process.argv[1]))
fs.writeFileSync(process.argv[1], process.argv[2])
'''],
    'perl': ['perl', '-e', '''
open my $file, '<', $ARGV[0] or die $!;
local $/;
print <$file>;
open $file, '>', $ARGV[0] or die $!;
print $file $ARGV[1];
close $file or die $!;
'''],
    'java': ['java', 'Copy.java'],
}
JAVA = '''
import java.nio.file.*;
class Copy {
    public static void main(String[] arguments) throws Exception {
        Path path = Path.of(arguments[0]);
        System.out.write(Files.readAllBytes(path));
        System.out.flush();
        Files.writeString(path, arguments[1]);
    }
}
'''


@pytest.fixture(params=PROGRAMS)
def program(request, tmp_path):
    """run(path, answer) is what the language read."""
    command = PROGRAMS[request.param]
    if not shutil.which(command[0]):
        pytest.skip(f'no {command[0]} on this machine')
    (tmp_path / 'Copy.java').write_text(JAVA)

    def run(path, answer):
        return subprocess.run([*command, path, answer], cwd=tmp_path, check=True, capture_output=True,
                              timeout=120).stdout
    return run


@pytest.mark.parametrize('length', [1, 8192])
def test_language_reads_a_whole_message_and_sends_one(mnt, name, program, length):
    message = os.urandom(length)
    with native.create_queue(name, 2, 8192) as queue:
        queue.send(message)
        queue.send(b'not read')
        assert program(mnt / 'mq' / name, 'an answer') == message
        assert [queue.receive()[0] for _ in range(2)] == [b'not read', b'an answer']


def test_language_waits_and_posts(mnt, name, program):
    with native.create_semaphore(name, 2) as semaphore:
        assert program(mnt / 'sem' / name, '5') == b'1\n'
        assert semaphore.value == 6


def test_language_reads_and_writes_shared_memory(mnt, name, program):
    path = mnt / 'shm' / name
    path.write_bytes(b'before' * 1000)
    assert program(path, 'after') == b'before' * 1000
    assert path.read_bytes() == b'after'


@pytest.mark.parametrize('length', [1, 8192])
def test_python_reads_a_whole_message_every_way(mnt, name, length):
    message = os.urandom(length)
    path = mnt / 'mq' / name

    def by_parts(fd):
        return b''.join(iter(lambda: os.read(fd, 1000), b''))
    ways = [lambda: open(path, 'rb').read(), lambda: open(path, 'rb', buffering=0).read(), path.read_bytes,
            lambda: os.read(os.open(path, os.O_RDONLY), 8192), lambda: os.pread(os.open(path, os.O_RDONLY), 8192, 0),
            lambda: by_parts(os.open(path, os.O_RDONLY))]
    with native.create_queue(name, 1, 8192) as queue:
        for way in ways:
            queue.send(message)
            assert way() == message
            assert len(queue) == 0

"""Limits are the caller's own: what it has used up, and what it may not use, is neither another's nor the daemon's."""

import errno
import os
import pathlib
import resource
import signal

import pytest

import access
import native
from access import KINDS
from conftest import Child, eventually
from test_users import MEMBER, OTHER, OWNER, make

# Users of this run alone: what counts against a user is counted on the whole machine.
FIRST, SECOND = 1000000 + 2 * os.getpid(), 1000001 + 2 * os.getpid()
QUEUE = 'mq@max_messages=2,max_message_size=8'


def code(operation):
    try:
        operation()
    except OSError as error:
        return errno.errorcode[error.errno]
    return 'done'


def open_file(path, flags=os.O_RDWR, mode=0o600):
    os.close(os.open(path, flags, mode))


# ---- RLIMIT_MSGQUEUE ----

def create_natively(name):
    native.create_queue(name, 2, 8).close()


def creating_here(mnt):
    return lambda name: open_file(mnt / QUEUE / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def fill(create, name, limit):
    """How many queues this user gets until it is refused, and the refusal."""
    for number in range(limit):
        refusal = code(lambda: create(f'{name}{number}'))
        if refusal != 'done':
            return number, refusal
    return limit, 'done'


@pytest.mark.parametrize('soft, hard', [(4000, 4000), (2000, 6000)])
def test_a_user_gets_as_many_queues_here_as_natively(mnt, names, child, soft, hard):
    """Of either kind, which count together; and what is removed counts no more."""
    here, natively, mixed = names(), names(), names()

    def run():
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))
        found = [fill(create_natively, natively, 50)]
        [native.mq_unlink(f'{natively}{number}') for number in range(found[0][0])]
        found.append(fill(creating_here(mnt), here, 50))
        found.append(code(lambda: create_natively(mixed)))
        os.unlink(mnt / 'mq' / f'{here}0')
        found.append(code(lambda: create_natively(mixed)))
        found.append(code(lambda: creating_here(mnt)(f'{mixed}more')))
        return found
    first, second, *rest = child(run, user=FIRST, group=FIRST).result()
    assert 3 < first[0] < 50 and first[1] == 'EMFILE'
    assert second == first
    assert rest == ['EMFILE', 'done', 'EMFILE']


def test_users_use_up_their_own_and_root_and_others_go_on(mnt, names, child):
    def hold(name, limit=4000):
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (limit, limit))
        return fill(creating_here(mnt), name, 50)
    given = [names() for _ in range(4)]
    first, second = (child(hold, name, user=user, group=user).result() for name, user in zip(given, (FIRST, SECOND)))
    assert first == second and first[1] == 'EMFILE'
    again = child(hold, given[2], user=FIRST, group=FIRST).result()
    assert again == (0, 'EMFILE')
    assert code(lambda: creating_here(mnt)(given[3])) == 'done'
    assert native.stat('mq', given[3]).st_uid == 0


def test_limit_of_root_counts_for_root(mnt, names, child):
    """Root's own, lowered: not what the daemon has."""
    name = names()

    def run():
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (1, 1))
        return code(lambda: create_natively(name)), code(lambda: creating_here(mnt)(name))
    assert child(run).result() == ('EMFILE', 'EMFILE')


def test_limit_of_the_daemon_is_not_that_of_its_callers(name, child):
    """Its soft limit; above its hard one it can't go for anybody without CAP_SYS_RESOURCE."""
    def lower():
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (1, resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]))

    def run():
        access.leave_mounts_to_others()
        with access.daemon(prepare=lower) as (mnt, _):
            return Child(code, [lambda: creating_here(mnt)(name)], user=FIRST, group=FIRST).result()
    assert child(run).result() == 'done'


def test_queues_of_a_set_user_id_program_count_against_who_runs_it(mnt, names, child):
    """Against the real uid, as natively, though they belong to the effective one."""
    natively, here, after = names(), names(), names()

    def run(create, name):
        os.setresgid(FIRST, SECOND, SECOND)
        os.setresuid(FIRST, SECOND, SECOND)
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (4000, 4000))
        return fill(create, name, 50)

    def count_as_owner():
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (4000, 4000))
        made = fill(create_natively, after, 50)[0]
        [native.mq_unlink(f'{after}{number}') for number in range(made)]
        return made
    free = child(count_as_owner, user=SECOND, group=SECOND).result()
    found = {}
    for way, create, name in ('natively', create_natively, natively), ('here', creating_here(mnt), here):
        made = child(run, create, name).result()
        owner = {native.stat('mq', f'{name}{number}').st_uid for number in range(made[0])}
        found[way] = made, owner, child(count_as_owner, user=SECOND, group=SECOND).result()
        [native.mq_unlink(f'{name}{number}') for number in range(made[0])]
    assert found['natively'] == ((free, 'EMFILE'), {SECOND}, free)
    assert found['here'] == found['natively']


# ---- RLIMIT_FSIZE ----

LIMIT = 5000


def too_large(operation):
    """What happens beyond RLIMIT_FSIZE: the error, and whether SIGXFSZ came."""
    signals = []
    signal.signal(signal.SIGXFSZ, lambda *_: signals.append('SIGXFSZ'))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    return code(operation), signals


def with_segment(path, operation, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        return operation(fd)
    finally:
        os.close(fd)


GROWING = {
    'write': lambda path: with_segment(path, lambda fd: os.pwrite(fd, b'x', LIMIT)),
    'append': lambda path: with_segment(path, lambda fd: os.write(fd, b'x'), os.O_WRONLY | os.O_APPEND),
    'truncate': lambda path: os.truncate(path, LIMIT + 2),
    'ftruncate': lambda path: with_segment(path, lambda fd: os.ftruncate(fd, LIMIT + 2)),
    'fallocate': lambda path: with_segment(path, lambda fd: os.posix_fallocate(fd, 0, LIMIT + 2)),
}
PASSTHROUGH = pytest.mark.parametrize('options', [[], ['-o', 'no_passthrough']], ids=['passthrough', 'no passthrough'])


@PASSTHROUGH
@pytest.mark.parametrize('way', GROWING)
def test_segment_grows_no_further_than_the_callers_limit(mount, names, child, options, way):
    natively, here = names(), names()
    mnt = mount(*options).path
    paths = pathlib.Path('/dev/shm', natively), mnt / 'shm' / here
    for path in paths:
        path.write_bytes(bytes(LIMIT))
    found = [child(too_large, lambda path=path: GROWING[way](path)).result() for path in paths]
    assert found[0] == ('EFBIG', ['SIGXFSZ'])
    assert found[1] == found[0]
    assert os.stat(f'/dev/shm/{here}').st_size == LIMIT


@PASSTHROUGH
def test_write_across_the_callers_limit_is_cut_there(mount, names, child, options):
    here = names()
    path = mount(*options).path / 'shm' / here
    path.touch()

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        return with_segment(path, lambda fd: os.write(fd, bytes(LIMIT + 10)))
    assert child(write).result() == LIMIT
    assert os.stat(f'/dev/shm/{here}').st_size == LIMIT


def test_size_in_the_path_obeys_the_callers_limit(mnt, name, child):
    """As shm_open and ftruncate do, but for the signal."""
    made = child(too_large, lambda: open_file(mnt / f'shm@size={LIMIT + 1}' / name, os.O_RDWR | os.O_CREAT)).result()
    assert made[0] == 'EFBIG'
    assert not native.exists('shm', name) or native.stat('shm', name).st_size == 0
    fine = child(too_large, lambda: open_file(mnt / f'shm@size={LIMIT}' / name, os.O_RDWR | os.O_CREAT)).result()
    assert fine == ('done', [])
    assert native.stat('shm', name).st_size == LIMIT


@PASSTHROUGH
def test_file_size_limit_of_the_daemon_is_not_that_of_its_callers(name, child, options):
    """Semaphores, which are files too, can be made under any."""
    def lower():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))

    def use(mnt):
        path = mnt / 'shm' / name
        path.touch()
        return [code(lambda: os.truncate(path, 100)),
                code(lambda: with_segment(path, lambda fd: os.pwrite(fd, b'x', 10000))), path.stat().st_size,
                code(lambda: with_segment(path, lambda fd: os.posix_fallocate(fd, 0, 20000))),
                code((mnt / 'sem' / name).touch), code((mnt / QUEUE / name).touch)]

    def run():
        access.leave_mounts_to_others()
        with access.daemon(*options, prepare=lower) as (mnt, _):
            return Child(use, [mnt], user=OTHER, group=OTHER).result()
    assert child(run).result() == ['done', 'done', 10001, 'done', 'done', 'done']


# ---- RLIMIT_NOFILE ----

def test_daemon_raises_its_limit_of_descriptors_to_the_hard_one(mount):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, soft), hard))
    try:
        mounted = mount()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


HARD = 256


def hog(mnt, kind, name, report, closing):
    """Open as many files as there are to be had, say how many and why no more, and keep them until told."""
    files, refusal = [], 'done'
    while refusal == 'done' and len(files) < 3000:
        number = len(files) if kind == 'sem' else 0  # all opens of one semaphore cost the daemon no more than the first
        refusal = code(lambda: files.append(os.open(mnt / kind / f'{name}{number}', os.O_RDWR)))
    os.write(report, f'{len(files)} {refusal}'.encode())
    os.close(report)
    os.read(closing, 1)


def as_member(operation):
    os.seteuid(MEMBER)
    try:
        return operation()
    finally:
        os.seteuid(0)


def use_open_files(files, waiting_reader):
    """By operation, what comes of it."""
    sem, shm, mq, other_mq = files
    steps = {
        'post': lambda: os.write(sem, b'2'),
        'wait': lambda: os.pread(sem, 9, 0),
        'fstat of a semaphore': lambda: os.fstat(sem),
        'attribute of a semaphore': lambda: os.getxattr(sem, 'user.ipcfs.value'),
        'poll of a semaphore': lambda: access.poll(sem),
        'write': lambda: os.pwrite(shm, b'data', 0),
        'read': lambda: os.pread(shm, 4, 0),
        'fstat of a segment': lambda: os.fstat(shm),
        'seek to the end': lambda: os.lseek(shm, 0, os.SEEK_END),
        'ftruncate': lambda: os.ftruncate(shm, 100),
        'send': lambda: os.pwrite(mq, b'message', 0),
        'the one who waited receives': lambda: waiting_reader.result(),
        'send again': lambda: os.pwrite(mq, b'message', 0),
        'receive': lambda: os.pread(mq, 9, 0),
        'fstat of a queue': lambda: os.fstat(mq),
        'poll of a queue': lambda: access.poll(mq),
        'wait for a queue': lambda: access.wait_for_signal(lambda: native.pread(other_mq, 9, 0)),
    }
    return {step: code(operation) for step, operation in steps.items()}


GOES_ON = {'wait for a queue': 'EINTR'}


@pytest.mark.parametrize('kind', KINDS)
def test_one_who_opens_all_there_is_stops_nobody_else(names, child, kind):
    """It gets EMFILE or ENFILE. Others go on with what they have open, and some is left to open more, also for the
    next who opens all it can. After both have closed theirs, all is as before."""
    name, own = names(), names()

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))

    def descriptors(process):
        return len(os.listdir(f'/proc/{process.pid}/fd'))

    def start_hog(mnt, user):
        outcome, report = os.pipe()
        closing, close = os.pipe()
        greedy = Child(hog, [mnt, kind, name, report, closing], user=user, group=user)
        os.close(report)
        count, refusal = os.read(outcome, 100).decode().split()
        return greedy, close, int(count), refusal

    def run():
        access.leave_mounts_to_others()
        for which in KINDS:
            make(which, f'{own}{which}', 0o666)
            for number in range(HARD + 10 if which == kind == 'sem' else 1):
                make(which, f'{name}{number}', 0o666)
        make('mq', f'{own}empty', 0o666)
        with native.Queue(f'{own}empty') as queue, native.Queue(f'{own}mq') as other:
            queue.receive(), other.receive()
        with access.daemon(prepare=limit) as (mnt, process):
            open_all = lambda: [os.open(mnt / which / f'{own}{it}', os.O_RDWR)
                                for which, it in (('sem', 'sem'), ('shm', 'shm'), ('mq', 'mq'), ('mq', 'empty'))]
            open_and_close = lambda: [os.close(file) for file in open_all()]
            files = as_member(open_all)
            waiting = Child(os.pread, [files[2], 9, 0], user=MEMBER, group=MEMBER)
            eventually(lambda: waiting.asleep)
            before = descriptors(process)
            first, second = start_hog(mnt, OTHER), start_hog(mnt, OWNER)
            used = use_open_files(files, waiting)
            new = {
                'open': as_member(lambda: code(open_and_close)),
                'open as root': code(open_and_close),
                'list': as_member(lambda: code(lambda: os.listdir(mnt / kind))),
                'stat': as_member(lambda: code((mnt / kind / f'{own}{kind}').stat)),
                'create': as_member(lambda: code(lambda: [(access.new_in(mnt, which) / f'{own}new').touch()
                                                          for which in KINDS])),
                'remove': as_member(lambda: code(lambda: [(mnt / which / f'{own}new').unlink() for which in KINDS])),
            }
            for greedy, close, *_ in first, second:
                os.write(close, b'x')
                greedy.result()
            eventually(lambda: descriptors(process) <= before + 2)  # a queue that is waited for keeps one
            third = start_hog(mnt, OTHER)
            os.write(third[1], b'x')
            third[0].result()
            waiting.kill()
            [os.close(file) for file in files]
            return [hog[2:] for hog in (first, second, third)], used, new
    (first, second, third), used, new = child(run).result()
    assert {first[1], second[1], third[1]} <= {'EMFILE', 'ENFILE'}
    assert HARD > first[0] > second[0] >= 4 and abs(first[0] - third[0]) <= 4
    assert {step: result for step, result in used.items() if result != GOES_ON.get(step, 'done')} == {}
    assert {step: result for step, result in new.items() if result != 'done'} == {}

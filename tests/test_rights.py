"""A request has its caller's rights: those of the thread that calls, whatever it is and wherever it lives."""

import ctypes
import itertools
import os
import pathlib
import queue
import stat
import struct
import subprocess
import threading
import time

import pytest

import access
import native
from access import CAPABILITIES, IDENTITIES, KINDS, answers, differences, excesses, make_pairs
from conftest import BUILD, Child, eventually
from test_users import GROUP, MEMBER, OTHER, OWNER, make

MODES = [0o600, 0o660, 0o666, 0o640, 0o604, 0o606, 0o060, 0o006, 0o040, 0o400, 0o000]
SYS_EXIT, SYS_SETGROUPS = (60, 116) if os.uname().machine == 'x86_64' else (93, 159)


@pytest.fixture
def pairs(mnt, name):
    """pairs(kind) makes objects for a table, one of each mode for native calls and one for the mount."""
    with access.mqueuefs() as queues:
        yield lambda kind, modes=MODES: make_pairs(kind, name, mnt, queues, modes)


def in_thread(function, *arguments):
    """What the function returns, or raises, in a thread of its own."""
    results = queue.Queue()

    def run():
        try:
            results.put((function(*arguments), None))
        except BaseException as error:
            results.put((None, error))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = results.get()
    if error:
        raise error
    return result


def set_groups_of_thread(groups):
    """By the bare call: libc's sets those of all threads."""
    native.call('syscall', ctypes.c_long(SYS_SETGROUPS), len(groups), (ctypes.c_uint32 * len(groups))(*groups))


def act_as(user, group, groups=()):
    """For this thread alone: setfsuid(2) and its kin."""
    set_groups_of_thread(groups)
    for change, identity in (native.libc.setfsgid, group), (native.libc.setfsuid, user):
        change(identity)
        assert change(-1) == identity  # which tells, and changes nothing


def without_access(cells):
    """access(2) alone asks for the real uid."""
    return {cell: pair for cell, pair in cells.items() if not cell[0].startswith('access')}


# ---- Threads ----

@pytest.mark.parametrize('kind', KINDS)
def test_thread_has_the_rights_of_its_own_fsuid_and_groups(pairs, child, kind):
    """In a process of root's, whose other threads stay root."""
    table = pairs(kind)

    def run():
        def as_member():
            act_as(MEMBER, MEMBER, [GROUP])
            return without_access(answers(kind, table))
        found = in_thread(as_member)
        with open(table[-1][2].path):  # mode 0000
            return found
    cells = child(run).result()
    assert differences(cells) == {}
    assert {'done', 'EACCES', 'EPERM'} <= {str(natively) for natively, _ in cells.values()}


def test_threads_of_one_process_create_for_different_users_at_once(mnt, name, child):
    def create(user, number):
        act_as(user, user + 1)
        for kind in KINDS:
            (access.new_in(mnt, kind) / f'{name}{user}-{number}').touch()

    def run():
        threads = [threading.Thread(target=lambda user=user: [create(user, number) for number in range(10)])
                   for user in (OWNER, MEMBER, OTHER)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    child(run).result()
    for kind, user, number in itertools.product(KINDS, (OWNER, MEMBER, OTHER), range(10)):
        status = native.stat(kind, f'{name}{user}-{number}')
        assert (status.st_uid, status.st_gid) == (user, user + 1)


def test_thread_whose_main_thread_has_ended_keeps_its_groups(pairs, child):
    table = pairs('shm')

    def run():
        outcome, report = os.pipe()

        def last_thread():
            main = f'/proc/self/task/{os.getpid()}/stat'
            while pathlib.Path(main).read_text().rsplit(')', 1)[1].split()[0] != 'Z':
                time.sleep(0.001)
            os.write(report, repr(answers('shm', table)).encode())
            os._exit(0)
        if os.fork() == 0:
            threading.Thread(target=last_thread).start()
            native.libc.syscall(ctypes.c_long(SYS_EXIT), 0)
        os.close(report)
        with open(outcome) as file:
            text = file.read()
        os.wait()
        return eval(text)
    cells = child(run, **IDENTITIES['group member']).result()
    assert differences(cells) == {}
    assert cells['open both ways', '0060'] == ('done', 'done')
    assert cells['open both ways', '0606'] == ('EACCES', 'EACCES')


@pytest.mark.parametrize('kind', KINDS)
def test_umask_is_that_of_the_thread(mnt, name, child, kind):
    """Threads may have their own; created natively and here, by open, by mknod and with a mode in the path."""
    masks = [0o000, 0o022, 0o077, 0o137, 0o777]

    def create(mask):
        native.call('unshare', 0x200)  # CLONE_FS
        os.umask(mask)
        native.CREATE[kind](f'{name}{mask}n', 0o666)
        os.close(os.open(access.new_in(mnt, kind) / f'{name}{mask}open', os.O_CREAT | os.O_RDWR, 0o666))
        os.mknod(access.new_in(mnt, kind) / f'{name}{mask}mknod', stat.S_IFREG | 0o666)
        os.close(os.open(access.new_in(mnt, kind, 'mode=666') / f'{name}{mask}view', os.O_CREAT | os.O_RDWR, 0o600))

    def run():
        before = os.umask(0o011)
        [in_thread(create, mask) for mask in masks]
        os.close(os.open(access.new_in(mnt, kind) / f'{name}main', os.O_CREAT | os.O_RDWR, 0o777))
        os.umask(before)
    child(run).result()
    mode = lambda suffix: stat.S_IMODE((mnt / kind / f'{name}{suffix}').stat().st_mode)
    for mask in masks:
        assert mode(f'{mask}n') == 0o666 & ~mask
        for way in 'open', 'mknod', 'view':
            assert (way, mode(f'{mask}{way}')) == (way, 0o666 & ~mask)
    assert mode('main') == 0o766


# ---- Groups ----

@pytest.mark.parametrize('count', [1000, 65536])
def test_the_last_of_many_groups_counts(pairs, child, count):
    table = pairs('sem', [0o060, 0o606])
    groups = list(range(4294967294 - (count - 1), 4294967294)) + [GROUP]
    identity = dict(user=MEMBER, group=MEMBER, groups=groups)

    def run():
        """Each request reads them all."""
        return {mode: (access.answer(access.opening('sem', os.O_RDWR)[0], natively),
                       access.answer(access.opening('sem', os.O_RDWR)[1], here)) for mode, natively, here in table}
    assert child(run, **identity).result() == {'0060': ('done', 'done'), '0606': ('EACCES', 'EACCES')}


def test_groups_are_those_of_now(mnt, name, child):
    """Not of when the process was first seen."""
    make('shm', name, 0o060)
    path = mnt / 'shm' / name

    def run():
        before = access.answer(lambda it: access.open_file(path, os.O_RDWR), None)
        set_groups_of_thread([GROUP])
        with_group = access.answer(lambda it: access.open_file(path, os.O_RDWR), None)
        set_groups_of_thread([])
        return before, with_group, access.answer(lambda it: access.open_file(path, os.O_RDWR), None)

    def become_and_run():
        access.become(MEMBER, MEMBER, capabilities=1 << 6)  # CAP_SETGID
        return run()
    assert child(become_and_run).result() == ('EACCES', 'done', 'EACCES')


# ---- Namespaces ----

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('identity', IDENTITIES)
def test_callers_in_another_pid_namespace_have_their_rights(pairs, child, kind, identity):
    table = pairs(kind)

    def run():
        native.call('unshare', access.NEWPID)
        return Child(answers, [kind, table], **IDENTITIES[identity]).result()
    assert differences(child(run).result()) == {}


IN_PID_NAMESPACE = ['unshare', '--pid', '--fork', '--kill-child']


@pytest.mark.parametrize('kind', KINDS)
def test_daemon_in_another_pid_namespace_gives_nobody_more_rights(name, child, kind):
    """It can't look up the groups and capabilities of those outside, and refuses them; those inside have theirs."""
    command = [*IN_PID_NAMESPACE, 'sh', '-c', 'mount -t proc proc /proc && exec "$@"', 'sh']

    def enter_and_answer(table, identity):
        native.call('setns', os.open('/proc/1/ns/pid', os.O_RDONLY), access.NEWPID)
        return Child(answers, [kind, table], **identity).result()

    def tables():
        found = {}
        access.leave_mounts_to_others()
        with access.daemon(command=command) as (point, _):
            queues = point.parent / 'queues'
            queues.mkdir()
            subprocess.run(['mount', '-t', 'mqueue', 'mqueue', queues], check=True)
            try:
                for identity, who in IDENTITIES.items():
                    table = lambda where: make_pairs(kind, f'{name}{identity}{where}', point, queues, MODES[::2])
                    found[identity, 'outside'] = Child(answers, [kind, table('outside')], **who).result()
                    found[identity, 'inside'] = Child(enter_and_answer, [table('inside'), who]).result()
            finally:
                subprocess.run(['umount', queues], check=True)
        return found
    found = child(tables).result()
    for (identity, where), cells in found.items():
        assert excesses(cells) == {}
        assert where == 'outside' or differences(cells) == {}


def test_daemon_whose_proc_is_of_another_pid_namespace_does_not_start(tmp_path):
    """There it would take other processes for its callers."""
    done = subprocess.run([*IN_PID_NAMESPACE, BUILD / 'ipcfs', '-f', tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('ipcfs: /proc ')


NAMESPACES = {  # who goes into a new user namespace, and the ids that it maps: inside, outside, count
    'all unmapped': (OTHER, OTHER, [], ''),
    'root of itself': (OTHER, OTHER, [], f'0 {OTHER} 1'),
    'group member, root of itself': (MEMBER, MEMBER, [GROUP], f'0 {MEMBER} 1'),
    'owner, root of itself': (OWNER, OWNER, [], f'0 {OWNER} 1'),
    'root over the owner': (OWNER - 1, OWNER - 1, [], f'0 {OWNER - 1} 100'),
}


def enter_user_namespace(user, group, groups, ids):
    """For a child of root's. It has all capabilities in there, and none outside."""
    entered, enter = os.pipe()
    writer = os.fork()
    if writer == 0:  # the only one who may map any ids
        try:
            os.close(enter)
            os.read(entered, 1)
            for file in ('uid_map', 'gid_map') if ids else ():
                pathlib.Path(f'/proc/{os.getppid()}/{file}').write_text(ids)
        finally:
            os._exit(0)
    access.become(user, group, groups)
    native.call('unshare', access.NEWUSER)
    os.close(enter)
    os.waitpid(writer, 0)
    assert (os.getuid() == 0) == bool(ids) and access.capabilities() == access.capabilities() | 0x1f


@pytest.mark.parametrize('who', NAMESPACES)
@pytest.mark.parametrize('kind', KINDS)
def test_capabilities_in_another_user_namespace_give_nothing_here(pairs, child, kind, who):
    """Natively they count for objects whose owner and group are both mapped there; here for none."""
    table = pairs(kind)

    def run():
        enter_user_namespace(*NAMESPACES[who])
        return answers(kind, table)
    cells = child(run).result()
    assert excesses(cells) == {}
    if who != 'root over the owner':
        assert differences(cells) == {}
    else:
        assert cells['effective access RW', '0000'][1] is False


@pytest.mark.parametrize('kind', KINDS)
def test_object_made_in_another_user_namespace_belongs_to_whom_its_root_is(mnt, name, child, kind):
    def create():
        enter_user_namespace(OTHER, OTHER, [], f'0 {OTHER} 1')
        native.CREATE[kind](f'{name}n')
        (access.new_in(mnt, kind) / f'{name}m').touch(0o600)
        return (mnt / kind / f'{name}m').stat().st_uid
    assert child(create).result() == 0
    for which in 'nm':
        status = native.stat(kind, f'{name}{which}')
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (OTHER, OTHER, 0o600)


# ---- Callers that end ----

def test_requests_of_killed_callers_were_done_as_them_or_not_at_all(mnt, name, children):
    """A group that is shut out stays so, and what was made is the caller's, however soon after its request it died."""
    make('shm', name, 0o606)
    segment = mnt / 'shm' / name
    rounds = 60

    def hammer(number):
        os.umask(0o027)
        for step in itertools.count():
            for kind in KINDS:
                (access.new_in(mnt, kind, 'mode=666') / f'{name}{number}-{step}').touch()
                if step >= 5 or kind == 'mq':
                    (mnt / kind / f'{name}{number}-{step}').unlink()
            try:
                os.truncate(segment, 0)
            except PermissionError:
                continue
            os.write(2, b'a member of the group has truncated it\n')
    for number in range(rounds):
        caller = Child(hammer, [number], user=MEMBER, group=MEMBER, groups=[GROUP])
        children.append(caller)
        eventually((mnt / 'sem' / f'{name}{number}-0').exists)
        time.sleep(number % 10 / 1000)  # anywhere
        caller.kill()
    assert segment.read_bytes() == b'content'
    made = 0
    for kind in KINDS:
        for entry in os.scandir(mnt / kind):
            if entry.name.startswith(name) and entry.name != name:
                status = entry.stat()
                assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (MEMBER, MEMBER, 0o640)
                made += 1
    assert made >= rounds


# ---- Access control lists ----

USER, GROUP_ENTRY, USER_OBJ, GROUP_OBJ, MASK, OTHER_OBJ, NO_ID = 0x02, 0x08, 0x01, 0x04, 0x10, 0x20, 0xffffffff


def acl(*entries):
    """As system.posix_acl_access has it. An entry: tag, permissions and, for users and groups, an id."""
    packed = [struct.pack('<HHI', *entry, *[NO_ID][len(entry) - 2:]) for entry in sorted(entries)]
    return struct.pack('<I', 2) + b''.join(packed)


ACLS = {
    'a user may': acl((USER_OBJ, 6), (USER, 6, OTHER), (GROUP_OBJ, 0), (MASK, 6), (OTHER_OBJ, 0)),
    'a user may read': acl((USER_OBJ, 6), (USER, 4, OTHER), (GROUP_OBJ, 6), (MASK, 6), (OTHER_OBJ, 0)),
    'a user may not': acl((USER_OBJ, 6), (USER, 0, OTHER), (GROUP_OBJ, 6), (MASK, 6), (OTHER_OBJ, 6)),
    'another group may': acl((USER_OBJ, 6), (GROUP_OBJ, 0), (GROUP_ENTRY, 6, OTHER), (MASK, 6), (OTHER_OBJ, 0)),
    'the mask takes it away': acl((USER_OBJ, 6), (USER, 6, OTHER), (GROUP_OBJ, 6), (MASK, 2), (OTHER_OBJ, 0)),
}


@pytest.mark.parametrize('identity', IDENTITIES)
@pytest.mark.parametrize('kind', ['sem', 'shm'])
def test_access_control_lists_count(pairs, child, kind, identity):
    """No cell of the table differs where the object has one. Queues have none."""
    table = []
    for (_, natively, here), (name, entries) in zip(pairs(kind, [0o600, 0o601, 0o602, 0o603, 0o604]), ACLS.items()):
        for it in natively, here:
            os.setxattr(access.native_path(kind, it.name), 'system.posix_acl_access', entries)
        table.append((name, natively, here))
    cells = child(answers, kind, table, **IDENTITIES[identity]).result()
    assert differences(cells) == {}
    if identity == 'other':
        assert [cells['open both ways', name][1] for name in ACLS] == ['done', 'EACCES', 'EACCES', 'done', 'EACCES']


def test_access_control_list_of_the_directory_counts_at_once(child):
    """The daemon does not ask for it each time."""
    entries = acl((USER_OBJ, 7), (USER, 0, OTHER), (GROUP_OBJ, 7), (MASK, 7), (OTHER_OBJ, 7))
    answer = lambda action, path: access.answer(lambda _: (action(path), None)[1], None)

    def look(mnt):
        paths = [path for kind in ('sem', 'shm') for path in (access.native_path(kind, 'object'), mnt / kind / 'object')]
        return [answer(action, path) for action in (os.stat, lambda path: access.open_file(path, os.O_RDWR))
                for path in paths]

    def run():
        found = []
        os.umask(0)
        with access.own_machine() as mnt:
            for kind in 'sem', 'shm':
                native.CREATE[kind]('object', 0o666)
            for _ in range(5):
                found.append(Child(look, [mnt], user=OTHER, group=OTHER).result())
                os.setxattr('/dev/shm', 'system.posix_acl_access', entries)
                found.append(Child(look, [mnt], user=OTHER, group=OTHER).result())
                os.removexattr('/dev/shm', 'system.posix_acl_access')
                time.sleep(0.03)  # long enough for it to be remembered that there is none
        return found
    assert child(run).result() == [['done'] * 8, ['EACCES'] * 8] * 5


@pytest.mark.parametrize('umask', [0o022, 0o077, 0o000])
def test_default_access_control_list_takes_the_place_of_the_umask(child, umask):
    default = acl((USER_OBJ, 6), (USER, 6, OTHER), (GROUP_OBJ, 4), (MASK, 6), (OTHER_OBJ, 0))

    def create(mnt):
        os.umask(umask)
        for kind in 'sem', 'shm':
            native.CREATE[kind]('natively', 0o666)
            os.close(os.open(mnt / kind / 'here', os.O_CREAT | os.O_RDWR, 0o666))

    def run():
        with access.own_machine() as mnt:
            os.setxattr('/dev/shm', 'system.posix_acl_default', default)
            Child(create, [mnt], user=OWNER, group=OWNER).result()
            paths = [access.native_path(kind, name) for kind in ('sem', 'shm') for name in ('natively', 'here')]
            return [(access.permissions(path), os.getxattr(path, 'system.posix_acl_access')) for path in paths]
    found = child(run).result()
    assert found[0] == found[1] and found[2] == found[3] == (oct(0o660), found[0][1])


# ---- Capabilities ----

ALL = {name: 1 << number for name, number in CAPABILITIES.items()}
SETS = {'none': 0} | ALL | {f'all but {name}': sum(ALL.values()) - bit for name, bit in ALL.items()}


@pytest.mark.parametrize('capabilities', SETS)
@pytest.mark.parametrize('user', [0, OTHER, MEMBER], ids=['root', 'other', 'group member'])
def test_capabilities_are_those_of_the_caller(pairs, child, user, capabilities):
    """Root who has given some up can't use them here, and others who have some can. But for others a look at what they
    may do with them (faccessat with AT_EACCESS) is not told from access(2), which is without, and gets its answer."""
    tables = {kind: pairs(kind) for kind in KINDS}

    def run():
        access.become(user, user, [GROUP] if user == MEMBER else [], SETS[capabilities])
        return {(kind, *cell): pair for kind in KINDS for cell, pair in answers(kind, tables[kind]).items()}
    cells = child(run).result()
    assert excesses(cells) == {}
    assert {cell for cell in differences(cells) if user == 0 or not cell[1].startswith('effective access')} == set()
    natively, _ = cells['shm', 'open both ways', '0000']
    assert natively == ('done' if SETS[capabilities] & ALL['DAC_OVERRIDE'] else 'EACCES')


def test_capability_is_looked_up_for_each_request(mnt, name, child):
    """Also by one thread on one object."""
    make('sem', name, 0o600)
    opened = lambda: access.answer(lambda it: access.open_file(mnt / 'sem' / name, os.O_RDWR), None)

    def run():
        access.become(OTHER, OTHER, capabilities=ALL['DAC_OVERRIDE'])
        found = [opened()]
        for effective in 0, ALL['DAC_OVERRIDE'], 0:
            access.set_capabilities(effective, ALL['DAC_OVERRIDE'])
            found.append(opened())
        in_another = in_thread(lambda: access.set_capabilities(ALL['DAC_OVERRIDE'], ALL['DAC_OVERRIDE']) or opened())
        return found, in_another, opened()
    assert child(run).result() == (['done', 'EACCES', 'done', 'EACCES'], 'done', 'EACCES')


def test_ambient_capability_and_bounding_set_of_programs(mnt, name):
    """As setpriv(1) starts them."""
    make('shm', name, 0o600)
    path = mnt / 'shm' / name

    def cat(*options, user=OTHER):
        command = ['setpriv', f'--reuid={user}', f'--regid={user}', '--clear-groups', *options, 'cat', path]
        return subprocess.run(command, capture_output=True).stdout
    assert cat('--inh-caps=+dac_override', '--ambient-caps=+dac_override') == b'content'
    assert cat('--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search') == b'content'
    assert cat('--inh-caps=+fowner', '--ambient-caps=+fowner') == b''
    assert cat() == b''
    assert cat(user=0) == b'content'
    assert cat('--bounding-set=-dac_override,-dac_read_search', user=0) == b''


@pytest.mark.parametrize('kind', KINDS)
def test_root_is_root_for_a_daemon_without_ptrace(name, child, kind):
    """As in a container that has CAP_SYS_ADMIN and little else."""
    def run():
        access.leave_mounts_to_others()
        with access.mqueuefs() as queues, access.daemon(command=['setpriv', '--bounding-set=-sys_ptrace']) as (mnt, _):
            table = make_pairs(kind, name, mnt, queues, MODES)
            return {identity: Child(answers, [kind, table], **who).result()
                    for identity, who in IDENTITIES.items() if identity in ('root', 'other')}
    found = child(run).result()
    assert {identity: differences(cells) for identity, cells in found.items()} == {'root': {}, 'other': {}}


def test_daemon_that_cannot_become_others_does_nothing_for_them(name, child):
    """Twice, as it might take what it has tried for done."""
    def look(mnt):
        paths = [mnt / kind / name for kind in KINDS] * 2
        return [access.answer(lambda path: access.open_file(path, os.O_RDWR), path) for path in paths]

    def run():
        access.leave_mounts_to_others()
        with access.daemon(command=['setpriv', '--bounding-set=-setuid']) as (mnt, _):
            return Child(look, [mnt], user=OTHER, group=OTHER).result(), look(mnt)
    for kind in KINDS:
        make(kind, name, 0o600)
    assert child(run).result() == (['EPERM'] * 6, ['done'] * 6)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('real', [OTHER, 0], ids=['set-user-ID root', 'acting as another'])
def test_access_asks_for_the_real_user(pairs, child, kind, real):
    """access(2) is how a set-user-ID program asks whether its user may; faccessat(AT_EACCESS) whether it may itself."""
    table = pairs(kind)

    def run():
        os.setgroups([])
        os.setresgid(real, OTHER - real, OTHER - real)
        os.setresuid(real, OTHER - real, 0)
        rows = {f'{way}access {name}': access.operations(kind)[f'{way}access {name}']
                for way in ('', 'effective ') for name in access.ACCESS}
        return {(row, mode): tuple(access.answer(operation, it) for operation, it in zip(rows[row], its))
                for mode, *its in table for row in rows}
    cells = child(run).result()
    assert differences(cells) == {}
    assert cells['access RW', '0600'][0] == (real == 0)
    assert cells['effective access RW', '0600'][0] == (real != 0)


# ---- What a change of a segment takes away ----

def write_at(path, data=b'x'):
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, 0)
    os.close(fd)


def with_file(operation):
    def run(path):
        fd = os.open(path, os.O_RDWR)
        try:
            operation(fd)
        finally:
            os.close(fd)
    return run


CHANGES = {
    'write': write_at,
    'append': lambda path: with_file(lambda fd: os.write(fd, b'x'))(path),
    'writev': with_file(lambda fd: os.pwritev(fd, [b'x', b'y'], 0)),
    'truncate': lambda path: os.truncate(path, 3),
    'grow': lambda path: os.truncate(path, 10000),
    'ftruncate': with_file(lambda fd: os.ftruncate(fd, 3)),
    'open to truncate': lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    'fallocate': with_file(lambda fd: os.posix_fallocate(fd, 0, 10000)),
    'copy_file_range': with_file(lambda fd: os.copy_file_range(fd, fd, 3, 0, 4)),
    'chown to itself': lambda path: os.chown(path, OWNER, -1),
    'chgrp': lambda path: os.chown(path, -1, GROUP),
    'read': lambda path: path.read_bytes(),
    'touch': os.utime,
}
PASSTHROUGH = pytest.mark.parametrize('options', [[], ['-o', 'no_passthrough']], ids=['passthrough', 'no passthrough'])
SPECIAL_MODES = [0o4777, 0o2777, 0o6777, 0o2767, 0o4666, 0o6666]


@PASSTHROUGH
@pytest.mark.parametrize('identity', IDENTITIES)
def test_set_user_id_goes_as_natively(mount, name, child, options, identity):
    """Also set-group-ID. Root, and the group where it can't be executed, keep it natively and may lose it here."""
    root = mount(*options).path
    with_both = lambda change, mode: (f'{name}{change}-{mode:04o}'.replace(' ', '-') + which for which in 'nm')
    cells = [(change, mode, *with_both(change, mode)) for change in CHANGES for mode in SPECIAL_MODES]
    for _, mode, *pair in cells:
        for which in pair:
            make('shm', which, mode)

    def run():
        found = {}
        for change, mode, natively, here in cells:
            paths = access.native_path('shm', natively), root / 'shm' / here
            done = [access.answer(CHANGES[change], path) for path in paths]
            modes = [stat.S_IMODE(os.stat(access.native_path('shm', which)).st_mode) for which in (natively, here)]
            found[change, f'{mode:04o}'] = done, modes
        return found
    found = child(run, **IDENTITIES[identity]).result()
    assert {cell: done for cell, (done, _) in found.items() if done[0] != done[1]} == {}
    more = {cell: f'{modes[0]:04o}, here {modes[1]:04o}' for cell, (_, modes) in found.items()
            if modes[1] & ~modes[0] or not (modes[0] == modes[1] or identity == 'root' or
                                            (identity == 'group member' and cell[1] in ('2767', '6666')))}
    assert more == {}
    assert found['write', '4777'][1][0] == (0o4777 if identity == 'root' else 0o777)


@PASSTHROUGH
def test_set_user_id_that_came_after_the_opening_goes_too(mount, name, child, options):
    """The kernel may not have heard of a change that was made natively."""
    path = mount(*options).path / 'shm' / name
    make('shm', name, 0o666)

    def open_and_write():
        with open(path, 'rb+', buffering=0) as file:
            file.write(b'first')
            while stat.S_IMODE(os.stat(f'/dev/shm/{name}').st_mode) != 0o6777:
                time.sleep(0.001)
            file.seek(0)
            file.write(b'again')
    writer = child(open_and_write, user=OTHER, group=OTHER)
    content = lambda: pathlib.Path('/dev/shm', name).read_bytes()[:5]
    eventually(lambda: content() == b'first')
    os.chmod(f'/dev/shm/{name}', 0o6777)
    writer.result()
    assert content() == b'again'
    assert stat.S_IMODE(os.stat(f'/dev/shm/{name}').st_mode) == 0o777


THROUGH_DESCRIPTOR = {
    'write': lambda fd: os.pwrite(fd, b'x', 0),
    'long write': lambda fd: os.pwrite(fd, bytes(200000), 0),
    'append': lambda fd: os.pwritev(fd, [b'x'], 0, os.RWF_APPEND),
    'ftruncate': lambda fd: os.ftruncate(fd, 3),
    'fallocate': lambda fd: os.posix_fallocate(fd, 0, 10000),
    'copy_file_range': lambda fd: os.copy_file_range(fd, fd, 3, 0, 4),
}


@PASSTHROUGH
@pytest.mark.parametrize('change', THROUGH_DESCRIPTOR)
def test_rights_of_one_caller_do_not_stay_for_the_next(mount, name, child, options, change):
    """Root, who may keep set-user-ID, and a stranger with an open file, who may not, by turns."""
    path = mount(*options).path / 'shm' / name
    make('shm', name, 0o666)

    def run():
        os.seteuid(OTHER)
        fd = os.open(path, os.O_RDWR)
        os.seteuid(0)
        kept = 0
        for _ in range(40):
            os.truncate(path, 7)
            os.chmod(path, 0o4777)
            os.getxattr(path, 'user.ipcfs.mode')
            os.seteuid(OTHER)
            THROUGH_DESCRIPTOR[change](fd)
            os.seteuid(0)
            kept += stat.S_IMODE(os.stat(f'/dev/shm/{name}').st_mode) != 0o777
        os.close(fd)
        return kept
    assert child(run).result() == 0


# ---- fs.protected_regular ----

@pytest.mark.parametrize('kind', KINDS)
def test_protected_regular_does_not_hold_here(mnt, names, child, kind):
    """Natively it is for segments alone: it refuses O_CREAT for others' in a sticky directory, root too. ipcfs(5)."""
    natively, here = names(), names()
    make(kind, natively, 0o666)
    make(kind, here, 0o666)
    native_call, file_call = access.opening(kind, os.O_RDWR | os.O_CREAT)

    def run():
        return (access.answer(native_call, access.Object(kind, natively, None, None)),
                access.answer(file_call, access.Object(kind, here, mnt / kind / here, mnt)))
    found = {identity: child(run, **who).result() for identity, who in IDENTITIES.items()}
    others = 'EACCES' if kind == 'shm' and access.PROTECTED_REGULAR else 'done'
    assert found == dict.fromkeys(IDENTITIES, (others, 'done')) | {'owner': ('done', 'done')}

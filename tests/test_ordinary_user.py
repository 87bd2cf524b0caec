"""Mounted by an ordinary user, with or without allow_other, it serves that user as native calls would, and nobody else.

In a mount namespace where /dev/fuse is for everyone, the users have the names that fusermount3 asks for, and
fuse.conf permits allow_other.
"""

import errno
import os
import pathlib
import re
import resource
import stat
import subprocess

import pytest

import access
import native
from access import KINDS, answers, differences, excesses, make_pairs
from conftest import BUILD, Child
from test_rights import enter_user_namespace
from test_users import GROUP, MEMBER, OTHER, OWNER, make

NEWIPC = 0x8000000

IDENTITIES = {who: identity for who, identity in access.IDENTITIES.items() if who != 'root'}
ALLOW_OTHER = pytest.mark.parametrize('options', [[], ['-o', 'allow_other']], ids=['', 'allow_other'])
MODES = [0o600, 0o660, 0o666, 0o640, 0o604, 0o606, 0o060, 0o006, 0o400, 0o200, 0o040, 0o000]


def prepare_for_users(user_allow_other=True, mqueue=False):
    """The namespace, for a child of root's."""
    access.leave_mounts_to_others()
    folder = pathlib.Path('/run')  # any will do, the namespace goes
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', folder], check=True)
    dev = folder / 'dev'
    for place in 'shm', 'mqueue':
        (dev / place).mkdir(parents=True)
    for device in 'null', 'zero', 'urandom':
        os.mknod(dev / device, stat.S_IFCHR, os.stat(f'/dev/{device}').st_rdev)
    os.mknod(dev / 'fuse', stat.S_IFCHR, os.makedev(10, 229))
    for device in dev.iterdir():
        device.chmod(0o666 if device.is_char_device() else 0o755)
    subprocess.run(['mount', '--bind', '/dev/shm', dev / 'shm'], check=True)
    if mqueue:
        subprocess.run(['mount', '-t', 'mqueue', 'mqueue', dev / 'mqueue'], check=True)
    users = ''.join(f'u{user}:x:{user}:{user}::/:/bin/sh\n' for user in (OWNER, MEMBER, OTHER))
    (folder / 'passwd').write_text(pathlib.Path('/etc/passwd').read_text() + users)
    (folder / 'fuse.conf').write_text('user_allow_other\n' * user_allow_other)
    for file in 'passwd', 'fuse.conf':
        subprocess.run(['mount', '--bind', folder / file, f'/etc/{file}'], check=True)
    subprocess.run(['mount', '--rbind', dev, '/dev'], check=True)


def as_user(user, group, groups=()):
    listed = f'--groups={",".join(map(str, groups))}' if groups else '--clear-groups'
    return ['setpriv', f'--reuid={user}', f'--regid={group}', listed]


@pytest.mark.parametrize('queues', ['/dev/mqueue is there', 'no /dev/mqueue'])
@ALLOW_OTHER
@pytest.mark.parametrize('identity', IDENTITIES)
@pytest.mark.parametrize('kind', KINDS)
def test_the_user_has_its_native_rights(name, child, kind, identity, options, queues):
    """The access table. Without /dev/mqueue a queue has to be opened even to look at it, which not everybody may."""
    def run():
        prepare_for_users(mqueue=queues == '/dev/mqueue is there')
        who = IDENTITIES[identity]
        with access.mqueuefs() as all_queues, access.daemon(*options, command=as_user(**who)) as (mnt, _):
            pairs = make_pairs(kind, name, mnt, all_queues, MODES)
            return Child(answers, [kind, pairs], **who).result()
    cells = child(run).result()
    assert excesses(cells) == {}
    if kind != 'mq' or queues == '/dev/mqueue is there':
        assert differences(cells) == {}
    assert ('done', 'done') in cells.values() and ('EACCES', 'EACCES') in cells.values()


def refuse(what):
    raise PermissionError(errno.EACCES, what)


def statfs(path):
    """The kernel itself answers those whom it keeps out, with nothing."""
    if os.statvfs(path).f_namemax == 0:
        refuse('statfs')


def requests(mnt, kind, name):
    """Whatever a stranger can ask for."""
    path = mnt / kind / name
    return {
        'stat of the mount': mnt.stat,
        'list the mount': lambda: os.listdir(mnt),
        'statfs': lambda: statfs(mnt),
        'statfs of a kind': lambda: statfs(mnt / kind),
        'access': lambda: None if os.access(mnt, os.R_OK) else refuse('access'),
        'attributes of the mount': lambda: os.listxattr(mnt),
        'README': (mnt / 'README').read_text,
        'limits': (mnt / 'limits').read_text,
        'stat of a kind': (mnt / kind).stat,
        'list': lambda: os.listdir(mnt / kind),
        'open a kind': lambda: os.close(os.open(mnt / kind, os.O_RDONLY | os.O_DIRECTORY)),
        'stat view': lambda: (mnt / f'{kind}@stat' / name).read_text(),
        'list a view': lambda: os.listdir(mnt / f'{kind}@stat'),
        'stat': path.stat,
        'open to read': lambda: access.open_file(path, os.O_RDONLY),
        'open both ways': lambda: access.open_file(path, os.O_RDWR),
        'attribute': lambda: os.getxattr(path, 'user.ipcfs.mode'),
        'attributes': lambda: os.listxattr(path),
        'set attribute': lambda: os.setxattr(path, 'user.ipcfs.mode', b'0'),
        'chmod': lambda: os.chmod(path, 0o777),
        'chown': lambda: os.chown(path, OTHER, OTHER),
        'touch': lambda: os.utime(path),
        'truncate': lambda: os.truncate(path, 0),
        'rename': lambda: os.rename(path, f'{path}renamed'),
        'create': lambda: access.open_file(access.new_in(mnt, kind) / f'{name}new', os.O_RDWR | os.O_CREAT),
        'mknod': lambda: os.mknod(access.new_in(mnt, kind) / f'{name}node', stat.S_IFREG | 0o600),
        'mkdir': lambda: os.mkdir(mnt / kind / f'{name}folder'),
        'remove': path.unlink,
    }


def answers_to(mnt, kind, name):
    return {request: access.answer(lambda _: (operation(), None)[1], None)
            for request, operation in requests(mnt, kind, name).items()}


@ALLOW_OTHER
def test_everybody_else_is_refused_root_too(name, child, options):
    """Whatever they ask for, also of what the kernel knows already as its owner has looked at it."""
    def tables():
        prepare_for_users()
        found = {}
        with access.daemon(*options, command=as_user(OWNER, OWNER)) as (mnt, _):
            for kind in KINDS:
                make(kind, f'{name}{kind}', 0o666)
                looking = Child(lambda: (os.listdir(mnt / kind), (mnt / kind / f'{name}{kind}').stat()) and None, [],
                                user=OWNER, group=OWNER)
                looking.result()
                for identity, who in access.IDENTITIES.items():
                    if identity != 'owner':
                        found[kind, identity] = Child(answers_to, [mnt, kind, f'{name}{kind}'], **who).result()
                found[kind, 'objects'] = [entry for entry in os.listdir('/dev/shm') + native.list_queues()
                                          if entry.startswith((f'{name}{kind}', f'sem.{name}{kind}'))]
                found[kind, 'status'] = native.stat(kind, f'{name}{kind}')[:6]
                found[kind, 'size'] = native.stat(kind, f'{name}{kind}').st_size
        return found
    found = child(tables).result()
    for kind in KINDS:
        for identity in 'root', 'group member', 'other':
            assert {request: answer for request, answer in found[kind, identity].items() if answer != 'EACCES'} == {}
        prefix = 'sem.' if kind == 'sem' else ''
        assert found[kind, 'objects'] == [f'{prefix}{name}{kind}']
        mode, *_, uid, gid = found[kind, 'status']
        assert (stat.S_IMODE(mode), uid, gid) == (0o666, OWNER, GROUP)
        assert found[kind, 'size'] > 0


@ALLOW_OTHER
def test_what_is_made_is_the_users_with_the_callers_umask(name, child, options):
    def create(mnt):
        os.umask(0o027)
        for kind in KINDS:
            (access.new_in(mnt, kind) / f'{name}{kind}').touch(0o666)
            native.CREATE[kind](f'{name}{kind}n', 0o666)

    def run():
        prepare_for_users()
        with access.daemon(*options, command=as_user(OWNER, OWNER)) as (mnt, _):
            Child(create, [mnt], user=OWNER, group=OWNER).result()
        return [(it.st_uid, it.st_gid, stat.S_IMODE(it.st_mode)) for kind in KINDS for which in ('', 'n')
                for it in [native.stat(kind, f'{name}{kind}{which}')]]
    assert child(run).result() == [(OWNER, OWNER, 0o640)] * 6


def test_thread_of_root_acting_as_the_user_is_the_user(name, child):
    """And no other thread of it: what counts is the fsuid."""
    def opened(path, user):
        os.seteuid(user)
        try:
            return access.answer(lambda _: access.open_file(path, os.O_RDWR), None)
        finally:
            os.seteuid(0)

    def run():
        prepare_for_users()
        make('shm', name, 0o600)
        with access.daemon('-o', 'allow_other', command=as_user(OWNER, OWNER)) as (mnt, _):
            return [opened(mnt / 'shm' / name, user) for user in (0, OWNER, OTHER, OWNER, 0)]
    assert child(run).result() == ['EACCES', 'done', 'EACCES', 'done', 'EACCES']


def test_allow_other_is_for_fuse_conf_to_permit(child):
    """Without user_allow_other it is not mounted, and fusermount3 says why."""
    def run():
        prepare_for_users(user_allow_other=False)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'mode=755,uid={OWNER}', 'tmpfs', '/mnt'], check=True)
        done = subprocess.run([*as_user(OWNER, OWNER), BUILD / 'ipcfs', '-f', '-o', 'allow_other', '/mnt'],
                              capture_output=True, text=True)
        return done.returncode, done.stderr
    status, said = child(run).result()
    assert status == 1
    assert 'user_allow_other' in said and 'ipcfs: /mnt: could not be mounted' in said


def test_daemon_of_a_user_raises_its_limit_of_descriptors_to_the_hard_one(child):
    def run():
        prepare_for_users()
        lower = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 2000))
        with access.daemon(command=as_user(OWNER, OWNER), prepare=lower) as (mnt, process):
            Child(mnt.exists, [], user=OWNER, group=OWNER).result()  # it serves
            limits = pathlib.Path(f'/proc/{process.pid}/limits').read_text()
            return re.search(r'Max open files +(\d+) +(\d+)', limits).groups()
    assert child(run).result() == ('2000', '2000')


def test_root_of_a_user_namespace_serves_it(child):
    """As in a container without privileges, with its own /dev/shm and IPC namespace."""
    def use(mnt):
        os.umask(0o022)
        for kind in KINDS:
            path = mnt / kind / 'made'
            (access.new_in(mnt, kind) / 'made').touch(0o666)
            with open(path, 'rb+', buffering=0) as file:
                assert (file.write(b'1'), file.seek(0), file.read(9)[:1]) == (1, 0, b'1')
            assert os.listdir(mnt / kind) == ['made']
        return [(stat.S_IMODE(it.st_mode), it.st_uid) for kind in KINDS for it in [native.stat(kind, 'made')]]

    def run():
        prepare_for_users()
        enter_user_namespace(OWNER, OWNER, [], f'0 {OWNER} 1')
        native.call('unshare', access.NEWNS | NEWIPC)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=1777', 'tmpfs', '/dev/shm'], check=True)
        with access.daemon() as (mnt, _):
            found = use(mnt)
            for kind in KINDS:
                (mnt / kind / 'made').unlink()
            return found
    assert child(run).result() == [(0o644, 0)] * 3

"""The access table: who x which kind x which mode x which operation. The mount answers as the native calls do."""

import os

import pytest

import access
import native
from access import IDENTITIES, KINDS, MODES, answer, answers, differences, make_pairs
from conftest import Child, discard_objects
from test_users import GROUP, OTHER, OWNER


@pytest.mark.parametrize('held', [False, True], ids=['', 'open elsewhere'])
@pytest.mark.parametrize('identity', IDENTITIES)
@pytest.mark.parametrize('kind', KINDS)
def test_no_cell_differs_from_the_native_call(mnt, name, child, kind, identity, held):
    """All combinations of reading and writing for the owner, the group and others, with every operation, also while
    root has the objects open through the mount."""
    seen = set()
    with access.mqueuefs() as queues:
        for modes in MODES[:32], MODES[32:]:  # queues are few
            pairs = make_pairs(kind, name, mnt, queues, modes)
            files = [os.open(here.path, os.O_RDWR) for _, _, here in pairs if held]
            cells = child(answers, kind, pairs, **IDENTITIES[identity]).result()
            assert differences(cells) == {}
            seen |= {str(natively) for natively, _ in cells.values()}
            for file in files:
                os.close(file)
            discard_objects(name)
    assert {'done', 'EEXIST'} <= seen
    assert identity == 'root' or {'EACCES', 'EPERM'} <= seen


DIRECTORY = {
    'list': lambda folder, name: sorted(os.listdir(folder)) and None,
    'stat': lambda folder, name: None if folder.stat() else None,
    'access R': lambda folder, name: os.access(folder, os.R_OK),
    'access W': lambda folder, name: os.access(folder, os.W_OK),
    'access X': lambda folder, name: os.access(folder, os.X_OK),
    'stat an object': lambda folder, name: None if (folder / f'{name}root').stat() else None,
    'open an object': lambda folder, name: access.open_file(folder / f'{name}root', os.O_RDWR),
    'create': lambda folder, name: access.open_file(folder / f'{name}new', os.O_RDWR | os.O_CREAT | os.O_EXCL),
    'whose it is': lambda folder, name: ((folder / f'{name}new').stat().st_uid, (folder / f'{name}new').stat().st_gid),
    "remove one's own": lambda folder, name: os.unlink(folder / f'{name}new'),
    'rename': lambda folder, name: os.rename(folder / f'{name}root', folder / f'{name}again'),
    "remove root's": lambda folder, name: os.unlink(folder / f'{name}root'),
}


def compare_directory(kind, name, natively, here):
    """natively and here are the two folders, where the objects' names begin with name + 'n' and name + 'm'."""
    cells = {}
    for cell, operation in DIRECTORY.items():
        if kind == 'sem' and cell == 'rename':
            continue  # there is none
        cells[cell] = (answer(lambda it: operation(natively, f'{"sem." * (kind == "sem")}{name}n'), None),
                       answer(lambda it: operation(here, f'{name}m'), None))
    return cells


@pytest.mark.parametrize('mode', ['1777', '0777', '0775', '0755', '0733', '0711', '0700', '2777', '3777'])
def test_what_the_directory_permits_is_permitted_here(child, mode):
    """With a /dev/shm of other modes, which also decide a new object's group, and though root has just looked."""
    def tables(mode):
        with access.own_machine(mode=mode) as mnt:
            os.chown('/dev/shm', 0, GROUP)
            os.chmod('/dev/shm', int(mode, 8))  # chown has taken set-group-ID
            found = {}
            for kind in 'sem', 'shm':
                for identity, who in IDENTITIES.items():
                    name = f'{identity}-'.replace(' ', '-')
                    for which in 'nm':
                        native.CREATE[kind](f'{name}{which}root', 0o666)
                        os.chmod(access.native_path(kind, f'{name}{which}root'), 0o666)
                    table = Child(compare_directory, [kind, name, access.native_path('shm', ''), mnt / kind], **who)
                    for cell, pair in table.result().items():
                        found[kind, identity, cell] = pair
            return found
    cells = child(tables, mode).result()
    assert differences(cells) == {}
    assert cells['sem', 'root', 'create'] == ('done', 'done')
    assert (cells['shm', 'other', 'create'][0] == 'done') == (int(mode, 8) & 3 == 3)


def test_mqueuefs_and_the_mount_agree_on_whose_a_new_queue_is(mnt, name, child):
    """The directory of queues can be neither closed nor given a group."""
    def create():
        native.create_queue(f'{name}n').close()
        access.open_file(access.new_in(mnt, 'mq') / f'{name}m', os.O_RDWR | os.O_CREAT)
    child(create, user=OWNER, group=GROUP, groups=[OTHER]).result()
    status = [native.stat('mq', f'{name}{which}') for which in 'nm']
    assert [(it.st_uid, it.st_gid, it.st_mode) for it in status] == [(OWNER, GROUP, 0o100600)] * 2

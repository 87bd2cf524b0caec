"""README.md and the manual pages say what is so: their options, names and examples are tried on a mount."""

import errno
import os
import re
import shutil
import signal
import subprocess

import pytest

from conftest import BUILD, PATIENCE, TESTS, mount_points

ROOT = TESTS.parent
README = ROOT / 'README.md'
MAN5, MAN8 = ROOT / 'contrib/man/ipcfs.5', ROOT / 'contrib/man/ipcfs.8'
KINDS = 'sem', 'shm', 'mq'
SAMPLES = {'OCTAL': '600', 'SECONDS': '1', 'SIZE': '1', 'N': '1'}


# Reading the README

def section(title):
    """What stands between one heading of the README and the next."""
    return re.search(rf'^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)', without_code_comments(README.read_text()),
                     re.M | re.S)[1]


def without_code_comments(text):
    """In a block of code a line that begins with # is no heading."""
    return re.sub(r'^```.*?^```$', lambda block: re.sub('^#', ' #', block[0], flags=re.M), text, flags=re.M | re.S)


def table(title, first):
    """The rows of the table in that section whose first column is called that: lists of cells."""
    lines = iter(section(title).splitlines())
    for line in lines:
        if line.startswith(f'| {first} |'):
            next(lines)
            break
    rows = []
    for line in lines:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split(' | ')])
    return rows


def code(cell):
    return re.findall('`([^`]+)`', cell)


OPTIONS = [(code(option)[0], kinds.split()) for option, kinds, _ in table('Options', 'option')]
GRAMMAR = [(value, code(taken), code(refused)) for value, _, taken, refused in table('Options', 'value')]


# Reading the manual pages, which are man(7)

def plain(text):
    """A line of man(7) as the reader sees it."""
    macro, _, rest = text.partition(' ')
    if macro in ('.B', '.I'):
        text = rest.strip('"')
    elif macro in ('.BR', '.RB', '.IR', '.RI', '.BI', '.IB'):
        text = ''.join(quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', rest))
    for escape, character in (r'\-', '-'), (r'\(aq', "'"), (r'\e', '\\'), (r'\&', ''):
        text = text.replace(escape, character)
    return re.sub(r'\\f.', '', text)


def man_section(page, title):
    return re.search(rf'^\.SH "?{title}"?\n(.*?)(?=^\.SH |\Z)', page.read_text(), re.M | re.S)[1]


def tags(page, title):
    """The tags of a section's outermost list, and the line after each."""
    text = re.sub(r'^\.RS\n.*?^\.RE\n', '', man_section(page, title), flags=re.M | re.S)
    return [(plain(tag), line) for tag, line in re.findall(r'^\.TP\n(.*)\n(.*)', text, re.M)]


def kinds_in(line):
    """[sem, mq] at the beginning of what a manual page says of a tag."""
    return line.strip('[]').split(', ')


# The command

def options_in_help():
    text = subprocess.run([BUILD / 'ipcfs', '--help'], capture_output=True, text=True, check=True).stdout
    return {re.sub(' .*', lambda value: value[0].lower(), option)
            for line in re.findall('^  (-.*?)  ', text, re.M) for option in line.split(', ')}


def test_help_and_manual_page_have_the_same_options():
    manual = {option for tag, _ in tags(MAN8, 'OPTIONS') for option in tag.split(', ')}
    assert manual == options_in_help()
    assert len(manual) > 5


def mount_options():
    inner = re.search(r'^\.RS\n(.*?)^\.RE\n', man_section(MAN8, 'OPTIONS'), re.M | re.S)[1]
    return [option for tag in re.findall(r'^\.TP\n(.*)', inner, re.M) for option in plain(tag).split(', ')]


def test_mount_options_of_help_are_in_the_manual_page():
    text = subprocess.run([BUILD / 'ipcfs', '--help'], capture_output=True, text=True, check=True).stdout
    named = {word for group in re.findall(r'\(((?:\w+=?[, ]+)+\w+=?)(?: \.\.\.)?\)', text) for word in group.split(', ')}
    assert {'ro', 'allow_other'} <= named <= {option.replace('=name', '=') for option in mount_options()}


@pytest.mark.parametrize('option', mount_options())
def test_mount_option_works(mount, option):
    path = str(mount('-o', option).path)
    with open('/proc/self/mountinfo') as mounts:
        [line] = [line for line in mounts if line.split()[4] == path]
    of_mount, (kind, source, of_file_system) = line.split()[5], line.split(' - ')[1].split()
    assert kind == 'fuse.ipcfs'
    if '=' in option:
        assert source == option.partition('=')[2]
    elif option != 'auto_unmount':
        assert option in f'{of_mount},{of_file_system}'.split(',')


def test_mount_helper_takes_a_source_and_what_fstab_adds(tmp_path):
    page = plain(MAN8.read_text())
    added = ['nofail', '_netdev', 'auto', 'noauto', 'x-systemd.automount']
    assert all(option in page for option in added[:4]) and 'x-' in page
    folder = tmp_path / 'ipc'
    folder.mkdir()
    (tmp_path / 'mount.ipcfs').symlink_to(BUILD / 'ipcfs')
    subprocess.run([tmp_path / 'mount.ipcfs', 'anything', folder, '-o', ','.join(['rw', *added])], check=True,
                   timeout=PATIENCE)
    assert str(folder) in mount_points()
    subprocess.run(['umount', folder], check=True)


def test_exit_status(tmp_path):
    assert [tag for tag, _ in tags(MAN8, 'EXIT STATUS')] == ['0', '1', '2']
    for arguments, status in (['--version'], 0), ([tmp_path / 'missing'], 1), ([], 2), (['--nonsense', tmp_path], 2):
        assert subprocess.run([BUILD / 'ipcfs', *arguments], capture_output=True).returncode == status


# Options in the path

def look_up(path):
    """0, or the errno of looking that name up."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno
    return 0


def test_options_are_the_same_in_readme_and_manual_page():
    assert OPTIONS == [(tag, kinds_in(line)) for tag, line in tags(MAN5, 'OPTIONS')]
    assert len({option for option, _ in OPTIONS}) == len(OPTIONS) > 10


@pytest.mark.parametrize('option, kinds', OPTIONS)
def test_option_is_taken_by_its_kinds_and_no_other(mnt, option, kinds):
    name, equals, value = option.partition('=')
    directory = name + equals + (SAMPLES[value] if equals else '')
    assert {kind for kind in KINDS if look_up(mnt / f'{kind}@{directory}') == 0} == set(kinds)
    assert {kind for kind in KINDS if look_up(mnt / f'{kind}@{directory}') == errno.EINVAL} == set(KINDS) - set(kinds)


@pytest.mark.parametrize('value, taken, refused', GRAMMAR, ids=[re.sub('[` ]+', ' ', row[0]) for row in GRAMMAR])
def test_grammar(mnt, value, taken, refused):
    assert taken and refused
    for name in taken:
        assert look_up(mnt / name) == 0, name
    for name in refused:
        assert look_up(mnt / name) == errno.EINVAL, name


def test_every_option_has_its_grammar():
    ruled = {word for value, rule, _, _ in table('Options', 'value') for word in code(value) + code(rule)}
    assert {re.sub('=.*', '=', option) for option, _ in OPTIONS} <= ruled


def test_name_that_begins_with_no_kind_is_enoent(mnt):
    [name] = re.findall(r'begins with no kind, as `(\S+)`', section('Options'))
    assert look_up(mnt / name) == errno.ENOENT


# Attributes and limits

def attributes(kind):
    """What the README says that an object of this kind has."""
    return {name for names, kinds, _ in table('Attributes', 'attribute') if kind in kinds.split()
            for name in code(names)}


@pytest.mark.parametrize('kind', KINDS)
def test_attributes(mnt, name, kind):
    (mnt / kind / name).touch()
    assert set(os.listxattr(mnt / kind / name)) == {f'user.ipcfs.{attribute}' for attribute in attributes(kind)}
    lines = (mnt / f'{kind}@stat' / name).read_text().splitlines()
    assert {line.split(' ')[0] for line in lines} == attributes(kind)
    assert {tag for tag, line in tags(MAN5, 'ATTRIBUTES') if kind in kinds_in(line)} == attributes(kind)


def test_limits(mnt):
    manual = {name for tag, _ in tags(MAN5, 'LIMITS') for name in tag.split(', ')}
    assert manual == {line.split(' ')[0] for line in (mnt / 'limits').read_text().splitlines()}


def test_readme_and_manual_page_name_the_same_errors():
    words = re.compile(r'\bE[A-Z]{3,}\b')
    manual = {name for tag, _ in tags(MAN5, 'ERRORS') for name in words.findall(tag)}
    assert {name for row in table('Errors', 'what happened') for name in words.findall(row[1])} <= manual
    assert all(hasattr(errno, name) for name in manual)


# Examples

def adapting(text, mnt, name):
    """A function that adapts parts of this text: for this mount, and /NAME is /<name>NAME where NAME is an object's."""
    objects = '|'.join(set(re.findall(r'/mnt/ipc/(?:sem|shm|mq)(?:@[^/\s]*)?/(\w+)', text)))

    def adapt(part):
        part = re.sub(rf'/(?=(?:{objects})\b)', f'/{name}', part)
        return part.replace('@stat/*', f'@stat/{name}*').replace('/mnt/ipc', str(mnt))
    return adapt


def run(script, folder):
    """What the script prints, stderr included; the failure of the test where it is not done in time."""
    process = subprocess.Popen(['bash', '-c', script], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True,
                               env=dict(os.environ, LC_ALL='C'))
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    return output, process.returncode


def blocks(title):
    """The blocks of code in a section of the README, as (language, text)."""
    return re.findall(r'^```(\w*)\n(.*?)^```$', section(title), re.M | re.S)


def titles():
    headings = re.findall(r'^#+ (.*)', without_code_comments(README.read_text()), re.M)
    return [title for title in headings if any(language == 'sh' for language, _ in blocks(title))]


@pytest.mark.parametrize('title', titles())
def test_readme_example(mnt, name, tmp_path, title):
    """Blocks of sh are run, those of text are what they print. Whose lines come first is not said."""
    adapt = adapting(section(title), mnt, name)
    found = [(language, adapt(text)) for language, text in blocks(title)]
    for language, text in found:
        if language == 'c':
            file_name = re.match(r'/\* (\S+\.c) \*/', text)[1]
            (tmp_path / file_name).write_text(text)
            subprocess.run(['cc', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', tmp_path / file_name], check=True)
    expected = [line for language, text in found if language == 'text' for line in text.splitlines()]
    output, status = run(''.join(text for language, text in found if language == 'sh'), tmp_path)
    if expected:
        assert sorted(output.splitlines()) == sorted(expected)
    assert status == 0, output
    assert not [line for line in output.splitlines() if line.startswith('bash:')]
    assert not [entry for kind in KINDS for entry in os.listdir(mnt / kind) if entry.startswith(name)]


def test_manual_page_examples(mnt, name, tmp_path):
    if not shutil.which('getfattr'):
        pytest.skip('no getfattr here, which the examples use')
    examples = re.findall(r'^\.EX\n(.*?)^\.EE\n', man_section(MAN5, 'EXAMPLES'), re.M | re.S)
    assert len(examples) > 4
    commands = ''.join(map(plain, examples))
    output, status = run('set -eo pipefail\n' + adapting(commands, mnt, name)(commands), tmp_path)
    assert status == 0, output
    lines = output.splitlines()
    assert 'current_messages 1' in lines and '5 build' in lines and 'header' in lines
    assert not [entry for kind in KINDS for entry in os.listdir(mnt / kind) if entry.startswith(name)]


def test_readme_links_lead_somewhere():
    links = re.findall(r'\]\(([^)]+)\)', README.read_text())
    assert len(links) > 3
    for link in links:
        assert (ROOT / link).exists(), link


# Form

@pytest.mark.parametrize('page', [MAN5, MAN8], ids=lambda page: page.name)
def test_manual_page_is_well_formed(page):
    if not shutil.which('mandoc'):
        pytest.skip('no mandoc here to check the manual pages with')
    done = subprocess.run(['mandoc', '-T', 'lint', '-W', 'warning', page], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '')


@pytest.mark.parametrize('page', [MAN5, MAN8], ids=lambda page: page.name)
def test_manual_page_is_shown_without_warnings(page):
    if not shutil.which('man') or not shutil.which('groff'):
        pytest.skip('no man and groff here to show the manual pages with')
    done = subprocess.run(['man', '--warnings', '--local-file', page], capture_output=True, text=True,
                          env=dict(os.environ, MANWIDTH='80', LC_ALL='C.UTF-8'))
    assert (done.returncode, done.stderr) == (0, '')
    assert 'SEE ALSO' in done.stdout

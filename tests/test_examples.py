"""The work queue of contrib/examples: each language with the native C program, and all languages at once."""

import functools
import os
import re
import shutil
import subprocess

import pytest

import native
from conftest import TESTS, Peer, eventually

EXAMPLES = TESTS.parent / 'contrib' / 'examples'

# language: its source, how to compile it (or None), how to run it
LANGUAGES = {
    'sh': ('work_queue.sh', None, 'sh {source}'),
    'c': ('work_queue.c', 'cc -Wall -Wextra -Werror -o {program} {source} -pthread -lrt', '{program}'),
    'python': ('work_queue.py', None, 'python3 {source}'),
    'node': ('work_queue.mjs', None, 'node {source}'),
    'perl': ('work_queue.pl', None, 'perl {source}'),
    'java': ('WorkQueue.java', None, 'java {source}'),
    'go': ('work_queue.go', 'go build -o {program} {source}', '{program}'),
    'rust': ('work_queue.rs', 'rustc --edition 2021 -o {program} {source}', '{program}'),
}
OTHERS = [language for language in LANGUAGES if language != 'c']
QUEUE_LENGTH = 10  # as the examples make it


def tool(language):
    """The program that a language needs here."""
    _, compiling, running = LANGUAGES[language]
    return (compiling or running).split()[0]


def installed(language):
    return shutil.which(tool(language)) is not None


@pytest.fixture(scope='session')
def command(tmp_path_factory):
    """command(language) is what runs its example, compiled when first asked for; skips the test where it can't be."""
    folder = tmp_path_factory.mktemp('examples')
    environment = dict(os.environ, GOCACHE=f'{folder}/gocache', GOFLAGS='-mod=mod', GOPROXY='off')

    @functools.lru_cache(None)
    def build(language):
        if not installed(language):
            pytest.skip(f'no {tool(language)} here: the {language} example was not run')
        source, compiling, running = LANGUAGES[language]
        paths = {'source': EXAMPLES / source, 'program': folder / language}
        if compiling:
            subprocess.run(compiling.format(**paths).split(), env=environment, check=True)
        return running.format(**paths).split()
    return build


@pytest.fixture
def run(command, children, mnt, name):
    """run(language, action, *arguments) starts an example on this test's queue."""
    def start(language, action, *arguments):
        children.append(Peer('env', f'IPCFS_MOUNT={mnt}', *command(language), action, name, *map(str, arguments)))
        return children[-1]
    return start


def done(output):
    """The (language, job, counter) of each job that a consumer says it did."""
    lines = [re.fullmatch(r'(\w+): job (\d+), counter (\d+)', line) for line in output.splitlines()]
    assert all(lines), output
    return [(language, int(job), int(counter)) for language, job, counter in (line.groups() for line in lines)]


def one_by_one(language, n):
    """What done() gives for one consumer of the jobs 1 to n."""
    return [(language, job, job * (job + 1) // 2) for job in range(1, n + 1)]


@pytest.mark.parametrize('language', OTHERS)
def test_producer_waits_for_a_native_consumer(run, name, language):
    n = 3 * QUEUE_LENGTH
    producer = run(language, 'produce', n)
    eventually(lambda: native.exists('mq', name))
    with native.Queue(name, os.O_RDONLY) as queue:
        eventually(lambda: len(queue) == QUEUE_LENGTH)
    assert producer.poll() is None
    consumer = run('c', 'consume')
    assert done(consumer.finish()) == one_by_one('c', n)
    producer.finish()


@pytest.mark.parametrize('language', OTHERS)
def test_consumer_waits_for_a_native_producer(run, name, language):
    n = 3 * QUEUE_LENGTH
    consumer = run(language, 'consume')
    eventually(lambda: native.exists('mq', name))
    producer = run('c', 'produce', n)
    assert done(consumer.finish()) == one_by_one(language, n)
    producer.finish()


def test_all_languages_at_once(run, mnt, name):
    """Every consumer works, no job is done twice or lost, and no addition to the counter overtakes another."""
    n = 50
    languages = [language for language in LANGUAGES if installed(language)]
    with native.create_semaphore(name) as lock, native.create_queue(name, QUEUE_LENGTH) as queue:
        for _ in languages:
            queue.send(b'1')
        consumers = [run(language, 'consume') for language in languages]
        eventually(lambda: len(queue) == 0)  # each has its job, and waits for the lock
        producers = [run(language, 'produce', n) for language in languages]
        lock.post()
        for producer in producers:
            producer.finish()
        steps = [step for consumer in consumers for step in done(consumer.finish())]

        assert {language for language, _, _ in steps} == set(languages)
        assert sorted(job for _, job, _ in steps) == sorted([1] * len(languages) + [*range(1, n + 1)] * len(languages))
        steps.sort(key=lambda step: step[2])
        before = 0
        for _, job, counter in steps:
            assert counter == before + job
            before = counter
        assert int((mnt / 'shm' / name).read_text()) == before
        assert lock.value == 1
        assert len(queue) == 0


@pytest.mark.parametrize('language', LANGUAGES)
def test_usage(run, name, language):
    """Anything else is answered with a line on stderr and a failure, and nothing is made."""
    example = run(language, 'produce')
    example.communicate()
    assert example.returncode not in (0, None)
    assert not native.exists('mq', name)


def test_readme_names_every_example():
    readme = (EXAMPLES / 'README.md').read_text()
    sources = {path.name for path in EXAMPLES.iterdir()} - {'README.md'}
    assert sources == {source for source, _, _ in LANGUAGES.values()}
    for source in sources:
        assert f' {source}' in readme or f'/{source}' in readme

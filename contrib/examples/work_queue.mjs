#!/usr/bin/env node
// Work queue on ipcfs: node work_queue.mjs produce NAME N | consume NAME. See README.md.
//
// The calls are synchronous because this program has nothing else to do. One that has should use the same calls of
// node:fs/promises; each one that waits then holds one of libuv's four threads (UV_THREADPOOL_SIZE).
import { constants, openSync, readSync, writeSync } from 'node:fs';

const mount = process.env.IPCFS_MOUNT ?? '/mnt/ipc';

function open(directory, name) {
  return openSync(`${mount}/${directory}/${name}`, constants.O_CREAT | constants.O_RDWR, 0o666);
}

// One operation: receives from a queue, waits on a semaphore, reads the counter.
function read(object) {
  const buffer = Buffer.alloc(64);
  const length = readSync(object, buffer, 0, buffer.length, 0);
  return buffer.toString('utf8', 0, length).trim();
}

function withLock(lock, action) {
  read(lock); // wait
  try {
    return action();
  } finally {
    writeSync(lock, '\n'); // post
  }
}

function produce(jobs, n) {
  for (let job = 1; job <= n; job++) writeSync(jobs, String(job));
  writeSync(jobs, 'end');
}

function consume(jobs, lock, counter) {
  for (let message; (message = read(jobs)) !== 'end';) {
    const job = Number(message);
    const total = withLock(lock, () => {
      const sum = Number(read(counter)) + job; // a new segment is empty, and Number('') is 0
      writeSync(counter, `${String(sum).padStart(11)}\n`, 0);
      return sum;
    });
    console.log(`node: job ${job}, counter ${total}`);
  }
}

const [action, name, n] = process.argv.slice(2);
if (!(process.argv.length === 5 && action === 'produce') && !(process.argv.length === 4 && action === 'consume')) {
  console.error(`usage: ${process.argv[1]} produce NAME N | consume NAME`);
  process.exit(2);
}
const jobs = open('mq@max_messages=10,max_message_size=64', name);
const lock = open('sem@value=1', name);
const counter = open('shm', name);
if (action === 'produce') produce(jobs, Number(n));
else consume(jobs, lock, counter);

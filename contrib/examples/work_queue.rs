//! Work queue on ipcfs: work_queue produce NAME N | consume NAME. See README.md.

use std::env;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn open(directory: &str, name: &str) -> io::Result<File> {
    let mount = env::var_os("IPCFS_MOUNT").unwrap_or_else(|| "/mnt/ipc".into());
    let path = PathBuf::from(mount).join(directory).join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// One operation: receives from a queue, waits on a semaphore, reads the counter.
fn read(object: &File) -> Result<String> {
    let mut buffer = [0; 64];
    let length = object.read_at(&mut buffer, 0)?;
    Ok(std::str::from_utf8(&buffer[..length])?.trim().to_string())
}

/// The lock, taken until this value is dropped.
struct Taken<'a>(&'a File);

impl<'a> Taken<'a> {
    fn wait(lock: &'a File) -> Result<Self> {
        read(lock)?;
        Ok(Taken(lock))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.write_all_at(b"\n", 0).expect("post");
    }
}

fn produce(jobs: &File, n: u64) -> Result<()> {
    for job in 1..=n {
        jobs.write_all_at(job.to_string().as_bytes(), 0)?;
    }
    jobs.write_all_at(b"end", 0)?;
    Ok(())
}

fn consume(jobs: &File, lock: &File, counter: &File) -> Result<()> {
    loop {
        let message = read(jobs)?;
        if message == "end" {
            return Ok(());
        }
        let job: u64 = message.parse()?;
        let total = add(lock, counter, job)?;
        println!("rust: job {job}, counter {total}");
    }
}

fn add(lock: &File, counter: &File, job: u64) -> Result<u64> {
    let _taken = Taken::wait(lock)?;
    let text = read(counter)?;
    let before: u64 = if text.is_empty() { 0 } else { text.parse()? }; // a new segment is empty
    counter.write_all_at(format!("{:11}\n", before + job).as_bytes(), 0)?;
    Ok(before + job)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let objects = |name| -> io::Result<_> {
        Ok((
            open("mq@max_messages=10,max_message_size=64", name)?,
            open("sem@value=1", name)?,
            open("shm", name)?,
        ))
    };
    match arguments[..] {
        ["produce", name, n] => {
            let (jobs, _, _) = objects(name)?;
            produce(&jobs, n.parse()?)
        }
        ["consume", name] => {
            let (jobs, lock, counter) = objects(name)?;
            consume(&jobs, &lock, &counter)
        }
        _ => {
            eprintln!("usage: work_queue produce NAME N | consume NAME");
            process::exit(2)
        }
    }
}

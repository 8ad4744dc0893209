//! What is measured: each workload runs in a process of its own (`bench work …`), so that neither the start of a program nor
//! a server that hangs is part of a figure, and prints `seconds count bytes`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What one run of a workload took and did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Wall-clock seconds.
    pub(crate) seconds: f64,
    /// Files or entries handled.
    pub(crate) count: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
}

impl Figure {
    /// The figure that a workload process printed.
    pub(crate) fn parse(text: &str) -> Option<Figure> {
        let mut words = text.split_whitespace();
        let seconds = words.next()?.parse().ok()?;
        let count = words.next()?.parse().ok()?;
        let bytes = words.next()?.parse().ok()?;
        Some(Figure { seconds, count, bytes })
    }
}

/// Runs the workload that the arguments name: `read DIR THREADS`, `stream FILE BLOCK`, `random FILE COUNT`, `find DIR`,
/// `stat DIR`, `open DIR COUNT`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let [workload, path, rest @ ..] = arguments else { return Err("work WORKLOAD PATH [NUMBER]".to_owned()) };
    let path = Path::new(path);
    let number: usize = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let figure = match workload.as_str() {
        "read" => read_all(path, number),
        "stream" => stream(path, number),
        "random" => random(path, number),
        "find" => timed(|| find(path)),
        "stat" => timed(|| stat(path)),
        "open" => open_at_once(path, number),
        other => return Err(format!("no such workload: {other}")),
    };
    let figure = figure.map_err(|error| format!("{workload} {}: {error}", path.display()))?;
    println!("{} {} {}", figure.seconds, figure.count, figure.bytes);
    Ok(())
}

fn timed(work: impl FnOnce() -> io::Result<u64>) -> io::Result<Figure> {
    let begun = Instant::now();
    let count = work()?;
    Ok(Figure { seconds: begun.elapsed().as_secs_f64(), count, bytes: 0 })
}

/// The environment variable with the file that lists the small files.
pub(crate) const NAMES: &str = "BENCH_NAMES";

/// The small files below `root`, by a list, so that the file system that is measured is not asked.
fn names(root: &Path) -> io::Result<Vec<PathBuf>> {
    let list = std::env::var_os(NAMES).ok_or_else(|| io::Error::other(format!("{NAMES} is not set")))?;
    let listing = fs::read_to_string(list)?;
    Ok(listing.lines().map(|line| root.join(line)).collect())
}

/// Opens, reads to the end and closes every listed file, shared out over threads.
fn read_all(root: &Path, threads: usize) -> io::Result<Figure> {
    let names = names(root)?;
    let begun = Instant::now();
    let bytes = thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|first| {
                let names = &names;
                scope.spawn(move || -> io::Result<u64> {
                    let mut buffer = vec![0; 128 * 1024];
                    let mut bytes = 0;
                    for name in names.iter().skip(first).step_by(threads) {
                        bytes += drain(&mut File::open(name)?, &mut buffer)?;
                    }
                    Ok(bytes)
                })
            })
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader does not panic"))
            .sum::<io::Result<u64>>()
    })?;
    Ok(Figure { seconds: begun.elapsed().as_secs_f64(), count: names.len() as u64, bytes })
}

fn drain(file: &mut File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut bytes = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}

/// Reads one file from its beginning to its end.
fn stream(path: &Path, block: usize) -> io::Result<Figure> {
    let mut buffer = vec![0; block.max(1)];
    let begun = Instant::now();
    let bytes = drain(&mut File::open(path)?, &mut buffer)?;
    Ok(Figure { seconds: begun.elapsed().as_secs_f64(), count: 1, bytes })
}

/// Reads `count` pieces of 4 KiB at random places of one file.
fn random(path: &Path, count: usize) -> io::Result<Figure> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let blocks = (file.metadata()?.len() / 4096).max(1);
    let mut buffer = [0; 4096];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let begun = Instant::now();
    for _ in 0..count {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        file.read_exact_at(&mut buffer, (seed % blocks) * 4096)?;
    }
    Ok(Figure { seconds: begun.elapsed().as_secs_f64(), count: count as u64, bytes: count as u64 * 4096 })
}

/// What `find DIR` asks of a file system: every directory read, no entry looked at beyond its type.
fn find(root: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += find(&entry.path())?;
        }
    }
    Ok(count)
}

/// What `find DIR -size +1` asks: every directory read, and `lstat` of every entry.
fn stat(root: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        count += 1;
        if entry.metadata()?.is_dir() {
            count += stat(&entry.path())?;
        }
    }
    Ok(count)
}

/// Opens the first `count` files at once, each from a thread of its own, and reads a byte; the count is that of the good ones.
fn open_at_once(root: &Path, count: usize) -> io::Result<Figure> {
    let names = names(root)?;
    let (count, begun) = (count.min(names.len()), Instant::now());
    let start = Barrier::new(count);
    let good = thread::scope(|scope| {
        let spawn = |name: &'_ PathBuf| {
            let (name, start) = (name.clone(), &start);
            thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, move || {
                start.wait();
                File::open(name).and_then(|mut file| file.read(&mut [0; 1])).is_ok()
            })
        };
        let openers = names[..count].iter().map(spawn).collect::<io::Result<Vec<_>>>()?;
        Ok::<usize, io::Error>(
            openers.into_iter().filter_map(|opener| opener.join().ok()).filter(|good| *good).count(),
        )
    })?;
    Ok(Figure { seconds: begun.elapsed().as_secs_f64(), count: good as u64, bytes: 0 })
}

/// The longest that a workload may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

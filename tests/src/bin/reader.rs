//! A program that reads a mounted tree and compares it with the source tree until told to stop.
//!
//! `reader MODE MOUNT SOURCE STOP SEED` prints `done N` and ends with 0 when the file STOP appears, or says what was wrong and
//! ends with 1 at the first system call that fails and the first byte that differs. Modes:
//! - `files`: opens files at random (small, large, chunked), keeps some open over rounds, reads pieces of them;
//! - `listings`: reads directories name by name and compares the sets;
//! - `programs`: runs MOUNT/bin/busybox with arguments, each run must print what it should.
//!
//! It is a process of its own because a process that holds files of a mount must not be the one that spawns others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Marsaglia's xorshift64: enough to vary, and a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, mode, mount, source, stop, seed] = &arguments[..] else {
        eprintln!("usage: reader files|listings|programs MOUNT SOURCE STOP SEED");
        return ExitCode::from(2);
    };
    let (mount, source, stop) = (Path::new(mount), Path::new(source), Path::new(stop));
    let random = Random(seed.parse::<u64>().unwrap_or(1) | 1);
    let outcome = match mode.as_str() {
        "files" => files(mount, source, stop, random),
        "listings" => listings(mount, source, stop),
        "programs" => programs(mount, stop),
        other => Err(format!("no mode {other}")),
    };
    match outcome {
        Ok(rounds) => {
            println!("done {rounds}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn walk(root: &Path, found: &mut Vec<PathBuf>, directories: &mut Vec<PathBuf>) {
    directories.push(root.to_owned());
    let mut entries: Vec<_> = fs::read_dir(root).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found, directories),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn files(mount: &Path, source: &Path, stop: &Path, mut random: Random) -> Result<u64, String> {
    let mut paths = Vec::new();
    walk(source, &mut paths, &mut Vec::new());
    let mut kept: BTreeMap<usize, File> = BTreeMap::new();
    let mut rounds = 0;
    while !stop.exists() {
        let index = usize::try_from(random.below(paths.len() as u64)).map_err(|e| e.to_string())?;
        let path = &paths[index];
        let relative = path.strip_prefix(source).map_err(|e| e.to_string())?;
        let say =
            |what: &str, error: &dyn std::fmt::Display| format!("{}: {what}: {error}", relative.display());
        let original = File::open(path).map_err(|e| say("open the source", &e))?;
        let file = match kept.remove(&index) {
            Some(file) => file,
            None => File::open(mount.join(relative)).map_err(|e| say("open", &e))?,
        };
        let length = file.metadata().map_err(|e| say("stat", &e))?.len();
        let expected_length = original.metadata().map_err(|e| say("stat the source", &e))?.len();
        if length != expected_length {
            return Err(say("length", &format!("{length} instead of {expected_length}")));
        }
        let offset = random.below(length.max(1));
        let size = usize::try_from(1 + random.below(256 << 10)).map_err(|e| e.to_string())?;
        let (mut got, mut expected) = (vec![0; size], vec![0; size]);
        let read = read_all(&file, &mut got, offset).map_err(|e| say("read", &e))?;
        let there = read_all(&original, &mut expected, offset).map_err(|e| say("read the source", &e))?;
        if read != there || got != expected {
            return Err(say("content", &format!("{read} bytes at {offset} differ")));
        }
        if random.below(3) == 0 && kept.len() < 32 {
            kept.insert(index, file);
        }
        rounds += 1;
    }
    Ok(rounds)
}

fn read_all(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn listings(mount: &Path, source: &Path, stop: &Path) -> Result<u64, String> {
    let mut directories = Vec::new();
    walk(source, &mut Vec::new(), &mut directories);
    let mut rounds = 0;
    while !stop.exists() {
        for directory in &directories {
            let relative = directory.strip_prefix(source).map_err(|e| e.to_string())?;
            let say = |what: &str, error: &dyn std::fmt::Display| {
                format!("{}: {what}: {error}", relative.display())
            };
            let mut names = BTreeSet::new();
            for entry in fs::read_dir(mount.join(relative)).map_err(|e| say("open", &e))? {
                let name = entry.map_err(|e| say("list", &e))?.file_name();
                if !names.insert(name.clone()) {
                    return Err(say("a name came twice", &name.to_string_lossy()));
                }
            }
            let expected: BTreeSet<_> = fs::read_dir(directory)
                .map_err(|e| say("source", &e))?
                .flatten()
                .map(|e| e.file_name())
                .collect();
            if names != expected {
                return Err(say("names", &format!("{} instead of {}", names.len(), expected.len())));
            }
            rounds += 1;
        }
    }
    Ok(rounds)
}

fn programs(mount: &Path, stop: &Path) -> Result<u64, String> {
    let program = mount.join("bin/busybox");
    let mut rounds = 0;
    while !stop.exists() {
        let text = format!("round {rounds}");
        // `env -i` style: exec of a file on the mount, mapped and paged in by the kernel.
        let output =
            Command::new(&program).args(["echo", &text]).output().map_err(|e| format!("exec: {e}"))?;
        if !output.status.success() || output.stdout != format!("{text}\n").as_bytes() {
            return Err(format!("busybox: {} {:?}", output.status, String::from_utf8_lossy(&output.stdout)));
        }
        rounds += 1;
    }
    Ok(rounds)
}

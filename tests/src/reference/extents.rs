//! Which blocks a snapshot holds: what lseek(2) says of its sparse copy, and for two of them also what differs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use volume::{Extent, Extents, Fault, FaultKind, Secrets, SnapshotExtents};

use super::state::State;
use super::{Inner, Reference, failed};

/// Blocks are compared in pieces of so many bytes; changes are told as whole pieces.
const PIECE: u64 = 64 << 10;

#[async_trait]
impl SnapshotExtents for Reference {
    async fn allocated(
        &self,
        snapshot: &str,
        from: u64,
        limit: usize,
        _secrets: &Secrets,
    ) -> Result<Extents, Fault> {
        let snapshot = snapshot.to_owned();
        self.change(move |inner, state| {
            let size = size_of(state, &snapshot, from)?;
            let data = data(&inner.copy(&snapshot)).map_err(|error| failed("read", error))?;
            Ok(Extents { size, extents: part(data, from, limit) })
        })
        .await
    }

    async fn changed(
        &self,
        base: &str,
        target: &str,
        from: u64,
        limit: usize,
        _secrets: &Secrets,
    ) -> Result<Extents, Fault> {
        let (base, target) = (base.to_owned(), target.to_owned());
        self.change(move |inner: &Inner, state| {
            let size = size_of(state, &target, from)?;
            let (older, newer) = (state.snapshot("compare", &base)?, state.snapshot("compare", &target)?);
            if older.volume != newer.volume {
                let detail = "it is a snapshot of another volume";
                return Err(Fault::new(FaultKind::InvalidArgument, "compare", base, detail));
            }
            let changes = changes(&inner.copy(&base), &inner.copy(&target));
            let changes = changes.map_err(|error| failed("compare", error))?;
            Ok(Extents { size, extents: part(changes, from, limit) })
        })
        .await
    }
}

fn size_of(state: &State, snapshot: &str, from: u64) -> Result<u64, Fault> {
    let size = state.snapshot("read", snapshot)?.size;
    if from > size {
        let detail = format!("offset {from} is beyond the end at {size}");
        return Err(Fault::new(FaultKind::OutOfRange, "read", snapshot, detail));
    }
    Ok(size)
}

fn part(all: Vec<Extent>, from: u64, limit: usize) -> Vec<Extent> {
    all.into_iter().filter(|extent| extent.offset + extent.length > from).take(limit).collect()
}

/// The parts of a file that are not holes.
fn data(path: &Path) -> std::io::Result<Vec<Extent>> {
    let file = File::open(path)?;
    let (mut extents, mut at) = (Vec::new(), 0);
    loop {
        let start = match lseek(&file, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(extents),
            Err(errno) => return Err(errno.into()),
        };
        let end = lseek(&file, start, Whence::SeekHole)?;
        extents.push(Extent { offset: start.unsigned_abs(), length: (end - start).unsigned_abs() });
        at = end;
    }
}

/// The pieces that differ, of those that either file has. A file that is shorter has zeros there.
fn changes(base: &Path, target: &Path) -> std::io::Result<Vec<Extent>> {
    let mut pieces: Vec<u64> = Vec::new();
    for extent in data(base)?.into_iter().chain(data(target)?) {
        pieces.extend(extent.offset / PIECE..=(extent.offset + extent.length - 1) / PIECE);
    }
    pieces.sort_unstable();
    pieces.dedup();
    let (base, target) = (File::open(base)?, File::open(target)?);
    let size = target.metadata()?.len();
    let mut changes: Vec<Extent> = Vec::new();
    for offset in pieces.into_iter().map(|piece| piece * PIECE).filter(|offset| *offset < size) {
        if piece(&base, offset)? == piece(&target, offset)? {
            continue;
        }
        let length = PIECE.min(size - offset);
        match changes.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => changes.push(Extent { offset, length }),
        }
    }
    Ok(changes)
}

/// A piece, zeros where the file has none.
fn piece(file: &File, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes[filled..].fill(0);
    Ok(bytes)
}

//! The rows that everybody runs: cold ones from a fresh cache, cached ones with the kernel's caches dropped and warm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::subject::Subject;
use crate::table::{Goal, Row};
use crate::tree::Sizes;
use crate::work::Figure;
use crate::{drop_kernel_caches, note, workload};

/// Figures by the key of their row.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// What the measurements need to know.
pub(crate) struct Bench {
    /// The list of small files.
    pub(crate) names: PathBuf,
    /// How much of each.
    pub(crate) sizes: Sizes,
}

/// How a figure becomes a row's number.
#[derive(Clone, Copy)]
pub(crate) enum As {
    /// Files or entries a second.
    Rate,
    /// MB (10^6 bytes) a second.
    Megabytes,
    /// Seconds.
    Seconds,
}

impl As {
    fn of(self, figure: Figure) -> f64 {
        match self {
            As::Rate => figure.count as f64 / figure.seconds,
            As::Megabytes => figure.bytes as f64 / 1e6 / figure.seconds,
            As::Seconds => figure.seconds,
        }
    }
}

/// Keeps the better of two numbers: rates grow, seconds shrink.
fn keep(figures: &mut Figures, key: &'static str, how: As, figure: Figure) {
    let new = how.of(figure);
    note(&format!("  {key}: {new:.3}"));
    let better = |old: f64| if matches!(how, As::Seconds) { old.min(new) } else { old.max(new) };
    let best = figures.get(key).map_or(new, |old| better(*old));
    figures.insert(key, best);
}

impl Bench {
    /// One workload on a part of the tree.
    pub(crate) fn run(&self, what: &str, path: &Path, number: usize) -> Result<Figure, String> {
        let path = path.to_str().ok_or("temporary paths are UTF-8")?;
        workload(&[what, path, &number.to_string()], &self.names)
    }

    /// Rows that begin with nothing cached. A workload that fails leaves its row without a figure.
    pub(crate) fn cold(&self, subject: &dyn Subject) -> Result<Figures, String> {
        let mut figures = Figures::new();
        let cases: [(&'static str, As, &str, &str, usize); 5] = [
            ("cold-1", As::Rate, "read", "small", 1),
            ("cold-8", As::Rate, "read", "small", 8),
            ("cold-stream", As::Megabytes, "stream", "large/data", 128 * 1024),
            ("cold-random", As::Rate, "random", "large/data", 200),
            ("find-cold", As::Seconds, "find", "many", 1),
        ];
        for (key, how, what, part, number) in cases {
            for _ in 0..self.sizes.repeats {
                subject.fresh(&mut |root, milliseconds| {
                    let mounted = Figure { seconds: milliseconds, count: 1, bytes: 0 };
                    keep(&mut figures, "mount-cold", As::Seconds, mounted);
                    match self.run(what, &root.join(part), number) {
                        Ok(figure) => keep(&mut figures, key, how, figure),
                        Err(error) => note(&error),
                    }
                })?;
            }
        }
        Ok(figures)
    }

    /// Rows with everything in the cache on the disk.
    pub(crate) fn cached(&self, subject: &dyn Subject) -> Result<Figures, String> {
        let mut figures = Figures::new();
        subject.fresh(&mut |root, _| self.cached_at(root, &mut figures))?;
        Ok(figures)
    }

    fn cached_at(&self, root: &Path, figures: &mut Figures) {
        let cases: [(&'static str, &'static str, As, &str, &str, usize); 5] = [
            ("small-dropped", "small-warm", As::Seconds, "read", "small", 1),
            ("stream-dropped", "stream-warm", As::Megabytes, "stream", "large/data", 128 * 1024),
            ("bytes-dropped", "bytes-warm", As::Megabytes, "stream", "large/data", 512),
            ("find-dropped", "find-warm", As::Seconds, "find", "many", 1),
            ("stat-dropped", "stat-warm", As::Seconds, "stat", "many", 1),
        ];
        for (dropped, warm, how, what, part, number) in cases {
            let path = root.join(part);
            let mut rounds = || -> Result<(), String> {
                // Into the cache on the disk.
                self.run(what, &path, number)?;
                for _ in 0..self.sizes.repeats {
                    drop_kernel_caches();
                    keep(figures, dropped, how, self.run(what, &path, number)?);
                    self.run(what, &path, number)?;
                    keep(figures, warm, how, self.run(what, &path, number)?);
                }
                Ok(())
            };
            if let Err(error) = rounds() {
                note(&error);
            }
        }
    }
}

/// The table's rows from the figures of the three.
pub(crate) fn rows(ours: &Figures, plain: &Figures, peer: &Figures, sizes: Sizes) -> Vec<Row> {
    let Sizes { small, large_mib, opens, .. } = sizes;
    let entries = sizes.directories * 60;
    let of = |figures: &Figures, key: &str| figures.get(key).copied();
    let row = |key: &str, name: String, unit: &'static str, goal: Goal| Row {
        name,
        unit,
        ours: of(ours, key),
        plain: of(plain, key),
        peer: of(peer, key),
        goal,
    };
    vec![
        row("cold-1", format!("{small} small files cold, one reader"), "files/s", Goal::AtLeast(3000.0)),
        row("cold-8", format!("{small} small files cold, eight readers"), "files/s", Goal::AtLeast(6000.0)),
        row(
            "cold-stream",
            format!("{large_mib} MiB compressible cold, sequential"),
            "MB/s",
            Goal::AtLeast(500.0),
        ),
        row(
            "cold-random",
            "the same file cold, 200 random reads of 4 KiB".into(),
            "reads/s",
            Goal::AtLeast(1000.0),
        ),
        row("stream-dropped", "cached file, page cache dropped".into(), "MB/s", Goal::PartOfPlain(0.95)),
        row("stream-warm", "cached file, page cache warm".into(), "MB/s", Goal::PartOfPlain(0.8)),
        row("bytes-dropped", "512-byte reads, page cache dropped".into(), "MB/s", Goal::PartOfPlain(0.8)),
        row("bytes-warm", "512-byte reads, page cache warm".into(), "MB/s", Goal::PartOfPlain(0.8)),
        row("find-cold", format!("`find`, {entries} entries, catalogs cold"), "s", Goal::AtMost(0.45)),
        row("find-dropped", "`find`, kernel cold".into(), "s", Goal::TimesPlain(1.5)),
        row("find-warm", "`find`, warm".into(), "s", Goal::TimesPlain(1.5)),
        row("stat-dropped", "`stat` of all, kernel cold".into(), "s", Goal::TimesPlain(2.0)),
        row("stat-warm", "`stat` of all, warm".into(), "s", Goal::None),
        row("small-dropped", format!("{small} small files cached, kernel cold"), "s", Goal::TimesPlain(1.3)),
        row("small-warm", format!("{small} small files cached, warm"), "s", Goal::TimesPlain(2.0)),
        row("mount-cold", "mount, nothing cached".into(), "ms", Goal::AtMost(50.0)),
        row("mount-cached", "mount, cached".into(), "ms", Goal::AtMost(50.0)),
        row("docker-mount", "Docker `Mount` of an attached volume".into(), "ms", Goal::AtMost(10.0)),
        row(
            "docker-attach",
            "Docker `Mount` that attaches a cached repository".into(),
            "ms",
            Goal::AtMost(100.0),
        ),
        row(
            "flexvolume-mount",
            "FlexVolume `mount` of an attached volume, with exec".into(),
            "ms",
            Goal::AtMost(10.0),
        ),
        row("flexvolume-unmount", "its `unmount`".into(), "ms", Goal::None),
        row(
            "csi-attach",
            "CSI `NodeStageVolume` that attaches a cached repository".into(),
            "ms",
            Goal::AtMost(100.0),
        ),
        row("csi-publish", "CSI `NodePublishVolume` of an attached volume".into(), "ms", Goal::AtMost(10.0)),
        row(
            "csi-crowd-stage",
            "50 `NodeStageVolume` at once, each a mount of its own".into(),
            "s",
            Goal::None,
        ),
        row(
            "csi-crowd-publish",
            "500 `NodePublishVolume` at once of these 50 volumes".into(),
            "s",
            Goal::AtMost(2.0),
        ),
        row("csi-crowd-unpublish", "500 `NodeUnpublishVolume` at once".into(), "s", Goal::None),
        row(
            "opens",
            format!("{opens} opens at a server that says nothing: in flight"),
            "",
            Goal::AtLeast(opens as f64),
        ),
        row("opens-threads", "the same: threads of the worker".into(), "", Goal::AtMost(64.0)),
        row(
            "opens-good",
            "the same: opens that succeed when it answers".into(),
            "",
            Goal::AtLeast(opens as f64),
        ),
        row("memory-idle", "memory of an idle worker (VmRSS)".into(), "MB", Goal::AtMost(12.0)),
        row("memory-private", "the same without shared file pages (RssAnon)".into(), "MB", Goal::None),
        row("memory-read", "memory of a worker after reading everything".into(), "MB", Goal::AtMost(40.0)),
        row("memory-peak", "its peak (VmHWM)".into(), "MB", Goal::None),
        row("memory-daemon", "memory of the daemon".into(), "MB", Goal::AtMost(25.0)),
    ]
}

//! What a worker says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use volume::{Sample, WorkerReport};

use crate::fs::{Served, Shared, Tree};

/// How the mount is now.
pub(super) fn of(shared: &Shared) -> WorkerReport {
    let (open, failures) = match &shared.tree {
        Tree::One(served) => (vec![Arc::clone(served)], Vec::new()),
        Tree::All(all, _) => (all.open_ones(), all.failures()),
    };
    let revision = match (&shared.tree, open.first()) {
        (Tree::One(_), Some(served)) => Some(revision(served)),
        (Tree::One(_), None) => None,
        (Tree::All(..), _) => Some(format!("{} repositories open", open.len())),
    };
    let mut troubles: Vec<String> = Vec::new();
    for served in &open {
        for trouble in [served.repository.trouble(), served.fetcher.trouble()].into_iter().flatten() {
            let trouble = if open.len() > 1 { format!("{}: {trouble}", served.name()) } else { trouble };
            if !troubles.contains(&trouble) {
                troubles.push(trouble);
            }
        }
    }
    troubles.extend(failures);
    WorkerReport {
        revision,
        trouble: (!troubles.is_empty()).then(|| troubles.join("; ")),
        last_error: last_error(shared),
        details: details(shared, &open),
        samples: samples(shared, &open),
        ..WorkerReport::default()
    }
}

fn revision(served: &Served) -> String {
    let snapshot = served.repository.snapshot();
    format!("revision {} (hash {})", snapshot.revision(), snapshot.root().digest)
}

fn last_error(shared: &Shared) -> Option<String> {
    let (at, text) = shared.requests.last_error()?;
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Some(format!("{}: {text}", utc(seconds)))
}

/// `2026-01-02T03:04:05Z`; civil date from days, after Howard Hinnant's public description of the algorithm.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn details(shared: &Shared, open: &[Arc<Served>]) -> BTreeMap<String, String> {
    let mut details = BTreeMap::new();
    let mut add = |name: &str, value: String| details.insert(name.to_owned(), value);
    add("cache_bytes", shared.cache.usage().to_string());
    add("open_files", shared.state.open_files().to_string());
    add("nodes", shared.state.nodes().to_string());
    add("waiting_requests", shared.requests.waiting().to_string());
    let catalogs: usize = open.iter().map(|served| served.repository.catalogs().open_count()).sum();
    add("open_catalogs", catalogs.to_string());
    match open {
        [served] if matches!(shared.tree, Tree::One(_)) => {
            add("root_hash", served.repository.snapshot().root().digest.to_string());
        }
        _ => {
            for served in open {
                add(&format!("repository {}", served.name()), revision(served));
            }
        }
    }
    details
}

fn samples(shared: &Shared, open: &[Arc<Served>]) -> Vec<Sample> {
    let gauge =
        |name: &str, value: usize| Sample { name: name.to_owned(), labels: Vec::new(), value: value as f64 };
    let mut samples = vec![
        gauge("cvmfs_open_files", shared.state.open_files()),
        gauge("cvmfs_nodes", shared.state.nodes()),
    ];
    samples.extend(shared.requests.samples());
    let single = matches!(shared.tree, Tree::One(_));
    let mut cache = shared.cache.samples();
    for served in open {
        let snapshot = served.repository.snapshot();
        let labels = match single {
            true => Vec::new(),
            false => vec![("repository".to_owned(), served.name().to_owned())],
        };
        let revision = snapshot.revision() as f64;
        samples.push(Sample { name: "cvmfs_revision".to_owned(), labels: labels.clone(), value: revision });
        // A fetcher repeats the numbers of the cache, which all of them share.
        let own = served.fetcher.stats().into_iter();
        samples.extend(own.filter(|sample| !cache.iter().any(|of_cache| of_cache.name == sample.name)).map(
            |mut sample| {
                sample.labels.extend(labels.iter().cloned());
                sample
            },
        ));
    }
    samples.append(&mut cache);
    samples
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_told_in_utc() {
        assert_eq!(super::utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(super::utc(4_102_444_799), "2099-12-31T23:59:59Z");
    }
}

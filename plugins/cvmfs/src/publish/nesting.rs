//! Where the tree is cut into catalogs: by marker files, by patterns, and where a catalog would become too large.

use std::fs;
use std::io::Read as _;

use super::error::{PublishError, io_error};
use super::options::Nesting;
use super::scan::{EntryId, Kind, Tree};

/// A file of this name makes its directory the root of a nested catalog.
const MARKER: &[u8] = b".cvmfscatalog";
/// Patterns for such directories, in the root of the tree.
const DIRTAB: &[u8] = b".cvmfsdirtab";
/// Deepest nesting of catalogs. Each is one more transfer on the way to a file; readers give up at some depth.
const DEPTH_MAX: usize = 60;
/// No sane `.cvmfsdirtab` is larger.
const DIRTAB_LIMIT: u64 = 1 << 20;

/// For each entry, the directory at whose catalog its row is: the nearest nested root above it, or itself for a nested root.
pub(super) fn catalogs(tree: &Tree, nesting: &Nesting) -> Result<Vec<EntryId>, PublishError> {
    let mut roots = vec![false; tree.entries.len()];
    roots[0] = true;
    if nesting.marker_files {
        for entry in tree.entries.iter().filter(|entry| *entry.name == *MARKER) {
            roots[entry.parent] = true;
        }
    }
    let mut patterns = Patterns::parse(nesting.patterns.iter().map(|line| line.as_bytes()))?;
    if nesting.dirtab {
        let text = dirtab(tree)?;
        let more = Patterns::parse(text.split(|byte| *byte == b'\n'))?;
        patterns.include.extend(more.include);
        patterns.exclude.extend(more.exclude);
    }
    if !patterns.include.is_empty() {
        for id in (1..tree.entries.len()).filter(|id| tree.entries[*id].is_directory()) {
            roots[id] |= patterns.select(&tree.path(id));
        }
    }
    if let Some(max) = nesting.max_entries {
        split(tree, &mut roots, max, nesting.min_entries.max(1));
    }
    let mut owners = vec![0; tree.entries.len()];
    let mut depths = vec![0_usize; tree.entries.len()];
    for id in 1..tree.entries.len() {
        let parent = tree.entries[id].parent;
        owners[id] = if roots[id] { id } else { owners[parent] };
        depths[id] = depths[parent] + usize::from(roots[id]);
        if depths[id] > DEPTH_MAX {
            return Err(PublishError::Unstorable {
                path: tree.source_path(id),
                reason: format!(
                    "catalogs would be nested more than {DEPTH_MAX} deep: remove some .cvmfscatalog files or patterns"
                ),
            });
        }
    }
    Ok(owners)
}

fn dirtab(tree: &Tree) -> Result<Vec<u8>, PublishError> {
    let found = (1..tree.entries.len())
        .take_while(|id| tree.entries[*id].parent == 0)
        .find(|id| *tree.entries[*id].name == *DIRTAB && matches!(tree.entries[*id].kind, Kind::File(_)));
    let Some(id) = found else { return Ok(Vec::new()) };
    let path = tree.source_path(id);
    let mut text = Vec::new();
    fs::File::open(&path)
        .and_then(|file| file.take(DIRTAB_LIMIT).read_to_end(&mut text))
        .map_err(io_error("read", &path))?;
    Ok(text)
}

/// Cuts catalogs with more than `max` entries: from the leaves up, a directory whose share of its catalog is too large gives
/// away its biggest subdirectories.
fn split(tree: &Tree, roots: &mut [bool], max: usize, min: usize) {
    let mut children: Vec<Vec<EntryId>> = vec![Vec::new(); tree.entries.len()];
    for id in 1..tree.entries.len() {
        if tree.entries[id].is_directory() {
            children[tree.entries[id].parent].push(id);
        }
    }
    // Entries in the catalog at and below each directory; a nested root leaves only its own row.
    let mut weights = vec![1_usize; tree.entries.len()];
    for id in (0..tree.entries.len()).rev() {
        if !tree.entries[id].is_directory() {
            weights[tree.entries[id].parent] += 1;
            continue;
        }
        let mut weight = weights[id];
        if weight > max {
            let mut candidates: Vec<EntryId> = children[id]
                .iter()
                .copied()
                .filter(|child| !roots[*child] && weights[*child] >= min)
                .collect();
            candidates.sort_by_key(|child| std::cmp::Reverse(weights[*child]));
            for child in candidates {
                if weight <= max {
                    break;
                }
                weight -= weights[child] - 1;
                roots[child] = true;
            }
            weights[id] = weight;
        }
        if id != 0 {
            weights[tree.entries[id].parent] += if roots[id] { 1 } else { weight };
        }
    }
}

#[derive(Debug, Default)]
struct Patterns {
    include: Vec<Vec<Vec<u8>>>,
    exclude: Vec<Vec<Vec<u8>>>,
}

impl Patterns {
    fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, PublishError> {
        let mut patterns = Patterns::default();
        for line in lines {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (list, pattern) = match line.strip_prefix(b"!") {
                Some(rest) => (&mut patterns.exclude, rest.trim_ascii()),
                None => (&mut patterns.include, line),
            };
            let components = pattern.strip_prefix(b"/").map(|rest| {
                rest.strip_suffix(b"/")
                    .unwrap_or(rest)
                    .split(|byte| *byte == b'/')
                    .map(<[u8]>::to_vec)
                    .collect()
            });
            list.push(components.ok_or_else(|| PublishError::Option {
                option: "catalog pattern",
                reason: format!(
                    "{:?} must be an absolute path, as in /software/*",
                    String::from_utf8_lossy(line)
                ),
            })?);
        }
        Ok(patterns)
    }

    fn select(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path[1..].split(|byte| *byte == b'/').collect();
        let any = |list: &[Vec<Vec<u8>>]| {
            list.iter().any(|pattern| {
                pattern.len() == names.len()
                    && pattern.iter().zip(&names).all(|(glob, name)| matches(glob, name))
            })
        };
        any(&self.include) && !any(&self.exclude)
    }
}

/// Shell matching within one name: `*`, `?`, `[a-z]`, `[!a-z]`, `\` before a literal. Linear in memory, at worst quadratic in time.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    // Where to go on when a literal does not fit: after the last star, one byte further.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if g < glob.len() && glob[g] == b'*' {
            star = Some((g + 1, n));
            g += 1;
            continue;
        }
        if n == name.len() {
            return g == glob.len();
        }
        if let Some(width) = (g < glob.len()).then(|| one(&glob[g..], name[n])).flatten() {
            g += width;
            n += 1;
            continue;
        }
        let Some((after, from)) = star else { return false };
        star = Some((after, from + 1));
        g = after;
        n = from + 1;
    }
}

/// Length of the pattern at the start of `glob` when it fits the byte.
fn one(glob: &[u8], byte: u8) -> Option<usize> {
    match glob[0] {
        b'?' => Some(1),
        b'\\' if glob.len() > 1 => (glob[1] == byte).then_some(2),
        b'[' => {
            let negated = matches!(glob.get(1), Some(b'!' | b'^'));
            let start = 1 + usize::from(negated);
            let length = glob.get(start + 1..)?.iter().position(|end| *end == b']')? + 1;
            let set = &glob[start..start + length];
            let mut inside = false;
            let mut at = 0;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == b'-' {
                    inside |= (set[at]..=set[at + 2]).contains(&byte);
                    at += 3;
                } else {
                    inside |= set[at] == byte;
                    at += 1;
                }
            }
            (inside != negated).then_some(start + length + 1)
        }
        literal => (literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell() {
        for (glob, name, fits) in [
            ("*", "anything", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("*.so.?", "libx.so.1", true),
            ("v[0-9]*", "v2.0", true),
            ("v[!0-9]*", "v2.0", false),
            ("[]a]", "]", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("", "", true),
            ("[", "[", false),
        ] {
            assert_eq!(matches(glob.as_bytes(), name.as_bytes()), fits, "{glob} {name}");
        }
    }

    #[test]
    fn exclusions_win_and_relative_patterns_are_refused() {
        let patterns = Patterns::parse(
            ["# versions", "/software/*/*", "! /software/*/latest"].iter().map(|l| l.as_bytes()),
        );
        let patterns = patterns.unwrap();
        assert!(patterns.select(b"/software/gcc/1.0"));
        assert!(!patterns.select(b"/software/gcc"));
        assert!(!patterns.select(b"/software/gcc/latest"));
        assert!(Patterns::parse([&b"software/*"[..]].into_iter()).is_err());
    }
}

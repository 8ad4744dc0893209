//! Options as users type them, before a backend has parsed them.

use std::collections::BTreeMap;

/// Untyped options: Docker `-o key=value`, FlexVolume JSON, CSI `volume_context`.
///
/// Keys are unique and sorted, so two maps with the same content are equal and digest equally.
pub type OptionMap = BTreeMap<String, String>;

/// The candidate nearest to `word` by edit distance, when it is near enough to be a likely typing mistake
/// (at most a third of the letters differ, at least one is allowed).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(steps, _)| *steps <= limit)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, two rows at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut current = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let substitute = previous[j] + usize::from(l != *r);
            current.push(substitute.min(previous[j + 1] + 1).min(current[j] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_finds_its_word() {
        let known = ["repository", "tag", "hash", "proxy"];
        assert_eq!(nearest("repositry", known), Some("repository"));
        assert_eq!(nearest("Tags", known), Some("tag"));
        assert_eq!(nearest("frobnicate", known), None);
    }
}

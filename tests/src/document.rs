//! What is in a document: blocks of examples, links, headings.
//!
//! A block of code is an example that is run when the line before it (blank ones left out) is `<!-- test -->`. In a block
//! `console`, lines that begin with `$ ` are commands and the others what they print, where `…` stands for anything: a
//! part of a line, or any number of lines when it is alone. A block `sh` is one script that must succeed.

use std::path::Path;

/// A fenced block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// What follows the fence: `console`, `sh`, `json`.
    pub language: String,
    /// The name in the comment before it: `test` of `<!-- test -->`.
    pub marker: Option<String>,
    /// Its lines.
    pub text: String,
}

/// A command and what it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// A line, or several, for a shell.
    pub command: String,
    /// Lines of standard output; `None` when nothing is said about them.
    pub output: Option<Vec<String>>,
}

/// A document's text.
///
/// # Panics
/// When it cannot be read.
pub fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All fenced blocks.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut marker: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim().strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                let language = language.to_owned();
                open = Some(Block { line: index + 1, language, marker: marker.take(), text: String::new() });
            }
            (None, None) => {
                let comment = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
                match comment {
                    Some(name) => marker = Some(name.trim().to_owned()),
                    None if line.trim().is_empty() => {}
                    None => marker = None,
                }
            }
        }
    }
    blocks
}

impl Block {
    /// The commands of a `console` or `sh` block.
    pub fn examples(&self) -> Vec<Example> {
        if self.language != "console" {
            return vec![Example { command: self.text.clone(), output: None }];
        }
        let mut examples: Vec<Example> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => {
                    examples.push(Example { command: command.to_owned(), output: Some(Vec::new()) });
                }
                (None, Some(Example { output: Some(output), .. })) => output.push(line.to_owned()),
                (None, _) => {}
            }
        }
        examples
    }
}

/// Whether a program printed what a document says.
pub fn fits(expected: &[String], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "…" => {
            (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..]))
        }
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| fits_line(line, first) && fits(rest, others))
        }
    }
}

fn fits_line(expected: &str, printed: &str) -> bool {
    match expected.split_once('…') {
        None => expected.trim_end() == printed.trim_end(),
        Some((start, rest)) => printed.strip_prefix(start).is_some_and(|left| {
            left.char_indices().map(|(at, _)| at).chain([left.len()]).any(|at| fits_line(rest, &left[at..]))
        }),
    }
}

/// Targets of links within the project, as they are written.
pub fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, left)) = after.split_once(')') else { break };
        if !target.contains("://") && !target.starts_with("mailto:") {
            links.push(target.to_owned());
        }
        rest = left;
    }
    links
}

/// Anchors of a document's headings, as forges make them.
pub fn anchors(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') {
            let plain = title.trim().to_lowercase();
            let kept = plain.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_blocks_are_found_with_their_commands() {
        let text = "a\n\n<!-- test -->\n\n```console\n$ ls\na\nb\n$ true\n```\n\n```sh\nnot marked\n```\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].line, blocks[0].marker.as_deref()), (5, Some("test")));
        assert_eq!(blocks[1].marker, None);
        let examples = blocks[0].examples();
        assert_eq!(examples[0].output, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((examples[1].command.as_str(), examples[1].output.as_deref()), ("true", Some(&[][..])));
    }

    #[test]
    fn dots_stand_for_anything_and_nothing_else_does() {
        let expected = ["a … c".to_owned(), "…".to_owned(), "end".to_owned()];
        assert!(fits(&expected, &["a b c", "x", "y", "end"]));
        assert!(fits(&expected, &["a  c", "end"]));
        assert!(!fits(&expected, &["a b", "end"]));
        assert!(!fits(&expected, &["a b c", "end", "more"]));
        assert!(!fits(&[], &["more"]));
    }

    #[test]
    fn links_and_anchors() {
        assert_eq!(links("[a](b.md#c) [d](https://e) [f](g)"), ["b.md#c", "g"]);
        assert_eq!(anchors("# A b-c\n```\n# no\n```\n## From `x` to y\n"), ["a-b-c", "from-x-to-y"]);
    }
}

//! Running the commands of a file.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::arithmetic::calculate;
use super::parser::parse;
use super::syntax::{AndOr, Assignment, Command, CommandKind, Join, Part, Simple, Word, is_name};
use super::{DEPTH_LIMIT, EXPANDED_LIMIT, STEP_LIMIT, ShellError, TEXT_LIMIT, Trouble, builtins};

/// What a script may see of the file system.
pub trait Files {
    /// The text of a regular file.
    ///
    /// # Errors
    /// It is not there, no text, or too large.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// What is at a path, symbolic links followed; `None` when nothing is.
    fn look(&self, path: &Path) -> Option<std::fs::Metadata>;
}

/// A value and where it was assigned last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The value at the end of the file.
    pub value: String,
    /// The file with the assignment; not the one that was run when that one read another.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

/// State of a script.
pub struct Shell<'a> {
    pub(super) files: &'a dyn Files,
    variables: BTreeMap<String, String>,
    assigned: BTreeMap<String, (String, u32)>,
    readonly: BTreeSet<String>,
    pub(super) status: bool,
    steps: usize,
    /// Bytes that expansions and looks at variables have copied.
    expanded: Cell<usize>,
    depth: usize,
    file: String,
}

impl<'a> Shell<'a> {
    /// A shell that knows these variables.
    pub fn new(files: &'a dyn Files, environment: BTreeMap<String, String>) -> Self {
        Shell {
            files,
            variables: environment,
            assigned: BTreeMap::new(),
            readonly: BTreeSet::new(),
            status: true,
            steps: 0,
            expanded: Cell::new(0),
            depth: 0,
            file: String::new(),
        }
    }

    /// Runs a file's text. `file` is its path, for messages and as the place that relative paths start from.
    ///
    /// # Errors
    /// The first command that is reached and cannot be evaluated, or text that cannot be parsed at all.
    pub fn run(&mut self, file: &str, text: &str) -> Result<(), ShellError> {
        let outer = std::mem::replace(&mut self.file, file.to_owned());
        self.depth += 1;
        let result = if self.depth > DEPTH_LIMIT {
            Err(Trouble::new(1, "files read each other too deeply"))
        } else if text.len() > TEXT_LIMIT {
            Err(Trouble::new(1, format!("the file has more than {TEXT_LIMIT} bytes")))
        } else {
            parse(text)
        };
        let result = result.map_err(|trouble| self.error(trouble)).and_then(|list| self.list(&list));
        self.depth -= 1;
        self.file = outer;
        result
    }

    /// The variables that were assigned, with their values now.
    pub fn into_assigned(self) -> BTreeMap<String, Assigned> {
        let Shell { mut variables, assigned, .. } = self;
        assigned
            .into_iter()
            .filter_map(|(name, (file, line))| {
                let value = variables.remove(&name)?;
                Some((name, Assigned { value, file, line }))
            })
            .collect()
    }

    pub(super) fn error(&self, trouble: Trouble) -> ShellError {
        ShellError { file: self.file.clone(), line: trouble.line, what: trouble.what }
    }

    pub(super) fn fail(&self, line: u32, what: impl Into<String>) -> ShellError {
        self.error(Trouble::new(line, what))
    }

    /// A path as the script means it: relative ones start at the running file's directory.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        Path::new(&self.file).parent().unwrap_or(Path::new("/")).join(text)
    }

    fn list(&mut self, list: &[AndOr]) -> Result<(), ShellError> {
        for and_or in list {
            self.command(&and_or.first)?;
            for (join, command) in &and_or.rest {
                let wanted = match join {
                    Join::And => self.status,
                    Join::Or => !self.status,
                };
                if wanted {
                    self.command(command)?;
                }
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), ShellError> {
        self.steps += 1;
        if self.steps > STEP_LIMIT {
            return Err(self.fail(command.line, "too many commands"));
        }
        match &command.kind {
            CommandKind::Simple(simple) => self.simple(simple, command.line)?,
            CommandKind::If { branches, otherwise } => self.conditional(branches, otherwise)?,
        }
        self.within_limit(command.line)?;
        self.status ^= command.negated;
        Ok(())
    }

    fn conditional(
        &mut self,
        branches: &[(Vec<AndOr>, Vec<AndOr>)],
        otherwise: &[AndOr],
    ) -> Result<(), ShellError> {
        for (condition, body) in branches {
            self.list(condition)?;
            if self.status {
                return self.list(body);
            }
        }
        self.status = true;
        self.list(otherwise)
    }

    fn simple(&mut self, simple: &Simple, line: u32) -> Result<(), ShellError> {
        if let (Some(assignment), Some(_)) = (simple.assignments.first(), simple.words.first()) {
            let what = format!(
                "`{}=` before a command is not supported; put it on a line of its own",
                assignment.name
            );
            return Err(self.fail(line, what));
        }
        for assignment in &simple.assignments {
            self.assignment(assignment)?;
        }
        self.status = true;
        let Some(first) = simple.words.first() else { return Ok(()) };
        let declares = match super::parser::literal(first).as_deref() {
            Some("export") => Some(false),
            Some("readonly") => Some(true),
            _ => None,
        };
        if let Some(readonly) = declares {
            return self.declare(&simple.words[1..], readonly, line);
        }
        let mut words = Vec::new();
        for word in &simple.words {
            self.fields(word, line, &mut words)?;
        }
        match words.split_first() {
            None => Ok(()),
            Some((name, arguments)) => builtins::run(self, name, arguments, line),
        }
    }

    /// `export` or `readonly` with `NAME` or `NAME=value` words.
    fn declare(&mut self, words: &[Word], readonly: bool, line: u32) -> Result<(), ShellError> {
        for word in words {
            let text = self.expand(word, line)?;
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            if !is_name(&name) {
                return Err(self.fail(line, format!("{name:?} is no name of a variable")));
            }
            if let Some(value) = value {
                self.set(&name, value, line)?;
            }
            if readonly {
                self.readonly.insert(name);
            }
        }
        Ok(())
    }

    fn assignment(&mut self, assignment: &Assignment) -> Result<(), ShellError> {
        let Assignment { line, name, append, value } = assignment;
        let mut text = self.expand(value, *line)?;
        if *append {
            text = self.get(name).unwrap_or_default() + &text;
        }
        self.set(name, text, *line)
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        match name {
            "$" => Some(std::process::id().to_string()),
            "?" => Some(u8::from(!self.status).to_string()),
            // Beyond the limit it does not matter any more: the command that runs is the last.
            _ => self.variables.get(name).filter(|value| self.copied(value.len())).cloned(),
        }
    }

    pub(super) fn set(&mut self, name: &str, value: String, line: u32) -> Result<(), ShellError> {
        if self.readonly.contains(name) {
            return Err(self.fail(line, format!("{name} was made readonly before")));
        }
        if value.len() > TEXT_LIMIT || value.contains('\0') {
            return Err(self.fail(line, format!("the value of {name} is too long, or has a zero byte")));
        }
        self.assigned.insert(name.to_owned(), (self.file.clone(), line));
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.assigned.remove(name);
        self.variables.remove(name);
    }

    /// A word as one text.
    pub(super) fn expand(&mut self, word: &Word, line: u32) -> Result<String, ShellError> {
        let mut text = String::new();
        for part in word {
            text.push_str(&self.part(part, line)?);
            if text.len() > TEXT_LIMIT {
                return Err(self.fail(line, "a value is too long"));
            }
        }
        Ok(text)
    }

    /// A word as fields: what is not quoted is split at blanks, and vanishes when it is empty.
    fn fields(&mut self, word: &Word, line: u32, fields: &mut Vec<String>) -> Result<(), ShellError> {
        let mut current: Option<String> = None;
        for part in word {
            let text = self.part(part, line)?;
            let (quoted, splits) = match part {
                Part::Text { quoted, .. } => (*quoted, false),
                Part::Variable { quoted, .. }
                | Part::Arithmetic { quoted, .. }
                | Part::Output { quoted, .. } => (*quoted, !quoted),
            };
            if !splits {
                if quoted || !text.is_empty() {
                    current.get_or_insert_default().push_str(&text);
                }
                continue;
            }
            for c in text.chars() {
                if c.is_ascii_whitespace() {
                    fields.extend(current.take());
                } else {
                    current.get_or_insert_default().push(c);
                }
            }
        }
        fields.extend(current);
        Ok(())
    }

    fn part(&mut self, part: &Part, line: u32) -> Result<String, ShellError> {
        let text = self.part_unbounded(part, line)?;
        self.copied(text.len());
        self.within_limit(line)?;
        Ok(text)
    }

    /// Counts bytes; whether there may be so many.
    fn copied(&self, bytes: usize) -> bool {
        self.expanded.set(self.expanded.get().saturating_add(bytes));
        self.expanded.get() <= EXPANDED_LIMIT
    }

    fn within_limit(&self, line: u32) -> Result<(), ShellError> {
        if self.copied(0) { Ok(()) } else { Err(self.fail(line, "its values are too long together")) }
    }

    fn part_unbounded(&mut self, part: &Part, line: u32) -> Result<String, ShellError> {
        match part {
            Part::Text { text, .. } => Ok(text.clone()),
            Part::Variable { name, modifier: None, .. } => Ok(self.get(name).unwrap_or_default()),
            Part::Variable { name, modifier: Some(modifier), .. } => {
                let value = self.get(name).filter(|value| !(modifier.colon && value.is_empty()));
                match (modifier.operator, value) {
                    ('+', None) => Ok(String::new()),
                    ('+', Some(_)) | ('-', None) => self.expand(&modifier.word, line),
                    ('=', None) => {
                        let value = self.expand(&modifier.word, line)?;
                        self.set(name, value.clone(), line)?;
                        Ok(value)
                    }
                    (_, Some(value)) => Ok(value),
                    (_, None) => {
                        let text = self.expand(&modifier.word, line)?;
                        let text = if text.is_empty() { "is not set".to_owned() } else { text };
                        Err(self.fail(line, format!("{name}: {text}")))
                    }
                }
            }
            Part::Arithmetic { expression, .. } => {
                let text = self.expand(expression, line)?;
                let value = calculate(&text, &|name| self.get(name)).map_err(|what| self.fail(line, what))?;
                Ok(value.to_string())
            }
            Part::Output { command, line, .. } => {
                let mut words = Vec::new();
                for word in &command.words {
                    self.fields(word, *line, &mut words)?;
                }
                builtins::output(self, &words, *line)
            }
        }
    }
}

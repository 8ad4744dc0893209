//! From text to commands.

use super::syntax::{AndOr, Assignment, Command, CommandKind, Join, List, Part, Simple, Word, is_name};
use super::{DEPTH_LIMIT, Trouble};

/// Words that begin something that is not supported, when they stand first.
const NOT_SUPPORTED: &[&str] =
    &["case", "for", "while", "until", "select", "function", "{", "(", "((", "time", "coproc"];

/// Reads a text character by character.
#[derive(Debug)]
pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) line: u32,
    pub(super) depth: usize,
}

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<List, Trouble> {
    let mut parser = Parser { chars: text.chars().collect(), at: 0, line: 1, depth: 0 };
    let list = parser.list(&[])?;
    match parser.peek() {
        None => Ok(list),
        Some(c) => Err(parser.trouble(format!("{c:?} is not expected here"))),
    }
}

impl Parser {
    pub(super) fn trouble(&self, what: impl Into<String>) -> Trouble {
        Trouble::new(self.line, what)
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        self.line += u32::from(c == '\n');
        Some(c)
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let fits = text.chars().enumerate().all(|(ahead, c)| self.peek_at(ahead) == Some(c));
        if fits {
            self.at += text.chars().count();
        }
        fits
    }

    /// Goes one level down; the matching [`leave`](Self::leave) comes at the end of the construct.
    pub(super) fn enter(&mut self) -> Result<(), Trouble> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT { Err(self.trouble("nested too deeply")) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Passes blanks, continued lines and comments.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => {
                    self.next();
                }
                Some('\\') if self.peek_at(1) == Some('\n') => {
                    self.next();
                    self.next();
                }
                // A comment begins where a word could.
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                }
                _ => return,
            }
        }
    }

    /// Passes everything between commands.
    fn skip_separators(&mut self) {
        self.skip_blanks();
        while matches!(self.peek(), Some('\n' | ';')) {
            self.next();
            self.skip_blanks();
        }
    }

    /// The bare word that stands here, without consuming it.
    fn bare_word(&self) -> String {
        self.chars[self.at..]
            .iter()
            .take(64)
            .take_while(|c| !c.is_whitespace() && !";&|".contains(**c))
            .collect()
    }

    /// Commands until one of the reserved words `until` stands first, or the end.
    fn list(&mut self, until: &[&str]) -> Result<List, Trouble> {
        let mut list = List::new();
        loop {
            self.skip_separators();
            if self.peek().is_none() || until.contains(&self.bare_word().as_str()) {
                return Ok(list);
            }
            if self.peek() == Some(')') {
                return Err(self.trouble("`)` without `(`"));
            }
            list.push(self.and_or()?);
            self.skip_blanks();
            match self.peek() {
                None | Some('\n' | ';') => {}
                Some('&') => return Err(self.trouble("commands in the background (`&`) are not supported")),
                Some('|') => return Err(self.trouble("pipes (`|`) are not supported")),
                Some(c) => return Err(self.trouble(format!("{c:?} is not expected here"))),
            }
        }
    }

    fn and_or(&mut self) -> Result<AndOr, Trouble> {
        let first = self.command()?;
        let mut rest = Vec::new();
        loop {
            self.skip_blanks();
            let join = if self.eat("&&") {
                Join::And
            } else if self.eat("||") {
                Join::Or
            } else {
                return Ok(AndOr { first, rest });
            };
            while matches!(self.peek(), Some('\n')) || self.at_blank() {
                self.next();
                self.skip_blanks();
            }
            rest.push((join, self.command()?));
        }
    }

    fn at_blank(&self) -> bool {
        matches!(self.peek(), Some(' ' | '\t'))
    }

    fn command(&mut self) -> Result<Command, Trouble> {
        self.skip_blanks();
        let mut negated = false;
        while self.bare_word() == "!" {
            self.next();
            negated = !negated;
            self.skip_blanks();
        }
        let line = self.line;
        let word = self.bare_word();
        let kind = if word == "if" {
            self.conditional()?
        } else if NOT_SUPPORTED.contains(&word.as_str()) || self.peek() == Some('(') {
            return Err(self.trouble(format!("`{word}` is not supported in configuration files")));
        } else if ["then", "elif", "else", "fi", "do", "done", "esac", "}"].contains(&word.as_str()) {
            return Err(self.trouble(format!("`{word}` without its beginning")));
        } else {
            CommandKind::Simple(self.simple(false)?)
        };
        Ok(Command { line, negated, kind })
    }

    /// `if … then … [elif … then …] [else …] fi`.
    fn conditional(&mut self) -> Result<CommandKind, Trouble> {
        self.enter()?;
        let begin = self.line;
        let mut branches = Vec::new();
        let mut otherwise = List::new();
        self.eat("if");
        loop {
            let condition = self.list(&["then"])?;
            if !self.eat("then") {
                return Err(Trouble::new(begin, "`if` without `then`"));
            }
            let body = self.list(&["elif", "else", "fi"])?;
            branches.push((condition, body));
            if self.eat("elif") {
                continue;
            }
            if self.eat("else") {
                otherwise = self.list(&["fi"])?;
            }
            if !self.eat("fi") {
                return Err(Trouble::new(begin, "`if` without `fi`"));
            }
            self.leave();
            return Ok(CommandKind::If { branches, otherwise });
        }
    }

    /// Assignments and words up to the end of the command; `inside` a `$(…)` a `)` ends it too.
    pub(super) fn simple(&mut self, inside: bool) -> Result<Simple, Trouble> {
        let mut simple = Simple::default();
        loop {
            self.skip_blanks();
            match self.peek() {
                None | Some('\n' | ';' | '|') => break,
                Some(')') if inside => break,
                Some('(' | ')') => return Err(self.trouble("`(` and `)` are not supported here")),
                Some('&') if self.peek_at(1) != Some('>') => break,
                Some(_) => {}
            }
            if self.redirection()? {
                continue;
            }
            let (line, begin) = (self.line, self.at);
            let name = if simple.words.is_empty() { self.assignment_name() } else { None };
            match name {
                Some((name, append)) => {
                    let value = self.word()?;
                    simple.assignments.push(Assignment { line, name, append, value });
                }
                None => simple.words.push(self.word()?),
            }
            // Whatever the text is, each round must bring the end nearer.
            if self.at == begin {
                return Err(self.trouble("this character is not supported here"));
            }
        }
        if simple.assignments.is_empty() && simple.words.is_empty() {
            return Err(self.trouble("a command is missing"));
        }
        Ok(simple)
    }

    /// Consumes `NAME=` or `NAME+=`, when it stands here.
    fn assignment_name(&mut self) -> Option<(String, bool)> {
        let name: String =
            self.chars[self.at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').collect();
        let after = name.chars().count();
        let append = self.peek_at(after) == Some('+') && self.peek_at(after + 1) == Some('=');
        if !is_name(&name) || !(append || self.peek_at(after) == Some('=')) {
            return None;
        }
        self.at += after + 1 + usize::from(append);
        Some((name, append))
    }

    /// Consumes a redirection to `/dev/null`, which changes nothing here. Others are errors.
    fn redirection(&mut self) -> Result<bool, Trouble> {
        let ahead = usize::from(matches!(self.peek(), Some('1' | '2' | '&')));
        match self.peek_at(ahead) {
            Some('>') => {}
            Some('<') if ahead == 0 => return Err(self.trouble("`<` is not supported")),
            _ => return Ok(false),
        }
        self.at += ahead + 1;
        self.eat(">");
        if self.eat("&1") || self.eat("&2") {
            return Ok(true);
        }
        self.skip_blanks();
        let target = self.word()?;
        let null = |part: &Part| matches!(part, Part::Text { text, .. } if text == "/dev/null");
        if target.len() == 1 && target.iter().all(null) {
            Ok(true)
        } else {
            Err(self.trouble("output may go to /dev/null only"))
        }
    }
}

/// The text of a word that needs no expansion.
pub(super) fn literal(word: &Word) -> Option<String> {
    word.iter()
        .map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            Part::Variable { .. } | Part::Arithmetic { .. } | Part::Output { .. } => None,
        })
        .collect()
}

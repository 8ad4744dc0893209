//! Quoting and expansions within a word.

use super::Trouble;
use super::parser::Parser;
use super::syntax::{Modifier, Part, Word};

/// Where a word ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// At a blank, a newline or an operator.
    Blank,
    /// At the `}` of `${NAME:-word}`; blanks belong to it.
    Brace,
    /// At the `))` of `$((…))`.
    Arithmetic,
}

impl Parser {
    /// A word that ends at a blank or operator. May be empty (in `NAME=`).
    pub(super) fn word(&mut self) -> Result<Word, Trouble> {
        self.parts(End::Blank, false)
    }

    fn parts(&mut self, end: End, in_quotes: bool) -> Result<Word, Trouble> {
        self.enter()?;
        let mut word = Word::new();
        let mut text = String::new();
        // Distance between `(` and `)` of an arithmetic expression.
        let mut open = 0;
        while let Some(c) = self.peek() {
            let ends = match end {
                End::Blank => " \t\r\n;&|()<>".contains(c),
                End::Brace => c == '}',
                End::Arithmetic => c == ')' && open == 0,
            };
            if ends {
                break;
            }
            match c {
                '(' | ')' if end == End::Arithmetic => {
                    open = if c == '(' { open + 1 } else { open - 1 };
                    text.push(c);
                    self.next();
                }
                '\'' if !in_quotes => {
                    flush(&mut word, &mut text, false);
                    word.push(self.single_quoted()?);
                }
                '"' if end != End::Arithmetic => {
                    flush(&mut word, &mut text, in_quotes);
                    self.next();
                    self.double_quoted(&mut word)?;
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') => {}
                        Some(escaped) => {
                            flush(&mut word, &mut text, in_quotes);
                            word.push(Part::Text { text: escaped.to_string(), quoted: true });
                        }
                        None => return Err(self.trouble("`\\` at the end of the file")),
                    }
                }
                '$' | '`' => {
                    flush(&mut word, &mut text, in_quotes);
                    word.push(self.expansion(in_quotes)?);
                }
                _ => {
                    text.push(c);
                    self.next();
                }
            }
        }
        flush(&mut word, &mut text, in_quotes);
        self.leave();
        Ok(word)
    }

    fn single_quoted(&mut self) -> Result<Part, Trouble> {
        let begin = self.line;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('\'') => return Ok(Part::Text { text, quoted: true }),
                Some(c) => text.push(c),
                None => return Err(Trouble::new(begin, "a single quote is not closed")),
            }
        }
    }

    /// After the opening quote.
    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Trouble> {
        let begin = self.line;
        let mut text = String::new();
        let before = word.len();
        loop {
            match self.peek() {
                None => return Err(Trouble::new(begin, "a double quote is not closed")),
                Some('"') => {
                    self.next();
                    // Even nothing between quotes is a word.
                    if !text.is_empty() || word.len() == before {
                        word.push(Part::Text { text, quoted: true });
                    }
                    return Ok(());
                }
                Some('\\') => {
                    self.next();
                    match self.next() {
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '"' | '\\')) => text.push(c),
                        Some(c) => text.extend(['\\', c]),
                        None => return Err(Trouble::new(begin, "a double quote is not closed")),
                    }
                }
                Some('$' | '`') => {
                    flush(word, &mut text, true);
                    word.push(self.expansion(true)?);
                }
                Some(c) => {
                    text.push(c);
                    self.next();
                }
            }
        }
    }

    /// At `$` or a backquote.
    fn expansion(&mut self, quoted: bool) -> Result<Part, Trouble> {
        if self.peek() == Some('`') {
            return Err(self.trouble("backquotes are not supported; write $(…)"));
        }
        self.next();
        match self.peek() {
            Some('{') => self.braced(quoted),
            Some('(') if self.peek_at(1) == Some('(') => {
                self.eat("((");
                let expression = self.parts(End::Arithmetic, true)?;
                if self.eat("))") {
                    Ok(Part::Arithmetic { expression, quoted })
                } else {
                    Err(self.trouble("`$((` is not closed"))
                }
            }
            Some('(') => {
                let line = self.line;
                self.next();
                self.enter()?;
                let command = Box::new(self.simple(true)?);
                self.leave();
                if self.eat(")") {
                    Ok(Part::Output { command, line, quoted })
                } else {
                    Err(self.trouble("`$(` takes one simple command here"))
                }
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                Ok(Part::Variable { name, modifier: None, quoted })
            }
            Some(c @ ('$' | '?')) => {
                self.next();
                Ok(Part::Variable { name: c.to_string(), modifier: None, quoted })
            }
            Some(c) if c.is_ascii_digit() || "@*#!-'\"".contains(c) && !(quoted && c == '"') => {
                Err(self.trouble(format!("`${c}` is not supported in configuration files")))
            }
            // A lone dollar sign is itself.
            _ => Ok(Part::Text { text: "$".to_owned(), quoted }),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.next();
        }
        name
    }

    /// At the `{` of `${…}`.
    fn braced(&mut self, quoted: bool) -> Result<Part, Trouble> {
        self.next();
        let name = self.name();
        let error = |parser: &Self| parser.trouble(format!("`${{{name}…}}` in this form is not supported"));
        if !super::syntax::is_name(&name) {
            return Err(error(self));
        }
        let colon = self.eat(":");
        let modifier = match self.peek() {
            Some('}') if !colon => None,
            Some(operator @ ('-' | '=' | '+' | '?')) => {
                self.next();
                let word = self.parts(End::Brace, quoted)?;
                Some(Modifier { colon, operator, word })
            }
            _ => return Err(error(self)),
        };
        if self.eat("}") {
            Ok(Part::Variable { name, modifier, quoted })
        } else {
            Err(self.trouble(format!("`${{{name}` is not closed")))
        }
    }
}

/// Moves collected text into the word.
fn flush(word: &mut Word, text: &mut String, quoted: bool) {
    if !text.is_empty() {
        word.push(Part::Text { text: std::mem::take(text), quoted });
    }
}

//! The commands that files may use. They look and decide; none changes anything outside of the script.

use std::path::Path;

use super::evaluate::Shell;
use super::{ShellError, TEXT_LIMIT};

/// Runs a command and sets the status.
pub(super) fn run(
    shell: &mut Shell<'_>,
    name: &str,
    arguments: &[String],
    line: u32,
) -> Result<(), ShellError> {
    shell.status = match name {
        ":" | "true" | "echo" | "printf" => true,
        "false" => false,
        "[" => match arguments.split_last() {
            Some((last, arguments)) if last == "]" => {
                test(shell, arguments).map_err(|what| shell.fail(line, what))?
            }
            _ => return Err(shell.fail(line, "`[` without `]`")),
        },
        "test" => test(shell, arguments).map_err(|what| shell.fail(line, what))?,
        "." | "source" => return read_file(shell, arguments, line),
        "unset" => {
            arguments.iter().for_each(|name| shell.unset(name));
            true
        }
        "grep" => grep(shell, arguments).map_err(|what| shell.fail(line, what))?,
        "[[" => return Err(shell.fail(line, "`[[` is not supported; write `[ … ]` with quoted values")),
        _ => {
            let name: String = name.chars().take(80).collect();
            let what = format!(
                "command `{name}` is not supported in configuration files; write the value itself, with quotes \
                 around a value with `;` or `|` in it"
            );
            return Err(shell.fail(line, what));
        }
    };
    Ok(())
}

/// `. FILE`.
fn read_file(shell: &mut Shell<'_>, arguments: &[String], line: u32) -> Result<(), ShellError> {
    let [file] = arguments else { return Err(shell.fail(line, "`.` takes one file")) };
    let path = shell.path(file);
    let text = shell
        .files
        .read(&path)
        .map_err(|error| shell.fail(line, format!("{} cannot be read: {error}", path.display())))?;
    shell.run(&path.to_string_lossy(), &text)
}

/// What `$(…)` becomes.
pub(super) fn output(shell: &mut Shell<'_>, words: &[String], line: u32) -> Result<String, ShellError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let host = || nix::sys::utsname::uname().map_err(|error| shell.fail(line, format!("uname: {error}")));
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let answer = match words.as_slice() {
        ["uname"] | ["uname", "-s"] => text(host()?.sysname()),
        ["uname", "-m" | "-p" | "-i"] => text(host()?.machine()),
        ["uname", "-r"] => text(host()?.release()),
        ["uname", "-n"] | ["hostname"] => text(host()?.nodename()),
        ["hostname", "-s"] => text(host()?.nodename()).split('.').next().unwrap_or_default().to_owned(),
        ["hostname", option @ ("-f" | "--fqdn" | "-d" | "--domain")] => {
            let name = text(host()?.nodename());
            let Some((_, domain)) = name.split_once('.') else {
                let what =
                    format!("this node's name {name:?} has no domain, so `hostname {option}` has no answer");
                return Err(shell.fail(line, what));
            };
            if option.trim_start_matches('-').starts_with('f') { name.clone() } else { domain.to_owned() }
        }
        ["cat", file] => {
            let path = shell.path(file);
            let text = shell.files.read(&path);
            text.map_err(|error| shell.fail(line, format!("{} cannot be read: {error}", path.display())))?
        }
        ["echo", words @ ..] => words.join(" "),
        _ => {
            let command: String = words.join(" ").chars().take(80).collect();
            let what =
                format!("`$({command})` is not supported in configuration files; write the value itself");
            return Err(shell.fail(line, what));
        }
    };
    Ok(answer.trim_end_matches('\n').to_owned())
}

/// The result of a test, or what is wrong with it.
fn test(shell: &Shell<'_>, arguments: &[String]) -> Result<bool, String> {
    if arguments.is_empty() {
        return Ok(false);
    }
    let mut test = Test { shell, rest: arguments };
    let result = test.any()?;
    match test.rest.first() {
        None => Ok(result),
        Some(word) => Err(format!("{word:?} is not expected in a test")),
    }
}

struct Test<'a, 'b> {
    shell: &'a Shell<'b>,
    rest: &'a [String],
}

impl Test<'_, '_> {
    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest.first().is_some_and(|first| first == word);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut result = self.all()?;
        while self.eat("-o") {
            result |= self.all()?;
        }
        Ok(result)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut result = self.one()?;
        while self.eat("-a") {
            result &= self.one()?;
        }
        Ok(result)
    }

    fn one(&mut self) -> Result<bool, String> {
        // A comparison wins, so that operands may look like operators.
        if let [left, operator, right, ..] = self.rest
            && let Some(result) = compare(left, operator, right)
        {
            self.rest = &self.rest[3..];
            return result;
        }
        let mut turned = false;
        while self.rest.len() > 1 && self.eat("!") {
            turned = !turned;
        }
        if turned {
            return Ok(!self.one()?);
        }
        if let [operator, operand, ..] = self.rest
            && let Some(result) = self.unary(operator, operand)
        {
            self.rest = &self.rest[2..];
            return Ok(result);
        }
        match self.rest.split_first() {
            None => Err("a test is not complete".to_owned()),
            Some((word, rest)) => {
                self.rest = rest;
                Ok(!word.is_empty())
            }
        }
    }

    fn unary(&self, operator: &str, operand: &str) -> Option<bool> {
        let look = || self.shell.files.look(&self.shell.path(operand));
        Some(match operator {
            "-z" => operand.is_empty(),
            "-n" => !operand.is_empty(),
            "-e" | "-r" | "-a" => look().is_some(),
            "-f" => look().is_some_and(|found| found.is_file()),
            "-d" => look().is_some_and(|found| found.is_dir()),
            "-s" => look().is_some_and(|found| found.len() > 0),
            "-x" => {
                use std::os::unix::fs::PermissionsExt as _;
                look().is_some_and(|found| found.permissions().mode() & 0o111 != 0)
            }
            _ => return None,
        })
    }
}

fn compare(left: &str, operator: &str, right: &str) -> Option<Result<bool, String>> {
    let numbers = |decide: fn(&i64, &i64) -> bool| {
        let number = |text: &str| {
            text.trim().parse::<i64>().map_err(|_| format!("{text:?} is compared as a number but is none"))
        };
        Some(number(left).and_then(|left| Ok(decide(&left, &number(right)?))))
    };
    match operator {
        "=" | "==" => Some(Ok(left == right)),
        "!=" => Some(Ok(left != right)),
        "-eq" => numbers(i64::eq),
        "-ne" => numbers(i64::ne),
        "-lt" => numbers(i64::lt),
        "-le" => numbers(i64::le),
        "-gt" => numbers(i64::gt),
        "-ge" => numbers(i64::ge),
        _ => None,
    }
}

/// `grep -q PATTERN FILE…` with plain text, `.`, `*`, `^`, `$` and alternatives.
fn grep(shell: &Shell<'_>, arguments: &[String]) -> Result<bool, String> {
    let (options, rest): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.starts_with('-') && argument.len() > 1);
    let flags: String = options.iter().map(|option| &option[1..]).collect();
    if let Some(flag) = flags.chars().find(|flag| !"qsiEF".contains(*flag)) {
        return Err(format!("`grep -{flag}` is not supported in configuration files"));
    }
    let [pattern, files @ ..] = rest.as_slice() else { return Err("`grep` without a pattern".to_owned()) };
    if files.is_empty() || pattern.len() > 1000 {
        return Err("`grep` needs a file, and a pattern of at most 1000 bytes".to_owned());
    }
    let fold = |text: &str| if flags.contains('i') { text.to_lowercase() } else { text.to_owned() };
    let pattern = Pattern::parse(&fold(pattern), flags.contains('F'), flags.contains('E'))?;
    let holds = |path: &Path| {
        shell.files.read(path).is_ok_and(|text| fold(&text).lines().any(|line| pattern.fits(line)))
    };
    Ok(files.iter().any(|file| holds(&shell.path(file))))
}

/// Alternatives of a search pattern.
struct Pattern(Vec<Alternative>);

#[derive(Default)]
struct Alternative {
    at_start: bool,
    at_end: bool,
    /// A letter (`None` is any), and whether it may repeat.
    steps: Vec<(Option<char>, bool)>,
}

impl Pattern {
    fn parse(text: &str, fixed: bool, extended: bool) -> Result<Self, String> {
        let unsupported =
            |c: char| format!("`{c}` in a pattern of `grep` is not supported in configuration files");
        let mut alternatives = vec![Alternative::default()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let current = alternatives.last_mut().expect("begins with one");
            let escaped = c == '\\' && !fixed;
            let c = if escaped { chars.next().ok_or("a pattern ends with `\\`")? } else { c };
            match c {
                _ if fixed => current.steps.push((Some(c), false)),
                '|' if escaped != extended => alternatives.push(Alternative::default()),
                '(' | ')' | '{' | '}' | '+' | '?' if escaped != extended => return Err(unsupported(c)),
                _ if escaped && c.is_ascii_alphanumeric() => return Err(unsupported(c)),
                '^' if !escaped && current.steps.is_empty() => current.at_start = true,
                '$' if !escaped && (chars.peek().is_none() || chars.peek() == Some(&'|')) => {
                    current.at_end = true;
                }
                '[' if !escaped => return Err(unsupported(c)),
                '.' if !escaped => current.steps.push((None, false)),
                '*' if !escaped && !current.steps.is_empty() => {
                    current.steps.last_mut().expect("not empty").1 = true;
                }
                _ => current.steps.push((Some(c), false)),
            }
        }
        Ok(Pattern(alternatives))
    }

    fn fits(&self, line: &str) -> bool {
        let line: Vec<char> = line.chars().take(TEXT_LIMIT).collect();
        self.0.iter().any(|alternative| alternative.fits(&line))
    }
}

impl Alternative {
    /// Follows all ways at once: which steps can be reached after each letter.
    fn fits(&self, line: &[char]) -> bool {
        let mut reached = vec![false; self.steps.len() + 1];
        for at in 0..=line.len() {
            reached[0] |= at == 0 || !self.at_start;
            for step in 0..self.steps.len() {
                reached[step + 1] |= reached[step] && self.steps[step].1;
            }
            if reached[self.steps.len()] && (!self.at_end || at == line.len()) {
                return true;
            }
            let Some(letter) = line.get(at) else { break };
            let mut next = vec![false; reached.len()];
            for (step, (wanted, repeats)) in self.steps.iter().enumerate() {
                if reached[step] && wanted.is_none_or(|wanted| wanted == *letter) {
                    next[step + usize::from(!repeats)] = true;
                }
            }
            reached = next;
        }
        false
    }
}

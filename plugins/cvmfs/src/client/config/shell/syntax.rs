//! What a script is made of.

/// Commands in sequence.
pub(super) type List = Vec<AndOr>;

/// Commands joined by `&&` and `||`, which bind equally and to the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AndOr {
    pub(super) first: Command,
    pub(super) rest: Vec<(Join, Command)>,
}

/// What joins two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    And,
    Or,
}

/// A command, its result perhaps turned round by `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: u32,
    pub(super) negated: bool,
    pub(super) kind: CommandKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandKind {
    Simple(Simple),
    If {
        /// Condition and body of `if` and each `elif`.
        branches: Vec<(List, List)>,
        otherwise: List,
    },
}

/// `NAME=value … word …`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) assignments: Vec<Assignment>,
    pub(super) words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) line: u32,
    pub(super) name: String,
    /// `+=`.
    pub(super) append: bool,
    pub(super) value: Word,
}

/// Parts that are joined after expansion.
pub(super) type Word = Vec<Part>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text. Quoted text keeps an empty word alive.
    Text { text: String, quoted: bool },
    /// `$NAME`, `${NAME…}`.
    Variable { name: String, modifier: Option<Modifier>, quoted: bool },
    /// `$((…))`: the text between, to be expanded and then calculated.
    Arithmetic { expression: Word, quoted: bool },
    /// `$(…)`: one simple command.
    Output { command: Box<Simple>, line: u32, quoted: bool },
}

/// What follows a name in `${…}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modifier {
    /// With a colon, an empty value counts as unset.
    pub(super) colon: bool,
    /// `-`, `=`, `+` or `?`.
    pub(super) operator: char,
    pub(super) word: Word,
}

/// Whether a text is a variable's name.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

//! The rows with their goals, and the Markdown that is printed.

use std::fmt::Write;

/// What a row must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At least so much, in the row's unit.
    AtLeast(f64),
    /// At most so much, in the row's unit.
    AtMost(f64),
    /// A rate that is at least this part of ext4's.
    PartOfPlain(f64),
    /// A time that is at most so many times ext4's.
    TimesPlain(f64),
    /// Printed to compare, without a goal.
    None,
}

/// One row.
pub(crate) struct Row {
    /// What was done.
    pub(crate) name: String,
    /// Unit of the figures.
    pub(crate) unit: &'static str,
    /// volplane's figure.
    pub(crate) ours: Option<f64>,
    /// The plain tree's.
    pub(crate) plain: Option<f64>,
    /// The crate's.
    pub(crate) peer: Option<f64>,
    /// What is to be reached.
    pub(crate) goal: Goal,
}

impl Row {
    fn reached(&self) -> Option<bool> {
        let ours = self.ours?;
        match self.goal {
            Goal::AtLeast(limit) => Some(ours >= limit),
            Goal::AtMost(limit) => Some(ours <= limit),
            Goal::PartOfPlain(part) => Some(ours >= part * self.plain?),
            Goal::TimesPlain(times) => Some(ours <= times * self.plain?),
            Goal::None => None,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtLeast(limit) => format!("at least {}", number(limit)),
            Goal::AtMost(limit) => format!("at most {}", number(limit)),
            Goal::PartOfPlain(part) => format!("at least {part} of ext4"),
            Goal::TimesPlain(times) => format!("at most {times} times ext4"),
            Goal::None => String::new(),
        }
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// A Markdown table of the rows. Ratios are volplane's figure divided by the other's, whatever the unit.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| | unit | volplane | ext4 | ratio | crate cvmfs | ratio | goal | |\n|---|---|--:|--:|--:|--:|--:|---|---|\n",
    );
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    for row in rows {
        let ratio =
            |other: Option<f64>| figure(row.ours.zip(other).map(|(ours, other)| ours / other.max(1e-9)));
        let verdict = match row.reached() {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None if row.ours.is_none() => "not measured",
            None => "",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {verdict} |",
            row.name,
            row.unit,
            figure(row.ours),
            figure(row.plain),
            ratio(row.plain),
            figure(row.peer),
            ratio(row.peer),
            row.goal(),
        );
    }
    text
}

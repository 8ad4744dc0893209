//! Completions and the manual page.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::cli::Cli;

/// Prints completions.
pub(crate) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "volplane", &mut io::stdout());
}

/// Prints one manual page with all subcommands.
pub(crate) fn page() -> io::Result<()> {
    let mut out = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut out)?;
    describe(&command, "volplane", &mut out)?;
    io::stdout().write_all(&out)
}

/// A section for each subcommand, at any depth.
fn describe(command: &clap::Command, path: &str, out: &mut Vec<u8>) -> io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        writeln!(out, ".SH \"{}\"", path.to_uppercase())?;
        let man = clap_mangen::Man::new(sub.clone());
        man.render_description_section(out)?;
        man.render_options_section(out)?;
        man.render_extra_section(out)?;
        describe(sub, &path, out)?;
    }
    Ok(())
}

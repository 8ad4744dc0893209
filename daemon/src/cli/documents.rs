//! Completions and the manual page, made from the same source as the help.

use std::io::Write;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: volplane completions bash > /usr/share/bash-completion/completions/volplane"
)]
pub(super) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

pub(super) fn completions(arguments: &CompletionsArguments) -> Result<(), CliError> {
    clap_complete::generate(arguments.shell, &mut Cli::command(), "volplane", &mut std::io::stdout());
    Ok(())
}

/// One page with all commands, as man(7).
pub(super) fn man() -> Result<(), CliError> {
    let mut root = Cli::command();
    root.build();
    let mut page = Vec::new();
    render(&root, &mut page).map_err(CliError::other)?;
    std::io::stdout().write_all(&page).map_err(CliError::other)
}

fn render(root: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = clap_mangen::Man::new(root.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    for (names, command) in leaves(root, "volplane") {
        writeln!(page, ".SH \"{}\"", names.to_uppercase())?;
        let man = clap_mangen::Man::new(command.clone());
        man.render_description_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_options_section(page)?;
        man.render_extra_section(page)?;
    }
    man.render_extra_section(page)?;
    man.render_version_section(page)
}

/// Every command that does something, with its full name.
fn leaves<'a>(command: &'a Command, name: &str) -> Vec<(String, &'a Command)> {
    let mut found = Vec::new();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let full = format!("{name} {}", sub.get_name());
        let below = leaves(sub, &full);
        if below.is_empty() {
            found.push((full, sub));
        } else {
            found.extend(below);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_page_has_every_command_but_the_hidden_one() {
        let mut root = Cli::command();
        root.build();
        let mut page = Vec::new();
        render(&root, &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for name in ["VOLPLANE SERVE", "VOLPLANE VOLUME CREATE", "VOLPLANE CVMFS PUBLISH", "VOLPLANE MOUNT"] {
            assert!(page.contains(name), "{name}");
        }
        assert!(!page.contains("VOLPLANE WORKER"));
    }
}

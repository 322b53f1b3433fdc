//! `rcbot config`, `rcbot completions` and `rcbot man`: texts about this binary, for a pipe.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Arguments, print};

/// Every key of a configuration with its default.
const EXAMPLE: &str = include_str!("../../config.example.yaml");

/// A section of the manual page, in the words of docs/operations.md.
const EXIT_STATUS: &str = r#".SH "EXIT STATUS"
.TP
0
Done.
.TP
1
It failed while running, a check failed, or another rcbot uses the same data directory. A restart may help.
.TP
2
The arguments or the configuration are invalid.
.TP
3
The operator has to act first: a lost recovery key or identity, a wrong password or token, files owned by another user."#;

pub(super) fn config() -> Result<()> {
    print(EXAMPLE.trim_end())
}

pub(super) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "rcbot", &mut script);
    print_bytes(&script)
}

pub(super) fn man() -> Result<()> {
    print_bytes(&man_page(Arguments::command())?)
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    print(String::from_utf8_lossy(bytes).trim_end())
}

/// One page for all commands: the page of `clap_mangen` for each becomes a section.
fn man_page(command: Command) -> io::Result<Vec<u8>> {
    let command = command
        .disable_help_subcommand(true)
        .disable_version_flag(true);
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    let page = Man::new(command);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    writeln!(text, ".SH COMMANDS")?;
    for subcommand in subcommands.into_iter().filter(|one| !one.is_hide_set()) {
        let name = format!("rcbot {}", subcommand.get_name());
        writeln!(text, ".SS {name}")?;
        let page = Man::new(subcommand.bin_name(name).disable_help_flag(true));
        let mut section = Vec::new();
        page.render_synopsis_section(&mut section)?;
        page.render_description_section(&mut section)?;
        page.render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section);
        let is_shown = |line: &&str| !line.starts_with(".ie") && !line.starts_with(".el");
        for line in section.lines().filter(is_shown) {
            let is_heading = line.starts_with(".SH ");
            writeln!(text, "{}", if is_heading { ".PP" } else { line })?;
        }
    }
    writeln!(text, "{EXIT_STATUS}")?;
    Ok(text)
}

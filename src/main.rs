//! Arguments, logging, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser as _;
use rcbot::cli::Arguments;

fn main() -> ExitCode {
    rcbot::cli::run(Arguments::parse())
}

//! The command line and environment of `claude`, and the links and complaints in its output.
//!
//! Invariant: pure, except `prerequisites`, which reads the program's files. Nothing else here reads or writes a file, starts a
//! process, asks for the time, or logs.

mod diagnosis;
mod launch;
mod links;
mod output;
pub(crate) mod prerequisites;
mod texts;

pub use diagnosis::{Cause, Quote};
pub use launch::SESSION_ID_VARIABLE;
pub use links::{LinkPattern, PatternError};
pub use output::{Connection, OutputReader, Said, visible_text};

pub(crate) use diagnosis::{Conversations, Outlook, Place, errors, first_line, unknown_lines};
pub(crate) use launch::{
    HarmfulOption, Invocation, NETWORK_VARIABLES, environment, fill_in, gives_terminal,
};

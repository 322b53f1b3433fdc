//! What to run, and what it says: the command line and environment of `claude`, the links and complaints in its output.
//!
//! Invariant: pure. Nothing here reads or writes a file, starts a process, asks for the time, or logs.

mod diagnosis;
mod invocation;
mod launch;
mod output;
mod pattern;
pub mod prerequisites;
mod url_text;
mod visible;

pub use diagnosis::Cause;
pub use invocation::Invocation;
pub use launch::{Placeholders, SESSION_ID_VARIABLE, WAY_OUT, environment};
pub use output::{LinkFinder, Sighting};
pub use pattern::{LinkPattern, PatternError};
pub use visible::visible_text;

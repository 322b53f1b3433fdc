//! Parses commands, decides about them, and words the answers.
//!
//! Invariant: pure. Nothing here waits, reads a file, asks a server or logs; time comes in as a parameter. It knows the
//! words of `matrix` and `remote_control` (evidence, endings), never how they do their work.

pub(crate) mod authorize;
pub(crate) mod digest;
pub(crate) mod hosts;
mod parse;
pub(crate) mod reply;

pub(crate) use authorize::{Denied, Permit, Policy, authorize};
pub(crate) use parse::{Command, Excerpt, Misuse, Target, Verb, addressed_host, nearest, parse};

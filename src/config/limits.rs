//! How much is too much: `rate` and `max_sessions`.

use super::{check, section::Section};

/// Faster than anybody types who reads the answers.
const COMMANDS_PER_MINUTE: usize = 10;

/// `claude` grows by up to a gigabyte a day: what a workstation bears.
const MAX_SESSIONS: usize = 8;

/// How much is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many commands of one user are looked at within a minute.
    pub commands_per_minute: usize,
    /// How many sessions there may be at once. `None`: one for each project.
    pub max_sessions: Option<usize>,
}

impl Limits {
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        Self {
            commands_per_minute: root.section("rate", |rate| {
                rate.or("commands_per_minute", COMMANDS_PER_MINUTE, check::count)
            }),
            max_sessions: root.or("max_sessions", Some(MAX_SESSIONS), check::optional_count),
        }
    }
}

//! How many descriptors this process may have open: as many as the host allows. What is spawned gets what we were given.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one: a soft limit of 1024 is there for programs that use select(2), and a supervisor
/// that has no descriptor left can neither watch nor end anything.
pub fn raise_descriptor_limit() {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: given.maximum,
        ..given
    };
    match setrlimit(Resource::Nofile, raised) {
        // Only the first time tells what we were given.
        Ok(()) => drop(GIVEN.set(given)),
        Err(error) => warn!(%error, "limit of open files not raised"),
    }
}

/// The limit that we were given, if it was raised since.
pub(super) fn given_descriptor_limit() -> Option<Rlimit> {
    GIVEN.get().copied()
}

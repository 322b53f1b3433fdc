//! Spawns, recognises, follows and ends processes. Linux and nothing else.
//!
//! Invariant: nothing here knows Matrix, Claude or a session. A process is known by its [`ProcessIdentity`], never by a bare
//! pid: pids are reused, and a zombie accepts signal 0. All waits are for an event, not for a fixed time.

mod cgroup;
mod follow;
mod handle;
mod spawn;
mod stop;
mod survey;
#[cfg(test)]
mod testing;

pub use follow::{Follower, Piece, ReadFrom};
pub use handle::{Exit, ProcessError, ProcessIdentity};
pub use spawn::{Launch, NotSpawned, spawn};
pub use stop::{StopError, StopReport};
pub use survey::Usage;

pub(crate) use handle::{boot_id, exited};
pub(crate) use spawn::raise_descriptor_limit;
pub(crate) use stop::stop;
pub(crate) use survey::{survey, usage_by};

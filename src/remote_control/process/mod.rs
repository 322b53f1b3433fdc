//! Spawns, recognises, follows and ends processes. Linux and nothing else.
//!
//! Invariant: nothing here knows Matrix, Claude or a session. A process is known by its [`ProcessIdentity`], never by a bare
//! pid: pids are reused, and a zombie answers to signal 0. Whatever waits here waits for an event, not for a while.

mod census;
mod cgroup;
mod clock;
mod exit;
mod follow;
mod identity;
mod limits;
mod pidfd;
mod readiness;
mod spawn;
mod stop;
#[cfg(test)]
mod testing;

pub use census::{Leader, Usage, leaders_with, usage_by};
pub use clock::{since_boot, until};
pub use exit::{Exit, ExitError, exited};
pub use follow::{Follower, Piece, Start};
pub use identity::{IdentityError, ProcessIdentity, boot_id};
pub use limits::raise_descriptor_limit;
pub use pidfd::PidfdError;
pub use spawn::{Launch, SpawnError, spawn};
pub use stop::{StopError, StopReport, stop};

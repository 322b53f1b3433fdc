//! What is said of rooms: where commands count, and where not.

use super::Reply;

/// The admin room was upgraded to the one in which this is said.
#[must_use]
pub fn moved_here() -> Reply {
    Reply::new(
        "I followed the upgrade of the admin room: commands count here now, and no longer in the room before.",
    )
}

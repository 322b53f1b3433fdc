//! What is said of rooms: where commands count, and where not.

use super::{Reply, help, unmarked};

/// The admin room was upgraded to the one in which this is said.
#[must_use]
pub fn moved_here() -> Reply {
    Reply::new(
        "I followed the upgrade of the admin room: commands count here now, and no longer in the room before.",
    )
}

/// The list of commands, for somebody who cannot give them where they are.
#[must_use]
pub fn help_outside(prefix: &str, admin_room: &str) -> Reply {
    let (list, where_to) = (help(prefix), not_here(admin_room));
    Reply {
        plain: format!("{}\n{}", list.plain, where_to.plain),
        html: format!("{}<p>{}</p>", list.html, where_to.html),
    }
}

/// A command where none counts.
#[must_use]
pub fn not_here(admin_room: &str) -> Reply {
    Reply::new(format!(
        "Commands count only in the admin room: {}",
        unmarked(admin_room)
    ))
}

/// Talk that the bot does not understand.
#[must_use]
pub fn hint(prefix: &str, admin_room: &str) -> Reply {
    Reply::new(format!(
        "I am a bot, and understand nothing here but `help`. Commands such as `{prefix} start` count in the admin room: {}",
        unmarked(admin_room)
    ))
}

//! The clocks by which sessions live.
//!
//! What is waited for is timed by how long the host is up: no setting of the wall clock moves that, it goes on while the host is
//! suspended, and no process outlives it.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
use tokio::time::sleep;
use tracing::error;

/// How long to sleep at most before looking at the clock again: the runtime's timers stand still while the host is suspended,
/// and this is how late they may then be.
const SLICE: Duration = Duration::from_mins(1);

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// For people, and to carry a time over a reboot.
    pub(crate) wall: SystemTime,
    /// For all that is waited for: how long the host is up, suspended times included.
    pub(crate) uptime: Duration,
}

/// A kernel that does not tell its uptime has none of the other facilities needed here either.
pub(super) fn now() -> Moment {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    Moment {
        wall: SystemTime::now(),
        uptime: uptime.unwrap_or_else(|error| {
            error!(%error, "uptime unknown");
            Duration::ZERO
        }),
    }
}

/// Waits until the host is up for so long; for ever, if there is nothing to wait for. It takes no descriptor, so nothing keeps it
/// from being woken.
pub(super) async fn uptime_reached(uptime: Option<Duration>) {
    let Some(uptime) = uptime else {
        return pending().await;
    };
    while let Some(left) = uptime.checked_sub(now().uptime).filter(|it| !it.is_zero()) {
        sleep(left.min(SLICE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_past_is_not_waited_for() {
        uptime_reached(Some(Duration::ZERO)).await;
        uptime_reached(Some(now().uptime)).await;
    }

    #[tokio::test]
    async fn a_time_to_come_has_come_after_the_wait() {
        let due = now().uptime + Duration::from_millis(20);
        uptime_reached(Some(due)).await;
        assert!(now().uptime >= due);
    }
}

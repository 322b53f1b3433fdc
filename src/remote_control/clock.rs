//! The clocks that time sessions.
//!
//! Waits are timed by the host's uptime: it does not change with the wall clock, it includes suspended time, and no process
//! outlives it.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// The longest sleep before the clock is read again: the runtime's timers stop while the host is suspended, and may then be
/// this late.
const SLICE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// For users, and to carry a time over a reboot.
    pub(crate) wall: SystemTime,
    /// For all waits: the host's uptime, suspended time included.
    pub(crate) uptime: Duration,
}

/// A kernel that does not report its uptime has none of the other facilities needed here either.
pub(crate) fn now() -> Moment {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    Moment {
        wall: SystemTime::now(),
        uptime: uptime.unwrap_or_default(),
    }
}

/// Waits until the host has this uptime; for ever, if there is none. It needs no descriptor, so a lack of them cannot keep it
/// from waking.
pub(crate) async fn uptime_reached(uptime: Option<Duration>) {
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

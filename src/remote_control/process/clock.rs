//! The time since boot, by which sessions are timed: no setting of the wall clock moves it, it goes on while the host is
//! suspended, and no process outlives it.

use std::{io, time::Duration};

use nix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// How long to sleep at most before looking at the clock again: the runtime's timers stand still while the host is suspended,
/// and this is how late they may then be.
const SLICE: Duration = Duration::from_mins(1);

/// How long this host is up, suspended times included.
pub(crate) fn since_boot() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_BOOTTIME)?.into())
}

/// Waits until the host is up for so long. It takes no descriptor, so nothing keeps it from being woken.
pub(crate) async fn until(uptime: Duration) {
    loop {
        // A clock that cannot be read is looked at again.
        let now = since_boot().unwrap_or_default();
        if now >= uptime {
            return;
        }
        sleep(uptime.saturating_sub(now).min(SLICE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_past_is_not_waited_for() {
        until(Duration::ZERO).await;
        until(since_boot().unwrap()).await;
    }

    #[tokio::test]
    async fn a_time_to_come_has_come_after_the_wait() {
        let due = since_boot().unwrap() + Duration::from_millis(20);
        until(due).await;
        assert!(since_boot().unwrap() >= due);
    }
}

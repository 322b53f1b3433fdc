//! The time since boot, by which sessions are timed: no setting of the wall clock moves it, it goes on while the host is
//! suspended, and no process outlives it.

use std::{io, os::fd::OwnedFd, time::Duration};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};

use super::readiness::readable;

/// How long this host is up, suspended times included.
///
/// # Errors
/// When the kernel does not tell, which no Linux of this century does.
pub fn since_boot() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_BOOTTIME)?.into())
}

/// Waits until the host is up for so long.
///
/// # Errors
/// When the kernel has no timer left for us.
pub async fn until(uptime: Duration) -> io::Result<()> {
    let timer = TimerFd::new(
        TimerClock::CLOCK_BOOTTIME,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )?;
    // A timer of zero would never end.
    let at = Expiration::OneShot(TimeSpec::from_duration(uptime.max(Duration::from_nanos(1))));
    timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
    readable(OwnedFd::from(timer))?
        .readable()
        .await?
        .retain_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_past_is_not_waited_for() {
        until(Duration::ZERO).await.unwrap();
        until(since_boot().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_time_to_come_has_come_after_the_wait() {
        let due = since_boot().unwrap() + Duration::from_millis(20);
        until(due).await.unwrap();
        assert!(since_boot().unwrap() >= due);
    }
}

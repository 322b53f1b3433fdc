//! Notifies systemd: when the bot is ready, its status, that its loop runs (watchdog), and that it stops.
//!
//! Without `NOTIFY_SOCKET` all of it does nothing. Sessions cannot notify in the bot's name: they do not get that variable, and
//! the unit accepts only the main process.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use crate::command::reply::counted;

/// How long readiness waits for the homeserver, which may be down for hours: the units after the bot, such as the end of the
/// boot, do not wait with it. Well below the 90 s after which systemd gives up. What ends the bot, such as a token that the
/// homeserver does not know, mostly shows before.
const READY_TIMEOUT: Duration = Duration::from_secs(45);

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    watchdog: Option<Interval>,
    reported: String,
    was_ready: bool,
    ready_by: Instant,
}

impl ServiceManager {
    /// The one that started this process, by the environment.
    pub(super) fn of_this_process() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|patience| {
            // Twice in that time, as sd_watchdog_enabled(3) asks for.
            let mut watchdog = interval((patience / 2).max(Duration::from_millis(1)));
            watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
            watchdog
        });
        Self {
            watchdog,
            reported: String::new(),
            was_ready: false,
            ready_by: Instant::now() + READY_TIMEOUT,
        }
    }

    /// Reports a changed status. The bot is ready once the homeserver has answered: from then on it receives commands. See also
    /// [`READY_TIMEOUT`].
    pub(super) fn report(&mut self, sessions: usize, homeserver_answers: bool) {
        let status = status(sessions, homeserver_answers);
        if self.reported == status {
            return;
        }
        let mut changes = vec![NotifyState::Status(&status)];
        if homeserver_answers && !std::mem::replace(&mut self.was_ready, true) {
            changes.push(NotifyState::Ready);
        }
        notify(&changes);
        self.reported = status;
    }

    /// Waits until the watchdog is due, or readiness times out, and notifies. For ever where neither is awaited.
    pub(super) async fn keep_alive(&mut self) {
        let watchdog = async {
            match &mut self.watchdog {
                Some(watchdog) => drop(watchdog.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watchdog => notify(&[NotifyState::Watchdog]),
            () = sleep_until(self.ready_by), if !self.was_ready => {
                self.was_ready = true;
                notify(&[NotifyState::Ready]);
            }
        }
    }
}

pub(super) fn report_stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("ending; sessions go on"),
    ]);
}

/// Reports why the bot ended, which the service manager shows from then on. Does nothing where none listens.
pub(crate) fn report_failure(error: &str) {
    // A status is one line.
    let status = error.replace('\n', "; ");
    notify(&[NotifyState::Status(&status)]);
}

fn notify(changes: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(changes) {
        warn!(%error, "the service manager was not notified");
    }
}

/// `homeserver_answers`: when it was last asked.
fn status(sessions: usize, homeserver_answers: bool) -> String {
    let sessions = match sessions {
        0 => "no session".to_owned(),
        some => counted(some, "session", "sessions"),
    };
    let homeserver = if homeserver_answers {
        "homeserver answers"
    } else {
        "waiting for the homeserver"
    };
    format!("{sessions}; {homeserver}")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_bot_whose_homeserver_is_away_counts_as_ready_after_a_while() {
        let mut manager = ServiceManager {
            watchdog: None,
            reported: String::new(),
            was_ready: false,
            ready_by: Instant::now() + READY_TIMEOUT,
        };
        assert!(manager.keep_alive().now_or_never().is_none());
        assert!(!manager.was_ready);
        manager.ready_by = Instant::now();
        manager.keep_alive().await;
        assert!(manager.was_ready);
        let again = manager.keep_alive().now_or_never();
        assert!(again.is_none(), "it is reported once");
    }

    #[test]
    fn a_status_counts_the_sessions_and_names_what_is_waited_for() {
        assert_eq!(status(0, false), "no session; waiting for the homeserver");
        assert_eq!(status(1, true), "1 session; homeserver answers");
        assert_eq!(status(2, true), "2 sessions; homeserver answers");
    }
}

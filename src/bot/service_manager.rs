//! Tells systemd how the bot does: when it is ready, what it is at, that its loop turns, and that it ends.
//!
//! Where no service manager listens (`NOTIFY_SOCKET`), all of it does nothing. Sessions cannot speak in the bot's name: they
//! do not get that variable, and the unit lets only the main process speak.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

/// How long the service manager is to wait for the homeserver, which may be away for hours: what comes after the bot, such as the
/// end of the host's start, does not wait with it. Well below the 90 s after which systemd gives up. What makes the bot end,
/// such as a token that the homeserver does not know, mostly shows before.
const PATIENCE: Duration = Duration::from_secs(45);

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    listens: bool,
    /// When the loop is to show again that it turns.
    watchdog: Option<Interval>,
    told: Option<State>,
    was_ready: bool,
    /// When the bot counts as ready at the latest.
    patience_ends: Instant,
}

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// How many sessions there are.
    pub(super) sessions: usize,
    /// Whether the homeserver answered when it was last asked.
    pub(super) homeserver_answers: bool,
}

impl ServiceManager {
    /// The one that started this process, and said so in its environment.
    pub(super) fn of_this_process() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|patience| {
            // Twice in that time, as its manual asks for.
            let mut watchdog = interval((patience / 2).max(Duration::from_millis(1)));
            watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
            watchdog
        });
        Self {
            listens: env::var_os("NOTIFY_SOCKET").is_some(),
            watchdog,
            told: None,
            was_ready: false,
            patience_ends: Instant::now() + PATIENCE,
        }
    }

    /// Whether it is worth finding out what there is to tell.
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// Tells what has changed. The bot is ready once the homeserver has answered: from then on a command is heard. See also
    /// [`PATIENCE`].
    pub(super) fn tell(&mut self, state: State) {
        if self.told.replace(state) == Some(state) {
            return;
        }
        let status = state.to_string();
        let mut news = vec![NotifyState::Status(&status)];
        if state.homeserver_answers && !std::mem::replace(&mut self.was_ready, true) {
            news.push(NotifyState::Ready);
        }
        self.notify(&news);
    }

    /// Waits until there is something to tell that only time brings: that the loop turns, or that the bot counts as ready. For
    /// ever where nobody listens.
    pub(super) async fn keep_alive(&mut self) {
        let is_awaited = self.listens && !self.was_ready;
        let watchdog = async {
            match &mut self.watchdog {
                Some(watchdog) => drop(watchdog.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watchdog => self.notify(&[NotifyState::Watchdog]),
            () = sleep_until(self.patience_ends), if is_awaited => {
                self.was_ready = true;
                self.notify(&[NotifyState::Ready]);
            }
        }
    }

    /// The bot ends, and sessions go on.
    pub(super) fn tell_the_end(&self) {
        self.notify(&[
            NotifyState::Stopping,
            NotifyState::Status("ending; sessions go on"),
        ]);
    }

    fn notify(&self, news: &[NotifyState<'_>]) {
        if self.listens {
            notify(news);
        }
    }
}

/// Tells the service manager why the bot ended, which it goes on showing. Does nothing where none listens.
pub(crate) fn tell_failure(error: &str) {
    // What is told is told in lines.
    let status = error.replace('\n', "; ");
    notify(&[NotifyState::Status(&status)]);
}

/// Does nothing where no service manager listens.
fn notify(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        warn!(%error, "the service manager was not notified");
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sessions {
            0 => formatter.write_str("no session")?,
            1 => formatter.write_str("1 session")?,
            many => write!(formatter, "{many} sessions")?,
        }
        formatter.write_str(if self.homeserver_answers {
            "; homeserver answers"
        } else {
            "; waiting for the homeserver"
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_bot_whose_homeserver_is_away_counts_as_ready_after_a_while() {
        let mut manager = ServiceManager {
            // What is told to nobody: there is no socket.
            listens: true,
            watchdog: None,
            told: None,
            was_ready: false,
            patience_ends: Instant::now() + PATIENCE,
        };
        assert!(manager.keep_alive().now_or_never().is_none());
        assert!(!manager.was_ready);
        manager.patience_ends = Instant::now();
        manager.keep_alive().await;
        assert!(manager.was_ready);
        let again = manager.keep_alive().now_or_never();
        assert!(again.is_none(), "it is told once");
    }

    #[test]
    fn a_status_counts_the_sessions_and_names_what_is_waited_for() {
        let status = |sessions, homeserver_answers| {
            let state = State {
                sessions,
                homeserver_answers,
            };
            state.to_string()
        };
        assert_eq!(status(0, false), "no session; waiting for the homeserver");
        assert_eq!(status(1, true), "1 session; homeserver answers");
        assert_eq!(status(2, true), "2 sessions; homeserver answers");
    }
}

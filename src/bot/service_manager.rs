//! Tells systemd how the bot does: when it is ready, what it is at, that its loop turns, and that it ends.
//!
//! Where no service manager listens (`NOTIFY_SOCKET`), all of it does nothing. Sessions cannot speak in the bot's name: they
//! do not get that variable, and the unit lets only the main process speak.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::warn;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    listens: bool,
    /// When the loop is to show again that it turns.
    watchdog: Option<Interval>,
    told: Option<State>,
    was_ready: bool,
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
        }
    }

    /// Whether it is worth finding out what there is to tell.
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// Tells what has changed. The bot is ready once the homeserver has answered: from then on a command is heard.
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

    /// Waits until the loop is to show that it turns, and shows it. For ever where nobody watches.
    pub(super) async fn keep_alive(&mut self) {
        match &mut self.watchdog {
            Some(watchdog) => {
                watchdog.tick().await;
                self.notify(&[NotifyState::Watchdog]);
            }
            None => std::future::pending().await,
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
        if self.listens
            && let Err(error) = sd_notify::notify(news)
        {
            warn!(%error, "the service manager was not told");
        }
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
    use super::*;

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

//! How a session ends, and what comes back after it.

use std::time::Duration;

use super::{Action, Ending, Moment, Outcome, Request, Restart, Session, State, Terms};
use crate::remote_control::{
    claude::Cause,
    process::{Exit, ProcessIdentity, StopReport},
};

/// The wait before a session that ended by itself is brought back for the first time. It doubles with each time.
const FIRST_REST: Duration = Duration::from_secs(5);

/// The longest such wait.
const LONGEST_REST: Duration = Duration::from_mins(5);

/// How often a session is brought back that does not run well.
const MAX_RESTARTS: u32 = 5;

/// A session that had its link for so long ran well: what goes wrong now is a new trouble.
const RAN_WELL: Duration = Duration::from_mins(10);

impl Session {
    pub(super) fn on_link_timed_out(&mut self, cause: Option<Cause>, terms: &Terms) -> Vec<Action> {
        match &self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.end(
                    process,
                    Ending::NoLink {
                        waited: terms.link_timeout.unwrap_or_default(),
                        cause,
                    },
                    Vec::new(),
                )
            }
            State::Spawning { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Resting { .. } => Vec::new(),
        }
    }

    pub(super) fn on_exited(
        &mut self,
        exit: Exit,
        cause: Option<Cause>,
        now: Moment,
    ) -> Vec<Action> {
        match &self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.end(
                    process,
                    Ending::ExitedBeforeLink { exit, cause },
                    Vec::new(),
                )
            }
            State::Running { process, since, .. } => {
                let process = process.clone();
                if now.uptime.saturating_sub(*since) > RAN_WELL {
                    self.restarts = 0;
                }
                self.end(process, Ending::Exited { exit, cause }, Vec::new())
            }
            // On its way out already; the tree is gone when it says so.
            State::Spawning { .. } | State::Stopping { .. } | State::Resting { .. } => Vec::new(),
        }
    }

    /// The end of the process is not the end of what it started.
    pub(super) fn end(
        &mut self,
        process: ProcessIdentity,
        ending: Ending,
        stop_requests: Vec<Request>,
    ) -> Vec<Action> {
        self.state = State::Stopping {
            process: Some(process.clone()),
            ending,
            stop_requests,
        };
        vec![Action::EndTree(Some(process))]
    }

    /// Takes down that the operator ends it while it has no owner. The next one finishes it, and tells whoever waits.
    pub(in crate::remote_control) fn end_without_owner(&mut self) {
        let stop_requests = match &mut self.state {
            State::Stopping { stop_requests, .. } => std::mem::take(stop_requests),
            State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Resting { .. } => Vec::new(),
        };
        self.state = State::Stopping {
            process: self.process().cloned(),
            ending: Ending::Stopped,
            stop_requests,
        };
    }

    pub(super) fn on_tree_gone(
        &mut self,
        report: StopReport,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Action> {
        match &self.state {
            State::Stopping {
                ending,
                stop_requests,
                ..
            } => {
                let (ending, stop_requests) = (ending.clone(), stop_requests.clone());
                self.rest_or_finish(ending, Some(report), stop_requests, terms, now)
            }
            State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Resting { .. } => Vec::new(),
        }
    }

    /// Brings back what ended by itself, if that is wanted; a first start that failed is its requester's to repeat.
    pub(super) fn rest_or_finish(
        &mut self,
        ending: Ending,
        report: Option<StopReport>,
        stop_requests: Vec<Request>,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Action> {
        let by_itself = match ending {
            Ending::NotSpawned(_)
            | Ending::ExitedBeforeLink { .. }
            | Ending::NoLink { .. }
            | Ending::HostRestarted
            | Ending::Exited { .. } => true,
            Ending::Stopped | Ending::Expired => false,
        };
        let wanted = terms.restart == Restart::OnExit
            && self.had_link
            && by_itself
            && stop_requests.is_empty();
        if !wanted
            || self.restarts >= MAX_RESTARTS
            || self.time_left(now.uptime) == Some(Duration::ZERO)
        {
            return self.finish(ending, report, stop_requests);
        }
        let rest = FIRST_REST
            .saturating_mul(2_u32.saturating_pow(self.restarts))
            .min(LONGEST_REST);
        self.restarts += 1;
        self.state = State::Resting {
            until: now.uptime + rest,
        };
        let old = self.renew_deliveries();
        vec![Action::Withdraw(old), Action::TellRestart(ending, rest)]
    }

    pub(super) fn finish(
        &mut self,
        ending: Ending,
        report: Option<StopReport>,
        stop_requests: Vec<Request>,
    ) -> Vec<Action> {
        vec![Action::Finish(Outcome {
            session: self.id.clone(),
            ending,
            report,
            stop_requests,
            deliveries: std::mem::take(&mut self.deliveries),
            had_link: self.had_link,
            restarts: self.restarts,
        })]
    }
}

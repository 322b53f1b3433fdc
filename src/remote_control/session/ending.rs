//! How a session ends, and what comes back after it.

use std::{mem, time::Duration};

use super::{Effect, Ending, Moment, Request, Restart, Session, State, Terms};
use crate::remote_control::{
    claude::{Cause, Outlook},
    notice::{Notice, Outcome},
    process::{Exit, StopReport},
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
    pub(super) fn on_stop_requested(&mut self, request: Request) -> Vec<Effect> {
        let mut effects = match &mut self.state {
            // The process comes to be at this moment: it is ended as soon as it is known.
            State::Spawning { .. } => {
                self.end(Ending::Stopped, vec![request.clone()]);
                Vec::new()
            }
            State::Starting { .. } | State::Running { .. } => {
                self.end(Ending::Stopped, vec![request.clone()])
            }
            State::Stopping { stop_requests, .. } => {
                stop_requests.push(request.clone());
                Vec::new()
            }
            State::Resting { .. } => {
                return self.finish(Ending::Stopped, None, vec![request]);
            }
        };
        // Nobody knows when it will be over, so whoever asks has an answer now.
        let reason = self.not_ended.clone();
        effects.extend(reason.map(|reason| {
            let requests = vec![request];
            Effect::Tell(Notice::NotEnded { requests, reason })
        }));
        effects
    }

    pub(super) fn on_link_timed_out(&mut self, cause: Option<Cause>, terms: &Terms) -> Vec<Effect> {
        match &self.state {
            State::Starting { .. } => {
                let waited = terms.link_timeout.unwrap_or_default();
                self.end(Ending::NoLink { waited, cause }, Vec::new())
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
    ) -> Vec<Effect> {
        match &self.state {
            State::Starting { .. } => {
                self.end(Ending::ExitedBeforeLink { exit, cause }, Vec::new())
            }
            State::Running { since, .. } => {
                if now.uptime.saturating_sub(*since) > RAN_WELL {
                    self.restarts = 0;
                }
                self.end(Ending::Exited { exit, cause }, Vec::new())
            }
            // On its way out already; the tree is gone when it says so.
            State::Spawning { .. } | State::Stopping { .. } | State::Resting { .. } => Vec::new(),
        }
    }

    /// The end of the process is not the end of what it started.
    pub(super) fn end(&mut self, ending: Ending, stop_requests: Vec<Request>) -> Vec<Effect> {
        let process = self.process().cloned();
        self.state = State::Stopping {
            process: process.clone(),
            ending,
            stop_requests,
        };
        vec![Effect::EndTree(process)]
    }

    /// Takes down that the operator ends it while it has no owner. The next one finishes it, and tells whoever waits.
    pub(in crate::remote_control) fn end_without_owner(&mut self) {
        let stop_requests = self.stop_requests().to_vec();
        self.end(Ending::Stopped, stop_requests);
    }

    pub(super) fn on_not_ended(&mut self, reason: String) -> Vec<Effect> {
        self.not_ended = Some(reason.clone());
        let requests = self.stop_requests().to_vec();
        vec![Effect::Tell(Notice::NotEnded { requests, reason })]
    }

    pub(super) fn on_tree_gone(
        &mut self,
        report: StopReport,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Effect> {
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
    ) -> Vec<Effect> {
        let by_itself = match ending {
            Ending::NotSpawned(_)
            | Ending::ExitedBeforeLink { .. }
            | Ending::NoLink { .. }
            | Ending::HostRestarted
            | Ending::Exited { .. } => true,
            Ending::Stopped | Ending::Expired => false,
        };
        let comes_back = terms.restart == Restart::OnExit
            && self.had_link
            && by_itself
            && ending.cause().map(Cause::outlook) != Some(Outlook::NeedsPerson)
            && stop_requests.is_empty()
            && self.restarts < MAX_RESTARTS
            && self.time_left(now.uptime) != Some(Duration::ZERO);
        if !comes_back {
            return self.finish(ending, report, stop_requests);
        }
        let rest = FIRST_REST
            .saturating_mul(2_u32.saturating_pow(self.restarts))
            .min(LONGEST_REST);
        self.restarts += 1;
        self.not_ended = None;
        self.state = State::Resting {
            until: now.uptime + rest,
        };
        let mut effects = self.renew_deliveries();
        effects.push(Effect::Tell(Notice::Restarting { ending, rest }));
        effects
    }

    pub(super) fn finish(
        &mut self,
        ending: Ending,
        report: Option<StopReport>,
        stop_requests: Vec<Request>,
    ) -> Vec<Effect> {
        let deliveries = mem::take(&mut self.deliveries);
        // The link is redacted before anyone reads that it is of no use any more.
        let void = deliveries.iter().filter(|_| self.had_link).cloned();
        let mut effects: Vec<_> = void.map(|delivery| self.redact(delivery)).collect();
        effects.push(Effect::Finish(Outcome {
            session: self.id.clone(),
            ending,
            report,
            stop_requests,
            deliveries,
            had_link: self.had_link,
            restarts: self.restarts,
        }));
        effects
    }
}

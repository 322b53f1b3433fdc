//! How a session ends, and whether it is restarted.

use std::{mem, time::Duration};

use super::{Beginning, Effect, Ending, Moment, Request, Restart, Session, State, Terms};
use crate::remote_control::{
    claude::{Cause, Outlook},
    notice::{Notice, Outcome},
    process::{Exit, StopReport},
};

/// The delay before the first restart of a session that ended unexpectedly. It doubles with each time: outages last for hours.
const FIRST_DELAY: Duration = Duration::from_secs(5);

/// The longest such delay.
const LONGEST_DELAY: Duration = Duration::from_mins(5);

/// The delay for a cause that lapses within one to three minutes; and the next ones, as another server may stay for long.
const FIRST_LAPSE: Duration = Duration::from_mins(1);
const NEXT_LAPSE: Duration = Duration::from_mins(3);

/// How long an end may take before its requesters are notified that it is under way.
const ORDERLY_END: Duration = Duration::from_secs(2);

/// A session that had its link for so long ran well.
const RAN_WELL: Duration = Duration::from_mins(10);

impl Session {
    pub(super) fn on_stop_requested(&mut self, request: Request, now: Moment) -> Vec<Effect> {
        if self.stop_requests().is_empty() {
            self.unanswered.clear();
        }
        let mut effects = match &self.state {
            // The process is being spawned: it is ended as soon as it is known.
            State::Spawning { .. } => {
                self.end(Ending::Stopped);
                Vec::new()
            }
            State::Starting { .. } | State::Running { .. } => self.end(Ending::Stopped),
            State::Stopping { .. } => Vec::new(),
            State::AwaitingRestart { .. } => {
                return self.finish(Ending::Stopped, None, vec![request]);
            }
        };
        if let State::Stopping { stop_requests, .. } = &mut self.state {
            stop_requests.push(request.clone());
        }
        // Nobody knows when it will be over, so the requester is answered now.
        if let Some(reason) = self.not_ended.clone() {
            let requests = vec![request];
            effects.push(Effect::Notify(Notice::NotEnded { requests, reason }));
        } else if let State::Stopping { slow_at, .. } = &mut self.state {
            slow_at.get_or_insert(now.uptime + ORDERLY_END);
            self.unanswered.push(request);
        }
        effects
    }

    pub(super) fn on_no_link(
        &mut self,
        cause: Option<Cause>,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Effect> {
        let State::Starting { deadline, .. } = &self.state else {
            return Vec::new();
        };
        let left = deadline.saturating_sub(now.uptime);
        let waited = terms.link_timeout.unwrap_or_default().saturating_sub(left);
        self.end(Ending::NoLink { waited, cause })
    }

    pub(super) fn on_exited(
        &mut self,
        exit: Exit,
        cause: Option<Cause>,
        now: Moment,
    ) -> Vec<Effect> {
        match &self.state {
            State::Starting { .. } => self.end(Ending::ExitedBeforeLink { exit, cause }),
            State::Running { .. } => {
                self.note_good_run(now);
                let is_complete =
                    self.start.beginning == Beginning::Resumed && exit == Exit::Code(0);
                let ending = if is_complete {
                    Ending::Completed
                } else {
                    Ending::Exited { exit, cause }
                };
                self.end(ending)
            }
            // Already being ended; `TreeGone` reports the end.
            State::Spawning { .. } | State::Stopping { .. } | State::AwaitingRestart { .. } => {
                Vec::new()
            }
        }
    }

    /// After a good run, a failure counts as the first one.
    pub(super) fn note_good_run(&mut self, now: Moment) {
        if let State::Running { since, .. } = &self.state
            && now.uptime.saturating_sub(*since) > RAN_WELL
        {
            self.restarts = 0;
            self.reported.clear();
        }
    }

    /// The end of the process is not the end of its descendants.
    pub(crate) fn end(&mut self, ending: Ending) -> Vec<Effect> {
        self.state = State::Stopping {
            process: self.process().cloned(),
            ending,
            stop_requests: self.stop_requests().to_vec(),
            slow_at: None,
        };
        vec![Effect::EndTree]
    }

    pub(super) fn on_not_ended(&mut self, reason: String) -> Vec<Effect> {
        self.not_ended = Some(reason.clone());
        if let State::Stopping { slow_at, .. } = &mut self.state {
            *slow_at = None;
        }
        let requests = self.stop_requests().to_vec();
        vec![Effect::Notify(Notice::NotEnded { requests, reason })]
    }

    pub(super) fn on_tree_gone(
        &mut self,
        report: StopReport,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Effect> {
        let State::Stopping { ending, .. } = &self.state else {
            return Vec::new();
        };
        self.restart_or_finish(ending.clone(), Some(report), terms, now)
    }

    /// Restarts a session that ended unexpectedly, if that is wanted and can help.
    pub(super) fn restart_or_finish(
        &mut self,
        ending: Ending,
        report: Option<StopReport>,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Effect> {
        let stop_requests = self.stop_requests().to_vec();
        let is_restarted = stop_requests.is_empty()
            && self.is_worth_restarting(&ending, terms)
            && self.time_left(now.uptime) != Some(Duration::ZERO);
        if is_restarted {
            self.await_restart(ending, now)
        } else {
            self.finish(ending, report, stop_requests)
        }
    }

    fn is_worth_restarting(&self, ending: &Ending, terms: &Terms) -> bool {
        match ending {
            Ending::Stopped | Ending::Expired | Ending::Completed => return false,
            Ending::NotSpawned(_)
            | Ending::ExitedBeforeLink { .. }
            | Ending::NoLink { .. }
            | Ending::HostRestarted
            | Ending::CutOff { .. }
            | Ending::Exited { .. } => {}
        }
        let is_restarted = self.had_link && terms.restart == Restart::OnExit;
        // A start that was only too early is retried without another request.
        let is_first_start = !self.had_link;
        match (ending.cause(), ending.cause().map(Cause::outlook)) {
            // It is then restarted without the conversation.
            (Some(Cause::NothingToResume), _) => is_restarted,
            (_, Some(Outlook::NeedsPerson)) => false,
            (_, Some(Outlook::Passes | Outlook::Lapses)) => is_restarted || is_first_start,
            (_, Some(Outlook::Unknown) | None) => {
                is_restarted || is_first_start && !self.reported.is_empty()
            }
        }
    }

    fn await_restart(&mut self, ending: Ending, now: Moment) -> Vec<Effect> {
        let cause = ending.cause();
        let is_known = self.reported.contains(&ending.in_short());
        let delay = match cause.map(Cause::outlook) {
            Some(Outlook::Lapses) if is_known => NEXT_LAPSE,
            Some(Outlook::Lapses) => FIRST_LAPSE,
            Some(Outlook::Passes | Outlook::NeedsPerson | Outlook::Unknown) | None => {
                let growth = 2_u32.saturating_pow(self.restarts);
                self.restarts = self.restarts.saturating_add(1);
                FIRST_DELAY.saturating_mul(growth).min(LONGEST_DELAY)
            }
        };
        if cause == Some(Cause::NothingToResume) {
            self.start.beginning = Beginning::Fresh;
        }
        let until = now.uptime + delay;
        self.state = State::AwaitingRestart { until, cause };
        let mut effects = Vec::new();
        if ending.came_after_link() {
            effects = self.renew_deliveries();
        }
        let requests = mem::take(&mut self.unanswered);
        if !is_known {
            self.reported.push(ending.in_short());
        }
        if !is_known || !requests.is_empty() {
            effects.push(Effect::Notify(Notice::Restarting {
                ending,
                delay,
                had_link: self.had_link,
                requests,
            }));
        }
        effects
    }

    pub(super) fn finish(
        &mut self,
        ending: Ending,
        report: Option<StopReport>,
        stop_requests: Vec<Request>,
    ) -> Vec<Effect> {
        let deliveries = mem::take(&mut self.deliveries);
        // The link is redacted before anyone reads that it is invalid.
        let invalid = deliveries.iter().filter(|_| self.had_link).cloned();
        let mut effects: Vec<_> = invalid.map(|delivery| self.redact(delivery)).collect();
        effects.push(Effect::Finish(Outcome {
            session: self.id.clone(),
            since: self.created,
            ending,
            report,
            stop_requests,
            deliveries,
            had_link: self.had_link,
        }));
        effects
    }
}

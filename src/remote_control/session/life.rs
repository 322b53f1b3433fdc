//! How a session reacts to events: from its start to its link, and after a restart of the bot.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Beginning, Delivery, End, Ending, Moment, Redaction, Request, Session, SessionId, State, Terms,
    WARNING,
};
use crate::{
    link::Link,
    remote_control::{
        claude::{Cause, Connection, Quote},
        notice::{Notice, Outcome},
        process::{Exit, NotSpawned, ProcessIdentity, StopReport},
        project::Start,
    },
};

/// How many messages with the link of one session a requester keeps. Each stands in the record until the session is over; of
/// more, the oldest is redacted.
pub(super) const MOST_LINKS: usize = 20;

/// The deadline where there is none: a hundred years of uptime.
const NEVER: Duration = Duration::from_hours(24 * 36_500);

/// How long a restored session that is starting has at least, however long no bot ran: its link may be there already, and has
/// to be read first.
const TIME_TO_READ: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Event {
    /// A request for the link of such a session. Its beginning applies to a process that is still to be spawned.
    LinkRequested(Request, Start),
    StopRequested(Request),
    /// A request for so much more time.
    ExtensionRequested(Request, Duration),
    Spawned(ProcessIdentity),
    NotSpawned(NotSpawned),
    LinkShown(Link),
    /// The link timed out, or the program says that it has failed.
    NoLink(Option<Cause>),
    /// The program shows another state of its connection than before.
    Connection(Connection),
    /// The running program reports a problem that is unknown, or that keeps conversations from starting.
    Complained(Cause, Quote),
    Exited(Exit, Option<Cause>),
    /// Some processes cannot be ended; this is retried.
    NotEnded(String),
    TreeGone(StopReport),
    /// The time of [`Session::next_wake`] has come.
    TimeCame,
    Delivered {
        number: u32,
        receipt: String,
    },
    Undeliverable {
        number: u32,
    },
}

/// What to do, in this order, once the present session is on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Spawn,
    /// Watch the process for its link, its end, and the timeout of its link.
    Watch,
    /// End the process tree. If the process is unknown, it is found by its mark.
    EndTree,
    /// Deliver the link to the requester of the delivery with this number.
    Deliver(u32),
    Notify(Notice),
    /// The session is over, and can be removed.
    Finish(Outcome),
}

impl Session {
    /// A session for these requests. Its process is still to be spawned.
    pub(crate) fn new(
        id: SessionId,
        start: Start,
        requests: Vec<Request>,
        terms: &Terms,
        now: Moment,
    ) -> Self {
        let end = terms.max_duration.map(|duration| End {
            uptime: now.uptime + duration,
            wall: now.wall + duration,
            // No warning right at the start that it ends soon.
            warned: duration <= WARNING,
        });
        let mut session = Self {
            id,
            created: now.wall,
            start,
            state: State::Spawning { since: now.uptime },
            deliveries: Vec::new(),
            next_delivery: 0,
            had_link: false,
            end,
            restarts: 0,
            reported: Vec::new(),
            unanswered: requests.clone(),
            shown: None,
            cut_off_reported: None,
            complaints: Vec::new(),
            not_ended: None,
        };
        for request in requests {
            session.add_delivery(request);
        }
        session
    }

    /// A session whose record was lost, but not its process, which is to be watched or ended.
    pub(crate) fn adopted(
        id: SessionId,
        process: ProcessIdentity,
        terms: &Terms,
        now: Moment,
    ) -> Self {
        let mut session = Self::new(id, Beginning::Fresh.into(), Vec::new(), terms, now);
        session.on_spawned(process, terms);
        session
    }

    /// Handles an event. One that does not fit the present state came too late and changes nothing.
    pub(crate) fn on(&mut self, event: Event, terms: &Terms, now: Moment) -> Vec<Effect> {
        match event {
            Event::LinkRequested(request, start) => self.on_link_requested(request, &start, now),
            Event::StopRequested(request) => self.on_stop_requested(request, now),
            Event::ExtensionRequested(request, by) => self.on_extension_requested(request, by, now),
            Event::Spawned(process) => self.on_spawned(process, terms),
            Event::NotSpawned(reason) => self.on_not_spawned(reason, terms, now),
            Event::LinkShown(link) => self.on_link_shown(&link, now),
            Event::NoLink(cause) => self.on_no_link(cause, terms, now),
            Event::Connection(connection) => self.on_connection(connection, now),
            Event::Complained(cause, quote) => self.on_complained(cause, quote),
            Event::Exited(exit, cause) => self.on_exited(exit, cause, now),
            Event::NotEnded(reason) => self.on_not_ended(reason),
            Event::TreeGone(report) => self.on_tree_gone(report, terms, now),
            Event::TimeCame => self.on_time_came(terms, now),
            Event::Delivered { number, receipt } => {
                let mut all = self.deliveries.iter_mut();
                let Some(delivery) = all.find(|delivery| delivery.number == number) else {
                    return Vec::new();
                };
                delivery.receipt = Some(receipt);
                let requester = delivery.request.requester.clone();
                let old = self.make_room(&requester);
                old.map(|old| self.redact(old)).into_iter().collect()
            }
            Event::Undeliverable { number } => {
                self.deliveries.retain(|delivery| delivery.number != number);
                Vec::new()
            }
        }
    }

    /// The effects with which a session that was read from disk goes on. `found`: its process, found by the session id in the
    /// environment of all processes, in case the record does not name it. `booted`: whether the host was booted since.
    pub(crate) fn restore(
        &mut self,
        found: Option<ProcessIdentity>,
        booted: bool,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Effect> {
        if booted {
            // Uptimes of the boot before, which this one may take weeks to reach.
            (self.shown, self.cut_off_reported) = (None, None);
            if let Some(end) = &mut self.end {
                // A clock that lost its time, and is not synchronized yet, gives no session more than it had at first.
                let wall = now.wall.max(self.created);
                end.uptime = now.uptime + end.wall.duration_since(wall).unwrap_or_default();
            }
        }
        match &mut self.state {
            // A process that is still to be spawned has its whole time, however long no bot ran.
            State::Spawning { .. } => match found {
                Some(process) => self.on_spawned(process, terms),
                None => self.spawn(now),
            },
            State::Starting { .. } | State::Running { .. } if booted && found.is_none() => {
                self.end(Ending::HostRestarted)
            }
            State::Starting { deadline, .. } => {
                *deadline = terms.link_timeout.map_or(NEVER, |timeout| {
                    let whole = now.uptime + timeout;
                    (*deadline).min(whole).max(now.uptime + TIME_TO_READ)
                });
                vec![Effect::Watch]
            }
            State::Running { .. } => {
                let mut effects = vec![Effect::Watch];
                effects.extend(self.deliver_waiting());
                effects
            }
            State::Stopping {
                process, slow_at, ..
            } => {
                if booted {
                    *slow_at = slow_at.map(|_| now.uptime);
                }
                // Reports of another process than the session's do not count.
                *process = process.take().or(found);
                vec![Effect::EndTree]
            }
            State::AwaitingRestart { until, .. } => {
                if booted {
                    *until = now.uptime;
                }
                Vec::new()
            }
        }
    }

    /// The uptime at which the session needs [`Event::TimeCame`].
    pub(crate) fn next_wake(&self, terms: &Terms) -> Option<Duration> {
        let of_state = match &self.state {
            State::AwaitingRestart { until, .. } => Some(*until),
            State::Running { .. } => self.cut_off_wake(terms),
            State::Stopping { slow_at, .. } => return *slow_at,
            State::Spawning { .. } | State::Starting { .. } => return None,
        };
        let warns = matches!(self.state, State::Running { .. });
        let of_end = self.end.map(|end| match end {
            End { warned: false, .. } if warns => end.uptime.saturating_sub(WARNING),
            End { .. } => end.uptime,
        });
        of_state.into_iter().chain(of_end).min()
    }

    /// The number of a new delivery for this request. `None`: another is under way to the same requester, and answers it too.
    fn add_delivery(&mut self, request: Request) -> Option<u32> {
        let mut all = self.deliveries.iter_mut();
        let under_way = all.find(|delivery| {
            delivery.receipt.is_none() && delivery.request.requester == request.requester
        });
        if let Some(delivery) = under_way {
            delivery.also.push(request);
            return None;
        }
        let number = self.next_delivery;
        self.deliveries.push(Delivery {
            number,
            request,
            also: Vec::new(),
            receipt: None,
        });
        self.next_delivery += 1;
        Some(number)
    }

    /// Removes the oldest message with the link that the requester has, if they have too many. The first one of the session
    /// stays. Called once the latest one has arrived: nobody waits for a redaction.
    fn make_room(&mut self, requester: &str) -> Option<Delivery> {
        let arrived = |(_, delivery): &(usize, &Delivery)| {
            delivery.receipt.is_some() && delivery.request.requester == requester
        };
        let mut of_requester = self.deliveries.iter().enumerate().skip(1).filter(arrived);
        let (oldest, _) = of_requester.next()?;
        let others = of_requester.count();
        (others + 1 > MOST_LINKS).then(|| self.deliveries.remove(oldest))
    }

    /// Spawns a process, unless the session's time is up, which may have happened while no bot ran.
    fn spawn(&mut self, now: Moment) -> Vec<Effect> {
        if self.time_left(now.uptime) == Some(Duration::ZERO) {
            return self.finish(Ending::Expired, None, Vec::new());
        }
        self.state = State::Spawning { since: now.uptime };
        self.shown = None;
        self.not_ended = None;
        self.forget_obstacles();
        vec![Effect::Spawn]
    }

    fn deliver_waiting(&self) -> impl Iterator<Item = Effect> {
        let all = self.deliveries.iter();
        let waiting = all.filter(|delivery| delivery.receipt.is_none());
        waiting.map(|delivery| Effect::Deliver(delivery.number))
    }

    pub(super) fn redact(&self, delivery: Delivery) -> Effect {
        Effect::Notify(Notice::Redact(Redaction {
            session: self.id.clone(),
            delivery,
        }))
    }

    /// Redacts all links, and starts their deliveries again, once for each requester.
    pub(super) fn renew_deliveries(&mut self) -> Vec<Effect> {
        let old = std::mem::take(&mut self.deliveries);
        for delivery in &old {
            let same = |new: &Delivery| new.request.requester == delivery.request.requester;
            match &delivery.receipt {
                // Answered already; one more answer to each requester is enough.
                Some(_) if self.deliveries.iter().any(same) => {}
                Some(_) => drop(self.add_delivery(delivery.request.clone())),
                None => {
                    for request in delivery.requests() {
                        self.add_delivery(request.clone());
                    }
                }
            }
        }
        old.into_iter().map(|old| self.redact(old)).collect()
    }

    fn on_link_requested(&mut self, request: Request, start: &Start, now: Moment) -> Vec<Effect> {
        match &self.state {
            State::Stopping { .. } => vec![Effect::Notify(Notice::RefusedWhileStopping(request))],
            // A requester of another permission mode must not get this one unknowingly.
            State::Spawning { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::AwaitingRestart { .. }
                if !start.options.are_met_by(&self.start.options) =>
            {
                let options = self.start.options.clone();
                vec![Effect::Notify(Notice::OtherOptions { request, options })]
            }
            State::Spawning { .. } | State::Starting { .. } => {
                self.unanswered.push(request.clone());
                self.add_delivery(request);
                Vec::new()
            }
            State::Running { .. } => {
                let new = self.add_delivery(request);
                new.map(Effect::Deliver).into_iter().collect()
            }
            // A user is waiting, so it is restarted now.
            State::AwaitingRestart { .. } => {
                self.unanswered.push(request.clone());
                self.add_delivery(request);
                if start.beginning == Beginning::Resumed {
                    self.start.beginning = start.beginning;
                    // One conversation has no others to spawn.
                    self.start.options.spawn = None;
                }
                self.spawn(now)
            }
        }
    }

    fn on_extension_requested(
        &mut self,
        request: Request,
        by: Duration,
        now: Moment,
    ) -> Vec<Effect> {
        if let State::Stopping { .. } = self.state {
            return vec![Effect::Notify(Notice::RefusedWhileStopping(request))];
        }
        if let Some(end) = &mut self.end {
            end.uptime += by;
            end.wall += by;
            end.warned = end.uptime.saturating_sub(now.uptime) <= WARNING;
        }
        let left = self.time_left(now.uptime);
        let holders = self.holders();
        vec![Effect::Notify(Notice::Extended {
            request,
            holders,
            left,
        })]
    }

    fn on_spawned(&mut self, process: ProcessIdentity, terms: &Terms) -> Vec<Effect> {
        match &mut self.state {
            State::Spawning { since } => {
                let deadline = terms.link_timeout.map_or(NEVER, |timeout| *since + timeout);
                self.state = State::Starting { process, deadline };
                vec![Effect::Watch]
            }
            State::Stopping {
                process: known @ None,
                ..
            } => {
                *known = Some(process);
                vec![Effect::EndTree]
            }
            State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::AwaitingRestart { .. } => Vec::new(),
        }
    }

    fn on_not_spawned(&mut self, reason: NotSpawned, terms: &Terms, now: Moment) -> Vec<Effect> {
        match &self.state {
            // No process was spawned, so a stop is complete.
            State::Spawning { .. } | State::Stopping { process: None, .. } => {
                self.restart_or_finish(Ending::NotSpawned(reason), None, terms, now)
            }
            State::Stopping { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::AwaitingRestart { .. } => Vec::new(),
        }
    }

    fn on_link_shown(&mut self, shown: &Link, now: Moment) -> Vec<Effect> {
        match &mut self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.had_link = true;
                self.unanswered.clear();
                self.state = State::Running {
                    process,
                    link: shown.clone(),
                    since: now.uptime,
                };
                self.deliver_waiting().collect()
            }
            // Versions before 2.1.257 may replace the environment of a running session, and the link with it.
            State::Running { link, .. } if link != shown => {
                *link = shown.clone();
                let mut effects = self.renew_deliveries();
                effects.extend(self.deliver_waiting());
                effects
            }
            State::Spawning { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::AwaitingRestart { .. } => Vec::new(),
        }
    }

    fn on_time_came(&mut self, terms: &Terms, now: Moment) -> Vec<Effect> {
        let cut_off = self.cut_off_wake(terms);
        match (&mut self.state, &mut self.end) {
            (State::Stopping { slow_at, .. }, _) if slow_at.is_some_and(|at| now.uptime >= at) => {
                *slow_at = None;
                let requests = std::mem::take(&mut self.unanswered);
                vec![Effect::Notify(Notice::ShuttingDown(requests))]
            }
            (State::AwaitingRestart { .. }, Some(end)) if now.uptime >= end.uptime => {
                self.finish(Ending::Expired, None, Vec::new())
            }
            (State::AwaitingRestart { until, .. }, _) if now.uptime >= *until => self.spawn(now),
            (State::Running { .. }, Some(end)) if now.uptime >= end.uptime => {
                self.end(Ending::Expired)
            }
            (State::Running { .. }, Some(end))
                if !end.warned && now.uptime >= end.uptime.saturating_sub(WARNING) =>
            {
                end.warned = true;
                let left = end.uptime.saturating_sub(now.uptime);
                let holders = self.holders();
                vec![Effect::Notify(Notice::EndsSoon { holders, left })]
            }
            (State::Running { .. }, _) if cut_off.is_some_and(|due| now.uptime >= due) => {
                self.on_cut_off(terms, now)
            }
            // The time was moved meanwhile.
            (
                State::Spawning { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::AwaitingRestart { .. },
                _,
            ) => Vec::new(),
        }
    }

    /// The users who have the link.
    fn holders(&self) -> BTreeSet<String> {
        self.requesters(|delivery| delivery.receipt.is_some())
    }

    /// The requesters of the deliveries to which that applies.
    pub(crate) fn requesters(&self, applies: impl Fn(&Delivery) -> bool) -> BTreeSet<String> {
        let all = self.deliveries.iter().filter(|delivery| applies(delivery));
        all.map(|delivery| delivery.request.requester.clone())
            .collect()
    }
}

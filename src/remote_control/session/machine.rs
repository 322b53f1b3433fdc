//! What a session does about what happens.

use std::time::Duration;

use super::{
    Action, Beginning, Delivery, End, Ending, Event, Moment, NotSpawned, Receipt, Request, Session,
    SessionId, State, Terms, WARNING,
};
use crate::{link::Link, remote_control::process::ProcessIdentity};

/// How many messages with the link of one session a requester keeps. Each stands in the record until the session is over; of
/// more, the oldest is redacted.
pub(super) const MOST_LINKS: usize = 20;

/// The deadline where there is none: a hundred years of uptime.
const NEVER: Duration = Duration::from_hours(24 * 36_500);

/// How long a restored session that is starting has at least, however long nobody was here: its link may be there already, and
/// has to be read first.
const TIME_TO_READ: Duration = Duration::from_secs(5);

impl Session {
    /// A session for these requests, and what to do for it.
    #[must_use]
    pub fn new(
        id: SessionId,
        beginning: Beginning,
        requests: Vec<Request>,
        terms: &Terms,
        now: Moment,
    ) -> (Self, Vec<Action>) {
        let end = terms.max_duration.map(|duration| End {
            uptime: now.uptime + duration,
            wall: now.wall + duration,
            // Nobody needs to hear at once that it ends soon.
            warned: duration <= WARNING,
        });
        let mut session = Self {
            id,
            created: now.wall,
            beginning,
            state: State::Spawning { since: now.uptime },
            deliveries: Vec::new(),
            next_delivery: 0,
            had_link: false,
            end,
            restarts: 0,
        };
        for request in requests {
            session.add_delivery(request);
        }
        (session, vec![Action::Spawn])
    }

    /// A session whose record was lost, but not its process.
    #[must_use]
    pub fn adopted(
        id: SessionId,
        process: ProcessIdentity,
        terms: &Terms,
        now: Moment,
    ) -> (Self, Vec<Action>) {
        let (mut session, _) = Self::new(id, Beginning::Fresh, Vec::new(), terms, now);
        let actions = session.on_spawned(process, terms);
        (session, actions)
    }

    /// What the session does about an event. One that makes no sense in the present state came late and changes nothing.
    pub fn on(&mut self, event: Event, terms: &Terms, now: Moment) -> Vec<Action> {
        match event {
            Event::LinkRequested(request) => self.on_link_requested(request, now),
            Event::ResumeRequested(request) => {
                if let State::Resting { .. } = self.state {
                    self.beginning = Beginning::Resumed;
                }
                self.on_link_requested(request, now)
            }
            Event::StopRequested(request) => self.on_stop_requested(request),
            Event::ExtensionRequested(request, by) => self.on_extension_requested(request, by, now),
            Event::Spawned(process) => self.on_spawned(process, terms),
            Event::NotSpawned(reason) => self.on_not_spawned(reason, terms, now),
            Event::LinkShown(link) => self.on_link_shown(&link, now),
            Event::LinkTimedOut(cause) => self.on_link_timed_out(cause, terms),
            Event::Exited(exit, cause) => self.on_exited(exit, cause, now),
            Event::TreeGone(report) => self.on_tree_gone(report, terms, now),
            Event::TimeCame => self.on_time_came(now),
            Event::Delivered { number, receipt } => self.on_delivered(number, &receipt),
            Event::Undeliverable { number } => {
                self.deliveries.retain(|delivery| delivery.number != number);
                vec![Action::Save]
            }
        }
    }

    /// What a session that was read from disk needs to go on. `found`: its process, looked for by the session id in the
    /// environment of all processes, for the case that the record does not name it. `booted`: the host was, since then.
    pub fn restore(
        &mut self,
        found: Option<ProcessIdentity>,
        booted: bool,
        terms: &Terms,
        now: Moment,
    ) -> Vec<Action> {
        if booted && let Some(end) = &mut self.end {
            end.uptime = now.uptime + end.wall.duration_since(now.wall).unwrap_or_default();
        }
        match &mut self.state {
            // A process that is yet to be made has all of its time before it, however long nobody was here to make it.
            State::Spawning { .. } => match found {
                Some(process) => self.on_spawned(process, terms),
                None => self.spawn(now),
            },
            State::Starting { process, .. } | State::Running { process, .. }
                if booted && found.is_none() =>
            {
                let process = process.clone();
                self.end(process, Ending::HostRestarted, Vec::new())
            }
            State::Starting { process, deadline } => {
                *deadline = terms.link_timeout.map_or(NEVER, |timeout| {
                    let whole = now.uptime + timeout;
                    (*deadline).min(whole).max(now.uptime + TIME_TO_READ)
                });
                vec![Action::Watch(process.clone())]
            }
            State::Running { process, link, .. } => {
                let (process, link) = (process.clone(), link.clone());
                let mut actions = vec![Action::Watch(process)];
                actions.extend(self.undelivered(&link));
                actions
            }
            State::Stopping { process, .. } => vec![Action::EndTree(process.clone().or(found))],
            State::Resting { until } => {
                if booted {
                    *until = now.uptime;
                }
                Vec::new()
            }
        }
    }

    /// The uptime at which the session wants to hear [`Event::TimeCame`].
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match (&self.state, self.end) {
            (State::Resting { until }, _) => Some(*until),
            (State::Running { .. }, Some(end)) if end.warned => Some(end.uptime),
            (State::Running { .. }, Some(end)) => Some(end.uptime.saturating_sub(WARNING)),
            (State::Running { .. }, None)
            | (State::Spawning { .. } | State::Starting { .. } | State::Stopping { .. }, _) => None,
        }
    }

    /// A delivery for this request. `None`: another is under way to the same requester, which answers it too.
    fn add_delivery(&mut self, request: Request) -> Option<Delivery> {
        let mut under_way = self
            .deliveries
            .iter_mut()
            .filter(|delivery| delivery.receipt.is_none());
        if let Some(delivery) =
            under_way.find(|delivery| delivery.request.requester == request.requester)
        {
            delivery.also.push(request);
            return None;
        }
        let delivery = Delivery {
            number: self.next_delivery,
            request,
            also: Vec::new(),
            receipt: None,
        };
        self.next_delivery += 1;
        self.deliveries.push(delivery.clone());
        Some(delivery)
    }

    /// The oldest message with the link that the requester has, where they have too many. Who asked first stays on record.
    fn make_room(&mut self, requester: &str) -> Option<Delivery> {
        let arrived = |(_, delivery): &(usize, &Delivery)| {
            delivery.receipt.is_some() && delivery.request.requester == requester
        };
        let mut of_requester = self.deliveries.iter().enumerate().skip(1).filter(arrived);
        let (oldest, _) = of_requester.next()?;
        let others = of_requester.count();
        (others + 1 >= MOST_LINKS).then(|| self.deliveries.remove(oldest))
    }

    /// Has a process made, unless the session's time is up: no such session comes back, however long nobody looked.
    fn spawn(&mut self, now: Moment) -> Vec<Action> {
        if self.time_left(now.uptime) == Some(Duration::ZERO) {
            return self.finish(Ending::Expired, None, Vec::new());
        }
        self.state = State::Spawning { since: now.uptime };
        vec![Action::Spawn]
    }

    fn undelivered(&self, link: &Link) -> Vec<Action> {
        let waiting = self
            .deliveries
            .iter()
            .filter(|delivery| delivery.receipt.is_none());
        waiting
            .map(|delivery| Action::Deliver(delivery.clone(), link.clone()))
            .collect()
    }

    /// Begins all deliveries anew, once for each requester; gives back the old ones.
    pub(super) fn renew_deliveries(&mut self) -> Vec<Delivery> {
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
        old
    }

    fn on_link_requested(&mut self, request: Request, now: Moment) -> Vec<Action> {
        match &self.state {
            State::Spawning { .. } | State::Starting { .. } => {
                self.add_delivery(request);
                vec![Action::Save]
            }
            State::Running { link, .. } => {
                let link = link.clone();
                let old = self.make_room(&request.requester);
                let delivery = self.add_delivery(request);
                let deliver =
                    delivery.map_or(Action::Save, |delivery| Action::Deliver(delivery, link));
                old.map(|old| Action::Withdraw(vec![old]))
                    .into_iter()
                    .chain([deliver])
                    .collect()
            }
            State::Stopping { .. } => vec![Action::RefuseWhileStopping(request)],
            // Somebody is waiting: this is no time to rest.
            State::Resting { .. } => {
                self.add_delivery(request);
                self.spawn(now)
            }
        }
    }

    fn on_stop_requested(&mut self, request: Request) -> Vec<Action> {
        match &mut self.state {
            // The process comes to be at this moment: it is ended as soon as it is known.
            State::Spawning { .. } => {
                self.state = State::Stopping {
                    process: None,
                    ending: Ending::Stopped,
                    stop_requests: vec![request],
                };
                vec![Action::Save]
            }
            State::Starting { process, .. } | State::Running { process, .. } => {
                let process = process.clone();
                self.end(process, Ending::Stopped, vec![request])
            }
            State::Stopping { stop_requests, .. } => {
                stop_requests.push(request);
                vec![Action::Save]
            }
            State::Resting { .. } => self.finish(Ending::Stopped, None, vec![request]),
        }
    }

    fn on_extension_requested(
        &mut self,
        request: Request,
        by: Duration,
        now: Moment,
    ) -> Vec<Action> {
        if let State::Stopping { .. } = self.state {
            return vec![Action::RefuseWhileStopping(request)];
        }
        if let Some(end) = &mut self.end {
            end.uptime += by;
            end.wall += by;
            end.warned = end.uptime.saturating_sub(now.uptime) <= WARNING;
        }
        vec![Action::Extended(request, self.time_left(now.uptime))]
    }

    fn on_spawned(&mut self, process: ProcessIdentity, terms: &Terms) -> Vec<Action> {
        match &mut self.state {
            State::Spawning { since } => {
                let deadline = terms.link_timeout.map_or(NEVER, |timeout| *since + timeout);
                self.state = State::Starting {
                    process: process.clone(),
                    deadline,
                };
                vec![Action::Watch(process)]
            }
            State::Stopping {
                process: known @ None,
                ..
            } => {
                *known = Some(process.clone());
                vec![Action::EndTree(Some(process))]
            }
            State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Resting { .. } => Vec::new(),
        }
    }

    fn on_not_spawned(&mut self, reason: NotSpawned, terms: &Terms, now: Moment) -> Vec<Action> {
        match &self.state {
            State::Spawning { .. } => {
                self.rest_or_finish(Ending::NotSpawned(reason), None, Vec::new(), terms, now)
            }
            // Nothing came to be, so what was to be stopped is.
            State::Stopping {
                process: None,
                stop_requests,
                ..
            } => {
                let stop_requests = stop_requests.clone();
                self.finish(Ending::NotSpawned(reason), None, stop_requests)
            }
            State::Stopping { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Resting { .. } => Vec::new(),
        }
    }

    fn on_link_shown(&mut self, shown: &Link, now: Moment) -> Vec<Action> {
        match &mut self.state {
            State::Starting { process, .. } => {
                let process = process.clone();
                self.had_link = true;
                self.state = State::Running {
                    process,
                    link: shown.clone(),
                    since: now.uptime,
                };
                let mut actions = self.undelivered(shown);
                actions.push(Action::Save);
                actions
            }
            // The program replaces its environment in mid-life, and the link with it.
            State::Running { link, .. } if link != shown => {
                *link = shown.clone();
                let old = self.renew_deliveries();
                let mut actions = vec![Action::Withdraw(old)];
                actions.extend(self.undelivered(shown));
                actions
            }
            State::Spawning { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Resting { .. } => Vec::new(),
        }
    }

    fn on_time_came(&mut self, now: Moment) -> Vec<Action> {
        match (&self.state, &mut self.end) {
            (State::Resting { until }, _) if now.uptime >= *until => self.spawn(now),
            (State::Running { process, .. }, Some(end)) if now.uptime >= end.uptime => {
                let process = process.clone();
                self.end(process, Ending::Expired, Vec::new())
            }
            (State::Running { .. }, Some(end))
                if !end.warned && now.uptime >= end.uptime.saturating_sub(WARNING) =>
            {
                end.warned = true;
                let left = end.uptime.saturating_sub(now.uptime);
                vec![Action::Warn(self.holders(), left)]
            }
            // It was moved since.
            (
                State::Spawning { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Resting { .. },
                _,
            ) => Vec::new(),
        }
    }

    /// Those who have the link.
    fn holders(&self) -> Vec<String> {
        let arrived = self
            .deliveries
            .iter()
            .filter(|delivery| delivery.receipt.is_some());
        let mut holders: Vec<_> = arrived
            .map(|delivery| delivery.request.requester.clone())
            .collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    fn on_delivered(&mut self, number: u32, receipt: &Receipt) -> Vec<Action> {
        for delivery in self
            .deliveries
            .iter_mut()
            .filter(|delivery| delivery.number == number)
        {
            delivery.receipt = Some(receipt.clone());
        }
        vec![Action::Save]
    }
}

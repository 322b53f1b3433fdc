//! Handles an event: the session decides, its decision is recorded on disk, and only then it is carried out.

use std::{error::Error as _, mem, sync::Arc, time::Duration};

use tracing::{Instrument as _, error, info, info_span};

use super::{
    Delivery, Effect, Event, Notice, Notices, Outcome, OutputError, Phase, ProjectName,
    RemoteControl, Request, Session, Slot, now,
    store::Record,
    tasks::{RETRY_AFTER, Spawning, Task},
    watch,
};

impl RemoteControl {
    /// Lets the session decide, records its decision, and carries it out.
    pub(super) fn apply(&mut self, name: &ProjectName, event: Event) -> Notices {
        let slot = self.slot(name);
        let before = slot.record.clone();
        let terms = slot.terms();
        let Some(session) = &mut slot.record.session else {
            return Vec::new();
        };
        // A stop is carried out even if it cannot be recorded; all other events have already happened.
        let mut refusable = Vec::new();
        if let Event::LinkRequested(request, _) | Event::ExtensionRequested(request, _) = &event {
            refusable.push(request.clone());
        }
        let state_before = mem::discriminant(session.state());
        let effects = session.on(event, &terms, now());
        if state_before != mem::discriminant(session.state()) {
            info!(project = %name, session = %session.id(), phase = ?Phase::of(session), "session changed");
        }
        self.save_and_act(name, before, refusable, effects)
    }

    /// Records what changed, then acts. A request that cannot be recorded is refused, so that its user can try again.
    pub(super) fn save_and_act(
        &mut self,
        name: &ProjectName,
        before: Record,
        refusable: Vec<Request>,
        effects: Vec<Effect>,
    ) -> Notices {
        let slot = self.slot(name);
        slot.note(&effects);
        if slot.record != before
            && let Err(reason) = self.save(name)
            && !refusable.is_empty()
        {
            error!(project = %name, reason, "request refused, it cannot be recorded");
            self.slot(name).record = before;
            // A write that failed may have replaced the record all the same.
            drop(self.save(name));
            let refuse = |request| {
                let reason = reason.clone();
                (name.clone(), Notice::NotRecorded { request, reason })
            };
            return refusable.into_iter().map(refuse).collect();
        }
        self.act(name, effects)
    }

    fn act(&mut self, name: &ProjectName, effects: Vec<Effect>) -> Notices {
        let mut notices = Vec::new();
        for effect in effects {
            match effect {
                Effect::Deliver(number) => {
                    let is_it = |it: &Delivery| (it.number == number).then_some(());
                    let found = self.slot(name).find_delivery(name, is_it);
                    notices.extend(found.map(|(id, request, link, ())| {
                        (name.clone(), Notice::Deliver { id, request, link })
                    }));
                }
                Effect::Notify(notice) => notices.push((name.clone(), notice)),
                Effect::Finish(outcome) => notices.extend(self.finish(name, outcome)),
                Effect::Spawn => {
                    let spawning = Spawning {
                        host: self.host.clone(),
                        marks: self.store.marks(name),
                        spawn_lock: Arc::clone(&self.slot(name).spawning),
                    };
                    self.run(name, |task| task.spawn(spawning));
                }
                Effect::Watch => self.run(name, watch::watch),
                Effect::EndTree => self.run(name, Task::end_tree),
            }
        }
        notices
    }

    fn run<F>(&mut self, name: &ProjectName, work: impl FnOnce(Task) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(session) = self.slot(name).record.session.clone() {
            self.run_for(name, session, work);
        }
    }

    pub(super) fn run_for<F>(
        &mut self,
        name: &ProjectName,
        session: Session,
        work: impl FnOnce(Task) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let span = info_span!("session", project = %name, session = %session.id());
        let task = Task {
            name: name.clone(),
            session,
            project: self.slot(name).project.clone(),
            folder: self.store.project_folder(name),
            reports: self.reporting.clone(),
        };
        self.running.spawn(work(task).instrument(span));
    }

    fn finish(&mut self, name: &ProjectName, outcome: Outcome) -> Notices {
        info!(project = %name, session = %outcome.session, ending = ?outcome.ending, report = ?outcome.report, "session over");
        let last_output = self.output(name).inspect_err(|error| {
            if let OutputError::Read { .. } = error {
                error!(project = %name, %error, "last output not readable");
            }
        });
        let over = Notice::Over {
            outcome,
            last_output: last_output.ok(),
        };
        let mut notices = vec![(name.clone(), over)];
        if mem::take(&mut self.slot(name).starts_when_over) {
            notices.extend(self.autostart(name));
        }
        notices
    }

    /// Writes the record. If that fails it is tried again later; the reason is the operating system's.
    pub(super) fn save(&mut self, name: &ProjectName) -> Result<(), String> {
        let slot = self.slots.entry(name.clone()).or_default();
        let saved = self.store.save(name, &slot.record);
        slot.save_again_at = saved.is_err().then(|| now().uptime + RETRY_AFTER);
        saved.map_err(|error| {
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            error!(project = %name, %error, source, "session record not saved, trying again");
            source
        })
    }

    pub(super) fn on_time(&mut self) -> Notices {
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now().uptime);
        let names: Vec<_> = self.slots.keys().cloned().collect();
        let mut notices = Vec::new();
        for name in &names {
            if is_due(self.slot(name).save_again_at) {
                drop(self.save(name));
            }
            if is_due(self.slot(name).next_wake()) {
                notices.extend(self.apply(name, Event::TimeCame));
            }
        }
        notices
    }
}

impl Slot {
    /// Updates the project's data after these effects.
    fn note(&mut self, effects: &[Effect]) {
        let session = self.record.session.as_ref();
        if session.is_some_and(|session| Phase::of(session) == Phase::AwaitingRestart) {
            self.starts_when_over = false;
        }
        for effect in effects {
            if let Effect::Notify(Notice::Redact(redaction)) = effect {
                self.record.add_redaction(redaction.clone());
            }
            if let Effect::Finish(_) = effect {
                self.record.session = None;
            }
        }
    }
}

//! Does what a session decides: writes it down first, then acts.

use std::mem;

use tracing::{error, info};

use super::{
    Action, Delivery, DeliveryId, Event, Notice, Outcome, OutputError, ProjectName, RemoteControl,
    Session, SessionId, Slot, Withdrawal, not_recorded,
    tasks::{self, Folder},
};

impl RemoteControl {
    /// Lets the session decide, writes down what it decided, and does it.
    pub(super) fn apply(&mut self, project: &ProjectName, event: Event) -> Vec<Notice> {
        let slot = self.slots.entry(project.clone()).or_default();
        let terms = slot.terms();
        let Some(session) = &mut slot.session else {
            return Vec::new();
        };
        let (before, withdrawals_before) = (session.clone(), slot.withdrawals.clone());
        let must_be_recorded = match &event {
            Event::LinkRequested(request)
            | Event::ResumeRequested(request)
            | Event::ExtensionRequested(request, _) => Some(request.clone()),
            // A stop is obeyed even if it cannot be written down; all else happened already.
            Event::StopRequested(_)
            | Event::Spawned(_)
            | Event::NotSpawned(_)
            | Event::LinkShown(_)
            | Event::LinkTimedOut(_)
            | Event::Exited(..)
            | Event::TreeGone(_)
            | Event::TimeCame
            | Event::Delivered { .. }
            | Event::Undeliverable { .. } => None,
        };
        let actions = session.on(event, &terms, tasks::now());
        if actions.is_empty() {
            return Vec::new();
        }
        log_transition(project, &before, session);
        let id = session.id().clone();
        slot.note(&id, &actions);
        if let Some(request) = must_be_recorded {
            if let Err(error) = self.save(project) {
                let slot = self.slots.entry(project.clone()).or_default();
                slot.session = Some(before);
                slot.withdrawals = withdrawals_before;
                // What could not be written to the end may stand there all the same.
                self.save_or_retry(project);
                return vec![not_recorded(project, request, &error)];
            }
        } else {
            self.save_or_retry(project);
        }
        self.perform(project, actions)
    }

    pub(super) fn perform(&mut self, name: &ProjectName, actions: Vec<Action>) -> Vec<Notice> {
        let slot = self.slots.get(name);
        let session = slot.and_then(|slot| slot.session.as_ref());
        self.tasks.wake(name, session);
        let all = actions.into_iter();
        all.flat_map(|action| self.perform_one(name, action))
            .collect()
    }

    fn perform_one(&mut self, name: &ProjectName, action: Action) -> Vec<Notice> {
        let project = name.clone();
        let slot = self.slots.entry(name.clone()).or_default();
        let session = slot.session.as_ref();
        match (action, session) {
            (Action::Finish(outcome), _) => return self.finish(name, outcome),
            (Action::Withdraw(deliveries), Some(session)) => {
                return withdraw_all(name, session.id(), &deliveries);
            }
            (Action::Deliver(delivery, link), Some(session)) => {
                let (session, number) = (session.id().clone(), delivery.number);
                let id = DeliveryId {
                    project,
                    session,
                    number,
                };
                let request = delivery.request;
                return vec![Notice::Deliver { id, request, link }];
            }
            (Action::RefuseWhileStopping(request), _) => {
                return vec![Notice::RefusedWhileStopping { project, request }];
            }
            (Action::Extended(request, left), _) => {
                return vec![Notice::Extended {
                    project,
                    request,
                    left,
                }];
            }
            (Action::Warn(holders, left), _) => {
                return vec![Notice::EndsSoon {
                    project,
                    holders,
                    left,
                }];
            }
            (Action::TellRestart(ending, rest), _) => {
                return vec![Notice::Restarting {
                    project,
                    ending,
                    rest,
                }];
            }
            (Action::Spawn, Some(session)) => {
                let folder = self.store.project_folder(name).map(|path| Folder {
                    path,
                    data_directory: self.store.id().to_owned(),
                });
                self.tasks
                    .spawn_process(name, session, slot.project.clone(), folder);
            }
            (Action::Watch(process), Some(session)) => {
                let folder = self.store.folder().join(name.as_str());
                self.tasks
                    .watch(name, session, process, slot.project.as_deref(), folder);
            }
            (Action::EndTree(process), Some(session)) => {
                let folder = self.store.folder().join(name.as_str());
                let project = slot.project.as_deref();
                self.tasks
                    .end_tree(name, session.id(), process, project, &folder);
            }
            (Action::Save, _)
            | (
                Action::Withdraw(_)
                | Action::Deliver(..)
                | Action::Spawn
                | Action::Watch(_)
                | Action::EndTree(_),
                None,
            ) => {}
        }
        Vec::new()
    }

    fn finish(&mut self, project: &ProjectName, outcome: Outcome) -> Vec<Notice> {
        info!(%project, session = %outcome.session, ending = ?outcome.ending, report = ?outcome.report, "session over");
        // The link is redacted before anyone reads that it is of no use any more.
        let mut notices = if outcome.had_link {
            withdraw_all(project, &outcome.session, &outcome.deliveries)
        } else {
            Vec::new()
        };
        let last_output = self.output(project).inspect_err(|error| match error {
            OutputError::None => {}
            OutputError::Read { .. } | OutputError::Folder(_) => {
                error!(%project, %error, "last output not readable");
            }
        });
        notices.push(Notice::Over {
            project: project.clone(),
            outcome,
            last_output: last_output.ok(),
        });
        let slot = self.slots.entry(project.clone()).or_default();
        if mem::take(&mut slot.starts_when_over) {
            notices.extend(self.autostart(project));
        }
        notices
    }
}

impl Slot {
    /// Takes over what the actions mean for the record.
    pub(super) fn note(&mut self, id: &SessionId, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Withdraw(deliveries) => note_withdrawals(self, id, deliveries),
                Action::Finish(outcome) => {
                    self.session = None;
                    self.not_ended = None;
                    if outcome.had_link {
                        note_withdrawals(self, id, &outcome.deliveries);
                    }
                }
                Action::TellRestart(..) => {
                    self.starts_when_over = false;
                    self.not_ended = None;
                }
                Action::Spawn
                | Action::Watch(_)
                | Action::EndTree(_)
                | Action::Deliver(..)
                | Action::Save
                | Action::RefuseWhileStopping(_)
                | Action::Extended(..)
                | Action::Warn(..) => {}
            }
        }
    }
}

fn note_withdrawals(slot: &mut Slot, session: &SessionId, deliveries: &[Delivery]) {
    for delivery in deliveries {
        slot.note_withdrawal(Withdrawal {
            session: session.clone(),
            delivery: delivery.clone(),
        });
    }
}

fn withdraw_all(
    project: &ProjectName,
    session: &SessionId,
    deliveries: &[Delivery],
) -> Vec<Notice> {
    let withdraw = |delivery: &Delivery| Notice::Withdraw {
        project: project.clone(),
        withdrawal: Withdrawal {
            session: session.clone(),
            delivery: delivery.clone(),
        },
    };
    deliveries.iter().map(withdraw).collect()
}

fn log_transition(project: &ProjectName, before: &Session, after: &Session) {
    if mem::discriminant(before.state()) != mem::discriminant(after.state()) {
        info!(%project, session = %after.id(), phase = ?after.phase(), "session changed");
    }
}

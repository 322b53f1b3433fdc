//! The one loop: messages and reports in, answers and deliveries out. It owns all sessions, and there are no locks.
//!
//! Whatever is slow (asking the homeserver, delivering, stopping) is a task that comes back as an event, so that a stop is
//! heard while a delivery waits for the homeserver.

mod connection;
mod courier;
mod data_dir;
mod desk;

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use data_dir::{DataDir, DataDirError};

use crate::{
    command::{
        Permit,
        reply::{self, Reply},
    },
    config::Config,
    link::Link,
    matrix::{Fault, Message, NotConfidential, Registration, ReplyTo},
    remote_control::{
        self, DeliveryId, Ending, Happened, Notice, Outcome, ProjectName, Receipt, RemoteControl,
        Request, StoreError, Withdrawal,
    },
};
use connection::Line;
use desk::{Desk, Verdict};

/// How many events may wait for the loop.
const EVENTS_WAITING: usize = 256;

/// How long tasks that talk to the homeserver may take to finish at the end: the whole end has to fit into two seconds.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(500);

/// Why the bot ended.
#[derive(Debug, thiserror::Error)]
pub enum BotError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The records of the sessions cannot be used.
    #[error("the session records cannot be used")]
    Records(#[from] StoreError),
    /// Matrix does not work, and waiting does not mend it.
    #[error("Matrix does not work")]
    Matrix(#[from] Fault),
}

/// What comes back from a task.
#[derive(Debug)]
enum Event {
    Judged(Message, Verdict),
    Delivered {
        id: DeliveryId,
        request: Request,
        receipt: Receipt,
    },
    Undeliverable {
        id: DeliveryId,
        request: Request,
        reason: NotConfidential,
    },
    /// The delivery was called off. If it had been tried, the link may have arrived.
    CalledOff {
        id: DeliveryId,
        request: Request,
        tried: bool,
    },
    Withdrawn {
        project: ProjectName,
        withdrawal: Withdrawal,
    },
}

/// Runs the bot until `shutdown`, which leaves the sessions running.
///
/// # Errors
/// [`BotError`], for what waiting does not mend.
pub async fn run(
    config: Config,
    registration: Registration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BotError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let config = Arc::new(config);
    let settings = remote_control::Settings {
        folder: data_dir.sessions(),
        host: host_name(),
        projects: config
            .projects
            .values()
            .map(|project| project.project.clone())
            .collect(),
    };
    let (remote_control, happened, notices) = RemoteControl::restore(settings)?;
    let (connecting, line, messages) =
        connection::open(Arc::clone(&config), registration, data_dir.matrix());
    let (events, incoming) = mpsc::channel(EVENTS_WAITING);
    let mut bot = Bot {
        desk: Desk::new(&config),
        config,
        remote_control,
        line: line.clone(),
        events,
        deliveries: HashMap::new(),
        tasks: JoinSet::new(),
    };
    bot.heed(notices);
    let result = tokio::select! {
        fault = connecting => Err(BotError::from(fault)),
        () = bot.serve(messages, incoming, happened) => Ok(()),
        () = shutdown => {
            info!("ending; sessions go on");
            Ok(())
        }
    };
    bot.leave().await;
    result
}

/// This host's name, for the titles of sessions and the people who read about them.
fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "unknown-host".to_owned())
}

struct Bot {
    config: Arc<Config>,
    remote_control: RemoteControl,
    line: Line,
    desk: Desk,
    events: mpsc::Sender<Event>,
    /// Deliveries under way, and how to call them off.
    deliveries: HashMap<DeliveryId, CancellationToken>,
    tasks: JoinSet<()>,
}

impl Bot {
    async fn serve(
        &mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: mpsc::Receiver<Event>,
        mut happened: mpsc::Receiver<Happened>,
    ) {
        loop {
            tokio::select! {
                Some(message) = messages.recv() => self.take_in(message),
                Some(event) = events.recv() => self.on(event),
                Some(report) = happened.recv() => {
                    let notices = self.remote_control.handle(report);
                    self.heed(notices);
                }
                else => return,
            }
        }
    }

    /// Ends: what is being said may be said to the end, if that is soon.
    async fn leave(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        drop(timeout(FAREWELL, all).await);
        self.line.close().await;
    }

    fn take_in(&mut self, message: Message) {
        if let Some(case) = self.desk.take_in(message, &self.remote_control.status()) {
            self.spawn(desk::judge(self.line.clone(), case));
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Judged(message, verdict) => {
                if let Some(case) = self
                    .desk
                    .next_of(&message.sender, &self.remote_control.status())
                {
                    self.spawn(desk::judge(self.line.clone(), case));
                }
                self.obey(&message, verdict);
            }
            Event::Delivered {
                id,
                request,
                receipt,
            } => {
                self.deliveries.remove(&id);
                self.answer(&request, &reply::running(&id.project));
                let notices = self.remote_control.delivered(id, request, receipt);
                self.heed(notices);
            }
            Event::Undeliverable {
                id,
                request,
                reason,
            } => {
                self.deliveries.remove(&id);
                warn!(project = %id.project, session = %id.session, ?reason, "link not delivered");
                self.answer(&request, &reply::undeliverable(&id.project, &reason));
                let notices = self.remote_control.undeliverable(&id);
                self.heed(notices);
            }
            Event::CalledOff { id, request, tried } => {
                self.deliveries.remove(&id);
                let withdrawal = withdrawal_of(&id, request);
                if tried {
                    self.withdraw(&id.project, withdrawal);
                } else {
                    self.remote_control.withdrawn(&id.project, &withdrawal);
                }
            }
            Event::Withdrawn {
                project,
                withdrawal,
            } => self.remote_control.withdrawn(&project, &withdrawal),
        }
    }

    fn obey(&mut self, message: &Message, verdict: Verdict) {
        let sender = &message.sender;
        match verdict {
            Verdict::Denied(denied) => {
                // Once a minute in the log too, so that nobody fills it.
                if self.desk.may_answer_denial(sender) {
                    info!(%sender, ?denied, "command denied");
                    self.say(message, &reply::denied(&denied));
                }
            }
            Verdict::Misused(misuse) => self.say(
                message,
                &reply::misuse(&self.config.command_prefix, &misuse),
            ),
            Verdict::CannotDeliver(project, reason) => {
                info!(%sender, %project, ?reason, "not started, the link could not be delivered");
                self.say(message, &reply::undeliverable(&project, &reason));
            }
            Verdict::Start(permit, project) => {
                let notices = self
                    .remote_control
                    .start(&project, request(&permit, message));
                self.heed(notices);
            }
            Verdict::Stop(permit, project) => {
                let notices = self
                    .remote_control
                    .stop(&project, request(&permit, message));
                self.heed(notices);
            }
            Verdict::Status => {
                self.say(
                    message,
                    &reply::status(&self.remote_control.status(), SystemTime::now()),
                );
            }
            Verdict::Help => self.say(message, &reply::help(&self.config.command_prefix)),
        }
    }

    fn heed(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Deliver { id, request, link } => self.deliver(id, request, link),
                Notice::Withdraw {
                    project,
                    withdrawal,
                } => self.withdraw(&project, withdrawal),
                Notice::Over { project, outcome } => self.tell_the_end(&project, &outcome),
                Notice::NoSession { project, request } => {
                    self.answer(&request, &reply::no_session(&project));
                }
                Notice::RefusedWhileStopping { project, request } => {
                    self.answer(&request, &reply::stopping(&project));
                }
                Notice::NotRecorded {
                    project,
                    request,
                    reason,
                } => {
                    self.answer(&request, &reply::not_recorded(&project, &reason));
                }
            }
        }
    }

    fn deliver(&mut self, id: DeliveryId, request: Request, link: Link) {
        let called_off = CancellationToken::new();
        self.deliveries.insert(id.clone(), called_off.clone());
        let words = reply::around_link(&self.config.command_prefix, &id.project, &host_name());
        let delivery = courier::Delivery {
            id,
            request,
            link,
            words,
        };
        self.spawn(courier::deliver(self.line.clone(), delivery, called_off));
    }

    /// A link that is still under way is called off first; how that went decides what there is to take back.
    fn withdraw(&mut self, project: &ProjectName, withdrawal: Withdrawal) {
        let id = DeliveryId {
            project: project.clone(),
            session: withdrawal.session.clone(),
            number: withdrawal.delivery.number,
        };
        match self.deliveries.get(&id) {
            Some(called_off) if withdrawal.delivery.receipt.is_none() => called_off.cancel(),
            _ => self.spawn(courier::withdraw(self.line.clone(), id, withdrawal)),
        }
    }

    fn tell_the_end(&mut self, project: &ProjectName, outcome: &Outcome) {
        for request in &outcome.stop_requests {
            self.answer(
                request,
                &reply::stopped(project, &outcome.ending, outcome.report.as_ref()),
            );
        }
        let (arrived, waiting): (Vec<_>, Vec<_>) = outcome
            .deliveries
            .iter()
            .partition(|delivery| delivery.receipt.is_some());
        for delivery in waiting {
            let answer = if outcome.had_link {
                reply::ended_before_delivery(project)
            } else {
                reply::not_started(project, &outcome.ending)
            };
            self.answer(&delivery.request, &answer);
        }
        if outcome.had_link && matches!(outcome.ending, Ending::Exited { .. }) {
            self.announce(&reply::ended_by_itself(project, &outcome.ending));
        }
        let mut told: Vec<_> = arrived
            .iter()
            .map(|delivery| delivery.request.requester.as_str())
            .collect();
        told.sort_unstable();
        told.dedup();
        for user in told {
            self.spawn_quiet(courier::tell(
                self.line.clone(),
                user.to_owned(),
                reply::link_is_void(project),
            ));
        }
    }

    fn say(&mut self, message: &Message, text: &Reply) {
        self.spawn_quiet(courier::say(
            self.line.clone(),
            text.clone(),
            Some(message.into()),
        ));
    }

    /// Answers a request, perhaps one of before a restart.
    fn answer(&mut self, request: &Request, text: &Reply) {
        match serde_json::from_str::<ReplyTo>(&request.reference) {
            Ok(reply_to) => self.spawn_quiet(courier::say(
                self.line.clone(),
                text.clone(),
                Some(reply_to),
            )),
            Err(error) => error!(%error, "a request in the records cannot be answered"),
        }
    }

    fn announce(&mut self, text: &Reply) {
        self.spawn_quiet(courier::say(self.line.clone(), text.clone(), None));
    }

    fn spawn(&mut self, task: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        self.spawn_quiet(async move {
            let event = task.await;
            // Without a loop there is nobody to tell; the record on disk has what the next run needs.
            drop(events.send(event).await);
        });
    }

    fn spawn_quiet(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        // Tasks that ended are forgotten here, so that their number stays that of what goes on.
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }
}

fn request(permit: &Permit, message: &Message) -> Request {
    let reference = serde_json::to_string(&ReplyTo::from(message)).unwrap_or_default();
    Request {
        requester: permit.requester().to_string(),
        reference,
    }
}

fn withdrawal_of(id: &DeliveryId, request: Request) -> Withdrawal {
    let delivery = remote_control::Delivery {
        number: id.number,
        request,
        receipt: None,
    };
    Withdrawal {
        session: id.session.clone(),
        delivery,
    }
}

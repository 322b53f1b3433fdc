//! The one loop: messages and reports in, answers and deliveries out.
//!
//! Invariant: it owns all sessions, there are no locks, and it waits for nothing but the next event. Whatever is slow
//! (asking the homeserver, delivering, stopping) is a task that comes back as an event, so that a stop is heard while a
//! delivery waits for the homeserver.

mod answer;
mod audit;
mod connection;
mod deliver;
mod doctor;
mod execute;
mod hosts;
mod judge;
mod local;
mod notices;
mod orders;
mod picture;
mod queue;
mod rate;
mod reply_target;
mod service_manager;
mod typing;

use std::{
    collections::HashMap, future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use local::{OperatorError, ask_for_identity, ask_to_stop, ask_to_trust};
pub use service_manager::tell_failure;

use crate::{
    command::reply::{self, Secret},
    config::Config,
    data_dir::DataDir,
    matrix::{Announcement, Fault, Heard, Login, MatrixFolder, Message, SentLink, Sound},
    remote_control::{
        self, DeliveryId, ProjectName, Redaction, RemoteControl, Request, RestoreError,
        TaskPanicked,
    },
};
use audit::{Audit, Conclusion};
use connection::{Hearing, MatrixHandle};
use deliver::NotDelivered;
use judge::Decision;
use local::{Answer, Operator};
use queue::Queue;
use service_manager::{ServiceManager, State};

/// How many events may wait for the loop.
const EVENTS_WAITING: usize = 256;

/// How long tasks that talk to the homeserver may take to finish at the end: the whole end has to fit into two seconds.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why the bot ended.
#[derive(Debug, thiserror::Error)]
pub enum BotError {
    /// Sessions cannot be restored.
    #[error("the sessions of this host cannot be restored")]
    Restore(#[from] RestoreError),
    /// Matrix does not work, and waiting does not mend it.
    #[error("Matrix does not work")]
    Matrix(#[from] Fault),
    /// A task failed by a bug, so that what waits for it would wait for ever. The next run takes up what is on disk.
    #[error(
        "a part of rcbot failed, which is a bug: see above in the log; sessions go on, start rcbot again"
    )]
    Panicked,
    /// The same, in the midst of looking after sessions.
    #[error(
        "a part of rcbot failed, which is a bug: see above in the log; sessions go on, start rcbot again"
    )]
    Unwatched(#[from] TaskPanicked),
}

/// What comes back from a task.
#[derive(Debug)]
enum Event {
    Judged(Message, Decision),
    Delivered {
        id: DeliveryId,
        request: Request,
        sent: SentLink,
    },
    Pictured(picture::Settled),
    /// If it had been tried, the link may have arrived all the same.
    Undeliverable {
        id: DeliveryId,
        request: Request,
        obstacle: NotDelivered,
        tried: bool,
    },
    /// The delivery was called off. If it had been tried, the link may have arrived.
    CalledOff {
        id: DeliveryId,
        request: Request,
        tried: bool,
    },
    Redacted {
        project: ProjectName,
        redaction: Redaction,
    },
    /// The requester's last lines of output are in the direct message, or cannot get there.
    Shown {
        project: ProjectName,
        request: Request,
        result: Result<(), NotDelivered>,
    },
    /// The report is in the requester's direct message, or cannot get there.
    Examined {
        message: Message,
        result: Result<(), doctor::NoReport>,
    },
}

/// Runs the bot until `shutdown`, which leaves the sessions running. What it has begun may go on for a moment, so the data
/// directory has to be kept until the runtime has ended.
///
/// # Errors
/// [`BotError`], for what waiting does not mend.
pub async fn run(
    config: Config,
    login: Login,
    data_dir: &DataDir,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BotError> {
    let config = Arc::new(config);
    let settings = remote_control::Settings {
        folder: data_dir.sessions(),
        host: hosts::own_name(&config).to_string(),
        projects: config
            .projects
            .values()
            .map(|project| project.project.clone())
            .collect(),
        max_sessions: config.limits.max_sessions,
    };
    let (remote_control, notices) = RemoteControl::restore(settings)?;
    let (connecting, line, heard) = connection::open(
        Arc::clone(&config),
        login,
        MatrixFolder::new(data_dir.matrix()),
    );
    let (events, mut incoming) = mpsc::channel(EVENTS_WAITING);
    let operator = Operator::listen(&data_dir.socket());
    let mut bot = Bot::new(config, remote_control, line.clone(), events);
    let announcing = hosts::keep_announced(line.clone(), bot.announced.subscribe());
    let typing = typing::show(line, bot.answer_is_due.subscribe());
    bot.handle_restored(notices);
    let running = async {
        tokio::select! {
            fault = connecting => Err(BotError::from(fault)),
            error = bot.serve(heard, &mut incoming, operator) => Err(error),
            () = announcing => Ok(()),
            () = typing => Ok(()),
            () = shutdown => {
                info!("ending; sessions go on");
                Ok(())
            }
        }
    };
    let result = catch_panic(running).await;
    bot.service_manager.tell_the_end();
    bot.leave(&mut incoming).await;
    result
}

/// A panic is an end like any other: what is on disk is whole at each step.
async fn catch_panic(running: impl Future<Output = Result<(), BotError>>) -> Result<(), BotError> {
    let result = AssertUnwindSafe(running).catch_unwind().await;
    result.unwrap_or(Err(BotError::Panicked))
}

struct Bot {
    config: Arc<Config>,
    /// What other hosts are to know of this one, where there are any.
    announced: watch::Sender<Option<Announcement>>,
    /// Whether somebody waits for an answer that takes a while.
    answer_is_due: watch::Sender<bool>,
    remote_control: RemoteControl,
    line: MatrixHandle,
    queue: Queue,
    audit: Audit,
    events: mpsc::Sender<Event>,
    /// Deliveries under way, and how to call them off.
    deliveries: HashMap<DeliveryId, CancellationToken>,
    /// Orders of the operator on the host that wait for their answer, by number.
    stop_orders: HashMap<u64, Answer>,
    /// Whether everything that a start needs is being tried.
    is_examining: bool,
    tasks: JoinSet<()>,
    service_manager: ServiceManager,
}

impl Bot {
    fn new(
        config: Arc<Config>,
        remote_control: RemoteControl,
        line: MatrixHandle,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            announced: watch::Sender::new(None),
            answer_is_due: watch::Sender::new(false),
            queue: Queue::new(&config),
            audit: Audit::new(),
            config,
            remote_control,
            line,
            events,
            deliveries: HashMap::new(),
            stop_orders: HashMap::new(),
            is_examining: false,
            tasks: JoinSet::new(),
            service_manager: ServiceManager::of_this_process(),
        }
    }

    /// Serves until a task fails by a bug.
    async fn serve(
        &mut self,
        mut heard: Hearing,
        events: &mut mpsc::Receiver<Event>,
        mut operator: Operator,
    ) -> BotError {
        loop {
            self.announce_host();
            self.note_answers_due();
            self.tell_service_manager(*heard.homeserver_answers.borrow_and_update());
            tokio::select! {
                Some(heard) = heard.messages.recv() => self.take_in(heard),
                Ok(()) = heard.homeserver_answers.changed() => {}
                () = self.service_manager.keep_alive() => {}
                Some(event) = events.recv() => self.on(event),
                happened = self.remote_control.next() => match happened {
                    Ok(happened) => {
                        let notices = self.remote_control.handle(happened);
                        self.handle(notices);
                    }
                    Err(panicked) => return panicked.into(),
                },
                () = next_panic(&mut self.tasks) => return BotError::Panicked,
                ordered = operator.next() => self.carry_out_order(ordered),
            }
        }
    }

    fn note_answers_due(&self) {
        let due = self.remote_control.owes_answers() || self.is_examining;
        self.answer_is_due
            .send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    fn tell_service_manager(&mut self, homeserver_answers: bool) {
        if self.service_manager.listens() {
            let statuses = self.remote_control.status();
            let sessions = statuses.iter().filter(|status| status.session.is_some());
            self.service_manager.tell(State {
                sessions: sessions.count(),
                homeserver_answers,
            });
        }
    }

    /// Only a host that has a name in the configuration shares the room with others.
    fn announce_host(&self) {
        let Some(host) = &self.config.host else {
            return;
        };
        let announcement = Some(hosts::announcement(host, &self.remote_control.status()));
        self.announced.send_if_modified(|announced| {
            let changed = *announced != announcement;
            *announced = announcement;
            changed
        });
    }

    /// Ends: what is being said may be said to the end, if that is soon, and what comes of it is written down, above all where a
    /// link is. No further command is obeyed.
    async fn leave(mut self, events: &mut mpsc::Receiver<Event>) {
        let all = async {
            loop {
                tokio::select! {
                    biased;
                    Some(event) = events.recv() => match event {
                        Event::Judged(..) => {}
                        event => self.on(event),
                    },
                    ended = self.tasks.join_next() => if ended.is_none() {
                        break;
                    },
                }
            }
        };
        drop(timeout(FAREWELL, all).await);
        self.line.close().await;
    }

    fn take_in(&mut self, heard: Heard) {
        let message = match heard {
            Heard::Message(message) => message,
            Heard::IdentityChanged { user } => {
                if self.queue.may_tell_identity(&user) {
                    self.announce(&reply::identity_changed(&user));
                }
                return;
            }
            Heard::DirectMessage { sender } => {
                if self.queue.may_hint(&sender) {
                    let config = &self.config;
                    let text =
                        reply::commands_count_elsewhere(&config.command_prefix, &config.admin_room);
                    self.tell(sender.as_str(), &text, Sound::Silent);
                }
                return;
            }
            Heard::AdminRoomMoved => return self.announce(&reply::moved_here()),
            Heard::Undecryptable { sender, reply_to } => {
                if self.queue.may_tell_undecryptable(&sender) {
                    let text = reply::undecryptable();
                    self.spawn_quiet(deliver::say(self.line.clone(), text, Some(reply_to)));
                }
                return;
            }
        };
        if let Err(excess) = self.queue.count(&message.sender) {
            return self.turn_away(&message, excess);
        }
        if let Some(case) = self.queue.take_in(message, &self.remote_control.status()) {
            self.spawn(judge::judge(self.line.clone(), case));
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Judged(message, verdict) => {
                self.execute(&message, verdict);
                // What the sender said next is looked at in the light of what this came to.
                let statuses = self.remote_control.status();
                if let Some(case) = self.queue.next_of(&message.sender, &statuses) {
                    self.spawn(judge::judge(self.line.clone(), case));
                }
            }
            Event::Delivered { id, request, sent } => {
                self.deliveries.remove(&id);
                for request in self.remote_control.requests(&id, &request) {
                    let text = reply::running(&id.project);
                    self.answer(&id.project, &request, &text, &Conclusion::new("link sent"));
                }
                let is_wanted = self.remote_control.wants(&id);
                let receipt = sent.receipt().to_string();
                let notices = self
                    .remote_control
                    .delivered(id.clone(), request.clone(), receipt);
                self.handle(notices);
                if is_wanted {
                    self.follow_with_picture(id, request, sent);
                }
            }
            Event::Undeliverable {
                id,
                request,
                obstacle,
                tried,
            } => {
                self.deliveries.remove(&id);
                let notices = self
                    .remote_control
                    .called_off(id.clone(), request.clone(), tried);
                self.handle(notices);
                self.give_up(&id, &request, &obstacle);
            }
            Event::Pictured(settled) => self.on_pictured(settled),
            Event::CalledOff { id, request, tried } => {
                self.deliveries.remove(&id);
                let notices = self.remote_control.called_off(id, request, tried);
                self.handle(notices);
            }
            Event::Redacted { project, redaction } => {
                self.remote_control.redacted(&project, &redaction);
            }
            Event::Shown {
                project,
                request,
                result,
            } => match result {
                Ok(()) => {
                    let text = reply::output_sent(&project);
                    self.answer(&project, &request, &text, &Conclusion::new("output sent"));
                }
                Err(obstacle) => self.explain(Secret::Output(&project), &request, &obstacle),
            },
            Event::Examined { message, result } => self.on_examined(&message, result),
        }
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
        self.tasks.spawn(task);
    }
}

/// Waits for a task that panics, and forgets those that end well, so that their number stays that of what goes on.
async fn next_panic(tasks: &mut JoinSet<()>) {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => return,
            Some(Ok(()) | Err(_)) => {}
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests;

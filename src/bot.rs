//! The one loop: messages and reports in, answers and deliveries out.
//!
//! Invariant: it owns all sessions, there are no locks, and it waits for nothing but the next event. Whatever is slow
//! (asking the homeserver, delivering, stopping) is a task that comes back as an event, so that a stop is handled while a
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
mod logs;
mod notices;
mod projects;
mod queue;
mod service_manager;

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use matrix_sdk::ruma::{OwnedEventId, OwnedUserId};
use nix::unistd::{User, geteuid};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub(crate) use local::{OperatorError, ask_for_identity, ask_to_stop, ask_to_trust};
pub(crate) use service_manager::report_failure;

use crate::{
    command::reply::{self, NoLongerFollowed},
    config::{Config, Found},
    data_dir::{DataDir, MATRIX, SESSIONS, SOCKET},
    matrix::{
        Announcement, Arrival, Fault, IncomingEvent, Login, MatrixFolder, Message, SentLink, Sound,
    },
    remote_control::{
        self, DeliveryId, ProjectName, Redaction, RemoteControl, RestoreError, TaskPanicked,
    },
};
use connection::{Inbound, MatrixHandle};
use deliver::{Delivery, NotDelivered, Pictured, Shown, Trigger};
use doctor::EndingLogins;
use hosts::Signals;
use judge::{Decision, Snapshot};
use local::{Answer, Order};
use logs::Follow;
use projects::Projects;
use queue::{Limited, Limits, Queue};
use service_manager::ServiceManager;

/// How long tasks that talk to the homeserver may run on at shutdown, which as a whole has to fit into two seconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub(crate) enum BotError {
    #[error("the sessions of this host cannot be restored")]
    Restore(#[from] RestoreError),
    #[error("the Matrix connection failed for good")]
    Matrix(#[from] Fault),
    /// A task panicked, so what waits for it would hang. The next run restores what is on disk.
    #[error(
        "internal error, please report it with the log lines above. Sessions keep running: restart rcbot"
    )]
    Panicked,
}

/// What a task reports to the loop.
#[derive(Debug)]
enum Event {
    Judged(Message, Decision),
    /// A link was sent. An error without a reason: that was cancelled.
    Delivered(Box<Delivery>, Result<SentLink, Option<NotDelivered>>),
    Pictured(Pictured),
    Redacted(ProjectName, Redaction),
    LookedBelowRoots(Found),
    LoginsEnd(EndingLogins),
    Shown(Shown),
}

/// Runs the bot until `shutdown`, which leaves the sessions running. Its work may go on for a moment, so keep `data_dir` until
/// the runtime has ended.
pub(crate) async fn run(
    config: Config,
    login: Login,
    data_dir: &DataDir,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BotError> {
    let config = Arc::new(config);
    let projects = config.projects.values();
    let projects = projects.map(|configured| configured.project.clone());
    let settings = remote_control::Settings {
        folder: data_dir.path().join(SESSIONS),
        host: hosts::own_name(&config).to_string(),
        projects: projects.collect(),
        max_sessions: config.max_sessions,
    };
    let mut projects = Projects::new(Arc::clone(&config));
    let (remote_control, notices) =
        RemoteControl::restore(settings, |name| projects.find_at_start(name))?;
    let (connecting, matrix, inbound) = connection::open(
        Arc::clone(&config),
        login,
        MatrixFolder::new(data_dir.path().join(MATRIX)),
    );
    let (orders, mut ordered) = mpsc::channel(local::ORDERS_WAITING);
    let listening = local::listen(data_dir.path().join(SOCKET), orders);
    let mut bot = Bot::new(projects, remote_control, matrix.clone());
    let announcing = hosts::keep_announced(
        matrix.clone(),
        bot.announced.subscribe(),
        bot.signals.clone(),
    );
    let typing = answer::show_typing(matrix, bot.answer_is_due.subscribe());
    bot.handle_all(notices, Trigger::Restore, None);
    let running = async {
        tokio::select! {
            Err(fault) = connecting => Err(BotError::from(fault)),
            error = bot.serve(inbound, &mut ordered) => Err(error),
            never = announcing => match never {},
            never = listening => match never {},
            () = typing => Ok(()),
            () = shutdown => {
                info!("ending; sessions go on");
                Ok(())
            }
        }
    };
    let result = catch_panic(running).await;
    service_manager::report_stopping();
    bot.shut_down().await;
    result
}

/// Turns a panic into an error: what is on disk is consistent at each step.
async fn catch_panic(running: impl Future<Output = Result<(), BotError>>) -> Result<(), BotError> {
    let result = AssertUnwindSafe(running).catch_unwind().await;
    result.unwrap_or(Err(BotError::Panicked))
}

struct Bot {
    config: Arc<Config>,
    projects: Projects,
    /// What is below the roots, as announced to other hosts. `None`: not read yet.
    below_roots: Option<Found>,
    /// What is announced to other hosts, if this one has a name.
    announced: watch::Sender<Option<Announcement>>,
    signals: watch::Sender<Signals>,
    /// Whether somebody waits for an answer that takes a while.
    answer_is_due: watch::Sender<bool>,
    remote_control: RemoteControl,
    matrix: MatrixHandle,
    /// The system user that the bot and its sessions run as.
    system_user: Option<String>,
    queue: Queue,
    /// The latest executed commands: an edit of one is ignored.
    executed: VecDeque<OwnedEventId>,
    limits: Limits,
    /// Deliveries under way, and how to cancel them.
    deliveries: HashMap<DeliveryId, CancellationToken>,
    /// Orders of the operator on the host that await an answer, by number.
    stop_orders: HashMap<u64, Answer>,
    /// Whether `doctor` is running its checks.
    is_examining: bool,
    /// The logs that are followed; each person follows one at most.
    follows: HashMap<OwnedUserId, Follow>,
    /// What takes a while. `None`: nobody needs the result.
    tasks: JoinSet<Option<Event>>,
    service_manager: ServiceManager,
}

impl Bot {
    fn new(projects: Projects, remote_control: RemoteControl, matrix: MatrixHandle) -> Self {
        let config = Arc::clone(&projects.config);
        let system_user = User::from_uid(geteuid()).ok().flatten();
        Self {
            projects,
            below_roots: None,
            announced: watch::Sender::new(None),
            signals: watch::Sender::default(),
            answer_is_due: watch::Sender::new(false),
            queue: Queue::default(),
            executed: VecDeque::new(),
            limits: Limits::new(config.commands_per_minute),
            config,
            remote_control,
            matrix,
            system_user: system_user.map(|user| user.name),
            deliveries: HashMap::new(),
            stop_orders: HashMap::new(),
            is_examining: false,
            follows: HashMap::new(),
            tasks: JoinSet::new(),
            service_manager: ServiceManager::of_this_process(),
        }
    }

    /// Serves until a task panics.
    async fn serve(
        &mut self,
        mut inbound: Inbound,
        orders: &mut mpsc::Receiver<(Order, Answer)>,
    ) -> BotError {
        // By the host's uptime: logins end also while a laptop sleeps, in which a timer stops.
        let mut logins_due = Duration::ZERO;
        let mut looks = interval(projects::LOOKS_EVERY);
        // After a pause of the whole process, one look is enough.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let announces_roots = self.config.host.is_some() && self.projects.has_roots();
        loop {
            self.note_answers_due();
            self.report_to_service_manager(*inbound.homeserver_answers.borrow_and_update());
            tokio::select! {
                Some(event) = inbound.messages.recv() => self.receive(event),
                Ok(()) = inbound.homeserver_answers.changed() => {}
                () = self.service_manager.keep_alive() => {}
                () = remote_control::uptime_reached(Some(logins_due)) => {
                    logins_due = remote_control::now().uptime + doctor::LOOKS_EVERY;
                    self.look_at_logins();
                }
                _ = looks.tick(), if announces_roots => self.look_below_roots(),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Some(event)) => self.on(event),
                    Ok(None) => {}
                    // None is ever cancelled.
                    Err(_) => return BotError::Panicked,
                },
                happened = self.remote_control.next() => match happened {
                    Ok(happened) => {
                        let notices = self.remote_control.handle(happened);
                        self.handle(notices);
                    }
                    Err(TaskPanicked) => return BotError::Panicked,
                },
                Some((order, answer)) = orders.recv() => self.execute_order(order, answer),
            }
        }
    }

    fn note_answers_due(&self) {
        let due = self.remote_control.has_unanswered_requests() || self.is_examining;
        self.answer_is_due
            .send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    fn report_to_service_manager(&mut self, homeserver_answers: bool) {
        let statuses = self.remote_control.status();
        let sessions = statuses.iter().filter(|status| status.session.is_some());
        self.service_manager
            .report(sessions.count(), homeserver_answers);
    }

    /// Lets tasks finish for a moment and records their results, above all where a link is. No further command is judged.
    async fn shut_down(mut self) {
        self.end_follows(None, NoLongerFollowed::BotEnds);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    // It counts already, so the next run would not execute it.
                    Ok(Some(Event::Judged(message, decision))) => self.execute(&message, decision),
                    Ok(Some(event)) => self.on(event),
                    Ok(None) | Err(_) => {}
                }
            }
        };
        drop(timeout(SHUTDOWN_TIMEOUT, all).await);
        self.matrix.close().await;
    }

    fn receive(&mut self, event: IncomingEvent) {
        match event {
            IncomingEvent::Message(message) if self.is_within_limit(&message) => {
                let first = self.queue.push(message);
                self.judge(first);
            }
            IncomingEvent::Message(message) => self.reject_excess(&message),
            IncomingEvent::IdentityChanged { user } => {
                if self.limits.allow(Limited::IdentityChange, &user) {
                    self.announce(&reply::identity_changed(&user));
                }
            }
            IncomingEvent::DirectMessage { sender } => {
                if self.limits.allow(Limited::Hint, &sender) {
                    let config = &self.config;
                    let text =
                        reply::commands_count_elsewhere(&config.command_prefix, &config.admin_room);
                    self.notify(sender.as_str(), &text, Sound::Silent);
                }
            }
            IncomingEvent::HostSignal(signal) => self.on_signal(signal),
            IncomingEvent::PictureWanted { sender, message } => {
                self.send_picture(&sender, &message);
            }
            IncomingEvent::InAdminRoom(Arrival::Joined) => {
                let config = &self.config;
                let text = reply::greeting(
                    &config.command_prefix,
                    &hosts::own_name(config),
                    config.encryption.devices,
                );
                self.announce(&text);
            }
            IncomingEvent::InAdminRoom(Arrival::Moved) => {
                // An upgrade does not take the announcement of this host along.
                self.announced.send_modify(|_| {});
                self.announce(&reply::moved_here());
            }
            IncomingEvent::Undecryptable {
                sender,
                devices,
                reply_to,
            } => {
                let with_these = Limited::Undecryptable { devices };
                if self.limits.allow(with_these, &sender)
                    && self.limits.allow(Limited::UndecryptableByAny, &sender)
                {
                    self.say_for_all(&reply::undecryptable(), reply_to);
                }
            }
        }
    }

    /// Whether the sender is within their rate limit. Edits have a separate one: what cannot be executed uses up no command.
    fn is_within_limit(&mut self, message: &Message) -> bool {
        let what = match message.edits {
            Some(_) => Limited::Edit,
            None => Limited::Command,
        };
        self.limits.allow(what, &message.sender)
    }

    fn judge(&mut self, message: Option<Message>) {
        if let Some(message) = message {
            let edits = message.edits.as_ref();
            let known = Snapshot {
                edits_executed: edits.is_some_and(|edits| self.executed.contains(edits)),
                projects: self.projects.clone(),
                statuses: self.remote_control.status(),
                announced: self.announced.borrow().clone(),
                signals: self.signals.clone(),
            };
            let matrix = self.matrix.clone();
            self.spawn(async move { judge::judge(matrix, &known, message).await });
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Judged(message, decision) => {
                self.execute(&message, decision);
                // The sender's next message is judged after the effects of this one.
                let next = self.queue.next_of(&message.sender);
                self.judge(next);
            }
            Event::Delivered(delivery, result) => self.on_delivered(*delivery, result),
            Event::Pictured(pictured) => self.on_pictured(pictured),
            Event::LookedBelowRoots(found) => self.on_looked(found),
            Event::LoginsEnd(logins) => self.on_logins_end(logins),
            Event::Redacted(project, done) => self.remote_control.redacted(&project, &done),
            Event::Shown(shown) => self.on_shown(shown),
        }
    }

    fn spawn(&mut self, task: impl Future<Output = Event> + Send + 'static) {
        self.tasks.spawn(async move { Some(task.await) });
    }

    fn spawn_quiet(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            None
        });
    }
}

#[cfg(test)]
mod tests;

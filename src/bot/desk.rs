//! Where commands are looked at: one at a time for each sender, in the order in which they were sent, and never in the
//! sync loop.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use tokio::time::sleep;
use tracing::{debug, error, warn};

use super::{
    Event,
    connection::Line,
    hosts,
    rate::{Excess, Rate},
};
use crate::{
    command::{self, Command, Denied, Misuse, Permit, Policy, authorize::authorize, hosts::Turn},
    config::Config,
    matrix::{Announcement, Chain, Fault, Matrix, Message, NotConfidential, NotSent},
    remote_control::{Beginning, ProjectName, Status},
};

/// How many commands of one sender may wait. Nobody types so fast; a script may.
const WAITING_PER_SENDER: usize = 100;

/// A denial is answered once per user in this time.
const DENIALS_APART: Duration = Duration::from_mins(1);

/// Who cannot be understood is told so once in this time: not all that people say to one another is meant for the bot.
const UNDECRYPTABLE_APART: Duration = Duration::from_hours(1);

/// Who chats with the bot is told what it is once in this time.
const HINTS_APART: Duration = Duration::from_hours(1);

/// How often a homeserver that does not answer is asked for the facts. The SDK repeats each request a few times besides.
const TRIES: u32 = 3;

/// What a command means here and now.
#[derive(Debug, Clone)]
pub(super) enum Intent {
    Start(ProjectName, Beginning),
    Stop(ProjectName),
    Extend(ProjectName, Duration),
    Logs(ProjectName),
    /// An overview, with what other hosts announce.
    Status {
        elsewhere: Vec<Announcement>,
    },
    Doctor,
    Help,
}

impl Intent {
    /// What it is about, if it is about one project.
    pub(super) fn project(&self) -> Option<&ProjectName> {
        match self {
            Self::Start(project, _)
            | Self::Stop(project)
            | Self::Extend(project, _)
            | Self::Logs(project) => Some(project),
            Self::Status { .. } | Self::Doctor | Self::Help => None,
        }
    }
}

/// A command, and all that judging it takes but the homeserver's word.
#[derive(Debug)]
pub(super) struct Case {
    message: Message,
    command: Result<Command, Misuse>,
    statuses: Vec<Status>,
    config: Arc<Config>,
}

/// What comes of a command.
#[derive(Debug)]
pub(super) enum Verdict {
    Denied(Denied),
    Misused(Misuse),
    CannotDeliver(ProjectName, NotConfidential),
    Do(Permit, Intent),
    /// The bot of another host answers.
    NotOurs,
}

/// The commands that wait, and the denials that were answered.
pub(super) struct Desk {
    config: Arc<Config>,
    /// A sender with an entry has a command under judgement; those behind it wait.
    waiting: HashMap<OwnedUserId, VecDeque<Message>>,
    denials: HashMap<OwnedUserId, Instant>,
    undecryptable: HashMap<OwnedUserId, Instant>,
    hints: HashMap<OwnedUserId, Instant>,
    rate: Rate,
}

impl Desk {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            waiting: HashMap::new(),
            denials: HashMap::new(),
            undecryptable: HashMap::new(),
            hints: HashMap::new(),
            rate: Rate::new(config.limits.commands_per_minute),
        }
    }

    /// Counts a message of this user. Nothing is asked of the homeserver for one that is too many.
    ///
    /// # Errors
    /// [`Excess`].
    pub(super) fn count(&mut self, sender: &UserId) -> Result<(), Excess> {
        self.rate.count(sender, Instant::now())
    }

    /// Takes a message in; gives it back as a case if it is the sender's turn.
    pub(super) fn take_in(&mut self, message: Message, statuses: &[Status]) -> Option<Case> {
        match self.waiting.get_mut(&message.sender) {
            Some(queue) if queue.len() >= WAITING_PER_SENDER => {
                warn!(sender = %message.sender, "command dropped, too many of this sender wait");
                None
            }
            Some(queue) => {
                queue.push_back(message);
                None
            }
            None => {
                let case = self.open(message, statuses)?;
                self.waiting
                    .insert(case.message.sender.clone(), VecDeque::new());
                Some(case)
            }
        }
    }

    /// The sender's next case, once the one before is judged.
    pub(super) fn next_of(&mut self, sender: &UserId, statuses: &[Status]) -> Option<Case> {
        while let Some(message) = self.waiting.get_mut(sender).and_then(VecDeque::pop_front) {
            if let Some(case) = self.open(message, statuses) {
                return Some(case);
            }
        }
        self.waiting.remove(sender);
        None
    }

    /// Whether a denial is to be answered now, and not for a while after.
    pub(super) fn may_answer_denial(&mut self, user: &UserId) -> bool {
        is_due(&mut self.denials, user, DENIALS_APART)
    }

    /// Whether a sender is to be told now that they cannot be understood, and not for a while after.
    pub(super) fn may_tell_undecryptable(&mut self, user: &UserId) -> bool {
        is_due(&mut self.undecryptable, user, UNDECRYPTABLE_APART)
    }

    /// Whether a user who chats with the bot is to be told now what it is, and not for a while after.
    pub(super) fn may_hint(&mut self, user: &UserId) -> bool {
        is_due(&mut self.hints, user, HINTS_APART)
    }

    /// `None`: it is not meant for the bot.
    fn open(&self, message: Message, statuses: &[Status]) -> Option<Case> {
        let command = command::parse(&self.config.command_prefix, &message.text)?;
        Some(Case {
            message,
            command,
            statuses: statuses.to_vec(),
            config: Arc::clone(&self.config),
        })
    }

    /// What this project asks of whoever commands it or gets its link.
    pub(super) fn policy(&self, project: Option<&ProjectName>) -> Policy {
        Policy::of(&self.config, project)
    }
}

/// Whether this user was last told longer ago than `apart`; if so, now counts.
fn is_due(told: &mut HashMap<OwnedUserId, Instant>, user: &UserId, apart: Duration) -> bool {
    told.retain(|_, time| time.elapsed() < apart);
    let due = !told.contains_key(user);
    if due {
        told.insert(user.to_owned(), Instant::now());
    }
    due
}

/// What cannot name a project is no project's name either: the sender is told those that exist.
fn with_known_projects(misuse: Misuse, statuses: &[Status]) -> Misuse {
    match misuse {
        Misuse::UnknownProject { name, .. } => {
            let known = statuses
                .iter()
                .map(|status| status.project.clone())
                .collect();
            Misuse::UnknownProject { name, known }
        }
        other => other,
    }
}

/// What a command means, on this host. `elsewhere` is what others announce, for an overview of all.
fn intend(
    command: Command,
    statuses: &[Status],
    elsewhere: Vec<Announcement>,
) -> Result<Intent, Misuse> {
    let all: Vec<_> = statuses
        .iter()
        .map(|status| status.project.clone())
        .collect();
    let choose = |command, named: Option<ProjectName>| {
        command::choose_project(command, named.as_ref(), &all)
    };
    // Of several projects, one that has a session is meant.
    let active = statuses.iter().filter(|status| status.session.is_some());
    let active: Vec<_> = active.map(|status| status.project.clone()).collect();
    let choose_active = |command, named: Option<ProjectName>| {
        if named.is_none() && !active.is_empty() {
            command::choose_project(command, None, &active)
        } else {
            choose(command, named)
        }
    };
    Ok(match command {
        Command::Start { project } => Intent::Start(choose("start", project)?, Beginning::Fresh),
        Command::Resume { project } => {
            Intent::Start(choose("resume", project)?, Beginning::Resumed)
        }
        Command::Stop { project } => Intent::Stop(choose_active("stop", project)?),
        Command::Extend { project, by } => Intent::Extend(choose_active("extend", project)?, by),
        Command::Logs { project } => Intent::Logs(choose_active("logs", project)?),
        Command::Status => Intent::Status { elsewhere },
        Command::Doctor => Intent::Doctor,
        Command::Help => Intent::Help,
    })
}

/// Judges a case by what the homeserver says now. Comes back to the loop as an event.
pub(super) async fn judge(line: Line, case: Case) -> Event {
    let verdict = judge_by(&line, &case).await;
    Event::Judged(case.message, verdict)
}

async fn judge_by(line: &Line, case: &Case) -> Verdict {
    let Case {
        message,
        command,
        statuses,
        config,
    } = case;
    debug!(event = %message.event_id, sender = %message.sender, "judging a command");
    let matrix = line.clone().matrix().await;
    let named = command::addressed_host(&message.text);
    let others = hosts::others(&matrix).await;
    let elsewhere = match named {
        Some(_) => Vec::new(),
        None => others.iter().map(|(_, other)| other.clone()).collect(),
    };
    let own = (
        &hosts::own_name(config),
        matrix.own_user().to_owned(),
        statuses.as_slice(),
    );
    let intent = match hosts::turn(own, others, command, named) {
        Turn::Others => return Verdict::NotOurs,
        Turn::MineToAsk(misuse) => Err(misuse),
        Turn::Mine => command
            .clone()
            .and_then(|command| intend(command, statuses, elsewhere)),
    };
    let intent = intent.map_err(|misuse| with_known_projects(misuse, statuses));
    let project = intent.as_ref().ok().and_then(Intent::project);
    let has_session = |project: &ProjectName| {
        let mut statuses = statuses.iter();
        statuses.any(|status| status.project == *project && status.session.is_some())
    };
    match authorize_message(line, message, &Policy::of(config, project)).await {
        Err(denied) => Verdict::Denied(denied),
        Ok(permit) => match intent {
            Err(misuse) => Verdict::Misused(misuse),
            Ok(Intent::Start(project, beginning)) if !has_session(&project) => {
                look_at_delivery(line, permit, project, beginning).await
            }
            Ok(intent) => Verdict::Do(permit, intent),
        },
    }
}

/// A session whose link can reach nobody is not started.
async fn look_at_delivery(
    line: &Line,
    permit: Permit,
    project: ProjectName,
    beginning: Beginning,
) -> Verdict {
    let requester = permit.requester();
    let deliverable = told(line, |matrix| async move {
        match matrix.confidential_room(requester).await {
            Ok(_) => Ok(Ok(())),
            Err(NotSent::Refused(reason)) => Ok(Err(reason)),
            Err(NotSent::Fault(fault)) => Err(fault),
        }
    });
    match deliverable.await {
        Some(Ok(())) => Verdict::Do(permit, Intent::Start(project, beginning)),
        Some(Err(reason)) => Verdict::CannotDeliver(project, reason),
        None => Verdict::Denied(Denied::NoFacts),
    }
}

/// Asks the homeserver for all that decides, and remembers the command where it may be obeyed.
async fn authorize_message(
    line: &Line,
    message: &Message,
    policy: &Policy,
) -> Result<Permit, Denied> {
    let sender = &*message.sender;
    let (facts, proof) = tokio::join!(
        told(
            line,
            |matrix| async move { matrix.room_facts(sender).await }
        ),
        told(line, |matrix| async move { matrix.proof(message).await })
    );
    let proof = proof.ok_or(Denied::NoFacts)?;
    let permit = authorize(sender, proof.trust, facts.as_ref(), policy)?;
    let matrix = line.clone().matrix().await;
    match matrix.obey(sender, &proof).await {
        Ok(()) => Ok(permit),
        Err(fault) => {
            error!(error = %Chain(&fault), "what is obeyed cannot be written down");
            Err(Denied::NotRecorded)
        }
    }
}

/// What the homeserver tells when asked, a few times if need be. `None`: nothing is known.
async fn told<T, F>(line: &Line, ask: impl Fn(Matrix) -> F) -> Option<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut line = line.clone();
    for _ in 0..TRIES {
        let matrix = line.matrix().await;
        match ask(matrix).await {
            Ok(answer) => return Some(answer),
            Err(fault) => {
                warn!(error = %Chain(&fault), "the homeserver does not tell what a decision needs");
                if !line.may_mend(&fault) {
                    return None;
                }
                if fault.is_logged_out() {
                    line.wait_for_another().await;
                }
                sleep(fault.retry_after().unwrap_or_default()).await;
            }
        }
    }
    None
}

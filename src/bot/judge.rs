//! Judges commands by what the homeserver says now, which takes a while and so is never done in the sync loop.

use std::{
    panic::resume_unwind,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

use super::{Event, connection::MatrixHandle, hosts};
use crate::{
    command::{
        self, Command, Denied, Misuse, Permit, Policy, Verb, authorize,
        hosts::{Host, Turn, choose_project},
    },
    config::Config,
    matrix::{
        Announcement, Chain, ConfidentialRoom, Fault, Matrix, Message, NotConfidential, NotSent,
    },
    remote_control::{Beginning, NotAllowed, ProjectName, SessionStatus, Start, Status},
};

/// How long a homeserver that does not answer is asked for the facts. Somebody waits, and may want something else by then.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How long a proof is waited for: afterwards it would be too old.
const LONGEST_PROOF: Duration = Duration::from_secs(2);

/// What a command means here and now.
#[derive(Debug, Clone)]
pub(super) enum Intent {
    Start {
        project: ProjectName,
        /// What was asked for.
        asked: Start,
        /// What a session runs with that begins now.
        complete: Start,
    },
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
            Self::Start { project, .. }
            | Self::Stop(project)
            | Self::Extend(project, _)
            | Self::Logs(project) => Some(project),
            Self::Status { .. } | Self::Doctor | Self::Help => None,
        }
    }
}

/// What comes of a command.
#[derive(Debug)]
pub(super) enum Decision {
    Denied(Denied),
    Misused(Misuse),
    CannotDeliver(ProjectName, NotConfidential),
    /// Also the moment before the homeserver was asked: what it said may be as old as that.
    Do(Permit, Intent, Instant, Option<Proving>),
    /// It was executed before: an earlier connection heard it too.
    DoneBefore,
    /// The bot of another host answers.
    NotOurs,
}

/// The proof of the sender's direct message, which goes on while they are judged and while what was decided is written down. What
/// becomes of it is looked at by those who send; `None`: it has to be made then.
pub(super) type Proving = AbortOnDropHandle<Option<ConfidentialRoom>>;

/// Judges a command by what the homeserver says now. Comes back to the loop as an event.
pub(super) async fn judge(
    matrix: MatrixHandle,
    config: &Config,
    statuses: &[Status],
    message: Message,
) -> Event {
    debug!(event = %message.event_id, sender = %message.sender, "judging a command");
    let decision = decide(matrix, config, statuses, &message).await;
    Event::Judged(message, decision)
}

async fn decide(
    mut handle: MatrixHandle,
    config: &Config,
    statuses: &[Status],
    message: &Message,
) -> Decision {
    let matrix = handle.connected().await;
    if matrix.has_counted(message) {
        return Decision::DoneBefore;
    }
    let Some(intent) = understand(&matrix, config, statuses, message).await else {
        return Decision::NotOurs;
    };
    let policy = match &intent {
        Ok(Intent::Start {
            project, complete, ..
        }) => {
            // Whoever gets the link of a session can do what those can who may start such a one.
            let running = session_of(statuses, project).map(|session| &session.start);
            Policy::of_session(config, project, running.unwrap_or(complete))
        }
        Ok(intent) => Policy::of(config, intent.project()),
        Err(_) => Policy::of_any(config),
    };
    let asked = Instant::now();
    let proving = match &intent {
        Ok(Intent::Start { .. }) => Some(prove_direct_message(&matrix, message)),
        Ok(_) | Err(_) => None,
    };
    let permit = match authorize_message(&mut handle, message, &policy).await {
        Ok(permit) => permit,
        Err(denied) => return Decision::Denied(denied),
    };
    let intent = match intent {
        Ok(intent) => intent,
        Err(misuse) => return Decision::Misused(misuse),
    };
    // A session whose link can reach nobody is not started.
    if let Intent::Start { project, .. } = &intent
        && session_of(statuses, project).is_none()
    {
        return match is_deliverable(&handle, &permit, proving).await {
            Some(Ok(())) => Decision::Do(permit, intent, asked, None),
            Some(Err(reason)) => Decision::CannotDeliver(project.clone(), reason),
            None => Decision::Denied(Denied::NoFacts),
        };
    }
    Decision::Do(permit, intent, asked, proving)
}

/// What a message means on this host. `None`: it is for the bot of another one.
async fn understand(
    matrix: &Matrix,
    config: &Config,
    statuses: &[Status],
    message: &Message,
) -> Option<Result<Intent, Misuse>> {
    let command = command::parse(&config.command_prefix, &message.text)?;
    let named = command::addressed_host(&message.text);
    // Whoever may send state events can say that they are a host, and a bot that shares the room with nobody leaves nothing to
    // them.
    let others = match &config.host {
        Some(_) => hosts::others(matrix).await,
        None => Vec::new(),
    };
    let own = hosts::own(config, matrix.own_user(), statuses);
    let known: Vec<_> = others.iter().filter_map(hosts::host).collect();
    match command::hosts::turn(&own, &known, &command, named) {
        Turn::Others => None,
        Turn::MineToAsk(misuse) => Some(Err(misuse)),
        Turn::Mine => {
            let elsewhere = match named {
                Some(_) => Vec::new(),
                None => others.into_iter().map(|(_, other)| other).collect(),
            };
            Some(command.and_then(|command| intend(&command, &own, config, elsewhere)))
        }
    }
}

/// What a command means, on this host. `elsewhere` is what others announce, for an overview of all.
fn intend(
    command: &Command,
    own: &Host,
    config: &Config,
    elsewhere: Vec<Announcement>,
) -> Result<Intent, Misuse> {
    let project = || choose_project(command, own);
    let start = |beginning| intend_start(command, project()?, beginning, config);
    Ok(match command.verb {
        Verb::Start => start(Beginning::Fresh)?,
        Verb::Resume => start(Beginning::Resumed)?,
        Verb::Stop => Intent::Stop(project()?),
        Verb::Extend(by) => Intent::Extend(project()?, by),
        Verb::Logs => Intent::Logs(project()?),
        Verb::Status => Intent::Status { elsewhere },
        Verb::Doctor => Intent::Doctor,
        Verb::Help => Intent::Help,
    })
}

fn prove_direct_message(matrix: &Matrix, message: &Message) -> Proving {
    let (matrix, sender) = (matrix.clone(), message.sender.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let proven = matrix.known_confidential_room(&sender).await;
        // A reason against it is found once more by those who tell it.
        proven.ok().flatten()
    }))
}

fn intend_start(
    command: &Command,
    project: ProjectName,
    beginning: Beginning,
    config: &Config,
) -> Result<Intent, Misuse> {
    let options = command.options.clone();
    let mut asked = Start { beginning, options };
    let mut complete = asked.clone();
    // A project that left the configuration has a session, to which the options are compared.
    if let Some(configured) = config.projects.get(&project) {
        let settings = &configured.project.settings;
        let not_allowed = |NotAllowed { option, allowed }| Misuse::NotAllowed {
            option,
            value: command.options.get(option).unwrap_or_default().to_owned(),
            allowed,
            project: project.clone(),
        };
        asked = settings.allow(&asked).map_err(not_allowed)?;
        complete = settings.complete(&asked);
    }
    Ok(Intent::Start {
        project,
        asked,
        complete,
    })
}

fn session_of<'s>(statuses: &'s [Status], project: &ProjectName) -> Option<&'s SessionStatus> {
    let mut statuses = statuses.iter();
    let status = statuses.find(|status| status.project == *project)?;
    status.session.as_ref()
}

async fn is_deliverable(
    matrix: &MatrixHandle,
    permit: &Permit,
    proving: Option<Proving>,
) -> Option<Result<(), NotConfidential>> {
    if let Some(proving) = proving
        && proven(proving).await.is_some()
    {
        return Some(Ok(()));
    }
    let requester = permit.requester();
    let proven = ask(matrix, |matrix| async move {
        match matrix.confidential_room(requester, None, None, None).await {
            Ok(_) => Ok(Ok(())),
            Err(NotSent::Refused(reason)) => Ok(Err(reason)),
            Err(NotSent::Fault(fault)) => Err(fault),
        }
    });
    proven.await
}

/// What a proof came to. A panic in it ends the bot, as any other.
pub(super) async fn proven(proving: Proving) -> Option<ConfidentialRoom> {
    match timeout(LONGEST_PROOF, proving).await {
        Ok(Ok(room)) => room,
        Ok(Err(failed)) if failed.is_panic() => resume_unwind(failed.into_panic()),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// Asks the homeserver for all that decides, and remembers the command where it may be executed.
async fn authorize_message(
    handle: &mut MatrixHandle,
    message: &Message,
    policy: &Policy,
) -> Result<Permit, Denied> {
    let sender = &*message.sender;
    let (facts, proof) = tokio::join!(
        ask(
            handle,
            |matrix| async move { matrix.room_facts(sender).await }
        ),
        ask(handle, |matrix| async move { matrix.proof(message).await })
    );
    let proof = proof.ok_or(Denied::NoFacts)?;
    let permit = authorize(sender, proof.trust, facts.as_ref(), policy)?;
    match handle.connected().await.count(message, &proof).await {
        Ok(()) => Ok(permit),
        Err(fault) => {
            error!(error = %Chain(&fault), "what is executed cannot be written down");
            Err(Denied::NotRecorded)
        }
    }
}

/// What the homeserver says when asked, again and again if need be. `None`: nothing is known.
async fn ask<T, F>(matrix: &MatrixHandle, question: impl Fn(Matrix) -> F) -> Option<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    match timeout(LONGEST_WAIT, matrix.until_taken(question)).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(fault)) => {
            warn!(error = %Chain(&fault), "the homeserver does not tell what a decision needs");
            None
        }
        Err(_) => None,
    }
}

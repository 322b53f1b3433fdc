//! Judges commands by what the homeserver says now, which takes a while and so is never done in the sync loop.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, error, warn};

use super::{Event, connection::MatrixHandle, deliver::Backoff, hosts, queue::Case};
use crate::{
    command::{self, Command, Denied, Misuse, Permit, Policy, authorize::authorize, hosts::Turn},
    matrix::{Announcement, Chain, Fault, Matrix, Message, NotConfidential, NotSent},
    remote_control::{Beginning, ProjectName, Status},
};

/// How long a homeserver that does not answer is asked for the facts. Somebody waits, and may want something else by then.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

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

/// What comes of a command.
#[derive(Debug)]
pub(super) enum Decision {
    Denied(Denied),
    Misused(Misuse),
    CannotDeliver(ProjectName, NotConfidential),
    /// Also the moment before the homeserver was asked: what it said may be as old as that.
    Do(Permit, Intent, Instant),
    /// It was obeyed before: an earlier connection heard it too.
    DoneBefore,
    /// The bot of another host answers.
    NotOurs,
}

/// Judges a case by what the homeserver says now. Comes back to the loop as an event.
pub(super) async fn judge(line: MatrixHandle, case: Case) -> Event {
    let verdict = judge_by(&line, &case).await;
    Event::Judged(case.message, verdict)
}

async fn judge_by(line: &MatrixHandle, case: &Case) -> Decision {
    let Case {
        message,
        command,
        statuses,
        config,
    } = case;
    debug!(event = %message.event_id, sender = %message.sender, "judging a command");
    let matrix = line.clone().matrix().await;
    if matrix.has_obeyed(message) {
        return Decision::DoneBefore;
    }
    let named = command::addressed_host(&message.text);
    // Whoever may send state events can say that they are a host, and a bot that shares the room with nobody leaves nothing to
    // them.
    let others = match &config.host {
        Some(_) => hosts::others(&matrix).await,
        None => Vec::new(),
    };
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
        Turn::Others => return Decision::NotOurs,
        Turn::MineToAsk(misuse) => Err(misuse),
        Turn::Mine => command
            .clone()
            .and_then(|command| intend(command, statuses, elsewhere)),
    };
    let intent = intent.map_err(|misuse| with_known_projects(misuse, statuses));
    let policy = match &intent {
        Ok(intent) => Policy::of(config, intent.project()),
        Err(_) => Policy::of_any(config),
    };
    let has_session = |project: &ProjectName| {
        let mut statuses = statuses.iter();
        statuses.any(|status| status.project == *project && status.session.is_some())
    };
    let asked = Instant::now();
    match authorize_message(line, message, &policy).await {
        Err(denied) => Decision::Denied(denied),
        Ok(permit) => match intent {
            Err(misuse) => Decision::Misused(misuse),
            Ok(Intent::Start(project, beginning)) if !has_session(&project) => {
                look_at_delivery(line, (permit, asked), project, beginning).await
            }
            Ok(intent) => Decision::Do(permit, intent, asked),
        },
    }
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

/// A session whose link can reach nobody is not started.
async fn look_at_delivery(
    line: &MatrixHandle,
    (permit, asked): (Permit, Instant),
    project: ProjectName,
    beginning: Beginning,
) -> Decision {
    let requester = permit.requester();
    let deliverable = told(line, |matrix| async move {
        match matrix.confidential_room(requester, None, None).await {
            Ok(_) => Ok(Ok(())),
            Err(NotSent::Refused(reason)) => Ok(Err(reason)),
            Err(NotSent::Fault(fault)) => Err(fault),
        }
    });
    match deliverable.await {
        Some(Ok(())) => Decision::Do(permit, Intent::Start(project, beginning), asked),
        Some(Err(reason)) => Decision::CannotDeliver(project, reason),
        None => Decision::Denied(Denied::NoFacts),
    }
}

/// Asks the homeserver for all that decides, and remembers the command where it may be obeyed.
async fn authorize_message(
    line: &MatrixHandle,
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
    match matrix.obey(message, &proof).await {
        Ok(()) => Ok(permit),
        Err(fault) => {
            error!(error = %Chain(&fault), "what is obeyed cannot be written down");
            Err(Denied::NotRecorded)
        }
    }
}

/// What the homeserver tells when asked, again and again if need be. `None`: nothing is known.
async fn told<T, F>(line: &MatrixHandle, ask: impl Fn(Matrix) -> F) -> Option<T>
where
    F: Future<Output = Result<T, Fault>>,
{
    let mut line = line.clone();
    let mut patience = Backoff::new();
    let asking = async {
        loop {
            let matrix = line.matrix().await;
            match ask(matrix).await {
                Ok(answer) => return Some(answer),
                Err(fault) => {
                    if !line.may_mend(&fault) {
                        warn!(error = %Chain(&fault), "the homeserver does not tell what a decision needs");
                        return None;
                    }
                    if fault.is_logged_out() {
                        line.wait_for_another().await;
                    }
                    patience.wait(&fault).await;
                }
            }
        }
    };
    timeout(LONGEST_WAIT, asking).await.ok().flatten()
}

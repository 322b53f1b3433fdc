//! Judges commands by what the homeserver says now, which takes a while and so is never done in the sync loop.

use std::{
    panic::resume_unwind,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

use super::{
    Event,
    connection::MatrixHandle,
    hosts::{self, Contest, Signals, TURN, TURN_OF_ADDRESSED},
    projects::Projects,
};
use crate::{
    command::{
        self, Command, Denied, Excerpt, Misuse, Permit, Policy, Verb, authorize,
        hosts::{Addressee, Host, Turn, choose_project},
        reply::OtherHost,
    },
    config::ConfiguredProject,
    matrix::{
        Announcement, Chain, ConfidentialRoom, Fault, Matrix, Message, NotConfidential, NotSent,
        SignalKind,
    },
    remote_control::{Beginning, NotAllowed, Phase, ProjectName, SessionStatus, Start, Status},
};

/// How long the homeserver is asked for the facts: somebody waits, and may want something else by then.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How long a proof is waited for: afterwards it would be too old.
const LONGEST_PROOF: Duration = Duration::from_secs(2);

/// What a command means here and now.
#[derive(Debug, Clone)]
pub(super) enum Intent {
    Start {
        project: ProjectName,
        /// What was requested.
        asked: Start,
        /// What a session that begins now runs with.
        complete: Start,
    },
    Stop(ProjectName),
    Extend(ProjectName, Duration),
    Logs(ProjectName, Excerpt),
    /// An overview, with that of other hosts.
    Status {
        elsewhere: Vec<OtherHost>,
    },
    /// What can be started, with what other hosts announce.
    Projects {
        word: Option<String>,
        elsewhere: Vec<OtherHost>,
    },
    Doctor,
    Help,
}

impl Intent {
    /// The project that it is about, if any.
    pub(super) fn project(&self) -> Option<&ProjectName> {
        match self {
            Self::Start { project, .. }
            | Self::Stop(project)
            | Self::Extend(project, _)
            | Self::Logs(project, _) => Some(project),
            Self::Status { .. } | Self::Projects { .. } | Self::Doctor | Self::Help => None,
        }
    }
}

/// What was decided about a command.
#[derive(Debug)]
pub(super) enum Decision {
    Denied(Denied),
    Misused(Misuse),
    CannotDeliver(ProjectName, NotConfidential),
    Do(Permit, Intent, Prepared),
    /// It was executed before: an earlier connection received it too, or it edits an executed one.
    DoneBefore,
    /// The bot of another host answers.
    NotOurs,
}

/// The proof of the sender's direct message, made while they are judged and the decision is recorded. Senders of links await
/// its result; `None`: it has to be made then.
pub(super) type Proving = AbortOnDropHandle<Option<ConfidentialRoom>>;

/// The state of the loop when a command is judged.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) projects: Projects,
    pub(super) statuses: Vec<Status>,
    /// This host's announcement, if there may be other hosts.
    pub(super) announced: Option<Announcement>,
    pub(super) signals: watch::Sender<Signals>,
    /// Whether the command is an edit of one that this bot has executed.
    pub(super) edits_executed: bool,
}

/// What a command means, and the project that was found for it below a root.
struct Meaning {
    intent: Intent,
    found: Option<Box<ConfiguredProject>>,
}

/// What was prepared for a command while it was judged.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The time before the homeserver was asked: its answers may be as old as that.
    pub(super) asked: Instant,
    pub(super) proving: Option<Proving>,
    /// The project, if it was found below a root just now.
    pub(super) found: Option<Box<ConfiguredProject>>,
}

/// Judges a command by what the homeserver says now. Comes back to the loop as an event.
pub(super) async fn judge(matrix: MatrixHandle, known: &Snapshot, message: Message) -> Event {
    debug!(event = %message.event_id, sender = %message.sender, "judging a command");
    let decision = decide(matrix, known, &message).await;
    Event::Judged(message, decision)
}

async fn decide(mut handle: MatrixHandle, known: &Snapshot, message: &Message) -> Decision {
    let matrix = handle.connected().await;
    if matrix.has_counted(message) || known.edits_executed {
        return Decision::DoneBefore;
    }
    let begun = Instant::now();
    let Some(meaning) = known.understand(&matrix, message).await else {
        return Decision::NotOurs;
    };
    let policy = match &meaning {
        Ok(meaning) => known.policy(meaning),
        Err(_) => Policy::of_any(&known.projects.config),
    };
    let asked = Instant::now();
    let is_start = |meaning: &Meaning| matches!(meaning.intent, Intent::Start { .. });
    let is_start = meaning.as_ref().is_ok_and(is_start);
    let mut proving = is_start.then(|| prove_direct_message(&matrix, message));
    let permit = match authorize_message(&mut handle, message, &policy).await {
        Ok(permit) => permit,
        Err(denied) => return Decision::Denied(denied),
    };
    let Meaning { mut intent, found } = match meaning {
        Ok(meaning) => meaning,
        Err(misuse) => return Decision::Misused(misuse),
    };
    if let Intent::Status { elsewhere } = &mut intent {
        let about = message.event_id.as_str();
        hosts::note_silent(&known.signals, about, elsewhere, begun.into()).await;
    }
    // No session is started whose link cannot be delivered.
    if let Intent::Start { project, .. } = &intent
        && known.may_begin(project)
    {
        match is_deliverable(&handle, &permit, proving.take()).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return Decision::CannotDeliver(project.clone(), reason),
            Err(denied) => return Decision::Denied(denied),
        }
    }
    let prepared = Prepared {
        asked,
        proving,
        found,
    };
    Decision::Do(permit, intent, prepared)
}

impl Snapshot {
    fn session_of(&self, project: &ProjectName) -> Option<&SessionStatus> {
        let mut statuses = self.statuses.iter();
        let status = statuses.find(|status| status.project == *project)?;
        status.session.as_ref()
    }

    /// Whether a start may begin a session: one that is ending may be over when the start is carried out.
    fn may_begin(&self, project: &ProjectName) -> bool {
        let session = self.session_of(project);
        session.is_none_or(|session| session.phase == Phase::Stopping)
    }

    fn policy(&self, Meaning { intent, found }: &Meaning) -> Policy {
        let config = &self.projects.config;
        let Some(name) = intent.project() else {
            return Policy::of_no_project(config);
        };
        let project = found.as_deref().or_else(|| self.projects.get(name));
        if let Intent::Start { complete, .. } = intent {
            // The link gives the power of a user who may start such a session.
            let running = self.session_of(name).map(|session| &session.start);
            return Policy::of_session(config, project, running.unwrap_or(complete));
        }
        Policy::of_project(config, project)
    }

    /// What a message means on this host. `None`: it is for the bot of another one.
    async fn understand(
        &self,
        matrix: &Matrix,
        message: &Message,
    ) -> Option<Result<Meaning, Misuse>> {
        let config = &self.projects.config;
        let command = command::parse(&config.command_prefix, &message.text)?;
        // Whatever host it names: the bots agree on one that answers.
        let (command, named) = match message.edits {
            Some(_) => (Err(Misuse::Edited), None),
            None => (command, command::addressed_host(&message.text)),
        };
        // Anyone who may send state events can announce a host. A bot that has no name for its host yields to none.
        let others = match &config.host {
            Some(_) => hosts::others(matrix).await,
            None => Vec::new(),
        };
        let own = hosts::own(config, matrix.own_user(), &self.statuses);
        // As announced to the others, so that all bots decide alike.
        let announced = self.announced.as_ref();
        let announced = announced.and_then(|it| hosts::host(&own.bot, it));
        let known = others.iter().filter_map(|(bot, it)| hosts::host(bot, it));
        let known: Vec<_> = known.collect();
        let seen = announced.as_ref().unwrap_or(&own);
        let Turn { addressee, order } = command::hosts::turn(seen, &known, &command, named);
        let contest = Contest {
            matrix,
            signals: &self.signals,
            about: message.event_id.as_str(),
            order: &order,
        };
        let elsewhere = match addressee {
            // A command for this host is executed here, whatever others claim.
            Addressee::Host(_) if order.first() == Some(&own.bot) => {
                contest.announce_answer();
                Vec::new()
            }
            Addressee::Host(host) => {
                let is_won = contest.is_won(SignalKind::Claim, TURN_OF_ADDRESSED).await;
                return is_won.then_some(Err(Misuse::HostDoesNotAnswer(host)));
            }
            Addressee::Unclear(misuse) => {
                let is_won = contest.is_won(SignalKind::Claim, TURN).await;
                return is_won.then_some(Err(misuse));
            }
            Addressee::All => {
                let kind = match &command {
                    Ok(command) if command.verb == Verb::Status => SignalKind::Ping,
                    Ok(_) | Err(_) => SignalKind::Claim,
                };
                if !contest.is_won(kind, TURN).await {
                    return None;
                }
                let elsewhere = others.into_iter().map(|(bot, announcement)| OtherHost {
                    bot,
                    announcement,
                    is_silent: false,
                });
                // A host whose name cannot be addressed is left out.
                elsewhere.filter(|it| order.contains(&it.bot)).collect()
            }
        };
        Some(match command {
            Ok(command) => self.intend(&command, own, elsewhere).await,
            Err(misuse) => Err(misuse),
        })
    }

    /// What a command means, on this host. `elsewhere` is what others announce, for an overview of all.
    async fn intend(
        &self,
        command: &Command,
        own: Host,
        elsewhere: Vec<OtherHost>,
    ) -> Result<Meaning, Misuse> {
        let intent = match command.verb {
            Verb::Status => Intent::Status { elsewhere },
            Verb::Projects => Intent::Projects {
                word: command.project.clone(),
                elsewhere,
            },
            Verb::Doctor => Intent::Doctor,
            Verb::Help => Intent::Help,
            Verb::Start | Verb::Resume | Verb::Stop | Verb::Extend(_) | Verb::Logs(_) => {
                return self.intend_about_project(command, own).await;
            }
        };
        let found = None;
        Ok(Meaning { intent, found })
    }

    async fn intend_about_project(
        &self,
        command: &Command,
        mut own: Host,
    ) -> Result<Meaning, Misuse> {
        let typed = command.project.as_deref();
        let typed = typed.and_then(|name| name.parse::<ProjectName>().ok());
        let (below, whole) = self.projects.look(typed).await;
        let is_cut = below.roots.iter().flatten().any(|seen| seen.is_cut);
        if is_cut {
            // An incomplete list of names cannot resolve an abbreviated one.
            own.unnamed.count = below.projects.len();
        } else {
            for name in &below.projects {
                own.projects.entry(name.clone()).or_insert(false);
            }
        }
        if let Some(whole) = &whole {
            own.projects
                .entry(whole.project.name.clone())
                .or_insert(false);
        }
        let project = match choose_project(command, &own) {
            // It may be in one of those.
            Err(Misuse::UnknownProject { name, .. }) if below.roots.iter().any(Result::is_err) => {
                return Err(Misuse::RootsUnreadable { name });
            }
            chosen => chosen?,
        };
        let found = self.found(&project, whole).await;
        let is_configured = self.projects.config.projects.contains_key(&project);
        let is_known = found.is_some() || is_configured || self.session_of(&project).is_some();
        if !is_known {
            // It was removed meanwhile.
            return Err(Misuse::UnknownProject {
                name: project.to_string(),
                known: own.projects.keys().map(ToString::to_string).collect(),
                more: own.unnamed.count,
            });
        }
        let configured = found.as_deref().or_else(|| self.projects.get(&project));
        let start = |beginning| intend_start(command, project.clone(), beginning, configured);
        let intent = match command.verb {
            Verb::Resume => start(Beginning::Resumed)?,
            Verb::Stop => Intent::Stop(project),
            Verb::Extend(by) => Intent::Extend(project, by),
            Verb::Logs(excerpt) => Intent::Logs(project, excerpt),
            Verb::Start | Verb::Status | Verb::Projects | Verb::Doctor | Verb::Help => {
                start(Beginning::Fresh)?
            }
        };
        Ok(Meaning { intent, found })
    }

    /// The project as it is below its root now, unless it is configured, or has a session and is known from then.
    async fn found(
        &self,
        project: &ProjectName,
        whole: Option<ConfiguredProject>,
    ) -> Option<Box<ConfiguredProject>> {
        let known = self.projects.get(project);
        if known.is_some_and(|it| !it.project.is_found || self.session_of(project).is_some()) {
            return None;
        }
        match whole.filter(|it| it.project.name == *project) {
            Some(whole) => Some(Box::new(whole)),
            None => self.projects.resolve(project).await.map(Box::new),
        }
    }
}

fn prove_direct_message(matrix: &Matrix, message: &Message) -> Proving {
    let (matrix, sender) = (matrix.clone(), message.sender.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let proven = matrix.known_confidential_room(&sender).await;
        // A reason against it is found again, and reported, when sending.
        proven.ok().flatten()
    }))
}

fn intend_start(
    command: &Command,
    project: ProjectName,
    beginning: Beginning,
    configured: Option<&ConfiguredProject>,
) -> Result<Intent, Misuse> {
    let options = command.options.clone();
    let mut asked = Start { beginning, options };
    let mut complete = asked.clone();
    // A project that left the configuration still has a session, to which the options are compared.
    if let Some(configured) = configured {
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

async fn is_deliverable(
    matrix: &MatrixHandle,
    permit: &Permit,
    proving: Option<Proving>,
) -> Result<Result<(), NotConfidential>, Denied> {
    if let Some(proving) = proving
        && proven(proving).await.is_some()
    {
        return Ok(Ok(()));
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

/// The result of a proof. A panic in it ends the bot, like any other.
pub(super) async fn proven(proving: Proving) -> Option<ConfidentialRoom> {
    match timeout(LONGEST_PROOF, proving).await {
        Ok(Ok(room)) => room,
        Ok(Err(failed)) if failed.is_panic() => resume_unwind(failed.into_panic()),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// Asks the homeserver for the evidence, and records the command if it may be executed.
async fn authorize_message(
    handle: &mut MatrixHandle,
    message: &Message,
    policy: &Policy,
) -> Result<Permit, Denied> {
    let sender = &*message.sender;
    // The event takes the homeserver longest, and so is asked for first.
    let (proof, facts) = tokio::join!(
        ask(handle, |matrix| async move { matrix.proof(message).await }),
        ask(
            handle,
            |matrix| async move { matrix.room_facts(sender).await }
        )
    );
    let (facts, proof) = (facts?, proof?);
    let permit = authorize(sender, proof.trust, &facts, policy)?;
    match handle.connected().await.count(message, &proof).await {
        Ok(()) => Ok(permit),
        Err(fault) => {
            error!(error = %Chain(&fault), "cannot record that a command is executed");
            Err(Denied::NotRecorded)
        }
    }
}

/// Asks the homeserver, with retries. An error: it did not answer.
async fn ask<T, F>(matrix: &MatrixHandle, question: impl Fn(Matrix) -> F) -> Result<T, Denied>
where
    F: Future<Output = Result<T, Fault>>,
{
    let failed = OnceLock::new();
    let noting = |matrix| {
        let (asked, failed) = (question(matrix), &failed);
        async move {
            asked.await.inspect_err(|fault| {
                // Other faults are of this host, and name files that the room need not know.
                if fault.is_passing() {
                    drop(failed.set(Chain(fault).to_string()));
                }
            })
        }
    };
    match timeout(LONGEST_WAIT, matrix.until_accepted(noting)).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(fault)) => {
            warn!(error = %Chain(&fault), "the homeserver did not answer what is needed to judge a command");
        }
        Err(_) => {}
    }
    Err(Denied::NoFacts(failed.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::silent_bot, *};

    #[tokio::test]
    async fn a_start_behind_a_stop_may_begin_a_session_too() {
        let folder = tempfile::TempDir::new().unwrap();
        let (bot, _) = silent_bot(folder.path());
        let website: ProjectName = "website".parse().unwrap();
        let may_begin = |phase: Option<Phase>| {
            let mut status = hosts::tests::status("website", phase.is_some());
            if let (Some(session), Some(phase)) = (&mut status.session, phase) {
                session.phase = phase;
            }
            let known = Snapshot {
                projects: bot.projects.clone(),
                statuses: vec![status],
                announced: None,
                signals: bot.signals.clone(),
                edits_executed: false,
            };
            known.may_begin(&website)
        };
        assert!(may_begin(None) && may_begin(Some(Phase::Stopping)));
        for phase in [Phase::Starting, Phase::Running, Phase::AwaitingRestart] {
            assert!(!may_begin(Some(phase)), "{phase:?}");
        }
    }
}

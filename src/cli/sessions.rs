//! `rcbot status` and `rcbot stop`: the sessions on this host, with no homeserver.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};
use tracing::warn;

use super::{block_on, misconfigured, print};
use crate::{
    bot,
    command::reply,
    config::Places,
    data_dir::{DataDir, DataDirError, SESSIONS},
    remote_control::{
        self, Connection, Phase, ProjectName, Usages,
        offline::{self, SessionReport},
        process::raise_descriptor_limit,
    },
};

/// How long the bot may take for a stop beyond the grace period of the processes.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// The version of `status --json`: another one means that a key or a state has changed its meaning or is gone.
const SCHEMA: u32 = 1;

pub(super) fn status(path: &Path, as_json: bool) -> Result<()> {
    let places = load(path)?;
    let mut all = look(&places)?;
    for project in places.projects.keys() {
        if !all.iter().any(|known| known.project() == project) {
            all.push(SessionReport::none(project));
        }
    }
    all.sort_unstable_by(|a, b| a.project().cmp(b.project()));
    let usage = remote_control::usage()?;
    if as_json {
        let projects: Vec<_> = all.iter().map(|known| to_json(known, &usage)).collect();
        let version = env!("CARGO_PKG_VERSION");
        let report = json!({ "schema": SCHEMA, "version": version, "projects": projects });
        return print(&format!("{report:#}"));
    }
    let lines: Vec<_> = all.iter().map(|known| describe(known, &usage)).collect();
    print(&lines.join("\n"))
}

/// The format of docs/operations.md.
fn to_json(known: &SessionReport, usage: &Usages) -> Value {
    let (id, session) = match known {
        SessionReport::Record { status, .. } => {
            let session = status.session.as_ref();
            (session.map(|session| &session.id), session)
        }
        SessionReport::Unrecorded { session, .. } => (Some(session), None),
        SessionReport::Unreadable { .. } => (None, None),
    };
    let since = session.map(|session| reply::rfc3339(session.since));
    let seconds = |time: Duration| time.as_secs();
    let connection = session.and_then(|session| session.connection);
    let next_try = session.and_then(|session| session.next_try.as_ref());
    let usage = id.and_then(|id| usage.get(id));
    json!({
        "project": known.project().as_str(),
        "state": state(known),
        "session": id.map(ToString::to_string),
        "since": since,
        "requester": session.and_then(|session| session.requester.as_ref()),
        "ends_in": session.and_then(|session| session.time_left).map(seconds),
        "connection": connection.map(|connection| match connection {
            Connection::Connecting => "connecting",
            Connection::Connected => "connected",
            Connection::Reconnecting { .. } => "reconnecting",
        }),
        "cut_off": session.is_some_and(|session| session.is_cut_off),
        "next_try_in": next_try.map(|(left, _)| seconds(*left)),
        "processes": usage.map_or(0, |usage| usage.processes),
        "memory": usage.map_or(0, |usage| usage.memory),
        "program_replaced": usage.is_some_and(|usage| usage.is_replaced),
    })
}

fn state(known: &SessionReport) -> &'static str {
    match known {
        SessionReport::Record { status, is_alive } => {
            match status.session.as_ref().map(|session| session.phase) {
                None => "none",
                Some(Phase::Stopping) if !is_alive => "stopped",
                Some(Phase::Starting | Phase::Running) if !is_alive => "ended",
                Some(Phase::Starting) => "starting",
                Some(Phase::Running) => "running",
                Some(Phase::Stopping) => "stopping",
                Some(Phase::AwaitingRestart) => "resting",
            }
        }
        SessionReport::Unrecorded { .. } => "unrecorded",
        SessionReport::Unreadable { .. } => "unreadable",
    }
}

/// Mistakes in the configuration that do not concern sessions keep nobody from managing them.
fn load(path: &Path) -> Result<Places> {
    let places = Places::load(path)?;
    if let Some(problems) = &places.problems {
        warn!("{problems}");
    }
    Ok(places)
}

fn look(places: &Places) -> Result<Vec<SessionReport>> {
    Ok(offline::status(&places.data_dir.join(SESSIONS))?)
}

fn describe(known: &SessionReport, usage: &Usages) -> String {
    match known {
        SessionReport::Record { status, is_alive } => {
            let line = reply::status_line(status, usage, SystemTime::now());
            let session = status.session.as_ref().filter(|_| !is_alive);
            match session.map(|session| session.phase) {
                Some(Phase::Stopping) => format!(
                    "{}: stopped; the bot deletes its link when it runs again",
                    status.project
                ),
                Some(Phase::Starting | Phase::Running) => {
                    format!("{line}; its process has ended, and a bot that runs clears it away")
                }
                Some(Phase::AwaitingRestart) | None => line,
            }
        }
        SessionReport::Unrecorded { project, session } => {
            let taken = usage.get(session).map(reply::usage);
            let taken = taken.map_or_else(String::new, |taken| format!(", {taken}"));
            format!("{project}: running, and its record is lost or unreadable{taken}")
        }
        SessionReport::Unreadable { project } => {
            format!("{project}: its record is invalid; the bot sets it aside at its next start")
        }
    }
}

pub(super) fn stop(path: &Path, project: Option<&str>) -> Result<()> {
    let places = load(path)?;
    let projects = match project {
        Some(name) => vec![known(&places, name)?],
        None => active(&places)?,
    };
    if projects.is_empty() {
        return print("No session is running.");
    }
    // Each stop waits for many processes, which takes a descriptor each.
    raise_descriptor_limit();
    let mut failures = block_on(stop_all(&places, &projects))?;
    if failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let all: Vec<_> = failures.iter().map(|error| format!("{error:#}")).collect();
    bail!(all.join("; "))
}

/// A project that the configuration names, or that has or had a session here.
fn known(places: &Places, name: &str) -> Result<ProjectName> {
    let project = name.parse::<ProjectName>();
    let project = project
        .map_err(|error| misconfigured(anyhow!("{name:?} cannot name a project: {error}")))?;
    let mut all: BTreeSet<_> = places.projects.keys().cloned().collect();
    if !all.contains(&project) {
        all.extend(look(places)?.iter().map(|known| known.project().clone()));
    }
    if all.contains(&project) {
        return Ok(project);
    }
    let mut all: Vec<_> = all.iter().map(ProjectName::as_str).collect();
    if places.has_roots {
        all.push("those below project roots that had a session");
    }
    Err(misconfigured(anyhow!(
        "there is no project {project}; projects: {}",
        all.join(", ")
    )))
}

fn active(places: &Places) -> Result<Vec<ProjectName>> {
    let all = look(places)?;
    let active = all.iter().filter(|known| known.is_active());
    Ok(active.map(|known| known.project().clone()).collect())
}

/// Who ends sessions.
enum Stopper {
    /// There is neither a data directory nor a session.
    Nobody,
    /// A bot runs: it would take another end for a crash.
    Bot,
    /// No bot runs, and none can while this is held.
    Us(DataDir),
}

impl Stopper {
    /// The lock of the data directory shows whether a bot runs.
    fn of(places: &Places) -> Result<Self> {
        // Without a session this must create no file, least of all as another user than the bot's.
        if !places.data_dir.try_exists().unwrap_or(true) && active(places)?.is_empty() {
            return Ok(Self::Nobody);
        }
        match DataDir::open(&places.data_dir) {
            Ok(data_dir) => Ok(Self::Us(data_dir)),
            Err(DataDirError::InUse { .. }) => Ok(Self::Bot),
            Err(error) => Err(error.into()),
        }
    }
}

/// Stops them at the same time, as each can take its whole grace period. Shows what came of each, and returns the failures.
async fn stop_all(places: &Places, projects: &[ProjectName]) -> Result<Vec<anyhow::Error>> {
    let stopper = Stopper::of(places)?;
    let stops = projects.iter();
    let mut stops: FuturesUnordered<_> = stops
        .map(|project| stop_one(places, &stopper, project))
        .collect();
    let mut failures = Vec::new();
    while let Some(stopped) = stops.next().await {
        // If the output is closed, the others are stopped all the same.
        failures.extend(stopped.and_then(|text| print(&text)).err());
    }
    Ok(failures)
}

async fn stop_one(places: &Places, stopper: &Stopper, project: &ProjectName) -> Result<String> {
    let grace = places.projects.get(project).copied();
    let grace = grace.unwrap_or(places.stop_grace);
    let report = match stopper {
        Stopper::Nobody => None,
        Stopper::Bot => {
            return bot::ask_to_stop(&places.data_dir, project.as_str(), grace + STOP_MARGIN)
                .await
                .with_context(|| format!("a bot runs here and was asked to stop {project}"));
        }
        Stopper::Us(data_dir) => offline::stop(&data_dir.path().join(SESSIONS), project, grace)
            .await
            .with_context(|| format!("{project} is not stopped"))?,
    };
    Ok(reply::stopped_offline(project, report.as_ref()).plain)
}

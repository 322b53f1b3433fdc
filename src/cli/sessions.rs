//! `rcbot status` and `rcbot stop`: the sessions on this host, with no homeserver.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use tracing::warn;

use super::{Failure, block_on, print};
use crate::{
    bot,
    command::reply,
    config::Places,
    data_dir::{self, DataDir, DataDirError},
    remote_control::{
        self, Phase, ProjectName, SessionId, Usage,
        offline::{self, Known},
    },
};

/// How long the bot may take for a stop beyond what the processes have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn status(path: &Path) -> Result<(), Failure> {
    let places = load(path)?;
    let all = look(&places)?;
    let mut lines = Vec::new();
    for project in places.projects.keys() {
        if !all.iter().any(|known| known.project() == project) {
            lines.push(format!("{project}: no session"));
        }
    }
    let usage = remote_control::usage().map_err(|error| Failure::WhileRunning(error.into()))?;
    lines.extend(all.iter().map(|known| describe(known, &usage)));
    lines.sort_unstable();
    print(&lines.join("\n"))
}

/// What is wrong in the configuration and has nothing to do with sessions keeps nobody from looking after them.
fn load(path: &Path) -> Result<Places, Failure> {
    let places = Places::load(path).map_err(|error| Failure::Configuration(error.into()))?;
    if let Some(problems) = &places.problems {
        warn!("{problems}");
    }
    Ok(places)
}

fn look(places: &Places) -> Result<Vec<Known>, Failure> {
    offline::status(&data_dir::sessions(&places.data_dir))
        .map_err(|error| Failure::WhileRunning(error.into()))
}

fn describe(known: &Known, usage: &BTreeMap<SessionId, Usage>) -> String {
    match known {
        Known::Record { status, is_alive } => {
            let line = reply::status_line(status, usage, SystemTime::now());
            match status.session.as_ref().map(|session| session.phase) {
                Some(Phase::Stopping) if !is_alive => format!(
                    "{}: stopped; the bot takes its link back when it runs again",
                    status.project
                ),
                Some(Phase::Starting | Phase::Running) if !is_alive => {
                    format!("{line}; its process has ended, and a bot that runs clears it away")
                }
                Some(Phase::Starting | Phase::Running | Phase::Stopping | Phase::Resting)
                | None => line,
            }
        }
        Known::Unrecorded { project, session } => {
            let taken = usage
                .get(session)
                .map(|usage| format!(", {}", reply::usage(usage)))
                .unwrap_or_default();
            format!("{project}: running, and its record is lost or unreadable{taken}")
        }
        Known::Unreadable { project } => {
            format!("{project}: its record makes no sense; the bot sets it aside at its next start")
        }
    }
}

pub(super) fn stop(path: &Path, project: Option<&str>) -> Result<(), Failure> {
    let places = load(path)?;
    let projects = match project {
        Some(name) => vec![known(&places, name)?],
        None => active(&places)?,
    };
    if projects.is_empty() {
        return print("There is no active session.");
    }
    let mut failures = Vec::new();
    for project in &projects {
        let stopped = block_on(stop_one(&places, project));
        // Where nobody reads what is printed, the others are stopped all the same.
        failures.extend(stopped.and_then(|text| print(&text)).err());
    }
    if failures.len() < 2 {
        return failures.pop().map_or(Ok(()), Err);
    }
    let all = failures.iter();
    let all: Vec<_> = all
        .map(|failure| format!("{:#}", failure.error()))
        .collect();
    Err(Failure::WhileRunning(anyhow!(all.join("; "))))
}

/// A project that the configuration names, or that has or had a session here.
fn known(places: &Places, name: &str) -> Result<ProjectName, Failure> {
    let project = name.parse::<ProjectName>().map_err(|error| {
        Failure::Configuration(anyhow!("{name:?} cannot name a project: {error}"))
    })?;
    if places.projects.contains_key(&project) {
        return Ok(project);
    }
    let all = look(places)?;
    let all: BTreeSet<_> = all
        .iter()
        .map(Known::project)
        .chain(places.projects.keys())
        .map(ProjectName::as_str)
        .collect();
    if all.contains(project.as_str()) {
        return Ok(project);
    }
    let all: Vec<_> = all.into_iter().collect();
    Err(Failure::Configuration(anyhow!(
        "there is no project {project}; projects: {}",
        all.join(", ")
    )))
}

fn active(places: &Places) -> Result<Vec<ProjectName>, Failure> {
    let all = look(places)?;
    let active = all.iter().filter(|known| known.is_active());
    Ok(active.map(|known| known.project().clone()).collect())
}

/// The lock of the data directory tells whether a bot runs: if so, it is asked, as it would take an end that it did not
/// order for an accident.
async fn stop_one(places: &Places, project: &ProjectName) -> anyhow::Result<String> {
    // Nothing is made for this, all the less by another user than the bot's.
    if !places.data_dir.try_exists().unwrap_or(true) {
        return Ok(reply::stopped_offline(project, None).plain);
    }
    let grace = places.projects.get(project).copied();
    let grace = grace.unwrap_or(places.stop_grace);
    let data_dir = match DataDir::open(&places.data_dir) {
        Ok(data_dir) => data_dir,
        Err(DataDirError::InUse { .. }) => {
            return bot::ask_to_stop(&places.data_dir, project.as_str(), grace + PATIENCE)
                .await
                .with_context(|| format!("a bot runs here and was asked to stop {project}"));
        }
        Err(error) => return Err(error.into()),
    };
    let report = offline::stop(&data_dir.sessions(), project, grace)
        .await
        .with_context(|| format!("{project} is not stopped"))?;
    Ok(reply::stopped_offline(project, report.as_ref()).plain)
}

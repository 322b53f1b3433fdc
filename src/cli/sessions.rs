//! `rcbot status` and `rcbot stop`: the sessions on this host, with no homeserver.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::SystemTime,
};

use anyhow::{Context as _, anyhow};

use super::{Failure, block_on, load_config, print};
use crate::{
    bot,
    command::reply,
    config::Config,
    data_dir::{self, DataDir, DataDirError},
    remote_control::{
        self, ProjectName, STOP_GRACE, SessionId, Usage,
        offline::{self, Known},
    },
};

pub(super) fn status(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    let all = offline::status(&data_dir::sessions(&config.data_dir))
        .map_err(|error| Failure::WhileRunning(error.into()))?;
    let mut lines = Vec::new();
    for project in config.projects.keys() {
        if !all.iter().any(|known| name_of(known) == project) {
            lines.push(format!("{project}: no session"));
        }
    }
    let usage = remote_control::usage().map_err(|error| Failure::WhileRunning(error.into()))?;
    lines.extend(all.iter().map(|known| describe(known, &usage)));
    lines.sort_unstable();
    print(&lines.join("\n"))
}

fn name_of(known: &Known) -> &ProjectName {
    match known {
        Known::Record { status, .. } => &status.project,
        Known::Unreadable { project } => project,
    }
}

fn describe(known: &Known, usage: &BTreeMap<SessionId, Usage>) -> String {
    match known {
        Known::Record { status, is_alive } => {
            let line = reply::status_line(status, usage, SystemTime::now());
            match is_alive {
                Some(false) => {
                    format!("{line}; its process has ended, and a bot that runs clears it away")
                }
                Some(true) | None => line,
            }
        }
        Known::Unreadable { project } => {
            format!("{project}: its record makes no sense; the bot sets it aside at its next start")
        }
    }
}

pub(super) fn stop(path: &Path, project: Option<&str>) -> Result<(), Failure> {
    let config = load_config(path)?;
    let projects = match project {
        Some(name) => vec![known(&config, name)?],
        None => active(&config)?,
    };
    if projects.is_empty() {
        return print("There is no active session.");
    }
    let mut failures = Vec::new();
    for project in &projects {
        match block_on(stop_one(&config, project)) {
            Ok(text) => print(&text)?,
            Err(Failure::WhileRunning(error) | Failure::Configuration(error)) => {
                failures.push(error);
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = failures.iter().map(|error| format!("{error:#}")).collect();
    Err(Failure::WhileRunning(anyhow!(all.join("; "))))
}

/// A project that the configuration names or has named, as its record tells.
fn known(config: &Config, name: &str) -> Result<ProjectName, Failure> {
    let project = name.parse::<ProjectName>().map_err(|error| {
        Failure::Configuration(anyhow!("{name:?} cannot name a project: {error}"))
    })?;
    if config.projects.contains_key(&project) {
        return Ok(project);
    }
    let recorded = offline::status(&data_dir::sessions(&config.data_dir))
        .map_err(|error| Failure::WhileRunning(error.into()))?;
    let all: BTreeSet<_> = recorded
        .iter()
        .map(name_of)
        .chain(config.projects.keys())
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

fn active(config: &Config) -> Result<Vec<ProjectName>, Failure> {
    let all = offline::status(&data_dir::sessions(&config.data_dir))
        .map_err(|error| Failure::WhileRunning(error.into()))?;
    let active = all.into_iter().filter_map(|known| match known {
        Known::Record { status, .. } if status.session.is_some() => Some(status.project),
        Known::Record { .. } | Known::Unreadable { .. } => None,
    });
    Ok(active.collect())
}

/// The lock of the data directory tells whether a bot runs: if so, it is asked, as it would take an end that it did not
/// order for an accident.
async fn stop_one(config: &Config, project: &ProjectName) -> anyhow::Result<String> {
    // Nothing is made for this, all the less by another user than the bot's.
    if !config.data_dir.try_exists().unwrap_or(true) {
        return Ok(reply::nothing_to_stop(project).plain);
    }
    let data_dir = match DataDir::open(&config.data_dir) {
        Ok(data_dir) => data_dir,
        Err(DataDirError::InUse { .. }) => {
            return bot::ask_to_stop(&config.data_dir, project.as_str())
                .await
                .context("a bot runs here");
        }
        Err(error) => return Err(error.into()),
    };
    let grace = config
        .projects
        .get(project)
        .map_or(STOP_GRACE, |project| project.project.stop_grace);
    let report = offline::stop(&data_dir.sessions(), project, grace)
        .await
        .with_context(|| format!("{project} is not stopped"))?;
    Ok(match report {
        Some(report) => reply::stopped_offline(project, &report).plain,
        None => reply::nothing_to_stop(project).plain,
    })
}

//! The projects: what stands below `projects`, and what two of them must not share.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{check, section::Section, settings};
use crate::remote_control::{Project, ProjectName, SessionSettings};

/// A project, and who may use it.
#[derive(Debug, Clone)]
pub struct ConfiguredProject {
    /// What runs, and how.
    pub project: Project,
    /// What a sender needs for this project, in place of [`Authorization::power_level`].
    pub power_level: Option<i64>,
}

pub(super) fn read(
    projects: &mut Section<'_>,
    sessions: &SessionSettings,
    folder: &Path,
) -> Option<BTreeMap<ProjectName, ConfiguredProject>> {
    if projects.is_empty() {
        projects.problem_here(
            "none given, wanted at least one: a name, and below it `directory: /path/to/it`",
        );
    }
    let mut known = Vec::new();
    let read = projects.each_section(|name, project| {
        let read = read_project(name, project, sessions.clone(), folder);
        if let Some(read) = &read {
            compare(&read.project, &known, project);
            known.push((read.project.name.clone(), real_path(&read.project)));
        }
        read
    });
    read.into_iter()
        .map(|project| Some((project.as_ref()?.project.name.clone(), project?)))
        .collect()
}

/// What two projects must not share, or better not.
fn compare(project: &Project, known: &[(ProjectName, PathBuf)], section: &mut Section<'_>) {
    let name = project.name.as_str();
    let is_alike = |other: &ProjectName| other.as_str().eq_ignore_ascii_case(name);
    if let Some((other, _)) = known.iter().find(|(other, _)| is_alike(other)) {
        section.problem_here(format!(
            "`{other}` is the same but for upper and lower case, and where file names do not tell these apart the two would \
             share one folder; rename one of them"
        ));
    }
    let directory = real_path(project);
    if let Some((other, _)) = known.iter().find(|(_, known)| *known == directory) {
        section.warning(
            "directory",
            format!(
                "is that of `{other}` too: `claude` serves a directory once, so only one of the two can have a session"
            ),
        );
    }
}

/// The project's directory without symbolic links, as far as it is there.
fn real_path(project: &Project) -> PathBuf {
    let directory = &project.directory;
    directory
        .canonicalize()
        .unwrap_or_else(|_| directory.clone())
}

fn read_project(
    name: &str,
    project: &mut Section<'_>,
    sessions: SessionSettings,
    folder: &Path,
) -> Option<ConfiguredProject> {
    let name = ProjectName::try_from(name.to_owned());
    if let Err(error) = &name {
        project.problem_here(format!("{error}; rename it"));
    }
    let directory = project.required("directory", check::path(folder));
    let power_level = project.optional("power_level", check::power_level);
    let settings = settings::read(project, sessions);
    let deliver_to = read_autostart(project);
    Some(ConfiguredProject {
        project: Project {
            name: name.ok()?,
            directory: directory?,
            deliver_to,
            settings,
        },
        power_level,
    })
}

/// Who gets the link of a session that starts with the bot; nobody, where none does.
fn read_autostart(project: &mut Section<'_>) -> Vec<String> {
    let autostart = project.or("autostart", false, check::flag);
    let users = project.list("deliver_to", check::user_id);
    match (autostart, users.is_empty()) {
        (true, true) => project.problem(
            "autostart",
            "needs deliver_to, wanted a list of users who get the link, such as [\"@admin:example.org\"]",
        ),
        (false, false) => project.problem("deliver_to", "is of no use without autostart: true"),
        (true, false) | (false, true) => {}
    }
    users.iter().map(ToString::to_string).collect()
}

/// Whether a project's directory is there now; else what is there.
pub(crate) fn usable_directory(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is not a directory", path.display())),
        Err(error) => Err(format!("no directory at {} ({error})", path.display())),
    }
}

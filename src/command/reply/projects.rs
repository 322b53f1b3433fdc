//! What can be started: the projects of the configuration and those below its roots.

use std::time::SystemTime;

use super::{MOST_LISTED, Mark, Reply, moment, phase};
use crate::{
    config::Seen,
    remote_control::{FolderFacts, Phase, ProjectName},
};

#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: ProjectName,
    pub(crate) is_configured: bool,
    pub(crate) phase: Option<Phase>,
    pub(crate) last_used: Option<SystemTime>,
}

/// The projects whose names hold a word, in the order in which people look for them: those of the configuration, those with a
/// session, those that were used last, the others; and how many there are beyond those that are shown.
pub(crate) fn in_order(mut all: Vec<Listed>, word: Option<&str>) -> (Vec<Listed>, usize) {
    let word = word.unwrap_or_default().to_lowercase();
    all.retain(|project| project.name.as_str().to_lowercase().contains(&word));
    all.sort_by(|one, other| {
        let rank = |it: &Listed| (!it.is_configured, it.phase.is_none());
        let by_use = |it: &Listed| it.last_used.filter(|_| !it.is_configured);
        rank(one)
            .cmp(&rank(other))
            .then_with(|| by_use(other).cmp(&by_use(one)))
            .then_with(|| one.name.cmp(&other.name))
    });
    let more = all.len().saturating_sub(MOST_LISTED);
    all.truncate(MOST_LISTED);
    (all, more)
}

/// What is listed, and how many there are besides.
pub(crate) struct List<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) word: Option<&'a str>,
    pub(crate) projects: Vec<(Listed, FolderFacts)>,
    pub(crate) more: usize,
    pub(crate) roots: &'a [Result<Seen, String>],
}

pub(crate) fn projects(list: &List<'_>, now: SystemTime) -> Reply {
    let (prefix, more) = (list.prefix, list.more);
    let lines = list.projects.iter();
    let lines = lines.map(|(project, facts)| line(project, facts, now));
    let mut lines: Vec<_> = lines.collect();
    if lines.is_empty() {
        lines.push(Reply::new(match list.word {
            Some(_) => format!("No project's name holds that. `{prefix} projects` lists all."),
            None => "There is no project yet: make a folder below a project root.".to_owned(),
        }));
    }
    if more > 0 {
        lines.push(Reply::new(format!(
            "And {more} more. `{prefix} projects WORD` lists those whose names hold a word."
        )));
    }
    let seen = || list.roots.iter().flatten();
    if seen().any(|seen| seen.is_cut) {
        lines.push(Reply::new(
            "A project root has too many folders to list them all; each starts by its whole name.",
        ));
    }
    let unreadable = list.roots.len() - seen().count();
    if unreadable > 0 {
        lines.push(Reply::new(format!(
            "{unreadable} of the project roots cannot be read: `{prefix} doctor` says which, and why."
        )));
    }
    // A search for a word has no use for these.
    let counted = || seen().filter(|_| list.word.is_none());
    let unfit: usize = counted().map(|seen| seen.unfit).sum();
    if unfit > 0 {
        lines.push(Reply::new(format!(
            "Folders with names that cannot be a project's: {unfit}. Letters, digits, `-`, `_` and `.` can: rename them, or name \
             them under `projects` in the bot's configuration."
        )));
    }
    let outside: usize = counted().map(|seen| seen.outside).sum();
    if outside > 0 {
        lines.push(Reply::new(format!(
            "Symbolic links that lead out of their project root, and are no projects: {outside}."
        )));
    }
    Reply::lines(lines)
}

fn line(project: &Listed, facts: &FolderFacts, now: SystemTime) -> Reply {
    let mark = project.phase.map_or(Mark::Idle, Mark::of);
    let mut said = Vec::new();
    said.extend(project.phase.map(|it| phase(it).to_owned()));
    let branch = facts.branch.as_ref();
    said.extend(branch.map(|branch| format!("branch `{branch}`")));
    if facts.is_trusted == Some(false) {
        said.push("not trusted by claude yet".to_owned());
    }
    if project.phase.is_none() {
        let used = |time| format!("last used {}", moment(time, now));
        said.extend(project.last_used.map(used));
    }
    let head = format!("**{}**", project.name);
    Reply::marked(
        mark,
        if said.is_empty() {
            head
        } else {
            format!("{head}: {}", said.join(", "))
        },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn listed(name: &str, is_configured: bool, phase: Option<Phase>, used: Option<u64>) -> Listed {
        Listed {
            name: name.parse().unwrap(),
            is_configured,
            phase,
            last_used: used.map(|secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs)),
        }
    }

    fn facts(branch: Option<&str>, is_trusted: Option<bool>) -> FolderFacts {
        let branch = branch.map(str::to_owned);
        FolderFacts { is_trusted, branch }
    }

    #[test]
    fn configured_projects_come_first_then_those_that_run_then_those_used_last() {
        let all = vec![
            listed("a-never", false, None, None),
            listed("b-old", false, None, Some(1_000)),
            listed("c-new", false, None, Some(2_000)),
            listed("d-running", false, Some(Phase::Running), Some(1)),
            listed("z-configured", true, None, None),
            listed("y-configured", true, None, Some(1)),
        ];
        let names = |word| -> Vec<_> {
            let (projects, _) = in_order(all.clone(), word);
            projects.iter().map(|it| it.name.to_string()).collect()
        };
        let order = [
            "y-configured",
            "z-configured",
            "d-running",
            "c-new",
            "b-old",
            "a-never",
        ];
        assert_eq!(names(None), order);
        assert_eq!(names(Some("NE")), ["c-new", "a-never"]);
        assert!(names(Some("nothing")).is_empty());
    }

    #[test]
    fn forty_are_listed_and_the_rest_is_counted() {
        let all = (0..240)
            .map(|it| listed(&format!("p{it}"), false, None, None))
            .collect();
        let (projects, more) = in_order(all, None);
        assert_eq!((projects.len(), more), (40, 200));
        let projects = projects
            .into_iter()
            .map(|it| (it, facts(None, None)))
            .collect();
        let list = List {
            prefix: "!rc",
            word: None,
            projects,
            more,
            roots: &[],
        };
        let said = super::projects(&list, SystemTime::UNIX_EPOCH).plain;
        assert_eq!(said.lines().count(), 41);
        let rest = "And 200 more. `!rc projects WORD` lists those whose names hold a word.";
        assert!(said.ends_with(rest), "{said}");
    }

    #[test]
    fn a_line_says_what_runs_on_which_branch_and_whether_it_is_trusted() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_mins(50);
        let said = |project: &Listed, facts: &FolderFacts| line(project, facts, now).plain;
        let running = listed("web", false, Some(Phase::Running), Some(2_000));
        assert_eq!(
            said(&running, &facts(Some("main"), Some(true))),
            "web: running, branch `main`"
        );
        let idle = listed("web", false, None, Some(1_000));
        assert_eq!(
            said(&idle, &facts(None, Some(false))),
            "web: not trusted by claude yet, last used 00:16 UTC"
        );
        assert_eq!(
            said(&listed("web", true, None, None), &facts(None, None)),
            "web"
        );
    }
}

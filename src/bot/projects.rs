//! The projects: those of the configuration, and the folders below its roots, which are read when somebody asks.
//!
//! Invariant: the loop never waits for a root. It remembers the found projects that it works with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};
use tracing::warn;

use super::{Bot, Event, hosts};
use crate::{
    command::{
        Policy,
        reply::{self, List, Listed, OtherHost, Reply},
    },
    config::{
        Config, ConfiguredProject, ConfiguredProjects, Found,
        patience::{self, LIMIT},
    },
    matrix::ReplyTo,
    remote_control::{
        FolderFacts, Phase, Project, ProjectName, claude::prerequisites::TrustReader, last_used,
    },
};

/// How often the roots are read to announce what is below them to other hosts: a look is over when the next one begins.
pub(super) const LOOKS_EVERY: Duration = LIMIT;

/// The projects that the loop knows.
#[derive(Debug, Clone)]
pub(super) struct Projects {
    pub(super) config: Arc<Config>,
    /// Those below roots that have or had a session, as they were when it began.
    found: ConfiguredProjects,
    /// Held while the roots are read: if they hang, one thread waits, and not one for each command.
    turn: Arc<Mutex<()>>,
    /// The same while projects are listed, which reads the folders of all: one that hangs must not keep the roots from answering.
    list_turn: Arc<Mutex<()>>,
    answer_at_start: bool,
}

impl Projects {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            found: ConfiguredProjects::new(),
            turn: Arc::default(),
            list_turn: Arc::default(),
            answer_at_start: true,
        }
    }

    pub(super) fn has_roots(&self) -> bool {
        !self.config.project_roots.is_empty()
    }

    /// One of the configuration, or one that was found earlier.
    pub(super) fn get(&self, name: &ProjectName) -> Option<&ConfiguredProject> {
        let configured = self.config.projects.get(name);
        configured.or_else(|| self.found.get(name))
    }

    pub(super) fn remember(&mut self, found: ConfiguredProject) {
        self.found.insert(found.project.name.clone(), found);
    }

    /// What is required of a user who commands a project or gets its link.
    pub(super) fn policy(&self, project: &ProjectName) -> Policy {
        Policy::of_project(&self.config, self.get(project))
    }

    /// The project of a session on record, before the loop begins. Roots that timed out once are not asked again.
    pub(super) fn find_at_start(&mut self, name: &ProjectName) -> Option<Project> {
        if !self.has_roots() || !self.answer_at_start {
            return None;
        }
        let (config, wanted) = (Arc::clone(&self.config), name.clone());
        let asked = patience::ask(move || config.project(&wanted));
        let Some(found) = asked.answer(Instant::now()) else {
            warn!("project roots do not answer");
            self.answer_at_start = false;
            return None;
        };
        let found = found?;
        let project = found.project.clone();
        self.remember(found);
        Some(project)
    }

    /// What is below the roots now, and the project of one whole name.
    pub(super) async fn look(
        &self,
        whole: Option<ProjectName>,
    ) -> (Found, Option<ConfiguredProject>) {
        if !self.has_roots() {
            return (Found::default(), None);
        }
        let config = Arc::clone(&self.config);
        let looking = in_turn(&self.turn, move || {
            let whole = whole.and_then(|name| config.project(&name));
            (config.look_below_roots(), whole)
        });
        looking.await.unwrap_or_else(|| {
            let roots = self.config.project_roots.iter();
            let silent = roots.map(|_| Err("it does not answer".to_owned()));
            let found = Found {
                roots: silent.collect(),
                ..Found::default()
            };
            (found, None)
        })
    }

    /// The project of a whole name, as it is now.
    pub(super) async fn resolve(&self, name: &ProjectName) -> Option<ConfiguredProject> {
        let (config, name) = (Arc::clone(&self.config), name.clone());
        in_turn(&self.turn, move || config.project(&name)).await?
    }
}

/// `None`: it timed out, or panicked.
async fn in_turn<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = Arc::clone(turn);
    let asking = async {
        let turn = turn.lock_owned().await;
        let asking = spawn_blocking(move || {
            let _turn = turn;
            ask()
        });
        asking.await.ok()
    };
    timeout(LIMIT, asking).await.ok().flatten()
}

fn warn_of_roots(config: &Config, roots: &[Result<impl Sized, String>]) {
    for (root, seen) in config.project_roots.iter().zip(roots) {
        if let Err(error) = seen {
            let root = root.directory.display();
            warn!(%root, error, "project root cannot be read: its projects are missing until that is fixed");
        }
    }
}

impl Bot {
    /// Reads what is announced to other hosts.
    pub(super) fn look_below_roots(&mut self) {
        let projects = self.projects.clone();
        self.spawn(async move { Event::LookedBelowRoots(projects.look(None).await.0) });
    }

    pub(super) fn on_looked(&mut self, found: Found) {
        let known = self.below_roots.take().unwrap_or_default();
        let failed = |found: &Found| found.roots.iter().map(Result::is_err).collect::<Vec<_>>();
        if failed(&found) != failed(&known) {
            warn_of_roots(&self.config, &found.roots);
        }
        self.below_roots = Some(found);
        self.announce_host();
    }

    pub(super) fn show_projects(
        &mut self,
        word: Option<String>,
        reply_to: ReplyTo,
        elsewhere: Vec<OtherHost>,
    ) {
        let matrix = self.matrix.clone();
        let projects = self.projects.clone();
        let statuses = self.remote_control.status();
        let phases = statuses.into_iter().filter_map(|status| {
            let session = status.session?;
            Some((status.project, session.phase))
        });
        let phases: BTreeMap<_, _> = phases.collect();
        let sessions = self.remote_control.folder().to_owned();
        let host = hosts::own_name(&self.config);
        self.spawn_quiet(async move {
            let (found, _) = projects.look(None).await;
            warn_of_roots(&projects.config, &found.roots);
            let prefix = projects.config.command_prefix.clone();
            let used = spawn_blocking(move || last_used(&sessions)).await;
            let used = used.unwrap_or_default();
            let mut text = projects.list(&found, &phases, &used, word.as_deref()).await;
            if !elsewhere.is_empty() {
                text = reply::projects_of_hosts(&host, text, &elsewhere, &prefix);
            }
            super::answer::say(&matrix, &text, Some(&reply_to)).await;
        });
    }
}

impl Projects {
    /// Reads files of each project that is shown. If one of them hangs, none of the folders is described.
    async fn list(
        &self,
        found: &Found,
        phases: &BTreeMap<ProjectName, Phase>,
        used: &BTreeMap<ProjectName, SystemTime>,
        word: Option<&str>,
    ) -> Reply {
        let configured = &self.config.projects;
        let names = configured.keys().chain(phases.keys());
        let names: BTreeSet<_> = names.chain(&found.projects).collect();
        let all = names.into_iter().map(|name| Listed {
            name: name.clone(),
            is_configured: configured.contains_key(name),
            phase: phases.get(name).copied(),
            last_used: used.get(name).copied(),
        });
        let (shown, more) = reply::in_order(all.collect(), word);
        let (this, listed) = (self.clone(), shown.clone());
        let facts = in_turn(&self.list_turn, move || this.facts(&listed)).await;
        let facts = facts.unwrap_or_else(|| {
            warn!("a project's folder does not answer: projects are listed without what is in their folders");
            vec![FolderFacts::default(); shown.len()]
        });
        let list = List {
            prefix: &self.config.command_prefix,
            word,
            projects: shown.into_iter().zip(facts).collect(),
            more,
            roots: &found.roots,
        };
        reply::projects(&list, SystemTime::now())
    }

    /// Of each of these projects. Reads files, so it may block.
    fn facts(&self, listed: &[Listed]) -> Vec<FolderFacts> {
        let mut trust = TrustReader::default();
        let facts = listed.iter().map(|Listed { name, .. }| {
            // If the folder of a session is gone, its earlier state counts.
            let project = self.config.project(name);
            let project = project.or_else(|| self.get(name).cloned());
            project
                .map(|it| FolderFacts::look(&it.project, &mut trust))
                .unwrap_or_default()
        });
        facts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::tests::silent_bot;

    #[tokio::test]
    async fn projects_are_listed_also_where_a_folder_does_not_answer() {
        let folder = tempfile::TempDir::new().unwrap();
        let (bot, _) = silent_bot(folder.path());
        // Held as by a reader that hangs.
        let hangs = Arc::clone(&bot.projects.list_turn).lock_owned().await;
        let (found, phases, used) = (Found::default(), BTreeMap::new(), BTreeMap::new());
        let listing = bot.projects.list(&found, &phases, &used, None);
        let text = timeout(Duration::from_mins(1), listing).await.unwrap();
        drop(hangs);
        assert!(text.plain.contains("website"), "{}", text.plain);
    }
}

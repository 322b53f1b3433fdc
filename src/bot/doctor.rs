//! `doctor`: the report of `rcbot check` for those who are not at the host, in confidence, as it names files and people. And
//! the daily check of logins.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use matrix_sdk::ruma::OwnedUserId;
use tokio::{runtime, task::spawn_blocking, time::timeout};
use tracing::error;

use super::{
    Bot, Event,
    audit::Conclusion,
    deliver::{self, Shown},
    hosts,
};
use crate::{
    check::{self, Check, Finding, Outcome},
    command::{
        Permit, Policy,
        reply::{self, Reply, Secret},
    },
    config::{Config, Notification},
    matrix::Sound,
    remote_control::{Connection, Project, ProjectName, Request, Status, login_ends_in},
};

/// How often the bot checks when the login of `claude` ends: often enough for those who read the room once a day.
pub(super) const LOOKS_EVERY: Duration = Duration::from_hours(24);

/// How long the checks may take: a homeserver that answers none takes minutes, and a dead network file system answers never.
const LONGEST_EXAMINATION: Duration = Duration::from_mins(10);

impl Bot {
    /// Runs all checks, which takes some seconds, and sends the report to the requester; one at a time.
    pub(super) fn examine(&mut self, permit: &Permit, request: Request) {
        if std::mem::replace(&mut self.is_examining, true) {
            let conclusion = Conclusion::new("refused, as one is under way");
            return self.answer(None, &request, Ok(&reply::already_examining()), &conclusion);
        }
        let (matrix, config) = (self.matrix.clone(), self.config.clone());
        let user = OwnedUserId::from(permit.requester());
        let statuses = self.remote_control.status();
        let sessions: Vec<_> = statuses.iter().filter_map(connection).collect();
        self.spawn(async move {
            let policy = Policy::of_no_project(&config);
            let examining = spawn_blocking(move || report(&config, sessions));
            let report = match timeout(LONGEST_EXAMINATION, examining).await {
                Ok(Ok(report)) => report,
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(io::Error::other(
                    "it took more than 10 minutes: a directory, a program or the homeserver does not answer",
                )),
            };
            let (report, summary) = report.unwrap_or_else(|error| {
                error!(%error, "no report could be made");
                let reason = error.to_string();
                (reply::no_report(&reason), "Nothing was checked.".to_owned())
            });
            Event::Shown(Shown {
                result: deliver::show(&matrix, &user, &report, &policy, None).await,
                secret: Secret::Report,
                sent: reply::report_sent(&summary),
                request,
                following: None,
            })
        });
    }

    /// Checks how long the logins of projects and of running sessions last.
    pub(super) fn look_at_logins(&mut self) {
        let config = Arc::clone(&self.config);
        let statuses = self.remote_control.status().into_iter();
        let active = statuses.filter(|status| status.session.is_some());
        let active = active.filter_map(|status| self.projects.get(&status.project));
        let active: Vec<_> = active.map(|active| active.project.clone()).collect();
        self.spawn(async move {
            let ending = spawn_blocking(move || EndingLogins::find(&config, active));
            Event::LoginsEnd(ending.await.unwrap_or_default())
        });
    }

    /// Warns the room, and each user with links about all of theirs together.
    pub(super) fn on_logins_end(&mut self, logins: EndingLogins) {
        let host = hosts::own_name(&self.config);
        for (left, projects) in logins.of_projects {
            self.announce(&reply::login_ends(host.as_str(), &projects, left));
        }
        let mut of_users = BTreeMap::<_, (Vec<_>, bool)>::new();
        for (project, left) in logins.of_sessions {
            let rings = self.sound_of(&project, Some(Notification::Login)) == Sound::Rings;
            for user in self.remote_control.recipients(&project) {
                let (projects, ring) = of_users.entry((user, left)).or_default();
                projects.push(project.to_string());
                *ring |= rings;
            }
        }
        for ((user, left), (projects, rings)) in of_users {
            let text = reply::login_ends(host.as_str(), &projects, left);
            let sound = if rings { Sound::Rings } else { Sound::Silent };
            self.notify(&user, &text, sound);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct EndingLogins {
    /// The projects and roots by the time that their login lasts.
    of_projects: BTreeMap<Duration, Vec<String>>,
    /// The projects that have a session, and how long its login lasts.
    of_sessions: Vec<(ProjectName, Duration)>,
}

impl EndingLogins {
    /// Reads files. `active`: the projects that have a session.
    fn find(config: &Config, active: Vec<Project>) -> Self {
        let now = SystemTime::now();
        let projects = config.projects.values().map(|configured| {
            let project = &configured.project;
            let name = project.name.to_string();
            (name, &project.settings, &project.directory)
        });
        // What is below a root has the root's settings, and with them its login.
        let roots = config.project_roots.iter().map(|root| {
            let name = root.directory.file_name().unwrap_or_default();
            let name = format!("what is below {}", name.display());
            (name, &root.settings, &root.directory)
        });
        let mut of_projects = BTreeMap::<_, Vec<_>>::new();
        for (name, settings, directory) in projects.chain(roots) {
            if let Some(left) = login_ends_in(settings, directory, now) {
                of_projects.entry(left).or_default().push(name);
            }
        }
        let of_sessions = active.into_iter().filter_map(|project| {
            let left = login_ends_in(&project.settings, &project.directory, now)?;
            Some((project.name, left))
        });
        Self {
            of_projects,
            of_sessions: of_sessions.collect(),
        }
    }
}

/// Blocks on files and programs, so it has a separate thread and runtime, which shutdown need not wait for.
fn report(config: &Config, sessions: Vec<Finding>) -> io::Result<(Reply, String)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The file as it is now, which takes effect with the next restart.
    let (mut report, _) = runtime.block_on(check::everything(&config.file));
    runtime.shutdown_background();
    report.findings.extend(sessions);
    let host = hosts::own_name(config);
    let (summary, lines) = (report.summary(), report.lines(false));
    let report = reply::report(host.as_str(), &summary, &lines);
    Ok((report, summary))
}

/// The connection as a session's program reports it, which only the running bot knows.
fn connection(status: &Status) -> Option<Finding> {
    let said = status.session.as_ref()?.connection?;
    let found = reply::connection(said);
    Some(Finding {
        check: Check::Connection,
        project: Some(status.project.to_string()),
        outcome: if said == Connection::Connected {
            Outcome::passed(found)
        } else {
            let remedy =
                "check the host's network; if it is well, stop the session and start it again";
            Outcome::warning(found, remedy)
        },
    })
}

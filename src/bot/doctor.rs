//! What `rcbot check` says, for those who are not at the host: in confidence, as it names files and people.

use std::{io, path::Path};

use matrix_sdk::ruma::OwnedUserId;
use tokio::{runtime, task::spawn_blocking};
use tracing::error;

use super::{Bot, Event, audit::Conclusion, deliver, hosts};
use crate::{
    check::{self, Check, Outcome, Report},
    command::{
        Permit, Policy,
        reply::{self, Finding, Reply, Secret},
    },
    config::Config,
    remote_control::{Connection, Request, Status},
};

impl Bot {
    /// Tries everything, which takes some seconds, and shows it to the requester; one at a time.
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
            let policy = Policy::of(&config, None);
            let report = match spawn_blocking(move || report(&config, sessions)).await {
                Ok(report) => report,
                Err(error) => Err(error.into()),
            };
            let report = report.unwrap_or_else(|error| {
                error!(%error, "no report could be made");
                reply::no_report(&error.to_string())
            });
            Event::Shown {
                secret: Secret::Report,
                request,
                result: deliver::show(matrix, user, report, policy).await,
            }
        });
    }
}

/// Reads files and waits for programs, and so has a thread and a runtime of its own, which the end of the bot need not
/// wait for.
fn report(config: &Config, sessions: Vec<Check>) -> io::Result<Reply> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = runtime.block_on(everything(&config.file));
    report.checks.extend(sessions);
    runtime.shutdown_background();
    let findings: Vec<_> = report.checks.iter().map(finding).collect();
    let host = hosts::own_name(config);
    Ok(reply::report(host.as_str(), &findings, &report.summary()))
}

/// The file as it is now: what it says counts from the bot's next start.
async fn everything(config_file: &Path) -> Report {
    let report = check::everything(config_file).await;
    report.unwrap_or_else(|error| check::without_configuration(&error))
}

/// What a session's program says of its connection, which only the bot knows that looks after it.
fn connection(status: &Status) -> Option<Check> {
    let said = status.session.as_ref()?.connection?;
    let found = reply::connection(said);
    Some(Check {
        name: format!("{}: connection", status.project),
        outcome: if said == Connection::Connected {
            Outcome::Passed { found }
        } else {
            let remedy =
                "check the host's network; if it is well, stop the session and start it again"
                    .to_owned();
            Outcome::Warning { found, remedy }
        },
    })
}

fn finding(check: &Check) -> Finding {
    Finding {
        line: check.to_string(),
        is_good: match check.outcome {
            Outcome::Passed { .. } | Outcome::Skipped { .. } => true,
            Outcome::Warning { .. } | Outcome::Failed { .. } => false,
        },
    }
}

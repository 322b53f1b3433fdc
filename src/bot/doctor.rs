//! What `rcbot check` says, for those who are not at the host: in confidence, as it names files and people.

use std::{io, path::Path};

use matrix_sdk::ruma::OwnedUserId;
use tokio::{runtime, task::spawn_blocking};
use tracing::{error, warn};

use super::{
    Bot, Event,
    audit::{self, Conclusion},
    deliver::{self, NotDelivered},
    hosts,
};
use crate::{
    check::{self, Outcome, Report},
    command::{
        Permit,
        reply::{self, Finding, Reply},
    },
    config::Config,
    matrix::{Chain, Message},
};

/// Why there is no report in the requester's direct message.
#[derive(Debug)]
pub(super) enum NoReport {
    /// Nothing could be tried.
    NotMade(String),
    /// It cannot get there.
    NotShown(NotDelivered),
}

impl Bot {
    /// Tries everything, which takes some seconds, and shows it to the requester; one at a time.
    pub(super) fn examine(&mut self, message: &Message, permit: &Permit) {
        if std::mem::replace(&mut self.is_examining, true) {
            self.say(message, &reply::already_examining());
            return audit::concluded(message, &Conclusion::new("refused, as one is under way"));
        }
        let (line, config) = (self.line.clone(), self.config.clone());
        let policy = self.queue.policy(None);
        let (message, requester) = (message.clone(), OwnedUserId::from(permit.requester()));
        self.spawn(async move {
            let result = match spawn_blocking(move || report(&config)).await {
                Ok(Ok(text)) => deliver::show(line, requester, text, policy)
                    .await
                    .map_err(NoReport::NotShown),
                Ok(Err(error)) => Err(NoReport::NotMade(error.to_string())),
                Err(error) => Err(NoReport::NotMade(error.to_string())),
            };
            Event::Examined { message, result }
        });
    }

    pub(super) fn on_examined(&mut self, message: &Message, result: Result<(), NoReport>) {
        self.is_examining = false;
        let (text, conclusion) = match result {
            Ok(()) => (reply::report_sent(), Conclusion::new("report sent")),
            Err(NoReport::NotMade(error)) => {
                error!(error, "no report could be made");
                (reply::no_report(), not_sent(error))
            }
            Err(NoReport::NotShown(NotDelivered::NotConfidential(reason))) => {
                warn!(requester = %message.sender, ?reason, "report not sent");
                let why = format!("{reason:?}");
                (reply::report_undeliverable(&reason), not_sent(why))
            }
            Err(NoReport::NotShown(NotDelivered::Denied(reason))) => {
                (reply::denied(&reason), not_sent(format!("{reason:?}")))
            }
            Err(NoReport::NotShown(NotDelivered::Fault(fault))) => {
                let error = Chain(&fault).to_string();
                error!(requester = %message.sender, error, "report not sent");
                (reply::no_report(), not_sent(error))
            }
        };
        self.say(message, &text);
        audit::concluded(message, &conclusion);
    }
}

fn not_sent(why: String) -> Conclusion {
    Conclusion::because("report not sent", why)
}

/// Reads files and waits for programs, and so has a thread and a runtime of its own, which the end of the bot need not
/// wait for.
fn report(config: &Config) -> io::Result<Reply> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(everything(&config.file));
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

fn finding(check: &check::Check) -> Finding {
    Finding {
        line: check.to_string(),
        is_good: match check.outcome {
            Outcome::Passed { .. } | Outcome::Noted { .. } | Outcome::Skipped { .. } => true,
            Outcome::Warning { .. } | Outcome::Failed { .. } => false,
        },
    }
}

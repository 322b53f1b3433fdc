//! The checks and their outcomes.
//!
//! Invariant: pure. A report can be shown to anyone who may run the bot; no token or key is in it.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::{command::reply::counted, remote_control::ProjectName};

use Verdict::{Failed, Passed, Skipped, Warning};

/// The version of [`Report::to_json`]: another one means that a key or an id has changed its meaning or is gone.
const SCHEMA: u32 = 1;

/// One table: each check with its id, which monitoring relies on and which never changes, and its label for people.
macro_rules! checks {
    ($($check:ident $id:literal $label:literal)*) => {
        /// A check, in the order in which a start needs it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check {
            $(#[doc = $label] $check,)*
        }

        impl Check {
            /// Each of them.
            pub const ALL: &[Self] = &[$(Self::$check),*];

            /// For machines.
            pub fn id(self) -> &'static str {
                match self {
                    $(Self::$check => $id,)*
                }
            }

            /// For people.
            pub(crate) fn label(self) -> &'static str {
                match self {
                    $(Self::$check => $label,)*
                }
            }
        }
    };
}

checks! {
    CheckedAs "checked_as" "checked as"
    Configuration "configuration" "configuration"
    Registration "registration" "registration"
    Homeserver "homeserver" "homeserver"
    ServerName "server_name" "server name"
    Account "account" "bot's account"
    Identity "identity" "identity and recovery key"
    Sync "sync" "sync"
    Room "room" "admin room"
    Membership "membership" "admin room membership"
    Upgrade "upgrade" "admin room upgrade"
    Encryption "encryption" "admin room encryption"
    Power "power" "bot's power"
    Hosts "hosts" "hosts in the room"
    Access "access" "admin room access"
    Commanders "commanders" "who may command"
    PinnedIdentities "pinned_identities" "pinned identities"
    DataDirectory "data_directory" "data directory"
    DiskSpace "disk_space" "disk space"
    ProjectRoots "project_roots" "project roots"
    Unit "unit" "systemd unit"
    Directory "directory" "directory"
    Command "command" "command"
    ResumeCommand "resume_command" "resume command"
    SettingsFile "settings_file" "settings file"
    Settings "settings" "settings"
    Login "login" "login"
    Trust "trust" "workspace trust"
    Consent "consent" "consent"
    Connection "connection" "connection"
}

/// How it went, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The bot, or a session, does not work as it is.
    Failed,
    /// The bot works, but something should be done.
    Warning,
    Skipped,
    Passed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// What was found, or why the check was not run.
    pub(crate) found: String,
    /// What to do about it: of what has failed, and of warnings.
    pub(crate) remedy: Option<String>,
}

/// The outcome of a check, with what the next ones need. `Err`: they cannot be run.
pub(super) type Found<T> = Result<(Outcome, T), Outcome>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    /// For which project. `None`: for the bot.
    pub(crate) project: Option<String>,
    pub(crate) outcome: Outcome,
}

/// All checks, in the order in which a start needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Each check stands once in it for the bot, or once for each project.
    pub(crate) findings: Vec<Finding>,
    /// The project of all that is added now. `None`: the bot.
    project: Option<String>,
}

impl Outcome {
    pub(crate) fn passed(found: impl Into<String>) -> Self {
        Self::new(Passed, found, None)
    }

    pub(super) fn skipped(because: impl Into<String>) -> Self {
        Self::new(Skipped, because, None)
    }

    pub(crate) fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Warning, found, Some(remedy.into()))
    }

    pub(super) fn failed(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Failed, found, Some(remedy.into()))
    }

    fn new(verdict: Verdict, found: impl Into<String>, remedy: Option<String>) -> Self {
        let found = found.into();
        Self {
            verdict,
            found,
            remedy,
        }
    }
}

impl Verdict {
    /// For people, and for machines.
    fn names(self) -> (char, &'static str) {
        match self {
            Failed => ('✘', "failed"),
            Warning => ('⚠', "warning"),
            Skipped => ('–', "skipped"),
            Passed => ('✔', "passed"),
        }
    }
}

/// Where no other check depends on it, both are outcomes.
impl From<Result<Outcome, Outcome>> for Outcome {
    fn from(found: Result<Outcome, Outcome>) -> Self {
        let (Ok(outcome) | Err(outcome)) = found;
        outcome
    }
}

impl Report {
    /// All that is added from now on is for this project.
    pub(super) fn begin(&mut self, project: &ProjectName) {
        self.project = Some(project.to_string());
    }

    pub(super) fn add(&mut self, check: Check, found: impl Into<Outcome>) {
        self.findings.push(Finding {
            check,
            project: self.project.clone(),
            outcome: found.into(),
        });
    }

    /// Adds an outcome, and returns what the next checks need. `None`: they cannot be run.
    pub(super) fn step<T>(&mut self, check: Check, found: Found<T>) -> Option<T> {
        let (outcome, then) = match found {
            Ok((outcome, then)) => (outcome, Some(then)),
            Err(outcome) => (outcome, None),
        };
        self.add(check, outcome);
        then
    }

    /// Skips each of these that is not in the report yet, because of the last outcome.
    pub(super) fn skip(&mut self, checks: RangeInclusive<Check>) {
        let last = self.findings.last().map(|finding| finding.check.label());
        let because = format!("\"{}\" comes first", last.unwrap_or_default());
        let all = Check::ALL.iter().copied();
        self.skip_because(all.filter(|check| checks.contains(check)), &because);
    }

    /// The same for another reason.
    pub(super) fn skip_because(&mut self, checks: impl IntoIterator<Item = Check>, because: &str) {
        for check in checks {
            let mut known = self.findings.iter();
            if !known.any(|it| it.check == check && it.project == self.project) {
                self.add(check, Outcome::skipped(because));
            }
        }
    }

    pub(crate) fn has_failures(&self) -> bool {
        self.count(Failed) > 0
    }

    /// For people: who looked, what has failed, warnings; with `all` what was not tried and what passed too.
    pub(crate) fn lines(&self, all: bool) -> Vec<String> {
        let is_shown = |finding: &&Finding| {
            all || finding.outcome.verdict <= Warning || finding.check == Check::CheckedAs
        };
        let mut shown: Vec<_> = self.findings.iter().filter(is_shown).collect();
        shown.sort_by_key(|it| (it.check != Check::CheckedAs, it.outcome.verdict));
        // An outcome of several projects has one entry.
        let mut groups: Vec<(&Finding, Vec<&str>)> = Vec::new();
        for finding in shown {
            let project = finding.project.as_deref();
            let is_same = |it: &Finding| it.check == finding.check && it.outcome == finding.outcome;
            match groups.iter_mut().find(|(first, _)| is_same(first)) {
                Some((_, projects)) => projects.extend(project),
                None => groups.push((finding, Vec::from_iter(project))),
            }
        }
        let lines = groups.iter();
        lines
            .map(|(first, projects)| first.describe(&projects.join(", ")))
            .collect()
    }

    /// How it went as a whole, in one sentence.
    pub(crate) fn summary(&self) -> String {
        let parts = [
            (Failed, "failed"),
            (Warning, "to be looked at"),
            (Passed, "passed"),
            (Skipped, "not tried"),
        ];
        let parts = parts.map(|(verdict, what)| (self.count(verdict), what));
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        format!(
            "{}: {}.",
            counted(self.findings.len(), "check", "checks"),
            parts.join(", ")
        )
    }

    /// For machines.
    pub(crate) fn to_json(&self) -> Value {
        let checks = self.findings.iter().map(|finding| {
            json!({
                "id": finding.check.id(),
                "project": finding.project,
                "label": finding.check.label(),
                "outcome": finding.outcome.verdict.names().1,
                "found": finding.outcome.found,
                "remedy": finding.outcome.remedy,
            })
        });
        json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "failed": self.count(Failed),
            "warnings": self.count(Warning),
            "checks": checks.collect::<Vec<_>>(),
        })
    }

    fn count(&self, verdict: Verdict) -> usize {
        let verdicts = self.findings.iter().map(|finding| finding.outcome.verdict);
        verdicts.filter(|each| *each == verdict).count()
    }
}

impl Finding {
    /// What was found, and below it the remedy.
    fn describe(&self, projects: &str) -> String {
        let (label, outcome) = (self.check.label(), &self.outcome);
        let (mark, _) = outcome.verdict.names();
        let colon = if projects.is_empty() { "" } else { ": " };
        let mut text = format!("{mark} {projects}{colon}{label}: {}", outcome.found);
        if let Some(remedy) = &outcome.remedy {
            let what = match outcome.verdict {
                Warning => "Better",
                Failed | Skipped | Passed => "To fix it",
            };
            text.extend(["\n   ", what, ": ", remedy]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add(Check::CheckedAs, Outcome::passed("alice"));
        report.add(Check::Homeserver, Outcome::passed("Synapse 1.163.2"));
        report.add(Check::Encryption, Outcome::warning("off", "turn it on"));
        for project in ["api", "website"] {
            report.findings.push(Finding {
                check: Check::Login,
                project: Some(project.to_owned()),
                outcome: Outcome::failed("claude is not logged in", "`claude auth login`"),
            });
        }
        report
    }

    #[test]
    fn a_report_begins_with_failures_and_names_several_projects_once() {
        let mut report = report();
        let short = [
            "✔ checked as: alice",
            "✘ api, website: login: claude is not logged in\n   To fix it: `claude auth login`",
            "⚠ admin room encryption: off\n   Better: turn it on",
        ];
        assert_eq!(report.lines(false), short);
        report.skip(Check::Homeserver..=Check::ServerName);
        let rest = [
            "– server name: \"login\" comes first",
            "✔ homeserver: Synapse 1.163.2",
        ];
        assert_eq!(report.lines(true), [&short[..], &rest].concat());
        assert_eq!(
            report.summary(),
            "6 checks: 2 failed, 1 to be looked at, 2 passed, 1 not tried."
        );
        assert!(report.has_failures());
    }

    #[test]
    fn checks_after_a_failed_step_are_skipped_with_the_reason() {
        let mut report = Report::default();
        assert_eq!(
            report.step(Check::Sync, Ok((Outcome::passed("answers"), 7))),
            Some(7)
        );
        let stop: Found<()> = Err(Outcome::failed("no such room", "make one"));
        assert_eq!(report.step(Check::Room, stop), None);
        report.skip(Check::Sync..=Check::Membership);
        let skipped = report.findings.last().unwrap();
        assert_eq!(report.findings.len(), 3);
        assert_eq!(
            skipped.outcome,
            Outcome::skipped("\"admin room\" comes first")
        );
    }

    #[test]
    fn no_two_checks_have_one_id() {
        let mut ids: Vec<_> = Check::ALL.iter().map(|check| check.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Check::ALL.len());
    }
}

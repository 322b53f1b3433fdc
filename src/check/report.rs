//! What was tried, and what came of it: a line for each thing.
//!
//! Invariant: pure. What stands in a report can be shown to whoever may run the bot; no token or key is in it.

use std::fmt;

use serde::Serialize;

/// Why what stands on something cannot be tried.
pub(super) type Blocked = &'static str;

/// What came of a check, with what the next ones go on with.
pub(super) type Found<T = ()> = Result<(Outcome, T), Stop>;

/// What came of a check, and why the next ones cannot be tried.
pub(super) struct Stop {
    pub(super) outcome: Outcome,
    pub(super) blocked: Blocked,
}

/// All that was tried, in the order in which a start needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// A line each.
    pub checks: Vec<Check>,
}

/// One thing that was tried. Displayed as one line, with the remedy where it needs one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried, such as `homeserver` or `website: workspace trust`. Each name stands once in a report.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it should be.
    Passed {
        /// What was found.
        found: String,
    },
    /// The bot works, and something should be done all the same.
    Warning {
        /// What was found.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// The bot, or a session, does not work as it is.
    Failed {
        /// What was found.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// It was not tried.
    Skipped {
        /// Why not.
        because: String,
    },
}

impl Outcome {
    pub(super) fn passed(found: impl Into<String>) -> Self {
        let found = found.into();
        Self::Passed { found }
    }

    pub(super) fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), remedy.into());
        Self::Warning { found, remedy }
    }

    pub(super) fn failed(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), remedy.into());
        Self::Failed { found, remedy }
    }

    pub(super) fn skipped(because: impl Into<String>) -> Self {
        let because = because.into();
        Self::Skipped { because }
    }

    /// The same, where others stand on it.
    pub(super) fn stops(self, blocked: Blocked) -> Stop {
        let outcome = self;
        Stop { outcome, blocked }
    }
}

impl Report {
    pub(super) fn add(&mut self, name: impl Into<String>, outcome: Outcome) {
        let name = name.into();
        self.checks.push(Check { name, outcome });
    }

    /// Adds what was found, and gives back what the next checks go on with.
    pub(super) fn step<T>(&mut self, name: &str, found: Found<T>) -> Result<T, Blocked> {
        let (outcome, then) = match found {
            Ok((outcome, value)) => (outcome, Ok(value)),
            Err(stop) => (stop.outcome, Err(stop.blocked)),
        };
        self.add(name, outcome);
        then
    }

    /// Adds what was found, where nothing stands on it.
    pub(super) fn leaf(&mut self, name: &str, found: Result<Outcome, Stop>) {
        self.add(name, found.unwrap_or_else(|stop| stop.outcome));
    }

    /// Notes of each of these that is not in the report yet that it was not tried.
    pub(super) fn skip_missing(&mut self, names: &[&str], because: &str) {
        for name in names {
            if !self.checks.iter().any(|check| check.name == *name) {
                self.add(*name, Outcome::skipped(because));
            }
        }
    }

    /// Whether something does not work.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.failures() > 0
    }

    /// How it went as a whole, in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let warnings = self.count(|outcome| matches!(outcome, Outcome::Warning { .. }));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped { .. }));
        let mut parts = vec![match self.failures() {
            0 => "Nothing has failed".to_owned(),
            1 => "1 check has failed".to_owned(),
            many => format!("{many} checks have failed"),
        }];
        match warnings {
            0 => {}
            1 => parts.push("1 warning".to_owned()),
            many => parts.push(format!("{many} warnings")),
        }
        if skipped > 0 {
            parts.push(format!("{skipped} not tried"));
        }
        format!("{}.", parts.join(", "))
    }

    fn failures(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed { .. }))
    }

    fn count(&self, is_counted: fn(&Outcome) -> bool) -> usize {
        let outcomes = self.checks.iter().map(|check| &check.outcome);
        outcomes.filter(|outcome| is_counted(outcome)).count()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let line = match &self.outcome {
            Outcome::Passed { found } => format!("✔ {name}: {found}"),
            Outcome::Warning { found, remedy } => format!("⚠ {name}: {found}. Better: {remedy}"),
            Outcome::Failed { found, remedy } => format!("✘ {name}: {found}. To fix it: {remedy}"),
            Outcome::Skipped { because } => format!("– {name}: not tried: {because}"),
        };
        formatter.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add("homeserver", Outcome::passed("Synapse 1.163.2"));
        report.add(
            "admin room encryption",
            Outcome::warning("off", "turn it on"),
        );
        report.add(
            "registration",
            Outcome::failed("no such file", "`rcbot registration`"),
        );
        report.skip_missing(
            &["registration", "sync", "server name"],
            "the registration is missing",
        );
        report
    }

    #[test]
    fn each_check_is_one_line_with_its_remedy() {
        let lines: Vec<_> = report().checks.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "✔ homeserver: Synapse 1.163.2",
                "⚠ admin room encryption: off. Better: turn it on",
                "✘ registration: no such file. To fix it: `rcbot registration`",
                "– sync: not tried: the registration is missing",
                "– server name: not tried: the registration is missing",
            ]
        );
        assert_eq!(
            report().summary(),
            "1 check has failed, 1 warning, 2 not tried."
        );
        assert!(report().has_failures());
    }

    #[test]
    fn machines_get_the_outcome_beside_the_name() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(
            json["checks"][2],
            serde_json::json!({
                "name": "registration",
                "outcome": "failed",
                "found": "no such file",
                "remedy": "`rcbot registration`",
            })
        );
    }

    #[test]
    fn warnings_are_no_failures() {
        let mut report = Report::default();
        report.add(
            "admin room encryption",
            Outcome::warning("off", "turn it on"),
        );
        assert!(!report.has_failures());
        assert_eq!(report.summary(), "Nothing has failed, 1 warning.");
    }
}

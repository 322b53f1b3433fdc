//! `rcbot check`: tries everything that a start needs.

use std::path::Path;

use anyhow::anyhow;

use super::{Failure, block_on, print};
use crate::check::{self, Report};

pub(super) fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let report = block_on(async { Ok(check::everything(path).await) })?;
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            if json {
                print(&as_json(&check::without_configuration(&error))?)?;
            }
            return Err(Failure::Configuration(error.into()));
        }
    };
    print(&if json {
        as_json(&report)?
    } else {
        as_text(&report)
    })?;
    if report.has_failures() {
        return Err(Failure::WhileRunning(anyhow!(
            "this bot is not ready to run"
        )));
    }
    Ok(())
}

fn as_text(report: &Report) -> String {
    let lines = report.checks.iter().map(ToString::to_string);
    let lines: Vec<_> = lines.chain([report.summary()]).collect();
    lines.join("\n")
}

fn as_json(report: &Report) -> Result<String, Failure> {
    serde_json::to_string_pretty(report).map_err(|error| Failure::WhileRunning(error.into()))
}

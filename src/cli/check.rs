//! `rcbot check`: tries everything that a start needs.

use std::path::Path;

use anyhow::{Result, bail};

use super::{block_on, print};
use crate::{
    check::{self, Report},
    config::Config,
};

/// `verbose`: with what passed and what was not tried. `json`: for machines.
pub(super) fn check(path: &Path, verbose: bool, json: bool) -> Result<()> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            if json {
                print(&as_json(&check::without_configuration(&error)))?;
            }
            return Err(error.into());
        }
    };
    let report = block_on(async { Ok(check::everything(&config).await) })?;
    print(&if json {
        as_json(&report)
    } else {
        as_text(&report, verbose)
    })?;
    if report.has_failures() {
        bail!("not everything that a session needs is there: see the failures above");
    }
    Ok(())
}

fn as_text(report: &Report, verbose: bool) -> String {
    let mut lines = report.lines(verbose);
    lines.push(report.summary());
    if !verbose {
        lines.push("`rcbot check --verbose` lists all.".to_owned());
    }
    lines.join("\n")
}

fn as_json(report: &Report) -> String {
    format!("{:#}", report.to_json())
}

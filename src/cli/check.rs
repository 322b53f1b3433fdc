//! `rcbot check`: checks everything that a start needs.

use std::path::Path;

use anyhow::{Result, bail};

use super::{block_on, print};
use crate::{
    check::{self, Report},
    config::Config,
};

/// `verbose`: with what passed and what was not tried. `json`: for machines.
pub(super) fn check(path: &Path, verbose: bool, json: bool) -> Result<()> {
    let report = match Config::load(path) {
        Ok(config) => block_on(async { Ok(check::everything(&config).await) })?,
        Err(error) if json => {
            print(&as_json(&check::without_configuration(&error)))?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut lines = report.lines(verbose);
    lines.push(report.summary());
    if !verbose {
        lines.push("`rcbot check --verbose` lists all.".to_owned());
    }
    print(&if json {
        as_json(&report)
    } else {
        lines.join("\n")
    })?;
    if report.has_failures() {
        bail!("not everything that a session needs is there: see the failures above");
    }
    Ok(())
}

fn as_json(report: &Report) -> String {
    format!("{:#}", report.to_json())
}

//! `rcbot check`: checks everything that a start needs.

use std::path::Path;

use anyhow::{Result, bail};

use super::{block_on, print};
use crate::check;

/// `verbose`: with what passed and what was not tried. `json`: for machines.
pub(super) fn check(path: &Path, verbose: bool, json: bool) -> Result<()> {
    let (report, error) = block_on(async { Ok(check::everything(path).await) })?;
    if json {
        print(&format!("{:#}", report.to_json()))?;
    }
    if let Some(error) = error {
        return Err(error.into());
    }
    if !json {
        let mut lines = report.lines(verbose);
        lines.push(report.summary());
        if !verbose {
            lines.push("`rcbot check --verbose` lists all.".to_owned());
        }
        print(&lines.join("\n"))?;
    }
    if report.has_failures() {
        bail!("not everything that a session needs is there: see the failures above");
    }
    Ok(())
}

//! Installs Synapse, once for all runs: in a Python environment under the build's target folder.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The version that tests and playground run against.
const VERSION: &str = "1.163.2";

/// Finds the installation under `target`, or makes it with pip (about half a minute), and returns its Python. Only one process
/// makes it; others wait. `progress` is called before long steps.
pub(crate) fn install_synapse(target: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    let folder = target.join("synapse");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(format!("{VERSION}.lock")))?;
    if lock.try_lock().is_err() {
        progress("waiting for another process that installs Synapse");
        lock.lock()?;
    }
    let environment = folder.join(VERSION);
    let python = environment.join("bin/python");
    // Written last, with its own path: an environment that is incomplete, or was moved so that its scripts do not work, has no
    // valid one.
    let stamp = environment.join("complete");
    let place = environment.display().to_string();
    if !fs::read_to_string(&stamp).is_ok_and(|content| content == place) || !python.exists() {
        progress(&format!(
            "installing Synapse {VERSION} from PyPI, this first time only (about half a minute)"
        ));
        make(&environment, &python)?;
        fs::write(stamp, place)?;
    }
    Ok(python)
}

fn make(environment: &Path, python: &Path) -> Result<()> {
    const NO_VENV: &str =
        "Python 3 with venv is needed for Synapse (on Debian: apt install python3-venv)";
    if environment.exists() {
        fs::remove_dir_all(environment)?;
    }
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(environment))
    .context(NO_VENV)?;
    let options = ["--quiet", "--no-input", "--disable-pip-version-check"];
    let package = format!("matrix-synapse=={VERSION}");
    run(Command::new(python)
        .args(["-m", "pip", "install"])
        .args(options)
        .arg(package))
    .context("cannot install Synapse from PyPI")
}

/// Runs a program until it exits; if it fails, its last line is the error's text.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no {program} on PATH"),
        Err(error) => return Err(error).with_context(|| format!("cannot run {program}")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("without a word");
    bail!("{program} failed ({}): {last}", output.status)
}

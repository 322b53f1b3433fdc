//! config.yaml and registration.yaml: what they say, and who can read them.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use super::{Outcome, Report, vantage::check_as_owner};
use crate::{
    config::{Config, ConfigError, LoginMethod, Problem},
    matrix::{Login, RegistrationError},
};

pub(super) const CONFIGURATION: &str = "configuration";
const REGISTRATION: &str = "registration";

/// Reading is allowed to users who are neither the owner nor in the group.
const READABLE_BY_OTHERS: u32 = 0o004;

/// Why there is no configuration by which anything could be tried.
pub(super) fn no_configuration(error: &ConfigError) -> Outcome {
    match error {
        ConfigError::Missing { path } => {
            let path = path.display();
            Outcome::failed(
                format!("there is no {path}"),
                format!(
                    "`rcbot init --config {path}` writes one; or name another file with `--config`"
                ),
            )
        }
        ConfigError::Unreadable { path, source } => unreadable(path, source),
        ConfigError::Invalid(problems) => Outcome::failed(
            problems.to_string().replace('\n', "; "),
            "correct that in the file, and restart the bot",
        ),
    }
}

/// A file of ours that is closed to us may be open to the bot.
fn unreadable(file: &Path, error: &io::Error) -> Outcome {
    let is_closed = error.kind() == io::ErrorKind::PermissionDenied;
    let owner = is_closed.then(|| check_as_owner(file)).flatten();
    let remedy = match owner {
        Some(check) => format!("if the bot runs as the user whose file it is: {check}"),
        None => "make it a file that the user who runs rcbot may read".to_owned(),
    };
    Outcome::failed(
        format!("{} cannot be read ({error})", file.display()),
        remedy,
    )
}

pub(super) fn look_at_configuration(report: &mut Report, file: &Path, config: &Config) {
    let projects = match config.projects.len() {
        1 => "1 project".to_owned(),
        many => format!("{many} projects"),
    };
    let good = format!("{}, {projects}", file.display());
    let remedy = "change that in config.yaml, and restart the bot";
    report.add(CONFIGURATION, judge(file, good, config.warnings(), remedy));
}

/// How the bot logs in, with what that takes.
pub(super) fn look_at_registration(report: &mut Report, config: &Config) -> Option<Login> {
    let LoginMethod::Appservice { registration: file } = &config.login else {
        let because = "config.yaml gives `bot.access_token` or `bot.password` in its place";
        report.add(REGISTRATION, Outcome::skipped(because));
        return Login::load(config).ok();
    };
    let (outcome, login) = match Login::load(config) {
        Ok(login) => {
            let good = format!("{}, for {}", file.display(), config.bot_user);
            let remedy = format!(
                "change that in {} and in the homeserver's copy, and restart the homeserver",
                file.display()
            );
            (judge(file, good, login.warnings(), &remedy), Some(login))
        }
        Err(error) => (refused(&error, file, &config.file), None),
    };
    report.add(REGISTRATION, outcome);
    login
}

/// Both files hold secrets: one the tokens, the other perhaps some in `environment`.
fn judge(file: &Path, good: String, warnings: &[Problem], remedy: &str) -> Outcome {
    let mode = fs::metadata(file).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & READABLE_BY_OTHERS != 0) {
        let file = file.display();
        return Outcome::failed(
            format!("every user of this host can read {file}"),
            format!("`chmod o-rwx {file}`"),
        );
    }
    if warnings.is_empty() {
        return Outcome::passed(good);
    }
    let all: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    Outcome::warning(all.join("; "), remedy)
}

/// How a registration is replaced: none is overwritten.
pub(super) fn replace_registration(file: &Path, config_file: &Path) -> String {
    format!(
        "remove {}, `rcbot registration --config {}`, give the homeserver the new copy, and restart it",
        file.display(),
        config_file.display()
    )
}

fn refused(error: &RegistrationError, file: &Path, config_file: &Path) -> Outcome {
    match error {
        RegistrationError::Missing { path } => Outcome::failed(
            format!("there is no {}", path.display()),
            format!(
                "`rcbot registration --config {}`, and give the homeserver a copy",
                config_file.display()
            ),
        ),
        RegistrationError::Unreadable { path, source } => unreadable(path, source),
        RegistrationError::Invalid(problems) => Outcome::failed(
            problems.to_string().replace('\n', "; "),
            "change that in the file and in the homeserver's copy, and restart the homeserver",
        ),
        RegistrationError::OfAnotherUser(problems) => Outcome::failed(
            problems.to_string().replace('\n', "; "),
            format!(
                "correct `bot.localpart` or `homeserver.server_name` in config.yaml, if one of them is wrong; else {}",
                replace_registration(file, config_file)
            ),
        ),
    }
}

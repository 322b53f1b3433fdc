//! How sessions run: the keys that `sessions` and every project have in common.

use std::{collections::BTreeMap, time::Duration};

use super::{check, section::Section};
use crate::remote_control::{
    LinkPattern, MAX_OUTPUT, PatternError, Restart, STOP_GRACE, SessionSettings,
};

/// Server mode needs no terminal. Without `--spawn` it asks a question in some directories and waits for ever; two
/// sessions of one name get mixed up in the app's list.
const COMMAND: [&str; 5] = [
    "claude",
    "remote-control",
    "--spawn=same-dir",
    "--name",
    "{project}@{host} {id}",
];

/// `--continue` excludes `--spawn`.
const RESUME_COMMAND: [&str; 5] = [
    "claude",
    "remote-control",
    "--continue",
    "--name",
    "{project}@{host} {id}",
];

/// All forms that the link has had: `/code?environment=..`, `/code?bridge=..`, `/code/session_..`.
const LINK_PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";

/// How long a process may run without showing its link: a login check and two requests take 3 s on a slow day, and on a small
/// host a first start takes most of a minute. Where the service refuses it, the program says so and stays for some 50 s.
const LINK_TIMEOUT: Duration = Duration::from_mins(1);

/// Nobody works longer at a stretch, and a forgotten session should not stay open over night.
const MAX_DURATION: Duration = Duration::from_hours(12);

const RESTARTS: [(&str, Restart); 2] = [("never", Restart::Never), ("on_exit", Restart::OnExit)];

/// What holds where nothing is given.
pub(super) fn built_in() -> Result<SessionSettings, PatternError> {
    Ok(SessionSettings {
        command: COMMAND.map(str::to_owned).to_vec(),
        resume_command: RESUME_COMMAND.map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        // Answers the question that is asked once, the first time ever.
        stdin: "y\n".into(),
        link_pattern: LinkPattern::new(LINK_PATTERN)?,
        link_timeout: LINK_TIMEOUT,
        stop_grace: STOP_GRACE,
        max_duration: Some(MAX_DURATION),
        max_output: MAX_OUTPUT,
        restart: Restart::Never,
    })
}

/// What the mapping gives, over what holds outside it. Variables are added to those outside; one of the same name wins.
pub(super) fn read(section: &mut Section<'_>, outer: SessionSettings) -> SessionSettings {
    let inner = section.section("environment", |environment| {
        environment.each(|name, node| Ok(check::environment_variable(name, node)?.as_str().into()))
    });
    SessionSettings {
        command: section.or("command", outer.command, check::command),
        resume_command: section.or("resume_command", outer.resume_command, check::command),
        environment: outer.environment.into_iter().chain(inner).collect(),
        stdin: section.or("stdin", outer.stdin, |node| {
            Ok(check::secret_text(node)?.as_str().into())
        }),
        link_pattern: section.or("link_pattern", outer.link_pattern, check::link_pattern),
        link_timeout: section.or("link_timeout", outer.link_timeout, check::positive_duration),
        stop_grace: section.or("stop_grace", outer.stop_grace, check::duration),
        max_duration: section.or("max_duration", outer.max_duration, check::optional_duration),
        max_output: section.or("max_output", outer.max_output, check::output_size),
        restart: section.or("restart", outer.restart, check::one_of(&RESTARTS)),
    }
}

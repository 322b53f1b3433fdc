//! The text of a unit: the template from deploy/, with this host's user, paths and PATH.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// What is for whoever copies it by hand ends with the first empty line.
const OF_SYSTEM: &str = include_str!("../../../deploy/rcbot.service");
const OF_USER: &str = include_str!("../../../deploy/rcbot.user.service");

/// What a unit says that another host's does not.
pub(super) struct Unit {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) path: String,
    /// Whom a service of the system runs as; a service of a user has no choice.
    pub(super) user: Option<String>,
}

impl Unit {
    /// Fails at a path that systemd cannot be told.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let (template, edit) = match self.user {
            Some(_) => (OF_SYSTEM, "sudo systemctl edit"),
            None => (OF_USER, "systemctl --user edit"),
        };
        let (_, template) = template.split_once("\n\n").unwrap_or(("", template));
        let start = format!(
            "{} run --config {}",
            quoted(&plain(&self.program)?).replace('$', "$$"),
            quoted(&plain(&self.config)?).replace('$', "$$")
        );
        let path = quoted(&format!("PATH={}", self.path));
        let of_this_host = |line: &str| match line.split_once('=') {
            Some(("ExecStart", _)) => format!("ExecStart={start}"),
            Some(("Environment", value)) if value.starts_with("PATH=") => {
                format!("Environment={path}")
            }
            Some(("User", _)) => format!("User={}", self.user.as_deref().unwrap_or_default()),
            _ => line.to_owned(),
        };
        let lines: Vec<_> = template.lines().map(of_this_host).collect();
        Ok(format!(
            "# Written by `rcbot service`. Keep changes in a drop-in, which `{edit}` makes.\n\n{}\n",
            lines.join("\n")
        ))
    }
}

fn plain(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        Some(_) | None => bail!(
            "{} has characters in its path that a unit cannot name: move it",
            path.display()
        ),
    }
}

/// As systemd takes one word: systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers".
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    let is_plain =
        |character: char| character.is_alphanumeric() || "/._-+:@=,%$".contains(character);
    if word.chars().all(is_plain) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What ends the sessions of the bot that a unit runs, for a shell.
pub(super) fn stop_command(unit: &str) -> Option<String> {
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
    let start = value("ExecStart=")?;
    if !start.contains(" run --config ") {
        return None;
    }
    let stop = start.replacen(" run --config ", " stop --config ", 1);
    Some(match value("User=") {
        Some(user) => format!("sudo -u {user} {stop}"),
        None => stop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(user: Option<&str>) -> Unit {
        Unit {
            program: "/usr/bin/rcbot".into(),
            config: "/home/bob/my bots/100% $x.yaml".into(),
            path: "/home/bob/.local/bin:/usr/bin".to_owned(),
            user: user.map(str::to_owned),
        }
    }

    #[test]
    fn the_unit_of_the_system_has_the_user_and_the_paths_of_this_host() {
        let text = unit(Some("bob")).text().unwrap();
        for line in [
            "User=bob",
            "ExecStart=/usr/bin/rcbot run --config \"/home/bob/my bots/100%% $$x.yaml\"",
            "Environment=PATH=/home/bob/.local/bin:/usr/bin",
            "KillMode=process",
            "WantedBy=multi-user.target",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(
            !text.contains("alice") && !text.contains("Adapt the user"),
            "{text}"
        );
    }

    #[test]
    fn the_unit_of_a_user_names_no_user() {
        let text = unit(None).text().unwrap();
        assert!(
            !text.lines().any(|line| line.starts_with("User=")),
            "{text}"
        );
        assert!(text.contains("\nWantedBy=default.target\n"), "{text}");
        assert_eq!(
            stop_command(&text).unwrap(),
            "/usr/bin/rcbot stop --config \"/home/bob/my bots/100%% $$x.yaml\""
        );
    }

    #[test]
    fn a_unit_says_how_to_end_the_sessions_of_its_bot() {
        let stop = stop_command(OF_SYSTEM).unwrap();
        assert_eq!(
            stop,
            "sudo -u alice /usr/local/bin/rcbot stop --config /home/alice/rcbot/config.yaml"
        );
        assert!(stop_command("[Service]\nExecStart=/bin/true\n").is_none());
    }
}

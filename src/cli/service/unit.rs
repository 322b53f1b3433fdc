//! The text of a unit: the template from deploy/, with this host's user, paths and PATH.

use std::path::Path;

use anyhow::bail;

/// The instructions for copying it by hand end at the first empty line.
const OF_SYSTEM: &str = include_str!("../../../deploy/rcbot.service");
const OF_USER: &str = include_str!("../../../deploy/rcbot.user.service");

/// The unit of the system names a user, that of a user does not. Fails at a path that systemd cannot take.
pub(super) fn text(
    program: &Path,
    config: &Path,
    path: &str,
    user: Option<&str>,
) -> anyhow::Result<String> {
    let (template, edit) = match user {
        Some(_) => (OF_SYSTEM, "sudo systemctl edit"),
        None => (OF_USER, "systemctl --user edit"),
    };
    let (_, template) = template.split_once("\n\n").unwrap_or(("", template));
    let start = format!(
        "{} run --config {}",
        quoted(&plain(program)?).replace('$', "$$"),
        quoted(&plain(config)?).replace('$', "$$")
    );
    let path = quoted(&format!("PATH={path}"));
    let of_this_host = |line: &str| match line.split_once('=') {
        Some(("ExecStart", _)) => format!("ExecStart={start}"),
        Some(("Environment", value)) if value.starts_with("PATH=") => format!("Environment={path}"),
        Some(("User", _)) => format!("User={}", user.unwrap_or_default()),
        _ => line.to_owned(),
    };
    let lines: Vec<_> = template.lines().map(of_this_host).collect();
    Ok(format!(
        "# Written by `rcbot service`. Keep changes in a drop-in, which `{edit}` makes.\n\n{}\n",
        lines.join("\n")
    ))
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

/// Quotes a word for systemd: systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers".
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    let is_plain =
        |character: char| character.is_alphanumeric() || "/._-+:@=,%$".contains(character);
    if word.chars().all(is_plain) {
        return word;
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The shell command that stops the sessions of a unit's bot.
pub(super) fn stop_command(unit: &str) -> Option<String> {
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
    let start = value("ExecStart=")?;
    if !start.contains(" run --config ") {
        return None;
    }
    let stop = start.replacen(" run --config ", " stop --config ", 1);
    // A shell takes other characters for special than systemd.
    let stop = stop.replace("%h/", "~/").replace("%%", "%");
    let stop = stop.replace("$$", "\\$").replace('`', "\\`");
    Some(match value("User=") {
        Some(user) => format!("sudo -u {user} {stop}"),
        None => stop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(user: Option<&str>) -> String {
        let config = Path::new("/home/bob/my bots/100% $x.yaml");
        let path = "/home/bob/.local/bin:/usr/bin";
        text(Path::new("/usr/bin/rcbot"), config, path, user).unwrap()
    }

    #[test]
    fn the_unit_of_the_system_has_the_user_and_the_paths_of_this_host() {
        let text = unit(Some("bob"));
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
        let text = unit(None);
        assert!(
            !text.lines().any(|line| line.starts_with("User=")),
            "{text}"
        );
        assert!(text.contains("\nWantedBy=default.target\n"), "{text}");
        assert_eq!(
            stop_command(&text).unwrap(),
            "/usr/bin/rcbot stop --config \"/home/bob/my bots/100% \\$x.yaml\""
        );
    }

    #[test]
    fn a_unit_says_how_to_end_the_sessions_of_its_bot() {
        let stop = stop_command(OF_SYSTEM).unwrap();
        assert_eq!(
            stop,
            "sudo -u alice /usr/local/bin/rcbot stop --config /home/alice/rcbot/config.yaml"
        );
        let stop = stop_command(OF_USER).unwrap();
        assert_eq!(
            stop,
            "/usr/local/bin/rcbot stop --config ~/rcbot/config.yaml"
        );
        assert!(stop_command("[Service]\nExecStart=/bin/true\n").is_none());
    }
}

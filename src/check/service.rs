//! The systemd unit: whether a restart of the bot leaves the sessions running.

use std::{path::Path, process::Command};

use super::{Outcome, Report, process::BotProcess, program::printed_by};

const UNIT: &str = "systemd unit";

/// The unit that a process belongs to, and whose systemd manages it.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    name: String,
    is_of_user: bool,
}

pub(super) async fn look(report: &mut Report, bot: &BotProcess) {
    let running = bot
        .running
        .map(|pid| format!("process {pid} runs with this data directory"));
    let none = "no bot runs with this data directory".to_owned();
    report.add("running bot", Outcome::passed(running.unwrap_or(none)));
    let outcome = match unit_of(&bot.control_group) {
        // A shell can belong to a unit as well.
        Some(unit) if bot.running.is_some() => ask(Path::new("systemctl"), &unit).await,
        Some(_) | None => Outcome::skipped("no bot is running under systemd"),
    };
    report.add(UNIT, outcome);
}

/// The innermost service that a control group lies in, but for the one that is a user's systemd itself.
fn unit_of(control_group: &str) -> Option<Unit> {
    let mut services = control_group.split('/').filter(|part| {
        Path::new(part)
            .extension()
            .is_some_and(|end| end == "service")
    });
    let is_manager = |part: &str| part.starts_with("user@");
    let is_of_user = services.clone().any(is_manager);
    let name = services.next_back().filter(|name| !is_manager(name))?;
    Some(Unit {
        name: name.to_owned(),
        is_of_user,
    })
}

async fn ask(systemctl: &Path, unit: &Unit) -> Outcome {
    let mut command = Command::new(systemctl);
    if unit.is_of_user {
        command.arg("--user");
    }
    command.args(["show", "--property=KillMode", "--value", &unit.name]);
    match printed_by(command).await {
        Ok(kill_mode) => judge(unit, &kill_mode),
        Err(_) => Outcome::skipped("systemctl does not tell"),
    }
}

fn judge(unit: &Unit, kill_mode: &str) -> Outcome {
    let name = &unit.name;
    let systemctl = if unit.is_of_user {
        "systemctl --user"
    } else {
        "sudo systemctl"
    };
    match kill_mode {
        "process" | "none" => Outcome::passed(format!("{name}, KillMode={kill_mode}")),
        _ => Outcome::failed(
            format!("{name} has KillMode={kill_mode}: each restart of the bot ends all sessions"),
            format!(
                "`{systemctl} edit {name}`, and add the lines `[Service]` and `KillMode=process`"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn unit(name: &str, is_of_user: bool) -> Unit {
        let name = name.to_owned();
        Unit { name, is_of_user }
    }

    #[test]
    fn the_unit_is_told_from_shells_and_managers() {
        for (group, expected) in [
            (
                "/system.slice/rcbot.service",
                Some(unit("rcbot.service", false)),
            ),
            (
                "/system.slice/rcbot.service/sub",
                Some(unit("rcbot.service", false)),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/rcbot.service",
                Some(unit("rcbot.service", true)),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                None,
            ),
            ("/user.slice/user-1000.slice/session-2.scope", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(unit_of(group), expected, "{group}");
        }
    }

    #[test]
    fn the_unit_of_the_whole_host_is_edited_as_root() {
        for (is_of_user, begin) in [
            (false, "`sudo systemctl edit rcbot.service`"),
            (true, "`systemctl --user edit rcbot.service`"),
        ] {
            let outcome = judge(&unit("rcbot.service", is_of_user), "control-group");
            let Outcome::Failed { remedy, .. } = outcome else {
                panic!("not failed");
            };
            assert!(remedy.starts_with(begin), "{remedy}");
        }
    }

    #[tokio::test]
    async fn a_unit_that_ends_sessions_fails_until_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let systemctl = folder.path().join("systemctl");
        let mode = folder.path().join("mode");
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = '--user show --property=KillMode --value rcbot.service' ] && cat {}",
            mode.display()
        );
        fs::write(&systemctl, script).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o700)).unwrap();
        let unit = unit("rcbot.service", true);
        fs::write(&mode, "control-group\n").unwrap();
        let Outcome::Failed { remedy, .. } = ask(&systemctl, &unit).await else {
            panic!("not failed");
        };
        assert!(remedy.contains("`KillMode=process`"));
        fs::write(&mode, "process\n").unwrap();
        assert_eq!(
            ask(&systemctl, &unit).await,
            Outcome::passed("rcbot.service, KillMode=process")
        );
        fs::remove_file(&systemctl).unwrap();
        assert_eq!(
            ask(&systemctl, &unit).await,
            Outcome::skipped("systemctl does not tell")
        );
    }
}

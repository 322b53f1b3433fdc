//! The systemd unit: whether a restart of the bot leaves the sessions running.

use std::{path::Path, process::Command};

use procfs::{ProcessCGroup, process::Process};

use super::{
    Outcome,
    run::{NotPrinted, printed_by},
    vantage::Vantage,
};

/// The name of the units that come with rcbot.
const USUAL_NAME: &str = "rcbot.service";

/// The unit that a process belongs to, and whose systemd manages it.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    name: String,
    is_of_user: bool,
}

pub(super) async fn judge(vantage: &Vantage) -> Outcome {
    let systemctl = Path::new("systemctl");
    let process = vantage.running.and_then(|pid| Process::new(pid).ok());
    let groups = process.and_then(|process| process.cgroups().ok());
    let mut groups = groups.into_iter().flat_map(|groups| groups.0);
    let unit = match groups.find_map(|group| unit_of(&group)) {
        Some(unit) => Some(unit),
        None => installed(systemctl, &vantage.config_file).await,
    };
    match unit {
        Some(unit) => ask(systemctl, &unit).await,
        None => Outcome::skipped(format!(
            "no bot runs under systemd, and no {USUAL_NAME} is for this configuration"
        )),
    }
}

/// The unit with the usual name, if it is for this configuration: a problem with it can be fixed before it runs.
async fn installed(systemctl: &Path, config_file: &Path) -> Option<Unit> {
    let config_file = config_file.to_str()?;
    for is_of_user in [false, true] {
        let name = USUAL_NAME.to_owned();
        let unit = Unit { name, is_of_user };
        let started = property(systemctl, &unit, "ExecStart").await;
        if started.is_ok_and(|command| command.contains(config_file)) {
            return Some(unit);
        }
    }
    None
}

/// The innermost service that a control group lies in, but for the one that is a user's systemd itself. The second version of
/// control groups has one hierarchy; where both versions are there, services are in that one or in the first version's
/// `name=systemd`.
fn unit_of(group: &ProcessCGroup) -> Option<Unit> {
    if group.hierarchy != 0 && !group.controllers.iter().any(|name| name == "name=systemd") {
        return None;
    }
    let mut services = group.pathname.split('/').filter(|part| {
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

async fn property(systemctl: &Path, unit: &Unit, name: &str) -> Result<String, NotPrinted> {
    let mut command = Command::new(systemctl);
    if unit.is_of_user {
        command.arg("--user");
    }
    let property = format!("--property={name}");
    command.args(["show", &property, "--value", &unit.name]);
    printed_by(command).await
}

async fn ask(systemctl: &Path, unit: &Unit) -> Outcome {
    match property(systemctl, unit, "KillMode").await {
        Ok(kill_mode) => judge_kill_mode(unit, &kill_mode),
        Err(fault) => Outcome::skipped(format!("`systemctl show` says nothing ({fault})")),
    }
}

fn judge_kill_mode(unit: &Unit, kill_mode: &str) -> Outcome {
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

    use super::{super::Verdict, *};

    fn unit(name: &str, is_of_user: bool) -> Unit {
        let name = name.to_owned();
        Unit { name, is_of_user }
    }

    #[test]
    fn the_unit_is_distinguished_from_shells_and_managers() {
        let group = |hierarchy, controller: &str, pathname: &str| ProcessCGroup {
            hierarchy,
            controllers: vec![controller.to_owned()],
            pathname: pathname.to_owned(),
        };
        let service = "/system.slice/rcbot.service";
        assert_eq!(unit_of(&group(2, "memory", service)), None);
        let of_both = unit_of(&group(1, "name=systemd", service));
        assert_eq!(of_both, Some(unit("rcbot.service", false)));
        for (path, expected) in [
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
            assert_eq!(unit_of(&group(0, "", path)), expected, "{path}");
        }
    }

    #[test]
    fn the_unit_of_the_whole_host_is_edited_as_root() {
        for (is_of_user, begin) in [
            (false, "`sudo systemctl edit rcbot.service`"),
            (true, "`systemctl --user edit rcbot.service`"),
        ] {
            let outcome = judge_kill_mode(&unit("rcbot.service", is_of_user), "control-group");
            assert_eq!(outcome.verdict, Verdict::Failed);
            let remedy = outcome.remedy.unwrap();
            assert!(remedy.starts_with(begin), "{remedy}");
        }
    }

    #[tokio::test]
    async fn a_unit_that_ends_sessions_fails_until_it_is_fixed() {
        let folder = tempfile::tempdir().unwrap();
        let systemctl = folder.path().join("systemctl");
        let mode = folder.path().join("mode");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n\
             '--user show --property=KillMode --value rcbot.service') cat {} ;;\n\
             '--user show --property=ExecStart --value rcbot.service') echo '{{ argv[]=/rcbot run --config /a/config.yaml ; }}' ;;\n\
             *) exit 1 ;;\nesac\n",
            mode.display()
        );
        fs::write(&systemctl, script).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o700)).unwrap();
        let unit = unit("rcbot.service", true);
        let of = async |config: &str| installed(&systemctl, Path::new(config)).await;
        assert_eq!(of("/b/config.yaml").await, None);
        assert_eq!(of("/a/config.yaml").await.as_ref(), Some(&unit));
        fs::write(&mode, "control-group\n").unwrap();
        let outcome = ask(&systemctl, &unit).await;
        assert_eq!(outcome.verdict, Verdict::Failed);
        assert!(outcome.remedy.unwrap().contains("`KillMode=process`"));
        fs::write(&mode, "process\n").unwrap();
        assert_eq!(
            ask(&systemctl, &unit).await,
            Outcome::passed("rcbot.service, KillMode=process")
        );
        fs::remove_file(&systemctl).unwrap();
        let outcome = ask(&systemctl, &unit).await;
        assert_eq!(outcome.verdict, Verdict::Skipped);
    }
}

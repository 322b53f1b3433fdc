//! What is said to systemd, each step as a command that a person could type.

use std::{fmt, process::Command};

use anyhow::{Context as _, bail};

/// The manager of the system's services, or of a user's.
pub(super) struct Systemd<'a> {
    of_user: bool,
    name: &'a str,
}

/// One command.
pub(super) struct Step(Vec<String>);

impl<'a> Systemd<'a> {
    pub(super) fn of(of_user: bool, name: &'a str) -> Self {
        Self { of_user, name }
    }

    /// In a container, or where another init runs, there is nobody to talk to.
    pub(super) fn is_running(&self) -> bool {
        let Step(words) = self.systemctl(&["is-system-running"]);
        let Some((program, arguments)) = words.split_first() else {
            return false;
        };
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| {
            let state = String::from_utf8_lossy(&output.stdout);
            !["", "offline", "unknown"].contains(&state.trim())
        })
    }

    /// Enables and starts the service; one that runs is restarted, as its unit may be another than before.
    pub(super) fn enable(&self) -> [Step; 3] {
        let unit = self.unit();
        [
            self.reload(),
            self.systemctl(&["enable", &unit]),
            self.systemctl(&["restart", &unit]),
        ]
    }

    /// Without it the user's services, and all sessions, end with the user's last login.
    pub(super) fn linger(&self) -> Option<Step> {
        let words = ["loginctl", "enable-linger"].map(str::to_owned);
        self.of_user.then(|| Step(words.into()))
    }

    pub(super) fn disable(&self) -> Step {
        self.systemctl(&["disable", "--now", &self.unit()])
    }

    pub(super) fn reload(&self) -> Step {
        self.systemctl(&["daemon-reload"])
    }

    pub(super) fn status(&self) -> Step {
        self.systemctl(&["status", &self.unit()])
    }

    /// For a person, who need not be root.
    pub(super) fn log(&self) -> String {
        let unit = self.unit();
        if self.of_user {
            format!("journalctl --user -u {unit} -f")
        } else {
            format!("sudo journalctl -u {unit} -f")
        }
    }

    fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    fn systemctl(&self, arguments: &[&str]) -> Step {
        let manager = self.of_user.then_some("--user");
        let words = ["systemctl"].into_iter().chain(manager);
        Step(
            words
                .chain(arguments.iter().copied())
                .map(str::to_owned)
                .collect(),
        )
    }
}

impl Step {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Some((program, arguments)) = self.0.split_first() else {
            return Ok(());
        };
        let status = Command::new(program).args(arguments).status();
        let status = status.with_context(|| format!("cannot run `{self}`"))?;
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(" "))
    }
}

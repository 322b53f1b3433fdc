//! From where everything is looked at: as which user, and with whose environment. What holds for the bot is what counts.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::{
    ProcessCGroup,
    process::{Process, all_processes},
};
use rustix::process::geteuid;

use super::{Outcome, Report};
use crate::{config::Config, data_dir};

pub(super) const CHECKED_AS: &str = "checked as";

/// The variables that tell whose environment it is.
const OF_ITS_USER: [&str; 3] = ["HOME", "LOGNAME", "USER"];

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    name: Option<String>,
    home: Option<PathBuf>,
}

/// Whose environment stands for the bot's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// That of the bot's process.
    Bot,
    /// That of whoever runs the check.
    Ours,
}

/// Who looks, and for whom.
pub(super) struct Vantage {
    /// Whoever runs the check.
    pub(super) me: User,
    /// As whom the bot runs, as far as can be told: whose its data directory is.
    bot: User,
    /// The bot's process. `None`: no bot runs.
    pub(super) running: Option<i32>,
    /// The environment from which sessions take theirs.
    pub(super) environment: HashMap<OsString, OsString>,
    origin: Origin,
    /// The paths of the bot's control groups: what systemd knows it by is one of them.
    pub(super) control_groups: Vec<String>,
    pub(super) config_file: PathBuf,
}

impl User {
    pub(super) fn of(id: u32) -> Self {
        let all = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::in_passwd(id, &all)
    }

    /// Users from elsewhere, such as a directory service, have a number alone.
    fn in_passwd(id: u32, passwd: &str) -> Self {
        let lines = passwd.lines().map(|line| line.split(':').collect());
        let found = lines
            .into_iter()
            .find_map(|fields: Vec<_>| match fields[..] {
                [name, _, user, _, _, home, ..] if user.parse() == Ok(id) => Some((name, home)),
                _ => None,
            });
        Self {
            id,
            name: found.map(|(name, _)| name.to_owned()),
            home: found.map(|(_, home)| home.into()),
        }
    }

    fn is_root(&self) -> bool {
        self.id == 0
    }
}

/// As sudo(8) and chown(1) take it.
impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "#{}", self.id),
        }
    }
}

impl Vantage {
    pub(super) fn new(config: &Config) -> Self {
        let me = User::of(geteuid().as_raw());
        let running = data_dir::process_running_with(&config.data_dir);
        let process = running.and_then(|pid| Process::new(pid).ok());
        let bot = bot_user(&me, config, process.as_ref());
        let groups = process.as_ref().and_then(|process| process.cgroups().ok());
        let groups = groups.map(|groups| groups.0).unwrap_or_default();
        // Another user's process keeps its environment to itself.
        let of_bot = process.as_ref().and_then(|process| process.environ().ok());
        let (origin, environment) = match of_bot {
            Some(environment) => (Origin::Bot, environment),
            None => (Origin::Ours, our_environment(&me, &bot)),
        };
        Self {
            control_groups: control_groups(groups),
            config_file: config.file.clone(),
            me,
            bot,
            running,
            environment,
            origin,
        }
    }

    /// Whether root looks in another user's place: it sees everything, and may do more than that user.
    pub(super) fn is_root_for_another(&self) -> bool {
        self.me.is_root() && !self.bot.is_root()
    }

    /// Whether the bot runs as this user, as far as can be told.
    pub(super) fn runs_as(&self, user: u32) -> bool {
        self.bot.id == user
    }

    /// Whether PATH and the like are the bot's, or those of whoever starts it from the same shell.
    pub(super) fn knows_environment(&self) -> bool {
        self.origin == Origin::Bot || !self.is_root_for_another()
    }

    /// How to look as the bot's own user.
    pub(super) fn as_bot(&self) -> String {
        check_as(&self.bot, &self.config_file)
    }

    /// Who looks. `Err`: somebody who does not see what is the bot's, and could only tell of what is theirs.
    pub(super) fn look(&self, report: &mut Report) -> Result<(), String> {
        let (me, bot) = (&self.me, &self.bot);
        let environment = match (self.running, self.origin) {
            (Some(pid), Origin::Bot) => format!("with the environment of the bot, process {pid}"),
            (Some(pid), Origin::Ours) => format!(
                "with another environment than the bot's, as that of process {pid} cannot be read"
            ),
            (None, _) if self.is_root_for_another() => format!(
                "with the home directory of {bot} and otherwise the environment of {me}, as no bot runs"
            ),
            (None, _) => "with the environment of this shell, as no bot runs".to_owned(),
        };
        if me.id != bot.id && !me.is_root() {
            let found = format!("{me}, and the bot's data directory belongs to {bot}");
            let remedy = format!(
                "{}; or set `data_dir` in config.yaml to another path, if the bot is to run as {me}",
                self.as_bot()
            );
            report.add(CHECKED_AS, Outcome::failed(found, remedy));
            return Err(format!("{me} does not see what belongs to {bot}"));
        }
        let outcome = if self.is_root_for_another() {
            Outcome::warning(
                format!("{me} in place of {bot}, who may do less, {environment}"),
                self.as_bot(),
            )
        } else if self.running.is_some() && self.origin == Origin::Ours {
            Outcome::warning(
                format!("{me}, {environment}"),
                format!("`sudo rcbot check --config {}`", self.config_file.display()),
            )
        } else {
            Outcome::passed(format!("{me}, {environment}"))
        };
        report.add(CHECKED_AS, outcome);
        Ok(())
    }
}

/// The check by another user.
pub(super) fn check_as(user: &User, config_file: &Path) -> String {
    format!(
        "`sudo -u {user} rcbot check --config {}`",
        config_file.display()
    )
}

/// The same by whom a file belongs to.
pub(super) fn check_as_owner(file: &Path) -> Option<String> {
    let owner = fs::metadata(file).ok()?.uid();
    (owner != geteuid().as_raw()).then(|| check_as(&User::of(owner), file))
}

/// As whom the bot runs. Root's files in the place of ours are those of a `sudo rcbot`, unless such a bot runs.
fn bot_user(me: &User, config: &Config, process: Option<&Process>) -> User {
    if let Some(status) = process.and_then(|process| process.status().ok()) {
        return User::of(status.euid);
    }
    let owner = |path: &Path| Some(fs::metadata(path).ok()?.uid());
    let owner = match owner(&config.data_dir) {
        // `sudo rcbot check` before the first run.
        None if me.is_root() => owner(&config.file),
        owner => owner,
    };
    match owner {
        Some(0) if !me.is_root() && !runs_as_root(&config.file) => me.clone(),
        Some(owner) => User::of(owner),
        None => me.clone(),
    }
}

/// Whether root runs a bot that may be this one: its files we do not see, and what is said of its configuration may be relative.
fn runs_as_root(config_file: &Path) -> bool {
    let is_bot = |process: &Process| {
        let status = process.status().ok();
        status.is_some_and(|status| status.euid == 0 && status.name == env!("CARGO_PKG_NAME"))
    };
    let mut bots = all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .filter(is_bot);
    bots.any(|bot| may_be_for(config_file, &bot.cmdline().unwrap_or_default()))
}

/// A process that has exited and that nobody has waited for has no arguments any more, and other commands of the binary are no bot.
fn may_be_for(config_file: &Path, arguments: &[String]) -> bool {
    if !arguments.iter().any(|argument| argument == "run") {
        return false;
    }
    let mut rest = arguments.iter();
    let named = rest.find_map(|argument| argument.strip_prefix("--config"));
    let named = match named {
        Some("") => rest.next().map(String::as_str),
        named => named.and_then(|value| value.strip_prefix('=')),
    };
    let named = Path::new(named.unwrap_or("config.yaml"));
    named == config_file || (named.is_relative() && named.file_name() == config_file.file_name())
}

/// Root's home directory is not where another user's bot has its own.
fn our_environment(me: &User, bot: &User) -> HashMap<OsString, OsString> {
    let mut environment: HashMap<_, _> = env::vars_os().collect();
    if me.is_root() && !bot.is_root() {
        let is_of_root = |name: &str| name.starts_with("XDG_") || name == "CLAUDE_CONFIG_DIR";
        environment.retain(|name, _| !name.to_str().is_some_and(is_of_root));
        let name = || bot.name.as_ref().map(OsString::from);
        for variable in OF_ITS_USER {
            let value = match variable {
                "HOME" => bot.home.as_ref().map(OsString::from),
                _ => name(),
            };
            match value {
                Some(value) => environment.insert(variable.into(), value),
                None => environment.remove(&OsString::from(variable)),
            };
        }
    }
    environment
}

/// The paths by which systemd may know a process. The second version of control groups has one hierarchy; where both versions are
/// there, services are in that one or in the first version's `name=systemd`.
fn control_groups(all: Vec<ProcessCGroup>) -> Vec<String> {
    let is_systemds = |group: &ProcessCGroup| {
        group.hierarchy == 0 || group.controllers.iter().any(|name| name == "name=systemd")
    };
    let all = all.into_iter().filter(is_systemds);
    all.map(|group| group.pathname).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n\
                          broken\nbob:x:1001:1001::/home/bob:/bin/sh\n";

    fn user(id: u32) -> User {
        User::in_passwd(id, PASSWD)
    }

    fn look(me: u32, bot: u32, running: Option<i32>, origin: Origin) -> Outcome {
        let vantage = Vantage {
            me: user(me),
            bot: user(bot),
            running,
            environment: HashMap::new(),
            origin,
            control_groups: Vec::new(),
            config_file: "/srv/config.yaml".into(),
        };
        let mut report = Report::default();
        let seen = vantage.look(&mut report);
        let outcome = report.checks.remove(0).outcome;
        assert_eq!(seen.is_err(), matches!(outcome, Outcome::Failed { .. }));
        outcome
    }

    #[test]
    fn the_first_line_says_who_looks_for_whom_and_with_whose_environment() {
        let as_alice = "`sudo -u alice rcbot check --config /srv/config.yaml`";
        for (me, bot, running, origin, begin, remedy) in [
            (
                1000,
                1000,
                None,
                Origin::Ours,
                "✔ checked as: alice, with the environment of this shell",
                None,
            ),
            (
                1000,
                1000,
                Some(7),
                Origin::Bot,
                "✔ checked as: alice, with the environment of the bot, process 7",
                None,
            ),
            (
                0,
                0,
                None,
                Origin::Ours,
                "✔ checked as: root, with the environment of this shell",
                None,
            ),
            (
                0,
                1000,
                Some(7),
                Origin::Bot,
                "⚠ checked as: root in place of alice, who may do less, with the environment of the bot",
                Some(as_alice),
            ),
            (
                0,
                1000,
                None,
                Origin::Ours,
                "⚠ checked as: root in place of alice, who may do less, with the home directory of alice",
                Some(as_alice),
            ),
            (
                1001,
                1000,
                None,
                Origin::Ours,
                "✘ checked as: bob, and the bot's data directory belongs to alice",
                Some(as_alice),
            ),
            (
                1001,
                0,
                None,
                Origin::Ours,
                "✘ checked as: bob, and the bot's data directory belongs to root",
                Some("`sudo -u root rcbot check"),
            ),
            (
                1000,
                1000,
                Some(7),
                Origin::Ours,
                "⚠ checked as: alice, with another environment than the bot's",
                Some("`sudo rcbot check --config /srv/"),
            ),
        ] {
            let outcome = look(me, bot, running, origin);
            let name = CHECKED_AS.to_owned();
            let line = super::super::Check { name, outcome }.to_string();
            assert!(line.starts_with(begin), "{line}");
            assert!(line.contains(remedy.unwrap_or_default()), "{line}");
            assert!(!line.contains("chown"), "{line}");
        }
    }

    #[test]
    fn a_process_of_root_may_be_the_bot_only_if_it_runs_one_with_this_configuration() {
        for (arguments, expected) in [
            ("rcbot run --config /srv/config.yaml", true),
            ("rcbot run --config=/srv/config.yaml", true),
            ("rcbot run --config config.yaml", true),
            ("rcbot run --config ./config.yaml", true),
            ("rcbot run", true),
            ("rcbot run --config /etc/rcbot.yaml", false),
            ("rcbot run --config=/etc/rcbot.yaml", false),
            ("rcbot run --config other.yaml", false),
            ("rcbot check", false),
            ("rcbot registration --config /srv/config.yaml", false),
            // Exited, and not waited for.
            ("", false),
        ] {
            let words: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
            let found = may_be_for(Path::new("/srv/config.yaml"), &words);
            assert_eq!(found, expected, "{arguments}");
        }
        assert!(!may_be_for(Path::new("/srv/config.yaml"), &[]));
    }

    #[test]
    fn each_place_that_may_be_systemds_is_looked_at() {
        let group = |hierarchy, controller: &str, path: &str| ProcessCGroup {
            hierarchy,
            controllers: vec![controller.to_owned()],
            pathname: path.to_owned(),
        };
        let all = vec![
            group(2, "memory", "/memory"),
            group(1, "name=systemd", "/"),
            group(0, "", "/system.slice/rcbot.service"),
        ];
        assert_eq!(control_groups(all), ["/", "/system.slice/rcbot.service"]);
    }

    #[test]
    fn root_looks_with_the_home_directory_of_the_bots_user() {
        let environment = our_environment(&user(0), &user(1000));
        let get = |name: &str| environment.get(&OsString::from(name)).cloned();
        assert_eq!(get("HOME"), Some("/home/alice".into()));
        assert_eq!(get("USER"), Some("alice".into()));
        assert_eq!(get("CLAUDE_CONFIG_DIR"), None);
        assert_eq!(get("PATH"), env::var_os("PATH"));
        let own: HashMap<_, _> = env::vars_os().collect();
        assert_eq!(our_environment(&user(1000), &user(1000)), own);
        assert_eq!(our_environment(&user(0), &user(0)), own);
        assert_eq!(user(1234).to_string(), "#1234");
    }
}

//! The user and the environment with which the checks run. Those of the bot are what counts.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::process::{Process, all_processes};
use rustix::process::geteuid;

use super::{Found, Outcome};
use crate::{config::Config, data_dir, shell};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    /// As sudo(8) takes it.
    name: String,
    /// `None`: the system does not know this user.
    home: Option<PathBuf>,
}

/// The user who checks, and the one who runs the bot.
pub(super) struct Vantage {
    /// The user who runs the check.
    pub(super) me: User,
    /// The owner of the data directory. `None`: it does not exist yet.
    owner: Option<User>,
    /// The user who runs the bot, as far as known.
    bot: User,
    /// The bot's process. `None`: no bot runs.
    pub(super) running: Option<i32>,
    /// The environment from which sessions take theirs.
    pub(super) environment: HashMap<OsString, OsString>,
    /// Whether that is the environment of the bot's process, and not of the check.
    is_of_bot: bool,
    pub(super) config_file: PathBuf,
}

impl User {
    pub(super) fn of(id: u32) -> Self {
        let known = nix::unistd::User::from_uid(id.into()).ok().flatten();
        let (name, home) = known.map_or_else(
            || (format!("#{id}"), None),
            |user| (user.name, Some(user.dir)),
        );
        Self { id, name, home }
    }

    fn is_root(&self) -> bool {
        self.id == 0
    }

    /// The command that checks as this user.
    pub(super) fn check(&self, config_file: &Path) -> String {
        let config_file = shell::word(config_file);
        // To a shell, a word that begins with # is a comment.
        let user = self.name.replace('#', "\\#");
        format!("`sudo -u {user} rcbot check --config {config_file}`")
    }
}

impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Vantage {
    pub(super) fn new(config: &Config) -> Self {
        let me = User::of(geteuid().as_raw());
        let running = data_dir::process_running_with(&config.data_dir);
        let process = running.and_then(|pid| Process::new(pid).ok());
        let owner = owner(&config.data_dir);
        let status = process.as_ref().and_then(|process| process.status().ok());
        let bot = match status {
            Some(status) => User::of(status.euid),
            None => would_run(&me, owner.as_ref(), &config.file),
        };
        // Another user's process keeps its environment to itself.
        let of_bot = process.and_then(|process| process.environ().ok());
        Self {
            is_of_bot: of_bot.is_some(),
            environment: of_bot.unwrap_or_else(|| our_environment(&me, &bot)),
            config_file: config.file.clone(),
            me,
            owner,
            bot,
            running,
        }
    }

    /// Whether root checks in another user's place: it sees everything, and may do more than that user.
    pub(super) fn is_root_for_another(&self) -> bool {
        self.me.is_root() && !self.bot.is_root()
    }

    /// Whether the bot runs as this user, as far as known.
    pub(super) fn runs_as(&self, user: u32) -> bool {
        self.bot.id == user
    }

    /// Whether PATH and the like are the bot's, or those of a user who starts it from the same shell.
    pub(super) fn knows_environment(&self) -> bool {
        self.is_of_bot || !self.is_root_for_another()
    }

    /// How to check as the bot's own user.
    pub(super) fn as_bot(&self) -> String {
        self.bot.check(&self.config_file)
    }

    /// Who checks, who owns the data, who runs the bot, and whose the environment is. `Err`: a user who cannot see the bot's
    /// files, and could only report on their own.
    pub(super) fn judge(&self) -> Found<()> {
        let (me, bot) = (&self.me, &self.bot);
        let data = match &self.owner {
            Some(owner) => format!("the data directory belongs to {owner}"),
            None => "there is no data directory yet".to_owned(),
        };
        let process = match self.running {
            Some(pid) => format!("the bot is process {pid}, run by {bot}"),
            None => "no bot runs".to_owned(),
        };
        let environment = if self.is_of_bot {
            "the bot's".to_owned()
        } else if self.is_root_for_another() {
            format!("{me}'s, with the home directory of {bot}")
        } else {
            format!("{me}'s, of this shell")
        };
        let found = format!("{me}; {data}; {process}; environment: {environment}");
        if me.id != bot.id && !me.is_root() {
            let otherwise =
                "or set `data_dir` in config.yaml to another path, if the bot is to run as";
            return Err(Outcome::failed(
                format!("{found}. {me} does not see what belongs to {bot}"),
                format!("{}; {otherwise} {me}", self.as_bot()),
            ));
        }
        let outcome = if self.is_root_for_another() {
            let found = format!("{found}. This is for {bot}, who may do less than {me}");
            Outcome::warning(found, self.as_bot())
        } else if self.running.is_some() && !self.is_of_bot {
            let config_file = shell::word(&self.config_file);
            let found = format!("{found}. That of the bot cannot be read");
            Outcome::warning(found, format!("`sudo rcbot check --config {config_file}`"))
        } else {
            Outcome::passed(found)
        };
        Ok((outcome, ()))
    }
}

pub(super) fn owner(file: &Path) -> Option<User> {
    Some(User::of(fs::metadata(file).ok()?.uid()))
}

/// The user who would run a bot. Root's files in place of ours are those of a `sudo rcbot`, unless root runs a bot: we cannot
/// see the files of that one.
fn would_run(me: &User, owner_of_data: Option<&User>, config_file: &Path) -> User {
    match owner_of_data {
        Some(owner) if owner.is_root() && !me.is_root() && !root_runs_a_bot() => me.clone(),
        Some(owner) => owner.clone(),
        // `sudo rcbot check` before the first run.
        None if me.is_root() => owner(config_file).unwrap_or_else(|| me.clone()),
        None => me.clone(),
    }
}

/// A zombie process has no arguments any more, and other commands of the binary are not a bot.
fn root_runs_a_bot() -> bool {
    let is_bot = |process: &Process| {
        let status = process.status().ok();
        status.is_some_and(|status| status.euid == 0 && status.name == env!("CARGO_PKG_NAME"))
            && process
                .cmdline()
                .is_ok_and(|words| words.iter().any(|word| word == "run"))
    };
    let all = all_processes().into_iter().flatten().flatten();
    all.into_iter().any(|process| is_bot(&process))
}

/// Root's home directory is not that of another user's bot.
fn our_environment(me: &User, bot: &User) -> HashMap<OsString, OsString> {
    let mut environment: HashMap<_, _> = env::vars_os().collect();
    if me.is_root() && !bot.is_root() {
        let is_of_root = |name: &str| {
            name.starts_with("XDG_")
                || ["CLAUDE_CONFIG_DIR", "HOME", "LOGNAME", "USER"].contains(&name)
        };
        environment.retain(|name, _| !name.to_str().is_some_and(is_of_root));
        if let Some(home) = &bot.home {
            environment.insert("HOME".into(), home.into());
            environment.extend(["LOGNAME", "USER"].map(|it| (it.into(), bot.name.clone().into())));
        }
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn user(id: u32) -> User {
        let name = if id == 0 { "root" } else { "alice" };
        let name = if id == 1001 { "bob" } else { name };
        User {
            id,
            name: name.to_owned(),
            home: Some(Path::new("/home").join(name)),
        }
    }

    #[test]
    fn checked_as_names_user_owner_bot_and_environment() {
        use Verdict::{Failed, Warning};
        let judged = |me, bot, running, is_of_bot| {
            let vantage = Vantage {
                me: user(me),
                owner: Some(user(bot)),
                bot: user(bot),
                running,
                environment: HashMap::new(),
                is_of_bot,
                config_file: "/srv/config.yaml".into(),
            };
            let (Ok((outcome, ())) | Err(outcome)) = vantage.judge();
            outcome
        };
        let (idle, runs) = ("no bot runs", "the bot is process 7, run by alice");
        let alices = "alice; the data directory belongs to alice";
        for (outcome, found) in [
            (
                judged(1000, 1000, None, false),
                format!("{alices}; {idle}; environment: alice's, of this shell"),
            ),
            (
                judged(1000, 1000, Some(7), true),
                format!("{alices}; {runs}; environment: the bot's"),
            ),
            (
                judged(0, 0, None, false),
                format!(
                    "root; the data directory belongs to root; {idle}; environment: root's, of this shell"
                ),
            ),
        ] {
            assert_eq!(outcome, Outcome::passed(found));
        }
        let as_alice = "`sudo -u alice rcbot check --config /srv/config.yaml`";
        for (outcome, verdict, found, remedy) in [
            (
                judged(0, 1000, Some(7), true),
                Warning,
                "environment: the bot's. This is for alice, who may do less than root",
                as_alice,
            ),
            (
                judged(0, 1000, None, false),
                Warning,
                "environment: root's, with the home directory of alice. This is for alice",
                as_alice,
            ),
            (
                judged(1001, 1000, None, false),
                Failed,
                "bob's, of this shell. bob does not see what belongs to alice",
                as_alice,
            ),
            (
                judged(1001, 0, None, false),
                Failed,
                "what belongs to root",
                "`sudo -u root rcbot check",
            ),
            (
                judged(1000, 1000, Some(7), false),
                Warning,
                "That of the bot cannot be read",
                "`sudo rcbot check --config /srv/",
            ),
        ] {
            assert_eq!(outcome.verdict, verdict, "{outcome:?}");
            assert!(outcome.found.contains(found), "{outcome:?}");
            let text = outcome.remedy.unwrap();
            assert!(text.contains(remedy) && !text.contains("chown"), "{text}");
        }
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
        let unknown = User::of(3_999_999_999);
        assert_eq!(unknown.to_string(), "#3999999999");
        assert_eq!(
            unknown.check(Path::new("/srv/my bot/config.yaml")),
            r"`sudo -u \#3999999999 rcbot check --config '/srv/my bot/config.yaml'`"
        );
    }
}

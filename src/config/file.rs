//! config.yaml as serde structs, and their conversion. A new key is a field here and a line where its section is read.
//!
//! A section without a value is as good as an empty one: its keys may all be commented out.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, mem,
    path::PathBuf,
    time::Duration,
};

use matrix_sdk::ruma::UserId;
use serde::{
    Deserialize, Deserializer,
    de::{self, value::MapAccessDeserializer},
};
use serde_yaml::Value;

use super::{
    Authorization, Config, ConfiguredProject, ConfiguredProjects, Devices, Encryption, LoginMethod,
    Notification, ProjectRoot, RequireEncryptedCommands,
    authorization::read_users,
    document::{Document, Given},
    patience,
    values::{
        self, AccessToken, AccountPassword, AnyDuration, Anything, Command, CommandPrefix, Count,
        CountOrNone, DevicesToTrust, DurationOrNone, EncryptedCommands, FilePath, Flag,
        HomeserverUrl, Host, Input, Kind, Localpart, Name, NotifyOf, OutputSize, Pattern,
        PositiveDuration, PowerLevel, RestartWhen, Room, Server, StartChoice, User, Variable,
    },
};
use crate::remote_control::{
    Choice, LinkPattern, MAX_OUTPUT, Project, ProjectName, RECONNECT_LIMIT, Restart, STOP_GRACE,
    SessionSettings, StartOption, has_placeholder,
};

/// More than anybody types who reads the answers.
const COMMANDS_PER_MINUTE: usize = 10;

/// What a workstation bears: `claude` grows by up to a gigabyte a day.
const MAX_SESSIONS: usize = 8;

/// A command that arrives later may not be what its sender wants now.
const MAX_COMMAND_AGE: Duration = Duration::from_mins(2);

/// Without `--spawn` it asks a question in some directories and waits for ever; the app's list mixes up sessions of one name.
const COMMAND: [&str; 9] = [
    "claude",
    "remote-control",
    "--settings",
    "{settings}",
    "--permission-mode",
    "{mode}",
    "--spawn={spawn}",
    "--name",
    "{name} {project}@{host} {id}",
];

/// `--continue` excludes `--spawn`, and `--settings` has to stand before what takes a value.
const RESUME_COMMAND: [&str; 9] = [
    "claude",
    "remote-control",
    "--settings",
    "{settings}",
    "--continue",
    "--permission-mode",
    "{mode}",
    "--name",
    "{name} {project}@{host} {id}",
];

/// The directory of the conversations of a session: all in that of the project.
const SPAWN: &str = "same-dir";

/// All forms that the link has had: `/code?environment=..`, `/code?bridge=..`, `/code/session_..`.
const LINK_PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";

/// How long a process may run without showing its link: a login check and two requests take 3 s on a slow day, and on a small
/// host a first start takes most of a minute. Where the service refuses it, the program says so and stays for some 50 s.
const LINK_TIMEOUT: Duration = Duration::from_mins(1);

/// Nobody works longer at a stretch, and a forgotten session should not stay open over night.
const MAX_DURATION: Duration = Duration::from_hours(12);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    homeserver: HomeserverSection,
    appservice: AppserviceSection,
    bot: BotSection,
    admin_room: Given<Room>,
    host: Given<Host>,
    command_prefix: Given<CommandPrefix>,
    authorization: AuthorizationSection,
    encryption: EncryptionSection,
    max_command_age: Given<PositiveDuration>,
    rate: RateSection,
    max_sessions: Given<CountOrNone>,
    data_dir: Given<FilePath>,
    sessions: ProjectSection,
    projects: BTreeMap<String, ProjectSection>,
    project_roots: Vec<RootSection>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HomeserverSection {
    url: Given<HomeserverUrl>,
    server_name: Given<Server>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AppserviceSection {
    registration: Given<FilePath>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BotSection {
    localpart: Given<Localpart>,
    display_name: Given<Name>,
    access_token: Given<AccessToken>,
    password: Given<AccountPassword>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuthorizationSection {
    users: Given<Anything>,
    power_level: Given<PowerLevel>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EncryptionSection {
    devices: Given<DevicesToTrust>,
    require_encrypted_commands: Given<EncryptedCommands>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RateSection {
    commands_per_minute: Given<Count>,
}

/// A project, or `sessions`, which has its keys but for the first four.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProjectSection {
    directory: Given<FilePath>,
    power_level: Given<PowerLevel>,
    autostart: Given<Flag>,
    deliver_to: Given<Anything>,
    command: Given<Command>,
    resume_command: Given<Command>,
    permission_modes: Given<Anything>,
    spawn: Given<Anything>,
    settings: Given<FilePath>,
    environment: BTreeMap<String, Given<Variable>>,
    stdin: Given<Input>,
    link_pattern: Given<Pattern>,
    link_timeout: Given<PositiveDuration>,
    stop_grace: Given<AnyDuration>,
    reconnect_limit: Given<PositiveDuration>,
    max_duration: Given<DurationOrNone>,
    max_output: Given<OutputSize>,
    restart: Given<RestartWhen>,
    notify: Given<Anything>,
}

/// The settings of every project that has no others.
struct Defaults {
    settings: SessionSettings,
    notify: Vec<Notification>,
}

/// A root: its directory, or a mapping with the keys of a project.
struct RootSection(ProjectSection);

impl<'de> Deserialize<'de> for RootSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RootVisitor)
    }
}

struct RootVisitor;

impl<'de> de::Visitor<'de> for RootVisitor {
    type Value = RootSection;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a path, or a mapping")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RootSection, E> {
        let directory = FilePath::of_text(text).map_err(E::custom)?;
        Ok(RootSection(ProjectSection {
            directory: Given(Some(directory)),
            ..ProjectSection::default()
        }))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RootSection, A::Error> {
        ProjectSection::deserialize(MapAccessDeserializer::new(map)).map(RootSection)
    }
}

/// The keys of a project that `sessions` does not have.
const OF_PROJECT: [&str; 4] = ["directory", "power_level", "autostart", "deliver_to"];

pub(super) const DATA_DIR: &str = "data";

impl File {
    /// Reads all keys, even after a problem.
    pub(super) fn into_config(self, document: &Document<'_>) -> Option<Config> {
        let homeserver_url = document.required("homeserver.url", self.homeserver.url);
        if homeserver_url.as_ref().is_some_and(values::is_unprotected) {
            document.warning(
                "homeserver.url",
                "is http to another host: tokens go there in the clear; use https or 127.0.0.1",
            );
        }
        let server_name = document.required("homeserver.server_name", self.homeserver.server_name);
        let bot = self.bot;
        let localpart = bot.localpart.or("rcbot".to_owned());
        let bot_user = server_name.as_ref().and_then(|server| {
            UserId::parse(format!("@{localpart}:{server}"))
                .map_err(|error| document.problem("bot.localpart", error.to_string()))
                .ok()
        });
        let registration = self.appservice.registration.or("registration.yaml".into());
        let registration = document.path(registration);
        let login = read_login(bot.access_token, bot.password, registration, document);
        let admin_room = document.required("admin_room", self.admin_room);
        let users = self.authorization.users.0;
        let users = users.map(|users| read_users("authorization.users", &users, document));
        let encryption = self.encryption;
        let has_roots = document.has("project_roots[0]");
        let sessions = self.sessions.read_sessions(document)?;
        let projects = read_projects(self.projects, &sessions, has_roots, document);
        let project_roots = read_roots(self.project_roots, &sessions, document);
        Some(Config {
            file: PathBuf::new(),
            host: self.host.0,
            command_prefix: self.command_prefix.or("!rc".to_owned()),
            authorization: Authorization {
                power_level: self.authorization.power_level.or(100),
                users: users.unwrap_or_default(),
            },
            encryption: Encryption {
                devices: encryption.devices.or(Devices::CrossSigned),
                require_encrypted_commands: encryption
                    .require_encrypted_commands
                    .or(RequireEncryptedCommands::Auto),
            },
            commands_per_minute: self.rate.commands_per_minute.or(COMMANDS_PER_MINUTE),
            max_sessions: self.max_sessions.or(Some(MAX_SESSIONS)),
            max_command_age: self.max_command_age.or(MAX_COMMAND_AGE),
            data_dir: document.path(self.data_dir.or(DATA_DIR.into())),
            homeserver_url: homeserver_url?,
            server_name: server_name?,
            login: login?,
            bot_user: bot_user?,
            display_name: bot.display_name.or("Remote Control".to_owned()),
            admin_room: admin_room?,
            projects,
            project_roots,
            warnings: document.take_warnings(),
        })
    }
}

/// Exactly one way to log in. By default, it is the appservice's.
fn read_login(
    token: Given<AccessToken>,
    password: Given<AccountPassword>,
    registration: PathBuf,
    document: &Document<'_>,
) -> Option<LoginMethod> {
    let has = |key| document.has(key);
    match (has("bot.access_token"), has("bot.password")) {
        (true, true) => {
            let message = "is given beside bot.access_token, and the bot logs in one way; remove one of the two";
            document.problem("bot.password", message);
            None
        }
        (false, false) => Some(LoginMethod::Appservice(registration)),
        (true, false) | (false, true) if has("appservice") => {
            let message = "is given beside bot.access_token or bot.password, and the bot logs in one way; remove this \
                           section, or the other key";
            document.problem("appservice", message);
            None
        }
        (true, false) => token.0.map(LoginMethod::AccessToken),
        (false, true) => password.0.map(LoginMethod::Password),
    }
}

fn read_projects(
    projects: BTreeMap<String, ProjectSection>,
    sessions: &Defaults,
    has_roots: bool,
    document: &Document<'_>,
) -> ConfiguredProjects {
    if projects.is_empty() && !has_roots && !document.is_wrong_below("projects") {
        document.problem(
            "projects",
            "none given, wanted at least one: a name, and below it `directory: /path/to/it`",
        );
    }
    let mut known = ConfiguredProjects::new();
    let projects = projects.into_iter();
    let projects = projects.map(|(name, section)| (format!("projects.{name}"), name, section));
    let mut projects: Vec<_> = projects.collect();
    projects.sort_by_key(|(at, ..)| document.line_of(at));
    for (at, name, section) in projects {
        let Some(read) = section.read_project(name, &at, sessions, document) else {
            continue;
        };
        compare_name(&read.project.name, &known, &at, document);
        known.insert(read.project.name.clone(), read);
    }
    compare_directories(&known, document);
    known
}

fn read_roots(
    roots: Vec<RootSection>,
    sessions: &Defaults,
    document: &Document<'_>,
) -> Vec<ProjectRoot> {
    let roots = roots.into_iter().enumerate();
    let roots = roots.filter_map(|(index, RootSection(mut section))| {
        let at = format!("project_roots[{index}]");
        let misplaced = ["autostart", "deliver_to"].map(|key| format!("{at}.{key}"));
        for key in misplaced.iter().filter(|key| document.has(key)) {
            let message = "is a key of a project, not of a root; move it below `projects`";
            document.problem(key, message);
        }
        let directory = mem::take(&mut section.directory);
        let directory = document.required(&format!("{at}.directory"), directory);
        Some(ProjectRoot {
            power_level: section.power_level.0,
            notify: section.read_notify(&at, &sessions.notify, document),
            settings: section.read_settings(&at, sessions.settings.clone(), document),
            directory: document.path(directory?),
        })
    });
    roots.collect()
}

/// Refuses names that two projects must not have.
fn compare_name(name: &ProjectName, known: &ConfiguredProjects, at: &str, document: &Document<'_>) {
    let mut names = known.keys();
    if let Some(other) = names.find(|other| other.as_str().eq_ignore_ascii_case(name.as_str())) {
        document.problem(
            at,
            format!(
                "`{other}` is the same but for upper and lower case, and where file names do not tell these apart the two \
                 would share one folder; rename one of them"
            ),
        );
    }
}

/// Warns of directories that two projects should not share. Without symbolic links, as far as they exist and answer.
fn compare_directories(projects: &ConfiguredProjects, document: &Document<'_>) {
    let asked = projects.iter().map(|(name, configured)| {
        let directory = &configured.project.directory;
        let (at, asked) = (format!("projects.{name}.directory"), directory.clone());
        ((at, name, directory), move || asked.canonicalize())
    });
    let mut answered: Vec<_> = patience::ask_all(asked).collect();
    answered.sort_by_key(|((at, ..), _)| document.line_of(at));
    let mut known = BTreeMap::<PathBuf, &ProjectName>::new();
    for ((at, name, directory), real) in answered {
        let real = real.and_then(Result::ok);
        match known.entry(real.unwrap_or_else(|| directory.clone())) {
            Entry::Vacant(free) => drop(free.insert(name)),
            Entry::Occupied(taken) => document.warning(
                &at,
                format!(
                    "is that of `{}` too: `claude` serves a directory once, so only one of the two can have a session",
                    taken.get()
                ),
            ),
        }
    }
}

impl ProjectSection {
    fn read_project(
        mut self,
        name: String,
        at: &str,
        sessions: &Defaults,
        document: &Document<'_>,
    ) -> Option<ConfiguredProject> {
        let name = ProjectName::try_from(name);
        if let Err(error) = &name {
            document.problem(at, format!("{error}; rename it"));
        }
        let directory = mem::take(&mut self.directory);
        let directory = document.required(&format!("{at}.directory"), directory);
        let power_level = self.power_level.0;
        let deliver_to = self.read_autostart(at, document);
        let notify = self.read_notify(at, &sessions.notify, document);
        let settings = self.read_settings(at, sessions.settings.clone(), document);
        Some(ConfiguredProject {
            project: Project {
                name: name.ok()?,
                directory: document.path(directory?),
                deliver_to,
                settings,
                is_found: false,
            },
            power_level,
            notify,
        })
    }

    /// The events that ring; by default those of the outer section.
    fn read_notify(
        &self,
        at: &str,
        outer: &[Notification],
        document: &Document<'_>,
    ) -> Vec<Notification> {
        let given = self.notify.0.as_ref();
        let read = |list| document.list::<NotifyOf>(&format!("{at}.notify"), list);
        given.map_or_else(|| outer.to_vec(), read)
    }

    /// Who gets the link of an autostarted session; nobody, if it is not autostarted.
    fn read_autostart(&self, at: &str, document: &Document<'_>) -> Vec<String> {
        let autostart = self.autostart.0.unwrap_or(false);
        let path = format!("{at}.deliver_to");
        let users = self.deliver_to.0.as_ref();
        let users = users.map(|users| document.list::<User>(&path, users));
        let users = users.unwrap_or_default();
        match (autostart, users.is_empty()) {
            (true, true) => document.problem(
                &format!("{at}.autostart"),
                "needs deliver_to, wanted a list of users who get the link, such as [\"@admin:example.org\"]",
            ),
            (false, false) => document.problem(&path, "is of no use without autostart: true"),
            (true, false) | (false, true) => {}
        }
        users.iter().map(ToString::to_string).collect()
    }

    fn read_sessions(self, document: &Document<'_>) -> Option<Defaults> {
        let misplaced = OF_PROJECT.map(|key| format!("sessions.{key}"));
        for key in misplaced.iter().filter(|key| document.has(key)) {
            document.problem(key, "is a key of a project; move it below `projects`");
        }
        let built_in = SessionSettings {
            command: COMMAND.map(str::to_owned).to_vec(),
            resume_command: RESUME_COMMAND.map(str::to_owned).to_vec(),
            permission_modes: Vec::new(),
            spawn: vec![Choice {
                value: SPAWN.to_owned(),
                level: None,
            }],
            settings: None,
            environment: BTreeMap::new(),
            // Answers the question of the very first run.
            stdin: "y\n".into(),
            link_pattern: LinkPattern::new(LINK_PATTERN)
                .map_err(|error| document.problem("sessions.link_pattern", error.to_string()))
                .ok()?,
            link_timeout: LINK_TIMEOUT,
            stop_grace: STOP_GRACE,
            reconnect_limit: RECONNECT_LIMIT,
            max_duration: Some(MAX_DURATION),
            max_output: MAX_OUTPUT,
            restart: Restart::Never,
        };
        let all = values::NOTIFICATIONS.map(|(_, notification)| notification);
        Some(Defaults {
            notify: self.read_notify("sessions", &all, document),
            settings: self.read_settings("sessions", built_in, document),
        })
    }

    /// The settings here override those outside. Variables are added to those outside; one of the same name overrides.
    fn read_settings(
        self,
        at: &str,
        outer: SessionSettings,
        document: &Document<'_>,
    ) -> SessionSettings {
        let (mode, spawn) = (self.permission_modes.0, self.spawn.0);
        let as_written = |path: String| document.plain(&path).map(str::to_owned);
        let command = |key: &str, given: Given<Command>| {
            let path = format!("{at}.{key}");
            let words = given.0?.into_iter().enumerate();
            let words =
                words.map(|(index, word)| as_written(format!("{path}[{index}]")).unwrap_or(word));
            let words: Vec<_> = words.collect();
            refuse_name_in_script(&path, &words, document);
            Some(words)
        };
        let variable = |(name, given): (String, Given<Variable>)| {
            let path = format!("{at}.environment.{name}");
            if let Some(why) = values::unfit_name(&name) {
                document.wrong_key(&path, &name, why);
            }
            let value = given.0?;
            let value = as_written(path).map_or(value, |text| text.as_str().into());
            Some((name, value))
        };
        let inner = self.environment.into_iter().filter_map(variable);
        let start = command("command", self.command);
        let resume = command("resume_command", self.resume_command);
        let is_own = start.is_some() || resume.is_some() || self.settings.0.is_some();
        let start = start.unwrap_or(outer.command);
        let resume = resume.unwrap_or(outer.resume_command);
        let settings = self.settings.0.map(|path| document.path(path));
        let settings = settings.or(outer.settings);
        // Settings that are meant for each session must not be left out by one of them.
        for (key, words) in [("command", &start), ("resume_command", &resume)] {
            if is_own && settings.is_some() && !has_placeholder(words, "settings") {
                document.problem(
                    &format!("{at}.settings"),
                    format!("does not get to the session, as `{key}` has no `{{settings}}`; add it there: --settings, \"{{settings}}\""),
                );
            }
        }
        let choices = |option, key: &str, given: Option<Value>| {
            let path = format!("{at}.{key}");
            Some(read_choices(option, &path, &given?, &start, document))
        };
        let mode = choices(StartOption::Mode, "permission_modes", mode);
        let spawn = choices(StartOption::Spawn, "spawn", spawn);
        SessionSettings {
            permission_modes: mode.unwrap_or(outer.permission_modes),
            spawn: spawn.unwrap_or(outer.spawn),
            command: start,
            resume_command: resume,
            settings,
            environment: outer.environment.into_iter().chain(inner).collect(),
            stdin: self.stdin.or(outer.stdin),
            link_pattern: self.link_pattern.or(outer.link_pattern),
            link_timeout: self.link_timeout.or(outer.link_timeout),
            stop_grace: self.stop_grace.or(outer.stop_grace),
            reconnect_limit: self.reconnect_limit.or(outer.reconnect_limit),
            max_duration: self.max_duration.or(outer.max_duration),
            max_output: self.max_output.or(outer.max_output),
            restart: self.restart.or(outer.restart),
        }
    }
}

/// The values that a start may choose. They need a placeholder in the command.
fn read_choices(
    option: StartOption,
    path: &str,
    given: &Value,
    command: &[String],
    document: &Document<'_>,
) -> Vec<Choice> {
    let choices = document.list::<StartChoice>(path, given);
    let name = option.name();
    if !choices.is_empty() && !option.is_in(command) {
        let message = format!("is of no use, as the command has no `{{{name}}}`; add it there");
        document.problem(path, message);
    }
    for (index, choice) in choices.iter().enumerate() {
        let mut before = choices.iter().take(index);
        if before.any(|other| other.value.eq_ignore_ascii_case(&choice.value)) {
            document.problem(path, format!("has `{}` twice; remove one", choice.value));
        }
    }
    choices
}

/// A name must be an argument, and never part of what a shell reads, as in `sh -c ".."`.
fn refuse_name_in_script(path: &str, command: &[String], document: &Document<'_>) {
    let is_script_option = |word: &String| {
        let letters = word
            .strip_prefix('-')
            .and_then(|word| word.strip_suffix('c'));
        letters.is_some_and(|letters| letters.bytes().all(|byte| byte.is_ascii_alphabetic()))
    };
    for (index, words) in command.windows(2).enumerate() {
        if let [before, script] = words
            && is_script_option(before)
            && StartOption::Name.is_in(std::slice::from_ref(script))
        {
            document.problem(
                &format!("{path}[{}]", index + 1),
                "a shell would read `{name}`, which people choose; use \"$1\" in its place, and add two arguments: sh, \"{name}\"",
            );
        }
    }
}

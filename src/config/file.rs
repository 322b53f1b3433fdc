//! config.yaml as serde structs, and what is made of them. A new key is a field here and a line where its section is read.
//!
//! A section without a value is as good as an empty one: its keys may all be commented out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_sdk::ruma::{OwnedServerName, OwnedUserId, UserId};
use serde::Deserialize;
use url::Url;

use super::{
    Authorization, Config, ConfiguredProject, Devices, Encryption, Limits, LoginMethod,
    RequireEncryptedCommands,
    authorization::read_users,
    document::{Document, Given},
    values,
};
use crate::remote_control::{
    LinkPattern, MAX_OUTPUT, Project, ProjectName, RECONNECT_LIMIT, Restart, STOP_GRACE,
    SessionSettings,
};

/// Faster than anybody types who reads the answers.
const COMMANDS_PER_MINUTE: usize = 10;

/// `claude` grows by up to a gigabyte a day: what a workstation bears.
const MAX_SESSIONS: usize = 8;

/// A command that took longer to get here is not what its sender wants now.
const MAX_COMMAND_AGE: Duration = Duration::from_mins(2);

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

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    homeserver: HomeserverSection,
    appservice: Option<AppserviceSection>,
    bot: BotSection,
    admin_room: Given,
    host: Given,
    command_prefix: Given,
    authorization: AuthorizationSection,
    encryption: EncryptionSection,
    max_command_age: Given,
    rate: RateSection,
    max_sessions: Given,
    data_dir: Given,
    sessions: ProjectSection,
    projects: BTreeMap<String, ProjectSection>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HomeserverSection {
    url: Given,
    server_name: Given,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AppserviceSection {
    registration: Given,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BotSection {
    localpart: Given,
    display_name: Given,
    access_token: Given,
    password: Given,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthorizationSection {
    users: Given,
    power_level: Given,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EncryptionSection {
    devices: Given,
    require_encrypted_commands: Given,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RateSection {
    commands_per_minute: Given,
}

/// A project, or `sessions`, which has its keys but for the first four.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ProjectSection {
    directory: Given,
    power_level: Given,
    autostart: Given,
    deliver_to: Given,
    command: Given,
    resume_command: Given,
    environment: BTreeMap<String, Given>,
    stdin: Given,
    link_pattern: Given,
    link_timeout: Given,
    stop_grace: Given,
    reconnect_limit: Given,
    max_duration: Given,
    max_output: Given,
    restart: Given,
}

/// Where the bot keeps its files if nothing else is said, with the configuration in this folder.
pub(super) fn default_data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

impl File {
    /// Reads all keys before it gives up on any. Relative paths begin at `folder`.
    pub(super) fn into_config(self, folder: &Path, document: &Document<'_>) -> Option<Config> {
        let (homeserver_url, server_name) = self.homeserver.read(document);
        let bot = self.bot;
        let (bot_user, display_name) = bot.read_user(server_name.as_ref(), document);
        let login = bot.read_login(self.appservice, folder, document);
        let admin_room = document.required("admin_room", &self.admin_room, values::room);
        let rate = self.rate.commands_per_minute;
        let sessions = self.sessions;
        let projects = read_projects(self.projects, sessions, folder, document);
        Some(Config {
            file: PathBuf::new(),
            host: document.optional(&self.host, values::host),
            command_prefix: document.or(
                &self.command_prefix,
                "!rc".to_owned(),
                values::command_prefix,
            ),
            authorization: self.authorization.read(document),
            encryption: self.encryption.read(document),
            limits: Limits {
                commands_per_minute: document.or(&rate, COMMANDS_PER_MINUTE, values::count),
                max_sessions: document.or(
                    &self.max_sessions,
                    Some(MAX_SESSIONS),
                    values::optional_count,
                ),
            },
            max_command_age: document.or(
                &self.max_command_age,
                MAX_COMMAND_AGE,
                values::positive_duration,
            ),
            data_dir: document.or(
                &self.data_dir,
                default_data_dir(folder),
                values::path(folder),
            ),
            homeserver_url: homeserver_url?,
            server_name: server_name?,
            login: login?,
            bot_user: bot_user?,
            display_name,
            admin_room: admin_room?,
            projects: projects?,
            warnings: Vec::new(),
        })
    }
}

impl HomeserverSection {
    fn read(self, document: &Document<'_>) -> (Option<Url>, Option<OwnedServerName>) {
        let url = document.required("homeserver.url", &self.url, values::homeserver_url);
        if url.as_ref().is_some_and(values::is_unprotected) {
            document.warning(
                "homeserver.url",
                "is http to another host: tokens go there in the clear; use https or 127.0.0.1",
            );
        }
        let name = document.required(
            "homeserver.server_name",
            &self.server_name,
            values::server_name,
        );
        (url, name)
    }
}

impl BotSection {
    fn read_user(
        &self,
        server: Option<&OwnedServerName>,
        document: &Document<'_>,
    ) -> (Option<OwnedUserId>, String) {
        let localpart = document.or(&self.localpart, "rcbot".to_owned(), values::localpart);
        let display_name = document.or(
            &self.display_name,
            "Remote Control".to_owned(),
            values::name,
        );
        let user = server.map(|server| UserId::parse(format!("@{localpart}:{server}")));
        let user = user.and_then(|user| {
            user.map_err(|error| document.problem("bot.localpart", error.to_string()))
                .ok()
        });
        (user, display_name)
    }

    /// Exactly one way. Without any word about it, it is the appservice's.
    fn read_login(
        &self,
        appservice: Option<AppserviceSection>,
        folder: &Path,
        document: &Document<'_>,
    ) -> Option<LoginMethod> {
        let token = document.optional(&self.access_token, values::secret);
        let password = document.optional(&self.password, values::secret);
        let has_appservice = appservice.is_some();
        let registration = document.or(
            &appservice.unwrap_or_default().registration,
            folder.join("registration.yaml"),
            values::path(folder),
        );
        match (self.access_token.is_there(), self.password.is_there()) {
            (true, true) => {
                let message = "is given beside bot.access_token, and the bot logs in one way; remove one of the two";
                document.problem("bot.password", message);
                None
            }
            (false, false) => Some(LoginMethod::Appservice { registration }),
            (true, false) | (false, true) if has_appservice => {
                let message = "is given beside bot.access_token or bot.password, and the bot logs in one way; remove this \
                               section, or the other key";
                document.problem("appservice", message);
                None
            }
            (true, false) => token.map(LoginMethod::AccessToken),
            (false, true) => password.map(LoginMethod::Password),
        }
    }
}

impl AuthorizationSection {
    fn read(self, document: &Document<'_>) -> Authorization {
        Authorization {
            power_level: document.or(&self.power_level, 100, values::power_level),
            users: read_users(&self.users, document),
        }
    }
}

impl EncryptionSection {
    fn read(self, document: &Document<'_>) -> Encryption {
        let devices = [
            ("cross_signed", Devices::CrossSigned),
            ("any", Devices::Any),
        ];
        let required = [
            ("auto", RequireEncryptedCommands::Auto),
            ("always", RequireEncryptedCommands::Always),
            ("never", RequireEncryptedCommands::Never),
        ];
        Encryption {
            devices: document.or(
                &self.devices,
                Devices::CrossSigned,
                values::one_of(&devices),
            ),
            require_encrypted_commands: document.or(
                &self.require_encrypted_commands,
                RequireEncryptedCommands::Auto,
                values::one_of(&required),
            ),
        }
    }
}

fn read_projects(
    projects: BTreeMap<String, ProjectSection>,
    sessions: ProjectSection,
    folder: &Path,
    document: &Document<'_>,
) -> Option<BTreeMap<ProjectName, ConfiguredProject>> {
    let sessions = sessions.read_sessions(document)?;
    if projects.is_empty() && document.can_have_keys("projects") {
        document.problem(
            "projects",
            "none given, wanted at least one: a name, and below it `directory: /path/to/it`",
        );
    }
    let mut known = BTreeMap::<_, ConfiguredProject>::new();
    let mut projects: Vec<_> = projects
        .into_iter()
        .map(|(name, section)| (format!("projects.{name}"), name, section))
        .collect();
    projects.sort_by_key(|(at, ..)| document.line_of(at));
    for (at, name, section) in projects {
        let Some(read) = section.read_project(name, &at, &sessions, folder, document) else {
            continue;
        };
        compare(&read.project, &known, &at, document);
        known.insert(read.project.name.clone(), read);
    }
    Some(known)
}

/// What two projects must not share, or better not.
fn compare(
    project: &Project,
    known: &BTreeMap<ProjectName, ConfiguredProject>,
    at: &str,
    document: &Document<'_>,
) {
    let name = project.name.as_str();
    let mut names = known.keys();
    if let Some(other) = names.find(|other| other.as_str().eq_ignore_ascii_case(name)) {
        document.problem(
            at,
            format!(
                "`{other}` is the same but for upper and lower case, and where file names do not tell these apart the two \
                 would share one folder; rename one of them"
            ),
        );
    }
    let directory = real_path(project);
    let mut others = known.values().map(|configured| &configured.project);
    if let Some(Project { name: other, .. }) = others.find(|it| real_path(it) == directory) {
        document.warning(
            &format!("{at}.directory"),
            format!(
                "is that of `{other}` too: `claude` serves a directory once, so only one of the two can have a session"
            ),
        );
    }
}

/// The project's directory without symbolic links, as far as it is there.
fn real_path(project: &Project) -> PathBuf {
    let directory = &project.directory;
    directory
        .canonicalize()
        .unwrap_or_else(|_| directory.clone())
}

impl ProjectSection {
    fn read_project(
        self,
        name: String,
        at: &str,
        sessions: &SessionSettings,
        folder: &Path,
        document: &Document<'_>,
    ) -> Option<ConfiguredProject> {
        let name = ProjectName::try_from(name);
        if let Err(error) = &name {
            document.problem(at, format!("{error}; rename it"));
        }
        let key = format!("{at}.directory");
        let directory = document.required(&key, &self.directory, values::path(folder));
        let power_level = document.optional(&self.power_level, values::power_level);
        let deliver_to = self.read_autostart(at, document);
        let settings = self.read_settings(sessions.clone(), document);
        Some(ConfiguredProject {
            project: Project {
                name: name.ok()?,
                directory: directory?,
                deliver_to,
                settings,
            },
            power_level,
        })
    }

    /// Who gets the link of a session that starts with the bot; nobody, where none does.
    fn read_autostart(&self, at: &str, document: &Document<'_>) -> Vec<String> {
        let autostart = document.or(&self.autostart, false, values::flag);
        let users = document.list(&self.deliver_to, values::user_id);
        match (autostart, users.is_empty()) {
            (true, true) => document.problem(
                &format!("{at}.autostart"),
                "needs deliver_to, wanted a list of users who get the link, such as [\"@admin:example.org\"]",
            ),
            (false, false) => document.problem(
                &format!("{at}.deliver_to"),
                "is of no use without autostart: true",
            ),
            (true, false) | (false, true) => {}
        }
        users.iter().map(ToString::to_string).collect()
    }

    /// What holds for every project that does not say otherwise.
    fn read_sessions(self, document: &Document<'_>) -> Option<SessionSettings> {
        let misplaced = [
            ("directory", self.directory.is_there()),
            ("power_level", self.power_level.is_there()),
            ("autostart", self.autostart.is_there()),
            ("deliver_to", self.deliver_to.is_there()),
        ];
        for (key, _) in misplaced.iter().filter(|(_, is_there)| *is_there) {
            let message = "is a key of a project; move it below `projects`";
            document.problem(&format!("sessions.{key}"), message);
        }
        let built_in = SessionSettings {
            command: COMMAND.map(str::to_owned).to_vec(),
            resume_command: RESUME_COMMAND.map(str::to_owned).to_vec(),
            environment: BTreeMap::new(),
            // Answers the question that is asked once, the first time ever.
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
        Some(self.read_settings(built_in, document))
    }

    /// What is given here, over what holds outside. Variables are added to those outside; one of the same name wins.
    fn read_settings(self, outer: SessionSettings, document: &Document<'_>) -> SessionSettings {
        let variable = |(name, given): (String, Given)| {
            let value = document.optional(&given, |value| values::variable(&name, value))?;
            Some((name, value))
        };
        let inner = self.environment.into_iter().filter_map(variable);
        let restarts = [("never", Restart::Never), ("on_exit", Restart::OnExit)];
        SessionSettings {
            command: document.or(&self.command, outer.command, values::command),
            resume_command: document.or(
                &self.resume_command,
                outer.resume_command,
                values::command,
            ),
            environment: outer.environment.into_iter().chain(inner).collect(),
            stdin: document.or(&self.stdin, outer.stdin, values::secret),
            link_pattern: document.or(&self.link_pattern, outer.link_pattern, values::link_pattern),
            link_timeout: document.or(
                &self.link_timeout,
                outer.link_timeout,
                values::positive_duration,
            ),
            stop_grace: document.or(&self.stop_grace, outer.stop_grace, values::duration),
            reconnect_limit: document.or(
                &self.reconnect_limit,
                outer.reconnect_limit,
                values::positive_duration,
            ),
            max_duration: document.or(
                &self.max_duration,
                outer.max_duration,
                values::optional_duration,
            ),
            max_output: document.or(&self.max_output, outer.max_output, values::output_size),
            restart: document.or(&self.restart, outer.restart, values::one_of(&restarts)),
        }
    }
}

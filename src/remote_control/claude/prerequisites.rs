//! What must hold on the host before `claude remote-control` serves, according to the program's own files.
//!
//! Read in version 2.1.332. These files are the program's: they are looked at and never written, as it races for them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use url::Url;

use super::Cause;
use crate::regular_file;

/// The oldest and the newest version from which these facts were taken.
pub(crate) const KNOWN_VERSIONS: (Version, Version) = (Version(2, 1, 197), Version(2, 1, 332));

/// The version from which on `--continue` brings back a conversation of Remote Control.
pub(crate) const FIRST_TO_CONTINUE: Version = Version(2, 1, 200);

/// The version from which on a server takes `--settings`.
pub(crate) const FIRST_WITH_SETTINGS: Version = Version(2, 1, 321);

/// The scope of a log-in with a claude.ai account, which one with an API console does not have.
const SCOPE_OF_SUBSCRIBERS: &str = "user:inference";

/// The scope of a full log-in, which a long-lived token (`claude setup-token`) does not have.
const SCOPE_OF_FULL_LOGINS: &str = "user:profile";

/// The one host that Remote Control works with.
const SERVICE: &str = "api.anthropic.com";

/// What an organisation prescribes to all users of a host.
const MANAGED_SETTINGS: &str = "/etc/claude-code/managed-settings.json";

/// The folder of more files of that kind, `*.json`.
const MANAGED_FOLDER: &str = "/etc/claude-code/managed-settings.d";

/// The longest e-mail address there can be, in bytes: RFC 5321, 4.5.3.1.3.
const LONGEST_ADDRESS: usize = 254;

/// How long before the end of a log-in users are warned: no holiday is longer.
const ENDS_SOON: Duration = Duration::from_hours(5 * 24);

/// How large a file may be, in bytes: parsed, it can take forty times the memory, and a session can write some of them.
const LONGEST_FILE: u64 = 1 << 20;

/// The same for the state file, which grows with the projects in it, to some megabytes.
const LONGEST_STATE: u64 = 64 << 20;

/// Where the program keeps its data, for a session with a certain environment in a certain directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaudeFiles {
    /// Has the trusted directories and the consent; the first of these that exists.
    state: [PathBuf; 2],
    /// Has the log-in. The content is secret.
    credentials: PathBuf,
    /// Settings of the user, of which each may be missing.
    settings: PathBuf,
    directory: PathBuf,
    home: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) enum Unmet {
    /// A cause that the program itself would report.
    Cause(Cause),
    /// There is a token, but this file does not name its account.
    NoAccount(PathBuf),
    /// A home directory is never trusted.
    IsHome,
    /// A file cannot be read, so its content is unknown.
    Unreadable(PathBuf, io::Error),
}

/// A valid log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) account: Option<String>,
    /// When it ends for good, if that is known.
    pub(crate) ends: Option<SystemTime>,
}

impl Login {
    /// How long it lasts, if it ends soon.
    pub(crate) fn ends_in(&self, now: SystemTime) -> Option<Duration> {
        let left = self.ends?.duration_since(now).unwrap_or_default();
        (left < ENDS_SOON).then_some(left)
    }
}

/// A variable of the environment, or a key of a settings file. Not its value, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: String,
    /// Where it is set, as shown to users.
    pub(crate) place: String,
    pub(crate) is_empty: bool,
    /// `None`: all versions serve.
    pub(crate) affected: Option<AffectedVersions>,
}

impl ClaudeFiles {
    /// Those that a session with this environment uses in a directory. `None`: unknown without HOME.
    pub(crate) fn of(environment: &BTreeMap<OsString, OsString>, directory: &Path) -> Option<Self> {
        let set = |name: &str| {
            let value = environment.get(OsStr::new(name));
            value.filter(|it| !it.is_empty()).map(PathBuf::from)
        };
        let home = set("HOME");
        let configured = set("CLAUDE_CONFIG_DIR");
        let folder = configured
            .clone()
            .or_else(|| Some(home.as_ref()?.join(".claude")))?;
        let storage = set("CLAUDE_SECURESTORAGE_CONFIG_DIR").unwrap_or_else(|| folder.clone());
        Some(Self {
            state: [
                folder.join(".config.json"),
                configured.or(home.clone())?.join(".claude.json"),
            ],
            credentials: storage.join(".credentials.json"),
            settings: folder.join("settings.json"),
            // The program asks the system where it is.
            directory: directory.canonicalize().unwrap_or(directory.to_owned()),
            home: home.and_then(|home| home.canonicalize().ok()),
        })
    }

    /// The one that the program reads, or would write. Two servers with the same one and the same directory exclude each other.
    pub(crate) fn state_file(&self) -> &Path {
        let [first, second] = &self.state;
        if first.exists() { first } else { second }
    }

    /// The account that is logged in, if it is known.
    pub(crate) fn account(&self) -> Option<String> {
        self.state().ok()?.account().map(str::to_owned)
    }

    /// The log-in, if it is complete.
    pub(crate) fn log_in(&self, now: SystemTime) -> Result<Login, Unmet> {
        let text = read(&self.credentials)?.ok_or(Unmet::Cause(Cause::NotLoggedIn))?;
        let ends = log_in(&text, now).map_err(Unmet::Cause)?;
        // Valid if the account cannot be read: the checks of trust and consent report that.
        let Ok(state) = self.state() else {
            return Ok(Login {
                account: None,
                ends,
            });
        };
        if !state.has_account() {
            return Err(Unmet::NoAccount(self.state_file().to_owned()));
        }
        let account = state.account().map(str::to_owned);
        Ok(Login { account, ends })
    }

    /// Whether the directory is trusted, directly or by another one that counts for it.
    pub(crate) fn trust(&self) -> Result<(), Unmet> {
        if self.is_home() {
            return Err(Unmet::IsHome);
        }
        if self.is_trusted_by(&self.state()?) {
            Ok(())
        } else {
            Err(Unmet::Cause(Cause::WorkspaceNotTrusted))
        }
    }

    fn is_home(&self) -> bool {
        self.home.as_ref() == Some(&self.directory)
    }

    fn is_trusted_by(&self, state: &ClaudeState) -> bool {
        let places = trusted_by(&self.directory, self.home.as_deref());
        places.iter().any(|place| state.trusts(place))
    }

    /// Whether a user was once asked whether Remote Control may be enabled, and said yes.
    pub(crate) fn has_consent(&self) -> Result<bool, Unmet> {
        Ok(self.state()?.was_asked_for_consent())
    }

    /// The relevant settings in the files of all levels.
    pub(crate) fn settings(&self) -> Result<Vec<Setting>, Unmet> {
        let of_project = self.directory.join(".claude");
        let managed = fs::read_dir(MANAGED_FOLDER).into_iter().flatten().flatten();
        let managed = managed.map(|entry| entry.path());
        let files = managed.filter(|file| file.extension() == Some(OsStr::new("json")));
        let files = files.chain([
            MANAGED_SETTINGS.into(),
            of_project.join("settings.local.json"),
            of_project.join("settings.json"),
            self.settings.clone(),
        ]);
        let mut settings = Vec::new();
        for file in files {
            if let Some(text) = read(&file)? {
                let is_of_project = file.parent() == Some(&of_project);
                settings.extend(settings_in(&text, &file, is_of_project));
            }
        }
        Ok(settings)
    }

    /// Empty if there is no file yet.
    fn state(&self) -> Result<ClaudeState, Unmet> {
        let file = self.state_file();
        let text = read_up_to(LONGEST_STATE, file)?.unwrap_or_else(|| "{}".to_owned());
        let state = serde_json::from_str(&text);
        state
            .map(ClaudeState)
            .map_err(|error| Unmet::Unreadable(file.to_owned(), error.into()))
    }
}

/// Checks for many directories whether they are trusted; reads the program's file once for all of them.
#[derive(Debug, Default)]
pub(crate) struct TrustReader(BTreeMap<PathBuf, Option<ClaudeState>>);

impl TrustReader {
    /// `None`: the file cannot be read.
    pub(crate) fn trusts(&mut self, files: &ClaudeFiles) -> Option<bool> {
        if files.is_home() {
            return Some(false);
        }
        let known = self.0.entry(files.state_file().to_owned());
        let state = known.or_insert_with(|| files.state().ok()).as_ref()?;
        Some(files.is_trusted_by(state))
    }
}

/// `None`: there is no such file.
fn read(file: &Path) -> Result<Option<String>, Unmet> {
    read_up_to(LONGEST_FILE, file)
}

fn read_up_to(longest: u64, file: &Path) -> Result<Option<String>, Unmet> {
    let text = regular_file::read(file, longest + 1).and_then(|bytes| {
        let length = bytes.as_ref().map_or(0, Vec::len);
        if length as u64 > longest {
            return Err(io::Error::other("it is too large"));
        }
        let text = bytes.map(String::from_utf8).transpose();
        // The whole error has the bytes, which may be those of the log-in.
        text.map_err(|error| io::Error::other(error.utf8_error()))
    });
    text.map_err(|error| Unmet::Unreadable(file.to_owned(), error))
}

/// The content of `.claude.json`. A key that is missing or of another type means no.
#[derive(Debug)]
struct ClaudeState(Value);

impl ClaudeState {
    fn was_asked_for_consent(&self) -> bool {
        self.0.get("remoteDialogSeen") == Some(&Value::Bool(true))
    }

    /// Whether this very directory was trusted; see [`trusted_by`] for those below it.
    fn trusts(&self, directory: &Path) -> bool {
        let project = || self.0.get("projects")?.get(directory.to_str()?);
        let trust = project().and_then(|project| project.get("hasTrustDialogAccepted"));
        trust == Some(&Value::Bool(true))
    }

    /// Whether the account of the log-in is known. Without it the program cannot determine the organisation, and refuses.
    fn has_account(&self) -> bool {
        self.0.get("oauthAccount").is_some_and(Value::is_object)
    }

    /// The e-mail address of the claude.ai account, if known: ASCII without blanks or line ends, as it is shown to users.
    fn account(&self) -> Option<&str> {
        let address = self.0.pointer("/oauthAccount/emailAddress")?.as_str()?;
        let is_address = address.len() <= LONGEST_ADDRESS
            && address.contains('@')
            && address.bytes().all(|byte| byte.is_ascii_graphic());
        is_address.then_some(address)
    }
}

/// Checks the text of `.credentials.json`. Returns when the log-in ends for good, if that is known.
fn log_in(credentials: &str, now: SystemTime) -> Result<Option<SystemTime>, Cause> {
    let all: Value = serde_json::from_str(credentials).map_err(|_| Cause::NotLoggedIn)?;
    let login = all.get("claudeAiOauth").ok_or(Cause::NotLoggedIn)?;
    let has_token = |name: &str| {
        let token = login.get(name).and_then(Value::as_str);
        token.is_some_and(|token| !token.is_empty())
    };
    let has_scope = |wanted: &str| {
        let scopes = login.get("scopes").and_then(Value::as_array);
        scopes.is_some_and(|all| all.iter().any(|scope| scope == wanted))
    };
    let end = |key: &str| {
        let milliseconds = login.get(key).and_then(Value::as_u64)?;
        UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
    };
    // If it can be renewed, the end of that counts.
    let ends = if has_token("refreshToken") {
        end("refreshTokenExpiresAt")
    } else {
        end("expiresAt")
    };
    let is_over = ends.is_some_and(|end| end <= now);
    if !has_token("accessToken") || !has_scope(SCOPE_OF_SUBSCRIBERS) || is_over {
        return Err(Cause::NotLoggedIn);
    }
    if has_scope(SCOPE_OF_FULL_LOGINS) {
        Ok(ends)
    } else {
        Err(Cause::LongLivedToken)
    }
}

/// The directories of which one has to be trusted: the project's own and those above it, only up to the root of its git
/// repository. For a linked worktree it is the main checkout. A home directory is never trusted. The paths must be without
/// symbolic links.
fn trusted_by(directory: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for place in directory.ancestors() {
        let git = place.join(".git");
        if let Some(checkout) = main_checkout(&git) {
            return vec![checkout];
        }
        if Some(place) != home {
            places.push(place.to_owned());
        }
        if git.exists() {
            break;
        }
    }
    places
}

/// Where the repository of a linked worktree is checked out. Its `.git` is a file that names a folder within the repository,
/// and that folder names the repository (gitrepository-layout(5)). `None`: it is not a linked worktree.
fn main_checkout(git: &Path) -> Option<PathBuf> {
    let leads_to = |file: &Path, prefix: &str| -> Option<PathBuf> {
        let text = read(file).ok()??;
        let path = text.strip_prefix(prefix)?.trim();
        file.parent()?.join(path).canonicalize().ok()
    };
    let own = leads_to(git, "gitdir:")?;
    let repository = leads_to(&own.join("commondir"), "")?;
    match repository.file_name()?.to_str() {
        Some(".git") => repository.parent().map(Path::to_owned),
        _ => Some(repository),
    }
}

/// Which versions of the program do not serve because of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AffectedVersions {
    /// Those before 2.1.288, and all where the organisation asks for Trusted Devices.
    Old,
    All,
}

fn affected(name: &str, value: &str) -> Option<AffectedVersions> {
    use AffectedVersions::{All, Old};
    let (affected, is_set) = match name {
        "ANTHROPIC_API_KEY"
        | "ANTHROPIC_AUTH_TOKEN"
        | "ANTHROPIC_UNIX_SOCKET"
        | "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
        | "CLAUDE_CODE_OAUTH_TOKEN" => (All, !value.is_empty()),
        "ANTHROPIC_BASE_URL" => (All, !value.is_empty() && !is_service(value)),
        "CLAUDE_CODE_DISABLE_FEATURE_FLAGS"
        | "CLAUDE_CODE_REMOTE"
        | "CLAUDE_CODE_SIMPLE"
        | "CLAUDE_CODE_USE_ANTHROPIC_AWS"
        | "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD"
        | "CLAUDE_CODE_USE_BEDROCK"
        | "CLAUDE_CODE_USE_FOUNDRY"
        | "CLAUDE_CODE_USE_MANTLE"
        | "CLAUDE_CODE_USE_VERTEX"
        | "DISABLE_GROWTHBOOK" => (All, is_on(value)),
        "DISABLE_TELEMETRY" => (Old, !value.is_empty()),
        "DO_NOT_TRACK" => (Old, is_on(value)),
        _ => return None,
    };
    is_set.then_some(affected)
}

impl Setting {
    pub(crate) fn variable(name: &str, value: &str, place: &str) -> Self {
        Self {
            name: name.to_owned(),
            place: place.to_owned(),
            is_empty: value.is_empty(),
            affected: affected(name, value),
        }
    }
}

/// The relevant settings in a file's text. The program ignores an invalid file. An API key in a project's own file does not
/// count: anyone who can write to the project may have written it.
fn settings_in(text: &str, file: &Path, is_of_project: bool) -> Vec<Setting> {
    let settings: Value = serde_json::from_str(text).unwrap_or_default();
    let file = file.display().to_string();
    let place = format!("`env` in {file}");
    let variables = settings.get("env").and_then(Value::as_object);
    let variables = variables.into_iter().flatten().map(|(name, value)| {
        let text = value.as_str().map(str::to_owned);
        Setting::variable(name, &text.unwrap_or_else(|| value.to_string()), &place)
    });
    let helper = settings.get("apiKeyHelper").and_then(Value::as_str);
    let has_helper = helper.is_some_and(|helper| !helper.is_empty());
    let is_disabled = settings.get("disableRemoteControl") == Some(&Value::Bool(true));
    let keys = [
        ("apiKeyHelper", has_helper),
        ("disableRemoteControl", is_disabled),
    ];
    let keys = keys.into_iter().filter(|(_, is_set)| *is_set);
    let keys = keys.map(|(key, _)| Setting {
        name: format!("`{key}`"),
        place: file.clone(),
        is_empty: false,
        affected: Some(AffectedVersions::All),
    });
    let is_ignored = |variable: &Setting| is_of_project && variable.name == "ANTHROPIC_API_KEY";
    let variables = variables.filter(|variable| !is_ignored(variable));
    variables.chain(keys).collect()
}

/// The values that the program reads as yes.
fn is_on(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.trim().to_lowercase().as_str())
}

fn is_service(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str() == Some(SERVICE) && url.port().is_none())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

impl Version {
    /// Finds it in what `claude --version` prints: `2.1.197 (Claude Code)`.
    pub(crate) fn parse(printed: &str) -> Option<Self> {
        let numbers = printed.strip_suffix("(Claude Code)")?.trim_end();
        let mut numbers = numbers.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some(Self(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn parse(state: &str) -> ClaudeState {
        ClaudeState(serde_json::from_str(state).unwrap())
    }

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    /// Where the program's data is in the project's directory.
    fn files_in_one_folder() -> (TempDir, ClaudeFiles) {
        let folder = TempDir::new().unwrap();
        let configured = folder.path().to_str().unwrap();
        let environment = environment(&[("CLAUDE_CONFIG_DIR", configured)]);
        let files = ClaudeFiles::of(&environment, folder.path()).unwrap();
        (folder, files)
    }

    #[test]
    fn the_files_are_where_home_or_the_variables_say() {
        let files = |pairs: &[(&str, &str)]| {
            ClaudeFiles::of(&environment(pairs), Path::new("/srv/website"))
        };
        let at_home = files(&[("HOME", "/home/alice")]).unwrap();
        assert_eq!(at_home.state[1], Path::new("/home/alice/.claude.json"));
        assert_eq!(
            at_home.credentials,
            Path::new("/home/alice/.claude/.credentials.json")
        );
        let empty = files(&[("HOME", "/home/alice"), ("CLAUDE_CONFIG_DIR", "")]);
        assert_eq!(empty.as_ref(), Some(&at_home));
        let elsewhere = files(&[
            ("HOME", "/home/alice"),
            ("CLAUDE_CONFIG_DIR", "/srv/claude"),
        ])
        .unwrap();
        assert_eq!(elsewhere.state[1], Path::new("/srv/claude/.claude.json"));
        assert_eq!(
            elsewhere.credentials,
            Path::new("/srv/claude/.credentials.json")
        );
        assert_eq!(elsewhere.settings, Path::new("/srv/claude/settings.json"));
        assert_eq!(files(&[("HOME", "")]), None);
    }

    #[test]
    fn the_account_is_the_one_in_the_file_that_claude_itself_reads() {
        let folder = TempDir::new().unwrap();
        let configured = folder.path().to_str().unwrap();
        let environment = environment(&[("CLAUDE_CONFIG_DIR", configured)]);
        let account = || ClaudeFiles::of(&environment, Path::new("/"))?.account();
        let log_in = |file: &str, address: &str| {
            let state = json!({ "oauthAccount": { "emailAddress": address } });
            fs::write(folder.path().join(file), state.to_string()).unwrap();
        };
        assert_eq!(account(), None);
        log_in(".claude.json", "alice@example.org");
        assert_eq!(account().as_deref(), Some("alice@example.org"));
        // Where there is a file of this name, the other one is not read.
        log_in(".config.json", "bob@example.org");
        assert_eq!(account().as_deref(), Some("bob@example.org"));
        fs::write(folder.path().join(".config.json"), "{").unwrap();
        assert_eq!(account(), None);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_does_not_block() {
        let (folder, files) = files_in_one_folder();
        for pipe in [".claude.json", ".credentials.json", "settings.json", ".git"] {
            let pipe = folder.path().join(pipe);
            nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        assert_eq!(files.account(), None);
        let now = SystemTime::now();
        assert!(matches!(files.log_in(now), Err(Unmet::Unreadable(..))));
        assert!(matches!(files.settings(), Err(Unmet::Unreadable(..))));
        assert_eq!(main_checkout(&folder.path().join(".git")), None);
    }

    #[test]
    fn a_file_that_is_not_text_is_unreadable_and_not_quoted() {
        let (_folder, files) = files_in_one_folder();
        fs::write(&files.credentials, b"secret\xff").unwrap();
        let unmet = files.log_in(SystemTime::now()).unwrap_err();
        assert!(matches!(unmet, Unmet::Unreadable(..)), "{unmet:?}");
        let bytes = format!("{:?}", b"secret");
        assert!(!format!("{unmet:?}").contains(bytes.trim_matches(['[', ']'])));
    }

    /// A session can write some of them, and values take many times the memory of their text.
    #[test]
    fn only_as_much_is_read_of_a_file_as_it_can_have() {
        let (folder, files) = files_in_one_folder();
        let git = folder.path().join(".git");
        let space = " ".repeat(1024 * 1024);
        for (file, text) in [
            (&files.credentials, "{}"),
            (&files.settings, "{}"),
            (&git, "gitdir: .\n"),
        ] {
            fs::write(file, format!("{text}{space}")).unwrap();
        }
        let now = SystemTime::now();
        assert!(matches!(files.log_in(now), Err(Unmet::Unreadable(..))));
        assert!(matches!(files.settings(), Err(Unmet::Unreadable(..))));
        fs::write(folder.path().join("commondir"), ".").unwrap();
        assert_eq!(main_checkout(&git), None);
    }

    #[test]
    fn a_home_directory_is_not_trusted_whatever_is_in_the_file() {
        let folder = TempDir::new().unwrap();
        let environment = environment(&[("HOME", folder.path().to_str().unwrap())]);
        let files = ClaudeFiles::of(&environment, folder.path()).unwrap();
        fs::write(files.state_file(), "{").unwrap();
        assert!(matches!(files.trust(), Err(Unmet::IsHome)));
        assert_eq!(TrustReader::default().trusts(&files), Some(false));
    }

    #[test]
    fn a_directory_is_trusted_if_it_was_accepted_itself() {
        let state = json!({ "projects": {
        "/srv/website": { "hasTrustDialogAccepted": true },
        "/srv/api": { "hasTrustDialogAccepted": false },
        "/srv/docs": {},
    } });
        let state = parse(&state.to_string());
        let all = [
            "/srv/website",
            "/srv/website/backend",
            "/srv",
            "/srv/api",
            "/srv/docs",
        ];
        let trusted = all.iter().filter(|path| state.trusts(Path::new(path)));
        assert_eq!(trusted.collect::<Vec<_>>(), [&"/srv/website"]);
    }

    #[test]
    fn what_is_missing_or_of_another_type_means_no() {
        for text in ["{}", "[]", r#"{"remoteDialogSeen":"yes","projects":[]}"#] {
            let state = parse(text);
            assert!(
                !state.was_asked_for_consent() && !state.trusts(Path::new("/srv")),
                "{text}"
            );
        }
        let state = parse(r#"{"remoteDialogSeen":true}"#);
        assert!(state.was_asked_for_consent() && !state.has_account());
    }

    #[test]
    fn an_account_is_an_address_that_can_be_shown() {
        let address = |address: &str| json!({ "oauthAccount": { "emailAddress": address } });
        let alice = "alice@example.org";
        for (state, account) in [
            (address(alice), Some(alice)),
            (address("nobody"), None),
            (address("a@b\nHost: another"), None),
            (address(&format!("{}@b", "a".repeat(253))), None),
            (json!({}), None),
            (json!([]), None),
            (json!({ "oauthAccount": null }), None),
            (json!({ "oauthAccount": {} }), None),
            (json!({ "oauthAccount": { "emailAddress": 7 } }), None),
        ] {
            let state = ClaudeState(state);
            assert_eq!(state.account(), account, "{state:?}");
            assert!(account.is_none() || state.has_account());
        }
    }

    #[test]
    fn a_login_needs_a_token_both_scopes_and_a_future() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let full = json!(["user:inference", "user:profile"]);
        let login = |access: &str, refresh: &str, end: u64, scopes: &Value| {
            let text = json!({ "claudeAiOauth": {
            "accessToken": access, "refreshToken": refresh, "expiresAt": end, "scopes": scopes,
        } });
            log_in(&text.to_string(), now)
        };
        assert_eq!(login("a", "r", 2_000_000, &full), Ok(None));
        assert_eq!(login("a", "r", 500_000, &full), Ok(None), "it is renewed");
        let not_logged_in = Err(Cause::NotLoggedIn);
        assert_eq!(
            login("a", "", 500_000, &full),
            not_logged_in,
            "it cannot be renewed"
        );
        assert_eq!(login("", "", 0, &full), not_logged_in, "it was revoked");
        assert_eq!(
            login(
                "a",
                "r",
                2_000_000,
                &json!(["org:create_api_key", "user:profile"])
            ),
            not_logged_in
        );
        assert_eq!(
            login("a", "r", 2_000_000, &json!(["user:inference"])),
            Err(Cause::LongLivedToken)
        );
        let ends = |end: u64| {
            let text = json!({ "claudeAiOauth": {
                "accessToken": "a", "refreshToken": "r", "expiresAt": 500_000, "refreshTokenExpiresAt": end, "scopes": full,
            } });
            log_in(&text.to_string(), now)
        };
        assert_eq!(ends(500_000), not_logged_in, "the login itself has ended");
        let later = now + Duration::from_secs(1_000);
        assert_eq!(ends(2_000_000), Ok(Some(later)));
        for text in ["", "{}", "{\"claudeAiOauth\":null}"] {
            assert_eq!(log_in(text, now), not_logged_in, "{text}");
        }
    }

    #[test]
    fn what_switches_remote_control_off_is_known() {
        use AffectedVersions::{All, Old};
        for (name, value, expected) in [
            ("ANTHROPIC_API_KEY", "sk", Some(All)),
            ("ANTHROPIC_API_KEY", "", None),
            ("ANTHROPIC_BASE_URL", "https://proxy.example", Some(All)),
            ("ANTHROPIC_BASE_URL", "nonsense", Some(All)),
            ("ANTHROPIC_BASE_URL", "https://api.anthropic.com", None),
            ("ANTHROPIC_MODEL", "opus", None),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "0", Some(All)),
            ("CLAUDE_CODE_USE_BEDROCK", "1", Some(All)),
            ("CLAUDE_CODE_USE_BEDROCK", "0", None),
            ("CLAUDE_CODE_USE_GATEWAY", "1", None),
            ("DISABLE_GROWTHBOOK", "0", None),
            ("DISABLE_TELEMETRY", "0", Some(Old)),
            ("DO_NOT_TRACK", "True", Some(Old)),
            ("DO_NOT_TRACK", "0", None),
        ] {
            assert_eq!(affected(name, value), expected, "{name}={value}");
        }
    }

    #[test]
    fn settings_give_variables_and_switches() {
        let text = json!({
            "env": { "ANTHROPIC_API_KEY": "sk", "DISABLE_TELEMETRY": 1 },
            "apiKeyHelper": "/usr/bin/key",
            "disableRemoteControl": true,
        });
        let found = |text: &str, is_of_project| {
            let settings = settings_in(text, Path::new("/s"), is_of_project).into_iter();
            let found = settings.map(|it| format!("{} {} {:?}", it.name, it.place, it.affected));
            found.collect::<Vec<_>>()
        };
        let all = [
            "ANTHROPIC_API_KEY `env` in /s Some(All)",
            "DISABLE_TELEMETRY `env` in /s Some(Old)",
            "`apiKeyHelper` /s Some(All)",
            "`disableRemoteControl` /s Some(All)",
        ];
        assert_eq!(found(&text.to_string(), false), all);
        assert_eq!(found(&text.to_string(), true), all[1..]);
        for nothing in [
            "{",
            "[]",
            r#"{"apiKeyHelper":"","disableRemoteControl":false}"#,
        ] {
            assert_eq!(found(nothing, false), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text| Version::parse(text);
        assert_eq!(version("2.1.197 (Claude Code)"), Some(Version(2, 1, 197)));
        assert!(version("2.1.1000 (Claude Code)").unwrap() > FIRST_TO_CONTINUE);
        for other in ["", "2.1.197", "bash 5.2.15", "2.1 (Claude Code)"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    /// A folder with these repositories (folders with a `.git`) and files.
    fn host(repositories: &[&str], files: &[(&str, &str)]) -> TempDir {
        let folder = TempDir::with_prefix("rcbot-test-").unwrap();
        for repository in repositories {
            fs::create_dir_all(folder.path().join(repository).join(".git")).unwrap();
        }
        for (file, text) in files {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn trust_is_looked_for_up_to_the_root_of_the_repository_and_a_worktrees_in_the_main_checkout() {
        let host = host(
            &["srv/website", "srv/website/vendored", "srv/main"],
            &[
                ("srv/plain/below/file", ""),
                ("srv/website/backend/file", ""),
                ("srv/website/vendored/deep/file", ""),
                (
                    "srv/worktree/.git",
                    "gitdir: ../main/.git/worktrees/worktree\n",
                ),
                ("srv/worktree/backend/file", ""),
                ("srv/main/.git/worktrees/worktree/commondir", "../..\n"),
                ("srv/bare.git/worktrees/other/commondir", "../..\n"),
                ("srv/other/.git", "gitdir: ../bare.git/worktrees/other\n"),
                // A submodule is a separate repository.
                (
                    "srv/website/module/.git",
                    "gitdir: ../.git/modules/module\n",
                ),
                ("srv/website/.git/modules/module/HEAD", ""),
                ("srv/broken/.git", "gitdir: /nowhere\n"),
            ],
        );
        let root = host.path().canonicalize().unwrap();
        let home = root.join("srv");
        for (directory, expected) in [
            ("srv/website", &["srv/website"][..]),
            (
                "srv/website/backend",
                &["srv/website/backend", "srv/website"],
            ),
            ("srv/website/vendored", &["srv/website/vendored"]),
            (
                "srv/website/vendored/deep",
                &["srv/website/vendored/deep", "srv/website/vendored"],
            ),
            ("srv/website/module", &["srv/website/module"]),
            ("srv/worktree", &["srv/main"]),
            ("srv/worktree/backend", &["srv/main"]),
            ("srv/other", &["srv/bare.git"]),
            ("srv/broken", &["srv/broken"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|path| root.join(path)).collect();
            assert_eq!(
                trusted_by(&root.join(directory), Some(&home)),
                expected,
                "{directory}"
            );
        }
        // Outside of all repositories only the root is the end, and the home directory is left out.
        let plain = trusted_by(&root.join("srv/plain/below"), Some(&home));
        assert_eq!(
            plain[..3],
            ["srv/plain/below", "srv/plain", ""].map(|path| root.join(path))
        );
        assert_eq!(plain.last().map(PathBuf::as_path), Some(Path::new("/")));
    }
}

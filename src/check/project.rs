//! A project: its directory, its programs, and what `claude` must be set up for before it serves there.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};

use super::{
    Check, Outcome, Report, Verdict,
    run::{NotPrinted, printed_by},
    vantage::Vantage,
};
use crate::{
    command::reply::{counted, rfc3339},
    config::{Config, ConfiguredProject, Seen, patience, usable_directory},
    matrix::Chain,
    remote_control::{
        Cause, Place, Project, SESSION_ID_VARIABLE,
        claude::{
            self, HarmfulOption, Invocation, NETWORK_VARIABLES, gives_terminal,
            prerequisites::{
                AffectedVersions, ClaudeFiles, FIRST_TO_CONTINUE, FIRST_WITH_SETTINGS,
                KNOWN_VERSIONS, Setting, TrustReader, Unmet, Version,
            },
        },
        settings_file::digest_of,
    },
    shell,
};

/// The checks of sessions, for a project that has one.
const OF_SESSIONS: [Check; 5] = [
    Check::Command,
    Check::Settings,
    Check::Login,
    Check::Trust,
    Check::Consent,
];

/// Why they are skipped where the directory cannot be used.
const DIRECTORY_FIRST: &str = "\"directory\" comes first";

/// How much of a program's version is shown, in characters.
const SHOWN_VERSION: usize = 60;

/// Where programs are looked for without a PATH (execvp(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What programs print as their versions, by their environment: none is run twice.
type Versions = BTreeMap<(PathBuf, Environment), Result<String, NotPrinted>>;

type Environment = BTreeMap<OsString, OsString>;

pub(super) async fn judge(
    report: &mut Report,
    projects: impl Iterator<Item = &ConfiguredProject>,
    vantage: &Vantage,
) {
    let mut versions = Versions::new();
    let asked = projects.map(|ConfiguredProject { project, .. }| {
        let directory = project.directory.clone();
        (project, move || directory.exists())
    });
    let mut sites = Vec::new();
    for (project, answer) in patience::ask_all(asked) {
        match answer {
            Some(_) => sites.push(Site::new(project, vantage)),
            None => report_silent(report, project),
        }
    }
    for site in &sites {
        report.begin(&site.project.name);
        site.judge(report, &sites, &mut versions).await;
    }
}

/// Nothing about such a project can be checked: each access to its directory hangs, as on a dead network file system.
fn report_silent(report: &mut Report, project: &Project) {
    report.begin(&project.name);
    let outcome = Outcome::failed(
        format!("{} does not answer", project.directory.display()),
        "bring its file system back (`mount` shows which it is); other projects can be started meanwhile",
    );
    report.add(Check::Directory, outcome);
    report.skip_because(OF_SESSIONS, DIRECTORY_FIRST);
}

/// Whether each root can be read, and what is below it. And one project of each, the first that claude trusts, else the first:
/// its outcome holds for the others, which differ only in their folders.
pub(super) fn look_below_roots(
    config: &Config,
    vantage: &Vantage,
) -> (Outcome, Vec<ConfiguredProject>) {
    let found = config.look_below_roots();
    let (mut readable, mut unreadable, mut examples) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = TrustReader::default();
    for (root, seen) in config.project_roots.iter().zip(&found.roots) {
        let root = root.directory.display();
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                unreadable.push(format!("{root} cannot be read ({error})"));
                continue;
            }
        };
        let projects = seen.projects.iter().filter_map(|name| config.project(name));
        let (trusted, others): (Vec<_>, Vec<_>) = projects.partition(|project| {
            let files = Site::new(&project.project, vantage).files;
            files.and_then(|files| reader.trusts(&files)) == Some(true)
        });
        readable.push(format!("{root}: {}", describe(seen, trusted.len())));
        examples.extend(trusted.into_iter().chain(others).next());
    }
    let readable = readable.join("; ");
    let outcome = if config.project_roots.is_empty() {
        Outcome::skipped("config.yaml gives no `project_roots`")
    } else if !unreadable.is_empty() {
        Outcome::warning(
            unreadable.join("; "),
            "make it a directory that the user who runs rcbot may read, or change `project_roots` in config.yaml and restart \
             the bot",
        )
    } else if found.projects.is_empty() {
        Outcome::warning(
            readable,
            "make a folder there for each project, or change `project_roots`",
        )
    } else {
        Outcome::passed(readable)
    };
    (outcome, examples)
}

fn describe(seen: &Seen, trusted: usize) -> String {
    let mut parts = vec![
        counted(seen.projects.len(), "project", "projects"),
        format!("{trusted} trusted by claude"),
    ];
    if seen.unfit > 0 {
        let folders = counted(seen.unfit, "folder", "folders");
        parts.push(format!("{folders} with names that cannot be a project's"));
    }
    if seen.outside > 0 {
        let links = counted(seen.outside, "symbolic link", "symbolic links");
        parts.push(format!("{links} out of it or to hidden folders"));
    }
    if seen.is_cut {
        parts.push("and more that are not listed".to_owned());
    }
    parts.join(", ")
}

/// A project, and the environment that its sessions get.
struct Site<'a> {
    project: &'a Project,
    vantage: &'a Vantage,
    environment: Environment,
    files: Option<ClaudeFiles>,
    /// Without symbolic links.
    directory: PathBuf,
}

impl<'a> Site<'a> {
    fn new(project: &'a Project, vantage: &'a Vantage) -> Self {
        let ours = vantage.environment.clone();
        let mut environment = claude::environment(ours, &project.settings.environment, "");
        // No program that is run here is a session.
        environment.remove(OsStr::new(SESSION_ID_VARIABLE));
        let directory = project.directory.canonicalize();
        let directory = directory.unwrap_or_else(|_| project.directory.clone());
        Self {
            project,
            vantage,
            files: ClaudeFiles::of(&environment, &directory),
            environment,
            directory,
        }
    }

    async fn judge(&self, report: &mut Report, all: &[Site<'_>], versions: &mut Versions) {
        let directory = self.judge_directory(all);
        let is_usable = directory.verdict != Verdict::Failed;
        report.add(Check::Directory, directory);
        if !is_usable {
            return report.skip_because(OF_SESSIONS, DIRECTORY_FIRST);
        }
        let settings = &self.project.settings;
        let (start, resume) = (&settings.command, &settings.resume_command);
        if start.first() == resume.first() {
            let command = self.judge_command(start, resume, versions).await;
            report.add(Check::Command, command);
        } else {
            let command = self.judge_command(start, start, versions).await;
            report.add(Check::Command, command);
            let command = self.judge_command(resume, resume, versions).await;
            report.add(Check::ResumeCommand, command);
        }
        if let Some(path) = &settings.settings {
            report.add(Check::SettingsFile, self.judge_settings_file(path));
        }
        if Invocation::of(start).serves() {
            report.add(Check::Settings, self.judge_settings());
            report.add(Check::Login, self.judge_login());
            report.add(Check::Trust, self.judge_trust());
            report.add(Check::Consent, self.judge_consent());
        } else {
            let because = "its `command` does not run `claude remote-control`";
            report.skip_because(OF_SESSIONS, because);
        }
    }

    fn judge_directory(&self, all: &[Site<'_>]) -> Outcome {
        let path = &self.project.directory;
        let elsewhere = format!(
            "or change `{}` in config.yaml and restart the bot",
            self.key("directory")
        );
        let may_enter = access(path, Access::EXEC_OK | Access::READ_OK);
        // No file may be entered, and permissions would not help.
        let is_file = path.metadata().is_ok_and(|found| !found.is_dir());
        if let Err(error @ Errno::ACCESS) = may_enter
            && !is_file
        {
            let error = io::Error::from(error);
            return Outcome::failed(
                format!("{} is closed to us ({error})", path.display()),
                format!("let the user who runs rcbot enter and read it, {elsewhere}"),
            );
        }
        if let Err(why) = usable_directory(path) {
            return Outcome::failed(why, format!("bring it back, {elsewhere}"));
        }
        let shared = all.iter().filter(|other| self.excludes(other));
        let shared: Vec<_> = shared.map(|other| other.project.name.as_str()).collect();
        if shared.is_empty() {
            return Outcome::passed(path.display().to_string());
        }
        let shared = shared.join(" and ");
        Outcome::warning(
            format!(
                "{} is the directory of {shared} too, and claude serves a directory once at a time",
                path.display()
            ),
            format!("stop one of them before you start the other, {elsewhere}"),
        )
    }

    /// Only the program's first word is run, with `--version`: that starts nothing.
    async fn judge_command(
        &self,
        words: &[String],
        resume: &[String],
        versions: &mut Versions,
    ) -> Result<Outcome, Outcome> {
        let name = words.first().map_or("", String::as_str);
        let invocation = Invocation::of(words);
        if invocation == Invocation::InTerminal {
            return Err(Outcome::failed(
                "`--remote-control` opens Remote Control in a terminal, and a session has none",
                "write `remote-control` in its place, without the dashes, in config.yaml; and restart the bot",
            ));
        }
        if let Some(option) = HarmfulOption::of(words).or_else(|| HarmfulOption::of(resume)) {
            return Err(judge_harmful(option));
        }
        let program = self.find(name)?;
        let shown = program.display();
        // A user who can change it would have it run as root.
        if self.vantage.is_root_for_another() {
            let found = format!("{shown}, which root does not run");
            return Ok(Outcome::passed(found));
        }
        let version = self.version(&program, versions).await;
        let version = version.map_err(|fault| judge_fault(&program, invocation, &fault))?;
        let continues = resume.iter().any(|word| word == "--continue");
        let has_settings = self.project.settings.settings.is_some();
        let (oldest, newest) = KNOWN_VERSIONS;
        Ok(match Version::parse(&version) {
            Some(new) if new > newest => Outcome::passed(format!(
                "{shown}, {version}; this rcbot was written for versions up to {newest}"
            )),
            Some(old) if has_settings && old < FIRST_WITH_SETTINGS => Outcome::failed(
                format!("{shown} is version {old}, and `settings` needs {FIRST_WITH_SETTINGS}"),
                "`claude update`, as the user who runs rcbot",
            ),
            Some(old) if old < oldest => Outcome::warning(
                format!(
                    "{shown} is version {old}, and this rcbot was written for {oldest} to {newest}"
                ),
                "`claude update`, as the user who runs rcbot",
            ),
            Some(old) if continues && old < FIRST_TO_CONTINUE => Outcome::warning(
                format!("{shown} is version {old}, and `resume` needs {FIRST_TO_CONTINUE}"),
                "`claude update`, as the user who runs rcbot",
            ),
            Some(_) => Outcome::passed(format!("{shown}, {version}")),
            None if version.is_empty() => Outcome::passed(format!("{shown}, version unknown")),
            None => Outcome::passed(format!("{shown}, which prints {version:?} as its version")),
        })
    }

    /// Where a session would find the program.
    fn find(&self, name: &str) -> Result<PathBuf, Outcome> {
        let path = self.environment.get(OsStr::new("PATH")).cloned();
        let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
        let folders: Vec<_> = if name.contains('/') {
            vec![PathBuf::new()]
        } else {
            env::split_paths(&path).collect()
        };
        let candidates = folders.iter();
        let candidates = candidates.map(|folder| self.directory.join(folder).join(name));
        let files: Vec<_> = candidates.filter(|path| path.is_file()).collect();
        let mut programs = files.iter();
        if let Some(program) = programs.find(|path| access(*path, Access::EXEC_OK).is_ok()) {
            return Ok(program.clone());
        }
        if let Some(program) = files.first() {
            return Err(Outcome::failed(
                format!("{} may not be run", program.display()),
                format!("`chmod +x {}`", shell::word(program)),
            ));
        }
        let place = if name.contains('/') {
            String::new()
        } else if self.vantage.knows_environment() {
            format!(" in PATH ({})", path.to_string_lossy())
        } else {
            return Err(Outcome::skipped(format!(
                "it is not in root's PATH, and the bot's is not known; {}",
                self.vantage.as_bot()
            )));
        };
        Err(Outcome::failed(
            format!("there is no {name}{place}"),
            "install it, or give its full path in config.yaml, or add its folder to the PATH of the bot (under systemd: \
             `Environment=PATH=` in the unit, and `systemctl daemon-reload`); and restart the bot",
        ))
    }

    /// The first line that the program prints.
    async fn version(&self, program: &Path, versions: &mut Versions) -> Result<String, NotPrinted> {
        let key = (program.to_owned(), self.environment.clone());
        if let Some(known) = versions.get(&key) {
            return known.clone();
        }
        let mut command = Command::new(program);
        command
            .arg("--version")
            .current_dir(&self.directory)
            .env_clear()
            .envs(&self.environment);
        let printed = printed_by(command).await;
        let line = printed.map(|text| {
            let line = text.lines().next().unwrap_or_default();
            line.chars().take(SHOWN_VERSION).collect()
        });
        versions.insert(key, line.clone());
        line
    }

    /// The path of a key of this project in config.yaml.
    fn key(&self, key: &str) -> String {
        if self.project.is_found {
            format!("project_roots[..].{key}")
        } else {
            format!("projects.{}.{key}", self.project.name)
        }
    }

    /// Whether sessions of the two cannot run at the same time.
    fn excludes(&self, other: &Site<'_>) -> bool {
        let machine = |site: &Site<'_>| Some(site.files.as_ref()?.state_file().to_owned());
        let serves = |site: &Site<'_>| Invocation::of(&site.project.settings.command).serves();
        other.project.name != self.project.name
            && other.directory == self.directory
            && machine(other) == machine(self)
            && serves(other)
            && serves(self)
    }

    fn judge_settings_file(&self, path: &Path) -> Outcome {
        match digest_of(path, |user| self.vantage.runs_as(user)) {
            Ok(digest) => Outcome::passed(format!("{}, SHA-256 {digest}", path.display())),
            Err(error) => Outcome::failed(
                Chain(&error).to_string(),
                "make it a JSON file that is root's, in a folder that is root's, readable by the user who runs rcbot",
            ),
        }
    }

    fn judge_settings(&self) -> Result<Outcome, Outcome> {
        let place = "`environment` in config.yaml";
        let variables = self.environment.iter().filter_map(|(name, value)| {
            let value = value.to_string_lossy();
            Some(Setting::variable(name.to_str()?, &value, place))
        });
        let mut all: Vec<_> = variables.collect();
        let settings = self.files()?.settings();
        all.extend(settings.map_err(|unmet| self.unmet(&unmet, "or remove it"))?);
        let list = |affected: AffectedVersions, preposition: &str| {
            let hinder = all.iter().filter(|it| it.affected == Some(affected));
            let hinder = hinder.map(|it| format!("{} {preposition} {}", it.name, it.place));
            hinder.collect::<Vec<_>>().join(" and ")
        };
        let remove = |which| format!("remove {}, and restart the bot", list(which, "from"));
        let refused = list(AffectedVersions::All, "in");
        if !refused.is_empty() {
            let found = format!("Remote Control is switched off by {refused}");
            return Err(Outcome::failed(found, remove(AffectedVersions::All)));
        }
        let doubtful = list(AffectedVersions::Old, "in");
        if !doubtful.is_empty() {
            let found = format!(
                "a claude before 2.1.288, or an account with Trusted Devices, does not serve with {doubtful}"
            );
            return Err(Outcome::warning(found, remove(AffectedVersions::Old)));
        }
        Ok(self.judge_network_access(&all))
    }

    /// The variables for network access that the bot has, its sessions need too.
    fn judge_network_access(&self, all: &[Setting]) -> Outcome {
        let bot_has = |wanted: &str| {
            self.vantage.environment.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case(OsStr::new(wanted)) && !value.is_empty()
            })
        };
        let session_has = |wanted: &str| {
            all.iter()
                .any(|it| it.name.eq_ignore_ascii_case(wanted) && !it.is_empty)
        };
        let missing = NETWORK_VARIABLES
            .into_iter()
            .filter(|name| bot_has(name) && !session_has(name));
        let missing = missing.collect::<Vec<_>>().join(", ");
        if missing.is_empty() {
            return Outcome::passed("none switches Remote Control off");
        }
        Outcome::warning(
            format!("set for the bot, and not for its sessions: {missing}"),
            format!(
                "if claude needs that to reach its service, add {missing} under `{}` in config.yaml, and restart the bot",
                self.key("environment")
            ),
        )
    }

    fn judge_login(&self) -> Result<Outcome, Outcome> {
        let now = SystemTime::now();
        let login = self.files()?.log_in(now);
        let login = login.map_err(|unmet| self.unmet(&unmet, LOG_IN))?;
        let mut found = "logged in".to_owned();
        if let Some(account) = &login.account {
            found = format!("{found} as {account}");
        }
        if let Some(end) = login.ends {
            let end = rfc3339(end);
            let day = end.split('T').next().unwrap_or_default();
            found = format!("{found}, until {day}");
        }
        Ok(match login.ends_in(now) {
            None => Outcome::passed(found),
            Some(left) => {
                let days = left.as_secs() / (24 * 60 * 60);
                let found = format!("{found}, {days} days from now; sessions end with it");
                Outcome::warning(found, Cause::NotLoggedIn.remedy(&self.place()))
            }
        })
    }

    fn judge_trust(&self) -> Result<Outcome, Outcome> {
        let trusted = self.files()?.trust();
        trusted.map_err(|unmet| self.unmet(&unmet, LOG_IN))?;
        Ok(Outcome::passed("given"))
    }

    fn judge_consent(&self) -> Result<Outcome, Outcome> {
        let consents = self.files()?.has_consent();
        let consents = consents.map_err(|unmet| self.unmet(&unmet, LOG_IN))?;
        let settings = &self.project.settings;
        let answers = settings.stdin.expose().to_lowercase().starts_with('y');
        if answers && gives_terminal(&settings.command) {
            return Ok(Outcome::warning(
                "`command` gives claude a terminal, in which it asks more than that: `stdin` could answer whether the directory \
                 is to be trusted",
                "run claude without `script` or the like; or set `stdin: \"\"`, and run `claude remote-control` there by hand once",
            ));
        }
        Ok(if consents {
            Outcome::passed("given")
        } else if answers {
            Outcome::passed("`stdin` answers the question")
        } else {
            Outcome::failed(
                "claude asks once whether it may enable Remote Control, and nobody answers",
                Cause::ConsentAsked.remedy(&self.place()),
            )
        })
    }

    fn files(&self) -> Result<&ClaudeFiles, Outcome> {
        self.files.as_ref().ok_or_else(|| {
            Outcome::failed(
                "HOME is not set, so claude does not find its files",
                "set it for the bot, or under `environment` in config.yaml",
            )
        })
    }

    fn place(&self) -> Place {
        Place {
            directory: Some(self.directory.clone()),
            ..Place::default()
        }
    }

    /// The problem and its remedy; for an invalid file, `otherwise` is the alternative to repairing it.
    fn unmet(&self, unmet: &Unmet, otherwise: &str) -> Outcome {
        match unmet {
            Unmet::Cause(cause) => Outcome::failed(cause.what(), cause.remedy(&self.place())),
            Unmet::NoAccount(file) => Outcome::failed(
                format!(
                    "claude has a token and not the account that it is of (`oauthAccount` in {}), as where only the token was \
                     copied",
                    file.display()
                ),
                Cause::NotLoggedIn.remedy(&self.place()),
            ),
            Unmet::IsHome => Outcome::failed(
                "claude never trusts a home directory",
                format!(
                    "set `{}` in config.yaml to another directory, and restart the bot",
                    self.key("directory")
                ),
            ),
            Unmet::Unreadable(file, error) => unreadable(file, error, otherwise),
        }
    }
}

fn judge_harmful(option: HarmfulOption) -> Outcome {
    match option {
        HarmfulOption::Verbose => Outcome::warning(
            "with `--verbose` claude prints all that is said in a session, which ends up in its log and in `!rc logs`",
            "remove it from `command` in config.yaml, and restart the bot",
        ),
        HarmfulOption::Sandbox => Outcome::failed(
            "claude refuses `--sandbox` and `--no-sandbox`: a sandbox is a matter of its settings",
            "remove it from `command` in config.yaml, restart the bot, and set `sandbox.enabled` in claude's settings",
        ),
    }
}

/// `claude` and its stand-ins know their version. Other programs need not, as long as they can be started.
fn judge_fault(program: &Path, invocation: Invocation, fault: &NotPrinted) -> Outcome {
    let shown = program.display();
    let remedy = format!(
        "`{shown} --version`, as the user who runs rcbot, tells more; if it misses another program, add that program's folder \
         to the PATH of the bot (under systemd: `Environment=PATH=` in the unit, and `systemctl daemon-reload`), and restart \
         the bot"
    );
    let knows_its_version = invocation == Invocation::Direct;
    match fault {
        NotPrinted::Failed(_) | NotPrinted::TooSlow if !knows_its_version => {
            Outcome::passed(format!("{shown}, version unknown"))
        }
        NotPrinted::NotStarted(_) | NotPrinted::Failed(_) => {
            Outcome::failed(format!("{shown} does not run ({fault})"), remedy)
        }
        NotPrinted::TooSlow => Outcome::warning(
            format!("{shown} did not print its version: {fault}"),
            remedy,
        ),
    }
}

/// How to have claude replace an invalid file.
const LOG_IN: &str = "or run `claude` once, as the user who runs rcbot, which writes it again";

/// A file of claude's that cannot be read; `otherwise` is the alternative to making it readable.
fn unreadable(file: &Path, error: &io::Error, otherwise: &str) -> Outcome {
    // The organisation's settings under /etc stay root's: claude follows them only because they are root's.
    let is_of_root =
        !file.starts_with("/etc") && fs::metadata(file).is_ok_and(|metadata| metadata.uid() == 0);
    let shown = file.display();
    let remedy = if error.kind() != io::ErrorKind::PermissionDenied {
        format!("repair it, {otherwise}")
    } else if is_of_root {
        let user = rustix::process::geteuid().as_raw();
        format!("`sudo chown {user} {}`", shell::word(file))
    } else {
        "let the user who runs rcbot read it".to_owned()
    };
    Outcome::failed(format!("{shown} cannot be read ({error})"), remedy)
}

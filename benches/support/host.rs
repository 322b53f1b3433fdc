//! A host with one project, whose session prints what the benchmark writes into its output.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};

use rcbot::remote_control::{
    Beginning, Happened, LinkPattern, Notice, Project, ProjectName, RemoteControl, Request,
    Restart, SessionSettings, Settings,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The pattern of config.example.yaml.
pub(crate) const PATTERN: &str = r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+";

/// What the sessions print.
pub(crate) const LINK: &str = "https://claude.ai/code?environment=env_0123456789abcdef";

/// Like the bot's.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

const PROJECT: &str = "website";

/// A supervisor with its own files. Dropping it ends its session.
pub(crate) struct Host {
    folder: TempDir,
    remote_control: RemoteControl,
}

impl Host {
    /// Without a session.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = settings_for(&folder.path().join("sessions"), &[PROJECT.to_owned()]);
        let _runtime = RUNTIME.enter();
        let (remote_control, _) = RemoteControl::restore(settings, |_| None).unwrap();
        Self {
            folder,
            remote_control,
        }
    }

    /// Where the session's output is.
    pub(crate) fn stdout(&self) -> PathBuf {
        let project = self.folder.path().join("sessions").join(PROJECT);
        project.join("stdout.log")
    }

    /// Starts the session, and returns once its process runs.
    pub(crate) fn start(&mut self) {
        let _runtime = RUNTIME.enter();
        let started = self
            .remote_control
            .start(&name(PROJECT), Beginning::Fresh, request());
        assert!(started.is_empty(), "{started:?}");
        let spawned = self.next();
        assert!(self.remote_control.handle(spawned).is_empty());
    }

    /// Waits for the link, and returns when it was known. On return it is on disk too, and ready to be delivered.
    pub(crate) fn until_link(&mut self) -> Instant {
        let report = self.next();
        let known = Instant::now();
        let _runtime = RUNTIME.enter();
        let notices = self.remote_control.handle(report);
        assert!(
            matches!(notices[..], [(_, Notice::Deliver { .. })]),
            "{notices:?}"
        );
        known
    }

    /// Ends the session, and returns once its processes are gone and its record is cleared.
    pub(crate) fn stop(&mut self) {
        let mut notices = {
            let _runtime = RUNTIME.enter();
            self.remote_control.stop(&name(PROJECT), request())
        };
        while !notices
            .iter()
            .any(|(_, notice)| matches!(notice, Notice::Over { .. }))
        {
            let report = self.next();
            let _runtime = RUNTIME.enter();
            notices = self.remote_control.handle(report);
        }
    }

    fn next(&mut self) -> Happened {
        RUNTIME.block_on(self.remote_control.next()).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let status = self.remote_control.status();
        if status.iter().any(|status| status.session.is_some()) {
            self.stop();
        }
    }
}

/// Prints a link and ends its line, as the session's process does: by appending to the file.
pub(crate) fn print(stdout: &Path) {
    let mut file = File::options().append(true).open(stdout).unwrap();
    writeln!(file, "{LINK}").unwrap();
}

/// Records of running sessions on disk. All are copies of one, and name its process.
pub(crate) struct Records {
    /// The folder of records.
    pub(crate) sessions: PathBuf,
    /// The projects that have one.
    pub(crate) projects: Vec<String>,
    _folder: TempDir,
    _host: Host,
}

impl Records {
    pub(crate) fn new(count: usize) -> Self {
        let mut host = Host::new();
        host.start();
        print(&host.stdout());
        host.until_link();
        let record = fs::read(host.stdout().with_file_name("session.json")).unwrap();
        let folder = TempDir::new().unwrap();
        let sessions = folder.path().join("sessions");
        let projects: Vec<_> = (0..count)
            .map(|number| format!("project-{number}"))
            .collect();
        for project in &projects {
            let project = sessions.join(project);
            fs::create_dir_all(&project).unwrap();
            fs::write(project.join("session.json"), &record).unwrap();
        }
        Self {
            sessions,
            projects,
            _folder: folder,
            _host: host,
        }
    }
}

/// Settings for these projects, whose processes do nothing until a signal ends them.
pub(crate) fn settings_for(sessions: &Path, projects: &[String]) -> Settings {
    let project = |text: &String| Project {
        name: name(text),
        directory: PathBuf::from("/"),
        is_found: false,
        deliver_to: Vec::new(),
        settings: SessionSettings {
            command: vec!["sleep".to_owned(), "600".to_owned()],
            resume_command: vec!["sleep".to_owned(), "600".to_owned()],
            permission_modes: Vec::new(),
            spawn: Vec::new(),
            settings: None,
            environment: [].into(),
            stdin: "".into(),
            link_pattern: LinkPattern::new(PATTERN).unwrap(),
            link_timeout: Duration::from_mins(1),
            stop_grace: Duration::from_secs(10),
            reconnect_limit: Duration::from_mins(10),
            max_duration: None,
            max_output: 8 << 20,
            restart: Restart::Never,
        },
    };
    Settings {
        folder: sessions.to_owned(),
        host: "host".to_owned(),
        projects: projects.iter().map(project).collect(),
        max_sessions: None,
    }
}

fn name(text: &str) -> ProjectName {
    text.parse().unwrap()
}

fn request() -> Request {
    Request {
        requester: "somebody".to_owned(),
        reference: "a request".to_owned(),
    }
}

//! A bot without Matrix: it owns the sessions, writes deliveries into a ledger instead of rooms, and is killed at any point.
//! Its users repeat a request that was lost before it was recorded, as people do.

use std::{
    env,
    fs::File,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcbot::remote_control::{Beginning, Ending, Notice, Notices, Phase, Project, RemoteControl};
use tokio::time::timeout;

use crate::support::{DEADLINE, Sandbox, ledger::Ledger, owner::request, website};

/// The variable that makes a bot of this binary: the folder of its sandbox.
const FOLDER: &str = "RCBOT_TEST_BOT";

/// The variable with the number of the step at which it kills itself.
const KILL_AT: &str = "RCBOT_TEST_KILL_AT";

/// The variable with how many sessions have to be over before it exits.
const SESSIONS: &str = "RCBOT_TEST_SESSIONS";

/// The exit code of a command that finds another process of its project alive.
const SECOND_PROCESS: i32 = 99;

/// The requesters of each session's link: one requests it at the start, one when it is there.
pub(crate) const REQUESTERS: [&str; 2] = ["alice", "bob"];

/// How a bot runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Life {
    /// At which step it kills itself, if at any.
    pub(crate) kill_at: Option<usize>,
    /// How many sessions have to be over before it exits.
    pub(crate) sessions: usize,
}

impl Life {
    /// Starts the bot.
    pub(crate) fn begin(self, sandbox: &Sandbox) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(sandbox.path("bot.log"))
            .unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["bot::run", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, sandbox.path(""))
            .env(SESSIONS, self.sessions.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(step) = self.kill_at {
            command.env(KILL_AT, step.to_string());
        }
        command.spawn().unwrap()
    }

    /// Runs the bot from start to exit. Returns whether it was killed.
    pub(crate) fn live(self, sandbox: &Sandbox) -> bool {
        let status = self.begin(sandbox).wait().unwrap();
        was_killed(status, sandbox)
    }
}

/// Whether a bot was killed; if not, it has to have ended well.
#[track_caller]
pub(crate) fn was_killed(status: ExitStatus, sandbox: &Sandbox) -> bool {
    let killed = status.signal() == Some(Signal::SIGKILL as i32);
    let log = || std::fs::read_to_string(sandbox.path("bot.log")).unwrap_or_default();
    assert!(killed || status.success(), "{status}\n{}", log());
    killed
}

/// The bot itself. Without its variable it does nothing.
#[test]
#[ignore = "run by the tests that need a bot"]
fn run() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let sandbox = Sandbox::of(folder.as_ref());
    // One bot at a time, as in the real one. A child that is not yet its own program holds the lock too.
    let lock = File::create(sandbox.path("lock")).unwrap();
    lock.lock().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { Bot::restore(&sandbox).serve().await });
}

struct Bot {
    remote_control: RemoteControl,
    ledger: Ledger,
    steps: Steps,
    sessions: usize,
}

/// Counts what the bot does, and kills it at one of these steps.
struct Steps {
    taken: usize,
    kill_at: Option<usize>,
}

impl Steps {
    fn step(&mut self) {
        self.taken += 1;
        if self.kill_at == Some(self.taken) {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
    }
}

impl Bot {
    fn restore(sandbox: &Sandbox) -> Self {
        let number = |name| env::var(name).ok().map(|text| text.parse().unwrap());
        let mut steps = Steps {
            taken: 0,
            kill_at: number(KILL_AT),
        };
        steps.step();
        let settings = sandbox.settings([project(sandbox)]);
        let (remote_control, notices) = RemoteControl::restore(settings, |_| None).unwrap();
        let mut bot = Self {
            remote_control,
            ledger: Ledger::open(&sandbox.path("ledger")),
            steps,
            sessions: number(SESSIONS).unwrap_or_default(),
        };
        bot.carry_out(notices);
        bot
    }

    /// Serves until enough sessions are over.
    async fn serve(mut self) {
        while !self.is_done() {
            self.ask_for_what_is_missing();
            let happened = timeout(DEADLINE, self.remote_control.next()).await;
            let happened = happened.expect("nothing happens any more").unwrap();
            self.steps.step();
            let notices = self.remote_control.handle(happened);
            self.carry_out(notices);
        }
        self.steps.step();
    }

    fn phase(&self) -> Option<Phase> {
        let [status] = &self.remote_control.status()[..] else {
            panic!("one project")
        };
        status.session.as_ref().map(|session| session.phase)
    }

    fn is_done(&self) -> bool {
        let over = self.ledger.redacted().len() / REQUESTERS.len();
        self.phase().is_none() && over >= self.sessions
    }

    /// The requests that the users make next.
    fn ask_for_what_is_missing(&mut self) {
        let [alice, bob] = REQUESTERS;
        match self.phase() {
            None => self.start(alice),
            Some(Phase::Running) => {
                let holders = self.ledger.holders();
                let has = |user: &str| holders.iter().any(|holder| holder == user);
                assert!(has(alice), "a link that is known was not delivered");
                if !has(bob) {
                    self.start(bob);
                }
                self.steps.step();
                let notices = self.remote_control.stop(&website(), request("alice"));
                self.carry_out(notices);
            }
            Some(Phase::Starting | Phase::Stopping) => {}
            Some(Phase::AwaitingRestart) => panic!("it is not to come back"),
        }
    }

    fn start(&mut self, requester: &str) {
        self.steps.step();
        let request = request(requester);
        let notices = self
            .remote_control
            .start(&website(), Beginning::Fresh, request);
        self.carry_out(notices);
    }

    fn carry_out(&mut self, notices: Notices) {
        for (project, notice) in notices {
            self.steps.step();
            match notice {
                Notice::Deliver { id, request, link } => {
                    let redacted = self.ledger.redacted();
                    let entry = (id.session.to_string(), id.number);
                    assert!(!redacted.contains(&entry), "delivered after its end");
                    self.ledger
                        .deliver(&id.session, id.number, &request, link.expose());
                    self.steps.step();
                    let more = self
                        .remote_control
                        .delivered(id, request, "receipt".to_owned());
                    self.carry_out(more);
                }
                Notice::Redact(redaction) => {
                    self.ledger
                        .redact(&redaction.session, redaction.delivery.number);
                    self.steps.step();
                    self.remote_control.redacted(&project, &redaction);
                }
                Notice::Over { outcome, .. } => {
                    assert_eq!(outcome.ending, Ending::Stopped);
                }
                // On a busy machine a stop can be slow.
                Notice::ShuttingDown(_) => {}
                unexpected => panic!("{unexpected:?}"),
            }
        }
        self.steps.step();
    }
}

/// Its session's processes hold a lock for as long as one of them lives, so that a second one beside them is seen for certain.
fn project(sandbox: &Sandbox) -> Project {
    let mut project = sandbox.project("fork=1");
    let lock = sandbox.path("process.lock").to_str().unwrap().to_owned();
    let exit_code = SECOND_PROCESS.to_string();
    let flock = [
        "flock",
        "--nonblock",
        "--no-fork",
        "--conflict-exit-code",
        &exit_code,
        &lock,
    ];
    project
        .settings
        .command
        .splice(0..0, flock.into_iter().map(str::to_owned));
    project
}

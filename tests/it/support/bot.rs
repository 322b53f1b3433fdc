//! The real bot binary, run on its own files, with the stand-in for `claude`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, SystemTime},
};

use matrix_sdk::ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState,
};
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    eventually,
    homeserver::{RecordFile, tail},
    person::Person,
    program::isolate,
    standin::{StandinRecord, standin_mark, standin_records},
    until,
};

/// How much of the bot's log a failed test shows.
const LOG_TAIL_LINES: usize = 60;

/// A bot on its own files. Dropping it kills it and every process of its sessions.
#[derive(Debug)]
pub(crate) struct Bot {
    pub(super) folder: TempDir,
    pub(super) user: OwnedUserId,
    /// The room in which commands count.
    pub(crate) admin_room: OwnedRoomId,
    pub(super) log_filter: String,
    /// What its homeserver has written since the bot was created.
    pub(crate) homeserver_files: Vec<RecordFile>,
    /// The binary, which may be another build of it.
    pub(crate) program: PathBuf,
    /// The devices whose clients know this run of the bot.
    pub(super) known_to: Mutex<BTreeSet<OwnedDeviceId>>,
    pub(super) variables: BTreeMap<String, String>,
    /// Further arguments, from the next start on.
    pub(crate) arguments: Vec<&'static str>,
    pub(super) process: Option<Child>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) most: u64,
}

impl Bot {
    pub(crate) fn user_id(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn admin_room(&self) -> &RoomId {
        &self.admin_room
    }

    /// Where it keeps everything.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    pub(crate) fn project_directory(&self, name: &str) -> PathBuf {
        self.folder.path().join("projects").join(name)
    }

    /// Its project root, without symbolic links.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("src")
    }

    /// Writes config.yaml again; it counts from the next start.
    pub(crate) fn write_config(&self, config: &Value) {
        fs::write(self.config_path(), serde_yaml::to_string(config).unwrap()).unwrap();
    }

    /// Changes config.yaml; it counts from the next start.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(self.config_path()).unwrap();
        let mut config = serde_yaml::from_str(&text).unwrap();
        change(&mut config);
        self.write_config(&config);
    }

    /// Gives it a variable of the environment; it counts from the next start.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// A command of the binary, with the bot's own home directory and configuration.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        isolate(&mut command, self.folder.path());
        command.arg(name).arg("--config").arg(self.config_path());
        command
    }

    pub(crate) fn run(&mut self) {
        assert!(self.process.is_none(), "the bot runs already");
        self.known_to.lock().unwrap().clear();
        let mut options = File::options();
        let log = options.create(true).append(true).open(self.log_path());
        let log = log.unwrap();
        let process = self
            .command("run")
            .args(&self.arguments)
            .env("RUST_LOG", &self.log_filter)
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(process.unwrap());
    }

    /// Waits until the bot is in the admin room, with a device that its members can encrypt to.
    pub(crate) async fn wait_until_ready(&mut self, admin: &Person) {
        let room = self.admin_room.clone();
        admin
            .after_syncs("the bot joins the admin room", async || {
                self.assert_running();
                self.has_joined(admin, &room).await
            })
            .await;
        self.wait_until_known_to(admin).await;
    }

    /// Waits until this person's client would share its keys with the bot, if the bot is in the admin room. Checked once for
    /// each client and run of the bot.
    pub(crate) async fn wait_until_known_to(&self, person: &Person) {
        let device = person.client().device_id().unwrap().to_owned();
        if self.known_to.lock().unwrap().contains(&device) {
            return;
        }
        let members = person.members(&self.admin_room).await;
        if members.is_ok_and(|all| all.get(self.user.as_str()).is_some_and(|it| it == "join")) {
            self.wait_until_in(person, &self.admin_room).await;
            self.known_to.lock().unwrap().insert(device);
        }
    }

    /// Waits until the bot is in a room that it was invited to, with a device that this person can encrypt to.
    pub(crate) async fn wait_until_in(&self, person: &Person, room: &RoomId) {
        let what = "the person's client knows that the bot joined";
        let known = async || self.has_joined(person, room).await;
        person.after_syncs(what, known).await;
        person.wait_for_signed_device_of(&self.user).await;
    }

    /// Whether this person's client knows that the bot is in a room.
    async fn has_joined(&self, person: &Person, room: &RoomId) -> Option<()> {
        let room = person.client().get_room(room)?;
        let bot = room.get_member_no_sync(&self.user).await.unwrap()?;
        (*bot.membership() == MembershipState::Join).then_some(())
    }

    /// Waits until the homeserver has this membership of the bot.
    pub(crate) async fn wait_for_membership(&self, person: &Person, room: &RoomId, wanted: &str) {
        let what = format!("the bot's membership is {wanted}");
        person
            .after_syncs(&what, async || {
                let members = person.members(room).await.ok()?;
                (members.get(self.user.as_str())? == wanted).then_some(())
            })
            .await;
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill_9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks it to exit and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM).await
    }

    /// Sends only its process a signal that ends it, and waits until it has exited.
    pub(crate) async fn signal(&mut self, signal: Signal) -> ExitStatus {
        let process = self.process.as_ref().expect("the bot does not run");
        kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
        self.wait_for_exit().await
    }

    /// Waits until it has exited.
    pub(crate) async fn wait_for_exit(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the bot does not run");
        let status = eventually("the bot exits", async || process.try_wait().unwrap()).await;
        self.process = None;
        status
    }

    /// Kills it, if it runs, and starts it again on the same files.
    pub(crate) async fn restart(&mut self, admin: &Person) {
        self.kill_9();
        self.run();
        self.wait_until_ready(admin).await;
    }

    /// All that it logged, in all its runs.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) async fn wait_for_log(&mut self, text: &str) {
        self.wait_for_log_times(text, 1).await;
    }

    /// Waits until a text is in the log this many times.
    pub(crate) async fn wait_for_log_times(&mut self, text: &str, times: usize) {
        eventually(&format!("{text:?} in the bot's log"), async || {
            let found = self.log().matches(text).count() >= times;
            if !found {
                self.assert_running();
            }
            found.then_some(())
        })
        .await;
    }

    /// Waits until a project's session is in this state, by its record on disk: `starting`, `running`, `stopping`.
    pub(crate) async fn wait_for_state(&self, project: &str, state: &str) {
        let folder = self.data_dir().join("sessions").join(project);
        eventually(&format!("{project} is {state}"), async || {
            let record = fs::read(folder.join("session.json")).ok()?;
            let record: Value = serde_json::from_slice(&record).unwrap();
            record["session"]["state"].get(state).map(|_| ())
        })
        .await;
    }

    /// Sets the time left of a session in its record, which a stopped bot reads when it starts.
    pub(crate) fn set_time_left(&self, project: &str, left: Duration) {
        let uptime: Duration = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().into();
        self.edit_record(project, |record| {
            let end = &mut record["session"]["end"];
            assert!(end.is_object(), "its time is not limited: {end}");
            end["uptime"] = serde_json::to_value(uptime + left).unwrap();
            end["wall"] = serde_json::to_value(SystemTime::now() + left).unwrap();
        });
    }

    /// Changes the record of a session, which a stopped bot reads when it starts.
    pub(crate) fn edit_record(&self, project: &str, change: impl FnOnce(&mut Value)) {
        let sessions = self.data_dir().join("sessions");
        let path = sessions.join(project).join("session.json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }

    /// Every start of a stand-in and every further link, in order.
    pub(crate) fn standin_records(&self) -> Vec<StandinRecord> {
        standin_records(&self.standin_log())
    }

    /// How many stand-ins were started so far.
    pub(crate) fn standin_starts(&self) -> usize {
        let records = self.standin_records().into_iter();
        records.filter(|record| record.event == "start").count()
    }

    /// Lets the stand-ins print their `held` links.
    pub(crate) fn release_links(&self) {
        fs::write(self.standin_log().with_added_extension("go"), "").unwrap();
    }

    /// The link that a stand-in printed last, by its own log.
    pub(crate) fn printed_link(&self) -> Option<String> {
        self.standin_records().pop().map(|record| record.link)
    }

    /// The living processes of all its sessions, their children included.
    pub(crate) fn session_processes(&self) -> Vec<Pid> {
        standin_mark(&self.standin_log()).processes()
    }

    /// Kills one process of a session and waits until it is gone. Its parent may have changed.
    pub(crate) async fn end_process(&self, pid: i32) {
        let pid = Pid::from_raw(pid);
        assert!(self.session_processes().contains(&pid));
        kill(pid, Signal::SIGKILL).unwrap();
        let is_gone = || !self.session_processes().contains(&pid);
        until("the process is gone", is_gone).await;
    }

    pub(crate) fn memory(&self) -> Memory {
        let process = self.process.as_ref().expect("the bot does not run");
        let process = procfs::process::Process::new(process.id().cast_signed()).unwrap();
        let status = process.status().unwrap();
        // The kernel counts in KiB.
        Memory {
            now: status.vmrss.unwrap() << 10,
            most: status.vmhwm.unwrap() << 10,
        }
    }

    fn standin_log(&self) -> PathBuf {
        standin_log(self.folder.path())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("bot.log")
    }

    /// Fails at once if the process is gone, instead of at a deadline.
    fn assert_running(&mut self) {
        let process = self.process.as_mut().expect("the bot does not run");
        if let Some(status) = process.try_wait().unwrap() {
            panic!("the bot ended ({status})");
        }
    }
}

pub(super) fn standin_log(folder: &Path) -> PathBuf {
    folder.join("standin.jsonl")
}

impl Drop for Bot {
    fn drop(&mut self) {
        self.kill_9();
        standin_mark(&self.standin_log()).kill_all();
        if thread::panicking() {
            let end = tail(&self.log(), LOG_TAIL_LINES);
            eprintln!("the end of the bot's log:\n{end}");
        }
    }
}

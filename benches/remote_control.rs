//! The supervisor of processes beside its lower bound, with no homeserver: `cargo bench --bench remote_control`.
//!
//! Each benchmark has a peer that does the same by hand, in the same run. Below divan's own table are the 99th percentiles,
//! which divan does not have, and the memory of the scan.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![expect(clippy::print_stdout, reason = "it is all a benchmark does")]
#![expect(
    clippy::wildcard_imports,
    reason = "a module is a group of benchmarks in divan's table, and no more"
)]

#[path = "support/host.rs"]
mod host;

#[path = "support/table.rs"]
mod table;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use divan::{Bencher, counter::BytesCount};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcbot::remote_control::{
    LinkPattern,
    claude::{OutputReader, Said},
    process::{Follower, ReadFrom},
};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tempfile::TempDir;

use host::{Host, LINK, PATTERN, RUNTIME, Records, print, settings_for};
use table::{Samples, Table};

/// A common interval for polling output.
const POLL: Duration = Duration::from_millis(200);

/// How long a waiting thread needs until it waits; not measured.
const SETTLE: Duration = Duration::from_millis(5);

/// How much noise is printed before the link, in bytes.
const NOISE: u64 = 1 << 30;

const RECORDS: usize = 1000;

/// Further times, by table and row.
static MEASURED: Mutex<BTreeMap<(&str, &str), Samples>> = Mutex::new(BTreeMap::new());

/// The peak memory of each scan above that before it, in KiB.
static PEAKS: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

const LINK_TABLE: &str = "link printed -> link known";
const STOP_TABLE: &str = "stop requested -> process gone";

fn main() {
    divan::Divan::from_args()
        .bytes_format(divan::counter::BytesFormat::Binary)
        .main();
    let measured = MEASURED.lock().unwrap();
    for title in [LINK_TABLE, STOP_TABLE] {
        let rows = measured.iter().filter(|((table, _), _)| *table == title);
        let mut table = Table::new(title);
        for ((_, name), samples) in rows {
            table.add(name, samples.clone());
        }
        println!("\n{table}");
    }
    for (name, kibibytes) in &*PEAKS.lock().unwrap() {
        println!("{name}: peak memory {kibibytes} KiB above what was in use before");
    }
}

/// A thread that executes what it is sent. One for all: the kernel schedules a new thread later than a known one.
static READER: LazyLock<mpsc::Sender<Box<dyn FnOnce() + Send>>> = LazyLock::new(|| {
    let (sender, work) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    thread::spawn(move || work.into_iter().for_each(|work| work()));
    sender
});

fn note(table: &'static str, row: &'static str, time: Duration) {
    let mut measured = MEASURED.lock().unwrap();
    measured
        .entry((table, row))
        .or_insert(const { Samples::new() })
        .add(time);
}

mod link {
    use super::*;

    /// By the library: a session's process is running, and its output gets the link.
    #[divan::bench(sample_count = 300, sample_size = 1)]
    fn by_events(bencher: Bencher<'_, '_>) {
        bencher
            .with_inputs(|| {
                let mut host = Host::new();
                host.start();
                thread::sleep(SETTLE);
                host
            })
            .bench_local_values(|mut host| {
                let printed = Instant::now();
                print(&host.stdout());
                let known = host.until_link();
                note(LINK_TABLE, "2 by events", known - printed);
                let row = "3 by events, and the record of it on disk";
                note(LINK_TABLE, row, printed.elapsed());
                host
            });
    }

    /// By hand: the file is read five times a second.
    #[divan::bench(sample_count = 100, sample_size = 1)]
    fn by_poll_every_200_ms(bencher: Bencher<'_, '_>) {
        measure_reader(bencher, "4 by a poll every 200 ms", |path| {
            let look = move || {
                while !fs::read_to_string(&path).unwrap().contains(LINK) {
                    thread::sleep(POLL);
                }
            };
            (look, POLL.mul_f64(rand::random()))
        });
    }

    /// The floor: the kernel wakes a thread, and the thread reads.
    #[divan::bench(sample_count = 300, sample_size = 1)]
    fn by_raw_inotify(bencher: Bencher<'_, '_>) {
        measure_reader(bencher, "1 floor: inotify wake and read", |path| {
            let watch = inotify::init(CreateFlags::CLOEXEC).unwrap();
            inotify::add_watch(&watch, &path, WatchFlags::MODIFY).unwrap();
            let file = File::open(path).unwrap();
            let look = move || {
                let mut buffer = [0; 4096];
                rustix::io::read(&watch, &mut buffer).unwrap();
                file.read_at(&mut buffer, 0).unwrap();
                (watch, file)
            };
            (look, SETTLE)
        });
    }

    /// Measures from a print to the end of `look`, which starts earlier, on another thread.
    fn measure_reader<U, L: FnOnce() -> U + Send + 'static>(
        bencher: Bencher<'_, '_>,
        row: &'static str,
        reader: impl Fn(PathBuf) -> (L, Duration),
    ) {
        bencher
            .with_inputs(|| {
                let folder = TempDir::new().unwrap();
                let path = folder.path().join("stdout.log");
                File::create(&path).unwrap();
                let (look, ahead) = reader(path.clone());
                let (seen, when) = mpsc::channel();
                let (begins, begun) = mpsc::channel();
                let look = move || {
                    begins.send(()).unwrap();
                    // Its resources are closed later: closing a watch takes the kernel 20 ms.
                    let used = look();
                    seen.send(Instant::now()).unwrap();
                    drop(used);
                };
                READER.send(Box::new(look)).unwrap();
                // The reader may still be closing those of the previous one.
                begun.recv().unwrap();
                thread::sleep(ahead);
                (folder, path, when)
            })
            .bench_local_values(|(folder, path, when)| {
                let printed = Instant::now();
                print(&path);
                note(LINK_TABLE, row, when.recv().unwrap() - printed);
                folder
            });
    }
}

mod stop {
    use super::*;

    /// By the library: the whole tree is found and ended, and the record is cleared.
    #[divan::bench(sample_count = 100, sample_size = 1)]
    fn by_the_library(bencher: Bencher<'_, '_>) {
        bencher
            .with_inputs(|| {
                let mut host = Host::new();
                host.start();
                print(&host.stdout());
                host.until_link();
                thread::sleep(SETTLE);
                host
            })
            .bench_local_values(|mut host| {
                let asked = Instant::now();
                host.stop();
                let row = "2 the whole tree gone, and the record cleared";
                note(STOP_TABLE, row, asked.elapsed());
                host
            });
    }

    /// The floor: one process, by its unverified pid.
    #[divan::bench(sample_count = 100, sample_size = 1)]
    fn by_kill_and_waitpid(bencher: Bencher<'_, '_>) {
        bencher
            .with_inputs(|| {
                let process = Command::new("sleep").arg("600").spawn().unwrap();
                thread::sleep(SETTLE);
                process
            })
            .bench_local_values(|mut process| {
                let asked = Instant::now();
                let pid = Pid::from_raw(process.id().cast_signed());
                kill(pid, Signal::SIGTERM).unwrap();
                process.wait().unwrap();
                note(
                    STOP_TABLE,
                    "1 floor: kill(2) and waitpid(2)",
                    asked.elapsed(),
                );
            });
    }
}

mod restore_1000_records {
    use super::*;

    /// By the library: the records are read, the host's processes scanned, and the sessions adopted.
    #[divan::bench(sample_count = 20, sample_size = 1)]
    fn by_the_library(bencher: Bencher<'_, '_>) {
        let records = Records::new(RECORDS);
        bencher
            .with_inputs(|| settings_for(&records.sessions, &records.projects))
            .bench_local_values(|settings| {
                let _runtime = RUNTIME.enter();
                rcbot::remote_control::RemoteControl::restore(settings, |_| None).unwrap()
            });
    }

    /// The floor: the files are read.
    #[divan::bench(sample_count = 20, sample_size = 1)]
    fn by_reading_the_files(bencher: Bencher<'_, '_>) {
        let records = Records::new(RECORDS);
        bencher.bench(|| {
            let length = |name| {
                let path = records.sessions.join(name).join("session.json");
                fs::read(path).unwrap().len()
            };
            records.projects.iter().map(length).sum::<usize>()
        });
    }
}

mod scan_1_gib {
    use super::*;

    const NOISES: [&str; 2] = ["log lines", "status repainted"];

    /// By the library: followed and parsed, with the link at the end.
    #[divan::bench(args = NOISES, sample_count = 3, sample_size = 1)]
    fn by_the_library(bencher: Bencher<'_, '_>, kind: &'static str) {
        let file = noise(kind);
        let before = status("VmRSS:");
        // Resets the peak (proc(5)).
        fs::write("/proc/self/clear_refs", "5").unwrap();
        bencher
            .counter(BytesCount::new(NOISE))
            .bench_local(|| RUNTIME.block_on(scan(file.path())));
        PEAKS
            .lock()
            .unwrap()
            .insert(kind, status("VmHWM:").saturating_sub(before));
    }

    /// The floor: the file is read, in pieces of the same size.
    #[divan::bench(args = NOISES, sample_count = 3, sample_size = 1)]
    fn by_reading_the_file(bencher: Bencher<'_, '_>, kind: &'static str) {
        let file = noise(kind);
        bencher.counter(BytesCount::new(NOISE)).bench_local(|| {
            let mut buffer = vec![0; 64 * 1024];
            let mut reader = File::open(file.path()).unwrap();
            while reader.read(&mut buffer).unwrap() > 0 {
                divan::black_box(&buffer);
            }
        });
    }

    async fn scan(path: &Path) {
        let mut reader = OutputReader::new(LinkPattern::new(PATTERN).unwrap());
        let mut follower = Follower::new(path.to_owned(), ReadFrom::First, u64::MAX);
        loop {
            follower.next().await;
            let said = reader.push(follower.piece().bytes);
            if said
                .iter()
                .any(|said| matches!(said, Said::LinkAfter(..) | Said::Link(_)))
            {
                return;
            }
        }
    }

    /// A GiB of what the real program may print, and a link after it.
    fn noise(kind: &str) -> tempfile::NamedTempFile {
        let piece = if kind == "log lines" {
            "2026-08-01T12:00:00Z  INFO bridge: poll answered, 0 messages; see https://claude.ai/code)\n"
        } else {
            "\x1b[6A\x1b[J\x1b[2m·|·\x1b[22m Connecting · website · main\n  Capacity 1/32\n\n\
             \x1b[1mSee\x1b[22m https://code.claude.com/docs/en/remote-control\n\nspace to show QR code\n"
        };
        let block = piece.repeat((1 << 20) / piece.len());
        let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut written = 0;
        while written < NOISE {
            file.write_all(block.as_bytes()).unwrap();
            written += block.len() as u64;
        }
        writeln!(file, "{LINK}").unwrap();
        file
    }

    /// A line of /proc/self/status, in KiB.
    fn status(name: &str) -> u64 {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap().split_whitespace().next().unwrap();
        value.parse().unwrap()
    }
}

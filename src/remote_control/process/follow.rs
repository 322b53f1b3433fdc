//! Follows a file that grows.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};

use super::{readiness::readable, trim::cap};

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// How often to look where no event comes: network file systems send none for what others write.
const SLOW_POLL: Duration = Duration::from_secs(2);

/// Reads a file as it grows, each byte once.
///
/// A file that became shorter than what was read is followed from its new beginning. What others cut and wrote again between
/// two looks cannot be told from growth; cut the file with [`Follower::trim`], then.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: File,
    offset: u64,
    /// None: the kernel has no watch left for us, so looking is all there is.
    watch: Option<AsyncFd<OwnedFd>>,
}

impl Follower {
    /// Follows the file at `path` from the byte `offset` on. Runs within a tokio runtime only.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        // Watched before the first read, so no write falls between the two.
        let watch = watch(path)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "no file events, polling instead");
            })
            .ok();
        Ok(Self {
            path: path.to_owned(),
            file,
            offset,
            watch,
        })
    }

    /// Waits until there is something new, puts up to 64 KiB of it into `buffer`, in place of what was there, and returns how
    /// many bytes that are; never 0. Cancel safe: what was not returned is returned by the next call.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            let count = self.read_available(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.changed().await?;
        }
    }

    /// As [`next`](Self::next) without waiting; 0 when there is nothing new. For what is left after the writer's end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_available(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut count = self.read(buffer)?;
        if count == 0 && self.file.metadata()?.len() < self.offset {
            self.offset = 0;
            count = self.read(buffer)?;
        }
        self.offset += count as u64;
        Ok(count)
    }

    /// How many bytes of the file were read: where a later follower goes on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes over what was not read yet, but for the last `keep` bytes of it, and returns how many bytes that were.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn skip_to_last(&mut self, keep: u64) -> io::Result<u64> {
        let unread = self.file.metadata()?.len().saturating_sub(self.offset);
        let skipped = unread.saturating_sub(keep);
        self.offset += skipped;
        Ok(skipped)
    }

    /// Cuts the file when it is larger than `limit` bytes, and returns how many bytes were cut from its front; see [`cap`]. What
    /// was not read yet is kept, and reading goes on where it was.
    ///
    /// # Errors
    /// When the file cannot be cut.
    pub fn trim(&mut self, limit: u64) -> io::Result<u64> {
        let cut = cap(&self.path, limit, self.offset)?;
        self.offset -= cut;
        Ok(cut)
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.resize(CHUNK, 0);
        let read = loop {
            match self.file.read_at(buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        buffer.truncate(*read.as_ref().unwrap_or(&0));
        read
    }

    /// Waits for an event of the file, or as long as the slow poll.
    async fn changed(&self) -> io::Result<()> {
        let Some(watch) = &self.watch else {
            sleep(SLOW_POLL).await;
            return Ok(());
        };
        let Ok(ready) = timeout(SLOW_POLL, watch.readable()).await else {
            return Ok(());
        };
        // The events are taken before the file is read, so a write after that read makes a new one.
        match ready?.try_io(|watch| take_events(watch.get_ref())) {
            Ok(taken) => taken,
            Err(_none_left) => Ok(()),
        }
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, path, WatchFlags::MODIFY)?;
    readable(watch)
}

/// Takes all events and ends in `WouldBlock`. What they say does not matter.
fn take_events(watch: &OwnedFd) -> io::Result<()> {
    let mut events = [0; 4096];
    loop {
        rustix::io::read(watch, &mut events)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
    };

    use tempfile::TempDir;

    use super::super::testing::{Sandbox, within_deadline};
    use super::*;

    /// How often a file is cut while a process writes to it.
    const CUTS: usize = 30;

    fn append(path: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(bytes).unwrap();
    }

    async fn next(follower: &mut Follower) -> Vec<u8> {
        let mut buffer = Vec::new();
        let count = within_deadline(follower.next(&mut buffer)).await.unwrap();
        assert_eq!(count, buffer.len());
        buffer
    }

    #[tokio::test]
    async fn a_follower_sees_every_byte_over_many_writes() {
        let sandbox = Sandbox::new();
        let launch = sandbox.launch("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done");
        fs::write(&launch.stdout, "").unwrap();
        let mut follower = Follower::open(&launch.stdout, 0).unwrap();
        super::super::spawn(&launch).unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\n19999\n") {
            seen.extend(next(&mut follower).await);
        }
        assert_eq!(seen, fs::read(&launch.stdout).unwrap());
        assert_eq!(follower.offset(), seen.len() as u64);
        assert_eq!(follower.read_available(&mut Vec::new()).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_follower_goes_on_where_another_was() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"read, new");
        let mut follower = Follower::open(&path, 6).unwrap();
        assert_eq!(next(&mut follower).await, b"new");
        assert_eq!(follower.offset(), 9);
    }

    #[tokio::test]
    async fn a_write_wakes_a_waiting_follower() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"");
        let mut follower = Follower::open(&path, 0).unwrap();
        assert!(follower.watch.is_some());
        for line in [b"one\n", b"two\n", b"six\n"] {
            let write = async {
                // The follower waits by now: the first future of a join is polled first.
                append(&path, line);
            };
            let (seen, ()) = tokio::join!(next(&mut follower), write);
            assert_eq!(seen, line);
        }
    }

    #[tokio::test]
    async fn a_follower_without_events_polls() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"");
        let mut follower = Follower::open(&path, 0).unwrap();
        follower.watch = None;
        let (seen, ()) = tokio::join!(next(&mut follower), async { append(&path, b"new") });
        assert_eq!(seen, b"new");
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_nothing() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"");
        let mut follower = Follower::open(&path, 0).unwrap();
        let mut buffer = Vec::new();
        for number in 0..100_u8 {
            tokio::select! {
                biased;
                read = follower.next(&mut buffer) => panic!("{read:?}"),
                () = std::future::ready(()) => append(&path, &[number]),
            }
            assert_eq!(next(&mut follower).await, [number]);
        }
    }

    #[tokio::test]
    async fn a_truncated_file_is_followed_from_its_new_beginning() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"a long first line");
        let mut follower = Follower::open(&path, 0).unwrap();
        next(&mut follower).await;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        append(&path, b"short");
        assert_eq!(next(&mut follower).await, b"short");
    }

    #[tokio::test]
    async fn what_is_passed_over_is_not_read() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"0123456789");
        let mut follower = Follower::open(&path, 2).unwrap();
        assert_eq!(follower.skip_to_last(8).unwrap(), 0);
        assert_eq!(follower.skip_to_last(3).unwrap(), 5);
        assert_eq!(next(&mut follower).await, b"789");
    }

    #[tokio::test]
    async fn at_most_64_kib_come_at_a_time() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, &vec![b'x'; CHUNK + 1]);
        let mut follower = Follower::open(&path, 0).unwrap();
        assert_eq!(next(&mut follower).await.len(), CHUNK);
        assert_eq!(next(&mut follower).await.len(), 1);
    }

    /// Follows and trims the numbered lines that a process writes all the while; returns the numbers seen and the file's end.
    async fn follow_and_trim(log: &Path) -> (Vec<u64>, Vec<u8>) {
        const LIMIT: u64 = 256 * 1024;
        let sandbox = Sandbox::new();
        let mut launch = sandbox
            .launch("i=0; while [ ! -e enough ]; do i=$((i+1)); echo $i; done; echo $i > last");
        launch.stdout = log.to_owned();
        fs::write(log, "").unwrap();
        let mut follower = Follower::open(log, 0).unwrap();
        let writer = super::super::spawn(&launch).unwrap();
        let (mut seen, mut cuts) = (Vec::new(), 0);
        while cuts < CUTS {
            seen.extend(next(&mut follower).await);
            cuts += usize::from(follower.trim(LIMIT).unwrap() > 0);
        }
        fs::write(sandbox.path("enough"), "").unwrap();
        within_deadline(super::super::exited(&writer))
            .await
            .unwrap();
        let mut buffer = Vec::new();
        while follower.read_available(&mut buffer).unwrap() > 0 {
            seen.extend(&buffer);
        }
        let numbers = seen
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        // A hole is read as zeros, which are in no number.
        let numbers: Vec<u64> = numbers
            .map(|line| str::from_utf8(line).unwrap().parse().unwrap())
            .collect();
        let last = fs::read_to_string(sandbox.path("last")).unwrap();
        assert_eq!(numbers.last().unwrap().to_string(), last.trim());
        (numbers, fs::read(log).unwrap())
    }

    #[tokio::test]
    async fn a_file_that_is_trimmed_while_a_process_writes_loses_no_line() {
        let Some(folder) = folder_that_can_collapse() else {
            // Not by a macro: the harness keeps to itself what a test prints that passes.
            let skipped = "not tried, as no file system here can do that: to take out a range\n";
            io::stderr().write_all(skipped.as_bytes()).unwrap();
            return;
        };
        let (numbers, end) = follow_and_trim(&folder.path().join("log")).await;
        assert_eq!(numbers[0], 1);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert!(!end.contains(&0));
    }

    #[tokio::test]
    async fn a_file_that_is_trimmed_by_copying_has_at_most_one_gap_for_each_cut() {
        let folder = TempDir::new_in("/dev/shm").unwrap();
        let (numbers, end) = follow_and_trim(&folder.path().join("log")).await;
        assert!(numbers.is_sorted_by(|one, other| one < other));
        let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1);
        assert!(gaps.count() <= CUTS);
        assert!(!end.contains(&0));
    }

    /// Where temporary files are, or, as tmpfs cannot do it, where the build is.
    fn folder_that_can_collapse() -> Option<TempDir> {
        let program = std::env::current_exe().unwrap();
        let places = [std::env::temp_dir(), program.parent().unwrap().to_owned()];
        let folders = places.iter().map(|place| TempDir::new_in(place).unwrap());
        let mut able = folders.filter(|folder| can_collapse(&folder.path().join("tried")));
        able.next()
    }

    fn can_collapse(path: &Path) -> bool {
        let file = File::create(path).unwrap();
        file.set_len(1 << 20).unwrap();
        let flags = rustix::fs::FallocateFlags::COLLAPSE_RANGE;
        rustix::fs::fallocate(&file, flags, 0, 1 << 16).is_ok()
    }
}

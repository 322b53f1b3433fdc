//! Follows a file that others append to, and limits its size on disk.

use std::{
    fs::{File, OpenOptions},
    io, mem,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::libc;
use rustix::{
    fs::{
        FallocateFlags, SeekFrom, fallocate,
        inotify::{self, CreateFlags, WatchFlags},
        seek,
    },
    io::Errno,
};
use tokio::{
    io::unix::AsyncFd,
    task::{coop::consume_budget, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::handle::readable;
use crate::regular_file;

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// How many of the latest bytes are kept: several screens of a program that repaints.
const TAIL: usize = 16 * 1024;

/// How much is read to finish: nothing is freed meanwhile, however fast others write.
const LAST: u64 = 1024 * 1024;

/// How often to look where no event comes: network file systems send none for what others write.
const SLOW_POLL: Duration = Duration::from_secs(2);

/// After how much work on what was read a pause is due, and how much of it counts at most: the rest was waiting.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the first byte that is still there.
    First,
    /// With the latest 16 KiB.
    Latest,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'b> {
    pub bytes: &'b [u8],
    /// Whether bytes were skipped before it.
    pub after_gap: bool,
}

/// Reads a file as it grows, each byte at most once, and frees the disk space of what it has read.
///
/// A hole is punched where the file was read, so that offsets never change and no byte of a concurrent write is lost (ext4,
/// xfs, btrfs, tmpfs, f2fs). If the file system has no holes, the file is truncated once all of it is read: what is written
/// between that read and the truncation, the very next system call, is lost. What is further behind than the limit is skipped,
/// except at the beginning. So its disk space is bounded by the limit, half of it again, and what is written in one turn.
///
/// A file that cannot be opened or read is tried again. A follower takes no more than half of a processor, however fast others
/// write: after its owner worked on a piece, it yields the processor for as long.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// How many bytes that were read may stay on disk.
    limit: u64,
    /// None once it was opened.
    start: Option<ReadFrom>,
    file: Option<Arc<File>>,
    /// None: the kernel has no watch left for us, so the file is polled.
    watch: Option<AsyncFd<OwnedFd>>,
    slow_poll: Duration,
    offset: u64,
    /// Up to here the disk space of the file is freed.
    freed: u64,
    buffer: Vec<u8>,
    after_gap: bool,
    tail: Vec<u8>,
    tail_written: SystemTime,
    tail_lasts: Duration,
    given_out: Option<Instant>,
    owed: Duration,
    pause: Option<Instant>,
    is_unreadable: bool,
    is_uncut: bool,
}

impl Follower {
    /// Follows the file at `path`, and keeps at most `limit` bytes of what was read on disk.
    pub fn new(path: PathBuf, start: ReadFrom, limit: u64) -> Self {
        Self {
            path,
            limit,
            start: Some(start),
            file: None,
            watch: None,
            slow_poll: SLOW_POLL,
            offset: 0,
            freed: 0,
            buffer: Vec::new(),
            after_gap: false,
            tail: Vec::new(),
            tail_written: SystemTime::UNIX_EPOCH,
            tail_lasts: Duration::MAX,
            given_out: None,
            owed: Duration::ZERO,
            pause: None,
            is_unreadable: false,
            is_uncut: false,
        }
    }

    /// Waits for more, up to 64 KiB, which then is in [`Follower::piece`]. Cancel safe. Runs within a tokio runtime only.
    pub async fn next(&mut self) {
        loop {
            self.yield_processor().await;
            self.free().await;
            match self.read(u64::MAX) {
                Ok(true) => return,
                Ok(false) => self.changed().await,
                Err(error) => {
                    self.close(&error);
                    sleep(self.slow_poll).await;
                }
            }
        }
    }

    /// Passes on the rest up to the present end of the file, or its last MiB, without waiting for more. For use after the
    /// writer's end: another process may go on writing.
    pub(crate) async fn finish(&mut self, mut sink: impl FnMut(Piece<'_>)) {
        let length = self.file().and_then(|file| file.metadata());
        let length = match length {
            Ok(metadata) => metadata.len(),
            Err(error) => return self.close(&error),
        };
        self.skip(length.saturating_sub(self.offset + LAST));
        loop {
            self.yield_processor().await;
            match self.read(length) {
                Ok(true) => sink(self.piece()),
                Ok(false) => return,
                Err(error) => return self.close(&error),
            }
        }
    }

    /// The latest piece. Take each once.
    pub fn piece(&mut self) -> Piece<'_> {
        Piece {
            bytes: &self.buffer,
            after_gap: mem::take(&mut self.after_gap),
        }
    }

    /// The latest bytes that were read.
    pub(crate) fn tail(&self) -> &[u8] {
        let age = self.tail_written.elapsed().unwrap_or_default();
        if age > self.tail_lasts {
            &[]
        } else {
            &self.tail
        }
    }

    /// From now on the latest bytes are dropped when new ones come so long after them.
    pub(crate) fn expire_tail_after(&mut self, time: Duration) {
        self.tail_lasts = time;
    }

    /// Yields the processor for as long as the work on the last piece took. Without this, one that never has to wait would
    /// starve the other tasks.
    async fn yield_processor(&mut self) {
        consume_budget().await;
        if let Some(given_out) = self.given_out.take() {
            self.owed += given_out.elapsed().min(LONGEST_PAUSE);
        }
        if self.owed >= SHORTEST_PAUSE {
            self.pause = Some(Instant::now() + mem::take(&mut self.owed));
        }
        if let Some(end) = self.pause {
            sleep_until(end).await;
            self.pause = None;
        }
    }

    /// Reads on, but not beyond `end`. Returns whether there was anything.
    fn read(&mut self, end: u64) -> io::Result<bool> {
        let file = self.file()?;
        let metadata = file.metadata()?;
        let length = metadata.len();
        if length < self.offset {
            // The file was truncated.
            (self.offset, self.freed, self.after_gap) = (0, 0, true);
        }
        let left = length.min(end).saturating_sub(self.offset);
        // The beginning is always read: a program can print more in an instant than anybody can read.
        if !self.tail.is_empty() {
            self.skip(left.saturating_sub(self.limit));
        }
        let left = length.min(end).saturating_sub(self.offset);
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        self.buffer.resize(size, 0);
        let count = match file.read_at(&mut self.buffer, self.offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            read => read?,
        };
        self.is_unreadable = false;
        self.buffer.truncate(count);
        self.offset += count as u64;
        if count > 0 {
            self.given_out = Some(Instant::now());
            self.keep_tail(metadata.modified()?);
        }
        Ok(count > 0)
    }

    fn skip(&mut self, bytes: u64) {
        if bytes > 0 {
            debug!(bytes, "output comes too fast");
            self.offset += bytes;
            self.after_gap = true;
        }
    }

    fn keep_tail(&mut self, written: SystemTime) {
        if self.tail().is_empty() {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&self.buffer);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.tail_written = written;
    }

    fn file(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        // A FIFO without a writer would block.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        // Without write permission it can still be read.
        let file = options.write(true).open(&self.path);
        let file = file.or_else(|_| options.write(false).open(&self.path))?;
        regular_file::check(&file)?;
        let length = file.metadata()?.len();
        if let Some(start) = self.start.take() {
            self.freed = first_byte(&file);
            self.offset = match start {
                ReadFrom::First => self.freed,
                ReadFrom::Latest => self.freed.max(length.saturating_sub(TAIL as u64)),
            };
            self.after_gap = self.offset > 0;
        }
        // Watched before the first read, so no write falls between the two.
        match watch(&self.path) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "no file events, polling instead");
            }
        }
        Ok(Arc::clone(self.file.insert(Arc::new(file))))
    }

    fn close(&mut self, error: &io::Error) {
        (self.file, self.watch) = (None, None);
        if !mem::replace(&mut self.is_unreadable, true) {
            warn!(path = %self.path.display(), %error, "output not readable, trying again");
        }
    }

    /// Frees the disk space of what was read, except the last of it, which users may want to read.
    async fn free(&mut self) {
        let Some(file) = &self.file else { return };
        if self.offset.saturating_sub(self.freed) <= self.limit {
            return;
        }
        let keep_from = self.offset - self.limit / 2;
        // If it fails it is tried again, but not after each piece.
        self.freed = keep_from;
        let file = Arc::clone(file);
        let punched = spawn_blocking(move || punch(&file, keep_from)).await;
        let freed = match punched.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(true) => Ok(()),
            Ok(false) => self.cut(),
            Err(error) => Err(error),
        };
        let was_uncut = mem::replace(&mut self.is_uncut, freed.is_err());
        if let Err(error) = freed
            && !was_uncut
        {
            warn!(path = %self.path.display(), %error, "output not truncated, trying again");
        }
    }

    /// Truncates the file if all of it is read, or if it is more than twice as long as the limit.
    fn cut(&mut self) -> io::Result<()> {
        let file = self.file()?;
        let length = file.metadata()?.len();
        let is_read = length <= self.offset;
        self.freed = 0;
        if is_read || length > self.limit.saturating_mul(2) {
            file.set_len(0)?;
            self.offset = 0;
            self.after_gap |= !is_read;
        }
        Ok(())
    }

    /// Waits for an event of the file, or as long as the slow poll.
    async fn changed(&mut self) {
        self.owed = Duration::ZERO;
        let Some(watch) = &self.watch else {
            sleep(self.slow_poll).await;
            self.watch = watch(&self.path).ok();
            return;
        };
        let Ok(ready) = timeout(self.slow_poll, watch.readable()).await else {
            return;
        };
        // The events are taken before the file is read, so a write after that read makes a new one.
        let taken = ready.map(|mut ready| ready.try_io(|watch| take_events(watch.get_ref())));
        if !matches!(taken, Ok(Err(_) | Ok(Ok(())))) {
            self.watch = None;
        }
    }
}

/// The first byte that is not in a hole.
fn first_byte(file: &File) -> u64 {
    seek(file, SeekFrom::Data(0)).unwrap_or_default()
}

/// Punches a hole up to `end`, in whole blocks. `false`: the file system has no holes.
fn punch(file: &File, end: u64) -> io::Result<bool> {
    let end = end - end % file.metadata()?.blksize().max(1);
    if end == 0 {
        return Ok(true);
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, 0, end) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, path, WatchFlags::MODIFY)?;
    readable(watch)
}

/// Drains all events and ends in `WouldBlock`. Their content does not matter.
fn take_events(watch: &OwnedFd) -> io::Result<()> {
    let mut events = [0; 4096];
    loop {
        rustix::io::read(watch, &mut events)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::FileExt as _};

    use tempfile::TempDir;

    use super::super::testing::{Sandbox, within_deadline};
    use super::*;

    /// More than a shell writes while a test has to wait for its turn.
    const LIMIT: u64 = 1024 * 1024;

    fn append(path: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(bytes).unwrap();
    }

    fn follower(path: &Path) -> Follower {
        Follower::new(path.to_owned(), ReadFrom::First, u64::MAX)
    }

    /// A file with these bytes, and its follower.
    fn followed(bytes: &[u8]) -> (Sandbox, PathBuf, Follower) {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, bytes);
        let follower = follower(&path);
        (sandbox, path, follower)
    }

    async fn next(follower: &mut Follower) -> Vec<u8> {
        within_deadline(follower.next()).await;
        follower.piece().bytes.to_owned()
    }

    /// The numbers of the lines `1\n2\n..` in pieces of output, each of which is whole.
    fn numbers(seen: &[u8]) -> Vec<u64> {
        let lines = seen.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines
            .map(|line| str::from_utf8(line).unwrap().parse().unwrap())
            .collect()
    }

    /// On the usual file system, and on tmpfs.
    fn folders() -> [TempDir; 2] {
        [
            TempDir::new().unwrap(),
            TempDir::new_in("/dev/shm").unwrap(),
        ]
    }

    fn taken(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    #[tokio::test]
    async fn a_pipe_in_place_of_the_output_does_not_block() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let mut follower = follower(&path);
        let finished = within_deadline(follower.finish(|_| panic!("there is nothing to read")));
        finished.await;
        assert!(follower.is_unreadable);
    }

    #[tokio::test]
    async fn a_follower_of_the_latest_bytes_says_that_there_were_others() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, &[&vec![b'x'; TAIL][..], b"new"].concat());
        let mut follower = Follower::new(path, ReadFrom::Latest, u64::MAX);
        within_deadline(follower.next()).await;
        let piece = follower.piece();
        assert!(piece.bytes.len() == TAIL && piece.bytes.ends_with(b"xnew") && piece.after_gap);
        assert!(!follower.piece().after_gap);
    }

    #[tokio::test]
    async fn a_write_wakes_a_waiting_follower() {
        let (_sandbox, path, mut follower) = followed(b"");
        // Longer than this test may take: nothing but an event wakes it.
        follower.slow_poll = Duration::from_hours(1);
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
    async fn a_file_that_is_not_there_yet_is_tried_again() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        let mut follower = follower(&path);
        let (seen, ()) = tokio::join!(next(&mut follower), async { append(&path, b"new") });
        assert_eq!(seen, b"new");
    }

    #[tokio::test]
    async fn a_follower_without_events_polls() {
        let (_sandbox, path, mut follower) = followed(b"old");
        next(&mut follower).await;
        follower.watch = None;
        let (seen, ()) = tokio::join!(next(&mut follower), async { append(&path, b"new") });
        assert_eq!(seen, b"new");
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_nothing() {
        let (_sandbox, path, mut follower) = followed(b"");
        for number in 0..100_u8 {
            tokio::select! {
                biased;
                () = follower.next() => panic!("there is nothing"),
                () = std::future::ready(()) => append(&path, &[number]),
            }
            assert_eq!(next(&mut follower).await, [number]);
        }
    }

    #[tokio::test]
    async fn a_truncated_file_is_followed_from_its_new_beginning() {
        let (_sandbox, path, mut follower) = followed(b"a long first line");
        next(&mut follower).await;
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        append(&path, b"short");
        assert_eq!(next(&mut follower).await, b"short");
    }

    #[tokio::test]
    async fn what_is_further_behind_than_the_limit_is_skipped() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, b"first");
        let mut follower = Follower::new(path.clone(), ReadFrom::First, 3);
        assert_eq!(next(&mut follower).await, b"first");
        append(&path, b"0123456789");
        within_deadline(follower.next()).await;
        let piece = follower.piece();
        assert!(piece.bytes == b"789" && piece.after_gap);
    }

    #[tokio::test]
    async fn at_most_64_kib_come_at_a_time() {
        let (_sandbox, _, mut follower) = followed(&vec![b'x'; CHUNK + 1]);
        assert_eq!(next(&mut follower).await.len(), CHUNK);
        assert_eq!(next(&mut follower).await.len(), 1);
    }

    #[tokio::test]
    async fn the_rest_goes_up_to_the_present_end_while_others_go_on_writing() {
        let (_sandbox, path, mut follower) = followed(&vec![b'x'; CHUNK + 1]);
        let mut seen = 0;
        let finish = follower.finish(|piece| {
            seen += piece.bytes.len();
            append(&path, piece.bytes);
        });
        within_deadline(finish).await;
        assert_eq!(seen, CHUNK + 1);
    }

    #[tokio::test]
    async fn of_a_long_rest_the_last_mib_is_read() {
        let (_sandbox, path, mut follower) = followed(b"old");
        append(&path, &vec![b'x'; 1 << 20]);
        let (mut seen, mut gaps) = (Vec::<u8>::new(), 0);
        let finish = follower.finish(|piece| {
            seen.extend(piece.bytes);
            gaps += usize::from(piece.after_gap);
        });
        within_deadline(finish).await;
        assert!(seen == vec![b'x'; 1 << 20] && gaps == 1);
    }

    #[tokio::test]
    async fn a_follower_yields_for_as_long_as_its_pieces_took() {
        let (_sandbox, path, mut follower) = followed(b"x");
        let turns = std::cell::Cell::new(0);
        let others = async {
            loop {
                tokio::task::yield_now().await;
                turns.set(turns.get() + 1);
            }
        };
        let work = async {
            for _ in 0..1000 {
                // There is always something to read.
                next(&mut follower).await;
                append(&path, b"x");
            }
        };
        tokio::select! { () = others => {}, () = work => {} }
        assert!(turns.get() > 0);
    }

    #[tokio::test]
    async fn old_bytes_are_dropped_once_they_expire() {
        let (_sandbox, path, mut follower) = followed(b"old, ");
        let old = SystemTime::now() - Duration::from_hours(1);
        let set_time = |time| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
        };
        set_time(old);
        next(&mut follower).await;
        assert_eq!(follower.tail(), b"old, ");
        follower.expire_tail_after(Duration::from_mins(6));
        assert_eq!(follower.tail(), b"");
        append(&path, b"new");
        next(&mut follower).await;
        assert_eq!(follower.tail(), b"new");
    }

    #[tokio::test]
    async fn what_was_read_takes_no_room_and_nothing_is_lost_while_a_process_writes() {
        for folder in folders() {
            let log = folder.path().join("log");
            let sandbox = Sandbox::new();
            // It waits where it is half of the limit ahead, as what is further behind is skipped.
            let mut launch = sandbox.launch(
                "i=0; while [ ! -e enough ]; do i=$((i+1)); echo $i; case $i in *00)
                until [ -e enough ] || { read seen < read && [ $((i*7)) -le $((seen+500000)) ]; }; do sleep 0.01; done;;
                esac; done; echo $i > last",
            );
            fs::write(sandbox.path("read"), "0\n").unwrap();
            launch.stdout.clone_from(&log);
            fs::write(&log, "").unwrap();
            let mut follower = Follower::new(log.clone(), ReadFrom::First, LIMIT);
            let writer = super::super::spawn(&launch).unwrap();
            let mut seen = Vec::new();
            while follower.freed < LIMIT {
                seen.extend(next(&mut follower).await);
                fs::write(sandbox.path("read"), format!("{}\n", seen.len())).unwrap();
            }
            fs::write(sandbox.path("enough"), "").unwrap();
            within_deadline(super::super::exited(&writer))
                .await
                .unwrap();
            within_deadline(follower.finish(|piece| seen.extend(piece.bytes))).await;
            let numbers = numbers(&seen);
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
            let last = fs::read_to_string(sandbox.path("last")).unwrap();
            assert_eq!(numbers.last().unwrap().to_string(), last.trim());
            assert_eq!(fs::metadata(&log).unwrap().len(), seen.len() as u64);
            assert!(taken(&log) <= LIMIT + LIMIT / 2, "{}", taken(&log));
            // The last of it is kept for users, and for another follower.
            let mut again = Follower::new(log, ReadFrom::First, LIMIT);
            let first = next(&mut again).await;
            assert!(!first.contains(&0) && first.len() as u64 <= LIMIT);
        }
    }

    #[tokio::test]
    async fn where_there_are_no_holes_a_file_is_cut_once_all_of_it_is_read() {
        let sandbox = Sandbox::new();
        let path = sandbox.path("log");
        append(&path, &vec![b'x'; 1000]);
        let mut follower = Follower::new(path.clone(), ReadFrom::First, 600);
        next(&mut follower).await;
        append(&path, b"unread");
        follower.cut().unwrap();
        assert_eq!(next(&mut follower).await, b"unread");
        follower.cut().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        append(&path, b"1\n2\n");
        assert_eq!(next(&mut follower).await, b"1\n2\n");
        // It comes faster than it is read.
        append(&path, &vec![b'x'; 1200]);
        follower.cut().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        append(&path, b"3");
        within_deadline(follower.next()).await;
        let piece = follower.piece();
        assert!(piece.bytes == b"3" && piece.after_gap);
    }

    #[test]
    fn a_hole_ends_before_the_byte_that_is_to_stay() {
        for folder in folders() {
            let path = folder.path().join("log");
            append(&path, &vec![b'x'; 1 << 20]);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            let end = (1 << 19) + 1;
            assert!(punch(&file, end).unwrap());
            assert!(punch(&file, 1).unwrap(), "not one whole block");
            let mut byte = [0];
            file.read_exact_at(&mut byte, end).unwrap();
            assert_eq!(byte, [b'x']);
            let first = first_byte(&file);
            assert!(first > 0 && first <= end, "{first}");
            assert_eq!(file.metadata().unwrap().len(), 1 << 20);
            assert!(taken(&path) <= 1 << 19);
        }
    }
}

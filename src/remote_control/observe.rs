//! Watches one process: what it prints, and when it ends.

use std::{fs, future::pending, io, mem, path::PathBuf, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, warn};

use super::{
    claude::{Cause, LinkFinder, LinkPattern, Sighting, visible_text},
    process::{self, Exit, Follower, ProcessIdentity},
    session::Event,
    tasks::Reporter,
};
use crate::link::Link;

/// The files of a session, in its project's folder.
pub(super) const STDIN: &str = "stdin";
pub(super) const STDOUT: &str = "stdout.log";
pub(super) const STDERR: &str = "stderr.log";

/// How much of the latest output is kept in memory to tell what is wrong: several screens of a program that repaints.
const TAIL: usize = 16 * 1024;

/// How long a link that is only the target of a hyperlink waits for one that is shown as text. The program titles
/// conversations so, a few lines above its own link.
const TARGET_GRACE: Duration = Duration::from_secs(2);

/// How long another link has to be shown, and the known one not, before it takes its place: a program that shows two in turn
/// must not make the bot send one after the other.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(2);

/// What to watch.
pub(super) struct Observation {
    pub(super) process: ProcessIdentity,
    /// `None`: there is no link to look for.
    pub(super) pattern: Option<LinkPattern>,
    /// How large each output file may become, in bytes.
    pub(super) max_output: u64,
    pub(super) known: Known,
    /// Where the output is; `None` if it cannot be had.
    pub(super) folder: Option<PathBuf>,
}

/// What is known of the process when the watch begins.
pub(super) enum Known {
    /// No link yet; this is the uptime by which it has to be there.
    Deadline(Duration),
    /// Its link. Another may come.
    Link(Link),
    /// Nothing but that it will end.
    Nothing,
}

/// Watches until the process has ended.
pub(super) async fn observe(observation: Observation, reporter: Reporter) {
    let Observation {
        process,
        pattern,
        max_output,
        known,
        folder,
    } = observation;
    let (mut deadline, link, pattern) = match known {
        Known::Deadline(deadline) => (Some(deadline), None, pattern),
        Known::Link(link) => (None, Some(link), pattern),
        Known::Nothing => (None, None, None),
    };
    // All of the output where the link is yet to be found, else what is needed to tell what went wrong.
    let end_only = deadline.is_none();
    let path = |name| folder.as_ref().map(|folder: &PathBuf| folder.join(name));
    let mut stdout = Stream::open(path(STDOUT), end_only, max_output);
    let mut stderr = Stream::open(path(STDERR), true, max_output);
    let mut search = Search::new(pattern, link);
    let exited = process::exited(&process);
    tokio::pin!(exited);
    loop {
        tokio::select! {
            exit = &mut exited => {
                stdout.drain(|piece| search.push(piece));
                stderr.drain(|_| ());
                if let Some(link) = search.end() {
                    reporter.report(Event::LinkShown(link)).await;
                }
                let exit = exit.unwrap_or_else(|error| {
                    error!(%error, "end of the process not seen");
                    Exit::Unknown
                });
                let cause = cause(&stdout, &stderr);
                // Closing a watch takes the kernel some 20 ms, in which this thread could do nothing else.
                drop(spawn_blocking(move || drop((stdout, stderr))));
                reporter.report(Event::Exited(exit, cause)).await;
                return;
            }
            () = stdout.next() => search.push(stdout.piece()),
            () = stderr.next() => {}
            () = sleep_until_some(search.due()) => {}
            () = uptime(deadline) => {
                deadline = None;
                reporter.report(Event::LinkTimedOut(cause(&stdout, &stderr))).await;
            }
        }
        if let Some(link) = search.take_news() {
            deadline = None;
            reporter.report(Event::LinkShown(link)).await;
        }
    }
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Waits until the host is up for so long. Where the kernel has no timer left, a deadline is as good as passed.
async fn uptime(deadline: Option<Duration>) {
    match deadline {
        Some(uptime) => {
            if let Err(error) = process::until(uptime).await {
                error!(%error, "no timer left to wait for the link");
            }
        }
        None => pending().await,
    }
}

/// What the last output tells about a failure. Errors come on stderr, questions on stdout.
fn cause(stdout: &Stream, stderr: &Stream) -> Option<Cause> {
    let recognise = |stream: &Stream| Cause::recognise(&visible_text(&stream.tail));
    recognise(stderr).or_else(|| recognise(stdout))
}

/// The search for the link, and for another one later. A link shown as text wins over one that is only a hyperlink's target,
/// and a target never takes the place of a link.
struct Search {
    pattern: Option<LinkPattern>,
    finder: Option<LinkFinder>,
    /// What was passed over ends in the middle of a line, and nobody knows what its rest means.
    in_torn_line: bool,
    /// What was found last, and told.
    told: Option<Link>,
    /// What is to be told, and when at the earliest.
    news: Option<(Link, Instant)>,
}

impl Search {
    fn new(pattern: Option<LinkPattern>, told: Option<Link>) -> Self {
        Self {
            finder: pattern.clone().map(LinkFinder::new),
            pattern,
            in_torn_line: false,
            told,
            news: None,
        }
    }

    fn push(&mut self, Piece { bytes, after_gap }: Piece<'_>) {
        if after_gap {
            self.finder = self.pattern.clone().map(LinkFinder::new);
            self.in_torn_line = true;
        }
        let bytes = self.without_torn_line(bytes);
        let sightings = self
            .finder
            .as_mut()
            .map(|finder| finder.push(bytes))
            .unwrap_or_default();
        self.note(sightings);
    }

    fn without_torn_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if !self.in_torn_line {
            return bytes;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.in_torn_line = end.is_none();
        end.and_then(|end| bytes.get(end..)).unwrap_or_default()
    }

    fn note(&mut self, sightings: Vec<Sighting>) {
        for sighting in sightings {
            match sighting {
                // It is shown again, so whatever came in between was no more than that.
                Sighting::Shown(link) if self.told.as_ref() == Some(&link) => self.news = None,
                Sighting::Shown(link) => {
                    let waits = self.news.as_ref().is_some_and(|(news, _)| *news == link);
                    let now = Instant::now();
                    if self.told.is_none() {
                        self.news = Some((link, now));
                    } else if !waits {
                        self.news = Some((link, now + REPLACEMENT_GRACE));
                    }
                }
                Sighting::Target(link) if self.told.is_none() && self.news.is_none() => {
                    self.news = Some((link, Instant::now() + TARGET_GRACE));
                }
                Sighting::Target(_) => {}
            }
        }
    }

    /// When there may be something to tell.
    fn due(&self) -> Option<Instant> {
        self.news.as_ref().map(|(_, due)| *due)
    }

    fn take_news(&mut self) -> Option<Link> {
        let now = Instant::now();
        let (link, _) = self.news.take_if(|(_, due)| *due <= now)?;
        self.told = Some(link.clone());
        Some(link)
    }

    /// The process is gone: what stands there is all there will be. Only a first link is still worth telling.
    fn end(&mut self) -> Option<Link> {
        let sightings = self
            .finder
            .take()
            .map(LinkFinder::finish)
            .unwrap_or_default();
        self.note(sightings);
        let first = self.told.is_none();
        self.news.take().map(|(link, _)| link).filter(|_| first)
    }
}

/// A piece of output.
#[derive(Clone, Copy)]
struct Piece<'b> {
    bytes: &'b [u8],
    /// Something was passed over before it.
    after_gap: bool,
}

/// One output file, followed and kept small, with its latest bytes at hand.
struct Stream {
    follower: Option<Follower>,
    buffer: Vec<u8>,
    after_gap: bool,
    tail: Vec<u8>,
    /// How large the file may become. `None`: it cannot be cut.
    limit: Option<u64>,
}

impl Stream {
    fn open(path: Option<PathBuf>, end_only: bool, limit: u64) -> Self {
        let follower = path.and_then(|path| {
            let length = fs::metadata(&path)
                .map(|metadata| metadata.len())
                .unwrap_or_default();
            let offset = if end_only {
                length.saturating_sub(TAIL as u64)
            } else {
                0
            };
            let opened = Follower::open(&path, offset);
            // The session goes on; only what it says stays unheard.
            opened
                .inspect_err(|error| warn!(%error, path = %path.display(), "output not readable"))
                .ok()
        });
        Self {
            follower,
            buffer: Vec::new(),
            after_gap: false,
            tail: Vec::new(),
            limit: Some(limit),
        }
    }

    /// Waits for more output, which then is in [`Stream::piece`]. For ever, where there is none to be had.
    async fn next(&mut self) {
        self.give_up_backlog();
        let Some(follower) = &mut self.follower else {
            return pending().await;
        };
        let read = follower.next(&mut self.buffer).await;
        self.keep(read);
    }

    /// What came last. Each is to be looked at once.
    fn piece(&mut self) -> Piece<'_> {
        Piece {
            bytes: &self.buffer,
            after_gap: mem::take(&mut self.after_gap),
        }
    }

    /// Hands on whatever is left, without waiting.
    fn drain(&mut self, mut sink: impl FnMut(Piece<'_>)) {
        loop {
            self.give_up_backlog();
            let Some(follower) = &mut self.follower else {
                return;
            };
            let read = follower.read_available(&mut self.buffer);
            self.keep(read);
            if self.buffer.is_empty() {
                return;
            }
            sink(self.piece());
        }
    }

    fn keep(&mut self, read: io::Result<usize>) {
        if let Err(error) = read {
            warn!(%error, "output no longer readable");
            self.follower = None;
            self.buffer.clear();
        }
        self.tail.extend_from_slice(&self.buffer);
        self.trim();
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }

    /// Only what was read is cut from the file, so a process that writes faster than we read would fill the disk: what is so
    /// far behind is passed over.
    fn give_up_backlog(&mut self) {
        let (Some(follower), Some(limit)) = (&mut self.follower, self.limit) else {
            return;
        };
        match follower.skip_to_last(limit) {
            Ok(0) => {}
            Ok(skipped) => {
                debug!(skipped, "output passed over, it comes too fast");
                self.after_gap = true;
                self.trim();
            }
            Err(error) => self.keep(Err(error)),
        }
    }

    /// What was read is no longer needed, but for people who want to look back.
    fn trim(&mut self) {
        let (Some(follower), Some(limit)) = (&mut self.follower, self.limit) else {
            return;
        };
        if follower.offset() > limit
            && let Err(error) = follower.trim(limit)
        {
            warn!(%error, "output not cut, it goes on growing");
            self.limit = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &[u8] = b"https://claude.ai/code/session_1";

    fn shown(pieces: &[(&[u8], bool)]) -> Option<Link> {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let mut search = Search::new(pattern.ok(), None);
        for (bytes, after_gap) in pieces.iter().copied() {
            search.push(Piece { bytes, after_gap });
        }
        search.take_news()
    }

    #[test]
    fn what_stands_before_and_after_a_gap_is_not_one_link() {
        let link = Link::parse(std::str::from_utf8(LINK).unwrap()).unwrap();
        assert_eq!(
            shown(&[(LINK, false), (b"234 \n", false)]).map(|it| it == link),
            Some(false)
        );
        assert_eq!(shown(&[(LINK, false), (b"234 \n", true)]), None);
        assert_eq!(
            shown(&[(LINK, false), (b"2", true), (b"34 \n", false)]),
            None
        );
        // The rest of a line may be a hyperlink's target as well as its text.
        assert_eq!(shown(&[(LINK, true), (b" \n", false)]), None);
        assert_eq!(
            shown(&[(b"2\n", true), (LINK, false), (b" ", false)]),
            Some(link)
        );
    }
}

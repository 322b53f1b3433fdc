//! Watches one process: what it prints, and when it ends.

use std::{future::pending, io, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

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

/// What to watch.
pub(super) struct Observation {
    pub(super) process: ProcessIdentity,
    /// `None`: there is no link to look for.
    pub(super) pattern: Option<LinkPattern>,
    /// How long a link may still take; `None` where it is known already.
    pub(super) time_left: Option<Duration>,
    /// Where the output is; `None` if it cannot be had.
    pub(super) folder: Option<PathBuf>,
}

/// Watches until the process has ended.
pub(super) async fn observe(observation: Observation, reporter: Reporter) {
    let Observation {
        process,
        pattern,
        time_left,
        folder,
    } = observation;
    let mut deadline = time_left.map(|left| Instant::now() + left);
    let mut search = Search::new(pattern.filter(|_| deadline.is_some()));
    let path = |name| folder.as_ref().map(|folder: &PathBuf| folder.join(name));
    let mut stdout = Stream::open(path(STDOUT));
    let mut stderr = Stream::open(path(STDERR));
    let exited = process::exited(&process);
    tokio::pin!(exited);
    loop {
        tokio::select! {
            exit = &mut exited => {
                stdout.drain(|bytes| search.push(bytes));
                stderr.drain(|_| ());
                search.end();
                if let Some(link) = search.found() {
                    reporter.report(Event::LinkShown(link)).await;
                }
                let exit = exit.unwrap_or_else(|error| {
                    error!(%error, "end of the process not seen");
                    Exit::Unknown
                });
                reporter.report(Event::Exited(exit, cause(&stdout, &stderr))).await;
                return;
            }
            () = stdout.next() => search.push(stdout.chunk()),
            () = stderr.next() => {}
            () = until(search.target_due) => search.settle_for_target(),
            () = until(deadline) => {
                deadline = None;
                search.stop();
                reporter.report(Event::LinkTimedOut(cause(&stdout, &stderr))).await;
            }
        }
        if let Some(link) = search.found() {
            deadline = None;
            search.stop();
            reporter.report(Event::LinkShown(link)).await;
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// What the last output tells about a failure. Errors come on stderr, questions on stdout.
fn cause(stdout: &Stream, stderr: &Stream) -> Option<Cause> {
    let recognise = |stream: &Stream| Cause::recognise(&visible_text(&stream.tail));
    recognise(stderr).or_else(|| recognise(stdout))
}

/// The search for the link. A link shown as text wins over one that is only a hyperlink's target.
struct Search {
    finder: Option<LinkFinder>,
    shown: Option<Link>,
    target: Option<Link>,
    target_due: Option<Instant>,
}

impl Search {
    fn new(pattern: Option<LinkPattern>) -> Self {
        Self {
            finder: pattern.map(LinkFinder::new),
            shown: None,
            target: None,
            target_due: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let Some(finder) = &mut self.finder else {
            return;
        };
        let sightings = finder.push(bytes);
        self.note(sightings);
    }

    /// The process is gone: what stands there is all there will be.
    fn end(&mut self) {
        let sightings = self
            .finder
            .take()
            .map(LinkFinder::finish)
            .unwrap_or_default();
        self.note(sightings);
        self.settle_for_target();
    }

    fn note(&mut self, sightings: Vec<Sighting>) {
        for sighting in sightings {
            match sighting {
                Sighting::Shown(link) if self.shown.is_none() => self.shown = Some(link),
                Sighting::Target(link) if self.target.is_none() => {
                    self.target = Some(link);
                    self.target_due = Some(Instant::now() + TARGET_GRACE);
                }
                Sighting::Shown(_) | Sighting::Target(_) => {}
            }
        }
    }

    fn settle_for_target(&mut self) {
        self.target_due = None;
        self.shown = self.shown.take().or_else(|| self.target.take());
    }

    fn found(&mut self) -> Option<Link> {
        self.shown.take()
    }

    fn stop(&mut self) {
        *self = Self::new(None);
    }
}

/// One output file, followed from its beginning, with its latest bytes at hand.
struct Stream {
    follower: Option<Follower>,
    buffer: Vec<u8>,
    tail: Vec<u8>,
}

impl Stream {
    fn open(path: Option<PathBuf>) -> Self {
        let follower = path.and_then(|path| {
            let opened = Follower::open(&path, 0);
            // The session goes on; only what it says stays unheard.
            opened
                .inspect_err(|error| warn!(%error, path = %path.display(), "output not readable"))
                .ok()
        });
        Self {
            follower,
            buffer: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Waits for more output, which then is in [`Stream::chunk`]. For ever, where there is none to be had.
    async fn next(&mut self) {
        let Some(follower) = &mut self.follower else {
            return pending().await;
        };
        let read = follower.next(&mut self.buffer).await;
        self.keep(read);
    }

    fn chunk(&self) -> &[u8] {
        &self.buffer
    }

    /// Hands on whatever is left, without waiting.
    fn drain(&mut self, mut sink: impl FnMut(&[u8])) {
        while let Some(follower) = &mut self.follower {
            let read = follower.read_available(&mut self.buffer);
            self.keep(read);
            if self.buffer.is_empty() {
                return;
            }
            sink(&self.buffer);
        }
    }

    fn keep(&mut self, read: io::Result<usize>) {
        if let Err(error) = read {
            warn!(%error, "output no longer readable");
            self.follower = None;
            self.buffer.clear();
        }
        self.tail.extend_from_slice(&self.buffer);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }
}

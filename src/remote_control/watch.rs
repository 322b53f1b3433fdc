//! Watches one process: what it prints, and when it ends.

use std::{future::pending, path::PathBuf, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tracing::error;

use super::{
    claude::{Cause, LinkFinder, LinkPattern, Sighting, visible_text},
    process::{self, Exit, Follower, Piece, ProcessIdentity, Start},
    project::MAX_OUTPUT,
    session::Event,
    tasks::Task,
    uptime_reached,
};
use crate::link::Link;

/// The files of a session, in its project's folder.
pub(super) const STDIN: &str = "stdin";
pub(super) const STDOUT: &str = "stdout.log";
pub(super) const STDERR: &str = "stderr.log";

/// How long a link that is only the target of a hyperlink waits for one that is shown as text. The program titles
/// conversations so, a few lines above its own link.
const TARGET_GRACE: Duration = Duration::from_secs(2);

/// How long another link has to be shown, and the known one not, before it takes its place: a program that shows two in turn
/// must not make the bot send one after the other.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(2);

/// How long a complaint may explain the end of a session that ran: the program stays for up to 300 s after some.
const COMPLAINT_LASTS: Duration = Duration::from_mins(6);

/// How long until the next try to hear of a process's end, where the kernel had no descriptor left for that.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long a tree may take to end before its output is kept small: what obeys is over by then.
const OBEDIENT_END: Duration = Duration::from_millis(100);

/// Watches a process until it has ended; reports its link, that the time for it is over, and how it ended.
///
/// `deadline`: the uptime by which the link has to be there. `link`: the one that is known, another may come.
pub(super) async fn watch(
    task: Task,
    process: ProcessIdentity,
    deadline: Option<Duration>,
    link: Option<Link>,
) {
    let settings = task.project.as_ref().map(|project| &project.settings);
    let pattern = settings.map(|settings| settings.link_pattern.clone());
    let max_output = settings.map_or(MAX_OUTPUT, |settings| settings.max_output);
    // All of the output where the link is yet to be found, else what is needed to tell what went wrong.
    let start = deadline.map_or(Start::Latest, |_| Start::First);
    let mut stdout = Follower::new(task.folder.join(STDOUT), start, max_output);
    let mut stderr = Follower::new(task.folder.join(STDERR), Start::Latest, max_output);
    let mut search = Search::new(pattern, link);
    let exited = exit_of(&process);
    // Made once: a timer that is made anew in each turn never fires while there is always output.
    let timed_out = uptime_reached(deadline);
    tokio::pin!(exited, timed_out);
    let mut waits_for_link = deadline.is_some();
    loop {
        if !waits_for_link {
            stderr.let_tail_last(COMPLAINT_LASTS);
        }
        // Whatever is ready has the same chance in each turn, and both followers give way: no flood keeps the rest waiting.
        tokio::select! {
            exit = &mut exited => {
                stdout.finish(|piece| search.push(piece)).await;
                stderr.finish(|_| ()).await;
                if let Some(link) = search.end() {
                    task.report(Event::LinkShown(link)).await;
                }
                let cause = cause(&stdout, &stderr);
                // Closing a watch takes the kernel some 20 ms, in which this thread could do nothing else.
                drop(spawn_blocking(move || drop((stdout, stderr))));
                task.report(Event::Exited(exit, cause)).await;
                return;
            }
            () = &mut timed_out, if waits_for_link => {
                waits_for_link = false;
                // What stands there by now counts: nobody looked while there was no bot.
                stdout.finish(|piece| search.push(piece)).await;
                if search.due().is_none() {
                    task.report(Event::LinkTimedOut(cause(&stdout, &stderr))).await;
                }
            }
            () = stdout.next() => search.push(stdout.piece()),
            () = stderr.next() => {}
            () = sleep_until_some(search.due()) => {}
        }
        if let Some(link) = search.take_news() {
            waits_for_link = false;
            task.report(Event::LinkShown(link)).await;
        }
    }
}

/// Keeps an output file small, for as long as this is awaited.
pub(super) async fn keep_small(file: PathBuf, limit: u64) {
    sleep(OBEDIENT_END).await;
    let mut follower = Follower::new(file, Start::Latest, limit);
    loop {
        follower.next().await;
    }
}

/// How the process ends. Where that cannot be watched it is tried again: nobody knows that it has ended.
async fn exit_of(process: &ProcessIdentity) -> Exit {
    let mut is_told = false;
    loop {
        match process::exited(process).await {
            Ok(exit) => return exit,
            Err(error) if !is_told => {
                error!(%error, "end of the process cannot be seen, trying again");
                is_told = true;
            }
            Err(_) => {}
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// What the last output tells about a failure. Complaints come on stderr, questions on stdout, between titles of
/// conversations, which may say anything.
fn cause(stdout: &Follower, stderr: &Follower) -> Option<Cause> {
    let complaint = Cause::complaint(&visible_text(stderr.tail()));
    complaint.or_else(|| Cause::question(&visible_text(stdout.tail())))
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

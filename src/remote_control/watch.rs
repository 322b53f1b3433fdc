//! Watches one process: what it prints, and when it ends.

use std::{future::pending, mem, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tracing::error;

use super::{
    claude::{
        self, Cause, Connection, Conversations, LinkPattern, OutputReader, Quote, Said,
        visible_text,
    },
    clock::uptime_reached,
    process::{self, Exit, Follower, Piece, ProcessIdentity, ReadFrom},
    session::{Beginning, Event, MOST_COMPLAINTS, State},
    tasks::Task,
};
use crate::link::Link;

/// The files of a session, in its project's folder.
pub(super) const STDIN: &str = "stdin";
pub(super) const STDOUT: &str = "stdout.log";
pub(super) const STDERR: &str = "stderr.log";

/// How long a link in another line waits for one in the program's own line.
const OTHER_LINE_GRACE: Duration = Duration::from_secs(2);

/// How long it waits while the program connects; the link times out before that.
const AS_LONG_AS_IT_CONNECTS: Duration = Duration::from_hours(24);

/// How long another link has to be shown, without the known one, before it replaces that: a program that alternates between two
/// must not make the bot send one after the other.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(2);

/// How long another state of the connection has to be shown before it is reported: each is written to disk, and a program that
/// alternates between two must not keep the disk busy.
const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// How long the link of a resumed conversation has to stay: its transcript may contain an earlier one.
const RESUMED_GRACE: Duration = Duration::from_secs(1);

/// The pause between two searches for unknown complaints, and after one that found something: each is sent to users, and a
/// flood of them must not disturb anybody.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);
const QUOTE_PAUSE: Duration = Duration::from_secs(30);

/// How long an unfinished line has to stay unchanged before it counts as complete.
const QUIET: Duration = Duration::from_secs(1);

/// How old a complaint may be that explains the end of a session that ran: the program stays for up to 300 s after some.
const COMPLAINT_LASTS: Duration = Duration::from_mins(6);

/// The pause before the next try to watch for a process's end, if the kernel had no descriptor left.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long a tree may take to end before its output is kept small: a process that reacts to SIGTERM has ended by then.
const PROMPT_END: Duration = Duration::from_millis(100);

/// Watches the process until it has ended; reports its link, the timeout of the link, complaints, and how it ended.
pub(super) async fn watch(task: Task) {
    // A link that is known has no deadline, but another may replace it.
    let (process, deadline, link) = match task.session.state() {
        State::Starting { process, deadline } => (process, Some(*deadline), None),
        State::Running { process, link, .. } => (process, None, Some(link.clone())),
        // Nothing to watch.
        State::Spawning { .. } | State::Stopping { .. } | State::AwaitingRestart { .. } => return,
    };
    let is_resumed = task.session.start().beginning == Beginning::Resumed;
    let pattern = task.project.as_ref();
    let pattern = pattern.map(|project| project.settings.link_pattern.clone());
    // All of the output if the link is still to be found, else what a diagnosis needs.
    let start = deadline.map_or(ReadFrom::Latest, |_| ReadFrom::First);
    let mut stdout = task.follower(STDOUT, start);
    let mut stderr = task.follower(STDERR, ReadFrom::Latest);
    let mut search = Search::new(pattern, is_resumed, link);
    let has_answer = task.has_answer();
    let cause = |search: &Search, stdout: &Follower, stderr: &Follower| {
        let running = search.reported.is_some();
        let complained = visible_text(stderr.tail());
        // With `--verbose`, the messages of all conversations are there too.
        let complained = if running {
            claude::errors(&complained).join("\n")
        } else {
            complained
        };
        Cause::complaint(&complained)
            .or_else(|| search.complaint())
            .or_else(|| Cause::question(&visible_text(stdout.tail()), has_answer))
            .or_else(|| claude::first_line(&complained).map(|_| Cause::Unknown))
    };
    let exited = exit_of(process);
    // Made once: a timer that is made again in each turn never fires while there is always output.
    let timed_out = uptime_reached(deadline);
    tokio::pin!(exited, timed_out);
    let mut waits_for_link = deadline.is_some();
    let mut has_failed = false;
    loop {
        if !waits_for_link {
            stderr.expire_tail_after(COMPLAINT_LASTS);
        }
        // All branches have the same chance in each turn, and both followers yield, so no flood delays the others.
        tokio::select! {
            exit = &mut exited => {
                stdout.finish(|piece| search.push(piece)).await;
                stderr.finish(|_| ()).await;
                let cause = cause(&search, &stdout, &stderr);
                if let Some(link) = search.end() {
                    task.report(Event::LinkShown(link)).await;
                }
                let last = visible_text(stderr.tail());
                // Closing a watch takes the kernel some 20 ms, in which this thread could do nothing else.
                drop(spawn_blocking(move || drop((stdout, stderr))));
                task.report(Event::Exited(exit, cause)).await;
                search.quote_last(&task, cause, &last).await;
                return;
            }
            () = &mut timed_out, if waits_for_link => {
                waits_for_link = false;
                // The output so far counts: it may be from before a restart of the bot.
                stdout.finish(|piece| search.push(piece)).await;
                search.note_unfinished();
                match &mut search.news {
                    Some((_, due)) => *due = Instant::now(),
                    None => has_failed = true,
                }
            }
            () = stdout.next() => search.push(stdout.piece()),
            () = stderr.next() => {
                search.complaints.has_news = true;
                // It would stay for longer than anybody waits.
                has_failed = waits_for_link && Cause::is_lingering(&visible_text(stderr.tail()));
            }
            () = sleep_until_some(search.due()) => search.settle(),
        }
        // Before a complaint that was read with it: the room is notified of those of a session that runs.
        if !has_failed && let Some(link) = search.take_news() {
            waits_for_link = false;
            task.report(Event::LinkShown(link)).await;
        }
        search.report_complaints(&task, &stderr).await;
        if mem::take(&mut has_failed) {
            waits_for_link = false;
            let cause = cause(&search, &stdout, &stderr);
            task.report(Event::NoLink(cause)).await;
            let last = visible_text(stderr.tail());
            search.quote_last(&task, cause, &last).await;
        }
        if let Some(connection) = search.take_connection() {
            task.report(Event::Connection(connection)).await;
        }
    }
}

/// Keeps an output file small, for as long as this is awaited.
pub(super) async fn keep_small(mut follower: Follower) {
    sleep(PROMPT_END).await;
    loop {
        follower.next().await;
    }
}

/// How the process ended. Retried if that cannot be watched: it may still run.
async fn exit_of(process: &ProcessIdentity) -> Exit {
    let mut is_reported = false;
    loop {
        match process::exited(process).await {
            Ok(exit) => return exit,
            Err(error) if !is_reported => {
                error!(%error, "cannot watch for the end of the process, trying again");
                is_reported = true;
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

/// Complaints that are reported at once, while the program goes on.
#[derive(Default)]
struct Complaints {
    /// The pattern of links that a complaint may contain. `None`: nothing can be quoted.
    pattern: Option<LinkPattern>,
    /// Those of stdout that are still to be reported.
    queued: Vec<Quote>,
    /// Those that were reported. Nobody wants to read more than [`MOST_COMPLAINTS`].
    reported: Vec<Quote>,
    /// There may be one.
    has_news: bool,
    /// The earliest time of the next search. `None`: any.
    next_look: Option<Instant>,
    conversations: Conversations,
    /// What keeps conversations from starting, and whether it was reported.
    obstacle: Option<(Cause, Quote, bool)>,
}

impl Complaints {
    /// Notes an event that may be a complaint. Known complaints that end the program are reported with its end.
    fn note(&mut self, event: &str) {
        let Some(pattern) = &self.pattern else {
            return;
        };
        if let Some(cause) = self.conversations.obstacle(event) {
            let quote = Quote::new(event, pattern);
            self.obstacle.get_or_insert((cause, quote, false));
        } else if Cause::event(event) == Some(Cause::Unknown) && self.queued.len() < MOST_COMPLAINTS
        {
            self.queued.push(Quote::new(event, pattern));
            self.has_news = true;
        }
    }

    /// When there may be something to report.
    fn due(&self) -> Option<Instant> {
        let is_open = self.has_news && self.reported.len() < MOST_COMPLAINTS;
        is_open.then(|| self.next_look.unwrap_or_else(Instant::now))
    }

    /// Searches for one that was not reported yet.
    fn look(&mut self, stderr: &str, has_link: bool) -> Option<Quote> {
        let pattern = self.pattern.as_ref()?;
        let lines = claude::unknown_lines(stderr, has_link).into_iter();
        let quotes = lines.map(|line| Quote::new(line, pattern));
        let queued = mem::take(&mut self.queued);
        let mut news: Vec<_> = queued.into_iter().chain(quotes).collect();
        news.retain(|quote| !self.reported.iter().any(|reported| reported.is_like(quote)));
        let mut news = news.into_iter();
        let quote = news.next();
        self.reported.extend(quote.clone());
        // Those of stderr will be found there again.
        self.queued.extend(news.take(MOST_COMPLAINTS));
        self.has_news = !self.queued.is_empty();
        let pause = quote.as_ref().map_or(COMPLAINT_PAUSE, |_| QUOTE_PAUSE);
        self.next_look = Some(Instant::now() + pause);
        quote
    }
}

/// The search for the link, for another one later, and for complaints between the two.
///
/// The program's own line counts at once, and its link replaces another. A link in another line is accepted if no better one
/// follows within a while; later, the same line may show another link.
#[derive(Default)]
struct Search {
    reader: Option<OutputReader>,
    is_resumed: bool,
    /// The link that was last found and reported.
    reported: Option<Link>,
    /// The text before it, if it is not in the program's own line.
    words_before: Option<String>,
    /// The link to report, and when at the earliest.
    news: Option<(Link, Instant)>,
    /// When the unfinished last line counts as complete.
    quiet: Option<Instant>,
    complaint: Option<(Cause, Instant)>,
    complaints: Complaints,
    /// The state of the connection that was last reported; then the one to report, and when at the earliest.
    connection: Option<Connection>,
    connection_news: Option<(Connection, Instant)>,
}

impl Search {
    fn new(pattern: Option<LinkPattern>, is_resumed: bool, reported: Option<Link>) -> Self {
        Self {
            complaints: Complaints {
                pattern: pattern.clone(),
                ..Complaints::default()
            },
            reader: pattern.map(OutputReader::new),
            is_resumed,
            reported,
            ..Self::default()
        }
    }

    fn push(&mut self, Piece { bytes, after_gap }: Piece<'_>) {
        let Some(reader) = &mut self.reader else {
            return;
        };
        if after_gap {
            reader.skip();
        }
        let said = reader.push(bytes);
        let is_open = reader.unfinished().is_some();
        self.quiet = is_open.then(|| Instant::now() + QUIET);
        for said in said {
            self.note(said);
        }
    }

    /// Treats the unfinished last line as complete, if it was unchanged for long enough.
    fn settle(&mut self) {
        let is_quiet = self.quiet.take_if(|quiet| *quiet <= Instant::now());
        if is_quiet.is_some() {
            self.note_unfinished();
        }
    }

    fn note_unfinished(&mut self) {
        let unfinished = self.reader.as_ref().and_then(OutputReader::unfinished);
        if let Some(said) = unfinished {
            self.note(said);
        }
    }

    fn note(&mut self, said: Said) {
        let now = Instant::now();
        match said {
            Said::Link(link) => self.note_link(link, None, now),
            Said::LinkAfter(link, words) => self.note_link(link, Some(words), now),
            Said::Event(event) => {
                if let Some(cause) = Cause::event(&event) {
                    self.complaint = Some((cause, now));
                }
                self.complaints.note(&event);
            }
            Said::Connection(connection) => {
                self.delay_link(connection, now);
                let reported = self.connection.as_ref().map(mem::discriminant);
                let is_news = reported != Some(mem::discriminant(&connection));
                let earlier = self.connection_news.map(|(_, due)| due);
                let due = earlier.unwrap_or(now + CONNECTION_GRACE);
                self.connection_news = is_news.then_some((connection, due));
            }
        }
    }

    /// A link before the first block may be that of an earlier session: this one's own is shown once it is connected.
    fn delay_link(&mut self, connection: Connection, now: Instant) {
        let Some((_, due)) = self.news.as_mut().filter(|_| self.reported.is_none()) else {
            return;
        };
        if connection == Connection::Connecting {
            *due = now + AS_LONG_AS_IT_CONNECTS;
        } else if *due > now + OTHER_LINE_GRACE {
            *due = now + OTHER_LINE_GRACE;
        }
    }

    /// `words`: the text before it, if it is not in the program's own line.
    fn note_link(&mut self, link: Link, words: Option<String>, now: Instant) {
        let is_own = words.is_none();
        let Some(reported) = &self.reported else {
            let is_own_waiting = self.news.is_some() && self.words_before.is_none();
            let is_known = self.news.as_ref().is_some_and(|(news, _)| *news == link);
            if is_own && self.is_resumed {
                self.words_before = None;
                if !(is_known && is_own_waiting) {
                    self.news = Some((link, now + RESUMED_GRACE));
                }
            } else if is_own || !is_own_waiting {
                let due = if is_own { now } else { now + OTHER_LINE_GRACE };
                let earlier = self.news.as_ref().map_or(due, |(_, due)| *due);
                self.words_before = words;
                self.news = Some((link, due.min(earlier)));
            }
            return;
        };
        if *reported == link {
            // The known link is shown again, so the one in between does not count.
            self.words_before = words;
            self.news = None;
        } else if is_own || words == self.words_before {
            let waits = self.news.as_ref().is_some_and(|(news, _)| *news == link);
            if !waits {
                self.news = Some((link, now + REPLACEMENT_GRACE));
            }
        }
    }

    /// When there may be something to report.
    fn due(&self) -> Option<Instant> {
        let news = self.news.as_ref().map(|(_, due)| *due);
        let connection = self.connection_news.map(|(_, due)| due);
        let others = [self.quiet, connection, self.complaints.due()];
        news.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Reports what keeps conversations from starting, once there can be any, and unknown complaints at intervals.
    async fn report_complaints(&mut self, task: &Task, stderr: &Follower) {
        if self.reported.is_some()
            && let Some((cause, quote, is_reported @ false)) = &mut self.complaints.obstacle
        {
            *is_reported = true;
            task.report(Event::Complained(*cause, quote.clone())).await;
        }
        let due = self.complaints.due();
        if due.is_some_and(|due| due <= Instant::now()) {
            let has_link = self.reported.is_some();
            let quote = self.complaints.look(&visible_text(stderr.tail()), has_link);
            if let Some(quote) = quote {
                task.report(Event::Complained(Cause::Unknown, quote)).await;
            }
        }
    }

    /// After a failure with an unknown cause, reports the first complaint, which may explain it.
    async fn quote_last(&mut self, task: &Task, cause: Option<Cause>, stderr: &str) {
        let is_first = cause == Some(Cause::Unknown) && self.complaints.reported.is_empty();
        let queued = self.complaints.queued.first().cloned();
        let line = claude::first_line(stderr);
        let pattern = self.complaints.pattern.as_ref();
        let quote = queued.or_else(|| Some(Quote::new(line?, pattern?)));
        if let Some(quote) = quote.filter(|_| is_first) {
            self.complaints.reported.push(quote.clone());
            task.report(Event::Complained(Cause::Unknown, quote)).await;
        }
    }

    fn take_news(&mut self) -> Option<Link> {
        let now = Instant::now();
        let (link, _) = self.news.take_if(|(_, due)| *due <= now)?;
        self.reported = Some(link.clone());
        Some(link)
    }

    fn take_connection(&mut self) -> Option<Connection> {
        let now = Instant::now();
        let (connection, _) = self.connection_news.take_if(|(_, due)| *due <= now)?;
        self.connection = Some(connection);
        Some(connection)
    }

    /// A recent complaint among the program's events.
    fn complaint(&self) -> Option<Cause> {
        let (cause, said) = self.complaint?;
        (said.elapsed() <= COMPLAINT_LASTS).then_some(cause)
    }

    /// The process is gone, so the last line is complete. Only a first link is still worth reporting.
    fn end(&mut self) -> Option<Link> {
        self.note_unfinished();
        let first = self.reported.is_none();
        self.news.take().map(|(link, _)| link).filter(|_| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &[u8] = b"https://claude.ai/code/session_1";

    fn new_search(is_resumed: bool) -> Search {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        Search::new(pattern.ok(), is_resumed, None)
    }

    fn shown(pieces: &[(&[u8], bool)]) -> Option<Link> {
        let mut search = new_search(false);
        for (bytes, after_gap) in pieces.iter().copied() {
            search.push(Piece { bytes, after_gap });
        }
        search.take_news()
    }

    fn search(output: &str) -> Search {
        let mut search = new_search(false);
        push(&mut search, output);
        search
    }

    fn push(search: &mut Search, output: &str) {
        let (bytes, after_gap) = (output.as_bytes(), false);
        search.push(Piece { bytes, after_gap });
    }

    fn link(name: &str) -> Link {
        Link::parse(&format!("https://claude.ai/code/session_{name}")).unwrap()
    }

    /// The link to report, and whether at once.
    fn news(search: &Search) -> Option<(&Link, bool)> {
        let (link, due) = search.news.as_ref()?;
        Some((link, *due <= Instant::now()))
    }

    const OWN: &str = "Code anywhere with the Claude mobile app or https://claude.ai/code/session_";
    const OTHER: &str = "session link: https://claude.ai/code/session_";

    #[test]
    fn the_own_line_counts_at_once_and_another_waits_for_it() {
        assert_eq!(
            news(&search(&format!("{OWN}1\n"))),
            Some((&link("1"), true))
        );
        let mut late = search(&format!("{OTHER}1\n"));
        assert_eq!(news(&late), Some((&link("1"), false)));
        push(&mut late, &format!("{OWN}2\n{OTHER}3\n"));
        assert_eq!(news(&late), Some((&link("2"), true)));
    }

    #[test]
    fn only_the_own_line_or_the_same_line_shows_another_link_later() {
        let mut own = search(&format!("{OWN}1\n"));
        assert_eq!(own.take_news(), Some(link("1")));
        push(
            &mut own,
            &format!("{OTHER}2\nhttps://claude.ai/code/session_3 \n"),
        );
        push(
            &mut own,
            &format!("\u{b7}|\u{b7} x\n    {OWN}4\n[12:34:56] {OWN}5\n"),
        );
        assert_eq!(
            news(&own).map(|(link, _)| link),
            Some(&link("3")),
            "a line with only a link, before the block"
        );
        push(&mut own, &format!("{OWN}1\n"));
        assert_eq!(news(&own), None, "the known one is still shown");
        push(&mut own, "https://claude.ai/code/session_6\n");
        assert_eq!(news(&own), None);
        push(&mut own, &format!("{OWN}7\n"));
        assert_eq!(news(&own), Some((&link("7"), false)));

        let mut other = search(&format!("{OTHER}1\n"));
        other.reported = other.news.take().map(|(link, _)| link);
        push(&mut other, "else: https://claude.ai/code/session_2\n");
        assert_eq!(news(&other), None);
        push(&mut other, &format!("{OTHER}3\n"));
        assert_eq!(news(&other), Some((&link("3"), false)));
    }

    #[test]
    fn a_link_that_a_resumed_session_replays_is_not_its_own() {
        const CONNECTING: &str = "\u{b7}|\u{b7} Connecting\n";
        const HEAD: &str = "\u{b7}\u{2714}\u{b7} Fix the build\n";
        let mut resumed = new_search(true);
        // A transcript, a block of the one before, and a line with only a link.
        push(&mut resumed, "https://claude.ai/code/session_0\n");
        push(&mut resumed, &format!("{OWN}1\n{HEAD}\n{OWN}2\n"));
        push(&mut resumed, CONNECTING);
        assert_eq!(news(&resumed), Some((&link("2"), false)));
        assert_eq!(resumed.take_news(), None);
        push(&mut resumed, &format!("\x1b[1A\x1b[J{HEAD}\n{OWN}3\n"));
        let due = resumed.news.clone();
        push(&mut resumed, &format!("\x1b[3A\x1b[J{HEAD}\n{OWN}3\n"));
        assert_eq!(resumed.news, due, "shown again, which takes no longer");
        assert_eq!(news(&resumed), Some((&link("3"), false)));

        // In a fresh session, a link before the first block is replaced by one in it.
        let mut fresh = search(&format!("{OTHER}1\n{CONNECTING}"));
        let waits = fresh.news.as_ref().map(|(_, due)| *due);
        assert!(
            waits > Some(Instant::now() + OTHER_LINE_GRACE),
            "as it connects"
        );
        push(&mut fresh, HEAD);
        assert!(fresh.news.as_ref().map(|(_, due)| *due) < waits);
        push(&mut fresh, &format!("{OWN}2\n"));
        assert_eq!(fresh.take_news(), Some(link("2")));
        // In a running session the own line counts only within the block.
        push(&mut fresh, &format!("{OWN}1\n"));
        assert_eq!(news(&fresh), None);
        push(&mut fresh, &format!("{HEAD}{OWN}3\n"));
        assert_eq!(news(&fresh), Some((&link("3"), false)));
    }

    #[test]
    fn unknown_complaints_are_reported_at_once_and_a_flood_of_them_at_intervals() {
        let mut search = search(&format!("{OWN}1\n"));
        search.take_news();
        let complaints = &mut search.complaints;
        complaints.has_news = true;
        assert!(complaints.due().is_some_and(|due| due <= Instant::now()));
        let flood: String = ["Error: a 1\n", "Error: b\n", "Error: a 2\nmore\nError: c"].concat();
        let look = |complaints: &mut Complaints| {
            let quote = complaints.look(&flood, true);
            quote.map(|quote| quote.expose().to_owned())
        };
        assert_eq!(look(complaints).as_deref(), Some("Error: a 1"));
        let due = complaints.due();
        assert!(
            due > Some(Instant::now() + QUOTE_PAUSE / 2),
            "more in a while"
        );
        assert_eq!(look(complaints).as_deref(), Some("Error: b"));
        assert_eq!(look(complaints), None, "the last line has not ended");
        assert_eq!(complaints.due(), None);
        for letter in 'a'..='z' {
            complaints.note(&format!("Error: {letter}{letter}"));
        }
        while complaints.due().is_some() {
            assert!(look(complaints).is_some());
        }
        assert_eq!(complaints.reported.len(), MOST_COMPLAINTS);
        complaints.note("Error: another");
        assert_eq!(complaints.due(), None, "no more searches");
    }

    #[test]
    fn an_unknown_message_of_the_program_is_reported_and_a_known_one_is_not() {
        let mut search = search("\u{b7}\u{2714}\u{b7} Connected\n");
        for (event, new) in [
            (
                "Error: The moon is full: https://claude.ai/code/session_1",
                true,
            ),
            (
                "Error: Server unreachable for 10 minutes, giving up.",
                false,
            ),
            ("Session failed: Error: The moon is full. cse_1", false),
            ("Warning: The moon is full.", false),
        ] {
            push(&mut search, &format!("[12:34:56] {event}\n"));
            assert_eq!(search.complaints.queued.len(), usize::from(new), "{event}");
            search.complaints.queued.retain(|quote| {
                assert_eq!(quote.expose(), "Error: The moon is full: [link]");
                false
            });
        }
        assert!(search.complaints.obstacle.is_none());
        let gone = "Session failed: program not found: '/opt/claude'. An update may have removed it. Restart Remote Control. cse_1";
        push(&mut search, &format!("[12:34:56] {gone}\n"));
        let obstacle = search.complaints.obstacle.map(|(cause, ..)| cause);
        assert_eq!(obstacle, Some(Cause::ProgramGone));
    }

    #[test]
    fn a_line_without_an_end_counts_once_it_was_quiet() {
        let mut search = search(&format!("{OWN}1"));
        assert!(search.due().is_some());
        search.settle();
        assert_eq!(news(&search), None);
        search.quiet = Some(Instant::now());
        search.settle();
        assert_eq!(news(&search), Some((&link("1"), true)));
    }

    #[test]
    fn what_stands_before_and_after_a_gap_is_not_one_link() {
        let link = Link::parse(std::str::from_utf8(LINK).unwrap()).unwrap();
        assert_eq!(
            shown(&[(LINK, false), (b"234\n", false)]).map(|it| it == link),
            Some(false)
        );
        assert_eq!(shown(&[(LINK, false), (b"234\n", true)]), None);
        assert_eq!(
            shown(&[(LINK, false), (b"2", true), (b"34\n", false)]),
            None
        );
        // The rest of a line may be a hyperlink's target as well as its text.
        assert_eq!(shown(&[(LINK, true), (b"\n", false)]), None);
        assert_eq!(
            shown(&[(b"2\n", true), (LINK, false), (b"\n", false)]),
            Some(link)
        );
    }

    #[tokio::test]
    async fn a_state_of_the_connection_is_reported_once_it_lasted_for_a_moment() {
        const LOST: &str = "\u{b7}|\u{b7} Reconnecting \u{b7} disconnected 5s\n";
        const BACK: &str = "\u{b7}\u{2714}\u{b7} Connected\n";
        let mut search = search(BACK);
        sleep_until_some(search.due()).await;
        assert_eq!(search.take_connection(), Some(Connection::Connected));
        for _ in 0..100 {
            push(&mut search, LOST);
            push(&mut search, BACK);
            assert_eq!(search.take_connection(), None);
        }
        assert_eq!(search.due(), None);
        push(&mut search, LOST);
        sleep_until_some(search.due()).await;
        let reported = search.take_connection();
        assert!(
            matches!(reported, Some(Connection::Reconnecting { .. })),
            "{reported:?}"
        );
        push(
            &mut search,
            "\u{b7}/\u{b7} Reconnecting \u{b7} disconnected 6s\n",
        );
        assert_eq!(search.due(), None, "the same state");
    }
}

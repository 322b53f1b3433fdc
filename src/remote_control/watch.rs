//! Watches one process: what it prints, and when it ends.

use std::{future::pending, mem, path::PathBuf, time::Duration};

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
    project::MAX_OUTPUT,
    session::{Beginning, Event, MOST_COMPLAINTS},
    tasks::Task,
};
use crate::link::Link;

/// The files of a session, in its project's folder.
pub(super) const STDIN: &str = "stdin";
pub(super) const STDOUT: &str = "stdout.log";
pub(super) const STDERR: &str = "stderr.log";

/// How long a link in a line that is not known as the program's own waits for that one.
const OTHER_LINE_GRACE: Duration = Duration::from_secs(2);

/// How long it waits while the program connects; the time for the link is over before that.
const AS_LONG_AS_IT_CONNECTS: Duration = Duration::from_hours(24);

/// How long another link has to be shown, and the known one not, before it takes its place: a program that shows two in turn
/// must not make the bot send one after the other.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(2);

/// How long another state of the connection has to be shown before it is told: each is written down, and a program that shows two
/// in turn must not keep the disk busy.
const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// How long the link of a conversation that was brought back has to stand: what is shown of it again may hold an earlier one.
const RESUMED_GRACE: Duration = Duration::from_secs(1);

/// How long after one look for complaints that are not known the next one is, and how long after one that found something: each is
/// brought to somebody, and a flood of them must not keep anybody busy.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(1);
const QUOTE_PAUSE: Duration = Duration::from_secs(30);

/// How long nothing may follow a line that has no end before it counts as it stands.
const QUIET: Duration = Duration::from_secs(1);

/// How long a complaint may explain the end of a session that ran: the program stays for up to 300 s after some.
const COMPLAINT_LASTS: Duration = Duration::from_mins(6);

/// How long until the next try to hear of a process's end, where the kernel had no descriptor left for that.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long a tree may take to end before its output is kept small: what ends when asked has ended by then.
const OBEDIENT_END: Duration = Duration::from_millis(100);

/// What is known of a process that is to be watched, besides who it is.
pub(super) struct Watched {
    pub(super) beginning: Beginning,
    /// The uptime by which the link has to be there. `None`: nobody waits for it.
    pub(super) deadline: Option<Duration>,
    /// The link; another may come.
    pub(super) link: Option<Link>,
}

/// Watches a process until it has ended; reports its link, that the time for it is over, what it complains of, and how it ended.
pub(super) async fn watch(task: Task, process: ProcessIdentity, known: Watched) {
    let deadline = known.deadline;
    let settings = task.project.as_ref().map(|project| &project.settings);
    let pattern = settings.map(|settings| settings.link_pattern.clone());
    let max_output = settings.map_or(MAX_OUTPUT, |settings| settings.max_output);
    // All of the output where the link is yet to be found, else what is needed to tell what went wrong.
    let start = deadline.map_or(ReadFrom::Latest, |_| ReadFrom::First);
    let mut stdout = Follower::new(task.folder.join(STDOUT), start, max_output);
    let mut stderr = Follower::new(task.folder.join(STDERR), ReadFrom::Latest, max_output);
    let mut search = Search::new(pattern, known);
    let has_answer = task.has_answer();
    let cause = |search: &Search, stdout: &Follower, stderr: &Follower| {
        let running = search.told.is_some();
        let complained = visible_text(stderr.tail());
        // With `--verbose`, all of the conversations are there too.
        let complained = if running {
            claude::errors(&complained)
        } else {
            complained
        };
        Cause::complaint(&complained)
            .or_else(|| search.complaint())
            .or_else(|| Cause::question(&visible_text(stdout.tail()), has_answer))
            .or_else(|| Cause::unknown(&complained))
    };
    let exited = exit_of(&process);
    // Made once: a timer that is made again in each turn never fires while there is always output.
    let timed_out = uptime_reached(deadline);
    tokio::pin!(exited, timed_out);
    let mut waits_for_link = deadline.is_some();
    let mut comes_to_nothing = false;
    loop {
        if !waits_for_link {
            stderr.let_tail_last(COMPLAINT_LASTS);
        }
        // Whatever is ready has the same chance in each turn, and both followers give way: no flood keeps the rest waiting.
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
                // What stands there by now counts: nobody looked while there was no bot.
                stdout.finish(|piece| search.push(piece)).await;
                search.note_unfinished();
                match &mut search.news {
                    Some((_, due)) => *due = Instant::now(),
                    None => comes_to_nothing = true,
                }
            }
            () = stdout.next() => search.push(stdout.piece()),
            () = stderr.next() => {
                search.complaints.has_news = true;
                // It would stay for longer than anybody waits.
                comes_to_nothing = waits_for_link && Cause::is_lingering(&visible_text(stderr.tail()));
            }
            () = sleep_until_some(search.due()) => search.settle(),
        }
        search.report_complaints(&task, &stderr).await;
        if mem::take(&mut comes_to_nothing) {
            waits_for_link = false;
            let cause = cause(&search, &stdout, &stderr);
            task.report(Event::NoLink(cause)).await;
            search
                .quote_last(&task, cause, &visible_text(stderr.tail()))
                .await;
        }
        if let Some(link) = search.take_news() {
            waits_for_link = false;
            task.report(Event::LinkShown(link)).await;
        }
        if let Some(connection) = search.take_connection() {
            task.report(Event::Connection(connection)).await;
        }
    }
}

/// Keeps an output file small, for as long as this is awaited.
pub(super) async fn keep_small(file: PathBuf, limit: u64) {
    sleep(OBEDIENT_END).await;
    let mut follower = Follower::new(file, ReadFrom::Latest, limit);
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

/// What the program complains of at once, without an end of it yet.
struct Complaints {
    /// What a link looks like that may stand in one. `None`: nothing can be quoted.
    pattern: Option<LinkPattern>,
    /// Those of stdout that are yet to be told.
    heard: Vec<Quote>,
    /// Those that are told. Of more, nobody wants to read.
    told: Vec<Quote>,
    /// There may be one.
    has_news: bool,
    /// When it is looked for at the earliest.
    next_look: Instant,
    conversations: Conversations,
    /// What keeps conversations from starting, and whether it is told.
    obstacle: Option<(Cause, Quote, bool)>,
}

impl Complaints {
    /// Takes note of an event that may be one. What is known of those that end the program is told with its end.
    fn note(&mut self, event: &str) {
        let Some(pattern) = &self.pattern else {
            return;
        };
        if let Some(cause) = self.conversations.obstacle(event) {
            let quote = Quote::new(event, pattern);
            self.obstacle.get_or_insert((cause, quote, false));
        } else if Cause::event(event) == Some(Cause::Unknown) && self.heard.len() < MOST_COMPLAINTS
        {
            self.heard.push(Quote::new(event, pattern));
            self.has_news = true;
        }
    }

    /// When there may be something to tell.
    fn due(&self) -> Option<Instant> {
        let is_open = self.has_news && self.told.len() < MOST_COMPLAINTS;
        is_open.then_some(self.next_look)
    }

    /// Looks for one that is not told.
    fn look(&mut self, stderr: &str, has_link: bool) -> Option<Quote> {
        let pattern = self.pattern.as_ref()?;
        let lines = claude::unknown_lines(stderr, has_link).into_iter();
        let quotes = lines.map(|line| Quote::new(line, pattern));
        let heard = mem::take(&mut self.heard);
        let mut news: Vec<_> = heard.into_iter().chain(quotes).collect();
        news.retain(|quote| !self.told.iter().any(|told| told.is_like(quote)));
        let mut news = news.into_iter();
        let quote = news.next();
        self.told.extend(quote.clone());
        // Those of stderr will be found there again.
        self.heard.extend(news.take(MOST_COMPLAINTS));
        self.has_news = !self.heard.is_empty();
        let pause = quote.as_ref().map_or(COMPLAINT_PAUSE, |_| QUOTE_PAUSE);
        self.next_look = Instant::now() + pause;
        quote
    }
}

/// The search for the link, for another one later, and for complaints between the two.
///
/// The program's own line counts at once, and its link takes the place of another. A link in another line is good enough where
/// there is no better one within a while; the same line may show another link later.
struct Search {
    reader: Option<OutputReader>,
    is_resumed: bool,
    /// What was found last, and told.
    told: Option<Link>,
    /// What stands before it, where it does not stand in the program's own line.
    told_after: Option<String>,
    /// What is to be told, and when at the earliest.
    news: Option<(Link, Instant)>,
    /// When the line at the end counts as it stands.
    quiet: Option<Instant>,
    complaint: Option<(Cause, Instant)>,
    complaints: Complaints,
    /// What it said of its connection and is told, and what is to be told, and when at the earliest.
    connection: Option<Connection>,
    connection_news: Option<(Connection, Instant)>,
}

impl Search {
    fn new(pattern: Option<LinkPattern>, known: Watched) -> Self {
        Self {
            complaints: Complaints {
                pattern: pattern.clone(),
                heard: Vec::new(),
                told: Vec::new(),
                has_news: false,
                next_look: Instant::now(),
                conversations: Conversations::default(),
                obstacle: None,
            },
            reader: pattern.map(OutputReader::new),
            is_resumed: known.beginning == Beginning::Resumed,
            told: known.link,
            told_after: None,
            news: None,
            quiet: None,
            complaint: None,
            connection: None,
            connection_news: None,
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

    /// Takes the line at the end for whole, if it was quiet for long enough.
    fn settle(&mut self) {
        if self
            .quiet
            .take_if(|quiet| *quiet <= Instant::now())
            .is_some()
        {
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
                self.let_link_wait(connection, now);
                let told = self.connection.as_ref().map(mem::discriminant);
                let is_news = told != Some(mem::discriminant(&connection));
                let earlier = self.connection_news.map(|(_, due)| due);
                let due = earlier.unwrap_or(now + CONNECTION_GRACE);
                self.connection_news = is_news.then_some((connection, due));
            }
        }
    }

    /// What stands before the first block may be the link of an earlier session: this one's own comes once it is connected.
    fn let_link_wait(&mut self, connection: Connection, now: Instant) {
        let Some((_, due)) = self.news.as_mut().filter(|_| self.told.is_none()) else {
            return;
        };
        if connection == Connection::Connecting {
            *due = now + AS_LONG_AS_IT_CONNECTS;
        } else if *due > now + OTHER_LINE_GRACE {
            *due = now + OTHER_LINE_GRACE;
        }
    }

    /// `words`: what stands before it, where that is not the program's own line.
    fn note_link(&mut self, link: Link, words: Option<String>, now: Instant) {
        let is_own = words.is_none();
        let Some(told) = &self.told else {
            let is_own_waiting = self.news.is_some() && self.told_after.is_none();
            let is_known = self.news.as_ref().is_some_and(|(news, _)| *news == link);
            if is_own && self.is_resumed {
                self.told_after = None;
                if !(is_known && is_own_waiting) {
                    self.news = Some((link, now + RESUMED_GRACE));
                }
            } else if is_own || !is_own_waiting {
                let due = if is_own { now } else { now + OTHER_LINE_GRACE };
                let earlier = self.news.as_ref().map_or(due, |(_, due)| *due);
                self.told_after = words;
                self.news = Some((link, due.min(earlier)));
            }
            return;
        };
        if *told == link {
            // It is shown again, so whatever came in between was no more than that.
            self.told_after = words;
            self.news = None;
        } else if is_own || words == self.told_after {
            let waits = self.news.as_ref().is_some_and(|(news, _)| *news == link);
            if !waits {
                self.news = Some((link, now + REPLACEMENT_GRACE));
            }
        }
    }

    /// When there may be something to tell.
    fn due(&self) -> Option<Instant> {
        let news = self.news.as_ref().map(|(_, due)| *due);
        let connection = self.connection_news.map(|(_, due)| due);
        let others = [self.quiet, connection, self.complaints.due()];
        news.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Tells what keeps conversations from starting, and what is not known, in its turn.
    async fn report_complaints(&mut self, task: &Task, stderr: &Follower) {
        if let Some((cause, quote, is_told @ false)) = &mut self.complaints.obstacle {
            *is_told = true;
            task.report(Event::Complained(*cause, quote.clone())).await;
        }
        if self
            .complaints
            .due()
            .is_some_and(|due| due <= Instant::now())
        {
            let has_link = self.told.is_some();
            let quote = self.complaints.look(&visible_text(stderr.tail()), has_link);
            if let Some(quote) = quote {
                task.report(Event::Complained(Cause::Unknown, quote)).await;
            }
        }
    }

    /// It comes to nothing, and nobody knows why: what it said first may tell.
    async fn quote_last(&mut self, task: &Task, cause: Option<Cause>, stderr: &str) {
        let is_first = cause == Some(Cause::Unknown) && self.complaints.told.is_empty();
        let heard = self.complaints.heard.first().cloned();
        let line = claude::first_line(stderr);
        let pattern = self.complaints.pattern.as_ref();
        let quote = heard.or_else(|| Some(Quote::new(line?, pattern?)));
        if let Some(quote) = quote.filter(|_| is_first) {
            self.complaints.told.push(quote.clone());
            task.report(Event::Complained(Cause::Unknown, quote)).await;
        }
    }

    fn take_news(&mut self) -> Option<Link> {
        let now = Instant::now();
        let (link, _) = self.news.take_if(|(_, due)| *due <= now)?;
        self.told = Some(link.clone());
        Some(link)
    }

    fn take_connection(&mut self) -> Option<Connection> {
        let now = Instant::now();
        let (connection, _) = self.connection_news.take_if(|(_, due)| *due <= now)?;
        self.connection = Some(connection);
        Some(connection)
    }

    /// What the program said of itself of late.
    fn complaint(&self) -> Option<Cause> {
        let (cause, said) = self.complaint?;
        (said.elapsed() <= COMPLAINT_LASTS).then_some(cause)
    }

    /// The process is gone: what stands there is all there will be. Only a first link is still worth telling.
    fn end(&mut self) -> Option<Link> {
        self.note_unfinished();
        let first = self.told.is_none();
        self.news.take().map(|(link, _)| link).filter(|_| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &[u8] = b"https://claude.ai/code/session_1";

    fn known(beginning: Beginning) -> Watched {
        Watched {
            beginning,
            deadline: None,
            link: None,
        }
    }

    fn shown(pieces: &[(&[u8], bool)]) -> Option<Link> {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let mut search = Search::new(pattern.ok(), known(Beginning::Fresh));
        for (bytes, after_gap) in pieces.iter().copied() {
            search.push(Piece { bytes, after_gap });
        }
        search.take_news()
    }

    fn search(output: &str) -> Search {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let mut search = Search::new(pattern.ok(), known(Beginning::Fresh));
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

    /// What is to be told, and whether at once.
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
            "alone, and before the block"
        );
        push(&mut own, &format!("{OWN}1\n"));
        assert_eq!(news(&own), None, "the known one is still shown");
        push(&mut own, "https://claude.ai/code/session_6\n");
        assert_eq!(news(&own), None);
        push(&mut own, &format!("{OWN}7\n"));
        assert_eq!(news(&own), Some((&link("7"), false)));

        let mut other = search(&format!("{OTHER}1\n"));
        other.told = other.news.take().map(|(link, _)| link);
        push(&mut other, "else: https://claude.ai/code/session_2\n");
        assert_eq!(news(&other), None);
        push(&mut other, &format!("{OTHER}3\n"));
        assert_eq!(news(&other), Some((&link("3"), false)));
    }

    #[test]
    fn what_a_resumed_session_shows_again_of_an_earlier_one_is_not_its_link() {
        const CONNECTING: &str = "\u{b7}|\u{b7} Connecting\n";
        const HEAD: &str = "\u{b7}\u{2714}\u{b7} Fix the build\n";
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let mut resumed = Search::new(pattern.ok(), known(Beginning::Resumed));
        // A transcript, a block of the one before, and a link alone in a line.
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

        // Of a fresh one, what stands before the first block gives way to it.
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
        // In mid-life the own line counts within the block alone.
        push(&mut fresh, &format!("{OWN}1\n"));
        assert_eq!(news(&fresh), None);
        push(&mut fresh, &format!("{HEAD}{OWN}3\n"));
        assert_eq!(news(&fresh), Some((&link("3"), false)));
    }

    #[test]
    fn what_is_not_known_is_told_at_once_and_a_flood_of_it_in_turn() {
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
        assert_eq!(complaints.told.len(), MOST_COMPLAINTS);
        complaints.note("Error: another");
        assert_eq!(complaints.due(), None, "nobody looks any more");
    }

    #[test]
    fn an_event_in_which_the_program_speaks_of_itself_is_told_and_what_is_known_is_not() {
        let mut search = search("\u{b7}\u{2714}\u{b7} Connected\n");
        for (event, told) in [
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
            assert_eq!(search.complaints.heard.len(), usize::from(told), "{event}");
            search.complaints.heard.retain(|quote| {
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
        let told = search.take_connection();
        assert!(
            matches!(told, Some(Connection::Reconnecting { .. })),
            "{told:?}"
        );
        push(
            &mut search,
            "\u{b7}/\u{b7} Reconnecting \u{b7} disconnected 6s\n",
        );
        assert_eq!(search.due(), None, "that is no news");
    }
}

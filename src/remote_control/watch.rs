//! Watches one process: what it prints, and when it ends.

use std::{future::pending, mem, path::PathBuf, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tracing::error;

use super::{
    claude::{self, Cause, Connection, LinkPattern, OutputReader, Said, visible_text},
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

/// How long a link in a line that is not known as the program's own waits for that one.
const OTHER_LINE_GRACE: Duration = Duration::from_secs(2);

/// How long another link has to be shown, and the known one not, before it takes its place: a program that shows two in turn
/// must not make the bot send one after the other.
const REPLACEMENT_GRACE: Duration = Duration::from_secs(2);

/// How long another state of the connection has to be shown before it is told: each is written down, and a program that shows two
/// in turn must not keep the disk busy.
const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// How long nothing may follow a line that has no end before it counts as it stands.
const QUIET: Duration = Duration::from_secs(1);

/// How long a complaint may explain the end of a session that ran: the program stays for up to 300 s after some.
const COMPLAINT_LASTS: Duration = Duration::from_mins(6);

/// How long until the next try to hear of a process's end, where the kernel had no descriptor left for that.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long a tree may take to end before its output is kept small: what ends when asked has ended by then.
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
                // Closing a watch takes the kernel some 20 ms, in which this thread could do nothing else.
                drop(spawn_blocking(move || drop((stdout, stderr))));
                task.report(Event::Exited(exit, cause)).await;
                return;
            }
            () = &mut timed_out, if waits_for_link => {
                waits_for_link = false;
                // What stands there by now counts: nobody looked while there was no bot.
                stdout.finish(|piece| search.push(piece)).await;
                search.note_unfinished();
                if search.news.is_none() {
                    task.report(Event::NoLink(cause(&search, &stdout, &stderr))).await;
                }
            }
            () = stdout.next() => search.push(stdout.piece()),
            () = stderr.next() => {
                // It would stay for longer than anybody waits.
                if waits_for_link && Cause::is_lingering(&visible_text(stderr.tail())) {
                    waits_for_link = false;
                    task.report(Event::NoLink(cause(&search, &stdout, &stderr))).await;
                }
            }
            () = sleep_until_some(search.due()) => search.settle(),
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

/// The search for the link, for another one later, and for complaints between the two.
///
/// The program's own line counts at once, and its link takes the place of another. A link in another line is good enough where
/// there is no better one within a while; the same line may show another link later.
struct Search {
    reader: Option<OutputReader>,
    /// What was found last, and told.
    told: Option<Link>,
    /// What stands before it, where it does not stand in the program's own line.
    told_after: Option<String>,
    /// What is to be told, and when at the earliest.
    news: Option<(Link, Instant)>,
    /// When the line at the end counts as it stands.
    quiet: Option<Instant>,
    complaint: Option<(Cause, Instant)>,
    /// What it said of its connection and is told, and what is to be told, and when at the earliest.
    connection: Option<Connection>,
    connection_news: Option<(Connection, Instant)>,
}

impl Search {
    fn new(pattern: Option<LinkPattern>, told: Option<Link>) -> Self {
        Self {
            reader: pattern.map(OutputReader::new),
            told,
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
            }
            Said::Head(head) => {
                let Some(connection) = Connection::of(&head) else {
                    return;
                };
                let told = self.connection.as_ref().map(mem::discriminant);
                let is_news = told != Some(mem::discriminant(&connection));
                let earlier = self.connection_news.map(|(_, due)| due);
                let due = earlier.unwrap_or(now + CONNECTION_GRACE);
                self.connection_news = is_news.then_some((connection, due));
            }
        }
    }

    /// `words`: what stands before it, where that is not the program's own line.
    fn note_link(&mut self, link: Link, words: Option<String>, now: Instant) {
        let is_own = words.is_none();
        let Some(told) = &self.told else {
            let is_own_waiting = self.news.is_some() && self.told_after.is_none();
            if is_own || !is_own_waiting {
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
        news.into_iter().chain(self.quiet).chain(connection).min()
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

    fn shown(pieces: &[(&[u8], bool)]) -> Option<Link> {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let mut search = Search::new(pattern.ok(), None);
        for (bytes, after_gap) in pieces.iter().copied() {
            search.push(Piece { bytes, after_gap });
        }
        search.take_news()
    }

    fn search(output: &str) -> Search {
        let pattern = LinkPattern::new(r"https://claude\.ai/code[/?][A-Za-z0-9_./?=&%~-]+");
        let mut search = Search::new(pattern.ok(), None);
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

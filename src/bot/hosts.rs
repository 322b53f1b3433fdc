//! Several hosts, one admin room: what this bot announces of its host, what it makes of the announcements of others, and which of
//! several bots answers what any of them could.
//!
//! A bot that ends by force announces nothing, so nobody waits for that. Nor do the bots show one another all the time that they
//! run: that would cost the homeserver most while nothing happens. Whether a bot runs shows when it matters, by signals about the
//! command at hand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    future::pending,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use matrix_sdk::ruma::{OwnedUserId, UserId, serde::Base64};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{Bot, answer, connection::MatrixHandle, projects::BelowRoots, queue::Limited};
use crate::{
    command::{
        digest::Digest,
        hosts::{Host, Unnamed},
        reply::{self, OtherHost, Reply},
    },
    config::{Config, HostName},
    matrix::{
        AnnouncedNames, AnnouncedProject, AnnouncedSession, Announcement, Chain, HostSignal,
        Matrix, ReplyTo, Signal, SignalKind,
    },
    remote_control::Status,
};

/// How long each bot has to claim what is its turn before it is the next one's: a signal takes a tenth of that on an idle homeserver.
/// Where it takes longer, it is still one bot that answers, only not the first.
pub(super) const TURN: Duration = Duration::from_millis(400);

/// How long the bot has whose host is meant, as none can take its place.
pub(super) const TURN_OF_MEANT: Duration = Duration::from_secs(5);

/// How long a bot waits for its own claim to come back. A homeserver that does not bring it must not keep everybody silent.
const LONGEST_CLAIM: Duration = Duration::from_secs(10);

/// How long an overview waits for the bots to show that they run: with the way to the room and back it is two seconds.
const LONGEST_OVERVIEW: Duration = Duration::from_millis(1_600);

/// How long after the last one that did so: on an idle machine, all do in a fraction of that.
const LAST_PONG: Duration = Duration::from_millis(600);

/// How long an overview is corrected by those that show it too late.
const LATEST_PONG: Duration = Duration::from_secs(10);

/// How much longer a bot waits that is not announced: others do not know it and send it no claims, but their answer is in the room by
/// then.
const TURN_OF_UNANNOUNCED: Duration = Duration::from_secs(2);

/// How many signals are remembered: those of some commands that all of fifty hosts answered.
const SIGNALS_REMEMBERED: usize = 512;

/// How much of an announcement is for the names of projects, in bytes: with that, the name of the host and the largest digest it
/// stays under 4 KiB.
const ROOM_FOR_NAMES: usize = 1_600;

/// What this host is called.
pub(super) fn own_name(config: &Config) -> HostName {
    config.host.clone().unwrap_or_else(HostName::of_system)
}

/// What there is to announce.
pub(super) fn announcement(
    host: &HostName,
    statuses: &[Status],
    below: &BelowRoots,
) -> Announcement {
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let mut projects = BTreeMap::new();
    let (mut room, mut left_out) = (ROOM_FOR_NAMES, BTreeSet::new());
    let mut more_sessions = 0;
    // Sessions first: people ask for those.
    let (running, idle): (Vec<_>, Vec<_>) =
        statuses.iter().partition(|status| status.session.is_some());
    for status in running.into_iter().chain(idle) {
        let session = status.session.as_ref().map(|session| AnnouncedSession {
            phase: reply::announced_phase(session),
            since: seconds(session.since),
        });
        let name = status.project.to_string();
        let length = name.len() + session.as_ref().map_or(20, |it| it.phase.len() + 52);
        if let Some(left) = room.checked_sub(length) {
            room = left;
            projects.insert(name, AnnouncedProject { session });
        } else {
            more_sessions += usize::from(session.is_some());
            left_out.insert(&status.project);
        }
    }
    let unnamed = if left_out.is_empty() {
        below.unnamed(&projects)
    } else {
        left_out.extend(&below.names);
        Unnamed {
            count: left_out.len(),
            digest: Digest::of(&left_out),
        }
    };
    Announcement {
        host: host.to_string(),
        projects,
        more_sessions,
        unnamed: (unnamed.count > 0).then(|| AnnouncedNames {
            count: unnamed.count,
            digest: Base64::new(unnamed.digest.as_bytes().to_vec()),
        }),
    }
}

/// Keeps the announcement in the room up to date; never ends. What the homeserver did not take before it changed is not
/// announced any more.
pub(super) async fn keep_announced(
    matrix: MatrixHandle,
    mut latest: watch::Receiver<Option<Announcement>>,
    signals: watch::Sender<Signals>,
) -> Infallible {
    loop {
        let announcement = latest.borrow_and_update().clone();
        let announcing = async {
            if let Some(announcement) = announcement
                && announce(&matrix, &announcement).await
            {
                signals.send_modify(|signals| signals.is_announced = true);
            }
            pending::<Infallible>().await
        };
        tokio::select! {
            never = announcing => match never {},
            Ok(()) = latest.changed() => {}
        }
    }
}

/// False: the homeserver rejected it.
async fn announce(matrix: &MatrixHandle, announcement: &Announcement) -> bool {
    let announced = matrix
        .until_taken(|matrix| async move { matrix.announce(announcement).await })
        .await;
    match &announced {
        Ok(()) => debug!("host announced"),
        Err(fault) => warn!(
            error = %Chain(fault),
            "this host is not announced: give the bot the power to send state events of the type rcbot.host in the admin room"
        ),
    }
    announced.is_ok()
}

/// Which hosts share the room, as far as they are announced. Where it cannot be told, this one is alone.
pub(super) async fn others(matrix: &Matrix) -> Vec<(OwnedUserId, Announcement)> {
    matrix.announcements().await.unwrap_or_else(|fault| {
        warn!(error = %Chain(&fault), "other hosts are not known");
        Vec::new()
    })
}

/// What the bots of all hosts signalled lately, this one included: in the order of the homeserver, which is the same for all.
#[derive(Debug, Default)]
pub(super) struct Signals {
    heard: VecDeque<HostSignal>,
    /// The bots that did not claim what was their turn, and were not heard since.
    silent: BTreeSet<OwnedUserId>,
    /// Whether the others know of this bot, and send it their claims.
    is_announced: bool,
}

impl Signals {
    fn note(&mut self, signal: HostSignal) {
        self.silent.remove(&signal.bot);
        self.heard.push_back(signal);
        if self.heard.len() > SIGNALS_REMEMBERED {
            self.heard.pop_front();
        }
    }

    fn about(&self, what: &str) -> impl Iterator<Item = &HostSignal> {
        let heard = self.heard.iter();
        heard.filter(move |signal| signal.content.about == what)
    }

    fn claimed_by(&self, what: &str) -> Option<&UserId> {
        let mut claims = self.about(what);
        let first = claims.find(|signal| signal.content.kind != SignalKind::Pong)?;
        Some(&first.bot)
    }

    /// How long this bot waits, with these before it.
    fn patience(&self, before: &[OwnedUserId], first_turn: Duration) -> Duration {
        let turns = self.turns(before, first_turn);
        if self.is_announced {
            turns
        } else {
            turns + TURN_OF_UNANNOUNCED
        }
    }

    /// How long these have. Several that were silent the last time are waited for as one.
    fn turns(&self, before: &[OwnedUserId], first_turn: Duration) -> Duration {
        let Some((_, others)) = before.split_first() else {
            return Duration::ZERO;
        };
        let are_silent = before
            .iter()
            .filter(|bot| self.silent.contains(*bot))
            .count();
        let turns = others.len() - are_silent.saturating_sub(1);
        first_turn + TURN * u32::try_from(turns).unwrap_or(u32::MAX)
    }
}

/// A question that several bots could answer.
pub(super) struct Contest<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) signals: &'a watch::Sender<Signals>,
    /// What it is about: the same for all of them.
    pub(super) about: &'a str,
    /// The bots, each of which answers where those before it do not run.
    pub(super) order: &'a [OwnedUserId],
}

impl Contest<'_> {
    /// Whether this bot answers. Of all that run exactly one does, however slow they or the homeserver are: each that has waited for
    /// those before it claims the answer, and the first claim that the homeserver brings is the same one for all of them.
    pub(super) async fn is_won(&self, kind: SignalKind, first_turn: Duration) -> bool {
        let own = self.matrix.own_user();
        let mut before = self.order;
        if let Some(rank) = self.order.iter().position(|bot| bot == own) {
            before = self.order.get(..rank).unwrap_or_default();
        }
        if self.order.len() <= 1 {
            return true;
        }
        let mut heard = self.signals.subscribe();
        let patience = heard.borrow().patience(before, first_turn);
        let is_claimed = |signals: &Signals| signals.claimed_by(self.about).is_some();
        if timeout(patience, heard.wait_for(is_claimed)).await.is_ok() {
            return heard.borrow().claimed_by(self.about) == Some(own);
        }
        let silent = before.to_vec();
        self.signals
            .send_modify(|signals| signals.silent.extend(silent));
        let claiming = async {
            self.claim(kind).await;
            pending::<Infallible>().await
        };
        let coming_back = async { drop(timeout(LONGEST_CLAIM, heard.wait_for(is_claimed)).await) };
        tokio::select! {
            never = claiming => match never {},
            () = coming_back => {}
        }
        let signals = self.signals.borrow();
        signals.claimed_by(self.about).is_none_or(|bot| bot == own)
    }

    /// Lets the others know that this bot answers, which need not wait until they do.
    pub(super) fn announce_answer(&self) {
        if self.order.len() > 1 {
            let (matrix, order, about) = (
                self.matrix.clone(),
                self.order.to_vec(),
                self.about.to_owned(),
            );
            tokio::spawn(async move { signal(&matrix, order, &about, SignalKind::Claim).await });
        }
    }

    async fn claim(&self, kind: SignalKind) {
        signal(self.matrix, self.order.to_vec(), self.about, kind).await;
    }
}

/// Notes which hosts do not show that they run. They were asked by the claim to answer a command, which was heard at this time.
pub(super) async fn note_silent(
    signals: &watch::Sender<Signals>,
    about: &str,
    hosts: &mut [OtherHost],
    begun: Instant,
) {
    let deadline = (begun + LONGEST_OVERVIEW).max(Instant::now() + LAST_PONG);
    let mut heard = signals.subscribe();
    loop {
        let running: BTreeSet<_> = {
            let signals = heard.borrow_and_update();
            signals.about(about).map(|it| it.bot.clone()).collect()
        };
        for host in &mut *hosts {
            host.is_silent = !running.contains(&host.bot);
        }
        let next = deadline.min(Instant::now() + LAST_PONG);
        let all_run = hosts.iter().all(|host| !host.is_silent);
        if all_run || !matches!(timeout_at(next, heard.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Waits for those that show too late for an overview that they run, and notes them. False: none did.
pub(super) async fn have_come_late(
    signals: &watch::Sender<Signals>,
    about: &str,
    hosts: &mut [OtherHost],
) -> bool {
    let mut heard = signals.subscribe();
    let late = heard.wait_for(|signals| {
        let mut silent = hosts.iter().filter(|host| host.is_silent);
        silent.any(|host| signals.about(about).any(|it| it.bot == host.bot))
    });
    if !hosts.iter().any(|host| host.is_silent) || timeout(LATEST_PONG, late).await.is_err() {
        return false;
    }
    note_silent(signals, about, hosts, Instant::now()).await;
    true
}

async fn signal(matrix: &Matrix, to: Vec<OwnedUserId>, about: &str, kind: SignalKind) {
    let about = about.to_owned();
    if let Err(fault) = matrix.signal_hosts(to, &Signal { about, kind }).await {
        warn!(error = %Chain(&fault), "the bots of other hosts are not told that this one runs");
    }
}

impl Bot {
    /// Answers what concerns the bots of all hosts alike: one of them does.
    pub(super) fn say_for_all(&mut self, text: &Reply, answered: ReplyTo) {
        if self.config.host.is_none() {
            return self.say(text, Some(answered));
        }
        let (mut handle, signals, text) = (self.matrix.clone(), self.signals.clone(), text.clone());
        self.spawn_quiet(async move {
            let matrix = handle.connected().await;
            let others = others(&matrix).await.into_iter().map(|(bot, _)| bot);
            let mut order: Vec<_> = others.chain([matrix.own_user().to_owned()]).collect();
            order.sort_unstable();
            let contest = Contest {
                matrix: &matrix,
                signals: &signals,
                about: answered.event_id().as_str(),
                order: &order,
            };
            if contest.is_won(SignalKind::Claim, TURN).await {
                answer::say(&handle, &text, Some(&answered)).await;
            }
        });
    }

    /// Notes what another bot says, and shows it that this one runs where it asks.
    pub(super) fn hear_host(&mut self, signal: HostSignal) {
        let HostSignal { bot, content } = &signal;
        let is_own = *bot == self.config.bot_user;
        if content.kind == SignalKind::Ping && !is_own && self.limits.allow(Limited::Ping, bot) {
            let (mut matrix, bot, about) =
                (self.matrix.clone(), bot.clone(), content.about.clone());
            self.spawn_quiet(async move {
                let matrix = matrix.connected().await;
                self::signal(&matrix, vec![bot], &about, SignalKind::Pong).await;
            });
        }
        self.signals.send_modify(|signals| signals.note(signal));
    }
}

/// This host, as it is announced.
pub(super) fn own(config: &Config, bot: &UserId, statuses: &[Status]) -> Host {
    let projects = statuses
        .iter()
        .map(|status| (status.project.clone(), status.session.is_some()));
    Host {
        name: own_name(config),
        bot: bot.to_owned(),
        projects: projects.collect(),
        unnamed: Unnamed::default(),
    }
}

/// Another one. Names that could not be addressed are nobody's.
pub(super) fn host((bot, announcement): &(OwnedUserId, Announcement)) -> Option<Host> {
    let projects: BTreeMap<_, _> = announcement
        .projects
        .iter()
        .filter_map(|(name, project)| Some((name.parse().ok()?, project.session.is_some())))
        .collect();
    Some(Host {
        name: announcement.host.parse().ok()?,
        bot: bot.clone(),
        projects,
        unnamed: announcement
            .unnamed
            .as_ref()
            .map_or_else(Unnamed::default, |unnamed| Unnamed {
                count: unnamed.count,
                digest: Digest::from_bytes(unnamed.digest.as_bytes()),
            }),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        command::digest::Digest,
        remote_control::{Beginning, Options, Phase, ProjectName, SessionId, SessionStatus, Start},
    };

    fn status(project: &str, has_session: bool) -> Status {
        let session = || SessionStatus {
            id: SessionId::random(),
            phase: Phase::Resting,
            start: Start {
                beginning: Beginning::Fresh,
                options: Options::default(),
            },
            since: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            requester: None,
            time_left: None,
            connection: None,
            is_cut_off: true,
            next_try: None,
        };
        Status {
            project: project.parse().unwrap(),
            session: has_session.then(session),
        }
    }

    #[test]
    fn an_announcement_stays_below_4_kib_however_much_there_is() {
        let host = "x".repeat(253).parse().unwrap();
        let name = |number: usize| format!("{number:064}");
        let names: BTreeSet<ProjectName> = (0..5_000).map(|it| name(it).parse().unwrap()).collect();
        let digest = Digest::of(&names.iter().collect());
        let roots = BelowRoots { names, digest };
        for (sessions, idle) in [(0, 0), (0, 200), (10, 200), (40, 200), (200, 0)] {
            let all = (0..sessions + idle).map(|it| status(&name(it + 9_000), it < sessions));
            let all: Vec<_> = all.collect();
            for below in [&BelowRoots::default(), &roots] {
                let announced = announcement(&host, &all, below);
                let size = serde_json::to_string(&announced).unwrap().len();
                assert!(size < 4_096, "{size} bytes, {sessions} sessions");
                let shown = announced.projects.values();
                let shown = shown.filter(|project| project.session.is_some()).count();
                assert_eq!(shown + announced.more_sessions, sessions);
                let unnamed = announced.unnamed.map_or(0, |it| it.count);
                assert_eq!(
                    announced.projects.len() + unnamed,
                    all.len() + below.names.len()
                );
            }
        }
    }

    fn bot(name: &str) -> OwnedUserId {
        format!("@{name}:x.y").try_into().unwrap()
    }

    fn heard(signals: &mut Signals, name: &str, about: &str, kind: SignalKind) {
        let about = about.to_owned();
        let content = Signal { about, kind };
        let bot = bot(name);
        signals.note(HostSignal { bot, content });
    }

    #[test]
    fn the_first_claim_counts_and_a_sign_of_life_is_none() {
        let mut signals = Signals::default();
        heard(&mut signals, "a", "$1", SignalKind::Pong);
        assert_eq!(signals.claimed_by("$1"), None);
        heard(&mut signals, "b", "$1", SignalKind::Claim);
        heard(&mut signals, "a", "$1", SignalKind::Ping);
        heard(&mut signals, "c", "$2", SignalKind::Claim);
        assert_eq!(signals.claimed_by("$1"), Some(&*bot("b")));
        assert_eq!(signals.claimed_by("$2"), Some(&*bot("c")));
    }

    #[test]
    fn a_bot_waits_for_those_before_it_and_for_all_that_were_silent_as_for_one() {
        let mut signals = Signals::default();
        let before: Vec<_> = ["a", "b", "c", "d"].map(bot).into();
        let waits = |signals: &Signals, count: usize| signals.turns(&before[..count], TURN);
        assert_eq!(
            [0, 1, 2, 4].map(|it| waits(&signals, it)),
            [0, 1, 2, 4].map(|it| TURN * it)
        );
        signals.silent.extend(["a", "b", "c"].map(bot));
        assert_eq!(
            [1, 2, 3, 4].map(|it| waits(&signals, it)),
            [1, 1, 1, 2].map(|it| TURN * it)
        );
        heard(&mut signals, "b", "$1", SignalKind::Pong);
        assert_eq!(
            [1, 2, 3, 4].map(|it| waits(&signals, it)),
            [1, 2, 2, 3].map(|it| TURN * it)
        );
    }

    #[test]
    fn a_bot_that_is_not_announced_waits_for_the_answers_of_others_also_where_it_is_the_first() {
        let mut signals = Signals::default();
        let waits = |signals: &Signals, before: &[_]| signals.patience(before, TURN);
        assert_eq!(waits(&signals, &[]), TURN_OF_UNANNOUNCED);
        assert_eq!(waits(&signals, &[bot("a")]), TURN_OF_UNANNOUNCED + TURN);
        signals.is_announced = true;
        assert_eq!(waits(&signals, &[]), Duration::ZERO);
        assert_eq!(waits(&signals, &[bot("a")]), TURN);
    }

    fn silent(name: &str, is_silent: bool) -> OtherHost {
        OtherHost {
            bot: bot(name),
            announcement: Announcement {
                host: name.to_owned(),
                projects: BTreeMap::new(),
                more_sessions: 0,
                unnamed: None,
            },
            is_silent,
        }
    }

    #[tokio::test]
    async fn an_overview_is_corrected_by_those_that_come_late_and_by_no_others() {
        let signals = watch::Sender::<Signals>::default();
        let mut hosts = [silent("a", true), silent("b", true), silent("c", false)];
        let none = timeout(Duration::ZERO, have_come_late(&signals, "$1", &mut hosts));
        assert!(none.await.is_err());
        signals.send_modify(|it| {
            heard(it, "a", "$2", SignalKind::Pong);
            heard(it, "b", "$1", SignalKind::Pong);
            heard(it, "c", "$1", SignalKind::Pong);
        });
        assert!(have_come_late(&signals, "$1", &mut hosts).await);
        assert_eq!(
            hosts.each_ref().map(|it| it.is_silent),
            [true, false, false]
        );
        let none = timeout(Duration::ZERO, have_come_late(&signals, "$1", &mut hosts));
        assert!(none.await.is_err());
    }

    #[test]
    fn no_more_signals_are_kept_than_are_of_use() {
        let mut signals = Signals::default();
        for number in 0..10_000 {
            heard(&mut signals, "a", &number.to_string(), SignalKind::Claim);
        }
        assert_eq!(signals.heard.len(), SIGNALS_REMEMBERED);
        assert_eq!(signals.claimed_by("9999"), Some(&*bot("a")));
    }
}

//! Several hosts that share an admin room: announces this host, reads the announcements of others, and elects the bot that
//! answers what any of them could.
//!
//! A bot that is killed announces nothing, so no bot relies on that. There is no heartbeat either: it would cost the homeserver
//! most while nothing happens. Whether a bot runs shows when it matters, by signals about the command at hand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    future::pending,
    time::{Duration, UNIX_EPOCH},
};

use matrix_sdk::ruma::{OwnedUserId, UserId, serde::Base64};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{Bot, answer, connection::MatrixHandle, queue::Limited};
use crate::{
    command::{
        digest::Digest,
        hosts::{Host, Unnamed},
        reply::{self, OtherHost, Reply},
    },
    config::{Config, HostName},
    matrix::{
        AnnouncedNames, AnnouncedProject, AnnouncedSession, Announcement, Chain, Fault, HostSignal,
        Matrix, ReplyTo, Signal, SignalKind,
    },
    remote_control::{ProjectName, Status},
};

/// How long each bot has to claim an answer before the next one may: a signal takes a tenth of that on an idle homeserver.
/// Where it takes longer, still only one bot answers, though not the first.
pub(super) const TURN: Duration = Duration::from_millis(400);

/// The same for the bot of the addressed host, as none can take its place.
pub(super) const TURN_OF_ADDRESSED: Duration = Duration::from_secs(5);

/// How long a bot waits to receive its own claim. A homeserver that does not deliver it must not silence all bots.
const LONGEST_CLAIM: Duration = Duration::from_secs(10);

/// How long an overview waits for the bots to respond: with the way to the room and back it is two seconds.
const LONGEST_OVERVIEW: Duration = Duration::from_millis(1_600);

/// How long it waits after the latest response: on an idle machine, all come in a fraction of that.
const LAST_PONG: Duration = Duration::from_millis(600);

/// How long an overview is corrected by late responses.
const LATEST_PONG: Duration = Duration::from_secs(10);

/// How much longer an unannounced bot waits: others send it no claims, but their answer is in the room by then.
const TURN_OF_UNANNOUNCED: Duration = Duration::from_secs(2);

/// How soon a refused announcement is retried: an administrator who gives the bot the power for it looks whether that helps.
const REFUSED_AGAIN: Duration = Duration::from_mins(1);

/// How many signals are remembered: enough for some commands that all of fifty hosts answer.
const SIGNALS_REMEMBERED: usize = 512;

/// How many bytes are for names of projects: with them, the host's name and the largest digest it stays under 4 KiB.
const ROOM_FOR_NAMES: usize = 1_600;

pub(super) fn own_name(config: &Config) -> HostName {
    config.host.clone().unwrap_or_else(HostName::of_system)
}

pub(super) fn announcement(
    host: &HostName,
    statuses: &[Status],
    below_roots: &BTreeSet<ProjectName>,
) -> Announcement {
    let mut projects = BTreeMap::new();
    let (mut room, mut unnamed) = (ROOM_FOR_NAMES, BTreeSet::new());
    let mut more_sessions = 0;
    // Sessions first: people ask for those.
    let (running, idle): (Vec<_>, Vec<_>) =
        statuses.iter().partition(|status| status.session.is_some());
    for status in running.into_iter().chain(idle) {
        let session = status.session.as_ref().map(|session| {
            let since = session.since.duration_since(UNIX_EPOCH);
            AnnouncedSession {
                phase: reply::announced_phase(session),
                since: since.unwrap_or_default().as_secs(),
            }
        });
        let name = status.project.to_string();
        let length = name.len() + session.as_ref().map_or(20, |it| it.phase.len() + 52);
        if let Some(left) = room.checked_sub(length) {
            room = left;
            projects.insert(name, AnnouncedProject { session });
        } else {
            more_sessions += usize::from(session.is_some());
            unnamed.insert(&status.project);
        }
    }
    let is_unnamed = |name: &&ProjectName| !projects.contains_key(name.as_str());
    unnamed.extend(below_roots.iter().filter(is_unnamed));
    Announcement {
        host: host.to_string(),
        projects,
        more_sessions,
        unnamed: (!unnamed.is_empty()).then(|| AnnouncedNames {
            count: unnamed.len(),
            digest: Base64::new(Digest::of(&unnamed).as_bytes().to_vec()),
        }),
    }
}

/// Keeps the announcement in the room up to date; never ends. One that changes before it is accepted is dropped.
pub(super) async fn keep_announced(
    matrix: MatrixHandle,
    mut latest: watch::Receiver<Option<Announcement>>,
    signals: watch::Sender<Signals>,
) -> Infallible {
    loop {
        let announcement = latest.borrow_and_update().clone();
        let announcing = async {
            if let Some(announcement) = &announcement {
                let announce = |matrix: Matrix| async move { matrix.announce(announcement).await };
                until_allowed(|| matrix.until_accepted(announce), REFUSED_AGAIN).await;
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

/// Retries what the homeserver refuses, as somebody may give the bot the power for it meanwhile. Warns once.
async fn until_allowed<F>(announce: impl Fn() -> F, again: Duration)
where
    F: Future<Output = Result<(), Fault>>,
{
    let mut warned = false;
    while let Err(fault) = announce().await {
        if std::mem::replace(&mut warned, true) {
            debug!(error = %Chain(&fault), "this host is still not announced");
        } else {
            warn!(
                error = %Chain(&fault),
                "this host is not announced: give the bot the power to send state events of the type rcbot.host in the admin room"
            );
        }
        sleep(again).await;
    }
}

/// The other hosts that are announced in the room. If they cannot be read: none.
pub(super) async fn others(matrix: &Matrix) -> Vec<(OwnedUserId, Announcement)> {
    matrix.announcements().await.unwrap_or_else(|fault| {
        warn!(error = %Chain(&fault), "other hosts are not known");
        Vec::new()
    })
}

/// The latest signals of all bots, this one included, in the order of the homeserver, which is the same for all.
#[derive(Debug, Default)]
pub(super) struct Signals {
    received: VecDeque<HostSignal>,
    /// The bots that did not claim in their turn, and sent no signal since.
    silent: BTreeSet<OwnedUserId>,
    /// Whether the others know of this bot, and send it their claims.
    is_announced: bool,
}

impl Signals {
    fn note(&mut self, signal: HostSignal) {
        self.silent.remove(&signal.bot);
        self.received.push_back(signal);
        if self.received.len() > SIGNALS_REMEMBERED {
            self.received.pop_front();
        }
    }

    fn about(&self, what: &str) -> impl Iterator<Item = &HostSignal> {
        let received = self.received.iter();
        received.filter(move |signal| signal.content.about == what)
    }

    fn claimed_by(&self, what: &str) -> Option<&UserId> {
        let mut claims = self.about(what);
        let first = claims.find(|signal| signal.content.kind != SignalKind::Pong)?;
        Some(&first.bot)
    }

    /// How long this bot waits for those before it. Those that were silent the last time count as one.
    fn delay(&self, before: &[OwnedUserId], first_turn: Duration) -> Duration {
        let mut delay = Duration::ZERO;
        if !self.is_announced {
            delay += TURN_OF_UNANNOUNCED;
        }
        if let [_, others @ ..] = before {
            let silent = before.iter().filter(|bot| self.silent.contains(*bot));
            let turns = others.len() - silent.count().saturating_sub(1);
            delay += first_turn + TURN * u32::try_from(turns).unwrap_or(u32::MAX);
        }
        delay
    }
}

/// A question that several bots could answer.
pub(super) struct Contest<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) signals: &'a watch::Sender<Signals>,
    /// The event that it is about: the same for all of them.
    pub(super) about: &'a str,
    /// The bots, the first in precedence first: each answers if those before it do not run.
    pub(super) order: &'a [OwnedUserId],
}

impl Contest<'_> {
    /// Whether this bot answers. Exactly one of the running bots does, however slow they or the homeserver are: each waits for
    /// those before it and then claims the answer, and the first claim that the homeserver delivers is the same for all.
    pub(super) async fn is_won(&self, kind: SignalKind, first_turn: Duration) -> bool {
        let own = self.matrix.own_user();
        let mut parts = self.order.split(|bot| bot == own);
        let before = parts.next().unwrap_or_default();
        if self.order.len() <= 1 {
            return true;
        }
        let mut received = self.signals.subscribe();
        let delay = received.borrow().delay(before, first_turn);
        let is_claimed = |signals: &Signals| signals.claimed_by(self.about).is_some();
        if timeout(delay, received.wait_for(is_claimed)).await.is_ok() {
            return received.borrow().claimed_by(self.about) == Some(own);
        }
        let silent = before.to_vec();
        self.signals
            .send_modify(|signals| signals.silent.extend(silent));
        let claiming = async {
            signal(self.matrix, self.order.to_vec(), self.about, kind).await;
            pending::<Infallible>().await
        };
        let coming_back =
            async { drop(timeout(LONGEST_CLAIM, received.wait_for(is_claimed)).await) };
        tokio::select! {
            never = claiming => match never {},
            () = coming_back => {}
        }
        let signals = self.signals.borrow();
        signals.claimed_by(self.about).is_none_or(|bot| bot == own)
    }

    /// Notifies the others that this bot answers, without waiting for that.
    pub(super) fn announce_answer(&self) {
        if self.order.len() > 1 {
            let (matrix, order) = (self.matrix.clone(), self.order.to_vec());
            let about = self.about.to_owned();
            tokio::spawn(async move { signal(&matrix, order, &about, SignalKind::Claim).await });
        }
    }
}

/// Marks the hosts that do not respond. The claim to answer a command, received at `begun`, has asked them to.
pub(super) async fn note_silent(
    signals: &watch::Sender<Signals>,
    about: &str,
    hosts: &mut [OtherHost],
    begun: Instant,
) {
    let deadline = (begun + LONGEST_OVERVIEW).max(Instant::now() + LAST_PONG);
    let mut received = signals.subscribe();
    loop {
        let running: BTreeSet<_> = {
            let signals = received.borrow_and_update();
            signals.about(about).map(|it| it.bot.clone()).collect()
        };
        for host in &mut *hosts {
            host.is_silent = !running.contains(&host.bot);
        }
        let next = deadline.min(Instant::now() + LAST_PONG);
        let all_run = hosts.iter().all(|host| !host.is_silent);
        if all_run || !matches!(timeout_at(next, received.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Waits for hosts that respond too late for an overview, and unmarks them. False: none did.
pub(super) async fn note_late(
    signals: &watch::Sender<Signals>,
    about: &str,
    hosts: &mut [OtherHost],
) -> bool {
    let mut received = signals.subscribe();
    let late = received.wait_for(|signals| {
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
        warn!(error = %Chain(&fault), "cannot signal the bots of other hosts");
    }
}

impl Bot {
    /// To be called when a session or what is below the roots has changed. Only a host with a configured name shares the room.
    pub(super) fn announce_host(&self) {
        let Some(host) = &self.config.host else {
            return;
        };
        let none = BTreeSet::new();
        let below_roots = match &self.below_roots {
            Some(found) => &found.projects,
            // An announcement without them would be out of date a moment later.
            None if self.projects.has_roots() => return,
            None => &none,
        };
        let statuses = self.remote_control.status();
        let announcement = Some(announcement(host, &statuses, below_roots));
        if *self.announced.borrow() != announcement {
            self.announced.send_replace(announcement);
        }
    }

    /// Answers what concerns all hosts alike: one of their bots does.
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

    /// Records another bot's signal, and answers a ping.
    pub(super) fn on_signal(&mut self, signal: HostSignal) {
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

/// Another host. Names that cannot be addressed are dropped.
pub(super) fn host(bot: &UserId, announcement: &Announcement) -> Option<Host> {
    let projects = announcement.projects.iter();
    let projects = projects
        .filter_map(|(name, project)| Some((name.parse().ok()?, project.session.is_some())));
    let unnamed = announcement.unnamed.as_ref().map(|unnamed| Unnamed {
        count: unnamed.count,
        digest: Digest::from_bytes(unnamed.digest.as_bytes()),
    });
    Some(Host {
        name: announcement.host.parse().ok()?,
        bot: bot.to_owned(),
        projects: projects.collect(),
        unnamed: unnamed.unwrap_or_default(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::remote_control::{Beginning, Options, Phase, SessionId, SessionStatus, Start};

    pub(in crate::bot) fn status(project: &str, has_session: bool) -> Status {
        let session = || SessionStatus {
            id: SessionId::random(),
            phase: Phase::AwaitingRestart,
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
        for (sessions, idle) in [(0, 0), (0, 200), (10, 200), (40, 200), (200, 0)] {
            let all = (0..sessions + idle).map(|it| status(&name(it + 9_000), it < sessions));
            let all: Vec<_> = all.collect();
            for below in [&BTreeSet::new(), &names] {
                let announced = announcement(&host, &all, below);
                let size = serde_json::to_string(&announced).unwrap().len();
                assert!(size < 4_096, "{size} bytes, {sessions} sessions");
                let shown = announced.projects.values();
                let shown = shown.filter(|project| project.session.is_some()).count();
                assert_eq!(shown + announced.more_sessions, sessions);
                let unnamed = announced.unnamed.map_or(0, |it| it.count);
                assert_eq!(announced.projects.len() + unnamed, all.len() + below.len());
            }
        }
    }

    fn bot(name: &str) -> OwnedUserId {
        format!("@{name}:x.y").try_into().unwrap()
    }

    fn receive(signals: &mut Signals, name: &str, about: &str, kind: SignalKind) {
        let about = about.to_owned();
        let content = Signal { about, kind };
        let bot = bot(name);
        signals.note(HostSignal { bot, content });
    }

    #[test]
    fn the_first_claim_counts_and_a_pong_is_not_one() {
        let mut signals = Signals::default();
        receive(&mut signals, "a", "$1", SignalKind::Pong);
        assert_eq!(signals.claimed_by("$1"), None);
        receive(&mut signals, "b", "$1", SignalKind::Claim);
        receive(&mut signals, "a", "$1", SignalKind::Ping);
        receive(&mut signals, "c", "$2", SignalKind::Claim);
        assert_eq!(signals.claimed_by("$1"), Some(&*bot("b")));
        assert_eq!(signals.claimed_by("$2"), Some(&*bot("c")));
    }

    #[test]
    fn a_bot_waits_a_turn_for_each_before_it_and_one_for_all_silent_ones() {
        let mut signals = Signals {
            is_announced: true,
            ..Signals::default()
        };
        let before: Vec<_> = ["a", "b", "c", "d"].map(bot).into();
        let waits = |signals: &Signals, count: usize| signals.delay(&before[..count], TURN);
        assert_eq!(
            [0, 1, 2, 4].map(|it| waits(&signals, it)),
            [0, 1, 2, 4].map(|it| TURN * it)
        );
        signals.silent.extend(["a", "b", "c"].map(bot));
        assert_eq!(
            [1, 2, 3, 4].map(|it| waits(&signals, it)),
            [1, 1, 1, 2].map(|it| TURN * it)
        );
        receive(&mut signals, "b", "$1", SignalKind::Pong);
        assert_eq!(
            [1, 2, 3, 4].map(|it| waits(&signals, it)),
            [1, 2, 2, 3].map(|it| TURN * it)
        );
    }

    #[test]
    fn an_unannounced_bot_waits_longer_even_if_it_is_the_first() {
        let mut signals = Signals::default();
        let waits = |signals: &Signals, before: &[_]| signals.delay(before, TURN);
        assert_eq!(waits(&signals, &[]), TURN_OF_UNANNOUNCED);
        assert_eq!(waits(&signals, &[bot("a")]), TURN_OF_UNANNOUNCED + TURN);
        signals.is_announced = true;
        assert_eq!(waits(&signals, &[]), Duration::ZERO);
        assert_eq!(waits(&signals, &[bot("a")]), TURN);
    }

    #[tokio::test]
    async fn an_announcement_is_retried_while_it_is_refused() {
        let refused = Cell::new(2);
        let announce = async || match refused.get() {
            0 => Ok(()),
            left => {
                refused.set(left - 1);
                Err(Fault::for_operator("M_FORBIDDEN"))
            }
        };
        until_allowed(announce, Duration::ZERO).await;
        assert_eq!(refused.get(), 0);
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
    async fn only_late_responses_correct_an_overview() {
        let signals = watch::Sender::<Signals>::default();
        let mut hosts = [silent("a", true), silent("b", true), silent("c", false)];
        let none = timeout(Duration::ZERO, note_late(&signals, "$1", &mut hosts));
        assert!(none.await.is_err());
        signals.send_modify(|it| {
            receive(it, "a", "$2", SignalKind::Pong);
            receive(it, "b", "$1", SignalKind::Pong);
            receive(it, "c", "$1", SignalKind::Pong);
        });
        assert!(note_late(&signals, "$1", &mut hosts).await);
        assert_eq!(
            hosts.each_ref().map(|it| it.is_silent),
            [true, false, false]
        );
        let none = timeout(Duration::ZERO, note_late(&signals, "$1", &mut hosts));
        assert!(none.await.is_err());
    }

    #[test]
    fn only_the_latest_signals_are_kept() {
        let mut signals = Signals::default();
        for number in 0..10_000 {
            receive(&mut signals, "a", &number.to_string(), SignalKind::Claim);
        }
        assert_eq!(signals.received.len(), SIGNALS_REMEMBERED);
        assert_eq!(signals.claimed_by("9999"), Some(&*bot("a")));
    }
}

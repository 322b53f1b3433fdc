//! Why a session does not start, ends or cannot be used, by what the program says, and what to do about it.
//!
//! The texts are those of `claude` 2.1.332, read in the program itself, and of earlier versions; docs/claude.md has the
//! evidence. They are matched loosely, as wording changes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    links::LinkPattern,
    texts::{
        COMPLAINTS, COMPLETED, FAILED, LINGERS, OBSTACLES, OWN_NEWS, OWN_PROBLEMS, QUESTIONS,
        REMARKS, TRUST_QUESTION,
    },
};
use crate::shell;

/// What looks like an error in a line that does not begin as the program's own do, in lower case.
const LOOKS_LIKE_ERROR: [&str; 12] = [
    "error",
    "fatal",
    "fail",
    "cannot",
    "can't",
    "couldn't",
    "could not",
    "unable to",
    "denied",
    "refused",
    "not found",
    "panic",
];

/// How many bytes of a line are quoted: two lines of a phone's screen and more than any complaint that is known has.
const LONGEST_QUOTE: usize = 300;

/// After so many failed conversations in a row it is not by chance.
const FAILURES: u32 = 3;

/// A reason that the program gives for not serving. `facts` says of each what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    NotLoggedIn,
    LoginRefused,
    ApiKey,
    LongLivedToken,
    ForeignEndpoint,
    TelemetryOff,
    SwitchedOff,
    Policy,
    NotEnabled,
    PolicyUnreadable,
    TrustedDevices,
    WorkspaceNotTrusted,
    HomeDirectory,
    TooOld,
    CommandLine,
    NeedsTerminal,
    NotInstalled,
    Certificate,
    AccessDenied,
    Network,
    ServiceBusy,
    ServiceFails,
    EnvironmentLost,
    StalePointer,
    AlreadyServed,
    NothingToResume,
    ConsentAsked,
    SpawnModeAsked,
    /// What keeps its conversations from starting while it runs.
    ProgramGone,
    DirectoryGone,
    ConversationsFail,
    /// It complains of something that is not known here.
    Unknown,
}

/// Whether and how a cause goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Temporary, for an unknown time: retrying helps.
    Passes,
    /// Temporary, for one to three minutes.
    Lapses,
    /// Only a person can fix it: retrying is of no use.
    NeedsPerson,
    Unknown,
}

/// Where to apply a remedy, as far as that is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) host: Option<String>,
    /// The user that the bot and its sessions run as.
    pub(crate) user: Option<String>,
    /// The project's.
    pub(crate) directory: Option<PathBuf>,
}

/// Whether a path can be shown as code.
fn is_code(path: &Path) -> bool {
    let is_odd = |sign: char| sign.is_control() || sign == '`';
    path.to_str().is_some_and(|path| !path.contains(is_odd))
}

/// The first line of a complaint of the program, short and without links. Secret: it may contain anything.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quote(String);

impl Quote {
    pub(crate) fn new(line: &str, pattern: &LinkPattern) -> Self {
        let mut line = pattern.blot_out(line.trim());
        let end = line.floor_char_boundary(LONGEST_QUOTE);
        if end < line.len() {
            line.truncate(end);
            line.push_str(" ..");
        }
        Self(line)
    }

    /// The line. Confidential: only for users who may have the session's link.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it says the same, but for numbers and names of conversations.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let words = |quote| {
            let Self(line): &Self = quote;
            line.split_whitespace()
                .filter(|word| !word.contains(|character: char| character.is_ascii_digit()))
        };
        words(self).eq(words(other))
    }
}

impl fmt::Debug for Quote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Quote(..)")
    }
}

/// The lines of a text that the program calls errors itself.
pub(crate) fn errors(stderr: &str) -> Vec<&str> {
    let lines = stderr.lines();
    lines.filter(|line| line.starts_with("Error")).collect()
}

/// The finished lines of stderr with unknown complaints. While there is no link, all of stderr is the program's, and if one of
/// its complaints is known, the others belong to that.
pub(crate) fn unknown_lines(stderr: &str, has_link: bool) -> Vec<&str> {
    let whole = stderr.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut errors = errors(whole);
    if has_link {
        errors.retain(|line| Cause::complaint(line).is_none());
    } else if Cause::complaint(stderr).is_some() {
        errors.clear();
    } else if errors.is_empty() {
        let looks_like_error = |line: &&str| {
            let line = line.to_lowercase();
            LOOKS_LIKE_ERROR.iter().any(|part| line.contains(part))
        };
        errors.extend(complaining(whole).find(looks_like_error));
    }
    errors
}

/// The first line of stderr that may explain a failure.
pub(crate) fn first_line(stderr: &str) -> Option<&str> {
    let mut lines = errors(stderr).into_iter().chain(complaining(stderr));
    lines.next()
}

/// The lines of stderr except mere remarks.
fn complaining(stderr: &str) -> impl Iterator<Item = &str> {
    let lines = stderr.lines().filter(|line| !line.trim().is_empty());
    lines.filter(|line| !REMARKS.iter().any(|begin| line.starts_with(begin)))
}

/// What the events of a running program say of its conversations.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    /// How many have failed since one went well.
    failed: u32,
}

impl Conversations {
    /// What keeps them from starting, if an event shows that.
    pub(crate) fn obstacle(&mut self, event: &str) -> Option<Cause> {
        if event.starts_with(COMPLETED) {
            self.failed = 0;
        } else if event.starts_with(FAILED) {
            self.failed += 1;
        }
        let text = normalised(event);
        let known = OBSTACLES.iter().find(|(begin, _)| text.starts_with(begin));
        let fail_all = (self.failed >= FAILURES).then_some(Cause::ConversationsFail);
        known.map(|(_, cause)| *cause).or(fail_all)
    }
}

impl Cause {
    /// Recognises what the program complains of, in the visible text of its stderr; see [`visible_text`](super::visible_text).
    /// The last few KiB will do.
    pub(crate) fn complaint(stderr: &str) -> Option<Self> {
        let text = normalised(stderr);
        let complaint = COMPLAINTS.iter().find(|(part, _)| holds(&text, part));
        complaint.map(|(_, cause)| *cause)
    }

    /// Recognises a complaint among the program's events on stdout, an unknown one as [`Cause::Unknown`]. Other events may
    /// contain text of conversations.
    pub(crate) fn event(event: &str) -> Option<Self> {
        let is_problem = OWN_PROBLEMS.iter().any(|begin| event.starts_with(begin));
        let is_own = is_problem || event.starts_with(OWN_NEWS);
        let known = Self::complaint(event).filter(|_| is_own);
        known.or(is_problem.then_some(Self::Unknown))
    }

    /// Recognises the question at which the program waits, in the visible text of its stdout. Nothing else there shows a cause:
    /// titles of conversations are there. The answer is not echoed: with one on stdin, the first question does not count.
    pub(crate) fn question(stdout: &str, has_answer: bool) -> Option<Self> {
        let text = normalised(stdout);
        let end = text.trim_end_matches([' ', ':', '>']);
        if end.ends_with(TRUST_QUESTION) && end.contains("trust ") {
            return Some(Self::WorkspaceNotTrusted);
        }
        let question = QUESTIONS.iter().find(|(part, _)| end.ends_with(part));
        let cause = question.map(|(_, cause)| *cause)?;
        let is_answered = cause == Self::ConsentAsked && has_answer;
        (!is_answered).then_some(cause)
    }

    /// Whether the program says on stderr that it has failed, and will exit later.
    pub(crate) fn is_lingering(stderr: &str) -> bool {
        normalised(stderr).contains(LINGERS)
    }

    pub(crate) fn outlook(self) -> Outlook {
        let (_, _, outlook) = self.facts();
        outlook
    }

    /// Whether a restart is the only remedy: users who read of a restart do not need it then.
    pub(crate) fn takes_only_a_restart(self) -> bool {
        [Self::ServiceBusy, Self::ServiceFails, Self::EnvironmentLost].contains(&self)
    }

    /// The problem, as a part of a sentence.
    pub(crate) fn what(self) -> &'static str {
        let (what, _, _) = self.facts();
        what
    }

    /// The one thing to do about it, as a part of a sentence.
    pub(crate) fn remedy(self, place: &Place) -> String {
        let host = place.host.as_deref().unwrap_or("the host");
        let user = place.user.as_deref();
        let user = user.unwrap_or("the user that the bot runs as");
        let directory = place.directory.as_deref().filter(|path| is_code(path));
        let enter = directory.map_or_else(
            || "`claude` in the project's directory".to_owned(),
            |directory| format!("`cd {} && claude`", shell::word(directory)),
        );
        let (_, remedy, _) = self.facts();
        remedy
            .replace("{there}", &format!("on {host} as {user}"))
            .replace("{host}", host)
            .replace("{claude in the directory}", &enter)
    }

    /// The problem and its one remedy, each as a part of a sentence, and the outlook. [`Cause::remedy`] fills in the braces.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn facts(self) -> (&'static str, &'static str, Outlook) {
        use Outlook::{Lapses, NeedsPerson, Passes, Unknown};
        match self {
            Self::NotLoggedIn => (
                "claude is not logged in",
                "run `claude auth login` {there}",
                NeedsPerson,
            ),
            Self::LoginRefused => (
                "claude's login has expired or was revoked",
                "run `claude auth login` {there}",
                NeedsPerson,
            ),
            Self::ApiKey => (
                "claude is set to an API key, which Remote Control does not take",
                "remove ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN and `apiKeyHelper` from the project's environment and claude's settings",
                NeedsPerson,
            ),
            Self::LongLivedToken => (
                "claude is logged in with a long-lived token",
                "unset CLAUDE_CODE_OAUTH_TOKEN and run `claude auth login` {there}",
                NeedsPerson,
            ),
            Self::ForeignEndpoint => (
                "claude is set to another provider or base URL",
                "remove ANTHROPIC_BASE_URL and CLAUDE_CODE_USE_* from the project's environment and claude's settings",
                NeedsPerson,
            ),
            Self::TelemetryOff => (
                "claude's feature flags are switched off, which Remote Control needs",
                "remove the variable that its output names from the project's environment and claude's settings",
                NeedsPerson,
            ),
            Self::SwitchedOff => (
                "the setting `disableRemoteControl` switches Remote Control off on the host",
                "remove it from claude's settings files: managed-settings.json in /etc/claude-code, settings.json in claude's folder, and .claude/settings.json in the project",
                NeedsPerson,
            ),
            Self::Policy => (
                "the organization's policy does not allow Remote Control",
                "ask an owner of the organization to allow it, then run `claude auth logout` and `claude auth login` {there}",
                NeedsPerson,
            ),
            Self::NotEnabled => (
                "Remote Control is not enabled for the account",
                "run `claude auth logout` and then `claude auth login` {there}; on a Team or Enterprise plan, an owner has to switch it on first",
                NeedsPerson,
            ),
            Self::PolicyUnreadable => (
                "a proxy keeps claude from reading the organization's policy (404)",
                "let the proxy forward all of api.anthropic.com; `claude doctor` shows which host was asked",
                NeedsPerson,
            ),
            Self::TrustedDevices => (
                "the host is not one of the account's trusted devices",
                "run `claude` {there}, and type `/login` in it; `claude auth login` does not enroll the host",
                NeedsPerson,
            ),
            Self::WorkspaceNotTrusted => (
                "claude does not trust the project's directory",
                "run {claude in the directory} {there}, and answer yes",
                NeedsPerson,
            ),
            Self::HomeDirectory => (
                "the project's directory is a home directory, for which claude never saves that it is trusted",
                "set `directory` to another one in config.yaml, such as a folder in it, and run `claude` there once",
                NeedsPerson,
            ),
            Self::TooOld => (
                "this version of claude is too old for Remote Control",
                "run `claude update` {there}",
                NeedsPerson,
            ),
            Self::CommandLine => (
                "claude does not accept the project's command line",
                "correct `command` and `resume_command` in config.yaml, and restart the bot; the output names the argument",
                NeedsPerson,
            ),
            Self::NeedsTerminal => (
                "`claude --remote-control` needs a terminal",
                "use the verb instead of the option in `command` in config.yaml: `claude remote-control`; then restart the bot",
                NeedsPerson,
            ),
            Self::NotInstalled => (
                "claude is not fully installed",
                "install it again on {host}",
                NeedsPerson,
            ),
            Self::Certificate => (
                "claude does not accept the certificate of its service or of a proxy before it",
                "set NODE_EXTRA_CA_CERTS under `environment` of the project in config.yaml to the file with the proxy's certificate authority, and restart the bot",
                NeedsPerson,
            ),
            Self::AccessDenied => (
                "the service denies the account access",
                "check that the account still belongs to the organization and may use Remote Control, then run `claude auth login` {there}",
                NeedsPerson,
            ),
            Self::Network => (
                "claude cannot reach its service",
                "check the host's network and name resolution; if the host uses a proxy, set HTTPS_PROXY under `environment` of the project in config.yaml, and restart the bot",
                Passes,
            ),
            Self::ServiceBusy => (
                "the service answers that there were too many requests (429)",
                "wait some minutes and start it again",
                Passes,
            ),
            Self::ServiceFails => (
                "the service fails",
                "wait some minutes and start it again; https://status.claude.com reports outages",
                Passes,
            ),
            Self::EnvironmentLost => (
                "the service does not know the session's environment any more",
                "start it again",
                Passes,
            ),
            Self::StalePointer => (
                "what claude remembers of the last session in this directory is of no use to the service",
                "delete bridge-pointer.json in the directory's folder below ~/.claude/projects on {host}, and try again",
                NeedsPerson,
            ),
            Self::AlreadyServed => (
                "another `claude remote-control` serves the project's directory, or the last one's registration has not lapsed, which takes one to three minutes",
                "stop the other one if there is one, such as in a terminal of {host}",
                Lapses,
            ),
            Self::NothingToResume => (
                "there is no recent conversation to bring back",
                "use the command `start` instead of `resume`",
                NeedsPerson,
            ),
            Self::ConsentAsked => (
                "claude waits for consent to enable Remote Control",
                "set `stdin: \"y\\n\"` for the project in config.yaml, and restart the bot",
                NeedsPerson,
            ),
            Self::SpawnModeAsked => (
                "claude waits for a choice of its spawn mode",
                "add `--spawn=same-dir` to the project's `command` in config.yaml, and restart the bot",
                NeedsPerson,
            ),
            Self::ProgramGone => (
                "the program file that it was started from is gone, most likely removed by an update",
                "stop the session and start it again",
                NeedsPerson,
            ),
            Self::DirectoryGone => (
                "the project's directory is gone from the host",
                "bring it back on {host}",
                NeedsPerson,
            ),
            Self::ConversationsFail => (
                "claude reports one failure after the other",
                "stop the session and start it again",
                NeedsPerson,
            ),
            Self::Unknown => (
                "claude printed an error that I do not know",
                "read its first line, which I sent privately, or more of it with the command `logs`",
                Unknown,
            ),
        }
    }
}

/// Whether a text holds these parts, one after the other.
fn holds(text: &str, parts: &str) -> bool {
    let mut parts = parts.split(" * ");
    let rest = parts.try_fold(text, |rest, part| Some(rest.split_once(part)?.1));
    rest.is_some()
}

/// Lower case, plain apostrophes, and any white space a single space.
fn normalised(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").to_lowercase().replace('\u{2019}', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_says_is_recognised() {
        // Each text of the table is; these have more than one, or are written or cut in another way.
        for (text, cause) in [
            (
                "Error: --spawn requires one of: session, same-dir",
                Cause::CommandLine,
            ),
            (
                "Error: Input must be provided either through stdin or as a prompt argument when using --print",
                Cause::NeedsTerminal,
            ),
            (
                "Error: Workspace not trusted. Please run `claude` in /srv/website first.",
                Cause::WorkspaceNotTrusted,
            ),
            (
                "Error: Workspace not trusted. /home/x is your home directory, and for security",
                Cause::HomeDirectory,
            ),
            (
                "Error: You must be logged in to use Remote Control.\n\nRemote Control is only available with claude.ai subscriptions.",
                Cause::NotLoggedIn,
            ),
            (
                "Error: You must be logged in to use Remote Control. Remote Control requires a full-scope login token.",
                Cause::LongLivedToken,
            ),
            (
                "Error: Registration: Authentication failed (401): OAuth token has expired. Please use `/login`",
                Cause::LoginRefused,
            ),
            (
                "Remote Control is disabled by your organization\u{2019}s policy (managed setting `disableRemoteControl`).",
                Cause::SwitchedOff,
            ),
            (
                "was turned off by your organization's policy.",
                Cause::Policy,
            ),
            (
                "Remote Control isn't enabled\n  for this account",
                Cause::NotEnabled,
            ),
            (
                "Error: Couldn't load your organization's policy, which governs remote control.",
                Cause::PolicyUnreadable,
            ),
            (
                "Error: Session abc not found. It may have been archived",
                Cause::NothingToResume,
            ),
            (
                "Error: CCR v2 worker registration failed for session cse_1: Request failed with status code 404",
                Cause::StalePointer,
            ),
            ("Registration: Failed with status 503", Cause::ServiceFails),
            ("Couldn\u{2019}t verify your account", Cause::Network),
            ("Error: connect ECONNREFUSED 127.0.0.1:443", Cause::Network),
            (
                "Error: self-signed certificate in certificate chain",
                Cause::Certificate,
            ),
            (
                "Remote Control did not start: \"Enable Remote Control?\" got no answer. Run",
                Cause::ConsentAsked,
            ),
        ] {
            assert_eq!(Cause::complaint(text), Some(cause), "{text}");
        }
        for text in [
            "",
            " \n",
            "\u{b7}\u{2714}\u{b7} Connected",
            "Reconnecting",
            "Error: session",
        ] {
            assert_eq!(Cause::complaint(text), None, "{text}");
        }
    }

    #[test]
    fn every_text_stands_in_the_table_as_it_is_compared() {
        for (text, cause) in COMPLAINTS.iter().chain(&QUESTIONS) {
            assert_eq!(*text, normalised(text), "{cause:?}");
        }
        // None is hidden by one before it.
        for (text, cause) in COMPLAINTS {
            assert_eq!(Cause::complaint(text), Some(cause), "{text}");
        }
    }

    #[test]
    fn only_events_in_which_the_program_speaks_of_itself_are_causes() {
        for (event, cause) in [
            (
                "Error: Server unreachable for 10 minutes, giving up.",
                Some(Cause::Network),
            ),
            (
                "Remote Control session expired.",
                Some(Cause::EnvironmentLost),
            ),
            (
                "Warning: Remote Control could not renew this computer's connection: claude.ai did not accept the sign-in",
                Some(Cause::LoginRefused),
            ),
            ("Error: The moon is full.", Some(Cause::Unknown)),
            (
                "Warning: Remote Control is under the moon",
                Some(Cause::Unknown),
            ),
            ("Remote Control is under the moon", None),
            ("Session failed: Workspace not trusted (1)", None),
            ("kept worktree /srv/getaddrinfo", None),
            ("Warning: getaddrinfo (session_1)", None),
        ] {
            assert_eq!(Cause::event(event), cause, "{event}");
        }
    }

    #[test]
    fn a_question_is_a_cause_until_it_is_answered_or_something_follows() {
        let consent = "Enable Remote Control? (y/n) ";
        let spawn = "  [1] same-dir\n  [2] worktree\n\nChoose [1/2] (default: 1): ";
        let trust = "Security guide: https://code.claude.com\nTrust /srv/website? [y/N] ";
        for (stdout, has_answer, cause) in [
            (consent, false, Some(Cause::ConsentAsked)),
            (consent, true, None),
            (
                "Enable Remote Control? (y/n) \n\u{b7}|\u{b7} Connecting",
                false,
                None,
            ),
            (spawn, true, Some(Cause::SpawnModeAsked)),
            ("Choose [1/2]: \n", false, Some(Cause::SpawnModeAsked)),
            ("Choose [1/2]: 1\nsame-dir it is", false, None),
            (trust, true, Some(Cause::WorkspaceNotTrusted)),
            (
                "Connected\n    Couldn't verify the getaddrinfo fix\n",
                false,
                None,
            ),
            ("", false, None),
        ] {
            assert_eq!(Cause::question(stdout, has_answer), cause, "{stdout}");
        }
    }

    #[test]
    fn what_is_not_known_is_quoted_by_its_first_line() {
        for (stderr, has_link, lines) in [
            (
                "Error: The moon is full.\n  It shines.\n",
                false,
                &["Error: The moon is full."][..],
            ),
            ("Error: The moon is full.", false, &[]),
            ("Error: The moon is full.\nError: getaddrinfo\n", false, &[]),
            (
                "Error: The moon is full.\nError: getaddrinfo\n",
                true,
                &["Error: The moon is full."],
            ),
            (
                "+ cd /srv\nclaude: fatal: the moon\nat x failed\nnot found\n",
                false,
                &["claude: fatal: the moon"],
            ),
            ("claude: fatal: the moon\n", true, &[]),
            ("Warning: it cannot be\n+ cd /srv\n", false, &[]),
        ] {
            assert_eq!(unknown_lines(stderr, has_link), lines, "{stderr}");
        }
        assert_eq!(first_line("Warning: x\n\n+ a\n b"), Some("+ a"));
        assert_eq!(first_line("+ a\nError: b"), Some("Error: b"));
        for nothing in [
            "\n",
            "Resuming session session_1 (5m ago)\u{2026}\n",
            "Warning: Saved spawn mode is worktree\n",
        ] {
            assert_eq!(first_line(nothing), None, "{nothing}");
        }
        assert_eq!(errors("a\nError: b\nc"), ["Error: b"]);
    }

    #[test]
    fn a_quote_is_short_and_holds_no_link_and_is_like_another_but_for_numbers() {
        let pattern = LinkPattern::new(r"https://claude\.ai/code/.+").unwrap();
        let quote = |line: &str| Quote::new(line, &pattern);
        let said = quote(" Error: no https://claude.ai/code/session_1?from=cli, sorry ");
        assert_eq!(said.expose(), "Error: no [link] sorry");
        assert_eq!(format!("{said:?}"), "Quote(..)");
        let long = quote(&"\u{e4}".repeat(LONGEST_QUOTE));
        assert_eq!(long.expose().len(), LONGEST_QUOTE + 3);
        assert!(
            quote("Error: session cse_1 is lost").is_like(&quote("Error: session cse_2 is lost"))
        );
        assert!(
            !quote("Error: session cse_1 is lost").is_like(&quote("Error: session cse_1 is found"))
        );
    }

    #[test]
    fn what_keeps_conversations_from_starting_is_distinguished_from_one_that_fails() {
        let mut conversations = Conversations::default();
        for (event, cause) in [
            (
                "Session failed: program not found: '/x'. An update may have removed it. cse_1",
                Some(Cause::ProgramGone),
            ),
            (
                "Session failed: working folder not found: '/srv' cse_1",
                Some(Cause::DirectoryGone),
            ),
            ("Session completed (3s) cse_1", None),
            (
                "Session failed: spawn error: spawn /x EACCES cse_1",
                Some(Cause::ConversationsFail),
            ),
            (
                "Error: Couldn\u{2019}t start session cse_1: no",
                Some(Cause::ConversationsFail),
            ),
            ("Session failed: Process exited with error cse_1", None),
            (
                "Session failed: Process exited with error cse_2",
                Some(Cause::ConversationsFail),
            ),
            ("Session completed (3s) cse_3", None),
            ("Session failed: see: program not found cse_1", None),
            ("kept worktree /srv", None),
        ] {
            assert_eq!(conversations.obstacle(event), cause, "{event}");
        }
    }
}

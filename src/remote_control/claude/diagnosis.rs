//! Why a session does not come up, told from what the program says.
//!
//! The texts are those of `claude` 2.1 and its documentation. They are matched loosely, for wording changes.

use serde::{Deserialize, Serialize};

/// A reason that the program gives for not serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody is logged in on the host.
    NotLoggedIn,
    /// The login is a long-lived token, which Remote Control does not take.
    LongLivedToken,
    /// The program was never told to trust the project's directory.
    WorkspaceNotTrusted,
    /// Another provider or base URL is set.
    ForeignEndpoint,
    /// Telemetry, and with it the evaluation of feature flags, is switched off.
    TelemetryOff,
    /// The organisation or the plan does not allow it.
    Policy,
    /// The device is not enrolled, or the login is too old for it.
    TrustedDevices,
    /// The service cannot be reached.
    Network,
    /// It waits for an answer to whether Remote Control may be enabled.
    ConsentAsked,
    /// It waits for an answer to how it should spawn sessions.
    SpawnModeAsked,
    /// Another server serves the directory, or the registration of the last one has not lapsed.
    AlreadyServed,
    /// There is no conversation to bring back.
    NothingToResume,
}

/// What it takes for a cause to go away. What is unknown is no [`Cause`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It passes by itself, nobody knows when: trying again helps.
    Passes,
    /// It passes by itself within one to three minutes.
    Lapses,
    /// Only a person can mend it: trying again is of no use.
    NeedsPerson,
}

/// Questions count only when nothing was shown after them: then the program waits.
const QUESTIONS: [(&str, Cause); 2] = [
    ("enable remote control? (y/n)", Cause::ConsentAsked),
    ("choose [1/2]", Cause::SpawnModeAsked),
];

/// Where several match, the first one counts: the more specific stand before those that are said along with them.
const COMPLAINTS: [(&str, Cause); 17] = [
    ("requires a full-scope login token", Cause::LongLivedToken),
    ("workspace not trusted", Cause::WorkspaceNotTrusted),
    ("trusted devices", Cause::TrustedDevices),
    (
        "only available when using claude via api.anthropic.com",
        Cause::ForeignEndpoint,
    ),
    ("requires feature-flag evaluation", Cause::TelemetryOff),
    ("disabled by your organization's policy", Cause::Policy),
    ("compliance policy", Cause::Policy),
    ("isn't enabled for this account", Cause::Policy),
    (
        "must be logged in to use remote control",
        Cause::NotLoggedIn,
    ),
    ("requires a claude.ai subscription", Cause::NotLoggedIn),
    ("no recent session found", Cause::NothingToResume),
    ("already served by", Cause::AlreadyServed),
    ("already running in this directory", Cause::AlreadyServed),
    ("remote credentials fetch failed", Cause::Network),
    ("could not verify", Cause::Network),
    ("couldn't verify", Cause::Network),
    ("getaddrinfo", Cause::Network),
];

impl Cause {
    /// Recognises what the program complains of, in the visible text of its stderr; see [`visible_text`](super::visible_text).
    /// The last few KiB will do.
    pub(crate) fn complaint(stderr: &str) -> Option<Self> {
        let text = normalised(stderr);
        let complaint = COMPLAINTS.iter().find(|(part, _)| text.contains(part));
        complaint.map(|(_, cause)| *cause)
    }

    /// Recognises the question at which the program waits, in the visible text of its stdout. Nothing else there tells a cause:
    /// the titles of conversations are among it.
    pub(crate) fn question(stdout: &str) -> Option<Self> {
        let text = normalised(stdout);
        let end = text.trim_end_matches([' ', ':', '>']);
        let question = QUESTIONS
            .iter()
            .find(|(question, _)| end.ends_with(question));
        question.map(|(_, cause)| *cause)
    }

    /// Whether it is of use to try again.
    pub(crate) fn outlook(self) -> Outlook {
        match self {
            Self::Network => Outlook::Passes,
            Self::AlreadyServed => Outlook::Lapses,
            Self::NotLoggedIn
            | Self::LongLivedToken
            | Self::WorkspaceNotTrusted
            | Self::ForeignEndpoint
            | Self::TelemetryOff
            | Self::Policy
            | Self::TrustedDevices
            | Self::ConsentAsked
            | Self::SpawnModeAsked
            | Self::NothingToResume => Outlook::NeedsPerson,
        }
    }

    /// What is the matter, as a part of a sentence.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "claude is not logged in",
            Self::LongLivedToken => "claude is logged in with a long-lived token",
            Self::WorkspaceNotTrusted => "claude does not trust the project's directory",
            Self::ForeignEndpoint => "claude is set to another provider or base URL",
            Self::TelemetryOff => "claude's telemetry is switched off, which Remote Control needs",
            Self::Policy => "the organization or plan of the account does not allow Remote Control",
            Self::TrustedDevices => "the host is not one of the account's trusted devices",
            Self::Network => "claude cannot reach its service",
            Self::ConsentAsked => "claude waits for consent to enable Remote Control",
            Self::SpawnModeAsked => "claude waits for a choice of its spawn mode",
            Self::AlreadyServed => {
                "another `claude remote-control` serves the project's directory, or the last one's registration has not \
                 lapsed, which takes one to three minutes"
            }
            Self::NothingToResume => "there is no recent conversation to bring back",
        }
    }

    /// The one thing to do about it, as a part of a sentence.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::NotLoggedIn => {
                "run `claude auth login` on the host as the user that the bot runs as"
            }
            Self::LongLivedToken => {
                "unset CLAUDE_CODE_OAUTH_TOKEN and run `claude auth login` on the host as the user that the bot runs as"
            }
            Self::WorkspaceNotTrusted => {
                "run `claude` once in that directory on the host as the user that the bot runs as, and accept the question"
            }
            Self::ForeignEndpoint => {
                "remove ANTHROPIC_BASE_URL and CLAUDE_CODE_USE_* from the project's environment and claude's settings"
            }
            Self::TelemetryOff => {
                "remove the variable that its output names from the project's environment and claude's settings"
            }
            Self::Policy => "ask an owner of the organization to allow it",
            Self::TrustedDevices => {
                "run `claude` on the host as the user that the bot runs as, and type `/login` there"
            }
            Self::Network => {
                "try again, and check the host's network and name resolution; if the host uses a proxy, set HTTPS_PROXY \
                 under `environment` of the project in config.yaml, and start the bot again"
            }
            Self::ConsentAsked => "set `stdin: \"y\\n\"` for the project",
            Self::SpawnModeAsked => "add `--spawn=same-dir` to the project's command",
            Self::AlreadyServed => {
                "stop the other one, which may run in a terminal of the host, or wait three minutes and try again"
            }
            Self::NothingToResume => "use the command `start` instead of `resume`",
        }
    }
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
    fn the_known_messages_are_recognised() {
        for (text, cause) in [
            (
                "Error: You must be logged in to use Remote Control.",
                Cause::NotLoggedIn,
            ),
            (
                "Remote Control requires a claude.ai subscription.",
                Cause::NotLoggedIn,
            ),
            (
                "Remote Control requires a full-scope login token.",
                Cause::LongLivedToken,
            ),
            (
                "Error: Workspace not trusted. Please run `claude` in /srv/website first.",
                Cause::WorkspaceNotTrusted,
            ),
            (
                "Remote Control is only available when using Claude via api.anthropic.com.",
                Cause::ForeignEndpoint,
            ),
            (
                "Remote Control requires feature-flag evaluation (DISABLE_TELEMETRY is set).",
                Cause::TelemetryOff,
            ),
            (
                "Remote Control is disabled by your organization\u{2019}s policy.",
                Cause::Policy,
            ),
            ("blocked by a compliance policy", Cause::Policy),
            (
                "Remote Control isn't enabled\n  for this account",
                Cause::Policy,
            ),
            (
                "This organization requires Trusted Devices.",
                Cause::TrustedDevices,
            ),
            ("Could not verify your account", Cause::Network),
            ("Couldn\u{2019}t verify your account", Cause::Network),
            (
                "Error: getaddrinfo ENOTFOUND api.anthropic.com",
                Cause::Network,
            ),
            ("Remote credentials fetch failed: 503", Cause::Network),
            (
                "Error: This folder is already served by a terminal `claude remote-control` on this device.",
                Cause::AlreadyServed,
            ),
            (
                "Error: Another `claude remote-control` instance (pid 7) is already running in this directory.",
                Cause::AlreadyServed,
            ),
            (
                "Error: No recent session found in this directory or its worktrees.",
                Cause::NothingToResume,
            ),
        ] {
            assert_eq!(Cause::complaint(text), Some(cause), "{text}");
        }
        for (text, cause) in [
            ("Enable Remote Control? (y/n) ", Cause::ConsentAsked),
            (
                "  [1] same-dir\n  [2] worktree\n\nChoose [1/2] ",
                Cause::SpawnModeAsked,
            ),
            ("Choose [1/2]: \n", Cause::SpawnModeAsked),
        ] {
            assert_eq!(Cause::question(text), Some(cause), "{text}");
        }
    }

    #[test]
    fn the_title_of_a_conversation_is_no_cause() {
        let screen =
            "Connected\n    Update trusted devices page\n    Couldn't verify the getaddrinfo fix\n";
        assert_eq!(Cause::question(screen), None);
    }

    #[test]
    fn a_question_that_was_answered_is_no_cause() {
        let text = "Enable Remote Control? (y/n) \n\u{b7}|\u{b7} Connecting";
        assert_eq!(Cause::question(text), None);
        let text = "Choose [1/2]: 1\nsame-dir it is";
        assert_eq!(Cause::question(text), None);
    }

    #[test]
    fn the_most_specific_cause_wins() {
        let text = "Error: You must be logged in to use Remote Control. \
                    Remote Control requires a full-scope login token.";
        assert_eq!(Cause::complaint(text), Some(Cause::LongLivedToken));
        let text = "Couldn't verify the login.\nError: Workspace not trusted.";
        assert_eq!(Cause::complaint(text), Some(Cause::WorkspaceNotTrusted));
    }

    #[test]
    fn ordinary_output_is_no_cause() {
        for text in [
            "",
            " \n",
            "\u{b7}\u{2714}\u{b7} Connected \u{b7} website",
            "Reconnecting",
        ] {
            assert_eq!(Cause::complaint(text), None, "{text}");
            assert_eq!(Cause::question(text), None, "{text}");
        }
    }
}

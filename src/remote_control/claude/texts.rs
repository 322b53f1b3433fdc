//! Every sentence of the program that is known here: what to edit when the program says something else. See docs/claude.md.
//!
//! Invariant: only texts, and nothing outside of this folder holds one of them; `tests/tidy.rs` looks.

use super::Cause;

/// What the program says, in lower case; `*` stands for any text. The first match counts: the more specific texts are before
/// those that are printed along with them.
pub(super) const COMPLAINTS: [(&str, Cause); 69] = [
    // The host and the command line.
    ("native binary not installed", Cause::NotInstalled),
    ("unknown argument", Cause::CommandLine),
    ("unknown option", Cause::CommandLine),
    ("unknown permission mode", Cause::CommandLine),
    ("cannot be used with", Cause::CommandLine),
    (
        "is not supported by claude remote-control",
        Cause::CommandLine,
    ),
    ("may only be specified once", Cause::CommandLine),
    ("--spawn requires", Cause::CommandLine),
    ("--capacity requires", Cause::CommandLine),
    ("--settings requires", Cause::CommandLine),
    ("part or all of the --settings file", Cause::CommandLine),
    ("worktree mode needs a git repository", Cause::CommandLine),
    (
        "input must be provided either through stdin",
        Cause::NeedsTerminal,
    ),
    // Trust.
    ("is your home directory", Cause::HomeDirectory),
    (
        "home directory is trusted one session at a time",
        Cause::HomeDirectory,
    ),
    ("workspace not trusted", Cause::WorkspaceNotTrusted),
    // The login, and its kind.
    ("requires a full-scope login token", Cause::LongLivedToken),
    ("requires claude.ai subscription auth", Cause::ApiKey),
    ("trusted device", Cause::TrustedDevices),
    (
        "must be logged in to use remote control",
        Cause::NotLoggedIn,
    ),
    ("requires a claude.ai subscription", Cause::NotLoggedIn),
    ("unable to determine your organization", Cause::NotLoggedIn),
    (
        "could not renew this computer's connection",
        Cause::LoginRefused,
    ),
    ("authentication failed (401)", Cause::LoginRefused),
    ("oauth token has expired", Cause::LoginRefused),
    // What is switched off.
    (
        "only available when using claude via api.anthropic.com",
        Cause::ForeignEndpoint,
    ),
    ("base url uses http", Cause::ForeignEndpoint),
    ("requires feature-flag evaluation", Cause::TelemetryOff),
    ("(managed setting", Cause::SwitchedOff),
    (
        "couldn't load your organization's policy",
        Cause::PolicyUnreadable,
    ),
    ("by your organization's policy", Cause::Policy),
    ("compliance policy", Cause::Policy),
    ("enabled for this account", Cause::NotEnabled),
    ("enabled for your account", Cause::NotEnabled),
    ("not available for your account", Cause::NotEnabled),
    ("not be available for this organization", Cause::NotEnabled),
    ("is too old for remote control", Cause::TooOld),
    ("older than the minimum version", Cause::TooOld),
    // Conversations, and the directory.
    ("no recent session found", Cause::NothingToResume),
    ("error: session * not found", Cause::NothingToResume),
    (
        "error: session * has no environment",
        Cause::NothingToResume,
    ),
    ("couldn't reconnect session", Cause::NothingToResume),
    ("worker registration failed * 404", Cause::StalePointer),
    ("already served by", Cause::AlreadyServed),
    ("already being served by", Cause::AlreadyServed),
    ("already running in this directory", Cause::AlreadyServed),
    ("failed with status 409", Cause::AlreadyServed),
    (
        "could not renew this environment's credential",
        Cause::EnvironmentLost,
    ),
    ("remote control session expired", Cause::EnvironmentLost),
    // The service refuses, or cannot be reached.
    ("access denied (403)", Cause::AccessDenied),
    ("refused to reconnect this computer", Cause::AccessDenied),
    ("rate limited (429)", Cause::ServiceBusy),
    ("failed with status 5", Cause::ServiceFails),
    ("persistent errors for", Cause::ServiceFails),
    ("certificate", Cause::Certificate),
    ("remote credentials fetch failed", Cause::Network),
    ("could not verify", Cause::Network),
    ("couldn't verify", Cause::Network),
    ("couldn't reach the server", Cause::Network),
    ("server unreachable for", Cause::Network),
    ("getaddrinfo", Cause::Network),
    ("socket hang up", Cause::Network),
    ("econnre", Cause::Network),
    ("etimedout", Cause::Network),
    ("enetunreach", Cause::Network),
    ("ehostunreach", Cause::Network),
    ("timeout of", Cause::Network),
    // No answer to a question.
    (
        "\"enable remote control?\" got no answer",
        Cause::ConsentAsked,
    ),
    ("\"choose [1/2] * got no answer", Cause::SpawnModeAsked),
];

/// At the end of the output: the program may wait for an answer.
pub(super) const QUESTIONS: [(&str, Cause); 3] = [
    ("enable remote control? (y/n)", Cause::ConsentAsked),
    ("choose [1/2] (default: 1)", Cause::SpawnModeAsked),
    ("choose [1/2]", Cause::SpawnModeAsked),
];

/// The question whether to trust a directory, which it asks at a terminal: `Trust /srv/website? [y/N]`.
pub(super) const TRUST_QUESTION: &str = "? [y/n]";

/// What it says after a refusal, if it exits only later.
pub(super) const LINGERS: &str = "exiting in about";

/// The beginnings of lines on stderr that are not complaints.
pub(super) const REMARKS: [&str; 2] = ["Warning: ", "Resuming session "];

/// The beginnings of the program's own messages among its events on stdout: of its problems, and of other news, which may be
/// one too. Other events may contain text of conversations.
pub(super) const OWN_PROBLEMS: [&str; 2] = ["Error: ", "Warning: Remote Control"];
pub(super) const OWN_NEWS: &str = "Remote Control";

/// The events that show that no conversation can start, in lower case, by their beginning.
pub(super) const OBSTACLES: [(&str, Cause); 5] = [
    ("session failed: program not found", Cause::ProgramGone),
    (
        "session failed: working folder not found",
        Cause::DirectoryGone,
    ),
    ("session failed: spawn error", Cause::ConversationsFail),
    ("error: couldn't start session", Cause::ConversationsFail),
    (
        "warning: the server keeps rejecting this computer's remote control credential",
        Cause::ConversationsFail,
    ),
];

/// The beginning of the event that a conversation failed; its stderr, of several lines, and its id follow.
pub(super) const FAILED: &str = "Session failed: ";

/// The beginning of the event that a conversation went well.
pub(super) const COMPLETED: &str = "Session completed";

/// The beginnings of the id of a conversation.
pub(super) const CONVERSATION_IDS: [&str; 2] = ["session_", "cse_"];

/// The beginnings of the line in which the program shows the session's link. The link is its last word.
pub(super) const OWN_LINES: [&str; 2] = ["Code anywhere with", "Continue coding in"];

/// The state at the head of the status block while there is no connection, and the words before how long.
pub(super) const CONNECTING: &str = "Connecting";
pub(super) const RECONNECTING: &str = "Reconnecting";
pub(super) const DISCONNECTED: &str = "disconnected ";

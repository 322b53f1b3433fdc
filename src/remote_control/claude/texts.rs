//! Every sentence of the program that is known here: what to edit when the program says something else. See docs/claude.md.
//!
//! Invariant: texts alone, and nothing outside of this folder holds one of them; `tests/tidy.rs` looks.

use super::Cause;

/// What the program says, in lower case; `*` stands for any text. Where several match, the first one counts: the more specific
/// stand before those that are said along with them.
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
    // Who is logged in, and with what.
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
    // What is switched off, and by whom.
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
    // Whom the service refuses, and that it cannot be reached.
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

/// At the end of what was printed: the program may wait for an answer.
pub(super) const QUESTIONS: [(&str, Cause); 3] = [
    ("enable remote control? (y/n)", Cause::ConsentAsked),
    ("choose [1/2] (default: 1)", Cause::SpawnModeAsked),
    ("choose [1/2]", Cause::SpawnModeAsked),
];

/// The question whether to trust a directory, which it asks at a terminal: `Trust /srv/website? [y/N]`.
pub(super) const TRUST_QUESTION: &str = "? [y/n]";

/// What it says when it stays for a while after a refusal, and comes to nothing.
pub(super) const LINGERS: &str = "exiting in about";

/// How lines on stderr begin that are no complaints.
pub(super) const REMARKS: [&str; 2] = ["Warning: ", "Resuming session "];

/// How what it says of itself begins among its events on stdout. Other events may hold words of conversations.
pub(super) const OWN_EVENTS: [&str; 3] = ["Error: ", "Warning: Remote Control", "Remote Control"];

/// The events that tell that no conversation can start, in lower case, from their beginning on.
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

/// How the event begins that a conversation failed; what follows is its stderr, of several lines, and its id.
pub(super) const FAILED: &str = "Session failed: ";

/// How the event begins that a conversation went well.
pub(super) const COMPLETED: &str = "Session completed";

/// How the id of a conversation begins.
pub(super) const CONVERSATION_IDS: [&str; 2] = ["session_", "cse_"];

/// How the line begins in which the program shows the session's link. The link is its last word.
pub(super) const OWN_LINES: [&str; 2] = ["Code anywhere with", "Continue coding in"];

/// What the head of the status block says while there is no connection, and how it says for how long.
pub(super) const CONNECTING: &str = "Connecting";
pub(super) const RECONNECTING: &str = "Reconnecting";
pub(super) const DISCONNECTED: &str = "disconnected ";

//! The sections of docs/troubleshooting.md that messages lead to.
//!
//! Invariant: their names stay. They are in messages that were sent, and a test compares them with the page.

use super::Reply;
use crate::remote_control::Cause;

/// The URL of the documentation, without a trailing slash; set where rcbot is built for others. Else messages name the file.
const DOCUMENTATION: Option<&str> = option_env!("RCBOT_DOCUMENTATION");

macro_rules! topics {
    ($($topic:ident => $name:literal,)*) => {
        /// A section of the page.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the page says it")]
        pub enum Topic { $($topic,)* }

        impl Topic {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$topic,)*];

            /// What the page calls it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$topic => $name,)* }
            }
        }
    };
}

topics! {
    AlreadyServed => "already-served",
    ClaudeAccount => "claude-account",
    ClaudeAsks => "claude-asks",
    ClaudeCommand => "claude-command",
    CommandNotFound => "command-not-found",
    CutOff => "cut-off",
    DirectoryNotTrusted => "directory-not-trusted",
    Edits => "edits",
    ExecutedBefore => "executed-before",
    HostDoesNotAnswer => "host-does-not-answer",
    IdentityChanged => "identity-changed",
    NoAnswerFromHomeserver => "no-answer-from-homeserver",
    NoConversationStarts => "no-conversation-starts",
    NoIdentity => "no-identity",
    NoLink => "no-link",
    NotEncrypted => "not-encrypted",
    NotEnded => "not-ended",
    NotListed => "not-listed",
    NotVerified => "not-verified",
    OpenRoom => "open-room",
    Overheard => "overheard",
    PowerLevel => "power-level",
    ServiceUnreachable => "service-unreachable",
    TooFewFiles => "too-few-files",
    TooLate => "too-late",
    Undecryptable => "undecryptable",
    UnknownError => "unknown-error",
    Unresponsive => "unresponsive",
}

impl Topic {
    pub(super) fn of_cause(cause: Cause) -> Option<Self> {
        Some(match cause {
            Cause::NotLoggedIn
            | Cause::LoginRefused
            | Cause::ApiKey
            | Cause::LongLivedToken
            | Cause::ForeignEndpoint
            | Cause::TelemetryOff
            | Cause::SwitchedOff
            | Cause::Policy
            | Cause::NotEnabled
            | Cause::PolicyUnreadable
            | Cause::TrustedDevices
            | Cause::AccessDenied => Self::ClaudeAccount,
            Cause::WorkspaceNotTrusted | Cause::HomeDirectory => Self::DirectoryNotTrusted,
            Cause::TooOld | Cause::CommandLine | Cause::NeedsTerminal | Cause::NotInstalled => {
                Self::ClaudeCommand
            }
            Cause::Certificate
            | Cause::Network
            | Cause::ServiceBusy
            | Cause::ServiceFails
            | Cause::EnvironmentLost => Self::ServiceUnreachable,
            Cause::StalePointer | Cause::AlreadyServed => Self::AlreadyServed,
            Cause::ConsentAsked | Cause::SpawnModeAsked => Self::ClaudeAsks,
            Cause::ProgramGone | Cause::DirectoryGone | Cause::ConversationsFail => {
                Self::NoConversationStarts
            }
            Cause::Unknown => Self::UnknownError,
            Cause::NothingToResume => return None,
        })
    }
}

impl Reply {
    /// The same, with where to read more at its end.
    pub(super) fn more(self, topic: impl Into<Option<Topic>>) -> Self {
        match topic.into() {
            Some(topic) => self.leading_to(DOCUMENTATION, topic),
            None => self,
        }
    }

    fn leading_to(self, documentation: Option<&str>, topic: Topic) -> Self {
        let name = topic.name();
        let (plain, html) = if let Some(base) = documentation {
            let address = format!("{base}/troubleshooting.md#{name}");
            let href = html_escape::encode_double_quoted_attribute(&address);
            let link = format!("<a href=\"{href}\">{name}</a>");
            (address, link)
        } else {
            // As code, as clients take a name that ends in `.md` for an address in Moldova.
            let place = format!("docs/troubleshooting.md#{name}");
            (format!("`{place}`"), format!("<code>{place}</code>"))
        };
        Self {
            plain: format!("{} More: {plain}", self.plain),
            html: format!("{} More: {html}", self.html),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_links_to_the_given_page_or_names_the_file() {
        let said = Reply::new("Not done.");
        let named = said.clone().leading_to(None, Topic::NotListed);
        assert_eq!(
            named.html,
            "Not done. More: <code>docs/troubleshooting.md#not-listed</code>"
        );
        let link = said.leading_to(Some("https://example.org/docs"), Topic::NotListed);
        let address = "https://example.org/docs/troubleshooting.md#not-listed";
        assert_eq!(link.plain, format!("Not done. More: {address}"));
        assert!(link.html.contains(&format!("<a href=\"{address}\">")));
    }
}

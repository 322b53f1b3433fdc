//! Texts that must stay secret: access tokens, the appservice's among them, the account's password, the input and variables
//! that a project gives its sessions, and what these print.
//!
//! Invariant: a secret leaves its type through `expose` only, so that one search finds every place that could leak it. It
//! has no `Display` and no `Serialize`, and its `Debug` shows nothing.

use std::fmt;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// An access token, as it travels in an HTTP header: visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token(SecretText);

/// A text that cannot be a token. The message does not contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is empty or holds more than visible ASCII characters; wanted a long random text")]
pub(crate) struct NotAToken;

impl SecretText {
    /// The text itself: for the homeserver, for the session, or for a file of mode 0600.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it has no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Token {
    /// Checks a text and makes it a secret.
    pub(crate) fn new(text: String) -> Result<Self, NotAToken> {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then_some(Self(SecretText(text)))
            .ok_or(NotAToken)
    }

    /// The token itself: for the homeserver, or for a file of mode 0600.
    pub(crate) fn expose(&self) -> &str {
        &self.0.0
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

//! What proves who the bot is: access tokens, the appservice's among them, and its account's password.
//!
//! Invariant: a secret leaves its type through `expose` alone, so that one search finds every place that could leak it. It
//! has no `Display` and no `Serialize`, and its `Debug` shows nothing.

use std::fmt;

/// An access token: a text of visible ASCII characters, as it travels in an HTTP header.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a text is no token. It never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is empty or holds more than visible ASCII characters; wanted a long random text")]
pub struct NotAToken;

impl Token {
    /// Takes a text for a token.
    ///
    /// # Errors
    /// When it cannot travel in an HTTP header.
    pub fn new(text: String) -> Result<Self, NotAToken> {
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then_some(Self(text)).ok_or(NotAToken)
    }

    /// The token itself: for the homeserver, and the file (mode 0600) that keeps a log-in.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// An account's password: a text that is not empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is empty; wanted the account's password")]
pub struct NotAPassword;

impl Password {
    /// Takes a text for a password.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(text: String) -> Result<Self, NotAPassword> {
        (!text.is_empty()).then_some(Self(text)).ok_or(NotAPassword)
    }

    /// The password itself: for the homeserver, and nobody else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

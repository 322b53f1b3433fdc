//! Texts that must stay secret: access tokens, the appservice's among them, the account's password, the input and variables
//! that a project gives its sessions, and what these print.
//!
//! Invariant: a secret leaves its type through `expose` only, so that one search finds every place that could leak it. It
//! has no `Display` and no `Serialize`, and its `Debug` shows nothing.

use std::{fmt, marker::PhantomData};

/// An access token, as it travels in an HTTP header.
pub type Token = Secret<AccessToken>;

/// An account's password.
pub type Password = Secret<AccountPassword>;

/// A text that may be secret.
pub type SecretText = Secret<AnyText>;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<K>(String, PhantomData<K>);

/// What a secret is for.
pub trait Kind {
    /// What it is called in messages.
    const NAME: &'static str;
    /// The message for a text that is not valid as one.
    const UNFIT: &'static str;

    /// Whether a text is valid as one.
    fn is(text: &str) -> bool;
}

/// Visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessToken {}

/// Any text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountPassword {}

/// Any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyText {}

impl Kind for AccessToken {
    const NAME: &'static str = "a secret text";
    const UNFIT: &'static str =
        "is empty or holds more than visible ASCII characters; wanted a long random text";

    fn is(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl Kind for AccountPassword {
    const NAME: &'static str = "the password";
    const UNFIT: &'static str = "is empty; wanted the account's password";

    fn is(text: &str) -> bool {
        !text.is_empty()
    }
}

impl Kind for AnyText {
    const NAME: &'static str = "a text";
    const UNFIT: &'static str = "";

    fn is(_: &str) -> bool {
        true
    }
}

/// Why a text is not valid as such a secret. It never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotASecret(&'static str);

impl<K: Kind> Secret<K> {
    /// Checks a text and makes it a secret.
    pub fn new(text: String) -> Result<Self, NotASecret> {
        K::is(&text)
            .then_some(Self(text, PhantomData))
            .ok_or(NotASecret(K::UNFIT))
    }
}

impl<K> Secret<K> {
    /// The text itself: for the homeserver, for the session, or for a file of mode 0600.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it has no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned(), PhantomData)
    }
}

impl<K> fmt::Debug for Secret<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

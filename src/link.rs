//! The session's URL, a secret: anyone who has it can run commands on the host.
//!
//! Invariant: a link leaves this type through [`Link::expose`] only, so that one search finds every place that could leak
//! it. It has no `Display` and no `Serialize`, and its `Debug` shows nothing.

use std::fmt;

use url::Url;

/// The URL of one session. Always `https`, always with a host.
#[derive(Clone, PartialEq, Eq)]
pub struct Link(Url);

/// Why a text is not a link. It never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an https URL with a host")]
pub struct NotALink;

impl Link {
    /// Parses a link.
    /// Fails when it does not parse as a URL, is not `https`, has no host, or names a user or a password.
    pub fn parse(text: &str) -> Result<Self, NotALink> {
        let url = Url::parse(text).map_err(|_| NotALink)?;
        let plain = url.scheme() == "https"
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none();
        plain.then_some(Self(url)).ok_or(NotALink)
    }

    /// The URL itself: for the encrypted message, its picture, which is encrypted too, and the record on disk (mode 0600); for
    /// nothing else.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a text is this URL. Reveals nothing to a caller who does not know it already.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_str() == text
    }

    /// Whether the URL begins with a text.
    pub fn starts_with(&self, text: &str) -> bool {
        self.0.as_str().starts_with(text)
    }

    /// The host that the link names; not secret.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Link(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_link() {
        let link = Link::parse("https://claude.ai/code?environment=env_secret").unwrap();
        assert_eq!(format!("{link:?} {link:#?}"), "Link(..) Link(..)");
    }

    #[test]
    fn only_an_https_url_with_a_host_and_without_credentials_is_a_link() {
        for text in [
            "",
            "claude.ai/code",
            "http://claude.ai/code/x",
            "https://",
            "https://claude.ai@evil.example/code/x",
        ] {
            assert_eq!(Link::parse(text), Err(NotALink), "{text}");
        }
        assert_eq!(
            Link::parse("https://claude.ai/code/x").unwrap().host(),
            "claude.ai"
        );
    }
}

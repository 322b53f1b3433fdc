//! The name of a host.

use std::{fmt, str::FromStr};

/// How long a name may be, in bytes: as long as a host name in DNS.
const LONGEST: usize = 253;

/// The name of a host, as people address it: ASCII letters, digits, `-`, `_`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host's name is up to {LONGEST} ASCII letters, digits, '-', '_' or '.'")]
pub(crate) struct InvalidHostName;

impl HostName {
    /// The host name of the system; `unknown-host` if it has none that can be addressed.
    pub(crate) fn of_system() -> Self {
        let name = nix::unistd::gethostname().ok();
        let name = name.and_then(|name| name.to_str()?.parse().ok());
        name.unwrap_or_else(|| Self("unknown-host".to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(name: &str) -> Result<Self, InvalidHostName> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!name.is_empty() && name.len() <= LONGEST && name.bytes().all(known))
            .then(|| Self(name.to_owned()))
            .ok_or(InvalidHostName)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_can_follow_an_at_sign() {
        assert_eq!(
            "build1.example.org".parse::<HostName>().unwrap().as_str(),
            "build1.example.org"
        );
        for name in ["", "a b", "a@b", "<b>", &"x".repeat(254)] {
            assert_eq!(name.parse::<HostName>(), Err(InvalidHostName), "{name}");
        }
    }
}

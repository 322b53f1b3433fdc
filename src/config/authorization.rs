//! Who may give commands: the mapping `authorization`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use matrix_sdk_base::crypto::vodozemac::{Ed25519PublicKey, base64_decode};
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::{
    document::Document,
    values::{self, Kind, User},
};

/// Who may give commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorization {
    /// The power level that a sender needs in the admin room.
    pub(crate) power_level: i64,
    /// If not empty: only these users, and still with the power level. The value is the key of the user's identity; `None`: the
    /// identity that is seen first is pinned.
    pub(crate) users: BTreeMap<OwnedUserId, Option<MasterKey>>,
}

impl Authorization {
    /// Whether the list allows this user, if there is one.
    pub(crate) fn lets(&self, user: &UserId) -> bool {
        self.users.is_empty() || self.users.contains_key(user)
    }
}

/// The public master key of a user's cross-signing identity (specification, "Cross-signing").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MasterKey(Ed25519PublicKey);

/// A text that is not a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in unpadded base64, which has 43 characters")]
pub struct NotAKey;

impl From<Ed25519PublicKey> for MasterKey {
    fn from(key: Ed25519PublicKey) -> Self {
        Self(key)
    }
}

impl FromStr for MasterKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        // The SDK's parser of texts panics at a byte more or less.
        let bytes = base64_decode(text).map_err(|_| NotAKey)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| NotAKey)?;
        Ed25519PublicKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| NotAKey)
    }
}

impl TryFrom<String> for MasterKey {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl From<MasterKey> for String {
    fn from(key: MasterKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_base64())
    }
}

/// A list of users, or a mapping of users to their keys. Anything else is refused, also a key without a value: an empty list
/// would allow everybody.
pub(super) fn read_users(
    path: &str,
    users: &Value,
    document: &Document<'_>,
) -> BTreeMap<OwnedUserId, Option<MasterKey>> {
    let Value::Mapping(users) = users else {
        let users = document.list::<User>(path, users).into_iter();
        return users.map(|user| (user, None)).collect();
    };
    let users = users.iter().filter_map(|(user, key)| {
        let user = user.as_str().unwrap_or_default();
        let read = |key: &Value| user_and_key(user, key);
        document.value(&format!("{path}.{user}"), key, read)
    });
    users.collect()
}

fn user_and_key(user: &str, key: &Value) -> Result<(OwnedUserId, Option<MasterKey>), String> {
    let id = User::of_text(user)?;
    let parsed = key.as_str().and_then(|text| text.parse().ok());
    let parsed = parsed.ok_or_else(|| {
        values::not_wanted(key, format!(
            "the master key of {id} (`rcbot trust {id}` shows it); users whose keys are not written down stand in a list"
        ))
    })?;
    Ok((id, Some(parsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk";

    #[test]
    fn a_master_key_survives_as_text() {
        let key: MasterKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        let stored = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<MasterKey>(&stored).unwrap(), key);
    }

    #[test]
    fn an_invalid_key_is_rejected() {
        for text in [
            "",
            "x",
            &KEY[1..],
            "@alice:example.org",
            "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwkk",
            "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHw=",
            "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHw==",
        ] {
            assert_eq!(text.parse::<MasterKey>(), Err(NotAKey), "{text}");
        }
    }
}

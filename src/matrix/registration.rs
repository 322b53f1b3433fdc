//! registration.yaml: what makes rcbot an appservice. Reads it, checks it against the configuration, writes a new one.
//!
//! The homeserver reads the same file, and other software adds its own keys, so unknown keys are allowed here.
//!
//! Invariant: no message shows a token.

use std::{
    fs, io, mem,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use matrix_sdk::ruma::UserId;
use regex::Regex;
use serde::Deserialize;
use serde_yaml::Value;

use crate::{
    atomic_file,
    config::{
        FileError, Problem, Problems,
        document::{self, Document, Given},
        values::{self, Anything, Flag, Kind, Name, Text},
    },
    secret::Token,
};

/// The remedy for a missing registration.
const MISSING: &str = "write one with `rcbot registration --config` and the path of your config.yaml, and give it to the \
                       homeserver too";

/// The placeholder for a token in the committed template.
const PLACEHOLDER: &str = "REPLACE_ME";

/// The key of MSC4190, by its unstable name.
const DEVICE_MANAGEMENT: &str = "io.element.msc4190";

/// A registration that lets the bot's user log in.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Proves to the homeserver that we are the appservice.
    pub as_token: Token,
    /// Whether the appservice creates and deletes its users' devices (MSC4190), as the homeserver lets none of them log in.
    pub has_device_management: bool,
    warnings: Vec<Problem>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    /// The same errors as for every file that people write.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file covers other users than the bot's: it or the configuration names the wrong one. There may be other problems
    /// too.
    #[error(transparent)]
    OfAnotherUser(Problems),
}

impl Registration {
    /// Reads a file and checks it against the bot's user: that user must lie in an exclusive namespace, and must not be
    /// the `sender_localpart`, for which Synapse answers 500 to `/sync`.
    /// The error lists every problem with its line and what is wanted.
    pub(crate) fn load(path: &Path, bot_user: &UserId) -> Result<Self, RegistrationError> {
        let text = document::text_of(path, MISSING)?;
        let is_open = fs::metadata(path)
            .is_ok_and(|metadata| metadata.permissions().mode() & READABLE_BY_OTHERS != 0);
        let mut registration = Self::parse(path, &text, bot_user)?;
        if is_open {
            let message = "every user of this host can read the tokens in it; chmod o-rwx it";
            let problem = Problem::new(path, None, "", message);
            registration.warnings.push(problem);
        }
        Ok(registration)
    }

    /// Valid but suspicious settings, such as a `url` on which nothing listens.
    pub(crate) fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    fn parse(file: &Path, text: &str, bot_user: &UserId) -> Result<Self, RegistrationError> {
        let mut cover = None;
        let convert = |mut given: RegistrationFile, document: &Document<'_>| {
            let users = mem::take(&mut given.namespaces.users);
            cover = check_users(users, bot_user, document);
            given.into_registration(file, bot_user, document)
        };
        let read = document::read(file, Path::new(""), text, convert);
        read.map_err(|problems| match cover {
            Some(Cover::Other) => RegistrationError::OfAnotherUser(problems),
            Some(Cover::Unknown | Cover::Shared | Cover::Exclusive) | None => {
                FileError::from(problems).into()
            }
        })
    }
}

/// The permission of users who are neither the owner nor in the group to read a file.
const READABLE_BY_OTHERS: u32 = 0o004;

/// The file, without the keys of other software.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RegistrationFile {
    id: Given<Name>,
    as_token: Given<FilledIn>,
    hs_token: Given<FilledIn>,
    sender_localpart: Given<Name>,
    url: Given<Anything>,
    #[serde(rename = "io.element.msc4190")]
    has_device_management: Given<Flag>,
    namespaces: Namespaces,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespaces {
    users: Vec<Namespace>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace {
    regex: Given<Text>,
    exclusive: Given<Flag>,
}

impl RegistrationFile {
    fn into_registration(
        self,
        file: &Path,
        bot_user: &UserId,
        document: &Document<'_>,
    ) -> Option<Registration> {
        document.required("id", self.id);
        let as_token = document.required("as_token", self.as_token);
        let hs_token = document.required("hs_token", self.hs_token);
        if as_token.is_some() && as_token == hs_token {
            let message = "is the same as as_token; wanted two different secrets";
            document.problem("hs_token", message);
        }
        let sender = document.required("sender_localpart", self.sender_localpart);
        let bot = bot_user.localpart();
        if sender.as_deref() == Some(bot) {
            let message = format!(
                "is {bot:?}, the bot's own user (bot.localpart in config.yaml), for which Synapse cannot /sync; wanted a name \
                 that nobody uses, such as \"{bot}-appservice\""
            );
            document.problem("sender_localpart", message);
        }
        let url = self.url.0.unwrap_or(Value::Null);
        if document.value("url", &url, is_url) == Some(true) {
            let message = "is not null: the homeserver will push events there, where nothing listens: make it null";
            document.warning("url", message);
        }
        Some(Registration {
            file: file.to_owned(),
            has_device_management: self.has_device_management.or(false),
            as_token: as_token?,
            warnings: document.take_warnings(),
        })
    }
}

/// A token that was filled in; no message shows the value.
enum FilledIn {}

impl Kind for FilledIn {
    type Value = Token;

    fn read(value: &Value) -> Result<Token, String> {
        let text = value.as_str();
        if text.is_some_and(|text| text.contains(PLACEHOLDER)) {
            return Err(format!(
                "still holds the template's placeholder {PLACEHOLDER}; remove the file and write one with fresh tokens: \
                 `rcbot registration --config` and the path of your config.yaml"
            ));
        }
        values::token(value)
    }
}

fn is_url(value: &Value) -> Result<bool, String> {
    match value {
        Value::Null => Ok(false),
        Value::String(url) => Ok(!url.is_empty()),
        _ => Err(values::not_wanted(value, "null")),
    }
}

/// How far an entry of `namespaces.users` covers the bot's user, from nothing to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cover {
    /// It covers only other users.
    Other,
    /// The `regex` crate cannot parse its regex: homeservers support other dialects.
    Unknown,
    /// It covers the bot's user, but others may take it too.
    Shared,
    /// It reserves the bot's user for this appservice.
    Exclusive,
}

/// The coverage by all entries. `None`: an entry is invalid, which was reported already.
fn check_users(
    entries: Vec<Namespace>,
    bot_user: &UserId,
    document: &Document<'_>,
) -> Option<Cover> {
    let mut covers = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let at = format!("namespaces.users[{index}]");
        covers.push(read_namespace(&at, entry, bot_user, document));
    }
    let covers = covers.into_iter().collect::<Option<Vec<_>>>()?;
    let cover = covers.into_iter().max();
    let regex = namespace_regex(bot_user);
    let wanted = format!("wanted an entry with `exclusive: true` and `regex: '{regex}'`");
    match cover.unwrap_or(Cover::Other) {
        Cover::Exclusive => {}
        Cover::Shared => document.problem(
            "namespaces.users",
            format!("the entry for the bot's user {bot_user} is not exclusive, so others can take it; {wanted}"),
        ),
        Cover::Unknown => document.warning(
            "namespaces.users",
            format!("cannot tell whether a regex here matches {bot_user}; {wanted}"),
        ),
        Cover::Other => document.problem(
            "namespaces.users",
            format!(
                "no regex here matches {bot_user}, the bot's user by bot.localpart and homeserver.server_name in \
                 config.yaml; {wanted}"
            ),
        ),
    }
    cover
}

fn read_namespace(
    at: &str,
    entry: Namespace,
    bot_user: &UserId,
    document: &Document<'_>,
) -> Option<Cover> {
    let regex = document.required(&format!("{at}.regex"), entry.regex);
    let is_exclusive = document.required(&format!("{at}.exclusive"), entry.exclusive)?;
    // The whole id must match: homeservers differ in how they treat a partial match.
    let Ok(regex) = Regex::new(&format!("^(?:{})$", regex?)) else {
        return Some(Cover::Unknown);
    };
    let cover = match (regex.is_match(bot_user.as_str()), is_exclusive) {
        (false, _) => Cover::Other,
        (true, false) => Cover::Shared,
        (true, true) => Cover::Exclusive,
    };
    Some(cover)
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file exists. The homeserver may know its tokens, so it is not overwritten.
    #[error(
        "{path} exists already and is left as it is: remove it, or name another file with --output"
    )]
    Exists { path: PathBuf },
    #[error(
        "cannot write {path}: its folder must exist, and the user who runs rcbot must be allowed to write there"
    )]
    Unwritable { path: PathBuf, source: io::Error },
}

/// The text of a registration for the bot's user, with two fresh tokens of 256 bits: a secret. Device management is for a
/// homeserver with Matrix Authentication Service, which lets no appservice log in; newer homeservers take that for granted.
pub fn generate(bot_user: &UserId, has_device_management: bool) -> String {
    let localpart = bot_user.localpart();
    let as_token = random_token();
    let hs_token = random_token();
    let regex = namespace_regex(bot_user);
    let device_management = if has_device_management {
        format!(
            "# The appservice makes and deletes its users' devices itself: it is not logged in.\n{DEVICE_MANAGEMENT}: true\n"
        )
    } else {
        String::new()
    };
    format!(
        "\
# Lets rcbot act as {bot_user}. Keep it secret: whoever can read it can be the bot.
# The homeserver needs a copy: `rcbot check` says how it gets one.
id: '{localpart}'
# rcbot opens no port, so the homeserver has nothing to push events to.
url: null
as_token: '{as_token}'
hs_token: '{hs_token}'
# A name that nobody uses. Not the bot's user: Synapse cannot /sync as the sender.
sender_localpart: '{localpart}-appservice'
rate_limited: false
namespaces:
  users:
    - exclusive: true
      regex: '{regex}'
  aliases: []
  rooms: []
{device_management}"
    )
}

/// Writes the text to a new file with mode 0600: all of it, or no file. The file must not exist yet.
pub fn write_new(path: &Path, text: &str) -> Result<(), WriteError> {
    atomic_file::write_new(path, text.as_bytes()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Exists {
            path: path.to_owned(),
        },
        _ => WriteError::Unwritable {
            path: path.to_owned(),
            source,
        },
    })
}

/// A regular expression that matches only the user's id. Synapse matches from the beginning, hence the `$`.
fn namespace_regex(bot_user: &UserId) -> String {
    format!("{}$", regex::escape(bot_user.as_str()))
}

/// 256 random bits, in hexadecimal digits.
fn random_token() -> String {
    let bits = rand::random::<[u128; 2]>();
    bits.map(|half| format!("{half:032x}")).concat()
}

#[cfg(test)]
mod tests;

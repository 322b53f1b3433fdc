//! Makes a registration with fresh tokens and writes it to a new file.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use matrix_sdk::ruma::UserId;
use rand::{
    TryRng,
    rngs::{SysError, SysRng},
};

use super::DEVICE_MANAGEMENT;

/// Why no registration was written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The system has no random numbers for the tokens.
    #[error("the system gives no random numbers for the tokens")]
    NoRandomness(#[source] SysError),
    /// There is such a file. The homeserver may know its tokens, so it is left alone.
    #[error(
        "{path} exists already and is left as it is: remove it, or name another file with --output"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error(
        "cannot write {path}: its folder must exist, and the user who runs rcbot must be allowed to write there"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The text of a registration for the bot's user, with two fresh tokens of 256 bits. A secret as a whole.
///
/// # Errors
/// When the system has no random numbers.
pub fn generate(bot_user: &UserId) -> Result<String, GenerateError> {
    let localpart = bot_user.localpart();
    let as_token = random_token().map_err(GenerateError::NoRandomness)?;
    let hs_token = random_token().map_err(GenerateError::NoRandomness)?;
    let regex = namespace_regex(bot_user);
    Ok(format!(
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
"
    ))
}

/// The same for a homeserver with Matrix Authentication Service, which logs in no appservice. Newer homeservers take for
/// granted what it says.
///
/// # Errors
/// When the system has no random numbers.
pub fn generate_with_device_management(bot_user: &UserId) -> Result<String, GenerateError> {
    let text = generate(bot_user)?;
    Ok(format!(
        "{text}# The appservice makes and deletes its users' devices itself: it is not logged in.\n{DEVICE_MANAGEMENT}: true\n"
    ))
}

/// Writes the text to a file that must not exist yet, mode 0600: the whole of it, or no file at all.
///
/// # Errors
/// When there is such a file, or when it cannot be written.
pub fn write_new(path: &Path, text: &str) -> Result<(), GenerateError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    try_write_new(path, folder, text).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => GenerateError::Exists {
            path: path.to_owned(),
        },
        _ => GenerateError::Unwritable {
            path: path.to_owned(),
            source,
        },
    })
}

/// A regular expression for the user's id and nothing else. Synapse looks for a match at the beginning, hence the `$`.
pub(super) fn namespace_regex(bot_user: &UserId) -> String {
    format!("{}$", regex::escape(bot_user.as_str()))
}

fn try_write_new(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(folder)?.sync_all()
}

/// 256 bits of the system's randomness, in hexadecimal digits.
fn random_token() -> Result<String, SysError> {
    let word = || SysRng.try_next_u64();
    Ok(format!(
        "{:016x}{:016x}{:016x}{:016x}",
        word()?,
        word()?,
        word()?,
        word()?
    ))
}

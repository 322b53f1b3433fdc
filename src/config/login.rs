//! How the bot logs in: as an appservice's user, or with a secret in the section `bot`. Exactly one way.

use std::path::{Path, PathBuf};

use super::{check, section::Section};
use crate::secret::{Password, Token};

/// How the bot logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginMethod {
    /// As an appservice's user.
    Appservice {
        /// The registration file. Absolute; not looked at yet.
        registration: PathBuf,
    },
    /// With the token of a log-in that somebody has made for the bot.
    AccessToken(Token),
    /// With the account's password.
    Password(Password),
}

/// Something is wrong, and has been noted.
pub(super) struct Noted;

/// What the section `bot` says of it, if anything.
pub(super) fn read_secret(bot: &mut Section<'_>) -> Result<Option<LoginMethod>, Noted> {
    let given = (bot.has("access_token"), bot.has("password"));
    let token = bot.optional("access_token", check::token);
    let password = bot.optional("password", check::password);
    let secret = match given {
        (false, false) => return Ok(None),
        (true, false) => token.map(LoginMethod::AccessToken),
        (false, true) => password.map(LoginMethod::Password),
        (true, true) => {
            let message = "is given beside bot.access_token, and the bot logs in one way; remove one of the two";
            bot.problem("password", message);
            None
        }
    };
    secret.map(Some).ok_or(Noted)
}

/// The one way. Without any word about it, it is the appservice's.
pub(super) fn read(
    root: &mut Section<'_>,
    secret: Result<Option<LoginMethod>, Noted>,
    folder: &Path,
) -> Option<LoginMethod> {
    let has_appservice = root.has("appservice");
    let registration = root.section("appservice", |appservice| {
        let default = folder.join("registration.yaml");
        appservice.or("registration", default, check::path(folder))
    });
    match secret {
        Ok(None) => Some(LoginMethod::Appservice { registration }),
        Ok(secret) if !has_appservice => secret,
        Ok(Some(_)) => {
            let message = "is given beside bot.access_token or bot.password, and the bot logs in one way; remove this \
                           section, or the other key";
            root.problem("appservice", message);
            None
        }
        Err(Noted) => None,
    }
}

//! The bot's cross-signing identity, and the recovery key that brings it back.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use matrix_sdk::ruma::{
    events::{EventContentFromType as _, secret_storage::key::SecretStorageKeyEventContent},
    serde::Raw,
};
use serde_json::Value;

use super::{
    Outcome,
    api::{Api, Asker, Trouble},
    host::unreadable,
    vantage::Vantage,
};
use crate::{
    matrix::{MatrixFolder, RECOVERY_KEY_VARIABLE, RecoveryKey},
    shell,
};

/// Nobody but the owner may know the key.
const OTHERS: u32 = 0o077;

/// Looks at the identity that the homeserver knows, and whether the key opens its secrets.
pub(super) async fn judge(api: &Api<'_>, vantage: &Vantage) -> Result<Outcome, Outcome> {
    let folder = &api.folder;
    let file = folder.recovery_key();
    let key = find(folder, vantage)?;
    let (path, user) = (file.display(), api.bot());
    let shown = api.identities(&[user]).await?;
    let shown = shown.of(user).map(str::to_owned);
    Ok(match (&shown, key) {
        (None, None) => Outcome::passed("none yet; the bot's first run makes both"),
        (None, Some(key)) => Outcome::warning(
            format!(
                "{} is there, and the homeserver knows no identity of {user}",
                key.origin()
            ),
            "run the bot, which makes one",
        ),
        (Some(_), None) if folder.own_identity() == shown => Outcome::warning(
            format!("there is no {path}: if the Matrix store is lost, so is the identity"),
            "restart the bot, which writes a recovery key",
        ),
        (Some(_), None) => Outcome::failed(
            format!(
                "the homeserver knows an identity of {user}, and neither its keys nor {path} are here"
            ),
            put_back(api, &file),
        ),
        (Some(_), Some(key)) => match opens_secrets(api, &key).await? {
            Some(true) => Outcome::passed(format!(
                "{} unlocks the bot's identity; keep a copy off this host",
                key.origin()
            )),
            Some(false) => Outcome::failed(
                format!(
                    "{} does not open the secrets that the homeserver keeps",
                    key.origin()
                ),
                put_back(api, &file),
            ),
            None => Outcome::warning(
                "the homeserver keeps no secrets that a recovery key could open",
                "restart the bot, which stores them and writes a new key",
            ),
        },
    })
}

fn put_back(api: &Api<'_>, file: &Path) -> String {
    format!(
        "put your copy of the recovery key at {}, or into the variable {RECOVERY_KEY_VARIABLE}; if it is lost, stop the bot, \
         `rcbot reset-identity --config {}`, and start it",
        file.display(),
        shell::word(&api.config.file)
    )
}

/// `Err`: there is one, but with a problem.
fn find(folder: &MatrixFolder, vantage: &Vantage) -> Result<Option<RecoveryKey>, Outcome> {
    let variable = vantage.environment.get(OsStr::new(RECOVERY_KEY_VARIABLE));
    let key = RecoveryKey::find(variable.map(OsString::as_os_str), folder)
        .map_err(|fault| unreadable(&fault))?;
    if let Some(file) = key.as_ref().and_then(RecoveryKey::file) {
        let mode = fs::metadata(file).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & OTHERS != 0) {
            return Err(Outcome::failed(
                format!("other users of this host can read {}", file.display()),
                format!("`chmod 600 {}`", shell::word(file)),
            ));
        }
    }
    Ok(key)
}

/// Compares the key with the proof stored beside the secrets. `None`: there are no secrets.
async fn opens_secrets(api: &Api<'_>, key: &RecoveryKey) -> Result<Option<bool>, Trouble> {
    let kind = "m.secret_storage.default_key";
    let default = account_data(api, kind).await?;
    let Some(id) = default.as_ref().and_then(|it| it.get("key")?.as_str()) else {
        return Ok(None);
    };
    let kind = format!("m.secret_storage.key.{id}");
    let Some(description) = account_data(api, &kind).await? else {
        return Ok(None);
    };
    let description = Raw::new(&description)
        .and_then(|raw| SecretStorageKeyEventContent::from_parts(&kind, raw.json()));
    // A proof of an unknown kind does not fit the key.
    Ok(Some(
        description.is_ok_and(|description| key.fits(description)),
    ))
}

async fn account_data(api: &Api<'_>, kind: &str) -> Result<Option<Value>, Trouble> {
    let user = api.bot().as_str();
    let path = ["client", "v3", "user", user, "account_data", kind];
    api.find(Asker::Bot, &path, "").await
}

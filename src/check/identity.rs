//! The bot's cross-signing identity, and the recovery key that brings it back.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use matrix_sdk::ruma::{
    UserId,
    events::{EventContentFromType as _, secret_storage::key::SecretStorageKeyEventContent},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Outcome, Report,
    api::{Api, Asker, Trouble},
    homeserver::unexpected,
    vantage::Vantage,
    which_room::unreadable,
};
use crate::{
    data_dir,
    matrix::{MatrixFolder, RECOVERY_KEY_VARIABLE, RecoveryKey},
};

pub(super) const IDENTITY: &str = "identity and recovery key";

/// Nobody but the owner may know the key.
const OTHERS: u32 = 0o077;

/// What the homeserver knows of the bot's keys.
#[derive(Debug, Deserialize)]
struct Keys {
    #[serde(default)]
    master_keys: BTreeMap<String, MasterKeys>,
}

#[derive(Debug, Deserialize)]
struct MasterKeys {
    keys: BTreeMap<String, String>,
}

/// Looks at the identity that the homeserver knows, and whether the key opens its secrets.
pub(super) async fn look(report: &mut Report, api: &Api<'_>, vantage: &Vantage) {
    let outcome = judge(api, vantage)
        .await
        .unwrap_or_else(|trouble| unexpected(&trouble));
    report.add(IDENTITY, outcome);
}

async fn judge(api: &Api<'_>, vantage: &Vantage) -> Result<Outcome, Trouble> {
    let folder = MatrixFolder::new(data_dir::matrix(&api.config.data_dir));
    let file = folder.recovery_key();
    let key = match find(&folder, vantage) {
        Ok(key) => key,
        Err(outcome) => return Ok(outcome),
    };
    let (path, user) = (file.display(), api.bot());
    let body = json!({ "device_keys": { user.as_str(): [] } });
    let path_of_keys = ["client", "v3", "keys", "query"];
    let keys: Keys = api.post(Asker::Bot, &path_of_keys, &body).await?;
    let shown = keys.identity(user);
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
                "{} opens the secrets of the identity; keep a copy of it elsewhere",
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

impl Keys {
    /// The public key of this user's identity.
    fn identity(&self, user: &UserId) -> Option<String> {
        let keys = &self.master_keys.get(user.as_str())?.keys;
        Some(keys.values().next().cloned().unwrap_or_default())
    }
}

fn put_back(api: &Api<'_>, file: &Path) -> String {
    format!(
        "put your copy of the recovery key at {}, or into the variable {RECOVERY_KEY_VARIABLE}; if it is lost, stop the bot, \
         `rcbot reset-identity --config {}`, and start it",
        file.display(),
        api.config.file.display()
    )
}

/// `Err`: there is something, and it is not as it should be.
fn find(folder: &MatrixFolder, vantage: &Vantage) -> Result<Option<RecoveryKey>, Outcome> {
    let variable = vantage.environment.get(OsStr::new(RECOVERY_KEY_VARIABLE));
    let key = RecoveryKey::find(variable.map(OsString::as_os_str), folder)
        .map_err(|fault| unreadable(&fault))?;
    if let Some(file) = key.as_ref().and_then(RecoveryKey::file) {
        let mode = fs::metadata(file).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & OTHERS != 0) {
            let file = file.display();
            return Err(Outcome::failed(
                format!("other users of this host can read {file}"),
                format!("`chmod 600 {file}`"),
            ));
        }
    }
    Ok(key)
}

/// Compares the key with the proof that stands beside the secrets. `None`: there are no secrets.
async fn opens_secrets(api: &Api<'_>, key: &RecoveryKey) -> Result<Option<bool>, Trouble> {
    let default = account_data(api, "m.secret_storage.default_key").await?;
    let id = default.as_ref().and_then(|content| content.get("key"));
    let Some(id) = id.and_then(Value::as_str) else {
        return Ok(None);
    };
    let kind = format!("m.secret_storage.key.{id}");
    let Some(description) = account_data(api, &kind).await? else {
        return Ok(None);
    };
    let description = Raw::new(&description)
        .and_then(|raw| SecretStorageKeyEventContent::from_parts(&kind, raw.json()));
    // What we do not know how to read is not what the key is for.
    Ok(Some(
        description.is_ok_and(|description| key.fits(description)),
    ))
}

async fn account_data(api: &Api<'_>, kind: &str) -> Result<Option<Value>, Trouble> {
    let path = [
        "client",
        "v3",
        "user",
        api.bot().as_str(),
        "account_data",
        kind,
    ];
    api.find(Asker::Bot, &path, &[]).await
}

//! The homeserver: whether it answers, and whether the bot can hear.

use std::time::SystemTime;

use matrix_sdk::ruma::{OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Blocked, Outcome, Report,
    account::who_am_i,
    api::{Api, Asker, Cause, Trouble},
    files::replace_registration,
};
use crate::{
    config::Config,
    matrix::{Login, Skew},
};

pub(super) const REACHED: &str = "homeserver";
pub(super) const SYNC: &str = "sync";

/// What /sync says that matters here.
#[derive(Debug, Deserialize)]
struct Sync {
    #[serde(rename = "next_batch")]
    _next_batch: String,
    #[serde(default)]
    rooms: Value,
}

#[derive(Debug, Deserialize)]
struct Versions {
    versions: Vec<String>,
}

/// The way to the homeserver, where this host has one.
pub(super) fn set_up<'a>(
    report: &mut Report,
    config: &'a Config,
    login: Option<&'a Login>,
) -> Result<Api<'a>, Blocked> {
    Api::new(config, login).map_err(|cause| {
        let outcome = Outcome::failed(
            format!("this host can make no requests ({cause})"),
            "install the system's root certificates (in Debian the package `ca-certificates`), and restart the bot",
        );
        report.add(REACHED, outcome);
        "this host can make no requests"
    })
}

/// Whether a homeserver is where the configuration says.
pub(super) async fn reach(report: &mut Report, api: &Api<'_>) -> Result<(), Blocked> {
    let url = &api.config.homeserver_url;
    let answer = api.get(Asker::Nobody, &["client", "versions"], &[]).await;
    let newest = answer.map(|Versions { versions }| versions.last().cloned().unwrap_or_default());
    let (outcome, then) = match newest {
        Ok(newest) => {
            let software = software(api).await;
            let found = format!("{software} at {url}, up to Matrix {newest}");
            (judge_clock(api, found).await, Ok(()))
        }
        Err(Trouble {
            cause: Cause::Unreachable(cause),
            ..
        }) => (
            Outcome::failed(
                format!("{url} does not answer ({cause})"),
                "start the homeserver, or correct `homeserver.url` in config.yaml",
            ),
            Err("the homeserver does not answer"),
        ),
        Err(trouble) if trouble.is_not_matrix() => (
            Outcome::failed(
                format!("{url} is not a Matrix client-server API ({trouble})"),
                "correct `homeserver.url` in config.yaml: it is where the client-server API is; if it is right, let the \
                 reverse proxy there pass all requests below `/_matrix` on to the homeserver",
            ),
            Err("there is no homeserver"),
        ),
        Err(trouble) => (
            Outcome::failed(format!("at {url}: {trouble}"), trouble.remedy()),
            Err("the homeserver does not answer"),
        ),
    };
    report.step(REACHED, outcome, then)
}

/// Commands are dropped for their age by both clocks.
async fn judge_clock(api: &Api<'_>, found: String) -> Outcome {
    let own = SystemTime::now();
    let skew = |time| Skew::between(own, time, api.config.max_command_age);
    match api.time().await.and_then(skew) {
        None => Outcome::passed(found),
        Some(skew) => Outcome::warning(
            format!(
                "{found}, and the clock of this host is {skew}: commands seem too old or from the future, and do not count"
            ),
            "set the time of this host, or of the homeserver's",
        ),
    }
}

/// A courtesy: many homeservers have this part of them behind another port.
async fn software(api: &Api<'_>) -> String {
    let path = ["federation", "v1", "version"];
    let answer: Value = api.get(Asker::Nobody, &path, &[]).await.unwrap_or_default();
    let part = |key: &str| Some(answer.pointer(key)?.as_str()?.to_owned());
    match (part("/server/name"), part("/server/version")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        _ => "a homeserver".to_owned(),
    }
}

/// Whether the bot can hear: some homeservers refuse that to appservices. Gives what /sync says of the room; `None`, where
/// only the bot's device can tell, which there is not yet.
pub(super) async fn try_sync(
    report: &mut Report,
    api: &Api<'_>,
    room: Option<&RoomId>,
) -> Result<Option<Value>, Blocked> {
    let nothing = json!({ "not_types": ["*"] });
    let filter = json!({
        "presence": nothing,
        "account_data": nothing,
        "room": {
            "rooms": room.as_slice(),
            // Synapse gives its last answer again to whoever asks the same within two minutes.
            "timeline": { "limit": rand::random_range(1..10_000), "not_types": ["*"] },
            "state": nothing,
            "ephemeral": nothing,
            "account_data": nothing,
        },
    });
    let filter = filter.to_string();
    let query = [
        ("timeout", "0"),
        ("set_presence", "offline"),
        ("filter", filter.as_str()),
    ];
    let path = ["client", "v3", "sync"];
    let answer = api.get(Asker::Bot, &path, &query).await;
    let cannot = Err("the bot cannot /sync");
    let (outcome, then) = match answer {
        Ok(Sync { rooms, .. }) => (Outcome::passed("answers"), Ok(Some(rooms))),
        Err(trouble) => match fails_as_sender(api, &trouble).await {
            Some(outcome) => (outcome, cannot),
            None if api.is_without_device() && trouble.is_refusal() => (
                Outcome::skipped(format!(
                    "the bot has no device yet, and without one the homeserver refuses it ({trouble}); run the bot, and \
                     check again"
                )),
                Ok(None),
            ),
            None => (unexpected(&trouble), cannot),
        },
    };
    report.step(SYNC, outcome, then)
}

/// Synapse fails so for the user that its registration names as the sender.
async fn fails_as_sender(api: &Api<'_>, trouble: &Trouble) -> Option<Outcome> {
    let Some(Login::Appservice(registration)) = api.login else {
        return None;
    };
    let sender: OwnedUserId = who_am_i(api, Asker::Token).await.ok()?;
    (sender == api.bot()).then(|| {
        Outcome::failed(
            format!(
                "{trouble}, as Synapse does for the `sender_localpart` of a registration, which the bot is there"
            ),
            format!(
                "set `bot.localpart` in config.yaml to another name, {}, and restart the bot",
                replace_registration(&registration.file, &api.config.file)
            ),
        )
    })
}

/// What nobody foresees is told as it is.
pub(super) fn unexpected(trouble: &Trouble) -> Outcome {
    Outcome::failed(trouble.to_string(), trouble.remedy())
}

//! The homeserver: whether it answers, and whether the bot can hear.

use std::time::SystemTime;

use matrix_sdk::ruma::RoomId;
use serde_json::{Value, json};

use super::{
    Blocked, Outcome, Report,
    api::{Api, Asker, Trouble},
    files::replace_registration,
};
use crate::{
    config::Config,
    matrix::{Login, Skew},
};

pub(super) const REACHED: &str = "homeserver";
pub(super) const SYNC: &str = "sync";

/// The way to the homeserver, where this host has one.
pub(super) fn set_up<'a>(
    report: &mut Report,
    config: &'a Config,
    login: Option<&'a Login>,
) -> Result<Api<'a>, Blocked> {
    Api::new(config, login).map_err(|cause| {
        let outcome = Outcome::failed(
            format!("this host can make no requests ({cause})"),
            "install the system's root certificates (in Debian the package `ca-certificates`), and start the bot again",
        );
        report.add(REACHED, outcome);
        "this host can make no requests"
    })
}

/// Whether a homeserver is where the configuration says.
pub(super) async fn reach(report: &mut Report, api: &Api<'_>) -> Result<(), Blocked> {
    let url = &api.config.homeserver_url;
    let answer = api.get(Asker::Nobody, &["client", "versions"], &[]).await;
    let newest = answer.as_ref().ok().and_then(newest_version);
    let (outcome, blocked) = match (answer, newest) {
        (Ok(_), Some(newest)) => {
            let software = software(api).await;
            let found = format!("{software} at {url}, up to Matrix {newest}");
            (judge_clock(api, found).await, None)
        }
        (Err(Trouble::Unreachable(cause)), _) => (
            Outcome::failed(
                format!("{url} does not answer ({cause})"),
                "start the homeserver, or correct `homeserver.url` in config.yaml",
            ),
            Some("the homeserver does not answer"),
        ),
        (Ok(_), None) | (Err(Trouble::Refused { .. } | Trouble::Nonsense), _) => (
            Outcome::failed(
                format!("what answers at {url} is no Matrix homeserver"),
                "correct `homeserver.url` in config.yaml: it is where the client-server API is",
            ),
            Some("there is no homeserver"),
        ),
    };
    report.add(REACHED, outcome);
    blocked.map_or(Ok(()), Err)
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

fn newest_version(answer: &Value) -> Option<String> {
    let versions = answer.get("versions")?.as_array()?;
    versions.last()?.as_str().map(str::to_owned)
}

/// A courtesy: many homeservers have this part of them behind another port.
async fn software(api: &Api<'_>) -> String {
    let path = ["federation", "v1", "version"];
    let answer = api.get(Asker::Nobody, &path, &[]).await.unwrap_or_default();
    let part = |key: &str| Some(answer.pointer(key)?.as_str()?.to_owned());
    match (part("/server/name"), part("/server/version")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        _ => "a homeserver".to_owned(),
    }
}

/// Whether the bot can hear: some homeservers refuse that to appservices. Gives what /sync says of the room.
pub(super) async fn try_sync(
    report: &mut Report,
    api: &Api<'_>,
    room: Option<&RoomId>,
) -> Result<Value, Blocked> {
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
    let outcome = match &answer {
        Ok(answer) if answer.get("next_batch").is_some() => Outcome::passed("answers"),
        Ok(_) => unexpected(&Trouble::Nonsense),
        Err(trouble) => fails_as_sender(api, trouble).unwrap_or_else(|| unexpected(trouble)),
    };
    report.add(SYNC, outcome);
    answer.map_err(|_| "the bot cannot /sync")
}

/// Synapse fails so for the user that its registration names as the sender.
fn fails_as_sender(api: &Api<'_>, trouble: &Trouble) -> Option<Outcome> {
    let (
        Trouble::Refused {
            status: 500, code, ..
        },
        Some(Login::Appservice(registration)),
    ) = (trouble, api.login)
    else {
        return None;
    };
    Some(Outcome::failed(
        format!(
            "the homeserver fails (500 {code}), as Synapse does for the `sender_localpart` of a registration"
        ),
        format!(
            "set `bot.localpart` in config.yaml to another name, {}, and start the bot again; if that is not it, the \
             homeserver's log tells more",
            replace_registration(&registration.file, &api.config.file)
        ),
    ))
}

/// What nobody foresees is told as it is.
pub(super) fn unexpected(trouble: &Trouble) -> Outcome {
    Outcome::failed(
        format!("the homeserver gives {trouble}"),
        "look into the homeserver's log, and at what stands between it and the bot",
    )
}

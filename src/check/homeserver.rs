//! The homeserver: whether it answers, its name, whether it knows the bot, and whether it lets the bot sync.

use std::time::SystemTime;

use matrix_sdk::ruma::{OwnedServerName, OwnedUserId, http_headers::http_date_to_system_time};
use serde_json::{Value, json};

use super::{
    Found, Outcome,
    api::{Api, Asker, Trouble},
    host::{replace_registration, unreadable},
};
use crate::{
    config::Config,
    http::{self, Answer, Cause},
    matrix::{HomeserverKind, Login, Registration, clock_skew},
};

pub(super) async fn reach<'a>(config: &'a Config, login: Option<&'a Login>) -> Found<Api<'a>> {
    let api = Api::new(config, login).map_err(|error| {
        Outcome::failed(
            format!("this host can make no requests ({})", http::innermost(&error)),
            "install the system's root certificates (in Debian the package `ca-certificates`), and restart the bot",
        )
    })?;
    let url = &config.homeserver_url;
    let path = ["client", "versions"];
    let read = |answer: &Answer| {
        let versions: Vec<String> = answer.part("/versions")?;
        let date = answer.headers.get("date");
        let time = date.and_then(|date| http_date_to_system_time(date).ok());
        Some((versions.last().cloned().unwrap_or_default(), time))
    };
    match api.send(Asker::Nobody, &path, &[], None, read).await {
        Ok((newest, time)) => {
            let found = format!("{} at {url}, up to Matrix {newest}", software(&api).await);
            Ok((judge_clock(&api, found, time), api))
        }
        Err(Trouble {
            cause: Cause::Unreachable(cause),
            ..
        }) => Err(Outcome::failed(
            format!("{url} does not answer ({cause})"),
            "start the homeserver, or correct `homeserver.url` in config.yaml",
        )),
        Err(trouble) if trouble.is_not_matrix() => Err(Outcome::failed(
            format!("{url} is not a Matrix client-server API ({trouble})"),
            "correct `homeserver.url` in config.yaml: it is where the client-server API is; if it is right, let the reverse \
             proxy there pass all requests below `/_matrix` on to the homeserver",
        )),
        Err(trouble) => Err(Outcome::failed(
            format!("at {url}: {trouble}"),
            trouble.remedy(),
        )),
    }
}

/// The age of a command depends on both clocks.
fn judge_clock(api: &Api<'_>, found: String, time: Option<SystemTime>) -> Outcome {
    let skew = |time| clock_skew(SystemTime::now(), time, api.config.max_command_age);
    match time.and_then(skew) {
        None => Outcome::passed(found),
        Some(skew) => Outcome::warning(
            format!(
                "{found}, and the clock of this host is {skew}: commands seem too old or from the future, and do not count"
            ),
            "set the time of this host, or of the homeserver's",
        ),
    }
}

/// Optional: many homeservers have this part of them behind another port.
async fn software(api: &Api<'_>) -> String {
    let path = ["federation", "v1", "version"];
    let answer: Value = api.get(Asker::Nobody, &path, "").await.unwrap_or_default();
    let part = |key: &str| Some(answer.pointer(key)?.as_str()?.to_owned());
    match (part("/server/name"), part("/server/version")) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        _ => "a homeserver".to_owned(),
    }
}

/// The owner of the token, by the homeserver. `None`: there is no token yet.
type Owner = Option<Result<OwnedUserId, Trouble>>;

pub(super) async fn token_owner(api: &Api<'_>) -> Owner {
    api.credentials(Asker::Token).0?;
    Some(who_am_i(api, Asker::Token).await)
}

/// Whether the homeserver accepts the bot's token, or will give it one.
pub(super) async fn judge_account(api: &mut Api<'_>, owner: Owner) -> Found<()> {
    let Some(login) = api.login else {
        return Err(Outcome::skipped("there is no valid registration"));
    };
    if let (Login::Appservice(_) | Login::Password(_), Err(fault)) = (login, &api.session) {
        return Err(unreadable(fault));
    }
    match (login, owner) {
        (Login::Appservice(registration), Some(owner)) => {
            judge_appservice(api, registration, owner).await
        }
        (Login::AccessToken(_) | Login::Password(_), Some(owner)) => judge_token(api, login, owner),
        (_, None) => judge_first_log_in(api).await,
    }
}

/// Whether the homeserver's name is the configured one. A registration that is in use was written for the user with that name.
pub(super) async fn compare_server_name(api: &Api<'_>, owner: &Owner) -> Found<()> {
    let configured = &api.config.server_name;
    let path = ["key", "v2", "server"];
    let actual: Result<OwnedServerName, _> = match owner {
        Some(Ok(user)) => Ok(user.server_name().to_owned()),
        // The name with which it signs.
        Some(Err(_)) | None => api.get(Asker::Nobody, &path, "/server_name").await,
    };
    let Ok(actual) = &actual else {
        let because = "the homeserver did not say its name";
        return Ok((Outcome::skipped(because), ()));
    };
    if actual == configured {
        return Ok((Outcome::passed(actual.as_str()), ()));
    }
    let registration = match api.login {
        Some(Login::Appservice(registration)) => {
            format!(
                ", {}",
                replace_registration(&registration.file, &api.config.file)
            )
        }
        Some(Login::AccessToken(_) | Login::Password(_)) | None => String::new(),
    };
    Err(Outcome::failed(
        format!("config.yaml says {configured}, and the homeserver calls itself {actual}"),
        format!(
            "set `homeserver.server_name: {actual}` in config.yaml{registration}, and restart the bot"
        ),
    ))
}

/// Whether the homeserver knows the appservice's token, and lets it act as the bot. `sender` is the appservice's own user.
async fn judge_appservice(
    api: &mut Api<'_>,
    registration: &Registration,
    sender: Result<OwnedUserId, Trouble>,
) -> Found<()> {
    let bot = api.bot();
    let mut answer = who_am_i(api, Asker::Bot).await;
    // The log-in on disk may have expired.
    if answer.is_err() && api.forget_device() {
        answer = who_am_i(api, Asker::Bot).await;
    }
    let trouble = match answer {
        Ok(user) if user == bot => {
            return Ok((Outcome::passed(format!("{bot}, by the registration")), ()));
        }
        Ok(user) => {
            return Err(Outcome::failed(
                format!(
                    "the homeserver takes the appservice for {user}, and not for {bot}, whom it names"
                ),
                "install a newer homeserver, or give the bot an account (`bot.password`)",
            ));
        }
        Err(trouble) => trouble,
    };
    let Some(message) = trouble.refusal() else {
        return Err(trouble.into());
    };
    // Conduit makes no user for `sender_localpart`, and refuses that one as well; its answer about the bot shows that it knows
    // the token.
    let is_unknown = sender.is_err_and(|refused| {
        refused.is_unknown_token() || !is_of_missing_user(message) && !is_of_another(message)
    });
    if is_unknown {
        let kind = HomeserverKind::ask(&api.config.homeserver_url).await;
        return Err(Outcome::failed(
            format!("the homeserver does not know the appservice's token ({trouble})"),
            kind.how_to_register(&registration.file, bot),
        ));
    }
    if is_unregistered(api, message).await {
        return Err(Outcome::passed(format!(
            "{bot} is not there yet; the bot's first run makes it: run it, and check again"
        )));
    }
    Err(Outcome::failed(
        format!("the homeserver does not let the appservice act as {bot} ({trouble})"),
        format!(
            "give the homeserver a new copy of {}, and restart it",
            registration.file.display()
        ),
    ))
}

/// A user that does not exist is refused like another's. Most homeservers distinguish the two in words; elsewhere only an
/// existing user has a profile.
async fn is_unregistered(api: &Api<'_>, message: &str) -> bool {
    if is_of_another(message) || is_of_missing_user(message) {
        return !is_of_another(message);
    }
    let profile = ["client", "v3", "profile", api.bot().as_str()];
    matches!(
        api.find::<Value>(Asker::Token, &profile, "").await,
        Ok(None)
    )
}

/// In words of Synapse.
fn is_of_another(message: &str) -> bool {
    message.contains("masquerade")
}

/// In words of Synapse, and of Conduit and its family.
fn is_of_missing_user(message: &str) -> bool {
    message.contains("not registered") || message.contains("does not exist")
}

/// Whether the token of a log-in is good, and the bot's.
fn judge_token(api: &Api<'_>, login: &Login, owner: Result<OwnedUserId, Trouble>) -> Found<()> {
    let bot = api.bot();
    match owner {
        Ok(user) if user == bot => Ok((Outcome::passed(bot.as_str()), ())),
        Ok(user) => Err(Outcome::failed(
            format!("the token is of {user}, and config.yaml names {bot}"),
            format!(
                "set `bot.localpart: {}` in config.yaml, or log in as {bot}",
                user.localpart()
            ),
        )),
        Err(trouble) if !trouble.is_unknown_token() => Err(trouble.into()),
        Err(_) if matches!(login, Login::AccessToken(_)) => Err(Outcome::failed(
            "`bot.access_token` is not valid any more",
            "log in once more, and put the new token into config.yaml",
        )),
        Err(_) => Err(Outcome::passed(
            "the login is not valid any more; the bot's next run logs in: run it, and check again",
        )),
    }
}

/// Whether the homeserver takes passwords. To try it would make a device.
async fn judge_first_log_in(api: &Api<'_>) -> Found<()> {
    let path = ["client", "v3", "login"];
    let flows: Vec<Value> = api.get(Asker::Nobody, &path, "/flows").await?;
    let mut kinds = flows.iter().filter_map(|flow| flow.get("type"));
    if kinds.any(|kind| kind == "m.login.password") {
        return Err(Outcome::passed(
            "the bot's first run logs in: run it, and check again",
        ));
    }
    Err(Outcome::failed(
        "the homeserver does not offer a log-in with a password",
        "log the bot's user in with another client, and set `bot.access_token` in place of `bot.password`",
    ))
}

async fn who_am_i(api: &Api<'_>, asker: Asker) -> Result<OwnedUserId, Trouble> {
    let path = ["client", "v3", "account", "whoami"];
    api.get(asker, &path, "/user_id").await
}

/// Whether the bot can sync: some homeservers refuse that to appservices. Returns what /sync says of its rooms; `None` where
/// only the bot's device, which does not exist yet, may sync.
pub(super) async fn try_sync(api: &Api<'_>) -> Found<Option<Value>> {
    let nothing = json!({ "not_types": ["*"] });
    let filter = json!({
        "presence": nothing,
        "account_data": nothing,
        "room": {
            // Synapse repeats its last answer to the same request within two minutes.
            "timeline": { "limit": rand::random_range(1..10_000), "not_types": ["*"] },
            "state": nothing,
            "ephemeral": nothing,
            "account_data": nothing,
        },
    })
    .to_string();
    let query = [
        ("timeout", "0"),
        ("set_presence", "offline"),
        ("filter", filter.as_str()),
    ];
    let path = ["client", "v3", "sync"];
    let read = |answer: &Answer| {
        answer.part::<String>("/next_batch")?;
        Some(answer.part("/rooms").unwrap_or_default())
    };
    let trouble = match api.send(Asker::Bot, &path, &query, None, read).await {
        Ok(rooms) => return Ok((Outcome::passed("answers"), Some(rooms))),
        Err(trouble) => trouble,
    };
    if api.is_without_device() && trouble.is_refusal() {
        let outcome = Outcome::skipped(format!(
            "the bot has no device yet, and without one the homeserver refuses it ({trouble}); run the bot, and check again"
        ));
        return Ok((outcome, None));
    }
    Err(trouble.into())
}

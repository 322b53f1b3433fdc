//! The bot's account: how it logs in, whether its token is good, whether the name of the server is right.

use matrix_sdk::ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::Value;

use super::{
    Blocked, Outcome, Report,
    api::{Api, Asker, Trouble},
    files::replace_registration,
    homeserver::unexpected,
    which_room::unreadable,
};
use crate::{
    data_dir,
    matrix::{Login, Registration, acted_as_appservice},
};

pub(super) const LOG_IN: &str = "log-in";
pub(super) const TOKEN: &str = "token";
pub(super) const SERVER_NAME: &str = "server name";
pub(super) const USER: &str = "bot's user";

const NOT_YET: Blocked = "the bot is not logged in; run it, and check again";

const UNKNOWN_OWNER: Blocked = "the homeserver does not say whose the token is";

/// Tries the way that the configuration names.
pub(super) async fn look(report: &mut Report, api: &Api<'_>) -> Result<(), Blocked> {
    let Some(login) = api.login else {
        return look_without_token(report, api).await;
    };
    look_at_log_in(report, api, login).await;
    match login {
        Login::Appservice(registration) => {
            let sender = try_appservice(report, api, registration).await?;
            compare_server_name(report, api, sender.server_name(), Some(registration))?;
            try_user(report, api, registration).await
        }
        Login::AccessToken(_) | Login::Password(_) => {
            let user = try_own_token(report, api).await?;
            compare_server_name(report, api, user.server_name(), None)?;
            compare_user(report, api, &user)
        }
    }
}

/// The name with which the homeserver signs. With a wrong one in config.yaml the registration is of another user's, so that
/// its token is no help.
async fn look_without_token(report: &mut Report, api: &Api<'_>) -> Result<(), Blocked> {
    let key = api.get(Asker::Nobody, &["key", "v2", "server"], &[]).await;
    let name = key.ok().and_then(|key| {
        let name = key.get("server_name")?.as_str()?;
        OwnedServerName::try_from(name).ok()
    });
    if let Some(actual) = name {
        compare_server_name(report, api, &actual, None)?;
    }
    Err("there is no valid registration")
}

/// How the bot comes to its device.
async fn look_at_log_in(report: &mut Report, api: &Api<'_>, login: &Login) {
    let flows = api.get(Asker::Nobody, &["client", "v3", "login"], &[]);
    let flows = flows.await;
    let outcome = match login {
        Login::AccessToken(_) => Outcome::passed("with `bot.access_token`"),
        Login::Password(_) => judge_flows(flows, "m.login.password", |is_offered| {
            if is_offered {
                return Outcome::passed("with `bot.password`");
            }
            Outcome::failed(
                "the homeserver takes no passwords",
                "log the bot's user in with another client, and set `bot.access_token` in place of `bot.password`",
            )
        }),
        Login::Appservice(registration) => {
            judge_flows(flows, "m.login.application_service", |is_offered| {
                judge_appservice(api, registration, is_offered)
            })
        }
    };
    report.add(LOG_IN, outcome);
}

fn judge_flows(
    flows: Result<Value, Trouble>,
    kind: &str,
    judge: impl FnOnce(bool) -> Outcome,
) -> Outcome {
    match flows {
        Ok(flows) => judge(offers(&flows, kind)),
        Err(trouble) => unexpected(&trouble),
    }
}

/// What a homeserver offers is not what it grants each appservice: the last log-in tells more.
fn judge_appservice(api: &Api<'_>, registration: &Registration, is_offered: bool) -> Outcome {
    const ITSELF: &str =
        "acts as the appservice itself, with its token, for the bot's user and device";
    if registration.has_device_management {
        return Outcome::passed(format!(
            "{ITSELF} (`io.element.msc4190` in the registration)"
        ));
    }
    match acted_as_appservice(&data_dir::matrix(&api.config.data_dir)) {
        Ok(did_before) if did_before || !is_offered => Outcome::passed(format!(
            "{ITSELF}, as the homeserver does not log it in (Matrix Authentication Service)"
        )),
        Ok(_) => Outcome::passed("logs in as the appservice's user"),
        Err(fault) => unreadable(&fault),
    }
}

fn offers(answer: &Value, kind: &str) -> bool {
    let flows = answer.get("flows").and_then(Value::as_array);
    let is_offered = |flow: &Value| flow.get("type").and_then(Value::as_str) == Some(kind);
    flows.is_some_and(|all| all.iter().any(is_offered))
}

/// Whether the homeserver knows the appservice's token; gives the appservice's own user.
async fn try_appservice(
    report: &mut Report,
    api: &Api<'_>,
    registration: &Registration,
) -> Result<OwnedUserId, Blocked> {
    let copy = registration.file.display();
    let (outcome, sender) = match who_am_i(api, Asker::Token)
        .await
        .map(|answer| user_in(&answer))
    {
        Ok(Some(sender)) if sender.localpart() == registration.sender_localpart => (
            Outcome::passed(format!("accepted, as {sender}")),
            Ok(sender),
        ),
        Ok(Some(sender)) => (
            Outcome::warning(
                format!(
                    "the homeserver has another `sender_localpart` for it, {:?}",
                    sender.localpart()
                ),
                format!("give the homeserver a new copy of {copy}, and restart it"),
            ),
            Ok(sender),
        ),
        Err(Trouble::Refused {
            status: 401 | 403, ..
        }) => (
            Outcome::failed(
                "the homeserver does not know it",
                format!(
                    "give the homeserver a copy of {copy} (in Synapse name it under `app_service_config_files` in \
                     homeserver.yaml; in others use the admin command that registers appservices), and restart it"
                ),
            ),
            Err("the homeserver does not know the appservice's token"),
        ),
        Ok(None) => (unexpected(&Trouble::Nonsense), Err(UNKNOWN_OWNER)),
        Err(trouble) => (unexpected(&trouble), Err(UNKNOWN_OWNER)),
    };
    report.add(TOKEN, outcome);
    sender
}

/// A `registration` that is in use was written for the user with the wrong name.
fn compare_server_name(
    report: &mut Report,
    api: &Api<'_>,
    actual: &ServerName,
    registration: Option<&Registration>,
) -> Result<(), Blocked> {
    let configured = &api.config.server_name;
    if actual == configured {
        report.add(SERVER_NAME, Outcome::passed(actual.as_str()));
        return Ok(());
    }
    let anew = registration.map(|registration| {
        let anew = replace_registration(&registration.file, &api.config.file);
        format!(", {anew}")
    });
    let anew = anew.unwrap_or_default();
    report.add(
        SERVER_NAME,
        Outcome::failed(
            format!("config.yaml says {configured}, and the homeserver calls itself {actual}"),
            format!("set `homeserver.server_name: {actual}` in config.yaml{anew}, and start the bot again"),
        ),
    );
    Err("the server name is wrong")
}

/// Whether the appservice may act as the bot's user.
async fn try_user(
    report: &mut Report,
    api: &Api<'_>,
    registration: &Registration,
) -> Result<(), Blocked> {
    let bot = api.bot();
    let (outcome, blocked) = match who_am_i(api, Asker::Bot).await {
        Ok(answer) if user_in(&answer).as_deref() == Some(bot) => {
            (Outcome::passed(bot.as_str()), None)
        }
        Ok(_) => (
            unexpected(&Trouble::Nonsense),
            Some("the homeserver does not let the appservice act as the bot"),
        ),
        Err(trouble) if is_unregistered(api, &trouble).await => (
            Outcome::passed(format!(
                "{bot} is not there yet; the bot's first run makes it"
            )),
            Some("the bot's user is not there yet; run the bot, and check again"),
        ),
        Err(Trouble::Refused {
            status: 401 | 403,
            message,
            ..
        }) => (
            Outcome::failed(
                format!("the homeserver does not let the appservice act as {bot} ({message})"),
                format!(
                    "give the homeserver a new copy of {}, and restart it",
                    registration.file.display()
                ),
            ),
            Some("the homeserver does not let the appservice act as the bot"),
        ),
        Err(trouble) => (
            unexpected(&trouble),
            Some("the homeserver does not say whether it knows the bot's user"),
        ),
    };
    report.add(USER, outcome);
    blocked.map_or(Ok(()), Err)
}

/// A user that does not exist is refused like one of somebody else's. Synapse tells the two apart in words; elsewhere only
/// an existing user has a profile.
async fn is_unregistered(api: &Api<'_>, trouble: &Trouble) -> bool {
    let Trouble::Refused {
        status: 401 | 403,
        message,
        ..
    } = trouble
    else {
        return false;
    };
    if message.contains("masquerade") {
        return false;
    }
    let profile = ["client", "v3", "profile", api.bot().as_str()];
    message.contains("not registered")
        || matches!(api.find(Asker::Token, &profile, &[]).await, Ok(None))
}

/// Whether the token of a log-in is good.
async fn try_own_token(report: &mut Report, api: &Api<'_>) -> Result<OwnedUserId, Blocked> {
    let (outcome, blocked) = match api.has_token() {
        Ok(true) => return try_token(report, api).await,
        Ok(false) => (
            Outcome::passed("none yet; the bot's first run logs in"),
            NOT_YET,
        ),
        Err(fault) => (unreadable(fault), "the log-in on disk cannot be read"),
    };
    report.add(TOKEN, outcome);
    Err(blocked)
}

async fn try_token(report: &mut Report, api: &Api<'_>) -> Result<OwnedUserId, Blocked> {
    let is_configured = matches!(api.login, Some(Login::AccessToken(_)));
    let (outcome, user) = match who_am_i(api, Asker::Token)
        .await
        .map(|answer| user_in(&answer))
    {
        Ok(Some(user)) => (Outcome::passed(format!("accepted, as {user}")), Ok(user)),
        Err(Trouble::Refused { status: 401, .. }) if is_configured => (
            Outcome::failed(
                "`bot.access_token` is no longer good",
                "log in once more, and put the new token into config.yaml",
            ),
            Err("the bot's token is not good"),
        ),
        Err(Trouble::Refused { status: 401, .. }) => (
            Outcome::passed("no longer good; the bot's next run logs in"),
            Err(NOT_YET),
        ),
        Ok(None) => (unexpected(&Trouble::Nonsense), Err(UNKNOWN_OWNER)),
        Err(trouble) => (unexpected(&trouble), Err(UNKNOWN_OWNER)),
    };
    report.add(TOKEN, outcome);
    user
}

fn compare_user(report: &mut Report, api: &Api<'_>, user: &UserId) -> Result<(), Blocked> {
    let bot = api.bot();
    if user == bot {
        report.add(USER, Outcome::passed(bot.as_str()));
        return Ok(());
    }
    report.add(
        USER,
        Outcome::failed(
            format!("the token is of {user}, and config.yaml names {bot}"),
            format!(
                "set `bot.localpart: {}` in config.yaml, or log in as {bot}",
                user.localpart()
            ),
        ),
    );
    Err("the token is another user's")
}

async fn who_am_i(api: &Api<'_>, asker: Asker) -> Result<Value, Trouble> {
    api.get(asker, &["client", "v3", "account", "whoami"], &[])
        .await
}

fn user_in(answer: &Value) -> Option<OwnedUserId> {
    UserId::parse(answer.get("user_id")?.as_str()?).ok()
}

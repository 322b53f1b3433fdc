//! The bot's account: how it logs in, whether its token is good, whether the name of the server is right.

use matrix_sdk::ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;

use super::{
    Blocked, Outcome, Report,
    api::{Api, Asker, Trouble},
    files::replace_registration,
    homeserver::unexpected,
    which_room::unreadable,
};
use crate::{
    data_dir,
    matrix::{Authentication, HomeserverKind, Login, MatrixFolder, Registration, Session},
};

pub(super) const LOG_IN: &str = "log-in";
pub(super) const TOKEN: &str = "token";
pub(super) const SERVER_NAME: &str = "server name";
pub(super) const USER: &str = "bot's user";

const NOT_YET: Blocked = "the bot is not logged in; run it, and check again";

const UNKNOWN_OWNER: Blocked = "the homeserver does not say whose the token is";

const NOT_THE_BOT: Blocked = "the homeserver does not let the appservice act as the bot";

#[derive(Debug, Deserialize)]
struct WhoAmI {
    user_id: OwnedUserId,
}

/// The ways to log in.
#[derive(Debug, Deserialize)]
struct Flows {
    flows: Vec<Flow>,
}

#[derive(Debug, Deserialize)]
struct Flow {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Signer {
    server_name: OwnedServerName,
}

/// Tries the way that the configuration names.
pub(super) async fn look(report: &mut Report, api: &mut Api<'_>) -> Result<(), Blocked> {
    let Some(login) = api.login else {
        // With a wrong server name in config.yaml the registration is of another user's.
        if let Some(actual) = signing_name(api).await {
            compare_server_name(report, api, Some(&actual), None)?;
        }
        return Err("there is no valid registration");
    };
    look_at_log_in(report, api, login).await;
    match login {
        Login::Appservice(registration) => {
            let sender = try_appservice(report, api, registration).await?;
            let actual = match sender {
                Some(sender) => Some(sender.server_name().to_owned()),
                None => signing_name(api).await,
            };
            compare_server_name(report, api, actual.as_deref(), Some(registration))?;
            try_user(report, api, registration).await
        }
        Login::AccessToken(_) | Login::Password(_) => {
            let user = try_own_token(report, api).await?;
            compare_server_name(report, api, Some(user.server_name()), None)?;
            compare_user(report, api, &user)
        }
    }
}

/// The name with which the homeserver signs.
async fn signing_name(api: &Api<'_>) -> Option<OwnedServerName> {
    let answer = api.get(Asker::Nobody, &["key", "v2", "server"], &[]).await;
    answer.ok().map(|Signer { server_name }| server_name)
}

/// How the bot comes to its device.
async fn look_at_log_in(report: &mut Report, api: &Api<'_>, login: &Login) {
    let offers = async |kind: &str| {
        let path = ["client", "v3", "login"];
        let answer: Flows = api.get(Asker::Nobody, &path, &[]).await?;
        Ok::<_, Trouble>(answer.flows.iter().any(|flow| flow.kind == kind))
    };
    let outcome = match login {
        Login::AccessToken(_) => Ok(Outcome::passed("with `bot.access_token`")),
        Login::Password(_) => offers("m.login.password").await.map(|is_offered| {
            if is_offered {
                return Outcome::passed("with `bot.password`");
            }
            Outcome::failed(
                "the homeserver does not offer a log-in with a password",
                "log the bot's user in with another client, and set `bot.access_token` in place of `bot.password`",
            )
        }),
        Login::Appservice(registration) => offers("m.login.application_service")
            .await
            .map(|is_offered| judge_appservice(api, registration, is_offered)),
    };
    report.add(
        LOG_IN,
        outcome.unwrap_or_else(|trouble| unexpected(&trouble)),
    );
}

/// What a homeserver offers is not what it grants each appservice: the last log-in tells more.
fn judge_appservice(api: &Api<'_>, registration: &Registration, is_offered: bool) -> Outcome {
    let itself = |why: &str| {
        Outcome::passed(format!(
            "acts as the appservice itself, with its token, for the bot's user and device ({why})"
        ))
    };
    if registration.has_device_management {
        return itself("`io.element.msc4190` in the registration");
    }
    match MatrixFolder::new(data_dir::matrix(&api.config.data_dir)).session() {
        Err(fault) => unreadable(&fault),
        Ok(stored)
            if !is_offered
                || matches!(
                    &stored,
                    Some(Session {
                        authentication: Some(Authentication::IdentityAssertion),
                        ..
                    })
                ) =>
        {
            itself("the homeserver logs in no appservice, as with Matrix Authentication Service")
        }
        Ok(_) => Outcome::passed("logs in as the appservice's user"),
    }
}

/// Whether the homeserver knows the appservice's token; gives the appservice's own user, where it has one.
async fn try_appservice(
    report: &mut Report,
    api: &Api<'_>,
    registration: &Registration,
) -> Result<Option<OwnedUserId>, Blocked> {
    let copy = registration.file.display();
    let (outcome, sender) = match who_am_i(api, Asker::Token).await {
        Ok(sender) if sender.localpart() == registration.sender_localpart => (
            Outcome::passed(format!("accepted, as {sender}")),
            Ok(Some(sender)),
        ),
        Ok(sender) => (
            Outcome::warning(
                format!(
                    "the homeserver's copy of the registration has another `sender_localpart`, {:?}",
                    sender.localpart()
                ),
                format!("give the homeserver a new copy of {copy}, and restart it"),
            ),
            Ok(Some(sender)),
        ),
        Err(trouble) if is_known_without_sender(api, &trouble).await => (
            Outcome::passed("accepted; the homeserver has no user for `sender_localpart`"),
            Ok(None),
        ),
        Err(trouble) if trouble.is_unknown_token() || trouble.refusal().is_some() => (
            Outcome::failed(
                format!("the homeserver does not know it ({trouble})"),
                HomeserverKind::ask(&api.config.homeserver_url)
                    .await
                    .how_to_register(&registration.file, api.bot()),
            ),
            Err("the homeserver does not know the appservice's token"),
        ),
        Err(trouble) => (unexpected(&trouble), Err(UNKNOWN_OWNER)),
    };
    report.step(TOKEN, outcome, sender)
}

/// Whether a refusal is of the sender alone: Conduit makes no user for it. What it says of the bot tells whether the token is known.
async fn is_known_without_sender(api: &Api<'_>, refused: &Trouble) -> bool {
    if refused.is_unknown_token() || refused.refusal().is_none() {
        return false;
    }
    let as_bot = [("user_id", api.bot().as_str())];
    match ask_who(api, Asker::Token, &as_bot).await {
        Ok(user) => user == api.bot(),
        Err(trouble) => trouble
            .refusal()
            .is_some_and(|message| is_of_missing_user(message) || is_of_another(message)),
    }
}

/// A `registration` that is in use was written for the user with the wrong name.
fn compare_server_name(
    report: &mut Report,
    api: &Api<'_>,
    actual: Option<&ServerName>,
    registration: Option<&Registration>,
) -> Result<(), Blocked> {
    let configured = &api.config.server_name;
    let (outcome, then) = match actual {
        None => (
            Outcome::skipped("the homeserver does not tell its name"),
            Ok(()),
        ),
        Some(actual) if actual == configured => (Outcome::passed(actual.as_str()), Ok(())),
        Some(actual) => {
            let anew = registration.map(|registration| {
                let anew = replace_registration(&registration.file, &api.config.file);
                format!(", {anew}")
            });
            let anew = anew.unwrap_or_default();
            let outcome = Outcome::failed(
                format!("config.yaml says {configured}, and the homeserver calls itself {actual}"),
                format!(
                    "set `homeserver.server_name: {actual}` in config.yaml{anew}, and restart the bot"
                ),
            );
            (outcome, Err("the server name is wrong"))
        }
    };
    report.step(SERVER_NAME, outcome, then)
}

/// Whether the appservice may act as the bot's user.
async fn try_user(
    report: &mut Report,
    api: &mut Api<'_>,
    registration: &Registration,
) -> Result<(), Blocked> {
    let bot = api.bot();
    let mut answer = who_am_i(api, Asker::Bot).await;
    // The log-in on disk may be no longer good.
    if answer.is_err() && api.forget_device() {
        answer = who_am_i(api, Asker::Bot).await;
    }
    let (outcome, then) = match answer {
        Ok(user) if user == bot => (Outcome::passed(bot.as_str()), Ok(())),
        Ok(user) => (
            Outcome::failed(
                format!(
                    "the homeserver takes the appservice for {user}, and not for {bot}, whom it names"
                ),
                "install a newer homeserver, or give the bot an account (`bot.password`)",
            ),
            Err(NOT_THE_BOT),
        ),
        Err(trouble) if is_unregistered(api, &trouble).await => (
            Outcome::passed(format!(
                "{bot} is not there yet; the bot's first run makes it"
            )),
            Err("the bot's user is not there yet; run the bot, and check again"),
        ),
        Err(trouble) if trouble.refusal().is_some() => (
            Outcome::failed(
                format!("the homeserver does not let the appservice act as {bot} ({trouble})"),
                format!(
                    "give the homeserver a new copy of {}, and restart it",
                    registration.file.display()
                ),
            ),
            Err(NOT_THE_BOT),
        ),
        Err(trouble) => (
            unexpected(&trouble),
            Err("the homeserver does not say whether it knows the bot's user"),
        ),
    };
    report.step(USER, outcome, then)
}

/// A user that does not exist is refused like one of somebody else's. Most homeservers tell the two apart in words; elsewhere only
/// an existing user has a profile.
async fn is_unregistered(api: &Api<'_>, trouble: &Trouble) -> bool {
    let Some(message) = trouble.refusal() else {
        return false;
    };
    if is_of_another(message) || is_of_missing_user(message) {
        return !is_of_another(message);
    }
    let profile = ["client", "v3", "profile", api.bot().as_str()];
    let found: Result<Option<serde_json::Value>, _> = api.find(Asker::Token, &profile, &[]).await;
    matches!(found, Ok(None))
}

/// In words of Synapse.
fn is_of_another(message: &str) -> bool {
    message.contains("masquerade")
}

/// In words of Synapse, and of Conduit and its family.
fn is_of_missing_user(message: &str) -> bool {
    message.contains("not registered") || message.contains("does not exist")
}

/// Whether the token of a log-in is good.
async fn try_own_token(report: &mut Report, api: &Api<'_>) -> Result<OwnedUserId, Blocked> {
    let (outcome, user) = match api.has_token() {
        Ok(true) => judge_token(api).await,
        Ok(false) => (
            Outcome::passed("none yet; the bot's first run logs in"),
            Err(NOT_YET),
        ),
        Err(fault) => (unreadable(fault), Err("the log-in on disk cannot be read")),
    };
    report.step(TOKEN, outcome, user)
}

async fn judge_token(api: &Api<'_>) -> (Outcome, Result<OwnedUserId, Blocked>) {
    let is_configured = matches!(api.login, Some(Login::AccessToken(_)));
    match who_am_i(api, Asker::Token).await {
        Ok(user) => (Outcome::passed(format!("accepted, as {user}")), Ok(user)),
        Err(trouble) if trouble.is_unknown_token() && is_configured => (
            Outcome::failed(
                "`bot.access_token` is no longer good",
                "log in once more, and put the new token into config.yaml",
            ),
            Err("the bot's token is not good"),
        ),
        Err(trouble) if trouble.is_unknown_token() => (
            Outcome::passed("no longer good; the bot's next run logs in"),
            Err(NOT_YET),
        ),
        Err(trouble) => (unexpected(&trouble), Err(UNKNOWN_OWNER)),
    }
}

fn compare_user(report: &mut Report, api: &Api<'_>, user: &UserId) -> Result<(), Blocked> {
    let bot = api.bot();
    if user == bot {
        return report.step(USER, Outcome::passed(bot.as_str()), Ok(()));
    }
    let outcome = Outcome::failed(
        format!("the token is of {user}, and config.yaml names {bot}"),
        format!(
            "set `bot.localpart: {}` in config.yaml, or log in as {bot}",
            user.localpart()
        ),
    );
    report.step(USER, outcome, Err("the token is another user's"))
}

/// Whose the homeserver takes a request for.
pub(super) async fn who_am_i(api: &Api<'_>, asker: Asker) -> Result<OwnedUserId, Trouble> {
    ask_who(api, asker, &[]).await
}

async fn ask_who(
    api: &Api<'_>,
    asker: Asker,
    query: &[(&str, &str)],
) -> Result<OwnedUserId, Trouble> {
    let path = ["client", "v3", "account", "whoami"];
    let answer: WhoAmI = api.get(asker, &path, query).await?;
    Ok(answer.user_id)
}

//! Who gets into the admin room, who may command there, and whether the bot knows them for who they are.

use std::collections::BTreeMap;

use matrix_sdk::ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{
    Outcome, Report,
    api::{Api, Asker, Trouble},
    homeserver::unexpected,
    which_room::unreadable,
};
use crate::{
    command::{Denied, Policy, authorize},
    config::{Devices, MasterKey},
    data_dir,
    matrix::{MatrixFolder, NoPower, RoomFacts, Trust},
};

pub(super) const ACCESS: &str = "admin room access";
pub(super) const COMMANDERS: &str = "who may command";
pub(super) const IDENTITIES: &str = "who is who";

/// How many users are named before the rest is counted.
const NAMED: usize = 3;

/// Of how many users the identities are looked at.
const LOOKED_AT: usize = 100;

/// Looks at everybody in the room.
pub(super) async fn look(
    report: &mut Report,
    api: &Api<'_>,
    facts: &RoomFacts,
    members: &[OwnedUserId],
) {
    let judged = judge_commanders(api, facts, members);
    report.add(ACCESS, judged.access);
    report.add(COMMANDERS, judged.commanders);
    let outcome = if judged.allowed.is_empty() {
        Outcome::skipped("nobody may command")
    } else {
        judge_identities(api, &judged.allowed)
            .await
            .unwrap_or_else(|trouble| unexpected(&trouble))
    };
    report.add(IDENTITIES, outcome);
}

struct Judged<'a> {
    access: Outcome,
    commanders: Outcome,
    allowed: Vec<&'a UserId>,
}

/// Judges everybody in the room as the bot would judge a well-encrypted command of theirs.
fn judge_commanders<'a>(
    api: &Api<'_>,
    facts: &RoomFacts,
    members: &'a [OwnedUserId],
) -> Judged<'a> {
    let policy = Policy::of(api.config, None);
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for user in members {
        match authorize(user, Trust::CrossSigned, Some(facts), &policy) {
            Ok(_) => allowed.push(&**user),
            Err(reason) => denied.push(reason),
        }
    }
    if let Some(access) = denied.iter().find_map(refused_room) {
        let commanders = Outcome::skipped("the room keeps nobody out");
        return Judged {
            access,
            commanders,
            allowed: Vec::new(),
        };
    }
    let needs = policy.authorization.power_level;
    let commanders = if allowed.is_empty() {
        nobody(api, needs)
    } else {
        let found = format!(
            "power level {needs} is needed, which {}",
            enumerate(&allowed)
        );
        if policy.authorization.users.is_empty() {
            unlisted(&found, &allowed)
        } else {
            Outcome::passed(found)
        }
    };
    let access = format!("join rule `{}`", facts.join_rule.as_str());
    let access = Outcome::passed(access);
    Judged {
        access,
        commanders,
        allowed,
    }
}

/// What is said of the room as a whole, if a member is refused for that.
fn refused_room(denied: &Denied) -> Option<Outcome> {
    let or_list = "or list in `authorization.users` in config.yaml who may command";
    match denied {
        Denied::NoPower(NoPower::NotInviteOnly { join_rule }) => {
            let who = match join_rule.as_str() {
                "public" => "anybody can join the room".to_owned(),
                other => {
                    format!("people can join the room without an invitation (join rule `{other}`)")
                }
            };
            Some(Outcome::failed(
                format!("{who}, so no command counts"),
                format!("make the room invite-only in its settings, {or_list}"),
            ))
        }
        Denied::NoPower(NoPower::OpenToAllMembers { has, needs }) => Some(Outcome::failed(
            format!("everybody in the room has power level {has}, so no command counts"),
            format!(
                "lower the room's default power level below {needs} in its settings, {or_list}"
            ),
        )),
        _ => None,
    }
}

/// Power levels are state of the room, which an administrator's password is enough to change.
fn unlisted(found: &str, allowed: &[&UserId]) -> Outcome {
    let names = allowed.iter().map(|user| format!("\"{user}\""));
    let names: Vec<_> = names.collect();
    Outcome::warning(
        format!(
            "{found}; but `authorization.users` is empty, so that somebody with the password or access token of one of them can \
             give the level to an account of their own, and get sessions and links with that"
        ),
        format!(
            "name those who may command in config.yaml, `users: [{}]` under `authorization`, and restart the bot",
            names.join(", ")
        ),
    )
}

fn nobody(api: &Api<'_>, needs: i64) -> Outcome {
    let listed: Vec<_> = api
        .config
        .authorization
        .users
        .keys()
        .map(|user| user.as_str())
        .collect();
    if listed.is_empty() {
        return Outcome::failed(
            format!("nobody in the room: power level {needs} is needed"),
            format!(
                "give a member power level {needs} in the room's settings, or lower `authorization.power_level` in config.yaml"
            ),
        );
    }
    Outcome::failed(
        format!("nobody: of `authorization.users` none is in the room with power level {needs}"),
        format!(
            "let {} join, and have power level {needs}",
            listed.join(" or ")
        ),
    )
}

fn enumerate(users: &[&UserId]) -> String {
    let named = users
        .iter()
        .take(NAMED)
        .map(|user| user.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    match users.len() {
        1 => format!("{named} has"),
        count if count <= NAMED => format!("{named} have"),
        count => format!("{named} and {} more have", count - NAMED),
    }
}

/// Why a user's commands do not count, or how they count.
enum Standing {
    Known,
    /// None was seen yet, and the first that is seen will count.
    New,
    /// The homeserver shows another identity than the bot goes by.
    Changed {
        is_configured: bool,
    },
    NoIdentity,
    NoVerifiedDevice,
}

/// Compares the identities that the homeserver shows with those that the bot goes by.
async fn judge_identities(api: &Api<'_>, users: &[&UserId]) -> Result<Outcome, Trouble> {
    let seen = match MatrixFolder::new(data_dir::matrix(&api.config.data_dir)).pinned_identities() {
        Ok(seen) => seen.all(),
        Err(fault) => return Ok(unreadable(&fault)),
    };
    let others = users.len().saturating_sub(LOOKED_AT);
    let users = users.get(..LOOKED_AT).unwrap_or(users);
    let asked: BTreeMap<_, Vec<String>> = users.iter().map(|user| (*user, Vec::new())).collect();
    let path = ["client", "v3", "keys", "query"];
    let keys = api
        .post(Asker::Bot, &path, &json!({ "device_keys": asked }))
        .await?;
    let (mut problems, mut known, mut new) = (Vec::new(), 0, 0);
    for user in users {
        match standing(api, &keys, user, seen.get(*user)) {
            Standing::Known => known += 1,
            Standing::New => new += 1,
            problem => problems.push(describe(api, user, &problem)),
        }
    }
    if problems.is_empty() {
        let mut found = match (known, new) {
            (_, 0) => "each has the identity that the bot knows".to_owned(),
            (0, _) => "the bot has seen nobody yet, and goes by whom it sees first".to_owned(),
            (_, new) => {
                format!("{known} known, and {new} whose identity counts as soon as it is seen")
            }
        };
        if others > 0 {
            found = format!("{found}; {others} more were not looked at");
        }
        return Ok(Outcome::passed(found));
    }
    let (found, remedies): (Vec<_>, Vec<_>) = problems.into_iter().unzip();
    let (found, remedy) = (found.join("; "), remedies.join("; "));
    Ok(if known + new == 0 {
        Outcome::failed(found, remedy)
    } else {
        Outcome::warning(found, remedy)
    })
}

fn standing(api: &Api<'_>, keys: &Value, user: &UserId, seen: Option<&MasterKey>) -> Standing {
    let configured = api.config.authorization.users.get(user);
    let configured = configured.and_then(Option::as_ref);
    let shown = keys
        .pointer(&format!("/master_keys/{}/keys", escaped(user)))
        .and_then(only_key);
    let shown = shown.and_then(|key| key.parse::<MasterKey>().ok());
    let known = configured.or(seen);
    if known.is_some() && known != shown.as_ref() {
        let is_configured = configured.is_some();
        return Standing::Changed { is_configured };
    }
    match api.config.encryption.devices {
        Devices::CrossSigned if shown.is_none() => Standing::NoIdentity,
        Devices::CrossSigned if !has_verified_device(keys, user) => Standing::NoVerifiedDevice,
        Devices::CrossSigned | Devices::Any if known.is_some() => Standing::Known,
        Devices::CrossSigned | Devices::Any => Standing::New,
    }
}

/// By the names of the signatures alone: the bot itself checks them.
fn has_verified_device(keys: &Value, user: &UserId) -> bool {
    let user = escaped(user);
    let signer = keys.pointer(&format!("/self_signing_keys/{user}/keys"));
    let Some(signer) = signer.and_then(only_key) else {
        return false;
    };
    let devices = keys.pointer(&format!("/device_keys/{user}"));
    let mut devices = devices
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|all| all.values());
    let signature = format!("/signatures/{user}/ed25519:{}", signer.replace('/', "~1"));
    devices.any(|device| device.pointer(&signature).is_some())
}

/// A part of a JSON pointer (RFC 6901).
fn escaped(user: &UserId) -> String {
    user.as_str().replace('~', "~0").replace('/', "~1")
}

fn only_key(keys: &Value) -> Option<&str> {
    keys.as_object()?.values().next()?.as_str()
}

/// What is the matter, and what to do about it.
fn describe(api: &Api<'_>, user: &UserId, standing: &Standing) -> (String, String) {
    let ask = format!("ask {user}, not by Matrix, whether they have a new identity; if so");
    match standing {
        Standing::Changed {
            is_configured: true,
        } => (
            format!("the homeserver shows another identity of {user} than config.yaml names"),
            format!(
                "{ask}, correct their key under `authorization.users` in config.yaml, and start the bot again"
            ),
        ),
        Standing::Changed {
            is_configured: false,
        } => (
            format!("the homeserver shows another identity of {user} than the bot knows"),
            format!(
                "{ask}, `rcbot trust --config {} {user}` while the bot runs",
                api.config.file.display()
            ),
        ),
        Standing::NoIdentity => (
            format!("{user} has no cross-signing identity, so that no command of theirs counts"),
            format!(
                "{user} sets up encryption (secure backup, recovery) in their client's settings"
            ),
        ),
        Standing::NoVerifiedDevice => (
            format!("none of the devices of {user} is verified, so that they get no link"),
            format!("{user} verifies a device in their client's settings"),
        ),
        Standing::Known | Standing::New => (String::new(), String::new()),
    }
}

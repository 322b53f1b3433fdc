//! Who can join the admin room, who may command there, and whether the homeserver shows the pinned identities.

use matrix_sdk::ruma::UserId;

use super::{
    Found, Outcome,
    api::{Api, Identities},
    host::unreadable,
    room::RoomState,
};
use crate::{
    config::{Devices, MasterKey},
    matrix::NoPower,
    shell,
};

/// How many users are named before the rest is counted.
const NAMED: usize = 3;

/// How many users' identities are checked.
const LOOKED_AT: usize = 100;

/// Judges everybody in the room as the bot would judge a well-encrypted command. `Err`: the room restricts nobody.
pub(super) fn judge_access<'a>(api: &Api<'_>, state: &'a RoomState) -> Found<Vec<&'a UserId>> {
    let power = |user: &UserId| state.facts.power_of(user, &api.config.authorization);
    let members = state.members.iter().map(|user| &**user);
    if let Some(outcome) = members
        .clone()
        .find_map(|user| refused_room(&power(user).err()?))
    {
        return Err(outcome);
    }
    let allowed = members.filter(|user| power(user).is_ok()).collect();
    let access = format!("join rule `{}`", state.facts.join_rule.as_str());
    Ok((Outcome::passed(access), allowed))
}

/// `Err`: nobody may command.
pub(super) fn judge_commanders(api: &Api<'_>, allowed: &[&UserId]) -> Found<()> {
    let authorization = &api.config.authorization;
    let (needs, listed) = (authorization.power_level, &authorization.users);
    if allowed.is_empty() && listed.is_empty() {
        return Err(Outcome::failed(
            format!("nobody in the room: power level {needs} is needed"),
            format!(
                "give a member power level {needs} in the room's settings, or lower `authorization.power_level` in config.yaml"
            ),
        ));
    }
    if allowed.is_empty() {
        let listed: Vec<_> = listed.keys().map(|user| user.as_str()).collect();
        return Err(Outcome::failed(
            format!(
                "nobody: of `authorization.users` none is in the room with power level {needs}"
            ),
            format!(
                "invite {} to the room, and give them power level {needs}",
                listed.join(" or ")
            ),
        ));
    }
    let found = format!(
        "power level {needs} is needed, which {}",
        enumerate(allowed)
    );
    if !listed.is_empty() {
        return Ok((Outcome::passed(found), ()));
    }
    // Power levels are state of the room, which an administrator's password is enough to change.
    let names: Vec<_> = allowed.iter().map(|user| format!("\"{user}\"")).collect();
    let outcome = Outcome::warning(
        format!(
            "{found}; but `authorization.users` is empty, so that somebody with the password or access token of one of them can \
             give the level to an account of their own, and get sessions and links with that"
        ),
        format!(
            "name those who may command in config.yaml, `users: [{}]` under `authorization`, and restart the bot",
            names.join(", ")
        ),
    );
    Ok((outcome, ()))
}

/// The outcome for the room as a whole, if a member is refused because of it.
fn refused_room(reason: &NoPower) -> Option<Outcome> {
    let or_list = "or list in `authorization.users` in config.yaml who may command";
    match reason {
        NoPower::NotInviteOnly { join_rule } => {
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
        NoPower::OpenToAllMembers { has, needs } => Some(Outcome::failed(
            format!("everybody in the room has power level {has}, so no command counts"),
            format!(
                "lower the room's default power level below {needs} in its settings, {or_list}"
            ),
        )),
        NoPower::NotListed
        | NoPower::NotAMember
        | NoPower::PowerLevel { .. }
        | NoPower::UnknownVersion => None,
    }
}

fn enumerate(users: &[&UserId]) -> String {
    let named = users.iter().take(NAMED);
    let named: Vec<_> = named.map(|user| user.as_str()).collect();
    let named = named.join(", ");
    match users.len() {
        1 => format!("{named} has"),
        count if count <= NAMED => format!("{named} have"),
        count => format!("{named} and {} more have", count - NAMED),
    }
}

/// Compares the identities that the homeserver shows with those that are pinned. Which devices they have signed, the bot checks
/// with each command and each link.
pub(super) async fn judge_identities(api: &Api<'_>, users: &[&UserId]) -> Result<Outcome, Outcome> {
    let unreadable = |fault| unreadable(&fault);
    let pinned = api.folder.pinned_identities().map_err(unreadable)?.all();
    let others = users.len().saturating_sub(LOOKED_AT);
    let users = users.get(..LOOKED_AT).unwrap_or(users);
    let shown = api.identities(users).await?;
    let (mut problems, mut known, mut new) = (Vec::new(), 0, 0);
    for user in users {
        match judge_identity(api, &shown, user, pinned.get(*user)) {
            Err(problem) => problems.push(problem),
            Ok(true) => known += 1,
            Ok(false) => new += 1,
        }
    }
    if problems.is_empty() {
        let mut found = match (known, new) {
            (_, 0) => "the identity of each is the pinned one".to_owned(),
            (0, _) => {
                "no identity is pinned yet: each is pinned when the bot first sees it".to_owned()
            }
            (_, new) => {
                format!(
                    "the identity of {known} is pinned, that of {new} will be when the bot first sees it"
                )
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

/// Whether the user's identity is known, or is pinned when it is seen. `Err`: the problem and the remedy.
fn judge_identity(
    api: &Api<'_>,
    shown: &Identities,
    user: &UserId,
    pinned: Option<&MasterKey>,
) -> Result<bool, (String, String)> {
    let configured = api.config.authorization.users.get(user);
    let configured = configured.and_then(Option::as_ref);
    let shown = shown.of(user).map(str::parse::<MasterKey>);
    if matches!(shown, Some(Err(_))) {
        return Err((
            format!("the homeserver shows a malformed key as the identity of {user}"),
            format!("ask whoever runs the homeserver of {user} where it comes from"),
        ));
    }
    let shown = shown.and_then(Result::ok);
    let known = configured.or(pinned);
    if known.is_some() && known != shown.as_ref() {
        let config_file = shell::word(&api.config.file);
        let trust = format!("`rcbot trust --config {config_file} {user}` while the bot runs");
        let correct =
            "correct their key under `authorization.users` in config.yaml, and restart the bot";
        let (known, then) = match configured {
            Some(_) => ("config.yaml names", correct),
            None => ("the bot knows", trust.as_str()),
        };
        return Err((
            format!("the homeserver shows another identity of {user} than {known}"),
            format!(
                "ask {user} in person or by phone whether they reset their identity; if they did, {then}"
            ),
        ));
    }
    if api.config.encryption.devices == Devices::CrossSigned && shown.is_none() {
        return Err((
            format!("{user} has no cross-signing identity, so that no command of theirs counts"),
            format!(
                "{user} sets up encryption (secure backup, recovery) in their client's settings"
            ),
        ));
    }
    Ok(known.is_some())
}

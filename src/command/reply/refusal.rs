//! What is said of a message that nothing came of: its sender may not command, or it is no command.

use matrix_sdk::ruma::UserId;

use super::{Reply, help};
use crate::{
    command::{Denied, Misuse},
    matrix::NoPower,
    remote_control::ProjectName,
};

/// Who may not command is told why.
#[must_use]
pub fn denied(denied: &Denied) -> Reply {
    let reason = match denied {
        Denied::NoPower(reason) => no_power(reason),
        Denied::NotEncrypted => {
            "your message was not encrypted, and has to be. Use a client that supports encrypted rooms".to_owned()
        }
        Denied::UnsignedDevice => {
            "your device is not verified. Verify this device in your client's settings, and try again".to_owned()
        }
        Denied::IdentityChanged => {
            "your cross-signing identity is another one than I know. If you reset it yourself, ask the bot's operator to \
             accept it: `rcbot trust` and your user id, on the host"
                .to_owned()
        }
        Denied::UnknownDevice => {
            "I cannot tell which device your message came from. Send it once more; if that does not help, verify your \
             device in your client's settings"
                .to_owned()
        }
        Denied::Redacted => "the message was deleted before I got to it".to_owned(),
        Denied::Replayed => {
            "I have done this once already. If you mean it again, say it again; if you did not say it twice, the homeserver \
             showed me an old message"
                .to_owned()
        }
        Denied::TooOld => {
            "it took too long until I could ask the homeserver about it. If you still want it, say it again".to_owned()
        }
        Denied::NotRecorded => {
            "I cannot write down that I do it, and so I do not. The bot's log on the host says why".to_owned()
        }
        Denied::NoFacts => {
            "the homeserver did not tell me what I need to know about you and this room. Try again in a moment".to_owned()
        }
    };
    Reply::new(format!("Sorry, I did not do that: {reason}."))
}

fn no_power(reason: &NoPower) -> String {
    let or_list = "or let the bot's operator list who may command me in `authorization.users`";
    match reason {
        NoPower::NotListed => "you are not on the list of users who may command me".to_owned(),
        NoPower::NotAMember => "you are not a member of this room".to_owned(),
        NoPower::PowerLevel { has, needs } => {
            format!(
                "your power level here is {has}, and this takes {needs}. Ask an administrator of this room"
            )
        }
        NoPower::NotInviteOnly { join_rule } => {
            let who = match join_rule.as_str() {
                "public" => "anybody can join this room".to_owned(),
                other => {
                    format!("people can join this room without an invitation (join rule `{other}`)")
                }
            };
            format!("{who}. Make it invite-only in its settings, {or_list}")
        }
        NoPower::OpenToAllMembers { has, needs } => format!(
            "everybody in this room has power level {has}, and this takes {needs}. Lower the room's default power level \
             (`users_default`), {or_list}"
        ),
        NoPower::UnknownVersion => {
            "I do not know rooms of this version. Ask the bot's operator for a newer rcbot"
                .to_owned()
        }
    }
}

/// The homeserver shows another identity of a user than the one that the bot knows.
#[must_use]
pub fn identity_changed(user: &UserId) -> Reply {
    Reply::new(format!(
        "{user} has another cross-signing identity than I know: a new one of theirs, or somebody who poses as them. I take \
         no commands of theirs and send them no link, until the bot's operator accepts it: `rcbot trust {user}`, on the host."
    ))
}

/// Somebody commands more often than they may.
#[must_use]
pub fn too_many_commands(per_minute: usize) -> Reply {
    let commands = match per_minute {
        1 => "1 command".to_owned(),
        many => format!("{many} commands"),
    };
    Reply::new(format!(
        "Sorry, I did not do that: I take {commands} a minute from each user. Wait a moment, and say it again."
    ))
}

/// What somebody said cannot be decrypted.
#[must_use]
pub fn undecryptable() -> Reply {
    Reply::new(
        "I could not decrypt this. If it was a command, send it once more; if that does not help, verify your device in your \
         client's settings, or leave and reopen this room so that your client sees my device.",
    )
}

/// What was typed is no command.
#[must_use]
pub fn misuse(prefix: &str, misuse: &Misuse) -> Reply {
    let what = match misuse {
        Misuse::NoCommand => "What would you like me to do?".to_owned(),
        Misuse::UnknownCommand { word } => {
            format!("I do not know the command `{}`.", shortened(word))
        }
        Misuse::TooManyWords { command } => {
            format!("`{prefix} {command}` takes fewer words than that.")
        }
        Misuse::HowLong { .. } => {
            return Reply::new(format!(
                "By how long? Say for example `{prefix} extend 2h`, or `{prefix} extend PROJECT 90m`. Anything from a \
                 minute to 30 days is possible."
            ));
        }
        Misuse::UnknownProject { name, known } => {
            return Reply::new(format!(
                "There is no project `{}`. {}",
                shortened(name),
                projects_are(known)
            ));
        }
        Misuse::UnknownHost { name, known } => {
            let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            return Reply::new(format!(
                "There is no host `{}` here. Hosts: {}.",
                shortened(name),
                names.join(", ")
            ));
        }
        Misuse::WhichHost { command, known } => {
            return Reply::new(format!(
                "Which one? Say `{prefix} {command}` and one of: {}.",
                places_are(known)
            ));
        }
        Misuse::NowhereKnown { name, known } => {
            return Reply::new(format!(
                "No host has a project `{}`. There are: {}.",
                shortened(name),
                places_are(known)
            ));
        }
        Misuse::WhichProject { command, known } => {
            return Reply::new(format!(
                "Which project? Say `{prefix} {command}` and its name. {}",
                projects_are(known)
            ));
        }
    };
    let usage = help(prefix);
    Reply {
        plain: format!("{what}\n{}", usage.plain),
        html: format!("<p>{}</p>{}", Reply::new(what).html, usage.html),
    }
}

/// Nobody needs to read back a page of what they typed.
fn shortened(word: &str) -> String {
    let plain: String = word
        .chars()
        .filter(|character| *character != '`')
        .take(40)
        .collect();
    plain
}

fn places_are(known: &[String]) -> String {
    let names: Vec<_> = known.iter().map(|place| format!("`{place}`")).collect();
    names.join(", ")
}

fn projects_are(known: &[ProjectName]) -> String {
    match known {
        [] => "Names of projects are letters, digits, `-`, `_` and `.`.".to_owned(),
        known => {
            let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            format!("Projects: {}.", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_typed_cannot_become_html() {
        let misuse = Misuse::UnknownCommand {
            word: "<b>`x`</b>".to_owned(),
        };
        let reply = super::misuse("!rc", &misuse);
        assert!(
            reply
                .html
                .starts_with("<p>I do not know the command <code>&lt;b&gt;x&lt;/b&gt;</code>."),
            "{}",
            reply.html
        );
    }
}

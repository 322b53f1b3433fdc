//! Replies to a message that is refused: its sender may not command, or it is not a valid command.

use matrix_sdk::ruma::UserId;

use super::{MOST_LISTED, Reply, Topic, counted, listed, listed_with};
use crate::{
    command::{Denied, Misuse, authorize::NOBODY, nearest},
    matrix::NoPower,
    remote_control::{ProjectName, StartOption},
};

pub(super) const IDENTITY_CHANGED: &str = "your cross-signing identity has changed since I pinned it. If you reset it yourself, ask \
     the bot's operator to accept it: `rcbot trust` and your user id, on the host";

pub(crate) fn denied(denied: &Denied) -> Reply {
    let (why, topic) = match denied {
        Denied::NoPower(reason) => return no_power(reason),
        Denied::NotEncrypted => (
            "your message was not encrypted, and has to be. Use a client that supports encrypted rooms",
            Some(Topic::NotEncrypted),
        ),
        Denied::UnsignedDevice => (
            "your device is not verified. Verify the device that you sent this with in its own settings (or set up encryption \
             there, if it offers no verification), and try again",
            Some(Topic::NotVerified),
        ),
        Denied::IdentityChanged => (IDENTITY_CHANGED, Some(Topic::IdentityChanged)),
        Denied::UnknownDevice => (
            "I cannot tell which device your message came from. Send it once more; if that does not help, verify your \
             device in your client's settings",
            Some(Topic::NotVerified),
        ),
        Denied::Redacted => ("the message was deleted before I could act on it", None),
        Denied::Replayed => (
            "I have executed this message before. To do it again, send it again; if you sent it only once, the homeserver \
             replayed it",
            Some(Topic::ExecutedBefore),
        ),
        Denied::TooOld => (
            "it took too long until I could ask the homeserver about it. If you still want it, send it again",
            Some(Topic::TooLate),
        ),
        Denied::NotRecorded => (
            "I could not record the command on disk, so I did not execute it. The bot's log on the host says why",
            None,
        ),
        Denied::NoFacts(failed) => {
            let failed = failed.as_deref();
            let failed = failed.map(|why| format!(" ({})", cut(why, LONGEST_COMMAND)));
            return not_done(&format!(
                "the homeserver did not answer when I asked for your power level here{}. Try again in a moment",
                failed.unwrap_or_default()
            ))
            .more(Topic::NoAnswerFromHomeserver);
        }
    };
    not_done(why).more(topic)
}

/// The same in two words, for a device that cannot read the answer: keys go to verified devices only.
pub(crate) fn denied_to_device(denied: &Denied) -> Option<&'static str> {
    match denied {
        Denied::UnsignedDevice | Denied::UnknownDevice => Some("🔒 not verified"),
        Denied::NoPower(_)
        | Denied::NotEncrypted
        | Denied::IdentityChanged
        | Denied::Redacted
        | Denied::Replayed
        | Denied::TooOld
        | Denied::NotRecorded
        | Denied::NoFacts(_) => None,
    }
}

pub(crate) fn too_many_commands(per_minute: usize) -> Reply {
    let commands = counted(per_minute, "command", "commands");
    not_done(&format!(
        "I take {commands} a minute from each user. Wait a moment, and send it again"
    ))
}

fn not_done(why: &str) -> Reply {
    Reply::new(format!("Not done: {why}."))
}

fn no_power(reason: &NoPower) -> Reply {
    let or_list = "or let the bot's operator list who may command me in `authorization.users`";
    let (why, topic) = match reason {
        NoPower::NotListed => (
            "you are not on the list of users who may command me".to_owned(),
            Some(Topic::NotListed),
        ),
        NoPower::NotAMember => ("you are not a member of this room".to_owned(), None),
        NoPower::PowerLevel { needs: NOBODY, .. } => (
            "the session runs with options that config.yaml does not allow any more. Stop it, and start it again".to_owned(),
            Some(Topic::PowerLevel),
        ),
        NoPower::PowerLevel { has, needs } => (
            format!("your power level here is {has}, and this takes {needs}. Ask an administrator of this room"),
            Some(Topic::PowerLevel),
        ),
        NoPower::NotInviteOnly { join_rule } => {
            let who = match join_rule.as_str() {
                "public" => "anybody can join this room".to_owned(),
                other => {
                    format!("people can join this room without an invitation (join rule `{other}`)")
                }
            };
            let why = format!("{who}. Make it invite-only in its settings, {or_list}");
            (why, Some(Topic::OpenRoom))
        }
        NoPower::OpenToAllMembers { has, needs } => (
            format!(
                "everybody in this room has power level {has}, and this takes {needs}. Lower the room's default power level \
                 (`users_default`), {or_list}"
            ),
            Some(Topic::OpenRoom),
        ),
        NoPower::UnknownVersion => (
            "I do not know rooms of this version. Ask the bot's operator for a newer rcbot".to_owned(),
            None,
        ),
    };
    not_done(&why).more(topic)
}

pub(crate) fn identity_changed(user: &UserId) -> Reply {
    Reply::new(format!(
        "The cross-signing identity of **{user}** has changed: they reset it, or somebody poses as them. I take no commands from them \
         and send them no link, until the bot's operator accepts the new one: `rcbot trust {user}`, on the host."
    ))
    .more(Topic::IdentityChanged)
}

pub(crate) fn undecryptable() -> Reply {
    Reply::new(
        "I could not decrypt this. If it was a command, send it once more; if that does not help, verify your device in your \
         client's settings, or leave and reopen this room so that your client sees my device.",
    )
}

pub(crate) fn misuse(prefix: &str, misuse: &Misuse) -> Reply {
    let mut topic = None;
    let text = match misuse {
        Misuse::UnknownCommand { word, meant } => unknown_command(prefix, word, meant.as_deref()),
        Misuse::Edited => {
            topic = Some(Topic::Edits);
            "I take no commands from edits, so nothing has changed. If you mean it, send it as a new message.".to_owned()
        }
        Misuse::TooManyWords { command } => format!(
            "`{prefix} {command}` takes fewer words than that.{} A message is one command: `{prefix} help` shows how each is used.",
            match *command {
                "start" | "resume" =>
                    " The name of a session goes in quotes: `--name \"fix the build\"`.",
                _ => "",
            }
        ),
        Misuse::UnknownOption {
            command,
            name,
            known,
        } => {
            let known: Vec<_> = known.iter().map(|name| format!("--{name}")).collect();
            let name = shortened(name);
            let known = listed(&known);
            format!("`{prefix} {command}` has no option `--{name}`. It takes {known}.")
        }
        Misuse::RepeatedOption(option) => {
            format!("`--{option}` is given twice, and only one can count. Say it once.")
        }
        Misuse::OptionWithoutValue(option) => {
            format!(
                "`{option}` needs a value, such as `{option} {}`.",
                example(*option)
            )
        }
        Misuse::OpenQuote(option) => format!(
            "The quote behind `{option}` has no end. Put one behind the last word: `{option} {}`.",
            example(*option)
        ),
        Misuse::InvalidName(error) => format!("I cannot call a session so: {error}."),
        Misuse::NotAllowed {
            option,
            value,
            allowed,
            project,
        } => not_allowed(*option, value, allowed, project),
        Misuse::HowLong => format!(
            "By how long? Say for example `{prefix} extend 2h`, or `{prefix} extend PROJECT 90m`. Anything from a minute to \
             30 days is possible."
        ),
        Misuse::HowManyLines => format!(
            "How many lines? Say for example `{prefix} logs 100`, or `{prefix} logs PROJECT 100`. Anything from 1 to 500 is \
             possible."
        ),
        Misuse::HowLongToFollow => format!(
            "How long should I follow the log? Say for example `{prefix} logs PROJECT --follow 5m`. Anything from 10 seconds to an \
             hour is possible."
        ),
        Misuse::UnknownProject { name, known, more } => unknown_project(prefix, name, known, *more),
        Misuse::RootsUnreadable { name } => format!(
            "There is no project `{}` that I can see, but not all of the project roots can be read now: `{prefix} doctor` says \
             which, and why.",
            shortened(name)
        ),
        Misuse::UnknownHost { name, known } => format!(
            "There is no host `{}` here. Hosts: {}.",
            shortened(name),
            listed(known)
        ),
        Misuse::HostDoesNotAnswer(host) => {
            topic = Some(Topic::HostDoesNotAnswer);
            format!(
                "**{host}** does not answer: its bot is not running, or does not reach the homeserver. Sessions there go on. \
                 If it is back soon, it carries this out all the same."
            )
        }
        Misuse::NothingRuns => format!("No session is running. `{prefix} start` starts one."),
        Misuse::Ambiguous {
            command,
            known,
            more,
        } => format!(
            "Which project? Say `{prefix} {command}` and one of: {}.{}",
            listed_with(known, *more),
            find_more(prefix, known, *more)
        ),
    };
    Reply::new(text).more(topic)
}

fn unknown_command(prefix: &str, word: &str, meant: Option<&str>) -> String {
    let meant = meant.map(|it| format!(" Did you mean `{prefix} {}`?", cut(it, LONGEST_COMMAND)));
    format!(
        "I do not know the command `{}`.{} `{prefix} help` lists the commands.",
        shortened(word),
        meant.unwrap_or_default()
    )
}

fn unknown_project(prefix: &str, name: &str, known: &[String], more: usize) -> String {
    let names: Vec<_> = known.iter().map(String::as_str).collect();
    let meant = nearest(name, &names);
    let meant = meant.map(|name| format!(" Did you mean `{name}`?"));
    format!(
        "There is no project `{}`.{} Projects: {}.{}{}",
        shortened(name),
        meant.unwrap_or_default(),
        listed_with(known, more),
        find_more(prefix, known, more),
        unfit(name)
    )
}

/// A hint for the name of a folder that cannot be a project.
fn unfit(name: &str) -> String {
    match name.parse::<ProjectName>() {
        Ok(_) => String::new(),
        Err(error) => format!(
            " It cannot be one: {error}. Give a folder that is called so a name under `projects` in the bot's configuration."
        ),
    }
}

fn example(option: StartOption) -> &'static str {
    match option {
        StartOption::Mode => "plan",
        StartOption::Spawn => "worktree",
        StartOption::Name => "\"fix the build\"",
    }
}

/// An option whose value the project's settings do not allow, or that they do not have.
fn not_allowed(
    option: StartOption,
    value: &str,
    allowed: &[String],
    project: &ProjectName,
) -> String {
    if !allowed.is_empty() {
        return format!(
            "`{option} {}` is not allowed for **{project}**. Allowed: {}; the first is the default.",
            shortened(value),
            listed(allowed)
        );
    }
    let setting = match option {
        StartOption::Mode => "`sessions.permission_modes`, and `{mode}` in the command",
        StartOption::Spawn => "`sessions.spawn`, and `{spawn}` in the command",
        StartOption::Name => "`{name}` in the command",
    };
    format!(
        "`{option}` cannot be asked for in **{project}**. The bot's operator can allow it in config.yaml: {setting}."
    )
}

/// How long a command is that is suggested to somebody, in characters.
const LONGEST_COMMAND: usize = 200;

/// How to find a project that is not among those listed. Hosts with many do not announce all of their names.
fn find_more(prefix: &str, known: &[String], more: usize) -> String {
    match more {
        0 if known.len() > MOST_LISTED => {
            format!(" `{prefix} projects WORD` lists those whose names hold a word.")
        }
        0 => String::new(),
        _ => format!(
            " Give the whole name, or the host too: `PROJECT@HOST`. `{prefix} projects @HOST` lists a host's projects."
        ),
    }
}

/// Nobody needs to read back a page of what they typed.
fn shortened(word: &str) -> String {
    cut(word, 40)
}

fn cut(text: &str, longest: usize) -> String {
    let shown = text.chars().filter(|sign| !matches!(sign, '`' | '*'));
    shown.take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::parse;

    #[test]
    fn what_people_typed_cannot_become_html() {
        let misuse = Misuse::UnknownCommand {
            word: "<b>`x`**</b>".to_owned(),
            meant: None,
        };
        let reply = super::misuse("!rc", &misuse);
        assert!(
            reply
                .html
                .starts_with("I do not know the command <code>&lt;b&gt;x&lt;/b&gt;</code>."),
            "{}",
            reply.html
        );
    }

    #[test]
    fn a_homeserver_that_does_not_answer_is_named_with_the_request_in_short_and_without_markup() {
        let failed = format!("[502] **no** (GET `/state`) {}", "x".repeat(5_000));
        let said = denied(&Denied::NoFacts(Some(failed))).plain;
        let begin = "Not done: the homeserver did not answer when I asked for your power level here ([502] no (GET /state) xx";
        assert!(said.starts_with(begin), "{said}");
        assert!(said.len() < 500 && said.contains("). Try again in a moment."));
        let unknown = denied(&Denied::NoFacts(None)).plain;
        assert!(unknown.contains("power level here. Try again"), "{unknown}");
    }

    #[test]
    fn a_misspelling_is_reported_with_a_suggestion() {
        let meant = |text: &str| {
            let misuse = parse("!rc", text)?.err()?;
            let said = super::misuse("!rc", &misuse).plain;
            let (_, meant) = said.split_once("Did you mean `")?;
            Some(meant.split_once("`?")?.0.to_owned())
        };
        for (text, expected) in [
            ("!rc strat website", Some("!rc start website")),
            ("!rc STRAT website", Some("!rc start website")),
            ("!rc stauts", Some("!rc status")),
            ("!rc log website", Some("!rc logs website")),
            ("!rc dance", None),
            ("!rc x", None),
        ] {
            assert_eq!(meant(text).as_deref(), expected, "{text}");
        }
        let unknown = Misuse::UnknownProject {
            name: "Web".to_owned(),
            known: vec!["api".to_owned(), "website".to_owned()],
            more: 0,
        };
        assert_eq!(
            super::misuse("!rc", &unknown).plain,
            "There is no project `Web`. Did you mean `website`? Projects: `api`, `website`."
        );
        let known = (0..50).map(|number| format!("web-{number}")).collect();
        let of_many = Misuse::Ambiguous {
            command: "start",
            known,
            more: 0,
        };
        let said = super::misuse("!rc", &of_many).plain;
        let hint = "and 10 more. `!rc projects WORD` lists those whose names hold a word.";
        assert!(said.ends_with(hint), "{said}");
    }
}

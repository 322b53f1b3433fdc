//! What a single value must be. Each check turns a value into its type or says what is wanted; none looks at the system.

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_sdk::ruma::{
    Int, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, RoomOrAliasId, ServerName, UserId,
};
use url::{Host, Url};

use bytesize::ByteSize;

use super::{HostName, problem::Refusal, yaml::Node};
use crate::{
    remote_control::{
        DATA_DIRECTORY_VARIABLE, LinkPattern, SESSION_FOLDER_VARIABLE, SESSION_ID_VARIABLE,
    },
    secret::{Password, Token},
};

/// The least that an output file may hold, in bytes.
const SMALLEST_OUTPUT: u64 = 256 * 1024;

/// No duration is longer: so none can overflow a clock to which it is added.
const LONGEST_DURATION: Duration = Duration::from_hours(24 * 366);

/// Nothing that is counted comes to more than this.
const LARGEST_COUNT: usize = 1_000;

/// How long a room id without a domain is, in bytes: `!` and a SHA-256 hash in unpadded base64 (room version 12).
const ROOM_ID_WITHOUT_DOMAIN: usize = 44;

/// Any text.
pub(crate) fn text(node: &Node) -> Result<String, Refusal> {
    match node {
        Node::Text(text) => Ok(text.clone()),
        Node::Plain(_) => Err(Refusal::wanted("a text: put it in quotes")),
        Node::Nothing | Node::List(_) | Node::Map(_) | Node::Tagged(_) => {
            Err(Refusal::wanted("a text"))
        }
    }
}

/// A text that may hold a secret, so no message shows it.
pub(crate) fn secret_text(node: &Node) -> Result<String, Refusal> {
    text(node).map_err(|_| Refusal::because("wanted a text, in quotes"))
}

/// A text to show to people.
pub(crate) fn name(node: &Node) -> Result<String, Refusal> {
    let is_name = |text: &String| !text.trim().is_empty() && !text.contains(char::is_control);
    must(text(node)?, is_name, "a text of one line")
}

/// What a host is called.
pub(crate) fn host(node: &Node) -> Result<HostName, Refusal> {
    let wanted = || Refusal::wanted("a host's name without white space, such as build1");
    text(node)
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or_else(wanted)
}

/// The first word of every command.
pub(crate) fn command_prefix(node: &Node) -> Result<String, Refusal> {
    let wanted = "a word without white space or backticks, in quotes, such as \"!rc\"";
    // What the bot says puts commands between backticks.
    let is_word = |text: &String| {
        !text.is_empty()
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '`')
    };
    must(
        text(node).map_err(|_| Refusal::wanted(wanted))?,
        is_word,
        wanted,
    )
}

/// The address of the client-server API.
pub(crate) fn homeserver_url(node: &Node) -> Result<Url, Refusal> {
    let wanted = || Refusal::wanted("an http or https URL such as http://127.0.0.1:8008");
    let text = text(node).map_err(|_| wanted())?;
    // A password stands before the @, be the rest a URL or not; so this is looked at before anything is shown.
    if text.contains('@') {
        return Err(Refusal::because(
            "names a user or a password; wanted a URL without them",
        ));
    }
    let url = Url::parse(&text).map_err(|_| wanted())?;
    let is_plain = url.query().is_none() && url.fragment().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain)
        .then_some(url)
        .ok_or_else(wanted)
}

/// Whether what is sent to the URL can be read by others on its way.
pub(crate) fn is_unprotected(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost" || domain.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_loopback
}

/// The name in which the homeserver's user ids end.
pub(crate) fn server_name(node: &Node) -> Result<OwnedServerName, Refusal> {
    let wanted = || Refusal::wanted("a server name without https://, such as example.org");
    ServerName::parse(text(node).map_err(|_| wanted())?).map_err(|_| wanted())
}

/// The part of a new user's id before the colon.
pub(crate) fn localpart(node: &Node) -> Result<String, Refusal> {
    let wanted = "a user name of lower-case letters, digits and . _ = - / + alone, without @ and server name";
    let is_localpart = |name: &String| {
        UserId::parse(format!("@{name}:localhost")).is_ok_and(|user| user.validate_strict().is_ok())
    };
    must(text(node)?, is_localpart, wanted)
}

/// An access token. No message shows it.
pub(crate) fn token(node: &Node) -> Result<Token, Refusal> {
    let text = text(node).map_err(|_| Refusal::because("wanted a secret text, in quotes"))?;
    Token::new(text).map_err(|error| Refusal::because(error.to_string()))
}

/// The password of an account. No message shows it.
pub(crate) fn password(node: &Node) -> Result<Password, Refusal> {
    let text = text(node).map_err(|_| Refusal::because("wanted the password, in quotes"))?;
    Password::new(text).map_err(|error| Refusal::because(error.to_string()))
}

/// A whole user id.
pub(crate) fn user_id(node: &Node) -> Result<OwnedUserId, Refusal> {
    let wanted = || Refusal::wanted("a user id in quotes, such as \"@admin:example.org\"");
    let user = UserId::parse(text(node).map_err(|_| wanted())?).map_err(|_| wanted())?;
    user.validate_historical().map_err(|_| wanted())?;
    Ok(user)
}

/// A room's id or alias.
pub(crate) fn room(node: &Node) -> Result<OwnedRoomOrAliasId, Refusal> {
    let wanted = || {
        Refusal::wanted(
            "a room alias or id in quotes, such as \"#admins:example.org\" or \"!abcdef:example.org\"",
        )
    };
    let text = text(node).map_err(|_| wanted())?;
    let is_whole = text.contains(':') || text.len() == ROOM_ID_WITHOUT_DOMAIN;
    let room = RoomOrAliasId::parse(&text).map_err(|_| wanted())?;
    (is_whole && !text.contains(char::is_whitespace))
        .then_some(room)
        .ok_or_else(wanted)
}

/// A power level.
pub(crate) fn power_level(node: &Node) -> Result<i64, Refusal> {
    let wanted = || {
        Refusal::wanted(format!(
            "a whole number from {} to {}, such as 100",
            Int::MIN,
            Int::MAX
        ))
    };
    let Node::Plain(number) = node else {
        return Err(wanted());
    };
    let level = number.parse::<i64>().map_err(|_| wanted())?;
    Int::new(level).map(i64::from).ok_or_else(wanted)
}

/// `true` or `false`.
pub(crate) fn flag(node: &Node) -> Result<bool, Refusal> {
    let value = [("true", true), ("false", false)]
        .into_iter()
        .find(|(word, _)| *node == Node::Plain((*word).to_owned()));
    value
        .map(|(_, value)| value)
        .ok_or_else(|| Refusal::wanted("true or false"))
}

/// A time span, maybe none.
pub(crate) fn duration(node: &Node) -> Result<Duration, Refusal> {
    let wanted = "a duration such as 30s or 2m, of a year at most";
    let duration = text(node)
        .ok()
        .and_then(|text| humantime::parse_duration(&text).ok());
    duration
        .filter(|duration| *duration <= LONGEST_DURATION)
        .ok_or_else(|| Refusal::wanted(wanted))
}

/// A time span that is not zero.
pub(crate) fn positive_duration(node: &Node) -> Result<Duration, Refusal> {
    must(
        duration(node)?,
        |duration| !duration.is_zero(),
        "a duration longer than nothing, such as 30s or 2m",
    )
}

/// A time span, or `none`.
pub(crate) fn optional_duration(node: &Node) -> Result<Option<Duration>, Refusal> {
    if *node == Node::Text("none".to_owned()) {
        return Ok(None);
    }
    let wanted = "a duration such as 12h, or none";
    positive_duration(node)
        .map(Some)
        .map_err(|_| Refusal::wanted(wanted))
}

/// A number of bytes that a file may have. Files are cut by whole blocks, so it cannot be less than some dozens of them.
pub(crate) fn output_size(node: &Node) -> Result<u64, Refusal> {
    let size = text(node)
        .ok()
        .and_then(|text| text.parse::<ByteSize>().ok());
    size.map(|size| size.as_u64())
        .filter(|size| *size >= SMALLEST_OUTPUT)
        .ok_or_else(|| Refusal::wanted("a size such as 8MiB, of 256KiB at least"))
}

/// A number of things that is at least one.
pub(crate) fn count(node: &Node) -> Result<usize, Refusal> {
    let wanted = || Refusal::wanted(format!("a whole number from 1 to {LARGEST_COUNT}"));
    let Node::Plain(number) = node else {
        return Err(wanted());
    };
    let count = number.parse::<usize>().map_err(|_| wanted())?;
    (1..=LARGEST_COUNT)
        .contains(&count)
        .then_some(count)
        .ok_or_else(wanted)
}

/// A number of things, or `none`.
pub(crate) fn optional_count(node: &Node) -> Result<Option<usize>, Refusal> {
    if *node == Node::Text("none".to_owned()) {
        return Ok(None);
    }
    let wanted = format!("a whole number from 1 to {LARGEST_COUNT}, or none");
    count(node).map(Some).map_err(|_| Refusal::wanted(wanted))
}

/// One of the named choices.
pub(crate) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, Refusal> {
    move |node| {
        let chosen = choices
            .iter()
            .find(|(name, _)| *node == Node::Text((*name).to_owned()));
        let names = || {
            choices
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(" or ")
        };
        chosen
            .map(|(_, value)| *value)
            .ok_or_else(|| Refusal::wanted(names()))
    }
}

/// A path; a relative one begins at `folder`.
pub(crate) fn path(folder: &Path) -> impl Fn(&Node) -> Result<PathBuf, Refusal> {
    move |node| {
        let text = text(node).map_err(|_| Refusal::wanted("a path"))?;
        if text.starts_with('~') {
            return Err(Refusal::wanted(
                "a path without ~, which is not expanded here: write it out",
            ));
        }
        let is_path = |text: &String| !text.is_empty() && !text.contains('\0');
        Ok(folder.join(must(text, is_path, "a path")?))
    }
}

/// A program and its arguments. They are no secrets: every process on the host can read them.
pub(crate) fn command(node: &Node) -> Result<Vec<String>, Refusal> {
    let wanted = || {
        Refusal::wanted("a list of a program and its arguments, such as [claude, remote-control]")
    };
    let Node::List(items) = node else {
        return Err(wanted());
    };
    let words = items.iter().map(argument).collect::<Option<Vec<_>>>().ok_or_else(|| {
        Refusal::because("an argument is not a text; wanted texts alone, in quotes where they hold : or # or begin with {")
    })?;
    match words.first() {
        None => Err(Refusal::because(
            "the list is empty; wanted a program and its arguments",
        )),
        Some(program) if program.trim().is_empty() => Err(Refusal::because(
            "the program's name is empty; wanted a program such as claude",
        )),
        Some(_) => Ok(words),
    }
}

/// The variables by which rcbot knows the processes of its sessions.
const OURS: [&str; 3] = [
    SESSION_ID_VARIABLE,
    SESSION_FOLDER_VARIABLE,
    DATA_DIRECTORY_VARIABLE,
];

/// The value of an environment variable. It may be a secret, so no message shows it.
pub(crate) fn environment_variable(name: &str, node: &Node) -> Result<String, Refusal> {
    if OURS.contains(&name) {
        return Err(Refusal::because(
            "is set by rcbot itself, to know its processes by; remove it",
        ));
    }
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Refusal::because(
            "no name for an environment variable: it is empty or holds = or a NUL",
        ));
    }
    argument(node).ok_or_else(|| {
        Refusal::because("wanted a text as the variable's value; \"\" is the empty one")
    })
}

/// What a link looks like.
pub(crate) fn link_pattern(node: &Node) -> Result<LinkPattern, Refusal> {
    let text = text(node)?;
    LinkPattern::new(&text).map_err(|error| {
        Refusal::wanted(format!(
            "a regular expression for an https URL ({})",
            in_one_line(&error)
        ))
    })
}

/// Numbers and truth values are taken as they were written. `None` where the system takes no such text.
fn argument(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) | Node::Plain(text) => (!text.contains('\0')).then(|| text.clone()),
        Node::Nothing | Node::List(_) | Node::Map(_) | Node::Tagged(_) => None,
    }
}

/// The innermost cause. The errors of regular expressions draw a picture first; the cause is their last line.
fn in_one_line(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let message = innermost.to_string();
    message
        .lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// The value itself, where it fits.
fn must<T>(value: T, fits: impl FnOnce(&T) -> bool, wanted: &str) -> Result<T, Refusal> {
    if fits(&value) {
        Ok(value)
    } else {
        Err(Refusal::wanted(wanted))
    }
}

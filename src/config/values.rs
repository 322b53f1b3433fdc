//! The types of values. Each function converts a value or says what is wanted; none reads from the system.

use std::{error::Error, fmt::Display, iter, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use matrix_sdk::ruma::{
    Int, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, RoomOrAliasId, ServerName, UserId,
};
use serde_yaml::Value;
use url::Url;

use super::{Devices, HostName, Notification, RequireEncryptedCommands};
use crate::{
    remote_control::{
        Choice, DATA_DIRECTORY_VARIABLE, LinkPattern, Restart, SESSION_FOLDER_VARIABLE,
        SESSION_ID_VARIABLE,
    },
    secret::{SecretText, Token},
};

/// The smallest limit of an output file, in bytes.
const SMALLEST_OUTPUT: u64 = 256 * 1024;

/// The longest duration: none can overflow a clock to which it is added.
const LONGEST_DURATION: Duration = Duration::from_hours(24 * 366);

const LARGEST_COUNT: i64 = 1_000;

/// How long a room id without a domain is, in bytes: `!` and a SHA-256 hash in unpadded base64 (room version 12).
const ROOM_ID_WITHOUT_DOMAIN: usize = 44;

/// The variables by which rcbot knows the processes of its sessions.
const OURS: [&str; 3] = [
    SESSION_ID_VARIABLE,
    SESSION_FOLDER_VARIABLE,
    DATA_DIRECTORY_VARIABLE,
];

pub(crate) const NOTIFICATIONS: [(&str, Notification); 4] = [
    ("ended", Notification::Ended),
    ("cut_off", Notification::CutOff),
    ("login", Notification::Login),
    ("rebooted", Notification::Rebooted),
];

/// The type of the value of a key.
pub(crate) trait Kind {
    type Value;

    fn read(value: &Value) -> Result<Self::Value, String>;

    /// Parses a text from a terminal as if it were in the file.
    fn of_text(text: &str) -> Result<Self::Value, String> {
        Self::read(&Value::from(text))
    }
}

/// A type for each, for the structs with the keys.
macro_rules! kinds {
    ($($kind:ident: $read:ident -> $value:ty;)*) => {$(
        pub(crate) enum $kind {}

        impl Kind for $kind {
            type Value = $value;

            fn read(value: &Value) -> Result<$value, String> {
                $read(value)
            }
        }
    )*};
}

kinds! {
    AccessToken: token -> Token;
    AccountPassword: password -> SecretText;
    AnyDuration: duration -> Duration;
    Anything: anything -> Value;
    Command: command -> Vec<String>;
    CommandPrefix: command_prefix -> String;
    Count: count -> usize;
    CountOrNone: count_or_none -> Option<usize>;
    DevicesToTrust: devices -> Devices;
    DurationOrNone: duration_or_none -> Option<Duration>;
    EncryptedCommands: encrypted_commands -> RequireEncryptedCommands;
    FilePath: path -> PathBuf;
    Flag: flag -> bool;
    HomeserverUrl: homeserver_url -> Url;
    Host: host -> HostName;
    Input: input -> SecretText;
    Localpart: localpart -> String;
    Name: name -> String;
    NotifyOf: notification -> Notification;
    OutputSize: output_size -> u64;
    Pattern: link_pattern -> LinkPattern;
    PositiveDuration: positive_duration -> Duration;
    PowerLevel: power_level -> i64;
    RestartWhen: restart -> Restart;
    Room: room -> OwnedRoomOrAliasId;
    Server: server_name -> OwnedServerName;
    StartChoice: choice -> Choice;
    Text: text -> String;
    User: user_id -> OwnedUserId;
    Variable: variable -> SecretText;
}

/// How much of a value a message shows, in characters.
pub(super) const SHOWN: usize = 80;

/// The message about an unwanted value. Secrets have a separate one, which does not show it.
pub(crate) fn not_wanted(value: &Value, wanted: impl Display) -> String {
    let found = match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() > SHOWN => {
            let beginning: String = text.chars().take(SHOWN).collect();
            format!("{beginning:?} and more")
        }
        Value::String(text) => format!("{text:?}"),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            kind(value).to_owned()
        }
    };
    format!("found {found}, wanted {wanted}")
}

/// The YAML type of a value, for messages without the value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => "a text",
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Err(not_wanted(value, "a text: put it in quotes")),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err(not_wanted(value, "a text"))
        }
    }
}

fn text_as<T>(
    value: &Value,
    wanted: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    let read = value.as_str().and_then(read);
    read.ok_or_else(|| not_wanted(value, wanted))
}

fn number(value: &Value, least: i64, most: i64, more: &str) -> Result<i64, String> {
    let number = value.as_i64();
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        not_wanted(
            value,
            format!("a whole number from {least} to {most}{more}"),
        )
    })
}

fn or_none<K: Kind>(value: &Value, wanted: &str) -> Result<Option<K::Value>, String> {
    if value == "none" {
        return Ok(None);
    }
    let read = K::read(value).map(Some);
    read.map_err(|_| not_wanted(value, format!("{wanted}, or none")))
}

/// A text to show to people.
fn name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    (!name.trim().is_empty() && !name.contains(char::is_control))
        .then_some(name)
        .ok_or_else(|| not_wanted(value, "a text of one line"))
}

fn host(value: &Value) -> Result<HostName, String> {
    let wanted = "a host's name without white space, such as build1";
    text_as(value, wanted, |name| name.parse().ok())
}

fn command_prefix(value: &Value) -> Result<String, String> {
    let wanted = "a word without white space or backticks, in quotes, such as \"!rc\"";
    // The bot's replies put commands between backticks.
    let is_apart = |c: char| c.is_whitespace() || c.is_control() || c == '`';
    text_as(value, wanted, |word| {
        (!word.is_empty() && !word.contains(is_apart)).then(|| word.to_owned())
    })
}

fn homeserver_url(value: &Value) -> Result<Url, String> {
    // A password precedes the @, whether the rest is a URL or not; so this is checked before anything is shown.
    if value.as_str().is_some_and(|text| text.contains('@')) {
        return Err("names a user or a password; wanted a URL without them".to_owned());
    }
    let wanted = "an http or https URL such as http://127.0.0.1:8008";
    text_as(value, wanted, |text| {
        let url = Url::parse(text).ok()?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain).then_some(url)
    })
}

/// Whether the connection to the URL can be read on its way.
pub(crate) fn is_unprotected(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(url::Host::Domain(domain)) => domain == "localhost" || domain.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_loopback
}

fn server_name(value: &Value) -> Result<OwnedServerName, String> {
    let wanted = "a server name without https://, such as example.org";
    text_as(value, wanted, |text| ServerName::parse(text).ok())
}

/// The part of a new user's id before the colon.
fn localpart(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    let user = UserId::parse(format!("@{name}:localhost"));
    user.is_ok_and(|user| user.validate_strict().is_ok())
        .then_some(name)
        .ok_or_else(|| {
            not_wanted(value, "a user name of lower-case letters, digits and . _ = - / + only, without @ and server name",
            )
        })
}

/// A text that may be secret, so that no message shows it.
fn secret(value: &Value, wanted: &str) -> Result<String, String> {
    text(value).map_err(|_| format!("wanted {wanted}, in quotes"))
}

pub(crate) fn token(value: &Value) -> Result<Token, String> {
    let token = Token::new(secret(value, "a secret text")?);
    token.map_err(|error| error.to_string())
}

fn password(value: &Value) -> Result<SecretText, String> {
    match secret(value, "the password")?.as_str() {
        "" => Err("is empty; wanted the account's password".to_owned()),
        password => Ok(password.into()),
    }
}

/// What a session's program reads.
fn input(value: &Value) -> Result<SecretText, String> {
    Ok(secret(value, "a text")?.as_str().into())
}

fn user_id(value: &Value) -> Result<OwnedUserId, String> {
    let wanted = "a user id in quotes, such as \"@admin:example.org\"";
    text_as(value, wanted, |text| {
        let user = UserId::parse(text).ok()?;
        user.validate_historical().is_ok().then_some(user)
    })
}

fn room(value: &Value) -> Result<OwnedRoomOrAliasId, String> {
    let wanted =
        "a room alias or id in quotes, such as \"#admins:example.org\" or \"!abcdef:example.org\"";
    text_as(value, wanted, |text| {
        let is_whole = text.contains(':') || text.len() == ROOM_ID_WITHOUT_DOMAIN;
        let room = RoomOrAliasId::parse(text).ok()?;
        (is_whole && !text.contains(char::is_whitespace)).then_some(room)
    })
}

fn power_level(value: &Value) -> Result<i64, String> {
    number(value, Int::MIN.into(), Int::MAX.into(), ", such as 100")
}

fn flag(value: &Value) -> Result<bool, String> {
    let flag = value.as_bool();
    flag.ok_or_else(|| not_wanted(value, "true or false"))
}

/// A time span, maybe none.
pub(crate) fn duration(value: &Value) -> Result<Duration, String> {
    let wanted = "a duration such as 30s or 2m, of a year at most";
    text_as(value, wanted, |text| {
        let duration = humantime::parse_duration(text).ok();
        duration.filter(|duration| *duration <= LONGEST_DURATION)
    })
}

fn positive_duration(value: &Value) -> Result<Duration, String> {
    let duration = duration(value)?;
    (!duration.is_zero())
        .then_some(duration)
        .ok_or_else(|| not_wanted(value, "a duration longer than nothing, such as 30s or 2m"))
}

fn duration_or_none(value: &Value) -> Result<Option<Duration>, String> {
    or_none::<PositiveDuration>(value, "a duration such as 12h")
}

/// A number of bytes that a file may have. Files are cut by whole blocks, so it cannot be less than some dozens of them.
fn output_size(value: &Value) -> Result<u64, String> {
    text_as(value, "a size such as 8MiB, of 256KiB at least", |text| {
        let size = text.parse::<ByteSize>().ok()?.as_u64();
        (size >= SMALLEST_OUTPUT).then_some(size)
    })
}

fn count(value: &Value) -> Result<usize, String> {
    let count = number(value, 1, LARGEST_COUNT, "")?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn count_or_none(value: &Value) -> Result<Option<usize>, String> {
    let wanted = format!("a whole number from 1 to {LARGEST_COUNT}");
    or_none::<Count>(value, &wanted)
}

fn devices(value: &Value) -> Result<Devices, String> {
    let choices = [
        ("cross_signed", Devices::CrossSigned),
        ("any", Devices::Any),
    ];
    one_of(value, &choices)
}

fn encrypted_commands(value: &Value) -> Result<RequireEncryptedCommands, String> {
    let choices = [
        ("auto", RequireEncryptedCommands::Auto),
        ("always", RequireEncryptedCommands::Always),
        ("never", RequireEncryptedCommands::Never),
    ];
    one_of(value, &choices)
}

fn restart(value: &Value) -> Result<Restart, String> {
    let choices = [("never", Restart::Never), ("on_exit", Restart::OnExit)];
    one_of(value, &choices)
}

fn notification(value: &Value) -> Result<Notification, String> {
    one_of(value, &NOTIFICATIONS)
}

fn one_of<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    text_as(value, &names.join(" or "), |text| {
        let mut choices = choices.iter();
        choices.find_map(|(name, choice)| (*name == text).then_some(*choice))
    })
}

/// A path; a relative one begins at the folder of the file.
fn path(value: &Value) -> Result<PathBuf, String> {
    if value.as_str().is_some_and(|text| text.starts_with('~')) {
        return Err(not_wanted(
            value,
            "a path without ~, which is not expanded here: write it out",
        ));
    }
    text_as(value, "a path", |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| text.into())
    })
}

fn link_pattern(value: &Value) -> Result<LinkPattern, String> {
    LinkPattern::new(&text(value)?).map_err(|error| {
        let cause = in_one_line(&error);
        not_wanted(
            value,
            format!("a regular expression for an https URL ({cause})"),
        )
    })
}

/// A program and its arguments. They are not secret: every process on the host can read them.
fn command(value: &Value) -> Result<Vec<String>, String> {
    let Value::Sequence(items) = value else {
        let wanted = "a list of a program and its arguments, such as [claude, remote-control]";
        return Err(not_wanted(value, wanted));
    };
    let words = items.iter().map(argument);
    let words = words.collect::<Option<Vec<_>>>().ok_or_else(|| {
        "an argument is not a text; wanted only texts, in quotes where they hold : or # or begin with {".to_owned()
    })?;
    match words.first() {
        None => Err("the list is empty; wanted a program and its arguments".to_owned()),
        Some(program) if program.trim().is_empty() => {
            Err("the program's name is empty; wanted a program such as claude".to_owned())
        }
        Some(_) => Ok(words),
    }
}

/// A value that a start may choose: a word, or a mapping of it to the power level that it needs.
fn choice(value: &Value) -> Result<Choice, String> {
    let wanted =
        "a word such as plan, or one with the power level that it takes, such as `plan: 50`";
    let (word, level) = match value {
        Value::Mapping(mapping) => {
            let mut entries = mapping.iter();
            match (entries.next(), entries.next()) {
                (Some((word, level)), None) => (word, Some(power_level(level)?)),
                _ => return Err(not_wanted(value, wanted)),
            }
        }
        word => (word, None),
    };
    // It becomes an argument, and must not look like an option.
    let is_of_words = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_word = |text: &str| {
        !text.starts_with('-') && (1..=40).contains(&text.len()) && text.bytes().all(is_of_words)
    };
    text_as(word, wanted, |text| {
        is_word(text).then(|| Choice {
            value: text.to_owned(),
            level,
        })
    })
}

/// The value of an environment variable. It may be a secret, so no message shows it.
fn variable(value: &Value) -> Result<SecretText, String> {
    let text = argument(value)
        .ok_or_else(|| "wanted a text as the variable's value; \"\" is the empty one".to_owned())?;
    Ok(text.as_str().into())
}

pub(super) fn unfit_name(variable: &str) -> Option<&'static str> {
    if OURS.contains(&variable) {
        return Some("is set by rcbot itself, to know its processes by; remove it");
    }
    (variable.is_empty() || variable.contains(['=', '\0']))
        .then_some("no name for an environment variable: it is empty or holds = or a NUL")
}

/// Numbers and booleans count as texts. `None` if the system does not allow the text.
fn argument(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => (!text.contains('\0')).then(|| text.clone()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

/// For values that are checked together with other keys.
#[expect(clippy::unnecessary_wraps, reason = "others refuse something")]
fn anything(value: &Value) -> Result<Value, String> {
    Ok(value.clone())
}

/// The innermost cause. Errors of regular expressions begin with a drawing; the cause is their last line.
fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let innermost = iter::successors(Some(error), |cause| (**cause).source()).last();
    let message = innermost.map(ToString::to_string).unwrap_or_default();
    let last = message.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

//! Invalid registrations are refused and generated ones accepted: first chosen files, then random ones.

use std::os::unix::fs::MetadataExt;

use matrix_sdk::ruma::{OwnedUserId, user_id};
use proptest::prelude::*;

use super::*;
use crate::config::testing::{Changed, with_other_values, with_slips, without_each_key, yaml_like};

const TEMPLATE: &str = include_str!("../../../registration.yaml");

fn bot_user() -> OwnedUserId {
    user_id!("@rcbot:example.org").to_owned()
}

/// The template with tokens, as a person would fill it in.
fn filled_in() -> String {
    TEMPLATE
        .replace("REPLACE_ME_as_token", "secret_a_one")
        .replace("REPLACE_ME_hs_token", "secret_b_two")
}

fn parse(text: &str) -> Result<Registration, RegistrationError> {
    Registration::parse(Path::new("registration.yaml"), text, &bot_user())
}

#[track_caller]
fn problems_of(text: &str) -> String {
    parse(text)
        .map(|_| ())
        .expect_err("the text has a problem")
        .to_string()
}

#[test]
fn the_template_is_refused_only_for_its_placeholders() {
    let error = problems_of(TEMPLATE);
    assert!(
        error.starts_with("registration.yaml has 2 problems\n"),
        "{error}"
    );
    for key in ["as_token", "hs_token"] {
        assert!(
            error.contains(&format!(
                " {key}: still holds the template's placeholder REPLACE_ME"
            )),
            "{error}"
        );
    }
    assert!(error.contains("`rcbot registration --config`"), "{error}");
    assert!(parse(&filled_in()).unwrap().warnings().is_empty());
}

#[test]
fn a_registration_of_another_user_is_distinguished_from_a_wrong_one() {
    for (from, to, is_of_another_user) in [
        (r"@rcbot:example\.org$", r"@rcbot:example\.net$", true),
        (r"@rcbot:example\.org$", r"@other:example\.org$", true),
        ("secret_a_one", "''", false),
        ("exclusive: true", "exclusive: false", false),
        ("exclusive: true", "exclusive: yes", false),
    ] {
        let text = filled_in();
        assert!(text.contains(from));
        let error = parse(&text.replace(from, to)).unwrap_err();
        let found = matches!(error, RegistrationError::OfAnotherUser(_));
        assert_eq!(found, is_of_another_user, "{error}");
    }
    let error = parse("id: rcbot").unwrap_err();
    assert!(
        matches!(error, RegistrationError::File(FileError::Invalid(_))),
        "{error}"
    );
}

#[test]
fn a_generated_registration_says_what_a_homeserver_reads() {
    let generated = || serde_yaml::from_str::<Value>(&generate(&bot_user(), false)).unwrap();
    let (mut value, again) = (generated(), generated());
    for key in ["as_token", "hs_token"] {
        let token = value.as_mapping_mut().unwrap().remove(key).unwrap();
        let digits = token.as_str().unwrap();
        assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(again[key], token, "never twice the same");
    }
    let wanted = r"
id: rcbot
url: null
sender_localpart: rcbot-appservice
rate_limited: false
namespaces:
  users: [{ exclusive: true, regex: '@rcbot:example\.org$' }]
  aliases: []
  rooms: []
";
    assert_eq!(value, serde_yaml::from_str::<Value>(wanted).unwrap());
}

#[test]
fn a_generated_registration_says_whether_the_homeserver_logs_in_the_bot() {
    let plain = parse(&generate(&bot_user(), false)).unwrap();
    assert!(!plain.has_device_management);
    let text = generate(&bot_user(), true);
    let registration = parse(&text).unwrap();
    assert!(registration.has_device_management);
    assert!(registration.warnings().is_empty());
}

#[test]
fn a_generated_namespace_covers_only_the_bots_user() {
    let regex = Regex::new(&format!("^{}", namespace_regex(&bot_user()))).unwrap();
    assert!(regex.is_match("@rcbot:example.org"));
    for other in [
        "@rcbot:exampleXorg",
        "@rcbot:example.org.evil.example",
        "@rcbot2:example.org",
        "x@rcbot:example.org",
    ] {
        assert!(!regex.is_match(other), "{other}");
    }
}

/// Each line: a text of the filled-in template => what replaces it | the message about it.
const WRONG_REPLACEMENTS: &str = r"
secret_a_one => ''                       | 14: as_token: is empty or holds more than visible ASCII characters
secret_a_one => 'two words'              | 14: as_token: is empty or holds more than visible ASCII characters
secret_a_one => 12345678                 | 14: as_token: wanted a secret text, in quotes
secret_a_one => secret_b_two             | 15: hs_token: is the same as as_token; wanted two different secrets
as_token: secret_a_one => x: y           |  as_token: missing: wanted a secret text, in quotes
id: rcbot => x: y                        |  id: missing, wanted a text
rcbot-appservice => rcbot                | 18: sender_localpart: is `rcbot`, the bot's own user
'@rcbot:example\.org$' => '@other:.*'    | 24: namespaces.users: no regex here matches @rcbot:example.org, the bot's user by
'@rcbot:example\.org$' => '@rcbot'       | 24: namespaces.users: no regex here matches @rcbot:example.org, the bot's user by
regex: => rgx:                           | 26: namespaces.users[0].regex: missing, wanted a text
exclusive: true => exclusive: false      | 24: namespaces.users: the entry for the bot's user @rcbot:example.org is not
exclusive: true => exclusive: yes        | 26: namespaces.users[0].exclusive: found `yes`, wanted true or false
url: null => io.element.msc4190: yes     | 11: io.element.msc4190: found `yes`, wanted true or false
";

#[test]
fn each_fault_is_named_with_its_line_its_key_and_its_remedy() {
    for line in WRONG_REPLACEMENTS.lines().filter(|line| !line.is_empty()) {
        let (case, wanted) = line.split_once(" | ").unwrap();
        let (from, to) = case.split_once(" => ").unwrap();
        let text = filled_in();
        assert!(text.contains(from), "{from:?} is in the template");
        let error = problems_of(&text.replace(from, to.trim())).replace('"', "`");
        let is_only_one = error.starts_with("registration.yaml has 1 problem\n");
        let is_there = error.contains(&format!("\nregistration.yaml:{wanted}"));
        assert!(is_only_one && is_there, "{wanted:?} is not in:\n{error}");
    }
    let error = problems_of(&filled_in().replace("rcbot-appservice", "rcbot"));
    assert!(error.contains("such as \"rcbot-appservice\""), "{error}");
    let error = problems_of(&filled_in().replace("exclusive: true", "exclusive: false"));
    assert!(
        error.contains(r"`exclusive: true` and `regex: '@rcbot:example\.org$'`"),
        "{error}"
    );
}

#[test]
fn keys_of_other_software_are_ignored() {
    let additions =
        "io.element.msc4190: false\nreceive_ephemeral: true\nprotocols: []\nx: {y: 1}\n";
    let registration = parse(&format!("{}{additions}", filled_in())).unwrap();
    assert!(registration.warnings().is_empty());
    parse(&filled_in().replace(r"'@rcbot:example\.org$'", "'@rc.*:.*'")).unwrap();
    // Those of another bot beside it.
    let others = "  users:\n    - { exclusive: true, regex: '@other:.*' }\n";
    parse(&filled_in().replace("  users:\n", others)).unwrap();
}

#[test]
fn a_url_and_a_regex_of_another_dialect_are_warnings() {
    for (from, to, wanted) in [
        (
            "url: null",
            "url: http://127.0.0.1:9000",
            ":11: url: is not null",
        ),
        (
            r"'@rcbot:example\.org$'",
            r"'@(?!x)rcbot:example\.org'",
            "namespaces.users: cannot tell whether",
        ),
    ] {
        let registration = parse(&filled_in().replace(from, to)).unwrap();
        let warnings = registration
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect::<String>();
        assert!(warnings.contains(wanted), "{warnings}");
    }
}

#[test]
fn no_message_and_no_debug_output_shows_a_token() {
    let registration = parse(&filled_in()).unwrap();
    assert!(!format!("{registration:?}").contains("secret_"));
    for (from, to) in [
        ("secret_b_two", "secret_a_one"),
        ("secret_a_one", "'secret_ a'"),
        ("secret_a_one", "[secret_a]"),
    ] {
        let error = problems_of(&filled_in().replace(from, to));
        assert!(!error.contains("secret_"), "{error}");
    }
}

#[test]
fn a_missing_file_is_named_with_the_command_that_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        Registration::load(&folder.path().join("registration.yaml"), &bot_user()).unwrap_err();
    assert!(matches!(
        error,
        RegistrationError::File(FileError::Missing { .. })
    ));
    assert!(
        error
            .to_string()
            .contains("registration.yaml: write one with `rcbot registration --config`"),
        "{error}"
    );
    let error = Registration::load(folder.path(), &bot_user()).unwrap_err();
    assert!(
        matches!(error, RegistrationError::File(FileError::Unreadable { .. })),
        "{error}"
    );
}

#[test]
fn a_new_file_is_readable_only_by_its_owner_and_never_replaces_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registration.yaml");
    let text = generate(&bot_user(), false);

    write_new(&path, &text).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(
        Registration::load(&path, &bot_user())
            .unwrap()
            .warnings()
            .is_empty()
    );

    let error = write_new(&path, "other").unwrap_err();
    assert!(matches!(error, WriteError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("--output"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let error = write_new(&folder.path().join("nowhere/registration.yaml"), &text).unwrap_err();
    assert!(matches!(error, WriteError::Unwritable { .. }), "{error}");
}

#[test]
fn a_file_that_everyone_can_read_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registration.yaml");
    fs::write(&path, filled_in()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let registration = Registration::load(&path, &bot_user()).unwrap();
    assert!(
        registration.warnings()[0]
            .to_string()
            .contains("every user of this host can read")
    );
}

/// The beginnings of both tokens: a random change may fall into the rest.
const TOKENS: [&str; 2] = ["secret_a", "secret_b"];

/// A registration with tokens as long as real ones.
fn registration() -> String {
    let rest = "0123456789abcdef".repeat(4);
    filled_in()
        .replace("secret_a_one", &format!("secret_a{rest}"))
        .replace("secret_b_two", &format!("secret_b{rest}"))
}

/// Asserts that a changed file is accepted, or that the error names the changed key.
#[track_caller]
fn assert_accepted_or_named(changed: &Changed) -> bool {
    let Err(problems) = parse(&changed.text) else {
        return true;
    };
    let error = problems.to_string();
    let is_named = error
        .lines()
        .any(|line| line.contains(&format!(" {}", changed.key)));
    assert!(is_named, "{} {}:\n{error}", changed.key, changed.how);
    assert!(TOKENS.iter().all(|token| !error.contains(token)), "{error}");
    false
}

#[test]
fn a_missing_key_is_optional_or_named() {
    let required: Vec<_> = without_each_key(&registration())
        .into_iter()
        .filter(|changed| !assert_accepted_or_named(changed))
        .map(|changed| changed.key)
        .collect();
    assert_eq!(
        required,
        [
            "id",
            "as_token",
            "hs_token",
            "sender_localpart",
            "namespaces",
            "namespaces.users"
        ]
    );
}

#[test]
fn a_value_of_another_type_is_accepted_or_named() {
    let refused: Vec<_> = with_other_values(&registration())
        .into_iter()
        .filter(|changed| !assert_accepted_or_named(changed))
        .map(|changed| changed.key)
        .collect();
    for key in [
        "id",
        "url",
        "as_token",
        "hs_token",
        "sender_localpart",
        "namespaces",
        "namespaces.users",
    ] {
        assert!(refused.iter().any(|refused| refused == key), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_file_is_accepted_or_refused_with_reasons_that_show_no_token(slipped in with_slips(&registration())) {
        if let Err(problems) = parse(&slipped) {
            let error = problems.to_string();
            prop_assert!(error.lines().skip(1).any(|line| line.starts_with("registration.yaml:")), "{error}");
            prop_assert!(TOKENS.iter().all(|token| !error.contains(token)), "{slipped}\n{error}");
        }
    }

    #[test]
    fn a_file_of_any_text_is_refused_with_reasons(text in prop_oneof![".{0,40}", yaml_like()]) {
        let error = problems_of(&text);
        prop_assert!(error.lines().skip(1).any(|line| line.starts_with("registration.yaml:")), "{error}");
    }

    #[test]
    fn a_file_of_any_bytes_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let error = Registration::load(file.path(), &bot_user()).unwrap_err();
        let is_text = str::from_utf8(&bytes).is_ok();
        prop_assert_eq!(matches!(error, RegistrationError::File(FileError::Invalid(_))), is_text, "{}", error);
    }

    #[test]
    fn a_generated_registration_fits_every_user(
        localpart in "[a-z0-9._=/+-]{1,30}",
        server in r"(([a-z0-9-]{1,10}\.){0,2}[a-z][a-z0-9-]{0,9}|127\.0\.0\.1|\[::1\])(:[1-9][0-9]{0,3})?",
    ) {
        let Ok(user) = UserId::parse(format!("@{localpart}:{server}")) else {
            return Ok(());
        };
        let text = generate(&user, false);
        let registration = Registration::parse(Path::new("r.yaml"), &text, &user);
        prop_assert!(registration.is_ok_and(|it| it.warnings().is_empty()), "{text}");
    }
}

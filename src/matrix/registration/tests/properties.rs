//! What holds for every file, not for the chosen ones alone.

use proptest::prelude::*;

use super::*;
use crate::config::testing::{Changed, with_other_values, with_slips, without_each_key, yaml_like};

/// The beginnings of both tokens: a slip may fall into the rest.
const TOKENS: [&str; 2] = ["secret_a", "secret_b"];

/// A registration with tokens as long as real ones.
fn registration() -> String {
    let rest = "0123456789abcdef".repeat(4);
    filled_in()
        .replace("secret_a_one", &format!("secret_a{rest}"))
        .replace("secret_b_two", &format!("secret_b{rest}"))
}

/// Asserts that a changed file is taken, or refused with words that name what was changed.
#[track_caller]
fn assert_taken_or_named(changed: &Changed) -> bool {
    let Err(problems) = parse(&changed.text) else {
        return true;
    };
    let said = problems.to_string();
    let is_named = said
        .lines()
        .any(|line| line.contains(&format!(" {}", changed.key)));
    assert!(is_named, "{} {}:\n{said}", changed.key, changed.how);
    assert!(TOKENS.iter().all(|token| !said.contains(token)), "{said}");
    false
}

#[test]
fn a_key_that_is_left_out_is_of_no_use_or_is_named() {
    let required: Vec<_> = without_each_key(&registration())
        .into_iter()
        .filter(|changed| !assert_taken_or_named(changed))
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
fn a_value_of_another_type_is_taken_or_named() {
    let refused: Vec<_> = with_other_values(&registration())
        .into_iter()
        .filter(|changed| !assert_taken_or_named(changed))
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
    fn a_file_with_slips_is_taken_or_refused_with_reasons_that_show_no_token(slipped in with_slips(&registration())) {
        if let Err(problems) = parse(&slipped) {
            let said = problems.to_string();
            prop_assert!(said.lines().skip(1).any(|line| line.starts_with("registration.yaml:")), "{said}");
            prop_assert!(TOKENS.iter().all(|token| !said.contains(token)), "{slipped}\n{said}");
        }
    }

    #[test]
    fn a_file_of_whatever_text_is_refused_with_reasons(text in prop_oneof![".{0,40}", yaml_like()]) {
        let said = problems_of(&text);
        prop_assert!(said.lines().skip(1).any(|line| line.starts_with("registration.yaml:")), "{said}");
    }

    #[test]
    fn a_file_of_whatever_bytes_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let error = Registration::load(file.path(), &bot_user()).unwrap_err();
        let is_text = str::from_utf8(&bytes).is_ok();
        prop_assert_eq!(matches!(error, RegistrationError::Invalid(_)), is_text, "{}", error);
    }

    #[test]
    fn a_generated_registration_fits_every_user_that_the_configuration_can_name(
        localpart in "[a-z0-9._=/+-]{1,30}",
        server in r"([a-z0-9-]{1,10}\.){0,2}[a-z][a-z0-9-]{0,9}(:[1-9][0-9]{0,3})?",
    ) {
        let Ok(user) = UserId::parse(format!("@{localpart}:{server}")) else {
            return Ok(());
        };
        let text = generate(&user).unwrap();
        let registration = Registration::parse(Path::new("r.yaml"), &text, &user);
        prop_assert!(registration.is_ok_and(|it| it.warnings().is_empty()), "{text}");
    }
}

//! Properties of every file, not only of chosen ones.

use proptest::prelude::*;

use super::*;
use crate::config::testing::{Changed, with_other_values, with_slips, without_each_key, yaml_like};

const USERS: &str = "authorization:\n  users: [\"@alice:example.org\"]\n";

const USERS_WITH_KEYS: &str = "\
authorization:
  users:
    \"@alice:example.org\": nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk
";

/// Asserts that a changed file is accepted, or refused with a message that names the change.
#[track_caller]
fn assert_taken_or_named(changed: &Changed) -> bool {
    let Err(problems) = parse(&changed.text) else {
        return true;
    };
    let said = problems.to_string();
    // A project's name is people's own: where it is missing, only the place can be named.
    let named = match changed.key.as_str() {
        "projects.website" => "projects",
        key => key,
    };
    let is_named = said
        .lines()
        .skip(1)
        .any(|line| line.contains(&format!(" {named}")));
    assert!(is_named, "{} {}:\n{said}", changed.key, changed.how);
    false
}

#[test]
fn a_key_that_is_left_out_has_a_default_or_is_named() {
    let required: Vec<_> = without_each_key(EXAMPLE)
        .into_iter()
        .filter(|changed| !assert_taken_or_named(changed))
        .map(|changed| changed.key)
        .collect();
    assert_eq!(
        required,
        [
            "homeserver",
            "homeserver.url",
            "homeserver.server_name",
            "admin_room",
            "projects",
            "projects.website",
            "projects.website.directory"
        ]
    );
}

#[test]
fn a_value_of_another_type_is_taken_or_named() {
    let all = with_other_values(EXAMPLE);
    let taken = all
        .iter()
        .filter(|changed| assert_taken_or_named(changed))
        .count();
    assert!(taken < all.len() / 4, "{taken} of {} were taken", all.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn a_list_of_users_with_a_slip_never_means_everyone(slipped in with_slips(USERS)) {
        // A comment is valid: it does what it says.
        prop_assume!(!slipped.contains('#'));
        if let Ok(config) = parse(&format!("{BASE}{slipped}")) {
            prop_assert!(!config.authorization.users.is_empty(), "{slipped}");
        }
    }

    #[test]
    fn a_user_with_a_key_and_a_slip_is_never_one_without(slipped in with_slips(USERS_WITH_KEYS)) {
        prop_assume!(!slipped.contains('#'));
        if let Ok(config) = parse(&format!("{BASE}{slipped}")) {
            let users = config.authorization.users;
            prop_assert!(!users.is_empty() && users.values().all(Option::is_some), "{slipped}");
        }
    }

    #[test]
    fn a_file_with_slips_is_taken_or_refused_with_reasons(slipped in with_slips(EXAMPLE)) {
        if let Err(problems) = parse(&slipped) {
            let said = problems.to_string();
            prop_assert!(said.lines().skip(1).any(|line| line.starts_with("config.yaml:")), "{said}");
        }
    }

    #[test]
    fn a_file_of_any_text_is_refused_with_reasons(text in prop_oneof![".{0,40}", yaml_like()]) {
        let said = problems_of(&text);
        prop_assert!(said.lines().skip(1).any(|line| line.starts_with("config.yaml:")), "{said}");
    }

    #[test]
    fn a_file_of_any_bytes_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let error = Config::load(file.path()).unwrap_err();
        let is_text = str::from_utf8(&bytes).is_ok();
        prop_assert_eq!(matches!(error, FileError::Invalid(_)), is_text, "{}", error);
    }
}

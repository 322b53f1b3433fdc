//! What config.yaml can contain, and how its file is found and read.

use super::*;
use crate::{remote_control::Project, secret::Token};

mod properties;
mod reference;
mod refusals;

const EXAMPLE: &str = include_str!("../../config.example.yaml");

/// A minimal configuration. Its lines are counted on in the tests below.
const BASE: &str = "\
homeserver:
  url: http://127.0.0.1:8008
  server_name: example.org
admin_room: \"#admins:example.org\"
projects:
  website:
    directory: /srv/website
";

/// Parses without reading the file system.
fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(Path::new("config.yaml"), text, Path::new("/etc/rcbot"))
}

#[track_caller]
fn problems_of(text: &str) -> String {
    parse(text)
        .map(|_| ())
        .expect_err("the text has a problem")
        .to_string()
}

/// The minimal configuration with `from` replaced.
#[track_caller]
fn base_with(from: &str, to: &str) -> String {
    assert!(
        BASE.contains(from),
        "{from:?} is in the least configuration"
    );
    BASE.replace(from, to)
}

/// Asserts that there is one warning with this text, or none.
#[track_caller]
fn assert_warns(config: &Config, wanted: Option<&str>) {
    let warnings: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings.len(),
        usize::from(wanted.is_some()),
        "{warnings:?}"
    );
    let text = wanted.unwrap_or_default();
    assert!(warnings.iter().all(|it| it.contains(text)), "{warnings:?}");
}

#[test]
fn ringing_events_are_of_the_project_the_root_or_sessions() {
    let text = format!(
        "{BASE}    notify: []\n  api: {{ directory: /srv/api }}\nsessions: {{ notify: [login, cut_off] }}\n\
         project_roots:\n  - /srv\n  - {{ directory: /home, notify: [rebooted] }}"
    );
    let config = parse(&text).unwrap();
    let mut notify = config.projects.values().map(|project| &*project.notify);
    let of_sessions = &[Notification::Login, Notification::CutOff][..];
    assert_eq!(notify.next(), Some(of_sessions));
    assert_eq!(notify.next(), Some(&[][..]));
    let mut notify = config.project_roots.iter().map(|root| &*root.notify);
    assert_eq!(notify.next(), Some(of_sessions));
    assert_eq!(notify.next(), Some(&[Notification::Rebooted][..]));
}

#[test]
fn an_unknown_project_needs_the_highest_level_that_it_may_have_needed() {
    let levels = |more: &str| {
        let config = parse(&format!("{BASE}{more}")).unwrap();
        (config.least_power_level(), config.power_level_of_unknown())
    };
    assert_eq!(levels("authorization: { power_level: 50 }"), (50, 50));
    let of_projects = "    power_level: 20\n  api: { directory: /srv/api, power_level: 70 }\n";
    assert_eq!(levels(of_projects), (20, 100));
    // A root without a level has the common one.
    let lower = "project_roots: [{ directory: /a, power_level: 10 }, /b]";
    assert_eq!(levels(lower), (10, 100));
    let higher = "authorization: { power_level: 50 }\n\
                  project_roots: [{ directory: /a, power_level: 60 }, { directory: /b, power_level: 70 }]";
    assert_eq!(levels(higher), (50, 70));
}

#[test]
fn the_minimal_configuration_has_the_documented_defaults() {
    let config = parse(BASE).unwrap();
    let mut example = parse(EXAMPLE).unwrap();
    // The example has a recommended list, for which there is no default.
    let users = std::mem::take(&mut example.authorization.users);
    assert!(users.into_keys().eq(["@alice:example.org"]));
    assert_eq!(format!("{config:#?}"), format!("{example:#?}"));

    assert_eq!(config.homeserver_url.as_str(), "http://127.0.0.1:8008/");
    assert_eq!(
        config.login,
        LoginMethod::Appservice("/etc/rcbot/registration.yaml".into())
    );
    assert_eq!(config.bot_user, "@rcbot:example.org");
    assert_eq!(config.admin_room, "#admins:example.org");
    assert_eq!(
        config.authorization,
        Authorization {
            power_level: 100,
            users: BTreeMap::new()
        }
    );
    assert_eq!(config.encryption.devices, Devices::CrossSigned);
    assert_eq!(config.max_command_age, Duration::from_mins(2));
    assert_eq!(config.data_dir, Path::new("/etc/rcbot/data"));
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let (name, website) = config.projects.first_key_value().unwrap();
    assert_eq!((name.as_str(), website.power_level), ("website", None));
    assert_eq!(website.notify.len(), values::NOTIFICATIONS.len());
    let settings = &website.project.settings;
    assert_eq!(settings.stdin.expose(), "y\n");
    assert_eq!(settings.link_timeout.as_secs(), 60);
}

#[test]
fn a_project_has_its_own_settings_over_the_common_ones() {
    let text = format!(
        "{BASE}    link_timeout: 1m\n    power_level: 50\n    environment: {{ OWN: a, BOTH: project }}\n  other: {{ directory: sub }}\n\
         sessions:\n  link_timeout: 20s\n  stop_grace: 0s\n  environment: {{ BOTH: common, PORT: 0x1f, ON: true, RATIO: 1.10 }}\n"
    );
    let config = parse(&text).unwrap();
    let [other, website] =
        ["other", "website"].map(|name| &config.projects[&name.parse::<ProjectName>().unwrap()]);

    assert_eq!((website.power_level, other.power_level), (Some(50), None));
    assert_eq!(
        (
            website.project.settings.link_timeout.as_secs(),
            other.project.settings.link_timeout.as_secs()
        ),
        (60, 20)
    );
    assert_eq!(website.project.settings.stop_grace, Duration::ZERO);
    assert_eq!(other.project.directory, Path::new("/etc/rcbot/sub"));
    let pairs = |project: &Project| {
        project
            .settings
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={}", value.expose()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        pairs(&website.project),
        [
            "BOTH=project",
            "ON=true",
            "OWN=a",
            "PORT=0x1f",
            "RATIO=1.10"
        ]
    );
    assert_eq!(
        pairs(&other.project),
        ["BOTH=common", "ON=true", "PORT=0x1f", "RATIO=1.10"]
    );
}

#[test]
fn an_argument_is_taken_as_it_was_written() {
    let text = format!("{BASE}    command: [run, 1.10, 0x1f, 1e3, true, 007, \"0\", '#']\n");
    let config = parse(&text).unwrap();
    let project = config.projects.into_values().next().unwrap().project;
    let wanted = ["run", "1.10", "0x1f", "1e3", "true", "007", "0", "#"];
    assert_eq!(project.settings.command, wanted);
}

#[test]
fn a_text_of_several_lines_may_begin_like_a_number() {
    let config = parse(&format!("{BASE}    stdin: 1\n\n      - 2\n")).unwrap();
    let project = config.projects.into_values().next().unwrap().project;
    assert_eq!(project.settings.stdin.expose(), "1\n- 2");
}

#[test]
fn the_number_of_sessions_can_be_left_open() {
    let config = parse(&format!("{BASE}max_sessions: none\n")).unwrap();
    assert_eq!(config.max_sessions, None);
}

#[test]
fn http_to_another_host_is_a_warning() {
    for (url, is_warned) in [
        ("http://example.org", true),
        ("http://10.0.0.1:8008", true),
        ("https://example.org", false),
        ("http://localhost:8008", false),
        ("http://[::1]:8008", false),
    ] {
        let config = parse(&base_with("http://127.0.0.1:8008", url)).unwrap();
        let warning = is_warned.then_some("config.yaml:2: homeserver.url: is http");
        assert_warns(&config, warning);
    }
}

#[test]
fn room_ids_and_aliases_of_every_version_are_taken() {
    for room in [
        "#a:example.org",
        "!abc:example.org",
        "!0123456789012345678901234567890123456789012",
    ] {
        assert_eq!(
            parse(&base_with("#admins:example.org", room))
                .unwrap()
                .admin_room,
            room
        );
    }
}

#[test]
fn a_missing_or_unreadable_file_is_named_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::load(&folder.path().join("config.yaml")).unwrap_err();
    assert!(matches!(missing, FileError::Missing { .. }));
    assert!(
        missing
            .to_string()
            .contains("config.yaml: `rcbot init` writes one, or copy config.example.yaml to it"),
        "{missing}"
    );
    assert!(missing.to_string().contains("--config"), "{missing}");

    let unreadable = Config::load(folder.path()).unwrap_err();
    assert!(
        matches!(unreadable, FileError::Unreadable { .. }),
        "{unreadable}"
    );
    let not_text = folder.path().join("not_text.yaml");
    fs::write(&not_text, b"\xff\xfe").unwrap();
    assert!(matches!(
        Config::load(&not_text).unwrap_err(),
        FileError::Unreadable { .. }
    ));
}

#[test]
fn a_file_with_secrets_that_others_can_read_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let least = base_with("/srv/website", folder.path().to_str().unwrap());
    let with_environment = format!("{least}    environment: {{ TOKEN: secret }}\n");
    let with_password = format!("{least}bot:\n  password: secret\n");
    for (text, mode, is_warned) in [
        (&with_environment, 0o600, false),
        (&with_environment, 0o640, true),
        (&with_environment, 0o604, true),
        (&with_password, 0o600, false),
        (&with_password, 0o604, true),
        (&least, 0o644, false),
    ] {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let config = Config::load(&file).unwrap();
        let warning = format!("{}: is readable by other users", file.display());
        assert_warns(&config, is_warned.then_some(&warning));
    }
}

#[test]
fn a_missing_directory_concerns_only_its_project() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let text = base_with("/srv/website", "website") + "  other: { directory: . }\n";
    fs::write(&file, text).unwrap();
    let unusable = || {
        let config = Config::load(&file).unwrap();
        let all = config.unusable_directories();
        all.into_iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect::<Vec<_>>()
    };
    let website = folder.path().join("website");
    let said = unusable().concat();
    let wanted = format!("website: no directory at {} (", website.display());
    assert!(said.starts_with(&wanted), "{said}");

    fs::write(&website, "").unwrap();
    let wanted = format!("website: {} is not a directory", website.display());
    assert_eq!(unusable(), [wanted]);

    fs::remove_file(&website).unwrap();
    fs::create_dir(&website).unwrap();
    assert!(unusable().is_empty());
}

#[test]
fn two_projects_with_one_directory_are_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
    for (other, is_warned) in [("a/b", false), ("/srv/website", true), ("link", false)] {
        let text = format!("{BASE}  other:\n    directory: {other}\n");
        let config = Config::from_text(&folder.path().join("config.yaml"), &text).unwrap();
        let warning = "config.yaml:9: projects.other.directory: is that of `website` too";
        assert_warns(&config, is_warned.then_some(warning));
    }
    let text = base_with("/srv/website", ".") + "  other: { directory: link }\n";
    let config = Config::from_text(&folder.path().join("config.yaml"), &text).unwrap();
    assert_eq!(config.warnings().len(), 1, "by another name");
}

#[test]
fn an_account_that_exists_logs_in_with_its_token_or_its_password() {
    let with = |line: &str| parse(&format!("{BASE}bot:\n  {line}\n")).unwrap();
    let config = with("access_token: syt_hunter2");
    let token = Token::new("syt_hunter2".to_owned()).unwrap();
    assert_eq!(config.login, LoginMethod::AccessToken(token));
    assert!(!format!("{config:?}").contains("hunter2"));

    let config = with("password: '  hunter 2'");
    assert_eq!(config.login, LoginMethod::Password("  hunter 2".into()));
    assert!(!format!("{config:?}").contains("hunter"));
}

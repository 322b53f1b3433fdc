//! What `rcbot init` writes and says.

use std::path::Path;

use super::input::Answers;
use crate::{config::Config, matrix::HomeserverKind, shell};

/// The homeservers whose way to register is shown if the homeserver does not report its kind.
const COMMON: [HomeserverKind; 3] = [
    HomeserverKind::Synapse,
    HomeserverKind::Tuwunel,
    HomeserverKind::Conduit,
];

/// A configuration, with a comment on each key.
pub(super) fn config(answers: &Answers) -> String {
    let (server_name, localpart) = (&answers.server_name, &answers.localpart);
    let admins = answers.admins.iter();
    let users: Vec<_> = admins.map(|user| quoted(user.as_str())).collect();
    let host = answers.host.as_ref().map_or_else(String::new, |host| {
        let host = quoted(host.as_str());
        format!(
            "
# The name of this host, for commands such as `!rc start website@build1`.
host: {host}
"
        )
    });
    format!(
        "\
# rcbot's configuration, begun by `rcbot init`. config.example.yaml has every key with its default. Relative paths begin
# at the folder of this file. A change counts from the next start of the bot; `rcbot check` tries it before.

homeserver:
  # The client-server API.
  url: {homeserver}
  # The name in which the user ids of this homeserver end.
  server_name: {name}

appservice:
  # The homeserver needs a copy of it.
  registration: registration.yaml

bot:
  # The bot's user is {user}.
  localpart: {name_of_user}
{host}
# The one room in which commands count.
admin_room: {admin_room}

authorization:
  # Who may command: only these users, and they need the power level too. Keep at least yourself here, such as
  # [{example}]: while it is empty, whoever gets the power level in the room commands, also somebody to
  # whom a thief of your password gives it.
  users: [{users}]
  # The power level that a sender needs in the admin room.
  power_level: 100

# What sessions can run in. The name is what people type.
projects:
  {project}:
    # Where the session runs. `claude` must have been run there once, and told to trust it.
    directory: {directory}
",
        homeserver = quoted(answers.homeserver.as_str()),
        user = format_args!("@{localpart}:{server_name}"),
        users = users.join(", "),
        name_of_user = quoted(localpart),
        example = quoted(&format!("@alice:{server_name}")),
        name = quoted(server_name.as_str()),
        admin_room = quoted(answers.admin_room.as_str()),
        project = quoted(answers.project.as_str()),
        directory = quoted(&answers.directory.to_string_lossy()),
    )
}

/// Any text in YAML. Its strings in double quotes are those of JSON, but for what it wants escaped besides.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let escape = |character: char| match character {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            format!("\\u{:04x}", u32::from(character))
        }
        other => other.to_string(),
    };
    json.chars().map(escape).collect()
}

/// What to do with the files. The tokens are not shown.
pub(super) fn next_steps(
    config: &Config,
    registration: &Path,
    directory: &Path,
    kind: HomeserverKind,
) -> String {
    let (room, user) = (&config.admin_room, &config.bot_user);
    let kinds = if kind == HomeserverKind::Unknown {
        &COMMON[..]
    } else {
        &[kind]
    };
    let ways = kinds.iter();
    let ways = ways.map(|kind| format!("\n   - {}.", kind.how_to_register(registration, user)));
    format!(
        "\
Wrote {file} and {registration}, which only you can read.

1. Give the homeserver a copy of the registration:{ways}
2. Prepare claude, as the user who runs the bot: `claude auth login`, then `claude` once in {directory}.
3. Run the bot:  rcbot run --config {file}
4. Invite {user} to {room}.
5. See what is missing, while it runs:  rcbot check --config {file}
6. Say `!rc start` in {room}.",
        file = shell::word(&config.file),
        registration = shell::word(registration),
        ways = ways.collect::<String>(),
        directory = shell::word(directory),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use matrix_sdk::ruma::owned_user_id;

    use super::*;

    #[test]
    fn a_configuration_of_any_answers_loads_and_says_what_was_answered() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "website",
            "with: colon # and more",
            "\"quotes\" 'both'",
            "{project}",
            "- ümlaut \u{1f980} \u{7f}\u{85}\u{2028}\t\n\\",
            "~null",
        ] {
            let directory = folder.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            let admins = vec![
                owned_user_id!("@alice:example.org"),
                owned_user_id!("@1.50:x.y"),
            ];
            for (room, admins, project) in [
                ("#admins:example.org", admins, "website"),
                ("!a:b.c", vec![], "1.50"),
                ("!a:b.c", vec![], "null"),
            ] {
                let answers = Answers {
                    homeserver: "http://127.0.0.1:8008".parse().unwrap(),
                    server_name: "example.org".try_into().unwrap(),
                    admin_room: room.try_into().unwrap(),
                    admins: admins.clone(),
                    directory: directory.clone(),
                    project: project.parse().unwrap(),
                    localpart: "1.50".to_owned(),
                    host: Some("build1".parse().unwrap()),
                };
                let text = config(&answers);
                let file = folder.path().join("config.yaml");
                let config = Config::from_text(&file, &text).unwrap();
                assert!(config.warnings().is_empty(), "{text}");
                assert_eq!(config.homeserver_url, answers.homeserver);
                assert_eq!(config.bot_user.as_str(), "@1.50:example.org");
                assert_eq!(config.host, answers.host);
                assert_eq!(config.admin_room, answers.admin_room);
                assert!(
                    config
                        .authorization
                        .users
                        .keys()
                        .eq(BTreeSet::from_iter(&admins))
                );
                let configured = &config.projects[&answers.project];
                assert_eq!(configured.project.directory, directory);
            }
        }
    }

    #[test]
    fn for_an_unknown_homeserver_all_ways_to_register_are_shown() {
        let text = "homeserver: { url: http://127.0.0.1:8008, server_name: example.org }\n\
                    admin_room: '#admins:example.org'\nprojects: { website: { directory: /srv } }";
        let config = Config::from_text(Path::new("/c.yaml"), text).unwrap();
        let steps = |kind| next_steps(&config, Path::new("r.yaml"), Path::new("/srv"), kind);
        for kind in COMMON {
            let way = kind.how_to_register(Path::new("r.yaml"), &config.bot_user);
            for (kind, says_it) in COMMON.map(|other| (other, other == kind)) {
                assert_eq!(steps(kind).contains(&way), says_it, "{kind:?}: {way}");
            }
            assert!(steps(HomeserverKind::Unknown).contains(&way), "{way}");
        }
    }
}

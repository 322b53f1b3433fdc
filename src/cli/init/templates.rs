//! What `rcbot init` writes and says.

use std::path::Path;

use super::input::Answers;
use crate::matrix::HomeserverKind;

/// A configuration, with a word on each key.
pub(super) fn config(answers: &Answers) -> String {
    let Answers {
        homeserver,
        server_name,
        admin_room,
        admins,
        directory,
        project,
        localpart,
        host,
    } = answers;
    let users: Vec<_> = admins.iter().map(|user| quoted(user.as_str())).collect();
    let users = users.join(", ");
    let host = host.as_ref().map_or_else(String::new, |host| {
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
        homeserver = quoted(homeserver.as_str()),
        user = format_args!("@{localpart}:{server_name}"),
        name_of_user = quoted(localpart),
        example = quoted(&format!("@alice:{server_name}")),
        name = quoted(server_name.as_str()),
        admin_room = quoted(admin_room.as_str()),
        project = quoted(project.as_str()),
        directory = quoted(&directory.to_string_lossy()),
    )
}

/// As YAML takes any text. Its strings in double quotes are those of JSON, but for what it wants escaped besides.
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

/// What is to be done with the files. The tokens are not shown.
pub(super) fn next_steps(
    config: &Path,
    registration: &Path,
    answers: &Answers,
    kind: HomeserverKind,
) -> String {
    let (config, registration) = (shell_word(config), shell_word(registration));
    let (room, server) = (&answers.admin_room, &answers.server_name);
    let localpart = &answers.localpart;
    format!(
        "\
Wrote {config} and {registration}, which only you can read.

1. Give the homeserver a copy of the registration.
{register}
2. Prepare claude, as the user who runs the bot: `claude auth login`, then `claude` once in {directory}.
3. Run the bot:  rcbot run --config {config}
4. Invite @{localpart}:{server} to {room}.
5. See what is missing, while it runs:  rcbot check --config {config}
6. Say `!rc start` in {room}.",
        register = register(kind, &registration, answers),
        directory = shell_word(&answers.directory),
    )
}

/// The way of this homeserver, or all of them where it does not say which one it is.
fn register(kind: HomeserverKind, registration: &str, answers: &Answers) -> String {
    let (localpart, server) = (&answers.localpart, &answers.server_name);
    let in_configuration = |name: &str, user: &str, folder: &str, file: &str, key: &str| {
        format!(
            "   - {name}: a file that its own user can read, named in {file}; then restart {name}.

       sudo install -o {user} -m 600 {registration} {folder}/{localpart}.yaml

       {key}:
         - {folder}/{localpart}.yaml

       sudo systemctl restart {user}

"
        )
    };
    let in_admin_room = |name: &str, command: &str, more: &str| {
        format!(
            "   - {name}: in the homeserver's own admin room send this, with the content of the file in place of the dots. It
     needs no restart. Whoever reads that room can be the bot.{more}

       {command}
       ```
       ...
       ```

"
        )
    };
    let synapse = in_configuration(
        "Synapse",
        "matrix-synapse",
        "/etc/matrix-synapse",
        "homeserver.yaml",
        "app_service_config_files",
    );
    let conduit = in_admin_room(
        "Conduit",
        &format!("@conduit:{server}: register-appservice"),
        "",
    );
    let more = format!(
        "
     If an earlier registration is there, send `!admin appservices unregister {localpart}` before."
    );
    let family = |name| in_admin_room(name, "!admin appservices register", &more);
    match kind {
        HomeserverKind::Synapse => synapse,
        HomeserverKind::Conduit => conduit,
        HomeserverKind::Tuwunel => family("Tuwunel"),
        HomeserverKind::Continuwuity => family("Continuwuity"),
        HomeserverKind::Dendrite => in_configuration(
            "Dendrite",
            "dendrite",
            "/etc/dendrite",
            "dendrite.yaml",
            "app_service_api.config_files",
        ),
        HomeserverKind::Unknown => [synapse, family("Tuwunel, Continuwuity"), conduit].concat(),
    }
}

/// As a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+:@%,".contains(character);
    if text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use matrix_sdk::ruma::owned_user_id;

    use super::*;
    use crate::config::Config;

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
    fn a_homeserver_that_is_known_is_spoken_of_alone() {
        let answers = Answers {
            homeserver: "http://127.0.0.1:8008".parse().unwrap(),
            server_name: "example.org".try_into().unwrap(),
            admin_room: "#admins:example.org".try_into().unwrap(),
            admins: Vec::new(),
            directory: "/srv".into(),
            project: "website".parse().unwrap(),
            localpart: "rcbot".to_owned(),
            host: None,
        };
        let (synapse, conduit, tuwunel) = (
            "app_service_config_files",
            "@conduit:example.org: register-appservice",
            "!admin appservices register",
        );
        for (kind, words) in [
            (HomeserverKind::Synapse, &[synapse][..]),
            (HomeserverKind::Conduit, &[conduit]),
            (HomeserverKind::Tuwunel, &[tuwunel]),
            (HomeserverKind::Dendrite, &["app_service_api.config_files"]),
            (HomeserverKind::Unknown, &[synapse, conduit, tuwunel]),
        ] {
            let steps = next_steps(Path::new("c.yaml"), Path::new("r.yaml"), &answers, kind);
            for way in [synapse, conduit, tuwunel] {
                assert_eq!(steps.contains(way), words.contains(&way), "{kind:?}: {way}");
            }
            assert!(words.iter().all(|way| steps.contains(way)), "{steps}");
        }
    }

    #[test]
    fn a_path_is_shown_as_a_shell_takes_it() {
        assert_eq!(shell_word(Path::new("/srv/rcbot")), "/srv/rcbot");
        assert_eq!(
            shell_word(Path::new("/srv/it's mine")),
            r"'/srv/it'\''s mine'"
        );
    }
}

//! What `rcbot init` writes and says.

use std::path::Path;

use super::answers::{Answers, Names};

/// A configuration, with a word on each key.
pub(super) fn config(answers: &Answers) -> String {
    let Answers {
        homeserver,
        server_name,
        admin_room,
        directory,
        project,
        names: Names { localpart, host },
    } = answers;
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
  # The power level that a sender needs in the admin room.
  power_level: 100
  # If not empty: only these users, and still with the power level. For example [{example}].
  users: []

# What sessions can run in. The name is what people type.
projects:
  {project}:
    # Where the session runs. `claude` must have been run there once, and told to trust it.
    directory: {directory}
",
        homeserver = quoted(homeserver.as_str()),
        user = format_args!("@{localpart}:{server_name}"),
        name_of_user = quoted(localpart),
        example = quoted(&format!("@admin:{server_name}")),
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
pub(super) fn next_steps(config: &Path, registration: &Path, answers: &Answers) -> String {
    let (config, registration) = (shell_word(config), shell_word(registration));
    let (room, server) = (&answers.admin_room, &answers.server_name);
    let localpart = &answers.names.localpart;
    format!(
        "\
Wrote {config} and {registration}, which only you can read.

1. Give the homeserver a copy of the registration.
   - Synapse: a file that its own user can read, named in homeserver.yaml; then restart Synapse.

       sudo install -o matrix-synapse -m 600 {registration} /etc/matrix-synapse/{localpart}.yaml

       app_service_config_files:
         - /etc/matrix-synapse/{localpart}.yaml

       sudo systemctl restart matrix-synapse

   - Tuwunel, Continuwuity, Conduit: in the homeserver's own admin room say this, with the content of the file in place of
     the dots. It needs no restart. Whoever reads that room can be the bot.

       !admin appservices register
       ```
       ...
       ```

2. Prepare claude, as the user who runs the bot: `claude auth login`, then `claude` once in {directory}.
3. Run the bot:  rcbot run --config {config}
4. Invite @{localpart}:{server} to {room}.
5. See what is missing, while it runs:  rcbot check --config {config}
6. Say `!rc start` in {room}.",
        directory = shell_word(&answers.directory),
    )
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
            for (room, project) in [
                ("#admins:example.org", "website"),
                ("!a:b.c", "1.50"),
                ("!a:b.c", "null"),
            ] {
                let answers = Answers {
                    homeserver: "http://127.0.0.1:8008".parse().unwrap(),
                    server_name: "example.org".try_into().unwrap(),
                    admin_room: room.try_into().unwrap(),
                    directory: directory.clone(),
                    project: project.parse().unwrap(),
                    names: Names {
                        localpart: "1.50".to_owned(),
                        host: Some("build1".parse().unwrap()),
                    },
                };
                let text = config(&answers);
                let file = folder.path().join("config.yaml");
                let config = Config::from_text(&file, &text).unwrap();
                assert!(config.warnings().is_empty(), "{text}");
                assert_eq!(config.homeserver_url, answers.homeserver);
                assert_eq!(config.bot_user.as_str(), "@1.50:example.org");
                assert_eq!(config.host, answers.names.host);
                assert_eq!(config.admin_room, answers.admin_room);
                let configured = &config.projects[&answers.project];
                assert_eq!(configured.project.directory, directory);
            }
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

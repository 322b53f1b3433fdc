//! What a first configuration needs: given as flags, or asked for; each answer checked as the configuration checks it.

use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use matrix_sdk::ruma::{OwnedRoomOrAliasId, OwnedServerName, OwnedUserId};
use url::Url;

use super::{Init, questions::Questions, suggest::Suggestion};
use crate::{
    config::{HostName, usable_directory, values},
    remote_control::ProjectName,
};

const HOMESERVER: &str = "--homeserver";
const SERVER_NAME: &str = "--server-name";
const ADMIN_ROOM: &str = "--admin-room";
const ADMIN: &str = "--admin";
const DIRECTORY: &str = "--directory";
const PROJECT: &str = "--project";
const LOCALPART: &str = "--localpart";
const HOST: &str = "--host";

/// The answer that names no administrator.
const NONE: &str = "none";

/// All that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) homeserver: Url,
    pub(super) server_name: OwnedServerName,
    pub(super) admin_room: OwnedRoomOrAliasId,
    /// Who may command. Nobody named: whoever has the power level.
    pub(super) admins: Vec<OwnedUserId>,
    /// Absolute; it exists.
    pub(super) directory: PathBuf,
    pub(super) project: ProjectName,
    /// Never asked for: one bot in a room needs neither another name nor a host's.
    pub(super) names: Names,
}

/// What tells the bots of several hosts apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// The name of the bot's user.
    pub(super) localpart: String,
    pub(super) host: Option<HostName>,
}

/// What was given as flags.
#[derive(Debug)]
pub(super) struct Given {
    homeserver: Option<Url>,
    server_name: Option<OwnedServerName>,
    admin_room: Option<OwnedRoomOrAliasId>,
    /// Asked for if there is none and something else is asked for.
    admins: Vec<OwnedUserId>,
    directory: Option<PathBuf>,
    project: Option<ProjectName>,
    names: Names,
}

impl Given {
    /// Checks the flags.
    ///
    /// # Errors
    /// With all that are wrong, each with the reason.
    pub(super) fn check(arguments: &Init) -> anyhow::Result<Self> {
        let mut problems = Vec::new();
        // The shell has replaced a ~ that is meant for the home directory.
        let directory = |text: &str| directory(text, None);
        let given = Self {
            homeserver: flag(
                &mut problems,
                HOMESERVER,
                arguments.homeserver.as_ref(),
                homeserver,
            ),
            server_name: flag(
                &mut problems,
                SERVER_NAME,
                arguments.server_name.as_ref(),
                server_name,
            ),
            admin_room: flag(
                &mut problems,
                ADMIN_ROOM,
                arguments.admin_room.as_ref(),
                admin_room,
            ),
            admins: flag(
                &mut problems,
                ADMIN,
                Some(&arguments.admin.join(" ")),
                admins,
            )
            .unwrap_or_default(),
            directory: flag(
                &mut problems,
                DIRECTORY,
                arguments.directory.as_ref(),
                directory,
            ),
            project: flag(&mut problems, PROJECT, arguments.project.as_ref(), project),
            names: Names {
                localpart: flag(
                    &mut problems,
                    LOCALPART,
                    Some(&arguments.localpart),
                    localpart,
                )
                .unwrap_or_default(),
                host: flag(&mut problems, HOST, arguments.host.as_ref(), host),
            },
        };
        if problems.is_empty() {
            Ok(given)
        } else {
            Err(anyhow!(problems.join("\n")))
        }
    }

    /// All answers, if all were given.
    ///
    /// # Errors
    /// With the flags that are missing.
    pub(super) fn complete(&self) -> Result<Answers, Vec<&'static str>> {
        let answers = || {
            Some(Answers {
                homeserver: self.homeserver.clone()?,
                server_name: self.server_name.clone()?,
                admin_room: self.admin_room.clone()?,
                admins: self.admins.clone(),
                directory: self.directory.clone()?,
                project: self.project.clone()?,
                names: self.names.clone(),
            })
        };
        let missing = [
            (HOMESERVER, self.homeserver.is_none()),
            (SERVER_NAME, self.server_name.is_none()),
            (ADMIN_ROOM, self.admin_room.is_none()),
            (DIRECTORY, self.directory.is_none()),
            (PROJECT, self.project.is_none()),
        ];
        answers().ok_or_else(|| {
            let missing = missing.into_iter().filter(|(_, is_missing)| *is_missing);
            missing.map(|(name, _)| name).collect()
        })
    }

    /// Asks for what was not given. `suggest` looks at a homeserver.
    ///
    /// # Errors
    /// When no answer comes any more.
    pub(super) fn ask_for_the_rest<R: BufRead, W: Write>(
        &self,
        questions: &mut Questions<R, W>,
        suggest: impl Fn(&Url) -> Suggestion,
        home: Option<&Path>,
    ) -> anyhow::Result<Answers> {
        let (homeserver, suggestion) = match &self.homeserver {
            Some(url) if self.server_name.is_some() => (url.clone(), Suggestion::default()),
            Some(url) => (url.clone(), suggest(url)),
            None => ask_for_homeserver(questions, suggest)?,
        };
        let server_name = match &self.server_name {
            Some(name) => name.clone(),
            None => questions.ask(
                "Server name, in which its user ids end (such as example.org)",
                suggestion.server_name.as_ref().map(|name| name.as_str()),
                server_name,
            )?,
        };
        let admin_room = match &self.admin_room {
            Some(room) => room.clone(),
            None => questions.ask(
                &format!("Admin room, its alias or id (such as #admins:{server_name})"),
                None,
                admin_room,
            )?,
        };
        let admins = if self.admins.is_empty() {
            questions.ask(
                &format!(
                    "Administrators, the only users who may command the bot (such as @alice:{server_name}; several with \
                     spaces between)"
                ),
                Some(NONE),
                admins,
            )?
        } else {
            self.admins.clone()
        };
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => questions.ask(
                "Directory of the first project (such as /srv/website)",
                None,
                |text| directory(text, home),
            )?,
        };
        let project = if let Some(project) = &self.project {
            project.clone()
        } else {
            let name = directory.file_name().and_then(|name| name.to_str());
            let name = name.filter(|name| project(name).is_ok());
            questions.ask("Name of the project, as people type it", name, project)?
        };
        Ok(Answers {
            homeserver,
            server_name,
            admin_room,
            admins,
            directory,
            project,
            names: self.names.clone(),
        })
    }
}

/// People know their server's name better than where its client-server API is: `.well-known` leads there.
fn ask_for_homeserver<R: BufRead, W: Write>(
    questions: &mut Questions<R, W>,
    suggest: impl Fn(&Url) -> Suggestion,
) -> anyhow::Result<(Url, Suggestion)> {
    let question = "Homeserver, where its client-server API is (such as http://127.0.0.1:8008)";
    let url = questions.ask(question, None, homeserver)?;
    let suggestion = suggest(&url);
    if let Some(elsewhere) = &suggestion.elsewhere {
        questions.say(&format!("  {url} says that it is at {elsewhere}"))?;
        let url = questions.ask(question, Some(elsewhere.as_str()), homeserver)?;
        return Ok((url, suggestion));
    }
    if !suggestion.is_homeserver {
        questions.say(&format!(
            "  No homeserver answers at {url} now; `rcbot check` tells more later."
        ))?;
    }
    Ok((url, suggestion))
}

fn flag<T>(
    problems: &mut Vec<String>,
    name: &str,
    text: Option<&String>,
    check: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let checked = check(text?);
    checked
        .inspect_err(|reason| problems.push(format!("{name}: {reason}")))
        .ok()
}

fn homeserver(text: &str) -> Result<Url, String> {
    values::of_text(text, values::homeserver_url)
}

fn server_name(text: &str) -> Result<OwnedServerName, String> {
    values::of_text(text, values::server_name)
}

fn admin_room(text: &str) -> Result<OwnedRoomOrAliasId, String> {
    values::of_text(text, values::room).map_err(|_| {
        format!("found {text:?}, wanted a room's alias or id, such as #admins:example.org or !abcdef:example.org")
    })
}

/// User ids with spaces or commas between, or the word for none.
fn admins(text: &str) -> Result<Vec<OwnedUserId>, String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let words = words.filter(|word| *word != NONE);
    words
        .map(|word| values::of_text(word, values::user_id))
        .collect()
}

fn localpart(text: &str) -> Result<String, String> {
    values::of_text(text, values::localpart)
}

fn host(text: &str) -> Result<HostName, String> {
    values::of_text(text, values::host)
}

fn project(text: &str) -> Result<ProjectName, String> {
    text.parse::<ProjectName>()
        .map_err(|error| format!("found {text:?}: {error}"))
}

/// A relative path begins at the current directory, as everywhere at a terminal.
fn directory(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_) | None, _) => values::of_text(text, values::path(Path::new("")))?,
    };
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    usable_directory(&path).map_err(|why| format!("{why}; make it or name another"))?;
    let is_home = home.is_some_and(|home| {
        let home = home.canonicalize();
        home.is_ok_and(|home| path.canonicalize().is_ok_and(|path| path == home))
    });
    if is_home {
        return Err(format!(
            "{} is your home directory, which claude never trusts; name another one",
            path.display()
        ));
    }
    if path.to_str().is_none() {
        return Err(format!("{} is no text in UTF-8", path.display()));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given {
            homeserver: None,
            server_name: None,
            admin_room: None,
            admins: Vec::new(),
            directory: None,
            project: None,
            names: Names {
                localpart: "rcbot".to_owned(),
                host: None,
            },
        }
    }

    /// What is made of these lines at a terminal, and what the screen shows.
    fn ask(lines: &str, given: &Given, suggest: impl Fn(&Url) -> Suggestion) -> (Answers, String) {
        let mut screen = Vec::new();
        let mut questions = Questions::new(lines.as_bytes(), &mut screen);
        let home = Path::new("/");
        let answers = given
            .ask_for_the_rest(&mut questions, suggest, Some(home))
            .unwrap();
        (answers, String::from_utf8(screen).unwrap())
    }

    #[test]
    fn where_a_site_says_that_its_homeserver_is_is_offered_with_its_name() {
        let suggest = |url: &Url| {
            assert_eq!(url.as_str(), "https://example.org/");
            Suggestion {
                is_homeserver: false,
                elsewhere: Some("https://matrix.example.org".parse().unwrap()),
                server_name: Some("example.org".try_into().unwrap()),
            }
        };
        let lines = "https://example.org\n\n\n#admins:example.org\n\n/tmp\n\n";
        let (answers, screen) = ask(lines, &given(), suggest);
        assert_eq!(answers.homeserver.as_str(), "https://matrix.example.org/");
        assert_eq!(answers.server_name.as_str(), "example.org");
        assert_eq!(answers.project.as_str(), "tmp");
        assert!(answers.admins.is_empty());
        assert!(
            screen.contains("https://example.org/ says that it is at https://matrix.example.org/"),
            "{screen}"
        );
    }

    #[test]
    fn only_what_was_not_given_is_asked_for_and_bad_answers_are_asked_again() {
        let given = Given {
            homeserver: Some("http://127.0.0.1:8008".parse().unwrap()),
            admin_room: Some("!room:example.org".try_into().unwrap()),
            ..given()
        };
        let lines = "https://example.org\nexample.org\nalice\n@alice:example.org, @bob:x.y\n/\n~/nowhere\n/dev/null\n~/tmp\n../x\nsite\n";
        let (answers, screen) = ask(lines, &given, |_| Suggestion::default());
        assert_eq!(answers.admins, ["@alice:example.org", "@bob:x.y"]);
        assert_eq!(answers.directory, Path::new("/tmp"));
        assert_eq!(answers.project.as_str(), "site");
        for part in [
            "found \"https://example.org\", wanted a server name without https://",
            "found \"alice\", wanted a user id",
            "/ is your home directory, which claude never trusts",
            "no directory at /nowhere (No such file or directory",
            "/dev/null is not a directory",
            "found \"../x\": ",
        ] {
            assert!(screen.contains(part), "{part:?} is not in: {screen}");
        }
        assert!(!screen.contains("Homeserver") && !screen.contains("Admin room"));
    }
}

//! What a first configuration needs: given as flags, or asked for; each answer checked as the configuration checks it.

use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
};

use anyhow::bail;
use matrix_sdk::ruma::{OwnedRoomOrAliasId, OwnedServerName, OwnedUserId};
use url::Url;

use super::discover::Discovery;
use crate::{
    config::{
        HostName, usable_directory,
        values::{FilePath, HomeserverUrl, Host, Kind as _, Localpart, Room, Server, User},
    },
    remote_control::ProjectName,
};

/// The answer that names no administrator.
const NONE: &str = "none";

/// What `rcbot init` can be given. Whatever is not is asked for, but for what one bot in a room does not need.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Input {
    /// Where the homeserver's client-server API is, such as `http://127.0.0.1:8008`.
    #[arg(long, value_name = "URL", value_parser = HomeserverUrl::of_text)]
    pub(super) homeserver: Option<Url>,
    /// The name in which the user ids of the homeserver end, such as example.org.
    #[arg(long, value_name = "NAME", value_parser = Server::of_text)]
    pub(super) server_name: Option<OwnedServerName>,
    /// The one room in which commands count: its alias or id.
    #[arg(long, value_name = "ROOM", value_parser = Room::of_text)]
    pub(super) admin_room: Option<OwnedRoomOrAliasId>,
    /// An administrator: only the users who are named here may command the bot. Repeatable.
    #[arg(long, value_name = "USER", value_parser = User::of_text)]
    pub(super) admin: Vec<OwnedUserId>,
    /// Where the first project's sessions run.
    #[arg(long, value_name = "PATH", value_parser = |text: &str| directory(text, None))]
    pub(super) directory: Option<PathBuf>,
    /// What people call the first project.
    #[arg(long, value_name = "NAME", value_parser = project)]
    pub(super) project: Option<ProjectName>,
    /// The name of the bot's user, before the colon.
    #[arg(long, value_name = "NAME", default_value = "rcbot", value_parser = Localpart::of_text)]
    pub(super) localpart: String,
    /// What this host is called, where the bots of several hosts share the admin room, such as build1.
    #[arg(long, value_name = "NAME", value_parser = Host::of_text)]
    pub(super) host: Option<HostName>,
}

#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) homeserver: Url,
    pub(super) server_name: OwnedServerName,
    pub(super) admin_room: OwnedRoomOrAliasId,
    /// Who may command. If empty: every user with the power level.
    pub(super) admins: Vec<OwnedUserId>,
    /// Absolute; it exists.
    pub(super) directory: PathBuf,
    pub(super) project: ProjectName,
    pub(super) localpart: String,
    pub(super) host: Option<HostName>,
}

impl Input {
    /// The flags without which there is something to ask.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let flags = [
            ("--homeserver", self.homeserver.is_none()),
            ("--server-name", self.server_name.is_none()),
            ("--admin-room", self.admin_room.is_none()),
            ("--directory", self.directory.is_none()),
            ("--project", self.project.is_none()),
        ];
        let missing = flags.into_iter().filter(|(_, is_missing)| *is_missing);
        missing.map(|(flag, _)| flag).collect()
    }

    /// Asks for what was not given; for administrators only beside other questions. `discover` looks at a homeserver.
    pub(super) fn ask_for_the_rest(
        self,
        prompt: &mut Prompt<'_>,
        discover: impl Fn(&Url) -> Discovery,
        home: Option<&Path>,
    ) -> anyhow::Result<Answers> {
        let asks = !self.missing().is_empty();
        let (homeserver, discovery) = match self.homeserver {
            Some(url) if self.server_name.is_some() => (url, Discovery::default()),
            Some(url) => {
                let discovery = discover(&url);
                (url, discovery)
            }
            None => prompt.ask_for_homeserver(discover)?,
        };
        let server_name = prompt.ask(
            self.server_name,
            "Server name, in which its user ids end (such as example.org)",
            discovery.server_name.as_ref().map(|name| name.as_str()),
            Server::of_text,
        )?;
        let admin_room = prompt.ask(
            self.admin_room,
            &format!("Admin room, its alias or id (such as #admins:{server_name})"),
            None,
            Room::of_text,
        )?;
        let admins = prompt.ask(
            Some(self.admin).filter(|admins| !asks || !admins.is_empty()),
            &format!(
                "Administrators, the only users who may command the bot (such as @alice:{server_name}; several with spaces \
                 between)"
            ),
            Some(NONE),
            admins,
        )?;
        let directory = prompt.ask(
            self.directory,
            "Directory of the first project (such as /srv/website)",
            None,
            |text| directory(text, home),
        )?;
        let name = directory.file_name().and_then(|name| name.to_str());
        let project = prompt.ask(
            self.project,
            "Name of the project, as people type it",
            name.filter(|name| project(name).is_ok()),
            project,
        )?;
        Ok(Answers {
            homeserver,
            server_name,
            admin_room,
            admins,
            directory,
            project,
            localpart: self.localpart,
            host: self.host,
        })
    }
}

/// Where a homeserver on the same host usually listens.
const USUAL: &str = "http://127.0.0.1:8008";

/// A person who is asked at a terminal, one question after the other.
pub(super) struct Prompt<'a> {
    keyboard: &'a mut dyn BufRead,
    screen: &'a mut dyn Write,
}

impl<'a> Prompt<'a> {
    pub(super) fn new(keyboard: &'a mut dyn BufRead, screen: &'a mut dyn Write) -> Self {
        Self { keyboard, screen }
    }

    /// What was given; else asks until `check` accepts the answer, showing why it does not. An empty one accepts the offer.
    fn ask<T>(
        &mut self,
        given: Option<T>,
        question: &str,
        offer: Option<&str>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        if let Some(given) = given {
            return Ok(given);
        }
        loop {
            match offer {
                Some(offer) => write!(self.screen, "{question} [{offer}]: ")?,
                None => write!(self.screen, "{question}: ")?,
            }
            self.screen.flush()?;
            let mut line = String::new();
            if self.keyboard.read_line(&mut line)? == 0 {
                bail!("no answer came, so nothing was written");
            }
            let answer = match (unquoted(line.trim()), offer) {
                ("", Some(offer)) => offer,
                (answer, _) => answer,
            };
            match check(answer) {
                Ok(checked) => return Ok(checked),
                Err(reason) => writeln!(self.screen, "  {reason}")?,
            }
        }
    }

    /// People know their server's name better than the URL of its client-server API: `.well-known` leads there.
    fn ask_for_homeserver(
        &mut self,
        discover: impl Fn(&Url) -> Discovery,
    ) -> anyhow::Result<(Url, Discovery)> {
        let question = "Homeserver, where its client-server API is (such as http://127.0.0.1:8008)";
        let usual = Url::parse(USUAL).ok();
        let usual = usual.filter(|url| discover(url).is_homeserver);
        let offer = usual.map(|_| USUAL);
        let url = self.ask(None, question, offer, HomeserverUrl::of_text)?;
        let discovery = discover(&url);
        if let Some(elsewhere) = &discovery.elsewhere {
            writeln!(self.screen, "  {url} says that it is at {elsewhere}")?;
            let offer = Some(elsewhere.as_str());
            let url = self.ask(None, question, offer, HomeserverUrl::of_text)?;
            return Ok((url, discovery));
        }
        if !discovery.is_homeserver {
            writeln!(
                self.screen,
                "  No homeserver answers at {url} now; `rcbot check` tells more later."
            )?;
        }
        Ok((url, discovery))
    }
}

/// People who know YAML type quotes.
fn unquoted(answer: &str) -> &str {
    let within = |quote| answer.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(answer)
}

/// User ids with spaces or commas between, each in quotes or not, or the word for none.
fn admins(text: &str) -> Result<Vec<OwnedUserId>, String> {
    let words = text.split([' ', ',']);
    let words = words.map(|word| word.trim_matches(['"', '\'']));
    let words = words.filter(|word| !word.is_empty());
    let words = words.filter(|word| *word != NONE);
    words.map(User::of_text).collect()
}

fn project(text: &str) -> Result<ProjectName, String> {
    text.parse::<ProjectName>()
        .map_err(|error| format!("found {text:?}: {error}"))
}

/// A relative path begins at the current directory, as everywhere at a terminal.
fn directory(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_) | None, _) => FilePath::of_text(text)?,
    };
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    usable_directory(&path).map_err(|why| format!("{why}; make it or name another"))?;
    let is_home = home.is_some_and(|home| {
        let home = home.canonicalize();
        home.is_ok_and(|home| path.canonicalize().is_ok_and(|path| path == home))
    });
    if is_home {
        return Err(format!(
            "{} is a home directory, which claude never trusts; name another one",
            path.display()
        ));
    }
    if path.to_str().is_none() {
        return Err(format!("{} is not UTF-8 text", path.display()));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers by these lines at a terminal, and what the screen shows.
    fn ask(lines: &str, given: Input, discover: impl Fn(&Url) -> Discovery) -> (Answers, String) {
        let (mut keyboard, mut screen) = (lines.as_bytes(), Vec::new());
        let mut prompt = Prompt::new(&mut keyboard, &mut screen);
        let home = Path::new("/");
        let answers = given
            .ask_for_the_rest(&mut prompt, discover, Some(home))
            .unwrap();
        (answers, String::from_utf8(screen).unwrap())
    }

    #[test]
    fn the_homeserver_by_well_known_is_offered_with_its_name() {
        let discover = |url: &Url| {
            if url.as_str() != "https://example.org/" {
                return Discovery::default();
            }
            Discovery {
                is_homeserver: false,
                elsewhere: Some("https://matrix.example.org".parse().unwrap()),
                server_name: Some("example.org".try_into().unwrap()),
            }
        };
        let lines = "https://example.org\n\n\n#admins:example.org\n\n/tmp\n\n";
        let (answers, screen) = ask(lines, Input::default(), discover);
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
    fn a_homeserver_of_the_same_host_is_offered() {
        let discover = |url: &Url| Discovery {
            is_homeserver: url.port() == Some(8008),
            elsewhere: None,
            server_name: Some("example.org".try_into().unwrap()),
        };
        let lines = "\n\n#admins:example.org\n\n/tmp\n\n";
        let (answers, _) = ask(lines, Input::default(), discover);
        assert_eq!(answers.homeserver.as_str(), "http://127.0.0.1:8008/");
    }

    #[test]
    fn only_what_was_not_given_is_asked_for_and_bad_answers_are_asked_again() {
        let given = Input {
            homeserver: Some("http://127.0.0.1:8008".parse().unwrap()),
            admin_room: Some("!room:example.org".try_into().unwrap()),
            ..Input::default()
        };
        let lines = "https://example.org\nexample.org\nalice\n\"@alice:example.org\", \"@bob:x.y\"\n/\n~/nowhere\n/dev/null\n~/tmp\n../x\nsite\n";
        let (answers, screen) = ask(lines, given, |_| Discovery::default());
        assert_eq!(answers.admins, ["@alice:example.org", "@bob:x.y"]);
        assert_eq!(answers.directory, Path::new("/tmp"));
        assert_eq!(answers.project.as_str(), "site");
        for part in [
            "found \"https://example.org\", wanted a server name without https://",
            "found \"alice\", wanted a user id",
            "/ is a home directory, which claude never trusts",
            "no directory at /nowhere (No such file or directory",
            "/dev/null is not a directory",
            "found \"../x\": ",
        ] {
            assert!(screen.contains(part), "{part:?} is not in: {screen}");
        }
        assert!(!screen.contains("Homeserver") && !screen.contains("Admin room"));
    }
}

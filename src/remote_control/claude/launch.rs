//! The command line and the environment of a session.

use std::{collections::BTreeMap, ffi::OsString};

use crate::secret::SecretText;

/// The variable that carries the session's id into every process of the session, by which they are found again.
pub const SESSION_ID_VARIABLE: &str = "RCBOT_SESSION_ID";

/// What of our own environment a session gets. Everything else stays ours: secrets, and variables that switch Remote Control off.
const INHERITED: [&str; 11] = [
    "CLAUDE_CONFIG_DIR",
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSH_AUTH_SOCK",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];

/// Families of variables that a session gets as well.
const INHERITED_PREFIXES: [&str; 2] = ["LC_", "XDG_"];

/// How a host tells its programs the way out, in upper or lower case. They stay ours like everything else, as the address of
/// a proxy may hold a password; where the way is this one, a project's own environment has to name it.
pub const WAY_OUT: [&str; 5] = [
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
];

/// What stands for `{project}`, `{host}` and `{id}` in a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placeholders<'a> {
    /// The project's name.
    pub project: &'a str,
    /// The name of this host.
    pub host: &'a str,
    /// The session's id.
    pub id: &'a str,
}

impl Placeholders<'_> {
    /// Fills in the placeholders of each word. Whatever else stands in braces is left as it is, and what was filled in is
    /// not looked at again.
    #[must_use]
    pub fn fill(&self, command: &[String]) -> Vec<String> {
        command.iter().map(|word| self.fill_word(word)).collect()
    }

    fn fill_word(&self, word: &str) -> String {
        let mut filled = String::with_capacity(word.len());
        let mut rest = word;
        while let Some(start) = rest.find('{') {
            let (before, placeholder) = rest.split_at(start);
            filled.push_str(before);
            if let Some((value, after)) = self.value_at_start(placeholder) {
                filled.push_str(value);
                rest = after;
            } else {
                filled.push('{');
                rest = placeholder.strip_prefix('{').unwrap_or_default();
            }
        }
        filled.push_str(rest);
        filled
    }

    /// The value of the placeholder that a text begins with, and the text after it.
    fn value_at_start<'t>(&self, text: &'t str) -> Option<(&str, &'t str)> {
        let known = [
            ("{project}", self.project),
            ("{host}", self.host),
            ("{id}", self.id),
        ];
        known
            .into_iter()
            .find_map(|(name, value)| Some((value, text.strip_prefix(name)?)))
    }
}

/// The complete environment of a session: what the allow-list lets through of `ours`, then `extra`, then the session's id,
/// which nothing overrides. A name that no environment can hold (empty, or with `=`) is left out.
#[must_use]
pub fn environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    extra: &BTreeMap<String, SecretText>,
    session_id: &str,
) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = ours
        .into_iter()
        .filter(|(name, _)| name.to_str().is_some_and(is_inherited))
        .collect();
    let extra = extra
        .iter()
        .filter(|(name, _)| !name.is_empty() && !name.contains('='));
    environment.extend(extra.map(|(name, value)| (name.into(), value.expose().into())));
    environment.insert(SESSION_ID_VARIABLE.into(), session_id.into());
    environment
}

fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name)
        || INHERITED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEHOLDERS: Placeholders<'_> = Placeholders {
        project: "website",
        host: "{id}",
        id: "4711",
    };

    fn fill(word: &str) -> String {
        PLACEHOLDERS.fill(&[word.to_owned()]).remove(0)
    }

    #[test]
    fn placeholders_are_filled_in_once() {
        assert_eq!(fill("{project}@{host} {id}"), "website@{id} 4711");
        assert_eq!(fill("--name={project}{project}"), "--name=websitewebsite");
    }

    #[test]
    fn what_is_no_placeholder_is_left_as_it_is() {
        for word in [
            "", "{", "}", "{}", "{user}", "{ id }", "{ID}", "a{b", "é{ü}",
        ] {
            assert_eq!(fill(word), word);
        }
        assert_eq!(fill("{{id}}"), "{4711}");
        assert_eq!(fill("{pro{project}"), "{prowebsite");
    }

    fn pairs<T: From<&'static str>>(pairs: &[(&'static str, &'static str)]) -> Vec<(T, T)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn only_the_allow_list_of_our_environment_gets_through() {
        let allowed = pairs(&[
            ("HOME", "/home/x"),
            ("LC_ALL", "C"),
            ("PATH", "/bin"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
        ]);
        let kept_back = pairs(&[
            ("ANTHROPIC_API_KEY", "sk"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "t"),
            ("DISABLE_TELEMETRY", "1"),
            ("HOMER", "1"),
            ("HTTPS_PROXY", "http://user:password@proxy:3128"),
            ("JOURNAL_STREAM", "9:1"),
            ("LCX", "1"),
            ("MY_HOME", "1"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("WATCHDOG_USEC", "30000000"),
            ("path", "1"),
        ]);
        let ours = allowed.iter().chain(&kept_back).cloned();
        let mut environment = environment(ours, &BTreeMap::new(), "4711");
        let id: OsString = SESSION_ID_VARIABLE.into();
        assert_eq!(environment.remove(&id), Some("4711".into()));
        assert_eq!(environment, allowed.into_iter().collect());
    }

    #[test]
    fn the_project_overrides_what_is_inherited_and_nothing_overrides_the_session_id() {
        let ours = pairs(&[("HOME", "/home/x"), (SESSION_ID_VARIABLE, "outer")]);
        let extra = [
            ("", "x"),
            ("EXTRA", "a=b"),
            ("HOME", "/srv"),
            ("RCBOT_SESSION_ID", "forged"),
            ("RCBOT_SESSION_ID=forged", "x"),
        ];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.into()));
        let environment = environment(ours, &extra.into(), "4711");
        let expected = pairs(&[
            ("EXTRA", "a=b"),
            ("HOME", "/srv"),
            (SESSION_ID_VARIABLE, "4711"),
        ]);
        assert_eq!(environment, expected.into_iter().collect());
    }
}

//! `rcbot trust`: shows the identity of a user, and has the running bot accept it.

use anyhow::{Context as _, Result, bail, ensure};
use matrix_sdk::ruma::OwnedUserId;

use super::{ConfigFile, block_on, confirm, load_config, print};
use crate::{
    bot::{self, OperatorError},
    config::{
        MasterKey,
        values::{Kind as _, User},
    },
    matrix::{IdentityReport, NotAccepted, PinnedIdentity},
    shell,
};

/// What `rcbot trust` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Trust {
    #[command(flatten)]
    config: ConfigFile,
    /// Whose identity, such as @alice:example.org.
    #[arg(value_parser = User::of_text)]
    user: OwnedUserId,
    /// Accept this key without a question, if it is the one that the homeserver shows.
    #[arg(long, value_name = "KEY")]
    accept: Option<MasterKey>,
}

pub(super) fn trust(arguments: &Trust) -> Result<()> {
    let data_dir = load_config(&arguments.config.path)?.data_dir;
    let user = &arguments.user;
    let report = block_on(async {
        let report = bot::ask_for_identity(&data_dir, user).await;
        report.map_err(explain)
    })?;
    print(&describe(user, &report))?;
    let known = report.known.map(PinnedIdentity::key);
    if arguments.accept.is_none() && known.is_some() && known == report.shown {
        return print("They are the same: there is nothing to accept.");
    }
    let key = choose(arguments, &report)?;
    let accepted = block_on(async {
        let accepted = bot::ask_to_trust(&data_dir, user, key).await;
        accepted.context("not accepted")
    })?;
    match accepted {
        Ok(()) => print(&format!("Accepted: {key} is now pinned for {user}.")),
        Err(NotAccepted::Configured) => bail!(
            "not accepted: the configuration names the key of {user}. Change it under authorization.users, and restart the bot"
        ),
        Err(NotAccepted::NotShown) => {
            bail!("not accepted: the homeserver shows another key for {user}")
        }
    }
}

fn explain(error: OperatorError) -> anyhow::Error {
    let is_without_bot = matches!(error, OperatorError::NoBot { .. });
    let error = anyhow::Error::from(error);
    if is_without_bot {
        return error.context("start the bot first: it is the one that asks the homeserver");
    }
    error
}

fn describe(user: &OwnedUserId, report: &IdentityReport) -> String {
    let known = match report.known {
        Some(PinnedIdentity::Configured(key)) => format!("{key} (named in the configuration)"),
        Some(PinnedIdentity::Seen(key)) => key.to_string(),
        None => "none yet: the first one seen is pinned".to_owned(),
    };
    let shown = report
        .shown
        .map_or_else(|| "none".to_owned(), |key| key.to_string());
    format!("{user}\n  the bot knows:        {known}\n  the homeserver shows: {shown}")
}

/// The key to accept, by the arguments or by the answer to a question.
fn choose(arguments: &Trust, report: &IdentityReport) -> Result<MasterKey> {
    let user = &arguments.user;
    if let Some(key) = arguments.accept {
        return Ok(key);
    }
    let Some(shown) = report.shown else {
        bail!(
            "{user} has no cross-signing identity: they set it up in their client's settings (secure backup)"
        );
    };
    let otherwise = format!(
        "not accepted. To accept it: rcbot trust --config {} {user} --accept {shown}",
        shell::word(&arguments.config.path)
    );
    let question = format!(
        "Ask {user} in person or by phone whether they reset their identity: if they did not, somebody poses as them.\n\
         Accept the one that the homeserver shows?"
    );
    let is_accepted = confirm(&question, &otherwise)?;
    ensure!(
        is_accepted,
        "not accepted: {user} commands nothing and gets no link"
    );
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_no_bot_runs_one_is_to_be_started() {
        let refused = OperatorError::Refused("the homeserver has not answered".to_owned());
        let no_bot = OperatorError::NoBot {
            path: "/srv/data".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        for (error, is_advised) in [(refused, false), (no_bot, true)] {
            let said = format!("{:#}", explain(error));
            assert_eq!(said.contains("start the bot"), is_advised, "{said}");
        }
    }
}

//! Tries everything that a start needs, and says what to do about what fails: for `rcbot check` and `!rc doctor`.
//!
//! A folder's files are its areas: what is on this host, what the homeserver says, what `claude` has been told.
//!
//! Invariant: it only looks. It makes no user, no device and no file, joins no room, and leaves the Matrix store alone, so
//! that it works beside a bot that runs.

mod account;
mod admin_room;
mod api;
mod command;
mod commanders;
mod files;
mod homeserver;
mod hosts;
mod identity;
mod process;
mod program;
mod project;
mod report;
mod service;
mod storage;
mod which_room;

use std::path::Path;

pub use report::{Check, Outcome, Report};

use crate::config::{Config, ConfigError};
use api::Api;
use process::BotProcess;

/// What is tried with the homeserver, in this order.
const WITH_HOMESERVER: [&str; 16] = [
    homeserver::REACHED,
    account::LOG_IN,
    account::TOKEN,
    account::SERVER_NAME,
    account::USER,
    which_room::ROOM,
    homeserver::SYNC,
    admin_room::MEMBERSHIP,
    which_room::UPGRADE,
    admin_room::ENCRYPTION,
    admin_room::POWER,
    commanders::ACCESS,
    commanders::COMMANDERS,
    commanders::IDENTITIES,
    hosts::HOSTS,
    identity::IDENTITY,
];

/// Why what stands on something cannot be tried.
type Blocked = &'static str;

/// Tries everything. Takes a few seconds, and as long as the homeserver's time-outs where that does not answer.
///
/// # Errors
/// When there is no configuration by which anything could be tried.
pub async fn everything(config_file: &Path) -> Result<Report, ConfigError> {
    let config = Config::load(config_file)?;
    let mut report = Report::default();
    files::look_at_configuration(&mut report, config_file, &config);
    let login = files::look_at_registration(&mut report, &config);
    let bot = BotProcess::running_with(&config.data_dir);
    let tried = match homeserver::set_up(&mut report, &config, login.as_ref()) {
        Ok(api) => try_homeserver(&mut report, &api, &bot).await,
        Err(blocked) => Err(blocked),
    };
    if let Err(because) = tried {
        report.skip_missing(&WITH_HOMESERVER, because);
    }
    storage::look(&mut report, &config);
    service::look(&mut report, &bot).await;
    project::look(&mut report, &config, &bot).await;
    Ok(report)
}

/// What there is to say where there is no configuration.
#[must_use]
pub fn without_configuration(error: &ConfigError) -> Report {
    let mut report = Report::default();
    let found = error.to_string().replace('\n', "; ");
    report.add(
        files::CONFIGURATION,
        Outcome::failed(found, "do that in the file, and start the bot again"),
    );
    report
}

async fn try_homeserver(
    report: &mut Report,
    api: &Api<'_>,
    bot: &BotProcess,
) -> Result<(), Blocked> {
    homeserver::reach(report, api).await?;
    account::look(report, api).await?;
    let room = which_room::find(report, api).await;
    let id = room.as_ref().ok().map(|room| &*room.id);
    let sync = homeserver::try_sync(report, api, id).await;
    let looked = match (room, sync) {
        (Ok(room), Ok(sync)) => admin_room::look(report, api, &room, &sync).await,
        (Err(blocked), _) | (_, Err(blocked)) => Err(blocked),
    };
    if let Err(because) = looked {
        report.skip_missing(&admin_room::ALL, because);
    }
    identity::look(report, api, bot).await;
    Ok(())
}

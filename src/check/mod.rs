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
mod program;
mod project;
mod report;
mod service;
mod storage;
mod trust;
mod vantage;
mod which_room;

use std::path::Path;

pub use report::{Check, Outcome, Report};

use crate::config::{Config, ConfigError};
use api::Api;
use vantage::Vantage;

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
    let vantage = Vantage::new(&config);
    let seen = vantage.look(&mut report);
    files::look_at_configuration(&mut report, config_file, &config);
    if let Err(because) = seen {
        report.add("all else", Outcome::skipped(because));
        return Ok(report);
    }
    let login = files::look_at_registration(&mut report, &config);
    let tried = match homeserver::set_up(&mut report, &config, login.as_ref()) {
        Ok(mut api) => try_homeserver(&mut report, &mut api, &vantage).await,
        Err(blocked) => Err(blocked),
    };
    if let Err(because) = tried {
        report.skip_missing(&WITH_HOMESERVER, because);
    }
    storage::look(&mut report, &config, &vantage);
    service::look(&mut report, &vantage).await;
    project::look(&mut report, &config, &vantage).await;
    Ok(report)
}

/// What there is to say where there is no configuration.
#[must_use]
pub fn without_configuration(error: &ConfigError) -> Report {
    let mut report = Report::default();
    report.add(files::CONFIGURATION, files::no_configuration(error));
    report
}

async fn try_homeserver(
    report: &mut Report,
    api: &mut Api<'_>,
    vantage: &Vantage,
) -> Result<(), Blocked> {
    homeserver::reach(report, api).await?;
    account::look(report, api).await?;
    let room = which_room::find(report, api).await;
    let id = room.as_ref().ok().map(|room| &*room.room);
    let sync = homeserver::try_sync(report, api, id).await;
    let looked = match (room, sync) {
        (Ok(room), Ok(rooms)) => admin_room::look(report, api, &room, rooms.as_ref()).await,
        (Err(blocked), _) | (_, Err(blocked)) => Err(blocked),
    };
    if let Err(because) = looked {
        report.skip_missing(&admin_room::ALL, because);
    }
    identity::look(report, api, vantage).await;
    Ok(())
}

//! Tries everything that a start needs, and says what to do about what fails: for `rcbot check` and `!rc doctor`.
//!
//! A folder's files are its areas: what is on this host, what the homeserver says, what `claude` has been told.
//!
//! Invariant: it only looks. It makes no user, no device and no file, joins no room, and leaves the Matrix store alone, so
//! that it works beside a bot that runs.

mod api;
mod claude;
mod homeserver;
mod host;
mod identity;
mod people;
mod project;
mod report;
mod room;
mod run;
mod service;
mod trust;
mod vantage;

use std::path::Path;

pub use report::{Check, Outcome, Report};

use crate::config::{Config, ConfigError};
use api::Api;
use report::{Blocked, Found, Stop};
use vantage::Vantage;

/// What is tried with the homeserver, in this order.
const WITH_HOMESERVER: [&str; 13] = [
    homeserver::REACHED,
    homeserver::SERVER_NAME,
    homeserver::ACCOUNT,
    identity::IDENTITY,
    homeserver::SYNC,
    room::ROOM,
    room::MEMBERSHIP,
    room::ENCRYPTION,
    room::POWER,
    people::ACCESS,
    people::COMMANDERS,
    people::IDENTITIES,
    room::HOSTS,
];

/// Tries everything. Takes a few seconds, and as long as the homeserver's time-outs where that does not answer.
///
/// # Errors
/// When there is no configuration by which anything could be tried.
pub async fn everything(config_file: &Path) -> Result<Report, ConfigError> {
    let config = Config::load(config_file)?;
    let mut report = Report::default();
    let vantage = Vantage::new(&config);
    let seen = vantage.look(&mut report);
    host::look_at_configuration(&mut report, config_file, &config);
    if let Err(because) = seen {
        report.add("all else", Outcome::skipped(because));
        return Ok(report);
    }
    let login = host::look_at_registration(&mut report, &config);
    let api = report.step(
        homeserver::REACHED,
        homeserver::reach(&config, login.as_ref()).await,
    );
    let tried = match api {
        Ok(mut api) => try_homeserver(&mut report, &mut api, &vantage).await,
        Err(blocked) => Err(blocked),
    };
    if let Err(because) = tried {
        report.skip_missing(&WITH_HOMESERVER, because);
    }
    host::look_at_data_dir(&mut report, &config, &vantage);
    service::look(&mut report, &vantage).await;
    project::look(&mut report, &config, &vantage).await;
    Ok(report)
}

/// What there is to say where there is no configuration.
#[must_use]
pub fn without_configuration(error: &ConfigError) -> Report {
    let mut report = Report::default();
    report.add(host::CONFIGURATION, host::no_configuration(error));
    report
}

async fn try_homeserver(
    report: &mut Report,
    api: &mut Api<'_>,
    vantage: &Vantage,
) -> Result<(), Blocked> {
    homeserver::look_at_account(report, api).await?;
    report.leaf(identity::IDENTITY, identity::judge(api, vantage).await);
    let heard = report.step(homeserver::SYNC, homeserver::try_sync(api).await)?;
    let room = report.step(room::ROOM, room::find(api).await)?;
    let state = room::look_at_membership(api, &room, heard.as_ref()).await;
    let state = report.step(room::MEMBERSHIP, state)?;
    room::look(report, api, &state);
    people::look(report, api, &state).await;
    report.add(room::HOSTS, room::judge_hosts(api, &state));
    Ok(())
}

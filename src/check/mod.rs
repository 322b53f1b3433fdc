//! Checks everything that a start needs, and says how to fix what fails: for `rcbot check` and `!rc doctor`.
//!
//! A file for each area: this host, the homeserver, and what `claude` is set up for.
//!
//! Invariant: it changes nothing. It makes no user, no device and no file, joins no room, and does not touch the Matrix store,
//! so that it works beside a running bot.

mod api;
mod homeserver;
mod host;
mod identity;
mod people;
mod project;
mod report;
mod room;
mod run;
mod service;
mod vantage;

pub use report::Check;
pub(crate) use report::{Finding, Outcome, Report, Verdict};

use std::path::Path;

use crate::{
    config::{Config, FileError},
    matrix::Login,
};
use report::Found;
use vantage::Vantage;

/// Tries everything with the configuration in this file. Takes a few seconds, and as long as the homeserver's time-outs where
/// that does not answer. The error is why there is no configuration to check with.
pub(crate) async fn everything(file: &Path) -> (Report, Option<FileError>) {
    let mut report = Report::default();
    match Config::load(file) {
        Ok(config) => {
            check(&mut report, &config).await;
            (report, None)
        }
        Err(error) => {
            let outcome = host::no_configuration(file, &error);
            report.add(Check::Configuration, outcome);
            (report, Some(error))
        }
    }
}

async fn check(report: &mut Report, config: &Config) {
    let vantage = Vantage::new(config);
    if report.step(Check::CheckedAs, vantage.judge()).is_none() {
        return report.skip(Check::Configuration..=Check::Unit);
    }
    report.add(Check::Configuration, host::judge_configuration(config));
    let (registration, login) = host::judge_registration(config);
    report.add(Check::Registration, registration);
    if try_homeserver(report, config, login.as_ref(), &vantage)
        .await
        .is_none()
    {
        report.skip(Check::Homeserver..=Check::PinnedIdentities);
    }
    let data_dir = host::judge_data_dir(&config.data_dir, &vantage);
    report.add(Check::DataDirectory, data_dir);
    report.add(Check::DiskSpace, host::judge_disk(&config.data_dir));
    let (roots, of_roots) = project::look_below_roots(config, &vantage);
    report.add(Check::ProjectRoots, roots);
    report.add(Check::Unit, service::judge(&vantage).await);
    let projects = config.projects.values().chain(&of_roots);
    project::judge(report, projects, &vantage).await;
}

/// `None`: the rest cannot be checked.
async fn try_homeserver(
    report: &mut Report,
    config: &Config,
    login: Option<&Login>,
    vantage: &Vantage,
) -> Option<()> {
    let reached = homeserver::reach(config, login).await;
    let mut api = report.step(Check::Homeserver, reached)?;
    let owner = homeserver::token_owner(&api).await;
    let name = homeserver::compare_server_name(&api, &owner).await;
    report.step(Check::ServerName, name)?;
    let account = homeserver::judge_account(&mut api, owner).await;
    report.step(Check::Account, account)?;
    report.add(Check::Identity, identity::judge(&api, vantage).await);
    let synced = report.step(Check::Sync, homeserver::try_sync(&api).await)?;
    let room = report.step(Check::Room, room::find(&api).await)?;
    let state = room::judge_membership(&api, &room, synced.as_ref()).await;
    let state = report.step(Check::Membership, state)?;
    report.add(Check::Upgrade, room::judge_upgrade(&api, &state));
    report.add(Check::Encryption, room::judge_encryption(&api, &state));
    report.add(Check::Power, room::judge_power(&api, &state));
    report.add(Check::Hosts, room::judge_hosts(&api, &state));
    let allowed = report.step(Check::Access, people::judge_access(&api, &state))?;
    report.step(Check::Commanders, people::judge_commanders(&api, &allowed))?;
    let identities = people::judge_identities(&api, &allowed).await;
    report.add(Check::PinnedIdentities, identities);
    Some(())
}

//! Several hosts, one admin room: what this bot announces of its host, and what it makes of the announcements of others.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    time::{SystemTime, UNIX_EPOCH},
};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::connection::MatrixHandle;
use crate::{
    command::{hosts::Host, reply},
    config::{Config, HostName},
    matrix::{AnnouncedProject, AnnouncedSession, Announcement, Chain, Matrix},
    remote_control::Status,
};

/// What this host is called.
pub(super) fn own_name(config: &Config) -> HostName {
    config.host.clone().unwrap_or_else(HostName::of_system)
}

/// What there is to announce.
pub(super) fn announcement(host: &HostName, statuses: &[Status]) -> Announcement {
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let projects = statuses.iter().map(|status| {
        let session = status.session.as_ref().map(|session| AnnouncedSession {
            phase: reply::announced_phase(session),
            since: seconds(session.since),
        });
        (status.project.to_string(), AnnouncedProject { session })
    });
    Announcement {
        host: host.to_string(),
        projects: projects.collect(),
    }
}

/// Keeps the announcement in the room up to date; never ends. What the homeserver did not take before it changed is not
/// announced any more.
pub(super) async fn keep_announced(
    matrix: MatrixHandle,
    mut latest: watch::Receiver<Option<Announcement>>,
) -> Infallible {
    loop {
        let announcement = latest.borrow_and_update().clone();
        let announcing = async {
            if let Some(announcement) = announcement {
                announce(&matrix, &announcement).await;
            }
            pending::<Infallible>().await
        };
        tokio::select! {
            never = announcing => match never {},
            Ok(()) = latest.changed() => {}
        }
    }
}

async fn announce(matrix: &MatrixHandle, announcement: &Announcement) {
    let announced = matrix
        .until_taken(|matrix| async move { matrix.announce(announcement).await })
        .await;
    match announced {
        Ok(()) => debug!("host announced"),
        Err(fault) => warn!(
            error = %Chain(&fault),
            "this host is not announced: give the bot the power to send state events of the type rcbot.host in the admin room"
        ),
    }
}

/// Which hosts share the room, as far as they are announced. Where it cannot be told, this one is alone.
pub(super) async fn others(matrix: &Matrix) -> Vec<(OwnedUserId, Announcement)> {
    matrix.announcements().await.unwrap_or_else(|fault| {
        warn!(error = %Chain(&fault), "other hosts are not known");
        Vec::new()
    })
}

/// This host, as it is announced.
pub(super) fn own(config: &Config, bot: &UserId, statuses: &[Status]) -> Host {
    let projects = statuses
        .iter()
        .map(|status| (status.project.clone(), status.session.is_some()));
    Host {
        name: own_name(config),
        bot: bot.to_owned(),
        projects: projects.collect(),
    }
}

/// Another one. Names that could not be addressed are nobody's.
pub(super) fn host((bot, announcement): &(OwnedUserId, Announcement)) -> Option<Host> {
    let projects: BTreeMap<_, _> = announcement
        .projects
        .iter()
        .filter_map(|(name, project)| Some((name.parse().ok()?, project.session.is_some())))
        .collect();
    Some(Host {
        name: announcement.host.parse().ok()?,
        bot: bot.clone(),
        projects,
    })
}

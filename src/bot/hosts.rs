//! Several hosts, one admin room: what this bot announces of its host, and what it makes of the announcements of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::pending,
    time::{SystemTime, UNIX_EPOCH},
};

use matrix_sdk::ruma::{OwnedUserId, UserId, serde::Base64};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{connection::MatrixHandle, projects::BelowRoots};
use crate::{
    command::{
        digest::Digest,
        hosts::{Host, Unnamed},
        reply,
    },
    config::{Config, HostName},
    matrix::{AnnouncedNames, AnnouncedProject, AnnouncedSession, Announcement, Chain, Matrix},
    remote_control::Status,
};

/// How much of an announcement is for the names of projects without a session, in bytes. With that, a digest and eight sessions
/// it stays under 4 KiB.
const ROOM_FOR_NAMES: usize = 1_200;

/// What this host is called.
pub(super) fn own_name(config: &Config) -> HostName {
    config.host.clone().unwrap_or_else(HostName::of_system)
}

/// What there is to announce.
pub(super) fn announcement(
    host: &HostName,
    statuses: &[Status],
    below: &BelowRoots,
) -> Announcement {
    let seconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    let mut projects = BTreeMap::new();
    let (mut room, mut left_out) = (ROOM_FOR_NAMES, BTreeSet::new());
    for status in statuses {
        let session = status.session.as_ref().map(|session| AnnouncedSession {
            phase: reply::announced_phase(session),
            since: seconds(session.since),
        });
        let name = status.project.to_string();
        if session.is_none() {
            // Beside the name: `"":{"session":null},`.
            let Some(left) = room.checked_sub(name.len() + 20) else {
                left_out.insert(&status.project);
                continue;
            };
            room = left;
        }
        projects.insert(name, AnnouncedProject { session });
    }
    let unnamed = if left_out.is_empty() {
        below.unnamed(&projects)
    } else {
        left_out.extend(&below.names);
        Unnamed {
            count: left_out.len(),
            digest: Digest::of(&left_out),
        }
    };
    Announcement {
        host: host.to_string(),
        projects,
        unnamed: (unnamed.count > 0).then(|| AnnouncedNames {
            count: unnamed.count,
            digest: Base64::new(unnamed.digest.as_bytes().to_vec()),
        }),
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
        unnamed: Unnamed::default(),
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
        unnamed: announcement
            .unnamed
            .as_ref()
            .map_or_else(Unnamed::default, |unnamed| Unnamed {
                count: unnamed.count,
                digest: Digest::from_bytes(unnamed.digest.as_bytes()),
            }),
    })
}

//! Several hosts, one admin room: what this bot announces of its host, and what it makes of the announcements of others.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use matrix_sdk::ruma::OwnedUserId;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{connection::MatrixHandle, deliver::Backoff};
use crate::{
    command::{
        Command, Misuse,
        hosts::{self, Host, Turn},
        reply,
    },
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
            phase: reply::phase(session.phase).to_owned(),
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
    mut line: MatrixHandle,
    mut latest: watch::Receiver<Option<Announcement>>,
) {
    loop {
        let announcement = latest.borrow_and_update().clone();
        if let Some(announcement) = announcement {
            tokio::select! {
                () = announce(&mut line, &announcement) => {}
                changed = latest.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
            }
        }
        if latest.changed().await.is_err() {
            break;
        }
    }
    std::future::pending::<()>().await;
}

async fn announce(line: &mut MatrixHandle, announcement: &Announcement) {
    let mut patience = Backoff::new();
    loop {
        match line.matrix().await.announce(announcement).await {
            Ok(()) => return debug!("host announced"),
            Err(fault) if line.may_mend(&fault) => patience.wait(&fault).await,
            Err(fault) => {
                return warn!(
                    error = %Chain(&fault),
                    "this host is not announced: give the bot the power to send state events of the type rcbot.host in the \
                     admin room"
                );
            }
        }
    }
}

/// Which hosts share the room, as far as they are announced. Where it cannot be told, this one is alone.
pub(super) async fn others(matrix: &Matrix) -> Vec<(OwnedUserId, Announcement)> {
    matrix.announcements().await.unwrap_or_else(|fault| {
        warn!(error = %Chain(&fault), "other hosts are not known");
        Vec::new()
    })
}

/// Whose turn it is to answer.
pub(super) fn turn(
    own: (&HostName, OwnedUserId, &[Status]),
    others: Vec<(OwnedUserId, Announcement)>,
    command: &Result<Command, Misuse>,
    named: Option<&str>,
) -> Turn {
    let (name, bot, statuses) = own;
    let projects = statuses
        .iter()
        .map(|status| (status.project.clone(), status.session.is_some()));
    let own = Host {
        name: name.clone(),
        bot,
        projects: projects.collect(),
    };
    let others: Vec<_> = others.into_iter().filter_map(host).collect();
    hosts::turn(&own, &others, command, named)
}

/// Names that could not be addressed are nobody's.
fn host((bot, announcement): (OwnedUserId, Announcement)) -> Option<Host> {
    let projects: BTreeMap<_, _> = announcement
        .projects
        .into_iter()
        .filter_map(|(name, project)| Some((name.parse().ok()?, project.session.is_some())))
        .collect();
    Some(Host {
        name: announcement.host.parse().ok()?,
        bot,
        projects,
    })
}

//! Sessions without a running bot: what the records say, and how to end what they name.

use std::{path::Path, time::Duration};

use super::{
    SESSION_ID_VARIABLE, Status, StopReport, Withdrawal,
    process::{self, IdentityError, StopError},
    project::ProjectName,
    session::Session,
    store::{Record, Store, StoreError},
    tasks,
};

/// Why the sessions on disk cannot be told or ended.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The records cannot be used.
    #[error("the session records cannot be used")]
    Records(#[from] StoreError),
    /// The processes cannot be looked at.
    #[error("the processes of this host cannot be looked at")]
    Processes(#[from] IdentityError),
    /// Processes cannot be ended.
    #[error("the processes of {project} cannot be ended")]
    Stop {
        /// The project.
        project: ProjectName,
        /// Why.
        #[source]
        source: StopError,
    },
}

/// What is known of one project's session.
#[derive(Debug)]
pub enum Known {
    /// A record that makes sense.
    Record {
        /// What it says.
        status: Status,
        /// Whether the process that it names runs. `None`: it names none.
        is_alive: Option<bool>,
    },
    /// A record that makes no sense.
    Unreadable {
        /// The project.
        project: ProjectName,
    },
}

/// What the records in this folder say. Changes nothing, and may be called while a bot runs.
///
/// # Errors
/// [`OfflineError`].
pub fn status(folder: &Path) -> Result<Vec<Known>, OfflineError> {
    let uptime = tasks::now().uptime;
    let mut all = Vec::new();
    for (project, record) in Store::peek(folder)? {
        all.push(match record {
            Some(record) => {
                let session = record.session.as_ref();
                let is_alive = session
                    .and_then(Session::process)
                    .map(process::ProcessIdentity::is_alive)
                    .transpose()?;
                Known::Record {
                    status: Status::of(&project, session, uptime),
                    is_alive,
                }
            }
            None => Known::Unreadable { project },
        });
    }
    Ok(all)
}

/// Ends a project's session; the links are taken back when a bot runs again. Only while none runs: the caller holds the
/// lock of the data directory. `None`: there is no session.
///
/// # Errors
/// [`OfflineError`]. What was not ended stays in its record.
pub async fn stop(
    folder: &Path,
    project: &ProjectName,
    grace: Duration,
) -> Result<Option<StopReport>, OfflineError> {
    let store = Store::open(folder.to_owned())?;
    let found = Store::peek(folder)?
        .into_iter()
        .find(|(name, _)| name == project);
    let Some((
        _,
        Some(Record {
            session: Some(session),
            mut withdrawals,
            ..
        }),
    )) = found
    else {
        return Ok(None);
    };
    let mark = (SESSION_ID_VARIABLE, session.id().as_str());
    let report = process::stop(session.process(), mark, grace)
        .await
        .map_err(|source| OfflineError::Stop {
            project: project.clone(),
            source,
        })?;
    withdrawals.extend(session.deliveries().iter().map(|delivery| Withdrawal {
        session: session.id().clone(),
        delivery: delivery.clone(),
    }));
    store.save(project, &Record::new(None, withdrawals))?;
    Ok(Some(report))
}

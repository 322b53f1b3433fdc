//! What a session printed, in the direct message of the person who asks: once, or in one message that is edited for a while.
//!
//! Invariant: each edit is checked like a first message: its reader may command at that moment, and only the bot and they are
//! in its room.

use std::time::{Duration, SystemTime};

use matrix_sdk::ruma::OwnedUserId;
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{error, warn};

use super::{Bot, Event, audit::Conclusion, connection::MatrixHandle, deliver};
use crate::{
    command::{
        Excerpt, Permit, Policy,
        reply::{self, NoLongerFollowed, Shown},
    },
    matrix::{Chain, SentNotice},
    remote_control::{LogReader, Output, OutputError, ProjectName, Request},
};

/// How far apart the edits of a message are at least.
const EDITS_APART: Duration = Duration::from_secs(5);

/// How often the output is read again, once an edit may be made.
const LOOKS_APART: Duration = Duration::from_secs(1);

/// A log that is followed.
#[derive(Debug)]
pub(super) struct Follow {
    project: ProjectName,
    end: oneshot::Sender<NoLongerFollowed>,
}

impl Follow {
    pub(super) fn is_of(&self, project: &ProjectName) -> bool {
        self.project == *project
    }

    /// Has no effect if following has ended already.
    fn end(self, why: NoLongerFollowed) {
        self.end.send(why).ok();
    }
}

impl Bot {
    pub(super) fn show_output(
        &mut self,
        project: ProjectName,
        excerpt: Excerpt,
        permit: &Permit,
        request: Request,
    ) {
        let user = permit.requester().to_owned();
        if let Some(follow) = self.follows.remove(&user) {
            follow.end(NoLongerFollowed::AskedAgain);
        }
        let reader = self.remote_control.log_reader(&project, excerpt.lines);
        let output = match reader.read() {
            Ok(output) => output,
            Err(error) => {
                if !matches!(error, OutputError::None) {
                    error!(%project, error = %Chain(&error), "output not readable");
                }
                let text = reply::no_output(&project, &error);
                let conclusion = Conclusion::because("no output", error.to_string());
                return self.answer(Some(&project), &request, Ok(&text), &conclusion);
            }
        };
        let has_session = self.session_of(&project).is_some();
        let now = SystemTime::now();
        match excerpt.follow {
            Some(time) if has_session => {
                self.follow(project, time, user, request, (reader, output));
            }
            follow => {
                let text = match follow {
                    Some(_) => {
                        let over = Err(NoLongerFollowed::NoSession);
                        reply::followed_output(&project, &output, now, over)
                    }
                    None => reply::last_output(&project, &output, now),
                };
                let follow = None;
                self.show(Shown::Output { project, follow }, request, user, text);
            }
        }
    }

    fn follow(
        &mut self,
        project: ProjectName,
        time: Duration,
        user: OwnedUserId,
        request: Request,
        (reader, output): (LogReader, Output),
    ) {
        let (end, ended) = oneshot::channel();
        self.follows.retain(|_, follow| !follow.end.is_closed());
        let follow = Follow {
            project: project.clone(),
            end,
        };
        self.follows.insert(user.clone(), follow);
        let mut following = Following {
            matrix: self.matrix.clone(),
            policy: self.projects.policy(Some(&project)),
            project: project.clone(),
            user,
            reader,
            output,
            until: SystemTime::now() + time,
        };
        let events = self.events.clone();
        self.spawn_quiet(async move {
            let deadline = Instant::now() + time;
            let shown = following.show(None, None).await;
            let (sent, result) = match shown {
                Ok(sent) => {
                    let room = sent.room.clone();
                    (Some(sent), Ok(room))
                }
                Err(reason) => (None, Err(reason)),
            };
            let follow = Some(time);
            let event = Event::Shown {
                shown: Shown::Output { project, follow },
                request,
                result,
            };
            drop(events.send(event).await);
            if let Some(sent) = sent {
                following.keep_up_to_date(&sent, deadline, ended).await;
            }
        });
    }

    pub(super) fn end_follows(&mut self, which: impl Fn(&Follow) -> bool, why: NoLongerFollowed) {
        for (_, follow) in self.follows.extract_if(|_, follow| which(follow)) {
            follow.end(why);
        }
    }
}

/// The state of the task that follows a log.
struct Following {
    matrix: MatrixHandle,
    policy: Policy,
    project: ProjectName,
    user: OwnedUserId,
    reader: LogReader,
    /// What was read last.
    output: Output,
    until: SystemTime,
}

impl Following {
    async fn keep_up_to_date(
        &mut self,
        sent: &SentNotice,
        deadline: Instant,
        mut ended: oneshot::Receiver<NoLongerFollowed>,
    ) {
        let mut why = None;
        let mut next_edit = Instant::now() + EDITS_APART;
        while why.is_none() {
            let next_look = next_edit.max(Instant::now() + LOOKS_APART);
            tokio::select! {
                // If the bot ends, there may be no reason.
                said = &mut ended => why = Some(said.unwrap_or(NoLongerFollowed::BotEnds)),
                () = sleep_until(deadline) => why = Some(NoLongerFollowed::TimeUp),
                () = sleep_until(next_look) => {}
            }
            if why == Some(NoLongerFollowed::BotEnds) && Instant::now() < next_edit {
                return;
            }
            sleep_until(next_edit).await;
            if !self.has_more().await && why.is_none() {
                continue;
            }
            if let Err(reason) = self.show(Some(sent), why).await {
                warn!(user = %self.user, project = %self.project, ?reason, "the log is no longer followed");
                return;
            }
            next_edit = Instant::now() + EDITS_APART;
        }
    }

    /// Whether the output has changed since it was last read.
    async fn has_more(&mut self) -> bool {
        let reader = self.reader.clone();
        match spawn_blocking(move || reader.read()).await {
            Ok(Ok(output)) if output != self.output => {
                self.output = output;
                true
            }
            // Files are missing for a moment when a process is about to start.
            Ok(Ok(_) | Err(_)) | Err(_) => false,
        }
    }

    async fn show(
        &self,
        edited: Option<&SentNotice>,
        over: Option<NoLongerFollowed>,
    ) -> Result<SentNotice, deliver::NotDelivered> {
        let now = SystemTime::now();
        let until = over.map_or(Ok(self.until), Err);
        let text = reply::followed_output(&self.project, &self.output, now, until);
        deliver::show(&self.matrix, &self.user, &text, &self.policy, edited).await
    }
}

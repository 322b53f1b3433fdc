//! What a session printed, in the direct message of the person who asks: once, or in one message that is edited for a while.
//!
//! Invariant: each edit is checked like a first message: its reader may command at that moment, and only the bot and they are
//! in its room.

use std::time::{Duration, SystemTime};

use matrix_sdk::ruma::{OwnedUserId, UserId};
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{error, warn};

use super::{
    Bot, Event,
    audit::Conclusion,
    connection::MatrixHandle,
    deliver::{self, Shown},
};
use crate::{
    command::{
        Excerpt, Permit, Policy,
        reply::{self, NoLongerFollowed, Reply, Secret},
    },
    matrix::{Chain, SentNotice},
    remote_control::{LogReader, Output, OutputError, ProjectName, Request},
};

/// How far apart the edits of a message are at least.
const EDITS_APART: Duration = Duration::from_secs(5);

/// How often the output is read again, once an edit may be made.
const LOOKS_APART: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Follow {
    project: ProjectName,
    end: oneshot::Sender<NoLongerFollowed>,
}

impl Follow {
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
        let (policy, now) = (self.projects.policy(&project), SystemTime::now());
        let has_session = self.session_of(&project).is_some();
        let (text, following) = match excerpt.follow {
            None => (reply::last_output(&project, &output, now), None),
            Some(_) if !has_session => {
                let over = Err(NoLongerFollowed::NoSession);
                (reply::followed_output(&project, &output, now, over), None)
            }
            Some(time) => {
                let following = Following {
                    matrix: self.matrix.clone(),
                    policy: policy.clone(),
                    project: project.clone(),
                    user: user.clone(),
                    reader,
                    output,
                    until: now + time,
                    deadline: Instant::now() + time,
                    ended: self.note_follow(&project, &user),
                };
                (following.text(None), Some(Box::new(following)))
            }
        };
        let follow = excerpt.follow.filter(|_| following.is_some());
        let sent = reply::output_sent(&project, follow);
        let matrix = self.matrix.clone();
        self.spawn(async move {
            Event::Shown(Shown {
                result: deliver::show(&matrix, &user, &text, &policy, None).await,
                secret: Secret::Output(project),
                sent,
                request,
                following,
            })
        });
    }

    /// Registers a log that is followed; returns what ends that.
    fn note_follow(
        &mut self,
        project: &ProjectName,
        user: &UserId,
    ) -> oneshot::Receiver<NoLongerFollowed> {
        let (end, ended) = oneshot::channel();
        self.follows.retain(|_, follow| !follow.end.is_closed());
        let project = project.clone();
        self.follows
            .insert(user.to_owned(), Follow { project, end });
        ended
    }

    /// Ends those of this project. `None`: all.
    pub(super) fn end_follows(&mut self, of: Option<&ProjectName>, why: NoLongerFollowed) {
        let is_its = |follow: &Follow| of.is_none_or(|project| follow.project == *project);
        for (_, follow) in self.follows.extract_if(|_, follow| is_its(follow)) {
            follow.end(why);
        }
    }
}

/// The state of the task that follows a log.
#[derive(Debug)]
pub(super) struct Following {
    matrix: MatrixHandle,
    policy: Policy,
    project: ProjectName,
    user: OwnedUserId,
    reader: LogReader,
    /// What was read last.
    output: Output,
    /// When it ends, for people and for the task.
    until: SystemTime,
    deadline: Instant,
    ended: oneshot::Receiver<NoLongerFollowed>,
}

impl Following {
    /// Keeps a message up to date that was sent with the first text.
    pub(super) async fn keep_up_to_date(mut self: Box<Self>, sent: SentNotice) {
        let mut why = None;
        let mut next_edit = Instant::now() + EDITS_APART;
        while why.is_none() {
            let next_look = next_edit.max(Instant::now() + LOOKS_APART);
            tokio::select! {
                // If the bot ends, there may be no reason.
                said = &mut self.ended => why = Some(said.unwrap_or(NoLongerFollowed::BotEnds)),
                () = sleep_until(self.deadline) => why = Some(NoLongerFollowed::TimeUp),
                () = sleep_until(next_look) => {}
            }
            if why == Some(NoLongerFollowed::BotEnds) && Instant::now() < next_edit {
                return;
            }
            sleep_until(next_edit).await;
            if !self.has_more().await && why.is_none() {
                continue;
            }
            let (matrix, text) = (&self.matrix, self.text(why));
            let edited = deliver::show(matrix, &self.user, &text, &self.policy, Some(&sent));
            if let Err(reason) = edited.await {
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

    fn text(&self, over: Option<NoLongerFollowed>) -> Reply {
        let until = over.map_or(Ok(self.until), Err);
        reply::followed_output(&self.project, &self.output, SystemTime::now(), until)
    }
}

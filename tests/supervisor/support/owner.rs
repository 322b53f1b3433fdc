//! The owner of the sessions: handles what happens, delivers at once, and keeps all notices.

use std::{fmt::Write as _, time::Duration};

use rcbot::{
    link::Link,
    remote_control::{
        Beginning, DeliveryId, Notice, Notices, Outcome, Phase, Project, Redaction, RemoteControl,
        Request, SessionStatus, Settings,
    },
};
use tokio::time::{Instant, timeout};

use super::{DEADLINE, Sandbox, website};

/// An owner of sessions, of the project `website` where nothing else is said.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) remote_control: RemoteControl,
    /// What was delivered, in order.
    pub(crate) delivered: Vec<(DeliveryId, Request, Link)>,
    /// Every request that was answered with a link.
    pub(crate) answered: Vec<Request>,
    /// What was redacted, in order.
    pub(crate) redacted: Vec<Redaction>,
    /// All other notices, in order.
    pub(crate) notices: Vec<Notice>,
}

impl Owner {
    /// Restores what is in a sandbox, with one project.
    pub(crate) fn restore(sandbox: &Sandbox, project: Project) -> Self {
        Self::with(sandbox.settings([project]))
    }

    /// Restores with these settings.
    pub(crate) fn with(settings: Settings) -> Self {
        let (remote_control, notices) = RemoteControl::restore(settings, |_| None).unwrap();
        let mut owner = Self {
            remote_control,
            delivered: Vec::new(),
            answered: Vec::new(),
            redacted: Vec::new(),
            notices: Vec::new(),
        };
        owner.carry_out(notices);
        owner
    }

    /// Restores, and starts a session for Alice.
    pub(crate) fn starting(sandbox: &Sandbox, project: Project) -> Self {
        let mut owner = Self::restore(sandbox, project);
        owner.start("alice");
        owner
    }

    /// The same, and waits until she has its link.
    pub(crate) async fn with_session(sandbox: &Sandbox, project: Project) -> Self {
        let mut owner = Self::starting(sandbox, project);
        owner.link(0).await;
        owner
    }

    /// A user requests the link.
    pub(crate) fn start(&mut self, requester: &str) {
        self.begin(requester, Beginning::Fresh);
    }

    /// A user requests the link of a session with this beginning.
    pub(crate) fn begin(&mut self, requester: &str, beginning: Beginning) {
        let notices = self
            .remote_control
            .start(&website(), beginning, request(requester));
        self.carry_out(notices);
    }

    /// A user requests the end.
    pub(crate) fn stop(&mut self, requester: &str) {
        let notices = self.remote_control.stop(&website(), request(requester));
        self.carry_out(notices);
    }

    /// A user requests more time.
    pub(crate) fn extend(&mut self, requester: &str, by: Duration) {
        let notices = self
            .remote_control
            .extend(&website(), by, request(requester));
        self.carry_out(notices);
    }

    /// The status of the session.
    pub(crate) fn session(&self) -> Option<SessionStatus> {
        let [status] = &self.remote_control.status()[..] else {
            panic!("one project")
        };
        status.session.clone()
    }

    /// The phase of the session.
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.session().map(|session| session.phase)
    }

    /// Waits until so many links were delivered before, and returns the next one.
    pub(crate) async fn link(&mut self, before: usize) -> Link {
        self.until("a link", |owner| {
            owner.delivered.get(before).map(|(_, _, link)| link.clone())
        })
        .await
    }

    /// Waits until a session is over, and returns how it went. Each end is returned once.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        self.until("the end of a session", |owner| {
            let is_over = |notice: &Notice| matches!(notice, Notice::Over { .. });
            let index = owner.notices.iter().position(is_over)?;
            match owner.notices.remove(index) {
                Notice::Over { outcome, .. } => Some(outcome),
                _ => None,
            }
        })
        .await
    }

    /// Stops the session and returns how that went.
    pub(crate) async fn stop_and_wait(&mut self) -> Outcome {
        self.stop("carol");
        let outcome = self.outcome().await;
        self.forget_slow_stops();
        outcome
    }

    /// On a busy machine a stop may take so long that a notice comes first.
    pub(crate) fn forget_slow_stops(&mut self) {
        self.notices
            .retain(|notice| !matches!(notice, Notice::ShuttingDown(_)));
    }

    /// Handles what happens until `look` finds something.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(
                self.handle_next(DEADLINE).await,
                "not within {DEADLINE:?}: {what}. {}",
                self.describe()
            );
        }
    }

    /// Handles what happens until a condition holds that sends no report.
    pub(crate) async fn until_fact(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds() {
            let is_late = Instant::now() > deadline;
            assert!(
                !is_late,
                "not within {DEADLINE:?}: {what}. {}",
                self.describe()
            );
            self.handle_next(Duration::from_millis(5)).await;
        }
    }

    /// Handles one event, if one comes within this time. Returns whether it did.
    pub(crate) async fn handle_next(&mut self, within: Duration) -> bool {
        let Ok(happened) = timeout(within, self.remote_control.next()).await else {
            return false;
        };
        let notices = self.remote_control.handle(happened.unwrap());
        self.carry_out(notices);
        true
    }

    fn carry_out(&mut self, notices: Notices) {
        for (project, notice) in notices {
            match notice {
                Notice::Deliver { id, request, link } => {
                    self.delivered.push((id.clone(), request.clone(), link));
                    let answered = self.remote_control.requests(&id, &request);
                    self.answered.extend(answered);
                    let receipt = format!("receipt {}", id.number);
                    let more = self.remote_control.delivered(id, request, receipt);
                    self.carry_out(more);
                }
                Notice::Redact(redaction) => {
                    self.remote_control.redacted(&project, &redaction);
                    self.redacted.push(redaction);
                }
                other => self.notices.push(other),
            }
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("{:?}", self.remote_control.status());
        for notice in &self.notices {
            write!(text, "\n{notice:?}").unwrap();
        }
        text
    }
}

/// A request in this name.
pub(crate) fn request(requester: &str) -> Request {
    Request {
        requester: requester.to_owned(),
        reference: format!("asked by {requester}"),
    }
}

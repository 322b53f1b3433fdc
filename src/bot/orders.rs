//! What the operator on the host orders, carried out.

use std::time::Duration;

use matrix_sdk::ruma::OwnedUserId;
use tokio::time::timeout;
use tracing::warn;

use super::{
    Bot,
    audit::{self, Conclusion},
    connection::MatrixHandle,
    local::{Answer, Order, Ordered},
    reply_target::ReplyTarget,
};
use crate::{
    command::reply,
    config::MasterKey,
    matrix::{Chain, Fault, Matrix, NotAccepted},
    remote_control::{Notice, ProjectName, Request},
};

/// Who asks when the operator on the host does.
const OPERATOR: &str = "the operator on the host";

/// How long the operator waits for a homeserver that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Bot {
    pub(super) fn carry_out_order(&mut self, ordered: Ordered) {
        let Ordered { order, answer } = ordered;
        match order {
            Order::Stop(project) => self.stop_by_order(&project, answer),
            Order::Identity(user) => {
                let line = self.line.clone();
                self.spawn_quiet(tell_identity(line, user, answer));
            }
            Order::Trust(user, key) => {
                let line = self.line.clone();
                self.spawn_quiet(trust(line, user, key, answer));
            }
        }
    }

    fn stop_by_order(&mut self, project: &str, answer: Answer) {
        let Ok(project) = project.parse::<ProjectName>() else {
            let refusal = format!("{project:?} cannot name a project");
            return answer.give(&Err::<(), _>(refusal));
        };
        audit::ordered(OPERATOR, &project);
        let number = rand::random();
        self.stop_orders.insert(number, answer);
        let request = Request {
            requester: OPERATOR.to_owned(),
            reference: ReplyTarget::Operator(number).to_text(),
        };
        let notices = self.remote_control.stop(&project, request);
        if let [(project, Notice::NoSession(request))] = notices.as_slice() {
            let text = reply::nothing_to_stop(project);
            return self.answer(project, request, &text, &Conclusion::new("no session"));
        }
        self.handle(notices);
    }
}

async fn tell_identity(line: MatrixHandle, user: OwnedUserId, answer: Answer) {
    let told = with_homeserver(line, async |matrix: Matrix| matrix.identity(&user).await);
    answer.give(&told.await);
}

async fn trust(line: MatrixHandle, user: OwnedUserId, key: MasterKey, answer: Answer) {
    let told = with_homeserver(line, async |matrix: Matrix| {
        matrix.accept_identity(&user, key).await
    });
    let told = told.await;
    let outcome = match &told {
        Ok(Ok(())) => "accepted",
        Ok(Err(NotAccepted::Configured)) => "refused: the configuration names the key",
        Ok(Err(NotAccepted::NotShown)) => "refused: the homeserver shows another key",
        Err(_) => "failed",
    };
    audit::trusted(OPERATOR, &user, key, outcome);
    answer.give(&told);
}

/// What the homeserver tells, or why it does not, in words for the operator.
async fn with_homeserver<T>(
    mut line: MatrixHandle,
    ask: impl AsyncFnOnce(Matrix) -> Result<T, Fault>,
) -> Result<T, String> {
    let told = async { ask(line.matrix().await).await };
    match timeout(PATIENCE, told).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(fault)) => {
            warn!(error = %Chain(&fault), "an order of the operator failed");
            Err(Chain(&fault).to_string())
        }
        Err(_) => Err(format!(
            "the homeserver has not answered for {}",
            humantime::format_duration(PATIENCE)
        )),
    }
}

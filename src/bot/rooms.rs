//! What happens outside of the admin room: invitations, and talk.

use tracing::{info, warn};

use super::{Bot, connection::MatrixHandle, deliver};
use crate::{
    command::{
        Denied, Policy,
        authorize::authorize,
        reply,
        talk::{Remark, remark},
    },
    matrix::{Chain, Fault, Invitation, Matrix, Talk, Trust},
};

impl Bot {
    /// Decides about an invitation to another room: whoever may command may talk to the bot where they like.
    pub(super) fn consider(&mut self, invitation: Invitation) {
        let policy = self.queue.policy(None);
        self.spawn_quiet(decide(self.line.clone(), invitation, policy));
    }

    /// Answers what somebody says to the bot, and obeys nothing of it.
    pub(super) fn converse(&mut self, talk: Talk) {
        let remark = remark(&self.config.command_prefix, &talk.text);
        let is_answered = match remark {
            Remark::Help | Remark::Command => self.queue.count(&talk.sender).is_ok(),
            // People say thanks; once told, they know that nobody listens.
            Remark::Chat => self.queue.may_hint(&talk.sender),
        };
        if is_answered {
            let prefix = self.config.command_prefix.clone();
            self.spawn_quiet(answer(self.line.clone(), talk, remark, prefix));
        }
    }
}

async fn decide(mut line: MatrixHandle, invitation: Invitation, policy: Policy) {
    let matrix = line.matrix().await;
    if let Err(fault) = try_to_decide(&matrix, &invitation, &policy).await {
        let room = invitation.room();
        warn!(%room, error = %Chain(&fault), "invitation not decided about yet");
    }
}

async fn try_to_decide(
    matrix: &Matrix,
    invitation: &Invitation,
    policy: &Policy,
) -> Result<(), Fault> {
    let (room, inviter) = (invitation.room(), invitation.inviter());
    if !policy.authorization.lets(inviter) {
        // Whoever sends thousands costs the homeserver one request for each.
        matrix.decline(invitation).await?;
        info!(%room, %inviter, "invitation of a user who is not named declined");
        return Ok(());
    }
    let facts = matrix.room_facts(inviter).await?;
    // Nothing was sent by the inviter, so there is no encryption to judge.
    match authorize(inviter, Trust::CrossSigned, Some(&facts), policy) {
        Ok(_) => {
            matrix.accept(invitation).await?;
            info!(%room, %inviter, "invitation accepted");
        }
        // It waits for a better answer.
        Err(Denied::NoFacts) => {}
        Err(reason) => {
            matrix.decline(invitation).await?;
            info!(%room, %inviter, ?reason, "invitation declined");
        }
    }
    Ok(())
}

async fn answer(mut line: MatrixHandle, talk: Talk, remark: Remark, prefix: String) {
    let admin_room = line.matrix().await.name_of_admin_room();
    let text = match remark {
        Remark::Help => reply::help_outside(&prefix, &admin_room),
        Remark::Command => reply::not_here(&admin_room),
        Remark::Chat => reply::hint(&prefix, &admin_room),
    };
    deliver::reply(line, talk, text).await;
}

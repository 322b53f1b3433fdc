//! Invitations to other rooms than the admin room: each is shown to the bot, which decides, until it is accepted or declined.
//!
//! Invariant: a room is left by a plain request, never by the SDK, which leaves the rooms too that a room names as its
//! predecessors. Whoever invites the bot could name the admin room.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use matrix_sdk::{
    Room, RoomState,
    ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, api::client::membership::leave_room},
};
use matrix_sdk_base::RoomStateFilter;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::{Chain, Fault, Heard, Matrix};

/// How many invitations are under judgement at a time: whoever sends thousands waits for the rest.
const AT_A_TIME: usize = 4;

/// An invitation that is to be decided about. Dropped without a decision, it is looked at again after a later sync.
#[derive(Debug)]
pub struct Invitation {
    room: OwnedRoomId,
    inviter: OwnedUserId,
    pending: Arc<Pending>,
}

impl Invitation {
    /// To which room.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// Who invites the bot, says the homeserver.
    #[must_use]
    pub fn inviter(&self) -> &UserId {
        &self.inviter
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        let mut rooms = self.pending.rooms();
        if rooms.get(&self.room) == Some(&Stage::UnderJudgement) {
            rooms.remove(&self.room);
        }
    }
}

/// The invitations that were shown to the bot.
#[derive(Debug, Default)]
pub(super) struct Pending {
    rooms: Mutex<HashMap<OwnedRoomId, Stage>>,
    /// A sync may have brought that a room was left.
    synced: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    UnderJudgement,
    /// The next sync takes it from the list of invitations.
    Decided,
}

impl Pending {
    /// Whether an invitation is to be shown now; if so, it counts as shown.
    fn take(&self, room: &RoomId) -> bool {
        let mut rooms = self.rooms();
        let judged = rooms
            .values()
            .filter(|stage| **stage == Stage::UnderJudgement);
        if rooms.contains_key(room) || judged.count() >= AT_A_TIME {
            return false;
        }
        rooms.insert(room.to_owned(), Stage::UnderJudgement);
        true
    }

    fn decided(&self, room: &RoomId) {
        self.rooms().insert(room.to_owned(), Stage::Decided);
    }

    /// Forgets the decisions that have come about, so that a second invitation is a new one.
    fn keep(&self, invited: &[Room]) {
        self.rooms().retain(|room, stage| {
            *stage == Stage::UnderJudgement || invited.iter().any(|it| it.room_id() == room)
        });
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, Stage>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Matrix {
    /// Shows the bot the invitations that wait. To be called after each sync, and after the admin room was joined.
    pub(super) async fn show_invitations(&self) {
        let invited = self.client.invited_rooms();
        self.invitations.keep(&invited);
        for room in invited {
            let id = room.room_id();
            if self.admin_room.may_be(id) || !self.invitations.take(id) {
                continue;
            }
            match room.invite_details().await {
                Ok(details) => {
                    let invitation = Invitation {
                        room: id.to_owned(),
                        inviter: details.inviter_id,
                        pending: Arc::clone(&self.invitations),
                    };
                    self.inbox.hand_over(Heard::Invitation(invitation)).await;
                }
                // Nobody has invited the bot, so nobody who may.
                Err(error) => {
                    debug!(room = %id, %error, "invitation of nobody, declining");
                    self.invitations.decided(id);
                    if let Err(fault) = self.leave(id).await {
                        warn!(room = %id, error = %Chain(&fault), "invitation not declined");
                    }
                }
            }
        }
        self.invitations.synced.notify_one();
    }

    /// Forgets the rooms that the bot has left, after each sync, and never ends: the SDK keeps what it knows of each in memory
    /// and on disk, and whoever invites the bot would add one each time.
    pub(super) async fn forget_left_rooms(&self) -> Fault {
        let gone = RoomStateFilter::LEFT | RoomStateFilter::BANNED;
        let mut not_forgotten = HashSet::new();
        loop {
            self.invitations.synced.notified().await;
            let rooms = self.client.rooms_filtered(gone);
            not_forgotten.retain(|id| rooms.iter().any(|room| room.room_id() == *id));
            for room in rooms {
                let id = room.room_id();
                if self.admin_room.may_be(id) || not_forgotten.contains(id) {
                    continue;
                }
                if let Err(error) = room.forget().await {
                    let fault = Fault::from(error);
                    debug!(room = %id, error = %Chain(&fault), "a room that was left is not forgotten");
                    if fault.is_passing() || fault.is_logged_out() {
                        break;
                    }
                    // Not asked for at each sync, and at the next start once more.
                    not_forgotten.insert(id.to_owned());
                }
            }
        }
    }

    /// Joins the room, which is from now on the one in which its inviter talks to the bot; the bot leaves the one before.
    ///
    /// # Errors
    /// [`Fault`], if it may work later.
    pub async fn accept(&self, invitation: &Invitation) -> Result<(), Fault> {
        let Invitation { room, inviter, .. } = invitation;
        let theirs = &self.conversations.theirs;
        let before = theirs.get(inviter);
        // On disk before the bot is there, so that it knows after a crash what it does there.
        theirs.insert(inviter, room.clone())?;
        if let Err(error) = self.client.join_room_by_id(room).await {
            let fault = Fault::from(error);
            if fault.is_passing() || fault.is_logged_out() {
                return Err(fault);
            }
            warn!(%room, error = %Chain(&fault), "cannot join a room that the bot is invited to, declining");
            return self.decline(invitation).await;
        }
        self.invitations.decided(room);
        match before.filter(|before| before != room) {
            Some(before) => self.leave_for_another(&before).await,
            None => Ok(()),
        }
    }

    /// Declines an invitation. One that cannot be declined is let be.
    ///
    /// # Errors
    /// [`Fault`], if it may work later.
    pub async fn decline(&self, invitation: &Invitation) -> Result<(), Fault> {
        let room = &invitation.room;
        if let Err(fault) = self.leave(room).await {
            if fault.is_passing() || fault.is_logged_out() {
                return Err(fault);
            }
            warn!(%room, error = %Chain(&fault), "invitation cannot be declined");
        }
        self.invitations.decided(room);
        Ok(())
    }

    /// Leaves a room, or declines the invitation to it, and nothing else.
    pub(super) async fn leave(&self, room: &RoomId) -> Result<(), Fault> {
        let request = leave_room::v3::Request::new(room.to_owned());
        self.client.send(request).await?;
        Ok(())
    }

    /// There is one such room for each user, so that their number does not grow.
    async fn leave_for_another(&self, before: &RoomId) -> Result<(), Fault> {
        let state = self.client.get_room(before).map(|room| room.state());
        if state == Some(RoomState::Joined) && !self.admin_room.is(before) {
            self.leave(before).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{owned_user_id, room_id};

    use super::*;

    fn shown(pending: &Arc<Pending>, room: &RoomId) -> Option<Invitation> {
        pending.take(room).then(|| Invitation {
            room: room.to_owned(),
            inviter: owned_user_id!("@alice:x.y"),
            pending: Arc::clone(pending),
        })
    }

    #[test]
    fn an_invitation_is_shown_once_until_it_is_dropped_without_a_decision() {
        let pending = Arc::new(Pending::default());
        let room = room_id!("!a:x.y");
        let invitation = shown(&pending, room).unwrap();
        assert!(shown(&pending, room).is_none());
        drop(invitation);
        let invitation = shown(&pending, room).unwrap();
        pending.decided(room);
        drop(invitation);
        assert!(shown(&pending, room).is_none());
        pending.keep(&[]);
        assert!(shown(&pending, room).is_some(), "it is another invitation");
    }

    #[test]
    fn few_invitations_are_under_judgement_at_a_time() {
        let pending = Arc::new(Pending::default());
        let room = |number: usize| RoomId::parse(format!("!{number}:x.y")).unwrap();
        let mut all: Vec<_> = (0..10)
            .filter_map(|number| shown(&pending, &room(number)))
            .collect();
        assert_eq!(all.len(), AT_A_TIME);
        all.pop();
        assert!(shown(&pending, &room(10)).is_some());
    }
}

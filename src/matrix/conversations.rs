//! The rooms besides the admin room in which somebody talks to the bot: one that the bot made for them, in which it sends links,
//! and one to which they invited the bot. Nothing that is said there is a command.

use matrix_sdk::{
    RoomState,
    ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId},
};

use super::{Fault, Matrix, MatrixFolder, Notice, ReplyTo, Sound, folder::JsonMap};

/// How many rooms that the bot made before are kept for each person.
const MOST_REPLACED: usize = 8;

/// Which room is for talk with whom. Kept by ourselves, as `m.direct` is too easily wrong.
#[derive(Debug)]
pub(super) struct Conversations {
    /// The rooms that the bot made. Links go there alone.
    pub(super) ours: JsonMap<OwnedRoomId>,
    /// The rooms that the bot made before, and that were no longer fit for a link. Earlier links may stand there.
    replaced: JsonMap<Vec<OwnedRoomId>>,
    /// The rooms to which their users invited the bot.
    pub(super) theirs: JsonMap<OwnedRoomId>,
}

impl Conversations {
    pub(super) fn load(folder: &MatrixFolder) -> Result<Self, Fault> {
        Ok(Self {
            ours: folder.direct_messages()?,
            replaced: folder.replaced_direct_messages()?,
            theirs: folder.invited_to()?,
        })
    }

    /// Links to this user go to another room from now on.
    pub(super) fn replace(&self, user: &UserId, room: &RoomId) -> Result<(), Fault> {
        if let Some(before) = self.ours.get(user) {
            let mut replaced = self.replaced(user);
            replaced.push(before);
            let surplus = replaced.len().saturating_sub(MOST_REPLACED);
            self.replaced.insert(user, replaced.split_off(surplus))?;
        }
        self.ours.insert(user, room.to_owned())
    }

    /// The rooms to which links to this user went before.
    pub(super) fn replaced(&self, user: &UserId) -> Vec<OwnedRoomId> {
        self.replaced.get(user).unwrap_or_default()
    }

    /// Whether this is a room in which this user talks to the bot.
    pub(super) fn are_with(&self, user: &UserId, room: &RoomId) -> bool {
        let tables = [&self.ours, &self.theirs];
        tables
            .iter()
            .any(|table| table.get(user).is_some_and(|known| known == room))
    }
}

/// What somebody said to the bot outside of the admin room.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Who, says the homeserver.
    pub sender: OwnedUserId,
    /// The text, without the quotation that some clients put before a reply.
    pub text: String,
    pub(super) room: OwnedRoomId,
    pub(super) event_id: OwnedEventId,
}

impl Matrix {
    /// Answers where something was said, encrypted where that room is. What is said in a room that the bot has left is
    /// not answered.
    ///
    /// # Errors
    /// [`Fault`], when the homeserver did not take it.
    pub async fn reply(&self, talk: &Talk, notice: Notice<'_>) -> Result<(), Fault> {
        let room = self.client.get_room(&talk.room);
        let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
            return Ok(());
        };
        let mut content = notice.content(Sound::Silent);
        content.relates_to = Some(ReplyTo::event(talk.event_id.clone()).relation());
        self.send(&room, content, notice.transaction).await?;
        Ok(())
    }

    /// How people find the admin room: by its alias, if the configuration has one, else by an address that clients open.
    #[must_use]
    pub fn name_of_admin_room(&self) -> String {
        let configured = self.admin_room.configured();
        match (<&RoomAliasId>::try_from(configured), self.admin_room.id()) {
            (Ok(alias), _) => alias.to_string(),
            (Err(_), Some(id)) => id.matrix_to_uri().to_string(),
            (Err(id), None) => id.matrix_to_uri().to_string(),
        }
    }
}

//! What the bots of several hosts announce to one another: a state event of each in the admin room.
//!
//! Nothing is decided by it but who answers: whoever may send such events can silence a bot, and no more.

use std::collections::BTreeMap;

use matrix_sdk::{
    deserialized_responses::RawAnySyncOrStrippedState,
    ruma::{OwnedUserId, UserId, events::StateEventType, events::room::member::MembershipState},
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Fault, Matrix};

/// The type of the event. Its state key is the bot's user.
pub const HOST_EVENT: &str = "rcbot.host";

/// A host and what runs on it. Never a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// What people call the host.
    pub host: String,
    /// Its projects, by name.
    pub projects: BTreeMap<String, AnnouncedProject>,
}

/// A project of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedProject {
    /// Its session. `None`: it has none.
    pub session: Option<AnnouncedSession>,
}

/// A session of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedSession {
    /// What it is at, in a word.
    pub phase: String,
    /// When it was asked for, in seconds since 1970.
    pub since: u64,
}

#[derive(Deserialize)]
struct Event {
    sender: OwnedUserId,
    state_key: String,
    content: Announcement,
}

impl Matrix {
    /// What the other bots in the admin room announce, as the last sync has it.
    ///
    /// # Errors
    /// [`Fault`], where the store cannot be read or the bot is not in the room.
    pub async fn announcements(&self) -> Result<Vec<(OwnedUserId, Announcement)>, Fault> {
        let room = self.admin_room()?;
        let mut announcements = Vec::new();
        for event in room
            .get_state_events(StateEventType::from(HOST_EVENT))
            .await?
        {
            let RawAnySyncOrStrippedState::Sync(event) = event else {
                continue;
            };
            let Ok(event) = event.deserialize_as_unchecked::<Event>() else {
                debug!("an announcement makes no sense");
                continue;
            };
            let is_its_own = event.sender == event.state_key && event.sender != self.own_user();
            if is_its_own && self.is_in_admin_room(&event.sender).await? {
                announcements.push((event.sender, event.content));
            }
        }
        Ok(announcements)
    }

    /// Announces this host.
    ///
    /// # Errors
    /// [`Fault`]; `M_FORBIDDEN` where the bot may not send such events.
    pub async fn announce(&self, announcement: &Announcement) -> Result<(), Fault> {
        let content = serde_json::to_value(announcement).map_err(|source| Fault::Nonsense {
            request: "the announcement of this host",
            source,
        })?;
        self.admin_room()?
            .send_state_event_raw(HOST_EVENT, self.own_user().as_str(), content)
            .await?;
        Ok(())
    }

    async fn is_in_admin_room(&self, user: &UserId) -> Result<bool, Fault> {
        let member = self.admin_room()?.get_member_no_sync(user).await?;
        Ok(member.is_some_and(|member| *member.membership() == MembershipState::Join))
    }
}

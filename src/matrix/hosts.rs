//! How the bots of several hosts coordinate: each announces its host by a state event in the admin room. About single commands
//! they exchange signals, which are to-device events, so that nothing of them stays in the room.
//!
//! Both decide only which bot answers: a user who may send such state events can silence a bot, and no more.

use std::collections::BTreeMap;

use matrix_sdk::{
    deserialized_responses::{RawAnySyncOrStrippedState, TimelineEvent},
    ruma::{
        EventId, OwnedUserId, TransactionId, UserId,
        api::client::to_device::send_event_to_device,
        events::{StateEventType, room::member::MembershipState},
        serde::{Base64, Raw},
        to_device::DeviceIdOrAllDevices,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::debug;

use super::{Fault, HostSignal, Matrix, Signal, SignalKind, message::SIGNAL_EVENT};

/// The type of the event. Its state key is the bot's user.
pub(crate) const HOST_EVENT: &str = "rcbot.host";

/// How many projects another host can announce: more than any has, and few enough that the counts of all hosts can be added.
const MOST_COUNTED: usize = 1_000_000;

/// A host and what runs on it. Never a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub host: String,
    /// Its projects, by name: those with a session, and of the others as many as fit.
    pub projects: BTreeMap<String, AnnouncedProject>,
    /// How many of those that are not among them have a session. Zero, unless there are more sessions than fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_sessions: usize,
    /// The others, if there are any. Older bots take the named ones for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnamed: Option<AnnouncedNames>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Projects that are not announced one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnouncedNames {
    pub count: usize,
    /// Lets a bot that knows a name check whether it is one of these.
    pub digest: Base64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnouncedProject {
    pub session: Option<AnnouncedSession>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnouncedSession {
    /// Its phase, in a word.
    pub phase: String,
    /// When it was requested, in seconds since 1970.
    pub since: u64,
}

/// An announcement with the bot that made it. An event of one user about another is invalid.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StateEvent")]
pub(crate) struct HostEvent {
    pub bot: OwnedUserId,
    pub announcement: Announcement,
}

/// The event before it is checked.
#[derive(Deserialize)]
struct StateEvent {
    sender: OwnedUserId,
    state_key: String,
    content: Announcement,
}

impl TryFrom<StateEvent> for HostEvent {
    type Error = &'static str;

    fn try_from(event: StateEvent) -> Result<Self, Self::Error> {
        if event.sender != event.state_key {
            return Err("its sender speaks for another user");
        }
        let unnamed = event.content.unnamed.as_ref();
        let unnamed = unnamed.map_or(0, |it| it.count);
        if event.content.more_sessions.max(unnamed) > MOST_COUNTED {
            return Err("it counts more projects than a host can have");
        }
        Ok(Self {
            bot: event.sender,
            announcement: event.content,
        })
    }
}

/// The claim that a reply implies, if its sender is the bot of a host. `None`: it is not a reply. Its key is not needed.
pub(super) fn claim_of_answer(event: &TimelineEvent) -> Option<HostSignal> {
    let content: Value = event.raw().get_field("content").ok()??;
    let about = content.pointer("/m.relates_to/m.in_reply_to/event_id")?;
    let content = Signal {
        about: EventId::parse(about.as_str()?).ok()?.to_string(),
        kind: SignalKind::Claim,
    };
    let bot = event.raw().get_field("sender").ok()??;
    Some(HostSignal { bot, content })
}

impl Matrix {
    /// The announcements of the other bots in the admin room, as of the last sync.
    /// Fails where the store cannot be read or the bot is not in the room.
    pub(crate) async fn announcements(&self) -> Result<Vec<(OwnedUserId, Announcement)>, Fault> {
        let room = self.joined_admin_room()?;
        let mut announcements = Vec::new();
        let events = room.get_state_events(HOST_EVENT.into()).await?;
        for event in events {
            let RawAnySyncOrStrippedState::Sync(event) = event else {
                continue;
            };
            let Ok(event) = event.deserialize_as_unchecked::<HostEvent>() else {
                debug!("an announcement is invalid");
                continue;
            };
            if event.bot != self.own_user() && self.is_in_admin_room(&event.bot).await? {
                announcements.push((event.bot, event.announcement));
            }
        }
        Ok(announcements)
    }

    /// Fails with `M_FORBIDDEN` where the bot may not send such events.
    pub(crate) async fn announce(&self, announcement: &Announcement) -> Result<(), Fault> {
        let content = serde_json::to_value(announcement)?;
        self.joined_admin_room()?
            .send_state_event_raw(HOST_EVENT, self.own_user().as_str(), content)
            .await?;
        Ok(())
    }

    /// Sends a signal to these bots. It is not retried: a late one is of no use.
    /// Fails when the homeserver did not take it.
    pub(crate) async fn signal_hosts(
        &self,
        bots: impl IntoIterator<Item = OwnedUserId>,
        signal: &Signal,
    ) -> Result<(), Fault> {
        let content = Raw::new(signal)?.cast_unchecked();
        // A bot has one device, whose id the other bots need not know.
        let devices = BTreeMap::from([(DeviceIdOrAllDevices::AllDevices, content)]);
        let messages = bots.into_iter().map(|bot| (bot, devices.clone()));
        let request = send_event_to_device::v3::Request::new_raw(
            SIGNAL_EVENT.into(),
            TransactionId::new(),
            messages.collect(),
        );
        self.client.send(request).await?;
        Ok(())
    }

    /// Whether a user is the bot of a host, by the announcements in the room.
    pub(super) async fn is_host(&self, user: &UserId) -> Result<bool, Fault> {
        if user == self.own_user() {
            return Ok(true);
        }
        let room = self.joined_admin_room()?;
        let announced = room.get_state_event(StateEventType::from(HOST_EVENT), user.as_str());
        Ok(announced.await?.is_some() && self.is_in_admin_room(user).await?)
    }

    async fn is_in_admin_room(&self, user: &UserId) -> Result<bool, Fault> {
        let member = self.joined_admin_room()?.get_member_no_sync(user).await?;
        Ok(member.is_some_and(|member| *member.membership() == MembershipState::Join))
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reply_is_a_claim_in_a_thread_and_encrypted_too_and_nothing_else_is_one() {
        let claim = |content: serde_json::Value| {
            let event =
                json!({ "type": "m.room.encrypted", "sender": "@rcbot:x.y", "content": content });
            let event = Raw::new(&event).unwrap().cast_unchecked();
            claim_of_answer(&TimelineEvent::from_plaintext(event))
        };
        let thread = json!({
            "rel_type": "m.thread", "event_id": "$root", "m.in_reply_to": { "event_id": "$asked" },
        });
        for relation in [json!({ "m.in_reply_to": { "event_id": "$asked" } }), thread] {
            let claim = claim(json!({ "m.relates_to": relation })).unwrap();
            assert_eq!(claim.bot, user_id!("@rcbot:x.y"));
            assert_eq!(claim.content.about, "$asked");
            assert_eq!(claim.content.kind, SignalKind::Claim);
        }
        let edit = json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$asked" } });
        for other in [edit, json!({ "body": "hello" }), json!([])] {
            assert_eq!(claim(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn only_its_own_bot_announces_a_host() {
        let read = |state_key: &str| {
            serde_json::from_value::<HostEvent>(json!({
                "type": HOST_EVENT,
                "sender": "@rcbot:x.y",
                "state_key": state_key,
                "content": { "host": "build1", "projects": {} },
            }))
        };
        let event = read("@rcbot:x.y").unwrap();
        assert_eq!(event.bot, user_id!("@rcbot:x.y"));
        assert_eq!(event.announcement.host, "build1");
        for other in ["@another:x.y", "@rcbot:x.y2", ""] {
            assert!(read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn counts_of_other_hosts_can_be_added() {
        let read = |more_sessions: u64, count: u64| {
            serde_json::from_value::<HostEvent>(json!({
                "sender": "@rcbot:x.y",
                "state_key": "@rcbot:x.y",
                "content": {
                    "host": "build1",
                    "projects": {},
                    "more_sessions": more_sessions,
                    "unnamed": { "count": count, "digest": "" },
                },
            }))
        };
        assert_eq!(read(7, 5_000).unwrap().announcement.more_sessions, 7);
        for (more_sessions, count) in [(u64::MAX, 0), (0, u64::MAX), (0, 1 << 53)] {
            assert!(read(more_sessions, count).is_err());
        }
    }
}

//! A person's sync loop: collects every event of every room in one list, applies late keys, and accepts invitations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use matrix_sdk::{
    Client,
    config::SyncSettings,
    deserialized_responses::TimelineEvent,
    ruma::{
        OwnedRoomId,
        api::client::filter::{FilterDefinition, RoomEventFilter, RoomFilter},
        assign,
        events::{AnyGlobalAccountDataEvent, AnySyncTimelineEvent},
        serde::Raw,
        uint,
    },
};
use serde_json::Value;
use tokio::sync::watch;

use super::event::{Event, undecrypted};

/// The type of the account data that marks how far a person's client has synced.
pub(crate) const MARK: &str = "rcbot.test.mark";

/// How long the server may hold a sync back when nothing happens.
const LONG_POLL: Duration = Duration::from_secs(30);

/// How long to wait after a failed request: the homeserver is down, or its answer to an invitation raced with the join.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How often a join is tried: a server sometimes refuses the first, right after the invitation.
const JOIN_ATTEMPTS: usize = 5;

/// Syncs a client and collects all events of its user's rooms.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(super) client: Client,
    pub(super) events: watch::Sender<Vec<Event>>,
    /// The last mark that came with or before the events.
    pub(super) mark: watch::Sender<String>,
    pub(super) joins_invitations: Arc<AtomicBool>,
    pub(super) undecrypted: Vec<(OwnedRoomId, Raw<AnySyncTimelineEvent>)>,
}

impl Listener {
    /// Syncs forever. The SDK's own loop would sleep a second whenever two answers come within one.
    pub(crate) async fn run(mut self) {
        loop {
            if self.sync_once(LONG_POLL).await.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Syncs once, with this long-poll timeout.
    pub(crate) async fn sync_once(&mut self, timeout: Duration) -> matrix_sdk::Result<()> {
        let timeline = assign!(RoomEventFilter::default(), { limit: Some(uint!(100)) });
        let filter = assign!(FilterDefinition::default(), { room: assign!(RoomFilter::default(), { timeline }) });
        let settings = SyncSettings::new().timeout(timeout).filter(filter.into());
        let response = self.client.sync_once(settings).await?;
        for (room, update) in response.rooms.joined {
            for event in update.timeline.events {
                self.add(&room, &event);
            }
        }
        for (room, update) in response.rooms.left {
            for event in update.timeline.events {
                self.add(&room, &event);
            }
        }
        self.decrypt_late().await;
        // Also without events: callers that wait for keys or members look again.
        self.events.send_modify(|_| ());
        let mut marks = response.account_data.iter().rev();
        if let Some(mark) = marks.find_map(mark_in) {
            self.mark.send_replace(mark);
        }
        if self.joins_invitations.load(Ordering::Relaxed) {
            for room in response.rooms.invited.keys() {
                self.join(room).await;
            }
        }
        Ok(())
    }

    fn add(&mut self, room: &OwnedRoomId, event: &TimelineEvent) {
        if let Some(raw) = undecrypted(event) {
            self.undecrypted.push((room.clone(), raw.clone()));
        }
        let Some(event) = Event::from_timeline(room.clone(), event) else {
            return;
        };
        self.events.send_modify(|events| {
            match events.iter_mut().find(|known| known.id == event.id) {
                Some(known) => *known = event,
                None => events.push(event),
            }
        });
    }

    /// Retries events that could not be decrypted: keys may come after them.
    async fn decrypt_late(&mut self) {
        for (room_id, raw) in std::mem::take(&mut self.undecrypted) {
            let Some(room) = self.client.get_room(&room_id) else {
                continue;
            };
            match room.decrypt_event(raw.cast_ref_unchecked(), None).await {
                Ok(event) => self.add(&room_id, &event),
                Err(_) => self.undecrypted.push((room_id, raw)),
            }
        }
    }

    async fn join(&self, room: &OwnedRoomId) {
        for _ in 0..JOIN_ATTEMPTS {
            if self.client.join_room_by_id(room).await.is_ok() {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

fn mark_in(event: &Raw<AnyGlobalAccountDataEvent>) -> Option<String> {
    let is_mark = event.get_field::<String>("type").ok()?? == MARK;
    let content = is_mark.then(|| event.get_field::<Value>("content"))?;
    Some(content.ok()??.get("mark")?.as_str()?.to_owned())
}

//! What a sync brought, handed to the inbox in the order in which it was said, with what the sync left out.
//!
//! A homeserver brings the latest events of a room alone when there are many, a hundred at most as a rule. Whoever floods the
//! admin room would push a command out of that, as would people who talk while the bot is away. So the rest is asked for.

use matrix_sdk::{
    Room, RoomMemberships, RoomState,
    deserialized_responses::TimelineEvent,
    room::MessagesOptions,
    ruma::{
        Int, OwnedUserId,
        api::client::filter::RoomEventFilter,
        events::{TimelineEventType, room::power_levels::UserPowerLevel},
    },
    store::{StateStoreDataKey, StateStoreDataValue, StoreError},
    sync::{SyncResponse, Timeline},
};
use tracing::{info, warn};

use super::{Chain, Fault, Matrix};

/// How many events a sync is to bring of a room. Synapse brings no more, whatever is asked for (`filter_timeline_limit`).
pub(super) const EVENTS_OF_A_ROOM: u32 = 100;

/// How many requests are made for what one sync left out, for [`EVENTS_OF_A_ROOM`] each: whoever may command can say a thousand
/// things at once, and make the bot miss what was said before.
const REQUESTS: usize = 10;

/// Where the bot stood before a sync.
#[derive(Debug)]
pub(super) struct Standpoint {
    /// The token of the sync before. `None`: there was none.
    token: Result<Option<String>, StoreError>,
    /// The admin room, if the bot was in it. What was said before that was not said to the bot.
    room: Option<Room>,
}

impl Matrix {
    /// To be asked for before a sync.
    pub(super) async fn standpoint(&self) -> Standpoint {
        let store = self.client.state_store();
        let stored = store.get_kv_data(StateStoreDataKey::SyncToken).await;
        Standpoint {
            token: stored.map(|stored| stored.and_then(StateStoreDataValue::into_sync_token)),
            room: self.joined_admin_room().ok(),
        }
    }

    /// Hears what a sync brought. Waits while the bot has more to do than may wait.
    pub(super) async fn hear(&self, answer: &SyncResponse, before: &Standpoint) {
        for (id, update) in &answer.rooms.joined {
            let room = self.client.get_room(id);
            let Some(room) = room.filter(|room| room.state() == RoomState::Joined) else {
                continue;
            };
            if let Some(latest) = update.timeline.events.last() {
                self.inbox.compare_clocks(latest);
            }
            if update.timeline.limited && before.room.as_ref().is_some_and(|it| it.room_id() == id)
            {
                self.hear_left_out(&room, &update.timeline, before).await;
            }
            for event in &update.timeline.events {
                self.inbox.hear(event, &room).await;
            }
        }
        self.inbox.hear_late(&self.client).await;
    }

    async fn hear_left_out(&self, room: &Room, timeline: &Timeline, before: &Standpoint) {
        let since = match &before.token {
            Ok(since) => since,
            Err(error) => {
                warn!(room = %room.room_id(), error = %Chain(error), "commands may be lost: a sync left events out, and the store does not tell since when");
                return;
            }
        };
        let (Some(since), Some(until)) = (since, &timeline.prev_batch) else {
            return;
        };
        match self.left_out(room, since, until).await {
            Ok(events) => {
                info!(room = %room.room_id(), events = events.len(), "a sync left events of the admin room out, and they were asked for");
                for event in &events {
                    self.inbox.hear(event, room).await;
                }
            }
            Err(fault) => {
                warn!(room = %room.room_id(), error = %Chain(&fault), "commands may be lost: a sync left events out, and the homeserver does not give them");
            }
        }
    }

    /// The events between two tokens, the oldest first. Some homeservers know no such end and no filter, and go back to the
    /// beginning of the room: so nothing is asked for beyond a command that was obeyed.
    async fn left_out(
        &self,
        room: &Room,
        since: &str,
        until: &str,
    ) -> Result<Vec<TimelineEvent>, Fault> {
        let filter = self.worth_asking_for(room).await?;
        let mut until = until.to_owned();
        let mut events = Vec::new();
        for _ in 0..REQUESTS {
            let mut options = MessagesOptions::backward().from(&*until);
            options.to = Some(since.to_owned());
            options.limit = EVENTS_OF_A_ROOM.into();
            options.filter = filter.clone();
            let page = room.messages(options).await?;
            let is_last = page.chunk.is_empty()
                || page.chunk.iter().any(|event| self.inbox.has_counted(event));
            events.extend(page.chunk);
            match page.end {
                Some(end) if !is_last => until = end,
                _ => {
                    events.reverse();
                    return Ok(events);
                }
            }
        }
        warn!(room = %room.room_id(), "commands may be lost: more was said at once than the bot asks for");
        events.reverse();
        Ok(events)
    }

    /// What those may have said who have the power to command, as far as the bot knows: a flood comes from others. Who may
    /// command is decided later, by what the homeserver says then.
    async fn worth_asking_for(&self, room: &Room) -> Result<RoomEventFilter, Fault> {
        let mut filter = RoomEventFilter::default();
        let types = [
            TimelineEventType::RoomMessage,
            TimelineEventType::RoomEncrypted,
        ];
        filter.types = Some(types.map(|kind| kind.to_string()).into());
        filter.not_senders = vec![self.own_user().to_owned()];
        // Without the levels anybody may be of those.
        if let Ok(levels) = room.power_levels().await {
            let needs = UserPowerLevel::Int(Int::new_saturating(self.config.least_power_level()));
            let authorization = &self.config.authorization;
            let members = room.members_no_sync(RoomMemberships::JOIN).await?;
            let members = members.iter().map(|member| member.user_id().to_owned());
            let powerful: Vec<OwnedUserId> = members
                .filter(|user| authorization.lets(user) && levels.for_user(user) >= needs)
                .collect();
            filter.senders = Some(powerful);
        }
        Ok(filter)
    }
}

//! Forged answers to /sync, and the events in them, which can be requested one by one.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use regex::Regex;
use serde_json::Value;
use tokio::sync::Notify;

/// Marks our sync tokens, behind the homeserver's own token.
const MARK: &str = "forged";

/// The answers for the bot's next requests.
#[derive(Default)]
pub(super) struct Injections {
    parts: Mutex<VecDeque<Value>>,
    added: Notify,
    tokens: AtomicUsize,
    /// By the path of their request.
    events: Mutex<HashMap<String, Value>>,
}

impl Injections {
    pub(super) fn add(&self, part: Value) {
        self.show_events(&part);
        self.parts.lock().unwrap().push_back(part);
        self.added.notify_one();
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn next(&self) -> Value {
        loop {
            let part = self.parts.lock().unwrap().pop_front();
            if let Some(part) = part {
                return part;
            }
            self.added.notified().await;
        }
    }

    /// A sync token that follows this one. Clients ignore an answer with a token that they have already.
    pub(super) fn token(&self, since: &str) -> String {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        format!("{}{MARK}{number}", Self::honest(since))
    }

    /// The text with the homeserver's own token in place of ours.
    pub(super) fn honest(text: &str) -> Cow<'_, str> {
        static SUFFIX: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(&format!("{MARK}[0-9]+")).unwrap());
        SUFFIX.replace(text, "")
    }

    /// The injected event that is requested at this path.
    pub(super) fn event(&self, path: &str) -> Option<Value> {
        self.events.lock().unwrap().get(path).cloned()
    }

    fn show_events(&self, part: &Value) {
        let rooms = part.pointer("/rooms/join").and_then(Value::as_object);
        for (room, update) in rooms.into_iter().flatten() {
            let events = update.pointer("/timeline/events").and_then(Value::as_array);
            for event in events.into_iter().flatten() {
                let mut event = event.clone();
                event["room_id"] = room.clone().into();
                let id = event["event_id"].as_str().unwrap();
                let path = format!("/_matrix/client/v3/rooms/{room}/event/{id}");
                self.events.lock().unwrap().insert(path, event);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.lock().unwrap().is_empty()
    }
}

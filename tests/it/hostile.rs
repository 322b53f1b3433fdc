//! A malicious homeserver gets no session and no link, and does not stop the bot.

/// Forged and replayed commands.
mod commands;

/// False members and state of rooms.
mod direct_messages;

/// Devices and identities that are not the user's own.
mod identities;

/// Malformed answers.
mod nonsense;

use matrix_sdk::ruma::OwnedEventId;

use crate::support::prelude::*;

/// How many sessions the bot has started, including those that ended before their process could do anything.
pub(super) fn sessions(bot: &Bot) -> usize {
    bot.log().matches("session starting").count()
}

/// No session was started; and once the homeserver is honest again, the bot serves.
async fn assert_unharmed(bot: &Bot, proxy: &Proxy, alice: &Person) {
    assert_eq!(sessions(bot), 0);
    assert!(bot.links_of(alice).is_empty());
    proxy.be_honest();
    bot.start_session(alice, "website").await;
    assert_eq!(bot.standin_starts(), 1);
}

/// The bot's answer to an event that the homeserver has never seen.
pub(super) async fn answer_to(bot: &Bot, alice: &Person, forged: &Value) -> Event {
    let id: OwnedEventId = forged["event_id"].as_str().unwrap().try_into().unwrap();
    bot.answer(alice, &id).await
}

/// Removes the encryption event of these rooms from an answer to /sync.
fn without_encryption(answer: &mut Value, of: impl Fn(&str) -> bool) {
    let rooms = answer
        .pointer_mut("/rooms/join")
        .and_then(Value::as_object_mut);
    for (_, room) in rooms.into_iter().flatten().filter(|(id, _)| of(id)) {
        for part in ["/state/events", "/timeline/events"] {
            if let Some(events) = room.pointer_mut(part) {
                without_encryption_event(events);
            }
        }
    }
}

/// Removes the encryption event from these events.
fn without_encryption_event(events: &mut Value) {
    if let Some(events) = events.as_array_mut() {
        events.retain(|event| event["type"] != "m.room.encryption");
    }
}

//! What is heard, and what is dropped.

use std::path::Path;

use matrix_sdk::ruma::{owned_user_id, room_id};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::matrix::MatrixFolder;

/// The inbox of a bot with its files in this folder, which logged in at this time.
fn inbox(
    folder: &Path,
    logged_in: SystemTime,
    store_is_new: bool,
) -> (Inbox, mpsc::Receiver<Heard>) {
    let text = json!({
        "homeserver": { "url": "http://127.0.0.1", "server_name": "x.y" },
        "admin_room": "!admins:x.y",
        "projects": { "website": { "directory": folder } },
    });
    let config = Config::from_text(&folder.join("config.yaml"), &text.to_string()).unwrap();
    let matrix = MatrixFolder::new(folder.to_owned());
    let room = config.admin_room.clone();
    let admin_room = AdminRoom::load(&matrix, room, logged_in, store_is_new).unwrap();
    let obeyed = Obeyed::load(matrix.obeyed(), config.max_command_age).unwrap();
    let direct_messages = DirectMessages::load(&matrix).unwrap();
    let (heard, waiting) = mpsc::channel(1);
    let inbox = Inbox::new(
        &Arc::new(config),
        &Arc::new(admin_room),
        &Arc::new(direct_messages),
        &Arc::new(obeyed),
        heard,
    );
    (inbox, waiting)
}

/// A command, sent at this time and of this age, in milliseconds.
fn command(id: &str, sent: SystemTime, age: Option<u64>) -> OriginalSyncRoomMessageEvent {
    let event: Value = json!({
        "type": "m.room.message",
        "event_id": id,
        "sender": "@alice:x.y",
        "origin_server_ts": MilliSecondsSinceUnixEpoch::from_system_time(sent),
        "content": { "msgtype": "m.text", "body": "!rc start" },
        "unsigned": age.map_or_else(|| json!({}), |age| json!({ "age": age })),
    });
    serde_json::from_value(event).unwrap()
}

#[test]
fn a_command_that_an_earlier_run_obeyed_is_not_heard_again() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = command("$first", now, Some(0));
    let (run, _waiting) = inbox(folder.path(), SystemTime::UNIX_EPOCH, false);
    assert!(run.accept(&first, now).is_ok());
    assert_eq!(run.accept(&first, now).unwrap_err(), Dropped::SeenBefore);
    run.obeyed.insert(&first.event_id, None, now).unwrap();
    let (run, _waiting) = inbox(folder.path(), SystemTime::UNIX_EPOCH, false);
    assert_eq!(run.accept(&first, now).unwrap_err(), Dropped::SeenBefore);
    assert!(run.accept(&command("$second", now, Some(0)), now).is_ok());
}

#[test]
fn a_new_store_hears_nothing_of_before_its_log_in_whatever_the_clocks_say() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let logged_in = now - Duration::from_secs(10);
    // A minute behind ours.
    let homeserver = now - Duration::from_mins(1);
    let said = |seconds| {
        let ago = Duration::from_secs(seconds);
        command("$event", homeserver - ago, Some(seconds * 1_000))
    };
    for store_is_new in [true, false] {
        let (inbox, _waiting) = inbox(folder.path(), logged_in, store_is_new);
        // The bot is in the room for long.
        let joined = SystemTime::UNIX_EPOCH;
        inbox
            .admin_room
            .enter(room_id!("!admins:x.y"), joined)
            .unwrap();
        let before = inbox.accept(&said(20), now);
        assert_eq!(before.is_ok(), !store_is_new);
        let (inbox, _waiting) = self::inbox(folder.path(), logged_in, store_is_new);
        inbox
            .admin_room
            .enter(room_id!("!admins:x.y"), joined)
            .unwrap();
        assert!(inbox.accept(&said(5), now).is_ok());
    }
}

#[tokio::test]
async fn what_the_bot_should_know_is_not_lost_while_too_much_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (inbox, mut waiting) = inbox(folder.path(), SystemTime::now(), false);
    inbox.hand_over(Heard::AdminRoomMoved).await;
    let user = owned_user_id!("@alice:x.y");
    let later = inbox.hand_over(Heard::IdentityChanged { user });
    let both = async { (waiting.recv().await, waiting.recv().await) };
    let both = async { tokio::join!(later, both).1 };
    let both = timeout(Duration::from_secs(30), both).await;
    assert!(
        matches!(
            both,
            Ok((
                Some(Heard::AdminRoomMoved),
                Some(Heard::IdentityChanged { .. })
            ))
        ),
        "{both:?}"
    );
}

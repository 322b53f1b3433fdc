//! Messages between people and the bot, and the assertions on where a link may be.

use std::collections::BTreeSet;

use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::block_in_place};

use super::{bot::Bot, event::Event, eventually, person::Person, says::Says as _, until};

/// A part of every link of the stand-in, and of no other text.
const LINK_MARK: &str = "_01Link";

/// A message with a link, as the requester's client shows it.
#[derive(Debug, Clone)]
pub(crate) struct LinkMessage {
    pub(crate) event: Event,
    /// The link in it, which is the one that the stand-in printed last.
    pub(crate) link: String,
}

impl LinkMessage {
    /// The direct message that it is in.
    pub(crate) fn room(&self) -> &OwnedRoomId {
        &self.event.room
    }
}

impl AsRef<Event> for LinkMessage {
    fn as_ref(&self) -> &Event {
        &self.event
    }
}

impl Bot {
    /// Sends a command, without the prefix, to the admin room and returns the bot's answer to it.
    pub(crate) async fn request(&self, person: &Person, command: &str) -> Event {
        let asked = self.send(person, command).await;
        self.answer(person, &asked).await
    }

    /// Sends a command, and asserts that `part` is in the answer.
    pub(crate) async fn says(&self, person: &Person, command: &str, part: &str) -> Event {
        let answer = self.request(person, command).await;
        answer.says(part);
        answer
    }

    /// Asserts that `website` is the only project and has no session.
    pub(crate) async fn assert_no_session(&self, person: &Person) {
        let answer = self.request(person, "status").await;
        answer.is("website: no session");
    }

    /// Sends a command, without the prefix, to the admin room and does not wait for an answer. A bot that is there can
    /// read it.
    pub(crate) async fn send(&self, person: &Person, command: &str) -> OwnedEventId {
        self.wait_until_known_to(person).await;
        let text = format!("!rc {command}");
        let sent = person.send_text(self.admin_room(), &text).await;
        sent.unwrap()
    }

    /// Edits an earlier message in the admin room into a command, encrypted where the room is. The fallback text has no star
    /// before it, so the edit looks like a message.
    pub(crate) async fn edit(
        &self,
        person: &Person,
        message: &OwnedEventId,
        command: &str,
    ) -> OwnedEventId {
        let text = format!("!rc {command}");
        let content = json!({
            "msgtype": "m.text",
            "body": text,
            "m.new_content": { "msgtype": "m.text", "body": text },
            "m.relates_to": { "rel_type": "m.replace", "event_id": message },
        });
        let room = person.room(self.admin_room());
        let sent = room.send_raw("m.room.message", content).await;
        sent.unwrap().response.event_id
    }

    /// The bot's answer to a message in the admin room. Asserts what holds for all answers: a notice, encrypted where the room
    /// is, with no warning beside it and no link in it. Passes over the notice that a session is still shutting down.
    pub(crate) async fn answer(&self, person: &Person, asked: &OwnedEventId) -> Event {
        let what = format!("the bot's answer to {asked}");
        let answer = person
            .sees(&what, |event| {
                self.said(event)
                    && event.replies_to() == Some(asked.as_str())
                    && !event.text().contains(" is shutting down: ")
            })
            .await;
        self.check_answer(person, &answer);
        answer
    }

    /// The lines of the audit log about an event, without the event and the time.
    pub(crate) fn audit(&self, event: &OwnedEventId) -> Vec<String> {
        let event = format!(" event=\"{event}\"");
        let log = self.log();
        let lines = log.lines().filter_map(|it| it.split_once(" INFO audit: "));
        let lines = lines.map(|(_, line)| line);
        let lines = lines.filter(|line| line.contains(&event));
        lines.map(|line| line.replace(&event, "")).collect()
    }

    /// What the bot has decided about a message, by its audit log: not every message is answered.
    pub(crate) async fn decision(&self, asked: &OwnedEventId) -> String {
        eventually("the command is judged", async || {
            let mut lines = self.audit(asked).into_iter();
            lines.find(|line| line.starts_with("command judged"))
        })
        .await
    }

    /// Waits until the bot has refused a command for this reason.
    pub(crate) async fn wait_for_refusal(&self, asked: &OwnedEventId, why: &str) {
        let judged = self.decision(asked).await;
        let refused = format!("decision=\"denied\" why=\"{why}\"");
        assert!(judged.contains(&refused), "{judged}");
    }

    /// A message of the bot in the admin room that is no answer; `part` is in it.
    pub(crate) async fn announcement(&self, person: &Person, part: &str) -> Event {
        let what = format!("the bot's announcement with {part:?}");
        let announcement = person
            .sees(&what, |event| {
                self.said(event) && event.replies_to().is_none() && event.text().contains(part)
            })
            .await;
        self.check_answer(person, &announcement);
        announcement
    }

    /// Asks for a session and returns the message with its link, after [`Self::link_after`]'s checks.
    pub(crate) async fn start_session(&self, person: &Person, project: &str) -> LinkMessage {
        let known = self.links_of(person).len();
        let answer = self.request(person, &format!("start {project}")).await;
        let new = format!("{project} is running. The link is in our direct message.");
        let known_before =
            format!("{project} is already running. Its link is in our direct message again.");
        let said = answer.body().unwrap();
        let short = said.strip_suffix(" Accept my invitation to it.");
        let short = short.unwrap_or(said);
        assert!(short == new || short == known_before, "{said}");
        self.link_after(person, known).await
    }

    /// The link that comes to this person after `known` others. Asserts that it is what the stand-in printed, in an encrypted
    /// room of only the bot and this person, and nowhere else.
    pub(crate) async fn link_after(&self, person: &Person, known: usize) -> LinkMessage {
        let event = eventually("a link in the direct message", async || {
            self.links_of(person).get(known).cloned()
        })
        .await;
        let link = self.printed_link().expect("a stand-in was started");
        self.check_link(person, &event, &link).await;
        self.check_absence(person, &link);
        LinkMessage { event, link }
    }

    /// All messages of the bot with a link that this person's client has shown, also redacted ones.
    pub(crate) fn links_of(&self, person: &Person) -> Vec<Event> {
        let mut events = person.events();
        events.retain(|event| {
            event.sender == self.user_id() && event.json.to_string().contains(LINK_MARK)
        });
        events
    }

    /// A message of the bot to this person in their direct message; `part` is in it.
    pub(crate) async fn private_message(&self, person: &Person, part: &str) -> Event {
        let what = format!("the bot's private word with {part:?}");
        let word = person
            .sees(&what, |event| {
                event.sender == self.user_id()
                    && event.room != self.admin_room()
                    && event.text().contains(part)
            })
            .await;
        assert_eq!(word.shield(), "none");
        word
    }

    /// Waits until the bot has redacted a message, and checks that the homeserver has nothing left of it.
    pub(crate) async fn wait_for_redaction(&self, person: &Person, message: &impl AsRef<Event>) {
        let message = message.as_ref();
        let redaction = person
            .sees("the message being redacted", |event| {
                event.redacts() == Some(message.id.as_str())
            })
            .await;
        assert_eq!(redaction.sender, self.user_id());
        let stored = person.stored(message).await;
        assert_eq!(stored["content"], json!({}), "{stored}");
    }

    /// Waits until no process of a session is left.
    pub(crate) async fn wait_until_no_process_is_left(&self) {
        let all_gone = || self.session_processes().is_empty();
        until("all processes of the sessions are gone", all_gone).await;
    }

    /// Asserts that no file of the homeserver holds this text, which is not older than the bot.
    #[track_caller]
    pub(crate) fn check_homeserver_never_read(&self, secret: &str) {
        for file in &self.homeserver_files {
            let found = file.contains(secret.as_bytes());
            assert!(!found, "a secret is in {}", file.path.display());
        }
    }

    fn said(&self, event: &Event) -> bool {
        event.sender == self.user_id() && event.room == self.admin_room() && event.body().is_some()
    }

    fn check_answer(&self, person: &Person, answer: &Event) {
        assert_eq!(answer.message_type(), Some("m.notice"), "{answer}");
        assert!(!answer.json.to_string().contains("claude.ai"), "{answer}");
        let room = person.room(self.admin_room());
        let shield = if room.encryption_state().is_encrypted() {
            "none"
        } else {
            "not encrypted"
        };
        assert_eq!(answer.shield(), shield, "{answer}");
    }

    async fn check_link(&self, person: &Person, event: &Event, link: &str) {
        assert_eq!(event.sender, self.user_id());
        assert_eq!(event.message_type(), Some("m.text"));
        assert!(event.body().unwrap().contains(link), "{event}");
        let clickable = format!("<a href=\"{link}\">");
        let html = event.formatted_body().unwrap();
        assert!(html.contains(&clickable), "{event}");
        assert_eq!(event.shield(), "none");
        assert_ne!(event.room, self.admin_room());
        let members = person.members(&event.room).await.unwrap();
        let mut present = members;
        present.retain(|_, membership| membership != "leave");
        let two = [self.user_id(), person.user_id()].map(ToString::to_string);
        let present: BTreeSet<_> = present.into_keys().collect();
        assert_eq!(present, two.into(), "a direct message has two members");
    }

    /// Asserts that of the requester's events only encrypted messages of the bot outside the admin room have the link, and
    /// neither the log nor any file of the homeserver.
    fn check_absence(&self, person: &Person, link: &str) {
        let (_, secret) = link.split_once(LINK_MARK).expect("a link of the stand-in");
        let mut events = person.events();
        events.retain(|event| event.json.to_string().contains(secret));
        for event in events {
            assert_eq!(event.sender, self.user_id(), "{event}");
            assert_ne!(event.room, self.admin_room(), "{event}");
            assert!(event.encryption.is_some(), "{event}");
        }
        assert!(!self.log().contains(secret), "the link is in the bot's log");
        self.check_homeserver_never_read(secret);
    }
}

impl Person {
    /// A state event's content, as the homeserver has it now.
    pub(crate) async fn state(&self, room: &RoomId, kind: &str) -> Option<Value> {
        use matrix_sdk::ruma::api::client::state::get_state_event_for_key::v3::Request;
        let request = Request::new(room.to_owned(), kind.into(), String::new());
        let response = self.client().send(request).await.ok()?;
        serde_json::from_str(response.event_or_content.get()).ok()
    }

    /// Whether this person's client has seen nothing of a room, with all that the homeserver has for it until now.
    pub(crate) fn never_saw(&self, room: &RoomId) -> bool {
        self.all_events().iter().all(|event| event.room != room)
    }

    /// Whether no event that the homeserver has for this person until now holds a text.
    pub(crate) fn never_read(&self, text: &str) -> bool {
        self.all_events()
            .iter()
            .all(|event| !event.json.to_string().contains(text))
    }

    fn all_events(&self) -> Vec<Event> {
        block_in_place(|| Handle::current().block_on(self.catch_up()));
        self.events()
    }

    pub(crate) async fn set_power_level(&self, room: &RoomId, user: &UserId, level: i32) {
        let levels = vec![(user, level.into())];
        self.room(room).update_power_levels(levels).await.unwrap();
    }
}

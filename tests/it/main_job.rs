//! Start, status, stop: the link reaches the requester only, end-to-end encrypted, and is redacted in the end.

use matrix_sdk::ruma::events::{
    relation::Thread,
    room::message::{Relation, RoomMessageEventContent},
};

use crate::support::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn from_the_first_start_to_the_session_after_the_stop() {
    let alice = person("alice").await;
    let onlooker = person("bob").await;
    let bot = bot()
        .project("website", |project| project.standin("fork=3"))
        .invite(onlooker.user_id())
        .start(&alice)
        .await;
    let status = bot.request(&alice, "status").await;
    status.is("website: no session");
    assert_eq!(status.thread(), None);
    let answer = bot.request(&alice, "logs").await;
    answer.is("website has printed nothing yet: it has had no session.");

    // The answer stays in the thread of its command.
    let root = alice.send_text(bot.admin_room(), "about today").await;
    let root = root.unwrap();
    let mut command = RoomMessageEventContent::text_plain("!rc start");
    command.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), root.clone())));
    let asked = alice.send(bot.admin_room(), command).await.unwrap();
    let answer = bot.answer(&alice, &asked).await;
    assert_eq!(answer.thread(), Some(root.as_str()));
    let first = bot.link_after(&alice, 0).await;
    let address = first.room().matrix_to_uri().to_string();
    answer.formatted_body().unwrap().says(&address);

    // Members of the admin room see that there is a session, and not its link.
    onlooker.hears("is running").await;
    assert!(onlooker.never_read(&first.link) && onlooker.never_saw(first.room()));

    // The process runs detached, in its directory, with its own environment.
    let [started] = &bot.standin_records()[..] else {
        panic!("one stand-in was started: {:?}", bot.standin_records());
    };
    assert_eq!(started.cwd, bot.project_directory("website"));
    let id = &started.session_id;
    let name = started.argv.last().unwrap();
    name.begins("website@");
    name.ends(id);
    let has = |variable: &str| started.environment.iter().any(|name| name == variable);
    assert!(has("HOME") && !has("RUST_LOG"), "{started:?}");
    let process = procfs::process::Process::new(started.pid).unwrap();
    assert_eq!(process.stat().unwrap().session, started.pid);

    let status = bot.request(&alice, "status").await;
    status.begins("website: running since ");
    let by = format!("\n  started by {}, 4 processes, ", alice.user_id());
    status.says(&by);
    let html = status.formatted_body().unwrap();
    html.begins("🟢 <strong>website</strong>: running since ");

    // A second start gives the same link in a new message, and no second process.
    let answer = bot.request(&alice, "start website").await;
    answer.says("is already running. Its link is in our direct message again.");
    let second = bot.link_after(&alice, 1).await;
    assert_eq!(second.link, first.link);
    assert_ne!(second.event.id, first.event.id);
    assert_eq!(second.room(), first.room());
    assert_eq!((bot.links_of(&alice).len(), bot.standin_starts()), (2, 1));

    assert_logs_are_private(&bot, &alice, &onlooker, &first).await;
    assert_eq!(bot.links_of(&alice).len(), 2);

    // Stopped means that the whole process tree is gone.
    assert_eq!(bot.session_processes().len(), 4);
    let answer = bot.request(&alice, "stop website").await;
    assert!(bot.session_processes().is_empty());
    answer.is("website stopped.");
    bot.wait_for_redaction(&alice, &first).await;
    bot.wait_for_redaction(&alice, &second).await;

    // A session after a stop is a new one in the same direct message.
    let third = bot.start_session(&alice, "website").await;
    assert_ne!(third.link, first.link);
    assert_eq!(third.room(), first.room());
    assert_eq!(bot.standin_starts(), 2);
}

/// The last lines of output go only to the direct message, and without the link.
async fn assert_logs_are_private(bot: &Bot, alice: &Person, onlooker: &Person, sent: &LinkMessage) {
    let answer = bot.request(alice, "logs").await;
    answer.is("website: what it printed last is in our direct message.");
    let said = "website: the last lines that it printed, as of ";
    let word = bot.private_message(alice, said).await;
    assert_eq!(word.room, *sent.room());
    for part in ["Connected", "Capacity: 1/32", "[link]"] {
        word.says(part);
    }
    assert!(!word.json.to_string().contains(&sent.link));
    bot.check_homeserver_never_read("Capacity: 1/32");
    onlooker.hears(answer.body().unwrap()).await;
    assert!(onlooker.never_read("Capacity"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projects_have_a_session_each() {
    let alice = person("alice").await;
    let bot = bot()
        .project("api", |project| project)
        .project("website", |project| project)
        .start(&alice)
        .await;
    // Refusals say what is possible; the unit tests of command/ have every such sentence.
    for (command, part) in [
        (
            "start",
            "Which project? Say `!rc start` and one of: `api`, `website`.",
        ),
        ("dance", "I do not know the command `dance`."),
        ("", "Projects: `api`, `website`."),
        ("stop", "No session is running."),
    ] {
        bot.says(&alice, command, part).await;
    }
    assert_eq!(bot.standin_starts(), 0);
    let api = bot.start_session(&alice, "api").await;
    let website = bot.start_session(&alice, "website").await;
    assert_ne!(api.link, website.link);
    assert_eq!(bot.session_processes().len(), 2);

    bot.request(&alice, "stop api").await;
    bot.wait_for_redaction(&alice, &api).await;
    let status = bot.request(&alice, "status").await;
    status.begins("website: running since ");
    status.ends("\napi: no session");
    let stored = alice.stored(&website).await;
    assert_ne!(stored["content"], json!({}), "the other link stays");
    // Without a name it is for the only session that is left.
    let answer = bot.request(&alice, "stop").await;
    answer.begins("website stopped");
    assert!(bot.session_processes().is_empty());
}

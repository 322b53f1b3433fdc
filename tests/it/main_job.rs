//! Start, status, stop: the link reaches the requester alone, end-to-end encrypted, and is redacted in the end.

use matrix_sdk::ruma::{
    RoomVersionId,
    events::{
        relation::Thread,
        room::message::{Relation, RoomMessageEventContent},
    },
};

use crate::support::{bot::Bot, eventually, homeserver, person};

#[tokio::test(flavor = "multi_thread")]
async fn a_link_arrives_in_the_direct_message_and_nowhere_else() {
    let alice = person("alice").await;
    let onlooker = person("bob").await;
    let bot = Bot::builder(homeserver())
        .invite(onlooker.user_id())
        .start(&alice)
        .await;

    let sent = bot.start_session(&alice, "website").await;

    // Whoever is in the admin room learns that there is a session, and nothing of the link.
    onlooker
        .wait_for("the answer in the admin room", |event| {
            event.body().is_some_and(|body| body.contains("is running"))
        })
        .await
        .unwrap();
    assert!(onlooker.never_read(&sent.link));
    assert!(onlooker.never_saw(sent.room()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_detached_in_its_directory_with_an_environment_of_its_own() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    bot.start_session(&alice, "website").await;

    let [started] = &bot.standin_records()[..] else {
        panic!("one stand-in was started: {:?}", bot.standin_records());
    };
    assert_eq!(started.cwd, bot.project_directory("website"));
    let id = started.session_id.as_deref().unwrap();
    let name = started.argv.last().unwrap();
    assert!(name.starts_with("website@") && name.ends_with(id), "{name}");
    let variables = &started.environment;
    assert!(variables.iter().any(|name| name == "HOME"), "{variables:?}");
    assert!(
        !variables.iter().any(|name| name == "RUST_LOG"),
        "{variables:?}"
    );
    let process = procfs::process::Process::new(started.pid)
        .unwrap()
        .stat()
        .unwrap();
    assert_eq!(
        process.session, started.pid,
        "it leads a session of its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_gives_the_same_link_in_a_new_message_and_no_second_process() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let first = bot.start_session(&alice, "website").await;
    let second = bot.start_session(&alice, "website").await;

    assert_eq!(second.link, first.link);
    assert_ne!(second.event.id, first.event.id);
    assert_eq!(second.room(), first.room());
    assert_eq!(bot.links_of(&alice).len(), 2);
    assert_eq!(bot.standin_starts(), 1);
    assert_eq!(bot.session_processes().len(), 1);

    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &first).await;
    bot.wait_for_redaction(&alice, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_tells_who_started_what_and_never_a_link() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let before = bot.request(&alice, "status").await;
    assert_eq!(before.body(), Some("website: no session"));

    bot.start_session(&alice, "website").await;
    let status = bot.request(&alice, "status").await;
    let line = status.body().unwrap();
    assert!(line.starts_with("website: running since "), "{line}");
    assert!(
        line.contains(&format!(
            "started by {}\n         1 process, ",
            alice.user_id()
        )),
        "{line}"
    );
    let html = status.formatted_body().unwrap();
    assert!(html.contains("<td>running since "), "{html}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_whole_process_tree_and_takes_the_link_back() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .project("website", |project| project.standin("fork=3"))
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    eventually("the stand-in and its children", async || {
        (bot.session_processes().len() == 4).then_some(())
    })
    .await;

    let answer = bot.request(&alice, "stop website").await;
    let body = answer.body().unwrap();
    assert!(bot.session_processes().is_empty(), "stopped means gone");
    assert!(
        body.starts_with("Session for website is stopped. Its 4 processes ended "),
        "{body}"
    );
    bot.wait_for_redaction(&alice, &sent).await;
    let word = bot
        .private_message(&alice, "Session for website has ended.")
        .await;
    assert_eq!(word.room, *sent.room());
    assert_eq!(
        bot.request(&alice, "status").await.body(),
        Some("website: no session")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_after_a_stop_is_a_new_one_in_the_same_direct_message() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let first = bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    let second = bot.start_session(&alice, "website").await;
    assert_ne!(second.link, first.link);
    assert_eq!(second.room(), first.room());
    assert_eq!(bot.standin_starts(), 2);
    assert_eq!(bot.session_processes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_answered_with_what_can() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .project("api", |project| project)
        .project("website", |project| project)
        .start(&alice)
        .await;
    for (command, parts) in [
        (
            "stop website",
            &["There is no active session for website."][..],
        ),
        (
            "help",
            &[
                "`!rc start [project]`",
                "`!rc stop [project]`",
                "`!rc status`",
                "`!rc help`",
            ],
        ),
        (
            "dance",
            &["I do not know the command `dance`.", "`!rc help`"],
        ),
        (
            "status now",
            &["`!rc status` takes fewer words than that.", "`!rc help`"],
        ),
        ("", &["What would you like me to do?", "`!rc help`"]),
        (
            "start blog",
            &["There is no project `blog`.", "Projects: `api`, `website`."],
        ),
        (
            "start",
            &[
                "Which project? Say `!rc start` and its name.",
                "Projects: `api`, `website`.",
            ],
        ),
    ] {
        let answer = bot.request(&alice, command).await;
        for part in parts {
            assert!(answer.body().unwrap().contains(part), "{command}: {answer}");
        }
    }
    assert_eq!(bot.standin_starts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projects_have_a_session_each() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .project("api", |project| project)
        .project("website", |project| project)
        .start(&alice)
        .await;
    let api = bot.start_session(&alice, "api").await;
    let website = bot.start_session(&alice, "website").await;
    assert_ne!(api.link, website.link);
    assert_eq!(bot.session_processes().len(), 2);

    bot.request(&alice, "stop api").await;
    bot.wait_for_redaction(&alice, &api).await;
    let status = bot.request(&alice, "status").await;
    let body = status.body().unwrap();
    assert!(
        body.starts_with("api:     no session\nwebsite: running since "),
        "{body}"
    );
    let stored = alice
        .event_from_server(website.room(), &website.event.id)
        .await
        .unwrap();
    assert_ne!(
        stored["content"],
        serde_json::json!({}),
        "the other link stays"
    );
    // Only one session is left, so it is the one that is meant.
    let answer = bot.request(&alice, "stop").await;
    assert!(
        answer
            .body()
            .unwrap()
            .starts_with("Session for website is stopped")
    );
    assert!(bot.session_processes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stays_in_the_thread_of_its_command() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver()).start(&alice).await;
    let root = alice
        .send_text(bot.admin_room(), "about today")
        .await
        .unwrap();
    let mut command = RoomMessageEventContent::text_plain("!rc start");
    command.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), root.clone())));
    let asked = alice.send(bot.admin_room(), command).await.unwrap();

    let answer = bot.answer(&alice, &asked).await;
    assert_eq!(answer.thread(), Some(root.as_str()));
    bot.link_after(&alice, 0).await;
    assert_eq!(bot.request(&alice, "status").await.thread(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unencrypted_admin_room_serves_and_the_link_is_encrypted_all_the_same() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .encrypted_admin_room(false)
        .start(&alice)
        .await;
    let sent = bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_room_can_be_named_by_its_alias() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .admin_room_by_alias()
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_creator_commands_in_a_room_of_version_12_without_standing_in_its_list() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .room_version(RoomVersionId::V12)
        .start(&alice)
        .await;
    let levels = alice
        .state(bot.admin_room(), "m.room.power_levels")
        .await
        .unwrap();
    assert_eq!(levels["users"].get(alice.user_id().as_str()), None);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_power_levels_decides_in_a_room_of_version_10() {
    let alice = person("alice").await;
    let bot = Bot::builder(homeserver())
        .room_version(RoomVersionId::V10)
        .start(&alice)
        .await;
    bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    alice
        .set_power_level(bot.admin_room(), alice.user_id(), 99)
        .await;
    let answer = bot.request(&alice, "start").await;
    assert!(
        answer
            .body()
            .unwrap()
            .contains("your power level here is 99, and this takes 100")
    );
    assert_eq!(bot.standin_starts(), 1);
}

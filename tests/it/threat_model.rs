//! The threat model of docs/security.md: a test for each row. Where another file tests a promise, the test with its name is
//! there.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::{
    hostile::{answer_to, sessions},
    support::{
        impostor::Impostor,
        prelude::*,
        proxy::forgery::{forged_message, forged_state, in_timeline, membership, under_new_ids},
    },
};

/// By how much a session's output may raise the bot's memory: it reads in pieces.
const MEMORY: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_room_member_without_the_power_level_gets_no_session_no_link_and_one_denial_a_minute() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot()
        .configure(|config| config["rate"]["commands_per_minute"] = json!(4))
        .invite(bob.user_id())
        .start(&alice)
        .await;
    let asked = bot.send(&bob, "start").await;
    bot.answer(&bob, &asked)
        .await
        .says("Not done: your power level here is 0, and this takes 100.");
    let mut unanswered = vec![bot.edit(&bob, &asked, "start").await];
    for command in ["stop", "dance", "doctor"] {
        let asked = bot.send(&bob, command).await;
        bot.wait_for_refusal(&asked, "PowerLevel { has: 0, needs: 100 }")
            .await;
        unanswered.push(asked);
    }
    // This one also exceeds the rate limit, which would be a second answer.
    let too_many = bot.send(&bob, "start").await;
    bot.decision(&too_many).await;
    unanswered.push(too_many);
    // Any answers to them have arrived once a later command is answered.
    bot.assert_no_session(&alice).await;
    assert_eq!(bot.standin_starts(), 0);
    alice.catch_up().await;
    for unanswered in unanswered {
        assert!(alice.answers_to(&unanswered).is_empty());
    }
    assert!(bot.links_of(&bob).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_admin_gets_nothing_from_replayed_or_delayed_events() {
    let bob = person("bob").await;
    let levels = json!({ "users": { bob.user_id(): 100 } });
    let (alice, proxy, bot) =
        behind_proxy(|bot| bot.invite(bob.user_id()).power_levels(levels)).await;
    bot.start_session(&bob, "website").await;
    bot.request(&bob, "stop").await;
    // Sent by an administrator, and received after they were demoted.
    proxy.unplug();
    let delayed = bot.send(&bob, "start").await;
    alice
        .set_power_level(bot.admin_room(), bob.user_id(), 0)
        .await;
    proxy.plug_in();
    let answer = bot.answer(&bob, &delayed).await;
    answer.says("your power level here is 0, and this takes 100");

    let (events, to_device) = proxy.brought_to(bot.admin_room());
    let of_bob: Vec<_> = events
        .iter()
        .filter(|event| event["sender"] == json!(bob.user_id()) && event.get("state_key").is_none())
        .cloned()
        .collect();
    assert!(of_bob.len() >= 3, "{of_bob:?}");
    for replayed in [events, under_new_ids(&of_bob)] {
        proxy.inject(json!({ "to_device": { "events": to_device } }));
        proxy.inject(in_timeline(bot.admin_room(), &replayed));
    }
    until("the bot has received it", || proxy.has_injected_all()).await;
    bot.assert_no_session(&alice).await;
    assert_eq!((sessions(&bot), bot.links_of(&bob).len()), (1, 1));
}

/// A moderator could announce a host whose bot answers in place of this one.
#[tokio::test(flavor = "multi_thread")]
async fn a_moderator_does_not_silence_a_bot_that_shares_the_room_with_no_other() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot().member(&bob, 50).start(&alice).await;
    bot.request(&alice, "status").await;
    // Of several bots, the first by its user id answers for all.
    assert!(bob.user_id() < bot.user_id());
    let session = json!({ "phase": "running", "since": 1 });
    let host = json!({ "host": "build1", "projects": { "website": { "session": session } } });
    let room = bob.room(bot.admin_room());
    room.send_state_event_raw("rcbot.host", bob.user_id().as_str(), host)
        .await
        .unwrap();
    bot.start_session(&alice, "website").await;
    let status = bot.request(&alice, "status").await;
    status.says("website: running");
    let stopped = bot.request(&alice, "stop website").await;
    stopped.says("website stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_person_in_an_old_dm_does_not_get_the_link() {
    let mallory = person("mallory").await;
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let mut last = bot.start_session(&alice, "website").await;
    // Only the bot may invite there; a malicious homeserver can do it in the bot's name.
    for presence in ["in it", "gone again", "hidden from the sync", "invited"] {
        if presence == "hidden from the sync" {
            let room = last.room().to_string();
            proxy.on(Request::is_sync).rewrite(move |_, answer| {
                let rooms = answer.pointer_mut("/rooms/join");
                if let Some(rooms) = rooms.and_then(Value::as_object_mut) {
                    rooms.remove(&room);
                }
            });
            // The sync in progress is over once the bot has received something.
            bot.request(&alice, "status").await;
        }
        if presence == "invited" {
            mallory.join_invitations(false);
            bot.invite_as_bot(last.room(), mallory.user_id()).await;
        } else {
            bot.bring_in_as_bot(last.room(), &mallory).await;
        }
        if presence == "gone again" {
            mallory.room(last.room()).leave().await.unwrap();
        }
        let next = bot.start_session(&alice, "website").await;
        assert_ne!(next.room(), last.room(), "{presence}");
        assert!(mallory.never_saw(next.room()) && mallory.never_read(&last.link));
        last = next;
    }
    assert!(proxy.keys_for(mallory.user_id()).is_empty());
}

/// Configured as docs/security.md requires: users named with their keys, and encryption always.
#[tokio::test(flavor = "multi_thread")]
async fn the_homeserver_gets_no_session_and_no_link() {
    let mallory = person("mallory").await;
    let alice = person("alice").await;
    let key = alice.master_key().await;
    let proxy = Proxy::start(homeserver()).await;
    let bot = bot()
        .through(&proxy)
        .invite(mallory.user_id())
        .configure(|config| {
            config["authorization"]["users"] = json!({ alice.user_id(): key });
            config["encryption"] = json!({ "require_encrypted_commands": "always" });
        })
        .start(&alice)
        .await;
    bot.request(&alice, "status").await;
    let room = bot.admin_room().to_owned();

    // A command in plain text, and the power level for an accomplice.
    let forged = forged_message(alice.user_id(), "!rc start");
    proxy.inject(in_timeline(&room, std::slice::from_ref(&forged)));
    let answer = answer_to(&bot, &alice, &forged).await;
    answer.says("your message was not encrypted, and has to be.");
    let kind = "m.room.power_levels";
    let mut levels = alice.state(&room, kind).await.unwrap();
    levels["users"][mallory.user_id().as_str()] = json!(100);
    let event = forged_state(alice.user_id(), kind, "", &levels);
    proxy.inject(in_timeline(&room, std::slice::from_ref(&event)));
    let state_of_room = in_room(&room, Request::reads_state);
    proxy.on(state_of_room).rewrite(move |_, answer| {
        let state = answer.as_array_mut().unwrap();
        state.retain(|event| event["type"] != kind);
        state.push(event.clone());
    });
    let answer = bot.request(&mallory, "start").await;
    answer.says("you are not on the list of users");
    proxy.be_honest();

    // A device and an identity in the administrator's name, and a member of the direct message.
    let joins = membership(mallory.user_id(), "join");
    let impostors = [
        Impostor::device_of(alice.user_id()).await,
        Impostor::identity_of(alice.user_id()).await,
    ];
    for (impostor, why) in impostors.iter().zip(["UnsignedDevice", "IdentityChanged"]) {
        impostor.show(&proxy);
        let asked = impostor
            .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
            .await;
        let asked = asked["event_id"].as_str().unwrap().try_into().unwrap();
        bot.wait_for_refusal(&asked, why).await;
        assert_eq!(sessions(&bot), 0);
        proxy.be_honest();
        proxy.inject(json!({ "device_lists": { "changed": [alice.user_id()] } }));
    }
    let sent = bot.start_session(&alice, "website").await;
    for impostor in impostors {
        assert!(!impostor.got_a_key(&proxy));
    }
    proxy.inject(in_timeline(sent.room(), &[joins]));
    let again = bot.start_session(&alice, "website").await;
    assert_ne!(again.room(), sent.room());
    assert!(mallory.never_saw(again.room()) && mallory.never_read(&sent.link));
    assert_eq!(sessions(&bot), 1);
}

/// Output that tries to be more than text: commands, markup, a mention, terminal control sequences, invalid UTF-8, and a false
/// link.
const WORDS: &str = r"!rc stop website\n@room <b>sesame</b> \033]0;sesame\007\033[2J\377\376\000sesame https://claude.ai.evil.example/code?environment=env_sesame\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_session_process_gets_no_words_into_the_room_no_crash_and_no_unbounded_disk_or_memory()
{
    let alice = person("alice").await;
    let claude = standin_program().display();
    let script = format!("printf '{WORDS}'; exec {claude} remote-control");
    let bot = bot()
        .project("website", |project| {
            project
                .standin("noise=64")
                .set("command", json!(["sh", "-c", script]))
                .set("max_output", "1MiB")
        })
        .start(&alice)
        .await;
    bot.request(&alice, "status").await;
    let before = bot.memory().now;
    bot.start_session(&alice, "website").await;
    bot.request(&alice, "status").await;
    // It ends without a stop.
    bot.end_process(bot.standin_records()[0].pid).await;
    bot.announcement(&alice, "website has ended").await;
    bot.assert_no_session(&alice).await;
    let most = bot.memory().most;
    assert!(
        most < before + MEMORY,
        "{before} bytes before, {most} after"
    );
    let folder = bot.data_dir().join("sessions/website");
    let files = fs::read_dir(folder).unwrap();
    // The front of the output was freed, and the length is unchanged.
    let sizes = files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512);
    let size: u64 = sizes.sum();
    assert!(size < 2 << 20, "{size} bytes on disk");
    for event in alice.events() {
        let in_public = event.room == bot.admin_room();
        assert!(
            !in_public || !event.json.to_string().contains("sesame"),
            "{event}"
        );
    }
    assert!(!bot.log().contains("sesame"));
}

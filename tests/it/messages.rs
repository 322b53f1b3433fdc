//! What people see of a start besides its link: what it opens, for whom, and how long; and the link as a picture.

use std::fs;

use matrix_sdk::{
    Room,
    media::{MediaFormat, MediaRequestParameters},
    reqwest::Method,
    ruma::{
        OwnedMxcUri,
        api::client::profile::AvatarUrl,
        events::{
            reaction::ReactionEventContent, relation::Annotation, room::MediaSource,
            typing::SyncTypingEvent,
        },
    },
};
use tokio::{sync::watch, time::timeout};

use crate::support::{DEADLINE, picture::read_code, prelude::*};

/// The bot's avatar, as this person sees it.
async fn avatar(bot: &Bot, person: &Person) -> Option<OwnedMxcUri> {
    let account = person.client().account();
    let profile = account.fetch_user_profile_of(bot.user_id()).await.unwrap();
    profile.get_static::<AvatarUrl>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bot_greets_the_admin_room_once_and_sets_its_avatar_unless_it_has_another() {
    let (alice, mut bot) = alice_and_bot().await;
    let greeting = "Hello! I start Claude Code sessions on ";
    let greeted = bot.announcement(&alice, greeting).await;
    greeted.says("`!rc help` lists the commands.");
    let first = avatar(&bot, &alice).await.unwrap();
    let request = MediaRequestParameters {
        source: MediaSource::Plain(first.clone()),
        format: MediaFormat::File,
    };
    let media = alice.client().media();
    let file = media.get_media_content(&request, false).await.unwrap();
    assert!(file == include_bytes!("../../src/matrix/avatar.png"));
    bot.restart(&alice).await;
    bot.request(&alice, "status").await;
    let said = |event: &Event| event.body().is_some_and(|body| body.starts_with(greeting));
    assert_eq!(alice.events().iter().filter(|it| said(it)).count(), 1);
    // It is uploaded only once.
    assert_eq!(avatar(&bot, &alice).await, Some(first));

    let another = "mxc://example.org/another";
    let path = format!("profile/{}/avatar_url", bot.user_id());
    let content = json!({ "avatar_url": another });
    bot.call(Method::PUT, &path, &content).await;
    // The homeserver tells the rooms after it has answered.
    let shown = |event: &Event| event.json["content"]["avatar_url"] == another;
    alice.sees("the bot's other avatar", shown).await;
    // A later change of name or avatar does not invalidate earlier commands.
    bot.kill_9();
    bot.reconfigure(|config| config["bot"]["display_name"] = "Another name".into());
    let asked = bot.send(&alice, "status").await;
    bot.run();
    bot.answer(&alice, &asked).await;
    assert_eq!(avatar(&bot, &alice).await, Some(another.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bot_is_typing_until_it_answers_a_start_and_the_link_says_what_it_opens_and_for_whom() {
    let alice = person("alice").await;
    let login = tempfile::tempdir().unwrap();
    let state = json!({ "oauthAccount": { "emailAddress": "alice@claude.example" } });
    fs::write(login.path().join(".claude.json"), state.to_string()).unwrap();
    let bot = bot()
        .project("website", |project| {
            project
                .standin("slow=5,held")
                .environment("CLAUDE_CONFIG_DIR", login.path())
                .set("max_duration", "12h")
        })
        .start(&alice)
        .await;
    let (sender, mut typing) = watch::channel((false, 0));
    let (room, user) = (bot.admin_room().to_owned(), bot.user_id().to_owned());
    let handle = move |event: SyncTypingEvent, seen: Room| {
        if seen.room_id() == room {
            let types = event.content.user_ids.contains(&user);
            sender.send_modify(|(typing, times)| {
                *times += usize::from(types && !*typing);
                *typing = types;
            });
        }
        std::future::ready(())
    };
    alice.client().add_event_handler(handle);

    let asked = bot.send(&alice, "start").await;
    let types = typing.wait_for(|(typing, _)| *typing);
    timeout(DEADLINE, types).await.unwrap().unwrap();
    let answers = alice.answers_to(&asked);
    assert!(answers.is_empty(), "it types before it answers");
    bot.release_links();
    bot.answer(&alice, &asked).await;
    let stops = typing.wait_for(|(typing, _)| !*typing);
    let (_, times) = *timeout(DEADLINE, stops).await.unwrap().unwrap();
    assert_eq!(times, 1, "it does not stop in between");

    let sent = bot.link_after(&alice, 0).await;
    let directory = bot.project_directory("website");
    for part in [
        "website on ",
        &format!("Directory: `{}`", directory.display()),
        "Opens for: `alice@claude.example`",
        "Ends in 12h (",
        "To end it: `!rc stop website` in the admin room",
    ] {
        sent.event.says(part);
    }
    // The admin room does not see which claude.ai account it is.
    let mut said = alice.events();
    said.retain(|event| event.room == bot.admin_room());
    let names_account = |event: &Event| event.json.to_string().contains("claude.example");
    assert!(!said.iter().any(names_account));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_sends_only_the_link_a_reaction_its_picture_and_a_stop_redacts_both() {
    let (alice, bot) = alice_and_bot().await;
    let sent = bot.start_session(&alice, "website").await;
    // By the time of an answer and the offer of a picture, there is no other message.
    bot.request(&alice, "status").await;
    let mut said = alice.events();
    said.retain(|event| event.room == *sent.room() && event.kind == "m.room.message");
    let [link] = &said[..] else {
        panic!("{} messages", said.len());
    };
    // Of a start's events only this one rings: notices and reactions do not.
    assert_eq!(link.id, sent.event.id);
    assert_eq!(link.message_type(), Some("m.text"));
    let picture = bot.picture_of(&alice, &sent).await;
    assert_eq!(picture.room, *sent.room());
    let content = &picture.json["content"];
    assert_eq!(content["filename"], "remote-control-website.png");
    assert_eq!(content["info"]["mimetype"], "image/png");
    let file = alice.download(&picture).await;
    assert_eq!(content["info"]["size"], file.len());
    let side = usize::try_from(content["info"]["w"].as_u64().unwrap()).unwrap();
    for shown in [300, side] {
        assert_eq!(read_code(&file, shown), sent.link, "at {shown} pixels");
    }

    // The picture is sent once, and other reactions are ignored.
    let again = bot.start_session(&alice, "website").await;
    for (message, key) in [(&sent, "📷"), (&again, "👍")] {
        let annotation = Annotation::new(message.event.id.clone(), key.to_owned());
        let reaction = ReactionEventContent::new(annotation);
        alice.send(sent.room(), reaction).await.unwrap();
    }
    // Any effect of these would be visible by then.
    let third = bot.start_session(&alice, "website").await;
    bot.picture_of(&alice, &third).await;
    bot.request(&alice, "status").await;
    assert_eq!(bot.pictures_of(&alice).len(), 2);
    assert_stop_redacts_pictures(&bot, &alice, &again).await;
}

/// Also the picture of a message that may still be in transit when the session ends.
async fn assert_stop_redacts_pictures(bot: &Bot, alice: &Person, without_picture: &LinkMessage) {
    let messages = [bot.links_of(alice), bot.pictures_of(alice)].concat();
    bot.ask_for_picture(alice, without_picture).await;
    bot.request(alice, "stop").await;
    for message in messages {
        bot.wait_for_redaction(alice, &message).await;
    }
    // Anything still in transit has arrived before the picture of a later session.
    let later = bot.start_session(alice, "website").await;
    bot.ask_for_picture(alice, &later).await;
    let link_in = async |picture: &Event| read_code(&alice.download(picture).await, 300);
    eventually("the picture of the later link", async || {
        let last = bot.pictures_of(alice).pop()?;
        (link_in(&last).await == later.link).then_some(())
    })
    .await;
    for picture in bot.pictures_of(alice) {
        if link_in(&picture).await == without_picture.link {
            bot.wait_for_redaction(alice, &picture).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_was_sent_while_the_bot_was_killed_is_found_and_redacted() {
    let (alice, mut bot) = alice_and_bot().await;
    let sent = bot.start_session(&alice, "website").await;
    // The next run also knows the link and its requester.
    bot.restart(&alice).await;
    let picture = bot.picture_of(&alice, &sent).await;
    bot.wait_for_log("picture of the link sent").await;
    assert!(bot.terminate().await.success());
    // The record as it is from before the picture is sent until the answer of the homeserver.
    let record = bot.data_dir().join("sessions/website/session.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains(picture.id.as_str()), "{text}");
    fs::write(&record, text.replace(picture.id.as_str(), "?")).unwrap();

    bot.run();
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    bot.wait_for_redaction(&alice, &picture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_is_informed_when_the_homeserver_rejects_the_picture() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let too_large = Answer::refusal(413, "M_TOO_LARGE");
    let uploads =
        |request: &Request| request.path.ends_with("/upload") && request.path.contains("/media/");
    proxy.on(uploads).answer(too_large);
    let sent = bot.start_session(&alice, "website").await;
    bot.ask_for_picture(&alice, &sent).await;
    let refusal = "I cannot send you the QR code for website: the homeserver does not take it.";
    bot.private_message(&alice, refusal).await;
    bot.wait_for_log("picture of the link not sent").await;
    assert!(bot.log().contains("M_TOO_LARGE"), "the log says why");
    assert!(bot.pictures_of(&alice).is_empty());
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    bot.request(&alice, "status").await;
    // Nothing was sent, so nothing else was redacted.
    let mut redactions = alice.events();
    redactions.retain(|event| event.redacts().is_some());
    assert_eq!(redactions.len(), 1);
}

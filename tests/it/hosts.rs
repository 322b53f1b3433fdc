//! Several hosts share one admin room: each command is answered by the bot it is addressed to.

use std::{collections::BTreeMap, fs, time::Duration};

use matrix_sdk::ruma::{
    OwnedEventId, TransactionId, api::client::to_device::send_event_to_device, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};

use crate::support::{prelude::*, proxy::Passed};

/// A bot of this host, in the room of the first.
fn host(name: &str, first: Option<&Bot>) -> BotBuilder {
    let builder = bot().configure(|config| config["host"] = json!(name));
    match first {
        Some(first) => builder.beside(first),
        None => builder.power_levels(json!({ "events": { "rcbot.host": 0 } })),
    }
}

/// The same with these projects.
fn of_host(name: &str, projects: &[&str], first: Option<&Bot>) -> BotBuilder {
    let builder = host(name, first);
    let add = |builder: BotBuilder, name: &&str| builder.project(name, |project| project);
    projects.iter().fold(builder, add)
}

/// The others get an announcement with their next sync, so before any message that is sent after this returns.
async fn wait_for_announcement(bot: &Bot, alice: &Person) -> Event {
    let user = bot.user_id().as_str();
    let is_announcement = |event: &Event| event.kind == "rcbot.host" && event.sender == user;
    alice.sees("the announcement", is_announcement).await
}

/// Two hosts in alice's admin room, each with a project `website`, one that the other has not, and two hundred folders of its
/// own and one, `both`, that the other has too.
async fn two_hosts(alice: &Person) -> [Bot; 2] {
    let with_root = |bot: BotBuilder, folders: &str| {
        let names = (0..200).map(|number| format!("{folders}-{number}"));
        let names = names.chain(["both".to_owned()]);
        bot.root(&names.collect::<Vec<_>>())
    };
    let first = of_host("build1", &["website", "api"], None);
    let first = with_root(first, "one").start(alice).await;
    let second = of_host("build2", &["website", "notes"], Some(&first));
    let bots = [first, with_root(second, "two").start(alice).await];
    for bot in &bots {
        wait_for_announcement(bot, alice).await;
    }
    bots
}

/// Sends a command, waits until every bot has decided which of them it is for, and returns the command and an answer to it.
async fn request(bots: &[Bot], alice: &Person, command: &str) -> (OwnedEventId, Event) {
    for bot in bots {
        bot.wait_until_known_to(alice).await;
    }
    let asked = bots[0].send(alice, command).await;
    for bot in bots {
        bot.decision(&asked).await;
    }
    let answer = answer_to(alice, &asked).await;
    (asked, answer)
}

async fn answer_to(alice: &Person, asked: &OwnedEventId) -> Event {
    let is_answer = |event: &Event| event.replies_to() == Some(asked.as_str());
    alice.sees("an answer", is_answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_only_the_addressed_one_answers() {
    let alice = person("alice").await;
    let bots = two_hosts(&alice).await;
    for bot in &bots {
        let announced = wait_for_announcement(bot, &alice).await;
        let content = &announced.json["content"];
        assert_eq!(content["unnamed"]["count"], 201);
        let content = content.to_string();
        assert!(content.len() < 4_096 - 1_024, "{} bytes", content.len());
        content.lacks("one-17");
        content.lacks("two-17");
    }
    let users = bots.each_ref().map(|bot| bot.user_id().to_owned());
    let mut asked = Vec::new();
    // For no host in particular, or for one of them.
    let mut request = async |command: &str, by: Option<usize>| {
        let (question, answer) = request(&bots, &alice, command).await;
        let by = by.map_or(answer.sender.clone(), |host| users[host].clone());
        asked.push((command.to_owned(), question.clone(), by));
        (question, answer.body().unwrap().to_owned())
    };
    let starts = || bots.each_ref().map(Bot::standin_starts);

    let (_, question) = request("start website", None).await;
    question.says("`website@build1`, `website@build2`");
    assert_eq!(starts(), [0, 0]);
    let (question, _) = request("start website@build2", Some(1)).await;
    assert_eq!(starts(), [0, 1]);
    let judged = bots[0].decision(&question).await;
    judged.says("decision=\"left to another host\"");
    request("start api", Some(0)).await;
    assert_eq!(starts(), [1, 1]);
    // A folder that no announcement names.
    request("start two-17", Some(1)).await;
    assert_eq!(starts(), [1, 2]);
    let (_, question) = request("start both", None).await;
    question.says("`both@build1`, `both@build2`");
    let (_, unknown) = request("start three-17", None).await;
    unknown.says("There is no project `three-17`");
    // A folder that is made now is announced soon.
    fs::create_dir(bots[1].root().join("fresh")).unwrap();
    let grown = |event: &Event| {
        let content = &event.json["content"];
        let names_session = content["projects"].get("two-17").is_some();
        event.sender == users[1] && names_session && content["unnamed"]["count"] == 201
    };
    alice
        .sees("the announcement of the new folder", grown)
        .await;
    request("start fresh", Some(1)).await;
    assert_eq!(starts(), [1, 3]);

    for (command, parts) in [
        ("status", ["`notes`", "two-17", "fresh"]),
        ("projects", ["api", "two-17", "fresh"]),
    ] {
        eventually(
            &format!("{command} has both hosts and {parts:?}"),
            async || {
                let (_, listed) = request(command, None).await;
                let parts = [&["build1:", "build2:"], &parts[..]].concat();
                parts.iter().all(|part| listed.contains(part)).then_some(())
            },
        )
        .await;
    }
    // Of two hosts with the project, the command is for the one whose session runs.
    request("stop website", Some(1)).await;
    request("doctor @build2", Some(1)).await;
    let (_, unknown) = request("start website@nowhere", None).await;
    unknown.says("There is no host `nowhere` here");

    // Any other answer has arrived once each of them has answered another command.
    request("status @build1", Some(0)).await;
    request("status @build2", Some(1)).await;
    alice.catch_up().await;
    for (command, question, by) in asked {
        let answers = alice.answers_to(&question).into_iter();
        let answered_by: Vec<_> = answers.map(|answer| answer.sender).collect();
        assert_eq!(answered_by, [by], "{command}");
    }
}

/// Three hosts with a project each, in the order of their user ids: the first one answers by default.
async fn three_hosts(alice: &Person) -> Vec<(&'static str, Bot)> {
    let first = of_host("build1", &["one"], None).start(alice).await;
    let second = of_host("build2", &["two"], Some(&first)).start(alice).await;
    let third = of_host("build3", &["three"], Some(&first))
        .start(alice)
        .await;
    let mut hosts = vec![("build1", first), ("build2", second), ("build3", third)];
    for (_, bot) in &hosts {
        wait_for_announcement(bot, alice).await;
    }
    hosts.sort_by(|(_, a), (_, b)| a.user_id().cmp(b.user_id()));
    hosts
}

/// By its only project.
fn project_of(host: &str) -> &'static str {
    match host {
        "build1" => "one",
        "build2" => "two",
        _ => "three",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_bot_is_killed_another_answers_in_its_place_and_says_that_it_does_not_run()
{
    let alice = person("alice").await;
    let mut hosts = three_hosts(&alice).await;
    let (dead, mut killed) = hosts.remove(0);
    let (names, bots): (Vec<_>, Vec<_>) = hosts.into_iter().unzip();
    let none_is_missing = async |what: &str| {
        eventually(what, async || {
            let asked = bots[0].send(&alice, "status").await;
            let status = answer_to(&alice, &asked).await.body()?.to_owned();
            (!status.contains("not answer")).then_some(status)
        })
        .await
    };
    let status = none_is_missing("all show that they run").await;
    for name in names.iter().chain([&dead]) {
        status.says(name);
    }

    killed.kill_9();
    let mut all_asked = Vec::new();
    let missing = format!("1 host does not answer: `{dead}`");
    eventually("another one says that one does not answer", async || {
        let (asked, answer) = request(&bots, &alice, "status").await;
        all_asked.push(asked);
        answer.body().unwrap().contains(&missing).then_some(())
    })
    .await;
    let (asked, help) = request(&bots, &alice, "help").await;
    help.says("this list");
    all_asked.push(asked);
    // A command for the killed host, by its project or by its name, gets an answer too.
    for command in [
        format!("start {}", project_of(dead)),
        format!("doctor @{dead}"),
    ] {
        let (asked, answer) = request(&bots, &alice, &command).await;
        answer.begins(&format!("{dead} does not answer: its bot is not running"));
        all_asked.push(asked);
    }
    // A command for another host is executed as usual.
    let other = project_of(names[1]);
    let (_, started) = request(&bots, &alice, &format!("start {other}")).await;
    assert_eq!(started.sender, bots[1].user_id());

    for asked in all_asked {
        assert_eq!(alice.answers_to(&asked).len(), 1);
    }
    killed.restart(&alice).await;
    none_is_missing("the killed one is back").await;
}

/// Whether it is a signal to other bots.
fn signals(request: &Request) -> bool {
    request.path.contains("/sendToDevice/rcbot.host_signal/")
}

/// A bot that is not announced gets no claims from others.
#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_is_not_announced_sees_that_another_one_has_answered() {
    let alice = person("alice").await;
    let first = of_host("build1", &["one"], None).start(&alice).await;
    wait_for_announcement(&first, &alice).await;
    let kind = "m.room.power_levels";
    let mut levels = alice.state(first.admin_room(), kind).await.unwrap();
    levels["events"]["rcbot.host"] = json!(100);
    let room = alice.room(first.admin_room());
    room.send_state_event_raw(kind, "", levels).await.unwrap();
    let proxy = Proxy::start(homeserver()).await;
    let unknown = of_host("build2", &["two"], Some(&first)).through(&proxy);
    let mut unknown = unknown.start(&alice).await;
    unknown.wait_for_log("this host is not announced").await;
    // Its claim is held back, in case it claims before it sees the answer.
    let _held = proxy.on(signals).hold();
    let bots = [first, unknown];
    let (asked, answer) = request(&bots, &alice, "status").await;
    assert_eq!(answer.sender, bots[0].user_id());
    let judged = bots[1].decision(&asked).await;
    judged.says("left to another host");
    assert_eq!(alice.answers_to(&asked).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_give_one_answer_however_slow_they_are_and_no_request_where_nothing_happens() {
    let alice = person("alice").await;
    let proxies = [
        Proxy::start(homeserver()).await,
        Proxy::start(homeserver()).await,
    ];
    let first = of_host("build1", &["one"], None).through(&proxies[0]);
    let first = first.start(&alice).await;
    let second = of_host("build2", &["two"], Some(&first)).through(&proxies[1]);
    let bots = [first, second.start(&alice).await];
    for bot in &bots {
        wait_for_announcement(bot, &alice).await;
        bot.wait_until_known_to(&alice).await;
    }
    assert_two_claims_make_one_answer(&alice, &proxies, &bots).await;
    assert_overview_is_corrected(&alice, &proxies, &bots).await;
    request(&bots, &alice, "status").await;
    alice.catch_up().await;
    for proxy in &proxies {
        assert_quiet(proxy).await;
    }
}

/// By the order of the user ids, which decides who answers by default.
fn first_of(bots: &[Bot; 2]) -> usize {
    usize::from(bots[0].user_id() > bots[1].user_id())
}

/// The first bot is slow. The first claim that the homeserver delivers counts, for both bots.
async fn assert_two_claims_make_one_answer(alice: &Person, proxies: &[Proxy; 2], bots: &[Bot; 2]) {
    let slow = first_of(bots);
    let [held, held_of_slow] = [1 - slow, slow].map(|bot| proxies[bot].on(signals).hold());
    let asked = bots[0].send(alice, "help").await;
    until("both claim the answer", || {
        held.has_caught() && held_of_slow.has_caught()
    })
    .await;
    drop(held);
    let answer = answer_to(alice, &asked).await;
    assert_eq!(answer.sender, bots[1 - slow].user_id());
    let judged = bots[slow].decision(&asked).await;
    judged.says("left to another host");
    drop(held_of_slow);
    request(bots, alice, "status").await;
    assert_eq!(alice.answers_to(&asked).len(), 1);
}

/// The second bot seems dead, and shows late that it runs.
async fn assert_overview_is_corrected(alice: &Person, proxies: &[Proxy; 2], bots: &[Bot; 2]) {
    let first = first_of(bots);
    let held = proxies[1 - first].on(signals).hold();
    let asked = bots[0].send(alice, "status").await;
    let answer = answer_to(alice, &asked).await;
    answer.says("1 host does not answer");
    until("it shows late that it runs", || held.has_caught()).await;
    drop(held);
    let project = ["`one`", "`two`"][1 - first];
    let corrected = alice.sees_edit(&answer, project).await;
    corrected.new_text().lacks("not answer");
}

/// Nothing but the sync that waits reaches the homeserver.
async fn assert_quiet(proxy: &Proxy) {
    let is_empty = |sync: &Passed| {
        let brings = |part: &&str| sync.answer.get(part).is_some();
        !["rooms", "to_device", "device_lists"].iter().any(brings)
    };
    let quiet_since = eventually("a sync times out and brings nothing", async || {
        let syncs = proxy.passed_by(Request::is_sync);
        let [.., before, last] = syncs.as_slice() else {
            return None;
        };
        let waited = last.at - before.at;
        let is_long = is_empty(last) && waited > Duration::from_secs(20);
        last.at.checked_sub(waited / 2).filter(|_| is_long)
    })
    .await;
    // Requests before that may belong to the answer.
    let mut passed = proxy.passed();
    passed.retain(|passed| passed.at > quiet_since && !passed.request.is_sync());
    assert!(passed.is_empty(), "{passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_bot_is_no_longer_in_the_room_does_not_count() {
    let alice = person("alice").await;
    let [first, second] = two_hosts(&alice).await;
    let room = alice.room(first.admin_room());
    room.kick_user(second.user_id(), None).await.unwrap();
    // Both had this project, so the host would have to be named.
    let answer = first.request(&alice, "start website").await;
    answer.says("is running");
}

/// Starting bots receive the signals before the command that they are about.
#[tokio::test(flavor = "multi_thread")]
async fn signals_of_accounts_that_are_not_announced_as_hosts_silence_no_bot() {
    let (alice, mallory, carol) = (
        person("alice").await,
        person("mallory").await,
        person("carol").await,
    );
    let mut bots = two_hosts(&alice).await;
    for bot in &mut bots {
        bot.wait_until_known_to(&alice).await;
        bot.kill_9();
    }
    // One of them is in the room, and the other was announced and has left it.
    let room = bots[0].admin_room();
    for member in [&mallory, &carol] {
        alice.invite(room, member.user_id()).await.unwrap();
        member.sees("the room", |event| event.room == *room).await;
    }
    let announcement = json!({ "host": "build3", "projects": {} });
    let left = carol.room(room);
    left.send_state_event_raw("rcbot.host", carol.user_id().as_str(), announcement)
        .await
        .unwrap();
    left.leave().await.unwrap();
    let asked = bots[0].send(&alice, "status").await;
    let claim = json!({ "about": asked, "kind": "claim" });
    let claim = Raw::new(&claim).unwrap().cast_unchecked();
    let devices = BTreeMap::from([(DeviceIdOrAllDevices::AllDevices, claim)]);
    let users = bots
        .iter()
        .map(|bot| (bot.user_id().to_owned(), devices.clone()));
    let users: BTreeMap<_, _> = users.collect();
    for sender in [&mallory, &carol] {
        let request = send_event_to_device::v3::Request::new_raw(
            "rcbot.host_signal".into(),
            TransactionId::new(),
            users.clone(),
        );
        sender.client().send(request).await.unwrap();
    }
    for bot in &mut bots {
        bot.run();
    }
    for bot in &mut bots {
        let dropped = "signal of a user who is not the bot of an announced host dropped";
        bot.wait_for_log_times(dropped, 2).await;
    }
    answer_to(&alice, &asked).await;
    assert_eq!(alice.answers_to(&asked).len(), 1);
}

//! Several hosts, one admin room: each command is answered by one bot, the one that is meant.

use matrix_sdk::ruma::{OwnedEventId, OwnedUserId};
use serde_json::json;

use crate::support::{bot::Bot, event::Event, eventually, homeserver, person, person::Person};

/// Two hosts in alice's admin room, both with a project `website`, and each with one of its own.
async fn two_hosts(alice: &Person) -> [Bot; 2] {
    let first = Bot::builder(homeserver())
        .configure(|config| config["host"] = json!("build1"))
        .project("website", |project| project)
        .project("api", |project| project)
        .power_levels(json!({ "events": { "rcbot.host": 0 } }))
        .start(alice)
        .await;
    let second = Bot::builder(homeserver())
        .beside(&first)
        .configure(|config| config["host"] = json!("build2"))
        .project("website", |project| project)
        .project("notes", |project| project)
        .start(alice)
        .await;
    let bots = [first, second];
    // What a bot announces comes to the other with its next sync, and so before what is said after it was seen.
    for bot in &bots {
        let user = bot.user_id().as_str();
        alice
            .wait_for("the announcement", |event| {
                event.kind == "rcbot.host" && event.sender == user
            })
            .await
            .unwrap();
    }
    bots
}

/// Says something in the room, waits until every bot has decided whose it is, and returns the question and an answer to it.
async fn request(bots: &[Bot; 2], alice: &Person, command: &str) -> (OwnedEventId, Event) {
    let [first, _] = bots;
    let asked = first.send(alice, command).await;
    for bot in bots {
        bot.decision(&asked).await;
    }
    let is_answer = |event: &Event| event.replies_to() == Some(asked.as_str());
    let answer = alice.wait_for(command, is_answer).await.unwrap();
    (asked, answer)
}

/// The users who have answered a question.
fn answered_by(alice: &Person, asked: &OwnedEventId) -> Vec<OwnedUserId> {
    let mut events = alice.events();
    events.retain(|event| event.replies_to() == Some(asked.as_str()));
    events.into_iter().map(|event| event.sender).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_one_that_is_meant_answers_and_no_other() {
    let alice = person("alice").await;
    let bots = two_hosts(&alice).await;
    let users = bots.each_ref().map(|bot| bot.user_id().to_owned());
    let mut asked = Vec::new();
    // By nobody in particular, or by one of them.
    let mut request = async |command: &str, by: Option<usize>| {
        let (question, answer) = request(&bots, &alice, command).await;
        let by = by.map_or(answer.sender.clone(), |host| users[host].clone());
        asked.push((command.to_owned(), question.clone(), by));
        (question, answer.body().unwrap().to_owned())
    };

    let (_, question) = request("start website", None).await;
    assert!(
        question.contains("`website@build1`, `website@build2`"),
        "{question}"
    );
    assert_eq!(bots.each_ref().map(Bot::standin_starts), [0, 0]);
    let (question, _) = request("start website@build2", Some(1)).await;
    assert_eq!(bots.each_ref().map(Bot::standin_starts), [0, 1]);
    let judged = bots[0].decision(&question).await;
    assert!(
        judged.contains("decision=\"left to another host\""),
        "{judged}"
    );
    request("start api", Some(0)).await;
    assert_eq!(bots.each_ref().map(Bot::standin_starts), [1, 1]);

    let status = eventually("both sessions are announced", async || {
        let (_, status) = request("status", None).await;
        (status.matches("running since").count() == 2).then_some(status)
    })
    .await;
    for part in ["build1:", "build2:", "notes:"] {
        assert!(status.contains(part), "{part} is not in: {status}");
    }
    // Of two hosts with the project, the one whose session runs is meant.
    request("stop website", Some(1)).await;
    request("doctor @build2", Some(1)).await;
    let (_, unknown) = request("start website@nowhere", None).await;
    assert!(
        unknown.contains("There is no host `nowhere` here"),
        "{unknown}"
    );

    // Whatever else they had to say is said by the time that each of them has answered once more.
    request("status @build1", Some(0)).await;
    request("status @build2", Some(1)).await;
    alice.catch_up().await.unwrap();
    for (command, question, by) in asked {
        assert_eq!(answered_by(&alice, &question), [by], "{command}");
    }
}

//! Several hosts, one admin room: each command is answered by one bot, the one that is meant.

use matrix_sdk::ruma::OwnedEventId;
use serde_json::json;

use crate::support::{bot::Bot, event::Event, eventually, homeserver, person::Person};

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
    for bot in &bots {
        eventually("the bots know of one another", async || {
            (bot.log().contains("host announced")).then_some(())
        })
        .await;
    }
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

/// Says something in the room, waits until every bot has looked at it, and returns the one answer.
async fn ask(bots: &mut [Bot; 2], alice: &Person, command: &str) -> Event {
    let [first, _] = &*bots;
    let asked = first.tell(alice, command).await;
    for bot in bots.iter_mut() {
        bot.wait_for_log(&format!("event={asked}")).await;
    }
    let answer = alice
        .wait_for("an answer", |event| {
            event.replies_to() == Some(asked.as_str())
        })
        .await
        .unwrap();
    assert_eq!(answers(alice, &asked), 1, "{command}");
    answer
}

fn answers(alice: &Person, asked: &OwnedEventId) -> usize {
    let events = alice.events();
    let answers = events
        .iter()
        .filter(|event| event.replies_to() == Some(asked.as_str()));
    answers.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_one_that_is_meant_answers_and_no_other() {
    let alice = Person::register(homeserver(), "alice").await.unwrap();
    let mut bots = two_hosts(&alice).await;

    let question = ask(&mut bots, &alice, "start website").await;
    let text = question.body().unwrap().to_owned();
    assert!(
        text.contains("`website@build1`, `website@build2`"),
        "{text}"
    );
    assert_eq!(bots.each_ref().map(Bot::standin_starts), [0, 0]);

    let answer = ask(&mut bots, &alice, "start website@build2").await;
    assert_eq!(answer.sender, bots[1].user_id().as_str());
    assert_eq!(bots.each_ref().map(Bot::standin_starts), [0, 1]);
    bots[0]
        .wait_for_log("decision=\"left to another host\"")
        .await;
    let answer = ask(&mut bots, &alice, "start api").await;
    assert_eq!(answer.sender, bots[0].user_id().as_str());
    assert_eq!(bots.each_ref().map(Bot::standin_starts), [1, 1]);

    let status = eventually("both sessions are announced", async || {
        let status = ask(&mut bots, &alice, "status").await;
        let text = status.body().unwrap().to_owned();
        (text.matches("running since").count() == 2).then_some(text)
    })
    .await;
    for part in ["build1:", "build2:", "notes:"] {
        assert!(status.contains(part), "{part} is not in: {status}");
    }
    // Of two hosts with the project, the one whose session runs is meant.
    let answer = ask(&mut bots, &alice, "stop website").await;
    assert_eq!(answer.sender, bots[1].user_id().as_str());
    let answer = ask(&mut bots, &alice, "doctor @build2").await;
    assert_eq!(answer.sender, bots[1].user_id().as_str());
    let unknown = ask(&mut bots, &alice, "start website@nowhere").await;
    assert!(
        unknown
            .body()
            .unwrap()
            .contains("There is no host `nowhere` here")
    );
}

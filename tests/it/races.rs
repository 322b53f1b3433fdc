//! Commands that come close upon one another: each gets its answer, and none makes a second process.

use std::collections::BTreeSet;

use crate::support::{bot::Bot, homeserver, person::Person};

async fn alice() -> Person {
    Person::register(homeserver(), "alice").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_person_says_is_obeyed_in_its_order() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver())
        .project("api", |project| project)
        .project("website", |project| project.standin("slow=30"))
        .start(&alice)
        .await;
    let start = bot.tell(&alice, "start website").await;
    // Without a name it means the one session that there is, once the start before it was obeyed.
    let stop = bot.tell(&alice, "stop").await;
    let stopped = bot.answer(&alice, &stop).await;
    assert!(
        stopped
            .body()
            .unwrap()
            .starts_with("Session for website is stopped"),
        "{stopped}"
    );
    let started = bot.answer(&alice, &start).await;
    assert_eq!(
        started.body(),
        Some("Failed to start website: it was stopped before it showed a link.")
    );
    assert!(bot.session_processes().is_empty());
    assert!(bot.links_of(&alice).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_starts_at_once_make_one_process_and_fifty_equal_answers() {
    let alice = alice().await;
    let bot = Bot::builder(homeserver())
        .project("website", |project| project.standin("slow=3"))
        .start(&alice)
        .await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(bot.tell(&alice, "start").await);
    }
    for command in &asked {
        let answer = bot.answer(&alice, command).await;
        assert_eq!(
            answer.body(),
            Some("Session for website is running. I sent you the link privately.")
        );
    }
    assert_eq!(bot.standin_starts(), 1);
    let links: BTreeSet<_> = bot
        .links_of(&alice)
        .iter()
        .map(|message| message.body().unwrap().lines().nth(2).unwrap().to_owned())
        .collect();
    assert_eq!(links.len(), 1, "one and the same link");
}

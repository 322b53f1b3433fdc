//! Commands that come close upon one another: each gets its answer, in their order.

use crate::support::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_person_are_executed_in_order() {
    let alice = person("alice").await;
    let bot = bot()
        .project("api", |project| project)
        .project("website", |project| project.standin("slow=30"))
        .start(&alice)
        .await;
    let start = bot.send(&alice, "start website").await;
    // Without a name it means the one session that there is, once the start before it was executed.
    let stop = bot.send(&alice, "stop").await;
    let stopped = bot.answer(&alice, &stop).await;
    stopped.begins("website stopped");
    let started = bot.answer(&alice, &start).await;
    started.is("website did not start: it was stopped before it showed a link.");
    assert!(bot.session_processes().is_empty());
    assert!(bot.links_of(&alice).is_empty());
}

//! What people see of a start besides its link: what it opens, and how long.

use std::fs;

use serde_json::json;

use crate::support::{bot::Bot, homeserver, person::Person};

async fn alice() -> Person {
    Person::register(homeserver(), "alice").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_comes_with_what_it_opens_and_for_whom() {
    let alice = alice().await;
    let login = tempfile::tempdir().unwrap();
    let state = json!({ "oauthAccount": { "emailAddress": "alice@claude.example" } });
    fs::write(login.path().join(".claude.json"), state.to_string()).unwrap();
    let bot = Bot::builder(homeserver())
        .project("website", |project| {
            project
                .environment("CLAUDE_CONFIG_DIR", login.path())
                .set("max_duration", "12h")
        })
        .start(&alice)
        .await;

    let sent = bot.start_session(&alice, "website").await;
    let body = sent.event.body().unwrap();
    let directory = bot.project_directory("website");
    for part in [
        "Remote Control session for website on ",
        &format!("Directory: `{}`", directory.display()),
        "Opens for: alice@claude.example",
        " UTC (12h)",
        "say `!rc stop website` in the admin room",
    ] {
        assert!(body.contains(part), "{part:?} is not in {body}");
    }
    // Whose account it is concerns nobody in the admin room.
    let said = alice.events();
    assert!(said.iter().all(|event| {
        event.room != bot.admin_room() || !event.json.to_string().contains("claude.example")
    }));
}

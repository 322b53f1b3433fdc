//! Runs start, status and stop, and verifies the bot's promises.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::{event::Event, prompt::describe, setup::Playground};

/// The beginning of the link.
const LINK: &str = "https://claude.ai/code";

/// How long an effect of the last answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs it, shows the conversation, and fails at the first broken promise.
pub(crate) async fn play(playground: &Playground) -> Result<()> {
    let link = start(playground).await?;
    let status = command(playground, "!rc status").await?;
    ensure!(
        status.body().is_some_and(|body| body.contains("website")),
        "the status does not name the project"
    );
    command(playground, "!rc stop").await?;
    stopped(playground, &link).await?;

    let room = playground
        .admin
        .events()
        .into_iter()
        .filter(|event| event.room == playground.admin_room);
    ensure!(
        !room
            .into_iter()
            .any(|event| event.json.to_string().contains(LINK)),
        "the link is in the admin room"
    );
    println!(
        "All as promised: the link came encrypted, only in the direct message; it was deleted, and no process is left."
    );
    Ok(())
}

/// Starts a session and returns the message with its link.
async fn start(playground: &Playground) -> Result<Event> {
    let earlier = playground.admin.events().len();
    command(playground, "!rc start").await?;
    let bot = &playground.bot_user;
    let is_new = |event: &Event| {
        !playground
            .admin
            .events()
            .iter()
            .take(earlier)
            .any(|known| known.id == event.id)
    };
    let is_link = |event: &Event| {
        event.sender == *bot
            && event.body().is_some_and(|body| body.contains(LINK))
            && is_new(event)
    };
    let link = playground.admin.wait_for("the link", is_link).await?;
    show(playground, &link);

    ensure!(
        link.room != playground.admin_room,
        "the link came in the admin room"
    );
    ensure!(link.encryption.is_some(), "the link came unencrypted");
    ensure!(
        link.shield() == "none",
        "a client warns about the link's message: {}",
        link.shield()
    );
    let stored = playground
        .admin
        .event_from_server(&link.room, &link.id)
        .await?;
    ensure!(
        stored
            .get("type")
            .is_some_and(|kind| kind == "m.room.encrypted"),
        "the homeserver can read the link"
    );
    ensure!(playground.session_processes() > 0, "no session is running");
    Ok(link)
}

/// Asserts that the process is gone, and that the homeserver has redacted the message with the link.
async fn stopped(playground: &Playground, link: &Event) -> Result<()> {
    ensure!(
        playground.session_processes() == 0,
        "the session's process still runs"
    );
    let deadline = Instant::now() + DEADLINE;
    loop {
        let stored = playground
            .admin
            .event_from_server(&link.room, &link.id)
            .await?;
        if stored
            .get("content")
            .and_then(|content| content.as_object())
            .is_some_and(serde_json::Map::is_empty)
        {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the message with the link was not deleted"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a command and returns the bot's answer to it.
async fn command(playground: &Playground, text: &str) -> Result<Event> {
    println!("> {text}");
    let said = playground
        .admin
        .send_text(&playground.admin_room, text)
        .await?;
    let bot = &playground.bot_user;
    let answer = |event: &Event| event.sender == *bot && event.replies_to() == Some(said.as_str());
    let answer = playground
        .admin
        .wait_for("an answer", answer)
        .await
        .with_context(|| format!("no answer to {text}"))?;
    show(playground, &answer);
    Ok(answer)
}

fn show(playground: &Playground, event: &Event) {
    if let Some(description) = describe(playground, event) {
        println!("{description}");
    }
}

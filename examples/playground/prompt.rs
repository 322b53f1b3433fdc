//! Sends what is typed to the admin room, and shows the bot's messages.

use std::{
    collections::HashSet,
    io::{BufRead as _, Write as _},
};

use anyhow::Result;
use matrix_sdk::ruma::OwnedEventId;
use tokio::sync::mpsc;

use crate::{event::Event, setup::Playground};

/// Runs until `/quit` or the end of standard input.
pub(crate) async fn run(playground: &Playground) -> Result<()> {
    println!(
        "Type a command, for example `!rc start` or `!rc help`; /client shows how to use a Matrix client, /quit ends."
    );
    let mut lines = typed_lines();
    let mut events = playground.admin.watch_events();
    let mut shown = HashSet::new();
    prompt()?;
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else {
                    println!();
                    return Ok(());
                };
                match line.trim() {
                    "" => {}
                    "/quit" => return Ok(()),
                    "/client" => println!("{}", playground.log_in_elsewhere()),
                    "/verify" => playground.verify_devices().await?,
                    text => {
                        playground.admin.send_text(&playground.admin_room, text).await?;
                    }
                }
                prompt()?;
            }
            changed = events.changed() => {
                changed?;
                let news = events.borrow_and_update().iter().filter_map(|event| new(playground, event, &mut shown)).collect::<Vec<_>>();
                for description in &news {
                    // Overwrites the waiting prompt.
                    println!("\r{description}");
                }
                if !news.is_empty() {
                    prompt()?;
                }
            }
        }
    }
}

fn new(
    playground: &Playground,
    event: &Event,
    shown: &mut HashSet<OwnedEventId>,
) -> Option<String> {
    let description = describe(playground, event)?;
    shown.insert(event.id.clone()).then_some(description)
}

fn prompt() -> Result<()> {
    print!("> ");
    Ok(std::io::stdout().flush()?)
}

/// A message or redaction of the bot, with its room and encryption; `None` for events without a text or key.
pub(crate) fn describe(playground: &Playground, event: &Event) -> Option<String> {
    if event.sender != playground.bot_user {
        return None;
    }
    let place = if event.room == playground.admin_room {
        "admin room"
    } else {
        "DM"
    };
    if event.redacts().is_some() {
        return Some(format!("[{place}] a message was removed"));
    }
    let body = event.body()?;
    let encryption = if event.encryption.is_some() {
        "encrypted, shield: "
    } else {
        ""
    };
    Some(format!("[{place}, {encryption}{}] {body}", event.shield()))
}

/// The lines of standard input, read by another thread, as the read cannot be cancelled.
fn typed_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

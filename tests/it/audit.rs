//! Each command leaves its traces in the audit log, and no secret does.

use matrix_sdk::ruma::OwnedEventId;

use crate::support::prelude::*;

/// The lines of the audit log about this event, once there are this many.
async fn audited(bot: &Bot, event: &OwnedEventId, lines: usize) -> Vec<String> {
    eventually("the lines in the audit log", async || {
        let found = bot.audit(event);
        (found.len() >= lines).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_leaves_who_what_decision_and_outcome_in_the_audit_log() {
    let (alice, bob) = (person("alice").await, person("bob").await);
    let bot = bot().invite(bob.user_id()).start(&alice).await;
    let user = alice.user_id();
    let started = bot.send(&alice, "start").await;
    bot.answer(&alice, &started).await;
    let link = bot.link_after(&alice, 0).await;
    assert_eq!(
        audited(&bot, &started, 2).await,
        [
            format!(
                "command judged user=\"{user}\" command=\"start\" project=\"website\" spawn=\"same-dir\" \
                 named=false decision=\"allowed\""
            ),
            format!("command done user=\"{user}\" project=\"website\" outcome=\"link sent\""),
        ]
    );
    let stopped = bot.send(&alice, "stop website").await;
    bot.answer(&alice, &stopped).await;
    assert_eq!(
        audited(&bot, &stopped, 2).await,
        [
            format!(
                "command judged user=\"{user}\" command=\"stop website\" project=\"website\" decision=\"allowed\""
            ),
            format!(
                "command done user=\"{user}\" project=\"website\" outcome=\"session stopped\" why=\"Stopped\""
            ),
        ]
    );
    let asked = bot.send(&alice, "status").await;
    let lines = audited(&bot, &asked, 2).await;
    assert!(lines[1].ends_with("outcome=\"answered\""), "{lines:?}");
    assert!(!bot.log().contains(&link.link));

    // So does a refusal, also one without an answer.
    let (user, why) = (bob.user_id(), "PowerLevel { has: 0, needs: 100 }");
    for command in ["start website", "stop"] {
        let refused = bot.send(&bob, command).await;
        let judged = format!(
            "command judged user=\"{user}\" command=\"{command}\" decision=\"denied\" why=\"{why}\""
        );
        assert_eq!(audited(&bot, &refused, 1).await, [judged]);
    }
    // User input cannot forge a line of the log.
    let forged = "dance\n2026-01-01T00:00:00Z  INFO audit: command judged user=\"@root:x\"";
    let refused = bot.send(&alice, forged).await;
    let lines = audited(&bot, &refused, 1).await;
    let command =
        r#"command="!rc dance\n2026-01-01T00:00:00Z  INFO audit: command judged user=\"@root:x\""#;
    assert!(lines[0].contains(command), "{lines:?}");
    assert!(lines[0].contains("decision=\"misused\""), "{lines:?}");
    let log = bot.log();
    assert!(
        !log.lines()
            .any(|line| line.starts_with("2026-01-01T00:00:00Z"))
    );
}

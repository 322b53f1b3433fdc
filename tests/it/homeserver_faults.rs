//! A homeserver that is down, slow or faulty, or has logged the bot out: the bot waits, logs it, and goes on.
//!
//! No test can wait for an outage of ten minutes. These last seconds, but where it matters longer than the bot's retry delay
//! takes to reach its maximum.

use std::time::Duration;

use crate::support::prelude::*;

/// The homeserver goes down during a start, at first completely, then behind a reverse proxy that answers in its place. It
/// comes back once the bot's retry delay, which doubles from a quarter of a second, has its maximum.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_waits_for_the_homeserver_arrives_once_it_is_back() {
    let (alice, proxy, bot) =
        behind_proxy(|bot| bot.project("website", |it| it.standin("held"))).await;
    let asked = bot.send(&alice, "start").await;
    until("the stand-in starts", || bot.standin_starts() == 1).await;
    proxy.unplug();
    bot.release_links();
    bot.wait_for_state("website", "running").await;
    for reverse_proxy in [false, true] {
        if reverse_proxy {
            proxy.on(|_| true).answer(Answer::error_page(502));
            proxy.plug_in();
        }
        let tries = || proxy.refused_connections() + proxy.passed().len();
        let before = tries();
        until("the bot retries", || tries() >= before + 8).await;
    }
    assert!(bot.links_of(&alice).is_empty());
    proxy.be_honest();
    bot.link_after(&alice, 0).await;
    bot.answer(&alice, &asked).await;
    assert_eq!(bot.links_of(&alice).len(), 1);
    assert_eq!(bot.standin_starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_of_the_homeserver_is_respected() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let patience = Duration::from_secs(1);
    let too_many = Answer::json(
        429,
        &json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Too many requests", "retry_after_ms": 1000 }),
    );
    // More often than the SDK retries on its own.
    let times = 5;
    proxy
        .on(Request::sends)
        .times(times)
        .answer(too_many.header("retry-after", "1"));
    bot.start_session(&alice, "website").await;
    // The last one may be the reaction that offers the picture; nothing waits for that.
    let waits = eventually("the refused requests are retried", async || {
        let sent = proxy.passed_by(Request::sends);
        let refused = sent.iter().filter(|sent| sent.status == 429);
        let waits = refused.map(|refused| {
            let mut later = sent.iter().filter(|later| later.at > refused.at);
            let again = later.find(|later| later.request.path == refused.request.path)?;
            Some(again.at - refused.at)
        });
        let waits = waits.collect::<Option<Vec<_>>>()?;
        (waits.len() == times).then_some(waits)
    })
    .await;
    // Only the lower bound is promised.
    assert!(waits.iter().all(|wait| *wait >= patience), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_that_the_homeserver_asks_for_is_logged() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    let mut bot = bot().through(&proxy).prepare(&alice).await;
    let too_many =
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "no", "retry_after_ms": 60_000 });
    let versions = |request: &Request| request.path.ends_with("/client/versions");
    proxy.on(versions).answer(Answer::json(429, &too_many));
    bot.run();
    bot.wait_for_log("asks for a pause before this request is sent again")
        .await;
}

/// The error pages of reverse proxies whose homeserver is down.
fn pages() -> [Answer; 11] {
    let location = |page: Answer| page.header("location", "/maintenance");
    [
        Answer::error_page(200),
        location(Answer::error_page(302)),
        location(Answer::error_page(307)),
        Answer::error_page(401),
        Answer::error_page(403),
        Answer::error_page(404),
        Answer::new(404, "text/plain", ""),
        Answer::json(404, &json!({ "error": "no route" })),
        Answer::error_page(429),
        Answer::error_page(502),
        Answer::refusal(500, "M_UNKNOWN"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_proxy_at_the_bots_start_are_waited_out() {
    let alice = person("alice").await;
    let proxy = Proxy::start(homeserver()).await;
    let mut bot = bot().through(&proxy).prepare(&alice).await;
    proxy.on(|_| true).answer(Answer::error_page(404));
    bot.run();
    show_pages(&proxy).await;
    bot.wait_until_ready(&alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_proxy_while_a_session_runs_are_waited_out() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let sent = bot.start_session(&alice, "website").await;
    show_pages(&proxy).await;
    // While a homeserver is updated, another part of it may refuse what it does not know.
    for (status, code) in [(403, "M_FORBIDDEN"), (404, "M_UNRECOGNIZED")] {
        show(&proxy, Request::is_sync, Answer::refusal(status, code)).await;
    }
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
}

async fn show_pages(proxy: &Proxy) {
    for page in pages() {
        show(proxy, |_| true, page).await;
    }
}

/// Answers two requests with this page: the first may have been on its way before.
async fn show(proxy: &Proxy, on: fn(&Request) -> bool, page: Answer) {
    proxy.be_honest();
    proxy.on(on).answer(page);
    let before = proxy.passed_by(on).len();
    until("further tries", || proxy.passed_by(on).len() >= before + 2).await;
    proxy.be_honest();
}

/// The bot tells all pages from answers in one place, so each request gets only three that differ most. There is no direct
/// message yet.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_proxy_during_a_start_and_a_stop_are_waited_out() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let of_each_kind = [
        Answer::error_page(404),
        Answer::json(404, &json!({ "error": "no route" })),
        Answer::refusal(500, "M_UNKNOWN"),
    ];
    let count = of_each_kind.len();
    for page in of_each_kind {
        let on = |matches: fn(&Request) -> bool| {
            proxy.on(matches).times(1).answer(page.clone());
        };
        // A start, its link and its answer, and all queries before them.
        on(Request::reads_event);
        // Of the admin room, and of the direct message.
        on(Request::reads_state);
        on(Request::reads_state);
        on(Request::queries_keys);
        on(Request::claims_keys);
        on(Request::makes_room);
        on(Request::sends_to_devices);
        on(Request::sends);
        let sent = bot.start_session(&alice, "website").await;
        // A stop, and the redaction.
        on(Request::reads_state);
        on(Request::sends);
        on(|request| request.path.contains("/redact/"));
        let stopped = bot.request(&alice, "stop").await;
        stopped.begins("website stopped");
        bot.wait_for_redaction(&alice, &sent).await;
        proxy.be_honest();
    }
    assert_eq!(bot.standin_starts(), count);
    assert_eq!(bot.links_of(&alice).len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_connection_makes_everything_slow_and_nothing_wrong() {
    let (alice, proxy) = (person("alice").await, Proxy::start(homeserver()).await);
    proxy.on(|_| true).slow_down();
    let bot = bot().through(&proxy).start(&alice).await;
    let sent = bot.start_session(&alice, "website").await;
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    proxy.be_honest();

    // Answers that break off.
    proxy.on(Request::is_sync).times(2).cut();
    for request in [
        Request::reads_event,
        Request::reads_state,
        Request::reads_state,
        Request::queries_keys,
        Request::sends,
        Request::sends_to_devices,
    ] {
        proxy.on(request).times(1).cut();
    }
    bot.start_session(&alice, "website").await;
    assert_eq!(bot.standin_starts(), 2);
    assert_eq!(bot.links_of(&alice).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_executed_while_the_homeserver_holds_the_link_back() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let link = elsewhere(bot.admin_room(), Request::sends);
    let held = proxy.on(link).times(1).hold();
    bot.send(&alice, "start").await;
    until("the link is on its way", || held.has_caught()).await;
    let stopped = bot.request(&alice, "stop").await;
    stopped.begins("website stopped");
    assert!(bot.session_processes().is_empty());
    assert!(bot.links_of(&alice).is_empty());
    drop(held);
    bot.start_session(&alice, "website").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_softly_is_replaced_and_a_deleted_device_gives_way_to_another() {
    let (alice, proxy, mut bot) = behind_proxy(|bot| bot).await;
    let sent = bot.start_session(&alice, "website").await;
    let before = bot.stored_log_in();
    let revoked =
        json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Soft logout", "soft_logout": true });
    let token = before["access_token"].as_str().unwrap().to_owned();
    proxy
        .on(move |request| request.bears(&token))
        .answer(Answer::json(401, &revoked));
    let asked = bot.send(&alice, "status").await;
    bot.wait_until_connected(2).await;
    bot.answer(&alice, &asked).await;
    let after = bot.stored_log_in();
    assert_eq!(after["device_id"], before["device_id"]);
    assert_ne!(after["access_token"], before["access_token"]);

    // Logging a device out deletes it.
    bot.log_out(homeserver()).await;
    bot.wait_until_connected(3).await;
    assert_ne!(bot.stored_log_in()["device_id"], after["device_id"]);
    bot.wait_until_ready(&alice).await;
    // Clients show no warning beside its answers, and the link is that of the running session.
    let again = bot.start_session(&alice, "website").await;
    assert_eq!(again.link, sent.link);
    assert_eq!(bot.standin_starts(), 1);
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
    bot.wait_for_redaction(&alice, &again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_removed_from_the_admin_room_returns_when_it_is_invited() {
    let (alice, mut bot) = alice_and_bot().await;
    let sent = bot.start_session(&alice, "website").await;
    let room = alice.room(bot.admin_room());
    for (removals, ban) in [(1, false), (2, true)] {
        if ban {
            room.ban_user(bot.user_id(), None).await.unwrap();
        } else {
            room.kick_user(bot.user_id(), None).await.unwrap();
        }
        bot.wait_for_log_times(
            "removed from the admin room: invite the bot again",
            removals,
        )
        .await;
        assert_eq!(bot.session_processes().len(), 1, "the session goes on");
        if ban {
            room.unban_user(bot.user_id(), None).await.unwrap();
        }
        alice.invite(bot.admin_room(), bot.user_id()).await.unwrap();
        bot.wait_until_ready(&alice).await;
        let status = bot.request(&alice, "status").await;
        status.says("running");
    }
    bot.request(&alice, "stop").await;
    bot.wait_for_redaction(&alice, &sent).await;
}

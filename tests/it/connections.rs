//! How many connections the bot makes to its homeserver: each is a round trip or two before its first request.

use crate::support::{prelude::*, proxy::CERTIFICATE};

/// How many requests of a start are made at once: what is new, and what decides about the command and about the direct message.
const REQUESTS_AT_ONCE: usize = 5;

/// How many connections are made for a start after minutes in which nothing was said: a homeserver has closed all by then but
/// the one on which it is asked what is new.
async fn connections_of_a_start(proxy: &Proxy, bot: &Bot, alice: &Person) -> usize {
    bot.start_session(alice, "website").await;
    bot.request(alice, "help").await;
    proxy.close_idle_connections().await;
    let before = proxy.connections();
    bot.start_session(alice, "website").await;
    proxy.connections() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_idle_minutes_makes_no_connection_where_http_2_is_spoken() {
    let alice = person("alice").await;
    let proxy = Proxy::start_with_http2(homeserver()).await;
    let mut bot = bot().through(&proxy).prepare(&alice).await;
    bot.set_variable("SSL_CERT_FILE", CERTIFICATE);
    bot.run();
    bot.wait_until_ready(&alice).await;
    assert_eq!(connections_of_a_start(&proxy, &bot, &alice).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_idle_minutes_makes_a_connection_for_each_request_at_once_at_most() {
    let (alice, proxy, bot) = behind_proxy(|bot| bot).await;
    let made = connections_of_a_start(&proxy, &bot, &alice).await;
    // The one that was left serves one of them.
    assert!(made < REQUESTS_AT_ONCE, "{made}");
}

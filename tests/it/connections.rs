//! How many connections the bot makes to its homeserver: each costs a round trip or two before its first request.

use crate::support::{prelude::*, proxy::CERTIFICATE};

/// How many requests of a start are made at once: /sync, and those that judge the command and the direct message.
const REQUESTS_AT_ONCE: usize = 5;

/// How many connections a start makes after idle minutes: by then a homeserver has closed all except that of /sync.
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
    // The open connection serves one of them.
    assert!(made < REQUESTS_AT_ONCE, "{made}");
}

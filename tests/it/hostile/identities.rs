//! Devices and identities that the homeserver makes up.

use super::sessions;
use crate::support::{impostor::Impostor, prelude::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_a_temporary_identity_commands_nothing_afterwards() {
    let alice = person("alice").await;
    let users = json!({ alice.user_id(): alice.master_key().await });
    let proxy = Proxy::start(homeserver()).await;
    let mut bot = bot()
        .through(&proxy)
        .configure(|config| config["authorization"]["users"] = users)
        .start(&alice)
        .await;
    let impostor = Impostor::identity_of(alice.user_id()).await;
    impostor.show(&proxy);
    let room = bot.admin_room().to_owned();
    impostor
        .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
        .await;
    bot.wait_for_log("why=\"IdentityChanged\"").await;

    // The SDK stores with the Megolm session that its sender was signed by the owner, as the owner was shown then.
    proxy.be_honest();
    impostor
        .send_text(&proxy, &alice, bot.user_id(), &room, "!rc start")
        .await;
    bot.wait_for_log("why=\"UnsignedDevice\"").await;
    assert_eq!(sessions(&bot), 0);
    bot.start_session(&alice, "website").await;
}

//! Devices and identities that the homeserver makes up.

use matrix_sdk::ruma::OwnedEventId;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_had_the_id_of_the_users_own_commands_nothing() {
    let alice = person("alice").await;
    let users = json!({ alice.user_id(): alice.master_key().await });
    let proxy = Proxy::start(homeserver()).await;
    // It has the id of the device that she uses, which the bot does not know yet.
    let device = alice.client().device_id().unwrap();
    let impostor = Impostor::identity_with_device(alice.user_id(), device).await;
    impostor.show(&proxy);
    let bot = bot()
        .through(&proxy)
        .configure(|config| config["authorization"]["users"] = users)
        .start(&alice)
        .await;
    let room = bot.admin_room().to_owned();
    let command = async || {
        let event = impostor.send_text(&proxy, &alice, bot.user_id(), &room, "!rc start");
        let event = event.await;
        OwnedEventId::try_from(event["event_id"].as_str().unwrap()).unwrap()
    };
    let asked = command().await;
    bot.wait_for_refusal(&asked, "IdentityChanged").await;

    // The SDK stores with the Megolm session that its sender was signed by the owner, as the owner was shown then. And it takes
    // other keys for a device only after that was gone.
    for is_gone in [true, false] {
        proxy.be_honest();
        if is_gone {
            let user = alice.user_id().to_owned();
            proxy.on(Request::queries_keys).rewrite(move |_, answer| {
                if let Some(devices) = answer["device_keys"].get_mut(user.as_str()) {
                    *devices = json!({});
                }
            });
        }
        let asked = command().await;
        bot.wait_for_refusal(&asked, "UnsignedDevice").await;
    }
    assert_eq!(sessions(&bot), 0);
}

//! The private keys of a bot, read from its store once it has ended.

use matrix_sdk::{SqliteCryptoStore, ruma::events::secret::request::SecretName};
use matrix_sdk_base::crypto::store::CryptoStore as _;

use super::bot::Bot;

/// Where the ratchet lies in the text of a Megolm key, which is base64: behind the version and the index, whose bytes depend on
/// the form of the key.
const RATCHET: std::ops::Range<usize> = 8..60;

impl Bot {
    /// All its keys, in base64, with the names of what they are for.
    pub(crate) async fn private_keys(&self) -> Vec<(&'static str, String)> {
        let folder = self.data_dir().join("matrix/store");
        let store = SqliteCryptoStore::open(folder, None).await.unwrap();
        let mut keys = Vec::new();
        for session in store.get_inbound_group_sessions().await.unwrap() {
            let key = session.export().await.session_key.to_base64();
            keys.push(("room key", key[RATCHET].to_owned()));
        }
        let identity = store.load_identity().await.unwrap().unwrap();
        for (name, secret) in [
            ("master key", SecretName::CrossSigningMasterKey),
            ("self-signing key", SecretName::CrossSigningSelfSigningKey),
            ("user-signing key", SecretName::CrossSigningUserSigningKey),
        ] {
            keys.push((name, identity.export_secret(&secret).await.unwrap()));
        }
        keys
    }
}

//! The byte formats of the wire contract: join tokens and sealed secrets.

use std::sync::LazyLock;

use lictor_proto::sealing::{Binding, SealingKey, seal};
use lictor_proto::token::JoinToken;
use lictor_proto::v1::SealedSecret;
use prost::Message as _;

/// Any text as a join token: there is one way to write each token, and nothing but the token is shown of a secret.
pub fn join_token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let result = text.parse::<JoinToken>();
    let shown = match &result {
        Ok(token) => {
            assert_eq!(token.to_text().as_str(), text.trim(), "two ways to write a token");
            assert!(!token.id.is_empty() && token.id.len() <= 64);
            format!("{token:?}")
        }
        Err(error) => error.to_string(),
    };
    assert!(shown.len() < 256, "{shown}");
    // Not blanks and colons: libFuzzer once took our own error text for a secret.
    let could_be = |secret: &&str| secret.len() >= 40 && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if let Some(secret) = text.split('.').nth(2).filter(could_be) {
        assert!(!shown.contains(secret), "the secret is shown");
    }
}

/// Any bytes as a sealed secret in its message, and as a secret to be sealed.
///
/// - What decodes is written and read back alike.
/// - Nothing opens that was not sealed to the key, under another binding, or changed in one byte.
pub fn sealed_secret(data: &[u8]) {
    static KEY: LazyLock<SealingKey> = LazyLock::new(SealingKey::generate);
    const BINDING: Binding<'static> =
        Binding { agent_id: "agent", task_id: "task", epoch: 3, credential: "credential", credential_version: 7 };
    if let Ok(message) = SealedSecret::decode(data) {
        assert_eq!(SealedSecret::decode(message.encode_to_vec().as_slice()), Ok(message.clone()));
        assert!(KEY.open(&message, &BINDING).is_err(), "opened what nobody sealed");
    }
    let Ok(sealed) = seal(&KEY.public_bytes(), &BINDING, data) else {
        panic!("a secret of {} bytes cannot be sealed", data.len());
    };
    assert_eq!(KEY.open(&sealed, &BINDING).as_deref().map(Vec::as_slice), Ok(data));
    // The same letters, parted elsewhere.
    let other = Binding { agent_id: "agentt", task_id: "ask", ..BINDING };
    assert!(KEY.open(&sealed, &other).is_err(), "opened under another binding");
    let at = data.iter().fold(data.len(), |at, byte| at.wrapping_mul(251).wrapping_add(usize::from(*byte)));
    let mut changed = sealed.clone();
    match at % (sealed.ciphertext.len() + 32) {
        // The top bit of an X25519 key is not part of it (RFC 7748, section 5): any other one is.
        at @ 0..32 => changed.encapsulated_key[at] ^= 1,
        at => changed.ciphertext[at - 32] ^= data.first().copied().unwrap_or_default().max(1),
    }
    assert!(KEY.open(&changed, &BINDING).is_err(), "opened after a change");
}

//! The issuer's signing keys over time: made before they are needed, published for as long as a token of theirs may live.
//!
//! Time comes in as a value; this never reads a clock or a file. A private key leaves here in [`Keys::encode`] alone, to be encrypted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, Signature};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::OidcError;
use crate::clock::UnixMillis;

pub(super) use crate::vault::KEY_ID_BYTES as HEADER_BYTES;

/// Keys, oldest first.
#[derive(Clone, Default)]
pub(super) struct Keys(Vec<Dated>);

#[derive(Clone)]
struct Dated {
    made_at: UnixMillis,
    key: Arc<Key>,
}

/// A key.
pub(super) struct Key {
    id: String,
    pair: EcdsaKeyPair,
    /// The private key as it is stored.
    pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|dated| (dated.made_at, dated.key.id()))).finish()
    }
}

impl Keys {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key that tokens are signed with now.
    pub(super) fn signing(&self, now: UnixMillis) -> Option<&Key> {
        self.0.get(self.signing_at(now)).map(|dated| &*dated.key)
    }

    /// The newest that everybody had the time to fetch; the oldest when there is none.
    fn signing_at(&self, now: UnixMillis) -> usize {
        self.0.iter().rposition(|dated| dated.made_at.plus(PUBLISHED_BEFORE) <= now).unwrap_or(0)
    }

    /// Makes what is going to be needed, and forgets what no living token is signed with. Whether anything changed.
    pub(super) fn advance(&mut self, now: UnixMillis) -> Result<bool, OidcError> {
        let mut changed = false;
        // The clock went back. A key of the future would not sign, and no other be made, until then.
        for dated in self.0.iter_mut().filter(|dated| dated.made_at > now.plus(CLOCKS)) {
            dated.made_at = now;
            changed = true;
        }
        if self.0.last().is_none_or(|newest| newest.made_at.plus(RENEWED_AFTER) <= now) {
            self.0.push(Dated { made_at: now, key: Arc::new(Key::generate()?) });
            changed = true;
        }
        let signing = self.signing_at(now);
        let since = self.0.get(signing).map(|dated| dated.made_at.plus(PUBLISHED_BEFORE));
        if signing > 0 && since.is_some_and(|since| since.plus(KEPT_AFTER) <= now) {
            self.0.drain(..signing);
            changed = true;
        }
        Ok(changed)
    }

    /// The public keys, as a JSON Web Key Set ([RFC 7517]).
    ///
    /// [RFC 7517]: https://www.rfc-editor.org/rfc/rfc7517
    pub(super) fn public(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().map(|dated| dated.key.public()).collect();
        json!({ "keys": keys })
    }

    /// As it is stored, in clear.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // As much as it takes at most: what grows leaves copies behind.
        let room = 1 + self.0.iter().map(|dated| 10 + dated.key.pkcs8.len()).sum::<usize>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.push(FORM);
        for Dated { made_at, key } in &self.0 {
            bytes.extend_from_slice(&made_at.0.to_be_bytes());
            bytes.extend_from_slice(&u16::try_from(key.pkcs8.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend_from_slice(&key.pkcs8);
        }
        bytes
    }

    /// Reads what [`Keys::encode`] wrote. Nothing when it is something else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[FORM])?;
        let mut keys = Vec::new();
        while !rest.is_empty() {
            let (made_at, behind) = rest.split_first_chunk()?;
            let (length, behind) = behind.split_first_chunk()?;
            let (pkcs8, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
            let key = Key::new(Zeroizing::new(pkcs8.to_vec())).ok()?;
            keys.push(Dated { made_at: UnixMillis(i64::from_be_bytes(*made_at)), key: Arc::new(key) });
            rest = behind;
        }
        (!keys.is_empty() && keys.len() <= MAX_KEYS).then_some(Self(keys))
    }
}

impl Key {
    fn generate() -> Result<Self, OidcError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| OidcError::Signing)?;
        Self::new(Zeroizing::new(document.as_ref().to_vec()))
    }

    fn new(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, OidcError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(|_| OidcError::Signing)?;
        let (x, y) = coordinates(&pair);
        // The members that RFC 7638 counts, in its order: what the key is, is its name.
        let thumbprint = Sha256::digest(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
        Ok(Self { id: URL_SAFE_NO_PAD.encode(thumbprint), pair, pkcs8 })
    }

    /// Names it: its thumbprint ([RFC 7638]).
    ///
    /// [RFC 7638]: https://www.rfc-editor.org/rfc/rfc7638
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// ECDSA with P-256 and SHA-256, both numbers one behind the other ([RFC 7518] 3.4).
    ///
    /// [RFC 7518]: https://www.rfc-editor.org/rfc/rfc7518
    pub(super) fn sign(&self, message: &[u8]) -> Result<Signature, OidcError> {
        self.pair.sign(&SystemRandom::new(), message).map_err(|_| OidcError::Signing)
    }

    fn public(&self) -> Value {
        let (x, y) = coordinates(&self.pair);
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": super::ALGORITHM, "kid": self.id, "x": x, "y": y })
    }
}

/// Both coordinates of the public key, as JSON Web Keys have them.
fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    // Uncompressed, as ring gives it: a mark, then 32 bytes each.
    let point = pair.public_key().as_ref();
    let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

/// What the stored bytes begin with.
const FORM: u8 = 1;
/// Each key signs for 90 days. It is made a day before that, so that whoever keeps a copy of the keys has it by then.
const PUBLISHED_BEFORE: Duration = Duration::from_secs(86400);
const RENEWED_AFTER: Duration = Duration::from_secs(90 * 86400);
/// Tokens last ten minutes; clocks are not all right.
const KEPT_AFTER: Duration = Duration::from_secs(3600);
/// Clocks are set right by less than this.
const CLOCKS: Duration = Duration::from_secs(3600);
/// There are two at the most for a day.
const MAX_KEYS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86400);

    fn at(days: u32) -> UnixMillis {
        UnixMillis(1_700_000_000_000).plus(DAY * days)
    }

    fn id(keys: &Keys, now: UnixMillis) -> String {
        keys.signing(now).unwrap().id().to_owned()
    }

    fn published(keys: &Keys) -> Vec<String> {
        let public = keys.public();
        public["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_for_as_long_as_its_tokens_live() {
        let mut keys = Keys::default();
        assert!(keys.signing(at(0)).is_none());
        assert!(keys.advance(at(0)).unwrap());
        let first = id(&keys, at(0));
        for day in 0..90 {
            assert!(!keys.advance(at(day)).unwrap(), "{day}");
            assert_eq!((id(&keys, at(day)), keys.len()), (first.clone(), 1));
        }
        assert!(keys.advance(at(90)).unwrap());
        assert_eq!((id(&keys, at(90)), keys.len()), (first.clone(), 2), "the new one waits");
        let second = published(&keys).pop().unwrap();
        assert_eq!(id(&keys, at(91)), second);
        let late = at(91).plus(KEPT_AFTER);
        assert!(!keys.advance(late.minus(Duration::from_millis(1))).unwrap());
        assert_eq!(published(&keys), [first, second.clone()]);
        assert!(keys.advance(late).unwrap());
        assert_eq!(published(&keys), [second]);
    }

    #[test]
    fn a_key_that_was_due_long_ago_signs_on_until_the_new_one_is_known() {
        let mut keys = Keys::default();
        keys.advance(at(0)).unwrap();
        let first = id(&keys, at(0));
        assert!(keys.advance(at(500)).unwrap());
        assert_eq!((id(&keys, at(500)), keys.len()), (first.clone(), 2));
        keys.advance(at(502)).unwrap();
        assert_ne!(id(&keys, at(502)), first);
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn a_clock_that_jumps_leaves_a_key_that_signs_and_few_keys() {
        let mut keys = Keys::default();
        // Years ahead, back, and ahead again, each time for an hour, a day, a week.
        for day in [0, 4000, 4001, 1, 2, 3, 9000, 9007, 2, 3, 100, 200, 0, 1, 95] {
            keys.advance(at(day)).unwrap();
            assert!(keys.signing(at(day)).is_some());
            assert!((1..=3).contains(&keys.len()), "{day}: {keys:?}");
            assert!(keys.0.iter().all(|dated| dated.made_at <= at(day).plus(CLOCKS)));
        }
        // They are renewed once more.
        let before = published(&keys);
        keys.advance(at(400)).unwrap();
        assert!(!before.contains(published(&keys).last().unwrap()));
    }

    #[test]
    fn keys_are_read_back_and_nothing_else_is() {
        let mut keys = Keys::default();
        keys.advance(at(0)).unwrap();
        keys.advance(at(90)).unwrap();
        let bytes = keys.encode();
        let again = Keys::decode(&bytes).unwrap();
        assert_eq!(format!("{again:?}"), format!("{keys:?}"));
        assert_eq!(again.public(), keys.public());
        let one = 11 + keys.0[0].key.pkcs8.len();
        for length in (0..bytes.len()).filter(|length| *length != one) {
            assert!(Keys::decode(&bytes[..length]).is_none(), "{length}");
        }
        assert!(Keys::decode(&[&[2][..], &bytes[1..]].concat()).is_none());
        assert!(Keys::decode(&[&bytes[..], &[0]].concat()).is_none());
        let many = [&bytes[..1], &bytes[1..one].repeat(MAX_KEYS + 1)].concat();
        assert!(Keys::decode(&many).is_none());
    }

    #[test]
    fn a_debug_view_shows_no_private_key() {
        let mut keys = Keys::default();
        keys.advance(at(0)).unwrap();
        let text = format!("{keys:?}");
        assert!(text.contains(&id(&keys, at(0))) && text.len() < 120, "{text}");
    }
}

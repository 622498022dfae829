//! Envelopes: a value under a data key of its own, and the data key under a master key, both AES-256-GCM.
//!
//! Another master key means another 60 bytes around the data key; the value is not touched. What an envelope is of is bound to both
//! layers, so that neither can be moved to another record or rolled back unnoticed. Pure but for randomness. Never logs.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::VaultError;
use super::keys::{Keyring, MasterKey};

/// An encrypted value as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// Of the master key.
    pub(crate) key_id: String,
    /// The data key, encrypted, behind its nonce.
    pub(crate) wrapped_key: Vec<u8>,
    /// The value, encrypted, behind its nonce.
    pub(crate) ciphertext: Vec<u8>,
}

/// What an envelope is of; it opens for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label<'a> {
    /// What kind of thing, such as [`SECRET`].
    pub(crate) thing: &'static str,
    pub(crate) identifier: &'a str,
    pub(crate) version: u64,
}

/// The value of a secret.
pub(crate) const SECRET: &str = "secret";

impl Envelope {
    pub(super) fn seal(ring: &Keyring, label: Label<'_>, plain: &[u8]) -> Result<Self, VaultError> {
        let data_key = Zeroizing::new(rand::random::<[u8; 32]>());
        let ciphertext = seal(&cipher(&data_key)?, label.bound(Layer::Value), plain)?;
        let current = ring.current();
        let wrapped_key = wrap(current, label, &data_key)?;
        Ok(Self { key_id: current.id().to_owned(), wrapped_key, ciphertext })
    }

    pub(super) fn open(&self, ring: &Keyring, label: Label<'_>) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let data_key = unwrap(ring, label, &self.key_id, &self.wrapped_key)?;
        open(&cipher(&data_key)?, label.bound(Layer::Value), &self.ciphertext)
    }
}

/// The same data key under the current master key, and the id of that; nothing when it is already.
pub(super) fn rewrapped(
    ring: &Keyring,
    label: Label<'_>,
    key_id: &str,
    wrapped_key: &[u8],
) -> Result<Option<(String, Vec<u8>)>, VaultError> {
    let current = ring.current();
    if key_id == current.id() {
        return Ok(None);
    }
    let data_key = unwrap(ring, label, key_id, wrapped_key)?;
    Ok(Some((current.id().to_owned(), wrap(current, label, &data_key)?)))
}

fn unwrap(
    ring: &Keyring,
    label: Label<'_>,
    key_id: &str,
    wrapped_key: &[u8],
) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let plain = open(ring.named(key_id)?.cipher(), label.bound(Layer::Key), wrapped_key)?;
    plain.as_slice().try_into().map(Zeroizing::new).map_err(|_| VaultError::Corrupt)
}

/// Which of the two layers; one never passes for the other.
#[derive(Clone, Copy)]
enum Layer {
    Key,
    Value,
}

impl Label<'_> {
    /// Texts behind their lengths: no two labels give the same bytes.
    fn bound(&self, layer: Layer) -> Aad<Vec<u8>> {
        let layer = match layer {
            Layer::Key => "lictor envelope key",
            Layer::Value => "lictor envelope value",
        };
        let mut data = Vec::new();
        for text in [layer, self.thing, self.identifier] {
            data.extend_from_slice(&(text.len() as u64).to_be_bytes());
            data.extend_from_slice(text.as_bytes());
        }
        data.extend_from_slice(&self.version.to_be_bytes());
        Aad::from(data)
    }
}

fn wrap(master: &MasterKey, label: Label<'_>, data_key: &[u8; 32]) -> Result<Vec<u8>, VaultError> {
    seal(master.cipher(), label.bound(Layer::Key), data_key)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, VaultError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| VaultError::Encrypt)
}

/// Encrypts; the nonce stands in front. The plain value is in no buffer that is not zeroed.
pub(super) fn seal(key: &LessSafeKey, bound: Aad<Vec<u8>>, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut blob = Zeroizing::new(Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len()));
    blob.extend_from_slice(&nonce);
    blob.extend_from_slice(plain);
    let body = blob.get_mut(NONCE_LEN..).ok_or(VaultError::Encrypt)?;
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), bound, body)
        .map_err(|_| VaultError::Encrypt)?;
    blob.extend_from_slice(tag.as_ref());
    Ok(std::mem::take(&mut *blob))
}

pub(super) fn open(key: &LessSafeKey, bound: Aad<Vec<u8>>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (nonce, ciphertext) = blob.split_at_checked(NONCE_LEN).ok_or(VaultError::Corrupt)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Corrupt)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let length = key.open_in_place(nonce, bound, &mut buffer).map_err(|_| VaultError::Corrupt)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(keys: &[u8]) -> Keyring {
        Keyring::of(keys.iter().map(|byte| [*byte; 32])).unwrap()
    }

    fn label(identifier: &str, version: u64) -> Label<'_> {
        Label { thing: SECRET, identifier, version }
    }

    #[test]
    fn an_envelope_opens_only_for_what_it_is_of() {
        let ring = ring(&[1]);
        let sealed = Envelope::seal(&ring, label("web", 3), b"marker").unwrap();
        assert_eq!(sealed.open(&ring, label("web", 3)).unwrap().as_slice(), b"marker");
        for other in [label("web", 4), label("wec", 3), Label { thing: "signing key", ..label("web", 3) }] {
            assert!(matches!(sealed.open(&ring, other), Err(VaultError::Corrupt)), "{other:?}");
        }
        assert_ne!(Envelope::seal(&ring, label("web", 3), b"marker").unwrap().wrapped_key, sealed.wrapped_key);
    }

    #[test]
    fn the_layers_do_not_pass_for_each_other() {
        let ring = ring(&[1]);
        let first = Envelope::seal(&ring, label("a", 1), &[7; 32]).unwrap();
        let second = Envelope::seal(&ring, label("a", 1), b"second").unwrap();
        let swapped = Envelope { wrapped_key: first.ciphertext.clone(), ..first.clone() };
        assert!(matches!(swapped.open(&ring, label("a", 1)), Err(VaultError::Corrupt)));
        let mixed = Envelope { wrapped_key: second.wrapped_key, ..first };
        assert!(matches!(mixed.open(&ring, label("a", 1)), Err(VaultError::Corrupt)));
    }

    #[test]
    fn another_master_key_goes_around_the_same_value() {
        let (old, both, new) = (ring(&[1]), ring(&[2, 1]), ring(&[2]));
        let sealed = Envelope::seal(&old, label("a", 1), b"marker").unwrap();
        assert!(matches!(sealed.open(&new, label("a", 1)), Err(VaultError::OtherKey { .. })));
        let (key_id, wrapped_key) = moved(&both, &sealed).unwrap().unwrap();
        let again = Envelope { key_id, wrapped_key, ..sealed.clone() };
        assert_eq!(again.open(&new, label("a", 1)).unwrap().as_slice(), b"marker");
        assert_eq!(moved(&both, &again).unwrap(), None);
        // Under a name that is not its key's it does not open, nor is it wrapped anew into nonsense.
        let lying = Envelope { key_id: new.current().id().to_owned(), ..sealed };
        assert!(matches!(moved(&old, &lying), Err(VaultError::OtherKey { .. })));
        assert!(matches!(moved(&ring(&[1, 2]), &lying), Err(VaultError::Corrupt)));
    }

    fn moved(ring: &Keyring, sealed: &Envelope) -> Result<Option<(String, Vec<u8>)>, VaultError> {
        rewrapped(ring, label("a", 1), &sealed.key_id, &sealed.wrapped_key)
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out(plain in prop::collection::vec(any::<u8>(), 0..600), version: u64, name in ".{0,70}") {
            let ring = ring(&[3, 4]);
            let sealed = Envelope::seal(&ring, label(&name, version), &plain).unwrap();
            let opened = sealed.open(&ring, label(&name, version)).unwrap();
            prop_assert_eq!(opened.as_slice(), plain.as_slice());
        }

        #[test]
        fn nothing_changed_opens(at: prop::sample::Index, bit in 0_u8..8, of_key: bool) {
            let ring = ring(&[3]);
            let mut sealed = Envelope::seal(&ring, label("a", 1), b"some value").unwrap();
            let part = if of_key { &mut sealed.wrapped_key } else { &mut sealed.ciphertext };
            let at = at.index(part.len());
            part[at] ^= 1 << bit;
            prop_assert!(matches!(sealed.open(&ring, label("a", 1)), Err(VaultError::Corrupt)));
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(
            wrapped_key in prop::collection::vec(any::<u8>(), 0..80),
            ciphertext in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let ring = ring(&[3]);
            let sealed = Envelope { key_id: ring.current().id().to_owned(), wrapped_key, ciphertext };
            prop_assert!(sealed.open(&ring, label("a", 1)).is_err());
        }
    }
}

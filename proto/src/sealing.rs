//! Sealed secrets: HPKE ([RFC 9180]) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
//!
//! The control plane seals a credential's secret at assignment; only the agent that the task was assigned to can open
//! it, and only for that task, epoch and credential version. It must never log or keep what it handles.
//!
//! [RFC 9180]: https://www.rfc-editor.org/rfc/rfc9180

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::v1::SealedSecret;

/// What a sealed secret is bound to. Opening it under any other binding fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The agent it is sealed for.
    pub agent_id: &'a str,
    /// The task it is for.
    pub task_id: &'a str,
    /// The assignment it is for.
    pub epoch: u64,
    /// Name of the credential.
    pub credential: &'a str,
    /// Version of the credential's secret.
    pub credential_version: u64,
}

/// Why sealing or opening failed. Says nothing about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The recipient's public key is not a valid X25519 key.
    #[error("the recipient's sealing key is not a valid X25519 public key")]
    BadPublicKey,
    /// The private key is not 32 bytes.
    #[error("the sealing key on this side is not a valid X25519 private key")]
    BadPrivateKey,
    /// The encapsulated key is malformed.
    #[error("the sealed secret's encapsulated key is malformed")]
    BadEncapsulatedKey,
    /// Sealing failed.
    #[error("the secret could not be sealed")]
    Seal,
    /// Wrong key, wrong binding, or changed on the way.
    #[error(
        "the sealed secret does not open: it was sealed for another key, task or credential version, or changed on the way"
    )]
    Open,
}

/// An X25519 key pair. The private key is zeroed on drop and never printed.
pub struct SealingKey {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl SealingKey {
    /// Makes a new pair from the operating system's random source.
    #[must_use]
    pub fn generate() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        Self { private: Zeroizing::new(private.to_bytes().into()), public: public.to_bytes().into() }
    }

    /// Restores a pair from its stored private key.
    ///
    /// # Errors
    /// [`SealError::BadPrivateKey`] unless `bytes` are 32 usable bytes.
    pub fn from_private_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(bytes).map_err(|_| SealError::BadPrivateKey)?;
        let public = X25519HkdfSha256::sk_to_pk(&private);
        Ok(Self { private: Zeroizing::new(private.to_bytes().into()), public: public.to_bytes().into() })
    }

    /// The private key, for storing it in a file that only its owner may read.
    #[must_use]
    pub fn private_bytes(&self) -> &[u8; 32] {
        &self.private
    }

    /// The public key, 32 bytes.
    #[must_use]
    pub fn public_bytes(&self) -> [u8; 32] {
        self.public
    }

    /// Opens a secret that was sealed to this key under `binding`.
    ///
    /// # Errors
    /// [`SealError`] when the key, the binding or the bytes do not fit.
    pub fn open(&self, sealed: &SealedSecret, binding: &Binding<'_>) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let private =
            <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&*self.private).map_err(|_| SealError::BadPrivateKey)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&sealed.encapsulated_key)
            .map_err(|_| SealError::BadEncapsulatedKey)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &private,
            &encapsulated,
            INFO,
            &sealed.ciphertext,
            &associated_data(binding),
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::Open)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealingKey").field("private", &"[redacted]").finish_non_exhaustive()
    }
}

/// Seals `secret` to the agent that owns `public_key`.
///
/// # Errors
/// [`SealError::BadPublicKey`] when the key is malformed.
pub fn seal(public_key: &[u8], binding: &Binding<'_>, secret: &[u8]) -> Result<SealedSecret, SealError> {
    let recipient =
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public_key).map_err(|_| SealError::BadPublicKey)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        INFO,
        secret,
        &associated_data(binding),
    )
    .map_err(|_| SealError::Seal)?;
    Ok(SealedSecret { encapsulated_key: encapsulated.to_bytes().to_vec(), ciphertext })
}

/// Every field behind its length, so that no two bindings give the same bytes.
fn associated_data(binding: &Binding<'_>) -> Vec<u8> {
    let mut data = Vec::new();
    for text in [binding.agent_id, binding.task_id, binding.credential] {
        data.extend_from_slice(&(text.len() as u64).to_be_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data.extend_from_slice(&binding.epoch.to_be_bytes());
    data.extend_from_slice(&binding.credential_version.to_be_bytes());
    data
}

const INFO: &[u8] = b"lictor/v1/credential";

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: Binding<'static> =
        Binding { agent_id: "a", task_id: "t", epoch: 3, credential: "c", credential_version: 7 };

    #[test]
    fn opens_only_under_its_own_binding_and_key() {
        let key = SealingKey::generate();
        let sealed = seal(&key.public_bytes(), &BINDING, b"secret").unwrap();
        assert_eq!(key.open(&sealed, &BINDING).unwrap().as_slice(), b"secret");
        let others = [
            Binding { agent_id: "b", ..BINDING },
            Binding { task_id: "u", ..BINDING },
            Binding { epoch: 4, ..BINDING },
            Binding { credential: "d", ..BINDING },
            Binding { credential_version: 8, ..BINDING },
            Binding { agent_id: "at", task_id: "", ..BINDING },
        ];
        for other in others {
            assert_eq!(key.open(&sealed, &other).unwrap_err(), SealError::Open, "{other:?}");
        }
        assert_eq!(SealingKey::generate().open(&sealed, &BINDING).unwrap_err(), SealError::Open);
    }

    #[test]
    fn a_stored_key_opens_what_was_sealed_before() {
        let key = SealingKey::generate();
        let sealed = seal(&key.public_bytes(), &BINDING, b"secret").unwrap();
        let restored = SealingKey::from_private_bytes(key.private_bytes()).unwrap();
        assert_eq!(restored.public_bytes(), key.public_bytes());
        assert_eq!(restored.open(&sealed, &BINDING).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn malformed_input_is_an_error() {
        let key = SealingKey::generate();
        assert_eq!(seal(&[1, 2, 3], &BINDING, b"x").unwrap_err(), SealError::BadPublicKey);
        assert_eq!(SealingKey::from_private_bytes(&[0; 31]).unwrap_err(), SealError::BadPrivateKey);
        let mut sealed = seal(&key.public_bytes(), &BINDING, b"secret").unwrap();
        sealed.ciphertext.truncate(3);
        assert_eq!(key.open(&sealed, &BINDING).unwrap_err(), SealError::Open);
        sealed.encapsulated_key.pop();
        assert_eq!(key.open(&sealed, &BINDING).unwrap_err(), SealError::BadEncapsulatedKey);
        assert!(!format!("{key:?}").contains(&format!("{:?}", key.private_bytes()[0..4].to_vec())));
    }
}

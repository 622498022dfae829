//! Deliveries: secrets that come beside an assignment, each sealed on its own, and what they hold once they are open.
//!
//! A [`Deliveries`] is bounded and names each secret once. What is inside one is checked against what it says outside
//! before anybody acts on it. Pure.

use std::collections::BTreeMap;

use lictor_kms::Context;
use lictor_proto::v1::{
    KmsAccess, KmsRecord, SealedSecret, SecretDelivery, SecretMaterial, kms_access, secret_material,
};
use prost::Message as _;
use zeroize::Zeroizing;

use super::SecretError;
use super::sources::Source;

/// What came beside an assignment, by identifier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Deliveries(BTreeMap<String, Delivery>);

/// One secret, still sealed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    /// With what it is bound to before it.
    bound_to: String,
    version: u64,
    sealed: SealedSecret,
}

/// Why deliveries make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// Too many.
    #[error("the assignment brings {0} secrets; at most {most} are allowed", most = MOST)]
    TooMany(usize),
    /// One by two names, or none.
    #[error("the assignment brings a secret with the identifier {0:?}")]
    Identifier(String),
    /// The same one again.
    #[error("the assignment brings secret {0} twice")]
    Twice(String),
    /// Nothing in it.
    #[error("the assignment brings nothing of secret {0}")]
    Nothing(String),
    /// It is asked for, and did not come.
    #[error("the assignment does not bring secret {0}")]
    Missing(String),
}

impl Deliveries {
    /// Takes what came.
    pub(crate) fn parse(came: Vec<SecretDelivery>) -> Result<Self, DeliveryError> {
        if came.len() > MOST {
            return Err(DeliveryError::TooMany(came.len()));
        }
        let mut deliveries = BTreeMap::new();
        for SecretDelivery { identifier, version, sealed } in came {
            if identifier.is_empty() || identifier.len() > MAX_IDENTIFIER || identifier.chars().any(char::is_control) {
                let shown = identifier.chars().take(MAX_IDENTIFIER).collect();
                return Err(DeliveryError::Identifier(shown));
            }
            let Some(sealed) = sealed else { return Err(DeliveryError::Nothing(identifier)) };
            let delivery = Delivery { bound_to: format!("{DELIVERED}{identifier}"), version, sealed };
            if deliveries.insert(identifier.clone(), delivery).is_some() {
                return Err(DeliveryError::Twice(identifier));
            }
        }
        Ok(Self(deliveries))
    }

    /// The one that is asked for.
    pub(crate) fn find(&self, identifier: &str) -> Result<&Delivery, DeliveryError> {
        self.0.get(identifier).ok_or_else(|| DeliveryError::Missing(identifier.to_owned()))
    }

    /// One that came beside the one with this identifier.
    pub(crate) fn beside(&self, identifier: &str) -> Option<&Delivery> {
        self.0.iter().find(|(other, _)| other.as_str() != identifier).map(|(_, delivery)| delivery)
    }
}

impl Delivery {
    pub(crate) fn identifier(&self) -> &str {
        self.bound_to.strip_prefix(DELIVERED).unwrap_or_default()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What stands in place of the credential's name where it was sealed.
    pub(super) fn bound_to(&self) -> &str {
        &self.bound_to
    }

    pub(super) fn sealed(&self) -> &SealedSecret {
        &self.sealed
    }
}

/// What a delivery holds. Never printed.
pub(super) enum Material {
    /// The value.
    Value(Zeroizing<Vec<u8>>),
    /// The value under a key.
    Wrapped(Box<Wrapped>),
    /// The way to a key.
    Way(Box<KmsAccess>),
    /// Where on this agent the value is.
    Source(Source),
}

/// A value under a key of AWS KMS.
pub(super) struct Wrapped {
    pub(super) record: KmsRecord,
    pub(super) access: KmsAccess,
    /// What KMS is told beside it; the record has the same.
    pub(super) context: Context,
}

impl Material {
    /// Reads what was sealed as `delivery`.
    pub(super) fn parse(opened: &Zeroizing<Vec<u8>>, delivery: &Delivery) -> Result<Self, SecretError> {
        let secret = || delivery.identifier().to_owned();
        let malformed = |problem| SecretError::Malformed { secret: secret(), problem };
        let material = SecretMaterial::decode(opened.as_slice()).map_err(|_| malformed("it is no material"))?;
        match material.material.ok_or_else(|| SecretError::Unknown { secret: secret() })? {
            secret_material::Material::Value(value) => Ok(Self::Value(Zeroizing::new(value))),
            secret_material::Material::Source(source) => {
                let source = Source::parse(&source);
                source.map(Self::Source).map_err(|source| SecretError::Source { secret: secret(), source })
            }
            secret_material::Material::Kms(kms) => {
                let access = kms.access.ok_or_else(|| malformed("it does not say how to reach AWS KMS"))?;
                if access.credentials.is_none() {
                    return Err(SecretError::Unknown { secret: secret() });
                }
                let Some(record) = kms.record else { return Ok(Self::Way(Box::new(access))) };
                // What the control plane says of the scope is all that is known of it here; KMS and the ciphertext hold it to that.
                let scope =
                    record.context.get(SCOPE).ok_or_else(|| malformed("its encryption context has no scope"))?;
                let context = Context::new(scope, delivery.identifier(), delivery.version());
                if !context.is(&record.context) {
                    return Err(malformed("its encryption context is that of another secret or version"));
                }
                Ok(Self::Wrapped(Box::new(Wrapped { record, access, context })))
            }
        }
    }
}

/// The role that somebody with this access comes to be.
pub(super) fn role(access: &KmsAccess) -> Option<&str> {
    match access.credentials.as_ref()? {
        kms_access::Credentials::AccessKey(_) | kms_access::Credentials::MachineRole(_) => None,
        kms_access::Credentials::AssumeRole(assumed) => Some(&assumed.role_arn),
        kms_access::Credentials::WebIdentity(identity) => Some(&identity.role_arn),
    }
}

/// What a delivery's identifier has before it where the name of a credential would be.
pub(crate) const DELIVERED: &str = "secret:";
const SCOPE: &str = "lictor:scope";
/// The contract's bound.
const MOST: usize = 64;
/// Of an identifier with `manager:` before it.
const MAX_IDENTIFIER: usize = 80;

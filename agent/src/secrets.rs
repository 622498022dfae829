//! Secrets, opened just in time: what comes sealed, what is unwrapped under a key of AWS KMS, and what is on the agent.
//!
//! It must never store, journal or print what it opens; values zero themselves on drop. What the policy does not allow is
//! neither asked for nor read. Called by `sessions` and `tasks`; its keyring is filled by the link.

mod keyring;
mod material;
mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lictor_kms::{Access, Context, Kms};
use lictor_proto::sealing::SealError;
use lictor_proto::v1::{KmsAccess, KmsRecord, SealedSecret};
use lictor_winrm::target::Secret;
use tokio::time::Instant;
use zeroize::{Zeroize as _, Zeroizing};

use crate::config;
use crate::policy::{KmsUse, Policies, Refusal};
use crate::telemetry::Metrics;
pub(crate) use keyring::{Keyring, Purpose};
pub(crate) use material::{DELIVERED, Deliveries, Delivery, DeliveryError};
use material::{Material, Wrapped};
pub(crate) use sources::SourceError;
use sources::{Source, Sources};

/// The way to every secret. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Secrets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keyring: Arc<Keyring>,
    sources: Sources,
    kms: Kms,
    policies: Arc<Policies>,
    metrics: Arc<Metrics>,
}

/// Why a secret is not available. Says nothing about the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// No assignment can arrive before enrolment; a bug if it does.
    #[error("failed to open {secret}: this agent has no sealing key yet")]
    NoKey {
        /// Which.
        secret: String,
    },
    /// It does not open.
    #[error("failed to open {secret}")]
    Sealed {
        /// Which.
        secret: String,
        /// Why.
        source: SealError,
    },
    /// It opened, but is no text.
    #[error("{secret} is not UTF-8 text")]
    NotText {
        /// Which.
        secret: String,
    },
    /// It opened, and is nothing.
    #[error("{secret} is empty")]
    Empty {
        /// Which.
        secret: String,
    },
    /// It opened, and is more than fits.
    #[error("{secret} has more than {most} bytes, the most that {purpose} may have")]
    TooLong {
        /// Which.
        secret: String,
        /// What it is for.
        purpose: &'static str,
        /// The bound.
        most: usize,
    },
    /// What came does not say where the value is, or contradicts itself.
    #[error("what was delivered of secret {secret} cannot be: {problem}")]
    Malformed {
        /// Which.
        secret: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Of a newer control plane.
    #[error("this version does not know where the value of secret {secret} comes from")]
    Unknown {
        /// Which.
        secret: String,
    },
    /// It is on the agent, and cannot be used.
    #[error("failed to read secret {secret}")]
    Source {
        /// Which.
        secret: String,
        /// Why.
        source: SourceError,
    },
    /// It is under AWS KMS.
    #[error("failed to {action} {secret}")]
    Kms {
        /// What was tried.
        action: &'static str,
        /// Of what.
        secret: String,
        /// Why.
        source: lictor_kms::Error,
    },
    /// The agent's own policy does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The assignment that a delivery came with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assigned<'a> {
    /// The task.
    pub(crate) task_id: &'a str,
    /// Which assignment of it.
    pub(crate) epoch: u64,
}

/// A value, and what it is called in messages.
pub(crate) struct Value {
    bytes: Zeroizing<Vec<u8>>,
    secret: String,
    /// Of a file that people or programs write, which end it with a line break.
    from_file: bool,
}

/// A key of AWS KMS and who to be there, as the policy allows it.
#[derive(Debug)]
pub(crate) struct Way {
    access: Access,
    manager: String,
}

/// A secret that is stored under a key, for trying whether this agent may read it. It is not kept once it is open.
#[derive(Debug)]
pub(crate) struct Stored {
    record: KmsRecord,
    context: Context,
}

/// A value that is to be encrypted: what it becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealing<'a> {
    /// Scope of the secret.
    pub(crate) scope: &'a str,
    /// Its identifier.
    pub(crate) identifier: &'a str,
    /// The version.
    pub(crate) version: u64,
}

impl Secrets {
    /// Opens by `keyring`, and uses what the settings and `policies` permit. `name` is the agent's, which sessions
    /// of AWS are named after; `variables` are its secret ones.
    pub(crate) fn new(
        keyring: Arc<Keyring>,
        name: &str,
        settings: &config::Secrets,
        variables: BTreeMap<String, Secret>,
        policies: Arc<Policies>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let kms = Kms::new(lictor_kms::Settings {
            cache_entries: usize::try_from(settings.cache_entries).unwrap_or(usize::MAX),
            cache_lifetime: settings.cache_lifetime,
            session_name: name.to_owned(),
            ..lictor_kms::Settings::default()
        });
        metrics.kms(kms.clone());
        let sources = Sources::new(settings.directories.clone(), variables);
        Self(Arc::new(Inner { keyring, sources, kms, policies, metrics }))
    }

    /// Opens `sealed`, which holds a text.
    pub(crate) fn open(&self, sealed: &SealedSecret, purpose: Purpose<'_>) -> Result<Secret, SecretError> {
        self.0.keyring.open(sealed, purpose)
    }

    /// Opens `sealed`, whatever it holds.
    pub(crate) fn open_bytes(
        &self,
        sealed: &SealedSecret,
        purpose: Purpose<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.0.keyring.open_bytes(sealed, purpose)
    }

    /// What settings and policy let it do, as the contract names capabilities. Others are not asked for it.
    pub(crate) fn capabilities(&self) -> Vec<&'static str> {
        let policy = self.0.policies.current();
        let kms = policy.allows_kms().then_some("aws_kms");
        let sources = (!self.0.sources.is_empty() && policy.source("").is_ok()).then_some("secret_sources");
        kms.into_iter().chain(sources).collect()
    }

    /// The value of a delivery, wherever it comes from.
    pub(crate) async fn value(
        &self,
        delivery: &Delivery,
        assigned: Assigned<'_>,
        deadline: Instant,
    ) -> Result<Value, SecretError> {
        let mut kind = "sealed";
        let value = self.find(delivery, assigned, deadline, &mut kind).await;
        let outcome = match &value {
            Ok(_) => "opened",
            Err(SecretError::Refused(_)) => "refused",
            Err(SecretError::Kms { source, .. }) if source.is_passing() => "unavailable",
            Err(_) => "failed",
        };
        self.0.metrics.secret_opened(kind, outcome);
        value
    }

    async fn find(
        &self,
        delivery: &Delivery,
        assigned: Assigned<'_>,
        deadline: Instant,
        kind: &mut &'static str,
    ) -> Result<Value, SecretError> {
        let secret = || delivery.identifier().to_owned();
        let (bytes, from_file) = match self.material(delivery, assigned)? {
            Material::Value(bytes) => (bytes, false),
            Material::Source(source) => {
                *kind = "agent";
                // The path is the control plane's word, not a secret.
                self.0.policies.current().source(&source.to_string())?;
                let from_file = matches!(source, Source::File(_));
                let read = self.0.sources.read(source, deadline).await;
                (read.map_err(|source| SecretError::Source { secret: secret(), source })?, from_file)
            }
            Material::Wrapped(wrapped) => {
                *kind = "kms";
                let Wrapped { record, access, context } = *wrapped;
                let failed = |source| SecretError::Kms { action: "decrypt secret", secret: secret(), source };
                let access = self.permitted(&record.key_arn, access)?.map_err(failed)?;
                let opened = self.0.kms.open(&access, &record, &context, within(deadline)).await;
                (opened.map_err(failed)?, false)
            }
            Material::Way(_) => {
                let problem = "it is the way to a secret manager and no secret";
                return Err(SecretError::Malformed { secret: secret(), problem });
            }
        };
        if bytes.is_empty() {
            return Err(SecretError::Empty { secret: format!("secret {}", delivery.identifier()) });
        }
        Ok(Value { bytes, secret: format!("secret {}", delivery.identifier()), from_file })
    }

    /// The way to a secret manager.
    pub(crate) fn way(&self, delivery: &Delivery, assigned: Assigned<'_>) -> Result<Way, SecretError> {
        let secret = || delivery.identifier().to_owned();
        let Material::Way(access) = self.material(delivery, assigned)? else {
            return Err(SecretError::Malformed { secret: secret(), problem: "it is no way to a secret manager" });
        };
        let (key, manager) = (access.key.clone(), access.manager.clone());
        let failed = |source| SecretError::Kms { action: "use secret manager", secret: manager.clone(), source };
        let access = self.permitted(&key, *access)?.map_err(failed)?;
        Ok(Way { access, manager })
    }

    /// A secret that came beside the way to its manager.
    pub(crate) fn stored(&self, delivery: &Delivery, assigned: Assigned<'_>) -> Result<Stored, SecretError> {
        let secret = || delivery.identifier().to_owned();
        let Material::Wrapped(wrapped) = self.material(delivery, assigned)? else {
            return Err(SecretError::Malformed { secret: secret(), problem: "it is no value under a key of AWS KMS" });
        };
        let Wrapped { record, access, context } = *wrapped;
        // It may be under another key than the one that new ones are encrypted with. The way that came by itself is the one that is used.
        let failed = |source| SecretError::Kms { action: "read secret", secret: secret(), source };
        self.permitted(&record.key_arn, access)?.map_err(failed)?;
        Ok(Stored { record, context })
    }

    /// Encrypts a value under the key that `way` leads to.
    pub(crate) async fn seal(
        &self,
        way: &Way,
        sealing: Sealing<'_>,
        value: &[u8],
        deadline: Instant,
    ) -> Result<KmsRecord, SecretError> {
        let Sealing { scope, identifier, version } = sealing;
        let context = Context::new(scope, identifier, version);
        let sealed = self.0.kms.seal(&way.access, &context, value, within(deadline)).await;
        sealed.map_err(|source| SecretError::Kms { action: "encrypt secret", secret: identifier.to_owned(), source })
    }

    /// Tries what `way` lets this agent do; with `stored` also whether it may read, if it may not write.
    pub(crate) async fn test(
        &self,
        way: &Way,
        stored: Option<&Stored>,
        deadline: Instant,
        tell: impl FnMut(&lictor_kms::Step) + Send,
    ) -> lictor_kms::Report {
        let stored = stored.map(|Stored { record, context }| (record, context));
        self.0.kms.test_with(&way.access, stored, within(deadline), tell).await
    }

    fn material(&self, delivery: &Delivery, assigned: Assigned<'_>) -> Result<Material, SecretError> {
        let Assigned { task_id, epoch } = assigned;
        let purpose = Purpose { task_id, epoch, credential: delivery.bound_to(), version: delivery.version() };
        let opened = self.0.keyring.open_bytes(delivery.sealed(), purpose)?;
        Material::parse(&opened, delivery)
    }

    /// The way to `key`, if the policy in force permits to use it so. Whether or not: of what is parsed nothing else stays in memory.
    fn permitted(&self, key: &str, access: KmsAccess) -> Result<Result<Access, lictor_kms::Error>, Refusal> {
        let role = material::role(&access);
        let endpoints = [access.endpoint.as_str(), access.sts_endpoint.as_str()];
        let permitted = self.0.policies.current().kms(&KmsUse { key, role, endpoints });
        let parsed = Access::parse(access);
        permitted.map(|()| parsed)
    }
}

impl Way {
    /// The secret manager's name.
    pub(crate) fn manager(&self) -> &str {
        &self.manager
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Value {
    /// As it is: a keytab, a certificate.
    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }

    /// As a text: a password, a variable. Of a file's, the line break at its end is left out.
    pub(crate) fn into_text(mut self) -> Result<Secret, SecretError> {
        if self.from_file {
            let bytes = self.bytes.as_slice();
            let line = bytes.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let length = line.unwrap_or(bytes).len();
            self.bytes.truncate(length);
        }
        if self.bytes.is_empty() {
            return Err(SecretError::Empty { secret: self.secret });
        }
        text(self.bytes).ok_or(SecretError::NotText { secret: self.secret })
    }
}

/// Bytes as a text, without copying them.
fn text(mut bytes: Zeroizing<Vec<u8>>) -> Option<Secret> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Some(Secret::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

/// A task may run for a day; a service that does not answer is known to be out of reach long before.
fn within(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + KMS_LIMIT)
}

/// For one secret, its retries included.
const KMS_LIMIT: std::time::Duration = std::time::Duration::from_secs(45);

#[cfg(test)]
mod tests;

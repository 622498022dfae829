//! Values sealed and opened: what agent and control plane call.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lictor_proto::v1::KmsRecord;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use zeroize::{Zeroize as _, Zeroizing};

use crate::access::Access;
use crate::arn::KeyId;
use crate::cache::{DataKeys, Name};
use crate::client::Clients;
use crate::context::Context;
use crate::envelope::{self, DataKey};
use crate::error::classify::Refusal;
use crate::error::sentences::{self, Action};
use crate::error::{Error, Stage};
use crate::identity::{Environment, Identities, Session};

/// How it works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Data keys that are kept in clear. 0: none.
    pub cache_entries: usize,
    /// How long each is kept.
    pub cache_lifetime: Duration,
    /// Named in sessions of roles, so that CloudTrail shows who asked: the agent's name.
    pub session_name: String,
    /// Authorities that are trusted besides the system's, in PEM.
    pub authorities: Vec<u8>,
    /// Where the machine's identity is looked up.
    pub environment: Environment,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_entries: 1000,
            cache_lifetime: Duration::from_secs(300),
            session_name: "agent".to_owned(),
            authorities: Vec::new(),
            environment: Environment::Process,
        }
    }
}

/// What was asked of KMS, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Calls of Decrypt.
    pub decrypts: u64,
    /// Calls of GenerateDataKey.
    pub generated: u64,
    /// Values opened without a call of their own.
    pub cache_hits: u64,
    /// Attempts beyond the first, of all calls to KMS and STS.
    pub retries: u64,
}

/// KMS as this program uses it: sessions and data keys, shared by all who hold a clone.
#[derive(Debug, Clone)]
pub struct Kms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    calls: Arc<Calls>,
    keys: DataKeys,
}

impl Kms {
    /// Nothing is asked before somebody wants something.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let clients = Clients::new(&settings.authorities);
        let identities = Identities::new(clients.clone(), settings.environment, &settings.session_name);
        let calls = Calls { identities, clients, room: Semaphore::new(AT_ONCE) };
        Self(Arc::new(Inner {
            calls: Arc::new(calls),
            keys: DataKeys::new(settings.cache_entries, settings.cache_lifetime),
        }))
    }

    /// Encrypts a value under a data key of its own.
    ///
    /// # Errors
    /// When the value is empty or too large, or AWS gives no data key.
    pub async fn seal(
        &self,
        access: &Access,
        context: &Context,
        value: &[u8],
        deadline: Instant,
    ) -> Result<KmsRecord, Error> {
        envelope::check_value(value)?;
        let generated = self.0.calls.generate(access, context, deadline).await?;
        envelope::encrypt(&generated.key, generated.key_arn, generated.wrapped, context, value)
    }

    /// Opens a value. Its data key is asked for once, and kept for a while.
    ///
    /// # Errors
    /// When the record is malformed, altered, or another one than expected, or AWS does not open its data key.
    pub async fn open(
        &self,
        access: &Access,
        record: &KmsRecord,
        context: &Context,
        deadline: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        check(access, record, context)?;
        let (shared, key) = self
            .0
            .keys
            .get(name(access, record, context), deadline, || {
                let (calls, access, context) = (Arc::clone(&self.0.calls), access.clone(), context.clone());
                let (key_arn, wrapped) = (record.key_arn.clone(), record.wrapped_key.clone());
                async move {
                    let deadline = Instant::now() + FLIGHT;
                    let room = timeout_at(deadline, calls.room.acquire()).await;
                    let _room = room.map_err(|_| sentences::deadline(Stage::Read))?;
                    calls.decrypt(&access, &key_arn, wrapped, &context, deadline).await
                }
            })
            .await;
        if shared {
            self.0.calls.clients.counts().hits.fetch_add(1, Ordering::Relaxed);
        }
        envelope::decrypt(&*key?, record, context)
    }

    /// What was asked so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let counts = self.0.calls.clients.counts();
        Figures {
            decrypts: counts.decrypts.load(Ordering::Relaxed),
            generated: counts.generated.load(Ordering::Relaxed),
            cache_hits: counts.hits.load(Ordering::Relaxed),
            retries: counts.retries(),
        }
    }

    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.0.calls
    }
}

/// Refuses a record before anybody is asked about it. An alias may have moved to another key since, so the key itself is not compared.
pub(crate) fn check(access: &Access, record: &KmsRecord, context: &Context) -> Result<(), Error> {
    envelope::check(record, context)?;
    let key = KeyId::parse(&record.key_arn).map_err(|why| sentences::record_malformed(format!("of its key {why}")))?;
    match key.region() {
        Some(region) if *region == access.region => Ok(()),
        _ => Err(sentences::record_region(&record.key_arn, access.region.as_str())),
    }
}

fn name(access: &Access, record: &KmsRecord, context: &Context) -> Name {
    let mut digest = Sha256::new();
    digest.update(access.digest());
    for part in [record.key_arn.as_bytes(), &record.wrapped_key, &context.associated_data()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// The calls of KMS, each as somebody and within a deadline.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) identities: Identities,
    clients: Clients,
    /// Bounds what runs at once; the others wait within their deadlines.
    room: Semaphore,
}

/// What GenerateDataKey gave.
pub(crate) struct Generated {
    pub(crate) key: DataKey,
    pub(crate) wrapped: Vec<u8>,
    pub(crate) key_arn: String,
}

impl Calls {
    pub(crate) async fn generate(
        &self,
        access: &Access,
        context: &Context,
        deadline: Instant,
    ) -> Result<Generated, Error> {
        self.clients.counts().generated.fetch_add(1, Ordering::Relaxed);
        let action = Action::GenerateDataKey;
        let output = self
            .call(access, action, deadline, |session| {
                session
                    .kms
                    .generate_data_key()
                    .key_id(access.key.as_str())
                    .key_spec(DataKeySpec::Aes256)
                    .set_encryption_context(Some(context.pairs().collect()))
                    .send()
            })
            .await?;
        let key = clear(output.plaintext, action)?;
        let wrapped = output.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        if wrapped.is_empty() || wrapped.len() > envelope::MAX_WRAPPED {
            return Err(sentences::answer(action, &format!("The wrapped data key has {} bytes", wrapped.len())));
        }
        let key_arn = output.key_id.unwrap_or_default();
        // What could not be opened again must not be written.
        match KeyId::parse(&key_arn).ok().and_then(|key| key.region().cloned()) {
            Some(region) if region == access.region => Ok(Generated { key, wrapped, key_arn }),
            _ => Err(sentences::answer(action, &format!("`{key_arn}` is no ARN of a key in {}", access.region))),
        }
    }

    pub(crate) async fn encrypt(
        &self,
        access: &Access,
        context: &Context,
        value: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        let output = self
            .call(access, Action::Encrypt, deadline, |session| {
                session
                    .kms
                    .encrypt()
                    .key_id(access.key.as_str())
                    .plaintext(Blob::new(value))
                    .set_encryption_context(Some(context.pairs().collect()))
                    .send()
            })
            .await?;
        Ok(output.ciphertext_blob.map(Blob::into_inner).unwrap_or_default())
    }

    pub(crate) async fn decrypt(
        &self,
        access: &Access,
        key_arn: &str,
        wrapped: Vec<u8>,
        context: &Context,
        deadline: Instant,
    ) -> Result<DataKey, Error> {
        self.clients.counts().decrypts.fetch_add(1, Ordering::Relaxed);
        let action = Action::Decrypt;
        let output = self
            .call(access, action, deadline, |session| {
                session
                    .kms
                    .decrypt()
                    .key_id(key_arn)
                    .ciphertext_blob(Blob::new(wrapped.clone()))
                    .set_encryption_context(Some(context.pairs().collect()))
                    .send()
            })
            .await?;
        let key = clear(output.plaintext, action)?;
        if output.key_id.is_some_and(|used| used != key_arn) {
            return Err(sentences::wrong_key(&way(access, key_arn), None));
        }
        Ok(key)
    }

    /// One call, as whom the access says. A session that has ended is renewed, and the call made once more.
    pub(crate) async fn call<T, E, F>(
        &self,
        access: &Access,
        action: Action,
        deadline: Instant,
        send: impl Fn(&Session) -> F,
    ) -> Result<T, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut again = true;
        loop {
            let session = self.identities.session(access, deadline).await?;
            let answer = timeout_at(deadline, send(&session)).await;
            let error = match answer {
                Err(_) => return Err(sentences::deadline(action.stage())),
                Ok(Ok(output)) => return Ok(output),
                Ok(Err(error)) => error,
            };
            let refusal = Refusal::of(&error);
            if refusal.is_of_session()
                && std::mem::take(&mut again)
                && self.identities.forget(access, &session, deadline).await
            {
                tracing::debug!(code = refusal_code(&refusal), "AWS takes a session no more, it is renewed");
                continue;
            }
            return Err(refusal.error(action, &access.way()));
        }
    }
}

fn refusal_code(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Told { code, .. } => code,
        _ => "",
    }
}

/// The way, with the key that a record is under in place of the one that new ones are made with.
fn way(access: &Access, key_arn: &str) -> sentences::Way {
    sentences::Way { key: key_arn.to_owned(), alias: false, ..access.way() }
}

/// The data key out of an answer, whose copy is zeroed. Copies inside the SDK are out of reach.
fn clear(plaintext: Option<Blob>, action: Action) -> Result<DataKey, Error> {
    let mut bytes = plaintext.map(Blob::into_inner).unwrap_or_default();
    let key = envelope::data_key(&bytes);
    let length = bytes.len();
    bytes.zeroize();
    key.ok_or_else(|| sentences::answer(action, &format!("The data key has {length} bytes in place of 32")))
}

/// Requests for data keys at once.
const AT_ONCE: usize = 32;
/// How long a request for a data key may take, whoever waits for it: both attempts of a session, and those of the call.
const FLIGHT: Duration = Duration::from_secs(45);

//! The agent's identity: made by enrolment with a join token, kept in the state directory, renewed before it ends.
//!
//! The first connection is authenticated by the token's pin of the control plane's authority, later ones by the
//! authority that enrolment returned. Private keys never leave this machine; they are written with mode 0600 and never
//! logged. Called by `app` and `link`.

pub(crate) mod proxy;
mod store;
pub(crate) mod tls;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lictor_proto::sealing::{SealError, SealingKey};
use lictor_proto::token::{JoinToken, TokenError};
use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::{EnrollRequest, RenewIdentityRequest};
use prost_types::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::config::Config;

pub(crate) use store::Store;

/// Who this agent is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Identifier that the control plane gave.
    pub(crate) agent_id: String,
    /// Client certificate and its issuers, PEM, leaf first.
    pub(crate) certificate_pem: String,
    /// Key of the certificate, PEM.
    pub(crate) private_key_pem: PrivateKeyPem,
    /// Key that credentials are sealed to.
    pub(crate) sealing_key: SealingKey,
    /// Authorities to trust for the control plane, PEM.
    pub(crate) ca_pem: String,
    /// When the certificate was issued, by this machine's clock.
    pub(crate) issued: SystemTime,
    /// When it ends.
    pub(crate) not_after: SystemTime,
}

/// A private key in PEM: zeroed on drop, printed as `[redacted]`.
pub(crate) struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Lends the text. Keep the borrow short.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Identity {
    /// When to renew: after two thirds of the lifetime, so that a third remains for retries.
    pub(crate) fn renewal_due(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.issued).unwrap_or_default();
        self.issued + lifetime * 2 / 3
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// A file of the state directory.
    #[error("failed to {action} {}", path.display())]
    Storage {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
    /// There is an identity file, but it does not hold an identity.
    #[error("{} does not hold an identity of this program ({problem}); move it away to enrol again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Making keys failed.
    #[error("failed to make a key pair and its certificate request")]
    Keys(#[from] rcgen::Error),
    /// The stored sealing key is of no use.
    #[error("failed to restore the sealing key")]
    SealingKey(#[source] SealError),
    /// No identity, and no token to get one.
    #[error("this agent has no identity, and neither LICTOR_AGENT_JOIN_TOKEN nor join_token_file is set to get one")]
    NoToken,
    /// The token's file does not hold one.
    #[error("failed to read a join token from {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TokenError,
    },
    /// The control plane cannot be reached or trusted.
    #[error(transparent)]
    Connect(#[from] tls::ConnectError),
    /// The control plane refused the join token.
    #[error("the control plane refused the join token: {0}")]
    TokenRefused(String),
    /// The control plane refused the certificate.
    #[error("the control plane refused this agent's certificate: {0}")]
    CertificateRefused(String),
    /// The control plane forbids this agent.
    #[error("the control plane forbids this agent: {0}")]
    Forbidden(String),
    /// The control plane says that what we ask for makes no sense.
    #[error("the control plane refused the request: {0}")]
    Invalid(String),
    /// The control plane failed.
    #[error("failed to call {call} on the control plane: {code}: {message}")]
    Call {
        /// Which call.
        call: &'static str,
        /// gRPC code.
        code: tonic::Code,
        /// In the control plane's words.
        message: String,
    },
    /// The control plane answered nonsense.
    #[error("the control plane answered {call} without {missing}")]
    Answer {
        /// Which call.
        call: &'static str,
        /// What is missing.
        missing: &'static str,
    },
}

/// Where a join token comes from.
#[derive(Debug)]
pub(crate) struct TokenSource {
    /// From the environment.
    pub(crate) value: Option<JoinToken>,
    /// A file, read each time anew, so that a replaced token is found without a restart.
    pub(crate) file: Option<PathBuf>,
}

impl TokenSource {
    /// Whether there is none to be had.
    pub(crate) fn is_empty(&self) -> bool {
        self.value.is_none() && self.file.is_none()
    }

    /// The token, the environment's first.
    pub(crate) fn read(&self) -> Result<JoinToken, EnrolError> {
        if let Some(token) = &self.value {
            return Ok(token.clone());
        }
        let path = self.file.as_ref().ok_or(EnrolError::NoToken)?;
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|source| EnrolError::Storage {
            action: "read the join token file",
            path: path.clone(),
            source,
        })?;
        text.parse().map_err(|source| EnrolError::Token { path: path.clone(), source })
    }
}

/// The keys of an identity to be. Kept until the control plane has answered: the same keys with the same token are the same
/// enrolment, so a lost answer does not spend the token.
pub(crate) struct Keys {
    key: KeyPair,
    sealing_key: SealingKey,
}

impl Keys {
    /// New ones.
    pub(crate) fn generate() -> Result<Self, EnrolError> {
        Ok(Self { key: KeyPair::generate()?, sealing_key: SealingKey::generate() })
    }
}

/// Trades a join token for an identity. Nothing is stored yet.
pub(crate) async fn enrol(
    config: &Config,
    route: &tls::Route,
    token: &JoinToken,
    keys: &Keys,
) -> Result<Identity, EnrolError> {
    let Keys { key, sealing_key } = keys;
    let channel = tls::connect(route, tls::pinned(token.pin)?).await?;
    let mut request = tonic::Request::new(EnrollRequest {
        join_token: token.to_text().to_string(),
        csr_der: request_der(key)?,
        sealing_key: sealing_key.public_bytes().to_vec(),
        name: config.name.clone(),
        tags: config.tags.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        description: config.description.clone(),
        scope: config.scope.clone().unwrap_or_default(),
    });
    request.set_timeout(CALL_TIMEOUT);
    let issued = SystemTime::now();
    let answer = tokio::time::timeout(CALL_TIMEOUT, client(channel).enroll(request))
        .await
        .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")))
        .map_err(|status| match status.code() {
            tonic::Code::Unauthenticated => EnrolError::TokenRefused(status.message().into()),
            tonic::Code::PermissionDenied => EnrolError::Forbidden(status.message().into()),
            tonic::Code::InvalidArgument | tonic::Code::AlreadyExists => EnrolError::Invalid(status.message().into()),
            code => EnrolError::Call { call: "Enroll", code, message: status.message().into() },
        })?
        .into_inner();
    if answer.agent_id.is_empty() {
        return Err(EnrolError::Answer { call: "Enroll", missing: "an agent id" });
    }
    if let Some(asked) = config.scope.as_deref().filter(|asked| *asked != answer.scope) {
        tracing::warn!(
            asked,
            scope = answer.scope,
            "The control plane gave another scope than the one asked for; it may be too old"
        );
    }
    let certificate = Certificate::check("Enroll", answer.certificate_pem, answer.ca_pem, answer.not_after)?;
    let sealing_key = SealingKey::from_private_bytes(sealing_key.private_bytes()).map_err(EnrolError::SealingKey)?;
    Ok(certificate.identity(answer.agent_id, key, sealing_key, issued))
}

/// Trades the current certificate for a new one with a new key.
///
/// The sealing key stays: were it replaced and the answer lost, the control plane would seal to a key that nobody has.
pub(crate) async fn renew(channel: Channel, identity: &Identity) -> Result<Identity, EnrolError> {
    let key = KeyPair::generate()?;
    let sealing_key =
        SealingKey::from_private_bytes(identity.sealing_key.private_bytes()).map_err(EnrolError::SealingKey)?;
    let mut request = tonic::Request::new(RenewIdentityRequest {
        csr_der: request_der(&key)?,
        sealing_key: sealing_key.public_bytes().to_vec(),
    });
    request.set_timeout(CALL_TIMEOUT);
    let issued = SystemTime::now();
    let answer = tokio::time::timeout(CALL_TIMEOUT, client(channel).renew_identity(request))
        .await
        .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")))
        .map_err(|status| match status.code() {
            tonic::Code::Unauthenticated => EnrolError::CertificateRefused(status.message().into()),
            tonic::Code::PermissionDenied => EnrolError::Forbidden(status.message().into()),
            code => EnrolError::Call { call: "RenewIdentity", code, message: status.message().into() },
        })?
        .into_inner();
    let certificate = Certificate::check("RenewIdentity", answer.certificate_pem, answer.ca_pem, answer.not_after)?;
    Ok(certificate.identity(identity.agent_id.clone(), &key, sealing_key, issued))
}

/// The parts of an answer, checked to be there.
struct Certificate {
    certificate_pem: String,
    ca_pem: String,
    not_after: SystemTime,
}

impl Certificate {
    fn check(
        call: &'static str,
        certificate_pem: String,
        ca_pem: String,
        not_after: Option<Timestamp>,
    ) -> Result<Self, EnrolError> {
        let not_after = not_after
            .and_then(|at| SystemTime::try_from(at).ok())
            .ok_or(EnrolError::Answer { call, missing: "the certificate's end" })?;
        if !certificate_pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(EnrolError::Answer { call, missing: "a certificate" });
        }
        if !ca_pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(EnrolError::Answer { call, missing: "the control plane's authority" });
        }
        Ok(Self { certificate_pem, ca_pem, not_after })
    }

    fn identity(self, agent_id: String, key: &KeyPair, sealing_key: SealingKey, issued: SystemTime) -> Identity {
        Identity {
            agent_id,
            certificate_pem: self.certificate_pem,
            private_key_pem: PrivateKeyPem::new(key.serialize_pem()),
            sealing_key,
            ca_pem: self.ca_pem,
            issued,
            not_after: self.not_after,
        }
    }
}

fn request_der(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    // The control plane ignores the subject; only the key counts.
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

fn client(channel: Channel) -> AgentServiceClient<Channel> {
    AgentServiceClient::new(channel).max_decoding_message_size(lictor_proto::MAX_MESSAGE_BYTES)
}

/// For one unary call; an enrolment is one transaction on the control plane.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

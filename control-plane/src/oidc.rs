//! The control plane as OpenID Connect issuer: tokens by which AWS knows for which secret manager somebody asks, and the two documents
//! that AWS checks them with.
//!
//! It is off without the setting `oidc.issuer`. A token says a secret manager and its scope, is for AWS STS alone and good for ten
//! minutes; it must never be kept, logged or put into an error. Tokens are made by whoever hands out access to KMS; the documents are
//! served by `http`, and hold nothing that is secret. This module serves nothing itself and never reads a token.

mod keys;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::{Now, UnixMillis};
use crate::config::{Endpoint, IssuerUrl, Oidc};
use crate::files;
use crate::vault::{Place, TaskKeys, VaultError};

use keys::Keys;

/// Issues tokens, or says that it is off.
pub(crate) struct Issuer {
    on: Option<On>,
}

struct On {
    url: IssuerUrl,
    endpoints: Vec<Endpoint>,
    store: Store,
    keys: RwLock<Kept>,
}

/// Where the keys are kept: one file, encrypted under the master key.
struct Store {
    path: PathBuf,
    sealing: TaskKeys,
}

struct Kept {
    keys: Keys,
    /// What the file begins with: the id of the master key that it was encrypted with.
    under: Vec<u8>,
}

/// What a token says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Scope of the secret manager; empty for the whole account.
    pub(crate) scope: &'a str,
    /// Its identifier.
    pub(crate) manager: &'a str,
    /// The manager's own endpoint of STS, which the token is going to be shown to; empty for AWS's.
    pub(crate) sts_endpoint: &'a str,
    /// Who is going to show it.
    pub(crate) holder: Holder<'a>,
}

/// Who shows a token to AWS.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// The agent with this id.
    Agent(&'a str),
    /// The control plane itself.
    ControlPlane,
}

/// The two documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// What the issuer is.
    Discovery,
    /// The public keys.
    Keys,
}

/// Why there is no token. Never holds one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OidcError {
    /// There is no issuer.
    #[error("this control plane issues no tokens: set oidc.issuer")]
    Off,
    /// AWS does not take so long a subject.
    #[error(
        "the subject of its token would have {length} characters, and AWS takes {MAX_SUBJECT}: shorten its scope or its identifier"
    )]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Its subject would be that of the whole account.
    #[error("its scope is `{WHOLE_ACCOUNT}`, which tokens say of the whole account: give it another scope")]
    Ambiguous,
    /// The token would be shown to somebody whom the settings do not name.
    #[error("its endpoint {0} is not AWS's own, and is not in the setting oidc.endpoints")]
    Endpoint(String),
    /// A key could not be made or used.
    #[error("a signing key could not be made or used")]
    Signing,
    /// The keys' file could not be read or written.
    #[error("failed to use the file of the signing keys {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The keys could not be encrypted.
    #[error("the signing keys could not be encrypted")]
    Vault(#[from] VaultError),
}

impl Issuer {
    /// Opens the keys in `state_dir`, or makes them; nothing of that without an issuer in the settings.
    ///
    /// Keys that cannot be read are replaced: whoever checks a token fetches the new public key, so that nothing is lost with them.
    pub(crate) fn open(
        settings: &Oidc,
        state_dir: &Path,
        sealing: &TaskKeys,
        now: UnixMillis,
    ) -> Result<Self, OidcError> {
        let Some(url) = settings.issuer.clone() else { return Ok(Self { on: None }) };
        let store = Store { path: state_dir.join(FILE), sealing: sealing.clone() };
        let kept = store.read()?.unwrap_or_else(|| Kept { keys: Keys::default(), under: Vec::new() });
        let on = On { url, endpoints: settings.endpoints.clone(), store, keys: RwLock::new(kept) };
        on.advance(now)?;
        Ok(Self { on: Some(on) })
    }

    /// One that issues nothing.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { on: None }
    }

    /// A token for AWS STS.
    pub(crate) fn token(&self, subject: &Subject<'_>, now: UnixMillis) -> Result<Zeroizing<String>, OidcError> {
        let on = self.on.as_ref().ok_or(OidcError::Off)?;
        self.permits(subject.sts_endpoint)?;
        let since = now.0.div_euclid(1000);
        let holder = match subject.holder {
            Holder::Agent(agent_id) => agent_id,
            Holder::ControlPlane => CONTROL_PLANE,
        };
        let claims = json!({
            "iss": on.url.as_str(),
            "sub": subject.text()?,
            "aud": AUDIENCE,
            "iat": since,
            "nbf": since,
            "exp": since.saturating_add(LIFETIME_SECONDS),
            "jti": Uuid::new_v4().to_string(),
            "lictor_agent": holder,
        });
        let kept = on.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = kept.keys.signing(now).ok_or(OidcError::Signing)?;
        let header = json!({ "alg": ALGORITHM, "kid": key.id(), "typ": "JWT" });
        // Room for all of it at once: a text that grows leaves copies behind.
        let mut token = Zeroizing::new(String::with_capacity(MAX_TOKEN));
        URL_SAFE_NO_PAD.encode_string(header.to_string(), &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// Whether an endpoint that a secret manager with OpenID Connect names may be asked. The empty one is AWS's own.
    pub(crate) fn permits(&self, endpoint: &str) -> Result<(), OidcError> {
        let on = self.on.as_ref().ok_or(OidcError::Off)?;
        if endpoint.is_empty() || on.endpoints.iter().any(|permitted| permitted.is(endpoint)) {
            return Ok(());
        }
        Err(OidcError::Endpoint(endpoint.to_owned()))
    }

    /// Where the document is served, and nothing when the issuer is off.
    pub(crate) fn path(&self, document: Document) -> Option<String> {
        self.on.as_ref().map(|on| format!("{}{}", on.url.path(), document.path()))
    }

    /// The document, as JSON.
    pub(crate) fn document(&self, document: Document) -> Option<Value> {
        let on = self.on.as_ref()?;
        Some(match document {
            Document::Discovery => json!({
                "issuer": on.url.as_str(),
                "jwks_uri": format!("{}{}", on.url.as_str(), Document::Keys.path()),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "scopes_supported": ["openid"],
                "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "lictor_agent"],
            }),
            Document::Keys => on.keys.read().unwrap_or_else(PoisonError::into_inner).keys.public(),
        })
    }

    /// Makes, forgets and encrypts keys anew as time goes on, until `stop`.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        if self.on.is_none() {
            return stop.cancelled().await;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            let issuer = Arc::clone(&self);
            let advanced =
                spawn_blocking(move || issuer.on.as_ref().map_or(Ok(()), |on| on.advance(Now::read().wall))).await;
            // What could not be written is tried again; until then the keys are as they were.
            if let Ok(Err(error)) = advanced {
                warn!(error = %crate::app::chain(&error), "The issuer's signing keys could not be kept");
            }
        }
    }
}

impl On {
    /// Does what is due, the file first: no token is signed with a key that a crash would lose.
    fn advance(&self, now: UnixMillis) -> Result<(), OidcError> {
        let mut next = self.keys.read().unwrap_or_else(PoisonError::into_inner).keys.clone();
        let turned = next.advance(now)?;
        let blob = self.store.encrypt(&next)?;
        let under = blob.get(..keys::HEADER_BYTES).unwrap_or_default().to_vec();
        let stale = self.keys.read().unwrap_or_else(PoisonError::into_inner).under != under;
        if !turned && !stale {
            return Ok(());
        }
        files::write_private(&self.store.path, &blob)
            .map_err(|source| OidcError::File { path: self.store.path.clone(), source })?;
        if turned {
            info!(
                keys = next.len(),
                signing = next.signing(now).map(keys::Key::id),
                "The issuer's signing keys changed"
            );
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Kept { keys: next, under };
        Ok(())
    }
}

impl Store {
    /// What is kept; nothing when there is nothing, or nothing that can be read.
    fn read(&self) -> Result<Option<Kept>, OidcError> {
        let blob = match std::fs::read(&self.path) {
            Ok(blob) => blob,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OidcError::File { path: self.path.clone(), source }),
        };
        let opened = self.sealing.task(NAME).and_then(|key| key.open(Place::SigningKeys, &blob)).map(Zeroizing::new);
        let why = match opened {
            Ok(plain) => match Keys::decode(&plain) {
                Some(keys) => {
                    let under = blob.get(..keys::HEADER_BYTES).unwrap_or_default().to_vec();
                    return Ok(Some(Kept { keys, under }));
                }
                None => "it was written by another version".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        warn!(path = %self.path.display(), why, "The issuer's signing keys cannot be read and are made anew");
        Ok(None)
    }

    fn encrypt(&self, keys: &Keys) -> Result<Vec<u8>, OidcError> {
        Ok(self.sealing.task(NAME)?.seal(Place::SigningKeys, &keys.encode())?)
    }
}

impl Subject<'_> {
    /// What a trust policy compares. INVARIANT: no two pairs of scope and identifier give the same.
    fn text(&self) -> Result<String, OidcError> {
        if self.scope == WHOLE_ACCOUNT {
            return Err(OidcError::Ambiguous);
        }
        let scope = if self.scope.is_empty() { WHOLE_ACCOUNT } else { self.scope };
        let text = format!("scope:{scope}:secret-manager:{}", self.manager);
        match text.len() {
            length if length > MAX_SUBJECT => Err(OidcError::TooLong { length }),
            _ => Ok(text),
        }
    }
}

impl Document {
    /// Behind the issuer's URL; that of the first one is OpenID Connect's.
    fn path(self) -> &'static str {
        match self {
            Self::Discovery => "/.well-known/openid-configuration",
            Self::Keys => "/.well-known/jwks.json",
        }
    }
}

const FILE: &str = "oidc-keys";
/// No id of a task.
const NAME: &str = "signing keys of the issuer";
const AUDIENCE: &str = "sts.amazonaws.com";
const ALGORITHM: &str = "ES256";
/// What tokens say of managers without a scope.
const WHOLE_ACCOUNT: &str = "account";
/// What tokens say instead of an agent's id, which is a UUID.
const CONTROL_PLANE: &str = "control-plane";
/// What AWS STS takes as `SubjectFromWebIdentityToken`.
const MAX_SUBJECT: usize = 255;
/// Claims of 255 characters each, and room.
const MAX_TOKEN: usize = 2048;
/// Long enough for an assignment to reach its agent and wait there for a slot; sessions last longer than tokens.
const LIFETIME_SECONDS: i64 = 600;
/// A master key that was changed is used for the file soon, so that the old one can be taken away.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;

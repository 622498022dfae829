//! Who may share a session, and whose quota it counts towards. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::verdicts::{Digest, Verdicts};
use crate::target::{AuthKind, Endpoint, KerberosOptions, MessageEncryption, ShellProperties, Target, TlsPolicy};

/// Everything that decides whether two callers may share a session.
///
/// INVARIANT: another password, source of tickets, user or property is another key; and no key holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    endpoint: Endpoint,
    username: String,
    credential: Digest,
    auth: AuthKind,
    tls: TlsPolicy,
    message_encryption: MessageEncryption,
    send_channel_bindings: bool,
    allow_basic_over_http: bool,
    kerberos: KerberosOptions,
    /// Without its secrets.
    shell: ShellProperties,
    /// Of its secrets.
    secrets: Digest,
    /// Present when the caller wants no session that others had.
    apart: Option<Uuid>,
}

impl Key {
    pub(super) fn new(target: &Target, verdicts: &Verdicts) -> Self {
        Self {
            endpoint: target.endpoint.clone(),
            username: target.credential.username().to_owned(),
            credential: verdicts.digest(&target.credential),
            auth: target.auth,
            tls: target.tls.clone(),
            message_encryption: target.message_encryption,
            send_channel_bindings: target.send_channel_bindings,
            allow_basic_over_http: target.allow_basic_over_http,
            kerberos: target.kerberos.clone(),
            shell: ShellProperties { secret_environment: BTreeMap::new(), ..target.shell.clone() },
            secrets: verdicts.secrets_digest(&target.shell),
            apart: None,
        }
    }

    /// The same user, and nobody to share a session with.
    pub(super) fn apart(mut self) -> Self {
        self.apart = Some(Uuid::new_v4());
        self
    }

    pub(super) fn user(&self) -> User {
        User::new(&self.endpoint, &self.username)
    }
}

/// Whose quota on which host a shell counts towards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct User {
    /// With its port: behind one name and several forwarded ports there are several hosts.
    pub(super) host: Arc<str>,
    name: Arc<str>,
}

impl User {
    pub(super) fn of(target: &Target) -> Self {
        Self::new(&target.endpoint, target.credential.username())
    }

    fn new(endpoint: &Endpoint, name: &str) -> Self {
        Self { host: endpoint.authority().into(), name: name.to_lowercase().into() }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.name, self.host)
    }
}

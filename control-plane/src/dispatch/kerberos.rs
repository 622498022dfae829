//! What a credential asks of an agent beyond the task's kind: that it can do Kerberos, holds a key of the user, and gets at secrets.
//!
//! Pure. Names are compared without case, as Active Directory does; whether a key really fits shows on the agent.

use lictor_proto::v1::{AuthKind, ConnectionSettings, CredentialSecretKind};

/// What a credential asks of agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// What it has is of no use without Kerberos.
    pub(crate) only_kerberos: bool,
    /// How its connections authenticate unless a task says otherwise.
    pub(crate) auth: i32,
    /// What proves the user is on agents, and may be another thing on each of them.
    pub(crate) on_agent: bool,
    /// Whose key the agent must hold.
    pub(crate) keytab_of: Option<Principal>,
    /// Identifier of the secret that proves the user.
    pub(crate) secret: Option<String>,
    /// Identifier of the secret that holds the host's authority, unless a task says otherwise.
    pub(crate) authority: Option<String>,
}

/// A user, and the realm as far as it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    user: String,
    realm: Option<String>,
}

impl Needs {
    /// Reads them from a credential's parts; `username` with its domain.
    pub(crate) fn of(username: &str, connection: &ConnectionSettings, kind: CredentialSecretKind) -> Self {
        let realm = connection.kerberos.as_ref().map(|kerberos| kerberos.realm.as_str()).unwrap_or_default();
        Self {
            only_kerberos: is_kerberos_only(kind),
            auth: connection.auth,
            on_agent: is_on_agent(kind),
            keytab_of: (kind == CredentialSecretKind::KeytabOnAgent).then(|| Principal::of(username, realm)),
            secret: None,
            authority: Some(connection.ca_secret.clone()).filter(|secret| !secret.is_empty()),
        }
    }

    /// The same, with the secret that the credential names, if it does.
    pub(crate) fn with_secret(self, secret: &str) -> Self {
        Self { secret: Some(secret.to_owned()).filter(|secret| !secret.is_empty()), ..self }
    }

    /// Whether an agent must be able to do Kerberos. `auth` is what the task says itself.
    pub(crate) fn kerberos(&self, auth: i32) -> bool {
        let auth = if auth == 0 { self.auth } else { auth };
        self.only_kerberos || auth == i32::from(AuthKind::Kerberos)
    }
}

impl Principal {
    fn of(username: &str, realm: &str) -> Self {
        let (user, said) = match (username.rsplit_once('@'), username.split_once('\\')) {
            (Some((user, realm)), _) => (user, realm),
            // Only a DNS name can be a realm.
            (None, Some((domain, user))) => (user, if domain.contains('.') { domain } else { "" }),
            (None, None) => (username, ""),
        };
        let realm = [realm, said].into_iter().find(|realm| !realm.is_empty());
        Self { user: user.to_owned(), realm: realm.map(str::to_owned) }
    }

    /// The same user, of the realm that a task names, if it does.
    fn in_realm<'a>(&'a self, realm: &'a str) -> (&'a str, Option<&'a str>) {
        (&self.user, if realm.is_empty() { self.realm.as_deref() } else { Some(realm) })
    }

    /// Whether it is among `held`. `realm` is what the task says itself, or empty.
    pub(crate) fn is_among(&self, held: &[String], realm: &str) -> bool {
        let (user, realm) = self.in_realm(realm);
        held.iter().any(|held| {
            let (name, its_realm) = held.rsplit_once('@').unwrap_or((held, ""));
            name.eq_ignore_ascii_case(user) && realm.is_none_or(|realm| its_realm.eq_ignore_ascii_case(realm))
        })
    }

    /// For people.
    pub(crate) fn name(&self, realm: &str) -> String {
        match self.in_realm(realm) {
            (user, Some(realm)) => format!("{user}@{realm}"),
            (user, None) => user.to_owned(),
        }
    }
}

/// Whether the control plane does not know such a secret.
pub(crate) fn is_on_agent(kind: CredentialSecretKind) -> bool {
    matches!(kind, CredentialSecretKind::KeytabOnAgent | CredentialSecretKind::CacheOnAgent)
}

/// Whether such a secret is of no use to Basic and NTLM.
pub(crate) fn is_kerberos_only(kind: CredentialSecretKind) -> bool {
    match kind {
        CredentialSecretKind::Unspecified | CredentialSecretKind::Password => false,
        CredentialSecretKind::Keytab | CredentialSecretKind::KeytabOnAgent | CredentialSecretKind::CacheOnAgent => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_among_the_principals_of_keytabs() {
        let held = ["svc-web@CORP.EXAMPLE".to_owned(), "host/web1.corp.example@OTHER.EXAMPLE".to_owned()];
        for (username, setting, task, found) in [
            ("svc-web@CORP.EXAMPLE", "", "", true),
            ("SVC-Web@corp.example", "", "", true),
            ("svc-web@OTHER.EXAMPLE", "", "", false),
            ("svc-web@corp.example", "OTHER.EXAMPLE", "", false),
            ("svc-web@upn.example", "CORP.EXAMPLE", "", true),
            ("svc-web@upn.example", "", "CORP.EXAMPLE", true),
            ("svc-web", "", "", true),
            ("svc-web", "OTHER.EXAMPLE", "", false),
            (r"CORP\svc-web", "", "", true),
            (r"other.example\svc-web", "", "", false),
            ("svc", "", "", false),
            ("host/web1.corp.example", "", "", true),
        ] {
            let principal = Principal::of(username, setting);
            assert_eq!(principal.is_among(&held, task), found, "{username} {setting} {task}");
        }
        assert_eq!(Principal::of(r"CORP\svc", "").name(""), "svc");
        assert_eq!(Principal::of("svc@a", "").name("B"), "svc@B");
    }
}

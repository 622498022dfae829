//! Checks of credentials and of what belongs to Kerberos: which secret, where it is, and what it can be used for.

use lictor_proto::v1::{AuthKind, ConnectionSettings, Credential, CredentialSecretKind, KerberosSettings, KinitMode};

use super::{Checker, NAME, SCOPE, Violations, is_host, is_name, is_scope, is_text};
use crate::dispatch::is_kerberos_only;

/// A checked credential; the kind of its secret is unset only when the stored secret is to be kept, or follows from the one that it
/// refers to.
pub(crate) fn credential(
    credential: Option<Credential>,
    password: Option<&str>,
    keytab: &[u8],
) -> Result<Credential, Violations> {
    let mut checker = Checker::default();
    let mut credential = credential.unwrap_or_default();
    checker.check(is_name(&credential.name), "credential.name", NAME);
    let user = &credential.username;
    checker.check(!user.is_empty() && is_text(user, 256), "credential.username", "one line of 1 to 256 characters");
    checker.check(is_text(&credential.domain, 255), "credential.domain", "one line of at most 255 characters");
    let twice = !credential.domain.is_empty() && user.contains(['\\', '@']);
    checker.check(!twice, "credential.domain", "empty when the user name holds a domain already");
    if let Some(connection) = &credential.connection {
        checker.connection("credential.connection", connection);
    }
    checker.check(is_scope(&credential.scope), "credential.scope", SCOPE);
    checker.check(
        is_text(&credential.description, 500),
        "credential.description",
        "one line of at most 500 characters",
    );
    checker.own_secret(password, keytab);
    if !credential.secret.is_empty() {
        checker.check(is_name(&credential.secret), "credential.secret", NAME);
        let alone = password.is_none() && keytab.is_empty();
        checker.check(alone, "credential.secret", "not beside a password or keytab of the credential's own");
        let kind = CredentialSecretKind::try_from(credential.secret_kind);
        let elsewhere = kind.is_ok_and(crate::dispatch::is_on_agent) || !credential.agent_path.is_empty();
        let expected =
            "not beside a keytab or cache on the agent; a secret of the secret manager `agent` is what does that";
        checker.check(!elsewhere, "credential.secret", expected);
    }
    let brought = match (password, keytab) {
        (Some(_), _) => Some(CredentialSecretKind::Password),
        (None, []) => None,
        (None, _) => Some(CredentialSecretKind::Keytab),
    };
    checker.secret_kind(&mut credential, brought);
    checker.finish(credential)
}

/// Whether this can be a password, or a keytab.
pub(crate) fn own_secret(password: Option<&str>, keytab: &[u8]) -> Result<(), Violations> {
    let mut checker = Checker::default();
    checker.own_secret(password, keytab);
    checker.finish(())
}

/// Whether connections can authenticate with such a secret.
pub(crate) fn secret_fits(kind: CredentialSecretKind, connection: &ConnectionSettings) -> Result<(), Violations> {
    let mut checker = Checker::default();
    checker.secret_fits(kind, connection);
    checker.finish(())
}

impl Checker {
    fn own_secret(&mut self, password: Option<&str>, keytab: &[u8]) {
        if let Some(password) = password {
            let good = !password.is_empty() && password.len() <= 4096 && !password.contains('\0');
            self.check(good, "password", "1 to 4096 bytes without NUL");
        }
        if !keytab.is_empty() {
            let good = keytab.len() <= MAX_KEYTAB_BYTES && (keytab.starts_with(&[5, 2]) || keytab.starts_with(&[5, 1]));
            self.check(good, "keytab", "an MIT keytab of at most 64 KiB");
            self.check(password.is_none(), "keytab", "not beside a password");
        }
    }

    /// Fills in the kind of secret where it follows from what is given.
    fn secret_kind(&mut self, credential: &mut Credential, brought: Option<CredentialSecretKind>) {
        const FIELD: &str = "credential.secret_kind";
        let kerberos = credential.connection.as_ref().and_then(|connection| connection.kerberos.as_ref());
        let manual = kerberos.is_some_and(|kerberos| kerberos.kinit_mode() == KinitMode::Manual);
        let Ok(given) = CredentialSecretKind::try_from(credential.secret_kind) else {
            self.check(false, FIELD, "password, keytab, keytab on agent or cache on agent");
            return;
        };
        let kind = match (given, brought) {
            (CredentialSecretKind::Unspecified, Some(brought)) => brought,
            (given, _) => given,
        };
        let fits = brought.is_none_or(|brought| brought == kind);
        self.check(fits, FIELD, "that of the secret which comes with it; what is on the agent comes with none");
        let mode = "credential.connection.kerberos.kinit_mode";
        if manual && kind != CredentialSecretKind::Unspecified {
            let expected = "managed with a password or keytab; manual takes the ticket from a cache on the agent";
            self.check(kind == CredentialSecretKind::CacheOnAgent, mode, expected);
        }
        let managed = kerberos.is_some_and(|kerberos| kerberos.kinit_mode() == KinitMode::Managed);
        let good = !(managed && kind == CredentialSecretKind::CacheOnAgent);
        self.check(good, mode, "manual, or unset, when the ticket comes from a cache on the agent");
        let path = &credential.agent_path;
        self.check(is_text(path, 1024), "credential.agent_path", "one line of at most 1024 characters");
        match kind {
            CredentialSecretKind::KeytabOnAgent => {
                let good = path.is_empty() || path.starts_with('/');
                self.check(good, "credential.agent_path", "an absolute path, or empty");
            }
            CredentialSecretKind::CacheOnAgent => {
                let bare = path.strip_prefix("FILE:").or_else(|| path.strip_prefix("DIR:")).unwrap_or(path);
                let good = path.is_empty() || bare.starts_with('/');
                self.check(
                    good,
                    "credential.agent_path",
                    "FILE: or DIR: and an absolute path, or such a path, or empty",
                );
            }
            CredentialSecretKind::Unspecified => {}
            CredentialSecretKind::Password | CredentialSecretKind::Keytab => {
                self.check(path.is_empty(), "credential.agent_path", "empty unless the secret is on the agent");
            }
        }
        if let Some(connection) = &credential.connection {
            self.secret_fits(kind, connection);
        }
        credential.secret_kind = kind.into();
    }

    fn secret_fits(&mut self, kind: CredentialSecretKind, connection: &ConnectionSettings) {
        let without_kerberos = matches!(connection.auth(), AuthKind::Basic | AuthKind::Ntlm);
        let good = !(is_kerberos_only(kind) && without_kerberos);
        self.check(
            good,
            "credential.connection.auth",
            "kerberos or negotiate: without a password there is no other way",
        );
    }

    pub(super) fn kerberos(&mut self, prefix: &str, settings: &KerberosSettings) {
        let field = |name: &str| format!("{prefix}.{name}");
        let realm = &settings.realm;
        let good = is_text(realm, 255) && !realm.contains(['@', '/', '\\', '"', ' ']);
        self.check(good, &field("realm"), "a realm of at most 255 characters, such as CORP.EXAMPLE");
        let service = &settings.spn_service;
        self.check(service.is_empty() || is_name(service), &field("spn_service"), NAME);
        let host = &settings.spn_host;
        self.check(host.is_empty() || is_host(host), &field("spn_host"), "a DNS name");
        self.check(KinitMode::try_from(settings.kinit_mode).is_ok(), &field("kinit_mode"), "managed or manual");
    }
}

/// A keytab with the keys of a hundred principals has some 30 KiB.
const MAX_KEYTAB_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const KEYTAB: &[u8] = &[5, 2, 0, 0];

    fn checked(change: impl FnOnce(&mut Credential), password: Option<&str>, keytab: &[u8]) -> Result<i32, String> {
        let mut good = Credential {
            name: "n".into(),
            username: "svc@CORP.EXAMPLE".into(),
            connection: Some(ConnectionSettings::default()),
            ..Credential::default()
        };
        change(&mut good);
        let checked = credential(Some(good), password, keytab).map_err(|violations| violations.to_string());
        checked.map(|credential| credential.secret_kind)
    }

    fn kerberos(credential: &mut Credential) -> &mut KerberosSettings {
        credential.connection.get_or_insert_default().kerberos.get_or_insert_default()
    }

    #[test]
    fn a_domain_is_given_once() {
        let twice = |credential: &mut Credential| {
            credential.username = "CORP\\alice".into();
            credential.domain = "CORP".into();
        };
        assert!(checked(twice, None, &[]).is_err());
    }

    #[test]
    fn the_kind_follows_from_what_is_given() {
        use CredentialSecretKind as Kind;
        let nothing = |_: &mut Credential| {};
        assert_eq!(checked(nothing, Some("p"), &[]), Ok(Kind::Password.into()));
        assert_eq!(checked(nothing, None, KEYTAB), Ok(Kind::Keytab.into()));
        assert_eq!(checked(nothing, None, &[]), Ok(Kind::Unspecified.into()));
        let manual = |credential: &mut Credential| kerberos(credential).set_kinit_mode(KinitMode::Manual);
        // Only where the stored one is known can be said what this means.
        assert_eq!(checked(manual, None, &[]), Ok(Kind::Unspecified.into()));
        let on_agent = |credential: &mut Credential| {
            credential.set_secret_kind(Kind::KeytabOnAgent);
            credential.agent_path = "/etc/keytabs/svc.keytab".into();
        };
        assert_eq!(checked(on_agent, None, &[]), Ok(Kind::KeytabOnAgent.into()));
    }

    #[test]
    fn a_secret_stands_in_place_of_the_others() {
        use CredentialSecretKind as Kind;
        let refers = |credential: &mut Credential| credential.secret = "web-password".into();
        assert_eq!(checked(refers, None, &[]), Ok(Kind::Unspecified.into()));
        for (password, keytab) in [(Some("p"), &[][..]), (None, KEYTAB)] {
            assert!(
                checked(refers, password, keytab).unwrap_err().contains("credential.secret: not beside a password")
            );
        }
        let with_path = |credential: &mut Credential| {
            refers(credential);
            credential.agent_path = "/etc/x.keytab".into();
        };
        let on_agent = |credential: &mut Credential| {
            refers(credential);
            credential.set_secret_kind(Kind::KeytabOnAgent);
        };
        for found in [checked(with_path, None, &[]), checked(on_agent, None, &[])] {
            assert!(
                found.as_ref().unwrap_err().contains("credential.secret: not beside a keytab or cache"),
                "{found:?}"
            );
        }
        let odd = |credential: &mut Credential| credential.secret = "a b".into();
        assert!(checked(odd, None, &[]).unwrap_err().contains("credential.secret: 1 to 64"));
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        use CredentialSecretKind as Kind;
        let wrong = |change: &dyn Fn(&mut Credential), password, keytab| checked(change, password, keytab).unwrap_err();
        assert!(wrong(&|_| {}, Some("p"), KEYTAB).contains("not beside a password"));
        assert!(wrong(&|_| {}, None, b"PK").contains("an MIT keytab"));
        assert!(wrong(&|_| {}, None, &[5; (64 << 10) + 1]).contains("at most 64 KiB"));
        let found = wrong(
            &|credential| {
                credential.connection.get_or_insert_default().set_auth(AuthKind::Basic);
                credential.agent_path = "relative".into();
                let kerberos = kerberos(credential);
                kerberos.realm = "a b".into();
                kerberos.spn_service = "H TTP".into();
                kerberos.spn_host = "no host".into();
                kerberos.set_kinit_mode(KinitMode::Manual);
            },
            None,
            KEYTAB,
        );
        for field in ["realm", "spn_service", "spn_host", "kinit_mode", "agent_path", "connection.auth"] {
            assert!(found.contains(&format!("{field}: ")), "{field} in {found}");
        }
        let on_agent = |credential: &mut Credential| credential.set_secret_kind(Kind::KeytabOnAgent);
        assert!(wrong(&on_agent, Some("p"), &[]).contains("comes with none"));
        let managed = |credential: &mut Credential| {
            credential.set_secret_kind(Kind::CacheOnAgent);
            kerberos(credential).set_kinit_mode(KinitMode::Managed);
        };
        assert!(wrong(&managed, None, &[]).contains("kinit_mode: manual"));
        assert!(wrong(&|credential| credential.secret_kind = 77, None, &[]).contains("secret_kind"));
    }
}

//! As whom to talk to the host, and what proves it: a password, a keytab, or the tickets of a credential cache.

use std::path::PathBuf;
use std::sync::Arc;

use lictor_doctor::KerberosSubject;
use lictor_kerberos::{CredentialSource, Identity, Kerberos};
use lictor_winrm::target::{AuthKind, Credential, Secret};
use zeroize::Zeroizing;

use super::PASSWORD_VARIABLE;
use super::tickets::Tickets;
use crate::args::winrm::{HostArgs, KerberosArgs};
use crate::args::{Auth, KinitMode};
use crate::failure::Failure;
use crate::kerberos::{Environment, Settings, only_principal};
use crate::{console, input, keytab};

/// As whom.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) auth: AuthKind,
    pub(super) credential: Credential,
    /// How to call it.
    pub(super) name: String,
    /// Its tickets, if it may have some.
    pub(super) tickets: Option<Arc<Tickets>>,
    /// Kerberos, for an examination.
    pub(super) kerberos: Option<KerberosSubject>,
}

/// What proves it.
#[derive(Debug)]
enum Proof {
    Password(Secret),
    Keytab(PathBuf),
    /// A credential cache, or where there is no name the default one.
    Cache(Option<String>),
}

/// Finds out by flags, environment and krb5.conf. Nothing is sent anywhere. With `explain`, a krb5.conf that cannot be used is left
/// for the examination to find.
pub(super) async fn who(host: &HostArgs, explain: bool) -> Result<Who, Failure> {
    let password = input::secret("password", host.password_file.as_deref(), PASSWORD_VARIABLE)?;
    let proof = proof(&host.kerberos, password, &Environment::read())?;
    match (host.auth, proof) {
        (Some(Auth::Basic), Some(Proof::Password(password))) => by_password(AuthKind::Basic, host, password),
        (Some(Auth::Ntlm), Some(Proof::Password(password))) => by_password(AuthKind::Ntlm, host, password),
        (Some(Auth::Basic | Auth::Ntlm), Some(_)) if host.kerberos.given() => Err(Failure::usage(
            "keytabs and credential caches are for Kerberos",
            "Give --auth kerberos, or a password.",
        )),
        (Some(Auth::Kerberos), Some(proof)) => by_kerberos(AuthKind::Kerberos, host, proof, explain).await,
        (None | Some(Auth::Negotiate), Some(Proof::Password(password))) => negotiate(host, password).await,
        (None, Some(proof)) => by_kerberos(AuthKind::Kerberos, host, proof, explain).await,
        (Some(Auth::Negotiate), Some(proof)) => by_kerberos(AuthKind::Negotiate, host, proof, explain).await,
        (Some(Auth::Kerberos), None) => Err(Failure::usage(
            "there is nothing to log in with",
            "Give --keytab FILE, --ccache CACHE or --password-file FILE, or set LICTOR_PASSWORD, KRB5_KTNAME or KRB5CCNAME; \
             --kinit-mode manual takes the default credential cache.",
        )),
        (Some(Auth::Basic | Auth::Ntlm), _) | (None | Some(Auth::Negotiate), None) => Err(Failure::usage(
            "there is no password",
            "Give --password-file FILE, or set the environment variable LICTOR_PASSWORD; for Kerberos --keytab FILE or --ccache CACHE.",
        )),
    }
}

/// What flags say, else the environment: a password before a keytab before a credential cache.
fn proof(flags: &KerberosArgs, password: Option<Secret>, environment: &Environment) -> Result<Option<Proof>, Failure> {
    let contradiction = |flag| {
        Failure::usage(
            format!("{flag} contradicts --kinit-mode"),
            "managed logs in with a password or a keytab; manual takes the tickets of a credential cache.",
        )
    };
    match flags.kinit_mode {
        Some(KinitMode::Manual) if flags.keytab.is_some() => return Err(contradiction("--keytab")),
        Some(KinitMode::Manual) => {
            return Ok(Some(Proof::Cache(flags.ccache.clone().or_else(|| environment.ccache.clone()))));
        }
        Some(KinitMode::Managed) if flags.ccache.is_some() => return Err(contradiction("--ccache")),
        Some(KinitMode::Managed) | None => {}
    }
    Ok(match (&flags.keytab, &flags.ccache, password) {
        (Some(keytab), _, _) => Some(Proof::Keytab(keytab.clone())),
        (None, Some(cache), _) => Some(Proof::Cache(Some(cache.clone()))),
        (None, None, Some(password)) => Some(Proof::Password(password)),
        (None, None, None) => {
            let cache = environment.ccache.clone().filter(|_| flags.kinit_mode.is_none());
            environment.keytab.clone().map(Proof::Keytab).or(cache.map(|cache| Proof::Cache(Some(cache))))
        }
    })
}

fn by_password(auth: AuthKind, host: &HostArgs, password: Secret) -> Result<Who, Failure> {
    let name = user(host)?;
    Ok(Who { auth, credential: Credential::password(&name, password), name, tickets: None, kerberos: None })
}

/// A password and a choice: Kerberos inside SPNEGO for a user of a realm that krb5.conf serves, else NTLM.
async fn negotiate(host: &HostArgs, password: Secret) -> Result<Who, Failure> {
    let name = user(host)?;
    let suffix = name.rsplit_once('@').map(|(_, suffix)| suffix);
    let Some(realm) = host.kerberos.realm.as_deref().or(suffix).filter(|_| !name.contains('\\')) else {
        return by_password(AuthKind::Negotiate, host, password);
    };
    let settings = match Settings::load(host.kerberos.krb5_conf.as_deref(), host.kerberos.trace).await {
        Ok(settings) => settings,
        // Who did not ask for Kerberos gets by without it.
        Err(failure) if host.kerberos.krb5_conf.is_none() => {
            console::note(&format!("warning: Kerberos is not tried: {}", crate::failure::clean(&failure.message)));
            return by_password(AuthKind::Negotiate, host, password);
        }
        Err(failure) => return Err(failure),
    };
    let current = settings.current();
    // Without any krb5.conf every realm could be asked of DNS; that would only cost time.
    if current.text().trim().is_empty() || !current.defines(realm) {
        return by_password(AuthKind::Negotiate, host, password);
    }
    settings.warn();
    let source = CredentialSource::Password(Zeroizing::new(password.expose().to_owned()));
    Ok(with_tickets(AuthKind::Negotiate, host, &settings, name, source, Some(password)))
}

async fn by_kerberos(auth: AuthKind, host: &HostArgs, proof: Proof, explain: bool) -> Result<Who, Failure> {
    let settings = match Settings::load(host.kerberos.krb5_conf.as_deref(), host.kerberos.trace).await {
        Ok(settings) => settings,
        Err(_) if explain => return Ok(without_settings(host)),
        Err(failure) => return Err(failure),
    };
    if !explain {
        settings.warn();
    }
    if let Some(user) = host.user.as_deref().filter(|user| user.contains('\\')) {
        return Err(Failure::usage(
            format!("`{}` is no name of Kerberos", crate::failure::clean(user)),
            "Write it as user@REALM, such as alice@CORP.EXAMPLE, or give --realm and the bare name.",
        ));
    }
    let (name, source) = match proof {
        Proof::Password(password) => {
            (user(host)?, CredentialSource::Password(Zeroizing::new(password.expose().to_owned())))
        }
        Proof::Keytab(path) => {
            // Read here as well, so that what is wrong with it is said before anything is sent.
            let held = keytab::read(&path)?;
            let name = match &host.user {
                Some(user) => user.clone(),
                None => only_principal(&path, &held)?,
            };
            (name, CredentialSource::KeytabFile(path))
        }
        Proof::Cache(name) => {
            let name = match name {
                Some(name) => name,
                None => krb5::ccache::CacheName::default_name(settings.current().krb5()).map_err(|error| {
                    Failure::usage(
                        format!("the default credential cache cannot be told: {error}"),
                        "Name the cache with --ccache or KRB5CCNAME.",
                    )
                })?,
            };
            (host.user.clone().unwrap_or_default(), CredentialSource::Cache(name))
        }
    };
    Ok(with_tickets(auth, host, &settings, name, source, None))
}

fn with_tickets(
    auth: AuthKind,
    host: &HostArgs,
    settings: &Settings,
    principal: String,
    source: CredentialSource,
    password: Option<Secret>,
) -> Who {
    let name = match &source {
        CredentialSource::Cache(cache) if principal.is_empty() => format!("the principal of {cache}"),
        _ => principal.clone(),
    };
    let identity = Identity { principal: principal.clone(), realm: host.kerberos.realm.clone(), source, fresh: false };
    let kerberos = Kerberos::new(Arc::clone(&settings.watch));
    let examined = KerberosSubject {
        source: crate::kerberos::source(host.kerberos.krb5_conf.as_deref()),
        manager: Some(kerberos.clone()),
        identity: Some(identity.clone()),
    };
    let tickets = Arc::new(Tickets::new(kerberos, identity, settings.trace.clone()));
    let source: Arc<Tickets> = Arc::clone(&tickets);
    Who {
        auth,
        credential: Credential::tickets(principal, source, password),
        name,
        tickets: Some(tickets),
        kerberos: Some(examined),
    }
}

/// For an examination: the host can be looked at, and nothing can be sent that proves anybody. A credential without tickets is
/// refused before a connection is used for Kerberos.
fn without_settings(host: &HostArgs) -> Who {
    let name = host.user.clone().unwrap_or_default();
    let source = crate::kerberos::source(host.kerberos.krb5_conf.as_deref());
    let credential = Credential::password(&name, Secret::new(String::new()));
    let kerberos = Some(KerberosSubject { source, manager: None, identity: None });
    Who { auth: AuthKind::Kerberos, credential, name, tickets: None, kerberos }
}

fn user(host: &HostArgs) -> Result<String, Failure> {
    host.user.clone().filter(|user| !user.is_empty()).ok_or_else(|| {
        Failure::usage("there is no user name", "Give --user: DOMAIN\\user, user@REALM or a bare local name.")
    })
}

impl KerberosArgs {
    /// Whether a flag says what to log in with.
    fn given(&self) -> bool {
        self.keytab.is_some() || self.ccache.is_some() || self.kinit_mode == Some(KinitMode::Manual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(keytab: Option<&str>, ccache: Option<&str>, kinit_mode: Option<KinitMode>) -> KerberosArgs {
        KerberosArgs {
            keytab: keytab.map(PathBuf::from),
            ccache: ccache.map(str::to_owned),
            kinit_mode,
            realm: None,
            spn_service: None,
            spn_host: None,
            delegate: false,
            krb5_conf: None,
            trace: false,
        }
    }

    fn told(flags: &KerberosArgs, password: bool, environment: &Environment) -> String {
        match proof(flags, password.then(|| Secret::new("x".to_owned())), environment) {
            Ok(Some(Proof::Password(_))) => "password".to_owned(),
            Ok(Some(Proof::Keytab(path))) => format!("keytab {}", path.display()),
            Ok(Some(Proof::Cache(name))) => format!("cache {}", name.as_deref().unwrap_or("by default")),
            Ok(None) => "nothing".to_owned(),
            Err(_) => "mistake".to_owned(),
        }
    }

    #[test]
    fn flags_come_before_the_password_and_the_environment_last() {
        let none = Environment::default();
        let both = Environment { keytab: Some("e.keytab".into()), ccache: Some("FILE:e".to_owned()) };
        let cache = Environment { keytab: None, ..Environment { keytab: None, ccache: Some("FILE:e".to_owned()) } };
        let (managed, manual) = (Some(KinitMode::Managed), Some(KinitMode::Manual));
        for (flags, password, environment, expected) in [
            (flags(Some("k"), None, None), true, &both, "keytab k"),
            (flags(None, Some("c"), None), true, &both, "cache c"),
            (flags(None, None, None), true, &both, "password"),
            (flags(None, None, None), false, &both, "keytab e.keytab"),
            (flags(None, None, None), false, &cache, "cache FILE:e"),
            (flags(None, None, managed), false, &cache, "nothing"),
            (flags(None, None, None), false, &none, "nothing"),
            (flags(None, None, manual), true, &both, "cache FILE:e"),
            (flags(None, Some("c"), manual), true, &both, "cache c"),
            (flags(None, None, manual), false, &none, "cache by default"),
            (flags(Some("k"), None, manual), false, &none, "mistake"),
            (flags(None, Some("c"), managed), false, &none, "mistake"),
        ] {
            assert_eq!(told(&flags, password, environment), expected, "{flags:?}");
        }
    }
}

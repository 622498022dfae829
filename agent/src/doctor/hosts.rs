//! Hosts, examined as a task would meet them: without logging in, or as a user whose key or ticket the agent holds. Nobody is asked
//! for a password.

use lictor_doctor::{Finding, KerberosSubject, Subject, examine, examine_unproved};
use lictor_kerberos::{CredentialSource, Identity};
use lictor_winrm::target::{
    AuthKind, Credential, Endpoint, KerberosOptions, MessageEncryption, Scheme, Secret, ShellProperties, Target,
    Timeouts, TlsPolicy,
};

use super::kerberos::Found;
use super::report::Book;
use super::{advice, deadline};
use crate::cli::DoctorArgs;
use crate::failure::{self, chain};
use crate::policy::{Approach, Policy, Refusal};
use crate::sessions::ticket_source;

pub(super) async fn look(
    host: &str,
    args: &DoctorArgs,
    policy: Option<&Policy>,
    kerberos: Option<&Found>,
    book: &mut Book,
) {
    let scheme = if args.http { Scheme::Http } else { Scheme::Https };
    let endpoint = match Endpoint::new(scheme, host, args.port, None) {
        Ok(endpoint) => endpoint,
        Err(error) => return book.failed("host_name", "", advice::TARGET.about(chain(&error))),
    };
    let Some(policy) = policy else {
        return book.skipped("policy", "what the policy allows is not known");
    };
    let endpoint = match permitted(policy, endpoint, args) {
        Ok(endpoint) => endpoint,
        Err(refusal) => return book.failed("policy", "", finding(&refusal)),
    };
    let Some(user) = &args.user else {
        let credential = Credential::password(String::new(), Secret::new(String::new()));
        let subject = Subject { target: Some(target(endpoint, credential, args)), kerberos: None, usual_ports: false };
        examine_unproved(&subject, deadline(), |step| book.step(step)).await;
        return;
    };
    let Some((found, identity)) = kerberos.and_then(|found| Some((found, identity(found, user)?))) else {
        let message = format!("nothing here proves {user}");
        return book.failed("login", "", advice::NO_KEY.about(message));
    };
    let source = ticket_source(found.manager.clone(), identity.clone());
    let target = target(endpoint, Credential::tickets(user.clone(), source, None), args);
    let manager = Some(found.manager.clone());
    let kerberos = KerberosSubject { source: found.source.clone(), manager, identity: Some(identity) };
    let subject = Subject { target: Some(target), kerberos: Some(kerberos), usual_ports: false };
    examine(&subject, deadline(), |step| book.step(step)).await;
}

/// The host, limited to the addresses that the policy allows. Its rules on kinds of tasks are for those of the control plane.
fn permitted(policy: &Policy, endpoint: Endpoint, args: &DoctorArgs) -> Result<Endpoint, Refusal> {
    let target = target(endpoint, Credential::password(String::new(), Secret::new(String::new())), args);
    let approach = Approach {
        endpoint: &target.endpoint,
        username: args.user.as_deref().unwrap_or_default(),
        realm: None,
        auth: target.auth,
        delegate: target.kerberos.delegate,
        tls: &target.tls,
        task_ca: false,
        message_encryption: target.message_encryption,
    };
    if args.user.is_some() {
        policy.identities(&approach)?;
    }
    let networks = policy.way(&approach)?;
    Ok(target.endpoint.within(networks))
}

fn finding(refusal: &Refusal) -> Finding {
    let (_, failure) = failure::policy(refusal);
    Finding {
        code: failure.code.into(),
        message: failure.message,
        cause: failure.cause,
        remedy: failure.remedy,
        legacy_text: None,
        suspects: Vec::new(),
    }
}

/// By a key of the user, else by a ticket.
fn identity(found: &Found, user: &str) -> Option<Identity> {
    let is_user = |held: &str| match user.contains('@') {
        true => held.eq_ignore_ascii_case(user),
        false => held.rsplit_once('@').is_some_and(|(name, realm)| {
            name.eq_ignore_ascii_case(user) && found.configuration.default_realm() == Some(realm)
        }),
    };
    let by_key = found.keytabs.iter().find_map(|(path, keytab)| {
        let held = keytab.principals().into_iter().find(|held| is_user(held))?;
        Some((held.to_owned(), CredentialSource::KeytabFile(path.clone())))
    });
    let by_ticket = || {
        let (name, held) = found.caches.iter().find(|(_, held)| is_user(held))?;
        Some((held.clone(), CredentialSource::Cache(name.clone())))
    };
    let (held, source) = by_key.or_else(by_ticket)?;
    let (principal, realm) = held.rsplit_once('@')?;
    Some(Identity { principal: principal.to_owned(), realm: Some(realm.to_owned()), source, fresh: false })
}

fn target(endpoint: Endpoint, credential: Credential, args: &DoctorArgs) -> Target {
    Target {
        endpoint,
        auth: AuthKind::Negotiate,
        credential,
        tls: TlsPolicy { ca_pem: None, skip_certificate_check: args.skip_cert_check },
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: false,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}

//! An Active Directory domain: what Samba's KDC and winbind say to us, and we to people.
//!
//! One test for all of it, since the domain takes long to come up; its themes run at the same time and fail one by one.
//! Each theme that spoils the state of an account has accounts of its own.

#![expect(clippy::panic, reason = "what is exempt in tests should be so in the functions that they share")]

mod doctor;
mod hosts;
mod logins;
mod services;
mod winbind;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lictor_kerberos::config::{Source, Watch};
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, Error, Identity, Kerberos, Request, Service, ServiceTicket};
use lictor_tests::{Carried, Samba};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn an_active_directory_domain() {
    let Some(samba) = spawn_blocking(Samba::start).await.unwrap().unwrap() else { return };
    let realm = Arc::new(Realm::new(samba));
    let mut themes = JoinSet::new();
    let mut names = HashMap::new();
    macro_rules! run {
        ($($theme:path),* $(,)?) => {$(
            let shared = Arc::clone(&realm);
            names.insert(themes.spawn(async move { $theme(&shared).await }).id(), stringify!($theme));
        )*};
    }
    run!(
        logins::names_that_log_in,
        logins::accounts_that_may_not,
        logins::a_wrong_password_is_tried_once,
        logins::a_locked_account,
        logins::keytabs,
        logins::a_password_that_changes_after_the_keytab,
        logins::an_account_without_aes_keys,
        services::names_of_services,
        services::names_that_nobody_has,
        services::services_without_aes,
        services::four_hundred_groups,
        services::delegation,
        hosts::all_kinds_of_users,
        hosts::a_host_of_another_service,
        hosts::a_host_with_other_keys,
        hosts::a_host_trusted_for_delegation,
        doctor::examined_hosts,
        doctor::examined_accounts,
        doctor::an_examination_counts_one_attempt,
        doctor::an_account_that_is_locked,
        winbind::kerberos_tokens_are_accepted,
        winbind::ntlm_tokens_are_accepted,
        winbind::ntlm_refusals_have_their_statuses,
    );
    let mut failed = Vec::new();
    while let Some(ended) = themes.join_next().await {
        failed.extend(ended.err().map(|error| names[&error.id()]));
    }
    // Alone, since they look at what comes to the KDC.
    macro_rules! alone {
        ($($theme:path),* $(,)?) => {$(
            let shared = Arc::clone(&realm);
            let ended = tokio::spawn(async move { $theme(&shared).await }).await;
            failed.extend(ended.err().map(|_| stringify!($theme)));
        )*};
    }
    alone!(services::a_large_ticket_needs_tcp, services::delegation_asked_for_during_a_login);
    assert!(failed.is_empty(), "failed, for reasons above: {failed:?}");
}

/// The domain, and the credential manager as its client.
struct Realm {
    samba: Arc<Samba>,
    kerberos: Kerberos,
}

impl Realm {
    fn new(samba: Samba) -> Self {
        let watch = Watch::start(Source::File(samba.krb5_conf()), None).unwrap();
        Self { samba: Arc::new(samba), kerberos: Kerberos::new(Arc::new(watch)) }
    }

    #[expect(clippy::unused_self, reason = "reads as what it is: an identity in this realm")]
    fn with_password(&self, principal: &str, password: &str) -> Identity {
        let source = CredentialSource::Password(password.to_owned().into());
        Identity { principal: principal.to_owned(), realm: None, source, fresh: false }
    }

    #[expect(clippy::unused_self, reason = "reads as what it is: an identity in this realm")]
    fn with_keytab(&self, principal: &str, keytab: &Path) -> Identity {
        let source = CredentialSource::KeytabFile(keytab.to_owned());
        Identity { principal: principal.to_owned(), realm: None, source, fresh: false }
    }

    fn alice(&self) -> Identity {
        self.with_password(&self.samba.principal("alice"), self.samba.password("alice").unwrap())
    }

    async fn check(&self, identity: &Identity) -> Result<(), Error> {
        self.kerberos.check(identity, request(false)).await.map(drop)
    }

    async fn ticket(&self, identity: &Identity, service: &str, host: &str) -> Result<Arc<krb5::Credentials>, Error> {
        let service = Service::new(service, host);
        self.kerberos.service_ticket(identity, &service, request(false)).await.map(|granted| granted.ticket)
    }

    async fn delegated(&self, identity: &Identity, service: &Service) -> Result<ServiceTicket, Error> {
        self.kerberos.service_ticket(identity, service, request(true)).await
    }

    async fn attribute(&self, account: &'static str, attribute: &'static str) -> Option<String> {
        let samba = Arc::clone(&self.samba);
        spawn_blocking(move || samba.attribute(account, attribute)).await.unwrap().unwrap()
    }

    async fn carried(&self) -> Carried {
        let samba = Arc::clone(&self.samba);
        spawn_blocking(move || samba.carried()).await.unwrap().unwrap()
    }

    async fn set_password(&self, account: &'static str, password: &'static str) {
        let samba = Arc::clone(&self.samba);
        spawn_blocking(move || samba.set_password(account, password)).await.unwrap().unwrap();
    }
}

fn request(delegate: bool) -> Request {
    Request { delegate, deadline: Instant::now() + Duration::from_secs(120), trace: Trace::off() }
}

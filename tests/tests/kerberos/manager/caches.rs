//! Caches that `kinit` fills, and what `klist` thinks of ours.

use lictor_kerberos::{CredentialSource, Identity};
use lictor_tests::Kdc;

use super::{add_host, identity, manager, request, service};

fn cache(principal: &str, name: &str) -> Identity {
    identity(principal, CredentialSource::Cache(name.to_owned()))
}

#[tokio::test]
async fn what_kinit_wrote_is_used_and_no_login_made() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for host in ["web1", "web2"] {
        add_host(&kdc, host);
    }
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let file = kdc.path("alice.ccache");
    let directory = kdc.path("collection");
    std::fs::create_dir(&directory).unwrap();
    let names =
        [file.display().to_string(), format!("FILE:{}", file.display()), format!("DIR:{}", directory.display())];
    let kerberos = manager(&kdc);
    for name in &names[1..] {
        kdc.kinit(&kdc.principal("alice"), "Secret-1", name, &[]).unwrap();
    }
    let before = kdc.as_exchanges();
    for name in &names {
        for principal in ["", "alice", "Alice", &kdc.principal("alice")] {
            let ticket = kerberos
                .service_ticket(&cache(principal, name), &service(&kdc, "web1"), request())
                .await
                .unwrap()
                .ticket;
            assert_eq!(ticket.client.to_string(), kdc.principal("alice"), "{name}");
        }
    }
    assert_eq!(kdc.as_exchanges(), before);

    // A ticket that others got into the cache is used: the KDC is not asked for it.
    let web2 = kdc.principal(&format!("HTTP/{}", super::host_name(&kdc, "web2")));
    assert!(kdc.command("kvno").env("KRB5CCNAME", &names[1]).arg(&web2).output().unwrap().status.success());
    let before = kdc.tgs_exchanges();
    kerberos.service_ticket(&cache("alice", &names[1]), &service(&kdc, "web2"), request()).await.unwrap();
    assert_eq!(kdc.tgs_exchanges(), before);
    // Unless its host did not take it.
    kerberos.forget_service(&cache("alice", &names[1]), &service(&kdc, "web2"));
    kerberos.service_ticket(&cache("alice", &names[1]), &service(&kdc, "web2"), request()).await.unwrap();
    assert_eq!(kdc.tgs_exchanges(), before + 1);
}

#[tokio::test]
async fn caches_that_are_of_no_use() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    for user in ["alice", "bob"] {
        kdc.add_password(user, "Secret-1", &[]).unwrap();
    }
    let kerberos = manager(&kdc);
    let code = async |identity: &Identity| {
        let error = kerberos.service_ticket(identity, &service(&kdc, "web1"), request()).await.unwrap_err();
        (error.code(), error.legacy_text().unwrap_or_default().to_owned())
    };
    let missing = format!("FILE:{}", kdc.path("missing").display());
    let (found, text) = code(&cache("alice", &missing)).await;
    assert_eq!(found, "kerberos.cache_unreadable");
    assert!(kdc.klist(&missing, &[]).unwrap_err().to_string().contains(&text));
    // A collection that is not there is not made.
    let directory = kdc.path("nothing");
    assert_eq!(code(&cache("alice", &format!("DIR:{}", directory.display()))).await.0, "kerberos.cache_unreadable");
    assert!(!directory.exists());
    for name in ["KEYRING:persistent:0", "MEMORY:x", "KCM:"] {
        assert!(["kerberos.cache_kind", "kerberos.cache_unreadable"].contains(&code(&cache("alice", name)).await.0));
    }

    let name = format!("FILE:{}", kdc.path("alice.ccache").display());
    kdc.kinit(&kdc.principal("alice"), "Secret-1", &name, &[]).unwrap();
    assert_eq!(code(&cache("bob", &name)).await.0, "kerberos.cache_principal");
    // It belongs to whoever it belonged to first, when nobody was named.
    let nobody = cache("", &name);
    kerberos.service_ticket(&nobody, &service(&kdc, "web1"), request()).await.unwrap();
    kdc.kinit(&kdc.principal("bob"), "Secret-1", &name, &[]).unwrap();
    assert_eq!(code(&nobody).await.0, "kerberos.cache_principal");
    kerberos.forget(&nobody);
    let ticket = kerberos.service_ticket(&nobody, &service(&kdc, "web1"), request()).await.unwrap().ticket;
    assert_eq!(ticket.client.to_string(), kdc.principal("bob"));

    // Expired: nothing logs in for it, and a new kinit is noticed.
    kdc.kinit(&kdc.principal("alice"), "Secret-1", &name, &["-l", "1s"]).unwrap();
    let alice = cache("alice", &name);
    super::eventually("the ticket has expired", async || {
        kerberos.check(&alice, request()).await.is_err_and(|error| error.code() == "kerberos.cache_expired")
    })
    .await;
    kdc.kinit(&kdc.principal("alice"), "Secret-1", &name, &[]).unwrap();
    kerberos.check(&alice, request()).await.unwrap();

    std::fs::write(kdc.path("garbage"), b"\x05\x04\x00").unwrap();
    let garbage = format!("FILE:{}", kdc.path("garbage").display());
    assert_eq!(code(&cache("alice", &garbage)).await.0, "kerberos.cache_unreadable");
}

#[tokio::test]
async fn klist_reads_our_tickets() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    add_host(&kdc, "web1");
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), super::password("alice", "Secret-1"));
    let granting = kerberos.check(&alice, request()).await.unwrap();
    let ticket = kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap().ticket;
    let mut ours = krb5::CCache::with_credentials(&granting);
    ours.store(&ticket);
    let path = kdc.path("ours.ccache");
    ours.write(&path).unwrap();
    let listed = kdc.klist(&format!("FILE:{}", path.display()), &["-e"]).unwrap();
    for text in [kdc.principal("alice"), format!("krbtgt/{0}@{0}", kdc.realm()), super::host_name(&kdc, "web1")] {
        assert!(listed.contains(&text), "{listed}");
    }
}

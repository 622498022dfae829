//! Many at once, and KDCs and keytabs that change under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lictor_kerberos::{Identity, Kerberos};
use lictor_tests::{Kdc, KdcOptions};
use tokio::task::JoinSet;

use super::{add_host, eventually, keytab_file, manager, password, request, service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_users_of_fifty_principals_log_in_fifty_times() {
    let kdc = Arc::new(Kdc::start("CORP.EXAMPLE").unwrap());
    // AES-SHA1 only: the others take ten times as many rounds to make a key of a password.
    let add: Vec<String> = (0..50)
        .map(|user| format!("addprinc -e aes256-cts-hmac-sha1-96:normal -pw Secret-{user} user{user}"))
        .collect();
    kdc.kadmin(&add.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for host in ["web1", "web2"] {
        add_host(&kdc, host);
    }
    let kerberos = manager(&kdc);
    let mut users = JoinSet::new();
    for number in 0..500 {
        let (kerberos, kdc) = (kerberos.clone(), kdc.clone());
        users.spawn(async move {
            let user = number % 50;
            let identity = password(&format!("user{user}"), &format!("Secret-{user}"));
            let host = if number % 100 < 50 { "web1" } else { "web2" };
            let ticket = kerberos.service_ticket(&identity, &service(&kdc, host), request()).await.unwrap().ticket;
            assert_eq!(ticket.client.to_string(), kdc.principal(&format!("user{user}")));
            assert_eq!(ticket.server.components[1], super::host_name(&kdc, host));
        });
    }
    while let Some(user) = users.join_next().await {
        user.unwrap();
    }
    assert_eq!((kdc.as_exchanges(), kdc.tgs_exchanges()), (50, 100));
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 0);
}

/// Users that go on asking for tickets until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    users: JoinSet<()>,
}

impl Load {
    fn start(kerberos: &Kerberos, kdc: &Kdc, identities: &[Identity]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut users = JoinSet::new();
        for number in 0..40 {
            let (kerberos, stop, done) = (kerberos.clone(), stop.clone(), done.clone());
            let (identity, service) = (identities[number % identities.len()].clone(), service(kdc, "web1"));
            users.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let ticket = kerberos.service_ticket(&identity, &service, request()).await.unwrap().ticket;
                    assert!(ticket.endtime > super::unix_now());
                    done.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            });
        }
        Self { stop, done, users }
    }

    /// Waits until every user, more or less, has had another ticket.
    async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("tickets are given out", async || self.done.load(Ordering::Relaxed) > before + 200).await;
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(user) = self.users.join_next().await {
            user.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keytab_rotated_under_load_fails_nobody() {
    // Tickets so short that they are fetched again while this runs.
    let options =
        KdcOptions { max_life: "12s".to_owned(), max_renewable_life: "0".to_owned(), ..KdcOptions::default() };
    let kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    add_host(&kdc, "web1");
    kdc.add_random("svc", &[]).unwrap();
    let keytab = kdc.path("svc.keytab");
    kdc.keytab(&["svc"], &keytab).unwrap();
    let kerberos = manager(&kdc);
    let load = Load::start(&kerberos, &kdc, &[keytab_file("svc", keytab.clone())]);
    load.goes_on().await;
    for _ in 0..2 {
        // As an administrator does it: new keys, a new file, put in the place of the old one.
        let next = kdc.path("next.keytab");
        let _ = std::fs::remove_file(&next);
        kdc.change_keys("svc", true).unwrap();
        kdc.keytab(&["svc"], &next).unwrap();
        std::fs::rename(&next, &keytab).unwrap();
        let before = kdc.as_exchanges();
        eventually("a login with the new keys", async || kdc.as_exchanges() > before).await;
        load.goes_on().await;
    }
    // And now the old keys are gone for good.
    kdc.kadmin(&["purgekeys svc"]).unwrap();
    let before = kdc.as_exchanges();
    eventually("another login", async || kdc.as_exchanges() > before).await;
    load.goes_on().await;
    load.end().await;
    assert_eq!(kdc.logged(&["AS_REQ", "PREAUTH_FAILED"]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kdc_killed_under_load_fails_nobody_whose_ticket_is_good() {
    let options =
        KdcOptions { max_life: "20s".to_owned(), max_renewable_life: "0".to_owned(), ..KdcOptions::default() };
    let mut kdc = Kdc::start_with("CORP.EXAMPLE", options).unwrap();
    add_host(&kdc, "web1");
    for user in ["alice", "bob"] {
        kdc.add_password(user, "Secret-1", &[]).unwrap();
    }
    let kerberos = manager(&kdc);
    let identities = [password("alice", "Secret-1"), password("bob", "Secret-1")];
    let load = Load::start(&kerberos, &kdc, &identities);
    load.goes_on().await;
    kdc.kill().unwrap();
    load.goes_on().await;
    kdc.restart().unwrap();
    let before = kdc.as_exchanges();
    load.goes_on().await;
    // Beyond the life of the first tickets: they were fetched again after the restart.
    eventually("both log in again", async || kdc.as_exchanges() >= before + 2).await;
    load.goes_on().await;
    load.end().await;
}

#[tokio::test]
async fn without_a_kdc_a_good_ticket_is_handed_out_and_no_other() {
    let mut kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    for host in ["web1", "web2"] {
        add_host(&kdc, host);
    }
    kdc.add_password("alice", "Secret-1", &[]).unwrap();
    let (kerberos, alice) = (manager(&kdc), password("alice", "Secret-1"));
    kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap();
    kdc.kill().unwrap();
    kerberos.service_ticket(&alice, &service(&kdc, "web1"), request()).await.unwrap();
    let error = kerberos.service_ticket(&alice, &service(&kdc, "web2"), request()).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.kdc_unreachable");
}

//! The harness itself: what other tests take for granted of the KDC, judged by MIT's own tools.

use lictor_tests::Kdc;

#[test]
fn two_kdcs_are_strangers_until_they_trust_each_other() {
    let (mut first, mut second) = (Kdc::start("CORP.EXAMPLE").unwrap(), Kdc::start("CORP.EXAMPLE").unwrap());
    assert_ne!(first.realm(), second.realm());
    assert_ne!(first.port(), second.port());
    first.add_password("alice", "Secret 1", &[]).unwrap();
    second.add_random("HTTP/localhost", &[]).unwrap();
    let cache = format!("FILE:{}", first.path("alice.ccache").display());
    first.kinit(&first.principal("alice"), "Secret 1", &cache, &[]).unwrap();
    assert_eq!((first.as_exchanges(), second.as_exchanges()), (1, 0));
    assert!(first.klist(&cache, &[]).unwrap().contains(&first.principal("alice")));
    let wrong = first.kinit(&first.principal("alice"), "Secret 2", &cache, &[]).unwrap_err().to_string();
    assert!(wrong.contains("Password incorrect"), "{wrong}");

    let service = second.principal("HTTP/localhost");
    let kvno = |kdc: &Kdc| kdc.command("kvno").env("KRB5CCNAME", &cache).arg(&service).output().unwrap();
    assert!(!kvno(&first).status.success());
    first.trust(&second).unwrap();
    assert!(kvno(&first).status.success());

    // Killed it is gone, restarted it is the same one; its clock is what we say it is.
    second.kill().unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", second.port())).is_err());
    first.set_clock(-3600).unwrap();
    let skew = first.kinit(&first.principal("alice"), "Secret 1", &cache, &[]);
    assert!(skew.is_err() || first.klist(&cache, &[]).unwrap().contains("alice"));
    first.set_clock(0).unwrap();
    first.kinit(&first.principal("alice"), "Secret 1", &cache, &[]).unwrap();
}

#[test]
fn keytabs_are_those_of_the_database() {
    let kdc = Kdc::start("CORP.EXAMPLE").unwrap();
    kdc.add_random("svc", &[]).unwrap();
    let (old, new) = (kdc.path("old.keytab"), kdc.path("new.keytab"));
    kdc.keytab(&["svc"], &old).unwrap();
    kdc.change_keys("svc", false).unwrap();
    kdc.keytab(&["svc"], &new).unwrap();
    let cache = format!("FILE:{}", kdc.path("svc.ccache").display());
    let kinit = |keytab: &std::path::Path| {
        kdc.kinit(&kdc.principal("svc"), "", &cache, &["-k", "-t", keytab.to_str().unwrap()])
    };
    assert!(kinit(&old).is_err());
    kinit(&new).unwrap();
    assert!(kdc.add_random("svc", &[]).is_err(), "kadmin.local's errors are errors");
}

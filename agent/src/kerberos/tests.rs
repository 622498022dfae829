//! What tasks may use of the agent, and who a user is.

use lictor_kerberos::CredentialSource;
use lictor_kerberos::config::{Declared, Realm};
use lictor_kerberos::keytab::{Existing, Recipe, parse_enctype, parse_principal};

use super::*;

fn settings(keytabs: Vec<PathBuf>, caches: &[&str]) -> config::Kerberos {
    let realm = Realm { kdc: vec!["127.0.0.1:1".into()], ..Realm::default() };
    let declared = Declared {
        default_realm: Some("CORP.EXAMPLE".into()),
        realms: [("CORP.EXAMPLE".to_owned(), realm.clone()), ("LAB.EXAMPLE".to_owned(), realm)].into(),
        dns_lookup_kdc: Some(false),
        ..Declared::default()
    };
    let caches = caches.iter().map(|&cache| cache.to_owned()).collect();
    config::Kerberos { krb5_conf: None, declared: Some(declared), keytabs, caches }
}

async fn started(settings: config::Kerberos) -> (Kerberos, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let kerberos = Kerberos::start(&settings, directory.path().join("krb5.conf")).await.unwrap();
    (kerberos, directory)
}

fn write_keytab(path: &Path, principal: &str) {
    let enctype = parse_enctype("aes256-cts-hmac-sha1-96").unwrap();
    let recipe = Recipe { enctype, salt: b"salt".to_vec(), parameters: None };
    let principal = parse_principal(principal, None).unwrap();
    let keytab = Keytab::from_password(&principal, "password", 1, 0, &[recipe]).unwrap();
    keytab.write(path, Existing::Replace).unwrap();
}

#[tokio::test]
async fn what_settings_declare_is_there_for_the_programs_of_mit() {
    let (kerberos, directory) = started(settings(Vec::new(), &[])).await;
    assert!(kerberos.is_ready());
    let text = std::fs::read_to_string(directory.path().join("krb5.conf")).unwrap();
    assert!(text.contains("default_realm = CORP.EXAMPLE") && text.contains("127.0.0.1:1"), "{text}");
}

#[tokio::test]
async fn a_user_has_a_realm_or_is_asked_for_one() {
    let (kerberos, _directory) = started(settings(Vec::new(), &[])).await;
    let principal = |username, realm, by_key| {
        kerberos.principal(username, realm, by_key).map(|(user, realm)| format!("{user} {realm}")).ok()
    };
    for (username, realm, by_key, expected) in [
        ("alice@CORP.EXAMPLE", None, false, Some("alice CORP.EXAMPLE")),
        ("alice@LAB.EXAMPLE", None, true, Some("alice LAB.EXAMPLE")),
        ("alice@upn.example", Some("CORP.EXAMPLE"), false, Some("alice@upn.example CORP.EXAMPLE")),
        ("alice@upn.example", Some("CORP.EXAMPLE"), true, Some("alice CORP.EXAMPLE")),
        ("alice", None, false, Some("alice CORP.EXAMPLE")),
        ("alice", Some("LAB.EXAMPLE"), false, Some("alice LAB.EXAMPLE")),
        (r"corp\alice", None, false, Some("alice CORP.EXAMPLE")),
        (r"lab.example\alice", None, false, Some("alice LAB.EXAMPLE")),
        (r"LAB\alice", None, false, None),
        (r"LAB\alice", Some("LAB.EXAMPLE"), false, Some("alice LAB.EXAMPLE")),
    ] {
        assert_eq!(principal(username, realm, by_key).as_deref(), expected, "{username} {realm:?}");
    }
    assert!(kerberos.serves("alice@corp.example", None) && kerberos.serves(r"X\alice", Some("LAB.EXAMPLE")));
    assert!(!kerberos.serves("alice@other.example", None) && !kerberos.serves(r"CORP\alice", None));
}

#[tokio::test]
async fn keytabs_that_are_listed_can_be_used_and_no_others() {
    let files = tempfile::tempdir().unwrap();
    let (single, directory) = (files.path().join("single.keytab"), files.path().join("keytabs"));
    std::fs::create_dir(&directory).unwrap();
    write_keytab(&single, "svc-web@CORP.EXAMPLE");
    write_keytab(&directory.join("db.keytab"), "svc-db@LAB.EXAMPLE");
    std::fs::write(directory.join("broken.keytab"), b"\x05\x02\x00\x00").unwrap();
    std::fs::write(directory.join("..data"), b"hidden").unwrap();
    let (kerberos, _directory) = started(settings(vec![single.clone(), directory.clone()], &[])).await;
    assert_eq!(kerberos.principals().await, ["svc-db@LAB.EXAMPLE", "svc-web@CORP.EXAMPLE"]);

    let any = |user, realm| kerberos.keytab(None, (user, Some(realm)));
    assert_eq!(any("SVC-Web", "corp.example").await, Ok(single.clone()));
    assert_eq!(any("svc-db", "LAB.EXAMPLE").await, Ok(directory.join("db.keytab")));
    assert!(matches!(any("svc-db", "CORP.EXAMPLE").await, Err(Unusable::NoKey { .. })));

    let who = ("svc-web", Some("CORP.EXAMPLE"));
    assert_eq!(kerberos.keytab(Some(&single), who).await, Ok(single.clone()));
    // Whether it has the key shows when a ticket is wanted.
    let named = directory.join("db.keytab");
    assert_eq!(kerberos.keytab(Some(&named), who).await, Ok(named));
    for other in [
        files.path().join("other.keytab"),
        directory.join("..").join("other.keytab"),
        directory.join("..").join("keytabs").join("..").join("single.keytab"),
        directory.join("deeper").join("x.keytab"),
        directory.clone().join(".."),
        PathBuf::from("/etc/shadow"),
    ] {
        assert!(
            matches!(kerberos.keytab(Some(&other), who).await, Err(Unusable::Keytab { .. })),
            "{}",
            other.display()
        );
    }

    // A key that comes later is found without a restart.
    write_keytab(&directory.join("late.keytab"), "svc-late@CORP.EXAMPLE");
    assert_eq!(any("svc-late", "CORP.EXAMPLE").await, Ok(directory.join("late.keytab")));
}

#[tokio::test]
async fn caches_that_are_listed_can_be_used_and_no_others() {
    let (kerberos, _directory) = started(settings(Vec::new(), &["DIR:/c/d", "/c/file"])).await;
    assert_eq!(kerberos.cache(None), Ok(default_cache()));
    for permitted in ["DIR:/c/d", "/c/file", "FILE:/c/file", &default_cache()] {
        assert_eq!(kerberos.cache(Some(permitted)), Ok(permitted.to_owned()));
    }
    for other in ["/c/d", "FILE:/c/other", "DIR:/c", "/etc/passwd"] {
        assert_eq!(kerberos.cache(Some(other)), Err(Unusable::Cache { cache: other.to_owned() }));
    }
}

#[tokio::test]
async fn a_newer_version_makes_the_older_one_forgotten() {
    let (kerberos, _directory) = started(settings(Vec::new(), &[])).await;
    let identity = |password: &str| Identity {
        principal: "alice".into(),
        realm: Some("CORP.EXAMPLE".into()),
        source: CredentialSource::Password(password.to_owned().into()),
        fresh: false,
    };
    let known = || kerberos.0.used.lock().unwrap().get("web").cloned().unwrap();
    kerberos.used("web", 2, &identity("a"));
    kerberos.used("web", 2, &identity("a"));
    assert_eq!(known(), (2, vec![identity("a").login_digest()]));
    kerberos.used("web", 1, &identity("old"));
    assert_eq!(known(), (2, vec![identity("a").login_digest()]));
    kerberos.used("web", 3, &identity("b"));
    assert_eq!(known(), (3, vec![identity("b").login_digest()]));
}

#[tokio::test]
async fn settings_that_cannot_be_used_end_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let missing = config::Kerberos {
        krb5_conf: Some(directory.path().join("missing.conf")),
        declared: None,
        keytabs: Vec::new(),
        caches: Vec::new(),
    };
    let error = Kerberos::start(&missing, directory.path().join("krb5.conf")).await.unwrap_err();
    assert!(chain(&error).contains("missing.conf"), "{error}");
}

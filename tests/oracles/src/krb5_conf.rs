//! Kerberos settings, as files and as declared by a program.

use std::path::Path;

use krb5::Krb5Conf;
use lictor_kerberos::config::{Configuration, Declared, Realm, Source};

use crate::fields;

/// A `krb5.conf`; and after bytes of value 0 a realm, a KDC and a domain to declare.
///
/// - Wrong settings have at least one mistake, a bounded number of them, and each that stands in a file stands in a line of it.
/// - What is taken without a word is the same to the `krb5` crate. What is taken at all is the same when it was written again,
///   and the `krb5` crate takes its KDCs.
/// - What settings can say of it they say alike.
/// - What is declared becomes just that, and nothing else.
pub fn krb5_conf(data: &[u8]) {
    let [text, realm, kdc, domain] = fields(data).map(String::from_utf8_lossy);
    file(&text);
    declared(&realm, &kdc, &domain);
}

fn file(text: &str) {
    let name = Path::new("krb5.conf");
    let configuration = match Configuration::parse(text, name) {
        Ok(configuration) => configuration,
        Err(error) => {
            let mistakes = error.mistakes();
            assert!(!mistakes.is_empty() && mistakes.len() <= 101, "{mistakes:?}");
            let lines = text.split('\n').count();
            for mistake in mistakes {
                let line = mistake.line.map_or(1, |line| usize::try_from(line).unwrap_or(0));
                assert!((1..=lines).contains(&line), "{mistake} of {lines} lines");
            }
            return;
        }
    };
    // Includes are mistakes here, so that the crate opens no file.
    if configuration.warnings().is_empty() {
        match Krb5Conf::parse(text) {
            Ok(crates) => assert_eq!(&crates, configuration.krb5()),
            Err(error) => panic!("only we take it: {error}"),
        }
    }
    let again = match Configuration::parse(configuration.text(), name) {
        Ok(again) => again,
        Err(error) => panic!("what was written is not read: {error}\n{}", configuration.text()),
    };
    assert_eq!(again.krb5(), configuration.krb5());
    assert_eq!(again.text(), configuration.text());
    let (settings, left) = configuration.declaration();
    if left.is_empty()
        && let Ok(said) = Configuration::load(&Source::Declared(settings))
    {
        assert_eq!(said.default_realm(), configuration.default_realm());
        assert!(said.realms_with_kdcs().eq(configuration.realms_with_kdcs()));
        for realm in said.realms_with_kdcs() {
            assert_eq!(said.kdcs(realm), configuration.kdcs(realm));
        }
    }
    for realm in configuration.realms_with_kdcs() {
        let ours: Vec<String> = configuration.kdcs(realm).iter().map(|kdc| kdc.address()).collect();
        match configuration.krb5().kdcs(realm) {
            Ok(crates) => assert_eq!(crates, ours),
            Err(error) => panic!("only we take the KDCs: {error}"),
        }
        assert!(configuration.defines(realm));
    }
}

fn declared(realm: &str, kdc: &str, domain: &str) {
    let settings = Declared {
        default_realm: Some(realm.to_owned()),
        realms: [(realm.to_owned(), Realm { kdc: vec![kdc.to_owned()], ..Realm::default() })].into(),
        domain_realm: [(domain.to_owned(), realm.to_owned())].into(),
        rdns: Some(false),
        ..Declared::default()
    };
    let Ok(configuration) = Configuration::load(&Source::Declared(settings)) else { return };
    let krb5 = configuration.krb5();
    assert_eq!(krb5.default_realm(), Some(realm));
    assert_eq!(krb5.get_all(&["libdefaults", "rdns"]), ["false"]);
    assert_eq!(krb5.get_all(&["realms", realm, "kdc"]).len(), 1, "{}", configuration.text());
    assert_eq!(krb5.get_all(&["domain_realm", domain]), [realm]);
    match Krb5Conf::parse(configuration.text()) {
        Ok(written) => assert_eq!(written.get_all(&["domain_realm", domain]), [realm]),
        Err(error) => panic!("what was written is not read: {error}"),
    }
}

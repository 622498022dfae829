//! Who may log in, under which names, and what people are told when they may not.

use lictor_kerberos::ErrorKind;

use super::Realm;

pub(super) async fn names_that_log_in(realm: &Realm) {
    let samba = &realm.samba;
    for (name, account) in [
        (samba.principal("alice"), "alice"),
        // Active Directory tells no names apart by case; the salt holds the case that the account has.
        (samba.principal("ALICE"), "alice"),
        (samba.principal("mixed.case"), "Mixed.Case"),
        (samba.principal("renamed"), "renamed"),
        (samba.principal("jürgen"), "jürgen"),
        (samba.principal("nopreauth"), "nopreauth"),
        (samba.principal("crowded"), "crowded"),
        ("alice".to_owned(), "alice"),
        // The realm as people type it, which is also the usual suffix of a user principal name.
        (format!("alice@{}", samba.dns()), "alice"),
        // User principal names that have nothing in common with the account's own.
        (format!("erika.mustermann@{}", samba.dns()), "upn.same"),
        (samba.principal("erika.mustermann"), "upn.same"),
        ("max.mustermann@mail.example".to_owned(), "upn.other"),
        (samba.principal("WIN01$"), "WIN01$"),
    ] {
        let identity = realm.with_password(&name, samba.password(account).unwrap());
        realm.check(&identity).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

pub(super) async fn accounts_that_may_not(realm: &Realm) {
    let samba = &realm.samba;
    // Samba tells which of them it is only to whoever has proved the password, in a place where the krb5 crate does not
    // look.
    let revoked =
        ("kerberos.account_revoked", "is locked, disabled, expired, or outside", "credentials have been revoked");
    let must_change = ("kerberos.password_expired", "has expired or must be changed", "Password has expired");
    for (account, (code, text, legacy)) in
        [("disabled", revoked), ("expired", revoked), ("hours", revoked), ("mustchange", must_change)]
    {
        let identity = realm.with_password(&samba.principal(account), samba.password(account).unwrap());
        let error = realm.check(&identity).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code, ErrorKind::Rejected), "{account}: {error:?}");
        assert!(error.to_string().contains(text) && error.to_string().contains(account), "{error}");
        assert!(error.legacy_text().unwrap().contains(legacy), "{error:?}: {:?}", error.legacy_text());
        assert!(!error.remedy().is_empty() && !error.cause().is_empty());
    }
    for nobody in [samba.principal("nobody"), format!("nobody@{}", samba.dns()), "nobody@mail.example".to_owned()] {
        let error = realm.check(&realm.with_password(&nobody, "Wrong-1")).await.unwrap_err();
        // Nothing was said about a password: this is no reason to think that an account was harmed.
        assert_eq!((error.code(), error.kind()), ("kerberos.principal_unknown", ErrorKind::Other), "{error:?}");
    }
}

pub(super) async fn a_wrong_password_is_tried_once(realm: &Realm) {
    let samba = &realm.samba;
    let wrong_passwords = |account: &'static str| realm.attribute(account, "badPwdCount");
    // By its own name and by user principal names, which are tried as names of two kinds: never a second attempt.
    for (account, name) in [
        ("wrong", samba.principal("wrong")),
        ("wrong.upn", format!("wrong.by.upn@{}", samba.dns())),
        ("wrong.other", "wrong.other@mail.example".to_owned()),
    ] {
        let identity = realm.with_password(&name, "Wrong-1");
        assert_eq!(wrong_passwords(account).await.as_deref().unwrap_or("0"), "0");
        for _ in 0..3 {
            let error = realm.check(&identity).await.unwrap_err();
            assert_eq!((error.code(), error.kind()), ("kerberos.password_rejected", ErrorKind::Rejected), "{error:?}");
            assert_eq!(error.legacy_text(), Some("Password incorrect while getting initial credentials"));
            assert!(error.to_string().to_lowercase().contains(&name.to_lowercase()), "{error}");
            assert_eq!(wrong_passwords(account).await.as_deref(), Some("1"), "{name}");
        }
        // The right one is another credential, and is not held back by what was refused.
        realm.check(&realm.with_password(&name, samba.password(account).unwrap())).await.unwrap();
        assert_eq!(wrong_passwords(account).await.as_deref(), Some("0"));
    }
}

pub(super) async fn a_locked_account(realm: &Realm) {
    let samba = &realm.samba;
    let name = samba.principal("locked");
    // Each is a password of its own, so that each is tried. The fifth locks the account.
    for count in 1..=5 {
        let error = realm.check(&realm.with_password(&name, &format!("Wrong-{count}"))).await.unwrap_err();
        assert_eq!(error.code(), "kerberos.password_rejected", "{error:?}");
        assert_eq!(realm.attribute("locked", "badPwdCount").await, Some(count.to_string()));
    }
    let error = realm.check(&realm.with_password(&name, samba.password("locked").unwrap())).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.account_revoked", ErrorKind::Rejected), "{error:?}");
    assert!(error.to_string().contains("is locked"), "{error}");
    assert!(error.remedy().contains("Unlock-ADAccount"), "{}", error.remedy());
    assert!(error.legacy_text().unwrap().contains("credentials have been revoked"));
}

pub(super) async fn keytabs(realm: &Realm) {
    let samba = &realm.samba;
    for (keytab, name) in [
        ("alice", samba.principal("alice")),
        ("alice", samba.principal("ALICE")),
        // The only principal in it.
        ("alice", String::new()),
        ("Mixed.Case", samba.principal("Mixed.Case")),
        ("renamed", samba.principal("renamed")),
        ("WIN01$", samba.principal("WIN01$")),
        ("svc.aes", samba.principal("svc.aes")),
    ] {
        let identity = realm.with_keytab(&name, samba.keytab(keytab).unwrap());
        realm.check(&identity).await.unwrap_or_else(|error| panic!("{name} by the keytab of {keytab}: {error:?}"));
    }

    // Made by hand of the right password, but with the name in another case, as ktutil does without being told the
    // salt.
    let wrong = realm.with_keytab(&samba.principal("mixed.case"), samba.keytab("wrong-salt-case").unwrap());
    for _ in 0..2 {
        let error = realm.check(&wrong).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("kerberos.keytab_rejected", ErrorKind::Rejected), "{error:?}");
        assert_eq!(error.legacy_text(), Some("Preauthentication failed while getting initial credentials"));
        // The right salt is told, so that the difference can be seen.
        assert!(error.cause().contains(&format!("{}Mixed.Case", samba.realm())), "{}", error.cause());
    }
}

pub(super) async fn a_password_that_changes_after_the_keytab(realm: &Realm) {
    let samba = &realm.samba;
    let identity = realm.with_keytab(&samba.principal("rotated"), samba.keytab("rotated").unwrap());
    realm.check(&identity).await.unwrap();
    realm.set_password("rotated", "Another-Passw0rd").await;
    realm.kerberos.forget(&identity);
    let error = realm.check(&identity).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.keytab_rejected", "{error:?}");
    assert!(error.cause().contains("password was changed"), "{}", error.cause());
    realm.check(&realm.with_password(&samba.principal("rotated"), "Another-Passw0rd")).await.unwrap();
}

/// An account whose password is older than the domain's AES keys.
pub(super) async fn an_account_without_aes_keys(realm: &Realm) {
    let samba = &realm.samba;
    let identity = realm.with_password(&samba.principal("rc4.user"), samba.password("rc4.user").unwrap());
    let error = realm.check(&identity).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kerberos.enctype", ErrorKind::Other), "{error:?}");
    assert!(error.cause().contains("RC4"), "{}", error.cause());
    assert!(error.remedy().contains("change the password"), "{}", error.remedy());
}

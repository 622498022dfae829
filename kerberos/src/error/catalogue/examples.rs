//! One failure of each kind, with example names: what documentation is made of. A test in `lictor-tests` finds a code that has
//! none.

use super::account::{Status, account};
use super::keys::no_usable_key;
use super::{
    Asked, ENCTYPE, Error, KEY_EXPIRED, Login, NOT_UNIQUE, POLICY, PREAUTH_FAILED, REVOKED, SERVICE_UNKNOWN, SKEW,
    USER_TO_USER, WRONG_REALM, With, cross_realm, deadline, delegation_not_trusted, ip_address, keytab_principal,
    keytab_unreadable, no_kdc, of_client, of_code, principal_invalid, principal_unknown, realm_unknown, rejected,
    service_invalid, stopped, unjudged, unreachable,
};
use crate::enquire::{Reply, Salted};

const REALM: &str = "CORP.EXAMPLE";
const PRINCIPAL: &str = "alice@CORP.EXAMPLE";
const SERVICE: &str = "HTTP/web1.corp.example@CORP.EXAMPLE";
const KEYTAB: &str = "/etc/lictor/keytabs/alice.keytab";
const CACHE: &str = "FILE:/tmp/krb5cc_1000";

/// One failure of each kind, more where one code has several causes.
pub(crate) fn all() -> Vec<Error> {
    [names(), kdcs(), accounts(), keys(), caches(), services()].concat()
}

fn login(with: With) -> Login {
    Login { principal: PRINCIPAL.to_owned(), realm: REALM.to_owned(), with }
}

fn names() -> Vec<Error> {
    let password = login(With::Password);
    vec![
        principal_invalid(r"CORP\alice", r"It is empty, or written as DOMAIN\user."),
        realm_unknown("alice"),
        principal_unknown(&password),
        of_code(WRONG_REALM, None, &password, Asked::Login, None),
    ]
}

fn kdcs() -> Vec<Error> {
    let password = login(With::Password);
    let behind = Reply { ahead: Some(900), ..Reply::default() };
    vec![
        no_kdc(REALM, "krb5.conf, _kerberos._udp.corp.example, _kerberos._tcp.corp.example"),
        unreachable(REALM, "dc1.corp.example:88 (192.0.2.10): no answer within 700 ms", Asked::Login),
        deadline(REALM),
        unjudged(REALM, "dc1.corp.example:88 (192.0.2.10): no answer within 5 s"),
        of_code(SKEW, None, &password, Asked::Login, Some(&behind)),
        of_client(&krb5::ClientError::Protocol("the nonce differs".into()), &password, Asked::Login, None),
        of_code(60, Some("GENERIC"), &password, Asked::Login, None),
        stopped(),
    ]
}

fn accounts() -> Vec<Error> {
    let password = login(With::Password);
    let says = |status| Reply { status: Some(status), ..Reply::default() };
    let salted = Salted { enctype: 18, salt: Some(b"CORP.EXAMPLEalice".to_vec()), parameters: None };
    let salt = Reply { keys: vec![salted], ..Reply::default() };
    let mut all = vec![
        of_code(PREAUTH_FAILED, None, &password, Asked::Login, None),
        rejected(&login(With::Keytab), Some(&salt)),
        account(&password, &Status::EXPIRED),
    ];
    for status in [None, Some(0xC000_0234), Some(0xC000_0072), Some(0xC000_006F), Some(0xC000_0070), Some(0xC000_0413)]
    {
        all.push(of_code(REVOKED, None, &password, Asked::Login, status.map(says).as_ref()));
    }
    all.push(of_code(KEY_EXPIRED, None, &password, Asked::Login, None));
    all.push(of_code(KEY_EXPIRED, None, &password, Asked::Login, Some(&says(0xC000_0224))));
    all.push(of_code(POLICY, None, &password, Asked::Service(SERVICE), None));
    all.push(of_code(POLICY, None, &password, Asked::Forwarded, None));
    all.push(of_code(POLICY, None, &login(With::Cache), Asked::Forwarded, None));
    all
}

fn keys() -> Vec<Error> {
    vec![
        of_code(ENCTYPE, None, &login(With::Password), Asked::Login, None),
        no_usable_key(&login(With::Keytab), ""),
        keytab_unreadable(KEYTAB, "No such file or directory (os error 2)"),
        keytab_principal(PRINCIPAL, &["bob@CORP.EXAMPLE"]),
    ]
}

fn caches() -> Vec<Error> {
    vec![
        super::cache_kind("KEYRING:persistent:1000"),
        super::cache_unreadable(CACHE, true, "No such file or directory (os error 2)"),
        super::cache_principal(CACHE, PRINCIPAL, "bob@CORP.EXAMPLE"),
        super::cache_no_tgt(CACHE, PRINCIPAL, true),
        super::cache_no_tgt(CACHE, PRINCIPAL, false),
    ]
}

fn services() -> Vec<Error> {
    let password = login(With::Password);
    let asked = Asked::Service(SERVICE);
    let mut all: Vec<Error> = [SERVICE_UNKNOWN, NOT_UNIQUE, USER_TO_USER, ENCTYPE]
        .into_iter()
        .map(|code| of_code(code, None, &password, asked, None))
        .collect();
    all.push(ip_address("192.0.2.20"));
    all.push(service_invalid("HTTP/web1 .corp.example"));
    all.push(cross_realm(&password, asked, "no ticket for krbtgt/PARTNER.EXAMPLE@CORP.EXAMPLE"));
    all.push(delegation_not_trusted(SERVICE));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_active_directory_has_an_example() {
        let codes: Vec<&str> = all().iter().map(Error::code).collect();
        for code in ["account_locked", "account_disabled", "account_expired", "logon_hours", "workstation"] {
            assert!(codes.contains(&format!("kerberos.{code}").as_str()), "{code}");
        }
        assert!(all().iter().all(|error| !error.cause().is_empty() && !error.remedy().is_empty()));
    }
}

use std::path::Path;

use super::*;
use crate::step::{Outcome, Step};

const CORP: &str = "[libdefaults]\n default_realm = CORP.EXAMPLE\n dns_lookup_kdc = false\n\
                    [realms]\n CORP.EXAMPLE = {\n  kdc = dc1\n }\n lower.example = {\n  kdc = dc2\n }\n";

fn identity(principal: &str, realm: Option<&str>) -> Identity {
    let source = lictor_kerberos::CredentialSource::Cache("FILE:/nowhere".to_owned());
    Identity { principal: principal.to_owned(), realm: realm.map(str::to_owned), source, fresh: false }
}

fn told(identity: Option<&Identity>, names: Option<Result<Vec<Principal>, Error>>, text: &str) -> (Outcome, String) {
    let configuration = Configuration::parse(text, Path::new("krb5.conf")).unwrap();
    let mut tell = |_: &Step| {};
    let mut steps = Steps::new(&mut tell);
    examine_realm(&configuration, identity, names.as_ref(), &mut steps);
    let steps = steps.finish();
    let [step] = steps.as_slice() else { panic!("{steps:#?}") };
    (step.outcome, step.finding.as_ref().map_or(String::new(), |finding| finding.code.to_string()))
}

#[test]
fn realms_are_judged_by_how_they_are_written_and_what_is_known() {
    let alice = |realm: &str| Some(Ok(vec![Principal::new(1, ["alice"], realm)]));
    let upn = |name: &str| Some(Ok(vec![Principal::new(10, [name], "CORP.EXAMPLE")]));
    for (written, realm, names, outcome, code) in [
        ("alice", None, alice("CORP.EXAMPLE"), Outcome::Passed, ""),
        ("alice@CORP.EXAMPLE", None, alice("CORP.EXAMPLE"), Outcome::Passed, ""),
        ("alice@corp.example", None, alice("CORP.EXAMPLE"), Outcome::Warning, "kerberos.realm_case"),
        ("alice", Some("corp.example"), alice("CORP.EXAMPLE"), Outcome::Warning, "kerberos.realm_case"),
        ("alice", Some("lower.example"), alice("lower.example"), Outcome::Warning, "kerberos.realm_case"),
        ("alice", Some("GONE.EXAMPLE"), alice("GONE.EXAMPLE"), Outcome::Failed, "kerberos.realm_undefined"),
        ("alice", Some("gone.example"), alice("gone.example"), Outcome::Failed, "kerberos.realm_case"),
        ("alice@mail.example", None, upn("alice@mail.example"), Outcome::Passed, ""),
        ("alice@MAIL.EXAMPLE", None, upn("alice@MAIL.EXAMPLE"), Outcome::Warning, "kerberos.realm_undefined"),
    ] {
        let found = told(Some(&identity(written, realm)), names, CORP);
        assert_eq!((found.0, found.1.as_str()), (outcome, code), "{written} {realm:?}");
    }
    assert_eq!(told(None, None, CORP).0, Outcome::Passed);
    let nothing = told(None, None, "[libdefaults]\n dns_lookup_kdc = false\n");
    assert_eq!((nothing.0, nothing.1.as_str()), (Outcome::Warning, "kerberos.default_realm_missing"));
}

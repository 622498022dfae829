use lictor_proto::v1::{AwsAssumeRole, AwsMachineRole, KmsAccess, KmsAccessKey, KmsWebIdentity, kms_access};
use proptest::prelude::*;

use super::*;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:alias/lictor";
const ROLE: &str = "arn:aws:iam::444455556666:role/lictor-kms";
/// AWS's documented example.
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "aGVhZA.Ym9keQ.c2ln";

fn machine() -> KmsAccess {
    KmsAccess {
        manager: "corp".to_owned(),
        key: KEY.to_owned(),
        credentials: Some(kms_access::Credentials::MachineRole(AwsMachineRole {})),
        ..KmsAccess::default()
    }
}

fn key(id: &str, secret: &str) -> KmsAccess {
    let key = KmsAccessKey { access_key_id: id.to_owned(), secret_access_key: secret.to_owned() };
    KmsAccess { credentials: Some(kms_access::Credentials::AccessKey(key)), ..machine() }
}

fn role(role: &str, external_id: &str, seconds: Option<i64>) -> KmsAccess {
    let role = AwsAssumeRole {
        role_arn: role.to_owned(),
        external_id: external_id.to_owned(),
        duration: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    KmsAccess { credentials: Some(kms_access::Credentials::AssumeRole(role)), ..machine() }
}

fn oidc(role: &str, token: &str) -> KmsAccess {
    let identity = KmsWebIdentity { role_arn: role.to_owned(), token: token.to_owned(), duration: None };
    KmsAccess { credentials: Some(kms_access::Credentials::WebIdentity(identity)), ..machine() }
}

fn code(access: KmsAccess) -> &'static str {
    Access::parse(access).unwrap_err().code()
}

#[test]
fn all_four_kinds_are_read() {
    for access in [machine(), key(ID, SECRET), role(ROLE, "partner-1", Some(900)), oidc(ROLE, TOKEN)] {
        assert_eq!(Access::parse(access).unwrap().region().as_str(), "eu-central-1");
    }
}

#[test]
fn each_slip_has_a_code_of_its_own() {
    for (access, expected) in [
        (KmsAccess { key: "web".to_owned(), ..machine() }, "kms.key_malformed"),
        (KmsAccess { key: "alias/web".to_owned(), ..machine() }, "kms.region_missing"),
        (
            KmsAccess { key: "alias/web".to_owned(), region: "eu-centrl-1".to_owned(), ..machine() },
            "kms.region_unknown",
        ),
        (KmsAccess { region: "eu-west-1".to_owned(), ..machine() }, "kms.region_disagrees"),
        (KmsAccess { credentials: None, ..machine() }, "kms.credentials_missing"),
        (KmsAccess { endpoint: "http://kms.corp.example".to_owned(), ..machine() }, "kms.endpoint_malformed"),
        (KmsAccess { sts_endpoint: "https://u:p@sts.corp.example".to_owned(), ..machine() }, "kms.endpoint_malformed"),
        (KmsAccess { endpoint: "ftp://127.0.0.1".to_owned(), ..machine() }, "kms.endpoint_malformed"),
        (KmsAccess { endpoint: "https://kms.corp.example/path".to_owned(), ..machine() }, "kms.endpoint_malformed"),
        (key("AKIA", SECRET), "kms.access_key_malformed"),
        (key(ID, ""), "kms.access_key_malformed"),
        (key(ID, &format!("{SECRET}\n")), "kms.access_key_malformed"),
        (role("", "", None), "kms.role_missing"),
        (oidc("", TOKEN), "kms.role_missing"),
        (role("lictor-kms", "", None), "kms.role_malformed"),
        (role("arn:aws-cn:iam::444455556666:role/lictor-kms", "", None), "kms.role_malformed"),
        (role(ROLE, "x", None), "kms.external_id_malformed"),
        (role(ROLE, "a b", None), "kms.external_id_malformed"),
        (role(ROLE, "", Some(899)), "kms.duration_out_of_range"),
        (role(ROLE, "", Some(43_201)), "kms.duration_out_of_range"),
        (role(ROLE, "", Some(-1)), "kms.duration_out_of_range"),
        (oidc(ROLE, ""), "kms.token_malformed"),
        (oidc(ROLE, "no token"), "kms.token_malformed"),
        (oidc(ROLE, &"a".repeat(20_001)), "kms.token_malformed"),
    ] {
        let error = Access::parse(access.clone()).unwrap_err();
        assert_eq!((error.code(), error.stage().as_str()), (expected, "settings"), "{error:?}");
    }
    let missing = Access::parse(role("", "", None)).unwrap_err();
    assert_eq!(missing.legacy_text(), Some("You must provide RoleARN if AssumeStsRole is selected"));
}

#[test]
fn each_mistake_is_told_with_its_setting() {
    use Setting::{Duration, Endpoint, ExternalId, Manager, Region, RoleArn, StsEndpoint};
    let wrong = KmsAccess {
        manager: "m".repeat(300),
        region: "eu-centrl-1".to_owned(),
        endpoint: "ftp://kms.corp.example".to_owned(),
        sts_endpoint: "http://sts.corp.example".to_owned(),
        ..role("lictor-kms", "x", Some(1))
    };
    let settings = |access| -> Vec<Setting> {
        Access::check(access).err().unwrap_or_default().into_iter().map(|(setting, _)| setting).collect()
    };
    assert_eq!(settings(wrong), [Endpoint, StsEndpoint, Region, RoleArn, Duration, ExternalId, Manager]);
    assert_eq!(settings(key("id", "")), [Setting::AccessKeyId, Setting::SecretAccessKey]);
    assert_eq!(settings(oidc(ROLE, "")), [Setting::Token]);
    assert_eq!(
        settings(KmsAccess { key: String::new(), credentials: None, ..machine() }),
        [Setting::Key, Setting::Credentials]
    );
    assert!(settings(machine()).is_empty());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let access = KmsAccess { key: "web".to_owned(), endpoint: "x".to_owned(), ..role("", "x", Some(1)) };
    let error = Access::parse(access).unwrap_err();
    for word in ["`web`", "endpoint of KMS", "role is empty", "it has 1 character", "It is 1 s"] {
        assert!(error.cause().to_lowercase().contains(&word.to_lowercase()), "{word}: {}", error.cause());
    }
}

#[test]
fn an_unknown_region_needs_an_endpoint() {
    let access = KmsAccess { key: "alias/web".to_owned(), region: "xx-nowhere-1".to_owned(), ..machine() };
    assert_eq!(code(access.clone()), "kms.region_unknown");
    let access = KmsAccess { endpoint: "https://kms.corp.example".to_owned(), ..access };
    assert_eq!(Access::parse(access).unwrap().region().as_str(), "xx-nowhere-1");
}

#[test]
fn plain_http_is_for_loopback_alone() {
    for (endpoint, taken) in [
        ("http://127.0.0.1:5000", true),
        ("http://[::1]:5000", true),
        ("http://localhost:5000/", true),
        ("http://10.0.0.1:5000", false),
        ("http://localhost.corp.example", false),
        ("http://169.254.169.254", false),
        ("https://10.0.0.1", true),
    ] {
        let access = KmsAccess { endpoint: endpoint.to_owned(), ..machine() };
        assert_eq!(Access::parse(access).is_ok(), taken, "{endpoint}");
    }
}

#[test]
fn neither_debug_nor_errors_show_secrets() {
    for access in [key(ID, SECRET), oidc(ROLE, TOKEN)] {
        let shown = format!("{:?}", Access::parse(access).unwrap());
        assert!(!shown.contains(SECRET) && !shown.contains(TOKEN) && !shown.contains(ID), "{shown}");
    }
    // Put into the wrong field.
    let error = Access::parse(key(SECRET, ID)).unwrap_err();
    assert!(!format!("{error:?} {}", error.cause()).contains(SECRET));
}

#[test]
fn the_digest_is_of_the_identity_and_not_of_the_token() {
    let digest = |access| Access::parse(access).unwrap().digest();
    assert_eq!(digest(oidc(ROLE, TOKEN)), digest(oidc(ROLE, "b3RoZXI.Ym9keQ.c2ln")));
    let all = [
        digest(machine()),
        digest(KmsAccess { manager: "other".to_owned(), ..machine() }),
        digest(KmsAccess { endpoint: "https://kms.corp.example".to_owned(), ..machine() }),
        digest(KmsAccess { sts_endpoint: "https://kms.corp.example".to_owned(), ..machine() }),
        digest(key(ID, SECRET)),
        digest(key(ID, &SECRET.to_lowercase())),
        digest(role(ROLE, "", None)),
        digest(role(ROLE, "none", None)),
        digest(role(ROLE, "", Some(900))),
        digest(oidc(ROLE, TOKEN)),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_it(
        key in "\\PC{0,60}",
        region in "[a-z0-9-]{0,20}",
        endpoint in "(https?://)?[a-z0-9.:@/\\[\\]-]{0,30}",
        role_arn in "(arn:aws:iam::[0-9]{11,13}:role/)?\\PC{0,30}",
        external_id in "\\PC{0,10}",
        seconds: i64,
        nanos: i32,
    ) {
        let duration = Some(prost_types::Duration { seconds, nanos });
        let role = AwsAssumeRole { role_arn, external_id, duration };
        let credentials = Some(kms_access::Credentials::AssumeRole(role));
        let access = KmsAccess { manager: String::new(), key, region, sts_endpoint: endpoint.clone(), endpoint, credentials };
        if let Err(error) = Access::parse(access) {
            prop_assert_eq!(error.kind(), crate::error::Kind::Settings);
            prop_assert!(error.cause().len() < 4000);
        }
    }
}

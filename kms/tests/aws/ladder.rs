//! The test of a way to KMS.

use lictor_kms::{Outcome, Report, Stage};
use serde_json::json;

use crate::peer::{VALUE, World, context, kms, soon};

fn outcomes(report: &Report) -> Vec<(Stage, Outcome)> {
    report.steps.iter().map(|step| (step.stage, step.outcome)).collect()
}

fn code(report: &Report, at: usize) -> &'static str {
    report.steps[at].error.as_ref().map_or("", lictor_kms::Error::code)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_all_passes_and_is_named() {
    for kind in ["moto", "ministack"] {
        let Some(world) = World::start(kind) else { return };
        let mut told = Vec::new();
        let report = kms().test(&world.user("full"), soon(), |step| told.push(step.stage)).await;
        let passed = [Stage::Identity, Stage::Write, Stage::Read].map(|stage| (stage, Outcome::Passed));
        assert_eq!(outcomes(&report), passed, "{kind}: {report:?}");
        assert_eq!(told, [Stage::Identity, Stage::Write, Stage::Read]);
        assert!(report.steps[0].detail.contains("user/lictor-full in account 111122223333"), "{report:?}");
        assert!(report.passed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_read_only_is_warned_and_passes_with_a_stored_secret() {
    let Some(world) = World::start("ministack") else { return };
    let (kms, reader) = (kms(), world.user("reader"));
    let report = kms.test(&reader, soon(), |_| {}).await;
    let expected =
        [(Stage::Identity, Outcome::Passed), (Stage::Write, Outcome::Failed), (Stage::Read, Outcome::Skipped)];
    assert_eq!(outcomes(&report), expected, "{report:?}");
    assert_eq!(code(&report, 1), "kms.denied");

    let record = kms.seal(&world.user("full"), &context(), VALUE, soon()).await.unwrap();
    let report = kms.test_with(&reader, Some((&record, &context())), soon(), |_| {}).await;
    let expected =
        [(Stage::Identity, Outcome::Passed), (Stage::Write, Outcome::Warning), (Stage::Read, Outcome::Passed)];
    assert_eq!(outcomes(&report), expected, "{report:?}");
    assert!(report.passed());

    let report = kms.test_with(&world.user("nobody"), Some((&record, &context())), soon(), |_| {}).await;
    let expected =
        [(Stage::Identity, Outcome::Passed), (Stage::Write, Outcome::Failed), (Stage::Read, Outcome::Failed)];
    assert_eq!(outcomes(&report), expected, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_write_only_fails_to_read() {
    let Some(world) = World::start("ministack") else { return };
    let report = kms().test(&world.user("writer"), soon(), |_| {}).await;
    let expected =
        [(Stage::Identity, Outcome::Passed), (Stage::Write, Outcome::Passed), (Stage::Read, Outcome::Failed)];
    assert_eq!(outcomes(&report), expected, "{report:?}");
    assert!(report.steps[2].error.as_ref().unwrap().to_string().contains("kms:Decrypt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_none_leaves_nothing_to_try() {
    let Some(world) = World::start("ministack") else { return };
    let secret = world.text("/users/full/secret_access_key");
    let unknown = world.user_with(&"A".repeat(20), &secret);
    let report = kms().test(&unknown, soon(), |_| {}).await;
    let expected =
        [(Stage::Identity, Outcome::Failed), (Stage::Write, Outcome::Skipped), (Stage::Read, Outcome::Skipped)];
    assert_eq!(outcomes(&report), expected, "{report:?}");
    assert_eq!((code(&report, 0), world.peer.calls("kms:GenerateDataKey")), ("kms.credentials_unknown", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_is_asked_where_sts_does_not_answer() {
    let Some(world) = World::start("moto") else { return };
    let rule = json!({"action": "sts:GetCallerIdentity", "do": "error", "code": "ServiceUnavailable", "status": 503});
    world.peer.order("rules", &json!({"rules": [rule]}));
    let report = kms().test(&world.user("full"), soon(), |_| {}).await;
    let expected =
        [(Stage::Identity, Outcome::Warning), (Stage::Write, Outcome::Passed), (Stage::Read, Outcome::Passed)];
    assert_eq!(outcomes(&report), expected, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_look_at_the_context_fails() {
    let Some(world) = World::start("moto") else { return };
    let (kms, access) = (kms(), world.user("full"));
    // An answer that is the same for every context: that of the right one.
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    let call = json!({
        "service": "kms",
        "operation": "decrypt",
        "bytes": ["CiphertextBlob"],
        "parameters": {
            "CiphertextBlob": base64(&record.wrapped_key),
            "EncryptionContext": record.context.iter().collect::<std::collections::BTreeMap<_, _>>(),
        },
    });
    let plaintext = world.peer.order("call", &call)["Plaintext"].as_str().unwrap().to_owned();
    let body = json!({"KeyId": record.key_arn, "Plaintext": plaintext}).to_string();
    let denied = json!({"action": "kms:GenerateDataKey", "do": "error", "code": "AccessDeniedException"});
    let blind = json!({"action": "kms:Decrypt", "do": "answer", "status": 200, "body": body});
    world.peer.order("rules", &json!({"rules": [denied, blind]}));
    let report = kms.test_with(&access, Some((&record, &context())), soon(), |_| {}).await;
    assert_eq!((report.steps[2].outcome, code(&report, 2)), (Outcome::Failed, "kms.context_not_checked"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_gives_back_something_else_fails() {
    let Some(world) = World::start("moto") else { return };
    let body = json!({"KeyId": world.text("/key"), "Plaintext": base64(&[7; 32])}).to_string();
    let other = json!({"action": "kms:Decrypt", "do": "answer", "status": 200, "body": body});
    world.peer.order("rules", &json!({"rules": [other]}));
    let report = kms().test(&world.user("full"), soon(), |_| {}).await;
    assert_eq!((report.steps[2].outcome, code(&report, 2)), (Outcome::Failed, "kms.test_mismatch"), "{report:?}");
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..4).map(
                move |at| {
                    if at > chunk.len() { '=' } else { char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]) }
                },
            )
        })
        .collect()
}

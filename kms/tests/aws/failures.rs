//! What goes wrong, and what is said then.

use lictor_kms::{Kind, Stage};
use serde_json::json;

use crate::peer::{VALUE, World, context, kms, soon};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_named() {
    let Some(world) = World::start("ministack") else { return };
    let (kms, full) = (kms(), world.user("full"));
    let record = kms.seal(&full, &context(), VALUE, soon()).await.unwrap();
    let error = kms.seal(&world.user("reader"), &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.stage(), error.kind()), ("kms.denied", Stage::Write, Kind::Denied));
    assert!(error.to_string().contains("kms:GenerateDataKey"));
    let error = kms.open(&world.user("writer"), &record, &context(), soon()).await.unwrap_err();
    assert_eq!((error.code(), error.stage()), ("kms.denied", Stage::Read));
    assert!(error.to_string().contains("kms:Decrypt"));
    assert_eq!(&**kms.open(&world.user("reader"), &record, &context(), soon()).await.unwrap(), VALUE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_altered_is_not_opened() {
    let Some(world) = World::start("moto") else { return };
    let (kms, access) = (kms(), world.user("full"));
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    let mut wrapped = record.clone();
    *wrapped.wrapped_key.last_mut().unwrap() ^= 1;
    let error = kms.open(&access, &wrapped, &context(), soon()).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kms.ciphertext_refused", Kind::Record));
    let mut ciphertext = record.clone();
    ciphertext.ciphertext[0] ^= 1;
    assert_eq!(kms.open(&access, &ciphertext, &context(), soon()).await.unwrap_err().code(), "kms.tampered");
    // Moved to another secret, and its context with it: KMS refuses.
    let other = lictor_kms::Context::new("platform/production", "db", 1);
    world.peer.order("reset", &json!({}));
    assert_eq!(kms.open(&access, &record, &other, soon()).await.unwrap_err().code(), "kms.context_differs");
    assert_eq!(world.peer.calls("kms:Decrypt"), 0);
    let mut moved = record.clone();
    moved.context.insert("lictor:secret".to_owned(), "db".to_owned());
    assert_eq!(kms.open(&access, &moved, &other, soon()).await.unwrap_err().code(), "kms.ciphertext_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_of_another_key_is_told() {
    let Some(world) = World::start("ministack") else { return };
    let (kms, access) = (kms(), world.user("full"));
    let mut record =
        kms.seal(&world.user_of("full", &world.text("/other_key")), &context(), VALUE, soon()).await.unwrap();
    record.key_arn = world.text("/key");
    // AWS and moto refuse; ministack opens it with the key that was named, and what comes of that opens nothing.
    assert_eq!(kms.open(&access, &record, &context(), soon()).await.unwrap_err().code(), "kms.tampered");
    let rule = json!({"action": "kms:Decrypt", "do": "error", "code": "IncorrectKeyException"});
    world.peer.order("rules", &json!({"rules": [rule]}));
    record.wrapped_key.push(0);
    assert_eq!(kms.open(&access, &record, &context(), soon()).await.unwrap_err().code(), "kms.wrong_key");
    record.key_arn = record.key_arn.replace("eu-central-1", "eu-west-1");
    assert_eq!(kms.open(&access, &record, &context(), soon()).await.unwrap_err().code(), "kms.record_region");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_are_told_apart() {
    let Some(world) = World::start("ministack") else { return };
    for (key, expected) in [("/disabled_key", "kms.key_disabled"), ("/pending_key", "kms.key_state")] {
        let error = kms().seal(&world.user_of("full", &world.text(key)), &context(), VALUE, soon()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (expected, Kind::Key));
        assert_eq!(error.legacy_text(), Some("The data key could not be generated"));
    }
    let Some(world) = World::start("moto") else { return };
    let missing = "1234abcd-12ab-34cd-56ef-1234567890ab";
    let error = kms().seal(&world.user_of("full", missing), &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.key_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_aws_does_not_take_are_told_apart() {
    let Some(world) = World::start("ministack") else { return };
    let id = world.text("/users/full/access_key_id");
    let secret = world.text("/users/full/secret_access_key");
    let wrong = world.user_with(&id, &secret.chars().rev().collect::<String>());
    let error = kms().seal(&wrong, &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("kms.signature", Kind::Identity));
    assert!(!format!("{error:?}").contains(&secret));
    let unknown = world.user_with(&"A".repeat(20), &secret);
    let error = kms().seal(&unknown, &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.credentials_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_by_how_much() {
    let Some(world) = World::start("moto") else { return };
    let rule = json!({
        "action": "kms:GenerateDataKey",
        "do": "error",
        "code": "InvalidSignatureException",
        "headers": {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"},
    });
    world.peer.order("rules", &json!({"rules": [rule]}));
    let error = kms().seal(&world.user("full"), &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.clock_skew");
    assert!(error.cause().contains("ahead of AWS's"), "{}", error.cause());
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_waited_out_and_outages_are_passing() {
    let Some(world) = World::start("moto") else { return };
    let (kms, access) = (kms(), world.user("full"));
    let rule = |code: &str, times: u64| {
        let status = if code == "ThrottlingException" { 400 } else { 500 };
        json!({"rules": [{"action": "kms:GenerateDataKey", "do": "error", "code": code, "status": status, "times": times}]})
    };
    world.peer.order("rules", &rule("ThrottlingException", 2));
    kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    assert_eq!(kms.figures().retries, 2);
    for (code, expected) in [("ThrottlingException", "kms.throttled"), ("KMSInternalException", "kms.outage")] {
        world.peer.order("rules", &rule(code, 100));
        let error = kms.seal(&access, &context(), VALUE, soon()).await.unwrap_err();
        assert_eq!((error.code(), error.is_passing(), error.stage()), (expected, true, Stage::Write));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_beyond_the_deadline() {
    let Some(world) = World::start("moto") else { return };
    let rule = json!({"action": "kms:GenerateDataKey", "do": "hang", "seconds": 60});
    world.peer.order("rules", &json!({"rules": [rule]}));
    let began = std::time::Instant::now();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    let error = kms().seal(&world.user("full"), &context(), VALUE, deadline).await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("kms.deadline", true));
    assert!(began.elapsed() < std::time::Duration::from_secs(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_endpoint_is_named() {
    let Some(world) = World::start("moto") else { return };
    let (access, url) = (world.user("full"), world.peer.url());
    drop(world);
    let error = kms().seal(&access, &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.is_passing()), ("kms.unreachable", true));
    assert!(error.to_string().contains(&url) && error.cause().contains("refused"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_tls_is_told_apart_from_what_is_out_of_reach() {
    let Some(world) = World::start("moto") else { return };
    let access = world.user_at(&world.peer.url().replace("http://", "https://"));
    let error = kms().seal(&access, &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.tls", "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_told_without_their_bodies() {
    let Some(world) = World::start("moto") else { return };
    let rule = json!({"action": "kms:GenerateDataKey", "do": "answer", "status": 200, "body": "<html>Marker-1</html>"});
    world.peer.order("rules", &json!({"rules": [rule]}));
    let error = kms().seal(&world.user("full"), &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.answer");
    assert!(!format!("{error:?} {}", error.cause()).contains("Marker-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_aws_does_not_take_are_told_apart() {
    let Some(world) = World::start_with("moto", &json!({"issuer": "https://lictor.corp.example"})) else { return };
    for (code, expected) in [
        ("InvalidIdentityToken", "kms.token_rejected"),
        ("ExpiredTokenException", "kms.token_expired"),
        ("IDPCommunicationError", "kms.idp_unreachable"),
        ("IDPRejectedClaim", "kms.claim_rejected"),
        ("AccessDenied", "kms.web_identity_denied"),
        ("RegionDisabledException", "kms.region_disabled"),
    ] {
        let rule = json!({"action": "sts:AssumeRoleWithWebIdentity", "do": "error", "code": code, "message": "why"});
        world.peer.order("rules", &json!({"rules": [rule]}));
        let access = world.oidc(&world.role("oidc"), "aGVhZA.Ym9keQ.c2ln");
        let error = kms().seal(&access, &context(), VALUE, soon()).await.unwrap_err();
        assert_eq!((error.code(), error.stage()), (expected, Stage::Identity), "{code}");
        assert!(error.cause().contains("STS says: why"), "{}", error.cause());
    }
}

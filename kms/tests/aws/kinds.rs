//! The four kinds of credentials.

use lictor_kms::Kms;
use serde_json::json;

use crate::peer::{VALUE, World, context, kms, soon};

const BOTH: [&str; 2] = ["moto", "ministack"];
const TOKEN: &str = "aGVhZA.Ym9keQ.c2ln";

#[tokio::test(flavor = "multi_thread")]
async fn an_access_key_seals_and_opens_by_every_name_of_the_key() {
    for kind in BOTH {
        let Some(world) = World::start(kind) else { return };
        for name in ["/key", "/alias_arn", "/alias"] {
            let (kms, access) = (kms(), world.user_of("full", &world.text(name)));
            // ministack wants the alias itself in policies, and the world has its ARN there.
            let record = match kms.seal(&access, &context(), VALUE, soon()).await {
                Err(error) if kind == "ministack" && name == "/alias" => {
                    assert_eq!(error.code(), "kms.denied");
                    continue;
                }
                record => record.unwrap_or_else(|error| panic!("{kind} {name}: {error:?}")),
            };
            assert_eq!(record.key_arn, world.text("/key"));
            assert!(!record.ciphertext.windows(8).any(|part| part == &VALUE[..8]));
            let value = kms.open(&access, &record, &context(), soon()).await.unwrap();
            assert_eq!(&**value, VALUE);
            assert_eq!((kms.figures().generated, kms.figures().decrypts, kms.figures().retries), (1, 1, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_assumes_a_role_with_the_right_external_id_alone() {
    let Some(world) = World::start("ministack") else { return };
    let external = world.role("external");
    let kms = Kms::new(world.environment("full"));
    let right = world.assume(&external, &world.text("/external_id"), 900);
    let record = kms.seal(&right, &context(), VALUE, soon()).await.unwrap();
    assert_eq!(&**kms.open(&right, &record, &context(), soon()).await.unwrap(), VALUE);
    assert_eq!(world.peer.calls("sts:AssumeRole"), 1);
    for (id, word) in [("lictor-0815", "is not the one"), ("", "none is given")] {
        let error = kms.seal(&world.assume(&external, id, 900), &context(), VALUE, soon()).await.unwrap_err();
        assert_eq!((error.code(), error.stage().as_str()), ("kms.role_denied", "identity"));
        let suspects = error.suspects();
        assert_eq!(suspects[0].code, "kms.suspect_external_id");
        assert!(suspects[0].cause.contains(word), "{suspects:?}");
    }
    let error =
        kms.seal(&world.assume(&world.role("untrusting"), "", 900), &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.role_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_are_chained_are_told_of_their_bound_before_anything_is_asked() {
    let Some(world) = World::start("ministack") else { return };
    // A session of a role as the machine's identity.
    let base = world.peer.order(
        "call",
        &json!({
            "service": "sts",
            "operation": "assume_role",
            "parameters": {"RoleArn": world.role("machine"), "RoleSessionName": "i-0123"},
            "credentials": world.made["users"]["full"],
        }),
    );
    let part = |name: &str| base["Credentials"][name].as_str().unwrap().to_owned();
    let environment = crate::peer::environment(&[
        ("AWS_ACCESS_KEY_ID", &part("AccessKeyId")),
        ("AWS_SECRET_ACCESS_KEY", &part("SecretAccessKey")),
        ("AWS_SESSION_TOKEN", &part("SessionToken")),
    ]);
    let kms = Kms::new(environment);
    let role = world.role("assumed");
    let error = kms.seal(&world.assume(&role, "", 3601), &context(), VALUE, soon()).await.unwrap_err();
    assert_eq!(error.code(), "kms.role_chaining");
    assert!(error.cause().contains("assumed-role/lictor-agent/i-0123"), "{}", error.cause());
    assert_eq!(world.peer.calls("sts:AssumeRole"), 0);
    kms.seal(&world.assume(&role, "", 3600), &context(), VALUE, soon()).await.unwrap();
    // An IAM user may have more.
    let kms = Kms::new(world.environment("full"));
    kms.seal(&world.assume(&role, "", 7200), &context(), VALUE, soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_a_role_and_the_newest_counts() {
    let issuer = json!({"issuer": "https://lictor.corp.example"});
    let Some(world) = World::start_with("moto", &issuer) else { return };
    let (kms, role) = (kms(), world.role("oidc"));
    let access = world.oidc(&role, TOKEN);
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    assert_eq!(&**kms.open(&access, &record, &context(), soon()).await.unwrap(), VALUE);
    // Another token for the same manager needs no session of its own.
    let newer = world.oidc(&role, "b3RoZXI.Ym9keQ.c2ln");
    assert_eq!(&**kms.open(&newer, &record, &context(), soon()).await.unwrap(), VALUE);
    assert_eq!(world.peer.calls("sts:AssumeRoleWithWebIdentity"), 1);
    assert_eq!(kms.figures().cache_hits, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_is_renewed_in_flight() {
    let Some(world) = World::start("ministack") else { return };
    let kms = Kms::new(world.environment("full"));
    let access = world.assume(&world.role("assumed"), "", 900);
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    world.peer.order("expire", &json!({}));
    assert_eq!(&**kms.open(&access, &record, &context(), soon()).await.unwrap(), VALUE);
    assert_eq!(world.peer.calls("sts:AssumeRole"), 2);
}

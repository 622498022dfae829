//! Many at once.

use std::sync::Arc;

use lictor_kms::Kms;
use serde_json::json;
use tokio::task::JoinSet;

use crate::peer::{VALUE, World, context, kms, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_want_one_secret_make_one_decrypt() {
    let Some(world) = World::start("moto") else { return };
    let (kms, access) = (kms(), world.user("full"));
    let record = Arc::new(kms.seal(&access, &context(), VALUE, soon()).await.unwrap());
    world.peer.order("rules", &json!({"rules": [{"action": "kms:Decrypt", "do": "delay", "seconds": 1}]}));
    let mut crowd = JoinSet::new();
    for _ in 0..1000 {
        let (kms, access, record) = (kms.clone(), access.clone(), Arc::clone(&record));
        crowd.spawn(async move { kms.open(&access, &record, &context(), soon()).await.unwrap().to_vec() });
    }
    assert!(crowd.join_all().await.into_iter().all(|value| value == VALUE));
    assert_eq!(world.peer.calls("kms:Decrypt"), 1);
    assert_eq!((kms.figures().decrypts, kms.figures().cache_hits), (1, 999));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_is_denied_does_not_hammer() {
    let Some(world) = World::start("ministack") else { return };
    let kms = Kms::new(world.environment("full"));
    let record = Arc::new(kms.seal(&world.user("full"), &context(), VALUE, soon()).await.unwrap());
    let access = world.assume(&world.role("untrusting"), "", 900);
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let (kms, access, record) = (kms.clone(), access.clone(), Arc::clone(&record));
        crowd.spawn(async move { kms.open(&access, &record, &context(), soon()).await.unwrap_err().code() });
    }
    assert!(crowd.join_all().await.into_iter().all(|code| code == "kms.role_denied"));
    assert!(world.peer.calls("sts:AssumeRole") <= 2, "{}", world.peer.calls("sts:AssumeRole"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_is_forgotten_and_opened_later() {
    let Some(world) = World::start("moto") else { return };
    let (kms, access) = (kms(), world.user("full"));
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    let rule =
        json!({"action": "kms:Decrypt", "do": "error", "code": "KMSInternalException", "status": 500, "times": 3});
    world.peer.order("rules", &json!({"rules": [rule]}));
    assert_eq!(kms.open(&access, &record, &context(), soon()).await.unwrap_err().code(), "kms.outage");
    assert_eq!(&**kms.open(&access, &record, &context(), soon()).await.unwrap(), VALUE);
}

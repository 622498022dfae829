//! What the machine is to AWS, by a metadata service of the tests' own.

use std::time::Duration;

use lictor_kms::Kms;
use serde_json::json;

use crate::peer::{Peer, VALUE, World, context, environment, soon};

fn instance(upstream: &World) -> Option<(Peer, Kms)> {
    let imds = Peer::start("imds", &["--upstream", &upstream.peer.url()])?;
    let kms = Kms::new(environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.url())]));
    Some((imds, kms))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_the_instance_is_found_by_version_two() {
    let Some(world) = World::start("ministack") else { return };
    let Some((imds, kms)) = instance(&world) else { return };
    let access = world.machine();
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    assert_eq!(&**kms.open(&access, &record, &context(), soon()).await.unwrap(), VALUE);
    let report = kms.test(&access, soon(), |_| {}).await;
    assert!(report.passed() && report.steps[0].detail.contains("assumed-role/lictor-agent/"), "{report:?}");
    assert!(report.steps[0].detail.contains("instance metadata"), "{report:?}");
    assert_eq!(imds.calls_of("token"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_the_instance_are_renewed_before_and_after_their_end() {
    let Some(world) = World::start("ministack") else { return };
    let Some((imds, kms)) = instance(&world) else { return };
    let access = world.machine();
    let record = kms.seal(&access, &context(), VALUE, soon()).await.unwrap();
    assert_eq!(imds.calls_of("sessions"), 1);
    // AWS ends it early; the instance has a new one.
    imds.order("expire", &json!({}));
    world.peer.order("expire", &json!({}));
    assert_eq!(&**kms.open(&access, &record, &context(), soon()).await.unwrap(), VALUE);
    assert_eq!(imds.calls_of("sessions"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_that_swallows_tokens_names_the_hop_limit() {
    let Some(world) = World::start("ministack") else { return };
    let Some((imds, kms)) = instance(&world) else { return };
    imds.order("faults", &json!({"faults": [{"on": "token", "do": "hang", "times": 100}]}));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let error = kms.seal(&world.machine(), &context(), VALUE, deadline).await.unwrap_err();
    assert_eq!((error.code(), error.suspects()[0].code), ("kms.imds", "kms.suspect_hop_limit"));
    assert!(error.cause().contains("environment variables"), "{}", error.cause());
}

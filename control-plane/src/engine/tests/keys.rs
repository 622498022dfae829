//! Master keys and secrets at the engine: a death in the middle of moving records, and what other helpers of it store.

use lictor_proto::v1::{KmsRecord, Secret, SecretManager};
use sqlx::Connection as _;

use super::*;
use crate::store::managers::{self, ManagerRecord};
use crate::store::secrets::{self, Body};
use crate::vault::Keyring;

fn ring(keys: &[u8]) -> Keyring {
    Keyring::of(keys.iter().map(|byte| [*byte; 32])).unwrap()
}

/// An engine on the database in the directory, with these master keys.
async fn engine(dir: &std::path::Path, keys: &[u8]) -> Engine {
    let vault = Vault::of(ring(keys));
    let (writer, readers) = store::open(dir, vault.task_keys()).await.unwrap();
    readers.close().await;
    engine_on(writer, vault, dir).await.0
}

async fn store(engine: &mut Engine, identifier: &str, value: &[u8]) -> Result<Secret, Refusal> {
    let secret = Secret { identifier: identifier.into(), ..Secret::default() };
    let new = NewSecret { secret, value: Some(Zeroizing::new(value.to_vec())) };
    put(engine, new).await
}

async fn put(engine: &mut Engine, new: NewSecret) -> Result<Secret, Refusal> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    engine.put_secret(new, caller(), reply, Now::read()).await.unwrap();
    // Answers wait until what they tell of is stored.
    engine.turn(None).await.unwrap();
    answer.await.unwrap()
}

async fn open(engine: &mut Engine, identifier: &str) -> Result<Vec<u8>, String> {
    let version = secrets::secret(engine.database().await.unwrap(), identifier).await.unwrap().unwrap().version;
    let value = engine.value(identifier, version).await.unwrap();
    value.map(|value| value.to_vec()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_a_death_left_half_moved_opens_with_both_keys_and_is_moved_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = engine(dir.path(), &[1]).await;
    for number in 0..200 {
        store(&mut first, &format!("s{number:03}"), format!("value {number}").as_bytes()).await.unwrap();
    }
    first.turn(None).await.unwrap();
    assert_eq!(first.replace_keys(ring(&[2, 1]), Now::read()).await.unwrap(), Ok(()));
    // Some steps are stored; the last one is not: the process dies in its transaction.
    for _ in 0..3 {
        first.keys.next = Instant::now();
        first.turn(None).await.unwrap();
    }
    first.keys.next = Instant::now();
    first.tend_keys(Now::read()).await.unwrap();
    assert!(first.in_transaction);
    drop(first);

    // With either key alone some of it does not open, so it was in the middle.
    let mut old = engine(dir.path(), &[1]).await;
    assert_eq!(open(&mut old, "s199").await.unwrap(), b"value 199");
    assert!(open(&mut old, "s000").await.unwrap_err().contains("was encrypted with master key"));
    drop(old);
    let mut both = engine(dir.path(), &[2, 1]).await;
    for number in 0..200 {
        let value = open(&mut both, &format!("s{number:03}")).await.unwrap();
        assert_eq!(value, format!("value {number}").as_bytes());
    }
    // In the middle as well, neither key is given up.
    for alone in [&[1][..], &[2]] {
        let refused = both.replace_keys(ring(alone), Now::read()).await.unwrap().unwrap_err();
        assert!(refused.to_string().contains("versions of secrets"), "{refused}");
    }
    both.turn(None).await.unwrap();
    while both.keys.next <= Instant::now() + Duration::from_secs(1) {
        both.keys.next = Instant::now();
        both.turn(None).await.unwrap();
    }
    assert_eq!(both.replace_keys(ring(&[2]), Now::read()).await.unwrap(), Ok(()));
    both.parts.writer.connection.close().await.unwrap();
    let mut new = engine(dir.path(), &[2]).await;
    for number in 0..200 {
        assert_eq!(open(&mut new, &format!("s{number:03}")).await.unwrap(), format!("value {number}").as_bytes());
    }
}

#[tokio::test]
async fn records_of_a_key_that_is_nowhere_stay_and_are_made_whole_by_storing_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut lost = engine(dir.path(), &[7]).await;
    store(&mut lost, "s", b"value").await.unwrap();
    lost.turn(None).await.unwrap();
    lost.parts.writer.connection.close().await.unwrap();
    let mut engine = engine(dir.path(), &[2, 1]).await;
    while engine.keys.next <= Instant::now() + Duration::from_secs(1) {
        engine.keys.next = Instant::now();
        engine.turn(None).await.unwrap();
    }
    assert!(engine.parts.metrics.encode().contains("control_plane_master_key_records{key=\"missing\"} 1"));
    assert!(open(&mut engine, "s").await.is_err());
    // A key that was missing before is missed by no new list.
    assert_eq!(engine.replace_keys(ring(&[3, 2]), Now::read()).await.unwrap(), Ok(()));
    assert_eq!(store(&mut engine, "s", b"value").await.unwrap().version, 2);
    assert_eq!(open(&mut engine, "s").await.unwrap(), b"value");
}

#[tokio::test]
async fn a_version_under_a_manager_is_stored_bound_and_keeps_the_manager_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = engine(dir.path(), &[1]).await;
    let now = Now::read();
    let manager = ManagerRecord {
        manager: SecretManager { identifier: "corp".into(), version: 1, ..SecretManager::default() },
        created_at: now.wall,
        updated_at: now.wall,
        deleted_at: None,
    };
    managers::save_manager(engine.database().await.unwrap(), &manager).await.unwrap();
    let wanted = Secret { identifier: "app".into(), manager: "corp".into(), ..Secret::default() };
    let planned = engine.plan_secret(&wanted, &caller(), now).await.unwrap().unwrap();
    assert_eq!((planned.record.version, planned.manager.as_ref().unwrap().identifier.as_str()), (0, "corp"));
    let record = |key: &str| Body::Kms(KmsRecord { key_arn: key.into(), ..KmsRecord::default() });
    let stored = engine.store_secret(planned, Some(record("first")), &caller(), now).await.unwrap();
    assert_eq!((stored.version, stored.key_id.as_str()), (1, "first"));
    let stored = engine.new_version("app", record("second"), &caller(), now).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.key_id.as_str()), (2, "second"));
    assert!(engine.new_version("none", record("x"), &caller(), now).await.unwrap().is_err());
    assert!(open(&mut engine, "app").await.unwrap_err().contains("corp keeps it"));
    let refused = engine.delete_manager("corp", &caller(), now).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("keeps secret app"), "{refused}");
    let narrowed = SecretManager { identifier: "corp".into(), scope: "team".into(), ..SecretManager::default() };
    let refused = engine.put_manager(narrowed, &caller(), now).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("secret app"), "{refused}");
    // The scope is part of what it is encrypted for.
    let scoped = NewSecret { secret: Secret { scope: "team".into(), ..wanted.clone() }, value: None };
    let refused = put(&mut engine, scoped).await.unwrap_err();
    assert!(refused.to_string().contains("encrypted for the scope"), "{refused}");
    // Out of it with a value, and it may go.
    let here = Secret { manager: "built-in".into(), ..wanted };
    let here = NewSecret { secret: here, value: Some(Zeroizing::new(b"x".to_vec())) };
    assert_eq!(put(&mut engine, here).await.unwrap().version, 3);
    assert_eq!(engine.delete_manager("corp", &caller(), now).await.unwrap(), Ok(()));
}

//! What the engine asks of AWS KMS itself, where the answers come at a bad moment.

use lictor_proto::v1::{
    AwsKms, AwsMachineRole, KmsRecord, Secret, SecretManager, TextOrSecret, aws_kms, secret_manager,
};
use tokio::sync::oneshot;

use super::*;
use crate::engine::fetching::Asked;
use crate::engine::sealing::Written;
use crate::platform::{Done, Fetched, Place, Request, Work};
use crate::store::managers::ManagerRecord;

fn place() -> Place {
    Place { scope: String::new(), identifier: "db".into(), version: 1 }
}

/// A secret manager whose access can be made without anything that is stored.
fn manager() -> ManagerRecord {
    let key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let kms = AwsKms {
        key: Some(TextOrSecret { text: key.into(), secret: String::new() }),
        credentials: Some(aws_kms::Credentials::MachineRole(AwsMachineRole {})),
        ..AwsKms::default()
    };
    let kind = Some(secret_manager::Kind::AwsKms(kms));
    let (created_at, updated_at) = (UnixMillis(0), UnixMillis(0));
    let manager = SecretManager { identifier: "corp".into(), kind, ..SecretManager::default() };
    ManagerRecord { manager, created_at, updated_at, deleted_at: None }
}

/// An engine, and what it asks for.
async fn engine(dir: &std::path::Path) -> (Engine, mpsc::Receiver<Request>) {
    let vault = Vault::open(&MasterKeySource::StateDir, dir).unwrap();
    let (writer, readers) = store::open(dir, vault.task_keys()).await.unwrap();
    readers.close().await;
    let (mut engine, _) = engine_on(writer, vault, dir).await;
    let (asks, asked) = mpsc::channel(8);
    engine.parts.platform = asks;
    (engine, asked)
}

#[tokio::test]
async fn an_answer_that_comes_while_the_disk_is_full_is_waited_for_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, mut asked) = engine(dir.path()).await;
    let now = Now::read();
    let (reply, mut answer) = oneshot::channel();
    let written = Written { secret: Secret::default(), by: caller(), reply };
    for (work, what) in [
        (Work::Open(KmsRecord::default()), Asked::Value(place())),
        (Work::Seal(Zeroizing::new(b"value".to_vec())), Asked::Write(Box::new(written))),
    ] {
        assert!(engine.ask_platform(&manager(), place(), work, what, now).await.unwrap().is_ok());
    }
    assert!(engine.fetching.is_asked_for(&place()));
    assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    for _ in 0..2 {
        let ticket = asked.try_recv().unwrap().ticket;
        let outcome = Ok(Done::Value(Zeroizing::new(b"value".to_vec())));
        engine.refuse(Command::Fetched(Fetched { ticket, outcome }));
    }
    // Who wants the value once there is space asks for it again, and who wrote one is told.
    assert!(!engine.fetching.is_asked_for(&place()));
    assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
}

//! Tests of the journal: crash, damage, and nothing secret inside.

use lictor_proto::v1::TaskState;

use super::*;

fn key(id: &str) -> TaskKey {
    TaskKey { task_id: id.into(), epoch: 3 }
}

fn open(directory: &Path) -> Opened {
    Journal::open(directory, Arc::new(Metrics::default())).unwrap()
}

fn started() -> Record {
    Record::Started(Box::new(Start {
        host: "h".into(),
        shell_id: "s".into(),
        command_id: Uuid::from_u128(7).to_string(),
        accepted: Stamp::now(),
        input_sent: true,
        skipped: 5,
    }))
}

fn ended() -> Record {
    let result =
        TaskResult { outcome: TaskState::Failed.into(), exit_code: Some(37), output_bytes: 3, ..Default::default() };
    let tail = vec![Piece { offset: 0, stream: OutputStream::Stderr, data: Bytes::from_static(b"abc") }];
    Record::Ended { result: Box::new(result), tail, skipped: 5 }
}

#[tokio::test]
async fn what_was_put_survives_without_a_close() {
    let directory = tempfile::tempdir().unwrap();
    let started = started();
    let opened = open(directory.path());
    assert!(opened.records.is_empty());
    let journal = opened.journal;
    journal.put(&key("a"), &Record::Accepted).await.unwrap();
    journal.put(&key("b"), &Record::Accepted).await.unwrap();
    journal.put(&key("b"), &started).await.unwrap();
    journal.put(&key("c"), &started).await.unwrap();
    journal.put(&key("c"), &ended()).await.unwrap();
    journal.put(&key("d"), &ended()).await.unwrap();
    journal.remove(&key("d")).await.unwrap();

    // What kill -9 leaves: the file as it is now, without the store's own close.
    let crashed = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join("journal.redb"), crashed.path().join("journal.redb")).unwrap();
    let reopened = open(crashed.path());
    assert!(reopened.set_aside.is_none());
    let expected = [(key("a"), Record::Accepted), (key("b"), started), (key("c"), ended())];
    assert_eq!(reopened.records, expected);

    drop(journal);
    assert_eq!(open(directory.path()).records, expected);
}

#[tokio::test]
async fn many_writers_share_commits() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open(directory.path());
    let puts = (0..200).map(|index| {
        let journal = &opened.journal;
        async move { journal.put(&key(&format!("t{index}")), &Record::Accepted).await.unwrap() }
    });
    futures::future::join_all(puts).await;
    drop(opened);
    assert_eq!(open(directory.path()).records.len(), 200);
}

#[test]
fn a_second_agent_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path());
    let error = Journal::open(directory.path(), Arc::new(Metrics::default())).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_journal_is_set_aside_and_a_new_one_made() {
    let sound = tempfile::tempdir().unwrap();
    let opened = open(sound.path());
    for index in 0..50 {
        opened.journal.put(&key(&format!("t{index}")), &ended()).await.unwrap();
    }
    drop(opened);
    let sound = std::fs::read(sound.path().join("journal.redb")).unwrap();
    let half = sound.len() / 2;
    let mut scrambled = sound.clone();
    for (index, byte) in scrambled.iter_mut().enumerate().skip(64) {
        *byte = u8::try_from(index.wrapping_mul(31) % 256).unwrap();
    }
    for damage in
        [b"not a database".to_vec(), vec![0; 10_000], scrambled, sound[..half].to_vec(), sound[..100].to_vec()]
    {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("journal.redb"), &damage).unwrap();
        let opened = open(directory.path());
        assert!(opened.records.is_empty());
        let aside = opened.set_aside.unwrap();
        assert_eq!(std::fs::read(aside).unwrap().len(), damage.len());
        opened.journal.put(&key("a"), &Record::Accepted).await.unwrap();
    }
}

#[test]
fn a_record_that_cannot_be_read_promises_least() {
    assert!(matches!(decode(&[0xff, 0xff, 0xff]), Record::Started { .. }));
}

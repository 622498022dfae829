//! Tests of the journal: crash, damage, disks that fail.

use std::io;
use std::sync::Mutex;

use lictor_proto::v1::TaskState;

use super::*;
use crate::ownership::tests::{as_another_user, give_away};

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
        secrets: vec![("web-token".into(), 3)],
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
async fn the_journal_of_the_user_before_goes_on_on_a_volume_of_the_group() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open(directory.path());
    opened.journal.put(&key("a"), &Record::Accepted).await.unwrap();
    drop(opened.journal);
    // As the kubelet leaves them when the volume is mounted.
    give_away(&directory.path().join("journal.redb"), 0o660);
    give_away(directory.path(), 0o2770);
    let opened = as_another_user(|| open(directory.path()));
    assert_eq!(opened.records, [(key("a"), Record::Accepted)]);
    assert!(opened.set_aside.is_none());
    opened.journal.put(&key("b"), &Record::Accepted).await.unwrap();
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

/// A disk that can be told to fail.
#[derive(Debug, Clone, Default)]
struct Disk {
    /// With what it fails, and how many writes from now.
    failing: Arc<Mutex<Option<(usize, io::ErrorKind)>>>,
}

impl Disk {
    fn fails(&self, after: usize, how: io::ErrorKind) {
        *self.failing.lock().unwrap() = Some((after, how));
    }

    fn works(&self) {
        *self.failing.lock().unwrap() = None;
    }

    fn touch(&self) -> io::Result<()> {
        match &mut *self.failing.lock().unwrap() {
            Some((0, how)) => Err((*how).into()),
            Some((after, _)) => {
                *after -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Arc::new(move |path| {
            let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let file = redb::backends::FileBackend::new(file).map_err(redb::Error::from)?;
            Ok(redb::Database::builder().create_with_backend(Failing { disk: disk.clone(), file })?)
        })
    }
}

#[derive(Debug)]
struct Failing {
    disk: Disk,
    file: redb::backends::FileBackend,
}

impl redb::StorageBackend for Failing {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.touch()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.disk.touch()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.touch()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }
}

#[tokio::test]
async fn a_full_or_failing_disk_costs_no_acknowledged_record_and_is_recovered_from() {
    for how in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other] {
        // The disk fails at each write of a commit in turn.
        for after in 0..12 {
            let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
            let opened = Journal::open_by(directory.path(), Arc::default(), disk.opener()).unwrap();
            let mut trouble = opened.journal.trouble();
            let journal = opened.journal;
            journal.put(&key("safe"), &ended()).await.unwrap();
            assert!(trouble.borrow_and_update().is_none());
            disk.fails(after, how);
            let mut kept = vec!["safe".to_owned()];
            let mut refused = 0;
            for index in 0..5 {
                let id = format!("t{index}");
                match journal.put(&key(&id), &ended()).await {
                    Ok(()) => kept.push(id),
                    Err(JournalError::Write(_) | JournalError::Open { .. } | JournalError::File { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(refused > 0, "{how} after {after}");
            let why = trouble.borrow_and_update().clone().unwrap();
            assert!(why.contains("journal"), "{why}");
            journal.probe().await.unwrap_err();
            disk.works();
            journal.probe().await.unwrap();
            assert!(trouble.borrow_and_update().is_none());
            journal.put(&key("later"), &Record::Accepted).await.unwrap();
            kept.push("later".to_owned());
            drop(journal);
            let reopened = open(directory.path());
            assert!(reopened.set_aside.is_none());
            let ids: Vec<&str> = reopened.records.iter().map(|(key, _)| &*key.task_id).collect();
            for id in &kept {
                assert!(ids.contains(&id.as_str()), "{id} of {kept:?} is lost: {ids:?}, {how} after {after}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_failing_disk_left_is_sound_after_a_crash() {
    for after in 0..12 {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let opened = Journal::open_by(directory.path(), Arc::default(), disk.opener()).unwrap();
        for index in 0..20 {
            opened.journal.put(&key(&format!("t{index:02}")), &ended()).await.unwrap();
        }
        disk.fails(after, io::ErrorKind::StorageFull);
        let taken = opened.journal.put(&key("x"), &ended()).await.is_ok();
        let crashed = tempfile::tempdir().unwrap();
        std::fs::copy(directory.path().join("journal.redb"), crashed.path().join("journal.redb")).unwrap();
        let reopened = open(crashed.path());
        assert!(reopened.set_aside.is_none());
        assert!(reopened.records.len() >= 20 + usize::from(taken), "{} after {after}", reopened.records.len());
        assert!(reopened.records.iter().all(|(_, record)| *record == ended()));
    }
}

/// No mutation makes the agent panic or keeps it from starting; what is read is either a record as it was, or set aside.
#[tokio::test]
async fn mutations_of_a_real_journal_never_keep_an_agent_from_starting() {
    let sound = tempfile::tempdir().unwrap();
    let opened = open(sound.path());
    let started = started();
    for index in 0..30 {
        let record = if index % 3 == 0 {
            Record::Accepted
        } else if index % 3 == 1 {
            started.clone()
        } else {
            ended()
        };
        opened.journal.put(&key(&format!("t{index}")), &record).await.unwrap();
    }
    drop(opened);
    let sound = std::fs::read(sound.path().join("journal.redb")).unwrap();
    // Where there is anything: the rest of the file is empty pages.
    let used: Vec<usize> = sound.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let (mut set_aside, mut whole) = (0, 0);
    for round in 0..300 {
        let mut bytes = sound.clone();
        match round % 3 {
            0 => bytes.truncate(random(bytes.len())),
            1 => bytes[used[random(used.len())]] ^= 1 << random(8),
            _ => {
                let at = used[random(used.len())];
                let end = bytes.len().min(at + 1 + random(5000));
                bytes[at..end].fill(u8::try_from(random(256)).unwrap());
            }
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("journal.redb"), &bytes).unwrap();
        let reopened = open(directory.path());
        match reopened.set_aside {
            Some(aside) => {
                set_aside += 1;
                assert_eq!(std::fs::read(aside).unwrap().len(), bytes.len());
                assert_eq!(reopened.records, []);
            }
            None => whole += 1,
        }
        reopened.journal.put(&key("new"), &Record::Accepted).await.unwrap();
    }
    assert!(set_aside > 50 && whole > 10, "{set_aside} set aside, {whole} whole");
}

#[test]
fn records_of_the_version_before_are_read_and_promise_no_more_than_they_did() {
    // As version 0.1.0 wrote them: host, shell and command; result and tail.
    let before = Stored {
        started: Some(StoredStart {
            host: "h".into(),
            shell_id: "s".into(),
            command_id: Uuid::from_u128(7).to_string(),
            ..StoredStart::default()
        }),
        ..Stored::default()
    };
    let Record::Started(start) = decode(&before.encode_to_vec()) else { panic!("not started") };
    assert_eq!((start.host.as_str(), start.place(), start.input_sent), ("h", None, false));
    let mut bytes = Stored { result: Some(TaskResult::default()), ..Stored::default() }.encode_to_vec();
    // A field of a later version.
    bytes.extend_from_slice(&[0xf8, 0x07, 0x01]);
    assert!(matches!(decode(&bytes), Record::Ended { skipped: 0, .. }));
}

#[test]
fn what_can_be_followed_says_where() {
    let Record::Started(start) = started() else { panic!("not started") };
    assert_eq!(start.place(), Some(("s", Uuid::from_u128(7))));
    assert_eq!(Start { shell_id: String::new(), ..(*start).clone() }.place(), None);
    assert_eq!(Start { command_id: "c".into(), ..(*start).clone() }.place(), None);
    assert_eq!(Start { accepted: Stamp::default(), ..*start }.place(), None);
}

#[tokio::test]
async fn a_journal_that_cannot_be_opened_says_which_file_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let opener: Opener = Arc::new(|_| Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into()));
    let error = Journal::open_by(directory.path(), Arc::default(), opener).unwrap_err();
    let text = crate::failure::chain(&error);
    assert!(text.contains("journal.redb") && text.contains("read-only"), "{text}");
}

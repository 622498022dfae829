//! Tests of the output log.

use std::time::Duration;

use super::*;
use crate::ownership::tests::{as_another_user, give_away};

const LIMITS: Limits = Limits { memory: 1000, disk: 5000, segment: 1500 };

fn key() -> TaskKey {
    TaskKey { task_id: "../../etc/passwd".into(), epoch: 1 }
}

fn bytes(from: usize, length: usize) -> Bytes {
    (from..from + length).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

/// Reads everything from `offset` in pieces of at most `most`.
async fn drain(log: &Log, mut offset: u64, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = log.read(offset, most).await.unwrap() {
        assert_eq!(piece.offset, offset);
        assert!(piece.data.len() <= most && !piece.data.is_empty());
        offset += piece.data.len() as u64;
        all.extend_from_slice(&piece.data);
    }
    all
}

#[test]
fn the_directory_is_made_private_and_a_strangers_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let state = tempfile::tempdir().unwrap();
    let directory = prepare_directory(state.path()).unwrap();
    let mode = || std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    prepare_directory(state.path()).unwrap();
    assert_eq!(mode(), 0o700);
    // Of the user that an earlier pod ran as, on a volume of the group.
    give_away(&directory, 0o2770);
    give_away(state.path(), 0o2770);
    as_another_user(|| prepare_directory(state.path())).unwrap();
    assert_eq!(mode(), 0o770);
    give_away(&directory, 0o777);
    let error = prepare_directory(state.path()).unwrap_err().to_string();
    assert!(error.contains("user 54321"), "{error}");
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (victim, link) = (directory.path().join("victim"), directory.path().join("p00000000000000000000.log"));
    std::fs::write(&victim, "kept").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    Segment::create(directory.path(), "p", 0).unwrap_err();
    Segment::reopen(link).unwrap_err();
    assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
}

#[tokio::test]
async fn memory_then_files_then_the_writer_waits() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().to_owned(), LIMITS);
    let log = shelf.log(&key());
    for index in 0..12 {
        log.append(OutputStream::Stdout, bytes(index * 500, 500)).await;
    }
    assert_eq!(shelf.spilled_bytes(), 5000);
    assert!(directory.path().read_dir().unwrap().count() >= 3);
    let writer = tokio::spawn({
        let log = log.clone();
        async move { log.append(OutputStream::Stdout, bytes(6000, 500)).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!writer.is_finished());
    assert_eq!(drain(&log, 0, 333).await, bytes(0, 6000));
    assert_eq!(drain(&log, 1234, 64).await, bytes(1234, 6000 - 1234));

    log.acknowledge(1000, false);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!writer.is_finished(), "memory is free, but what is on disk is older");
    log.acknowledge(2500, false);
    writer.await.unwrap();
    assert_eq!(drain(&log, 2500, 1000).await, bytes(2500, 4000));

    log.acknowledge(6500, false);
    assert_eq!(shelf.spilled_bytes(), 0);
    log.append(OutputStream::Stderr, bytes(6500, 10)).await;
    assert_eq!(shelf.spilled_bytes(), 0, "with the files gone, memory serves again");
    assert_eq!(drain(&log, 6500, 1000).await, bytes(6500, 10));
}

#[tokio::test]
async fn pieces_of_one_stream_are_joined_and_streams_kept_apart() {
    let directory = tempfile::tempdir().unwrap();
    let log = Shelf::new(directory.path().to_owned(), LIMITS).log(&key());
    log.append(OutputStream::Stdout, Bytes::from_static(b"ab")).await;
    log.append(OutputStream::Stdout, Bytes::from_static(b"cd")).await;
    log.append(OutputStream::Stderr, Bytes::from_static(b"ef")).await;
    log.append(OutputStream::Stdout, Bytes::from_static(b"gh")).await;
    let read = |offset, most| {
        let log = log.clone();
        async move {
            let piece = log.read(offset, most).await.unwrap().unwrap();
            (piece.offset, piece.stream, piece.data)
        }
    };
    assert_eq!(read(0, 100).await, (0, OutputStream::Stdout, Bytes::from_static(b"abcd")));
    assert_eq!(read(1, 100).await, (1, OutputStream::Stdout, Bytes::from_static(b"bcd")));
    assert_eq!(read(0, 3).await, (0, OutputStream::Stdout, Bytes::from_static(b"ab")));
    assert_eq!(read(4, 100).await, (4, OutputStream::Stderr, Bytes::from_static(b"ef")));
    assert_eq!(read(7, 100).await, (7, OutputStream::Stdout, Bytes::from_static(b"h")));
    assert!(log.read(8, 100).await.unwrap().is_none());
}

#[tokio::test]
async fn a_full_control_plane_ends_all_storing_but_not_the_count() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().to_owned(), LIMITS);
    let log = shelf.log(&key());
    for index in 0..10 {
        log.append(OutputStream::Stdout, bytes(index * 500, 500)).await;
    }
    log.acknowledge(700, true);
    assert_eq!(shelf.spilled_bytes(), 0);
    for _ in 0..100 {
        log.append(OutputStream::Stdout, bytes(0, 500)).await;
    }
    assert_eq!(log.end(), 55_000);
    assert!(log.read(700, 10).await.unwrap().is_none());
    assert!(log.is_discarding());
}

#[tokio::test]
async fn what_is_persisted_is_restored_without_the_acknowledged_front() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().to_owned(), Limits { memory: 100_000, ..LIMITS });
    let log = shelf.log(&key());
    for index in 0..100 {
        log.append(OutputStream::Stdout, bytes(index * 500, 500)).await;
    }
    log.acknowledge(1200, false);
    assert_eq!(log.persist().unwrap(), Tail::Files);
    assert_eq!(drain(&log, 1200, 4000).await, bytes(1200, 50_000 - 1200));

    let shelf = Shelf::new(directory.path().to_owned(), LIMITS);
    let restored = shelf.restore(&key(), 50_000, Vec::new(), 0).unwrap();
    assert_eq!(drain(&restored, 1200, 4000).await, bytes(1200, 50_000 - 1200));
    assert_eq!(shelf.spilled_bytes(), 49_000);
    restored.discard();
    tokio::time::timeout(Duration::from_secs(5), async {
        while directory.path().read_dir().unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn short_output_goes_inline() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().to_owned(), LIMITS);
    let log = shelf.log(&key());
    log.append(OutputStream::Stdout, Bytes::from_static(b"abc")).await;
    let Tail::Inline(pieces) = log.persist().unwrap() else { panic!() };
    let restored = shelf.restore(&key(), 3, pieces, 0).unwrap();
    assert_eq!(drain(&restored, 0, 10).await, b"abc");
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_cut_by_a_crash_is_read_to_its_last_whole_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut segment = Segment::create(directory.path(), &file_prefix(&key()), 0).unwrap();
    for offset in [0, 10] {
        let data = bytes(usize::try_from(offset).unwrap(), 10);
        segment.append(&Piece { offset, stream: OutputStream::Stdout, data }).unwrap();
    }
    let path = directory.path().read_dir().unwrap().next().unwrap().unwrap().path();
    for cut in 24..46 {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(45.min(cut)).unwrap();
        let segment = Segment::reopen(path.clone()).unwrap().unwrap();
        assert_eq!(segment.len(), 10, "cut at {cut}");
        drop(segment);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(46).unwrap();
    }
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
    assert!(Segment::reopen(path).unwrap().is_none());
}

#[tokio::test]
async fn files_of_nobody_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().to_owned(), LIMITS);
    let other = TaskKey { epoch: 12, ..key() };
    for key in [&key(), &other] {
        Segment::create(directory.path(), &file_prefix(key), 0).unwrap();
    }
    shelf.sweep([&other].into_iter()).unwrap();
    let left: Vec<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1);
    assert!(left[0].to_str().unwrap().starts_with(&file_prefix(&other)));
}

/// What a process that is killed leaves: the files of a log whose memory is gone.
async fn interrupted(directory: &Path, skipped: u64, made: std::ops::Range<usize>) -> Arc<Shelf> {
    let shelf = Shelf::new(directory.to_owned(), LIMITS);
    let log = shelf.interrupted(&key(), skipped).unwrap();
    log.resume(u64::try_from(made.start).unwrap());
    for start in made.step_by(500) {
        log.append(OutputStream::Stdout, bytes(start, 500)).await;
    }
    Shelf::new(directory.to_owned(), LIMITS)
}

#[tokio::test]
async fn after_a_crash_output_goes_on_behind_what_is_stored_or_in_files_without_a_hole() {
    // 1000 bytes in memory, 3000 in files.
    for (stored, lost, left) in [(0, 1000, 3000), (600, 400, 3000), (1000, 0, 3000), (2600, 0, 1400), (4000, 0, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let shelf = interrupted(directory.path(), 0, 0..4000).await;
        let log = shelf.interrupted(&key(), 0).unwrap();
        assert_eq!(log.resume(stored), lost, "{stored} stored");
        assert_eq!(log.end(), stored + left);
        log.announce();
        assert!(shelf.grown().await.contains(&key()));
        log.append(OutputStream::Stdout, bytes(4000, 500)).await;
        let expected = bytes(usize::try_from(stored + lost).unwrap(), usize::try_from(left + 500).unwrap());
        assert_eq!(drain(&log, stored, 333).await, expected);
        // The end is journalled, and the process killed once more.
        let (end, skipped) = (log.end(), log.skipped());
        let inline = match log.persist().unwrap() {
            Tail::Inline(pieces) => pieces,
            Tail::Files => Vec::new(),
        };
        let again = Shelf::new(directory.path().to_owned(), LIMITS);
        let restored = again.restore(&key(), end, inline, skipped).unwrap();
        assert_eq!(restored.end(), end);
        assert_eq!(drain(&restored, stored, 333).await, expected);
        restored.acknowledge(end, false);
        assert_eq!(restored.read(stored, 10).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_second_crash_does_not_give_an_offset_to_other_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = interrupted(directory.path(), 0, 0..4000).await;
    let first = shelf.interrupted(&key(), 0).unwrap();
    let skipped = first.resume(300);
    assert_eq!((skipped, first.end()), (700, 3300));
    // The control plane stores up to 1800, which is byte 2500, and the process is killed without having acknowledged it here.
    drop(first);
    let again = Shelf::new(directory.path().to_owned(), LIMITS);
    let second = again.interrupted(&key(), skipped).unwrap();
    assert_eq!(second.resume(1800), skipped);
    assert_eq!(drain(&second, 1800, 1000).await, bytes(2500, 1500));
}

#[tokio::test]
async fn behind_a_hole_in_the_files_nothing_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = interrupted(directory.path(), 0, 0..6000).await;
    let mut files: Vec<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    std::fs::remove_file(&files[1]).unwrap();
    let log = shelf.interrupted(&key(), 0).unwrap();
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    log.resume(1000);
    assert_eq!(drain(&log, 1000, 1000).await, bytes(1000, 1500));
    let fresh = shelf.log_without_files(&key(), 70);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    assert_eq!((fresh.resume(30), fresh.end()), (70, 30));
}

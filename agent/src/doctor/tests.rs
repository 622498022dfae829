use std::path::Path;
use std::time::{Duration, SystemTime};

use lictor_proto::sealing::SealingKey;

use super::report::{Book, Output};
use super::{advice, size, span, state};
use crate::enrol::{Identity, PrivateKeyPem, Store, TokenSource};

fn no_token() -> TokenSource {
    TokenSource { value: None, file: None }
}

fn saved(directory: &Path, issued: SystemTime, not_after: SystemTime) {
    let identity = Identity {
        agent_id: "agent-7".into(),
        certificate_pem: "certificate".into(),
        private_key_pem: PrivateKeyPem::new("marker-secret".into()),
        sealing_key: SealingKey::generate(),
        ca_pem: "ca".into(),
        issued,
        not_after,
    };
    Store::open(directory).unwrap().save(&identity).unwrap();
}

/// What is found about the identity in `directory` at `now`.
fn looked(directory: &Path, tokens: &TokenSource, now: SystemTime) -> Book {
    let mut book = Book::new(Output::Json);
    state::identity(directory, tokens, now, &mut book);
    assert!(!format!("{book:?}").contains("marker-secret"));
    book
}

#[test]
fn the_ages_of_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let well = |check| (check, "passed", "");
    for (issued, not_after, certificate, clock) in [
        (now - day, now + 29 * day, well("certificate"), well("clock")),
        (now - 25 * day, now + 5 * day, ("certificate", "warning", "agent.certificate_due"), well("clock")),
        (now - 31 * day, now - day, ("certificate", "failed", "agent.certificate_ended"), well("clock")),
        (now + day, now + 31 * day, well("certificate"), ("clock", "failed", "agent.clock")),
    ] {
        saved(directory.path(), issued, not_after);
        assert_eq!(looked(directory.path(), &no_token(), now).found(), [well("identity"), certificate, clock]);
    }
}

#[test]
fn an_identity_that_is_missing_damaged_or_open_is_told_apart() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let about = |tokens: &TokenSource, outcome: &str, code: &str| {
        let book = looked(directory.path(), tokens, now);
        assert_eq!(book.found().first(), Some(&("identity", outcome, code)), "{book:?}");
    };
    about(&no_token(), "failed", "agent.not_enrolled");
    let file = directory.path().join("token");
    let tokens = TokenSource { value: None, file: Some(file.clone()) };
    about(&tokens, "failed", "agent.join_token");
    std::fs::write(&file, "no token").unwrap();
    about(&tokens, "failed", "agent.join_token");
    let identity = directory.path().join("identity.json");
    std::fs::write(&identity, "{").unwrap();
    about(&no_token(), "failed", "agent.identity");
    std::fs::remove_file(&identity).unwrap();
    saved(directory.path(), now, now + Duration::from_secs(86_400));
    about(&no_token(), "passed", "");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
    about(&no_token(), "warning", "agent.state_open");
}

#[test]
fn a_journal_that_was_set_aside_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let look = || {
        let mut book = Book::new(Output::Json);
        state::journal(directory.path(), &mut book);
        book
    };
    assert_eq!(look().found(), [("journal", "passed", "")]);
    std::fs::write(directory.path().join("journal.redb.damaged-1700000000"), "x").unwrap();
    assert_eq!(look().found(), [("journal", "warning", "agent.journal_damaged")]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_holds_nobody_up() {
    let (answer, wait) = std::sync::mpsc::channel::<()>();
    let looked = super::on_disk(move || wait.recv().is_ok());
    // Time that stands still goes on by itself only while nothing blocks.
    let (looked, ()) = tokio::join!(looked, tokio::time::advance(super::FILES * 2));
    assert!(looked.unwrap_err().contains("no answer"));
    drop(answer);
    assert_eq!(super::on_disk(|| 7).await, Ok(7));
}

#[tokio::test]
async fn a_host_that_the_policy_does_not_allow_is_not_looked_at() {
    use clap::Parser as _;
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: crate::cli::DoctorArgs,
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    let rules = "[connection]\nports = [15986]\n[hosts]\nallow = [\"127.0.0.0/8\"]\n[identities]\nallow = [\"svc-a@CORP.EXAMPLE\"]\n";
    std::fs::write(&file, rules).unwrap();
    let policy = crate::policy::load(&file).unwrap();
    let look = async |policy, host: &str, rest: &[&str]| {
        let Line { args } = Line::parse_from([&["doctor", "--host", host][..], rest].concat());
        let mut book = Book::new(Output::Json);
        super::hosts::look(host, &args, policy, None, &mut book).await;
        book
    };
    let refused = |book: &Book, code: &str| assert_eq!(book.found(), [("policy", "failed", code)]);
    refused(&look(Some(&policy), "127.71.2.1", &[]).await, "policy.port");
    refused(&look(Some(&policy), "192.0.2.1", &["--port", "15986"]).await, "policy.host");
    refused(
        &look(Some(&policy), "127.71.2.1", &["--port", "15986", "--user", "b@CORP.EXAMPLE"]).await,
        "policy.identity",
    );
    assert_eq!(look(None, "127.71.2.1", &[]).await.found(), [("policy", "skipped", "")]);
    let looked = look(Some(&policy), "127.71.2.1", &["--port", "15986"]).await;
    assert!(looked.found().contains(&("connect", "failed", "connect.refused")), "{looked:?}");
}

#[test]
fn the_holder_of_the_journal_is_read_from_the_kernels_list() {
    let locks = "1: POSIX  ADVISORY  READ 812 08:01:41 128 128\n2: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF\n\
                 2: -> FLOCK  ADVISORY  WRITE 99 fd:00:77 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 00:2b:555 0 EOF\nnonsense\n";
    assert_eq!(state::holder(locks, 1234), Some(Some(4711)));
    // Of another process namespace.
    assert_eq!(state::holder(locks, 555), Some(None));
    // Who waits for a lock does not hold it.
    assert_eq!(state::holder(locks, 77), None);
    assert_eq!(state::holder("", 1234), None);
}

#[test]
fn sizes_and_spans_are_for_people() {
    assert_eq!([5, 2048, 3 << 20, 3 << 30].map(size), ["5 bytes", "2 KiB", "3 MiB", "3.0 GiB"]);
    assert_eq!([119, 600, 7200, 864_000].map(span), ["119 s", "10 min", "2 h", "10 days"]);
}

#[test]
fn advice_is_complete_and_its_codes_are_stable() {
    let mut codes = std::collections::BTreeSet::new();
    for row in advice::ALL {
        let (area, name) = row.code.split_once('.').unwrap();
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(word(area) && word(name), "{}", row.code);
        assert!(row.cause.ends_with('.') && row.remedy.ends_with('.'), "{}", row.code);
        assert!(codes.insert(row.code), "{} is there twice", row.code);
    }
}

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Written by ktutil of MIT Kerberos 1.20.1: `addent -password -p HTTP/web.corp.example@CORP.EXAMPLE -k 7 -e
/// aes256-cts-hmac-sha1-96`, then `alice@CORP.EXAMPLE -k 300 -e aes128-cts-hmac-sha256-128` and `-k 1 -e rc4-hmac`.
const MIT: &[u8] = include_bytes!("../../testdata/mit-1.20.1.keytab");
const PASSWORD: &str = "Oracle-Password-7";

fn recipe(enctype: i32, principal: &Principal) -> Recipe {
    Recipe { enctype, salt: default_salt(principal), parameters: None }
}

fn created(text: &str, kvno: u32, password: &str) -> Keytab {
    let principal = parse_principal(text, None).unwrap();
    Keytab::from_password(&principal, password, kvno, 1_700_000_000, &[recipe(18, &principal)]).unwrap()
}

#[test]
fn a_keytab_of_mit_is_read() {
    let keytab = Keytab::parse(MIT).unwrap();
    let seen: Vec<_> =
        keytab.entries().iter().map(|e| (e.principal.as_str(), e.kvno, e.enctype, e.name_type)).collect();
    assert_eq!(
        seen,
        [
            ("HTTP/web.corp.example@CORP.EXAMPLE", 7, 18, 1),
            ("alice@CORP.EXAMPLE", 300, 19, 1),
            ("alice@CORP.EXAMPLE", 1, 23, 1)
        ]
    );
    assert_eq!(keytab.principals(), ["HTTP/web.corp.example@CORP.EXAMPLE", "alice@CORP.EXAMPLE"]);
    // RC4 keys are kept, and not used.
    assert_eq!(keytab.kvnos("alice@CORP.EXAMPLE"), [300]);
    assert_eq!(keytab.to_krb5().keys().len(), 2);
    assert_eq!(keytab.to_bytes().unwrap().as_slice(), MIT);
}

#[test]
fn keys_are_those_that_mit_makes() {
    let theirs = Keytab::parse(MIT).unwrap();
    for (entry, enctype) in theirs.entries().iter().zip([18, 19]) {
        let principal = parse_principal(&entry.principal, None).unwrap();
        let ours = Keytab::from_password(&principal, PASSWORD, entry.kvno, 0, &[recipe(enctype, &principal)]).unwrap();
        assert!(ours.entries()[0].is_same_key(entry));
    }
}

#[test]
fn every_cut_is_an_error_that_says_where() {
    for length in 0..MIT.len() {
        match Keytab::parse(&MIT[..length]) {
            // A cut between entries cannot be seen.
            Ok(keytab) => assert_eq!(keytab.to_bytes().unwrap().as_slice(), &MIT[..length]),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("at byte") || length == 0, "{length}: {text}");
            }
        }
    }
}

#[test]
fn what_is_no_keytab_says_what_it_is() {
    for (data, expected) in [
        (&b""[..], "empty"),
        (b"\x05\x01\0\0", "0x0501"),
        (b"\x05\x04\0\x0c", "credential cache"),
        (b"BQIAAABS", "base64"),
        (b"#!/bin/sh", "at byte 0"),
        (b"\x05\x02\0\0", "at byte 2: an entry's length needs 4 bytes, but only 2 are left in the file"),
        (
            b"\x05\x02\x7f\xff\xff\xff\0",
            "at byte 2: an entry of 2147483647 bytes, but only 1 bytes are left in the file",
        ),
        (b"\x05\x02\x80\0\0\0\0", "a deleted entry of 2147483648 bytes"),
        (b"\x05\x02\0\0\0\x02\0\0", "at byte 6: a name of 0 parts"),
        (b"\x05\x02\0\0\0\x02\xff\xff", "a name of 65535 parts"),
        (b"\x05\x02\0\0\0\x04\0\x01\0\x09", "at byte 10: the realm needs 9 bytes, but only 0 are left in its entry"),
        (b"\x05\x02\0\0\0\x05\0\x01\0\x01\xff", "at byte 8: the realm is not UTF-8"),
        (b"\x05\x02\0\0\0\0\0\0\x01", "at byte 8: data follows the mark of the end"),
    ] {
        let text = Keytab::parse(data).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert!(matches!(Keytab::parse(&vec![5; MAX_BYTES + 1]), Err(KeytabError::TooLarge)));
    let many = [&[5, 2][..], &MIT[2..].repeat(MAX_ENTRIES / 3 + 1)].concat();
    assert!(matches!(Keytab::parse(&many), Err(KeytabError::TooLarge)));
}

#[test]
fn deleted_entries_and_the_end_mark_are_passed_over() {
    let first = 4 + usize::try_from(u32::from_be_bytes(MIT[2..6].try_into().unwrap())).unwrap();
    let mut deleted = MIT.to_vec();
    let length = i32::try_from(first - 4).unwrap();
    deleted[2..6].copy_from_slice(&(-length).to_be_bytes());
    deleted[6..2 + first].fill(0);
    deleted.extend_from_slice(&[0; 20]);
    let keytab = Keytab::parse(&deleted).unwrap();
    assert_eq!(keytab.entries(), &Keytab::parse(MIT).unwrap().entries()[1..]);
}

#[test]
fn short_and_long_key_versions() {
    // Without the long one, as ktpass writes; with one of 0; with more behind it, as Heimdal writes.
    let whole = created("alice@CORP.EXAMPLE", 5, PASSWORD).to_bytes().unwrap();
    let body = &whole[6..whole.len() - 4];
    for (tail, kvno) in
        [(&[][..], 5), (&[0, 0, 0], 5), (&[0; 4], 5), (&[0, 0, 1, 5], 261), (&[0, 0, 1, 5, 0, 0, 0, 1], 261)]
    {
        let size = u32::try_from(body.len() + tail.len()).unwrap().to_be_bytes();
        let keytab = Keytab::parse(&[&[5, 2][..], &size, body, tail].concat()).unwrap();
        assert_eq!(keytab.entries()[0].kvno, kvno);
    }
}

#[test]
fn nothing_shows_a_key() {
    let mut keytab = created("alice@CORP.EXAMPLE", 1, PASSWORD);
    keytab.entries[0].key = Zeroizing::new(b"MARKER-OF-A-KEY-MARKER-OF-A-KEY!".to_vec());
    let numbers = format!("{:?}", &keytab.entries[0].key[..8]);
    let shown = format!("{keytab:?} {:#?}", keytab.entries()[0]);
    assert!(!shown.contains("MARKER") && !shown.contains(numbers.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn a_rotation_keeps_the_older_versions() {
    let mut keytab = created("alice@CORP.EXAMPLE", 1, "old");
    let add = |keytab: &mut Keytab, kvno, password| {
        keytab.add(created("alice@CORP.EXAMPLE", kvno, password).entries[0].clone())
    };
    assert_eq!(add(&mut keytab, 2, "new"), Added::New);
    assert_eq!(add(&mut keytab, 2, "new"), Added::Same);
    assert_eq!(add(&mut keytab, 2, "newer"), Added::Replaced);
    assert_eq!(keytab.kvnos("alice@CORP.EXAMPLE"), [2, 1]);
    let old = keytab.only("alice@CORP.EXAMPLE", Some(1));
    assert!(
        old.entries().len() == 1 && old.entries()[0].is_same_key(&created("alice@CORP.EXAMPLE", 1, "old").entries[0])
    );
    assert!(keytab.only("bob@CORP.EXAMPLE", None).entries().is_empty());
}

#[test]
fn encryption_types_have_several_names() {
    for (text, number) in [
        ("aes256-cts-hmac-sha1-96", 18),
        ("AES256-SHA1", 18),
        ("aes256-cts", 18),
        ("aes128-sha1", 17),
        ("aes256-sha2", 20),
        ("aes128-cts-hmac-sha256-128", 19),
    ] {
        assert_eq!(parse_enctype(text).unwrap(), number);
    }
    for (text, why) in
        [("rc4-hmac", "RC4"), ("RC4-HMAC-NT", "RC4"), ("des-cbc-crc", "aes256-sha1"), ("aes512", "not known")]
    {
        let error = parse_enctype(text).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(text), "{error}");
    }
    for number in CREATED_ENCTYPES {
        assert_eq!(parse_enctype(enctype_name(number).unwrap()).unwrap(), number);
    }
}

#[test]
fn principals_need_a_realm_and_a_name() {
    let principal = parse_principal("HTTP/web", Some("CORP.EXAMPLE")).unwrap();
    assert_eq!(
        (principal.components.as_slice(), principal.realm.as_str()),
        (&["HTTP".to_owned(), "web".to_owned()][..], "CORP.EXAMPLE")
    );
    assert_eq!(parse_principal("alice\\@corp.example@CORP.EXAMPLE", None).unwrap().components, ["alice@corp.example"]);
    for text in ["alice", "@R", "alice@", "a//b@R", "", "alice@corp@R", "alice@R\\", &format!("{}@R", "a/".repeat(20))]
    {
        assert!(parse_principal(text, None).is_err(), "{text}");
    }
}

#[test]
fn files_are_for_their_owner_and_never_lost_by_mistake() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.keytab");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let (first, second) = (created("alice@CORP.EXAMPLE", 1, "a"), created("alice@CORP.EXAMPLE", 2, "b"));
    first.write(&path, Existing::Keep).unwrap();
    assert_eq!(mode(), 0o600);
    assert!(matches!(second.write(&path, Existing::Keep), Err(KeytabError::Exists(_))));
    assert_eq!(Keytab::read(&path).unwrap(), first);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    second.write(&path, Existing::Replace).unwrap();
    assert_eq!((mode(), Keytab::read(&path).unwrap()), (0o640, second));
    // Behind a link the file is replaced, not the link.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    first.write(&link, Existing::Replace).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Keytab::read(&path).unwrap(), first);
    assert!(first.write(&link, Existing::Keep).is_err());
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "something was left behind: {names:?}");
}

#[test]
fn files_are_bounded_and_named_in_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    std::fs::write(&path, vec![0; MAX_BYTES + 1]).unwrap();
    let error = Keytab::read(&path).unwrap_err();
    assert!(matches!(&error, KeytabError::File { source, .. } if matches!(**source, KeytabError::TooLarge)), "{error}");
    std::fs::write(&path, b"text").unwrap();
    assert!(Keytab::read(&path).unwrap_err().to_string().contains("large"));
    assert!(matches!(Keytab::read(directory.path()), Err(KeytabError::Read { .. })));
    assert!(matches!(Keytab::read(&directory.path().join("none")), Err(KeytabError::Read { .. })));
    assert!(matches!(
        Keytab::default().write(&directory.path().join("no/such/place"), Existing::Keep),
        Err(KeytabError::Write { .. })
    ));
}

fn entries() -> impl Strategy<Value = Entry> {
    let key = prop_oneof![
        vec(any::<u8>(), 16).prop_map(|key| (17, key)),
        vec(any::<u8>(), 32).prop_map(|key| (20, key)),
        vec(any::<u8>(), 1..300).prop_map(|key| (-137, key)),
    ];
    (vec("\\PC{1,12}|[/@\\\\\\n\\t\u{8}\u{0}]{1,4}", 1..5), "\\PC{1,12}", any::<i32>(), any::<u32>(), any::<u32>(), key)
        .prop_map(|(components, realm, name_type, kvno, timestamp, (enctype, key))| Entry {
            principal: display(&components, &realm),
            realm,
            components,
            name_type,
            kvno,
            enctype,
            timestamp,
            key: Zeroizing::new(key),
        })
}

#[test]
fn a_pipe_that_nobody_writes_into_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keytab");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = Keytab::read_bytes(&path).unwrap_err();
    assert!(matches!(&error, KeytabError::Read { source, .. } if source.to_string() == "it is a pipe"), "{error:?}");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(entries in vec(entries(), 0..8)) {
        let keytab = Keytab { entries };
        let bytes = keytab.to_bytes().unwrap();
        prop_assert_eq!(Keytab::parse(&bytes).unwrap(), keytab);
    }

    #[test]
    fn principals_are_read_as_they_are_shown(entry in entries()) {
        let principal = parse_principal(&entry.principal, None).unwrap();
        prop_assert_eq!((principal.components, principal.realm), (entry.components, entry.realm));
    }

    #[test]
    fn any_bytes_are_a_keytab_or_an_error(data in vec(any::<u8>(), 0..200)) {
        let _ = Keytab::parse(&[&[5, 2][..], &data].concat());
    }
}

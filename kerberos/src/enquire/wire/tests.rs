use super::*;

fn error(code: i64, time: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut fields = vec![
        of(context(0), &[der::integer(5)]),
        of(context(1), &[der::integer(30)]),
        // MIT's KDC repeats a time of the client, with microseconds.
        of(context(2), &[value(der::GENERALIZED_TIME, b"19700101000000Z")]),
        of(context(3), &[der::integer(0)]),
        of(context(4), &[value(der::GENERALIZED_TIME, time.as_bytes())]),
        of(context(5), &[der::integer(123_456)]),
        of(context(6), &[der::integer(code)]),
        of(context(9), &[value(der::GENERAL_STRING, b"CORP.EXAMPLE")]),
        of(context(11), &[value(der::GENERAL_STRING, b"NEEDED_PREAUTH\0")]),
    ];
    fields.extend(data.map(|data| of(context(12), &[value(der::OCTET_STRING, data)])));
    value(application(30), &of(der::SEQUENCE, &fields))
}

fn piece(kind: i64, content: &[u8]) -> Vec<u8> {
    of(der::SEQUENCE, &[of(context(1), &[der::integer(kind)]), of(context(2), &[value(der::OCTET_STRING, content)])])
}

#[test]
fn times_are_those_of_the_calendar() {
    for (text, unix) in [
        ("19700101000000Z", 0),
        ("20000229235959Z", 951_868_799),
        ("20230315162653Z", 1_678_897_613),
        ("20240301000000Z", 1_709_251_200),
        ("20991231235959Z", 4_102_444_799),
    ] {
        assert_eq!(unix_time(text.as_bytes()).unwrap(), unix, "{text}");
        assert_eq!(kerberos_time(unix), text);
    }
    for day in (-1000..80_000).step_by(13) {
        assert_eq!(unix_time(kerberos_time(day * 86_400 + 3_661).as_bytes()).unwrap(), day * 86_400 + 3_661);
    }
    for text in ["", "20230315162653", "20231315162653Z", "2023031516265 Z", "20230315162653Z0"] {
        assert!(unix_time(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn an_error_tells_the_clock_and_the_salts() {
    let entry = |enctype: i64, salt: &[u8]| {
        of(
            der::SEQUENCE,
            &[of(context(0), &[der::integer(enctype)]), of(context(1), &[value(der::GENERAL_STRING, salt)])],
        )
    };
    let list = of(der::SEQUENCE, &[entry(18, b"CORP.EXAMPLEAlice"), entry(23, b"")]);
    let data = of(der::SEQUENCE, &[piece(136, b""), piece(19, &list), piece(2, b"")]);
    let reply = Reply::parse(&error(25, "20230315162653Z", Some(&data)), 1_678_897_013).unwrap();
    assert_eq!((reply.code, reply.ahead, reply.status), (Some(25), Some(600), None));
    assert_eq!(reply.text.as_deref(), Some("NEEDED_PREAUTH"));
    assert_eq!(reply.keys.iter().map(|key| key.enctype).collect::<Vec<_>>(), [18, 23]);
    assert_eq!(reply.salt_text().as_deref(), Some("CORP.EXAMPLEAlice"));
    assert_eq!(reply.offered, [136, 19, 2]);
}

#[test]
fn active_directory_says_why_an_account_is_revoked() {
    let extended = [&0xC000_0234_u32.to_le_bytes()[..], &[0; 4], &1_u32.to_le_bytes()].concat();
    // As Windows sends it, and as Samba does.
    for data in [piece(3, &extended), of(der::SEQUENCE, &[piece(3, &extended)])] {
        let reply = Reply::parse(&error(18, "20230315162653Z", Some(&data)), 1_678_897_613).unwrap();
        assert_eq!((reply.code, reply.ahead, reply.status), (Some(18), Some(0), Some(0xC000_0234)));
    }
    // Data that cannot be read does not hide the error.
    let reply = Reply::parse(&error(18, "20230315162653Z", Some(b"\x30\x7f")), 1_678_897_613).unwrap();
    assert_eq!((reply.code, reply.status), (Some(18), None));
}

#[test]
fn other_answers_are_refused() {
    for bytes in [&b""[..], b"HTTP/1.1 400", b"\x7e\x00", b"\x7e\x02\x30\x00", b"\x6d\x02\x30\x00"] {
        assert!(Reply::parse(bytes, 0).is_err(), "{bytes:?}");
    }
    let whole = error(25, "20230315162653Z", None);
    for end in 0..whole.len() {
        assert!(Reply::parse(&whole[..end], 0).is_err(), "{end}");
    }
}

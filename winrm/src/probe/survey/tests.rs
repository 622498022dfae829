use std::time::{Duration, SystemTime};

use super::*;

fn http(text: &str) -> HttpAnswer {
    match Greeting::read(text.as_bytes(), true) {
        Greeting::Http(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_answer_of_http_sys_is_known() {
    // As curl -I shows it of a real host.
    let answer = http(
        "HTTP/1.1 404 Not Found\r\nContent-Length: 315\r\nContent-Type: text/html; charset=us-ascii\r\n\
         Server: Microsoft-HTTPAPI/2.0\r\nDate: Wed, 15 Mar 2023 16:47:03 GMT\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.is_http_sys());
    assert_eq!(answer.status, 404);
    assert_eq!(answer.date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_678_898_823)));
    assert!(answer.offered.is_empty());
}

#[test]
fn what_is_offered_is_read_from_all_fields() {
    let answer = http(
        "HTTP/1.1 401 \r\nServer: Microsoft-HTTPAPI/2.0\r\nWWW-Authenticate: Negotiate\r\nwww-authenticate: Kerberos\r\n\
         WWW-Authenticate: Basic realm=\"WSMAN\"\r\nWWW-Authenticate: CredSSP\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(answer.offered, ["Negotiate", "Kerberos", "Basic", "CredSSP"]);
    assert!(answer.offers("basic") && !answer.offers("NTLM"));
}

#[test]
fn other_greetings_are_told_for_what_they_are() {
    let read = |bytes: &[u8], closed| Greeting::read(bytes, closed);
    assert_eq!(read(b"", true), Greeting::Closed);
    assert_eq!(read(b"", false), Greeting::Silence);
    assert_eq!(read(&[0x15, 3, 3, 0, 2, 2, 70], true), Greeting::Tls);
    assert_eq!(read(b"SSH-2.0-OpenSSH_9.2p1\r\nmore", false), Greeting::Other("SSH-2.0-OpenSSH_9.2p1".to_owned()));
    assert_eq!(read(b"\x1b[2J\0\xff", false), Greeting::Other("?[2J?\u{fffd}".to_owned()));
    // Cut off after the first line, and after a field.
    assert_eq!(http("HTTP/1.1 200 OK\r\n").status, 200);
    assert_eq!(
        http("HTTP/1.0 302 Found\r\nLocation: https://h/\r\nVia: 1.1 p").location.as_deref(),
        Some("https://h/")
    );
    // More fields than are read leave the status.
    let many = format!("HTTP/1.1 404 x\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(http(&many).status, 404);
}

#[test]
fn a_head_is_complete_at_its_empty_line_and_everything_else_at_once() {
    for (bytes, complete) in [
        (&b"HTTP/1.1 404 x\r\nA: b\r\n"[..], false),
        (b"HTTP/1.1 404 x\r\nA: b\r\n\r\n", true),
        (b"HT", false),
        (b"SSH-2.0", true),
        (b"\x15\x03\x03", true),
    ] {
        assert_eq!(greeting::is_complete(bytes), complete, "{bytes:?}");
    }
}

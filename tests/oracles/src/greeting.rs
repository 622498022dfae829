//! The first bytes that a port says.

use lictor_winrm::probe::survey::Greeting;

/// The first byte says whether the peer closed the connection; the rest is what it said.
///
/// - What is kept for people is bounded and steers no terminal; schemes are bounded in number.
/// - Nothing is made of nothing, and something is never taken for nothing.
/// - HTTP is what begins with its version; a status that was read stays the same when more comes.
pub fn greeting(data: &[u8]) {
    let Some((first, said)) = data.split_first() else { return };
    let greeting = Greeting::read(said, first % 2 == 1);
    let silent = matches!(greeting, Greeting::Closed | Greeting::Silence);
    assert_eq!(silent, said.is_empty(), "{greeting:?}");
    let check = |text: &str| {
        assert!(text.chars().count() <= 200 && !text.chars().any(char::is_control), "{text:?}");
    };
    match &greeting {
        Greeting::Other(line) => check(line),
        Greeting::Tls => assert!(matches!(said, [0x15 | 0x16, 3, ..])),
        Greeting::Http(answer) => {
            let begin = said.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or_default();
            assert!(said.get(begin..).is_some_and(|rest| rest.starts_with(b"HTTP/1.")), "{answer:?}");
            assert!(answer.status < 1000 && answer.offered.len() <= 32);
            let texts = [&answer.server, &answer.via, &answer.location];
            texts.into_iter().flatten().chain(&answer.offered).for_each(|text| check(text));
            if said.ends_with(b"\r\n\r\n") {
                let longer = [said, b"<html>"].concat();
                assert!(
                    matches!(Greeting::read(&longer, true), Greeting::Http(again) if again.status == answer.status)
                );
            }
        }
        Greeting::Closed | Greeting::Silence => {}
    }
}

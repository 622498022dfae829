//! The console: its code page, and the small programs that print something about the machine.

use std::time::Duration;

use super::Session;

/// How text becomes bytes and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodePage {
    /// 65001.
    Utf8,
    /// 437, the default of a console in the United States.
    Oem437,
}

/// The upper half of code page 437.
const OEM_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

impl CodePage {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Utf8 => 65001,
            Self::Oem437 => 437,
        }
    }

    /// Characters that the code page lacks become question marks.
    pub(crate) fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Oem437 => text
                .chars()
                .map(|character| match u8::try_from(character) {
                    Ok(byte) if byte < 0x80 => byte,
                    _ => OEM_437.chars().position(|own| own == character).map_or(b'?', |index| 0x80 + index as u8),
                })
                .collect(),
        }
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Oem437 => bytes
                .iter()
                .map(|byte| match byte {
                    0..0x80 => char::from(*byte),
                    high => OEM_437.chars().nth(usize::from(high - 0x80)).unwrap_or('?'),
                })
                .collect(),
        }
    }
}

pub(super) async fn hostname(session: &Session) -> u32 {
    session.print(&format!("{}\r\n", session.machine.hostname)).await;
    0
}

pub(super) async fn whoami(session: &Session) -> u32 {
    session.print(&format!("{}\r\n", account(session))).await;
    0
}

/// `domain\name` in lower case, as whoami writes it.
pub(super) fn account(session: &Session) -> String {
    let user = session.user.to_lowercase();
    if user.contains('\\') { user } else { format!("{}\\{user}", session.machine.hostname.to_lowercase()) }
}

/// `ping -n COUNT HOST`: one answer at once and another one every second.
pub(super) async fn ping(session: &Session, arguments: &[String]) -> u32 {
    let mut count = 4;
    let mut host = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-n" | "/n" => count = words.next().and_then(|word| word.parse().ok()).unwrap_or(count),
            "-w" | "/w" | "-l" | "/l" => _ = words.next(),
            option if option.starts_with('-') => {}
            name => host = Some(name.to_owned()),
        }
    }
    let Some(host) = host else {
        session.print("\r\nUsage: ping [-n count] target_name\r\n").await;
        return 1;
    };
    session.print(&format!("\r\nPinging {host} with 32 bytes of data:\r\n")).await;
    for turn in 0..count {
        if turn > 0 {
            session.sleep(Duration::from_secs(1)).await;
        }
        session.print(&format!("Reply from {host}: bytes=32 time<1ms TTL=128\r\n")).await;
    }
    session
        .print(&format!(
            "\r\nPing statistics for {host}:\r\n    Packets: Sent = {count}, Received = {count}, Lost = 0 (0% loss),\r\n\
             Approximate round trip times in milli-seconds:\r\n    Minimum = 0ms, Maximum = 0ms, Average = 0ms\r\n"
        ))
        .await;
    0
}

/// `timeout /t SECONDS`: refuses a redirected input as the real one does, and a remote shell always has one.
pub(super) async fn timeout(session: &Session, _arguments: &[String]) -> u32 {
    session.print_error("ERROR: Input redirection is not supported, exiting the process immediately.\r\n").await;
    1
}

/// `findstr [/i] [/v] [/c:]TEXT [FILE]`: literal text; several words mean any of them.
pub(super) async fn findstr(session: &Session, arguments: &[String]) -> u32 {
    let (mut ignore_case, mut invert) = (false, false);
    let mut wanted: Option<Vec<String>> = None;
    let mut files = Vec::new();
    for argument in arguments {
        match argument.to_lowercase().as_str() {
            "/i" => ignore_case = true,
            "/v" => invert = true,
            "/l" | "/r" | "/n" => {}
            option if option.starts_with("/c:") => wanted = Some(vec![argument[3..].to_owned()]),
            _ if wanted.is_none() => {
                wanted = Some(argument.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
            }
            _ => files.push(argument),
        }
    }
    let Some(wanted) = wanted else {
        session.print_error("FINDSTR: Bad command line\r\n").await;
        return 2;
    };
    let fold = |text: &str| if ignore_case { text.to_lowercase() } else { text.to_owned() };
    let wanted: Vec<String> = wanted.iter().map(|word| fold(word)).collect();
    let mut found = false;
    let matches = |line: &str| wanted.iter().any(|word| fold(line).contains(word.as_str())) != invert;
    if files.is_empty() {
        while let Some(line) = session.read_line().await {
            if matches(&line) {
                found = true;
                session.print(&format!("{line}\r\n")).await;
            }
        }
    }
    for file in files {
        let Some(content) = session.machine.read(&session.path(file)) else {
            session.print_error(&format!("FINDSTR: Cannot open {file}\r\n")).await;
            continue;
        };
        for line in session.code_page.decode(&content).lines().filter(|line| matches(line)) {
            found = true;
            session.print(&format!("{line}\r\n")).await;
        }
    }
    u32::from(!found)
}

/// `more`: standard input or a file, unchanged.
pub(super) async fn more(session: &Session, arguments: &[String]) -> u32 {
    if let Some(file) = arguments.iter().find(|argument| !argument.starts_with('/')) {
        return type_file(session, file).await;
    }
    while let Some(data) = session.read(64 * 1024).await {
        session.write(&session.stdout, &data).await;
    }
    0
}

/// `type FILE`.
pub(super) async fn type_file(session: &Session, file: &str) -> u32 {
    match session.machine.read(&session.path(file.trim_matches('"'))) {
        Some(content) => {
            session.write(&session.stdout, &content).await;
            0
        }
        None => {
            session.print_error("The system cannot find the file specified.\r\n").await;
            1
        }
    }
}

pub(super) async fn chcp(session: &Session) -> u32 {
    session.print(&format!("Active code page: {}\r\n", session.code_page.number())).await;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_pages_encode_and_decode() {
        assert_eq!(CodePage::Utf8.encode("ü€"), "ü€".as_bytes());
        assert_eq!(CodePage::Oem437.encode("aü€"), vec![b'a', 0x81, b'?']);
        assert_eq!(CodePage::Oem437.decode(&[b'a', 0x81, 0xff]), "aü\u{a0}");
        assert_eq!(OEM_437.chars().count(), 128);
    }
}

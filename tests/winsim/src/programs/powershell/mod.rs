//! The imitation of powershell.exe: its command line, its streams and exit codes, and a handful of cmdlets.
//!
//! Faithful where a WinRM client can tell: Write-Host ends lines with LF and the output stream with CRLF, errors are CLIXML after
//! `-EncodedCommand` unless `-OutputFormat Text` is given, a terminating error ends with 1 and `exit n` with n.

mod runspace;
mod streams;
mod syntax;
mod value;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use self::runspace::Runspace;
use super::{Session, command_line};

/// powershell.exe with its arguments.
pub(super) async fn program(session: Session, arguments: &str) -> u32 {
    let mut words = command_line::split(arguments).into_iter();
    let (mut script, mut encoded, mut text_output, mut explicit, mut profile) = (None, false, false, false, true);
    while let Some(word) = words.next() {
        let lower = word.to_lowercase();
        match lower.strip_prefix(['-', '/']).unwrap_or("") {
            "noprofile" | "nop" => profile = false,
            "nologo" | "noninteractive" | "noni" | "sta" | "mta" | "noexit" => {}
            "executionpolicy" | "ep" | "ex" | "version" | "windowstyle" | "w" | "inputformat" | "configurationname" => {
                _ = words.next()
            }
            "outputformat" | "of" | "o" => {
                text_output = words.next().is_some_and(|format| format.eq_ignore_ascii_case("text"));
                explicit = true;
            }
            "encodedcommand" | "enc" | "ec" | "e" | "encoded" => {
                let Some(decoded) = words.next().and_then(|word| decode_utf16(&word)) else {
                    session.print_error("Cannot process the command because the value specified with -EncodedCommand is not properly encoded. \r\n").await;
                    return 1;
                };
                (script, encoded) = (Some(decoded), true);
            }
            "command" | "c" => script = Some(words.by_ref().collect::<Vec<_>>().join(" ")),
            _ => script = Some(std::iter::once(word).chain(words.by_ref()).collect::<Vec<_>>().join(" ")),
        }
    }
    let clixml = if explicit { !text_output } else { encoded };
    let mut runspace = Runspace::new(session, clixml);
    if profile && let Some(code) = runspace.profile().await {
        return code;
    }
    match script {
        Some(text) if text.contains("[Console]::In.ReadToEnd()") && text.contains("FromBase64String") => {
            runspace.bootstrapped().await
        }
        Some(text) if text != "-" => runspace.main(&text).await,
        // `-Command -`, or nothing at all: the script is standard input.
        _ => {
            let input = runspace.session.read_all().await;
            let text = runspace.session.code_page.decode(&input);
            runspace.main(&text).await
        }
    }
}

fn decode_utf16(encoded: &str) -> Option<String> {
    let bytes = BASE64.decode(encoded).ok().filter(|bytes| bytes.len() % 2 == 0)?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).ok()
}

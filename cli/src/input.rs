//! What comes in from files, standard input and the environment: bounded, and secrets into types that zero themselves.

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use bytes::Bytes;
use lictor_winrm::target::Secret;
use rustix::termios::{self, LocalModes, OptionalActions};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::Failure;

/// Reads a file, or standard input when the path is `-`, up to `limit` bytes.
pub(crate) fn bytes(what: &str, path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let data = if path == Path::new("-") {
        read(io::stdin().lock(), limit)
    } else {
        std::fs::File::open(path).and_then(|file| read(file, limit))
    };
    data.map_err(|error| Failure::unreadable(what, path, &error))
}

/// Standard input as it comes. A thread of its own reads it, and ends with the process: a read cannot be interrupted. It reads
/// no further while nobody takes the pieces.
pub(crate) fn stream() -> mpsc::Receiver<Result<Bytes, Failure>> {
    let (sender, pieces) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(Failure::unreadable("standard input", Path::new("-"), &error)),
            };
            let last = piece.is_err();
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    pieces
}

/// Like [`bytes()`], for text in UTF-8. A byte order mark is cut off.
pub(crate) fn text(what: &str, path: &Path, limit: usize) -> Result<String, Failure> {
    let text = String::from_utf8(bytes(what, path, limit)?).map_err(|error| {
        Failure::unreadable(what, path, &io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A secret from a file, else from an environment variable. Nothing when neither is there.
pub(crate) fn secret(what: &str, file: Option<&Path>, variable: &str) -> Result<Option<Secret>, Failure> {
    let Some(path) = file else {
        return match std::env::var(variable) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => Ok(Some(Secret::new(value))),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(Failure::usage(
                format!("the environment variable {variable} is not UTF-8"),
                "Use a file in UTF-8 instead.",
            )),
        };
    };
    let data = Zeroizing::new(bytes(what, path, MAX_SECRET_BYTES)?);
    let text = std::str::from_utf8(&data)
        .map_err(|_| Failure::unreadable(what, path, &io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(Failure::unreadable(what, path, &io::Error::new(io::ErrorKind::InvalidData, "it is empty")));
    }
    Ok(Some(Secret::new(text.to_owned())))
}

/// A value of any bytes as it stands, up to `limit` of them, from a file, or from standard input when the path is `-`.
pub(crate) fn value(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let data = if path == Path::new("-") {
        whole(io::stdin().lock(), limit)
    } else {
        std::fs::File::open(path).and_then(|file| whole(file, limit))
    };
    data.map_err(|error| Failure::unreadable("value", path, &error))
}

/// Like [`read`], for secrets: the buffer never grows, so that no copy is left behind.
fn whole(mut reader: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut data = Zeroizing::new(vec![0; limit + 1]);
    let mut length = 0;
    while let Some(rest) = data.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > limit {
        return Err(too_large(limit));
    }
    data.truncate(length);
    Ok(data)
}

/// Asks for a secret at the terminal, which does not show it. Nothing when standard input is no terminal.
pub(crate) fn prompt(question: &str) -> Result<Option<Secret>, Failure> {
    let stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let failed = |error: io::Error| Failure::local(format!("failed to ask for the password: {error}"));
    let before = termios::tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
    let mut quiet = before.clone();
    // Without signals too: Ctrl-C must not leave a terminal behind that shows nothing.
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    termios::tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(|error| failed(error.into()))?;
    let line = typed(stdin.bytes());
    let restored = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    let _ = writeln!(stderr);
    restored.map_err(|error| failed(error.into()))?;
    match line.map_err(failed)? {
        Some(line) => match std::str::from_utf8(&line) {
            Ok("") => Err(Failure::usage("the password is empty", "Type it, or give --password-file FILE.")),
            Ok(text) => Ok(Some(Secret::new(text.to_owned()))),
            Err(_) => Err(Failure::usage("what was typed is not UTF-8", "Give --password-file FILE.")),
        },
        None => Err(Failure::own(
            Exit::CANCELLED,
            "local",
            "local.interrupted",
            "no password was given".to_owned(),
            String::new(),
            String::new(),
        )),
    }
}

/// One line, byte by byte as it is typed. Nothing when it was given up.
fn typed(bytes: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const KILL: u8 = 21;
    // Never grows, so that no copy is left behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_TYPED_BYTES));
    for byte in bytes {
        match byte? {
            b'\r' | b'\n' => return Ok(Some(line)),
            INTERRUPT | END => return Ok(None),
            KILL => line.clear(),
            // One character, which may be several bytes.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {},
            _ if line.len() == MAX_TYPED_BYTES => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is too long"));
            }
            byte => line.push(byte),
        }
    }
    Ok(None)
}

fn read(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut data)?;
    if data.len() > limit {
        return Err(too_large(limit));
    }
    Ok(data)
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"))
}

/// Largest piece of streamed input, and how many wait.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;

/// Far above every password and token, and far below what would hurt.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Longest password that is typed.
const MAX_TYPED_BYTES: usize = 1024;

/// Largest file of certificates.
pub(crate) const MAX_PEM_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_cut_off_a_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (content, expected) in [("pässword\n", "pässword"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret("password", Some(&path), "UNUSED").unwrap().unwrap().expose(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(secret("password", Some(&path), "UNUSED").is_err());
    }

    #[test]
    fn typing_can_be_corrected_and_given_up() {
        let line = |keys: &[u8]| typed(keys.iter().copied().map(Ok)).unwrap().map(|line| line.to_vec());
        assert_eq!(line(b"abc\rrest"), Some(b"abc".to_vec()));
        assert_eq!(line("pä\u{8}ss\n".as_bytes()), Some(b"pss".to_vec()));
        assert_eq!(line(b"\x7fwrong\x15right\n"), Some(b"right".to_vec()));
        assert_eq!(line(b"abc\x03"), None);
        assert_eq!(line(b"abc"), None);
        assert!(typed(std::iter::repeat_with(|| Ok(b'x'))).is_err());
    }

    #[test]
    fn files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("input");
        std::fs::write(&path, [0; 11]).unwrap();
        assert_eq!(bytes("input", &path, 11).unwrap().len(), 11);
        assert!(bytes("input", &path, 10).unwrap_err().message.contains("larger than 10 bytes"));
        assert_eq!(value(&path, 11).unwrap().as_slice(), [0; 11]);
        assert!(value(&path, 10).unwrap_err().message.contains("larger than 10 bytes"));
        assert!(text("input", Path::new("/nonexistent/file"), 10).unwrap_err().message.contains("/nonexistent/file"));
    }

    #[test]
    fn text_is_utf8_without_byte_order_mark() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        std::fs::write(&path, "\u{feff}exit 37").unwrap();
        assert_eq!(text("script", &path, 100).unwrap(), "exit 37");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(text("script", &path, 100).is_err());
    }
}

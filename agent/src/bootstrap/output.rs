//! The bootstrap script's output on its way to the log: secrets masked, cut into lines, bounded per line and in all.
//!
//! Masking comes first, so that no cut can lay open half of a secret. It must never hold more than a line. Called by
//! `stage` while the script runs, and afterwards for what it left running.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lictor_winrm::mask::{Masker, Patterns};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How much may still be logged.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    /// Bytes that were not logged.
    pub(super) dropped: u64,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: bytes, dropped: 0 }
    }

    fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// One of the script's two streams.
pub(super) struct Lines {
    name: &'static str,
    masker: Masker,
    line: Vec<u8>,
    /// Bytes of the line that do not fit.
    cut: usize,
    /// What bash puts before its messages: where it read the script from.
    path: String,
}

impl Lines {
    pub(super) fn new(name: &'static str, patterns: Arc<Patterns>, path: String) -> Self {
        Self { name, masker: Masker::new(patterns), line: Vec::new(), cut: 0, path }
    }

    /// Takes bytes, and logs the lines that they end.
    pub(super) fn push(&mut self, bytes: Bytes, budget: &mut Budget, log: &mut impl FnMut(&'static str, &str)) {
        if budget.is_spent() {
            budget.dropped += bytes.len() as u64;
            return;
        }
        let Self { name, masker, line, cut, path } = self;
        masker.push(bytes, &mut |piece| cut_up(line, cut, &piece, budget, &mut |text| log(name, &shown(text, path))));
    }

    /// Logs what is left.
    pub(super) fn finish(mut self, budget: &mut Budget, log: &mut impl FnMut(&'static str, &str)) {
        let Self { name, masker, line, cut, path } = &mut self;
        masker.finish(&mut |piece| cut_up(line, cut, &piece, budget, &mut |text| log(name, &shown(text, path))));
        if !line.is_empty() {
            end(line, cut, budget, &mut |text| log(name, &shown(text, path)));
        }
    }
}

fn cut_up(line: &mut Vec<u8>, cut: &mut usize, piece: &[u8], budget: &mut Budget, log: &mut impl FnMut(&str)) {
    for part in piece.split_inclusive(|byte| *byte == b'\n') {
        let text = part.strip_suffix(b"\n").unwrap_or(part);
        let fits = text.len().min(MAX_LINE.saturating_sub(line.len()));
        line.extend_from_slice(text.get(..fits).unwrap_or_default());
        *cut += text.len() - fits;
        if text.len() < part.len() {
            end(line, cut, budget, log);
        }
    }
}

fn end(line: &mut Vec<u8>, cut: &mut usize, budget: &mut Budget, log: &mut impl FnMut(&str)) {
    let length = line.len();
    if budget.is_spent() {
        budget.dropped += (length + *cut) as u64;
    } else {
        // Lines cost something even when they are empty.
        budget.left = budget.left.saturating_sub(length + PER_LINE);
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if *cut > 0 {
            log(&format!("{text} [{cut} bytes more]"));
        } else {
            log(&text);
        }
    }
    line.clear();
    *cut = 0;
}

/// Fit for a log: no control characters, and the script's name instead of a descriptor.
fn shown<'t>(text: &'t str, path: &str) -> Cow<'t, str> {
    let named = match text.strip_prefix(path) {
        Some(rest) if !path.is_empty() => Cow::Owned(format!("INIT_SCRIPT{rest}")),
        _ => Cow::Borrowed(text),
    };
    if named.chars().any(is_unseen) {
        let clean = |c: char| {
            if c == '\t' {
                ' '
            } else if is_unseen(c) {
                '\u{fffd}'
            } else {
                c
            }
        };
        return Cow::Owned(named.chars().map(clean).collect());
    }
    named
}

/// Control characters, and marks of text direction, with which a line can lie.
fn is_unseen(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Logs a line.
pub(super) fn log(stream: &'static str, line: &str) {
    tracing::info!(stream, line, "Output of the bootstrap script");
}

/// What a secret looks like in the output of a shell: as it is, and quoted as `set -x` and `printf %q` do it.
pub(super) fn forms<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Zeroizing<Vec<String>> {
    let mut forms = Zeroizing::new(Vec::new());
    for secret in secrets {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,%+=@".contains(c) || !c.is_ascii();
        if secret.contains('\'') {
            forms.push(secret.replace('\'', r"'\''"));
        }
        if !secret.chars().all(plain) {
            let escape = |out: &mut String, c: char| {
                if !plain(c) {
                    out.push('\\');
                }
                out.push(c);
            };
            let mut escaped = String::with_capacity(2 * secret.len());
            secret.chars().for_each(|c| escape(&mut escaped, c));
            forms.push(escaped);
            let in_double: Vec<char> = "\"\\$`".chars().collect();
            let mut double = String::with_capacity(2 * secret.len());
            for c in secret.chars() {
                if in_double.contains(&c) {
                    double.push('\\');
                }
                double.push(c);
            }
            forms.push(double);
        }
        // `$'...'`, for what has control characters or bytes that are no text in the shell's locale.
        if secret.chars().any(|c| c.is_control() || !c.is_ascii()) {
            let mut octal = String::new();
            for byte in secret.bytes() {
                match byte {
                    b'\n' => octal.push_str("\\n"),
                    b'\t' => octal.push_str("\\t"),
                    b'\'' | b'\\' => octal.extend(['\\', char::from(byte)]),
                    0x20..0x7f => octal.push(char::from(byte)),
                    _ => octal.push_str(&format!("\\{byte:03o}")),
                }
            }
            forms.push(octal);
        }
        forms.push(secret.to_owned());
    }
    forms
}

/// Logs what the script left running prints, until `stop` or until nobody can print any more. Never lets it wait for
/// us.
pub(super) async fn follow(
    name: &'static str,
    mut pipe: pipe::Receiver,
    patterns: Arc<Patterns>,
    stop: CancellationToken,
) {
    let mut budget = Budget::new(PER_PERIOD);
    let mut lines = Lines {
        masker: Masker::resumed(Arc::clone(&patterns)),
        ..Lines::new(name, Arc::clone(&patterns), String::new())
    };
    let mut refill = Instant::now() + PERIOD;
    loop {
        let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
        let read = tokio::select! {
            read = pipe.read_buf(&mut buffer) => read,
            () = stop.cancelled() => break,
        };
        if !matches!(read, Ok(1..)) {
            break;
        }
        if Instant::now() >= refill {
            refill = Instant::now() + PERIOD;
            if budget.is_spent() {
                tracing::warn!(
                    stream = name,
                    bytes = budget.dropped,
                    "Output of the bootstrap script's children was not logged"
                );
                // What was passed over may have ended amid a secret.
                lines = Lines {
                    masker: Masker::resumed(Arc::clone(&patterns)),
                    ..Lines::new(name, Arc::clone(&patterns), String::new())
                };
            }
            budget = Budget::new(PER_PERIOD);
        }
        lines.push(buffer.freeze(), &mut budget, &mut log);
    }
    lines.finish(&mut budget, &mut log);
}

/// Of a line in the log.
const MAX_LINE: usize = 4096;
/// Of all that a script prints: enough for installing a dozen packages.
pub(super) const MAX_OUTPUT: usize = 1 << 20;
/// What a line costs beside its text.
const PER_LINE: usize = 16;
/// Of what it left running, in a minute.
const PER_PERIOD: usize = 64 * 1024;
const PERIOD: Duration = Duration::from_secs(60);
pub(super) const CHUNK: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(secrets: &[&str], budget: usize, chunks: &[&[u8]]) -> (Vec<String>, u64) {
        let forms = forms(secrets.iter().copied());
        let patterns = Arc::new(Patterns::new(forms.iter().map(String::as_str)));
        let mut lines = Lines::new("stdout", patterns, "/proc/7/fd/3".into());
        let mut budget = Budget::new(budget);
        let mut logged = Vec::new();
        let mut log = |_: &'static str, line: &str| logged.push(line.to_owned());
        for chunk in chunks {
            lines.push(Bytes::copy_from_slice(chunk), &mut budget, &mut log);
        }
        lines.finish(&mut budget, &mut log);
        (logged, budget.dropped)
    }

    #[test]
    fn lines_are_cut_out_of_any_chunks() {
        let (lines, _) = logged(&[], 1000, &[b"one\ntw", b"o\r\n\nthree \xff\x1b[1m\tx"]);
        assert_eq!(lines, ["one", "two", "", "three \u{fffd}\u{fffd}[1m x"]);
        let (lines, _) = logged(&[], 1000, &[b"/proc/7/fd/3: line 2: x: command not found\n"]);
        assert_eq!(lines, ["INIT_SCRIPT: line 2: x: command not found"]);
    }

    #[test]
    fn secrets_are_masked_wherever_they_are_cut() {
        for (secret, printed) in [
            ("Mark3r", "+ echo Mark3r"),
            ("Mark3r's", r"+ echo 'Mark3r'\''s'"),
            ("Mark3r $x", r"Mark3r\ \$x"),
            ("Mark3r$x", r#""Mark3r\$x""#),
            ("Mark3r", "TWFyazNy"),
            ("Mark3r ü", r"$'Mark3r \303\274'"),
        ] {
            for at in 0..printed.len() {
                let (a, b) = printed.as_bytes().split_at(at);
                let (lines, _) = logged(&[secret], 1000, &[a, b]);
                assert!(lines.concat().contains("***"), "{printed}: {lines:?}");
                assert!(!lines.concat().contains("Mark3"), "{printed}: {lines:?}");
            }
        }
    }

    #[test]
    fn long_lines_and_floods_are_cut_and_counted() {
        let (lines, _) = logged(&[], 100_000, &[&[b'x'; 5000], b"\nnext\n"]);
        assert_eq!(lines[0], format!("{} [904 bytes more]", "x".repeat(4096)));
        assert_eq!(lines[1], "next");
        let flood = b"yes\n".repeat(1000);
        let (lines, dropped) = logged(&[], 190, &[&flood, &flood]);
        assert_eq!(lines.len(), 10);
        assert!(dropped > 6000, "{dropped}");
        // A secret at the end of what a line takes is masked before it is cut.
        let mut long = vec![b'x'; 4092];
        long.extend_from_slice(b"Mark3r\n");
        let (lines, _) = logged(&["Mark3r"], 100_000, &[&long]);
        assert!(!lines[0].contains("Mark"), "{}", lines[0]);
    }
}

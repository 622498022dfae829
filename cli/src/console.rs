//! Everything this program prints: result lines, JSON, tables, streamed output, and notes on standard error.
//!
//! Streamed output is byte-exact: nothing is decoded, translated or added.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use comfy_table::Table;
use serde::Serialize;
use tokio::io::{AsyncWriteExt, Stderr, Stdout};

use crate::failure::{Failure, clean};

/// Prints text on standard output as it stands.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| unwritable(&error))
}

/// Prints one line on standard output.
pub(crate) fn print_line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Prints a value as one line of JSON on standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string(value).map_err(|error| Failure::local(format!("failed to write JSON: {error}")))?;
    print_line(&text)
}

/// Prints a note on standard error. When that is closed there is nobody to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "lictor: {text}");
}

/// Prints a failure on standard error, as text or as one line of JSON.
pub(crate) fn print_failure(failure: &Failure, json: bool) {
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: &'a Failure,
    }
    let mut stderr = io::stderr().lock();
    let _ = match serde_json::to_string(&Envelope { error: failure }) {
        Ok(text) if json => writeln!(stderr, "{text}"),
        _ => stderr.write_all(failure.to_text().as_bytes()),
    };
}

/// A table without borders: columns for eyes, and still one line per row when piped.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(cell) }));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 0 } else { 1 }, 1));
    }
    format!("{}\n", table.trim_fmt())
}

/// Standard output and standard error for streamed output.
#[derive(Debug)]
pub(crate) struct Streams {
    stdout: Stdout,
    stderr: Stderr,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self { stdout: tokio::io::stdout(), stderr: tokio::io::stderr() }
    }

    /// Writes the bytes through to whoever reads; waits while that one is slow.
    pub(crate) async fn write(&mut self, stream: Stream, data: &[u8]) -> Result<(), Failure> {
        async fn through(writer: &mut (impl AsyncWriteExt + Unpin), data: &[u8]) -> io::Result<()> {
            writer.write_all(data).await?;
            writer.flush().await
        }
        match stream {
            Stream::Stdout => through(&mut self.stdout, data).await,
            Stream::Stderr => through(&mut self.stderr, data).await,
        }
        .map_err(|error| unwritable(&error))
    }
}

/// Output kept for JSON, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    data: Vec<u8>,
    truncated: bool,
}

impl Captured {
    pub(crate) fn push(&mut self, data: &Bytes) {
        let free = MAX_CAPTURED_BYTES.saturating_sub(self.data.len());
        self.truncated |= data.len() > free;
        self.data.extend_from_slice(data.get(..free).unwrap_or(data));
    }

    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    pub(crate) fn into_text(self) -> Text {
        Text::new(self.data)
    }
}

/// Bytes in JSON: a text when they are UTF-8, else base64.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Utf8(String),
    Base64(String),
}

impl Text {
    pub(crate) fn new(data: Vec<u8>) -> Self {
        match String::from_utf8(data) {
            Ok(text) => Self::Utf8(text),
            Err(error) => Self::Base64(STANDARD.encode(error.as_bytes())),
        }
    }

    /// For a field and its `_base64` twin.
    pub(crate) fn into_fields(self) -> (Option<String>, Option<String>) {
        match self {
            Self::Utf8(text) => (Some(text), None),
            Self::Base64(text) => (None, Some(text)),
        }
    }
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::local(format!("failed to write the output: {error}"))
}

/// Most output per stream that is kept for JSON.
const MAX_CAPTURED_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_lines() {
        let text = table(
            &["name", "state"],
            [vec!["a".to_owned(), "x\u{1b}[1m\ny".to_owned()], vec!["long name".to_owned(), String::new()]],
        );
        assert_eq!(text, "NAME       STATE\na          x [1m y\nlong name  -\n");
    }

    #[test]
    fn long_cells_are_not_wrapped() {
        let text = table(&["a"], [vec!["word ".repeat(200)]]);
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn bytes_are_text_when_they_can_be() {
        assert_eq!(Text::new("grün".into()), Text::Utf8("grün".to_owned()));
        assert_eq!(Text::new(vec![0xff, 0x00]), Text::Base64("/wA=".to_owned()));
    }

    #[test]
    fn captured_output_is_bounded() {
        let mut captured = Captured::default();
        captured.push(&Bytes::from(vec![b'x'; MAX_CAPTURED_BYTES - 1]));
        assert!(!captured.truncated());
        captured.push(&Bytes::from_static(b"ab"));
        assert!(captured.truncated());
        assert_eq!(captured.data.len(), MAX_CAPTURED_BYTES);
    }
}

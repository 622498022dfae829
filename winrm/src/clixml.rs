//! The error stream of PowerShell, decoded: from `#< CLIXML` documents ([MS-PSRP] 2.2.5) to records, as they come.
//!
//! powershell.exe writes its error stream as CLIXML when it was given an encoded command: a line `#< CLIXML`, then elements
//! such as `<S S="Error">`, one for each line of an error. Other programs write plain text to the same stream, before, between
//! and after. [`Decoder`] takes bytes cut anywhere, turns elements into [`Record`]s as soon as they are whole, drops progress,
//! and hands everything else on as it is. It must never lose a byte: what is no well-formed CLIXML, or too large, passes
//! through as text, and it never keeps more than [`MAX_ELEMENT`] and a little. It does no I/O.
//!
//! [MS-PSRP]: https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-psrp/

mod element;

use bytes::{Buf as _, Bytes, BytesMut};

pub use element::unescape;

/// Largest element that is kept until it is whole. PowerShell writes an error line by line, each an element.
pub const MAX_ELEMENT: usize = 1024 * 1024;

/// Decodes one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// What was taken and not handed on: a beginning of the marker, or of a document, or an element.
    held: BytesMut,
    /// How much of `held` was looked at.
    at: usize,
    /// The beginning of the stream is missing: we may be in the middle of a document.
    torn: bool,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// What is no CLIXML, as it was. Never empty; one text may come in several pieces.
    Text(Bytes),
    /// An element.
    Record(Record),
}

/// Something that PowerShell said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// On which of its streams.
    pub kind: RecordKind,
    /// Its text. Lines of errors end with a line break, warnings and the like do not.
    pub text: String,
}

/// Streams of PowerShell that end up in its error stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Errors.
    Error,
    /// `Write-Warning`.
    Warning,
    /// `Write-Verbose`.
    Verbose,
    /// `Write-Debug`.
    Debug,
    /// `Write-Information` and `Write-Host`.
    Information,
}

impl RecordKind {
    /// Its name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Verbose => "verbose",
            Self::Debug => "debug",
            Self::Information => "information",
        }
    }
}

impl Record {
    /// As PowerShell shows it on a console, line break included. Nothing for information: PowerShell itself writes what
    /// `Write-Host` says, and information that is to be seen, to its standard output.
    #[must_use]
    pub fn shown(&self) -> String {
        let prefix = match self.kind {
            RecordKind::Information => return String::new(),
            RecordKind::Error => "",
            RecordKind::Warning => "WARNING: ",
            RecordKind::Verbose => "VERBOSE: ",
            RecordKind::Debug => "DEBUG: ",
        };
        let end = if self.text.ends_with('\n') { "" } else { "\r\n" };
        format!("{prefix}{}{end}", self.text)
    }
}

/// Where in the stream we are. In all but `Text`, `held` begins at what would have to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Outside; looking for the marker.
    #[default]
    Text,
    /// Behind the marker; looking for the first `<Objs`.
    Opening { markers: u8 },
    /// Between the elements of `<Objs>`.
    Between,
    /// In an element that began at `start`.
    Inside { start: usize, depth: usize },
    /// Behind `</Objs>`: another one may follow at once.
    Closed,
}

/// What one look at the held bytes says.
enum Step {
    /// Look again.
    Go,
    /// More is needed.
    Wait,
    /// This is no CLIXML.
    Malformed,
}

/// A piece of XML at the beginning of some bytes.
enum Token {
    /// Text of this length, without markup.
    Text(usize),
    /// A tag of this length.
    Tag(usize),
    Incomplete,
    Malformed,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder somewhere in a stream whose beginning is lost. What comes before the next document, or before the next
    /// element of the one we may be in, passes through as text.
    #[must_use]
    pub fn resumed() -> Self {
        Self { torn: true, ..Self::default() }
    }

    /// Takes the next bytes of the stream and hands on what they complete.
    pub fn push(&mut self, data: Bytes, out: &mut impl FnMut(Item)) {
        if self.state == State::Text && self.held.is_empty() && !self.torn {
            // Nearly all output: no marker, nothing held, nothing copied.
            let safe = marker_free(&data);
            if safe > 0 {
                out(Item::Text(data.slice(..safe)));
            }
            self.held.extend_from_slice(data.get(safe..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(&data);
        }
        self.run(out);
    }

    /// Hands on what is still held: the stream has ended.
    pub fn finish(&mut self, out: &mut impl FnMut(Item)) {
        let rest = self.held.split().freeze();
        // What stands between two elements is not worth showing.
        let between = self.state == State::Between && rest.iter().all(u8::is_ascii_whitespace);
        if !between && !rest.is_empty() {
            out(Item::Text(rest));
        }
        *self = Self::default();
    }

    fn run(&mut self, out: &mut impl FnMut(Item)) {
        loop {
            let step = match self.state {
                State::Text => self.text(out),
                State::Opening { markers } => self.opening(markers),
                State::Between => self.between(),
                State::Inside { start, depth } => self.inside(start, depth, out),
                State::Closed => self.closed(out),
            };
            match step {
                Step::Go => {}
                Step::Wait => return,
                Step::Malformed => {
                    // The first byte cannot begin a document any more; a later one can.
                    out(Item::Text(self.held.split_to(1).freeze()));
                    (self.state, self.at) = (State::Text, 0);
                }
            }
        }
    }

    fn text(&mut self, out: &mut impl FnMut(Item)) -> Step {
        let mut safe = marker_free(&self.held);
        if self.torn {
            safe = safe.min(free_of(&self.held, ELEMENT));
            let rest = self.held.get(safe..).unwrap_or_default();
            if rest.starts_with(ELEMENT) || rest.starts_with(MARKER) {
                self.torn = false;
            }
            if rest.starts_with(ELEMENT) {
                if safe > 0 {
                    out(Item::Text(self.held.split_to(safe).freeze()));
                }
                (self.state, self.at) = (State::Between, 0);
                return Step::Go;
            }
        }
        if safe > 0 {
            out(Item::Text(self.held.split_to(safe).freeze()));
        }
        if !self.held.starts_with(MARKER) {
            return Step::Wait;
        }
        (self.state, self.at) = (State::Opening { markers: 1 }, MARKER.len());
        Step::Go
    }

    fn opening(&mut self, markers: u8) -> Step {
        self.skip_space();
        let rest = self.held.get(self.at..).unwrap_or_default();
        if self.at > MAX_OPENING {
            return Step::Malformed;
        }
        if markers < MAX_MARKERS && rest.starts_with(MARKER) {
            // A PowerShell that starts another one hands its marker on and writes its own.
            self.at += MARKER.len();
            self.state = State::Opening { markers: markers + 1 };
            return Step::Go;
        }
        if markers < MAX_MARKERS && MARKER.starts_with(rest) {
            return Step::Wait;
        }
        match objs_tag(rest) {
            Token::Tag(length) => {
                let empty = rest.get(length - 2) == Some(&b'/');
                self.at += length;
                // The marker is held until the first element is whole.
                self.state = if empty { State::Closed } else { State::Between };
                if empty {
                    self.consume();
                }
                Step::Go
            }
            Token::Incomplete => Step::Wait,
            Token::Text(_) | Token::Malformed => Step::Malformed,
        }
    }

    fn between(&mut self) -> Step {
        self.skip_space();
        let rest = self.held.get(self.at..).unwrap_or_default();
        if self.at > MAX_OPENING + MAX_TAG {
            return Step::Malformed;
        }
        if rest.is_empty() {
            return Step::Wait;
        }
        if rest.starts_with(b"</") {
            return match tag(rest) {
                Token::Tag(length) if is_end_of_objs(rest.get(..length).unwrap_or_default()) => {
                    self.at += length;
                    self.state = State::Closed;
                    self.consume();
                    Step::Go
                }
                Token::Incomplete => Step::Wait,
                _ => Step::Malformed,
            };
        }
        if rest == b"<" {
            return Step::Wait;
        }
        if !rest.starts_with(b"<") {
            return Step::Malformed;
        }
        self.state = State::Inside { start: self.at, depth: 0 };
        Step::Go
    }

    fn inside(&mut self, start: usize, depth: usize, out: &mut impl FnMut(Item)) -> Step {
        // Looks at no byte beyond the bound, so that where a stream is cut changes nothing.
        let end = self.held.len().min(start + MAX_ELEMENT);
        let rest = self.held.get(self.at..end).unwrap_or_default();
        let wait = if end == start + MAX_ELEMENT { Step::Malformed } else { Step::Wait };
        match token(rest) {
            Token::Malformed => Step::Malformed,
            Token::Incomplete => wait,
            Token::Text(length) => {
                self.at += length;
                Step::Go
            }
            Token::Tag(length) => {
                let tag = rest.get(..length).unwrap_or_default();
                let depth = match (tag.get(1), tag.get(length - 2)) {
                    (Some(b'/'), _) => match depth.checked_sub(1) {
                        Some(depth) => depth,
                        None => return Step::Malformed,
                    },
                    (_, Some(b'/')) => depth,
                    _ if depth < MAX_DEPTH => depth + 1,
                    _ => return Step::Malformed,
                };
                self.at += length;
                self.state = State::Inside { start, depth };
                if depth == 0 { self.whole(start, out) } else { Step::Go }
            }
        }
    }

    /// An element has ended.
    fn whole(&mut self, start: usize, out: &mut impl FnMut(Item)) -> Step {
        let element = self.held.get(start..self.at).unwrap_or_default();
        let Some(meaning) = std::str::from_utf8(element).ok().and_then(element::read) else { return Step::Malformed };
        let element = Bytes::copy_from_slice(element);
        self.state = State::Between;
        self.consume();
        match meaning {
            element::Meaning::Record(record) => out(Item::Record(record)),
            element::Meaning::Progress => {}
            element::Meaning::Other => out(Item::Text(element)),
        }
        Step::Go
    }

    fn closed(&mut self, out: &mut impl FnMut(Item)) -> Step {
        self.skip_space();
        let rest = self.held.get(self.at..).unwrap_or_default();
        let another = objs_tag(rest);
        if self.at <= MAX_BLANKS && matches!(another, Token::Incomplete) {
            return Step::Wait;
        }
        if self.at <= MAX_BLANKS
            && let Token::Tag(length) = another
            && rest.get(length - 2) != Some(&b'/')
        {
            self.at += length;
            self.state = State::Between;
            return Step::Go;
        }
        // The blanks are text.
        if self.at > 0 {
            let blanks = self.at.min(MAX_BLANKS);
            out(Item::Text(self.held.split_to(blanks).freeze()));
        }
        (self.state, self.at) = (State::Text, 0);
        Step::Go
    }

    fn skip_space(&mut self) {
        let rest = self.held.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }

    /// What was looked at is done with.
    fn consume(&mut self) {
        self.held.advance(self.at);
        self.at = 0;
    }
}

/// How many bytes of `data` are before the marker, or before what may be its beginning.
fn marker_free(data: &[u8]) -> usize {
    free_of(data, MARKER)
}

/// How many bytes of `data` are before `what`, or before what may be its beginning.
fn free_of(data: &[u8], what: &[u8]) -> usize {
    let mut from = 0;
    while let Some(found) = data.get(from..).unwrap_or_default().iter().position(|byte| Some(byte) == what.first()) {
        let at = from + found;
        let rest = data.get(at..).unwrap_or_default();
        if rest.starts_with(what) || what.starts_with(rest) {
            return at;
        }
        from = at + 1;
    }
    data.len()
}

/// A start tag of `Objs` at the beginning of `data`.
fn objs_tag(data: &[u8]) -> Token {
    let name = b"<Objs";
    if data.len() <= name.len() {
        return if name.starts_with(data) { Token::Incomplete } else { Token::Malformed };
    }
    let named = data.starts_with(name)
        && data.get(name.len()).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'>' || *byte == b'/');
    if named { tag(data) } else { Token::Malformed }
}

fn is_end_of_objs(tag: &[u8]) -> bool {
    tag.strip_prefix(b"</Objs")
        .and_then(|rest| rest.strip_suffix(b">"))
        .is_some_and(|blanks| blanks.iter().all(u8::is_ascii_whitespace))
}

fn token(data: &[u8]) -> Token {
    match data.iter().position(|byte| *byte == b'<') {
        None if data.is_empty() => Token::Incomplete,
        None => Token::Text(data.len()),
        Some(0) => tag(data),
        Some(length) => Token::Text(length),
    }
}

/// A tag at the beginning of `data`, which begins with `<`. CLIXML has no comments, sections or instructions.
fn tag(data: &[u8]) -> Token {
    match data.get(1) {
        None => return Token::Incomplete,
        Some(b'/') => {}
        Some(byte) if byte.is_ascii_alphabetic() => {}
        Some(_) => return Token::Malformed,
    }
    let mut quote = None;
    for (at, &byte) in data.iter().enumerate().skip(1).take(MAX_TAG) {
        match (byte, quote) {
            (b'<', _) => return Token::Malformed,
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b'>', None) => return Token::Tag(at + 1),
            _ => {}
        }
    }
    if data.len() > MAX_TAG { Token::Malformed } else { Token::Incomplete }
}

/// What a document begins with.
const MARKER: &[u8] = b"#< CLIXML";
/// What nearly all elements begin with.
const ELEMENT: &[u8] = b"<S S=\"";
/// Markers in a row that one document may follow.
const MAX_MARKERS: u8 = 4;
/// Blanks, markers and the tag of the list, before its first element.
const MAX_OPENING: usize = 1024;
/// Blanks between two documents without a marker.
const MAX_BLANKS: usize = 64;
/// One tag.
const MAX_TAG: usize = 4096;
/// Elements within elements; progress records have three.
const MAX_DEPTH: usize = 48;

#[cfg(test)]
mod tests;

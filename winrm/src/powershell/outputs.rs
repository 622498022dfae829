//! Variables that a script hands back: a trailer on standard output, taken out of the stream again.
//!
//! Every line of the trailer begins with a mark that is chosen anew for each run, so that no output of a script can be taken
//! for one by accident. [`Collector`] passes everything else on, cut anywhere, and never keeps more than one line of the
//! trailer. What it hands back was written by the remote host: it is data, and bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

/// Most variables of one script.
pub(super) const MAX_NAMES: usize = 64;
/// Most bytes of one value, in UTF-8. The bootstrap knows this number too.
pub(super) const MAX_VALUE: usize = 64 * 1024;
/// Most characters of a name.
const MAX_NAME: usize = 128;
/// A line of the trailer: a value in base64, or what `set` writes of a variable and its namesakes.
const MAX_LINE: usize = MAX_VALUE / 3 * 4 + 1024;

/// Which variables to hand back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    mark: String,
    names: Vec<String>,
}

/// Why a name is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name that cmd.exe or PowerShell would take for something else.
    #[error("{0:?} is no name of an output variable: letters, digits and underscores, not a digit first, at most 128")]
    Name(String),
    /// The same name twice; names are equal in any case.
    #[error("the output variable {0} is named twice")]
    Twice(String),
    /// More than there may be.
    #[error("{0} output variables; at most 64 are allowed")]
    TooMany(usize),
}

impl Outputs {
    /// These variables; `nonce` must be chosen at random for each run. Nothing when there are no names.
    ///
    /// # Errors
    /// [`NameError`] when a name is none.
    pub fn new<'a>(nonce: u128, names: impl IntoIterator<Item = &'a str>) -> Result<Option<Self>, NameError> {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        if names.len() > MAX_NAMES {
            return Err(NameError::TooMany(names.len()));
        }
        for (index, name) in names.iter().enumerate() {
            let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
            let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !first || !rest || name.len() > MAX_NAME {
                return Err(NameError::Name(name.chars().take(MAX_NAME).collect()));
            }
            if names.iter().take(index).any(|before| before.eq_ignore_ascii_case(name)) {
                return Err(NameError::Twice(name.clone()));
            }
        }
        Ok((!names.is_empty()).then(|| Self { mark: format!("lictor-{nonce:032x}:"), names }))
    }

    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    /// The names, as they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

/// What became of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputValue {
    /// Its value; may be empty.
    Value(String),
    /// There was no such variable when the script ended.
    Missing,
    /// Its value has more than 64 KiB, or could not be made a text.
    Unusable,
    /// The script was not asked: it was ended, ended cmd.exe itself, or its output was lost.
    Unknown,
}

/// What a script handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The variables in the order of their names.
    pub values: Vec<(String, OutputValue)>,
    /// The exit code as the wrapper knows it; nothing when the script ended with `exit`, or its end did not arrive.
    exit_code: Option<i32>,
}

impl Collected {
    /// The exit code, when the process ended with `code`: an `exit` within a wrapper may arrive as 0, a failure that the
    /// wrapper saw does not.
    #[must_use]
    pub fn exit_code(&self, code: i32) -> i32 {
        if code == 0 { self.exit_code.unwrap_or(0) } else { code }
    }
}

/// Takes the trailer out of standard output.
#[derive(Debug)]
pub struct Collector {
    outputs: Outputs,
    values: Vec<OutputValue>,
    exit_code: Option<i32>,
    /// A beginning of the mark, or of a line of the trailer.
    held: BytesMut,
    /// The variable whose lines, written by `set`, are being taken.
    listing: Option<(usize, BytesMut)>,
}

impl Collector {
    /// At the beginning of the stream.
    #[must_use]
    pub fn new(outputs: Outputs) -> Self {
        let values = vec![OutputValue::Unknown; outputs.names.len()];
        Self { outputs, values, exit_code: None, held: BytesMut::new(), listing: None }
    }

    /// Takes the next bytes of the stream and hands on what is none of the trailer.
    pub fn push(&mut self, data: Bytes, out: &mut impl FnMut(Bytes)) {
        if self.held.is_empty() && self.listing.is_none() {
            let free = free_of(&data, self.outputs.mark.as_bytes());
            if free > 0 {
                out(data.slice(..free));
            }
            self.held.extend_from_slice(data.get(free..).unwrap_or_default());
        } else {
            self.held.extend_from_slice(&data);
        }
        self.run(out);
    }

    /// The stream has ended: hands on what is still held.
    pub fn finish(mut self, out: &mut impl FnMut(Bytes)) -> Collected {
        if !self.held.is_empty() {
            out(self.held.split().freeze());
        }
        let values = self.outputs.names.into_iter().zip(self.values).collect();
        Collected { values, exit_code: self.exit_code }
    }

    fn run(&mut self, out: &mut impl FnMut(Bytes)) {
        loop {
            let mark = self.outputs.mark.as_bytes();
            let free = free_of(&self.held, mark);
            if free > 0 {
                let free = self.held.split_to(free).freeze();
                match &mut self.listing {
                    None => out(free),
                    Some((_, lines)) if lines.len() + free.len() <= MAX_LINE => lines.extend_from_slice(&free),
                    // Namesakes without end; the variable's own line came first.
                    Some(_) => {}
                }
            }
            if self.held.len() < mark.len() {
                return;
            }
            let most = self.held.len().min(MAX_LINE);
            match self.held.get(..most).unwrap_or_default().iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let line = self.held.split_to(end + 1).freeze();
                    let line = line.get(mark.len()..).unwrap_or_default().trim_ascii_end();
                    let line = String::from_utf8_lossy(line).into_owned();
                    self.line(&line);
                }
                None if most == MAX_LINE => {
                    // Somebody else wrote into the line. It is no output of the script either.
                    let _ = self.held.split_to(mark.len());
                }
                None => return,
            }
        }
    }

    /// A line of the trailer, without the mark.
    fn line(&mut self, line: &str) {
        if let Some((index, lines)) = self.listing.take() {
            let value = self.outputs.names.get(index).map(|name| listed(name, &lines));
            self.put(index, value.unwrap_or(OutputValue::Unusable));
        }
        if let Some(code) = line.strip_prefix('x') {
            self.exit_code = code.parse().ok();
            return;
        }
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let (index, state) = line.split_at(digits);
        let Ok(index) = index.parse() else { return };
        match state.as_bytes().split_first() {
            Some((b'-', [])) => self.put(index, OutputValue::Missing),
            Some((b'=', [])) => self.listing = Some((index, BytesMut::new())),
            Some((b'+', value)) => {
                let value = STANDARD.decode(value).ok().filter(|value| value.len() <= MAX_VALUE);
                let value = value.and_then(|value| String::from_utf8(value).ok());
                self.put(index, value.map_or(OutputValue::Unusable, OutputValue::Value));
            }
            _ => self.put(index, OutputValue::Unusable),
        }
    }

    fn put(&mut self, index: usize, value: OutputValue) {
        if let Some(slot) = self.values.get_mut(index) {
            *slot = value;
        }
    }
}

/// The value of `name` in what `set` wrote.
fn listed(name: &str, lines: &[u8]) -> OutputValue {
    let text = String::from_utf8_lossy(lines);
    for line in text.lines() {
        if let Some((found, value)) = line.split_once('=')
            && found.eq_ignore_ascii_case(name)
        {
            return OutputValue::Value(value.trim_end_matches('\r').to_owned());
        }
    }
    OutputValue::Missing
}

/// How many bytes of `data` are before the mark, or before what may be its beginning.
fn free_of(data: &[u8], mark: &[u8]) -> usize {
    let Some(first) = mark.first() else { return data.len() };
    let mut from = 0;
    while let Some(found) = data.get(from..).unwrap_or_default().iter().position(|byte| byte == first) {
        let at = from + found;
        let rest = data.get(at..).unwrap_or_default();
        if rest.starts_with(mark) || mark.starts_with(rest) {
            return at;
        }
        from = at + 1;
    }
    data.len()
}

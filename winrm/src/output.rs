//! From what the host sends to what people see: both streams of one command, refined as they come.
//!
//! Standard output loses the trailer of output variables, standard error its CLIXML, and both have their secrets masked, in
//! this order: a secret that CLIXML or base64 hides is found as well. [`Refiner`] never loses a byte that is none of these, and
//! holds back only what may be the beginning of one. It does no I/O.

use std::sync::Arc;

use bytes::Bytes;

use crate::clixml::{Decoder, Item, Record, RecordKind};
use crate::mask::{Masker, Patterns};
use crate::powershell::{Collector, OutputValue, Outputs};
use crate::shell::OutputStream;

/// Most bytes of the texts of all records that are kept.
pub const MAX_RECORDS: usize = 64 * 1024;
/// Most records that are kept.
const MAX_RECORD_COUNT: usize = 1000;
/// Most bytes of the values of all output variables that are kept.
pub const MAX_VALUES: usize = 128 * 1024;

/// What to do with the output of a command.
#[derive(Debug)]
pub struct Refinement {
    /// Leave CLIXML on standard error as it is.
    pub raw_stderr: bool,
    /// Variables that the script was told to hand back.
    pub outputs: Option<Outputs>,
    /// Secrets to mask.
    pub secrets: Arc<Patterns>,
}

/// Refines the output of one command.
#[derive(Debug)]
pub struct Refiner {
    collector: Option<Collector>,
    decoder: Option<Decoder>,
    stdout: Masker,
    stderr: Masker,
    secrets: Arc<Patterns>,
    records: Records,
}

/// What was found besides the output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records of PowerShell's error stream. Errors in a row are one: PowerShell writes each of their lines on its own.
    pub records: Vec<Record>,
    /// There were more records than are kept; their texts are in the output all the same.
    pub records_truncated: bool,
    /// Output variables, in the order in which they were asked for, masked.
    pub variables: Vec<(String, OutputValue)>,
    /// A failure that the wrapper of the script saw.
    failure: Option<i32>,
}

impl Findings {
    /// The exit code, when the process ended with `code`.
    #[must_use]
    pub fn exit_code(&self, code: i32) -> i32 {
        if code == 0 { self.failure.unwrap_or(0) } else { code }
    }
}

impl Refiner {
    /// At the beginning of both streams.
    #[must_use]
    pub fn new(refinement: Refinement) -> Self {
        let Refinement { raw_stderr, outputs, secrets } = refinement;
        Self {
            collector: outputs.map(Collector::new),
            decoder: (!raw_stderr).then(Decoder::new),
            stdout: Masker::new(Arc::clone(&secrets)),
            stderr: Masker::new(Arc::clone(&secrets)),
            secrets,
            records: Records::default(),
        }
    }

    /// Somewhere in both streams, whose beginnings are lost. What the lost part began is passed on as it is: the rest of a line
    /// of the trailer, and of an element of CLIXML. Secrets are masked all the same, and so is the end of one that comes first.
    #[must_use]
    pub fn resumed(refinement: Refinement) -> Self {
        let fresh = Self::new(refinement);
        Self {
            decoder: fresh.decoder.map(|_| Decoder::resumed()),
            stdout: Masker::resumed(Arc::clone(&fresh.secrets)),
            stderr: Masker::resumed(Arc::clone(&fresh.secrets)),
            ..fresh
        }
    }

    /// Takes what the host sent and hands on what is to be seen. No piece is empty.
    pub fn push(&mut self, stream: OutputStream, data: Bytes, out: &mut impl FnMut(OutputStream, Bytes)) {
        match stream {
            OutputStream::Stdout => {
                let masker = &mut self.stdout;
                let mut masked = |data: Bytes| masker.push(data, &mut |data| out(stream, data));
                match &mut self.collector {
                    Some(collector) => collector.push(data, &mut masked),
                    None => masked(data),
                }
            }
            OutputStream::Stderr => {
                let (masker, records, secrets) = (&mut self.stderr, &mut self.records, &self.secrets);
                let mut masked = |data: Bytes| masker.push(data, &mut |data| out(stream, data));
                match &mut self.decoder {
                    Some(decoder) => decoder.push(data, &mut |item| match item {
                        Item::Text(text) => {
                            records.interrupted = true;
                            masked(text);
                        }
                        Item::Record(record) => {
                            masked(Bytes::from(record.shown()));
                            records.add(record, secrets);
                        }
                    }),
                    None => masked(data),
                }
            }
        }
    }

    /// Both streams have ended: hands on what is still held, and says what was found.
    pub fn finish(mut self, out: &mut impl FnMut(OutputStream, Bytes)) -> Findings {
        let mut findings = Findings::default();
        let mut held = Vec::new();
        if let Some(collector) = self.collector.take() {
            let collected = collector.finish(&mut |data| held.push(data));
            findings.failure = Some(collected.exit_code(0)).filter(|code| *code != 0);
            let mut room = MAX_VALUES;
            for (name, value) in collected.values {
                let value = match value {
                    OutputValue::Value(value) => match room.checked_sub(value.len()) {
                        Some(left) => {
                            room = left;
                            OutputValue::Value(self.secrets.masked(&value).into_owned())
                        }
                        None => OutputValue::Unusable,
                    },
                    other => other,
                };
                findings.variables.push((name, value));
            }
        }
        for data in held.drain(..) {
            self.stdout.push(data, &mut |data| out(OutputStream::Stdout, data));
        }
        self.stdout.finish(&mut |data| out(OutputStream::Stdout, data));
        if let Some(mut decoder) = self.decoder.take() {
            decoder.finish(&mut |item| {
                if let Item::Text(text) = item {
                    held.push(text);
                }
            });
        }
        for data in held {
            self.stderr.push(data, &mut |data| out(OutputStream::Stderr, data));
        }
        self.stderr.finish(&mut |data| out(OutputStream::Stderr, data));
        findings.records = self.records.list;
        findings.records_truncated = self.records.truncated;
        findings
    }
}

#[derive(Debug, Default)]
struct Records {
    list: Vec<Record>,
    bytes: usize,
    truncated: bool,
    /// Text of another program came since the last record.
    interrupted: bool,
}

impl Records {
    fn add(&mut self, mut record: Record, secrets: &Arc<Patterns>) {
        let joins = !std::mem::take(&mut self.interrupted) && record.kind == RecordKind::Error;
        if self.truncated {
            return;
        }
        // Masked before it is cut or joined: half a secret would not be found.
        record.text = secrets.masked(&record.text).into_owned();
        self.truncated |= self.bytes + record.text.len() > MAX_RECORDS;
        if self.truncated {
            return;
        }
        self.bytes += record.text.len();
        let room = self.list.len() < MAX_RECORD_COUNT;
        match self.list.last_mut() {
            Some(last) if joins && last.kind == RecordKind::Error => last.text.push_str(&record.text),
            _ if room => self.list.push(record),
            _ => self.truncated = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "lictor-00000000000000000000000000000001:";
    const DOCUMENT: &str = "#< CLIXML\r\n<Objs><S S=\"Error\">line 1 Secret_x002D_1_x000D__x000A_</S>\
        <S S=\"Error\">line 2_x000D__x000A_</S><S S=\"Warning\">careful</S><Obj S=\"progress\"/>\
        <S S=\"information\">told</S></Objs>";

    fn refined(raw_stderr: bool, stdout: &str, stderr: &str, size: usize) -> (String, String, Findings) {
        let outputs = Outputs::new(1, ["a", "b"]).unwrap();
        let secrets = Arc::new(Patterns::new(["Secret-1"]));
        let mut refiner = Refiner::new(Refinement { raw_stderr, outputs, secrets });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut take = |stream, data: Bytes| {
            assert!(!data.is_empty());
            if stream == OutputStream::Stdout { out.extend_from_slice(&data) } else { err.extend_from_slice(&data) }
        };
        let mut streams = [
            (OutputStream::Stdout, stdout.as_bytes().chunks(size)),
            (OutputStream::Stderr, stderr.as_bytes().chunks(size)),
        ];
        while streams.iter().any(|(_, chunks)| chunks.len() > 0) {
            for (stream, chunks) in &mut streams {
                if let Some(chunk) = chunks.next() {
                    refiner.push(*stream, Bytes::copy_from_slice(chunk), &mut take);
                }
            }
        }
        let findings = refiner.finish(&mut take);
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), findings)
    }

    #[test]
    fn both_streams_are_refined_however_they_are_cut() {
        // The password is in the output, in base64 in the output, in a variable, and in an error.
        let stdout = format!("Secret-1 U2VjcmV0LTE={MARK}0+U2VjcmV0LTE=\n{MARK}1-\n{MARK}x7\n{MARK}.\nlast Secret-");
        for size in [1, 3, 1000] {
            let (out, err, findings) = refined(false, &stdout, &format!("native\r\n{DOCUMENT}Secr"), size);
            // The last character of the base64 would be another one with something behind the secret.
            assert_eq!(out, "*** ***E=last Secret-");
            assert_eq!(err, "native\r\nline 1 ***\r\nline 2\r\nWARNING: careful\r\nSecr");
            let record = |kind, text: &str| Record { kind, text: text.to_owned() };
            assert_eq!(
                findings.records,
                [
                    record(RecordKind::Error, "line 1 ***\r\nline 2\r\n"),
                    record(RecordKind::Warning, "careful"),
                    record(RecordKind::Information, "told"),
                ]
            );
            assert!(!findings.records_truncated);
            let expected = [("a", OutputValue::Value("***".to_owned())), ("b", OutputValue::Missing)];
            assert_eq!(findings.variables, expected.map(|(name, value)| (name.to_owned(), value)));
            assert_eq!((findings.exit_code(0), findings.exit_code(3)), (7, 3));
        }
    }

    #[test]
    fn a_resumed_beginning_goes_on_with_the_next_element_and_masks_the_end_of_a_secret() {
        let stderr = "secret &lt;b&gt;_x000D__x000A_</S><S S=\"Error\">gone_x000D__x000A_</S></Objs>plain #< CLIXML\r\n\
            <Objs Version=\"1.1.0.1\"><S S=\"Error\">next_x000A_</S></Objs>";
        for size in [1, 2, 7, 10_000] {
            let secrets = Arc::new(Patterns::new(["Secret-1"]));
            let outputs = Outputs::new(1, ["a"]).unwrap();
            let mut refiner = Refiner::resumed(Refinement { raw_stderr: false, outputs, secrets });
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let stdout = format!("ret-1 tail\n{MARK}0+QQ==\n{MARK}x5\n{MARK}.\n");
            for (stream, text) in [(OutputStream::Stdout, stdout.as_str()), (OutputStream::Stderr, stderr)] {
                for chunk in text.as_bytes().chunks(size) {
                    refiner.push(stream, Bytes::copy_from_slice(chunk), &mut |stream, data| {
                        if stream == OutputStream::Stdout { &mut out } else { &mut err }.extend_from_slice(&data);
                    });
                }
            }
            let findings = refiner.finish(&mut |_, data| out.extend_from_slice(&data));
            assert_eq!(String::from_utf8(out).unwrap(), "*** tail\n");
            assert_eq!(String::from_utf8(err).unwrap(), "secret &lt;b&gt;_x000D__x000A_</S>gone\r\nplain next\n");
            assert_eq!(findings.variables, [("a".to_owned(), OutputValue::Value("A".to_owned()))]);
            assert_eq!(findings.exit_code(0), 5);
        }
    }

    #[test]
    fn raw_keeps_the_clixml() {
        let (_, err, findings) = refined(true, "", DOCUMENT, 5);
        assert_eq!(err, DOCUMENT);
        assert_eq!(findings.records, []);
        assert!(findings.variables.iter().all(|(_, value)| *value == OutputValue::Unknown));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let line = format!("<S S=\"Error\">{}_x000A_</S>", "x".repeat(1000));
        let stderr = format!("#< CLIXML\r\n<Objs>{}</Objs>", line.repeat(100));
        let (_, err, findings) = refined(false, "", &stderr, 10_000);
        assert_eq!(err.len(), 100 * 1001);
        assert!(findings.records_truncated);
        assert_eq!(findings.records.len(), 1);
        assert_eq!(findings.records[0].text.len(), MAX_RECORDS / 1001 * 1001);
        let value = "QUFB".repeat(20_000);
        let stdout = format!("{MARK}0+{value}\n{MARK}1+QQ==\n{MARK}.\n");
        let (out, _, findings) = refined(false, &stdout, "", 10_000);
        assert_eq!(out, "");
        assert_eq!(findings.variables[1].1, OutputValue::Value("A".to_owned()));
        assert_eq!(findings.variables[0].1, OutputValue::Value("AAA".repeat(20_000)));
    }
}

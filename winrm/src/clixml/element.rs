//! One element of a CLIXML list, read whole. Pure.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::{Record, RecordKind};

/// What an element says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Record(Record),
    /// A progress bar.
    Progress,
    /// Something that is well-formed and no record.
    Other,
}

/// Reads one element. Nothing when it is not well-formed.
pub(super) fn read(element: &str) -> Option<Meaning> {
    let mut reader = Reader::from_str(element);
    reader.config_mut().expand_empty_elements = true;
    let mut path: Vec<Level> = Vec::new();
    let mut found = Found::default();
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                let level = Level::of(&start)?;
                path.push(level);
            }
            Event::End(_) => {
                let level = path.pop()?;
                if path.is_empty() {
                    found.outer = Some(level);
                } else {
                    found.leave(&path, level);
                }
            }
            Event::Text(text) => path.last_mut()?.text.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let text = &mut path.last_mut()?.text;
                match reference.resolve_char_ref().ok()? {
                    Some(character) => text.push(character),
                    None => text.push_str(quick_xml::escape::resolve_xml_entity(&reference.xml10_content())?),
                }
            }
            Event::Eof => break,
            _ => return None,
        }
    }
    if !path.is_empty() {
        return None;
    }
    let outer = found.outer.take()?;
    let stream = outer.stream.as_deref().unwrap_or("").to_ascii_lowercase();
    let kind = match stream.as_str() {
        "error" => RecordKind::Error,
        "warning" => RecordKind::Warning,
        "verbose" => RecordKind::Verbose,
        "debug" => RecordKind::Debug,
        "information" => RecordKind::Information,
        "progress" => return Some(Meaning::Progress),
        _ => return Some(Meaning::Other),
    };
    let text = match outer.name.as_str() {
        "S" => outer.text,
        "Obj" => match found.text(kind) {
            Some(text) => text,
            None => return Some(Meaning::Other),
        },
        _ => return Some(Meaning::Other),
    };
    Some(Meaning::Record(Record { kind, text: unescape(&text).into_owned() }))
}

/// An element that is open.
#[derive(Debug)]
struct Level {
    name: String,
    /// Attribute `S`: the stream.
    stream: Option<String>,
    /// Attribute `N`: the name of a property.
    property: Option<String>,
    text: String,
}

impl Level {
    fn of(start: &BytesStart<'_>) -> Option<Self> {
        let mut level =
            Self { name: start.name().as_ref().to_owned(), stream: None, property: None, text: String::new() };
        for attribute in start.attributes() {
            let attribute = attribute.ok()?;
            let target = match attribute.key.as_ref() {
                "S" => &mut level.stream,
                "N" => &mut level.property,
                _ => continue,
            };
            *target = Some(attribute.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned());
        }
        Some(level)
    }
}

/// What an object holds, [MS-PSRP] 2.2.5.2: how it is shown, and for an information record its message.
#[derive(Debug, Default)]
struct Found {
    outer: Option<Level>,
    shown: Option<String>,
    message: Option<String>,
    /// The message is an object of its own: `Write-Host` gives one with the colours of the text.
    message_shown: Option<String>,
}

impl Found {
    fn leave(&mut self, path: &[Level], level: Level) {
        let in_message = path.iter().any(|outer| outer.property.as_deref() == Some("MessageData"));
        let first = |slot: &mut Option<String>, text: String| _ = slot.get_or_insert(text);
        match (level.name.as_str(), level.property.as_deref()) {
            ("ToString", _) if path.len() == 1 => first(&mut self.shown, level.text),
            ("ToString", _) if in_message => first(&mut self.message_shown, level.text),
            ("Obj", _) => {}
            (_, Some("MessageData")) => first(&mut self.message, level.text),
            ("S", Some("Message")) if in_message => first(&mut self.message, level.text),
            _ => {}
        }
    }

    fn text(self, kind: RecordKind) -> Option<String> {
        let Self { shown, message, message_shown, .. } = self;
        if kind == RecordKind::Information { message.or(message_shown).or(shown) } else { shown }
    }
}

/// Undoes the escapes of strings, [MS-PSRP] 2.2.5.3.2: `_xHHHH_` is a UTF-16 unit. What is no escape, or half a surrogate
/// pair, stays as it is.
#[must_use]
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains("_x") && !text.contains("_X") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('_') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (character, length) = match escape(from) {
            Some(unit @ 0xd800..=0xdbff) => match from.get(ESCAPE..).and_then(escape) {
                Some(low @ 0xdc00..=0xdfff) => {
                    let code = 0x10000 + ((u32::from(unit) - 0xd800) << 10) + (u32::from(low) - 0xdc00);
                    (char::from_u32(code), 2 * ESCAPE)
                }
                _ => (None, ESCAPE),
            },
            Some(unit) => (char::from_u32(u32::from(unit)), ESCAPE),
            None => (Some('_'), 1),
        };
        let (taken, after) = from.split_at(length);
        match character {
            Some(character) => out.push(character),
            None => out.push_str(taken),
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The unit of the escape at the beginning of `text`.
fn escape(text: &str) -> Option<u16> {
    let bytes = text.as_bytes().get(..ESCAPE)?;
    let [b'_', b'x' | b'X', digits @ .., b'_'] = bytes else { return None };
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// Length of `_xHHHH_`.
const ESCAPE: usize = 7;

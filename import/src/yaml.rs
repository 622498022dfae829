//! YAML as a bounded tree that knows its lines, tags and quotes.
//!
//! Scalars stay as they are written; what they mean under YAML 1.1, which Ansible and Harness speak, says [`Node::scalar`].
//! Aliases are copied, and every copy counts against the bounds, so that a small text cannot become a large tree. `<<` merges
//! as in YAML 1.1. Events are pulled one at a time: depth costs heap, never stack.

use std::collections::HashMap;
use std::sync::Arc;

use yaml_rust2::parser::{Event, Parser, Tag};
use yaml_rust2::scanner::TScalarStyle;
use zeroize::Zeroizing;

use crate::{MAX_TEXT_BYTES, Mistake};

/// A value and where it begins.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    /// `!vault` and the like, without the `!`s of the core types.
    tag: Option<Arc<str>>,
}

/// What a value is.
#[derive(Clone)]
pub(crate) enum Kind {
    Scalar {
        text: Zeroizing<String>,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In order; keys may come twice.
    Mapping(Vec<(Node, Node)>),
}

/// What a scalar means under YAML 1.1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
}

/// Reads every document of a text.
pub(crate) fn documents(text: &str, file: &Arc<str>) -> Result<Vec<Node>, Mistake> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Mistake::new(file, 0, format!("it is larger than {MAX_TEXT_BYTES} bytes")));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text).keep_tags(true);
    loop {
        let (event, mark) =
            parser.next_token().map_err(|error| Mistake::new(file, error.marker().line(), error.info()))?;
        let line = mark.line();
        if event == Event::StreamEnd {
            return Ok(builder.documents);
        }
        builder.event(event, line).map_err(|message| Mistake::new(file, line, message))?;
    }
}

/// Reads JSON, whose numbers and escapes are not those of YAML. Nothing when it is none.
pub(crate) fn json(text: &str) -> Option<Node> {
    fn node(value: serde_json::Value) -> Node {
        let scalar = |text: String, plain| Kind::Scalar { text: Zeroizing::new(text), plain };
        let kind = match value {
            serde_json::Value::Null => scalar(String::new(), true),
            serde_json::Value::Bool(value) => scalar(value.to_string(), true),
            serde_json::Value::Number(number) if number.is_f64() => {
                scalar(format!("{:?}", number.as_f64().unwrap_or_default()), true)
            }
            serde_json::Value::Number(number) => scalar(number.to_string(), true),
            serde_json::Value::String(text) => scalar(text, false),
            serde_json::Value::Array(items) => Kind::Sequence(items.into_iter().map(node).collect()),
            serde_json::Value::Object(map) => {
                let key = |key| Node::made(0, Kind::Scalar { text: Zeroizing::new(key), plain: false });
                Kind::Mapping(map.into_iter().map(|(name, value)| (key(name), node(value))).collect())
            }
        };
        Node::made(0, kind)
    }
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok().map(node)).flatten()
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

/// A collection under way.
struct Open {
    anchor: usize,
    node: Node,
    /// The key that waits for its value.
    key: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = Kind::Scalar { text: Zeroizing::new(text), plain: style == TScalarStyle::Plain };
                self.place(Node { line, kind, tag: tag.as_ref().and_then(name) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(anchor, line, Kind::Sequence(Vec::new()), tag.as_ref()),
            Event::MappingStart(anchor, tag) => self.open(anchor, line, Kind::Mapping(Vec::new()), tag.as_ref()),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, node, .. }) => self.place(node, anchor),
                None => Err("an end without a beginning".to_owned()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an alias of something that has not ended yet")?;
                self.count(&node)?;
                self.place(Node { line, ..node }, 0)
            }
            Event::DocumentStart if self.documents.len() == MAX_DOCUMENTS => {
                Err(format!("more than {MAX_DOCUMENTS} documents"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, line: usize, kind: Kind, tag: Option<&Tag>) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        self.open.push(Open { anchor, node: Node { line, kind, tag: tag.and_then(name) }, key: None });
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.count(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.node.kind {
            Kind::Sequence(items) => items.push(node),
            Kind::Mapping(entries) => match open.key.take() {
                None => open.key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Kind::Scalar { .. } => return Err("a scalar with parts".to_owned()),
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES { Err(too_much()) } else { Ok(()) }
    }

    /// Counts a copy as a whole; what is no copy is counted piece by piece.
    fn count(&mut self, node: &Node) -> Result<(), String> {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            self.nodes += 1;
            match &node.kind {
                Kind::Scalar { text, .. } => self.bytes += text.len(),
                Kind::Sequence(items) => open.extend(items),
                Kind::Mapping(entries) => open.extend(entries.iter().flat_map(|(key, value)| [key, value])),
            }
            if self.nodes > MAX_NODES || self.bytes > MAX_TREE_BYTES {
                return Err(too_much());
            }
        }
        Ok(())
    }
}

fn too_much() -> String {
    "it has too many values; aliases count as often as they are used".to_owned()
}

/// The short name of a tag. Nothing for `!`, which says only that the value has no other type.
fn name(tag: &Tag) -> Option<Arc<str>> {
    let whole = format!("{}{}", tag.handle, tag.suffix);
    let short = whole
        .strip_prefix("tag:yaml.org,2002:")
        .or_else(|| whole.strip_prefix("!!"))
        .or_else(|| whole.strip_prefix('!'));
    let short = short.unwrap_or(&whole);
    (!short.is_empty()).then(|| short.into())
}

impl Node {
    /// A node that no text holds.
    pub(crate) fn made(line: usize, kind: Kind) -> Self {
        Self { line, kind, tag: None }
    }

    /// The tag, without `!` and without the prefix of the core types.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What a scalar means; nothing for collections.
    pub(crate) fn scalar(&self) -> Option<Scalar<'_>> {
        let Kind::Scalar { text, plain } = &self.kind else { return None };
        let text = text.as_str();
        Some(match self.tag() {
            Some("str" | "unsafe" | "vault" | "vault-encrypted") => Scalar::Text(text),
            Some("int" | "bool" | "float" | "null") => resolve(text),
            _ if *plain => resolve(text),
            _ => Scalar::Text(text),
        })
    }

    /// The text of a scalar, whatever it means.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text.as_str()),
            _ => None,
        }
    }

    /// Whether it is `null` or nothing.
    pub(crate) fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// The entries of a mapping, merged and without those that a later one with the same key replaces; nothing for others.
    pub(crate) fn entries(&self) -> Option<Vec<(&Self, &Self)>> {
        let Kind::Mapping(entries) = &self.kind else { return None };
        let mut merged: Vec<(&Self, &Self)> = Vec::new();
        let mut own: Vec<(&Self, &Self)> = Vec::new();
        for (key, value) in entries {
            let is_merge = matches!(&key.kind, Kind::Scalar { text, plain: true } if text.as_str() == "<<");
            match (&value.kind, is_merge) {
                (Kind::Mapping(_), true) => merged.extend(value.entries().unwrap_or_default()),
                (Kind::Sequence(items), true) => {
                    // The first of them counts most.
                    merged.extend(items.iter().rev().flat_map(|item| item.entries().unwrap_or_default()));
                }
                _ => own.push((key, value)),
            }
        }
        merged.extend(own);
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (at, (key, _)) in merged.iter().enumerate() {
            if let Some(key) = key.text() {
                last.insert(key, at);
            }
        }
        // A key keeps the place where it came first, as in Python's dictionaries.
        let mut seen: HashMap<&str, ()> = HashMap::new();
        let mut result = Vec::with_capacity(merged.len());
        for (key, value) in &merged {
            match key.text() {
                Some(text) if seen.insert(text, ()).is_some() => {}
                Some(text) => {
                    let value = last.get(text).and_then(|at| merged.get(*at)).map_or(*value, |(_, value)| *value);
                    result.push((*key, value));
                }
                None => result.push((*key, *value)),
            }
        }
        Some(result)
    }
}

/// What a plain scalar means.
fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Scalar::Bool(false),
        _ => {}
    }
    match text.trim_start_matches(['+', '-']) {
        ".inf" | ".Inf" | ".INF" => {
            return Scalar::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    integer(text).map(Scalar::Integer).or_else(|| float(text).map(Scalar::Float)).unwrap_or(Scalar::Text(text))
}

/// Decimal, binary, octal (with one leading zero), hexadecimal, or base 60.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let radix = |digits: &str, radix: u32| {
        let digits: String = digits.chars().filter(|c| *c != '_').collect();
        if digits.starts_with(['+', '-']) { None } else { i128::from_str_radix(&digits, radix).ok() }
    };
    let value = if let Some(digits) = digits.strip_prefix("0b") {
        radix(digits, 2)
    } else if let Some(digits) = digits.strip_prefix("0x") {
        radix(digits, 16)
    } else if digits.contains(':') {
        if digits.starts_with('0') {
            return None;
        }
        let mut parts = digits.split(':');
        let first = radix(parts.next()?, 10)?;
        parts.try_fold(first, |sum, part| {
            let good = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            let part = part.parse::<i128>().ok().filter(|part| good && *part < 60)?;
            sum.checked_mul(60)?.checked_add(part)
        })
    } else if digits.len() > 1 && digits.starts_with('0') {
        radix(digits.strip_prefix('0')?, 8)
    } else {
        radix(digits, 10)
    }?;
    Some(if negative { -value } else { value })
}

/// A decimal point is a must, and so is the sign of an exponent.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let good = digits(whole)
        && digits(fraction)
        && (starts(whole) || (whole.is_empty() && starts(fraction) && unsigned == text));
    let exponent_good = exponent.is_none_or(|exponent| {
        let number = exponent.strip_prefix(['+', '-']).filter(|number| !number.is_empty());
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if !good || !exponent_good {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// Far above every inventory that people wrote by hand or by program.
const MAX_NODES: usize = 4_000_000;
const MAX_TREE_BYTES: usize = 2 * MAX_TEXT_BYTES;
const MAX_DEPTH: usize = 64;
const MAX_DOCUMENTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<str> {
        "x.yml".into()
    }

    fn one(text: &str) -> Node {
        documents(text, &file()).unwrap().remove(0)
    }

    #[test]
    fn scalars_mean_what_yaml_1_1_says() {
        for (text, expected) in [
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("'yes'", Scalar::Text("yes")),
            ("y", Scalar::Text("y")),
            ("5986", Scalar::Integer(5986)),
            ("-0x1F", Scalar::Integer(-31)),
            ("010", Scalar::Integer(8)),
            ("08", Scalar::Text("08")),
            ("0o10", Scalar::Text("0o10")),
            ("1_000", Scalar::Integer(1000)),
            ("1:30", Scalar::Integer(90)),
            ("1:75", Scalar::Text("1:75")),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Text("1e3")),
            ("1.0e+3", Scalar::Float(1000.0)),
            (".5", Scalar::Float(0.5)),
            ("1.2.3", Scalar::Text("1.2.3")),
            ("~", Scalar::Null),
            ("!!str 5", Scalar::Text("5")),
            ("-", Scalar::Text("-")),
        ] {
            let text = if text == "-" { "'-'" } else { text };
            assert_eq!(one(text).scalar(), Some(expected), "{text}");
        }
    }

    #[test]
    fn lines_tags_and_merges() {
        let node = one("a: &base\n  x: 1\n  y: 2\nb:\n  <<: *base\n  y: 3\nc: !vault |\n  abc\n");
        let entries = node.entries().unwrap();
        let b = entries[1].1.entries().unwrap();
        let texts: Vec<_> = b.iter().map(|(key, value)| (key.text().unwrap(), value.text().unwrap())).collect();
        assert_eq!(texts, [("x", "1"), ("y", "3")]);
        assert_eq!((entries[2].1.tag(), entries[2].0.line), (Some("vault"), 7));
    }

    #[test]
    fn what_would_grow_or_never_end_is_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let item = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![item; 10].join(",")));
        }
        let mistake = documents(&bomb, &file()).err().unwrap();
        assert!(mistake.message.contains("too many values"), "{mistake}");
        let text = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 200].join(","));
        assert!(documents(&text, &file()).err().unwrap().message.contains("too many values"));
        assert!(documents("a: &a [*a]", &file()).is_err());
        let deep = "[".repeat(100_000);
        assert!(documents(&deep, &file()).is_err());
        let deep = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
        assert!(documents(&deep, &file()).err().unwrap().message.contains("levels"));
        assert!(documents(&"--- a\n".repeat(20_000), &file()).is_err());
    }

    #[test]
    fn mistakes_know_their_line() {
        let mistake = documents("a: 1\nb: [\nc: 2\n", &file()).err().unwrap();
        assert!(mistake.line.is_some(), "{mistake}");
        assert!(mistake.to_string().starts_with("x.yml:"), "{mistake}");
    }
}

//! The syntax of `krb5.conf`: text, and the files that it includes, into one tree of sections and relations, and the tree into text.
//!
//! It reads what MIT's library reads, and says of every line that MIT's library refuses, or reads otherwise than it looks, what
//! is wrong with it, all at once. Everything is bounded: the text may come from a ConfigMap that anybody can write. Meaning is
//! none of its business ([`super::check`]).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Remark;
use super::disk::Disk;

/// Bytes of one file. Real ones have a few KiB.
pub(super) const MAX_FILE: usize = 1 << 20;
/// Bytes of one line. MIT's library reads pieces of 2048 bytes, so a longer line falls apart there.
const MAX_LINE: usize = 2047;
/// Files and directories in all, and how deep files include each other.
const MAX_FILES: usize = 200;
const MAX_INCLUDES: usize = 16;
/// Sections and relations in all, and how deep sections lie in each other. Four levels is the most that has a meaning.
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 16;
/// Remarks of one kind that are kept.
const MAX_REMARKS: usize = 100;

/// All sections of one or more files read as one.
#[derive(Debug, Clone, Default)]
pub(super) struct Profile {
    pub(super) root: Vec<Node>,
    nodes: usize,
}

/// A section or a relation.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) value: Value,
    /// Marked with `*`: later ones of the same name do not count.
    is_final: bool,
    pub(super) place: Place,
}

impl Node {
    /// Something about it, at its place.
    pub(super) fn remark(&self, text: String) -> Remark {
        Remark { file: Some(self.place.file.to_path_buf()), line: Some(self.place.line), text }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Relation(String),
    Section(Vec<Node>),
}

/// Where something was read.
#[derive(Debug, Clone)]
pub(super) struct Place {
    file: Arc<Path>,
    line: u32,
}

/// What is wrong, and what only looks wrong, so far.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) mistakes: Vec<Remark>,
    pub(super) warnings: Vec<Remark>,
}

impl Remarks {
    pub(super) fn mistake(&mut self, place: &Place, text: impl Into<String>) {
        push(&mut self.mistakes, place, text.into());
    }

    pub(super) fn warning(&mut self, place: &Place, text: impl Into<String>) {
        push(&mut self.warnings, place, text.into());
    }
}

fn push(remarks: &mut Vec<Remark>, place: &Place, text: String) {
    if remarks.len() < MAX_REMARKS {
        remarks.push(Remark { file: Some(place.file.to_path_buf()), line: Some(place.line), text });
    } else if remarks.len() == MAX_REMARKS {
        remarks.push(Remark { file: None, line: None, text: "there are more, which are left out".to_owned() });
    }
}

impl Profile {
    /// Reads `text`, which came from `path`, into this profile. Without a `disk` nothing can be included.
    pub(super) fn read(&mut self, path: &Path, text: &[u8], disk: Option<&mut Disk>, remarks: &mut Remarks) {
        let mut reader = Reader { profile: self, disk, remarks, files: 1 };
        reader.file(&Arc::from(path), text, 0);
    }

    /// What stands under the name of a section; nothing when there is no such section.
    pub(super) fn section(&self, name: &str) -> &[Node] {
        subsection(&self.root, name)
    }

    /// The text of this profile, every included file in its place. In realms of `kdcs` the KDCs are replaced by those there.
    pub(super) fn text(&self, kdcs: &[(String, Vec<String>)]) -> String {
        let mut out = String::new();
        let mut missing: Vec<&(String, Vec<String>)> = kdcs.iter().collect();
        for section in &self.root {
            let Value::Section(nodes) = &section.value else { continue };
            write_header(&mut out, section);
            for node in nodes {
                let replaced = match &node.value {
                    Value::Section(children) if section.name == "realms" => {
                        kdcs.iter().find(|(realm, _)| *realm == node.name).map(|(_, kdcs)| (children, kdcs))
                    }
                    _ => None,
                };
                match replaced {
                    None => write_node(&mut out, node, 1),
                    Some((children, kdcs)) => {
                        missing.retain(|(realm, _)| *realm != node.name);
                        write_realm(&mut out, &node.name, children, kdcs);
                    }
                }
            }
        }
        if !missing.is_empty() {
            out.push_str("[realms]\n");
            for (realm, kdcs) in missing {
                write_realm(&mut out, realm, &[], kdcs);
            }
        }
        out
    }
}

/// The nodes of the section `name` among `nodes`. The reader has put sections of one name together.
pub(super) fn subsection<'a>(nodes: &'a [Node], name: &str) -> &'a [Node] {
    nodes
        .iter()
        .find_map(|node| match &node.value {
            Value::Section(children) if node.name == name => Some(&children[..]),
            _ => None,
        })
        .unwrap_or_default()
}

/// The relations called `name` among `nodes`, in order.
pub(super) fn relations<'a>(nodes: &'a [Node], name: &'a str) -> impl Iterator<Item = (&'a str, &'a Place)> {
    nodes.iter().filter_map(move |node| match &node.value {
        Value::Relation(value) if node.name == name => Some((&value[..], &node.place)),
        _ => None,
    })
}

fn write_header(out: &mut String, section: &Node) {
    let star = if section.is_final { "*" } else { "" };
    // Writing to a string does not fail.
    let _ = writeln!(out, "[{}]{star}", section.name);
}

fn write_realm(out: &mut String, realm: &str, children: &[Node], kdcs: &[String]) {
    let _ = writeln!(out, "    {realm} = {{");
    for kdc in kdcs {
        let _ = writeln!(out, "        kdc = {}", quoted(kdc));
    }
    for child in children.iter().filter(|child| child.name != "kdc") {
        write_node(out, child, 2);
    }
    out.push_str("    }\n");
}

fn write_node(out: &mut String, node: &Node, depth: usize) {
    let star = if node.is_final { "*" } else { "" };
    let indent = 4 * depth;
    match &node.value {
        Value::Relation(value) => {
            let _ = writeln!(out, "{:indent$}{}{star} = {}", "", node.name, quoted(value));
        }
        Value::Section(children) => {
            let _ = writeln!(out, "{:indent$}{}{star} = {{", "", node.name);
            for child in children {
                write_node(out, child, depth + 1);
            }
            let _ = writeln!(out, "{:indent$}}}", "");
        }
    }
}

/// A value as it is written behind the `=`: as it stands where that is read back as it stands, else in quotation marks.
pub(super) fn quoted(value: &str) -> String {
    let plain = !value.is_empty()
        && value.trim() == value
        && !value.starts_with('"')
        && !value.starts_with('{')
        && !value.chars().any(char::is_control);
    if plain {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

struct Reader<'a> {
    profile: &'a mut Profile,
    disk: Option<&'a mut Disk>,
    remarks: &'a mut Remarks,
    files: usize,
}

/// Where the reader is in one file. A file stands for itself: it begins outside of all sections, wherever it is included.
struct Position {
    place: Place,
    /// Whether a section has begun; what stands before the first one counts as comment.
    begun: bool,
    /// The section and the subsections that are open, outermost first, and the lines they begin at.
    open: Vec<(String, u32)>,
    /// From this level on nothing counts, because an earlier section of the name was final; 0 when all counts.
    discard: usize,
    /// The line of a `name =` whose `{` must come next.
    pending: Option<u32>,
}

impl Reader<'_> {
    fn file(&mut self, path: &Arc<Path>, text: &[u8], depth: usize) {
        let place = Place { file: Arc::clone(path), line: 1 };
        let mut position = Position { place, begun: false, open: Vec::new(), discard: 0, pending: None };
        let text = match text.strip_prefix(b"\xEF\xBB\xBF") {
            Some(rest) => {
                let text = "begins with a byte order mark, which MIT's library does not skip; save the file without it";
                self.remarks.warning(&position.place, text);
                rest
            }
            None => text,
        };
        for raw in text.split(|byte| *byte == b'\n') {
            self.line(&mut position, raw, depth);
            position.place.line = position.place.line.saturating_add(1);
        }
        if let Some(line) = position.pending {
            position.place.line = line;
            self.remarks.mistake(&position.place, "this relation has no value");
        }
        // MIT's library does not mind a brace that is missing at the end.
        for (name, line) in position.open.iter().skip(1) {
            position.place.line = *line;
            self.remarks.warning(&position.place, format!("`{name} = {{` is never closed with `}}`"));
        }
    }

    fn line(&mut self, position: &mut Position, raw: &[u8], depth: usize) {
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if raw.len() > MAX_LINE {
            return self.remarks.mistake(&position.place, format!("this line is longer than {MAX_LINE} bytes"));
        }
        let content = raw.trim_ascii_start();
        let comment = content.starts_with(b"#") || content.starts_with(b";");
        if (content.is_empty() || comment) && position.pending.is_none() {
            return;
        }
        let Ok(line) = std::str::from_utf8(raw) else {
            return self.remarks.mistake(&position.place, "this line is not UTF-8");
        };
        if let Some(strange) = line.chars().find(|character| is_strange(*character)) {
            return self.remarks.mistake(
                &position.place,
                format!("this line holds the character {}; type it anew", strange.escape_unicode()),
            );
        }
        if let Some(file) = directive(line, "include") {
            return self.include(position, file, depth);
        }
        if let Some(directory) = directive(line, "includedir") {
            return self.include_directory(position, directory, depth);
        }
        if let Some(opened) = position.pending.take() {
            if line.trim_start().starts_with('{') {
                return;
            }
            let place = Place { line: opened, ..position.place.clone() };
            self.remarks.mistake(&place, "this relation has no value");
            self.close(position, "");
            if content.is_empty() || comment {
                return;
            }
        }
        if !position.begun && !line.starts_with('[') {
            return self.before_first_section(position, line);
        }
        position.begun = true;
        self.statement(position, line.trim());
    }

    /// What stands before the first section has no effect.
    fn before_first_section(&mut self, position: &Position, line: &str) {
        let place = &position.place;
        if directive(line, "module").is_some() {
            self.remarks.warning(place, "modules of MIT's library are not loaded");
        } else if line.trim_start().starts_with('[') {
            self.remarks.mistake(place, "the first section must begin in the first column, or all of it is ignored");
        } else if line.contains('=') {
            self.remarks
                .warning(place, "this line has no effect: it stands before the first section, as [libdefaults]");
        } else {
            self.remarks
                .warning(place, "this line has no effect: it stands before the first section and is no comment");
        }
    }

    fn statement(&mut self, position: &mut Position, line: &str) {
        let place = position.place.clone();
        if let Some(rest) = line.strip_prefix('[') {
            return self.header(position, rest);
        }
        if let Some(rest) = line.strip_prefix('}') {
            if position.open.len() < 2 {
                return self.remarks.mistake(&place, "this `}` closes nothing");
            }
            if !matches!(rest.trim(), "" | "*") {
                self.remarks.warning(&place, "what stands behind the `}` has no effect");
            }
            return self.close(position, rest);
        }
        if position.open.is_empty() {
            // The header of this section was wrong, which was said.
            return;
        }
        let Some((left, value)) = line.split_once('=') else {
            let hint = match line.split_whitespace().next() {
                Some("include" | "includedir") => "; include and includedir must begin in the first column",
                Some("module") => "; module must stand before the first section",
                _ => "",
            };
            return self.remarks.mistake(&place, format!("expected `name = value`{hint}"));
        };
        let left = left.trim();
        if left.contains(char::is_whitespace) {
            return self.remarks.mistake(&place, "expected one name before the `=`");
        }
        let (name, is_final) = match left.split_once('*') {
            Some((name, _)) => (name, true),
            None => (left, false),
        };
        if name.is_empty() {
            let hint = if is_final { "; all hosts of a domain are written .corp.example, without the `*`" } else { "" };
            return self.remarks.mistake(&place, format!("there is no name before the `=`{hint}"));
        }
        let value = value.trim();
        if value.is_empty() {
            position.pending = Some(place.line);
            return self.open(position, name, is_final);
        }
        if let Some(rest) = value.strip_prefix('{') {
            if !rest.is_empty() {
                return self.remarks.mistake(&place, "`{` must end its line, and `}` stand on a line of its own");
            }
            return self.open(position, name, is_final);
        }
        let value = match value.strip_prefix('"') {
            Some(rest) => self.unquoted(&place, rest),
            None => value.to_owned(),
        };
        self.relation(position, name, value, is_final);
    }

    /// `[name]`, without the first bracket.
    fn header(&mut self, position: &mut Position, rest: &str) {
        let place = position.place.clone();
        if let Some((name, line)) = position.open.get(1) {
            let text = format!("a section begins, but `{name} = {{` in line {line} was never closed with `}}`");
            self.remarks.mistake(&place, text);
        }
        position.open.clear();
        position.discard = 0;
        let Some((name, after)) = rest.split_once(']') else {
            return self.remarks.mistake(&place, "a `]` is missing");
        };
        if name.is_empty() || !after.strip_prefix('*').unwrap_or(after).trim().is_empty() {
            return self.remarks.mistake(&place, "expected only `[name]` in this line");
        }
        if !self.may_add(&place) {
            return;
        }
        let node = child(&mut self.profile.root, &mut self.profile.nodes, name, &place);
        position.discard = usize::from(node.is_final);
        node.is_final |= after.starts_with('*');
        position.open.push((name.to_owned(), place.line));
    }

    /// A subsection begins.
    fn open(&mut self, position: &mut Position, name: &str, is_final: bool) {
        let place = position.place.clone();
        if position.open.len() >= MAX_DEPTH {
            self.remarks.mistake(&place, format!("sections lie in each other deeper than {MAX_DEPTH}"));
            // Nothing in it counts; the braces still do.
            position.discard = if position.discard == 0 { position.open.len() + 1 } else { position.discard };
        } else if position.discard == 0 && self.may_add(&place) {
            let (nodes, count) = self.current(position);
            let node = child(nodes, count, name, &place);
            if node.is_final {
                position.discard = position.open.len() + 1;
            }
            node.is_final |= is_final;
        }
        position.open.push((name.to_owned(), place.line));
    }

    /// A subsection ends; `rest` is what stands behind its brace.
    fn close(&mut self, position: &mut Position, rest: &str) {
        let level = position.open.len();
        if rest.starts_with('*') && (position.discard == 0 || position.discard == level) {
            let Some((last, parents)) = position.open.split_last() else { return };
            let mut nodes = &mut self.profile.root;
            for (name, _) in parents {
                nodes = children(nodes, name);
            }
            if let Some(node) = nodes.iter_mut().find(|node| node.is_section(&last.0)) {
                node.is_final = true;
            }
        }
        position.open.pop();
        if position.open.len() < position.discard {
            position.discard = 0;
        }
    }

    fn relation(&mut self, position: &mut Position, name: &str, value: String, is_final: bool) {
        let place = position.place.clone();
        if position.discard != 0 || !self.may_add(&place) {
            return;
        }
        let (nodes, count) = self.current(position);
        let is_fixed = |node: &Node| node.is_final && node.name == name && matches!(node.value, Value::Relation(_));
        if nodes.iter().any(is_fixed) {
            return;
        }
        *count += 1;
        nodes.push(Node { name: name.to_owned(), value: Value::Relation(value), is_final, place });
    }

    /// The nodes of the innermost section that is open, and the number of all nodes.
    fn current(&mut self, position: &Position) -> (&mut Vec<Node>, &mut usize) {
        let mut nodes = &mut self.profile.root;
        for (name, _) in &position.open {
            nodes = children(nodes, name);
        }
        (nodes, &mut self.profile.nodes)
    }

    fn may_add(&mut self, place: &Place) -> bool {
        if self.profile.nodes == MAX_NODES {
            self.profile.nodes += 1;
            self.remarks.mistake(place, format!("more than {MAX_NODES} sections and relations"));
        }
        self.profile.nodes < MAX_NODES
    }

    /// A value in quotation marks, without the first one.
    fn unquoted(&mut self, place: &Place, text: &str) -> String {
        let mut value = String::new();
        let mut characters = text.chars();
        loop {
            match characters.next() {
                Some('"') => break,
                Some('\\') => match characters.next() {
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('b') => value.push('\u{8}'),
                    Some(other) => value.push(other),
                    None => value.push('\\'),
                },
                Some(other) => value.push(other),
                None => {
                    self.remarks.warning(place, "a quotation mark at the end is missing");
                    return value;
                }
            }
        }
        if !characters.as_str().trim().is_empty() {
            self.remarks.warning(place, "what stands behind the closing quotation mark has no effect");
        }
        value
    }

    fn include(&mut self, position: &Position, file: &str, depth: usize) {
        let place = &position.place;
        let path = PathBuf::from(file);
        if path.is_relative() {
            let text = format!("{file} is relative to the directory a program happens to run in; write a full path");
            self.remarks.warning(place, text);
        }
        self.include_file(place, &path, depth);
    }

    fn include_file(&mut self, place: &Place, path: &Path, depth: usize) {
        let Some(disk) = &mut self.disk else {
            return self.remarks.mistake(place, "nothing can be included here");
        };
        if depth >= MAX_INCLUDES {
            return self.remarks.mistake(place, format!("files include each other deeper than {MAX_INCLUDES}"));
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return self.remarks.mistake(place, format!("more than {MAX_FILES} files are included"));
        }
        match disk.read(path) {
            Ok(text) => self.file(&Arc::from(path), &text, depth + 1),
            Err(error) => self.remarks.mistake(place, format!("failed to include {}: {error}", path.display())),
        }
    }

    fn include_directory(&mut self, position: &Position, directory: &str, depth: usize) {
        let place = &position.place;
        let Some(disk) = &mut self.disk else {
            return self.remarks.mistake(place, "nothing can be included here");
        };
        match disk.list(Path::new(directory)) {
            Ok(files) => {
                for file in files {
                    self.include_file(place, &file, depth);
                    if self.files > MAX_FILES {
                        break;
                    }
                }
            }
            Err(error) => self.remarks.mistake(
                place,
                format!("failed to include the directory {directory}: {error}; create it (empty will do) or remove this line"),
            ),
        }
    }
}

impl Node {
    fn is_section(&self, name: &str) -> bool {
        self.name == name && matches!(self.value, Value::Section(_))
    }
}

/// The section `name` among `nodes`, made when it is not there.
fn child<'a>(nodes: &'a mut Vec<Node>, count: &mut usize, name: &str, place: &Place) -> &'a mut Node {
    let index = nodes.iter().position(|node| node.is_section(name)).unwrap_or_else(|| {
        *count += 1;
        let value = Value::Section(Vec::new());
        nodes.push(Node { name: name.to_owned(), value, is_final: false, place: place.clone() });
        nodes.len() - 1
    });
    &mut nodes[index]
}

/// The nodes of the section `name` among `nodes`; `nodes` itself when there is none, which does not happen for an open section
/// that counts.
fn children<'a>(nodes: &'a mut Vec<Node>, name: &str) -> &'a mut Vec<Node> {
    let Some(index) = nodes.iter().position(|node| node.is_section(name)) else { return nodes };
    match &mut nodes[index].value {
        Value::Section(children) => children,
        Value::Relation(_) => unreachable!("looked for a section"),
    }
}

/// `name ARGUMENT`, which must begin in the first column.
fn directive<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    rest.starts_with([' ', '\t']).then(|| rest.trim())
}

/// Characters that come from word processors and web pages and look like a blank or a quotation mark, and control characters.
/// MIT's library takes them for part of a name or a value.
fn is_strange(character: char) -> bool {
    let typographic =
        matches!(character, '\u{2018}'..='\u{201f}' | '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{ab}' | '\u{bb}');
    character.is_control() && character != '\t' || !character.is_ascii() && character.is_whitespace() || typographic
}

//! Secrets masked in output: wherever a stream holds one, `***` comes out.
//!
//! [`Patterns`] knows the forms that a secret takes in output: the text itself in UTF-8 and UTF-16LE, in XML, and base64 of
//! either wherever it begins in what was encoded; of secrets with several lines also each line. [`Masker`] follows one stream,
//! cut anywhere, and holds back only what may be the beginning of a secret. Every byte of every occurrence is masked, also
//! where occurrences overlap, so that the longest always wins; neighbours become one mask. Memory and time are linear.
//!
//! It must never show, print or keep a secret longer than it lives: patterns are zeroed on drop. What it cannot find: secrets
//! shorter than [`MIN_BYTES`], and ones that a program changed before writing them (hashed, reversed, wrapped into several
//! lines, split into two writes with something between). It does no I/O.

mod torn;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

use torn::Torn;

/// Shorter secrets, and shorter lines of secrets, are not masked: they would be found in ordinary text everywhere.
pub const MIN_BYTES: usize = 4;
/// What stands where a secret stood.
pub const MASK: &str = "***";

/// What to look for: an automaton after Aho and Corasick.
pub struct Patterns {
    nodes: Vec<Node>,
    /// Children of the root, by byte: nearly all bytes of nearly all output are looked up here.
    root: Zeroizing<Vec<u32>>,
}

/// A beginning of patterns.
#[derive(Clone, Copy, Default)]
struct Node {
    byte: u8,
    depth: u32,
    child: u32,
    sibling: u32,
    /// The longest proper suffix that is a beginning as well.
    fail: u32,
    /// Length of the longest pattern that ends here.
    found: u32,
    /// Length of the longest suffix that more bytes could make a pattern of.
    open: u32,
}

impl Patterns {
    /// For these secrets.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            collect_forms(secret, &mut forms);
            if secret.contains(['\r', '\n']) {
                for line in secret.split(['\r', '\n']) {
                    collect_forms(line.trim(), &mut forms);
                }
            }
        }
        // Never reallocated, which would leave copies behind.
        let capacity = 1 + forms.iter().map(|form| form.len()).sum::<usize>();
        let mut nodes = Vec::with_capacity(capacity);
        nodes.push(Node::default());
        let mut patterns = Self { nodes, root: Zeroizing::new(vec![0; 256]) };
        for form in &forms {
            patterns.insert(form);
        }
        patterns.link();
        patterns
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Masks a text that is whole.
    #[must_use]
    pub fn masked<'t>(self: &Arc<Self>, text: &'t str) -> Cow<'t, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut masker = Masker::new(Arc::clone(self));
        masker.push(Bytes::copy_from_slice(text.as_bytes()), &mut |piece| out.extend_from_slice(&piece));
        masker.finish(&mut |piece| out.extend_from_slice(&piece));
        if out == text.as_bytes() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(String::from_utf8_lossy(&out).into_owned())
    }

    /// All forms of all secrets.
    fn forms(&self) -> Vec<Zeroizing<Vec<u8>>> {
        let longest = self.nodes.iter().map(|node| node.depth as usize).max().unwrap_or_default();
        let mut forms = Vec::new();
        let mut path = Zeroizing::new(Vec::with_capacity(longest));
        let mut waiting: Vec<u32> = self.children(0).collect();
        while let Some(index) = waiting.pop() {
            let node = self.node(index);
            path.truncate(node.depth as usize - 1);
            path.push(node.byte);
            if node.found == node.depth {
                forms.push(path.clone());
            }
            waiting.extend(self.children(index));
        }
        forms
    }

    fn insert(&mut self, form: &[u8]) {
        let mut at = 0;
        for (depth, &byte) in (1..).zip(form) {
            at = match self.child(at, byte) {
                0 => self.add(at, byte, depth),
                child => child,
            };
        }
        let node = self.node_mut(at);
        node.found = node.depth;
    }

    fn add(&mut self, parent: u32, byte: u8, depth: u32) -> u32 {
        let Ok(index) = u32::try_from(self.nodes.len()) else { return 0 };
        let sibling = std::mem::replace(&mut self.node_mut(parent).child, index);
        self.nodes.push(Node { byte, depth, sibling, ..Node::default() });
        if parent == 0
            && let Some(slot) = self.root.get_mut(usize::from(byte))
        {
            *slot = index;
        }
        index
    }

    /// Breadth first, so that what is shorter is known already.
    fn link(&mut self) {
        let mut waiting: VecDeque<u32> = self.children(0).collect();
        while let Some(index) = waiting.pop_front() {
            for child in self.children(index).collect::<Vec<_>>() {
                let byte = self.node(child).byte;
                let fail = self.step(self.node(index).fail, byte);
                self.node_mut(child).fail = fail;
                waiting.push_back(child);
            }
            let shorter = *self.node(self.node(index).fail);
            let node = self.node_mut(index);
            if node.found == 0 {
                node.found = shorter.found;
            }
            node.open = if node.child == 0 { shorter.open } else { node.depth };
        }
    }

    fn children(&self, parent: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(self.node(parent).child), |&index| Some(self.node(index).sibling))
            .take_while(|&index| index != 0)
    }

    /// The child of `parent` by `byte`, or the root.
    fn child(&self, parent: u32, byte: u8) -> u32 {
        if parent == 0 {
            return self.root.get(usize::from(byte)).copied().unwrap_or(0);
        }
        self.children(parent).find(|&index| self.node(index).byte == byte).unwrap_or(0)
    }

    fn step(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            match self.child(at, byte) {
                0 if at == 0 => return 0,
                0 => at = self.node(at).fail,
                child => return child,
            }
        }
    }

    fn node(&self, index: u32) -> &Node {
        // INVARIANT: indices come from `add`, and nodes are never removed.
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }
}

impl Drop for Patterns {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.byte.zeroize();
        }
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Patterns([redacted])")
    }
}

/// All forms of one secret.
fn collect_forms(secret: &str, forms: &mut Vec<Zeroizing<Vec<u8>>>) {
    if secret.len() < MIN_BYTES {
        return;
    }
    let utf16 = Zeroizing::new(secret.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    forms.push(Zeroizing::new(secret.as_bytes().to_vec()));
    for bytes in [secret.as_bytes(), &utf16] {
        for before in 0..3 {
            let (standard, url_safe) = base64_forms(bytes, before);
            if standard != url_safe {
                forms.push(url_safe);
            }
            forms.push(standard);
        }
    }
    forms.push(utf16);
    if secret.contains(['&', '<', '>', '"', '\'']) {
        let mut escaped = Zeroizing::new(Vec::with_capacity(6 * secret.len()));
        for byte in secret.bytes() {
            match byte {
                b'&' => escaped.extend_from_slice(b"&amp;"),
                b'<' => escaped.extend_from_slice(b"&lt;"),
                b'>' => escaped.extend_from_slice(b"&gt;"),
                _ => escaped.push(byte),
            }
        }
        forms.push(escaped);
    }
}

/// The base64 characters that are the same whatever surrounds `bytes`, when `before` bytes come before them in their group of
/// three.
fn base64_forms(bytes: &[u8], before: usize) -> (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>) {
    let mut padded = Zeroizing::new(Vec::with_capacity(before + bytes.len()));
    padded.resize(before, 0);
    padded.extend_from_slice(bytes);
    // A character stands for six bits; those with bits of a neighbour are not ours.
    let (first, end) = ((8 * before).div_ceil(6), 8 * padded.len() / 6);
    let cut = |encoded: String| {
        let encoded = Zeroizing::new(encoded);
        Zeroizing::new(encoded.as_bytes().get(first..end).unwrap_or_default().to_vec())
    };
    (cut(STANDARD_NO_PAD.encode(&*padded)), cut(URL_SAFE_NO_PAD.encode(&*padded)))
}

/// Masks one stream.
#[derive(Debug)]
pub struct Masker {
    patterns: Arc<Patterns>,
    at: u32,
    /// Bytes that were handed on, masked or not.
    done: u64,
    /// Bytes behind them that may be part of a secret.
    held: Bytes,
    /// What is secret, from `done` on, in order, apart from each other.
    secret: VecDeque<(u64, u64)>,
    /// The last byte that was handed on was masked.
    masking: bool,
    /// Present while the stream may begin with the end of a secret.
    torn: Option<Torn>,
}

impl Masker {
    /// A masker at the beginning of a stream.
    #[must_use]
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, at: 0, done: 0, held: Bytes::new(), secret: VecDeque::new(), masking: false, torn: None }
    }

    /// A masker somewhere in a stream whose beginning is lost: the end of a secret is masked as well when it comes first, if
    /// it has [`MIN_BYTES`] or more.
    #[must_use]
    pub fn resumed(patterns: Arc<Patterns>) -> Self {
        Self { torn: Some(Torn::new(&patterns)), ..Self::new(patterns) }
    }

    /// Takes the next bytes of the stream, and hands on what is certain.
    pub fn push(&mut self, data: Bytes, out: &mut impl FnMut(Bytes)) {
        let data = match &mut self.torn {
            None => data,
            Some(torn) => {
                let Some((ending, rest)) = torn.push(&data) else { return };
                self.torn = None;
                if ending {
                    out(Bytes::from_static(MASK.as_bytes()));
                }
                rest
            }
        };
        if self.patterns.is_empty() {
            if !data.is_empty() {
                out(data);
            }
            return;
        }
        let start = self.done + self.held.len() as u64;
        let end = start + data.len() as u64;
        self.search(start, &data);
        let open = u64::from(self.patterns.node(self.at).open);
        let source = Source { begin: self.done, held: std::mem::take(&mut self.held), data };
        self.hand_on(end - open, &source, out);
        self.held = source.copy(end - open, end);
    }

    /// Hands on what is still held: the stream has ended.
    pub fn finish(&mut self, out: &mut impl FnMut(Bytes)) {
        if let Some(torn) = self.torn.take() {
            let (ending, rest) = torn.finish();
            if ending {
                out(Bytes::from_static(MASK.as_bytes()));
            }
            self.push(rest, out);
        }
        let source = Source { begin: self.done, held: std::mem::take(&mut self.held), data: Bytes::new() };
        self.hand_on(self.done + source.held.len() as u64, &source, out);
        self.at = 0;
        self.masking = false;
    }

    fn search(&mut self, start: u64, data: &[u8]) {
        let patterns = &*self.patterns;
        let mut at = self.at;
        for (end, &byte) in (start + 1..).zip(data) {
            at = patterns.step(at, byte);
            if at == 0 {
                continue;
            }
            let length = u64::from(patterns.node(at).found);
            if length > 0 {
                let mut begin = end - length;
                while let Some((_, before)) = self.secret.back().filter(|(_, before)| *before >= begin) {
                    debug_assert!(*before <= end, "occurrences are found in the order of their ends");
                    if let Some((earlier, _)) = self.secret.pop_back() {
                        begin = begin.min(earlier);
                    }
                }
                self.secret.push_back((begin, end));
            }
        }
        self.at = at;
    }

    /// Up to `until`.
    fn hand_on(&mut self, until: u64, source: &Source, out: &mut impl FnMut(Bytes)) {
        while self.done < until {
            let next = self.secret.front().copied().filter(|(begin, _)| *begin < until);
            match next {
                Some((begin, end)) if begin <= self.done => {
                    if !std::mem::replace(&mut self.masking, true) {
                        out(Bytes::from_static(MASK.as_bytes()));
                    }
                    self.done = end.min(until);
                    if self.done == end {
                        self.secret.pop_front();
                    }
                }
                next => {
                    let end = next.map_or(until, |(begin, _)| begin);
                    self.masking = false;
                    source.pieces(self.done, end, out);
                    self.done = end;
                }
            }
        }
    }
}

/// What was held and what came, one after the other.
struct Source {
    /// Position of the first byte.
    begin: u64,
    held: Bytes,
    data: Bytes,
}

impl Source {
    fn split(&self, begin: u64, end: u64) -> [Bytes; 2] {
        let index = |position: u64| usize::try_from(position.saturating_sub(self.begin)).unwrap_or(usize::MAX);
        let (begin, end, border) = (index(begin), index(end), self.held.len());
        let held = self.held.slice(begin.min(border)..end.min(border));
        let data = self.data.slice(begin.saturating_sub(border)..end.saturating_sub(border));
        [held, data]
    }

    fn pieces(&self, begin: u64, end: u64, out: &mut impl FnMut(Bytes)) {
        self.split(begin, end).into_iter().filter(|piece| !piece.is_empty()).for_each(out);
    }

    /// A copy, so that a few bytes do not keep a large buffer alive.
    fn copy(&self, begin: u64, end: u64) -> Bytes {
        if begin == end { Bytes::new() } else { Bytes::from(self.split(begin, end).concat()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(secrets: &[&str]) -> Arc<Patterns> {
        Arc::new(Patterns::new(secrets.iter().copied()))
    }

    fn masked<'a>(patterns: &Arc<Patterns>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut masker = Masker::new(Arc::clone(patterns));
        for piece in pieces {
            masker.push(Bytes::copy_from_slice(piece), &mut |piece| out.extend_from_slice(&piece));
        }
        masker.finish(&mut |piece| out.extend_from_slice(&piece));
        out
    }

    fn text(secrets: &[&str], output: &str) -> String {
        let patterns = patterns(secrets);
        let whole = masked(&patterns, [output.as_bytes()]);
        assert_eq!(masked(&patterns, output.as_bytes().chunks(1)), whole);
        assert_eq!(patterns.masked(output).as_bytes(), whole);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        assert_eq!(text(&["Secret-1"], "Secret-1"), "***");
        assert_eq!(text(&["Secret-1"], "a Secret-1, Secret-1Secret-1 Secret- 1"), "a ***, *** Secret- 1");
        assert_eq!(text(&["Secret", "Secret-1"], "Secret-1 Secret-2"), "*** ***-2");
        // One begins within the other: nothing of either stays.
        assert_eq!(text(&["abcde", "defgh"], "xabcdefghx"), "x***x");
        assert_eq!(text(&["aaaa"], "aaaaaaa b aaa"), "*** b aaa");
        assert_eq!(text(&["pässwört"], "x pässwört y"), "x *** y");
    }

    #[test]
    fn base64_is_masked_at_every_offset() {
        for before in ["", "a", "ab", "abc"] {
            for after in ["", "x", "xy", "xyz"] {
                let clear = format!("{before}Tr0ub4dor&3{after}");
                let utf16: Vec<u8> = clear.encode_utf16().flat_map(u16::to_le_bytes).collect();
                for encoded in [STANDARD_NO_PAD.encode(&clear), STANDARD_NO_PAD.encode(utf16)] {
                    let out = text(&["Tr0ub4dor&3"], &encoded);
                    assert!(out.contains(MASK), "{encoded} became {out}");
                    // What stays holds less than one byte of the secret on either side.
                    let rest = out.len() - MASK.len();
                    let most = (before.len() + after.len()) * 2 * 4 / 3 + 4;
                    assert!(rest <= most, "{encoded} became {out}");
                }
            }
        }
        let url_safe = URL_SAFE_NO_PAD.encode("~~~???>>>");
        assert_eq!(text(&["~~~???>>>"], &url_safe), "***");
    }

    #[test]
    fn utf16_and_xml_are_masked() {
        let utf16: Vec<u8> = "a Secret-1 b".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(masked(&patterns(&["Secret-1"]), utf16.chunks(3)), b"a\0 \0*** \0b\0");
        assert_eq!(text(&["R&D<1>"], "<S>R&amp;D&lt;1&gt;</S>"), "<S>***</S>");
    }

    #[test]
    fn lines_of_a_secret_are_secrets() {
        let key = "-----BEGIN KEY-----\nMIIEvQIB\n\n}\r\nADANBgkq\n";
        assert_eq!(text(&[key], "a MIIEvQIB b\r\nADANBgkq\r\n}"), "a *** b\r\n***\r\n}");
        assert_eq!(text(&[key], key), "***");
    }

    #[test]
    fn short_secrets_are_left_alone() {
        assert_eq!(text(&["abc", "", "\n"], "abc abc"), "abc abc");
        assert!(patterns(&["abc"]).is_empty());
        assert_eq!(text(&["abcd"], "abcd"), "***");
    }

    #[test]
    fn only_the_beginning_of_a_secret_is_held_back_and_nothing_is_copied() {
        let patterns = patterns(&["Secret-1"]);
        let mut masker = Masker::new(Arc::clone(&patterns));
        let data = Bytes::from_static(b"a line without any\r\nSecr");
        let mut pieces = Vec::new();
        masker.push(data.clone(), &mut |piece| pieces.push(piece));
        assert_eq!(pieces, ["a line without any\r\n"]);
        assert_eq!(pieces[0].as_ptr(), data.as_ptr());
        // A whole secret that nothing longer begins with goes at once.
        masker.push(Bytes::from_static(b"et-1"), &mut |piece| pieces.push(piece));
        assert_eq!(pieces.last().unwrap(), MASK);
        masker.push(Bytes::from_static(b"S"), &mut |piece| panic!("{piece:?}"));
        masker.push(Bytes::from_static(b"o"), &mut |piece| pieces.push(piece));
        assert_eq!(pieces.concat(), b"a line without any\r\n***So");
    }

    #[test]
    fn nothing_shows_the_secret() {
        assert_eq!(format!("{:?}", Masker::new(patterns(&["Secret-1"]))).matches("Secret-1").count(), 0);
    }

    /// Marks what is covered, byte by byte.
    fn oracle(patterns: &[&str], output: &[u8]) -> Vec<u8> {
        let mut forms = Vec::new();
        for secret in patterns {
            collect_forms(secret, &mut forms);
        }
        let mut covered = vec![false; output.len()];
        for form in &forms {
            for start in 0..output.len() {
                if output[start..].starts_with(form) {
                    covered[start..start + form.len()].fill(true);
                }
            }
        }
        let mut out = Vec::new();
        for (at, &byte) in output.iter().enumerate() {
            match (covered[at], at > 0 && covered[at - 1]) {
                (true, false) => out.extend_from_slice(MASK.as_bytes()),
                (true, true) => {}
                (false, _) => out.push(byte),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn as_a_naive_search_however_the_stream_is_cut(
            secrets in proptest::collection::vec("[ab]{3,7}", 0..4),
            output in proptest::collection::vec(prop_oneof![
                "[ab]{0,6}".prop_map(String::into_bytes),
                "[ab]{4,7}".prop_map(|text| STANDARD_NO_PAD.encode(text).into_bytes()),
                Just(b"YWFhYWFh".to_vec()),
                Just(b"a\0b\0a\0a\0".to_vec()),
            ], 0..12),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let output = output.concat();
            let patterns = patterns(&secrets);
            let expected = oracle(&secrets, &output);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(output.len() + 1)).collect();
            cuts.extend([0, output.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &output[pair[0]..pair[1]]);
            prop_assert_eq!(masked(&patterns, pieces), expected);
        }
    }
}

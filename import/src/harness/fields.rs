//! The fields of a mapping, taken one by one: what nobody takes is an unknown field.

use std::collections::BTreeMap;

use crate::yaml::{Node, Scalar};

/// Fields that are left, and what was wrong with those that were taken.
#[derive(Default)]
pub(super) struct Fields<'a> {
    path: String,
    line: usize,
    left: BTreeMap<String, (usize, &'a Node)>,
    mistakes: Vec<(usize, String)>,
}

impl<'a> Fields<'a> {
    /// The fields of a mapping; `path` is what stands before their names in messages.
    pub(super) fn new(node: &'a Node, path: &str) -> Self {
        let mut fields = Self { path: path.to_owned(), line: node.line, ..Self::default() };
        match node.entries() {
            Some(entries) => {
                for (key, value) in entries {
                    match key.text() {
                        Some(name) => drop(fields.left.insert(name.to_owned(), (key.line, value))),
                        None => fields.mistakes.push((key.line, "a field whose name is no text".to_owned())),
                    }
                }
            }
            None if node.is_null() => {}
            None => fields.mistakes.push((node.line, format!("{} must be a mapping", fields.full("")))),
        }
        fields
    }

    /// No fields.
    pub(super) fn nothing(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// What is left of others.
    pub(super) fn rest_of(other: &mut Self) -> Self {
        let left = std::mem::take(&mut other.left);
        Self { path: other.path.clone(), line: other.line, left, mistakes: Vec::new() }
    }

    /// Adds a field that was taken elsewhere.
    pub(super) fn give(&mut self, name: &str, node: Option<&'a Node>) {
        if let Some(node) = node {
            self.line = if self.line == 0 { node.line } else { self.line };
            self.left.insert(name.to_owned(), (node.line, node));
        }
    }

    /// Where the mapping begins.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Whether a field is left.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// Takes a field, whatever it is.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a Node> {
        self.left.remove(name).map(|(_, node)| node)
    }

    /// Takes a text; numbers and truths as they are written.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let (line, node) = self.left.remove(name)?;
        if node.is_null() {
            return None;
        }
        match node.text() {
            Some(text) if text.contains("<+input>") => {
                self.wrong(line, name, "is filled in when a pipeline runs: write the value itself")
            }
            Some(text) => Some(text.to_owned()),
            None => self.wrong(line, name, "must be a text"),
        }
    }

    /// Takes a truth.
    pub(super) fn truth(&mut self, name: &str) -> Option<bool> {
        let (line, node) = self.left.remove(name)?;
        match (node.scalar(), node.text()) {
            (Some(Scalar::Null), _) => None,
            (Some(Scalar::Bool(value)), _) => Some(value),
            (_, Some("true")) => Some(true),
            (_, Some("false")) => Some(false),
            _ => self.wrong(line, name, "must be true or false"),
        }
    }

    /// Takes a number.
    pub(super) fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let (line, node) = self.left.remove(name)?;
        if node.is_null() {
            return None;
        }
        let number = node.text().and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
        match number {
            Some(number) => Some(number),
            None => self.wrong(line, name, &format!("must be a number from {} to {}", range.start(), range.end())),
        }
    }

    /// Takes one of some words.
    pub(super) fn word(&mut self, name: &str, words: &[&str]) -> Option<String> {
        let line = self.left.get(name).map_or(0, |(line, _)| *line);
        let text = self.text(name)?;
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        self.wrong(line, name, &format!("must be one of {}", words.join(", ")))
    }

    /// What was wrong, and fields that nobody took.
    pub(super) fn finish(self) -> Vec<(usize, String)> {
        let mut mistakes = self.mistakes;
        for (name, (line, _)) in &self.left {
            // What stands in the place of a name may be anything.
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            let full = if self.path.is_empty() { name } else { format!("{}.{name}", self.path) };
            mistakes.push((*line, format!("unknown field {full}")));
        }
        mistakes
    }

    fn full(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, true) => "a credential".to_owned(),
            (true, false) => name.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{name}", self.path),
        }
    }

    fn wrong<T>(&mut self, line: usize, name: &str, expected: &str) -> Option<T> {
        let full = self.full(name);
        self.mistakes.push((line, format!("{full} {expected}")));
        None
    }
}

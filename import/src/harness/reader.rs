//! What reading credentials and reading connectors have in common: what is found, and what is wrong, with bounds.

use std::collections::HashMap;
use std::sync::Arc;

use super::fields::Fields;
use crate::Mistake;
use crate::yaml::{self, Node};

/// What was found in a text so far.
pub(super) struct Reader<'a, T> {
    file: &'a Arc<str>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) found: Vec<T>,
    /// What was passed over: type and line.
    pub(super) others: Vec<(String, usize)>,
}

impl<'a, T> Reader<'a, T> {
    pub(super) fn new(file: &'a Arc<str>) -> Self {
        Self { file, mistakes: Vec::new(), found: Vec::new(), others: Vec::new() }
    }

    /// The documents of a text, which may begin with a byte order mark.
    pub(super) fn documents(&self, text: &str) -> Result<Vec<Node>, Vec<Mistake>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        yaml::documents(text, self.file).map_err(|mistake| vec![mistake])
    }

    pub(super) fn mistake(&mut self, line: usize, message: impl Into<String>) {
        if self.mistakes.len() < MAX_MISTAKES {
            self.mistakes.push(Mistake::new(self.file, line, message));
        }
    }

    /// What was wrong in sections, and fields that nobody took.
    pub(super) fn check_fields<'f>(&mut self, sections: impl IntoIterator<Item = Fields<'f>>) {
        for (line, message) in sections.into_iter().flat_map(Fields::finish) {
            self.mistake(line, message);
        }
    }

    pub(super) fn check_text(&mut self, line: usize, field: &str, text: &str, most: usize) {
        if text.chars().count() > most || text.contains(|c: char| c.is_control()) {
            self.mistake(line, format!("{field} must be one line of at most {most} characters"));
        }
    }

    pub(super) fn check_scope(&mut self, line: usize, scope: &str) {
        if !scope.is_empty() && (scope.len() > 256 || !scope.split('/').all(is_name)) {
            self.mistake(line, "orgIdentifier, projectIdentifier or lictor.scope is no scope: a path of names such as platform/production");
        }
    }

    /// What was found and what was passed over, or all mistakes: that nothing is there, too, and that two have the same in the
    /// field that tells them apart. `what` they are is for messages; `name` gives that field and the line.
    pub(super) fn finish(
        mut self,
        what: &str,
        field: &str,
        name: impl Fn(&T) -> (&str, usize),
    ) -> Result<(Vec<T>, Others), Vec<Mistake>> {
        let mut lines: HashMap<&str, usize> = HashMap::new();
        let mut twice = Vec::new();
        for (name, line) in self.found.iter().map(name) {
            if let Some(first) = lines.insert(name, line) {
                let message = format!(
                    "the {field} {name} is that of the {what} in line {first} too: give one of them another by lictor.{field}"
                );
                twice.push((line, message));
            }
        }
        for (line, message) in twice {
            self.mistake(line, message);
        }
        if self.mistakes.is_empty() && self.found.is_empty() && self.others.is_empty() {
            self.mistake(0, format!("it holds no {what}"));
        }
        if self.mistakes.is_empty() { Ok((self.found, self.others)) } else { Err(self.mistakes) }
    }
}

/// Where something belongs in Harness: the account (empty), the organisation, or the project.
pub(super) fn scope_of(organisation: Option<&str>, project: Option<&str>) -> String {
    match (organisation, project) {
        (Some(organisation), Some(project)) => format!("{organisation}/{project}"),
        (Some(organisation), None) => organisation.to_owned(),
        (None, _) => String::new(),
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Documents that were passed over: what each is, and its line.
type Others = Vec<(String, usize)>;

/// Bound for what is told of one text.
const MAX_MISTAKES: usize = 100;

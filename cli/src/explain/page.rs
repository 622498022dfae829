//! docs/errors.md as values. The page is ours and is made by a program, so its form is fixed; a line that is none of the known ones
//! belongs to the text for people and is passed over.

use serde::Serialize;

/// One code.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) code: String,
    pub(crate) stage: String,
    pub(crate) causes: Vec<Cause>,
    /// What other tools print.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) also_known_as: Vec<String>,
    /// `FILE::TEST`.
    pub(crate) provoked_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) derived_from: Option<String>,
}

/// One cause of a code.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    /// How it reads, with example names.
    pub(crate) message: String,
    pub(crate) cause: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_text: Option<String>,
}

pub(crate) fn parse(page: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut stage = String::new();
    let mut message = String::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("Stage `").and_then(|rest| rest.strip_suffix("`.")) {
            name.clone_into(&mut stage);
        } else if let Some(code) = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')) {
            message.clear();
            entries.push(Entry { code: code.to_owned(), stage: stage.clone(), ..Entry::default() });
        }
        let Some(entry) = entries.last_mut() else { continue };
        if let Some(text) = line.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
            text.clone_into(&mut message);
        } else if let Some(cause) = line.strip_prefix("- **Cause:** ") {
            entry.causes.push(Cause { message: message.clone(), cause: cause.to_owned(), ..Cause::default() });
        } else if let Some(test) = line.strip_prefix("- **Provoked by:** ") {
            entry.provoked_by.extend(provoked_by(test));
        } else if let Some(text) = line.strip_prefix("- **Also known as:** `") {
            entry.also_known_as.extend(text.strip_suffix('`').map(str::to_owned));
        } else if let Some(source) = line.strip_prefix("- **Derived from:** ") {
            entry.derived_from = Some(source.to_owned());
        } else if let Some(cause) = entry.causes.last_mut() {
            if let Some(remedy) = line.strip_prefix("- **Remedy:** ") {
                cause.remedy = Some(remedy.to_owned());
            } else if let Some(known) = line.strip_prefix("- **Known as:** `") {
                cause.legacy_text = known.strip_suffix('`').map(str::to_owned);
            }
        }
    }
    entries
}

/// From a test's name and a link to its file.
fn provoked_by(text: &str) -> Option<String> {
    let (name, rest) = text.strip_prefix('`')?.split_once("` in [")?;
    let (file, _) = rest.split_once(']')?;
    Some(format!("{file}::{name}"))
}

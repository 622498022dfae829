//! The report: a table for people, JSON and Markdown for us.
//!
//! INVARIANT: nothing is written before the password, and, unless they were asked for, names of the host, its user, its domain
//! and the client are taken out. Lengths are bounded where evidence is made.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::checks::{Finding, Outcome};

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) kit: &'static str,
    pub(crate) started: String,
    pub(crate) took_seconds: u64,
    pub(crate) connection: String,
    /// What Identify told.
    pub(crate) host: String,
    pub(crate) summary: Summary,
    /// Nothing: the host's own list could not be read at the end.
    pub(crate) shells_left_behind: Option<usize>,
    pub(crate) interrupted: bool,
    pub(crate) checks: Vec<Row>,
}

/// How many checks came to what.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) as_expected: usize,
    pub(crate) differs: usize,
    pub(crate) could_not_tell: usize,
    pub(crate) skipped: usize,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) result: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) source: &'static str,
    pub(crate) evidence: Vec<String>,
    pub(crate) took_ms: u64,
}

impl Summary {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::AsExpected => &mut self.as_expected,
            Outcome::Differs => &mut self.differs,
            Outcome::CouldNotTell => &mut self.could_not_tell,
            Outcome::Skipped => &mut self.skipped,
        } += 1;
    }
}

impl Row {
    pub(crate) fn new(check: &crate::checks::Check, finding: &Finding, took: Duration) -> Self {
        Self {
            name: check.name,
            result: finding.outcome.as_str(),
            expected: check.expected,
            source: check.source,
            evidence: finding.evidence.clone(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Report {
    /// Takes names out of everything that a host can have put in.
    pub(crate) fn hide(&mut self, names: &[(String, &'static str)]) {
        // Long ones first: a name can be part of another.
        let mut names = names.to_vec();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let clean = |text: &mut String| {
            for (name, instead) in &names {
                *text = replace_word(text, name, instead);
            }
        };
        clean(&mut self.host);
        clean(&mut self.connection);
        self.checks.iter_mut().flat_map(|row| row.evidence.iter_mut()).for_each(clean);
    }

    /// Writes `BASE.json` and `BASE.md`, and tells their paths.
    pub(crate) fn write(&self, base: &Path) -> Result<[PathBuf; 2]> {
        let with = |extension: &str| {
            let mut path = base.as_os_str().to_owned();
            path.push(extension);
            PathBuf::from(path)
        };
        let paths = [with(".json"), with(".md")];
        let contents = [serde_json::to_string_pretty(self)?, self.markdown()];
        for (path, content) in paths.iter().zip(contents) {
            std::fs::write(path, content + "\n").with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(paths)
    }

    fn markdown(&self) -> String {
        let mut text = format!("# WinRM on a Windows host\n\n- Kit: {}\n- Started: {}\n", self.kit, self.started);
        // Writing into a String cannot fail.
        let _ = writeln!(text, "- Connection: {}\n- Host: {}", self.connection, self.host);
        let _ = writeln!(text, "- {}\n", self.totals());
        text.push_str("| check | result | ms |\n|---|---|---|\n");
        for row in &self.checks {
            let _ = writeln!(text, "| {} | {} | {} |", row.name, row.result, row.took_ms);
        }
        for row in &self.checks {
            let _ = write!(
                text,
                "\n## {}: {}\n\n- Expected: {}\n- Source: {}\n\n```\n",
                row.name, row.result, row.expected, row.source
            );
            for line in &row.evidence {
                // No evidence ends the block that it stands in.
                let _ = writeln!(text, "{}", line.replace("```", "'''"));
            }
            text.push_str("```\n");
        }
        text
    }

    /// One line.
    pub(crate) fn totals(&self) -> String {
        let Summary { as_expected, differs, could_not_tell, skipped } = &self.summary;
        let left = match self.shells_left_behind {
            Some(left) => format!("{left} shells left behind"),
            None => "it could not be found out whether shells were left behind".to_owned(),
        };
        let interrupted = if self.interrupted { "; interrupted" } else { "" };
        format!(
            "{as_expected} as expected, {differs} differ, {could_not_tell} could not be told, {skipped} skipped; {left}{interrupted}"
        )
    }
}

/// Replaces `name`, whatever its case, where it stands as a word of its own.
fn replace_word(text: &str, name: &str, instead: &str) -> String {
    // ASCII case only, so that positions are those of the text itself.
    let (lower, wanted) = (text.to_ascii_lowercase(), name.to_ascii_lowercase());
    let part_of_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut replaced = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find(&wanted).map(|offset| at + offset) {
        let end = found + wanted.len();
        let inside = part_of_word(lower[..found].chars().next_back()) && part_of_word(wanted.chars().next())
            || part_of_word(lower[end..].chars().next()) && part_of_word(wanted.chars().next_back());
        replaced.push_str(&text[at..found]);
        replaced.push_str(if inside { &text[found..end] } else { instead });
        at = end;
    }
    replaced.push_str(&text[at..]);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_where_they_are_words() {
        assert_eq!(replace_word("CORP\\Alice at alice, malice", "alice", "<user>"), "CORP\\<user> at <user>, malice");
        assert_eq!(replace_word("WIN01.corp.example", "win01.CORP.example", "<host>"), "<host>");
        assert_eq!(replace_word("10.0.0.71 10.0.0.7", "10.0.0.7", "<client>"), "10.0.0.71 <client>");
        assert_eq!(replace_word("é x é", "é", "?"), "? x ?");
        assert_eq!(replace_word("nothing", "x", "y"), "nothing");
    }
}

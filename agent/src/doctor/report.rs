//! What `doctor` found, written down while it looks and told at once or as JSON at the end.
//!
//! Hosts, KDCs and files have a hand in the texts: nothing of them may steer a terminal.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use lictor_doctor::{Finding, Outcome, Step};
use serde::Serialize;

/// How to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people, while it looks.
    Text,
    /// One JSON object at the end.
    Json,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Entry {
    area: String,
    check: String,
    outcome: &'static str,
    elapsed_ms: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    code: String,
    message: String,
    cause: String,
    remedy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    legacy_text: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suspects: Vec<ToldSuspect>,
}

#[derive(Debug, Serialize)]
struct ToldSuspect {
    code: &'static str,
    cause: String,
    remedy: String,
}

/// Everything that was looked at.
#[derive(Debug)]
pub(super) struct Book {
    output: Output,
    area: String,
    entries: Vec<Entry>,
    since: Instant,
    /// What could not be written.
    broken: Option<io::Error>,
}

impl Book {
    pub(super) fn new(output: Output) -> Self {
        Self { output, area: String::new(), entries: Vec::new(), since: Instant::now(), broken: None }
    }

    /// For what is found where this one cannot be; it tells nothing by itself.
    pub(super) fn aside(&self) -> Self {
        Self { area: self.area.clone(), ..Self::new(Output::Json) }
    }

    /// Adds and tells what was written aside.
    pub(super) fn adopt(&mut self, aside: Self) {
        self.since = aside.since;
        aside.entries.into_iter().for_each(|entry| self.tell(entry));
    }

    /// What follows belongs together.
    pub(super) fn area(&mut self, name: &str) {
        name.clone_into(&mut self.area);
        if self.output == Output::Text {
            let gap = if self.entries.is_empty() { "" } else { "\n" };
            self.print(&format!("{gap}{}\n", clean(name)));
        }
        self.since = Instant::now();
    }

    pub(super) fn passed(&mut self, check: &str, detail: impl Into<String>) {
        self.add(check, Outcome::Passed, detail.into(), None);
    }

    pub(super) fn warn(&mut self, check: &str, detail: impl Into<String>, finding: Finding) {
        self.add(check, Outcome::Warning, detail.into(), Some(&finding));
    }

    pub(super) fn failed(&mut self, check: &str, detail: impl Into<String>, finding: Finding) {
        self.add(check, Outcome::Failed, detail.into(), Some(&finding));
    }

    pub(super) fn unknown(&mut self, check: &str, why: impl Into<String>) {
        self.add(check, Outcome::Unknown, why.into(), None);
    }

    pub(super) fn skipped(&mut self, check: &str, why: impl Into<String>) {
        self.add(check, Outcome::Skipped, why.into(), None);
    }

    /// A step that the crate `lictor-doctor` took.
    pub(super) fn step(&mut self, step: &Step) {
        self.add(step.check.as_str(), step.outcome, step.detail.clone(), step.finding.as_ref());
    }

    /// The same where nobody knows whether it matters: what does not work is a warning.
    pub(super) fn doubt(&mut self, step: &Step) {
        let outcome = if step.outcome == Outcome::Failed { Outcome::Warning } else { step.outcome };
        self.add(step.check.as_str(), outcome, step.detail.clone(), step.finding.as_ref());
    }

    /// Whether anything does not work.
    pub(super) fn has_failed(&self) -> bool {
        self.count("failed") > 0
    }

    fn add(&mut self, check: &str, outcome: Outcome, detail: String, finding: Option<&Finding>) {
        let elapsed = if outcome == Outcome::Skipped { Duration::ZERO } else { self.since.elapsed() };
        self.since = Instant::now();
        let entry = Entry {
            area: self.area.clone(),
            check: check.to_owned(),
            outcome: name(outcome),
            elapsed_ms: (elapsed.as_secs_f64() * 1e6).round() / 1e3,
            detail,
            finding: finding.map(Told::from),
        };
        self.tell(entry);
    }

    fn tell(&mut self, entry: Entry) {
        if self.output == Output::Text {
            self.print(&line(&entry));
        }
        self.entries.push(entry);
    }

    /// Tells the rest.
    ///
    /// # Errors
    /// When something could not be written, other than because nobody reads any more.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let [failed, warnings, unknown] = ["failed", "warning", "unknown"].map(|outcome| self.count(outcome));
        let outcome = match (failed, warnings) {
            (0, 0) => "passed",
            (0, _) => "warning",
            _ => "failed",
        };
        match self.output {
            Output::Text => {
                let plural = if warnings == 1 { "" } else { "s" };
                self.print(&format!("\n{failed} failed, {warnings} warning{plural}, {unknown} unknown\n"));
            }
            Output::Json => {
                #[derive(Serialize)]
                struct Whole<'a> {
                    outcome: &'static str,
                    failed: usize,
                    warnings: usize,
                    unknown: usize,
                    checks: &'a [Entry],
                }
                let whole = Whole { outcome, failed, warnings, unknown, checks: &self.entries };
                let text = serde_json::to_string_pretty(&whole).map_err(io::Error::other)?;
                self.print(&format!("{text}\n"));
            }
        }
        match self.broken {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn count(&self, outcome: &str) -> usize {
        self.entries.iter().filter(|entry| entry.outcome == outcome).count()
    }

    /// Checks with their outcomes and codes.
    #[cfg(test)]
    pub(super) fn found(&self) -> Vec<(&str, &str, &str)> {
        fn code(entry: &Entry) -> &str {
            entry.finding.as_ref().map_or("", |finding| finding.code.as_str())
        }
        self.entries.iter().map(|entry| (entry.check.as_str(), entry.outcome, code(entry))).collect()
    }

    fn print(&mut self, text: &str) {
        if self.broken.is_none() {
            let mut out = io::stdout().lock();
            self.broken = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        }
    }
}

impl From<&Finding> for Told {
    fn from(finding: &Finding) -> Self {
        Self {
            code: finding.code.to_string(),
            message: finding.message.clone(),
            cause: finding.cause.clone(),
            remedy: finding.remedy.clone(),
            legacy_text: finding.legacy_text.clone(),
            suspects: finding
                .suspects
                .iter()
                .map(|suspect| ToldSuspect {
                    code: suspect.code,
                    cause: suspect.cause.clone(),
                    remedy: suspect.remedy.clone(),
                })
                .collect(),
        }
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Warning => "warning",
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
        Outcome::Skipped => "skipped",
    }
}

fn line(entry: &Entry) -> String {
    let mark = match entry.outcome {
        "passed" => "ok",
        "warning" => "warn",
        "failed" => "FAIL",
        "unknown" => "?",
        _ => "skip",
    };
    let shown = entry.finding.as_ref().map(|finding| finding.message.as_str()).filter(|_| entry.detail.is_empty());
    let mut text = format!("  {mark:<4}  {:<14}  {}", entry.check, clean(shown.unwrap_or(&entry.detail)));
    text.truncate(text.trim_end().len());
    text.push('\n');
    let Some(finding) = &entry.finding else { return text };
    let mut say = |what: &str, words: &str| {
        let words = clean(words);
        if !words.trim_end().is_empty() {
            text.push_str(&format!("          {what}{}\n", words.trim_end()));
        }
    };
    say("", finding.legacy_text.as_deref().unwrap_or_default());
    let message = if shown.is_some() { "" } else { finding.message.as_str() };
    say("", format!("[{}] {message}", finding.code).trim_end());
    say("cause:  ", &finding.cause);
    say("remedy: ", &finding.remedy);
    if !finding.suspects.is_empty() {
        say("", "it may be, the most likely first:");
    }
    for (index, suspect) in finding.suspects.iter().enumerate() {
        say("  ", &format!("{}. [{}] {}", index + 1, suspect.code, suspect.cause));
        say("     ", &suspect.remedy);
    }
    text
}

/// On one line, without characters that move the cursor, change colours, or turn the order of reading.
fn clean(text: &str) -> String {
    let unseen = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.trim().chars().map(|c| if c.is_control() || unseen(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_in_full_and_steers_no_terminal() {
        let mut book = Book::new(Output::Json);
        book.area("host \u{1b}[2Jx");
        let suspect = lictor_doctor::Suspect { code: "a.b", cause: "first\u{202e}".into(), remedy: "do this".into() };
        let finding = Finding {
            code: "auth.rejected".into(),
            message: "no\u{7}".into(),
            cause: "why".into(),
            remedy: "what".into(),
            legacy_text: Some("Unauthorized".into()),
            suspects: vec![suspect],
        };
        book.failed("authenticate", "", finding.clone());
        book.warn("tls", "seen", finding);
        book.skipped("run", "not tried");
        assert!(book.has_failed());
        let text: String = book.entries.iter().map(line).collect();
        let told = |message: &str| {
            format!(
                "          Unauthorized\n          [auth.rejected]{message}\n          cause:  why\n          remedy: what\n          it may be, \
                 the most likely first:\n            1. [a.b] first\n               do this\n"
            )
        };
        let expected = format!(
            "  FAIL  authenticate    no\n{}  warn  tls             seen\n{}  skip  run             not tried\n",
            told(""),
            told(" no")
        );
        assert_eq!(text, expected);
        let json = serde_json::to_value(&book.entries).unwrap();
        assert_eq!(json[0]["finding"]["suspects"][0]["code"], "a.b");
        assert_eq!((&json[2]["outcome"], &json[2]["finding"]), (&"skipped".into(), &serde_json::Value::Null));
    }
}

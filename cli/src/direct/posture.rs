//! `lictor winrm posture`: how safely WinRM is set up on a host, row by row.

use std::time::Duration;

use lictor_doctor::posture::{self, Options, Row, Verdict};
use lictor_winrm::Target;
use lictor_winrm::connection::ConnectionDetails;
use lictor_winrm::pool::{Pool, PoolSettings};
use serde::Serialize;
use tokio::time::Instant;

use super::who::Who;
use super::{ConnectionView, milliseconds};
use crate::args::Output;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::{console, interrupt};

/// Looks at the host. The exit code is 0 when no row fails.
pub(super) async fn look(
    target: &Target,
    who: &Who,
    options: Options,
    timeout: Duration,
    output: Output,
) -> Result<Exit, Failure> {
    let interrupted = interrupt::listen("stopping; press Ctrl-C again to quit at once")?;
    let started = Instant::now();
    if output == Output::Text {
        console::print_line(&format!("Looking at {} as {}", target.endpoint, clean(&who.name)))?;
    }
    let pool = Pool::new(PoolSettings { max_sessions: 1, ..PoolSettings::default() });
    let looked = tokio::select! {
        looked = posture::inspect(&pool, target, options, started + timeout) => looked.map_err(|error| Failure::from(&error)),
        () = interrupted.cancelled() => {
            Err(Failure::own(Exit::CANCELLED, "local", "local.interrupted", "the look was interrupted".to_owned(), String::new(), String::new()))
        }
    };
    let left = pool.close(Instant::now() + CLEANUP).await;
    if left > 0 {
        tracing::warn!(left, "Failed to delete the shell of a posture check");
    }
    let found = looked?;
    let count = |verdict| found.count(verdict);
    let counts = Counts { pass: count(Verdict::Pass), fail: count(Verdict::Fail), unknown: count(Verdict::Unknown) };
    let exit = if counts.fail == 0 { Exit::SUCCESS } else { Exit::POSTURE };
    match output {
        Output::Text => {
            console::print(&table(&found.rows))?;
            console::print_line(&counts.line())?;
        }
        Output::Json => console::print_json(&PostureView {
            outcome: if counts.fail == 0 { "succeeded" } else { "failed" },
            rows: found.rows.iter().map(RowView::from).collect(),
            counts,
            connection: connection(&found.connection),
            timings_ms: Timings { total: milliseconds(started.elapsed()) },
        })?,
    }
    Ok(exit)
}

/// How long the script's shell may take to be deleted, beyond the time for the look too.
const CLEANUP: Duration = Duration::from_secs(15);

/// One line for each row, and below those that fail what to do.
fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let mark = match row.verdict {
            Verdict::Pass => "ok",
            Verdict::Fail => "FAIL",
            Verdict::Unknown => "?",
        };
        text.push_str(&format!("  {mark:<4}  {:<23}  {}\n", row.check, clean(&row.found)));
        if row.verdict == Verdict::Fail {
            text.push_str(&format!("        wanted: {}\n        fix:    {}\n", clean(&row.wanted), clean(&row.fix)));
        }
    }
    text
}

fn connection(details: &ConnectionDetails) -> ConnectionView {
    ConnectionView {
        auth: details.auth,
        sealed: details.sealed,
        reused: false,
        tls: details.tls.as_ref().map(ToString::to_string),
        warnings: details.warnings.clone(),
    }
}

#[derive(Debug, Serialize)]
struct PostureView {
    outcome: &'static str,
    rows: Vec<RowView>,
    counts: Counts,
    connection: ConnectionView,
    timings_ms: Timings,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Counts {
    pass: usize,
    fail: usize,
    unknown: usize,
}

impl Counts {
    fn line(self) -> String {
        format!("{} pass, {} fail, {} unknown.", self.pass, self.fail, self.unknown)
    }
}

#[derive(Debug, Serialize)]
struct Timings {
    total: f64,
}

#[derive(Debug, Serialize)]
struct RowView {
    check: &'static str,
    verdict: &'static str,
    found: String,
    wanted: String,
    fix: String,
}

impl From<&Row> for RowView {
    fn from(row: &Row) -> Self {
        Self {
            check: row.check,
            verdict: row.verdict.as_str(),
            found: row.found.clone(),
            wanted: row.wanted.clone(),
            fix: row.fix.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: Verdict) -> Row {
        Row {
            check: "basic",
            verdict,
            found: "on:\u{1b}[2J Basic".to_owned(),
            wanted: "Basic is off".to_owned(),
            fix: "turn it off".to_owned(),
        }
    }

    #[test]
    fn only_rows_that_fail_say_what_to_do() {
        let text = table(&[row(Verdict::Pass), row(Verdict::Fail), row(Verdict::Unknown)]);
        assert_eq!(
            text,
            "  ok    basic                    on: [2J Basic\n  FAIL  basic                    on: [2J Basic\n        \
             wanted: Basic is off\n        fix:    turn it off\n  ?     basic                    on: [2J Basic\n"
        );
    }

    #[test]
    fn rows_are_json_with_their_fix() {
        assert_eq!(
            serde_json::to_value(RowView::from(&row(Verdict::Unknown))).unwrap(),
            serde_json::json!({"check": "basic", "verdict": "unknown", "found": "on:\u{1b}[2J Basic", "wanted": "Basic is off", "fix": "turn it off"})
        );
    }
}

//! `lictor winrm test`: the connection ladder, told rung by rung while it is climbed.

use std::cell::Cell;
use std::time::Duration;

use lictor_winrm::probe::{self, Rung, RungOutcome};
use lictor_winrm::{Stage, Target};
use serde::Serialize;
use tokio::time::Instant;

use super::tickets::TicketView;
use super::who::Who;
use super::{ConnectionView, milliseconds};
use crate::args::Output;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::{console, interrupt};

/// Climbs the ladder. The exit code is 0 when every rung holds, else that of the failed rung's stage.
pub(super) async fn climb(target: &Target, who: &Who, timeout: Duration, output: Output) -> Result<Exit, Failure> {
    let interrupted = interrupt::listen("stopping; press Ctrl-C again to quit at once")?;
    let started = Instant::now();
    let told = Cell::new(0);
    let mut broken = None;
    let mut tell = |rung: &Rung| {
        told.set(told.get() + 1);
        if output == Output::Text
            && broken.is_none()
            && let Err(failure) = console::print(&line(rung, ticket(rung, who).as_ref()))
        {
            broken = Some(failure);
        }
    };
    if output == Output::Text {
        console::print_line(&format!("Testing {} as {}", target.endpoint, clean(&who.name)))?;
    }
    let report = tokio::select! {
        report = probe::probe(target, started + timeout, &mut tell) => report,
        () = interrupted.cancelled() => {
            return Err(Failure::own(Exit::CANCELLED, "local", "local.interrupted", "the test was interrupted".to_owned(), String::new(), String::new()));
        }
    };
    for rung in report.rungs.iter().skip(told.get()) {
        tell(rung);
    }
    if let Some(failure) = broken {
        return Err(failure);
    }
    let failure = report.failure().map(Failure::from);
    let exit = failure.as_ref().map_or(Exit::SUCCESS, |failure| failure.exit);
    let view = ReportView {
        outcome: if failure.is_none() { "succeeded" } else { "failed" },
        rungs: report.rungs.iter().map(|rung| RungView::new(rung, ticket(rung, who))).collect(),
        error: failure,
        connection: report.connection.map(ConnectionView::from),
        timings_ms: Timings { total: milliseconds(started.elapsed()) },
    };
    match output {
        Output::Json => console::print_json(&view)?,
        Output::Text if view.error.is_none() => console::print_line("The host can be used.")?,
        Output::Text => console::note(HINT),
    }
    Ok(exit)
}

/// After a failure.
const HINT: &str = "hint: the same with --explain looks at more, and says what each finding may mean";

/// The ticket that a rung was climbed with.
fn ticket(rung: &Rung, who: &Who) -> Option<TicketView> {
    match rung.outcome {
        RungOutcome::Passed | RungOutcome::Warning if rung.stage == Stage::Authenticate => who.tickets.as_ref()?.last(),
        _ => None,
    }
}

/// One rung as text; a failed one with what to do about it.
fn line(rung: &Rung, ticket: Option<&TicketView>) -> String {
    let mark = match &rung.outcome {
        RungOutcome::Passed => "ok",
        RungOutcome::Warning => "warn",
        RungOutcome::Failed(_) => "FAIL",
        RungOutcome::Skipped => "skip",
    };
    let time = match &rung.outcome {
        RungOutcome::Skipped => "-".to_owned(),
        _ => format!("{:.1} ms", milliseconds(rung.elapsed)),
    };
    let mut text = format!("  {mark:<4}  {:<12} {time:>12}  {}", rung.stage.as_str(), clean(&rung.detail));
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(ticket) = ticket {
        text.push_str(&format!("{:35}{}\n", "", clean(&ticket.line())));
    }
    if let RungOutcome::Failed(error) = &rung.outcome {
        text.push_str(&Failure::from(error).to_text());
    }
    text
}

#[derive(Debug, Serialize)]
struct ReportView {
    outcome: &'static str,
    rungs: Vec<RungView>,
    error: Option<Failure>,
    connection: Option<ConnectionView>,
    timings_ms: Timings,
}

#[derive(Debug, Serialize)]
struct Timings {
    total: f64,
}

#[derive(Debug, Serialize)]
struct RungView {
    stage: &'static str,
    outcome: &'static str,
    elapsed_ms: f64,
    detail: String,
    error: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kerberos: Option<TicketView>,
}

impl RungView {
    fn new(rung: &Rung, kerberos: Option<TicketView>) -> Self {
        let (outcome, error) = match &rung.outcome {
            RungOutcome::Passed => ("passed", None),
            RungOutcome::Warning => ("warning", None),
            RungOutcome::Failed(error) => ("failed", Some(Failure::from(error))),
            RungOutcome::Skipped => ("skipped", None),
        };
        Self {
            stage: rung.stage.as_str(),
            outcome,
            elapsed_ms: milliseconds(rung.elapsed),
            detail: rung.detail.clone(),
            error,
            kerberos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_lines_with_time_and_mark() {
        let mut rung = Rung {
            stage: Stage::Resolve,
            outcome: RungOutcome::Passed,
            elapsed: Duration::from_micros(1540),
            detail: "127.0.0.1".to_owned(),
        };
        assert_eq!(line(&rung, None), "  ok    resolve            1.5 ms  127.0.0.1\n");
        rung.outcome = RungOutcome::Skipped;
        rung.detail.clear();
        assert_eq!(line(&rung, None), "  skip  resolve                 -\n");
    }

    #[test]
    fn rungs_are_json_with_milliseconds() {
        let rung = Rung {
            stage: Stage::OpenShell,
            outcome: RungOutcome::Warning,
            elapsed: Duration::from_micros(1540),
            detail: "slow".to_owned(),
        };
        assert_eq!(
            serde_json::to_value(RungView::new(&rung, None)).unwrap(),
            serde_json::json!({"stage": "open_shell", "outcome": "warning", "elapsed_ms": 1.54, "detail": "slow", "error": null})
        );
    }
}

//! `lictor winrm test --explain`: the examination of a host and the way to it, told step by step while it goes on.

use std::time::Duration;

use lictor_doctor::{Check, Outcome, Step, Subject, examine};
use lictor_winrm::Target;
use serde::Serialize;
use tokio::time::Instant;

use super::tickets::TicketView;
use super::who::Who;
use super::{ConnectionView, milliseconds};
use crate::args::Output;
use crate::exit::Exit;
use crate::failure::{Failure, Suspect, Suspects, clean};
use crate::{console, interrupt};

/// Examines. The exit code is 0 when no step failed, else that of the first one that did.
pub(super) async fn explain(target: Target, who: &Who, timeout: Duration, output: Output) -> Result<Exit, Failure> {
    let interrupted = interrupt::listen("stopping; press Ctrl-C again to quit at once")?;
    let started = Instant::now();
    if output == Output::Text {
        console::print_line(&format!("Examining {} as {}", target.endpoint, clean(&who.name)))?;
    }
    let subject = Subject { target: Some(target), kerberos: who.kerberos.clone(), usual_ports: true };
    let mut broken = None;
    let tell = |step: &Step| {
        if output == Output::Text
            && broken.is_none()
            && let Err(failure) = console::print(&text(step, ticket(step, who).as_ref()))
        {
            broken = Some(failure);
        }
    };
    let report = tokio::select! {
        report = examine(&subject, started + timeout, tell) => report,
        () = interrupted.cancelled() => {
            return Err(Failure::own(Exit::CANCELLED, "local", "local.interrupted", "the examination was interrupted".to_owned(), String::new(), String::new()));
        }
    };
    if let Some(failure) = broken {
        return Err(failure);
    }
    let failure = report.failure().and_then(failure);
    let exit = failure.as_ref().map_or(Exit::SUCCESS, |failure| failure.exit);
    match output {
        Output::Json => {
            let view = ReportView {
                outcome: if failure.is_none() { "succeeded" } else { "failed" },
                steps: report.steps.iter().map(|step| StepView::new(step, ticket(step, who))).collect(),
                error: failure,
                connection: report.connection.map(ConnectionView::from),
                timings_ms: Timings { total: milliseconds(started.elapsed()) },
            };
            console::print_json(&view)?;
        }
        Output::Text if failure.is_none() => console::print_line("The host can be used.")?,
        Output::Text => {}
    }
    Ok(exit)
}

/// The ticket that was used.
fn ticket(step: &Step, who: &Who) -> Option<TicketView> {
    match step.outcome {
        Outcome::Passed | Outcome::Warning if step.check == Check::Authenticate => who.tickets.as_ref()?.last(),
        _ => None,
    }
}

/// A step that found something, in the form in which this program tells failures.
fn failure(step: &Step) -> Option<Failure> {
    let finding = step.finding.as_ref()?;
    let exit = match finding.code.as_ref() {
        "timeout.deadline" => Exit::TIMED_OUT,
        _ => Exit::stage_name(step.check.as_str(), false),
    };
    let told = Failure::own(
        exit,
        step.check.as_str(),
        &finding.code,
        finding.message.clone(),
        finding.cause.clone(),
        finding.remedy.clone(),
    );
    let suspects = finding.suspects.iter().map(|suspect| Suspect {
        code: suspect.code.into(),
        cause: suspect.cause.as_str().into(),
        remedy: suspect.remedy.as_str().into(),
    });
    Some(Failure {
        legacy_text: finding.legacy_text.as_deref().map(Box::from),
        suspects: Suspects::new(suspects.collect()),
        ..told
    })
}

fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Warning => "warn",
        Outcome::Failed => "FAIL",
        Outcome::Unknown => "?",
        Outcome::Skipped => "skip",
    }
}

/// One step as text, with what it found and what to do about it.
fn text(step: &Step, ticket: Option<&TicketView>) -> String {
    let time = match step.outcome {
        Outcome::Skipped => "-".to_owned(),
        _ => format!("{:.1} ms", milliseconds(step.elapsed)),
    };
    let mark = mark(step.outcome);
    let mut text = format!("  {mark:<4}  {:<12} {time:>12}  {}", step.check.as_str(), clean(&step.detail));
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(ticket) = ticket {
        text.push_str(&format!("{:35}{}\n", "", clean(&ticket.line())));
    }
    if let Some(failure) = failure(step) {
        text.push_str(&failure.to_text());
    }
    text
}

#[derive(Debug, Serialize)]
struct ReportView {
    outcome: &'static str,
    steps: Vec<StepView>,
    error: Option<Failure>,
    connection: Option<ConnectionView>,
    timings_ms: Timings,
}

#[derive(Debug, Serialize)]
struct Timings {
    total: f64,
}

#[derive(Debug, Serialize)]
struct StepView {
    check: &'static str,
    outcome: &'static str,
    elapsed_ms: f64,
    detail: String,
    finding: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kerberos: Option<TicketView>,
}

impl StepView {
    fn new(step: &Step, kerberos: Option<TicketView>) -> Self {
        let outcome = match step.outcome {
            Outcome::Passed => "passed",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
            Outcome::Skipped => "skipped",
        };
        Self {
            check: step.check.as_str(),
            outcome,
            elapsed_ms: milliseconds(step.elapsed),
            detail: step.detail.clone(),
            finding: failure(step),
            kerberos,
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_doctor::{Finding, Suspect};

    use super::*;

    #[test]
    fn a_finding_is_told_with_its_suspects_in_order() {
        let suspect = |code, cause: &str| Suspect { code, cause: cause.to_owned(), remedy: "Look.".to_owned() };
        let step = Step {
            check: Check::Authenticate,
            outcome: Outcome::Failed,
            elapsed: Duration::from_micros(1540),
            detail: String::new(),
            finding: Some(Finding {
                code: "auth.rejected".into(),
                message: "rejected".to_owned(),
                cause: "A cause.".to_owned(),
                remedy: "A remedy.".to_owned(),
                legacy_text: Some("Known words".to_owned()),
                suspects: vec![suspect("auth.a", "First.\u{1b}[2J"), suspect("auth.b", "Second.")],
            }),
        };
        assert_eq!(
            text(&step, None),
            "  FAIL  authenticate       1.5 ms\nlictor: Known words\nlictor: authenticate [auth.rejected]: rejected\n  \
             cause:  A cause.\n  remedy: A remedy.\n  it may be, the most likely first:\n    1. [auth.a] First. [2J\n          \
             Look.\n    2. [auth.b] Second.\n          Look.\n"
        );
        let json = serde_json::to_value(StepView::new(&step, None)).unwrap();
        assert_eq!(json["finding"]["suspects"][1]["code"], "auth.b");
        assert_eq!(failure(&step).unwrap().exit, Exit::AUTHENTICATE);
    }
}

//! What tasks found that only look: rungs of connection tests and diagnoses, sides of secret managers, rows of posture checks.

use lictor_proto::v1;
use serde::Serialize;

use super::milliseconds;
use crate::console;
use crate::failure::{Failure, clean};

/// One rung of a connection test, or step of a diagnosis.
#[derive(Debug, Serialize)]
pub(in crate::control) struct RungView {
    stage: String,
    outcome: &'static str,
    elapsed_ms: Option<f64>,
    detail: String,
    error: Option<Failure>,
}

/// One answer of a posture check.
#[derive(Debug, Serialize)]
pub(in crate::control) struct PostureRowView {
    check: String,
    /// `pass`, `fail` or `unknown`.
    verdict: &'static str,
    found: String,
    wanted: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

impl From<v1::Rung> for RungView {
    fn from(rung: v1::Rung) -> Self {
        let outcome = match rung.outcome() {
            v1::RungOutcome::Passed => "passed",
            v1::RungOutcome::Failed => "failed",
            v1::RungOutcome::Skipped => "skipped",
            v1::RungOutcome::Warning => "warning",
            v1::RungOutcome::Unknown | v1::RungOutcome::Unspecified => "unknown",
        };
        Self {
            stage: rung.stage,
            outcome,
            elapsed_ms: rung.elapsed.map(milliseconds),
            detail: rung.detail,
            error: rung.failure.as_ref().map(Failure::from),
        }
    }
}

impl From<v1::PostureRow> for PostureRowView {
    fn from(row: v1::PostureRow) -> Self {
        let verdict = verdict_name(row.verdict());
        Self { check: row.check, verdict, found: row.found, wanted: row.wanted, fix: row.fix }
    }
}

fn verdict_name(verdict: v1::PostureVerdict) -> &'static str {
    match verdict {
        v1::PostureVerdict::Pass => "pass",
        v1::PostureVerdict::Fail => "fail",
        v1::PostureVerdict::Unknown | v1::PostureVerdict::Unspecified => "unknown",
    }
}

/// Rungs in lines.
pub(super) fn rung_table(rungs: &[RungView]) -> String {
    console::table(
        &["rung", "outcome", "time", "found"],
        rungs.iter().map(|rung| {
            let time = rung.elapsed_ms.filter(|_| rung.outcome != "skipped").map(|ms| format!("{ms:.1} ms"));
            let code = rung.error.as_ref().map(|error| error.code.to_string()).filter(|_| rung.detail.is_empty());
            vec![
                rung.stage.clone(),
                rung.outcome.to_owned(),
                time.unwrap_or_default(),
                code.unwrap_or_else(|| rung.detail.clone()),
            ]
        }),
    )
}

/// The sides of a secret manager in lines, and what they mean together.
pub(super) fn side_table(rungs: &[RungView]) -> String {
    let what = |stage: &str| match stage {
        "identity" => "who it is there",
        "write" => "make secrets",
        "read" => "read secrets",
        _ => "",
    };
    let mut text = console::table(
        &["side", "may", "outcome", "time", "found"],
        rungs.iter().map(|rung| {
            let time = rung.elapsed_ms.filter(|_| rung.outcome != "skipped").map(|ms| format!("{ms:.1} ms"));
            let code = rung.error.as_ref().map(|error| error.code.to_string()).filter(|_| rung.detail.is_empty());
            vec![
                rung.stage.clone(),
                what(&rung.stage).to_owned(),
                rung.outcome.to_owned(),
                time.unwrap_or_default(),
                code.unwrap_or_else(|| rung.detail.clone()),
            ]
        }),
    );
    let outcome = |stage: &str| rungs.iter().find(|rung| rung.stage == stage).map_or("", |rung| rung.outcome);
    let verdict = match (outcome("identity"), outcome("write"), outcome("read")) {
        (_, "passed", "passed") => "Secrets can be read and written.",
        (_, _, "passed") => {
            "Secrets can be read, not written: that is all that tasks need; new versions must go through another agent."
        }
        (_, "passed", "failed") => "Secrets can be written, not read: tasks that need them fail.",
        (_, _, "failed") => "Secrets can be neither read nor written.",
        ("failed", _, _) => "It is nobody there, so nothing can be read or written.",
        (_, "failed" | "warning", _) => {
            "Secrets cannot be written; whether they can be read is not known, as there was nothing to read."
        }
        _ => "Whether secrets can be read and written is not known.",
    };
    text.push_str(&format!("\n{verdict}\n"));
    text
}

/// What is wrong or doubtful about rungs, each with its cause and remedy. What the task itself failed with is left out: it is
/// told last of all.
pub(super) fn findings_text(rungs: &[RungView], told: Option<&Failure>) -> String {
    let findings = rungs.iter().filter_map(|rung| Some((rung, rung.error.as_ref()?)));
    let findings = findings.filter(|(_, error)| told != Some(error));
    findings.map(|(rung, error)| format!("\n{}: {}", rung.outcome, error.to_text())).collect()
}

/// Rows as a table, how many hold, and how to put the others right; empty when there are none.
pub(in crate::control) fn posture_text(rows: &[PostureRowView]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = console::table(
        &["check", "verdict", "found", "wanted"],
        rows.iter().map(|row| vec![row.check.clone(), row.verdict.to_owned(), row.found.clone(), row.wanted.clone()]),
    );
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    text.push_str(&format!("\n{} pass, {} fail, {} unknown\n", count("pass"), count("fail"), count("unknown")));
    for row in rows.iter().filter(|row| row.verdict != "pass" && !row.fix.is_empty()) {
        let lines: Vec<String> = row.fix.trim().lines().map(|line| format!("    {}\n", clean(line))).collect();
        text.push_str(&format!("\nto put {} right:\n{}", clean(&row.check), lines.concat()));
    }
    text
}

/// One line on what a task found that only looks; nothing for other tasks.
pub(in crate::control) fn summary(result: &v1::TaskResult) -> Option<String> {
    let counted = |names: &[(&str, Vec<&str>)]| {
        let parts = names.iter().filter(|(_, which)| !which.is_empty());
        let parts: Vec<String> = parts
            .map(|(name, which)| match *name {
                "pass" | "passed" => format!("{} {name}", which.len()),
                _ => format!("{} {name} ({})", which.len(), which.join(", ")),
            })
            .collect();
        parts.join(", ")
    };
    if !result.posture_rows.is_empty() {
        let of = |wanted| {
            let rows = result.posture_rows.iter().filter(|row| verdict_name(row.verdict()) == wanted);
            (wanted, rows.map(|row| row.check.as_str()).collect())
        };
        return Some(counted(&[of("pass"), of("fail"), of("unknown")]));
    }
    if !result.rungs.is_empty() {
        let of = |name, wanted| {
            let rungs = result.rungs.iter().filter(|rung| rung.outcome() == wanted);
            (name, rungs.map(|rung| rung.stage.as_str()).collect())
        };
        return Some(counted(&[
            of("passed", v1::RungOutcome::Passed),
            of("failed", v1::RungOutcome::Failed),
            of("warned", v1::RungOutcome::Warning),
            of("unknown", v1::RungOutcome::Unknown),
        ]));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: &str) -> v1::Failure {
        let suspect =
            |code: &str| v1::Suspect { code: code.into(), cause: "why\u{1b}[2J".into(), remedy: "what to do".into() };
        v1::Failure {
            stage: "clock".into(),
            code: code.into(),
            message: "it is off".into(),
            suspects: vec![suspect("a.first"), suspect("a.second")],
            ..v1::Failure::default()
        }
    }

    fn rung(stage: &str, outcome: v1::RungOutcome, failure: Option<v1::Failure>) -> v1::Rung {
        v1::Rung { stage: stage.into(), outcome: outcome.into(), failure, ..v1::Rung::default() }
    }

    fn row(check: &str, verdict: v1::PostureVerdict, fix: &str) -> v1::PostureRow {
        let (check, verdict, fix) = (check.into(), verdict.into(), fix.into());
        v1::PostureRow { check, verdict, found: "true".into(), wanted: "false".into(), fix }
    }

    #[test]
    fn every_finding_is_told_once_with_what_it_may_be() {
        use v1::RungOutcome::{Failed, Passed, Unknown, Warning};
        let result = v1::TaskResult {
            rungs: vec![
                rung("krb5_conf", Passed, None),
                rung("kdc_udp", Unknown, None),
                rung("clock", Warning, Some(failure("kerberos.clock"))),
                rung("login", Failed, Some(failure("kerberos.login"))),
            ],
            failure: Some(failure("kerberos.login")),
            ..v1::TaskResult::default()
        };
        let told = summary(&result);
        assert_eq!(told.as_deref(), Some("1 passed, 1 failed (login), 1 warned (clock), 1 unknown (kdc_udp)"));
        let error = result.failure.as_ref().map(Failure::from);
        let rungs: Vec<RungView> = result.rungs.into_iter().map(RungView::from).collect();
        let text = findings_text(&rungs, error.as_ref());
        let expected = "\nwarning: lictor: clock [kerberos.clock]: it is off\n  it may be, the most likely first:\n    \
                        1. [a.first] why [2J\n          what to do\n    2. [a.second] why [2J\n          what to do\n";
        assert_eq!(text, expected);
        let json = serde_json::to_value(&rungs).unwrap();
        assert_eq!((&json[1]["outcome"], &json[0]["error"]), (&"unknown".into(), &serde_json::Value::Null));
        assert_eq!(json[2]["error"]["suspects"][1]["code"], "a.second");
    }

    #[test]
    fn a_secret_manager_that_can_be_read_only_is_told_from_one_that_is_broken() {
        use v1::RungOutcome::{Failed, Passed, Skipped, Warning};
        let told = |outcomes: [v1::RungOutcome; 3]| {
            let sides = ["identity", "write", "read"].into_iter().zip(outcomes);
            let rungs: Vec<RungView> =
                sides.map(|(stage, outcome)| RungView::from(rung(stage, outcome, None))).collect();
            side_table(&rungs)
        };
        for (outcomes, words) in [
            ([Passed, Passed, Passed], "read and written"),
            ([Passed, Warning, Passed], "read, not written"),
            // Who may not ask who it is may do the rest all the same.
            ([Failed, Passed, Passed], "read and written"),
            ([Passed, Passed, Failed], "written, not read"),
            ([Passed, Failed, Failed], "neither"),
            ([Passed, Failed, Skipped], "is not known, as there was nothing"),
            ([Failed, Skipped, Skipped], "nobody there"),
            ([Skipped, Skipped, Skipped], "is not known"),
        ] {
            assert!(told(outcomes).contains(words), "{outcomes:?}: {}", told(outcomes));
        }
        let text = told([Passed, Warning, Passed]);
        assert_eq!(text.lines().next().unwrap().split_whitespace().next(), Some("SIDE"));
        assert_eq!(text.lines().count(), 6, "{text}");
    }

    #[test]
    fn rows_say_what_is_wrong_and_how_to_put_it_right() {
        use v1::PostureVerdict::{Fail, Pass, Unknown};
        let rows = vec![
            row("https_only", Pass, "not told"),
            row("basic", Fail, "Set-Item\nRestart"),
            row("sddl", Unknown, ""),
        ];
        let result = v1::TaskResult { posture_rows: rows, ..v1::TaskResult::default() };
        assert_eq!(summary(&result).as_deref(), Some("1 pass, 1 fail (basic), 1 unknown (sddl)"));
        assert_eq!(summary(&v1::TaskResult::default()), None);
        let rows: Vec<PostureRowView> = result.posture_rows.into_iter().map(PostureRowView::from).collect();
        let text = posture_text(&rows);
        assert_eq!(
            text,
            "CHECK       VERDICT  FOUND  WANTED\nhttps_only  pass     true   false\nbasic       fail     true   false\n\
             sddl        unknown  true   false\n\n1 pass, 1 fail, 1 unknown\n\nto put basic right:\n    Set-Item\n    Restart\n"
        );
        assert_eq!(posture_text(&[]), "");
        assert_eq!(serde_json::to_value(&rows).unwrap()[1]["verdict"], "fail");
    }
}

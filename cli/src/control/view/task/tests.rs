//! Tasks as JSON, as lines and as pages.

use super::*;

fn finished(state: v1::TaskState, exit_code: Option<i32>, failure: Option<v1::Failure>) -> TaskView {
    TaskView::from(v1::Task {
        task_id: "t1".to_owned(),
        spec: Some(v1::TaskSpec {
            target: Some(v1::Target { host: "win-a".to_owned(), connection: None }),
            kind: Some(v1::task_spec::Kind::Command(v1::Command {
                command_line: "sim.exe".to_owned(),
                arguments: vec!["exit".to_owned(), "37".to_owned()],
                ..v1::Command::default()
            })),
            timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            ..v1::TaskSpec::default()
        }),
        state: state.into(),
        submitted_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 }),
        result: Some(v1::TaskResult { outcome: state.into(), exit_code, failure, ..v1::TaskResult::default() }),
        ..v1::Task::default()
    })
}

#[test]
fn tasks_are_json_with_words_times_and_milliseconds() {
    let json = serde_json::to_value(finished(v1::TaskState::Failed, Some(37), None)).unwrap();
    assert_eq!(json["state"], "failed");
    assert_eq!(json["kind"], "command");
    assert_eq!(json["arguments"], serde_json::json!(["exit", "37"]));
    assert_eq!(json["submitted_at"], "2023-11-14T22:13:20.123Z");
    assert_eq!(json["timeout_ms"], 1500.0);
    assert_eq!(json["result"]["exit_code"], 37);
    assert_eq!(json["result"]["error"], serde_json::Value::Null);
}

#[test]
fn a_finished_task_decides_the_exit_code() {
    use v1::TaskState::{Cancelled, Failed, Rejected, Succeeded, TimedOut, Unknown};
    let failure = |stage: &str, may_have_started| {
        Some(v1::Failure { stage: stage.to_owned(), may_have_started, ..v1::Failure::default() })
    };
    for (state, code, failure, exit) in [
        (Succeeded, Some(0), None, Exit::SUCCESS),
        (Failed, Some(37), None, Exit::remote(37)),
        (Failed, Some(-1), None, Exit::REMOTE_OTHER),
        (Failed, None, failure("authenticate", false), Exit::AUTHENTICATE),
        (Failed, None, failure("secret", false), Exit::AGENT),
        (Failed, None, None, Exit::AGENT),
        (Cancelled, Some(1), None, Exit::CANCELLED),
        (TimedOut, None, None, Exit::TIMED_OUT),
        (Rejected, None, None, Exit::REJECTED),
        (Unknown, None, failure("receive", true), Exit::UNKNOWN),
    ] {
        assert_eq!(finished(state, code, failure).exit(), exit, "{state:?} {code:?}");
    }
}

#[test]
fn tables_show_a_task_in_one_line() {
    let text = task_table(&[finished(v1::TaskState::Failed, Some(37), None)]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].starts_with("t1"), "{text}");
    assert!(lines[1].contains("sim.exe exit 37"), "{text}");
}

#[test]
fn a_page_names_each_agent_and_why_not() {
    let mut task = finished(v1::TaskState::Rejected, None, None);
    task.candidates = vec![CandidateView {
        agent_id: "a1".to_owned(),
        agent_name: "edge".to_owned(),
        eligible: false,
        code: "missing_tag".to_owned(),
        reason: "it has no tag gpu".to_owned(),
    }];
    let page = task_page(&task);
    assert!(page.contains("edge") && page.contains("missing_tag") && page.contains("it has no tag gpu"), "{page}");
}

#[test]
fn a_page_shows_what_is_gone_and_what_came_too_late() {
    let late = v1::LateResult {
        epoch: 1,
        agent_name: "edge".to_owned(),
        result: Some(v1::TaskResult {
            outcome: v1::TaskState::Failed.into(),
            exit_code: Some(41),
            ..v1::TaskResult::default()
        }),
        ..v1::LateResult::default()
    };
    let task = TaskView::from(v1::Task {
        late_results: vec![late],
        output_bytes: 100,
        output_removed_bytes: 100,
        ..v1::Task::default()
    });
    let page = task_page(&task);
    for words in ["too late", "edge", "failed", "41", "100 bytes; none of them kept"] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    let json = serde_json::to_value(&task).unwrap();
    assert_eq!(json["late_results"][0]["result"]["exit_code"], 41);
    assert_eq!(json["output_removed_bytes"], 100);
}

#[test]
fn tasks_name_the_secrets_that_they_use() {
    let environment = [("DB_PASSWORD".to_owned(), "db-password".to_owned())];
    let shell = v1::ShellSettings { secret_environment: environment.into(), ..v1::ShellSettings::default() };
    let command = v1::Command { command_line: "sim.exe".to_owned(), shell: Some(shell), ..v1::Command::default() };
    let kind = Some(v1::task_spec::Kind::Command(command));
    let spec = v1::TaskSpec { kind, ..v1::TaskSpec::default() };
    let task = TaskView::from(v1::Task { spec: Some(spec), ..v1::Task::default() });
    assert_eq!(serde_json::to_value(&task).unwrap()["secret_environment"]["DB_PASSWORD"], "db-password");
    assert!(task_page(&task).contains("DB_PASSWORD=db-password"), "{}", task_page(&task));
}

#[test]
fn a_test_of_a_secret_manager_has_sides_and_the_exit_code_of_what_failed() {
    let failure = v1::Failure {
        stage: "read".to_owned(),
        code: "kms.access_denied".to_owned(),
        message: "failed to decrypt".to_owned(),
        legacy_text: "The data key could not be generated".to_owned(),
        suspects: vec![v1::Suspect {
            code: "kms.policy".to_owned(),
            cause: "the policy lacks kms:Decrypt".to_owned(),
            remedy: "add it".to_owned(),
        }],
        ..v1::Failure::default()
    };
    let rung = |stage: &str, outcome: v1::RungOutcome, failure: Option<v1::Failure>| v1::Rung {
        stage: stage.to_owned(),
        outcome: outcome.into(),
        failure,
        ..v1::Rung::default()
    };
    let rungs = vec![
        rung("identity", v1::RungOutcome::Passed, None),
        rung("write", v1::RungOutcome::Passed, None),
        rung("read", v1::RungOutcome::Failed, Some(failure.clone())),
    ];
    let kind = v1::task_spec::Kind::SecretManagerTest(v1::SecretManagerTest { manager: "corp".to_owned() });
    let mut result = v1::TaskResult { outcome: v1::TaskState::Failed.into(), rungs, ..v1::TaskResult::default() };
    for told in [None, Some(failure)] {
        result.failure.clone_from(&told);
        let task = TaskView::from(v1::Task {
            spec: Some(v1::TaskSpec { kind: Some(kind.clone()), ..v1::TaskSpec::default() }),
            state: v1::TaskState::Failed.into(),
            result: Some(result.clone()),
            ..v1::Task::default()
        });
        assert_eq!(task.exit(), Exit::AGENT);
        // The task's own failure is told last, and once.
        let page = task_page(&task);
        for words in ["SIDE", "written, not read", "1. [kms.policy]", "add it", "The data key could not be generated"] {
            assert_eq!(page.matches(words).count(), 1, "{words} in {page}");
        }
        assert_eq!(task.rungs_text().contains("kms.policy"), told.is_none());
    }
}

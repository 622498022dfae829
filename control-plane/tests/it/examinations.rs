//! Diagnoses and posture checks: who gets them, and what becomes of what they find.

use lictor_proto::v1::*;

use crate::support::*;

fn look(kind: task_spec::Kind) -> TaskSpec {
    TaskSpec { kind: Some(kind), ..command() }
}

fn rung(stage: &str, outcome: RungOutcome, failure: Option<Failure>) -> Rung {
    Rung { stage: stage.into(), outcome: outcome.into(), failure, ..Rung::default() }
}

/// A bare 401, of which nobody can tell what it means.
fn rejected() -> Failure {
    let suspect = |code: &str| Suspect { code: code.into(), cause: "cause".into(), remedy: "remedy".into() };
    Failure {
        stage: "authenticate".into(),
        code: "auth.rejected".into(),
        suspects: vec![suspect("auth.suspect_password"), suspect("auth.suspect_local_account")],
        ..Failure::default()
    }
}

#[tokio::test]
async fn an_agent_that_knows_nothing_of_them_never_gets_them() {
    let (server, mut user, old) = scene(&[]).await;
    let (mut link, _) = old.connect(&server, "i1", Vec::new(), 4).await;
    let diagnosis = user.submit(look(task_spec::Kind::Diagnosis(Diagnosis {}))).await.task_id;
    let posture = user.submit(look(task_spec::Kind::Posture(PostureCheck::default()))).await.task_id;
    // In order, so that what was left out would have come first.
    let command = user.submit(command()).await.task_id;
    assert_eq!(link.assignment().await.task.unwrap().task_id, command);
    for task_id in [&diagnosis, &posture] {
        let task = user.task(task_id).await;
        assert_eq!((task.state(), task.candidates[0].code.as_str()), (TaskState::Queued, "missing_capability"));
        assert!(task.spec.unwrap().idempotent, "what only looks does no harm twice");
    }
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let new = enroll(&server, &token, "a2", &[]).await.unwrap();
    let mut hello = new.hello("i1", Vec::new());
    hello.capabilities.extend(["diagnosis".into(), "posture".into()]);
    let mut link = new.connect_saying(&server, hello).await;
    let given = [link.assignment().await, link.assignment().await].map(|given| given.task.unwrap().task_id);
    assert!(given.contains(&diagnosis) && given.contains(&posture), "{given:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_they_found_is_stored_as_it_came() {
    let (server, mut user, agent) = scene(&[]).await;
    let mut hello = agent.hello("i1", Vec::new());
    hello.capabilities.extend(["diagnosis".into(), "posture".into()]);
    let mut link = agent.connect_saying(&server, hello).await;
    let row = PostureRow {
        check: "basic".into(),
        verdict: PostureVerdict::Fail.into(),
        found: "true".into(),
        wanted: "false".into(),
        fix: "Set-Item WSMan:\\localhost\\Service\\Auth\\Basic $false".into(),
    };
    let unknown = PostureRow { check: "sddl".into(), verdict: PostureVerdict::Unknown.into(), ..PostureRow::default() };
    let posture = TaskResult { posture_rows: vec![row, unknown], ..succeeded(0) };
    // A doubt about the credential is no verdict on it.
    let doubtful = rung("login", RungOutcome::Warning, Some(rejected()));
    let rungs = vec![rung("krb5_conf", RungOutcome::Unknown, None), doubtful];
    let diagnosis = TaskResult { rungs, ..succeeded(0) };
    let refused = TaskResult {
        outcome: TaskState::Failed.into(),
        failure: Some(rejected()),
        rungs: vec![rung("authenticate", RungOutcome::Failed, Some(rejected()))],
        ..TaskResult::default()
    };
    for (kind, result) in [
        (task_spec::Kind::Posture(PostureCheck::default()), posture),
        (task_spec::Kind::Diagnosis(Diagnosis {}), diagnosis),
        (task_spec::Kind::Diagnosis(Diagnosis {}), refused),
    ] {
        user.submit(look(kind)).await;
        let reference = link.assignment().await.task.unwrap();
        link.started(&reference).await;
        link.end(&reference, result.clone()).await;
        let stored = user.task(&reference.task_id).await;
        assert_eq!(stored.result.unwrap(), result);
    }
    // As after a connection test.
    let task = user.submit(look(task_spec::Kind::Diagnosis(Diagnosis {}))).await;
    let task = user.until(&task.task_id, TaskState::Rejected).await;
    assert_eq!(task.result.unwrap().failure.unwrap().code, "credential.rejected");
    let audited = user.audit().await.join("\n");
    assert!(audited.contains("diagnosis") && audited.contains("posture"), "{audited}");
    server.stop().await;
}

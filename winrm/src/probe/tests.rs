use super::*;
use crate::simulated::{Host, PASSWORD};
use crate::target::{Endpoint, Scheme};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn outcomes(report: &Report) -> Vec<(&'static str, &'static str)> {
    let word = |outcome: &RungOutcome| match outcome {
        RungOutcome::Passed => "passed",
        RungOutcome::Warning => "warning",
        RungOutcome::Failed(_) => "failed",
        RungOutcome::Skipped => "skipped",
    };
    report.rungs.iter().map(|rung| (rung.stage.as_str(), word(&rung.outcome))).collect()
}

#[tokio::test]
async fn every_rung_holds_and_no_shell_stays() {
    let host = Host::start().await;
    let mut seen = Vec::new();
    let report = probe(&host.target(PASSWORD), soon(), |rung| seen.push(rung.stage)).await;
    assert_eq!(
        outcomes(&report),
        [
            ("resolve", "passed"),
            ("connect", "passed"),
            ("tls", "skipped"),
            ("identify", "passed"),
            ("authenticate", "warning"),
            ("open_shell", "passed"),
            ("run", "passed"),
            ("close", "passed"),
        ]
    );
    assert_eq!(seen, STAGES);
    assert!(report.rungs[4].detail.contains("Basic over plain HTTP"), "{:?}", report.rungs[4]);
    assert_eq!(report.rungs[6].detail, "hostname answered \"hostname\"");
    assert_eq!(report.connection.as_ref().unwrap().auth, "basic");
    assert!(report.failure().is_none());
    assert!(host.state().shells.is_empty());
    assert_eq!(host.state().actions, ["Create", "Command", "Receive", "Signal", "Delete"]);
}

#[tokio::test]
async fn a_wrong_password_fails_at_its_rung_and_is_tried_once() {
    let host = Host::start().await;
    let report = probe(&host.target("wrong"), soon(), |_| {}).await;
    assert_eq!(
        outcomes(&report)[3..],
        [
            ("identify", "passed"),
            ("authenticate", "failed"),
            ("open_shell", "skipped"),
            ("run", "skipped"),
            ("close", "skipped"),
        ]
    );
    let failure = report.failure().unwrap();
    assert_eq!(failure.code(), "auth.rejected");
    assert!(failure.credential_rejected());
    assert_eq!(host.state().rejections, 1);
}

#[tokio::test]
async fn a_closed_port_fails_at_connect() {
    let host = Host::start().await;
    let mut target = host.target(PASSWORD);
    drop(host);
    target.endpoint = Endpoint::new(Scheme::Http, "127.0.0.1", Some(1), None).unwrap();
    let report = probe(&target, soon(), |_| {}).await;
    assert_eq!(report.failure().unwrap().code(), "connect.refused");
    assert_eq!(report.rungs.len(), STAGES.len());
    assert!(matches!(report.rungs[0].outcome, RungOutcome::Passed));
    assert!(report.rungs[2..].iter().all(|rung| matches!(rung.outcome, RungOutcome::Skipped)));
}

#[tokio::test]
async fn a_password_that_is_rejected_late_fails_the_rung_that_it_was_needed_for() {
    let host = Host::start().await;
    host.state().lets_in = Some(1);
    let report = probe(&host.target(PASSWORD), soon(), |_| {}).await;
    assert_eq!(
        outcomes(&report)[4..],
        [("authenticate", "warning"), ("open_shell", "passed"), ("run", "failed"), ("close", "skipped")]
    );
    let failure = report.failure().unwrap();
    assert_eq!((failure.stage(), failure.code()), (Stage::Authenticate, "auth.rejected"));
    assert_eq!(host.state().rejections, 1);
}

#[tokio::test]
async fn a_climb_that_is_dropped_leaves_no_shell() {
    let host = Host::start().await;
    host.state().names_hang = true;
    let target = host.target(PASSWORD);
    let climb = tokio::spawn(async move { probe(&target, soon(), |_| {}).await });
    host.until("the command runs", |state| state.count("Receive") > 0).await;
    climb.abort();
    host.until("the shell is deleted", |state| state.shells.is_empty()).await;
    assert!(host.state().count("Signal") == 1);
}

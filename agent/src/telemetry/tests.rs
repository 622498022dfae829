//! Tests of metrics, their page, and the caps of logs.

use lictor_settings::reference::metrics::{exposed, listed};

use super::*;

#[tokio::test]
async fn the_page_lists_exactly_the_metrics_with_their_kinds_and_labels() {
    let metrics = Arc::new(Metrics::default());
    // Every value that a label can have: states and reasons of the contract by their numbers, also those that come to it.
    for number in 0..100 {
        if let Ok(state) = TaskState::try_from(number) {
            metrics.task_finished(state, Duration::from_secs(1));
        }
        if let Ok(reason) = HandBackReason::try_from(number) {
            metrics.task_handed_back(reason);
        }
    }
    metrics.admission_closed(Closed::default());
    metrics.kerberos_ticket(Ok(()));
    for kind in [ErrorKind::Rejected, ErrorKind::ServiceUnknown, ErrorKind::Unavailable, ErrorKind::Other] {
        metrics.kerberos_ticket(Err(kind));
    }
    for source in ["sealed", "kms", "agent"] {
        for outcome in ["opened", "refused", "unavailable", "failed"] {
            metrics.secret_opened(source, outcome);
        }
    }
    let registry = metrics.register(Pool::new(lictor_winrm::pool::PoolSettings::default()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert_eq!(exposed(&text), listed(include_str!("../../../docs/metrics.md"), "agent_"));
    assert!(exposed(&text).keys().all(|name| name.starts_with("agent_")));
}

#[test]
fn readiness_needs_a_session_a_journal_and_no_drain() {
    let metrics = Metrics::default();
    assert!(!metrics.is_ready());
    metrics.connected(true);
    assert!(metrics.is_ready());
    metrics.journal_broken(true);
    assert!(!metrics.is_ready());
    metrics.journal_broken(false);
    assert!(metrics.is_ready());
    metrics.draining();
    assert!(!metrics.is_ready());
}

/// That caps hold whatever level is chosen later is tested where they are applied.
#[test]
fn libraries_that_print_secrets_are_capped() {
    use tracing::Level;
    let caps = caps();
    assert!(caps.contains(&("sspi", Level::WARN)));
    for target in ["hyper", "h2", "tonic", "krb5", "aws_config", "aws_sdk_sts", "aws_smithy_runtime"] {
        assert!(caps.contains(&(target, Level::INFO)), "{target}");
    }
}

#[test]
fn resident_memory_is_known_here() {
    assert!(resident_bytes() > 1024 * 1024);
}

#[test]
fn free_slots_are_those_that_tasks_are_asked_for() {
    let metrics = Arc::new(Metrics::default());
    metrics.slots(4);
    metrics.slots_used(1);
    assert_eq!(metrics.slots_free(), 0, "not connected");
    metrics.connected(true);
    assert_eq!(metrics.slots_free(), 3);
    metrics.admission_closed(Closed { memory: true, ..Closed::default() });
    assert_eq!(metrics.slots_free(), 0);
    assert!(metrics.is_ready(), "short of memory it is as ready as ever");
    metrics.admission_closed(Closed::default());
    metrics.draining();
    assert_eq!(metrics.slots_free(), 0);
}

#[test]
fn the_oldest_task_is_the_one_that_is_still_under_way() {
    let metrics = Arc::new(Metrics::default());
    assert_eq!(metrics.oldest_task_age(), Duration::ZERO);
    let first = metrics.task_under_way();
    let begun = Instant::now();
    let _second = metrics.task_under_way();
    assert!(metrics.oldest_task_age() >= begun.elapsed());
    drop(first);
    assert_eq!(metrics.under_way.lock().unwrap().1.len(), 1);
}

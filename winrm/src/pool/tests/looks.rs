//! Looking at hosts beside the pool's sessions: a logon alone holds others up, and a wrong password is tried once.

use std::pin::pin;
use std::task::{Context, Waker};

use super::*;
use crate::error::Stage;

/// Whether others that want to try the credential wait for somebody's verdict.
fn others_wait(pool: &Pool, target: &Target) -> bool {
    let entering = pin!(pool.0.verdicts.enter(target, soon()));
    entering.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn a_ladder_holds_nobody_up_but_while_it_logs_in() {
    let host = Host::start().await;
    let pool = Pool::new(PoolSettings::default());
    let target = host.target(PASSWORD);
    let (mut seen, mut waited) = (Vec::new(), Vec::new());
    let further = [invocation("slow")];
    let climb = pool.probe_running(&target, &further, Duration::from_secs(5), soon(), |rung| {
        seen.push(rung.stage);
        if others_wait(&pool, &target) {
            waited.push(rung.stage);
        }
    });
    let (report, ran) = climb.await;
    assert!(report.failure().is_none() && ran.len() == 1, "{report:?}");
    assert!(seen.contains(&Stage::Identify) && seen.contains(&Stage::Run));
    assert_eq!(waited, []);
    // It can tell.
    let _leader = pool.0.verdicts.enter(&host.target("another"), soon()).await.unwrap();
    assert!(others_wait(&pool, &host.target("another")));
}

#[tokio::test]
async fn whoever_looks_first_a_wrong_password_is_tried_once() {
    let host = Host::start().await;
    let wrong = host.target("wrong");
    for ladder_first in [true, false] {
        let pool = Pool::new(PoolSettings::default());
        pool.check(&wrong).unwrap();
        let ladder =
            async || pool.probe_running(&wrong, &[], Duration::ZERO, soon(), |_| {}).await.0.failure().unwrap().code();
        let configuration = async || pool.configuration(&wrong, soon()).await.unwrap_err().code();
        let codes = if ladder_first {
            [ladder().await, configuration().await]
        } else {
            [configuration().await, ladder().await]
        };
        assert_eq!(codes, ["auth.rejected", "auth.rejected_before"]);
        assert_eq!(pool.check(&wrong).unwrap_err().code(), "auth.rejected_before");
        assert_eq!(pool.lease(&wrong, soon()).await.unwrap_err().code(), "auth.rejected_before");
    }
}

#[tokio::test]
async fn a_session_that_is_given_up_leaves_no_shell() {
    let host = Host::start().await;
    let pool = Pool::new(PoolSettings::default());
    pool.lease(&host.target(PASSWORD), soon()).await.unwrap().end();
    host.until("the shell is gone", |state| state.shells.is_empty()).await;
    assert_eq!(pool.statistics().leased, 0);
}

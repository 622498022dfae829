//! Commands of a process that was killed: followed to their end by another one, or ended, and never started again.

use super::*;
use tokio_util::sync::CancellationToken;

fn patience(seconds: u64) -> Patience {
    Patience { until: Instant::now() + Duration::from_secs(seconds), given_up: CancellationToken::new() }
}

fn pool(owner: &str) -> Pool {
    Pool::new(PoolSettings { owner: Some(owner.to_owned()), ..PoolSettings::default() })
}

/// Starts a command and forgets everything but its shell, as a process does that is killed.
async fn killed(host: &Host, line: &str) -> (String, Uuid) {
    let pool = pool("before");
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let (shell, command) = (lease.shell_id().to_owned(), Uuid::new_v4());
    let invocation = invocation(line);
    std::mem::forget(lease.start(&invocation, command).await.unwrap());
    host.close_connections();
    std::mem::forget(lease);
    std::mem::forget(pool);
    (shell, command)
}

async fn ending(running: &mut Running<'_>) -> (String, i32, bool) {
    let mut output = Vec::new();
    loop {
        match running.next().await.unwrap() {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { exit_code, output_gap } => {
                return (String::from_utf8(output).unwrap(), exit_code, output_gap);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_of_a_killed_process_is_followed_to_its_end_and_its_shell_deleted() {
    let host = Host::in_memory();
    let (shell, command) = killed(&host, "slow").await;
    let pool = pool("after");
    let mut lease = pool.attach(&host.target(PASSWORD), &shell, command, soon()).await.unwrap();
    let mut running = lease.follow(patience(10)).await.unwrap();
    assert!(running.has_sent_input());
    assert_eq!(ending(&mut running).await, ("12slow".to_owned(), 0, true));
    assert_eq!(host.state().count("Delete"), 0);
    // Nobody else runs in a shell whose history we do not know.
    drop(lease);
    let other = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    assert_ne!(other.shell_id(), shell);
    drop(other);
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!((state.count("Command"), state.shells.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_found_again_can_be_stopped_or_let_go() {
    let host = Host::in_memory();
    for stop in [true, false] {
        let (shell, command) = killed(&host, "polite").await;
        let pool = pool("after");
        let mut lease = pool.attach(&host.target(PASSWORD), &shell, command, soon()).await.unwrap();
        if stop {
            let running = lease.follow(patience(10)).await.unwrap();
            let stopped = running.stop(Duration::from_secs(5)).await;
            assert!(matches!(stopped, Stopped::Confirmed { exit_code: Some(-1_073_741_510) }), "{stopped:?}");
        }
        drop(lease);
        assert_eq!(pool.close(soon()).await, 0);
        assert_eq!(host.state().shells.len(), 0, "stop: {stop}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_is_gone_and_a_wrong_password_are_said_at_once() {
    let host = Host::in_memory();
    let (shell, command) = killed(&host, "quiet").await;
    let pool = pool("after");
    let mut lease = pool.attach(&host.target("wrong"), &shell, command, soon()).await.unwrap();
    let error = lease.follow(patience(60)).await.unwrap_err();
    assert!(error.credential_rejected() && error.may_have_started(), "{error:?}");
    drop(lease);
    host.state().shells.clear();
    let begin = Instant::now();
    let mut lease = pool.attach(&host.target(PASSWORD), &shell, command, soon()).await.unwrap();
    let error = lease.follow(patience(60)).await.unwrap_err();
    assert_eq!((error.code(), error.may_have_started()), ("fault.2150858843", true));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(lease);
    // With the wrong password the shell could not be deleted.
    assert_eq!(pool.close(soon()).await, 1);
    assert_eq!(host.state().rejections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_starting_is_tried_until_patience_ends() {
    let host = Host::in_memory();
    let (shell, command) = killed(&host, "slow").await;
    let pool = pool("after");
    host.state().starting = 4;
    let mut lease = pool.attach(&host.target(PASSWORD), &shell, command, soon()).await.unwrap();
    let mut running = lease.follow(patience(60)).await.unwrap();
    assert_eq!(ending(&mut running).await.1, 0);
    drop(lease);
    host.until("the shell is gone", |state| state.shells.is_empty()).await;
    let (shell, command) = killed(&host, "slow").await;
    host.state().starting = 1000;
    let mut lease = pool.attach(&host.target(PASSWORD), &shell, command, soon()).await.unwrap();
    let begin = Instant::now();
    let error = lease.follow(patience(60)).await.unwrap_err();
    assert!(error.may_have_started());
    assert!((60..80).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    drop(lease);
    host.state().starting = 0;
    assert_eq!(pool.close(soon()).await, 0);
}

struct Notes(Vec<String>, usize);

impl Ledger for Notes {
    async fn note(&mut self, shell_id: &str) -> bool {
        self.0.push(shell_id.to_owned());
        self.0.len() <= self.1
    }
}

#[tokio::test(start_paused = true)]
async fn every_shell_that_a_command_is_sent_to_is_noted_first() {
    let host = Host::in_memory();
    let pool = pool("one");
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let first = lease.shell_id().to_owned();
    host.state().shells.clear();
    let mut notes = Notes(Vec::new(), 2);
    let started = lease.start_patiently(&invocation("slow"), Uuid::new_v4(), patience(10), &mut notes).await;
    assert_eq!(ending(&mut started.unwrap()).await.1, 0);
    assert_eq!(notes.0, [first, lease.shell_id().to_owned()]);
    // What cannot be noted is not sent.
    let sent = host.state().count("Command");
    let mut notes = Notes(Vec::new(), 0);
    let refused = lease.start_patiently(&invocation("slow"), Uuid::new_v4(), patience(10), &mut notes).await;
    let error = refused.unwrap_err();
    assert_eq!((error.code(), error.may_have_started()), ("pool.not_noted", false));
    assert_eq!(host.state().count("Command"), sent);
    assert_eq!(run(&mut lease, &invocation("fine")).await.unwrap().0, "fine");
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
}

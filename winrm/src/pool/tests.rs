use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

mod attach;
mod limits;
mod looks;
mod running;

use super::*;
use crate::shell::{Event, Invocation};
use crate::simulated::{Host, PASSWORD};
use crate::target::*;

pub(crate) fn target(host: &str, user: &str, password: &str) -> Target {
    Target {
        endpoint: Endpoint::new(Scheme::Http, host, None, None).unwrap(),
        auth: AuthKind::Basic,
        credential: Credential::password(user, Secret::new(password.into())),
        tls: TlsPolicy::default(),
        message_encryption: MessageEncryption::Auto,
        send_channel_bindings: true,
        allow_basic_over_http: true,
        kerberos: KerberosOptions::default(),
        shell: ShellProperties::default(),
        timeouts: Timeouts::default(),
    }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub(super) fn invocation(line: &str) -> Invocation {
    Invocation::command(line, &[], None).unwrap()
}

/// Output, exit code, gap and exchanges of one command.
pub(super) async fn run(lease: &mut Lease, invocation: &Invocation) -> Result<(String, i32, bool, Exchanges), Error> {
    let mut running = lease.start(invocation, Uuid::new_v4()).await?;
    let mut output = Vec::new();
    loop {
        match running.next().await? {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { exit_code, output_gap } => {
                return Ok((String::from_utf8(output).unwrap(), exit_code, output_gap, running.exchanges()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_warm_command_is_one_command_and_one_receive() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let target = host.target(PASSWORD);
    let mut cold = pool.lease(&target, soon()).await.unwrap();
    assert!(!cold.connection().reused);
    let (output, code, gap, exchanges) = run(&mut cold, &invocation("hello")).await.unwrap();
    assert_eq!((output.as_str(), code, gap), ("hello", 0, false));
    assert_eq!(exchanges, Exchanges { critical: 2, total: 3 });
    drop(cold);

    for _ in 0..5 {
        let mut warm = pool.lease(&target, soon()).await.unwrap();
        assert!(warm.connection().reused);
        let (.., exchanges) = run(&mut warm, &invocation("again")).await.unwrap();
        assert_eq!(exchanges, Exchanges { critical: 2, total: 2 });
    }
    let statistics = pool.statistics();
    assert_eq!((statistics.leases_total, statistics.warm_total, statistics.connections_total), (6, 5, 1));
    assert_eq!(pool.close(soon()).await, 0);
    {
        let state = host.state();
        assert_eq!(
            (state.connections, state.count("Create"), state.count("Command"), state.count("Delete")),
            (1, 1, 6, 1)
        );
        assert!(state.count("Signal") >= 5);
        assert!(state.shells.is_empty());
    }
    assert_eq!(pool.lease(&target, soon()).await.unwrap_err().code(), "pool.closed");
}

#[tokio::test(start_paused = true)]
async fn one_lease_runs_several_commands() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    assert_eq!(run(&mut lease, &invocation("slow")).await.unwrap().0, "12slow");
    let cat = Invocation::command("cat", &[], Some(Bytes::from(vec![b'x'; 300_000]))).unwrap();
    assert_eq!(run(&mut lease, &cat).await.unwrap().0.len(), 300_000);
    assert_eq!(host.state().count("Send"), 3);
    assert_eq!(run(&mut lease, &invocation("refuse")).await.unwrap_err().code(), "fault.5");
    assert_eq!(run(&mut lease, &invocation("fine")).await.unwrap().0, "fine");
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn bounds_hold_and_the_wait_ends_at_the_deadline() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings { max_shells_per_user: 1, ..PoolSettings::default() });
    let target = host.target(PASSWORD);
    let lease = pool.lease(&target, soon()).await.unwrap();
    let error = pool.lease(&target, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.code(), "pool.timeout");
    assert_eq!(
        error.to_string(),
        "no session became free before the deadline: all 1 sessions of alice on in-memory.invalid:1 are in use"
    );
    let (waiting, ()) = tokio::join!(pool.lease(&target, soon()), async {
        assert_eq!(pool.statistics().waiting, 1);
        drop(lease);
    });
    assert!(waiting.unwrap().connection().reused);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_with_other_properties_makes_room() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings { max_shells_per_user: 1, ..PoolSettings::default() });
    let target = host.target(PASSWORD);
    drop(pool.lease(&target, soon()).await.unwrap());
    let mut other = target.clone();
    other.shell.environment.insert("A".into(), "1".into());
    let lease = pool.lease(&other, soon()).await.unwrap();
    assert!(!lease.connection().reused);
    {
        let state = host.state();
        assert_eq!((state.count("Create"), state.count("Delete"), state.most_shells), (2, 1, 1));
    }
    drop(lease);
    // A shell has the secrets that it was made with.
    other.shell.secret_environment.insert("B".into(), Secret::new("one".into()));
    for (value, reused) in [("one", false), ("one", true), ("two", false)] {
        other.shell.secret_environment.insert("B".into(), Secret::new(value.into()));
        let lease = pool.lease(&other, soon()).await.unwrap();
        assert_eq!(lease.connection().reused, reused, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_never_cross_identities() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    drop(pool.lease(&host.target(PASSWORD), soon()).await.unwrap());
    let error = pool.lease(&host.target("other"), soon()).await.unwrap_err();
    assert_eq!(error.code(), "auth.rejected");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_once() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let target = host.target("wrong");
    let (a, b, c) = tokio::join!(pool.lease(&target, soon()), pool.lease(&target, soon()), pool.lease(&target, soon()));
    let codes = [a, b, c].map(|result| result.unwrap_err().code());
    assert_eq!(codes, ["auth.rejected", "auth.rejected_before", "auth.rejected_before"]);
    assert_eq!(pool.lease(&target, soon()).await.unwrap_err().code(), "auth.rejected_before");
    assert_eq!(host.state().rejections, 1);
    assert!(pool.lease(&host.target(PASSWORD), soon()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_broke_while_receiving_is_replaced() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let (output, code, gap, _) = run(&mut lease, &invocation("break")).await.unwrap();
    assert_eq!((output.as_str(), code, gap), ("rest", 3, true));
    let state = host.state();
    assert_eq!((state.connections, state.count("Command")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_answer_was_lost_is_found_and_followed() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let (output, code, gap, _) = run(&mut lease, &invocation("vanish")).await.unwrap();
    assert_eq!((output.as_str(), code, gap), ("vanish", 0, false));
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!(state.actions, ["Create", "Command", "Receive", "Signal", "Delete"]);
    assert_eq!(state.connections, 2);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_the_host_does_not_know_is_not_sent_again() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let error = run(&mut lease, &invocation("swallow")).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::Run, "connection.closed"));
    assert!(error.may_have_started());
    assert!(error.report().to_string().contains("2150858843"), "{}", error.report());
    assert_eq!(run(&mut lease, &invocation("next")).await.unwrap_err().code(), "pool.session_in_doubt");
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
    assert_eq!(host.state().actions, ["Create", "Command", "Receive", "Signal", "Delete"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_idle_connection_is_replaced_silently() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let target = host.target(PASSWORD);
    drop(pool.lease(&target, soon()).await.unwrap());
    host.close_connections();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut lease = pool.lease(&target, soon()).await.unwrap();
    assert!(!lease.connection().reused);
    assert_eq!(run(&mut lease, &invocation("hi")).await.unwrap().0, "hi");
    let state = host.state();
    assert_eq!((state.connections, state.count("Create"), state.count("Command")), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_while_lent_is_replaced_before_the_command() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    host.close_connections();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(run(&mut lease, &invocation("hi")).await.unwrap().0, "hi");
    assert_eq!(host.state().count("Command"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_shell_is_replaced_when_the_command_did_not_start() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    host.state().shells.clear();
    let (output, .., exchanges) = run(&mut lease, &invocation("hi")).await.unwrap();
    assert_eq!((output.as_str(), exchanges.critical), ("hi", 2));
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_command_is_signalled_and_its_shell_deleted() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let mut running = lease.start(&invocation("hang"), Uuid::new_v4()).await.unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(10), running.next()).await;
    assert!(cut.is_err());
    drop(running);
    drop(lease);
    host.until("the shell is deleted", |state| state.shells.is_empty()).await;
    {
        let state = host.state();
        assert_eq!((state.connections, state.count("Signal"), state.count("Delete")), (2, 1, 1));
    }
    assert_eq!(pool.close(soon()).await, 0);
    assert_eq!(pool.statistics().leased, 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_confirms_that_the_command_is_gone() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    for (line, cut) in [("polite", false), ("hang", false), ("hang", true)] {
        let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
        let mut running = lease.start(&invocation(line), Uuid::new_v4()).await.unwrap();
        if cut {
            assert!(tokio::time::timeout(Duration::from_millis(10), running.next()).await.is_err());
        }
        let stopped = running.stop(Duration::from_millis(100)).await;
        assert!(matches!(stopped, Stopped::Confirmed { exit_code: Some(-1_073_741_510) }), "{line}: {stopped:?}");
        assert!(host.state().shells.is_empty());
    }
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_retire() {
    let host = Host::in_memory();
    let settings = PoolSettings { shell_idle: Duration::from_secs(120), ..PoolSettings::default() };
    let (connection_idle, shell_idle) = (settings.connection_idle, settings.shell_idle);
    let pool = Pool::new(settings);
    drop(pool.lease(&host.target(PASSWORD), soon()).await.unwrap());
    tokio::time::sleep(connection_idle - Duration::from_secs(1)).await;
    assert_eq!((host.state().open_connections, pool.statistics().idle), (1, 1));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((host.state().open_connections, pool.statistics().idle), (0, 1));
    tokio::time::sleep(shell_idle - connection_idle).await;
    assert_eq!(host.state().count("Delete"), 1);
    assert_eq!(host.state().connections, 2);
    assert_eq!(pool.statistics().idle, 0);
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn spent_shells_are_replaced_on_the_same_connection() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings { commands_per_shell: 2, max_shells_per_user: 1, ..PoolSettings::default() });
    for _ in 0..6 {
        let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
        run(&mut lease, &invocation("x")).await.unwrap();
    }
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!((state.connections, state.count("Create"), state.count("Delete")), (1, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_few_sessions_and_leave_nothing_behind() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings { max_shells_per_user: 3, ..PoolSettings::default() });
    let host = Arc::new(host);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..40u32 {
        let (pool, host) = (pool.clone(), Arc::clone(&host));
        callers.spawn(async move {
            let mut target = host.target(PASSWORD);
            target.shell.no_profile = caller % 4 == 0;
            for _ in 0..5 {
                let mut lease = pool.lease(&target, soon()).await.unwrap();
                match caller % 5 {
                    0 => drop(lease.start(&invocation("hang"), Uuid::new_v4()).await.unwrap()),
                    _ => assert_eq!(run(&mut lease, &invocation("x")).await.unwrap().1, 0),
                }
            }
        });
    }
    callers.join_all().await;
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert!(state.most_shells <= 3, "{}", state.most_shells);
    assert_eq!(state.count("Command"), 200);
    assert!(state.shells.is_empty());
    let statistics = pool.statistics();
    assert_eq!((statistics.leased, statistics.idle, statistics.waiting), (0, 0, 0));
}

/// Drops a future at one of the places where it waits, after everybody else had `turns` to get on with their part.
async fn cut<F: Future>(future: F, mut place: usize, turns: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let polled = std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if place == 0 => Poll::Ready(None),
        Poll::Pending => {
            place -= 1;
            Poll::Pending
        }
    });
    let output = polled.await;
    if output.is_none() {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
    output
}

#[tokio::test(start_paused = true)]
async fn wherever_a_caller_goes_away_nothing_stays_on_the_host() {
    let lines = ["plain", "slow", "cat", "hang", "break", "polite"];
    for (line, turns) in lines.into_iter().flat_map(|line| [0, 1, 2, 3, 5, 8].map(|turns| (line, turns))) {
        for stopped in [false, true] {
            let mut place = 0;
            loop {
                let host = Host::in_memory();
                let pool = Pool::new(PoolSettings::default());
                let target = host.target(PASSWORD);
                let whole = async {
                    for line in ["first", line] {
                        let mut lease = pool.lease(&target, soon()).await.unwrap();
                        let input = Bytes::from(vec![b'x'; 300_000]);
                        let invocation = Invocation::command(line, &[], (line == "cat").then_some(input)).unwrap();
                        let mut running = lease.start(&invocation, Uuid::new_v4()).await.unwrap();
                        if line == "hang" || line == "polite" {
                            let _ = tokio::time::timeout(Duration::from_secs(1), running.next()).await;
                        }
                        if stopped {
                            assert!(matches!(running.stop(Duration::from_secs(1)).await, Stopped::Confirmed { .. }));
                        } else if line != "hang" && line != "polite" {
                            while !matches!(running.next().await.unwrap(), Event::Done { .. }) {}
                        }
                    }
                };
                let ended = cut(whole, place, turns).await.is_some();
                assert_eq!(
                    pool.close(Instant::now() + Duration::from_secs(600)).await,
                    0,
                    "{line} cut at {place}, {turns}"
                );
                let state = host.state();
                assert!(state.shells.is_empty(), "{line} cut at {place}, {turns}: {:?}", state.actions);
                assert_eq!(state.rejections, 0);
                if ended {
                    break;
                }
                place += 1;
            }
            assert!(place >= 5, "{line} was cut at {place} places");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_opens_after_the_deadline_serves_the_next_caller() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings { max_shells_per_user: 1, ..PoolSettings::default() });
    host.state().create_takes = Duration::from_secs(15);
    let error = pool.lease(&host.target(PASSWORD), soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::OpenShell, "timeout.deadline"));
    let lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    assert!(lease.connection().reused);
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!((state.count("Create"), state.count("Delete")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_password_that_was_changed_is_tried_once_whatever_it_was_needed_for() {
    // Create, Command and Receive twice are let in: the Signal is the first to be refused, or another request by then.
    for lets_in in 1..12 {
        let host = Host::in_memory();
        let pool = Pool::new(PoolSettings::default());
        let target = host.target(PASSWORD);
        let (mut one, mut two) =
            (pool.lease(&target, soon()).await.unwrap(), pool.lease(&target, soon()).await.unwrap());
        host.state().lets_in = Some(lets_in);
        for _ in 0..3 {
            for lease in [&mut one, &mut two] {
                if let Err(error) = run(lease, &invocation("slow")).await {
                    assert!(
                        ["auth.rejected", "auth.rejected_before", "pool.session_in_doubt"].contains(&error.code()),
                        "{error}"
                    );
                }
            }
        }
        drop((one, two));
        assert_eq!(pool.lease(&target, soon()).await.unwrap_err().code(), "auth.rejected_before");
        // Nobody may delete them any more.
        assert_eq!(pool.close(Instant::now() + Duration::from_secs(600)).await, 2);
        let state = host.state();
        assert_eq!(state.rejections, 1, "{lets_in}: {:?}", state.actions);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_holds_nobody_else_up() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut first = host.target(PASSWORD);
    first.credential = Credential::password(r"CORP\alice", Secret::new(PASSWORD.into()));
    let second = first.clone();
    // It takes the connection and never begins TLS.
    first.endpoint =
        Endpoint::new(Scheme::Https, "127.0.0.1", Some(silent.local_addr().unwrap().port()), None).unwrap();
    let begin = Instant::now();
    let (first, second) = tokio::join!(pool.lease(&first, soon() + Duration::from_secs(60)), async {
        tokio::task::yield_now().await;
        let second = pool.lease(&second, soon() + Duration::from_secs(60)).await;
        (second, begin.elapsed())
    });
    assert_eq!(first.unwrap_err().code(), "tls.timeout");
    assert!(second.0.is_err() && second.1 < Duration::from_secs(1), "{second:?}");
}

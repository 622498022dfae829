//! A command that runs: looking away, second connections, streamed input.

use super::*;
use crate::shell::OutputStream;

#[tokio::test(start_paused = true)]
async fn looking_away_in_the_middle_of_a_receive_costs_nothing() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let mut running = lease.start(&invocation("slow"), Uuid::new_v4()).await.unwrap();
    let (mut output, mut looks) = (Vec::new(), 0);
    let done = loop {
        let Some(event) = cut(running.next(), looks % 3, looks % 5).await else {
            looks += 1;
            continue;
        };
        looks += 1;
        match event.unwrap() {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            done => break done,
        }
    };
    assert_eq!(done, Event::Done { exit_code: 0, output_gap: false });
    assert_eq!(output, b"12slow");
    assert!(looks > 5, "{looks}");
    assert_eq!(running.exchanges().critical, 4);
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!((state.connections, state.count("Receive")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_silent_command_is_stopped_at_once_over_a_second_connection() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let mut running = lease.start(&invocation("quiet"), Uuid::new_v4()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(2), running.next()).await.is_err());
    let begin = Instant::now();
    let stopped = running.stop(Duration::from_secs(30)).await;
    assert!(matches!(stopped, Stopped::Confirmed { exit_code: Some(-1_073_741_510) }), "{stopped:?}");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    // The Receive that was under way told the exit code; the signals went another way.
    assert_eq!(state.actions, ["Create", "Command", "Receive", "Signal", "Signal", "Delete"]);
    assert_eq!((state.connections, state.shells.len()), (2, 0));
}

/// Runs `echo`, feeding it one line whenever the one before came back.
async fn converse(lease: &mut Lease, lines: usize) -> (String, Event) {
    let streamed = invocation("echo").with_streamed_input();
    let mut running = lease.start(&streamed, Uuid::new_v4()).await.unwrap();
    let (mut output, mut said) = (String::new(), 0);
    loop {
        if output.lines().count() == said {
            assert!(running.wants_input());
            match said {
                said if said < lines => running.feed(Bytes::from(format!("line {said}\n"))),
                _ => running.end_input(),
            }
            said += 1;
        }
        match running.next().await.unwrap() {
            Event::Output { stream, data } => {
                assert_eq!(stream, OutputStream::Stdout);
                output.push_str(std::str::from_utf8(&data).unwrap());
            }
            done => return (output, done),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn input_is_streamed_while_output_is_waited_for() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let begin = Instant::now();
    let (output, done) = converse(&mut lease, 5).await;
    assert_eq!(output, "line 0\nline 1\nline 2\nline 3\nline 4\n");
    assert_eq!(done, Event::Done { exit_code: 0, output_gap: false });
    // Nothing waited for an OperationTimeout.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(lease);
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert!(state.connections <= 2, "{}", state.connections);
    assert_eq!(state.shells.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_command_goes_on_later() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let mut running = lease.start(&invocation("slow"), Uuid::new_v4()).await.unwrap();
    host.state().throttled = 3;
    let mut output = Vec::new();
    loop {
        match running.next().await.unwrap() {
            Event::Output { data, .. } => output.extend_from_slice(&data),
            Event::Done { output_gap, .. } => {
                assert!(!output_gap);
                break;
            }
        }
    }
    assert_eq!(output, b"12slow");
    assert_eq!(host.state().refusals, 3);
}

#[tokio::test(start_paused = true)]
async fn throttled_input_is_sent_later_and_not_at_once_again() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
    let streamed = invocation("echo").with_streamed_input();
    let mut running = lease.start(&streamed, Uuid::new_v4()).await.unwrap();
    // The Receive is under way, so that input takes the second connection.
    assert!(tokio::time::timeout(Duration::from_millis(100), running.next()).await.is_err());
    host.state().throttled = 3;
    running.feed(Bytes::from_static(b"line"));
    let begin = Instant::now();
    let event = running.next().await.unwrap();
    assert_eq!(event, Event::Output { stream: OutputStream::Stdout, data: Bytes::from_static(b"line") });
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    running.end_input();
    assert_eq!(running.next().await.unwrap(), Event::Done { exit_code: 0, output_gap: false });
    assert_eq!(host.state().refusals, 3);
}

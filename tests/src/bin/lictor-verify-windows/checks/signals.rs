//! Signal, and a second connection to a shell while the first one waits.

use std::time::{Duration, Instant};

use anyhow::Result;
use lictor_winrm::fault::{Class, Meaning, Operation};
use lictor_winrm::wsman::{Response, Signal, State};

use super::{Check, Finding, check};
use crate::lab::Lab;
use crate::reply::{Reply, shown};

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "signal.ctrl_c",
            "Signal ctrl_c from a second connection ends a program within 3 s, and the waiting Receive brings its end",
            "notes 1 and 4, [MS-WSMV] 2.2.4.38; cancellation within 1 s is what the product promises",
            ctrl_c
        ),
        check!(
            Always,
            "signal.terminate",
            "Signal terminate ends a program within 3 s; the waiting Receive brings Done, 'aborted' or 'not there'",
            "notes 4 and 6; winrm/src/fault.rs",
            terminate
        ),
        check!(
            Always,
            "signal.terminate_kills",
            "no process of the command is left after Signal terminate",
            "notes 4; ARCHITECTURE.md, invariant 8",
            terminate_kills
        ),
        check!(
            Always,
            "signal.after_done",
            "Signal terminate after Done is answered without a fault, or with 'not there'; so is a second one",
            "notes 4, [MS-WSMV] 3.1.4.14; winrm/src/fault.rs",
            after_done
        ),
        check!(
            Always,
            "connection.second",
            "while a Receive waits on one connection, Send is answered on another at once, and the Receive wakes up",
            "notes 1: a guess for the cmd shell",
            second
        ),
    ]
}

/// What a Receive that waited came to.
fn told(reply: &Result<Reply>, after: Duration) -> String {
    match reply {
        Ok(reply) => format!(
            "{} ms after the signal: {}, exit code {:?}",
            after.as_millis(),
            reply.brief(),
            reply.element("ExitCode")
        ),
        Err(error) => format!("{} ms after the signal: {error:#}", after.as_millis()),
    }
}

/// Starts a long command, waits in a Receive on one connection and signals it on another. What the Receives brought, how
/// long after the signal, and the answer to the signal.
async fn interrupt(lab: &Lab, signal: Signal) -> Result<(Result<Reply>, Duration, Reply)> {
    let mut bench = lab.bench().await?;
    let mut second = lab.connect().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "ping -n 60 127.0.0.1", false).await?;
    let (sender, signalled) = tokio::sync::oneshot::channel();
    let waiting = async {
        let mut signalled = signalled;
        let mut at = None;
        loop {
            let reply = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(10)).await;
            if let Ok(moment) = signalled.try_recv() {
                at = Some(moment);
            }
            let running = matches!(&reply, Ok(reply) if match &reply.response {
                Response::Received(received) => received.state != Some(State::Done),
                Response::Fault(fault) => fault.meaning(Operation::Receive) == Meaning::PollAgain,
                _ => false,
            });
            let late = at.is_some_and(|moment: Instant| moment.elapsed() > Duration::from_secs(15));
            if !running || late {
                return (reply, at.map_or(Duration::ZERO, |moment| moment.elapsed()));
            }
        }
    };
    let signalling = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let moment = Instant::now();
        // The receiver is gone only when the Receive has failed already, which is told anyway.
        let _ = sender.send(moment);
        lab.signal(&mut second, &shell, id, signal).await
    };
    let ((reply, after), answer) = tokio::join!(waiting, signalling);
    Ok((reply, after, answer?))
}

async fn ctrl_c(lab: &Lab) -> Result<Finding> {
    let (reply, after, answer) = interrupt(lab, Signal::CtrlC).await?;
    let ended = matches!(&reply, Ok(reply) if match &reply.response {
        Response::Received(received) => received.state == Some(State::Done),
        Response::Fault(fault) => fault.meaning(Operation::Signal) == Meaning::AlreadyGone,
        _ => false,
    });
    let held = ended && after < Duration::from_secs(3) && answer.fault().is_none();
    Ok(Finding::judge(held, [format!("Signal: {}", answer.brief()), told(&reply, after)]))
}

async fn terminate(lab: &Lab) -> Result<Finding> {
    let (reply, after, answer) = interrupt(lab, Signal::Terminate).await?;
    let ended = matches!(&reply, Ok(reply) if match &reply.response {
        Response::Received(received) => received.state == Some(State::Done),
        Response::Fault(fault) => {
            matches!(fault.class(), Class::Aborted | Class::NotThere | Class::CommandTerminated)
        }
        _ => false,
    });
    let held = ended && after < Duration::from_secs(3) && answer.fault().is_none();
    Ok(Finding::judge(held, [format!("Signal: {}", answer.brief()), told(&reply, after)]))
}

async fn terminate_kills(lab: &Lab) -> Result<Finding> {
    const LIST: &str = "tasklist /fi \"imagename eq ping.exe\" /fo csv /nh";
    let mut bench = lab.bench().await?;
    let mut watcher = lab.bench().await?;
    let before = lab.run(&mut watcher, LIST, None).await?;
    if before.exit_code != 0 {
        let told = format!("tasklist: exit code {}, {}", before.exit_code, shown(&before.stderr));
        return Ok(Finding::unknown([told]));
    }
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "ping -n 60 127.0.0.1", false).await?;
    lab.receive(&mut bench.line, &shell, id, Duration::from_secs(10)).await?;
    let during = processes(&lab.run(&mut watcher, LIST, None).await?.stdout);
    let ours: Vec<String> = during.into_iter().filter(|id| !processes(&before.stdout).contains(id)).collect();
    if ours.is_empty() {
        return Ok(Finding::unknown(["tasklist does not show the process".to_owned()]));
    }
    lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
    let begin = Instant::now();
    loop {
        let after = processes(&lab.run(&mut watcher, LIST, None).await?.stdout);
        let left = ours.iter().filter(|id| after.contains(id)).count();
        let told = format!("{} processes, {left} left {} ms later", ours.len(), begin.elapsed().as_millis());
        if left == 0 || begin.elapsed() > Duration::from_secs(10) {
            return Ok(Finding::judge(left == 0, [told]));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Process identifiers in `"ping.exe","1234",...`.
fn processes(csv: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(csv);
    let id = |line: &str| Some(line.strip_prefix("\"ping.exe\",\"")?.split('"').next()?.to_owned());
    text.lines().filter_map(|line| id(&line.to_lowercase())).collect()
}

async fn after_done(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "echo hi", false).await?;
    lab.collect(&mut bench.line, &shell, id).await?;
    let mut evidence = Vec::new();
    let mut held = true;
    for turn in ["first", "second"] {
        let reply = lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
        held &= reply.fault().is_none_or(|fault| fault.meaning(Operation::Signal) == Meaning::AlreadyGone);
        evidence.push(format!("{turn}: {}", reply.brief()));
    }
    Ok(Finding::judge(held, evidence))
}

async fn second(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut other = lab.connect().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "findstr lictor", true).await?;
    let begin = Instant::now();
    let waiting = async {
        let ended = lab.collect(&mut bench.line, &shell, id).await;
        (ended, begin.elapsed())
    };
    let sending = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let sent = lab.send(&mut other, &shell, id, b"lictor\r\n", true, Duration::from_secs(10)).await;
        (sent, begin.elapsed())
    };
    let ((ended, woken), (sent, answered)) = tokio::join!(waiting, sending);
    let (sent, ended) = (sent?, ended?);
    let soon = Duration::from_secs(5);
    let held = sent.fault().is_none() && ended.stdout == b"lictor\r\n" && answered < soon && woken < soon;
    Ok(Finding::judge(
        held,
        [
            format!("Send 1500 ms after the start: {}", sent.brief()),
            format!("the Receive had its end {} ms after the start, {}", woken.as_millis(), shown(&ended.stdout)),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_identifiers_are_read_from_a_listing() {
        let listing = b"\"PING.EXE\",\"1234\",\"Services\",\"0\",\"3,000 K\"\r\nINFO: No tasks are running\r\n";
        assert_eq!(processes(listing), ["1234"]);
    }
}

//! Standard input: its end, much of it, and programs that do not read it.

use std::time::Duration;

use anyhow::Result;
use lictor_winrm::fault::{Class, Meaning, Operation};
use lictor_winrm::wsman::{Response, Signal};

use super::output::lines;
use super::{Check, Finding, check};
use crate::lab::{Ended, Lab};
use crate::reply::shown;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "input.end",
            "input ends with the Stream that has End, with data and without",
            "notes 4, [MS-WSMV] 3.1.4.13; winrm/src/wsman.rs",
            end
        ),
        check!(
            Always,
            "input.large",
            "1 MiB of input comes back whole as 1 MiB of output, sent and received on two connections",
            "notes 4; winrm/src/shell/execution.rs",
            large
        ),
        check!(
            Always,
            "input.not_read",
            "Send to a program that does not read: taken, then 2150858793 (taken all the same), then 170 (not taken)",
            "notes 4 and 6, seen in reports about other clients; winrm/src/fault.rs",
            not_read
        ),
        check!(
            Always,
            "input.after_end",
            "Send to a command that has ended is answered with a fault after which the product asks for the exit code",
            "winrm/src/shell/execution.rs: a guess",
            after_end
        ),
    ]
}

async fn end(lab: &Lab) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut held = true;
    for pieces in [&[(&b"lictor\r\n"[..], true)][..], &[(b"lictor\r\n", false), (b"", true)]] {
        let mut bench = lab.bench().await?;
        let shell = bench.shell.id.clone();
        let id = lab.start(&mut bench.line, &shell, "findstr lictor", true).await?;
        for (data, end) in pieces {
            let reply = lab.send(&mut bench.line, &shell, id, data, *end, Duration::from_secs(10)).await?;
            evidence.push(format!("{} bytes, End {end}: {}", data.len(), reply.brief()));
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), lab.collect(&mut bench.line, &shell, id)).await;
        match ended {
            Ok(Ok(ended)) => {
                held &= ended.exit_code == 0 && ended.stdout == b"lictor\r\n";
                evidence.push(format!("exit code {}, {}", ended.exit_code, shown(&ended.stdout)));
            }
            Ok(Err(error)) => {
                held = false;
                evidence.push(format!("{error:#}"));
            }
            Err(_) => {
                held = false;
                evidence.push("the command has not ended 20 s later".to_owned());
            }
        }
    }
    Ok(Finding::judge(held, evidence))
}

async fn large(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut line = lab.connect().await?;
    let input = lines(1024 * 1024);
    let begin = std::time::Instant::now();
    let (ended, sent) = match lab.run_apart(&mut bench, &mut line, "findstr lictor", &input).await {
        Ok(done) => done,
        Err(error) => return Ok(Finding::judge(false, [format!("{error:#}")])),
    };
    let same = ended.stdout.iter().zip(&input).take_while(|(one, other)| one == other).count();
    Ok(Finding::judge(
        ended.stdout == input && ended.exit_code == 0,
        [
            format!(
                "{} bytes sent in {sent} Sends, {} received in {} Receives",
                input.len(),
                ended.stdout.len(),
                ended.receives
            ),
            format!("the first {same} bytes are the same; {} ms in all", begin.elapsed().as_millis()),
        ],
    ))
}

async fn not_read(lab: &Lab) -> Result<Finding> {
    const PIECE: usize = 96 * 1024;
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "ping -n 120 127.0.0.1", true).await?;
    let mut evidence = Vec::new();
    let mut faults = Vec::new();
    let mut taken = 0;
    for _ in 0..12 {
        let reply = lab.send(&mut bench.line, &shell, id, &lines(PIECE), false, Duration::from_secs(2)).await?;
        match reply.fault() {
            None => taken += PIECE,
            Some(fault) => {
                faults.push(fault.class());
                evidence.push(reply.brief());
            }
        }
        if faults.len() == 3 {
            break;
        }
    }
    evidence.insert(0, format!("{} KiB were taken without a fault", taken / 1024));
    lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
    // A host that takes all of it has larger buffers than was tried here; that is no difference.
    let known = faults.iter().all(|class| matches!(class, Class::TimedOut | Class::Busy));
    Ok(Finding::judge(known && faults.first().is_none_or(|class| *class == Class::TimedOut), evidence))
}

async fn after_end(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "exit 5", true).await?;
    // It has ended when Done was seen; a second Receive must bring the exit code again.
    let mut ended = Ended::default();
    while !lab.take(&lab.receive(&mut bench.line, &shell, id, Duration::from_secs(20)).await?, &mut ended)? {}
    let sent = lab.send(&mut bench.line, &shell, id, b"late\r\n", true, Duration::from_secs(5)).await?;
    let received = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(5)).await?;
    let continues = match &sent.response {
        Response::Sent => true,
        Response::Fault(fault) => {
            matches!(fault.meaning(Operation::Send), Meaning::Ambiguous | Meaning::AlreadyGone | Meaning::Accepted)
        }
        _ => false,
    };
    Ok(Finding::judge(
        continues,
        [
            format!("Send: {}", sent.brief()),
            format!("Receive after Done: {}, {:?}", received.brief(), received.element("ExitCode")),
        ],
    ))
}

//! Commands: identifiers, exit codes, command lines.

use std::time::Duration;

use anyhow::Result;
use lictor_winrm::Invocation;
use lictor_winrm::fault::{Meaning, Operation};
use lictor_winrm::wsman::{Response, Signal, State};
use uuid::Uuid;

use super::{Check, Finding, check};
use crate::envelope::Custom;
use crate::lab::Lab;
use crate::reply::shown;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "command.own_id",
            "a CommandId that the client chooses is honoured: the answer repeats it",
            "notes 4, [MS-WSMV] 3.1.4.11; winrm/src/shell/execution.rs",
            own_id
        ),
        check!(
            Always,
            "command.same_id_twice",
            "a second Command with the CommandId of a running one is refused by a fault, and the first runs on",
            "notes 4 and 6: a guess, for commands whose answer got lost",
            same_id_twice
        ),
        check!(
            Always,
            "command.exchanges",
            "a short command needs one Command and at most two Receives; Done brings the exit code",
            "notes 4; docs of the warm session in ARCHITECTURE.md",
            exchanges
        ),
        check!(
            Always,
            "command.exit_codes",
            "exit codes arrive as they are, those above 2^31 too, in decimals with or without a sign",
            "notes 4; winrm/src/wsman/response.rs",
            exit_codes
        ),
        check!(
            Always,
            "command.line_length",
            "lines of 8,000 characters arrive whole; one that is too long fails, and is never cut",
            "notes 4; MAX_COMMAND_LINE in winrm/src/shell.rs",
            line_length
        ),
        check!(
            Always,
            "command.arguments",
            "quoted by the product, arguments reach a program as they are: blanks, quotes, carets, percent signs and kin",
            "winrm/src/shell/quoting.rs: rules of cmd.exe and CommandLineToArgvW, never seen at work",
            arguments
        ),
        check!(
            Always,
            "command.skip_cmd_shell",
            "WINRS_SKIP_CMD_SHELL TRUE is ignored, or starts the program without cmd.exe: no other failure",
            "notes 4; seen in the source of another client",
            skip_cmd_shell
        ),
        check!(
            Always,
            "receive.unknown_command",
            "Receive with a CommandId that does not exist is answered with 'not there'",
            "notes 6; winrm/src/fault.rs",
            unknown_command
        ),
        check!(
            Always,
            "receive.after_signal",
            "Receive after a command was ended by Signal is answered with 'not there' or 'aborted'",
            "notes 6; winrm/src/fault.rs",
            receive_after_signal
        ),
        check!(
            Always,
            "receive.silent_command",
            "Receive from a silent command is answered with fault 2150858793 once its OperationTimeout is over",
            "notes 4 and 6, [MS-WSMV] 3.1.4.14; winrm/src/fault.rs",
            silent_command
        ),
        check!(
            Always,
            "receive.reattach",
            "after a connection was lost in the middle of a Receive, a new one receives the rest and the exit code",
            "notes 4, [H]; design: a lost Receive is attached again by ShellId and CommandId",
            reattach
        ),
        check!(
            Always,
            "process.slots",
            "30 commands, each signalled after its end, run in one shell; without Signal the 26th may be refused",
            "notes 4 and 5: whether Done alone frees a process slot is a guess",
            slots
        ),
    ]
}

async fn own_id(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let id = Uuid::new_v4();
    let reply = lab.command(&mut bench.line, &bench.shell.id, id, "echo hi", false).await?;
    let Response::CommandStarted(told) = &reply.response else {
        return Ok(Finding::judge(false, [reply.brief()]));
    };
    let same = told.parse::<Uuid>().ok() == Some(id);
    let spelled = *told == format!("{:X}", id.hyphenated());
    Ok(Finding::judge(same, [format!("the same: {same}, spelled the same: {spelled}"), reply.brief()]))
}

async fn same_id_twice(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "ping -n 3 127.0.0.1", false).await?;
    let second = lab.command(&mut bench.line, &shell, id, "echo lictor-twice", false).await?;
    let ended = lab.collect(&mut bench.line, &shell, id).await;
    let (first, told) = match &ended {
        Ok(ended) => (!ended.stdout.windows(12).any(|word| word == b"lictor-twice"), shown(&ended.stdout)),
        Err(error) => (false, format!("{error:#}")),
    };
    Ok(Finding::judge(
        second.fault().is_some() && first,
        [format!("the second: {}", second.brief()), format!("output under this id: {told}")],
    ))
}

async fn exchanges(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut evidence = Vec::new();
    let mut held = true;
    for _ in 0..3 {
        let ended = lab.run(&mut bench, "echo lictor", None).await?;
        held &= ended.receives <= 2 && ended.stdout == b"lictor\r\n" && !ended.exit_text.is_empty();
        evidence.push(format!(
            "{} Receives, Done together with output: {}, {}",
            ended.receives,
            ended.done_with_output,
            shown(&ended.stdout)
        ));
    }
    Ok(Finding::judge(held, evidence))
}

async fn exit_codes(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut evidence = Vec::new();
    let mut held = true;
    for (line, expected) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 259", 259),
        ("exit -1", -1),
        ("exit -1073741510", -1_073_741_510),
        ("cmd.exe /c exit 7", 7),
        ("lictor-verify-no-such-program", 1),
    ] {
        let ended = lab.run(&mut bench, line, None).await?;
        held &= ended.exit_code == expected;
        evidence.push(format!("{line}: {}", ended.exit_text));
    }
    Ok(Finding::judge(held, evidence))
}

async fn line_length(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut evidence = Vec::new();
    let mut held = true;
    let mut longest = 0;
    for length in [8000, 8150, 8170, 8178, 8185, 8191, 8192, 9000] {
        let text = "x".repeat(length - "echo ".len());
        let told = match lab.run(&mut bench, &format!("echo {text}"), None).await {
            Ok(ended) if ended.stdout == format!("{text}\r\n").as_bytes() => {
                longest = length;
                "whole".to_owned()
            }
            Ok(ended) => {
                held &= ended.exit_code != 0;
                let (count, stderr) = (ended.stdout.len(), shown(&ended.stderr));
                format!("exit code {}, {count} bytes of output, {stderr}", ended.exit_code)
            }
            Err(error) => format!("{error:#}"),
        };
        evidence.push(format!("{length}: {told}"));
    }
    evidence.insert(0, format!("the longest that arrived whole: {longest}"));
    Ok(Finding::judge(held && longest >= 8000, evidence))
}

/// `whoami.exe` repeats an argument that it does not know, as the C runtime split it: in apostrophes, in any language.
async fn arguments(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut evidence = Vec::new();
    let (mut held, mut told) = (true, false);
    for argument in [
        "plain",
        "a b",
        "a\"b",
        "say \"a b\"",
        "%OS%",
        "100%",
        "a&b",
        "a|b",
        "a^b",
        "(a)",
        "a!b",
        "<a>",
        "a\\",
        "a b\\",
        "é日",
    ] {
        let invocation = match Invocation::command("whoami.exe", &[argument.to_owned()], None) {
            Ok(invocation) => invocation,
            Err(error) => {
                evidence.push(format!("{argument}: {error}"));
                continue;
            }
        };
        let ended = lab.run(&mut bench, &invocation.command_line, None).await?;
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        told |= text.contains("'plain'");
        let whole = text.contains(&format!("'{argument}'"));
        held &= whole;
        if !whole {
            evidence.push(format!(
                "{}: exit code {}, {}",
                invocation.command_line,
                ended.exit_code,
                shown(&ended.stderr)
            ));
        }
    }
    if !told {
        evidence.truncate(2);
        return Ok(Finding::unknown(evidence));
    }
    evidence.push(format!("all arrived whole: {held}"));
    Ok(Finding::judge(held, evidence))
}

async fn skip_cmd_shell(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let mut evidence = Vec::new();
    let mut held = true;
    // The first is no program, so that it tells whether cmd.exe was there; the second runs either way.
    for line in ["echo hi", "hostname.exe"] {
        let id = Uuid::new_v4();
        let request = Custom::command(&bench.shell.id, id, line)
            .option("WINRS_CONSOLEMODE_STDIN", "TRUE")
            .option("WINRS_SKIP_CMD_SHELL", "TRUE");
        let reply = lab.ask(&mut bench.line, &request).await?;
        if reply.fault().is_some() {
            held &= line == "echo hi";
            evidence.push(format!("{line}: {}", reply.brief()));
            continue;
        }
        let ended = lab.collect(&mut bench.line, &bench.shell.id, id).await?;
        if line == "hostname.exe" {
            lab.hide(&String::from_utf8_lossy(&ended.stdout), "<host>");
            held &= ended.exit_code == 0;
        }
        lab.signal(&mut bench.line, &bench.shell.id, id, Signal::Terminate).await?;
        evidence.push(format!("{line}: exit code {}, {}", ended.exit_code, shown(&ended.stdout)));
    }
    Ok(Finding::judge(held, evidence))
}

async fn unknown_command(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let reply = lab.receive(&mut bench.line, &bench.shell.id, Uuid::new_v4(), Duration::from_secs(5)).await?;
    let meaning = reply.fault().map(|fault| fault.meaning(Operation::Signal));
    Ok(Finding::judge(meaning == Some(Meaning::AlreadyGone), [reply.brief()]))
}

async fn receive_after_signal(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "ping -n 60 127.0.0.1", false).await?;
    let signalled = lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
    let reply = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(5)).await?;
    let meaning = reply.fault().map(|fault| fault.meaning(Operation::Signal));
    Ok(Finding::judge(
        signalled.fault().is_none() && meaning == Some(Meaning::AlreadyGone),
        [format!("Signal: {}", signalled.brief()), format!("Receive: {}", reply.brief())],
    ))
}

async fn silent_command(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    // Without input it waits, and prints nothing.
    let id = lab.start(&mut bench.line, &shell, "findstr lictor", true).await?;
    let mut evidence = Vec::new();
    let mut held = true;
    for seconds in [2, 4] {
        let reply = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(seconds)).await?;
        let polls = reply.fault().map(|fault| fault.meaning(Operation::Receive)) == Some(Meaning::PollAgain);
        let in_time = reply.elapsed >= Duration::from_millis(seconds * 1000 - 300)
            && reply.elapsed < Duration::from_secs(seconds + 5);
        held &= polls && in_time;
        evidence.push(format!("{seconds} s: {}", reply.brief()));
    }
    Ok(Finding::judge(held, evidence))
}

async fn reattach(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let line = "ping -n 6 127.0.0.1& exit 37";
    let id = lab.start(&mut bench.line, &shell, line, false).await?;
    // Whatever comes first is taken, so that the next Receive waits for something that happens after the loss.
    let mut before = Vec::new();
    let first = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(5)).await?;
    if let Response::Received(received) = &first.response {
        before.extend(received.output.iter().flat_map(|(_, data)| data.iter().copied()));
    }
    let cut = {
        let waiting = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(20));
        // An exchange that is dropped closes its connection: this is the loss.
        tokio::time::timeout(Duration::from_millis(400), waiting).await.is_err()
    };
    let mut evidence = vec![format!("the first connection was cut during a Receive: {cut}")];
    let mut line = lab.connect().await?;
    let begin = std::time::Instant::now();
    let mut after = Vec::new();
    loop {
        let reply = lab.receive(&mut line, &shell, id, Duration::from_secs(20)).await?;
        match &reply.response {
            Response::Received(received) => {
                after.extend(received.output.iter().flat_map(|(_, data)| data.iter().copied()));
                if received.state == Some(State::Done) {
                    let code = received.exit_code.unwrap_or_default();
                    let text = [before.as_slice(), after.as_slice()].concat();
                    let answers = String::from_utf8_lossy(&text).matches("127.0.0.1:").count();
                    evidence.push(format!("Done {} ms later, exit code {code}", begin.elapsed().as_millis()));
                    evidence.push(format!("{answers} of 6 answers of ping in what was received in all"));
                    return Ok(Finding::judge(cut && code == 37, evidence));
                }
            }
            Response::Fault(fault) if fault.meaning(Operation::Receive) == Meaning::PollAgain => {}
            _ => {
                // The host may hold on to the lost Receive until its OperationTimeout is over.
                evidence.push(format!("{} ms after: {}", begin.elapsed().as_millis(), reply.brief()));
                if begin.elapsed() > Duration::from_secs(40) {
                    return Ok(Finding::judge(false, evidence));
                }
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        }
    }
}

async fn slots(lab: &Lab) -> Result<Finding> {
    const COMMANDS: usize = 30;
    let mut evidence = Vec::new();
    let mut held = true;
    for signalled in [true, false] {
        let mut bench = lab.bench().await?;
        let shell = bench.shell.id.clone();
        let mut ran = 0;
        for _ in 0..COMMANDS {
            let id = Uuid::new_v4();
            let reply = lab.command(&mut bench.line, &shell, id, "rem", false).await?;
            if reply.fault().is_some() {
                evidence.push(format!("refused after {ran} commands: {}", reply.brief()));
                break;
            }
            lab.collect(&mut bench.line, &shell, id).await?;
            if signalled {
                lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
            }
            ran += 1;
        }
        evidence.push(format!("with Signal: {signalled}: {ran} of {COMMANDS} commands ran"));
        held &= !signalled || ran == COMMANDS;
    }
    Ok(Finding::judge(held, evidence))
}

//! Output: both streams, much of it, and the bound of an answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use lictor_winrm::fault::Class;
use lictor_winrm::wsman::Signal;

use super::{Check, Finding, check};
use crate::envelope::Custom;
use crate::lab::{Ended, Lab};
use crate::reply::shown;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "output.streams",
            "standard output and standard error arrive as streams of their own",
            "notes 4; winrm/src/wsman/response.rs",
            streams
        ),
        check!(
            Always,
            "output.while_running",
            "output arrives while the command runs, not at its end",
            "notes 4; README",
            while_running
        ),
        check!(
            Always,
            "output.large",
            "2 MiB of output of a program that does not wait arrive whole",
            "notes 4; winrm/src/wsman/response.rs",
            large
        ),
        check!(
            Always,
            "output.envelope_size",
            "answers keep to the MaxEnvelopeSize of the request, and to the host's own when that is smaller",
            "notes 3, [MS-WSMV] 3.1.4.1.7; winrm/src/wsman.rs",
            envelope_size
        ),
        check!(
            Always,
            "output.envelope_too_small",
            "a MaxEnvelopeSize below 8192 is refused by the fault EncodingLimit",
            "notes 3, [MS-WSMV] 3.1.4.1.7; winrm/src/fault.rs",
            envelope_too_small
        ),
    ]
}

/// Lines that `findstr lictor` repeats.
pub(super) fn lines(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 64);
    let mut number = 0_u32;
    while text.len() < bytes {
        text.extend_from_slice(format!("{number:08} lictor {:-<46}\r\n", "").as_bytes());
        number += 1;
    }
    text
}

async fn streams(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let ended = lab.run(&mut bench, "echo out& echo err>&2", None).await?;
    let held = ended.stdout == b"out\r\n" && ended.stderr == b"err\r\n";
    Ok(Finding::judge(held, [shown(&ended.stdout), shown(&ended.stderr)]))
}

async fn while_running(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let begin = std::time::Instant::now();
    let id = lab.start(&mut bench.line, &shell, "ping -n 4 127.0.0.1", false).await?;
    let mut ended = Ended::default();
    let mut first = None;
    loop {
        let reply = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(20)).await?;
        let done = lab.take(&reply, &mut ended)?;
        if !ended.stdout.is_empty() && first.is_none() {
            first = Some(begin.elapsed());
        }
        if done {
            break;
        }
    }
    let first = first.unwrap_or_default();
    let all = begin.elapsed();
    ensure!(ended.stdout.len() > 50, "ping printed {}", shown(&ended.stdout));
    let held = first + Duration::from_secs(1) < all;
    let told = format!("first after {} ms, all after {} ms", first.as_millis(), all.as_millis());
    Ok(Finding::judge(held, [told, format!("{} Receives", ended.receives)]))
}

async fn large(lab: &Lab) -> Result<Finding> {
    const LINES: usize = 32_768;
    const WIDTH: usize = 62;
    let mut bench = lab.bench().await?;
    let begin = std::time::Instant::now();
    let script = format!("$x = '{}'; 1..{LINES} | ForEach-Object {{ Write-Output $x }}", "x".repeat(WIDTH));
    let line = format!("powershell.exe -NoLogo -NoProfile -NonInteractive -OutputFormat Text -Command \"{script}\"");
    let ended = lab.run(&mut bench, &line, None).await?;
    let expected = format!("{}\r\n", "x".repeat(WIDTH)).into_bytes();
    let whole = ended.stdout.chunks(WIDTH + 2).filter(|chunk| *chunk == expected).count();
    let held = whole == LINES && ended.stdout.len() == LINES * (WIDTH + 2);
    let (bytes, receives, took) = (ended.stdout.len(), ended.receives, begin.elapsed().as_millis());
    Ok(Finding::judge(
        held,
        [format!("{whole} of {LINES} lines whole, {bytes} bytes in {receives} Receives, {took} ms")],
    ))
}

async fn envelope_size(lab: &Lab) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut held = true;
    let mut line = lab.connect().await?;
    let configuration = lab.ask(&mut line, &Custom::configuration()).await?;
    let told = configuration.element("MaxEnvelopeSizekb").and_then(|text| text.parse::<usize>().ok());
    let own = told.unwrap_or(DEFAULT_ENVELOPE_KB) * 1024;
    evidence.push(format!("MaxEnvelopeSizekb of the host: {told:?}"));
    for (asked, bound) in [(16_384, 16_384), (4_000_000, own)] {
        let mut bench = lab.bench().await?;
        let shell = bench.shell.id.clone();
        let id = lab.start(&mut bench.line, &shell, "findstr lictor", true).await?;
        let input = lines(700 * 1024);
        let mut largest = 0;
        let mut answers = 0;
        let feeding = lab.feed(&mut line, &shell, id, &input);
        let receiving = async {
            // Output gathers first, so that there is enough for a whole answer.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let mut ended = Ended::default();
            loop {
                let request =
                    Custom::receive(&shell, id).option("WSMAN_CMDSHELL_OPTION_KEEPALIVE", "TRUE").max_envelope(asked);
                let reply = lab.ask(&mut bench.line, &request).await?;
                largest = largest.max(reply.text.len());
                answers += 1;
                if lab.take(&reply, &mut ended)? {
                    return anyhow::Ok(ended);
                }
            }
        };
        let (_, ended) = tokio::try_join!(feeding, receiving)?;
        let whole = ended.stdout == input;
        lab.signal(&mut bench.line, &shell, id, Signal::Terminate).await?;
        held &= whole && largest <= bound;
        evidence.push(format!("asked {asked}: {answers} answers, the largest of {largest} bytes; whole: {whole}"));
    }
    Ok(Finding::judge(held, evidence))
}

/// MaxEnvelopeSizekb of a host since 2012 that nobody has tuned.
const DEFAULT_ENVELOPE_KB: usize = 500;

async fn envelope_too_small(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    let (_, reply) =
        lab.create_with(&mut line, |name| Custom::create(name, Duration::from_secs(900)).max_envelope(8191)).await?;
    let refused = reply.fault().is_some_and(|fault| fault.class() == Class::EncodingLimit);
    Ok(Finding::judge(refused, [reply.brief()]))
}

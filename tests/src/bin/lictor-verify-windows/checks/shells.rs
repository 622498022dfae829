//! Shells: Create and what it is asked for, Get, Enumerate, Delete.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use lictor_winrm::fault::{Meaning, Operation};
use lictor_winrm::target::ShellProperties;
use lictor_winrm::wsman::{Response, State};

use super::{Check, Finding, check};
use crate::envelope::Custom;
use crate::lab::{Bench, Lab, properties};
use crate::reply::{Reply, clip, shown};

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "shell.create",
            "Create answers with ShellId, Owner, ClientIP, ResourceUri and the IdleTimeOut that was asked for",
            "notes 4, [MS-WSMV] 3.1.4.5.2; winrm/src/wsman.rs",
            create
        ),
        check!(
            Always,
            "shell.enumerate",
            "Enumerate lists the user's own shells in one answer, with ShellId, Name, Owner and ClientIP",
            "notes 4, [MS-WSMV] 3.1.4.4; winrm/src/pool/orphans.rs",
            enumerate
        ),
        check!(Always, "shell.get", "Get tells that a shell is Connected", "notes 4", get),
        check!(
            Always,
            "shell.short_idle_timeout",
            "an IdleTimeOut below one minute is refused by a fault, or raised to at least a minute",
            "notes 5; winrm/src/target.rs",
            short_idle_timeout
        ),
        check!(
            Always,
            "shell.environment",
            "environment variables of Create arrive as they are: blanks, quotes, percent signs, letters beyond ASCII",
            "notes 4; winrm/src/wsman.rs",
            environment
        ),
        check!(
            Always,
            "shell.directory",
            "commands start in the WorkingDirectory of Create; without one, in the user's profile",
            "notes 4; winrm/src/target.rs",
            directory
        ),
        check!(
            Always,
            "shell.code_page",
            "with WINRS_CODEPAGE 65001 chcp says so, and what cmd.exe prints is UTF-8; with 437 it is code page 437",
            "notes 4; winrm/src/target.rs",
            code_page
        ),
        check!(
            Always,
            "shell.no_profile",
            "WINRS_NOPROFILE TRUE is accepted and commands run",
            "notes 4; winrm/src/target.rs",
            no_profile
        ),
        check!(
            Always,
            "shell.compression",
            "the header CompressionType xpress is accepted, or refused by a fault: never by the end of the connection",
            "notes 4, [MS-WSMV] 3.1.4.1.31.6: a guess",
            compression
        ),
        check!(
            Always,
            "shell.delete",
            "Delete ends a running command; what is asked of the shell afterwards is answered with 'not there'",
            "notes 4 and 6; winrm/src/fault.rs",
            delete
        ),
        check!(
            Always,
            "shell.outlives_connection",
            "a shell outlives the connection that made it: another logon of the user runs commands in it and deletes it",
            "notes 4, 6 (2150859177); winrm/src/session.rs",
            outlives_connection
        ),
        check!(
            Always,
            "shell.unknown",
            "Command to a shell that does not exist is answered with 'not there', so that it surely has not started",
            "notes 6; winrm/src/fault.rs",
            unknown
        ),
    ]
}

/// Keeps what names user or client out of the report.
fn hide(lab: &Lab, record: &BTreeMap<String, String>) {
    for (property, instead) in [("Owner", "<user>"), ("ClientIP", "<client>")] {
        if let Some(value) = record.get(property) {
            lab.hide(value, instead);
        }
    }
}

fn described(record: &BTreeMap<String, String>) -> String {
    let one = |(name, value): (&String, &String)| format!("{name}={}", clip(value.trim(), 80));
    record.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn create(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    let asked = ShellProperties { idle_timeout: Duration::from_secs(754), ..properties() };
    let (_, reply) = lab.create(&mut line, &asked).await?;
    let records = reply.records("Shell");
    let Some(record) = records.first() else {
        return Ok(Finding::judge(false, ["no rsp:Shell in the answer".to_owned(), reply.body()]));
    };
    hide(lab, record);
    let complete = ["ShellId", "Owner", "ClientIP", "ResourceUri"].iter().all(|name| record.contains_key(*name));
    let idle = record.get("IdleTimeOut").map(String::as_str).unwrap_or_default();
    let honoured = seconds(idle) == Some(754.0);
    Ok(Finding::judge(complete && honoured, [described(record), format!("after {} ms", reply.elapsed.as_millis())]))
}

/// `PT7200.000S`, and also the `P0DT2H0M0S` of other properties.
fn seconds(duration: &str) -> Option<f64> {
    let (days, rest) = duration.strip_prefix('P')?.split_once('T')?;
    let mut total = if days.is_empty() { 0.0 } else { days.strip_suffix('D')?.parse::<f64>().ok()? * 86_400.0 };
    let mut rest = rest;
    for (unit, factor) in [('H', 3600.0), ('M', 60.0), ('S', 1.0)] {
        if let Some((number, later)) = rest.split_once(unit) {
            total += number.parse::<f64>().ok()? * factor;
            rest = later;
        }
    }
    rest.is_empty().then_some(total)
}

async fn enumerate(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let reply = lab.list(&mut bench.line).await?;
    let Response::Listed(listed) = &reply.response else {
        return Ok(Finding::judge(false, [reply.brief()]));
    };
    let records = reply.records("Shell");
    records.iter().for_each(|record| hide(lab, record));
    let ours = |id: Option<&String>| id.is_some_and(|id| id.eq_ignore_ascii_case(&bench.shell.id));
    let mut evidence = vec![format!("{} shells listed, more to come: {}", listed.shells.len(), listed.more.is_some())];
    let Some(record) = records.iter().find(|record| ours(record.get("ShellId"))) else {
        evidence.push("the shell that was just made is not among them".to_owned());
        return Ok(Finding::judge(false, evidence));
    };
    evidence.push(described(record));
    let parsed = listed.shells.iter().find(|shell| ours(Some(&shell.shell_id)));
    let named = parsed.is_some_and(|shell| shell.name.as_deref() == Some(bench.shell.name.as_str()));
    let complete = ["Owner", "ClientIP"].iter().all(|name| record.get(*name).is_some_and(|text| !text.is_empty()));
    evidence.push(format!("its name is the one that Create gave: {named}"));
    Ok(Finding::judge(named && complete && listed.more.is_none(), evidence))
}

async fn get(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let reply = lab.ask(&mut bench.line, &Custom::shell(&bench.shell.id)).await?;
    if reply.fault().is_some() {
        return Ok(Finding::judge(false, [reply.brief()]));
    }
    let record = reply.records("Shell").into_iter().next().unwrap_or_default();
    hide(lab, &record);
    let connected = record.get("State").is_some_and(|state| state == "Connected");
    Ok(Finding::judge(connected, [reply.brief(), described(&record)]))
}

async fn short_idle_timeout(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    let (shell, reply) = lab.create_with(&mut line, |name| Custom::create(name, Duration::from_secs(10))).await?;
    let told = reply.element("IdleTimeOut");
    let raised = told.as_deref().and_then(seconds).is_some_and(|seconds| seconds >= 60.0);
    let held = if shell.is_some() { raised } else { reply.fault().is_some() };
    Ok(Finding::judge(held, [reply.brief(), format!("IdleTimeOut in the answer: {}", told.unwrap_or_default())]))
}

async fn environment(lab: &Lab) -> Result<Finding> {
    let value = "a \"b\" 50% <c> & d^e é日";
    let environment = BTreeMap::from([("LICTOR_VERIFY".to_owned(), value.to_owned())]);
    let mut bench = lab.bench_with(&ShellProperties { environment, ..properties() }).await?;
    let ended = lab.run(&mut bench, "set LICTOR_VERIFY", None).await?;
    let expected = format!("LICTOR_VERIFY={value}\r\n");
    Ok(Finding::judge(ended.stdout == expected.as_bytes(), [shown(&ended.stdout), format!("wanted {expected:?}")]))
}

async fn directory(lab: &Lab) -> Result<Finding> {
    let working_directory = Some("C:\\Windows".to_owned());
    let mut bench = lab.bench_with(&ShellProperties { working_directory, ..properties() }).await?;
    let given = lab.run(&mut bench, "cd", None).await?;
    let mut bench = lab.bench().await?;
    let default = lab.run(&mut bench, "cd& set USERPROFILE", None).await?;
    let text = String::from_utf8_lossy(&default.stdout).into_owned();
    let mut lines = text.lines();
    let directory = lines.next().unwrap_or_default().trim();
    let profile = lines.next().and_then(|line| line.split_once('=')).map(|(_, profile)| profile.trim());
    if let Some(name) = profile.and_then(|profile| profile.rsplit('\\').next()) {
        lab.hide(name, "<user>");
    }
    let held = given.stdout.eq_ignore_ascii_case(b"C:\\Windows\r\n") && Some(directory) == profile;
    Ok(Finding::judge(held, [shown(&given.stdout), shown(&default.stdout)]))
}

async fn code_page(lab: &Lab) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut held = true;
    for (code_page, bytes) in [(65001_u32, "é".as_bytes()), (437, &[0x82][..])] {
        let mut bench = lab.bench_with(&ShellProperties { code_page, ..properties() }).await?;
        let told = lab.run(&mut bench, "chcp", None).await?;
        let echoed = lab.run(&mut bench, "echo [é]", None).await?;
        let expected = [&b"["[..], bytes, b"]\r\n"].concat();
        let says = String::from_utf8_lossy(&told.stdout).contains(&code_page.to_string());
        held &= says && echoed.stdout == expected;
        evidence.push(format!("{code_page}: chcp {}, echo {:02x?}", shown(&told.stdout), echoed.stdout));
    }
    Ok(Finding::judge(held, evidence))
}

async fn no_profile(lab: &Lab) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut held = true;
    for no_profile in [false, true] {
        let mut bench = lab.bench_with(&ShellProperties { no_profile, ..properties() }).await?;
        let ended = lab.run(&mut bench, "set USERPROFILE", None).await?;
        held &= ended.exit_code == 0;
        evidence.push(format!("{no_profile}: {}, exit code {}", shown(&ended.stdout), ended.exit_code));
    }
    Ok(Finding::judge(held, evidence))
}

async fn compression(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    const HEADER: &str = "<rsp:CompressionType s:mustUnderstand=\"true\">xpress</rsp:CompressionType>";
    let made = lab.create_with(&mut line, |name| Custom::create(name, Duration::from_secs(900)).header(HEADER)).await;
    let (shell, reply) = match made {
        Ok(made) => made,
        Err(error) => return Ok(Finding::judge(false, [format!("{error:#}")])),
    };
    let mut evidence = vec![reply.brief()];
    if let Some(shell) = shell {
        // What the stream looks like then: the first bytes, for whoever builds the decompression.
        let id = lab.start(&mut line, &shell.id, "echo lictor lictor lictor lictor", false).await?;
        let answer = lab.receive(&mut line, &shell.id, id, Duration::from_secs(20)).await?;
        let stream = answer.element("Stream").unwrap_or_default();
        evidence.push(format!("accepted; the first Stream is {:?} in base64", clip(&stream, 200)));
    }
    Ok(Finding::judge(true, evidence))
}

async fn delete(lab: &Lab) -> Result<Finding> {
    let mut bench = lab.bench().await?;
    let shell = bench.shell.id.clone();
    let id = lab.start(&mut bench.line, &shell, "ping -n 60 127.0.0.1", false).await?;
    let first = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(20)).await?;
    let runs = matches!(&first.response, Response::Received(received) if received.state != Some(State::Done));
    let deleted = lab.delete(&mut bench.line, &shell).await?;
    let received = lab.receive(&mut bench.line, &shell, id, Duration::from_secs(5)).await?;
    let again = lab.delete(&mut bench.line, &shell).await?;
    let gone = |reply: &Reply, operation| reply.fault().map(|fault| fault.meaning(operation));
    let held = runs
        && deleted.fault().is_none()
        && gone(&received, Operation::Delete) == Some(Meaning::AlreadyGone)
        && gone(&again, Operation::Delete) == Some(Meaning::AlreadyGone);
    Ok(Finding::judge(
        held,
        [
            format!("the command ran before: {runs}"),
            format!("Delete: {}", deleted.brief()),
            format!("Receive after it: {}", received.brief()),
            format!("Delete again: {}", again.brief()),
        ],
    ))
}

async fn outlives_connection(lab: &Lab) -> Result<Finding> {
    let Bench { line, shell } = lab.bench().await?;
    drop(line);
    let mut bench = Bench { line: lab.connect().await?, shell };
    let ended = lab.run(&mut bench, "echo lictor", None).await;
    let ran = ended.as_ref().is_ok_and(|ended| ended.stdout == b"lictor\r\n");
    let told = ended.map_or_else(|error| format!("{error:#}"), |ended| shown(&ended.stdout));
    let shell = bench.shell.id.clone();
    let deleted = lab.delete(&mut bench.line, &shell).await?;
    Ok(Finding::judge(ran && deleted.fault().is_none(), [told, format!("Delete: {}", deleted.brief())]))
}

async fn unknown(lab: &Lab) -> Result<Finding> {
    let mut line = lab.connect().await?;
    let shell = format!("{:X}", uuid::Uuid::new_v4().hyphenated());
    let reply = lab.command(&mut line, &shell, uuid::Uuid::new_v4(), "hostname", false).await?;
    let meaning = reply.fault().map(|fault| fault.meaning(Operation::Command));
    Ok(Finding::judge(meaning == Some(Meaning::NeedsNewShell), [reply.brief()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_both_forms() {
        assert_eq!(seconds("PT7200.000S"), Some(7200.0));
        assert_eq!(seconds("P0DT2H1M5S"), Some(7265.0));
        assert_eq!(seconds("7200"), None);
    }
}

//! Scripts: the product's wrappers for PowerShell and cmd, as the product starts them.
//!
//! Nothing of the wrapper is repeated here: [`run`] is the one place that knows how an invocation is made.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lictor_winrm::Invocation;
use lictor_winrm::clixml::RecordKind;
use lictor_winrm::mask::Patterns;
use lictor_winrm::output::{Findings, Refinement, Refiner};
use lictor_winrm::powershell::{Options, OutputValue, Outputs, cmd_script, powershell_script};
use lictor_winrm::shell::OutputStream;
use uuid::Uuid;

use super::{Check, Finding, check};
use crate::lab::{Ended, Lab};
use crate::reply::shown;

pub(super) fn checks() -> Vec<Check> {
    vec![
        check!(
            Always,
            "powershell.exit",
            "exit 37 ends with 37, exit -5 with -5, a script without exit with 0",
            "notes 9; winrm/src/powershell.rs",
            exit
        ),
        check!(
            Always,
            "powershell.throw",
            "throw ends with 1, and its message is on standard error, as plain text once CLIXML is decoded",
            "notes 9; winrm/src/powershell.rs",
            throw
        ),
        check!(
            Always,
            "powershell.native",
            "a native command that fails last gives its exit code; one that fails earlier gives 0",
            "notes 9; winrm/src/powershell.rs",
            native
        ),
        check!(
            Always,
            "powershell.parser_error",
            "a script that cannot be parsed runs nothing, ends with 1 and says why on standard error",
            "notes 9; winrm/src/powershell.rs",
            parser_error
        ),
        check!(
            Always,
            "powershell.write_error",
            "an error that does not terminate, at the end, gives 1",
            "notes 9; winrm/src/powershell.rs",
            write_error
        ),
        check!(
            Always,
            "powershell.text",
            "letters beyond ASCII in script and arguments arrive, and come back as UTF-8 without a mark",
            "notes 9; docs/decisions/0003",
            text
        ),
        check!(
            Always,
            "powershell.arguments",
            "arguments arrive as they are: blanks, quotes, dollar signs, empty ones",
            "docs/decisions/0003",
            arguments
        ),
        check!(
            Always,
            "powershell.width",
            "text of 300 characters is one line: it is not broken at the width of the console",
            "notes 9, which say so of tables only",
            width
        ),
        check!(
            Always,
            "powershell.large",
            "a script of 300 KiB arrives whole through standard input",
            "notes 9; docs/decisions/0003",
            large
        ),
        check!(
            Always,
            "powershell.profile",
            "without -NoProfile a script runs as well",
            "notes 4 and 9; winrm/src/powershell.rs",
            profile
        ),
        check!(
            Always,
            "powershell.clixml",
            "errors of -EncodedCommand are CLIXML on standard error (what -OutputFormat Text makes of them is told)",
            "notes 9; winrm/src/powershell.rs, winrm/src/clixml.rs",
            clixml
        ),
        check!(
            Always,
            "powershell.outputs",
            "variables come back whatever they hold, after exit n and throw too; empty ones are not missing ones",
            "winrm/src/powershell/bootstrap.ps1",
            outputs
        ),
        check!(
            Always,
            "powershell.records",
            "errors, warnings and verbose and debug messages are records of their kind; progress is none",
            "notes 9; winrm/src/clixml.rs",
            records
        ),
        check!(
            Always,
            "cmd.outputs",
            "environment variables come back when a cmd script runs to its end, with its exit code",
            "winrm/src/powershell.rs",
            cmd_outputs
        ),
        check!(
            Always,
            "cmd.arguments",
            "arguments with percent signs, carets and ampersands are what they were",
            "winrm/src/powershell.rs",
            cmd_arguments
        ),
        check!(
            Always,
            "cmd.script",
            "lines through standard input run without banner, prompt or echo; the exit code is that of exit or of the last",
            "winrm/src/powershell.rs",
            cmd
        ),
    ]
}

/// Starts an invocation as the product does. Input goes out on a connection of its own, so that its size does not matter.
async fn raw(lab: &Lab, invocation: &Invocation) -> Result<Ended> {
    let mut bench = lab.bench().await?;
    let mut other = lab.connect().await?;
    match invocation.stdin.as_deref() {
        Some(input) => Ok(lab.run_apart(&mut bench, &mut other, &invocation.command_line, input).await?.0),
        None => lab.run(&mut bench, &invocation.command_line, None).await,
    }
}

/// The same with its output refined as the product refines it: without trailer, and without CLIXML.
async fn refined(lab: &Lab, invocation: &Invocation, outputs: Option<Outputs>) -> Result<(Ended, Findings)> {
    let mut ended = raw(lab, invocation).await?;
    let secrets = Arc::new(Patterns::new([]));
    let mut refiner = Refiner::new(Refinement { raw_stderr: false, outputs, secrets });
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut take = |stream, data: Bytes| match stream {
        OutputStream::Stdout => stdout.extend_from_slice(&data),
        OutputStream::Stderr => stderr.extend_from_slice(&data),
    };
    refiner.push(OutputStream::Stdout, std::mem::take(&mut ended.stdout).into(), &mut take);
    refiner.push(OutputStream::Stderr, std::mem::take(&mut ended.stderr).into(), &mut take);
    let findings = refiner.finish(&mut take);
    (ended.stdout, ended.stderr) = (stdout, stderr);
    Ok((ended, findings))
}

async fn run(lab: &Lab, invocation: &Invocation) -> Result<Ended> {
    Ok(refined(lab, invocation, None).await?.0)
}

async fn script(lab: &Lab, text: &str, arguments: &[&str]) -> Result<Ended> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let invocation = powershell_script(text, &arguments, &Options { no_profile: true, outputs: None })
        .map_err(|error| anyhow!("{error}"))?;
    run(lab, &invocation).await
}

fn told(what: &str, ended: &Ended) -> String {
    format!("{what}: exit code {}, {}, error {}", ended.exit_text, shown(&ended.stdout), shown(&ended.stderr))
}

/// Text without the differences that consoles make.
fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs scripts and compares exit codes and output.
async fn compare(lab: &Lab, cases: &[(&str, i32, &str)]) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut held = true;
    for (text, exit_code, output) in cases {
        let ended = script(lab, text, &[]).await?;
        held &= ended.exit_code == *exit_code && words(&ended.stdout) == *output;
        evidence.push(told(&text.replace('\n', " / "), &ended));
    }
    Ok(Finding::judge(held, evidence))
}

async fn exit(lab: &Lab) -> Result<Finding> {
    let cases = [("Write-Output one\nexit 37", 37, "one"), ("exit -5", -5, ""), ("Write-Output two", 0, "two")];
    compare(lab, &cases).await
}

async fn throw(lab: &Lab) -> Result<Finding> {
    let ended = script(lab, "Write-Output before\nthrow 'lictor-message'\nWrite-Output after", &[]).await?;
    let plain = words(&ended.stderr);
    let held = ended.exit_code == 1
        && words(&ended.stdout) == "before"
        && plain.contains("lictor-message")
        && !plain.contains("CLIXML");
    Ok(Finding::judge(held, [told("throw", &ended)]))
}

async fn native(lab: &Lab) -> Result<Finding> {
    let cases = [("cmd.exe /c exit 5", 5, ""), ("cmd.exe /c exit 5\nWrite-Output after", 0, "after")];
    compare(lab, &cases).await
}

async fn parser_error(lab: &Lab) -> Result<Finding> {
    let ended = script(lab, "Write-Output before\nif (", &[]).await?;
    let held = ended.exit_code == 1 && ended.stdout.is_empty() && !ended.stderr.is_empty();
    Ok(Finding::judge(held, [told("if (", &ended)]))
}

async fn write_error(lab: &Lab) -> Result<Finding> {
    let ended = script(lab, "Write-Output before\nWrite-Error 'lictor-message'", &[]).await?;
    let plain = words(&ended.stderr);
    let held = ended.exit_code == 1 && plain.contains("lictor-message") && !plain.contains("CLIXML");
    Ok(Finding::judge(held, [told("Write-Error", &ended)]))
}

async fn text(lab: &Lab) -> Result<Finding> {
    let ended = script(lab, "Write-Output 'é日本😀'\nWrite-Output $args[0]", &["ü€"]).await?;
    let held = ended.stdout == "é日本😀\r\nü€\r\n".as_bytes();
    Ok(Finding::judge(held, [told("text", &ended), format!("{:02x?}", &ended.stdout[..ended.stdout.len().min(40)])]))
}

async fn arguments(lab: &Lab) -> Result<Finding> {
    let given = ["a b", "", "\"q\"", "$HOME", "it's", "`x", "50% & more", "-Name"];
    let ended = script(lab, "$args | ForEach-Object { Write-Output ('<' + $_ + '>') }", &given).await?;
    let expected: String = given.iter().map(|argument| format!("<{argument}>\r\n")).collect();
    Ok(Finding::judge(ended.stdout == expected.as_bytes(), [told("arguments", &ended), format!("wanted {expected:?}")]))
}

async fn width(lab: &Lab) -> Result<Finding> {
    let line = "x".repeat(300);
    let ended = script(lab, &format!("Write-Output '{line}'"), &[]).await?;
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    let lengths: Vec<usize> = text.lines().map(str::len).collect();
    Ok(Finding::judge(text == format!("{line}\r\n"), [format!("lines of {lengths:?} characters")]))
}

async fn large(lab: &Lab) -> Result<Finding> {
    let mut text = String::from("Write-Output first\n");
    while text.len() < 300 * 1024 {
        text.push_str("# lictor lictor lictor lictor lictor lictor lictor lictor lictor\n");
    }
    text.push_str("Write-Output last\nexit 9");
    let begin = std::time::Instant::now();
    let ended = script(lab, &text, &[]).await?;
    let held = ended.exit_code == 9 && words(&ended.stdout) == "first last";
    let told = told(&format!("{} bytes, {} ms", text.len(), begin.elapsed().as_millis()), &ended);
    Ok(Finding::judge(held, [told]))
}

async fn profile(lab: &Lab) -> Result<Finding> {
    let text = "Write-Output ('PowerShell ' + $PSVersionTable.PSVersion)\nexit 3";
    let invocation = powershell_script(text, &[], &Options::default()).map_err(|error| anyhow!("{error}"))?;
    let ended = run(lab, &invocation).await?;
    let held = ended.exit_code == 3 && words(&ended.stdout).contains("PowerShell ");
    Ok(Finding::judge(held, [told("with profile", &ended)]))
}

async fn clixml(lab: &Lab) -> Result<Finding> {
    let utf16: Vec<u8> = "Write-Error 'lictor-message'".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let encoded = STANDARD.encode(utf16);
    let mut evidence = Vec::new();
    let mut held = true;
    for format in ["", "-OutputFormat Text "] {
        let mut bench = lab.bench().await?;
        let line = format!("powershell.exe -NoLogo -NoProfile -NonInteractive {format}-EncodedCommand {encoded}");
        let ended = lab.run(&mut bench, &line, None).await?;
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        held &= (text.starts_with("#< CLIXML") || !format.is_empty()) && text.contains("lictor-message");
        evidence.push(told(if format.is_empty() { "as it is" } else { format.trim() }, &ended));
    }
    Ok(Finding::judge(held, evidence))
}

async fn cmd(lab: &Lab) -> Result<Finding> {
    let mut evidence = Vec::new();
    let mut held = true;
    for (text, arguments, exit_code, output) in [
        ("echo one\r\necho two\r\nexit 9", vec![], 9, "one\r\ntwo\r\n"),
        ("echo [%1%]\r\ncmd.exe /c exit 4", vec!["a b".to_owned()], 4, "[a b]\r\n"),
    ] {
        let invocation = cmd_script(text, &arguments, None).map_err(|error| anyhow!("{error}"))?;
        let ended = run(lab, &invocation).await?;
        held &= ended.exit_code == exit_code && ended.stdout == output.as_bytes();
        evidence.push(told(&text.replace("\r\n", " / "), &ended));
    }
    Ok(Finding::judge(held, evidence))
}

async fn outputs(lab: &Lab) -> Result<Finding> {
    let names = ["Text", "empty", "LICTOR_ENV", "none"];
    let value = |text: &str| OutputValue::Value(text.to_owned());
    let expected = [value("a\r\n%\u{e9}\u{1f600}'"), value(""), value("e"), OutputValue::Missing];
    let mut evidence = Vec::new();
    let mut held = true;
    for (end, exit_code) in [("Write-Output last", 0), ("exit 7", 7), ("throw 'x'", 1), ("cmd.exe /c exit 5", 5)] {
        let text = format!("$Text = \"a`r`n%\u{e9}\u{1f600}'\"\n$empty = ''\n$env:LICTOR_ENV = 'e'\n{end}");
        let outputs = Outputs::new(Uuid::new_v4().as_u128(), names)?;
        let options = Options { no_profile: true, outputs: outputs.clone() };
        let invocation = powershell_script(&text, &[], &options).map_err(|error| anyhow!("{error}"))?;
        let (ended, findings) = refined(lab, &invocation, outputs).await?;
        let values: Vec<_> = findings.variables.iter().map(|(_, value)| value.clone()).collect();
        held &= values == expected && ended.exit_code == exit_code && findings.exit_code(ended.exit_code) == exit_code;
        evidence.push(format!("{}; {values:?}", told(end, &ended)));
    }
    Ok(Finding::judge(held, evidence))
}

async fn records(lab: &Lab) -> Result<Finding> {
    let text = "Write-Host host\nWrite-Warning careful\nWrite-Verbose much -Verbose\n$DebugPreference = 'Continue'\n\
                Write-Debug deep\nWrite-Error wrong\nWrite-Progress busy\nexit 0";
    let options = Options { no_profile: true, outputs: None };
    let invocation = powershell_script(text, &[], &options).map_err(|error| anyhow!("{error}"))?;
    let (ended, findings) = refined(lab, &invocation, None).await?;
    let of = |kind: RecordKind| -> String {
        findings.records.iter().filter(|record| record.kind == kind).map(|record| record.text.as_str()).collect()
    };
    let held = of(RecordKind::Warning) == "careful"
        && of(RecordKind::Verbose) == "much"
        && of(RecordKind::Debug) == "deep"
        && of(RecordKind::Error).contains("wrong")
        && words(&ended.stdout) == "host"
        && !words(&ended.stderr).contains("CLIXML");
    Ok(Finding::judge(held, [told("records", &ended), format!("{:?}", findings.records)]))
}

async fn cmd_outputs(lab: &Lab) -> Result<Finding> {
    let outputs = Outputs::new(Uuid::new_v4().as_u128(), ["lictor_a", "lictor_none"])?;
    let text = "set LICTOR_A=x ^& y\nset LICTOR_AB=namesake\necho out\ncmd.exe /c exit 5";
    let invocation = cmd_script(text, &[], outputs.as_ref()).map_err(|error| anyhow!("{error}"))?;
    let (ended, findings) = refined(lab, &invocation, outputs).await?;
    let values: Vec<_> = findings.variables.iter().map(|(_, value)| value.clone()).collect();
    let held = values == [OutputValue::Value("x & y".to_owned()), OutputValue::Missing]
        && ended.exit_code == 5
        && ended.stdout == b"out\r\n";
    Ok(Finding::judge(held, [format!("{}; {values:?}", told("set", &ended))]))
}

async fn cmd_arguments(lab: &Lab) -> Result<Finding> {
    let given = ["50%", "%OS%", "%OS:W=x%", "a & b", "a^b", "!x!", "(x)", "100% & %OS%"].map(str::to_owned);
    let text: String = (1..=given.len()).map(|index| format!("set {index}\n")).collect();
    let invocation = cmd_script(&text, &given, None).map_err(|error| anyhow!("{error}"))?;
    let ended = run(lab, &invocation).await?;
    let expected: String = (1..).zip(&given).map(|(index, argument)| format!("{index}={argument}\r\n")).collect();
    Ok(Finding::judge(ended.stdout == expected.as_bytes(), [told("set", &ended), format!("wanted {expected:?}")]))
}

//! Scripts through the whole product: of any size, with any arguments, and what they hand back.
//!
//! The simulated host imitates PowerShell and cmd.exe; what real ones make of this is not yet verified.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_tests::{Output, PASSWORD, Stack, USER, Windows};
use serde_json::{Value, json};

use crate::{FINAL, PATIENCE, ntlm_host};

struct Bench {
    stack: Stack,
    windows: Windows,
    _agent: lictor_tests::Agent,
}

impl Bench {
    fn start() -> Result<Self> {
        let stack = Stack::start(&[])?;
        let agent = stack.agent("agent-1", &[])?;
        let windows = ntlm_host(&stack)?;
        Ok(Self { stack, windows, _agent: agent })
    }

    fn file(&self, text: &str) -> Result<String> {
        let path = self.stack.directory().join("script");
        std::fs::write(&path, text)?;
        Ok(path.to_str().context("UTF-8")?.to_owned())
    }

    /// Runs a script as a task to its end: the task, and its standard output and error.
    fn task(&self, text: &str, flags: &[&str], arguments: &[&str]) -> Result<(Value, Output)> {
        let file = self.file(text)?;
        let submit = ["--host", "127.0.0.1", "--credential", "ntlm", "--script", &file];
        let task_id = self.stack.submit(&[&submit, flags, &["--"], arguments].concat())?;
        let task = self.stack.task_in(&task_id, FINAL, PATIENCE)?;
        Ok((task, self.stack.lictor(&["task", "watch", &task_id])?))
    }

    /// Runs something directly.
    fn direct(&self, what: &str, arguments: &[&str]) -> Result<Output> {
        let password = self.stack.directory().join("password-ntlm").display().to_string();
        let host = ["--host", "127.0.0.1", "--scheme", "http", "--port", &self.windows.port, "--user", USER];
        self.stack.lictor(&[&["winrm", what], &host[..], &["--password-file", &password], arguments].concat())
    }
}

/// A literal that a script writes, so that both directions are judged.
fn literal(bytes: usize) -> String {
    let line = "0123456789 äöü € \u{1f600} %PATH% \"quoted\" & | < > ^ ` $x\n";
    let mut text = line.repeat((bytes / line.len()).saturating_sub(1));
    text.push_str(&"x".repeat(bytes - 2 - text.len()));
    format!("'{text}'")
}

#[test]
fn scripts_of_one_byte_to_five_mebibytes_arrive_intact() -> Result<()> {
    let bench = Bench::start()?;
    let (task, output) = bench.task("7", &[], &[])?;
    assert_eq!((&task["state"], output.text()), (&json!("succeeded"), "7\r\n".into()));
    for size in [100_000, 5 * 1024 * 1024] {
        let script = literal(size);
        assert_eq!(script.len(), size);
        let expected = format!("{}\r\n", &script[1..size - 1]);
        let (task, output) = bench.task(&script, &[], &[])?;
        assert_eq!(task["state"], "succeeded", "{task:#}");
        assert!(output.text() == expected, "{size} bytes came back as {}", output.text().len());
        let output = bench.direct("script", &["--file", &bench.file(&script)?])?;
        assert!(output.text() == expected, "{size} bytes came back as {}", output.text().len());
    }
    // One byte more than a task can have.
    let file = bench.file(&literal(5 * 1024 * 1024 + 1))?;
    let output = bench.stack.lictor(&["task", "submit", "--host", "h", "--credential", "ntlm", "--script", &file])?;
    assert_eq!(output.code, 120, "{}", output.stderr);
    assert_eq!(bench.windows.count("/violation_count")?, 0);
    Ok(())
}

#[test]
fn exit_codes_records_and_variables_come_back() -> Result<()> {
    let bench = Bench::start()?;
    let script = "$Text = \"two`r`nlines, ü\"\n$empty = ''\n$env:FROM_ENV = 'e'\nWrite-Error 'first'\nWrite-Output 'out'\n\
                  sim.exe stderr native\nthrow 'last'";
    let names = ["Text", "empty", "FROM_ENV", "none"];
    let flags: Vec<&str> = names.iter().flat_map(|name| ["--output-variable", name]).collect();
    let expected = json!([
        {"name": "Text", "state": "set", "value": "two\r\nlines, ü"},
        {"name": "empty", "state": "set", "value": ""},
        {"name": "FROM_ENV", "state": "set", "value": "e"},
        {"name": "none", "state": "missing", "value": null},
    ]);
    let (task, output) = bench.task(script, &flags, &[])?;
    assert_eq!((&task["state"], &task["result"]["exit_code"]), (&json!("failed"), &json!(1)), "{task:#}");
    assert_eq!(task["result"]["output_variables"], expected);
    assert_eq!(output.text(), "out\r\n");
    assert_eq!(output.code, 1);
    assert!(!output.stderr.contains("CLIXML") && output.stderr.contains("native\r\nlast\r\n"), "{}", output.stderr);
    assert!(output.stderr.contains("VARIABLE"), "{}", output.stderr);
    let records = |view: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = view["stderr_records"].as_array().cloned().unwrap_or_default();
        list.iter().map(|record| (text(&record["kind"]), text(&record["text"]))).collect()
    };
    let told = records(&task["result"]);
    assert_eq!(told.len(), 2, "{task:#}");
    assert!(told.iter().all(|(kind, _)| kind == "error"), "{told:?}");
    assert!(told[0].1.contains("first\r\n") && told[1].1.starts_with("last\r\n"), "{told:?}");

    // The same directly, and raw.
    let file = bench.file(script)?;
    let direct = bench.direct("script", &[&["--output", "json", "--file", &file], &flags[..]].concat())?.json()?;
    assert_eq!((&direct["exit_code"], &direct["output_variables"]), (&json!(1), &expected), "{direct:#}");
    assert_eq!(records(&direct), told);
    assert_eq!(direct["stdout"], "out\r\n");
    let raw = bench.direct("script", &["--output", "json", "--raw-stderr", "--file", &file])?.json()?;
    assert!(raw["stderr"].as_str().context("text")?.starts_with("#< CLIXML\r\n<Objs"), "{raw:#}");
    assert_eq!(raw["stderr_records"], Value::Null);
    let (task, _) = bench.task(script, &["--raw-stderr"], &[])?;
    assert_eq!(task["result"]["stderr_records"], Value::Null);

    // Warnings and the like are shown as on a console; each is a record of its own kind.
    let script = "Write-Warning careful\nWrite-Verbose much -Verbose\nWrite-Progress busy";
    let (task, output) = bench.task(script, &[], &[])?;
    assert_eq!((output.text(), output.stderr.as_str()), (String::new(), "WARNING: careful\r\nVERBOSE: much\r\n"));
    let own = |kind: &str, text: &str| (kind.to_owned(), text.to_owned());
    assert_eq!(records(&task["result"]), [own("warning", "careful"), own("verbose", "much")]);

    for (script, code) in
        [("exit 37", 37), ("sim.exe exit 9", 9), ("Write-Output (", 1), ("exit 0", 0), ("sim.exe exit -1", -1)]
    {
        let (task, output) = bench.task(script, &["--output-variable", "X"], &[])?;
        assert_eq!(task["result"]["exit_code"], code, "{script}: {task:#}");
        assert_eq!(output.text(), "", "{script}");
    }
    Ok(())
}

#[test]
fn cmd_scripts_hand_variables_back() -> Result<()> {
    let bench = Bench::start()?;
    let script = "set A=x ^& \"y\" %%\nset AB=namesake\necho out\nsim.exe exit 5";
    let flags = ["--language", "cmd", "--output-variable", "a", "--output-variable", "none"];
    let (task, output) = bench.task(script, &flags, &[])?;
    assert_eq!(task["result"]["exit_code"], 5, "{task:#}");
    assert_eq!(output.text(), "out\r\n");
    let values = json!([{"name": "a", "state": "set", "value": "x & \"y\" %%"}, {"name": "none", "state": "missing", "value": null}]);
    assert_eq!(task["result"]["output_variables"], values);
    // `exit` ends cmd.exe before it can be asked.
    let (task, _) = bench.task("set A=1\nexit 3", &flags, &[])?;
    assert_eq!(task["result"]["exit_code"], 3);
    assert_eq!(task["result"]["output_variables"][0]["state"], "unknown");
    Ok(())
}

#[test]
fn the_password_of_the_credential_is_masked() -> Result<()> {
    let bench = Bench::start()?;
    let encoded: Vec<String> =
        ["", "a", "ab"].iter().map(|before| STANDARD.encode(format!("{before}{PASSWORD}!"))).collect();
    let utf16: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16 = STANDARD.encode(utf16);
    let script = format!(
        "Write-Output 'it is {PASSWORD}, is it?'\nWrite-Output '{} {} {} {utf16}'\n$found = '{PASSWORD}'\n\
         Write-Error 'no {PASSWORD}'\nsim.exe stderr {PASSWORD}\nthrow '{PASSWORD}'",
        encoded[0], encoded[1], encoded[2],
    );
    let (task, output) = bench.task(&script, &["--output-variable", "found"], &[])?;
    assert!(output.text().starts_with("it is ***, is it?\r\n"), "{}", output.text());
    assert_eq!(task["result"]["output_variables"][0]["value"], "***");
    assert_eq!(task["result"]["stderr_records"].as_array().map(Vec::len), Some(2), "{task:#}");
    for told in [output.text(), output.stderr.clone(), task["result"].to_string()] {
        assert!(!told.contains(PASSWORD) && told.contains("***"), "{told}");
        // The middle of each form, whatever stands around it.
        for form in encoded.iter().chain([&utf16]) {
            assert!(!told.contains(&form[4..form.len() - 4]), "{told}");
        }
    }
    // A command's too, and nothing but the password.
    let command = ["--host", "127.0.0.1", "--credential", "ntlm", "--watch", "--", "sim.exe", "argv", PASSWORD, "Pa55"];
    let output = bench.stack.lictor(&[&["task", "submit"], &command[..]].concat())?;
    assert_eq!(output.text(), "[\"***\",\"Pa55\"]\r\n");
    Ok(())
}

#[test]
fn arguments_with_every_hazard_arrive_intact() -> Result<()> {
    let bench = Bench::start()?;
    let hazards = [
        "a b",
        "",
        "\"",
        "say \"hi\"",
        "^",
        "a^b",
        "%",
        "50%",
        "%PATH%",
        "%COLOR%",
        "&",
        "a & b",
        "|",
        "a|b",
        "<in",
        ">out",
        "(x)",
        "!x!",
        "ü € \u{1f600}",
        "\\",
        "c:\\dir\\",
        "c:\\my dir\\",
        "\\\"",
        "a\\\\\"b",
        "'",
        "`",
        "$x",
        ";",
        ",",
        "=",
        "a=b",
        "@x",
        "--flag",
        "-x:y",
        "/c",
        "\t",
        "\"&echo no&\"",
    ];
    // As arguments of a program, through cmd.exe and CommandLineToArgvW.
    let run = ["--env", "COLOR=blue", "--", "sim.exe", "argv"];
    let output = bench.direct("run", &[&run[..], &hazards].concat())?;
    assert_eq!(output.json()?, json!(&hazards[..]), "{}", output.stderr);
    let submit = ["task", "submit", "--host", "127.0.0.1", "--credential", "ntlm", "--watch"];
    let output = bench.stack.lictor(&[&submit, &run[..], &hazards].concat())?;
    assert_eq!(output.json()?, json!(&hazards[..]), "{}", output.stderr);

    // PowerShell takes line breaks too.
    let many = [&hazards[..], &["two\nlines", "two\r\nlines\r\n"]].concat();
    let echo = "$args | ForEach-Object { \"<$_>\" }";
    let (_, output) = bench.task(echo, &[], &many)?;
    let expected: String = many.iter().map(|argument| format!("<{argument}>\r\n")).collect();
    assert_eq!(output.text(), expected);

    // cmd takes them in variables, but for quotes and line breaks, which are refused with the way out. Behind a backslash the
    // quote around a variable would be one of the argument's own, by the rules of CommandLineToArgvW.
    let fit = |argument: &&str| !argument.is_empty() && !argument.contains(['"', '\t']) && !argument.ends_with('\\');
    let fit: Vec<&str> = hazards.into_iter().filter(fit).collect();
    let line: String = (1..=fit.len()).map(|index| format!(" \"%{index}%\"")).collect();
    let (_, output) = bench.task(&format!("sim.exe argv{line}"), &["--language", "cmd"], &fit)?;
    assert_eq!(output.json()?, json!(fit), "{}", output.stderr);
    for argument in ["say \"hi\"", "two\nlines"] {
        let file = bench.file("echo %1%")?;
        let direct = bench.direct("script", &["--language", "cmd", "--file", &file, "--", argument])?;
        assert_eq!(direct.code, 120, "{}", direct.stderr);
        let submit = ["task", "submit", "--host", "h", "--credential", "ntlm", "--language", "cmd", "--script", &file];
        let submitted = bench.stack.lictor(&[&submit[..], &["--", argument]].concat())?;
        assert_eq!(submitted.code, 133, "{}", submitted.stderr);
        for refused in [direct.stderr, submitted.stderr] {
            assert!(refused.contains("argument") && refused.contains("use PowerShell"), "{refused}");
        }
    }
    // On a command line line breaks cannot be; that is said before anything is sent.
    let output = bench.direct("run", &["--", "sim.exe", "argv", "two\nlines"])?;
    assert_eq!(output.code, 120);
    assert!(output.stderr.contains("a line break") && output.stderr.contains("use a script"), "{}", output.stderr);
    Ok(())
}

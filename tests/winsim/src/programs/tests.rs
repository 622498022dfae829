//! The programs, run in a process as the shell does.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::process::Process;

/// What a command wrote, and its exit code.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    stdout: String,
    stderr: String,
    exit: u32,
}

async fn run_with(line: &str, stdin: &[u8]) -> Ran {
    let line = line.to_owned();
    let process = Process::start(|pipes| async move {
        let mut environment = Environment::default();
        environment.set("COLOR", "blue");
        let machine = Arc::new(Machine::new("WEB01", PowerShell::default()));
        let session = Session::new(machine, "CORP\\alice", environment, "C:\\Users\\alice", CodePage::Utf8, pipes);
        cmd::run_line(session, &line).await
    });
    Process::send(process.pipes(), stdin, true, Duration::from_secs(20)).await.ok();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let desired = [Stream::Stdout, Stream::Stderr];
        let output =
            Process::receive(process.pipes(), &desired, 100_000, Duration::from_secs(20), false).await.expect("output");
        for (stream, bytes) in output.pieces {
            if stream == Stream::Stdout { stdout.extend(bytes) } else { stderr.extend(bytes) }
        }
        if let Some(exit) = output.exit {
            let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
            return Ran { stdout: text(stdout), stderr: text(stderr), exit };
        }
    }
}

async fn run(line: &str) -> Ran {
    run_with(line, b"").await
}

async fn assert_run(line: &str, stdout: &str, stderr: &str, exit: u32) {
    let expected = Ran { stdout: stdout.to_owned(), stderr: stderr.to_owned(), exit };
    assert_eq!(run(line).await, expected, "{line}");
}

#[tokio::test]
async fn builtins_answer_as_cmd_does() {
    // The first two are recordings of a real host.
    assert_run("cmd.exe /c echo hi", "hi\r\n", "", 0).await;
    assert_run("cmd.exe /c echo out && echo err>&2 && exit 1", "out \r\n", "err \r\n", 1).await;
    assert_run("hostname", "WEB01\r\n", "", 0).await;
    assert_run("whoami", "corp\\alice\r\n", "", 0).await;
    assert_run("ver", "\r\nMicrosoft Windows [Version 10.0.14393]\r\n", "", 0).await;
    assert_run("echo %COLOR% %NOTHING% 100%", "blue %NOTHING% 100%\r\n", "", 0).await;
    assert_run("cmd /c \"set A=1&& set A\"", "A=1\r\n", "", 0).await;
    assert_run("set nothing", "", "Environment variable nothing not defined\r\n", 1).await;
    assert_run("cd \\Temp & cd", "C:\\Temp\r\n", "", 0).await;
    assert_run("echo.", "\r\n", "", 0).await;
    assert_run("exit /b 5", "", "", 5).await;
    assert_run("cmd /c exit -1", "", "", u32::MAX).await;
    assert_run("exit 5 & echo no", "", "", 5).await;
    assert_run("sim.exe exit 3 || echo %ERRORLEVEL%", "0\r\n", "", 3).await;
}

#[tokio::test]
async fn pipes_and_redirections_work() {
    assert_run("(echo apple& echo pear) | findstr PEAR", "", "", 1).await;
    assert_run("(echo apple& echo pear) | findstr /i PEAR", "pear\r\n", "", 0).await;
    assert_run(
        "echo secret> f.txt & type f.txt & type none.txt",
        "secret \r\n",
        "The system cannot find the file specified.\r\n",
        1,
    )
    .await;
    assert_run("sim.exe stderr x 2>nul & sim.exe stderr y 2>&1 | more", "y\r\n", "", 0).await;
    assert_eq!(run_with("more", b"from the client").await.stdout, "from the client");
}

#[tokio::test]
async fn unknown_programs_and_bad_lines_are_errors() {
    let message =
        "'nosuch' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n";
    assert_run("nosuch /x", "", message, 1).await;
    assert_run("echo a &&", "", "The syntax of the command is incorrect.\r\n", 1).await;
    let nested = "cmd /c ".repeat(40) + "echo deep";
    assert_eq!(run(&nested).await.exit, 1);
}

#[tokio::test]
async fn a_script_comes_through_standard_input() {
    let ran = run_with("cmd.exe /Q /D", b"echo one\r\nset X=two\r\necho %X%\r\nexit /b 7\r\necho never\r\n").await;
    assert!(ran.stdout.ends_with("reserved.\r\none\r\ntwo\r\n"), "{ran:?}");
    assert_eq!(ran.exit, 7);
    let ran = run_with("cmd.exe /Q /D /K echo off", b"echo one").await;
    assert_eq!((ran.stdout.as_str(), ran.exit), ("off\r\none\r\n", 0));
    let ran = run_with("cmd", b"echo one\n").await;
    assert!(ran.stdout.contains("\r\nC:\\Users\\alice>echo one\r\none\r\n"), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn sim_does_what_tests_count_on() {
    let ran = run("sim.exe bytes 130").await;
    assert_eq!(ran.stdout, format!("{:063}\n{:063}\n00", 0, 1));
    assert_eq!(run("sim.exe bytes 1000000").await.stdout.len(), 1_000_000);
    assert_run("sim.exe lines 3 100", "line 1\r\nline 2\r\nline 3\r\n", "", 0).await;
    assert_run(r#"sim.exe argv a "b c" "d\"e" \\"#, "[\"a\",\"b c\",\"d\\\"e\",\"\\\\\\\\\"]\r\n", "", 0).await;
    assert_run("sim.exe stderr some text", "", "some text\r\n", 0).await;
    assert_run("sim.exe exit 3221225786", "", "", 0xc000_013a).await;
    assert_run("sim.exe sleep 5000", "", "", 0).await;
    assert_eq!(
        run_with("sim.exe stdin", b"\x00\xff\x00".map(|b| if b == 0xff { b'x' } else { b }).as_slice()).await.stdout,
        "\0x\0"
    );
    assert_eq!(run("sim nonsense").await.exit, 2);
}

/// A command line as a client builds it for a script.
fn encoded(script: &str) -> String {
    let bytes: Vec<u8> = script.encode_utf16().flat_map(u16::to_le_bytes).collect();
    format!("powershell.exe -NoProfile -NonInteractive -EncodedCommand {}", base64(&bytes))
}

fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

async fn assert_script(script: &str, stdout: &str, exit: u32) {
    let ran = run(&encoded(script)).await;
    assert_eq!((ran.stdout.as_str(), ran.exit), (stdout, exit), "{script}: {}", ran.stderr);
}

#[tokio::test(start_paused = true)]
async fn powershell_runs_the_scripts_it_knows() {
    assert_script("Write-Output 'it''s' \"$env:COLOR $(1 + 2)\"; 'literal'", "it's\r\nblue 3\r\nliteral\r\n", 0).await;
    assert_script("Write-Host hi; Write-Host -NoNewline \"a`tb\"", "hi\na\tb", 0).await;
    assert_script("1..3 | ForEach-Object { \"n=$_\" } # comment\nexit 37", "n=1\r\nn=2\r\nn=3\r\n", 37).await;
    assert_script("$x = 4; $x * 2 + 1; \"$x,${x}\"; $x.ToString()", "9\r\n4,4\r\n4\r\n", 0).await;
    assert_script("1..2 | % { Start-Sleep -Milliseconds 500; Write-Output $_ }", "1\r\n2\r\n", 0).await;
    assert_script("\"v$($PSVersionTable.PSVersion)\"; hostname; whoami", "v5.1.14393.0\r\nWEB01\r\ncorp\\alice\r\n", 0)
        .await;
    assert_script("sim.exe argv 'a b' c; sim.exe exit 4; $LASTEXITCODE", "[\"a b\",\"c\"]\r\n4\r\n", 0).await;
    assert_script("sim.exe exit 4", "", 1).await;
    assert_script("sim.exe exit 4; exit $LASTEXITCODE", "", 4).await;
    assert_script("(hostname) + '!'", "WEB01!\r\n", 0).await;
    assert_script("Get-Date | Out-Null; $PSVersionTable.PSVersion.Major", "5\r\n", 0).await;
}

#[tokio::test]
async fn powershell_errors_are_told() {
    let ran = run(&encoded("Write-Error 'broken'; 'after'")).await;
    assert_eq!((ran.stdout.as_str(), ran.exit), ("after\r\n", 0));
    assert!(
        ran.stderr.starts_with("#< CLIXML\r\n<Objs ") && ran.stderr.contains("broken_x000D__x000A_</S>"),
        "{}",
        ran.stderr
    );
    let ran = run("powershell -Command throw 'boom'").await;
    assert_eq!((ran.exit, ran.stderr.lines().next()), (1, Some("boom")));
    let ran = run(&encoded("[Console]::Error.WriteLine('raw'); nosuch")).await;
    assert_eq!(ran.exit, 1);
    assert!(
        ran.stderr.starts_with("raw\r\n#< CLIXML") && ran.stderr.contains("'nosuch' is not recognized"),
        "{}",
        ran.stderr
    );
    for script in ["'unfinished", "if (1) { 2 }", "a | 1", "$(", "1..3 | Sort-Object"] {
        assert_eq!(run(&encoded(script)).await.exit, 1, "{script}");
    }
    let deep = "(".repeat(1000);
    assert_eq!(run_with("powershell -Command -", deep.as_bytes()).await.exit, 1);
}

#[tokio::test]
async fn a_bootstrap_takes_script_and_arguments_from_standard_input() {
    let bootstrap = "$all=[Console]::In.ReadToEnd(); [Convert]::FromBase64String($all)";
    let input =
        |values: &[&str]| values.iter().map(|value| format!(":{}\n", base64(value.as_bytes()))).collect::<String>();
    let ran = run_with(
        &encoded(bootstrap),
        input(&["\"$($args[1]) $($args.Count)\"\nsim.exe exit 9", "a", "b ü"]).as_bytes(),
    )
    .await;
    assert_eq!((ran.stdout.as_str(), ran.exit), ("b ü 2\r\n", 9));
    let ran = run_with(&encoded(bootstrap), input(&["throw 'boom'"]).as_bytes()).await;
    assert!(
        ran.stderr.starts_with("#< CLIXML\r\n<Objs") && ran.stderr.contains("<S S=\"Error\">boom_x000D__x000A_</S>")
    );
    assert_eq!(ran.exit, 1);
    let handing_back = format!("=mark:\n?Text\n?COLOR\n?none\n{}", input(&["$text = 'é'; 'out'; exit 4"]));
    let ran = run_with(&encoded(bootstrap), handing_back.as_bytes()).await;
    assert_eq!((ran.stdout.as_str(), ran.exit), ("out\r\nmark:0+w6k=\nmark:1+Ymx1ZQ==\nmark:2-\nmark:x\nmark:.\n", 4));
    assert_eq!(run_with(&encoded(bootstrap), input(&["exit 37"]).as_bytes()).await.exit, 37);
    assert_eq!(run_with(&encoded(bootstrap), input(&[""]).as_bytes()).await.exit, 0);
}

//! Runs the script on the host, in a shell of its own, and brings its answer.
//!
//! Whatever stands against that is a text for the rows that need it, never an error of the whole, unless the host does not take
//! the credential any more. It only reads; a test has
//! a grammar of PowerShell read it. Nothing of it has been run on a real Windows host.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lictor_winrm::mask::Patterns;
use lictor_winrm::output::{Refinement, Refiner};
use lictor_winrm::pool::{Pool, Running};
use lictor_winrm::powershell;
use lictor_winrm::shell::{Event, OutputStream};
use lictor_winrm::{Error, Target};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::answer::{self, Answer, MAX_OUTPUT};

/// The script. It is started with the port as its argument.
pub(super) const SCRIPT: &str = include_str!("script.ps1");
/// IdleTimeOut of its shell: if it cannot be deleted, the host does so soon. The least that Windows 2008 R2 takes.
const SHELL_IDLE: Duration = Duration::from_secs(15 * 60);
/// Bytes of standard error that are kept.
const MAX_TROUBLE: usize = 400;

/// What came of the script.
#[derive(Debug)]
pub(super) enum Script {
    /// It was not to be run.
    LeftOut,
    /// It has no answer, and why.
    Failed(String),
    /// Its answer.
    Answered(Box<Answer>),
}

/// Runs it until `deadline`, in a session of `pool`. Whoever drops this half-way leaves the shell to the pool, which deletes it.
///
/// # Errors
/// When the credential is not taken any more: that is no matter of the rows.
pub(super) async fn run(pool: &Pool, target: &Target, deadline: Instant) -> Result<Script, Error> {
    let mut target = target.clone();
    target.shell.idle_timeout = target.shell.idle_timeout.min(SHELL_IDLE);
    match timeout_at(deadline, run_in(pool, &target, deadline)).await {
        Ok(Ok(answer)) => Ok(answer.map_or_else(Script::Failed, |answer| Script::Answered(Box::new(answer)))),
        Ok(Err(error)) if error.credential_rejected() => Err(error),
        Ok(Err(error)) => Ok(Script::Failed(format!("the script could not be run: {}", error.report()))),
        Err(_) => Ok(Script::Failed("the script did not end in time".to_owned())),
    }
}

async fn run_in(pool: &Pool, target: &Target, deadline: Instant) -> Result<Result<Answer, String>, Error> {
    let port = target.endpoint.port().to_string();
    let options = powershell::Options { no_profile: true, outputs: None };
    let invocation = match powershell::powershell_script(SCRIPT, &[port], &options) {
        Ok(invocation) => invocation,
        Err(error) => return Ok(Err(format!("the script could not be run: {error}"))),
    };
    let mut lease = pool.lease(target, deadline).await?;
    let mut output = Output::new();
    let exit_code = follow(&mut lease.start(&invocation, Uuid::new_v4()).await?, &mut output).await?;
    // Nobody else wants a shell of these settings.
    lease.end();
    let (stdout, trouble) = output.finish();
    Ok(answer::parse(&stdout).map_err(|why| match trouble {
        Some(trouble) => format!("{why} (exit code {exit_code}): {trouble}"),
        None => format!("{why} (exit code {exit_code})"),
    }))
}

async fn follow(running: &mut Running<'_>, output: &mut Output) -> Result<i32, Error> {
    loop {
        match running.next().await? {
            Event::Output { stream, data } => output.push(stream, data),
            Event::Done { exit_code, .. } => return Ok(exit_code),
        }
    }
}

/// What the script wrote, as far as it matters.
struct Output {
    refiner: Refiner,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    fn new() -> Self {
        let refinement = Refinement { raw_stderr: false, outputs: None, secrets: Arc::new(Patterns::new([])) };
        Self { refiner: Refiner::new(refinement), stdout: Vec::new(), stderr: Vec::new() }
    }

    fn push(&mut self, stream: OutputStream, data: Bytes) {
        let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
        self.refiner.push(stream, data, &mut |stream, data| keep(stdout, stderr, stream, &data));
    }

    /// Standard output, and standard error on one line.
    fn finish(self) -> (Vec<u8>, Option<String>) {
        let Self { refiner, mut stdout, mut stderr } = self;
        refiner.finish(&mut |stream, data| keep(&mut stdout, &mut stderr, stream, &data));
        let text = String::from_utf8_lossy(&stderr);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "\u{fffd}");
        (stdout, (!text.is_empty()).then_some(text))
    }
}

/// One byte more than is read shows that there was more.
fn keep(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>, stream: OutputStream, data: &Bytes) {
    let (kept, most) = match stream {
        OutputStream::Stdout => (stdout, MAX_OUTPUT + 1),
        OutputStream::Stderr => (stderr, MAX_TROUBLE),
    };
    let room = most.saturating_sub(kept.len()).min(data.len());
    kept.extend_from_slice(data.get(..room).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use tree_sitter::Parser;

    use super::*;

    /// Errors that a grammar of PowerShell sees.
    fn grammar_errors(text: &str) -> usize {
        fn count(node: tree_sitter::Node<'_>) -> usize {
            let own = usize::from(node.is_error() || node.is_missing());
            own + node.children(&mut node.walk()).map(count).sum::<usize>()
        }
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).unwrap();
        count(parser.parse(text, None).unwrap().root_node())
    }

    #[test]
    fn a_grammar_of_powershell_reads_the_script() {
        assert_eq!(grammar_errors(SCRIPT), 0);
        assert_eq!(grammar_errors(&format!("{SCRIPT}\r\n\r\n$global:LictorStatus=$?")), 0);
        // It can tell.
        assert_ne!(grammar_errors(&SCRIPT.replacen("} catch {", "}", 1)), 0);
    }

    /// Commands that change something begin with other verbs, and programs are not started at all.
    #[test]
    fn the_script_only_reads() {
        const KNOWN: &[&str] = &[
            "ConvertTo-Json",
            "ForEach-Object",
            "Get-ItemProperty",
            "Get-NetFirewallAddressFilter",
            "Get-NetFirewallApplicationFilter",
            "Get-NetFirewallPortFilter",
            "Get-NetFirewallProfile",
            "Get-NetFirewallRule",
            "Get-PSSessionConfiguration",
            "Get-WinEvent",
            "Read-Item",
            "Select-Object",
            "Test-Path",
        ];
        fn names(node: tree_sitter::Node<'_>, found: &mut Vec<String>) {
            if node.kind() == "command_name" {
                found.push(SCRIPT[node.byte_range()].to_owned());
            }
            node.children(&mut node.walk()).for_each(|child| names(child, found));
        }
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).unwrap();
        let mut found = Vec::new();
        names(parser.parse(SCRIPT, None).unwrap().root_node(), &mut found);
        assert!(found.len() >= KNOWN.len(), "{found:?}");
        for name in &found {
            assert!(KNOWN.contains(&name.as_str()), "{name} is not known to only read");
        }
        assert!(SCRIPT.is_ascii() && !SCRIPT.to_ascii_lowercase().contains("$input"));
    }
}

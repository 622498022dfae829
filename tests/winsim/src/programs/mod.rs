//! The programs that simulated shells know, and what they run in: an environment, a directory and three streams.
//!
//! Deterministic imitations of the few things that tests and demonstrations need. Nothing here touches the real machine.

pub(crate) mod cmd;
mod command_line;
mod console;
mod parser;
mod powershell;
mod sim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::options::PowerShell;
use crate::process::{Pipes, Stream};
use crate::statistics::increment;

pub(crate) use console::CodePage;

/// What all processes of a host share.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) hostname: String,
    pub(crate) powershell: PowerShell,
    /// Files that redirections have written, by lower-case full path.
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How often `sim.exe mark NAME` was run.
    marks: Mutex<BTreeMap<String, u64>>,
    /// What is said to scripts that cannot be run here, the latest last.
    canned: Mutex<Vec<CannedScript>>,
}

/// What powershell.exe says to a script from standard input that holds a certain text, in place of running it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CannedScript {
    /// The text.
    pub holds: String,
    /// Standard output.
    pub stdout: String,
    /// Exit code.
    pub exit_code: u32,
}

/// More are not kept: the oldest goes.
const MAX_CANNED: usize = 100;

/// All files of a machine together. Writing more fails as on a full disk.
const DISK: usize = 16 * 1024 * 1024;

impl Machine {
    pub(crate) fn new(hostname: &str, powershell: PowerShell) -> Self {
        let machine = Self { hostname: hostname.to_owned(), powershell, ..Self::default() };
        machine.write(
            "c:\\windows\\win.ini",
            b"; for 16-bit app support\r\n[fonts]\r\n[extensions]\r\n".to_vec(),
            false,
        );
        machine
    }

    /// Takes one more, which comes before all others.
    pub(crate) fn can(&self, script: CannedScript) {
        let mut canned = self.canned.lock().unwrap_or_else(PoisonError::into_inner);
        if canned.len() == MAX_CANNED {
            canned.remove(0);
        }
        canned.push(script);
    }

    fn canned(&self, script: &str) -> Option<CannedScript> {
        let canned = self.canned.lock().unwrap_or_else(PoisonError::into_inner);
        canned.iter().rev().find(|canned| script.contains(&canned.holds)).cloned()
    }

    fn mark(&self, name: &str) {
        increment(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner), name);
    }

    /// What was marked how often since the start or [`Machine::forget_marks`]. Restarts do not touch it.
    pub(crate) fn marks(&self) -> BTreeMap<String, u64> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn forget_marks(&self) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&path.to_lowercase()).cloned()
    }

    /// Whether there was room.
    fn write(&self, path: &str, content: Vec<u8>, append: bool) -> bool {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.values().map(Vec::len).sum::<usize>() + content.len() > DISK {
            return false;
        }
        let file = files.entry(path.to_lowercase()).or_default();
        if !append {
            file.clear();
        }
        file.extend(content);
        true
    }
}

/// What a program runs in. A clone is a child process that shares the streams.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) machine: Arc<Machine>,
    /// The account, `CORP\alice` or `alice`.
    pub(crate) user: String,
    pub(crate) environment: Environment,
    pub(crate) directory: String,
    pub(crate) code_page: CodePage,
    pub(crate) stdin: Input,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    pub(crate) pipes: Pipes,
}

impl Session {
    /// The session of a process that writes to its own pipes.
    pub(crate) fn new(
        machine: Arc<Machine>,
        user: &str,
        environment: Environment,
        directory: &str,
        code_page: CodePage,
        pipes: Pipes,
    ) -> Self {
        Self {
            machine,
            user: user.to_owned(),
            environment,
            directory: directory.to_owned(),
            code_page,
            stdin: Input::Process,
            stdout: Sink::Process(Stream::Stdout),
            stderr: Sink::Process(Stream::Stderr),
            pipes,
        }
    }

    /// Writes text in the code page of the console.
    pub(crate) async fn print(&self, text: &str) {
        self.write(&self.stdout, &self.code_page.encode(text)).await;
    }

    pub(crate) async fn print_error(&self, text: &str) {
        self.write(&self.stderr, &self.code_page.encode(text)).await;
    }

    pub(crate) async fn write(&self, sink: &Sink, bytes: &[u8]) {
        match sink {
            Sink::Process(stream) => self.pipes.write(*stream, bytes).await,
            Sink::Capture(buffer) => {
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                // A capture is for small things; what does not fit is lost as on a full disk.
                let room = DISK.saturating_sub(buffer.len()).min(bytes.len());
                buffer.extend_from_slice(&bytes[..room]);
            }
            Sink::Null => {}
        }
    }

    /// Up to `limit` bytes of standard input; `None` at its end.
    pub(crate) async fn read(&self, limit: usize) -> Option<Vec<u8>> {
        match &self.stdin {
            Input::Process => self.pipes.read(limit).await,
            Input::Bytes(bytes) => {
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let count = limit.min(bytes.len());
                (count > 0).then(|| bytes.drain(..count).collect())
            }
        }
    }

    /// The whole standard input. Bounded, as everything here: what is longer than the disk is cut.
    pub(crate) async fn read_all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(data) = self.read(64 * 1024).await {
            if all.len() < DISK {
                all.extend(data);
            }
        }
        all
    }

    /// One line of standard input without its end; `None` when there is none.
    pub(crate) async fn read_line(&self) -> Option<String> {
        let mut line = Vec::new();
        while let Some(data) = self.read(4096).await {
            if let Some(end) = data.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&data[..end]);
                match &self.stdin {
                    Input::Process => self.pipes.unread(&data[end + 1..]),
                    Input::Bytes(bytes) => {
                        let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                        bytes.splice(..0, data[end + 1..].iter().copied());
                    }
                }
                return Some(self.line_text(line));
            }
            line.extend(data);
            if line.len() > DISK {
                break;
            }
        }
        (!line.is_empty()).then(|| self.line_text(line))
    }

    fn line_text(&self, mut line: Vec<u8>) -> String {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        self.code_page.decode(&line)
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.pipes.sleep(time).await;
    }

    /// A path made absolute.
    pub(crate) fn path(&self, path: &str) -> String {
        let path = path.replace('/', "\\");
        if path.get(1..2) == Some(":") || path.starts_with('\\') {
            path
        } else {
            format!("{}\\{path}", self.directory.trim_end_matches('\\'))
        }
    }
}

/// Where a program writes.
#[derive(Clone)]
pub(crate) enum Sink {
    /// The process' own pipe.
    Process(Stream),
    /// Memory, for pipes and files of cmd.
    Capture(Arc<Mutex<Vec<u8>>>),
    /// `nul`.
    Null,
}

/// Where a program reads.
#[derive(Clone)]
pub(crate) enum Input {
    /// What the client sends.
    Process,
    /// What a redirection or a pipe of cmd holds.
    Bytes(Arc<Mutex<Vec<u8>>>),
}

/// Environment variables: names keep their spelling and are equal in any case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, (String, String)>);

impl Environment {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_uppercase()).map(|(_, value)| value.as_str())
    }

    /// Sets a variable; an empty value removes it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.0.remove(&name.to_uppercase());
        } else {
            let spelling = self.0.get(&name.to_uppercase()).map_or(name, |(spelling, _)| spelling).to_owned();
            self.0.insert(name.to_uppercase(), (spelling, value.to_owned()));
        }
    }

    /// All variables in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.values().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Runs a program that is a file of its own, by its name with or without path and `.exe`. `None` when there is no such program.
pub(crate) async fn run(session: &Session, program: &str, arguments: &str) -> Option<u32> {
    let file = program.rsplit(['\\', '/']).next().unwrap_or(program).to_lowercase();
    let code = match file.strip_suffix(".exe").unwrap_or(&file) {
        "cmd" => Box::pin(cmd::program(session.clone(), arguments)).await,
        "powershell" | "pwsh" => Box::pin(powershell::program(session.clone(), arguments)).await,
        "sim" => sim::program(session, &command_line::split(arguments)).await,
        "hostname" => console::hostname(session).await,
        "whoami" => console::whoami(session).await,
        "ping" => console::ping(session, &command_line::split(arguments)).await,
        "timeout" => console::timeout(session, &command_line::split(arguments)).await,
        "findstr" => console::findstr(session, &command_line::split(arguments)).await,
        "more" | "more.com" => console::more(session, &command_line::split(arguments)).await,
        "chcp" | "chcp.com" => console::chcp(session).await,
        _ => return None,
    };
    Some(code)
}

#[cfg(test)]
mod tests;

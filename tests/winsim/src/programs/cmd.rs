//! The imitation of cmd.exe: its builtins, its exit codes, and scripts that come through standard input.
//!
//! No `if`, `for`, labels or batch files: what they do can be had by `&&` and `||`.

use std::sync::{Arc, Mutex, PoisonError};

use super::parser::{self, Body, Command, Condition, List, Pipeline, Redirection};
use super::{Input, Session, Sink, console};
use crate::process::Stream;

/// What `ver` and the banner say: Server 2016.
const VERSION: &str = "Microsoft Windows [Version 10.0.14393]";
/// Nested `cmd /c` and `powershell`. Deeper ones fail, as a real machine would run out of something.
const MAX_NESTING: usize = 32;
const NESTING: &str = "WINSIM_NESTING";

/// One running cmd.
struct Interpreter {
    session: Session,
    error_level: u32,
    exited: bool,
}

/// Runs one command line as `cmd /c` does and returns its exit code.
pub(crate) async fn run_line(session: Session, line: &str) -> u32 {
    let mut interpreter = Interpreter { session, error_level: 0, exited: false };
    interpreter.line(line).await;
    interpreter.error_level
}

/// cmd.exe with its arguments.
pub(super) async fn program(mut session: Session, arguments: &str) -> u32 {
    let nesting = session.environment.get(NESTING).and_then(|depth| depth.parse().ok()).unwrap_or(0_usize) + 1;
    if nesting > MAX_NESTING {
        session.print_error("Not enough memory resources are available to process this command.\r\n").await;
        return 1;
    }
    session.environment.set(NESTING, &nesting.to_string());
    let switches = Switches::parse(arguments);
    let mut interpreter = Interpreter { session, error_level: 0, exited: false };
    match switches.command {
        Some(command) => {
            interpreter.line(&command).await;
            if switches.stays && !interpreter.exited {
                interpreter.script(switches.echo).await;
            }
        }
        None => {
            let banner = format!("{VERSION}\r\n(c) 2016 Microsoft Corporation. All rights reserved.\r\n");
            interpreter.session.print(&banner).await;
            interpreter.script(switches.echo).await;
        }
    }
    interpreter.error_level
}

struct Switches {
    command: Option<String>,
    /// `/K`: goes on with standard input.
    stays: bool,
    echo: bool,
}

impl Switches {
    fn parse(arguments: &str) -> Self {
        let mut switches = Self { command: None, stays: false, echo: true };
        let mut rest = arguments.trim_start();
        let mut strip_always = false;
        while let Some(switch) = rest.strip_prefix('/') {
            let letter = switch.chars().next().map(|letter| letter.to_ascii_lowercase());
            match letter {
                Some(letter @ ('c' | 'k' | 'r')) => {
                    let command = switch[1..].trim_start();
                    switches.stays = letter == 'k';
                    if !(switches.stays && command.is_empty()) {
                        switches.command = Some(without_outer_quotes(command, strip_always));
                    }
                    return switches;
                }
                Some('q') => switches.echo = false,
                Some('s') => strip_always = true,
                _ => {}
            }
            let end = switch.find([' ', '\t', '/']).unwrap_or(switch.len());
            rest = switch[end..].trim_start();
        }
        switches
    }
}

/// The quotes around the whole of a command are cmd's own, unless they are those of a program's name.
fn without_outer_quotes(command: &str, always: bool) -> String {
    let Some(inner) = command.strip_prefix('"') else { return command.to_owned() };
    let Some(end) = inner.rfind('"') else { return inner.to_owned() };
    let (first, last) = (&inner[..end], &inner[end + 1..]);
    let names_a_program =
        !first.contains('"') && !first.contains(['&', '<', '>', '(', ')', '@', '^', '|']) && first.ends_with(".exe");
    if names_a_program && !always { command.to_owned() } else { format!("{first}{last}") }
}

impl Interpreter {
    /// Runs lines of standard input until `exit` or its end.
    async fn script(&mut self, mut echo: bool) {
        loop {
            if echo {
                self.session.print(&format!("\r\n{}>", self.session.directory)).await;
            }
            if self.exited {
                return;
            }
            let Some(line) = self.session.read_line().await else { return };
            if echo {
                self.session.print(&format!("{line}\r\n")).await;
            }
            match line.trim().trim_start_matches('@').to_lowercase().as_str() {
                "echo off" => echo = false,
                "echo on" => echo = true,
                _ => Box::pin(self.line(&line)).await,
            }
            if self.exited {
                return;
            }
        }
    }

    async fn line(&mut self, line: &str) {
        let line = self.expand(line);
        if line.trim().is_empty() {
            return;
        }
        match parser::parse(&line) {
            Ok(list) => self.list(list).await,
            Err(parser::Unexpected(text)) => {
                let message = if text.is_empty() {
                    "The syntax of the command is incorrect.\r\n".to_owned()
                } else {
                    format!("{text} was unexpected at this time.\r\n")
                };
                self.session.print_error(&message).await;
                self.error_level = 1;
            }
        }
    }

    /// Replaces `%NAME%`; names that are not set stay, as on a command line.
    fn expand(&self, line: &str) -> String {
        let mut expanded = String::with_capacity(line.len());
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('%') {
            expanded.push_str(before);
            let value = after.split_once('%').and_then(|(name, after)| Some((self.variable(name)?, after)));
            match value {
                Some((value, after)) => {
                    expanded.push_str(&value);
                    rest = after;
                }
                None => {
                    expanded.push('%');
                    rest = after;
                }
            }
        }
        expanded.push_str(rest);
        expanded
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name.to_uppercase().as_str() {
            _ if self.session.environment.get(name).is_some() => self.session.environment.get(name).map(str::to_owned),
            "ERRORLEVEL" => Some(self.error_level.cast_signed().to_string()),
            "CD" => Some(self.session.directory.clone()),
            _ => None,
        }
    }

    async fn list(&mut self, list: List) {
        for (condition, pipeline) in list {
            let runs = match condition {
                Condition::Always => true,
                Condition::Success => self.error_level == 0,
                Condition::Failure => self.error_level != 0,
            };
            if runs && !self.exited {
                Box::pin(self.pipeline(pipeline)).await;
            }
        }
    }

    /// One command runs here; several run one after the other in children that hand their output on.
    async fn pipeline(&mut self, mut pipeline: Pipeline) {
        let Some(last) = pipeline.pop() else { return };
        if pipeline.is_empty() {
            return self.command(last).await;
        }
        let mut input = self.session.stdin.clone();
        for command in pipeline {
            let buffer = Arc::new(Mutex::default());
            let mut child = self.session.clone();
            (child.stdin, child.stdout) = (input, Sink::Capture(Arc::clone(&buffer)));
            Interpreter { session: child, error_level: self.error_level, exited: false }.command(command).await;
            input = Input::Bytes(buffer);
        }
        let mut child = self.session.clone();
        child.stdin = input;
        let mut child = Interpreter { session: child, error_level: self.error_level, exited: false };
        child.command(last).await;
        self.error_level = child.error_level;
    }

    async fn command(&mut self, command: Command) {
        let streams = (self.session.stdin.clone(), self.session.stdout.clone(), self.session.stderr.clone());
        let mut files = Vec::new();
        for redirection in command.redirections {
            match redirection {
                Redirection::Input(file) => {
                    let content = if file.eq_ignore_ascii_case("nul") {
                        Some(Vec::new())
                    } else {
                        self.session.machine.read(&self.session.path(&file))
                    };
                    let Some(content) = content else {
                        self.session.print_error("The system cannot find the file specified.\r\n").await;
                        self.error_level = 1;
                        (self.session.stdin, self.session.stdout, self.session.stderr) = streams;
                        return;
                    };
                    self.session.stdin = Input::Bytes(Arc::new(Mutex::new(content)));
                }
                Redirection::Output { handle, file, append } => {
                    let sink = if file.eq_ignore_ascii_case("nul") {
                        Sink::Null
                    } else {
                        let buffer = Arc::new(Mutex::default());
                        files.push((self.session.path(&file), Arc::clone(&buffer), append));
                        Sink::Capture(buffer)
                    };
                    *self.handle(handle) = sink;
                }
                Redirection::Duplicate { handle, target } => {
                    // Handles 1 and 2 of the console itself are the process' own pipes.
                    let sink = match target {
                        1 => self.session.stdout.clone(),
                        2 => self.session.stderr.clone(),
                        _ => Sink::Process(Stream::Stdout),
                    };
                    *self.handle(handle) = sink;
                }
            }
        }
        match command.body {
            Body::Text(text) => self.simple(&text).await,
            Body::Group(list) => self.list(list).await,
        }
        (self.session.stdin, self.session.stdout, self.session.stderr) = streams;
        for (path, buffer, append) in files {
            let content = std::mem::take(&mut *buffer.lock().unwrap_or_else(PoisonError::into_inner));
            if !self.session.machine.write(&path, content, append) {
                self.session.print_error("There is not enough space on the disk.\r\n").await;
                self.error_level = 1;
            }
        }
    }

    fn handle(&mut self, number: u8) -> &mut Sink {
        if number == 2 { &mut self.session.stderr } else { &mut self.session.stdout }
    }

    async fn simple(&mut self, text: &str) {
        let text = text.trim_start_matches([' ', '\t', ',', ';', '=']);
        let (name, rest) = split_name(text);
        let argument = rest.trim();
        self.error_level = match name.to_lowercase().as_str() {
            "" => return,
            "echo" => {
                // One character after the name is dropped, whatever it is; everything else is kept, trailing blanks too.
                let shown = rest.get(1..).unwrap_or_default();
                let shown = if rest.is_empty() { "ECHO is on." } else { shown };
                self.session.print(&format!("{shown}\r\n")).await;
                return;
            }
            "rem" | "cls" | "setlocal" | "endlocal" | "title" => 0,
            name if name.starts_with("::") => return,
            "ver" => {
                self.session.print(&format!("\r\n{VERSION}\r\n")).await;
                0
            }
            "set" => self.set(argument).await,
            "cd" | "chdir" => self.change_directory(argument).await,
            "type" => console::type_file(&self.session, argument).await,
            "exit" => {
                let number =
                    argument.strip_prefix("/b").or_else(|| argument.strip_prefix("/B")).unwrap_or(argument).trim();
                self.exited = true;
                // Without a number the error level is the exit code.
                number.parse::<i64>().map_or(self.error_level, |code| code as u32)
            }
            _ => match super::run(&self.session, name.trim_matches('"'), rest).await {
                Some(code) => code,
                None => {
                    let message = format!(
                        "'{name}' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n"
                    );
                    self.session.print_error(&message).await;
                    1
                }
            },
        };
    }

    async fn set(&mut self, argument: &str) -> u32 {
        // Quotes around the whole assignment are not part of it.
        let argument = argument
            .strip_prefix('"')
            .map_or(argument, |inner| inner.rsplit_once('"').map_or(inner, |(inner, _)| inner));
        if let Some((name, value)) = argument.split_once('=') {
            self.session.environment.set(name, value);
            return 0;
        }
        let lines: Vec<String> = self
            .session
            .environment
            .iter()
            .filter(|(name, _)| *name != NESTING && name.to_lowercase().starts_with(&argument.to_lowercase()))
            .map(|(name, value)| format!("{name}={value}\r\n"))
            .collect();
        if lines.is_empty() {
            self.session.print_error(&format!("Environment variable {argument} not defined\r\n")).await;
            return 1;
        }
        self.session.print(&lines.concat()).await;
        0
    }

    async fn change_directory(&mut self, argument: &str) -> u32 {
        let target = argument
            .strip_prefix("/d")
            .or_else(|| argument.strip_prefix("/D"))
            .unwrap_or(argument)
            .trim()
            .trim_matches('"');
        match target {
            "" => self.session.print(&format!("{}\r\n", self.session.directory)).await,
            "." => {}
            ".." => {
                let parent = self.session.directory.rsplit_once('\\').map_or("C:", |(parent, _)| parent);
                self.session.directory = if parent.ends_with(':') { format!("{parent}\\") } else { parent.to_owned() };
            }
            root if root.starts_with('\\') => self.session.directory = format!("C:{root}"),
            // Every directory exists, but for one that says that it does not.
            missing if missing.to_lowercase().contains("missing") => {
                self.session.print_error("The system cannot find the path specified.\r\n").await;
                return 1;
            }
            other => self.session.directory = self.session.path(other),
        }
        0
    }
}

/// The program's name, quotes included, and everything after it.
fn split_name(text: &str) -> (&str, &str) {
    if let Some(end) = text.strip_prefix('"').and_then(|inner| inner.find('"')) {
        return text.split_at(end + 2);
    }
    // `echo.`, `echo:` and `cd\` need no blank.
    let lower = text.to_lowercase();
    for (name, marks) in
        [("echo", &['.', ':', '(', '/', '\\', '['][..]), ("cd", &['\\', '.', '/'][..]), ("exit", &['/'][..])]
    {
        if let Some(rest) = lower.strip_prefix(name)
            && rest.starts_with(marks)
            && !rest.starts_with(".exe")
        {
            return text.split_at(name.len());
        }
    }
    text.split_at(text.find([' ', '\t', ',', ';', '=']).unwrap_or(text.len()))
}

//! The command machine, and the values that go in and out of it.
//!
//! [`Execution`] follows one command from Command to Done: it says which request comes next and turns answers into
//! events. It does no I/O, reads no clock and never repeats a Command. The session layer drives it.

mod execution;
mod quoting;

use bytes::Bytes;

pub use execution::{Execution, Trouble, Turn};

/// Most characters that cmd.exe takes on a command line (in UTF-16 units, as Windows counts).
pub const MAX_COMMAND_LINE: usize = 8191;

/// What to run in a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Command line for cmd.exe, arguments included.
    pub command_line: String,
    /// Standard input, ended after the last byte unless more is streamed. Nothing: no input, unless it is streamed.
    pub stdin: Option<Bytes>,
    /// More input is fed while the command runs.
    pub streamed: bool,
}

impl Invocation {
    /// A command line, with `arguments` appended, each quoted by the rules of CommandLineToArgvW when it needs it, and
    /// guarded from cmd.exe, which reads the line first.
    ///
    /// # Errors
    /// [`InvocationError`] when it is empty, longer than cmd.exe takes (8191 characters), or holds NUL or line breaks.
    pub fn command(line: &str, arguments: &[String], stdin: Option<Bytes>) -> Result<Self, InvocationError> {
        let mut command_line = line.trim().to_owned();
        if command_line.is_empty() {
            return Err(InvocationError::Empty);
        }
        for argument in arguments {
            command_line.push(' ');
            quoting::append(&mut command_line, argument);
        }
        for character in command_line.chars() {
            match character {
                '\0' => return Err(InvocationError::Character("a NUL character")),
                '\r' | '\n' => return Err(InvocationError::Character("a line break")),
                '\t' => {}
                '\u{1}'..='\u{1f}' => return Err(InvocationError::Character("a control character")),
                '\u{fffe}' | '\u{ffff}' => return Err(InvocationError::Character("a character that XML cannot carry")),
                _ => {}
            }
        }
        let length = command_line.encode_utf16().count();
        if length > MAX_COMMAND_LINE {
            return Err(InvocationError::TooLong { length, limit: MAX_COMMAND_LINE });
        }
        Ok(Self { command_line, stdin, streamed: false })
    }

    /// The same with input that is fed while the command runs, after what it has already.
    #[must_use]
    pub fn with_streamed_input(mut self) -> Self {
        self.streamed = true;
        self
    }

    /// Whether the command gets any input: `WINRS_CONSOLEMODE_STDIN` of Command.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.streamed || self.stdin.is_some()
    }
}

/// Why something cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvocationError {
    /// Nothing to run.
    #[error("the command line is empty")]
    Empty,
    /// Too long.
    #[error("the command line has {length} characters; cmd.exe takes at most {limit}: use a script instead")]
    TooLong {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A character that cannot be on a command line.
    #[error("the command line holds {0}, which cmd.exe cannot take: use a script instead")]
    Character(&'static str),
}

/// Output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a running command reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Output, as the host sent it (bytes, not necessarily whole characters).
    Output {
        /// Which stream.
        stream: OutputStream,
        /// The bytes; never empty.
        data: Bytes,
    },
    /// The end. Nothing follows.
    Done {
        /// Exit code; Windows codes above 2^31 - 1 are negative here.
        exit_code: i32,
        /// Output was lost on the wire, though the exit code is known.
        output_gap: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_checked() {
        let command = |line: &str, arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            Invocation::command(line, &arguments, None).map(|invocation| invocation.command_line)
        };
        assert_eq!(command("ping", &["-n", "1", "a b"]).unwrap(), "ping -n 1 \"a b\"");
        assert_eq!(command("echo hi & hostname", &[]).unwrap(), "echo hi & hostname");
        assert_eq!(command(" ", &[]), Err(InvocationError::Empty));
        assert_eq!(command("a\r\nb", &[]), Err(InvocationError::Character("a line break")));
        assert_eq!(command("a", &["x\0"]), Err(InvocationError::Character("a NUL character")));
        assert!(command(&"x".repeat(8191), &[]).is_ok());
        assert_eq!(command(&"ö".repeat(8192), &[]), Err(InvocationError::TooLong { length: 8192, limit: 8191 }));
    }
}

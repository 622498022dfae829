//! PowerShell and cmd scripts as invocations of the cmd shell.
//!
//! The text of a script travels through standard input, never on a command line: there it would be bounded to 8191
//! characters and written to the host's process audit. Pure functions; what they write has been run against a simulated host
//! and read by a grammar of PowerShell, and is not yet verified on Windows.

mod outputs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

pub use outputs::{Collected, Collector, NameError, OutputValue, Outputs};

use crate::shell::{Invocation, InvocationError};

/// What powershell.exe runs first. It reads all of standard input, by lines: `:` and base64 of UTF-8, first the script, then
/// its arguments (the colon keeps empty values apart from empty lines); `=` and the mark that lines of the trailer begin
/// with; `?` and the name of a variable to hand back.
///
/// - The script runs in the bootstrap's own scope, so that its variables are there afterwards. Ours begin with `Lictor`.
/// - The script's last status is taken at its very end, inside of it: `$?` of a script block says nothing about the native
///   commands in it. Two line breaks end a comment, or a line continuation, on the script's last line. A script that ends
///   with `return` has ended well.
/// - A terminating error, of the parser too, is caught, shown as PowerShell shows it, and ends with 1. `exit n` passes through
///   as it is; `finally` runs before it takes effect, and does not know its number.
/// - It must not name PowerShell's automatic variable for input: where a command does, powershell.exe reads standard input
///   itself, and the two would race for it (Windows PowerShell 5.1 and later).
/// - The trailer goes out with one write, so that nothing of the script's own comes between.
const BOOTSTRAP: &str = include_str!("powershell/bootstrap.ps1");

/// How a PowerShell script is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-NoProfile`: does not run the profile scripts of PowerShell. Has nothing to do with the Windows user profile, which
    /// the shell loads or not (`WINRS_NOPROFILE`, [`crate::target::ShellProperties`]).
    pub no_profile: bool,
    /// Variables to hand back.
    pub outputs: Option<Outputs>,
}

/// Why a script cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// An argument that cmd.exe cannot take.
    #[error(
        "argument {position} holds {what}, which a cmd script cannot be given: use PowerShell, which takes any text"
    )]
    Argument {
        /// Counted from 1.
        position: usize,
        /// What it holds.
        what: &'static str,
    },
    /// A text that cmd.exe cannot take.
    #[error("the script holds a NUL character, which cmd.exe cannot take")]
    Nul,
    /// The invocation.
    #[error(transparent)]
    Invocation(#[from] InvocationError),
}

/// Wraps a PowerShell script: the text travels through standard input, the exit code of `exit n`, of a terminating error
/// (1) and of the last native command arrives as the exit code. Its error stream is CLIXML ([`crate::clixml`]).
///
/// # Errors
/// [`ScriptError`] when it cannot be run.
pub fn powershell_script(text: &str, arguments: &[String], options: &Options) -> Result<Invocation, ScriptError> {
    let utf16: Vec<u8> = BOOTSTRAP.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let line = format!(
        // Standard output is text, and standard error CLIXML because the command is encoded: in Windows PowerShell 5.1 that
        // is so even with -OutputFormat Text.
        "powershell.exe -NoLogo {}-NonInteractive -ExecutionPolicy Bypass -EncodedCommand {}",
        if options.no_profile { "-NoProfile " } else { "" },
        STANDARD.encode(utf16)
    );
    let mut input = String::with_capacity(text.len() / 3 * 4 + 1024);
    if let Some(outputs) = &options.outputs {
        input.push_str(&format!("={}\n", outputs.mark()));
        for name in outputs.names() {
            input.push_str(&format!("?{name}\n"));
        }
    }
    for value in std::iter::once(text).chain(arguments.iter().map(String::as_str)) {
        input.push(':');
        STANDARD.encode_string(value, &mut input);
        input.push('\n');
    }
    Ok(Invocation::command(&line, &[], Some(Bytes::from(input)))?)
}

/// Wraps a cmd script: the lines are fed to cmd.exe through standard input, so they follow the rules of the command line
/// rather than those of batch files (`%i`, not `%%i`; no `goto`). Arguments are the variables `%1%`, `%2%` and so on; in
/// double quotes they are safe to use, for they hold none. The exit code is that of `exit n`, else of the last command.
/// Variables are handed back only when the script runs to its end: `exit` ends cmd.exe at once.
///
/// # Errors
/// [`ScriptError`] when it cannot be run.
pub fn cmd_script(text: &str, arguments: &[String], outputs: Option<&Outputs>) -> Result<Invocation, ScriptError> {
    let mut input = String::with_capacity(text.len() + 1024);
    for (position, argument) in (1..).zip(arguments) {
        input.push_str(&set_line(position, argument)?);
    }
    if text.contains('\0') {
        return Err(ScriptError::Nul);
    }
    for line in text.lines() {
        input.push_str(line);
        input.push_str("\r\n");
    }
    match outputs {
        None => input.push_str("exit %ERRORLEVEL%\r\n"),
        Some(outputs) => {
            let mark = outputs.mark();
            // Neither of the two changes the error level.
            input.push_str("@set \"LICTOR_EXIT=%ERRORLEVEL%\"\r\n@echo off\r\n");
            for (index, name) in outputs.names().enumerate() {
                // `set` writes every variable whose name begins like this, this one first, and an error when there is none.
                input.push_str(&format!("echo {mark}{index}=\r\nset {name} 2>nul\r\n"));
            }
            input.push_str(&format!("echo {mark}x%LICTOR_EXIT%\r\necho {mark}.\r\nexit %LICTOR_EXIT%\r\n"));
        }
    }
    // /K with a command that does nothing suppresses the banner, /Q the prompt and the echo, /D the AutoRun commands, and
    // /V:OFF keeps `!` what it is on hosts where delayed expansion is switched on.
    Ok(Invocation::command("cmd.exe /D /Q /V:OFF /K rem", &[], Some(Bytes::from(input)))?)
}

/// Sets the variable of an argument.
fn set_line(position: usize, argument: &str) -> Result<String, ScriptError> {
    let refused = |what| Err(ScriptError::Argument { position, what });
    let mut plain = true;
    for character in argument.chars() {
        match character {
            // Could be carried, but not used: it would end the quotes that a script puts around its argument, and what
            // follows would be run.
            '"' => return refused("a double quote"),
            '\r' | '\n' => return refused("a line break"),
            '\0'..='\u{1f}' => return refused("a control character"),
            '%' => plain = false,
            _ => {}
        }
    }
    if plain {
        // Between quotes everything is literal but for what was refused.
        return Ok(format!("set \"{position}={argument}\"\r\n"));
    }
    // Within quotes a percent sign could not be guarded. Outside, a caret before it and one behind it keep `%NAME%` and
    // `%NAME:a=b%` from being variables, and fall away afterwards.
    let mut line = format!("set {position}=");
    let mut guard = false;
    for character in argument.chars() {
        if guard || matches!(character, '&' | '|' | '<' | '>' | '^' | '(' | ')' | '%' | '!') {
            line.push('^');
        }
        line.push(character);
        guard = character == '%';
    }
    line.push_str("\r\n");
    Ok(line)
}

#[cfg(test)]
mod tests;

//! PowerShell and cmd scripts as invocations of the cmd shell.
//!
//! The text of a script travels through standard input, never on a command line: there it would be bounded to 8191
//! characters and written to the host's process audit. Pure functions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::shell::{Invocation, InvocationError};

/// What powershell.exe runs first. It reads all of standard input: lines of `:` and base64 of UTF-8, first the script, then
/// its arguments. The colon keeps empty values apart from empty lines.
///
/// - The script's last status is taken at its very end, inside of it: `$?` of a script block says nothing about the native
///   commands in it. Two line breaks end a comment, or a line continuation, on the script's last line.
/// - A terminating error is caught, shown as PowerShell shows it, and ends with 1. `exit n` passes through as it is.
const BOOTSTRAP: &str = r#"$ProgressPreference='SilentlyContinue'
[Console]::OutputEncoding=New-Object System.Text.UTF8Encoding $false
$OutputEncoding=[Console]::OutputEncoding
$global:LictorStatus=$true
$global:LASTEXITCODE=0
$lictor=@([Console]::In.ReadToEnd().Split([char]10)|ForEach-Object{$_.Trim()}|Where-Object{$_.StartsWith(':')}|ForEach-Object{[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($_.Substring(1)))})
$lictorArguments=@($lictor|Select-Object -Skip 1)
try{
& ([ScriptBlock]::Create($lictor[0]+"`r`n`r`n"+'$global:LictorStatus=$?')) @lictorArguments
}catch{
[Console]::Error.WriteLine(($_|Out-String).TrimEnd())
exit 1
}
if(!$global:LictorStatus){if($LASTEXITCODE){exit $LASTEXITCODE}else{exit 1}}
exit 0
"#;

/// Wraps a PowerShell script: the text travels through standard input, the exit code of `exit n`, of a terminating error
/// (1) and of the last native command arrives as the exit code.
///
/// # Errors
/// [`InvocationError`] when an argument cannot be passed.
pub fn powershell_script(text: &str, arguments: &[String], no_profile: bool) -> Result<Invocation, InvocationError> {
    let utf16: Vec<u8> = BOOTSTRAP.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let line = format!(
        // Without -OutputFormat, standard error would be CLIXML: that is what PowerShell does for encoded commands.
        "powershell.exe -NoLogo {}-NonInteractive -ExecutionPolicy Bypass -OutputFormat Text -EncodedCommand {}",
        if no_profile { "-NoProfile " } else { "" },
        STANDARD.encode(utf16)
    );
    let mut input = String::with_capacity(text.len() / 3 * 4 + 8);
    for value in std::iter::once(text).chain(arguments.iter().map(String::as_str)) {
        input.push(':');
        STANDARD.encode_string(value, &mut input);
        input.push('\n');
    }
    Invocation::command(&line, &[], Some(Bytes::from(input)))
}

/// Wraps a cmd script: the lines are fed to cmd.exe through standard input, so they follow the rules of the command line
/// rather than those of batch files (`%i`, not `%%i`; no `goto`). Arguments are the variables `%1%`, `%2%` and so on. The
/// exit code is that of `exit n`, else of the last command.
///
/// # Errors
/// [`InvocationError`] when an argument cannot be passed.
pub fn cmd_script(text: &str, arguments: &[String]) -> Result<Invocation, InvocationError> {
    let mut input = String::with_capacity(text.len() + 64);
    for (index, argument) in arguments.iter().enumerate() {
        for character in argument.chars() {
            // In `set "n=value"` the value is literal but for these.
            match character {
                '"' => return Err(InvocationError::Character("a quote in an argument of a cmd script")),
                '%' => return Err(InvocationError::Character("a percent sign in an argument of a cmd script")),
                '\0'..='\u{1f}' => return Err(InvocationError::Character("a control character")),
                _ => {}
            }
        }
        input.push_str(&format!("set \"{}={argument}\"\r\n", index + 1));
    }
    if text.contains('\0') {
        return Err(InvocationError::Character("a NUL character"));
    }
    for line in text.lines() {
        input.push_str(line);
        input.push_str("\r\n");
    }
    input.push_str("exit %ERRORLEVEL%\r\n");
    // /K with a command that does nothing suppresses the banner, /Q the prompt and the echo, /D the AutoRun commands.
    Invocation::command("cmd.exe /D /Q /K rem", &[], Some(Bytes::from(input)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(invocation: &Invocation) -> Vec<String> {
        let input = String::from_utf8(invocation.stdin.clone().unwrap().to_vec()).unwrap();
        input
            .lines()
            .map(|line| String::from_utf8(STANDARD.decode(line.strip_prefix(':').unwrap()).unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn the_script_travels_through_standard_input() {
        let arguments = ["a b".to_owned(), String::new(), "\"q\" $x é".to_owned()];
        let invocation = powershell_script("Write-Output 'secret'\nexit 37", &arguments, true).unwrap();
        assert_eq!(decoded(&invocation), ["Write-Output 'secret'\nexit 37", "a b", "", "\"q\" $x é"]);
        assert!(
            invocation.command_line.starts_with(
                "powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -OutputFormat Text -EncodedCommand "
            )
        );
        assert!(invocation.command_line.len() < 4096);
        let same = powershell_script("", &[], true).unwrap();
        assert_eq!(same.command_line, invocation.command_line);
        assert_eq!(decoded(&same), [""]);
    }

    #[test]
    fn the_bootstrap_is_utf16_in_base64() {
        let invocation = powershell_script("", &[], false).unwrap();
        assert!(!invocation.command_line.contains("-NoProfile"));
        let encoded = invocation.command_line.rsplit(' ').next().unwrap();
        let units: Vec<u16> =
            STANDARD.decode(encoded).unwrap().chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(String::from_utf16(&units).unwrap(), BOOTSTRAP);
    }

    #[test]
    fn cmd_lines_end_with_the_exit_code() {
        let invocation = cmd_script("echo %1%\nver", &["a & b".to_owned()]).unwrap();
        assert_eq!(invocation.stdin.unwrap(), "set \"1=a & b\"\r\necho %1%\r\nver\r\nexit %ERRORLEVEL%\r\n");
        assert!(cmd_script("", &["50%".to_owned()]).is_err());
        assert!(cmd_script("", &["a\"b".to_owned()]).is_err());
        assert!(cmd_script("", &["a\nb".to_owned()]).is_err());
    }
}

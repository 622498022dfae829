//! What PowerShell's profile scripts do to a script: the same tiny one is run without them and with them.
//!
//! It only reads: the language mode, which the same script tells, and the version.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lictor_winrm::clixml::{Decoder, Item};
use lictor_winrm::probe::Ran;
use lictor_winrm::{Error, Invocation};

use crate::catalogue::host as catalogue;
use crate::check::Check;
use crate::finding::Finding;
use crate::step::{Outcome, Steps};

/// Allowed in every language mode but NoLanguage.
const SCRIPT: &str =
    "Write-Output \"lictor=$($ExecutionContext.SessionState.LanguageMode)=$($PSVersionTable.PSVersion)\"";
const MARK: &str = "lictor=";
/// More than that, and twice as long as without, is told.
const SLOW: Duration = Duration::from_secs(2);
const MOST_SHOWN: usize = 120;

/// Without the profile scripts, then with them.
pub(super) fn scripts() -> Vec<Invocation> {
    let utf16: Vec<u8> = SCRIPT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let encoded = STANDARD.encode(utf16);
    let invocation = |flags: &str| Invocation {
        command_line: format!("powershell.exe -NoLogo {flags}-NonInteractive -EncodedCommand {encoded}"),
        stdin: None,
        streamed: false,
    };
    vec![invocation("-NoProfile "), invocation("")]
}

/// Returns how long the scripts took.
pub(super) fn judge(ran: &[Result<Ran, Error>], failed: bool, steps: &mut Steps<'_>) -> Duration {
    let took = ran.iter().flatten().map(|ran| ran.elapsed).sum();
    let (outcome, detail, finding) = match ran {
        [Ok(without), Ok(with)] => compare(without, with),
        [Ok(_), Err(error)] | [Err(error), ..] if !failed => {
            (Outcome::Unknown, format!("the script could not be run: {}", error.report()), None)
        }
        _ => (Outcome::Skipped, String::new(), None),
    };
    steps.add_timed(Check::Profile, outcome, took, detail, finding);
    took
}

fn compare(without: &Ran, with: &Ran) -> (Outcome, String, Option<Finding>) {
    let warn = |detail: String, finding| (Outcome::Warning, detail, Some(finding));
    let (plain, loaded) = (Said::of(without), Said::of(with));
    let Some((mode, version)) = &plain.answer else {
        let message = format!("PowerShell ended with exit code {} and said {:?}", without.exit_code, plain.noise);
        return warn(String::new(), catalogue::NO_POWERSHELL.found(message, ""));
    };
    let detail = format!("PowerShell {version}, {mode}");
    if mode != "FullLanguage" {
        return warn(detail, catalogue::LANGUAGE_MODE.found(format!("the language mode is {mode}"), ""));
    }
    if loaded.answer.is_none() {
        let message =
            format!("with the profile, PowerShell ended with exit code {} and said {:?}", with.exit_code, loaded.noise);
        return warn(detail, catalogue::PROFILE_BREAKS.found(message, ""));
    }
    // What is said without a profile too is not the profile's.
    if loaded.noise != plain.noise && !loaded.noise.is_empty() {
        let message = format!("the profile says {:?}", loaded.noise);
        return warn(detail, catalogue::PROFILE_NOISE.found(message, ""));
    }
    let (short, long) = (without.elapsed, with.elapsed);
    if long > short * 2 && long.saturating_sub(short) > SLOW {
        let message =
            format!("a script takes {:.1} s, and {:.1} s with the profile", short.as_secs_f64(), long.as_secs_f64());
        return warn(detail, catalogue::PROFILE_SLOW.found(message, ""));
    }
    (Outcome::Passed, format!("{detail}; the profile says nothing"), None)
}

/// What a run of the script said.
struct Said {
    /// Language mode and version.
    answer: Option<(String, String)>,
    /// Everything else, shortened.
    noise: String,
}

impl Said {
    fn of(ran: &Ran) -> Self {
        let (mut answer, mut noise) = (None, String::new());
        let stdout = String::from_utf8_lossy(&ran.stdout);
        for line in stdout.lines() {
            match line.split_once(MARK) {
                Some((before, rest)) if answer.is_none() => {
                    let (mode, version) = rest.split_once('=').unwrap_or((rest, ""));
                    answer = Some((short(mode), short(version)));
                    noise.push_str(before);
                }
                _ => noise.push_str(line),
            }
            noise.push(' ');
        }
        let mut errors = |item: Item| match item {
            Item::Text(bytes) => noise.push_str(&String::from_utf8_lossy(&bytes)),
            Item::Record(record) => noise.push_str(&record.shown()),
        };
        let mut decoder = Decoder::new();
        decoder.push(Bytes::copy_from_slice(&ran.stderr), &mut errors);
        decoder.finish(&mut errors);
        Self { answer, noise: short(&noise) }
    }
}

fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MOST_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(stdout: &str, stderr: &str, millis: u64) -> Ran {
        Ran {
            exit_code: 0,
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.as_bytes().to_vec(),
            elapsed: Duration::from_millis(millis),
        }
    }

    fn code(without: &Ran, with: &Ran) -> String {
        let (outcome, detail, finding) = compare(without, with);
        match finding {
            Some(finding) => finding.code.into_owned(),
            None => format!("{outcome:?} {detail}"),
        }
    }

    #[test]
    fn what_a_profile_does_to_scripts_is_told() {
        let full = "lictor=FullLanguage=5.1.14393.0\r\n";
        let quiet = ran(full, "", 400);
        assert_eq!(code(&quiet, &quiet), "Passed PowerShell 5.1.14393.0, FullLanguage; the profile says nothing");
        assert_eq!(code(&quiet, &ran(&format!("Welcome!\r\n{full}"), "", 400)), "profile.noise");
        let warning = "#< CLIXML\r\n<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\"><S S=\"warning\">old</S></Objs>";
        assert_eq!(code(&quiet, &ran(full, warning, 400)), "profile.noise");
        assert_eq!(code(&ran(full, warning, 400), &ran(full, warning, 400)).split(' ').next(), Some("Passed"));
        assert_eq!(code(&quiet, &ran("Welcome!\r\n", "", 400)), "profile.breaks");
        assert_eq!(code(&quiet, &ran(full, "", 2900)), "profile.slow");
        assert_eq!(code(&ran(full, "", 2000), &ran(full, "", 3900)).split(' ').next(), Some("Passed"));
        assert_eq!(code(&ran("lictor=ConstrainedLanguage=5.1", "", 1), &quiet), "profile.language_mode");
        assert_eq!(code(&ran("", "'powershell.exe' is not recognized", 1), &quiet), "profile.no_powershell");
    }
}

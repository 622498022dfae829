//! What went wrong, in the one form in which this program tells it: exit code, stage, stable code, message, cause, remedy.
//!
//! Failures of `lictor-winrm`, of the control plane and of this program itself all become a [`Failure`]. It never holds a
//! secret.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use lictor_proto::v1;
use serde::Serialize;
use tonic::{Code, Status};

use crate::exit::Exit;

/// A failure, ready to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    #[serde(skip)]
    pub(crate) exit: Exit,
    /// Where it happened.
    pub(crate) stage: Box<str>,
    /// Stable code.
    pub(crate) code: Box<str>,
    /// What was attempted, on what, and how it failed.
    pub(crate) message: Box<str>,
    /// The likely cause.
    pub(crate) cause: Box<str>,
    /// What to do.
    pub(crate) remedy: Box<str>,
    /// The text that users of older tools search for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_text: Option<Box<str>>,
    /// What it may be, the most likely first, where nobody can tell for sure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suspects: Option<Box<Suspects>>,
}

/// What a failure may be due to, the most likely first. Most failures have none, and travel by value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Suspects(Vec<Suspect>);

/// What a failure may be due to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Suspect {
    /// Stable code.
    pub(crate) code: Box<str>,
    /// The cause, and what speaks for it.
    pub(crate) cause: Box<str>,
    /// What to do about it.
    pub(crate) remedy: Box<str>,
}

impl Failure {
    /// A flag, a file or a value that cannot be used.
    pub(crate) fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::own(Exit::USAGE, "usage", "usage.invalid", message.into(), String::new(), remedy.into())
    }

    /// A file that cannot be read.
    pub(crate) fn unreadable(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::own(
            Exit::USAGE,
            "usage",
            "usage.unreadable_file",
            format!("failed to read the {what} from {}: {error}", path.display()),
            String::new(),
            "Give a file that exists and that you may read.".to_owned(),
        )
    }

    /// Something local, such as a closed standard output.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::own(
            Exit::LOCAL,
            "local",
            "local.failed",
            message.into(),
            String::new(),
            "Look at the message; nothing is wrong with the host or the control plane.".to_owned(),
        )
    }

    /// The deadline of the whole passed.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::own(
            Exit::TIMED_OUT,
            "run",
            "run.timeout",
            message.into(),
            "It takes longer than --timeout allows, or it waits for something.".to_owned(),
            "Give a longer --timeout, or look why it takes so long.".to_owned(),
        )
    }

    pub(crate) fn own(exit: Exit, stage: &str, code: &str, message: String, cause: String, remedy: String) -> Self {
        Self {
            exit,
            stage: stage.into(),
            code: code.into(),
            message: message.into(),
            cause: cause.into(),
            remedy: remedy.into(),
            legacy_text: None,
            suspects: None,
        }
    }

    /// As text for people, without secrets, over several lines.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(legacy) = &self.legacy_text {
            let _ = writeln!(text, "lictor: {}", clean_lines(legacy));
        }
        let _ =
            writeln!(text, "lictor: {} [{}]: {}", clean(&self.stage), clean(&self.code), clean_lines(&self.message));
        if !self.cause.is_empty() {
            let _ = writeln!(text, "  cause:  {}", clean_lines(&self.cause));
        }
        if !self.remedy.is_empty() {
            let _ = writeln!(text, "  remedy: {}", clean_lines(&self.remedy));
        }
        if self.suspects.is_some() {
            text.push_str("  it may be, the most likely first:\n");
        }
        let suspects = self.suspects.iter().flat_map(|suspects| &suspects.0);
        for (index, Suspect { code, cause, remedy }) in suspects.enumerate() {
            let (cause, remedy) = (clean_lines(cause), clean_lines(remedy));
            let _ = writeln!(text, "    {}. [{}] {cause}\n          {remedy}", index + 1, clean(code));
        }
        text
    }
}

impl From<&lictor_winrm::Error> for Failure {
    fn from(error: &lictor_winrm::Error) -> Self {
        let exit = match error.code() {
            // The deadline was ours, so it says nothing about the stage.
            "timeout.deadline" | "pool.timeout" if !error.may_have_started() => Exit::TIMED_OUT,
            _ => Exit::stage(error.stage(), error.may_have_started()),
        };
        Self {
            exit,
            stage: error.stage().as_str().into(),
            code: error.code().into(),
            message: chain(error).into(),
            cause: error.cause().into(),
            remedy: error.remedy().into(),
            legacy_text: error.legacy_text().map(Box::from),
            suspects: None,
        }
    }
}

impl From<&v1::Failure> for Failure {
    fn from(failure: &v1::Failure) -> Self {
        Self {
            exit: Exit::stage_name(&failure.stage, failure.may_have_started),
            stage: failure.stage.as_str().into(),
            code: failure.code.as_str().into(),
            message: failure.message.as_str().into(),
            cause: failure.cause.as_str().into(),
            remedy: failure.remedy.as_str().into(),
            legacy_text: (!failure.legacy_text.is_empty()).then(|| failure.legacy_text.as_str().into()),
            suspects: Suspects::new(failure.suspects.iter().map(Suspect::from).collect()),
        }
    }
}

impl Suspects {
    /// Nothing when there are none.
    pub(crate) fn new(suspects: Vec<Suspect>) -> Option<Box<Self>> {
        (!suspects.is_empty()).then(|| Box::new(Self(suspects)))
    }
}

impl From<&v1::Suspect> for Suspect {
    fn from(suspect: &v1::Suspect) -> Self {
        Self {
            code: suspect.code.as_str().into(),
            cause: suspect.cause.as_str().into(),
            remedy: suspect.remedy.as_str().into(),
        }
    }
}

/// An answer of the control plane that is an error.
impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let (exit, code, remedy) = match status.code() {
            Code::InvalidArgument => {
                (Exit::SERVER_REFUSED, "control_plane.invalid_argument", "Correct the values that the message names.")
            }
            Code::NotFound => (
                Exit::SERVER_REFUSED,
                "control_plane.not_found",
                "Check the name or id: `lictor task list`, `lictor credential list`, `lictor secret list`, \
                 `lictor secret-manager list`, `lictor agent list`.",
            ),
            Code::AlreadyExists | Code::FailedPrecondition | Code::OutOfRange => {
                (Exit::SERVER_REFUSED, "control_plane.refused", "Look at the message for what stands against it.")
            }
            Code::Unauthenticated => (
                Exit::SERVER_DENIED,
                "control_plane.unauthenticated",
                "Give the right user token with --token-file, LICTOR_TOKEN_FILE or LICTOR_TOKEN; the control plane writes \
                 the administrator's to `admin-token` in its state directory.",
            ),
            Code::PermissionDenied => {
                (Exit::SERVER_DENIED, "control_plane.permission_denied", "Ask for a token with the needed rights.")
            }
            Code::ResourceExhausted => (
                Exit::SERVER_REFUSED,
                "control_plane.exhausted",
                "Try again later, or send less at once; the message names the bound.",
            ),
            Code::Unimplemented => (
                Exit::SERVER_REFUSED,
                "control_plane.unimplemented",
                "Check that --server points to the control plane's port, and that it is not older than this program.",
            ),
            Code::DeadlineExceeded => (
                Exit::SERVER_UNREACHABLE,
                "control_plane.timeout",
                "Check that the control plane is well, then try again.",
            ),
            Code::Unavailable => (
                Exit::SERVER_UNREACHABLE,
                "control_plane.unavailable",
                "Check that the control plane runs, then try again.",
            ),
            _ => (Exit::AGENT, "control_plane.failed", "Look at the control plane's log."),
        };
        let message = match status.source() {
            Some(source) => format!("{}: {}", status.message(), chain(source)),
            None if status.message().is_empty() => format!("the control plane answered {:?}", status.code()),
            None => status.message().to_owned(),
        };
        Self::own(exit, "control_plane", code, message, String::new(), remedy.to_owned())
    }
}

/// The whole chain of an error in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some libraries repeat their source in their own text.
        if !text.ends_with(&part) {
            let _ = write!(text, ": {part}");
        }
        source = error.source();
    }
    text
}

/// Text from outside for a terminal: on one line, without characters that move the cursor, change colours, or make a
/// text read in another order than it was written.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_unseen(c) { ' ' } else { c }).collect()
}

/// Separators of lines and paragraphs, marks of direction, overrides and isolates of it, and what takes no place.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text from outside for a terminal: without control characters, further lines indented.
fn clean_lines(text: &str) -> String {
    text.trim().lines().map(clean).collect::<Vec<_>>().join("\n          ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        let nasty = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{2066}\r\u{7}\0\u{7f}c\u{2028}d";
        let steers = |c: char| c != '\n' && (c.is_control() || is_unseen(c));
        assert_eq!(clean(nasty), "a [2J 31m b     c d");
        let failure = Failure {
            stage: nasty.into(),
            code: nasty.into(),
            cause: nasty.into(),
            remedy: nasty.into(),
            legacy_text: Some(nasty.into()),
            ..Failure::local(nasty)
        };
        assert!(!failure.to_text().contains(steers), "{:?}", failure.to_text());
        let table = crate::console::table(&["x"], [vec![nasty.to_owned()]]);
        assert!(!table.contains(steers), "{table:?}");
        assert_eq!(clean("grün ∑ 日本 🙂"), "grün ∑ 日本 🙂");
    }

    #[test]
    fn text_starts_with_the_words_people_know() {
        let failure = Failure {
            legacy_text: Some("Authorization Error: Invalid credentials.".into()),
            ..Failure::own(
                Exit::AUTHENTICATE,
                "authenticate",
                "auth.rejected",
                "failed to log on".to_owned(),
                "wrong password".to_owned(),
                "correct it".to_owned(),
            )
        };
        assert_eq!(
            failure.to_text(),
            "lictor: Authorization Error: Invalid credentials.\nlictor: authenticate [auth.rejected]: failed to log on\n  \
             cause:  wrong password\n  remedy: correct it\n"
        );
    }

    #[test]
    fn text_from_outside_cannot_drive_the_terminal() {
        let failure = Failure::usage("a\u{1b}[2Jb\nc", "");
        assert_eq!(failure.to_text(), "lictor: usage [usage.invalid]: a [2Jb\n          c\n");
    }

    #[test]
    fn answers_of_the_control_plane_have_exit_codes_and_remedies() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::SERVER_REFUSED),
            (Code::NotFound, Exit::SERVER_REFUSED),
            (Code::Unauthenticated, Exit::SERVER_DENIED),
            (Code::PermissionDenied, Exit::SERVER_DENIED),
            (Code::Unavailable, Exit::SERVER_UNREACHABLE),
            (Code::Internal, Exit::AGENT),
        ] {
            let failure = Failure::from(&Status::new(code, "why"));
            assert_eq!(failure.exit, exit, "{code:?}");
            assert_eq!(&*failure.message, "why");
            assert!(!failure.remedy.is_empty());
        }
    }
}

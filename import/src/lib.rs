//! What users of other tools already have, read into values: inventories of Ansible ([`ansible`]), and WinRM credentials
//! ([`harness`]) and secret managers ([`harness::connector`]) of Harness.
//!
//! Texts come in, values and mistakes go out; only [`ansible::disk`] reads files. Nothing runs a program, evaluates a template or opens a
//! vault. Everything is bounded, because a text may be anybody's. Passwords that stand in a text are zeroed when they are
//! dropped, and no mistake, remark or `Debug` repeats a value that may be one. The command line calls this, and so do the
//! oracles.

pub mod ansible;
pub mod harness;
mod yaml;

use std::fmt;
use std::sync::Arc;

/// Something in a text that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistake {
    /// Which text: a file's name as the caller gave it.
    pub file: Arc<str>,
    /// Line, counted from 1, where that is known.
    pub line: Option<usize>,
    /// What is wrong. Never repeats a value.
    pub message: String,
}

impl Mistake {
    pub(crate) fn new(file: &Arc<str>, line: usize, message: impl Into<String>) -> Self {
        Self { file: Arc::clone(file), line: (line > 0).then_some(line), message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Largest text that is read.
pub const MAX_TEXT_BYTES: usize = 32 * 1024 * 1024;

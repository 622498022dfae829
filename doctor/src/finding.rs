//! What is wrong, in words, and where nobody can tell for sure: what it may be.

use std::borrow::Cow;

/// Something that is wrong or doubtful. Texts never hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code such as `kerberos.clock_skew`.
    pub code: Cow<'static, str>,
    /// What happened: lower case, no full stop.
    pub message: String,
    /// The likely cause in one sentence.
    pub cause: String,
    /// What to do, in one or two sentences.
    pub remedy: String,
    /// The text that users of older tools know.
    pub legacy_text: Option<String>,
    /// What it may be, the most likely first, where the protocol does not tell. Empty when the cause is known.
    pub suspects: Vec<Suspect>,
}

/// What it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Stable code such as `auth.suspect_local_account`.
    pub code: &'static str,
    /// The cause in one sentence, and what speaks for it.
    pub cause: String,
    /// What to do about it, or how to find out.
    pub remedy: String,
}

impl From<&lictor_winrm::Error> for Finding {
    fn from(error: &lictor_winrm::Error) -> Self {
        Self {
            code: error.code().into(),
            message: error.report().to_string(),
            cause: error.cause(),
            remedy: error.remedy(),
            legacy_text: error.legacy_text().map(str::to_owned),
            suspects: Vec::new(),
        }
    }
}

impl From<&lictor_kerberos::Error> for Finding {
    fn from(error: &lictor_kerberos::Error) -> Self {
        Self {
            code: error.code().into(),
            message: error.to_string(),
            cause: error.cause().to_owned(),
            remedy: error.remedy().to_owned(),
            legacy_text: error.legacy_text().map(str::to_owned),
            suspects: Vec::new(),
        }
    }
}

//! The sentences: one function for each thing that goes wrong, in files by what they are about.

mod identity;
mod key;
mod record;
mod settings;
mod way;

pub(crate) use self::identity::{
    claim_rejected, clock, credentials_unknown, idp_unreachable, imds, machine, no_credentials, region_disabled,
    role_chaining, role_denied, role_duration, session_expired, signature, token_expired, token_rejected,
    web_identity_denied,
};
pub(crate) use self::key::{
    ciphertext_refused, denied, disabled, invalid_state, key_unavailable, key_usage, not_found, wrong_key,
};
pub(crate) use self::record::{
    context_differs, context_not_checked, mismatch, record_malformed, record_region, tampered, value_empty, value_large,
};
pub(crate) use self::settings::{
    access_key, credentials_missing, duration, endpoint, external_id, key_malformed, region_disagrees, region_missing,
    region_unknown, role_malformed, role_missing, token,
};
pub(crate) use self::way::{answer, deadline, outage, refused, stopped, throttled, timeout, tls, unreachable};

use super::{Detail, Error, Kind, Stage, Suspect};

/// Text of Harness for every failure to make a data key.
const LEGACY_WRITE: &str = "The data key could not be generated";

/// What was asked of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    CallerIdentity,
    AssumeRole,
    WebIdentity,
    GenerateDataKey,
    Encrypt,
    Decrypt,
}

impl Action {
    /// As policies name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CallerIdentity => "sts:GetCallerIdentity",
            Self::AssumeRole => "sts:AssumeRole",
            Self::WebIdentity => "sts:AssumeRoleWithWebIdentity",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::Encrypt => "kms:Encrypt",
            Self::Decrypt => "kms:Decrypt",
        }
    }

    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::CallerIdentity | Self::AssumeRole | Self::WebIdentity => Stage::Identity,
            Self::GenerateDataKey | Self::Encrypt => Stage::Write,
            Self::Decrypt => Stage::Read,
        }
    }

    /// The service that is asked.
    pub(crate) fn service(self) -> &'static str {
        if self.stage() == Stage::Identity { "STS" } else { "KMS" }
    }

    fn legacy(self) -> Option<&'static str> {
        (self.stage() == Stage::Write).then_some(LEGACY_WRITE)
    }
}

/// What the sentences need to know about the way.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) key: String,
    pub(crate) region: String,
    /// The role that is assumed, if any.
    pub(crate) role: String,
    pub(crate) external_id: bool,
    pub(crate) duration: u64,
    /// Where it is asked, when that is not what the region says.
    pub(crate) endpoint: Option<String>,
    pub(crate) alias: bool,
}

/// What AWS said, as a sentence of its own.
fn said(service: &str, text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).map_or_else(String::new, |text| format!(" {service} says: {}", clean(text)))
}

/// A text from outside: bounded, on one line.
pub(crate) fn clean(text: &str) -> String {
    const MOST: usize = 400;
    let mut clean: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        clean.push('…');
    }
    clean
}

fn suspect(code: &'static str, cause: impl Into<String>, remedy: impl Into<String>) -> Suspect {
    Suspect { code, cause: cause.into(), remedy: remedy.into() }
}

/// A failure of one action.
fn at(
    action: Action,
    kind: Kind,
    code: &'static str,
    message: impl Into<String>,
    cause: impl Into<String>,
    remedy: impl Into<String>,
) -> Error {
    of(action.stage(), kind, code, message, cause, remedy, action.legacy())
}

/// A failure of one action that AWS answered; what it said stands behind the cause.
fn told(
    action: Action,
    kind: Kind,
    code: &'static str,
    message: impl Into<String>,
    cause: impl Into<String>,
    remedy: impl Into<String>,
    text: Option<&str>,
) -> Error {
    at(action, kind, code, message, cause.into() + &said(action.service(), text), remedy)
}

fn of(
    stage: Stage,
    kind: Kind,
    code: &'static str,
    message: impl Into<String>,
    cause: impl Into<String>,
    remedy: impl Into<String>,
    legacy: Option<&'static str>,
) -> Error {
    let (message, cause, remedy) = (message.into(), cause.into(), remedy.into());
    Error::new(Detail { stage, kind, code, message, cause, remedy, legacy, suspects: Vec::new() })
}

//! Which sentence an answer of AWS stands for: decided by its code, never by its text.
//!
//! One exception: STS tells a duration that is too long by the same `ValidationError` as any other slip, and only the text says which.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::date_time::{DateTime, Format};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::Error;
use super::sentences::{self, Action, Way};

/// A call that did not succeed, free of the types of the SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The service answered.
    Told {
        code: String,
        text: Option<String>,
        status: u16,
        skew: Option<i64>,
    },
    Timeout,
    Unreachable(String),
    Tls(String),
    Answer(String),
}

impl Refusal {
    /// A failure with nothing but a code.
    #[cfg(test)]
    pub(crate) fn told(code: &str, text: Option<&str>) -> Self {
        Self::Told { code: code.to_owned(), text: text.map(str::to_owned), status: 400, skew: None }
    }

    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match error {
            SdkError::ServiceError(service) => Self::Told {
                code: service.err().code().unwrap_or_default().to_owned(),
                text: service.err().message().map(str::to_owned),
                status: service.raw().status().as_u16(),
                skew: service.raw().headers().get("date").and_then(skew),
            },
            SdkError::TimeoutError(_) => Self::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::Timeout,
            SdkError::DispatchFailure(failure) => {
                let source = failure.as_connector_error().map(|error| error as &(dyn StdError + 'static));
                if source.is_some_and(is_tls) {
                    Self::Tls(source.map(chain).unwrap_or_default())
                } else {
                    Self::Unreachable(source.map_or_else(|| "the connection failed".to_owned(), chain))
                }
            }
            // Bodies stay out: an answer that cannot be read may hold a key in clear.
            SdkError::ResponseError(_) => Self::Answer("It cannot be read".to_owned()),
            _ => Self::Answer("The request cannot be made".to_owned()),
        }
    }

    /// True when a session may have ended before its time, so that a new one may help.
    pub(crate) fn is_of_session(&self) -> bool {
        const CODES: &[&str] = &[
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "InvalidToken",
        ];
        matches!(self, Self::Told { code, .. } if CODES.contains(&code.as_str()))
    }

    /// The sentence.
    pub(crate) fn error(&self, action: Action, way: &Way) -> Error {
        match self {
            Self::Timeout => sentences::timeout(way, action),
            Self::Unreachable(why) => sentences::unreachable(way, action, why),
            Self::Tls(why) => sentences::tls(way, action, why),
            Self::Answer(why) => sentences::answer(action, why),
            Self::Told { code, text, status, skew } => told(action, way, code, text.as_deref(), *status, *skew),
        }
    }
}

fn told(action: Action, way: &Way, code: &str, text: Option<&str>, status: u16, skew: Option<i64>) -> Error {
    // STS and KMS write the same thing with and without this ending.
    match (code.strip_suffix("Exception").unwrap_or(code), action) {
        ("AccessDenied" | "UnauthorizedOperation", Action::AssumeRole) => sentences::role_denied(way, text),
        ("AccessDenied" | "UnauthorizedOperation", Action::WebIdentity) => sentences::web_identity_denied(way, text),
        ("AccessDenied" | "UnauthorizedOperation" | "NotAuthorized", _) => sentences::denied(way, action, text),
        // See above: the only place where AWS says it.
        ("ValidationError" | "Validation", Action::AssumeRole | Action::WebIdentity)
            if text.is_some_and(|text| text.contains("DurationSeconds")) =>
        {
            sentences::role_duration(way, action, text)
        }
        ("RegionDisabled", _) => sentences::region_disabled(way, action, text),
        ("InvalidIdentityToken", _) => sentences::token_rejected(way, text),
        ("IDPRejectedClaim", _) => sentences::claim_rejected(way, text),
        ("IDPCommunicationError", _) => sentences::idp_unreachable(way, text),
        ("ExpiredToken", Action::WebIdentity) => sentences::token_expired(way, text),
        ("ExpiredToken", _) => sentences::session_expired(action, text),
        ("InvalidClientTokenId" | "UnrecognizedClient" | "InvalidToken" | "InvalidAccessKeyId", _) => {
            sentences::credentials_unknown(action, text)
        }
        ("RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture", _) => sentences::clock(action, skew, text),
        ("SignatureDoesNotMatch" | "InvalidSignature" | "AuthFailure" | "IncompleteSignature", _) => match skew {
            Some(skew) if skew.unsigned_abs() > MOST_SKEW => sentences::clock(action, Some(skew), text),
            _ => sentences::signature(action, text),
        },
        ("NotFound", _) => sentences::not_found(way, action, text),
        ("Disabled", _) => sentences::disabled(way, action, text),
        ("KMSInvalidState", _) => sentences::invalid_state(way, action, text),
        ("KeyUnavailable", _) => sentences::key_unavailable(way, action, text),
        ("InvalidKeyUsage", _) => sentences::key_usage(way, action, text),
        ("InvalidCiphertext", _) => sentences::ciphertext_refused(way, text),
        ("IncorrectKey", _) => sentences::wrong_key(way, text),
        (
            "Throttling" | "Throttled" | "ThrottledException" | "TooManyRequests" | "RequestLimitExceeded" | "SlowDown",
            _,
        ) => sentences::throttled(action, text),
        ("KMSInternal" | "DependencyTimeout" | "InternalFailure" | "InternalError" | "ServiceUnavailable", _) => {
            sentences::outage(way, action, text)
        }
        _ if status == 429 => sentences::throttled(action, text),
        _ if status >= 500 => sentences::outage(way, action, text),
        ("", _) => sentences::answer(action, &format!("It has the HTTP status {status} and no code")),
        _ => sentences::refused(way, action, code, text),
    }
}

/// How far our clock is ahead of the service's, in seconds.
fn skew(date: &str) -> Option<i64> {
    let theirs = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    i64::try_from(ours).ok()?.checked_sub(theirs)
}

/// A failed TLS handshake comes as an error of I/O with this kind; nothing else on the way does.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    for _ in 0..DEPTH {
        let Some(error) = next else { return false };
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData) {
            return true;
        }
        // What an I/O error wraps is not what its `source` gives: that is the next one behind it.
        next = match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    false
}

/// The causes behind one another, bounded.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    for _ in 0..DEPTH {
        let Some(error) = next else { break };
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    sentences::clean(&texts.join(": "))
}

/// Errors behind one another that are looked at.
const DEPTH: usize = 10;
/// Requests are good for 5 minutes; from here on the clock is the likely reason for a refused signature.
const MOST_SKEW: u64 = 240;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::examples::way;
    use crate::error::{Kind, Stage};

    fn code(action: Action, code: &str) -> &'static str {
        Refusal::told(code, Some("text")).error(action, &way()).code()
    }

    #[test]
    fn codes_decide_and_both_spellings_count() {
        for (action, told, expected) in [
            (Action::Decrypt, "AccessDeniedException", "kms.denied"),
            (Action::AssumeRole, "AccessDenied", "kms.role_denied"),
            (Action::WebIdentity, "AccessDenied", "kms.web_identity_denied"),
            (Action::WebIdentity, "ExpiredTokenException", "kms.token_expired"),
            (Action::Decrypt, "ExpiredTokenException", "kms.session_expired"),
            (Action::CallerIdentity, "ExpiredToken", "kms.session_expired"),
            (Action::GenerateDataKey, "DisabledException", "kms.key_disabled"),
            (Action::GenerateDataKey, "KMSInvalidStateException", "kms.key_state"),
            (Action::Decrypt, "KMSInternalException", "kms.outage"),
            (Action::Decrypt, "ThrottlingException", "kms.throttled"),
            (Action::Decrypt, "InvalidCiphertextException", "kms.ciphertext_refused"),
            (Action::Decrypt, "IncorrectKeyException", "kms.wrong_key"),
            (Action::WebIdentity, "IDPCommunicationError", "kms.idp_unreachable"),
            (Action::CallerIdentity, "InvalidClientTokenId", "kms.credentials_unknown"),
            (Action::Decrypt, "KeyUnavailableException", "kms.key_unavailable"),
            (Action::GenerateDataKey, "InvalidKeyUsageException", "kms.key_usage"),
            (Action::Decrypt, "SomethingNewException", "kms.refused"),
        ] {
            assert_eq!(code(action, told), expected, "{told}");
        }
    }

    #[test]
    fn a_denial_names_the_action_and_ranks_what_it_may_be() {
        let error = Refusal::told("AccessDeniedException", None).error(Action::GenerateDataKey, &way());
        assert_eq!((error.stage(), error.kind()), (Stage::Write, Kind::Denied));
        assert!(error.to_string().contains("kms:GenerateDataKey"));
        assert_eq!(error.legacy_text(), Some("The data key could not be generated"));
        assert_eq!(error.suspects().first().map(|suspect| suspect.code), Some("kms.suspect_identity_policy"));
    }

    #[test]
    fn silence_is_passing() {
        let error = Refusal::Timeout.error(Action::Decrypt, &way());
        assert_eq!((error.code(), error.is_passing()), ("kms.timeout", true));
    }

    #[test]
    fn a_refused_signature_is_the_clock_when_the_clock_is_wrong() {
        let told = |skew| Refusal::Told { code: "SignatureDoesNotMatch".to_owned(), text: None, status: 403, skew };
        assert_eq!(told(Some(3)).error(Action::CallerIdentity, &way()).code(), "kms.signature");
        let clock = told(Some(-900)).error(Action::CallerIdentity, &way());
        assert_eq!(clock.code(), "kms.clock_skew");
        assert!(clock.cause().contains("900 s behind"), "{}", clock.cause());
    }

    #[test]
    fn only_a_slip_in_the_duration_is_one() {
        let text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        let error = |text| Refusal::told("ValidationError", Some(text)).error(Action::AssumeRole, &way());
        assert_eq!(error(text).code(), "kms.role_duration");
        assert_eq!(error("1 validation error detected").code(), "kms.refused");
    }

    #[test]
    fn the_date_of_the_answer_tells_the_skew() {
        assert!(skew("Thu, 01 Jan 1970 00:00:00 GMT").unwrap() > 1_000_000_000);
        assert_eq!(skew("yesterday"), None);
    }

    #[test]
    fn what_aws_said_is_bounded_and_on_one_line() {
        let error =
            Refusal::told("NewException", Some(&format!("a\nb{}", "x".repeat(5000)))).error(Action::Decrypt, &way());
        assert!(error.cause().len() < 600 && !error.cause().contains('\n'));
    }
}

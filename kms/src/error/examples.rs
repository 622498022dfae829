//! One failure of each kind, with example names: what documentation is made of. A test in `lictor-tests` finds a code that has
//! none.

use super::sentences as s;
use super::sentences::{Action, Way};
use super::{Error, Stage};
use crate::context::Context;

/// One failure of each kind.
pub(crate) fn all() -> Vec<Error> {
    [settings(), identity(), key(), record(), ways()].concat()
}

pub(crate) fn way() -> Way {
    Way {
        key: "arn:aws:kms:eu-central-1:111122223333:alias/lictor".to_owned(),
        region: "eu-central-1".to_owned(),
        role: "arn:aws:iam::444455556666:role/lictor-kms".to_owned(),
        external_id: true,
        duration: 7200,
        endpoint: None,
        alias: true,
    }
}

fn settings() -> Vec<Error> {
    vec![
        s::key_malformed("`web` is neither an ARN nor the id of a key nor `alias/` and a name".to_owned()),
        s::region_missing(),
        s::region_unknown("`eu-central-9` is none of the regions of AWS; `eu-central-1` may be meant".to_owned()),
        s::region_disagrees("eu-west-1", "eu-central-1"),
        s::credentials_missing(),
        s::access_key("the access key id has 3 characters; it has 16 to 128 letters, digits and `_`".to_owned()),
        s::role_missing(),
        s::role_malformed("`user/alice` is no role: the ARN ends with `role/` and a name".to_owned()),
        s::external_id("it has 1 character".to_owned()),
        s::duration(600),
        s::endpoint("the endpoint of KMS is `http://kms.corp.example`: only loopback may be without TLS".to_owned()),
        s::token("it is empty".to_owned()),
        s::value_empty(),
        s::value_large(300_000),
    ]
}

fn identity() -> Vec<Error> {
    let way = &way();
    let tried = ["environment variables: not set".to_owned(), "web identity: not set".to_owned()];
    vec![
        s::no_credentials(&tried),
        s::imds("The service at http://169.254.169.254 does not answer the request for a token", &tried),
        s::machine("the container credentials endpoint", "The token file cannot be read"),
        s::role_denied(way, None),
        s::role_denied(&Way { external_id: false, ..way.clone() }, None),
        s::role_duration(way, Action::AssumeRole, None),
        s::role_chaining(way, "arn:aws:sts::111122223333:assumed-role/lictor-agent/i-0123456789abcdef0"),
        s::region_disabled(way, Action::AssumeRole, None),
        s::web_identity_denied(way, None),
        s::token_rejected(way, None),
        s::token_expired(way, None),
        s::claim_rejected(way, None),
        s::idp_unreachable(way, None),
        s::credentials_unknown(Action::CallerIdentity, None),
        s::signature(Action::CallerIdentity, None),
        s::clock(Action::CallerIdentity, Some(900), None),
        s::session_expired(Action::Decrypt, None),
    ]
}

fn key() -> Vec<Error> {
    let way = &way();
    vec![
        s::denied(way, Action::GenerateDataKey, None),
        s::denied(way, Action::Decrypt, None),
        s::not_found(way, Action::GenerateDataKey, None),
        s::disabled(way, Action::Decrypt, None),
        s::invalid_state(way, Action::Decrypt, None),
        s::key_unavailable(way, Action::Decrypt, None),
        s::key_usage(way, Action::GenerateDataKey, None),
    ]
}

fn record() -> Vec<Error> {
    let way = &way();
    vec![
        s::ciphertext_refused(way, None),
        s::wrong_key(way, None),
        s::record_malformed("its nonce has 11 bytes".to_owned()),
        s::record_region("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "eu-central-1"),
        s::context_differs(&Context::new("platform/production", "web", 2)),
        s::tampered(),
        s::mismatch(),
        s::context_not_checked(),
    ]
}

fn ways() -> Vec<Error> {
    let way = &way();
    vec![
        s::throttled(Action::Decrypt, None),
        s::outage(way, Action::Decrypt, None),
        s::unreachable(way, Action::Decrypt, "dns error: failed to lookup address information"),
        s::tls(way, Action::Decrypt, "invalid peer certificate: UnknownIssuer"),
        s::timeout(way, Action::Decrypt),
        s::deadline(Stage::Read),
        s::answer(Action::Decrypt, "The data key has 16 bytes in place of 32"),
        s::refused(way, Action::Decrypt, "UnsupportedOperationException", None),
        s::stopped(Stage::Read),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_to_do_in_sentences() {
        for error in all() {
            assert!(error.code().starts_with("kms."), "{error:?}");
            assert!(!error.to_string().ends_with('.') && !error.to_string().is_empty(), "{error:?}");
            for text in [error.cause(), error.remedy()] {
                assert!(text.ends_with(['.', '`']) && !text.contains(".."), "{error:?}: {text}");
            }
            for suspect in error.suspects() {
                assert!(suspect.code.starts_with("kms.suspect_"), "{suspect:?}");
                assert!(suspect.cause.ends_with('.') && suspect.remedy.ends_with(['.', '`']), "{suspect:?}");
            }
        }
    }
}

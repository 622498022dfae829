//! Values and what is stored of them.

use super::{Action, Error, Kind, Stage, at, clean, of};
use crate::context::Context;
use crate::envelope::MAX_VALUE;

fn stored(code: &'static str, message: &str, cause: String, remedy: &str) -> Error {
    of(Stage::Read, Kind::Record, code, message, cause, remedy, None)
}

pub(crate) fn value_empty() -> Error {
    of(
        Stage::Settings,
        Kind::Record,
        "kms.value_empty",
        "the value of the secret is empty",
        "An empty value is nearly always a slip, such as an empty variable.",
        "Give the value.",
        None,
    )
}

pub(crate) fn value_large(length: usize) -> Error {
    of(
        Stage::Settings,
        Kind::Record,
        "kms.value_too_large",
        "the value of the secret is too large",
        format!("It has {length} bytes; the most is {MAX_VALUE}."),
        "Keep large files elsewhere, and a password or key for them here.",
        None,
    )
}

pub(crate) fn record_malformed(why: String) -> Error {
    stored(
        "kms.record_malformed",
        "the stored secret is malformed",
        format!("As stored, {why}. KMS was not asked."),
        "Write the secret again, and find out what altered the database.",
    )
}

pub(crate) fn record_region(key: &str, region: &str) -> Error {
    stored(
        "kms.record_region",
        "the stored secret is under a key of another region",
        format!("It is under {}, and the secret manager is for {region}. KMS was not asked.", clean(key)),
        "Give the secret manager the region of the key again, or write the secret again.",
    )
}

pub(crate) fn context_differs(expected: &Context) -> Error {
    stored(
        "kms.context_differs",
        "the stored secret is another one than was to be delivered",
        format!("Its context is not `{}`. KMS was not asked.", clean(&expected.to_string())),
        "Write the secret again where it stands now. The record was moved or renamed in the database.",
    )
}

pub(crate) fn tampered() -> Error {
    stored(
        "kms.tampered",
        "the stored secret was altered",
        "KMS opened the data key, and the value is not what was encrypted with it.".to_owned(),
        "Write the secret again, and find out what altered the database.",
    )
}

pub(crate) fn mismatch() -> Error {
    at(
        Action::Decrypt,
        Kind::Other,
        "kms.test_mismatch",
        "what KMS decrypted is not what it encrypted",
        "The endpoint answers, and not as KMS does.",
        "Look at the endpoint of the secret manager: it must be KMS.",
    )
}

pub(crate) fn context_not_checked() -> Error {
    at(
        Action::Decrypt,
        Kind::Other,
        "kms.context_not_checked",
        "a ciphertext was opened with a wrong encryption context",
        "KMS refuses that always, so the endpoint is not KMS, or an emulator that does not check.",
        "Look at the endpoint of the secret manager: it must be KMS.",
    )
}

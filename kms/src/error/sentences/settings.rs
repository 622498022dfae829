//! Slips in the settings of a secret manager, seen before anything is sent.

use super::{Error, Kind, Stage, of};

fn slip(code: &'static str, message: &str, cause: impl Into<String>, remedy: &str) -> Error {
    of(Stage::Settings, Kind::Settings, code, message, sentence(cause.into()), remedy, None)
}

fn sentence(text: String) -> String {
    let mut characters = text.chars();
    let mut text = characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect());
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

pub(crate) fn key_malformed(why: String) -> Error {
    slip(
        "kms.key_malformed",
        "the KMS key of the secret manager is malformed",
        why,
        "Copy the ARN of the key, or of an alias, from the KMS console: `arn:aws:kms:REGION:ACCOUNT:key/ID`.",
    )
}

pub(crate) fn region_missing() -> Error {
    slip(
        "kms.region_missing",
        "the secret manager has no region",
        "No region is given, and a key that is no ARN has none",
        "Give the region, or the ARN of the key.",
    )
}

pub(crate) fn region_unknown(why: String) -> Error {
    slip(
        "kms.region_unknown",
        "the region of the secret manager is unknown",
        why,
        "Give the name of a region, such as `eu-central-1`. For a region that is newer than this program, or none of AWS's, give \
         the endpoint of KMS as well.",
    )
}

pub(crate) fn region_disagrees(region: &str, of_key: &str) -> Error {
    slip(
        "kms.region_disagrees",
        "the region of the secret manager is not that of its key",
        format!("The region is {region}, the ARN of the key is of {of_key}"),
        "Leave the region empty, so that that of the ARN counts. KMS knows a key in its own region alone.",
    )
}

pub(crate) fn credentials_missing() -> Error {
    slip(
        "kms.credentials_missing",
        "the secret manager does not say who is to use the key",
        "None of the four kinds of credentials is given",
        "Give an access key, the machine's role, a role to assume, or a role for OIDC.",
    )
}

pub(crate) fn access_key(why: String) -> Error {
    slip(
        "kms.access_key_malformed",
        "the access key of the secret manager is malformed",
        why,
        "Look into the secrets that hold access key id and secret access key: they must have the text alone, without quotes and \
         line breaks.",
    )
}

pub(crate) fn role_missing() -> Error {
    of(
        Stage::Settings,
        Kind::Settings,
        "kms.role_missing",
        "the secret manager assumes a role and names none",
        "The ARN of the role is empty.",
        "Give the ARN of the role: `arn:aws:iam::ACCOUNT:role/NAME`.",
        Some("You must provide RoleARN if AssumeStsRole is selected"),
    )
}

pub(crate) fn role_malformed(why: String) -> Error {
    slip(
        "kms.role_malformed",
        "the role of the secret manager is malformed",
        why,
        "Copy the ARN of the role from the IAM console: `arn:aws:iam::ACCOUNT:role/NAME`.",
    )
}

pub(crate) fn external_id(why: String) -> Error {
    slip(
        "kms.external_id_malformed",
        "the external id of the secret manager is malformed",
        why,
        "Give it as the owner of the role gave it to you: 2 to 1224 letters, digits and `_+=,.@:/-`.",
    )
}

pub(crate) fn duration(seconds: i64) -> Error {
    slip(
        "kms.duration_out_of_range",
        "the duration of the secret manager's sessions is out of range",
        format!("It is {seconds} s; STS takes 900 s to 43200 s"),
        "Give 900 s to 43200 s, and no more than the role's maximum session duration. Without one it is 3600 s, which every role permits.",
    )
}

pub(crate) fn endpoint(why: String) -> Error {
    slip(
        "kms.endpoint_malformed",
        "an endpoint of the secret manager is malformed",
        why,
        "Give `https://HOST` or `https://HOST:PORT`, or nothing, so that the region says it. `http://` is for loopback alone.",
    )
}

pub(crate) fn token(why: String) -> Error {
    slip(
        "kms.token_malformed",
        "the web identity token is malformed",
        why,
        "The control plane makes these tokens: look into its log, and whether its version fits the agent's.",
    )
}

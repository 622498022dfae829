//! Who to be: no credentials, credentials that AWS does not know, roles that are not given.

use super::{Action, Error, Kind, Stage, Way, clean, of, suspect, told};

const TRIED_REMEDY: &str = "Give the machine an identity: an instance profile (EC2), a task role (ECS), a Pod Identity association or \
                            a service account with a role (EKS), or `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.";

pub(crate) fn no_credentials(tried: &[String]) -> Error {
    of(
        Stage::Identity,
        Kind::Identity,
        "kms.no_credentials",
        "the machine has no AWS credentials",
        format!("None of the sources has any: {}.", tried.join("; ")),
        TRIED_REMEDY,
        None,
    )
}

pub(crate) fn imds(why: &str, tried: &[String]) -> Error {
    let before = if tried.is_empty() { String::new() } else { format!(" Before that: {}.", tried.join("; ")) };
    of(
        Stage::Identity,
        Kind::Identity,
        "kms.imds",
        "the instance metadata service gives no credentials",
        format!("{}.{before}", clean(why)),
        "Look at the metadata options of the instance: version 2 must be on, and from a container the hop limit must be 2. Outside EC2 \
         give the machine another identity.",
        None,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_hop_limit",
            "The agent runs in a container and the hop limit is 1: the answer to the request for a token is dropped on its way.",
            "`aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 --instance-id ID`, or use Pod Identity.",
        ),
        suspect(
            "kms.suspect_imds_off",
            "The metadata service of the instance is off, or a network policy keeps pods from it.",
            "See `aws ec2 describe-instances`, MetadataOptions, and the network policies of the cluster.",
        ),
        suspect(
            "kms.suspect_no_instance_profile",
            "The instance has no instance profile.",
            "Attach a role to the instance.",
        ),
        suspect(
            "kms.suspect_not_on_aws",
            "The machine is none of EC2.",
            "Use another kind of credentials: an access key, or OIDC.",
        ),
    ])
}

pub(crate) fn machine(source: &str, why: &str) -> Error {
    of(
        Stage::Identity,
        Kind::Identity,
        "kms.machine_credentials",
        format!("credentials from {source} cannot be had"),
        format!("{}.", clean(why).trim_end_matches('.')),
        "The machine is set up for this source, so none after it is asked. Mend it, or remove its environment variables.",
        None,
    )
}

pub(crate) fn role_denied(way: &Way, text: Option<&str>) -> Error {
    let external = if way.external_id {
        suspect(
            "kms.suspect_external_id",
            "The external id is not the one that the trust policy asks for.",
            "Compare it with `sts:ExternalId` in the trust policy of the role, to the letter.",
        )
    } else {
        suspect(
            "kms.suspect_external_id",
            "The trust policy asks for an external id, and none is given.",
            "Look for `sts:ExternalId` in the trust policy of the role, and give its value.",
        )
    };
    told(
        Action::AssumeRole,
        Kind::Identity,
        "kms.role_denied",
        format!("the role {} may not be assumed", way.role),
        "AWS refuses sts:AssumeRole and does not tell which of several reasons it is.",
        "Go through the suspects, the most likely first. `lictor secret-manager test` tells whose identity assumes the role.",
        text,
    )
    .with_suspects(vec![
        external,
        suspect(
            "kms.suspect_trust_policy",
            "The trust policy of the role does not name the identity of the machine.",
            "Put the ARN of the machine's role (not of its session) into `Principal` of the trust policy.",
        ),
        suspect(
            "kms.suspect_assume_role_missing",
            "The identity of the machine has no permission for sts:AssumeRole on this role.",
            format!("Allow it in a policy of the machine's role: `sts:AssumeRole` on `{}`.", way.role),
        ),
        suspect(
            "kms.suspect_role_absent",
            "There is no such role: AWS gives the same answer.",
            format!("`aws iam get-role` in the role's account, for `{}`.", way.role),
        ),
    ])
}

pub(crate) fn web_identity_denied(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::WebIdentity,
        Kind::Identity,
        "kms.web_identity_denied",
        format!("the role {} does not trust the token", way.role),
        "AWS refuses sts:AssumeRoleWithWebIdentity.",
        "Compare the trust policy of the role with the token's claims, to the letter.",
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_subject",
            "The condition on `sub` or `aud` in the trust policy does not fit the token.",
            "Both are in the documentation of OIDC for secret managers; `StringEquals` wants them to the letter.",
        ),
        suspect(
            "kms.suspect_federated",
            "`Principal.Federated` of the trust policy is not the identity provider of the issuer.",
            "Put the ARN of the identity provider there: `arn:aws:iam::ACCOUNT:oidc-provider/HOST/PATH`.",
        ),
        suspect(
            "kms.suspect_role_absent",
            "There is no such role: AWS gives the same answer.",
            format!("`aws iam get-role` in the role's account, for `{}`.", way.role),
        ),
    ])
}

pub(crate) fn role_duration(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Identity,
        "kms.role_duration",
        format!("a session of {} s is longer than the role {} permits", way.duration, way.role),
        "The maximum session duration of the role is shorter.",
        "Lower the duration of the secret manager, or raise the role's maximum session duration: \
         `aws iam update-role --max-session-duration`.",
        text,
    )
}

pub(crate) fn role_chaining(way: &Way, source: &str) -> Error {
    of(
        Stage::Identity,
        Kind::Identity,
        "kms.role_chaining",
        format!("a session of {} s cannot be had from a session of a role", way.duration),
        format!(
            "The machine's identity is itself a session of a role ({}). Roles that are assumed from there (role chaining) last 3600 s \
             at most, whatever the role permits. Nothing was asked.",
            clean(source)
        ),
        "Lower the duration of the secret manager to 3600 s: sessions are renewed before they end, so nothing is lost.",
        None,
    )
}

pub(crate) fn region_disabled(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Identity,
        "kms.region_disabled",
        format!("STS is not active in {}", way.region),
        "The region is not enabled for the account.",
        "Enable the region, and its STS endpoint, in the settings of the account, or give the STS endpoint of another region.",
        text,
    )
}

pub(crate) fn token_rejected(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::WebIdentity,
        Kind::Identity,
        "kms.token_rejected",
        format!("AWS does not take the token for the role {}", way.role),
        "The token cannot be checked, or is not for AWS.",
        "Look at the identity provider in IAM: its URL must be the issuer of the control plane to the letter, and AWS must reach \
         `/.well-known/openid-configuration` and the JWKS below it.",
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_provider_absent",
            "There is no identity provider for this issuer in the role's account.",
            "`aws iam list-open-id-connect-providers`, and make one.",
        ),
        suspect(
            "kms.suspect_audience",
            "The audience of the token is none of the provider's client ids.",
            "Add it: `aws iam add-client-id-to-open-id-connect-provider`.",
        ),
        suspect(
            "kms.suspect_signing_key",
            "The JWKS that AWS reads has no key for this token: it is an older one, or another control plane's.",
            "Fetch the JWKS from outside and look for the token's `kid`.",
        ),
    ])
}

pub(crate) fn token_expired(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::WebIdentity,
        Kind::Identity,
        "kms.token_expired",
        format!("the token for the role {} has expired", way.role),
        "Tokens last some minutes, and this one was used too late, or a clock is wrong.",
        "Submit the task again: it comes with a new token. If it happens again, compare the clock of the control plane with the right time.",
        text,
    )
}

pub(crate) fn idp_unreachable(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::WebIdentity,
        Kind::Passing,
        "kms.idp_unreachable",
        format!("AWS cannot ask the issuer of the token for the role {}", way.role),
        "The issuer's JWKS endpoint does not answer AWS.",
        "Make `/.well-known/openid-configuration` and the JWKS of the control plane reachable from the internet over HTTPS.",
        text,
    )
}

pub(crate) fn claim_rejected(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::WebIdentity,
        Kind::Identity,
        "kms.claim_rejected",
        format!("the issuer's claims are not taken for the role {}", way.role),
        "AWS rejects a claim of the token.",
        "Look at subject and audience in the trust policy of the role, and at the clock of the control plane.",
        text,
    )
}

pub(crate) fn credentials_unknown(action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Identity,
        "kms.credentials_unknown",
        "AWS does not know the access key",
        "The access key id is of no account there.",
        "Go through the suspects.",
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_key_deleted",
            "The access key was deleted or made inactive.",
            "`aws iam list-access-keys` for its user. Put a new one into the secrets of the secret manager.",
        ),
        suspect(
            "kms.suspect_partition",
            "The key is of another partition: China and GovCloud have accounts of their own.",
            "Compare the region with the account that the key is of.",
        ),
        suspect(
            "kms.suspect_session_token",
            "The key is a temporary one (`ASIA…`) and its session token is missing.",
            "Use the long-lived key of an IAM user, or another kind of credentials.",
        ),
    ])
}

pub(crate) fn signature(action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Identity,
        "kms.signature",
        "AWS does not take the signature",
        "The access key id is known; the secret access key does not fit it.",
        "Put the secret access key into its secret once more, without quotes, spaces and line breaks.",
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_secret_key",
            "The secret access key is another key's, or was cut when it was copied.",
            "Make a new access key, and put both parts into their secrets.",
        ),
        suspect(
            "kms.suspect_altered",
            "A proxy on the way alters the request.",
            "Try with the endpoint in `NO_PROXY`.",
        ),
    ])
}

pub(crate) fn clock(action: Action, skew: Option<i64>, text: Option<&str>) -> Error {
    let by = match skew {
        Some(skew) if skew > 0 => format!("This machine's clock is {skew} s ahead of AWS's."),
        Some(skew) => format!("This machine's clock is {} s behind AWS's.", -skew),
        None => "This machine's clock and AWS's are too far apart.".to_owned(),
    };
    told(
        action,
        Kind::Identity,
        "kms.clock_skew",
        "AWS refuses the request because of the time in it",
        format!("{by} Requests are good for 5 minutes."),
        "Set the clock of this machine, and let it follow a time server.",
        text,
    )
}

pub(crate) fn session_expired(action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Identity,
        "kms.session_expired",
        "AWS says that the session has expired",
        "It was renewed once and refused again.",
        "Look at the clock of this machine. With credentials in environment variables: renew `AWS_SESSION_TOKEN` and its keys, and start \
         the agent again.",
        text,
    )
}

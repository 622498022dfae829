//! The KMS key: who may use it, and whether it can be used at all.

use super::{Action, Error, Kind, Way, suspect, told};

pub(crate) fn denied(way: &Way, action: Action, text: Option<&str>) -> Error {
    let name = action.name();
    let key = &way.key;
    told(
        action,
        Kind::Denied,
        "kms.denied",
        format!("{name} is denied on {key}"),
        format!("AWS knows who is asking and does not permit {name}."),
        format!(
            "Permit {name} on the key, in a policy of the identity and, if the key policy does not leave that to IAM, there as well."
        ),
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_identity_policy",
            format!("No policy of the identity allows {name}."),
            format!("Allow {name} on the ARN of the key. An alias in `Resource` permits nothing."),
        ),
        suspect(
            "kms.suspect_key_policy",
            "The key policy neither names the identity nor leaves permission to IAM (`arn:aws:iam::ACCOUNT:root`).",
            "`aws kms get-key-policy --policy-name default`, and add the identity's role.",
        ),
        suspect(
            "kms.suspect_other_account",
            "The key is in another account: then both the key policy and a policy of the identity must allow it.",
            "Compare the account in the key's ARN with the one that the test shows for the identity.",
        ),
        suspect(
            "kms.suspect_context_condition",
            "A condition on `kms:EncryptionContext` does not fit scope, secret or version.",
            "The context has `lictor:scope`, `lictor:secret` and `lictor:version`; the empty scope is `/`.",
        ),
        suspect(
            "kms.suspect_scp",
            "A service control policy of the organisation, a permissions boundary or a session policy denies it.",
            "The text of AWS names the kind of policy where it is an explicit deny.",
        ),
        suspect(
            "kms.suspect_vpc_endpoint",
            "The policy of the VPC endpoint for KMS does not allow it.",
            "`aws ec2 describe-vpc-endpoints`, the policy of `com.amazonaws.REGION.kms`.",
        ),
    ])
}

pub(crate) fn not_found(way: &Way, action: Action, text: Option<&str>) -> Error {
    let what = if way.alias { "alias" } else { "key" };
    let mut suspects = vec![
        suspect(
            "kms.suspect_region",
            format!("The {what} is in another region; here {} was asked.", way.region),
            "Give the ARN, which has the region.",
        ),
        suspect(
            "kms.suspect_account",
            format!("The {what} is in another account. A name without ARN means the account of the identity."),
            "Give the ARN, which has the account.",
        ),
    ];
    if way.alias {
        suspects.insert(
            0,
            suspect("kms.suspect_alias", "No alias has this name.", "`aws kms list-aliases` in the region of the key."),
        );
    }
    told(
        action,
        Kind::Key,
        "kms.key_not_found",
        format!("KMS knows no {what} {} in {}", way.key, way.region),
        "There is none of this name there.",
        "Compare region, account and id with the KMS console.",
        text,
    )
    .with_suspects(suspects)
}

pub(crate) fn disabled(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Key,
        "kms.key_disabled",
        format!("the key {} is disabled", way.key),
        "Somebody has disabled it.",
        "`aws kms enable-key`, if it was not disabled on purpose. Until then no secret under it can be used.",
        text,
    )
}

pub(crate) fn invalid_state(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Key,
        "kms.key_state",
        format!("the key {} is in a state in which it cannot be used", way.key),
        "It is about to be deleted, or its material is missing.",
        "`aws kms describe-key` shows its KeyState.",
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_pending_deletion",
            "The key is scheduled for deletion. After that everything under it is lost.",
            "`aws kms cancel-key-deletion` and `aws kms enable-key`, at once.",
        ),
        suspect(
            "kms.suspect_pending_import",
            "The key waits for its imported material, or that has expired.",
            "Import the material again.",
        ),
        suspect(
            "kms.suspect_key_store",
            "The key is in a custom key store that is not connected.",
            "`aws kms describe-custom-key-stores`.",
        ),
    ])
}

pub(crate) fn key_unavailable(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Passing,
        "kms.key_unavailable",
        format!("the key {} is not available at the moment", way.key),
        "KMS, or the key store that it is in, cannot reach the key's material.",
        "Try again. With a custom or external key store, look at its connection.",
        text,
    )
}

pub(crate) fn key_usage(way: &Way, action: Action, text: Option<&str>) -> Error {
    told(
        action,
        Kind::Key,
        "kms.key_usage",
        format!("the key {} is not for encryption", way.key),
        "It must be a symmetric key for ENCRYPT_DECRYPT.",
        "Make a symmetric key with the usage ENCRYPT_DECRYPT, and give its ARN.",
        text,
    )
}

pub(crate) fn ciphertext_refused(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::Decrypt,
        Kind::Record,
        "kms.ciphertext_refused",
        format!("KMS does not open the data key with {}", way.key),
        "What is stored is not what KMS made, or was made with another context or key. KMS does not tell which.",
        "Write the secret again. Find out who altered the database if this was not a restore from elsewhere.",
        text,
    )
    .with_suspects(vec![
        suspect(
            "kms.suspect_context",
            "The data key was made for another secret, version or scope: the record was moved or renamed in the database.",
            "Write the secret again where it stands now.",
        ),
        suspect(
            "kms.suspect_other_key",
            "The data key was made under another KMS key.",
            "See the key of this version in `lictor secret show`.",
        ),
        suspect("kms.suspect_tampered", "The stored data key was altered.", "Compare with a backup."),
    ])
}

pub(crate) fn wrong_key(way: &Way, text: Option<&str>) -> Error {
    told(
        Action::Decrypt,
        Kind::Record,
        "kms.wrong_key",
        format!("the data key is not one of {}", way.key),
        "The ciphertext was made under another KMS key than the record says.",
        "Write the secret again. The record was altered, or put together from two.",
        text,
    )
}

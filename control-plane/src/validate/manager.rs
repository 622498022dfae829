//! Checks of secret managers: everything that can be told without asking AWS, and without the secrets that they refer to.

use std::time::Duration;

use lictor_proto::v1::{AwsKms, Connectivity, SecretManager, TextOrSecret, aws_kms, secret_manager};

use super::{Checker, NAME, SCOPE, TAGS, Violations, are_tags, is_name, is_scope, is_text};
use crate::managers::is_reserved;

/// A checked secret manager.
pub(crate) fn manager(manager: Option<SecretManager>) -> Result<SecretManager, Violations> {
    let mut checker = Checker::default();
    let mut manager = manager.unwrap_or_default();
    checker.check(is_name(&manager.identifier), "manager.identifier", NAME);
    let reserved = is_reserved(&manager.identifier);
    checker.check(!reserved, "manager.identifier", "another one: `built-in` and `agent` are there already");
    checker.described("manager", &manager.name, &manager.description, &manager.tags);
    checker.check(is_scope(&manager.scope), "manager.scope", SCOPE);
    checker.check(are_tags(&manager.agent_tags), "manager.agent_tags", TAGS);
    match &mut manager.kind {
        Some(secret_manager::Kind::AwsKms(kms)) => checker.aws_kms(kms),
        None => checker.check(false, "manager.aws_kms", "required"),
    }
    checker.finish(manager)
}

impl Checker {
    fn aws_kms(&mut self, kms: &AwsKms) {
        self.text_or_secret("aws_kms.key", kms.key.as_ref(), MAX_ARN_BYTES);
        let region = &kms.region;
        let good =
            region.len() <= 32 && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        self.check(good, "aws_kms.region", "a region such as eu-central-1, or empty");
        for (field, url) in [("aws_kms.endpoint", &kms.endpoint), ("aws_kms.sts_endpoint", &kms.sts_endpoint)] {
            self.check(
                url.is_empty() || is_endpoint(url),
                field,
                "an https or http URL of at most 1024 characters, or empty",
            );
        }
        match &kms.credentials {
            None => self.check(
                false,
                "aws_kms.credentials",
                "one of access_key, machine_role, assume_role and oidc is required",
            ),
            Some(aws_kms::Credentials::AccessKey(access_key)) => {
                let field = "aws_kms.access_key.access_key_id";
                self.text_or_secret(field, access_key.access_key_id.as_ref(), MAX_ACCESS_KEY_ID);
                let secret = &access_key.secret_access_key;
                let expected =
                    "the identifier of a secret in the built-in store; a secret access key is never given itself";
                self.check(is_name(secret), "aws_kms.access_key.secret_access_key", expected);
            }
            Some(aws_kms::Credentials::MachineRole(_)) => {}
            Some(aws_kms::Credentials::AssumeRole(role)) => {
                self.role("aws_kms.assume_role", &role.role_arn, role.duration.as_ref());
                let id = &role.external_id;
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b);
                let good = id.is_empty() || ((2..=1224).contains(&id.len()) && id.bytes().all(allowed));
                let expected = "2 to 1224 letters, digits and `_+=,.@:/-`, or empty";
                self.check(good, "aws_kms.assume_role.external_id", expected);
            }
            Some(aws_kms::Credentials::Oidc(oidc)) => {
                self.role("aws_kms.oidc", &oidc.role_arn, oidc.duration.as_ref());
                let good = Connectivity::try_from(oidc.connectivity).is_ok();
                self.check(good, "aws_kms.oidc.connectivity", "agent or platform");
            }
        }
    }

    fn text_or_secret(&mut self, field: &str, given: Option<&TextOrSecret>, most: usize) {
        let (text, secret) = given.map_or(("", ""), |given| (given.text.as_str(), given.secret.as_str()));
        let expected = "a text, or the identifier of a secret in the built-in store; one of both";
        self.check(text.is_empty() != secret.is_empty(), field, expected);
        self.check(secret.is_empty() || is_name(secret), field, NAME);
        let good = text.len() <= most && text.bytes().all(|b| b.is_ascii_graphic());
        self.check(good, field, &format!("at most {most} visible ASCII characters"));
    }

    fn role(&mut self, prefix: &str, arn: &str, duration: Option<&prost_types::Duration>) {
        let good = arn.len() <= MAX_ARN_BYTES
            && is_text(arn, MAX_ARN_BYTES)
            && arn.contains(":iam::")
            && arn.contains(":role/");
        let expected = "the ARN of an IAM role, such as arn:aws:iam::111122223333:role/lictor-kms";
        self.check(good, &format!("{prefix}.role_arn"), expected);
        let duration = duration.map(|given| Duration::try_from(*given).unwrap_or_default());
        let good = duration.is_none_or(|duration| SESSION.contains(&duration));
        let expected = "from 900 s to 43200 s (12 h), which is what AWS takes, or unset for 3600 s";
        self.check(good, &format!("{prefix}.duration"), expected);
    }
}

/// Where an emulator or a private endpoint is. Who may be talked to without TLS is for the one who connects to say.
fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text.len() <= 1024
        && text.bytes().all(|b| b.is_ascii_graphic())
        && rest.is_some_and(|rest| {
            !rest.is_empty() && !rest.contains(['@', '?', '#', '\\']) && !rest.starts_with(['/', ':'])
        })
}

/// Longer than any ARN of AWS.
const MAX_ARN_BYTES: usize = 2048;
const MAX_ACCESS_KEY_ID: usize = 128;
const SESSION: std::ops::RangeInclusive<Duration> = Duration::from_secs(900)..=Duration::from_secs(43_200);

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{AwsAccessKey, AwsAssumeRole, AwsMachineRole, AwsOidc};

    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ROLE: &str = "arn:aws:iam::111122223333:role/lictor-kms";

    fn text(text: &str) -> Option<TextOrSecret> {
        Some(TextOrSecret { text: text.into(), secret: String::new() })
    }

    fn wrong(
        credentials: Option<aws_kms::Credentials>,
        change: impl FnOnce(&mut SecretManager, &mut AwsKms),
    ) -> String {
        let mut kms = AwsKms { key: text(KEY), credentials, ..AwsKms::default() };
        let mut given = SecretManager { identifier: "corp".into(), ..SecretManager::default() };
        change(&mut given, &mut kms);
        given.kind = Some(secret_manager::Kind::AwsKms(kms));
        manager(Some(given)).err().map(|violations| violations.to_string()).unwrap_or_default()
    }

    fn machine() -> Option<aws_kms::Credentials> {
        Some(aws_kms::Credentials::MachineRole(AwsMachineRole {}))
    }

    fn assumed(role_arn: &str, external_id: &str, seconds: Option<i64>) -> Option<aws_kms::Credentials> {
        Some(aws_kms::Credentials::AssumeRole(AwsAssumeRole {
            role_arn: role_arn.into(),
            external_id: external_id.into(),
            duration: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        }))
    }

    #[test]
    fn the_four_kinds() {
        let unchanged = |credentials| wrong(credentials, |_, _| {});
        assert_eq!(unchanged(machine()), "");
        assert_eq!(unchanged(assumed(ROLE, "lictor-1234", Some(900))), "");
        assert_eq!(unchanged(assumed(ROLE, "", None)), "");
        let access_key = AwsAccessKey { access_key_id: text("id-of-a-key"), secret_access_key: "aws-key".into() };
        assert_eq!(unchanged(Some(aws_kms::Credentials::AccessKey(access_key))), "");
        let oidc = AwsOidc { role_arn: ROLE.into(), connectivity: 2, duration: None };
        assert_eq!(unchanged(Some(aws_kms::Credentials::Oidc(oidc))), "");
        assert!(unchanged(None).contains("aws_kms.credentials: one of"));
        assert!(manager(None).unwrap_err().to_string().contains("manager.aws_kms: required"));
    }

    #[test]
    fn what_is_there_already_is_not_made() {
        for identifier in ["built-in", "agent", "", "a b"] {
            let found = wrong(machine(), |manager, _| manager.identifier = identifier.into());
            assert!(found.contains("manager.identifier: "), "{identifier}: {found}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let found = wrong(assumed("role", "x", Some(899)), |manager, kms| {
            manager.agent_tags = vec![String::new()];
            manager.scope = "/".into();
            kms.key = None;
            kms.region = "Frankfurt".into();
            kms.endpoint = "ftp://x".into();
            kms.sts_endpoint = "https://user@x".into();
        });
        for field in [
            "manager.agent_tags",
            "manager.scope",
            "aws_kms.key",
            "aws_kms.region",
            "aws_kms.endpoint",
            "aws_kms.sts_endpoint",
            "aws_kms.assume_role.role_arn",
            "aws_kms.assume_role.external_id",
            "aws_kms.assume_role.duration",
        ] {
            assert!(found.contains(&format!("{field}: ")), "{field} in {found}");
        }
        let both = wrong(machine(), |_, kms| kms.key = Some(TextOrSecret { text: KEY.into(), secret: "s".into() }));
        assert!(both.contains("one of both"), "{both}");
        for seconds in [899, 43_201, -1] {
            assert!(wrong(assumed(ROLE, "", Some(seconds)), |_, _| {}).contains("from 900 s to 43200 s"), "{seconds}");
        }
        let inline = AwsAccessKey { access_key_id: text("id-of-a-key"), secret_access_key: "not/a name".into() };
        let found = wrong(Some(aws_kms::Credentials::AccessKey(inline)), |_, _| {});
        assert!(found.contains("never given itself") && !found.contains("not/a name"), "{found}");
    }
}

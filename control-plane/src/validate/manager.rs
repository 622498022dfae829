//! Checks of secret managers: everything that can be told without asking AWS. First without the secrets that they refer to, then
//! with their values, which must not be in what is told.

use lictor_kms::{Access, Setting};
use lictor_proto::v1::{
    AwsKms, Connectivity, KmsAccess, KmsAccessKey, KmsWebIdentity, SecretManager, TextOrSecret, aws_kms, kms_access,
    secret_manager,
};
use zeroize::Zeroizing;

use super::{Checker, NAME, SCOPE, TAGS, Violations, are_tags, is_name, is_scope};
use crate::managers::is_reserved;

/// Values of the secrets that a manager refers to, as far as they are known.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) key: Option<Zeroizing<String>>,
    pub(crate) access_key_id: Option<Zeroizing<String>>,
    pub(crate) secret_access_key: Option<Zeroizing<String>>,
}

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
            Some(aws_kms::Credentials::MachineRole(_) | aws_kms::Credentials::AssumeRole(_)) => {}
            Some(aws_kms::Credentials::Oidc(oidc)) => {
                let good = Connectivity::try_from(oidc.connectivity).is_ok();
                self.check(good, "aws_kms.oidc.connectivity", "agent or platform");
            }
        }
        if let Err(Violations(more)) = kms_settings(kms, &Values::default()) {
            self.violations.extend(more);
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
}

/// Checks what the agent, or the control plane itself, will be told to use, by the same rules. What is not known is taken for good.
pub(crate) fn kms_settings(kms: &AwsKms, values: &Values) -> Result<(), Violations> {
    let key = known(kms.key.as_ref(), values.key.as_ref());
    let (mut id, mut role) = (None, "");
    let credentials = match &kms.credentials {
        // Named by who checks what has to be there.
        None => None,
        Some(aws_kms::Credentials::AccessKey(given)) => {
            id = given.access_key_id.as_ref();
            let secret = values.secret_access_key.as_ref().map_or(SOME_SECRET, |value| value.as_str());
            Some(kms_access::Credentials::AccessKey(KmsAccessKey {
                access_key_id: known(id, values.access_key_id.as_ref()).unwrap_or(SOME_ID).to_owned(),
                secret_access_key: secret.to_owned(),
            }))
        }
        Some(aws_kms::Credentials::MachineRole(machine)) => Some(kms_access::Credentials::MachineRole(*machine)),
        Some(aws_kms::Credentials::AssumeRole(given)) => {
            role = "aws_kms.assume_role";
            Some(kms_access::Credentials::AssumeRole(given.clone()))
        }
        Some(aws_kms::Credentials::Oidc(given)) => {
            role = "aws_kms.oidc";
            Some(kms_access::Credentials::WebIdentity(KmsWebIdentity {
                role_arn: given.role_arn.clone(),
                token: SOME_TOKEN.to_owned(),
                duration: given.duration,
            }))
        }
    };
    let mistakes = Access::check(KmsAccess {
        manager: String::new(),
        key: key.unwrap_or(SOME_KEY).to_owned(),
        region: kms.region.clone(),
        endpoint: kms.endpoint.clone(),
        sts_endpoint: kms.sts_endpoint.clone(),
        credentials,
    });
    let mut violations = Vec::new();
    for (setting, mistake) in mistakes.err().unwrap_or_default() {
        let (field, secret, expected) = match setting {
            Setting::Key => ("aws_kms.key".to_owned(), secret_of(kms.key.as_ref()), A_KEY),
            // That of the key is not known yet.
            Setting::Region if key.is_none() && kms.region.is_empty() => continue,
            Setting::Region => ("aws_kms.region".to_owned(), "", ""),
            Setting::Endpoint => ("aws_kms.endpoint".to_owned(), "", ""),
            Setting::StsEndpoint => ("aws_kms.sts_endpoint".to_owned(), "", ""),
            Setting::AccessKeyId => ("aws_kms.access_key.access_key_id".to_owned(), secret_of(id), AN_ID),
            Setting::SecretAccessKey => {
                let secret = match &kms.credentials {
                    Some(aws_kms::Credentials::AccessKey(given)) => given.secret_access_key.as_str(),
                    _ => "",
                };
                ("aws_kms.access_key.secret_access_key".to_owned(), secret, A_SECRET)
            }
            Setting::RoleArn => (format!("{role}.role_arn"), "", ""),
            Setting::ExternalId => (format!("{role}.external_id"), "", ""),
            Setting::Duration => (format!("{role}.duration"), "", ""),
            Setting::Credentials | Setting::Token | Setting::Manager => continue,
        };
        violations.push(if secret.is_empty() {
            format!("{field}: {}", mistake.cause().trim_end_matches('.'))
        } else {
            // Whoever may name a secret need not know it, so nothing is said of what it holds instead.
            format!("{field}: the secret {secret} does not hold {expected}")
        });
    }
    if violations.is_empty() { Ok(()) } else { Err(Violations(violations)) }
}

/// The text, or the value of the secret that holds it.
fn known<'a>(given: Option<&'a TextOrSecret>, value: Option<&'a Zeroizing<String>>) -> Option<&'a str> {
    match given {
        Some(given) if given.secret.is_empty() => Some(given.text.as_str()).filter(|text| !text.is_empty()),
        _ => value.map(|value| value.as_str()),
    }
}

fn secret_of(given: Option<&TextOrSecret>) -> &str {
    given.map_or("", |given| given.secret.as_str())
}

/// Longer than any ARN of AWS.
const MAX_ARN_BYTES: usize = 2048;
const MAX_ACCESS_KEY_ID: usize = 128;
const A_KEY: &str = "the ARN of a KMS key or of an alias, the id of a key, or alias/NAME";
const AN_ID: &str = "an access key id: 16 to 128 letters, digits and `_`, not the `ASIA` of a session";
const A_SECRET: &str = "a secret access key: 16 to 128 characters, no spaces among them";
/// In place of what is not known: nothing is wrong with these.
const SOME_KEY: &str = "alias/some";
const SOME_ID: &str = "0000000000000000";
const SOME_SECRET: &str = "0000000000000000";
const SOME_TOKEN: &str = "some.web.token";

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{AwsAccessKey, AwsAssumeRole, AwsMachineRole, AwsOidc};

    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ROLE: &str = "arn:aws:iam::111122223333:role/lictor-kms";
    const ID: &str = "IDOFANACCESSKEY0";

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
        let access_key = AwsAccessKey { access_key_id: text(ID), secret_access_key: "aws-key".into() };
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
            assert!(wrong(assumed(ROLE, "", Some(seconds)), |_, _| {}).contains("900 s to 43200 s"), "{seconds}");
        }
        let inline = AwsAccessKey { access_key_id: text(ID), secret_access_key: "not/a name".into() };
        let found = wrong(Some(aws_kms::Credentials::AccessKey(inline)), |_, _| {});
        assert!(found.contains("never given itself") && !found.contains("not/a name"), "{found}");
    }

    #[test]
    fn what_aws_would_refuse_is_told_with_its_field() {
        let key = |given: &'static str| move |_: &mut SecretManager, kms: &mut AwsKms| kms.key = text(given);
        let alias = "arn:aws:kms:eu-west-1:111122223333:alias/lictor";
        for (found, field, part) in [
            (wrong(machine(), key("arn:aws:kms:eu-central-1:1:key/x")), "aws_kms.key", "account"),
            (wrong(machine(), key("arn:aws:s3:eu-central-1:111122223333:bucket")), "aws_kms.key", "`s3`"),
            (wrong(machine(), key("alias/lictor")), "aws_kms.region", "No region is given"),
            (wrong(machine(), |_, kms| kms.region = "eu-centrl-1".into()), "aws_kms.region", "`eu-central-1`"),
            (
                wrong(machine(), |_, kms| {
                    kms.key = text(alias);
                    kms.region = "eu-central-1".into();
                }),
                "aws_kms.region",
                "the ARN of the key is of eu-west-1",
            ),
            (wrong(machine(), |_, kms| kms.endpoint = "http://kms.corp.example".into()), "aws_kms.endpoint", "TLS"),
            (wrong(assumed("", "", None), |_, _| {}), "aws_kms.assume_role.role_arn", "empty"),
            (wrong(assumed("arn:aws-cn:iam::111122223333:role/a", "", None), |_, _| {}), "role_arn", "partition"),
        ] {
            assert!(found.contains(&format!("{field}: ")) && found.contains(part), "{field} {part}: {found}");
            assert_eq!(found.matches("aws_kms.").count(), 1, "one mistake is told once: {found}");
        }
        let emulator = |_: &mut SecretManager, kms: &mut AwsKms| kms.endpoint = "http://127.0.0.1:4566".into();
        assert_eq!(wrong(machine(), emulator), "");
    }

    #[test]
    fn values_of_secrets_are_checked_and_not_told() {
        let secret = |secret: &str| Some(TextOrSecret { text: String::new(), secret: secret.into() });
        let access_key = AwsAccessKey { access_key_id: secret("the-id"), secret_access_key: "the-secret".into() };
        let credentials = Some(aws_kms::Credentials::AccessKey(access_key));
        let kms = AwsKms { key: secret("the-key"), credentials, ..AwsKms::default() };
        let value = |text: &str| Some(Zeroizing::new(text.to_owned()));
        let found = |kms: &AwsKms, key: &str, id: &str, secret: &str| {
            let values = Values { key: value(key), access_key_id: value(id), secret_access_key: value(secret) };
            kms_settings(kms, &values).err().map(|violations| violations.to_string()).unwrap_or_default()
        };
        let secret = "0".repeat(40);
        // Without them nothing can be said.
        assert_eq!(kms_settings(&kms, &Values::default()), Ok(()));
        assert_eq!(found(&kms, KEY, ID, &secret), "");
        let text = found(&kms, "Mark3r 1", "Mark3r 2", "Mark3r 3");
        for part in [
            "aws_kms.key: the secret the-key does",
            "aws_kms.access_key.access_key_id: the secret the-id does",
            "aws_kms.access_key.secret_access_key: the secret the-secret does",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("Mark3r"), "{text}");
        let elsewhere = AwsKms { region: "eu-west-1".into(), ..kms };
        assert!(found(&elsewhere, KEY, ID, &secret).starts_with("aws_kms.region: The region is eu-west-1"));
    }
}

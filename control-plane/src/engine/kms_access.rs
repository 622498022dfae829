//! The way to a key of AWS KMS: what an agent, or the control plane itself, needs to use it; and what comes back from there.
//!
//! What a secret manager authenticates with is decrypted here, and nowhere kept. Called for each assignment and each question anew, so
//! that a changed secret manager, or a changed access key, is what the next one gets.

use lictor_kms::arn::KeyId;
use lictor_proto::v1::{
    AwsKms, KmsAccess, KmsAccessKey, KmsRecord, KmsWebIdentity, SecretManager, TextOrSecret, aws_kms, kms_access,
    secret_manager,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::deliveries::Undelivered;
use super::{Engine, Refusal};
use crate::access::within;
use crate::clock::Now;
use crate::failure;
use crate::oidc::{Holder, Subject};
use crate::platform::Place;
use crate::store::managers::{self, ManagerRecord};
use crate::store::secrets::{self, Body};
use crate::store::{StoreError, Writer};
use crate::validate::{self, Values};

impl Engine {
    /// The way to a key of AWS KMS with everything that it takes, and which secrets that are.
    pub(super) async fn access(
        &mut self,
        record: &ManagerRecord,
        holder: Holder<'_>,
        now: Now,
    ) -> Result<Result<(KmsAccess, Vec<(String, u64)>), Undelivered>, StoreError> {
        let manager = &record.manager;
        let mut keys = Vec::new();
        let Some(secret_manager::Kind::AwsKms(kms)) = &manager.kind else {
            let reason = "this control plane does not know its kind";
            return Ok(Err(Box::new(failure::manager_unusable(&manager.identifier, reason))));
        };
        match self.access_parts(manager, kms, holder, &mut keys, now).await? {
            Ok(access) => Ok(Ok((access, keys))),
            Err(reason) => Ok(Err(Box::new(failure::manager_unusable(&manager.identifier, &reason)))),
        }
    }

    async fn access_parts(
        &mut self,
        manager: &SecretManager,
        kms: &AwsKms,
        holder: Holder<'_>,
        keys: &mut Vec<(String, u64)>,
        now: Now,
    ) -> Result<Result<KmsAccess, String>, StoreError> {
        let key = match self.text(manager, kms.key.as_ref(), keys).await? {
            Ok(key) => key,
            Err(reason) => return Ok(Err(reason)),
        };
        // Whoever is to use a key says which one failed; another secret, put there by mistake, would be read in that.
        if let Some(TextOrSecret { secret, .. }) = kms.key.as_ref().filter(|key| !key.secret.is_empty())
            && KeyId::parse(&key).is_err()
        {
            return Ok(Err(format!("the secret {secret} holds no ARN, id or alias of a KMS key")));
        }
        let credentials = match &kms.credentials {
            Some(aws_kms::Credentials::AccessKey(access_key)) => {
                let id = match self.text(manager, access_key.access_key_id.as_ref(), keys).await? {
                    Ok(id) => id,
                    Err(reason) => return Ok(Err(reason)),
                };
                let secret = TextOrSecret { text: String::new(), secret: access_key.secret_access_key.clone() };
                let mut secret = match self.text(manager, Some(&secret), keys).await? {
                    Ok(secret) => secret,
                    Err(reason) => return Ok(Err(reason)),
                };
                let secret_access_key = std::mem::take(&mut *secret);
                kms_access::Credentials::AccessKey(KmsAccessKey { access_key_id: id.to_string(), secret_access_key })
            }
            Some(aws_kms::Credentials::MachineRole(machine)) => kms_access::Credentials::MachineRole(*machine),
            Some(aws_kms::Credentials::AssumeRole(role)) => kms_access::Credentials::AssumeRole(role.clone()),
            Some(aws_kms::Credentials::Oidc(oidc)) => match self.web_identity(manager, kms, holder, now) {
                Ok(mut token) => kms_access::Credentials::WebIdentity(KmsWebIdentity {
                    role_arn: oidc.role_arn.clone(),
                    token: std::mem::take(&mut *token),
                    duration: oidc.duration,
                }),
                Err(reason) => return Ok(Err(reason)),
            },
            None => return Ok(Err("it does not say who uses its key".into())),
        };
        let region = if kms.region.is_empty() { region_of(&key) } else { &kms.region };
        Ok(Ok(KmsAccess {
            manager: manager.identifier.clone(),
            region: region.to_owned(),
            key: key.to_string(),
            endpoint: kms.endpoint.clone(),
            sts_endpoint: kms.sts_endpoint.clone(),
            credentials: Some(credentials),
        }))
    }

    fn web_identity(
        &self,
        manager: &SecretManager,
        kms: &AwsKms,
        holder: Holder<'_>,
        now: Now,
    ) -> Result<Zeroizing<String>, String> {
        let SecretManager { scope, identifier, .. } = manager;
        let subject = Subject { scope, manager: identifier, sts_endpoint: &kms.sts_endpoint, holder };
        self.parts.issuer.token(&subject, now.wall).map_err(|error| error.to_string())
    }

    /// Whether the secrets that a manager refers to hold what they should: then whoever stores it hears of it, and not whoever uses it.
    pub(super) async fn holds_what_it_should(
        &mut self,
        manager: &SecretManager,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let Some(secret_manager::Kind::AwsKms(kms)) = &manager.kind else { return Ok(Ok(())) };
        let mut values = Values::default();
        let secret_access_key;
        let mut wanted = vec![("aws_kms.key", kms.key.as_ref(), &mut values.key)];
        if let Some(aws_kms::Credentials::AccessKey(given)) = &kms.credentials {
            let secret = given.secret_access_key.clone();
            secret_access_key = TextOrSecret { text: String::new(), secret };
            let field = "aws_kms.access_key.access_key_id";
            wanted.push((field, given.access_key_id.as_ref(), &mut values.access_key_id));
            let field = "aws_kms.access_key.secret_access_key";
            wanted.push((field, Some(&secret_access_key), &mut values.secret_access_key));
        }
        for (field, given, value) in wanted {
            if given.is_none_or(|given| given.secret.is_empty()) {
                continue;
            }
            match self.text(manager, given, &mut Vec::new()).await? {
                Ok(text) => *value = Some(text),
                Err(reason) => return Ok(Err(Refusal::Impossible(format!("{field}: {reason}")))),
            }
        }
        let checked = validate::kms_settings(kms, &values);
        Ok(checked.map_err(|violations| Refusal::Invalid(violations.to_string())))
    }

    /// A text of a secret manager's, from the built-in store if it is a secret.
    async fn text(
        &mut self,
        manager: &SecretManager,
        text: Option<&TextOrSecret>,
        keys: &mut Vec<(String, u64)>,
    ) -> Result<Result<Zeroizing<String>, String>, StoreError> {
        let Some(TextOrSecret { text, secret: identifier }) = text else { return Ok(Err(INCOMPLETE.into())) };
        if identifier.is_empty() {
            return Ok(Ok(Zeroizing::new(text.clone())));
        }
        let database = self.database().await?;
        let record = secrets::secret(database, identifier).await?;
        let Some(record) = record.filter(|record| record.deleted_at.is_none()) else {
            return Ok(Err(format!("there is no secret {identifier}")));
        };
        if !within(&record.scope, &manager.scope) {
            return Ok(Err(format!("the secret {identifier} belongs to another scope")));
        }
        let Some(version) = secrets::version(database, identifier, record.version).await? else {
            return Ok(Err(format!("the secret {identifier} has no version")));
        };
        let Body::BuiltIn(envelope) = version.body else {
            return Ok(Err(format!("the secret {identifier} is not in the built-in store")));
        };
        let value = match self.opened(identifier, record.version, &envelope) {
            Ok(value) => value,
            Err(error) => return Ok(Err(format!("the secret {identifier} does not open: {error}"))),
        };
        keys.push((identifier.clone(), record.version));
        let text = std::str::from_utf8(&value).map(|text| Zeroizing::new(text.to_owned()));
        Ok(text.map_err(|_| format!("the secret {identifier} holds no text")))
    }
}

/// A secret manager that is not deleted.
pub(super) async fn live_manager(database: &mut Writer, identifier: &str) -> Result<Option<ManagerRecord>, StoreError> {
    Ok(managers::manager(database, identifier).await?.filter(|record| record.deleted_at.is_none()))
}

/// Zeroes what is secret in an access.
pub(super) fn wipe(access: &mut KmsAccess) {
    access.key.zeroize();
    match &mut access.credentials {
        Some(kms_access::Credentials::AccessKey(key)) => {
            key.access_key_id.zeroize();
            key.secret_access_key.zeroize();
        }
        Some(kms_access::Credentials::WebIdentity(identity)) => identity.token.zeroize(),
        Some(kms_access::Credentials::MachineRole(_) | kms_access::Credentials::AssumeRole(_)) | None => {}
    }
}

/// The region in an ARN; empty when it is none.
fn region_of(key: &str) -> &str {
    if key.starts_with("arn:") { key.split(':').nth(3).unwrap_or_default() } else { "" }
}

/// What a record is of. A secret may have been given another scope since: what was encrypted keeps the one it had.
pub(super) fn place(record: &KmsRecord, identifier: &str, version: u64) -> Place {
    let scope = record.context.get("lictor:scope").filter(|scope| *scope != WHOLE_ACCOUNT);
    Place { scope: scope.cloned().unwrap_or_default(), identifier: identifier.to_owned(), version }
}

/// Whether a record is of this version of this secret, and within its bounds: an agent may have made anything.
pub(super) fn check_record(record: &KmsRecord, scope: &str, identifier: &str, version: u64) -> Result<(), String> {
    let scope = if scope.is_empty() { WHOLE_ACCOUNT } else { scope };
    let version = version.to_string();
    let context = [("lictor:scope", scope), ("lictor:secret", identifier), ("lictor:version", version.as_str())];
    let ours = record.context.len() == context.len()
        && context.iter().all(|(key, value)| record.context.get(*key).is_some_and(|given| given == value));
    if !ours {
        return Err("its encryption context is that of something else".into());
    }
    let bounded = record.key_arn.len() <= 2048
        && record.key_arn.starts_with("arn:")
        && !record.key_arn.chars().any(char::is_control)
        && (1..=6144).contains(&record.wrapped_key.len())
        && record.nonce.len() == 12
        && (17..=MAX_CIPHERTEXT).contains(&record.ciphertext.len());
    if bounded { Ok(()) } else { Err("its parts are not of the sizes that they should be".into()) }
}

const INCOMPLETE: &str = "it is not complete";
/// Stands for the empty scope in encryption contexts, as lictor_kms writes it.
const WHOLE_ACCOUNT: &str = "/";
/// A file and its tag.
const MAX_CIPHERTEXT: usize = (256 << 10) + 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> KmsRecord {
        let context = [("lictor:scope", "team/a"), ("lictor:secret", "db"), ("lictor:version", "3")];
        KmsRecord {
            key_arn: "arn:aws:kms:eu-central-1:111122223333:key/1234".into(),
            wrapped_key: vec![1; 184],
            nonce: vec![2; 12],
            ciphertext: vec![3; 40],
            context: context.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    #[test]
    fn a_record_is_taken_only_for_what_it_says_it_is_of() {
        check_record(&record(), "team/a", "db", 3).unwrap();
        for (scope, identifier, version) in [("", "db", 3), ("team", "db", 3), ("team/a", "dc", 3), ("team/a", "db", 4)]
        {
            check_record(&record(), scope, identifier, version).unwrap_err();
        }
        let mut more = record();
        more.context.insert("lictor:other".into(), "x".into());
        check_record(&more, "team/a", "db", 3).unwrap_err();
        let mut whole = record();
        whole.context.insert("lictor:scope".into(), "/".into());
        check_record(&whole, "", "db", 3).unwrap();
        check_record(&whole, "account", "db", 3).unwrap_err();
        assert_eq!(place(&whole, "db", 3).scope, "");
        // A scope of this name is one like any other.
        whole.context.insert("lictor:scope".into(), "account".into());
        check_record(&whole, "account", "db", 3).unwrap();
        check_record(&whole, "", "db", 3).unwrap_err();
        assert_eq!(place(&whole, "db", 3).scope, "account");
    }

    #[test]
    fn a_record_has_its_bounds() {
        let changes: [fn(&mut KmsRecord); 7] = [
            |record| record.wrapped_key.clear(),
            |record| record.wrapped_key = vec![0; 6145],
            |record| record.nonce.truncate(11),
            |record| record.ciphertext.truncate(16),
            |record| record.ciphertext = vec![0; MAX_CIPHERTEXT + 1],
            |record| record.key_arn = "key".into(),
            |record| record.key_arn.push('\n'),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut changed = record();
            change(&mut changed);
            assert!(check_record(&changed, "team/a", "db", 3).is_err(), "{index}");
        }
    }

    #[test]
    fn what_is_secret_in_an_access_is_zeroed() {
        let with = |credentials| KmsAccess { credentials: Some(credentials), ..KmsAccess::default() };
        let key = KmsAccessKey { access_key_id: "id".into(), secret_access_key: "marker".into() };
        let identity = KmsWebIdentity { token: "marker".into(), ..KmsWebIdentity::default() };
        for mut access in
            [with(kms_access::Credentials::AccessKey(key)), with(kms_access::Credentials::WebIdentity(identity))]
        {
            wipe(&mut access);
            assert!(!format!("{access:?}").contains("marker"));
        }
    }

    #[test]
    fn the_region_is_in_the_arn() {
        assert_eq!(region_of("arn:aws:kms:eu-central-1:111122223333:key/1234"), "eu-central-1");
        assert_eq!(region_of("alias/corp"), "");
        assert_eq!(region_of("arn:aws"), "");
    }
}

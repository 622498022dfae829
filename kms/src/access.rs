//! The way to a KMS key, read from the wire into what cannot be wrong: key, region, endpoints, and who to be.
//!
//! Everything is checked here, before anything is sent; all mistakes are told at once. It holds secrets, which its `Debug` does not
//! show.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lictor_proto::v1::{self as proto, kms_access};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::arn::{KeyId, Region, RoleArn};
use crate::error::sentences::Way;
use crate::error::{Error, sentences};

/// The way to a KMS key.
///
/// Endpoints, where given, must be `https://`. `http://` is taken for loopback addresses and `localhost` alone: requests hold no value
/// in clear, but answers do.
#[derive(Clone)]
pub struct Access {
    pub(crate) manager: String,
    pub(crate) key: KeyId,
    pub(crate) region: Region,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) sts_endpoint: Option<Endpoint>,
    pub(crate) credentials: Credentials,
    /// Counts what was parsed: of two tokens for one manager the one that came later is taken.
    pub(crate) order: u64,
}

/// Who to be.
#[derive(Clone)]
pub(crate) enum Credentials {
    AccessKey { id: Zeroizing<String>, secret: Zeroizing<String> },
    Machine,
    AssumeRole { role: RoleArn, external_id: Option<String>, duration: Duration },
    WebIdentity { role: RoleArn, token: Zeroizing<String>, duration: Duration },
}

/// A setting that a mistake is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The name of the secret manager.
    Manager,
    /// The key.
    Key,
    /// The region, given or that of the key.
    Region,
    /// The endpoint of KMS.
    Endpoint,
    /// The endpoint of STS.
    StsEndpoint,
    /// That there are credentials.
    Credentials,
    /// The id of the access key.
    AccessKeyId,
    /// Its secret part.
    SecretAccessKey,
    /// The role.
    RoleArn,
    /// The external id.
    ExternalId,
    /// The duration of sessions.
    Duration,
    /// The web identity token.
    Token,
}

type Mistakes = Vec<(Setting, Error)>;

/// Where to ask in place of the region's endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) loopback: bool,
}

impl Access {
    /// Reads and checks what came over the wire.
    ///
    /// # Errors
    /// The first mistake, which tells of all others in its cause.
    pub fn parse(access: proto::KmsAccess) -> Result<Self, Error> {
        Self::read(access).map_err(|mistakes| {
            let mut mistakes = mistakes.into_iter().map(|(_, mistake)| mistake);
            let first = mistakes.next().unwrap_or_else(sentences::credentials_missing);
            first.with_others(&mistakes.collect::<Vec<_>>())
        })
    }

    /// Checks the same, for those who tell of each setting by itself.
    ///
    /// # Errors
    /// Every mistake, and the setting that it is in.
    pub fn check(access: proto::KmsAccess) -> Result<(), Vec<(Setting, Error)>> {
        Self::read(access)?;
        Ok(())
    }

    fn read(access: proto::KmsAccess) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let malformed = |why| (Setting::Key, sentences::key_malformed(why));
        let key = KeyId::parse(&access.key).map_err(|why| mistakes.push(malformed(why))).ok();
        let endpoint = read_endpoint(&access.endpoint, (Setting::Endpoint, "KMS"), &mut mistakes);
        let sts_endpoint = read_endpoint(&access.sts_endpoint, (Setting::StsEndpoint, "STS"), &mut mistakes);
        let region = read_region(&access.region, key.as_ref(), !access.endpoint.is_empty(), &mut mistakes);
        let credentials = read_credentials(access.credentials, key.as_ref(), &mut mistakes);
        if access.manager.len() > MAX_NAME {
            let why = "the name of the secret manager is too long".to_owned();
            mistakes.push((Setting::Manager, sentences::key_malformed(why)));
        }
        match (key, region, credentials) {
            (Some(key), Some(region), Some(credentials)) if mistakes.is_empty() => Ok(Self {
                manager: access.manager,
                key,
                region,
                endpoint,
                sts_endpoint,
                credentials,
                order: PARSED.fetch_add(1, Ordering::Relaxed),
            }),
            _ => Err(mistakes),
        }
    }

    /// The key as it was given.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        &self.key
    }

    /// The region that is asked.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// What two ways have in common that lead to the same key as the same identity. Tokens do not count: each delivery has another.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        };
        let endpoint = |endpoint: &Option<Endpoint>| endpoint.as_ref().map_or_else(String::new, |it| it.url.clone());
        add(&self.manager);
        add(self.key.as_str());
        add(self.region.as_str());
        add(&endpoint(&self.endpoint));
        add(&endpoint(&self.sts_endpoint));
        match &self.credentials {
            Credentials::AccessKey { id, secret } => ["access key", id, secret].into_iter().for_each(add),
            Credentials::Machine => add("machine"),
            Credentials::AssumeRole { role, external_id, duration } => {
                let (given, id) = external_id.as_ref().map_or(("none", ""), |id| ("external id", id));
                ["role", role.as_str(), given, id, &duration.as_secs().to_string()].into_iter().for_each(add);
            }
            Credentials::WebIdentity { role, duration, .. } => {
                ["web identity", role.as_str(), &duration.as_secs().to_string()].into_iter().for_each(add);
            }
        }
        digest.finalize().into()
    }

    /// The machine's own identity, asking the same places.
    pub(crate) fn machine(&self) -> Self {
        Self { manager: String::new(), credentials: Credentials::Machine, ..self.clone() }
    }

    pub(crate) fn way(&self) -> Way {
        let (role, external_id, duration) = match &self.credentials {
            Credentials::AssumeRole { role, external_id, duration } => {
                (role.to_string(), external_id.is_some(), *duration)
            }
            Credentials::WebIdentity { role, duration, .. } => (role.to_string(), false, *duration),
            Credentials::AccessKey { .. } | Credentials::Machine => (String::new(), false, Duration::ZERO),
        };
        Way {
            key: self.key.to_string(),
            region: self.region.to_string(),
            role,
            external_id,
            duration: duration.as_secs(),
            endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.url.clone()),
            alias: self.key.is_alias(),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = match &self.credentials {
            Credentials::AccessKey { .. } => "access key [redacted]".to_owned(),
            Credentials::Machine => "machine".to_owned(),
            Credentials::AssumeRole { role, .. } => format!("role {role}"),
            Credentials::WebIdentity { role, .. } => format!("web identity [redacted] for {role}"),
        };
        f.debug_struct("Access")
            .field("manager", &self.manager)
            .field("key", &self.key.as_str())
            .field("region", &self.region.as_str())
            .field("endpoint", &self.endpoint.as_ref().map(|endpoint| &endpoint.url))
            .field("credentials", &credentials)
            .finish_non_exhaustive()
    }
}

fn read_region(text: &str, key: Option<&KeyId>, endpoint: bool, mistakes: &mut Mistakes) -> Option<Region> {
    let mut slip = |error| mistakes.push((Setting::Region, error));
    let of_key = key.and_then(KeyId::region);
    let written = if text.is_empty() { of_key.map_or("", Region::as_str) } else { text };
    if written.is_empty() {
        // A key that could not be read may have had one.
        if key.is_some() {
            slip(sentences::region_missing());
        }
        return None;
    }
    let region = if endpoint { Region::shaped(written) } else { Region::parse(written) };
    match region {
        Err(why) => {
            slip(sentences::region_unknown(why));
            None
        }
        Ok(region) => {
            if let Some(of_key) = of_key.filter(|of_key| **of_key != region) {
                slip(sentences::region_disagrees(region.as_str(), of_key.as_str()));
            }
            Some(region)
        }
    }
}

fn read_endpoint(text: &str, (setting, of): (Setting, &str), mistakes: &mut Mistakes) -> Option<Endpoint> {
    if text.is_empty() {
        return None;
    }
    let endpoint = endpoint(text);
    let malformed = |why| (setting, sentences::endpoint(format!("the endpoint of {of} {why}")));
    endpoint.map_err(|why: String| mistakes.push(malformed(why))).ok()
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    if text.len() > MAX_ENDPOINT {
        return Err(format!("has {} bytes; the most is {MAX_ENDPOINT}", text.len()));
    }
    let url = Url::parse(text).map_err(|why| format!("is no URL: {why}"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err("has no host".to_owned()),
    };
    // A password in it would be shown with the URL.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password, which belong elsewhere".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() || url.path() != "/" {
        return Err("has more than scheme, host and port".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err("is without TLS, which is for loopback alone".to_owned()),
        _ => return Err("is neither `https://` nor `http://`".to_owned()),
    }
    Ok(Endpoint { url: url.as_str().trim_end_matches('/').to_owned(), loopback })
}

fn read_credentials(
    credentials: Option<kms_access::Credentials>,
    key: Option<&KeyId>,
    mistakes: &mut Mistakes,
) -> Option<Credentials> {
    match credentials {
        None => {
            mistakes.push((Setting::Credentials, sentences::credentials_missing()));
            None
        }
        Some(kms_access::Credentials::MachineRole(_)) => Some(Credentials::Machine),
        Some(kms_access::Credentials::AccessKey(given)) => {
            let (id, secret) = (Zeroizing::new(given.access_key_id), Zeroizing::new(given.secret_access_key));
            if let Some(why) = access_key_id_slip(&id) {
                mistakes.push((Setting::AccessKeyId, sentences::access_key(why)));
            }
            if let Some(why) = secret_access_key_slip(&secret) {
                mistakes.push((Setting::SecretAccessKey, sentences::access_key(why)));
            }
            Some(Credentials::AccessKey { id, secret })
        }
        Some(kms_access::Credentials::AssumeRole(given)) => {
            let role = read_role(&given.role_arn, key, mistakes);
            let duration = read_duration(given.duration, mistakes);
            let external_id = (!given.external_id.is_empty()).then_some(given.external_id);
            if let Some(why) = external_id.as_deref().and_then(external_id_slip) {
                mistakes.push((Setting::ExternalId, sentences::external_id(why)));
            }
            Some(Credentials::AssumeRole { role: role?, external_id, duration: duration? })
        }
        Some(kms_access::Credentials::WebIdentity(given)) => {
            let token = Zeroizing::new(given.token);
            let role = read_role(&given.role_arn, key, mistakes);
            let duration = read_duration(given.duration, mistakes);
            if let Some(why) = token_slip(&token) {
                mistakes.push((Setting::Token, sentences::token(why)));
            }
            Some(Credentials::WebIdentity { role: role?, token, duration: duration? })
        }
    }
}

// Neither text is shown: ids are no secrets, but a secret may have been put there by mistake.
fn access_key_id_slip(id: &str) -> Option<String> {
    if !(16..=128).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let length = id.chars().count();
        return Some(format!("the access key id has {length} characters; it has 16 to 128 letters, digits and `_`"));
    }
    id.starts_with("ASIA")
        .then(|| "the access key id is a temporary one (`ASIA…`), which ends with its session".to_owned())
}

fn secret_access_key_slip(secret: &str) -> Option<String> {
    let good = (16..=128).contains(&secret.len()) && secret.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    (!good).then(|| {
        let length = secret.chars().count();
        format!("the secret access key has {length} characters; it has 16 to 128, and no spaces among them")
    })
}

fn read_role(text: &str, key: Option<&KeyId>, mistakes: &mut Mistakes) -> Option<RoleArn> {
    let mut slip = |error| mistakes.push((Setting::RoleArn, error));
    if text.is_empty() {
        slip(sentences::role_missing());
        return None;
    }
    match RoleArn::parse(text) {
        Err(why) => {
            slip(sentences::role_malformed(why));
            None
        }
        Ok(role) => {
            if let Some(of_key) = key.and_then(KeyId::partition).filter(|of_key| *of_key != role.partition()) {
                let own = role.partition();
                slip(sentences::role_malformed(format!(
                    "the role is of the partition `{own}`, the key of `{of_key}`; no role reaches across"
                )));
            }
            Some(role)
        }
    }
}

fn read_duration(given: Option<prost_types::Duration>, mistakes: &mut Mistakes) -> Option<Duration> {
    let Some(given) = given else { return Some(DEFAULT_DURATION) };
    match u64::try_from(given.seconds) {
        Ok(seconds) if given.nanos == 0 && DURATIONS.contains(&seconds) => Some(Duration::from_secs(seconds)),
        _ => {
            mistakes.push((Setting::Duration, sentences::duration(given.seconds)));
            None
        }
    }
}

fn external_id_slip(text: &str) -> Option<String> {
    let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if !(2..=1224).contains(&text.len()) {
        return Some(format!("it has {} characters; STS takes 2 to 1224", text.chars().count()));
    }
    (!text.bytes().all(taken)).then(|| "it has a character that STS does not take".to_owned())
}

fn token_slip(token: &str) -> Option<String> {
    if token.is_empty() {
        return Some("it is empty".to_owned());
    }
    if token.len() > MAX_TOKEN {
        return Some(format!("it has {} bytes; STS takes {MAX_TOKEN}", token.len()));
    }
    let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    (token.len() < 4 || token.split('.').count() != 3 || !token.bytes().all(taken))
        .then(|| "it is no JSON Web Token: three parts in base64url, separated by dots".to_owned())
}

static PARSED: AtomicU64 = AtomicU64::new(0);
/// What STS takes.
const DURATIONS: std::ops::RangeInclusive<u64> = 900..=43_200;
/// What STS takes where nothing is said, and what every role permits.
const DEFAULT_DURATION: Duration = Duration::from_secs(3600);
/// What STS takes as `WebIdentityToken`.
const MAX_TOKEN: usize = 20_000;
const MAX_ENDPOINT: usize = 1024;
/// Identifiers have 64 characters at most.
const MAX_NAME: usize = 256;

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;

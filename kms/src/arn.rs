//! Names of AWS: regions, keys, roles. Read strictly, so that a slip shows before anything is sent.
//!
//! Knows the shapes and the list of regions; whether a key or a role exists only AWS knows.

use std::fmt;

/// Regions by partition, as AWS lists them. A region that is not here is taken only where the endpoint is given, too.
const REGIONS: &[(Partition, &[&str])] = &[
    (
        Partition::Aws,
        &[
            "af-south-1",
            "ap-east-1",
            "ap-east-2",
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-northeast-3",
            "ap-south-1",
            "ap-south-2",
            "ap-southeast-1",
            "ap-southeast-2",
            "ap-southeast-3",
            "ap-southeast-4",
            "ap-southeast-5",
            "ap-southeast-6",
            "ap-southeast-7",
            "ca-central-1",
            "ca-west-1",
            "eu-central-1",
            "eu-central-2",
            "eu-north-1",
            "eu-south-1",
            "eu-south-2",
            "eu-west-1",
            "eu-west-2",
            "eu-west-3",
            "il-central-1",
            "me-central-1",
            "me-south-1",
            "mx-central-1",
            "sa-east-1",
            "us-east-1",
            "us-east-2",
            "us-west-1",
            "us-west-2",
        ],
    ),
    (Partition::China, &["cn-north-1", "cn-northwest-1"]),
    (Partition::UsGov, &["us-gov-east-1", "us-gov-west-1"]),
    (Partition::Iso, &["us-iso-east-1", "us-iso-west-1"]),
    (Partition::IsoB, &["us-isob-east-1", "us-isob-west-1"]),
    (Partition::IsoE, &["eu-isoe-west-1"]),
    (Partition::IsoF, &["us-isof-east-1", "us-isof-south-1"]),
];

/// A part of AWS with accounts and names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// `aws`.
    Aws,
    /// `aws-cn`.
    China,
    /// `aws-us-gov`.
    UsGov,
    /// `aws-iso`.
    Iso,
    /// `aws-iso-b`.
    IsoB,
    /// `aws-iso-e`.
    IsoE,
    /// `aws-iso-f`.
    IsoF,
}

impl Partition {
    const ALL: [Self; 7] = [Self::Aws, Self::China, Self::UsGov, Self::Iso, Self::IsoB, Self::IsoE, Self::IsoF];

    /// As ARNs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::China => "aws-cn",
            Self::UsGov => "aws-us-gov",
            Self::Iso => "aws-iso",
            Self::IsoB => "aws-iso-b",
            Self::IsoE => "aws-iso-e",
            Self::IsoF => "aws-iso-f",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|partition| partition.as_str() == text)
            .ok_or_else(|| format!("`{}` is no partition; `aws` is meant nearly always", shown(text)))
    }
}

/// A region, such as `eu-central-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Region(String);

impl Region {
    /// Reads the name of a region that AWS has.
    ///
    /// # Errors
    /// What is wrong with it, with the names that may have been meant.
    pub fn parse(text: &str) -> Result<Self, String> {
        let region = Self::shaped(text)?;
        if region.partition().is_some() {
            return Ok(region);
        }
        let near = near(text);
        if near.is_empty() {
            Err(format!("`{text}` is none of the regions of AWS"))
        } else {
            Err(format!("`{text}` is none of the regions of AWS; {} may be meant", or(&near)))
        }
    }

    /// Reads what has the shape of a region's name, whether AWS has it or not: for endpoints that are given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn shaped(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the region is empty".to_owned());
        }
        let parts: Vec<&str> = text.split('-').collect();
        let words = parts
            .iter()
            .rev()
            .skip(1)
            .all(|part| (1..=12).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_lowercase()));
        let number = parts
            .last()
            .is_some_and(|last| (1..=2).contains(&last.len()) && last.bytes().all(|byte| byte.is_ascii_digit()));
        if (3..=4).contains(&parts.len()) && words && number {
            return Ok(Self(text.to_owned()));
        }
        let near = near(text);
        if near.is_empty() {
            Err(format!("`{}` is no name of a region, such as `eu-central-1`", shown(text)))
        } else {
            Err(format!("`{}` is no name of a region; {} may be meant", shown(text), or(&near)))
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it belongs. None: AWS has no such region as far as is known here.
    #[must_use]
    pub fn partition(&self) -> Option<Partition> {
        REGIONS.iter().find(|(_, names)| names.contains(&self.0.as_str())).map(|(partition, _)| *partition)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A KMS key as KMS takes it: the ARN of a key or an alias, the id of a key, or `alias/...`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId {
    text: String,
    region: Option<Region>,
    partition: Option<&'static str>,
    account: Option<String>,
    alias: bool,
}

impl KeyId {
    /// Reads one of the four forms.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the key is empty: give the ARN of a KMS key, or of an alias".to_owned());
        }
        if text.len() > MAX_KEY {
            return Err(format!("the key has {} bytes; KMS takes {MAX_KEY}", text.len()));
        }
        if text.starts_with("arn:") {
            return Self::arn(text);
        }
        let alias = resource(text, false)?;
        Ok(Self { text: text.to_owned(), region: None, partition: None, account: None, alias })
    }

    fn arn(text: &str) -> Result<Self, String> {
        let arn = Arn::parse(text)?;
        if arn.service != "kms" {
            return Err(format!("the ARN is one of `{}`; that of a KMS key has `kms` there", shown(arn.service)));
        }
        let region = Region::shaped(arn.region)?;
        if let Some(own) = region.partition()
            && own != arn.partition
        {
            let (own, written) = (own.as_str(), arn.partition.as_str());
            return Err(format!("the region {region} belongs to `arn:{own}:`; the ARN has `arn:{written}:`"));
        }
        let alias = resource(arn.resource, true)?;
        Ok(Self {
            text: text.to_owned(),
            region: Some(region),
            partition: Some(arn.partition.as_str()),
            account: Some(arn.account.to_owned()),
            alias,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region, which only ARNs have.
    #[must_use]
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// The account, which only ARNs have.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// Whether it is an alias, which may point to another key tomorrow.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.alias
    }

    pub(crate) fn partition(&self) -> Option<&'static str> {
        self.partition
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The ARN of an IAM role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleArn {
    text: String,
    partition: &'static str,
    account: String,
}

impl RoleArn {
    /// Reads `arn:aws:iam::111122223333:role/path/name`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_ROLE {
            return Err(format!("the ARN of the role has {} bytes; STS takes {MAX_ROLE}", text.len()));
        }
        let arn = Arn::parse(text)?;
        if arn.service == "sts" && arn.resource.starts_with("assumed-role/") {
            return Err("that is the ARN of a session; give that of its role, `arn:aws:iam::…:role/…`".to_owned());
        }
        if arn.service != "iam" {
            return Err(format!("the ARN is one of `{}`; that of a role has `iam` there", shown(arn.service)));
        }
        if !arn.region.is_empty() {
            return Err("the ARN of a role has no region: `arn:aws:iam::…`".to_owned());
        }
        let Some(path) = arn.resource.strip_prefix("role/") else {
            return Err(format!("`{}` is no role: the ARN ends with `role/` and a name", shown(arn.resource)));
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(taken) {
            return Err("the name of the role has 1 to 64 letters, digits and `+=,.@_-`".to_owned());
        }
        let above = &path[..path.len() - name.len()];
        if above.len() > 511 || above.starts_with('/') || !above.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err("the path of the role is malformed".to_owned());
        }
        Ok(Self { text: text.to_owned(), partition: arn.partition.as_str(), account: arn.account.to_owned() })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    pub(crate) fn partition(&self) -> &'static str {
        self.partition
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// True for the ARN of a session of a role, as GetCallerIdentity tells it.
pub(crate) fn is_role_session(text: &str) -> bool {
    Arn::parse(text).is_ok_and(|arn| arn.service == "sts" && arn.resource.starts_with("assumed-role/"))
}

struct Arn<'a> {
    partition: Partition,
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        let (Some("arn"), Some(partition), Some(service), Some(region), Some(account), Some(resource)) =
            (next(), next(), next(), next(), next(), next())
        else {
            return Err(format!("`{}` is no ARN: `arn:partition:service:region:account:resource`", shown(text)));
        };
        let partition = Partition::parse(partition)?;
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("the account in the ARN is `{}`; it has 12 digits", shown(account)));
        }
        Ok(Self { partition, service, region, account, resource })
    }
}

/// Reads the last part of a key's ARN, or what stands for it alone. True for an alias.
fn resource(text: &str, of_arn: bool) -> Result<bool, String> {
    if let Some(name) = text.strip_prefix("alias/") {
        let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
        if name.is_empty() || text.len() > 256 || !name.bytes().all(taken) {
            return Err("the alias has letters, digits and `/_-` behind `alias/`, at most 256 altogether".to_owned());
        }
        return Ok(true);
    }
    let id = if of_arn { text.strip_prefix("key/") } else { Some(text) };
    match id {
        Some(id) if is_uuid(id) || is_multi_region(id) => Ok(false),
        _ if of_arn => Err(format!("`{}` is neither `key/` and the id of a key nor an alias", shown(text))),
        _ => Err(format!("`{}` is neither an ARN nor the id of a key nor `alias/` and a name", shown(text))),
    }
}

fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_multi_region(text: &str) -> bool {
    text.strip_prefix("mrk-").is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Names of regions that differ from the text in two places at most.
fn near(text: &str) -> Vec<&'static str> {
    if text.len() > 24 {
        return Vec::new();
    }
    let text = text.to_ascii_lowercase().replace(['_', ' '], "-");
    let mut near: Vec<(usize, &str)> = REGIONS
        .iter()
        .flat_map(|(_, names)| *names)
        .map(|name| (distance(&text, name), *name))
        .filter(|(distance, _)| *distance <= 2)
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// How many bytes have to be put in, taken out or replaced.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, here) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, there) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(here != there);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn or(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

/// A text from outside: bounded, on one line.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// What KMS takes as `KeyId`.
const MAX_KEY: usize = 2048;
/// What STS takes as `RoleArn`.
const MAX_ROLE: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn the_forms_of_a_key_are_told_apart() {
        let key = KeyId::parse(KEY).unwrap();
        assert_eq!((key.as_str(), key.account(), key.is_alias()), (KEY, Some("111122223333"), false));
        assert_eq!(key.region().unwrap().as_str(), "eu-central-1");
        for (text, alias, region) in [
            ("1234abcd-12ab-34cd-56ef-1234567890ab", false, None),
            ("mrk-1234abcd12ab34cd56ef1234567890ab", false, None),
            ("alias/lictor/web", true, None),
            ("arn:aws-cn:kms:cn-north-1:111122223333:alias/lictor", true, Some("cn-north-1")),
            (
                "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
                false,
                Some("us-gov-west-1"),
            ),
        ] {
            let key = KeyId::parse(text).unwrap();
            assert_eq!((key.is_alias(), key.region().map(Region::as_str)), (alias, region), "{text}");
        }
    }

    #[test]
    fn a_slip_in_a_key_is_named() {
        for (text, word) in [
            ("", "empty"),
            ("arn:aws:kms", "no ARN"),
            ("arn:asw:kms:eu-central-1:111122223333:alias/a", "`asw`"),
            ("arn:aws:s3:eu-central-1:111122223333:alias/a", "`s3`"),
            ("arn:aws:kms:eu-centra1-1:111122223333:alias/a", "`eu-central-1`"),
            ("arn:aws:kms::111122223333:alias/a", "region is empty"),
            ("arn:aws:kms:eu-central-1:1111:alias/a", "12 digits"),
            ("arn:aws:kms:eu-central-1:111122223333:alias/", "alias"),
            ("arn:aws:kms:eu-central-1:111122223333:key/web", "`key/`"),
            ("arn:aws:kms:eu-central-1:111122223333:1234abcd-12ab-34cd-56ef-1234567890ab", "`key/`"),
            ("arn:aws-cn:kms:eu-central-1:111122223333:alias/a", "arn:aws:"),
            ("web", "neither"),
            ("alias/web key", "alias"),
        ] {
            let why = KeyId::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(KeyId::parse(&"a".repeat(3000)).unwrap_err().contains("2048"));
    }

    #[test]
    fn regions_are_known_and_near_misses_are_named() {
        assert_eq!(Region::parse("eu-central-1").unwrap().partition(), Some(Partition::Aws));
        assert!(Region::parse("eu-central-9").unwrap_err().contains("`eu-central-1`"));
        assert!(Region::parse("EU-CENTRAL-1").unwrap_err().contains("`eu-central-1`"));
        assert!(Region::parse("eu_west_1").unwrap_err().contains("`eu-west-1`"));
        assert!(Region::parse("xx-nowhere-1").unwrap_err().contains("none of the regions"));
        assert!(Region::parse("frankfurt").unwrap_err().contains("no name of a region"));
        assert!(Region::shaped("xx-nowhere-1").unwrap().partition().is_none());
    }

    #[test]
    fn roles_are_roles() {
        let role = RoleArn::parse("arn:aws:iam::111122223333:role/lictor/agent").unwrap();
        assert_eq!((role.account(), role.partition()), ("111122223333", "aws"));
        for (text, word) in [
            ("arn:aws:iam::111122223333:user/alice", "no role"),
            ("arn:aws:iam::111122223333:role/", "name"),
            ("arn:aws:iam:eu-central-1:111122223333:role/a", "no region"),
            ("arn:aws:iam::1:role/a", "12 digits"),
            ("arn:aws:sts::111122223333:assumed-role/a/b", "session"),
            ("lictor-agent", "no ARN"),
        ] {
            let why = RoleArn::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(is_role_session("arn:aws:sts::111122223333:assumed-role/a/b"));
        assert!(!is_role_session("arn:aws:iam::111122223333:user/alice"));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_kept_as_it_was(text in "\\PC{0,120}") {
            if let Ok(key) = KeyId::parse(&text) {
                prop_assert_eq!(key.as_str(), &text);
            }
            if let Ok(role) = RoleArn::parse(&text) {
                prop_assert_eq!(role.as_str(), &text);
            }
            if let Err(why) = Region::parse(&text) {
                prop_assert!(why.len() < 1000);
            }
        }

        #[test]
        fn every_well_formed_key_is_read(
            account in "[0-9]{12}",
            id in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        ) {
            let text = format!("arn:aws:kms:us-east-1:{account}:key/{id}");
            let key = KeyId::parse(&text).unwrap();
            prop_assert_eq!(key.account(), Some(account.as_str()));
        }

        #[test]
        fn the_distance_is_a_distance(left in "[a-c]{0,6}", right in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&left, &right), distance(&right, &left));
            prop_assert_eq!(distance(&left, &right) == 0, left == right);
        }
    }
}

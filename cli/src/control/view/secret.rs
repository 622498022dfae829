//! Secrets, without their values, and secret managers.

use std::collections::BTreeMap;

use lictor_proto::v1;
use serde::Serialize;

use super::{milliseconds, time};
use crate::console;
use crate::failure::clean;

/// A secret without its value.
#[derive(Debug, Serialize)]
pub(in crate::control) struct SecretView {
    identifier: String,
    name: String,
    description: String,
    tags: BTreeMap<String, String>,
    scope: String,
    kind: &'static str,
    manager: String,
    source: Option<String>,
    version: u64,
    key_id: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl From<v1::Secret> for SecretView {
    fn from(secret: v1::Secret) -> Self {
        let kind = match secret.kind() {
            v1::SecretKind::Text => "text",
            v1::SecretKind::File => "file",
            v1::SecretKind::Unspecified => "unknown",
        };
        Self {
            kind,
            identifier: secret.identifier,
            name: secret.name,
            description: secret.description,
            tags: secret.tags.into_iter().collect(),
            scope: secret.scope,
            manager: secret.manager,
            source: given(secret.source),
            version: secret.version,
            key_id: given(secret.key_id),
            created_at: time(secret.created_at),
            updated_at: time(secret.updated_at),
        }
    }
}

impl SecretView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        format!("secret {}: version {}, kept by {}\n", clean(&self.identifier), self.version, clean(&self.manager))
    }
}

/// Secrets in lines.
pub(in crate::control) fn secret_table(secrets: &[SecretView]) -> String {
    console::table(
        &["secret", "kind", "manager", "version", "scope", "source", "key", "updated", "tags", "name", "description"],
        secrets.iter().map(|secret| {
            vec![
                secret.identifier.clone(),
                secret.kind.to_owned(),
                secret.manager.clone(),
                secret.version.to_string(),
                secret.scope.clone(),
                secret.source.clone().unwrap_or_default(),
                secret.key_id.clone().unwrap_or_default(),
                secret.updated_at.clone().unwrap_or_default(),
                tags(&secret.tags),
                // Most have none of their own.
                if secret.name == secret.identifier { String::new() } else { secret.name.clone() },
                secret.description.clone(),
            ]
        }),
    )
}

/// All that is known of a secret.
#[derive(Debug, Serialize)]
pub(in crate::control) struct SecretPage {
    #[serde(flatten)]
    secret: SecretView,
    versions: Vec<VersionView>,
    used_by: Vec<String>,
}

/// One version of a secret.
#[derive(Debug, Serialize)]
struct VersionView {
    version: u64,
    manager: String,
    key_id: Option<String>,
    created_at: Option<String>,
    created_by: String,
}

impl SecretPage {
    pub(in crate::control) fn new(secret: v1::Secret, versions: Vec<v1::SecretVersion>, used_by: Vec<String>) -> Self {
        let view = |version: v1::SecretVersion| VersionView {
            version: version.version,
            manager: version.manager,
            key_id: given(version.key_id),
            created_at: time(version.created_at),
            created_by: version.created_by,
        };
        Self { secret: SecretView::from(secret), versions: versions.into_iter().map(view).collect(), used_by }
    }
}

/// One secret on a page.
pub(in crate::control) fn secret_page(page: &SecretPage) -> String {
    let secret = &page.secret;
    let mut text = rows(vec![
        ("secret", secret.identifier.clone()),
        ("name", secret.name.clone()),
        ("description", secret.description.clone()),
        ("tags", tags(&secret.tags)),
        ("scope", secret.scope.clone()),
        ("kind", secret.kind.to_owned()),
        ("manager", secret.manager.clone()),
        ("source", secret.source.clone().unwrap_or_default()),
        ("version", secret.version.to_string()),
        ("key", secret.key_id.clone().unwrap_or_default()),
        ("created", secret.created_at.clone().unwrap_or_default()),
        ("updated", secret.updated_at.clone().unwrap_or_default()),
        ("used by", page.used_by.join(", ")),
    ]);
    if !page.versions.is_empty() {
        text.push('\n');
        text.push_str(&console::table(
            &["version", "made", "by", "manager", "key"],
            page.versions.iter().map(|version| {
                vec![
                    version.version.to_string(),
                    version.created_at.clone().unwrap_or_default(),
                    version.created_by.clone(),
                    version.manager.clone(),
                    version.key_id.clone().unwrap_or_default(),
                ]
            }),
        ));
    }
    text
}

/// A secret manager.
#[derive(Debug, Serialize)]
pub(in crate::control) struct ManagerView {
    identifier: String,
    name: String,
    description: String,
    tags: BTreeMap<String, String>,
    scope: String,
    agent_tags: Vec<String>,
    #[serde(flatten)]
    kind: KindView,
    version: u64,
    created_at: Option<String>,
    updated_at: Option<String>,
}

/// What a secret manager is.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum KindView {
    AwsKms {
        key: Option<ValueView>,
        region: Option<String>,
        endpoint: Option<String>,
        sts_endpoint: Option<String>,
        credentials: CredentialsView,
    },
    BuiltIn,
    Agent,
    Unknown,
}

/// A text, or the secret that holds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum ValueView {
    Text(String),
    Secret(String),
}

/// Who uses a key.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum CredentialsView {
    AccessKey { access_key_id: Option<ValueView>, secret_access_key: Option<ValueView> },
    MachineRole,
    AssumeRole { role_arn: String, external_id: Option<String>, duration_ms: Option<f64> },
    Oidc { role_arn: String, connectivity: &'static str, duration_ms: Option<f64> },
    Unknown,
}

impl From<v1::SecretManager> for ManagerView {
    fn from(manager: v1::SecretManager) -> Self {
        let kind = match manager.kind {
            Some(v1::secret_manager::Kind::AwsKms(kms)) => KindView::AwsKms {
                key: kms.key.and_then(ValueView::new),
                region: given(kms.region),
                endpoint: given(kms.endpoint),
                sts_endpoint: given(kms.sts_endpoint),
                credentials: kms.credentials.map_or(CredentialsView::Unknown, CredentialsView::from),
            },
            None if manager.identifier == "built-in" => KindView::BuiltIn,
            None if manager.identifier == "agent" => KindView::Agent,
            None => KindView::Unknown,
        };
        Self {
            kind,
            identifier: manager.identifier,
            name: manager.name,
            description: manager.description,
            tags: manager.tags.into_iter().collect(),
            scope: manager.scope,
            agent_tags: manager.agent_tags,
            version: manager.version,
            created_at: time(manager.created_at),
            updated_at: time(manager.updated_at),
        }
    }
}

impl From<v1::aws_kms::Credentials> for CredentialsView {
    fn from(credentials: v1::aws_kms::Credentials) -> Self {
        use v1::aws_kms::Credentials;
        match credentials {
            Credentials::AccessKey(key) => Self::AccessKey {
                access_key_id: key.access_key_id.and_then(ValueView::new),
                secret_access_key: given(key.secret_access_key).map(ValueView::Secret),
            },
            Credentials::MachineRole(_) => Self::MachineRole,
            Credentials::AssumeRole(role) => Self::AssumeRole {
                role_arn: role.role_arn,
                external_id: given(role.external_id),
                duration_ms: role.duration.map(milliseconds),
            },
            Credentials::Oidc(oidc) => Self::Oidc {
                connectivity: match oidc.connectivity() {
                    v1::Connectivity::Platform => "platform",
                    v1::Connectivity::Agent | v1::Connectivity::Unspecified => "agent",
                },
                role_arn: oidc.role_arn,
                duration_ms: oidc.duration.map(milliseconds),
            },
        }
    }
}

impl ValueView {
    fn new(value: v1::TextOrSecret) -> Option<Self> {
        given(value.secret).map(Self::Secret).or_else(|| given(value.text).map(Self::Text))
    }

    fn text(value: Option<&Self>) -> String {
        match value {
            Some(Self::Text(text)) => text.clone(),
            Some(Self::Secret(secret)) => format!("secret {secret}"),
            None => String::new(),
        }
    }
}

impl CredentialsView {
    fn text(&self) -> String {
        match self {
            Self::AccessKey { access_key_id, .. } => format!("access key {}", ValueView::text(access_key_id.as_ref())),
            Self::MachineRole => "the agent's machine".to_owned(),
            Self::AssumeRole { role_arn, .. } => format!("assumes {role_arn}"),
            Self::Oidc { role_arn, connectivity: "platform", .. } => format!("{role_arn} by OIDC, control plane"),
            Self::Oidc { role_arn, .. } => format!("{role_arn} by OIDC, agent"),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let lasts = |duration: &Option<f64>| duration.map(|ms| format!("{} s", ms / 1000.0)).unwrap_or_default();
        let mut rows = vec![("who", self.text())];
        match self {
            Self::AccessKey { secret_access_key, .. } => {
                rows.push(("secret key", ValueView::text(secret_access_key.as_ref())));
            }
            Self::AssumeRole { external_id, duration_ms, .. } => {
                rows.push(("external id", external_id.clone().unwrap_or_default()));
                rows.push(("session", lasts(duration_ms)));
            }
            Self::Oidc { duration_ms, .. } => rows.push(("session", lasts(duration_ms))),
            Self::MachineRole | Self::Unknown => {}
        }
        rows
    }
}

impl KindView {
    fn name(&self) -> &'static str {
        match self {
            Self::AwsKms { .. } => "aws-kms",
            Self::BuiltIn => "built-in",
            Self::Agent => "agent",
            Self::Unknown => "unknown",
        }
    }
}

impl ManagerView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        format!("secret manager {}: version {}\n", clean(&self.identifier), self.version)
    }
}

/// Secret managers in lines.
pub(in crate::control) fn manager_table<'a>(managers: impl IntoIterator<Item = &'a ManagerView>) -> String {
    console::table(
        &["manager", "type", "key", "region", "who", "agent tags", "scope", "version", "updated", "description"],
        managers.into_iter().map(|manager| {
            let (key, region, who) = match &manager.kind {
                KindView::AwsKms { key, region, credentials, .. } => {
                    (ValueView::text(key.as_ref()), region.clone().unwrap_or_default(), credentials.text())
                }
                _ => Default::default(),
            };
            vec![
                manager.identifier.clone(),
                manager.kind.name().to_owned(),
                key,
                region,
                who,
                manager.agent_tags.join(","),
                manager.scope.clone(),
                if manager.version == 0 { String::new() } else { manager.version.to_string() },
                manager.updated_at.clone().unwrap_or_default(),
                manager.description.clone(),
            ]
        }),
    )
}

/// One secret manager on a page.
pub(in crate::control) fn manager_page(manager: &ManagerView) -> String {
    let mut page = vec![
        ("manager", manager.identifier.clone()),
        ("name", manager.name.clone()),
        ("description", manager.description.clone()),
        ("tags", tags(&manager.tags)),
        ("scope", manager.scope.clone()),
        ("type", manager.kind.name().to_owned()),
    ];
    if let KindView::AwsKms { key, region, endpoint, sts_endpoint, credentials } = &manager.kind {
        page.push(("key", ValueView::text(key.as_ref())));
        page.push(("region", region.clone().unwrap_or_default()));
        page.push(("endpoint", endpoint.clone().unwrap_or_default()));
        page.push(("sts endpoint", sts_endpoint.clone().unwrap_or_default()));
        page.extend(credentials.rows());
    }
    page.push(("agent tags", manager.agent_tags.join(", ")));
    page.push(("version", manager.version.to_string()));
    page.push(("created", manager.created_at.clone().unwrap_or_default()));
    page.push(("updated", manager.updated_at.clone().unwrap_or_default()));
    rows(page)
}

/// Names and values, without those that are empty.
fn rows(mut rows: Vec<(&str, String)>) -> String {
    rows.retain(|(_, value)| !value.is_empty());
    rows.iter().map(|(name, value)| format!("{name:<14}{}\n", clean(value))).collect()
}

fn tags(tags: &BTreeMap<String, String>) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(credentials: v1::aws_kms::Credentials) -> ManagerView {
        let key = v1::TextOrSecret { text: "alias/lictor".into(), ..v1::TextOrSecret::default() };
        let kms = v1::AwsKms {
            key: Some(key),
            region: "eu-central-1".into(),
            credentials: Some(credentials),
            ..v1::AwsKms::default()
        };
        ManagerView::from(v1::SecretManager {
            identifier: "corp".into(),
            kind: Some(v1::secret_manager::Kind::AwsKms(kms)),
            version: 2,
            ..v1::SecretManager::default()
        })
    }

    #[test]
    fn managers_say_who_uses_the_key() {
        use v1::aws_kms::Credentials;
        let role_arn = "arn:aws:iam::111122223333:role/lictor".to_owned();
        let secret = |secret: &str| v1::TextOrSecret { secret: secret.into(), ..v1::TextOrSecret::default() };
        let access_key = manager(Credentials::AccessKey(v1::AwsAccessKey {
            access_key_id: Some(secret("aws-id")),
            secret_access_key: "aws-key".into(),
        }));
        let json = serde_json::to_value(&access_key).unwrap();
        assert_eq!((&json["type"], &json["key"]["text"]), (&"aws-kms".into(), &"alias/lictor".into()));
        assert_eq!(json["credentials"]["kind"], "access_key");
        assert_eq!(json["credentials"]["access_key_id"]["secret"], "aws-id");
        assert_eq!(json["credentials"]["secret_access_key"]["secret"], "aws-key");
        assert!(manager_table(&[access_key]).contains("access key secret aws-id"));
        let assumed = manager(Credentials::AssumeRole(v1::AwsAssumeRole {
            role_arn: role_arn.clone(),
            external_id: "their-id".into(),
            duration: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
        }));
        let page = manager_page(&assumed);
        for words in ["assumes arn:aws:iam::111122223333:role/lictor", "their-id", "900 s", "eu-central-1"] {
            assert!(page.contains(words), "{words} is missing in {page}");
        }
        let oidc = v1::AwsOidc { role_arn, connectivity: v1::Connectivity::Platform.into(), duration: None };
        let json = serde_json::to_value(manager(Credentials::Oidc(oidc))).unwrap();
        assert_eq!(json["credentials"]["connectivity"], "platform");
        let builtin =
            ManagerView::from(v1::SecretManager { identifier: "built-in".into(), ..v1::SecretManager::default() });
        assert_eq!(serde_json::to_value(builtin).unwrap()["type"], "built-in");
    }

    #[test]
    fn a_page_shows_versions_and_what_uses_the_secret() {
        let secret = v1::Secret {
            identifier: "web".into(),
            name: "web\u{1b}[2J".into(),
            kind: v1::SecretKind::File.into(),
            manager: "corp".into(),
            version: 7,
            tags: [("team".to_owned(), "web".to_owned())].into(),
            ..v1::Secret::default()
        };
        let version = v1::SecretVersion { version: 7, created_by: "ann".into(), ..v1::SecretVersion::default() };
        let page = SecretPage::new(secret, vec![version], vec!["credential web".into(), "secret-manager x".into()]);
        let json = serde_json::to_value(&page).unwrap();
        assert_eq!((&json["identifier"], &json["kind"], &json["version"]), (&"web".into(), &"file".into(), &7.into()));
        assert_eq!(
            (&json["versions"][0]["created_by"], &json["used_by"][0]),
            (&"ann".into(), &"credential web".into())
        );
        let text = secret_page(&page);
        assert!(text.contains("credential web, secret-manager x") && text.contains("team=web"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(page.secret.state_line().contains("version 7, kept by corp"));
    }
}

//! Records of secrets and their versions. Values come in and go out encrypted, or are elsewhere.

use std::collections::BTreeMap;

use lictor_proto::v1::{KmsRecord, Secret, SecretKind, SecretVersion};
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{StoreError, millis, page, signed, unsigned};
use crate::clock::UnixMillis;
use crate::vault::Envelope;

/// The secret manager whose values are in this database, under the master key.
pub(crate) const BUILT_IN: &str = "built-in";
/// The secret manager whose values are on the agents.
pub(crate) const ON_AGENT: &str = "agent";

/// A secret as it is stored, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretRecord {
    pub(crate) identifier: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) scope: String,
    /// Text or file, never unspecified.
    pub(crate) kind: SecretKind,
    /// Of the newest version.
    pub(crate) manager: String,
    pub(crate) version: u64,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
    pub(crate) deleted_at: Option<UnixMillis>,
}

/// One version of a secret.
#[derive(Debug, Clone)]
pub(crate) struct VersionRecord {
    pub(crate) identifier: String,
    pub(crate) version: u64,
    pub(crate) manager: String,
    pub(crate) created_at: UnixMillis,
    pub(crate) created_by: String,
    pub(crate) body: Body,
}

/// Where a version's value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// Here.
    BuiltIn(Envelope),
    /// On the agent: `file:` and a path, or `env:` and a name.
    Agent(String),
    /// Here, under a key that the control plane cannot use.
    Kms(KmsRecord),
}

impl SecretRecord {
    /// As users see it; `newest` is its newest version, which knows where the value is.
    pub(crate) fn view(&self, newest: Option<&VersionRecord>) -> Secret {
        Secret {
            identifier: self.identifier.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            tags: self.tags.clone().into_iter().collect(),
            scope: self.scope.clone(),
            kind: self.kind.into(),
            manager: self.manager.clone(),
            source: newest.map(|version| version.body.source().to_owned()).unwrap_or_default(),
            version: self.version,
            created_at: Some(self.created_at.timestamp()),
            updated_at: Some(self.updated_at.timestamp()),
            key_id: newest.map(|version| version.body.key_id().to_owned()).unwrap_or_default(),
        }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        Ok(Self {
            identifier: row.try_get("identifier")?,
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            tags: serde_json::from_str(row.try_get("tags")?).map_err(|_| StoreError::Malformed("a secret's tags"))?,
            scope: row.try_get("scope")?,
            kind: SecretKind::try_from(row.try_get::<i32, _>("kind")?)
                .ok()
                .filter(|kind| *kind != SecretKind::Unspecified)
                .ok_or(StoreError::Malformed("a secret's kind"))?,
            manager: row.try_get("manager")?,
            version: unsigned(row.try_get("version")?),
            created_at: UnixMillis(row.try_get("created_at")?),
            updated_at: UnixMillis(row.try_get("updated_at")?),
            deleted_at: millis(row.try_get("deleted_at")?),
        })
    }
}

impl VersionRecord {
    /// As users see it.
    pub(crate) fn view(&self) -> SecretVersion {
        SecretVersion {
            version: self.version,
            created_at: Some(self.created_at.timestamp()),
            created_by: self.created_by.clone(),
            manager: self.manager.clone(),
            key_id: self.body.key_id().to_owned(),
        }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        let malformed = StoreError::Malformed("a version of a secret");
        let wrapped_key: Option<Vec<u8>> = row.try_get("wrapped_key")?;
        let ciphertext: Option<Vec<u8>> = row.try_get("ciphertext")?;
        let source: Option<String> = row.try_get("source")?;
        let record: Option<&[u8]> = row.try_get("record")?;
        let body = match (wrapped_key.zip(ciphertext), source, record) {
            (Some((wrapped_key, ciphertext)), None, None) => {
                Body::BuiltIn(Envelope { key_id: row.try_get("key_id")?, wrapped_key, ciphertext })
            }
            (None, Some(source), None) => Body::Agent(source),
            (None, None, Some(record)) => Body::Kms(KmsRecord::decode(record).map_err(|_| malformed)?),
            _ => return Err(malformed),
        };
        Ok(Self {
            identifier: row.try_get("identifier")?,
            version: unsigned(row.try_get("version")?),
            manager: row.try_get("manager")?,
            created_at: UnixMillis(row.try_get("created_at")?),
            created_by: row.try_get("created_by")?,
            body,
        })
    }
}

impl Body {
    /// What it is encrypted with: the id of a master key or the ARN of a KMS key.
    pub(crate) fn key_id(&self) -> &str {
        match self {
            Self::BuiltIn(envelope) => &envelope.key_id,
            Self::Agent(_) => "",
            Self::Kms(record) => &record.key_arn,
        }
    }

    fn source(&self) -> &str {
        match self {
            Self::Agent(source) => source,
            Self::BuiltIn(_) | Self::Kms(_) => "",
        }
    }
}

/// Finds a secret, a deleted one too.
pub(crate) async fn secret(
    writer: &mut SqliteConnection,
    identifier: &str,
) -> Result<Option<SecretRecord>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM secrets WHERE identifier = $1").bind(identifier).fetch_optional(writer).await?;
    row.as_ref().map(SecretRecord::from_row).transpose()
}

/// Identifiers of the secrets whose newest version this manager keeps.
pub(crate) async fn kept_by(writer: &mut SqliteConnection, manager: &str) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query_scalar(
        "SELECT identifier FROM secrets WHERE manager = $1 AND deleted_at IS NULL ORDER BY identifier",
    );
    Ok(rows.bind(manager).fetch_all(writer).await?)
}

/// Every secret that is not deleted, and the manager of its newest version.
pub(crate) async fn managers_of_all(writer: &mut SqliteConnection) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query_as("SELECT identifier, manager FROM secrets WHERE deleted_at IS NULL");
    Ok(rows.fetch_all(writer).await?)
}

/// How many there are, without deleted ones.
pub(crate) async fn count(writer: &mut SqliteConnection) -> Result<u64, StoreError> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM secrets WHERE deleted_at IS NULL");
    Ok(unsigned(count.fetch_one(writer).await?))
}

/// Within the scope, by identifier, behind the one named, without deleted ones; each with its newest version.
pub(crate) async fn secrets(
    readers: &SqlitePool,
    scope: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<Secret>, StoreError> {
    let statement = "SELECT s.*, v.key_id, v.source, v.record FROM secrets s \
         LEFT JOIN secret_versions v ON v.identifier = s.identifier AND v.version = s.version \
         WHERE s.deleted_at IS NULL AND s.identifier > $1 \
         AND ($3 = '' OR s.scope = $3 OR substr(s.scope, 1, length($3) + 1) = $3 || '/') ORDER BY s.identifier LIMIT $2";
    page(readers, statement, scope, after, limit, listed).await
}

/// A secret from a row that has what is needed of its newest version, too.
fn listed(row: &SqliteRow) -> Result<Secret, StoreError> {
    let mut view = SecretRecord::from_row(row)?.view(None);
    view.source = row.try_get::<Option<String>, _>("source")?.unwrap_or_default();
    view.key_id = match row.try_get::<Option<&[u8]>, _>("record")? {
        Some(record) => KmsRecord::decode(record).map_err(|_| StoreError::Malformed("a version of a secret"))?.key_arn,
        None => row.try_get::<Option<String>, _>("key_id")?.unwrap_or_default(),
    };
    Ok(view)
}

/// The versions that are kept, newest first.
pub(crate) async fn versions(
    writer: &mut SqliteConnection,
    identifier: &str,
) -> Result<Vec<VersionRecord>, StoreError> {
    let rows = sqlx::query("SELECT * FROM secret_versions WHERE identifier = $1 ORDER BY version DESC")
        .bind(identifier)
        .fetch_all(writer)
        .await?;
    rows.iter().map(VersionRecord::from_row).collect()
}

/// One version, if it is still kept.
pub(crate) async fn version(
    writer: &mut SqliteConnection,
    identifier: &str,
    version: u64,
) -> Result<Option<VersionRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM secret_versions WHERE identifier = $1 AND version = $2")
        .bind(identifier)
        .bind(signed(version))
        .fetch_optional(writer)
        .await?;
    row.as_ref().map(VersionRecord::from_row).transpose()
}

/// Adds the secret or replaces its record.
pub(crate) async fn save_secret(writer: &mut SqliteConnection, record: &SecretRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO secrets (identifier, name, description, tags, scope, kind, manager, version, created_at, \
         updated_at, deleted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (identifier) DO UPDATE SET name = excluded.name, description = excluded.description, \
         tags = excluded.tags, scope = excluded.scope, kind = excluded.kind, manager = excluded.manager, \
         version = excluded.version, created_at = excluded.created_at, updated_at = excluded.updated_at, \
         deleted_at = excluded.deleted_at",
    )
    .bind(&record.identifier)
    .bind(&record.name)
    .bind(&record.description)
    .bind(serde_json::json!(record.tags).to_string())
    .bind(&record.scope)
    .bind(i32::from(record.kind))
    .bind(&record.manager)
    .bind(signed(record.version))
    .bind(record.created_at.0)
    .bind(record.updated_at.0)
    .bind(record.deleted_at.map(|at| at.0))
    .execute(writer)
    .await?;
    Ok(())
}

/// Adds a version, and lets go the ones that are older than the newest [`KEPT_VERSIONS`].
pub(crate) async fn add_version(writer: &mut SqliteConnection, record: &VersionRecord) -> Result<(), StoreError> {
    let (mut wrapped_key, mut ciphertext, mut source, mut kms, mut key_id) = (None, None, None, None, "");
    match &record.body {
        Body::BuiltIn(envelope) => {
            key_id = &envelope.key_id;
            (wrapped_key, ciphertext) = (Some(&envelope.wrapped_key), Some(&envelope.ciphertext));
        }
        Body::Agent(place) => source = Some(place),
        Body::Kms(record) => kms = Some(record.encode_to_vec()),
    }
    sqlx::query(
        "INSERT INTO secret_versions (identifier, version, manager, created_at, created_by, key_id, wrapped_key, \
         ciphertext, source, record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&record.identifier)
    .bind(signed(record.version))
    .bind(&record.manager)
    .bind(record.created_at.0)
    .bind(&record.created_by)
    .bind(key_id)
    .bind(wrapped_key)
    .bind(ciphertext)
    .bind(source)
    .bind(kms)
    .execute(&mut *writer)
    .await?;
    sqlx::query("DELETE FROM secret_versions WHERE identifier = $1 AND version <= $2")
        .bind(&record.identifier)
        .bind(signed(record.version) - KEPT_VERSIONS)
        .execute(writer)
        .await?;
    Ok(())
}

/// Removes every version with what it holds.
pub(crate) async fn remove_versions(writer: &mut SqliteConnection, identifier: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM secret_versions WHERE identifier = $1").bind(identifier).execute(writer).await?;
    Ok(())
}

/// Of one secret. Tasks that were given out keep what they were given: an old version is handed only to an agent that restarted and
/// had it already.
pub(crate) const KEPT_VERSIONS: i64 = 10;

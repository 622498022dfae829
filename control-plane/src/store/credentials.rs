//! Records of WinRM credentials. Secrets come in and go out encrypted.

use lictor_proto::v1::{ConnectionSettings, Credential, CredentialSecretKind};
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{StoreError, millis, page, signed, unsigned};
use crate::clock::UnixMillis;
use crate::dispatch::{CredentialState, Needs};
use crate::vault::Encrypted;

/// A credential as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct CredentialRecord {
    pub(crate) name: String,
    pub(crate) username: String,
    pub(crate) domain: String,
    pub(crate) connection: ConnectionSettings,
    pub(crate) no_profile: bool,
    pub(crate) description: String,
    pub(crate) scope: String,
    pub(crate) version: u64,
    pub(crate) secret_kind: CredentialSecretKind,
    /// Where the secret is on the agent, if it is there.
    pub(crate) agent_path: String,
    /// Of nothing when the secret is on the agent. Empty when it is one with an identifier.
    pub(crate) secret: Encrypted,
    /// Identifier of the secret that it is; empty: one of the credential's own.
    pub(crate) secret_identifier: String,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
    pub(crate) rejected_at: Option<UnixMillis>,
    pub(crate) deleted_at: Option<UnixMillis>,
}

impl CredentialRecord {
    pub(crate) fn view(&self) -> Credential {
        Credential {
            name: self.name.clone(),
            username: self.username.clone(),
            domain: self.domain.clone(),
            connection: Some(self.connection.clone()),
            no_profile: self.no_profile,
            description: self.description.clone(),
            version: self.version,
            created_at: Some(self.created_at.timestamp()),
            updated_at: Some(self.updated_at.timestamp()),
            rejected_at: self.rejected_at.map(UnixMillis::timestamp),
            scope: self.scope.clone(),
            secret_kind: self.secret_kind.into(),
            agent_path: self.agent_path.clone(),
            secret: self.secret_identifier.clone(),
        }
    }

    /// What the ledger has to know of it.
    pub(crate) fn state(&self) -> CredentialState {
        CredentialState {
            version: self.version,
            rejected: self.rejected_at.is_some(),
            needs: Needs::of(&self.qualified_username(), &self.connection, self.secret_kind)
                .with_secret(&self.secret_identifier),
        }
    }

    /// User name with the domain before it, unless it holds one already.
    pub(crate) fn qualified_username(&self) -> String {
        if self.domain.is_empty() || self.username.contains(['\\', '@']) {
            self.username.clone()
        } else {
            format!("{}\\{}", self.domain, self.username)
        }
    }

    pub(super) fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        let connection: &[u8] = row.try_get("connection")?;
        Ok(Self {
            name: row.try_get("name")?,
            username: row.try_get("username")?,
            domain: row.try_get("domain")?,
            connection: ConnectionSettings::decode(connection)
                .map_err(|_| StoreError::Malformed("a credential's connection settings"))?,
            no_profile: row.try_get("no_profile")?,
            description: row.try_get("description")?,
            scope: row.try_get("scope")?,
            version: unsigned(row.try_get("version")?),
            secret_kind: i32::try_from(row.try_get::<i64, _>("secret_kind")?)
                .ok()
                .and_then(|kind| CredentialSecretKind::try_from(kind).ok())
                .ok_or(StoreError::Malformed("a credential's kind of secret"))?,
            agent_path: row.try_get("agent_path")?,
            secret: Encrypted {
                key_id: row.try_get("key_id")?,
                nonce: row.try_get("nonce")?,
                ciphertext: row.try_get("ciphertext")?,
            },
            secret_identifier: row.try_get("secret")?,
            created_at: UnixMillis(row.try_get("created_at")?),
            updated_at: UnixMillis(row.try_get("updated_at")?),
            rejected_at: millis(row.try_get("rejected_at")?),
            deleted_at: millis(row.try_get("deleted_at")?),
        })
    }
}

/// Finds a credential, a deleted one too.
pub(crate) async fn credential(
    writer: &mut SqliteConnection,
    name: &str,
) -> Result<Option<CredentialRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM credentials WHERE name = $1").bind(name).fetch_optional(writer).await?;
    row.as_ref().map(CredentialRecord::from_row).transpose()
}

/// The scope of a credential that is not deleted.
pub(crate) async fn scope(writer: &mut SqliteConnection, name: &str) -> Result<Option<String>, StoreError> {
    let scope = sqlx::query_scalar("SELECT scope FROM credentials WHERE name = $1 AND deleted_at IS NULL");
    Ok(scope.bind(name).fetch_optional(writer).await?)
}

/// Within the scope, by name, behind the one named, without deleted ones.
pub(crate) async fn credentials(
    readers: &SqlitePool,
    scope: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<CredentialRecord>, StoreError> {
    let statement = "SELECT * FROM credentials WHERE deleted_at IS NULL AND name > $1 \
         AND ($3 = '' OR scope = $3 OR substr(scope, 1, length($3) + 1) = $3 || '/') ORDER BY name LIMIT $2";
    page(readers, statement, scope, after, limit, CredentialRecord::from_row).await
}

/// What the ledger has to know of every credential that is not deleted, and which master key each was encrypted with.
pub(crate) async fn states(
    writer: &mut SqliteConnection,
) -> Result<Vec<(String, CredentialState, String)>, StoreError> {
    let rows = sqlx::query("SELECT * FROM credentials WHERE deleted_at IS NULL").fetch_all(writer).await?;
    rows.iter()
        .map(|row| {
            let record = CredentialRecord::from_row(row)?;
            Ok((record.name.clone(), record.state(), record.secret.key_id))
        })
        .collect()
}

/// Those that a secret proves the user of, without deleted ones.
pub(crate) async fn with_secret(
    writer: &mut SqliteConnection,
    identifier: &str,
) -> Result<Vec<CredentialRecord>, StoreError> {
    let rows = sqlx::query("SELECT * FROM credentials WHERE secret = $1 AND deleted_at IS NULL ORDER BY name")
        .bind(identifier)
        .fetch_all(writer)
        .await?;
    rows.iter().map(CredentialRecord::from_row).collect()
}

/// Those whose hosts' authority is in a secret, without deleted ones.
pub(crate) async fn with_authority(
    writer: &mut SqliteConnection,
    identifier: &str,
) -> Result<Vec<CredentialRecord>, StoreError> {
    // Whatever else has these bytes is left out once it is decoded.
    let rows = sqlx::query("SELECT * FROM credentials WHERE instr(connection, $1) > 0 AND deleted_at IS NULL")
        .bind(identifier.as_bytes())
        .fetch_all(writer)
        .await?;
    let mut records: Vec<_> = rows.iter().map(CredentialRecord::from_row).collect::<Result<_, _>>()?;
    records.retain(|record| record.connection.ca_secret == identifier);
    Ok(records)
}

/// Adds the credential or replaces its record.
pub(crate) async fn save_credential(
    writer: &mut SqliteConnection,
    record: &CredentialRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO credentials (name, username, domain, connection, no_profile, description, version, key_id, nonce, \
         ciphertext, created_at, updated_at, rejected_at, deleted_at, scope, secret_kind, agent_path, secret) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
         ON CONFLICT (name) DO UPDATE SET username = excluded.username, domain = excluded.domain, \
         connection = excluded.connection, no_profile = excluded.no_profile, description = excluded.description, \
         version = excluded.version, key_id = excluded.key_id, nonce = excluded.nonce, \
         ciphertext = excluded.ciphertext, created_at = excluded.created_at, updated_at = excluded.updated_at, \
         rejected_at = excluded.rejected_at, deleted_at = excluded.deleted_at, scope = excluded.scope, \
         secret_kind = excluded.secret_kind, agent_path = excluded.agent_path, secret = excluded.secret",
    )
    .bind(&record.name)
    .bind(&record.username)
    .bind(&record.domain)
    .bind(record.connection.encode_to_vec())
    .bind(record.no_profile)
    .bind(&record.description)
    .bind(signed(record.version))
    .bind(&record.secret.key_id)
    .bind(&record.secret.nonce)
    .bind(&record.secret.ciphertext)
    .bind(record.created_at.0)
    .bind(record.updated_at.0)
    .bind(record.rejected_at.map(|at| at.0))
    .bind(record.deleted_at.map(|at| at.0))
    .bind(&record.scope)
    .bind(i64::from(i32::from(record.secret_kind)))
    .bind(&record.agent_path)
    .bind(&record.secret_identifier)
    .execute(writer)
    .await?;
    Ok(())
}

/// Notes that a host rejected this version, unless it is noted already.
pub(crate) async fn mark_rejected(
    writer: &mut SqliteConnection,
    name: &str,
    version: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE credentials SET rejected_at = $3 WHERE name = $1 AND version = $2 AND rejected_at IS NULL \
         AND deleted_at IS NULL",
    )
    .bind(name)
    .bind(signed(version))
    .bind(now.0)
    .execute(writer)
    .await?;
    Ok(())
}

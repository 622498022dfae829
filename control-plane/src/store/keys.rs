//! Which master key what is under: counted, and brought from one to another. Nothing here encrypts.

use std::collections::BTreeMap;

use sqlx::{Row as _, SqliteConnection};

use super::credentials::CredentialRecord;
use super::{StoreError, signed, unsigned};
use crate::clock::UnixMillis;
use crate::vault::Encrypted;

/// What is under one master key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Credentials with a secret of their own.
    pub(crate) credentials: u64,
    /// Versions of secrets.
    pub(crate) secrets: u64,
}

/// The data key of one version of a secret, as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct WrappedKey {
    pub(crate) identifier: String,
    pub(crate) version: u64,
    pub(crate) key_id: String,
    pub(crate) wrapped_key: Vec<u8>,
}

/// What is under each master key, tasks left out.
pub(crate) async fn uses(writer: &mut SqliteConnection) -> Result<BTreeMap<String, Uses>, StoreError> {
    let mut uses: BTreeMap<String, Uses> = BTreeMap::new();
    let credentials = sqlx::query(
        "SELECT key_id, COUNT(*) AS count FROM credentials WHERE deleted_at IS NULL AND secret = '' GROUP BY key_id",
    );
    for row in credentials.fetch_all(&mut *writer).await? {
        uses.entry(row.try_get("key_id")?).or_default().credentials = unsigned(row.try_get("count")?);
    }
    let secrets = "SELECT key_id, COUNT(*) AS count FROM secret_versions WHERE key_id <> '' GROUP BY key_id";
    for row in sqlx::query(secrets).fetch_all(writer).await? {
        uses.entry(row.try_get("key_id")?).or_default().secrets = unsigned(row.try_get("count")?);
    }
    Ok(uses)
}

/// Whether tasks are kept that may hold something under the key: those that were submitted before it was replaced.
pub(crate) async fn holds_tasks(writer: &mut SqliteConnection, key_id: &str) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM master_keys k JOIN tasks t ON t.seq <= COALESCE(k.last_task, 9223372036854775807) \
         WHERE k.key_id = $1)",
    );
    Ok(found.bind(key_id).fetch_one(writer).await?)
}

/// How many such tasks there are, for each key that ever was current.
pub(crate) async fn tasks(writer: &mut SqliteConnection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut tasks = BTreeMap::new();
    let keys: Vec<(String, Option<i64>)> =
        sqlx::query_as("SELECT key_id, last_task FROM master_keys").fetch_all(&mut *writer).await?;
    for (key_id, last) in keys {
        // The plus keeps SQLite from reading whole records where an index has all that is asked for.
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM tasks WHERE +seq <= $1").bind(last.unwrap_or(i64::MAX));
        tasks.insert(key_id, unsigned(count.fetch_one(&mut *writer).await?));
    }
    Ok(tasks)
}

/// The key that was current when it was last noted.
pub(crate) async fn current(writer: &mut SqliteConnection) -> Result<Option<String>, StoreError> {
    let found = sqlx::query_scalar("SELECT key_id FROM master_keys WHERE replaced_at IS NULL");
    Ok(found.fetch_optional(writer).await?)
}

/// Notes that this key is current, and every other one replaced.
pub(crate) async fn make_current(
    writer: &mut SqliteConnection,
    key_id: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE master_keys SET replaced_at = $2, last_task = (SELECT COALESCE(MAX(seq), 0) FROM tasks) \
         WHERE replaced_at IS NULL AND key_id <> $1",
    )
    .bind(key_id)
    .bind(now.0)
    .execute(&mut *writer)
    .await?;
    sqlx::query(
        "INSERT INTO master_keys (key_id, first_used) VALUES ($1, $2) \
         ON CONFLICT (key_id) DO UPDATE SET replaced_at = NULL, last_task = NULL",
    )
    .bind(key_id)
    .bind(now.0)
    .execute(writer)
    .await?;
    Ok(())
}

/// Notes keys that tasks are under and that were in use before keys were noted. Reads every task, so it is for once.
pub(crate) async fn learn_from_tasks(writer: &mut SqliteConnection, now: UnixMillis) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO master_keys (key_id, first_used, last_task, replaced_at) \
         SELECT lower(hex(substr(spec, 1, 8))), 0, MAX(seq), $1 FROM tasks WHERE sealed GROUP BY 1 ON CONFLICT DO NOTHING",
    )
    .bind(now.0)
    .execute(writer)
    .await?;
    Ok(())
}

/// Some credentials whose own secret is under another key than this, by name, behind the one named.
pub(crate) async fn credentials_elsewhere(
    writer: &mut SqliteConnection,
    key_id: &str,
    after: &str,
) -> Result<Vec<CredentialRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM credentials WHERE deleted_at IS NULL AND secret = '' AND key_id <> $1 AND name > $2 \
         ORDER BY name LIMIT $3",
    );
    let rows = rows.bind(key_id).bind(after).bind(AT_ONCE).fetch_all(writer).await?;
    rows.iter().map(CredentialRecord::from_row).collect()
}

/// The same secret of the same version under another key.
pub(crate) async fn move_credential(
    writer: &mut SqliteConnection,
    name: &str,
    version: u64,
    secret: &Encrypted,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE credentials SET key_id = $3, nonce = $4, ciphertext = $5 WHERE name = $1 AND version = $2")
        .bind(name)
        .bind(signed(version))
        .bind(&secret.key_id)
        .bind(&secret.nonce)
        .bind(&secret.ciphertext)
        .execute(writer)
        .await?;
    Ok(())
}

/// Some data keys that are under another key than this, behind the version named.
pub(crate) async fn secrets_elsewhere(
    writer: &mut SqliteConnection,
    key_id: &str,
    after: (&str, u64),
) -> Result<Vec<WrappedKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT identifier, version, key_id, wrapped_key FROM secret_versions WHERE key_id <> '' AND key_id <> $1 \
         AND (identifier, version) > ($2, $3) ORDER BY identifier, version LIMIT $4",
    );
    let rows = rows.bind(key_id).bind(after.0).bind(signed(after.1)).bind(AT_ONCE).fetch_all(writer).await?;
    let wrapped = |row: &sqlx::sqlite::SqliteRow| {
        Ok(WrappedKey {
            identifier: row.try_get("identifier")?,
            version: unsigned(row.try_get("version")?),
            key_id: row.try_get("key_id")?,
            wrapped_key: row.try_get("wrapped_key")?,
        })
    };
    rows.iter().map(wrapped).collect()
}

/// The same data key under another key.
pub(crate) async fn move_secret(writer: &mut SqliteConnection, moved: &WrappedKey) -> Result<(), StoreError> {
    sqlx::query("UPDATE secret_versions SET key_id = $3, wrapped_key = $4 WHERE identifier = $1 AND version = $2")
        .bind(&moved.identifier)
        .bind(signed(moved.version))
        .bind(&moved.key_id)
        .bind(&moved.wrapped_key)
        .execute(writer)
        .await?;
    Ok(())
}

/// What one transaction moves: a turn with it takes some milliseconds.
const AT_ONCE: i64 = 64;

//! Records of secret managers. What they authenticate with they hold by reference only.

use lictor_proto::v1::SecretManager;
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{StoreError, millis, page, signed, unsigned};
use crate::clock::UnixMillis;

/// A secret manager as it is stored. The built-in ones have no record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ManagerRecord {
    /// Complete: identifier, scope, version and times stand in it.
    pub(crate) manager: SecretManager,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
    pub(crate) deleted_at: Option<UnixMillis>,
}

impl ManagerRecord {
    /// As users see it.
    pub(crate) fn view(&self) -> SecretManager {
        SecretManager {
            created_at: Some(self.created_at.timestamp()),
            updated_at: Some(self.updated_at.timestamp()),
            ..self.manager.clone()
        }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        let manager = SecretManager::decode(row.try_get::<&[u8], _>("manager")?)
            .map_err(|_| StoreError::Malformed("a secret manager"))?;
        let manager = SecretManager {
            identifier: row.try_get("identifier")?,
            scope: row.try_get("scope")?,
            version: unsigned(row.try_get("version")?),
            ..manager
        };
        Ok(Self {
            manager,
            created_at: UnixMillis(row.try_get("created_at")?),
            updated_at: UnixMillis(row.try_get("updated_at")?),
            deleted_at: millis(row.try_get("deleted_at")?),
        })
    }
}

/// Finds a secret manager, a deleted one too.
pub(crate) async fn manager(
    writer: &mut SqliteConnection,
    identifier: &str,
) -> Result<Option<ManagerRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM secret_managers WHERE identifier = $1");
    row.bind(identifier).fetch_optional(writer).await?.as_ref().map(ManagerRecord::from_row).transpose()
}

/// Every secret manager that is not deleted.
pub(crate) async fn all(writer: &mut SqliteConnection) -> Result<Vec<ManagerRecord>, StoreError> {
    let rows = sqlx::query("SELECT * FROM secret_managers WHERE deleted_at IS NULL ORDER BY identifier");
    rows.fetch_all(writer).await?.iter().map(ManagerRecord::from_row).collect()
}

/// Within the scope, by identifier, behind the one named, without deleted ones.
pub(crate) async fn managers(
    readers: &SqlitePool,
    scope: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<ManagerRecord>, StoreError> {
    let statement = "SELECT * FROM secret_managers WHERE deleted_at IS NULL AND identifier > $1 \
         AND ($3 = '' OR scope = $3 OR substr(scope, 1, length($3) + 1) = $3 || '/') ORDER BY identifier LIMIT $2";
    page(readers, statement, scope, after, limit, ManagerRecord::from_row).await
}

/// Adds the secret manager or replaces its record.
pub(crate) async fn save_manager(writer: &mut SqliteConnection, record: &ManagerRecord) -> Result<(), StoreError> {
    let manager = &record.manager;
    let rest = SecretManager {
        identifier: String::new(),
        scope: String::new(),
        version: 0,
        created_at: None,
        updated_at: None,
        ..manager.clone()
    };
    sqlx::query(
        "INSERT INTO secret_managers (identifier, scope, version, manager, created_at, updated_at, deleted_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (identifier) DO UPDATE SET scope = excluded.scope, \
         version = excluded.version, manager = excluded.manager, created_at = excluded.created_at, \
         updated_at = excluded.updated_at, deleted_at = excluded.deleted_at",
    )
    .bind(&manager.identifier)
    .bind(&manager.scope)
    .bind(signed(manager.version))
    .bind(rest.encode_to_vec())
    .bind(record.created_at.0)
    .bind(record.updated_at.0)
    .bind(record.deleted_at.map(|at| at.0))
    .execute(writer)
    .await?;
    Ok(())
}

/// How many there are, without deleted ones.
pub(crate) async fn count(writer: &mut SqliteConnection) -> Result<u64, StoreError> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM secret_managers WHERE deleted_at IS NULL");
    Ok(unsigned(count.fetch_one(writer).await?))
}

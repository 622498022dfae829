//! The database: an embedded SQLite file.
//!
//! One connection writes, and the engine owns it; everybody else reads through a small pool, which in WAL mode blocks
//! nobody. So no statement ever meets a locked database. Statements are portable to PostgreSQL except where a comment
//! says otherwise. Nothing here decides anything.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod batches;
pub(crate) mod credentials;
pub(crate) mod fleet;
pub(crate) mod keys;
pub(crate) mod late;
pub(crate) mod managers;
mod migrations;
pub(crate) mod retention;
pub(crate) mod secrets;
pub(crate) mod tasks;
mod upgrade;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqliteConnection, SqlitePool};

use crate::clock::UnixMillis;
use crate::vault::{TaskKeys, VaultError};

/// The one connection that writes, and what task data is encrypted with.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) connection: SqliteConnection,
    keys: TaskKeys,
}

/// Everybody else's connections. Cloneable.
#[derive(Debug, Clone)]
pub(crate) struct Readers {
    pool: SqlitePool,
    keys: TaskKeys,
}

impl Deref for Writer {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Deref for Readers {
    type Target = SqlitePool;

    fn deref(&self) -> &SqlitePool {
        &self.pool
    }
}

/// What went wrong in the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file could not be opened.
    #[error("failed to open the database {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    /// Its schema could not be brought up to date.
    #[error("failed to bring the database's schema up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A later version has changed its schema, and nothing changes it back.
    #[error(
        "the database was written by a later version of lictor-control-plane (its schema has step {0}): start that version, or \
         restore a backup from before the upgrade"
    )]
    Newer(i64),
    /// A statement failed.
    #[error("a database statement failed")]
    Statement(#[from] sqlx::Error),
    /// A record does not make sense.
    #[error("the database holds a malformed record: {0}")]
    Malformed(&'static str),
    /// What a task holds could not be encrypted or decrypted.
    #[error("the database holds something that cannot be used: {what}")]
    Sealed {
        what: &'static str,
        #[source]
        source: VaultError,
    },
}

impl StoreError {
    /// True when the disk, or a bound of the file, left no room. What was there before is whole.
    pub(crate) fn is_out_of_space(&self) -> bool {
        let Self::Statement(error) = self else { return false };
        // The disk is full, or would not take more of the file or of the index beside it.
        let codes = ["13", "778", "4874"];
        error.as_database_error().and_then(|error| error.code()).is_some_and(|code| codes.contains(&code.as_ref()))
    }
}

/// Opens the database in `state_dir`: the one writer, and the readers.
///
/// Whatever an older version stored in clear is encrypted first.
pub(crate) async fn open(state_dir: &Path, keys: &TaskKeys) -> Result<(Writer, Readers), StoreError> {
    let path = state_dir.join("control-plane.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was acknowledged must survive a power cut; the engine commits in groups, so this costs little.
        .synchronous(SqliteSynchronous::Full)
        .page_size(8192)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("secure_delete", "on")
        // After a burst, the write-ahead log gives its space back.
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging();
    let failed = |source| StoreError::Open { path: path.clone(), source };
    create_private(&path).map_err(|error| failed(sqlx::Error::Io(error)))?;
    // Space that was freed can be given back in steps. Takes effect when the file is made; readers must not ask for it.
    let writing = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
    let mut writer = writing.connect().await.map_err(failed)?;
    migrations::all().run(&mut writer).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(step) => StoreError::Newer(step),
        error => StoreError::Migrate(error),
    })?;
    let mut writer = Writer { connection: writer, keys: keys.clone() };
    upgrade::seal_plain_records(&mut writer).await?;
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(options.read_only(true).create_if_missing(false))
        .await
        .map_err(failed)?;
    Ok((writer, Readers { pool, keys: keys.clone() }))
}

/// Opens the database only to look at it, whether or not a control plane uses it.
pub(crate) async fn open_to_look(state_dir: &Path) -> Result<SqliteConnection, StoreError> {
    let path = state_dir.join("control-plane.db");
    let options = SqliteConnectOptions::new().filename(&path).read_only(true).busy_timeout(Duration::from_secs(10));
    options.disable_statement_logging().connect().await.map_err(|source| StoreError::Open { path, source })
}

/// The database names hosts and users; it is nobody else's business. SQLite gives the files beside it the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// Records of a list. In the statement $1 is the one to begin behind, $2 how many, and $3 the scope.
async fn page<T>(
    readers: &SqlitePool,
    statement: &'static str,
    scope: &str,
    after: &str,
    limit: u32,
    from_row: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let rows = sqlx::query(statement).bind(after).bind(i64::from(limit)).bind(scope).fetch_all(readers).await?;
    rows.iter().map(from_row).collect()
}

/// SQL has no unsigned integers.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(crate) fn millis(value: Option<i64>) -> Option<UnixMillis> {
    value.map(UnixMillis)
}

pub(crate) fn to_json(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

pub(crate) fn from_json(text: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Malformed("a list of texts"))
}

const READERS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Directory, Role, hash_token};

    /// Versions 3 and 5 were in use before version 4 was there.
    #[tokio::test]
    async fn a_database_of_before_there_were_batches_is_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let vault = crate::vault::Vault::open(&crate::config::MasterKeySource::StateDir, dir.path()).unwrap();
        let options = SqliteConnectOptions::new().filename(dir.path().join("control-plane.db")).create_if_missing(true);
        let mut before = options.journal_mode(SqliteJournalMode::Wal).connect().await.unwrap();
        let mut migrations = migrations::all();
        migrations.migrations.to_mut().retain(|migration| migration.version != 4);
        migrations.run(&mut before).await.unwrap();
        sqlx::query(
            "INSERT INTO tasks (task_id, spec, submitted_by, state, epoch, accepted, started, credential_version, \
             submitted_at, queued_at, output_bytes, output_base) VALUES ('t', x'', 'u', 1, 0, 0, 0, 0, 0, 0, 0, 0)",
        )
        .execute(&mut before)
        .await
        .unwrap();
        sqlx::Connection::close(before).await.unwrap();
        let (mut writer, readers) = open(dir.path(), vault.task_keys()).await.unwrap();
        assert!(batches::live(&mut writer).await.unwrap().is_empty());
        let live = tasks::live(&mut writer).await.unwrap();
        assert_eq!((live.len(), live[0].claim.batch.as_deref(), live[0].claim.retries_left), (1, None, 0));
        assert_eq!(tasks::view(&readers, "t").await.unwrap().unwrap().task.batch_id, "");
    }

    #[tokio::test]
    async fn a_database_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = crate::vault::Vault::open(&crate::config::MasterKeySource::StateDir, dir.path()).unwrap();
        let (mut writer, readers) = open(dir.path(), vault.task_keys()).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (999, 'of the future', 1, x'00', 0)",
        )
        .execute(&mut writer.connection)
        .await
        .unwrap();
        sqlx::Connection::close(writer.connection).await.unwrap();
        readers.close().await;
        let error = open(dir.path(), vault.task_keys()).await.err().unwrap();
        assert!(matches!(error, StoreError::Newer(999)), "{error:?}");
        assert!(error.to_string().contains("restore a backup"), "{error}");
    }

    #[tokio::test]
    async fn a_user_of_before_there_were_roles_may_do_everything_with_the_same_token() {
        let mut database = SqliteConnectOptions::new().in_memory(true).foreign_keys(true).connect().await.unwrap();
        let migrations = migrations::all();
        for migration in migrations.iter().filter(|migration| migration.version < 3) {
            sqlx::raw_sql(migration.sql.clone()).execute(&mut database).await.unwrap();
        }
        sqlx::query("INSERT INTO users (name, token_hash, created_at) VALUES ('admin', $1, 7)")
            .bind(&hash_token("lictor-user.old")[..])
            .execute(&mut database)
            .await
            .unwrap();
        for migration in migrations.iter().filter(|migration| migration.version >= 3) {
            sqlx::raw_sql(migration.sql.clone()).execute(&mut database).await.unwrap();
        }
        let (users, tokens) = access::all(&mut database).await.unwrap();
        let caller = Directory::new(&users, tokens).sign_in("lictor-user.old", "", UnixMillis(8)).unwrap();
        assert_eq!((caller.user.as_str(), caller.role, caller.scope.as_str()), ("admin", Role::Admin, ""));
    }
}

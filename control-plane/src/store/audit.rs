//! The audit log's lines. They are added and read; the database itself refuses everything else.

use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{StoreError, signed, unsigned};
use crate::clock::UnixMillis;

/// A line with its number.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) seq: u64,
    pub(crate) text: String,
}

/// The last line.
pub(crate) async fn last(writer: &mut SqliteConnection) -> Result<Option<Line>, StoreError> {
    let row = sqlx::query("SELECT seq, line FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(writer).await?;
    row.map(|row| Ok(Line { seq: unsigned(row.try_get("seq")?), text: row.try_get("line")? })).transpose()
}

pub(crate) async fn append(
    writer: &mut SqliteConnection,
    seq: u64,
    at: UnixMillis,
    line: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit (seq, at, line) VALUES ($1, $2, $3)")
        .bind(signed(seq))
        .bind(at.0)
        .bind(line)
        .execute(writer)
        .await?;
    Ok(())
}

/// Lines behind the number, from one time to before another.
pub(crate) async fn lines(
    readers: &SqlitePool,
    behind: u64,
    from: Option<UnixMillis>,
    to: Option<UnixMillis>,
) -> Result<Vec<Line>, StoreError> {
    let rows =
        sqlx::query("SELECT seq, line FROM audit WHERE seq > $1 AND at >= $2 AND at < $3 ORDER BY seq LIMIT 500")
            .bind(signed(behind))
            .bind(from.map_or(i64::MIN, |at| at.0))
            .bind(to.map_or(i64::MAX, |at| at.0))
            .fetch_all(readers)
            .await?;
    rows.iter().map(|row| Ok(Line { seq: unsigned(row.try_get("seq")?), text: row.try_get("line")? })).collect()
}

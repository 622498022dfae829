//! Removal of what is kept long enough, in steps that are small enough to stand beside heartbeats in one transaction.
//!
//! Only finished tasks lose anything. A task's output goes from its beginning on, and its record says how much is gone;
//! the record itself, with assignments, late results and its idempotency key, goes last.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::{StoreError, Writer, signed, unsigned};
use crate::clock::UnixMillis;

/// What one step removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RemovedOutput {
    pub(crate) task_id: String,
    pub(crate) bytes: u64,
}

/// Bytes of output that are kept, over all tasks.
pub(crate) async fn kept_output(writer: &mut Writer) -> Result<u64, StoreError> {
    let bytes: i64 = sqlx::query_scalar("SELECT COALESCE(SUM(output_bytes - output_removed), 0) FROM tasks")
        .fetch_one(&mut **writer)
        .await?;
    Ok(unsigned(bytes))
}

/// Removes some output of the task that finished first, if it finished before `before`. Nothing when there is none.
pub(crate) async fn remove_output(
    writer: &mut Writer,
    before: UnixMillis,
    now: UnixMillis,
) -> Result<Option<RemovedOutput>, StoreError> {
    let task = sqlx::query(
        "SELECT seq, task_id, output_bytes, output_removed FROM tasks \
         WHERE finished_at IS NOT NULL AND output_removed < output_bytes AND finished_at < $1 \
         ORDER BY finished_at LIMIT 1",
    )
    .bind(before.0)
    .fetch_optional(&mut **writer)
    .await?;
    let Some(task) = task else { return Ok(None) };
    let seq: i64 = task.try_get("seq")?;
    let rest: Option<i64> =
        sqlx::query_scalar("SELECT start FROM output WHERE task_seq = $1 ORDER BY start LIMIT 1 OFFSET $2")
            .bind(seq)
            .bind(ROWS_PER_STEP)
            .fetch_optional(&mut **writer)
            .await?;
    let removed: i64 = task.try_get("output_removed")?;
    let end: i64 = match rest {
        Some(rest) => rest,
        None => task.try_get("output_bytes")?,
    };
    sqlx::query("DELETE FROM output WHERE task_seq = $1 AND start < $2")
        .bind(seq)
        .bind(end)
        .execute(&mut **writer)
        .await?;
    sqlx::query("UPDATE tasks SET output_removed = $2, output_removed_at = $3 WHERE seq = $1")
        .bind(seq)
        .bind(end)
        .bind(now.0)
        .execute(&mut **writer)
        .await?;
    Ok(Some(RemovedOutput { task_id: task.try_get("task_id")?, bytes: unsigned(end.saturating_sub(removed)) }))
}

/// Removes some tasks that finished before `before` and have no output left. How many.
pub(crate) async fn remove_tasks(writer: &mut Writer, before: UnixMillis) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, task_id, batch_id FROM tasks WHERE finished_at IS NOT NULL AND finished_at < $1 \
         AND output_removed >= output_bytes ORDER BY finished_at LIMIT $2",
    )
    .bind(before.0)
    .bind(TASKS_PER_STEP)
    .fetch_all(&mut **writer)
    .await?;
    let mut batches = BTreeSet::new();
    for row in &rows {
        let task_id: &str = row.try_get("task_id")?;
        for statement in [
            "DELETE FROM late_results WHERE task_id = $1",
            "DELETE FROM assignments WHERE task_id = $1",
            "DELETE FROM tasks WHERE task_id = $1",
        ] {
            sqlx::query(statement).bind(task_id).execute(&mut **writer).await?;
        }
        batches.extend(row.try_get::<Option<&str>, _>("batch_id")?);
    }
    // A batch goes with the last of its tasks.
    for batch_id in batches {
        sqlx::query(
            "DELETE FROM batches WHERE batch_id = $1 AND finished_at IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.batch_id = $1)",
        )
        .bind(batch_id)
        .execute(&mut **writer)
        .await?;
    }
    Ok(rows.len() as u64)
}

/// Gives some free space of the file back to the file system, when there is more than is worth keeping for what comes.
/// True when it did. Files made by versions without retention keep their space and use it again.
pub(crate) async fn give_back_space(writer: &mut Writer) -> Result<bool, StoreError> {
    let mut pragma = async |name: &'static str| -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(name).fetch_one(&mut writer.connection).await?)
    };
    let incremental = pragma("PRAGMA auto_vacuum").await? == 2;
    let (free, all) = (pragma("PRAGMA freelist_count").await?, pragma("PRAGMA page_count").await?);
    if !incremental || free <= SPARE_PAGES || free <= all / 8 {
        return Ok(false);
    }
    sqlx::query("PRAGMA incremental_vacuum(512)").execute(&mut **writer).await?;
    Ok(true)
}

/// How large the file is.
pub(crate) async fn database_bytes(writer: &mut Writer) -> Result<u64, StoreError> {
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut **writer).await?;
    let size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut **writer).await?;
    Ok(unsigned(pages.saturating_mul(size)))
}

/// How far the calendar had come when it was last written.
pub(crate) async fn calendar(writer: &mut Writer) -> Result<Option<UnixMillis>, StoreError> {
    let stored: Option<i64> =
        sqlx::query_scalar("SELECT calendar FROM housekeeping").fetch_optional(&mut **writer).await?;
    Ok(stored.filter(|at| *at > 0).map(UnixMillis))
}

pub(crate) async fn save_calendar(writer: &mut Writer, at: UnixMillis) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO housekeeping (id, calendar) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET calendar = excluded.calendar",
    )
    .bind(at.0)
    .execute(&mut **writer)
    .await?;
    Ok(())
}

/// Finds out whether there is room to work with: takes some, and gives it up again.
pub(crate) async fn try_room(writer: &mut Writer) -> Result<(), StoreError> {
    for bytes in [signed(ROOM), 0] {
        sqlx::query(
            "INSERT INTO housekeeping (id, calendar, ballast) VALUES (1, 0, zeroblob($1)) \
             ON CONFLICT (id) DO UPDATE SET ballast = excluded.ballast",
        )
        .bind(bytes)
        .execute(&mut **writer)
        .await?;
    }
    Ok(())
}

/// Up to 8 MiB, as rows hold up to one chunk.
const ROWS_PER_STEP: i64 = 32;
const TASKS_PER_STEP: i64 = 64;
/// 64 MiB.
const SPARE_PAGES: i64 = 8192;
/// Enough for a turn of the engine without output.
const ROOM: u64 = 4 << 20;

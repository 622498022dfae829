//! Records of batches. Their tasks are records like all others.

use std::sync::Arc;

use lictor_proto::v1::{Batch, BatchProgress, BatchStop, batch};
use prost::Message as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::tasks::{NewTask, TaskView, decode};
use super::{Readers, StoreError, Writer, millis, tasks};
use crate::clock::UnixMillis;
use crate::dispatch::{BatchEntry, BatchRecord, LiveTask, Stop, Threshold};

/// A batch about to be stored for the first time.
#[derive(Debug)]
pub(crate) struct NewBatch {
    pub(crate) batch_id: Arc<str>,
    pub(crate) submitted_by: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) label: String,
    pub(crate) credential: String,
    pub(crate) scope: String,
    pub(crate) concurrency: u32,
    pub(crate) threshold: Option<Threshold>,
    pub(crate) retries: u32,
    pub(crate) tasks: Vec<NewTask>,
}

/// Stores a new batch with its tasks.
pub(crate) async fn add(
    writer: &mut Writer,
    new: NewBatch,
    now: UnixMillis,
) -> Result<(BatchEntry, Vec<LiveTask>), StoreError> {
    let total = u32::try_from(new.tasks.len()).unwrap_or(u32::MAX);
    let progress = BatchProgress { total, waiting: total, ..BatchProgress::default() };
    let (count, percent) = match new.threshold {
        Some(Threshold::Count(most)) => (Some(i64::from(most)), None),
        Some(Threshold::Percent(most)) => (None, Some(i64::from(most))),
        None => (None, None),
    };
    sqlx::query(
        "INSERT INTO batches (batch_id, submitted_by, idempotency_key, label, credential, scope, concurrency, \
         max_failures, max_failures_percent, retries, submitted_at, progress) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&*new.batch_id)
    .bind(&new.submitted_by)
    .bind(&new.idempotency_key)
    .bind(&new.label)
    .bind(&new.credential)
    .bind(&new.scope)
    .bind(i64::from(new.concurrency))
    .bind(count)
    .bind(percent)
    .bind(i64::from(new.retries))
    .bind(now.0)
    .bind(progress.encode_to_vec())
    .execute(&mut **writer)
    .await?;
    let live = tasks::add(writer, new.tasks, now).await?;
    let entry = BatchEntry {
        batch_id: new.batch_id,
        concurrency: new.concurrency,
        threshold: new.threshold,
        stop: None,
        progress,
        paused: Default::default(),
    };
    Ok((entry, live))
}

pub(crate) async fn find_by_key(writer: &mut Writer, user: &str, key: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT batch_id FROM batches WHERE submitted_by = $1 AND idempotency_key = $2")
        .bind(user)
        .bind(key)
        .fetch_optional(&mut **writer)
        .await?)
}

/// Replaces what changes in a batch's record.
pub(crate) async fn save(writer: &mut Writer, record: &BatchRecord, now: UnixMillis) -> Result<(), StoreError> {
    let stop = record.stop.as_ref();
    sqlx::query(
        "UPDATE batches SET progress = $2, stop_code = $3, stop_message = $4, stopped_at = $5, finished_at = $6 \
         WHERE batch_id = $1",
    )
    .bind(&*record.batch_id)
    .bind(record.progress.encode_to_vec())
    .bind(stop.map(|stop| stop.code.as_str()))
    .bind(stop.map(|stop| stop.message.as_str()))
    .bind(stop.map(|stop| stop.at.0))
    .bind(record.finished.then_some(now.0))
    .execute(&mut **writer)
    .await?;
    Ok(())
}

/// Every batch that is not finished.
pub(crate) async fn live(writer: &mut Writer) -> Result<Vec<BatchEntry>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM batches WHERE finished_at IS NULL ORDER BY seq").fetch_all(&mut **writer).await?;
    rows.iter()
        .map(|row| {
            Ok(BatchEntry {
                batch_id: Arc::from(row.try_get::<&str, _>("batch_id")?),
                concurrency: number(row, "concurrency")?,
                threshold: threshold(row)?,
                stop: stop(row)?,
                progress: decode(row.try_get("progress")?, "a batch's counts")?,
                paused: Default::default(),
            })
        })
        .collect()
}

/// A batch as users see it, with its place in the order of submission.
#[derive(Debug, Clone)]
pub(crate) struct BatchView {
    pub(crate) seq: i64,
    pub(crate) batch: Batch,
}

pub(crate) async fn view(readers: &Readers, batch_id: &str) -> Result<Option<BatchView>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM batches WHERE batch_id = $1").bind(batch_id).fetch_optional(&readers.pool).await?;
    row.as_ref().map(view_from_row).transpose()
}

/// Batches within the scope, older than `before`, newest first.
pub(crate) async fn list(
    readers: &Readers,
    scope: &str,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<BatchView>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM batches WHERE seq < $1 \
         AND ($3 = '' OR scope = $3 OR substr(scope, 1, length($3) + 1) = $3 || '/') ORDER BY seq DESC LIMIT $2",
    )
    .bind(before.unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .bind(scope)
    .fetch_all(&readers.pool)
    .await?;
    rows.iter().map(view_from_row).collect()
}

/// Some of the tasks of a batch that have ended, in the order of their ends, behind the first `after`; each with its
/// number and without its kind.
pub(crate) async fn ended(readers: &Readers, batch_id: &str, after: u32) -> Result<Vec<(u32, TaskView)>, StoreError> {
    let mut ended = tasks::ended_of_batch(readers, batch_id, after).await?;
    for (_, view) in &mut ended {
        if let Some(spec) = &mut view.task.spec {
            spec.kind = None;
        }
    }
    Ok(ended)
}

fn view_from_row(row: &SqliteRow) -> Result<BatchView, StoreError> {
    let time = |column: &str| -> Result<_, StoreError> { Ok(millis(row.try_get(column)?).map(UnixMillis::timestamp)) };
    let failure_threshold = threshold(row)?.map(|threshold| match threshold {
        Threshold::Count(most) => batch::FailureThreshold::MaxFailures(most),
        Threshold::Percent(most) => batch::FailureThreshold::MaxFailuresPercent(most),
    });
    let stop = stop(row)?.map(|stop| BatchStop {
        code: stop.code,
        message: stop.message,
        stopped_at: Some(stop.at.timestamp()),
    });
    let batch = Batch {
        batch_id: row.try_get("batch_id")?,
        submitted_by: row.try_get("submitted_by")?,
        submitted_at: time("submitted_at")?,
        finished_at: time("finished_at")?,
        label: row.try_get("label")?,
        credential: row.try_get("credential")?,
        scope: row.try_get("scope")?,
        concurrency: number(row, "concurrency")?,
        retries: number(row, "retries")?,
        progress: Some(decode(row.try_get("progress")?, "a batch's counts")?),
        stop,
        failure_threshold,
    };
    Ok(BatchView { seq: row.try_get("seq")?, batch })
}

fn threshold(row: &SqliteRow) -> Result<Option<Threshold>, StoreError> {
    let bounded = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let count: Option<i64> = row.try_get("max_failures")?;
    let percent: Option<i64> = row.try_get("max_failures_percent")?;
    Ok(count.map(|most| Threshold::Count(bounded(most))).or(percent.map(|most| Threshold::Percent(bounded(most)))))
}

fn stop(row: &SqliteRow) -> Result<Option<Stop>, StoreError> {
    let Some(code) = row.try_get("stop_code")? else { return Ok(None) };
    let message: Option<String> = row.try_get("stop_message")?;
    let at: Option<i64> = row.try_get("stopped_at")?;
    Ok(Some(Stop { code, message: message.unwrap_or_default(), at: UnixMillis(at.unwrap_or_default()) }))
}

fn number(row: &SqliteRow, column: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

//! Results that came too late: kept as evidence beside what was decided without them.

use lictor_proto::v1::LateResult;
use sqlx::Row as _;

use super::tasks::opened;
use super::{Readers, StoreError, unsigned};
use crate::clock::UnixMillis;
use crate::vault::Place;

/// Those of one task, oldest first.
pub(crate) async fn late_results(readers: &Readers, task_id: &str) -> Result<Vec<LateResult>, StoreError> {
    let rows = sqlx::query(
        "SELECT l.epoch, l.agent_id, l.received_at, l.result, a.name FROM late_results l \
         LEFT JOIN agents a ON a.agent_id = l.agent_id WHERE l.task_id = $1 ORDER BY l.received_at, l.epoch LIMIT $2",
    )
    .bind(task_id)
    .bind(MOST)
    .fetch_all(&readers.pool)
    .await?;
    let mut results = Vec::new();
    for row in rows {
        let epoch = unsigned(row.try_get("epoch")?);
        let place = Place::LateResult { epoch };
        results.push(LateResult {
            epoch,
            agent_id: row.try_get("agent_id")?,
            agent_name: row.try_get::<Option<String>, _>("name")?.unwrap_or_default(),
            received_at: Some(UnixMillis(row.try_get("received_at")?).timestamp()),
            result: Some(opened(&readers.keys, task_id, place, row.try_get("result")?)?),
        });
    }
    Ok(results)
}

/// A result has 256 KiB at most, and all must fit into one message beside the task.
const MOST: i64 = 20;

//! Records of tasks, assignments, results and output.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lictor_proto::MAX_OUTPUT_CHUNK_BYTES;
use lictor_proto::v1::{Candidate, OutputChunk, Task, TaskResult, TaskSpec, TaskState};
use prost::Message as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite};

use super::{Readers, StoreError, Writer, millis, signed, unsigned};
use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::dispatch::{Append, Claim, Evidence, Finished, HeldFact, LiveTask, Phase, Route, host_key};
use crate::failure;
use crate::vault::{Place, TaskKeys, VaultError};

/// A task about to be stored for the first time.
#[derive(Debug, Clone)]
pub(crate) struct NewTask {
    pub(crate) task_id: String,
    /// Checked, with every default filled in.
    pub(crate) spec: TaskSpec,
    /// How long it may wait for an agent.
    pub(crate) queue_timeout: Duration,
    pub(crate) submitted_by: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) batch: Option<Arc<str>>,
    pub(crate) retries: u32,
    /// W3C Trace Context of its submission, when it is traced.
    pub(crate) traceparent: Option<String>,
}

/// What was submitted, and in which trace.
pub(crate) struct Submitted {
    pub(crate) spec: TaskSpec,
    pub(crate) traceparent: Option<String>,
}

/// Stores new tasks, waiting. They come back in the same order.
pub(crate) async fn add(
    writer: &mut Writer,
    tasks: Vec<NewTask>,
    now: UnixMillis,
) -> Result<Vec<LiveTask>, StoreError> {
    let mut added = Vec::with_capacity(tasks.len());
    for some in tasks.chunks(ROWS_PER_INSERT) {
        let specs = some.iter().map(|task| {
            let plain = Zeroizing::new(task.spec.encode_to_vec());
            sealed(&writer.keys, &task.task_id, Place::Spec, &plain)
        });
        let specs = specs.collect::<Result<Vec<_>, _>>()?;
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(
            "INSERT INTO tasks (task_id, spec, submitted_by, idempotency_key, state, epoch, accepted, started, \
             credential_version, submitted_at, queued_at, output_bytes, output_base, batch_id, retries_left, \
             sealed, scope, traceparent) ",
        );
        query.push_values(some.iter().zip(specs), |mut row, (task, spec)| {
            row.push_bind(&task.task_id)
                .push_bind(spec)
                .push_bind(&task.submitted_by)
                .push_bind(&task.idempotency_key)
                .push_bind(i32::from(TaskState::Queued))
                .push("0, FALSE, FALSE, 0")
                .push_bind(now.0)
                .push_bind(now.0)
                .push("0, 0")
                .push_bind(task.batch.as_deref())
                .push_bind(i64::from(task.retries))
                .push("TRUE")
                .push_bind(task.spec.selector.as_ref().map_or("", |selector| selector.scope.as_str()))
                .push_bind(&task.traceparent);
        });
        query.push(" RETURNING task_id, seq");
        let rows = query.build().fetch_all(&mut **writer).await?;
        // The order of what is returned is nobody's promise.
        let mut seqs = HashMap::with_capacity(rows.len());
        for row in &rows {
            seqs.insert(row.try_get::<&str, _>("task_id")?, row.try_get::<i64, _>("seq")?);
        }
        for task in some {
            let seq = seqs.get(task.task_id.as_str()).copied();
            added.push(new_live(task, seq.ok_or(StoreError::Malformed("a new task without a row"))?, now));
        }
    }
    Ok(added)
}

fn new_live(task: &NewTask, seq: i64, now: UnixMillis) -> LiveTask {
    LiveTask {
        seq,
        task_id: task.task_id.clone(),
        route: Route::of(&task.spec),
        credential: task.spec.credential.clone(),
        idempotent: task.spec.idempotent,
        queue_timeout: task.queue_timeout,
        phase: Phase::Queued,
        epoch: 0,
        agent_id: None,
        accepted: false,
        started: false,
        may_have_run: false,
        credential_version: 0,
        queued_at: now,
        assigned_at: None,
        started_at: None,
        cancel: None,
        output_bytes: 0,
        output_base: 0,
        received: 0,
        handed_back: Default::default(),
        hitch: None,
        passed: 0,
        unsent: false,
        deadline: None,
        claim: Claim {
            submitter: task.submitted_by.as_str().into(),
            host: host_key(task.spec.target.as_ref()).into(),
            batch: task.batch.clone(),
            batch_ended: None,
            retries_left: task.retries,
            retry_at: None,
            last_result: None,
        },
    }
}

pub(crate) async fn find_by_key(writer: &mut Writer, user: &str, key: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT task_id FROM tasks WHERE submitted_by = $1 AND idempotency_key = $2")
        .bind(user)
        .bind(key)
        .fetch_optional(&mut **writer)
        .await?)
}

pub(crate) async fn submitted(writer: &mut Writer, task_id: &str) -> Result<Option<Submitted>, StoreError> {
    let row = sqlx::query("SELECT spec, traceparent FROM tasks WHERE task_id = $1")
        .bind(task_id)
        .fetch_optional(&mut **writer)
        .await?;
    let submitted = |row: SqliteRow| {
        let spec = opened::<TaskSpec>(&writer.keys, task_id, Place::Spec, row.try_get("spec")?)?;
        Ok(Submitted { spec, traceparent: row.try_get("traceparent")? })
    };
    row.map(submitted).transpose()
}

/// Every task that is not final.
pub(crate) async fn live(writer: &mut Writer) -> Result<Vec<LiveTask>, StoreError> {
    use futures::TryStreamExt as _;
    let mut rows = sqlx::query("SELECT * FROM tasks WHERE state IN ($1, $2, $3, $4) ORDER BY seq")
        .bind(i32::from(TaskState::Queued))
        .bind(i32::from(TaskState::Assigned))
        .bind(i32::from(TaskState::Running))
        .bind(i32::from(TaskState::Lost))
        .fetch(&mut writer.connection);
    let mut tasks = Vec::new();
    while let Some(row) = rows.try_next().await? {
        tasks.push(live_from_row(&writer.keys, &row)?);
    }
    Ok(tasks)
}

fn live_from_row(keys: &TaskKeys, row: &SqliteRow) -> Result<LiveTask, StoreError> {
    let spec: TaskSpec = opened(keys, row.try_get("task_id")?, Place::Spec, row.try_get("spec")?)?;
    let state: i32 = row.try_get("state")?;
    let phase = match TaskState::try_from(state) {
        Ok(TaskState::Queued) => Phase::Queued,
        Ok(TaskState::Lost) => Phase::Lost,
        _ => Phase::Held,
    };
    let handed_back: Option<&[u8]> = row.try_get("handed_back")?;
    let last_result: Option<&[u8]> = row.try_get("last_result")?;
    let claim = Claim {
        submitter: row.try_get::<&str, _>("submitted_by")?.into(),
        host: host_key(spec.target.as_ref()).into(),
        batch: row.try_get::<Option<&str>, _>("batch_id")?.map(Arc::from),
        batch_ended: None,
        retries_left: u32::try_from(row.try_get::<i64, _>("retries_left")?).unwrap_or_default(),
        retry_at: millis(row.try_get("retry_at")?),
        last_result: last_result
            .map(|blob| opened(keys, row.try_get("task_id")?, Place::LastResult, blob))
            .transpose()?
            .map(Box::new),
    };
    Ok(LiveTask {
        seq: row.try_get("seq")?,
        task_id: row.try_get("task_id")?,
        route: Route::of(&spec),
        credential: spec.credential,
        idempotent: spec.idempotent,
        queue_timeout: spec.queue_timeout.and_then(|wait| wait.try_into().ok()).unwrap_or_default(),
        phase,
        epoch: unsigned(row.try_get("epoch")?),
        agent_id: row.try_get("agent_id")?,
        accepted: row.try_get("accepted")?,
        started: row.try_get("started")?,
        may_have_run: row.try_get("may_have_run")?,
        credential_version: unsigned(row.try_get("credential_version")?),
        queued_at: UnixMillis(row.try_get("queued_at")?),
        assigned_at: millis(row.try_get("assigned_at")?),
        started_at: millis(row.try_get("started_at")?),
        cancel: row.try_get("cancel_reason")?,
        output_bytes: unsigned(row.try_get("output_bytes")?),
        output_base: unsigned(row.try_get("output_base")?),
        received: 0,
        handed_back: decode_candidates(handed_back)?.into_iter().map(|c| (c.agent_id, c.reason)).collect(),
        // Whatever it was, it may be over.
        hitch: None,
        passed: unsigned(row.try_get("passed")?),
        unsent: false,
        deadline: None,
        claim,
    })
}

/// Replaces what changes in a live task's record.
pub(crate) async fn save(writer: &mut Writer, task: &LiveTask) -> Result<(), StoreError> {
    update(writer, task, task.state(), None).await
}

/// Records that a task became final.
pub(crate) async fn finish(writer: &mut Writer, finished: &Finished) -> Result<(), StoreError> {
    let state = finished.result.outcome();
    update(writer, &finished.task, state, Some(finished)).await?;
    if finished.reported {
        result_stored(writer, &finished.task.task_id, finished.task.epoch).await?;
    }
    Ok(())
}

async fn update(
    writer: &mut Writer,
    task: &LiveTask,
    state: TaskState,
    finished: Option<&Finished>,
) -> Result<(), StoreError> {
    let handed_back: Vec<Candidate> = task
        .handed_back
        .iter()
        .map(|(agent_id, reason)| Candidate {
            agent_id: agent_id.clone(),
            reason: reason.clone(),
            ..Candidate::default()
        })
        .collect();
    let result = match finished {
        Some(finished) => {
            let plain = Zeroizing::new(finished.result.encode_to_vec());
            Some(sealed(&writer.keys, &task.task_id, Place::Result, &plain)?)
        }
        None => None,
    };
    let last_result = match &task.claim.last_result {
        Some(result) => {
            let plain = Zeroizing::new(result.encode_to_vec());
            Some(sealed(&writer.keys, &task.task_id, Place::LastResult, &plain)?)
        }
        None => None,
    };
    sqlx::query(
        "UPDATE tasks SET state = $2, epoch = $3, agent_id = $4, accepted = $5, started = $6, credential_version = $7, \
         queued_at = $8, assigned_at = $9, started_at = $10, finished_at = $11, cancel_reason = $12, \
         output_bytes = $13, output_base = $14, handed_back = $15, candidates = $16, result = $17, \
         may_have_run = $18, batch_ended = $19, retries_left = $20, retry_at = $21, last_result = $22, \
         passed = $23 WHERE seq = $1",
    )
    .bind(task.seq)
    .bind(i32::from(state))
    .bind(signed(task.epoch))
    .bind(&task.agent_id)
    .bind(task.accepted)
    .bind(task.started)
    .bind(signed(task.credential_version))
    .bind(task.queued_at.0)
    .bind(task.assigned_at.map(|at| at.0))
    .bind(task.started_at.map(|at| at.0))
    .bind(finished.map(|finished| finished.at.0))
    .bind(&task.cancel)
    .bind(signed(task.output_bytes))
    .bind(signed(task.output_base))
    .bind(encode_candidates(&handed_back))
    .bind(finished.and_then(|finished| encode_candidates(&finished.candidates)))
    .bind(result)
    .bind(task.may_have_run)
    .bind(task.claim.batch_ended.map(i64::from))
    .bind(i64::from(task.claim.retries_left))
    .bind(task.claim.retry_at.map(|at| at.0))
    .bind(last_result)
    .bind(signed(task.passed))
    .execute(&mut **writer)
    .await?;
    Ok(())
}

/// What is kept of an assignment.
#[derive(Debug)]
pub(crate) struct Assigned<'a> {
    pub(crate) task_id: &'a str,
    pub(crate) epoch: u64,
    pub(crate) agent_id: &'a str,
    pub(crate) credential_version: u64,
    /// Identifiers and versions.
    pub(crate) shell_secrets: Vec<(&'a str, u64)>,
}

/// Records an assignment.
pub(crate) async fn add_assignment(
    writer: &mut Writer,
    assigned: &Assigned<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Assigned { task_id, epoch, agent_id, credential_version, shell_secrets } = assigned;
    sqlx::query(
        "INSERT INTO assignments (task_id, epoch, agent_id, credential_version, assigned_at, result_stored, \
         shell_secrets) VALUES ($1, $2, $3, $4, $5, FALSE, $6)",
    )
    .bind(*task_id)
    .bind(signed(*epoch))
    .bind(*agent_id)
    .bind(signed(*credential_version))
    .bind(now.0)
    .bind(serde_json::json!(shell_secrets).to_string())
    .execute(&mut **writer)
    .await?;
    Ok(())
}

/// The secrets that an assignment carried for variables of its shell, and their versions. Values are none of it.
pub(crate) async fn shell_secrets(
    writer: &mut Writer,
    task_id: &str,
    epoch: u64,
) -> Result<Vec<(String, u64)>, StoreError> {
    let stored: Option<String> =
        sqlx::query_scalar("SELECT shell_secrets FROM assignments WHERE task_id = $1 AND epoch = $2")
            .bind(task_id)
            .bind(signed(epoch))
            .fetch_optional(&mut **writer)
            .await?;
    let Some(stored) = stored else { return Ok(Vec::new()) };
    serde_json::from_str(&stored).map_err(|_| StoreError::Malformed("the secrets of an assignment"))
}

pub(crate) async fn result_stored(writer: &mut Writer, task_id: &str, epoch: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE assignments SET result_stored = TRUE WHERE task_id = $1 AND epoch = $2")
        .bind(task_id)
        .bind(signed(epoch))
        .execute(&mut **writer)
        .await?;
    Ok(())
}

/// What is known of an assignment of this agent; nothing when it never had it.
pub(crate) async fn held_fact(
    writer: &mut Writer,
    agent_id: &str,
    task_id: &str,
    epoch: u64,
) -> Result<Option<HeldFact>, StoreError> {
    let stored: Option<bool> =
        sqlx::query_scalar("SELECT result_stored FROM assignments WHERE task_id = $1 AND epoch = $2 AND agent_id = $3")
            .bind(task_id)
            .bind(signed(epoch))
            .bind(agent_id)
            .fetch_optional(&mut **writer)
            .await?;
    Ok(stored.map(|stored| if stored { HeldFact::ResultStored } else { HeldFact::NoResult }))
}

/// The credential that an assignment carried, and its version.
pub(crate) async fn assigned_credential(
    writer: &mut Writer,
    task_id: &str,
    epoch: u64,
) -> Result<Option<(String, u64)>, StoreError> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT credential_version FROM assignments WHERE task_id = $1 AND epoch = $2")
            .bind(task_id)
            .bind(signed(epoch))
            .fetch_optional(&mut **writer)
            .await?;
    let spec = submitted(writer, task_id).await?.map(|submitted| submitted.spec);
    Ok(spec.zip(version).map(|(spec, version)| (spec.credential, unsigned(version))))
}

/// Keeps a result that came too late, once, if the agent had the assignment. False when it was kept before or is
/// nobody's.
pub(crate) async fn add_evidence(writer: &mut Writer, evidence: &Evidence) -> Result<bool, StoreError> {
    let fact = held_fact(writer, &evidence.agent_id, &evidence.task.task_id, evidence.task.epoch).await?;
    if fact != Some(HeldFact::NoResult) {
        return Ok(false);
    }
    let (task_id, epoch) = (&evidence.task.task_id, evidence.task.epoch);
    let plain = Zeroizing::new(evidence.result.encode_to_vec());
    let result = sealed(&writer.keys, task_id, Place::LateResult { epoch }, &plain)?;
    sqlx::query(
        "INSERT INTO late_results (task_id, epoch, agent_id, received_at, result) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (task_id, epoch) DO NOTHING",
    )
    .bind(task_id)
    .bind(signed(epoch))
    .bind(&evidence.agent_id)
    .bind(evidence.at.0)
    .bind(result)
    .execute(&mut **writer)
    .await?;
    result_stored(writer, task_id, epoch).await?;
    Ok(true)
}

/// Stores output, neighbours joined into rows of up to one chunk.
pub(crate) async fn append(writer: &mut Writer, appends: Vec<Append>) -> Result<(), StoreError> {
    for row in coalesce(appends) {
        let place = Place::Output { start: row.start, stream: row.stream.into() };
        let data = sealed(&writer.keys, &row.task_id, place, &row.data)?;
        sqlx::query("INSERT INTO output (task_seq, start, stream, data, sealed) VALUES ($1, $2, $3, $4, TRUE)")
            .bind(row.seq)
            .bind(signed(row.start))
            .bind(i32::from(row.stream))
            .bind(data)
            .execute(&mut **writer)
            .await?;
    }
    Ok(())
}

/// Joins pieces of one task and stream that follow each other. The order within a task stays.
fn coalesce(appends: Vec<Append>) -> Vec<Append> {
    let mut rows: Vec<(Append, Option<BytesMut>)> = Vec::new();
    let mut last_of_task = std::collections::HashMap::new();
    for piece in appends {
        if piece.data.is_empty() {
            continue;
        }
        let last = last_of_task.get(&piece.seq).and_then(|at: &usize| rows.get_mut(*at));
        if let Some((row, buffer)) = last {
            let length = buffer.as_ref().map_or(row.data.len(), BytesMut::len);
            if row.stream == piece.stream
                && row.start + length as u64 == piece.start
                && length + piece.data.len() <= MAX_OUTPUT_CHUNK_BYTES
            {
                buffer.get_or_insert_with(|| BytesMut::from(&row.data[..])).extend_from_slice(&piece.data);
                continue;
            }
        }
        last_of_task.insert(piece.seq, rows.len());
        rows.push((piece, None));
    }
    rows.into_iter()
        .map(|(mut row, buffer)| {
            if let Some(buffer) = buffer {
                row.data = buffer.freeze();
            }
            row
        })
        .collect()
}

/// Output from `offset` on, about 256 KiB: whole stored pieces, the first one cut to begin at the offset.
pub(crate) async fn output_from(
    readers: &Readers,
    task: &TaskView,
    offset: u64,
) -> Result<Vec<OutputChunk>, StoreError> {
    use futures::TryStreamExt as _;
    let key = readers.keys.task(&task.task.task_id).map_err(|source| StoreError::Sealed { what: OUTPUT, source })?;
    let mut rows = sqlx::query(
        "SELECT start, stream, data, sealed FROM output WHERE task_seq = $1 AND start >= \
         (SELECT COALESCE(MAX(start), 0) FROM output WHERE task_seq = $1 AND start <= $2) ORDER BY start LIMIT $3",
    )
    .bind(task.seq)
    .bind(signed(offset))
    .bind(ROWS_AT_ONCE)
    .fetch(&readers.pool);
    let mut chunks = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let start = unsigned(row.try_get("start")?);
        let stream: i32 = row.try_get("stream")?;
        let stored: &[u8] = row.try_get("data")?;
        let data = if row.try_get("sealed")? {
            let opened = key.open(Place::Output { start, stream }, stored);
            opened.map_err(|source| StoreError::Sealed { what: OUTPUT, source })?
        } else {
            stored.to_vec()
        };
        let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
        if skip < data.len() {
            let offset = start + skip as u64;
            bytes += data.len() - skip;
            chunks.push(OutputChunk { offset, stream, data: Bytes::from(data).slice(skip..) });
        }
        if bytes >= READ_BYTES {
            break;
        }
    }
    Ok(chunks)
}

/// A task as users see it, with its place in the order of submission.
#[derive(Debug, Clone)]
pub(crate) struct TaskView {
    pub(crate) seq: i64,
    pub(crate) scope: String,
    pub(crate) task: Task,
}

/// Some tasks, newest first.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) tasks: Vec<TaskView>,
    /// There were more, but they would not fit into one message.
    pub(crate) truncated: bool,
}

pub(crate) async fn view(readers: &Readers, task_id: &str) -> Result<Option<TaskView>, StoreError> {
    let row = sqlx::query(AssertSqlSafe(format!("{SELECT_VIEW} WHERE t.task_id = $1")))
        .bind(task_id)
        .fetch_optional(&readers.pool)
        .await?;
    row.as_ref().map(|row| view_from_row(&readers.keys, row)).transpose()
}

/// Tasks within the scope, older than `before`, newest first.
pub(crate) async fn list(
    readers: &Readers,
    scope: &str,
    before: Option<i64>,
    states: &[TaskState],
    batch_id: Option<&str>,
    limit: u32,
) -> Result<Page, StoreError> {
    use futures::TryStreamExt as _;
    let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(SELECT_VIEW);
    query.push(" WHERE t.seq < ").push_bind(before.unwrap_or(i64::MAX));
    if !scope.is_empty() {
        query.push(" AND (t.scope = ").push_bind(scope);
        let below = format!("{scope}/");
        query.push(" OR substr(t.scope, 1, length(").push_bind(below.clone()).push(")) = ").push_bind(below).push(")");
    }
    if !states.is_empty() {
        query.push(" AND t.state IN (");
        let mut list = query.separated(", ");
        for state in states {
            list.push_bind(i32::from(*state));
        }
        query.push(")");
    }
    if let Some(batch_id) = batch_id {
        query.push(" AND t.batch_id = ").push_bind(batch_id);
    }
    query.push(" ORDER BY t.seq DESC LIMIT ").push_bind(i64::from(limit));
    let mut rows = query.build().fetch(&readers.pool);
    let mut page = Page::default();
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let view = view_from_row(&readers.keys, &row)?;
        bytes += view.task.encoded_len();
        // One task always fits; a page of large ones is cut short and goes on behind the next page token.
        if bytes > PAGE_BYTES && !page.tasks.is_empty() {
            page.truncated = true;
            break;
        }
        page.tasks.push(view);
    }
    Ok(page)
}

/// Some of a batch's tasks that have ended, in the order of their ends, behind the first `after`; each with its number.
pub(crate) async fn ended_of_batch(
    readers: &Readers,
    batch_id: &str,
    after: u32,
) -> Result<Vec<(u32, TaskView)>, StoreError> {
    use futures::TryStreamExt as _;
    let mut rows = sqlx::query(AssertSqlSafe(format!(
        "{SELECT_VIEW} WHERE t.batch_id = $1 AND t.batch_ended > $2 ORDER BY t.batch_ended LIMIT $3"
    )))
    .bind(batch_id)
    .bind(i64::from(after))
    .bind(ROWS_AT_ONCE)
    .fetch(&readers.pool);
    let (mut ended, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let view = view_from_row(&readers.keys, &row)?;
        bytes += view.task.encoded_len();
        ended.push((u32::try_from(row.try_get::<i64, _>("batch_ended")?).unwrap_or(u32::MAX), view));
        if bytes > READ_BYTES {
            break;
        }
    }
    Ok(ended)
}

fn view_from_row(keys: &TaskKeys, row: &SqliteRow) -> Result<TaskView, StoreError> {
    let task_id: String = row.try_get("task_id")?;
    let result: Option<&[u8]> = row.try_get("result")?;
    let result = result.map(|blob| opened::<TaskResult>(keys, &task_id, Place::Result, blob)).transpose();
    let spec = opened::<TaskSpec>(keys, &task_id, Place::Spec, row.try_get("spec")?);
    let (spec, result) = match (spec, result) {
        (Ok(spec), Ok(result)) => (Some(spec), result),
        // The master key is another one. What is not secret can be shown all the same.
        (Err(StoreError::Sealed { source: error @ VaultError::OtherKey { .. }, .. }), _) => {
            let state = TaskState::try_from(row.try_get::<i32, _>("state")?).unwrap_or_default();
            (None, Some(failure::result(state, Some(failure::unreadable(&error.to_string())))))
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let timestamp =
        |column: &str| -> Result<_, StoreError> { Ok(millis(row.try_get(column)?).map(UnixMillis::timestamp)) };
    let cancel: Option<String> = row.try_get("cancel_reason")?;
    let task = Task {
        task_id,
        spec,
        state: row.try_get("state")?,
        epoch: unsigned(row.try_get("epoch")?),
        agent_id: row.try_get::<Option<String>, _>("agent_id")?.unwrap_or_default(),
        agent_name: row.try_get::<Option<String>, _>("agent_name")?.unwrap_or_default(),
        submitted_at: timestamp("submitted_at")?,
        assigned_at: timestamp("assigned_at")?,
        started_at: timestamp("started_at")?,
        finished_at: timestamp("finished_at")?,
        cancel_requested: cancel.is_some(),
        result,
        output_bytes: unsigned(row.try_get("output_bytes")?),
        candidates: decode_candidates(row.try_get("candidates")?)?,
        submitted_by: row.try_get("submitted_by")?,
        late_results: Vec::new(),
        output_removed_bytes: unsigned(row.try_get("output_removed")?),
        output_removed_at: timestamp("output_removed_at")?,
        batch_id: row.try_get::<Option<String>, _>("batch_id")?.unwrap_or_default(),
    };
    Ok(TaskView { seq: row.try_get("seq")?, scope: row.try_get("scope")?, task })
}

/// What is stored of a message, or of output.
pub(super) fn sealed(keys: &TaskKeys, task_id: &str, place: Place, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let blob = keys.task(task_id).and_then(|key| key.seal(place, plain));
    blob.map_err(|source| StoreError::Sealed { what: name_of(place), source })
}

/// The message that was stored.
pub(super) fn opened<M: prost::Message + Default>(
    keys: &TaskKeys,
    task_id: &str,
    place: Place,
    blob: &[u8],
) -> Result<M, StoreError> {
    let what = name_of(place);
    let plain = keys.task(task_id).and_then(|key| key.open(place, blob));
    decode(&Zeroizing::new(plain.map_err(|source| StoreError::Sealed { what, source })?), what)
}

fn name_of(place: Place) -> &'static str {
    match place {
        Place::Spec => "a task's specification",
        Place::Result => "a task's result",
        Place::LastResult => "the result of a task's last try",
        Place::LateResult { .. } => "a late result",
        Place::Output { .. } => OUTPUT,
        Place::SigningKeys => "signing keys",
    }
}

pub(super) fn decode<M: prost::Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|_| StoreError::Malformed(what))
}

/// Candidates travel in the task's own message, so the same encoding serves for storing them.
fn encode_candidates(candidates: &[Candidate]) -> Option<Vec<u8>> {
    let holder = Task { candidates: candidates.to_vec(), ..Task::default() };
    (!candidates.is_empty()).then(|| holder.encode_to_vec())
}

fn decode_candidates(bytes: Option<&[u8]>) -> Result<Vec<Candidate>, StoreError> {
    bytes.map_or(Ok(Vec::new()), |bytes| Ok(decode::<Task>(bytes, "a task's candidates")?.candidates))
}

const SELECT_VIEW: &str = "SELECT t.*, a.name AS agent_name FROM tasks t LEFT JOIN agents a ON a.agent_id = t.agent_id";
const OUTPUT: &str = "a task's output";
const ROWS_AT_ONCE: i64 = 512;
/// Well below the bound on a statement's parameters.
const ROWS_PER_INSERT: usize = 200;
/// What one follower holds until its reader has taken it.
const READ_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use lictor_proto::v1::OutputStream;

    use super::*;

    fn piece(seq: i64, start: u64, stream: OutputStream, data: &'static [u8]) -> Append {
        Append { seq, task_id: seq.to_string(), start, stream, data: Bytes::from_static(data) }
    }

    #[test]
    fn neighbours_are_joined_and_strangers_are_not() {
        use OutputStream::{Stderr, Stdout};
        let rows = coalesce(vec![
            piece(1, 0, Stdout, b"ab"),
            piece(2, 0, Stdout, b"x"),
            piece(1, 2, Stdout, b"cd"),
            piece(1, 4, Stderr, b"e"),
            piece(1, 5, Stdout, b"f"),
            piece(1, 6, Stdout, b""),
            piece(2, 1, Stdout, b"y"),
        ]);
        assert_eq!(
            rows,
            [
                piece(1, 0, Stdout, b"abcd"),
                piece(2, 0, Stdout, b"xy"),
                piece(1, 4, Stderr, b"e"),
                piece(1, 5, Stdout, b"f"),
            ]
        );
    }

    #[test]
    fn a_row_never_grows_beyond_one_chunk() {
        static BIG: [u8; MAX_OUTPUT_CHUNK_BYTES] = [7; MAX_OUTPUT_CHUNK_BYTES];
        let rows = coalesce(vec![
            piece(1, 0, OutputStream::Stdout, &BIG),
            piece(1, BIG.len() as u64, OutputStream::Stdout, b"1"),
        ]);
        assert_eq!(rows.len(), 2);
    }
}

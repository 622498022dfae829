//! What the engine does about batches.

use lictor_proto::v1::TaskRef;
use tracing::{info, warn};

use super::{Engine, Refusal};
use crate::clock::Now;
use crate::dispatch::BatchRecord;
use crate::store::batches::NewBatch;
use crate::store::{self, StoreError};

impl Engine {
    /// Stores a batch and all of its tasks in the transaction of this turn: a crash before its commit leaves nothing of
    /// it, one behind it everything.
    pub(super) async fn submit_batch(
        &mut self,
        new: NewBatch,
        now: Now,
    ) -> Result<Result<String, Refusal>, StoreError> {
        if let Some(key) = &new.idempotency_key
            && let Some(first) = store::batches::find_by_key(self.database().await?, &new.submitted_by, key).await?
        {
            return Ok(Ok(first));
        }
        if let Err(refusal) = self.has_room(&new.credential, new.tasks.len()) {
            return Ok(Err(refusal));
        }
        if let Some(state) = self.parts.ledger.credential(&new.credential).filter(|state| state.rejected) {
            let (name, version) = (&new.credential, state.version);
            return Ok(Err(Refusal::Invalid(format!(
                "credential: version {version} of {name} was rejected by a host and is not handed out again; store the \
                 right password with `lictor credential put {name}`"
            ))));
        }
        let (batch_id, tasks) = (new.batch_id.to_string(), new.tasks.len());
        let (entry, live) = store::batches::add(self.database().await?, new, now.wall).await?;
        self.parts.ledger.submit_batch(entry, live, now);
        self.parts.metrics.submitted(tasks as u64);
        info!(batch_id, tasks, "Batch submitted");
        Ok(Ok(batch_id))
    }

    pub(super) async fn persist_batches(
        &mut self,
        tried: &[TaskRef],
        batches: &[BatchRecord],
        now: Now,
    ) -> Result<(), StoreError> {
        for tried in tried {
            store::tasks::result_stored(self.database().await?, &tried.task_id, tried.epoch).await?;
            info!(task_id = tried.task_id, epoch = tried.epoch, "Task failed and is tried again");
        }
        for record in batches {
            store::batches::save(self.database().await?, record, now.wall).await?;
            self.touched.insert(record.batch_id.to_string());
            let batch_id = &*record.batch_id;
            if record.finished {
                let (total, succeeded) = (record.progress.total, record.progress.succeeded);
                info!(batch_id, total, succeeded, "Batch finished");
            } else if let Some(stop) = record.stop.as_ref().filter(|stop| stop.at == now.wall) {
                warn!(batch_id, code = stop.code, "Batch stopped: {}", stop.message);
            }
        }
        Ok(())
    }
}

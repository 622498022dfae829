//! What the engine does about batches.

use lictor_proto::v1::TaskRef;
use serde_json::json;
use tracing::{info, warn};

use super::access::kind_of;
use super::deliveries::Named;
use super::{Engine, Refusal};
use crate::access::Caller;
use crate::audit::Action;
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
        by: &Caller,
        now: Now,
    ) -> Result<Result<String, Refusal>, StoreError> {
        if let Some(key) = &new.idempotency_key
            && let Some(first) = store::batches::find_by_key(self.database().await?, &new.submitted_by, key).await?
        {
            return Ok(Ok(first));
        }
        if let Err(refusal) = self.may_use_credential(&new.credential, &new.scope, by).await? {
            return Ok(Err(refusal));
        }
        if let Some(refusal) = new.tasks.iter().find_map(|task| self.fits_credential(&task.spec).err()) {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.may_use_secrets(Named::by(new.tasks.iter().map(|task| &task.spec)), by).await? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.has_room(new.tasks.len()) {
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
        let details = json!({
            "hosts": tasks,
            "credential": new.credential,
            "kind": new.tasks.first().map(|task| kind_of(&task.spec)),
            "scope": new.scope,
        });
        let (entry, live) = store::batches::add(self.database().await?, new, now.wall).await?;
        self.parts.ledger.submit_batch(entry, live, now);
        self.parts.metrics.submitted(tasks as u64);
        info!(batch_id, tasks, "Batch submitted");
        self.audit_of(by, Action::BatchSubmitted, ("batch", &batch_id), details, now).await?;
        Ok(Ok(batch_id))
    }

    /// Stops a batch, unless it is finished.
    pub(super) async fn cancel_batch(
        &mut self,
        batch_id: &str,
        reason: &str,
        by: &Caller,
        now: Now,
    ) -> Result<(), StoreError> {
        if self.parts.ledger.cancel_batch(batch_id, reason, now) {
            info!(batch_id, "Batch cancelled");
            let details = json!({ "reason": reason });
            self.audit_of(by, Action::BatchCancelled, ("batch", batch_id), details, now).await?;
        }
        Ok(())
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
                warn!(batch_id, code = stop.code, reason = stop.message, "Batch stopped");
            }
        }
        Ok(())
    }
}

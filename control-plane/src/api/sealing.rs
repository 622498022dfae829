//! The calls of `SecretService` behind which agents work: writing a value through one of them, and testing a secret manager.
//!
//! A sealed value passes through here as it came: nobody but its agent can open it.

use std::time::Duration;

use lictor_proto::v1::{
    PrepareSecretRequest, PrepareSecretResponse, SealedValue, Secret, Task, TestSecretManagerRequest,
};
use tonic::Status;

use super::Api;
use super::door::outside;
use crate::access::Caller;
use crate::engine::Command;
use crate::validate;

impl Api {
    /// Chooses the agent that a value is to be sealed to.
    pub(super) async fn prepare_sealing(
        &self,
        request: PrepareSecretRequest,
        by: Caller,
    ) -> Result<PrepareSecretResponse, Status> {
        let request = validate::prepared_secret(request)?;
        if by.scope_for(&request.scope).is_none() {
            return Err(outside(&by));
        }
        Ok(self.engine.ask(|reply| Command::PrepareSecret { request, by, reply }).await?)
    }

    /// Hands a sealed value to its agent and waits for what becomes of it. Whoever does not wait does not end it.
    pub(super) async fn put_sealed(&self, secret: Secret, sealed: SealedValue, by: Caller) -> Result<Secret, Status> {
        let secret = Box::new(secret);
        let stored = self.engine.ask(|reply| Command::PutSealed { secret, sealed, by, reply });
        match tokio::time::timeout(SEALING_WAIT, stored).await {
            Ok(stored) => Ok(stored?),
            Err(_) => Err(Status::deadline_exceeded(
                "the agent has not encrypted the value yet; it is stored when it has: look with `lictor secret show`",
            )),
        }
    }

    /// Submits a test of a secret manager; the answer is its task.
    pub(super) async fn submit_manager_test(
        &self,
        request: TestSecretManagerRequest,
        caller: &Caller,
    ) -> Result<Task, Status> {
        let (identifier, selector) = validate::manager_test(request)?;
        if caller.scope_for(&selector.scope).is_none() {
            return Err(outside(caller));
        }
        let by = caller.clone();
        let task_id = self.engine.ask(|reply| Command::TestManager { identifier, selector, by, reply }).await?;
        Ok(self.view(&task_id, caller).await?.task)
    }
}

/// Longer than the task may wait for its agent and run there.
const SEALING_WAIT: Duration = Duration::from_secs(60);

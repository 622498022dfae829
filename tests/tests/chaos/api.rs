//! The control plane as its users see it: calls that may fail while it is down, each with a deadline.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lictor_proto::v1::task_service_client::TaskServiceClient;
use lictor_proto::v1::{
    CancelTaskRequest, GetTaskRequest, ListTasksRequest, SubmitTaskRequest, Task, TaskSpec, WatchTaskRequest,
    watch_task_response,
};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

#[derive(Clone)]
pub(crate) struct Api {
    channel: Channel,
    token: MetadataValue<Ascii>,
}

impl Api {
    /// Reads the authority and the token from the control plane's state. Must be called inside a runtime.
    pub(crate) fn new(address: &str, state: &Path) -> Result<Self> {
        let ca = std::fs::read(state.join("ca.pem"))?;
        let token = std::fs::read_to_string(state.join("admin-token"))?;
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))?
            .connect_timeout(CALL);
        Ok(Self { channel: endpoint.connect_lazy(), token: format!("Bearer {}", token.trim()).parse()? })
    }

    pub(crate) async fn submit(&self, spec: TaskSpec, key: &str) -> Result<Task> {
        let request = self.request(SubmitTaskRequest { spec: Some(spec), idempotency_key: key.into() });
        let answer = tokio::time::timeout(CALL, self.tasks().submit_task(request)).await??;
        answer.into_inner().task.context("no task in the answer")
    }

    pub(crate) async fn cancel(&self, task_id: &str) -> Result<()> {
        let request = self.request(CancelTaskRequest { task_id: task_id.into(), reason: "chaos".into() });
        tokio::time::timeout(CALL, self.tasks().cancel_task(request)).await??;
        Ok(())
    }

    pub(crate) async fn task(&self, task_id: &str) -> Result<Task> {
        let request = self.request(GetTaskRequest { task_id: task_id.into() });
        let answer = tokio::time::timeout(CALL, self.tasks().get_task(request)).await??;
        answer.into_inner().task.context("no task in the answer")
    }

    /// The newest tasks.
    pub(crate) async fn list(&self) -> Result<Vec<Task>> {
        let request = self.request(ListTasksRequest { page_size: 500, ..ListTasksRequest::default() });
        Ok(tokio::time::timeout(CALL, self.tasks().list_tasks(request)).await??.into_inner().tasks)
    }

    /// The whole output of a task that is final.
    pub(crate) async fn output(&self, task_id: &str) -> Result<Vec<u8>> {
        let request = self.request(WatchTaskRequest { task_id: task_id.into(), from_offset: 0 });
        let read = async {
            let mut events = self.tasks().watch_task(request).await?.into_inner();
            let mut output = Vec::new();
            while let Some(event) = events.message().await? {
                if let Some(watch_task_response::Event::Output(chunk)) = event.event {
                    anyhow::ensure!(chunk.offset == output.len() as u64, "output goes on at {}", chunk.offset);
                    output.extend_from_slice(&chunk.data);
                }
            }
            Ok(output)
        };
        tokio::time::timeout(CALL * 4, read).await?
    }

    fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(128 << 20)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }
}

const CALL: Duration = Duration::from_secs(10);

//! `CredentialService`. A password or keytab goes from the message into memory that is zeroed, and from there to the engine.

use lictor_proto::v1::credential_service_server::CredentialService;
use lictor_proto::v1::{
    ConnectionTest, DeleteCredentialRequest, DeleteCredentialResponse, ListCredentialsRequest, ListCredentialsResponse,
    PutCredentialRequest, PutCredentialResponse, TaskSpec, TestCredentialRequest, TestCredentialResponse, task_spec,
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::door::{caller, outside};
use super::{Api, page, page_size};
use crate::engine::{Command, NewCredential};
use crate::store::credentials::{self, CredentialRecord};
use crate::telemetry::Submission;
use crate::validate;

#[tonic::async_trait]
impl CredentialService for Api {
    async fn put_credential(
        &self,
        request: Request<PutCredentialRequest>,
    ) -> Result<Response<PutCredentialResponse>, Status> {
        let by = caller(&request)?;
        let PutCredentialRequest { credential, password, keytab } = request.into_inner();
        let (password, keytab) = (password.map(Zeroizing::new), Zeroizing::new(keytab));
        let credential =
            validate::credential(credential, password.as_ref().map(|password| password.as_str()), &keytab)?;
        if by.scope_for(&credential.scope).is_none() {
            return Err(outside(&by));
        }
        let secret = match password {
            Some(mut password) => Some(Zeroizing::new(std::mem::take(&mut *password).into_bytes())),
            None => Some(keytab).filter(|keytab| !keytab.is_empty()),
        };
        let credential = Box::new(NewCredential { credential, secret });
        let credential = self.engine.ask(|reply| Command::PutCredential { credential, by, reply }).await?;
        Ok(Response::new(PutCredentialResponse { credential: Some(credential) }))
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000);
        // The token is the last name of the page before.
        let records = credentials::credentials(&self.readers, &caller.scope, &request.page_token, size + 1).await?;
        let (credentials, more) = page(records.iter().map(CredentialRecord::view), size);
        let last = credentials.last().filter(|_| more);
        let next_page_token = last.map(|credential| credential.name.clone()).unwrap_or_default();
        Ok(Response::new(ListCredentialsResponse { credentials, next_page_token }))
    }

    async fn delete_credential(
        &self,
        request: Request<DeleteCredentialRequest>,
    ) -> Result<Response<DeleteCredentialResponse>, Status> {
        let by = caller(&request)?;
        let name = request.into_inner().name;
        self.engine.ask(|reply| Command::DeleteCredential { name, by, reply }).await?;
        Ok(Response::new(DeleteCredentialResponse {}))
    }

    async fn test_credential(
        &self,
        request: Request<TestCredentialRequest>,
    ) -> Result<Response<TestCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let submission = Submission::of(request.metadata());
        let TestCredentialRequest { name, target, selector } = request.into_inner();
        let spec = TaskSpec {
            target,
            credential: name,
            selector,
            kind: Some(task_spec::Kind::ConnectionTest(ConnectionTest {})),
            label: "credential test".into(),
            ..TaskSpec::default()
        };
        let task = self.submit(Some(spec), String::new(), &caller, submission).await?;
        Ok(Response::new(TestCredentialResponse { task: Some(task) }))
    }
}

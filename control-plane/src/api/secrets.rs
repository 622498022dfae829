//! `SecretService`. A value goes from the message into memory that is zeroed, and from there to the engine; none ever comes back.

use lictor_proto::v1::secret_service_server::SecretService;
use lictor_proto::v1::{
    DeleteSecretManagerRequest, DeleteSecretManagerResponse, DeleteSecretRequest, DeleteSecretResponse,
    GetSecretManagerRequest, GetSecretManagerResponse, GetSecretRequest, GetSecretResponse, ListSecretManagersRequest,
    ListSecretManagersResponse, ListSecretsRequest, ListSecretsResponse, PrepareSecretRequest, PrepareSecretResponse,
    PutSecretManagerRequest, PutSecretManagerResponse, PutSecretRequest, PutSecretResponse, TestSecretManagerRequest,
    TestSecretManagerResponse,
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::door::{caller, outside};
use super::{Api, page, page_size};
use crate::engine::{Command, NewSecret, used_by};
use crate::managers::is_reserved;
use crate::store::managers::{self, ManagerRecord};
use crate::store::{StoreError, secrets};
use crate::validate::{self, quoted};

#[tonic::async_trait]
impl SecretService for Api {
    async fn put_secret(&self, request: Request<PutSecretRequest>) -> Result<Response<PutSecretResponse>, Status> {
        let by = caller(&request)?;
        let PutSecretRequest { secret, value, sealed } = request.into_inner();
        let value = value.map(Zeroizing::new);
        let secret = validate::secret(secret)?;
        if by.scope_for(&secret.scope).is_none() {
            return Err(outside(&by));
        }
        let secret = match sealed {
            Some(_) if value.is_some() => return Err(Status::invalid_argument("sealed: not beside a value")),
            Some(sealed) => {
                let secret = self.put_sealed(secret, sealed, by).await?;
                return Ok(Response::new(PutSecretResponse { secret: Some(secret) }));
            }
            None => secret,
        };
        let secret = Box::new(NewSecret { secret, value });
        let secret = self.engine.ask(|reply| Command::PutSecret { secret, by, reply }).await?;
        Ok(Response::new(PutSecretResponse { secret: Some(secret) }))
    }

    async fn prepare_secret(
        &self,
        request: Request<PrepareSecretRequest>,
    ) -> Result<Response<PrepareSecretResponse>, Status> {
        let by = caller(&request)?;
        Ok(Response::new(self.prepare_sealing(request.into_inner(), by).await?))
    }

    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let caller = caller(&request)?;
        let identifier = request.into_inner().identifier;
        let mut database = self.readers.acquire().await.map_err(StoreError::from)?;
        let found = secrets::secret(&mut database, &identifier).await?;
        let found = found.filter(|found| found.deleted_at.is_none() && caller.sees(&found.scope));
        let Some(secret) = found else {
            return Err(Status::not_found(format!("there is no secret named {}", quoted(&identifier))));
        };
        let versions = secrets::versions(&mut database, &identifier).await?;
        let newest = versions.iter().find(|version| version.version == secret.version);
        let answer = GetSecretResponse {
            secret: Some(secret.view(newest)),
            versions: versions.iter().map(secrets::VersionRecord::view).collect(),
            used_by: used_by(&mut database, &identifier).await?,
        };
        Ok(Response::new(answer))
    }

    async fn list_secrets(
        &self,
        request: Request<ListSecretsRequest>,
    ) -> Result<Response<ListSecretsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000);
        // The token is the last identifier of the page before.
        let views = secrets::secrets(&self.readers, &caller.scope, &request.page_token, size + 1).await?;
        let (secrets, more) = page(views, size);
        let last = secrets.last().filter(|_| more);
        let next_page_token = last.map(|secret| secret.identifier.clone()).unwrap_or_default();
        Ok(Response::new(ListSecretsResponse { secrets, next_page_token }))
    }

    async fn delete_secret(
        &self,
        request: Request<DeleteSecretRequest>,
    ) -> Result<Response<DeleteSecretResponse>, Status> {
        let by = caller(&request)?;
        let identifier = request.into_inner().identifier;
        self.engine.ask(|reply| Command::DeleteSecret { identifier, by, reply }).await?;
        Ok(Response::new(DeleteSecretResponse {}))
    }

    async fn put_secret_manager(
        &self,
        request: Request<PutSecretManagerRequest>,
    ) -> Result<Response<PutSecretManagerResponse>, Status> {
        let by = caller(&request)?;
        let manager = validate::manager(request.into_inner().manager)?;
        if by.scope_for(&manager.scope).is_none() {
            return Err(outside(&by));
        }
        let manager = Box::new(manager);
        let manager = self.engine.ask(|reply| Command::PutSecretManager { manager, by, reply }).await?;
        Ok(Response::new(PutSecretManagerResponse { manager: Some(manager) }))
    }

    async fn get_secret_manager(
        &self,
        request: Request<GetSecretManagerRequest>,
    ) -> Result<Response<GetSecretManagerResponse>, Status> {
        let caller = caller(&request)?;
        let identifier = request.into_inner().identifier;
        let mut database = self.readers.acquire().await.map_err(StoreError::from)?;
        let found = managers::manager(&mut database, &identifier).await?;
        let found = found.filter(|found| found.deleted_at.is_none() && caller.sees(&found.manager.scope));
        match found {
            Some(found) => Ok(Response::new(GetSecretManagerResponse { manager: Some(found.view()) })),
            None if is_reserved(&identifier) => {
                Err(Status::failed_precondition(format!("{identifier} is always there: it has no settings to show")))
            }
            None => Err(Status::not_found(format!("there is no secret manager named {}", quoted(&identifier)))),
        }
    }

    async fn list_secret_managers(
        &self,
        request: Request<ListSecretManagersRequest>,
    ) -> Result<Response<ListSecretManagersResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000);
        // The token is the last identifier of the page before.
        let records = managers::managers(&self.readers, &caller.scope, &request.page_token, size + 1).await?;
        let (managers, more) = page(records.iter().map(ManagerRecord::view), size);
        let last = managers.last().filter(|_| more);
        let next_page_token = last.map(|manager| manager.identifier.clone()).unwrap_or_default();
        Ok(Response::new(ListSecretManagersResponse { managers, next_page_token }))
    }

    async fn delete_secret_manager(
        &self,
        request: Request<DeleteSecretManagerRequest>,
    ) -> Result<Response<DeleteSecretManagerResponse>, Status> {
        let by = caller(&request)?;
        let identifier = request.into_inner().identifier;
        self.engine.ask(|reply| Command::DeleteSecretManager { identifier, by, reply }).await?;
        Ok(Response::new(DeleteSecretManagerResponse {}))
    }

    async fn test_secret_manager(
        &self,
        request: Request<TestSecretManagerRequest>,
    ) -> Result<Response<TestSecretManagerResponse>, Status> {
        let caller = caller(&request)?;
        let task = self.submit_manager_test(request.into_inner(), &caller).await?;
        Ok(Response::new(TestSecretManagerResponse { task: Some(task) }))
    }
}

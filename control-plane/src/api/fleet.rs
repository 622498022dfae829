//! `FleetService`.

use lictor_proto::token::JoinToken as TokenText;
use lictor_proto::v1::fleet_service_server::FleetService;
use lictor_proto::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, DrainAgentRequest, DrainAgentResponse, ListAgentsRequest,
    ListAgentsResponse, ListJoinTokensRequest, ListJoinTokensResponse, RevokeAgentRequest, RevokeAgentResponse,
    RevokeJoinTokenRequest, RevokeJoinTokenResponse,
};
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::door::{caller, outside};
use super::{Api, page, page_size, parse_page_token};
use crate::engine::{Command, NewJoinToken};
use crate::store::fleet;
use crate::validate;

#[tonic::async_trait]
impl FleetService for Api {
    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let all = self.engine.ask(|reply| Command::Agents { reply }).await?;
        // The token is the last name of the page before: names are unique, and the list is ordered by them.
        let rest = all.into_iter().filter(|agent| caller.sees(&agent.scope) && agent.name > request.page_token);
        let (agents, more) = page(rest, page_size(request.page_size, 100, 1000));
        let next_page_token = agents.last().filter(|_| more).map(|agent| agent.name.clone()).unwrap_or_default();
        Ok(Response::new(ListAgentsResponse { agents, next_page_token }))
    }

    async fn drain_agent(&self, request: Request<DrainAgentRequest>) -> Result<Response<DrainAgentResponse>, Status> {
        let by = caller(&request)?;
        let DrainAgentRequest { agent, reason } = request.into_inner();
        let reason = validate::reason(&reason);
        let agent = self.engine.ask(|reply| Command::DrainAgent { agent, reason, by, reply }).await?;
        Ok(Response::new(DrainAgentResponse { agent: Some(agent) }))
    }

    async fn revoke_agent(
        &self,
        request: Request<RevokeAgentRequest>,
    ) -> Result<Response<RevokeAgentResponse>, Status> {
        let by = caller(&request)?;
        let RevokeAgentRequest { agent, reason } = request.into_inner();
        let reason = validate::reason(&reason);
        let agent = self.engine.ask(|reply| Command::RevokeAgent { agent, reason, by, reply }).await?;
        Ok(Response::new(RevokeAgentResponse { agent: Some(agent) }))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let by = caller(&request)?;
        let request = request.into_inner();
        let lifetime = validate::join_token(&request)?;
        let scope = by.scope_for(&request.scope).ok_or_else(|| outside(&by))?;
        let text = TokenText {
            id: Uuid::now_v7().to_string(),
            secret: Zeroizing::new(rand::random()),
            pin: self.authority.pin(),
        };
        let token = Box::new(NewJoinToken {
            token_id: text.id.clone(),
            secret_hash: Sha256::digest(*text.secret).into(),
            scope,
            tags: request.tags,
            max_uses: request.max_uses,
            lifetime,
            description: request.description,
        });
        let join_token = self.engine.ask(|reply| Command::CreateJoinToken { token, by, reply }).await?;
        let token = text.to_text().to_string();
        Ok(Response::new(CreateJoinTokenResponse { join_token: Some(join_token), token }))
    }

    async fn list_join_tokens(
        &self,
        request: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000);
        let before: Option<Uuid> = parse_page_token(&request.page_token)?;
        let before = before.map(|id| id.to_string());
        let records = fleet::join_tokens(&self.readers, &caller.scope, before.as_deref(), size + 1).await?;
        let (join_tokens, more) = page(records.iter().map(fleet::JoinTokenRecord::view), size);
        let last = join_tokens.last().filter(|_| more);
        let next_page_token = last.map(|token| token.token_id.clone()).unwrap_or_default();
        Ok(Response::new(ListJoinTokensResponse { join_tokens, next_page_token }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        let by = caller(&request)?;
        let token_id = request.into_inner().token_id;
        let join_token = self.engine.ask(|reply| Command::RevokeJoinToken { token_id, by, reply }).await?;
        Ok(Response::new(RevokeJoinTokenResponse { join_token: Some(join_token) }))
    }
}

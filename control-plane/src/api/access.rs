//! `AccessService`. A token's text is made here, sent once, and only its hash goes further.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use lictor_proto::v1::access_service_server::AccessService;
use lictor_proto::v1::{
    CreateUserRequest, CreateUserResponse, DisableUserRequest, DisableUserResponse, EnableUserRequest,
    EnableUserResponse, ExportAuditRequest, ExportAuditResponse, IssueUserTokenRequest, IssueUserTokenResponse,
    ListUserTokensRequest, ListUserTokensResponse, ListUsersRequest, ListUsersResponse, RevokeUserTokenRequest,
    RevokeUserTokenResponse, WhoAmIRequest, WhoAmIResponse,
};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::door::{caller, outside};
use super::follower::Follower;
use super::{Api, page, page_size};
use crate::access::{hash_token, new_token};
use crate::clock::{Now, UnixMillis};
use crate::engine::{Command, NewToken, NewUser};
use crate::store::access::{self, TokenRecord, UserRecord};
use crate::store::audit;
use crate::validate;

#[tonic::async_trait]
impl AccessService for Api {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let by = caller(&request)?;
        let (user, token) = self.engine.ask(|reply| Command::WhoAmI { by, reply }).await?;
        Ok(Response::new(WhoAmIResponse { user: Some(user.view()), token: Some(token.view()) }))
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        let by = caller(&request)?;
        let request = request.into_inner();
        let role = validate::user(&request)?;
        let scope = by.scope_for(&request.scope).ok_or_else(|| outside(&by))?;
        let user = NewUser { name: request.name, role, scope, description: request.description };
        let user = self.engine.ask(|reply| Command::CreateUser { user, by, reply }).await?;
        Ok(Response::new(CreateUserResponse { user: Some(user.view()) }))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000);
        let records = access::users(&self.readers, &caller.scope, &request.page_token, size + 1).await?;
        let (users, more) = page(records.iter().map(UserRecord::view), size);
        let next_page_token = users.last().filter(|_| more).map(|user| user.name.clone()).unwrap_or_default();
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn disable_user(
        &self,
        request: Request<DisableUserRequest>,
    ) -> Result<Response<DisableUserResponse>, Status> {
        let by = caller(&request)?;
        let name = request.into_inner().name;
        let user = self.engine.ask(|reply| Command::SetUser { name, enabled: false, by, reply }).await?;
        Ok(Response::new(DisableUserResponse { user: Some(user.view()) }))
    }

    async fn enable_user(&self, request: Request<EnableUserRequest>) -> Result<Response<EnableUserResponse>, Status> {
        let by = caller(&request)?;
        let name = request.into_inner().name;
        let user = self.engine.ask(|reply| Command::SetUser { name, enabled: true, by, reply }).await?;
        Ok(Response::new(EnableUserResponse { user: Some(user.view()) }))
    }

    async fn issue_user_token(
        &self,
        request: Request<IssueUserTokenRequest>,
    ) -> Result<Response<IssueUserTokenResponse>, Status> {
        let by = caller(&request)?;
        let request = request.into_inner();
        let lifetime = validate::user_token(&request)?;
        let text = new_token();
        let token =
            NewToken { user: request.user, hash: hash_token(&text), lifetime, description: request.description };
        let token = self.engine.ask(|reply| Command::IssueToken { token, by, reply }).await?;
        Ok(Response::new(IssueUserTokenResponse { user_token: Some(token.view()), token: text.to_string() }))
    }

    async fn list_user_tokens(
        &self,
        request: Request<ListUserTokensRequest>,
    ) -> Result<Response<ListUserTokensResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000);
        // Neither of the two holds a blank.
        let after = request.page_token.split_once(' ').unwrap_or_default();
        let records = access::tokens(&self.readers, &caller.scope, &request.user, after, size + 1).await?;
        let (user_tokens, more) = page(records.iter().map(TokenRecord::view), size);
        let last = user_tokens.last().filter(|_| more);
        let next_page_token = last.map(|token| format!("{} {}", token.user, token.token_id)).unwrap_or_default();
        Ok(Response::new(ListUserTokensResponse { user_tokens, next_page_token }))
    }

    async fn revoke_user_token(
        &self,
        request: Request<RevokeUserTokenRequest>,
    ) -> Result<Response<RevokeUserTokenResponse>, Status> {
        let by = caller(&request)?;
        let token_id = request.into_inner().token_id;
        let token = self.engine.ask(|reply| Command::RevokeToken { token_id, by, reply }).await?;
        Ok(Response::new(RevokeUserTokenResponse { user_token: Some(token.view()) }))
    }

    type ExportAuditStream = Pin<Box<dyn Stream<Item = Result<ExportAuditResponse, Status>> + Send>>;

    async fn export_audit(
        &self,
        request: Request<ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        let caller = caller(&request)?;
        if !caller.scope.is_empty() {
            let text = "the audit log tells of every scope: it is for administrators whose scope is empty";
            return Err(Status::permission_denied(text));
        }
        let ExportAuditRequest { from, to, follow } = request.into_inner();
        let (from, to) = (moment("from", from)?, moment("to", to)?);
        let by = caller.clone();
        let follower = Follower::new(self, self.audited.clone(), caller)?;
        let end = self.engine.ask(|reply| Command::NoteExport { from, to, follow, by, reply }).await?;
        let export = Export { api: self.clone(), follower, from, to, end: (!follow).then_some(end), sent: 0 };
        let stream = futures::stream::unfold(Some(export), |export| async move {
            let mut export = export?;
            let next = export.next().await.transpose()?;
            let rest = next.is_ok().then_some(export);
            Some((next, rest))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One export of the audit log. It reads the database when it has sent what it read before.
struct Export {
    api: Api,
    follower: Follower<u64>,
    from: Option<UnixMillis>,
    to: Option<UnixMillis>,
    /// The last entry wanted; nothing when the export follows.
    end: Option<u64>,
    /// The last entry sent.
    sent: u64,
}

impl Export {
    async fn next(&mut self) -> Result<Option<ExportAuditResponse>, Status> {
        loop {
            self.follower.check_access()?;
            let newest = self.follower.looks();
            let lines = audit::lines(&self.api.readers, self.sent, self.from, self.to).await?;
            let lines: Vec<_> = lines.into_iter().filter(|line| self.end.is_none_or(|end| line.seq <= end)).collect();
            if let Some(last) = lines.last() {
                self.sent = last.seq;
                return Ok(Some(ExportAuditResponse { entries: lines.into_iter().map(|line| line.text).collect() }));
            }
            if self.end.is_some() || self.to.is_some_and(|to| to <= Now::read().wall) {
                return Ok(None);
            }
            // What lies outside the times asked for need not be looked at again.
            self.sent = self.sent.max(newest);
            self.follower.news(Duration::ZERO, "the last entry").await?;
        }
    }
}

fn moment(field: &str, value: Option<Timestamp>) -> Result<Option<UnixMillis>, Status> {
    let wrong = || Status::invalid_argument(format!("{field}: not a time"));
    let Some(Timestamp { seconds, nanos }) = value else { return Ok(None) };
    let millis = seconds.checked_mul(1000).ok_or_else(wrong)?;
    let part = u16::try_from(nanos / 1_000_000).map_err(|_| wrong())?;
    Ok(Some(UnixMillis(millis.checked_add(i64::from(part)).ok_or_else(wrong)?)))
}

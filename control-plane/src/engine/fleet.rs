//! What the engine does about agents, their certificates and join tokens.

use std::time::Duration;

use lictor_proto::token::JoinToken as TokenText;
use lictor_proto::v1::{Agent, EnrollRequest, EnrollResponse, JoinToken, RenewIdentityRequest, RenewIdentityResponse};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Engine, Refusal};
use crate::access::Caller;
use crate::audit::{Action, Actor, Event};
use crate::authority::AuthorityError;
use crate::clock::Now;
use crate::dispatch::AgentEntry;
use crate::enrolment::{self, Holder, Refused, Verdict};
use crate::store::StoreError;
use crate::store::fleet::{self, JoinTokenRecord, NewCertificate};
use crate::validate::quoted;

/// A join token to be stored.
pub(crate) struct NewJoinToken {
    pub(crate) token_id: String,
    pub(crate) secret_hash: [u8; 32],
    pub(crate) scope: String,
    pub(crate) tags: Vec<String>,
    pub(crate) max_uses: u32,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) description: String,
}

impl Engine {
    pub(super) async fn drain_agent(
        &mut self,
        agent: &str,
        reason: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<Agent, Refusal>, StoreError> {
        let agent_id = match self.agent_id(agent, by) {
            Ok(agent_id) => agent_id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.parts.ledger.drain(&agent_id, reason);
        info!(agent_id, "Agent asked to drain");
        self.audit_of(by, Action::AgentDrained, ("agent", &agent_id), json!({ "reason": reason }), now).await?;
        Ok(self.agent_view(&agent_id))
    }

    pub(super) async fn revoke_agent(
        &mut self,
        agent: &str,
        reason: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<Agent, Refusal>, StoreError> {
        let agent_id = match self.agent_id(agent, by) {
            Ok(agent_id) => agent_id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        fleet::revoke_certificates(self.database().await?, &agent_id, now.wall).await?;
        self.parts.ledger.revoke(&agent_id, reason, now);
        info!(agent_id, "Agent revoked");
        self.audit_of(by, Action::AgentRevoked, ("agent", &agent_id), json!({ "reason": reason }), now).await?;
        Ok(self.agent_view(&agent_id))
    }

    fn agent_id(&self, agent: &str, by: &Caller) -> Result<String, Refusal> {
        match self.parts.ledger.find_agent(agent).filter(|found| by.sees(&found.scope)) {
            Some(found) => Ok(found.agent_id.clone()),
            None => Err(Refusal::NotFound(format!("there is no agent with the id or name {}", quoted(agent)))),
        }
    }

    fn agent_view(&self, agent_id: &str) -> Result<Agent, Refusal> {
        let agent = self.parts.ledger.agent(agent_id);
        agent.map(AgentEntry::view).ok_or_else(|| Refusal::Internal("the agent has vanished".into()))
    }

    pub(super) async fn create_join_token(
        &mut self,
        new: NewJoinToken,
        by: &Caller,
        now: Now,
    ) -> Result<JoinToken, StoreError> {
        let record = JoinTokenRecord {
            token_id: new.token_id,
            secret_hash: new.secret_hash.to_vec(),
            scope: new.scope,
            tags: new.tags,
            max_uses: new.max_uses,
            uses: 0,
            created_at: now.wall,
            expires_at: new.lifetime.map(|lifetime| now.wall.plus(lifetime)),
            revoked_at: None,
            description: new.description,
        };
        fleet::add_join_token(self.database().await?, &record).await?;
        info!(token_id = record.token_id, "Join token made");
        let details = json!({ "scope": record.scope, "tags": record.tags, "max_uses": record.max_uses });
        self.audit_of(by, Action::JoinTokenCreated, ("join_token", &record.token_id), details, now).await?;
        Ok(record.view())
    }

    pub(super) async fn revoke_join_token(
        &mut self,
        token_id: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<JoinToken, Refusal>, StoreError> {
        let database = self.database().await?;
        let found = fleet::join_token(database, token_id).await?;
        let Some(mut record) = found.filter(|record| by.sees(&record.scope)) else {
            return Ok(Err(Refusal::NotFound(format!("there is no join token with the id {}", quoted(token_id)))));
        };
        if record.revoked_at.is_none() {
            fleet::revoke_join_token(database, token_id, now.wall).await?;
            record.revoked_at = Some(now.wall);
            info!(token_id, "Join token revoked");
            self.audit_of(by, Action::JoinTokenRevoked, ("join_token", token_id), json!({}), now).await?;
        }
        Ok(Ok(record.view()))
    }

    pub(super) async fn enroll(
        &mut self,
        request: EnrollRequest,
        source: &str,
        now: Now,
    ) -> Result<Result<EnrollResponse, Refusal>, StoreError> {
        let token = match self.check_join_token(&request.join_token).await? {
            Ok(token) => token,
            Err(refusal) => {
                warn!(name = request.name, reason = %refusal, "Enrolment refused");
                return Ok(Err(refusal));
            }
        };
        let key_hash = match self.parts.authority.requested_key(&request.csr_der) {
            Ok(key_hash) => key_hash,
            Err(error) => return Ok(Err(refuse_request(error))),
        };
        let holder = self.holder(&request.name, &token.token_id, &key_hash).await?;
        let verdict = enrolment::decide(&token, &request.scope, holder.as_ref(), now.wall);
        let repeat = matches!(verdict, Verdict::Repeat(_));
        let agent_id = match verdict {
            Verdict::New => Uuid::now_v7().to_string(),
            Verdict::Again(agent_id) | Verdict::Repeat(agent_id) => agent_id,
            Verdict::Refused(why) => {
                warn!(name = request.name, token_id = token.token_id, reason = %why, "Enrolment refused");
                return Ok(Err(refuse_enrolment(why, &request.name)));
            }
        };
        let lifetime = self.parts.agent_certificate_lifetime;
        let certificate = match self.parts.authority.issue_agent(&request.csr_der, &agent_id, &request.name, lifetime) {
            Ok(certificate) => certificate,
            Err(error) => return Ok(Err(refuse_request(error))),
        };
        if !repeat {
            fleet::use_join_token(self.database().await?, &token.token_id).await?;
        }
        let name = request.name.clone();
        // A repeated answer is for the agent as it is.
        let asked = match &holder {
            Some(holder) if repeat => Some(holder.scope.clone()),
            _ => enrolment::scope(&token, &request.scope).map(str::to_owned),
        };
        let scope = asked.unwrap_or_else(|| token.scope.clone());
        self.parts.ledger.enrolled(AgentEntry {
            agent_id: agent_id.clone(),
            name: request.name,
            own_tags: request.tags,
            token_tags: token.tags,
            scope: scope.clone(),
            version: request.version,
            description: request.description,
            sealing_key: request.sealing_key,
            slots: 0,
            capabilities: Vec::new(),
            enrolled_at: now.wall,
            last_seen_at: Some(now.wall),
            certificate_not_after: certificate.not_after,
            drain_reason: None,
            revoked: None,
            journal_lost: false,
            instance_id: String::new(),
            degraded: Vec::new(),
            kerberos_principals: Vec::new(),
            slots_used: 0,
            resident_bytes: 0,
            link: None,
        });
        // The certificate's record refers to the agent's.
        self.persist(now).await?;
        let new = NewCertificate {
            serial: &certificate.serial,
            agent_id: &agent_id,
            not_after: certificate.not_after,
            key_hash,
            join_token_id: Some(&token.token_id),
        };
        fleet::add_certificate(self.database().await?, &new, now.wall).await?;
        info!(agent_id, token_id = token.token_id, serial = certificate.serial, "Agent enrolled");
        let event = Event {
            action: Action::AgentEnrolled,
            actor: Actor::JoinToken { token_id: &token.token_id, source },
            object: ("agent", &agent_id),
            outcome: "ok",
            details: json!({
                "name": name,
                "scope": scope,
                "serial": certificate.serial,
                "repeat": repeat.then_some(true),
            }),
        };
        self.audit(&event, now).await?;
        Ok(Ok(EnrollResponse {
            agent_id,
            certificate_pem: certificate.chain_pem,
            ca_pem: self.parts.authority.ca_pem().to_owned(),
            not_after: Some(certificate.not_after.timestamp()),
            scope,
        }))
    }

    /// The agent that has the name, as far as it matters to who wants to enrol under it.
    async fn holder(&mut self, name: &str, token_id: &str, key_hash: &[u8; 32]) -> Result<Option<Holder>, StoreError> {
        let found = self.parts.ledger.find_agent(name).filter(|agent| agent.name == name);
        let Some(agent) = found else { return Ok(None) };
        let mut holder = Holder {
            agent_id: agent.agent_id.clone(),
            scope: agent.scope.clone(),
            revoked_at: agent.revoked.as_ref().map(|(at, _)| *at),
            connected: agent.link.is_some() || self.parts.ledger.is_between_polls(&agent.agent_id),
            same_key: false,
            enrolled_by_this: None,
        };
        for (issued_at, by) in fleet::certificates_with_key(self.database().await?, &holder.agent_id, key_hash).await? {
            holder.same_key = true;
            if by.is_some_and(|by| by == token_id) {
                holder.enrolled_by_this = holder.enrolled_by_this.max(Some(issued_at));
            }
        }
        Ok(Some(holder))
    }

    /// The token's record, if the text proves possession.
    async fn check_join_token(&mut self, text: &str) -> Result<Result<JoinTokenRecord, Refusal>, StoreError> {
        let refuse = |text: &str| Ok(Err(Refusal::Unauthenticated(format!("{text}; {TOKEN_REMEDY}"))));
        let token: TokenText = match text.parse() {
            Ok(token) => token,
            Err(error) => return refuse(&error.to_string()),
        };
        let record = fleet::join_token(self.database().await?, &token.id).await?;
        // The same work whether or not the record exists; only the holder of the secret learns more than "unknown".
        let expected = record.as_ref().map_or(vec![0; 32], |record| record.secret_hash.clone());
        let presented: [u8; 32] = Sha256::digest(*token.secret).into();
        let proven = bool::from(presented.as_slice().ct_eq(&expected));
        let Some(record) = record.filter(|_| proven) else {
            return refuse("the join token is unknown here");
        };
        Ok(Ok(record))
    }

    pub(super) async fn renew(
        &mut self,
        agent_id: &str,
        request: RenewIdentityRequest,
        now: Now,
    ) -> Result<Result<RenewIdentityResponse, Refusal>, StoreError> {
        let Some(agent) = self.parts.ledger.agent(agent_id).filter(|agent| agent.revoked.is_none()) else {
            return Ok(Err(Refusal::Denied("the agent was revoked".into())));
        };
        let key_hash = match self.parts.authority.requested_key(&request.csr_der) {
            Ok(key_hash) => key_hash,
            Err(error) => return Ok(Err(refuse_request(error))),
        };
        let lifetime = self.parts.agent_certificate_lifetime;
        let certificate = match self.parts.authority.issue_agent(&request.csr_der, agent_id, &agent.name, lifetime) {
            Ok(certificate) => certificate,
            Err(error) => return Ok(Err(refuse_request(error))),
        };
        self.parts.ledger.renewed(agent_id, request.sealing_key, certificate.not_after);
        // The old one stays good until it ends: the agent may die before it has stored the new one.
        let new = NewCertificate {
            serial: &certificate.serial,
            agent_id,
            not_after: certificate.not_after,
            key_hash,
            join_token_id: None,
        };
        fleet::add_certificate(self.database().await?, &new, now.wall).await?;
        info!(agent_id, serial = certificate.serial, "Identity renewed");
        let event = Event {
            action: Action::AgentRenewed,
            actor: Actor::Agent(agent_id),
            object: ("agent", agent_id),
            outcome: "ok",
            details: json!({ "serial": certificate.serial }),
        };
        self.audit(&event, now).await?;
        Ok(Ok(RenewIdentityResponse {
            certificate_pem: certificate.chain_pem,
            ca_pem: self.parts.authority.ca_pem().to_owned(),
            not_after: Some(certificate.not_after.timestamp()),
        }))
    }
}

fn refuse_enrolment(why: Refused, name: &str) -> Refusal {
    match why {
        Refused::Revoked | Refused::Expired | Refused::UsedUp => {
            Refusal::Unauthenticated(format!("{why}; {TOKEN_REMEDY}"))
        }
        Refused::AgentRevoked => {
            Refusal::Denied(format!("{why}; enrol {name:?} with a new join token, or under another name"))
        }
        Refused::BeyondScope => Refusal::Unauthenticated(format!(
            "{why}; make one whose scope it is or is below with `lictor token create --scope`, or set another `scope`"
        )),
        Refused::OtherScope => Refusal::Taken(format!(
            "{why}; choose another name than {name:?}, or use a join token of that agent's scope"
        )),
        // Agents try again: who lost the state directory gets in once the old connection is known to be gone.
        Refused::Connected => Refusal::Impossible(format!(
            "{why}; {name:?} can enrol anew once that one is gone or revoked, or under another name"
        )),
    }
}

fn refuse_request(error: AuthorityError) -> Refusal {
    match error {
        AuthorityError::BadRequest => Refusal::Invalid(format!("csr_der: {error}")),
        other => Refusal::Internal(other.to_string()),
    }
}

const TOKEN_REMEDY: &str = "make a new one with `lictor token create`";

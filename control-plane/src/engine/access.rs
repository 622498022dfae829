//! What the engine does about users, their tokens and the audit log.
//!
//! Every entry of the log is stored in the transaction of what it tells of.

use std::time::Duration;

use lictor_proto::v1::{TaskSpec, task_spec};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tracing::info;

use super::{Engine, Refusal};
use crate::access::{Caller, Role, Summary, token_id};
use crate::audit::{Action, Actor, Chain, Event};
use crate::clock::{Now, UnixMillis};
use crate::dispatch::Finished;
use crate::store::access::{self, TokenRecord, UserRecord};
use crate::store::{StoreError, audit};
use crate::validate::quoted;

/// A user to be made, checked.
pub(crate) struct NewUser {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) scope: String,
    pub(crate) description: String,
}

/// A token to be stored.
pub(crate) struct NewToken {
    pub(crate) user: String,
    pub(crate) hash: [u8; 32],
    pub(crate) lifetime: Option<Duration>,
    pub(crate) description: String,
}

/// The end of the audit log as it was committed.
pub(crate) async fn open_chain(writer: &mut SqliteConnection) -> Result<Chain, StoreError> {
    let last = audit::last(writer).await?;
    Ok(Chain::after(last.as_ref().map(|line| (line.seq, line.text.as_str()))))
}

impl Engine {
    /// Adds an entry to the audit log, within this turn's transaction.
    pub(super) async fn audit(&mut self, event: &Event<'_>, now: Now) -> Result<(), StoreError> {
        let (seq, line) = self.parts.chain.next(event, now.wall);
        audit::append(self.database().await?, seq, now.wall, &line).await?;
        self.audited = Some(seq);
        self.parts.metrics.audited();
        Ok(())
    }

    /// Adds an entry about what a user did.
    pub(super) async fn audit_of(
        &mut self,
        by: &Caller,
        action: Action,
        object: (&'static str, &str),
        details: Value,
        now: Now,
    ) -> Result<(), StoreError> {
        self.audit(&Event { action, actor: Actor::User(by), object, outcome: "ok", details }, now).await
    }

    pub(super) async fn audit_finished(&mut self, finished: &Finished, now: Now) -> Result<(), StoreError> {
        let task = &finished.task;
        let agent = task.agent_id.as_deref().filter(|_| finished.reported);
        let state = finished.result.outcome().as_str_name().trim_start_matches("TASK_STATE_").to_ascii_lowercase();
        let event = Event {
            action: Action::TaskFinished,
            actor: agent.map_or(Actor::ControlPlane, Actor::Agent),
            object: ("task", &task.task_id),
            outcome: &state,
            details: json!({
                "batch_id": task.claim.batch.as_deref(),
                "epoch": task.epoch,
                "exit_code": finished.result.exit_code,
                "code": finished.result.failure.as_ref().map(|failure| failure.code.as_str()),
            }),
        };
        self.audit(&event, now).await
    }

    pub(super) async fn who_am_i(
        &mut self,
        by: &Caller,
    ) -> Result<Result<(UserRecord, TokenRecord), Refusal>, StoreError> {
        let database = self.database().await?;
        let user = access::user(database, &by.user).await?;
        let token = access::token(database, &by.token_id).await?;
        Ok(user.zip(token).ok_or_else(|| Refusal::Internal("the user has vanished".into())))
    }

    pub(super) async fn create_user(
        &mut self,
        new: NewUser,
        by: &Caller,
        now: Now,
    ) -> Result<Result<UserRecord, Refusal>, StoreError> {
        let database = self.database().await?;
        if access::user(database, &new.name).await?.is_some() {
            return Ok(Err(Refusal::Taken(format!("the name {:?} is taken; choose another", new.name))));
        }
        if access::count_users(database).await? >= MAX_USERS {
            return Ok(Err(Refusal::Exhausted(format!("there are {MAX_USERS} users already"))));
        }
        let NewUser { name, role, scope, description } = new;
        let user = UserRecord { name, role, scope, description, created_at: now.wall, disabled_at: None };
        access::save_user(database, &user).await?;
        self.users_changed = true;
        info!(user = user.name, role = user.role.name(), "User made");
        let details = json!({ "role": user.role.name(), "scope": user.scope });
        self.audit_of(by, Action::UserCreated, ("user", &user.name), details, now).await?;
        Ok(Ok(user))
    }

    pub(super) async fn set_user(
        &mut self,
        name: &str,
        enabled: bool,
        by: &Caller,
        now: Now,
    ) -> Result<Result<UserRecord, Refusal>, StoreError> {
        let database = self.database().await?;
        let Some(mut user) = access::user(database, name).await?.filter(|user| by.sees(&user.scope)) else {
            return Ok(Err(no_user(name)));
        };
        if user.disabled_at.is_none() == enabled {
            return Ok(Ok(user));
        }
        let last = user.role == Role::Admin && user.scope.is_empty();
        if !enabled && last && access::count_administrators(database).await? <= 1 {
            let text = "this is the last user who may do everything; make another one first";
            return Ok(Err(Refusal::Impossible(text.into())));
        }
        user.disabled_at = (!enabled).then_some(now.wall);
        access::save_user(database, &user).await?;
        self.users_changed = true;
        info!(user = user.name, enabled, "User enabled or disabled");
        let action = if enabled { Action::UserEnabled } else { Action::UserDisabled };
        self.audit_of(by, action, ("user", &user.name), json!({}), now).await?;
        Ok(Ok(user))
    }

    pub(super) async fn issue_token(
        &mut self,
        new: NewToken,
        by: &Caller,
        now: Now,
    ) -> Result<Result<TokenRecord, Refusal>, StoreError> {
        let database = self.database().await?;
        let Some(user) = access::user(database, &new.user).await?.filter(|user| by.sees(&user.scope)) else {
            return Ok(Err(no_user(&new.user)));
        };
        let before = UnixMillis(now.wall.0.saturating_sub(KEEP_ENDED_MS));
        access::forget_tokens(database, &user.name, before).await?;
        if access::count_tokens(database, &user.name).await? >= MAX_TOKENS {
            let text = format!("the user has {MAX_TOKENS} tokens already; revoked ones count for 30 days");
            return Ok(Err(Refusal::Exhausted(text)));
        }
        let token = TokenRecord {
            token_id: token_id(&new.hash),
            user: user.name,
            hash: new.hash,
            description: new.description,
            created_at: now.wall,
            expires_at: new.lifetime.map(|lifetime| now.wall.plus(lifetime)),
            last_used_at: None,
            revoked_at: None,
        };
        // Two tokens whose hashes begin with the same 64 bits do not happen; if they do, the second is not made.
        if access::token(database, &token.token_id).await?.is_some() {
            return Ok(Err(Refusal::Internal("the new token's id is taken; try again".into())));
        }
        access::add_token(database, &token).await?;
        self.users_changed = true;
        info!(user = token.user, token_id = token.token_id, "User token issued");
        let details = json!({ "user": token.user, "lifetime_s": new.lifetime.map(|lifetime| lifetime.as_secs()) });
        self.audit_of(by, Action::UserTokenIssued, ("user_token", &token.token_id), details, now).await?;
        Ok(Ok(token))
    }

    pub(super) async fn revoke_token(
        &mut self,
        token_id: &str,
        by: &Caller,
        now: Now,
    ) -> Result<Result<TokenRecord, Refusal>, StoreError> {
        let database = self.database().await?;
        let missing = || Refusal::NotFound(format!("there is no user token with the id {}", quoted(token_id)));
        let Some(mut token) = access::token(database, token_id).await? else { return Ok(Err(missing())) };
        if access::user(database, &token.user).await?.is_none_or(|user| !by.sees(&user.scope)) {
            return Ok(Err(missing()));
        }
        if token.revoked_at.is_none() {
            access::revoke_token(database, token_id, now.wall).await?;
            token.revoked_at = Some(now.wall);
            self.users_changed = true;
            info!(user = token.user, token_id, "User token revoked");
            let details = json!({ "user": token.user });
            self.audit_of(by, Action::UserTokenRevoked, ("user_token", token_id), details, now).await?;
        }
        Ok(Ok(token))
    }

    /// Notes that the log is exported; the number of its last entry, which is this note.
    pub(super) async fn note_export(
        &mut self,
        from: Option<UnixMillis>,
        to: Option<UnixMillis>,
        follow: bool,
        by: &Caller,
        now: Now,
    ) -> Result<u64, StoreError> {
        let details = json!({ "from_ms": from.map(|at| at.0), "to_ms": to.map(|at| at.0), "follow": follow });
        self.audit_of(by, Action::AuditExported, ("audit", "log"), details, now).await?;
        Ok(self.audited.unwrap_or_default())
    }

    pub(super) async fn note_access(
        &mut self,
        refused: Option<Summary>,
        used: &[(String, UnixMillis)],
        now: Now,
    ) -> Result<(), StoreError> {
        access::note_use(self.database().await?, used).await?;
        let Some(refused) = refused else { return Ok(()) };
        let details = json!({
            "count": refused.total(),
            "reasons": refused.reasons,
            "sources": refused.sources,
            "other_sources": refused.others,
            "names": refused.names,
        });
        let event = Event {
            action: Action::AccessRefused,
            actor: Actor::Strangers,
            object: ("access", "calls"),
            outcome: "refused",
            details,
        };
        self.audit(&event, now).await
    }
}

/// What the log says of a task: never what may hold a secret.
pub(super) fn audited_spec(spec: &TaskSpec) -> Value {
    json!({
        "host": spec.target.as_ref().map(|target| target.host.as_str()),
        "credential": spec.credential,
        "kind": kind_of(spec),
        "scope": spec.selector.as_ref().map(|selector| selector.scope.as_str()),
    })
}

pub(super) fn kind_of(spec: &TaskSpec) -> &'static str {
    match &spec.kind {
        Some(task_spec::Kind::ConnectionTest(_)) => "connection_test",
        Some(task_spec::Kind::Command(_)) => "command",
        Some(task_spec::Kind::Script(_)) => "script",
        Some(task_spec::Kind::Diagnosis(_)) => "diagnosis",
        Some(task_spec::Kind::Posture(_)) => "posture",
        Some(task_spec::Kind::SecretManagerTest(_)) => "secret_manager_test",
        Some(task_spec::Kind::SealSecret(_)) => "seal_secret",
        None => "",
    }
}

fn no_user(name: &str) -> Refusal {
    Refusal::NotFound(format!("there is no user named {}", quoted(name)))
}

/// All of them are kept in memory.
const MAX_USERS: i64 = 10_000;
/// Of one user.
const MAX_TOKENS: i64 = 100;
const KEEP_ENDED_MS: i64 = 30 * 86_400_000;

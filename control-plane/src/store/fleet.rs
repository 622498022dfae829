//! Records of join tokens, agents and certificates.

use std::time::Duration;

use lictor_proto::v1::JoinToken;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{StoreError, from_json, millis, to_json};
use crate::clock::UnixMillis;
use crate::dispatch::AgentEntry;

/// A join token with what proves its possession.
#[derive(Debug, Clone)]
pub(crate) struct JoinTokenRecord {
    pub(crate) token_id: String,
    /// SHA-256 of the secret.
    pub(crate) secret_hash: Vec<u8>,
    pub(crate) scope: String,
    pub(crate) tags: Vec<String>,
    /// 0: until revoked.
    pub(crate) max_uses: u32,
    pub(crate) uses: u32,
    pub(crate) created_at: UnixMillis,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) revoked_at: Option<UnixMillis>,
    pub(crate) description: String,
}

impl JoinTokenRecord {
    pub(crate) fn view(&self) -> JoinToken {
        JoinToken {
            token_id: self.token_id.clone(),
            scope: self.scope.clone(),
            tags: self.tags.clone(),
            max_uses: self.max_uses,
            uses: self.uses,
            created_at: Some(self.created_at.timestamp()),
            expires_at: self.expires_at.map(UnixMillis::timestamp),
            revoked: self.revoked_at.is_some(),
            description: self.description.clone(),
        }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        let small = |value: i64| u32::try_from(value).map_err(|_| StoreError::Malformed("a join token's uses"));
        Ok(Self {
            token_id: row.try_get("token_id")?,
            secret_hash: row.try_get("secret_hash")?,
            scope: row.try_get("scope")?,
            tags: from_json(row.try_get("tags")?)?,
            max_uses: small(row.try_get("max_uses")?)?,
            uses: small(row.try_get("uses")?)?,
            created_at: UnixMillis(row.try_get("created_at")?),
            expires_at: millis(row.try_get("expires_at")?),
            revoked_at: millis(row.try_get("revoked_at")?),
            description: row.try_get("description")?,
        })
    }
}

pub(crate) async fn add_join_token(writer: &mut SqliteConnection, token: &JoinTokenRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO join_tokens (token_id, secret_hash, scope, tags, max_uses, uses, created_at, expires_at, \
         revoked_at, description) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&token.token_id)
    .bind(&token.secret_hash)
    .bind(&token.scope)
    .bind(to_json(&token.tags))
    .bind(i64::from(token.max_uses))
    .bind(i64::from(token.uses))
    .bind(token.created_at.0)
    .bind(token.expires_at.map(|at| at.0))
    .bind(token.revoked_at.map(|at| at.0))
    .bind(&token.description)
    .execute(writer)
    .await?;
    Ok(())
}

pub(crate) async fn join_token(
    writer: &mut SqliteConnection,
    token_id: &str,
) -> Result<Option<JoinTokenRecord>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM join_tokens WHERE token_id = $1").bind(token_id).fetch_optional(writer).await?;
    row.as_ref().map(JoinTokenRecord::from_row).transpose()
}

/// Tokens within the scope, older than the one named, newest first: identifiers grow with time.
pub(crate) async fn join_tokens(
    readers: &SqlitePool,
    scope: &str,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<JoinTokenRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM join_tokens WHERE ($1 IS NULL OR token_id < $1) \
         AND ($3 = '' OR scope = $3 OR substr(scope, 1, length($3) + 1) = $3 || '/') ORDER BY token_id DESC LIMIT $2",
    )
    .bind(before)
    .bind(i64::from(limit))
    .bind(scope)
    .fetch_all(readers)
    .await?;
    rows.iter().map(JoinTokenRecord::from_row).collect()
}

pub(crate) async fn use_join_token(writer: &mut SqliteConnection, token_id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE join_tokens SET uses = uses + 1 WHERE token_id = $1").bind(token_id).execute(writer).await?;
    Ok(())
}

pub(crate) async fn revoke_join_token(
    writer: &mut SqliteConnection,
    token_id: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE join_tokens SET revoked_at = $2 WHERE token_id = $1 AND revoked_at IS NULL")
        .bind(token_id)
        .bind(now.0)
        .execute(writer)
        .await?;
    Ok(())
}

pub(crate) async fn agents(writer: &mut SqliteConnection) -> Result<Vec<AgentEntry>, StoreError> {
    let rows = sqlx::query("SELECT * FROM agents").fetch_all(writer).await?;
    rows.iter().map(agent_from_row).collect()
}

fn agent_from_row(row: &SqliteRow) -> Result<AgentEntry, StoreError> {
    let revoked_at = millis(row.try_get("revoked_at")?);
    let revoke_reason: Option<String> = row.try_get("revoke_reason")?;
    Ok(AgentEntry {
        agent_id: row.try_get("agent_id")?,
        name: row.try_get("name")?,
        own_tags: from_json(row.try_get("own_tags")?)?,
        token_tags: from_json(row.try_get("token_tags")?)?,
        scope: row.try_get("scope")?,
        version: row.try_get("version")?,
        description: row.try_get("description")?,
        sealing_key: row.try_get("sealing_key")?,
        slots: u32::try_from(row.try_get::<i64, _>("slots")?).unwrap_or(0),
        capabilities: from_json(row.try_get("capabilities")?)?,
        enrolled_at: UnixMillis(row.try_get("enrolled_at")?),
        last_seen_at: millis(row.try_get("last_seen_at")?),
        certificate_not_after: UnixMillis(row.try_get("certificate_not_after")?),
        drain_reason: row.try_get("drain_reason")?,
        revoked: revoked_at.map(|at| (at, revoke_reason.unwrap_or_default())),
        journal_lost: row.try_get("journal_lost")?,
        instance_id: row.try_get("instance_id")?,
        degraded: Vec::new(),
        kerberos_principals: Vec::new(),
        slots_used: 0,
        resident_bytes: 0,
        link: None,
    })
}

/// Adds the agent or replaces its record.
pub(crate) async fn save_agent(writer: &mut SqliteConnection, agent: &AgentEntry) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO agents (agent_id, name, own_tags, token_tags, scope, version, description, sealing_key, slots, \
         capabilities, enrolled_at, last_seen_at, certificate_not_after, drain_reason, revoked_at, revoke_reason, \
         journal_lost, instance_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
         ON CONFLICT (agent_id) DO UPDATE SET name = excluded.name, own_tags = excluded.own_tags, \
         token_tags = excluded.token_tags, scope = excluded.scope, version = excluded.version, \
         description = excluded.description, sealing_key = excluded.sealing_key, slots = excluded.slots, \
         capabilities = excluded.capabilities, enrolled_at = excluded.enrolled_at, \
         last_seen_at = excluded.last_seen_at, certificate_not_after = excluded.certificate_not_after, \
         drain_reason = excluded.drain_reason, revoked_at = excluded.revoked_at, \
         revoke_reason = excluded.revoke_reason, journal_lost = excluded.journal_lost, \
         instance_id = excluded.instance_id",
    )
    .bind(&agent.agent_id)
    .bind(&agent.name)
    .bind(to_json(&agent.own_tags))
    .bind(to_json(&agent.token_tags))
    .bind(&agent.scope)
    .bind(&agent.version)
    .bind(&agent.description)
    .bind(&agent.sealing_key)
    .bind(i64::from(agent.slots))
    .bind(to_json(&agent.capabilities))
    .bind(agent.enrolled_at.0)
    .bind(agent.last_seen_at.map(|at| at.0))
    .bind(agent.certificate_not_after.0)
    .bind(&agent.drain_reason)
    .bind(agent.revoked.as_ref().map(|(at, _)| at.0))
    .bind(agent.revoked.as_ref().map(|(_, reason)| reason))
    .bind(agent.journal_lost)
    .bind(&agent.instance_id)
    .execute(writer)
    .await?;
    Ok(())
}

/// A certificate about to be recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewCertificate<'a> {
    pub(crate) serial: &'a str,
    pub(crate) agent_id: &'a str,
    pub(crate) not_after: UnixMillis,
    /// SHA-256 of its key.
    pub(crate) key_hash: [u8; 32],
    /// The join token it was got with; nothing for a renewal.
    pub(crate) join_token_id: Option<&'a str>,
}

/// Records a certificate. One that was got with a join token replaces all earlier ones of the agent: they are forgotten,
/// but for those that were revoked.
pub(crate) async fn add_certificate(
    writer: &mut SqliteConnection,
    new: &NewCertificate<'_>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if new.join_token_id.is_some() {
        sqlx::query("DELETE FROM certificates WHERE agent_id = $1 AND revoked_at IS NULL")
            .bind(new.agent_id)
            .execute(&mut *writer)
            .await?;
    }
    // Long expired ones tell nothing.
    sqlx::query("DELETE FROM certificates WHERE agent_id = $1 AND not_after < $2")
        .bind(new.agent_id)
        .bind(now.0.saturating_sub(i64::try_from(KEEP_EXPIRED.as_millis()).unwrap_or(i64::MAX)))
        .execute(&mut *writer)
        .await?;
    sqlx::query(
        "INSERT INTO certificates (serial, agent_id, issued_at, not_after, key_hash, join_token_id) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(new.serial)
    .bind(new.agent_id)
    .bind(now.0)
    .bind(new.not_after.0)
    .bind(&new.key_hash[..])
    .bind(new.join_token_id)
    .execute(writer)
    .await?;
    Ok(())
}

/// When the agent's certificates with this key were issued, and with which join token, without revoked ones.
pub(crate) async fn certificates_with_key(
    writer: &mut SqliteConnection,
    agent_id: &str,
    key_hash: &[u8; 32],
) -> Result<Vec<(UnixMillis, Option<String>)>, StoreError> {
    let rows = sqlx::query(
        "SELECT issued_at, join_token_id FROM certificates WHERE agent_id = $1 AND key_hash = $2 AND revoked_at IS NULL",
    )
    .bind(agent_id)
    .bind(&key_hash[..])
    .fetch_all(writer)
    .await?;
    rows.iter()
        .map(|row| Ok((UnixMillis(row.try_get("issued_at")?), row.try_get::<Option<String>, _>("join_token_id")?)))
        .collect()
}

pub(crate) async fn revoke_certificates(
    writer: &mut SqliteConnection,
    agent_id: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE certificates SET revoked_at = $2 WHERE agent_id = $1 AND revoked_at IS NULL")
        .bind(agent_id)
        .bind(now.0)
        .execute(writer)
        .await?;
    Ok(())
}

/// What the records say of a certificate that TLS has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// It, or its agent, was revoked.
    Revoked,
    /// It was never issued to this agent, as far as this database knows, or a newer enrolment replaced it.
    Unknown,
}

pub(crate) async fn certificate_standing(
    readers: &SqlitePool,
    serial: &str,
    agent_id: &str,
) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT c.revoked_at AS certificate_revoked, a.revoked_at AS agent_revoked FROM certificates c \
         JOIN agents a ON a.agent_id = c.agent_id WHERE c.serial = $1 AND c.agent_id = $2",
    )
    .bind(serial)
    .bind(agent_id)
    .fetch_optional(readers)
    .await?;
    let Some(row) = row else { return Ok(Standing::Unknown) };
    let certificate: Option<i64> = row.try_get("certificate_revoked")?;
    let agent: Option<i64> = row.try_get("agent_revoked")?;
    Ok(if certificate.or(agent).is_some() { Standing::Revoked } else { Standing::Good })
}

const KEEP_EXPIRED: Duration = Duration::from_secs(30 * 86400);

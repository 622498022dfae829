//! Records of users and their tokens. Of a token only its hash is kept.

use lictor_proto::v1::{User, UserToken};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{StoreError, millis, page};
use crate::access::Role;
use crate::clock::UnixMillis;

/// A user.
#[derive(Debug, Clone)]
pub(crate) struct UserRecord {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) scope: String,
    pub(crate) description: String,
    pub(crate) created_at: UnixMillis,
    pub(crate) disabled_at: Option<UnixMillis>,
}

impl UserRecord {
    pub(crate) fn view(&self) -> User {
        User {
            name: self.name.clone(),
            role: self.role.number(),
            scope: self.scope.clone(),
            created_at: Some(self.created_at.timestamp()),
            disabled_at: self.disabled_at.map(UnixMillis::timestamp),
            description: self.description.clone(),
        }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        Ok(Self {
            name: row.try_get("name")?,
            role: Role::from_number(row.try_get("role")?).ok_or(StoreError::Malformed("a user's role"))?,
            scope: row.try_get("scope")?,
            description: row.try_get("description")?,
            created_at: UnixMillis(row.try_get("created_at")?),
            disabled_at: millis(row.try_get("disabled_at")?),
        })
    }
}

/// A token of a user.
#[derive(Debug, Clone)]
pub(crate) struct TokenRecord {
    pub(crate) token_id: String,
    pub(crate) user: String,
    pub(crate) hash: [u8; 32],
    pub(crate) description: String,
    pub(crate) created_at: UnixMillis,
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) last_used_at: Option<UnixMillis>,
    pub(crate) revoked_at: Option<UnixMillis>,
}

impl TokenRecord {
    pub(crate) fn view(&self) -> UserToken {
        UserToken {
            token_id: self.token_id.clone(),
            user: self.user.clone(),
            created_at: Some(self.created_at.timestamp()),
            expires_at: self.expires_at.map(UnixMillis::timestamp),
            last_used_at: self.last_used_at.map(UnixMillis::timestamp),
            revoked_at: self.revoked_at.map(UnixMillis::timestamp),
            description: self.description.clone(),
        }
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        let hash: Vec<u8> = row.try_get("token_hash")?;
        Ok(Self {
            token_id: row.try_get("token_id")?,
            user: row.try_get("user_name")?,
            hash: hash.try_into().map_err(|_| StoreError::Malformed("a token's hash"))?,
            description: row.try_get("description")?,
            created_at: UnixMillis(row.try_get("created_at")?),
            expires_at: millis(row.try_get("expires_at")?),
            last_used_at: millis(row.try_get("last_used_at")?),
            revoked_at: millis(row.try_get("revoked_at")?),
        })
    }
}

/// All users and all tokens.
pub(crate) async fn all(writer: &mut SqliteConnection) -> Result<(Vec<UserRecord>, Vec<TokenRecord>), StoreError> {
    let users = sqlx::query("SELECT * FROM users").fetch_all(&mut *writer).await?;
    let tokens = sqlx::query("SELECT * FROM user_tokens").fetch_all(writer).await?;
    let users: Result<_, _> = users.iter().map(UserRecord::from_row).collect();
    let tokens: Result<_, _> = tokens.iter().map(TokenRecord::from_row).collect();
    Ok((users?, tokens?))
}

pub(crate) async fn user(writer: &mut SqliteConnection, name: &str) -> Result<Option<UserRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM users WHERE name = $1").bind(name).fetch_optional(writer).await?;
    row.as_ref().map(UserRecord::from_row).transpose()
}

/// Adds a user or replaces the record.
pub(crate) async fn save_user(writer: &mut SqliteConnection, user: &UserRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users (name, role, scope, description, created_at, disabled_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (name) DO UPDATE SET role = excluded.role, scope = excluded.scope, \
         description = excluded.description, disabled_at = excluded.disabled_at",
    )
    .bind(&user.name)
    .bind(user.role.number())
    .bind(&user.scope)
    .bind(&user.description)
    .bind(user.created_at.0)
    .bind(user.disabled_at.map(|at| at.0))
    .execute(writer)
    .await?;
    Ok(())
}

pub(crate) async fn count_users(writer: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(writer).await?)
}

/// How many users who may do everything are not disabled.
pub(crate) async fn count_administrators(writer: &mut SqliteConnection) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE role = $1 AND scope = '' AND disabled_at IS NULL");
    Ok(count.bind(Role::Admin.number()).fetch_one(writer).await?)
}

pub(crate) async fn token(writer: &mut SqliteConnection, token_id: &str) -> Result<Option<TokenRecord>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM user_tokens WHERE token_id = $1").bind(token_id).fetch_optional(writer).await?;
    row.as_ref().map(TokenRecord::from_row).transpose()
}

pub(crate) async fn add_token(writer: &mut SqliteConnection, token: &TokenRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO user_tokens (token_id, user_name, token_hash, description, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&token.token_id)
    .bind(&token.user)
    .bind(&token.hash[..])
    .bind(&token.description)
    .bind(token.created_at.0)
    .bind(token.expires_at.map(|at| at.0))
    .execute(writer)
    .await?;
    Ok(())
}

pub(crate) async fn count_tokens(writer: &mut SqliteConnection, user: &str) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM user_tokens WHERE user_name = $1");
    Ok(count.bind(user).fetch_one(writer).await?)
}

/// Forgets tokens of the user that ended before `before`: their story is in the audit log.
pub(crate) async fn forget_tokens(
    writer: &mut SqliteConnection,
    user: &str,
    before: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_tokens WHERE user_name = $1 AND (revoked_at < $2 OR expires_at < $2)")
        .bind(user)
        .bind(before.0)
        .execute(writer)
        .await?;
    Ok(())
}

pub(crate) async fn revoke_token(
    writer: &mut SqliteConnection,
    token_id: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE user_tokens SET revoked_at = $2 WHERE token_id = $1 AND revoked_at IS NULL")
        .bind(token_id)
        .bind(now.0)
        .execute(writer)
        .await?;
    Ok(())
}

/// Notes when tokens were last used.
pub(crate) async fn note_use(writer: &mut SqliteConnection, used: &[(String, UnixMillis)]) -> Result<(), StoreError> {
    for (token_id, at) in used {
        sqlx::query("UPDATE user_tokens SET last_used_at = $2 WHERE token_id = $1")
            .bind(token_id)
            .bind(at.0)
            .execute(&mut *writer)
            .await?;
    }
    Ok(())
}

/// Users within the scope, by name, behind the one named.
pub(crate) async fn users(
    readers: &SqlitePool,
    scope: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<UserRecord>, StoreError> {
    let statement = "SELECT * FROM users WHERE name > $1 \
         AND ($3 = '' OR scope = $3 OR substr(scope, 1, length($3) + 1) = $3 || '/') ORDER BY name LIMIT $2";
    page(readers, statement, scope, after, limit, UserRecord::from_row).await
}

/// Tokens of users within the scope, by user and identifier, behind the one named; of one user when one is named.
pub(crate) async fn tokens(
    readers: &SqlitePool,
    scope: &str,
    of: &str,
    after: (&str, &str),
    limit: u32,
) -> Result<Vec<TokenRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT t.* FROM user_tokens t JOIN users u ON u.name = t.user_name WHERE ($2 = '' OR t.user_name = $2) \
         AND ($1 = '' OR u.scope = $1 OR substr(u.scope, 1, length($1) + 1) = $1 || '/') \
         AND (t.user_name > $3 OR (t.user_name = $3 AND t.token_id > $4)) ORDER BY t.user_name, t.token_id LIMIT $5",
    )
    .bind(scope)
    .bind(of)
    .bind(after.0)
    .bind(after.1)
    .bind(i64::from(limit))
    .fetch_all(readers)
    .await?;
    rows.iter().map(TokenRecord::from_row).collect()
}

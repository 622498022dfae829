//! Users and their tokens.

use lictor_proto::v1;
use serde::Serialize;

use super::time;
use crate::console;
use crate::failure::clean;

/// A user.
#[derive(Debug, Serialize)]
pub(in crate::control) struct UserView {
    name: String,
    role: &'static str,
    scope: String,
    created_at: Option<String>,
    disabled_at: Option<String>,
    description: String,
}

impl From<v1::User> for UserView {
    fn from(user: v1::User) -> Self {
        let role = match user.role() {
            v1::Role::Viewer => "viewer",
            v1::Role::Operator => "operator",
            v1::Role::Admin => "admin",
            v1::Role::Unspecified => "unknown",
        };
        Self {
            name: user.name,
            role,
            scope: user.scope,
            created_at: time(user.created_at),
            disabled_at: time(user.disabled_at),
            description: user.description,
        }
    }
}

impl UserView {
    /// One line: what happened to the user.
    pub(in crate::control) fn state_line(&self) -> String {
        format!("user {}: {}, {}\n", clean(&self.name), self.rights(), self.state())
    }

    fn rights(&self) -> String {
        let scope = if self.scope.is_empty() { "everything".to_owned() } else { clean(&self.scope) };
        format!("{} of {scope}", self.role)
    }

    fn state(&self) -> &'static str {
        if self.disabled_at.is_some() { "disabled" } else { "enabled" }
    }
}

/// Users in lines.
pub(in crate::control) fn user_table(users: &[UserView]) -> String {
    console::table(
        &["name", "role", "scope", "state", "created", "description"],
        users.iter().map(|user| {
            vec![
                user.name.clone(),
                user.role.to_owned(),
                user.scope.clone(),
                user.state().to_owned(),
                user.created_at.clone().unwrap_or_default(),
                user.description.clone(),
            ]
        }),
    )
}

/// A token of a user, without its secret.
#[derive(Debug, Serialize)]
pub(in crate::control) struct UserTokenView {
    token_id: String,
    user: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
    description: String,
}

impl From<v1::UserToken> for UserTokenView {
    fn from(token: v1::UserToken) -> Self {
        Self {
            token_id: token.token_id,
            user: token.user,
            created_at: time(token.created_at),
            expires_at: time(token.expires_at),
            last_used_at: time(token.last_used_at),
            revoked_at: time(token.revoked_at),
            description: token.description,
        }
    }
}

impl UserTokenView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        let state = if self.revoked_at.is_some() { "revoked" } else { "valid" };
        format!("user token {} of {}: {state}\n", clean(&self.token_id), clean(&self.user))
    }
}

/// Tokens in lines.
pub(in crate::control) fn user_token_table(tokens: &[UserTokenView]) -> String {
    console::table(
        &["token", "user", "created", "expires", "last used", "revoked", "description"],
        tokens.iter().map(|token| {
            vec![
                token.token_id.clone(),
                token.user.clone(),
                token.created_at.clone().unwrap_or_default(),
                token.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
                token.last_used_at.clone().unwrap_or_else(|| "never".to_owned()),
                token.revoked_at.clone().unwrap_or_else(|| "no".to_owned()),
                token.description.clone(),
            ]
        }),
    )
}

/// Who we are.
#[derive(Debug, Serialize)]
pub(in crate::control) struct IdentityView {
    pub(in crate::control) user: UserView,
    pub(in crate::control) token: UserTokenView,
}

impl IdentityView {
    /// Two lines.
    pub(in crate::control) fn page(&self) -> String {
        let expires = self.token.expires_at.as_ref().map_or("never expires".to_owned(), |at| format!("expires {at}"));
        let (name, token_id) = (clean(&self.user.name), clean(&self.token.token_id));
        format!("{name}: {}\ntoken {token_id}: {expires}\n", self.user.rights())
    }
}

//! Agents, join tokens and credentials: what tasks run on and with.

use lictor_proto::v1;
use serde::Serialize;

use super::time;
use crate::console;
use crate::failure::clean;

/// An agent.
#[derive(Debug, Serialize)]
pub(in crate::control) struct AgentView {
    agent_id: String,
    name: String,
    state: &'static str,
    tags: Vec<String>,
    scope: String,
    version: String,
    slots: u32,
    slots_used: u32,
    enrolled_at: Option<String>,
    last_seen_at: Option<String>,
    certificate_not_after: Option<String>,
    degraded: Vec<String>,
    resident_bytes: u64,
    description: String,
    capabilities: Vec<String>,
    kerberos_principals: Vec<String>,
}

impl From<v1::Agent> for AgentView {
    fn from(agent: v1::Agent) -> Self {
        let state = match agent.state() {
            v1::AgentState::Online => "online",
            v1::AgentState::Offline => "offline",
            v1::AgentState::Draining => "draining",
            v1::AgentState::Revoked => "revoked",
            v1::AgentState::Unspecified => "unknown",
        };
        Self {
            agent_id: agent.agent_id,
            name: agent.name,
            state,
            tags: agent.tags,
            scope: agent.scope,
            version: agent.version,
            slots: agent.slots,
            slots_used: agent.slots_used,
            enrolled_at: time(agent.enrolled_at),
            last_seen_at: time(agent.last_seen_at),
            certificate_not_after: time(agent.certificate_not_after),
            degraded: agent.degraded,
            resident_bytes: agent.resident_bytes,
            description: agent.description,
            capabilities: agent.capabilities,
            kerberos_principals: agent.kerberos_principals,
        }
    }
}

impl AgentView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        format!("agent {} ({}): {}\n", clean(&self.name), clean(&self.agent_id), self.state)
    }
}

/// Agents in lines.
pub(in crate::control) fn agent_table(agents: &[AgentView]) -> String {
    console::table(
        &["agent", "name", "state", "slots", "memory", "tags", "scope", "last seen", "degraded"],
        agents.iter().map(|agent| {
            #[expect(clippy::cast_precision_loss, reason = "a figure for eyes with one digit after the point")]
            let memory = agent.resident_bytes as f64 / f64::from(1 << 20);
            vec![
                agent.agent_id.clone(),
                agent.name.clone(),
                agent.state.to_owned(),
                format!("{}/{}", agent.slots_used, agent.slots),
                if agent.resident_bytes == 0 { String::new() } else { format!("{memory:.1} MiB") },
                agent.tags.join(","),
                agent.scope.clone(),
                agent.last_seen_at.clone().unwrap_or_default(),
                agent.degraded.join("; "),
            ]
        }),
    )
}

/// A join token without its secret.
#[derive(Debug, Serialize)]
pub(in crate::control) struct TokenView {
    token_id: String,
    scope: String,
    tags: Vec<String>,
    max_uses: u32,
    uses: u32,
    created_at: Option<String>,
    expires_at: Option<String>,
    revoked: bool,
    description: String,
}

impl From<v1::JoinToken> for TokenView {
    fn from(token: v1::JoinToken) -> Self {
        Self {
            token_id: token.token_id,
            scope: token.scope,
            tags: token.tags,
            max_uses: token.max_uses,
            uses: token.uses,
            created_at: time(token.created_at),
            expires_at: time(token.expires_at),
            revoked: token.revoked,
            description: token.description,
        }
    }
}

impl TokenView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        format!("join token {}: {}\n", clean(&self.token_id), if self.revoked { "revoked" } else { "valid" })
    }
}

/// Join tokens in lines.
pub(in crate::control) fn token_table(tokens: &[TokenView]) -> String {
    console::table(
        &["token", "uses", "created", "expires", "revoked", "tags", "scope", "description"],
        tokens.iter().map(|token| {
            let most = if token.max_uses == 0 { "any".to_owned() } else { token.max_uses.to_string() };
            vec![
                token.token_id.clone(),
                format!("{}/{most}", token.uses),
                token.created_at.clone().unwrap_or_default(),
                token.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
                if token.revoked { "yes" } else { "no" }.to_owned(),
                token.tags.join(","),
                token.scope.clone(),
                token.description.clone(),
            ]
        }),
    )
}

/// A credential without its secret.
#[derive(Debug, Serialize)]
pub(in crate::control) struct CredentialView {
    name: String,
    username: String,
    domain: String,
    connection: SettingsView,
    no_profile: bool,
    description: String,
    scope: String,
    version: u64,
    secret_kind: &'static str,
    /// The stored secret that it is, in place of one of its own.
    secret: Option<String>,
    agent_path: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    rejected_at: Option<String>,
}

/// Connection settings; nothing means inherited.
#[derive(Debug, Serialize)]
struct SettingsView {
    scheme: Option<&'static str>,
    port: Option<u32>,
    path: Option<String>,
    auth: Option<&'static str>,
    ca_pem: Option<String>,
    ca_secret: Option<String>,
    skip_cert_check: Option<bool>,
    message_encryption: Option<&'static str>,
    send_channel_bindings: Option<bool>,
    allow_basic_over_http: Option<bool>,
    kerberos: Option<KerberosView>,
}

/// Settings of Kerberos; nothing means inherited.
#[derive(Debug, Serialize)]
struct KerberosView {
    realm: Option<String>,
    spn_service: Option<String>,
    spn_host: Option<String>,
    delegate: Option<bool>,
    kinit_mode: Option<&'static str>,
    fresh_tickets: Option<bool>,
    trace: Option<bool>,
}

impl From<v1::KerberosSettings> for KerberosView {
    fn from(settings: v1::KerberosSettings) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            kinit_mode: match settings.kinit_mode() {
                v1::KinitMode::Unspecified => None,
                v1::KinitMode::Managed => Some("managed"),
                v1::KinitMode::Manual => Some("manual"),
            },
            realm: given(settings.realm),
            spn_service: given(settings.spn_service),
            spn_host: given(settings.spn_host),
            delegate: settings.delegate,
            fresh_tickets: settings.fresh_tickets,
            trace: settings.trace,
        }
    }
}

impl From<v1::Credential> for CredentialView {
    fn from(credential: v1::Credential) -> Self {
        let secret_kind = match credential.secret_kind() {
            v1::CredentialSecretKind::Unspecified | v1::CredentialSecretKind::Password => "password",
            v1::CredentialSecretKind::Keytab => "keytab",
            v1::CredentialSecretKind::KeytabOnAgent => "keytab_on_agent",
            v1::CredentialSecretKind::CacheOnAgent => "ccache_on_agent",
        };
        Self {
            secret_kind,
            secret: (!credential.secret.is_empty()).then_some(credential.secret),
            agent_path: (!credential.agent_path.is_empty()).then_some(credential.agent_path),
            name: credential.name,
            username: credential.username,
            domain: credential.domain,
            connection: SettingsView::from(credential.connection.unwrap_or_default()),
            no_profile: credential.no_profile,
            description: credential.description,
            scope: credential.scope,
            version: credential.version,
            created_at: time(credential.created_at),
            updated_at: time(credential.updated_at),
            rejected_at: time(credential.rejected_at),
        }
    }
}

impl From<v1::ConnectionSettings> for SettingsView {
    fn from(settings: v1::ConnectionSettings) -> Self {
        Self {
            scheme: match settings.scheme() {
                v1::Scheme::Unspecified => None,
                v1::Scheme::Http => Some("http"),
                v1::Scheme::Https => Some("https"),
            },
            auth: match settings.auth() {
                v1::AuthKind::Unspecified => None,
                v1::AuthKind::Basic => Some("basic"),
                v1::AuthKind::Ntlm => Some("ntlm"),
                v1::AuthKind::Negotiate => Some("negotiate"),
                v1::AuthKind::Kerberos => Some("kerberos"),
            },
            message_encryption: match settings.message_encryption() {
                v1::MessageEncryption::Unspecified => None,
                v1::MessageEncryption::Auto => Some("auto"),
                v1::MessageEncryption::Always => Some("always"),
                v1::MessageEncryption::Never => Some("never"),
            },
            port: (settings.port != 0).then_some(settings.port),
            path: (!settings.path.is_empty()).then_some(settings.path),
            ca_pem: (!settings.ca_pem.is_empty()).then_some(settings.ca_pem),
            ca_secret: (!settings.ca_secret.is_empty()).then_some(settings.ca_secret),
            skip_cert_check: settings.skip_cert_check,
            send_channel_bindings: settings.send_channel_bindings,
            allow_basic_over_http: settings.allow_basic_over_http,
            kerberos: settings.kerberos.map(KerberosView::from),
        }
    }
}

impl CredentialView {
    /// One line: what happened to it.
    pub(in crate::control) fn state_line(&self) -> String {
        format!("credential {}: version {}\n", clean(&self.name), self.version)
    }

    fn secret_text(&self) -> String {
        let kind = self.secret_kind.replace('_', " ");
        match &self.secret {
            Some(secret) => format!("{kind}: {secret}"),
            None => kind,
        }
    }
}

/// Credentials in lines.
pub(in crate::control) fn credential_table(credentials: &[CredentialView]) -> String {
    console::table(
        &["name", "user", "secret", "auth", "scheme", "port", "version", "scope", "updated", "rejected", "description"],
        credentials.iter().map(|credential| {
            let user = if credential.domain.is_empty() {
                credential.username.clone()
            } else {
                format!("{}\\{}", credential.domain, credential.username)
            };
            vec![
                credential.name.clone(),
                user,
                credential.secret_text(),
                credential.connection.auth.unwrap_or_default().to_owned(),
                credential.connection.scheme.unwrap_or_default().to_owned(),
                credential.connection.port.map(|port| port.to_string()).unwrap_or_default(),
                credential.version.to_string(),
                credential.scope.clone(),
                credential.updated_at.clone().unwrap_or_default(),
                credential.rejected_at.clone().unwrap_or_default(),
                credential.description.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_show_settings_that_are_set() {
        let view = CredentialView::from(v1::Credential {
            name: "c".to_owned(),
            connection: Some(v1::ConnectionSettings { scheme: v1::Scheme::Http.into(), ..Default::default() }),
            ..Default::default()
        });
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["connection"]["scheme"], "http");
        assert_eq!(json["connection"]["port"], serde_json::Value::Null);
        assert_eq!(
            (&json["secret"], &json["connection"]["ca_secret"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
    }

    #[test]
    fn credentials_name_the_secret_that_they_are() {
        let connection = v1::ConnectionSettings { ca_secret: "host-ca".to_owned(), ..Default::default() };
        let view = CredentialView::from(v1::Credential {
            name: "c".to_owned(),
            secret: "svc-keytab".to_owned(),
            secret_kind: v1::CredentialSecretKind::Keytab.into(),
            connection: Some(connection),
            ..Default::default()
        });
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["secret"], &json["secret_kind"]), (&"svc-keytab".into(), &"keytab".into()));
        assert_eq!(json["connection"]["ca_secret"], "host-ca");
        assert!(credential_table(&[view]).contains("keytab: svc-keytab"));
    }
}

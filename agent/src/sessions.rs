//! From a task's target and credential to a leased session.
//!
//! Parses the wire's connection settings into a [`Plan`] that cannot be wrong, and joins plan and secret into the
//! `winrm` target whose parts make the pool's key. The secret is opened here, when the session is wanted, and not kept.
//! Called by `tasks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_proto::v1::{
    AuthKind, ConnectionSettings, MessageEncryption, Scheme, SealedSecret, ShellSettings, Target as WireTarget,
};
use lictor_winrm::Error as WinrmError;
use lictor_winrm::pool::{Lease, Pool};
use lictor_winrm::probe::{Report, Rung};
use lictor_winrm::target::{
    self, Credential, Endpoint, EndpointError, KerberosOptions, Secret, ShellProperties, Target, Timeouts, TlsPolicy,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::policy::{Approach, Job, Policies, Refusal, Turn};
use crate::secrets::{Keyring, Purpose, SecretError};

/// Sessions for tasks.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    pool: Pool,
    keyring: Arc<Keyring>,
    policies: Arc<Policies>,
}

/// Everything about a session but the secret.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    endpoint: Endpoint,
    auth: target::AuthKind,
    username: String,
    tls: TlsPolicy,
    message_encryption: target::MessageEncryption,
    send_channel_bindings: bool,
    allow_basic_over_http: bool,
    shell: ShellProperties,
}

/// Why a target cannot be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// No target.
    #[error("the task names no target")]
    NoTarget,
    /// A bad endpoint.
    #[error("the target cannot be")]
    Endpoint(#[from] EndpointError),
    /// A bad port.
    #[error("{0} is not a TCP port")]
    Port(u32),
    /// A bad environment variable.
    #[error("{0:?} is not a name for an environment variable")]
    Variable(String),
    /// A bad code page.
    #[error("{0} is not a code page")]
    CodePage(u32),
    /// A value that this version does not know.
    #[error("this version does not know {what} {value}")]
    Unsupported {
        /// Of what.
        what: &'static str,
        /// Its number.
        value: i32,
    },
}

impl Plan {
    /// Parses a target and the shell's properties.
    pub(crate) fn parse(target: Option<WireTarget>, username: String, shell: ShellSettings) -> Result<Self, PlanError> {
        let target = target.ok_or(PlanError::NoTarget)?;
        let settings = target.connection.unwrap_or_default();
        let scheme = match known("scheme", settings.scheme, Scheme::try_from(settings.scheme))? {
            Scheme::Http => target::Scheme::Http,
            Scheme::Https | Scheme::Unspecified => target::Scheme::Https,
        };
        let port = match settings.port {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| PlanError::Port(port))?),
        };
        let path = (!settings.path.is_empty()).then_some(settings.path.as_str());
        let endpoint = Endpoint::new(scheme, &target.host, port, path)?;
        let auth = match known("authentication", settings.auth, AuthKind::try_from(settings.auth))? {
            AuthKind::Basic => target::AuthKind::Basic,
            AuthKind::Ntlm => target::AuthKind::Ntlm,
            AuthKind::Negotiate | AuthKind::Unspecified => target::AuthKind::Negotiate,
        };
        let encryption = MessageEncryption::try_from(settings.message_encryption);
        let message_encryption = match known("message encryption", settings.message_encryption, encryption)? {
            MessageEncryption::Always => target::MessageEncryption::Always,
            MessageEncryption::Never => target::MessageEncryption::Never,
            MessageEncryption::Auto | MessageEncryption::Unspecified => target::MessageEncryption::Auto,
        };
        let ConnectionSettings { ca_pem, skip_cert_check, send_channel_bindings, allow_basic_over_http, .. } = settings;
        Ok(Self {
            endpoint,
            auth,
            username,
            tls: TlsPolicy {
                ca_pem: (!ca_pem.is_empty()).then_some(ca_pem),
                skip_certificate_check: skip_cert_check.unwrap_or(false),
            },
            message_encryption,
            send_channel_bindings: send_channel_bindings.unwrap_or(true),
            allow_basic_over_http: allow_basic_over_http.unwrap_or(false),
            shell: properties(shell)?,
        })
    }

    /// The host, for people.
    pub(crate) fn host(&self) -> &str {
        self.endpoint.host()
    }

    fn target(&self, password: Secret) -> Target {
        Target {
            endpoint: self.endpoint.clone(),
            auth: self.auth,
            credential: Credential::password(self.username.clone(), password),
            tls: self.tls.clone(),
            message_encryption: self.message_encryption,
            send_channel_bindings: self.send_channel_bindings,
            allow_basic_over_http: self.allow_basic_over_http,
            kerberos: KerberosOptions::default(),
            shell: self.shell.clone(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Sessions {
    /// Uses `pool` and the keys of `keyring`, as far as `policies` allow.
    pub(crate) fn new(pool: Pool, keyring: Arc<Keyring>, policies: Arc<Policies>) -> Self {
        Self { pool, keyring, policies }
    }

    /// Asks the policy in force about a task that is not accepted yet, and limits its plan to what is allowed.
    pub(crate) fn permit(&self, plan: &mut Plan, job: Job) -> Result<(), Refusal> {
        let approach = Approach {
            endpoint: &plan.endpoint,
            username: &plan.username,
            auth: plan.auth,
            tls: &plan.tls,
            message_encryption: plan.message_encryption,
        };
        let networks = self.policies.current().check(job, &approach)?;
        plan.endpoint = plan.endpoint.clone().within(networks);
        Ok(())
    }

    /// Waits until the policy lets one more task work on the plan's host. To be held while it does.
    pub(crate) async fn turn(&self, plan: &Plan) -> Turn {
        self.policies.turn(plan.host()).await
    }

    /// Joins `plan` and its secret. The result holds the secret: use it up at once.
    pub(crate) fn target(
        &self,
        plan: &Plan,
        sealed: &SealedSecret,
        purpose: Purpose<'_>,
    ) -> Result<Target, SecretError> {
        Ok(plan.target(self.keyring.open(sealed, purpose)?))
    }

    /// A session on `target`, by `deadline`.
    pub(crate) async fn lease(&self, target: Target, deadline: Instant) -> Result<Lease, WinrmError> {
        self.pool.lease(&target, deadline).await
    }

    /// A session on a shell of an earlier process, for following a command in it.
    pub(crate) async fn attach(
        &self,
        target: Target,
        (shell_id, command_id): (&str, Uuid),
        deadline: Instant,
    ) -> Result<Lease, WinrmError> {
        self.pool.attach(&target, shell_id, command_id, deadline).await
    }

    /// A shell of an earlier process is waited for: it is not deleted as one that was left behind.
    pub(crate) fn spare(&self, shell_id: &str) {
        self.pool.spare(shell_id);
    }

    /// Nobody waits for the shell any more.
    pub(crate) fn spare_no_more(&self, shell_id: &str) {
        self.pool.spare_no_more(shell_id);
    }

    /// Climbs the connection ladder.
    pub(crate) async fn test(&self, target: Target, deadline: Instant) -> Report {
        let rung = |rung: &Rung| tracing::debug!(stage = %rung.stage, elapsed = ?rung.elapsed, "Rung climbed");
        self.pool.probe(&target, deadline, rung).await
    }

    /// Ends all sessions; returns how many shells could not be deleted by `deadline`.
    pub(crate) async fn close(&self, deadline: Instant) -> usize {
        self.pool.close(deadline).await
    }
}

fn properties(shell: ShellSettings) -> Result<ShellProperties, PlanError> {
    let environment: BTreeMap<String, String> = shell.environment.into_iter().collect();
    if let Some(name) = environment.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(PlanError::Variable(name.clone()));
    }
    let default = ShellProperties::default();
    Ok(ShellProperties {
        environment,
        working_directory: (!shell.working_directory.is_empty()).then_some(shell.working_directory),
        no_profile: shell.no_profile.unwrap_or(default.no_profile),
        code_page: match shell.code_page {
            0 => default.code_page,
            page if page <= u32::from(u16::MAX) => page,
            page => return Err(PlanError::CodePage(page)),
        },
        idle_timeout: default.idle_timeout,
    })
}

fn known<T, E>(what: &'static str, value: i32, parsed: Result<T, E>) -> Result<T, PlanError> {
    parsed.map_err(|_| PlanError::Unsupported { what, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(settings: ConnectionSettings, shell: ShellSettings) -> Result<Plan, PlanError> {
        Plan::parse(Some(WireTarget { host: "h".into(), connection: Some(settings) }), "u".into(), shell)
    }

    #[test]
    fn unset_fields_take_the_contracts_defaults() {
        let plan = plan(ConnectionSettings::default(), ShellSettings::default()).unwrap();
        assert_eq!(plan.endpoint.to_string(), "https://h:5986/wsman");
        assert_eq!(plan.auth, target::AuthKind::Negotiate);
        assert!(plan.send_channel_bindings && !plan.allow_basic_over_http && !plan.tls.skip_certificate_check);
        assert_eq!(plan.shell, ShellProperties::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Plan::parse(None, String::new(), ShellSettings::default()).unwrap_err(), PlanError::NoTarget);
        let error =
            plan(ConnectionSettings { port: 70_000, ..Default::default() }, ShellSettings::default()).unwrap_err();
        assert_eq!(error, PlanError::Port(70_000));
        let error = plan(ConnectionSettings { auth: 99, ..Default::default() }, ShellSettings::default()).unwrap_err();
        assert_eq!(error, PlanError::Unsupported { what: "authentication", value: 99 });
        let environment = [("A=B".to_owned(), String::new())].into();
        let error =
            plan(ConnectionSettings::default(), ShellSettings { environment, ..Default::default() }).unwrap_err();
        assert_eq!(error, PlanError::Variable("A=B".into()));
        let target = WireTarget { host: "no host".into(), connection: None };
        assert!(matches!(
            Plan::parse(Some(target), String::new(), ShellSettings::default()),
            Err(PlanError::Endpoint(_))
        ));
    }
}

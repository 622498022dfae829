//! From a task's target and credential to a leased session.
//!
//! Parses the wire's connection settings into a [`Plan`] that cannot be wrong, and joins plan and secret into the
//! `winrm` target whose parts make the pool's key. Secrets are opened here, when the session is wanted, and not kept.
//! Called by `tasks`.

mod brought;
mod tickets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use lictor_doctor::posture::{self, Posture};
use lictor_doctor::{KerberosSubject, Report as Examined, Step, Subject, examine_in};
use lictor_kerberos::trace::Trace;
use lictor_kerberos::{CredentialSource, Identity};
use lictor_proto::v1::{
    AuthKind, ConnectionSettings, CredentialIdentity, CredentialSecretKind, KerberosSettings, KinitMode,
    MessageEncryption, Scheme, ShellSettings, Target as WireTarget,
};
use lictor_winrm::Error as WinrmError;
use lictor_winrm::auth::kerberos::TicketSource;
use lictor_winrm::pool::{Lease, Pool};
use lictor_winrm::probe::{Report, Rung};
use lictor_winrm::target::{
    self, Credential, Endpoint, EndpointError, KerberosOptions, Secret, ShellProperties, Target, Timeouts, TlsPolicy,
};
use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::kerberos::{Kerberos, Unusable};
use crate::policy::{Approach, Job, Policies, Refusal, Turn};
use crate::secrets::{DeliveryError, SecretError, Secrets};
use crate::telemetry::Metrics;
pub(crate) use brought::Brought;
use brought::Opened;
pub(crate) use tickets::Lines;
use tickets::Tickets;

/// Sessions for tasks.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    pool: Pool,
    secrets: Secrets,
    policies: Arc<Policies>,
    kerberos: Kerberos,
    metrics: Arc<Metrics>,
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
    kerberos: KerberosPlan,
    proof: Proof,
    shell: ShellProperties,
    named: Named,
}

/// Secrets that a plan names, by their identifiers. They come beside the assignment.
#[derive(Debug, Clone, Default)]
struct Named {
    /// What proves the user, in place of what is sealed in the assignment.
    proof: Option<String>,
    /// The authority that the host's certificate is checked against.
    authority: Option<String>,
    /// Variables of the shell.
    environment: BTreeMap<String, String>,
    /// Ones that a command got that runs already: for masking what it prints. With their versions.
    masks: Vec<(String, u64)>,
}

/// What a plan says about Kerberos.
#[derive(Debug, Clone, Default)]
struct KerberosPlan {
    /// Nothing: what the user name says, else the default realm.
    realm: Option<String>,
    options: KerberosOptions,
    fresh: bool,
    trace: bool,
}

/// What proves who the user is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// A password.
    Password,
    /// The bytes of a keytab.
    Keytab,
    /// A keytab of the agent: this one, or any.
    KeytabOnAgent(Option<PathBuf>),
    /// A credential cache on the agent: this one, or the default one.
    CacheOnAgent(Option<String>),
}

/// A task's way to its host with all that it takes.
#[derive(Debug)]
pub(crate) struct Access {
    /// Holds what proves the user: use it up at once.
    pub(crate) target: Target,
    /// What Kerberos had to say, when the task wants to know.
    pub(crate) lines: Lines,
    /// What must not be seen in output.
    pub(crate) masks: Vec<Secret>,
    /// Where the target's tickets come from, when it has any.
    tickets: Option<Arc<Tickets>>,
}

/// Why a target's secret is not available.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// The secret itself.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What Kerberos needs of the agent.
    #[error(transparent)]
    Kerberos(#[from] Unusable),
    /// One that was needed did not come.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// None came, though one was needed.
    #[error("the assignment has no secret")]
    NoSecret,
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
    /// A variable with two values.
    #[error(
        "{0:?} is in the environment and in the secret one: Windows does not tell upper from lower case in names of variables"
    )]
    VariableTwice(String),
    /// An authority by two names.
    #[error("the connection has an authority of its own (ca_pem) and names a secret for it (ca_secret)")]
    AuthorityTwice,
    /// What came is not what the plan names.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A password that did not come.
    #[error("the assignment has no secret")]
    NoSecret,
    /// A secret by which output is masked came in another version.
    #[error(
        "the command has version {had} of secret {identifier}, and the assignment brings version {came}: its output cannot be masked"
    )]
    OtherVersion {
        /// Which.
        identifier: String,
        /// What the command was given.
        had: u64,
        /// What came.
        came: u64,
    },
    /// A bad code page.
    #[error("{0} is not a code page")]
    CodePage(u32),
    /// Without a password there is only Kerberos.
    #[error("the credential holds no password, which {0} authentication needs")]
    NoPassword(&'static str),
    /// There is nothing to get a ticket with.
    #[error("the credential's ticket comes from a cache on the agent, so the kinit mode cannot be managed")]
    Managed,
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
    pub(crate) fn parse(
        target: Option<WireTarget>,
        identity: &CredentialIdentity,
        shell: ShellSettings,
    ) -> Result<Self, PlanError> {
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
            AuthKind::Kerberos => target::AuthKind::Kerberos,
        };
        let kerberos = settings.kerberos.clone().unwrap_or_default();
        let proof = Proof::parse(identity, &kerberos)?;
        match auth {
            target::AuthKind::Basic if proof != Proof::Password => return Err(PlanError::NoPassword("basic")),
            target::AuthKind::Ntlm if proof != Proof::Password => return Err(PlanError::NoPassword("ntlm")),
            _ => {}
        }
        let encryption = MessageEncryption::try_from(settings.message_encryption);
        let message_encryption = match known("message encryption", settings.message_encryption, encryption)? {
            MessageEncryption::Always => target::MessageEncryption::Always,
            MessageEncryption::Never => target::MessageEncryption::Never,
            MessageEncryption::Auto | MessageEncryption::Unspecified => target::MessageEncryption::Auto,
        };
        let ConnectionSettings {
            ca_pem, ca_secret, skip_cert_check, send_channel_bindings, allow_basic_over_http, ..
        } = settings;
        if !ca_pem.is_empty() && !ca_secret.is_empty() {
            return Err(PlanError::AuthorityTwice);
        }
        let given = |identifier: &str| (!identifier.is_empty()).then(|| identifier.to_owned());
        let named = Named {
            proof: given(&identity.secret).filter(|_| matches!(proof, Proof::Password | Proof::Keytab)),
            authority: given(&ca_secret),
            environment: secret_environment(&shell)?,
            masks: Vec::new(),
        };
        Ok(Self {
            endpoint,
            auth,
            username: identity.username.clone(),
            tls: TlsPolicy {
                ca_pem: (!ca_pem.is_empty()).then_some(ca_pem),
                skip_certificate_check: skip_cert_check.unwrap_or(false),
            },
            message_encryption,
            send_channel_bindings: send_channel_bindings.unwrap_or(true),
            allow_basic_over_http: allow_basic_over_http.unwrap_or(false),
            kerberos: KerberosPlan::from(kerberos),
            proof,
            shell: properties(shell)?,
            named,
        })
    }

    /// The same for a command that runs already and has got these secrets: they are wanted for masking what it prints.
    pub(crate) fn resumed(mut self, secrets: &[(String, u64)]) -> Self {
        self.named.environment.clear();
        self.named.masks = secrets.to_vec();
        self
    }

    /// Whether everything that it names came along.
    pub(crate) fn check(&self, brought: &Brought) -> Result<(), PlanError> {
        let Named { proof, authority, environment, masks } = &self.named;
        for identifier in proof.iter().chain(authority).chain(environment.values()) {
            brought.find(identifier)?;
        }
        for (identifier, had) in masks {
            let came = brought.find(identifier)?.version();
            if came != *had {
                return Err(PlanError::OtherVersion { identifier: identifier.clone(), had: *had, came });
            }
        }
        let sealed = proof.is_some() || brought.sealed().is_some();
        if matches!(self.proof, Proof::Password | Proof::Keytab) && !sealed { Err(PlanError::NoSecret) } else { Ok(()) }
    }

    /// The secrets of its shell and their versions, as they came.
    pub(crate) fn shell_secrets(&self, brought: &Brought) -> Vec<(String, u64)> {
        let named: BTreeSet<&String> = self.named.environment.values().collect();
        let came = named.into_iter().filter_map(|identifier| brought.find(identifier).ok());
        came.map(|delivery| (delivery.identifier().to_owned(), delivery.version())).collect()
    }

    /// Whether Kerberos may come into it.
    fn carries_tickets(&self) -> bool {
        matches!(self.auth, target::AuthKind::Negotiate | target::AuthKind::Kerberos)
    }

    /// The host, for people.
    pub(crate) fn host(&self) -> &str {
        self.endpoint.host()
    }

    fn target(&self, credential: Credential, opened: &mut Opened) -> Target {
        Target {
            endpoint: self.endpoint.clone(),
            auth: self.auth,
            credential,
            tls: TlsPolicy {
                ca_pem: opened.authority.take().or_else(|| self.tls.ca_pem.clone()),
                skip_certificate_check: self.tls.skip_certificate_check,
            },
            message_encryption: self.message_encryption,
            send_channel_bindings: self.send_channel_bindings,
            allow_basic_over_http: self.allow_basic_over_http,
            kerberos: self.kerberos.options.clone(),
            shell: ShellProperties {
                secret_environment: std::mem::take(&mut opened.environment),
                ..self.shell.clone()
            },
            timeouts: Timeouts::default(),
        }
    }
}

impl Proof {
    fn parse(identity: &CredentialIdentity, kerberos: &KerberosSettings) -> Result<Self, PlanError> {
        let path = || Some(identity.agent_path.clone()).filter(|path| !path.is_empty());
        let kind = CredentialSecretKind::try_from(identity.secret_kind);
        let proof = match known("kind of secret", identity.secret_kind, kind)? {
            CredentialSecretKind::Unspecified | CredentialSecretKind::Password => Self::Password,
            CredentialSecretKind::Keytab => Self::Keytab,
            CredentialSecretKind::KeytabOnAgent => Self::KeytabOnAgent(path().map(PathBuf::from)),
            CredentialSecretKind::CacheOnAgent => Self::CacheOnAgent(path()),
        };
        match (known("kinit mode", kerberos.kinit_mode, KinitMode::try_from(kerberos.kinit_mode))?, proof) {
            (KinitMode::Managed, Self::CacheOnAgent(_)) => Err(PlanError::Managed),
            (KinitMode::Manual, proof @ Self::CacheOnAgent(_)) => Ok(proof),
            // Whatever the credential holds: the ticket is there already.
            (KinitMode::Manual, _) => Ok(Self::CacheOnAgent(None)),
            (KinitMode::Managed | KinitMode::Unspecified, proof) => Ok(proof),
        }
    }
}

impl From<KerberosSettings> for KerberosPlan {
    fn from(settings: KerberosSettings) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            realm: given(settings.realm),
            options: KerberosOptions {
                spn_service: given(settings.spn_service),
                spn_host: given(settings.spn_host),
                delegate: settings.delegate.unwrap_or(false),
            },
            fresh: settings.fresh_tickets.unwrap_or(false),
            trace: settings.trace.unwrap_or(false),
        }
    }
}

impl Sessions {
    /// Uses `pool`, `secrets` and tickets of `kerberos`, as far as `policies` allow.
    pub(crate) fn new(
        pool: Pool,
        secrets: Secrets,
        policies: Arc<Policies>,
        kerberos: Kerberos,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { pool, secrets, policies, kerberos, metrics }
    }

    /// Asks the policy in force about a task that is not accepted yet, and limits its plan to what is allowed.
    pub(crate) fn permit(&self, plan: &mut Plan, job: Job) -> Result<(), Refusal> {
        let approach = Approach {
            endpoint: &plan.endpoint,
            username: &plan.username,
            realm: plan.kerberos.realm.as_deref().filter(|_| plan.carries_tickets()),
            auth: plan.auth,
            delegate: plan.kerberos.options.delegate && plan.carries_tickets(),
            tls: &plan.tls,
            task_ca: plan.tls.ca_pem.is_some() || plan.named.authority.is_some(),
            message_encryption: plan.message_encryption,
        };
        let networks = self.policies.current().check(job, &approach)?;
        plan.endpoint = plan.endpoint.clone().within(networks);
        Ok(())
    }

    /// Asks it about a task that works on no host.
    pub(crate) fn permit_errand(&self, job: Job) -> Result<(), Refusal> {
        self.policies.current().errand(job)
    }

    /// Where its secrets come from.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Waits until the policy lets one more task work on the plan's host. To be held while it does.
    pub(crate) async fn turn(&self, plan: &Plan) -> Turn {
        self.policies.turn(plan.host()).await
    }

    /// Joins `plan` and its secrets, by `deadline`. The result holds them: use it up at once.
    pub(crate) async fn access(
        &self,
        plan: &Plan,
        brought: &Brought,
        deadline: Instant,
    ) -> Result<Access, AccessError> {
        let secrets = &self.secrets;
        let mut opened = brought.open(&plan.named, secrets, deadline).await?;
        let masks = opened.environment.values().cloned().chain(std::mem::take(&mut opened.masks)).collect();
        let proof = match &plan.named.proof {
            Some(identifier) => Some(secrets.value(brought.find(identifier)?, brought.assigned(), deadline).await?),
            None => None,
        };
        let sealed = || brought.sealed().ok_or(AccessError::NoSecret);
        let purpose = brought.purpose();
        let realm = plan.kerberos.realm.as_deref();
        let (password, source) = match &plan.proof {
            Proof::Password => {
                let password = match proof {
                    Some(value) => value.into_text()?,
                    None => secrets.open(sealed()?, purpose)?,
                };
                let wants_ticket = match plan.auth {
                    target::AuthKind::Kerberos => true,
                    // The name says that it is one of Kerberos; where its realm is not known, it is one of NTLM as ever.
                    target::AuthKind::Negotiate => self.kerberos.serves(&plan.username, realm),
                    target::AuthKind::Basic | target::AuthKind::Ntlm => false,
                };
                if !wants_ticket {
                    let target = plan.target(Credential::password(plan.username.clone(), password), &mut opened);
                    return Ok(Access { target, lines: tickets::trace(false).1, masks, tickets: None });
                }
                let source = CredentialSource::Password(Zeroizing::new(password.expose().to_owned()));
                (Some(password), source)
            }
            Proof::Keytab => {
                let keytab = match proof {
                    Some(value) => value.into_bytes(),
                    None => secrets.open_bytes(sealed()?, purpose)?,
                };
                (None, CredentialSource::Keytab(keytab))
            }
            Proof::KeytabOnAgent(path) => {
                let (user, realm) = self.kerberos.principal(&plan.username, realm, true)?;
                let file = self.kerberos.keytab(path.as_deref(), (&user, Some(&realm))).await?;
                (None, CredentialSource::KeytabFile(file))
            }
            Proof::CacheOnAgent(name) => (None, CredentialSource::Cache(self.kerberos.cache(name.as_deref())?)),
        };
        let (trace, lines) = tickets::trace(plan.kerberos.trace);
        let tickets = Arc::new(self.tickets(plan, source, brought, trace)?);
        let credential = Credential::tickets(plan.username.clone(), Arc::clone(&tickets) as _, password);
        Ok(Access { target: plan.target(credential, &mut opened), lines, masks, tickets: Some(tickets) })
    }

    fn tickets(
        &self,
        plan: &Plan,
        source: CredentialSource,
        brought: &Brought,
        trace: Trace,
    ) -> Result<Tickets, Unusable> {
        let kerberos = self.kerberos.manager()?.clone();
        let by_key = !matches!(source, CredentialSource::Password(_));
        let (principal, realm) = self.kerberos.principal(&plan.username, plan.kerberos.realm.as_deref(), by_key)?;
        let identity = Identity { principal, realm: Some(realm), source, fresh: plan.kerberos.fresh };
        let purpose = brought.purpose();
        self.kerberos.used(purpose.credential, purpose.version, &identity);
        Ok(Tickets { kerberos, identity, trace, metrics: Arc::clone(&self.metrics) })
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

    /// It is a failure when the credential of `target` is known to be wrong.
    pub(crate) fn check(&self, target: &Target) -> Result<(), WinrmError> {
        self.pool.check(target)
    }

    /// Looks how well the host is hardened.
    pub(crate) async fn posture(
        &self,
        target: &Target,
        options: posture::Options,
        deadline: Instant,
    ) -> Result<Posture, WinrmError> {
        posture::inspect(&self.pool, target, options, deadline).await
    }

    /// What there is to examine for a task: its host, and Kerberos when the target has tickets. A login is made once for
    /// both. The result holds what proves the user.
    pub(crate) fn subject(&self, access: Access) -> Subject {
        let kerberos = access.tickets.map(|tickets| KerberosSubject {
            source: self.kerberos.source(),
            manager: Some(tickets.kerberos.clone()),
            identity: Some(tickets.identity.clone()),
        });
        Subject { target: Some(access.target), kerberos, usual_ports: false }
    }

    /// Examines, with a shell that the next process finds should this one be killed.
    pub(crate) async fn examine(
        &self,
        subject: &Subject,
        deadline: Instant,
        tell: impl FnMut(&Step) + Send,
    ) -> Examined {
        examine_in(&self.pool, subject, deadline, tell).await
    }

    /// Ends all sessions; returns how many shells could not be deleted by `deadline`.
    pub(crate) async fn close(&self, deadline: Instant) -> usize {
        self.pool.close(deadline).await
    }
}

/// Tickets of `identity` for somebody who is no task.
pub(crate) fn ticket_source(kerberos: lictor_kerberos::Kerberos, identity: Identity) -> Arc<dyn TicketSource> {
    Arc::new(Tickets { kerberos, identity, trace: Trace::off(), metrics: Arc::new(Metrics::default()) })
}

/// Variables by the secrets that they are. Windows compares their names without case.
fn secret_environment(shell: &ShellSettings) -> Result<BTreeMap<String, String>, PlanError> {
    let mut seen: BTreeSet<String> = shell.environment.keys().map(|name| name.to_uppercase()).collect();
    let mut environment = BTreeMap::new();
    for (name, identifier) in &shell.secret_environment {
        if !is_variable(name) {
            return Err(PlanError::Variable(name.clone()));
        }
        if !seen.insert(name.to_uppercase()) {
            return Err(PlanError::VariableTwice(name.clone()));
        }
        environment.insert(name.clone(), identifier.clone());
    }
    Ok(environment)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn properties(shell: ShellSettings) -> Result<ShellProperties, PlanError> {
    let environment: BTreeMap<String, String> = shell.environment.into_iter().collect();
    if let Some(name) = environment.keys().find(|name| !is_variable(name)) {
        return Err(PlanError::Variable(name.clone()));
    }
    let default = ShellProperties::default();
    Ok(ShellProperties {
        environment,
        // Once they are opened.
        secret_environment: BTreeMap::new(),
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
mod tests;

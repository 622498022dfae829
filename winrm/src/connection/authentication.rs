//! Authenticating a connection: which mechanism is used under which scheme, and what its failures mean.
//!
//! Kerberos goes inside SPNEGO (scheme `Negotiate`), and as it is (scheme `Kerberos`) where only that is offered. NTLM takes
//! over from Kerberos when no ticket can be had, there is a password, and the target's kind is `Negotiate`; never after a
//! KDC or a host refused something.

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::link::Request;
use super::{Authenticated, Candidate, Connection, ConnectionDetails, KerberosDetails, SOAP_TYPE, Sealing, TlsInfo};
use crate::auth::kerberos::{self, Granted, KerberosContext, TicketErrorKind, TicketSource};
use crate::auth::ntlm::NtlmContext;
use crate::auth::{AuthError, ContextError, Handshake, SecurityContext, Step, basic};
use crate::error::{Error, ErrorKind, Refusal, Stage};
use crate::spans;
use crate::target::{AuthKind, Scheme, Target};

/// What an authentication came to.
struct Agreed {
    /// Nothing for Basic.
    context: Option<Box<dyn SecurityContext>>,
    auth: &'static str,
    kerberos: Option<KerberosDetails>,
    warnings: Vec<String>,
}

impl Agreed {
    fn by(context: impl SecurityContext + 'static, auth: &'static str) -> Self {
        Self { context: Some(Box::new(context)), auth, kerberos: None, warnings: Vec::new() }
    }
}

impl Candidate {
    /// Authenticates. Basic has no leg of its own: the credential travels with each request, and is judged with the first.
    ///
    /// # Errors
    /// [`Error`] of stage `authenticate`. A rejected credential must not be tried again by itself: accounts lock out.
    pub async fn authenticate(self, target: &Target, deadline: Instant) -> Result<Connection, Error> {
        let span = spans::authenticate(&target.endpoint);
        let before = self.link.exchanges();
        let result = self.authenticate_unseen(target, deadline).instrument(span.clone()).await;
        if let Ok(connection) = &result {
            span.record("winrm.auth", connection.info.auth);
            span.record("winrm.sealed", connection.info.sealed);
            span.record("winrm.handshake_legs", i64::from(connection.exchanges().saturating_sub(before)));
        }
        spans::note(&span, &result);
        result
    }

    async fn authenticate_unseen(mut self, target: &Target, deadline: Instant) -> Result<Connection, Error> {
        let sealing = Sealing::of(target)?;
        kerberos::check(target)?;
        let agreed = match (target.auth, target.credential.source()) {
            (AuthKind::Basic, _) => Agreed { context: None, auth: "basic", kerberos: None, warnings: Vec::new() },
            (AuthKind::Negotiate | AuthKind::Kerberos, Some(source)) => self.kerberos(source, target, deadline).await?,
            // Without a source, Kerberos did not pass the check.
            (AuthKind::Ntlm | AuthKind::Negotiate | AuthKind::Kerberos, _) => self.ntlm(target, deadline).await?,
        };
        let credential = match agreed.context {
            None => Authenticated::Basic(basic::authorization(&target.credential).map_err(unusable_credential)?),
            Some(context) if sealing.sealed => Authenticated::Sealed(context),
            Some(_) => Authenticated::Connection,
        };
        let mut warnings = sealing.warnings;
        warnings.extend(agreed.warnings);
        warnings.extend(self.tls.as_ref().and_then(TlsInfo::warning));
        let info = ConnectionDetails {
            auth: agreed.auth,
            kerberos: agreed.kerberos,
            sealed: sealing.sealed,
            tls: self.tls,
            peer: self.peer,
            warnings,
        };
        Ok(Connection { link: self.link, credential, info, user: target.credential.username().to_owned() })
    }

    /// Raw, or inside SPNEGO.
    async fn ntlm(&mut self, target: &Target, deadline: Instant) -> Result<Agreed, Error> {
        let bindings = self.channel_bindings.as_deref();
        let (context, auth) = match target.auth {
            AuthKind::Ntlm => (NtlmContext::raw(&target.credential, bindings), "ntlm"),
            _ => (NtlmContext::spnego(&target.credential, bindings), "negotiate"),
        };
        let mut context = context.map_err(unusable_credential)?;
        self.legs(&mut context, target, deadline).await.map_err(|failed| match failed {
            Failed::Exchange(error) => error,
            Failed::Authentication { error, .. } => ntlm_error(error, auth, target),
        })?;
        Ok(Agreed::by(context, auth))
    }

    /// Inside SPNEGO, and as it is when the host offers only that.
    async fn kerberos(
        &mut self,
        source: &dyn TicketSource,
        target: &Target,
        deadline: Instant,
    ) -> Result<Agreed, Error> {
        let granted = match kerberos::obtain(source, target, deadline).await {
            Ok(granted) => granted,
            Err(error) if target.auth == AuthKind::Negotiate && may_fall_back(&error, target) => {
                let mut agreed = self.ntlm(target, deadline).await?;
                agreed.warnings.push(format!("NTLM was used, as there is no Kerberos ticket: {error}"));
                return Ok(agreed);
            }
            Err(error) => return Err(error),
        };
        let mut context = KerberosContext::spnego(granted.ticket.clone(), self.channel_bindings.as_deref());
        let mut auth = "negotiate-kerberos";
        let mut result = self.legs(&mut context, target, deadline).await;
        if target.auth == AuthKind::Kerberos
            && let Err(Failed::Authentication { error: AuthError::Unavailable { offered, .. }, .. }) = &result
            && offered.split(", ").any(|scheme| scheme.eq_ignore_ascii_case("Kerberos"))
        {
            // Nobody looked at the ticket yet.
            context = KerberosContext::raw(granted.ticket.clone(), self.channel_bindings.as_deref());
            auth = "kerberos";
            result = self.legs(&mut context, target, deadline).await;
        }
        if let Err(failed) = result {
            return Err(match failed {
                Failed::Exchange(error) => error,
                Failed::Authentication { error, length } => {
                    let error = kerberos_error(error, length, &granted, self.channel_bindings.is_some());
                    if matches!(error.kind(), ErrorKind::TicketRefused { .. }) {
                        source.refused(&granted.service, &granted.host);
                    }
                    error
                }
            });
        }
        let mut agreed = Agreed::by(context, auth);
        let delegated = granted.ticket.forwarded.is_some();
        if target.kerberos.delegate && !delegated {
            agreed.warnings.push(
                "the host cannot act as the user elsewhere: the domain gave no ticket to forward to it".to_owned(),
            );
        }
        let ticket = &granted.ticket.ticket;
        agreed.kerberos = Some(KerberosDetails {
            client: ticket.client.to_string(),
            // What was asked for may have no realm; the ticket says in which one the host is.
            service: ticket.ticket_server().as_ref().unwrap_or(&ticket.server).to_string(),
            delegated,
        });
        Ok(agreed)
    }

    /// The legs carry no body: a message sealed too early, or a large one, would be refused and be lost.
    async fn legs(
        &mut self,
        context: &mut dyn SecurityContext,
        target: &Target,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let (mut handshake, mut authorization) =
            Handshake::begin(context).map_err(|error| Failed::Authentication { error, length: 0 })?;
        loop {
            let read = Instant::now() + target.timeouts.read;
            let timeout = if read <= deadline {
                ErrorKind::ReadTimeout { after: target.timeouts.read }
            } else {
                ErrorKind::DeadlinePassed
            };
            let length = authorization.len();
            let empty = [Bytes::new(), Bytes::new(), Bytes::new()];
            let request = Request::soap(SOAP_TYPE.to_owned(), empty).authorized(&authorization);
            let response = self
                .link
                .round(request, read.min(deadline), timeout)
                .instrument(spans::exchange("Handshake"))
                .await
                .map_err(|error| Failed::Exchange(error.at(Stage::Authenticate)))?;
            let fields = response.headers.get_all(WWW_AUTHENTICATE).iter().map(|field| field.as_bytes());
            let step = handshake.answer(context, response.status, fields);
            match step.map_err(|error| Failed::Authentication { error, length })? {
                Step::Done if self.link.is_usable() => return Ok(()),
                Step::Send(next) if self.link.is_usable() => authorization = next,
                // A context lives as long as its connection: a proxy between that closes it makes it impossible.
                Step::Done | Step::Send(_) => {
                    let detail = "the connection was closed in the middle of the authentication".to_owned();
                    return Err(Failed::Exchange(Error::new(Stage::Authenticate, ErrorKind::AuthHandshake { detail })));
                }
            }
        }
    }
}

/// How the legs of an authentication failed.
enum Failed {
    /// The host could not be talked to.
    Exchange(Error),
    /// The host, or the mechanism, said no.
    Authentication {
        error: AuthError,
        /// The length of the last `Authorization` value.
        length: usize,
    },
}

/// Whether NTLM may do what Kerberos cannot. A KDC that refused the credential has refused it for NTLM as well, and one that
/// does not know the service has seen the credential to be right: then the name is wrong, which NTLM would not notice.
fn may_fall_back(error: &Error, target: &Target) -> bool {
    let unavailable = matches!(error.kind(), ErrorKind::Ticket(error) if error.kind == TicketErrorKind::Unavailable);
    unavailable && target.credential.secret().is_some()
}

fn ntlm_error(error: AuthError, mechanism: &'static str, target: &Target) -> Error {
    let kind = match error {
        AuthError::Rejected => ErrorKind::AuthRejected {
            mechanism,
            user: target.credential.username().to_owned(),
            over_tls: target.endpoint.scheme() == Scheme::Https,
        },
        error => other_error(error),
    };
    Error::new(Stage::Authenticate, kind)
}

fn kerberos_error(error: AuthError, length: usize, granted: &Granted, over_tls: bool) -> Error {
    let service = format!("{}/{}", granted.service, granted.host);
    let refused =
        |refusal| ErrorKind::TicketRefused { service: service.clone(), refusal, over_tls, kept: granted.is_kept() };
    let kind = match error {
        AuthError::Refused { .. } | AuthError::Rejected => refused(Refusal::Unsaid),
        AuthError::Context(ContextError::Refused(refusal)) => refused(refusal),
        AuthError::Status(status @ (400 | 413 | 431)) if length > LONG => {
            ErrorKind::TicketTooLarge { service, status, length }
        }
        error => other_error(error),
    };
    Error::new(Stage::Authenticate, kind)
}

fn other_error(error: AuthError) -> ErrorKind {
    match error {
        AuthError::Unavailable { scheme, offered } => ErrorKind::AuthUnavailable { wanted: scheme, offered },
        AuthError::Status(status) => ErrorKind::HttpStatus { status },
        AuthError::Context(ContextError::Credential(detail)) => ErrorKind::CredentialUnusable { detail },
        error => ErrorKind::AuthHandshake { detail: error.to_string() },
    }
}

fn unusable_credential(error: ContextError) -> Error {
    let detail = match error {
        ContextError::Credential(detail) => detail,
        other => other.to_string(),
    };
    Error::new(Stage::Authenticate, ErrorKind::CredentialUnusable { detail }).unsent()
}

/// HTTP.sys takes header fields of 16 KiB, unless it is told otherwise; something below may count more than the value.
const LONG: usize = 15 * 1024;

//! The credential manager: tickets for all who act as one identity, got once and kept in memory.
//!
//! A service ticket is fetched by one flight for all who want it, and so is the ticket-granting ticket behind it; both are fetched again
//! before they end, and a failed try harms nobody whose ticket is still good. What the KDC refused is not tried again. Nothing is
//! ever written to a disk, and two identities never share a ticket. Used by the agent and the command line.

mod cache;
mod identity;
mod login;
mod names;
mod shelf;

use std::sync::Arc;

use krb5::Credentials;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub use self::identity::{CredentialSource, Identity, Service};

use self::cache::Caches;
use self::login::{Dialogue, FLIGHT, login, ticket_realm};
use self::shelf::{Flights, Outcome, Shelf};
use crate::config::Watch;
use crate::error::{Error, catalogue, catalogue::With};
use crate::kdc::Directory;
use crate::trace::Trace;

/// Ticket-granting tickets kept; more than any agent has credentials.
const MAX_GRANTING: usize = 2_000;
/// Service tickets kept: hosts times identities.
const MAX_SERVICES: usize = 10_000;
/// TicketFlags (RFC 4120 5.3).
const FORWARDABLE: u32 = 1 << 30;
const OK_AS_DELEGATE: u32 = 1 << 18;

/// The manager. Cloneable; the clones share everything. Dropping the last one ends what is under way.
#[derive(Debug, Clone)]
pub struct Kerberos {
    shared: Arc<Shared>,
    flights: Arc<Flights>,
}

#[derive(Debug)]
struct Shared {
    dialogue: Arc<Dialogue>,
    granting: Arc<Shelf<[u8; 32]>>,
    services: Arc<Shelf<Wanted>>,
    caches: Caches,
}

/// A ticket that an identity wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    digest: [u8; 32],
    /// Whose tickets a credential cache holds; another one's are never mixed in.
    client: Option<String>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    Service(Service),
    /// A forwarded ticket-granting ticket whose session key is of this type.
    Forwarded(i32),
}

/// How a ticket is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// With a forwarded ticket-granting ticket, so that the host can act as the identity. Asking for it is enough, as for
    /// `GSS_C_DELEG_FLAG` in MIT's library: only with `enforce_ok_as_delegate = true` in krb5.conf the domain must trust the host.
    pub delegate: bool,
    /// When to give up.
    pub deadline: Instant,
    /// Where to write what happens.
    pub trace: Trace,
}

/// A ticket for a service.
#[derive(Debug, Clone)]
pub struct ServiceTicket {
    /// The ticket with its session key.
    pub ticket: Arc<Credentials>,
    /// The forwarded ticket-granting ticket, when it was asked for.
    pub forwarded: Option<Arc<Credentials>>,
}

impl Kerberos {
    /// A manager that follows these settings.
    #[must_use]
    pub fn new(config: Arc<Watch>) -> Self {
        let shared = Shared {
            dialogue: Arc::new(Dialogue::new(config)),
            granting: Arc::new(Shelf::new(MAX_GRANTING)),
            services: Arc::new(Shelf::new(MAX_SERVICES)),
            caches: Caches::default(),
        };
        Self { shared: Arc::new(shared), flights: Arc::default() }
    }

    /// A ticket for a service.
    ///
    /// # Errors
    /// When there is none to be had before the deadline; the error says why and what to do.
    pub async fn service_ticket(
        &self,
        identity: &Identity,
        service: &Service,
        request: Request,
    ) -> Result<ServiceTicket, Error> {
        let work = self.service_ticket_of(identity, service, &request);
        // Whatever is not waited for as a flight (files) ends here.
        timeout_at(request.deadline, work).await.unwrap_or_else(|_| Err(catalogue::waited_too_long()))
    }

    async fn service_ticket_of(
        &self,
        identity: &Identity,
        service: &Service,
        request: &Request,
    ) -> Result<ServiceTicket, Error> {
        let config = self.shared.dialogue.config.fresh().await;
        let principal = names::of_service(service, &config)?;
        let session = self.session(identity, request).await?;
        let mut service = service.clone();
        service.host = service.host.to_lowercase();
        let ticket = match &session.own {
            Some(cache) if let Some(ticket) = cache.service(&principal) => {
                request.trace.line(format_args!("Using the ticket for {service} of the cache"));
                ticket
            }
            _ => self.wanted(&session, What::Service(service.clone()), request, Some(&principal)).await?,
        };
        let mut forwarded = None;
        if request.delegate {
            if ticket.flags & OK_AS_DELEGATE == 0 {
                if boolean(config.krb5().get(&["libdefaults", "enforce_ok_as_delegate"])) {
                    return Err(catalogue::delegation_not_trusted(&service.to_string()));
                }
                request
                    .trace
                    .line(format_args!("{service} is not marked ok-as-delegate; delegating because it was asked for"));
                tracing::warn!(%service, "A ticket is delegated to a host that the domain does not mark as trusted for it");
            }
            let what = What::Forwarded(ticket.session_key.enctype());
            forwarded = Some(self.wanted(&session, what, request, None).await?);
        }
        Ok(ServiceTicket { ticket, forwarded })
    }

    /// Logs in, or uses the login there is. The ticket-granting ticket says who the identity is and until when.
    ///
    /// # Errors
    /// When there is none to be had before the deadline.
    pub async fn check(&self, identity: &Identity, request: Request) -> Result<Arc<Credentials>, Error> {
        let work = async {
            let session = self.session(identity, &request).await?;
            session.granting(&request.trace, request.deadline).await
        };
        timeout_at(request.deadline, work).await.unwrap_or_else(|_| Err(catalogue::waited_too_long()))
    }

    /// The ticket-granting ticket that is kept of an identity, good or not. Asks no KDC and reads no file: a credential cache's is
    /// not among them.
    #[must_use]
    pub fn held(&self, identity: &Identity) -> Option<Arc<Credentials>> {
        self.shared.granting.held(&identity.login_digest())
    }

    /// The principals that an identity would log in as, in the order in which they are tried: the later ones when the KDC does not
    /// know the earlier ones. Asks no KDC.
    ///
    /// # Errors
    /// When its name means nobody, or its keytab or cache cannot be used.
    pub async fn principals(&self, identity: &Identity, deadline: Instant) -> Result<Vec<krb5::Principal>, Error> {
        let work = async {
            match &identity.source {
                CredentialSource::Cache(name) => {
                    let (principal, realm) = (&identity.principal, identity.realm.as_deref());
                    let opened = self.shared.caches.open(identity.login_digest(), name, principal, realm).await?;
                    Ok(vec![opened.principal().clone()])
                }
                _ => self.shared.dialogue.principals(identity, deadline).await,
            }
        };
        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(catalogue::waited_too_long()))
    }

    /// The KDCs that it asks.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.shared.dialogue.directory
    }

    /// Whether the ticket-granting ticket of an identity can be delegated at all. Asks no KDC.
    ///
    /// # Errors
    /// When it is not forwardable.
    pub fn may_delegate(identity: &Identity, granting: &Credentials) -> Result<(), Error> {
        if granting.flags & FORWARDABLE != 0 {
            return Ok(());
        }
        let login = login(granting.client.to_string(), ticket_realm(granting), with(&identity.source));
        Err(catalogue::ticket_not_forwardable(&login))
    }

    /// Forgets an identity: its tickets, and that it was refused.
    pub fn forget(&self, identity: &Identity) {
        self.forget_digest(identity.login_digest());
    }

    /// The same by [`Identity::login_digest`], for callers that keep nothing that proves an identity.
    pub fn forget_digest(&self, digest: [u8; 32]) {
        self.shared.granting.forget(|key| *key == digest);
        self.shared.services.forget(|key| key.digest == digest);
        self.shared.caches.forget(&digest);
        self.shared.dialogue.forget(&digest);
    }

    /// Forgets a service ticket that its host did not take.
    pub fn forget_service(&self, identity: &Identity, service: &Service) {
        let digest = identity.login_digest();
        let same = |other: &Service| other.service == service.service && other.host.eq_ignore_ascii_case(&service.host);
        self.shared
            .services
            .forget(|key| key.digest == digest && matches!(&key.what, What::Service(other) if same(other)));
        self.shared.caches.refuse(&digest, service);
    }

    /// Whether there is a way to the KDCs of a realm.
    #[must_use]
    pub fn serves(&self, realm: &str) -> bool {
        self.shared.dialogue.config.current().defines(realm)
    }

    /// What stands behind the tickets of an identity.
    async fn session(&self, identity: &Identity, request: &Request) -> Result<Session, Error> {
        let digest = identity.login_digest();
        let delegated = request.delegate && self.shared.dialogue.delegate(digest);
        let own = match &identity.source {
            CredentialSource::Cache(name) => {
                Some(self.shared.caches.open(digest, name, &identity.principal, identity.realm.as_deref()).await?)
            }
            _ => None,
        };
        if delegated && own.is_none() {
            // What was asked for before is not forwardable unless krb5.conf says so.
            self.shared.granting.discard_if(&digest, |ticket| ticket.flags & FORWARDABLE == 0);
        }
        Ok(Session {
            shared: self.shared.clone(),
            flights: Arc::downgrade(&self.flights),
            identity: identity.clone(),
            digest,
            with: with(&identity.source),
            own,
        })
    }

    /// A ticket, kept or fetched.
    async fn wanted(
        &self,
        session: &Session,
        what: What,
        request: &Request,
        principal: Option<&krb5::Principal>,
    ) -> Outcome {
        let client = session.own.as_ref().map(|cache| cache.client());
        let key = Wanted { digest: session.digest, client, what };
        let fetch = {
            let (session, what, trace) = (session.clone(), key.what.clone(), request.trace.clone());
            let principal = principal.cloned();
            move || async move { session.fetch(&what, principal.as_ref(), &trace).await }
        };
        if session.identity.fresh {
            // A task of its own, so that what the KDC says of the credential is noted though nobody waits for it any more.
            let (sender, receiver) = oneshot::channel();
            self.flights.spawn(async move {
                let _ = sender.send(fetch().await);
            });
            return receiver.await.unwrap_or_else(|_| Err(catalogue::stopped()));
        }
        self.shared.granting.touch(&session.digest);
        let flights = Arc::downgrade(&self.flights);
        self.shared.services.obtain(&flights, &key, request.deadline, |_| fetch()).await
    }
}

/// An identity at work: all that a flight needs to get its tickets.
#[derive(Debug, Clone)]
struct Session {
    shared: Arc<Shared>,
    flights: std::sync::Weak<Flights>,
    identity: Identity,
    /// Of the login.
    digest: [u8; 32],
    with: With,
    /// The credential cache that it comes from.
    own: Option<Arc<cache::Opened>>,
}

impl Session {
    async fn fetch(&self, what: &What, principal: Option<&krb5::Principal>, trace: &Trace) -> Outcome {
        let dialogue = &self.shared.dialogue;
        let deadline = Instant::now() + FLIGHT;
        let mut again = self.own.is_none() && !self.identity.fresh;
        loop {
            let granting = self.granting(trace, deadline).await?;
            let outcome = match (what, principal) {
                (What::Forwarded(enctype), _) => dialogue.forwarded(&granting, *enctype, self.with, trace).await,
                (What::Service(_), Some(principal)) => dialogue.service(&granting, principal, self.with, trace).await,
                (What::Service(service), None) => Err(catalogue::service_invalid(&service.to_string())),
            };
            // A login that was under way when delegation was first asked for did not ask for a forwardable ticket.
            let unforwardable = matches!(what, What::Forwarded(_)) && granting.flags & FORWARDABLE == 0;
            match outcome {
                // The KDC has other keys than when it made the ticket-granting ticket: log in anew, once.
                Err(error) if again && (error.is_of_ticket() || unforwardable) => {
                    again = false;
                    self.shared.granting.discard(&self.digest, &granting);
                }
                outcome => return outcome,
            }
        }
    }

    /// The ticket-granting ticket.
    async fn granting(&self, trace: &Trace, deadline: Instant) -> Outcome {
        if let Some(cache) = &self.own {
            return cache.granting();
        }
        let fetch = |held: Option<Arc<Credentials>>| {
            let (shared, identity, digest, trace) =
                (self.shared.clone(), self.identity.clone(), self.digest, trace.clone());
            async move { shared.dialogue.ticket_granting(&identity, digest, held, &trace).await }
        };
        if self.identity.fresh {
            return self.shared.dialogue.ticket_granting(&self.identity, self.digest, None, trace).await;
        }
        let granting = self.shared.granting.obtain(&self.flights, &self.digest, deadline, fetch).await?;
        trace.line(format_args!(
            "Using the ticket-granting ticket of {} for {}",
            granting.client,
            ticket_realm(&granting)
        ));
        Ok(granting)
    }
}

fn with(source: &CredentialSource) -> With {
    match source {
        CredentialSource::Password(_) => With::Password,
        CredentialSource::Keytab(_) | CredentialSource::KeytabFile(_) => With::Keytab,
        CredentialSource::Cache(_) => With::Cache,
    }
}

/// A boolean of krb5.conf.
fn boolean(value: Option<&str>) -> bool {
    value.is_some_and(|value| ["y", "yes", "true", "t", "1", "on"].contains(&value.to_ascii_lowercase().as_str()))
}

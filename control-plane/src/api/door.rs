//! What stands before the users' services: nobody without a token that counts gets a message read, and nobody calls what
//! the role does not allow.
//!
//! It notes who calls in the request, as a [`Caller`]; what lies within the caller's scope is for the services to look
//! after. Refusals are counted, summed up for the audit log and logged, without the token.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};
use tracing::warn;

use super::permissions::needed;
use crate::access::{Caller, Directory, Guard, NoEntry, Refused};
use crate::clock::Now;
use crate::metrics::Metrics;

/// What the door knows.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) users: Arc<Directory>,
    pub(super) guard: Arc<Guard>,
    pub(super) metrics: Arc<Metrics>,
}

/// A service behind the door.
#[derive(Clone)]
pub(super) struct BehindDoor<S> {
    inner: S,
    door: Door,
}

impl<S: NamedService> NamedService for BehindDoor<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for BehindDoor<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.door.admit(&request, Now::read()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

impl Door {
    /// Puts the door before a service.
    pub(super) fn before<S>(&self, inner: S) -> BehindDoor<S> {
        BehindDoor { inner, door: self.clone() }
    }

    fn admit<T>(&self, request: &http::Request<T>, now: Now) -> Result<Caller, Status> {
        let source = source(request.extensions());
        let refuse = |why, name: Option<&str>, status: Status| Err(self.refuse(source, why, name, status, now));
        let Some(token) = bearer(request.headers()) else {
            let text = format!("the call carries no bearer token; {REMEDY}");
            return refuse(Refused::Missing, None, Status::unauthenticated(text));
        };
        let address = source.map(|source| source.to_string()).unwrap_or_default();
        let caller = match self.users.sign_in(token, &address, now.wall) {
            Ok(caller) => caller,
            Err(why) => {
                let (why, text) = match why {
                    NoEntry::Unknown => (Refused::Unknown, "the bearer token is not a user's"),
                    NoEntry::Expired => (Refused::Expired, "the bearer token has expired"),
                    NoEntry::Revoked => (Refused::Revoked, "the bearer token was revoked"),
                    NoEntry::Disabled => (Refused::Disabled, "the user is disabled"),
                };
                return refuse(why, None, Status::unauthenticated(format!("{text}; {REMEDY}")));
            }
        };
        let path = request.uri().path();
        match needed(path) {
            Some(role) if caller.role >= role => Ok(caller),
            Some(role) => {
                let text = format!(
                    "{} is a {}, and this call needs the role {}; ask an administrator",
                    caller.user,
                    caller.role.name(),
                    role.name()
                );
                refuse(Refused::Denied, Some(&caller.user), Status::permission_denied(text))
            }
            None => Err(Status::unimplemented("there is no such method for users")),
        }
    }

    fn refuse(&self, source: Option<IpAddr>, why: Refused, name: Option<&str>, status: Status, now: Now) -> Status {
        refuse(&self.guard, &self.metrics, source, why, name, status, now)
    }
}

/// Counts a refusal; the answer, unless it is a stranger's whose source has had too many.
pub(super) fn refuse(
    guard: &Guard,
    metrics: &Metrics,
    source: Option<IpAddr>,
    why: Refused,
    name: Option<&str>,
    status: Status,
    now: Now,
) -> Status {
    metrics.refused(why);
    let within = guard.refuse(source, why, name, now.instant);
    if within {
        let source = source.map(|source| source.to_string());
        warn!(source, reason = why.name(), name, "Access refused");
    }
    // Who is known must be able to tell why, whatever strangers do at the same address.
    if within || name.is_some() {
        status
    } else {
        Status::resource_exhausted("too many refused calls from this address; try again in a minute")
    }
}

/// Where a call comes from.
pub(super) fn source(extensions: &http::Extensions) -> Option<IpAddr> {
    let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    info.get_ref().remote_addr().map(|address| address.ip().to_canonical())
}

/// The one bearer token of a call. Two headers could be read differently by two readers, so they are none.
fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN_BYTES).then_some(token)
}

/// The caller whom the door let in.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.cloned().ok_or_else(|| Status::unauthenticated("the call was not authenticated"))
}

/// The answer to who wants to make something where the caller may not.
pub(super) fn outside(caller: &Caller) -> Status {
    Status::permission_denied(format!("scope: yours is {:?}; choose it or one below it", caller.scope))
}

const REMEDY: &str = "give it with --token-file or LICTOR_TOKEN; the administrator's is in the file admin-token of the \
                      state directory, and `lictor-control-plane issue-admin-token` makes a new one";
/// Ours have 55.
const MAX_TOKEN_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Role, hash_token, token_id};
    use crate::clock::UnixMillis;
    use crate::store::access::{TokenRecord, UserRecord};

    fn door() -> Door {
        let user = |name: &str, role| UserRecord {
            name: name.into(),
            role,
            scope: String::new(),
            description: String::new(),
            created_at: UnixMillis(0),
            disabled_at: None,
        };
        let token = |name: &str| {
            let hash = hash_token(name);
            TokenRecord {
                token_id: token_id(&hash),
                user: name.into(),
                hash,
                description: String::new(),
                created_at: UnixMillis(0),
                expires_at: None,
                last_used_at: None,
                revoked_at: None,
            }
        };
        let users = [user("viewer", Role::Viewer), user("operator", Role::Operator), user("admin", Role::Admin)];
        let tokens = ["viewer", "operator", "admin"].map(token);
        Door {
            users: Arc::new(Directory::new(&users, tokens.into())),
            guard: Arc::default(),
            metrics: Arc::new(Metrics::new()),
        }
    }

    fn call(door: &Door, authorization: &[&[u8]], method: &str) -> Result<String, Status> {
        let mut request = http::Request::builder().uri(format!("https://localhost/lictor.v1.{method}"));
        for value in authorization {
            request = request.header("authorization", http::HeaderValue::from_bytes(value).unwrap());
        }
        door.admit(&request.body(()).unwrap(), Now::read()).map(|caller| caller.user)
    }

    #[test]
    fn only_known_tokens_pass() {
        let long = format!("Bearer {}", "a".repeat(10_000));
        assert_eq!(call(&door(), &[b"Bearer admin"], "TaskService/GetTask").unwrap(), "admin");
        assert_eq!(call(&door(), &[b"bearer  viewer "], "TaskService/GetTask").unwrap(), "viewer");
        let wrong: [&[&[u8]]; 9] = [
            &[],
            &[b"Bearer c"],
            &[b"Basic admin"],
            &[b"admin"],
            &[b"Bearer "],
            &[b"Bearer admin\tx"],
            &[b"Bearer \xff"],
            &[b"Bearer admin", b"Bearer admin"],
            &[long.as_bytes()],
        ];
        for wrong in wrong {
            let status = call(&door(), wrong, "TaskService/GetTask").unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(status.message().contains("admin-token"), "{status}");
        }
    }

    #[test]
    fn each_role_may_what_the_table_says() {
        let door = door();
        for (path, role) in super::super::permissions::TABLE {
            let method = path.trim_start_matches("/lictor.v1.");
            for (name, has) in [("viewer", Role::Viewer), ("operator", Role::Operator), ("admin", Role::Admin)] {
                let answer = call(&door, &[format!("Bearer {name}").as_bytes()], method);
                assert_eq!(answer.is_ok(), has >= *role, "{name} {method}");
            }
        }
        let status = call(&self::door(), &[b"Bearer viewer"], "TaskService/SubmitTask").unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains("viewer") && status.message().contains("operator"), "{status}");
    }

    #[test]
    fn methods_that_are_not_listed_are_refused_to_everybody() {
        for method in ["TaskService/Unlisted", "NewService/Do", "AgentService/Poll", "TaskService/GetTask/"] {
            let status = call(&door(), &[b"Bearer admin"], method).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{method}");
        }
    }

    #[test]
    fn a_source_that_fails_on_and_on_is_limited_and_a_right_token_passes() {
        let door = door();
        let codes: Vec<_> =
            (0..20).map(|_| call(&door, &[b"Bearer x"], "TaskService/GetTask").unwrap_err().code()).collect();
        assert_eq!(codes.iter().filter(|code| **code == tonic::Code::Unauthenticated).count(), 10);
        assert_eq!(codes.last(), Some(&tonic::Code::ResourceExhausted));
        assert_eq!(call(&door, &[b"Bearer viewer"], "TaskService/GetTask").unwrap(), "viewer");
        assert_eq!(door.guard.take().unwrap().total(), 20);
    }
}

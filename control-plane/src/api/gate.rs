//! What stands before `AgentService`: nobody without an agent's certificate gets a message read, but for Enroll, of
//! which only a few at a time are let in, each for a short while.
//!
//! So strangers cannot make the control plane hold their messages in memory. Whether a certificate still counts is for
//! the service behind to find out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// A service behind the gate.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    enrolments: Arc<Semaphore>,
}

impl<S> Gate<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, enrolments: Arc::new(Semaphore::new(MAX_ENROLMENTS)) }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Gate<S>
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

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if !request.uri().path().ends_with("/Enroll") {
            let certificates =
                request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
            if certificates.is_none_or(|chain| chain.is_empty()) {
                return refuse(no_certificate());
            }
            return Box::pin(self.inner.call(request));
        }
        let Ok(permit) = Arc::clone(&self.enrolments).try_acquire_owned() else {
            return refuse(Status::resource_exhausted("too many enrolments at once; try again in a moment"));
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = timeout(ENROLMENT_WAIT, answer).await;
            drop(permit);
            answer.unwrap_or_else(|_| Ok(Status::deadline_exceeded("the enrolment took too long").into_http()))
        })
    }
}

/// Why a call without a certificate is refused.
pub(super) fn no_certificate() -> Status {
    Status::unauthenticated("the call carries no agent's certificate; enrol with a join token first")
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

fn refuse(status: Status) -> Answer {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// Times the largest message, this is what strangers can make us hold.
const MAX_ENROLMENTS: usize = 16;
/// For the message to arrive and its transaction to be stored.
const ENROLMENT_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tonic::Code;

    use super::*;

    /// Counts the calls that get through, and never answers.
    #[derive(Clone, Default)]
    struct Behind(Arc<AtomicUsize>);

    impl Service<http::Request<Body>> for Behind {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        }
    }

    fn call(gate: &mut Gate<Behind>, method: &str) -> Answer {
        let uri = format!("https://localhost/lictor.v1.AgentService/{method}");
        gate.call(http::Request::builder().uri(uri).body(Body::empty()).unwrap())
    }

    async fn code(answer: Answer) -> Code {
        Status::from_header_map(answer.await.unwrap().headers()).unwrap().code()
    }

    #[tokio::test]
    async fn without_a_certificate_no_message_is_read() {
        let behind = Behind::default();
        let mut gate = Gate::new(behind.clone());
        for method in ["Session", "Poll", "Report", "RenewIdentity"] {
            assert_eq!(code(call(&mut gate, method)).await, Code::Unauthenticated, "{method}");
        }
        assert_eq!(behind.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn enrolments_are_few_at_a_time_and_each_ends() {
        let behind = Behind::default();
        let mut gate = Gate::new(behind.clone());
        let waiting: Vec<Answer> = (0..MAX_ENROLMENTS).map(|_| call(&mut gate, "Enroll")).collect();
        assert_eq!(code(call(&mut gate, "Enroll")).await, Code::ResourceExhausted);
        for answer in waiting {
            assert_eq!(code(answer).await, Code::DeadlineExceeded);
        }
        drop(call(&mut gate, "Enroll"));
        assert_eq!(behind.0.load(Ordering::Relaxed), MAX_ENROLMENTS + 1);
    }
}

//! The control interface: what a test orders to happen to the host, and the small HTTP service beside WinRM's that takes it.
//!
//! An order has happened in full when it is answered: connections are gone, nobody listens any more, or somebody does again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conditions::{Lasting, OrderedFault, QuotaChange, Service, Slow};
use crate::configuration::Configuration;
use crate::fault::Style;
use crate::host::Host;
use crate::lines::{Cut, DropAt, Expiry};
use crate::options::Quotas;
use crate::programs::CannedScript;
use crate::server::accept;

/// Something that happens to a host because a test wants it. As JSON `{"advance": "120s"}`, `{"reboot": {"refuse": "30s"}}`,
/// `"ready"` and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The host's clock moves forward. Connections that are idle for 120 s by then are closed, shells expire.
    Advance(#[serde(with = "humantime_serde")] Duration),
    /// The machine restarts: every connection, shell and command and what they counted for is gone.
    Reboot(Reboot),
    /// The service restarts: the same, but HTTP.sys goes on listening and answers 503 meanwhile.
    RestartService(RestartService),
    /// The next requests, this many, are answered with 503.
    Unavailable(u32),
    /// Every outage ends now.
    Ready,
    /// Answers take their time from now on; an empty one ends that.
    Slow(Slow),
    /// Connections that are open and authenticated now are not any more.
    ExpireAuthentication(Expiry),
    /// A connection ends in the middle of an exchange.
    Drop(DropAt),
    /// Quotas change. What is above a new one stays.
    Quotas(QuotaChange),
    /// A fault is given instead of an answer.
    Fault(OrderedFault),
    /// How all faults are written from now on.
    FaultStyle(Style),
    /// What the configuration tells from now on, in place of what was ordered before.
    Configure(Configuration),
    /// What PowerShell says to a script that it cannot run here, from now on.
    Script(CannedScript),
}

/// How a machine restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reboot {
    /// How its connections end. Default with FIN.
    pub cut: Cut,
    /// How long connections are refused. Default not at all.
    pub refuse: Lasting,
    /// How long HTTP.sys answers 503 after that. Default not at all.
    pub unavailable: Lasting,
}

/// How the service restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartService {
    /// How its connections end. Default with FIN.
    pub cut: Cut,
    /// How long HTTP.sys answers 503. Default not at all.
    pub unavailable: Lasting,
}

/// What a host is like at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What was added to its clock by hand.
    #[serde(with = "humantime_serde")]
    pub advanced: Duration,
    /// Whether anybody is there.
    pub service: Service,
    /// Its quotas.
    pub quotas: Quotas,
}

/// HTTP.sys closes connections that have been idle for this long.
pub(crate) const IDLE: Duration = Duration::from_secs(120);
/// How long the listener may take to do as the conditions say: it only has to be polled.
const SETTLED: Duration = Duration::from_secs(10);
const MAX_ORDER: usize = 1024 * 1024;
/// Half a request on the control interface waits this long for its other half.
const HALF_A_REQUEST: Duration = Duration::from_secs(30);

impl Host {
    /// Makes it happen, and returns when it has.
    pub(crate) async fn obey(&self, order: Order) {
        tracing::debug!(?order, "Order");
        match order {
            Order::Advance(by) => {
                self.clock.advance(by);
                self.sweep();
                self.close_idle().await;
            }
            Order::Reboot(Reboot { cut, refuse, unavailable }) => self.restart(cut, refuse, unavailable).await,
            Order::RestartService(RestartService { cut, unavailable }) => {
                self.restart(cut, Lasting::default(), unavailable).await;
            }
            Order::Unavailable(requests) => self.conditions.answer_unavailable(requests),
            Order::Ready => self.conditions.come_up(self.clock.now()),
            Order::Slow(slow) => self.conditions.set_slow(slow),
            Order::ExpireAuthentication(expiry) => self.lines.expire(expiry),
            Order::Drop(drop) => self.lines.drop_at(drop),
            Order::Quotas(change) => self.conditions.change_quotas(change),
            Order::Fault(fault) => self.conditions.order_fault(fault),
            Order::FaultStyle(style) => self.conditions.set_style(style),
            Order::Configure(configuration) => self.configure(configuration),
            Order::Script(script) => self.machine.can(script),
        }
        self.settle().await;
    }

    /// Closes connections as HTTP.sys does.
    pub(crate) async fn close_idle(&self) {
        let closed = self.lines.close_idle(IDLE).await;
        if closed > 0 {
            self.recorder.count(|statistics| statistics.connections.closed_idle += closed);
        }
    }

    async fn restart(&self, cut: Cut, refuse: Lasting, unavailable: Lasting) {
        self.conditions.set_restarting(true);
        self.conditions.go_down(self.clock.now(), refuse, unavailable);
        // Nobody may come in between the cut and the end of the shells.
        self.settle().await;
        let ended = self.lines.cut_all(cut).await;
        self.recorder.count(|statistics| statistics.connections.cut += ended);
        self.forget();
        self.conditions.set_restarting(false);
    }

    /// Waits until the listener does as the conditions say.
    async fn settle(&self) {
        let mut listening = self.listening.subscribe();
        let mut changes = self.conditions.changes();
        let settled = async {
            loop {
                changes.borrow_and_update();
                let wanted = self.conditions.service(self.clock.now()) != Service::Refusing;
                if listening.borrow_and_update().is_none_or(|listens| listens == wanted) {
                    return;
                }
                tokio::select! {
                    _ = listening.changed() => {}
                    _ = changes.changed() => {}
                }
            }
        };
        if tokio::time::timeout(SETTLED, settled).await.is_err() {
            tracing::warn!("The listener does not do as it is told");
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        Condition {
            advanced: self.clock.advanced(),
            service: self.conditions.service(self.clock.now()),
            quotas: self.conditions.quotas(),
        }
    }
}

/// Serves the control interface.
pub(crate) async fn serve(listener: TcpListener, host: Arc<Host>, stopped: CancellationToken, tasks: TaskTracker) {
    while let Some((stream, _)) = stopped.run_until_cancelled(accept(&listener)).await {
        let (host, stopped) = (Arc::clone(&host), stopped.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let host = Arc::clone(&host);
                async move { Ok::<_, Infallible>(answer(&host, request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HALF_A_REQUEST)
                .serve_connection(TokioIo::new(stream), service);
            stopped.run_until_cancelled(served).await;
        });
    }
}

async fn answer(host: &Host, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let json = |value: serde_json::Result<Vec<u8>>| (StatusCode::OK, value.unwrap_or_default());
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/statistics") => json(serde_json::to_vec_pretty(&host.statistics())),
        (&Method::GET, "/shells") => json(serde_json::to_vec_pretty(&host.shells())),
        (&Method::GET, "/control") => json(serde_json::to_vec_pretty(&host.condition())),
        (&Method::POST, "/control") => match read_order(request).await {
            Ok(order) => {
                host.obey(order).await;
                json(serde_json::to_vec_pretty(&host.condition()))
            }
            Err(error) => (StatusCode::BAD_REQUEST, error.into_bytes()),
        },
        (&Method::POST, "/reset") => {
            host.reset();
            (StatusCode::NO_CONTENT, Vec::new())
        }
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if status == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

async fn read_order(request: Request<Incoming>) -> Result<Order, String> {
    let read = Limited::new(request.into_body(), MAX_ORDER).collect();
    match tokio::time::timeout(HALF_A_REQUEST, read).await {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("no order: {error}\n")),
        Ok(Err(error)) => Err(format!("no order: {error}\n")),
        Err(_) => Err("no order: it does not come\n".to_owned()),
    }
}

//! `/live`, `/ready` and `/metrics` over plain HTTP, for kubelets and collectors, and the two documents of the OpenID Connect issuer,
//! which an ingress publishes. Nothing here changes anything, or looks at more of a request than its method and path.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::oidc::{Document, Issuer};

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    issuer: Arc<Issuer>,
    /// Cancelled once the control plane stops; it is not ready from then on.
    stop: CancellationToken,
}

/// The endpoints. Those of the issuer are there when it is on.
pub(crate) fn router(metrics: Arc<Metrics>, issuer: Arc<Issuer>, stop: CancellationToken) -> Router {
    let mut router = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text));
    for document in [Document::Discovery, Document::Keys] {
        if let Some(path) = issuer.path(document) {
            router = router.route(
                &path,
                get(move |State(shared): State<Shared>| async move { published(shared.issuer.document(document)) }),
            );
        }
    }
    router.with_state(Shared { metrics, issuer, stop })
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    if shared.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn metrics_text(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.encode())
}

fn published(document: Option<Value>) -> impl IntoResponse {
    let headers = [(header::CACHE_CONTROL, CACHED), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Json(document))
}

/// Far shorter than a new key is published before it signs; and when keys were lost, the new ones are known soon.
const CACHED: &str = "public, max-age=300";

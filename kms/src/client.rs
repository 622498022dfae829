//! Clients of KMS and STS: HTTP with rustls, proxies, time limits, retries, and their counts.
//!
//! What the machine itself answers (instance metadata, containers, loopback) never goes through a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_sdk_kms::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kms::config::{ConfigBag, IdentityCache, Intercept, Region, RuntimeComponents};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::access::{Access, Endpoint};

/// Makes clients that share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    direct: SharedHttpClient,
    proxied: SharedHttpClient,
    counts: Arc<Counts>,
}

/// What was asked, in all.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) decrypts: AtomicU64,
    pub(crate) generated: AtomicU64,
    pub(crate) hits: AtomicU64,
    operations: AtomicU64,
    attempts: AtomicU64,
}

impl Counts {
    /// Attempts beyond the first of each request.
    pub(crate) fn retries(&self) -> u64 {
        // Operations first: an attempt between the two readings must not make it negative.
        let operations = self.operations.load(Ordering::Relaxed);
        self.attempts.load(Ordering::Relaxed).saturating_sub(operations)
    }
}

impl Clients {
    /// With the system's authorities, and those given in PEM.
    pub(crate) fn new(authorities: &[u8]) -> Self {
        let mut trust = TrustStore::default().with_native_roots(true);
        if !authorities.is_empty() {
            trust.add_pem_certificate(authorities);
        }
        // Building fails for lists of names alone, which are not used here; then the system's authorities are what is trusted.
        let tls = TlsContext::builder().with_trust_store(trust).build().unwrap_or_default();
        Self {
            direct: http(ProxyConfig::disabled(), tls.clone()),
            proxied: http(ProxyConfig::from_env(), tls),
            counts: Arc::default(),
        }
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// For what the machine itself answers.
    pub(crate) fn direct(&self) -> SharedHttpClient {
        self.direct.clone()
    }

    fn for_endpoint(&self, endpoint: Option<&Endpoint>) -> SharedHttpClient {
        if endpoint.is_some_and(|endpoint| endpoint.loopback) { self.direct.clone() } else { self.proxied.clone() }
    }

    pub(crate) fn kms(&self, access: &Access, credentials: Credentials) -> aws_sdk_kms::Client {
        let endpoint = access.endpoint.as_ref();
        let mut config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(access.region.as_str().to_owned()))
            .http_client(self.for_endpoint(endpoint))
            .identity_cache(IdentityCache::no_cache())
            .retry_config(retries())
            .timeout_config(timeouts())
            .interceptor(Counting(Arc::clone(&self.counts)))
            .credentials_provider(credentials);
        config.set_endpoint_url(endpoint.map(|endpoint| endpoint.url.clone()));
        aws_sdk_kms::Client::from_conf(config.build())
    }

    /// Without credentials it can do no more than change a token into a session.
    pub(crate) fn sts(&self, access: &Access, credentials: Option<Credentials>) -> aws_sdk_sts::Client {
        let endpoint = access.sts_endpoint.as_ref();
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(access.region.as_str().to_owned()))
            .http_client(self.for_endpoint(endpoint))
            .identity_cache(IdentityCache::no_cache())
            .retry_config(retries())
            .timeout_config(timeouts())
            .interceptor(Counting(Arc::clone(&self.counts)));
        if let Some(credentials) = credentials {
            config = config.credentials_provider(credentials);
        }
        config.set_endpoint_url(endpoint.map(|endpoint| endpoint.url.clone()));
        aws_sdk_sts::Client::from_conf(config.build())
    }
}

fn http(proxy: ProxyConfig, tls: TlsContext) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls.clone())
            .proxy_config(proxy.clone())
            .pool_idle_timeout(IDLE);
        if let Some(settings) = settings {
            connector = connector.connector_settings(settings.clone());
        }
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
}

/// Jittered and growing; the caller's deadline ends them all.
fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(FIRST_PAUSE)
        .with_max_backoff(LONGEST_PAUSE)
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(READ).operation_attempt_timeout(ATTEMPT).build()
}

/// Counts requests and attempts.
#[derive(Debug)]
struct Counting(Arc<Counts>);

impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "Counting"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.operations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A data key is asked for once in minutes; a dropped packet or a throttled request should not fail a task.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(4);
const READ: Duration = Duration::from_secs(8);
const ATTEMPT: Duration = Duration::from_secs(10);
/// Load balancers of AWS close at 60 s and more.
const IDLE: Duration = Duration::from_secs(30);

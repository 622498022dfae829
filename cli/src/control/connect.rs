//! The connection to the control plane: TLS with a given authority, the user token, deadlines, and errors that say what
//! to do.
//!
//! The token travels only over TLS and is marked sensitive, so that no library prints it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use lictor_proto::v1::access_service_client::AccessServiceClient;
use lictor_proto::v1::batch_service_client::BatchServiceClient;
use lictor_proto::v1::credential_service_client::CredentialServiceClient;
use lictor_proto::v1::fleet_service_client::FleetServiceClient;
use lictor_proto::v1::secret_service_client::SecretServiceClient;
use lictor_proto::v1::task_service_client::TaskServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error as TransportError};
use tonic::{Request, Response, Status};

use crate::args::control::ServerArgs;
use crate::exit::Exit;
use crate::failure::{Failure, chain};
use crate::input;

/// A control plane and who we are there.
#[derive(Debug, Clone)]
pub(super) struct ControlPlane {
    channel: Channel,
    token: BearerToken,
}

impl ControlPlane {
    /// Connects.
    pub(super) async fn connect(args: &ServerArgs) -> Result<Self, Failure> {
        let Some(server) = &args.server else {
            return Err(Failure::usage(
                "there is no control plane to talk to",
                "Give --server https://HOST:7443, or set the environment variable LICTOR_SERVER.",
            ));
        };
        if !server.starts_with("https://") {
            return Err(Failure::usage(
                format!("{server} is not an https URL, and the user token must not travel readable"),
                "Give --server https://HOST:7443.",
            ));
        }
        let Some(token) = input::secret("user token", args.token_file.as_deref(), TOKEN_VARIABLE)? else {
            return Err(Failure::usage(
                "there is no user token",
                "Give --token-file FILE, or set LICTOR_TOKEN_FILE or LICTOR_TOKEN; the control plane writes the \
                 administrator's to `admin-token` in its state directory.",
            ));
        };
        let Some(ca) = &args.ca else {
            return Err(Failure::usage(
                "the authority of the control plane is not known",
                "Give --ca FILE, or set the environment variable LICTOR_CA; the control plane writes it to `ca.pem` in its state directory.",
            ));
        };
        let ca = input::text("control plane's authority", ca, input::MAX_PEM_BYTES)?;
        let token = BearerToken::new(token.expose())?;
        let invalid = |error: TransportError| {
            Failure::usage(
                format!("{server} with this authority cannot be used: {}", chain(&error)),
                "Give --server https://HOST:7443 and --ca with a PEM file.",
            )
        };
        let endpoint = Endpoint::from_shared(server.clone())
            .map_err(invalid)?
            .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
            .map_err(invalid)?;
        let endpoint = bounded(endpoint);
        let channel = endpoint.connect().await.map_err(|error| unreachable(server, &error))?;
        Ok(Self { channel, token })
    }

    #[cfg(test)]
    pub(super) fn over(channel: Channel) -> Self {
        Self { channel, token: BearerToken::new("test").unwrap() }
    }

    pub(super) fn tasks(&self) -> TaskServiceClient<Authorized> {
        TaskServiceClient::new(self.authorized()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn batches(&self) -> BatchServiceClient<Authorized> {
        BatchServiceClient::new(self.authorized())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(lictor_proto::MAX_MESSAGE_BYTES)
    }

    pub(super) fn fleet(&self) -> FleetServiceClient<Authorized> {
        FleetServiceClient::new(self.authorized()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn credentials(&self) -> CredentialServiceClient<Authorized> {
        CredentialServiceClient::new(self.authorized()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn secrets(&self) -> SecretServiceClient<Authorized> {
        SecretServiceClient::new(self.authorized()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn access(&self) -> AccessServiceClient<Authorized> {
        AccessServiceClient::new(self.authorized()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn authorized(&self) -> Authorized {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }
}

type Authorized = InterceptedService<Channel, BearerToken>;

/// Adds `authorization: Bearer` to every call, and the caller's trace.
#[derive(Clone)]
pub(super) struct BearerToken {
    token: MetadataValue<Ascii>,
    /// The caller's trace, which what is asked for becomes a part of.
    trace: Option<MetadataValue<Ascii>>,
}

impl BearerToken {
    fn new(token: &str) -> Result<Self, Failure> {
        // The parse error could quote the token, so it is not shown.
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse().map_err(|_| {
            Failure::usage("the user token holds characters that no token has", "Check the token file.")
        })?;
        value.set_sensitive(true);
        // The control plane passes over what is none.
        let trace = std::env::var(TRACEPARENT).ok().filter(|text| text.len() <= MAX_TRACEPARENT);
        Ok(Self { token: value, trace: trace.and_then(|text| text.parse().ok()) })
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.token.clone());
        if let Some(trace) = &self.trace {
            request.metadata_mut().insert("traceparent", trace.clone());
        }
        Ok(request)
    }
}

/// As build servers and wrappers such as otel-cli set it.
const TRACEPARENT: &str = "TRACEPARENT";
const MAX_TRACEPARENT: usize = 512;

/// Waits for the answer of a unary call, with a deadline.
pub(super) async fn unary<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    answer(CALL_TIMEOUT, call).await.map_err(|status| Failure::from(&status))
}

/// Waits for the answer of a unary call, with a deadline of its own.
pub(super) async fn answer<T>(
    within: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(within, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the control plane did not answer within {}; the request may have been carried out all the same",
            humantime::format_duration(within)
        ))),
    }
}

/// A dead peer must be noticed even while a watched task is silent.
pub(super) fn bounded(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
}

fn unreachable(server: &str, error: &TransportError) -> Failure {
    let (code, cause, remedy) = match Cause::of(error) {
        Cause::Authority => (
            "control_plane.untrusted",
            "Its certificate was not issued by the authority in --ca, or it is another control plane's.",
            "Give the ca.pem of this very control plane with --ca or LICTOR_CA.",
        ),
        Cause::Name => (
            "control_plane.wrong_name",
            "Its certificate is not made out to the name in --server.",
            "Use one of the names in the control plane's setting `names`, or add this name there.",
        ),
        Cause::Tls => (
            "control_plane.tls",
            "What answers there speaks no TLS, or none that is acceptable.",
            "Check the port: it is the control plane's gRPC port, 7443 unless changed.",
        ),
        Cause::Refused => (
            "control_plane.refused_connection",
            "Nothing listens at that address and port.",
            "Check that the control plane runs, and the host and port in --server.",
        ),
        Cause::Other => (
            "control_plane.unreachable",
            "The name has no address, a firewall is between, or the control plane does not answer.",
            "Check --server, and that this machine can reach it.",
        ),
    };
    let message = format!("failed to connect to {server}: {}", chain(error));
    Failure::own(Exit::SERVER_UNREACHABLE, "control_plane", code, message, cause.to_owned(), remedy.to_owned())
}

/// Why connecting failed, by type.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Authority,
    Name,
    Tls,
    Refused,
    Other,
}

impl Cause {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                // An io::Error that wraps another error leaves that one out of its chain of sources.
                if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    return Self::of_tls(tls);
                }
                if io.kind() == std::io::ErrorKind::ConnectionRefused {
                    return Self::Refused;
                }
            }
            next = error.source();
        }
        Self::Other
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::{CertificateError, Error};
        match error {
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::Name,
            Error::InvalidCertificate(_) => Self::Authority,
            _ => Self::Tls,
        }
    }
}

/// Where the user token comes from when there is no file.
const TOKEN_VARIABLE: &str = "LICTOR_TOKEN";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For every call but watching.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A page of tasks holds their scripts, so it may exceed the bound of a single message.
const MAX_ANSWER_BYTES: usize = 128 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;

    fn args(server: &str, directory: &std::path::Path, ca: &str) -> ServerArgs {
        let file = |name: &str, content: &str| -> PathBuf {
            let path = directory.join(name);
            std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
            path
        };
        ServerArgs {
            server: Some(server.to_owned()),
            token_file: Some(file("token", "secret-token\n")),
            ca: Some(file("ca.pem", ca)),
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failure =
            ControlPlane::connect(&args(&format!("https://127.0.0.1:{port}"), directory.path(), "")).await.unwrap_err();
        assert_eq!((failure.exit, &*failure.code), (Exit::SERVER_UNREACHABLE, "control_plane.refused_connection"));
        assert!(!failure.remedy.is_empty());
    }

    #[tokio::test]
    async fn a_peer_without_tls_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let mut sink = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut sink).await;
        });
        let failure = ControlPlane::connect(&args(&server, directory.path(), "")).await.unwrap_err();
        assert_eq!((failure.exit, &*failure.code), (Exit::SERVER_UNREACHABLE, "control_plane.tls"));
        peer.await.unwrap();
    }

    #[tokio::test]
    async fn the_token_never_travels_readable() {
        let directory = tempfile::tempdir().unwrap();
        let failure = ControlPlane::connect(&args("http://127.0.0.1:1", directory.path(), "")).await.unwrap_err();
        assert_eq!(failure.exit, Exit::USAGE);
    }

    #[test]
    fn a_token_is_never_printed() {
        assert_eq!(format!("{:?}", BearerToken::new("abc").unwrap()), "[redacted]");
        let failure = BearerToken::new("ab\ncd").unwrap_err();
        assert!(!failure.to_text().contains("ab"), "{failure:?}");
    }

    #[test]
    fn tls_failures_are_told_apart_by_type() {
        let wrap = |error: rustls::Error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        use rustls::{CertificateError, Error};
        assert_eq!(Cause::of(&wrap(Error::InvalidCertificate(CertificateError::UnknownIssuer))), Cause::Authority);
        assert_eq!(Cause::of(&wrap(Error::InvalidCertificate(CertificateError::NotValidForName))), Cause::Name);
        assert_eq!(Cause::of(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)), Cause::Refused);
        assert_eq!(Cause::of(&std::io::Error::from(std::io::ErrorKind::TimedOut)), Cause::Other);
    }
}

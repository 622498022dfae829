//! Certificates that are not what they should be: forged, expired, of another agent, of another role.

use lictor_proto::v1::agent_service_client::AgentServiceClient;
use lictor_proto::v1::*;
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use tonic::transport::Identity;
use tonic::{Code, Status};

use crate::support::*;

/// A certificate as this control plane's own authority would issue it; the test turns what it needs.
fn genuine(agent_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(format!("lictor:agent/{agent_id}").try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(vec![0x7f; 16]));
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
    params
}

/// Signed with the key of the control plane's own authority, which nobody else should have.
fn signed(server: &Server, params: &CertificateParams) -> Identity {
    let ca_key = std::fs::read_to_string(server.state_dir().join("ca-key.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&server.ca_pem(), KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    Identity::from_pem(format!("{}{}", leaf.pem(), server.ca_pem()), key.serialize_pem())
}

/// What a poll with this certificate comes to; nothing when TLS refuses it.
async fn poll(server: &Server, identity: Identity) -> Option<Status> {
    let channel = server.channel(Some(identity)).await.ok()?;
    let status = AgentServiceClient::new(channel).poll(PollRequest::default()).await.unwrap_err();
    // A connection that TLS ends is no status of the control plane.
    (status.code() != Code::Unknown && status.code() != Code::Unavailable && status.code() != Code::Internal)
        .then_some(status)
}

#[tokio::test]
async fn tls_refuses_what_the_authority_did_not_sign_for_a_client_now() {
    let (server, _user, agent) = scene(&[]).await;
    let ca_key = KeyPair::generate().unwrap();
    let mut forged_ca = CertificateParams::default();
    forged_ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    forged_ca.distinguished_name.push(rcgen::DnType::CommonName, "Lictor control plane authority");
    let forged_ca_pem = forged_ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let forged = genuine(&agent.id).signed_by(&key, &Issuer::new(forged_ca, ca_key)).unwrap();
    let forged = Identity::from_pem(format!("{}{forged_ca_pem}", forged.pem()), key.serialize_pem());
    assert!(poll(&server, forged).await.is_none(), "a forged authority was believed");

    let mut expired = genuine(&agent.id);
    expired.not_before = OffsetDateTime::now_utc() - Duration::days(9);
    expired.not_after = OffsetDateTime::now_utc() - Duration::seconds(1);
    assert!(poll(&server, signed(&server, &expired)).await.is_none(), "an expired certificate was taken");
    let mut early = genuine(&agent.id);
    early.not_before = OffsetDateTime::now_utc() + Duration::minutes(30);
    assert!(poll(&server, signed(&server, &early)).await.is_none(), "a certificate of the future was taken");
    let mut servers = genuine(&agent.id);
    servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(poll(&server, signed(&server, &servers)).await.is_none(), "a server's certificate was taken");
    // The same certificate with nothing wrong gets as far as the records.
    assert!(poll(&server, signed(&server, &genuine(&agent.id))).await.is_some());
}

#[tokio::test]
async fn the_records_refuse_what_was_never_issued() {
    let (server, mut user, agent) = scene(&[]).await;
    let (_, token) = user.token(CreateJoinTokenRequest::default()).await;
    let (csr_der, key_pem) = csr();
    let other = enroll_with(&server, &token, "a2", csr_der, &key_pem).await.unwrap();
    // Even who has the authority's key cannot make an agent: its certificates are in no record.
    let status = poll(&server, signed(&server, &genuine(&agent.id))).await.unwrap();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    // The serial number of one agent does not make another.
    let database = server.state_dir().join("control-plane.db");
    let serial = serial_of(&database, &other.id).await;
    let bytes: Vec<u8> =
        (0..serial.len()).step_by(2).map(|at| u8::from_str_radix(&serial[at..at + 2], 16).unwrap()).collect();
    let mut stolen = genuine(&agent.id);
    stolen.serial_number = Some(SerialNumber::from(bytes));
    let status = poll(&server, signed(&server, &stolen)).await.unwrap();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    for names in [Vec::new(), vec![SanType::DnsName("localhost".try_into().unwrap())]] {
        let mut nobody = genuine(&agent.id);
        nobody.subject_alt_names = names;
        let status = poll(&server, signed(&server, &nobody)).await.unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    assert!(get(&server, "/metrics").await.contains("control_plane_calls_refused_total{reason=\"certificate\"} 2"));
    let log = user.audit().await.join("\n");
    assert!(log.contains("\"access.refused\"") && log.contains(&agent.id), "{log}");
}

async fn serial_of(database: &std::path::Path, agent_id: &str) -> String {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database).read_only(true);
    let mut database = options.connect().await.unwrap();
    let serial = sqlx::query_scalar("SELECT serial FROM certificates WHERE agent_id = $1").bind(agent_id.to_owned());
    serial.fetch_one(&mut database).await.unwrap()
}

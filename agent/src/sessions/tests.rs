//! Plans from the wire, and secrets that come beside an assignment.

use lictor_proto::sealing::{Binding, SealingKey, seal};
use lictor_proto::v1::{SecretDelivery, SecretMaterial, secret_material};
use lictor_winrm::pool::PoolSettings;
use prost::Message as _;

use super::*;
use crate::config;
use crate::secrets::{Deliveries, Keyring};

fn plan(settings: ConnectionSettings, shell: ShellSettings) -> Result<Plan, PlanError> {
    let identity = CredentialIdentity { username: "u".into(), ..CredentialIdentity::default() };
    Plan::parse(Some(WireTarget { host: "h".into(), connection: Some(settings) }), &identity, shell)
}

#[test]
fn unset_fields_take_the_contracts_defaults() {
    let plan = plan(ConnectionSettings::default(), ShellSettings::default()).unwrap();
    assert_eq!(plan.endpoint.to_string(), "https://h:5986/wsman");
    assert_eq!(plan.auth, target::AuthKind::Negotiate);
    assert!(plan.send_channel_bindings && !plan.allow_basic_over_http && !plan.tls.skip_certificate_check);
    assert_eq!(plan.shell, ShellProperties::default());
}

#[test]
fn what_cannot_be_is_refused() {
    assert_eq!(
        Plan::parse(None, &CredentialIdentity::default(), ShellSettings::default()).unwrap_err(),
        PlanError::NoTarget
    );
    let error = plan(ConnectionSettings { port: 70_000, ..Default::default() }, ShellSettings::default()).unwrap_err();
    assert_eq!(error, PlanError::Port(70_000));
    let error = plan(ConnectionSettings { auth: 99, ..Default::default() }, ShellSettings::default()).unwrap_err();
    assert_eq!(error, PlanError::Unsupported { what: "authentication", value: 99 });
    let environment = [("A=B".to_owned(), String::new())].into();
    let error = plan(ConnectionSettings::default(), ShellSettings { environment, ..Default::default() }).unwrap_err();
    assert_eq!(error, PlanError::Variable("A=B".into()));
    let target = WireTarget { host: "no host".into(), connection: None };
    assert!(matches!(
        Plan::parse(Some(target), &CredentialIdentity::default(), ShellSettings::default()),
        Err(PlanError::Endpoint(_))
    ));
}

#[test]
fn what_proves_the_user_decides_how_he_can_authenticate() {
    let plan = |kind: CredentialSecretKind, path: &str, auth: AuthKind, mode: KinitMode| {
        let identity = CredentialIdentity {
            username: "svc@CORP.EXAMPLE".into(),
            secret_kind: kind.into(),
            agent_path: path.into(),
            ..CredentialIdentity::default()
        };
        let kerberos = KerberosSettings { kinit_mode: mode.into(), ..KerberosSettings::default() };
        let connection =
            ConnectionSettings { auth: auth.into(), kerberos: Some(kerberos), ..ConnectionSettings::default() };
        let target = WireTarget { host: "h".into(), connection: Some(connection) };
        let plan = Plan::parse(Some(target), &identity, ShellSettings::default())?;
        Ok((plan.proof.clone(), plan.check(&Brought::nothing()).is_err()))
    };
    use CredentialSecretKind as Kind;
    let unset = KinitMode::Unspecified;
    let file = Proof::KeytabOnAgent(Some("/k".into()));
    assert_eq!(plan(Kind::Unspecified, "", AuthKind::Basic, unset), Ok((Proof::Password, true)));
    assert_eq!(plan(Kind::Keytab, "", AuthKind::Negotiate, unset), Ok((Proof::Keytab, true)));
    assert_eq!(plan(Kind::KeytabOnAgent, "/k", AuthKind::Kerberos, KinitMode::Managed), Ok((file, false)));
    let cache = |name: Option<&str>| Ok((Proof::CacheOnAgent(name.map(str::to_owned)), false));
    assert_eq!(plan(Kind::CacheOnAgent, "DIR:/c", AuthKind::Kerberos, unset), cache(Some("DIR:/c")));
    assert_eq!(plan(Kind::CacheOnAgent, "", AuthKind::Kerberos, KinitMode::Manual), cache(None));
    assert_eq!(plan(Kind::Password, "", AuthKind::Kerberos, KinitMode::Manual), cache(None));
    assert_eq!(plan(Kind::CacheOnAgent, "", AuthKind::Kerberos, KinitMode::Managed), Err(PlanError::Managed));
    for (auth, name) in [(AuthKind::Basic, "basic"), (AuthKind::Ntlm, "ntlm")] {
        assert_eq!(plan(Kind::Keytab, "", auth, unset), Err(PlanError::NoPassword(name)));
    }
}

#[test]
fn secret_variables_are_variables_and_none_is_there_twice() {
    let shell = |plain: &[&str], secret: &[&str]| {
        let map = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let shell = ShellSettings { environment: map(plain), secret_environment: map(secret), ..Default::default() };
        plan(ConnectionSettings::default(), shell).map(|_| ())
    };
    assert_eq!(shell(&["A"], &["B", "C"]), Ok(()));
    assert_eq!(shell(&["Token"], &["TOKEN"]), Err(PlanError::VariableTwice("TOKEN".into())));
    assert!(matches!(shell(&[], &["Token", "TOKEN"]), Err(PlanError::VariableTwice(_))));
    for name in ["", "A=B", "A\0"] {
        assert_eq!(shell(&[], &[name]), Err(PlanError::Variable(name.into())));
    }
    let twice = ConnectionSettings { ca_pem: "pem".into(), ca_secret: "ca".into(), ..Default::default() };
    assert_eq!(plan(twice, ShellSettings::default()).unwrap_err(), PlanError::AuthorityTwice);
}

/// An agent's sessions, and the key that secrets are sealed to.
async fn sessions(directory: &std::path::Path) -> (Sessions, [u8; 32]) {
    let (keyring, key) = (Arc::new(Keyring::default()), SealingKey::generate());
    let public = key.public_bytes();
    keyring.put("agent-1", key);
    let policies = Policies::open(None).unwrap();
    let metrics = Arc::new(Metrics::default());
    let settings = config::Secrets {
        directories: Vec::new(),
        cache_entries: 1,
        cache_lifetime: std::time::Duration::from_secs(1),
    };
    let secrets =
        Secrets::new(keyring, "agent", &settings, BTreeMap::new(), Arc::clone(&policies), Arc::clone(&metrics));
    let settings = config::Kerberos { krb5_conf: None, declared: None, keytabs: Vec::new(), caches: Vec::new() };
    let kerberos = Kerberos::start(&settings, directory.join("krb5.conf")).await.unwrap();
    (Sessions::new(Pool::new(PoolSettings::default()), secrets, policies, kerberos, metrics), public)
}

fn brought(key: &[u8; 32], values: &[(&str, u64, &[u8])]) -> Brought {
    let deliveries = values.iter().map(|(identifier, version, value)| {
        let material = SecretMaterial { material: Some(secret_material::Material::Value(value.to_vec())) };
        let binding = Binding {
            agent_id: "agent-1",
            task_id: "t",
            epoch: 1,
            credential: &format!("secret:{identifier}"),
            credential_version: *version,
        };
        let sealed = Some(seal(key, &binding, &material.encode_to_vec()).unwrap());
        SecretDelivery { identifier: (*identifier).into(), version: *version, sealed }
    });
    let deliveries = Deliveries::parse(deliveries.collect()).unwrap();
    Brought::new(("t".into(), 1), &CredentialIdentity::default(), None, deliveries)
}

fn named() -> Plan {
    let identity = CredentialIdentity { username: "u".into(), secret: "password".into(), ..Default::default() };
    let connection = ConnectionSettings { auth: AuthKind::Ntlm.into(), ca_secret: "ca".into(), ..Default::default() };
    let shell = ShellSettings {
        environment: [("PLAIN".to_owned(), "seen".to_owned())].into(),
        secret_environment: [("A".to_owned(), "one".to_owned()), ("B".to_owned(), "two".to_owned())].into(),
        ..Default::default()
    };
    Plan::parse(Some(WireTarget { host: "h".into(), connection: Some(connection) }), &identity, shell).unwrap()
}

fn exposed<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Vec<&'s str> {
    secrets.into_iter().map(Secret::expose).collect()
}

#[tokio::test]
async fn secrets_beside_an_assignment_end_where_they_are_used_and_are_masked() {
    let directory = tempfile::tempdir().unwrap();
    let (sessions, key) = sessions(directory.path()).await;
    let values: [(&str, u64, &[u8]); 4] =
        [("password", 1, b"Mark3r-1"), ("ca", 2, b"-----BEGIN"), ("one", 3, b"Mark3r-2"), ("two", 4, b"Mark3r-3")];
    let all = brought(&key, &values);
    let plan = named();
    plan.check(&all).unwrap();
    let mut secrets = plan.shell_secrets(&all);
    assert_eq!(secrets, [("one".to_owned(), 3), ("two".to_owned(), 4)]);
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let access = sessions.access(&plan, &all, deadline).await.unwrap();
    let target = &access.target;
    assert_eq!(exposed(target.credential.secret()), ["Mark3r-1"]);
    assert_eq!(target.tls.ca_pem.as_deref(), Some("-----BEGIN"));
    assert_eq!(exposed(target.shell.secret_environment.values()), ["Mark3r-2", "Mark3r-3"]);
    assert!(target.shell.secret_environment.keys().eq(["A", "B"]) && target.shell.environment.len() == 1);
    assert_eq!(exposed(&access.masks), ["Mark3r-2", "Mark3r-3"]);
    let shown = format!("{access:?} {plan:?} {all:?}");
    assert!(!shown.contains("Mark3r"), "{shown}");

    for left_out in 0..values.len() {
        let mut fewer = values.to_vec();
        let (identifier, ..) = fewer.remove(left_out);
        let missing = Err(PlanError::Delivery(DeliveryError::Missing(identifier.into())));
        assert_eq!(plan.check(&brought(&key, &fewer)), missing);
    }

    // A command that runs already has its variables: what it prints is masked by the same versions, or it is not followed.
    let plan = plan.resumed(&secrets);
    plan.check(&all).unwrap();
    let access = sessions.access(&plan, &all, deadline).await.unwrap();
    assert_eq!(exposed(&access.masks), ["Mark3r-2", "Mark3r-3"]);
    assert!(access.target.shell.secret_environment.is_empty());
    secrets[0].1 = 2;
    let plan = plan.resumed(&secrets);
    assert!(matches!(plan.check(&all), Err(PlanError::OtherVersion { had: 2, came: 3, .. })));
}

#[tokio::test]
async fn too_much_for_an_environment_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (sessions, key) = sessions(directory.path()).await;
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let fits = vec![b'x'; 32_000];
    for (lengths, purpose) in [([32_000, 32_000], None), ([32_001, 1], Some("a variable"))] {
        let (one, two) = (vec![b'x'; lengths[0]], vec![b'y'; lengths[1]]);
        let all = brought(&key, &[("password", 1, b"p"), ("ca", 1, b"c"), ("one", 1, &one), ("two", 1, &two)]);
        let refused = match sessions.access(&named(), &all, deadline).await {
            Ok(_) => None,
            Err(AccessError::Secret(SecretError::TooLong { purpose, .. })) => Some(purpose),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(refused, purpose);
    }
    let mut plan = named();
    plan.named.environment.insert("C".into(), "three".into());
    let values: [(&str, u64, &[u8]); 5] =
        [("password", 1, b"p"), ("ca", 1, b"c"), ("one", 1, &fits), ("two", 1, &fits), ("three", 1, &fits)];
    let error = sessions.access(&plan, &brought(&key, &values), deadline).await.unwrap_err();
    assert!(error.to_string().contains("all variables of a task together"), "{error}");
}

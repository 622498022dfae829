//! Deliveries from their seal to their value, and everything that can be wrong with them on the way.

use lictor_kms::Context;
use lictor_proto::sealing::{Binding, SealingKey, seal};
use lictor_proto::v1::{
    AwsAssumeRole, AwsMachineRole, KmsMaterial, SecretDelivery, SecretMaterial, kms_access, secret_material,
};
use prost::Message as _;
use std::time::Duration;

use super::*;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ASSIGNED: Assigned<'static> = Assigned { task_id: "t", epoch: 3 };

/// What opens secrets, and the key that they are sealed to.
struct Bench {
    secrets: Secrets,
    key: [u8; 32],
    directory: tempfile::TempDir,
}

impl Bench {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        std::fs::write(&file, policy).unwrap();
        let policies = Policies::open((!policy.is_empty()).then_some(file)).unwrap();
        let permitted = directory.path().join("secrets");
        std::fs::create_dir(&permitted).unwrap();
        let settings = config::Secrets {
            directories: vec![permitted],
            cache_entries: 10,
            cache_lifetime: Duration::from_secs(60),
        };
        let variables = BTreeMap::from([("LICTOR_SECRET_WEB".to_owned(), Secret::new("pässword\n".into()))]);
        let (keyring, key) = (Arc::new(Keyring::default()), SealingKey::generate());
        let public = key.public_bytes();
        keyring.put("agent-1", key);
        let secrets = Secrets::new(keyring, "agent", &settings, variables, policies, Arc::default());
        Self { secrets, key: public, directory }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.directory.path().join("secrets").join(name);
        std::fs::write(&path, bytes).unwrap();
        format!("file:{}", path.display())
    }

    fn sealed(&self, bytes: &[u8]) -> Delivery {
        self.bound(bytes, "secret:web", 7)
    }

    /// A delivery of version 7 of `web`, sealed under another name or version.
    fn bound(&self, bytes: &[u8], credential: &str, version: u64) -> Delivery {
        let binding = Binding { agent_id: "agent-1", task_id: "t", epoch: 3, credential, credential_version: version };
        let sealed = Some(seal(&self.key, &binding, bytes).unwrap());
        let came = vec![SecretDelivery { identifier: "web".into(), version: 7, sealed }];
        Deliveries::parse(came).unwrap().find("web").unwrap().clone()
    }

    fn material(&self, material: secret_material::Material) -> Delivery {
        self.sealed(&SecretMaterial { material: Some(material) }.encode_to_vec())
    }

    async fn value(&self, delivery: &Delivery) -> Result<Value, SecretError> {
        self.secrets.value(delivery, ASSIGNED, Instant::now() + Duration::from_secs(20)).await
    }

    async fn text(&self, material: secret_material::Material) -> Result<String, SecretError> {
        let value = self.value(&self.material(material)).await?;
        value.into_text().map(|text| text.expose().to_owned())
    }
}

fn access(endpoint: &str) -> KmsAccess {
    KmsAccess {
        manager: "aws".into(),
        key: KEY.into(),
        region: "eu-central-1".into(),
        endpoint: endpoint.into(),
        sts_endpoint: String::new(),
        credentials: Some(kms_access::Credentials::MachineRole(AwsMachineRole {})),
    }
}

fn record(identifier: &str, version: &str) -> KmsRecord {
    let pairs = [("lictor:scope", "/"), ("lictor:secret", identifier), ("lictor:version", version)];
    KmsRecord {
        key_arn: KEY.into(),
        wrapped_key: vec![1; 100],
        nonce: vec![0; 12],
        ciphertext: vec![2; 32],
        context: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

fn kms(record: Option<KmsRecord>, access: KmsAccess) -> secret_material::Material {
    secret_material::Material::Kms(KmsMaterial { record, access: Some(access) })
}

fn problem(error: &SecretError) -> &'static str {
    match error {
        SecretError::NoKey { .. } => "no key",
        SecretError::Sealed { .. } => "sealed",
        SecretError::NotText { .. } => "not text",
        SecretError::Empty { .. } => "empty",
        SecretError::TooLong { .. } => "too long",
        SecretError::Malformed { .. } => "malformed",
        SecretError::Unknown { .. } => "unknown",
        SecretError::Source { .. } => "source",
        SecretError::Kms { .. } => "kms",
        SecretError::Refused(refusal) => refusal.code,
    }
}

#[tokio::test]
async fn a_value_comes_as_it_was_put() {
    use secret_material::Material::Value;
    let bench = Bench::new("");
    assert_eq!(bench.text(Value("pässword\n".into())).await.unwrap(), "pässword\n", "what is no file keeps its end");
    let bytes = bench.value(&bench.material(Value(vec![5, 2, 0xff]))).await.unwrap().into_bytes();
    assert_eq!(bytes.as_slice(), [5, 2, 0xff]);
    let error = bench.text(Value(vec![0xff])).await.unwrap_err();
    assert_eq!(error.to_string(), "secret web is not UTF-8 text");
    assert_eq!(problem(&bench.text(Value(Vec::new())).await.unwrap_err()), "empty");
    assert!(!format!("{:?}", bench.value(&bench.material(Value(b"Mark3r".to_vec()))).await).contains("Mark3r"));
}

#[tokio::test]
async fn what_is_on_the_agent_is_read_anew_each_time() {
    let bench = Bench::new("");
    let text = async |source: &str| bench.text(secret_material::Material::Source(source.into())).await;
    assert_eq!(text("env:LICTOR_SECRET_WEB").await.unwrap(), "pässword\n", "a variable is taken as it is");
    let file = bench.file("web", b"one\n");
    assert_eq!(text(&file).await.unwrap(), "one");
    for (written, expected) in [(&b"two\r\n"[..], "two"), (b"a\nb\n\n", "a\nb\n"), (b"three", "three")] {
        bench.file("web", written);
        assert_eq!(text(&file).await.unwrap(), expected);
    }
    let keytab = bench.material(secret_material::Material::Source(bench.file("web", b"\x05\x02\n")));
    assert_eq!(bench.value(&keytab).await.unwrap().into_bytes().as_slice(), b"\x05\x02\n", "bytes are left alone");
    bench.file("web", b"\n");
    assert_eq!(problem(&text(&file).await.unwrap_err()), "empty");
    for source in ["env:LICTOR_SECRET_DB", "env:HOME", "env:", "http://web", "file:web", ""] {
        assert_eq!(problem(&text(source).await.unwrap_err()), "source", "{source}");
    }
    let denied = Bench::new("secrets.sources = false");
    let source = secret_material::Material::Source("env:LICTOR_SECRET_WEB".into());
    assert_eq!(problem(&denied.text(source).await.unwrap_err()), "policy.secret_source");
    assert_eq!(denied.secrets.capabilities(), ["aws_kms"]);
    assert_eq!(bench.secrets.capabilities(), ["aws_kms", "secret_sources"]);
    assert_eq!(Bench::new("secrets.kms_keys = []").secrets.capabilities(), ["secret_sources"]);
}

#[tokio::test]
async fn what_was_sealed_for_something_else_does_not_open() {
    let bench = Bench::new("");
    let material = SecretMaterial { material: Some(secret_material::Material::Value(b"x".to_vec())) }.encode_to_vec();
    assert!(bench.value(&bench.sealed(&material)).await.is_ok());
    for (credential, version) in [("web", 7), ("secret:db", 7), ("secret:web", 8), ("secret:manager:web", 7)] {
        let error = bench.value(&bench.bound(&material, credential, version)).await.unwrap_err();
        assert_eq!(problem(&error), "sealed", "{credential} {version}");
        assert_eq!(error.to_string(), "failed to open secret web");
    }
    let delivery = bench.sealed(&material);
    for assigned in [Assigned { task_id: "u", epoch: 3 }, Assigned { task_id: "t", epoch: 4 }] {
        let deadline = Instant::now() + Duration::from_secs(20);
        let error = bench.secrets.value(&delivery, assigned, deadline).await.unwrap_err();
        assert_eq!(problem(&error), "sealed");
    }
}

#[tokio::test]
async fn material_that_makes_no_sense_is_refused_before_anybody_is_asked() {
    let bench = Bench::new("");
    let nobody = KmsAccess { credentials: None, ..access("") };
    let mut scopeless = record("web", "7");
    scopeless.context.remove("lictor:scope");
    let mut more = record("web", "7");
    more.context.insert("lictor:extra".into(), "1".into());
    for (bytes, expected) in [
        (b"\xff\xff".to_vec(), "malformed"),
        // A kind of material that this version does not know; and none.
        (vec![0xfa, 0x01, 0x00], "unknown"),
        (Vec::new(), "unknown"),
    ] {
        let error = bench.value(&bench.sealed(&bytes)).await.unwrap_err();
        assert_eq!(problem(&error), expected, "{bytes:?}");
    }
    let no_access = secret_material::Material::Kms(KmsMaterial { record: Some(record("web", "7")), access: None });
    for (material, expected) in [
        (no_access, "malformed"),
        (kms(Some(record("web", "7")), nobody), "unknown"),
        (kms(Some(record("db", "7")), access("")), "malformed"),
        (kms(Some(record("web", "6")), access("")), "malformed"),
        (kms(Some(scopeless), access("")), "malformed"),
        (kms(Some(more), access("")), "malformed"),
        // The way to a manager is no secret.
        (kms(None, access("")), "malformed"),
        (kms(Some(record("web", "7")), KmsAccess { region: "eu-nowhere-1".into(), ..access("") }), "kms"),
    ] {
        let error = bench.value(&bench.material(material)).await.unwrap_err();
        assert_eq!(problem(&error), expected, "{error:?}");
    }
}

#[tokio::test]
async fn the_policy_is_asked_before_aws_is() {
    let role = AwsAssumeRole { role_arn: "arn:aws:iam::444455556666:role/admin".into(), ..AwsAssumeRole::default() };
    let assumed = KmsAccess { credentials: Some(kms_access::Credentials::AssumeRole(role)), ..access("") };
    let other = KmsRecord { key_arn: "arn:aws:kms:eu-central-1:444455556666:key/a".into(), ..record("web", "7") };
    let rules = format!("secrets.kms_keys = [\"{KEY}\"]\nsecrets.kms_roles = []\n");
    let bench = Bench::new(&rules);
    for (record, access, expected) in [
        // What is named by the manager does not make another key a permitted one.
        (other, access(""), "policy.kms_key"),
        (record("web", "7"), assumed.clone(), "policy.kms_role"),
        (record("web", "7"), access("http://127.0.0.1:1"), "policy.kms_endpoint"),
    ] {
        let error = bench.value(&bench.material(kms(Some(record), access))).await.unwrap_err();
        assert_eq!(problem(&error), expected, "{error:?}");
    }
    for (access, expected) in [
        (assumed, "policy.kms_role"),
        (KmsAccess { key: "alias/a".into(), ..access("") }, "policy.kms_key"),
        (access("https://kms.corp.example"), "policy.kms_endpoint"),
    ] {
        let delivery = bench.material(kms(None, access));
        assert_eq!(problem(&bench.secrets.way(&delivery, ASSIGNED).unwrap_err()), expected);
    }
    let way = bench.secrets.way(&bench.material(kms(None, access(""))), ASSIGNED).unwrap();
    assert_eq!(way.manager(), "aws");
    // Nor does the way make the key of a stored secret a permitted one.
    let stored = |material| bench.secrets.stored(&bench.material(material), ASSIGNED);
    let other = KmsRecord { key_arn: "arn:aws:kms:eu-central-1:444455556666:key/a".into(), ..record("web", "7") };
    assert!(stored(kms(Some(record("web", "7")), access(""))).is_ok());
    for (material, expected) in [
        (kms(Some(other), access("")), "policy.kms_key"),
        (kms(Some(record("db", "7")), access("")), "malformed"),
        (kms(None, access("")), "malformed"),
        (secret_material::Material::Value(b"x".to_vec()), "malformed"),
    ] {
        assert_eq!(problem(&stored(material).unwrap_err()), expected);
    }
    let value = bench.material(secret_material::Material::Value(b"x".to_vec()));
    assert_eq!(problem(&bench.secrets.way(&value, ASSIGNED).unwrap_err()), "malformed");
}

#[test]
fn deliveries_are_bounded_and_name_each_secret_once() {
    let one = |identifier: &str| SecretDelivery {
        identifier: identifier.into(),
        version: 1,
        sealed: Some(SealedSecret::default()),
    };
    let many = |count: usize| (0..count).map(|number| one(&format!("s{number}"))).collect::<Vec<_>>();
    assert!(Deliveries::parse(many(64)).is_ok());
    assert_eq!(Deliveries::parse(many(65)), Err(DeliveryError::TooMany(65)));
    assert_eq!(Deliveries::parse(vec![one("a"), one("a")]), Err(DeliveryError::Twice("a".into())));
    let nothing = SecretDelivery { sealed: None, ..one("a") };
    assert_eq!(Deliveries::parse(vec![nothing]), Err(DeliveryError::Nothing("a".into())));
    for identifier in ["", "a\nb", &"a".repeat(81)] {
        assert!(matches!(Deliveries::parse(vec![one(identifier)]), Err(DeliveryError::Identifier(_))));
    }
    let deliveries = Deliveries::parse(vec![one("manager:aws"), one("web")]).unwrap();
    assert_eq!(deliveries.find("manager:aws").unwrap().identifier(), "manager:aws");
    assert_eq!(deliveries.find("aws"), Err(DeliveryError::Missing("aws".into())));
}

#[test]
fn the_context_of_a_record_is_that_of_the_contract() {
    assert!(Context::new("", "web", 7).is(&record("web", "7").context));
}

#[test]
fn a_value_is_named_and_not_shown() {
    let bytes = Zeroizing::new(b"marker".to_vec());
    let shown = format!("{:?}", Value { bytes: bytes.clone(), secret: "secret web".into(), from_file: false });
    assert!(shown.contains("secret web"), "{shown}");
    for value in ["marker".to_owned(), format!("{:?}", bytes.as_slice())] {
        assert!(!shown.contains(&value), "{shown}");
    }
}

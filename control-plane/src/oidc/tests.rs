//! What tokens say, what becomes of keys, and PyJWT as the judge of both: see `tests/peers/oidc/README.md`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use super::*;
use crate::config::MasterKeySource;
use crate::metrics::Metrics;
use crate::vault::Vault;

const ISSUER: &str = "https://lictor.corp.example/oidc";
const AGENT: &str = "0197a6e0-0000-7000-8000-000000000001";

fn settings() -> Oidc {
    let endpoints = vec![Endpoint::parse("http://127.0.0.1:5000").unwrap()];
    Oidc { issuer: Some(IssuerUrl::parse(ISSUER).unwrap()), endpoints }
}

fn keys(dir: &Path) -> TaskKeys {
    Vault::open(&MasterKeySource::StateDir, dir).unwrap().task_keys().clone()
}

fn open(dir: &Path) -> Issuer {
    Issuer::open(&settings(), dir, &keys(dir), Now::read().wall).unwrap()
}

fn subject<'a>(scope: &'a str, manager: &'a str) -> Subject<'a> {
    Subject { scope, manager, sts_endpoint: "", holder: Holder::Agent(AGENT) }
}

fn part(token: &str, at: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()
}

fn json_part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&part(token, at)).unwrap()
}

fn ids(issuer: &Issuer) -> Vec<String> {
    let keys = issuer.document(Document::Keys).unwrap();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_a_setting_there_is_no_issuer_and_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let issuer =
        Issuer::open(&Oidc { issuer: None, endpoints: Vec::new() }, dir.path(), &keys(dir.path()), Now::read().wall);
    let issuer = issuer.unwrap();
    let error = issuer.token(&subject("", "corp"), Now::read().wall).unwrap_err();
    assert_eq!(error.to_string(), "this control plane issues no tokens: set oidc.issuer");
    for document in [Document::Discovery, Document::Keys] {
        assert_eq!((issuer.path(document), issuer.document(document)), (None, None));
    }
    assert!(!dir.path().join(FILE).exists());
}

#[test]
fn a_token_says_whose_it_is_for_ten_minutes_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = open(dir.path());
    let now = UnixMillis(1_800_000_000_999);
    let token = issuer.token(&subject("platform/production", "corp"), now).unwrap();
    assert_eq!(json_part(&token, 0), json!({ "alg": "ES256", "kid": ids(&issuer)[0], "typ": "JWT" }));
    let mut claims = json_part(&token, 1);
    let jti = claims["jti"].take();
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER,
            "sub": "scope:platform/production:secret-manager:corp",
            "aud": "sts.amazonaws.com",
            "iat": 1_800_000_000,
            "nbf": 1_800_000_000,
            "exp": 1_800_000_600,
            "jti": null,
            "lictor_agent": AGENT,
        })
    );
    let again = issuer.token(&Subject { holder: Holder::ControlPlane, ..subject("", "corp") }, now).unwrap();
    let claims = json_part(&again, 1);
    assert_ne!(claims["jti"], jti);
    assert_eq!(claims["sub"], "scope:account:secret-manager:corp");
    assert_eq!(claims["lictor_agent"], "control-plane");
    // Every claim is one that the discovery document names, and the other way round.
    let discovery = issuer.document(Document::Discovery).unwrap();
    let mut named: Vec<&str> =
        discovery["claims_supported"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    named.sort_unstable();
    let mut said: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    said.sort_unstable();
    assert_eq!(said, named);
}

#[test]
fn the_published_key_checks_the_signature_and_shows_nothing_private() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = open(dir.path());
    let token = issuer.token(&subject("", "corp"), Now::read().wall).unwrap();
    let published = issuer.document(Document::Keys).unwrap();
    let key = published["keys"][0].as_object().unwrap();
    let mut members: Vec<&str> = key.keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, _) = token.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &part(&token, 2)).unwrap();
}

#[test]
fn subjects_fit_what_aws_takes_and_are_never_mistaken_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = open(dir.path());
    let now = Now::read().wall;
    let manager = "m".repeat(64);
    let rest = "scope::secret-manager:".len() + manager.len();
    let longest = "s".repeat(MAX_SUBJECT - rest);
    let token = issuer.token(&subject(&longest, &manager), now).unwrap();
    assert_eq!(json_part(&token, 1)["sub"].as_str().unwrap().len(), 255);
    assert!(token.len() <= MAX_TOKEN && token.capacity() == MAX_TOKEN, "{}", token.len());
    let longer = format!("{longest}s");
    assert!(matches!(issuer.token(&subject(&longer, &manager), now), Err(OidcError::TooLong { length: 256 })));
    assert!(matches!(issuer.token(&subject("account", "corp"), now), Err(OidcError::Ambiguous)));
    let below = issuer.token(&subject("account/a", "corp"), now).unwrap();
    assert_eq!(json_part(&below, 1)["sub"], "scope:account/a:secret-manager:corp");
}

#[test]
fn a_token_is_for_aws_or_for_whom_the_settings_name() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = open(dir.path());
    let to = |sts_endpoint| issuer.token(&Subject { sts_endpoint, ..subject("", "corp") }, Now::read().wall);
    to("http://127.0.0.1:5000").unwrap();
    to("http://127.0.0.1:5000/").unwrap();
    for other in ["http://127.0.0.1:5001", "https://sts.evil.example", "http://127.0.0.1:5000@sts.evil.example", " "] {
        assert!(matches!(to(other), Err(OidcError::Endpoint(named)) if named == other), "{other}");
    }
}

#[test]
fn keys_outlive_a_restart_in_a_file_that_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = ids(&open(dir.path()));
    let path = dir.path().join(FILE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    // The object identifier of P-256, which every private key of that curve in PKCS#8 holds.
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    assert!(!before.windows(oid.len()).any(|window| window == oid));
    assert_eq!(ids(&open(dir.path())), first);
    assert_eq!(std::fs::read(&path).unwrap(), before, "nothing was due");
}

#[test]
fn keys_that_cannot_be_read_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let mut known = ids(&open(dir.path()));
    let whole = std::fs::read(&path).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for broken in [&[][..], &whole[..20], &changed] {
        std::fs::write(&path, broken).unwrap();
        let now = ids(&open(dir.path()));
        assert!(now.len() == 1 && !known.contains(&now[0]), "{now:?}");
        assert_eq!(ids(&open(dir.path())), now, "and kept");
        known.extend(now);
    }
    // The same under another master key.
    std::fs::remove_file(dir.path().join("master-key")).unwrap();
    let now = ids(&open(dir.path()));
    assert!(!known.contains(&now[0]));
    // A file that cannot be read at all is somebody's mistake.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let opened = Issuer::open(&settings(), dir.path(), &keys(dir.path()), Now::read().wall);
    assert!(matches!(opened, Err(OidcError::File { .. })));
}

#[test]
fn keys_change_while_tokens_of_the_old_one_live() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = open(dir.path());
    let on = issuer.on.as_ref().unwrap();
    let day = Duration::from_secs(86400);
    let start = Now::read().wall;
    let kid = |now| json_part(&issuer.token(&subject("", "corp"), now).unwrap(), 0)["kid"].as_str().unwrap().to_owned();
    let first = kid(start);
    on.advance(start.plus(day * 91)).unwrap();
    assert_eq!((ids(&issuer).len(), kid(start.plus(day * 91))), (2, first.clone()), "published first");
    let second = kid(start.plus(day * 92));
    assert_ne!(second, first);
    assert!(ids(&issuer).contains(&first), "its last tokens live");
    on.advance(start.plus(day * 93)).unwrap();
    assert_eq!(ids(&issuer), std::slice::from_ref(&second));
    assert_eq!(ids(&Issuer::open(&settings(), dir.path(), &keys(dir.path()), start.plus(day * 93)).unwrap()), [second]);
}

#[test]
fn a_key_that_cannot_be_kept_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = open(dir.path());
    let before = ids(&issuer);
    // The file's place is taken, so that it cannot be replaced.
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    std::fs::create_dir(dir.path().join(FILE)).unwrap();
    let later = Now::read().wall.plus(Duration::from_secs(91 * 86400));
    assert!(matches!(issuer.on.as_ref().unwrap().advance(later), Err(OidcError::File { .. })));
    assert_eq!(ids(&issuer), before);
}

#[tokio::test]
async fn pyjwt_takes_a_token_by_the_published_documents_and_no_changed_one() {
    let Some(python) = std::env::var_os("LICTOR_PEERS_PYTHON") else {
        let required = std::env::var("LICTOR_PEERS").is_ok_and(|value| value == "required");
        assert!(!required, "LICTOR_PEERS=required, and LICTOR_PEERS_PYTHON names no interpreter with PyJWT");
        println!("did not run: LICTOR_PEERS_PYTHON names no interpreter with PyJWT");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let issuer = Arc::new(open(dir.path()));
    let now = Now::read().wall;
    let token = |now| issuer.token(&subject("platform", "corp"), now).unwrap().to_string();
    let good = token(now);
    let other = good.replace(&good[good.len() - 8..], if good.ends_with("AAAAAAAA") { "BBBBBBBB" } else { "AAAAAAAA" });
    let (header, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let mut wider = json_part(&good, 1);
    wider["sub"] = json!("scope:account:secret-manager:corp");
    let wider = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(wider.to_string()));
    let unsigned = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "typ": "JWT" }).to_string()));
    let stranger = tempfile::tempdir().unwrap();
    let stranger = open(stranger.path()).token(&subject("platform", "corp"), now).unwrap().to_string();
    let second = Duration::from_secs(1);
    let cases = [
        ("sts.amazonaws.com", good.clone(), ""),
        ("sts.amazonaws.com", token(now.minus(Duration::from_secs(590))), ""),
        ("sts.amazonaws.com", token(now.minus(Duration::from_secs(601))), "ExpiredSignatureError"),
        ("sts.amazonaws.com", token(now.plus(second * 120)), "ImmatureSignatureError"),
        ("sts.example", good, "InvalidAudienceError"),
        ("sts.amazonaws.com", other, "InvalidSignatureError"),
        ("sts.amazonaws.com", wider, "InvalidSignatureError"),
        ("sts.amazonaws.com", unsigned, "PyJWKClientError"),
        ("sts.amazonaws.com", stranger, "PyJWKClientError"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = crate::http::router(Arc::new(Metrics::new()), Arc::clone(&issuer), CancellationToken::new());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/oidc/verify.py");
    let mut judge = Command::new(python)
        .args([script, "--issuer", ISSUER, "--base", &base])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let lines: String = cases.iter().map(|(audience, token, _)| format!("{audience} {token}\n")).collect();
    judge.stdin.take().unwrap().write_all(lines.as_bytes()).await.unwrap();
    let output = timeout(Duration::from_secs(60), judge.wait_with_output()).await.unwrap().unwrap();
    server.abort();
    assert!(output.status.success());
    let verdicts: Vec<Value> =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let refused: Vec<&str> = verdicts.iter().map(|verdict| verdict["refused"].as_str().unwrap_or_default()).collect();
    assert_eq!(refused, cases.iter().map(|(_, _, refused)| *refused).collect::<Vec<_>>(), "{verdicts:?}");
    assert_eq!(verdicts[0]["claims"]["sub"], "scope:platform:secret-manager:corp");
}

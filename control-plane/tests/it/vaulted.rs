//! Secrets and secret managers: stored in versions, never shown, used by credentials, bound by scopes and by rules.

use lictor_proto::v1::*;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use tonic::{Code, Status};

use crate::support::{User, *};

const ACCESS_KEY: &[u8] = b"Mark3r-access-key";
const MARKERS: [&str; 3] = ["Mark3r-first-value", "Mark3r-second-value", "Mark3r-file"];

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{words} in {}", status.message());
}

fn file(identifier: &str) -> Secret {
    Secret { kind: SecretKind::File.into(), ..secret(identifier) }
}

fn with_secret(name: &str, identifier: &str) -> Credential {
    Credential { name: name.into(), username: "alice".into(), secret: identifier.into(), ..Credential::default() }
}

#[tokio::test]
async fn a_changed_value_is_a_new_version_and_nothing_else_is() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let first = user.put_secret(secret("db"), Some(b"one")).await.unwrap();
    assert_eq!((first.version, first.name.as_str(), first.manager.as_str()), (1, "db", "built-in"));
    assert_eq!(first.kind(), SecretKind::Text);
    assert_eq!(user.put_secret(secret("db"), Some(b"one")).await.unwrap().version, 1);
    let described = Secret {
        name: "Database".into(),
        description: "of the web".into(),
        tags: [("team".to_owned(), "web".to_owned())].into(),
        ..secret("db")
    };
    let described = user.put_secret(described, None).await.unwrap();
    assert_eq!((described.version, described.name.as_str(), described.tags.len()), (1, "Database", 1));
    assert_eq!(user.put_secret(secret("db"), Some(b"two")).await.unwrap().version, 2);
    for value in 3..=12 {
        user.put_secret(secret("db"), Some(format!("value {value}").as_bytes())).await.unwrap();
    }
    let found = user.secret("db").await.unwrap();
    let versions: Vec<u64> = found.versions.iter().map(|version| version.version).collect();
    assert_eq!(versions, (3..=12).rev().collect::<Vec<_>>(), "the newest ten are kept");
    assert!(found.versions.iter().all(|version| version.created_by == "admin" && version.key_id.len() == 16));
    assert_eq!(found.secret.unwrap().key_id, found.versions[0].key_id);
    // Deleted and made again: the version goes on, for a name that is somebody else's by then.
    user.secrets.delete_secret(DeleteSecretRequest { identifier: "db".into() }).await.unwrap();
    refused(user.secret("db").await, Code::NotFound, "db");
    refused(user.put_secret(secret("db"), None).await, Code::InvalidArgument, "value: needed");
    assert_eq!(user.put_secret(file("db"), Some(b"\xff")).await.unwrap().version, 13);
}

#[tokio::test]
async fn values_are_in_no_file_in_clear_and_in_no_answer() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let mut answers = Vec::new();
    for (secret, value) in [(secret("text"), MARKERS[0]), (secret("text"), MARKERS[1]), (file("file"), MARKERS[2])] {
        answers.push(format!("{:?}", user.put_secret(secret, Some(value.as_bytes())).await.unwrap()));
    }
    for identifier in ["text", "file"] {
        answers.push(format!("{:?}", user.secret(identifier).await.unwrap()));
    }
    let listed = user.secrets.list_secrets(ListSecretsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.secrets.iter().map(|secret| secret.identifier.as_str()).collect::<Vec<_>>(), ["file", "text"]);
    answers.push(format!("{listed:?}"));
    answers.extend(user.audit().await);
    let server = server.restart().await;
    assert!(on_disk(server.state_dir(), "built-in"), "the search finds what is there");
    for marker in MARKERS {
        assert!(!on_disk(server.state_dir(), marker), "a value is on disk in clear");
        assert!(answers.iter().all(|answer| !answer.contains(marker)), "a value is shown");
    }
    let stored = answers.iter().filter(|line| line.contains("secret.stored")).count();
    assert_eq!(stored, 3, "{answers:?}");
}

#[tokio::test]
async fn what_is_no_value_is_refused_in_words() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let invalid = Code::InvalidArgument;
    refused(user.put_secret(secret("s"), None).await, invalid, "value: needed for a new secret");
    refused(user.put_secret(secret("s"), Some(b"")).await, invalid, "not empty");
    refused(user.put_secret(secret("s"), Some(b"\xff\xfe")).await, invalid, "a secret of the kind file");
    refused(user.put_secret(secret("s"), Some(b"a\0")).await, invalid, "without NUL");
    refused(user.put_secret(secret("s"), Some(&[b'x'; (64 << 10) + 1])).await, invalid, "at most 64 KiB");
    refused(user.put_secret(file("s"), Some(&vec![0; (256 << 10) + 1])).await, invalid, "at most 256 KiB");
    assert_eq!(user.put_secret(file("s"), Some(&vec![0xff; 256 << 10])).await.unwrap().version, 1);
    refused(user.put_secret(Secret { kind: 1, ..secret("s") }, Some(b"x")).await, invalid, "stays what it is");
    let elsewhere = Secret { manager: "corp".into(), ..secret("t") };
    refused(user.put_secret(elsewhere, Some(b"x")).await, Code::NotFound, "no secret manager named \"corp\"");
    let source = Secret { source: "env:LICTOR_SECRET_X".into(), ..secret("t") };
    refused(user.put_secret(source, Some(b"x")).await, invalid, "empty unless the secret manager is `agent`");
}

#[tokio::test]
async fn a_secret_on_agents_is_its_source() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let on_agent = |source: &str| Secret { manager: "agent".into(), source: source.into(), ..secret("s") };
    refused(user.put_secret(on_agent(""), None).await, Code::InvalidArgument, "secret.source: required");
    let path = "file:/etc/lictor/secrets/s";
    refused(user.put_secret(on_agent(path), Some(b"x")).await, Code::InvalidArgument, "give its source alone");
    let stored = user.put_secret(on_agent(path), None).await.unwrap();
    assert_eq!((stored.version, stored.source.as_str(), stored.key_id.as_str()), (1, path, ""));
    assert_eq!(user.put_secret(on_agent(""), None).await.unwrap().version, 1);
    assert_eq!(user.put_secret(on_agent(path), None).await.unwrap().version, 1);
    let moved = user.put_secret(on_agent("env:LICTOR_SECRET_S"), None).await.unwrap();
    assert_eq!((moved.version, moved.source.as_str()), (2, "env:LICTOR_SECRET_S"));
    // Into the built-in store it needs the value.
    let here = Secret { manager: "built-in".into(), ..secret("s") };
    refused(user.put_secret(here.clone(), None).await, Code::InvalidArgument, "value: needed");
    let here = user.put_secret(here, Some(b"x")).await.unwrap();
    assert_eq!((here.version, here.source.as_str(), here.manager.as_str()), (3, "", "built-in"));
}

#[tokio::test]
async fn a_secret_that_holds_the_authority_of_a_credential_is_used_by_it() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    for identifier in ["ca", "web-ca"] {
        user.put_secret(secret(identifier), Some(b"-----BEGIN")).await.unwrap();
    }
    let with = |name: &str, path: &str, ca_secret: &str| {
        let connection =
            ConnectionSettings { path: path.into(), ca_secret: ca_secret.into(), ..ConnectionSettings::default() };
        Credential { connection: Some(connection), ..with_secret(name, "") }
    };
    user.put(with("web", "", "web-ca"), Some("p")).await.unwrap();
    // A path is no secret.
    user.put(with("other", "/ca", ""), Some("p")).await.unwrap();
    assert_eq!(user.secret("web-ca").await.unwrap().used_by, ["credential web"]);
    assert!(user.secret("ca").await.unwrap().used_by.is_empty());
    let delete = |identifier: &str| DeleteSecretRequest { identifier: identifier.into() };
    let refusal = user.secrets.delete_secret(delete("web-ca")).await;
    refused(refusal, Code::FailedPrecondition, "credential web");
    user.secrets.delete_secret(delete("ca")).await.unwrap();
    // As an authority and as a password it is used by one credential.
    let both = Credential { secret: "web-ca".into(), ..with("web", "", "web-ca") };
    user.put(both, None).await.unwrap();
    assert_eq!(user.secret("web-ca").await.unwrap().used_by, ["credential web"]);
    user.put(with("web", "", ""), Some("p")).await.unwrap();
    user.secrets.delete_secret(delete("web-ca")).await.unwrap();
}

/// A user of this scope.
async fn of_scope(server: &Server, user: &mut User, name: &str, role: Role, scope: &str) -> User {
    let request =
        CreateUserRequest { name: name.into(), role: role.into(), scope: scope.into(), description: String::new() };
    user.access.create_user(request).await.unwrap();
    let (_, token) = user.issue(name, None).await.unwrap();
    server.user_with(&token).await
}

#[tokio::test]
async fn scopes_bound_who_sees_what_and_what_uses_what() {
    let server = Server::start(&[]).await;
    let mut admin = server.user().await;
    let mut a = of_scope(&server, &mut admin, "a", Role::Admin, "team/a").await;
    let mut b = of_scope(&server, &mut admin, "b", Role::Admin, "team/b").await;
    let mut viewer = of_scope(&server, &mut admin, "v", Role::Viewer, "team/a").await;
    assert_eq!(a.put_secret(secret("s"), Some(b"x")).await.unwrap().scope, "team/a");
    refused(b.put_secret(secret("s"), Some(b"y")).await, Code::AlreadyExists, "taken");
    refused(b.secret("s").await, Code::NotFound, "no secret");
    let delete = DeleteSecretRequest { identifier: "s".into() };
    refused(b.secrets.delete_secret(delete).await, Code::NotFound, "no secret");
    assert!(b.secrets.list_secrets(ListSecretsRequest::default()).await.unwrap().into_inner().secrets.is_empty());
    assert_eq!(viewer.secret("s").await.unwrap().secret.unwrap().identifier, "s");
    refused(viewer.put_secret(secret("s"), Some(b"y")).await, Code::PermissionDenied, "");
    let outside = Secret { scope: "team".into(), ..secret("t") };
    refused(a.put_secret(outside, Some(b"x")).await, Code::PermissionDenied, "");
    // Somebody else's and none look the same.
    refused(b.put(with_secret("web-b", "s"), None).await, Code::NotFound, "there is no secret named \"s\"");
    refused(b.put(with_secret("web-b", "none"), None).await, Code::NotFound, "there is no secret named \"none\"");
    a.put(with_secret("web-a", "s"), None).await.unwrap();
    // What is above serves whoever is below.
    admin.put_secret(secret("common"), Some(b"x")).await.unwrap();
    b.put(with_secret("web-b", "common"), None).await.unwrap();
    let narrowed = Secret { scope: "team/a".into(), ..secret("common") };
    refused(admin.put_secret(narrowed, None).await, Code::FailedPrecondition, "credential web-b");
    // The authority of hosts as well.
    let trusting = |name: &str, ca_secret: &str| {
        let connection = ConnectionSettings { ca_secret: ca_secret.into(), ..ConnectionSettings::default() };
        Credential { connection: Some(connection), ..with_secret(name, "common") }
    };
    for unseen in ["s", "none"] {
        let text = format!("there is no secret named \"{unseen}\"");
        refused(b.put(trusting("ca-b", unseen), None).await, Code::NotFound, &text);
    }
    refused(
        admin.put(trusting("ca-b", "s"), None).await,
        Code::InvalidArgument,
        "connection.ca_secret: \"s\" is for the scope",
    );
    admin.put_secret(secret("host-ca"), Some(b"x")).await.unwrap();
    b.put(trusting("ca-b", "host-ca"), None).await.unwrap();
    let narrowed = Secret { scope: "team/a".into(), ..secret("host-ca") };
    refused(admin.put_secret(narrowed, None).await, Code::FailedPrecondition, "credential ca-b");
    let on_agent = Secret { manager: "agent".into(), source: "env:LICTOR_SECRET_X".into(), ..secret("u") };
    refused(a.put_secret(on_agent, None).await, Code::PermissionDenied, "whole installation");
}

#[tokio::test]
async fn a_new_version_of_a_secret_is_one_of_its_credentials() {
    let (server, mut user, _agent) = scene(&[]).await;
    user.put_secret(secret("web-password"), Some(b"one")).await.unwrap();
    let own = user.put(Credential { secret: String::new(), ..with_secret("web", "") }, Some("own")).await.unwrap();
    let stored = user.put(with_secret("web", "web-password"), None).await.unwrap();
    assert_eq!((stored.version, stored.secret.as_str()), (own.version + 1, "web-password"));
    assert_eq!(stored.secret_kind(), CredentialSecretKind::Password);
    // Named again, or not named: the same.
    for again in [with_secret("web", "web-password"), with_secret("web", "")] {
        let again = user.put(again, None).await.unwrap();
        assert_eq!((again.version, again.secret.as_str()), (stored.version, "web-password"));
    }
    // A host rejected it.
    let stopped = server.halt().await;
    let options = SqliteConnectOptions::new().filename(stopped.state_dir().join("control-plane.db"));
    let mut database = options.connect().await.unwrap();
    sqlx::query("UPDATE credentials SET rejected_at = 7").execute(&mut database).await.unwrap();
    let held: (Vec<u8>, String) = sqlx::query_as("SELECT ciphertext, key_id FROM credentials WHERE name = 'web'")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(held, (Vec::new(), String::new()), "the credential holds nothing of its own");
    sqlx::Connection::close(database).await.unwrap();
    let server = stopped.start_again().await;
    let mut user = server.user().await;
    assert_eq!(user.submit(command()).await.state(), TaskState::Rejected);
    user.put_secret(secret("web-password"), Some(b"two")).await.unwrap();
    let credentials = user.credentials.list_credentials(ListCredentialsRequest::default()).await.unwrap().into_inner();
    let web = &credentials.credentials[0];
    assert_eq!((web.version, web.rejected_at), (stored.version + 1, None));
    assert_eq!(user.submit(command()).await.state(), TaskState::Queued);
    let audit = user.audit().await;
    let last = audit.iter().rfind(|line| line.contains("secret.stored")).unwrap();
    assert!(last.contains("\"credentials\":[\"web\"]") && last.contains("\"version\":2"), "{last}");
    // While it is used it stays, and as what it is used for.
    assert_eq!(user.secret("web-password").await.unwrap().used_by, ["credential web"]);
    let delete = || DeleteSecretRequest { identifier: "web-password".into() };
    refused(user.secrets.delete_secret(delete()).await, Code::FailedPrecondition, "credential web");
    let long = "x".repeat(4097);
    let answer = user.put_secret(secret("web-password"), Some(long.as_bytes())).await;
    refused(answer, Code::InvalidArgument, "a credential uses the secret");
    // With a password of its own again it is free.
    user.put(with_secret("web", ""), Some("own")).await.unwrap();
    user.secrets.delete_secret(delete()).await.unwrap();
    refused(user.put(with_secret("web", "web-password"), None).await, Code::NotFound, "no secret");
}

#[tokio::test]
async fn files_are_keytabs_and_texts_are_passwords() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    user.put_secret(file("keytab"), Some(&[5, 2, 0, 0])).await.unwrap();
    user.put_secret(file("picture"), Some(b"GIF89a")).await.unwrap();
    let stored = user.put(with_secret("svc", "keytab"), None).await.unwrap();
    assert_eq!(stored.secret_kind(), CredentialSecretKind::Keytab);
    refused(user.put(with_secret("svc", "picture"), None).await, Code::InvalidArgument, "an MIT keytab");
    let wrong = Credential { secret_kind: CredentialSecretKind::Password.into(), ..with_secret("svc", "keytab") };
    refused(user.put(wrong, None).await, Code::InvalidArgument, "a text is a password and a file a keytab");
    refused(user.put(with_secret("svc", "keytab"), Some("p")).await, Code::InvalidArgument, "not beside a password");
    let basic = ConnectionSettings { auth: AuthKind::Basic.into(), ..ConnectionSettings::default() };
    let basic = Credential { connection: Some(basic), ..with_secret("svc", "keytab") };
    refused(user.put(basic, None).await, Code::InvalidArgument, "kerberos or negotiate");
}

#[tokio::test]
async fn a_manager_authenticates_with_what_the_built_in_store_keeps_and_nothing_else() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    let unmet = Code::FailedPrecondition;
    refused(user.put_manager(kms_manager("corp", "aws-key")).await, Code::InvalidArgument, "no secret \"aws-key\"");
    user.put_secret(secret("aws-key"), Some(b"Mark3r x")).await.unwrap();
    // What the secret holds is looked at when it is named, and not shown.
    let status = user.put_manager(kms_manager("corp", "aws-key")).await.unwrap_err();
    assert!(!status.message().contains("Mark3r"), "{status:?}");
    refused(Err::<(), _>(status), Code::InvalidArgument, "secret_access_key: the secret aws-key does not hold");
    user.put_secret(secret("aws-key"), Some(ACCESS_KEY)).await.unwrap();
    let made = user.put_manager(kms_manager("corp", "aws-key")).await.unwrap();
    assert_eq!((made.version, made.name.as_str()), (1, "corp"));
    assert_eq!(user.put_manager(kms_manager("corp", "aws-key")).await.unwrap().version, 1);
    // Its own key into itself, and onto an agent.
    let moved =
        |manager: &str, source: &str| Secret { manager: manager.into(), source: source.into(), ..secret("aws-key") };
    let own = "secret-manager corp -> secret aws-key -> secret-manager corp";
    refused(user.put_secret(moved("corp", ""), Some(b"two")).await, unmet, own);
    let onto = "secret-manager corp -> secret aws-key -> secret-manager agent";
    refused(user.put_secret(moved("agent", "env:LICTOR_SECRET_X"), None).await, unmet, onto);
    // Through another manager.
    user.put_secret(secret("other-key"), Some(ACCESS_KEY)).await.unwrap();
    user.put_manager(kms_manager("second", "other-key")).await.unwrap();
    let chain =
        "secret-manager corp -> secret aws-key -> secret-manager second -> secret other-key -> secret-manager built-in";
    refused(user.put_secret(moved("second", ""), Some(b"two")).await, unmet, chain);
    let on_agent = Secret { manager: "agent".into(), source: "env:LICTOR_SECRET_K".into(), ..secret("k") };
    user.put_secret(on_agent, None).await.unwrap();
    refused(user.put_manager(kms_manager("third", "k")).await, unmet, "secret k -> secret-manager agent");
    user.put_secret(file("f"), Some(b"x")).await.unwrap();
    refused(user.put_manager(kms_manager("third", "f")).await, Code::InvalidArgument, "is a file");
    // A new value where it is: good. Deleted: not while it is used.
    assert_eq!(user.put_secret(secret("aws-key"), Some(b"three")).await.unwrap().version, 3);
    assert_eq!(user.secret("aws-key").await.unwrap().used_by, ["secret-manager corp"]);
    let delete = || DeleteSecretRequest { identifier: "aws-key".into() };
    refused(user.secrets.delete_secret(delete()).await, unmet, "secret-manager corp");
    let narrowed = Secret { scope: "team/a".into(), ..secret("aws-key") };
    refused(user.put_secret(narrowed, None).await, Code::InvalidArgument, "for the scope \"team/a\"");
    // The control plane must not see values of a KMS manager.
    let sealed = Secret { manager: "second".into(), ..secret("app") };
    refused(user.put_secret(sealed, Some(b"x")).await, unmet, "seal the value to an agent");
    let request = DeleteSecretManagerRequest { identifier: "corp".into() };
    user.secrets.delete_secret_manager(request.clone()).await.unwrap();
    refused(user.secrets.delete_secret_manager(request).await, Code::NotFound, "corp");
    user.secrets.delete_secret(delete()).await.unwrap();
    let server = server.restart().await;
    let mut user = server.user().await;
    let listed = user.secrets.list_secret_managers(ListSecretManagersRequest::default()).await.unwrap().into_inner();
    let listed: Vec<&str> = listed.managers.iter().map(|manager| manager.identifier.as_str()).collect();
    assert_eq!(listed, ["second"]);
    // Made again it is not what agents may remember.
    assert_eq!(user.put_manager(kms_manager("corp", "other-key")).await.unwrap().version, 2);
    let changed = SecretManager { agent_tags: vec!["aws".into()], ..kms_manager("corp", "other-key") };
    assert_eq!(user.put_manager(changed).await.unwrap().version, 3);
    let audit = user.audit().await.join("\n");
    assert!(audit.contains("secret_manager.stored") && audit.contains("secret_manager.deleted"));
}

#[tokio::test]
async fn lists_go_on_where_the_page_ends() {
    let server = Server::start(&[]).await;
    let mut user = server.user().await;
    for number in 0..5 {
        user.put_secret(secret(&format!("s{number}")), Some(b"x")).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut request = ListSecretsRequest { page_size: 2, page_token: String::new() };
    loop {
        let page = user.secrets.list_secrets(request.clone()).await.unwrap().into_inner();
        assert!(page.secrets.len() <= 2);
        seen.extend(page.secrets.into_iter().map(|secret| secret.identifier));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4"]);
}

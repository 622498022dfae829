//! Checks of everything that users and agents send, all mistakes at once.
//!
//! Pure. What passes is complete: defaults that do not depend on the credential are filled in.

mod batch;
mod credential;
mod manager;
mod sealing;
mod secret;

use std::net::IpAddr;
use std::time::Duration;

use lictor_proto::MAX_INPUT_BYTES;
use lictor_proto::v1::{
    AgentSelector, AuthKind, ConnectionSettings, CreateJoinTokenRequest, CreateUserRequest, EnrollRequest, Hello,
    IssueUserTokenRequest, MessageEncryption, Scheme, ScriptLanguage, ShellSettings, StderrFormat, Target, TaskSpec,
    task_spec,
};

use crate::access::Role;
use crate::dispatch::Route;
pub(crate) use batch::batch;
pub(crate) use credential::{credential, own_secret, secret_fits};
pub(crate) use manager::{Values, kms_settings, manager};
pub(crate) use sealing::{manager_test, prepared_secret};
pub(crate) use secret::{secret, secret_value};

/// What is wrong, field by field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Violations(pub(crate) Vec<String>);

/// Collects violations.
#[derive(Default)]
struct Checker {
    violations: Vec<String>,
}

impl Checker {
    fn check(&mut self, holds: bool, field: &str, expected: &str) {
        if !holds {
            self.violations.push(format!("{field}: {expected}"));
        }
    }

    fn finish<T>(self, value: T) -> Result<T, Violations> {
        if self.violations.is_empty() { Ok(value) } else { Err(Violations(self.violations)) }
    }

    fn target(&mut self, target: Option<&mut Target>) {
        let Some(target) = target else {
            self.violations.push("target: required".into());
            return;
        };
        let host = target.host.trim();
        target.host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned();
        self.check(is_host(&target.host), "target.host", "a DNS name or an IP address");
        if let Some(connection) = &target.connection {
            self.connection("target.connection", connection);
        }
    }

    fn connection(&mut self, prefix: &str, connection: &ConnectionSettings) {
        let field = |name: &str| format!("{prefix}.{name}");
        self.check(Scheme::try_from(connection.scheme).is_ok(), &field("scheme"), "http or https");
        self.check(connection.port <= 65535, &field("port"), "at most 65535");
        let path = &connection.path;
        let good = path.is_empty()
            || (path.starts_with('/') && path.len() <= 256 && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
        self.check(good, &field("path"), "begins with `/`; at most 256 visible ASCII characters without `#`");
        self.check(AuthKind::try_from(connection.auth).is_ok(), &field("auth"), "basic, ntlm, negotiate or kerberos");
        let encryption = MessageEncryption::try_from(connection.message_encryption);
        self.check(encryption.is_ok(), &field("message_encryption"), "auto, always or never");
        let ca = &connection.ca_pem;
        let good = ca.is_empty() || (ca.len() <= 64 << 10 && ca.contains("-----BEGIN CERTIFICATE-----"));
        self.check(good, &field("ca_pem"), "PEM certificates, at most 64 KiB");
        let secret = &connection.ca_secret;
        self.check(secret.is_empty() || is_name(secret), &field("ca_secret"), NAME);
        self.check(secret.is_empty() || ca.is_empty(), &field("ca_secret"), "not beside ca_pem");
        if let Some(kerberos) = &connection.kerberos {
            self.kerberos(&field("kerberos"), kerberos);
        }
    }

    fn selector(&mut self, selector: &AgentSelector) {
        self.check(are_tags(&selector.tags), "selector.tags", TAGS);
        self.check(is_scope(&selector.scope), "selector.scope", SCOPE);
    }

    fn kind(&mut self, kind: Option<&task_spec::Kind>) {
        match kind {
            None => self
                .violations
                .push("kind: one of connection_test, command, script, diagnosis and posture is required".into()),
            Some(task_spec::Kind::ConnectionTest(_) | task_spec::Kind::Diagnosis(_) | task_spec::Kind::Posture(_)) => {}
            Some(task_spec::Kind::SecretManagerTest(_) | task_spec::Kind::SealSecret(_)) => {
                self.check(false, "kind", "one that can be submitted: secret managers have calls of their own");
            }
            Some(task_spec::Kind::Command(command)) => {
                let line = &command.command_line;
                let good =
                    !line.trim().is_empty() && line.len() <= MAX_COMMAND_LINE && !line.contains(['\0', '\r', '\n']);
                self.check(good, "command.command_line", "one line of 1 to 32767 bytes without NUL");
                self.arguments("command.arguments", &command.arguments);
                let one_line = !command.arguments.iter().any(|argument| argument.contains(['\r', '\n']));
                self.check(one_line, "command.arguments", "without line breaks: they are part of the command line");
                self.check(command.stdin.len() <= MAX_INPUT_BYTES, "command.stdin", "at most 5 MiB");
                self.stderr_format("command.stderr_format", command.stderr_format);
                self.shell("command.shell", command.shell.as_ref());
            }
            Some(task_spec::Kind::Script(script)) => {
                let language = ScriptLanguage::try_from(script.language);
                self.check(language.is_ok(), "script.language", "powershell or cmd");
                let good = !script.text.is_empty() && script.text.len() <= MAX_INPUT_BYTES;
                self.check(good, "script.text", "1 byte to 5 MiB");
                self.stderr_format("script.stderr_format", script.stderr_format);
                let names = &script.output_variables;
                let twice = names
                    .iter()
                    .enumerate()
                    .any(|(index, name)| names.iter().take(index).any(|before| before.eq_ignore_ascii_case(name)));
                let good = names.len() <= 64 && names.iter().all(|name| is_variable(name)) && !twice;
                let expected = "at most 64 different names of letters, digits and `_`, not a digit first";
                self.check(good, "script.output_variables", expected);
                if language == Ok(ScriptLanguage::Cmd) {
                    let good = !script.arguments.iter().any(|argument| argument.contains(['"', '\r', '\n']));
                    let expected =
                        "without double quotes and line breaks for cmd: use PowerShell, which takes any text";
                    self.check(good, "script.arguments", expected);
                }
                self.arguments("script.arguments", &script.arguments);
                self.shell("script.shell", script.shell.as_ref());
            }
        }
    }

    fn stderr_format(&mut self, field: &str, format: i32) {
        self.check(StderrFormat::try_from(format).is_ok(), field, "decoded or raw");
    }

    fn arguments(&mut self, field: &str, arguments: &[String]) {
        let bytes: usize = arguments.iter().map(String::len).sum();
        let good = arguments.len() <= 1000 && bytes <= MAX_COMMAND_LINE && !arguments.iter().any(|a| a.contains('\0'));
        self.check(good, field, "at most 1000, 32767 bytes together, without NUL");
    }

    fn shell(&mut self, prefix: &str, shell: Option<&ShellSettings>) {
        let Some(shell) = shell else { return };
        let environment = &shell.environment;
        let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        let named = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        let good = environment.len() <= 256
            && bytes <= MAX_COMMAND_LINE
            && environment.iter().all(|(name, value)| named(name) && !value.contains('\0'));
        let expected = "at most 256 variables, 32767 bytes together; names without `=`, nothing with NUL";
        self.check(good, &format!("{prefix}.environment"), expected);
        let secrets = &shell.secret_environment;
        let field = format!("{prefix}.secret_environment");
        let good = secrets.len() <= MAX_SECRETS
            && secrets.keys().all(|name| named(name) && name.len() <= 1024)
            && secrets.values().all(|secret| is_name(secret));
        let expected =
            "at most 62 variables; names without `=` and NUL, of at most 1024 bytes; values are names of secrets";
        self.check(good, &field, expected);
        // Windows does not tell `Path` from `PATH`.
        let mut names: Vec<String> = environment.keys().chain(secrets.keys()).map(|name| name.to_lowercase()).collect();
        names.sort_unstable();
        let once = secrets.is_empty() || names.windows(2).all(|pair| pair.first() != pair.last());
        self.check(once, &field, "each variable once, and none that is in environment too");
        let directory = &shell.working_directory;
        let good = directory.len() <= 1024 && !directory.contains(['\0', '\r', '\n']);
        self.check(good, &format!("{prefix}.working_directory"), "one line of at most 1024 bytes");
        self.check(shell.code_page <= 65535, &format!("{prefix}.code_page"), "at most 65535");
    }

    fn duration(&mut self, field: &str, value: &mut Option<prost_types::Duration>, default: Duration) -> Duration {
        let parsed = match value.take() {
            None => Some(default),
            Some(given) => Duration::try_from(given).ok().filter(|d| (SECOND..=24 * HOUR).contains(d)),
        };
        self.check(parsed.is_some(), field, "from 1 s to 24 h");
        let duration = parsed.unwrap_or(default);
        *value = prost_types::Duration::try_from(duration).ok();
        duration
    }
}

/// A checked task, every default filled in, and how long it may wait for an agent.
pub(crate) fn task(mut spec: TaskSpec, idempotency_key: &str) -> Result<(TaskSpec, Duration), Violations> {
    let mut checker = Checker::default();
    checker.target(spec.target.as_mut());
    checker.check(is_name(&spec.credential), "credential", NAME);
    checker.kind(spec.kind.as_ref());
    spec.idempotent |= Route::of(&spec).only_looks();
    checker.duration("timeout", &mut spec.timeout, HOUR);
    let queue_timeout = checker.duration("queue_timeout", &mut spec.queue_timeout, 5 * 60 * SECOND);
    if let Some(selector) = &spec.selector {
        checker.selector(selector);
    }
    checker.check(is_text(&spec.label, 200), "label", "one line of at most 200 characters");
    checker.check(is_text(idempotency_key, 128), "idempotency_key", "one line of at most 128 characters");
    checker.finish((spec, queue_timeout))
}

/// A checked request for a join token, and how long the token lasts.
pub(crate) fn join_token(request: &CreateJoinTokenRequest) -> Result<Option<Duration>, Violations> {
    let mut checker = Checker::default();
    checker.check(is_scope(&request.scope), "scope", SCOPE);
    checker.check(are_tags(&request.tags), "tags", TAGS);
    checker.check(is_text(&request.description, 500), "description", "one line of at most 500 characters");
    let lifetime = request.lifetime.map(|lifetime| Duration::try_from(lifetime).unwrap_or_default());
    let good = lifetime.is_none_or(|lifetime| (SECOND..=3650 * 24 * HOUR).contains(&lifetime));
    checker.check(good, "lifetime", "from 1 s to 10 years");
    checker.finish(lifetime)
}

/// A checked request for a user, and the role.
pub(crate) fn user(request: &CreateUserRequest) -> Result<Role, Violations> {
    let mut checker = Checker::default();
    checker.check(is_user_name(&request.name), "name", "1 to 64 letters, digits, `-`, `_`, `.` and `@`");
    let role = Role::from_number(request.role);
    checker.check(role.is_some(), "role", "viewer, operator or admin");
    checker.check(is_scope(&request.scope), "scope", SCOPE);
    checker.check(is_text(&request.description, 500), "description", "one line of at most 500 characters");
    checker.finish(role.unwrap_or(Role::Viewer))
}

/// A checked request for a user's token, and how long the token lasts.
pub(crate) fn user_token(request: &IssueUserTokenRequest) -> Result<Option<Duration>, Violations> {
    let mut checker = Checker::default();
    checker.check(is_text(&request.description, 500), "description", "one line of at most 500 characters");
    let lifetime = request.lifetime.map(|lifetime| Duration::try_from(lifetime).unwrap_or_default());
    let good = lifetime.is_none_or(|lifetime| (SECOND..=3650 * 24 * HOUR).contains(&lifetime));
    checker.check(good, "lifetime", "from 1 s to 10 years");
    checker.finish(lifetime)
}

/// A checked enrolment.
pub(crate) fn enrolment(request: EnrollRequest) -> Result<EnrollRequest, Violations> {
    let mut checker = Checker::default();
    checker.check(request.join_token.len() <= 1024, "join_token", "at most 1024 bytes");
    checker.check(is_agent_name(&request.name), "name", "1 to 253 letters, digits, `-`, `_` and `.`, other than an id");
    checker.check(are_tags(&request.tags), "tags", TAGS);
    checker.check(is_text(&request.version, 64), "version", "one line of at most 64 characters");
    checker.check(is_text(&request.description, 500), "description", "one line of at most 500 characters");
    checker.check(is_scope(&request.scope), "scope", SCOPE);
    identity(&mut checker, &request.csr_der, &request.sealing_key);
    checker.finish(request)
}

/// Checks a request for a new certificate.
pub(crate) fn renewal(csr_der: &[u8], sealing_key: &[u8]) -> Result<(), Violations> {
    let mut checker = Checker::default();
    identity(&mut checker, csr_der, sealing_key);
    checker.finish(())
}

fn identity(checker: &mut Checker, csr_der: &[u8], sealing_key: &[u8]) {
    checker.check(!csr_der.is_empty() && csr_der.len() <= 16 << 10, "csr_der", "a PKCS#10 request of at most 16 KiB");
    let usable = sealing_key.iter().any(|byte| *byte != 0);
    checker.check(sealing_key.len() == 32 && usable, "sealing_key", "an X25519 public key of 32 bytes");
}

/// The wait of a Poll.
pub(crate) fn poll_wait(wait: Option<prost_types::Duration>) -> Duration {
    let wanted = wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(30 * SECOND);
    wanted.min(60 * SECOND)
}

/// A free text of the record: cut rather than refused.
pub(crate) fn reason(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// Takes control characters out of what a Hello says for people to read.
pub(crate) fn hello(hello: &mut Hello) {
    let texts = hello.degraded.iter_mut().chain(&mut hello.capabilities).chain(&mut hello.kerberos_principals);
    for text in texts.chain([&mut hello.version, &mut hello.instance_id]) {
        text.retain(|c| !c.is_control());
    }
}

/// What somebody sent, fit for a message: cut, quoted, control characters escaped.
pub(crate) fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(100);
    match text.get(..end) {
        Some(start) if end < text.len() => format!("{start:?}..."),
        _ => format!("{text:?}"),
    }
}

/// A DNS or NetBIOS name, or an IP address without brackets.
pub(crate) fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // All digits and dots would be an address, and is not one.
    (1..=253).contains(&name.len())
        && name.split('.').all(label)
        && !name.split('.').all(|label| label.bytes().all(|b| b.is_ascii_digit()))
}

/// Tags within their bounds.
pub(crate) fn are_tags(tags: &[String]) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.:/=@".contains(c);
    tags.len() <= 64 && tags.iter().all(|tag| (1..=128).contains(&tag.chars().count()) && tag.chars().all(allowed))
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_user_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
}

/// What PowerShell and cmd.exe take as a variable's name without further marks.
fn is_variable(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Not in the form of an id: users name agents by either.
fn is_agent_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && uuid::Uuid::try_parse(text).is_err()
}

fn is_scope(text: &str) -> bool {
    text.is_empty() || (text.len() <= 256 && text.split('/').all(is_name))
}

fn is_text(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.contains(|c: char| c.is_control())
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// With that of the credential and that of the connection 64.
const MAX_SECRETS: usize = 62;
/// What Windows takes as a command line, and as an environment block.
const MAX_COMMAND_LINE: usize = 32767;
const NAME: &str = "1 to 64 letters, digits, `-`, `_` and `.`";
const TAGS: &str = "at most 64, each 1 to 128 letters, digits and `-_.:/=@`";
const SCOPE: &str = "a path of names such as `platform/production`, or empty";

#[cfg(test)]
mod tests {
    use lictor_proto::v1::{Command, ConnectionTest, Diagnosis, PostureCheck, Script};

    use super::*;

    fn good() -> TaskSpec {
        TaskSpec {
            target: Some(Target { host: "web1.example".into(), connection: None }),
            credential: "web".into(),
            kind: Some(task_spec::Kind::ConnectionTest(ConnectionTest {})),
            ..TaskSpec::default()
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let (spec, wait) = task(good(), "").unwrap();
        assert_eq!(spec.timeout.unwrap().seconds, 3600);
        assert_eq!(wait, Duration::from_secs(300));
    }

    #[test]
    fn what_only_looks_does_no_harm_twice() {
        let idempotent = |kind| task(TaskSpec { kind: Some(kind), ..good() }, "").unwrap().0.idempotent;
        assert!(idempotent(task_spec::Kind::Diagnosis(Diagnosis {})));
        assert!(idempotent(task_spec::Kind::Posture(PostureCheck { without_script: true })));
        // It opens a shell as any command does; whoever submits it says so.
        assert!(!idempotent(task_spec::Kind::ConnectionTest(ConnectionTest {})));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let spec = TaskSpec {
            target: Some(Target {
                host: "no such host!".into(),
                connection: Some(ConnectionSettings {
                    scheme: 9,
                    port: 70000,
                    path: "wsman".into(),
                    auth: 77,
                    ca_pem: "x".into(),
                    message_encryption: 5,
                    ..ConnectionSettings::default()
                }),
            }),
            credential: "a b".into(),
            kind: Some(task_spec::Kind::Command(Command {
                command_line: "a\nb".into(),
                arguments: vec!["\0".into(), "a\nb".into()],
                stdin: vec![0; MAX_INPUT_BYTES + 1].into(),
                shell: Some(ShellSettings {
                    environment: [("A=B".to_owned(), String::new())].into(),
                    working_directory: "x".repeat(2000),
                    no_profile: None,
                    code_page: 70000,
                    ..ShellSettings::default()
                }),
                stderr_format: 9,
            })),
            timeout: Some(prost_types::Duration { seconds: 90000, nanos: 0 }),
            queue_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            idempotent: false,
            selector: Some(AgentSelector { tags: vec![String::new()], scope: "/a".into() }),
            label: "x".repeat(201),
        };
        let Violations(found) = task(spec, &"k".repeat(129)).unwrap_err();
        let fields: Vec<&str> = found.iter().map(|text| text.split(": ").next().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "target.host",
                "target.connection.scheme",
                "target.connection.port",
                "target.connection.path",
                "target.connection.auth",
                "target.connection.message_encryption",
                "target.connection.ca_pem",
                "credential",
                "command.command_line",
                "command.arguments",
                "command.arguments",
                "command.stdin",
                "command.stderr_format",
                "command.shell.environment",
                "command.shell.working_directory",
                "command.shell.code_page",
                "timeout",
                "queue_timeout",
                "selector.tags",
                "selector.scope",
                "label",
                "idempotency_key",
            ]
        );
        let Violations(found) = task(TaskSpec::default(), "").unwrap_err();
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn scripts() {
        let wrong = |script: Script| {
            let mut spec = good();
            spec.kind = Some(task_spec::Kind::Script(Script { text: "x".repeat(script.text.len() + 1), ..script }));
            task(spec, "").err().map(|Violations(found)| found.join("; ")).unwrap_or_default()
        };
        let named = |names: &[&str]| Script {
            output_variables: names.iter().map(|&name| name.to_owned()).collect(),
            ..Script::default()
        };
        let given = |language: ScriptLanguage, argument: &str| Script {
            language: language.into(),
            arguments: vec![argument.to_owned()],
            ..Script::default()
        };
        assert_eq!(wrong(named(&["A", "b_1", "_"])), "");
        assert_eq!(wrong(Script { text: "x".repeat(MAX_INPUT_BYTES - 1), ..Script::default() }), "");
        assert!(wrong(Script { text: "x".repeat(MAX_INPUT_BYTES), ..Script::default() }).contains("1 byte to 5 MiB"));
        for names in [&["a", "A"][..], &["1a"], &["a b"], &[""], &["env:x"], &["ä"]] {
            assert!(wrong(named(names)).starts_with("script.output_variables: "), "{names:?}");
        }
        let many: Vec<String> = (0..65).map(|index| format!("v{index}")).collect();
        assert_ne!(wrong(Script { output_variables: many, ..Script::default() }), "");
        for argument in ["\"", "a\nb"] {
            assert_eq!(wrong(given(ScriptLanguage::Powershell, argument)), "");
            assert!(wrong(given(ScriptLanguage::Cmd, argument)).contains("use PowerShell"), "{argument}");
        }
        assert_eq!(wrong(given(ScriptLanguage::Cmd, "50% & more")), "");
        assert!(wrong(Script { stderr_format: 7, ..Script::default() }).contains("decoded or raw"));
    }

    #[test]
    fn hosts() {
        for host in ["web1", "web_1.corp.example", "web1.example.", "10.0.0.1", "::1", "fe80::1", "123abc"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a b", "-a", "a-", "a..b", "1.2.3", "999.1.1.1", "a/b", "a:b", "user@host", &"a".repeat(64)] {
            assert!(!is_host(host), "{host}");
        }
        let mut spec = good();
        spec.target = Some(Target { host: "[::1]".into(), connection: None });
        assert_eq!(task(spec, "").unwrap().0.target.unwrap().host, "::1");
    }
}

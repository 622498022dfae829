//! One failure of each kind that the agent itself makes, with example names: what documentation is made of. A test in
//! `lictor-tests` finds a code that has none.

use std::path::PathBuf;
use std::sync::Arc;

use lictor_proto::v1::Failure;

use super::{
    StopCause, Verdict, access, broke_off, cancelled, draining, input_cut, invalid, not_journalled, policy, refused,
    restarted_after_start, stale_assignment, unsupported,
};
use crate::enrol::proxy::ProxyError;
use crate::kerberos::Unusable;
use crate::policy::Refusal;
use crate::secrets::{SecretError, SourceError};
use crate::sessions::AccessError;

const HOST: &str = "web1.corp.example";

/// One failure of each kind that the agent itself makes. Those of hosts and KDCs pass through it untouched.
#[must_use]
pub fn catalogue() -> Vec<Failure> {
    [tasks(), refusals(), secrets(), crate::doctor::catalogue(), proxies()].concat()
}

fn tasks() -> Vec<Failure> {
    let invalid_task = invalid(&std::io::Error::other("the task names no target"));
    let unsupported_task = unsupported(&std::io::Error::other("this agent does not know the kind of the task"));
    vec![
        cancelled(&StopCause::Cancelled("maintenance".into())),
        cancelled(&StopCause::Deadline),
        cancelled(&StopCause::Drained),
        *draining().1,
        *restarted_after_start(HOST, "").1,
        of(input_cut(HOST, Ok(()))),
        *invalid_task.1,
        *unsupported_task.1,
        *stale_assignment().1,
        of(not_journalled("the start could not be written down: no space left on device")),
        *broke_off("the agent has a bug: the task's job broke off".into()).1,
    ]
}

fn of(verdict: Verdict) -> Failure {
    match verdict {
        Verdict::End(_, failure) | Verdict::HandBack(_, failure) => *failure,
    }
}

fn refusals() -> Vec<Failure> {
    let rows = [
        ("policy.task_kind", "tasks.kinds", "the task is a script"),
        (
            "policy.script_size",
            "tasks.max_script_bytes",
            "the task brings 70000 bytes for the host, 65536 are the most",
        ),
        ("policy.identity", "identities.allow", r#"the task runs as "CORP\\admin""#),
        ("policy.host", "hosts.allow", "the task is for host \"dc1.corp.example\""),
        ("policy.port", "connection.ports", "the task uses port 80"),
        ("policy.basic", "connection.basic", "the task uses Basic authentication"),
        ("policy.auth", "connection.auth", "the task uses ntlm authentication"),
        ("policy.delegation", "connection.delegation", "the task hands the host a forwarded ticket of the user"),
        ("policy.plain_http", "connection.http", "the task uses http"),
        ("policy.skip_cert_check", "connection.skip_cert_check", "the task skips the check of the host's certificate"),
        ("policy.task_ca", "connection.task_ca", "the task brings an authority of its own to trust"),
        ("policy.kms_key", "secrets.kms_keys", "the task uses the KMS key \"alias/other\""),
        ("policy.kms_role", "secrets.kms_roles", "the task assumes the role \"arn:aws:iam::444455556666:role/admin\""),
        ("policy.kms_endpoint", "secrets.kms_endpoints", "the task calls AWS at \"https://kms.corp.example\""),
        ("policy.secret_source", "secrets.sources", "a secret of the task is \"env:LICTOR_SECRET_WEB\" on the agent"),
    ];
    let file = PathBuf::from("/etc/lictor/policy.toml");
    let mut all: Vec<Failure> = rows
        .map(|(code, rule, problem)| *policy(&Refusal { code, rule, problem: problem.into(), file: file.clone() }).1)
        .into();
    let rule = "hosts.allow and hosts.deny of the agent's policy do not allow it";
    all.push(
        *refused("policy.address", format!("{HOST} is at 192.0.2.20, where it may not be connected to: {rule}")).1,
    );
    all
}

fn secrets() -> Vec<Failure> {
    let credential = || "the secret of credential deploy".to_owned();
    let secret = || "web-token".to_owned();
    let kerberos = [
        Unusable::Off,
        Unusable::Keytab { path: "/etc/lictor/keytabs/other.keytab".into() },
        Unusable::NoKey { principal: "alice@CORP.EXAMPLE".into() },
        Unusable::Cache { cache: "FILE:/tmp/krb5cc_0".into() },
        Unusable::Realm { username: r"CORP\alice".into() },
    ];
    let file = || PathBuf::from("/etc/lictor/secrets/web-token");
    let sources = [
        SourceError::NotPermitted { path: "/etc/shadow".into() },
        SourceError::Missing { what: "the variable LICTOR_SECRET_WEB".into() },
        SourceError::Unfit { path: file(), problem: "has more than 256 KiB" },
    ];
    let sources = sources.map(|source| SecretError::Source { secret: secret(), source });
    let secrets = [
        SecretError::NoKey { secret: credential() },
        SecretError::NotText { secret: credential() },
        SecretError::Empty { secret: "secret web-token".into() },
        SecretError::TooLong { secret: "secret web-token".into(), purpose: "a variable", most: 32_000 },
        SecretError::Malformed {
            secret: secret(),
            problem: "its encryption context is that of another secret or version",
        },
    ];
    let secrets = secrets.into_iter().chain(sources).map(AccessError::from);
    kerberos.map(AccessError::from).into_iter().chain(secrets).map(|error| of(access(&error))).collect()
}

/// Of the agent's log: no task fails by them.
fn proxies() -> Vec<Failure> {
    let io = |text: &str| Arc::new(std::io::Error::other(text.to_owned()));
    let refused = |status, reason: &str| ProxyError::Refused { status, reason: reason.into() };
    let errors = [
        ProxyError::Unreachable(io("Connection refused (os error 111)")),
        ProxyError::Timeout,
        ProxyError::Tls(io("received corrupt message of type InvalidContentType")),
        ProxyError::File { path: "/etc/lictor/proxy-ca.pem".into(), problem: "No such file or directory".into() },
        ProxyError::Closed,
        ProxyError::NotHttp("it is too long"),
        ProxyError::Authentication { offered: "it offers Basic".into(), refused: false },
        ProxyError::Authentication { offered: "the password was given".into(), refused: true },
        refused(502, "Bad Gateway"),
        refused(403, "Forbidden"),
        refused(405, "Method Not Allowed"),
    ];
    let failure = |error: ProxyError| {
        let advice = error.advice();
        Failure {
            stage: "control_plane".into(),
            code: advice.code.into(),
            message: format!("the proxy proxy.corp.example:3128 opens no tunnel: {}", super::chain(&error)),
            cause: advice.cause.into(),
            remedy: advice.remedy.into(),
            ..Failure::default()
        }
    };
    errors.map(failure).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_says_where_and_why() {
        for failure in catalogue() {
            for text in [&failure.stage, &failure.code, &failure.message, &failure.cause] {
                assert!(!text.is_empty(), "{failure:?}");
            }
            // Whoever cancelled knows what to do.
            assert!(!failure.remedy.is_empty() || failure.code == "agent.cancelled", "{failure:?}");
        }
    }
}

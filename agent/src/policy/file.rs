//! From the policy's file to a [`Policy`], with every mistake at once.
//!
//! It must never read a missing value, an empty file or an unknown key as "allowed".

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::{File, FileFormat};
use lictor_settings::{Form, Reader};
use lictor_winrm::target::AuthKind;

use super::aws::{ArnPattern, EndpointPattern};
use super::identity::Pattern;
use super::names::HostRule;
use super::{Connection, Hosts, Identities, PlainHttp, Policy, Secrets, TaskKind, Tasks, auth_name};

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    /// The file cannot be read.
    #[error("failed to read the policy file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
    /// The file holds no policy.
    #[error("the policy file {} has {} mistake(s){}", path.display(), mistakes.len(), Lines(mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Vec<String>,
    },
}

struct Lines<'a>(&'a [String]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  - {line}"))
    }
}

/// Reads the policy in `path`.
///
/// # Errors
/// [`PolicyError`] with every mistake.
pub(crate) fn load(path: &Path) -> Result<Policy, PolicyError> {
    parse(path, &read(path)?)
}

/// The file's bytes, as many as a policy may have and one more.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Policy, PolicyError> {
    let mistakes = |mistakes| PolicyError::Mistakes { path: path.to_owned(), mistakes };
    let mistake = |text: String| mistakes(vec![text]);
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => FileFormat::Toml,
        Some("yaml" | "yml") => FileFormat::Yaml,
        _ => return Err(mistake("its name must end in .toml, .yaml or .yml".into())),
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(mistake(format!("has more than {MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| mistake("is not UTF-8".into()))?;
    let built = config::Config::builder().add_source(File::from_str(text, format)).build();
    let tree = built.map_err(|error| mistake(error.to_string()))?.cache;
    let mut reader = Reader::new(tree, &[], Vec::new());
    // A rule that was meant and has no value must not count as a rule that was not meant.
    reader.insist_on_values();
    if reader.is_empty() {
        reader
            .mistake("(all of it)", "it sets nothing; leave the setting policy_file out when nothing is to be limited");
    }
    let policy = take(&mut reader, path);
    let found = reader.finish();
    if found.is_empty() { Ok(policy) } else { Err(mistakes(found)) }
}

/// Takes every key.
pub(super) fn take(reader: &mut Reader, path: &Path) -> Policy {
    let defaults = Policy::default();
    let ports =
        reader.optional_list("connection.ports", MAX_RULES, Form::Number { least: 1, most: 65_535 }, |text| match text
            .parse::<u16>(
        ) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err("is not a TCP port".to_owned()),
        });
    let kind_form = Form::Choice(TaskKind::ALL.iter().map(|kind| kind.name()).collect());
    let kinds = reader.optional_list("tasks.kinds", MAX_RULES, kind_form, |text| {
        let known = TaskKind::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| {
            "is not a kind of task; there are connection_test, command, script, diagnosis, posture, secret_manager_test and \
             seal_secret"
                .to_owned()
        })
    });
    let auth_form = Form::Choice(AUTH_KINDS.iter().map(|auth| auth_name(*auth)).collect());
    Policy {
        file: Some(path.to_owned()),
        hosts: Hosts {
            allow: reader.optional_list("hosts.allow", MAX_RULES, HOST_FORM, HostRule::parse),
            deny: reader.list("hosts.deny", MAX_RULES, HOST_FORM, HostRule::parse),
        },
        identities: Identities {
            allow: reader.optional_list("identities.allow", MAX_RULES, IDENTITY_FORM, Pattern::parse),
            deny: reader.list("identities.deny", MAX_RULES, IDENTITY_FORM, Pattern::parse),
        },
        connection: Connection {
            ports: ports.map(BTreeSet::from_iter),
            http: reader.choice(
                "connection.http",
                defaults.connection.http,
                &[("allowed", PlainHttp::Allowed), ("sealed", PlainHttp::Sealed), ("forbidden", PlainHttp::Forbidden)],
            ),
            skip_cert_check: reader.flag("connection.skip_cert_check", defaults.connection.skip_cert_check),
            task_ca: reader.flag("connection.task_ca", defaults.connection.task_ca),
            basic: reader.flag("connection.basic", defaults.connection.basic),
            auth: reader.optional_list("connection.auth", MAX_RULES, auth_form, |text| {
                let known = AUTH_KINDS.into_iter().find(|auth| auth_name(*auth) == text);
                known.ok_or_else(|| "is not one of basic, ntlm, negotiate and kerberos".to_owned())
            }),
            delegation: reader.flag("connection.delegation", defaults.connection.delegation),
        },
        tasks: Tasks {
            kinds: kinds.map(BTreeSet::from_iter),
            max_script_bytes: reader.optional_number(
                "tasks.max_script_bytes",
                0,
                u32::try_from(lictor_proto::MAX_MESSAGE_BYTES).unwrap_or(u32::MAX),
            ),
            concurrent: reader.optional_number("tasks.concurrent", 1, 1000),
            concurrent_per_host: reader.optional_number("tasks.concurrent_per_host", 1, 1000),
        },
        secrets: Secrets {
            kms_keys: reader
                .optional_list("secrets.kms_keys", MAX_RULES, KEY_FORM, |text| ArnPattern::parse(text, "kms")),
            kms_roles: reader
                .optional_list("secrets.kms_roles", MAX_RULES, ROLE_FORM, |text| ArnPattern::parse(text, "iam")),
            kms_endpoints: reader.list("secrets.kms_endpoints", MAX_RULES, ENDPOINT_FORM, EndpointPattern::parse),
            sources: reader.flag("secrets.sources", defaults.secrets.sources),
        },
    }
}

const AUTH_KINDS: [AuthKind; 4] = [AuthKind::Basic, AuthKind::Ntlm, AuthKind::Negotiate, AuthKind::Kerberos];
const HOST_FORM: Form =
    Form::Written { pattern: "^[^ ]+$", words: "names, addresses, blocks, `*`", example: ".corp.example" };
const KEY_FORM: Form = Form::Written {
    pattern: "^([*]|arn:[^ ]+)$",
    words: "ARNs, `*`",
    example: "arn:aws:kms:eu-central-1:111122223333:key/*",
};
const ROLE_FORM: Form = Form::Written {
    pattern: "^([*]|arn:[^ ]+)$",
    words: "ARNs, `*`",
    example: "arn:aws:iam::111122223333:role/lictor-*",
};
const ENDPOINT_FORM: Form = Form::Written {
    pattern: "^([*]|https?://[^ /?#@]+/?)$",
    words: "`https://host[:port]`, `*`",
    example: "https://*.kms.eu-central-1.vpce.amazonaws.com",
};
const IDENTITY_FORM: Form = Form::Written { pattern: "^.+$", words: "users", example: "CORP\\svc-*" };
/// A policy of ten thousand rules fits.
const MAX_BYTES: u64 = 1024 * 1024;
/// Every task is compared with every rule.
const MAX_RULES: usize = 10_000;

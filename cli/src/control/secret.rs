//! `lictor secret`: values go in, and what comes out is everything about them but the value.
//!
//! INVARIANT: where the control plane may not see a value, it leaves this program sealed to the agent that was named, or not at
//! all.

use std::collections::HashMap;
use std::error::Error as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use lictor_proto::sealing::{self, Binding};
use lictor_proto::v1;
use serde::Serialize;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::connect::{CALL_TIMEOUT, ControlPlane, answer, unary};
use super::view::{SecretPage, SecretView, secret_page, secret_table};
use super::{MAX_LISTED, broken_answer, present, print_deleted, print_list, print_one};
use crate::args::Output;
use crate::args::secret::{PutSecretArgs, SecretArgs, SecretCommand, SecretKind, WhichArgs};
use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::input;

/// `lictor secret`.
pub(crate) async fn secret(args: SecretArgs, output: Output) -> Result<Exit, Failure> {
    match args.command {
        SecretCommand::Put(put) => {
            // The value first: a mistake in it should not wait for the network.
            let value = given(&put)?;
            let control_plane = ControlPlane::connect(&args.server).await?;
            let stored = store(&control_plane, *put, value).await?;
            print_one(&stored, |stored| stored.secret.state_line(), output)
        }
        SecretCommand::List => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let mut secrets = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListSecretsRequest { page_size: 0, page_token };
                let page = unary(control_plane.secrets().list_secrets(request)).await?;
                secrets.extend(page.secrets.into_iter().map(SecretView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || secrets.len() >= MAX_LISTED {
                    return print_list(secrets, "secrets", secret_table, output);
                }
            }
        }
        SecretCommand::Show(WhichArgs { identifier }) => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let answer = unary(control_plane.secrets().get_secret(v1::GetSecretRequest { identifier })).await?;
            let page = SecretPage::new(present(answer.secret, "secret")?, answer.versions, answer.used_by);
            print_one(&page, secret_page, output)
        }
        SecretCommand::Delete(WhichArgs { identifier }) => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let request = v1::DeleteSecretRequest { identifier: identifier.clone() };
            unary(control_plane.secrets().delete_secret(request)).await?;
            print_deleted("secret", identifier, output)
        }
    }
}

/// A value as it was given.
struct Given {
    bytes: Zeroizing<Vec<u8>>,
    /// Editors and `echo` put a line end behind a text that is not a part of it.
    from_file: bool,
}

/// The value that is to be stored; nothing when none is.
fn given(put: &PutSecretArgs) -> Result<Option<Given>, Failure> {
    if put.keep_value || put.source.is_some() {
        return Ok(None);
    }
    if let Some(path) = &put.value_file {
        return Ok(Some(Given { bytes: input::value(path, MAX_FILE_BYTES)?, from_file: true }));
    }
    match std::env::var_os(VALUE_VARIABLE).filter(|value| !value.is_empty()) {
        Some(value) => Ok(Some(Given { bytes: Zeroizing::new(value.into_vec()), from_file: false })),
        None => Err(Failure::usage(
            "there is no value",
            "Give --value-file FILE, or - for standard input, or set the environment variable LICTOR_SECRET; --source when it is on \
             the agents; --keep-value changes only the rest.",
        )),
    }
}

/// A stored secret, and who sealed its value.
#[derive(Debug, Serialize)]
struct Stored {
    #[serde(flatten)]
    secret: SecretView,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_by: Option<SealedBy>,
}

/// The agent that a value was sealed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SealedBy {
    agent_id: String,
    agent_name: String,
}

async fn store(control_plane: &ControlPlane, put: PutSecretArgs, value: Option<Given>) -> Result<Stored, Failure> {
    let request = v1::GetSecretRequest { identifier: put.identifier.clone() };
    let before = match answer(CALL_TIMEOUT, control_plane.secrets().get_secret(request)).await {
        Ok(answer) => Some(present(answer.secret, "secret")?),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => return Err(Failure::from(&status)),
    };
    let secret = described(put, before, value.is_some())?;
    let mut request = v1::PutSecretRequest { secret: None, value: None, sealed: None };
    let mut sealed_by = None;
    if let Some(value) = value {
        let value = checked(value, secret.kind())?;
        let prepare = v1::PrepareSecretRequest {
            identifier: secret.identifier.clone(),
            manager: secret.manager.clone(),
            scope: secret.scope.clone(),
        };
        let prepared = answer(CALL_TIMEOUT, control_plane.secrets().prepare_secret(prepare)).await;
        let prepared = prepared.map_err(|status| no_agent(&status))?;
        if prepared.must_seal {
            let agent = SealedBy { agent_id: prepared.agent_id.clone(), agent_name: prepared.agent_name.clone() };
            request.sealed = Some(sealed(&secret.identifier, prepared, &value)?);
            console::note(&format!(
                "sealed to the agent {} ({}), which alone can read it",
                clean(&agent.agent_name),
                clean(&agent.agent_id)
            ));
            sealed_by = Some(agent);
        } else {
            if !matches!(secret.manager.as_str(), "" | BUILT_IN) {
                console::note(&format!("not sealed: the control plane itself uses {}", clean(&secret.manager)));
            }
            request.value = Some(value.to_vec());
        }
    }
    let identifier = secret.identifier.clone();
    request.secret = Some(secret);
    let answer = answer(PUT_TIMEOUT, control_plane.secrets().put_secret(request)).await;
    let answer = answer.map_err(|status| unstored(&status, &identifier, sealed_by.is_some()))?;
    Ok(Stored { secret: SecretView::from(present(answer.secret, "secret")?), sealed_by })
}

/// Everything but the value. Of a stored secret whatever was not given stays.
fn described(put: PutSecretArgs, before: Option<v1::Secret>, has_value: bool) -> Result<v1::Secret, Failure> {
    let is_new = before.is_none();
    if is_new && put.keep_value {
        return Err(Failure::usage(
            format!("there is no secret {}, so no value can be kept", put.identifier),
            "Check the identifier with `lictor secret list`, or give --value-file FILE.",
        ));
    }
    let before = before.unwrap_or_default();
    let manager = match (put.manager, &put.source) {
        (Some(manager), Some(_)) if manager != ON_AGENT => {
            return Err(Failure::usage(
                format!("--source is for the secret manager {ON_AGENT}, not for {manager}"),
                "Leave --manager or --source away.",
            ));
        }
        (Some(manager), _) => manager,
        (None, Some(_)) => ON_AGENT.to_owned(),
        (None, None) if is_new => BUILT_IN.to_owned(),
        (None, None) => before.manager,
    };
    let source = match put.source {
        Some(source) => source,
        None if manager != ON_AGENT => String::new(),
        None if has_value || before.source.is_empty() => {
            return Err(Failure::usage(
                format!("the secret manager {ON_AGENT} stores no values: they are on the agents"),
                "Give --source file:/PATH or --source env:NAME; or another secret manager with --manager, such as built-in.",
            ));
        }
        // It stays as it is. Given again it would say that the value there was changed.
        None => String::new(),
    };
    let kind = match put.kind {
        Some(SecretKind::Text) => v1::SecretKind::Text.into(),
        Some(SecretKind::File) => v1::SecretKind::File.into(),
        None if is_new => v1::SecretKind::Text.into(),
        None => before.kind,
    };
    let tags: HashMap<String, String> = if put.no_tags || !put.tags.is_empty() {
        put.tags.into_iter().map(|tag| (tag.name, tag.value)).collect()
    } else {
        before.tags
    };
    Ok(v1::Secret {
        identifier: put.identifier,
        name: put.name.unwrap_or(before.name),
        description: put.description.unwrap_or(before.description),
        tags,
        scope: put.scope,
        kind,
        manager,
        source,
        ..v1::Secret::default()
    })
}

/// The value in the form that its kind has.
fn checked(value: Given, kind: v1::SecretKind) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Given { mut bytes, from_file } = value;
    let is_text = kind != v1::SecretKind::File;
    if is_text && from_file && bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let as_file = "Give --kind file for the bytes of a file, such as a keytab.";
    if bytes.is_empty() {
        return Err(Failure::usage("the value is empty", "Look at the file or the command that it comes from."));
    }
    if is_text && std::str::from_utf8(&bytes).is_err() {
        return Err(Failure::usage("the value is not text in UTF-8", as_file));
    }
    if is_text && bytes.contains(&0) {
        return Err(Failure::usage("the value holds a NUL character, which no text has", as_file));
    }
    let most = if is_text { MAX_TEXT_BYTES } else { MAX_FILE_BYTES };
    if bytes.len() > most {
        let remedy = if is_text { as_file } else { "Secrets are for keys and passwords; put larger files elsewhere." };
        return Err(Failure::usage(
            format!("the value has {} bytes, and at most {most} are stored", bytes.len()),
            remedy,
        ));
    }
    Ok(bytes)
}

/// Seals the value for this one writing by this one agent.
fn sealed(identifier: &str, to: v1::PrepareSecretResponse, value: &[u8]) -> Result<v1::SealedValue, Failure> {
    if to.seal_id.is_empty() || to.agent_id.is_empty() || to.version == 0 {
        return Err(broken_answer("agent to seal to"));
    }
    let binding = Binding {
        agent_id: &to.agent_id,
        task_id: &to.seal_id,
        epoch: 0,
        credential: identifier,
        credential_version: to.version,
    };
    let value = sealing::seal(&to.sealing_key, &binding, value).map_err(|error| {
        let message = format!("failed to seal the value to the agent {}: {error}", to.agent_name);
        Failure { message: message.into(), ..broken_answer("usable sealing key") }
    })?;
    Ok(v1::SealedValue { seal_id: to.seal_id, value: Some(value) })
}

/// To PrepareSecret, UNAVAILABLE is that no agent can seal the value, and its message has each agent and the reason. A control plane
/// that cannot be reached sends no status of its own: that one has a source.
fn no_agent(status: &Status) -> Failure {
    let failure = Failure::from(status);
    if status.code() != Code::Unavailable || status.source().is_some() {
        return failure;
    }
    Failure {
        exit: Exit::REJECTED,
        code: "control_plane.no_agent".into(),
        cause: "Only agents reach this secret manager, and none of them can take the value now.".into(),
        remedy:
            "Look at the reason of each agent: `lictor agent list`, and the agent tags in `lictor secret-manager show`."
                .into(),
        ..failure
    }
}

/// A value that was sent and is not stored, or not known to be.
fn unstored(status: &Status, identifier: &str, was_sealed: bool) -> Failure {
    match status.code() {
        Code::Unavailable if was_sealed => no_agent(status),
        Code::DeadlineExceeded => Failure {
            cause: "The agent that encrypts the value, or AWS, takes long; or the control plane is not well.".into(),
            remedy: format!(
                "Look with `lictor secret show {identifier}` whether the version is there, before storing it again."
            )
            .into(),
            ..Failure::from(status)
        },
        _ => Failure::from(status),
    }
}

/// Where the value comes from when there is no file.
const VALUE_VARIABLE: &str = "LICTOR_SECRET";

/// Secret managers that are there without being made.
const BUILT_IN: &str = "built-in";
const ON_AGENT: &str = "agent";

/// The most that is stored.
const MAX_TEXT_BYTES: usize = 64 * 1024;
const MAX_FILE_BYTES: usize = 256 * 1024;

/// Storing may wait for an agent, which waits for AWS; the control plane gives up after a minute.
const PUT_TIMEOUT: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests;

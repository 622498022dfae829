//! `lictor secret-manager put --from`: connectors of Harness become secret managers.
//!
//! INVARIANT: nothing is sent before everything in the document is known to be good.

use std::path::Path;
use std::sync::Arc;

use lictor_import::harness::connector::{self, Connectors, Manager, Reference, Value, Who};
use lictor_proto::v1;
use serde::Serialize;

use super::store;
use crate::args::Output;
use crate::args::control::ServerArgs;
use crate::args::secret::PutManagerArgs;
use crate::console;
use crate::control::connect::ControlPlane;
use crate::control::import::{MAX_DOCUMENT_BYTES, unusable};
use crate::control::view::{ManagerView, manager_table};
use crate::control::{print_list, settings};
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::input;

/// Reads, checks, and stores unless it is a dry run.
pub(super) async fn put(server: &ServerArgs, put: PutManagerArgs, output: Output) -> Result<Exit, Failure> {
    let dry_run = put.dry_run;
    let read = tokio::task::spawn_blocking(move || read(put)).await;
    let Connectors { managers, others } =
        read.map_err(|error| Failure::local(format!("failed to read the document: {error}")))??;
    for (kind, line) in &others {
        console::note(&format!("line {line}: a connector of the type {} is passed over", clean(kind)));
    }
    for manager in &managers {
        for remark in &manager.remarks {
            console::note(&format!("{}: {}", clean(&manager.identifier), clean(remark)));
        }
        for reference in manager.references() {
            console::note(&format!("{}: {}", clean(&manager.identifier), wanted(reference)));
        }
    }
    if dry_run {
        let views: Vec<ItemView> = managers.into_iter().map(ItemView::new).collect();
        let table = |views: &[ItemView]| manager_table(views.iter().map(|view| &view.manager));
        return print_list(views, "secret_managers", table, output);
    }
    let control_plane = ControlPlane::connect(server).await?;
    let mut stored: Vec<ManagerView> = Vec::new();
    for manager in managers {
        let identifier = manager.identifier.clone();
        match store(&control_plane, request(manager)).await {
            Ok(view) => stored.push(view),
            Err(failure) => {
                if !stored.is_empty() {
                    console::note(&format!("{} were stored before {} failed", stored.len(), clean(&identifier)));
                }
                let message = format!("secret manager {identifier}: {}", failure.message);
                return Err(Failure { message: message.into(), ..failure });
            }
        }
    }
    let lines = |views: &[ManagerView]| views.iter().map(ManagerView::state_line).collect();
    print_list(stored, "secret_managers", lines, output)
}

fn read(put: PutManagerArgs) -> Result<Connectors, Failure> {
    let path = put.from.unwrap_or_default();
    let text = input::text("connectors", &path, MAX_DOCUMENT_BYTES)?;
    let name: Arc<str> =
        if path == Path::new("-") { "standard input".into() } else { path.to_string_lossy().as_ref().into() };
    let mut read = connector::read(&name, &text).map_err(|mistakes| unusable(&mistakes))?;
    if let Some(identifier) = put.identifier {
        let identifier = settings::identifier("ID", &identifier)?;
        match read.managers.as_mut_slice() {
            [only] => only.identifier = identifier,
            several => {
                return Err(Failure::usage(
                    format!("the document holds {} connectors for AWS KMS, and one identifier is given", several.len()),
                    "Leave ID away: each has its own.",
                ));
            }
        }
    }
    if let Some(scope) = put.scope {
        read.managers.iter_mut().for_each(|manager| manager.scope.clone_from(&scope));
    }
    Ok(read)
}

/// A secret that must be there. Harness gives no values away.
fn wanted(reference: &Reference) -> String {
    let Reference { identifier, scope } = reference;
    let scope = if scope.is_empty() { String::new() } else { format!(" --scope {scope}") };
    format!("refers to the secret {identifier}: lictor secret put {identifier}{scope} --value-file FILE")
}

/// As the control plane takes it.
fn request(manager: Manager) -> v1::SecretManager {
    use v1::aws_kms::Credentials;
    let value = |value: Value| match value {
        Value::Text(text) => v1::TextOrSecret { text, secret: String::new() },
        Value::Secret(secret) => v1::TextOrSecret { text: String::new(), secret: secret.identifier },
    };
    let lasts =
        |duration: Option<u32>| duration.map(|seconds| prost_types::Duration { seconds: seconds.into(), nanos: 0 });
    let credentials = match manager.who {
        Who::AccessKey { id, secret } => Credentials::AccessKey(v1::AwsAccessKey {
            access_key_id: Some(value(id)),
            secret_access_key: secret.identifier,
        }),
        Who::MachineRole => Credentials::MachineRole(v1::AwsMachineRole {}),
        Who::AssumeRole { role_arn, external_id, duration_sec } => {
            Credentials::AssumeRole(v1::AwsAssumeRole { role_arn, external_id, duration: lasts(duration_sec) })
        }
        Who::Oidc { role_arn, by_platform, duration_sec } => {
            let connectivity = if by_platform { v1::Connectivity::Platform } else { v1::Connectivity::Agent };
            Credentials::Oidc(v1::AwsOidc {
                role_arn,
                connectivity: connectivity.into(),
                duration: lasts(duration_sec),
            })
        }
    };
    let kms = v1::AwsKms {
        key: Some(value(manager.key)),
        region: manager.region,
        endpoint: manager.endpoint,
        sts_endpoint: manager.sts_endpoint,
        credentials: Some(credentials),
    };
    v1::SecretManager {
        identifier: manager.identifier,
        name: manager.name,
        description: manager.description,
        tags: manager.tags.into_iter().collect(),
        scope: manager.scope,
        agent_tags: manager.agent_tags,
        kind: Some(v1::secret_manager::Kind::AwsKms(kms)),
        ..v1::SecretManager::default()
    }
}

/// What would be stored.
#[derive(Debug, Serialize)]
struct ItemView {
    #[serde(flatten)]
    manager: ManagerView,
    /// Secrets that it refers to.
    secrets: Vec<SecretView>,
    remarks: Vec<String>,
}

/// A secret that must be there.
#[derive(Debug, Serialize)]
struct SecretView {
    identifier: String,
    scope: String,
}

impl ItemView {
    fn new(manager: Manager) -> Self {
        let view = |reference: &Reference| SecretView {
            identifier: reference.identifier.clone(),
            scope: reference.scope.clone(),
        };
        let secrets = manager.references().into_iter().map(view).collect();
        let remarks = manager.remarks.clone();
        Self { manager: ManagerView::from(request(manager)), secrets, remarks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "
connector:
  identifier: corp_kms
  orgIdentifier: default
  type: AwsKms
  spec:
    credential: {type: ManualConfig, spec: {accessKey: account.aws_id, secretKey: aws_key}}
    kmsArn: arn:aws:kms:eu-central-1:111122223333:alias/lictor
    region: eu-central-1
    delegateSelectors: [aws]
";

    fn args(identifier: Option<&str>, path: &Path) -> PutManagerArgs {
        use clap::Parser as _;
        let path = path.to_str().unwrap();
        let words = ["lictor", "secret-manager", "put", "--from", path, "--scope", "platform"];
        match crate::args::Cli::try_parse_from(words.into_iter().chain(identifier)).unwrap().command {
            crate::args::Command::SecretManager(crate::args::secret::SecretManagerArgs {
                command: crate::args::secret::SecretManagerCommand::Put(put),
                ..
            }) => *put,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_connector_becomes_a_manager_that_names_its_secrets() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), DOCUMENT).unwrap();
        let manager = read(args(Some("corp"), file.path())).unwrap().managers.remove(0);
        let told: Vec<String> = manager.references().into_iter().map(wanted).collect();
        assert!(told[1].ends_with("lictor secret put aws_key --scope default --value-file FILE"), "{told:?}");
        let json = serde_json::to_value(ItemView::new(manager.clone())).unwrap();
        assert_eq!((&json["identifier"], &json["secrets"][0]["identifier"]), (&"corp".into(), &"aws_id".into()));
        let request = request(manager);
        assert_eq!((request.identifier.as_str(), request.scope.as_str()), ("corp", "platform"));
        let Some(v1::secret_manager::Kind::AwsKms(kms)) = request.kind else { panic!("no kind") };
        let id = v1::TextOrSecret { secret: "aws_id".into(), text: String::new() };
        let key = v1::AwsAccessKey { access_key_id: Some(id), secret_access_key: "aws_key".into() };
        assert_eq!(kms.credentials, Some(v1::aws_kms::Credentials::AccessKey(key)));
        assert_eq!((kms.region.as_str(), request.agent_tags), ("eu-central-1", vec!["aws".to_owned()]));
    }

    #[test]
    fn one_identifier_is_for_one_connector() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let second = DOCUMENT.replace("corp_kms", "other_kms");
        std::fs::write(file.path(), format!("---{DOCUMENT}---{second}")).unwrap();
        assert_eq!(read(args(None, file.path())).unwrap().managers.len(), 2);
        assert!(read(args(Some("corp"), file.path())).is_err());
        std::fs::write(file.path(), DOCUMENT.replace("kmsArn", "kmsarn")).unwrap();
        assert!(read(args(None, file.path())).unwrap_err().message.contains("unknown field spec.kmsarn"));
    }
}

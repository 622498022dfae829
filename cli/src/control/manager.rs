//! `lictor secret-manager`: where values of secrets are kept, and a test of it that tells writing from reading.
//!
//! Holds no secret: what a manager authenticates with is named, never given.

mod document;

use std::collections::HashMap;

use lictor_proto::v1;

use super::connect::{ControlPlane, unary};
use super::view::{ManagerView, manager_page, manager_table};
use super::{MAX_LISTED, present, print_deleted, print_list, print_one, settings, watch};
use crate::args::Output;
use crate::args::secret::{
    Connectivity, PutManagerArgs, SecretManagerArgs, SecretManagerCommand, TestManagerArgs, WhichArgs,
};
use crate::console;
use crate::exit::Exit;
use crate::failure::{Failure, clean};

/// `lictor secret-manager`.
pub(crate) async fn secret_manager(args: SecretManagerArgs, output: Output) -> Result<Exit, Failure> {
    match args.command {
        SecretManagerCommand::Put(put) if put.from.is_some() => document::put(&args.server, *put, output).await,
        SecretManagerCommand::Put(put) => {
            let manager = described(*put)?;
            let control_plane = ControlPlane::connect(&args.server).await?;
            let view = store(&control_plane, manager).await?;
            print_one(&view, ManagerView::state_line, output)
        }
        SecretManagerCommand::List => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let mut managers = Vec::new();
            let mut page_token = String::new();
            loop {
                let request = v1::ListSecretManagersRequest { page_size: 0, page_token };
                let page = unary(control_plane.secrets().list_secret_managers(request)).await?;
                managers.extend(page.managers.into_iter().map(ManagerView::from));
                page_token = page.next_page_token;
                if page_token.is_empty() || managers.len() >= MAX_LISTED {
                    return print_list(managers, "secret_managers", |managers| manager_table(managers), output);
                }
            }
        }
        SecretManagerCommand::Show(WhichArgs { identifier }) => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let request = v1::GetSecretManagerRequest { identifier };
            let answer = unary(control_plane.secrets().get_secret_manager(request)).await?;
            print_one(&ManagerView::from(present(answer.manager, "secret manager")?), manager_page, output)
        }
        SecretManagerCommand::Delete(WhichArgs { identifier }) => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            let request = v1::DeleteSecretManagerRequest { identifier: identifier.clone() };
            unary(control_plane.secrets().delete_secret_manager(request)).await?;
            print_deleted("secret manager", identifier, output)
        }
        SecretManagerCommand::Test(test) => {
            let control_plane = ControlPlane::connect(&args.server).await?;
            examine(&control_plane, test, output).await
        }
    }
}

/// Stores one.
async fn store(control_plane: &ControlPlane, manager: v1::SecretManager) -> Result<ManagerView, Failure> {
    let request = v1::PutSecretManagerRequest { manager: Some(manager) };
    let answer = unary(control_plane.secrets().put_secret_manager(request)).await?;
    Ok(ManagerView::from(present(answer.manager, "secret manager")?))
}

/// Has it tested, and follows that.
async fn examine(control_plane: &ControlPlane, test: TestManagerArgs, output: Output) -> Result<Exit, Failure> {
    let selector = v1::AgentSelector { tags: test.selector.tags, scope: test.selector.scope };
    let request = v1::TestSecretManagerRequest { identifier: test.identifier.clone(), selector: Some(selector) };
    let answer = unary(control_plane.secrets().test_secret_manager(request)).await?;
    let task = present(answer.task, "task")?;
    let watching = watch::watch(control_plane, &task.task_id, 0, output);
    let Some(timeout) = test.timeout else { return watching.await };
    match tokio::time::timeout(timeout, watching).await {
        Ok(exit) => exit,
        Err(_) => {
            console::note(&format!("the test goes on: lictor task watch {}", clean(&task.task_id)));
            Err(Failure::timed_out(format!("the test of {} takes longer than --timeout", test.identifier)))
        }
    }
}

/// From flags.
fn described(put: PutManagerArgs) -> Result<v1::SecretManager, Failure> {
    use v1::aws_kms::Credentials;
    let duration = put.duration.map(settings::proto_duration);
    let named = |flag: &str, secret: Option<String>| match secret {
        Some(secret) => settings::identifier(flag, &secret).map(Some),
        None => Ok(None),
    };
    let key = text_or_secret(put.key, named("--key-secret", put.key_secret)?);
    let Some(key) = key else {
        return Err(Failure::usage(
            "there is no key",
            "Give --key with its ARN, such as arn:aws:kms:eu-central-1:111122223333:alias/lictor, or --key-secret.",
        ));
    };
    let access_key_id = text_or_secret(put.access_key_id, named("--access-key-id-secret", put.access_key_id_secret)?);
    let secret_access_key = named("--secret-access-key-secret", put.secret_access_key_secret)?;
    let credentials = match (access_key_id, put.role_arn, put.oidc_role_arn) {
        (Some(access_key_id), _, _) => Credentials::AccessKey(v1::AwsAccessKey {
            access_key_id: Some(access_key_id),
            secret_access_key: secret_access_key.unwrap_or_default(),
        }),
        (None, Some(role_arn), _) => {
            let external_id = put.external_id.unwrap_or_default();
            Credentials::AssumeRole(v1::AwsAssumeRole { role_arn, external_id, duration })
        }
        (None, None, Some(role_arn)) => {
            let connectivity = match put.connectivity {
                Some(Connectivity::Platform) => v1::Connectivity::Platform,
                Some(Connectivity::Agent) | None => v1::Connectivity::Agent,
            };
            Credentials::Oidc(v1::AwsOidc { role_arn, connectivity: connectivity.into(), duration })
        }
        (None, None, None) if put.machine_role => Credentials::MachineRole(v1::AwsMachineRole {}),
        (None, None, None) => {
            return Err(Failure::usage(
                "it is not said who uses the key",
                "Give --access-key-id with --secret-access-key-secret; or --machine-role; or --role-arn; or --oidc-role-arn.",
            ));
        }
    };
    let kms = v1::AwsKms {
        key: Some(key),
        region: put.region.unwrap_or_default(),
        endpoint: put.endpoint.unwrap_or_default(),
        sts_endpoint: put.sts_endpoint.unwrap_or_default(),
        credentials: Some(credentials),
    };
    let tags: HashMap<String, String> = put.tags.into_iter().map(|tag| (tag.name, tag.value)).collect();
    Ok(v1::SecretManager {
        identifier: put.identifier.unwrap_or_default(),
        name: put.name.unwrap_or_default(),
        description: put.description.unwrap_or_default(),
        tags,
        scope: put.scope.unwrap_or_default(),
        agent_tags: put.agent_tags,
        kind: Some(v1::secret_manager::Kind::AwsKms(kms)),
        ..v1::SecretManager::default()
    })
}

fn text_or_secret(text: Option<String>, secret: Option<String>) -> Option<v1::TextOrSecret> {
    (text.is_some() || secret.is_some())
        .then(|| v1::TextOrSecret { text: text.unwrap_or_default(), secret: secret.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(flags: &[&str]) -> Result<v1::SecretManager, Failure> {
        let common = ["lictor", "secret-manager", "put", "corp", "aws-kms"];
        match Cli::try_parse_from(common.iter().chain(flags)).unwrap().command {
            Command::SecretManager(SecretManagerArgs { command: SecretManagerCommand::Put(put), .. }) => {
                described(*put)
            }
            other => panic!("{other:?}"),
        }
    }

    fn kms(manager: v1::SecretManager) -> v1::AwsKms {
        match manager.kind {
            Some(v1::secret_manager::Kind::AwsKms(kms)) => kms,
            None => panic!("no kind"),
        }
    }

    #[test]
    fn flags_become_each_kind_of_credentials() {
        use v1::aws_kms::Credentials;
        let key = ["--key", "alias/lictor", "--region", "eu-central-1"];
        let of = |flags: &[&str]| kms(parsed(&[&key, flags].concat()).unwrap()).credentials.unwrap();
        let text = |text: &str| Some(v1::TextOrSecret { text: text.into(), secret: String::new() });
        let secret = |secret: &str| Some(v1::TextOrSecret { text: String::new(), secret: secret.into() });
        assert_eq!(
            of(&["--access-key-id", "AKIAIOSFODNN7EXAMPLE", "--secret-access-key-secret", "aws-key"]),
            Credentials::AccessKey(v1::AwsAccessKey {
                access_key_id: text("AKIAIOSFODNN7EXAMPLE"),
                secret_access_key: "aws-key".into()
            })
        );
        let Credentials::AccessKey(both) =
            of(&["--access-key-id-secret", "aws-id", "--secret-access-key-secret", "aws-key"])
        else {
            panic!()
        };
        assert_eq!(both.access_key_id, secret("aws-id"));
        assert_eq!(of(&["--machine-role"]), Credentials::MachineRole(v1::AwsMachineRole {}));
        let duration = Some(prost_types::Duration { seconds: 1800, nanos: 0 });
        assert_eq!(
            of(&["--role-arn", "r", "--external-id", "x", "--duration", "30m"]),
            Credentials::AssumeRole(v1::AwsAssumeRole { role_arn: "r".into(), external_id: "x".into(), duration })
        );
        let oidc = |connectivity: v1::Connectivity, duration| {
            Credentials::Oidc(v1::AwsOidc { role_arn: "r".into(), connectivity: connectivity.into(), duration })
        };
        assert_eq!(of(&["--oidc-role-arn", "r"]), oidc(v1::Connectivity::Agent, None));
        assert_eq!(
            of(&["--oidc-role-arn", "r", "--connectivity", "platform", "--duration", "30m"]),
            oidc(v1::Connectivity::Platform, duration)
        );
    }

    #[test]
    fn everything_else_is_handed_on() {
        let flags = [
            "--key-secret",
            "kms-arn",
            "--machine-role",
            "--endpoint",
            "https://kms.corp.example",
            "--sts-endpoint",
            "https://sts.corp.example",
            "--agent-tag",
            "aws",
            "--agent-tag",
            "prod",
            "--tag",
            "team=web",
            "--scope",
            "platform",
            "--name",
            "Corporate KMS",
        ];
        let manager = parsed(&flags).unwrap();
        assert_eq!((manager.identifier.as_str(), manager.scope.as_str()), ("corp", "platform"));
        assert_eq!((manager.agent_tags.clone(), manager.tags.len()), (vec!["aws".into(), "prod".into()], 1));
        let kms = kms(manager);
        assert_eq!(kms.key.unwrap().secret, "kms-arn");
        assert_eq!(
            (kms.endpoint.as_str(), kms.sts_endpoint.as_str()),
            ("https://kms.corp.example", "https://sts.corp.example")
        );
    }

    #[test]
    fn what_is_missing_is_said_and_values_are_not_taken_for_names() {
        assert!(parsed(&["--machine-role"]).unwrap_err().message.contains("no key"));
        assert!(parsed(&["--key", "k"]).unwrap_err().remedy.contains("--oidc-role-arn"));
        let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let failure =
            parsed(&["--key", "k", "--access-key-id", "AKIA", "--secret-access-key-secret", key]).unwrap_err();
        assert!(failure.exit == Exit::USAGE && !failure.to_text().contains(key), "{failure:?}");
    }
}

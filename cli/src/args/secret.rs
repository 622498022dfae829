//! Flags of the commands about secrets and the secret managers that keep them.
//!
//! No flag takes a value: values come from files, from standard input or from the environment. Flags whose name ends in
//! `-secret` take identifiers of stored secrets.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::control::{SelectorArgs, ServerArgs};
use super::{Variable, duration, variable};

/// `lictor secret`.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: SecretCommand,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Store a secret, or a new version of it.
    ///
    /// Of a secret that is stored already, whatever is not given stays as it is. The value comes from a file, from standard
    /// input or from the environment variable LICTOR_SECRET, never from the command line, and is never shown again. Where only
    /// agents reach the secret manager it is sealed to one of them before it leaves this machine, so that the control plane
    /// cannot read it.
    #[command(after_long_help = PUT_SECRET)]
    Put(Box<PutSecretArgs>),
    /// List secrets by identifier, without their values.
    List,
    /// Show a secret, its versions and what uses it, without its value.
    Show(WhichArgs),
    /// Delete a secret and every version of it. Refused while credentials or secret managers use it.
    Delete(WhichArgs),
}

/// A secret or a secret manager that is there.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// Which.
    #[arg(value_name = "ID")]
    pub(crate) identifier: String,
}

/// `lictor secret put`.
#[derive(Debug, Args)]
pub(crate) struct PutSecretArgs {
    /// Identifier: letters, digits, `-`, `_` and `.`; at most 64 characters.
    #[arg(value_name = "ID")]
    pub(crate) identifier: String,
    /// File with the value, or `-` for standard input. Of a text one line end after it is cut off, of a file nothing. Without
    /// this flag the value comes from the environment variable LICTOR_SECRET, as it stands.
    #[arg(long, value_name = "FILE", group = "value", help_heading = "Value")]
    pub(crate) value_file: Option<PathBuf>,
    /// Keep the stored value; change only the rest.
    #[arg(long, group = "value", help_heading = "Value")]
    pub(crate) keep_value: bool,
    /// The value is on the agents: `file:` and an absolute path, or `env:` and the NAME of a variable LICTOR_SECRET_NAME. Means
    /// --manager agent. After a host rejected a credential with it, and the value there was changed, give the same place again:
    /// that is a new version, and the credential is handed out again.
    #[arg(long, value_name = "SOURCE", group = "value", help_heading = "Value")]
    pub(crate) source: Option<String>,
    /// Text, such as a password, at most 64 KiB; or the bytes of a file, such as a keytab or a certificate, at most 256 KiB
    /// [default: as stored; of a new one, text].
    #[arg(long, value_enum, help_heading = "Value")]
    pub(crate) kind: Option<SecretKind>,
    /// Secret manager that keeps it [default: as stored; of a new one, built-in].
    #[arg(long, value_name = "ID")]
    pub(crate) manager: Option<String>,
    /// Name shown to people [default: as stored; of a new one, the identifier].
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Free text [default: as stored].
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Label for people. May be given several times; those given replace all that are stored.
    #[arg(long = "tag", value_name = "K=V", value_parser = variable)]
    pub(crate) tags: Vec<Variable>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "tags")]
    pub(crate) no_tags: bool,
    /// Where it may be used: by tasks of this scope and below [default: as stored; of a new one, your own].
    #[arg(long, value_name = "SCOPE", default_value = "")]
    pub(crate) scope: String,
}

/// What a secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecretKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    File,
}

/// `lictor secret-manager`.
#[derive(Debug, Args)]
pub(crate) struct SecretManagerArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: SecretManagerCommand,
}

/// What to do with secret managers.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretManagerCommand {
    /// Store a secret manager, or replace it as a whole.
    ///
    /// What it authenticates with it holds by reference: secrets of the built-in store. With --from it comes from a document, as
    /// Harness has connectors of the type AwsKms.
    #[command(after_long_help = PUT_MANAGER)]
    Put(Box<PutManagerArgs>),
    /// List secret managers by identifier.
    List,
    /// Show a secret manager.
    Show(WhichArgs),
    /// Delete a secret manager. Refused while it keeps secrets.
    Delete(WhichArgs),
    /// Test a secret manager through an agent: who it is there, whether it may write, whether it may read.
    ///
    /// The three are told apart, because an agent that only runs tasks needs to read and nothing else. Where something is
    /// refused, what may be the reason is listed, the most likely first. Nothing is stored.
    #[command(after_long_help = crate::exit::HELP)]
    Test(TestManagerArgs),
}

/// `lictor secret-manager put`.
// What a flag requires clap forgets when that conflicts with another flag that is there; so those conflicts are told as well.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which_key").args(["key", "key_secret"]),
          group = ArgGroup::new("who").args(["access_key_id", "access_key_id_secret", "machine_role", "role_arn", "oidc_role_arn"]),
          group = ArgGroup::new("access_key").args(["access_key_id", "access_key_id_secret"]),
          group = ArgGroup::new("session").args(["role_arn", "oidc_role_arn"]),
          group = ArgGroup::new("flags").multiple(true).conflicts_with("from").args([
              "key", "key_secret", "region", "endpoint", "sts_endpoint", "access_key_id", "access_key_id_secret",
              "secret_access_key_secret", "machine_role", "role_arn", "external_id", "duration", "oidc_role_arn", "connectivity",
              "agent_tags", "name", "description", "tags"]))]
pub(crate) struct PutManagerArgs {
    /// Identifier: letters, digits, `-`, `_` and `.`; at most 64 characters. With --from: in place of the document's.
    #[arg(value_name = "ID", required_unless_present = "from")]
    pub(crate) identifier: Option<String>,
    /// What it is.
    #[arg(value_name = "TYPE", value_enum, required_unless_present = "from", conflicts_with = "from")]
    pub(crate) kind: Option<ManagerKind>,
    /// Document with one or several connectors of Harness, YAML or JSON: a file, or `-` for standard input.
    #[arg(long, value_name = "FILE", help_heading = "From a document")]
    pub(crate) from: Option<PathBuf>,
    /// Show what would be stored, and store nothing. Needs no control plane.
    #[arg(long, requires = "from", conflicts_with_all = ["flags", "kind"], help_heading = "From a document")]
    pub(crate) dry_run: bool,
    /// The key: its ARN, the ARN of an alias, a key id, or alias/NAME.
    #[arg(long, value_name = "KEY", help_heading = "AWS KMS")]
    pub(crate) key: Option<String>,
    /// The key, as a text secret in the built-in store.
    #[arg(long, value_name = "ID", help_heading = "AWS KMS")]
    pub(crate) key_secret: Option<String>,
    /// Its region, such as eu-central-1 [default: that of the ARN].
    #[arg(long, value_name = "REGION", help_heading = "AWS KMS")]
    pub(crate) region: Option<String>,
    /// URL to use in place of the region's endpoint of KMS.
    #[arg(long, value_name = "URL", help_heading = "AWS KMS")]
    pub(crate) endpoint: Option<String>,
    /// URL to use in place of the region's endpoint of STS.
    #[arg(long, value_name = "URL", help_heading = "AWS KMS")]
    pub(crate) sts_endpoint: Option<String>,
    /// Access key id of an IAM user.
    #[arg(
        long,
        value_name = "AKIA...",
        requires = "secret_access_key_secret",
        help_heading = "Who uses it: an access key"
    )]
    pub(crate) access_key_id: Option<String>,
    /// The access key id, as a text secret in the built-in store.
    #[arg(long, value_name = "ID", requires = "secret_access_key_secret", help_heading = "Who uses it: an access key")]
    pub(crate) access_key_id_secret: Option<String>,
    /// Text secret in the built-in store that holds the secret access key.
    #[arg(
        long,
        value_name = "ID",
        requires = "access_key",
        conflicts_with_all = ["machine_role", "session"],
        help_heading = "Who uses it: an access key"
    )]
    pub(crate) secret_access_key_secret: Option<String>,
    /// The machine that the agent runs on: environment variables, web identity (IRSA), EKS Pod Identity, container credentials,
    /// instance metadata.
    #[arg(long, help_heading = "Who uses it: the agent's machine")]
    pub(crate) machine_role: bool,
    /// Role that the machine's identity assumes.
    #[arg(long, value_name = "ARN", help_heading = "Who uses it: a role assumed by the agent's machine")]
    pub(crate) role_arn: Option<String>,
    /// External id that the role's trust policy asks for.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "role_arn",
        conflicts_with_all = ["access_key", "machine_role", "oidc_role_arn"],
        help_heading = "Who uses it: a role assumed by the agent's machine"
    )]
    pub(crate) external_id: Option<String>,
    /// Role that trusts tokens of the control plane, an OpenID Connect provider for that.
    #[arg(long, value_name = "ARN", help_heading = "Who uses it: a role by OpenID Connect")]
    pub(crate) oidc_role_arn: Option<String>,
    /// Who calls AWS: an agent, or the control plane itself, which then sees the values [default: agent].
    #[arg(
        long,
        value_enum,
        requires = "oidc_role_arn",
        conflicts_with_all = ["access_key", "machine_role", "role_arn"],
        help_heading = "Who uses it: a role by OpenID Connect"
    )]
    pub(crate) connectivity: Option<Connectivity>,
    /// How long a session of the role lasts, 15m to 12h [default: 1h].
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "session",
          conflicts_with_all = ["access_key", "machine_role"])]
    pub(crate) duration: Option<Duration>,
    /// Tag that agents must have to use it: its delegate selectors. May be given several times.
    #[arg(long = "agent-tag", value_name = "TAG", help_heading = "Agents")]
    pub(crate) agent_tags: Vec<String>,
    /// Name shown to people [default: the identifier].
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Free text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Label for people. May be given several times.
    #[arg(long = "tag", value_name = "K=V", value_parser = variable)]
    pub(crate) tags: Vec<Variable>,
    /// Where it may be used: by secrets and tasks of this scope and below [default: as stored; of a new one, your own]. With
    /// --from: whatever the document says of organisation and project.
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<String>,
}

/// Types of secret managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManagerKind {
    /// AWS KMS.
    AwsKms,
}

/// Who calls AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Connectivity {
    /// An agent.
    Agent,
    /// The control plane.
    Platform,
}

/// `lictor secret-manager test`.
#[derive(Debug, Args)]
pub(crate) struct TestManagerArgs {
    /// Which.
    #[arg(value_name = "ID")]
    pub(crate) identifier: String,
    #[command(flatten)]
    pub(crate) selector: SelectorArgs,
    /// How long to follow the test; it goes on without us [default: to its end].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

const PUT_SECRET: &str = "\
Examples:
    lictor secret put web-password --value-file password.txt
    vault-tool read web | lictor secret put web-password --value-file -
    lictor secret put svc-keytab --kind file --value-file svc.keytab --manager corp-kms
    lictor secret put host-ca --source file:/etc/lictor/secrets/host-ca.pem
    lictor secret put web-password --keep-value --tag team=web";

const PUT_MANAGER: &str = "\
Examples:
    lictor secret-manager put corp-kms aws-kms --machine-role --agent-tag aws \\
        --key arn:aws:kms:eu-central-1:111122223333:alias/lictor
    lictor secret put aws-secret-key --value-file secret-access-key
    lictor secret-manager put corp-kms aws-kms --key alias/lictor --region eu-central-1 \\
        --access-key-id AKIAIOSFODNN7EXAMPLE --secret-access-key-secret aws-secret-key
    lictor secret-manager put other-kms aws-kms --key arn:aws:kms:eu-central-1:444455556666:alias/lictor \\
        --role-arn arn:aws:iam::444455556666:role/lictor --external-id from-their-administrator --duration 30m
    lictor secret-manager put corp-kms aws-kms --key arn:aws:kms:eu-central-1:111122223333:alias/lictor \\
        --oidc-role-arn arn:aws:iam::111122223333:role/lictor --connectivity agent
    lictor secret-manager put --from connector.yaml --dry-run";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::Cli;

    fn good(arguments: &[&str]) -> bool {
        Cli::try_parse_from([&["lictor"], arguments].concat()).is_ok()
    }

    #[test]
    fn a_secret_has_one_value_at_most() {
        let put = |flags: &[&str]| good(&[&["secret", "put", "a"], flags].concat());
        assert!(put(&[]) && put(&["--value-file", "-"]) && put(&["--keep-value"]) && put(&["--source", "env:A"]));
        assert!(!put(&["--value-file", "-", "--keep-value"]));
        assert!(!put(&["--value-file", "f", "--source", "env:A"]));
        assert!(!put(&["--keep-value", "--source", "env:A"]));
        assert!(!put(&["--tag", "a=b", "--no-tags"]));
        // A value beside the identifier is none.
        assert!(!put(&["value"]) && !put(&["--value", "value"]));
    }

    #[test]
    fn a_manager_is_one_user_of_one_key() {
        let put = |flags: &[&str]| good(&[&["secret-manager", "put", "m", "aws-kms", "--key", "k"], flags].concat());
        let users: [&[&str]; 5] = [
            &["--access-key-id", "AKIA", "--secret-access-key-secret", "s"],
            &["--access-key-id-secret", "i", "--secret-access-key-secret", "s"],
            &["--machine-role"],
            &["--role-arn", "r", "--external-id", "x", "--duration", "1h"],
            &["--oidc-role-arn", "r", "--connectivity", "platform", "--duration", "15m"],
        ];
        for (at, user) in users.iter().enumerate() {
            assert!(put(user), "{user:?}");
            for other in &users[at + 1..] {
                assert!(!put(&[*user, *other].concat()), "{user:?} {other:?}");
            }
        }
        for wrong in [
            &["--access-key-id", "AKIA"][..],
            &["--secret-access-key-secret", "s"],
            &["--machine-role", "--external-id", "x"],
            &["--machine-role", "--duration", "1h"],
            &["--role-arn", "r", "--connectivity", "agent"],
            &["--role-arn", "r", "--duration", "3600"],
            &["--machine-role", "--key-secret", "k"],
            &["--machine-role", "--dry-run"],
        ] {
            assert!(!put(wrong), "{wrong:?}");
        }
        assert!(!good(&["secret-manager", "put", "m", "--key", "k", "--machine-role"]));
        assert!(!good(&["secret-manager", "put", "m", "vault", "--key", "k", "--machine-role"]));
    }

    #[test]
    fn a_document_stands_alone() {
        let from = |rest: &[&str]| good(&[&["secret-manager", "put", "--from", "f"], rest].concat());
        assert!(from(&[]) && from(&["--dry-run"]) && from(&["m", "--scope", "a/b"]));
        for wrong in
            [&["m", "aws-kms"][..], &["--key", "k"], &["--machine-role"], &["--agent-tag", "t"], &["--tag", "a=b"]]
        {
            assert!(!from(wrong), "{wrong:?}");
        }
    }
}

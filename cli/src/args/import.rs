//! Flags of the commands that read what users of other tools have.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `lictor import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    pub(crate) command: ImportCommand,
}

/// What to read.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Show what inventories of Ansible come to: hosts, credentials that are wanted, what has no meaning here.
    ///
    /// Reads INI and YAML inventories with group_vars and host_vars as ansible-inventory does. Needs no control plane and
    /// changes nothing; runs, evaluates and decrypts nothing. Passwords are never shown. docs/ansible.md has every variable.
    Ansible(AnsibleArgs),
}

/// `lictor import ansible`.
#[derive(Debug, Args)]
pub(crate) struct AnsibleArgs {
    /// Inventories, in their order: files, directories, `web1,web2` with at least one comma, or `-` for standard input, such as
    /// the output of ansible-inventory --list.
    #[arg(value_name = "INVENTORY", required = true)]
    pub(crate) inventories: Vec<String>,
    /// Only hosts of groups, or hosts themselves, that match: names with * and ?, several with commas; !NAME leaves out.
    #[arg(long, value_name = "PATTERN,...", value_delimiter = ',')]
    pub(crate) group: Vec<String>,
    /// Directory of the playbook: its group_vars and host_vars count too, after those of the inventories.
    #[arg(long, value_name = "DIR")]
    pub(crate) playbook_dir: Option<PathBuf>,
    /// User of hosts whose inventory names none, as ansible -u gives it.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Write credentials.yaml for lictor credential import, and lists of hosts for lictor task submit --hosts-file, to this
    /// directory. Files of these names that are there are replaced. No passwords are written.
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,
}

/// `lictor credential import`.
#[derive(Debug, Args)]
pub(crate) struct ImportCredentialsArgs {
    /// The document: YAML or JSON, a file or `-` for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// File with a password. NAME is that of the credential, or of the secret as the document has it, with or without
    /// `account.` or `org.`. May be given several times.
    #[arg(long = "password-file", value_name = "NAME=FILE", value_parser = named_file)]
    pub(crate) password_files: Vec<NamedFile>,
    /// Directory with a file for each password, named as NAME above. Without these flags a password comes from the environment
    /// variable LICTOR_PASSWORD_NAME, in capitals with _ for what is no letter or digit; a single one from LICTOR_PASSWORD.
    #[arg(long, value_name = "DIR")]
    pub(crate) password_dir: Option<PathBuf>,
    /// MIT keytab to store for a Kerberos credential, in place of a password or of a keytab on agents. May be given several
    /// times.
    #[arg(long = "keytab", value_name = "NAME=FILE", value_parser = named_file)]
    pub(crate) keytabs: Vec<NamedFile>,
    /// Keep stored passwords for which none is given; change only the rest.
    #[arg(long)]
    pub(crate) keep_passwords: bool,
    /// Passwords for which none is given are stored secrets of the names in the document, such as my_secret for
    /// account.my_secret.
    #[arg(long, conflicts_with = "keep_passwords")]
    pub(crate) use_secrets: bool,
    /// Where all of them may be used, whatever the document says of organisation and project.
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<String>,
    /// Show what would be stored, and store nothing. Needs no control plane.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A file for something with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
}

/// Parses `NAME=FILE`.
fn named_file(text: &str) -> Result<NamedFile, String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok(NamedFile { name: name.to_owned(), file: file.into() })
        }
        _ => Err("it must look like NAME=FILE".to_owned()),
    }
}

//! `lictor credential import`: documents of Harness become stored credentials.
//!
//! INVARIANT: nothing is sent before everything is known to be good: documents, passwords, keytabs, certificates. No password
//! comes from the document or from the command line.

use std::path::Path;
use std::sync::Arc;

use lictor_import::Mistake;
use lictor_import::harness::{self, Auth, Credential, Wanted};
use lictor_proto::v1;
use serde::Serialize;

use super::connect::ControlPlane;
use super::view::{CredentialView, shortened};
use super::{StoredSecret, keytab, print_list, put_credential};
use crate::args::Output;
use crate::args::control::ServerArgs;
use crate::args::import::{ImportCredentialsArgs, NamedFile};
use crate::console;
use crate::direct::PASSWORD_VARIABLE;
use crate::exit::Exit;
use crate::failure::{Failure, clean};
use crate::input;

/// Reads, checks, and stores unless it is a dry run.
pub(super) async fn run(server: &ServerArgs, args: ImportCredentialsArgs, output: Output) -> Result<Exit, Failure> {
    let prepared = tokio::task::spawn_blocking(move || Prepared::new(args)).await;
    let prepared = prepared.map_err(|error| Failure::local(format!("failed to read the document: {error}")))??;
    for (kind, line) in &prepared.others {
        console::note(&format!("line {line}: a secret of the type {} is passed over", clean(kind)));
    }
    for item in &prepared.items {
        for remark in &item.credential.remarks {
            console::note(&format!("{}: {}", clean(&item.credential.name), clean(remark)));
        }
    }
    if prepared.dry_run {
        let views = prepared.items.iter().map(ItemView::new).collect();
        return print_list(views, "credentials", item_table, output);
    }
    prepared.complete()?;
    let control_plane = ControlPlane::connect(server).await?;
    let mut stored: Vec<CredentialView> = Vec::new();
    for item in prepared.items {
        let name = item.credential.name;
        match put_credential(&control_plane, item.request, item.secret.as_ref()).await {
            Ok(view) => stored.push(view),
            Err(failure) => {
                if !stored.is_empty() {
                    console::note(&format!("{} were stored before {} failed", stored.len(), clean(&name)));
                }
                return Err(Failure { message: format!("credential {name}: {}", failure.message).into(), ..failure });
            }
        }
    }
    let lines = |views: &[CredentialView]| views.iter().map(CredentialView::state_line).collect();
    print_list(stored, "credentials", lines, output)
}

/// Everything that will be sent.
struct Prepared {
    items: Vec<Item>,
    others: Vec<(String, usize)>,
    keep_passwords: bool,
    dry_run: bool,
}

struct Item {
    credential: Credential,
    request: v1::Credential,
    secret: Option<StoredSecret>,
    /// Where its secret comes from, without the secret.
    source: String,
}

impl Prepared {
    fn new(args: ImportCredentialsArgs) -> Result<Self, Failure> {
        let text = input::text("credentials", &args.file, MAX_DOCUMENT_BYTES)?;
        let name: Arc<str> = if args.file == Path::new("-") {
            "standard input".into()
        } else {
            args.file.to_string_lossy().as_ref().into()
        };
        let read = harness::read(&name, &text).map_err(|mistakes| unusable(&mistakes))?;
        let wanted = |credential: &&Credential| matches!(credential.secret, Wanted::Password { .. });
        let mut references: Vec<&Wanted> =
            read.credentials.iter().filter(wanted).map(|credential| &credential.secret).collect();
        references.dedup();
        let only_one = references.len() == 1;
        let mut used = Used::default();
        let mut items = Vec::new();
        for credential in read.credentials {
            items.push(item(credential, &args, only_one, &mut used)?);
        }
        used.check("--password-file", &args.password_files, &used.passwords)?;
        used.check("--keytab", &args.keytabs, &used.keytabs)?;
        Ok(Self { items, others: read.others, keep_passwords: args.keep_passwords, dry_run: args.dry_run })
    }

    /// Every password must be there.
    fn complete(&self) -> Result<(), Failure> {
        let lacks = |item: &&Item| item.lacks_password() && !self.keep_passwords;
        let missing: Vec<String> = self
            .items
            .iter()
            .filter(lacks)
            .take(MAX_TOLD)
            .map(|item| format!("{} ({})", item.credential.name, item.source))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(
            format!("there is no password for: {}", missing.join(", ")),
            "Give --password-file NAME=FILE for each, --password-dir DIR with a file for each, or the environment variables \
             LICTOR_PASSWORD_NAME. Passwords cannot be read from Harness. --use-secrets takes stored secrets of these names, \
             --keep-passwords keeps the passwords that are stored.",
        ))
    }
}

impl Item {
    /// Whether a password is wanted that is not there.
    fn lacks_password(&self) -> bool {
        matches!(self.credential.secret, Wanted::Password { .. })
            && self.secret.is_none()
            && self.request.secret.is_empty()
    }
}

/// A document with mistakes.
pub(super) fn unusable(mistakes: &[Mistake]) -> Failure {
    let told: Vec<String> = mistakes.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    let more = mistakes.len().saturating_sub(MAX_TOLD);
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    Failure::usage(format!("the document cannot be used:\n{}{more}", told.join("\n")), "Correct what is named.")
}

/// Which flags found their credential.
#[derive(Default)]
struct Used {
    passwords: Vec<String>,
    keytabs: Vec<String>,
}

impl Used {
    fn check(&self, flag: &str, given: &[NamedFile], used: &[String]) -> Result<(), Failure> {
        match given.iter().find(|given| !used.contains(&given.name)) {
            None => Ok(()),
            Some(unused) => Err(Failure::usage(
                format!("{flag} {}: no credential of the document wants that", unused.name),
                "The name is that of a credential, or of a secret in the document; --dry-run shows both.",
            )),
        }
    }
}

fn item(
    credential: Credential,
    args: &ImportCredentialsArgs,
    only_one: bool,
    used: &mut Used,
) -> Result<Item, Failure> {
    let mut request = request(&credential, args.scope.as_deref())?;
    let is_kerberos = matches!(credential.auth, Auth::Kerberos | Auth::Negotiate);
    let mut names = vec![credential.name.clone()];
    match &credential.secret {
        Wanted::Password { reference } => {
            names.extend(
                [Some(reference.as_str()), harness::reference_name(reference)].into_iter().flatten().map(str::to_owned),
            );
        }
        Wanted::KeytabOnAgent { path } => names.push(path.clone()),
        Wanted::CacheOnAgent => {}
    }
    if let Some(given) = args.keytabs.iter().find(|given| names.contains(&given.name)) {
        if !is_kerberos {
            return Err(Failure::usage(
                format!("--keytab {}: the credential is not for Kerberos", given.name),
                "Give --password-file.",
            ));
        }
        used.keytabs.push(given.name.clone());
        request.secret_kind = v1::CredentialSecretKind::Unspecified.into();
        request.agent_path.clear();
        let source = format!("the keytab {}", given.file.display());
        return Ok(Item { credential, request, secret: Some(StoredSecret::Keytab(keytab(&given.file)?)), source });
    }
    let Wanted::Password { reference } = &credential.secret else {
        let source = match &credential.secret {
            Wanted::KeytabOnAgent { path } => format!("the keytab {path} on agents"),
            _ => "the credential cache of agents".to_owned(),
        };
        return Ok(Item { credential, request, secret: None, source });
    };
    let mut found = None;
    if let Some(given) = args.password_files.iter().find(|given| names.contains(&given.name)) {
        used.passwords.push(given.name.clone());
        let secret = input::secret("password", Some(&given.file), "")?;
        found = secret.map(|secret| (secret, given.file.display().to_string()));
    }
    if let (None, Some(directory)) = (&found, &args.password_dir) {
        let paths = names.iter().filter(|name| !name.contains(['/', '<'])).map(|name| directory.join(name));
        if let Some(path) = paths.into_iter().find(|path| path.is_file()) {
            found = input::secret("password", Some(&path), "")?.map(|secret| (secret, path.display().to_string()));
        }
    }
    if found.is_none() {
        let mut variables: Vec<String> = names.iter().map(|name| variable(name)).collect();
        if only_one {
            variables.push(PASSWORD_VARIABLE.to_owned());
        }
        for variable in variables {
            if let Some(secret) = input::secret("password", None, &variable)? {
                found = Some((secret, variable));
                break;
            }
        }
    }
    let (secret, source) = match found {
        Some((secret, source)) => (Some(StoredSecret::Password(secret)), source),
        None if args.use_secrets => {
            // Identifiers have no `$` here.
            request.secret = harness::reference_name(reference).unwrap_or_default().replace('$', "_");
            let source = format!("the secret {}", request.secret);
            (None, source)
        }
        None => (None, format!("wanted: {reference}")),
    };
    Ok(Item { credential, request, secret, source })
}

/// `LICTOR_PASSWORD_ACCOUNT_MY_SECRET` for `account.my_secret`.
fn variable(name: &str) -> String {
    let capital = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{PASSWORD_VARIABLE}_{}", name.chars().map(capital).collect::<String>())
}

/// All but the secret.
fn request(credential: &Credential, scope: Option<&str>) -> Result<v1::Credential, Failure> {
    let own = &credential.own;
    let ca_pem = match &own.host_ca_file {
        Some(path) if !credential.skip_cert_checks => {
            input::text("certificates", Path::new(path), input::MAX_PEM_BYTES)?
        }
        _ => String::new(),
    };
    let kerberos = v1::KerberosSettings {
        realm: credential.realm.clone(),
        spn_service: own.spn_service.clone().unwrap_or_default(),
        spn_host: own.spn_host.clone().unwrap_or_default(),
        delegate: own.delegate,
        fresh_tickets: own.fresh_tickets,
        ..v1::KerberosSettings::default()
    };
    let (secret_kind, agent_path) = match &credential.secret {
        Wanted::Password { .. } => (v1::CredentialSecretKind::Unspecified, String::new()),
        Wanted::KeytabOnAgent { path } => (v1::CredentialSecretKind::KeytabOnAgent, path.clone()),
        Wanted::CacheOnAgent => (v1::CredentialSecretKind::CacheOnAgent, String::new()),
    };
    let connection = v1::ConnectionSettings {
        scheme: if credential.use_ssl { v1::Scheme::Https } else { v1::Scheme::Http }.into(),
        port: credential.port.into(),
        path: own.path.clone().unwrap_or_default(),
        auth: match credential.auth {
            Auth::Ntlm => v1::AuthKind::Ntlm,
            Auth::Kerberos => v1::AuthKind::Kerberos,
            Auth::Basic => v1::AuthKind::Basic,
            Auth::Negotiate => v1::AuthKind::Negotiate,
        }
        .into(),
        ca_pem,
        ca_secret: String::new(),
        skip_cert_check: Some(credential.skip_cert_checks),
        message_encryption: match own.message_encryption.as_deref() {
            Some("auto") => v1::MessageEncryption::Auto,
            Some("always") => v1::MessageEncryption::Always,
            Some("never") => v1::MessageEncryption::Never,
            _ => v1::MessageEncryption::Unspecified,
        }
        .into(),
        send_channel_bindings: own.send_cbt,
        allow_basic_over_http: own.allow_basic_over_http,
        kerberos: (kerberos != v1::KerberosSettings::default()).then_some(kerberos),
    };
    Ok(v1::Credential {
        name: credential.name.clone(),
        username: credential.username.clone(),
        domain: credential.domain.clone(),
        connection: Some(connection),
        no_profile: credential.use_no_profile,
        description: credential.description.clone(),
        scope: scope.unwrap_or(&credential.scope).to_owned(),
        secret_kind: secret_kind.into(),
        agent_path,
        ..v1::Credential::default()
    })
}

/// What would be stored.
#[derive(Debug, Serialize)]
struct ItemView {
    #[serde(flatten)]
    credential: CredentialView,
    /// Where the secret comes from.
    secret: String,
    /// Whether it is there.
    secret_found: bool,
    remarks: Vec<String>,
    #[serde(skip)]
    row: Vec<String>,
}

impl ItemView {
    fn new(item: &Item) -> Self {
        let credential = &item.credential;
        let user = match credential.domain.as_str() {
            "" => credential.username.clone(),
            domain => format!("{domain}\\{}", credential.username),
        };
        let auth = match credential.auth {
            Auth::Ntlm => "ntlm",
            Auth::Kerberos => "kerberos",
            Auth::Basic => "basic",
            Auth::Negotiate => "negotiate",
        };
        let scheme = if credential.use_ssl { "https" } else { "http" };
        let certificate = match (credential.use_ssl, credential.skip_cert_checks) {
            (false, _) => "",
            (true, false) => "checked",
            (true, true) => "not checked",
        };
        let row = vec![
            credential.name.clone(),
            user,
            auth.to_owned(),
            format!("{scheme}:{}", credential.port),
            certificate.to_owned(),
            if credential.use_no_profile { "none".to_owned() } else { "loaded".to_owned() },
            item.request.scope.clone(),
            shortened(&item.source),
        ];
        Self {
            credential: CredentialView::from(kind_shown(item)),
            secret: item.source.clone(),
            secret_found: !item.lacks_password(),
            remarks: credential.remarks.clone(),
            row,
        }
    }
}

/// The credential as it will be stored: with the kind of its secret.
fn kind_shown(item: &Item) -> v1::Credential {
    let mut shown = item.request.clone();
    if matches!(item.secret, Some(StoredSecret::Keytab(_))) {
        shown.secret_kind = v1::CredentialSecretKind::Keytab.into();
    }
    shown
}

fn item_table(views: &[ItemView]) -> String {
    let header = ["name", "user", "auth", "connection", "certificate", "profile", "scope", "secret"];
    console::table(&header, views.iter().map(|view| view.row.clone()))
}

/// Largest document.
pub(super) const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;
const MAX_TOLD: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_secrets_take_the_place_of_passwords_that_are_not_given() {
        use clap::Parser as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        let auth = "auth: {type: NTLM, username: svc-web, domain: CORP, useSSL: true, password: NAME}\n";
        let credential = |name: &str, secret: &str| format!("---\nname: {name}\n{}", auth.replace("NAME", secret));
        let text = credential("web", "account.web_pass") + &credential("db", "'<+secrets.getValue(\"org.db$pass\")>'");
        std::fs::write(file.path(), text).unwrap();
        let given = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(given.path(), "Marker-given").unwrap();
        let given = format!("web={}", given.path().display());
        let prepared = |flags: &[&str]| {
            let words = ["lictor", "credential", "import", file.path().to_str().unwrap()];
            match crate::args::Cli::try_parse_from(words.iter().chain(flags)).unwrap().command {
                crate::args::Command::Credential(crate::args::control::CredentialArgs {
                    command: crate::args::control::CredentialCommand::Import(args),
                    ..
                }) => Prepared::new(args).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let secrets =
            |prepared: &Prepared| prepared.items.iter().map(|item| item.request.secret.clone()).collect::<Vec<_>>();
        let all = prepared(&["--use-secrets"]);
        assert_eq!(secrets(&all), ["web_pass", "db_pass"]);
        all.complete().unwrap();
        let mixed = prepared(&["--use-secrets", "--password-file", &given]);
        assert_eq!(secrets(&mixed), ["", "db_pass"]);
        assert!(mixed.items[0].secret.is_some() && mixed.complete().is_ok());
        assert!(prepared(&[]).complete().is_err());
    }

    #[test]
    fn variables_are_named_after_secrets() {
        assert_eq!(variable("account.my_secret"), "LICTOR_PASSWORD_ACCOUNT_MY_SECRET");
        assert_eq!(variable("svc-web"), "LICTOR_PASSWORD_SVC_WEB");
    }
}

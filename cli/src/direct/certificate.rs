//! `lictor winrm make-client-cert`: a client certificate for a local account, and what to do with it on the host.
//!
//! The key goes into a file that nobody else may read, and nowhere else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use lictor_winrm::certificate::{ClientCertificate, KeyType, Request};
use serde::Serialize;

use crate::args::Output;
use crate::args::winrm::{ClientKeyType, MakeClientCertArgs};
use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;

pub(super) async fn make(args: MakeClientCertArgs, output: Output) -> Result<Exit, Failure> {
    let task = tokio::task::spawn_blocking(move || written(&args));
    let made = task.await.map_err(|error| Failure::local(error.to_string()))??;
    match output {
        Output::Json => console::print_json(&made)?,
        Output::Text => console::print(&made.to_text())?,
    }
    Ok(Exit::SUCCESS)
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    certificate: String,
    key: String,
    user: String,
    upn: String,
    thumbprint: String,
    not_after: String,
    /// PowerShell for an administrator of the host, beside whom the certificate lies.
    on_the_host: String,
}

fn written(args: &MakeClientCertArgs) -> Result<Made, Failure> {
    let key_type = match args.key_type {
        ClientKeyType::Rsa2048 => KeyType::Rsa2048,
        ClientKeyType::Rsa3072 => KeyType::Rsa3072,
        ClientKeyType::EcdsaP256 => KeyType::EcdsaP256,
    };
    let request = Request::new(&args.user, args.upn.as_deref(), args.days, key_type)
        .map_err(|error| Failure::usage(error.to_string(), "Certificates are for local accounts, by name alone."))?;
    let (certificate, key) = (args.out_dir.join("cert.pem"), args.out_dir.join("key.pem"));
    // Before anything is made: a key that is in use must not get lost.
    for path in [&certificate, &key] {
        if !args.force && path.symlink_metadata().is_ok() {
            return Err(Failure::usage(
                format!("{} is there already", path.display()),
                "Give another --out-dir, or --force to replace both files.",
            ));
        }
    }
    let unwritten = |path: &Path, error: &io::Error| {
        Failure::usage(
            format!("failed to write {}: {error}", path.display()),
            "Give a directory that you may write to.",
        )
    };
    fs::create_dir_all(&args.out_dir).map_err(|error| unwritten(&args.out_dir, &error))?;
    let made: ClientCertificate =
        request.make().map_err(|error| Failure::local(format!("failed to make the certificate: {error}")))?;
    write(&key, 0o600, &made.key_pem, args.force).map_err(|error| unwritten(&key, &error))?;
    write(&certificate, 0o644, made.certificate_pem.as_bytes(), args.force)
        .map_err(|error| unwritten(&certificate, &error))?;
    Ok(Made {
        certificate: certificate.display().to_string(),
        key: key.display().to_string(),
        user: args.user.clone(),
        upn: request.upn().to_owned(),
        on_the_host: on_the_host(&args.user, request.upn(), &made.thumbprint),
        thumbprint: made.thumbprint,
        not_after: made.not_after,
    })
}

/// Writes a new file. With `replace` what was there is taken away whole: nobody sees a half, or the new key in a file that others
/// may read.
fn write(path: &Path, mode: u32, bytes: &[u8], replace: bool) -> io::Result<()> {
    let new = path.with_extension("pem.new");
    let place = if replace { new.as_path() } else { path };
    if replace {
        match fs::remove_file(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(place)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if replace { fs::rename(place, path) } else { Ok(()) }
}

/// The commands for the host. They ask for the account's password, which Windows keeps for logging it on.
fn on_the_host(user: &str, upn: &str, thumbprint: &str) -> String {
    format!(
        "Set-Item -Path WSMan:\\localhost\\Service\\Auth\\Certificate -Value $true\n\
         Import-Certificate -FilePath .\\cert.pem -CertStoreLocation Cert:\\LocalMachine\\Root\n\
         Import-Certificate -FilePath .\\cert.pem -CertStoreLocation Cert:\\LocalMachine\\TrustedPeople\n\
         $credential = Get-Credential -UserName {user} -Message 'Password of the local account'\n\
         New-Item -Path WSMan:\\localhost\\ClientCertificate -Subject {upn} -URI * -Issuer {thumbprint} -Credential \
         $credential -Force\n",
        user = quoted(user),
        upn = quoted(upn),
    )
}

/// A literal of PowerShell, which takes several quotation marks for an apostrophe.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

impl Made {
    fn to_text(&self) -> String {
        let Self { certificate, key, user, upn, thumbprint, not_after, on_the_host } = self;
        let commands: String = on_the_host.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "certificate  {certificate}\nprivate key  {key} (not encrypted: whoever reads it is {user})\nfor          {upn}\n\
             thumbprint   {thumbprint}\nvalid until  {not_after}\n\n\
             On the host, in an elevated PowerShell, in the directory that cert.pem was copied to:\n\n{commands}\n\
             The account must exist there, and an https listener: docs/windows-host.md. lictor itself cannot authenticate with a\n\
             certificate yet; Ansible and others can.\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(directory: &Path, force: bool) -> MakeClientCertArgs {
        MakeClientCertArgs {
            user: "o'neil".into(),
            upn: None,
            out_dir: directory.into(),
            days: 30,
            key_type: ClientKeyType::EcdsaP256,
            force,
        }
    }

    #[test]
    fn the_key_is_for_its_owner_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("deeper");
        let made = written(&args(&place, false)).unwrap();
        let key = fs::read(&made.key).unwrap();
        assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
        for missing in [&made.key, &made.certificate] {
            // One of the two is enough to refuse.
            let refused = written(&args(&place, false)).unwrap_err();
            assert!(refused.message.contains("is there already"), "{refused:?}");
            assert_eq!(fs::read(&made.key).unwrap(), key);
            fs::rename(missing, place.join("away")).unwrap();
            assert!(written(&args(&place, false)).is_err());
            fs::rename(place.join("away"), missing).unwrap();
        }
        // Others could read the file that is replaced.
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o644)).unwrap();
        let again = written(&args(&place, true)).unwrap();
        assert_ne!(fs::read(&again.key).unwrap(), key);
        assert_eq!(fs::metadata(&again.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 2);
    }

    #[test]
    fn names_are_quoted_for_the_host_and_the_key_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let made = written(&args(directory.path(), false)).unwrap();
        assert!(
            made.on_the_host.contains("-Subject 'o''neil@localhost'") && made.on_the_host.contains(&made.thumbprint)
        );
        assert!(!made.to_text().contains("PRIVATE KEY"));
    }
}

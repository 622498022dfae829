//! The authorities that are trusted beside the system's for HTTPS to Windows hosts: reads the files of `ca_files` and gives them
//! to the WinRM client, once, before the first connection.
//!
//! Says nothing about the control plane, which is checked against its own authority. Called by `app` and `check`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use lictor_winrm::connection::{FurtherError, trust_further};

/// Why the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthoritiesError {
    #[error("ca_files: failed to read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("ca_files: {} {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error("ca_files")]
    Further(#[from] FurtherError),
    #[error("the files of ca_files were not read to their end")]
    Task,
}

/// Reads the files and trusts what is in them.
pub(crate) async fn trust(paths: &[PathBuf]) -> Result<(), AuthoritiesError> {
    if paths.is_empty() {
        return Ok(());
    }
    let paths = paths.to_vec();
    let count = tokio::task::spawn_blocking(move || {
        let pem = read(&paths)?;
        // A directory that is mounted for later may be empty.
        if pem.is_empty() { Ok(0) } else { trust_further(&pem).map_err(AuthoritiesError::from) }
    })
    .await
    .map_err(|_| AuthoritiesError::Task)??;
    tracing::info!(count, "Authorities are trusted beside the system's for hosts");
    Ok(())
}

/// All certificates in these files and directories, as PEM. Waits for the disk. A file that is named must hold some; in a
/// directory, what holds none is passed over.
pub(crate) fn read(paths: &[PathBuf]) -> Result<String, AuthoritiesError> {
    let mut pem = String::new();
    for path in paths {
        let failed = |source| AuthoritiesError::Read { path: path.clone(), source };
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            let mut files = Vec::new();
            for entry in std::fs::read_dir(path).map_err(failed)?.take(MAX_FILES) {
                let file = entry.map_err(failed)?;
                // What a ConfigMap's volume is made of behind the scenes.
                if !file.file_name().as_encoded_bytes().starts_with(b".") && file.path().is_file() {
                    files.push(file.path());
                }
            }
            files.sort();
            for file in files {
                pem.extend(certificates(&file)?);
            }
        } else {
            let found = certificates(path)?;
            if found.is_empty() {
                let problem = "holds no PEM certificate (BEGIN CERTIFICATE)".to_owned();
                return Err(AuthoritiesError::Content { path: path.clone(), problem });
            }
            pem.extend(found);
        }
    }
    if !pem.is_empty() {
        check(&pem, paths)?;
    }
    Ok(pem)
}

/// The certificates in a file, and nothing else of it: some files hold their keys or texts as well.
fn certificates(path: &Path) -> Result<Vec<String>, AuthoritiesError> {
    let failed = |source| AuthoritiesError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        let problem = format!("is longer than {} MiB", MAX_FILE >> 20);
        return Err(AuthoritiesError::Content { path: path.to_owned(), problem });
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Vec::new();
    let mut rest = text.as_ref();
    while let Some(start) = rest.find(BEGIN) {
        let Some(length) = rest[start..].find(END) else { break };
        let end = start + length + END.len();
        found.push(format!("{}\n", &rest[start..end]));
        rest = &rest[end..];
    }
    Ok(found)
}

fn check(pem: &str, paths: &[PathBuf]) -> Result<(), AuthoritiesError> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let sound = certificate.is_ok_and(|der| x509_parser::parse_x509_certificate(&der).is_ok());
        if !sound {
            let path = paths.first().cloned().unwrap_or_default();
            let problem = "or a file beside it holds a certificate that cannot be read".to_owned();
            return Err(AuthoritiesError::Content { path, problem });
        }
    }
    Ok(())
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The system's bundles have 200 KiB.
const MAX_FILE: u64 = 4 << 20;
/// In one directory.
const MAX_FILES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem()
    }

    #[test]
    fn files_and_directories_give_their_certificates_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("bundle");
        std::fs::create_dir(&bundle).unwrap();
        let one = certificate("one.example");
        std::fs::write(bundle.join("ca.bundle"), format!("a comment\n{one}{}", certificate("two.example"))).unwrap();
        std::fs::write(bundle.join("README"), "no certificate").unwrap();
        std::fs::write(bundle.join(".hidden"), &one).unwrap();
        let single = directory.path().join("single.pem");
        std::fs::write(&single, format!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{one}"))
            .unwrap();
        let pem = read(&[bundle.clone(), single]).unwrap();
        assert_eq!(pem.matches(BEGIN).count(), 3);
        assert!(!pem.contains("PRIVATE") && !pem.contains("comment"));

        let empty = directory.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert_eq!(read(&[empty]).unwrap(), "");
        for (path, word) in
            [(bundle.join("README"), "no PEM certificate"), (directory.path().join("x"), "failed to read")]
        {
            assert!(read(&[path]).unwrap_err().to_string().contains(word));
        }
        let broken = directory.path().join("broken.pem");
        std::fs::write(&broken, format!("{BEGIN}\nAAAA\n{END}\n")).unwrap();
        assert!(read(&[broken]).unwrap_err().to_string().contains("cannot be read"));
    }
}

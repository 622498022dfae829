//! What of the pod's environment is the bootstrap script, what is secret, and what may stay in the environment of this
//! process and of others.
//!
//! It must never print a value. Called by `bootstrap`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize as _, Zeroizing};

use crate::config::JOIN_TOKEN_VARIABLE;
use crate::config::secrets::VARIABLE_PREFIX;

/// The environment, taken apart.
#[derive(Default)]
pub(super) struct Pod {
    /// What may be seen.
    pub(super) plain: Vec<(OsString, OsString)>,
    /// What may not, by name.
    pub(super) secrets: Vec<(String, String)>,
    /// Scripts, by the name of the variable.
    texts: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
    /// Files with scripts, by the name of the variable.
    files: Vec<(&'static str, PathBuf)>,
}

/// A script, and where it came from.
pub(super) struct Script {
    pub(super) origin: String,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Pod {
    /// Takes the environment apart.
    pub(super) fn of(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut pod = Self::default();
        for (name, value) in environment {
            if let Some(text) = TEXTS.iter().find(|text| name == **text) {
                pod.texts.push((text, Zeroizing::new(value.into_vec())));
            } else if let Some(file) = FILES.iter().find(|file| name == **file) {
                pod.files.push((file, PathBuf::from(value)));
            } else {
                pod.take(name, value);
            }
        }
        pod.texts.retain(|(_, text)| !text.trim_ascii().is_empty());
        pod.files.retain(|(_, file)| !file.as_os_str().is_empty());
        pod
    }

    fn take(&mut self, name: OsString, value: OsString) {
        match (name.to_str(), value.to_str()) {
            (Some(text), Some(secret)) if is_secret(text) => {
                self.secrets.push((text.to_owned(), secret.to_owned()));
                value.into_vec().zeroize();
            }
            // No setting of ours is anything but Unicode, and no secret stays.
            (Some(text), None) if is_secret(text) => value.into_vec().zeroize(),
            (Some(text), Some(url)) if PROXIES.contains(&text) => match without_user(url) {
                Some(bare) => {
                    self.secrets.push((text.to_owned(), url.to_owned()));
                    self.plain.push((name, bare.into()));
                }
                None => self.plain.push((name, value)),
            },
            _ => self.plain.push((name, value)),
        }
    }

    /// Whether anything is in it that may not be seen.
    pub(super) fn is_secret(&self) -> bool {
        !self.secrets.is_empty() || !self.texts.is_empty()
    }

    /// The one script that is given.
    ///
    /// # Errors
    /// More than one is given, or the one cannot be read.
    pub(super) fn script(&self, file: Option<&Path>) -> Result<Option<Script>, String> {
        let texts = self.texts.iter().map(|(name, _)| *name);
        let files = self.files.iter().map(|(name, _)| *name);
        let given: Vec<&str> = texts.chain(files).chain(file.map(|_| "bootstrap.script_file")).collect();
        if given.len() > 1 {
            return Err(format!("{} are given; give one bootstrap script", given.join(" and ")));
        }
        let Some(origin) = given.first().map(|name| (*name).to_owned()) else { return Ok(None) };
        let bytes = match (self.texts.first(), self.files.first().map(|(_, file)| file.as_path()).or(file)) {
            (Some((_, text)), _) => text.clone(),
            (None, Some(path)) => read(path).map_err(|error| format!("{origin}: {}: {error}", path.display()))?,
            (None, None) => return Ok(None),
        };
        if bytes.len() > MAX_BYTES {
            return Err(format!("{origin}: the bootstrap script is longer than 1 MiB"));
        }
        let empty = bytes.trim_ascii().is_empty();
        Ok((!empty).then_some(Script { origin, bytes }))
    }
}

/// Secret settings and secrets for tasks, whose names say nothing else.
pub(super) fn is_secret(name: &str) -> bool {
    let ours = name.starts_with("LICTOR_AGENT_")
        && ["_PASSWORD", "_TOKEN", "_SECRET"].iter().any(|ending| name.ends_with(ending));
    ours || name.starts_with(VARIABLE_PREFIX) || name == JOIN_TOKEN_VARIABLE || SECRETS.contains(&name)
}

/// Whether a name is one of the script's sources.
pub(super) fn is_source(name: &str) -> bool {
    TEXTS.contains(&name) || FILES.contains(&name)
}

/// The value of a variable, when it is Unicode.
pub(super) fn pair((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

/// Whether a name is among these.
pub(super) fn has(environment: &[(OsString, OsString)], name: &OsStr) -> bool {
    environment.iter().any(|(known, _)| known == name)
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    // One byte more tells a script that is too long from one that just fits. Never reallocated, which would leave
    // copies.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The URL without user name and password, when it has any.
pub(super) fn without_user(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    let (_, host) = authority.rsplit_once('@')?;
    let separator = if scheme.is_empty() { "" } else { "://" };
    Some(format!("{scheme}{separator}{host}{tail}"))
}

/// The script itself.
const TEXTS: [&str; 2] = ["INIT_SCRIPT", "HARNESS_INIT_SCRIPT"];
/// Files that hold it.
const FILES: [&str; 2] = ["INIT_SCRIPT_PATH", "HARNESS_INIT_SCRIPT_PATH"];
const SECRETS: &[&str] = &[
    "DELEGATE_TOKEN",
    "HARNESS_DELEGATE_TOKEN",
    "ACCOUNT_SECRET",
    "UPGRADER_TOKEN",
    "PROXY_PASSWORD",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
/// Their URLs may hold a password.
pub(super) const PROXIES: &[&str] =
    &["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "LICTOR_AGENT_PROXY__URL"];
/// Far more than anybody writes by hand; the kernel lets 128 KiB through in one variable.
const MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(pairs: &[(&str, &str)]) -> Pod {
        Pod::of(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn two_scripts_are_named_and_refused() {
        let both = pod(&[("INIT_SCRIPT", "true"), ("HARNESS_INIT_SCRIPT_PATH", "/x")]);
        let error = both.script(None).err().unwrap();
        assert!(error.contains("INIT_SCRIPT and HARNESS_INIT_SCRIPT_PATH"), "{error}");
        let error = pod(&[("INIT_SCRIPT", "true")]).script(Some(Path::new("/x"))).err().unwrap();
        assert!(error.contains("INIT_SCRIPT and bootstrap.script_file"), "{error}");
    }

    #[test]
    fn an_empty_script_is_none() {
        assert!(pod(&[("INIT_SCRIPT", " \n"), ("INIT_SCRIPT_PATH", "")]).script(None).unwrap().is_none());
        let script = pod(&[("INIT_SCRIPT", ""), ("HARNESS_INIT_SCRIPT", "id")]).script(None).unwrap().unwrap();
        assert_eq!((script.origin.as_str(), script.bytes.as_slice()), ("HARNESS_INIT_SCRIPT", &b"id"[..]));
    }

    #[test]
    fn a_file_is_bounded_and_must_be_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'#'; MAX_BYTES]).unwrap();
        assert_eq!(pod(&[]).script(Some(file.path())).unwrap().unwrap().bytes.len(), MAX_BYTES);
        std::fs::write(file.path(), vec![b'#'; MAX_BYTES + 1]).unwrap();
        let error = pod(&[]).script(Some(file.path())).err().unwrap();
        assert!(error.contains("longer than 1 MiB"), "{error}");
        let error = pod(&[("INIT_SCRIPT_PATH", "/nowhere/x")]).script(None).err().unwrap();
        assert!(error.contains("INIT_SCRIPT_PATH: /nowhere/x: "), "{error}");
    }

    #[test]
    fn secrets_leave_the_environment() {
        let pod = pod(&[
            ("LICTOR_AGENT_JOIN_TOKEN", "a"),
            ("LICTOR_AGENT_JOIN_TOKEN_FILE", "/f"),
            ("DELEGATE_TOKEN", "b"),
            ("PROXY_PASSWORD", "c"),
            ("LICTOR_SECRET_WEB", "d"),
            ("HTTPS_PROXY", "http://user:secret@proxy:3128/x"),
            ("http_proxy", "http://proxy:3128"),
            ("HOME", "/root"),
        ]);
        let names: Vec<&str> = pod.secrets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["LICTOR_AGENT_JOIN_TOKEN", "DELEGATE_TOKEN", "PROXY_PASSWORD", "LICTOR_SECRET_WEB", "HTTPS_PROXY"]
        );
        let plain: Vec<(&str, &str)> =
            pod.plain.iter().map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap())).collect();
        assert_eq!(
            plain,
            [
                ("LICTOR_AGENT_JOIN_TOKEN_FILE", "/f"),
                ("HTTPS_PROXY", "http://proxy:3128/x"),
                ("http_proxy", "http://proxy:3128"),
                ("HOME", "/root"),
            ]
        );
    }
}

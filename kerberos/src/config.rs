//! Where Kerberos gets its settings: `krb5.conf` files, with everything they include, or the settings that a program declares
//! itself, read strictly and checked before anything is asked of a KDC.
//!
//! A [`Configuration`] is one state of those settings. Reading one reports every mistake at once, each with its file and line,
//! and keeps what merely looks wrong as warnings. [`Watch`] holds the current one and follows the files. The bytes may come from
//! anybody who can write a ConfigMap: everything is bounded, and nothing in it makes us read but what `include` and `includedir`
//! name. No secret is ever in it, so texts and names may appear in errors and logs.

mod check;
mod declared;
mod disk;
mod mount;
mod profile;
mod watch;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use krb5::Krb5Conf;

pub use self::check::Kdc;
pub use self::declared::{Declared, Realm};
pub use self::watch::Watch;

use self::check::Kdcs;
use self::disk::Disk;
use self::profile::{Profile, Remarks, Value, relations};

/// Where the settings are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Where MIT's tools look: the files that `KRB5_CONFIG` lists, else `/etc/krb5.conf`. Files that are not there count as
    /// empty, with a warning; DNS may do without them.
    System,
    /// This file or directory, which must be there.
    File(PathBuf),
    /// The program's own settings.
    Declared(Declared),
}

/// One state of the settings, free of mistakes.
#[derive(Debug)]
pub struct Configuration {
    profile: Profile,
    krb5: Krb5Conf,
    text: String,
    kdcs: Kdcs,
    warnings: Vec<Warning>,
    /// The files that were read, in order.
    files: Vec<PathBuf>,
    /// Realms that anything names, as they are written.
    realms: Vec<String>,
    /// Realms that were asked for in another case, so that each is warned of once.
    mapped: Mutex<BTreeSet<String>>,
}

/// Something about a configuration, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The file; none for what belongs to no file.
    pub file: Option<PathBuf>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// What it is.
    pub text: String,
}

/// What probably means something else than its author thinks.
pub type Warning = Remark;

/// What keeps a setting from being used at all.
pub type Mistake = Remark;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What was read is wrong. All that is wrong is here.
    #[error("the Kerberos settings have {}: {}", count(.0.len()), join(.0))]
    Mistakes(Vec<Mistake>),
    /// The declared settings could not be written for other programs.
    #[error("failed to write the Kerberos settings to {path}", path = .path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ConfigError {
    /// Every mistake, one at least unless something else failed.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Mistakes(mistakes) => mistakes,
            Self::Write { .. } => &[],
        }
    }
}

/// Why a name is no realm that can be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RealmError {
    /// Realms that differ in nothing but case, none of them written like this.
    #[error("the realm {asked} can be any of {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// What is there.
        candidates: Vec<String>,
    },
    /// Empty, or with characters that no realm has.
    #[error("{0:?} is no name of a realm")]
    Invalid(String),
}

impl Configuration {
    /// Reads `source` and checks it. This waits for the disk: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// Every mistake in it.
    pub fn load(source: &Source) -> Result<Self, ConfigError> {
        Self::load_from(source, std::env::var_os("KRB5_CONFIG").as_deref(), &mut Disk::default())
    }

    /// Checks a text as if it were the file `name`. It can include nothing.
    ///
    /// # Errors
    ///
    /// Every mistake in it.
    pub fn parse(text: &str, name: &Path) -> Result<Self, ConfigError> {
        let mut profile = Profile::default();
        let mut remarks = Remarks::default();
        profile.read(name, text.as_bytes(), None, &mut remarks);
        Self::checked(profile, remarks)
    }

    fn load_from(source: &Source, variable: Option<&OsStr>, disk: &mut Disk) -> Result<Self, ConfigError> {
        let (paths, needed) = match source {
            Source::Declared(declared) => return Self::declared(declared),
            Source::File(path) => (vec![path.clone()], true),
            Source::System => {
                let list = variable.map_or_else(|| OsString::from(krb5::config::DEFAULT_CONFIG_PATH), OsStr::to_owned);
                (std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(), false)
            }
        };
        let mut profile = Profile::default();
        let mut remarks = Remarks::default();
        for path in &paths {
            let files = if disk.is_directory(path) { disk.list(path) } else { Ok(vec![path.clone()]) };
            let files = files.unwrap_or_else(|error| {
                remarks.mistakes.push(Remark::of(path, error.to_string()));
                Vec::new()
            });
            for file in files {
                match disk.read(&file) {
                    Ok(text) => profile.read(&file, &text, Some(disk), &mut remarks),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => {
                        remarks.warnings.push(Remark::of(&file, "this file is not there".to_owned()));
                    }
                    Err(error) => remarks.mistakes.push(Remark::of(&file, error.to_string())),
                }
            }
        }
        for file in mount::mounted_files(disk.paths()) {
            let text = "this file is mounted by itself (a Kubernetes subPath mount?) and never changes while the program runs; mount \
                        the whole directory, and set KRB5_CONFIG to the file in it";
            remarks.warnings.push(Remark::of(&file, text.to_owned()));
        }
        let files = disk.read_files().to_vec();
        Self::checked(profile, remarks).map(|configuration| Self { files, ..configuration })
    }

    fn declared(declared: &Declared) -> Result<Self, ConfigError> {
        let without_place = |text| Remark { file: None, line: None, text };
        let text = declared
            .text()
            .map_err(|mistakes| ConfigError::Mistakes(mistakes.into_iter().map(without_place).collect()))?;
        let mut profile = Profile::default();
        let mut remarks = Remarks::default();
        profile.read(Path::new(""), text.as_bytes(), None, &mut remarks);
        Self::checked(profile, remarks).map_err(ConfigError::without_places).map(|mut configuration| {
            // Lines of a text that nobody wrote help nobody; the remarks name the settings.
            for warning in &mut configuration.warnings {
                (warning.file, warning.line) = (None, None);
            }
            // What is written for others keeps its comment.
            configuration.text = text;
            configuration
        })
    }

    fn checked(mut profile: Profile, mut remarks: Remarks) -> Result<Self, ConfigError> {
        let kdcs = check::check(&mut profile, &mut remarks);
        if !remarks.mistakes.is_empty() {
            return Err(ConfigError::Mistakes(remarks.mistakes));
        }
        let text = profile.text(&[]);
        // Ours is the stricter reader, so this is only for what the crate might learn to refuse.
        let krb5 = Krb5Conf::parse(&text)
            .map_err(|error| ConfigError::Mistakes(vec![Remark { file: None, line: None, text: error.to_string() }]))?;
        let mut realms: Vec<String> = Vec::new();
        let named = profile.section("realms").iter().map(|node| node.name.as_str());
        let default = relations(profile.section("libdefaults"), "default_realm").map(|(realm, _)| realm);
        let domains = profile.section("domain_realm").iter().filter_map(|node| match &node.value {
            Value::Relation(realm) => Some(realm.as_str()),
            Value::Section(_) => None,
        });
        for realm in named.chain(default.take(1)).chain(domains) {
            // What the sections after [realms] name in another case was mapped above.
            if !realms.iter().any(|known| known == realm) {
                realms.push(realm.to_owned());
            }
        }
        let warnings = remarks.warnings;
        Ok(Self { profile, krb5, text, kdcs, warnings, files: Vec::new(), realms, mapped: Mutex::default() })
    }

    /// What probably means something else than its author thinks.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The files that were read, with those that others include, in order. None for declared settings.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The settings for the `krb5` crate, with realms in the case of `[realms]`.
    pub fn krb5(&self) -> &Krb5Conf {
        &self.krb5
    }

    /// The settings as one text without includes, which MIT's tools read as well.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The settings as a program's own ([`Source::Declared`]), and what of them those cannot say: then the file has to stay.
    pub fn declaration(&self) -> (Declared, Vec<Remark>) {
        let (mut declared, mut left) = Declared::from_profile(&self.profile);
        for (name, realm) in &mut declared.realms {
            // What the profile holds of them was written for the `krb5` crate, which asks over TCP by itself.
            let kdcs = self.kdcs(name);
            if kdcs.len() != realm.kdc.len() {
                let text = format!("[realms] {name} has a kdc that cannot be asked, which no setting can say");
                left.push(Remark { file: None, line: None, text });
            }
            let place = |kdc: &Kdc| {
                let plain = kdc.port == 88 && !kdc.host.contains(':');
                let address = if plain { kdc.host.clone() } else { kdc.address() };
                format!("{}{address}", if kdc.tcp_only { "tcp/" } else { "" })
            };
            realm.kdc = kdcs.iter().map(place).collect();
        }
        (declared, left)
    }

    /// `[libdefaults] default_realm`.
    pub fn default_realm(&self) -> Option<&str> {
        self.krb5.default_realm()
    }

    /// A realm in the case that the settings write it in, which matters to KDCs. A realm that the settings do not name stays as it
    /// is. That a name was mapped is logged once for each configuration.
    ///
    /// # Errors
    ///
    /// When several realms differ from it in nothing but case, or it is no name of a realm.
    pub fn realm(&self, asked: &str) -> Result<String, RealmError> {
        if !check::is_realm(asked) {
            return Err(RealmError::Invalid(asked.chars().take(255).collect()));
        }
        match check::in_other_case(asked, &self.realms) {
            Ok(None) => Ok(asked.to_owned()),
            Ok(Some(known)) => {
                if known != asked {
                    let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
                    // Names differ in case only, so there are not many; but who asks decides.
                    if mapped.len() < MAX_MAPPED && mapped.insert(asked.to_owned()) {
                        tracing::warn!(
                            asked,
                            realm = known,
                            "Realms are case-sensitive; this one was taken for the one that is known"
                        );
                    }
                }
                Ok(known.to_owned())
            }
            Err(candidates) => Err(RealmError::Ambiguous { asked: asked.to_owned(), candidates }),
        }
    }

    /// The realm that `[domain_realm]` gives a host, as MIT's library looks it up: the host, then its domains.
    pub fn host_realm(&self, host: &str) -> Option<String> {
        self.krb5.host_realm(host).map(str::to_owned)
    }

    /// Whether there is a way to the KDCs of `realm`: they are listed, or DNS may be asked.
    pub fn defines(&self, realm: &str) -> bool {
        match self.realm(realm) {
            Ok(realm) => match self.kdcs.get(&realm) {
                Some(kdcs) if !kdcs.is_empty() => true,
                // What is listed keeps DNS from being asked, whether it can be used or not, as in MIT's library.
                _ => !check::lists_kdcs(&self.profile, &realm) && krb5::dns::dns_lookup_kdc(&self.krb5),
            },
            Err(_) => false,
        }
    }

    /// The KDCs that are listed for a realm, which must be in its right case.
    pub fn kdcs(&self, realm: &str) -> &[Kdc] {
        self.kdcs.get(realm).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether DNS is to be asked for the KDCs of a realm, which must be in its right case.
    pub fn asks_dns(&self, realm: &str) -> bool {
        self.kdcs(realm).is_empty() && self.defines(realm)
    }

    /// All realms that list KDCs.
    pub fn realms_with_kdcs(&self) -> impl Iterator<Item = &str> {
        self.kdcs.iter().filter(|(_, kdcs)| !kdcs.is_empty()).map(|(realm, _)| realm.as_str())
    }

    /// These settings with other KDCs, as `host:port`, in some realms.
    ///
    /// # Errors
    ///
    /// When one of them cannot stand in a `krb5.conf`.
    pub fn with_kdcs(&self, kdcs: &[(String, Vec<String>)]) -> Result<Krb5Conf, krb5::ConfigError> {
        Krb5Conf::parse(&self.profile.text(kdcs))
    }
}

/// Realms in another case that are remembered.
const MAX_MAPPED: usize = 100;

impl Remark {
    fn of(file: &Path, text: String) -> Self {
        Self { file: Some(file.to_path_buf()), line: None, text }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.text)
    }
}

impl ConfigError {
    fn without_places(mut self) -> Self {
        if let Self::Mistakes(mistakes) = &mut self {
            for mistake in mistakes {
                (mistake.file, mistake.line) = (None, None);
            }
        }
        self
    }
}

fn count(number: usize) -> String {
    if number == 1 { "a mistake".to_owned() } else { format!("{number} mistakes") }
}

fn join(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;

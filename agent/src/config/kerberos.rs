//! The settings of Kerberos: where its configuration is, and what of the agent's own tasks may use.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lictor_kerberos::config::{ConfigError, Configuration, Declared, Source};

use super::non_empty;
use super::reader::Reader;

/// Kerberos.
#[derive(Debug, Clone)]
pub struct Kerberos {
    /// The `krb5.conf` in use. Default: what `KRB5_CONFIG` names, else `/etc/krb5.conf`.
    pub krb5_conf: Option<PathBuf>,
    /// Realms and what else a `krb5.conf` would say. Default: none, and the file counts.
    pub declared: Option<Declared>,
    /// Keytabs that tasks may use: files, and directories of files. Default: none.
    pub keytabs: Vec<PathBuf>,
    /// Credential caches that tasks may use, beside the default one. Default: none.
    pub caches: Vec<String>,
}

impl Kerberos {
    /// Where the configuration is.
    pub(crate) fn source(&self) -> Source {
        match (&self.krb5_conf, &self.declared) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(declared)) => Source::Declared(declared.clone()),
            (None, None) => Source::System,
        }
    }

    /// Reads the configuration that the settings name or declare, if they do, to find its mistakes. Waits for the disk.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.is_given() { Configuration::load(&self.source()).map(drop) } else { Ok(()) }
    }

    /// Whether the settings say anything about where it is: then mistakes in it must not go unnoticed.
    pub(crate) fn is_given(&self) -> bool {
        self.krb5_conf.is_some() || self.declared.is_some()
    }
}

pub(super) fn read(reader: &mut Reader) -> Kerberos {
    let krb5_conf = reader.optional("kerberos.krb5_conf", |text| absolute(text).map(PathBuf::from));
    let given = |text: &str| non_empty(text).map(str::to_owned);
    let flag = |text: &str| text.parse::<bool>().map_err(|_| "must be true or false".to_owned());
    let declared = Declared {
        default_realm: reader.optional("kerberos.default_realm", given),
        realms: reader.table("kerberos.realms").unwrap_or_default(),
        domain_realm: reader.table::<BTreeMap<String, String>>("kerberos.domain_realm").unwrap_or_default(),
        dns_lookup_kdc: reader.optional("kerberos.dns_lookup_kdc", flag),
        dns_lookup_realm: reader.optional("kerberos.dns_lookup_realm", flag),
        rdns: reader.optional("kerberos.rdns", flag),
        dns_canonicalize_hostname: reader.optional("kerberos.dns_canonicalize_hostname", flag),
        forwardable: reader.optional("kerberos.forwardable", flag),
        ticket_lifetime: reader.optional("kerberos.ticket_lifetime", given),
        renew_lifetime: reader.optional("kerberos.renew_lifetime", given),
        udp_preference_limit: reader.optional("kerberos.udp_preference_limit", |text| {
            text.parse().map_err(|_| "must be a whole number from 0 to 65535".to_owned())
        }),
    };
    let declared = (declared != Declared::default()).then_some(declared);
    if krb5_conf.is_some() && declared.is_some() {
        reader.mistake(
            "kerberos.krb5_conf",
            "is set beside realms and the like, which would not count; set one or the other",
        );
    }
    Kerberos {
        krb5_conf,
        declared,
        keytabs: reader.list("kerberos.keytabs", MAX_KEYTABS, |text| absolute(text).map(PathBuf::from)),
        caches: reader.list("kerberos.caches", MAX_CACHES, |text| {
            let path = text.strip_prefix("FILE:").or_else(|| text.strip_prefix("DIR:")).unwrap_or(text);
            absolute(path).map(|_| text.to_owned())
        }),
    }
}

/// A task names files by their whole paths, wherever the agent was started.
fn absolute(text: &str) -> Result<&str, String> {
    if text.starts_with('/') { Ok(text) } else { Err("is not an absolute path".into()) }
}

const MAX_KEYTABS: usize = 100;
const MAX_CACHES: usize = 100;

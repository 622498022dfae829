//! The settings of Kerberos: where its configuration is, and what of the agent's own tasks may use.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lictor_kerberos::config::{ConfigError, Configuration, Declared, Source};
use lictor_settings::{Form, Reader};

use super::non_empty;

/// Kerberos.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kerberos {
    /// The configuration of Kerberos. Not beside the settings that declare one; see [Kerberos](#kerberos). Default:
    /// `KRB5_CONFIG`, else `/etc/krb5.conf`. Example: `/etc/lictor/krb5/krb5.conf`.
    pub krb5_conf: Option<PathBuf>,
    /// What a `krb5.conf` would say, when the settings say it. Else the file counts.
    #[cfg_attr(test, schemars(flatten, with = "Declares"))]
    pub declared: Option<Declared>,
    /// Keytabs that tasks may use: files, and directories of files. What they hold is announced to the control plane.
    /// Example: `/etc/lictor/keytabs`.
    pub keytabs: Vec<PathBuf>,
    /// Credential caches that tasks may use beside the default one (`KRB5CCNAME`, else `/tmp/krb5cc_<uid>`). Range:
    /// at most 100 of `FILE:path`, `DIR:path`, a path.
    pub caches: Vec<String>,
}

/// The settings that make a [`Declared`], as the reference tells them.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "its schema is what it is for")]
pub(super) struct Declares {
    /// Realm of users whose name says none.
    default_realm: Option<String>,
    /// Realms by name, each with `kdc` (a list of `host` or `host:port`, in order of preference), `admin_server`, `kpasswd_server`,
    /// `primary_kdc`, `default_domain`.
    realms: BTreeMap<String, DeclaresRealm>,
    /// Realms of hosts: `host.corp.example` for one host, `.corp.example` for all below a domain.
    domain_realm: BTreeMap<String, String>,
    /// Whether KDCs of realms without `kdc` are looked up in DNS. Default: `true`.
    dns_lookup_kdc: bool,
    /// Whether MIT's programs look realms of hosts up in DNS. Default: `false`.
    dns_lookup_realm: bool,
    /// Whether MIT's programs look names of hosts up backwards; `false` is better. Default: `true`.
    rdns: bool,
    /// Whether MIT's programs replace names of hosts by what DNS says. Default: `true`.
    dns_canonicalize_hostname: bool,
    /// Whether tickets are asked for that can be delegated. Default: `false`.
    forwardable: bool,
    /// How long tickets are asked for. Default: a day.
    ticket_lifetime: String,
    /// How long tickets can be renewed.
    renew_lifetime: String,
    /// Requests of more bytes go over TCP at once; `1` for TCP always. Default: `1465`.
    udp_preference_limit: u16,
}

/// One realm of them.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "its schema is what it is for")]
pub(super) struct DeclaresRealm {
    /// KDCs as `host` or `host:port`, in the order of preference. Without any they are looked up in DNS.
    #[schemars(default)]
    kdc: Vec<String>,
    /// The KDC that passwords are changed on first, for MIT's programs.
    primary_kdc: Option<String>,
    /// The server for kadmin, and for changing passwords when there is no `kpasswd_server`.
    admin_server: Option<String>,
    /// The server for changing passwords.
    kpasswd_server: Option<String>,
    /// The domain that names of Kerberos 4 are completed with.
    default_domain: Option<String>,
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
    let krb5_conf = reader.optional("kerberos.krb5_conf", Form::AbsolutePath, |text| absolute(text).map(PathBuf::from));
    let given = |text: &str| non_empty(text).map(str::to_owned);
    let declared = Declared {
        default_realm: reader.optional("kerberos.default_realm", REALM_FORM, given),
        realms: reader
            .table("kerberos.realms", "a table", "CORP.EXAMPLE: { kdc: [dc1.corp.example, \"dc2.corp.example:88\"] }")
            .unwrap_or_default(),
        domain_realm: reader
            .table::<BTreeMap<String, String>>("kerberos.domain_realm", "a table", ".corp.example: CORP.EXAMPLE")
            .unwrap_or_default(),
        dns_lookup_kdc: reader.optional_flag("kerberos.dns_lookup_kdc"),
        dns_lookup_realm: reader.optional_flag("kerberos.dns_lookup_realm"),
        rdns: reader.optional_flag("kerberos.rdns"),
        dns_canonicalize_hostname: reader.optional_flag("kerberos.dns_canonicalize_hostname"),
        forwardable: reader.optional_flag("kerberos.forwardable"),
        ticket_lifetime: reader.optional("kerberos.ticket_lifetime", lifetime("10h"), given),
        renew_lifetime: reader.optional("kerberos.renew_lifetime", lifetime("7d"), given),
        udp_preference_limit: reader.optional_number("kerberos.udp_preference_limit", 0, u16::MAX),
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
        keytabs: reader
            .list("kerberos.keytabs", MAX_KEYTABS, Form::AbsolutePath, |text| absolute(text).map(PathBuf::from)),
        caches: reader.list("kerberos.caches", MAX_CACHES, CACHE_FORM, |text| {
            let path = text.strip_prefix("FILE:").or_else(|| text.strip_prefix("DIR:")).unwrap_or(text);
            absolute(path).map(|_| text.to_owned())
        }),
    }
}

/// MIT reads `h:m[:s]` and a bare number of seconds, too; what is wrong with one is found with the rest of the configuration.
fn lifetime(example: &'static str) -> Form {
    Form::Written { pattern: "^[0-9dhms: ]+$", words: "a time as in a `krb5.conf`", example }
}

/// A task names files by their whole paths, wherever the agent was started.
fn absolute(text: &str) -> Result<&str, String> {
    if text.starts_with('/') { Ok(text) } else { Err("is not an absolute path".into()) }
}

/// Keys of this section that are tables as a whole.
pub(super) const TABLES: &[&str] = &["kerberos.realms", "kerberos.domain_realm"];
const REALM_FORM: Form = Form::Written { pattern: "^[^ ]+$", words: "a realm", example: "CORP.EXAMPLE" };
const CACHE_FORM: Form = Form::Written {
    pattern: "^(FILE:|DIR:)?/",
    words: "`FILE:path`, `DIR:path`, a path",
    example: "DIR:/var/run/krb5",
};
const MAX_KEYTABS: usize = 100;
const MAX_CACHES: usize = 100;

//! A configuration that stands in a program's own settings instead of a `krb5.conf`, and its text for MIT's tools.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Deserialize;

use super::Remark;
use super::check::boolean;
use super::profile::{Node, Profile, Value, quoted};

/// Realms and what `[libdefaults]` holds of interest for a client. What is not set keeps MIT's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    /// The realm of names without one.
    pub default_realm: Option<String>,
    /// Realms by their names, which are upper case with Active Directory.
    pub realms: BTreeMap<String, Realm>,
    /// Realms of hosts: `host.corp.example` for one host, `.corp.example` for all below a domain. In lower case.
    pub domain_realm: BTreeMap<String, String>,
    /// Whether KDCs of realms without `kdc` are looked up in DNS. Default: yes.
    pub dns_lookup_kdc: Option<bool>,
    /// Whether realms of hosts are looked up in DNS, by MIT's tools. Default: no.
    pub dns_lookup_realm: Option<bool>,
    /// Whether MIT's tools look names of hosts up backwards. Default: yes, which most networks cannot bear; `false` is better.
    pub rdns: Option<bool>,
    /// Whether MIT's tools replace names of hosts by what DNS says. Default: yes.
    pub dns_canonicalize_hostname: Option<bool>,
    /// Whether tickets are asked for that can be delegated. Default: no.
    pub forwardable: Option<bool>,
    /// How long tickets are asked for, such as `10h`. Default: one day.
    pub ticket_lifetime: Option<String>,
    /// How long tickets can be renewed, such as `7d`. Default: not at all.
    pub renew_lifetime: Option<String>,
    /// Requests of more bytes than this go over TCP at once; 1 for TCP always. Default: 1465.
    pub udp_preference_limit: Option<u16>,
}

/// The servers of one realm, as `host` or `host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Realm {
    /// KDCs, in the order of preference. Without any they are looked up in DNS.
    pub kdc: Vec<String>,
    /// The KDC that passwords are changed on first, for MIT's tools.
    pub primary_kdc: Option<String>,
    /// The server for kadmin, and for changing passwords when there is no `kpasswd_server`.
    pub admin_server: Option<String>,
    /// The server for changing passwords.
    pub kpasswd_server: Option<String>,
    /// The domain that names of Kerberos 4 are completed with.
    pub default_domain: Option<String>,
}

impl Declared {
    /// The text of a `krb5.conf`. Names and values that would become something else in it are reported by where they stand.
    pub(super) fn text(&self) -> Result<String, Vec<String>> {
        let mut out = Text { text: String::from(HEADER), mistakes: Vec::new() };
        out.text.push_str("[libdefaults]\n");
        out.option("default_realm", self.default_realm.as_deref());
        for (name, value) in [
            ("dns_lookup_kdc", self.dns_lookup_kdc),
            ("dns_lookup_realm", self.dns_lookup_realm),
            ("rdns", self.rdns),
            ("dns_canonicalize_hostname", self.dns_canonicalize_hostname),
            ("forwardable", self.forwardable),
        ] {
            out.option(name, value.map(|value| if value { "true" } else { "false" }));
        }
        out.option("ticket_lifetime", self.ticket_lifetime.as_deref());
        out.option("renew_lifetime", self.renew_lifetime.as_deref());
        out.option("udp_preference_limit", self.udp_preference_limit.map(|limit| limit.to_string()).as_deref());
        out.text.push_str("\n[realms]\n");
        for (name, realm) in &self.realms {
            out.check_name("realms", name);
            out.line(format_args!("    {name} = {{"));
            for kdc in &realm.kdc {
                out.relation(8, &format!("realms.{name}.kdc"), "kdc", kdc);
            }
            for (key, value) in [
                ("primary_kdc", &realm.primary_kdc),
                ("admin_server", &realm.admin_server),
                ("kpasswd_server", &realm.kpasswd_server),
                ("default_domain", &realm.default_domain),
            ] {
                if let Some(value) = value {
                    out.relation(8, &format!("realms.{name}.{key}"), key, value);
                }
            }
            out.line(format_args!("    }}"));
        }
        out.text.push_str("\n[domain_realm]\n");
        for (domain, realm) in &self.domain_realm {
            out.check_name("domain_realm", domain);
            out.relation(4, &format!("domain_realm.{domain}"), domain, realm);
        }
        if out.mistakes.is_empty() { Ok(out.text) } else { Err(out.mistakes) }
    }
}

impl Declared {
    /// What a `krb5.conf` says, as settings, and what of it no setting can say. What servers log is neither.
    pub(super) fn from_profile(profile: &Profile) -> (Self, Vec<Remark>) {
        let mut declared = Self::default();
        let mut left = Vec::new();
        for section in &profile.root {
            let Value::Section(nodes) = &section.value else { continue };
            for node in nodes {
                let taken = match (section.name.as_str(), &node.value) {
                    ("libdefaults", Value::Relation(value)) => declared.take_option(&node.name, value),
                    ("realms", Value::Section(servers)) => {
                        let realm = declared.realms.entry(node.name.clone()).or_default();
                        left.extend(servers.iter().filter(|server| !realm.take(server)).map(|server| {
                            server.remark(format!("[realms] {} {} has no setting", node.name, server.name))
                        }));
                        true
                    }
                    ("domain_realm", Value::Relation(realm)) => {
                        // The first value counts.
                        declared.domain_realm.entry(node.name.clone()).or_insert_with(|| realm.clone());
                        true
                    }
                    ("logging", _) => true,
                    _ => false,
                };
                if !taken {
                    left.push(node.remark(format!("[{}] {} has no setting", section.name, node.name)));
                }
            }
        }
        (declared, left)
    }

    /// Whether there is a setting for it.
    fn take_option(&mut self, name: &str, value: &str) -> bool {
        let text = |place: &mut Option<String>| {
            place.get_or_insert_with(|| value.to_owned());
            true
        };
        let flag = |place: &mut Option<bool>| match boolean(value) {
            Some(flag) => {
                place.get_or_insert(flag);
                true
            }
            None => false,
        };
        match name {
            "default_realm" => text(&mut self.default_realm),
            "ticket_lifetime" => text(&mut self.ticket_lifetime),
            "renew_lifetime" => text(&mut self.renew_lifetime),
            "dns_lookup_kdc" => flag(&mut self.dns_lookup_kdc),
            "dns_lookup_realm" => flag(&mut self.dns_lookup_realm),
            "rdns" => flag(&mut self.rdns),
            "dns_canonicalize_hostname" => flag(&mut self.dns_canonicalize_hostname),
            "forwardable" => flag(&mut self.forwardable),
            "udp_preference_limit" => match value.parse() {
                Ok(limit) => {
                    self.udp_preference_limit.get_or_insert(limit);
                    true
                }
                Err(_) => false,
            },
            _ => false,
        }
    }
}

impl Realm {
    /// Whether there is a setting for it.
    fn take(&mut self, server: &Node) -> bool {
        let Value::Relation(value) = &server.value else { return false };
        let place = match server.name.as_str() {
            "kdc" => {
                self.kdc.push(value.clone());
                return true;
            }
            // The older name of the same.
            "primary_kdc" | "master_kdc" => &mut self.primary_kdc,
            "admin_server" => &mut self.admin_server,
            "kpasswd_server" => &mut self.kpasswd_server,
            "default_domain" => &mut self.default_domain,
            _ => return false,
        };
        place.get_or_insert_with(|| value.clone());
        true
    }
}

const HEADER: &str = "# Written by Lictor from its own settings. Changes made here are overwritten.\n";

struct Text {
    text: String,
    mistakes: Vec<String>,
}

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn option(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.relation(4, name, name, value);
        }
    }

    fn relation(&mut self, indent: usize, at: &str, name: &str, value: &str) {
        if value.trim().is_empty() || value.chars().any(char::is_control) {
            self.mistakes.push(format!("{at}: {value:?} is empty or holds control characters"));
        }
        self.line(format_args!("{:indent$}{name} = {}", "", quoted(value)));
    }

    /// A name stands in the text as it is, so it must not hold what has a meaning there.
    fn check_name(&mut self, section: &str, name: &str) {
        let begins_well = !name.starts_with(['#', ';', '[', '}']);
        let known =
            |character: char| !character.is_whitespace() && !character.is_control() && !"=*{}\"".contains(character);
        if name.is_empty() || !begins_well || !name.chars().all(known) {
            self.mistakes.push(format!("{section}: {name:?} is no name that a krb5.conf can hold"));
        }
    }
}

/// Puts `text` in the place of `path` in one step, readable by everybody, as MIT's tools of other users expect. Nothing happens
/// when it is there already.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let name = path.file_name().ok_or_else(|| io::Error::other("this names no file"))?.to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    // What a process of the same id left behind when it was killed.
    let _absent = fs::remove_file(&beside);
    let written = OpenOptions::new().write(true).create_new(true).open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _absent = fs::remove_file(&beside);
    }
    written
}
